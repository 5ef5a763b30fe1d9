// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Where members are: $VD_CONFIG_DIR/devices (one path a line, # begins a
 * comment), vol_device_add(), and block devices that udev knows as vd_member.
 */
#include "find.h"

#include <fcntl.h>
#include <libudev.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

struct paths {
	char **path;
	size_t n, room;
};

static struct paths extra; /* vol_device_add() */

static int paths_add(struct paths *p, const char *path)
{
	if (p->n == p->room) {
		size_t room = p->room ? 2 * p->room : 16;
		char **grown = realloc(p->path, room * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		p->path = grown;
		p->room = room;
	}
	p->path[p->n] = strdup(path);
	if (!p->path[p->n])
		return -ENOMEM;
	p->n++;
	return 0;
}

static void paths_free(struct paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->path[i]);
	free(p->path);
	*p = (struct paths){ 0 };
}

static bool paths_have(const struct paths *p, const char *path)
{
	for (size_t i = 0; i < p->n; i++)
		if (!strcmp(p->path[i], path))
			return true;
	return false;
}

int vol_device_add(const char *path)
{
	int r = paths_add(&extra, path);

	return r ? vol_fail(NULL, r, "out of memory") : 0;
}

/* ---- devices file ------------------------------------------------------ */

static void file_path(char *buf, size_t size, const char *suffix)
{
	snprintf(buf, size, "%s/devices%s", vol_config_dir(), suffix);
}

/* Lines as they are, without their newline.  No file: none. */
static int read_lines(struct paths *lines)
{
	char path[4096], *line = NULL;
	size_t room = 0;
	ssize_t n;
	FILE *f;
	int r = 0;

	file_path(path, sizeof(path), "");
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : vol_fail(NULL, vol_errno(), "%s cannot be read: %s", path, strerror(errno));
	while (!r && (n = getline(&line, &room, f)) >= 0) {
		if (n && line[n - 1] == '\n')
			line[n - 1] = 0;
		r = paths_add(lines, line);
	}
	if (!r && ferror(f))
		r = vol_fail(NULL, -EIO, "%s cannot be read", path);
	free(line);
	fclose(f);
	return r;
}

static int write_lines(const struct paths *lines)
{
	char path[4096], fresh[4096];
	FILE *f;
	int fd, r = 0;

	file_path(path, sizeof(path), "");
	file_path(fresh, sizeof(fresh), ".new");
	fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		r = vol_errno();
		if (fd >= 0)
			close(fd);
		return vol_fail(NULL, r, "%s cannot be written: %s", fresh, strerror(-r));
	}
	for (size_t i = 0; i < lines->n; i++)
		fprintf(f, "%s\n", lines->path[i]);
	if (fflush(f) || fsync(fd))
		r = -errno;
	if (fclose(f) && !r)
		r = -errno;
	if (!r && rename(fresh, path))
		r = -errno;
	if (r) {
		unlink(fresh);
		return vol_fail(NULL, r, "%s cannot be written: %s", path, strerror(-r));
	}
	return 0;
}

/* The directory is the lock: the file itself is replaced. */
static int config_lock(void)
{
	const char *dir = vol_config_dir();
	int fd;

	if (mkdir(dir, 0755) && errno != EEXIST)
		return vol_fail(NULL, vol_errno(), "%s cannot be made: %s", dir, strerror(errno));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return vol_fail(NULL, vol_errno(), "%s cannot be opened: %s", dir, strerror(errno));
	while (flock(fd, LOCK_EX))
		if (errno != EINTR)
			break;
	return fd;
}

int vol_devices_remember(const char *const *path, unsigned n)
{
	struct paths lines = { 0 };
	int lock = config_lock(), r;
	bool changed = false;

	if (lock < 0)
		return lock;
	r = read_lines(&lines);
	for (unsigned i = 0; !r && i < n; i++) {
		if (paths_have(&lines, path[i]))
			continue;
		changed = true;
		r = paths_add(&lines, path[i]);
	}
	if (!r && changed)
		r = write_lines(&lines);
	paths_free(&lines);
	close(lock);
	return r;
}

int vol_devices_forget(const char *const *path, unsigned n)
{
	struct paths lines = { 0 }, kept = { 0 };
	int lock = config_lock(), r;

	if (lock < 0)
		return lock;
	r = read_lines(&lines);
	for (unsigned k = 0; !r && k < n; k++)
		if (!paths_have(&lines, path[k]))
			r = vol_fail(NULL, -ENOENT, "%s is not in %s/devices, and so is not looked at for that", path[k], vol_config_dir());
	for (size_t i = 0; !r && i < lines.n; i++) {
		bool drop = false;
		for (unsigned k = 0; k < n; k++)
			drop |= !strcmp(lines.path[i], path[k]);
		if (!drop)
			r = paths_add(&kept, lines.path[i]);
	}
	if (!r && kept.n != lines.n)
		r = write_lines(&kept);
	paths_free(&lines);
	paths_free(&kept);
	close(lock);
	return r;
}

