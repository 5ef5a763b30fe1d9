// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Cases that random operations meet too seldom, one behaviour each: crashes at
 * each host call of a short story, and members that are missing, stale or spoiled.
 * The I-numbers are the design's invariants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"

static struct cli cli = { .test = "test_cases" };

#define B VD_BLOCK

/* Tells `story` again and again, cut at its 1st, 2nd, 3rd … host call, several
 * times each since what a power cut leaves is chance; then what comes after. */
static void cut_everywhere(struct world *base, void (*before)(struct world *w), void (*story)(struct world *w), void (*after)(struct world *w))
{
	uint64_t n;
	unsigned again;
	bool cut = true;

	for (n = 0; cut; n++)
		for (again = 0, cut = false; again < 6; again++) {
			enum sim_crash how = again ? SIM_POWER_CUT : SIM_KILL;
			struct world *w = world_fork(base);

			w->sim->rng = rng_seeded(cli.seed + n * 100 + again);
			world_log(w, "story cut at call %llu", (unsigned long long)n);
			world_open(w, 0);
			if (before)
				before(w);
			sim_cut(w->sim, n);
			story(w);
			cut |= sim_is_cut(w->sim);
			story_crash_and_verify(w, how);
			if (again % 2)
				world_check(w);
			if (after)
				after(w);
			story_end(w);
		}
}

/* ---- crashes while a pool is made -------------------------------------- */

/* The same each time; whether it was made to the end. */
static bool format_until(struct sim *sim, unsigned nmembers, const uint64_t *blocks, uint64_t after)
{
	uint8_t ids[3][16];
	struct vd_format_spec spec = { .name = "p0", .uuid = { 1, 2, 3 }, .nmembers = nmembers, .blocks = blocks,
				       .member_uuid = (const uint8_t(*)[16])ids, .sector_size = 512, .journal_blocks = 64 };
	struct vd_host host;
	unsigned m;

	for (m = 0; m < nmembers; m++)
		memset(ids[m], (int)m + 1, 16);
	sim_host(sim, &host);
	sim_cut(sim, after);
	return !vd_pool_format(&host, &spec);
}

static void a_pool_is_made_with_all_its_members_or_not_at_all(void **state)
{
	const uint64_t blocks[3] = { 3000, 2500, 4000 };
	unsigned n, again, some = 0, none = 0;
	bool whole = false;
	uint64_t after;

	(void)state;
	for (n = 1; n <= 3; n++)
		for (after = 0, whole = false; !whole; after++)
			for (again = 0; again < 6; again++) {
				struct sim *sim = sim_new(cli.seed + after * 10 + again, n, blocks, 1);
				struct vd_pool *pool;
				struct vd_pool_info info;
				struct vd_host host;
				uint64_t faults = 0;
				int r;

				whole = format_until(sim, n, blocks, after);
				sim_crash(sim, again ? SIM_POWER_CUT : SIM_KILL);
				sim_host(sim, &host);
				r = vd_pool_open(&host, 0, NULL, &pool);
				assert_true(!r || (r == -ENODATA && !whole));
				none += r != 0;
				some += !r;
				if (!r) {
					vd_pool_info(pool, &info);
					assert_int_equal(info.mode, VD_MODE_RW);
					assert_int_equal(info.nmissing, 0);
					assert_int_equal(vd_check(pool, 0, NULL, NULL, NULL, &faults), 0);
					assert_int_equal(faults, 0);
					assert_int_equal(vd_pool_close(pool), 0);
				}
				sim_free(sim);
			}
	assert_true(some > 18 && none > 18); /* cut before and after it was there */
}

/* ---- crashes in a short story ----------------------------------------- */

static void torn_before(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id, i;

	for (i = 0; i < 400; i++) /* a commit of several blocks, to be torn */
		story_put(w, id, (2 * i + 1) * B, B);
}

static void torn_story(struct world *w)
{
	if (story_flush(w))
		return;
	story_put(w, w->ref->vol[0]->id, 3 * B, 2 * B);
	story_flush(w);
}

/* Another, shorter commit over the torn one, and a second crash: what was given
 * up after the first must not come back (I8). */
static void torn_after(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;
	unsigned i;

	for (i = 0; i < 3; i++) {
		story_put(w, id, (60 + i) * B, B);
		if (i != 1)
			story_flush(w);
		story_crash_and_verify(w, SIM_POWER_CUT);
	}
}

