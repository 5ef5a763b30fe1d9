// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Where space comes from, and for whom it is kept: reservations against many
 * writers at once, members that grow, and what a crash in the middle leaves (D10).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"
#include "volume.h"

static struct cli cli = { .test = "test_room" };

#define B VD_BLOCK

static struct vd_pool_info info_of(struct world *w)
{
	struct vd_pool_info info;

	vd_pool_info(w->pool, &info);
	return info;
}

static struct vd_volume *make(struct world *w, const char *name, uint64_t blocks, uint64_t reserved, uint32_t *id)
{
	struct vd_volume_spec spec = { .name = name, .size = blocks * B, .reserved = reserved };
	struct vd_volume *vol;

	assert_int_equal(vd_volume_create(w->pool, &spec, id), 0);
	assert_int_equal(vd_volume_open(w->pool, *id, &vol), 0);
	return vol;
}

/* n blocks of the volume, from block v on; what the last write answers. */
static int put(struct world *w, struct vd_volume *vol, uint64_t v, uint64_t n, uint64_t step, uint64_t value)
{
	int r = 0;

	for (; n && !r; n--, v += step)
		r = io_stamp(w->sim, vol, 0, v * B, B, value, NULL);
	return r;
}

static void fill(struct world *w, struct vd_volume *vol, uint64_t n)
{
	uint64_t v;
	int r = 0;

	for (v = 0; !r && v < n; v += 8)
		r = io_stamp(w->sim, vol, 0, v * B, 8 * B, 3, NULL);
	assert_int_equal(r, n == ~0ull ? -ENOSPC : 0);
}

static void end(struct world *w, struct vd_volume **vol, unsigned n)
{
	while (n)
		vd_volume_close(vol[--n]);
	world_check(w);
	world_close(w);
	world_free(w);
}

/* Kept while a reservation of so many blocks is used up: metadata's part, and R5's. */
static uint64_t used_up(struct world *w, uint64_t reserved)
{
	return reserved / 32 + 64 + info_of(w).reserve_blocks / 2;
}

/* ---- reservations --------------------------------------------------------- */

struct filler { struct world *w; struct vd_volume *vol; int r; pthread_t t; };

static void *fill_main(void *arg)
{
	struct filler *f = arg;
	uint64_t v;

	for (v = 0; !f->r; v += 64)
		f->r = io_stamp(f->w->sim, f->vol, 0, v * B, 64 * B, 7, NULL);
	return NULL;
}

/* R3: they all find room at the same moment, and take it. */
static void what_is_reserved_is_not_taken_by_many_at_once(void **state)
{
	unsigned i, again;
	uint32_t id;

	(void)state;
	for (again = 0; again < 6; again++) {
		struct world *w = story_begin(&cli, 1 + again % 2);
		struct filler f[6] = { 0 };
		struct vd_volume *vol[7];

		vol[6] = make(w, "kept", 4096, 500, &id);
		for (i = 0; i < 6; i++) {
			char name[] = { 'f', (char)('0' + i), 0 };

			f[i].w = w;
			f[i].vol = vol[i] = make(w, name, 1 << 20, 0, &id);
		}
		for (i = 0; i < 6; i++)
			assert_int_equal(pthread_create(&f[i].t, NULL, fill_main, &f[i]), 0);
		for (i = 0; i < 6; i++) {
			pthread_join(f[i].t, NULL);
			assert_int_equal(f[i].r, -ENOSPC);
		}
		assert_int_equal(put(w, vol[6], 0, 500, again % 3 ? 8 : 1, 9), 0);
		assert_int_equal(info_of(w).promised_blocks, used_up(w, 500));
		end(w, vol, 7);
	}
}

/* Nor refused it: what the next checkpoint may need is much in a large pool, and is not
 * the writers' affair as long as a checkpoint makes it less. */
struct spender { struct world *w; struct vd_volume *vol; uint64_t v; int r; pthread_t t; };

static void *spend_main(void *arg)
{
	struct spender *s = arg;

	s->r = put(s->w, s->vol, s->v, 250, 16, 3);
	return NULL;
}

static void what_is_reserved_is_had_by_many_at_once(void **state)
{
	struct shape shape = {
		.nmembers = 1, .blocks = { 1 << 22 }, .sector_size = 512, .journal_blocks = 4096, .max_volumes = 20,
	};
	struct vd_volume *vol[2];
	unsigned i, again;
	uint32_t id;

	(void)state;
	for (again = 0; again < 4; again++) {
		struct world *w = world_new(&cli, cli.seed, &shape);
		struct spender s[8] = { 0 };

		vol[0] = make(w, "spent", 1 << 20, 2000, &id);
		vol[1] = make(w, "rest", 1 << 22, info_of(w).reservable_blocks, &id);
		for (i = 0; i < 8; i++) {
			s[i] = (struct spender){ .w = w, .vol = vol[0], .v = i * 5000 };
			assert_int_equal(pthread_create(&s[i].t, NULL, spend_main, &s[i]), 0);
		}
		for (i = 0; i < 8; i++)
			pthread_join(s[i].t, NULL);
		for (i = 0; i < 8; i++)
			assert_int_equal(s[i].r, 0);
		end(w, vol, 2);
	}
}

