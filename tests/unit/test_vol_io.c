// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * libvol/io.c: what a server's clients read back is what they wrote, at any
 * offset and length, over holes, base images and snapshots.
 */
#include "volrig.h"

#define SIZE (4u << 20)
#define BASE_SIZE ((1u << 20) + 777)

static uint8_t *ref;
static struct vol_pool *pool;
static struct vol_volume *vol;

static struct vol_volume *open_volume(const char *name, bool readonly)
{
	struct vol_volume *v;

	if (vol_volume_open(pool, name, 0, readonly, &v))
		fail_msg("%s", vol_error(NULL));
	return v;
}

static void compare(const char *when)
{
	uint8_t *buf = malloc(SIZE);

	assert_int_equal(vol_pread(vol, buf, SIZE, 0), 0);
	for (size_t i = 0; i < SIZE; i++)
		if (buf[i] != ref[i])
			fail_msg("%s: byte %zu is %u, wanted %u", when, i, buf[i], ref[i]);
	free(buf);
}

static int some_byte(void)
{
	return rand() | 1; /* never 0 */
}

static void random_range(uint64_t *off, size_t *len)
{
	static const size_t most[] = { 100, 512, 5000, 70000, 400000 };

	*len = (size_t)rand() % most[rand() % 5] + 1;
	*off = (uint64_t)rand() % (SIZE - *len + 1);
	if (rand() % 2) {
		*off &= ~511ull;
		*len = (*len + 511) & ~511ull;
		if (*off + *len > SIZE)
			*off = SIZE - *len;
	}
}

static void reopen(void)
{
	vol_volume_close(vol);
	rig_close(pool);
	pool = rig_open("t", 0);
	vol = open_volume("v", false);
}

static void random_operation(unsigned n)
{
	uint8_t *buf = malloc(400000 + 512);
	uint64_t off, first, last;
	size_t len;
	unsigned flags = rand() % 16 ? 0 : VOL_IO_FUA;

	random_range(&off, &len);
	switch (rand() % 20) {
	case 0 ... 8:
		for (size_t i = 0; i < len; i++)
			buf[i] = (uint8_t)some_byte();
		assert_int_equal(vol_pwrite(vol, buf, len, off, flags), 0);
		memcpy(ref + off, buf, len);
		break;
	case 9 ... 13:
		assert_int_equal(vol_pread(vol, buf, len, off), 0);
		if (memcmp(buf, ref + off, len))
			fail_msg("operation %u: %zu bytes read at %lu differ", n, len, (unsigned long)off);
		break;
	case 14 ... 15:
		assert_int_equal(vol_zero(vol, off, len, flags), 0);
		memset(ref + off, 0, len);
		break;
	case 16 ... 17:
		assert_int_equal(vol_unmap(vol, off, len, flags), 0);
		first = (off + 4095) & ~4095ull;
		last = (off + len) & ~4095ull;
		if (last > first)
			memset(ref + first, 0, last - first);
		break;
	case 18:
		if (rand() % 4 == 0)
			rig_ok(pool, "{'op':'snapshot','snapshots':[{'volume':'v'}]}");
		else
			assert_int_equal(vol_flush(vol), 0);
		break;
	case 19:
		if (rand() % 4 == 0)
			reopen();
		else
			assert_int_equal(vol_cache(vol, off, len), 0);
	}
	free(buf);
}

static void run_random(const char *create, bool based)
{
	unsigned ops = rig_scale(1500);

	srand(rig_seed());
	ref = calloc(1, SIZE);
	if (based) {
		rig_file("base.raw", BASE_SIZE, some_byte);
		int fd = open(rig_path("base.raw"), O_RDONLY);
		assert_int_equal(read(fd, ref, BASE_SIZE), BASE_SIZE);
		close(fd);
	}
	rig_pool("t", 2, 64u << 20);
	pool = rig_open("t", 0);
	if (rig_call(pool, NULL, create, SIZE, rig_path("base.raw")))
		fail_msg("%s", vol_error(pool));
	vol = open_volume("v", false);
	for (unsigned i = 0; i < ops; i++)
		random_operation(i);
	compare("at the end");
	reopen();
	compare("after reopening");
	vol_volume_close(vol);
	rig_close(pool);
	free(ref);
}

