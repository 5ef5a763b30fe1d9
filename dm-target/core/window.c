// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Windows: a first write reserves more than it needs, so that what is written
 * near it later lands near it (D2).
 *
 * A window ties blocks of a volume to blocks of the pool, offset within one being offset
 * within the other, so that writes that arrive out of order still merge into one extent.
 * Most have the VD_REGION_BLOCKS of an aligned region.  They stand in sets, which are small
 * since random writes make a window, and drive one out, nearly every time: how many lines
 * of the cache that takes is what it costs.  Those of streams are larger, up to
 * VD_WINDOW_BLOCKS within an aligned stretch of as many, and few.
 *
 * W1  A block of the window that is not given out is reserved in the space layer
 *     and known to nobody; one that is, is its writer's for good.
 * W2  Windows exist in memory only; dropping one gives back what was not given out.
 * W3  When a region is written again whose window was dropped (or was another
 *     opening's), it gets back what is still free beside its own blocks, before any
 *     new place: regions stay together, and the gaps they left are theirs to fill.
 * W4  Who writes a block anew that a region's window has given out gets one singly, not
 *     another window; where it was a wide one's, the region gets a window of its own.
 * W5  The windows of regions that are written in no order are cut from a strip, which is
 *     reserved as a whole (W1, W2): a lock of the pool's for each eighth of them.  The next
 *     is twice as long if there was a run for all of this one.
 */
#include "volume.h"

#define REGION_BLOCKS VD_REGION_BLOCKS
#define STRIP_BLOCKS (8 * REGION_BLOCKS)
#define MEMBER_RUN_BLOCKS 16384u /* 64 MiB on one member, then the next */

void vd_windows_init(struct vd_windows *w)
{
	memset(w, 0, sizeof(*w));
	vd_list_init(&w->lru);
	w->goal = VD_PBLK_NONE;
	w->grow = w->strip_next = REGION_BLOCKS;
	w->next_v = VD_VBLK_END;
}

void vd_windows_fini(struct vd_volume *vol)
{
	for (unsigned i = 0; i < VD_SETS / VD_PAGE_SETS; i++)
		vd_free(vol->pool, vol->win.set[i]);
}

/* ---- of regions ----------------------------------------------------------- */

/* n bits from i on. */
static uint16_t bits(unsigned i, unsigned n)
{
	return (uint16_t)(((1u << n) - 1) << i);
}

/* How many bits of a mask are set from i on, without a gap. */
static unsigned run_of(uint16_t mask, unsigned i)
{
	return (unsigned)__builtin_ctz(~((unsigned)mask >> i));
}

static struct vd_window_set **page_of(struct vd_windows *w, vd_vblk_t v, unsigned *i)
{
	unsigned nr = (unsigned)(vd_hash(v / REGION_BLOCKS) * VD_SETS >> 32);

	*i = nr % VD_PAGE_SETS;
	return &w->set[nr / VD_PAGE_SETS];
}

/* NULL: none of its page was made yet. */
static struct vd_window_set *set_of(struct vd_windows *w, vd_vblk_t v)
{
	unsigned i;
	struct vd_window_set *page = *page_of(w, v, &i);

	return page ? &page[i] : NULL;
}

/* The blocks `left` of the region whose block 0 is at p. */
static void give_back(struct vd_volume *vol, vd_pblk_t p, uint16_t left)
{
	while (left) {
		unsigned i = (unsigned)__builtin_ctz(left), n = run_of(left, i);

		vd_space_unreserve(vol->pool, p + i, n);
		left &= (uint16_t)~bits(i, n);
	}
}

static void set_drop(struct vd_volume *vol, struct vd_window_set *set, unsigned k)
{
	give_back(vol, set->p[k], set->left[k]);
	set->has[k] = set->left[k] = 0;
}

/* The set of v, of a page that is made now.  NULL: no memory. */
static struct vd_window_set *set_make(struct vd_volume *vol, vd_vblk_t v)
{
	const struct vd_host *host = &vol->pool->host;
	unsigned i;
	struct vd_window_set **page = page_of(&vol->win, v, &i);

	*page = host->alloc(host->ctx, VD_BLOCK, VD_ALLOC_NOWAIT);
	if (!*page)
		return NULL;
	memset(*page, 0, VD_BLOCK);
	return &(*page)[i];
}

/* A window for the blocks `has` of v's region, whose block 0 is at p, with `left` of them.  False: no memory. */
static bool set_add(struct vd_volume *vol, vd_vblk_t v, vd_pblk_t p, uint16_t has, uint16_t left)
{
	struct vd_window_set *set = set_of(&vol->win, v) ?: set_make(vol, v);
	unsigned k;

	if (!set)
		return false;
	for (k = 0; k < VD_SET_WAYS && set->has[k]; k++)
		;
	if (k == VD_SET_WAYS) {
		k = set->turn++ % VD_SET_WAYS;
		set_drop(vol, set, k);
	}
	set->region[k] = v / REGION_BLOCKS;
	set->p[k] = p;
	set->has[k] = has;
	set->left[k] = left;
	vol->win.made++;
	return true;
}

static void set_give(struct vd_window_set *set, unsigned k, unsigned i, unsigned want, vd_pblk_t *p, unsigned *got)
{
	*got = vd_min(want, run_of(set->left[k], i));
	*p = set->p[k] + i;
	set->left[k] &= (uint16_t)~bits(i, *got);
	if (!set->left[k])
		set->has[k] = 0;
}

/* *given: the region has had a window that gave the block out (W4). */
static bool set_take(struct vd_windows *w, vd_vblk_t v, unsigned want, vd_pblk_t *p, unsigned *got, bool *given)
{
	struct vd_window_set *set = set_of(w, v);
	unsigned i = (unsigned)(v % REGION_BLOCKS), k;

	*given = false;
	for (k = 0; set && k < VD_SET_WAYS; k++) {
		if (set->region[k] != v / REGION_BLOCKS)
			continue;
		if (set->left[k] >> i & 1) {
			set_give(set, k, i, want, p, got);
			return true;
		}
		*given |= set->has[k] >> i & 1;
	}
	return false;
}

/* ---- wide ones ------------------------------------------------------------ */

static struct vd_window **bucket(struct vd_windows *w, vd_vblk_t v)
{
	return &w->wide[vd_hash(v / VD_WINDOW_BLOCKS) * (sizeof(w->wide) / sizeof(w->wide[0])) >> 32];
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
	for (at = bucket(&vol->win, win->v); *at != win;)
		at = &(*at)->next;
	*at = win->next;
	vd_list_del(&win->lru);
	vol->win.nwide--;
	vd_free(vol->pool, win);
}

/* False: no memory. */
static bool wide_add(struct vd_volume *vol, vd_vblk_t v, vd_pblk_t p, uint32_t len)
{
	const struct vd_host *host = &vol->pool->host;
	struct vd_windows *w = &vol->win;
	struct vd_window *win = host->alloc(host->ctx, sizeof(*win), VD_ALLOC_NOWAIT), **at = bucket(w, v);

	if (!win)
		return false;
	*win = (struct vd_window){ .next = *at, .v = v, .p = p, .len = len };
	vd_list_add_tail(&w->lru, &win->lru);
	*at = win;
	w->made++;
	if (++w->nwide > VD_WIDE_MAX)
		drop(vol, vd_container(w->lru.next, struct vd_window, lru));
	return true;
}

static bool wide_take(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t *p, unsigned *got)
{
	struct vd_window *win = *bucket(&vol->win, v);
	uint32_t i, end;

	while (win && !(v >= win->v && v - win->v < win->len && !taken(win, (uint32_t)(v - win->v))))
		win = win->next;
	if (!win)
		return false;
	for (i = end = (uint32_t)(v - win->v); end < win->len && end - i < want && !taken(win, end); end++)
		win->map[end / 64] |= 1ull << (end % 64);
	win->used += end - i;
	*p = win->p + i;
	*got = end - i;
	vd_list_del(&win->lru);
	vd_list_add_tail(&vol->win.lru, &win->lru);
	if (win->used == win->len)
		drop(vol, win);
	return true;
}

/* ---- all ------------------------------------------------------------------ */

/* Who ends a write waits for claim_lock, with interrupts off and others waiting for him. */
static void let_others(struct vd_volume *vol) vd_holds(&vol->claim_lock)
{
	vd_spin_unlock(&vol->claim_lock);
	vd_spin_lock(&vol->claim_lock);
}

void vd_windows_drop(struct vd_volume *vol)
{
	struct vd_windows *w = &vol->win;

	vd_spin_lock(&vol->claim_lock);
	while (!vd_list_empty(&w->lru)) {
		drop(vol, vd_container(w->lru.next, struct vd_window, lru));
		let_others(vol);
	}
	for (unsigned i = 0; i < VD_SETS; i++) {
		for (unsigned k = 0; w->set[i / VD_PAGE_SETS] && k < VD_SET_WAYS; k++)
			set_drop(vol, &w->set[i / VD_PAGE_SETS][i % VD_PAGE_SETS], k);
		let_others(vol);
	}
	vd_space_unreserve(vol->pool, w->strip, w->strip_left);
	w->strip_left = 0;
	w->strip_next = REGION_BLOCKS;
	vd_spin_unlock(&vol->claim_lock);
}

static inline bool take(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t *p, unsigned *got, bool *given)
{
	return set_take(&vol->win, v, want, p, got, given) ||
	       (vol->win.nwide && *bucket(&vol->win, v) && wide_take(vol, v, want, p, got));
}

/* W3: v would lie at `beside`.  1: there is a window for it now; 0: not; -EWOULDBLOCK: *p's
 * group must be loaded. */
static int regain(struct vd_volume *vol, vd_vblk_t v, vd_pblk_t beside, vd_pblk_t *p)
{
	unsigned in = (unsigned)(v % REGION_BLOCKS);
	vd_pblk_t at = beside - in;
	uint32_t mask;
	int r;

	if (VD_PBLK_BLOCK(beside) < in)
		return 0;
	r = vd_space_reserve_mask(vol->pool, &vol->promise, at, REGION_BLOCKS, in, &mask);
	if (r)
		*p = at;
	if (r || !mask)
		return r;
	if (set_add(vol, v, at, (uint16_t)mask, (uint16_t)mask))
		return 1;
	give_back(vol, at, (uint16_t)mask);
	return 0;
}

/* Blocks at a new place, for a window of len, or for it and those of other regions. */
static int reserve(struct vd_volume *vol, uint32_t len, bool strip, vd_pblk_t *p, unsigned *got)
{
	struct vd_windows *w = &vol->win;
	vd_pblk_t goal = w->run < MEMBER_RUN_BLOCKS ? w->goal : VD_PBLK_NONE;
	uint32_t ask = len, rest;
	int r;

	/* Where little is left it is for all who write. */
	if (strip && vd_space_room(vol->pool, &vol->promise, 0) >= 8 * STRIP_BLOCKS)
		ask = w->strip_next;
	r = vd_space_reserve_for(vol->pool, &vol->promise, goal, ask, p, got);
	if (r)
		return r;
	if (goal == VD_PBLK_NONE)
		w->run = 0;
	w->run += *got;
	w->goal = *p + *got;
	if (!strip)
		return 0;
	w->strip_next = *got == ask ? vd_min(2 * ask, STRIP_BLOCKS) : REGION_BLOCKS;
	rest = *got > len ? *got - len : 0;
	*got -= rest;
	w->strip = *p + *got;
	w->strip_left = rest - rest % REGION_BLOCKS;
	w->goal = w->strip + w->strip_left;
	if (rest % REGION_BLOCKS)
		vd_space_unreserve(vol->pool, w->goal, rest % REGION_BLOCKS);
	return 0;
}

/* The window of v's region, from the strip. */
static int cut(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t *out, unsigned *n)
{
	struct vd_windows *w = &vol->win;
	unsigned in = (unsigned)(v % REGION_BLOCKS);
	uint16_t left;

	*n = vd_min(want, REGION_BLOCKS - in);
	*out = w->strip + in;
	left = (uint16_t)~bits(in, *n);
	if (left && !set_add(vol, v, w->strip, bits(0, REGION_BLOCKS), left))
		return 0;
	w->strip += REGION_BLOCKS;
	w->strip_left -= REGION_BLOCKS;
	w->grow = REGION_BLOCKS;
	w->next_v = v - in + REGION_BLOCKS;
	return 1;
}

/* At a new place: 1: *out, *n of it are v's. */
static int make(struct vd_volume *vol, vd_vblk_t v, unsigned want, vd_pblk_t *out, unsigned *n)
{
	struct vd_windows *w = &vol->win;
	bool sequential = v == w->next_v || want > REGION_BLOCKS, had; /* a large write is a stream of its own */
	vd_vblk_t start;
	vd_pblk_t p;
	uint16_t has, left;
	uint32_t len;
	unsigned got;
	int r;

	if (!sequential && w->strip_left)
		return cut(vol, v, want, out, n);
	w->grow = v == w->next_v ? vd_min(w->grow * 2, VD_WINDOW_BLOCKS) : REGION_BLOCKS;
	w->grow = vd_max(w->grow, vd_min(want, VD_WINDOW_BLOCKS));
	start = sequential ? v : v & ~(vd_vblk_t)(REGION_BLOCKS - 1);
	len = sequential ? (uint32_t)(vd_min(v + w->grow, (v | (VD_WINDOW_BLOCKS - 1)) + 1) - v) : REGION_BLOCKS;
	r = reserve(vol, len, !sequential, &p, &got);
	if (r)
		return r;
	if (got < len) /* where runs are short, no more is looked for */
		w->grow = vd_max(got, REGION_BLOCKS);
	if (got <= v - start) { /* too short to reach v from the window's start */
		len -= (uint32_t)(v - start);
		start = v;
	}
	if (len < got) {
		vd_space_unreserve(vol->pool, p + len, got - len);
		got = len;
	}
	*out = p + (v - start);
	*n = vd_min(want, (unsigned)(start + got - v));
	if (start / REGION_BLOCKS == (start + got - 1) / REGION_BLOCKS) {
		has = bits((unsigned)(start % REGION_BLOCKS), got);
		left = has & (uint16_t)~bits((unsigned)(v % REGION_BLOCKS), *n);
		had = !left || set_add(vol, v, p - start % REGION_BLOCKS, has, left);
	} else {
		had = *n == got || (wide_add(vol, start, p, got) && wide_take(vol, v, want, out, n));
	}
	if (!had) {
		vd_space_unreserve(vol->pool, p, got);
		return 0;
	}
	w->next_v = start + got;
	return 1;
}

int vd_windows_alloc(struct vd_volume *vol, const struct vd_ext *e, unsigned want, vd_pblk_t *p, unsigned *got)
{
	struct vd_windows *w = &vol->win;
	vd_vblk_t v = e->v, start = v & ~(vd_vblk_t)(REGION_BLOCKS - 1);
	vd_pblk_t beside = VD_PBLK_NONE;
	unsigned made;
	bool had, given;
	int r = 0;

	*p = VD_PBLK_NONE;
	had = take(vol, v, want, p, got, &given);
	if (!had && v != w->next_v && !(v - start <= e->back && REGION_BLOCKS <= e->len + (v - start))) {
		made = w->made;
		vd_spin_unlock_inner(&vol->claim_lock);
		beside = vd_map_beside(vol, v, start, REGION_BLOCKS);
		vd_spin_lock_inner(&vol->claim_lock);
		had = made != w->made && take(vol, v, want, p, got, &given);
	}
	if (!had && !given) {
		if (beside != VD_PBLK_NONE)
			r = regain(vol, v, beside, p);
		had = r > 0 ? take(vol, v, want, p, got, &given) : !r && (r = make(vol, v, want, p, got)) > 0;
	}
	return had || r < 0 ? vd_min(r, 0) : vd_space_reserve_for(vol->pool, &vol->promise, beside, vd_min(want, VD_WINDOW_BLOCKS), p, got);
}
