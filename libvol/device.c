// SPDX-License-Identifier: LGPL-2.1-or-later
/* Block devices of this host, for links. */
#include "device.h"
#include "busy.h"
#include "events.h"

#include <blkid/blkid.h>
#include <dirent.h>
#include <fcntl.h>
#include <libudev.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <linux/nbd.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

#define LOOP_TRIES 32
#define STACK_MAX 16 /* devices on devices, looked through */

/* One line of a file below /sys/block; "" when it cannot be read. */
static void sys_read(const char *dev, const char *attr, char *buf, size_t size)
{
	char path[256];
	ssize_t n;
	int fd;

	buf[0] = 0;
	snprintf(path, sizeof(path), "/sys/block/%s/%s", dev, attr);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, buf, size - 1);
	close(fd);
	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

static const char *base_name(const char *dev)
{
	const char *slash = strrchr(dev, '/');

	return slash ? slash + 1 : dev;
}

/* Again for a while: udev looks at a device that has just been closed. */
#define BUSY_MS 2000
#define DETACH_MS 5000

static int fail_busy(const char *dev, const char *users)
{
	return vol_fail(NULL, -EBUSY, "%s is in use%s%s", dev, users[0] ? " by " : "", users[0] ? users :
			"; stop what uses it (swap, RAID, LVM, a partition, a mount in another namespace) first");
}

/* ---- nbd ----------------------------------------------------------------- */

bool device_have_nbd(void)
{
	return !access("/sys/block/nbd0", F_OK) && !access("/dev/nbd0", F_OK);
}

int device_nbd_free(char dev[DEVICE_PATH])
{
	char name[16], size[32], pid[32];

	for (unsigned i = 0; i < 1024; i++) {
		snprintf(name, sizeof(name), "nbd%u", i);
		sys_read(name, "size", size, sizeof(size));
		if (!size[0])
			break;
		sys_read(name, "pid", pid, sizeof(pid));
		snprintf(dev, DEVICE_PATH, "/dev/%s", name);
		if (!strcmp(size, "0") && !pid[0] && !access(dev, F_OK))
			return 0;
	}
	return vol_fail(NULL, -ENODEV, "every nbd device is in use; load the module with a larger nbds_max");
}

bool device_nbd_of(const char *dev, pid_t front)
{
	char pid[32];

	if (strncmp(dev, "/dev/nbd", 8))
		return false;
	sys_read(dev + 5, "pid", pid, sizeof(pid));
	return pid[0] && atoi(pid) == front;
}

