/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * journal.c and replay.c over disks in memory that have a volatile cache: what
 * was not flushed is lost, kept or torn at 512 bytes when the power is cut, and
 * kept when only the process dies.  J1-J6 are the invariants at journal.c's head,
 * I5 and so on those of the design.
 *
 * VD_TEST_SEED and VD_TEST_SCALE (per cent) steer the random tests.
 */
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

static uint64_t rnd(struct rig *g)
{
	g->rnd ^= g->rnd << 13;
	g->rnd ^= g->rnd >> 7;
	g->rnd ^= g->rnd << 17;
	return g->rnd;
}

static bool fails(struct rig *g)
{
	if (g->fail_in && --g->fail_in == 0)
		g->failing = true;
	return g->failing;
}

static int host_read(void *ctx, unsigned m, uint64_t block, void *buf, unsigned n)
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

static int host_write(void *ctx, unsigned m, uint64_t block, const void *buf, unsigned n)
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

static int host_flush(void *ctx, unsigned m)
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

static void *host_alloc(void *ctx, size_t size, int how)
{
	struct rig *g = ctx;

	(void)how;
	if (g->alloc_fails_in && --g->alloc_fails_in == 0)
		return NULL;
	g->live++;
	return malloc(size);
}

static void host_free(void *ctx, void *p)
{
	((struct rig *)ctx)->live--;
	free(p);
}

static uint64_t host_now(void *ctx)
{
	(void)ctx;
	return 0;
}

static void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	(void)msg, (void)a, (void)b;
	if (level == VD_LOG_ERROR)
		__atomic_add_fetch(&((struct rig *)ctx)->log_errors, 1, __ATOMIC_SEQ_CST);
}

static void *host_tail(void *ctx, size_t size)
{
	assert_true(size <= VD_TAIL_AREA);
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

static uint64_t env(const char *name, uint64_t or)
{
	const char *v = getenv(name);

	return v && *v ? strtoull(v, NULL, 0) : or;
}

static unsigned scaled(unsigned n)
{
	return (unsigned)vd_max(1, n * env("VD_TEST_SCALE", 100) / 100);
}

/* Zeroed, and the same in a child. */
static void *shared_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static struct rig *rig_new(unsigned copies, uint64_t blocks)
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
	g->tail = shared_alloc(VD_TAIL_AREA);
	g->super.journal_start = cpu_to_le64(START);
	g->super.journal_blocks = cpu_to_le64(blocks);
	g->super.journal_member[0] = cpu_to_le32(0);
	g->super.journal_member[1] = cpu_to_le32(copies > 1 ? 1 : ~0u);
	g->super.nmembers = cpu_to_le32(g->ndisks);
	the_rig = g;
	return g;
}

/* As if the process had died. */
static void kill_process(struct rig *g)
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

static void cut_disk(struct rig *g, unsigned m, enum cut cut)
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

static void cut_power(struct rig *g, enum cut cut)
{
	unsigned i;

	kill_process(g);
	for (i = 0; i < g->ndisks; i++)
		cut_disk(g, i, cut);
	if (g->tail)
		memset(g->tail, 0, VD_TAIL_AREA);
}

static void rig_free(struct rig *g)
{
	unsigned i;

	kill_process(g);
	for (i = 0; i < g->ndisks; i++) {
		munmap(g->disk[i].now, (size_t)DISK_BLOCKS * VD_BLOCK);
		munmap(g->disk[i].media, (size_t)DISK_BLOCKS * VD_BLOCK);
		munmap(g->disk[i].dirty, NSECTORS);
	}
	if (g->tail)
		munmap(g->tail, VD_TAIL_AREA);
	free(g->seen);
	munmap(g, sizeof(*g));
}

static int collect(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec)
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
static int attach(struct rig *g, unsigned flags)
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

static int begin(struct rig *g)
{
	uint64_t inc = le64_to_cpu(g->pool->super->incarnation) + 1;
	int r = vd_journal_begin(g->pool, inc);

	if (!r) {
		g->pool->super->incarnation = cpu_to_le64(inc);
		memcpy(&g->super, g->pool->super, sizeof(g->super));
	}
	return r;
}

static void start(struct rig *g)
{
	assert_int_equal(attach(g, 0), 0);
	assert_int_equal(begin(g), 0);
}

static struct vd_disk_rec_map map_rec(uint64_t id)
{
	return (struct vd_disk_rec_map){
		.r = { .type = cpu_to_le16(VD_REC_MAP), .len = cpu_to_le16(sizeof(struct vd_disk_rec_map)) },
		.vblk = cpu_to_le64(id),
	};
}

static uint64_t put(struct rig *g, uint64_t id)
{
	struct vd_disk_rec_map rec = map_rec(id);

	assert_int_equal(vd_journal_reserve(g->pool, sizeof(rec)), 0);
	return vd_journal_append(g->pool, &rec.r, sizeof(rec));
}

static int commit(struct rig *g)
{
	return vd_journal_commit(g->pool, ~0ull);
}

/* Ids first..last were replayed, in order, and nothing else. */
static void expect_seen(struct rig *g, uint64_t first, uint64_t last)
{
	unsigned i;

	assert_int_equal(g->nseen, last + 1 - first);
	for (i = 0; i < g->nseen; i++) {
		assert_int_equal(g->seen[i].id, first + i);
		if (i)
			assert_int_equal(g->seen[i].seq, g->seen[i - 1].seq + 1);
	}
}

static struct vd_disk_journal *on_disk(struct rig *g, unsigned m, uint64_t number)
{
	return (struct vd_disk_journal *)(g->disk[m].now + (START + number % le64_to_cpu(g->super.journal_blocks)) * VD_BLOCK);
}

static void damage(struct rig *g, unsigned m, uint64_t number)
{
	struct vd_disk_journal *b = on_disk(g, m, number);

	b->payload[100] ^= 0x40;
	memcpy(g->disk[m].media + ((uint8_t *)b - g->disk[m].now), b, VD_BLOCK);
}

/* ---- what a commit promises -------------------------------------------- */

static void committed_records_survive_a_power_cut(void **state)
{
	struct rig *g = rig_new(2, 256);
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 200; i++)
		put(g, i);
	assert_int_equal(commit(g), 0);
	for (i = 201; i <= 203; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	assert_int_equal(vd_journal_durable(g->pool), 203);
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 1, 203);
	rig_free(g);
}

static void uncommitted_records_are_lost_in_a_power_cut(void **state)
{
	struct rig *g = rig_new(2, 256);

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	put(g, 2);
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 1, 1);
	assert_int_equal(put(g, 3), 2);
	rig_free(g);
}

static void uncommitted_records_survive_a_kill(void **state) /* I10, J4 */
{
	struct rig *g = rig_new(2, 256);
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 5; i++)
		put(g, i);
	assert_int_equal(commit(g), 0);
	for (i = 6; i <= 100; i++)
		put(g, i);
	kill_process(g);
	start(g);
	expect_seen(g, 1, 100);
	assert_int_equal(vd_journal_durable(g->pool), 100);
	cut_power(g, LOSE); /* begin made them durable */
	start(g);
	expect_seen(g, 1, 100);
	rig_free(g);
}

static void without_the_hosts_tail_a_kill_loses_what_was_not_committed(void **state)
{
	struct rig *g = rig_new(1, 256);

	(void)state;
	munmap(g->tail, VD_TAIL_AREA);
	g->tail = NULL;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	put(g, 2);
	kill_process(g);
	start(g);
	expect_seen(g, 1, 1);
	rig_free(g);
}

