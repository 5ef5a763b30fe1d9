// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * A front's kernel side where the kernel has the nbd driver: the driver is given
 * one end of a socket pair and speaks NBD's transmission phase on it; at the other
 * end are the workers.  The driver sees a server that never goes away.
 *
 * A request is a header and, for a write, its data; workers take turns to read one
 * (in_lock) and to write an answer (out_lock), and do the work in between at once.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/nbd.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "front.h"

#define NBD_TYPE_MASK 0xffffu

struct nbd_port {
	struct front *f;
	int dev, sock; /* sock: our end */
	unsigned sector;
	pthread_mutex_t in_lock, out_lock;
	bool ended;    /* in_lock: the driver has said good-bye */
};

struct request_header { __be32 magic, type; char handle[8]; __be64 from; __be32 len; } __attribute__((packed));
struct reply_header { __be32 magic, error; char handle[8]; } __attribute__((packed));

static int take(int fd, void *buf, size_t len)
{
	ssize_t n;

	for (size_t at = 0; at < len; at += (size_t)n) {
		n = recv(fd, (char *)buf + at, len - at, MSG_WAITALL);
		if (n < 0 && errno == EINTR)
			n = 0;
		else if (n <= 0)
			return -EPIPE;
	}
	return 0;
}

/* A worker's, for requests of the driver's that are longer than a front's; these have up to 32 MiB (6.12). */
struct room { char *buf; size_t len; };

static char *room_for(struct room *room, char *buf, size_t len)
{
	char *more;

	if (len <= FRONT_IO_MAX)
		return buf;
	if (len > room->len) {
		more = realloc(room->buf, len);
		if (!more)
			return NULL;
		*room = (struct room){ more, len };
	}
	return room->buf;
}

static int do_data(struct front_worker *w, const struct front_request *all)
{
	struct front_request rq = *all;
	int r = 0;

	for (uint32_t at = 0; !r && at < all->len; at += rq.len) {
		rq.off = all->off + at;
		rq.len = vd_min(all->len - at, FRONT_IO_MAX);
		rq.buf = (char *)all->buf + at;
		r = front_do(w, &rq);
	}
	return r;
}

/* NBD's numbers are Linux's for the few it knows. */
static uint32_t nbd_error(int r)
{
	switch (-r) {
	case 0:
	case EPERM:
	case EIO:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
		return (uint32_t)-r;
	case EROFS:
		return EPERM;
	default:
		return EIO;
	}
}

