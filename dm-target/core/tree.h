/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Copy-on-write trees.  Index nodes (126 entries) over pages; a page is a leaf
 * of extents, a part of a group's counts, or a volume's record.  Changing calls
 * work on a private root under ckpt_lock: a node of an earlier checkpoint, or
 * one with more than one reference, is copied before it is changed; copying a
 * shared node adds a reference to each of its children.  No node is changed
 * that a durable root reaches.
 *
 * Class B, but for look-ups with VD_NODE_NOWAIT.
 */
#ifndef VD_TREE_H
#define VD_TREE_H

#include "node.h"
#include "overlay.h"

struct vd_root { struct vd_ptr ptr; uint8_t height; }; /* ptr.gen 0: empty */
static inline bool vd_root_same(const struct vd_root *a, const struct vd_root *b)
{
	return a->ptr.gen == b->ptr.gen && (!a->ptr.gen || a->ptr.a == b->ptr.a);
}
void vd_root_get(struct vd_root *to, const struct vd_disk_root *from);
void vd_root_put(struct vd_disk_root *to, const struct vd_root *from);

/* What is below an unreadable node of a volume's mapping is lost, and only that: changes
 * leave it as it is.  Inside the engine such a node has this error, so that it is not
 * taken for one of the counts, without which no tree may be changed. */
#define VD_LOST ENOTRECOVERABLE

/* ---- trees of pages by exact key (space, volumes) --------------------- */
struct vd_slot { uint64_t key; struct vd_ptr ptr; uint32_t aux; }; /* ptr.gen 0 allowed as a value: ptr.a carries data */
/* The entry with the smallest key >= key (and, with min_aux > 0, aux >= 1). -ENODATA: none.
 * -EBADMSG, -EUCLEAN: what may have it is lost, -EIO, -ENODEV: it cannot be read; out->key is the first key behind that. */
int vd_ptree_next(struct vd_pool *pool, const struct vd_root *root, uint64_t key, bool with_aux, unsigned flags, struct vd_slot *out) __must_check;
/* Adds or replaces an entry; the old page's blocks are the caller's to drop.  These two
 * keep *root good at every moment they change counts or take blocks, so that the space
 * layer may look things up in the very tree it is changing. Keys < ~0. */
int vd_ptree_set(struct vd_pool *pool, struct vd_root *root, enum vd_node_kind kind, const struct vd_slot *slot) __must_check;
int vd_ptree_del(struct vd_pool *pool, struct vd_root *root, uint64_t key) __must_check; /* -ENODATA */

/* ---- trees of extents (mappings, and the name index) ------------------ */
enum { VD_TREE_NOREF = 1 /* what the extents point to is not counted (name index) */ };
/* As vd_ov_find: what covers v: DATA or ZERO clipped to begin at v, or HOLE with the
 * length that is known to be unmapped (at least 1; up to VD_VBLK_END). */
int vd_tree_find(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, unsigned flags, struct vd_ext *out) __must_check;
/*
 * Replaces [e->v, e->v + e->len) by e (HOLE: removes).  Consumes the caller's
 * reference on the old root and gives one on the new.  Counts: DATA blocks of e
 * +1 (the overlay's hold passes to the tree), displaced DATA blocks -1 where the
 * page is not shared any more.  *mapped changes by the DATA blocks gained or lost; it
 * may be NULL, and then a shared subtree that e covers is dropped without a look inside
 * (to count it, it is read).  After an error *root is not to be used: the checkpoint is
 * given up.  DATA longer than VD_EXTENT_LEN_MAX becomes several extents.
 * Where nodes are lost in every copy e is left out, as far as they reach: those keys go
 * on giving an error.  A lost subtree that e covers as a whole is dropped; what it
 * referred to stays counted until a repair.
 */
int vd_tree_set(struct vd_pool *pool, struct vd_root *root, uint32_t owner, const struct vd_ext *e, unsigned flags, int64_t *mapped) __must_check;
/* Frees from the top of the key range down, at most about `budget` pages: *left
 * is the key below which the tree still is; 0: it is empty (root->ptr.gen 0).  Lost nodes
 * are dropped; what they referred to stays counted until a repair. */
int vd_tree_trim(struct vd_pool *pool, struct vd_root *root, uint32_t owner, unsigned budget, vd_vblk_t *left) __must_check;
/* One more reference on the root (snapshots); one less on a root that others hold too (*left > 0).
 * *left = 0: nobody else holds it, nothing was done, vd_tree_trim() is the way. */
int vd_tree_hold(struct vd_pool *pool, const struct vd_root *root) __must_check;
int vd_tree_release(struct vd_pool *pool, const struct vd_root *root, uint32_t *left) __must_check;

/* Counts DATA blocks in [v, v+len). */
int vd_tree_mapped(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, uint64_t len, uint64_t *mapped) __must_check;

/*
 * Walks nodes top-down in key order.  fn sees each node with its level (pages 0)
 * and the key range its parent gives it; it answers 0 to go on, 1 to leave this
 * subtree out, negative to stop.  A node that cannot be read is shown with n =
 * NULL, its ptr and err; then 0 or 1 go on.  Depth and ranges are verified.
 */
