// SPDX-License-Identifier: LGPL-2.1-or-later
/* Who or what keeps a block device busy. */
#include "busy.h"
#include "device.h"

#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define NAMESPACES_MAX 256

/* ---- a list in words ------------------------------------------------------- */

struct words { char *buf; size_t size, n; bool full; }; /* of 64 bytes at least */

__attribute__((format(printf, 2, 3)))
static void add_words(struct words *w, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (w->full)
		return;
	for (char *c = text; *c; c++) /* names of others' choosing, on a terminal */
		*c = (unsigned char)*c < ' ' || *c == 127 ? '?' : *c;
	w->full = w->n + strlen(text) + 8 >= w->size;
	w->n += (size_t)snprintf(w->buf + w->n, w->size - w->n, "%s%s", w->n ? ", " : "", w->full ? "…" : text);
}

/* ---- mounts ---------------------------------------------------------------- */

/* \040 and the like, in place. */
static void unescape(char *s)
{
	char *to = s;

	for (; *s; s++, to++) {
		if (s[0] == '\\' && s[1] && s[2] && s[3]) {
			*to = (char)((s[1] - '0') * 64 + (s[2] - '0') * 8 + (s[3] - '0'));
			s += 3;
		} else {
			*to = *s;
		}
	}
	*to = 0;
}

/* The device that a partition is of; another device is its own. */
static dev_t whole(dev_t dev)
{
	char path[96];
	unsigned a, b;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major(dev), minor(dev));
	if (access(path, F_OK))
		return dev;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major(dev), minor(dev));
	f = fopen(path, "re");
	if (!f)
		return dev;
	if (fscanf(f, "%u:%u", &a, &b) == 2)
		dev = makedev(a, b);
	fclose(f);
	return dev;
}

static bool is_dev(dev_t found, dev_t dev, bool partitions)
{
	return found == dev || (partitions && whole(found) == dev);
}

static bool path_is_dev(const char *path, dev_t dev, bool partitions)
{
	struct stat st;

	return path[0] == '/' && !stat(path, &st) && S_ISBLK(st.st_mode) && is_dev(st.st_rdev, dev, partitions);
}

/* Of file systems that show a number of their own (btrfs) the source tells. */
static bool source_is(const char *line, dev_t dev, bool partitions)
{
	/* … master:1 - btrfs /dev/loop3 rw,… */
	const char *at = strstr(line, " - ");
	char source[4096];

	if (!at || sscanf(at, " - %*s %4095s", source) != 1)
		return false;
	unescape(source);
	return path_is_dev(source, dev, partitions);
}

int busy_mounts(const char *pid, dev_t dev, bool partitions, int (*fn)(void *arg, const char *dir), void *arg)
{
	unsigned major_, minor_;
	char path[64], *line = NULL, *dir;
	size_t size = 0;
	int r = 0, at = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.16s/mountinfo", pid);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	while (!r && getline(&line, &size, f) > 0) {
		/* 36 35 98:0 /root /mnt … */
		if (sscanf(line, "%*u %*u %u:%u %*s %n", &major_, &minor_, &at) != 2 ||
		    (!is_dev(makedev(major_, minor_), dev, partitions) && (major_ || !source_is(line, dev, partitions))))
			continue;
		dir = line + at;
		dir[strcspn(dir, " \n")] = 0;
		unescape(dir);
		r = fn(arg, dir);
	}
	free(line);
	fclose(f);
	return r;
}

/* A line of mountinfo's: where, of what type, from what.  All of it is in `line`. */
static bool take_apart(char *line, dev_t *dev, char **dir, char **type, char **source)
{
	unsigned major_, minor_;
	char *at = strstr(line, " - ");
	int n = 0;

	if (!at || sscanf(line, "%*u %*u %u:%u %*s %n", &major_, &minor_, &n) != 2 || !n)
		return false;
	*dev = makedev(major_, minor_);
	*at = 0;
	*dir = line + n;
	(*dir)[strcspn(*dir, " ")] = 0;
	*type = at + 3;
	at = strchr(*type, ' ');
	if (!at)
		return false;
	*at = 0;
	*source = at + 1;
	(*source)[strcspn(*source, " \n")] = 0;
	unescape(*dir);
	unescape(*source);
	return true;
}