static void a_pool_is_not_full_when_less_is_kept(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol[2];
	uint32_t id, kept;

	(void)state;
	vol[0] = make(w, "v", 1 << 20, 0, &id);
	vol[1] = make(w, "kept", 1 << 20, 1000, &kept);
	assert_int_equal(put(w, vol[0], 0, ~0ull, 1, 1), -ENOSPC);
	assert_int_equal(info_of(w).mode, VD_MODE_OUT_OF_SPACE);
	story_work(w);
	assert_int_equal(info_of(w).mode, VD_MODE_OUT_OF_SPACE);
	assert_int_equal(vd_volume_reserve(w->pool, kept, 0), 0);
	story_work(w);
	assert_int_equal(info_of(w).mode, VD_MODE_RW);
	end(w, vol, 2);
}

/* R4: the other volume shares all it has from then on, too. */
static void a_volume_that_another_is_rolled_back_to_is_promised_no_more_than_there_is(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_snap s = { .name = "s" };
	struct vd_pool_info info;
	struct vd_volume *vol;
	uint32_t id, rest;
	int r;

	(void)state;
	vd_volume_close(make(w, "v", 1000, 0, &id));
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	assert_int_equal(vd_volume_reserve(w->pool, s.id, 500), 0);
	assert_int_equal(vd_volume_open(w->pool, s.id, &vol), 0);
	assert_int_equal(put(w, vol, 0, 500, 1, 1), 0);
	vd_volume_close(vol);
	assert_int_equal(info_of(w).promised_blocks, used_up(w, 500));
	vd_volume_close(make(w, "rest", 1 << 20, info_of(w).reservable_blocks, &rest));
	r = vd_rollback(w->pool, id, s.id);
	info = info_of(w);
	/* but for the half of the reserve that others leave as well (R5) */
	assert_true(info.promised_blocks + info.reserve_blocks - info.reserve_blocks / 2 <= info.total_blocks - info.used_blocks);
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vd_volume_delete(w->pool, rest), 0);
	assert_int_equal(vd_rollback(w->pool, id, s.id), 0);
	assert_true(info_of(w).promised_blocks >= 500);
	end(w, NULL, 0);
}

/* R1: pages that a snapshot shares are copied for the first block written in each. */
static void what_is_reserved_of_scattered_shared_blocks_is_had(void **state)
{
	struct shape shape = {
		.nmembers = 2, .blocks = { 65536, 65536 }, .sector_size = 512, .journal_blocks = 256, .max_volumes = 20,
	};
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_snap s = { .name = "s" };
	struct vd_volume *vol[2];
	uint32_t id, rest;

	(void)state;
	vol[0] = make(w, "v", 1 << 20, 0, &id);
	assert_int_equal(put(w, vol[0], 0, 60000, 2, 1), 0);
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	vd_volume_close(vol[0]); /* and its windows */
	assert_int_equal(vd_checkpoint(w->pool), 0);
	story_work(w);
	assert_int_equal(vd_volume_open(w->pool, id, &vol[0]), 0);
	assert_int_equal(vd_volume_reserve(w->pool, id, 300), 0);
	assert_int_equal(vd_checkpoint(w->pool), 0);
	story_work(w);
	vol[1] = make(w, "rest", 1 << 20, info_of(w).reservable_blocks, &rest);
	assert_int_equal(put(w, vol[0], 0, 300, 400, 3), 0);
	end(w, vol, 2);
}

/* R1: what was counted before a snapshot is not the volume's own after it. */
static struct { struct world *w; struct vd_volume *vol; struct vd_snap snap; pthread_t thread; bool armed; void *(*alloc)(void *ctx, size_t size, int how); } late;

static void *late_alloc(void *ctx, size_t size, int how)
{
	if (late.armed && how == VD_ALLOC_WAIT && pthread_equal(pthread_self(), late.thread)) {
		late.armed = false;
		assert_int_equal(vd_snapshot(late.w->pool, &late.snap, 1), 0);
		assert_int_equal(put(late.w, late.vol, 500, 100, 1, 4), 0);
	}
	return late.alloc(ctx, size, how);
}

static void a_snapshot_comes_while_an_unmap_counts(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume_info vi;
	uint32_t id;

	(void)state;
	world_close(w);
	memset(&late, 0, sizeof(late));
	late.w = w;
	late.alloc = w->host.alloc;
	late.thread = pthread_self();
	w->host.alloc = late_alloc;
	world_open(w, 0);
	late.vol = make(w, "v", 1000, 300, &id);
	late.snap = (struct vd_snap){ .name = "s", .origin = id };
	assert_int_equal(vd_snapshot(w->pool, &late.snap, 1), 0);
	assert_int_equal(put(w, late.vol, 0, 100, 1, 1), 0);
	assert_int_equal(vd_checkpoint(w->pool), 0);
	late.snap = (struct vd_snap){ .name = "t", .origin = id };
	late.armed = true;
	assert_int_equal(vd_unmap(late.vol, 0, 100 * B), 0);
	assert_false(late.armed);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 200);
	end(w, &late.vol, 1);
}

