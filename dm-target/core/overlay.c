// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Overlays are skip lists of leaves with some extents each: a search path needs no
 * parent pointers and misses the cache a few times only, a change touches the leaves
 * beside it, and nothing is ever rebalanced, so the time under the caller's lock is
 * short and an insertion cannot fail half-way.
 *
 * Invariants, after every call:
 *   O1. extents are in ascending order over all leaves, not empty, disjoint, within
 *       VD_VBLK_END;
 *   O2. a leaf of level n is on the lists 0 .. n-1; list 0 holds them all, and each but
 *       the first, the head, has an extent at least;
 *   O3. an inserted extent is joined on both sides where may_join() allows it;
 *       other neighbours are not looked at;
 *   O4. DATA extents are at most VD_EXTENT_LEN_MAX long, if the inserted were.
 *
 * Leaves that have lost extents are not joined: what an overlay holds goes with the next
 * checkpoint, and hardly anything is taken out of one before.
 *
 * A level is chosen when a leaf is linked, not when it is made: it may be made long
 * before and for an overlay that has been swapped since.  So each has room for the
 * highest; seven, with one leaf in four going a level up, serve some hundred thousand
 * extents.  With thirteen extents a leaf fills 512 bytes, as allocators like it.
 */
#include "overlay.h"

#define LEVELS 7u
#define SLOTS 13u

struct slot { uint64_t len, p, birth; };

struct vd_ov_leaf {
	struct vd_ov_leaf *next[LEVELS]; /* what a search reads: these and v[0] are 64 bytes */
	uint64_t v[SLOTS];               /* where they begin */
	struct slot s[SLOTS];
	uint8_t kind[SLOTS];
	uint8_t n;
	uint8_t level;
};

int vd_ov_init(struct vd_ov *ov, const struct vd_host *host)
{
	struct vd_ov_leaf *head = vd_ov_leaf_new(host, VD_ALLOC_WAIT);

	if (!head)
		return -ENOMEM;
	memset(head, 0, sizeof(*head));
	head->level = LEVELS;
	ov->host = host;
	ov->count = 0;
	ov->rand = 0x9e3779b9u;
	ov->levels = 1;
	ov->head = head;
	return 0;
}

void vd_ov_fini(struct vd_ov *ov)
{
	struct vd_ov_leaf *leaf = ov->head, *next;

	for (; leaf; leaf = next) {
		next = leaf->next[0];
		vd_ov_leaf_free(ov->host, leaf);
	}
	ov->head = NULL;
	ov->count = 0;
}

bool vd_ov_empty(const struct vd_ov *ov)
{
	return !ov->count;
}

struct vd_ov_leaf *vd_ov_leaf_new(const struct vd_host *host, int how)
{
	return host->alloc(host->ctx, sizeof(struct vd_ov_leaf), how);
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
	out->kind = (enum vd_ext_kind)leaf->kind[i];
}

/*
 * Right behind the first n extents of a leaf, all of which begin before what is looked
 * for: no extent there means that there is none in the overlay (the leaf is the head).
 */
struct place {
	struct vd_ov_leaf *leaf;
	unsigned n;
	struct vd_ov_leaf *at[LEVELS]; /* for changes: on each list the last leaf up to this one */
};

static void place_find(const struct vd_ov *ov, vd_vblk_t v, struct place *pl, bool change)
{
	struct vd_ov_leaf *leaf = ov->head;
	unsigned l;

	for (l = LEVELS; change && l-- > ov->levels;)
		pl->at[l] = leaf;
	for (l = ov->levels; l--;) {
		while (leaf->next[l] && leaf->next[l]->v[0] < v)
			leaf = leaf->next[l];
		if (change)
			pl->at[l] = leaf;
	}
	pl->leaf = leaf;
	for (pl->n = 0; pl->n < leaf->n && leaf->v[pl->n] < v; pl->n++)
		;
}

/* The extent behind the place: *leaf and its index there. False: none. */
static bool behind(const struct place *pl, struct vd_ov_leaf **leaf, unsigned *i)
{
	bool here = pl->n < pl->leaf->n;

	*leaf = here ? pl->leaf : pl->leaf->next[0];
	*i = here ? pl->n : 0;
	return *leaf;
}

bool vd_ov_find(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out)
{
	struct vd_ov_leaf *next;
	struct place pl;
	unsigned i;

	place_find(ov, v + 1, &pl, false);
	if (pl.n && end_of(pl.leaf, pl.n - 1) > v) {
		ext_of(pl.leaf, pl.n - 1, out);
		if (out->kind == VD_DATA)
			out->p += v - out->v;
		out->len -= v - out->v;
		out->v = v;
		return true;
	}
	out->v = v;
	out->len = behind(&pl, &next, &i) ? next->v[i] - v : VD_VBLK_END > v ? VD_VBLK_END - v : 0;
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

	place_find(ov, v + 1, &pl, false);
	if (pl.n && end_of(pl.leaf, pl.n - 1) > v)
		ext_of(pl.leaf, pl.n - 1, out);
	else if (behind(&pl, &leaf, &i))
		ext_of(leaf, i, out);
	else
		return false;
	return true;
}

/* ---- insertion -------------------------------------------------------- */

static uint8_t pick_level(struct vd_ov *ov)
{
	uint32_t x = ov->rand, bits;
	uint8_t level = 1;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	ov->rand = x;
	for (bits = x >> 8; !(bits & 3) && level < LEVELS; bits >>= 2)
		level++;
	return level;
}

