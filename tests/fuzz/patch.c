// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "patch.h"

/* ---- what is in an image ---------------------------------------------------- */

static unsigned add_fixed(struct fz_map *map, enum fz_type type, unsigned m, uint64_t block, unsigned nblocks)
{
	struct fz_object *o = &map->obj[map->n];

	o->type = type;
	o->nblocks = nblocks;
	o->ncopies = 1;
	o->at[0].m = m;
	o->at[0].block = block;
	return map->n++;
}

static vd_pblk_t ptr_a(const struct vd_disk_ptr *p) { return le32_to_cpu(p->a_lo) | (uint64_t)le16_to_cpu(p->a_hi) << 32; }
static vd_pblk_t ptr_b(const struct vd_disk_ptr *p) { return le32_to_cpu(p->b_lo) | (uint64_t)le16_to_cpu(p->b_hi) << 32; }

static void walk(struct fz_map *map, unsigned parent, unsigned offset, const struct vd_disk_ptr *ptr)
{
	union { struct vd_disk_node h; struct vd_disk_volume v; uint8_t raw[VD_BLOCK]; } b;
	unsigned i, me;
	struct fz_object *o;

	if (!ptr->gen || map->nrefs == sizeof(map->ref) / sizeof(map->ref[0]))
		return;
	for (me = map->first_node; me < map->n; me++)
		if (ptr_a(&map->obj[me].ptr) == ptr_a(ptr))
			break;
	if (me == FZ_OBJECTS)
		return;
	map->ref[map->nrefs++] = (struct fz_ref){ parent, me, offset };
	if (me < map->n)
		return;
	fz_peek(map->sim, VD_PBLK_MEMBER(ptr_a(ptr)), VD_PBLK_BLOCK(ptr_a(ptr)), b.raw);
	if (le32_to_cpu(b.h.magic) != VD_NODE_MAGIC)
		fz_fault("an image's tree leads to what is no node");
	o = &map->obj[map->n++];
	o->type = b.h.kind == VD_NODE_INDEX ? FZ_INDEX : b.h.kind == VD_NODE_EXTENTS ? FZ_EXTENTS :
		  b.h.kind == VD_NODE_SPACE ? FZ_SPACE : FZ_VOLUME;
	o->nblocks = 1;
	o->ptr = *ptr;
	o->ncopies = 1;
	o->at[0].m = VD_PBLK_MEMBER(ptr_a(ptr));
	o->at[0].block = VD_PBLK_BLOCK(ptr_a(ptr));
	if (ptr_b(ptr) != VD_PBLK_NONE) {
		o->at[1].m = VD_PBLK_MEMBER(ptr_b(ptr));
		o->at[1].block = VD_PBLK_BLOCK(ptr_b(ptr));
		o->ncopies = 2;
	}
	if (o->type == FZ_VOLUME)
		walk(map, me, offsetof(struct vd_disk_volume, root.ptr), &b.v.root.ptr);
	for (i = 0; o->type == FZ_INDEX && i < le16_to_cpu(b.h.count); i++) {
		struct vd_disk_ptr child;

		offset = (unsigned)(sizeof(b.h) + i * sizeof(child));
		memcpy(&child, b.raw + offset, sizeof(child));
		walk(map, me, offset, &child);
	}
}