/* Only how much of a discard was the volume's own cannot be told: no reason not to open the pool. */
static void a_bad_page_does_not_keep_a_reservation_from_being_replayed(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_snap s = { .name = "s" };
	struct vd_volume_info vi;
	struct vd_volume *vol;
	uint64_t block;
	uint32_t id;

	(void)state;
	vol = make(w, "v", 2000, 300, &id);
	assert_int_equal(put(w, vol, 0, 100, 2, 1), 0);
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	assert_int_equal(vd_checkpoint(w->pool), 0);
	block = VD_PBLK_BLOCK(vol->disk_root.ptr.a);
	assert_int_equal(vd_unmap(vol, 0, 100 * B), 0);
	vd_volume_close(vol);
	assert_int_equal(vd_flush(w->pool), 0);
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT);
	sim_spoil(w->sim, 0, block, 100, 8);
	assert_int_equal(vd_pool_open(&w->host, 0, NULL, &w->pool), 0);
	assert_int_equal(info_of(w).mode, VD_MODE_RW);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 300);
	assert_int_equal(vd_volume_open(w->pool, id, &vol), 0);
	assert_int_equal(put(w, vol, 151, 1, 1, 2), -EBADMSG);
	vd_volume_close(vol);
	world_free(w);
}

static void a_reservation_is_exact_over_snapshot_discard_and_reopening(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume_info vi;
	struct vd_volume *vol;
	struct vd_snap s = { .name = "s" };
	uint32_t id;

	(void)state;
	vol = make(w, "v", 1000, 300, &id);
	assert_int_equal(put(w, vol, 0, 200, 1, 1), 0);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 100);
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 300);
	assert_int_equal(put(w, vol, 100, 200, 1, 2), 0); /* half of it over shared blocks */
	assert_int_equal(vd_unmap(vol, 0, 150 * B), 0);   /* 100 shared, 50 of its own */
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 150);
	vd_volume_close(vol);
	assert_int_equal(vd_flush(w->pool), 0);
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT); /* from the journal */
	world_open(w, 0);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 150);
	world_check(w);
	world_close(w); /* from the trees */
	world_open(w, 0);
	assert_int_equal(vd_volume_info(w->pool, id, &vi), 0);
	assert_int_equal(vi.unused, 150);
	end(w, NULL, 0);
}

/* Once the snapshot is gone the volume owns its blocks again, and needs no more. */
static void a_volume_alone_again_is_promised_less(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol;
	struct vd_snap s = { .name = "s" };
	uint32_t id;

	(void)state;
	vol = make(w, "v", 1000, 300, &id);
	assert_int_equal(put(w, vol, 0, 300, 1, 1), 0);
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	assert_true(info_of(w).promised_blocks >= 300);
	assert_int_equal(vd_volume_delete(w->pool, s.id), 0);
	story_work(w);
	story_work(w);
	assert_int_equal(info_of(w).promised_blocks, used_up(w, 300));
	end(w, &vol, 1);
}

/* Also when nobody has it open: others wait for what is kept for it. */
static void a_closed_volume_alone_again_is_promised_less(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol;
	struct vd_snap s = { .name = "s" };
	unsigned again;
	uint32_t id;

	(void)state;
	vol = make(w, "v", 1000, 300, &id);
	assert_int_equal(put(w, vol, 0, 300, 1, 1), 0);
	vd_volume_close(vol);
	for (again = 0; again < 2; again++) {
		s.origin = id;
		assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
		assert_true(info_of(w).promised_blocks >= 300);
		world_close(w);
		world_open(w, 0);
		assert_int_equal(vd_volume_delete(w->pool, s.id), 0);
		if (again) { /* the deletion goes on after a crash */
			assert_int_equal(vd_flush(w->pool), 0);
			world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
			world_open(w, 0);
		}
		story_work(w);
		story_work(w);
		assert_int_equal(info_of(w).promised_blocks, used_up(w, 300));
	}
	end(w, NULL, 0);
}

/* What could not be read once may be read another time: the pool is not full for good. */
static void a_read_error_does_not_make_a_pool_full(void **state)
{
	struct world *base = story_begin(&cli, 2);
	uint32_t id = story_create(base, "v", 1024);
	unsigned nth;
	int r;

	(void)state;
	story_put(base, id, 0, 8 * B);
	world_close(base);
	for (nth = 1, r = -EIO; r; nth++) {
		struct world *w = world_fork(base);
		struct vd_volume *vol;

		world_open(w, 0);
		vol = world_handle(w, id);
		sim_fail(w->sim, SIM_READ, nth, -EIO, true);
		r = put(w, vol, 100, 1, 1, 7);
		sim_unfail(w->sim);
		assert_int_equal(put(w, vol, 100, 1, 1, 7), 0);
		world_close_volumes(w);
		end(w, NULL, 0);
	}
	assert_true(nth > 3);
	world_free(base);
}

