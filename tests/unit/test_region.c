// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The table of regions: what was changed is not found as it was, whoever else is at its entry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "volume.h"

static struct vd_pool pool;
static struct vd_volume a, b;
static bool stop;

static void begin(void)
{
	free(pool.regions);
	pool.regions = calloc(1, sizeof(*pool.regions) + 256 * sizeof(struct vd_region));
	assert_non_null(pool.regions);
	pool.regions->mask = 255;
	a.pool = b.pool = &pool;
	a.wide = b.wide = false;
	vd_regions_forget(&a);
	vd_regions_forget(&b);
}

static void tell(struct vd_volume *vol, vd_vblk_t v, uint64_t len, vd_pblk_t p)
{
	vd_regions_changed(vol, &(struct vd_ext){ .v = v, .len = len, .p = p, .birth = 1, .kind = p ? VD_DATA : VD_HOLE });
}

static bool found(const struct vd_volume *vol, vd_vblk_t v, uint64_t n, unsigned shift, bool own, vd_pblk_t *p)
{
	return vd_region_find(pool.regions, vol->stamp, v, n, shift, own, p);
}

/* A block of b whose region has the entry that a's block 0 has. */
static vd_vblk_t beside(void)
{
	vd_vblk_t v = 0;

	while (vd_region_of(pool.regions, a.stamp, 0) != vd_region_of(pool.regions, b.stamp, v / VD_REGION_BITS << 1))
		v += VD_REGION_BITS;
	return v;
}

/* M2, M6: what was born before the last snapshot, or may be claimed, is read there only. */
static void only_the_volumes_own_is_found_for_writing(void **state)
{
	struct vd_ext old = { .v = 5, .len = 3, .p = 100, .birth = 4, .kind = VD_DATA };
	vd_pblk_t p;

	(void)state;
	begin();
	a.last_snapshot = 4;
	vd_regions_found(&a, &old);
	assert_true(found(&a, 5, 3, 0, false, &p));
	assert_int_equal(p, 100);
	assert_false(found(&a, 5, 1, 0, true, &p));
	a.last_snapshot = 0;
	a.mixed = true;
	vd_regions_found(&a, &old);
	assert_false(found(&a, 5, 1, 0, true, &p));
	a.mixed = false;
	vd_regions_found(&a, &old);
	assert_true(found(&a, 5, 3, 0, true, &p));
	assert_false(found(&a, 4, 1, 0, false, &p));
	assert_false(found(&a, 5, 4, 0, false, &p));
	vd_regions_forget(&a);
	assert_false(found(&a, 5, 1, 0, false, &p));
}

/* A small first write costs no more than it must: who comes again has it looked up. */
static void a_part_is_told_of_only_where_something_is_known(void **state)
{
	vd_pblk_t p;

	(void)state;
	begin();
	tell(&a, 3, 1, 103);
	assert_false(found(&a, 3, 1, 0, false, &p));
	vd_regions_found(&a, &(struct vd_ext){ .v = 3, .len = 1, .p = 103, .birth = 1, .kind = VD_DATA });
	tell(&a, 4, 2, 104);
	assert_true(found(&a, 3, 3, 0, true, &p));
	assert_int_equal(p, 103);
	tell(&a, 4, 1, 900); /* elsewhere: in place of what was there */
	assert_true(found(&a, 4, 1, 0, true, &p));
	assert_int_equal(p, 900);
	assert_false(found(&a, 5, 1, 0, true, &p));
	tell(&a, VD_REGION_BITS + 5, VD_REGION_BITS, 2000); /* a large one, of its ends too */
	assert_true(found(&a, VD_REGION_BITS + 5, 11, 0, true, &p));
	assert_true(found(&a, 2 * VD_REGION_BITS, 5, 0, true, &p));
	assert_int_equal(p, 2011);
}

static void *unmap_main(void *arg)
{
	vd_vblk_t v = *(vd_vblk_t *)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		tell(&b, v, 1, 0);
	return NULL;
}

