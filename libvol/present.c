// SPDX-License-Identifier: LGPL-2.1-or-later
/* Mounts for users. present.h tells. */
#include "present.h"
#include "busy.h"
#include "device.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EMPTY_BYTES (1u << 20) /* so much at its start is zeros where a file system may be made */

static bool have_systemd(void)
{
	return !access("/run/systemd/system", F_OK);
}

/* ---- what is on it ------------------------------------------------------------- */

static int note(struct present_result *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int note(struct present_result *out, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(out->note, sizeof(out->note), fmt, ap);
	va_end(ap);
	return 0;
}

/* libblkid knows much, but not all that is worth keeping. */
static int check_empty(const char *device)
{
	char *buf = malloc(EMPTY_BYTES), *what = NULL;
	ssize_t n = -1;
	int fd, r;

	if (!buf)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		n = pread(fd, buf, EMPTY_BYTES, 0);
	r = n < 0 ? vol_fail(NULL, -errno, "%s cannot be read: %s", device, vol_strerror(-errno)) : 0;
	for (ssize_t i = 0; !r && i < n; i++)
		if (buf[i])
			r = vol_fail(NULL, -ENOTEMPTY, "no file system is made on %s: there is data on it, of a kind that nobody knows", device);
	if (!r)
		r = vol_probe_fd(fd, false, &what);
	if (!r && what)
		r = vol_fail(NULL, -ENOTEMPTY, "no file system is made on %s: there is %s on it", device, what);
	free(what);
	if (fd >= 0)
		close(fd);
	free(buf);
	return r;
}

static int make_fs(const char *device, const char *type)
{
	static const char *const types[] = { "ext4", "xfs", "btrfs", "ext3", "ext2" };
	char program[16], said[512], *argv[] = { program, "-q", (char *)device, NULL };
	size_t i, n = sizeof(types) / sizeof(types[0]);
	int r;

	for (i = 0; i < n && strcmp(types[i], type); i++)
		;
	if (i == n)
		return vol_fail(NULL, -EINVAL, "a file system \"%.20s\" cannot be made here: wanted ext4, xfs, btrfs, ext3 or ext2", type);
	r = check_empty(device);
	snprintf(program, sizeof(program), "mkfs.%s", types[i]);
	/* Without -f or the like: it looks itself once more. */
	return r ? r : device_run(argv, said, sizeof(said));
}

/* ---- copies ---------------------------------------------------------------------- */

struct copy { const struct device_content *mine; dev_t self, last; char source[128], dir[128]; };

static int is_copy(void *arg, const char *source, const char *dir)
{
	struct copy *c = arg;
	struct device_content content;
	struct stat st;

	if (stat(source, &st) || st.st_rdev == c->self || st.st_rdev == c->last)
		return 0;
	c->last = st.st_rdev; /* one device is often mounted in several places */
	if (device_probe(source, &content) || strcmp(content.type, c->mine->type) || strcmp(content.uuid, c->mine->uuid))
		return 0;
	snprintf(c->source, sizeof(c->source), "%s", source);
	snprintf(c->dir, sizeof(c->dir), "%s", dir);
	return 1;
}

/* 1: a file system with its UUID is mounted from another device. */
static int find_copy(dev_t self, const struct device_content *content, struct copy *c)
{
	*c = (struct copy){ .mine = content, .self = self };
	return content->uuid[0] ? busy_sources(is_copy, c) : 0;
}

/* ---- where ------------------------------------------------------------------------ */

/* As one component of a path that nobody can take for anything else. */
static void make_safe(const char *from, char *to, size_t size)
{
	static const char good[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_.-";
	size_t n = 0;

	for (; *from && n < size - 1; from++, n++)
		to[n] = strchr(good, *from) ? *from : '_';
	to[n] = 0;
	if (to[0] == '.' || to[0] == '-')
		to[0] = '_';
}

/* What systemd has as the source of the mount there. */
static bool systemd_has(const char *dir, dev_t self)
{
	char said[512], *argv[] = { "systemctl", "show", "-P", "What", "--", (char *)dir, NULL };
	struct stat st;

	return have_systemd() && !device_run(argv, said, sizeof(said)) && said[0] == '/' && !stat(said, &st) && S_ISBLK(st.st_mode) &&
	       st.st_rdev == self;
}

/* An automount that was not used yet. */
static bool waits_there(const char *dir, dev_t self)
{
	return busy_is_mount(dir, "autofs") && systemd_has(dir, self);
}

/* There, and not an empty directory that waits for a mount. */
static bool taken(const char *dir)
{
	struct dirent *e;
	bool found = false;
	DIR *d;

	if (access(dir, F_OK))
		return false;
	if (busy_is_mount(dir, NULL)) /* first: opening would start an automount */
		return true;
	d = opendir(dir);
	while (d && !found && (e = readdir(d)))
		found = strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
	if (d)
		closedir(d);
	return !d || found;
}

static int choose_dir(const struct present_spec *spec, const struct device_content *c, dev_t self, char *dir, size_t size)
{
	char text[96];
	int n;

	if (spec->dir && *spec->dir) {
		n = snprintf(dir, size, "%s", spec->dir);
	} else {
		make_safe(c->label[0] ? c->label : spec->name, text, sizeof(text));
		n = snprintf(dir, size, PRESENT_DIR "/%s", text);
		if (!text[0] || (taken(dir) && !waits_there(dir, self))) {
			make_safe(spec->name, text, sizeof(text));
			n = snprintf(dir, size, PRESENT_DIR "/%s-%.8s", text, spec->uuid_text);
		}
	}
	if (n < 0 || (size_t)n >= size)
		return vol_fail(NULL, -ENAMETOOLONG, "the name of the directory is longer than %zu bytes", size - 1);
	if (dir[0] != '/')
		return vol_fail(NULL, -EINVAL, "\"%.100s\" is no path from the root on, so nothing is mounted there", dir);
	return 0;
}

/* With those above it. */
static int make_dir(const char *dir)
{
	char path[256];
	struct stat st;

	for (const char *at = dir; at; ) {
		at = strchr(at + 1, '/');
		snprintf(path, sizeof(path), "%.*s", at ? (int)(at - dir) : (int)strlen(dir), dir);
		if (mkdir(path, 0755) && errno != EEXIST)
			return vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno));
	}
	if (busy_is_mount(dir, NULL))
		return vol_fail(NULL, -EBUSY, "something else is mounted on %s already", dir);
	if (stat(dir, &st) || !S_ISDIR(st.st_mode))
		return vol_fail(NULL, -ENOTDIR, "%s is no directory", dir);
	return 0;
}

