/* link: dm-target/core/space.c dm-target/core/space_alloc.c dm-target/core/space_fold.c dm-target/core/space_stage.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Who gets which block: data and metadata.  A1-A5 are the invariants at the head of
 * space_alloc.c.
 */
#include "space_fake.h"

/* ---- data ------------------------------------------------------------------------- */

static void reserve_gives_exactly_the_goal(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	p = take(16);
	assert_int_equal(p & 15, 0);
	OK(reserve(p + 16, 100, &q, &got));
	assert_int_equal(q, p + 16);
	assert_int_equal(got, 100);
	vd_space_unreserve(P, p + 3, 5);
	OK(reserve(p + 4, 16, &q, &got)); /* as far as it is free */
	assert_int_equal(q, p + 4);
	assert_int_equal(got, 4);
	verify_totals();
}

static void reserve_near_the_goal_when_it_is_taken(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	p = take(256);
	OK(reserve(p + 100, 16, &q, &got));
	assert_int_equal(got, 16);
	assert_int_equal(q, p + 256);
	verify_totals();
}

/* Who goes on beside what he has does not ask for a run elsewhere; that is no sign that there is
 * none, so that the gaps he left are taken when a group is used up. */
static void a_stream_of_windows_has_no_short_ones_while_groups_are_free(void **state)
{
	enum { WINDOWS = 8 * 512 };
	static vd_pblk_t at[WINDOWS];
	vd_pblk_t goal = VD_PBLK_NONE;
	unsigned got;

	(void)state;
	pool_one(12 * 8192);
	for (unsigned i = 0; i < WINDOWS; i++) {
		OK(reserve(goal, 16, &at[i], &got));
		assert_int_equal(got, 16);
		goal = at[i] + 16;
		if (i >= 100)
			vd_space_unreserve(P, at[i - 100] + 1, 15);
	}
	verify_totals();
}

static void reserve_gives_the_longest_when_none_fits(void **state)
{
	vd_pblk_t p, last = 0;
	unsigned got;

	(void)state;
	pool_one(8192);
	while (!reserve(VD_PBLK_NONE, 64, &p, &got))
		last = p;
	assert_int_equal(vd_space_free(P), 0);
	assert_int_equal(vd_space_reserve(P, VD_PBLK_NONE, 1, &p, &got), -EWOULDBLOCK);
	assert_int_equal(vd_space_refill(P), -ENOSPC);
	vd_space_unreserve(P, 1000, 3);
	vd_space_unreserve(P, 2000, 7);
	vd_space_unreserve(P, 3000, 5);
	OK(reserve(VD_PBLK_NONE, 64, &p, &got));
	assert_int_equal(p, 2000);
	assert_int_equal(got, 7);
	OK(reserve(VD_PBLK_NONE, 64, &p, &got));
	assert_int_equal(p, 3000);
	(void)last;
	verify_totals();
}

/* What is given back joins what is free on both sides, across the words of the bitmap too:
 * else its group would be passed over for one with a shorter run. */
static void a_run_of_pieces_counts_as_one(void **state)
{
	static const unsigned order[][3] = { { 0, 1, 2 }, { 2, 1, 0 }, { 0, 2, 1 }, { 1, 0, 2 } };
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(2 * 8192);
	while (!reserve(VD_PBLK_NONE, 64, &p, &got))
		;
	for (unsigned i = 0; i < 4; i++)
		for (vd_pblk_t at = 8192 + 4000; at < 8192 + 4200; at += 7) {
			for (unsigned k = 0; k < 3; k++)
				vd_space_unreserve(P, at + 14 * order[i][k], 14);
			vd_space_unreserve(P, 1000, 30);
			OK(reserve(VD_PBLK_NONE, 64, &p, &got));
			assert_int_equal(p, at);
			assert_int_equal(got, 42);
			OK(reserve(VD_PBLK_NONE, 64, &p, &got));
			assert_int_equal(p, 1000);
			assert_int_equal(got, 30);
		}
	verify_totals();
}

static void reserve_aligns_long_runs(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	for (unsigned i = 0; i < 20; i++) {
		OK(reserve(VD_PBLK_NONE, 3, &p, &got));
		OK(reserve(VD_PBLK_NONE, 16 + i, &p, &got));
		assert_int_equal(p & 15, 0);
	}
	verify_totals();
}