int device_nbd_disconnect(const char *dev, pid_t front)
{
	int64_t end = vol_now_ms() + BUSY_MS;
	struct vol_events *events = NULL;
	char users[512];
	int fd, r;

	for (;; vol_events_look(&events)) {
		fd = open(dev, O_RDWR | O_CLOEXEC | O_EXCL);
		r = fd < 0 ? -errno : device_unused_but(dev, front);
		if (r != -EBUSY || vol_now_ms() >= end)
			break;
		if (fd >= 0)
			close(fd);
	}
	vol_events_free(events);
	if (r == -EBUSY && fd < 0) {
		users[0] = 0;
		busy_otherwise(dev, users, sizeof(users));
		return fail_busy(dev, users);
	}
	if (r != -EBUSY && (r || ioctl(fd, NBD_DISCONNECT))) {
		r = r ? r : -errno;
		vol_fail(NULL, r, "%s cannot be disconnected: %s", dev, vol_strerror(r));
	}
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- loop ---------------------------------------------------------------- */

/* Which is open on return. */
static int loop_attach(const char *file, struct loop_config *config, char dev[DEVICE_PATH], int *out)
{
	int how = (config->info.lo_flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	int control, fd, n, r = -EBUSY;

	control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	if (control < 0)
		return vol_fail(NULL, -errno, "no loop devices here: /dev/loop-control: %s; 'modprobe loop' may help",
				vol_strerror(-errno));
	snprintf((char *)config->info.lo_file_name, sizeof(config->info.lo_file_name), "%s", file);
	/* Another process may take the free one first: then it is EBUSY, and the next one's turn. */
	for (unsigned i = 0; i < LOOP_TRIES && r == -EBUSY; i++) {
		n = ioctl(control, LOOP_CTL_GET_FREE);
		if (n < 0) {
			r = -errno;
			break;
		}
		snprintf(dev, DEVICE_PATH, "/dev/loop%d", n);
		fd = open(dev, how);
		for (unsigned ms = 0; fd < 0 && errno == ENOENT && ms < 2000; ms += 20) {
			vol_nap(20); /* devtmpfs or udev makes the node */
			fd = open(dev, how);
		}
		if (fd < 0) {
			r = -errno;
			break;
		}
		r = ioctl(fd, LOOP_CONFIGURE, config) ? -errno : 0;
		if (r)
			close(fd);
		else
			*out = fd;
	}
	if (r)
		vol_fail(NULL, r, "no loop device could be made on %s: %s", file, vol_strerror(r));
	close(control);
	return r;
}

int device_loop_attach(const char *file, unsigned sector, bool readonly, char dev[DEVICE_PATH])
{
	struct loop_config config = {
		.block_size = sector,
		.info = { .lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_PARTSCAN | (readonly ? LO_FLAGS_READ_ONLY : 0) },
	};
	struct stat st;
	int backing, fd, r;

	backing = open(file, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_DIRECT);
	if (backing < 0)
		return vol_fail(NULL, -errno, "%s cannot be opened: %s", file, vol_strerror(-errno));
	config.fd = (unsigned)backing;
	/* An older loop driver (6.1) takes the size that the inode has in
	 * memory, and a FUSE file that nobody has asked for its attributes has none. */
	if (fstat(backing, &st)) {
		r = vol_fail(NULL, -errno, "%s: %s", file, vol_strerror(-errno));
	} else {
		r = loop_attach(file, &config, dev, &fd);
		if (!r)
			close(fd);
	}
	close(backing);
	return r;
}

/* Through the page cache, which all volumes on this image share. */
int device_loop_image(const char *file, int backing, uint64_t size, int *fd)
{
	struct loop_config config = {
		.fd = (unsigned)backing,
		.block_size = 512,
		/* The limit changes nothing: by it and the flags udev's rule knows the device. */
		.info = { .lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR, .lo_sizelimit = size },
	};
	char dev[DEVICE_PATH];

	return loop_attach(file, &config, dev, fd);
}

int device_loop_detach(const char *dev)
{
	char users[512], holder[16], name[64];
	int64_t end = vol_now_ms() + BUSY_MS;
	struct vol_events *events = NULL;
	int fd, r;

	for (;; vol_events_look(&events)) {
		fd = open(dev, O_RDONLY | O_CLOEXEC | O_EXCL);
		r = fd < 0 ? -errno : 0;
		users[0] = 0;
		if (!r)
			device_users(dev, users, sizeof(users));
		if ((!r && !users[0]) || (r && r != -EBUSY) || vol_now_ms() >= end)
			break;
		if (!r)
			close(fd);
	}
	vol_events_free(events);
	events = NULL;
	if (r == -EBUSY) {
		device_users(dev, users, sizeof(users));
		busy_otherwise(dev, users, sizeof(users));
		return fail_busy(dev, users);
	}
	if (r)
		return vol_fail(NULL, r, "%s cannot be opened: %s", dev, vol_strerror(r));
	/* While others have it open the kernel only notes the wish and is content:
	 * the front would then live on behind a link that is said to be gone. */
	if (users[0])
		r = fail_busy(dev, users);
	else if (ioctl(fd, LOOP_CLR_FD))
		r = vol_fail(NULL, -errno, "%s cannot be detached: %s", dev, vol_strerror(-errno));
	close(fd);
	/* It goes with the last closing: udev may still be looking. */
	snprintf(name, sizeof(name), "%s", base_name(dev));
	for (end = vol_now_ms() + DETACH_MS; !r && vol_now_ms() < end; vol_events_look(&events)) {
		sys_read(name, "loop/backing_file", holder, sizeof(holder));
		if (!holder[0])
			break;
	}
	vol_events_free(events);
	if (r || !holder[0])
		return r;
	device_users(dev, users, sizeof(users));
	return fail_busy(dev, users);
}

int device_loop_nth(const char *file, unsigned n, char dev[DEVICE_PATH])
{
	DIR *d = opendir("/sys/block");
	char backing[4096];
	struct dirent *e;
	int r = -ENODEV;

	if (!d)
		return -ENODEV;
	while (r && (e = readdir(d))) {
		if (strncmp(e->d_name, "loop", 4))
			continue;
		sys_read(e->d_name, "loop/backing_file", backing, sizeof(backing));
		if (!strcmp(backing, file) && !n--) {
			snprintf(dev, DEVICE_PATH, "/dev/%.20s", e->d_name);
			r = 0;
		}
	}
	closedir(d);
	return r;
}

int device_loop_resize(const char *dev)
{
	int fd = open(dev, O_RDONLY | O_CLOEXEC);
	int r = 0;

	if (fd < 0 || ioctl(fd, LOOP_SET_CAPACITY, 0))
		r = vol_fail(NULL, -errno, "%s does not take its new size: %s", dev, vol_strerror(-errno));
	if (fd >= 0)
		close(fd);
	return r;
}

int device_size(const char *dev, uint64_t *size)
{
	int fd = open(dev, O_RDONLY | O_CLOEXEC);
	int r = 0;

	if (fd < 0 || ioctl(fd, BLKGETSIZE64, size))
		r = -errno;
	if (fd >= 0)
		close(fd);
	return r;
}

/* ---- what it is on ------------------------------------------------------- */

static bool stands(dev_t dev, dev_t below, unsigned depth);

static bool slave_stands(dev_t dev, const char *slave, dev_t below, unsigned depth)
{
	unsigned major_, minor_;
	char path[384];
	bool found;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/slaves/%s/dev", major(dev), minor(dev), slave);
	f = fopen(path, "re");
	if (!f)
		return false;
	found = fscanf(f, "%u:%u", &major_, &minor_) == 2 && stands(makedev(major_, minor_), below, depth);
	fclose(f);
	return found;
}

static bool stands(dev_t dev, dev_t below, unsigned depth)
{
	char path[96], name[32], file[4096];
	struct dirent *e;
	struct stat st;
	bool found = false;
	DIR *d;

	if (dev == below)
		return true;
	if (!depth--)
		return false;
	snprintf(name, sizeof(name), "loop%u", minor(dev));
	sys_read(name, "loop/backing_file", file, sizeof(file));
	if (major(dev) == LOOP_MAJOR && *file && !stat(file, &st))
		return stands(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev, below, depth);
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/slaves", major(dev), minor(dev));
	d = opendir(path);
	while (d && !found && (e = readdir(d)))
		found = e->d_name[0] != '.' && slave_stands(dev, e->d_name, below, depth);
	if (d)
		closedir(d);
	return found;
}

bool device_stands_on(dev_t dev, dev_t below)
{
	return stands(dev, below, STACK_MAX);
}

/* ---- what is on it ------------------------------------------------------- */

static void lookup(blkid_probe pr, const char *name, char *buf, size_t size)
{
	const char *s;

	if (!blkid_probe_lookup_value(pr, name, &s, NULL))
		snprintf(buf, size, "%s", s);
}

struct probe { char dev[256]; struct device_content content; };

static int probe(void *arg)
{
	struct probe *p = arg;
	struct device_content *out = &p->content;
	const char *dev = p->dev;
	blkid_probe pr = blkid_new_probe_from_filename(dev);
	int r;

	memset(out, 0, sizeof(*out));
	if (!pr)
		return vol_fail(NULL, -EIO, "%s cannot be looked at: %s", dev, vol_strerror(-errno));
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID);
	blkid_probe_enable_partitions(pr, 1);
	r = blkid_do_safeprobe(pr);
	if (r == -2)
		r = vol_fail(NULL, -ENOTUNIQ, "%s carries the marks of more than one file system; 'wipefs %s' shows them", dev, dev);
	else if (r < 0)
		r = vol_fail(NULL, -EIO, "%s cannot be read", dev);
	else if (!r) {
		lookup(pr, "TYPE", out->type, sizeof(out->type));
		lookup(pr, "USAGE", out->usage, sizeof(out->usage));
		lookup(pr, "LABEL", out->label, sizeof(out->label));
		lookup(pr, "UUID", out->uuid, sizeof(out->uuid));
		if (!out->type[0]) {
			lookup(pr, "PTTYPE", out->type, sizeof(out->type));
			if (out->type[0])
				snprintf(out->usage, sizeof(out->usage), "partition table");
		}
	}
	blkid_free_probe(pr);
	return r < 0 ? r : 0;
}

static int probe_within(const char *dev, struct device_content *out, unsigned times)
{
	struct probe p = { 0 };
	int r;

	if (snprintf(p.dev, sizeof(p.dev), "%s", dev) >= (int)sizeof(p.dev))
		return vol_fail(NULL, -ENAMETOOLONG, "the name of a device is longer than %zu bytes", sizeof(p.dev) - 1);
	r = device_apart(probe, &p, sizeof(p), dev, times);
	*out = p.content;
	return r;
}

int device_probe(const char *dev, struct device_content *out)
{
	return probe_within(dev, out, 1);
}

int device_probe_soon(const char *dev, struct device_content *out)
{
	return probe_within(dev, out, 0);
}

/* Its database may be of a device that had the number before: by the name it is known. */
bool device_known(const char *dev, struct device_content *out)
{
	const char *name = NULL, *type = NULL;
	struct udev_device *d = NULL;
	struct udev *udev;
	struct stat st;

	if (stat(dev, &st) || !S_ISBLK(st.st_mode))
		return false;
	udev = udev_new();
	if (udev)
		d = udev_device_new_from_devnum(udev, 'b', st.st_rdev);
	if (d) {
		name = udev_device_get_property_value(d, "DM_NAME");
		type = udev_device_get_property_value(d, "ID_FS_TYPE");
	}
	type = name && type && !strcmp(name, base_name(dev)) ? type : "";
	memset(out, 0, sizeof(*out));
	snprintf(out->type, sizeof(out->type), "%s", type);
	udev_device_unref(d);
	udev_unref(udev);
	return out->type[0];
}

bool device_known_uuid(dev_t dev, struct device_content *out)
{
	struct udev *udev = udev_new();
	struct udev_device *d = udev ? udev_device_new_from_devnum(udev, 'b', dev) : NULL;
	const char *type = d ? udev_device_get_property_value(d, "ID_FS_TYPE") : NULL;
	const char *uuid = d ? udev_device_get_property_value(d, "ID_FS_UUID") : NULL;

	memset(out, 0, sizeof(*out));
	snprintf(out->type, sizeof(out->type), "%s", type ? type : "");
	snprintf(out->uuid, sizeof(out->uuid), "%s", uuid ? uuid : "");
	udev_device_unref(d);
	udev_unref(udev);
	return out->type[0] && out->uuid[0];
}

/* ---- mounts -------------------------------------------------------------- */

#define MOUNTS_MAX 256

struct dirs { char *dir[MOUNTS_MAX]; unsigned n; };

static int take_dir(void *arg, const char *dir)
{
	struct dirs *d = arg;

	if (d->n == MOUNTS_MAX)
		return 0;
	d->dir[d->n] = strdup(dir);
	return d->dir[d->n++] ? 0 : -ENOMEM;
}

int device_mounts(const char *dev, int (*fn)(void *arg, const char *dir), void *arg)
{
	struct dirs d = { .n = 0 };
	struct stat st;
	int r;

	if (stat(dev, &st) || !S_ISBLK(st.st_mode))
		return 0;
	r = busy_mounts("self", st.st_rdev, false, take_dir, &d);
	while (d.n-- > 0) {
		if (!r)
			r = fn(arg, d.dir[d.n]);
		free(d.dir[d.n]);
	}
	return r;
}

/* What mounting a device that nobody may write needs, besides ro: no replay of a
 * log, and, as a snapshot has its origin's UUID, no refusal because of that. */
static const char *readonly_options(const char *type)
{
	if (!strcmp(type, "xfs"))
		return "ro,norecovery,nouuid";
	return "ro";
}

/* ---- what may wait for a device ---------------------------------------------- */

static int64_t patience; /* ms; 0: without end */

void device_patience(int64_t ms)
{
	patience = ms;
}

/* Until it has ended, or `fd` has something to read.  -ETIMEDOUT, -EINTR only with patience. */
static int wait_child(int process, int fd, int64_t deadline)
{
	for (;;) {
		struct pollfd p[2] = { { process, POLLIN, 0 }, { fd, POLLIN, 0 } };

		if (patience && vol_interrupted())
			return vol_fail(NULL, -EINTR, "interrupted");
		if (patience && vol_now_ms() >= deadline)
			return -ETIMEDOUT;
		if (poll(p, 2, patience ? 200 : -1) > 0)
			return p[1].revents ? 1 : 0;
	}
}

struct apart { int r; struct vol_errbuf error; char arg[]; };

int device_apart(int (*fn)(void *arg), void *arg, size_t size, const char *what, unsigned times)
{
	struct apart *a;
	int process, r;
	pid_t pid;

	if (!patience)
		return fn(arg);
	a = mmap(NULL, sizeof(*a) + size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (a == MAP_FAILED)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	memcpy(a->arg, arg, size);
	a->r = -EIO; /* it may be killed */
	snprintf(a->error.text, sizeof(a->error.text), "the process that was to look at %.200s has ended", what);
	pid = fork();
	if (!pid) {
		close_range(3, ~0u, 0); /* connections end although this does not */
		a->r = fn(a->arg);
		snprintf(a->error.text, sizeof(a->error.text), "%s", a->r ? vol_error(NULL) : "");
		_exit(0);
	}
	process = pid > 0 ? pidfd_open(pid, 0) : -1;
	r = pid < 0 || process < 0 ? vol_fail(NULL, -errno, "no process: %s", vol_strerror(-errno)) : wait_child(process, -1, vol_now_ms() + (times ? patience * times : patience / 10));
	if (r == -ETIMEDOUT)
		vol_fail(NULL, r, "%s does not answer", what);
	if (r && pid > 0)
		kill(pid, SIGKILL); /* as soon as the kernel lets it */
	if (pid > 0 && (!r || process < 0))
		waitpid(pid, NULL, 0);
	if (process >= 0)
		close(process);
	if (!r) {
		r = a->r;
		memcpy(arg, a->arg, size);
		if (r)
			vol_fail(NULL, r, "%s", a->error.text);
	}
	munmap(a, sizeof(*a) + size);
	return r;
}

static int start(char *const argv[], int out, pid_t *pid)
{
	short flags = POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none, pipe_;
	int r;

	/* Which a program with threads may have changed for itself. */
	sigemptyset(&none);
	sigemptyset(&pipe_);
	sigaddset(&pipe_, SIGPIPE);
	posix_spawnattr_init(&at);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setsigdefault(&at, &pipe_);
	/* Ended, when it must be, with all that it has started. */
	posix_spawnattr_setflags(&at, patience ? flags | POSIX_SPAWN_SETPGROUP : flags);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, out, 1);
	posix_spawn_file_actions_adddup2(&fa, out, 2);
	r = -posix_spawnp(pid, argv[0], &fa, &at, argv, environ);
	posix_spawn_file_actions_destroy(&fa);
	posix_spawnattr_destroy(&at);
	return r ? vol_fail(NULL, r, "%s cannot be run: %s", argv[0], vol_strerror(r)) : 0;
}

/* What does not fit is heard, and forgotten. */
static void hear(int fd, char *said, size_t size, size_t *n)
{
	char rest[256];
	ssize_t got;

	do {
		got = *n < size - 1 ? read(fd, said + *n, size - 1 - *n) : read(fd, rest, sizeof(rest));
		if (got > 0 && *n < size - 1)
			*n += (size_t)got;
	} while (got > 0 || (got < 0 && errno == EINTR));
}

int device_run(char *const argv[], char *said, size_t size, unsigned times)
{
	int64_t deadline = vol_now_ms() + patience * times;
	int p[2], process, status = 0, r;
	size_t n = 0;
	pid_t pid;

	said[0] = 0;
	if (pipe2(p, O_CLOEXEC))
		return vol_fail(NULL, -errno, "no pipe: %s", vol_strerror(-errno));
	r = start(argv, p[1], &pid);
	close(p[1]);
	if (r) {
		close(p[0]);
		return r;
	}
	process = pidfd_open(pid, 0);
	fcntl(p[0], F_SETFL, O_NONBLOCK);
	/* What it has left running may have the pipe, still: its own end counts. */
	do {
		r = process < 0 ? vol_fail(NULL, -errno, "%s cannot be waited for: %s", argv[0], vol_strerror(-errno)) :
				  wait_child(process, p[0], deadline);
		if (r > 0) {
			struct pollfd ended = { process, POLLIN, 0 };

			hear(p[0], said, size, &n);
			r = poll(&ended, 1, 10) <= 0;
		}
	} while (r > 0);
	hear(p[0], said, size, &n);
	said[n] = 0;
	said[strcspn(said, "\n")] = 0;
	if (r) {
		if (r == -ETIMEDOUT)
			vol_fail(NULL, r, "%s has not ended within %d seconds, and was ended", argv[0], (int)(patience * times / 1000));
		kill(patience ? -pid : pid, SIGKILL);
		vol_nap(100);
		(void)!waitpid(pid, NULL, WNOHANG); /* which does not help with one that waits for a disk */
	} else {
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	}
	if (process >= 0)
		close(process);
	close(p[0]);
	return r ? r : WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : vol_fail(NULL, -EIO, "%s said: %s", argv[0], said);
}

int device_mount_options(const struct device_content *c, bool readonly, const char *options, char *buf, size_t size)
{
	int n = snprintf(buf, size, "%s%s%s", readonly ? readonly_options(c->type) : "rw", options && *options ? "," : "",
			 options ? options : "");

	return n < 0 || (size_t)n >= size ?
	       vol_fail(NULL, -ENAMETOOLONG, "the options of the mount are longer than %zu bytes", size - 1) : 0;
}

int device_mount(const char *dev, const char *dir, const struct device_content *c, bool readonly, const char *options)
{
	char opts[512], said[1024], *argv[] = { "mount", "-t", (char *)c->type, "-o", opts, (char *)dev, (char *)dir, NULL };
	int r = device_mount_options(c, readonly, options, opts, sizeof(opts));

	if (!r)
		r = device_run(argv, said, sizeof(said), 1);
	if (r == -EIO && readonly && !strncmp(c->type, "ext", 3))
		vol_fail(NULL, r, "%s"
			 "\na file system whose journal must be replayed cannot be mounted from a device that nobody may write;"
			 "\nfreeze it while you take the snapshot (fsfreeze -f DIR), or link the snapshot without --readonly", vol_error(NULL));
	return r;
}

static int unmount(void *dir)
{
	return umount2(dir, UMOUNT_NOFOLLOW) ? vol_fail(NULL, -errno, "%s", "") : 0;
}

int device_umount(const char *dir)
{
	char path[4096];
	int r;

	snprintf(path, sizeof(path), "%s", dir);
	r = device_apart(unmount, path, sizeof(path), dir, 3);
	if (!r || r == -ETIMEDOUT || r == -EINTR)
		return r;
	if (r != -EBUSY)
		return vol_fail(NULL, r, "%s cannot be unmounted: %s", dir, vol_strerror(r));
	return device_unused(dir) ? r : vol_fail(NULL, r, "%s is busy, and no process has it open: another mount is below it, or a swap file on it", dir);
}