/* ---- mounting ----------------------------------------------------------------------- */

static int systemd_mount(const struct present_spec *spec, const struct device_content *c, const char *options, const char *dir)
{
	char opts[512], said[512];
	char *argv[] = { "systemd-mount", "--quiet", "--no-ask-password", "--collect", "--fsck=no",
			 spec->automount ? "--automount=yes" : "--automount=no", "-t", (char *)c->type, "-o", opts, "--",
			 (char *)spec->device, (char *)dir, NULL };
	int r = device_mount_options(c, spec->readonly, options, opts, sizeof(opts));

	return r ? r : device_run(argv, said, sizeof(said));
}

static int take_first(void *arg, const char *dir)
{
	struct present_result *out = arg;

	snprintf(out->mount, sizeof(out->mount), "%s", dir);
	return 1;
}

static int check_content(const struct present_spec *spec, const struct device_content *c, dev_t self, bool *nouuid, struct present_result *out)
{
	struct copy copy;
	int r;

	*nouuid = false;
	if (!c->type[0]) {
		note(out, "there is nothing on it that could be mounted: it has no file system yet");
		return 1;
	}
	if (strcmp(c->usage, "filesystem")) {
		note(out, "it carries %s (%s), which cannot be mounted as a whole", c->type, c->usage);
		return 1;
	}
	r = find_copy(self, c, &copy);
	if (r <= 0)
		return r;
	if (!spec->duplicate) {
		note(out, "its file system is a copy of that of %.60s, which is mounted on %.60s: it has the same UUID; mounted only if a duplicate is asked for",
		     copy.source, copy.dir);
		return 1;
	}
	if (!strcmp(c->type, "btrfs")) {
		note(out, "it is a copy of the btrfs on %.60s, which is mounted: btrfs takes two with one UUID for parts of one file system, and would damage them",
		     copy.source);
		return 1;
	}
	*nouuid = !strcmp(c->type, "xfs");
	return 0;
}

