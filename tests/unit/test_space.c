/* link: dm-target/core/space.c dm-target/core/space_alloc.c dm-target/core/space_fold.c dm-target/core/space_stage.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Counts and their pages, the way of a block back to free, groups in memory, hostile
 * pages.  S1-S5 and B1-B4 are the invariants at the heads of space.c and space_stage.c.
 */
#include "space_fake.h"

/* ---- counts and pages --------------------------------------------------------- */

static void formatting_counts_labels_and_journal(void **state)
{
	uint64_t blocks[2] = { 10000, 5000 };

	(void)state;
	pool_members(2, blocks);
	assert_int_equal(vd_space_used(P), 2 * (16 + 64));
	assert_int_equal(vd_space_free(P), 15000 - 160);
	assert_int_equal(count(0), 1);
	assert_int_equal(count(79), 1);
	assert_int_equal(count(80), 0);
	assert_int_equal(count(VD_PBLK(1, 79)), 1);
	checkpoint();
	reopen();
	assert_int_equal(count(VD_PBLK(1, 79)), 1);
	verify_totals();
}

static void a_full_group_is_one_entry(void **state)
{
	const struct vd_slot *slot;

	(void)state;
	pool_one(3 * 8192);
	OK(vd_space_inc(P, 8192, 8192));
	OK(vd_space_inc(P, 8192, 8192));
	checkpoint();
	slot = slot_of(8);
	assert_non_null(slot);
	assert_int_equal(slot->ptr.gen, 0);
	assert_int_equal(slot->ptr.a, 2);
	assert_int_equal(slot->aux, 0);
	reopen();
	assert_int_equal(count(8192), 2);
	assert_int_equal(count(16383), 2);
	verify_totals();
}

static void a_full_last_group_is_one_entry(void **state)
{
	const struct vd_slot *slot;
	uint32_t n;
	uint64_t run;

	(void)state;
	pool_one(8192 + 100);
	OK(vd_space_inc(P, 8192, 100));
	checkpoint();
	slot = slot_of(8);
	assert_non_null(slot);
	assert_int_equal(slot->ptr.gen, 0);
	assert_int_equal(slot->ptr.a, 1);
	reopen();
	OK(vd_space_run(P, 8192, ~0ull, &n, &run));
	assert_int_equal(n, 1);
	assert_int_equal(run, 100);
	OK(vd_space_dec(P, 8192, 100));
	checkpoint();
	assert_null(slot_of(8));
	verify_totals();
}

static void an_emptied_group_leaves_the_tree(void **state)
{
	(void)state;
	pool_one(3 * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_inc(P, 9000, 10));
	checkpoint();
	assert_non_null(slot_of(8));
	assert_int_equal(slot_of(8)->aux, 8192 - 10);
	OK(vd_space_dec(P, 9000, 10));
	checkpoint();
	assert_null(slot_of(8));
	reopen();
	assert_int_equal(count(9000), 0);
	verify_totals();
}

static void widths_grow_and_shrink(void **state)
{
	static const struct { uint32_t count; unsigned width, parts; } step[] = {
		{ 1, 1, 1 }, { 2, 2, 1 }, { 3, 2, 1 }, { 4, 3, 1 }, { 7, 3, 1 }, { 8, 7, 2 }, { 127, 7, 2 }, { 128, 15, 4 },
		{ 300, 15, 4 }, { 32767, 15, 4 }, { 32768, 31, 8 }, { 40000, 31, 8 },
		{ 32767, 15, 4 }, { 100, 7, 2 }, { 7, 3, 1 }, { 2, 2, 1 }, { 1, 1, 1 },
	};
	uint32_t now = 0;

	(void)state;
	pool_one(4 * 8192);
	for (unsigned i = 0; i < sizeof(step) / sizeof(*step); i++) {
		unsigned pages = 0;

		for (; now < step[i].count; now++)
			OK(vd_space_inc(P, 2 * 8192 + 5000, 2));
		for (; now > step[i].count; now--)
			OK(vd_space_dec(P, 2 * 8192 + 5000, 2));
		checkpoint();
		drain();
		for (unsigned k = 0; k < 8; k++)
			if (slot_of(16 + k)) {
				struct vd_disk_space *d = (*node_slot(slot_of(16 + k)->ptr.a))->n.data;

				assert_int_equal(le32_to_cpu(d->width), step[i].width);
				assert_int_equal(le32_to_cpu(d->nblocks), 8192 / step[i].parts);
				assert_int_equal(k % (8 / step[i].parts), 0);
				pages++;
			}
		assert_int_equal(pages, step[i].parts);
		reopen();
		assert_int_equal(count(2 * 8192 + 4999), 0);
		assert_int_equal(count(2 * 8192 + 5000), step[i].count);
		assert_int_equal(count(2 * 8192 + 5001), step[i].count);
		assert_int_equal(count(2 * 8192 + 5002), 0);
		verify_totals();
	}
}

