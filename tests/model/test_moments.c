// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Requests in flight across the moments at which "in place" and "anew" change
 * places: a snapshot's cut, and a volume's becoming sole owner again.  And what a
 * crash must not let be given twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"
#include "volume.h"

static struct cli cli = { .test = "test_moments" };

#define B VD_BLOCK

static struct world *begin_world(void)
{
	struct shape shape = { .nmembers = 2, .blocks = { 4096, 3000 }, .sector_size = 512, .journal_blocks = 64, .max_volumes = 20 };

	return world_new(&cli, cli.seed, &shape);
}

static struct vd_volume *make(struct world *w, uint32_t *id)
{
	struct vd_volume_spec spec = { .name = "origin", .size = 64 * B };
	struct vd_volume *vol;

	assert_int_equal(vd_volume_create(w->pool, &spec, id), 0);
	assert_int_equal(vd_volume_open(w->pool, *id, &vol), 0);
	return vol;
}

/* n sectors from sector s on */
static void put(struct world *w, struct vd_volume *vol, uint64_t s, uint64_t n, uint64_t value)
{
	assert_int_equal(io_stamp(w->sim, vol, 0, s * SECTOR, n * SECTOR, value, NULL), 0);
}

static void expect(struct world *w, struct vd_volume *vol, uint64_t s, uint64_t n, uint64_t value)
{
	uint8_t buf[B];
	uint64_t i;

	assert_int_equal(io_read(w->sim, vol, 0, s * SECTOR, buf, n * SECTOR, NULL), 0);
	for (i = 0; i < n; i++)
		assert_int_equal(stamp_read(buf + i * SECTOR, s + i), value);
}

static void begin(struct vd_volume *vol, uint64_t s, uint64_t n, struct vd_io *io, enum vd_run_kind kind)
{
	int r;

	while ((r = vd_write_begin(vol, s * SECTOR, n * SECTOR, io)) == -EWOULDBLOCK)
		assert_int_equal(vd_io_wait(io), 0);
	assert_int_equal(r, 0);
	assert_int_equal(io->kind, kind);
	assert_int_equal(io->bytes, n * SECTOR);
}

static void carry_out(struct world *w, struct vd_io *io, uint64_t s, uint64_t value)
{
	uint8_t buf[B];
	uint64_t i;

	for (i = 0; i * SECTOR < io->bytes; i++)
		stamp(buf + i * SECTOR, s + i, value);
	assert_int_equal(io_run_write(w->sim, io, 0, s * SECTOR, buf), 0);
}

struct job { struct world *w; struct vd_volume *vol; uint32_t origin, snap; const char *name; uint64_t s, n, value; int done, r; pthread_t t; };

