/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Data I/O on a volume of a pool that this process owns: what a server's
 * read and write callbacks call.  Any number of threads at once.  All calls may
 * block; none allocates memory in the ordinary case.
 *
 * Offsets and lengths are bytes and need no alignment; what is not a multiple
 * of the pool's sector size is read, merged and written by whole sectors.
 * (Two unaligned writes to one sector at the same time are not ordered: the
 * callers' affair, as on a disk.)
 *
 * Errors: -ERANGE beyond the end of the volume; -EROFS; -ENOSPC the pool is
 * full (to wait, where its policy says so, is the caller's); -EIO, -EBADMSG,
 * -EUCLEAN, -ENODEV as the engine says.  After an error a
 * range may be partly written.
 */
#ifndef VOL_IO_H
#define VOL_IO_H

#include "host.h"

struct vol_volume;

enum vol_io_flags {
	VOL_IO_FUA = 1,      /* durable on return */
	VOL_IO_FAST_ZERO = 2,/* vol_zero: -ENOTSUP rather than writing zeros over more than edges; never given, zeroing always frees */
};

/* Opens the base image of a volume; its length in bytes.  -ENOENT and the like; the text is as below. */
int vol_base_open(const char *pool, const char *volume, const char *path, int *fd, uint64_t *size) __must_check;
/* Opens a volume, and its base image if it has one.  `readonly` also when the
 * volume may be written.  link: the volume's link for which it is, 0 for none.  -ENOENT; -EACCES locked (text: by whom; a stale lock is
 * broken); -EROFS pool or volume is read-only and readonly was not said; base:
 * -ENOENT and the like.  The text is in vol_error(NULL) of this thread. */
int vol_volume_open(struct vol_pool *pool, const char *name, uint32_t link, bool readonly, struct vol_volume **out) __must_check;
void vol_volume_close(struct vol_volume *v);
uint64_t vol_volume_size(const struct vol_volume *v); /* changes with a resize */
bool vol_volume_readonly(const struct vol_volume *v);
uint32_t vol_volume_id(const struct vol_volume *v);

int vol_pread(struct vol_volume *v, void *buf, size_t len, uint64_t off) __must_check;
int vol_pwrite(struct vol_volume *v, const void *buf, size_t len, uint64_t off, unsigned flags) __must_check;
/* Everything acknowledged before on this pool is durable. */
int vol_flush(struct vol_volume *v) __must_check;
/* Discard: whole blocks are freed and read as zeros, edges are left alone. */
int vol_unmap(struct vol_volume *v, uint64_t off, uint64_t len, unsigned flags) __must_check;
/* Reads as zeros afterwards, edges too; whole blocks are freed. */
int vol_zero(struct vol_volume *v, uint64_t off, uint64_t len, unsigned flags) __must_check;

/* Calls fn for the extents of [off, off + len), in order, without gaps, neighbours of
 * one kind joined; clipped to the range.  BASE extents past the end of the base
 * image are told as HOLE.  A non-zero answer of fn ends it and is returned. */
typedef int (*vol_extent_fn)(void *arg, uint64_t off, uint64_t len, enum vd_ext_kind kind);
int vol_extents(struct vol_volume *v, uint64_t off, uint64_t len, vol_extent_fn fn, void *arg) __must_check;
/* Brings [off, off + len) into the page cache; a hint. */
int vol_cache(struct vol_volume *v, uint64_t off, uint64_t len) __must_check;

#endif
