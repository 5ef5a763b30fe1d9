/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Groups of 8192 blocks in memory: loading, counts, folding.
 *
 * Where the truth about a group is:
 *
 *   in memory   changed  dirty   counts are those of
 *   no          -        -       the durable space root (and of the running one)
 *   yes         no       no      the durable space root
 *   yes         yes      yes     memory alone
 *   yes         yes      no      the running checkpoint's space root
 *
 * S1. A group whose counts the running checkpoint changed stays in memory until
 *     that checkpoint is durable.  So what is not in memory is always as the
 *     durable root says, and everyone may load from that root at any time.
 * S2. Nodes reached from the durable root as of any moment of a hold of load_lock
 *     are intact until it is let go: their blocks are free again only after
 *     vd_space_drained() has passed that lock.  So a load never reads, and the cache
 *     never repairs, a block that has been given to someone else.
 * S3. One group is loaded at a time (load_lock), and looked for again under that
 *     lock: a group is never in memory twice.
 * S4. A block with count > 0, a system block, and what lies past a member's end
 *     have their busy bits set.
 * S5. free == sum over all groups of blocks not busy, plus the metadata windows:
 *     a group not in memory has as many as its count-0 blocks (it is dropped only
 *     when busy says just that).  used == blocks with count > 0.  At opening used
 *     is the superblock's and free is total - used.
 */
#include "space_priv.h"

/* ---- groups in memory --------------------------------------------------- */

static unsigned bucket(uint64_t nr)
{
	return (unsigned)(nr ^ nr >> 27) & (SPACE_HASH - 1);
}

struct space_group *space_find(const struct vd_space *s, uint64_t nr)
{
	struct space_group *g = s->hash[bucket(nr)];

	while (g && g->nr != nr)
		g = g->next;
	return g;
}

void space_classify(struct space_group *g)
{
	vd_list_del(&g->class_link);
	g->longest = vd_min(g->longest, g->free);
	if (g->longest && !g->meta)
		vd_list_add_tail(&g->m->class[space_log2(g->longest)], &g->class_link);
}

unsigned space_busy_set(struct vd_space *s, struct space_group *g, unsigned i, unsigned n)
{
	unsigned changed = space_bits_fill(g->busy, i, n, true), old = g->longest;

	g->free -= changed;
	g->m->free -= changed;
	s->loaded -= changed;
	space_add(&s->free, -(int64_t)changed);
	g->longest = vd_min(g->longest, g->free);
	if (!old || !g->longest || space_log2(old) != space_log2(g->longest))
		space_classify(g);
	return changed;
}

unsigned space_busy_clear(struct vd_space *s, struct space_group *g, unsigned i, unsigned n)
{
	unsigned changed = space_bits_fill(g->busy, i, n, false);

	g->free += changed;
	g->m->free += changed;
	s->loaded += changed;
	space_add(&s->free, changed);
	if (changed && g->longest < g->free) { /* a bound; a search that fails says better */
		unsigned end = space_bit_next(g->busy, i + n, VD_GROUP_BLOCKS, true);

		g->longest = vd_max(g->longest, end - i + space_bits_clear_before(g->busy, i));
		space_classify(g);
	}
	return changed;
}

static void group_free(struct vd_pool *pool, struct space_group *g)
{
	for (unsigned st = 0; st < STAGES; st++)
		vd_free(pool, g->stage[st]);
	vd_free(pool, g->counts);
	vd_free(pool, g);
}

/* ckpt_lock, load_lock and lock held. */
static void evict(struct vd_pool *pool, struct space_group *g)
{
	struct vd_space *s = pool->space;
	struct space_group **at = &s->hash[bucket(g->nr)];

	while (*at != g)
		at = &(*at)->next;
	*at = g->next;
	vd_list_del(&g->class_link);
	vd_list_del(&g->clock_link);
	g->m->free -= g->free;
	s->loaded -= g->free;
	if (g->free) {
		g->m->evicted++;
		g->m->dry = false;
	}
	if (g->m->cur == g)
		g->m->cur = NULL;
	if (g->m->meta == g)
		g->m->meta = NULL;
	s->ngroups--;
	group_free(pool, g);
}

static bool evictable(const struct space_group *g)
{
	return !g->dirty && !g->changed && g->exist - g->free == g->used &&
	       !g->staged[STAGE_FREED] && !g->staged[STAGE_RIPE] && !g->staged[STAGE_SEALED];
}