static void a_clean_flush_does_no_io(void **state) /* I5 */
{
	struct rig *g = rig_new(2, 256);
	unsigned w, f;

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	w = g->writes, f = g->flushes;
	assert_int_equal(commit(g), 0);
	assert_int_equal(vd_journal_commit(g->pool, 1), 0);
	assert_int_equal(g->writes, w);
	assert_int_equal(g->flushes, f);
	rig_free(g);
}

static void data_without_records_is_flushed_without_a_journal_write(void **state) /* I5 */
{
	struct rig *g = rig_new(1, 256);
	unsigned w, f[3];

	(void)state;
	start(g);
	w = g->writes;
	memcpy(f, g->nflushed, sizeof(f));
	vd_journal_wrote(g->pool, 2);
	assert_int_equal(commit(g), 0);
	assert_int_equal(g->writes, w);
	assert_int_equal(g->nflushed[0], f[0]);
	assert_int_equal(g->nflushed[1], f[1]); /* clean */
	assert_int_equal(g->nflushed[2], f[2] + 1);
	rig_free(g);
}

static void a_commit_is_one_write_and_one_flush_a_copy(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned w, f, i;

	(void)state;
	start(g);
	for (i = 1; i <= 250; i++) /* three blocks */
		put(g, i);
	w = g->writes, f = g->flushes;
	assert_int_equal(commit(g), 0);
	assert_int_equal(g->writes, w + 2);
	assert_int_equal(g->flushes, f + 2);
	assert_int_equal(vd_journal_used(g->pool), 2);
	assert_int_equal(vd_journal_written(g->pool), 4);
	rig_free(g);
}

/* ---- torn and repeated crashes ----------------------------------------- */

/* Commits ids 1..3, then writes (all of) ids 4..first+n without an answer. */
static void leave_a_commit_unanswered(struct rig *g, unsigned n)
{
	uint64_t i;

	start(g);
	for (i = 1; i <= 3; i++)
		put(g, i);
	assert_int_equal(commit(g), 0);
	for (i = 4; i < 4 + n; i++)
		put(g, i);
	g->fail_in = g->ncopies + 1; /* the first flush after the writes */
	assert_int_equal(commit(g), -EIO);
	assert_int_equal(vd_pool_mode(g->pool), VD_MODE_FAILED);
}

static void a_torn_commit_is_dropped_whole(void **state)
{
	struct rig *g = rig_new(2, 256);

	(void)state;
	leave_a_commit_unanswered(g, 200); /* blocks 1 and 2 */
	cut_power(g, KEEP);
	damage(g, 0, 2);
	damage(g, 1, 2);
	start(g);
	expect_seen(g, 1, 3);
	rig_free(g);
}

static void an_unanswered_commit_that_is_whole_counts(void **state)
{
	struct rig *g = rig_new(2, 256);

	(void)state;
	leave_a_commit_unanswered(g, 200);
	cut_power(g, KEEP);
	damage(g, 0, 1);
	damage(g, 1, 2); /* one block from each copy */
	start(g);
	expect_seen(g, 1, 203);
	rig_free(g);
}

static void crash_rewrite_crash_does_not_bring_back_the_old_tail(void **state) /* I8 */
{
	struct rig *g = rig_new(2, 620);
	unsigned m;

	(void)state;
	leave_a_commit_unanswered(g, 300); /* blocks 1, 2, 3 */
	cut_power(g, KEEP);
	for (m = 0; m < 2; m++)
		damage(g, m, 1);
	start(g);
	expect_seen(g, 1, 3);
	put(g, 1000);
	assert_int_equal(commit(g), 0); /* block 1 again; 2 and 3 still hold the old ones */
	cut_power(g, LOSE);
	start(g);
	assert_int_equal(g->nseen, 4);
	assert_int_equal(g->seen[3].id, 1000);
	rig_free(g);
}

/* What an opening did not see, no later one may: the rest of the old commit turns
 * out to be readable after all. */
static void a_new_incarnation_ends_the_old_ones_chain(void **state) /* I8 */
{
	struct rig *g = rig_new(2, 620);

	(void)state;
	leave_a_commit_unanswered(g, 300);
	cut_power(g, KEEP);
	g->disk[0].unreadable[START + 3] = true;
	damage(g, 1, 3);
	start(g);
	expect_seen(g, 1, 3);
	kill_process(g);
	g->disk[0].unreadable[START + 3] = false;
	start(g);
	expect_seen(g, 1, 3);
	rig_free(g);
}

/* The same with a kill: the surviving tail, grown by one record, is written over
 * the torn commit in its own incarnation. */
static void a_survivor_written_over_a_torn_commit_breaks_its_chain(void **state) /* J3 */
{
	struct rig *g = rig_new(2, 620);
	struct vd_disk_rec_map rec = map_rec(304);
	unsigned m;

	(void)state;
	leave_a_commit_unanswered(g, 300);
	vd_journal_append(g->pool, &rec.r, sizeof(rec));
	kill_process(g);
	for (m = 0; m < 2; m++)
		damage(g, m, 3);
	assert_int_equal(attach(g, 0), 0);
	expect_seen(g, 1, 304);
	g->fail_in = 3 + 2; /* three flushes and the write to copy 0 pass */
	assert_int_equal(begin(g), -EIO);
	cut_power(g, KEEP);
	/* Copy 0: the new commit.  Copy 1: the beginning of the old.  Believe the
	 * longest, in whichever copy it is. */
	for (m = 0; m < 2; m++) {
		uint8_t *now = g->disk[0].now, *media = g->disk[0].media;

		assert_int_equal(attach(g, VD_OPEN_READONLY), 0);
		expect_seen(g, 1, 304);
		kill_process(g);
		g->disk[0].now = g->disk[1].now, g->disk[0].media = g->disk[1].media;
		g->disk[1].now = now, g->disk[1].media = media;
	}
	start(g);
	expect_seen(g, 1, 304);
	assert_memory_equal(on_disk(g, 0, 0), on_disk(g, 1, 0), 4 * VD_BLOCK);
	rig_free(g);
}

static void fewer_survivors_than_the_torn_commit_had_break_its_chain(void **state) /* J3 */
{
	struct rig *g = rig_new(2, 620);
	unsigned m;

	(void)state;
	leave_a_commit_unanswered(g, 300);
	kill_process(g);
	for (m = 0; m < 2; m++)
		damage(g, m, 3);
	g->tail[VD_TAIL_AREA - VD_TAIL_BYTES + 10 * 48 + 20] ^= 1;
	start(g);
	expect_seen(g, 1, 10); /* block 1 is written anew; block 2 is the old one */
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 1, 10);
	rig_free(g);
}