/* Discards under snapshots take pages, and each snapshot makes them take as many again. */
static void discards_do_not_take_what_is_promised(void **state)
{
	struct shape shape = {
		.nmembers = 1, .blocks = { 16384 }, .sector_size = 512, .journal_blocks = 256, .max_volumes = 20,
	};
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_snap s = { .name = "s" };
	struct vd_volume *vol[2];
	unsigned round;
	uint64_t v, n;
	uint32_t id, kept;
	int r = 0;

	(void)state;
	vol[0] = make(w, "v", 1 << 20, 0, &id);
	assert_int_equal(put(w, vol[0], 0, 6000, 2, 1), 0);
	vd_volume_close(vol[0]); /* and its windows */
	story_work(w);
	assert_int_equal(vd_volume_open(w->pool, id, &vol[0]), 0);
	n = info_of(w).reservable_blocks;
	vol[1] = make(w, "kept", 1 << 20, n, &kept);
	for (round = 0; round < 150 && !r; round++) {
		char name[] = { 's', (char)('A' + round / 10), (char)('0' + round % 10), 0 };

		s = (struct vd_snap){ .name = name, .origin = id };
		assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
		for (v = round * 2; v < 12000 && !r; v += 240)
			r = vd_unmap(vol[0], v * B, B);
		assert_int_equal(vd_checkpoint(w->pool), 0);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(put(w, vol[1], 0, n, 1, 1), 0);
	end(w, vol, 2);
}

/* When they are refused, those are not that cost others nothing. */
static void discards_that_are_paid_for_are_not_refused(void **state)
{
	struct shape shape = {
		.nmembers = 1, .blocks = { 16384 }, .sector_size = 512, .journal_blocks = 256, .max_volumes = 20,
	};
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_volume *vol[3];
	uint64_t v, n;
	uint32_t id, kept, free;
	unsigned round;
	int r = 0;

	(void)state;
	vol[0] = make(w, "v", 1 << 20, 0, &id);
	vol[2] = make(w, "free", 1 << 20, 0, &free);
	assert_int_equal(put(w, vol[0], 0, 6000, 2, 1), 0);
	assert_int_equal(put(w, vol[2], 0, 500, 2, 1), 0);
	assert_int_equal(vd_space_make(w->pool, NULL), 0); /* windows go */
	n = info_of(w).reservable_blocks;
	vol[1] = make(w, "kept", 1 << 20, n, &kept);
	assert_int_equal(put(w, vol[1], 0, n, 2, 1), 0);
	for (round = 0; round < 150 && !r; round++) {
		char name[] = { 's', (char)('A' + round / 10), (char)('0' + round % 10), 0 };
		struct vd_snap s = { .name = name, .origin = id };

		r = vd_snapshot(w->pool, &s, 1);
		for (v = round * 2; v < 12000 && !r; v += 240)
			r = vd_unmap(vol[0], v * B, B);
		assert_int_equal(vd_checkpoint(w->pool), 0);
	}
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vd_unmap(vol[0], 0, 12000 * B), -ENOSPC);
	for (v = 0; v < n; v += 2)
		assert_int_equal(vd_unmap(vol[1], v * B, B), 0);
	for (v = 0; v < 500; v += 2)
		assert_int_equal(vd_unmap(vol[2], v * B, B), 0);
	assert_int_equal(put(w, vol[1], 0, n / 2, 2, 1), 0);
	end(w, vol, 3);
}

/* One volume has so much reserved, the next so much, the third all else. */
static void full_but_for_two(struct world *w, struct vd_volume *vol[3], uint64_t first, uint64_t second)
{
	uint32_t id;

	vol[0] = make(w, "first", 4096, first, &id);
	vol[1] = make(w, "second", 4096, second, &id);
	vol[2] = make(w, "filler", 1 << 20, 0, &id);
	fill(w, vol[2], ~0ull);
}

/* Who is promised a little and writes much takes no more of R5's part than that little. */
static void a_promise_is_no_way_to_more(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol[3];
	uint64_t done;

	(void)state;
	full_but_for_two(w, vol, 1000, 100);
	assert_int_equal(io_stamp(w->sim, vol[1], 0, 0, 400 * B, 5, &done), -ENOSPC);
	assert_in_range(done / B, 100, 100 + 8);
	assert_int_equal(vd_space_make(w->pool, NULL), -ENOSPC);
	assert_true(vd_space_room(w->pool, NULL, 0) > -8);
	end(w, vol, 3);
}

/* Nor if it does so with many requests at a time. */
static void a_promise_is_kept_once(void **state)
{
	static struct vd_io io[64];
	struct world *w = story_begin(&cli, 1);
	struct vd_volume_spec spec = { .name = "new", .size = 4096 * B };
	struct vd_volume *vol[3];
	unsigned k, n, got = 0;
	uint32_t id;

	(void)state;
	full_but_for_two(w, vol, 8, 100);
	for (n = 0; n < 64 && !vd_write_begin(vol[1], n * 16 * B, 16 * B, &io[n]); n++)
		got += io[n].nblocks;
	assert_in_range(got, 100, 100 + 8);
	for (k = 0; k < n; k++)
		assert_int_equal(vd_write_end(&io[k], k % 2 ? 0 : -EIO), k % 2 ? 0 : -EIO);
	assert_int_equal(vd_atomic_read(&vol[1]->promise.begun), 0);
	/* what failed may be written again, and the others' is there */
	assert_int_equal(put(w, vol[1], 1000, got / 2, 1, 1), 0);
	assert_int_equal(put(w, vol[0], 0, 8, 1, 1), 0);
	assert_int_equal(vd_volume_create(w->pool, &spec, &id), 0);
	end(w, vol, 3);
}

/* A superblock promises too little: too few are refused, not too many. */
static void promises_do_not_become_less_than_none(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol = make(w, "v", 4096, 1000, &(uint32_t){ 0 });

	(void)state;
	vd_space_promise(w->pool, -vd_atomic_read(&vol->promise.all));
	assert_int_equal(put(w, vol, 0, 600, 1, 3), 0);
	assert_int_equal(info_of(w).promised_blocks, 0);
	assert_true(vd_space_room(w->pool, NULL, 0) <= (int64_t)(vd_space_free(w->pool) - info_of(w).reserve_blocks));
	vd_volume_close(vol);
	world_free(w);
}

/* But they go on in a pool that is full, whatever is promised to others, and also to who
 * has just been promised more, having discarded. */