static bool too_many(struct vd_pool *pool)
{
	return pool->space->ngroups >= pool->space->max_groups || vd_memory_low(pool, VD_GROUP_BLOCKS);
}

/* A few steps of the clock. ckpt_lock and load_lock held. */
static void shrink(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	for (unsigned tries = 32; tries && s->ngroups && too_many(pool); tries--) {
		struct space_group *g = vd_container(s->clock.next, struct space_group, clock_link);

		if (!g->recent && evictable(g)) {
			evict(pool, g);
			continue;
		}
		g->recent = false;
		vd_list_del(&g->clock_link);
		vd_list_add_tail(&s->clock, &g->clock_link);
	}
	vd_spin_unlock(&s->lock);
}

void space_shrink(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	vd_mutex_lock(&s->load_lock);
	for (unsigned turns = (s->ngroups >> 4) + 1; turns && too_many(pool); turns--)
		shrink(pool); /* each group is met twice at most */
	vd_mutex_unlock(&s->load_lock);
}

/* ---- what is in the space tree ------------------------------------------- */

static uint32_t bits_get(const uint8_t *bits, unsigned i, unsigned width)
{
	unsigned at = i * width;
	__le64 w;

	memcpy(&w, bits + (at >> 3), 8); /* ends within bits[]: at most 3964 + 8 of 4024 */
	return (uint32_t)(le64_to_cpu(w) >> (at & 7) & ((1ull << width) - 1));
}

int space_durable_next(struct vd_pool *pool, uint64_t key, bool with_aux, struct vd_slot *out)
{
	struct vd_space *s = pool->space;
	struct vd_root root;

	vd_spin_lock(&s->lock);
	root = s->root;
	vd_spin_unlock(&s->lock);
	return root.ptr.gen ? vd_ptree_next(pool, &root, key, with_aux, 0, out) : -ENODATA;
}

/* One page: part `part` of the group. */
static int page_read(struct vd_pool *pool, struct space_group *g, const struct vd_slot *slot, unsigned part)
{
	const struct vd_disk_space *d;
	struct vd_node *n;
	unsigned width, parts, nblocks, zeros = 0;
	int r;

	r = vd_node_get(pool, &slot->ptr, VD_NODE_SPACE, 0, 0, &n);
	if (r)
		return r;
	d = n->data;
	r = -EUCLEAN;
	width = le32_to_cpu(d->width);
	parts = space_parts(width);
	if (!parts || le16_to_cpu(d->h.count) != parts || le32_to_cpu(d->nblocks) != VD_GROUP_BLOCKS / parts ||
	    le64_to_cpu(d->h.key_lo) != slot->key ||
	    le64_to_cpu(d->h.key_hi) != slot->key + SPACE_PARTS_MAX / parts)
		goto out;
	if (part == 0) {
		g->csize = width > 7 ? 4 : 1;
		g->counts = vd_zalloc_must(pool, VD_GROUP_BLOCKS * g->csize);
		if (!g->counts) {
			r = -ENOMEM;
			goto out;
		}
		g->width = width;
		g->parts = parts;
	} else if (width != g->width) {
		goto out;
	}
	nblocks = VD_GROUP_BLOCKS / parts;
	for (unsigned i = 0; i < nblocks; i++) {
		unsigned at = part * nblocks + i;
		uint32_t v;

		if (width == 1 && !(i & 31) && at + 32 <= g->exist && !bits_get(d->bits, i / 32, 32)) {
			zeros += 32;
			i += 31;
			continue;
		}
		v = bits_get(d->bits, i, width);
		if (at >= g->exist) {
			if (v)
				goto out;
			continue;
		}
		if (!v)
			zeros++;
		else if (g->csize == 1)
			((uint8_t *)g->counts)[at] = (uint8_t)v;
		else
			((uint32_t *)g->counts)[at] = v;
	}
	if (zeros != slot->aux)
		goto out;
	g->page[part] = slot->ptr;
	g->aux[part] = zeros;
	r = 0;
out:
	vd_node_put(pool, n);
	return r;
}

