// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Checking: counts every reference from the roots down and compares with what
 * the space tree has recorded.
 *
 * A node is entered once, however many volumes share it; each further reference
 * is only counted.  Where nodes are unreadable, a second pass goes through every
 * volume in full and tells which ranges of which volumes are lost.  Where members
 * are missing or too short, a third tells what of each volume was on them: by look-up,
 * as what is still in the journal counts too.  Nothing read here is believed further
 * than vd_node_get() and record_verify() do.
 */
#include "record.h"

struct tally { /* found references of one group */
	struct vd_list hash;
	uint64_t group;
	uint32_t n[VD_GROUP_BLOCKS];
};

#define TALLY_BUCKETS 4096u

#define AWAY_TOLD 64u /* ranges of a volume; of others the sum */
struct away { /* of one volume, on members that are missing */
	struct vd_volume *vol;
	vd_vblk_t end;
	vd_vblk_t at;      /* what comes next to be told: len blocks on member m */
	uint64_t len;
	unsigned m, told;
	vd_vblk_t rest_at; /* first of those that are not told one by one */
	uint64_t rest;
};

struct check {
	struct vd_pool *pool;
	vd_check_fn fn;
	void *arg;
	int (*progress)(void *arg, unsigned permille);
	uint64_t faults, nodes_bad;
	uint64_t nodes, nodes_expected;
	uint64_t promised; /* by the records so far (R2) */
	bool records_bad;
	uint32_t volume;
	bool counted;      /* first pass: count and enter once; second: tell lost ranges */
	bool repair, gave_back;
	uint64_t mended;   /* of the faults */
	uint64_t used;     /* blocks with a count */
	bool noref;        /* the tree's extents are no blocks */
	unsigned height;   /* quick: of the tree */
	uint8_t *copy;     /* a block, for comparing copies */
	struct away away;
	struct vd_list tally[TALLY_BUCKETS];
};

static int report(struct check *c, enum vd_fault fault, uint64_t a, uint64_t b)
{
	struct vd_check_report rep = { fault, c->volume, a, b, ~0u };

	c->faults++;
	return c->fn ? c->fn(c->arg, &rep) : 0;
}

/* Is what was at p away?  *len is cut to as many blocks as that is true, or not, of. */
static bool is_away(const struct vd_pool *pool, vd_pblk_t p, uint64_t *len)
{
	const struct vd_member *m = &pool->member[VD_PBLK_MEMBER(p)];
	uint64_t at = VD_PBLK_BLOCK(p);

	if (m->missing)
		return true;
	if (!m->is_short || (at < m->has && *len <= m->has - at))
		return false;
	if (at < m->has)
		*len = m->has - at;
	return at >= m->has;
}

/* ---- tally ------------------------------------------------------------------ */

static struct tally *tally_find(struct check *c, uint64_t group, bool make)
{
	struct vd_list *head = &c->tally[(group ^ group >> 27) % TALLY_BUCKETS], *pos;
	struct tally *t;

	vd_list_for_each(pos, head) {
		t = vd_container(pos, struct tally, hash);
		if (t->group == group)
			return t;
	}
	t = make ? vd_zalloc(c->pool, sizeof(*t)) : NULL;
	if (t) {
		t->group = group;
		vd_list_add_tail(head, &t->hash);
	}
	return t;
}

/* *first: nobody had referred to p before. */
static int count(struct check *c, vd_pblk_t p, uint64_t len, bool *first)
{
	struct tally *t = NULL;
	uint64_t i;

	for (i = 0; i < len; i++, p++) {
		if (!t || t->group != p >> VD_GROUP_SHIFT)
			t = tally_find(c, p >> VD_GROUP_SHIFT, true);
		if (!t)
			return -ENOMEM;
		if (first)
			*first = !t->n[p % VD_GROUP_BLOCKS];
		t->n[p % VD_GROUP_BLOCKS]++;
	}
	return 0;
}

static void tally_free(struct check *c)
{
	unsigned i;

	for (i = 0; i < TALLY_BUCKETS; i++)
		while (!vd_list_empty(&c->tally[i])) {
			struct tally *t = vd_container(c->tally[i].next, struct tally, hash);

			vd_list_del(&t->hash);
			vd_free(c->pool, t);
		}
}

/* ---- nodes -------------------------------------------------------------------- */

