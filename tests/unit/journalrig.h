/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * A journal without its pool: disks in memory that have a volatile cache (what was
 * not flushed is lost, kept or torn at 512 bytes when the power is cut, and kept
 * when only the process dies), the stubs that journal.c calls, and what its tests
 * have in common.  J1-J6 in the tests are the invariants at journal.c's head, I5 and
 * so on those of the design.  VD_TEST_SEED and VD_TEST_SCALE (per cent) steer the
 * random ones.
 */
#ifndef JOURNALRIG_H
#define JOURNALRIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "journal_priv.h"

#define DISK_BLOCKS 1024u
#define DATA_START 640u /* the journal is below */
#define DATA_BLOCKS (DISK_BLOCKS - DATA_START)
#define START 16u
#define SECTOR 512u
#define NSECTORS (DISK_BLOCKS * (VD_BLOCK / SECTOR))
#define POOL_ID 0x1122334455667788ull

/* ---- the host ---------------------------------------------------------- */

struct disk {
	uint8_t *now, *media; /* what a read gives; what the power cannot take */
	uint8_t *dirty;       /* a byte a sector */
	bool unreadable[DISK_BLOCKS];
	bool missing;
};

struct seen { uint64_t seq, id; };

struct rig {
	struct disk disk[3];
	unsigned ndisks, ncopies;
	uint8_t *tail;           /* NULL: the host gives none */
	struct vd_disk_super super; /* as on disk */
	struct vd_disk_super old_super; /* the other slot: good while super is half written */
	vd_atomic_t super_torn;
	vd_atomic_t progress; /* of a child that will be killed */
	struct vd_pool *pool;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned writes, flushes, reads, kicks, wants, checkpoints, live, log_errors;
	unsigned journal_writes; /* below DATA_START */
	unsigned nwritten[3], nflushed[3];
	unsigned fail_in;  /* the nth write or flush from now on fails, and all after it; 0: none */
	bool failing;
	int flush_gate;    /* 1: a flush waits until it is 0; counts in gated */
	unsigned gated;
	unsigned alloc_fails_in;
	struct seen *seen;
	unsigned nseen, seen_max;
	int replay_answer;
	uint64_t rnd;
};

static struct rig *the_rig; /* for stubs that get only the pool */

static inline uint64_t rnd(struct rig *g)
{
	g->rnd ^= g->rnd << 13;
	g->rnd ^= g->rnd >> 7;
	g->rnd ^= g->rnd << 17;
	return g->rnd;
}

static inline bool fails(struct rig *g)
{
	if (g->fail_in && --g->fail_in == 0)
		g->failing = true;
	return g->failing;
}

static inline int host_read(void *ctx, unsigned m, uint64_t block, void *buf, unsigned n)
{
	struct rig *g = ctx;
	struct disk *d = &g->disk[m];
	unsigned i;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	g->reads++;
	assert_true(m < g->ndisks && n && block + n <= DISK_BLOCKS);
	if (d->missing)
		r = -ENODEV;
	for (i = 0; !r && i < n; i++)
		if (d->unreadable[block + i])
			r = -EIO;
	if (!r)
		memcpy(buf, d->now + block * VD_BLOCK, (size_t)n * VD_BLOCK);
	pthread_mutex_unlock(&g->lock);
	return r;
}

static inline int host_write(void *ctx, unsigned m, uint64_t block, const void *buf, unsigned n)
{
	struct rig *g = ctx;
	struct disk *d = &g->disk[m];
	int r = 0;

	pthread_mutex_lock(&g->lock);
	assert_true(m < g->ndisks && n && block >= START && block + n <= DISK_BLOCKS);
	if (d->missing)
		r = -ENODEV;
	else if (fails(g))
		r = -EIO;
	if (!r) {
		memcpy(d->now + block * VD_BLOCK, buf, (size_t)n * VD_BLOCK);
		memset(d->dirty + block * (VD_BLOCK / SECTOR), 1, n * (VD_BLOCK / SECTOR));
		memset(d->unreadable + block, 0, n);
		g->writes++;
		g->nwritten[m]++;
		g->journal_writes += block < DATA_START;
	}
	pthread_mutex_unlock(&g->lock);
	return r;
}

static inline int host_flush(void *ctx, unsigned m)
{
	struct rig *g = ctx;
	struct disk *d = &g->disk[m];
	unsigned s;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	if (g->flush_gate) {
		g->gated++;
		pthread_cond_broadcast(&g->cond);
		while (g->flush_gate)
			pthread_cond_wait(&g->cond, &g->lock);
	}
	if (d->missing)
		r = -ENODEV;
	else if (fails(g))
		r = -EIO;
	for (s = 0; !r && s < NSECTORS; s++)
		if (d->dirty[s]) {
			memcpy(d->media + (size_t)s * SECTOR, d->now + (size_t)s * SECTOR, SECTOR);
			d->dirty[s] = 0;
		}
	if (!r) {
		g->flushes++;
		g->nflushed[m]++;
	}
	pthread_mutex_unlock(&g->lock);
	return r;
}