/* G3: each volume's changes are one after the other, as under its vol->map. */
static void what_was_unmapped_is_not_found_beside_another_volume_at_the_entry(void **state)
{
	vd_vblk_t v;
	unsigned stale = 0;
	vd_pblk_t p;
	pthread_t t;

	(void)state;
	begin();
	v = beside();
	assert_int_equal(pthread_create(&t, NULL, unmap_main, &v), 0);
	for (unsigned i = 0; i < 3000000 && !stale; i++) {
		tell(&a, 0, VD_REGION_BITS, 1000 + i % 2);
		tell(&a, 0, 1, 0);
		stale += found(&a, 0, 1, 0, true, &p);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_int_equal(stale, 0);
}

static void *both_main(void *arg)
{
	vd_vblk_t v = *(vd_vblk_t *)arg;

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		tell(&a, 0, VD_REGION_BITS, 1000);
		tell(&b, v, VD_REGION_BITS, 5000);
	}
	return NULL;
}

/* Nothing is put together of two that follow each other at an entry. */
static void what_is_found_is_of_one_moment(void **state)
{
	unsigned long other = 0, hits = 0;
	vd_vblk_t v;
	vd_pblk_t p;
	pthread_t t;

	(void)state;
	begin();
	v = beside();
	__atomic_store_n(&stop, false, __ATOMIC_RELAXED);
	assert_int_equal(pthread_create(&t, NULL, both_main, &v), 0);
	/* The other thread may be long in coming. */
	for (unsigned i = 0; i < 20000000 || hits < 1000; i++)
		if (found(&a, 0, 1, 0, true, &p)) {
			hits++;
			other += p != 1000;
		}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	assert_int_equal(other, 0);
}

/* Each block by itself, against a plain array: narrow and wide, before and after changes. */
static void what_is_found_is_what_was_told(void **state)
{
	enum { N = 4096 };
	static vd_pblk_t at[N];
	uint64_t rnd = 88172645463325252ull, hits = 0, wide = 0;

	(void)state;
	begin();
	memset(at, 0, sizeof(at));
	for (unsigned step = 0; step < 200000; step++) {
		vd_vblk_t v, first, end;
		uint64_t len;
		vd_pblk_t p;

		rnd ^= rnd << 13, rnd ^= rnd >> 7, rnd ^= rnd << 17;
		v = rnd % N;
		len = 1 + (rnd >> 20) % (rnd >> 40 & 7 ? 40 : 1500);
		len = vd_min(len, N - v);
		if (rnd >> 50 & 1) { /* a change */
			p = rnd >> 51 & 3 ? 5 + (rnd >> 30) % 100000 : 0;
			if (len > 1024 && p)
				len = 256;
			if (p && !(rnd >> 53 & 3))
				p = v + 1; /* that joins */
			for (uint64_t i = 0; i < len; i++)
				at[v + i] = p ? p + i : 0;
			tell(&a, v, len, p);
		} else if (at[v]) { /* a look-up */
			for (first = v; first && at[first - 1] && at[first - 1] + 1 == at[first];)
				first--;
			for (end = v + 1; end < N && at[end] == at[end - 1] + 1;)
				end++;
			vd_regions_found(&a, &(struct vd_ext){ .v = v, .len = end - v, .back = v - first, .p = at[v], .birth = 1, .kind = VD_DATA });
		}
		for (unsigned k = 0; k < 8; k++) {
			vd_vblk_t x = (v + k * (len + 7) / 8) % N;
			uint64_t n = vd_min((uint64_t)(1 + (rnd >> (8 * k) & 31)), N - x);

			for (unsigned shift = 0; shift <= VD_WIDE_SHIFT; shift += VD_WIDE_SHIFT)
				for (unsigned own = 0; own < 2; own++)
					if (found(&a, x, n, shift, own, &p)) {
						hits++;
						wide += shift != 0;
						for (uint64_t i = 0; i < n; i++)
							if (at[x + i] != p + i)
								fail_msg("step %u: block %llu", step, (unsigned long long)(x + i));
					}
		}
	}
	assert_true(hits > 10000);
	assert_true(wide > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_unmapped_is_not_found_beside_another_volume_at_the_entry),
		cmocka_unit_test(only_the_volumes_own_is_found_for_writing),
		cmocka_unit_test(a_part_is_told_of_only_where_something_is_known),
		cmocka_unit_test(what_is_found_is_of_one_moment),
		cmocka_unit_test(what_is_found_is_what_was_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