/* vd_node_get() was content with one copy; both are looked at here. */
static int compare_copies(struct check *c, const struct vd_visit *v)
{
	struct vd_pool *pool = c->pool;
	vd_pblk_t at[2] = { v->ptr.a, v->ptr.b };
	uint64_t one = 1;
	unsigned i;
	int r;

	for (i = 0; i < 2; i++) {
		if (at[i] == VD_PBLK_NONE || is_away(pool, at[i], &one))
			continue;
		r = pool->host.read(pool->host.ctx, VD_PBLK_MEMBER(at[i]), VD_PBLK_BLOCK(at[i]), c->copy, 1);
		if (!r && !memcmp(c->copy, v->n->data, VD_BLOCK))
			continue;
		r = report(c, VD_FAULT_COPY, at[i], 0);
		if (!r && vd_pool_writable(pool)) {
			r = pool->host.write(pool->host.ctx, VD_PBLK_MEMBER(at[i]), VD_PBLK_BLOCK(at[i]), v->n->data, 1);
			c->mended++;
		}
		if (r)
			return r;
	}
	return 0;
}

static int check_extents(struct check *c, const struct vd_visit *v)
{
	unsigned i, n = le16_to_cpu(vd_node_head(v->n)->count);
	struct vd_ext e;
	int r = 0;

	for (i = 0; i < n && !r; i++) {
		r = vd_extents_get(v->n->data, i, &e);
		if (!r && (e.v < v->lo || e.len > v->hi - e.v))
			r = -EUCLEAN;
		if (r == -EUCLEAN)
			return report(c, VD_FAULT_ORDER, v->ptr.a, i);
		if (r || e.kind != VD_DATA || c->noref)
			continue;
		if (!vd_pblk_valid(c->pool, e.p, e.len))
			return report(c, VD_FAULT_ORDER, v->ptr.a, i);
		r = count(c, e.p, e.len, NULL);
	}
	return r;
}

static int lost(struct check *c, const struct vd_visit *v)
{
	uint64_t hi = vd_min(v->hi, VD_VBLK_END);
	int r;

	if (c->counted || !c->volume) {
		c->nodes_bad++;
		r = report(c, VD_FAULT_NODE, v->ptr.a, (uint64_t)-v->err);
	} else {
		r = report(c, VD_FAULT_RANGE, v->lo << VD_BLOCK_SHIFT, (hi - vd_min(v->lo, hi)) << VD_BLOCK_SHIFT);
	}
	return r ? r : 1;
}

static int tell(struct check *c)
{
	return c->progress && !(c->nodes++ & 255) && c->progress(c->arg, vd_permille(c->nodes, c->nodes_expected)) ? -EINTR : 0;
}

static int visit(void *arg, const struct vd_visit *v)
{
	struct check *c = arg;
	bool first = true, ignored;
	int r = tell(c);

	if (r || (!v->n && !v->err))
		return r;
	if (c->counted && vd_pblk_valid(c->pool, v->ptr.a, 1)) {
		r = count(c, v->ptr.a, 1, &first);
		if (!r && first && v->ptr.b != VD_PBLK_NONE && vd_pblk_valid(c->pool, v->ptr.b, 1))
			r = count(c, v->ptr.b, 1, &ignored);
		if (r)
			return r;
		if (!first)
			return 1;
	}
	if (v->err)
		return lost(c, v);
	if (!c->counted)
		return 0;
	r = compare_copies(c, v);
	if (!r && v->n->kind == VD_NODE_EXTENTS)
		r = check_extents(c, v);
	return r;
}

static int walk(struct check *c, const struct vd_root *root, enum vd_node_kind kind, uint32_t volume, bool noref)
{
	c->volume = volume;
	c->noref = noref;
	return root->ptr.gen ? vd_tree_walk(c->pool, root, kind, visit, c) : 0;
}

/* ---- volumes -------------------------------------------------------------------- */

/* While counting: what is below it is not counted, and so nothing is given back. */
static void passed_over(struct check *c)
{
	c->nodes_bad += c->counted;
	c->records_bad |= c->counted;
}

/* Volumes with these ids cannot be found.  In a full check that is for the second pass to tell. */
static int lost_volumes(struct check *c, uint64_t lo, uint64_t hi)
{
	lo = vd_max(lo, (uint64_t)1);
	hi = vd_min(hi, le64_to_cpu(c->pool->super->next_volume));
	c->volume = 0;
	passed_over(c);
	return c->counted || lo >= hi ? 0 : report(c, VD_FAULT_VOLUMES, lo, hi - lo);
}