static int group_read(struct vd_pool *pool, struct space_group *g)
{
	uint64_t key = g->nr * SPACE_PARTS_MAX, end = key + SPACE_PARTS_MAX;
	struct vd_slot slot;
	unsigned part = 0;
	int r;

	g->form = FORM_ABSENT;
	g->csize = 0;
	g->uniform = 0;
	for (;;) {
		r = space_durable_next(pool, key, false, &slot);
		if (r && r != -ENODATA)
			return r;
		if (r || slot.key >= end)
			break;
		if (g->form == FORM_UNIFORM || slot.key != key)
			return -EUCLEAN;
		if (slot.ptr.gen == 0) {
			if (g->form == FORM_PAGES || slot.ptr.a > SPACE_COUNT_MAX)
				return -EUCLEAN;
			g->form = FORM_UNIFORM;
			g->uniform = g->form_value = (uint32_t)slot.ptr.a;
			g->aux[0] = g->uniform ? 0 : g->exist;
			if (slot.aux != g->aux[0])
				return -EUCLEAN;
			key++;
			continue;
		}
		g->form = FORM_PAGES;
		r = page_read(pool, g, &slot, part);
		if (r)
			return r;
		part++;
		key = part < g->parts ? space_key(g, g->parts, part) : end;
		if (part == g->parts)
			break;
	}
	if (g->form == FORM_PAGES) {
		if (part != g->parts)
			return -EUCLEAN;
		key = space_key(g, g->parts, part - 1) + 1;
		r = space_durable_next(pool, key, false, &slot);
		if (r && r != -ENODATA)
			return r;
		if (!r && slot.key < end)
			return -EUCLEAN;
	}
	return 0;
}

bool space_is_system(const struct vd_space *s, vd_pblk_t p, uint64_t len)
{
	uint64_t b = VD_PBLK_BLOCK(p);

	if (b < VD_SYSTEM_BLOCKS)
		return true;
	for (unsigned c = 0; c < VD_JOURNAL_COPIES; c++)
		if (s->jmember[c] == VD_PBLK_MEMBER(p) && b < s->jstart + s->jblocks && b + len > s->jstart)
			return true;
	return false;
}

bool space_valid(const struct vd_space *s, struct vd_pool *pool, vd_pblk_t p, uint64_t len, bool system)
{
	unsigned m = VD_PBLK_MEMBER(p);
	uint64_t b = VD_PBLK_BLOCK(p), end = p >> 48 || m >= s->nmembers ? 0 : vd_member_blocks(pool, m);

	if (!len || b >= end || len > end - b)
		return false;
	return system || !space_is_system(s, p, len);
}

/* Sets busy bits [b, b+len) of the member as far as they are in the group (S4). */
static void force_busy(struct space_group *g, uint64_t b, uint64_t len)
{
	uint64_t first = VD_PBLK_BLOCK(space_first(g)), last = first + VD_GROUP_BLOCKS;
	uint64_t lo = vd_max(b, first), hi = vd_min(b + len, last);

	if (lo < hi)
		space_bits_fill(g->busy, (unsigned)(lo - first), (unsigned)(hi - lo), true);
}

static void group_derive(const struct vd_space *s, struct space_group *g)
{
	g->used = 0;
	memset(g->busy, 0, sizeof(g->busy));
	if (g->csize == 0) {
		if (g->uniform) {
			g->used = g->exist;
			memset(g->busy, 0xff, sizeof(g->busy));
		}
	} else {
		for (unsigned i = 0; i < g->exist; i++) {
			uint64_t eight = 1;

			if (g->csize == 1 && !(i & 7))
				memcpy(&eight, (const uint8_t *)g->counts + i, sizeof(eight));
			if (!eight) {
				i += 7;
			} else if (space_count_at(g, i)) {
				g->busy[i >> 6] |= 1ull << (i & 63);
				g->used++;
			}
		}
	}
	force_busy(g, 0, VD_SYSTEM_BLOCKS);
	for (unsigned c = 0; c < VD_JOURNAL_COPIES; c++)
		if (s->jmember[c] == g->m->index)
			force_busy(g, s->jstart, s->jblocks);
	if (g->exist < VD_GROUP_BLOCKS)
		space_bits_fill(g->busy, g->exist, VD_GROUP_BLOCKS - g->exist, true);
	g->free = 0;
	for (unsigned w = 0; w < SPACE_WORDS; w++)
		g->free += space_popcount(~g->busy[w]);
	g->longest = g->free;
}

static struct space_group *group_new(struct vd_pool *pool, uint64_t nr)
{
	struct vd_space *s = pool->space;
	struct space_group *g = vd_zalloc_must(pool, sizeof(*g));
	uint64_t first = nr << VD_GROUP_SHIFT, left;

