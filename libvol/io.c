// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Data I/O on an open volume.
 *
 * The engine says where a run is, this file moves the bytes: straight between
 * the caller's buffer and the member.  A block that is written in part is
 * completed from where its old contents are, through 4 KiB on the stack, and
 * goes out with the rest in one pwritev().
 *
 *   begin ── 0 ──────────► member I/O ──► end ──► next run
 *     └── -EWOULDBLOCK ──► vd_io_wait() ──► begin again
 *
 * Between begin and end nothing of the engine is called that may block: the
 * engine waits for runs in flight.
 */
#include "io.h"
#include "handle.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

struct vol_volume {
	struct vol_pool *pool;
	struct vol_host *host;
	struct vd_volume *vol;
	uint32_t id;
	uint32_t sector;
	bool readonly;
	int base;           /* fd of the base image, or -1 */
	uint64_t base_size;
	pthread_mutex_t edge; /* writes of parts of a sector read, merge and write it */
};

static const char zeros[VD_BLOCK];

/* ---- open -------------------------------------------------------------- */

int vol_base_open(const char *pool, const char *volume, const char *path, int *out, uint64_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct stat st;
	uint64_t bytes;

	if (fd < 0 || fstat(fd, &st)) {
		r = -errno;
		vol_fail(NULL, r, "volume %s/%s: its base image %s cannot be opened: %s\n"
			 "put it back there; the volume is of no use without it", pool, volume, path, strerror(-r));
		goto err;
	}
	if (S_ISREG(st.st_mode)) {
		bytes = (uint64_t)st.st_size;
	} else if (!S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, &bytes)) {
		r = vol_fail(NULL, -ENOTBLK, "volume %s/%s: its base image %s is neither a file nor a block device", pool,
			     volume, path);
		goto err;
	}
	*out = fd;
	*size = bytes;
	return 0;
err:
	if (fd >= 0)
		close(fd);
	return r;
}

/* A locked volume may be opened only on behalf of who holds the lock: a link
 * stores its open pointer before it asks for the volume.  A link that it has is open already, and its
 * front connects as it has need: who has locked the volume to undo the link may wait for a flush of it. */
static bool linked_by_holder(const struct vd_volume_info *info, uint32_t link)
{
	for (unsigned i = 0; i < info->npointers; i++) {
		const struct vd_disk_holder *w = &info->pointer[i].who;
		if (link && le32_to_cpu(info->pointer[i].link) == link)
			return true;
		if (!memcmp(w->host, info->lock.host, 16) && !memcmp(w->boot, info->lock.boot, 16) &&
		    w->pid == info->lock.pid)
			return true;
	}
	return false;
}

static int check_lock(struct vol_pool *pool, const struct vd_volume_info *info, uint32_t link)
{
	char who[256];
	int r;

	if (!(info->flags & VD_VOL_LOCKED) || linked_by_holder(info, link))
		return 0;
	vol_holder_text(&info->lock, who, sizeof(who));
	if (!vol_holder_stale(&info->lock))
		return vol_fail(NULL, -EACCES, "volume %s/%s is locked by %s", pool->name, info->name, who);
	vol_log(VOL_LOG_WARN, "volume %s/%s: lock of %s is stale and is broken", pool->name, info->name, who);
	if (pool->flags & VOL_READONLY)
		return 0;
	r = vd_volume_unlock(pool->engine, info->id);
	return r ? vol_fail(NULL, r, "volume %s/%s: its stale lock cannot be broken: %s", pool->name, info->name,
			    vol_strerror(r)) : 0;
}

