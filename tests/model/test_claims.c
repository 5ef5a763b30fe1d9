// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * What writes that are under way have claimed (map.c): no two have the same block, none
 * waits for nothing, and there is a leaf for each, while others unmap and resize.
 *
 * Hundreds are under way, of up to 300 blocks, around the stretches by which claims are kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"
#include "volume.h"

#define STRETCH 256u /* blocks; map.c */
#define BLOCKS (VD_CLAIM_LISTS * STRETCH * 2 + 700)
#define LONGEST 300u
#define UNDER_WAY 300u
#define SPARE 600u /* blocks at the end that come and go */
#define WAIT_CLAIM 2u

static struct cli cli = { .test = "test_claims" };

struct write { struct vd_io io; uint64_t v, n; bool on; };
struct scene {
	struct vd_volume *vol;
	struct rng rng;
	struct write write[UNDER_WAY];
	bool cuts;   /* others unmap and resize meanwhile */
	bool over;   /* atomic */
	uint64_t begun, claimed;
};

static void *unmapper(void *arg)
{
	struct rng rng = rng_seeded(cli.seed + 1);
	struct scene *s = arg;

	while (!__atomic_load_n(&s->over, __ATOMIC_RELAXED)) {
		uint64_t v = rng_below(&rng, BLOCKS - 2000), n = rng_between(&rng, 1, rng_one_in(&rng, 4) ? 2000 : 20);
		int r = vd_unmap(s->vol, v * VD_BLOCK, n * VD_BLOCK);

		assert_true(!r || r == -ERANGE);
		usleep((useconds_t)rng_below(&rng, 300));
	}
	return NULL;
}

static void *resizer(void *arg)
{
	struct rng rng = rng_seeded(cli.seed + 2);
	struct scene *s = arg;

	while (!__atomic_load_n(&s->over, __ATOMIC_RELAXED)) {
		assert_int_equal(vd_volume_resize(s->vol->pool, s->vol->id, (BLOCKS - 1 - rng_below(&rng, SPARE)) * (uint64_t)VD_BLOCK), 0);
		usleep((useconds_t)rng_below(&rng, 300));
	}
	return NULL;
}

/* Of [v, v + n), how much from v on none of ours has. */
static uint64_t free_of_ours(const struct scene *s, uint64_t v, uint64_t n)
{
	for (const struct write *w = s->write; w < s->write + UNDER_WAY; w++)
		if (w->on && w->v < v + n && v < w->v + w->n)
			n = w->v > v ? w->v - v : 0;
	return n;
}

static void write_begin(struct scene *s, struct write *w)
{
	uint64_t v = rng_one_in(&s->rng, 3) ? rng_below(&s->rng, 40) * STRETCH * 3 + STRETCH - 6 + rng_below(&s->rng, 10)
					    : rng_below(&s->rng, BLOCKS - SPARE - LONGEST);
	uint64_t off = v * VD_BLOCK + (rng_one_in(&s->rng, 3) ? 512 * rng_below(&s->rng, 8) : 0);
	uint64_t len = rng_one_in(&s->rng, 3) ? VD_BLOCK * (1 + rng_below(&s->rng, 2)) : 512 * (1 + rng_below(&s->rng, 8 * (LONGEST - 1)));
	uint64_t n = vd_min((off + len - 1) / VD_BLOCK - v + 1, (uint64_t)STRETCH), end;
	int r;

	n = free_of_ours(s, v, n);
	while ((r = vd_write_begin(s->vol, off, len, &w->io)) == -EWOULDBLOCK && w->io.wait != WAIT_CLAIM)
		assert_int_equal(vd_io_wait(&w->io), 0);
	if (r == -EWOULDBLOCK) {
		assert_true(!n || s->cuts); /* it waits for somebody */
		s->claimed++;
		return;
	}
	if (r == -ERANGE && s->cuts)
		return;
	assert_int_equal(r, 0);
	if (w->io.kind != VD_RUN_NEW) {
		assert_int_equal(vd_write_end(&w->io, 0), 0);
		return;
	}
	assert_in_range(w->io.nblocks, 1, n);
	end = off + w->io.bytes;
	if (!(off % VD_BLOCK) && !(end % VD_BLOCK))
		assert_true(w->io.head.kind == VD_FILL_NONE && w->io.tail.kind == VD_FILL_NONE);
	w->v = v;
	w->n = w->io.nblocks;
	w->on = true;
	s->begun++;
}