static void discards_go_on_in_a_full_pool(void **state)
{
	struct shape shape = {
		.nmembers = 1, .blocks = { 16384 }, .sector_size = 512, .journal_blocks = 256, .max_volumes = 20,
	};
	unsigned turn;

	(void)state;
	for (turn = 0; turn < 3; turn++) {
		struct world *w = world_new(&cli, cli.seed + turn, &shape);
		struct vd_snap s = { .name = "s" };
		struct vd_volume *vol[2];
		uint32_t kept;
		uint64_t v;

		vol[0] = make(w, "v", 1 << 20, 0, &s.origin);
		vol[1] = make(w, "kept", 1 << 20, 3000, &kept);
		assert_int_equal(put(w, vol[1], 0, turn * 1500, 1, 2), 0);
		fill(w, vol[0], ~0ull);
		assert_int_equal(info_of(w).mode, VD_MODE_OUT_OF_SPACE);
		assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
		for (v = 0; v < turn * 1500; v += 2)
			assert_int_equal(vd_unmap(vol[1], v * B, B), 0);
		for (v = 0; v < 8000; v += 2)
			assert_int_equal(vd_unmap(vol[0], v * B, B), 0);
		assert_int_equal(put(w, vol[1], 5000, 3000 - turn * 750, 1, 2), 0);
		end(w, vol, 2);
	}
}

/* ---- growth ---------------------------------------------------------------- */

static void a_full_pool_takes_writes_when_a_member_has_grown(void **state)
{
	static const uint64_t sizes[][2] = { { 4096, 4097 }, { 4096, 8192 }, { 4096, 30000 }, { 8192, 9000 }, { 8192 + 64, 8192 + 4000 } };
	unsigned i, m;

	(void)state;
	for (i = 0; i < 10; i++) {
		struct shape shape = { .nmembers = 1 + i % 2, .blocks = { sizes[i / 2][0], sizes[i / 2][0] }, .sector_size = 512, .journal_blocks = 64, .max_volumes = 20 };
		struct world *w = world_new(&cli, cli.seed + i, &shape);
		struct vd_volume *vol;
		struct vd_pool_info info;
		uint32_t id;

		vol = make(w, "v", 1 << 20, 0, &id);
		fill(w, vol, ~0ull);
		assert_int_equal(info_of(w).mode, VD_MODE_OUT_OF_SPACE);
		assert_int_equal(vd_pool_grow(w->pool, 0, sizes[i / 2][0] - 1), 0); /* has gone further already */
		assert_int_equal(vd_pool_grow(w->pool, 7, sizes[i / 2][0]), -ENOENT);
		for (m = 0; m < shape.nmembers; m++) {
			sim_grow(w->sim, m, sizes[i / 2][1]);
			assert_int_equal(vd_pool_grow(w->pool, m, sizes[i / 2][1]), 0);
		}
		info = info_of(w);
		assert_int_equal(info.mode, i < 2 ? VD_MODE_OUT_OF_SPACE : VD_MODE_RW); /* one block is no room for data */
		assert_int_equal(info.total_blocks, shape.nmembers * sizes[i / 2][1]);
		world_check(w);
		fill(w, vol, ~0ull);
		world_check(w);
		vd_volume_close(vol);
		world_close(w);
		world_open(w, 0);
		info = info_of(w);
		assert_int_equal(info.total_blocks, shape.nmembers * sizes[i / 2][1]);
		assert_true(info.total_blocks - info.used_blocks <= info.reserve_blocks + 200);
		end(w, NULL, 0);
	}
}

static void grow_story(struct world *w)
{
	uint64_t before = w->sim->member[0]->blocks;

	sim_grow(w->sim, 0, before + 9000);
	if (vd_pool_grow(w->pool, 0, before + 9000))
		return;
	if (!story_put(w, w->ref->vol[0]->id, 100 * B, 200 * B))
		story_flush(w);
}

static void a_member_has_grown_or_not_after_a_crash(void **state)
{
	struct world *base = story_begin(&cli, 2);
	bool cut = true, grown = false, not = false;
	uint64_t n;

	(void)state;
	story_put(base, story_create(base, "v", 1024), 0, 64 * B);
	world_close(base);
	for (n = 0; cut; n++) {
		unsigned again;

		for (again = 0, cut = false; again < 4; again++) {
			struct world *w = world_fork(base);
			uint64_t total;

			w->sim->rng = rng_seeded(cli.seed + n * 100 + again);
			world_open(w, 0);
			total = info_of(w).total_blocks;
			sim_cut(w->sim, n);
			grow_story(w);
			cut |= sim_is_cut(w->sim);
			story_crash_and_verify(w, again ? SIM_POWER_CUT : SIM_KILL);
			grown |= info_of(w).total_blocks == total + 9000;
			not |= info_of(w).total_blocks == total;
			assert_true(info_of(w).total_blocks == total + 9000 || info_of(w).total_blocks == total);
			story_end(w);
		}
	}
	assert_true(grown && not);
	world_free(base);
}

/* While the superblock that tells of new space is on its way, a writer that has waited
 * for it comes, and makes durable what it wrote.  Then the host dies. */
static struct moment {
	struct world *w;
	struct vd_volume *vol;
	int (*write)(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks);
	bool armed, began;
	int done;
	pthread_t t;
} moment;