int vol_volume_open(struct vol_pool *pool, const char *name, uint32_t link, bool readonly, struct vol_volume **out)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct vd_pool_info *pi = malloc(sizeof(*pi));
	struct vol_volume *v = calloc(1, sizeof(*v));
	int r;

	if (!info || !pi || !v) {
		r = vol_fail(NULL, -ENOMEM, "out of memory");
		goto err;
	}
	v->pool = pool;
	v->host = pool->host;
	v->base = -1;
	pthread_mutex_init(&v->edge, NULL);
	if (!pool->engine) {
		r = vol_fail(NULL, -EOPNOTSUPP, "pool %s belongs to a server; its data cannot be had in this process", pool->name);
		goto err;
	}
	r = vd_volume_find(pool->engine, name, &v->id);
	if (!r)
		r = vd_volume_open(pool->engine, v->id, &v->vol);
	if (r) {
		vol_fail(NULL, r, r == -ENOENT || r == -EINVAL ? "there is no volume %s/%s" : "volume %s/%s cannot be opened: %s",
			 pool->name, name, vol_strerror(r));
		goto err;
	}
	r = vd_volume_info(pool->engine, v->id, info); /* after the open: it stays */
	if (r) {
		vol_fail(NULL, r, "volume %s/%s cannot be opened: %s", pool->name, name, vol_strerror(r));
		goto err;
	}
	r = check_lock(pool, info, link);
	if (!r && !readonly && (pool->flags & VOL_READONLY))
		r = vol_fail(NULL, -EROFS, "pool %s is open for reading only; volume %s cannot be written", pool->name, name);
	if (!r && !readonly && (info->flags & VD_VOL_READONLY))
		r = vol_fail(NULL, -EROFS, "volume %s/%s is read-only; open it so, or make it writable: vdpool set --readonly n %s/%s",
			     pool->name, name, pool->name, name);
	if (!r && info->flags & VD_VOL_BASE)
		r = vol_base_open(pool->name, info->name, info->base, &v->base, &v->base_size);
	if (r)
		goto err;
	vd_pool_info(pool->engine, pi);
	v->sector = pi->sector_size;
	v->readonly = readonly;
	free(info);
	free(pi);
	*out = v;
	return 0;
err:
	if (v)
		vol_volume_close(v);
	free(info);
	free(pi);
	return r;
}

void vol_volume_close(struct vol_volume *v)
{
	if (!v)
		return;
	if (v->vol)
		vd_volume_close(v->vol);
	if (v->base >= 0)
		close(v->base);
	pthread_mutex_destroy(&v->edge);
	free(v);
}

uint64_t vol_volume_size(const struct vol_volume *v)
{
	return vd_volume_size(v->vol);
}

bool vol_volume_readonly(const struct vol_volume *v)
{
	return v->readonly;
}

uint32_t vol_volume_id(const struct vol_volume *v)
{
	return v->id;
}

/* ---- moving bytes ------------------------------------------------------ */

static int read_member(struct vol_volume *v, vd_pblk_t p, uint32_t offset, char *buf, size_t len)
{
	int fd = vol_host_fd(v->host, VD_PBLK_MEMBER(p));
	off_t at = (off_t)((VD_PBLK_BLOCK(p) << VD_BLOCK_SHIFT) + offset);

	if (vd_unlikely(fd < 0))
		return -ENODEV;
	while (len) {
		ssize_t n = pread(fd, buf, len, at);
		if (vd_likely(n > 0)) {
			buf += n;
			at += n;
			len -= (size_t)n;
			continue;
		}
		if (n == 0)
			return -EIO; /* the member became shorter */
		if (errno != EINTR)
			return -errno;
	}
	return 0;
}

static int write_member(struct vol_volume *v, vd_pblk_t p, uint32_t offset, struct iovec *iov, int n)
{
	int fd = vol_host_fd(v->host, VD_PBLK_MEMBER(p));
	off_t at = (off_t)((VD_PBLK_BLOCK(p) << VD_BLOCK_SHIFT) + offset);

	if (vd_unlikely(fd < 0))
		return -ENODEV;
	while (n) {
		ssize_t done = n == 1 ? pwrite(fd, iov->iov_base, iov->iov_len, at) : pwritev(fd, iov, n, at);
		if (vd_unlikely(done <= 0)) {
			if (done < 0 && errno == EINTR)
				continue;
			return done < 0 ? -errno : -EIO;
		}
		at += done;
		while (n && (size_t)done >= iov->iov_len) {
			done -= (ssize_t)iov->iov_len;
			iov++;
			n--;
		}
		if (n) {
			iov->iov_base = (char *)iov->iov_base + done;
			iov->iov_len -= (size_t)done;
		}
	}
	return 0;
}