static void find_objects(struct fz_map *map)
{
	struct vd_disk_super *s = must_zero(sizeof(*s));
	unsigned m, slot, i, super[2];
	uint64_t best = 0;

	for (m = 0; m < map->sim->nmembers; m++) {
		add_fixed(map, FZ_LABEL, m, VD_LABEL_BLOCK, 1);
		add_fixed(map, FZ_OWNER, m, VD_OWNER_BLOCK, 1);
	}
	for (slot = 0; slot < 2; slot++) {
		super[slot] = add_fixed(map, FZ_SUPER, 0, VD_SUPER_BLOCK0 + slot * VD_SUPER_BLOCKS, VD_SUPER_BLOCKS);
		for (m = 1; m < map->sim->nmembers; m++) {
			struct fz_object *o = &map->obj[super[slot]];

			o->at[o->ncopies].m = m;
			o->at[o->ncopies++].block = o->at[0].block;
		}
	}
	map->first_node = map->n;
	for (slot = 0; slot < 2; slot++) {
		for (i = 0; i < VD_SUPER_BLOCKS; i++)
			fz_peek(map->sim, 0, VD_SUPER_BLOCK0 + slot * VD_SUPER_BLOCKS + i, (uint8_t *)s + i * VD_BLOCK);
		if (le64_to_cpu(s->generation) < best)
			continue;
		best = le64_to_cpu(s->generation);
		map->n = map->first_node;
		map->nrefs = 0;
		walk(map, super[slot], offsetof(struct vd_disk_super, space.ptr), &s->space.ptr);
		walk(map, super[slot], offsetof(struct vd_disk_super, volumes.ptr), &s->volumes.ptr);
		walk(map, super[slot], offsetof(struct vd_disk_super, index.ptr), &s->index.ptr);
	}
	free(s);
}

const struct fz_map *fz_map(enum fz_shape shape)
{
	static struct fz_map *made[FZ_SHAPES];

	if (!made[shape]) {
		made[shape] = must_zero(sizeof(*made[shape]));
		made[shape]->sim = fz_image(shape);
		find_objects(made[shape]);
	}
	return made[shape];
}

/* ---- fields ----------------------------------------------------------------- */

struct field { uint16_t offset; uint8_t shift, bits; };
#define F(type, name) { offsetof(type, name), 0, 8 * sizeof(((type *)0)->name) }
#define ENTRY 0x8000 /* offset is within an entry */

static const struct field f_label[] = {
	F(struct vd_disk_label, magic), F(struct vd_disk_label, version), { offsetof(struct vd_disk_label, pool), 0, 64 },
	{ offsetof(struct vd_disk_label, member), 0, 64 }, F(struct vd_disk_label, index), F(struct vd_disk_label, blocks),
	{ offsetof(struct vd_disk_label, pool_name), 0, 64 }, { offsetof(struct vd_disk_label, pool_name) + 120, 0, 64 },
};
static const struct field f_owner[] = {
	F(struct vd_disk_owner, magic), F(struct vd_disk_owner, state), F(struct vd_disk_owner, incarnation),
	{ offsetof(struct vd_disk_owner, who), 0, 64 }, F(struct vd_disk_owner, who.pid),
};
#define ROOT(type, name) \
	F(type, name.ptr.gen), F(type, name.ptr.a_lo), F(type, name.ptr.a_hi), F(type, name.ptr.b_lo), F(type, name.ptr.b_hi), \
	F(type, name.ptr.aux), F(type, name.height)
static const struct field f_super[] = {
	F(struct vd_disk_super, magic), F(struct vd_disk_super, version), F(struct vd_disk_super, compat),
	F(struct vd_disk_super, ro_compat), F(struct vd_disk_super, incompat), { offsetof(struct vd_disk_super, pool), 0, 64 },
	{ offsetof(struct vd_disk_super, name) + 120, 0, 64 }, F(struct vd_disk_super, generation),
	F(struct vd_disk_super, incarnation), F(struct vd_disk_super, epoch), F(struct vd_disk_super, seq),
	F(struct vd_disk_super, next_volume), F(struct vd_disk_super, total_blocks), F(struct vd_disk_super, used_blocks), F(struct vd_disk_super, promised_blocks), F(struct vd_disk_super, grow_by),
	F(struct vd_disk_super, sector_size), F(struct vd_disk_super, nmembers), ROOT(struct vd_disk_super, space),
	ROOT(struct vd_disk_super, volumes), ROOT(struct vd_disk_super, index), F(struct vd_disk_super, journal_start),
	F(struct vd_disk_super, journal_blocks), F(struct vd_disk_super, journal_member[0]),
	F(struct vd_disk_super, journal_member[1]), F(struct vd_disk_super, journal_tail), F(struct vd_disk_super, journal_crc),
	F(struct vd_disk_super, nsegments), F(struct vd_disk_super, segment[0].incarnation),
	F(struct vd_disk_super, segment[0].block), F(struct vd_disk_super, segment[1].incarnation),
	F(struct vd_disk_super, segment[1].block), F(struct vd_disk_super, policy), F(struct vd_disk_super, threshold[0]),
	F(struct vd_disk_super, next_link), F(struct vd_disk_super, reserve_blocks),
	{ ENTRY | 0, 0, 64 }, { ENTRY | 16, 0, 64 }, { ENTRY | 24, 0, 32 }, /* members */
};
#define HEAD \
	F(struct vd_disk_node, pool), F(struct vd_disk_node, a), F(struct vd_disk_node, b), F(struct vd_disk_node, gen), \
	F(struct vd_disk_node, kind), F(struct vd_disk_node, level), F(struct vd_disk_node, count), \
	F(struct vd_disk_node, owner), F(struct vd_disk_node, key_lo), F(struct vd_disk_node, key_hi)