static void unequal_copies_are_made_equal_before_the_first_append(void **state) /* I8 */
{
	struct rig *g = rig_new(2, 256);
	unsigned i;

	(void)state;
	start(g);
	for (i = 1; i <= 5; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	cut_power(g, LOSE);
	damage(g, 0, 1);
	damage(g, 1, 3);
	memset(on_disk(g, 1, 4), 0, VD_BLOCK);
	start(g);
	expect_seen(g, 1, 5);
	assert_memory_equal(on_disk(g, 0, 0), on_disk(g, 1, 0), 5 * VD_BLOCK);
	cut_power(g, LOSE);
	memset(on_disk(g, 0, 0), 0, 5 * VD_BLOCK);
	start(g);
	expect_seen(g, 1, 5);
	rig_free(g);
}

static void an_unreadable_block_is_taken_from_the_other_copy(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned i;

	(void)state;
	start(g);
	for (i = 1; i <= 5; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	kill_process(g);
	g->disk[0].unreadable[START + 2] = true;
	start(g);
	expect_seen(g, 1, 5);
	assert_false(g->disk[0].unreadable[START + 2]); /* written anew */
	rig_free(g);
}

static void a_block_that_no_copy_can_read_stops_the_opening(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned i;

	(void)state;
	start(g);
	for (i = 1; i <= 5; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	kill_process(g);
	g->disk[0].unreadable[START + 2] = g->disk[1].unreadable[START + 2] = true;
	assert_int_equal(attach(g, 0), -EIO); /* the end of the chain is not known */
	rig_free(g);
}

static void one_copy_alone_is_enough_to_read(void **state)
{
	struct rig *g = rig_new(2, 256);

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	cut_power(g, LOSE);
	g->disk[0].missing = true;
	assert_int_equal(attach(g, VD_OPEN_READONLY), 0);
	expect_seen(g, 1, 1);
	kill_process(g);
	g->disk[1].missing = true;
	assert_int_equal(attach(g, VD_OPEN_READONLY), -ENODEV);
	rig_free(g);
}

/* ---- opening ------------------------------------------------------------ */

static void a_read_only_opening_writes_nothing_and_leaves_the_tail(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned w, f;

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	put(g, 2);
	kill_process(g);
	w = g->writes, f = g->flushes;
	assert_int_equal(attach(g, VD_OPEN_READONLY), 0);
	expect_seen(g, 1, 1);
	assert_int_equal(begin(g), -EROFS);
	assert_int_equal(commit(g), 0);
	kill_process(g);
	assert_int_equal(g->writes, w);
	assert_int_equal(g->flushes, f);
	start(g);
	expect_seen(g, 1, 2);
	rig_free(g);
}

static void the_tail_of_another_incarnation_is_not_believed(void **state) /* I10 */
{
	struct rig *g = rig_new(2, 256);
	uint8_t *tail = g->tail;

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	put(g, 2);
	kill_process(g);
	g->tail = NULL; /* another host */
	start(g);
	expect_seen(g, 1, 1);
	kill_process(g);
	g->tail = tail;
	start(g);
	expect_seen(g, 1, 1);
	rig_free(g);
}

static void the_tail_of_another_pool_is_not_believed(void **state)
{
	struct rig *g = rig_new(2, 256);
	struct tail_head *th = (struct tail_head *)g->tail;

	(void)state;
	start(g);
	put(g, 1);
	kill_process(g);
	th->pool ^= 1;
	th->crc = vd_port_crc32c(~0u, &th->bytes, 20);
	start(g);
	assert_int_equal(g->nseen, 0);
	rig_free(g);
}

static void a_damaged_tail_is_believed_up_to_the_damage(void **state)
{
	struct rig *g = rig_new(2, 256);
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 10; i++)
		put(g, i);
	kill_process(g);
	g->tail[VD_TAIL_AREA - VD_TAIL_BYTES + 6 * 48 + 20] ^= 1;
	start(g);
	expect_seen(g, 1, 6);
	assert_int_equal(put(g, 7), 7);
	rig_free(g);
}

static void records_that_are_durable_are_not_replayed_twice_from_the_tail(void **state)
{
	struct rig *g = rig_new(2, 256);
	struct tail_head *th = (struct tail_head *)g->tail;
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 10; i++) {
		put(g, i);
		if (i == 7)
			assert_int_equal(commit(g), 0);
	}
	vd_atomic_set(&th->first, 0); /* killed just before it was trimmed */
	kill_process(g);
	start(g);
	expect_seen(g, 1, 10);
	rig_free(g);
}

static void a_tail_that_does_not_continue_the_chain_is_dropped(void **state)
{
	struct rig *g = rig_new(1, 256);

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	put(g, 2);
	assert_int_equal(commit(g), 0);
	put(g, 3);
	kill_process(g);
	damage(g, 0, 1);
	start(g);
	expect_seen(g, 1, 1);
	rig_free(g);
}

/* An opening that is interrupted at its nth write or flush, by a kill, loses
 * nothing; and when the power goes later, nothing that a finished one had. */
static void an_interrupted_opening_loses_nothing(void **state)
{
	unsigned n, copies;
	bool done;

	(void)state;
	for (copies = 1; copies <= 2; copies++) {
		for (n = 1, done = false; !done; n++) {
			struct rig *g = rig_new(copies, 256);
			uint64_t i;

			start(g);
			for (i = 1; i <= 230; i++) {
				put(g, i);
				if (i == 10 || i == 20)
					assert_int_equal(commit(g), 0);
			}
			kill_process(g);
			if (copies == 2)
				damage(g, n & 1, 1);
			assert_int_equal(attach(g, 0), 0);
			g->fail_in = n;
			done = !begin(g);
			if (!done)
				assert_int_equal(vd_pool_mode(g->pool), VD_MODE_FAILED);
			if (done && copies == 2)
				cut_power(g, TEAR);
			else
				kill_process(g);
			start(g);
			expect_seen(g, 1, 230);
			rig_free(g);
			assert_true(n < 50);
		}
	}
}

static void openings_without_a_commit_use_no_segment(void **state)
{
	struct rig *g = rig_new(1, 256);
	unsigned i;

	(void)state;
	start(g);
	put(g, 1);
	for (i = 0; i < 40; i++) {
		kill_process(g);
		start(g);
		expect_seen(g, 1, 1);
	}
	assert_int_equal(le32_to_cpu(g->super.nsegments), 2);
	rig_free(g);
}

static void a_full_table_of_segments_asks_for_a_checkpoint(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned i;

	(void)state;
	for (i = 1; i <= VD_SEGMENTS_MAX; i++) {
		start(g);
		put(g, i);
		assert_int_equal(commit(g), 0);
		kill_process(g);
	}
	assert_int_equal(attach(g, 0), 0);
	expect_seen(g, 1, VD_SEGMENTS_MAX);
	assert_int_equal(begin(g), -ENOSPC);
	assert_int_equal(vd_checkpoint(g->pool), 0);
	assert_int_equal(begin(g), 0);
	assert_int_equal(le32_to_cpu(g->super.nsegments), 1);
	put(g, 9);
	assert_int_equal(commit(g), 0);
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 9, 9);
	rig_free(g);
}

static void an_error_of_the_replay_function_ends_the_opening(void **state)
{
	struct rig *g = rig_new(1, 256);

	(void)state;
	start(g);
	put(g, 1);
	put(g, 2);
	assert_int_equal(commit(g), 0);
	kill_process(g);
	g->replay_answer = -ENOMEM;
	assert_int_equal(attach(g, 0), -ENOMEM);
	assert_int_equal(g->nseen, 1);
	rig_free(g);
}

static void an_opening_without_memory_fails_and_leaks_nothing(void **state)
{
	struct rig *g = rig_new(2, 256);
	unsigned n;
	int r;

	(void)state;
	start(g);
	put(g, 1);
	assert_int_equal(commit(g), 0);
	damage(g, 1, 0); /* so that there is something to level */
	for (n = 1;; n++) {
		kill_process(g);
		g->alloc_fails_in = n;
		r = attach(g, 0);
		if (!r)
			r = begin(g);
		if (!r)
			break;
		assert_int_equal(r, -ENOMEM);
	}
	assert_true(n > 4);
	expect_seen(g, 1, 1);
	rig_free(g);
}

/* ---- room ---------------------------------------------------------------- */

