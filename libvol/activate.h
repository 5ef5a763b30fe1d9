/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who serves a pool's volumes on this host: the kernel where it can, else a server.
 * Texts are in vol_error(NULL).
 */
#ifndef VOL_ACTIVATE_H
#define VOL_ACTIVATE_H

#include "dm.h"
#include "link.h"

/*
 * Sees to it that the pool is served, so that these volumes can be linked.  Who serves it
 * already goes on.  Else it is the kernel, unless VD_KERNEL=n is in the environment, dm-vd
 * cannot be loaded, a member is a file, a volume's base image has a length or sectors that the
 * kernel cannot do with, or a name is too long;
 * *why (may be NULL) is that reason then, or NULL.  *started (may be NULL): "kernel",
 * "server", or NULL when it was there.
 */
int activate_pool(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n, bool takeover,
		  const char **started, const char **why) __must_check;

/* The kernel's part of that: 0 and *why a reason: it cannot be the kernel, and nothing was done.
 * flags: VOL_TAKEOVER; VOL_READONLY: members may be missing. */
int activate_kernel(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n, unsigned flags,
		    bool *started, const char **why) __must_check;

/* A link's device in the kernel: makes it, with l->device and l->size; has it take in the
 * volume's size as it is now.  The pool is open in the kernel. */
int activate_volume(struct vol_pool *p, struct link_info *l) __must_check;
int activate_refresh(struct vol_pool *p, const struct link_info *l) __must_check;

#endif
