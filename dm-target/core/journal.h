/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The journal: a ring of 4 KiB blocks on one or two members, and before it the
 * tail, a buffer of records that are published but not yet durable.
 *
 * Order (I5): a record is appended under tail_lock and gets its sequence there.
 * A commit seals at S = last appended, flushes every dirty member, writes the
 * records <= S as one sequential write to each copy, flushes those members, and
 * then durable_seq = S.  One commit runs at a time; callers that wait for a
 * sequence it covers share it (group commit).
 *
 * The tail lives in host memory that may outlive the process (I10): a head
 * {magic, pool, incarnation, first_seq, used, crc of these at each change is not
 * needed: `used` is stored last, with release} and packed records.  A later
 * opening on the same boot replays what follows the journal's last sequence.
 *
 * Room: a commit of a full tail always fits, since normal appends are refused
 * (-EWOULDBLOCK) while used blocks + blocks for the tail + VD_TAIL_BLOCKS would
 * pass the ring; a checkpoint needs no room but that of the commit it begins with.
 */
#ifndef VD_JOURNAL_H
#define VD_JOURNAL_H

#include "host.h"

struct vd_pool;
struct vd_journal; /* pool->journal */
#define VD_TAIL_BYTES (1u << 20)

int vd_journal_init(struct vd_pool *pool) __must_check; /* buffers, from pool->super */
void vd_journal_fini(struct vd_pool *pool);

/* Class N.  Room for one record of `len` bytes, to be used by one append or given
 * back: taken before data is submitted (I12). -EWOULDBLOCK: vd_journal_make_room(). */
int vd_journal_reserve(struct vd_pool *pool, unsigned len) __must_check;
void vd_journal_unreserve(struct vd_pool *pool, unsigned len);
/* Class N, cannot fail.  Called under the locks that make the record's effect
 * visible at the same moment; returns its sequence.  `len` was reserved. */
uint64_t vd_journal_append(struct vd_pool *pool, const struct vd_disk_rec *rec, unsigned len);
/* Class B: commits, or asks for and waits for a checkpoint, until reserve() makes sense. */
int vd_journal_make_room(struct vd_pool *pool) __must_check;

/* Class B.  Returns when every record <= seq, and all data written before the
 * call, is durable. seq ~0: up to now. Any failure of a write or flush here sets the
 * pool's mode to VD_MODE_FAILED before anyone is answered (I9). */
int vd_journal_commit(struct vd_pool *pool, uint64_t seq) __must_check;
uint64_t vd_journal_durable(const struct vd_pool *pool);
uint64_t vd_journal_last(const struct vd_pool *pool); /* last appended */

/* Marks a member as having data that is not flushed; class N, callable from completion. */
void vd_journal_wrote(struct vd_pool *pool, unsigned member);

/* Opening: longest valid chain over the copies from the superblock's tail, each
 * record of a complete commit with seq > pool->super's seq handed to fn in order,
 * then (VD_OPEN_READONLY not given) the surviving tail of this boot.  Hostile
 * contents end the chain; they are never believed. Class B. */
typedef int (*vd_replay_fn)(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec);
int vd_journal_replay(struct vd_pool *pool, vd_replay_fn fn) __must_check;
/* After replay, when writing: makes both copies equal up to the end of the chain (I8),
 * and begins incarnation `inc`: fills in pool->super's segments (or answers -ENOSPC when
 * they are full: checkpoint first). The caller then writes the superblock. Class B. */
int vd_journal_begin(struct vd_pool *pool, uint64_t inc) __must_check;

/* Checkpoint: where the journal's tail may go once the checkpoint of sequence S is
 * durable.  Called right after the commit(S) with appends to S sealed; fills in
 * journal_tail, journal_crc, segments of *super.  And once it is durable: */
void vd_journal_tail_at(struct vd_pool *pool, uint64_t seq, struct vd_disk_super *super);
void vd_journal_tail_set(struct vd_pool *pool, const struct vd_disk_super *super);
uint64_t vd_journal_used(const struct vd_pool *pool); /* blocks between tail and head */
uint64_t vd_journal_written(const struct vd_pool *pool); /* blocks written since open, all copies */
#endif
