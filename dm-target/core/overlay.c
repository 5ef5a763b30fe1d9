// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Overlays are skip lists: a search path needs no parent pointers, a change
 * touches only the entries beside it, and nothing is ever rebalanced, so the
 * time under the caller's lock is short and an insertion cannot fail half-way.
 *
 * Invariants, after every call:
 *   O1. entries are in ascending order, not empty, disjoint, within VD_VBLK_END;
 *   O2. an entry of level n is on the lists 0 .. n-1; list 0 holds them all;
 *   O3. an inserted extent is joined on both sides where may_join() allows it;
 *       other neighbours are not looked at;
 *   O4. DATA entries are at most VD_EXTENT_LEN_MAX long, if the inserted were.
 *
 * A level is chosen when an entry is inserted, not when it is made: an entry
 * may be made long before and for an overlay that has been swapped since.  So
 * each has room for the highest level; eleven fill 128 bytes, and with one in
 * four going a level up serve some millions of entries.
 */
#include "overlay.h"

#define LEVELS 11u

struct vd_ov_entry {
	uint64_t v, len, p, birth;
	uint8_t kind;
	uint8_t level;
	struct vd_ov_entry *next[LEVELS];
};

int vd_ov_init(struct vd_ov *ov, const struct vd_host *host)
{
	struct vd_ov_entry *head = vd_ov_entry_new(host, VD_ALLOC_WAIT);

	if (!head)
		return -ENOMEM;
	head->level = LEVELS;
	ov->host = host;
	ov->count = 0;
	ov->bytes = 0;
	ov->rand = 0x9e3779b9u;
	ov->levels = 1;
	ov->head = head;
	return 0;
}

void vd_ov_fini(struct vd_ov *ov)
{
	struct vd_ov_entry *e = ov->head, *next;

	for (; e; e = next) {
		next = e->next[0];
		vd_ov_entry_free(ov->host, e);
	}
	ov->head = NULL;
	ov->count = 0;
	ov->bytes = 0;
}

bool vd_ov_empty(const struct vd_ov *ov)
{
	return !ov->count;
}

struct vd_ov_entry *vd_ov_entry_new(const struct vd_host *host, int how)
{
	struct vd_ov_entry *e = host->alloc(host->ctx, sizeof(*e), how);

	if (e)
		memset(e, 0, sizeof(*e));
	return e;
}

void vd_ov_entry_free(const struct vd_host *host, struct vd_ov_entry *e)
{
	if (e)
		host->free(host->ctx, e);
}

static uint64_t end_of(const struct vd_ov_entry *e)
{
	return e->v + e->len;
}

static void ext_of(const struct vd_ov_entry *e, struct vd_ext *out)
{
	out->v = e->v;
	out->len = e->len;
	out->p = e->p;
	out->birth = e->birth;
	out->kind = (enum vd_ext_kind)e->kind;
}

/* The last entry that begins before v, or the head. */
static struct vd_ov_entry *before(const struct vd_ov *ov, vd_vblk_t v)
{
	struct vd_ov_entry *e = ov->head;
	unsigned l = ov->levels;

	while (l--)
		while (e->next[l] && e->next[l]->v < v)
			e = e->next[l];
	return e;
}

bool vd_ov_find(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out)
{
	const struct vd_ov_entry *e = before(ov, v + 1), *next;

	if (e != ov->head && end_of(e) > v) {
		ext_of(e, out);
		out->v = v;
		out->len -= v - e->v;
		if (out->kind == VD_DATA)
			out->p += v - e->v;
		return true;
	}
	next = e->next[0];
	out->v = v;
	out->len = next ? next->v - v : VD_VBLK_END > v ? VD_VBLK_END - v : 0;
	out->p = VD_PBLK_NONE;
	out->birth = 0;
	out->kind = VD_HOLE;
	return false;
}

bool vd_ov_next(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out)
{
	const struct vd_ov_entry *e = before(ov, v + 1);

	if (e == ov->head || end_of(e) <= v)
		e = e->next[0];
	if (!e)
		return false;
	ext_of(e, out);
	return true;
}

/* ---- insertion -------------------------------------------------------- */

/*
 * Where an insertion is under way: on each list the last entry that begins
 * before the place.  Entries are linked behind it and unlinked from behind it.
 */
struct place {
	struct vd_ov_entry *at[LEVELS];
};

static void place_find(const struct vd_ov *ov, vd_vblk_t v, struct place *pl)
{
	struct vd_ov_entry *e = ov->head;
	unsigned l;

	for (l = LEVELS; l-- > ov->levels;)
		pl->at[l] = e;
	for (l = ov->levels; l--;) {
		while (e->next[l] && e->next[l]->v < v)
			e = e->next[l];
		pl->at[l] = e;
	}
}

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

static void link_entry(struct vd_ov *ov, struct place *pl, struct vd_ov_entry *e)
{
	unsigned l;

	e->level = pick_level(ov);
	for (l = 0; l < e->level; l++) {
		e->next[l] = pl->at[l]->next[l];
		pl->at[l]->next[l] = e;
	}
	if (ov->levels < e->level)
		ov->levels = e->level;
	ov->count++;
	ov->bytes += sizeof(*e);
}