#define HEAD_FIELDS 10u
static const struct field f_index[] = {
	HEAD, { ENTRY | 0, 0, 64 }, { ENTRY | 8, 0, 64 }, { ENTRY | 16, 0, 32 }, { ENTRY | 20, 0, 32 }, { ENTRY | 24, 0, 16 },
	{ ENTRY | 26, 0, 16 }, { ENTRY | 28, 0, 32 },
};
static const struct field f_extents[] = {
	HEAD, { ENTRY | 0, 0, 52 }, { ENTRY | 0, 52, 4 }, { ENTRY | 0, 56, 2 }, { ENTRY | 0, 58, 6 }, { ENTRY | 8, 0, 48 },
	{ ENTRY | 8, 48, 16 }, { ENTRY | 8, 0, 64 }, F(struct vd_disk_extents, birth[0]), F(struct vd_disk_extents, birth[1]),
	F(struct vd_disk_extents, birth[2]), F(struct vd_disk_extents, birth[15]),
};
static const struct field f_space[] = {
	HEAD, F(struct vd_disk_space, width), F(struct vd_disk_space, nblocks), { ENTRY | 0, 0, 64 }, { ENTRY | 0, 0, 8 },
	{ ENTRY | 3, 2, 2 },
};
#define V(name) F(struct vd_disk_volume, name)
static const struct field f_volume[] = {
	HEAD, V(id), V(flags), { offsetof(struct vd_disk_volume, name), 0, 64 }, { offsetof(struct vd_disk_volume, name) + 120, 0, 64 },
	V(size), V(mapped), ROOT(struct vd_disk_volume, root), V(last_snapshot), V(family), V(origin), V(created),
	V(reserved_blocks), V(own_blocks), V(lock.pid), V(npointers), V(attrs_len), V(pointer[0].mode), V(pointer[0].link),
	V(pointer[3].mode), { offsetof(struct vd_disk_volume, base) + 504, 0, 64 },
	{ offsetof(struct vd_disk_volume, attrs), 0, 64 }, { offsetof(struct vd_disk_volume, zero), 0, 64 },
};

#define T(f, entries, size) { f, sizeof(f) / sizeof((f)[0]), entries, size }
static const struct { const struct field *f; unsigned n, entries, size; } fields[FZ_TYPES] = {
	[FZ_LABEL] = T(f_label, 0, 0), [FZ_OWNER] = T(f_owner, 0, 0),
	[FZ_SUPER] = T(f_super, offsetof(struct vd_disk_super, member), sizeof(struct vd_disk_member)),
	[FZ_INDEX] = T(f_index, sizeof(struct vd_disk_node), sizeof(struct vd_disk_ptr)),
	[FZ_EXTENTS] = T(f_extents, offsetof(struct vd_disk_extents, e), sizeof(struct vd_disk_extent)),
	[FZ_SPACE] = T(f_space, offsetof(struct vd_disk_space, bits), 4), [FZ_VOLUME] = T(f_volume, 0, 0),
};

/* ---- one copy of an object in memory ------------------------------------------- */

