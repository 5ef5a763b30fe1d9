// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A front's kernel side where there is no nbd driver: a FUSE file system that is
 * one regular file, mounted over an empty one, on which a loop device is made.
 *
 * The FUSE protocol is spoken directly: a dozen requests are enough, and each
 * thread has its buffer from the start (F5).  A punched hole reads as zeros at
 * once, edges too, as the loop driver expects of it.
 *
 * Data goes past the page cache of this file: the loop device is made with direct
 * I/O, and has its own.
 */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "front.h"

#define BACKGROUND 64

struct fuse_port {
	struct front *f;
	int fd;
	time_t born;
};

/* ---- answers ------------------------------------------------------------- */

static void reply(int fd, uint64_t unique, int error, const void *data, size_t len)
{
	struct fuse_out_header h = { .len = (uint32_t)(sizeof(h) + len), .error = error, .unique = unique };
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)data, len } };

	/* ENOENT: the request was given up meanwhile. Nothing to do about others. */
	if (writev(fd, iov, len ? 2 : 1) < 0 && errno != ENOENT && errno != ENODEV)
		dprintf(2, "fuse: an answer was refused: %s\n", strerror(errno));
}

static void fill_attr(const struct fuse_port *p, struct fuse_attr *a)
{
	memset(a, 0, sizeof(*a));
	a->ino = FUSE_ROOT_ID;
	a->size = front_size(p->f);
	a->blocks = a->size / 512;
	a->mode = S_IFREG | (front_readonly(p->f) ? 0400 : 0600);
	a->nlink = 1;
	a->blksize = VD_BLOCK;
	a->atime = a->mtime = a->ctime = (uint64_t)p->born;
}

static int do_init(struct fuse_port *p, int fd, const char *buf)
{
	const struct fuse_in_header *in = (const void *)buf;
	const struct fuse_init_in *init = (const void *)(in + 1);
	struct fuse_init_out out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = vd_min(init->minor, (uint32_t)FUSE_KERNEL_MINOR_VERSION),
		.flags = init->flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS),
		.max_background = BACKGROUND,
		.congestion_threshold = BACKGROUND * 3 / 4,
		.max_write = FRONT_IO_MAX,
		.time_gran = 1,
		.max_pages = FRONT_IO_MAX / 4096,
	};

	(void)p;
	if (init->major != FUSE_KERNEL_VERSION || init->minor < 28)
		return -EPROTO;
	reply(fd, in->unique, 0, &out, sizeof(out));
	return 0;
}

