/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The pool handle as open.c, the requests and the error text see it. */
#ifndef VOL_HANDLE_H
#define VOL_HANDLE_H

#include "host.h"

struct vol_pool {
	char name[VOL_NAME_SIZE];
	uint8_t uuid[16];
	unsigned flags;             /* enum vol_open_flags */
	bool beside;                /* read-only beside an owner: the last checkpoint only */
	bool passed_on;             /* another owner follows at once, and does what is left to do */
	struct vd_disk_owner owner; /* owner record found at open, before ours */
	bool have_owner;

	bool kernel;                /* the kernel owns the pool: host and engine are a reader's view of it */
	bool viewed;                /* they are there, and as new as this request needs */
	bool held;                  /* of commands that change it this one is at it: vol_pool_hold() */
	enum vd_pool_mode kernel_mode; /* and kernel_epoch: as told last */
	uint64_t kernel_epoch;
	uint64_t generation;        /* of the view, or of what was wanted of it */

	struct vol_client *client;  /* a server owns the pool, or: */
	struct vol_host *host;
	struct vd_pool *engine;

	struct vol_errbuf err;
};

/* Sees to it that there is an engine to look at: of a pool in the kernel, a view, unless this
 * request has made one.  -ESTALE, without a text: the kernel does not have it any more.  Text in
 * vol_error(NULL). */
int vol_pool_view(struct vol_pool *p) __must_check;

#endif
