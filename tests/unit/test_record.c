// SPDX-License-Identifier: LGPL-2.1-or-later
/* A volume's record as the kernel tells it (change.c, dm-target/message.c), taken apart. */
#include "volrig.h"

#include "../../libvol/change.h"

#define ID1 "00112233-4455-6677-8899-aabbccddeeff"

static struct vd_volume_info got;
static uint32_t mode;
static uint64_t epoch;

static int take(const char *text)
{
	char *copy = strdup(text);
	int r = change_take_record(copy, &got, &mode, &epoch);

	free(copy);
	return r;
}

static void all_that_is_told_is_taken(void **state)
{
	(void)state;
	assert_int_equal(take("pool mode=1 epoch=17\n"
			      "volume id=3 flags=35 uuid=" ID1 " size=65536 mapped=2 reserved=9 unused=7 origin=1 family=5 last_snapshot=11 created=12"
			      " name=a@b base=/a\\ b\\\\c attrs=k=v\\ w\\\nl=\\\n\n"
			      "lock host=" ID1 " boot=" ID1 " pid=77 since=88 hostname=h purpose=vd\\ x\n"
			      "pointer link=4 mode=1 epoch=16 host=" ID1 " boot=" ID1 " pid=1 since=2 hostname= purpose=p opened_as=/dev/x mount=/m\\\nn server=local\n"
			      "pointer link=5 mode=0 mount="), 0);
	assert_int_equal(mode, 1);
	assert_int_equal(epoch, 17);
	assert_int_equal(got.id, 3);
	assert_int_equal(got.flags, VD_VOL_READONLY | VD_VOL_LOCKED | VD_VOL_BASE);
	assert_int_equal(got.uuid[15], 0xff);
	assert_int_equal(got.size, 65536);
	assert_int_equal(got.mapped, 2);
	assert_int_equal(got.reserved, 9);
	assert_int_equal(got.unused, 7);
	assert_int_equal(got.origin, 1);
	assert_int_equal(got.family, 5);
	assert_int_equal(got.last_snapshot, 11);
	assert_int_equal(got.created, 12);
	assert_string_equal(got.name, "a@b");
	assert_string_equal(got.base, "/a b\\c");
	assert_string_equal(got.attrs, "k=v w\nl=\n");
	assert_int_equal(le64_to_cpu(got.lock.pid), 77);
	assert_int_equal(le64_to_cpu(got.lock.since), 88);
	assert_string_equal(got.lock.purpose, "vd x");
	assert_int_equal(got.npointers, 2);
	assert_int_equal(le32_to_cpu(got.pointer[0].link), 4);
	assert_int_equal(le32_to_cpu(got.pointer[0].mode), 1);
	assert_int_equal(le64_to_cpu(got.pointer[0].epoch), 16);
	assert_int_equal(got.pointer[0].who.boot[1], 0x11);
	assert_string_equal(got.pointer[0].opened_as, "/dev/x");
	assert_string_equal(got.pointer[0].mount, "/m\nn");
	assert_string_equal(got.pointer[0].server, "local");
	assert_int_equal(le32_to_cpu(got.pointer[1].link), 5);
	assert_string_equal(got.pointer[1].mount, "");
}

static void what_a_later_module_tells_is_passed_over_and_a_volume_that_there_is_not_is_none(void **state)
{
	(void)state;
	assert_int_equal(take("pool mode=0 epoch=1 colour=red\nvolume id=1 taste=a\\ b name=x"), 0);
	assert_string_equal(got.name, "x");
	assert_int_equal(take("pool mode=0 epoch=2"), -ENOENT);
	assert_int_equal(epoch, 2);
}

static void nonsense_is_refused(void **state)
{
	char text[VD_NAME_MAX + 64];

	(void)state;
	assert_int_equal(take("pool\n\nvolume id=1"), -EPROTO);
	assert_int_equal(take("nonsense"), -EPROTO);
	assert_int_equal(take("volume id"), -EPROTO);
	assert_int_equal(take("volume id=x"), -EPROTO);
	assert_int_equal(take("volume id=1x"), -EPROTO);
	assert_int_equal(take("volume uuid=1"), -EPROTO);
	assert_int_equal(take("volume\npointer\npointer\npointer\npointer\npointer"), -EPROTO);
	assert_int_equal(take("volume id=1\\"), -EPROTO); /* the backslash is a character of it */
	/* as long as it can be, and longer */
	snprintf(text, sizeof(text), "volume name=%0*d", (int)VD_NAME_MAX, 0);
	assert_int_equal(take(text), 0);
	snprintf(text, sizeof(text), "volume name=%0*d", (int)VD_NAME_MAX + 1, 0);
	assert_int_equal(take(text), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_that_is_told_is_taken),
		cmocka_unit_test(what_a_later_module_tells_is_passed_over_and_a_volume_that_there_is_not_is_none),
		cmocka_unit_test(nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