static void the_reserve_is_exact_over_members(void **state)
{
	uint64_t blocks[3] = { 3000, 8192, 8192 };
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_members(3, blocks);
	P->reserve_blocks = 1001;
	while (!reserve(VD_PBLK_NONE, 37, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 1001);
	for (unsigned m = 0; m < 3; m++)
		assert_true(P->space->member[m]->free >= 1001 / 4);
	verify_totals();
}

static void reserve_leaves_the_metadata_reserve(void **state)
{
	vd_pblk_t p, a, b;
	unsigned got;
	int r;

	(void)state;
	pool_one(3 * 8192);
	P->reserve_blocks = 1000;
	while (!(r = reserve(VD_PBLK_NONE, 1024, &p, &got)))
		;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vd_space_free(P), 1000);
	for (unsigned i = 0; i < 1000; i++)
		OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(vd_space_alloc_node(P, &a, &b), -ENOSPC);
	assert_int_equal(vd_space_free(P), 0);
	verify_totals();
}

/* A5 */
static void what_is_promised_goes_to_whom_it_is_promised(void **state)
{
	struct vd_promise mine = { 0 };
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(8192);
	P->reserve_blocks = 100;
	OK(vd_space_refill(P));
	vd_space_promise(P, 700);
	vd_atomic_set(&mine.all, 500);
	vd_atomic_set(&mine.left, 5);
	while (!vd_space_reserve(P, VD_PBLK_NONE, 37, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 850); /* and half the reserve: R5 */
	assert_int_equal(vd_space_hold(P, 1, 0), -ENOSPC); /* which a promise leaves as well */
	vd_space_promise(P, -50);
	assert_int_equal(vd_space_hold(P, 51, 0), -ENOSPC);
	OK(vd_space_hold(P, 50, 0));
	vd_space_unhold(P, 50);
	vd_space_promise(P, 50);
	OK(vd_space_reserve_for(P, &mine, VD_PBLK_NONE, 37, &p, &got));
	assert_int_equal(got, 5); /* no more at a time than is left of its own */
	vd_space_unreserve(P, p, got);
	vd_atomic_set(&mine.left, 450);
	while (!vd_space_reserve_for(P, &mine, VD_PBLK_NONE, 37, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 300); /* others' 200 and the reserve */
	vd_space_promise(P, -700);
	assert_int_equal(vd_space_hold(P, 200, 1), -ENOSPC);
	OK(vd_space_hold(P, 149, 0)); /* 200 above the reserve, less R5's 50 and what is kept */
	OK(vd_space_reserve(P, VD_PBLK_NONE, 37, &p, &got));
	assert_int_equal(got, 1);
	vd_space_unhold(P, 149);
	OK(reserve(VD_PBLK_NONE, 37, &p, &got));
	verify_totals();
}

/* Its last group has the same count throughout, and is an entry of the tree, not a page. */
static void a_member_grows_beyond_a_uniform_group(void **state)
{
	uint64_t before = 8192 + 64, after, free;
	vd_pblk_t p;
	unsigned got;

	(void)state;
	for (unsigned turn = 0; turn < 3; turn++) {
		after = turn == 0 ? 8192 + 65 : turn == 1 ? 2 * 8192 : 5 * 8192;
		pool_one(before);
		OK(vd_space_inc(P, 8192, 64));
		checkpoint();
		reopen();
		assert_int_equal(slot_of(8)->ptr.gen, 0);
		OK(vd_space_stretch(P, 0, after));
		checkpoint();
		free = vd_space_free(P);
		P->member[0].blocks = after;
		vd_space_grown(P, 0, before);
		assert_int_equal(vd_space_free(P), free + after - before);
		verify_totals();
		assert_int_equal(count(8192 + 63), 1);
		assert_int_equal(count(8192 + 64), 0);
		while (!reserve(VD_PBLK_NONE, 64, &p, &got))
			;
		assert_int_equal(vd_space_free(P), 0);
		reopen();
		verify_totals();
		if (turn < 2)
			pool_end();
	}
}

static void the_reserve_is_kept_on_each_member(void **state)
{
	uint64_t blocks[2] = { 2048, 8 * 8192 };
	vd_pblk_t p, a, b;
	unsigned got;

	(void)state;
	pool_members(2, blocks);
	P->reserve_blocks = 1000;
	while (!reserve(VD_PBLK_NONE, 100, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 1000);
	for (unsigned i = 0; i < 500; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		assert_int_not_equal(b, VD_PBLK_NONE);
		assert_int_not_equal(VD_PBLK_MEMBER(a), VD_PBLK_MEMBER(b));
	}
	verify_totals();
}

static void without_goal_members_take_turns(void **state)
{
	uint64_t blocks[4] = { 8192, 8192, 3 * 8192, 8192 };

	(void)state;
	pool_members(4, blocks);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(VD_PBLK_MEMBER(take(16)), i % 4);
	P->member[1].missing = true;
	for (unsigned i = 0; i < 12; i++)
		assert_int_not_equal(VD_PBLK_MEMBER(take(16)), 1);
}

static void data_of_one_stream_stays_together(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(16 * 8192);
	p = take(16);
	for (unsigned i = 0; i < 200; i++) {
		vd_pblk_t a, b;

		OK(reserve(p + 16, 16, &q, &got));
		assert_int_equal(q, p + 16);
		OK(vd_space_alloc_node(P, &a, &b)); /* metadata is elsewhere */
		p = q;
	}
}

/* What windows leave between the blocks of their regions is theirs to come back to, while
 * there is a group that nobody has begun (W3 of window.c). */
static void gaps_are_left_while_there_are_free_groups(void **state)
{
	enum { GROUPS = 48 };
	vd_pblk_t p, goal = VD_PBLK_NONE;
	uint64_t now = ~0ull;
	bool left[GROUPS] = { false };
	unsigned got, begun = 0, keep = 0;

	(void)state;
	pool_one(GROUPS * 8192);
	while (begun < GROUPS - 4) {
		OK(reserve(goal, 16, &p, &got));
		assert_int_equal(got, 16);
		if (p / 8192 != now) {
			if (now != ~0ull)
				left[now] = true;
			now = p / 8192;
			assert_false(left[now]);
			begun++;
		}
		keep = 15 - keep; /* the gaps are of 30 blocks and of none, in turns */
		vd_space_unreserve(P, p, keep);
		vd_space_unreserve(P, p + keep + 1, 15 - keep);
		goal = begun % 3 ? p + 16 : VD_PBLK_NONE;
	}
	verify_totals();
}

/* Nothing good is left anywhere: that is found out once and not by each writer. */
static void an_old_pool_is_not_read_whole(void **state)
{
	enum { GROUPS = 300 };
	static const unsigned want[] = { 16, 16, 1024, 16, 128 };
	unsigned got, asked, most = 0;
	vd_pblk_t p;

	(void)state;
	pool_one(GROUPS * 8192);
	for (vd_pblk_t g = 1; g < GROUPS; g++)
		for (unsigned i = 15; i < 8192; i += 16)
			OK(vd_space_inc(P, g * 8192 + i, 1));
	checkpoint();
	drain();
	reopen();
	P->reserve_blocks = 4096;
	for (unsigned i = 0; i < 2000; i++) {
		for (asked = 0; vd_space_reserve(P, VD_PBLK_NONE, want[i % 5], &p, &got); asked++)
			OK(vd_space_refill(P));
		assert_true(got);
		most = vd_max(most, asked);
	}
	assert_in_range(most, 1, 3);
	assert_in_range(P->space->ngroups, 2, GROUPS / 4);
}

static void refill_finds_what_is_free_after_opening(void **state)
{
	uint64_t total = 0;
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(40 * 8192);
	for (unsigned k = 1; k < 40; k++)
		OK(vd_space_inc(P, k * 8192, 8192 - (k % 5 == 0 ? 20 : 0)));
	checkpoint();
	drain();
	/* a gap between full groups */
	OK(vd_space_dec(P, 22 * 8192, 8192));
	checkpoint();
	drain();
	reopen();
	for (uint64_t was = vd_space_free(P); !reserve(VD_PBLK_NONE, 64, &p, &got); total += got)
		assert_int_equal(vd_space_free(P), was - total - got);
	assert_int_equal(vd_space_free(P), 0);
	assert_true(total > 8192 * 2 - 80 - 100);
	verify_totals();
}

static void refill_skips_what_is_full(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(3000ull * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_claim(P, 4096, 4096));
	OK(vd_space_inc(P, 4096, 4096));
	OK(vd_space_inc(P, 8192, 2000ull * 8192));
	OK(vd_space_dec(P, 1500 * 8192 + 100, 200));
	checkpoint();
	drain();
	reopen();
	fetched = 0;
	for (unsigned i = 0; i < 3000; i++)
		OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
	assert_true(fetched < 4000); /* some for each of the 500 groups that were used */
	verify_totals();
}

/* Of three groups the middle one has counts of its own to be read. */
static void pool_with_counts(void)
{
	pool_one(3 * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_inc(P, 9000, 1));
	checkpoint();
	drain();
	reopen();
}

static void refill_passes_over_groups_it_cannot_read(void **state)
{
	struct vd_disk_space *d;
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_with_counts();
	d = (*node_slot(slot_of(8)->ptr.a))->n.data;
	d->width = cpu_to_le32(5);
	while (!vd_space_reserve(P, VD_PBLK_NONE, 512, &p, &got) || !vd_space_refill(P))
		;
	assert_true(warnings > 0);
	assert_true(vd_space_free(P) >= 8190);
	assert_true(vd_space_free(P) < 8192);
}

/* Who would have had blocks there takes others, and does not fail. */
static void there_is_nothing_in_a_group_that_cannot_be_read(void **state)
{
	uint32_t mask = 7;

	(void)state;
	pool_with_counts();
	assert_int_equal(vd_space_reserve_mask(P, NULL, 8999, 3, 0, &mask), -EWOULDBLOCK);
	fetch_error_at = 1;
	OK(vd_space_load(P, 8999));
	OK(vd_space_reserve_mask(P, NULL, 8999, 3, 0, &mask));
	assert_int_equal(mask, 0);
	fetch_error_at = 0;
	OK(vd_space_load(P, 8999));
	OK(vd_space_reserve_mask(P, NULL, 8999, 3, 0, &mask));
	assert_int_equal(mask, 5);
	OK(vd_space_reserve_mask(P, NULL, 8999, 3, 0, &mask)); /* nothing but with the one that counts */
	assert_int_equal(mask, 0);
	mask = 7;
	OK(vd_space_reserve_mask(P, NULL, 3 * 8192, 3, 0, &mask)); /* nor behind the member's end */
	assert_int_equal(mask, 0);
	vd_space_unreserve(P, 8999, 3);
	verify_totals();
}

static void claims_conflict(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(3 * 8192);
	OK(vd_space_inc(P, 5000, 1));
	checkpoint();
	reopen();
	assert_int_equal(vd_space_claim(P, 4990, 20), -EUCLEAN);
	OK(vd_space_claim(P, 8000, 500)); /* over groups */
	assert_int_equal(vd_space_claim(P, 8499, 1), -EUCLEAN);
	OK(vd_space_claim(P, 8500, 1));
	p = take(16);
	assert_int_equal(vd_space_claim(P, p + 15, 1), -EUCLEAN);
	assert_int_equal(vd_space_claim(P, 3 * 8192 - 1, 2), -EUCLEAN);
	verify_totals();
}

/* ---- metadata ----------------------------------------------------------------------- */

static void nodes_have_copies_on_two_members(void **state)
{
	uint64_t blocks[3] = { 8192, 8192, 8192 };
	unsigned seen[3] = { 0 };
	vd_pblk_t a, b;

	(void)state;
	pool_members(3, blocks);
	for (unsigned i = 0; i < 600; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		assert_int_not_equal(VD_PBLK_MEMBER(a), VD_PBLK_MEMBER(b));
		seen[VD_PBLK_MEMBER(a)]++;
		seen[VD_PBLK_MEMBER(b)]++;
		assert_int_equal(count(a), 1);
		assert_int_equal(count(b), 1);
	}
	for (unsigned m = 0; m < 3; m++)
		assert_true(seen[m] > 300);
	P->member[0].missing = P->member[2].missing = true;
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(VD_PBLK_MEMBER(a), 1);
	assert_int_equal(b, VD_PBLK_NONE);
	verify_totals();
}

static void nodes_of_a_checkpoint_are_contiguous(void **state)
{
	vd_pblk_t a, b, last = 0, p;
	unsigned breaks = 0, got;

	(void)state;
	pool_one(8 * 8192);
	for (unsigned i = 0; i < 512; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		OK(reserve(VD_PBLK_NONE, 16, &p, &got));
		breaks += a != last + 1;
		last = a;
	}
	assert_true(breaks <= 8);
}

static void one_copy_when_the_other_member_is_full(void **state)
{
	uint64_t blocks[2] = { 2048, 3 * 8192 };
	vd_pblk_t a, b;

	(void)state;
	pool_members(2, blocks);
	OK(vd_space_claim(P, 80, 2048 - 80));
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(VD_PBLK_MEMBER(a), 1);
	assert_int_equal(b, VD_PBLK_NONE);
	assert_int_equal(warnings, 1);
}

static void space_is_short_when_two_checkpoints_have_no_room_for_both_copies(void **state)
{
	uint64_t two[2] = { 5 * 8192, 2100 }, three[3] = { 5 * 8192, 2100, 2100 };
	vd_pblk_t used = (1ull << VD_MEMBER_SHIFT) + 300;

	(void)state;
	pool_members(2, two); /* A6 */
	P->reserve_blocks = 1000;
	checkpoint();
	reopen(); /* what is not in memory is looked at */
	assert_false(vd_space_short(P));
	OK(vd_space_claim(P, used, 700));
	assert_false(vd_space_short(P));
	OK(vd_space_claim(P, used + 700, 700));
	assert_true(vd_space_short(P));
	vd_space_unreserve(P, used, 700);
	assert_false(vd_space_short(P));
	P->reserve_blocks = 21000; /* in all */
	assert_true(vd_space_short(P));
	pool_end();
	pool_members(3, three);
	P->reserve_blocks = 1000;
	assert_false(vd_space_short(P));
	OK(vd_space_claim(P, used, 1700));
	assert_false(vd_space_short(P));
	OK(vd_space_claim(P, (2ull << VD_MEMBER_SHIFT) + 300, 600));
	assert_true(vd_space_short(P));
	verify_totals();
}

static void one_member_is_not_short_of_room_for_copies(void **state)
{
	(void)state;
	pool_one(2100);
	P->reserve_blocks = 1000;
	assert_false(vd_space_short(P));
	OK(vd_space_claim(P, 80, 100));
	assert_true(vd_space_short(P)); /* but for one */
}

static void a_node_goes_with_its_last_reference(void **state)
{
	uint64_t blocks[2] = { 8192, 8192 };
	struct vd_node *n;
	struct vd_ptr ptr;
	uint32_t left;

	(void)state;
	pool_members(2, blocks);
	OK(vd_node_new(P, VD_NODE_INDEX, 1, 0, &n));
	ptr = n->ptr;
	vd_node_put(P, n);
	OK(vd_space_inc(P, ptr.a, 1));
	OK(vd_space_drop_node(P, &ptr, &left));
	assert_int_equal(left, 1);
	assert_int_equal(count(ptr.b), 1);
	OK(vd_space_drop_node(P, &ptr, &left));
	assert_int_equal(left, 0);
	assert_int_equal(count(ptr.a), 0);
	assert_int_equal(count(ptr.b), 0);
	assert_false((*node_slot(ptr.a))->live);
	assert_int_equal(vd_space_drop_node(P, &ptr, &left), -EUCLEAN);
	checkpoint();
	drain();
	assert_false(is_busy(ptr.a));
	assert_false(is_busy(ptr.b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reserve_gives_exactly_the_goal),
		T(reserve_near_the_goal_when_it_is_taken),
		T(a_stream_of_windows_has_no_short_ones_while_groups_are_free),
		T(reserve_gives_the_longest_when_none_fits),
		T(a_run_of_pieces_counts_as_one),
		T(reserve_aligns_long_runs),
		T(the_reserve_is_exact_over_members),
		T(reserve_leaves_the_metadata_reserve),
		T(what_is_promised_goes_to_whom_it_is_promised),
		T(a_member_grows_beyond_a_uniform_group),
		T(the_reserve_is_kept_on_each_member),
		T(without_goal_members_take_turns),
		T(data_of_one_stream_stays_together),
		T(gaps_are_left_while_there_are_free_groups),
		T(an_old_pool_is_not_read_whole),
		T(refill_finds_what_is_free_after_opening),
		T(refill_skips_what_is_full),
		T(refill_passes_over_groups_it_cannot_read),
		T(there_is_nothing_in_a_group_that_cannot_be_read),
		T(claims_conflict),
		T(nodes_have_copies_on_two_members),
		T(nodes_of_a_checkpoint_are_contiguous),
		T(one_copy_when_the_other_member_is_full),
		T(space_is_short_when_two_checkpoints_have_no_room_for_both_copies),
		T(one_member_is_not_short_of_room_for_copies),
		T(a_node_goes_with_its_last_reference),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
