// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Members as the engine's host, the redo tail, and the background worker.
 *
 * Member table: a slot's fd is set once (create, open, pool-add) and read
 * without a lock by any thread; -1 is a missing member.
 */
#include "host.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "device.h"

/* In what stretches files of members grow, and what their file system must have free for it: where
 * it has less, a checkpoint is not to find that data has taken the last of it. */
#define STRETCH (4u << 20)
#define STRETCH_MARGIN (64ull * STRETCH)

struct member {
	atomic_int fd;
	bool is_file;
	char *path;
	atomic_uchar *grown; /* bit for each stretch: seen to; NULL: nobody does */
	uint64_t stretches;
};

struct vol_host {
	struct vd_host vd;
	struct member member[VD_MEMBERS_MAX];

	bool identified, readonly, quiet;
	char uuid[VOL_UUID_TEXT];
	char name[VOL_NAME_SIZE];
	void *tail;
	size_t tail_size;

	struct vd_pool *pool; /* what the worker works on */
	pthread_t worker;
	bool working;
	pthread_mutex_t lock; /* kicked, stopping */
	pthread_cond_t wake;
	bool kicked, stopping;
	pthread_mutex_t growing; /* one at a time; grow_said */
	bool grow_said;          /* why it does not grow */
};

/* ---- member I/O -------------------------------------------------------- */

static int host_read(void *ctx, unsigned member, uint64_t block, void *buf, unsigned nblocks)
{
	struct vol_host *h = ctx;
	int fd = vol_host_fd(h, member);
	size_t left = (size_t)nblocks << VD_BLOCK_SHIFT;
	off_t off = (off_t)(block << VD_BLOCK_SHIFT);
	char *p = buf;

	if (fd < 0)
		return -ENODEV;
	while (left) {
		ssize_t n = pread(fd, p, left, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* shorter than its label says */
		p += n;
		off += n;
		left -= (size_t)n;
	}
	return 0;
}

static int put(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks, int flags)
{
	struct vol_host *h = ctx;
	int fd = vol_host_fd(h, member);
	size_t left = (size_t)nblocks << VD_BLOCK_SHIFT;
	off_t off = (off_t)(block << VD_BLOCK_SHIFT);
	const char *p = buf;

	if (fd < 0)
		return -ENODEV;
	while (left) {
		struct iovec iov = { (void *)p, left };
		ssize_t n = pwritev2(fd, &iov, 1, off, flags);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		off += n;
		left -= (size_t)n;
	}
	return 0;
}

static int host_write(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks)
{
	return put(ctx, member, block, buf, nblocks, 0);
}

void vol_host_writes(struct vol_host *h, unsigned member, uint64_t block)
{
	struct member *m = &h->member[member];
	uint64_t nr = (block << VD_BLOCK_SHIFT) / STRETCH;
	off_t at = (off_t)(nr * STRETCH), data;
	unsigned char bit = (unsigned char)(1u << (nr % 8));
	int fd = vol_host_fd(h, member);
	struct statvfs fs;
	struct stat st;

	if (fd < 0 || !m->grown || nr >= m->stretches || atomic_load_explicit(&m->grown[nr / 8], memory_order_relaxed) & bit)
		return;
	if (atomic_fetch_or(&m->grown[nr / 8], bit) & bit)
		return;
	data = lseek(fd, at, SEEK_DATA);
	if ((data < 0 ? errno == ENXIO : data >= at + (off_t)STRETCH) && !fstat(fd, &st) && st.st_size > at &&
	    !fstatvfs(fd, &fs) && (uint64_t)fs.f_bavail * fs.f_frsize >= STRETCH_MARGIN)
		(void)!fallocate(fd, FALLOC_FL_KEEP_SIZE, at, vd_min((off_t)STRETCH, st.st_size - at));
}

/* Of a file that is written; with some bits for what it may gain. */
static void stretches_new(struct member *m, int fd)
{
	struct stat st;

	if (!m->is_file || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR || fstat(fd, &st))
		return;
	m->stretches = 8 * ((uint64_t)st.st_size / STRETCH + 256);
	m->grown = calloc(m->stretches / 8, 1);
}

static int host_flush(void *ctx, unsigned member)
{
	int fd = vol_host_fd(ctx, member);

	if (fd < 0)
		return -ENODEV;
	return fdatasync(fd) ? -errno : 0;
}

static int host_commit(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks)
{
	int r = host_flush(ctx, member);

	return r ? r : put(ctx, member, block, buf, nblocks, RWF_DSYNC); /* FUA, where the device has it */
}

static int host_discard(void *ctx, unsigned member, uint64_t block, uint64_t nblocks)
{
	struct vol_host *h = ctx;
	int fd = vol_host_fd(h, member);
	uint64_t range[2] = { block << VD_BLOCK_SHIFT, nblocks << VD_BLOCK_SHIFT };

	if (fd < 0)
		return -ENODEV;
	if (h->member[member].is_file)
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range[0], (off_t)range[1]) ?
			       -errno : 0;
	return ioctl(fd, BLKDISCARD, range) ? -errno : 0;
}