/* e is the entry right behind the place. */
static void unlink_entry(struct vd_ov *ov, struct place *pl, struct vd_ov_entry *e)
{
	unsigned l;

	for (l = 0; l < e->level; l++)
		pl->at[l]->next[l] = e->next[l];
	ov->count--;
	ov->bytes -= sizeof(*e);
	vd_ov_entry_free(ov->host, e);
}

static void report(const struct vd_ov_entry *e, uint64_t from, uint64_t to, vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ext piece;

	if (!displaced || e->kind != VD_DATA)
		return;
	ext_of(e, &piece);
	piece.v = from;
	piece.len = to - from;
	piece.p += from - e->v;
	displaced(arg, &piece);
}

static void drop_front(struct vd_ov_entry *e, uint64_t n)
{
	e->v += n;
	e->len -= n;
	if (e->kind == VD_DATA)
		e->p += n;
}

static struct vd_ov_entry *take(struct vd_ov_entry *spare[2])
{
	unsigned i = spare[1] ? 1 : 0;
	struct vd_ov_entry *e = spare[i];

	spare[i] = NULL;
	return e;
}

/* Makes [v, end) empty; the place is then right before it. */
static void clear_range(struct vd_ov *ov, struct place *pl, uint64_t v, uint64_t end,
			struct vd_ov_entry *spare[2], vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ov_entry *e = pl->at[0], *rest;

	if (e != ov->head && end_of(e) > end) { /* split around the range */
		report(e, v, end, displaced, arg);
		rest = take(spare);
		rest->v = e->v;
		rest->len = e->len;
		rest->p = e->p;
		rest->birth = e->birth;
		rest->kind = e->kind;
		drop_front(rest, end - e->v);
		e->len = v - e->v;
		link_entry(ov, pl, rest);
		return;
	}
	if (e != ov->head && end_of(e) > v) {
		report(e, v, end_of(e), displaced, arg);
		e->len = v - e->v;
	}
	while ((e = pl->at[0]->next[0]) && e->v < end) {
		if (end_of(e) > end) {
			report(e, e->v, end, displaced, arg);
			drop_front(e, end - e->v); /* stays in its place in the order */
			break;
		}
		report(e, e->v, end_of(e), displaced, arg);
		unlink_entry(ov, pl, e);
	}
}

/* Whether b, which comes after a, may be made one extent with it. */
static bool may_join(const struct vd_ov_entry *a, const struct vd_ov_entry *b, uint64_t cut)
{
	if (a->kind != b->kind || end_of(a) != b->v || (a->birth <= cut) != (b->birth <= cut))
		return false;
	if (a->kind != VD_DATA)
		return true;
	return a->p + a->len == b->p && a->len + b->len <= VD_EXTENT_LEN_MAX;
}

/* b, right behind the place which is at a, becomes part of a. */
static void join(struct vd_ov *ov, struct place *pl, struct vd_ov_entry *a, struct vd_ov_entry *b)
{
	a->len += b->len;
	a->birth = vd_min(a->birth, b->birth);
	unlink_entry(ov, pl, b);
}

void vd_ov_insert(struct vd_ov *ov, const struct vd_ext *e, uint64_t cut, struct vd_ov_entry *spare[2],
		  vd_ov_displaced_fn displaced, void *arg)
{
	struct vd_ov_entry fresh = { .v = e->v, .len = e->len, .birth = e->birth, .kind = (uint8_t)e->kind };
	struct vd_ov_entry *prev, *next;
	struct place pl;

	if (!e->len)
		return;
	fresh.p = e->kind == VD_DATA ? e->p : VD_PBLK_NONE;
	place_find(ov, e->v, &pl);
	clear_range(ov, &pl, e->v, e->v + e->len, spare, displaced, arg);

	prev = pl.at[0];
	next = prev->next[0];
	if (prev != ov->head && may_join(prev, &fresh, cut)) {
		prev->len += fresh.len;
		prev->birth = vd_min(prev->birth, fresh.birth);
		if (next && may_join(prev, next, cut))
			join(ov, &pl, prev, next);
	} else if (next && may_join(&fresh, next, cut)) {
		next->v = fresh.v; /* grows towards the front, its place in the order stays */
		next->p = fresh.p;
		next->len += fresh.len;
		next->birth = vd_min(next->birth, fresh.birth);
	} else {
		next = take(spare);
		next->v = fresh.v;
		next->len = fresh.len;
		next->p = fresh.p;
		next->birth = fresh.birth;
		next->kind = fresh.kind;
		link_entry(ov, &pl, next);
	}
}

void vd_ov_move(struct vd_ov *to, struct vd_ov *from)
{
	struct vd_ov_entry *head = to->head;

	to->head = from->head;
	to->count = from->count;
	to->bytes = from->bytes;
	to->levels = from->levels;
	from->head = head;
	from->count = 0;
	from->bytes = 0;
	from->levels = 1;
}