/* ---- labels ------------------------------------------------------------ */

/* blocks, if given: as vd_member_read(), 0 where that has no answer. */
static int label_and_blocks(int fd, struct vd_disk_label *label, uint64_t *blocks)
{
	char name[sizeof(label->pool_name) + 1];
	struct vol_host *h;
	int copy, r;

	r = vol_host_new(&h);
	if (r)
		return r;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (copy < 0) {
		r = -errno;
		vol_host_free(h);
		return r;
	}
	r = vol_host_set_member(h, 0, copy, "label", false);
	if (r)
		close(copy);
	else
		r = vd_label_read(vol_host_vd(h), 0, label);
	if (!r && blocks && vd_member_read(vol_host_vd(h), 0, label, blocks))
		*blocks = 0;
	vol_host_free(h);
	if (r)
		return r;
	/* It becomes part of paths and of what is printed. */
	snprintf(name, sizeof(name), "%.*s", (int)sizeof(label->pool_name), label->pool_name);
	return vol_check_pool_name(name) ? -EBADMSG : 0;
}

int vol_label_fd(int fd, struct vd_disk_label *label)
{
	return label_and_blocks(fd, label, NULL);
}

static void take_label(struct vol_found *f, const struct vd_disk_label *label)
{
	memcpy(f->pool, label->pool, 16);
	memcpy(f->member, label->member, 16);
	snprintf(f->pool_name, sizeof(f->pool_name), "%.*s", (int)sizeof(label->pool_name) - 1, label->pool_name);
	f->index = le32_to_cpu(label->index);
	f->size = le64_to_cpu(label->blocks) << VD_BLOCK_SHIFT;
}

static int find_label(const char *path, bool sole, struct vol_found *f)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), r;
	struct vd_disk_label label;
	char *what = NULL;
	uint64_t blocks;

	r = fd < 0 ? vol_errno() : label_and_blocks(fd, &label, sole ? &blocks : NULL);
	if (r == -ENODATA)
		vol_fail(NULL, r = -ENOENT, "%s carries no label of a pool", path);
	else if (r)
		vol_fail(NULL, r, "the label of %s cannot be read: %s", path, vol_strerror(r));
	if (!r && sole) {
		r = vol_probe_beside(fd, VD_SYSTEM_BLOCKS << VD_BLOCK_SHIFT, blocks << VD_BLOCK_SHIFT, &what);
		if (r)
			vol_fail(NULL, r, "%s: cannot look for signatures on it: %s", path, vol_strerror(r));
		else if (what)
			r = vol_fail(NULL, -ENOTEMPTY, "%s carries a label of pool %.127s, and %s, where no volume could have put it", path,
				     label.pool_name, what);
		free(what);
	}
	if (fd >= 0)
		close(fd);
	if (r)
		return r;
	*f = (struct vol_found){ 0 };
	take_label(f, &label);
	return 0;
}

int vol_find_label(const char *path, struct vol_found *f)
{
	return find_label(path, false, f);
}

int vol_find_sole_label(const char *path, struct vol_found *f)
{
	return find_label(path, true, f);
}

struct seen {
	bool block;
	dev_t dev;
	ino_t ino;
};

struct search {
	struct vol_found *list;
	struct seen *seen;
	size_t n, room;
};

enum source { FROM_UDEV, FROM_FILE, FROM_CALLER };

static int look_at(struct search *s, const char *path, enum source from)
{
	struct vd_disk_label label;
	struct vol_found *f;
	struct seen id;
	struct stat st;
	int fd, r = 0;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st))
		r = -errno;
	else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		r = -ENOTBLK;
	if (!r) {
		id = (struct seen){ S_ISBLK(st.st_mode), S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev,
				    S_ISBLK(st.st_mode) ? 0 : st.st_ino };
		for (size_t i = 0; i < s->n; i++)
			if (s->seen[i].block == id.block && s->seen[i].dev == id.dev && s->seen[i].ino == id.ino &&
			    !s->list[i].error)
				goto out; /* another path to the same thing */
		r = vol_label_fd(fd, &label);
	} else {
		id = (struct seen){ 0 };
	}
	if (r && from == FROM_UDEV) {
		r = 0;
		goto out;
	}
	if (s->n == s->room) {
		size_t room = s->room ? 2 * s->room : 16;
		struct vol_found *list = realloc(s->list, room * sizeof(*list));
		if (list)
			s->list = list;
		struct seen *seen = list ? realloc(s->seen, room * sizeof(*seen)) : NULL;
		if (seen)
			s->seen = seen;
		if (!list || !seen) {
			r = -ENOMEM;
			goto out;
		}
		s->room = room;
	}
	f = &s->list[s->n];
	*f = (struct vol_found){ .path = strdup(path), .error = r, .configured = from != FROM_UDEV,
				 .explicit_path = from == FROM_CALLER };
	if (!f->path) {
		r = -ENOMEM;
		goto out;
	}
	if (!r)
		take_label(f, &label);
	s->seen[s->n++] = id;
	r = 0;