static void folding_again_in_one_checkpoint_says_the_last_counts(void **state)
{
	static const unsigned step[] = { 1, 3, 9, 8192, 200, 40000, 1, 0, 2 };
	unsigned now = 0;

	(void)state;
	pool_one(4 * 8192);
	checkpoint();
	for (unsigned i = 0; i < sizeof(step) / sizeof(*step); i++) {
		uint64_t len = step[i] == 8192 ? 8192 : 10;

		if (len == 8192) {
			OK(vd_space_inc(P, 2 * 8192, len)); /* was it all equal, it would be one entry */
			OK(vd_space_dec(P, 2 * 8192, len));
			continue;
		}
		for (; now < step[i]; now++)
			OK(vd_space_inc(P, 2 * 8192, len));
		for (; now > step[i]; now--)
			OK(vd_space_dec(P, 2 * 8192, len));
		OK(vd_space_fold(P));
	}
	OK(vd_space_inc(P, 3 * 8192, 8192));
	OK(vd_space_fold(P));
	OK(vd_space_inc(P, 3 * 8192, 8192));
	OK(vd_space_fold(P));
	checkpoint();
	reopen();
	assert_int_equal(count(2 * 8192 + 9), 2);
	assert_int_equal(count(2 * 8192 + 10), 0);
	assert_int_equal(count(4 * 8192 - 1), 2);
	verify_totals();
}

static void ranges_cross_groups(void **state)
{
	uint32_t n;
	uint64_t run;

	(void)state;
	pool_one(5 * 8192 + 777);
	OK(vd_space_inc(P, 8000, 4 * 8192 + 192 + 777)); /* up to the very end */
	OK(vd_space_inc(P, 8190, 8196));
	checkpoint();
	reopen();
	assert_int_equal(count(7999), 0);
	assert_int_equal(count(8000), 1);
	OK(vd_space_run(P, 8190, 100, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 2);
	OK(vd_space_run(P, 8192, 100000, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 8192);
	OK(vd_space_run(P, 2 * 8192, 100000, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 2);
	OK(vd_space_run(P, 5 * 8192, 100000, &n, &run));
	assert_int_equal(n, 1);
	assert_int_equal(run, 777);
	OK(vd_space_dec(P, 8000, 190));
	assert_int_equal(count(8189), 0);
	assert_int_equal(count(8190), 2);
	verify_totals();
}

static void impossible_ranges_are_refused(void **state)
{
	vd_pblk_t end = 8192 + 100;
	uint64_t run;
	uint32_t n;

	(void)state;
	pool_one(end);
	assert_int_equal(vd_space_inc(P, end, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, end - 1, 2), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 100, ~0ull), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 100, 0), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, VD_PBLK(1, 100), 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, VD_PBLK_NONE, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, ~0ull, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 15, 1), -EUCLEAN);  /* a label */
	assert_int_equal(vd_space_dec(P, 79, 1), -EUCLEAN);  /* the journal */
	assert_int_equal(vd_space_claim(P, 16, 1), -EUCLEAN);
	assert_int_equal(vd_space_dec(P, 80, 1), -EUCLEAN);  /* count is 0 */
	assert_int_equal(vd_space_run(P, end, 1, &n, &run), -EUCLEAN);
	verify_totals();
}

