/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Space: which blocks are in use, and by how many.
 *
 * Two things are kept a block:
 *   count   how many tree entries refer to it.  Durable, changed only by a
 *           checkpoint (under ckpt_lock), so that it is cut at the checkpoint's
 *           sequence and replay is exactly once (I7).
 *   busy    one bit, in memory: not to be allocated.  Set when reserved or
 *           allocated, or while count > 0; cleared when the block is free *and*
 *           the record that freed it, or the checkpoint, is durable *and* all
 *           I/O translated before has ended (D6).
 * A group's counts and busy bits are loaded at first use (I17) and dropped again
 * when they say the same and memory is short.  Groups absent from the space tree
 * are free throughout; blocks 0-15 of each member, the journal, and what lies
 * past a member's end are never free: vd_space_format() gives the first two
 * count 1, and the last is known from the member table.
 *
 * Free space for the data of volumes ends at pool->reserve_blocks: the rest is
 * for metadata (D4, D10).  What is promised to volumes (reserve.c) comes on top, for
 * all but these.
 */
#ifndef VD_SPACE_H
#define VD_SPACE_H

#include "node.h"

struct vd_space; /* pool->space */

int vd_space_init(struct vd_pool *pool) __must_check;
void vd_space_fini(struct vd_pool *pool);

/* ---- counts: ckpt_lock held, class B --------------------------------- */
/* System blocks, the journal, blocks of no member: -EUCLEAN, for all calls of this
 * part and vd_space_claim(). A call that fails leaves each group (8192 blocks) of the
 * range changed as a whole or not at all; the checkpoint must then fail. */
int vd_space_inc(struct vd_pool *pool, vd_pblk_t p, uint64_t len) __must_check; /* -EOVERFLOW above 2^31-1; -EUCLEAN: freed by an older checkpoint or a record, and on its way out */
/* Blocks whose count falls to 0 become free when this checkpoint is durable and
 * I/O has drained: collected, see vd_space_checkpointed(). -EUCLEAN: count was 0. */
int vd_space_dec(struct vd_pool *pool, vd_pblk_t p, uint64_t len) __must_check;
int vd_space_count(struct vd_pool *pool, vd_pblk_t p, uint32_t *count) __must_check;
/* Length of the run of equal count that starts at p (bounded by len and by p's group).
 * For check. These two take system blocks and the journal too. */
int vd_space_run(struct vd_pool *pool, vd_pblk_t p, uint64_t len, uint32_t *count, uint64_t *run) __must_check;

/* Blocks for a metadata node, count 1 each: *a, and *b on another member when the
 * pool has two that are not missing (else VD_PBLK_NONE; so too, with a warning, when
 * all others are full). From runs kept apart from data, so that a checkpoint writes
 * sequentially; may use the reserve. -ENOSPC. */
int vd_space_alloc_node(struct vd_pool *pool, vd_pblk_t *a, vd_pblk_t *b) __must_check;
/* What is freed must come back soon: before this checkpoint and the next are done both copies of
 * their metadata might find no room (A6 of space_alloc.c), or what awaits it keeps twice the groups
 * in memory that there should be. */
bool vd_space_short(struct vd_pool *pool);
/* One reference on the node less; at 0 both copies are freed and it is forgotten. *left = references left. */
int vd_space_drop_node(struct vd_pool *pool, const struct vd_ptr *ptr, uint32_t *left) __must_check;

/* Last step of folding: puts all changed groups into the space tree until nothing
 * changes any more (writing a page or a node of the space tree changes counts
 * itself; each page and node moves only so often in a checkpoint, so it ends). */
int vd_space_fold(struct vd_pool *pool) __must_check;
/* The superblock of this checkpoint is durable: what it freed may be released after
 * the next drain, and groups are read through pool->space_root as it is now. Called
 * before ckpt_gen is raised. ckpt_lock. */
void vd_space_checkpointed(struct vd_pool *pool);

/* To one volume.  Read under the space layer's lock only: lowered before the sum of all is,
 * and raised after it, so that what others have is not seen too small. */
struct vd_promise {
	vd_atomic_t all;   /* blocks promised to it, with their metadata (R1): its part of the sum */
	vd_atomic_t left;  /* of these, what it may still write */
	vd_atomic_t begun; /* of left, what writes under way have */
};
/* Blocks that a write which begins now may count on.  Less than 0: writes under way have more. */
static inline int64_t vd_promise_open(const struct vd_promise *p)
{
	return vd_atomic_read(&p->left) - vd_atomic_read(&p->begun);
}

/* ---- data: no ckpt_lock ---------------------------------------------- */
/* Reserves up to `want` (1..1024) contiguous blocks, near `goal` (VD_PBLK_NONE:
 * anywhere; exactly at goal when it is free).  Class N: uses groups in memory
 * only; -EWOULDBLOCK: call vd_space_refill(); Tries for the whole length, then
 * the longest run found at hand, in any loaded group.  `mine` (NULL: nothing): what is
 * promised to who asks, part of what vd_space_promise() has summed. */
