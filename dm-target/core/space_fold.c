/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Folding: the counts of changed groups go into the space tree.
 *
 * A group is kept there as nothing (all blocks have count 0), as an entry that
 * says one count for all, or as 1, 2, 4 or 8 pages.  Which of these, and how wide
 * a count is, follows from the counts, with two exceptions that make folding end:
 * see vd_space_fold().
 */
#include "space_priv.h"

unsigned space_parts(unsigned width) /* 0: no such width */
{
	switch (width) {
	case 1:
	case 2:
	case 3:
		return 1;
	case 7:
		return 2;
	case 15:
		return 4;
	case 31:
		return 8;
	}
	return 0;
}

static unsigned width_for(uint32_t all) /* bits of the counts together */
{
	static const uint8_t widths[] = { 1, 2, 3, 7, 15, 31 };
	unsigned i = 0;

	while (all >> widths[i])
		i++;
	return widths[i];
}

uint64_t space_key(const struct space_group *g, unsigned parts, unsigned part)
{
	return g->nr * SPACE_PARTS_MAX + part * (SPACE_PARTS_MAX / parts);
}

/* All counts are the same.  *all: their bits together, which need as many as the largest. */
static bool group_uniform(const struct space_group *g, uint32_t *all)
{
	uint32_t first = space_count_at(g, 0), diff = 0, any = 0;
	uint64_t diff8 = 0, any8 = 0, first8 = first * 0x0101010101010101ull;
	unsigned i = 0;

	if (g->csize == 0) {
		*all = first;
		return true;
	}
	for (; g->csize == 1 && i + 8 <= g->exist; i += 8) {
		uint64_t w;

		memcpy(&w, (const uint8_t *)g->counts + i, 8);
		any8 |= w;
		diff8 |= w ^ first8;
	}
	for (; i < g->exist; i++) {
		uint32_t v = space_count_at(g, i);

		any |= v;
		diff |= v ^ first;
	}
	for (i = 0; i < 64; i += 8)
		any |= any8 >> i & 0xff;
	*all = any;
	return !diff && !diff8;
}

struct packer { /* a little-endian bit string in the making */
	uint8_t *to;
	uint64_t word;
	unsigned held; /* bits of it that are set already */
};

static void pack(struct packer *p, uint64_t v, unsigned width) /* 1..56 */
{
	__le64 le;

	p->word |= v << p->held;
	p->held += width;
	if (p->held < 64)
		return;
	le = cpu_to_le64(p->word);
	memcpy(p->to, &le, 8);
	p->to += 8;
	p->held -= 64;
	p->word = p->held ? v >> (width - p->held) : 0;
}

/* Eight counts at a time, when they are bytes and all zero, as most are. */
static bool eight_zeros(const struct space_group *g, unsigned i, unsigned end)
{
	uint64_t w = 1;

	if (g->csize == 1 && g->width <= 7 && i + 8 <= end)
		memcpy(&w, (const uint8_t *)g->counts + i, 8);
	return !w;
}

static void page_encode(struct space_group *g, unsigned part, struct vd_node *n, uint32_t *aux)
{
	struct vd_disk_space *d = n->data;
	unsigned nblocks = VD_GROUP_BLOCKS / g->parts, i = part * nblocks;
	unsigned end = vd_min(i + nblocks, g->exist);
	struct packer p = { .to = d->bits };
	__le64 le;

	d->h.count = cpu_to_le16((uint16_t)g->parts);
	d->h.key_lo = cpu_to_le64(space_key(g, g->parts, part));
	d->h.key_hi = cpu_to_le64(space_key(g, g->parts, part) + SPACE_PARTS_MAX / g->parts);
	d->width = cpu_to_le32(g->width);
	d->nblocks = cpu_to_le32(nblocks);
	memset(d->bits, 0, sizeof(d->bits));
	*aux = 0;
	while (i < end) {
		uint32_t v;

		if (eight_zeros(g, i, end)) {
			pack(&p, 0, 8 * g->width);
			*aux += 8;
			i += 8;
			continue;
		}
		v = space_count_at(g, i++);
		pack(&p, v, g->width);
		*aux += !v;
	}
	le = cpu_to_le64(p.word);
	memcpy(p.to, &le, 8); /* within bits[]: at most 3968 + 8 of 4024 */
	vd_node_dirty(n);
}

static int page_enter(struct vd_pool *pool, struct space_group *g, unsigned part, uint32_t aux)
{
	struct vd_slot slot = { .key = space_key(g, g->parts, part), .ptr = g->page[part], .aux = aux };

	g->aux[part] = aux;
	return vd_ptree_set(pool, &pool->space_root, VD_NODE_SPACE, &slot);
}

/* Pages that this checkpoint wrote, in place: nothing moves. */
static int write_in_place(struct vd_pool *pool, struct space_group *g)
{
	struct vd_node *n;
	uint32_t aux;
	int r;

	for (unsigned part = 0; part < g->parts; part++) {
		r = vd_node_get(pool, &g->page[part], VD_NODE_SPACE, 0, 0, &n);
		if (r)
			return r;
		page_encode(g, part, n, &aux);
		vd_node_put(pool, n);
		if (aux != g->aux[part]) {
			r = page_enter(pool, g, part, aux);
			if (r)
				return r;
		}
	}
	return 0;
}