static void counts_end_at_31_bits(void **state)
{
	struct space_group *g;

	(void)state;
	pool_one(8192 * 2);
	OK(vd_space_inc(P, 9000, 1));
	for (unsigned i = 0; i < 300; i++)
		OK(vd_space_inc(P, 9001, 1));
	OK(space_load(P, 1, true, &g));
	assert_int_equal(g->csize, 4);
	((uint32_t *)g->counts)[9000 - 8192] = 0x7fffffff;
	assert_int_equal(vd_space_inc(P, 9000, 1), -EOVERFLOW);
	checkpoint();
	reopen();
	assert_int_equal(count(9000), 0x7fffffff);
	assert_int_equal(count(9001), 300);
}

/* ---- when a block is free again ------------------------------------------------ */

static void a_freed_block_waits_for_checkpoint_and_drain(void **state)
{
	vd_pblk_t p;
	uint64_t before;

	(void)state;
	pool_one(8192);
	p = take(1);
	OK(vd_space_inc(P, p, 1));
	checkpoint();
	drain();
	before = vd_space_free(P);
	OK(vd_space_dec(P, p, 1));
	assert_true(vd_space_pending(P));
	drain(); /* the checkpoint is not durable */
	assert_true(is_busy(p));
	OK(vd_space_fold(P));
	drain();
	assert_true(is_busy(p));
	vd_space_checkpointed(P);
	P->ckpt_gen++;
	assert_true(is_busy(p));
	vd_space_drained(P); /* not sealed before this drain */
	assert_true(is_busy(p));
	vd_space_seal(P);
	assert_true(is_busy(p));
	vd_space_drained(P);
	assert_false(is_busy(p));
	assert_false(vd_space_pending(P));
	assert_int_equal(vd_space_free(P), before + 1);
	verify_totals();
}

static void a_block_counted_again_in_the_same_checkpoint_stays(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(4);
	OK(vd_space_inc(P, p, 4));
	checkpoint();
	OK(vd_space_dec(P, p, 4));
	OK(vd_space_inc(P, p + 1, 2));
	checkpoint();
	drain();
	assert_false(is_busy(p));
	assert_true(is_busy(p + 1));
	assert_true(is_busy(p + 2));
	assert_false(is_busy(p + 3));
	verify_totals();
}

static void a_block_of_an_older_checkpoint_cannot_come_back(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(1);
	OK(vd_space_inc(P, p, 1));
	checkpoint();
	OK(vd_space_dec(P, p, 1));
	checkpoint();
	assert_int_equal(vd_space_inc(P, p, 1), -EUCLEAN);
	vd_space_seal(P);
	assert_int_equal(vd_space_inc(P, p, 1), -EUCLEAN);
	vd_space_drained(P);
	OK(vd_space_claim(P, p, 1));
	OK(vd_space_inc(P, p, 1));
	verify_totals();
}

static void a_released_block_waits_for_its_record_and_drain(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(3);
	vd_space_release(P, p, 1, 7);
	vd_space_release(P, p + 1, 1, 5);
	vd_space_release(P, p + 2, 1, 7);
	assert_true(vd_space_pending(P));
	durable_seq = 4;
	drain();
	assert_true(is_busy(p) && is_busy(p + 1));
	durable_seq = 5;
	vd_space_seal(P);
	durable_seq = 7;
	assert_true(is_busy(p + 1));
	vd_space_drained(P);
	assert_false(is_busy(p + 1));
	assert_true(is_busy(p) && is_busy(p + 2));
	drain();
	assert_false(is_busy(p) || is_busy(p + 2));
	assert_false(vd_space_pending(P));
	verify_totals();
}

static void many_releases_are_kept_and_come_back(void **state)
{
	uint64_t before;
	vd_pblk_t p;

	(void)state;
	pool_one(8 * 8192);
	before = vd_space_free(P);
	for (unsigned i = 0; i < 40; i++) {
		p = take(1000);
		for (unsigned j = 0; j < 1000; j += 2)
			vd_space_release(P, p + j, 1, i + 1);
		vd_space_release(P, p + 1, 1, i + 1);
		for (unsigned j = 3; j < 1000; j += 2)
			vd_space_unreserve(P, p + j, 1);
	}
	assert_int_equal(vd_space_free(P), before - 40 * 501);
	for (durable_seq = 0; durable_seq <= 40; durable_seq += 8) {
		drain();
		assert_int_equal(vd_space_free(P), before - (40 - durable_seq) * 501);
	}
	assert_false(vd_space_pending(P));
	verify_totals();
}