struct block {
	uint8_t data[VD_SUPER_BLOCKS * VD_BLOCK];
	bool loaded, damaged;
};
struct work {
	struct sim *sim;
	const struct fz_map *map;
	struct block *b[FZ_OBJECTS][4];
	unsigned touched[4 * FZ_PATCHES * 8], n;
};

static struct block *get(struct work *w, unsigned o, unsigned copy)
{
	const struct fz_object *obj = &w->map->obj[o];
	struct block *b = w->b[o][copy];
	unsigned i;

	if (b)
		return b;
	if (w->n == sizeof(w->touched) / sizeof(w->touched[0]))
		return NULL;
	b = must_zero(sizeof(*b));
	for (i = 0; i < obj->nblocks; i++)
		fz_peek(w->sim, obj->at[copy].m, obj->at[copy].block + i, b->data + i * VD_BLOCK);
	w->touched[w->n++] = o * 4 + copy;
	return w->b[o][copy] = b;
}

static void seal(enum fz_type type, uint8_t *d, size_t size)
{
	size_t at = type <= FZ_SUPER ? 8 : 4;
	__le32 crc = 0;

	memcpy(d + at, &crc, 4);
	crc = cpu_to_le32(vd_port_crc32c(~0u, d, size));
	memcpy(d + at, &crc, 4);
}

static void put_all(struct work *w)
{
	unsigned i, k;

	for (i = 0; i < w->n; i++) {
		unsigned o = w->touched[i] / 4, copy = w->touched[i] % 4;
		const struct fz_object *obj = &w->map->obj[o];
		struct block *b = w->b[o][copy];

		if (!b->damaged)
			seal(obj->type, b->data, obj->nblocks * VD_BLOCK);
		for (k = 0; k < obj->nblocks; k++)
			fz_poke(w->sim, obj->at[copy].m, obj->at[copy].block + k, b->data + k * VD_BLOCK);
		free(b);
		w->b[o][copy] = NULL;
	}
	w->n = 0;
}

static unsigned count_of(const struct block *b)
{
	const struct vd_disk_node *h = (const struct vd_disk_node *)b->data;

	return le16_to_cpu(h->count);
}

/* Where a field is; false: it has no such place. */
static bool locate(enum fz_type type, const struct block *b, unsigned field, unsigned index, unsigned *at, struct field *f)
{
	*f = fields[type].f[field % fields[type].n];
	*at = f->offset & ~ENTRY;
	if (f->offset & ENTRY) {
		unsigned all = type == FZ_SUPER ? 4 : type == FZ_SPACE ? 1000 : count_of(b) + 2;

		*at += fields[type].entries + index % (all ? all : 1) * fields[type].size;
	}
	return *at + 8 <= (type == FZ_SUPER ? sizeof(b->data) : VD_BLOCK);
}

static uint64_t load(const struct block *b, unsigned at, const struct field *f)
{
	uint64_t mask = f->bits == 64 ? ~0ull : (1ull << f->bits) - 1;
	__le64 w;

	memcpy(&w, b->data + at, 8);
	return le64_to_cpu(w) >> f->shift & mask;
}

static void store(struct block *b, unsigned at, const struct field *f, uint64_t v)
{
	uint64_t mask = (f->bits == 64 ? ~0ull : (1ull << f->bits) - 1) << f->shift, old;
	__le64 w;

	memcpy(&w, b->data + at, 8);
	old = le64_to_cpu(w);
	w = cpu_to_le64((old & ~mask) | (v << f->shift & mask));
	memcpy(b->data + at, &w, 8);
}

/* ---- patches ----------------------------------------------------------------------- */

/* By its number, or, with the highest of 16 bits, as the nth of a type. */
static unsigned choose(const struct fz_map *map, unsigned first, unsigned end, uint64_t v)
{
	unsigned type = (unsigned)(v >> 12 & 7), all = 0, o, n;

	for (o = first; v & 0x8000 && o < end; o++)
		all += map->obj[o].type == type;
	if (!all)
		return first + (unsigned)(v % (end - first));
	n = (unsigned)(v & 0xfff) % all;
	for (o = first; n || map->obj[o].type != type; o++)
		n -= map->obj[o].type == type;
	return o;
}