int vd_space_reserve_for(struct vd_pool *pool, const struct vd_promise *mine, vd_pblk_t goal, unsigned want, vd_pblk_t *p, unsigned *got) __must_check;
static inline int __must_check vd_space_reserve(struct vd_pool *pool, vd_pblk_t goal, unsigned want, vd_pblk_t *p, unsigned *got)
{
	return vd_space_reserve_for(pool, NULL, goal, want, p, got);
}
/* Reserves those of the n (1..32) blocks from p on that are free, if p + must is one of
 * them: bit i of *mask is p + i.  Class N; -EWOULDBLOCK: their group is not in memory, vd_space_load().
 * A mask of 0 when that one is not, p + n is past the group or the member, or data may have
 * no more. */
int vd_space_reserve_mask(struct vd_pool *pool, const struct vd_promise *mine, vd_pblk_t p, unsigned n, unsigned must, uint32_t *mask) __must_check;
/* Class B: brings p's group into memory; if it cannot be read none of its blocks is free
 * to vd_space_reserve_mask(), and it is no error (-ENOMEM is one). */
int vd_space_load(struct vd_pool *pool, vd_pblk_t p) __must_check;
/* Class B: loads groups with free blocks. -ENOSPC: no block is free above the
 * reserve (the caller then tries a checkpoint, or fails). */
int vd_space_refill(struct vd_pool *pool) __must_check;
/* Why blocks that are free may not be had: a group that could not be read. 0: none. Class B. */
int vd_space_bad(struct vd_pool *pool);
/* Gives back blocks that were reserved and never used by any durable record or I/O. Class N. */
void vd_space_unreserve(struct vd_pool *pool, vd_pblk_t p, uint64_t len);
/* A block that left an overlay by record `seq` before it was ever folded: free when
 * seq is durable and I/O has drained. Class N (never fails: may leak until the next
 * opening when memory is out). */
void vd_space_release(struct vd_pool *pool, vd_pblk_t p, uint64_t len, uint64_t seq);
/* Replay: the overlay holds these blocks. -EUCLEAN: in use already. Class B. */
int vd_space_claim(struct vd_pool *pool, vd_pblk_t p, uint64_t len) __must_check;
/* Called after the drain of I/O that began before vd_space_seal() returned: hands back
 * what was sealed.  From one seal to its drained no other: the caller sees to that. */
void vd_space_seal(struct vd_pool *pool);     /* takes what is releasable by now (durable). Class N */
void vd_space_drained(struct vd_pool *pool);  /* passes it down as discards (runs of 16 and more, unless the policy says not to), then makes it free. Class B; without ckpt_lock */
bool vd_space_pending(struct vd_pool *pool);  /* anything that a checkpoint, commit or drain would free */

uint64_t vd_space_free(struct vd_pool *pool); /* blocks allocatable now, reserve included */
/* What is promised, changed together with its owner's part.  Class N. */
void vd_space_promise(struct vd_pool *pool, int64_t change);
uint64_t vd_space_promised(struct vd_pool *pool); /* in all */
/* Blocks that may still be promised: beyond what is promised, the reserve, R5's part and
 * `kept`.  Negative: so many are missing.  Class N. */
int64_t vd_space_promisable(struct vd_pool *pool, uint64_t kept);
/* Keeps n blocks from everyone until they are promised, if so many may be. -ENOSPC. Class N. */
int vd_space_hold(struct vd_pool *pool, uint64_t n, uint64_t kept) __must_check;
void vd_space_unhold(struct vd_pool *pool, uint64_t n);
uint64_t vd_space_set_aside(struct vd_pool *pool); /* from writers without a promise, beyond the reserve. Class N. */
/* Blocks that data may take and leave the reserve and `kept`; mine (NULL: nothing): what is
 * promised to its writer.  Negative: so many are missing.  A look without a lock: who
 * takes blocks looks again (A5).  Class N. */
int64_t vd_space_room(const struct vd_pool *pool, const struct vd_promise *mine, uint64_t kept);
/* Blocks with count > 0, as of the running checkpoint after vd_space_fold(): what
 * the superblock's used_blocks must say, since vd_space_init() believes it. Class N. */
uint64_t vd_space_used(struct vd_pool *pool);
uint64_t vd_space_meta(struct vd_pool *pool); /* of those, nodes (all copies), system blocks and journal */
/* Formatting: system blocks and journal of a member, count 1. Also for a member added live,
 * whose blocks are not free before vd_space_joined(). ckpt_lock. */
int vd_space_format(struct vd_pool *pool, unsigned member) __must_check;
void vd_space_joined(struct vd_pool *pool, unsigned member); /* the superblock that tells of it is durable. ckpt_lock. */
/* A member is to have so many blocks: its last group is written anew by the next checkpoint,
 * as of that size, which must be the one that tells of it.  Nothing is free yet.
 * ckpt_lock, class B. */
int vd_space_stretch(struct vd_pool *pool, unsigned member, uint64_t blocks) __must_check;
/* It is durable, and in the member table: what was added to `before` blocks is free. ckpt_lock. */
void vd_space_grown(struct vd_pool *pool, unsigned member, uint64_t before);

#endif
