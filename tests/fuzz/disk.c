// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "tests/model/sim.c" /* the makefile gives a fuzz target the engine and libvol only */

#include "disk.h"

#include <sanitizer/asan_interface.h>
#include <stdarg.h>

#define CALLS_MAX 400000u      /* F1: host calls of one run */
#define TRIES_MAX 2000u        /* F1: -EWOULDBLOCK in a row */
#define ALLOC_MAX (64u << 20)  /* F3: in one piece */
#define BYTES_MAX (768u << 20) /* F3: in all */

void fz_fault(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "FAULT: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	abort();
}

int fz_answer(const char *call, int r)
{
	if (r > 0 || r < -200)
		fz_fault("%s answered %d", call, r);
	return r;
}

/* ---- memory --------------------------------------------------------------- */

/*
 * The engine takes some buffers of hundreds of KiB at every open.  Getting them
 * from the system each time is most of a run's cost, so they are kept, poisoned
 * while nobody has them.
 */
#define BIG (128u << 10)
#define GUARD 64u
#define SLOTS 16u
static struct { void *p; size_t size; bool taken; } slot[SLOTS];

static void *big_alloc(size_t size)
{
	unsigned i;

	for (i = 0; i < SLOTS; i++) {
		if (slot[i].p && (slot[i].taken || slot[i].size != size))
			continue;
		if (!slot[i].p) {
			slot[i].p = must_alloc(size + GUARD);
			slot[i].size = size;
		}
		slot[i].taken = true;
		ASAN_UNPOISON_MEMORY_REGION(slot[i].p, size);
		ASAN_POISON_MEMORY_REGION((char *)slot[i].p + size, GUARD);
		memset(slot[i].p, ALLOCATED, 16384);
		return slot[i].p;
	}
	return NULL;
}

static bool big_free(void *p)
{
	unsigned i;

	for (i = 0; i < SLOTS; i++) {
		if (slot[i].p != p)
			continue;
		if (!slot[i].taken)
			fz_fault("memory freed twice");
		slot[i].taken = false;
		ASAN_POISON_MEMORY_REGION(p, slot[i].size);
		return true;
	}
	return false;
}

struct prefix { size_t size, magic; };
#define PREFIX_MAGIC 0x6672616d65ull

static void *fz_alloc(void *ctx, size_t size, int how)
{
	struct fz_disk *d = ctx;
	struct prefix *p = NULL;

	if (size > ALLOC_MAX || d->bytes + size > BYTES_MAX)
		fz_fault("%zu bytes of memory asked for, beside %llu", size, (unsigned long long)d->bytes);
	if (size + sizeof(*p) >= BIG && !d->sim->fault.armed)
		p = big_alloc(size + sizeof(*p));
	if (p)
		d->sim->live++;
	else
		p = d->inner.alloc(d->inner.ctx, size + sizeof(*p), how);
	if (!p)
		return NULL;
	p->size = size;
	p->magic = PREFIX_MAGIC;
	d->bytes += size;
	return p + 1;
}

static void fz_free(void *ctx, void *mem)
{
	struct fz_disk *d = ctx;
	struct prefix *p = mem;

	if (!mem)
		return;
	p--;
	if (p->magic != PREFIX_MAGIC)
		fz_fault("freed what was not allocated");
	d->bytes -= p->size;
	if (big_free(p))
		d->sim->live--;
	else
		d->inner.free(d->inner.ctx, p);
}

/* ---- disks ----------------------------------------------------------------- */

static void count_call(struct fz_disk *d)
{
	if (++d->calls > CALLS_MAX)
		fz_fault("more than %u host calls: it does not end", CALLS_MAX);
}

/* 0, or what the real host says to such a thing. */
static int place(struct fz_disk *d, const char *what, unsigned m, uint64_t block, uint64_t n)
{
	count_call(d);
	if (m < d->sim->nmembers && d->sim->member[m]->missing)
		return -ENODEV;
	/* Labels are looked for on all members there could be. */
	if (m >= d->sim->nmembers && (!d->strict || (m < VD_MEMBERS_MAX && !block)))
		return -ENODEV;
	if (m < d->sim->nmembers && n && block < d->sim->member[m]->blocks && n <= d->sim->member[m]->blocks - block)
		return 0;
	if (d->strict)
		fz_fault("%s of blocks %llu+%llu of member %u, which has %llu", what, (unsigned long long)block,
			 (unsigned long long)n, m, m < d->sim->nmembers ? (unsigned long long)d->sim->member[m]->blocks : 0);
	return -EIO;
}

