/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Whole requests over the engine's begin and end, as a server does them:
 * waiting where the engine says -EWOULDBLOCK, filling the rest of partly
 * written blocks, reading the base image.
 *
 * Sectors are stamped: a sector with value `id` holds a pattern of the id and
 * its own number, so that what is read tells who wrote it and for where.  Value
 * 0 is zeros.  A base image of n sectors is named "base:n" and is stamped with
 * VALUE_BASE.
 */
#ifndef VD_TESTS_IO_H
#define VD_TESTS_IO_H

#include "sim.h"

#define SECTOR 512u
#define VALUE_BASE 0x6261736520696d67ull
#define VALUE_BAD (~0ull) /* not a stamp, or another sector's */

void stamp(uint8_t *sector, uint64_t number, uint64_t value);
uint64_t stamp_read(const uint8_t *sector, uint64_t number);
/* What a bad sector looks like, for a message. */
void stamp_describe(const uint8_t *sector, char *out, size_t size);

uint64_t base_sectors(const char *path); /* of "base:n" */
void base_path(char *out, size_t size, uint64_t sectors);
void base_read(uint64_t nsectors, uint64_t off, uint8_t *buf, uint64_t len);

/* 0 or the first error; *done (may be NULL) is how many bytes from `off` were completed. */
int io_read(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, void *buf, uint64_t len, uint64_t *done);
int io_write(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, const void *buf, uint64_t len, uint64_t *done);
/* One run that begin has described: its data part only. */
int io_run_read(struct sim *sim, const struct vd_io *io, uint64_t nbase, uint64_t off, void *buf);
int io_run_write(struct sim *sim, const struct vd_io *io, uint64_t nbase, uint64_t off, const void *buf);

/* All of [off, off + len) to one value. */
int io_stamp(struct sim *sim, struct vd_volume *vol, uint64_t nbase, uint64_t off, uint64_t len, uint64_t value, uint64_t *done);

#endif