static void a_torn_journal_followed_by_a_second_crash(void **state)
{
	struct world *w;
	unsigned n, again;

	(void)state;
	for (again = 0; again < 10; again++, cli.seed += 77777)
		for (n = 1; n <= 2; n++) {
			w = story_begin(&cli, n);
			story_put(w, story_create(w, "v", 1024), 0, 8 * B);
			world_close(w);
			cut_everywhere(w, torn_before, torn_story, torn_after);
			world_free(w);
		}
}

/* After a crash that one copy of the journal came through and the other did not,
 * both are whole again: later either will do (I8). */
static void levelled_after(struct world *w)
{
	unsigned m = (unsigned)rng_below(&w->rng, 2), b;

	story_put(w, w->ref->vol[0]->id, 5 * B, B);
	story_flush(w);
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT);
	for (b = 0; b < 64; b++)
		sim_spoil(w->sim, m, VD_SYSTEM_BLOCKS + b, 8, 40);
	world_log(w, "journal copy %u spoiled", m);
	world_open(w, 0);
	world_verify(w, REF_POWER_CUT);
}

static void copies_of_the_journal_are_levelled_after_a_crash(void **state)
{
	struct world *w = story_begin(&cli, 2);

	(void)state;
	story_put(w, story_create(w, "v", 1024), 0, 8 * B);
	world_close(w);
	cut_everywhere(w, torn_before, torn_story, levelled_after);
	world_free(w);
}

/* D6: unmapped, and the record not durable: in a pool that has hardly anything
 * else, a write that is to have a place waits for it to be. */
static void a_block_is_not_reused_before_the_record_that_freed_it_is_durable(void **state)
{
	struct world *base = story_begin(&cli, 1), *w;
	uint32_t fill = story_create(base, "fill", 8192), id = story_create(base, "v", 512), other = story_create(base, "other", 512), i, k, again;
	struct vd_pool_info info;

	(void)state;
	for (i = 0;; i++) {
		vd_pool_info(base->pool, &info);
		if (info.total_blocks < info.used_blocks + info.reserve_blocks + 400)
			break;
		story_put(base, fill, i * 8ull * B, 8 * B);
	}
	for (again = 0; again < 40; again++) {
		w = world_fork(base);
		sim_crash(w->sim, SIM_KILL);
		w->sim->rng = rng_seeded(cli.seed + again);
		world_open(w, 0);
		story_checkpoint(w);
		story_work(w);
		for (k = 0; k < 8; k++) { /* in the overlay, and durable */
			struct ref_op op = { .kind = REF_WRITE, .id = id, .off = k * 32 * B, .len = 32 * B, .value = w->ref->next_value++ };
			uint64_t done;

			ref_begin(w->ref, &op);
			i = (uint32_t)-io_stamp(w->sim, world_handle(w, id), 0, op.off, op.len, op.value, &done);
			ref_done_partly(w->ref, done);
			if (i)
				break;
			if (k == 6)
				story_flush(w);
		}
		for (k = 0; k < 1 + again % 8; k++) {
			struct ref_op op = { .kind = REF_WRITE, .id = other, .off = k * 16 * B, .len = 16 * B, .value = w->ref->next_value++ };
			uint64_t done;

			story_unmap(w, id, k * 32 * B, 32 * B);
			for (i = 0; again % 2 && i < 3; i++) /* which gives back what is durable, and only that */
				if (vd_pool_work(w->pool) < 0)
					world_fail(w, "work failed");
			ref_begin(w->ref, &op);
			i = (uint32_t)-io_stamp(w->sim, world_handle(w, other), 0, op.off, op.len, op.value, &done);
			ref_done_partly(w->ref, done);
			if (i && i != ENOSPC)
				world_fail(w, "write: error -%u", i);
		}
		story_crash_and_verify(w, SIM_POWER_CUT);
		story_end(w);
	}
	world_free(base);
}

static void group_story(struct world *w)
{
	uint32_t id[2] = { w->ref->vol[0]->id, w->ref->vol[1]->id }, s[2];

	if (story_put(w, id[0], 0, B) || story_put(w, id[1], 0, B) || story_put(w, id[0], 9 * B, 512) || story_snap(w, s, id, 2))
		return;
	if (story_put(w, id[0], 0, B) || story_put(w, id[1], 0, B))
		return;
	story_flush(w);
}