	if (!g)
		return NULL;
	g->nr = nr;
	g->m = s->member[VD_PBLK_MEMBER(first)];
	left = vd_member_blocks(pool, g->m->index) - VD_PBLK_BLOCK(first);
	g->exist = left < VD_GROUP_BLOCKS ? (unsigned)left : VD_GROUP_BLOCKS;
	g->plain_gen = 0;
	vd_list_init(&g->class_link);
	vd_list_init(&g->clock_link);
	vd_list_init(&g->dirty_link);
	vd_list_init(&g->changed_link);
	for (unsigned st = 0; st < STAGES; st++)
		vd_list_init(&g->stage_link[st]);
	return g;
}

int space_load_locked(struct vd_pool *pool, uint64_t nr, bool ckpt, struct space_group **out)
{
	struct vd_space *s = pool->space;
	struct space_group *g;
	int r;

	vd_spin_lock(&s->lock);
	g = space_find(s, nr); /* S3 */
	if (g)
		g->recent = true;
	vd_spin_unlock(&s->lock);
	if (g) {
		*out = g;
		return 0;
	}
	if (ckpt)
		shrink(pool);
	g = group_new(pool, nr);
	if (!g)
		return -ENOMEM;
	r = group_read(pool, g); /* S1, S2 */
	if (r) {
		group_free(pool, g);
		return r;
	}
	vd_spin_lock(&s->lock);
	group_derive(s, g);
	space_add(&s->free, -(int64_t)((g->exist - g->used) - g->free)); /* S4, S5: busy beyond what counts say */
	s->loaded += g->free;
	g->m->free += g->free;
	g->next = s->hash[bucket(nr)];
	s->hash[bucket(nr)] = g;
	vd_list_add_tail(&s->clock, &g->clock_link);
	s->ngroups++;
	space_classify(g);
	vd_spin_unlock(&s->lock);
	*out = g;
	return 0;
}

int space_load(struct vd_pool *pool, uint64_t nr, bool ckpt, struct space_group **out)
{
	struct vd_space *s = pool->space;
	struct space_group *g;
	int r = 0;

	vd_spin_lock(&s->lock);
	g = space_find(s, nr);
	if (g)
		g->recent = true;
	vd_spin_unlock(&s->lock);
	if (g) {
		*out = g;
		return 0;
	}
	vd_mutex_lock(&s->load_lock);
	r = space_load_locked(pool, nr, ckpt, out);
	vd_mutex_unlock(&s->load_lock);
	return r;
}

/* ---- counts --------------------------------------------------------------- */

static void count_put(struct space_group *g, unsigned i, uint32_t v)
{
	if (g->csize == 1)
		((uint8_t *)g->counts)[i] = (uint8_t)v;
	else
		((uint32_t *)g->counts)[i] = v;
}

/* Counts in an array of `csize` bytes each, at least. */
static int group_widen(struct vd_pool *pool, struct space_group *g, unsigned csize)
{
	struct vd_space *s = pool->space;
	void *counts, *old;

	if (g->csize >= csize)
		return 0;
	counts = vd_zalloc_must(pool, VD_GROUP_BLOCKS * csize);
	if (!counts)
		return -ENOMEM;
	for (unsigned i = 0; i < g->exist; i++) {
		uint32_t v = space_count_at(g, i);

		if (csize == 1)
			((uint8_t *)counts)[i] = (uint8_t)v;
		else
			((uint32_t *)counts)[i] = v;
	}
	vd_spin_lock(&s->lock);
	old = g->counts;
	g->counts = counts;
	g->csize = (uint8_t)csize;
	vd_spin_unlock(&s->lock);
	vd_free(pool, old);
	return 0;
}

static void group_touch(struct vd_space *s, struct space_group *g)
{
	if (!g->changed)
		vd_list_add_tail(&s->changed, &g->changed_link);
	if (!g->dirty)
		vd_list_add_tail(&s->dirty, &g->dirty_link);
	g->changed = g->dirty = true;
}

/* The first block in [i, i+n) whose count may not go up or down; i + n: none.
 * max: the largest count among them. */
static unsigned change_limit(const struct space_group *g, unsigned i, unsigned n, bool up, uint32_t *max)
{
	unsigned end = i + n;

	*max = 0;
	for (; i < end; i++) {
		uint32_t v = space_count_at(g, i);

		if (up ? v == SPACE_COUNT_MAX : v == 0)
			break;
		if (v > *max)
			*max = v;
		if (g->csize == 0)
			return end;
	}
	return i;
}

