// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "ref.h"

const char *const ref_op_name[REF_KINDS] = {
	"none", "write", "unmap", "create", "delete", "rename", "resize", "snapshot", "rollback",
	"attrs", "lock", "unlock", "pointer-add", "pointer-del", "readonly", "reserve", "pointer-set",
	"policy", "transaction", "server-add", "server-del",
};

static void *must_alloc(size_t n)
{
	void *p = calloc(1, n ? n : 1);

	if (!p)
		abort();
	return p;
}

/* ---- a volume's pages ------------------------------------------------- */

static uint64_t unwritten(const struct ref_vol *v, uint64_t sector)
{
	return sector < v->nbase ? VALUE_BASE : 0;
}

static void page_put(struct ref_page *p)
{
	if (p && !--p->refs)
		free(p);
}

static struct ref_page **slot_of(const struct ref_vol *v, uint64_t number)
{
	unsigned i = (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 32) & (v->nbuckets - 1);

	while (v->bucket[i] && v->bucket[i]->number != number)
		i = (i + 1) & (v->nbuckets - 1);
	return &v->bucket[i];
}

static struct ref_page *page_find(const struct ref_vol *v, uint64_t number)
{
	return v->nbuckets ? *slot_of(v, number) : NULL;
}

static void rehash(struct ref_vol *v, unsigned nbuckets)
{
	struct ref_page **old = v->bucket;
	unsigned n = v->nbuckets, i;

	v->bucket = must_alloc(nbuckets * sizeof(*v->bucket));
	v->nbuckets = nbuckets;
	for (i = 0; i < n; i++)
		if (old[i])
			*slot_of(v, old[i]->number) = old[i];
	free(old);
}

/* The page, its own to change. */
static struct ref_page *page_own(struct ref_vol *v, uint64_t number)
{
	struct ref_page **slot, *p;
	unsigned i;

	if (!page_find(v, number) && v->npages * 2 >= v->nbuckets)
		rehash(v, v->nbuckets ? v->nbuckets * 2 : 16);
	slot = slot_of(v, number);
	if (*slot && (*slot)->refs == 1)
		return *slot;
	p = must_alloc(sizeof(*p));
	if (*slot) {
		*p = **slot;
		page_put(*slot);
	} else {
		p->number = number;
		for (i = 0; i < PAGE_SECTORS; i++)
			p->value[i] = unwritten(v, number * PAGE_SECTORS + i);
		memset(p->kind, v->nbase ? VD_BASE : VD_HOLE, sizeof(p->kind));
		v->npages++;
	}
	p->refs = 1;
	return *slot = p;
}

static void pages_drop(struct ref_vol *v)
{
	unsigned i;

	for (i = 0; i < v->nbuckets; i++)
		page_put(v->bucket[i]);
	free(v->bucket);
	v->bucket = NULL;
	v->nbuckets = v->npages = 0;
}

static void pages_share(struct ref_vol *to, const struct ref_vol *from)
{
	unsigned i;

	to->nbuckets = from->nbuckets;
	to->npages = from->npages;
	to->bucket = NULL;
	if (!from->nbuckets)
		return;
	to->bucket = must_alloc(from->nbuckets * sizeof(*to->bucket));
	for (i = 0; i < from->nbuckets; i++)
		if ((to->bucket[i] = from->bucket[i]))
			to->bucket[i]->refs++;
}

static void past_copy(struct ref_vol *to, const struct ref_vol *from)
{
	to->past = must_alloc(from->npast * sizeof(*to->past));
	if (from->npast)
		memcpy(to->past, from->past, from->npast * sizeof(*to->past));
	to->npast = to->past_room = from->npast;
	to->past_sorted = from->past_sorted;
}

static void past_add(struct ref_vol *v, uint64_t sector, uint64_t value)
{
	if (v->npast == v->past_room) {
		v->past_room = v->past_room ? v->past_room * 2 : 64;
		v->past = realloc(v->past, v->past_room * sizeof(*v->past));
		if (!v->past)
			abort();
	}
	v->past[v->npast++] = (struct ref_past){ sector, value };
	v->past_sorted = false;
}

static int past_order(const void *a, const void *b)
{
	const struct ref_past *x = a, *y = b;

	if (x->sector != y->sector)
		return x->sector < y->sector ? -1 : 1;
	return x->value < y->value ? -1 : x->value > y->value;
}