/* Calls fn with each record that can be read, and its mapping's root. */
static int each_volume(struct check *c, int (*fn)(struct check *c, const struct vd_disk_volume *d, const struct vd_root *root))
{
	struct vd_pool *pool = c->pool;
	struct vd_slot slot;
	struct vd_node *n;
	struct vd_root root;
	uint64_t id;
	int r;

	for (id = 0;; id = slot.key + 1) {
		r = vd_ptree_next(pool, &pool->volumes_root, id, false, 0, &slot);
		if (vd_is_unreadable(r)) {
			r = lost_volumes(c, id, slot.key);
			if (r || slot.key > UINT32_MAX)
				return r;
			slot.key--;
			continue;
		}
		if (r)
			return r == -ENODATA ? 0 : r;
		c->volume = (uint32_t)slot.key;
		r = vd_node_get(pool, &slot.ptr, VD_NODE_VOLUME, 0, 0, &n);
		if (r == -ENOMEM)
			return r;
		if (r) {
			passed_over(c);
			r = c->counted ? 0 : report(c, VD_FAULT_RECORD, c->volume, 0);
			if (r)
				return r;
			continue;
		}
		vd_root_get(&root, &((const struct vd_disk_volume *)n->data)->root);
		r = fn(c, n->data, &root);
		vd_node_put(pool, n);
		if (r)
			return r;
	}
}

static int check_record(struct check *c, const struct vd_disk_volume *d, const struct vd_root *root)
{
	struct vd_volume *vol;
	uint32_t id, flags = le32_to_cpu(d->flags);
	uint64_t own;
	bool newer;
	int r;

	(void)root;
	if (vd_record_verify(d, c->volume)) {
		c->records_bad = true;
		return report(c, VD_FAULT_RECORD, c->volume, 0);
	}
	own = le64_to_cpu(d->mapped);
	if (d->last_snapshot)
		own = vd_min(own, le64_to_cpu(d->own_blocks));
	c->promised += vd_reserve_promise(le64_to_cpu(d->reserved_blocks), own, le64_to_cpu(d->mapped));
	if (flags & (VD_VOL_DELETING | VD_VOL_PENDING))
		return 0;
	r = vd_record_find(c->pool, d->name, flags & VD_VOL_SERVER, &id);
	if ((r && r != -ENOENT) || (!r && id == c->volume))
		return vd_is_unreadable(r) ? 0 : r; /* of the index, which was told */
	/* The record in memory may be newer: renamed or deleted since.  Looked at afterwards, or
	 * that would be possible in between. */
	vd_mutex_lock(&c->pool->volumes->lock);
	vol = vd_volume_in_memory(c->pool->volumes, c->volume);
	newer = vol && memcmp(vol->rec->d.name, d->name, sizeof(d->name));
	vd_mutex_unlock(&c->pool->volumes->lock);
	return newer ? 0 : report(c, VD_FAULT_NAME, c->volume, 0);
}

static int walk_mapping(struct check *c, const struct vd_disk_volume *d, const struct vd_root *root)
{
	uint64_t bad = c->nodes_bad, mapped;
	int r = vd_record_verify(d, c->volume);

	if (r)
		return 0;
	r = walk(c, root, VD_NODE_EXTENTS, c->volume, false);
	if (r || !c->counted || c->nodes_bad > bad)
		return r;
	r = vd_tree_mapped(c->pool, root, 0, VD_VBLK_END, &mapped);
	if (r) /* lost in a subtree that was gone through for another volume */
		return vd_is_damage(r) ? 0 : r;
	return mapped == le64_to_cpu(d->mapped) || le32_to_cpu(d->flags) & VD_VOL_DELETING ? 0 :
	       report(c, VD_FAULT_MAPPED, le64_to_cpu(d->mapped), mapped);
}

static int check_root(struct check *c, const struct vd_disk_volume *d, const struct vd_root *root)
{
	struct vd_visit v = { .ptr = root->ptr, .hi = VD_VBLK_END };
	enum vd_node_kind kind = root->height ? VD_NODE_INDEX : VD_NODE_EXTENTS;
	int r = check_record(c, d, root);

	if (r || !root->ptr.gen)
		return r;
	v.err = vd_node_get(c->pool, &root->ptr, kind, root->height, 0, &v.n);
	if (v.err) {
		r = lost(c, &v);
		return r < 0 ? r : 0;
	}
	vd_node_put(c->pool, v.n);
	return 0;
}

