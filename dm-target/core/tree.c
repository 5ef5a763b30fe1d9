/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Copy-on-write trees: index nodes, trees of pages by exact key, walks.
 * Pages of extents are in extents.c.
 *
 * Entry i of an index node covers the keys [key_i, key_i+1); the first one also
 * what lies below it down to the node's own low end, the last one what lies above
 * up to its high end.  The range in a node's head is what it was when the node was
 * written; it may have grown since (a neighbour went away), never shrunk.
 *
 * Invariants
 *   1. Range in a head is not empty and lies within the range its parent gives.
 *      Two entries cannot lead to one node, so a walk of a hostile tree ends.
 *   2. Levels fall by one from parent to child; pages are level 0.
 *   3. A node is changed only if it is of the running checkpoint and has one
 *      reference, and so have all nodes above it (vd_path_down).  Else it is
 *      copied: its children get a reference first when others keep the old one;
 *      otherwise they just move.
 *   4. Whenever a block is allocated or a count is changed, the tree under *root
 *      is whole: a copy is linked before the old node is dropped, and new nodes
 *      are in hand before a split begins.
 *   5. No node in the tree is empty, but for a page while it is being changed.
 *   6. Every changed node is marked dirty after the change, while it is held.
 */
#include "pool.h"

#define INDEX_LOW (VD_INDEX_FILL / 3)          /* fewer entries: look for a neighbour to merge with */
#define INDEX_FIT (VD_INDEX_FILL * 85 / 100)   /* merged nodes keep some room */
#define EXTENTS_LOW (VD_EXTENTS_FILL / 3)
#define EXTENTS_FIT (VD_EXTENTS_FILL * 85 / 100)

void vd_root_get(struct vd_root *to, const struct vd_disk_root *from)
{
	vd_ptr_get(&to->ptr, &from->ptr);
	to->height = from->height;
}

void vd_root_put(struct vd_disk_root *to, const struct vd_root *from)
{
	memset(to, 0, sizeof(*to));
	vd_ptr_put(&to->ptr, &from->ptr);
	to->height = from->height;
}

static uint64_t keys_end(enum vd_node_kind page_kind)
{
	return page_kind == VD_NODE_EXTENTS ? VD_VBLK_END : ~0ull;
}

/* In a tree of pages the keys just above the pages are theirs, not mere separators. */
static bool exact_keys(enum vd_node_kind page_kind, unsigned level)
{
	return page_kind != VD_NODE_EXTENTS && level == 1;
}

/* ---- nodes ------------------------------------------------------------ */

static void *body(const struct vd_node *n)
{
	return (uint8_t *)n->data + sizeof(struct vd_disk_node);
}

unsigned vd_index_count(const struct vd_node *n)
{
	return le16_to_cpu(((const struct vd_disk_node *)n->data)->count);
}

static void set_count(struct vd_node *n, unsigned count)
{
	vd_node_head(n)->count = cpu_to_le16((uint16_t)count);
}

struct vd_disk_ptr *vd_index_entry(const struct vd_node *n, unsigned i)
{
	return (struct vd_disk_ptr *)body(n) + i;
}

static uint64_t key_at(const struct vd_node *n, unsigned i)
{
	return le64_to_cpu(vd_index_entry(n, i)->key);
}