static void a_full_ring_refuses_and_make_room_checkpoints(void **state)
{
	struct rig *g = rig_new(2, 64);
	struct vd_disk_rec_map rec;
	uint64_t id = 0;
	unsigned n = 0;

	(void)state;
	start(g);
	for (;;) {
		rec = map_rec(++id);
		if (vd_journal_reserve(g->pool, sizeof(rec)))
			break;
		vd_journal_append(g->pool, &rec.r, sizeof(rec));
		assert_int_equal(commit(g), 0); /* each alone: the worst case (J1) */
		n++;
	}
	assert_int_equal(n, 64);
	assert_int_equal(vd_journal_used(g->pool), 64);
	assert_true(g->wants > 0);
	assert_int_equal(vd_journal_reserve(g->pool, sizeof(rec)), -EWOULDBLOCK);
	assert_int_equal(g->checkpoints, 0);
	assert_int_equal(vd_journal_make_room(g->pool), 0);
	assert_int_equal(g->checkpoints, 1);
	assert_int_equal(vd_journal_used(g->pool), 0);
	assert_int_equal(put(g, id), 65);
	rig_free(g);
}

static void every_reserved_record_can_be_committed_alone(void **state) /* J1 */
{
	struct rig *g = rig_new(1, 64);
	struct vd_disk_rec_map rec;
	unsigned n = 0, i;

	(void)state;
	start(g);
	for (i = 1; i <= 10; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	while (!vd_journal_reserve(g->pool, sizeof(rec)))
		n++;
	assert_int_equal(n, 54);
	for (i = 0; i < n; i++) {
		rec = map_rec(11 + i);
		vd_journal_append(g->pool, &rec.r, sizeof(rec));
		assert_int_equal(commit(g), 0);
	}
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 1, 64);
	rig_free(g);
}

static void a_commit_gives_back_what_its_records_did_not_need(void **state)
{
	struct rig *g = rig_new(1, 64);
	uint64_t i;
	unsigned round;

	(void)state;
	start(g);
	for (round = 0; round < 10; round++) {
		for (i = 1; i <= 50; i++)
			put(g, round * 50 + i);
		assert_int_equal(vd_journal_make_room(g->pool), 0);
	}
	assert_int_equal(g->checkpoints, 0);
	assert_int_equal(vd_journal_used(g->pool), 10);
	rig_free(g);
}

static void unreserve_gives_the_room_back(void **state)
{
	struct rig *g = rig_new(1, 64);
	unsigned n, round;

	(void)state;
	start(g);
	for (round = 0; round < 3; round++) {
		for (n = 0; !vd_journal_reserve(g->pool, 4096); n++)
			;
		assert_int_equal(n, 32); /* two blocks each */
		while (n--)
			vd_journal_unreserve(g->pool, 4096);
	}
	rig_free(g);
}

static void the_tails_memory_is_a_limit_too(void **state)
{
	struct rig *g = rig_new(1, 620);
	struct vd_disk_rec *rec = calloc(1, 4096);
	unsigned n = 0, round;

	(void)state;
	start(g);
	rec->type = cpu_to_le16(VD_REC_VOLUME);
	rec->len = cpu_to_le16(3992);
	for (round = 0; round < 3; round++) {
		for (n = 0; !vd_journal_reserve(g->pool, 3992); n++)
			vd_journal_append(g->pool, rec, 3992);
		assert_int_equal(n, VD_TAIL_BYTES / (3992 + 16));
		assert_true(vd_journal_due(g->pool));
		assert_int_equal(g->kicks, round + 1);
		if (!round)
			g->wants = 0;
		assert_int_equal(vd_journal_make_room(g->pool), 0);
		assert_false(vd_journal_due(g->pool));
	}
	free(rec);
	rig_free(g);
}

static void make_room_makes_room_for_a_whole_group(void **state)
{
	struct rig *g = rig_new(1, 128);
	unsigned i, round, max;

	(void)state;
	start(g);
	max = vd_journal_hold_max(g->pool);
	assert_int_equal(max, 64);
	for (round = 0; round < 200; round++) {
		put(g, round + 1);
		assert_int_equal(vd_journal_make_room(g->pool), 0);
		for (i = 0; i < max; i++)
			assert_int_equal(vd_journal_reserve(g->pool, 32), 0);
		for (i = 0; i < max; i++)
			vd_journal_unreserve(g->pool, 32);
	}
	rig_free(g);
}

static void lengths_that_cannot_be_are_refused(void **state)
{
	struct rig *g = rig_new(1, 64);

	(void)state;
	start(g);
	assert_int_equal(vd_journal_reserve(g->pool, 0), -EINVAL);
	assert_int_equal(vd_journal_reserve(g->pool, 12), -EINVAL);
	assert_int_equal(vd_journal_reserve(g->pool, 4104), -EINVAL);
	rig_free(g);
}

static void the_ring_wraps(void **state)
{
	struct rig *g = rig_new(2, 67);
	uint64_t id = 0, from = 1;
	unsigned round, i;

	(void)state;
	start(g);
	for (round = 0; round < 300; round++) {
		unsigned n = 1 + (unsigned)(rnd(g) % 50);

		while (vd_journal_used(g->pool) > 10) {
			assert_int_equal(vd_checkpoint(g->pool), 0);
			from = id + 1;
		}
		for (i = 0; i < n; i++)
			put(g, ++id);
		assert_int_equal(commit(g), 0);
		if (round % 7 == 0) {
			cut_power(g, LOSE);
			start(g);
			expect_seen(g, from, id);
		}
	}
	assert_true(le64_to_cpu(g->super.journal_tail) > 200);
	rig_free(g);
}

static void a_commit_over_the_rings_end_is_two_writes(void **state)
{
	struct rig *g = rig_new(1, 64);
	struct vd_disk_rec *rec = calloc(1, 4096);
	unsigned i, w;

	(void)state;
	start(g);
	for (i = 1; i <= 62; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	assert_int_equal(vd_checkpoint(g->pool), 0);
	rec->type = cpu_to_le16(VD_REC_VOLUME);
	rec->len = cpu_to_le16(4000);
	for (i = 0; i < 5; i++) {
		assert_int_equal(vd_journal_reserve(g->pool, 4000), 0);
		vd_journal_append(g->pool, rec, 4000);
	}
	w = g->writes;
	assert_int_equal(commit(g), 0);
	assert_int_equal(g->writes, w + 2);
	cut_power(g, LOSE);
	start(g);
	assert_int_equal(g->nseen, 5);
	free(rec);
	rig_free(g);
}

/* ---- checkpoints --------------------------------------------------------- */

static void the_tail_may_go_to_the_end_of_the_last_commit(void **state)
{
	struct rig *g = rig_new(2, 620);
	struct vd_disk_super *super = calloc(1, sizeof(*super));
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 600; i++) { /* more than there are remembered ends */
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	vd_journal_tail_at(g->pool, 600, super);
	assert_int_equal(le64_to_cpu(super->journal_tail), 600);
	vd_journal_tail_at(g->pool, 0, super);
	assert_int_equal(le64_to_cpu(super->journal_tail), 0);
	for (i = 1; i <= 600; i++) {
		vd_journal_tail_at(g->pool, i, super);
		assert_true(le64_to_cpu(super->journal_tail) <= i);
		assert_true(le64_to_cpu(super->journal_tail) + 8 > i);
		g->super.journal_tail = super->journal_tail;
		g->super.journal_crc = super->journal_crc;
		g->super.seq = cpu_to_le64(i);
		if (i % 100 == 57) {
			struct vd_disk_super keep = g->super;

			kill_process(g);
			assert_int_equal(attach(g, 0), 0);
			expect_seen(g, i + 1, 600);
			assert_int_equal(begin(g), 0);
			g->super = keep;
			kill_process(g);
			g->super.journal_tail = 0;
			g->super.journal_crc = 0;
			g->super.seq = 0;
			start(g);
		}
	}
	free(super);
	rig_free(g);
}

static void records_behind_the_checkpoint_in_its_commit_are_replayed(void **state)
{
	struct rig *g = rig_new(2, 256);
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 20; i++) {
		put(g, i);
		if (i == 10)
			assert_int_equal(commit(g), 0);
	}
	assert_int_equal(commit(g), 0); /* 11..20 */
	vd_journal_tail_at(g->pool, 15, g->pool->super);
	assert_int_equal(le64_to_cpu(g->pool->super->journal_tail), 1);
	g->pool->super->seq = cpu_to_le64(15);
	memcpy(&g->super, g->pool->super, sizeof(g->super));
	vd_journal_tail_set(g->pool, g->pool->super);
	assert_int_equal(vd_journal_used(g->pool), 1);
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 16, 20);
	rig_free(g);
}

