/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Trees of extents: the pages, look-ups, and changes of ranges.
 *
 * A page holds up to 244 extents, ascending and disjoint, within the key range
 * its parent gives it; no extent crosses from one page into the next.  An extent
 * names its birth by an index into the page's table of 16.
 *
 * A change of a range first clears what lies beyond the page it begins in (whole
 * subtrees go at once), then replaces at most a few entries of single pages:
 *
 *   before   [ a    ][ b ]   [   c   ]        i..j: touched by x
 *   x              [======]
 *   after    [ a  ][  x   ] [   c   ]         head of a, x, tail of c; x joins
 *                                             neighbours that continue it
 *
 * Invariants (tree.c's hold too)
 *   7. Counts of the new blocks go up before those of displaced ones go down.
 *   8. Joined extents have the same birth, so none gets younger or older.
 *   9. A birth that finds the table full makes the two oldest one, the older:
 *      what was mapped since the last snapshot is the last to lose its birth.
 */
#include "pool.h"

#define V_MASK ((1ull << 52) - 1)
#define P_MASK ((1ull << 48) - 1)

/* An extent decoded, with its birth still an index. */
struct rec {
	uint64_t v, len, p;
	unsigned kind, birth;
};

static struct vd_disk_extents *page(const struct vd_node *n)
{
	return n->data;
}

static unsigned page_count(const struct vd_disk_extents *d)
{
	return le16_to_cpu(d->h.count);
}

static uint64_t rec_v(const struct vd_disk_extents *d, unsigned i)
{
	return le64_to_cpu(d->e[i].w0) & V_MASK;
}

static struct rec rec_get(const struct vd_disk_extents *d, unsigned i)
{
	uint64_t w0 = le64_to_cpu(d->e[i].w0), w1 = le64_to_cpu(d->e[i].w1);
	struct rec x;

	x.v = w0 & V_MASK;
	x.birth = (unsigned)(w0 >> 52) & 15;
	x.kind = (unsigned)(w0 >> 56) & 3;
	x.p = x.kind == VD_DATA ? w1 & P_MASK : 0;
	x.len = x.kind == VD_DATA ? (w1 >> 48) + 1 : w1 + 1;
	return x;
}

static void rec_put(struct vd_disk_extent *e, const struct rec *x)
{
	e->w0 = cpu_to_le64(x->v | (uint64_t)x->birth << 52 | (uint64_t)x->kind << 56);
	e->w1 = cpu_to_le64(x->kind == VD_DATA ? x->p | (x->len - 1) << 48 : x->len - 1);
}

static uint64_t rec_end(const struct rec *x)
{
	return x->v + x->len;
}

/* First extent that begins at or after v, or count. */
static unsigned first_from(const struct vd_disk_extents *d, vd_vblk_t v)
{
	unsigned lo = 0, hi = page_count(d);

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (rec_v(d, mid) < v)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* First extent that ends after v, or count. */
static unsigned first_after(const struct vd_disk_extents *d, vd_vblk_t v)
{
	unsigned i = first_from(d, v);
	struct rec x;

	if (i) {
		x = rec_get(d, i - 1);
		if (rec_end(&x) > v)
			i--;
	}
	return i;
}

int vd_extents_verify(const struct vd_node *n)
{
	const struct vd_disk_extents *d = page(n);
	uint64_t at = le64_to_cpu(d->h.key_lo), end = le64_to_cpu(d->h.key_hi);
	unsigned i, all = page_count(d);

	if (all > VD_EXTENTS_MAX || at >= end || end > VD_VBLK_END)
		return -EUCLEAN;
	for (i = 0; i < all; i++) {
		struct rec x = rec_get(d, i);

		if ((x.kind != VD_DATA && x.kind != VD_ZERO) || le64_to_cpu(d->e[i].w0) >> 58)
			return -EUCLEAN;
		if (x.v < at || x.v >= end || x.len > end - x.v || !x.len)
			return -EUCLEAN;
		if (x.kind == VD_DATA && x.p + x.len > P_MASK)
			return -EUCLEAN;
		at = rec_end(&x);
	}
	return 0;
}

int vd_extents_get(const struct vd_disk_extents *d, unsigned i, struct vd_ext *out)
{
	struct rec x;

	if (i >= VD_EXTENTS_MAX || i >= page_count(d))
		return -EUCLEAN;
	x = rec_get(d, i);
	if ((x.kind != VD_DATA && x.kind != VD_ZERO) || x.v >= VD_VBLK_END || !x.len || x.len > VD_VBLK_END - x.v)
		return -EUCLEAN;
	out->v = x.v;
	out->len = x.len;
	out->p = x.p;
	out->birth = le64_to_cpu(d->birth[x.birth]);
	out->kind = (enum vd_ext_kind)x.kind;
	return 0;
}

/* ---- counts of a whole page --------------------------------------------- */

int vd_extents_hold(struct vd_pool *pool, const struct vd_node *n)
{
	unsigned i, all = page_count(page(n));
	int r = 0;

	for (i = 0; i < all && !r; i++) {
		struct rec x = rec_get(page(n), i);

		if (x.kind == VD_DATA)
			r = vd_pblk_valid(pool, x.p, x.len) ? vd_space_inc(pool, x.p, x.len) : -EUCLEAN;
	}
	return r;
}

int vd_extents_drop(struct vd_pool *pool, const struct vd_node *n, unsigned flags, int64_t *mapped)
{
	unsigned i, all = page_count(page(n));
	int r = 0;

	for (i = 0; i < all && !r; i++) {
		struct rec x = rec_get(page(n), i);

		if (x.kind != VD_DATA)
			continue;
		if (!(flags & VD_TREE_NOREF))
			r = vd_pblk_valid(pool, x.p, x.len) ? vd_space_dec(pool, x.p, x.len) : -EUCLEAN;
		if (mapped)
			*mapped -= (int64_t)x.len;
	}
	return r;
}

/* ---- births ------------------------------------------------------------- */

/* Index of `birth` in the page's table, made room for if need be (9). */
static unsigned birth_index(struct vd_disk_extents *d, uint64_t birth)
{
	unsigned used = 0, oldest = 0, second, i, all = page_count(d);

	for (i = 0; i < VD_BIRTHS; i++)
		if (le64_to_cpu(d->birth[i]) == birth)
			return i;
	for (i = 0; i < all; i++)
		used |= 1u << (le64_to_cpu(d->e[i].w0) >> 52 & 15);
	for (i = 0; i < VD_BIRTHS; i++) {
		if (!(used >> i & 1)) {
			d->birth[i] = cpu_to_le64(birth);
			return i;
		}
	}
	for (i = 1; i < VD_BIRTHS; i++)
		if (le64_to_cpu(d->birth[i]) < le64_to_cpu(d->birth[oldest]))
			oldest = i;
	second = !oldest;
	for (i = 0; i < VD_BIRTHS; i++)
		if (i != oldest && le64_to_cpu(d->birth[i]) < le64_to_cpu(d->birth[second]))
			second = i;
	if (birth < le64_to_cpu(d->birth[oldest])) { /* the oldest of all: takes in the next */
		d->birth[oldest] = cpu_to_le64(birth);
		return oldest;
	}
	if (birth < le64_to_cpu(d->birth[second]))
		return oldest;
	for (i = 0; i < all; i++) {
		struct rec x = rec_get(d, i);

		if (x.birth == second) {
			x.birth = oldest;
			rec_put(&d->e[i], &x);
		}
	}
	d->birth[second] = cpu_to_le64(birth);
	return second;
}

/* The table as it goes to disk and into copies: nothing in it that no extent needs. */
static void births_trim(struct vd_disk_extents *d)
{
	unsigned used = 0, i, all = page_count(d);

	for (i = 0; i < all; i++)
		used |= 1u << (le64_to_cpu(d->e[i].w0) >> 52 & 15);
	for (i = 0; i < VD_BIRTHS; i++)
		if (!(used >> i & 1))
			d->birth[i] = cpu_to_le64(0);
}

/* Not joined where they meet: rare, and the next change there joins them. */
void vd_extents_join(struct vd_node *n, const struct vd_node *from, bool before)
{
	struct vd_disk_extents *d = page(n);
	const struct vd_disk_extents *s = page(from);
	unsigned i, all = page_count(d), more = page_count(s);

	for (i = 0; i < more; i++) {
		struct rec x = rec_get(s, i);
		unsigned at = before ? i : all + i;

		x.birth = birth_index(d, le64_to_cpu(s->birth[x.birth]));
		if (before)
			memmove(&d->e[at + 1], &d->e[at], all * sizeof(d->e[0]));
		rec_put(&d->e[at], &x);
		d->h.count = cpu_to_le16((uint16_t)(all + i + 1));
	}
	vd_node_dirty(n);
}

/* ---- changing one page --------------------------------------------------- */

struct edit { /* entries [i, j) give way to e[0..k) */
	unsigned i, j, k;
	struct rec e[3];
};

static bool joins(const struct rec *a, const struct rec *b)
{
	if (a->kind != b->kind || a->birth != b->birth || rec_end(a) != b->v)
		return false;
	return a->kind != VD_DATA || (a->p + a->len == b->p && a->len + b->len <= VD_EXTENT_LEN_MAX);
}

static void edit_plan(const struct vd_disk_extents *d, const struct rec *x, struct edit *ed)
{
	struct rec tail = { 0 }, prev, next;
	unsigned all = page_count(d);
	uint64_t end = rec_end(x);
	struct rec mid = *x;

	ed->i = first_after(d, x->v);
	ed->j = first_from(d, end);
	ed->k = 0;
	if (ed->i < ed->j) {
		prev = rec_get(d, ed->i);
		tail = rec_get(d, ed->j - 1);
		if (prev.v < x->v) {
			prev.len = x->v - prev.v;
			ed->e[ed->k++] = prev;
		}
		if (rec_end(&tail) > end) {
			uint64_t cut = end - tail.v;

			tail.v = end;
			tail.len -= cut;
			if (tail.kind == VD_DATA)
				tail.p += cut;
		} else {
			tail.len = 0;
		}
	}
	if (x->kind != VD_HOLE) {
		if (ed->k && joins(&ed->e[0], &mid)) {
			mid.v = ed->e[0].v;
			mid.p = ed->e[0].p;
			mid.len += ed->e[0].len;
			ed->k = 0;
		} else if (!ed->k && ed->i) {
			prev = rec_get(d, ed->i - 1);
			if (joins(&prev, &mid)) {
				mid.v = prev.v;
				mid.p = prev.p;
				mid.len += prev.len;
				ed->i--;
			}
		}
		if (tail.len && joins(&mid, &tail)) {
			mid.len += tail.len;
			tail.len = 0;
		} else if (!tail.len && ed->j < all) {
			next = rec_get(d, ed->j);
			if (joins(&mid, &next)) {
				mid.len += next.len;
				ed->j++;
			}
		}
		ed->e[ed->k++] = mid;
	}
	if (tail.len)
		ed->e[ed->k++] = tail;
}

/* The counts of what x hides go down. */
static int edit_displace(struct vd_pool *pool, const struct vd_path *p, const struct rec *x, int64_t *mapped)
{
	const struct vd_disk_extents *d = page(p->n[0]);
	unsigned i, all = page_count(d);
	int r = 0;

	for (i = first_after(d, x->v); i < all && !r; i++) {
		struct rec y = rec_get(d, i);
		uint64_t from = vd_max(y.v, x->v), to = vd_min(rec_end(&y), rec_end(x));

		if (from >= to)
			break;
		if (y.kind != VD_DATA)
			continue;
		if (!(p->flags & VD_TREE_NOREF)) {
			vd_pblk_t at = y.p + (from - y.v);

			r = vd_pblk_valid(pool, at, to - from) ? vd_space_dec(pool, at, to - from) : -EUCLEAN;
		}
		if (mapped)
			*mapped -= (int64_t)(to - from);
	}
	return r;
}

/* Two pages of the path's one.  Where extents are appended the left one stays full. */
static int split_page(struct vd_pool *pool, struct vd_root *root, struct vd_path *p, vd_vblk_t v)
{
	struct vd_node *right;
	struct vd_disk_extents *d, *to;
	unsigned all, at;
	uint64_t key;
	int r;

	if (!p->height) {
		r = vd_path_grow(pool, root, p);
		if (r)
			return r;
	}
	r = vd_node_new(pool, VD_NODE_EXTENTS, 0, p->owner, &right);
	if (r)
		return r;
	d = page(p->n[0]);
	to = page(right);
	all = page_count(d);
	at = first_after(d, v) == all ? all : all / 2;
	key = at == all ? v : rec_v(d, at);
	memcpy(to->birth, d->birth, sizeof(d->birth));
	memcpy(to->e, &d->e[at], (all - at) * sizeof(d->e[0]));
	memset(&d->e[at], 0, (all - at) * sizeof(d->e[0]));
	d->h.count = cpu_to_le16((uint16_t)at);
	to->h.count = cpu_to_le16((uint16_t)(all - at));
	births_trim(d);
	births_trim(to);
	vd_path_link(p, pool, 0, right, key, v);
	return 0;
}

/*
 * Puts x, shortened to what belongs to the path's page, in place of what is there.
 * Puts the path.
 */
static int edit_page(struct vd_pool *pool, struct vd_root *root, struct vd_path *p, struct vd_ext *x, int64_t *mapped)
{
	struct vd_disk_extents *d;
	struct edit ed;
	struct rec y;
	unsigned all, was, k;
	int r = 0;

	for (;;) {
		d = page(p->n[0]);
		all = page_count(d);
		x->len = vd_min(x->len, p->hi[0] - x->v);
		y.v = x->v;
		y.len = x->len;
		y.p = x->p;
		y.kind = x->kind;
		y.birth = x->kind == VD_HOLE ? 0 : birth_index(d, x->birth);
		edit_plan(d, &y, &ed);
		if (all - (ed.j - ed.i) + ed.k <= VD_EXTENTS_FILL)
			break;
		r = split_page(pool, root, p, x->v);
		if (r)
			goto out;
	}
	r = edit_displace(pool, p, &y, mapped);
	if (r)
		goto out;
	memmove(&d->e[ed.i + ed.k], &d->e[ed.j], (all - ed.j) * sizeof(d->e[0]));
	for (k = 0; k < ed.k; k++)
		rec_put(&d->e[ed.i + k], &ed.e[k]);
	was = all;
	all = all - (ed.j - ed.i) + ed.k;
	if (all < was)
		memset(&d->e[all], 0, (was - all) * sizeof(d->e[0]));
	d->h.count = cpu_to_le16((uint16_t)all);
	vd_node_dirty(p->n[0]);
	if (ed.j - ed.i > ed.k)
		return vd_path_fix(pool, root, p, 0);
out:
	vd_path_put(pool, p);
	return r;
}

/* ---- look-ups ------------------------------------------------------------- */

/* The page that covers v and the keys the tree gives it. The root is not empty. */
static int find_page(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, unsigned flags,
		     uint64_t *lo, uint64_t *hi, struct vd_node **out)
{
	struct vd_ptr ptr = root->ptr;
	unsigned l = root->height, i;
	uint64_t clo = 0, chi = VD_VBLK_END;
	struct vd_node *n;
	int r;

	for (;;) {
		*lo = clo;
		*hi = chi;
		r = vd_tree_node(pool, &ptr, VD_NODE_EXTENTS, l, clo, chi, flags, &n);
		if (r)
			return r;
		if (!l)
			break;
		i = vd_index_floor(n, v);
		vd_ptr_get(&ptr, vd_index_entry(n, i));
		vd_index_range(n, i, *lo, *hi, &clo, &chi);
		vd_node_put(pool, n);
		l--;
	}
	*out = n;
	return 0;
}

/* What the page, whose keys are [lo, hi), has at v. */
static struct vd_ext page_find(const struct vd_disk_extents *d, vd_vblk_t v, uint64_t lo, uint64_t hi)
{
	struct vd_ext e = { .v = v, .kind = VD_HOLE };
	unsigned i = first_after(d, v);
	struct rec x = { .v = hi };

	if (i < page_count(d))
		x = rec_get(d, i);
	if (x.v <= v) {
		e.len = rec_end(&x) - v;
		e.back = v - x.v;
		e.kind = (enum vd_ext_kind)x.kind;
		e.p = x.kind == VD_DATA ? x.p + (v - x.v) : 0;
		e.birth = le64_to_cpu(d->birth[x.birth]);
		return e;
	}
	e.len = x.v - v;
	if (i) {
		x = rec_get(d, i - 1);
		lo = rec_end(&x);
	}
	e.back = v - lo;
	return e;
}

int vd_tree_find(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, unsigned flags, struct vd_ext *out)
{
	struct vd_node *n;
	uint64_t lo, hi;
	int r;

	if (v >= VD_VBLK_END)
		return -EINVAL;
	if (!root->ptr.gen) {
		*out = (struct vd_ext){ .v = v, .len = VD_VBLK_END - v, .back = v, .kind = VD_HOLE };
		return 0;
	}
	r = find_page(pool, root, v, flags, &lo, &hi, &n);
	if (r)
		return r;
	*out = page_find(page(n), v, lo, hi);
	vd_node_put(pool, n);
	return 0;
}

uint64_t vd_extents_common(const struct vd_node *x, const struct vd_node *y, vd_vblk_t v, uint64_t hi)
{
	vd_vblk_t at = v;

	while (at < hi) {
		struct vd_ext a = page_find(page(x), at, at, hi), b = page_find(page(y), at, at, hi);

		if (a.kind != b.kind || (a.kind == VD_DATA && a.p != b.p))
			break;
		at += vd_min(a.len, b.len);
	}
	return vd_min(at, hi) - v;
}

int vd_tree_mapped(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, uint64_t len, uint64_t *mapped)
{
	uint64_t end = v + len, lo, hi, sum = 0;
	int r;

	if (v > VD_VBLK_END || len > VD_VBLK_END - v)
		return -EINVAL;
	while (v < end && root->ptr.gen) {
		struct vd_node *n;
		unsigned i, all;

		r = find_page(pool, root, v, 0, &lo, &hi, &n);
		if (r)
			return r;
		all = page_count(page(n));
		for (i = first_after(page(n), v); i < all; i++) {
			struct rec x = rec_get(page(n), i);

			if (x.v >= end)
				break;
			if (x.kind == VD_DATA)
				sum += vd_min(rec_end(&x), end) - vd_max(x.v, v);
		}
		vd_node_put(pool, n);
		v = hi;
	}
	*mapped = sum;
	return 0;
}

/* ---- changes --------------------------------------------------------------- */

/* As vd_path_down to the page of v; an empty tree gets its first page. */
static int down(struct vd_pool *pool, struct vd_root *root, vd_vblk_t v, struct vd_path *p)
{
	struct vd_node *n;
	int r;

	if (root->ptr.gen)
		return vd_path_down(pool, root, v, 0, p);
	r = vd_node_new(pool, VD_NODE_EXTENTS, 0, p->owner, &n);
	if (r)
		return r;
	vd_node_range(n, 0, VD_VBLK_END);
	root->ptr = n->ptr;
	root->height = 0;
	p->height = 0;
	p->n[0] = n;
	p->lo[0] = 0;
	p->hi[0] = VD_VBLK_END;
	return 0;
}

/* The level of the node that has an entry for v whose keys all lie in [start, end); 0: none. */
static int covered_level(struct vd_pool *pool, const struct vd_root *root, uint64_t start, vd_vblk_t v, uint64_t end,
			 unsigned *level)
{
	struct vd_ptr ptr = root->ptr;
	uint64_t lo = 0, hi = VD_VBLK_END, clo, chi;
	unsigned l, i;
	struct vd_node *n;
	int r;

	for (l = root->height; l; l--) {
		r = vd_tree_node(pool, &ptr, VD_NODE_EXTENTS, l, lo, hi, 0, &n);
		if (r)
			return r;
		i = vd_index_floor(n, v);
		vd_ptr_get(&ptr, vd_index_entry(n, i));
		vd_index_range(n, i, lo, hi, &clo, &chi);
		vd_node_put(pool, n);
		if (clo >= start && chi <= end)
			break;
		lo = clo;
		hi = chi;
	}
	*level = l;
	return 0;
}

/* Drops the path's entries at level l from the one that covers v on, while their keys
 * end by `end`. *next: where that came to. Puts the path. */
static int drop_run(struct vd_pool *pool, struct vd_root *root, struct vd_path *p, unsigned l, vd_vblk_t v,
		    uint64_t end, uint64_t *next, int64_t *mapped)
{
	struct vd_node *n = p->n[l];
	unsigned i = vd_index_floor(n, v), j, all = vd_index_count(n);
	int r;

	for (j = i; j < all; j++) {
		uint64_t lo, hi;
		struct vd_ptr ptr;

		vd_index_range(n, j, p->lo[l], p->hi[l], &lo, &hi);
		if (hi > end)
			break;
		vd_ptr_get(&ptr, vd_index_entry(n, j));
		r = vd_tree_drop(pool, p, &ptr, l - 1, lo, hi, mapped);
		if (r) {
			vd_path_put(pool, p);
			return r;
		}
		*next = hi;
	}
	if (j == i) { /* covered_level() saw another tree */
		vd_path_put(pool, p);
		return -EUCLEAN;
	}
	vd_index_remove(n, i, j - i);
	return vd_path_fix(pool, root, p, l);
}

/* The keys of the lost node on the way to v. */
static int lost_range(struct vd_pool *pool, const struct vd_root *root, vd_vblk_t v, uint64_t *lo, uint64_t *hi)
{
	struct vd_node *n;
	int r = find_page(pool, root, v, 0, lo, hi, &n);

	if (r)
		return vd_is_damage(r) ? 0 : r;
	vd_node_put(pool, n);
	return -EUCLEAN; /* it was lost a moment ago */
}

/* Unmaps [start, end). */
static int clear(struct vd_pool *pool, struct vd_root *root, uint32_t owner, uint64_t start, uint64_t end,
		 unsigned flags, int64_t *mapped)
{
	uint64_t v = start;
	int r = 0;

	while (!r && v < end && root->ptr.gen) {
		struct vd_path p;
		struct vd_ext x;
		unsigned l;

		r = vd_tree_find(pool, root, v, 0, &x);
		if (vd_is_damage(r) && !(flags & VD_TREE_NOREF)) {
			uint64_t lo, hi;

			r = lost_range(pool, root, v, &lo, &hi);
			if (r)
				return r;
			if (lo < start || hi > end) {
				v = hi;
				continue;
			}
			x.kind = VD_ZERO; /* goes as a whole */
		}
		if (r)
			return r;
		if (x.kind == VD_HOLE) { /* nothing is copied where there is nothing to do */
			v += x.len;
			continue;
		}
		vd_path_init(&p, VD_NODE_EXTENTS, owner, flags);
		if (!start && end >= VD_VBLK_END) {
			r = vd_tree_drop(pool, &p, &root->ptr, root->height, 0, VD_VBLK_END, mapped);
			root->ptr.gen = 0;
			root->height = 0;
			break;
		}
		r = covered_level(pool, root, start, v, end, &l);
		if (!r)
			r = vd_path_down(pool, root, v, l, &p);
		if (r) {
			vd_path_put(pool, &p);
		} else if (l) {
			r = drop_run(pool, root, &p, l, v, end, &v, mapped);
		} else {
			x.v = v;
			x.len = end - v;
			x.kind = VD_HOLE;
			r = edit_page(pool, root, &p, &x, mapped);
			v += x.len;
		}
	}
	return r;
}

/* x, whose blocks up to `end` are counted already, begins below a lost node: on to its end. */
static int leave_out(struct vd_pool *pool, const struct vd_root *root, uint32_t owner, struct vd_ext *x, uint64_t end, int64_t *mapped)
{
	uint64_t lo, hi, n;
	int r = lost_range(pool, root, x->v, &lo, &hi);

	if (r)
		return r;
	n = vd_min(hi, end) - x->v;
	vd_log(pool, VD_LOG_ERROR, "volume %a: what was written last from block %b on is lost, with the metadata there", owner, x->v);
	x->v += n;
	if (x->kind != VD_DATA)
		return 0;
	r = vd_space_dec(pool, x->p, n);
	if (mapped)
		*mapped -= (int64_t)n;
	x->p += n;
	return r;
}

int vd_tree_set(struct vd_pool *pool, struct vd_root *root, uint32_t owner, const struct vd_ext *e, unsigned flags,
		int64_t *mapped)
{
	uint64_t end = e->v + e->len;
	struct vd_ext x = *e;
	bool cleared = false;
	int r = 0;

	if (!e->len || e->v >= VD_VBLK_END || e->len > VD_VBLK_END - e->v)
		return -EINVAL;
	if (e->kind == VD_HOLE)
		return clear(pool, root, owner, e->v, end, flags, mapped);
	if (e->kind != VD_DATA && e->kind != VD_ZERO)
		return -EINVAL;
	if (e->kind == VD_DATA) {
		if (!(flags & VD_TREE_NOREF)) {
			r = vd_pblk_valid(pool, e->p, e->len) ? vd_space_inc(pool, e->p, e->len) : -EUCLEAN;
			if (r)
				return r;
		}
		if (mapped)
			*mapped += (int64_t)e->len;
	}
	while (!r && x.v < end) {
		struct vd_path p;

		vd_path_init(&p, VD_NODE_EXTENTS, owner, flags);
		r = down(pool, root, x.v, &p);
		if (r == -VD_LOST) {
			vd_path_put(pool, &p);
			r = leave_out(pool, root, owner, &x, end, mapped);
			continue;
		}
		if (r) {
			vd_path_put(pool, &p);
			break;
		}
		if (!cleared && end > p.hi[0]) {
			uint64_t from = p.hi[0];

			vd_path_put(pool, &p);
			r = clear(pool, root, owner, from, end, flags, mapped);
			cleared = true;
			continue;
		}
		x.len = end - x.v;
		if (x.kind == VD_DATA && x.len > VD_EXTENT_LEN_MAX)
			x.len = VD_EXTENT_LEN_MAX;
		r = edit_page(pool, root, &p, &x, mapped);
		x.v += x.len;
		if (x.kind == VD_DATA)
			x.p += x.len;
	}
	return r;
}

/* The level of the first node down the right edge whose last child is a page, is lost or has
 * others that hold it: what that node's last entry leads to can be dropped at once.
 * -VD_LOST: so it is with the root. */
static int edge_level(struct vd_pool *pool, const struct vd_root *root, unsigned *level)
{
	struct vd_ptr ptr = root->ptr;
	uint64_t lo = 0, clo, chi;
	uint32_t count = 1;
	unsigned l, i;
	struct vd_node *n;
	int r;

	for (l = root->height; ; l--) {
		r = vd_tree_node(pool, &ptr, VD_NODE_EXTENTS, l, lo, VD_VBLK_END, 0, &n);
		if (vd_is_damage(r)) {
			*level = l + 1;
			return l == root->height ? -VD_LOST : 0;
		}
		if (r)
			return r;
		i = vd_index_count(n) - 1;
		vd_ptr_get(&ptr, vd_index_entry(n, i));
		vd_index_range(n, i, lo, VD_VBLK_END, &clo, &chi);
		vd_node_put(pool, n);
		lo = clo;
		if (l == 1)
			break;
		r = vd_pblk_valid(pool, ptr.a, 1) ? vd_space_count(pool, ptr.a, &count) : -EUCLEAN;
		if (r)
			return r;
		if (count != 1)
			break;
	}
	*level = l;
	return 0;
}

int vd_tree_trim(struct vd_pool *pool, struct vd_root *root, uint32_t owner, unsigned budget, vd_vblk_t *left)
{
	vd_vblk_t at = VD_VBLK_END;
	int r = 0;

	while (!r && root->ptr.gen && budget) {
		struct vd_path p;
		uint32_t count;
		unsigned l;

		vd_path_init(&p, VD_NODE_EXTENTS, owner, 0);
		p.plain = true;
		r = vd_pblk_valid(pool, root->ptr.a, 1) ? vd_space_count(pool, root->ptr.a, &count) : -EUCLEAN;
		if (r)
			return r;
		if (root->height >= VD_TREE_LEVELS_MAX)
			return -EUCLEAN;
		r = count > 1 || !root->height ? -VD_LOST : edge_level(pool, root, &l);
		if (r == -VD_LOST) { /* the root and all, or what is left of it */
			r = vd_tree_drop(pool, &p, &root->ptr, root->height, 0, VD_VBLK_END, NULL);
			root->ptr.gen = 0;
			root->height = 0;
			break;
		}
		if (!r)
			r = vd_path_down(pool, root, VD_VBLK_END - 1, l, &p);
		while (!r && budget && vd_index_count(p.n[l])) {
			unsigned i = vd_index_count(p.n[l]) - 1;
			struct vd_ptr ptr;
			uint64_t hi;

			vd_ptr_get(&ptr, vd_index_entry(p.n[l], i));
			vd_index_range(p.n[l], i, p.lo[l], p.hi[l], &at, &hi);
			r = vd_tree_drop(pool, &p, &ptr, l - 1, at, hi, NULL);
			vd_index_remove(p.n[l], i, 1);
			budget--;
			if (l > 1) /* the next one may be no one else's */
				break;
		}
		if (r)
			vd_path_put(pool, &p);
		else
			r = vd_path_fix(pool, root, &p, l);
	}
	if (!r)
		*left = root->ptr.gen ? at : 0;
	return r;
}
