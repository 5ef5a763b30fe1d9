// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Overlays are linked lists of leaves with some extents each, and an index of the leaves,
 * a B+tree in memory: a search misses the cache in the lowest node and in the leaf, and
 * seldom elsewhere.
 *
 * The index is a hint.  A search walks the list, either way, from the leaf that the index
 * names; so a leaf whose first extent has moved since it was entered costs a step, and one
 * that is not in the index since there was no memory for a node costs steps until there is.
 * This is why an insertion cannot fail half-way with one leaf brought along.
 *
 * Invariants, after every call:
 *   O1. extents are in ascending order over all leaves, not empty, disjoint, within
 *       VD_VBLK_END;
 *   O2. the list holds all leaves, and each but the first, the head, has an extent at
 *       least; the index names leaves of the list only, not the head, each once, by the
 *       key that the leaf remembers; keys ascend as the list does, while there is memory;
 *   O3. an inserted extent is joined on both sides where may_join() allows it;
 *       other neighbours are not looked at;
 *   O4. DATA extents are at most VD_EXTENT_LEN_MAX long, if the inserted were.
 *
 * Neither leaves nor nodes that have lost entries are joined: what an overlay holds goes
 * with the next checkpoint, and hardly anything is taken out of one before.
 *
 * With fifteen extents a leaf, and 31 entries a node, fill 512 bytes, as allocators like it.
 */
#include "overlay.h"

#define SLOTS 15u
#define ENTRIES 31u
#define LINES (512 / 64)
#define HEIGHT_MAX 16u /* a level is added for 15 nodes of the one below: more is out of reach */

struct slot { uint64_t len : 56, kind : 8, p, birth; };

struct vd_ov_leaf {
	struct vd_ov_leaf *next, *prev;
	uint64_t v[SLOTS];               /* where they begin */
	uint8_t n;
	bool indexed;
	uint64_t key;                    /* v[0] of when it was entered */
	struct slot s[SLOTS];
};

/* Entry i leads to keys from key[i] on and below key[i + 1]; in the upper levels the first
 * leads to all that are below, whatever its key. */
struct vd_ov_node {
	uint64_t n;
	uint64_t key[ENTRIES];
	void *child[ENTRIES];            /* nodes; in the lowest level leaves */
};

int vd_ov_init(struct vd_ov *ov, const struct vd_host *host)
{
	struct vd_ov_leaf *head = vd_ov_leaf_new(host, VD_ALLOC_WAIT);

	if (!head)
		return -ENOMEM;
	memset(head, 0, sizeof(*head));
	*ov = (struct vd_ov){ .host = host, .head = head };
	return 0;
}

/* h: its level, the lowest is 1. */
static void free_nodes(const struct vd_host *host, struct vd_ov_node *node, unsigned h)
{
	while (h > 1 && node->n)
		free_nodes(host, node->child[--node->n], h - 1);
	host->free(host->ctx, node);
}

void vd_ov_fini(struct vd_ov *ov)
{
	struct vd_ov_leaf *leaf = ov->head, *next;

	if (ov->root)
		free_nodes(ov->host, ov->root, ov->height);
	for (; leaf; leaf = next) {
		next = leaf->next;
		vd_ov_leaf_free(ov->host, leaf);
	}
	*ov = (struct vd_ov){ .host = ov->host };
}

bool vd_ov_empty(const struct vd_ov *ov)
{
	return !ov->count;
}

struct vd_ov_leaf *vd_ov_leaf_new(const struct vd_host *host, int how)
{
	struct vd_ov_leaf *leaf = host->alloc(host->ctx, sizeof(*leaf), how);

	if (leaf)
		leaf->next = NULL;
	return leaf;
}

void vd_ov_leaf_add(struct vd_ov_leaf **spare, struct vd_ov_leaf *leaf)
{
	leaf->next = *spare;
	*spare = leaf;
}

struct vd_ov_leaf *vd_ov_leaf_take(struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = *spare;

	*spare = leaf->next;
	return leaf;
}

void vd_ov_leaf_free(const struct vd_host *host, struct vd_ov_leaf *leaf)
{
	if (leaf)
		host->free(host->ctx, leaf);
}

