// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The random operations.  Each does one thing to the pool and to the model, and
 * judges the engine's answer: what it may refuse is said here, and where.
 */
#include "ops.h"

static const unsigned weights[W_OPS] = {
	[W_WRITE] = 340, [W_READ] = 60, [W_UNMAP] = 50, [W_FLUSH] = 60, [W_FUA] = 30, [W_CREATE] = 25, [W_DELETE] = 22,
	[W_RENAME] = 8, [W_RESIZE] = 20, [W_SNAPSHOT] = 30, [W_GROUP] = 10, [W_ROLLBACK] = 10, [W_ATTRS] = 6, [W_LOCK] = 6,
	[W_POINTER] = 6, [W_READONLY] = 4, [W_CHECKPOINT] = 15, [W_WORK] = 40, [W_SETTLE] = 4, [W_CLOSE_VOLUME] = 20,
	[W_DIFF] = 10, [W_EXTENT] = 12, [W_USAGE] = 3, [W_REOPEN] = 6, [W_ADD] = 1, [W_CHECK] = 3, [W_EDGE] = 10, [W_FRAGMENT] = 3,
	[W_RESERVE] = 10, [W_GROW] = 2, [W_POINTER_SET] = 4, [W_POLICY] = 2, [W_TRANSACTION] = 2, [W_REPAIR] = 1, [W_SERVER] = 4,
};
const char *const world_op_name[W_OPS] = {
	"write", "read", "unmap", "flush", "fua", "create", "delete", "rename", "resize", "snapshot", "group", "rollback",
	"attrs", "lock", "pointer", "readonly", "checkpoint", "work", "settle", "close-volume", "diff", "extent", "usage",
	"reopen", "add", "check", "edge", "fragment", "reserve", "grow", "pointer-set",
	"policy", "transaction", "repair", "fill", "server",
};

void world_weights(struct world *w)
{
	memcpy(w->weight, weights, sizeof(weights));
}

/* ---- choosing --------------------------------------------------------- */

struct ref_vol *world_pick(struct world *w, unsigned want)
{
	unsigned i, n = w->ref->n, at;

	if (!n)
		return NULL;
	at = (unsigned)below(w, n);
	for (i = 0; i < n; i++) {
		struct ref_vol *v = w->ref->vol[(at + i) % n];

		if (!(want & UNLOCKED && v->locked) && !(want & WRITABLE && v->readonly) && !(want & NO_POINTERS && v->npointers))
			return v;
	}
	return NULL;
}

bool world_is_open(const struct world *w, uint32_t id)
{
	unsigned i;

	for (i = 0; i < w->nhandles; i++)
		if (w->handle[i].id == id)
			return true;
	return false;
}

void world_close_handle(struct world *w, uint32_t id)
{
	unsigned i;

	for (i = 0; i < w->nhandles; i++)
		if (w->handle[i].id == id) {
			vd_volume_close(w->handle[i].vol);
			w->handle[i] = w->handle[--w->nhandles];
			return;
		}
}

struct vd_volume *world_handle(struct world *w, uint32_t id)
{
	struct vd_volume *vol;
	unsigned i;
	int r;

	for (i = 0; i < w->nhandles; i++)
		if (w->handle[i].id == id)
			return w->handle[i].vol;
	r = vd_volume_open(w->pool, id, &vol);
	if (r) {
		world_log(w, "open volume %u: %d", id, r);
		if (!world_disturbed(w))
			world_fail(w, "open of volume %u: error %d", id, r);
		return NULL;
	}
	w->handle[w->nhandles].id = id;
	w->handle[w->nhandles++].vol = vol;
	return vol;
}

/* Where things are done to a volume: all of a small one; of a large one here and there. */
static uint64_t island(struct world *w, const struct ref_vol *v)
{
	uint64_t room = 256 << 10, at;

	if (v->size <= 4 << 20)
		return below(w, v->size / VD_BLOCK) * VD_BLOCK;
	switch (below(w, 5)) {
	case 0: at = 0; break;
	case 1: at = v->size - room; break;
	case 2: at = v->size / 3 & ~(uint64_t)(VD_BLOCK - 1); break;
	case 3: at = v->size / 2 & ~(uint64_t)((1 << 20) - 1); break; /* across a boundary */
	default: at = (v->size >> 10) * below(w, 1000) & ~(uint64_t)(VD_BLOCK - 1); break;
	}
	return least(at + below(w, room / VD_BLOCK) * VD_BLOCK, v->size - VD_BLOCK);
}