static void *moment_main(void *arg)
{
	struct moment *m = arg;

	if (!put(m->w, m->vol, 1 << 19, 100, 1, 5))
		(void)!vd_flush(m->w->pool);
	__atomic_store_n(&m->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static int moment_write(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks)
{
	unsigned i;

	if (moment.armed && !moment.began && nblocks == VD_SUPER_BLOCKS) {
		moment.began = true;
		assert_int_equal(pthread_create(&moment.t, NULL, moment_main, &moment), 0);
		for (i = 0; i < 300 && !__atomic_load_n(&moment.done, __ATOMIC_SEQ_CST); i++)
			usleep(1000);
		return -EIO; /* the host dies: what the pool does from here on is not looked at */
	}
	return moment.write(ctx, member, block, buf, nblocks);
}

static void new_space(bool add)
{
	struct world *w = story_begin(&cli, 1);
	const uint8_t uuid[16] = "another";
	uint64_t total;
	uint32_t id;

	world_close(w);
	moment = (struct moment){ .w = w, .write = w->host.write };
	w->host.write = moment_write;
	world_open(w, 0);
	moment.vol = make(w, "v", 1 << 20, 0, &id);
	fill(w, moment.vol, ~0ull);
	assert_int_equal(vd_flush(w->pool), 0);
	total = info_of(w).total_blocks;
	moment.armed = true;
	if (add) {
		sim_add(w->sim, 4096);
		assert_int_not_equal(vd_pool_add(w->pool, uuid, 4096, 512), 0);
	} else {
		sim_grow(w->sim, 0, 8192);
		assert_int_not_equal(vd_pool_grow(w->pool, 0, 8192), 0);
	}
	assert_true(moment.began);
	pthread_join(moment.t, NULL);
	w->host.write = moment.write;
	world_abandon(w);
	sim_crash(w->sim, SIM_KILL);
	world_open(w, 0); /* for writing, or it fails */
	assert_int_equal(info_of(w).total_blocks, total);
	end(w, NULL, 0);
}

static void space_of_a_grown_member_is_given_out_when_it_is_durable(void **state) { (void)state; new_space(false); }
static void space_of_a_new_member_is_given_out_when_it_is_durable(void **state) { (void)state; new_space(true); }

static int room_write(void *ctx, unsigned m, uint64_t at, const void *buf, unsigned n)
{
	struct vd_pool *pool = moment.w->pool;

	if (moment.armed) {
		moment.began = true;
		assert_true(vd_reserve_room(pool, NULL) > 0);
	}
	return moment.write(ctx, m, at, buf, n);
}

/* The space of a member that joins is not there yet; but what there is stays there. */
static void a_pool_is_not_full_while_a_member_joins(void **state)
{
	const uint8_t uuid[16] = { 1, 2, 3 };
	struct world *w = story_begin(&cli, 2);
	struct vd_volume *vol;
	vd_pblk_t p;
	unsigned got;
	uint32_t id;

	(void)state;
	world_close(w);
	moment = (struct moment){ .w = w, .write = w->host.write };
	w->host.write = room_write;
	world_open(w, 0);
	vol = make(w, "v", 1 << 20, 0, &id);
	assert_int_equal(put(w, vol, 0, 100, 1, 3), 0);
	assert_int_equal(vd_space_make(w->pool, NULL), 0);
	while (vd_reserve_room(w->pool, NULL) > (int64_t)info_of(w).reserve_blocks / 4)
		assert_int_equal(vd_space_reserve_for(w->pool, NULL, VD_PBLK_NONE, 1, &p, &got), 0);
	moment.armed = true;
	sim_add(w->sim, 4096);
	assert_int_equal(vd_pool_add(w->pool, uuid, 4096, 512), 0);
	assert_true(moment.began);
	moment.armed = false;
	assert_true(vd_reserve_room(w->pool, NULL) > 3000);
	end(w, &vol, 1);
}

static bool grow_on_demand(void *ctx)
{
	struct world *w = moment.w;
	uint64_t blocks = w->sim->member[0]->blocks + 1000;

	(void)ctx;
	if (blocks > 8000)
		return false;
	sim_grow(w->sim, 0, blocks);
	assert_int_equal(vd_pool_grow(w->pool, 0, blocks), 0);
	return true;
}

static void the_host_is_asked_for_space_before_writers_are_told(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol;
	uint32_t id;

	(void)state;
	world_close(w);
	moment = (struct moment){ .w = w };
	w->host.grow = grow_on_demand;
	world_open(w, 0);
	vol = make(w, "v", 1 << 20, 0, &id);
	fill(w, vol, 6000);
	assert_int_equal(info_of(w).mode, VD_MODE_RW);
	fill(w, vol, ~0ull);
	assert_true(w->sim->member[0]->blocks > 7000);
	end(w, &vol, 1);
}

/* Also for what needs no data, and when what is being deleted is not enough. */
static void the_host_is_asked_for_space_before_a_change_is_refused(void **state)
{
	struct world *w = story_begin(&cli, 1);
	struct vd_volume *vol;
	uint32_t id;
	int r = 0;

	(void)state;
	vol = make(w, "kept", 1 << 20, info_of(w).reservable_blocks, &id);
	for (uint64_t i = 0; i < 2000 && !r; i++) {
		char name[] = { 'v', (char)('A' + i / 100), (char)('0' + i / 10 % 10), (char)('0' + i % 10), 0 };
		struct vd_volume_spec spec = { .name = name, .size = B };

		r = vd_volume_create(w->pool, &spec, &id);
	}
	assert_int_equal(r, -ENOSPC);
	vd_volume_close(vol);
	world_close(w);
	moment = (struct moment){ .w = w };
	w->host.grow = grow_on_demand;
	world_open(w, 0);
	vd_volume_close(make(w, "more", 1, 0, &id));
	assert_true(w->sim->member[0]->blocks > 5000);
	end(w, NULL, 0);
}

static void a_member_that_became_shorter_is_missing(void **state)
{
	struct world *w = story_begin(&cli, 2);
	struct vd_pool_info info;

	(void)state;
	sim_grow(w->sim, 1, 5000);
	assert_int_equal(vd_pool_grow(w->pool, 1, 5000), 0);
	world_close(w);
	sim_grow(w->sim, 1, 4999);
	assert_int_equal(vd_pool_open(&w->host, 0, NULL, &w->pool), 0);
	info = info_of(w);
	assert_int_equal(info.mode, VD_MODE_READONLY);
	assert_int_equal(info.nmissing, 1);
	assert_int_equal(vd_pool_grow(w->pool, 1, 6000), -EROFS);
	assert_int_equal(vd_pool_close(w->pool), 0);
	sim_grow(w->sim, 1, 5000);
	world_open(w, 0);
	end(w, NULL, 0);
}

/* ---- windows ---------------------------------------------------------------- */

/* A pool with space for all of a thousand regions, and a volume; how many blocks are free. */
static struct world *roomy(const char *name, struct vd_volume **vol, uint32_t *id, uint64_t *free)
{
	struct shape shape = {
		.nmembers = 1, .blocks = { 65536 }, .sector_size = 512, .journal_blocks = 256, .max_volumes = 20,
	};
	struct world *w = world_new(&cli, cli.seed, &shape);

	*vol = make(w, name, 1 << 20, 0, id);
	assert_int_equal(vd_checkpoint(w->pool), 0);
	*free = vd_space_free(w->pool);
	return w;
}

/* W2 of window.c: of more windows than a volume has at a time, and after all have gone. */
static void what_windows_had_and_nobody_wrote_is_free_again(void **state)
{
	const uint64_t most = VD_SETS * VD_SET_WAYS * VD_REGION_BLOCKS;
	struct vd_volume *vol;
	struct world *w;
	uint64_t free, v, n = 0;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &free);
	for (v = 0; v < 3000 * 2 * VD_REGION_BLOCKS; v += 2 * VD_REGION_BLOCKS)
		n += !put(w, vol, v + v / 32 % VD_REGION_BLOCKS, 1, 1, 1);
	assert_int_equal(n, 3000);
	assert_in_range(free - n - vd_space_free(w->pool), VD_REGION_BLOCKS, most);
	vd_windows_drop(vol);
	assert_int_equal(vd_space_free(w->pool), free - n);
	end(w, &vol, 1);
}

/* Blocks of regions, `step` apart, in an order that no stream has; then each is in one place. */
static void by_turns(struct world *w, struct vd_volume *vol, unsigned regions, unsigned step)
{
	const unsigned order[VD_REGION_BLOCKS] = { 5, 11, 0, 14, 3, 8, 1, 15, 6, 2, 13, 9, 4, 12, 7, 10 };
	struct vd_ext first, e;
	unsigned i, k;

	for (i = 0; i < VD_REGION_BLOCKS; i++)
		assert_int_equal(put(w, vol, order[i], regions, step, 1), 0);
	for (i = 0; i < regions; i++) {
		assert_int_equal(vd_map_find_wait(vol, i * step, &first), 0);
		for (k = 1; k < VD_REGION_BLOCKS; k++) {
			assert_int_equal(vd_map_find_wait(vol, i * step + k, &e), 0);
			assert_int_equal(e.p, first.p + k);
		}
	}
}

/* W3: with more regions between any two blocks of one than have windows. */
static void a_region_lies_in_one_place_however_it_was_written(void **state)
{
	struct vd_volume *vol;
	struct world *w;
	uint64_t blocks;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &blocks);
	by_turns(w, vol, 2000, 2 * VD_REGION_BLOCKS);
	end(w, &vol, 1);
}

