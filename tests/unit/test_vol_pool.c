// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Making, finding and opening pools (create.c, find.c, open.c), and whose they
 * are: what the commands rely on.
 */
#include "volrig.h"
#include "host.h"

#include <signal.h>
#include <sys/wait.h>

static int create(const char *name, const char *file, uint64_t size, bool force)
{
	const char *path = rig_path(file);
	struct vol_pool_spec spec = { .name = name, .path = &path, .npaths = 1, .file_size = size, .force = force };
	uint8_t uuid[16];

	return vol_pool_create(&spec, uuid);
}

static int try_open(const char *name, unsigned flags)
{
	struct vol_pool *pool;
	int r = vol_pool_open(name, flags | VOL_NO_WAIT, &pool);

	if (!r)
		rig_close(pool);
	return r;
}

static void says(const char *text)
{
	if (!strstr(vol_error(NULL), text))
		fail_msg("\"%s\" does not say \"%s\"", vol_error(NULL), text);
}

static void devices(const char *fmt, const char *path)
{
	FILE *f = fopen(rig_path("etc/devices"), "a");

	assert_non_null(f);
	fprintf(f, fmt, path);
	fclose(f);
}

/* A copy of some blocks of a file. */
static void copy(const char *from, const char *to, off_t start, size_t len)
{
	int in = open(rig_path(from), O_RDONLY), out = open(rig_path(to), O_RDWR | O_CREAT, 0600);
	char *buf = malloc(len);

	assert_true(in >= 0 && out >= 0);
	assert_int_equal(pread(in, buf, len, start), len);
	assert_int_equal(pwrite(out, buf, len, start), len);
	free(buf);
	close(in);
	close(out);
}

static void names_and_sizes_are_read_as_lvm_reads_them(void **state)
{
	static const struct { const char *text; uint64_t bytes; int r; } sizes[] = {
		{ "10", 10ull << 20, 0 }, { "1k", 1024, 0 }, { "1K", 1024, 0 }, { "3s", 1536, 0 }, { "7b", 7, 0 }, { "1.5g", 3ull << 29, 0 },
		{ "2t", 2ull << 40, 0 }, { "1P", 1ull << 50, 0 }, { "8e", 1ull << 63, 0 }, { "4KiB", 4096, 0 }, { "4kb", 4096, 0 },
		{ "8.1e", 0, -ERANGE }, { "99999999999999999999999999", 0, -ERANGE }, { "", 0, -EINVAL }, { "k", 0, -EINVAL },
		{ "1x", 0, -EINVAL }, { "1kk", 0, -EINVAL }, { "-1", 0, -EINVAL }, { "1 k", 0, -EINVAL }, { "0x10", 0, -EINVAL },
	};
	static const struct { uint64_t bytes; char unit; const char *text; } shown[] = {
		{ 0, 'h', "0" }, { 1023, 'h', "1023b" }, { 1024, 'h', "1.00k" }, { 10ull << 30, 'h', "10.00g" }, { 1000000, 'H', "1.00M" },
		{ 1536, 's', "3s" }, { 1536, 'b', "1536b" }, { 1u << 20, 'k', "1024.00k" }, { 1000, 'K', "1.00K" }, { (1u << 20) - 1, 'r', "<1024.00k" },
		{ 1ull << 63, 'e', "8.00e" }, { UINT64_MAX, 'b', "18446744073709551615b" },
	};
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE], buf[32], sign, longest[VOL_NAME_SIZE + 1];
	uint64_t bytes;

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int r = vol_parse_size(sizes[i].text, &bytes, NULL);
		if (r != sizes[i].r || (!r && bytes != sizes[i].bytes))
			fail_msg("\"%s\" is read as %d, %llu", sizes[i].text, r, (unsigned long long)bytes);
	}
	assert_int_equal(vol_parse_size("+5m", &bytes, &sign), 0);
	assert_int_equal(sign, '+');
	for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++) {
		vol_format_size(shown[i].bytes, shown[i].unit, true, buf, sizeof(buf));
		assert_string_equal(buf, shown[i].text);
	}
	assert_int_equal(vol_parse_object("p/v@2026-11-21T10:15:30Z", pool, volume), 0);
	assert_string_equal(volume, "v@2026-11-21T10:15:30Z");
	assert_int_equal(vol_parse_object("/dev/vdisk/p/v", pool, volume), 0);
	assert_string_equal(pool, "p");
	assert_int_equal(vol_parse_object("p", pool, volume), 0);
	assert_string_equal(volume, "");
	static const char *const wrong[] = { "", "/", "p/", "/v", "p/v/w", "/dev/sda", "-p", "p/-v", ".", "p/..", "p q", "p@x", "p/\xc3\xa4" };
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		if (vol_parse_object(wrong[i], pool, volume) != -EINVAL)
			fail_msg("\"%s\" is taken", wrong[i]);
	memset(longest, 'x', VOL_NAME_SIZE);
	longest[VOL_NAME_SIZE] = 0;
	assert_int_equal(vol_check_volume_name(longest), -EINVAL);
	assert_int_equal(vol_check_volume_name(longest + 1), 0);
}

