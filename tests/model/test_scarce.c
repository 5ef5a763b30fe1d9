// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A checkpoint while the host has no memory (I7): it is refused before it has begun,
 * or it gets through, however many nodes it makes and volumes it finds changed.
 * test_faults has small ones.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"
#include "volume.h"

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
	assert_in_range(nth, 2, 200); /* those that it is refused for are made before it begins, and kept */
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

static void begin(struct world *w, unsigned n, uint32_t *first, struct vd_volume **vol)
{
	unsigned i;
	uint32_t id;

	for (i = 0; i < n; i++) {
		char name[] = { 'v', (char)('a' + i / 676), (char)('a' + i / 26 % 26), (char)('a' + i % 26), 0 };
		struct vd_volume_spec spec = { .name = name, .size = (uint64_t)B << 40, .base = "base:0" };

		assert_int_equal(vd_volume_create(w->pool, &spec, &id), 0);
		if (!i)
			*first = id;
		if (vol)
			assert_int_equal(vd_volume_open(w->pool, id, &vol[i]), 0);
	}
	assert_int_equal(vd_checkpoint(w->pool), 0);
}

#define VOLUMES 2000u

static void a_checkpoint_of_many_volumes_needs_no_memory(void **state)
{
	struct shape shape = { .nmembers = 2, .blocks = { 90000, 90000 }, .sector_size = 512, .journal_blocks = 8192, .max_volumes = 20 };
	struct world *w = world_new(&cli, cli.seed, &shape);
	static struct vd_volume *vol[VOLUMES];
	uint32_t first;
	unsigned i;

	(void)state;
	begin(w, VOLUMES, &first, vol);
	for (i = 0; i < VOLUMES; i++)
		assert_int_equal(vd_unmap(vol[i], 5 * B, B), 0);
	checkpoint_without_memory(w);
	verify(vol[VOLUMES - 1], 1);
	for (i = 0; i < VOLUMES; i++) {
		vd_volume_close(vol[i]);
		assert_int_equal(vd_volume_delete(w->pool, first + i), 0);
	}
	checkpoint_without_memory(w);
	world_check(w);
	world_close(w);
	world_free(w);
}

static struct { struct world *w; void *(*alloc)(void *ctx, size_t size, int how); bool armed, begun; uint32_t first; } others;

/* No memory from when the fold wants its first node, at which moment others read a great many. */
static void *others_alloc(void *ctx, size_t size, int how)
{
	struct vd_volume_info info;
	uint32_t id;

	if (!others.armed || (!others.begun && size != B))
		return others.alloc(ctx, size, how);
	if (!others.begun) {
		others.begun = true;
		for (id = others.first + 1; id < others.first + VOLUMES; id++)
			(void)!vd_volume_info(others.w->pool, id, &info);
	}
	return NULL;
}

static void what_others_read_meanwhile_takes_no_memory_from_a_checkpoint(void **state)
{
	struct shape shape = { .nmembers = 2, .blocks = { 90000, 90000 }, .sector_size = 512, .journal_blocks = 8192, .max_volumes = 20 };
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_volume *vol;

	(void)state;
	begin(w, VOLUMES, &others.first, NULL);
	assert_int_equal(world_close(w), 0);
	others.w = w;
	others.alloc = w->host.alloc;
	w->host.alloc = others_alloc;
	world_open(w, 0);
	assert_int_equal(vd_volume_open(w->pool, others.first, &vol), 0);
	scatter(vol, 0);
	others.armed = true;
	assert_int_equal(vd_checkpoint(w->pool), 0);
	assert_true(others.begun);
	others.armed = false;
	verify(vol, PIECES);
	vd_volume_close(vol);
	world_check(w);
	world_close(w);
	world_free(w);
}

static void write_all(struct vd_volume *vol, uint64_t n)
{
	struct vd_io io;
	uint64_t v;
	int r;

	for (v = 0; v < n;) {
		r = vd_write_begin(vol, v * B, (n - v) * B, &io);
		if (r == -EWOULDBLOCK) {
			assert_int_equal(vd_io_wait(&io), 0);
			continue;
		}
		assert_int_equal(r, 0);
		v += io.bytes / B;
		assert_int_equal(vd_write_end(&io, 0), 0);
	}
}

#define GROUPS 40u /* fit into the place that is kept, once */

/* Where a starved checkpoint frees blocks their groups do not keep their memory. */
static void the_memory_kept_comes_back(void **state)
{
	struct shape shape = { .nmembers = 1, .blocks = { (3 * GROUPS + 20) * VD_GROUP_BLOCKS }, .sector_size = 512, .journal_blocks = 8192, .max_volumes = 20 };
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_volume_spec spec = { .name = "v", .size = (uint64_t)B << 30 };
	struct vd_volume *vol;
	uint64_t v;
	unsigned turn, i;
	uint32_t id;

	(void)state;
	assert_int_equal(vd_volume_create(w->pool, &spec, &id), 0);
	assert_int_equal(vd_volume_open(w->pool, id, &vol), 0);
	write_all(vol, (3 * GROUPS + 2) * VD_GROUP_BLOCKS);
	for (v = 0; v < 3 * GROUPS * VD_GROUP_BLOCKS; v += VD_GROUP_BLOCKS / 4)
		assert_int_equal(vd_unmap(vol, v * B, B), 0); /* or they would need little */
	vd_volume_close(vol);
	assert_int_equal(world_close(w), 0);
	world_open(w, 0);
	assert_int_equal(vd_volume_open(w->pool, id, &vol), 0);
	for (turn = 0; turn < 3; turn++) {
		for (i = 0; i < GROUPS; i++)
			assert_int_equal(vd_unmap(vol, ((uint64_t)turn * GROUPS + i) * VD_GROUP_BLOCKS * B, 1000 * B), 0);
		checkpoint_without_memory(w);
		for (i = 0; i < 4; i++) {
			assert_int_equal(vd_unmap(vol, (3 * GROUPS * VD_GROUP_BLOCKS + turn * 4 + i) * (uint64_t)B, B), 0);
			assert_int_equal(vd_checkpoint(w->pool), 0);
			story_work(w);
		}
		assert_false(vd_memory_low(w->pool, VD_GROUP_BLOCKS));
	}
	vd_volume_close(vol);
	world_check(w);
	world_close(w);
	world_free(w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_checkpoint_of_many_nodes_needs_no_memory),
		cmocka_unit_test(a_checkpoint_of_many_volumes_needs_no_memory),
		cmocka_unit_test(what_others_read_meanwhile_takes_no_memory_from_a_checkpoint),
		cmocka_unit_test(the_memory_kept_comes_back),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	alarm(500);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
