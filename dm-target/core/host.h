/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the engine asks of its host.  All calls of struct vd_host may block and
 * are made only from engine calls of the blocking class (I11), except `alloc`
 * with VD_ALLOC_NOWAIT, `free`, `now` and `kick`, which never block.
 *
 * Members are named by their index in the pool; a host answers -ENODEV for one
 * that is missing.  Blocks are of 4 KiB; buffers are the engine's.
 */
#ifndef VD_HOST_H
#define VD_HOST_H

#include "format.h"

enum { VD_ALLOC_WAIT = 0, VD_ALLOC_NOWAIT = 1 };
enum { VD_LOG_ERROR = 0, VD_LOG_WARN = 1, VD_LOG_INFO = 2 };

struct vd_host {
	void *ctx;
	/* 0 or negative errno.  A write is durable only after a later flush of
	 * the same member has returned 0. */
	int (*read)(void *ctx, unsigned member, uint64_t block, void *buf, unsigned nblocks);
	int (*write)(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks);
	int (*flush)(void *ctx, unsigned member);
	/* A flush, then a write that is durable on return: one command with PREFLUSH and FUA
	 * where there is such a thing (I5).  May be NULL. */
	int (*commit)(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks);
	/* Space never to be read again until written; a hint, errors are ignored. May be NULL. */
	int (*discard)(void *ctx, unsigned member, uint64_t block, uint64_t nblocks);
	void *(*alloc)(void *ctx, size_t size, int how); /* NULL: no memory */
	void (*free)(void *ctx, void *p);
	uint64_t (*now)(void *ctx); /* ns since 1970 */
	/* One line about object a (and b), e.g. "metadata block %a: copy repaired from %b":
	 * the host replaces %a and %b by the numbers. */
	void (*log)(void *ctx, int level, const char *msg, uint64_t a, uint64_t b);
	/* vd_pool_work() has something to do.  May be NULL: the host calls it on its own. */
	void (*kick)(void *ctx);
	/* Memory that outlives the process on the same boot, for the redo tail (I10):
	 * the same bytes are handed to the next opening of the pool on this boot,
	 * zeroed on first use.  NULL or a NULL answer: the tail is in plain memory. */
	void *(*tail)(void *ctx, size_t size);
	/* Blocks that a member has now; 0: not known.  One that has fewer than the pool
	 * counts on is taken for missing.  May be NULL. */
	uint64_t (*size)(void *ctx, unsigned member);
	/* The pool is about to be full: the host may make members larger, and vd_pool_grow()
	 * them, before writers are told.  True: it did.  May be NULL. */
	bool (*grow)(void *ctx);
	/* Bytes of metadata that are kept in memory. 0: 128 MiB. */
	uint64_t cache;
};

#endif