static void pick_range(struct world *w, const struct ref_vol *v, uint64_t max, uint64_t *off, uint64_t *len)
{
	uint64_t unit = w->shape.sector_size, n;

	*off = island(w, v);
	switch (w->shape.tiny && one_in(w, 3) ? 9 : below(w, 10)) {
	case 0: case 1: /* within a block */
		*off += below(w, VD_BLOCK / unit) * unit;
		n = 1;
		break;
	case 2: case 3: /* a few sectors, over a block's edge perhaps */
		*off += below(w, VD_BLOCK / unit) * unit;
		n = 1 + below(w, 24 * SECTOR / unit + 1);
		break;
	case 4: case 5: case 6:
		n = VD_BLOCK / unit;
		break;
	case 7: case 8:
		n = VD_BLOCK / unit * (1 + below(w, 8));
		break;
	default:
		n = 1 + below(w, max / unit);
		break;
	}
	*len = least(least(n * unit, max), v->size - *off);
}

void world_fresh_name(struct world *w, char *name, size_t size)
{
	snprintf(name, size, "v%llu%s", (ull)w->names++, one_in(w, 4) ? ".a-rather-long-name-of-a-volume@2024:+_" : "");
}

/* ---- judging ---------------------------------------------------------- */

static bool may_be_full(struct world *w)
{
	struct vd_pool_info info;

	if (w->shape.tiny)
		return true;
	vd_pool_info(w->pool, &info);
	return info.used_blocks + info.reserve_blocks + info.promised_blocks > info.total_blocks / 2;
}

int world_settle(struct world *w, int r, int also)
{
	enum ref_op_kind kind = w->ref->op.kind;

	if (sim_is_cut(w->sim))
		return 1;
	if (!r) {
		ref_done(w->ref);
		return 0;
	}
	if (w->sim->fault.hit)
		return 1;
	ref_undone(w->ref);
	if (r == -ENOSPC && kind != REF_DELETE && kind != REF_UNMAP && kind != REF_UNLOCK && kind != REF_POINTER_DEL && kind != REF_POLICY &&
	    kind != REF_TRANSACTION && kind != REF_SERVER_DEL && may_be_full(w)) {
		w->nospace++;
		return 0;
	}
	if (also && r == also)
		return 0;
	world_fail(w, "%s of volume %u: error %d", ref_op_name[kind], w->ref->vol[0] ? w->ref->op.id : 0, r);
}

static uint64_t unused(struct world *w, const struct ref_vol *v)
{
	struct vd_volume_info info;

	return v->reserved && !vd_volume_info(w->pool, v->id, &info) ? info.unused : 0;
}

/* A write of so many blocks met a full pool: not if the volume had that reserved, and not taken yet. */
static void judge_full(struct world *w, const struct ref_vol *v, uint64_t blocks, uint64_t kept)
{
	if (blocks <= kept)
		world_fail(w, "volume %u: no space for %llu blocks, and %llu are kept for it", v->id, (ull)blocks, (ull)kept);
	w->nospace++;
}

/* Of a call that changes nothing the model knows of. */
static int plain(struct world *w, const char *what, int r)
{
	if (r && !world_disturbed(w))
		world_fail(w, "%s: error %d", what, r);
	return world_disturbed(w);
}

/* ---- I/O -------------------------------------------------------------- */

static int do_flush(struct world *w)
{
	int r = vd_flush(w->pool);

	world_log(w, "flush: %d", r);
	if (plain(w, "flush", r))
		return 1;
	ref_flushed(w->ref);
	return 0;
}

