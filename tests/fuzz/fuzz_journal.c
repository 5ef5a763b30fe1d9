// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A journal, and memory that outlived its process, in which somebody wrote.
 *
 * An input says what follows the journal that an image has: records with any
 * contents, where blocks and commits end, what is in the tail's memory instead,
 * and which fields of the blocks are then changed.  Sequences, block numbers and
 * checksums are made right unless that is what is changed; so records are
 * believed as far as anyone who can write to the disk can make them be.
 */
#include "dm-target/core/journal_priv.h"

#include "patch.h"

enum kind {
	MAP, UNMAP, VOLUME, SNAP, VALID, ROLLBACK, DELETE, RAW,
	COMMIT, BLOCK, TAIL,     /* from here on records go there */
	PATCH_BLOCK, PATCH_TAIL,
	AGAIN,                   /* the last record once more */
	KINDS
};
struct element {
	uint8_t kind, flags;
	uint16_t x;
	uint32_t id;
	uint64_t v, w;
};
_Static_assert(sizeof(struct element) == 24, "layout of inputs");
#define ELEMENTS 40u
enum { TORN = 1, ONE_COPY = 2, KEEP_TAIL = 4, COMMIT_EACH = 8 }; /* fz_head.spare */

#define BLOCKS 100u
#define RING VD_TAIL_MIN /* what a journal this small has */
struct maker {
	const struct fz_map *map;
	/* where the image's journal ends */
	uint64_t start, blocks, number, seq, inc, epoch, pool;
	uint32_t crc, member[2];
	unsigned copies;
	/* what is made */
	struct vd_disk_journal block[BLOCKS];
	uint64_t first_seq;
	unsigned begin, n, used; /* blocks of complete commits; all; bytes of the last */
	bool tail;
	uint8_t *ring;
	uint64_t ring_used;
	uint8_t last[VD_REC_MAX];
};

/* ---- where it begins --------------------------------------------------------- */

static void best_super(const struct fz_map *map, struct vd_disk_super *s)
{
	struct vd_disk_super *t = must_zero(sizeof(*t));
	unsigned slot, i;

	for (slot = 0; slot < 2; slot++) {
		for (i = 0; i < VD_SUPER_BLOCKS; i++)
			fz_peek(map->sim, 0, VD_SUPER_BLOCK0 + slot * VD_SUPER_BLOCKS + i, (uint8_t *)t + i * VD_BLOCK);
		if (le64_to_cpu(t->generation) > le64_to_cpu(s->generation))
			*s = *t;
	}
	free(t);
}

static void find_end(struct maker *k)
{
	struct vd_disk_super *s = must_zero(sizeof(*s));
	struct vd_disk_journal b;
	uint64_t number, seq = 0;
	uint32_t crc;
	unsigned n;

	best_super(k->map, s);
	n = le32_to_cpu(s->nsegments);
	k->start = le64_to_cpu(s->journal_start);
	k->blocks = le64_to_cpu(s->journal_blocks);
	k->member[0] = le32_to_cpu(s->journal_member[0]);
	k->member[1] = le32_to_cpu(s->journal_member[1]);
	k->copies = k->member[1] == ~0u ? 1 : 2;
	k->inc = n ? le64_to_cpu(s->segment[n - 1].incarnation) : 0;
	k->seq = le64_to_cpu(s->seq);
	k->epoch = le64_to_cpu(s->epoch);
	memcpy(&k->pool, s->pool, 8);
	number = k->number = le64_to_cpu(s->journal_tail);
	crc = k->crc = le32_to_cpu(s->journal_crc);
	for (;;) {
		fz_peek(k->map->sim, k->member[0], k->start + number % k->blocks, &b);
		if (le32_to_cpu(b.magic) != VD_JOURNAL_MAGIC || le64_to_cpu(b.block) != number || le32_to_cpu(b.prev_crc) != crc ||
		    le32_to_cpu(b.crc) != vd_journal_block_crc(&b))
			break;
		number++;
		crc = le32_to_cpu(b.crc);
		seq = le64_to_cpu(b.last_seq);
		if (le16_to_cpu(b.flags) & VD_JOURNAL_END) {
			k->number = number;
			k->crc = crc;
			k->seq = vd_max(k->seq, seq);
		}
	}
	k->epoch += 8; /* what the journal may have raised it by */
	free(s);
}