static bool past_has(struct ref_vol *v, uint64_t sector, uint64_t value)
{
	struct ref_past key = { sector, value };

	if (!v->past_sorted && v->npast)
		qsort(v->past, v->npast, sizeof(*v->past), past_order);
	v->past_sorted = true;
	return v->npast && bsearch(&key, v->past, v->npast, sizeof(*v->past), past_order);
}

static void set(struct ref_vol *v, uint64_t sector, uint64_t value)
{
	struct ref_page *p = page_own(v, sector / PAGE_SECTORS);
	uint64_t *now = &p->value[sector % PAGE_SECTORS];

	if (*now == value)
		return;
	past_add(v, sector, *now);
	*now = value;
}

static void set_kind(struct ref_vol *v, uint64_t off, uint64_t len, enum vd_ext_kind kind)
{
	uint64_t b;

	for (b = off / VD_BLOCK; b < (off + len + VD_BLOCK - 1) / VD_BLOCK; b++)
		page_own(v, b / PAGE_BLOCKS)->kind[b % PAGE_BLOCKS] = (uint8_t)kind;
}

uint64_t ref_value(const struct ref_vol *v, uint64_t sector)
{
	const struct ref_page *p = page_find(v, sector / PAGE_SECTORS);

	return p ? p->value[sector % PAGE_SECTORS] : unwritten(v, sector);
}

enum vd_ext_kind ref_kind(const struct ref_vol *v, uint64_t vblk)
{
	const struct ref_page *p = page_find(v, vblk / PAGE_BLOCKS);

	return p ? (enum vd_ext_kind)p->kind[vblk % PAGE_BLOCKS] : v->nbase ? VD_BASE : VD_HOLE;
}

uint64_t ref_mapped(const struct ref_vol *v)
{
	uint64_t n = 0;
	unsigned i, k;

	for (i = 0; i < v->nbuckets; i++)
		for (k = 0; v->bucket[i] && k < PAGE_BLOCKS; k++)
			n += v->bucket[i]->kind[k] == VD_DATA;
	return n;
}

/* ---- the model -------------------------------------------------------- */

struct ref *ref_new(void)
{
	struct ref *ref = must_alloc(sizeof(*ref));

	ref->exact = true;
	ref->next_value = 1;
	return ref;
}

static void vol_free(struct ref_vol *v)
{
	pages_drop(v);
	free(v->past);
	free(v);
}

struct ref *ref_copy(const struct ref *ref)
{
	struct ref *to = must_alloc(sizeof(*to));
	unsigned i;

	*to = *ref;
	for (i = 0; i < ref->n; i++) {
		to->vol[i] = must_alloc(sizeof(**to->vol));
		*to->vol[i] = *ref->vol[i];
		pages_share(to->vol[i], ref->vol[i]);
		past_copy(to->vol[i], ref->vol[i]);
	}
	return to;
}

void ref_free(struct ref *ref)
{
	unsigned i;

	if (!ref)
		return;
	for (i = 0; i < ref->n; i++)
		vol_free(ref->vol[i]);
	free(ref);
}

struct ref_vol *ref_find(struct ref *ref, uint32_t id)
{
	unsigned i;

	for (i = 0; i < ref->n; i++)
		if (ref->vol[i]->id == id)
			return ref->vol[i];
	return NULL;
}

struct ref_vol *ref_named(struct ref *ref, const char *name)
{
	unsigned i;

	for (i = 0; i < ref->n; i++)
		if (!strcmp(ref->vol[i]->name, name))
			return ref->vol[i];
	return NULL;
}

static struct ref_vol *vol_add(struct ref *ref, uint32_t id, const char *name)
{
	struct ref_vol *v = must_alloc(sizeof(*v));

	if (ref->n == REF_VOLS)
		abort();
	v->id = v->family = id;
	snprintf(v->name, sizeof(v->name), "%s", name);
	ref->vol[ref->n++] = v;
	return v;
}

static void unmap_block(struct ref_vol *v, uint64_t b)
{
	unsigned i;

	for (i = 0; i < VD_SECTORS_PER_BLOCK; i++)
		set(v, b * VD_SECTORS_PER_BLOCK + i, 0);
	set_kind(v, b * VD_BLOCK, VD_BLOCK, v->nbase ? VD_ZERO : VD_HOLE);
}

