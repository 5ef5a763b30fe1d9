// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Metadata lost in every copy: what it costs, what it must not cost, and the way
 * out.  "v" is the volume that is hit, "w" the one that must not notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"

static struct cli cli = { .test = "test_damage" };

#define B VD_BLOCK
#define EXTENTS 600u /* more than two leaves */

/* ---- where metadata is -------------------------------------------------- */

struct node { vd_pblk_t a, b; uint32_t volume; unsigned level, kind; uint64_t lo, hi; };
struct nodes { struct node n[512]; unsigned count; };

static int note(void *arg, const struct vd_dump_item *item)
{
	const struct vd_disk_node *h = item->node;
	struct nodes *l = arg;

	if (h && l->count < 512)
		l->n[l->count++] = (struct node){ le64_to_cpu(h->a), le64_to_cpu(h->b), item->volume, item->level, h->kind,
						  le64_to_cpu(h->key_lo), le64_to_cpu(h->key_hi) };
	return 0;
}

/* The nth node of that kind and level of a volume (0: the pool's own). */
static struct node find(struct world *w, uint32_t volume, unsigned kind, unsigned level, unsigned nth)
{
	static struct nodes l;
	unsigned i;

	l.count = 0;
	story_ok(w, "dump", vd_dump(w->pool, note, &l));
	for (i = 0; i < l.count; i++)
		if (l.n[i].volume == volume && l.n[i].kind == kind && l.n[i].level == level && !nth--)
			return l.n[i];
	world_fail(w, "there is no such node");
}

static void spoil(struct world *w, const struct node *n)
{
	sim_spoil(w->sim, VD_PBLK_MEMBER(n->a), VD_PBLK_BLOCK(n->a), 100, 50);
	if (n->b != VD_PBLK_NONE)
		sim_spoil(w->sim, VD_PBLK_MEMBER(n->b), VD_PBLK_BLOCK(n->b), 200, 50);
}

/* No copy of it can be read. */
static void ruin(struct world *w, const struct node *n, unsigned i)
{
	w->sim->member[VD_PBLK_MEMBER(n->a)]->bad[i] = VD_PBLK_BLOCK(n->a);
	if (n->b != VD_PBLK_NONE)
		w->sim->member[VD_PBLK_MEMBER(n->b)]->bad[i] = VD_PBLK_BLOCK(n->b);
}

/* ---- what is seen --------------------------------------------------------- */

static struct vd_pool_info info_of(struct world *w)
{
	struct vd_pool_info info;

	vd_pool_info(w->pool, &info);
	return info;
}

static void open_as(struct world *w, unsigned flags, enum vd_pool_mode mode)
{
	story_ok(w, "open", vd_pool_open(&w->host, flags, NULL, &w->pool));
	if (info_of(w).mode != mode)
		world_fail(w, "opened in mode %d, not %d", info_of(w).mode, mode);
}

static int read_block(struct world *w, uint32_t id, uint64_t v, uint64_t *value)
{
	uint8_t buf[B];
	int r = io_read(w->sim, world_handle(w, id), 0, v * B, buf, B, NULL);

	if (!r)
		*value = stamp_read(buf, v * 8);
	return r;
}

static int write_block(struct world *w, uint32_t id, uint64_t v, uint64_t value)
{
	return io_stamp(w->sim, world_handle(w, id), 0, v * B, B, value, NULL);
}

static bool is_lost(int r)
{
	return r == -EBADMSG || r == -EUCLEAN;
}

/* Blocks 0, 2, 4 ... of a volume have the value base + block, but for those in [lo, hi), lost. */
static void holds(struct world *w, uint32_t id, uint64_t base, uint64_t lo, uint64_t hi)
{
	uint64_t v, got = 0;
	int r;

	for (v = 0; v < 2 * EXTENTS; v += 2) {
		r = read_block(w, id, v, &got);
		if (v >= lo && v < hi ? !is_lost(r) : r || got != base + v)
			world_fail(w, "volume %u block %llu: %d, value %llu", id, (unsigned long long)v, r, (unsigned long long)got);
	}
}