/* The nth pointer field at or after the one meant: entries and roots. */
static int pointer_at(enum fz_type type, const struct block *b, const struct fz_patch *p)
{
	static const unsigned roots[] = { offsetof(struct vd_disk_super, space.ptr), offsetof(struct vd_disk_super, volumes.ptr),
					  offsetof(struct vd_disk_super, index.ptr) };

	if (type == FZ_SUPER)
		return (int)roots[p->field % 3];
	if (type == FZ_VOLUME)
		return (int)offsetof(struct vd_disk_volume, root.ptr);
	if (type != FZ_INDEX || !count_of(b))
		return -1;
	return (int)(sizeof(struct vd_disk_node) + p->index % vd_min(count_of(b), (unsigned)VD_INDEX_MAX) * sizeof(struct vd_disk_ptr));
}

static void entries(enum fz_type type, struct block *b, const struct fz_patch *p)
{
	unsigned size = fields[type].size, base = fields[type].entries, all = count_of(b), i, j, max;
	struct vd_disk_node *h = (struct vd_disk_node *)b->data;
	uint8_t tmp[32];

	if (type != FZ_INDEX && type != FZ_EXTENTS)
		return;
	max = (VD_BLOCK - base) / size;
	if (!all || all > max)
		return;
	i = p->index % all;
	j = (unsigned)(p->value % all);
	switch (p->op) {
	case FZ_DUP:
		if (all == max)
			return;
		memmove(b->data + base + (i + 1) * size, b->data + base + i * size, (all - i) * size);
		h->count = cpu_to_le16((uint16_t)(all + 1));
		return;
	case FZ_DEL:
		memmove(b->data + base + i * size, b->data + base + (i + 1) * size, (all - i - 1) * size);
		h->count = cpu_to_le16((uint16_t)(all - 1));
		return;
	default:
		memcpy(tmp, b->data + base + i * size, size);
		memcpy(b->data + base + i * size, b->data + base + j * size, size);
		memcpy(b->data + base + j * size, tmp, size);
	}
}

/* A field of a node's head, and of all that point to it. */
static void both(struct work *w, unsigned o, const struct fz_patch *p)
{
	unsigned i, copy;

	for (i = 0; i < w->map->nrefs; i++) {
		const struct fz_ref *ref = &w->map->ref[i];

		if (ref->child != o)
			continue;
		for (copy = 0; copy < w->map->obj[ref->parent].ncopies; copy++) {
			struct block *b = get(w, ref->parent, copy);
			struct vd_disk_ptr *ptr;

			if (!b)
				return;
			ptr = (struct vd_disk_ptr *)(b->data + ref->offset);
			switch (p->field % 3) {
			case 0:
				ptr->gen = cpu_to_le64(p->value);
				break;
			case 1:
				ptr->b_lo = cpu_to_le32((uint32_t)p->value);
				ptr->b_hi = cpu_to_le16((uint16_t)(p->value >> 32));
				break;
			default:
				ptr->a_lo = cpu_to_le32((uint32_t)p->value);
				ptr->a_hi = cpu_to_le16((uint16_t)(p->value >> 32));
			}
		}
	}
	for (copy = 0; copy < w->map->obj[o].ncopies; copy++) {
		struct block *b = get(w, o, copy);
		struct vd_disk_node *h;

		if (!b)
			return;
		h = (struct vd_disk_node *)b->data;
		switch (p->field % 3) {
		case 0:
			h->gen = cpu_to_le64(p->value);
			break;
		case 1:
			h->b = cpu_to_le64(p->value & VD_PBLK_NONE);
			break;
		default: /* it moves there */
			h->a = cpu_to_le64(p->value & VD_PBLK_NONE);
			seal(w->map->obj[o].type, b->data, VD_BLOCK);
			fz_poke(w->sim, VD_PBLK_MEMBER(p->value & VD_PBLK_NONE), VD_PBLK_BLOCK(p->value & VD_PBLK_NONE), b->data);
		}
	}
}