/* First entry with a key >= key, or count. */
static unsigned lower_bound(const struct vd_node *n, uint64_t key)
{
	unsigned lo = 0, hi = vd_index_count(n);

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (key_at(n, mid) < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

unsigned vd_index_floor(const struct vd_node *n, uint64_t key)
{
	unsigned i = lower_bound(n, key);

	if (i < vd_index_count(n) && key_at(n, i) == key)
		return i;
	return i ? i - 1 : 0;
}

void vd_index_range(const struct vd_node *n, unsigned i, uint64_t lo, uint64_t hi, uint64_t *clo, uint64_t *chi)
{
	*clo = i ? key_at(n, i) : lo;
	*chi = i + 1 < vd_index_count(n) ? key_at(n, i + 1) : hi;
}

void vd_index_remove(struct vd_node *n, unsigned i, unsigned count)
{
	unsigned all = vd_index_count(n);

	memmove(vd_index_entry(n, i), vd_index_entry(n, i + count), (all - i - count) * sizeof(struct vd_disk_ptr));
	memset(vd_index_entry(n, all - count), 0, count * sizeof(struct vd_disk_ptr));
	set_count(n, all - count);
	vd_node_dirty(n);
}

static void index_insert(struct vd_node *n, unsigned i, uint64_t key, const struct vd_ptr *ptr, uint32_t aux)
{
	unsigned all = vd_index_count(n);
	struct vd_disk_ptr *e = vd_index_entry(n, i);

	memmove(e + 1, e, (all - i) * sizeof(*e));
	e->key = cpu_to_le64(key);
	vd_ptr_put(e, ptr);
	e->aux = cpu_to_le32(aux);
	set_count(n, all + 1);
	vd_node_dirty(n);
}

static uint32_t index_aux(const struct vd_node *n)
{
	uint64_t sum = 0;
	unsigned i, all = vd_index_count(n);

	if (!n->level)
		return 0;
	for (i = 0; i < all; i++)
		sum += le32_to_cpu(vd_index_entry(n, i)->aux);
	return sum > 0xffffffffu ? 0xffffffffu : (uint32_t)sum;
}

void vd_node_range(struct vd_node *n, uint64_t lo, uint64_t hi)
{
	struct vd_disk_node *h = n->data;

	if (le64_to_cpu(h->key_lo) == lo && le64_to_cpu(h->key_hi) == hi)
		return;
	h->key_lo = cpu_to_le64(lo);
	h->key_hi = cpu_to_le64(hi);
	vd_node_dirty(n);
}

static int verify_index(const struct vd_node *n)
{
	const struct vd_disk_node *h = n->data;
	unsigned i, all = vd_index_count(n);
	uint64_t key, last = 0;

	if (!n->level || n->level >= VD_TREE_LEVELS_MAX || !all || all > VD_INDEX_MAX)
		return -EUCLEAN;
	for (i = 0; i < all; i++) {
		key = key_at(n, i);
		if (key < le64_to_cpu(h->key_lo) || key >= le64_to_cpu(h->key_hi) || (i && key <= last))
			return -EUCLEAN;
		if (le64_to_cpu(vd_index_entry(n, i)->gen) > n->ptr.gen)
			return -EUCLEAN;
		last = key;
	}
	return 0;
}

static int verify_space(const struct vd_node *n)
{
	const struct vd_disk_space *d = n->data;
	uint32_t width = le32_to_cpu(d->width), nblocks = le32_to_cpu(d->nblocks);

	if (width != 1 && width != 2 && width != 3 && width != 7 && width != 15 && width != 31)
		return -EUCLEAN;
	if (nblocks != 8192 && nblocks != 4096 && nblocks != 2048 && nblocks != 1024)
		return -EUCLEAN;
	return width * nblocks <= 8 * sizeof(d->bits) ? 0 : -EUCLEAN;
}

static int verify_volume(const struct vd_node *n)
{
	const struct vd_disk_volume *d = n->data;

	if (d->name[sizeof(d->name) - 1] || d->base[sizeof(d->base) - 1] ||
	    le32_to_cpu(d->npointers) > VD_POINTERS_MAX || le32_to_cpu(d->attrs_len) > VD_ATTRS_MAX ||
	    d->root.height >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	return 0;
}

int vd_node_verify(const struct vd_node *n)
{
	if (n->kind == VD_NODE_INDEX)
		return verify_index(n);
	if (n->level)
		return -EUCLEAN;
	switch (n->kind) {
	case VD_NODE_EXTENTS:
		return vd_extents_verify(n);
	case VD_NODE_SPACE:
		return verify_space(n);
	case VD_NODE_VOLUME:
		return verify_volume(n);
	}
	return -EUCLEAN;
}

int vd_tree_node(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind page_kind, unsigned level,
		 uint64_t lo, uint64_t hi, unsigned flags, struct vd_node **out)
{
	const struct vd_disk_node *h;
	struct vd_node *n;
	uint64_t klo, khi;
	int r;

	if (level >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	r = vd_node_get(pool, ptr, level ? VD_NODE_INDEX : page_kind, level, flags, &n);
	if (r)
		return r;
	if (level || page_kind == VD_NODE_EXTENTS) { /* (1) */
		h = n->data;
		klo = le64_to_cpu(h->key_lo);
		khi = le64_to_cpu(h->key_hi);
		if (klo >= khi || klo < lo || khi > hi) {
			vd_node_put(pool, n);
			vd_pool_damage(pool);
			return -EUCLEAN;
		}
	}
	*out = n;
	return 0;
}

/* ---- paths ------------------------------------------------------------ */

void vd_path_init(struct vd_path *p, enum vd_node_kind page_kind, uint32_t owner, unsigned flags)
{
	memset(p, 0, sizeof(*p));
	p->page_kind = page_kind;
	p->owner = owner;
	p->flags = flags;
}

void vd_path_put(struct vd_pool *pool, struct vd_path *p)
{
	unsigned l;

	for (l = 0; l < VD_TREE_LEVELS_MAX; l++) {
		vd_node_put(pool, p->n[l]);
		p->n[l] = NULL;
	}
}

/* One reference more on each child of n, or on each block of its extents. */
static int hold_children(struct vd_pool *pool, const struct vd_path *p, const struct vd_node *n)
{
	unsigned i, all = vd_index_count(n);
	int r = 0;

	if (!n->level) {
		if (p->page_kind != VD_NODE_EXTENTS || (p->flags & VD_TREE_NOREF))
			return 0;
		return vd_extents_hold(pool, n);
	}
	for (i = 0; i < all && !r; i++) {
		struct vd_ptr ptr;

		vd_ptr_get(&ptr, vd_index_entry(n, i));
		if (!ptr.gen) /* a uniform group of the space tree */
			continue;
		r = vd_pblk_valid(pool, ptr.a, 1) ? vd_space_inc(pool, ptr.a, 1) : -EUCLEAN;
	}
	return r;
}

/* A node with the contents of the one at `old` that may be changed (3); it may be
 * the same.  The caller links it, then drops the old one. */
static int shadow(struct vd_pool *pool, const struct vd_path *p, const struct vd_ptr *old, unsigned level,
		  struct vd_node **out)
{
	struct vd_node *o, *n = NULL;
	uint32_t count;
	int r;

	r = vd_tree_node(pool, old, p->page_kind, level, p->lo[level], p->hi[level], 0, &o);
	if (r) /* nothing was changed yet */
		return vd_is_damage(r) && p->page_kind == VD_NODE_EXTENTS && !(p->flags & VD_TREE_NOREF) ? -VD_LOST : r;
	r = vd_space_count(pool, old->a, &count);
	if (!r && !count)
		r = -EUCLEAN;
	if (r)
		goto out;
	if (count == 1 && old->gen == pool->ckpt_gen) {
		*out = o;
		return 0;
	}
	r = vd_node_new(pool, (enum vd_node_kind)o->kind, level, p->owner, &n);
	if (r)
		goto out;
	memcpy(body(n), body(o), VD_BLOCK - sizeof(struct vd_disk_node));
	set_count(n, vd_index_count(o));
	vd_node_head(n)->key_lo = vd_node_head(o)->key_lo;
	vd_node_head(n)->key_hi = vd_node_head(o)->key_hi;
	vd_node_dirty(n);
	if (count > 1)
		r = hold_children(pool, p, o);
	if (r)
		vd_node_put(pool, n);
	else
		*out = n;
out:
	vd_node_put(pool, o);
	return r;
}

/* The path's node at level l has its range written into it. */
static void path_range(struct vd_path *p, unsigned l)
{
	struct vd_node *n = p->n[l];

	vd_node_range(n, p->lo[l], p->hi[l]);
	if (l && !exact_keys(p->page_kind, l) && vd_index_count(n) && key_at(n, 0) != p->lo[l]) {
		vd_index_entry(n, 0)->key = cpu_to_le64(p->lo[l]);
		vd_node_dirty(n);
	}
}

static int shadow_root(struct vd_pool *pool, struct vd_root *root, struct vd_path *p)
{
	struct vd_ptr old = root->ptr;
	unsigned h = root->height;
	uint32_t left;
	int r;

	if (h >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	p->height = h;
	p->lo[h] = 0;
	p->hi[h] = keys_end(p->page_kind);
	r = shadow(pool, p, &old, h, &p->n[h]);
	if (r)
		return r;
	if (p->n[h]->ptr.a != old.a) {
		root->ptr = p->n[h]->ptr;
		r = vd_space_drop_node(pool, &old, &left);
		if (r)
			return r;
	}
	if (h || p->page_kind == VD_NODE_EXTENTS)
		path_range(p, h);
	return 0;
}

/* The child of n[l + 1] at i[l + 1] becomes n[l]. */
static int shadow_child(struct vd_pool *pool, struct vd_path *p, unsigned l)
{
	struct vd_node *parent = p->n[l + 1];
	struct vd_disk_ptr *e = vd_index_entry(parent, p->i[l + 1]);
	struct vd_ptr old;
	uint32_t left;
	int r;

	vd_ptr_get(&old, e);
	vd_index_range(parent, p->i[l + 1], p->lo[l + 1], p->hi[l + 1], &p->lo[l], &p->hi[l]);
	r = shadow(pool, p, &old, l, &p->n[l]);
	if (r)
		return r;
	if (p->n[l]->ptr.a != old.a) {
		vd_ptr_put(e, &p->n[l]->ptr);
		vd_node_dirty(parent);
		r = vd_space_drop_node(pool, &old, &left);
		if (r)
			return r;
	}
	path_range(p, l);
	return 0;
}

int vd_path_grow(struct vd_pool *pool, struct vd_root *root, struct vd_path *p)
{
	unsigned h = p->height + 1;
	struct vd_node *n;
	int r;

	if (h >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	r = vd_node_new(pool, VD_NODE_INDEX, h, p->owner, &n);
	if (r)
		return r;
	p->lo[h] = 0;
	p->hi[h] = keys_end(p->page_kind);
	p->i[h] = 0;
	p->n[h] = n;
	p->height = h;
	vd_node_range(n, p->lo[h], p->hi[h]);
	index_insert(n, 0, 0, &root->ptr, index_aux(p->n[h - 1]));
	root->ptr = n->ptr;
	root->height = (uint8_t)h;
	return 0;
}

void vd_path_link(struct vd_path *p, struct vd_pool *pool, unsigned l, struct vd_node *right, uint64_t at, uint64_t key)
{
	struct vd_node *parent = p->n[l + 1];

	vd_index_entry(parent, p->i[l + 1])->aux = cpu_to_le32(index_aux(p->n[l]));
	index_insert(parent, p->i[l + 1] + 1, at, &right->ptr, index_aux(right));
	vd_node_range(p->n[l], p->lo[l], at);
	vd_node_range(right, at, p->hi[l]);
	vd_node_dirty(p->n[l]);
	vd_node_dirty(right);
	if (key >= at) {
		vd_node_put(pool, p->n[l]);
		p->n[l] = right;
		p->lo[l] = at;
		p->i[l + 1]++;
	} else {
		p->hi[l] = at;
		vd_node_put(pool, right);
	}
}

/* When the last entry is where we go, it alone moves: keys that grow leave full nodes behind. */
static int split_index(struct vd_pool *pool, struct vd_path *p, unsigned l, uint64_t key)
{
	struct vd_node *n = p->n[l], *right;
	unsigned all = vd_index_count(n);
	unsigned at = vd_index_floor(n, key) == all - 1 ? all - 1 : all / 2;
	int r;

	r = vd_node_new(pool, VD_NODE_INDEX, l, p->owner, &right);
	if (r)
		return r;
	memcpy(vd_index_entry(right, 0), vd_index_entry(n, at), (all - at) * sizeof(struct vd_disk_ptr));
	memset(vd_index_entry(n, at), 0, (all - at) * sizeof(struct vd_disk_ptr));
	set_count(right, all - at);
	set_count(n, at);
	vd_path_link(p, pool, l, right, key_at(right, 0), key);
	return 0;
}

int vd_path_down(struct vd_pool *pool, struct vd_root *root, uint64_t key, unsigned bottom, struct vd_path *p)
{
	unsigned l = root->height;
	int r;

	r = shadow_root(pool, root, p);
	if (r)
		return r;
	if (l && !p->plain && vd_index_count(p->n[l]) >= VD_INDEX_FILL) {
		r = vd_path_grow(pool, root, p);
		if (!r)
			r = split_index(pool, p, l, key);
		if (r)
			return r;
	}
	while (l > bottom) {
		p->i[l] = vd_index_floor(p->n[l], key);
		r = shadow_child(pool, p, --l);
		if (!r && l && !p->plain && vd_index_count(p->n[l]) >= VD_INDEX_FILL)
			r = split_index(pool, p, l, key);
		if (r)
			return r;
	}
	return 0;
}

/* Takes in the neighbour at entry j of the parent, if both fit in one node. */
static int merge(struct vd_pool *pool, struct vd_path *p, unsigned l, unsigned j, bool *done)
{
	struct vd_node *parent = p->n[l + 1], *n = p->n[l], *s;
	unsigned i = p->i[l + 1], all = vd_index_count(n), more;
	uint64_t slo, shi;
	struct vd_ptr ptr;
	uint32_t count;
	int r;

	vd_ptr_get(&ptr, vd_index_entry(parent, j));
	vd_index_range(parent, j, p->lo[l + 1], p->hi[l + 1], &slo, &shi);
	r = vd_tree_node(pool, &ptr, p->page_kind, l, slo, shi, 0, &s);
	if (r)
		return vd_is_damage(r) ? 0 : r;
	more = vd_index_count(s);
	if (all + more > (l ? INDEX_FIT : EXTENTS_FIT))
		goto out;
	r = vd_space_count(pool, ptr.a, &count);
	if (!r && !count)
		r = -EUCLEAN;
	if (!r && count > 1)
		r = hold_children(pool, p, s);
	if (r)
		goto out;

	if (!l) {
		vd_extents_join(n, s, j < i);
	} else {
		struct vd_disk_ptr *to = vd_index_entry(n, j < i ? 0 : all);

		if (j < i)
			memmove(vd_index_entry(n, more), to, all * sizeof(*to));
		memcpy(to, vd_index_entry(s, 0), more * sizeof(*to));
		if (!exact_keys(p->page_kind, l)) /* its first child's keys begin there */
			to->key = cpu_to_le64(slo);
		set_count(n, all + more);
	}
	if (j < i) {
		vd_index_entry(parent, i)->key = vd_index_entry(parent, j)->key;
		p->lo[l] = slo;
		p->i[l + 1] = j;
	} else {
		p->hi[l] = shi;
	}
	vd_index_remove(parent, j, 1);
	vd_node_range(n, p->lo[l], p->hi[l]);
	vd_node_dirty(n);
	r = vd_space_drop_node(pool, &ptr, &count);
	*done = true;
out:
	vd_node_put(pool, s);
	return r;
}

/* A root with one child gives way to it. */
static int shorten(struct vd_pool *pool, struct vd_root *root, struct vd_path *p)
{
	unsigned lowest = p->page_kind == VD_NODE_EXTENTS ? 0 : 1;
	struct vd_node *n = p->n[p->height];
	struct vd_ptr old;
	uint32_t left;
	int r = 0;

	while (!r && root->height > lowest && vd_index_count(n) == 1) {
		old = root->ptr;
		vd_ptr_get(&root->ptr, vd_index_entry(n, 0));
		root->height--;
		r = vd_space_drop_node(pool, &old, &left);
		if (r || root->height == lowest)
			break;
		/* Another root of one child may be shared with others, and then it stays. */
		n = p->n[root->height];
		if (!n || n->ptr.a != root->ptr.a)
			break;
	}
	return r;
}

int vd_path_fix(struct vd_pool *pool, struct vd_root *root, struct vd_path *p, unsigned l)
{
	struct vd_ptr old;
	uint32_t left;
	int r = 0;

	for (; !r && l < p->height; l++) {
		struct vd_node *n = p->n[l], *parent = p->n[l + 1];
		unsigned i = p->i[l + 1], all = vd_index_count(n);
		bool done = false;

		if (!all) {
			old = n->ptr;
			vd_index_remove(parent, i, 1);
			vd_node_put(pool, n);
			p->n[l] = NULL;
			r = vd_space_drop_node(pool, &old, &left);
			continue;
		}
		if (!p->plain && all < (l ? INDEX_LOW : EXTENTS_LOW)) {
			if (i + 1 < vd_index_count(parent))
				r = merge(pool, p, l, i + 1, &done);
			if (!r && !done && p->i[l + 1])
				r = merge(pool, p, l, p->i[l + 1] - 1, &done);
		}
		if (l) {
			vd_index_entry(parent, p->i[l + 1])->aux = cpu_to_le32(index_aux(n));
			vd_node_dirty(parent);
		}
	}
	if (!r && !vd_index_count(p->n[l])) {
		old = root->ptr;
		root->ptr.gen = 0;
		root->height = 0;
		r = vd_space_drop_node(pool, &old, &left);
	} else if (!r) {
		r = shorten(pool, root, p);
	}
	vd_path_put(pool, p);
	return r;
}

int vd_tree_drop(struct vd_pool *pool, const struct vd_path *p, const struct vd_ptr *ptr, unsigned level,
		 uint64_t lo, uint64_t hi, int64_t *mapped)
{
	struct vd_path q;
	struct vd_ptr cur = *ptr;
	unsigned l = level;
	uint32_t count;
	int r;

	vd_path_init(&q, p->page_kind, 0, p->flags);
	q.lo[l] = lo;
	q.hi[l] = hi;
	for (;;) {
		struct vd_node *n;

		r = vd_pblk_valid(pool, cur.a, 1) ? vd_space_count(pool, cur.a, &count) : -EUCLEAN;
		if (!r && !count)
			r = -EUCLEAN;
		if (!r && count > 1 && mapped) {
			const struct vd_root sub = { cur, (uint8_t)l };
			uint64_t below;

			r = vd_tree_mapped(pool, &sub, 0, VD_VBLK_END, &below);
			if (!r)
				*mapped -= (int64_t)below;
			else if (vd_is_damage(r))
				r = 0;
		}
		if (!r && count == 1) {
			r = vd_tree_node(pool, &cur, p->page_kind, l, q.lo[l], q.hi[l], 0, &n);
			if (!r && l) { /* its children first */
				q.n[l] = n;
				q.i[l] = 0;
				goto next;
			}
			if (!r) {
				r = vd_extents_drop(pool, n, p->flags, mapped);
				vd_node_put(pool, n);
			} else if (vd_is_damage(r)) {
				vd_log(pool, VD_LOG_WARN, "metadata block %a: dropped unread; what is below stays counted until a repair", cur.a, 0);
				r = 0;
			}
		}
		if (!r)
			r = vd_space_drop_node(pool, &cur, &count);
		for (;;) { /* upwards over the nodes whose children are all gone */
			if (r || l == level)
				goto out;
			l++;
			if (++q.i[l] < vd_index_count(q.n[l]))
				break;
			cur = q.n[l]->ptr;
			vd_node_put(pool, q.n[l]);
			q.n[l] = NULL;
			r = vd_space_drop_node(pool, &cur, &count);
		}
next:
		vd_ptr_get(&cur, vd_index_entry(q.n[l], q.i[l]));
		vd_index_range(q.n[l], q.i[l], q.lo[l], q.hi[l], &q.lo[l - 1], &q.hi[l - 1]);
		l--;
	}
out:
	vd_path_put(pool, &q);
	return r;
}

/* ---- trees of pages by exact key --------------------------------------- */

static void slot_get(struct vd_slot *to, const struct vd_disk_ptr *e)
{
	to->key = le64_to_cpu(e->key);
	vd_ptr_get(&to->ptr, e);
	to->aux = le32_to_cpu(e->aux);
}

int vd_ptree_next(struct vd_pool *pool, const struct vd_root *root, uint64_t key, bool with_aux, unsigned flags,
		  struct vd_slot *out)
{
	const unsigned h = root->height;
	struct vd_ptr ptr = root->ptr;
	struct vd_path p;
	unsigned l = h;
	int r;

	if (!ptr.gen)
		return -ENODATA;
	if (!h || h >= VD_TREE_LEVELS_MAX) {
		out->key = ~0ull;
		return -EUCLEAN;
	}
	vd_path_init(&p, VD_NODE_SPACE, 0, 0); /* pages are not read: any exact kind */
	p.hi[h] = ~0ull;
	for (;;) {
		r = vd_tree_node(pool, &ptr, p.page_kind, l, p.lo[l], p.hi[l], flags, &p.n[l]);
		if (r) {
			out->key = vd_max(p.hi[l], key + 1);
			break;
		}
		p.i[l] = l == 1 ? lower_bound(p.n[l], key) : vd_index_floor(p.n[l], key);
		for (;;) { /* to an entry that may lead to it, or up */
			while (with_aux && p.i[l] < vd_index_count(p.n[l]) && !vd_index_entry(p.n[l], p.i[l])->aux)
				p.i[l]++;
			if (p.i[l] < vd_index_count(p.n[l]))
				break;
			vd_node_put(pool, p.n[l]);
			p.n[l] = NULL;
			if (l++ == h) {
				r = -ENODATA;
				goto out;
			}
			p.i[l]++;
		}
		if (l == 1) {
			slot_get(out, vd_index_entry(p.n[1], p.i[1]));
			break;
		}
		vd_ptr_get(&ptr, vd_index_entry(p.n[l], p.i[l]));
		vd_index_range(p.n[l], p.i[l], p.lo[l], p.hi[l], &p.lo[l - 1], &p.hi[l - 1]);
		l--;
	}
out:
	vd_path_put(pool, &p);
	return r;
}

int vd_ptree_set(struct vd_pool *pool, struct vd_root *root, enum vd_node_kind kind, const struct vd_slot *slot)
{
	struct vd_path p;
	struct vd_node *n;
	struct vd_disk_ptr *e;
	unsigned i, l;
	int r;

	if (slot->key == ~0ull)
		return -EINVAL;
	vd_path_init(&p, kind, 0, 0);
	if (!root->ptr.gen) {
		r = vd_node_new(pool, VD_NODE_INDEX, 1, 0, &n);
		if (r)
			return r;
		vd_node_range(n, 0, ~0ull);
		index_insert(n, 0, slot->key, &slot->ptr, slot->aux);
		root->ptr = n->ptr;
		root->height = 1;
		vd_node_put(pool, n);
		return 0;
	}
	if (!root->height)
		return -EUCLEAN;
	r = vd_path_down(pool, root, slot->key, 1, &p);
	if (r)
		goto out;
	n = p.n[1];
	i = lower_bound(n, slot->key);
	if (i < vd_index_count(n) && key_at(n, i) == slot->key) {
		e = vd_index_entry(n, i);
		vd_ptr_put(e, &slot->ptr);
		e->aux = cpu_to_le32(slot->aux);
		vd_node_dirty(n);
	} else {
		index_insert(n, i, slot->key, &slot->ptr, slot->aux);
	}
	for (l = 1; l < p.height; l++) {
		vd_index_entry(p.n[l + 1], p.i[l + 1])->aux = cpu_to_le32(index_aux(p.n[l]));
		vd_node_dirty(p.n[l + 1]);
	}
out:
	vd_path_put(pool, &p);
	return r;
}

int vd_ptree_del(struct vd_pool *pool, struct vd_root *root, uint64_t key)
{
	struct vd_path p;
	struct vd_slot slot;
	int r;

	r = vd_ptree_next(pool, root, key, false, 0, &slot);
	if (r)
		return r;
	if (slot.key != key)
		return -ENODATA;
	vd_path_init(&p, VD_NODE_SPACE, 0, 0);
	r = vd_path_down(pool, root, key, 1, &p);
	if (r) {
		vd_path_put(pool, &p);
		return r;
	}
	vd_index_remove(p.n[1], lower_bound(p.n[1], key), 1);
	return vd_path_fix(pool, root, &p, 1);
}

/* ---- any tree ----------------------------------------------------------- */

int vd_tree_hold(struct vd_pool *pool, const struct vd_root *root)
{
	if (!root->ptr.gen)
		return 0;
	return vd_pblk_valid(pool, root->ptr.a, 1) ? vd_space_inc(pool, root->ptr.a, 1) : -EUCLEAN;
}

int vd_tree_release(struct vd_pool *pool, const struct vd_root *root, uint32_t *left)
{
	uint32_t count = 0;
	int r = 0;

	if (root->ptr.gen) {
		if (!vd_pblk_valid(pool, root->ptr.a, 1))
			return -EUCLEAN;
		r = vd_space_count(pool, root->ptr.a, &count);
		if (!r && !count)
			r = -EUCLEAN;
	}
	if (r)
		return r;
	if (count > 1)
		return vd_space_drop_node(pool, &root->ptr, left);
	*left = 0;
	return 0;
}

int vd_tree_walk(struct vd_pool *pool, const struct vd_root *root, enum vd_node_kind page_kind,
		 int (*fn)(void *arg, const struct vd_visit *v), void *arg)
{
	const unsigned h = root->height;
	struct vd_visit v;
	struct vd_slot slot;
	struct vd_path p;
	unsigned l = h;
	int r;

	if (!root->ptr.gen)
		return 0;
	if (h >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	vd_path_init(&p, page_kind, 0, 0);
	p.hi[h] = keys_end(page_kind);
	memset(&v, 0, sizeof(v));
	v.ptr = root->ptr;
	for (;;) {
		struct vd_node *n = NULL;
		bool uniform = v.slot != NULL;

		v.level = l;
		v.lo = p.lo[l];
		v.hi = p.hi[l];
		v.err = uniform ? 0 : vd_tree_node(pool, &v.ptr, page_kind, l, v.lo, v.hi, 0, &n);
		v.n = n;
		r = v.err == -ENOMEM ? -ENOMEM : fn(arg, &v);
		if (n && r == 0 && l) {
			p.n[l] = n;
			p.i[l] = 0;
		} else {
			vd_node_put(pool, n);
			for (;;) { /* up to where there is a next entry */
				if (r < 0 || l == h)
					goto out;
				l++;
				if (++p.i[l] < vd_index_count(p.n[l]))
					break;
				vd_node_put(pool, p.n[l]);
				p.n[l] = NULL;
			}
		}
		slot_get(&slot, vd_index_entry(p.n[l], p.i[l]));
		v.ptr = slot.ptr;
		v.slot = !slot.ptr.gen && l == 1 && page_kind == VD_NODE_SPACE ? &slot : NULL;
		vd_index_range(p.n[l], p.i[l], p.lo[l], p.hi[l], &p.lo[l - 1], &p.hi[l - 1]);
		if (exact_keys(page_kind, l))
			p.lo[l - 1] = slot.key;
		l--;
	}
out:
	vd_path_put(pool, &p);
	return r < 0 ? r : 0;
}

/* One side of a comparison: the node that covers v at some level. */
struct side { struct vd_ptr ptr; unsigned level; uint64_t lo, hi; };

static int side_down(struct vd_pool *pool, struct side *s, vd_vblk_t v)
{
	struct vd_node *n;
	unsigned i;
	uint64_t lo, hi;
	int r;

	r = vd_tree_node(pool, &s->ptr, VD_NODE_EXTENTS, s->level, s->lo, s->hi, 0, &n);
	if (r)
		return r;
	i = vd_index_floor(n, v);
	vd_ptr_get(&s->ptr, vd_index_entry(n, i));
	vd_index_range(n, i, s->lo, s->hi, &lo, &hi);
	s->lo = lo;
	s->hi = hi;
	s->level--;
	vd_node_put(pool, n);
	return 0;
}

static int pages_common(struct vd_pool *pool, const struct side *a, const struct side *b, vd_vblk_t v, uint64_t *len)
{
	struct vd_node *x, *y;
	int r = vd_tree_node(pool, &a->ptr, VD_NODE_EXTENTS, 0, a->lo, a->hi, 0, &x);

	if (r)
		return r;
	r = vd_tree_node(pool, &b->ptr, VD_NODE_EXTENTS, 0, b->lo, b->hi, 0, &y);
	if (!r) {
		*len = vd_extents_common(x, y, v, vd_min(a->hi, b->hi));
		vd_node_put(pool, y);
	}
	vd_node_put(pool, x);
	return r;
}

int vd_tree_common(struct vd_pool *pool, const struct vd_root *x, const struct vd_root *y, vd_vblk_t v, uint64_t *len)
{
	struct side a = { x->ptr, x->height, 0, VD_VBLK_END };
	struct side b = { y->ptr, y->height, 0, VD_VBLK_END };
	int r;

	if (v >= VD_VBLK_END)
		return -EINVAL;
	if (!x->ptr.gen || !y->ptr.gen) {
		*len = x->ptr.gen == y->ptr.gen ? VD_VBLK_END - v : 0;
		return 0;
	}
	for (;;) {
		unsigned al = a.level, bl = b.level;

		if (al == bl && a.ptr.a == b.ptr.a && a.ptr.gen == b.ptr.gen) {
			*len = vd_min(a.hi, b.hi) - v;
			return 0;
		}
		if (!al && !bl)
			return pages_common(pool, &a, &b, v, len);
		r = al >= bl ? side_down(pool, &a, v) : 0;
		if (!r && bl >= al)
			r = side_down(pool, &b, v);
		if (r)
			return r;
	}
}
