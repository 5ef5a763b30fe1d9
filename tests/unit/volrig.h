/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory of its own for a test of libvol: configuration, runtime and members. */
#ifndef VOLRIG_H
#define VOLRIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../libvol/host.h"
#include "../../libvol/io.h"
#include "../../libvol/json.h"

static char rig_dir[64];

static inline const char *rig_path(const char *name)
{
	static char path[4][128];
	static unsigned at;

	at = (at + 1) % 4;
	snprintf(path[at], sizeof(path[at]), "%s/%s", rig_dir, name);
	return path[at];
}

static void rig_log(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg;
	if (getenv("VD_TEST_LOG"))
		fprintf(stderr, "log %d: %s\n", level, text);
}

static inline int rig_setup(void **state)
{
	(void)state;
	strcpy(rig_dir, "/tmp/vd-unit-XXXXXX");
	if (!mkdtemp(rig_dir))
		return -1;
	setenv("VD_CONFIG_DIR", rig_path("etc"), 1);
	setenv("VD_RUNTIME_DIR", rig_path("run"), 1);
	vol_set_log(rig_log, NULL);
	return 0;
}

static int rig_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline int rig_teardown(void **state)
{
	(void)state;
	return nftw(rig_dir, rig_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* A file of `size` bytes in the rig; content from fill(), or a hole. */
static inline void rig_file(const char *name, size_t size, int (*fill)(void))
{
	int fd = open(rig_path(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	for (size_t i = 0; fill && i < size; i += 512) {
		char buf[512];
		size_t n = size - i < 512 ? size - i : 512;
		for (size_t k = 0; k < n; k++)
			buf[k] = (char)fill();
		assert_int_equal(pwrite(fd, buf, n, (off_t)i), n);
	}
	close(fd);
}

static inline void rig_pool(const char *name, unsigned members, uint64_t size)
{
	char text[4][128];
	const char *path[4];
	uint8_t uuid[16];
	struct vol_pool_spec spec = { .name = name, .path = path, .npaths = members, .file_size = size };

	for (unsigned i = 0; i < members; i++) {
		snprintf(text[i], sizeof(text[i]), "%s/%s%u.img", rig_dir, name, i);
		path[i] = text[i];
	}
	if (vol_pool_create(&spec, uuid))
		fail_msg("%s", vol_error(NULL));
}

static inline struct vol_pool *rig_open(const char *name, unsigned flags)
{
	struct vol_pool *pool;

	if (vol_pool_open(name, flags, &pool))
		fail_msg("%s", vol_error(NULL));
	return pool;
}

static inline void rig_close(struct vol_pool *pool)
{
	if (vol_pool_close(pool))
		fail_msg("%s", vol_error(NULL));
}

/* A request written as JSON with ' for ". */
static inline int rig_call(struct vol_pool *pool, struct json_object **result, const char *fmt, ...)
{
	char text[2048];
	struct json_object *q;
	va_list ap;
	int r;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *c = text; *c; c++)
		if (*c == '\'')
			*c = '"';
	q = json_tokener_parse(text);
	assert_non_null(q);
	r = vol_call(pool, q, NULL, NULL, result);
	json_object_put(q);
	return r;
}

static inline void rig_ok(struct vol_pool *pool, const char *text)
{
	if (rig_call(pool, NULL, "%s", text))
		fail_msg("%s: %s", text, vol_error(pool));
}

static inline unsigned rig_seed(void)
{
	const char *text = getenv("VD_TEST_SEED");
	unsigned seed = text ? (unsigned)strtoul(text, NULL, 0) : (unsigned)time(NULL) ^ (unsigned)getpid();

	print_message("seed %u\n", seed);
	return seed;
}

static inline unsigned rig_scale(unsigned n)
{
	const char *text = getenv("VD_TEST_SCALE");
	unsigned long scaled = n * (text ? strtoul(text, NULL, 0) : 100) / 100;

	return scaled ? (unsigned)scaled : 1;
}

#endif