int busy_sources(int (*fn)(void *arg, const char *source, const char *dir), void *arg)
{
	char *line = NULL, *dir, *type, *source;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	size_t size = 0;
	struct stat st;
	dev_t dev;
	int r = 0;

	if (!f)
		return vol_fail(NULL, -errno, "/proc/self/mountinfo: %s", vol_strerror(-errno));
	while (!r && getline(&line, &size, f) > 0)
		if (take_apart(line, &dev, &dir, &type, &source) && source[0] == '/' && !stat(source, &st) && S_ISBLK(st.st_mode))
			r = fn(arg, source, dir);
	free(line);
	fclose(f);
	return r;
}

/* Of the last mount there, with `only`: of the last of that type. */
static bool last_mount(const char *want, const char *only, dev_t *dev, char type[32], char source[256])
{
	char *line = NULL, *dir, *t, *from;
	FILE *f = fopen("/proc/self/mountinfo", "re");
	bool is = false;
	size_t size = 0;
	dev_t of;

	while (f && getline(&line, &size, f) > 0)
		if (take_apart(line, &of, &dir, &t, &from) && !strcmp(dir, want) && (!only || !strcmp(t, only))) {
			is = true;
			*dev = of;
			snprintf(type, 32, "%s", t);
			snprintf(source, 256, "%s", from);
		}
	free(line);
	if (f)
		fclose(f);
	return is;
}

bool busy_sees_mounts(void)
{
	struct stat own, host;

	return stat("/proc/self/ns/mnt", &own) || stat("/proc/1/ns/mnt", &host) || own.st_ino == host.st_ino;
}

bool busy_is_mount(const char *dir, const char *type)
{
	char t[32], source[256];
	dev_t dev;

	return last_mount(dir, NULL, &dev, t, source) && (!type || !strcmp(t, type));
}

bool busy_has_mount(const char *dir, const char *type)
{
	char t[32], source[256];
	dev_t dev;

	return last_mount(dir, type, &dev, t, source);
}

void busy_mount_type(const char *dir, char *type, size_t size)
{
	char t[32] = "", source[256];
	dev_t dev;

	snprintf(type, size, "%s", last_mount(dir, NULL, &dev, t, source) ? t : "");
}

/* Another may have its name by now, but not its number while it is mounted. */
bool busy_is_dead_mount(const char *dir)
{
	char type[32], source[256], path[64];
	dev_t dev;

	if (!last_mount(dir, NULL, &dev, type, source) || strncmp(source, "/dev/", 5))
		return false;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	return access(major(dev) ? path : source, F_OK);
}

struct mounted { struct words *w; const char *pid, *comm; };

static int add_mount(void *arg, const char *dir)
{
	struct mounted *m = arg;

	if (m->pid)
		add_words(m->w, "the mount on %s in the mount namespace of %s (%.16s)", dir, m->comm, m->pid);
	else
		add_words(m->w, "the mount on %s", dir);
	return 0;
}

/* Each mount namespace is looked at once, as the first of its processes sees it.  One that
 * has no process, but is bound somewhere, is not seen. */
static void add_mounts(struct words *w, dev_t dev)
{
	ino_t seen[NAMESPACES_MAX];
	struct mounted m = { .w = w };
	char path[64], comm[64];
	unsigned n = 0, i;
	struct dirent *e;
	struct stat st;
	DIR *d;

	(void)!busy_mounts("self", dev, true, add_mount, &m);
	if (!stat("/proc/self/ns/mnt", &st))
		seen[n++] = st.st_ino;
	d = opendir("/proc");
	while (d && n < NAMESPACES_MAX && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%.16s/ns/mnt", e->d_name);
		if (!isdigit((unsigned char)e->d_name[0]) || stat(path, &st))
			continue;
		for (i = 0; i < n && seen[i] != st.st_ino; i++)
			;
		if (i < n)
			continue;
		seen[n++] = st.st_ino;
		(void)vol_process((pid_t)atoi(e->d_name), comm, NULL);
		m.pid = e->d_name;
		m.comm = comm;
		(void)!busy_mounts(m.pid, dev, true, add_mount, &m);
	}
	if (d)
		closedir(d);
}