struct seen { unsigned n[16]; uint64_t a, b; uint32_t volume; };
static int see(void *arg, const struct vd_check_report *f)
{
	struct seen *s = arg;

	s->n[f->fault]++;
	if (f->fault == VD_FAULT_RANGE) {
		s->a = f->a;
		s->b = f->b;
		s->volume = f->volume;
	}
	return 0;
}

static struct seen check(struct world *w, unsigned flags, uint64_t *faults)
{
	struct seen s = { 0 };

	story_ok(w, "check", vd_check(w->pool, flags, see, &s, NULL, faults));
	return s;
}

static uint32_t make(struct world *w, const char *name, uint64_t base)
{
	struct vd_volume_spec spec = { .name = name, .size = 4 * EXTENTS * B };
	uint32_t id;
	uint64_t v;

	story_ok(w, "create", vd_volume_create(w->pool, &spec, &id));
	for (v = 0; v < 2 * EXTENTS; v += 2)
		story_ok(w, "write", write_block(w, id, v, base + v));
	return id;
}

static struct world *begin(unsigned members, uint32_t *v, uint32_t *o)
{
	struct world *w = story_begin(&cli, members);

	*v = make(w, "v", 10000);
	*o = make(w, "w", 20000);
	story_checkpoint(w);
	return w;
}

static void again(struct world *w, unsigned flags, enum vd_pool_mode mode)
{
	world_close(w);
	open_as(w, flags, mode);
}

/* The way out: the volume goes, what it held comes back, and the pool is as any other. */
static void mend(struct world *w, uint32_t v)
{
	struct seen s;
	uint64_t faults;

	again(w, VD_OPEN_REPAIR, VD_MODE_RW);
	story_ok(w, "delete", vd_volume_delete(w->pool, v));
	story_work(w);
	s = check(w, VD_CHECK_REPAIR, &faults);
	if (faults != s.n[VD_FAULT_LEAK])
		world_fail(w, "%llu faults, %u of them leaks", (unsigned long long)faults, s.n[VD_FAULT_LEAK]);
	assert_false(info_of(w).damaged);
	again(w, 0, VD_MODE_RW);
	world_check(w);
}

/* ---- cases ------------------------------------------------------------------ */

static void a_lost_node_costs_its_range_and_no_other_volume(void **state)
{
	unsigned members, level;

	(void)state;
	for (members = 1; members <= 2; members++)
		for (level = 0; level < 2; level++) {
			uint32_t v, o;
			struct world *w = begin(members, &v, &o);
			struct node n = find(w, v, level ? VD_NODE_INDEX : VD_NODE_EXTENTS, level, level ? 0 : 1);
			uint64_t faults, end = vd_min(n.hi, VD_VBLK_END);
			struct seen s;

			again(w, 0, VD_MODE_RW);
			spoil(w, &n);
			holds(w, v, 10000, n.lo, n.hi);
			assert_true(is_lost(write_block(w, v, n.lo, 1)));
			assert_true(info_of(w).damaged);
			holds(w, o, 20000, 0, 0);
			story_ok(w, "write", write_block(w, o, 0, 20000));
			story_ok(w, "write", write_block(w, o, 1, 7));
			story_work(w);
			assert_int_equal(info_of(w).mode, VD_MODE_RW);

			again(w, 0, VD_MODE_READONLY);
			holds(w, v, 10000, n.lo, n.hi);
			holds(w, o, 20000, 0, 0);
			s = check(w, VD_CHECK_LOST, &faults);
			assert_int_equal(faults, 1);
			assert_int_equal(s.volume, v);
			assert_int_equal(s.a, n.lo * B);
			assert_int_equal(s.b, (end - n.lo) * B);
			s = check(w, 0, &faults);
			assert_int_equal(s.n[VD_FAULT_NODE], 1);
			assert_int_equal(s.n[VD_FAULT_RANGE], 1);
			mend(w, v);
			holds(w, o, 20000, 0, 0);
			world_close(w);
			world_free(w);
		}
}

