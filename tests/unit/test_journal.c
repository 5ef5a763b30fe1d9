/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* journal.c: commits, room, the tail for a checkpoint, failures. */
#include "journalrig.h"

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
	munmap(g->tail, (VD_TAIL_MIN + VD_TAIL_HEAD));
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
		assert_int_equal(commit(g), 0); /* each alone: the worst case */
		n++;
	}
	assert_int_equal(n, 58); /* the rest is kept (J1) */
	assert_int_equal(vd_journal_used(g->pool), 58);
	assert_true(g->wants > 0);
	assert_int_equal(vd_journal_reserve(g->pool, sizeof(rec)), -EWOULDBLOCK);
	assert_int_equal(g->checkpoints, 0);
	assert_int_equal(vd_journal_make_room(g->pool), 0);
	assert_int_equal(g->checkpoints, 1);
	assert_int_equal(vd_journal_used(g->pool), 0);
	assert_int_equal(put(g, id), 59);
	rig_free(g);
}

static void reserved_records_can_be_committed_one_by_one(void **state) /* J1 */
{
	struct rig *g = rig_new(1, 64);
	struct vd_disk_rec_map rec;
	unsigned i;

	(void)state;
	start(g);
	for (i = 0; i < 200; i++) /* four times as many as the ring has blocks */
		assert_int_equal(vd_journal_reserve(g->pool, sizeof(rec)), 0);
	for (i = 0; i < 200; i++) {
		rec = map_rec(i + 1);
		vd_journal_append(g->pool, &rec.r, sizeof(rec));
		assert_int_equal(commit(g), 0);
	}
	assert_in_range(g->checkpoints, 3, 5);
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
		assert_int_equal(n, 57);
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
		assert_int_equal(n, VD_TAIL_MIN / (3992 + 16));
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
		if (i == 40)
			assert_int_equal(vd_checkpoint(g->pool), 0);
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
		cmocka_unit_test(a_full_ring_refuses_and_make_room_checkpoints),
		cmocka_unit_test(reserved_records_can_be_committed_one_by_one),
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
