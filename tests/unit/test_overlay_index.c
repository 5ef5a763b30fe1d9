// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * How far an overlay's searches walk (O2 of overlay.c).  Nothing outside tells a long walk
 * from a short one but time: so the file is looked at from within.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "../../dm-target/core/overlay.c"

static void *host_alloc(void *ctx, size_t size, int how)
{
	(void)ctx, (void)how;
	return malloc(size);
}

static void host_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

static const struct vd_host host = { .alloc = host_alloc, .free = host_free };

static void lay(struct vd_ov *ov, uint64_t v, uint64_t len, enum vd_ext_kind kind)
{
	static uint64_t p = 7;
	struct vd_ov_leaf *spare = vd_ov_leaf_new(&host, VD_ALLOC_WAIT);
	struct vd_ext e = { .v = v, .len = len, .p = p, .birth = 1, .kind = kind };

	p += len + 5; /* nothing joins */
	vd_ov_insert(ov, &e, 0, &spare, NULL, NULL);
	vd_ov_leaf_free(&host, spare);
}

/* Steps from the leaf that the index names to the one that has v. */
static unsigned steps(const struct vd_ov *ov, vd_vblk_t v)
{
	struct vd_ov_leaf *leaf = leaf_near(ov, v), *a, *b;
	struct place pl;
	unsigned n = 0;

	place_find(leaf, v, &pl);
	for (a = b = leaf; a != pl.leaf && b != pl.leaf; n++) {
		a = a && a->next ? a->next : a;
		b = b && b->prev ? b->prev : b;
	}
	return n;
}

static void assert_short_walks(const struct vd_ov *ov)
{
	const struct vd_ov_leaf *leaf, *last = NULL;

	for (leaf = ov->head->next; leaf; last = leaf, leaf = leaf->next) {
		assert_true(leaf->indexed);
		if (last)
			assert_true(last->key < leaf->key);
		for (unsigned i = 0; i < leaf->n; i++)
			assert_in_range(steps(ov, leaf->v[i] + 1), 0, 1);
	}
}

static int setup(void **state)
{
	struct vd_ov *ov = malloc(sizeof(*ov));

	*state = ov;
	return vd_ov_init(ov, &host);
}

static int teardown(void **state)
{
	vd_ov_fini(*state);
	free(*state);
	return 0;
}

/* A leaf is entered by what lies far behind, and splits when the space before it fills. */
static void a_leaf_that_grows_to_the_front(void **state)
{
	struct vd_ov *ov = *state;
	uint64_t far = 1ull << 30, x = 12345;

	for (unsigned i = 0; i < SLOTS; i++)
		lay(ov, 2 * i, 1, VD_DATA);
	lay(ov, far, 1, VD_DATA);
	for (unsigned i = 0; i < 20000; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		lay(ov, 100 + (x >> 32) % (far - 200), 1, VD_DATA);
	}
	assert_short_walks(ov);
	for (unsigned i = 0; i < 3000; i++)
		lay(ov, far - 10 - 3 * i, 1, VD_DATA);
	assert_short_walks(ov);
}

/* Leaves lose what they began with, and others come into the gaps. */
static void leaves_that_lose_their_front(void **state)
{
	struct vd_ov *ov = *state;

	for (unsigned i = 0; i < 20 * SLOTS; i++)
		lay(ov, 50000ull * i, 50000, VD_DATA);
	for (unsigned i = 0; i < 20 * SLOTS; i += SLOTS)
		lay(ov, 50000ull * i, 40000, VD_HOLE);
	for (unsigned i = 0; i < 20 * SLOTS; i += SLOTS)
		for (unsigned k = 0; k < 3000; k++)
			lay(ov, 50000ull * i + 1 + 13 * ((k * 1031) % 3000), 1, VD_DATA);
	assert_short_walks(ov);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_leaf_that_grows_to_the_front),
		T(leaves_that_lose_their_front),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