static void *host_alloc(void *ctx, size_t size, int how)
{
	(void)ctx;
	(void)how;
	return malloc(size);
}

static void host_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

static uint64_t host_now(void *ctx)
{
	struct timespec t;

	(void)ctx;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Whether the same was said within the last ten seconds: damage is met again and
 * again, and once is enough. */
static bool said_just_now(const char *msg, uint64_t a, uint64_t b)
{
	static struct { const char *msg; uint64_t a, b, when; } said[32];
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static unsigned at;
	uint64_t now = host_now(NULL);
	bool found = false;

	pthread_mutex_lock(&lock);
	for (unsigned i = 0; i < 32 && !found; i++)
		found = said[i].msg == msg && said[i].a == a && said[i].b == b && now - said[i].when < 10000000000ull;
	if (!found) {
		said[at].msg = msg;
		said[at].a = a;
		said[at].b = b;
		said[at].when = now;
		at = (at + 1) % 32;
	}
	pthread_mutex_unlock(&lock);
	return found;
}

/* The engine's remarks: no format strings there, only %a and %b. */
static void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	struct vol_host *h = ctx;
	char text[512];
	size_t n = 0;

	if (h->quiet || said_just_now(msg, a, b))
		return;
	for (; *msg && n < sizeof(text) - 24; msg++) {
		if (msg[0] == '%' && (msg[1] == 'a' || msg[1] == 'b')) {
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%llu",
					      (unsigned long long)(msg[1] == 'a' ? a : b));
			msg++;
		} else {
			text[n++] = *msg;
		}
	}
	text[n] = 0;
	vol_log((enum vol_log_level)level, "pool %s: %s", h->name[0] ? h->name : "?", text);
}

static void host_kick(void *ctx)
{
	struct vol_host *h = ctx;

	pthread_mutex_lock(&h->lock);
	h->kicked = true;
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
}

/* ---- growth (D10) ------------------------------------------------------ */

uint64_t vol_host_size(const struct vol_host *h, unsigned member)
{
	int fd = vol_host_fd(h, member);
	uint64_t bytes = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return 0;
	if (S_ISREG(st.st_mode))
		bytes = (uint64_t)st.st_size;
	else if (ioctl(fd, BLKGETSIZE64, &bytes))
		return 0;
	return bytes & ~(uint64_t)(VD_BLOCK - 1);
}

static uint64_t host_size(void *ctx, unsigned member)
{
	return vol_host_size(ctx, member) >> VD_BLOCK_SHIFT;
}

bool vol_host_is_file(const struct vol_host *h, unsigned member)
{
	return h->member[member].is_file;
}

/* h->growing held: who looked before may have seen a shorter file, and to cut off what
 * somebody else has made longer since, and given to the pool, would be its end. */
static int extend(struct vol_host *h, unsigned member, uint64_t bytes)
{
	int fd = vol_host_fd(h, member);

	if (fd < 0)
		return -ENODEV;
	if (vol_host_size(h, member) < bytes && ftruncate(fd, (off_t)bytes))
		return -errno;
	return fsync(fd) ? -errno : 0; /* who made it longer may not have */
}

int vol_host_extend(struct vol_host *h, unsigned member, uint64_t bytes)
{
	int r;

	pthread_mutex_lock(&h->growing);
	r = extend(h, member, bytes);
	pthread_mutex_unlock(&h->growing);
	return r;
}