static void patch_copy(struct work *w, unsigned o, unsigned copy, const struct fz_patch *p, unsigned first, unsigned end)
{
	enum fz_type type = w->map->obj[o].type;
	unsigned other = choose(w->map, first, end, p->value & 0xffff), at, at2, n;
	struct block *b = get(w, o, copy), *from;
	struct field f, f2;
	int ptr;

	if (!b)
		return;
	b->damaged |= p->flags & FZ_DAMAGED;
	switch (p->op) {
	case FZ_SET:
	case FZ_ADD:
	case FZ_XOR:
		if (locate(type, b, p->field, p->index, &at, &f))
			store(b, at, &f, p->op == FZ_SET ? p->value : p->op == FZ_ADD ? load(b, at, &f) + p->value : load(b, at, &f) ^ p->value);
		return;
	case FZ_COPY:
		from = get(w, other, 0);
		if (from && w->map->obj[other].type == type && locate(type, b, p->field, p->index, &at, &f) &&
		    locate(type, from, p->field, (unsigned)(p->value >> 16), &at2, &f2))
			store(b, at, &f, load(from, at2, &f));
		return;
	case FZ_POINT:
		ptr = pointer_at(type, b, p);
		if (ptr < 0 || !w->map->obj[other].ptr.gen)
			return;
		memcpy(b->data + ptr + 8, (const uint8_t *)&w->map->obj[other].ptr + 8, 20); /* all but key and aux */
		if (type == FZ_VOLUME || type == FZ_SUPER) {
			from = get(w, other, 0);
			if (from)
				b->data[ptr + 32] = ((const struct vd_disk_node *)from->data)->level;
		}
		return;
	case FZ_BODY:
		from = get(w, other, 0);
		if (!from || w->map->obj[other].type != type)
			return;
		if (type <= FZ_SUPER) {
			memcpy(b->data, from->data, w->map->obj[o].nblocks * VD_BLOCK);
			return;
		}
		n = p->index & 1 ? offsetof(struct vd_disk_node, level) : offsetof(struct vd_disk_node, count);
		memcpy(b->data + n, from->data + n, VD_BLOCK - n);
		return;
	case FZ_DUP:
	case FZ_DEL:
	case FZ_SWAP:
		if (type > FZ_SUPER)
			entries(type, b, p);
		return;
	case FZ_BYTES:
		n = 1 + p->index % 8;
		at = p->field % (w->map->obj[o].nblocks * VD_BLOCK - n);
		memcpy(b->data + at, &p->value, n);
		return;
	case FZ_CUT:
		at = p->field % (w->map->obj[o].nblocks * VD_BLOCK);
		memset(b->data + at, (int)p->value, w->map->obj[o].nblocks * VD_BLOCK - at);
		return;
	}
}

/* For who looks at a crasher. */
static void tell(const struct fz_map *map, unsigned o, const struct fz_patch *p)
{
	static const char *const op[FZ_OPS] = { "set", "add", "xor", "copy", "point", "body", "dup", "del", "swap", "bytes", "both", "cut" };
	static const char *const type[FZ_TYPES] = { "label", "owner", "super", "index", "extents", "space", "volume" };
	enum fz_type t = map->obj[o].type;
	struct field f = fields[t].f[p->field % fields[t].n];
	union { struct vd_disk_node h; uint8_t raw[VD_BLOCK]; } b;

	if (!getenv("FZ_VERBOSE"))
		return;
	fz_peek(map->sim, map->obj[o].at[0].m, map->obj[o].at[0].block, &b);
	fprintf(stderr, "patch: %s %s (object %u at %u:%llu, %u entries) %s %u bits %u-%u entry %u value %#llx flags %u\n", op[p->op], type[t], o,
		map->obj[o].at[0].m, (unsigned long long)map->obj[o].at[0].block, t > FZ_SUPER ? le16_to_cpu(b.h.count) : 0, f.offset & ENTRY ? "entry offset" : "offset",
		f.offset & ~ENTRY, f.shift, f.shift + f.bits - 1, p->index, (unsigned long long)p->value, p->flags);
}