static void a_fold_that_meets_a_lost_node_keeps_the_other_volumes(void **state)
{
	unsigned level;

	(void)state;
	for (level = 0; level < 2; level++) {
		uint32_t v, o;
		struct world *w = begin(2, &v, &o);
		struct node n = find(w, v, level ? VD_NODE_INDEX : VD_NODE_EXTENTS, level, level ? 0 : 1);
		uint64_t b, got;

		/* In the journal only when the node goes; some of it right and left of the node. */
		for (b = 0; b < 2 * EXTENTS; b += 40) { /* no more than fits before a checkpoint */
			story_ok(w, "write", write_block(w, v, b, 10000 + b));
			story_ok(w, "write", write_block(w, v, b + 1, 3));
			story_ok(w, "write", write_block(w, o, b + 1, 5));
		}
		story_ok(w, "unmap", vd_unmap(world_handle(w, v), (n.lo ? n.lo - 20 : 0) * B, 40 * B));
		story_ok(w, "flush", vd_flush(w->pool));
		world_abandon(w);
		sim_crash(w->sim, SIM_POWER_CUT);
		spoil(w, &n);
		open_as(w, 0, VD_MODE_RW);
		story_checkpoint(w);
		story_work(w);
		assert_int_equal(info_of(w).mode, VD_MODE_RW);
		assert_true(info_of(w).damaged);
		assert_true(is_lost(read_block(w, v, n.lo + 100, &got)));
		story_ok(w, "write", write_block(w, o, 3, 6));
		story_ok(w, "flush", vd_flush(w->pool));
		world_abandon(w);
		sim_crash(w->sim, SIM_POWER_CUT);
		open_as(w, 0, VD_MODE_READONLY);
		holds(w, o, 20000, 0, 0);
		story_ok(w, "read", read_block(w, o, 3, &got));
		assert_int_equal(got, 6);
		story_ok(w, "read", read_block(w, o, 41, &got));
		assert_int_equal(got, 5);
		if (!level) { /* beside the lost leaf all is as it was written */
			story_ok(w, "read", read_block(w, v, 1, &got));
			assert_int_equal(got, 3);
			story_ok(w, "read", read_block(w, v, (n.lo - 10) & ~1ull, &got));
			assert_int_equal(got, 0);
		}
		mend(w, v);
		holds(w, o, 20000, 0, 0);
		world_close(w);
		world_free(w);
	}
}

/* Not bad, but not to be had: it may be a cable.  So the fold stops, the next opening tries
 * again, and the pool is either as it was, or has lost what cannot be read. */
static void a_node_that_cannot_be_read_stops_writing_until_it_can(void **state)
{
	unsigned members, passes;

	(void)state;
	for (members = 1; members <= 2; members++)
		for (passes = 0; passes < 2; passes++) {
			uint32_t v, o;
			struct world *w = begin(members, &v, &o);
			struct node n = find(w, v, VD_NODE_EXTENTS, 0, 1), none = { .a = 0, .b = 1ull << VD_MEMBER_SHIFT };
			uint64_t faults, got;
			struct seen s;

			if (members == 1)
				none.b = VD_PBLK_NONE;
			again(w, 0, VD_MODE_RW);
			ruin(w, &n, 0);
			assert_int_equal(read_block(w, v, n.lo, &got), -EIO);
			assert_false(info_of(w).damaged);
			story_ok(w, "write", write_block(w, o, 1, 5));
			story_ok(w, "write", write_block(w, v, 1, 5));
			assert_int_equal(write_block(w, v, n.lo + 1, 5), -EIO);
			ruin(w, &none, 0);
			story_ok(w, "write", write_block(w, v, n.lo + 1, 5));
			story_ok(w, "flush", vd_flush(w->pool));
			world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
			ruin(w, &n, 0);
			open_as(w, 0, VD_MODE_RW);
			assert_int_equal(vd_checkpoint(w->pool), -EIO);
			assert_int_equal(info_of(w).mode, VD_MODE_FAILED);
			world_close_volumes(w);
			world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
			if (passes) {
				ruin(w, &none, 0);
				open_as(w, 0, VD_MODE_RW);
				world_check(w);
				again(w, 0, VD_MODE_RW);
				story_ok(w, "read", read_block(w, v, n.lo + 1, &got));
				assert_int_equal(got, 5);
				holds(w, v, 10000, 0, 0);
			} else {
				open_as(w, 0, VD_MODE_READONLY);
				holds(w, o, 20000, 0, 0);
				holds(w, v, 10000, n.lo, n.hi);
				story_ok(w, "read", read_block(w, o, 1, &got));
				assert_int_equal(got, 5);
				s = check(w, VD_CHECK_LOST, &faults);
				assert_int_equal(faults, 1);
				assert_int_equal(s.n[VD_FAULT_RANGE], 1);
				mend(w, v);
			}
			holds(w, o, 20000, 0, 0);
			world_close(w);
			world_free(w);
		}
}