static void what_is_on_a_member_is_named_and_kept(void **state)
{
	char text[] = "this is a letter to somebody\n", back[sizeof(text)];
	int fd;

	(void)state;
	rig_file("f", 64u << 20, NULL);
	fd = open(rig_path("f"), O_RDWR);
	assert_int_equal(pwrite(fd, text, sizeof(text), 0), sizeof(text));
	assert_int_equal(create("p", "f", 0, false), -ENOTEMPTY);
	assert_int_equal(pread(fd, back, sizeof(text), 0), sizeof(text));
	assert_memory_equal(text, back, sizeof(text));
	assert_int_equal(create("p", "f", 0, true), 0);
	assert_int_equal(create("q", "f", 0, false), -ENOTEMPTY);
	says("member 0 of vd pool p");
	close(fd);
}

static void a_file_that_was_made_in_vain_is_removed(void **state)
{
	const char *paths[2] = { rig_path("new"), rig_path("none/there") };
	struct vol_pool_spec spec = { .name = "p", .path = paths, .npaths = 2, .file_size = 64u << 20 };
	uint8_t uuid[16];

	(void)state;
	assert_int_equal(vol_pool_create(&spec, uuid), -ENOENT);
	assert_int_not_equal(access(rig_path("new"), F_OK), 0);
	assert_int_equal(create("p", "new", 1u << 20, false), -ENOSPC);
	says("8 MiB");
	assert_int_not_equal(access(rig_path("new"), F_OK), 0);
	spec.test = true;
	spec.npaths = 1;
	assert_int_equal(vol_pool_create(&spec, uuid), 0);
	assert_int_not_equal(access(rig_path("new"), F_OK), 0);
}

static void two_pools_of_one_name_are_told_apart_by_uuid(void **state)
{
	char uuid[VOL_UUID_TEXT];
	struct vol_found *found;
	size_t n;

	(void)state;
	assert_int_equal(create("p", "a", 64u << 20, false), 0);
	assert_int_equal(create("p", "b", 64u << 20, false), -EEXIST);
	assert_int_equal(rename(rig_path("etc"), rig_path("etc1")), 0);
	assert_int_equal(create("p", "b", 64u << 20, false), 0);
	devices("%s\n", rig_path("a"));
	assert_int_equal(try_open("p", 0), -ENOTUNIQ);
	assert_int_equal(vol_find_members(&found, &n), 0);
	assert_int_equal(n, 2);
	vol_uuid_text(found[1].pool, uuid);
	vol_found_free(found, n);
	assert_int_equal(try_open("p", 0), -ENOTUNIQ);
	says(uuid);
	assert_int_equal(try_open(uuid, 0), 0);
}