/* ---- what is on missing members ---------------------------------------------------- */

static int away_tell(struct check *c)
{
	struct away *w = &c->away;
	struct vd_check_report rep = { VD_FAULT_RANGE, c->volume, w->at << VD_BLOCK_SHIFT, w->len << VD_BLOCK_SHIFT, w->m };

	if (!w->len)
		return 0;
	if (w->told < AWAY_TOLD) {
		w->told++;
		c->faults++;
	} else {
		w->rest_at = w->rest ? w->rest_at : w->at;
		w->rest += w->len;
	}
	w->len = 0;
	return c->fn && !w->rest ? c->fn(c->arg, &rep) : 0;
}

static int away_extent(struct check *c, vd_vblk_t v, vd_pblk_t p, uint64_t len)
{
	struct away *w = &c->away;
	int r = 0;

	if (!w->len || w->m != VD_PBLK_MEMBER(p) || w->at + w->len != v) {
		r = away_tell(c);
		w->at = v;
		w->m = VD_PBLK_MEMBER(p);
	}
	w->len += len;
	return r;
}

static int away_range(struct check *c, vd_vblk_t v, vd_vblk_t end)
{
	struct vd_ext e;
	uint64_t len;
	int r = 0;

	for (; v < end && !r; v += len) {
		r = vd_map_find_wait(c->away.vol, v, &e);
		if (r) /* lost, which was told */
			return r == -ENOMEM ? r : 0;
		len = vd_min(e.len, end - v);
		if (e.kind == VD_DATA && is_away(c->pool, e.p, &len))
			r = away_extent(c, v, e.p, len);
	}
	return r;
}

static int away_visit(void *arg, const struct vd_visit *v)
{
	struct check *c = arg;
	int r = tell(c);

	if (r || v->err || v->lo >= c->away.end)
		return r ? r : 1;
	return v->level ? 0 : away_range(c, v->lo, vd_min(v->hi, c->away.end));
}

static int away_volume(struct check *c)
{
	struct away *w = &c->away;
	struct vd_root root;
	int r;

	w->end = (vd_volume_size(w->vol) + VD_BLOCK - 1) >> VD_BLOCK_SHIFT;
	vd_map_root(w->vol, &root);
	/* By leaves, so that a lost one costs the look at its own range only. */
	r = root.ptr.gen ? vd_tree_walk(c->pool, &root, VD_NODE_EXTENTS, away_visit, c) : away_range(c, 0, w->end);
	if (!r)
		r = away_tell(c);
	return r || !w->rest ? r : report(c, VD_FAULT_MORE, w->rest_at << VD_BLOCK_SHIFT, w->rest << VD_BLOCK_SHIFT);
}

static int check_away(struct check *c)
{
	uint32_t id = 0;
	bool away = false;
	unsigned m;
	int r = 0;

	/* Where it is written there is one at most that is joining, and trees that change. */
	for (m = 0; m < c->pool->nmembers && !vd_pool_writable(c->pool); m++)
		away |= c->pool->member[m].missing || c->pool->member[m].is_short;
	while (away && !r) {
		r = vd_volume_next(c->pool, &id, NULL);
		if (r)
			return r == -ENOENT ? 0 : r;
		memset(&c->away, 0, sizeof(c->away));
		c->volume = id;
		if (!vd_volume_open(c->pool, id, &c->away.vol)) { /* else its record is lost, which was told */
			r = away_volume(c);
			vd_volume_close(c->away.vol);
		}
		if (!++id)
			break;
	}
	return r;
}

/* ---- comparing with what is recorded ----------------------------------------------- */

static int report_leak(struct check *c, vd_pblk_t end, uint64_t *len)
{
	uint64_t n = *len;

	*len = 0;
	c->mended += n && c->repair;
	return n ? report(c, VD_FAULT_LEAK, end - n, n) : 0;
}

/* Every node was read: what is counted beyond what was found, nobody has. */
static int give_back(struct check *c, vd_pblk_t p, uint32_t recorded, uint32_t found)
{
	int r = 0;

	for (; c->repair && !r && recorded > found; recorded--) {
		r = vd_space_dec(c->pool, p, 1);
		c->gave_back = true;
	}
	return r;
}