static uint64_t end_of(const struct vd_ov_leaf *leaf, unsigned i)
{
	return leaf->v[i] + leaf->s[i].len;
}

static void ext_of(const struct vd_ov_leaf *leaf, unsigned i, struct vd_ext *out)
{
	out->v = leaf->v[i];
	out->len = leaf->s[i].len;
	out->p = leaf->s[i].p;
	out->birth = leaf->s[i].birth;
	out->kind = (enum vd_ext_kind)leaf->s[i].kind;
}

static struct slot slot_of(const struct vd_ext *e)
{
	return (struct slot){ .len = e->len, .kind = e->kind, .p = e->kind == VD_DATA ? e->p : VD_PBLK_NONE, .birth = e->birth };
}

/* ---- the index ---------------------------------------------------------- */

/* The last entry whose key is below v, or the first. */
static unsigned entry_below(const struct vd_ov_node *node, vd_vblk_t v)
{
	unsigned at = 0, n = (unsigned)node->n, half;

	for (; n > 1; n -= half) { /* it is among n from `at` on; no branch to guess */
		half = n / 2;
		at += node->key[at + half] < v ? half : 0;
	}
	return at;
}

static void entry_put(struct vd_ov_node *node, unsigned i, uint64_t key, void *child)
{
	memmove(&node->key[i + 1], &node->key[i], (node->n - i) * sizeof(node->key[0]));
	memmove(&node->child[i + 1], &node->child[i], (node->n - i) * sizeof(node->child[0]));
	node->key[i] = key;
	node->child[i] = child;
	node->n++;
}

static void entry_remove(struct vd_ov_node *node, unsigned i)
{
	node->n--;
	memmove(&node->key[i], &node->key[i + 1], (node->n - i) * sizeof(node->key[0]));
	memmove(&node->child[i], &node->child[i + 1], (node->n - i) * sizeof(node->child[0]));
}

static struct vd_ov_node *node_new(struct vd_ov *ov)
{
	struct vd_ov_node *node = ov->host->alloc(ov->host->ctx, sizeof(*node), VD_ALLOC_NOWAIT);

	if (node)
		node->n = 0;
	return node;
}

/* Gives half of its child i, a node, to a new one behind it.  False: no memory. */
static bool split_child(struct vd_ov *ov, struct vd_ov_node *node, unsigned i)
{
	struct vd_ov_node *left = node->child[i], *right = node_new(ov);
	unsigned half = (unsigned)left->n / 2;

	if (!right)
		return false;
	right->n = left->n - half;
	left->n = half;
	memcpy(right->key, &left->key[half], right->n * sizeof(right->key[0]));
	memcpy(right->child, &left->child[half], right->n * sizeof(right->child[0]));
	entry_put(node, i + 1, right->key[0], right);
	return true;
}

/* A root above the root; the first of all. */
static bool grow_root(struct vd_ov *ov)
{
	struct vd_ov_node *root = node_new(ov);

	if (!root)
		return false;
	if (ov->root)
		entry_put(root, 0, ov->root->key[0], ov->root);
	ov->root = root;
	ov->height++;
	return true;
}

/* If there is memory, and no other leaf has its key.  Nodes that are full are split on the
 * way down: so there is room above each, and nothing to undo. */
static void enter(struct vd_ov *ov, struct vd_ov_leaf *leaf)
{
	uint64_t key = leaf->v[0];
	struct vd_ov_node *node;
	unsigned h, i;

	if ((!ov->root || ov->root->n == ENTRIES) && !grow_root(ov))
		return;
	node = ov->root;
	for (h = ov->height; h > 1; h--) {
		i = entry_below(node, key + 1);
		if (((struct vd_ov_node *)node->child[i])->n == ENTRIES) {
			if (!split_child(ov, node, i))
				return;
			i = entry_below(node, key + 1);
		}
		node = node->child[i];
	}
	i = node->n ? entry_below(node, key + 1) : 0;
	if (i < node->n && node->key[i] == key)
		return;
	entry_put(node, i < node->n && node->key[i] < key ? i + 1 : i, key, leaf);
	leaf->key = key;
	leaf->indexed = true;
}