static void a_group_snapshot_is_there_as_a_whole_or_not(void **state)
{
	struct world *w = story_begin(&cli, 2);

	(void)state;
	story_put(w, story_create(w, "a", 64), 0, 8 * B);
	story_put(w, story_create(w, "b", 64), 0, 8 * B);
	world_close(w);
	cut_everywhere(w, NULL, group_story, NULL);
	world_free(w);
}

/* I3: in place only when the record that released the other reference is durable. */
static void overwrite_story(struct world *w)
{
	uint32_t id = ref_named(w->ref, "v")->id, s = w->ref->vol[0]->id == id ? w->ref->vol[1]->id : w->ref->vol[0]->id;

	if (story_delete(w, s) || story_put(w, id, 0, B) || story_put(w, id, 3 * B + 512, 1024) || story_work(w) || story_put(w, id, 0, 8 * B))
		return;
	story_flush(w);
}

static void a_crash_between_the_deletion_of_a_snapshot_and_an_overwrite(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64), s;

	(void)state;
	story_put(w, id, 0, 8 * B);
	story_snap(w, &s, &id, 1);
	world_close(w);
	cut_everywhere(w, NULL, overwrite_story, NULL);
	world_free(w);
}

static void fua_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	if (story_put(w, id, 0, B))      /* mapped, not durably */
		return;
	if (story_put(w, id, 512, 1024)) /* in place … */
		return;
	story_flush(w);                  /* … with FUA: it joins a commit (I6) */
}

static void fua_after(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	story_put(w, id, 20 * B, B);
	story_flush(w);
	story_put(w, id, 20 * B + 512, 512);
	story_flush(w);
	story_crash_and_verify(w, SIM_POWER_CUT);
}

static void fua_to_a_mapping_that_is_not_durable(void **state)
{
	struct world *w = story_begin(&cli, 2);

	(void)state;
	story_create(w, "v", 64);
	world_close(w);
	cut_everywhere(w, NULL, fua_story, fua_after);
	world_free(w);
}

static void delete_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	if (story_delete(w, id) || story_work(w) || story_checkpoint(w))
		return;
	story_work(w);
}

static void delete_after(struct world *w)
{
	uint32_t id = ref_named(w->ref, "new") ? 0 : story_create(w, "new", 128);

	story_put(w, id, 0, 64 * B); /* over what was freed */
	story_flush(w);
	story_crash_and_verify(w, SIM_POWER_CUT);
	story_work(w);
}

static void a_crash_in_the_middle_of_a_deletion(void **state)
{
	struct world *w = story_begin(&cli, 2);
	uint32_t id = story_create(w, "v", 4096), keep = story_create(w, "keep", 4096), s, i;

	(void)state;
	for (i = 0; i < 300; i++) {
		story_put(w, id, i * 3 * B, B);
		story_put(w, keep, i * 2 * B, B);
	}
	story_snap(w, &s, &keep, 1);
	for (i = 0; i < 100; i++)
		story_put(w, keep, i * 6 * B, B);
	world_close(w);
	cut_everywhere(w, NULL, delete_story, delete_after);
	world_free(w);
}

static void checkpoint_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id, i;

	for (i = 0; i < 20; i++)
		if (story_put(w, id, (100 + 2 * i) * B, B))
			return;
	if (story_unmap(w, id, 0, 50 * B) || story_checkpoint(w) || story_work(w))
		return;
	if (story_put(w, id, 0, 60 * B) || story_checkpoint(w))
		return;
	story_flush(w);
}

static void a_crash_in_the_middle_of_a_checkpoint(void **state)
{
	struct world *w;
	unsigned n;

	(void)state;
	for (n = 1; n <= 3; n++) {
		w = story_begin(&cli, n);
		story_put(w, story_create(w, "v", 1024), 0, 64 * B);
		world_close(w);
		cut_everywhere(w, NULL, checkpoint_story, torn_after);
		world_free(w);
	}
}

static void add_story(struct world *w)
{
	uint8_t uuid[16] = { 99 };

	if (story_put(w, w->ref->vol[0]->id, 30 * B, 8 * B))
		return;
	if (vd_pool_add(w->pool, uuid, w->sim->member[1]->blocks, 512) && !sim_is_cut(w->sim))
		world_fail(w, "add failed");
	if (!sim_is_cut(w->sim))
		story_put(w, w->ref->vol[0]->id, 0, 64 * B);
}