static void a_lost_page_of_counts_stops_writing_and_loses_nothing(void **state)
{
	uint32_t v, o, id;
	struct world *w = begin(2, &v, &o);
	struct node n = find(w, 0, VD_NODE_SPACE, 0, 0);
	struct vd_volume_spec spec = { .name = "no", .size = B };
	struct seen s;
	uint64_t faults;

	(void)state;
	again(w, 0, VD_MODE_RW);
	n = find(w, 0, VD_NODE_SPACE, 0, 0);
	story_ok(w, "write", write_block(w, o, 1, 7));
	story_ok(w, "flush", vd_flush(w->pool));
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT);
	spoil(w, &n);
	story_ok(w, "open", vd_pool_open(&w->host, 0, NULL, &w->pool)); /* the replay may meet it, or the fold */
	assert_int_not_equal(vd_checkpoint(w->pool), 0);
	assert_true(info_of(w).mode >= VD_MODE_READONLY);
	assert_true(info_of(w).damaged);
	holds(w, v, 10000, 0, 0);
	holds(w, o, 20000, 0, 0);
	world_abandon(w);
	open_as(w, 0, VD_MODE_READONLY);
	holds(w, v, 10000, 0, 0);
	holds(w, o, 20000, 0, 0);
	assert_int_equal(vd_volume_create(w->pool, &spec, &id), -EROFS);
	s = check(w, VD_CHECK_LOST, &faults);
	assert_true(s.n[VD_FAULT_NODE] > 0);
	assert_int_equal(s.n[VD_FAULT_RANGE], 0);
	world_close(w);
	world_free(w);
}

static void a_lost_record_is_given_by_its_number_and_the_list_goes_on(void **state)
{
	uint32_t v, o, id = 0;
	struct world *w = begin(2, &v, &o);
	struct node n = find(w, 0, VD_NODE_VOLUME, 0, 0);
	struct vd_volume_info info;
	bool lost = false;

	(void)state;
	again(w, 0, VD_MODE_RW);
	spoil(w, &n);
	assert_int_equal(vd_volume_next(w->pool, &id, &lost), 0);
	assert_int_equal(id, v);
	assert_true(is_lost(vd_volume_info(w->pool, id, &info)));
	id++;
	assert_int_equal(vd_volume_next(w->pool, &id, &lost), 0);
	assert_int_equal(id, o);
	assert_int_equal(vd_volume_info(w->pool, id, &info), 0);
	id++;
	assert_int_equal(vd_volume_next(w->pool, &id, &lost), -ENOENT);
	assert_false(lost);
	holds(w, o, 20000, 0, 0);
	world_close(w);
	world_free(w);
}

static void spoil_newest_superblock(struct world *w, uint64_t generation)
{
	unsigned m;

	for (m = 0; m < w->shape.nmembers; m++)
		sim_spoil(w->sim, m, VD_SUPER_BLOCK0 + (generation & 1) * VD_SUPER_BLOCKS, 300, 40);
}