/* The spare, empty, behind the leaf of the place. */
static struct vd_ov_leaf *link_leaf(struct vd_ov *ov, struct place *pl, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = *spare;
	unsigned l;

	*spare = NULL;
	leaf->n = 0;
	leaf->level = pick_level(ov);
	for (l = 0; l < leaf->level; l++) {
		leaf->next[l] = pl->at[l]->next[l];
		pl->at[l]->next[l] = leaf;
	}
	if (ov->levels < leaf->level)
		ov->levels = leaf->level;
	return leaf;
}

/* The leaf behind that of the place, empty by now. */
static void unlink_leaf(struct vd_ov *ov, struct place *pl, struct vd_ov_leaf *leaf)
{
	unsigned l;

	for (l = 0; l < leaf->level; l++)
		pl->at[l]->next[l] = leaf->next[l];
	vd_ov_leaf_free(ov->host, leaf);
}

/* n extents of a leaf, the first of them from[i], become to[at], where there is room. */
static void move_slots(struct vd_ov_leaf *to, unsigned at, const struct vd_ov_leaf *from, unsigned i, unsigned n)
{
	memmove(&to->v[at], &from->v[i], n * sizeof(to->v[0]));
	memmove(&to->s[at], &from->s[i], n * sizeof(to->s[0]));
	memmove(&to->kind[at], &from->kind[i], n);
}

/* Splits the full leaf of the place, which stays behind the same extent. */
static void split(struct vd_ov *ov, struct place *pl, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = pl->leaf, *rest = link_leaf(ov, pl, spare);
	unsigned half = SLOTS / 2, l;

	move_slots(rest, 0, leaf, half, SLOTS - half);
	rest->n = (uint8_t)(SLOTS - half);
	leaf->n = (uint8_t)half;
	if (pl->n <= half)
		return;
	pl->leaf = rest;
	pl->n -= half;
	for (l = 0; l < rest->level; l++)
		pl->at[l] = rest;
}

/* Behind the place, which stays before it.  If it takes the spare there is room for another. */
static void put(struct vd_ov *ov, struct place *pl, const struct vd_ext *e, struct vd_ov_leaf **spare)
{
	struct vd_ov_leaf *leaf = pl->leaf;
	unsigned i = pl->n;

	if (leaf->n == SLOTS && i == SLOTS) { /* what is written in order fills its leaves */
		leaf = leaf->next[0];
		if (!leaf || leaf->n == SLOTS)
			leaf = link_leaf(ov, pl, spare);
		i = 0;
	} else if (leaf->n == SLOTS) {
		split(ov, pl, spare);
		leaf = pl->leaf;
		i = pl->n;
	}
	move_slots(leaf, i + 1, leaf, i, leaf->n - i);
	leaf->v[i] = e->v;
	leaf->s[i] = (struct slot){ e->len, e->p, e->birth };
	leaf->kind[i] = (uint8_t)e->kind;
	leaf->n++;
	ov->count++;
}

/* An extent that is behind the place. */
static void remove_slot(struct vd_ov *ov, struct place *pl, struct vd_ov_leaf *leaf, unsigned i)
{
	leaf->n--;
	move_slots(leaf, i, leaf, i + 1, leaf->n - i);
	ov->count--;
	if (!leaf->n && leaf != ov->head)
		unlink_leaf(ov, pl, leaf);
}

static void report(const struct vd_ov_leaf *leaf, unsigned i, uint64_t from, uint64_t to, vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ext piece;

	if (!displaced || leaf->kind[i] != VD_DATA)
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
	if (leaf->kind[i] == VD_DATA)
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
		remove_slot(ov, pl, leaf, i);
	}
}

/* Whether b, which comes after a, may be made one extent with it. */
static bool may_join(const struct vd_ext *a, const struct vd_ext *b, uint64_t cut)
{
	if (a->kind != b->kind || a->v + a->len != b->v || (a->birth <= cut) != (b->birth <= cut))
		return false;
	if (a->kind != VD_DATA)
		return true;
	return a->p + a->len == b->p && a->len + b->len <= VD_EXTENT_LEN_MAX;
}

void vd_ov_insert(struct vd_ov *ov, const struct vd_ext *e, uint64_t cut, struct vd_ov_leaf **spare,
		  vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ext fresh = *e, prev, next;
	bool before = false, after = false;
	struct vd_ov_leaf *leaf;
	struct place pl;
	unsigned i;

	if (!e->len)
		return;
	if (e->kind != VD_DATA)
		fresh.p = VD_PBLK_NONE;
	place_find(ov, e->v, &pl, true);
	clear_range(ov, &pl, e->v, e->v + e->len, spare, displaced, arg);

	if (pl.n) {
		ext_of(pl.leaf, pl.n - 1, &prev);
		before = may_join(&prev, &fresh, cut);
	}
	if (before)
		fresh = (struct vd_ext){ prev.v, prev.len + fresh.len, prev.p, vd_min(prev.birth, fresh.birth), fresh.kind };
	if (behind(&pl, &leaf, &i)) {
		ext_of(leaf, i, &next);
		after = may_join(&fresh, &next, cut);
	}
	if (after) {
		fresh.len += next.len;
		fresh.birth = vd_min(fresh.birth, next.birth);
	}
	if (before) {
		pl.leaf->s[pl.n - 1] = (struct slot){ fresh.len, fresh.p, fresh.birth };
		if (after)
			remove_slot(ov, &pl, leaf, i);
	} else if (after) { /* it grows towards the front, its place in the order stays */
		leaf->v[i] = fresh.v;
		leaf->s[i] = (struct slot){ fresh.len, fresh.p, fresh.birth };
	} else {
		put(ov, &pl, &fresh, spare);
	}
}

void vd_ov_move(struct vd_ov *to, struct vd_ov *from)
{
	struct vd_ov_leaf *head = to->head;

	to->head = from->head;
	to->count = from->count;
	to->levels = from->levels;
	from->head = head;
	from->count = 0;
	from->levels = 1;
}
