// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Windows: a first write reserves more than it needs, so that what is written
 * near it later lands near it (D2).
 *
 * A window ties `len` blocks of a volume to as many contiguous blocks of the
 * pool; offset within one is offset within the other, so that writes that arrive
 * out of order still merge into one extent.  It lies within one aligned stretch
 * of VD_WINDOW_BLOCKS, by which it is found.
 *
 * W1  A block of the window whose bit is clear is reserved in the space layer
 *     and known to nobody; one whose bit is set is its writer's for good.
 * W2  Windows exist in memory only; dropping one gives the clear blocks back.
 */
#include "volume.h"

#define REGION_BLOCKS 16u        /* 64 KiB, the smallest window */
#define MEMBER_RUN_BLOCKS 16384u /* 64 MiB on one member, then the next */

void vd_windows_init(struct vd_windows *w)
{
	unsigned i;

	vd_spin_init(&w->lock);
	vd_list_init(&w->lru);
	for (i = 0; i < sizeof(w->hash) / sizeof(w->hash[0]); i++)
		vd_list_init(&w->hash[i]);
	w->goal = VD_PBLK_NONE;
	w->grow = REGION_BLOCKS;
	w->next_v = VD_VBLK_END;
}

static struct vd_list *bucket(struct vd_windows *w, vd_vblk_t v)
{
	uint64_t stretch = v / VD_WINDOW_BLOCKS;

	return &w->hash[(stretch ^ stretch >> 6) & 63];
}

static bool taken(const struct vd_window *win, uint32_t i)
{
	return win->map[i / 64] >> (i % 64) & 1;
}

static void drop(struct vd_volume *vol, struct vd_window *win)
{
	uint32_t i, end;

	for (i = 0; i < win->len; i = end) {
		bool t = taken(win, i);

		for (end = i + 1; end < win->len && taken(win, end) == t; end++)
			;
		if (!t)
			vd_space_unreserve(vol->pool, win->p + i, end - i);
	}
	vd_list_del(&win->lru);
	vd_list_del(&win->hash);
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

/* The window that has a block for v. */
static struct vd_window *find(struct vd_windows *w, vd_vblk_t v)
{
	struct vd_list *pos;

	vd_list_for_each(pos, bucket(w, v)) {
		struct vd_window *win = vd_container(pos, struct vd_window, hash);

		if (v >= win->v && v - win->v < win->len && !taken(win, (uint32_t)(v - win->v)))
			return win;
	}
	return NULL;
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

/* Where a window for v begins and how long it may be, so that it neither leaves
 * its stretch nor covers what another window has. */
static uint32_t shape(struct vd_windows *w, vd_vblk_t v, bool sequential, vd_vblk_t *start)
{
	vd_vblk_t s = sequential ? v : v & ~(vd_vblk_t)(REGION_BLOCKS - 1);
	vd_vblk_t end = vd_min(s + (sequential ? w->grow : REGION_BLOCKS), (s | (VD_WINDOW_BLOCKS - 1)) + 1);
	struct vd_list *pos;

	vd_list_for_each(pos, bucket(w, v)) {
		struct vd_window *o = vd_container(pos, struct vd_window, hash);
		vd_vblk_t o_end = o->v + o->len;

		if (o_end <= v && o_end > s)
			s = o_end;
		else if (o->v > v && o->v < end)
			end = o->v;
		else if (o->v <= v && v < o_end)
			return 0; /* v's own place is taken: it is written anew, singly */
	}
	*start = s;
	return (uint32_t)(end - s);
}

static struct vd_window *make(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t near, int *err)
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
	*err = 0;
	if (!len)
		return NULL;
	if (near != VD_PBLK_NONE && near >= v - start)
		goal = near - (v - start);
	else
		goal = w->run < MEMBER_RUN_BLOCKS ? w->goal : VD_PBLK_NONE;
	win = vol->pool->host.alloc(vol->pool->host.ctx, sizeof(*win), VD_ALLOC_NOWAIT);
	if (!win)
		return NULL;
	memset(win, 0, sizeof(*win));
	*err = vd_space_reserve(vol->pool, goal, len, &p, &got);
	if (*err) {
		vd_free(vol->pool, win);
		return NULL;
	}
	if (got <= v - start) { /* too short to reach v from the window's start */
		start = v;
		len = vd_min(len, got);
	}
	win->v = start;
	win->p = p;
	win->len = vd_min(len, got);
	if (win->len < got)
		vd_space_unreserve(vol->pool, p + win->len, got - win->len);
	if (goal == VD_PBLK_NONE)
		w->run = 0;
	w->run += win->len;
	w->goal = p + win->len;
	w->next_v = win->v + win->len;
	vd_list_add_tail(&w->lru, &win->lru);
	vd_list_add_tail(bucket(w, v), &win->hash);
	if (++w->n > VD_WINDOWS_MAX)
		drop(vol, vd_container(w->lru.next, struct vd_window, lru));
	return win;
}

int vd_windows_alloc(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t near, vd_pblk_t *p, unsigned *got)
{
	struct vd_windows *w = &vol->win;
	struct vd_window *win;
	int r = 0;

	vd_spin_lock(&w->lock);
	win = find(w, v);
	if (!win)
		win = make(vol, v, want, near, &r);
	if (win)
		take(vol, win, v, want, p, got);
	vd_spin_unlock(&w->lock);
	return win || r ? r : vd_space_reserve(vol->pool, near, vd_min(want, VD_WINDOW_BLOCKS), p, got);
}