static int compare_group(struct check *c, uint64_t group)
{
	struct vd_pool *pool = c->pool;
	const struct tally *t = tally_find(c, group, false);
	vd_pblk_t p = group << VD_GROUP_SHIFT;
	unsigned m = VD_PBLK_MEMBER(p);
	uint64_t end, i, run, leak = 0;
	uint32_t recorded, found;
	int r = 0;

	if (m >= pool->nmembers)
		return 0;
	end = vd_min((uint64_t)VD_GROUP_BLOCKS, pool->member[m].blocks - VD_PBLK_BLOCK(p));
	for (i = 0; i < end && !r;) {
		r = vd_space_run(pool, p + i, end - i, &recorded, &run);
		if (r == -EBADMSG || r == -EUCLEAN)
			return 0; /* its page is lost, which the walk has told */
		if (r)
			return r;
		for (run += i; i < run && !r; i++) {
			found = t ? t->n[i] : 0;
			c->used += recorded > 0;
			r = give_back(c, p + i, recorded, found);
			if (recorded && !found) {
				leak++;
				continue;
			}
			if (!r)
				r = report_leak(c, p + i, &leak);
			c->mended += c->repair && found < recorded;
			if (!r && found != recorded)
				r = report(c, VD_FAULT_COUNT, p + i, (uint64_t)found << 32 | recorded);
		}
	}
	return r ? r : report_leak(c, p + i, &leak);
}

static int compare_counts(struct check *c)
{
	struct vd_slot slot;
	struct vd_list *pos;
	uint64_t key = 0, group;
	unsigned i;
	int r = 0;

	c->volume = 0;
	c->used = 0;
	for (i = 0; i < TALLY_BUCKETS && !r; i++)
		for (pos = c->tally[i].next; pos != &c->tally[i] && !r; pos = pos->next)
			r = compare_group(c, vd_container(pos, struct tally, hash)->group);
	while (!r) { /* recorded groups in which nothing was found */
		r = vd_ptree_next(c->pool, &c->pool->space_root, key, false, 0, &slot);
		if (r == -ENODATA && c->used != le64_to_cpu(c->pool->super->used_blocks))
			return report(c, VD_FAULT_USED, le64_to_cpu(c->pool->super->used_blocks), c->used);
		if (r)
			return r == -ENODATA || vd_is_damage(r) ? 0 : r;
		group = slot.key >> (VD_GROUP_SHIFT - VD_SPACE_KEY_SHIFT);
		key = (group + 1) << (VD_GROUP_SHIFT - VD_SPACE_KEY_SHIFT);
		if (!tally_find(c, group, false))
			r = compare_group(c, group);
	}
	return r;
}

/* The blocks no tree refers to: system blocks and the journal. */
static int count_fixed(struct check *c)
{
	const struct vd_disk_super *s = c->pool->super;
	unsigned m, i;
	int r = 0;

	for (m = 0; m < c->pool->nmembers && !r; m++)
		r = count(c, VD_PBLK(m, 0), VD_SYSTEM_BLOCKS, NULL);
	for (i = 0; i < VD_JOURNAL_COPIES && !r; i++) {
		m = le32_to_cpu(s->journal_member[i]);
		if (m != ~0u)
			r = count(c, VD_PBLK(m, le64_to_cpu(s->journal_start)), le64_to_cpu(s->journal_blocks), NULL);
	}
	return r;
}

static int check_members(struct check *c)
{
	unsigned m;
	int r = 0;

	for (m = 0; m < c->pool->nmembers && !r; m++)
		if (c->pool->member[m].missing || c->pool->member[m].is_short)
			r = report(c, VD_FAULT_MEMBER, m, c->pool->member[m].missing ? 0 : c->pool->member[m].has);
	return r;
}

/* Root and what is just below it; of the list of volumes each_volume() sees the rest. */
static int visit_top(void *arg, const struct vd_visit *v)
{
	struct check *c = arg;
	int r = visit(arg, v);

	return r || v->level == c->height ? r : 1;
}

static int walk_top(struct check *c, const struct vd_root *root, enum vd_node_kind kind)
{
	c->volume = 0;
	c->height = root->height;
	return root->ptr.gen ? vd_tree_walk(c->pool, root, kind, visit_top, c) : 0;
}

static int check_quick(struct check *c)
{
	struct vd_pool *pool = c->pool;
	int r = check_members(c);

	if (!r)
		r = walk_top(c, &pool->space_root, VD_NODE_SPACE);
	if (!r)
		r = walk_top(c, &pool->volumes_root, VD_NODE_VOLUME);
	if (!r)
		r = walk_top(c, &pool->volumes->index.disk_root, VD_NODE_EXTENTS);
	return r ? r : each_volume(c, check_root);
}