static void an_older_superblock_is_not_written_over_when_a_newer_one_is_lost(void **state)
{
	unsigned members, when;

	(void)state;
	for (members = 1; members <= 2; members++)
		for (when = 0; when < 3; when++) {
			uint32_t v, o;
			struct world *w = begin(members, &v, &o);
			uint64_t generation, faults;

			story_ok(w, "write", write_block(w, v, 1, 5));
			if (when == 0) { /* closed in order: the owner records tell */
				generation = info_of(w).generation + 1;
				world_close(w);
			} else if (when == 1) { /* an opening, of which owner records and journal tell */
				world_close(w);
				open_as(w, 0, VD_MODE_RW);
				story_ok(w, "write", write_block(w, v, 3, 5));
				story_ok(w, "flush", vd_flush(w->pool));
				generation = info_of(w).generation;
				world_abandon(w);
				sim_crash(w->sim, SIM_POWER_CUT);
			} else { /* the ring has gone round since the older one */
				unsigned i;

				story_checkpoint(w);
				for (i = 0; i < 76; i++) {
					story_ok(w, "write", write_block(w, v, 2 * i + 1, 5));
					story_ok(w, "flush", vd_flush(w->pool));
					if (i == 30)
						story_checkpoint(w);
				}
				generation = info_of(w).generation;
				world_abandon(w);
				sim_crash(w->sim, SIM_POWER_CUT);
			}
			spoil_newest_superblock(w, generation);
			world_log(w, "%u members, case %u, superblock %llu lost", members, when, (unsigned long long)generation);
			open_as(w, 0, VD_MODE_READONLY);
			assert_true(info_of(w).rolled_back);
			assert_int_equal(info_of(w).nmissing, 0);
			if (when < 2) { /* nothing was reused, and a check can prove it */
				holds(w, v, 10000, 0, 0);
				again(w, VD_OPEN_REPAIR, VD_MODE_READONLY);
				again(w, VD_OPEN_REPAIR | VD_OPEN_ACCEPT, VD_MODE_RW);
				check(w, VD_CHECK_REPAIR, &faults);
				assert_int_equal(faults, 0);
				assert_false(info_of(w).rolled_back);
				again(w, 0, VD_MODE_RW);
				holds(w, v, 10000, 0, 0);
				holds(w, o, 20000, 0, 0);
			}
			world_close(w);
			world_free(w);
		}
}

static void an_older_superblock_that_is_lost_does_not_matter(void **state)
{
	uint32_t v, o;
	struct world *w = begin(1, &v, &o);
	uint64_t generation;

	(void)state;
	story_checkpoint(w);
	story_ok(w, "write", write_block(w, v, 1, 5));
	generation = info_of(w).generation + 1;
	world_close(w);
	spoil_newest_superblock(w, generation - 1);
	open_as(w, 0, VD_MODE_RW);
	holds(w, v, 10000, 0, 0);
	world_check(w);
	world_close(w);
	world_free(w);
}

static void a_missing_member_is_one_fault(void **state)
{
	uint32_t v, o;
	struct world *w = begin(3, &v, &o);
	struct seen s;
	uint64_t faults;
	unsigned m;

	(void)state;
	world_close(w);
	for (m = 0; m < 3; m++) {
		w->sim->member[m]->missing = true;
		open_as(w, 0, VD_MODE_READONLY);
		s = check(w, 0, &faults);
		assert_int_equal(s.n[VD_FAULT_MEMBER], 1);
		assert_int_equal(s.n[VD_FAULT_COPY], 0);
		world_close(w);
		w->sim->member[m]->missing = false;
	}
	world_free(w);
}

/* What a check says of one volume: of each block whether it is in a range. */
struct told { uint32_t volume; bool block[4 * EXTENTS]; unsigned ranges, members; uint64_t more; };
static int mark(void *arg, const struct vd_check_report *f)
{
	struct told *t = arg;
	uint64_t v;

	t->members += f->fault == VD_FAULT_MEMBER;
	if (f->fault == VD_FAULT_MORE && f->volume == t->volume)
		t->more += f->b;
	if (f->fault != VD_FAULT_RANGE || f->volume != t->volume)
		return 0;
	t->ranges++;
	assert_int_equal(f->a % B + f->b % B, 0);
	for (v = f->a / B; v < (f->a + f->b) / B; v++) {
		assert_true(v < 4 * EXTENTS && !t->block[v]);
		t->block[v] = true;
	}
	return 0;
}