static void index_remove(struct vd_ov *ov, struct vd_ov_leaf *leaf)
{
	struct vd_ov_node *path[HEIGHT_MAX], *node = ov->root;
	unsigned at[HEIGHT_MAX], h;

	for (h = ov->height; h--; node = node->child[at[h]]) {
		path[h] = node;
		at[h] = entry_below(node, leaf->key + 1);
	}
	for (h = 0; h < ov->height; h++) {
		entry_remove(path[h], at[h]);
		if (path[h]->n)
			return;
		ov->host->free(ov->host->ctx, path[h]);
	}
	ov->root = NULL;
	ov->height = 0;
}

static void enter_anew(struct vd_ov *ov, struct vd_ov_leaf *leaf)
{
	index_remove(ov, leaf);
	leaf->indexed = false;
	enter(ov, leaf);
}

/*
 * Enters a leaf.  A neighbour whose first extent has moved since it was entered gets the key
 * that it has now if this leaf would stand on the wrong side of it: searches would walk over
 * all leaves that come between the two later.
 */
static void index_add(struct vd_ov *ov, struct vd_ov_leaf *leaf)
{
	struct vd_ov_leaf *near;

	for (near = leaf->prev; near != ov->head && near->indexed && near->key >= near->next->v[0]; near = near->prev)
		enter_anew(ov, near);
	for (near = leaf->next; near && near->indexed && near->key <= near->prev->v[0]; near = near->next)
		enter_anew(ov, near);
	enter(ov, leaf);
}

/*
 * Right behind the first n extents of a leaf, all of which begin before what is looked
 * for: no extent there means that there is none in the overlay (the leaf is the head).
 */
struct place {
	struct vd_ov_leaf *leaf;
	unsigned n;
};

/* All lines of the cache at once, so that what misses it is waited for once. */
static inline void ask_for(const void *at)
{
#pragma GCC unroll 8
	for (size_t i = 0; i < LINES; i++)
		__builtin_prefetch((const char *)at + 64 * i);
}

static struct vd_ov_leaf *leaf_near(const struct vd_ov *ov, vd_vblk_t v)
{
	void *child = ov->root;
	unsigned h;

	for (h = ov->height; h; h--) {
		struct vd_ov_node *node = child;

		ask_for(node);
		child = node->child[entry_below(node, v)];
	}
	if (!child)
		return ov->head;
	ask_for(child);
	return child;
}

static void place_find(struct vd_ov_leaf *leaf, vd_vblk_t v, struct place *pl)
{
	while (leaf->prev && leaf->v[0] >= v)
		leaf = leaf->prev;
	/* The next leaf is not touched where this one shows that it lies behind. */
	while (leaf->next && (!leaf->n || leaf->v[leaf->n - 1] < v) && leaf->next->v[0] < v)
		leaf = leaf->next;
	pl->leaf = leaf;
	for (pl->n = 0; pl->n < leaf->n && leaf->v[pl->n] < v; pl->n++)
		;
}

/* The extent behind the place: *leaf and its index there. False: none. */
static bool behind(const struct place *pl, struct vd_ov_leaf **leaf, unsigned *i)
{
	bool here = pl->n < pl->leaf->n;

	*leaf = here ? pl->leaf : pl->leaf->next;
	*i = here ? pl->n : 0;
	return *leaf;
}

bool vd_ov_find(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out)
{
	struct vd_ov_leaf *next;
	struct place pl;
	unsigned i;

	place_find(leaf_near(ov, v + 1), v + 1, &pl);
	out->near = pl.leaf;
	if (pl.n && end_of(pl.leaf, pl.n - 1) > v) {
		ext_of(pl.leaf, pl.n - 1, out);
		if (out->kind == VD_DATA)
			out->p += v - out->v;
		out->len -= v - out->v;
		out->back = v - out->v;
		out->v = v;
		return true;
	}
	out->v = v;
	out->len = behind(&pl, &next, &i) ? next->v[i] - v : VD_VBLK_END > v ? VD_VBLK_END - v : 0;
	out->back = v - (pl.n ? end_of(pl.leaf, pl.n - 1) : 0);
	out->p = VD_PBLK_NONE;
	out->birth = 0;
	out->kind = VD_HOLE;
	return false;
}

