// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "io.h"

#define STUCK 100000 /* answers of -EWOULDBLOCK in a row after which the engine goes round in circles */

static uint64_t mix(uint64_t value, uint64_t number)
{
	return (value ^ number * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;
}

void stamp(uint8_t *sector, uint64_t number, uint64_t value)
{
	uint64_t w[SECTOR / 8], x = mix(value, number);
	unsigned i;

	if (!value) {
		memset(sector, 0, SECTOR);
		return;
	}
	w[0] = value;
	w[1] = number;
	for (i = 2; i < SECTOR / 8; i++)
		w[i] = x + i;
	memcpy(sector, w, SECTOR);
}

uint64_t stamp_read(const uint8_t *sector, uint64_t number)
{
	uint64_t w[SECTOR / 8], x, bad = 0;
	unsigned i;

	memcpy(w, sector, SECTOR);
	if (!w[0]) {
		for (i = 1; i < SECTOR / 8; i++)
			bad |= w[i];
		return bad ? VALUE_BAD : 0;
	}
	x = mix(w[0], number);
	bad = w[1] ^ number;
	for (i = 2; i < SECTOR / 8; i++)
		bad |= w[i] ^ (x + i);
	return bad ? VALUE_BAD : w[0];
}

void stamp_describe(const uint8_t *sector, char *out, size_t size)
{
	uint64_t w[2];

	memcpy(w, sector, 16);
	if (stamp_read(sector, w[1]) != VALUE_BAD)
		snprintf(out, size, "the stamp of write %llu to sector %llu", (unsigned long long)w[0], (unsigned long long)w[1]);
	else if (w[0] == 0xeeeeeeeeeeeeeeeeull)
		snprintf(out, size, "a disk sector never written");
	else if (w[0] == 0xddddddddddddddddull)
		snprintf(out, size, "a discarded disk sector");
	else
		snprintf(out, size, "%016llx %016llx…", (unsigned long long)w[0], (unsigned long long)w[1]);
}

uint64_t base_sectors(const char *path)
{
	return strncmp(path, "base:", 5) ? 0 : strtoull(path + 5, NULL, 10);
}

void base_path(char *out, size_t size, uint64_t sectors)
{
	snprintf(out, size, "base:%llu", (unsigned long long)sectors);
}

void base_read(uint64_t nsectors, uint64_t off, uint8_t *buf, uint64_t len)
{
	uint64_t s = off / SECTOR;

	for (; len; len -= SECTOR, buf += SECTOR, s++)
		stamp(buf, s, s < nsectors ? VALUE_BASE : 0);
}

int io_run_read(struct sim *sim, const struct vd_io *io, uint64_t nbase, uint64_t off, void *buf)
{
	switch (io->kind) {
	case VD_RUN_DATA:
		return sim_data_read(sim, io->pblk, io->offset, buf, io->bytes);
	case VD_RUN_BASE:
		base_read(nbase, off, buf, io->bytes);
		return 0;
	case VD_RUN_ZERO:
	case VD_RUN_HOLE:
		memset(buf, 0, io->bytes);
		return 0;
	case VD_RUN_NEW:
		break;
	}
	fprintf(stderr, "a read run of kind %d\n", io->kind);
	abort();
}

static int fill(struct sim *sim, const struct vd_fill *f, uint64_t nbase, uint64_t off, uint8_t *block)
{
	switch (f->kind) {
	case VD_FILL_DATA:
		return sim_data_read(sim, f->pblk, 0, block, VD_BLOCK);
	case VD_FILL_BASE:
		base_read(nbase, off, block, VD_BLOCK);
		return 0;
	case VD_FILL_ZERO:
		memset(block, 0, VD_BLOCK);
		return 0;
	case VD_FILL_NONE:
		break;
	}
	fprintf(stderr, "a partly written block without a fill\n");
	abort();
}

int io_run_write(struct sim *sim, const struct vd_io *io, uint64_t nbase, uint64_t off, const void *buf)
{
	uint64_t first = off - io->offset;
	uint32_t end = io->offset + io->bytes, whole = io->nblocks * VD_BLOCK;
	uint8_t *b;
	int r = 0;

	if (io->kind == VD_RUN_DATA)
		return sim_data_write(sim, io->pblk, io->offset, buf, io->bytes);
	if (io->kind != VD_RUN_NEW) {
		fprintf(stderr, "a write run of kind %d\n", io->kind);
		abort();
	}
	if (off % VD_BLOCK != io->offset || (end + VD_BLOCK - 1) / VD_BLOCK != io->nblocks) {
		fprintf(stderr, "a write run of %u bytes at %u in %u blocks\n", io->bytes, io->offset, io->nblocks);
		abort();
	}
	b = malloc(whole);
	if (!b)
		abort();
	if (io->offset || (io->nblocks == 1 && end != whole))
		r = fill(sim, &io->head, nbase, first, b);
	if (!r && end != whole && io->nblocks > 1)
		r = fill(sim, &io->tail, nbase, first + whole - VD_BLOCK, b + whole - VD_BLOCK);
	if (!r) {
		memcpy(b + io->offset, buf, io->bytes);
		r = sim_data_write(sim, io->pblk, 0, b, whole);
	}
	free(b);
	return r;
}

static void stuck(const char *what, uint64_t off, uint64_t len)
{
	fprintf(stderr, "a %s of %llu+%llu waits and waits\n", what, (unsigned long long)off, (unsigned long long)len);
	abort();
}

int io_read(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, void *buf, uint64_t len, uint64_t *done)
{
	uint64_t n = 0;
	unsigned tries = 0;
	struct vd_io io;
	int r = 0;

	while (n < len) {
		r = vd_read_begin(vol, off + n, len - n, &io);
		if (r == -EWOULDBLOCK) {
			if (++tries > STUCK)
				stuck("read", off, len);
			r = vd_io_wait(&io);
			if (!r)
				continue;
		}
		if (r)
			break;
		tries = 0;
		if (!io.bytes || io.bytes > len - n || io.bytes % SECTOR)
			abort();
		r = io_run_read(sim, &io, nbase, off + n, (uint8_t *)buf + n);
		n += io.bytes;
		vd_read_end(&io);
		if (r) {
			n -= io.bytes;
			break;
		}
	}
	if (done)
		*done = n;
	return r;
}

int io_write(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, const void *buf, uint64_t len, uint64_t *done)
{
	uint64_t n = 0;
	unsigned tries = 0;
	struct vd_io io;
	int r = 0;

	while (n < len) {
		r = vd_write_begin(vol, off + n, len - n, &io);
		if (r == -EWOULDBLOCK) {
			if (++tries > STUCK)
				stuck("write", off, len);
			r = vd_io_wait(&io);
			if (!r)
				continue;
		}
		if (r)
			break;
		tries = 0;
		if (!io.bytes || io.bytes > len - n || io.bytes % SECTOR)
			abort();
		r = io_run_write(sim, &io, nbase, off + n, (const uint8_t *)buf + n);
		r = vd_write_end(&io, r);
		if (r)
			break;
		n += io.bytes;
	}
	if (done)
		*done = n;
	return r;
}

int io_stamp(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, uint64_t len, uint64_t value, uint64_t *done)
{
	uint8_t *buf = malloc(len);
	uint64_t i;
	int r;

	if (!buf)
		abort();
	for (i = 0; i < len; i += SECTOR)
		stamp(buf + i, (off + i) / SECTOR, value);
	r = io_write(sim, vol, nbase, off, buf, len, done);
	free(buf);
	return r;
}