/* Whole blocks only.  Without a base it is enough to go through the pages there are. */
static void unmap(struct ref_vol *v, uint64_t off, uint64_t len)
{
	uint64_t first = (off + VD_BLOCK - 1) / VD_BLOCK, end = (off + len) / VD_BLOCK, b;
	unsigned i, k;

	if (v->nbase) {
		for (b = first; b < end; b++)
			unmap_block(v, b);
		return;
	}
	for (i = 0; i < v->nbuckets; i++)
		for (k = 0; v->bucket[i] && k < PAGE_BLOCKS; k++) {
			b = v->bucket[i]->number * PAGE_BLOCKS + k;
			if (b >= first && b < end)
				unmap_block(v, b);
		}
}

/* What lies at and above size is gone for good, whatever grows there later. */
static void cut_off(struct ref_vol *v, uint64_t size)
{
	unsigned i, n = 0;

	unmap(v, size, v->size - size);
	for (i = 0; i < v->npast; i++)
		if (v->past[i].sector * SECTOR < size)
			v->past[n++] = v->past[i];
	v->npast = n;
}

static void past_drop(struct ref_vol *v)
{
	v->npast = 0;
	v->past_sorted = false;
}

void ref_flushed(struct ref *ref)
{
	unsigned i;

	for (i = 0; i < ref->n; i++)
		past_drop(ref->vol[i]);
}

void ref_begin(struct ref *ref, const struct ref_op *op)
{
	if (ref->op.kind != REF_NONE)
		abort();
	ref->op = *op;
}

void ref_undone(struct ref *ref)
{
	ref->op.kind = REF_NONE;
}

static void write_done(struct ref *ref, uint64_t bytes)
{
	struct ref_vol *v = ref_find(ref, ref->op.id);
	uint64_t s;

	for (s = ref->op.off / SECTOR; s < (ref->op.off + bytes) / SECTOR; s++)
		set(v, s, ref->op.value);
	if (bytes)
		set_kind(v, ref->op.off, bytes, VD_DATA);
}

void ref_done_partly(struct ref *ref, uint64_t bytes)
{
	write_done(ref, bytes);
	ref->op.kind = REF_NONE;
}

static void vol_gone(struct ref *ref, uint32_t id)
{
	unsigned i;

	for (i = 0; ref->vol[i]->id != id; i++)
		;
	vol_free(ref->vol[i]);
	ref->vol[i] = ref->vol[--ref->n];
}

void ref_done(struct ref *ref)
{
	const struct ref_op *op = &ref->op;
	struct ref_vol *v = ref_find(ref, op->id), *c;
	unsigned i;

	switch (op->kind) {
	case REF_WRITE:
		write_done(ref, op->len);
		break;
	case REF_UNMAP:
		unmap(v, op->off, op->len);
		break;
	case REF_CREATE:
		v = vol_add(ref, op->id, op->name);
		v->size = op->size;
		v->nbase = op->nbase;
		v->readonly = op->readonly;
		v->reserved = op->reserved;
		snprintf(v->attrs, sizeof(v->attrs), "%s", op->attrs);
		break;
	case REF_DELETE:
		vol_gone(ref, op->id);
		break;
	case REF_RENAME:
		snprintf(v->name, sizeof(v->name), "%s", op->name);
		break;
	case REF_RESIZE:
		if (op->size < v->size)
			cut_off(v, op->size);
		v->size = op->size;
		v->reserved = vd_min(v->reserved, v->size / VD_BLOCK);
		break;
	case REF_SNAPSHOT:
		for (i = 0; i < op->n; i++) {
			v = ref_find(ref, op->pair[i].origin);
			c = vol_add(ref, op->pair[i].id, op->pair[i].name);
			c->family = v->family;
			c->origin = v->id;
			c->size = v->size;
			c->nbase = v->nbase;
			c->readonly = op->pair[i].readonly;
			pages_share(c, v);
			past_drop(v); /* the snapshot was flushed, and it is the same blocks */
		}
		break;
	case REF_ROLLBACK:
		c = ref_find(ref, op->other);
		pages_drop(v);
		free(v->past);
		pages_share(v, c);
		past_copy(v, c);
		v->size = c->size;
		v->reserved = vd_min(v->reserved, v->size / VD_BLOCK);
		break;
	case REF_ATTRS:
		snprintf(v->attrs, sizeof(v->attrs), "%s", op->attrs);
		break;
	case REF_LOCK:
		v->locked = true;
		break;
	case REF_UNLOCK:
		v->locked = false;
		break;
	case REF_POINTER_ADD:
		v->opener[v->npointers] = op->value;
		v->link[v->npointers++] = op->other;
		break;
	case REF_POINTER_DEL:
		for (i = 0; i < v->npointers && v->link[i] != op->other; i++)
			;
		v->npointers--;
		memmove(&v->link[i], &v->link[i + 1], (v->npointers - i) * sizeof(v->link[0]));
		memmove(&v->opener[i], &v->opener[i + 1], (v->npointers - i) * sizeof(v->opener[0]));
		break;
	case REF_POINTER_SET:
		for (i = 0; i < v->npointers; i++)
			if (v->link[i] == op->other)
				v->opener[i] = op->value;
		break;
	case REF_POLICY:
		ref->policy = op->policy;
		break;
	case REF_TRANSACTION:
		ref->transaction = op->value;
		break;
	case REF_SERVER_ADD:
	case REF_SERVER_DEL:
		ref->server[op->other].there = op->kind == REF_SERVER_ADD;
		snprintf(ref->server[op->other].attrs, sizeof(op->attrs), "%s", op->attrs);
		break;
	case REF_READONLY:
		v->readonly = op->readonly;
		break;
	case REF_RESERVE:
		v->reserved = op->reserved;
		break;
	case REF_NONE:
	case REF_KINDS:
		break;
	}
	ref->op.kind = REF_NONE;
}