static int fz_host_read(void *ctx, unsigned m, uint64_t block, void *buf, unsigned n)
{
	struct fz_disk *d = ctx;
	int r = place(d, "read", m, block, n);

	return r ? r : d->inner.read(d->inner.ctx, m, block, buf, n);
}

static int fz_host_write(void *ctx, unsigned m, uint64_t block, const void *buf, unsigned n)
{
	struct fz_disk *d = ctx;
	int r = place(d, "write", m, block, n);

	return r ? r : d->inner.write(d->inner.ctx, m, block, buf, n);
}

static int fz_host_flush(void *ctx, unsigned m)
{
	struct fz_disk *d = ctx;

	count_call(d);
	return m < d->sim->nmembers ? d->inner.flush(d->inner.ctx, m) : -ENODEV;
}

static int fz_host_discard(void *ctx, unsigned m, uint64_t block, uint64_t n)
{
	struct fz_disk *d = ctx;
	int r = place(d, "discard", m, block, n);

	return r ? r : d->inner.discard(d->inner.ctx, m, block, n);
}

static uint64_t fz_now(void *ctx) { return host_now(((struct fz_disk *)ctx)->sim); }
static void fz_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b) { host_log(((struct fz_disk *)ctx)->sim, level, msg, a, b); }
static void fz_kick(void *ctx) { host_kick(((struct fz_disk *)ctx)->sim); }
static void *fz_tail(void *ctx, size_t size)
{
	struct sim *sim = ((struct fz_disk *)ctx)->sim;

	return sim->tail && size > sim->tail_size ? NULL : host_tail(sim, size);
}

void fz_host(struct fz_disk *d, struct vd_host *host)
{
	*host = (struct vd_host){
		.ctx = d, .read = fz_host_read, .write = fz_host_write, .flush = fz_host_flush, .discard = fz_host_discard,
		.alloc = fz_alloc, .free = fz_free, .now = fz_now, .log = fz_log, .kick = fz_kick, .tail = fz_tail,
	};
}

void fz_disk_init(struct fz_disk *d, struct sim *sim, bool strict)
{
	memset(d, 0, sizeof(*d));
	d->sim = sim;
	d->strict = strict;
	sim->verbose = getenv("FZ_VERBOSE") != NULL;
	sim_host(sim, &d->inner);
}

void fz_disk_fini(struct fz_disk *d)
{
	if (d->sim->live || d->bytes)
		fz_fault("%lld allocations of %llu bytes were not freed", (long long)d->sim->live, (unsigned long long)d->bytes);
	sim_free(d->sim);
	d->sim = NULL;
}

void fz_fail(struct fz_disk *d, uint16_t what)
{
	if (what)
		sim_fail(d->sim, (enum sim_call)(what & 3), 1u + (what >> 8) * 3u, -EIO, what & 4);
}

void fz_peek(const struct sim *sim, unsigned m, uint64_t block, void *buf)
{
	sim_peek((struct sim *)sim, m, block, buf);
}

void fz_poke(struct sim *sim, unsigned m, uint64_t block, const void *buf)
{
	if (m >= sim->nmembers || block >= sim->member[m]->blocks)
		return;
	put(sim->member[m], block * VD_SECTORS_PER_BLOCK, VD_SECTORS_PER_BLOCK, buf, NULL);
	settle(sim->member[m], sim->member[m]->durable, sim->member[m]->now);
}

/* ---- data I/O ---------------------------------------------------------------- */

static uint8_t scratch[VD_IO_MAX_BYTES + 2 * VD_BLOCK];