static void a_copy_of_a_member_is_not_taken_for_it(void **state)
{
	(void)state;
	rig_pool("p", 1, 64u << 20);
	copy("p0.img", "copy", 0, 16 * 4096);
	devices("%s\n", rig_path("copy"));
	assert_int_equal(try_open("p", 0), -ENOTUNIQ);
	says("found twice");
}

static void an_interrupted_addition_is_no_obstacle(void **state)
{
	struct vol_pool *pool;

	(void)state;
	rig_pool("p", 2, 64u << 20);
	/* what is left: the label of a third member, which the pool knows nothing of */
	pool = rig_open("p", 0);
	for (unsigned m = 0; m < 2; m++)
		copy(m ? "p1.img" : "p0.img", m ? "p1.old" : "p0.old", 0, 64u << 20);
	assert_int_equal(rig_call(pool, NULL, "{'op':'pool-add','path':'%s','size':67108864}", rig_path("third")), 0);
	rig_close(pool);
	for (unsigned m = 0; m < 2; m++)
		assert_int_equal(rename(rig_path(m ? "p1.old" : "p0.old"), rig_path(m ? "p1.img" : "p0.img")), 0);
	int fd = open(rig_path("third"), O_RDWR);
	char *zeros = calloc(15, 4096);
	assert_int_equal(pwrite(fd, zeros, 15 * 4096, 4096), 15 * 4096);
	free(zeros);
	close(fd);
	/* another is added in its place, and the two claim one number */
	pool = rig_open("p", 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'pool-add','path':'%s','size':67108864}", rig_path("fourth")), 0);
	rig_close(pool);
	pool = rig_open("p", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':4096}");
	rig_close(pool);
}

static void a_pool_without_a_member_is_read_and_not_changed(void **state)
{
	struct vol_pool *pool;
	struct json_object *a;

	(void)state;
	rig_pool("p", 2, 64u << 20);
	pool = rig_open("p", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':4096}");
	rig_close(pool);
	assert_int_equal(rename(rig_path("p1.img"), rig_path("away")), 0);
	assert_int_equal(try_open("p", 0), -EROFS);
	says("number 1");
	pool = rig_open("p", VOL_READONLY);
	assert_int_equal(rig_call(pool, &a, "{'op':'list'}"), 0);
	assert_int_equal(json_u64(a, "volumes"), 1);
	json_object_put(a);
	assert_int_equal(rig_call(pool, &a, "{'op':'pool-info'}"), 0);
	assert_int_equal(json_u64(a, "members_missing"), 1);
	assert_string_equal(json_str(a, "mode"), "read-only");
	json_object_put(a);
	assert_int_equal(rig_call(pool, NULL, "{'op':'create','volume':'w','size':4096}"), -EROFS);
	assert_int_equal(rig_call(pool, NULL, "{'op':'remove','volume':'v'}"), -EROFS);
	rig_close(pool);
	assert_int_equal(rename(rig_path("away"), rig_path("p1.img")), 0);
	assert_int_equal(try_open("p", 0), 0);
}

/* A process that opens the pool, makes a request and stays until it is killed. */
static pid_t holder(const char *request)
{
	int ready[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (!pid) {
		struct vol_pool *pool;
		struct json_object *q = json_tokener_parse(request);
		if (vol_pool_open("p", 0, &pool) || vol_call(pool, q, NULL, NULL, NULL) || write(ready[1], "x", 1) != 1)
			_exit(1);
		json_object_put(q);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return pid;
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_pool_has_one_owner_and_its_process_is_named(void **state)
{
	char text[64];
	pid_t pid;

	(void)state;
	rig_pool("p", 1, 64u << 20);
	pid = holder("{\"op\":\"checkpoint\"}");
	assert_int_equal(try_open("p", 0), -EBUSY);
	snprintf(text, sizeof(text), "process %d ", (int)pid);
	says(text);
	struct vol_pool *pool = rig_open("p", VOL_READONLY); /* beside it, after a while */
	rig_close(pool);
	end(pid);
	assert_int_equal(try_open("p", 0), 0);
}

static void readers_do_not_keep_each_other_out(void **state)
{
	struct vol_pool *pool;

	(void)state;
	rig_pool("p", 1, 64u << 20);
	pool = rig_open("p", VOL_READONLY);
	assert_int_equal(try_open("p", VOL_READONLY), 0);
	assert_int_equal(try_open("p", 0), -EBUSY);
	rig_close(pool);
}

static void the_lock_of_a_dead_process_is_broken_with_a_warning(void **state)
{
	struct vol_pool *pool;
	struct json_object *a, *warnings;

	(void)state;
	rig_pool("p", 1, 64u << 20);
	end(holder("{\"op\":\"create\",\"volume\":\"v\",\"size\":4096,\"locked\":true}"));
	pool = rig_open("p", 0);
	assert_int_equal(rig_call(pool, &a, "{'op':'rename','volume':'v','to':'w'}"), 0);
	assert_true(json_get(a, "warnings", json_type_array, &warnings));
	json_object_put(a);
	rig_close(pool);
}

static void the_lock_of_another_host_stays(void **state)
{
	struct vol_pool *pool;

	(void)state;
	rig_pool("p", 1, 64u << 20);
	pool = rig_open("p", 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'create','volume':'v','size':4096,'locked':true,'holder':{"
				  "'host':'11111111-1111-1111-1111-111111111111','boot':'22222222-2222-2222-2222-222222222222',"
				  "'hostname':'elsewhere','purpose':'vdcreate','pid':1,'since':0}}"), 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'remove','volume':'v'}"), -EACCES);
	assert_non_null(strstr(vol_error(pool), "elsewhere"));
	assert_int_equal(rig_call(pool, NULL, "{'op':'unlock','volume':'v'}"), -EACCES);
	assert_int_equal(rig_call(pool, NULL, "{'op':'unlock','volume':'v','force':true}"), 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'remove','volume':'v'}"), 0);
	rig_close(pool);
}

static void a_pool_that_another_host_left_in_use_must_be_taken_over(void **state)
{
	(void)state;
	rig_pool("p", 1, 64u << 20);
	setenv("VD_MACHINE_ID", "11111111-1111-1111-1111-111111111111", 1);
	end(holder("{\"op\":\"checkpoint\"}"));
	unsetenv("VD_MACHINE_ID");
	assert_int_equal(try_open("p", 0), -EBUSY);
	says("--takeover");
	assert_int_equal(try_open("p", VOL_READONLY), 0);
	assert_int_equal(try_open("p", VOL_TAKEOVER), 0);
	assert_int_equal(try_open("p", 0), 0);
}

static void acknowledged_writes_outlive_the_process(void **state)
{
	char buf[4096], want[4096];
	struct vol_volume *v;
	struct vol_pool *pool;
	int ready[2];

	(void)state;
	rig_pool("p", 2, 64u << 20);
	pool = rig_open("p", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576}");
	rig_close(pool);
	memset(want, 'w', sizeof(want));
	assert_int_equal(pipe(ready), 0);
	pid_t pid = fork();
	if (!pid) {
		if (vol_pool_open("p", 0, &pool) || vol_volume_open(pool, "v", 0, false, &v))
			_exit(1);
		for (uint64_t off = 0; off < 1048576; off += 8192) /* no flush */
			if (vol_pwrite(v, want, sizeof(want), off, 0))
				_exit(1);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ready[0], buf, 1), 1);
	end(pid);
	close(ready[0]);
	close(ready[1]);
	pool = rig_open("p", 0);
	if (vol_volume_open(pool, "v", 0, false, &v))
		fail_msg("%s", vol_error(NULL));
	for (uint64_t off = 0; off < 1048576; off += 8192) {
		assert_int_equal(vol_pread(v, buf, sizeof(buf), off), 0);
		assert_memory_equal(buf, want, sizeof(buf));
	}
	vol_volume_close(v);
	rig_close(pool);
}

static void snapshots_are_named_by_time_and_then_by_number(void **state)
{
	struct json_object *a, *list;
	struct vol_pool *pool;
	char name[VOL_NAME_SIZE];

	(void)state;
	rig_pool("p", 1, 64u << 20);
	pool = rig_open("p", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':4096}");
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(rig_call(pool, &a, "{'op':'snapshot','snapshots':[{'volume':'v'}]}"), 0);
		assert_true(json_get(a, "snapshots", json_type_array, &list));
		snprintf(name, sizeof(name), "%s", json_str(json_object_array_get_idx(list, 0), "name"));
		assert_int_equal(strncmp(name, "v@20", 4), 0);
		assert_int_equal(strlen(name) >= strlen("v@2026-11-21T10:15:30Z"), 1);
		json_object_put(a);
	}
	/* a group is all or nothing */
	rig_ok(pool, "{'op':'create','volume':'w','size':4096}");
	assert_int_equal(rig_call(pool, NULL, "{'op':'snapshot','snapshots':[{'volume':'w','name':'w1'},{'volume':'v','name':'v'}]}"), -EEXIST);
	assert_int_equal(rig_call(pool, NULL, "{'op':'list','names':['w1']}"), -ENOENT);
	rig_close(pool);
}

static void the_attributes_of_a_volume_are_merged(void **state)
{
	struct vol_pool *pool;

	(void)state;
	rig_pool("p", 1, 64u << 20);
	pool = rig_open("p", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':4096,'attrs':{'a':'1','b':'x=y'}}");
	rig_ok(pool, "{'op':'set','volume':'v','attrs':{'a':null,'c':''}}");
	assert_int_equal(rig_call(pool, NULL, "{'op':'set','volume':'v','attrs':{'d e':'1'}}"), -EINVAL);
	assert_int_equal(rig_call(pool, NULL, "{'op':'set','volume':'v','attrs':{'d':'1\\nroot=1'}}"), -EINVAL);
	assert_int_equal(rig_call(pool, NULL, "{'op':'set','volume':'v','attrs':{'d':'%0800d'}}", 1), -E2BIG);
	rig_close(pool);
}

/* Two who saw it short: the one that asks for less must not cut off what the other's pool counts on. */
static void a_file_is_extended_and_never_cut_off(void **state)
{
	struct vol_host *h;
	int fd;

	(void)state;
	rig_file("m.img", 1 << 20, NULL);
	fd = open(rig_path("m.img"), O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(vol_host_new(&h), 0);
	assert_int_equal(vol_host_set_member(h, 0, fd, rig_path("m.img"), true), 0);
	assert_int_equal(vol_host_extend(h, 0, 3 << 20), 0);
	assert_int_equal(vol_host_size(h, 0), 3 << 20);
	assert_int_equal(vol_host_extend(h, 0, 2 << 20), 0);
	assert_int_equal(vol_host_size(h, 0), 3 << 20);
	vol_host_free(h);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(names_and_sizes_are_read_as_lvm_reads_them),
		T(what_is_on_a_member_is_named_and_kept),
		T(a_file_that_was_made_in_vain_is_removed),
		T(two_pools_of_one_name_are_told_apart_by_uuid),
		T(a_copy_of_a_member_is_not_taken_for_it),
		T(an_interrupted_addition_is_no_obstacle),
		T(a_pool_without_a_member_is_read_and_not_changed),
		T(a_pool_has_one_owner_and_its_process_is_named),
		T(readers_do_not_keep_each_other_out),
		T(the_lock_of_a_dead_process_is_broken_with_a_warning),
		T(the_lock_of_another_host_stays),
		T(a_pool_that_another_host_left_in_use_must_be_taken_over),
		T(acknowledged_writes_outlive_the_process),
		T(snapshots_are_named_by_time_and_then_by_number),
		T(the_attributes_of_a_volume_are_merged),
		T(a_file_is_extended_and_never_cut_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
