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
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define EMPTY_BYTES (1u << 20) /* so much at its start, and at its end, is zeros where a file system may be made */

bool present_systemd(void)
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

struct empty { char device[256]; };

static int check_zeros(int fd, const char *device, char *buf, off_t at)
{
	ssize_t n = pread(fd, buf, EMPTY_BYTES, at);

	if (n < 0)
		return vol_fail(NULL, -errno, "%s cannot be read: %s", device, vol_strerror(-errno));
	for (ssize_t i = 0; i < n; i++)
		if (buf[i])
			return vol_fail(NULL, -ENOTEMPTY, "no file system is made on %s: there is data on it, of a kind that nobody knows\n"
					"if it is what a mkfs left that was cut off: 'blkdiscard -f %s', and again", device, device);
	return 0;
}

/* libblkid knows much, but not all that is worth keeping. */
static int look_empty(void *arg)
{
	const char *device = ((struct empty *)arg)->device;
	char *buf = malloc(EMPTY_BYTES), *what = NULL;
	off_t end;
	int fd, r;

	if (!buf)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	fd = open(device, O_RDONLY | O_CLOEXEC);
	end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
	r = end < 0 ? vol_fail(NULL, -errno, "%s cannot be read: %s", device, vol_strerror(-errno)) : check_zeros(fd, device, buf, 0);
	if (!r && end > EMPTY_BYTES)
		r = check_zeros(fd, device, buf, end - EMPTY_BYTES);
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

static int check_empty(const char *device)
{
	struct empty e;

	snprintf(e.device, sizeof(e.device), "%s", device);
	return device_apart(look_empty, &e, sizeof(e), device, 1);
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
	return r ? r : device_run(argv, said, sizeof(said), 15);
}

int present_mkfs(const char *device, const char *type)
{
	struct device_content c;
	int r = device_probe(device, &c);

	return r || c.type[0] ? r : make_fs(device, type);
}

/* ---- copies ---------------------------------------------------------------------- */

struct copy { const struct device_content *mine; dev_t self, last; bool slow; char source[128], dir[128]; };

static int is_copy(void *arg, const char *source, const char *dir)
{
	struct copy *c = arg;
	struct device_content content = { 0 };
	struct stat st;

	if (stat(source, &st) || st.st_rdev == c->self || st.st_rdev == c->last)
		return 0;
	c->last = st.st_rdev; /* one device is often mounted in several places */
	/* What udev knows may be old; but one whose host is away cannot be read, and then others of that host cannot. */
	if (!c->slow && device_probe_soon(source, &content) == -ETIMEDOUT)
		c->slow = true;
	if ((c->slow && !device_known_uuid(st.st_rdev, &content)) || strcmp(content.type, c->mine->type) || strcmp(content.uuid, c->mine->uuid))
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

/* What systemd has as the source of the mount there, by whatever name, is now that device. */
static bool systemd_has(const char *dir, const char *device)
{
	char said[512], *argv[] = { "systemctl", "show", "-P", "What", "--", (char *)dir, NULL };
	struct stat st, mine;

	return present_systemd() && !device_run(argv, said, sizeof(said), 1) && said[0] == '/' && !stat(said, &st) && S_ISBLK(st.st_mode) &&
	       !stat(device, &mine) && S_ISBLK(mine.st_mode) && st.st_rdev == mine.st_rdev;
}

/* An automount that was not used yet. */
static bool waits_there(const char *dir, const char *device)
{
	return busy_is_mount(dir, "autofs") && systemd_has(dir, device);
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

static int choose_dir(const struct present_spec *spec, const struct device_content *c, char *dir, size_t size)
{
	const char *base = spec->base ? spec->base : PRESENT_DIR;
	char text[96];
	int n;

	if (spec->dir && *spec->dir) {
		n = snprintf(dir, size, "%s", spec->dir);
	} else {
		make_safe(c->label[0] ? c->label : spec->name, text, sizeof(text));
		n = snprintf(dir, size, "%s/%s", base, text);
		if (!text[0] || (taken(dir) && !waits_there(dir, spec->device))) {
			make_safe(spec->name, text, sizeof(text));
			n = snprintf(dir, size, "%s/%s-%.8s", base, text, spec->uuid_text);
		}
	}
	if (n < 0 || (size_t)n >= size)
		return vol_fail(NULL, -ENAMETOOLONG, "the name of the directory is longer than %zu bytes", size - 1);
	if (dir[0] != '/')
		return vol_fail(NULL, -EINVAL, "\"%.100s\" is no path from the root on, so nothing is mounted there", dir);
	return 0;
}

/* With those above it; by its own name, without symbolic links. */
static int make_dir(char *dir, size_t size, bool strict)
{
	char path[256], real[PATH_MAX];
	struct stat st;

	for (const char *at = dir; at; ) {
		at = strchr(at + 1, '/');
		snprintf(path, sizeof(path), "%.*s", at ? (int)(at - dir) : (int)strlen(dir), dir);
		if (mkdir(path, 0755) && errno != EEXIST)
			return vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno));
	}
	if (!realpath(dir, real))
		return vol_fail(NULL, -errno, "%s: %s", dir, vol_strerror(-errno));
	if (strict && strcmp(real, dir))
		return vol_fail(NULL, -EPERM, "a symbolic link leads to %s: nothing is mounted there", dir);
	if (snprintf(dir, size, "%s", real) >= (int)size)
		return vol_fail(NULL, -ENAMETOOLONG, "the name of the directory is longer than %zu bytes", size - 1);
	if (busy_is_mount(dir, NULL))
		return vol_fail(NULL, -EBUSY, "something else is mounted on %s already", dir);
	if (stat(dir, &st) || !S_ISDIR(st.st_mode))
		return vol_fail(NULL, -ENOTDIR, "%s is no directory", dir);
	return 0;
}

/* ---- mounting ----------------------------------------------------------------------- */

static int systemd_umount(const char *dir, unsigned times)
{
	char said[512], *argv[] = { "systemd-umount", "--quiet", "--no-ask-password", "--", (char *)dir, NULL };

	return device_run(argv, said, sizeof(said), times);
}

static int systemd_mount(const struct present_spec *spec, const struct device_content *c, const char *options, const char *dir)
{
	char opts[512], said[512];
	char *argv[] = { "systemd-mount", "--quiet", "--no-ask-password", "--collect", "--fsck=no",
			 spec->automount ? "--automount=yes" : "--automount=no", spec->automount && spec->bound ? "--bind-device" : "--quiet", "-t", (char *)c->type, "-o", opts, "--",
			 (char *)spec->device, (char *)dir, NULL };
	int r = device_mount_options(c, spec->readonly, options, opts, sizeof(opts));

	if (!r)
		r = device_run(argv, said, sizeof(said), 1);
	/* systemd may not have noticed yet that what was mounted there went. */
	if (r == -EIO && strstr(said, "already loaded") && !busy_is_mount(dir, NULL)) {
		(void)!systemd_umount(dir, 1);
		r = device_run(argv, said, sizeof(said), 1);
	}
	if (r == -ETIMEDOUT || r == -EINTR) { /* its job would go on */
		(void)!systemd_umount(dir, 1);
		vol_fail(NULL, r, "systemd has not mounted %s in time: 'journalctl -b' tells more", dir);
	}
	return r;
}

static int take_first(void *arg, const char *dir)
{
	struct present_result *out = arg;

	snprintf(out->mount, sizeof(out->mount), "%s", dir);
	return 1;
}

/* Their drivers are used with disks of strangers every day. */
static bool is_usual(const char *type)
{
	static const char *const types[] = { "ext4", "xfs", "btrfs", "ext3", "ext2", "vfat", "exfat", "ntfs", "ntfs3", "f2fs", "iso9660", "udf",
					     "squashfs", "erofs" };

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		if (!strcmp(types[i], type))
			return true;
	return false;
}

struct place { const char *dir; bool found; };

static int is_place(void *arg, const char *dir)
{
	struct place *p = arg;

	p->found |= !strcmp(dir, p->dir);
	return 0;
}

/* The device that was looked at is mounted where it was to be: else it is nowhere. */
static int verify(const struct present_spec *spec, dev_t self, const char *dir)
{
	struct place p = { .dir = dir };
	struct present_result where;
	int r;

	if (spec->automount && present_systemd() && busy_is_mount(dir, "autofs"))
		return 0;
	r = busy_mounts("self", self, false, is_place, &p);
	if (r || p.found)
		return r;
	for (unsigned i = 0; i < 16 && busy_mounts("self", self, false, take_first, &where) > 0 && !device_umount(where.mount); i++)
		;
	return vol_fail(NULL, -ESTALE, "%s was mounted, and that was not on %s, or it was another device by then: it was unmounted", spec->device, dir);
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
	if (spec->strict && !is_usual(c->type)) {
		note(out, "it has a file system of type %s, and only those of usual types are mounted here", c->type);
		return 1;
	}
	r = find_copy(self, c, &copy);
	if (r <= 0)
		return r;
	if (!strcmp(c->type, "btrfs")) {
		note(out, "it is a copy of the btrfs on %.60s, which is mounted: btrfs takes two with one UUID for parts of one file system, and would damage them",
		     copy.source);
		return 1;
	}
	if (!spec->duplicate) {
		note(out, "its file system is a copy of that of %.60s, which is mounted on %.60s: it has the same UUID; mounted only if a duplicate is asked for",
		     copy.source, copy.dir);
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
	/* First: what is mounted needs not be read. */
	r = device_mounts(spec->device, take_first, &res);
	if (r) {
		busy_mount_type(res.mount, res.type, sizeof(res.type));
		*out = res;
		return r > 0 ? 0 : r;
	}
	r = spec->mkfs && *spec->mkfs && !spec->readonly ? present_mkfs(spec->device, spec->mkfs) : 0;
	if (!r && spec->content)
		c = *spec->content;
	else if (!r)
		r = device_probe(spec->device, &c);
	if (r)
		return r;
	snprintf(res.type, sizeof(res.type), "%s", c.type);
	r = check_content(spec, &c, st.st_rdev, &nouuid, &res);
	if (r) {
		if (r > 0)
			*out = res;
		return r > 0 ? 0 : r;
	}
	r = choose_dir(spec, &c, dir, sizeof(dir));
	if (!r && !waits_there(dir, spec->device)) {
		n = snprintf(options, sizeof(options), "%s%s%s", spec->options ? spec->options : "",
			     spec->options && *spec->options && nouuid ? "," : "", nouuid ? "nouuid" : "");
		r = n < 0 || (size_t)n >= sizeof(options) ?
		    vol_fail(NULL, -ENAMETOOLONG, "the options of the mount are longer than %zu bytes", sizeof(options) - 1) : make_dir(dir, sizeof(dir), spec->strict);
		if (!r)
			r = present_systemd() ? systemd_mount(spec, &c, options, dir) :
					     device_mount(spec->device, dir, &c, spec->readonly, options);
		if (!r)
			r = verify(spec, st.st_rdev, dir);
	}
	if (r)
		return r;
	snprintf(res.mount, sizeof(res.mount), "%s", dir);
	if (spec->automount && !present_systemd())
		note(&res, "mounted at once: there is no systemd here that could wait until it is used");
	*out = res;
	return 0;
}

/* ---- unmounting -------------------------------------------------------------------------- */

int present_umount(const char *dir)
{
	char said[512], *argv[] = { "umount", "-c", "--", (char *)dir, NULL };
	int r;

	if (!busy_is_mount(dir, NULL))
		return 0;
	/* Looked at first: a container's copy keeps the device, and not this mount. */
	r = busy_is_mount(dir, "autofs") ? 0 : device_unused(dir);
	if (r || !present_systemd())
		return r ? r : device_umount(dir);
	/* As systemd does it, which notices, with two processes fewer.  But an automount is its own, and where this process
	 * sees copies of the host's mounts those are undone by it. */
	r = busy_has_mount(dir, "autofs") || !busy_sees_mounts() ? -EIO : device_run(argv, said, sizeof(said), 3);
	if (r && r != -ETIMEDOUT && r != -EINTR)
		r = systemd_umount(dir, 3);
	if (!busy_is_mount(dir, NULL))
		return 0;
	if (r == -ETIMEDOUT || r == -EINTR)
		return r;
	if (busy_is_mount(dir, "autofs"))
		return r ? r : vol_fail(NULL, -EBUSY, "the automount on %s stays", dir);
	return device_umount(dir); /* which says who is in the way, or does it */
}

int present_stop(const char *device, const char *dir)
{
	return waits_there(dir, device) ? present_umount(dir) : 0;
}

int present_clear(const char *dir)
{
	bool dead = busy_is_dead_mount(dir);

	for (unsigned i = 0; i < 16 && busy_is_dead_mount(dir); i++)
		if (umount2(dir, MNT_DETACH | UMOUNT_NOFOLLOW))
			return vol_fail(NULL, -errno, "%s, of a device that is there no more, cannot be unmounted: %s", dir, vol_strerror(-errno));
	/* Its unit may not have noticed yet, and would be in the way of the next. */
	if (dead && present_systemd() && !busy_is_mount(dir, NULL))
		(void)!systemd_umount(dir, 1);
	return 0;
}