/* W4: nor do the windows of a stream that are not used up, since other blocks were there
 * before it, leave the regions below them without one. */
static void what_a_stream_wrote_is_written_anew_in_regions(void **state)
{
	struct vd_volume *vol;
	struct world *w;
	uint64_t blocks;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &blocks);
	assert_int_equal(put(w, vol, 8, 64, 16 * VD_REGION_BLOCKS, 1), 0);
	assert_int_equal(put(w, vol, 0, 64 * 16 * VD_REGION_BLOCKS, 1, 1), 0);
	assert_int_equal(vd_snapshot(w->pool, &(struct vd_snap){ .name = "s", .origin = id }, 1), 0);
	by_turns(w, vol, 256, 3 * VD_REGION_BLOCKS);
	end(w, &vol, 1);
}

/* W4: a snapshot makes its window's blocks be written anew. */
static void a_block_that_a_window_gave_is_written_anew_singly(void **state)
{
	struct vd_volume *vol;
	struct world *w;
	uint64_t free, before;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &free);
	assert_int_equal(put(w, vol, 0, 8, 1, 1), 0);
	assert_int_equal(vd_snapshot(w->pool, &(struct vd_snap){ .name = "s", .origin = id }, 1), 0);
	before = vd_space_free(w->pool);
	assert_int_equal(put(w, vol, 2, 3, 1, 2), 0);
	assert_int_equal(before - vd_space_free(w->pool), 3);
	assert_int_equal(put(w, vol, 9, 1, 1, 2), 0); /* this one has a place yet */
	assert_int_equal(before - vd_space_free(w->pool), 3);
	end(w, &vol, 1);
}