/* Lets go of the form `old` describes: its pages, and those keys of theirs that
 * parts of the new form will not replace. */
static int drop_form(struct vd_pool *pool, struct space_group *g, unsigned old_parts, const struct vd_ptr *old, unsigned parts)
{
	uint32_t left;
	int r;

	for (unsigned i = 0; i < old_parts; i++) {
		uint64_t key = space_key(g, old_parts, i);

		r = vd_space_drop_node(pool, &old[i], &left);
		if (r)
			return r;
		if (left)
			return -EUCLEAN; /* pages of counts are never shared */
		if (parts && (key & (SPACE_PARTS_MAX - 1) & (SPACE_PARTS_MAX / parts - 1)) == 0)
			continue;
		r = vd_ptree_del(pool, &pool->space_root, key);
		if (r)
			return r == -ENODATA ? -EUCLEAN : r;
	}
	return 0;
}

static int write_uniform(struct vd_pool *pool, struct space_group *g)
{
	struct vd_space *s = pool->space;
	uint32_t value = space_count_at(g, 0);
	struct vd_slot slot = { .key = g->nr * SPACE_PARTS_MAX, .ptr = { .a = value, .b = VD_PBLK_NONE } };
	unsigned old_parts = g->form == FORM_PAGES ? g->parts : 0;
	bool was = g->form != FORM_ABSENT;
	struct vd_ptr old[SPACE_PARTS_MAX];
	void *counts;
	int r;

	memcpy(old, g->page, sizeof(old));
	vd_spin_lock(&s->lock);
	counts = g->counts;
	g->counts = NULL;
	g->csize = 0;
	g->uniform = value;
	vd_spin_unlock(&s->lock);
	vd_free(pool, counts);
	g->form = value ? FORM_UNIFORM : FORM_ABSENT;
	g->form_value = value;
	g->plain_gen = pool->ckpt_gen;
	r = drop_form(pool, g, old_parts, old, value ? 1 : 0);
	if (r)
		return r;
	if (value)
		return vd_ptree_set(pool, &pool->space_root, VD_NODE_SPACE, &slot);
	if (was && !old_parts) {
		r = vd_ptree_del(pool, &pool->space_root, slot.key);
		if (r == -ENODATA)
			r = -EUCLEAN;
	}
	return r;
}

static int write_pages(struct vd_pool *pool, struct space_group *g, unsigned width)
{
	unsigned old_parts = g->form == FORM_PAGES ? g->parts : 0, parts = space_parts(width), made;
	struct vd_ptr old[SPACE_PARTS_MAX];
	struct vd_node *n[SPACE_PARTS_MAX];
	uint32_t aux[SPACE_PARTS_MAX];
	int r = 0;

	memcpy(old, g->page, sizeof(old));
	for (made = 0; made < parts; made++) {
		r = vd_node_new(pool, VD_NODE_SPACE, 0, 0, &n[made]);
		if (r)
			goto out;
	}
	g->form = FORM_PAGES;
	g->width = width;
	g->parts = parts;
	for (unsigned i = 0; i < parts; i++)
		g->page[i] = n[i]->ptr;
	r = drop_form(pool, g, old_parts, old, parts);
	if (r)
		goto out;
	/* All of the above may have changed this very group: by new nodes (0 to 1, any
	 * width holds that) and freed ones.  What changes it from here on makes it
	 * dirty again, and it is then written in place. */
	if (g->dirty) {
		g->dirty = false;
		vd_list_del(&g->dirty_link);
	}
	for (unsigned i = 0; i < parts; i++)
		page_encode(g, i, n[i], &aux[i]);
	for (unsigned i = 0; i < parts && !r; i++)
		r = page_enter(pool, g, i, aux[i]);
out:
	while (made)
		vd_node_put(pool, n[--made]);
	return r;
}

static int group_write(struct vd_pool *pool, struct space_group *g)
{
	bool mine = g->form == FORM_PAGES && g->page[0].gen == pool->ckpt_gen;
	uint32_t all;
	bool same = group_uniform(g, &all);

	if (mine && !(all >> g->width))
		return write_in_place(pool, g);
	if (same && g->form != FORM_PAGES && all == (g->form == FORM_ABSENT ? 0 : g->form_value))
		return 0;
	if (same && !mine && g->plain_gen != pool->ckpt_gen)
		return write_uniform(pool, g);
	return write_pages(pool, g, width_for(all));
}

/*
 * It ends: writing a group allocates and frees blocks, hence changes counts and
 * may make groups dirty, in only two ways: write_uniform(), at most once a group
 * and checkpoint (plain_gen), and write_pages(), at most once a group and width,
 * since a group that has pages of this checkpoint is written in place until a
 * count outgrows their width, and there are six widths.  Writing in place
 * changes no count: its key's path in the tree was copied when it was entered.
 * New nodes come from the metadata windows, so few groups join in.
 */
int vd_space_fold(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	int r = 0;

	while (!r && !vd_list_empty(&s->dirty)) {
		struct space_group *g = vd_container(s->dirty.next, struct space_group, dirty_link);

		vd_list_del(&g->dirty_link);
		g->dirty = false;
		r = group_write(pool, g);
	}
	space_windows_release(pool);
	return r;
}