static void freed_runs_are_passed_down_before_reuse(void **state)
{
	uint64_t free;
	vd_pblk_t p, q;

	(void)state;
	pool_one(8192);
	p = take(64);
	q = take(15);
	OK(vd_space_inc(P, p, 64));
	checkpoint();
	drain();
	discards = discarded = 0;
	OK(vd_space_dec(P, p, 40));
	vd_space_release(P, q, 15, 0);
	checkpoint();
	vd_space_seal(P);
	assert_int_equal(discards, 0);
	vd_space_drained(P);
	assert_int_equal(discards, 1);
	assert_int_equal(discarded, 40);
	OK(vd_space_dec(P, p + 40, 24));
	free = vd_space_free(P);
	P->super->policy = cpu_to_le32(VD_POLICY_NO_DISCARD);
	checkpoint();
	drain();
	assert_int_equal(discards, 1);
	assert_int_equal(vd_space_free(P), free + 24);
	verify_totals();
}

static void memory_that_is_out_leaks_but_frees_nothing_early(void **state)
{
	vd_pblk_t p, q;

	(void)state;
	pool_one(2 * 8192);
	p = take(2);
	q = take(2);
	OK(vd_space_inc(P, p, 2));
	checkpoint();
	drain();
	fail_at = 0;
	fail_on = true;
	OK(vd_space_dec(P, p, 1));
	vd_space_release(P, q, 1, 0);
	fail_at = -1;
	fail_on = false;
	checkpoint();
	drain();
	assert_true(is_busy(p));
	assert_true(is_busy(q));
	checkpoint();
	drain();
	reopen();
	assert_false(is_busy(p));
	assert_false(is_busy(q));
	verify_totals();
}

/* ---- memory --------------------------------------------------------------------------- */

static void clean_groups_leave_memory(void **state)
{
	(void)state;
	pool_one(400 * 8192);
	for (unsigned k = 1; k < 400; k++)
		OK(vd_space_inc(P, k * 8192 + k, 3));
	checkpoint();
	drain();
	checkpoint();
	drain();
	P->space->max_groups = 50;
	checkpoint();
	for (unsigned turn = 0; turn < 2; turn++)
		for (unsigned k = 1; k < 400; k++) {
			assert_int_equal(count(k * 8192 + k - 1), 0);
			assert_int_equal(count(k * 8192 + k + 2), 1);
		}
	assert_true(P->space->ngroups <= 55);
	verify_totals();
}

static void space_is_short_when_what_is_kept_fills_the_memory(void **state)
{
	(void)state;
	pool_one(100 * 8192);
	P->space->max_groups = 20;
	for (unsigned k = 1; k < 60; k++)
		OK(vd_space_inc(P, k * 8192 + k, 2));
	checkpoint();
	drain();
	checkpoint();
	assert_false(vd_space_short(P));
	vd_atomic_set(&P->pinned[VD_PIN_CHECK], 1); /* B3 */
	for (unsigned k = 1; k < 60; k++) {
		OK(vd_space_dec(P, k * 8192 + k, 1));
		if (k % 30 == 0) {
			checkpoint();
			drain();
			assert_false(vd_space_short(P));
		}
	}
	checkpoint();
	drain();
	assert_true(vd_space_short(P));
	vd_atomic_set(&P->pinned[VD_PIN_CHECK], 0);
	drain();
	checkpoint();
	assert_false(vd_space_short(P));
	verify_totals();
}