static void a_crash_while_a_member_is_added(void **state)
{
	struct world *w = story_begin(&cli, 1);

	(void)state;
	story_put(w, story_create(w, "v", 1024), 0, 8 * B);
	world_close(w);
	sim_add(w->sim, 3000);
	cut_everywhere(w, NULL, add_story, torn_after);
	world_free(w);
}

static bool told; /* that transaction 8 is set */

static void transaction_story(struct world *w)
{
	struct ref_op op = { .kind = REF_TRANSACTION, .value = 8 };

	told = false;
	if (vd_pool_set_transaction(w->pool, 6, 8) != -EBUSY)
		world_fail(w, "another transaction was taken for the last one");
	ref_begin(w->ref, &op);
	if (vd_pool_set_transaction(w->pool, 7, 8) && !sim_is_cut(w->sim))
		world_fail(w, "the transaction cannot be set");
	told = !sim_is_cut(w->sim);
	if (told)
		ref_done(w->ref);
}

static void transaction_after(struct world *w)
{
	struct vd_pool_info info;

	vd_pool_info(w->pool, &info);
	if (info.transaction != 8 && (told || info.transaction != 7))
		world_fail(w, "transaction %llu", (unsigned long long)info.transaction);
}

static void a_transaction_is_durable_when_it_is_set(void **state)
{
	struct world *w = story_begin(&cli, 2);

	(void)state;
	if (vd_pool_set_transaction(w->pool, 0, 7))
		world_fail(w, "the transaction cannot be set");
	w->ref->transaction = 7;
	world_close(w);
	cut_everywhere(w, NULL, transaction_story, transaction_after);
	world_free(w);
}

/* I10 */
static void a_killed_server_loses_nothing_it_acknowledged(void **state)
{
	struct world *w = story_begin(&cli, 2);
	uint32_t id = story_create(w, "v", 256), s, i;

	(void)state;
	for (i = 0; i < 40; i++) {
		story_put(w, id, (i * 7 % 200) * B + 512, 3 * B);
		if (i == 10)
			story_snap(w, &s, &id, 1);
		if (i % 5 == 3)
			story_unmap(w, id, i * B, 4 * B);
		story_crash_and_verify(w, SIM_KILL);
		if (i % 8 == 7) { /* what came back is made durable by a flush like anything else */
			story_flush(w);
			story_crash_and_verify(w, SIM_POWER_CUT);
		}
	}
	story_end(w);
}

static void a_kill_during_the_opening_after_a_kill(void **state)
{
	struct world *base = story_begin(&cli, 2), *w;
	uint32_t id = story_create(base, "v", 256);
	unsigned i, n, opened = 0;

	(void)state;
	story_flush(base);
	for (i = 0; i < 10; i++)
		story_put(base, id, 5 * i * B + 512, 2 * B);
	for (n = 0; opened < 3; n++) { /* cut at each call of the opening, then killed, or the power goes */
		for (i = 0; i < 4; i++) {
			int r;

			w = world_fork(base);
			w->sim->rng = rng_seeded(cli.seed + n * 10 + i);
			sim_crash(w->sim, SIM_KILL);
			sim_cut(w->sim, n);
			r = world_open(w, 0);
			opened += !r && !sim_is_cut(w->sim);
			story_crash_and_verify(w, i ? SIM_POWER_CUT : SIM_KILL);
			story_end(w);
		}
	}
	world_free(base);
}

/* ---- members ---------------------------------------------------------- */

static enum vd_pool_mode open_mode(struct world *w)
{
	struct vd_pool_info info;
	int r = vd_pool_open(&w->host, 0, NULL, &w->pool);

	if (r) {
		world_log(w, "open: %d", r);
		w->pool = NULL;
		return VD_MODE_FAILED;
	}
	vd_pool_info(w->pool, &info);
	return info.mode;
}