/* ---- comparison ------------------------------------------------------- */

struct look {
	struct ref *ref;
	struct sim *sim;
	struct vd_pool *pool;
	enum ref_mode mode;
	struct rng *rng;
	char *msg;
	size_t size;
};

#define say(k, ...) (snprintf((k)->msg, (k)->size, __VA_ARGS__), -1)

/*
 * One page of v against what the engine shows.  `keep` makes what is found the
 * model's own.
 */
static int look_page(struct look *k, struct ref_vol *v, struct vd_volume *h, uint64_t number, bool keep)
{
	const struct ref_op *op = &k->ref->op;
	bool may_write = (op->kind == REF_WRITE || op->kind == REF_UNMAP) && op->id == v->id;
	uint64_t off = number * PAGE_BYTES, len, s, first, new_from = 0, new_to = 0, new_value = 0;
	uint8_t *buf;
	int r;

	if (off >= v->size)
		return 0;
	len = vd_min((uint64_t)PAGE_BYTES, v->size - off);
	if (may_write && op->kind == REF_WRITE) {
		new_from = op->off / SECTOR;
		new_to = (op->off + op->len) / SECTOR;
		new_value = op->value;
	} else if (may_write) {
		new_from = (op->off + VD_BLOCK - 1) / VD_BLOCK * VD_SECTORS_PER_BLOCK;
		new_to = (op->off + op->len) / VD_BLOCK * VD_SECTORS_PER_BLOCK;
	}
	buf = malloc(len);
	if (!buf)
		abort();
	r = io_read(k->sim, h, v->nbase, off, buf, len, NULL);
	if (r) {
		r = say(k, "volume %u (%s): read of %llu+%llu: error %d", v->id, v->name, (unsigned long long)off, (unsigned long long)len, r);
		goto out;
	}
	first = off / SECTOR;
	for (s = first; s < first + len / SECTOR; s++) {
		uint64_t got = stamp_read(buf + (s - first) * SECTOR, s), now = ref_value(v, s);
		bool is_new = got != now && s >= new_from && s < new_to && got == new_value;

		if (got == now)
			continue;
		if (!is_new && !(k->mode >= REF_KILLED_NO_TAIL && past_has(v, s, got))) {
			char what[100];

			stamp_describe(buf + (s - first) * SECTOR, what, sizeof(what));
			r = say(k, "volume %u (%s): sector %llu (block %llu): found %s; it was write %llu%s%s", v->id, v->name,
				(unsigned long long)s, (unsigned long long)s / VD_SECTORS_PER_BLOCK, got ? what : "zeros",
				(unsigned long long)now, now == VALUE_BASE ? " (base)" : now ? "" : " (zeros)",
				past_has(v, s, got) ? ", and that one is older" : "");
			goto out;
		}
		if (keep && k->mode != REF_POWER_CUT)
			set(v, s, got);
		else if (keep)
			page_own(v, number)->value[s % PAGE_SECTORS] = got;
	}
	r = 0;
out:
	free(buf);
	return r;
}

