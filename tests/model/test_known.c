// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Requests that find their block without a lock, and what comes in between: between
 * looking and entering the volume's gate (M2), and where not all of an extent is sound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

static unsigned hooked(void);
#define vd_port_cpu hooked
#include "../../dm-target/core/map.c"
#undef vd_port_cpu
#include "story.h"

static struct cli cli = { .test = "test_known" };

static struct { struct world *w; unsigned in; uint32_t origin; } cut;

/* The in-th time that a gate is entered a snapshot is made first. */
static unsigned hooked(void)
{
	struct vd_snap s = { .origin = cut.origin, .name = "one" };

	if (cut.in && !--cut.in)
		assert_int_equal(vd_snapshot(cut.w->pool, &s, 1), 0);
	return 0;
}

static struct world *begin_world(struct vd_volume **vol, uint32_t *id)
{
	struct shape shape = { .nmembers = 2, .blocks = { 4096, 3000 }, .sector_size = 512, .journal_blocks = 64, .max_volumes = 20 };
	struct world *w = world_new(&cli, cli.seed, &shape);
	struct vd_volume_spec spec = { .name = "origin", .size = 4096 * VD_BLOCK };

	assert_int_equal(vd_volume_create(w->pool, &spec, id), 0);
	assert_int_equal(vd_volume_open(w->pool, *id, vol), 0);
	return w;
}

/* M2 */
static void nothing_is_written_in_place_that_was_looked_up_before_a_snapshot(void **state)
{
	struct vd_volume *vol;
	struct vd_io io;
	uint32_t id;
	struct world *w = begin_world(&vol, &id);
	vd_pblk_t was;
	int r;

	(void)state;
	assert_int_equal(io_stamp(w->sim, vol, 0, 0, VD_BLOCK, 1, NULL), 0);
	assert_int_equal(vd_write_begin(vol, 0, VD_BLOCK, &io), 0);
	assert_int_equal(io.kind, VD_RUN_DATA);
	was = io.pblk;
	assert_int_equal(vd_write_end(&io, 0), 0);
	cut.w = w;
	cut.origin = id;
	cut.in = 2; /* the pool's gate, the volume's */
	while ((r = vd_write_begin(vol, 0, VD_BLOCK, &io)) == -EWOULDBLOCK)
		assert_int_equal(vd_io_wait(&io), 0);
	assert_int_equal(r, 0);
	assert_int_equal(cut.in, 0);
	assert_int_equal(io.kind, VD_RUN_NEW);
	assert_true(io.pblk != was);
	assert_int_equal(vd_write_end(&io, -EIO), -EIO);
	vd_volume_close(vol);
	world_free(w);
}

/* An extent that a page has, and that begins where no data may be: no request is sent there. */
static void a_damaged_extent_is_not_known_where_it_is_not_sound(void **state)
{
	struct vd_ext bad = { .v = 0, .len = 2048, .p = VD_PBLK(0, 0), .birth = 1, .kind = VD_DATA };
	struct vd_volume *vol;
	struct vd_io io;
	uint32_t id;
	int64_t mapped = 0;
	struct world *w = begin_world(&vol, &id);
	int r;

	(void)state;
	assert_int_equal(vd_tree_set(w->pool, &vol->base->root, id, &bad, VD_TREE_NOREF, &mapped), 0);
	assert_int_equal(vd_read_begin(vol, 0, VD_BLOCK, &io), -EUCLEAN);
	assert_int_equal(vd_read_begin(vol, 64 * VD_BLOCK, VD_BLOCK, &io), 0);
	vd_read_end(&io);
	assert_int_equal(vd_read_begin(vol, 0, VD_BLOCK, &io), -EUCLEAN);
	r = vd_write_begin(vol, 0, VD_BLOCK, &io);
	assert_int_equal(r, -EUCLEAN);
	world_abandon(w);
	world_free(w);
}

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(nothing_is_written_in_place_that_was_looked_up_before_a_snapshot),
		T(a_damaged_extent_is_not_known_where_it_is_not_sound),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