/* ---- records and blocks ---------------------------------------------------------- */

static struct vd_disk_journal *new_block(struct maker *k)
{
	if (k->n == BLOCKS)
		return NULL;
	k->used = 0;
	return &k->block[k->n++];
}

static void commit(struct maker *k)
{
	unsigned i;

	for (i = k->begin; i < k->n; i++) {
		struct vd_disk_journal *b = &k->block[i];

		b->flags = cpu_to_le16((i == k->begin ? VD_JOURNAL_BEGIN : 0) | (i == k->n - 1 ? VD_JOURNAL_END : 0));
		b->first_seq = cpu_to_le64(k->first_seq);
		b->last_seq = cpu_to_le64(k->seq);
	}
	k->begin = k->n;
	k->used = VD_JOURNAL_PAYLOAD;
}

static void to_journal(struct maker *k, const void *rec, unsigned len)
{
	const uint8_t *p = rec;
	unsigned take;

	if (k->begin == k->n)
		k->first_seq = k->seq + 1;
	k->seq++;
	while (len) {
		if (k->begin == k->n || k->used == VD_JOURNAL_PAYLOAD)
			if (!new_block(k))
				return;
		take = vd_min(len, (unsigned)VD_JOURNAL_PAYLOAD - k->used);
		memcpy(k->block[k->n - 1].payload + k->used, p, take);
		k->used += take;
		k->block[k->n - 1].len = cpu_to_le16((uint16_t)k->used);
		p += take;
		len -= take;
	}
}

static void to_tail(struct maker *k, const void *rec, unsigned len)
{
	struct tail_rec h = { .seq = ++k->seq, .len = len };

	if (k->ring_used + sizeof(h) + len > RING)
		return;
	memcpy(k->ring + k->ring_used, &h, sizeof(h));
	memcpy(k->ring + k->ring_used + sizeof(h), rec, len);
	k->ring_used += sizeof(h) + len;
}

static void add(struct maker *k, const void *rec, unsigned len)
{
	if (len > VD_REC_MAX)
		return;
	memcpy(k->last, rec, len);
	if (k->tail)
		to_tail(k, rec, len);
	else
		to_journal(k, rec, len);
}

static struct vd_disk_rec head(enum vd_rec_type type, size_t len, uint32_t id)
{
	return (struct vd_disk_rec){ cpu_to_le16(type), cpu_to_le16((uint16_t)len), cpu_to_le32(id) };
}

/* A record like one that the image has, with one field changed and a name of its own. */
static void add_volume(struct maker *k, const struct element *e)
{
	union { struct vd_disk_volume d; uint8_t raw[VD_BLOCK]; } b;
	union { struct vd_disk_rec r; uint8_t raw[VD_BLOCK]; } rec = { .raw = { 0 } };
	unsigned o, n = 0, len, at;

	memset(&b, 0, sizeof(b));
	for (o = k->map->first_node; o < k->map->n; o++)
		if (k->map->obj[o].type == FZ_VOLUME && n++ == e->flags % 8)
			fz_peek(k->map->sim, k->map->obj[o].at[0].m, k->map->obj[o].at[0].block, b.raw);
	b.d.id = cpu_to_le32(e->id);
	if (e->v & 1)
		snprintf(b.d.name, sizeof(b.d.name), "n%u", (unsigned)(e->v >> 1 & 15));
	if (e->v & 32)
		b.d.npointers = 0, memset(b.d.pointer, 0, sizeof(b.d.pointer));
	if (e->v & 64)
		b.d.flags = cpu_to_le32((uint32_t)(e->v >> 8 & 255));
	if (e->v & 128)
		b.d.size = cpu_to_le64(e->v >> 16 << 12);
	at = 64 + e->x % 700;
	if (e->x & 0x8000)
		memcpy(b.raw + at, &e->w, 8);
	for (len = VD_BLOCK - sizeof(b.d.h); len && !b.raw[sizeof(b.d.h) + len - 1]; len--)
		;
	len = (unsigned)sizeof(rec.r) + ((len + 7) & ~7u);
	if (e->x & 0x4000)
		len = (unsigned)(sizeof(rec.r) + (e->w & 0xff8));
	rec.r = head(VD_REC_VOLUME, len, e->id);
	memcpy(rec.raw + sizeof(rec.r), b.raw + sizeof(b.d.h), VD_BLOCK - sizeof(b.d.h));
	add(k, rec.raw, len);
}