/* ---- swap, and devices on it ----------------------------------------------- */

static void add_swap(struct words *w, dev_t dev)
{
	char *line = NULL, path[4096];
	FILE *f = fopen("/proc/swaps", "re");
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		if (sscanf(line, "%4095s", path) != 1)
			continue;
		unescape(path);
		if (path_is_dev(path, dev, true))
			add_words(w, "swap (swapoff %s)", path);
	}
	free(line);
	if (f)
		fclose(f);
}

static void add_holders(struct words *w, const char *dir)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			add_words(w, "/dev/%s, which is made on it", e->d_name);
	if (d)
		closedir(d);
}

static void add_devices(struct words *w, dev_t dev)
{
	char dir[64], path[360];
	struct dirent *e;
	DIR *d;

	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	snprintf(path, sizeof(path), "%s/holders", dir);
	add_holders(w, path);
	d = opendir(dir);
	while (d && (e = readdir(d))) {
		snprintf(path, sizeof(path), "%s/%s/partition", dir, e->d_name);
		if (e->d_name[0] == '.' || access(path, F_OK))
			continue;
		snprintf(path, sizeof(path), "%s/%s/holders", dir, e->d_name);
		add_holders(w, path);
	}
	if (d)
		closedir(d);
}

void busy_otherwise(const char *dev, char *buf, size_t size)
{
	struct words w = { .buf = buf, .size = size, .n = strlen(buf) };
	struct stat st;

	if (stat(dev, &st) || !S_ISBLK(st.st_mode))
		return;
	add_swap(&w, st.st_rdev);
	add_devices(&w, st.st_rdev);
	add_mounts(&w, st.st_rdev);
}

/* ---- processes ------------------------------------------------------------- */

/* One of a process's links or open files is on the file system, or is the device. */
static bool uses(const char *path, dev_t fs, dev_t blk)
{
	struct stat st;

	if (stat(path, &st))
		return false;
	return (fs && st.st_dev == fs) || (blk && S_ISBLK(st.st_mode) && st.st_rdev == blk);
}

static bool process_uses(const char *pid, dev_t fs, dev_t blk)
{
	static const char *const links[] = { "cwd", "root", "exe" };
	char path[320];
	struct dirent *e;
	bool found = false;
	DIR *d;

	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "/proc/%s/%s", pid, links[i]);
		if (uses(path, fs, blk))
			return true;
	}
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	d = opendir(path);
	while (d && !found && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/proc/%.16s/fd/%.16s", pid, e->d_name);
		found = isdigit((unsigned char)e->d_name[0]) && uses(path, fs, blk);
	}
	if (d)
		closedir(d);
	return found;
}

static void users_of(const char *path, pid_t but, char *buf, size_t size)
{
	struct words w = { .buf = buf, .size = size };
	dev_t fs, blk = 0;
	struct dirent *e;
	struct stat st;
	char comm[64];
	pid_t pid;
	DIR *d;

	buf[0] = 0;
	if (stat(path, &st))
		return;
	fs = st.st_dev;
	if (S_ISBLK(st.st_mode))
		fs = blk = st.st_rdev; /* its file system may be mounted nowhere any more */
	d = opendir("/proc");
	while (d && (e = readdir(d))) {
		pid = (pid_t)atoi(e->d_name); /* 0: no process */
		if (!pid || pid == getpid() || pid == but || !process_uses(e->d_name, fs, blk))
			continue;
		(void)vol_process(pid, comm, NULL);
		add_words(&w, "%s (%.16s)", comm, e->d_name);
	}
	if (d)
		closedir(d);
}

void device_users(const char *path, char *buf, size_t size)
{
	users_of(path, 0, buf, size);
}

int device_unused(const char *path)
{
	return device_unused_but(path, 0);
}

int device_unused_but(const char *path, pid_t but)
{
	char users[512];

	users_of(path, but, users, sizeof(users));
	return users[0] ? vol_fail(NULL, -EBUSY, "%s is in use by %s", path, users) : 0;
}