/* Zeros past the end of the image; it may end anywhere, and may have shrunk. */
static int read_base(struct vol_volume *v, uint64_t off, char *buf, size_t len)
{
	while (len && off < v->base_size) {
		ssize_t n = pread(v->base, buf, vd_min(len, v->base_size - off), (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* shorter than when it was opened: not what the volume was made on */
		buf += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	memset(buf, 0, len);
	return 0;
}

/* ---- whole sectors ----------------------------------------------------- */

static int read_sectors(struct vol_volume *v, char *buf, size_t len, uint64_t off)
{
	struct vd_io io;
	int r;

	while (len) {
		r = vd_read_begin(v->vol, off, len, &io);
		if (vd_unlikely(r)) {
			if (r == -EWOULDBLOCK)
				r = vd_io_wait(&io);
			if (r)
				return r;
			continue;
		}
		switch (io.kind) {
		case VD_RUN_DATA:
			r = read_member(v, io.pblk, io.offset, buf, io.bytes);
			break;
		case VD_RUN_BASE:
			r = read_base(v, off, buf, io.bytes);
			break;
		default:
			memset(buf, 0, io.bytes);
		}
		vd_read_end(&io);
		if (vd_unlikely(r))
			return r;
		buf += io.bytes;
		off += io.bytes;
		len -= io.bytes;
	}
	return 0;
}

/* `len` bytes from `from` on of a block that is written in part; `block` is the
 * block's own offset in the volume. */
static int fill(struct vol_volume *v, const struct vd_fill *f, uint64_t block, uint32_t from, char *buf, size_t len)
{
	switch (f->kind) {
	case VD_FILL_DATA:
		return read_member(v, f->pblk, from, buf, len);
	case VD_FILL_BASE:
		return read_base(v, block + from, buf, len);
	default:
		memset(buf, 0, len);
		return 0;
	}
}

static int write_new(struct vol_volume *v, const struct vd_io *io, const char *buf, uint64_t off)
{
	char head[VD_BLOCK], tail[VD_BLOCK];
	uint32_t end = (io->offset + io->bytes) & (VD_BLOCK - 1);
	struct iovec iov[3];
	int n = 0, r;

	vol_host_writes(v->host, VD_PBLK_MEMBER(io->pblk), VD_PBLK_BLOCK(io->pblk));
	if (io->offset) {
		r = fill(v, &io->head, off - io->offset, 0, head, io->offset);
		if (r)
			return r;
		iov[n++] = (struct iovec){ head, io->offset };
	}
	iov[n++] = (struct iovec){ (char *)buf, io->bytes };
	if (end) {
		r = fill(v, &io->tail, off + io->bytes - end, end, tail, VD_BLOCK - end);
		if (r)
			return r;
		iov[n++] = (struct iovec){ tail, VD_BLOCK - end };
	}
	return write_member(v, io->pblk, 0, iov, n);
}

static int write_sectors(struct vol_volume *v, const char *buf, size_t len, uint64_t off)
{
	struct vd_io io;
	int r;

	while (len) {
		r = vd_write_begin(v->vol, off, len, &io);
		if (vd_unlikely(r)) {
			if (r == -EWOULDBLOCK)
				r = vd_io_wait(&io);
			if (r)
				return r;
			continue;
		}
		if (io.kind == VD_RUN_DATA) {
			struct iovec iov = { (char *)buf, io.bytes };
			r = write_member(v, io.pblk, io.offset, &iov, 1);
		} else {
			r = write_new(v, &io, buf, off);
		}
		r = vd_write_end(&io, r);
		if (vd_unlikely(r))
			return r;
		buf += io.bytes;
		off += io.bytes;
		len -= io.bytes;
	}
	return 0;
}

/* ---- any range --------------------------------------------------------- */

static int in_range(const struct vol_volume *v, uint64_t off, uint64_t len)
{
	uint64_t size = vd_volume_size(v->vol);

	return off <= size && len <= size - off ? 0 : -ERANGE;
}

static int read_part(struct vol_volume *v, char *buf, size_t len, uint64_t off)
{
	char sector[VD_BLOCK];
	uint64_t at = off & ~(uint64_t)(v->sector - 1);
	int r = read_sectors(v, sector, v->sector, at);

	if (!r)
		memcpy(buf, sector + (off - at), len);
	return r;
}

static int write_part(struct vol_volume *v, const char *buf, size_t len, uint64_t off)
{
	char sector[VD_BLOCK];
	uint64_t at = off & ~(uint64_t)(v->sector - 1);
	int r;

	pthread_mutex_lock(&v->edge);
	r = read_sectors(v, sector, v->sector, at);
	if (!r) {
		memcpy(sector + (off - at), buf, len);
		r = write_sectors(v, sector, v->sector, at);
	}
	pthread_mutex_unlock(&v->edge);
	return r;
}

/* Bytes of [off, off + len) before its first whole sector. */
static size_t part_before(const struct vol_volume *v, size_t len, uint64_t off)
{
	uint32_t in = off & (v->sector - 1);

	return in ? vd_min(len, (size_t)(v->sector - in)) : len < v->sector ? len : 0;
}

int vol_pread(struct vol_volume *v, void *buf, size_t len, uint64_t off)
{
	char *p = buf;
	int r = in_range(v, off, len);

	if (vd_likely(!((off | len) & (v->sector - 1))))
		return r ? r : read_sectors(v, p, len, off);
	while (!r && len) {
		size_t n = part_before(v, len, off);
		if (n) {
			r = read_part(v, p, n, off);
		} else {
			n = len & ~(size_t)(v->sector - 1);
			r = read_sectors(v, p, n, off);
		}
		p += n;
		off += n;
		len -= n;
	}
	return r;
}

int vol_pwrite(struct vol_volume *v, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	const char *p = buf;
	int r = v->readonly ? -EROFS : in_range(v, off, len);

	if (vd_likely(!((off | len) & (v->sector - 1)))) {
		if (!r)
			r = write_sectors(v, p, len, off);
		len = 0;
	}
	while (!r && len) {
		size_t n = part_before(v, len, off);
		if (n) {
			r = write_part(v, p, n, off);
		} else {
			n = len & ~(size_t)(v->sector - 1);
			r = write_sectors(v, p, n, off);
		}
		p += n;
		off += n;
		len -= n;
	}
	if (!r && (flags & VOL_IO_FUA))
		r = vd_flush(v->pool->engine);
	return r;
}

int vol_flush(struct vol_volume *v)
{
	if (v->pool->flags & VOL_READONLY)
		return 0;
	return vd_flush(v->pool->engine);
}

int vol_unmap(struct vol_volume *v, uint64_t off, uint64_t len, unsigned flags)
{
	int r = v->readonly ? -EROFS : in_range(v, off, len);

	if (!r && len)
		r = vd_unmap(v->vol, off, len);
	if (!r && (flags & VOL_IO_FUA))
		r = vd_flush(v->pool->engine);
	return r;
}

/* Part of one block. What reads as zeros already is left alone. */
static int zero_edge(struct vol_volume *v, uint64_t off, size_t len)
{
	struct vd_extent_info e;
	uint64_t block = off & ~(uint64_t)(VD_BLOCK - 1);
	int r;

	if (!len)
		return 0;
	r = vd_extent(v->vol, block, VD_BLOCK, &e);
	if (r)
		return r;
	if (e.kind == VD_HOLE || e.kind == VD_ZERO)
		return 0;
	return vol_pwrite(v, zeros, len, off, 0);
}

int vol_zero(struct vol_volume *v, uint64_t off, uint64_t len, unsigned flags)
{
	uint64_t end = off + len;
	uint64_t first = (off + VD_BLOCK - 1) & ~(uint64_t)(VD_BLOCK - 1), last = end & ~(uint64_t)(VD_BLOCK - 1);
	int r = v->readonly ? -EROFS : in_range(v, off, len);

	if (r || !len)
		return r;
	if (first > last) { /* within one block */
		r = zero_edge(v, off, (size_t)len);
	} else {
		r = zero_edge(v, off, (size_t)(first - off));
		if (!r && last > first)
			r = vd_unmap(v->vol, first, last - first);
		if (!r)
			r = zero_edge(v, last, (size_t)(end - last));
	}
	if (!r && (flags & VOL_IO_FUA))
		r = vd_flush(v->pool->engine);
	return r;
}

/* ---- extents ----------------------------------------------------------- */

struct joined {
	vol_extent_fn fn;
	void *arg;
	uint64_t off, len;
	enum vd_ext_kind kind;
};

static int give(struct joined *j, uint64_t off, uint64_t len, enum vd_ext_kind kind)
{
	int r = 0;

	if (!len)
		return 0;
	if (j->len && j->kind == kind) {
		j->len += len;
		return 0;
	}
	if (j->len)
		r = j->fn(j->arg, j->off, j->len, j->kind);
	j->off = off;
	j->len = len;
	j->kind = kind;
	return r;
}

int vol_extents(struct vol_volume *v, uint64_t off, uint64_t len, vol_extent_fn fn, void *arg)
{
	uint64_t end = off + len, base_end = (v->base_size + VD_BLOCK - 1) & ~(uint64_t)(VD_BLOCK - 1);
	struct joined j = { .fn = fn, .arg = arg };
	struct vd_extent_info e;
	int r = in_range(v, off, len);

	while (!r && off < end) {
		r = vd_extent(v->vol, off, end - off, &e);
		if (r)
			break;
		uint64_t n = vd_min(e.off + e.len, end) - off;
		if (e.kind == VD_BASE) {
			uint64_t in = off < base_end ? vd_min(n, base_end - off) : 0;
			r = give(&j, off, in, VD_BASE);
			if (!r)
				r = give(&j, off + in, n - in, VD_HOLE);
		} else {
			r = give(&j, off, n, e.kind);
		}
		off += n;
	}
	if (!r && j.len)
		r = fn(arg, j.off, j.len, j.kind);
	return r;
}

int vol_cache(struct vol_volume *v, uint64_t off, uint64_t len)
{
	uint64_t end;
	struct vd_io io;
	int r = in_range(v, off, len);

	if (r)
		return r;
	end = (off + len + v->sector - 1) & ~(uint64_t)(v->sector - 1);
	off &= ~(uint64_t)(v->sector - 1);
	while (off < end) {
		r = vd_read_begin(v->vol, off, end - off, &io);
		if (r == -EWOULDBLOCK)
			r = vd_io_wait(&io);
		else if (!r) {
			int fd = io.kind == VD_RUN_DATA ? vol_host_fd(v->host, VD_PBLK_MEMBER(io.pblk)) : -1;
			if (fd >= 0)
				(void)posix_fadvise(fd, (off_t)((VD_PBLK_BLOCK(io.pblk) << VD_BLOCK_SHIFT) + io.offset),
						    io.bytes, POSIX_FADV_WILLNEED);
			else if (io.kind == VD_RUN_BASE)
				(void)posix_fadvise(v->base, (off_t)off, io.bytes, POSIX_FADV_WILLNEED);
			vd_read_end(&io);
			off += io.bytes;
		}
		if (r)
			return r;
	}
	return 0;
}