void fz_patch(struct sim *sim, const struct fz_map *map, unsigned first, unsigned end, const struct fz_patch *patch, unsigned n)
{
	static struct work w;
	unsigned i, o, copy;

	w.sim = sim;
	w.map = map;
	for (i = 0; i < n; i++) {
		struct fz_patch p = patch[i];

		p.op %= FZ_OPS;
		o = choose(map, first, end, p.object);
		tell(map, o, &p);
		if (p.op == FZ_BOTH) {
			if (o >= map->first_node)
				both(&w, o, &p);
			continue;
		}
		for (copy = 0; copy < map->obj[o].ncopies; copy++) {
			unsigned which = p.flags & (FZ_FIRST_COPY | FZ_SECOND_COPY);

			if (which == 0 || which == 3 || which == (copy ? FZ_SECOND_COPY : FZ_FIRST_COPY))
				patch_copy(&w, o, copy, &p, first, end);
		}
	}
	put_all(&w);
}

void fz_run(const uint8_t *data, size_t size, unsigned first, unsigned end, bool strict)
{
	struct fz_patch patch[FZ_PATCHES];
	const struct fz_map *map;
	struct fz_head head;
	struct fz_disk d;
	unsigned n;

	if (size < sizeof(head))
		return;
	memcpy(&head, data, sizeof(head));
	n = (unsigned)vd_min((size - sizeof(head)) / sizeof(patch[0]), (size_t)FZ_PATCHES);
	memcpy(patch, data + sizeof(head), n * sizeof(patch[0]));
	map = fz_map(head.shape % FZ_SHAPES);
	if (first == ~0u)
		first = map->first_node;
	if (!end)
		end = map->n;
	else if (end == ~0u)
		end = map->first_node;
	fz_disk_init(&d, sim_copy(map->sim), strict);
	fz_patch(d.sim, map, first, end, patch, n);
	fz_fail(&d, (uint16_t)head.spare);
	fz_work(&d, head.flags, head.seed);
	fz_disk_fini(&d);
}

/* ---- mutator ---------------------------------------------------------------------- */

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

uint64_t fz_interesting(struct rng *r)
{
	static const uint64_t some[] = {
		VD_VBLK_END, VD_PBLK_NONE, 1ull << 50 /* attention list */, VD_BLOCK, VD_GROUP_BLOCKS, VD_EXTENT_LEN_MAX, VD_INDEX_MAX,
		VD_EXTENTS_MAX, VD_EXTENTS_MAX + 1, VD_TREE_LEVELS_MAX, 2304, 4096, 2048, 1ull << 40, 1ull << 62, 16, 128, 15, 512,
	};

	switch (rng_below(r, 8)) {
	case 0:
		return rng_below(r, 4);
	case 1:
		return rng_below(r, 32);
	case 2:
		return ~0ull - rng_below(r, 3);
	case 3:
		return (1ull << rng_below(r, 64)) - rng_below(r, 2) + rng_below(r, 2);
	case 4:
		return some[rng_below(r, sizeof(some) / sizeof(some[0]))] + rng_below(r, 3) - 1;
	case 5:
		return VD_PBLK(rng_below(r, 3), rng_below(r, 3000));
	case 6:
		return rng_next(r);
	default:
		return rng_below(r, 5000);
	}
}

static void make_patch(struct rng *r, void *out)
{
	struct fz_patch p = {
		.op = (uint8_t)rng_below(r, FZ_OPS), .object = (uint16_t)rng_next(r), .field = (uint16_t)rng_next(r),
		.index = (uint16_t)(rng_one_in(r, 2) ? rng_below(r, 4) : rng_next(r)), .value = fz_interesting(r),
	};

	if (rng_one_in(r, 2))
		p.op = (uint8_t)rng_below(r, FZ_POINT + 1);
	if (p.op == FZ_COPY || p.op == FZ_POINT || p.op == FZ_BODY)
		p.value = rng_next(r) >> 32;
	if (rng_one_in(r, 6))
		p.flags = (uint8_t)rng_below(r, 8);
	memcpy(out, &p, sizeof(p));
}