/* What the member has become larger by goes into the pool. */
static bool take_in(struct vol_host *h, unsigned m, const char *how)
{
	uint64_t before, now = vol_host_size(h, m);
	char from[32], to[32];
	uint8_t uuid[16];
	bool missing;
	int r;

	if (vd_pool_member(h->pool, m, uuid, &before, &missing) || missing || now <= before << VD_BLOCK_SHIFT)
		return false;
	/* Other members may have the new superblock before this one is flushed. */
	r = vol_host_is_file(h, m) ? extend(h, m, now) : 0;
	if (!r)
		r = vd_pool_grow(h->pool, m, now >> VD_BLOCK_SHIFT);
	vol_format_size(before << VD_BLOCK_SHIFT, 'h', true, from, sizeof(from));
	vol_format_size(now, 'h', true, to, sizeof(to));
	if (r && !h->grow_said)
		vol_log(VOL_LOG_WARN, "pool %s: %s has %s now, but that cannot be taken in: %s", h->name, vol_host_path(h, m), to,
			vol_strerror(r));
	if (!r)
		vol_log(VOL_LOG_WARN, "pool %s was low on space: %s %s, from %s to %s", h->name, vol_host_path(h, m), how, from, to);
	h->grow_said |= r != 0;
	return !r;
}

/* It is larger already, and the pool could not take that in: longer still is no use, each second. */
static bool untaken(struct vol_host *h, unsigned m)
{
	uint8_t uuid[16];
	uint64_t blocks;
	bool missing;

	return vd_pool_member(h->pool, m, uuid, &blocks, &missing) || vol_host_size(h, m) >> VD_BLOCK_SHIFT > blocks;
}

/* The shortest file, so that they stay alike; info->nmembers: there is none. */
static unsigned file_to_extend(struct vol_host *h, const struct vd_pool_info *info)
{
	unsigned best = info->nmembers;

	for (unsigned m = 0; m < info->nmembers; m++)
		if (vol_host_size(h, m) && h->member[m].is_file && !untaken(h, m) &&
		    (best == info->nmembers || vol_host_size(h, m) < vol_host_size(h, best)))
			best = m;
	return best;
}

static void grow_refused(struct vol_host *h, const char *why, uint64_t bytes)
{
	char size[32];

	vol_format_size(bytes, 'h', true, size, sizeof(size));
	if (!h->grow_said)
		vol_log(VOL_LOG_WARN, "pool %s is low on space and does not grow: %s %s; vdpool add gives it a member", h->name, why, size);
	h->grow_said = true;
}

static bool extend_file(struct vol_host *h, const struct vd_pool_info *info)
{
	uint64_t by = info->policy.grow_by, to = info->policy.grow_to, left;
	unsigned m = file_to_extend(h, info);
	struct statvfs fs;
	int r;

	if (!by || m == info->nmembers)
		return false;
	if (to && info->total_blocks >= to) {
		grow_refused(h, "it has reached its limit (vdpool set --grow-to) of", to << VD_BLOCK_SHIFT);
		return false;
	}
	if (to)
		by = vd_min(by, to - info->total_blocks);
	/* The file is sparse, and a pool must not count on what its file system has not. */
	left = fstatvfs(vol_host_fd(h, m), &fs) ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
	if (left >> VD_BLOCK_SHIFT < by) {
		grow_refused(h, "the file system of its files has only", left);
		return false;
	}
	r = extend(h, m, vol_host_size(h, m) + (by << VD_BLOCK_SHIFT));
	if (r) {
		grow_refused(h, vol_strerror(r), by << VD_BLOCK_SHIFT);
		return false;
	}
	return take_in(h, m, "was extended");
}

bool vol_host_grow(struct vol_host *h)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	bool grown = false;

	if (!info)
		return false;
	pthread_mutex_lock(&h->growing);
	if (h->pool)
		vd_pool_info(h->pool, info);
	if (h->pool && info->mode <= VD_MODE_OUT_OF_SPACE) {
		for (unsigned m = 0; m < info->nmembers; m++)
			grown |= take_in(h, m, "has become larger");
		if (!grown)
			grown = extend_file(h, info);
	}
	h->grow_said &= !grown;
	pthread_mutex_unlock(&h->growing);
	free(info);
	return grown;
}

