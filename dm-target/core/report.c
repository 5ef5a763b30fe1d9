// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Reports that read metadata only: differences, usage, dump.
 */
#include "record.h"

/* ---- difference ----------------------------------------------------------- */

static int open_pair(struct vd_pool *pool, uint32_t a, uint32_t b, struct vd_volume **va, struct vd_volume **vb)
{
	bool related;
	int r = vd_volume_open(pool, a, va);

	if (r)
		return r;
	r = vd_volume_open(pool, b, vb);
	if (!r) {
		vd_mutex_lock(&pool->volumes->lock); /* records are replaced */
		related = (*va)->rec->d.family == (*vb)->rec->d.family;
		vd_mutex_unlock(&pool->volumes->lock);
		if (!related) {
			vd_volume_close(*vb);
			r = -EXDEV;
		}
	}
	if (r)
		vd_volume_close(*va);
	return r;
}

/* How far from v the two share their trees with no overlay above: 0 if not at all. */
static int shared_run(struct vd_pool *pool, struct vd_volume *a, struct vd_volume *b, vd_vblk_t v, uint64_t *len)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_root ra, rb;
	uint64_t la, lb;
	uint16_t token = vd_gate_enter(&vs->gate);
	int r = 0;

	*len = 0;
	if (vd_map_gap(a, v, &la, &ra) && vd_map_gap(b, v, &lb, &rb)) {
		r = vd_tree_common(pool, &ra, &rb, v, len);
		*len = vd_min(*len, vd_min(la, lb));
	}
	vd_gate_exit(&vs->gate, token);
	return r;
}

static bool same(const struct vd_ext *x, const struct vd_ext *y)
{
	return x->kind == y->kind && (x->kind != VD_DATA || x->p == y->p);
}

struct joined { uint64_t v, len; vd_range_fn fn; void *arg; };

static int range_flush(struct joined *g)
{
	uint64_t len = g->len;

	g->len = 0;
	return len ? g->fn(g->arg, g->v << VD_BLOCK_SHIFT, len << VD_BLOCK_SHIFT) : 0;
}

static int range_add(struct joined *g, uint64_t v, uint64_t len)
{
	int r = 0;

	if (g->len && g->v + g->len != v)
		r = range_flush(g);
	if (!g->len)
		g->v = v;
	g->len += len;
	return r;
}

static int compare(struct vd_pool *pool, struct vd_volume *a, struct vd_volume *b, struct joined *g)
{
	uint64_t end = vd_max(vd_volume_size(a), vd_volume_size(b)) >> VD_BLOCK_SHIFT, v = 0, n;
	struct vd_ext x, y;
	int r;

	while (v < end) {
		r = shared_run(pool, a, b, v, &n);
		if (r)
			return r;
		if (!n) {
			r = vd_map_find_wait(a, v, &x);
			if (!r)
				r = vd_map_find_wait(b, v, &y);
			if (r)
				return r;
			n = vd_min(vd_min(x.len, y.len), end - v);
			if (!same(&x, &y))
				r = range_add(g, v, n);
			if (r)
				return r;
		}
		v += n;
	}
	return range_flush(g);
}

int vd_diff(struct vd_pool *pool, uint32_t a, uint32_t b, vd_range_fn fn, void *arg)
{
	struct joined g = { .fn = fn, .arg = arg };
	struct vd_volume *va, *vb;
	int r = open_pair(pool, a, b, &va, &vb);

	if (r)
		return r;
	/* Overlays are compared as well; folding them lets more be skipped. */
	if (vd_pool_writable(pool))
		r = vd_checkpoint(pool);
	if (!r)
		r = compare(pool, va, vb, &g);
	vd_volume_close(vb);
	vd_volume_close(va);
	return r;
}

/* ---- usage ----------------------------------------------------------------- */

struct usage {
	struct vd_pool *pool;
	struct vd_usage u;
	bool shared[VD_TREE_LEVELS_MAX + 2]; /* by level: this node or one above has more than one reference */
	uint64_t blocks;
	int (*progress)(void *arg, unsigned permille);
	void *arg;
	unsigned told;
};

/* Per mille of n in all, without dividing 64 bits by a variable. */
unsigned vd_permille(uint64_t n, uint64_t all)
{
	while (all > UINT32_MAX / 1000) {
		all >>= 1;
		n >>= 1;
	}
	return all ? (unsigned)((uint32_t)vd_min(n, all) * 1000u / (uint32_t)all) : 1000;
}

static int tell(struct usage *w, uint64_t v)
{
	unsigned now = vd_permille(v, w->blocks);

	if (!w->progress || now == w->told)
		return 0;
	w->told = now;
	return w->progress(w->arg, now) ? -EINTR : 0;
}

static int usage_extent(struct usage *w, const struct vd_ext *e, bool shared)
{
	uint64_t done = 0, run;
	uint32_t count;
	int r;

	w->u.mapped += e->len;
	if (shared) {
		w->u.shared += e->len;
		return 0;
	}
	for (; done < e->len; done += run) {
		r = vd_space_run(w->pool, e->p + done, e->len - done, &count, &run);
		if (r)
			return r;
		*(count > 1 ? &w->u.shared : &w->u.exclusive) += run;
	}
	return 0;
}