static void a_chain_that_ends_before_the_checkpoint_can_go_on(void **state)
{
	struct rig *g = rig_new(1, 256);
	uint64_t i;

	(void)state;
	start(g);
	for (i = 1; i <= 6; i++) {
		put(g, i);
		assert_int_equal(commit(g), 0);
	}
	kill_process(g);
	g->super.seq = cpu_to_le64(6); /* the tail was left far behind */
	damage(g, 0, 3);
	start(g);
	assert_int_equal(g->nseen, 0);
	assert_int_equal(put(g, 7), 7);
	assert_int_equal(commit(g), 0);
	cut_power(g, LOSE);
	start(g);
	expect_seen(g, 7, 7);
	rig_free(g);
}

/* ---- failures ------------------------------------------------------------ */

/* The nth write or flush fails: nobody is answered 0 for what is not durable. */
static void a_failed_write_or_flush_acknowledges_nothing(void **state) /* I9 */
{
	unsigned n;
	bool done = false;

	(void)state;
	for (n = 1; !done; n++) {
		struct rig *g = rig_new(2, 256);
		uint64_t id, acked = 0;

		start(g);
		g->fail_in = n;
		for (id = 1; id <= 8; id++) {
			int r;

			if (vd_pool_mode(g->pool) == VD_MODE_FAILED)
				break;
			vd_journal_wrote(g->pool, 2);
			put(g, id);
			r = commit(g);
			if (r) {
				assert_int_equal(r, -EIO);
				assert_int_equal(vd_pool_mode(g->pool), VD_MODE_FAILED);
				assert_int_equal(commit(g), -EIO);
				assert_int_equal(vd_journal_reserve(g->pool, 32), -EROFS);
			} else {
				acked = id;
			}
		}
		done = acked == 8;
		cut_power(g, n & 1 ? LOSE : TEAR);
		start(g);
		assert_true(g->nseen >= acked);
		expect_seen(g, 1, g->nseen);
		rig_free(g);
	}
	assert_int_equal(n, 8 * 5 + 2);
}

static void a_flush_that_fails_leaves_the_member_dirty(void **state) /* I5 */
{
	struct rig *g = rig_new(1, 256);

	(void)state;
	start(g);
	vd_journal_wrote(g->pool, 2);
	g->fail_in = 1;
	assert_int_equal(commit(g), -EIO);
	assert_int_equal(vd_atomic_read(&g->pool->journal->dirty[2]), 1);
	rig_free(g);
}

/* ---- hostile contents ---------------------------------------------------- */

static void seal_chain(struct rig *g, unsigned m, uint64_t first, uint64_t end, uint32_t crc)
{
	for (; first < end; first++) {
		struct vd_disk_journal *b = on_disk(g, m, first);

		b->prev_crc = cpu_to_le32(crc);
		crc = vd_journal_block_crc(b);
		b->crc = cpu_to_le32(crc);
	}
}

static void make_image(struct rig *g)
{
	uint64_t id = 0;
	unsigned i, n;

	start(g);
	for (n = 0; n < 12; n++) {
		for (i = 0; i < 1 + n % 4 * 20; i++)
			put(g, ++id);
		assert_int_equal(commit(g), 0);
	}
	for (i = 0; i < 20; i++)
		put(g, ++id);
	kill_process(g);
}

/* Blocks with right checksums and wrong contents, in a hundred ways. */
static void hostile_blocks_do_no_harm(void **state)
{
	struct rig *g = rig_new(2, 128);
	struct vd_disk_super super;
	uint8_t *image, *tail;
	unsigned round, i, m, ok = 0, unclean = 0, rounds = scaled(1500);
	uint64_t seed = env("VD_TEST_SEED", 88172645463325252ull);

	(void)state;
	g->rnd = seed | 1;
	make_image(g);
	image = malloc(64 * VD_BLOCK);
	tail = malloc(VD_TAIL_AREA);
	memcpy(image, on_disk(g, 0, 0), 64 * VD_BLOCK);
	memcpy(tail, g->tail, VD_TAIL_AREA);
	super = g->super;
	for (round = 0; round < rounds; round++) {
		static const unsigned at[] = { 4, 8, 16, 24, 36, 38, 40, 48, 56, 58, 60, 56 + 32, 56 + 34 };
		unsigned ops = 1 + (unsigned)(rnd(g) % 3);
		int r;

		for (m = 0; m < 2; m++)
			memcpy(on_disk(g, m, 0), image, 64 * VD_BLOCK);
		memcpy(g->tail, tail, 4096 + 8192);
		g->super = super;
		for (i = 0; i < ops; i++) {
			uint8_t *b = (uint8_t *)on_disk(g, rnd(g) % 2, rnd(g) % 20);
			unsigned pos = rnd(g) % 3 ? at[rnd(g) % (sizeof(at) / sizeof(at[0]))] : (unsigned)(rnd(g) % 1000);

			b[pos + rnd(g) % 2] = rnd(g) % 2 ? (uint8_t)rnd(g) : (uint8_t)-(rnd(g) % 3);
			if (rnd(g) % 4 == 0)
				memset(b + pos, rnd(g) % 2 ? 0xff : 0, 8);
			if (rnd(g) % 4 == 0) { /* a whole commit of one block moves in the sequence */
				struct vd_disk_journal *j = (struct vd_disk_journal *)b;
				uint64_t by = rnd(g) % 5 - 2;

				j->first_seq = cpu_to_le64(le64_to_cpu(j->first_seq) + by);
				j->last_seq = cpu_to_le64(le64_to_cpu(j->last_seq) + by);
			}
		}
		if (rnd(g) % 8 == 0)
			g->super.seq = cpu_to_le64(rnd(g) % 300);
		if (rnd(g) % 8 == 0)
			g->super.segment[0].block = cpu_to_le64(rnd(g) % 3);
		if (rnd(g) % 16 == 0)
			((uint8_t *)&g->super.journal_start)[rnd(g) % (8 + 8 + 8 + 8 + 4 + 4 + 128)] = (uint8_t)rnd(g);
		if (rnd(g) % 4) {
			seal_chain(g, 0, 0, 20, 0);
			seal_chain(g, 1, 0, 20, 0);
		}
		if (rnd(g) % 2) {
			struct tail_head *th = (struct tail_head *)g->tail;
			struct tail_rec *h = (struct tail_rec *)(g->tail + VD_TAIL_AREA - VD_TAIL_BYTES);

			((uint8_t *)(rnd(g) % 2 ? (void *)th : (void *)h))[rnd(g) % 64] = (uint8_t)rnd(g);
			if (rnd(g) % 2) {
				th->crc = vd_port_crc32c(~0u, &th->bytes, 20);
				h->crc = vd_port_crc32c(vd_port_crc32c(th->crc, h + 1, h->len % 4096), &h->seq, 8);
			}
		}
		r = attach(g, rnd(g) % 4 ? 0 : VD_OPEN_READONLY);
		if (r) {
			assert_true(r == -EUCLEAN);
			unclean++;
			continue;
		}
		ok++;
		assert_true(g->nseen < 1000);
		if (g->nseen)
			assert_int_equal(g->seen[0].seq, le64_to_cpu(g->super.seq) + 1);
		for (i = 1; i < g->nseen; i++)
			assert_int_equal(g->seen[i].seq, g->seen[i - 1].seq + 1);
		if (!(g->pool->flags & VD_OPEN_READONLY)) {
			r = begin(g);
			if (!r && !vd_journal_make_room(g->pool)) {
				put(g, 12345);
				assert_int_equal(commit(g), 0);
			}
		}
		kill_process(g);
	}
	assert_true(ok > rounds / 20);
	assert_true(unclean > rounds / 20);
	free(image);
	free(tail);
	rig_free(g);
}