const struct fz_kind fz_patches = { sizeof(struct fz_patch), FZ_PATCHES, make_patch, { 0, 1, 2, 4, 6, 8, 16 } };

/* Mostly whole elements; what the head says changes seldom. */
size_t fz_mutate(const struct fz_kind *kind, uint8_t *data, size_t size, size_t max, unsigned seed)
{
	struct rng r = rng_seeded(seed * 0x9e3779b97f4a7c15ull);
	struct fz_head head = { 0 };
	const size_t one = kind->size;
	uint8_t fresh[64], *at;
	unsigned n, k;

	if (size < sizeof(head)) {
		memcpy(data, &head, sizeof(head));
		size = sizeof(head);
	}
	if (rng_one_in(&r, 10))
		return LLVMFuzzerMutate(data, size, max);
	n = (unsigned)((size - sizeof(head)) / one);
	size = sizeof(head) + n * one;
	at = data + sizeof(head) + (n ? rng_below(&r, n) : 0) * one;
	kind->make(&r, fresh);
	switch (n ? rng_below(&r, 12) : 0) {
	case 0:
	case 1:
	case 2:
	case 3: /* one more */
		if (n >= kind->max || size + one > max)
			break;
		if (n && rng_one_in(&r, 3)) /* on the same thing */
			memcpy(fresh + kind->field[2], at + kind->field[2], kind->field[3] - kind->field[2]);
		if (rng_one_in(&r, 4)) { /* in the middle */
			memmove(at + one, at, (size_t)(data + size - at));
			memcpy(at, fresh, one);
		} else {
			memcpy(data + size, fresh, one);
		}
		return size + one;
	case 4: /* one less */
		memmove(at, at + one, (size_t)(data + size - at) - one);
		return size - one;
	case 5:
		memcpy(at, fresh, one);
		break;
	case 6:
		memcpy(&head, data, sizeof(head));
		switch (rng_below(&r, 5)) {
		case 0:
			head.shape = (uint8_t)rng_below(&r, FZ_SHAPES);
			break;
		case 1:
			head.flags = rng_one_in(&r, 2) ? 0 : (uint8_t)(1u << rng_below(&r, 5));
			break;
		case 2:
			head.spare = rng_one_in(&r, 2) ? 0 : (uint32_t)(rng_next(&r) & (rng_one_in(&r, 2) ? 0xff07 : ~0u));
			break;
		default:
			head.seed = (uint16_t)rng_next(&r);
		}
		memcpy(data, &head, sizeof(head));
		break;
	case 7: { /* a little more or less of its last number */
		uint64_t v;

		memcpy(&v, at + one - 8, 8);
		v += rng_below(&r, 17) - 8;
		memcpy(at + one - 8, &v, 8);
		break;
	}
	default: /* one field of one */
		for (k = 0; kind->field[k] < one; k++)
			;
		k = (unsigned)rng_below(&r, k);
		memcpy(at + kind->field[k], fresh + kind->field[k], kind->field[k + 1] - kind->field[k]);
	}
	return size;
}

/* Some elements of one and some of the other. */
size_t fz_cross(const struct fz_kind *kind, const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max,
		unsigned seed)
{
	const size_t head = sizeof(struct fz_head), one = kind->size;
	struct rng r = rng_seeded(seed);
	size_t n = head;

	max = vd_min(max, head + kind->max * one);
	if (na < head || nb < head || max < head)
		return 0;
	memcpy(out, a, head);
	for (na = (na - head) / one, a += head; na; na--, a += one)
		if (n + one <= max && rng_below(&r, 3)) {
			memcpy(out + n, a, one);
			n += one;
		}
	for (nb = (nb - head) / one, b += head; nb; nb--, b += one)
		if (n + one <= max && rng_below(&r, 3)) {
			memcpy(out + n, b, one);
			n += one;
		}
	return n;
}