bool vd_ov_next(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out)
{
	struct vd_ov_leaf *leaf;
	struct place pl;
	unsigned i;

	place_find(leaf_near(ov, v + 1), v + 1, &pl);
	if (pl.n && end_of(pl.leaf, pl.n - 1) > v)
		ext_of(pl.leaf, pl.n - 1, out);
	else if (behind(&pl, &leaf, &i))
		ext_of(leaf, i, out);
	else
		return false;
	return true;
}

/* ---- insertion -------------------------------------------------------- */

/* A spare one, empty, behind a leaf. */
static struct vd_ov_leaf *link_leaf(struct vd_ov_leaf *prev, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = vd_ov_leaf_take(spare);

	leaf->n = 0;
	leaf->indexed = false;
	leaf->prev = prev;
	leaf->next = prev->next;
	if (leaf->next)
		leaf->next->prev = leaf;
	prev->next = leaf;
	return leaf;
}

/* One that is empty by now, and not the head. */
static void unlink_leaf(struct vd_ov *ov, struct vd_ov_leaf *leaf)
{
	if (leaf->indexed)
		index_remove(ov, leaf);
	leaf->prev->next = leaf->next;
	if (leaf->next)
		leaf->next->prev = leaf->prev;
	ov->gone++;
	vd_ov_leaf_free(ov->host, leaf);
}

/* n extents of a leaf, the first of them from[i], become to[at], where there is room. */
static void move_slots(struct vd_ov_leaf *to, unsigned at, const struct vd_ov_leaf *from, unsigned i, unsigned n)
{
	if (!n)
		return;
	memmove(&to->v[at], &from->v[i], n * sizeof(to->v[0]));
	memmove(&to->s[at], &from->s[i], n * sizeof(to->s[0]));
}

/* Splits the full leaf of the place, which stays behind the same extent. */
static void split(struct vd_ov *ov, struct place *pl, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = pl->leaf, *rest = link_leaf(leaf, spare);
	unsigned half = SLOTS / 2;

	move_slots(rest, 0, leaf, half, SLOTS - half);
	rest->n = (uint8_t)(SLOTS - half);
	leaf->n = (uint8_t)half;
	index_add(ov, rest);
	if (pl->n <= half)
		return;
	pl->leaf = rest;
	pl->n -= half;
}

/* Behind the place, which stays before it.  If it takes the spare there is room for another. */
static void put(struct vd_ov *ov, struct place *pl, const struct vd_ext *e, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = pl->leaf;
	unsigned i = pl->n;

	if (leaf->n == SLOTS && i == SLOTS) { /* what is written in order fills its leaves */
		leaf = leaf->next;
		if (!leaf || leaf->n == SLOTS)
			leaf = link_leaf(pl->leaf, spare);
		i = 0;
	} else if (leaf->n == SLOTS) {
		split(ov, pl, spare);
		leaf = pl->leaf;
		i = pl->n;
	}
	move_slots(leaf, i + 1, leaf, i, leaf->n - i);
	leaf->v[i] = e->v;
	leaf->s[i] = slot_of(e);
	leaf->n++;
	ov->count++;
	if (!leaf->indexed && leaf != ov->head) /* it is new, or there was no memory for it */
		index_add(ov, leaf);
}

/* A place before it stays. */
static void remove_slot(struct vd_ov *ov, struct vd_ov_leaf *leaf, unsigned i)
{
	leaf->n--;
	move_slots(leaf, i, leaf, i + 1, leaf->n - i);
	ov->count--;
	if (!leaf->n && leaf != ov->head)
		unlink_leaf(ov, leaf);
}

static void report(const struct vd_ov_leaf *leaf, unsigned i, uint64_t from, uint64_t to, vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ext piece;

	if (!displaced || leaf->s[i].kind != VD_DATA)
		return;
	ext_of(leaf, i, &piece);
	piece.p += from - piece.v;
	piece.v = from;
	piece.len = to - from;
	displaced(arg, &piece);
}

static void drop_front(struct vd_ov_leaf *leaf, unsigned i, uint64_t n)
{
	leaf->v[i] += n;
	leaf->s[i].len -= n;
	if (leaf->s[i].kind == VD_DATA)
		leaf->s[i].p += n;
}

