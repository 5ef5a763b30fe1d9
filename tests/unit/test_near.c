// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* `near` of a look-up in an overlay: told void when its leaf goes, and no further off than the index is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "../../dm-target/core/overlay.c"

static const void *freed;

static void *host_alloc(void *ctx, size_t size, int how) { (void)ctx, (void)how; return malloc(size); }
static void host_free(void *ctx, void *p) { (void)ctx; freed = p; free(p); }
static const struct vd_host host = { .alloc = host_alloc, .free = host_free };

static void lay(struct vd_ov *ov, uint64_t v, uint64_t len, enum vd_ext_kind kind, struct vd_ov_leaf *near)
{
	struct vd_ov_leaf *spare = vd_ov_leaf_new(ov->host, VD_ALLOC_WAIT);
	struct vd_ext e = { .v = v, .len = len, .p = 16 + 3 * v, .birth = 1, .kind = kind, .near = near };

	vd_ov_insert(ov, &e, 0, &spare, NULL, NULL);
	vd_ov_leaf_free(ov->host, spare);
}

static void a_leaf_that_goes_is_told(void **state)
{
	struct vd_ov ov, to;
	struct vd_ext e;
	uint64_t gone;

	(void)state;
	assert_int_equal(vd_ov_init(&ov, &host), 0);
	for (uint64_t v = 0; v < 400; v += 2)
		lay(&ov, v, 1, VD_DATA, NULL);
	assert_true(vd_ov_find(&ov, 200, &e));
	assert_ptr_not_equal(e.near, ov.head);
	gone = ov.gone;
	lay(&ov, 201, 1, VD_DATA, e.near); /* none goes */
	assert_int_equal(ov.gone, gone);
	lay(&ov, 0, 400, VD_HOLE, NULL);
	assert_int_not_equal(ov.gone, gone);
	gone = ov.gone;
	assert_int_equal(vd_ov_init(&to, &host), 0);
	vd_ov_move(&to, &ov);
	assert_int_not_equal(ov.gone, gone);
	vd_ov_fini(&to);
	vd_ov_fini(&ov);
}

static double seconds(struct vd_ov *ov, struct vd_ov_leaf *near, uint64_t v)
{
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	lay(ov, v, 1, VD_DATA, near);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
}

/* A request that takes long; meanwhile others fill the overlay. */
static void a_place_is_found_soon_though_much_has_come_between(void **state)
{
	struct vd_ov ov;
	struct vd_ext e;
	double far, plain;

	(void)state;
	assert_int_equal(vd_ov_init(&ov, &host), 0);
	assert_false(vd_ov_find(&ov, 4000001, &e));
	for (uint64_t i = 0; i < 500000; i++)
		lay(&ov, i * 7919 % 500000 * 8, 1, VD_DATA, NULL);
	plain = far = 1;
	for (unsigned i = 0; i < 5; i++) { /* the best of some: others want the CPU too */
		double t = seconds(&ov, NULL, 3999901 + 2 * i);

		plain = vd_min(plain, t);
		t = seconds(&ov, e.near, 4000003 + 2 * i);
		far = vd_min(far, t);
	}
	printf("# by the index %.1f us, from near %.1f us\n", plain * 1e6, far * 1e6);
	assert_true(far < plain * 20 + 50e-6);
	vd_ov_fini(&ov);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_leaf_that_goes_is_told),
		cmocka_unit_test(a_place_is_found_soon_though_much_has_come_between),
	};

	(void)freed;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