static inline void *host_alloc(void *ctx, size_t size, int how)
{
	struct rig *g = ctx;

	(void)how;
	if (g->alloc_fails_in && --g->alloc_fails_in == 0)
		return NULL;
	g->live++;
	return malloc(size);
}

static inline void host_free(void *ctx, void *p)
{
	((struct rig *)ctx)->live--;
	free(p);
}

static inline uint64_t host_now(void *ctx)
{
	(void)ctx;
	return 0;
}

static inline void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	(void)msg, (void)a, (void)b;
	if (level == VD_LOG_ERROR)
		__atomic_add_fetch(&((struct rig *)ctx)->log_errors, 1, __ATOMIC_SEQ_CST);
}

static inline void *host_tail(void *ctx, size_t size)
{
	assert_true(size <= (VD_TAIL_MIN + VD_TAIL_HEAD));
	return ((struct rig *)ctx)->tail;
}

/* ---- what the pool does in its own files ------------------------------- */

void vd_pool_set_mode(struct vd_pool *pool, enum vd_pool_mode mode)
{
	if (mode > vd_pool_mode(pool))
		vd_atomic_set(&pool->mode, mode);
}

void vd_pool_kick(struct vd_pool *pool)
{
	(void)pool;
	__atomic_add_fetch(&the_rig->kicks, 1, __ATOMIC_SEQ_CST);
}

void vd_pool_want_checkpoint(struct vd_pool *pool)
{
	(void)pool;
	__atomic_add_fetch(&the_rig->wants, 1, __ATOMIC_SEQ_CST);
}

