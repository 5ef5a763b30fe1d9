/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Metadata nodes in memory: read, verified, cached; written before a
 * checkpoint completes, to places nothing durable points to.
 *
 * A node is immutable once the checkpoint that wrote it is over; during that
 * checkpoint (node's gen == pool->ckpt_gen) it may be changed in place under
 * pool->ckpt_lock, which every caller that makes, changes or drops a node holds.
 * Readers hold a reference; they see nodes of finished checkpoints, or of the
 * running one through a root that the checkpoint has published.
 *
 * On read both checksum and identity are verified: magic, pool, own address,
 * generation as the pointer says, kind and level.  A copy that fails is logged
 * and read from the other; the owner then rewrites the bad copy (I16).
 */
#ifndef VD_NODE_H
#define VD_NODE_H

#include "host.h"

struct vd_pool;
struct vd_cache;
struct vd_ptr { vd_pblk_t a, b; uint64_t gen; }; /* gen 0: none. b: VD_PBLK_NONE when one copy */

struct vd_node {
	struct vd_ptr ptr;
	uint8_t kind, level;
	bool dirty;          /* ckpt_lock */
	bool gone;           /* forgotten while held; ckpt_lock */
	bool used;           /* for the clock */
	vd_atomic_t refs;    /* holders, and one of the cache's own while hashed */
	struct vd_list lru, hash, changed;
	struct vd_cache *cache;
	void *data;          /* VD_BLOCK bytes; a vd_disk_node at its head */
};
static inline struct vd_disk_node *vd_node_head(struct vd_node *n) { return n->data; }

int vd_cache_init(struct vd_pool *pool, uint64_t max_bytes) __must_check;
void vd_cache_fini(struct vd_pool *pool); /* drops all, dirty ones too */

enum { VD_NODE_NOWAIT = 1 /* -EWOULDBLOCK instead of reading */ };
/* A reference on the node at ptr.  -EBADMSG both copies bad; -EUCLEAN not the
 * node that ptr means; -EIO/-ENODEV.  Without NOWAIT: class B. */
int vd_node_get(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind kind, unsigned level, unsigned flags, struct vd_node **out) __must_check;
/* A copy of the node at ptr can be read, and is it. Class B. */
bool vd_node_is_there(struct vd_pool *pool, const struct vd_ptr *ptr);
void vd_node_put(struct vd_pool *pool, struct vd_node *n);
/* A new zeroed dirty node of the running checkpoint at freshly allocated blocks
 * (count 1 each), head filled in but for count and key range. -ENOSPC; -EIO: when
 * too much of the cache is dirty, nodes nobody holds are written early. ckpt_lock. */
int vd_node_new(struct vd_pool *pool, enum vd_node_kind kind, unsigned level, uint32_t owner, struct vd_node **out) __must_check;
/* After each change, while the node is still held. ckpt_lock; n->ptr.gen == ckpt_gen. */
void vd_node_dirty(struct vd_node *n);
/* The node at ptr is no longer allocated: forget it without writing. May wait for a
 * repair of one of its copies to end. ckpt_lock. */
void vd_node_forget(struct vd_pool *pool, const struct vd_ptr *ptr);
/* Seals and writes all dirty nodes, in address order, contiguous runs in one
 * host write of up to 64 blocks.  Does not flush.  ckpt_lock. */
int vd_cache_write(struct vd_pool *pool) __must_check;
/* The running checkpoint is given up: forgets all nodes of generation ckpt_gen. None
 * may be held. ckpt_lock. */
void vd_cache_abort(struct vd_pool *pool);
/* Node blocks written since vd_cache_init(), all copies, repairs included. Class N. */
uint64_t vd_cache_written(const struct vd_pool *pool);

void vd_ptr_get(struct vd_ptr *to, const struct vd_disk_ptr *from);
void vd_ptr_put(struct vd_disk_ptr *to, const struct vd_ptr *from); /* leaves key and aux */

#endif
