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
	bool viewed;                /* they are there, and as new as this handle needs */
	enum vd_pool_mode kernel_mode;
	uint64_t generation;        /* of the view, or of what was wanted of it */

	struct vol_client *client;  /* a server owns the pool, or: */
	struct vol_host *host;
	struct vd_pool *engine;

	struct vol_errbuf err;
};

#endif