static void add_snap(struct maker *k, const struct element *e, enum vd_rec_type type)
{
	union { struct vd_disk_rec_snap s; uint8_t raw[256]; } rec = { .raw = { 0 } };
	uint32_t id[6] = { e->id, (uint32_t)e->v, (uint32_t)(e->v >> 32), (uint32_t)e->w, (uint32_t)(e->w >> 32), 0 };
	unsigned n = 1 + e->flags % 3, i, len = (unsigned)sizeof(rec.s) + n * 8;

	if (type == VD_REC_ROLLBACK)
		n = 1;
	rec.s.r = head(type, len, type == VD_REC_ROLLBACK ? id[2] : 0);
	rec.s.epoch = cpu_to_le64(e->x < 256 ? k->epoch++ : e->x < 512 ? e->w : k->epoch + e->x);
	rec.s.n = cpu_to_le32(e->flags & 128 ? e->flags : n);
	for (i = 0; i < n; i++) {
		rec.s.pair[i].origin = cpu_to_le32(id[2 * i]);
		rec.s.pair[i].clone = cpu_to_le32(id[2 * i + 1]);
	}
	add(k, rec.raw, len);
}

static void add_record(struct maker *k, const struct element *e)
{
	struct vd_disk_rec_unmap unmap = { .r = head(VD_REC_UNMAP, sizeof(unmap), e->id) };
	struct vd_disk_rec_map map = { .r = head(VD_REC_MAP, sizeof(map), e->id) };
	union { struct vd_disk_rec r; uint8_t raw[VD_REC_MAX]; } raw;
	unsigned len;

	switch (e->kind % KINDS) {
	case MAP:
		map.vblk = cpu_to_le64(e->v);
		map.pblk_len = cpu_to_le64(e->w);
		map.fresh = cpu_to_le64(e->x);
		add(k, &map, sizeof(map));
		return;
	case UNMAP:
		unmap.vblk = cpu_to_le64(e->v);
		unmap.len = cpu_to_le64(e->w);
		unmap.freed = cpu_to_le64(e->x);
		unmap.kind = cpu_to_le32(e->flags);
		add(k, &unmap, sizeof(unmap));
		return;
	case VOLUME:
		add_volume(k, e);
		return;
	case SNAP:
		add_snap(k, e, VD_REC_SNAP);
		return;
	case VALID:
		add_snap(k, e, VD_REC_VALID);
		return;
	case ROLLBACK:
		add_snap(k, e, VD_REC_ROLLBACK);
		return;
	case DELETE:
		raw.r = head(VD_REC_DELETE, sizeof(raw.r), e->id);
		add(k, &raw, sizeof(raw.r));
		return;
	case AGAIN:
		memcpy(&raw.r, k->last, sizeof(raw.r));
		len = le16_to_cpu(raw.r.len);
		if (len >= sizeof(raw.r) && len <= VD_REC_MAX) {
			memcpy(raw.raw, k->last, len);
			add(k, raw.raw, len);
		}
		return;
	default:
		len = 8 + (e->x & 0xff8);
		memset(&raw, (int)e->w, sizeof(raw));
		raw.r = head((enum vd_rec_type)e->v, e->flags & 1 ? e->w : len, e->id);
		add(k, &raw, vd_min(len, (unsigned)VD_REC_MAX));
	}
}

/* ---- onto the disks ----------------------------------------------------------------- */