static int data(struct fz_disk *d, vd_pblk_t p, uint32_t offset, void *buf, uint32_t bytes, bool write)
{
	uint64_t block = VD_PBLK_BLOCK(p), n = (offset + (uint64_t)bytes + VD_BLOCK - 1) >> VD_BLOCK_SHIFT;
	int r = place(d, write ? "data write" : "data read", VD_PBLK_MEMBER(p), block, n);

	if (r)
		return r;
	if (block < VD_SYSTEM_BLOCKS)
		fz_fault("data I/O on system block %llu", (unsigned long long)block);
	return write ? sim_data_write(d->sim, p, offset, buf, bytes) : sim_data_read(d->sim, p, offset, buf, bytes);
}

static void check_run(const struct vd_io *io, uint64_t off, uint64_t len, bool write)
{
	if (!io->bytes || io->bytes > len || io->bytes % SECTOR || io->bytes > VD_IO_MAX_BYTES)
		fz_fault("a run of %u bytes for %llu", io->bytes, (unsigned long long)len);
	if (io->offset != off % VD_BLOCK && io->kind != VD_RUN_HOLE && io->kind != VD_RUN_ZERO && io->kind != VD_RUN_BASE)
		fz_fault("a run at %u for %llu", io->offset, (unsigned long long)off);
	if (write ? io->kind != VD_RUN_DATA && io->kind != VD_RUN_NEW : io->kind == VD_RUN_NEW || io->kind > VD_RUN_BASE)
		fz_fault("a run of kind %d", io->kind);
}

int fz_read(struct fz_disk *d, struct vd_volume *vol, uint64_t off, uint32_t len)
{
	unsigned tries = 0;
	struct vd_io io;
	int r = 0;

	while (len) {
		r = fz_answer("vd_read_begin", vd_read_begin(vol, off, len, &io));
		if (r == -EWOULDBLOCK) {
			if (++tries > TRIES_MAX)
				fz_fault("a read waits and waits");
			r = fz_answer("vd_io_wait", vd_io_wait(&io));
			if (!r)
				continue;
		}
		if (r)
			return r;
		tries = 0;
		check_run(&io, off, len, false);
		if (io.kind == VD_RUN_DATA)
			r = data(d, io.pblk, io.offset, scratch, io.bytes, false);
		vd_read_end(&io);
		if (r)
			return r;
		off += io.bytes;
		len -= io.bytes;
	}
	return 0;
}

static int fill(struct fz_disk *d, const struct vd_fill *f)
{
	if (f->kind == VD_FILL_NONE)
		fz_fault("a partly written block without a fill");
	return f->kind == VD_FILL_DATA ? data(d, f->pblk, 0, scratch, VD_BLOCK, false) : 0;
}

static int write_run(struct fz_disk *d, const struct vd_io *io, uint64_t off)
{
	uint32_t end = io->offset + io->bytes, whole = io->nblocks * VD_BLOCK;
	int r = 0;

	memset(scratch, (int)(off >> 9), 64);
	if (io->kind == VD_RUN_DATA)
		return data(d, io->pblk, io->offset, scratch, io->bytes, true);
	if ((end + VD_BLOCK - 1) / VD_BLOCK != io->nblocks)
		fz_fault("a write run of %u bytes at %u in %u blocks", io->bytes, io->offset, io->nblocks);
	if (io->offset || (io->nblocks == 1 && end != whole))
		r = fill(d, &io->head);
	if (!r && end != whole && io->nblocks > 1)
		r = fill(d, &io->tail);
	return r ? r : data(d, io->pblk, 0, scratch, whole, true);
}

int fz_write(struct fz_disk *d, struct vd_volume *vol, uint64_t off, uint32_t len)
{
	unsigned tries = 0;
	struct vd_io io;
	int r = 0;

	while (len) {
		r = fz_answer("vd_write_begin", vd_write_begin(vol, off, len, &io));
		if (r == -EWOULDBLOCK) {
			if (++tries > TRIES_MAX)
				fz_fault("a write waits and waits");
			r = fz_answer("vd_io_wait", vd_io_wait(&io));
			if (!r)
				continue;
		}
		if (r)
			return r;
		tries = 0;
		check_run(&io, off, len, true);
		r = vd_write_end(&io, write_run(d, &io, off));
		if (r)
			return r;
		off += io.bytes;
		len -= io.bytes;
	}
	return 0;
}

void *must_zero(size_t size)
{
	return must_alloc(size);
}