static void reads_give_what_was_written(void **state)
{
	(void)state;
	run_random("{'op':'create','volume':'v','size':%u}", false);
}

static void an_unaligned_base_image_shows_where_nothing_was_written(void **state)
{
	(void)state;
	run_random("{'op':'create','volume':'v','size':%u,'base':'%s'}", true);
}

struct gaps { uint64_t at; unsigned kinds; };

static int on_extent(void *arg, uint64_t off, uint64_t len, enum vd_ext_kind kind)
{
	struct gaps *g = arg;

	assert_int_equal(off, g->at);
	assert_true(len > 0);
	g->at += len;
	g->kinds = g->kinds * 10 + kind;
	return 0;
}

static void extents_cover_the_range_without_gaps(void **state)
{
	char buf[8192] = "x";
	struct gaps g = { 4096, 0 };

	(void)state;
	rig_file("base.raw", 100000, some_byte);
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'create','volume':'v','size':1048576,'base':'%s'}", rig_path("base.raw")), 0);
	vol = open_volume("v", false);
	assert_int_equal(vol_pwrite(vol, buf, sizeof(buf), 16384, 0), 0);
	assert_int_equal(vol_zero(vol, 32768, 4096, 0), 0);
	assert_int_equal(vol_extents(vol, 4096, 1048576 - 4096, on_extent, &g), 0);
	assert_int_equal(g.at, 1048576);
	/* base, data, base, zero, base, hole past the image */
	assert_int_equal(g.kinds, 313230);
	g = (struct gaps){ 1048576 - 512, 0 };
	assert_int_equal(vol_extents(vol, 1048576 - 512, 512, on_extent, &g), 0);
	assert_int_equal(g.kinds, 0);
	vol_volume_close(vol);
	rig_close(pool);
}

static void what_is_beyond_the_end_or_read_only_is_refused(void **state)
{
	char buf[512] = "";

	(void)state;
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576}");
	rig_ok(pool, "{'op':'create','volume':'r','size':1048576,'readonly':true}");
	vol = open_volume("v", false);
	assert_int_equal(vol_pread(vol, buf, 512, 1048576 - 511), -ERANGE);
	assert_int_equal(vol_pwrite(vol, buf, 512, UINT64_MAX - 100, 0), -ERANGE);
	assert_int_equal(vol_zero(vol, 1048576, 512, 0), -ERANGE);
	assert_int_equal(vol_unmap(vol, 4096, 1048576, 0), -ERANGE);
	vol_volume_close(vol);
	assert_int_equal(vol_volume_open(pool, "r", 0, false, &vol), -EROFS);
	assert_non_null(strstr(vol_error(NULL), "volume t/r is read-only"));
	vol = open_volume("r", true);
	assert_int_equal(vol_pwrite(vol, buf, 512, 0, 0), -EROFS);
	assert_int_equal(vol_zero(vol, 0, 512, 0), -EROFS);
	assert_int_equal(vol_unmap(vol, 0, 4096, 0), -EROFS);
	vol_volume_close(vol);
	assert_int_equal(vol_volume_open(pool, "nothing", 0, false, &vol), -ENOENT);
	rig_close(pool);
}

static void a_volume_whose_base_image_is_gone_does_not_open(void **state)
{
	(void)state;
	rig_file("base.raw", 100000, some_byte);
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", 0);
	assert_int_equal(rig_call(pool, NULL, "{'op':'create','volume':'v','base':'%s'}", rig_path("base.raw")), 0);
	assert_int_equal(unlink(rig_path("base.raw")), 0);
	assert_int_equal(vol_volume_open(pool, "v", 0, false, &vol), -ENOENT);
	assert_non_null(strstr(vol_error(NULL), "base.raw"));
	rig_close(pool);
}