struct vd_visit { struct vd_ptr ptr; struct vd_node *n; unsigned level; uint64_t lo, hi; int err; const struct vd_slot *slot; /* uniform entries of the space tree: n NULL, err 0 */ };
int vd_tree_walk(struct vd_pool *pool, const struct vd_root *root, enum vd_node_kind page_kind, int (*fn)(void *arg, const struct vd_visit *v), void *arg) __must_check;

/* For comparing two trees: the length from v over which both say the same, because
 * they reach the same node or their two pages agree; more may follow.  0: they
 * differ at v. */
int vd_tree_common(struct vd_pool *pool, const struct vd_root *x, const struct vd_root *y, vd_vblk_t v, uint64_t *len) __must_check;

/* Decoding of a page of extents; i < count of the page's head. -EUCLEAN. */
int vd_extents_get(const struct vd_disk_extents *d, unsigned i, struct vd_ext *out) __must_check;
/* Structure of a node after reading: entries in order, in range, kinds known. -EUCLEAN. */
int vd_node_verify(const struct vd_node *n) __must_check;

/* ---- between tree.c and extents.c only --------------------------------- */

/* What a node is filled up to; less in a test that wants tall trees. */
#ifndef VD_INDEX_FILL
#define VD_INDEX_FILL VD_INDEX_MAX
#define VD_EXTENTS_FILL VD_EXTENTS_MAX
#endif

/* A descent from the root to `bottom`: level l is n[l], which the parent's entry i[l + 1]
 * points to and gives the keys [lo[l], hi[l]).  All its nodes are held and, but for
 * read-only descents, may be changed. */
struct vd_path {
	enum vd_node_kind page_kind;
	unsigned flags;     /* VD_TREE_NOREF */
	uint32_t owner;     /* of new nodes */
	bool plain;         /* only remove: no splitting on the way, no merging */
	unsigned height;
	unsigned i[VD_TREE_LEVELS_MAX];
	struct vd_node *n[VD_TREE_LEVELS_MAX];
	uint64_t lo[VD_TREE_LEVELS_MAX], hi[VD_TREE_LEVELS_MAX];
};
void vd_path_init(struct vd_path *p, enum vd_node_kind page_kind, uint32_t owner, unsigned flags);
void vd_path_put(struct vd_pool *pool, struct vd_path *p);
/* Makes the nodes towards key private, from the root to level `bottom`, and links them
 * as it goes.  Full index nodes are split on the way, so that each has room for one entry. */
int vd_path_down(struct vd_pool *pool, struct vd_root *root, uint64_t key, unsigned bottom, struct vd_path *p) __must_check;
/* A new root above a path whose root is full. */
int vd_path_grow(struct vd_pool *pool, struct vd_root *root, struct vd_path *p) __must_check;
/* `right` takes over the keys from `at` on of the path's node at level l, whose parent has
 * room; the path goes on with the half that key is in.  Consumes the reference on right. */
void vd_path_link(struct vd_path *p, struct vd_pool *pool, unsigned l, struct vd_node *right, uint64_t at, uint64_t key);
/* After entries have left the path's node at level l: removes empty nodes, merges small
 * ones with a neighbour, shortens the tree, carries aux up. Puts the path. */
int vd_path_fix(struct vd_pool *pool, struct vd_root *root, struct vd_path *p, unsigned l) __must_check;
/* A reference on the node at ptr, whose keys must lie within [lo, hi). */
int vd_tree_node(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind page_kind, unsigned level,
		 uint64_t lo, uint64_t hi, unsigned flags, struct vd_node **out) __must_check;
/* One reference less on what is at ptr; if it was the last, on everything below too.
 * mapped may be NULL, else it is lowered by the DATA blocks below. */
int vd_tree_drop(struct vd_pool *pool, const struct vd_path *p, const struct vd_ptr *ptr, unsigned level,
		 uint64_t lo, uint64_t hi, int64_t *mapped) __must_check;

unsigned vd_index_count(const struct vd_node *n); /* entries of any node */
struct vd_disk_ptr *vd_index_entry(const struct vd_node *n, unsigned i);
unsigned vd_index_floor(const struct vd_node *n, uint64_t key); /* last entry <= key, or the first */
void vd_index_remove(struct vd_node *n, unsigned i, unsigned count);
/* The keys below entry i: the first entry also has those from the node's lo on. */
void vd_index_range(const struct vd_node *n, unsigned i, uint64_t lo, uint64_t hi, uint64_t *clo, uint64_t *chi);
void vd_node_range(struct vd_node *n, uint64_t lo, uint64_t hi); /* writes the head's key range */

int vd_extents_verify(const struct vd_node *n) __must_check;
/* For how many blocks from v on, up to hi, two pages say the same. */
uint64_t vd_extents_common(const struct vd_node *x, const struct vd_node *y, vd_vblk_t v, uint64_t hi);
int vd_extents_hold(struct vd_pool *pool, const struct vd_node *n) __must_check; /* DATA blocks +1 */
int vd_extents_drop(struct vd_pool *pool, const struct vd_node *n, unsigned flags, int64_t *mapped) __must_check; /* DATA blocks -1 */
void vd_extents_join(struct vd_node *n, const struct vd_node *from, bool before); /* from's extents before or after n's; they fit */

#endif