static void patch_block(struct vd_disk_journal *b, const struct element *e)
{
	static const struct { uint16_t at; uint8_t size; } field[] = {
		{ 0, 4 }, { 8, 8 }, { 16, 8 }, { 24, 8 }, { 32, 4 }, { 36, 2 }, { 38, 2 }, { 40, 8 }, { 48, 8 },
		{ 56, 2 }, { 58, 2 }, { 60, 4 }, { 64, 8 }, { 72, 8 }, { 80, 8 }, { 4088, 8 },
	};
	const unsigned i = e->x % 16;
	uint64_t v = 0;

	memcpy(&v, (uint8_t *)b + field[i].at, field[i].size);
	v = e->flags & 1 ? e->v : v + e->v;
	memcpy((uint8_t *)b + field[i].at, &v, field[i].size);
}

static void write_blocks(struct maker *k, struct sim *sim, const struct element *el, unsigned n, unsigned copy)
{
	uint32_t crc = k->crc;
	unsigned i, j;

	for (i = 0; i < k->n; i++) {
		struct vd_disk_journal b = k->block[i];
		bool late = false;

		b.magic = cpu_to_le32(VD_JOURNAL_MAGIC);
		b.pool = k->pool;
		b.incarnation = cpu_to_le64(k->inc);
		b.block = cpu_to_le64(k->number + i);
		b.prev_crc = cpu_to_le32(crc);
		for (j = 0; j < n; j++) {
			if (el[j].kind % KINDS != PATCH_BLOCK || el[j].id % k->n != i)
				continue;
			if (el[j].flags & (copy ? 4 : 2)) /* not this copy */
				continue;
			if (el[j].flags & 8)
				late = true;
			else
				patch_block(&b, &el[j]);
		}
		crc = vd_journal_block_crc(&b);
		b.crc = cpu_to_le32(crc);
		for (j = 0; late && j < n; j++)
			if (el[j].kind % KINDS == PATCH_BLOCK && el[j].id % k->n == i && el[j].flags & 8)
				patch_block(&b, &el[j]);
		fz_poke(sim, k->member[copy], k->start + (k->number + i) % k->blocks, &b);
	}
}

static void write_tail(struct maker *k, struct sim *sim, const struct element *el, unsigned n)
{
	struct tail_head *th;
	uint64_t pos;
	unsigned j;

	if (!sim->tail) {
		sim->tail = must_zero((RING + VD_TAIL_HEAD));
		sim->tail_size = (RING + VD_TAIL_HEAD);
	}
	th = sim->tail;
	memcpy(th->magic, TAIL_MAGIC, sizeof(th->magic));
	th->bytes = RING;
	th->pool = le64_to_cpu(k->pool);
	th->incarnation = k->inc;
	vd_atomic_set(&th->first, 0);
	vd_atomic_set(&th->end, (int64_t)k->ring_used);
	for (j = 0; j < n; j++)
		if (el[j].kind % KINDS == PATCH_TAIL && el[j].id % 2 == 0)
			memcpy((uint8_t *)th + el[j].x % (sizeof(*th) - 8), &el[j].v, 1 + el[j].flags % 8);
	th->crc = vd_port_crc32c(~0u, &th->bytes, offsetof(struct tail_head, first) - offsetof(struct tail_head, bytes));
	for (pos = 0; pos < k->ring_used;) {
		struct tail_rec h;
		unsigned len;

		memcpy(&h, k->ring + pos, sizeof(h));
		len = h.len;
		for (j = 0; j < n; j++)
			if (el[j].kind % KINDS == PATCH_TAIL && el[j].id % 2 && el[j].w == h.seq - k->seq)
				memcpy((uint8_t *)&h + el[j].x % 16, &el[j].v, 1 + el[j].flags % (16 - el[j].x % 16) % 8);
		h.crc = vd_port_crc32c(th->crc, k->ring + pos + sizeof(h), len);
		h.crc = vd_port_crc32c(h.crc, &h.seq, sizeof(h.seq));
		memcpy(k->ring + pos, &h, sizeof(h));
		pos += sizeof(h) + len;
	}
	memcpy((uint8_t *)sim->tail + VD_TAIL_HEAD, k->ring, k->ring_used);
}