/* What the check tells cannot be read is just what the data path would look for in vain. */
static void what_is_told(struct world *w, uint32_t id, uint64_t end)
{
	static struct told t;
	uint64_t v, got, away = 0, faults;

	t = (struct told){ .volume = id };
	story_ok(w, "check", vd_check(w->pool, 0, mark, &t, NULL, &faults));
	assert_int_equal(t.members, 1);
	for (v = 0; v < end; v++) {
		bool gone = read_block(w, id, v, &got) != 0;

		away += gone;
		if (t.block[v] && !gone)
			world_fail(w, "volume %u block %llu can be read and is told not to be", id, (unsigned long long)v);
		if (!t.block[v] && gone && !t.more)
			world_fail(w, "volume %u block %llu cannot be read and is not told", id, (unsigned long long)v);
	}
	for (v = 0; v < end; v++)
		away -= t.block[v];
	assert_int_equal(t.more, away * B);
	assert_true(t.ranges <= 64 && (t.ranges == 64 || !t.more));
}

static void what_is_on_a_missing_member_is_told_volume_by_volume(void **state)
{
	unsigned how, m, told = 0;

	(void)state;
	for (how = 0; how < 3; how++) { /* missing; too short; missing, with part of the mapping in the journal only */
		struct world *w = story_begin(&cli, 3);
		struct vd_volume_spec spec = { .name = "whole", .size = 4 * EXTENTS * B };
		uint32_t v, o;
		struct vd_snap snap = { .name = "s" };
		uint64_t b;

		story_ok(w, "create", vd_volume_create(w->pool, &spec, &o));
		for (b = 0; b < 4 * EXTENTS; b += 8)
			story_ok(w, "write", io_stamp(w->sim, world_handle(w, o), 0, b * B, 8 * B, b, NULL));
		v = make(w, "v", 10000);
		story_checkpoint(w);
		if (how == 2) {
			snap.origin = v;
			for (b = 1; b < 40; b += 2)
				story_ok(w, "write", write_block(w, v, b, b));
			story_ok(w, "snapshot", vd_snapshot(w->pool, &snap, 1));
			for (b = 0; b < 40; b += 4)
				story_ok(w, "write", write_block(w, v, b, b));
			story_ok(w, "flush", vd_flush(w->pool));
			world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
		} else {
			world_close(w);
		}
		for (m = 0; m < 3; m++) {
			uint64_t blocks = w->sim->member[m]->blocks;

			if (how == 1)
				sim_grow(w->sim, m, blocks - 700);
			else
				w->sim->member[m]->missing = true;
			open_as(w, 0, VD_MODE_READONLY);
			what_is_told(w, v, 4 * EXTENTS);
			what_is_told(w, o, 4 * EXTENTS);
			if (snap.id)
				what_is_told(w, snap.id, 4 * EXTENTS);
			told++;
			if (how == 2)
				world_abandon(w);
			else
				world_close(w);
			w->sim->member[m]->missing = false;
			if (how == 1)
				break; /* what was cut off is gone */
		}
		world_free(w);
	}
	assert_int_equal(told, 7);
}

static unsigned quick_faults(struct world *w, unsigned *volumes)
{
	struct seen s;
	uint64_t faults;

	s = check(w, VD_CHECK_QUICK, &faults);
	*volumes = s.n[VD_FAULT_VOLUMES];
	return s.n[VD_FAULT_NODE];
}