static void a_pool_with_a_member_missing_opens_read_only_and_heals(void **state)
{
	struct world *w = story_begin(&cli, 3);
	uint32_t id = story_create(w, "v", 256), nid;
	struct vd_volume_spec spec = { .name = "no", .size = B };
	struct vd_pool_info info;
	unsigned m;

	(void)state;
	story_put(w, id, 0, 200 * B);
	for (m = 0; m < 3; m++) {
		story_put(w, id, m * B, B);
		world_close(w);
		w->sim->member[m]->missing = true;
		if (open_mode(w) == VD_MODE_READONLY) {
			vd_pool_info(w->pool, &info);
			assert_int_equal(info.nmissing, 1);
			assert_int_equal(info.missing[0], 1u << m);
			assert_int_equal(vd_volume_create(w->pool, &spec, &nid), -EROFS);
			assert_int_equal(vd_volume_find(w->pool, "v", &nid), 0);
			assert_int_equal(vd_pool_close(w->pool), 0);
			w->pool = NULL;
		} else {
			world_fail(w, "member %u missing: not read-only", m);
		}
		w->sim->member[m]->missing = false;
		world_open(w, 0);
		world_verify(w, REF_LIVE);
	}
	story_end(w);
}

static void a_member_that_comes_back_stale_is_left_out(void **state)
{
	struct world *w = story_begin(&cli, 2);
	uint32_t id = story_create(w, "v", 256);
	unsigned m, when;

	(void)state;
	story_put(w, id, 0, 64 * B);
	for (when = 0; when < 2; when++)
		for (m = 0; m < 2; m++) {
			struct sim_member *old, *now;
			struct vd_pool_info info;
			enum vd_pool_mode mode;
			uint64_t i;

			story_flush(w);
			if (!when) {
				world_close(w);
				old = sim_member_save(w->sim, m);
				world_open(w, 0);
			} else {
				old = sim_member_save(w->sim, m); /* while it is in use */
			}
			for (i = 0; i < 3; i++) {
				if (when) /* within one opening it shows by superblocks only */
					story_unmap(w, id, 20 * i * B, 30 * B);
				story_put(w, id, 20 * i * B, 30 * B);
				story_checkpoint(w);
			}
			world_close(w);
			now = sim_member_save(w->sim, m);
			sim_member_restore(w->sim, m, old);
			mode = open_mode(w);
			if (mode != VD_MODE_READONLY)
				world_fail(w, "member %u stale: mode %d", m, mode);
			vd_pool_info(w->pool, &info);
			assert_int_equal(info.missing[0], 1u << m);
			assert_int_equal(vd_pool_close(w->pool), 0);
			w->pool = NULL;
			sim_member_restore(w->sim, m, now); /* the right one again */
			world_open(w, 0);
			world_verify(w, REF_LIVE);
			sim_member_free(old);
			sim_member_free(now);
		}
	story_end(w);
}

/* D4: either copy of each metadata block will do, and is mended. */
struct nodes { vd_pblk_t p[4096]; unsigned n; };
static int note_node(void *arg, const struct vd_dump_item *item)
{
	struct nodes *l = arg;

	if (item->node && l->n + 2 <= 4096) {
		l->p[l->n++] = le64_to_cpu(item->node->a);
		if (le64_to_cpu(item->node->b) != VD_PBLK_NONE)
			l->p[l->n++] = le64_to_cpu(item->node->b);
	}
	return 0;
}

static int tolerate(void *arg, const struct vd_check_report *f)
{
	unsigned *copies = arg;

	if (f->fault == VD_FAULT_COPY)
		++*copies;
	return 0;
}

static void any_one_copy_of_the_metadata_will_do(void **state)
{
	struct world *base = story_begin(&cli, 2), *w;
	uint32_t id = story_create(base, "v", 4096), s, i;
	struct nodes *l = calloc(1, sizeof(*l));
	uint64_t faults;
	unsigned copies;
	int r;

	(void)state;
	for (i = 0; i < 600; i++)
		story_put(base, id, i * 2 * B, B);
	story_snap(base, &s, &id, 1);
	for (i = 0; i < 50; i++)
		story_put(base, id, i * 11 * B, B);
	world_close(base);
	world_open(base, 0);
	story_ok(base, "dump", vd_dump(base->pool, note_node, l));
	assert_true(l->n > 12);
	world_close(base);
	for (i = 0; i < l->n; i++) {
		w = world_fork(base);
		world_log(w, "metadata block %#llx spoiled", (unsigned long long)l->p[i]);
		sim_spoil(w->sim, VD_PBLK_MEMBER(l->p[i]), VD_PBLK_BLOCK(l->p[i]), (unsigned)rng_below(&w->rng, 4000), 1 + (unsigned)rng_below(&w->rng, 90));
		world_open(w, 0);
		world_verify(w, REF_LIVE);
		copies = 0;
		r = vd_check(w->pool, 0, tolerate, &copies, NULL, &faults);
		if (r || faults != copies)
			world_fail(w, "check: error %d, %llu faults, %u of them copies", r, (unsigned long long)faults, copies);
		world_check(w); /* mended by now */
		story_put(w, id, 0, 100 * B);
		story_end(w);
	}
	free(l);
	world_free(base);
}