static int do_write(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED | (one_in(w, 20) ? 0 : WRITABLE));
	struct ref_op op = { .kind = REF_WRITE };
	struct vd_volume *h;
	uint64_t done, kept;
	int r;

	if (!v)
		return world_do(w, W_CREATE);
	if (!(h = world_handle(w, v->id)))
		return 1;
	op.id = v->id;
	op.value = w->ref->next_value++;
	kept = unused(w, v);
	pick_range(w, v, w->shape.max_write, &op.off, &op.len);
	if (v->readonly) {
		r = io_stamp(w->sim, h, v->nbase, op.off, op.len, op.value, NULL);
		world_log(w, "write to read-only %u: %d", v->id, r);
		if (r != -EROFS && !world_disturbed(w))
			world_fail(w, "a write to read-only volume %u answers %d", v->id, r);
		return world_disturbed(w);
	}
	ref_begin(w->ref, &op);
	r = io_stamp(w->sim, h, v->nbase, op.off, op.len, op.value, &done);
	world_log(w, "write %u: %llu+%llu (block %llu) = %llu: %d", v->id, (ull)op.off, (ull)op.len, (ull)op.off / VD_BLOCK, (ull)op.value, r);
	if (r == -ENOSPC && !world_disturbed(w) && may_be_full(w)) {
		ref_done_partly(w->ref, done);
		judge_full(w, v, (op.off + op.len - 1) / VD_BLOCK - op.off / VD_BLOCK + 1, kept);
		return 0;
	}
	return world_settle(w, r, 0);
}

/* Many single blocks with gaps between: trees grow by pages. */
static int do_fragment(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED | WRITABLE);
	struct ref_op op = { .kind = REF_WRITE, .len = VD_BLOCK };
	uint64_t at, n, step, done, kept;
	struct vd_volume *h;
	int r = 0;

	if (!v || v->size < 128 * VD_BLOCK)
		return do_write(w);
	if (!(h = world_handle(w, v->id)))
		return 1;
	op.id = v->id;
	op.value = w->ref->next_value++;
	at = island(w, v) / VD_BLOCK;
	n = 20 + below(w, 400);
	kept = unused(w, v);
	step = 2 + below(w, 3);
	for (; !r && n && (at + 1) * VD_BLOCK <= v->size; n--, at += step, kept -= least(kept, 1)) {
		op.off = at * VD_BLOCK;
		ref_begin(w->ref, &op);
		r = io_stamp(w->sim, h, v->nbase, op.off, op.len, op.value, &done);
		if (r == -ENOSPC && !world_disturbed(w) && may_be_full(w)) {
			ref_done_partly(w->ref, done);
			judge_full(w, v, 1, kept);
		} else if (world_settle(w, r, 0)) {
			break;
		}
	}
	world_log(w, "fragment %u, every %llu. block up to %llu = %llu: %d", v->id, (ull)step, (ull)at, (ull)op.value, r);
	return world_disturbed(w);
}

/* Writes until the pool is all but full. */
static int do_fill(struct world *w)
{
	struct ref_op op = { .kind = REF_CREATE, .size = 1ull << 30 }, wr = { .kind = REF_WRITE };
	struct vd_volume_spec spec = { .name = op.name, .size = op.size };
	uint64_t done, left = below(w, 200);
	struct vd_pool_info info;
	struct vd_volume *h;
	int r;

	world_fresh_name(w, op.name, sizeof(op.name));
	ref_begin(w->ref, &op);
	r = vd_volume_create(w->pool, &spec, &w->ref->op.id);
	wr.id = w->ref->op.id;
	world_log(w, "create %s to fill the pool: %d", op.name, r);
	if (r || world_disturbed(w))
		return world_settle(w, r, 0);
	world_settle(w, 0, 0);
	if (!(h = world_handle(w, wr.id)))
		return 1;
	wr.len = 32 * VD_BLOCK;
	wr.value = w->ref->next_value++;
	do {
		ref_begin(w->ref, &wr);
		r = io_stamp(w->sim, h, 0, wr.off, wr.len, wr.value, &done);
		if (world_disturbed(w))
			return 1;
		ref_done_partly(w->ref, done);
		wr.off += wr.len;
		vd_pool_info(w->pool, &info);
	} while (!r && info.total_blocks > info.used_blocks + info.reserve_blocks + left);
	world_log(w, "filled volume %u up to %llu: %d", wr.id, (ull)wr.off, r);
	if (r && r != -ENOSPC)
		world_fail(w, "filling the pool: error %d", r);
	return 0;
}

static int do_fua(struct world *w)
{
	int r = do_write(w); /* I6: the mapping it meets may not be durable yet */

	return r ? r : do_flush(w);
}