static void a_quick_check_sees_what_the_pool_itself_has_lost(void **state)
{
	/* The list of volumes, its only page of records, counts, names. */
	static const struct { unsigned kind, level, nodes, volumes; } part[] = {
		{ VD_NODE_INDEX, 1, 1, 0 }, { VD_NODE_INDEX, 1, 1, 1 }, { VD_NODE_SPACE, 0, 1, 0 }, { VD_NODE_EXTENTS, 0, 1, 0 },
	};
	unsigned i, volumes;

	(void)state;
	for (i = 0; i < 4; i++) {
		uint32_t v, o;
		struct world *w = begin(2, &v, &o);
		struct node n = find(w, 0, part[i].kind, part[i].level, i == 1);

		world_close(w);
		open_as(w, VD_OPEN_READONLY, VD_MODE_READONLY);
		assert_int_equal(quick_faults(w, &volumes) + volumes, 0);
		world_close(w);
		spoil(w, &n);
		open_as(w, VD_OPEN_READONLY, VD_MODE_READONLY);
		assert_int_equal(quick_faults(w, &volumes), part[i].nodes);
		assert_int_equal(volumes, part[i].volumes);
		world_close(w);
		world_free(w);
	}
}

#define MANY 300u /* volumes: their list has more than one node below its root */

static struct world *many_volumes(struct node *inner)
{
	struct world *w = story_begin(&cli, 2);
	unsigned i;

	for (i = 0; i < MANY; i++) {
		char name[] = { 'v', (char)('a' + i / 26), (char)('a' + i % 26), 0 };
		struct vd_volume_spec spec = { .name = name, .size = B };
		uint32_t id;

		story_ok(w, "create", vd_volume_create(w->pool, &spec, &id));
		assert_int_equal(id, i + 1);
		if (i % 50 == 49)
			story_checkpoint(w);
	}
	for (i = 0;; i++) {
		*inner = find(w, 0, VD_NODE_INDEX, 1, i);
		if (inner->lo && inner->hi <= MANY)
			break;
	}
	world_close(w);
	return w;
}

static int note_ids(void *arg, const struct vd_check_report *f)
{
	uint64_t *t = arg;

	if (f->fault != VD_FAULT_VOLUMES)
		return 0;
	t[0]++;
	t[1] = f->a;
	t[2] = f->b;
	return 0;
}

static void which_ids_are_lost_with_a_node_of_their_list_is_told(void **state)
{
	static const unsigned flags[] = { 0, VD_CHECK_QUICK, VD_CHECK_LOST };
	struct node n;
	struct world *w = many_volumes(&n);
	uint64_t faults, t[3];
	unsigned i;

	(void)state;
	spoil(w, &n);
	for (i = 0; i < 3; i++) {
		open_as(w, VD_OPEN_READONLY, VD_MODE_READONLY);
		memset(t, 0, sizeof(t));
		story_ok(w, "check", vd_check(w->pool, flags[i], note_ids, t, NULL, &faults));
		assert_int_equal(t[0], 1);
		assert_int_equal(t[1], n.lo);
		assert_int_equal(t[2], n.hi - n.lo);
		world_close(w);
	}
	world_free(w);
}

static void that_a_part_of_the_list_of_volumes_is_lost_is_told_by_who_lists_the_rest(void **state)
{
	struct node n;
	struct world *w = many_volumes(&n);
	uint32_t id, count = 0;
	bool lost = false;

	(void)state;
	open_as(w, VD_OPEN_READONLY, VD_MODE_READONLY);
	for (id = 0; !vd_volume_next(w->pool, &id, &lost); id++)
		count++;
	assert_int_equal(count, MANY);
	assert_false(lost);
	world_close(w);
	spoil(w, &n);
	open_as(w, VD_OPEN_READONLY, VD_MODE_READONLY);
	for (id = 0; !vd_volume_next(w->pool, &id, &lost); id++) {
		count--;
		assert_true(id < n.lo || id >= n.hi);
		assert_int_equal(lost, id > n.lo);
	}
	assert_int_equal(count, n.hi - n.lo);
	assert_true(lost);
	world_close(w);
	world_free(w);
}