static void a_spoiled_journal_copy_is_made_up_for_by_the_other(void **state)
{
	struct world *base = story_begin(&cli, 2), *w;
	uint32_t id = story_create(base, "v", 256), i;
	unsigned m, b;

	(void)state;
	story_checkpoint(base);
	for (i = 0; i < 20; i++) {
		story_put(base, id, i * 3 * B, B);
		story_flush(base);
	}
	for (m = 0; m < 2; m++)
		for (b = 0; b < 64; b++) {
			w = world_fork(base);
			sim_crash(w->sim, SIM_POWER_CUT);
			sim_spoil(w->sim, m, VD_SYSTEM_BLOCKS + b, 8, 40);
			world_open(w, 0);
			world_verify(w, REF_POWER_CUT);
			story_put(w, id, 100 * B, B);
			story_flush(w);
			story_crash_and_verify(w, SIM_POWER_CUT);
			story_end(w);
		}
	world_free(base);
}

/* ---- a reader beside the owner (I16) ------------------------------------- */

static struct vd_pool *reader_of(struct world *w)
{
	struct vd_disk_holder self = { .pid = cpu_to_le64(2) };
	struct vd_pool *reader;

	story_ok(w, "open beside the owner", vd_pool_open(&w->host, VD_OPEN_READONLY | VD_OPEN_NO_REPLAY, &self, &reader));
	return reader;
}

/* Every tree is written anew some times, and what that freed is given back. */
static void churn(struct world *w, uint32_t id, unsigned rounds)
{
	for (unsigned n = 0; n < rounds; n++) {
		for (unsigned i = 0; i < 10; i++)
			story_put(w, id, (i * 100 + n % 50 * 2) * B, B);
		story_unmap(w, id, (n * 7 % 1000) * B, 20 * B);
		story_checkpoint(w);
		while (vd_pool_work(w->pool) == 1)
			;
	}
}

static int any_fault(void *arg, const struct vd_check_report *f)
{
	(void)arg, (void)f;
	return 0;
}

static uint64_t faults_seen(struct world *w, struct vd_pool *reader)
{
	uint64_t faults;

	story_ok(w, "check beside the owner", vd_check(reader, 0, any_fault, NULL, NULL, &faults));
	vd_pool_abandon(reader);
	return faults;
}

static void what_a_reader_has_pinned_is_not_reused(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 1024), full = story_create(w, "full", 2048);
	struct vd_pool_info info;
	struct vd_pool *reader;
	unsigned rounds = 4;

	(void)state;
	story_put(w, full, 0, 2048 * B);
	churn(w, id, 50);
	do { /* it goes wrong without */
		rounds *= 2;
		assert_true(rounds < 1000);
		reader = reader_of(w);
		churn(w, id, rounds);
	} while (!faults_seen(w, reader));
	story_ok(w, "pin", vd_pool_pin(w->pool, VD_PIN_CHECK));
	assert_int_equal(vd_pool_pin(w->pool, VD_PIN_CHECK), -EBUSY);
	vd_pool_info(w->pool, &info);
	assert_int_equal(info.pinned[VD_PIN_CHECK], info.generation);
	reader = reader_of(w);
	churn(w, id, rounds);
	assert_int_equal(faults_seen(w, reader), 0);
	/* Another's is his own, and as good. */
	story_ok(w, "pin another", vd_pool_pin(w->pool, VD_PIN_USER));
	reader = reader_of(w);
	story_ok(w, "unpin", vd_pool_unpin(w->pool, VD_PIN_CHECK));
	assert_int_equal(vd_pool_unpin(w->pool, VD_PIN_CHECK), -ENOENT);
	churn(w, id, rounds);
	assert_int_equal(faults_seen(w, reader), 0);
	story_ok(w, "unpin another", vd_pool_unpin(w->pool, VD_PIN_USER));
	assert_int_equal(vd_pool_unpin(w->pool, VD_PIN_USER), -ENOENT);
	story_end(w);
}