static void changed_groups_stay_in_memory(void **state)
{
	(void)state;
	pool_one(100 * 8192);
	P->space->max_groups = 4;
	for (unsigned k = 1; k < 100; k++)
		OK(vd_space_inc(P, k * 8192 + k, 3));
	OK(vd_space_fold(P));
	for (unsigned k = 1; k < 100; k++)
		assert_int_equal(count(k * 8192 + k), 1);
	assert_true(P->space->ngroups >= 99);
	vd_space_checkpointed(P);
	P->ckpt_gen++;
	drain();
	for (unsigned k = 1; k < 100; k++)
		assert_int_equal(count(k * 8192 + k), 1);
	assert_true(P->space->ngroups < 20);
	verify_totals();
}

static void the_largest_pool_costs_nothing_by_its_size(void **state)
{
	static uint64_t blocks[256];
	vd_pblk_t p, a, b;
	unsigned got;

	(void)state;
	for (unsigned i = 0; i < 256; i++)
		blocks[i] = 1ull << 40;
	pool_members(256, blocks);
	P->reserve_blocks = 1ull << 40;
	for (unsigned i = 0; i < 512; i++) {
		OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
		assert_int_equal(got, 1024);
		OK(vd_space_inc(P, p, got));
		OK(vd_space_alloc_node(P, &a, &b));
	}
	OK(vd_space_inc(P, VD_PBLK(255, (1ull << 40) - 10), 10));
	checkpoint();
	drain();
	assert_true(P->space->ngroups < 256 * 5);
	reopen();
	assert_int_equal(count(VD_PBLK(255, (1ull << 40) - 1)), 1);
	assert_int_equal(count(p), 1);
	OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
	assert_int_equal(vd_space_free(P), (1ull << 48) - vd_space_used(P) - 1024);
}

static void a_member_joins_live(void **state)
{
	uint64_t before;
	vd_pblk_t a, b;

	(void)state;
	pool_one(8192);
	checkpoint();
	before = vd_space_free(P);
	P->member[1].blocks = 4096;
	super.journal_member[1] = cpu_to_le32(1);
	P->nmembers = 2;
	OK(vd_space_format(P, 1));
	assert_int_equal(vd_space_hold(P, before + 1, 0), -ENOSPC); /* its blocks are not there before a superblock tells of it */
	vd_space_joined(P, 1);
	OK(vd_space_hold(P, before + 1, 0));
	vd_space_unhold(P, before + 1);
	assert_int_equal(vd_space_free(P), before + 4096 - 80);
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_not_equal(b, VD_PBLK_NONE);
	checkpoint();
	reopen();
	verify_totals();
}

/* ---- hostile pages ----------------------------------------------------------------------- */

static void impossible_pages_are_refused(void **state)
{
	uint32_t n;

	(void)state;
	for (unsigned kind = 0; kind < 14; kind++) {
		struct vd_disk_space *d;
		struct fake_tree *t;
		struct vd_slot *slot;

		pool_one(2 * 8192 + 100);
		OK(vd_space_inc(P, 2 * 8192, 1)); /* the last, partial group */
		for (unsigned i = 0; i < 9; i++)
			OK(vd_space_inc(P, 8200, 1)); /* two pages */
		checkpoint();
		reopen();
		t = tree_of(&P->space_root);
		slot = (struct vd_slot *)slot_of(kind < 7 ? 16 : 8);
		d = (*node_slot(slot->ptr.a))->n.data;
		switch (kind) {
		case 0: d->width = cpu_to_le32(4); break;
		case 1: d->width = 0; break;
		case 2: d->nblocks = cpu_to_le32(4096); break;
		case 3: d->h.count = cpu_to_le16(2); break;
		case 4: d->h.key_lo = cpu_to_le64(15); break;
		case 5: d->bits[100 / 8] |= 0xf0; break; /* counts past the end */
		case 6: slot->aux++; break;
		case 7: d->width = cpu_to_le32(15); break;
		case 8: slot->key++; break;
		case 9: slot->ptr.gen++; break;
		case 10: slot[1].key++; break;
		case 11: /* half of a group */
			memmove(slot + 1, slot + 2, (char *)(t->slot + t->n) - (char *)(slot + 2));
			t->n--;
			break;
		case 12: slot[1].ptr = slot[0].ptr; break;
		case 13: slot->ptr = (struct vd_ptr){ 1, VD_PBLK_NONE, 0 }; slot->aux = 0; break; /* uniform and a page */
		}
		assert_int_equal(vd_space_count(P, kind < 7 ? 2 * 8192 : 8200, &n), -EUCLEAN);
		assert_int_equal(vd_space_claim(P, kind < 7 ? 2 * 8192 + 1 : 8201, 1), -EUCLEAN);
		pool_end();
	}
}

