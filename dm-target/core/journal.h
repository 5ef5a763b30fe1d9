/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The journal: a ring of 4 KiB blocks on one or two members, and before it the
 * tail, a buffer of records that are published but not yet durable.
 *
 * Order (I5): a record is appended under tail_lock and gets its sequence there.
 * A commit seals at S = last appended, flushes every dirty member, writes the
 * records <= S as one sequential write to each copy, flushes those members, and
 * then durable_seq = S.  One commit runs at a time; callers that come while it
 * runs share the next one (group commit).
 *
 * The tail lives in host memory that may outlive the process (I10).  A later
 * opening on the same boot replays what follows the journal's last sequence.
 *
 * Room: at any time what is in the ring, and all records reserved or waiting put
 * together, fit into it.  A commit of a few records still takes a whole block, so an
 * ordinary commit that would leave too little first takes a checkpoint, which moves
 * the ring's tail; the checkpoint's own commit may use the rest.  An ordinary commit
 * must therefore not be called with ckpt_lock, or anything inside it, held.
 */
#ifndef VD_JOURNAL_H
#define VD_JOURNAL_H

#include "host.h"

struct vd_pool;
struct vd_journal; /* pool->journal */
/* The tail's ring: an eighth of the journal's, a power of two in these bounds.  The
 * longer it is, the less often data must be flushed that nobody asked to have flushed. */
#define VD_TAIL_MIN (2u << 20)
#define VD_TAIL_MAX (8u << 20)
#define VD_TAIL_HEAD 4096u /* before the ring: host.tail() is asked for both */
#define VD_REC_MAX 4096u /* bytes, longest record */
#define VD_JOURNAL_MIN_BLOCKS 64u /* smaller rings are refused; below 1024 writers often wait */

/* Buffers, from pool->super and pool->member. Class B.
 * -EUCLEAN: the superblock describes a journal that cannot be. */
int vd_journal_init(struct vd_pool *pool) __must_check;
void vd_journal_fini(struct vd_pool *pool); /* writes nothing; the host's tail memory stays as it is */

/* Class N, lock-free.  Room for one record of `len` bytes (a multiple of 8, at most
 * VD_REC_MAX), to be used by one append of the same `len` or given back: taken
 * before data is submitted (I12). -EWOULDBLOCK: vd_journal_make_room(). */
int vd_journal_reserve(struct vd_pool *pool, unsigned len) __must_check;
void vd_journal_unreserve(struct vd_pool *pool, unsigned len);
/* Class N, cannot fail.  Called under the seal and the locks that make the record's effect
 * visible at the same moment, after vd_journal_wrote() for its data; returns its
 * sequence.  `len` was reserved and is rec->len. */
uint64_t vd_journal_append(struct vd_pool *pool, const struct vd_disk_rec *rec, unsigned len);
/* How many records one caller may hold reserved at once (320, less in a small ring):
 * more might never be granted.  Who needs more, say for a group, answers -ENOSPC. */
unsigned vd_journal_hold_max(const struct vd_pool *pool);
/* Class B: commits, and calls vd_checkpoint() if that is not enough, until
 * vd_journal_hold_max() records should fit.  The caller holds no lock and no
 * reservation, and tries again: others may have been faster. */
int vd_journal_make_room(struct vd_pool *pool) __must_check;
/* Class N.  More than half of the room is taken by records that wait: vd_pool_work()
 * should commit.  reserve() kicks when it becomes so. */
bool vd_journal_due(const struct vd_pool *pool);

/* Class B.  Returns when every record <= seq, and all data written before the
 * call, is durable. seq ~0: up to now. Any failure of a write or flush here sets the
 * pool's mode to VD_MODE_FAILED before anyone is answered (I9); then -EIO for ever. */
int vd_journal_commit(struct vd_pool *pool, uint64_t seq) __must_check;
/* The same; what a checkpoint calls, with ckpt_lock held.  It needs no kept room. */
int vd_journal_commit_for_checkpoint(struct vd_pool *pool, uint64_t seq) __must_check;
uint64_t vd_journal_durable(const struct vd_pool *pool);
uint64_t vd_journal_last(const struct vd_pool *pool); /* last appended */

/* Marks a member as having data that is not flushed; class N, callable from completion. */
void vd_journal_wrote(struct vd_pool *pool, unsigned member);

/* After replay: whether the ring holds blocks that can only have been written after a
 * superblock later than pool->super was durable. Reads all of it. Class B. */
int vd_journal_outlived(struct vd_pool *pool, bool *yes) __must_check;

/* Opening: longest valid chain over the copies from the superblock's tail, each
 * record of a complete commit with seq > pool->super's seq handed to fn in order,
 * then (VD_OPEN_READONLY not given) the surviving tail of this boot.  Hostile
 * contents end the chain, or give -EUCLEAN when their checksums are right; they are
 * never believed.  `rec` has a known type, and a length that fits its type and
 * counts; its addresses are not checked.  rec->len is the extent of *rec.
 * An answer of fn other than 0 ends it.  Once, after init. Class B. */
typedef int (*vd_replay_fn)(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec);
int vd_journal_replay(struct vd_pool *pool, vd_replay_fn fn) __must_check;
/* After replay, when writing: flushes every member (nobody knows what the last owner
 * left in their caches), makes both copies equal up to the end of the chain (I8), puts
 * the surviving tail into the journal, and begins incarnation `inc`: fills in
 * pool->super's segments.  The caller then writes the superblock, and appends only
 * when that is durable.  -ENOSPC: no segment left: checkpoint (its commit writes
 * nothing) and call again.  A failed write or flush sets VD_MODE_FAILED. Class B. */
int vd_journal_begin(struct vd_pool *pool, uint64_t inc) __must_check;

/* Checkpoint: where the journal's tail may go once the checkpoint of sequence S is
 * durable.  Called after commit(S); fills in journal_tail, journal_crc, segments of
 * *super.  The tail is the last end of a commit known to be <= S: replay from it may
 * meet records <= S again and skips them.  And once it is durable: */
void vd_journal_tail_at(struct vd_pool *pool, uint64_t seq, struct vd_disk_super *super);
void vd_journal_tail_set(struct vd_pool *pool, const struct vd_disk_super *super);
uint64_t vd_journal_used(const struct vd_pool *pool); /* blocks between tail and head */
uint64_t vd_journal_written(const struct vd_pool *pool); /* blocks written since open, all copies */

#endif