/* Makes [v, end) empty, where the place is that of v. */
static void clear_range(struct vd_ov *ov, struct place *pl, uint64_t v, uint64_t end,
			struct vd_ov_leaf **spare, vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ov_leaf *leaf = pl->leaf;
	struct vd_ext rest;
	unsigned i = pl->n;

	if (i-- && end_of(leaf, i) > v) {
		ext_of(leaf, i, &rest);
		report(leaf, i, v, vd_min(end, end_of(leaf, i)), displaced, arg);
		leaf->s[i].len = v - rest.v;
		if (rest.v + rest.len > end) { /* split around the range */
			if (rest.kind == VD_DATA)
				rest.p += end - rest.v;
			rest.len -= end - rest.v;
			rest.v = end;
			put(ov, pl, &rest, spare);
			return;
		}
	}
	while (behind(pl, &leaf, &i) && leaf->v[i] < end) {
		report(leaf, i, leaf->v[i], vd_min(end, end_of(leaf, i)), displaced, arg);
		if (end_of(leaf, i) > end) {
			drop_front(leaf, i, end - leaf->v[i]); /* stays in its place in the order */
			break;
		}
		remove_slot(ov, leaf, i);
	}
}

/* Whether b, which begins where a ends, may be made one extent with it. */
static bool may_join(const struct vd_ext *a, const struct vd_ext *b, uint64_t cut)
{
	if (a->kind != b->kind || (a->birth <= cut) != (b->birth <= cut))
		return false;
	if (a->kind != VD_DATA)
		return true;
	return a->p + a->len == b->p && a->len + b->len <= VD_EXTENT_LEN_MAX;
}

/* Over and beside what is there: the place is that of its begin. */
static vd_noinline void insert_among(struct vd_ov *ov, struct place *pl, const struct vd_ext *e, uint64_t cut,
				     struct vd_ov_leaf **spare, vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ext fresh = *e, prev, next;
	bool before = false, after = false;
	struct vd_ov_leaf *leaf;
	unsigned i;

	clear_range(ov, pl, e->v, e->v + e->len, spare, displaced, arg);

	if (pl->n && end_of(pl->leaf, pl->n - 1) == e->v) {
		ext_of(pl->leaf, pl->n - 1, &prev);
		before = may_join(&prev, &fresh, cut);
	}
	if (before)
		fresh = (struct vd_ext){ prev.v, prev.len + fresh.len, prev.p, vd_min(prev.birth, fresh.birth), fresh.kind, 0, NULL };
	if (behind(pl, &leaf, &i) && leaf->v[i] == e->v + e->len) {
		ext_of(leaf, i, &next);
		after = may_join(&fresh, &next, cut);
	}
	if (after) {
		fresh.len += next.len;
		fresh.birth = vd_min(fresh.birth, next.birth);
	}
	if (before) {
		pl->leaf->s[pl->n - 1] = slot_of(&fresh);
		if (after)
			remove_slot(ov, leaf, i);
	} else if (after) { /* it grows towards the front, its place in the order stays */
		leaf->v[i] = fresh.v;
		leaf->s[i] = slot_of(&fresh);
	} else {
		put(ov, pl, &fresh, spare);
	}
}

void vd_ov_insert(struct vd_ov *ov, const struct vd_ext *e, uint64_t cut, struct vd_ov_leaf **spare,
		  vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ov_leaf *leaf = e->near;
	struct place pl;
	unsigned i;

	if (!e->len)
		return;
	if (!leaf || leaf->v[0] >= e->v || (leaf->next && leaf->next->v[0] < e->v)) /* much may have come between */
		leaf = leaf_near(ov, e->v);
	place_find(leaf, e->v, &pl);
	if ((!pl.n || end_of(pl.leaf, pl.n - 1) < e->v) && (!behind(&pl, &leaf, &i) || leaf->v[i] > e->v + e->len))
		put(ov, &pl, e, spare); /* alone, as most that are written in no order */
	else
		insert_among(ov, &pl, e, cut, spare, displaced, arg);
}

void vd_ov_move(struct vd_ov *to, struct vd_ov *from)
{
	struct vd_ov_leaf *head = to->head;

	*to = *from;
	*from = (struct vd_ov){ .host = to->host, .gone = to->gone + 1, .head = head };
}