static int do_unmap(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED | WRITABLE);
	struct ref_op op = { .kind = REF_UNMAP };
	struct vd_volume *h;
	int r;

	if (!v)
		return world_do(w, W_CREATE);
	if (!(h = world_handle(w, v->id)))
		return 1;
	op.id = v->id;
	pick_range(w, v, 1 << 20, &op.off, &op.len);
	if (one_in(w, 20)) {
		op.off = 0;
		op.len = v->size;
	}
	ref_begin(w->ref, &op);
	r = vd_unmap(h, op.off, op.len);
	world_log(w, "unmap %u: %llu+%llu (block %llu): %d", v->id, (ull)op.off, (ull)op.len, (ull)op.off / VD_BLOCK, r);
	return world_settle(w, r, 0);
}

static int do_read(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED);
	uint64_t off, len, s;
	struct vd_volume *h;
	uint8_t *buf;
	int r;

	if (!v)
		return 0;
	if (!(h = world_handle(w, v->id)))
		return 1;
	pick_range(w, v, 1 << 20, &off, &len);
	buf = malloc(len);
	if (!buf)
		abort();
	r = io_read(w->sim, h, v->nbase, off, buf, len, NULL);
	world_log(w, "read %u: %llu+%llu: %d", v->id, (ull)off, (ull)len, r);
	for (s = 0; !r && s < len / SECTOR; s++) {
		uint64_t got = stamp_read(buf + s * SECTOR, off / SECTOR + s), want = ref_value(v, off / SECTOR + s);
		char what[100];

		stamp_describe(buf + s * SECTOR, what, sizeof(what));
		if (got != want)
			world_fail(w, "read of volume %u, sector %llu (block %llu): %s, and it was write %llu", v->id, (ull)(off / SECTOR + s),
				   (ull)(off / SECTOR + s) / 8, got ? what : "zeros", (ull)want);
	}
	free(buf);
	return plain(w, "read", r);
}

/* ---- reports ---------------------------------------------------------- */

struct ranges { uint64_t (*r)[2]; uint64_t n, room; bool disorder; };

static int range_seen(void *arg, uint64_t off, uint64_t len)
{
	struct ranges *l = arg;

	if (l->n == l->room) {
		l->room = l->room ? l->room * 2 : 64;
		l->r = realloc(l->r, l->room * sizeof(*l->r));
		if (!l->r)
			abort();
	}
	if (!len || (l->n && off <= l->r[l->n - 1][1])) /* ascending, merged */
		l->disorder = true;
	l->r[l->n][0] = off;
	l->r[l->n++][1] = off + len;
	return 0;
}

