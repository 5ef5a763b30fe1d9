/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The journal through random crashes, against a model, and through real kills. */
#include "journalrig.h"

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

/* J1, when nothing is reserved. */
static void model_claims(struct model *mo)
{
	struct vd_journal *j = mo->g->pool->journal;
	uint64_t waiting = vd_journal_last(mo->g->pool) - vd_journal_durable(mo->g->pool);

	if (vd_pool_mode(mo->g->pool) == VD_MODE_FAILED)
		return;
	assert_int_equal(vd_atomic_read(&j->claimed), waiting * sizeof(struct vd_disk_rec_map));
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
		alarm(300);
		while (!run && !vd_atomic_read(&g->progress)) /* on a slow machine not even one would be appended */
			usleep(100);
		alarm(0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crashes_keep_what_was_acknowledged),
		cmocka_unit_test(a_kill_at_any_instant_loses_nothing_appended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
