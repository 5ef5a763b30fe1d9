// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Windows: a first write reserves more than it needs, so that what is written
 * near it later lands near it (D2).
 *
 * A window ties `len` blocks of a volume to as many contiguous blocks of the
 * pool; offset within one is offset within the other, so that writes that arrive
 * out of order still merge into one extent.  It lies within one aligned stretch
 * of VD_WINDOW_BLOCKS, and most within one region of VD_REGION_BLOCKS, by which it is found.
 *
 * W1  A block of the window whose bit is clear is reserved in the space layer
 *     and known to nobody; one whose bit is set is its writer's for good.
 * W2  Windows exist in memory only; dropping one gives the clear blocks back.
 * W3  When a region is written again whose window was dropped (or was another
 *     opening's), it gets back what is still free beside its own blocks, before any
 *     new place: regions stay together, and the gaps they left are theirs to fill.
 */
#include "volume.h"

#define REGION_BLOCKS VD_REGION_BLOCKS
#define MEMBER_RUN_BLOCKS 16384u /* 64 MiB on one member, then the next */

void vd_windows_init(struct vd_windows *w)
{
	memset(w, 0, sizeof(*w));
	vd_spin_init(&w->lock);
	vd_list_init(&w->lru);
	w->goal = VD_PBLK_NONE;
	w->grow = REGION_BLOCKS;
	w->next_v = VD_VBLK_END;
}

void vd_windows_fini(struct vd_volume *vol)
{
	vd_free(vol->pool, vol->win.table);
	vd_spin_fini(&vol->win.lock);
}

static struct vd_window **region(const struct vd_windows *w, vd_vblk_t v)
{
	return &w->table->region[vd_hash(v / REGION_BLOCKS) * (sizeof(w->table->region) / sizeof(w->table->region[0])) >> 32];
}

static struct vd_window **wide(const struct vd_windows *w, vd_vblk_t v)
{
	return &w->table->wide[vd_hash(v / VD_WINDOW_BLOCKS) * (sizeof(w->table->wide) / sizeof(w->table->wide[0])) >> 32];
}

static struct vd_window **bucket(const struct vd_windows *w, vd_vblk_t v, uint32_t len)
{
	return v / REGION_BLOCKS == (v + len - 1) / REGION_BLOCKS ? region(w, v) : wide(w, v);
}

static bool taken(const struct vd_window *win, uint32_t i)
{
	return win->map[i / 64] >> (i % 64) & 1;
}

static void drop(struct vd_volume *vol, struct vd_window *win)
{
	struct vd_window **at;
	uint32_t i, end;

	for (i = 0; i < win->len; i = end) {
		bool t = taken(win, i);

		for (end = i + 1; end < win->len && taken(win, end) == t; end++)
			;
		if (!t)
			vd_space_unreserve(vol->pool, win->p + i, end - i);
	}
	for (at = bucket(&vol->win, win->v, win->len); *at != win;)
		at = &(*at)->next;
	*at = win->next;
	vd_list_del(&win->lru);
	vol->win.n--;
	vd_free(vol->pool, win);
}

void vd_windows_drop(struct vd_volume *vol)
{
	struct vd_windows *w = &vol->win;

	vd_spin_lock(&w->lock);
	while (!vd_list_empty(&w->lru))
		drop(vol, vd_container(w->lru.next, struct vd_window, lru));
	vd_spin_unlock(&w->lock);
}

static struct vd_window *find_in(struct vd_window *win, vd_vblk_t v)
{
	while (win && !(v >= win->v && v - win->v < win->len && !taken(win, (uint32_t)(v - win->v))))
		win = win->next;
	return win;
}

/* The window that has a block for v. */
static struct vd_window *find(const struct vd_windows *w, vd_vblk_t v)
{
	struct vd_window *win = w->n ? find_in(*region(w, v), v) : NULL;

	return win || !w->n ? win : find_in(*wide(w, v), v);
}

static void take(struct vd_volume *vol, struct vd_window *win, vd_vblk_t v, unsigned want, vd_pblk_t *p, unsigned *got)
{
	uint32_t i = (uint32_t)(v - win->v), end = i;

	while (end < win->len && end - i < want && !taken(win, end)) {
		win->map[end / 64] |= 1ull << (end % 64);
		end++;
	}
	win->used += end - i;
	*p = win->p + i;
	*got = end - i;
	vd_list_del(&win->lru);
	if (win->used == win->len) {
		vd_list_init(&win->lru);
		drop(vol, win);
	} else {
		vd_list_add_tail(&vol->win.lru, &win->lru);
	}
}

/* Makes [*start, *end), which has v, smaller until it covers nothing of the windows of a
 * bucket.  False: one of them has v's own place. */
static bool trim(const struct vd_window *o, vd_vblk_t v, vd_vblk_t *start, vd_vblk_t *end)
{
	for (; o; o = o->next) {
		vd_vblk_t o_end = o->v + o->len;

		if (o_end <= v && o_end > *start)
			*start = o_end;
		else if (o->v > v && o->v < *end)
			*end = o->v;
		else if (o->v <= v && v < o_end)
			return false;
	}
	return true;
}

/* Where a window for v begins and how long it may be, so that it neither leaves its
 * stretch nor covers what another window has.  0: v is to be written anew, singly. */
static uint32_t shape(const struct vd_windows *w, vd_vblk_t v, bool sequential, vd_vblk_t *start)
{
	vd_vblk_t s = sequential ? v : v & ~(vd_vblk_t)(REGION_BLOCKS - 1), at;
	vd_vblk_t end = vd_min(s + (sequential ? w->grow : REGION_BLOCKS), (s | (VD_WINDOW_BLOCKS - 1)) + 1);

	if (w->n && !trim(*wide(w, v), v, &s, &end))
		return 0;
	for (at = v & ~(vd_vblk_t)(REGION_BLOCKS - 1); w->n && at < end; at += REGION_BLOCKS)
		if (!trim(*region(w, at), v, &s, &end))
			return 0;
	*start = s;
	return (uint32_t)(end - s);
}

static struct vd_window *window_new(struct vd_volume *vol, vd_vblk_t v, vd_pblk_t p, uint32_t len)
{
	const struct vd_host *host = &vol->pool->host;
	struct vd_windows *w = &vol->win;
	struct vd_window *win, **at;

	if (!w->table) {
		w->table = host->alloc(host->ctx, sizeof(*w->table), VD_ALLOC_NOWAIT);
		if (!w->table)
			return NULL;
		memset(w->table, 0, sizeof(*w->table));
	}
	win = host->alloc(host->ctx, sizeof(*win), VD_ALLOC_NOWAIT);
	if (!win)
		return NULL;
	memset(win, 0, sizeof(*win));
	win->v = v;
	win->p = p;
	win->len = len;
	vd_list_add_tail(&w->lru, &win->lru);
	at = bucket(w, v, len);
	win->next = *at;
	*at = win;
	w->n++;
	w->made++;
	return win;
}

static void cap(struct vd_volume *vol)
{
	if (vol->win.n > VD_WINDOWS_MAX)
		drop(vol, vd_container(vol->win.lru.next, struct vd_window, lru));
}

/* W3: v would lie at `beside`. NULL: it cannot, or there is no memory. */
static struct vd_window *regain(struct vd_volume *vol, vd_vblk_t v, vd_pblk_t beside, vd_pblk_t *p, int *err)
{
	vd_vblk_t start;
	uint32_t mask, i, len = shape(&vol->win, v, false, &start);
	struct vd_window *win;

	if (!len || VD_PBLK_BLOCK(beside) < v - start)
		return NULL;
	*p = beside - (v - start);
	*err = vd_space_reserve_mask(vol->pool, &vol->promise, *p, len, &mask);
	if (*err || !mask)
		return NULL;
	win = mask >> (v - start) & 1 ? window_new(vol, start, *p, len) : NULL;
	for (i = 0; i < len; i++)
		if (win && !(mask >> i & 1)) {
			win->map[0] |= 1ull << i;
			win->used++;
		} else if (!win && mask >> i & 1) {
			vd_space_unreserve(vol->pool, *p + i, 1);
		}
	return win;
}

static struct vd_window *make(struct vd_volume *vol, vd_vblk_t v, unsigned want, int *err)
{
	struct vd_windows *w = &vol->win;
	bool sequential = v == w->next_v;
	struct vd_window *win;
	vd_pblk_t goal, p;
	vd_vblk_t start;
	uint32_t len;
	unsigned got;

	w->grow = sequential ? vd_min(w->grow * 2, VD_WINDOW_BLOCKS) : REGION_BLOCKS;
	w->grow = vd_max(w->grow, vd_min(want, VD_WINDOW_BLOCKS));
	if (want > REGION_BLOCKS)
		sequential = true; /* a large write is a stream of its own */
	len = shape(w, v, sequential, &start);
	if (!len)
		return NULL;
	goal = w->run < MEMBER_RUN_BLOCKS ? w->goal : VD_PBLK_NONE;
	*err = vd_space_reserve_for(vol->pool, &vol->promise, goal, len, &p, &got);
	if (*err)
		return NULL;
	if (got < len) /* where runs are short, no more is looked for */
		w->grow = vd_max(got, REGION_BLOCKS);
	if (got <= v - start) { /* too short to reach v from the window's start */
		len -= (uint32_t)(v - start);
		start = v;
	}
	win = window_new(vol, start, p, vd_min(len, got));
	if (!win) {
		vd_space_unreserve(vol->pool, p, got);
		return NULL;
	}
	if (goal == VD_PBLK_NONE)
		w->run = 0;
	if (win->len < got)
		vd_space_unreserve(vol->pool, p + win->len, got - win->len);
	w->run += win->len;
	w->goal = p + win->len;
	w->next_v = win->v + win->len;
	return win;
}

int vd_windows_alloc(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t *p, unsigned *got)
{
	struct vd_windows *w = &vol->win;
	struct vd_window *win;
	vd_pblk_t beside = VD_PBLK_NONE;
	unsigned made;
	int r = 0;

	vd_spin_lock(&w->lock);
	win = find(w, v);
	if (!win && v != w->next_v) {
		made = w->made;
		vd_spin_unlock(&w->lock);
		beside = vd_map_beside(vol, v, v & ~(vd_vblk_t)(REGION_BLOCKS - 1), REGION_BLOCKS);
		vd_spin_lock(&w->lock);
		win = made == w->made ? NULL : find(w, v);
	}
	if (!win && beside != VD_PBLK_NONE)
		win = regain(vol, v, beside, p, &r);
	if (!win && !r) {
		*p = VD_PBLK_NONE;
		win = make(vol, v, want, &r);
	}
	if (win) {
		take(vol, win, v, want, p, got);
		cap(vol);
	}
	vd_spin_unlock(&w->lock);
	return win || r ? r : vd_space_reserve_for(vol->pool, &vol->promise, beside, vd_min(want, VD_WINDOW_BLOCKS), p, got);
}
