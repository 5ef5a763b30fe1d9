/* link: dm-target/core/journal.c dm-target/core/replay.c libvol/port.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* replay.c: torn chains, surviving tails, new incarnations, hostile contents. */
#include "journalrig.h"

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
	g->tail[VD_TAIL_HEAD + 10 * 48 + 20] ^= 1;
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
	g->tail[VD_TAIL_HEAD + 6 * 48 + 20] ^= 1;
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
	tail = malloc((VD_TAIL_MIN + VD_TAIL_HEAD));
	memcpy(image, on_disk(g, 0, 0), 64 * VD_BLOCK);
	memcpy(tail, g->tail, (VD_TAIL_MIN + VD_TAIL_HEAD));
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
			struct tail_rec *h = (struct tail_rec *)(g->tail + VD_TAIL_HEAD);

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_torn_commit_is_dropped_whole),
		cmocka_unit_test(an_unanswered_commit_that_is_whole_counts),
		cmocka_unit_test(crash_rewrite_crash_does_not_bring_back_the_old_tail),
		cmocka_unit_test(a_new_incarnation_ends_the_old_ones_chain),
		cmocka_unit_test(a_survivor_written_over_a_torn_commit_breaks_its_chain),
		cmocka_unit_test(fewer_survivors_than_the_torn_commit_had_break_its_chain),
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
		cmocka_unit_test(hostile_blocks_do_no_harm),
		cmocka_unit_test(a_superblock_that_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
