// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The images of inputs, and what the engine here says to them, for who asks it elsewhere
 * (tests/lab/corpus.c): with FZ_SAVE=FILE a run is no run, but adds an image to FILE, whose
 * members are at multiples of FZ_PLACE, two an image, and a line to FILE.answers:
 *
 *   NUMBER BLOCKS BLOCKS refused|rw|ro|? [VOLUME:SUM]...
 *
 * ?: the labels do not say what the engine was told about the members.  SUM is of the
 * beginning of a volume; -: it cannot be opened by its name alone, being locked, say, or on a
 * base image.
 */
#include <fcntl.h>
#include <unistd.h>

#include "disk.h"

#define PIECE 65536u
#define PIECES 16u

/* What was never written, and what was discarded: zeros to real disks. */
static bool is_garbage(const uint8_t *sector)
{
	return (sector[0] == 0xee || sector[0] == 0xdd) && !memcmp(sector, sector + 1, 511);
}

static void no_garbage(uint8_t *buf, unsigned len)
{
	unsigned i;

	for (i = 0; i < len; i += 512)
		if (is_garbage(buf + i))
			memset(buf + i, 0, 512);
}

static void save_members(const struct sim *sim, int fd, uint64_t at)
{
	static const uint8_t zeros[VD_BLOCK];
	uint8_t buf[VD_BLOCK];
	uint64_t b;
	unsigned m;

	for (m = 0; m < sim->nmembers && m < 2; m++, at += FZ_PLACE)
		for (b = 0; b < sim->member[m]->blocks; b++) {
			fz_peek(sim, m, b, buf);
			no_garbage(buf, sizeof(buf));
			if (memcmp(buf, zeros, sizeof(buf)) && pwrite(fd, buf, sizeof(buf), (off_t)(at + b * VD_BLOCK)) != sizeof(buf))
				fz_fault("saving an image");
		}
}

static bool labels_say_so(struct fz_disk *d, const struct vd_host *host)
{
	struct vd_disk_label *label = must_zero(sizeof(*label));
	uint64_t pool = 0;
	bool so = true;
	unsigned m;

	for (m = 0; so && m < d->sim->nmembers; m++) {
		so = !vd_label_read(host, m, label) && le32_to_cpu(label->index) == m && (!m || !memcmp(&pool, label->pool, sizeof(pool)));
		memcpy(&pool, label->pool, sizeof(pool));
	}
	free(label);
	return so;
}

static struct vd_pool_info info;

static bool is_left_out(const struct fz_disk *d, unsigned m)
{
	return m >= d->sim->nmembers || (info.missing[m / 8] & ~info.too_short[m / 8]) >> (m % 8) & 1;
}

static int read_piece(struct fz_disk *d, struct vd_volume *vol, uint64_t off, uint8_t *buf)
{
	uint32_t len = PIECE;
	struct vd_io io;
	int r;

	memset(buf, 0, PIECE);
	while (len) {
		r = vd_read_begin(vol, off, len, &io);
		if (r == -EWOULDBLOCK)
			r = vd_io_wait(&io);
		else if (!r) {
			if (io.kind == VD_RUN_DATA)
				r = is_left_out(d, VD_PBLK_MEMBER(io.pblk)) ? -ENODEV : sim_data_read(d->sim, io.pblk, io.offset, buf, io.bytes);
			vd_read_end(&io);
			off += io.bytes;
			len -= io.bytes;
			buf += io.bytes;
		}
		if (r)
			return r;
	}
	return 0;
}

/* The same as corpus.c makes. */
static uint32_t sum(struct fz_disk *d, struct vd_volume *vol)
{
	static uint8_t buf[PIECE];
	uint32_t crc = ~0u;
	unsigned i;

	for (i = 0; i < PIECES && (i + 1ull) * PIECE <= vd_volume_size(vol); i++) {
		if (read_piece(d, vol, (uint64_t)i * PIECE, buf))
			memset(buf, 'E', PIECE);
		no_garbage(buf, PIECE);
		crc = vd_port_crc32c(crc, buf, PIECE);
	}
	return crc;
}

static void answer_volumes(struct fz_disk *d, struct vd_pool *pool, FILE *f)
{
	struct vd_volume_info *v = must_zero(sizeof(*v));
	struct vd_volume *vol;
	uint32_t id, found;

	for (id = 0; !vd_volume_next(pool, &id, NULL); id++) {
		if (!vd_volume_info(pool, id, v) && !(v->flags & (VD_VOL_LOCKED | VD_VOL_BASE)) &&
		    !vd_volume_find(pool, v->name, &found) && found == id && !vd_volume_open(pool, id, &vol)) {
			fprintf(f, " %u:%08x", id, sum(d, vol));
			vd_volume_close(vol);
		} else {
			fprintf(f, " %u:-", id);
		}
	}
	free(v);
}

void fz_save(struct fz_disk *d, const char *path)
{
	static const struct vd_disk_holder self = { .host = "host-of-fuzzing", .boot = "boot-2", .purpose = "fuzz" };
	int fd = open(path, O_RDWR | O_CREAT, 0644);
	struct vd_pool *pool = NULL;
	struct vd_host host;
	char answers[512];
	uint64_t at;
	FILE *f;
	int r;

	snprintf(answers, sizeof(answers), "%s.answers", path);
	f = fopen(answers, "a");
	if (fd < 0 || !f)
		fz_fault("%s cannot be written", path);
	at = (uint64_t)lseek(fd, 0, SEEK_END);
	save_members(d->sim, fd, at);
	if (ftruncate(fd, (off_t)(at + 2 * FZ_PLACE)))
		fz_fault("%s cannot be extended", path);
	close(fd);
	sim_unfail(d->sim);
	d->sim->no_tail = true;
	fz_host(d, &host);
	fprintf(f, "%llu %llu %llu ", (unsigned long long)(at / FZ_PLACE / 2), (unsigned long long)d->sim->member[0]->blocks,
		d->sim->nmembers > 1 ? (unsigned long long)d->sim->member[1]->blocks : 0ull);
	if (!labels_say_so(d, &host)) {
		fprintf(f, "?\n");
	} else if (fz_answer("vd_pool_open", vd_pool_open(&host, 0, &self, &pool))) {
		fprintf(f, "refused\n");
	} else {
		vd_pool_info(pool, &info);
		fprintf(f, info.mode >= VD_MODE_READONLY ? "ro" : "rw");
		answer_volumes(d, pool, f);
		fprintf(f, "\n");
		r = vd_pool_close(pool);
		(void)r;
	}
	fclose(f);
}