static void a_locked_volume_opens_only_for_its_link(void **state)
{
	(void)state;
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576,'locked':true}");
	assert_int_equal(vol_volume_open(pool, "v", 0, false, &vol), -EACCES);
	assert_non_null(strstr(vol_error(NULL), "locked by"));
	rig_ok(pool, "{'op':'pointer-add','volume':'v','mode':'rw'}");
	vol = open_volume("v", false);
	vol_volume_close(vol);
	rig_close(pool);
}

/* A front connects as it has need, also while vdunlink, which has the lock, waits for its flush. */
static void a_volume_that_is_locked_to_be_unlinked_opens_for_that_link(void **state)
{
	struct vd_disk_holder who;
	uint32_t id;

	(void)state;
	rig_pool("t", 1, 64u << 20);
	pool = rig_open("t", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':1048576}");
	rig_ok(pool, "{'op':'pointer-add','volume':'v','mode':'rw'}");
	vol_holder_self(&who, "vdunlink");
	who.pid = cpu_to_le64(1);
	assert_int_equal(vd_volume_find(vol_pool_engine(pool), "v", &id), 0);
	assert_int_equal(vd_volume_lock(vol_pool_engine(pool), id, &who), 0);
	assert_int_equal(vol_volume_open(pool, "v", 0, false, &vol), -EACCES);
	assert_int_equal(vol_volume_open(pool, "v", 2, false, &vol), -EACCES);
	assert_int_equal(vol_volume_open(pool, "v", 1, false, &vol), 0);
	vol_volume_close(vol);
	rig_close(pool);
}

static off_t allocated(const char *name)
{
	struct stat st;

	assert_int_equal(stat(rig_path(name), &st), 0);
	return (off_t)st.st_blocks * 512;
}

/* It gets a stretch at a time where it has nothing; as much is a hole to who reads it. */
static void a_sparse_member_grows_in_stretches(void **state)
{
	const off_t M = 1 << 20;
	off_t before;
	int fd;

	(void)state;
	rig_pool("t", 1, 66u << 20);
	pool = rig_open("t", 0);
	rig_ok(pool, "{'op':'create','volume':'v','size':16777216}");
	vol = open_volume("v", false);
	fd = vol_host_fd(vol_pool_host(pool), 0);
	before = allocated("t0.img");
	for (uint64_t off = 0; off < 16 << 20; off += 16 * VD_BLOCK) /* takes 16 MiB, writes one */
		assert_int_equal(vol_pwrite(vol, "data", 4, off, 0), 0);
	assert_int_equal(vol_flush(vol), 0);
	assert_in_range(allocated("t0.img") - before, 8 * M, 17 * M);

	assert_int_equal(pwrite(fd, "data", 4, 41 * M), 4);
	assert_int_equal(fsync(fd), 0);
	before = allocated("t0.img");
	vol_host_writes(vol_pool_host(pool), 0, 42 * M / VD_BLOCK); /* there is something */
	assert_int_equal(allocated("t0.img"), before);
	vol_host_writes(vol_pool_host(pool), 0, 33 * M / VD_BLOCK);
	vol_host_writes(vol_pool_host(pool), 0, 35 * M / VD_BLOCK);
	assert_int_equal(allocated("t0.img"), before + 4 * M);
	assert_int_equal(lseek(fd, 32 * M, SEEK_DATA), 41 * M);
	vol_host_writes(vol_pool_host(pool), 0, 65 * M / VD_BLOCK); /* not beyond its end */
	assert_int_equal(allocated("t0.img"), before + 6 * M);
	vol_host_writes(vol_pool_host(pool), 0, 1ull << 47);
	assert_int_equal(lseek(fd, 0, SEEK_END), 66 * M);
	vol_volume_close(vol);
	rig_close(pool);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)
	const struct CMUnitTest tests[] = {
		T(reads_give_what_was_written),
		T(an_unaligned_base_image_shows_where_nothing_was_written),
		T(extents_cover_the_range_without_gaps),
		T(what_is_beyond_the_end_or_read_only_is_refused),
		T(a_volume_whose_base_image_is_gone_does_not_open),
		T(a_locked_volume_opens_only_for_its_link),
		T(a_volume_that_is_locked_to_be_unlinked_opens_for_that_link),
		T(a_sparse_member_grows_in_stretches),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