static bool host_grow(void *ctx)
{
	return vol_host_grow(ctx);
}

/* ---- redo tail (I10) --------------------------------------------------- */

/* Tails of earlier boots are worth nothing; where the runtime directory is not
 * a tmpfs nobody else removes them. */
static void remove_old_tails(const char *uuid, const char *boot)
{
	DIR *d = opendir(vol_runtime_dir());
	struct dirent *e;
	size_t n = strlen(uuid);

	if (!d)
		return;
	while ((e = readdir(d)))
		if (!strncmp(e->d_name, uuid, n) && e->d_name[n] == '.' && strstr(e->d_name, ".tail") &&
		    !strstr(e->d_name, boot))
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
}

static void *host_tail(void *ctx, size_t size)
{
	struct vol_host *h = ctx;
	struct vd_disk_holder self;
	char boot[VOL_UUID_TEXT], path[4096];
	struct stat st;
	void *p;
	int fd, r;

	if (!h->identified)
		return NULL;
	if (h->tail)
		return h->tail_size == size ? h->tail : NULL;
	vol_holder_self(&self, NULL);
	vol_uuid_text(self.boot, boot);
	snprintf(path, sizeof(path), "%s/%s.%s.tail", vol_runtime_dir(), h->uuid, boot);
	if (h->readonly) {
		/* What an earlier process left may be replayed in memory; nothing is kept. */
		fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return NULL;
		if (fstat(fd, &st) || (uint64_t)st.st_size < size) {
			close(fd);
			return NULL;
		}
		p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		close(fd);
		goto mapped;
	}
	r = vol_runtime_dir_make();
	fd = r ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		vol_log(VOL_LOG_WARN, "pool %s: no redo tail in %s (%s): what is not flushed is lost if this process is killed",
			h->name, path, strerror(r ? -r : errno));
		return NULL;
	}
	remove_old_tails(h->uuid, boot);
	/* Real pages now: a full tmpfs must not become a SIGBUS later. */
	r = posix_fallocate(fd, 0, (off_t)size);
	if (r) {
		vol_log(VOL_LOG_WARN, "pool %s: no room for the redo tail of %zu bytes in %s: %s", h->name, size, path,
			strerror(r));
		close(fd);
		return NULL;
	}
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
mapped:
	if (p == MAP_FAILED)
		return NULL;
	h->tail = p;
	h->tail_size = size;
	return p;
}

/* ---- opening members --------------------------------------------------- */

pid_t vol_lock_owner(const struct stat *st)
{
	FILE *f = fopen("/proc/locks", "re");
	char line[256];
	pid_t found = 0;

	if (!f)
		return 0;
	while (!found && fgets(line, sizeof(line), f)) {
		long pid;
		unsigned maj, min;
		unsigned long long ino;
		if (sscanf(line, "%*s FLOCK %*s %*s %ld %x:%x:%llu", &pid, &maj, &min, &ino) == 4 &&
		    ino == st->st_ino && makedev(maj, min) == st->st_dev && pid > 0)
			found = (pid_t)pid;
	}
	fclose(f);
	return found;
}

/* Which other process has this device open; 0: not found. */
static pid_t device_opener(dev_t rdev)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	pid_t found = 0;

	if (!proc)
		return 0;
	while (!found && (e = readdir(proc))) {
		pid_t pid = (pid_t)atoi(e->d_name);
		char path[64];
		struct dirent *f;
		DIR *fds;
		if (pid <= 0 || pid == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
		fds = opendir(path);
		if (!fds)
			continue;
		while (!found && (f = readdir(fds))) {
			struct stat st;
			if (f->d_name[0] != '.' && !fstatat(dirfd(fds), f->d_name, &st, 0) && S_ISBLK(st.st_mode) &&
			    st.st_rdev == rdev)
				found = pid;
		}
		closedir(fds);
	}
	closedir(proc);
	return found;
}

static bool mounted_where(dev_t rdev, char *where, size_t size)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f)) {
		unsigned maj, min;
		char dir[201];
		if (sscanf(line, "%*d %*d %u:%u %*s %200s", &maj, &min, dir) == 3 && makedev(maj, min) == rdev) {
			snprintf(where, size, "%s", dir);
			found = true;
		}
	}
	fclose(f);
	return found;
}