static void write_end(struct scene *s, struct write *w)
{
	w->on = false;
	(void)vd_write_end(&w->io, rng_one_in(&s->rng, 5) ? -EIO : 0);
}

/* At any moment there is a leaf for each of them (I12), and no claim without its owner. */
static void look(struct scene *s)
{
	const struct vd_list *pos;
	unsigned writes = 0, cuts = 0;

	vd_write_lock(&s->vol->map);
	vd_spin_lock(&s->vol->claim_lock);
	for (unsigned i = 0; i < UNDER_WAY; i++)
		writes += s->write[i].on;
	vd_list_for_each(pos, &s->vol->cuts)
		cuts++;
	assert_int_equal(s->vol->nclaims, writes + cuts);
	assert_in_range(s->vol->nleaves, writes, UNDER_WAY + 2);
	assert_true(s->vol->nleaves ? s->vol->leaves != NULL : !s->vol->leaves);
	vd_spin_unlock(&s->vol->claim_lock);
	vd_write_unlock(&s->vol->map);
}

static void under_way(bool cuts)
{
	struct shape shape = { .nmembers = 2, .blocks = { 1u << 19, 1u << 19 }, .sector_size = 512, .journal_blocks = 4096,
			       .max_volumes = 20 };
	struct scene *s = calloc(1, sizeof(*s));
	struct world *w = world_new(&cli, cli.seed, &shape);
	uint32_t id = story_create(w, "v", BLOCKS);
	unsigned i, rounds = cuts ? 60000 : 200000;
	pthread_t t[2];

	s->vol = world_handle(w, id);
	s->rng = rng_seeded(cli.seed);
	s->cuts = cuts;
	if (cuts) {
		pthread_create(&t[0], NULL, unmapper, s);
		pthread_create(&t[1], NULL, resizer, s);
	}
	for (i = 0; i < rounds; i++) {
		struct write *one = &s->write[rng_below(&s->rng, UNDER_WAY)];

		if (one->on)
			write_end(s, one);
		else
			write_begin(s, one);
		if (i % 64 == 0)
			look(s);
		if (i % 2000 != 1999)
			continue;
		for (one = s->write; one < s->write + UNDER_WAY; one++)
			if (one->on)
				write_end(s, one);
		assert_int_equal(vd_unmap(s->vol, 0, (uint64_t)(BLOCKS - SPARE - LONGEST) * VD_BLOCK), 0);
		assert_true(vd_pool_work(w->pool) >= 0);
		assert_int_equal(vd_checkpoint(w->pool), 0);
	}
	for (i = 0; i < UNDER_WAY; i++)
		if (s->write[i].on)
			write_end(s, &s->write[i]);
	__atomic_store_n(&s->over, true, __ATOMIC_RELAXED);
	for (i = 0; cuts && i < 2; i++)
		pthread_join(t[i], NULL);
	assert_in_range(s->begun, rounds / 20, rounds);
	assert_in_range(s->claimed, rounds / 20, rounds);
	world_check(w);
	world_close(w);
	world_free(w);
	free(s);
}

static void writes_keep_out_of_each_other(void **state)
{
	(void)state;
	under_way(false);
}

static void and_of_what_is_unmapped_and_cut_off(void **state)
{
	(void)state;
	under_way(true);
}

/* What is left of a run that is cut down has no end that is partly written. */
static void a_run_cut_short_has_no_tail(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
	struct vd_volume *vol = world_handle(w, id);
	struct vd_io one, two;

	(void)state;
	while (vd_write_begin(vol, VD_BLOCK, VD_BLOCK, &one))
		assert_int_equal(vd_io_wait(&one), 0);
	while (vd_write_begin(vol, 0, VD_BLOCK + 512, &two)) {
		assert_int_not_equal(two.wait, WAIT_CLAIM);
		assert_int_equal(vd_io_wait(&two), 0);
	}
	assert_int_equal(two.bytes, VD_BLOCK);
	assert_true(two.head.kind == VD_FILL_NONE && two.tail.kind == VD_FILL_NONE);
	(void)vd_write_end(&two, -EIO);
	(void)vd_write_end(&one, -EIO);
	story_end(w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_cut_short_has_no_tail),
		cmocka_unit_test(writes_keep_out_of_each_other),
		cmocka_unit_test(and_of_what_is_unmapped_and_cut_off),
	};

	cli_start(&cli, argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