/* What is lost, without counting: the way to say it when a damaged pool is opened. */
static int check_lost(struct check *c)
{
	struct vd_pool *pool = c->pool;
	int r = walk(c, &pool->space_root, VD_NODE_SPACE, 0, false);

	if (!r)
		r = walk(c, &pool->volumes_root, VD_NODE_VOLUME, 0, false);
	if (!r)
		r = walk(c, &pool->volumes->index.disk_root, VD_NODE_EXTENTS, 0, true);
	return r ? r : each_volume(c, walk_mapping);
}

static int unmark(struct vd_pool *pool, struct vd_disk_super *super, void *arg)
{
	(void)pool, (void)arg;
	super->ro_compat &= ~cpu_to_le64(VD_FEATURE_DAMAGED);
	memset(&super->suspect, 0, sizeof(super->suspect));
	return 0;
}

/* All was read: the counts were made right, and if that was all the flag goes. */
static int check_repaired(struct check *c, bool whole)
{
	struct vd_pool *pool = c->pool;
	bool marked = whole && vd_atomic_read(&pool->damage);
	int r;

	if (!marked && !c->gave_back)
		return 0;
	if (marked)
		vd_atomic_set(&pool->damage, 0);
	r = vd_checkpoint_locked(pool, marked ? unmark : NULL, NULL);
	if (!r && marked)
		pool->rolled_back = false;
	return r;
}

static int check_full(struct check *c)
{
	struct vd_pool *pool = c->pool;
	const struct vd_root *index = &pool->volumes->index.disk_root;
	uint64_t before;
	int r;

	r = check_members(c);
	if (r)
		return r;
	c->counted = true;
	r = count_fixed(c);
	if (!r)
		r = walk(c, &pool->space_root, VD_NODE_SPACE, 0, false);
	if (!r)
		r = walk(c, &pool->volumes_root, VD_NODE_VOLUME, 0, false);
	if (!r)
		r = walk(c, index, VD_NODE_EXTENTS, 0, true);
	if (!r)
		r = each_volume(c, walk_mapping);
	before = c->nodes_bad;
	if (!r)
		r = each_volume(c, check_record);
	c->volume = 0;
	if (!r && !before && !c->records_bad && c->promised != le64_to_cpu(pool->super->promised_blocks))
		r = report(c, VD_FAULT_PROMISED, le64_to_cpu(pool->super->promised_blocks), c->promised);
	c->repair &= !before;
	/* With nodes lost the counts below them cannot be found again. */
	if (!r && !before)
		r = compare_counts(c);
	if (!r && c->repair)
		r = check_repaired(c, c->faults == c->mended);
	c->counted = false;
	if (!r && before)
		r = each_volume(c, walk_mapping);
	return r;
}

int vd_check(struct vd_pool *pool, unsigned flags, vd_check_fn fn, void *arg, int (*progress)(void *arg, unsigned permille), uint64_t *faults)
{
	struct check *c = vd_zalloc(pool, sizeof(*c));
	unsigned i;
	int r = 0;

	if (!c)
		return -ENOMEM;
	c->pool = pool;
	c->fn = fn;
	c->arg = arg;
	c->progress = progress;
	c->repair = flags & VD_CHECK_REPAIR && vd_pool_writable(pool);
	c->copy = vd_alloc(pool, VD_BLOCK);
	for (i = 0; i < TALLY_BUCKETS; i++)
		vd_list_init(&c->tally[i]);
	if (!c->copy)
		r = -ENOMEM;
	if (!r && vd_pool_writable(pool) && !(flags & VD_CHECK_LOST))
		r = vd_checkpoint(pool);
	vd_mutex_lock(&pool->ckpt_lock); /* trees and counts hold still */
	/* A guess for the bar: a page of mapping for a hundred blocks, a node for each. */
	c->nodes_expected = le64_to_cpu(pool->super->used_blocks) / 100 + 1;
	if (!r)
		r = flags & VD_CHECK_LOST ? check_lost(c) : flags & VD_CHECK_QUICK ? check_quick(c) : check_full(c);
	vd_mutex_unlock(&pool->ckpt_lock);
	if (!r && !(flags & (VD_CHECK_LOST | VD_CHECK_QUICK)))
		r = check_away(c); /* nothing changes: P2 */
	tally_free(c);
	vd_free(pool, c->copy);
	if (!r)
		*faults = c->faults;
	vd_free(pool, c);
	return r;
}