static void a_superblock_that_cannot_be_is_refused(void **state)
{
	struct rig *g = rig_new(2, 64);
	const struct vd_disk_super good = g->super;

	(void)state;
#define REFUSED(field, value) do { g->super = good; g->super.field = value; assert_int_equal(attach(g, 0), -EUCLEAN); } while (0)
	REFUSED(journal_start, cpu_to_le64(15));
	REFUSED(journal_start, cpu_to_le64(~0ull));
	REFUSED(journal_blocks, cpu_to_le64(63));
	REFUSED(journal_blocks, cpu_to_le64(DISK_BLOCKS - START + 1));
	REFUSED(journal_blocks, cpu_to_le64(1ull << 63));
	REFUSED(journal_member[0], cpu_to_le32(3));
	REFUSED(journal_member[0], cpu_to_le32(~0u));
	REFUSED(journal_member[1], cpu_to_le32(0));
	REFUSED(journal_tail, cpu_to_le64(1ull << 62));
	REFUSED(seq, cpu_to_le64(~0ull));
	REFUSED(nsegments, cpu_to_le32(VD_SEGMENTS_MAX + 1));
#undef REFUSED
	rig_free(g);
}

/* ---- a model with crashes ------------------------------------------------ */

/*
 * Ids are sequences.  Each record stands for a data block that says the id in its
 * first and last sector.  After any crash what is replayed goes on from the
 * superblock's seq without a gap, holds all that was acknowledged (after a kill:
 * all that was appended), and the data of each record is there.
 */
struct model {
	struct rig *g;
	uint64_t appended, acked;
};

static uint8_t *data_of(struct rig *g, uint64_t id, unsigned *m)
{
	*m = id & 1 ? 2 : 0;
	return g->disk[*m].now + (DATA_START + id % DATA_BLOCKS) * VD_BLOCK;
}

static void model_put(struct model *mo)
{
	struct rig *g = mo->g;
	struct vd_disk_rec_map rec = map_rec(mo->appended + 1);
	uint64_t block[VD_BLOCK / 8];
	unsigned m, i;
	int r;

	while ((r = vd_journal_reserve(g->pool, sizeof(rec))) == -EWOULDBLOCK) {
		r = vd_journal_make_room(g->pool);
		if (r)
			return;
	}
	if (r)
		return;
	for (i = 0; i < VD_BLOCK / 8; i++)
		block[i] = mo->appended + 1;
	data_of(g, mo->appended + 1, &m);
	r = host_write(g, m, DATA_START + (mo->appended + 1) % DATA_BLOCKS, block, 1);
	vd_journal_wrote(g->pool, m);
	if (r) {
		vd_journal_unreserve(g->pool, sizeof(rec));
		return;
	}
	assert_int_equal(vd_journal_append(g->pool, &rec.r, sizeof(rec)), ++mo->appended);
}

static void model_check(struct model *mo, uint64_t least, uint64_t most)
{
	struct rig *g = mo->g;
	uint64_t base = le64_to_cpu(g->super.seq), last = vd_journal_last(g->pool), id, k;
	unsigned m;

	assert_true(last >= least && last <= most);
	assert_int_equal(g->nseen, last - base);
	for (id = base + 1; id <= last; id++) {
		assert_int_equal(g->seen[id - base - 1].seq, id);
		assert_int_equal(g->seen[id - base - 1].id, id);
		if (id + DATA_BLOCKS <= most + 1)
			continue; /* its block was taken by a later one */
		for (k = 0; k < 2; k++) {
			uint64_t said;

			memcpy(&said, data_of(g, id, &m) + k * (VD_BLOCK - 8), 8);
			assert_int_equal(said, id);
		}
	}
}

static void model_open(struct model *mo, bool power)
{
	struct rig *g = mo->g;
	unsigned tries;

	for (tries = 0;; tries++) {
		uint64_t most = mo->appended;

		assert_int_equal(attach(g, 0), 0);
		model_check(mo, power ? mo->acked : mo->appended, most);
		mo->appended = vd_journal_last(g->pool);
		if (tries < 3 && rnd(g) % 3 == 0)
			g->fail_in = 1 + (unsigned)(rnd(g) % 8);
		if (!vd_journal_begin(g->pool, le64_to_cpu(g->super.incarnation) + 1) || vd_pool_mode(g->pool) < VD_MODE_FAILED) {
			mo->acked = mo->appended;
			if (tries >= 3 || rnd(g) % 4)
				break; /* else: dies before the superblock */
		}
		power = rnd(g) % 2;
		if (power)
			cut_power(g, (enum cut)(rnd(g) % 3));
		else
			kill_process(g);
	}
	g->fail_in = 0;
	g->failing = false;
	if (!g->pool->journal->began) { /* no segment left */
		assert_int_equal(vd_checkpoint(g->pool), 0);
		assert_int_equal(vd_journal_begin(g->pool, le64_to_cpu(g->super.incarnation) + 1), 0);
	}
	g->pool->super->incarnation = cpu_to_le64(le64_to_cpu(g->super.incarnation) + 1);
	memcpy(&g->super, g->pool->super, sizeof(g->super));
}

/* J1, when nothing is reserved: each record here needs one block. */
static void model_claims(struct model *mo)
{
	struct vd_journal *j = mo->g->pool->journal;
	uint64_t waiting = vd_journal_last(mo->g->pool) - vd_journal_durable(mo->g->pool);

	if (vd_pool_mode(mo->g->pool) == VD_MODE_FAILED)
		return;
	assert_int_equal(vd_atomic_read(&j->claimed), vd_journal_used(mo->g->pool) + waiting);
	assert_int_equal(vd_atomic_read(&j->claimed_bytes), waiting * (sizeof(struct tail_rec) + sizeof(struct vd_disk_rec_map)));
	assert_true(vd_journal_used(mo->g->pool) == j->head - j->tail);
}