static int answer(struct nbd_port *p, const struct request_header *h, int r, const void *data, size_t len)
{
	struct reply_header rh = { .magic = htobe32(NBD_REPLY_MAGIC), .error = htobe32(nbd_error(r)) };
	struct iovec iov[2] = { { &rh, sizeof(rh) }, { (void *)data, r ? 0 : len } };
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t n;
	int e = 0;

	memcpy(rh.handle, h->handle, sizeof(rh.handle));
	pthread_mutex_lock(&p->out_lock);
	while (iov[0].iov_len + iov[1].iov_len) {
		n = sendmsg(p->sock, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			e = -EPIPE;
			break;
		}
		for (unsigned i = 0; i < 2; i++) {
			size_t k = vd_min((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + k;
			iov[i].iov_len -= k;
			n -= (ssize_t)k;
		}
	}
	pthread_mutex_unlock(&p->out_lock);
	return e;
}

/* *data: where a write's is, and a read's goes; NULL: there is no memory for it. */
static int next_request(struct nbd_port *p, struct request_header *h, char *buf, struct room *room, char **data)
{
	uint32_t type;
	int r = -EPIPE;

	pthread_mutex_lock(&p->in_lock);
	if (!p->ended)
		r = take(p->sock, h, sizeof(*h));
	if (!r) {
		type = be32toh(h->type) & NBD_TYPE_MASK;
		*data = type == NBD_CMD_READ || type == NBD_CMD_WRITE ? room_for(room, buf, be32toh(h->len)) : NULL;
		if (be32toh(h->magic) != NBD_REQUEST_MAGIC || type == NBD_CMD_DISC)
			r = -EPIPE;
		else if (type == NBD_CMD_WRITE)
			r = *data ? take(p->sock, *data, be32toh(h->len)) : -EPIPE;
	}
	if (r)
		p->ended = true;
	pthread_mutex_unlock(&p->in_lock);
	return r;
}

static void nbd_serve(void *port, struct front_worker *w, char *buf)
{
	const struct front_request flush = { .op = FRONT_FLUSH };
	struct nbd_port *p = port;
	struct room room = { NULL, 0 };
	struct request_header h;
	char *data;
	int r;

	while (!next_request(p, &h, buf, &room, &data)) {
		struct front_request rq = { .off = be64toh(h.from), .len = be32toh(h.len), .buf = data };
		uint32_t type = be32toh(h.type);
		bool reads = false;

		switch (type & NBD_TYPE_MASK) {
		case NBD_CMD_READ:
			rq.op = FRONT_READ;
			reads = true;
			r = data ? do_data(w, &rq) : -ENOMEM;
			break;
		case NBD_CMD_WRITE:
			rq.op = FRONT_WRITE;
			r = do_data(w, &rq);
			break;
		case NBD_CMD_FLUSH:
			r = front_do(w, &flush);
			break;
		case NBD_CMD_TRIM:
			rq.op = FRONT_TRIM;
			r = front_do(w, &rq);
			break;
		default:
			r = -EINVAL;
		}
		if (!r && type & NBD_CMD_FLAG_FUA)
			r = front_do(w, &flush);
		if (answer(p, &h, r, data, reads ? rq.len : 0))
			break;
	}
	free(room.buf);
	/* Others may be waiting for a request that will not come. */
	shutdown(p->sock, SHUT_RDWR);
}

/* The driver works in this call until the device is disconnected, and tells of it the id of the thread
 * that makes it: by that a dead front's device is known (device_nbd_of). */
static void nbd_run(void *port)
{
	struct nbd_port *p = port;

	(void)ioctl(p->dev, NBD_DO_IT);
	shutdown(p->sock, SHUT_RDWR);
	(void)ioctl(p->dev, NBD_CLEAR_QUE);
	(void)ioctl(p->dev, NBD_CLEAR_SOCK);
}

static int nbd_open(struct front *f, const char *place, unsigned sector, void **port)
{
	static struct nbd_port p;
	unsigned long flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_FUA |
			      (front_readonly(f) ? NBD_FLAG_READ_ONLY : 0);
	int pair[2], r;

	p.f = f;
	p.sector = sector;
	pthread_mutex_init(&p.in_lock, NULL);
	pthread_mutex_init(&p.out_lock, NULL);
	p.dev = open(place, O_RDWR | O_CLOEXEC);
	if (p.dev < 0)
		return vol_fail(NULL, -errno, "%s cannot be opened: %s", place, vol_strerror(-errno));
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		r = vol_fail(NULL, -errno, "no socket pair: %s", vol_strerror(-errno));
		goto no_pair;
	}
	p.sock = pair[0];
	/* The size last: it is what makes udev look. EBUSY: another took this device first. */
	if (ioctl(p.dev, NBD_SET_SOCK, pair[1]) || ioctl(p.dev, NBD_SET_FLAGS, flags) ||
	    ioctl(p.dev, NBD_SET_BLKSIZE, (unsigned long)sector) || ioctl(p.dev, NBD_SET_TIMEOUT, 0ul) ||
	    ioctl(p.dev, NBD_SET_SIZE_BLOCKS, (unsigned long)(front_size(f) / sector))) {
		r = vol_fail(NULL, -errno, "%s: %s", place, vol_strerror(-errno));
		goto no_setup;
	}
	close(pair[1]);
	*port = &p;
	return 0;

no_setup:
	(void)ioctl(p.dev, NBD_CLEAR_SOCK);
	close(pair[0]);
	close(pair[1]);
no_pair:
	close(p.dev);
	return r;
}

static void nbd_resized(void *port)
{
	struct nbd_port *p = port;

	(void)ioctl(p->dev, NBD_SET_SIZE_BLOCKS, (unsigned long)(front_size(p->f) / p->sector));
}

const struct front_port front_nbd = { .open = nbd_open, .serve = nbd_serve, .run = nbd_run, .resized = nbd_resized };