static void *snap_main(void *arg)
{
	struct job *j = arg;
	struct vd_snap s = { .origin = j->origin, .name = j->name };

	j->r = vd_snapshot(j->w->pool, &s, 1);
	j->snap = s.id;
	__atomic_store_n(&j->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void *put_main(void *arg)
{
	struct job *j = arg;

	j->r = io_stamp(j->w->sim, j->vol, 0, j->s * SECTOR, j->n * SECTOR, j->value, NULL);
	__atomic_store_n(&j->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static bool done(struct job *j) { return __atomic_load_n(&j->done, __ATOMIC_SEQ_CST); }

static uint64_t last_snapshot(struct world *w, uint32_t id)
{
	struct vd_volume_info info;

	assert_int_equal(vd_volume_info(w->pool, id, &info), 0);
	return info.last_snapshot;
}

/* Starts the job; waits until the cut is done, and a while longer. */
static void start_snap(struct job *j)
{
	uint64_t was = last_snapshot(j->w, j->origin);

	assert_int_equal(pthread_create(&j->t, NULL, snap_main, j), 0);
	while (last_snapshot(j->w, j->origin) == was)
		usleep(1000);
	usleep(50000);
}

static void join(struct job *j)
{
	pthread_join(j->t, NULL);
	assert_int_equal(j->r, 0);
}

/* I1: every snapshot waits for every write in place that began before it. */
static void two_snapshots_at_once_both_wait_for_a_write_in_place(void **state)
{
	struct world *w = begin_world();
	struct job one = { .w = w, .name = "one" }, two = { .w = w, .name = "two" };
	uint32_t id;
	struct vd_volume *vol = make(w, &id);
	struct vd_io io;

	(void)state;
	alarm(300);
	one.origin = two.origin = id;
	put(w, vol, 0, 8, 1);
	begin(vol, 0, 8, &io, VD_RUN_DATA);
	start_snap(&one);
	assert_false(done(&one));
	start_snap(&two);
	assert_false(done(&one));
	assert_false(done(&two));
	carry_out(w, &io, 0, 2);
	assert_int_equal(vd_write_end(&io, 0), 0);
	join(&one);
	join(&two);
	expect(w, vol, 0, 8, 2);
	vd_volume_close(vol);
	world_free(w);
	alarm(0);
}

/* A write of part of a block takes the rest from the old one: not before what is
 * being written there in place has arrived. */
static void a_part_of_a_block_is_written_while_another_part_is_in_flight_over_a_cut(void **state)
{
	struct world *w = begin_world();
	struct job snap = { .w = w, .name = "one" }, part = { .w = w, .s = 0, .n = 2, .value = 3 };
	uint32_t id;
	struct vd_volume *vol = make(w, &id);
	struct vd_io io;

	(void)state;
	alarm(300);
	snap.origin = id;
	part.vol = vol;
	put(w, vol, 0, 8, 1);
	begin(vol, 4, 2, &io, VD_RUN_DATA);
	start_snap(&snap);
	assert_int_equal(pthread_create(&part.t, NULL, put_main, &part), 0);
	usleep(100000);
	carry_out(w, &io, 4, 2);
	assert_int_equal(vd_write_end(&io, 0), 0);
	join(&snap);
	join(&part);
	expect(w, vol, 0, 2, 3);
	expect(w, vol, 2, 2, 1);
	expect(w, vol, 4, 2, 2);
	expect(w, vol, 6, 2, 1);
	vd_volume_close(vol);
	world_free(w);
	alarm(0);
}

/* The same where the volume becomes sole owner while a part is written anew. */
static void a_part_of_a_block_is_written_anew_while_the_volume_becomes_sole_owner(void **state)
{
	struct world *w = begin_world();
	struct vd_snap s = { .name = "one" };
	struct job part = { .w = w, .s = 0, .n = 2, .value = 3 };
	uint32_t id;
	struct vd_volume *vol = make(w, &id);
	struct vd_io io, other;
	int r;

	(void)state;
	alarm(300);
	put(w, vol, 0, 16, 1);
	s.origin = id;
	assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
	assert_int_equal(vd_checkpoint(w->pool), 0);
	assert_int_equal(vd_volume_delete(w->pool, s.id), 0);
	begin(vol, 4, 2, &io, VD_RUN_NEW);
	carry_out(w, &io, 4, 2); /* and so the old block has been read */
	while ((r = vd_pool_work(w->pool)) == 1)
		;
	assert_int_equal(r, 0);
	for (unsigned i = 0; i < 2; i++) /* nor when it is known where the block is */
		assert_int_equal(vd_write_begin(vol, 0, 512, &other), -EWOULDBLOCK);
	part.vol = vol;
	assert_int_equal(pthread_create(&part.t, NULL, put_main, &part), 0);
	usleep(100000);
	assert_int_equal(vd_write_end(&io, 0), 0);
	join(&part);
	expect(w, vol, 0, 2, 3);
	expect(w, vol, 2, 2, 1);
	expect(w, vol, 4, 2, 2);
	expect(w, vol, 6, 2, 1);
	/* and then it is the owner indeed */
	begin(vol, 8, 8, &io, VD_RUN_DATA);
	carry_out(w, &io, 8, 4);
	assert_int_equal(vd_write_end(&io, 0), 0);
	vd_volume_close(vol);
	world_free(w);
	alarm(0);
}

static void the_number_of_a_link_is_not_given_twice(void **state)
{
	struct world *w = begin_world();
	struct vd_disk_pointer ptr = { .epoch = 0 };
	uint32_t id, first, second;
	struct vd_volume *vol = make(w, &id);

	(void)state;
	vd_volume_close(vol);
	assert_int_equal(vd_volume_pointer_add(w->pool, id, &ptr, &first), 0);
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT);
	assert_int_equal(world_open(w, 0), 0);
	assert_int_equal(vd_volume_pointer_add(w->pool, id, &ptr, &second), 0);
	assert_int_not_equal(first, second);
	world_free(w);
}

static void a_pointer_does_not_become_a_second_that_writes(void **state)
{
	struct world *w = begin_world();
	struct vd_disk_pointer rw = { .mode = cpu_to_le32(1) }, ro = { .epoch = 0 };
	uint32_t id, first, second;
	struct vd_volume *vol = make(w, &id);

	(void)state;
	vd_volume_close(vol);
	assert_int_equal(vd_volume_pointer_add(w->pool, id, &rw, &first), 0);
	assert_int_equal(vd_volume_pointer_add(w->pool, id, &rw, &second), -EBUSY);
	assert_int_equal(vd_volume_pointer_add(w->pool, id, &ro, &second), 0);
	assert_int_equal(vd_volume_pointer_set(w->pool, id, second, &rw), -EBUSY);
	assert_int_equal(vd_volume_pointer_set(w->pool, id, first, &rw), 0);
	assert_int_equal(vd_volume_pointer_set(w->pool, id, first, &ro), 0);
	assert_int_equal(vd_volume_pointer_set(w->pool, id, second, &rw), 0);
	world_free(w);
}

/* All or none: what ran out of memory leaves no name behind. */
static void a_snapshot_that_fails_can_be_taken_again(void **state)
{
	uint32_t id, nth, failed = 0;

	(void)state;
	for (nth = 1;; nth++) {
		struct world *w = begin_world();
		struct vd_volume *vol = make(w, &id);
		struct vd_snap s = { .origin = id, .name = "copy" };
		int r;

		put(w, vol, 0, 8, 7);
		sim_fail(w->sim, SIM_ALLOC, nth, -ENOMEM, false);
		r = vd_snapshot(w->pool, &s, 1);
		if (!sim_unfail(w->sim))
			nth = 0;
		if (r) {
			assert_int_equal(r, -ENOMEM);
			failed++;
			assert_int_equal(vd_snapshot(w->pool, &s, 1), 0);
		}
		vd_volume_close(vol);
		world_check(w);
		world_free(w);
		if (!nth)
			break;
	}
	assert_true(failed > 10);
}

/* D6: what is being unmapped is not found any more by who begins when its blocks are set aside. */
static struct { struct world *w; struct vd_volume *vol; struct vd_io io; bool write; int armed, begun; pthread_t t; void (*free)(void *, void *); } hole;

static void *begin_main(void *arg)
{
	int r;

	(void)arg;
	while ((r = hole.write ? vd_write_begin(hole.vol, 0, B, &hole.io) : vd_read_begin(hole.vol, 0, B, &hole.io)) == -EWOULDBLOCK)
		assert_int_equal(vd_io_wait(&hole.io), 0);
	assert_int_equal(r, 0);
	__atomic_store_n(&hole.begun, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Called while the overlay gives back a leaf, half-way in the unmap. */
static void free_and_more(void *ctx, void *mem)
{
	hole.free(ctx, mem);
	if (!__atomic_exchange_n(&hole.armed, 0, __ATOMIC_SEQ_CST))
		return;
	assert_int_equal(vd_flush(hole.w->pool), 0);
	assert_in_range(vd_pool_work(hole.w->pool), 0, 1);
	assert_int_equal(pthread_create(&hole.t, NULL, begin_main, NULL), 0);
	for (unsigned i = 0; i < 300 && !__atomic_load_n(&hole.begun, __ATOMIC_SEQ_CST); i++)
		usleep(1000);
}

static void unmap_beside(bool write)
{
	struct world *w = begin_world();
	uint32_t id, mask = 0;
	struct vd_volume *vol = make(w, &id);
	vd_pblk_t was;
	int r;

	alarm(300);
	for (uint64_t v = 0; v < 64; v += 2)
		put(w, vol, v * 8, 8, 1);
	begin(vol, 0, 8, &hole.io, VD_RUN_DATA);
	was = hole.io.pblk;
	assert_int_equal(vd_write_end(&hole.io, 0), 0);
	assert_int_equal(vd_flush(w->pool), 0);
	assert_in_range(vd_pool_work(w->pool), 0, 1);
	hole.w = w;
	hole.vol = vol;
	hole.write = write;
	hole.begun = 0;
	hole.free = w->pool->host.free;
	w->pool->host.free = free_and_more;
	hole.armed = 1;
	assert_int_equal(vd_unmap(vol, 0, 64 * B), 0);
	assert_int_equal(hole.armed, 0);
	w->pool->host.free = hole.free;
	pthread_join(hole.t, NULL);
	if (hole.io.kind == VD_RUN_DATA && hole.io.pblk == was) { /* then it is nobody else's until we end */
		vd_windows_drop(vol);
		while ((r = vd_pool_work(w->pool)) == 1)
			;
		assert_int_equal(r, 0);
		assert_int_equal(vd_space_reserve_mask(w->pool, NULL, was, 1, 0, &mask), 0);
		assert_int_equal(mask, 0);
	}
	if (write)
		carry_out(w, &hole.io, 0, 2), assert_int_equal(vd_write_end(&hole.io, 0), 0);
	else
		vd_read_end(&hole.io);
	vd_volume_close(vol);
	world_free(w);
	alarm(0);
}

static void a_read_that_begins_half_way_in_an_unmap_has_its_blocks_to_the_end(void **state) { (void)state; unmap_beside(false); }
static void a_write_that_begins_half_way_in_an_unmap_has_its_blocks_to_the_end(void **state) { (void)state; unmap_beside(true); }

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(two_snapshots_at_once_both_wait_for_a_write_in_place),
		T(a_part_of_a_block_is_written_while_another_part_is_in_flight_over_a_cut),
		T(a_part_of_a_block_is_written_anew_while_the_volume_becomes_sole_owner),
		T(a_snapshot_that_fails_can_be_taken_again),
		T(the_number_of_a_link_is_not_given_twice),
		T(a_read_that_begins_half_way_in_an_unmap_has_its_blocks_to_the_end),
		T(a_write_that_begins_half_way_in_an_unmap_has_its_blocks_to_the_end),
		T(a_pointer_does_not_become_a_second_that_writes),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