/* ---- one run -------------------------------------------------------------------------- */

static void run(const uint8_t *data, size_t size)
{
	static struct maker k;
	static uint8_t *ring;
	struct element el[ELEMENTS];
	struct fz_head h;
	struct fz_disk d;
	unsigned n, i;

	if (size < sizeof(h))
		return;
	memcpy(&h, data, sizeof(h));
	n = (unsigned)vd_min((size - sizeof(h)) / sizeof(el[0]), (size_t)ELEMENTS);
	memcpy(el, data + sizeof(h), n * sizeof(el[0]));
	if (!ring)
		ring = must_zero(RING);
	memset(&k, 0, sizeof(k));
	k.ring = ring;
	k.map = fz_map(h.shape % FZ_TALL);
	find_end(&k);
	for (i = 0; i < n; i++) {
		switch (el[i].kind % KINDS) {
		case COMMIT:
			commit(&k);
			break;
		case BLOCK:
			if (k.n > k.begin)
				k.used = VD_JOURNAL_PAYLOAD;
			break;
		case TAIL:
			commit(&k);
			k.tail = true;
			break;
		case PATCH_BLOCK:
		case PATCH_TAIL:
			break;
		default:
			add_record(&k, &el[i]);
			if (h.spare & COMMIT_EACH && !k.tail)
				commit(&k);
		}
	}
	if (!(h.spare & TORN))
		commit(&k);
	fz_disk_init(&d, sim_copy(k.map->sim), true);
	for (i = 0; i < (h.spare & ONE_COPY ? 1 : k.copies); i++)
		write_blocks(&k, d.sim, el, n, i);
	if (k.tail || !(h.spare & KEEP_TAIL)) {
		d.sim->no_tail = !k.tail;
		if (k.tail)
			write_tail(&k, d.sim, el, n);
	}
	fz_fail(&d, (uint16_t)(h.spare >> 16));
	fz_work(&d, h.flags, h.seed);
	fz_disk_fini(&d);
}

static uint64_t some_id(struct rng *r)
{
	return rng_one_in(r, 10) ? fz_interesting(r) : 1 + rng_below(r, 14);
}

static void make(struct rng *r, void *out)
{
	struct element e = {
		.kind = (uint8_t)rng_below(r, KINDS), .flags = (uint8_t)(rng_one_in(r, 3) ? rng_next(r) : rng_below(r, 4)),
		.x = (uint16_t)(rng_one_in(r, 3) ? rng_next(r) : rng_below(r, 4)), .id = (uint32_t)some_id(r),
		.v = fz_interesting(r), .w = fz_interesting(r),
	};

	if (rng_one_in(r, 3))
		e.kind = (uint8_t)rng_below(r, DELETE + 1);
	switch (e.kind) {
	case MAP: /* blocks that nobody has, mostly */
		e.v = rng_one_in(r, 4) ? fz_interesting(r) : rng_below(r, 3000);
		if (rng_below(r, 8))
			e.w = VD_PBLK(rng_below(r, 2), 1600 + rng_below(r, 600)) | rng_below(r, 20) << 48;
		if (rng_below(r, 4))
			e.x = (uint16_t)(rng_below(r, 2) * ((e.w >> 48) + 1));
		break;
	case UNMAP:
		e.v = rng_one_in(r, 4) ? fz_interesting(r) : rng_below(r, 3000);
		if (rng_below(r, 4))
			e.x = 0, e.w = 1 + rng_below(r, 50);
		break;
	case VOLUME:
		e.flags = (uint8_t)rng_next(r);
		e.v = rng_next(r);
		if (rng_one_in(r, 2))
			e.v &= 0xfffff;
		break;
	case SNAP:
	case VALID:
	case ROLLBACK:
		e.v = some_id(r) | some_id(r) << 32;
		e.w = some_id(r) | some_id(r) << 32;
		break;
	}
	memcpy(out, &e, sizeof(e));
}

static const struct fz_kind elements = { sizeof(struct element), ELEMENTS, make, { 0, 1, 2, 4, 8, 16, 24 } };

FZ_TARGET(&elements, run(data, size))
