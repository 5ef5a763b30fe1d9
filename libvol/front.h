/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The front of a link: a small process between the kernel and the pool's server
 * that outlives the server.
 *
 *     file system            file system
 *     loop device            nbd device
 *     FUSE file              socket pair
 *        \                   /
 *          front: WORKERS threads, one NBD connection each, and one that watches
 *                   |
 *          nbdkit-vd-plugin
 *
 * A worker takes one request from the kernel, has the server do it, answers, and
 * takes the next.  What keeps a mounted file system whole over a kill of the
 * server (I10):
 *   F1. A request whose connection broke before its answer came is sent again to
 *       the next server.  Reads, writes of the same data, zeroing and flushes may
 *       be done twice; nothing else may run on the same blocks meanwhile, for the
 *       kernel has not been answered.
 *   F2. What had been answered is in the members' page cache and in the engine's
 *       redo tail.  A new server that does not have that tail (its token differs)
 *       is never written to: every request gets EIO until the volume is linked
 *       again.  The loss is not silent.
 *   F3. An error that the server itself gives (ENOSPC, EIO) is the answer.  It is
 *       not tried again.
 *   F4. A server that is gone is started again at once, by whichever front is first.
 *       One that cannot be had within VD_LINK_TIMEOUT seconds (default 300) makes
 *       requests fail with EIO, at once, until it is back; it is still tried for.
 *   F5. No memory is allocated for a request, memory is locked, and the process
 *       is marked as one that memory reclaim waits for, where that is permitted.
 *
 * nbdfuse is not used: it ends with its server, and it makes of a punched hole a
 * trim, whose edges need not read as zeros.
 */
#ifndef VOL_FRONT_H
#define VOL_FRONT_H

#include "host.h"

#define FRONT_WORKERS 8
#define FRONT_IO_MAX (1u << 20)

enum front_op { FRONT_READ, FRONT_WRITE, FRONT_ZERO, FRONT_TRIM, FRONT_FLUSH };
struct front_request {
	enum front_op op;
	uint64_t off, len; /* within the device */
	void *buf;         /* READ, WRITE; at most FRONT_IO_MAX */
};

struct front_worker; /* one thread's connection */

/* Does a request, over however many servers it takes. 0 or -errno. */
int front_do(struct front_worker *w, const struct front_request *rq);

struct front;
uint64_t front_size(const struct front *f);
bool front_readonly(const struct front *f);

/* The kernel's side of a front. */
struct front_port {
	/* In the child, with one thread: makes the device; text in vol_error(NULL). */
	int (*open)(struct front *f, const char *place, unsigned sector, void **port);
	/* Serves requests until the kernel has no more. One call in each thread. */
	void (*serve)(void *port, struct front_worker *w, char *buf /* FRONT_BUF bytes, page aligned */);
	/* In the process's first thread, until the device goes; NULL: that thread serves. */
	void (*run)(void *port);
	/* The volume's size has changed to front_size(). */
	void (*resized)(void *port);
};
#define FRONT_BUF (FRONT_IO_MAX + 4096)
extern const struct front_port front_fuse; /* place: an empty file, over which it is mounted */
extern const struct front_port front_nbd;  /* place: a free /dev/nbdN */

struct front_spec {
	const char *pool;     /* its name */
	uint8_t uuid[16];     /* of the pool */
	const char *export;   /* "VOLUME/link=N/pool=UUID" */
	const char *title;    /* for ps, top and the log: "POOL/VOLUME" */
	const struct front_port *port;
	const char *place;
	unsigned sector;      /* logical sector size */
	bool readonly;
};
/*
 * Starts a front as a process of its own, in no session; on return its device can
 * be used and `pid` is it.  The server must run.  It ends when the device goes:
 * unmounting the FUSE file, disconnecting the nbd device.  It ignores SIGTERM and
 * SIGINT, as what a mounted file system stands on must; SIGUSR1 makes it look at
 * the volume's size again.  Text in vol_error(NULL).
 */
int front_start(const struct front_spec *spec, pid_t *pid, uint64_t *size) __must_check;

#endif