static void crashes_keep_what_was_acknowledged(void **state)
{
	uint64_t seed = env("VD_TEST_SEED", 0x9e3779b97f4a7c15ull);
	unsigned run, step, runs = scaled(12);

	(void)state;
	for (run = 0; run < runs; run++) {
		struct rig *g = rig_new(1 + run % 2, run % 3 ? 64 + run : 300);
		struct model mo = { .g = g };

		g->rnd = (seed + run * 7919) | 1;
		model_open(&mo, false);
		for (step = 0; step < 600; step++) {
			unsigned dice = (unsigned)(rnd(g) % 100);
			bool power;

			if (dice < 60) {
				unsigned k = rnd(g) % 8 ? 1 : (unsigned)(rnd(g) % 60);

				while (k--)
					model_put(&mo);
			} else if (dice < 82) {
				uint64_t seq = mo.appended;

				if (!commit(g))
					mo.acked = seq;
			} else if (dice < 88) {
				uint64_t seq = mo.appended;

				if (!vd_checkpoint(g->pool))
					mo.acked = seq;
			} else if (dice < 92) {
				g->fail_in = 1 + (unsigned)(rnd(g) % 12);
			} else if (dice < 96 || vd_pool_mode(g->pool) == VD_MODE_FAILED) {
				power = rnd(g) % 2;
				if (power)
					cut_power(g, (enum cut)(rnd(g) % 3));
				else
					kill_process(g);
				model_open(&mo, power);
			}
			model_claims(&mo);
		}
		rig_free(g);
	}
}

/* ---- a real kill ----------------------------------------------------------- */

static void work_until_killed(struct rig *g)
{
	for (;;) {
		struct vd_disk_rec_map rec = map_rec(vd_journal_last(g->pool) + 1);
		uint64_t dice = rnd(g) % 32;

		while (vd_journal_reserve(g->pool, sizeof(rec)))
			if (vd_journal_make_room(g->pool))
				_exit(1);
		vd_atomic_set(&g->progress, (int64_t)vd_journal_append(g->pool, &rec.r, sizeof(rec)));
		if (!dice && commit(g))
			_exit(1);
		if (dice == 1 && rnd(g) % 8 == 0 && vd_checkpoint(g->pool))
			_exit(1);
	}
}

static void a_kill_at_any_instant_loses_nothing_appended(void **state) /* I10, J4 */
{
	unsigned run, kills = scaled(60), i;
	struct rig *g = rig_new(2, 100);

	(void)state;
	g->rnd = env("VD_TEST_SEED", 12345) | 1;
	for (run = 0; run <= kills; run++) {
		struct timespec t = { .tv_nsec = (long)(rnd(g) % 3000000) };
		uint64_t last;
		pid_t pid;
		int status;

		assert_int_equal(attach(g, 0), 0);
		last = vd_journal_last(g->pool);
		assert_true(last >= (uint64_t)vd_atomic_read(&g->progress));
		assert_int_equal(g->nseen, last - le64_to_cpu(g->super.seq));
		for (i = 0; i < g->nseen; i++) {
			assert_int_equal(g->seen[i].seq, le64_to_cpu(g->super.seq) + 1 + i);
			assert_int_equal(g->seen[i].id, g->seen[i].seq);
		}
		if (begin(g) == -ENOSPC) {
			assert_int_equal(vd_checkpoint(g->pool), 0);
			assert_int_equal(begin(g), 0);
		}
		pid = fork();
		assert_true(pid >= 0);
		if (!pid)
			work_until_killed(g);
		nanosleep(&t, NULL);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		pthread_mutex_init(&g->lock, NULL); /* it may have held it */
		if (vd_atomic_read(&g->super_torn))
			memcpy(&g->super, &g->old_super, sizeof(g->super));
		vd_atomic_set(&g->super_torn, 0);
		kill_process(g);
	}
	assert_true(vd_atomic_read(&g->progress) > 0);
	rig_free(g);
}

/* ---- threads -------------------------------------------------------------- */

struct worker {
	struct rig *g;
	pthread_t thread;
	uint64_t seq;
	int r;
};

static void *commit_thread(void *arg)
{
	struct worker *w = arg;

	w->r = vd_journal_commit(w->g->pool, w->seq);
	return NULL;
}

static void gate_close(struct rig *g)
{
	pthread_mutex_lock(&g->lock);
	g->flush_gate = 1;
	g->gated = 0;
	pthread_mutex_unlock(&g->lock);
}

static void gate_await(struct rig *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->gated)
		pthread_cond_wait(&g->cond, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct rig *g)
{
	pthread_mutex_lock(&g->lock);
	g->flush_gate = 0;
	pthread_cond_broadcast(&g->cond);
	pthread_mutex_unlock(&g->lock);
}

/* Until the threads just made wait in a commit: that cannot be seen, so a while. */
static void settle_down(void)
{
	struct timespec t = { .tv_nsec = 50 * 1000 * 1000 };

	nanosleep(&t, NULL);
}

static void threads_that_wait_share_one_commit(void **state)
{
	struct rig *g = rig_new(2, 256);
	struct worker first = { .g = g }, w[8];
	unsigned i, before;

	(void)state;
	start(g);
	before = g->journal_writes;
	gate_close(g);
	first.seq = put(g, 1);
	pthread_create(&first.thread, NULL, commit_thread, &first);
	gate_await(g); /* in its journal flush */
	for (i = 0; i < 8; i++) {
		w[i] = (struct worker){ .g = g, .seq = put(g, 2 + i) };
		pthread_create(&w[i].thread, NULL, commit_thread, &w[i]);
	}
	settle_down();
	assert_int_equal(vd_journal_durable(g->pool), 0);
	gate_open(g);
	pthread_join(first.thread, NULL);
	assert_int_equal(first.r, 0);
	for (i = 0; i < 8; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].r, 0);
	}
	assert_int_equal(g->journal_writes, before + 2 * 2); /* two rounds, two copies */
	assert_int_equal(vd_journal_durable(g->pool), 9);
	rig_free(g);
}

static void threads_that_come_while_a_round_flushes_wait_for_the_next(void **state) /* J6 */
{
	struct rig *g = rig_new(1, 256);
	struct worker a = { .g = g }, b = { .g = g };
	uint8_t block[VD_BLOCK];
	unsigned f;

	(void)state;
	start(g);
	vd_journal_wrote(g->pool, 2);
	gate_close(g);
	pthread_create(&a.thread, NULL, commit_thread, &a);
	gate_await(g); /* a's flush of member 2 has begun */
	memset(block, 7, sizeof(block));
	assert_int_equal(host_write(g, 2, DATA_START, block, 1), 0);
	vd_journal_wrote(g->pool, 2);
	f = g->nflushed[2];
	pthread_create(&b.thread, NULL, commit_thread, &b);
	settle_down();
	gate_open(g);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	assert_int_equal(a.r, 0);
	assert_int_equal(b.r, 0);
	assert_int_equal(g->nflushed[2], f + 2);
	rig_free(g);
}

static void threads_that_wait_for_a_failed_commit_get_an_error(void **state)
{
	struct rig *g = rig_new(2, 256);
	struct worker w[5];
	unsigned i;

	(void)state;
	start(g);
	gate_close(g);
	for (i = 0; i < 5; i++) {
		w[i] = (struct worker){ .g = g, .seq = put(g, 1 + i) };
		pthread_create(&w[i].thread, NULL, commit_thread, &w[i]);
		gate_await(g);
	}
	settle_down();
	pthread_mutex_lock(&g->lock);
	g->failing = true;
	pthread_mutex_unlock(&g->lock);
	gate_open(g);
	for (i = 0; i < 5; i++) {
		pthread_join(w[i].thread, NULL);
		assert_int_equal(w[i].r, -EIO);
	}
	assert_int_equal(vd_pool_mode(g->pool), VD_MODE_FAILED);
	rig_free(g);
}