/* Anything at all is bad.  What is asked for may fail; it ends, and so does the work after it. */
static void whatever_is_lost_all_that_is_begun_ends(void **state)
{
	uint32_t id[5];
	struct world *base = begin(2, &id[0], &id[1]);
	struct vd_snap snap[2] = { { .origin = id[0], .name = "s" }, { .origin = id[1], .name = "t" } };
	static struct nodes l;
	unsigned round, i, k, opened = 0, rounds = 300;

	(void)state;
	story_ok(base, "snapshot", vd_snapshot(base->pool, snap, 2));
	for (i = 0; i < 2; i++)
		id[2 + i] = snap[i].id;
	for (i = 0; i < 2 * EXTENTS; i += 6)
		story_ok(base, "write", write_block(base, id[i / 6 % 2], i, i));
	story_checkpoint(base);
	for (i = 0; i < 2 * EXTENTS; i += 20)
		story_ok(base, "write", write_block(base, id[i / 20 % 2], i, i));
	story_ok(base, "delete", vd_volume_delete(base->pool, id[3]));
	l.count = 0;
	story_ok(base, "dump", vd_dump(base->pool, note, &l));
	for (round = 0; round < rounds; round++) {
		struct world *w = world_fork(base);
		struct rng rng = rng_seeded(cli.seed + round);
		struct vd_volume *vol;
		unsigned flags = round & 1 ? VD_OPEN_REPAIR : 0, turns = 0;
		int r;

		for (k = (unsigned)rng_between(&rng, 1, 8); k; k--) {
			struct node n = l.n[rng_below(&rng, l.count)];

			if (rng_one_in(&rng, 3))
				n.b = VD_PBLK_NONE;
			if (rng_one_in(&rng, 8))
				n.a = n.b = rng_below(&rng, 60);
			if (rng_one_in(&rng, 4))
				ruin(w, &n, k % 4);
			else
				spoil(w, &n);
		}
		if (vd_pool_open(&w->host, flags, NULL, &w->pool)) {
			world_free(w);
			continue;
		}
		opened++;
		for (i = 0; i < 4; i++) {
			struct vd_snap s = { .origin = id[i], .name = (char[]){ 'n', (char)('a' + i), 0 } };
			uint8_t buf[B];

			if (vd_volume_open(w->pool, id[i], &vol))
				continue;
			for (k = 0; k < 2 * EXTENTS; k += 50) {
				(void)!io_read(w->sim, vol, 0, k * B, buf, B, NULL);
				(void)!io_stamp(w->sim, vol, 0, (k + i) * B, B, 1, NULL);
			}
			(void)!vd_snapshot(w->pool, &s, 1);
			(void)!vd_unmap(vol, 0, 300 * B);
			vd_volume_close(vol);
		}
		(void)!vd_volume_delete(w->pool, id[round % 3]);
		(void)!vd_rollback(w->pool, id[1], snap[0].id);
		(void)!vd_flush(w->pool);
		do
			r = vd_pool_work(w->pool);
		while (r > 0 && ++turns < 1000);
		if (r > 0)
			world_fail(w, "round %u: there is work without end", round);
		if (vd_pool_close(w->pool))
			vd_pool_abandon(w->pool);
		w->pool = NULL;
		world_free(w);
	}
	printf("# %u of %u were opened\n", opened, rounds);
	assert_true(opened > rounds / 4);
	world_close(base);
	world_free(base);
}

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_lost_node_costs_its_range_and_no_other_volume),
		T(a_fold_that_meets_a_lost_node_keeps_the_other_volumes),
		T(a_node_that_cannot_be_read_stops_writing_until_it_can),
		T(a_lost_page_of_counts_stops_writing_and_loses_nothing),
		T(a_lost_record_is_given_by_its_number_and_the_list_goes_on),
		T(an_older_superblock_is_not_written_over_when_a_newer_one_is_lost),
		T(an_older_superblock_that_is_lost_does_not_matter),
		T(whatever_is_lost_all_that_is_begun_ends),
		T(a_missing_member_is_one_fault),
		T(what_is_on_a_missing_member_is_told_volume_by_volume),
		T(a_quick_check_sees_what_the_pool_itself_has_lost),
		T(that_a_part_of_the_list_of_volumes_is_lost_is_told_by_who_lists_the_rest),
		T(which_ids_are_lost_with_a_node_of_their_list_is_told),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	alarm(500);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