static int look_contents(struct look *k, struct ref_vol *v, bool keep)
{
	const struct ref_op *op = &k->ref->op;
	const struct ref_vol *other = op->kind == REF_ROLLBACK && op->id == v->id ? ref_find(k->ref, op->other) : NULL;
	struct vd_volume *h;
	uint64_t *number, n, i, p;
	int r;

	r = vd_volume_open(k->pool, v->id, &h);
	if (r)
		return say(k, "volume %u (%s): open: error %d", v->id, v->name, r);
	if (vd_volume_size(h) != v->size) {
		r = say(k, "volume %u (%s): is %llu bytes and should be %llu", v->id, v->name,
			(unsigned long long)vd_volume_size(h), (unsigned long long)v->size);
		goto out;
	}
	/* the pages that there are, those of a pending write, and a few others */
	number = must_alloc((v->npages + 300 + (other ? other->npages : 0)) * sizeof(*number));
	for (n = 0, i = 0; i < v->nbuckets; i++)
		if (v->bucket[i])
			number[n++] = v->bucket[i]->number;
	if ((op->kind == REF_WRITE || op->kind == REF_UNMAP) && op->id == v->id)
		for (p = op->off / PAGE_BYTES, i = 0; p <= (op->off + op->len - 1) / PAGE_BYTES && i < 256; p++, i++)
			if (!page_find(v, p))
				number[n++] = p;
	for (i = 0; other && i < other->nbuckets; i++) /* what a pending rollback would put there */
		if (other->bucket[i] && !page_find(v, other->bucket[i]->number))
			number[n++] = other->bucket[i]->number;
	for (i = 0; v->size && i < 4; i++) {
		p = rng_below(k->rng, (v->size - 1) / PAGE_BYTES + 1);
		if (!page_find(v, p))
			number[n++] = p;
	}
	if (v->nbase)
		for (p = 0, i = 0; p <= (v->nbase - 1) / PAGE_SECTORS && i < 32; p++, i++)
			if (!page_find(v, p))
				number[n++] = p;
	for (i = 0; !r && i < n; i++)
		r = look_page(k, v, h, number[i], keep);
	free(number);
out:
	vd_volume_close(h);
	return r;
}

static int look_record(struct look *k, struct ref_vol *v)
{
	struct vd_volume_info info;
	uint32_t id;
	unsigned i;
	int r;

	r = vd_volume_info(k->pool, v->id, &info);
	if (r)
		return say(k, "volume %u (%s): info: error %d", v->id, v->name, r);
	if (strcmp(info.name, v->name))
		return say(k, "volume %u: is called %s and should be %s", v->id, info.name, v->name);
	r = vd_volume_find(k->pool, v->name, &id);
	if (r || id != v->id)
		return say(k, "volume %u (%s): found by its name: %d, volume %u", v->id, v->name, r, r ? 0 : id);
	if (info.size != v->size)
		return say(k, "volume %u (%s): size %llu should be %llu", v->id, v->name, (unsigned long long)info.size, (unsigned long long)v->size);
	if (!!(info.flags & VD_VOL_READONLY) != v->readonly || !!(info.flags & VD_VOL_LOCKED) != v->locked ||
	    info.flags & (VD_VOL_DELETING | VD_VOL_PENDING) || !!(info.flags & VD_VOL_BASE) != !!v->nbase)
		return say(k, "volume %u (%s): flags %#x", v->id, v->name, info.flags);
	if (base_sectors(info.base) != v->nbase)
		return say(k, "volume %u (%s): base %s", v->id, v->name, info.base);
	if (strcmp(info.attrs, v->attrs))
		return say(k, "volume %u (%s): attrs '%s' should be '%s'", v->id, v->name, info.attrs, v->attrs);
	if (info.npointers != v->npointers)
		return say(k, "volume %u (%s): %u pointers should be %u", v->id, v->name, info.npointers, v->npointers);
	for (i = 0; i < v->npointers; i++) {
		const struct vd_disk_pointer *p = &info.pointer[i];

		if (le32_to_cpu(p->link) != v->link[i] || (le64_to_cpu(p->who.pid) | (p->mode ? REF_RW : 0)) != v->opener[i])
			return say(k, "volume %u (%s): pointer %u is link %u of %llu, mode %u, should be link %u of %llu%s", v->id, v->name, i,
				   le32_to_cpu(p->link), (unsigned long long)le64_to_cpu(p->who.pid), le32_to_cpu(p->mode), v->link[i],
				   (unsigned long long)(v->opener[i] & ~REF_RW), v->opener[i] & REF_RW ? ", read-write" : "");
	}
	if (info.reserved != v->reserved)
		return say(k, "volume %u (%s): %llu blocks reserved, should be %llu", v->id, v->name,
			   (unsigned long long)info.reserved, (unsigned long long)v->reserved);
	if (k->ref->exact && info.mapped != ref_mapped(v))
		return say(k, "volume %u (%s): maps %llu blocks and should %llu", v->id, v->name,
			   (unsigned long long)info.mapped, (unsigned long long)ref_mapped(v));
	return 0;
}