out:
	if (fd >= 0)
		close(fd);
	return r;
}

static int look_at_udev(struct search *s)
{
	struct udev *udev = udev_new();
	struct udev_enumerate *e = udev ? udev_enumerate_new(udev) : NULL;
	struct udev_list_entry *entry;
	int r = 0;

	if (e && udev_enumerate_add_match_subsystem(e, "block") >= 0 &&
	    udev_enumerate_add_match_tag(e, "vd_member") >= 0 && udev_enumerate_scan_devices(e) >= 0) {
		udev_list_entry_foreach(entry, udev_enumerate_get_list_entry(e)) {
			struct udev_device *d = udev_device_new_from_syspath(udev, udev_list_entry_get_name(entry));
			const char *node = d ? udev_device_get_devnode(d) : NULL;
			if (node && !r)
				r = look_at(s, node, FROM_UDEV);
			udev_device_unref(d);
		}
	}
	udev_enumerate_unref(e);
	udev_unref(udev);
	return r;
}

int vol_find_members(struct vol_found **list, size_t *n)
{
	struct search s = { 0 };
	struct paths lines = { 0 };
	int r;

	r = read_lines(&lines);
	for (size_t i = 0; !r && i < extra.n; i++)
		r = look_at(&s, extra.path[i], FROM_CALLER);
	for (size_t i = 0; !r && i < lines.n; i++) {
		const char *p = lines.path[i] + strspn(lines.path[i], " \t");
		if (*p && *p != '#')
			r = look_at(&s, p, FROM_FILE);
	}
	if (!r && !access("/run/udev/data", F_OK))
		r = look_at_udev(&s);
	paths_free(&lines);
	free(s.seen);
	if (r) {
		vol_found_free(s.list, s.n);
		return r == -ENOMEM ? vol_fail(NULL, r, "out of memory while looking for pools") : r;
	}
	*list = s.list;
	*n = s.n;
	return 0;
}

/* "/dev/sdb", as the kernel calls it. */
static int path_of(dev_t dev, char *path, size_t size)
{
	char file[64], line[256];
	int r = -ENODEV;
	FILE *f;

	snprintf(file, sizeof(file), "/sys/dev/block/%u:%u/uevent", major(dev), minor(dev));
	f = fopen(file, "re");
	while (f && r && fgets(line, sizeof(line), f))
		if (!strncmp(line, "DEVNAME=", 8)) {
			line[strcspn(line, "\n")] = 0;
			snprintf(path, size, "/dev/%s", line + 8);
			r = 0;
		}
	if (f)
		fclose(f);
	return r;
}

/* The path that people gave it; NULL: they did not. */
static const char *path_given(const struct paths *p, dev_t dev)
{
	struct stat st;

	for (size_t i = 0; i < p->n; i++) {
		const char *path = p->path[i] + strspn(p->path[i], " \t");

		if (!stat(path, &st) && S_ISBLK(st.st_mode) && st.st_rdev == dev)
			return path;
	}
	return NULL;
}

int vol_find_devices(const dev_t *dev, unsigned ndev, struct vol_found **list, size_t *n)
{
	struct search s = { 0 };
	struct paths lines = { 0 };
	int r = read_lines(&lines);

	for (unsigned i = 0; !r && i < ndev; i++) {
		const char *path = path_given(&extra, dev[i]);
		char name[300];

		if (!path)
			path = path_given(&lines, dev[i]);
		if (!path)
			r = path_of(dev[i], name, sizeof(name));
		if (!r)
			r = look_at(&s, path ? path : name, FROM_FILE);
	}
	paths_free(&lines);
	free(s.seen);
	if (r) {
		vol_found_free(s.list, s.n);
		return vol_fail(NULL, r, "the members that the kernel has open cannot be looked at: %s", vol_strerror(r));
	}
	*list = s.list;
	*n = s.n;
	return 0;
}

void vol_found_free(struct vol_found *list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i].path);
	free(list);
}