int present_mount(const struct present_spec *spec, struct present_result *out)
{
	struct present_result res = { 0 };
	struct device_content c;
	char dir[sizeof(out->mount)], options[512];
	bool nouuid;
	struct stat st;
	int n, r;

	if (stat(spec->device, &st) || !S_ISBLK(st.st_mode))
		return vol_fail(NULL, -ENOTBLK, "%s is no block device", spec->device);
	r = device_probe(spec->device, &c);
	if (!r && !c.type[0] && spec->mkfs && *spec->mkfs && !spec->readonly) {
		r = make_fs(spec->device, spec->mkfs);
		if (!r)
			r = device_probe(spec->device, &c);
	}
	if (r)
		return r;
	snprintf(res.type, sizeof(res.type), "%s", c.type);
	snprintf(res.label, sizeof(res.label), "%s", c.label);
	r = device_mounts(spec->device, take_first, &res);
	if (!r)
		r = check_content(spec, &c, st.st_rdev, &nouuid, &res);
	if (r) {
		if (r > 0)
			*out = res;
		return r > 0 ? 0 : r;
	}
	r = choose_dir(spec, &c, st.st_rdev, dir, sizeof(dir));
	if (!r && !waits_there(dir, st.st_rdev)) {
		n = snprintf(options, sizeof(options), "%s%s%s", spec->options ? spec->options : "",
			     spec->options && *spec->options && nouuid ? "," : "", nouuid ? "nouuid" : "");
		r = n < 0 || (size_t)n >= sizeof(options) ?
		    vol_fail(NULL, -ENAMETOOLONG, "the options of the mount are longer than %zu bytes", sizeof(options) - 1) : make_dir(dir);
		if (!r)
			r = have_systemd() ? systemd_mount(spec, &c, options, dir) :
					     device_mount(spec->device, dir, &c, spec->readonly, options);
	}
	if (r)
		return r;
	snprintf(res.mount, sizeof(res.mount), "%s", dir);
	if (spec->automount && !have_systemd())
		note(&res, "mounted at once: there is no systemd here that could wait until it is used");
	*out = res;
	return 0;
}

/* ---- unmounting -------------------------------------------------------------------------- */

int present_umount(const char *dir)
{
	char said[512], users[512], *argv[] = { "systemd-umount", "--quiet", "--no-ask-password", "--", (char *)dir, NULL };
	int r;

	if (!busy_is_mount(dir, NULL))
		return 0;
	if (!have_systemd())
		return device_umount(dir);
	/* Looked at first: systemd would tell of a failure, and not who. */
	if (!busy_is_mount(dir, "autofs")) {
		device_users(dir, users, sizeof(users));
		if (users[0])
			return vol_fail(NULL, -EBUSY, "%s is in use by %s", dir, users);
	}
	r = device_run(argv, said, sizeof(said));
	if (!busy_is_mount(dir, NULL))
		return 0;
	if (busy_is_mount(dir, "autofs"))
		return r ? r : vol_fail(NULL, -EBUSY, "the automount on %s stays", dir);
	return device_umount(dir); /* which says who is in the way, or does it */
}