static bool same_policy(const struct vd_pool_policy *a, const struct vd_pool_policy *b)
{
	return !memcmp(a->threshold, b->threshold, sizeof(a->threshold)) && a->flags == b->flags && a->grow_by == b->grow_by &&
	       a->grow_to == b->grow_to;
}

static int look_pool(struct look *k)
{
	struct vd_pool_info info;

	vd_pool_info(k->pool, &info);
	if (!same_policy(&info.policy, &k->ref->policy))
		return say(k, "the pool's policy: flags %u, growth by %llu, and should be %u, %llu", info.policy.flags,
			   (unsigned long long)info.policy.grow_by, k->ref->policy.flags, (unsigned long long)k->ref->policy.grow_by);
	if (info.transaction != k->ref->transaction)
		return say(k, "the pool's transaction is %llu and should be %llu", (unsigned long long)info.transaction,
			   (unsigned long long)k->ref->transaction);
	return 0;
}

void ref_server_name(uint32_t place, char name[8])
{
	snprintf(name, 8, "s%u", place);
}

/* 1: it is there; *info is its */
static int look_server(struct look *k, uint32_t place, struct vd_server_info *info)
{
	char name[8];
	uint32_t id;
	int r;

	ref_server_name(place, name);
	r = vd_server_find(k->pool, name, &id);
	if (!r)
		r = vd_server_info(k->pool, id, info);
	return r == -ENOENT ? 0 : r ? say(k, "server %s: error %d", name, r) : 1;
}

static int look_servers(struct look *k)
{
	struct vd_server_info info;
	unsigned i, n = 0;
	uint32_t id;
	int r;

	for (i = 0; i < REF_SERVERS; i++) {
		r = look_server(k, i, &info);
		if (r < 0)
			return r;
		if (r != k->ref->server[i].there || (r && strcmp(info.attrs, k->ref->server[i].attrs)))
			return say(k, "server %u: %s, and should be %s", i, r ? info.attrs : "not there",
				   k->ref->server[i].there ? k->ref->server[i].attrs : "not there");
		n += k->ref->server[i].there;
	}
	for (id = 0; !(r = vd_server_next(k->pool, &id)); id++)
		n--;
	return r != -ENOENT || n ? say(k, "listing servers: error %d, %u too few", r, n) : 0;
}