/* Lock held.  A block that a durable checkpoint or record freed cannot come back. */
static bool change_late(const struct space_group *g, unsigned i, unsigned n)
{
	for (unsigned st = STAGE_RIPE; st <= STAGE_SEALED; st++)
		if (g->staged[st] && space_bit_next(g->stage[st], i, i + n, true) < i + n)
			return true;
	return false;
}

static void change_up(struct vd_pool *pool, struct space_group *g, unsigned i, unsigned n)
{
	struct vd_space *s = pool->space;
	unsigned fresh = 0;

	if (g->csize == 0) { /* the whole group */
		fresh = g->uniform++ ? 0 : n;
	} else {
		for (unsigned j = i; j < i + n; j++) {
			uint32_t v = space_count_at(g, j);

			fresh += !v;
			count_put(g, j, v + 1);
		}
	}
	g->used += fresh;
	s->used += fresh;
	if (fresh) {
		space_busy_set(s, g, i, n);
		space_stage_clear(pool, g, STAGE_FREED, i, n);
	}
}

static void change_down(struct vd_pool *pool, struct space_group *g, unsigned i, unsigned n)
{
	struct vd_space *s = pool->space;
	bool leak = space_stage_ready(pool, g, STAGE_FREED, VD_ALLOC_NOWAIT) != 0; /* B2 */
	unsigned gone = 0;

	if (g->csize == 0) {
		gone = --g->uniform ? 0 : n;
		if (gone && !leak)
			space_stage_set(s, g, STAGE_FREED, i, n);
	} else {
		for (unsigned j = i; j < i + n; j++) {
			uint32_t v = space_count_at(g, j) - 1;

			count_put(g, j, v);
			if (v)
				continue;
			gone++;
			if (!leak)
				space_stage_set(s, g, STAGE_FREED, j, 1);
		}
	}
	if (!leak && !g->staged[STAGE_FREED])
		space_stage_clear(pool, g, STAGE_FREED, i, n);
	g->used -= gone;
	s->used -= gone;
}

/* One group's part of a change: whole or not at all. ckpt_lock held. */
static int group_change(struct vd_pool *pool, struct space_group *g, unsigned i, unsigned n, bool up)
{
	struct vd_space *s = pool->space;
	uint32_t max;
	int r;

	if (change_limit(g, i, n, up, &max) < i + n)
		return up ? -EOVERFLOW : -EUCLEAN;
	if (g->csize || n != g->exist) {
		r = group_widen(pool, g, max + up > 255 || (g->csize == 0 && g->uniform > 255) ? 4 : 1);
		if (r)
			return r;
	}
	vd_spin_lock(&s->lock);
	if (up && change_late(g, i, n)) {
		vd_spin_unlock(&s->lock);
		return -EUCLEAN;
	}
	if (up)
		change_up(pool, g, i, n);
	else
		change_down(pool, g, i, n);
	vd_spin_unlock(&s->lock);
	group_touch(s, g);
	return 0;
}

static int change(struct vd_pool *pool, vd_pblk_t p, uint64_t len, bool up, bool system)
{
	struct space_group *g;
	int r;

	if (!space_valid(pool->space, pool, p, len, system))
		return -EUCLEAN;
	while (len) {
		unsigned i = space_in(p);
		unsigned n = (unsigned)vd_min(len, (uint64_t)(VD_GROUP_BLOCKS - i));

		r = space_load(pool, space_nr(p), true, &g);
		if (!r)
			r = group_change(pool, g, i, n, up);
		if (r)
			return r;
		p += n;
		len -= n;
	}
	return 0;
}

int vd_space_inc(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	return change(pool, p, len, true, false);
}

int vd_space_dec(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	return change(pool, p, len, false, false);
}

int vd_space_run(struct vd_pool *pool, vd_pblk_t p, uint64_t len, uint32_t *count, uint64_t *run)
{
	struct space_group *g;
	unsigned i = space_in(p), j, end;
	int r;

	if (!space_valid(pool->space, pool, p, 1, true) || !len)
		return -EUCLEAN;
	r = space_load(pool, space_nr(p), true, &g);
	if (r)
		return r;
	end = len < g->exist - i ? i + (unsigned)len : g->exist;
	j = g->csize ? i + 1 : end;
	while (j < end && space_count_at(g, j) == space_count_at(g, i))
		j++;
	*count = space_count_at(g, i);
	*run = j - i;
	return 0;
}