static int usage_visit(void *arg, const struct vd_visit *v)
{
	struct usage *w = arg;
	struct vd_ext e;
	uint32_t count;
	unsigned i;
	int r;

	if (v->err)
		return v->err;
	r = vd_space_count(w->pool, v->ptr.a, &count);
	if (!r)
		r = tell(w, v->lo);
	if (r)
		return r;
	w->shared[v->level] = count > 1 || w->shared[v->level + 1];
	w->u.meta++;
	if (v->level)
		return 0;
	for (i = 0; i < le16_to_cpu(vd_node_head(v->n)->count) && !r; i++) {
		r = vd_extents_get(v->n->data, i, &e);
		if (!r && e.kind == VD_DATA)
			r = usage_extent(w, &e, w->shared[0]);
	}
	return r;
}

int vd_volume_usage(struct vd_pool *pool, uint32_t id, struct vd_usage *out, int (*progress)(void *arg, unsigned permille), void *arg)
{
	struct usage *w = vd_zalloc(pool, sizeof(*w));
	struct vd_volume *vol;
	int r = w ? vd_volume_open(pool, id, &vol) : -ENOMEM;

	if (r) {
		vd_free(pool, w);
		return r;
	}
	w->pool = pool;
	w->progress = progress;
	w->arg = arg;
	w->told = ~0u;
	w->blocks = vd_volume_size(vol) >> VD_BLOCK_SHIFT;
	if (vd_pool_writable(pool))
		r = vd_checkpoint(pool);
	vd_mutex_lock(&pool->ckpt_lock); /* counts hold still */
	if (!r)
		r = vd_tree_walk(pool, &vol->disk_root, VD_NODE_EXTENTS, usage_visit, w);
	vd_mutex_unlock(&pool->ckpt_lock);
	if (!r)
		*out = w->u;
	vd_volume_close(vol);
	vd_free(pool, w);
	return r;
}

/* ---- dump ------------------------------------------------------------------ */

struct dump { struct vd_pool *pool; int (*fn)(void *arg, const struct vd_dump_item *item); void *arg; uint32_t volume; };

static int dump_lost(struct dump *d, const struct vd_ptr *ptr, unsigned level, uint64_t lo, uint64_t hi)
{
	const struct vd_dump_item item = {
		.volume = d->volume, .level = level, .a = ptr->a, .b = ptr->b, .gen = ptr->gen, .lo = lo, .hi = hi,
	};

	return d->fn(d->arg, &item);
}

static int dump_visit(void *arg, const struct vd_visit *v)
{
	struct dump *d = arg;
	struct vd_dump_item item = { .volume = d->volume, .level = v->level };

	if (v->err)
		return dump_lost(d, &v->ptr, v->level, v->lo, v->hi);
	if (!v->n)
		return 0;
	item.node = v->n->data;
	return d->fn(d->arg, &item);
}

/* The mapping of the volume whose record that is. */
static int dump_volume(struct dump *d, const struct vd_slot *record)
{
	struct vd_pool *pool = d->pool;
	struct vd_root root;
	struct vd_node *n;
	int r;

	if (vd_node_get(pool, &record->ptr, VD_NODE_VOLUME, 0, 0, &n))
		return 0; /* told as a node of the list */
	r = vd_record_verify((const struct vd_disk_volume *)n->data, (uint32_t)record->key);
	vd_root_get(&root, &((const struct vd_disk_volume *)n->data)->root);
	vd_node_put(pool, n);
	if (r)
		return dump_lost(d, &record->ptr, 0, record->key, record->key + 1);
	d->volume = (uint32_t)record->key;
	r = vd_tree_walk(pool, &root, VD_NODE_EXTENTS, dump_visit, d);
	d->volume = 0;
	return r;
}

int vd_dump(struct vd_pool *pool, int (*fn)(void *arg, const struct vd_dump_item *item), void *arg)
{
	struct dump d = { pool, fn, arg, 0 };
	struct vd_slot slot;
	uint64_t id = 0;
	int r;

	vd_mutex_lock(&pool->ckpt_lock);
	r = vd_tree_walk(pool, &pool->space_root, VD_NODE_SPACE, dump_visit, &d);
	if (!r)
		r = vd_tree_walk(pool, &pool->volumes_root, VD_NODE_VOLUME, dump_visit, &d);
	if (!r)
		r = vd_tree_walk(pool, &pool->volumes->index.disk_root, VD_NODE_EXTENTS, dump_visit, &d);
	while (!r && id <= UINT32_MAX) {
		r = vd_ptree_next(pool, &pool->volumes_root, id, false, 0, &slot);
		if (!r) {
			r = dump_volume(&d, &slot);
			id = slot.key + 1;
		} else if (vd_is_unreadable(r)) { /* told, as a node of the list */
			r = 0;
			id = slot.key;
		}
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	return r == -ENODATA ? 0 : r;
}