bool vol_part_of(dev_t rdev, char name[64])
{
	char path[64];
	struct dirent *e;
	bool found = false;
	DIR *d;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(rdev), minor(rdev));
	d = opendir(path);
	while (d && !found && (e = readdir(d)))
		if (e->d_name[0] != '.') {
			snprintf(name, 64, "%.63s", e->d_name);
			found = true;
		}
	if (d)
		closedir(d);
	return found;
}

/* What people call it: of device-mapper's the name that it was given. */
static void holder_text(const char *dev, char *buf, size_t size)
{
	char path[96], name[128] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/sys/block/%s/dm/name", dev);
	f = fopen(path, "re");
	if (f && fgets(name, sizeof(name), f))
		name[strcspn(name, "\n")] = 0;
	if (f)
		fclose(f);
	snprintf(buf, size, "/dev/%s%s", *name ? "mapper/" : "", *name ? name : dev);
}

static void busy_text(const struct stat *st, char why[256])
{
	char where[201], comm[64], dev[64];
	pid_t pid;

	if (S_ISBLK(st->st_mode) && mounted_where(st->st_rdev, where, sizeof(where))) {
		snprintf(why, 256, "is mounted on %s", where);
		return;
	}
	if (S_ISBLK(st->st_mode) && vol_part_of(st->st_rdev, dev)) {
		holder_text(dev, where, sizeof(where));
		snprintf(why, 256, "is part of %s", where);
		return;
	}
	pid = S_ISBLK(st->st_mode) ? device_opener(st->st_rdev) : vol_lock_owner(st);
	if (!pid) {
		snprintf(why, 256, "is in use (mounted, swap, part of another device, or held by a process)");
		return;
	}
	(void)vol_process(pid, comm, NULL);
	snprintf(why, 256, "is in use by process %d (%s)", (int)pid, comm[0] ? comm : "gone by now");
}