static void damaged_pages_are_read_or_refused(void **state)
{
	static const unsigned counts[] = { 1, 9, 200, 40000 };

	(void)state;
	seed = 3;
	for (unsigned i = 0; i < 4; i++) {
		pool_one(2 * 8192 + 100);
		for (unsigned k = 0; k < counts[i]; k++)
			OK(vd_space_inc(P, 9000, 1));
		OK(vd_space_inc(P, 2 * 8192 + 50, 7));
		checkpoint();
		P->space->max_groups = 1;
		for (unsigned k = 0; k < 500; k++) {
			struct fake_tree *t = tree_of(&P->space_root);
			struct vd_slot *slot = &t->slot[rnd(t->n)];
			struct fake_node *f = slot->ptr.gen ? *node_slot(slot->ptr.a) : NULL;
			struct vd_slot was = *slot;
			unsigned at = rnd(rnd(2) ? 128 : VD_BLOCK);
			uint8_t flip = (uint8_t)(1u << rnd(8)), *d = f ? (uint8_t *)f->data + at : NULL;
			uint32_t n;
			int r;

			if (d && rnd(4))
				*d ^= flip;
			else if (rnd(2))
				slot->aux ^= flip;
			else
				slot->ptr.a ^= 1ull << rnd(48);
			for (unsigned g = 0; g < 3; g++) {
				r = vd_space_count(P, g * 8192 + 99, &n);
				assert_true(r == 0 || r == -EUCLEAN);
			}
			r = vd_space_refill(P);
			assert_true(r == 0 || r == -EUCLEAN);
			*slot = was; /* the pages' damage adds up */
		}
		pool_end();
	}
}

static void an_impossible_total_is_refused(void **state)
{
	(void)state;
	pool_one(8192);
	checkpoint();
	vd_space_fini(P);
	super.used_blocks = cpu_to_le64(8193);
	assert_int_equal(vd_space_init(P), -EUCLEAN);
}

static void system_blocks_are_busy_whatever_counts_say(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(8192);
	memset(&P->space_root, 0, sizeof(P->space_root)); /* as if all were free */
	super.used_blocks = 0;
	vd_space_fini(P);
	OK(vd_space_init(P));
	while (!reserve(VD_PBLK_NONE, 16, &p, &got))
		assert_true(p >= 80);
	assert_int_equal(vd_space_free(P), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(formatting_counts_labels_and_journal),
		T(a_full_group_is_one_entry),
		T(a_full_last_group_is_one_entry),
		T(an_emptied_group_leaves_the_tree),
		T(widths_grow_and_shrink),
		T(folding_again_in_one_checkpoint_says_the_last_counts),
		T(ranges_cross_groups),
		T(impossible_ranges_are_refused),
		T(counts_end_at_31_bits),
		T(a_freed_block_waits_for_checkpoint_and_drain),
		T(a_block_counted_again_in_the_same_checkpoint_stays),
		T(a_block_of_an_older_checkpoint_cannot_come_back),
		T(a_released_block_waits_for_its_record_and_drain),
		T(many_releases_are_kept_and_come_back),
		T(freed_runs_are_passed_down_before_reuse),
		T(memory_that_is_out_leaks_but_frees_nothing_early),
		T(clean_groups_leave_memory),
		T(space_is_short_when_what_is_kept_fills_the_memory),
		T(changed_groups_stay_in_memory),
		T(the_largest_pool_costs_nothing_by_its_size),
		T(a_member_joins_live),
		T(impossible_pages_are_refused),
		T(damaged_pages_are_read_or_refused),
		T(an_impossible_total_is_refused),
		T(system_blocks_are_busy_whatever_counts_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