int vd_checkpoint(struct vd_pool *pool)
{
	struct rig *g = the_rig;
	uint64_t seq;
	int r;

	vd_mutex_lock(&pool->ckpt_lock);
	seq = vd_journal_last(pool);
	r = vd_journal_commit_for_checkpoint(pool, seq);
	if (!r) {
		vd_journal_tail_at(pool, seq, pool->super);
		pool->super->seq = cpu_to_le64(seq);
		memcpy(&g->old_super, &g->super, sizeof(g->super));
		vd_atomic_set(&g->super_torn, 1);
		memcpy(&g->super, pool->super, sizeof(g->super));
		vd_atomic_set(&g->super_torn, 0);
		vd_journal_tail_set(pool, pool->super);
		g->checkpoints++;
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}

/* ---- set-up ------------------------------------------------------------ */

static inline uint64_t env(const char *name, uint64_t or)
{
	const char *v = getenv(name);

	return v && *v ? strtoull(v, NULL, 0) : or;
}

static inline unsigned scaled(unsigned n)
{
	return (unsigned)vd_max(1, n * env("VD_TEST_SCALE", 100) / 100);
}

/* Zeroed, and the same in a child. */
static inline void *shared_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static inline struct rig *rig_new(unsigned copies, uint64_t blocks)
{
	struct rig *g = shared_alloc(sizeof(*g));
	unsigned i;

	pthread_mutex_init(&g->lock, NULL);
	pthread_cond_init(&g->cond, NULL);
	g->ncopies = copies;
	g->ndisks = 3;
	g->rnd = 88172645463325252ull;
	for (i = 0; i < g->ndisks; i++) {
		g->disk[i].now = shared_alloc((size_t)DISK_BLOCKS * VD_BLOCK);
		g->disk[i].media = shared_alloc((size_t)DISK_BLOCKS * VD_BLOCK);
		g->disk[i].dirty = shared_alloc(NSECTORS);
	}
	g->tail = shared_alloc((VD_TAIL_MIN + VD_TAIL_HEAD));
	g->super.journal_start = cpu_to_le64(START);
	g->super.journal_blocks = cpu_to_le64(blocks);
	g->super.journal_member[0] = cpu_to_le32(0);
	g->super.journal_member[1] = cpu_to_le32(copies > 1 ? 1 : ~0u);
	g->super.nmembers = cpu_to_le32(g->ndisks);
	the_rig = g;
	return g;
}

/* As if the process had died. */
static inline void kill_process(struct rig *g)
{
	if (!g->pool)
		return;
	vd_journal_fini(g->pool);
	free(g->pool->super);
	free(g->pool);
	g->pool = NULL;
	g->fail_in = 0;
	g->failing = false;
	assert_int_equal(g->live, 0);
}

enum cut { LOSE, KEEP, TEAR };

static inline void cut_disk(struct rig *g, unsigned m, enum cut cut)
{
	struct disk *d = &g->disk[m];
	unsigned s;

	for (s = 0; s < NSECTORS; s++) {
		if (d->dirty[s] && (cut == KEEP || (cut == TEAR && rnd(g) % 2)))
			memcpy(d->media + (size_t)s * SECTOR, d->now + (size_t)s * SECTOR, SECTOR);
		d->dirty[s] = 0;
	}
	memcpy(d->now, d->media, (size_t)DISK_BLOCKS * VD_BLOCK);
}

static inline void cut_power(struct rig *g, enum cut cut)
{
	unsigned i;

	kill_process(g);
	for (i = 0; i < g->ndisks; i++)
		cut_disk(g, i, cut);
	if (g->tail)
		memset(g->tail, 0, (VD_TAIL_MIN + VD_TAIL_HEAD));
}

static inline void rig_free(struct rig *g)
{
	unsigned i;

	kill_process(g);
	for (i = 0; i < g->ndisks; i++) {
		munmap(g->disk[i].now, (size_t)DISK_BLOCKS * VD_BLOCK);
		munmap(g->disk[i].media, (size_t)DISK_BLOCKS * VD_BLOCK);
		munmap(g->disk[i].dirty, NSECTORS);
	}
	if (g->tail)
		munmap(g->tail, (VD_TAIL_MIN + VD_TAIL_HEAD));
	free(g->seen);
	munmap(g, sizeof(*g));
}

static inline int collect(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec)
{
	struct rig *g = the_rig;
	struct vd_disk_rec_map map = { .vblk = 0 };

	(void)pool;
	if (g->nseen == g->seen_max) {
		g->seen_max = g->seen_max * 2 + 64;
		g->seen = realloc(g->seen, g->seen_max * sizeof(*g->seen));
	}
	memcpy(&map, rec, vd_min(sizeof(map), (size_t)le16_to_cpu(rec->len)));
	g->seen[g->nseen++] = (struct seen){ .seq = seq, .id = le64_to_cpu(map.vblk) };
	return g->replay_answer;
}

/* Up to and with replay. */
static inline int attach(struct rig *g, unsigned flags)
{
	struct vd_pool *pool = calloc(1, sizeof(*pool));
	unsigned i;
	int r;

	pool->host = (struct vd_host){
		.ctx = g, .read = host_read, .write = host_write, .flush = host_flush, .alloc = host_alloc,
		.free = host_free, .now = host_now, .log = host_log, .tail = host_tail,
	};
	pool->flags = flags;
	pool->id = POOL_ID;
	pool->super = malloc(sizeof(*pool->super));
	memcpy(pool->super, &g->super, sizeof(g->super));
	pool->nmembers = g->ndisks;
	for (i = 0; i < g->ndisks; i++) {
		pool->member[i].blocks = DISK_BLOCKS;
		pool->member[i].missing = g->disk[i].missing;
	}
	vd_mutex_init(&pool->ckpt_lock);
	g->pool = pool;
	g->nseen = 0;
	r = vd_journal_init(pool);
	if (!r)
		r = vd_journal_replay(pool, collect);
	if (r)
		kill_process(g);
	return r;
}

static inline int begin(struct rig *g)
{
	uint64_t inc = le64_to_cpu(g->pool->super->incarnation) + 1;
	int r = vd_journal_begin(g->pool, inc);

	if (!r) {
		g->pool->super->incarnation = cpu_to_le64(inc);
		memcpy(&g->super, g->pool->super, sizeof(g->super));
	}
	return r;
}

static inline void start(struct rig *g)
{
	assert_int_equal(attach(g, 0), 0);
	assert_int_equal(begin(g), 0);
}

static inline struct vd_disk_rec_map map_rec(uint64_t id)
{
	return (struct vd_disk_rec_map){
		.r = { .type = cpu_to_le16(VD_REC_MAP), .len = cpu_to_le16(sizeof(struct vd_disk_rec_map)) },
		.vblk = cpu_to_le64(id),
	};
}

static inline uint64_t put(struct rig *g, uint64_t id)
{
	struct vd_disk_rec_map rec = map_rec(id);

	assert_int_equal(vd_journal_reserve(g->pool, sizeof(rec)), 0);
	return vd_journal_append(g->pool, &rec.r, sizeof(rec));
}

static inline int commit(struct rig *g)
{
	return vd_journal_commit(g->pool, ~0ull);
}

/* Ids first..last were replayed, in order, and nothing else. */
static inline void expect_seen(struct rig *g, uint64_t first, uint64_t last)
{
	unsigned i;

	assert_int_equal(g->nseen, last + 1 - first);
	for (i = 0; i < g->nseen; i++) {
		assert_int_equal(g->seen[i].id, first + i);
		if (i)
			assert_int_equal(g->seen[i].seq, g->seen[i - 1].seq + 1);
	}
}

static inline struct vd_disk_journal *on_disk(struct rig *g, unsigned m, uint64_t number)
{
	return (struct vd_disk_journal *)(g->disk[m].now + (START + number % le64_to_cpu(g->super.journal_blocks)) * VD_BLOCK);
}

static inline void damage(struct rig *g, unsigned m, uint64_t number)
{
	struct vd_disk_journal *b = on_disk(g, m, number);

	b->payload[100] ^= 0x40;
	memcpy(g->disk[m].media + ((uint8_t *)b - g->disk[m].now), b, VD_BLOCK);
}

#endif
