/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The journal with many threads: group commit, and all at once. For make check-tsan too. */
#include "journalrig.h"

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
		cmocka_unit_test(threads_that_wait_share_one_commit),
		cmocka_unit_test(threads_that_come_while_a_round_flushes_wait_for_the_next),
		cmocka_unit_test(threads_that_wait_for_a_failed_commit_get_an_error),
		cmocka_unit_test(threads_append_and_commit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