static int do_fallocate(struct front_worker *w, const struct fuse_fallocate_in *in)
{
	struct front_request rq = { .op = FRONT_ZERO, .off = in->offset, .len = in->length };

	if (!(in->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) ||
	    in->mode & ~(uint32_t)(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	return front_do(w, &rq);
}

static void one_request(struct fuse_port *p, int fd, struct front_worker *w, char *buf, size_t got)
{
	const struct fuse_in_header *in = (const void *)buf;
	const void *arg = in + 1;
	struct front_request rq;
	union {
		struct fuse_attr_out attr;
		struct fuse_open_out open;
		struct fuse_write_out write;
		struct fuse_statfs_out statfs;
	} out;
	uint64_t unique = in->unique, size = front_size(p->f);
	int r;

	if (got < sizeof(*in) || in->len != got)
		return;
	memset(&out, 0, sizeof(out));
	switch (in->opcode) {
	case FUSE_READ: {
		const struct fuse_read_in *rd = arg;

		rq = (struct front_request){ .op = FRONT_READ, .off = rd->offset, .len = rd->size, .buf = buf };
		if (rq.off >= size || rq.len > FRONT_IO_MAX) {
			reply(fd, unique, rq.off >= size ? 0 : -EINVAL, NULL, 0);
			return;
		}
		rq.len = vd_min(rq.len, size - rq.off);
		r = rq.len ? front_do(w, &rq) : 0; /* the request's own bytes are not needed any more */
		reply(fd, unique, r, buf, r ? 0 : rq.len);
		return;
	}
	case FUSE_WRITE: {
		const struct fuse_write_in *wr = arg;

		rq = (struct front_request){ .op = FRONT_WRITE, .off = wr->offset, .len = wr->size, .buf = (char *)(wr + 1) };
		r = sizeof(*in) + sizeof(*wr) + rq.len > got ? -EINVAL : rq.len ? front_do(w, &rq) : 0;
		out.write.size = (uint32_t)rq.len;
		reply(fd, unique, r, &out.write, r ? 0 : sizeof(out.write));
		return;
	}
	case FUSE_FSYNC:
		rq = (struct front_request){ .op = FRONT_FLUSH };
		reply(fd, unique, front_readonly(p->f) ? 0 : front_do(w, &rq), NULL, 0);
		return;
	case FUSE_FALLOCATE:
		reply(fd, unique, do_fallocate(w, arg), NULL, 0);
		return;
	case FUSE_GETATTR:
	case FUSE_SETATTR: /* times are not kept, the size is not the file's to change */
		if (in->opcode == FUSE_SETATTR && ((const struct fuse_setattr_in *)arg)->valid & FATTR_SIZE) {
			reply(fd, unique, -EPERM, NULL, 0);
			return;
		}
		fill_attr(p, &out.attr.attr);
		reply(fd, unique, 0, &out.attr, sizeof(out.attr));
		return;
	case FUSE_OPEN:
		if (front_readonly(p->f) && (((const struct fuse_open_in *)arg)->flags & O_ACCMODE) != O_RDONLY) {
			reply(fd, unique, -EROFS, NULL, 0);
			return;
		}
		out.open.open_flags = FOPEN_KEEP_CACHE;
		reply(fd, unique, 0, &out.open, sizeof(out.open));
		return;
	case FUSE_STATFS: /* the loop driver takes its discard granularity from here */
		out.statfs.st.bsize = out.statfs.st.frsize = VD_BLOCK;
		out.statfs.st.blocks = size / VD_BLOCK;
		out.statfs.st.namelen = 255;
		reply(fd, unique, 0, &out.statfs, sizeof(out.statfs));
		return;
	case FUSE_RELEASE:
	case FUSE_DESTROY:
		reply(fd, unique, 0, NULL, 0);
		return;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return; /* has no answer */
	default:
		reply(fd, unique, -ENOSYS, NULL, 0);
	}
}

/* ---- port ---------------------------------------------------------------- */

static int fuse_open(struct front *f, const char *place, unsigned sector, void **port)
{
	static struct fuse_port p;
	char opts[128], *buf;
	ssize_t n;
	int r;

	(void)sector;
	p.f = f;
	p.born = time(NULL);
	p.fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (p.fd < 0)
		return vol_fail(NULL, -errno, "/dev/fuse cannot be opened (%s); 'modprobe fuse' may help", vol_strerror(-errno));
	snprintf(opts, sizeof(opts), "fd=%d,rootmode=%o,user_id=0,group_id=0,max_read=%u", p.fd, S_IFREG | 0600u, FRONT_IO_MAX);
	if (mount("vdisk", place, "fuse.vdisk", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME, opts)) {
		r = vol_fail(NULL, -errno, "%s: FUSE mount failed: %s", place, vol_strerror(-errno));
		goto no_mount;
	}
	buf = malloc(FRONT_BUF);
	r = -ENOMEM;
	if (buf) {
		do
			n = read(p.fd, buf, FRONT_BUF);
		while (n < 0 && (errno == EINTR || errno == EAGAIN));
		r = n < 0 ? -errno : ((struct fuse_in_header *)buf)->opcode != FUSE_INIT ? -EPROTO : do_init(&p, p.fd, buf);
		free(buf);
	}
	if (r) {
		vol_fail(NULL, r, "%s: the kernel's FUSE does not speak to us: %s", place, vol_strerror(r));
		goto no_init;
	}
	*port = &p;
	return 0;

no_init:
	umount2(place, MNT_DETACH);
no_mount:
	close(p.fd);
	return r;
}

static void fuse_serve(void *port, struct front_worker *w, char *buf)
{
	struct fuse_port *p = port;
	uint32_t master = (uint32_t)p->fd;
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	ssize_t n;

	/* An input queue of its own for each thread, where the kernel has that. */
	if (fd >= 0 && ioctl(fd, FUSE_DEV_IOC_CLONE, &master)) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		fd = p->fd;
	for (;;) {
		n = read(fd, buf, FRONT_BUF);
		if (n >= 0)
			one_request(p, fd, w, buf, (size_t)n);
		else if (errno == ENODEV)
			break; /* unmounted */
		else if (errno != EINTR && errno != EAGAIN && errno != ENOENT) {
			dprintf(2, "fuse: %s\n", strerror(errno));
			break;
		}
	}
	if (fd != p->fd)
		close(fd);
}

/* The kernel asks for the attributes again; they have no lifetime. Whoever resized
 * the volume then sets the loop device's capacity. */
const struct front_port front_fuse = { .open = fuse_open, .serve = fuse_serve };