int vd_space_count(struct vd_pool *pool, vd_pblk_t p, uint32_t *count)
{
	uint64_t run;

	return vd_space_run(pool, p, 1, count, &run);
}

int vd_space_drop_node(struct vd_pool *pool, const struct vd_ptr *ptr, uint32_t *left)
{
	uint32_t count;
	int r;

	r = vd_space_dec(pool, ptr->a, 1);
	if (!r)
		r = vd_space_count(pool, ptr->a, &count);
	if (r)
		return r;
	if (!count) {
		if (ptr->b != VD_PBLK_NONE) {
			r = vd_space_dec(pool, ptr->b, 1);
			if (r)
				return r;
		}
		vd_atomic_add(&pool->space->meta, ptr->b == VD_PBLK_NONE ? -1 : -2);
		vd_node_forget(pool, ptr);
	}
	*left = count;
	return 0;
}

/* ---- life -------------------------------------------------------------------- */

/* Where the journal is; changes, if at all, when a member is added. */
static void journal_place(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	for (unsigned c = 0; c < VD_JOURNAL_COPIES; c++) {
		unsigned m = pool->super ? le32_to_cpu(pool->super->journal_member[c]) : ~0u;

		if (s->jmember[c] != m)
			s->jmember[c] = m;
	}
	if (pool->super && s->jblocks != le64_to_cpu(pool->super->journal_blocks)) {
		s->jstart = le64_to_cpu(pool->super->journal_start);
		s->jblocks = le64_to_cpu(pool->super->journal_blocks);
	}
}

int vd_space_init(struct vd_pool *pool)
{
	struct vd_space *s = vd_zalloc(pool, sizeof(*s));
	int r = 0;

	if (!s)
		return -ENOMEM;
	pool->space = s;
	vd_mutex_init(&s->load_lock);
	vd_spin_init(&s->lock);
	s->found = true;
	s->unreadable = ~0ull;
	vd_list_init(&s->clock);
	vd_list_init(&s->dirty);
	vd_list_init(&s->changed);
	for (unsigned st = 0; st < STAGES; st++)
		vd_list_init(&s->stage[st]);
	s->max_groups = SPACE_GROUPS_MAX;
	s->root = pool->space_root;
	journal_place(pool);
	while (!r && s->nmembers < pool->nmembers)
		r = space_member_add(pool, s);
	if (!r && pool->super) {
		s->used = le64_to_cpu(pool->super->used_blocks);
		vd_atomic_set(&s->meta, (int64_t)le64_to_cpu(pool->super->meta_blocks));
		vd_atomic_set(&s->promised, (int64_t)le64_to_cpu(pool->super->promised_blocks));
		if (s->used > s->total)
			r = -EUCLEAN;
		space_add(&s->free, -(int64_t)s->used);
	}
	if (r)
		vd_space_fini(pool);
	return r;
}

void vd_space_fini(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	if (!s)
		return;
	for (unsigned b = 0; b < SPACE_HASH; b++)
		while (s->hash[b]) {
			struct space_group *g = s->hash[b];

			s->hash[b] = g->next;
			group_free(pool, g);
		}
	space_stage_fini(pool);
	for (unsigned m = 0; m < s->nmembers; m++)
		vd_free(pool, s->member[m]);
	vd_spin_fini(&s->lock);
	vd_mutex_fini(&s->load_lock);
	vd_free(pool, s);
	pool->space = NULL;
}

int vd_space_format(struct vd_pool *pool, unsigned member)
{
	struct vd_space *s = pool->space;
	int r = 0;

	while (!r && s->nmembers <= member) {
		vd_spin_lock(&s->lock);
		space_add(&s->joining, (int64_t)pool->member[s->nmembers].blocks);
		vd_spin_unlock(&s->lock);
		r = space_member_add(pool, s);
	}
	if (r)
		return r;
	vd_spin_lock(&s->lock);
	journal_place(pool);
	vd_spin_unlock(&s->lock);
	r = change(pool, VD_PBLK(member, 0), VD_SYSTEM_BLOCKS, true, true);
	vd_atomic_add(&s->meta, VD_SYSTEM_BLOCKS);
	for (unsigned c = 0; c < VD_JOURNAL_COPIES && !r; c++)
		if (s->jmember[c] == member) {
			r = change(pool, VD_PBLK(member, s->jstart), s->jblocks, true, true);
			vd_atomic_add(&s->meta, (int64_t)s->jblocks);
		}
	return r;
}