/* Which way did the pending change of volumes go?  1: it happened, 0: it did not. */
static int look_pending(struct look *k)
{
	struct ref_op *op = &k->ref->op;
	struct vd_volume_info info;
	struct ref_vol *v = ref_find(k->ref, op->id);
	struct vd_server_info server;
	struct vd_pool_info pool;
	unsigned i, n;
	int r;

	vd_pool_info(k->pool, &pool);
	if (op->kind == REF_POLICY)
		return same_policy(&pool.policy, &op->policy);
	if (op->kind == REF_TRANSACTION)
		return pool.transaction == op->value;
	if (op->kind == REF_SERVER_ADD || op->kind == REF_SERVER_DEL) {
		r = look_server(k, op->other, &server);
		return r < 0 ? r : r == (op->kind == REF_SERVER_ADD);
	}
	if (op->kind != REF_CREATE && op->kind != REF_SNAPSHOT) {
		r = vd_volume_info(k->pool, op->id, &info);
		if (op->kind == REF_DELETE && (!r || r == -ENOENT))
			return r == -ENOENT;
		if (r)
			return say(k, "volume %u after an interrupted %s: info: error %d", op->id, ref_op_name[op->kind], r);
	}
	switch (op->kind) {
	case REF_CREATE:
		r = vd_volume_find(k->pool, op->name, &op->id);
		return r == -ENOENT ? 0 : r ? say(k, "interrupted create of %s: find: error %d", op->name, r) : 1;
	case REF_SNAPSHOT:
		for (i = 0, n = 0; i < op->n; i++) {
			r = vd_volume_find(k->pool, op->pair[i].name, &op->pair[i].id);
			if (r && r != -ENOENT)
				return say(k, "interrupted snapshot %s: find: error %d", op->pair[i].name, r);
			n += !r;
		}
		if (n && n != op->n)
			return say(k, "interrupted group snapshot: %u of %u are there", n, op->n);
		return n ? 1 : 0;
	case REF_RENAME:
		return !strcmp(info.name, op->name);
	case REF_RESIZE:
		return info.size == op->size;
	case REF_ROLLBACK:
		if (info.size != v->size)
			return 1;
		r = look_contents(k, v, false);
		k->msg[0] = 0;
		return r ? 1 : 0;
	case REF_ATTRS:
		return !strcmp(info.attrs, op->attrs);
	case REF_LOCK:
	case REF_UNLOCK:
		return !!(info.flags & VD_VOL_LOCKED) == (op->kind == REF_LOCK);
	case REF_POINTER_ADD:
		if (info.npointers != v->npointers + 1)
			return 0;
		op->other = le32_to_cpu(info.pointer[info.npointers - 1].link);
		return 1;
	case REF_POINTER_DEL:
		return info.npointers == v->npointers - 1;
	case REF_POINTER_SET:
		for (i = 0; i < info.npointers && le32_to_cpu(info.pointer[i].link) != op->other; i++)
			;
		return i < info.npointers && le64_to_cpu(info.pointer[i].who.pid) == (op->value & ~REF_RW);
	case REF_READONLY:
		return !!(info.flags & VD_VOL_READONLY) == op->readonly;
	case REF_RESERVE:
		return info.reserved == op->reserved;
	case REF_NONE:
	case REF_WRITE:
	case REF_UNMAP:
	case REF_DELETE:
	case REF_POLICY:
	case REF_TRANSACTION:
	case REF_SERVER_ADD:
	case REF_SERVER_DEL:
	case REF_KINDS:
		break;
	}
	return 0;
}

int ref_verify(struct ref *ref, struct sim *sim, struct vd_pool *pool, enum ref_mode mode, struct rng *rng, char *msg, size_t size)
{
	struct look k = { .ref = ref, .sim = sim, .pool = pool, .mode = mode, .rng = rng, .msg = msg, .size = size };
	enum ref_op_kind pending = ref->op.kind;
	uint32_t id;
	unsigned i, n;
	int r;

	msg[0] = 0;
	if (mode != REF_LIVE)
		ref->exact = false;
	if (pending != REF_NONE && pending != REF_WRITE && pending != REF_UNMAP) {
		r = look_pending(&k);
		if (r < 0)
			return r;
		if (r)
			ref_done(ref);
		else
			ref_undone(ref);
		/* an origin's own unflushed sectors are judged by themselves only if the snapshot is not there */
	} else if (pending != REF_NONE) {
		ref->exact = false;
	}
	if (ref->knows_pool && look_pool(&k))
		return -1;
	if (look_servers(&k))
		return -1;
	for (id = 1, n = 0; !(r = vd_volume_next(pool, &id, NULL)); id++, n++)
		if (!ref_find(ref, id))
			return say(&k, "volume %u should not be there", id);
	if (r != -ENOENT)
		return say(&k, "listing volumes: error %d", r);
	for (i = 0; i < ref->n; i++) {
		r = look_record(&k, ref->vol[i]);
		if (!r)
			r = look_contents(&k, ref->vol[i], true);
		if (r)
			return r;
	}
	if (n != ref->n)
		return say(&k, "%u volumes and should be %u", n, ref->n);
	ref_undone(ref);
	if (mode == REF_POWER_CUT)
		ref_flushed(ref);
	return 0;
}
