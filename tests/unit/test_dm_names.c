// SPDX-License-Identifier: LGPL-2.1-or-later
/* Names of devices in the kernel (dm.c), which needs no kernel that has any. */
#include "volrig.h"

#include "../../libvol/dm.h"

static void expect_path(const char *pool, const char *volume, const char *want)
{
	char path[DM_PATH];

	assert_int_equal(vol_dm_volume_path(pool, volume, path), 0);
	assert_string_equal(path, want);
}

static void hyphens_are_doubled_so_that_no_two_volumes_have_one_name(void **state)
{
	(void)state;
	expect_path("p", "v", "/dev/mapper/p-v");
	expect_path("a-b", "c", "/dev/mapper/a--b-c");
	expect_path("a", "b-c", "/dev/mapper/a-b--c");
	expect_path("a-", "b", "/dev/mapper/a---b");
	expect_path("p", "v@2026-11-21T10:15:30Z", "/dev/mapper/p-v@2026--11--21T10:15:30Z");
}

static void a_name_that_no_open_pointer_could_hold_is_refused(void **state)
{
	char pool[64], volume[64], longest[128], path[DM_PATH];

	(void)state;
	memset(pool, 'p', sizeof(pool));
	memset(volume, 'v', sizeof(volume));
	pool[57] = 0;
	volume[57] = 0; /* "/dev/mapper/" p*57 - v*57 and the NUL: 128 */
	assert_int_equal(vol_dm_volume_path(pool, volume, path), 0);
	assert_int_equal(strlen(path), DM_PATH - 1);
	pool[57] = 'p';
	pool[58] = 0;
	assert_int_equal(vol_dm_volume_path(pool, volume, path), -ENAMETOOLONG);
	assert_non_null(strstr(vol_error(NULL), "names together are longer"));
	/* A pool's name that leaves room for the hyphen alone */
	memset(longest, 'p', sizeof(longest));
	longest[114] = 0;
	assert_int_equal(vol_dm_volume_path(longest, "v", path), -ENAMETOOLONG);
	assert_int_equal(vol_dm_pool_name(longest, path), -ENAMETOOLONG);
	longest[108] = 0; /* "vd-" p*107 "-pool": 115 */
	assert_int_equal(vol_dm_pool_name(longest, path), -ENAMETOOLONG);
	longest[107] = 0;
	assert_int_equal(vol_dm_pool_name(longest, path), 0);
	assert_int_equal(strlen(path), 115);
	memset(volume, '-', 40); /* two each */
	assert_int_equal(vol_dm_volume_path("p", volume, path), 0);
	assert_int_equal(strlen(path), strlen("/dev/mapper/p-") + 80 + 17);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(hyphens_are_doubled_so_that_no_two_volumes_have_one_name),
		cmocka_unit_test(a_name_that_no_open_pointer_could_hold_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