static int lock_member(int fd, const struct stat *st, enum vol_lock lock)
{
	if (lock == VOL_LOCK_NONE)
		return 0;
	if (S_ISREG(st->st_mode)) {
		if (!flock(fd, (lock == VOL_LOCK_SHARED ? LOCK_SH : LOCK_EX) | LOCK_NB))
			return 0;
		return errno == EWOULDBLOCK ? -EBUSY : -errno;
	}
	/* Not flock() on a device: it would keep udev from looking at it. */
	struct flock fl = { .l_type = lock == VOL_LOCK_SHARED ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	if (!fcntl(fd, F_OFD_SETLK, &fl))
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* A loop device that stands on this file is in use: by the kernel's pool, say, of which no lock of
 * the file tells. Found by path alone: to ask for the file of another could wait for a front. */
static bool loop_in_use(const char *path, struct stat *loop)
{
	char *full = realpath(path, NULL), dev[DEVICE_PATH];
	bool busy = false;
	int fd;

	for (unsigned n = 0; full && !busy && !device_loop_nth(full, n, dev); n++) {
		fd = open(dev, O_RDONLY | O_CLOEXEC | O_EXCL);
		busy = fd < 0 && errno == EBUSY && !stat(dev, loop);
		if (fd >= 0)
			close(fd);
	}
	free(full);
	return busy;
}

int vol_member_open(const char *path, enum vol_lock lock, int *out, struct vol_geometry *geo, char why[256])
{
	bool write = lock == VOL_LOCK_EXCLUSIVE;
	struct vol_geometry g = { .sector = 512 };
	char holder[64];
	struct stat st, opened;
	int fd, r;

	if (stat(path, &st)) {
		r = -errno;
		snprintf(why, 256, "%s", r == -ENOENT ? "does not exist" : strerror(-r));
		return r;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		snprintf(why, 256, "is neither a block device nor a regular file");
		return -ENOTBLK;
	}
	fd = open(path, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | (write && S_ISBLK(st.st_mode) ? O_EXCL : 0));
	if (fd < 0) {
		r = vol_errno();
		if (r == -EBUSY)
			busy_text(&st, why);
		else
			snprintf(why, 256, "cannot be opened%s: %s", write ? " for writing" : "", strerror(-r));
		return r;
	}
	if (fstat(fd, &opened) || opened.st_mode != st.st_mode || opened.st_rdev != st.st_rdev) {
		snprintf(why, 256, "was replaced while it was being opened");
		r = -EAGAIN;
		goto err;
	}
	r = lock_member(fd, &opened, lock);
	if (!r && lock == VOL_LOCK_SHARED && S_ISBLK(opened.st_mode) && vol_part_of(opened.st_rdev, holder))
		r = -EBUSY;
	if (!r && lock != VOL_LOCK_NONE && S_ISREG(opened.st_mode) && loop_in_use(path, &opened))
		r = -EBUSY; /* what is told then is about the loop device */
	if (r == -EBUSY) {
		busy_text(&opened, why);
		goto err;
	}
	if (r) {
		snprintf(why, 256, "cannot be locked: %s", strerror(-r));
		goto err;
	}
	g.is_file = S_ISREG(opened.st_mode);
	if (g.is_file) {
		g.bytes = (uint64_t)opened.st_size;
	} else {
		int sector;
		if (ioctl(fd, BLKGETSIZE64, &g.bytes) || ioctl(fd, BLKSSZGET, &sector)) {
			r = -errno;
			snprintf(why, 256, "does not tell its size: %s", strerror(-r));
			goto err;
		}
		g.sector = (uint32_t)sector;
	}
	*geo = g;
	*out = fd;
	return 0;
err:
	close(fd);
	return r;
}

int vol_member_keep(const char *path, int *out)
{
	struct stat st;
	int fd = open(path, O_RDWR | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = fstat(fd, &st) ? -errno : lock_member(fd, &st, VOL_LOCK_EXCLUSIVE);
	if (r) {
		close(fd);
		return r;
	}
	*out = fd;
	return 0;
}

/* ---- the host ---------------------------------------------------------- */

int vol_host_new(struct vol_host **out)
{
	struct vol_host *h = calloc(1, sizeof(*h));
	pthread_condattr_t attr;

	if (!h)
		return -ENOMEM;
	for (unsigned m = 0; m < VD_MEMBERS_MAX; m++)
		atomic_init(&h->member[m].fd, -1);
	h->vd = (struct vd_host){
		.ctx = h, .read = host_read, .write = host_write, .flush = host_flush, .commit = host_commit,
		.discard = host_discard,
		.alloc = host_alloc, .free = host_free, .now = host_now, .log = host_log, .kick = host_kick,
		.tail = host_tail, .size = host_size, .grow = host_grow,
	};
	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&h->growing, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->wake, &attr);
	pthread_condattr_destroy(&attr);
	*out = h;
	return 0;
}

void vol_host_free(struct vol_host *h)
{
	if (!h)
		return;
	for (unsigned m = 0; m < VD_MEMBERS_MAX; m++)
		vol_host_drop_member(h, m);
	if (h->tail)
		munmap(h->tail, h->tail_size);
	pthread_cond_destroy(&h->wake);
	pthread_mutex_destroy(&h->growing);
	pthread_mutex_destroy(&h->lock);
	free(h);
}

int vol_host_set_member(struct vol_host *h, unsigned index, int fd, const char *path, bool is_file)
{
	char *copy;

	if (index >= VD_MEMBERS_MAX || atomic_load(&h->member[index].fd) >= 0)
		return -EINVAL;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	h->member[index].path = copy;
	h->member[index].is_file = is_file;
	stretches_new(&h->member[index], fd);
	atomic_store(&h->member[index].fd, fd);
	return 0;
}

void vol_host_drop_member(struct vol_host *h, unsigned index)
{
	int fd = atomic_exchange(&h->member[index].fd, -1);

	if (fd >= 0)
		close(fd);
	free(h->member[index].path);
	free(h->member[index].grown);
	h->member[index].path = NULL;
	h->member[index].grown = NULL;
}

int vol_host_fd(const struct vol_host *h, unsigned member)
{
	if (vd_unlikely(member >= VD_MEMBERS_MAX))
		return -1;
	return atomic_load_explicit(&((struct vol_host *)h)->member[member].fd, memory_order_acquire);
}

const char *vol_host_path(const struct vol_host *h, unsigned member)
{
	return vol_host_fd(h, member) < 0 ? NULL : h->member[member].path;
}

void vol_host_set_identity(struct vol_host *h, const uint8_t uuid[16], const char *name, bool readonly)
{
	vol_uuid_text(uuid, h->uuid);
	snprintf(h->name, sizeof(h->name), "%s", name);
	h->readonly = readonly;
	h->identified = true;
}

void vol_host_set_quiet(struct vol_host *h, bool quiet)
{
	h->quiet = quiet;
}

const struct vd_host *vol_host_vd(struct vol_host *h)
{
	return &h->vd;
}

/* ---- worker ------------------------------------------------------------ */

/* Past the lowest threshold; where there is none, seven eighths taken. */
static bool low_on_space(const struct vd_pool_info *info)
{
	uint64_t taken = info->used_blocks + info->promised_blocks;
	uint32_t lowest = 0;

	for (unsigned i = 0; i < 4; i++)
		if (info->policy.threshold[i] && (!lowest || info->policy.threshold[i] < lowest))
			lowest = info->policy.threshold[i];
	return lowest ? taken * 1000 / info->total_blocks >= lowest :
			taken + info->reserve_blocks > info->total_blocks - info->total_blocks / 8;
}

/* Says when use has passed a threshold, and when it is below it again.  `passed`:
 * bit i is set while threshold i is passed. */
static void look_at_thresholds(struct vol_host *h, unsigned *passed)
{
	struct vd_pool_info info;
	uint64_t permille;

	vd_pool_info(h->pool, &info);
	if (!info.total_blocks)
		return;
	if (low_on_space(&info) && vol_host_grow(h))
		vd_pool_info(h->pool, &info);
	/* What is promised cannot be given to others. 2^48 blocks at most. */
	permille = (info.used_blocks + info.promised_blocks) * 1000 / info.total_blocks;
	for (unsigned i = 0; i < 4; i++) {
		bool now = info.policy.threshold[i] && permille >= info.policy.threshold[i];
		if (now == (*passed >> i & 1))
			continue;
		*passed ^= 1u << i;
		if (!info.policy.threshold[i])
			continue; /* taken away */
		vol_log(now ? VOL_LOG_WARN : VOL_LOG_INFO, "pool %s is %s %u.%u %% full: %u.%u %% is in use%s", h->name,
			now ? "more than" : "less than", info.policy.threshold[i] / 10, info.policy.threshold[i] % 10,
			(unsigned)(permille / 10), (unsigned)(permille % 10),
			now ? "; vdpool grow or vdpool add gives it more" : " again");
	}
}

static void *work(void *arg)
{
	struct vol_host *h = arg;
	unsigned passed = 0;
	int said = 0;

	pthread_mutex_lock(&h->lock);
	while (!h->stopping) {
		struct timespec until;
		int r;
		if (!h->kicked) {
			clock_gettime(CLOCK_MONOTONIC, &until);
			until.tv_sec++;
			pthread_cond_timedwait(&h->wake, &h->lock, &until);
		}
		h->kicked = false;
		if (h->stopping)
			break;
		pthread_mutex_unlock(&h->lock);
		r = vd_pool_work(h->pool);
		if (r < 0 && r != said)
			vol_log(VOL_LOG_WARN, "pool %s: background work failed: %s", h->name, vol_strerror(r));
		said = r < 0 ? r : 0;
		look_at_thresholds(h, &passed);
		pthread_mutex_lock(&h->lock);
		if (r > 0)
			h->kicked = true;
	}
	pthread_mutex_unlock(&h->lock);
	return NULL;
}

int vol_host_start_worker(struct vol_host *h, struct vd_pool *pool)
{
	int r;

	pthread_mutex_lock(&h->growing); /* the engine may ask for space already */
	h->pool = pool;
	pthread_mutex_unlock(&h->growing);
	h->stopping = false;
	r = pthread_create(&h->worker, NULL, work, h);
	if (r)
		return -r;
	h->working = true;
	return 0;
}

void vol_host_stop_worker(struct vol_host *h)
{
	if (!h->working)
		return;
	pthread_mutex_lock(&h->lock);
	h->stopping = true;
	pthread_cond_signal(&h->wake);
	pthread_mutex_unlock(&h->lock);
	pthread_join(h->worker, NULL);
	h->working = false;
}