/* And where there is no space, who asks is told to make some, not to load a group. */
static void a_block_written_anew_waits_for_space(void **state)
{
	struct { vd_pblk_t p; unsigned n; } *all = calloc(8192, sizeof(*all));
	struct vd_volume *vol;
	struct world *w;
	vd_pblk_t p = 0;
	unsigned got, n = 0;
	uint64_t blocks;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &blocks);
	assert_int_equal(put(w, vol, 64, 1, 1, 1), 0);
	do {
		while (!vd_space_reserve(w->pool, VD_PBLK_NONE, 1024, &all[n].p, &all[n].n))
			assert_in_range(++n, 1, 8191);
	} while (!vd_space_refill(w->pool));
	vd_read_lock(&vol->map);
	vd_spin_lock(&vol->claim_lock);
	assert_int_equal(vd_windows_alloc(vol, &(struct vd_ext){ .v = 64, .len = 1 }, 1, &p, &got), -EWOULDBLOCK);
	vd_spin_unlock(&vol->claim_lock);
	vd_read_unlock(&vol->map);
	assert_true(p == VD_PBLK_NONE);
	while (n--)
		vd_space_unreserve(w->pool, all[n].p, all[n].n);
	free(all);
	end(w, &vol, 1);
}

/* Of streams there are a few at a time, and they give back what they had as others do. */
static void a_stream_keeps_together_and_ends(void **state)
{
	struct vd_volume *vol;
	struct vd_ext e;
	struct world *w;
	uint64_t free, v, n = 0;
	uint32_t id;

	(void)state;
	w = roomy("v", &vol, &id, &free);
	assert_int_equal(put(w, vol, 0, 4096, 1, 1), 0);
	assert_int_equal(vd_map_find(vol, 0, VD_NODE_NOWAIT, &e), 0);
	assert_int_equal(e.len, 4096);
	for (v = 8192; v < 8192 + 2 * VD_WIDE_MAX * VD_WINDOW_BLOCKS; v += VD_WINDOW_BLOCKS)
		n += !put(w, vol, v, 80, 1, 1); /* each leaves a wide one half used */
	assert_int_equal(n, 2 * VD_WIDE_MAX);
	assert_in_range(free - 4096 - 80 * n - vd_space_free(w->pool), VD_WIDE_MAX, VD_WIDE_MAX * VD_WINDOW_BLOCKS);
	vd_windows_drop(vol);
	assert_int_equal(vd_space_free(w->pool), free - 4096 - 80 * n);
	end(w, &vol, 1);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_reserved_is_not_taken_by_many_at_once),
		cmocka_unit_test(what_is_reserved_is_had_by_many_at_once),
		cmocka_unit_test(a_pool_is_not_full_when_less_is_kept),
		cmocka_unit_test(a_volume_that_another_is_rolled_back_to_is_promised_no_more_than_there_is),
		cmocka_unit_test(what_is_reserved_of_scattered_shared_blocks_is_had),
		cmocka_unit_test(a_snapshot_comes_while_an_unmap_counts),
		cmocka_unit_test(a_bad_page_does_not_keep_a_reservation_from_being_replayed),
		cmocka_unit_test(a_reservation_is_exact_over_snapshot_discard_and_reopening),
		cmocka_unit_test(a_volume_alone_again_is_promised_less),
		cmocka_unit_test(a_closed_volume_alone_again_is_promised_less),
		cmocka_unit_test(discards_do_not_take_what_is_promised),
		cmocka_unit_test(discards_that_are_paid_for_are_not_refused),
		cmocka_unit_test(a_promise_is_no_way_to_more),
		cmocka_unit_test(a_promise_is_kept_once),
		cmocka_unit_test(promises_do_not_become_less_than_none),
		cmocka_unit_test(discards_go_on_in_a_full_pool),
		cmocka_unit_test(a_read_error_does_not_make_a_pool_full),
		cmocka_unit_test(a_full_pool_takes_writes_when_a_member_has_grown),
		cmocka_unit_test(a_member_has_grown_or_not_after_a_crash),
		cmocka_unit_test(space_of_a_grown_member_is_given_out_when_it_is_durable),
		cmocka_unit_test(space_of_a_new_member_is_given_out_when_it_is_durable),
		cmocka_unit_test(a_pool_is_not_full_while_a_member_joins),
		cmocka_unit_test(the_host_is_asked_for_space_before_writers_are_told),
		cmocka_unit_test(the_host_is_asked_for_space_before_a_change_is_refused),
		cmocka_unit_test(a_member_that_became_shorter_is_missing),
		cmocka_unit_test(what_windows_had_and_nobody_wrote_is_free_again),
		cmocka_unit_test(a_region_lies_in_one_place_however_it_was_written),
		cmocka_unit_test(what_a_stream_wrote_is_written_anew_in_regions),
		cmocka_unit_test(a_block_that_a_window_gave_is_written_anew_singly),
		cmocka_unit_test(a_block_written_anew_waits_for_space),
		cmocka_unit_test(a_stream_keeps_together_and_ends),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	alarm(1500);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