static void a_pin_ends_when_the_space_is_needed(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint64_t blocks = w->shape.blocks[0], used;
	uint32_t id = story_create(w, "v", blocks);
	struct vd_pool_info info;

	(void)state;
	story_put(w, id, 0, blocks / 2 * B);
	story_checkpoint(w);
	story_ok(w, "pin", vd_pool_pin(w->pool, VD_PIN_CHECK));
	story_unmap(w, id, 0, blocks / 2 * B);
	story_checkpoint(w);
	while (vd_pool_work(w->pool) == 1)
		;
	used = world_used(w);
	assert_true(used > blocks / 2);
	story_put(w, id, 0, blocks / 2 * B);
	story_flush(w);
	vd_pool_info(w->pool, &info);
	assert_int_equal(info.pinned[VD_PIN_CHECK], 0);
	assert_int_equal(vd_pool_unpin(w->pool, VD_PIN_CHECK), -ENOENT);
	story_end(w);
}

static int in_two_copies(void *arg, const struct vd_dump_item *item)
{
	unsigned *single = arg;

	*single += le64_to_cpu(item->node->b) == VD_PBLK_NONE;
	return 0;
}

/* Data stays off it, but the second copies of what each checkpoint writes anew are there. */
static void a_pin_ends_before_a_small_member_has_no_room_for_copies(void **state)
{
	struct shape shape = {
		.nmembers = 2, .blocks = { 24000, 2100 }, .sector_size = 512, .journal_blocks = 64, .max_volumes = 20,
	};
	struct world *w = world_new(&cli, cli.seed, &shape);
	uint32_t id = story_create(w, "v", 16384);
	unsigned single = 0, n, i;
	struct vd_pool_info info;

	(void)state;
	for (i = 0; i < 4096; i++)
		story_put(w, id, i * 4 * B, B);
	story_checkpoint(w);
	story_work(w);
	story_ok(w, "pin", vd_pool_pin(w->pool, VD_PIN_CHECK));
	for (n = 0; n < 100; n++) {
		for (i = 0; i < 4096; i += 64) {
			story_put(w, id, (i * 4 + 1 + n % 2) * B, B);
			story_unmap(w, id, (i * 4 + 2 - n % 2) * B, B);
		}
		story_checkpoint(w);
		story_work(w);
		story_ok(w, "dump", vd_dump(w->pool, in_two_copies, &single));
		if (single)
			world_fail(w, "round %u: %u nodes have one copy", n, single);
	}
	vd_pool_info(w->pool, &info);
	assert_int_equal(info.pinned[VD_PIN_CHECK], 0);
	story_end(w);
}

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_block_is_not_reused_before_the_record_that_freed_it_is_durable),
		T(a_pool_is_made_with_all_its_members_or_not_at_all),
		T(a_torn_journal_followed_by_a_second_crash),
		T(copies_of_the_journal_are_levelled_after_a_crash),
		T(a_group_snapshot_is_there_as_a_whole_or_not),
		T(a_crash_between_the_deletion_of_a_snapshot_and_an_overwrite),
		T(fua_to_a_mapping_that_is_not_durable),
		T(a_crash_in_the_middle_of_a_deletion),
		T(a_crash_in_the_middle_of_a_checkpoint),
		T(a_crash_while_a_member_is_added),
		T(a_transaction_is_durable_when_it_is_set),
		T(a_killed_server_loses_nothing_it_acknowledged),
		T(a_kill_during_the_opening_after_a_kill),
		T(a_pool_with_a_member_missing_opens_read_only_and_heals),
		T(a_member_that_comes_back_stale_is_left_out),
		T(any_one_copy_of_the_metadata_will_do),
		T(a_spoiled_journal_copy_is_made_up_for_by_the_other),
		T(what_a_reader_has_pinned_is_not_reused),
		T(a_pin_ends_when_the_space_is_needed),
		T(a_pin_ends_before_a_small_member_has_no_room_for_copies),
	};

	cli_start(&cli, argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