struct storm {
	struct rig *g;
	pthread_t thread;
	unsigned me, ops;
	uint64_t acked;
	vd_atomic_t *appended;
};

static void *storm_thread(void *arg)
{
	struct storm *s = arg;
	struct rig *g = s->g;
	uint64_t x = s->me * 0x9e3779b97f4a7c15ull | 1, seq, block[VD_BLOCK / 8];
	struct vd_disk_rec_map rec;
	unsigned op, at = DATA_START + s->me;
	int r;

	for (op = 0; op < s->ops; op++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		while ((r = vd_journal_reserve(g->pool, sizeof(rec))) == -EWOULDBLOCK)
			if (vd_journal_make_room(g->pool))
				return NULL;
		if (r)
			return NULL;
		memset(block, 0, sizeof(block));
		block[0] = x;
		if (host_write(g, 2, at, block, 1))
			return NULL;
		vd_journal_wrote(g->pool, 2);
		rec = map_rec(x);
		seq = vd_journal_append(g->pool, &rec.r, sizeof(rec));
		vd_atomic_add(s->appended, 1);
		if (x % 8 < 3) {
			if (vd_journal_commit(g->pool, x & 16 ? seq : ~0ull))
				return NULL;
			s->acked = seq;
			pthread_mutex_lock(&g->lock);
			r = memcmp(g->disk[2].media + (size_t)at * VD_BLOCK, block, 8);
			pthread_mutex_unlock(&g->lock);
			if (r || vd_journal_durable(g->pool) < seq)
				s->acked = ~0ull; /* no assertions in threads */
		} else if (x % 64 == 5) {
			if (vd_checkpoint(g->pool))
				return NULL;
		} else if (x % 64 == 6) {
			if (!vd_journal_reserve(g->pool, 64))
				vd_journal_unreserve(g->pool, 64);
		}
	}
	return NULL;
}

/* Threads append and commit at once, with checkpoints and a small ring; then the
 * process dies (even runs), or a write fails in the middle and the power is cut. */
static void threads_append_and_commit(void **state)
{
	unsigned run, i;

	(void)state;
	for (run = 0; run < 6; run++) {
		struct rig *g = rig_new(2, run % 3 ? 600 : 64);
		struct storm s[6];
		vd_atomic_t appended = { 0 };
		uint64_t acked = 0, base;

		start(g);
		if (run & 1)
			g->fail_in = 200 + 50 * run;
		for (i = 0; i < 6; i++) {
			s[i] = (struct storm){ .g = g, .me = i + 1, .ops = scaled(400), .appended = &appended };
			pthread_create(&s[i].thread, NULL, storm_thread, &s[i]);
		}
		for (i = 0; i < 6; i++) {
			pthread_join(s[i].thread, NULL);
			assert_int_not_equal(s[i].acked, ~0ull);
			acked = vd_max(acked, s[i].acked);
		}
		assert_int_equal(vd_journal_last(g->pool), vd_atomic_read(&appended));
		if (run & 1)
			cut_power(g, TEAR);
		else
			kill_process(g);
		start(g);
		base = le64_to_cpu(g->super.seq);
		assert_true(base + g->nseen >= acked);
		if (!(run & 1))
			assert_int_equal(base + g->nseen, vd_atomic_read(&appended));
		for (i = 0; i < g->nseen; i++)
			assert_int_equal(g->seen[i].seq, base + 1 + i);
		rig_free(g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(committed_records_survive_a_power_cut),
		cmocka_unit_test(uncommitted_records_are_lost_in_a_power_cut),
		cmocka_unit_test(uncommitted_records_survive_a_kill),
		cmocka_unit_test(without_the_hosts_tail_a_kill_loses_what_was_not_committed),
		cmocka_unit_test(a_clean_flush_does_no_io),
		cmocka_unit_test(data_without_records_is_flushed_without_a_journal_write),
		cmocka_unit_test(a_commit_is_one_write_and_one_flush_a_copy),
		cmocka_unit_test(a_torn_commit_is_dropped_whole),
		cmocka_unit_test(an_unanswered_commit_that_is_whole_counts),
		cmocka_unit_test(crash_rewrite_crash_does_not_bring_back_the_old_tail),
		cmocka_unit_test(a_new_incarnation_ends_the_old_ones_chain),
		cmocka_unit_test(fewer_survivors_than_the_torn_commit_had_break_its_chain),
		cmocka_unit_test(a_survivor_written_over_a_torn_commit_breaks_its_chain),
		cmocka_unit_test(unequal_copies_are_made_equal_before_the_first_append),
		cmocka_unit_test(an_unreadable_block_is_taken_from_the_other_copy),
		cmocka_unit_test(a_block_that_no_copy_can_read_stops_the_opening),
		cmocka_unit_test(one_copy_alone_is_enough_to_read),
		cmocka_unit_test(a_read_only_opening_writes_nothing_and_leaves_the_tail),
		cmocka_unit_test(the_tail_of_another_incarnation_is_not_believed),
		cmocka_unit_test(the_tail_of_another_pool_is_not_believed),
		cmocka_unit_test(a_damaged_tail_is_believed_up_to_the_damage),
		cmocka_unit_test(records_that_are_durable_are_not_replayed_twice_from_the_tail),
		cmocka_unit_test(a_tail_that_does_not_continue_the_chain_is_dropped),
		cmocka_unit_test(an_interrupted_opening_loses_nothing),
		cmocka_unit_test(openings_without_a_commit_use_no_segment),
		cmocka_unit_test(a_full_table_of_segments_asks_for_a_checkpoint),
		cmocka_unit_test(an_error_of_the_replay_function_ends_the_opening),
		cmocka_unit_test(an_opening_without_memory_fails_and_leaks_nothing),
		cmocka_unit_test(a_full_ring_refuses_and_make_room_checkpoints),
		cmocka_unit_test(every_reserved_record_can_be_committed_alone),
		cmocka_unit_test(a_commit_gives_back_what_its_records_did_not_need),
		cmocka_unit_test(unreserve_gives_the_room_back),
		cmocka_unit_test(the_tails_memory_is_a_limit_too),
		cmocka_unit_test(make_room_makes_room_for_a_whole_group),
		cmocka_unit_test(lengths_that_cannot_be_are_refused),
		cmocka_unit_test(the_ring_wraps),
		cmocka_unit_test(a_commit_over_the_rings_end_is_two_writes),
		cmocka_unit_test(the_tail_may_go_to_the_end_of_the_last_commit),
		cmocka_unit_test(records_behind_the_checkpoint_in_its_commit_are_replayed),
		cmocka_unit_test(a_chain_that_ends_before_the_checkpoint_can_go_on),
		cmocka_unit_test(a_failed_write_or_flush_acknowledges_nothing),
		cmocka_unit_test(a_flush_that_fails_leaves_the_member_dirty),
		cmocka_unit_test(hostile_blocks_do_no_harm),
		cmocka_unit_test(a_superblock_that_cannot_be_is_refused),
		cmocka_unit_test(crashes_keep_what_was_acknowledged),
		cmocka_unit_test(a_kill_at_any_instant_loses_nothing_appended),
		cmocka_unit_test(threads_that_wait_share_one_commit),
		cmocka_unit_test(threads_that_come_while_a_round_flushes_wait_for_the_next),
		cmocka_unit_test(threads_that_wait_for_a_failed_commit_get_an_error),
		cmocka_unit_test(threads_append_and_commit),
	};

#ifdef TEST_FILTER
	cmocka_set_test_filter(TEST_FILTER);
#endif
	return cmocka_run_group_tests(tests, NULL, NULL);
}