static bool in_ranges(const struct ranges *l, uint64_t off)
{
	uint64_t lo = 0, hi = l->n;

	while (lo < hi) {
		uint64_t mid = (lo + hi) / 2;

		if (l->r[mid][1] <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < l->n && l->r[lo][0] <= off;
}

static void diff_pages(struct world *w, const struct ranges *l, const struct ref_vol *a, const struct ref_vol *b)
{
	uint64_t end = least(a->size, b->size), s, first;
	unsigned i, k;

	for (i = 0; i < a->nbuckets; i++) {
		if (!a->bucket[i])
			continue;
		first = a->bucket[i]->number * PAGE_SECTORS;
		for (k = 0; k < b->nbuckets && b->bucket[k] != a->bucket[i]; k++)
			;
		if (k < b->nbuckets && w->ref->exact) { /* nothing was done to these since: precise */
			for (s = first; s < first + PAGE_SECTORS; s++)
				if (in_ranges(l, s * SECTOR))
					world_fail(w, "diff %u %u: block %llu is shared and yet reported", a->id, b->id, (ull)s / 8);
			continue;
		}
		for (s = first; s < first + PAGE_SECTORS && s * SECTOR < end; s++)
			if (ref_value(a, s) != ref_value(b, s) && !in_ranges(l, s * SECTOR))
				world_fail(w, "diff %u %u: sector %llu (block %llu) differs and is not reported", a->id, b->id, (ull)s, (ull)s / 8);
	}
}

static int do_diff(struct world *w)
{
	struct ref_vol *a = world_pick(w, ANY), *b = world_pick(w, ANY);
	struct ranges l = { 0 };
	unsigned i;
	int r;

	for (i = 0; a && i < 8 && (a == b || a->family != b->family); i++)
		b = world_pick(w, ANY);
	if (!a || a == b)
		return 0;
	r = vd_diff(w->pool, a->id, b->id, range_seen, &l);
	world_log(w, "diff %u %u: %d, %llu ranges", a->id, b->id, r, (ull)l.n);
	if (a->family != b->family) {
		if (r != -EXDEV && !world_disturbed(w))
			world_fail(w, "diff of volumes %u and %u, not related, answers %d", a->id, b->id, r);
		r = 0;
	} else if (!r && !world_disturbed(w)) {
		if (l.disorder)
			world_fail(w, "diff %u %u: ranges are empty, out of order, or not merged", a->id, b->id);
		diff_pages(w, &l, a, b);
		diff_pages(w, &l, b, a);
	}
	free(l.r);
	return plain(w, "diff", r);
}

static int do_extent(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED);
	uint64_t off, end, b, n = 0;
	struct vd_volume *h;
	unsigned i;
	int r = 0;

	if (!v)
		return 0;
	if (!(h = world_handle(w, v->id)))
		return 1;
	off = island(w, v);
	end = least(off + VD_BLOCK * (1 + below(w, 512)), v->size);
	world_log(w, "extents %u: %llu-%llu", v->id, (ull)off, (ull)end);
	while (off < end) {
		struct vd_extent_info e = { 0 };

		r = vd_extent(h, off, end - off, &e);
		if (r)
			break;
		if (e.off != off || !e.len || e.len > end - off || e.len % VD_BLOCK || e.kind > VD_BASE)
			world_fail(w, "extent of volume %u at %llu: %llu+%llu of kind %d", v->id, (ull)off, (ull)e.off, (ull)e.len, e.kind);
		for (b = off / VD_BLOCK; b < (off + e.len) / VD_BLOCK; b++) {
			enum vd_ext_kind kind = ref_kind(v, b);

			if (w->ref->exact && (e.kind == VD_DATA) != (kind == VD_DATA))
				world_fail(w, "extent of volume %u, block %llu: kind %d should be %d", v->id, (ull)b, e.kind, kind);
			for (i = 0; e.kind != VD_DATA && i < 8; i++) {
				uint64_t s = b * 8 + i, want = e.kind == VD_BASE && s < v->nbase ? VALUE_BASE : 0;

				if (ref_value(v, s) != want)
					world_fail(w, "extent of volume %u, block %llu: kind %d, and it holds write %llu", v->id, (ull)b, e.kind, (ull)ref_value(v, s));
			}
		}
		off += e.len;
		if (++n > 4096)
			world_fail(w, "extents of volume %u do not end", v->id);
	}
	return plain(w, "extent", r);
}

static int do_usage(struct world *w)
{
	struct ref_vol *v = world_pick(w, ANY);
	struct vd_usage u = { 0 };
	unsigned i, relatives = 0;
	int r;

	if (!v)
		return 0;
	for (i = 0; i < w->ref->n; i++)
		relatives += w->ref->vol[i]->family == v->family;
	r = vd_volume_usage(w->pool, v->id, &u, NULL, NULL);
	world_log(w, "usage %u: %d", v->id, r);
	if (!r && !world_disturbed(w)) {
		if (u.exclusive + u.shared != u.mapped)
			world_fail(w, "usage of %u: %llu mapped, %llu + %llu", v->id, (ull)u.mapped, (ull)u.exclusive, (ull)u.shared);
		if (w->ref->exact && u.mapped != ref_mapped(v))
			world_fail(w, "usage of %u: %llu mapped and should be %llu", v->id, (ull)u.mapped, (ull)ref_mapped(v));
	}
	return plain(w, "usage", r);
}

/* ---- the pool --------------------------------------------------------- */

static int do_checkpoint(struct world *w)
{
	int r = vd_checkpoint(w->pool);

	world_log(w, "checkpoint: %d", r);
	return plain(w, "checkpoint", r); /* folds what is durable; writes in place need not be */
}

/* A reader comes and goes, which nobody else is to notice. */
static void pin_or_unpin(struct world *w)
{
	enum vd_pin who = rng_one_in(&w->rng, 2) ? VD_PIN_USER : VD_PIN_CHECK;
	int r = vd_pool_unpin(w->pool, who);

	if (r == -ENOENT)
		r = vd_pool_pin(w->pool, who);
	if (r && r != -EROFS)
		world_fail(w, "pin: error %d", r);
	world_log(w, "pin, or unpin: %d", r);
}

static int do_work(struct world *w, unsigned times)
{
	unsigned i;
	int r = 1;

	if (rng_one_in(&w->rng, 8))
		pin_or_unpin(w);
	for (i = 0; i < times && r > 0; i++)
		r = vd_pool_work(w->pool);
	world_log(w, "work: %d", r);
	if (r > 0 && times > 1000)
		world_fail(w, "work does not end");
	return plain(w, "work", r < 0 ? r : 0);
}

static int do_reopen(struct world *w)
{
	int r = world_close(w);

	if (r && world_disturbed(w))
		return 1;
	r = world_open(w, 0);
	return r || world_disturbed(w) ? 1 : 0;
}

static int do_add(struct world *w)
{
	struct vd_pool_info info;
	uint8_t uuid[16];
	unsigned i;
	int r;

	vd_pool_info(w->pool, &info);
	if (info.nmembers >= 4)
		return 0;
	if (info.nmembers == w->sim->nmembers)
		sim_add(w->sim, VD_MEMBER_MIN_BLOCKS + below(w, 4096));
	for (i = 0; i < 16; i++)
		uuid[i] = (uint8_t)rng_next(&w->rng);
	r = vd_pool_add(w->pool, uuid, w->sim->member[info.nmembers]->blocks, w->shape.sector_size);
	world_log(w, "add member %u: %d", info.nmembers, r);
	if (r == -ENOSPC && w->shape.tiny)
		return world_disturbed(w);
	return plain(w, "add", r);
}

/* The member first, as a host does it: what the pool has not taken in then, it may another time. */
static int do_grow(struct world *w)
{
	uint64_t before, blocks;
	struct vd_pool_info info;
	uint8_t uuid[16];
	unsigned m;
	bool missing;
	int r;

	vd_pool_info(w->pool, &info);
	m = (unsigned)below(w, info.nmembers);
	r = vd_pool_member(w->pool, m, uuid, &before, &missing);
	blocks = w->sim->member[m]->blocks;
	if (blocks < 12000 && !one_in(w, 4))
		sim_grow(w->sim, m, blocks += 1 + below(w, one_in(w, 4) ? 9000 : 300));
	if (r)
		world_fail(w, "member %u: error %d", m, r);
	r = vd_pool_grow(w->pool, m, blocks);
	world_log(w, "grow member %u from %llu to %llu blocks: %d", m, (ull)before, (ull)blocks, r);
	if (!r && !world_disturbed(w)) {
		uint64_t total = info.total_blocks + blocks - before;

		vd_pool_info(w->pool, &info);
		if (info.total_blocks != total)
			world_fail(w, "the pool has %llu blocks and should have %llu", (ull)info.total_blocks, (ull)total);
	}
	if (r == -ENOSPC && w->shape.tiny)
		return world_disturbed(w);
	return plain(w, "grow", r);
}

static int do_policy(struct world *w)
{
	struct ref_op op = { .kind = REF_POLICY };
	static const struct vd_pool_policy wrong[] = { { .threshold = { 1001 } }, { .flags = VD_POLICY_KNOWN + 1 }, { .grow_by = VD_PBLK_NONE + 1 } };
	unsigned i;
	int r;

	if (one_in(w, 8)) {
		i = (unsigned)below(w, 3);
		r = vd_pool_set(w->pool, &wrong[i]);
		world_log(w, "a policy that cannot be: %d", r);
		if (r != -EINVAL && !world_disturbed(w))
			world_fail(w, "policy %u of those that cannot be answers %d", i, r);
		return world_disturbed(w);
	}
	for (i = 0; i < 4; i++)
		op.policy.threshold[i] = (uint32_t)below(w, 1001);
	op.policy.flags = (one_in(w, 2) ? VD_POLICY_ERROR_IF_FULL : 0) | (one_in(w, 4) ? VD_POLICY_NO_DISCARD : 0);
	op.policy.grow_by = below(w, 1 << 20);
	op.policy.grow_to = below(w, 1 << 20);
	ref_begin(w->ref, &op);
	r = vd_pool_set(w->pool, &op.policy);
	world_log(w, "policy, growth by %llu: %d", (ull)op.policy.grow_by, r);
	return world_settle(w, r, 0);
}

static int do_transaction(struct world *w)
{
	struct ref_op op = { .kind = REF_TRANSACTION };
	uint64_t was = w->ref->transaction;
	int r;

	op.value = rng_next(&w->rng);
	if (one_in(w, 4)) {
		r = vd_pool_set_transaction(w->pool, was + 1, op.value);
		world_log(w, "transaction from what it is not: %d", r);
		if (r != -EBUSY && !world_disturbed(w))
			world_fail(w, "a transaction from %llu, which it is not, answers %d", (ull)was + 1, r);
		return world_disturbed(w);
	}
	ref_begin(w->ref, &op);
	r = vd_pool_set_transaction(w->pool, was, op.value);
	world_log(w, "transaction %llu to %llu: %d", (ull)was, (ull)op.value, r);
	return world_settle(w, r, 0);
}

static int do_server(struct world *w)
{
	struct ref_op op = { .kind = REF_SERVER_ADD, .other = (uint32_t)below(w, REF_SERVERS) };
	uint8_t uuid[16] = { 1 };
	char name[8];
	uint32_t id;
	int r, want = 0;

	ref_server_name(op.other, name);
	snprintf(op.attrs, sizeof(op.attrs), "a=%llu\n", (ull)w->names++);
	if (w->ref->server[op.other].there && one_in(w, 4)) {
		want = -EEXIST;
		r = vd_server_add(w->pool, name, uuid, op.attrs, &id);
	} else if (!w->ref->server[op.other].there && one_in(w, 4)) {
		want = -ENOENT;
		r = vd_server_find(w->pool, name, &id);
	} else if (w->ref->server[op.other].there) {
		op.kind = REF_SERVER_DEL;
		ref_begin(w->ref, &op);
		r = vd_server_find(w->pool, name, &id);
		if (!r && vd_volume_delete(w->pool, id) != -ENOENT && !world_disturbed(w))
			world_fail(w, "server %s is deleted as a volume", name);
		r = r ? r : vd_server_delete(w->pool, id);
	} else {
		ref_begin(w->ref, &op);
		r = vd_server_add(w->pool, name, uuid, op.attrs, &id);
	}
	world_log(w, "server %s, %s: %d", name, ref_op_name[op.kind], r);
	if (!want)
		return world_settle(w, r, 0);
	if (r != want && r != -ENOSPC && !world_disturbed(w))
		world_fail(w, "server %s: %d, not %d", name, r, want);
	return world_disturbed(w);
}

static int do_repair(struct world *w)
{
	uint64_t faults = 0;
	int r = vd_check(w->pool, VD_CHECK_REPAIR, NULL, NULL, NULL, &faults);

	world_log(w, "repair: %d, %llu faults", r, (ull)faults);
	return plain(w, "repair", r);
}

/* What must be refused. */
static int do_edge(struct world *w)
{
	struct ref_vol *v = world_pick(w, UNLOCKED);
	struct vd_volume_spec spec = { .name = "x", .size = VD_BLOCK };
	uint8_t buf[VD_BLOCK] = { 0 };
	uint64_t unit = w->shape.sector_size;
	struct vd_volume *h;
	uint32_t id = 0;
	struct vd_snap two[2];
	struct vd_volume_info info;
	int r, want;

	if (!v)
		return 0;
	switch (below(w, 10)) {
	case 0:
		if (!(h = world_handle(w, v->id)))
			return 1;
		r = io_write(w->sim, h, v->nbase, v->size, buf, unit, NULL);
		want = -ERANGE;
		break;
	case 1:
		if (!(h = world_handle(w, v->id)))
			return 1;
		r = io_read(w->sim, h, v->nbase, v->size + unit * below(w, 1000), buf, unit, NULL);
		want = -ERANGE;
		break;
	case 2:
		spec.name = v->name;
		r = vd_volume_create(w->pool, &spec, &id);
		want = -EEXIST;
		break;
	case 3:
		spec.size = 1000;
		r = vd_volume_create(w->pool, &spec, &id);
		want = -EINVAL;
		break;
	case 4:
		spec.name = one_in(w, 2) ? "-dash" : "white space";
		r = vd_volume_create(w->pool, &spec, &id);
		want = -EINVAL;
		break;
	case 5:
		r = vd_volume_delete(w->pool, 1000000000);
		want = -ENOENT;
		break;
	case 6:
		r = vd_volume_info(w->pool, 1000000000, &info);
		want = -ENOENT;
		break;
	case 7:
		memset(two, 0, sizeof(two));
		two[0].origin = v->id;
		two[0].name = "s1";
		two[1].origin = 1000000000;
		two[1].name = "s2";
		r = vd_snapshot(w->pool, two, 2); /* all or none */
		want = -ENOENT;
		break;
	case 8:
		r = vd_volume_resize(w->pool, v->id, 4097);
		want = -EINVAL;
		break;
	default:
		r = vd_volume_find(w->pool, "no-such-volume", &id);
		want = -ENOENT;
		break;
	}
	world_log(w, "something refused: %d", r);
	if (v->readonly && want == -ERANGE && r == -EROFS) /* both are true */
		r = want;
	if (r != want && !world_disturbed(w))
		world_fail(w, "volume %u: %d should have been %d", v->id, r, want);
	return world_disturbed(w);
}

int world_do(struct world *w, enum world_op op)
{
	switch (op) {
	case W_WRITE: return do_write(w);
	case W_READ: return do_read(w);
	case W_UNMAP: return do_unmap(w);
	case W_FLUSH: return do_flush(w);
	case W_FUA: return do_fua(w);
	case W_FRAGMENT: return do_fragment(w);
	case W_RESERVE: return op_reserve(w);
	case W_GROW: return do_grow(w);
	case W_POINTER_SET: return op_pointer_set(w);
	case W_POLICY: return do_policy(w);
	case W_TRANSACTION: return do_transaction(w);
	case W_SERVER: return do_server(w);
	case W_REPAIR: return do_repair(w);
	case W_FILL: return do_fill(w);
	case W_CREATE: return op_create(w);
	case W_DELETE: return op_delete(w);
	case W_RENAME: return op_rename(w);
	case W_RESIZE: return op_resize(w);
	case W_SNAPSHOT: return op_snapshot(w, 1);
	case W_GROUP: return op_snapshot(w, 2 + (unsigned)below(w, 3));
	case W_ROLLBACK: return op_rollback(w);
	case W_ATTRS: return op_attrs(w);
	case W_LOCK: return op_lock(w);
	case W_POINTER: return op_pointer(w);
	case W_READONLY: return op_readonly(w);
	case W_CHECKPOINT: return do_checkpoint(w);
	case W_WORK: return do_work(w, 1);
	case W_SETTLE: return do_work(w, 100000);
	case W_CLOSE_VOLUME:
		if (w->nhandles)
			world_close_handle(w, w->handle[below(w, w->nhandles)].id);
		return 0;
	case W_DIFF: return do_diff(w);
	case W_EXTENT: return do_extent(w);
	case W_USAGE: return do_usage(w);
	case W_REOPEN: return do_reopen(w);
	case W_ADD: return do_add(w);
	case W_CHECK:
		world_check(w);
		return world_disturbed(w);
	case W_EDGE: return do_edge(w);
	case W_OPS: break;
	}
	abort();
}

int world_step(struct world *w)
{
	unsigned sum = 0, i, at;
	uint64_t was;
	bool kept;
	int r;

	for (i = 0; i < W_OPS; i++)
		sum += w->weight[i];
	at = (unsigned)below(w, sum);
	for (i = 0; at >= w->weight[i]; i++)
		at -= w->weight[i];
	kept = i != W_POLICY && w->ref->policy.flags & VD_POLICY_NO_DISCARD;
	was = w->sim->ndiscards;
	r = world_do(w, (enum world_op)i);
	if (!r && kept && w->sim->ndiscards != was)
		world_fail(w, "%s: there were discards, which the policy is not to have", world_op_name[i]);
	w->done[i]++;
	if (!r && w->sim->kicked && one_in(w, 4)) { /* the background's turn */
		w->sim->kicked = false;
		r = do_work(w, 1);
	}
	return r;
}
