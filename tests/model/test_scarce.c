// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A checkpoint while the host has no memory (I7): it is refused before it has begun,
 * or it gets through, however many nodes it makes.  test_faults has small ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"

#define B VD_BLOCK
#define PIECES 300000u

static struct cli cli = { .test = "test_scarce", .seconds = 1 };

/* Takes a checkpoint with the nth and all later allocations failing, for nth = 1, 2, …
 * until one gets through all the same. */
static void checkpoint_without_memory(struct world *w)
{
	struct vd_pool_info info;
	unsigned nth;
	int r = -ENOMEM;

	for (nth = 1; r; nth++) {
		assert_int_equal(r, -ENOMEM);
		sim_fail(w->sim, SIM_ALLOC, nth, -ENOMEM, true);
		r = vd_checkpoint(w->pool);
		assert_true(sim_unfail(w->sim));
		vd_pool_info(w->pool, &info);
		assert_int_equal(info.mode, VD_MODE_RW);
	}
	assert_in_range(nth, 2, 20);
}

/* Single blocks that say "zero", though there is a base image: mappings without data.
 * Far apart and in no order, so that a page holds few. */
static void scatter(struct vd_volume *vol, uint64_t salt)
{
	for (uint64_t i = 0; i < PIECES; i++) {
		uint64_t v = (i * 0x9e3779b1 & 0xfffff) << 20 | ((i + salt) * 0x9e3779b97f4a7c15 >> 44 & ~1ull) | salt;

		assert_int_equal(vd_unmap(vol, v * B, B), 0);
	}
}

static void verify(struct vd_volume *vol, uint64_t pieces)
{
	uint64_t size = vd_volume_size(vol), off, n = 0;
	struct vd_extent_info e;

	for (off = 0; off < size; off = e.off + e.len) {
		assert_int_equal(vd_extent(vol, off, size - off, &e), 0);
		n += e.kind == VD_ZERO;
	}
	assert_int_equal(n, pieces);
}

static void a_checkpoint_of_many_nodes_needs_no_memory(void **state)
{
	struct shape shape = { .nmembers = 2, .blocks = { 90000, 90000 }, .sector_size = 512, .journal_blocks = 8192, .max_volumes = 20 };
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_volume_spec spec = { .name = "v", .size = (uint64_t)B << 40, .base = "base:0" };
	struct vd_snap snap = { .name = "s" };
	struct vd_volume *vol;

	(void)state;
	assert_int_equal(vd_volume_create(w->pool, &spec, &snap.origin), 0);
	assert_int_equal(vd_volume_open(w->pool, snap.origin, &vol), 0);
	scatter(vol, 0);
	checkpoint_without_memory(w);
	verify(vol, PIECES);
	assert_int_equal(vd_snapshot(w->pool, &snap, 1), 0);
	scatter(vol, 1);
	checkpoint_without_memory(w);
	verify(vol, 2 * PIECES);
	world_check(w);
	assert_int_equal(vd_volume_delete(w->pool, snap.id), 0);
	checkpoint_without_memory(w);
	vd_volume_close(vol);
	world_check(w);
	assert_int_equal(world_close(w), 0);
	world_open(w, 0);
	assert_int_equal(vd_volume_open(w->pool, snap.origin, &vol), 0);
	verify(vol, 2 * PIECES);
	vd_volume_close(vol);
	world_check(w);
	world_close(w);
	world_free(w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_checkpoint_of_many_nodes_needs_no_memory),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	alarm(500);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