void vd_space_joined(struct vd_pool *pool, unsigned member)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	space_add(&s->joining, -(int64_t)pool->member[member].blocks);
	vd_spin_unlock(&s->lock);
}

int vd_space_stretch(struct vd_pool *pool, unsigned member, uint64_t blocks)
{
	struct vd_space *s = pool->space;
	uint64_t before = pool->member[member].blocks;
	struct space_group *g;
	int r;

	if (before % VD_GROUP_BLOCKS == 0)
		return 0;
	r = space_load(pool, space_nr(VD_PBLK(member, before)), true, &g);
	if (!r && g->uniform && !g->csize) /* the new blocks have not that count */
		r = group_widen(pool, g, g->uniform > 255 ? 4 : 1);
	if (r)
		return r;
	vd_spin_lock(&s->lock);
	g->exist = (unsigned)vd_min(blocks - VD_PBLK_BLOCK(space_first(g)), (uint64_t)VD_GROUP_BLOCKS);
	vd_spin_unlock(&s->lock);
	group_touch(s, g); /* its page says how many blocks are free, and with `exist` changed means others */
	return 0;
}

void vd_space_grown(struct vd_pool *pool, unsigned member, uint64_t before)
{
	struct vd_space *s = pool->space;
	uint64_t added = pool->member[member].blocks - before;
	struct space_member *m = s->member[member];
	struct space_group *g;
	unsigned i = space_in(before);

	vd_mutex_lock(&s->load_lock);
	vd_spin_lock(&s->lock);
	s->total += added;
	if (i) { /* in memory still, being busier than its counts */
		g = space_find(s, space_nr(VD_PBLK(member, before)));
		added -= space_busy_clear(s, g, i, g->exist - i);
	}
	space_add(&s->free, (int64_t)added);
	m->groups = (pool->member[member].blocks + VD_GROUP_BLOCKS - 1) >> VD_GROUP_SHIFT;
	m->dry = false;
	m->evicted++; /* a lap under way has not seen them */
	vd_spin_unlock(&s->lock);
	vd_mutex_unlock(&s->load_lock);
}

uint64_t vd_space_free(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	int64_t n;

	vd_spin_lock(&s->lock);
	n = s->free - s->joining;
	vd_spin_unlock(&s->lock);
	return n > 0 ? (uint64_t)n : 0;
}

void vd_space_promise(struct vd_pool *pool, int64_t change)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	vd_atomic_add(&s->promised, change);
	vd_spin_unlock(&s->lock);
}

uint64_t vd_space_promised(struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->space->promised);
}

/* s->lock */
static int64_t promisable(const struct vd_pool *pool, uint64_t kept)
{
	const struct vd_space *s = pool->space;

	return s->free - s->joining - (int64_t)(pool->reserve_blocks + vd_change_part(pool) + kept) -
	       vd_atomic_read(&s->promised) - vd_atomic_read(&s->held);
}

int64_t vd_space_promisable(struct vd_pool *pool, uint64_t kept)
{
	int64_t room;

	vd_spin_lock(&pool->space->lock);
	room = promisable(pool, kept);
	vd_spin_unlock(&pool->space->lock);
	return room;
}

int vd_space_hold(struct vd_pool *pool, uint64_t n, uint64_t kept)
{
	struct vd_space *s = pool->space;
	int64_t room;

	vd_spin_lock(&s->lock);
	room = promisable(pool, kept);
	if (room >= (int64_t)n)
		vd_atomic_add(&s->held, (int64_t)n);
	vd_spin_unlock(&s->lock);
	return room >= (int64_t)n ? 0 : -ENOSPC;
}

void vd_space_unhold(struct vd_pool *pool, uint64_t n)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	vd_atomic_add(&s->held, -(int64_t)n);
	vd_spin_unlock(&s->lock);
}

uint64_t vd_space_meta(struct vd_pool *pool)
{
	return (uint64_t)vd_max(vd_atomic_read(&pool->space->meta), (int64_t)0);
}

uint64_t vd_space_used(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	uint64_t n;

	vd_spin_lock(&s->lock);
	n = s->used;
	vd_spin_unlock(&s->lock);
	return n;
}
