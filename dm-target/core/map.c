// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Look-up, and the life of a request.
 *
 *   write_begin:  in place ──────────────────────────────► data I/O ► write_end
 *                 new: claim ► blocks ► journal room ────► data I/O ► write_end:
 *                      overlay entry + record, one moment, claim released
 *
 * Invariants
 * M1  A block of a volume that is being given a new place is claimed; nothing
 *     else gives it one, unmaps it or cuts it off meanwhile.
 * M2  In place only when born after the volume's last snapshot (I3, its first
 *     half).  Both are read under vol->map, and the request has entered vol->gate
 *     before vol->map is let go: a snapshot, which changes them under vol->map
 *     for writing, then waits for it.  Or, without the lock, the volume's stamp is
 *     still what it was when the request is in vol->gate (region.c).
 * M3  A request enters volumes->gate before it looks anything up and leaves when
 *     its I/O is over: what it was told is not reused before (D6).
 * M4  All that write_end needs is taken in write_begin (I12).
 * M5  A block that is partly written anew takes its rest from the old one only when
 *     all writes in place there have ended.  None begins after the snapshot; those
 *     that began before it have ended when `settled` has reached it.
 * M6  A block that was claimed before the volume became its sole owner (own.c) is
 *     written in place when the claim is gone: what was gathered under it is old.
 */
#include "volume.h"

#define LEAVES_KEPT 16u
#define STRETCH ((uint64_t)VD_IO_MAX_BYTES / VD_BLOCK) /* blocks: the most that a write has at once */

enum { WAIT_NODE = 1, WAIT_CLAIM, WAIT_SPACE, WAIT_GROUP, WAIT_ROOM, WAIT_OVERLAY, WAIT_MEMORY, WAIT_SETTLE };

/* ---- gates ------------------------------------------------------------ */

void vd_gate_init(struct vd_gate *g)
{
	memset(g, 0, sizeof(*g));
	vd_spin_init(&g->lock);
	vd_cond_init(&g->cond);
}

void vd_gate_fini(struct vd_gate *g)
{
	vd_spin_fini(&g->lock);
	vd_cond_fini(&g->cond);
}

void vd_gate_wake(struct vd_gate *g)
{
	vd_spin_lock(&g->lock);
	vd_cond_wake_all(&g->cond);
	vd_spin_unlock(&g->lock);
}

void vd_gate_flip(struct vd_gate *g)
{
	vd_atomic_add(&g->phase, 1);
}

bool vd_gate_drained(struct vd_gate *g)
{
	int64_t old = (vd_atomic_read(&g->phase) & 1) ^ 1;
	unsigned s;

	for (s = 0; s < VD_GATE_STRIPES; s++)
		if (vd_atomic_read(&g->stripe[s].n[old]))
			return false;
	return true;
}

static void await(struct vd_gate *g, bool flip)
{
	vd_spin_lock(&g->lock);
	vd_atomic_add(&g->draining, 1);
	while (flip && g->flipped) /* the lock is let go while it drains */
		vd_cond_wait_spin(&g->cond, &g->lock);
	if (flip) {
		g->flipped = true;
		vd_gate_flip(g);
	}
	while (!vd_gate_drained(g))
		vd_cond_wait_spin(&g->cond, &g->lock);
	if (flip) {
		g->flipped = false;
		vd_cond_wake_all(&g->cond);
	}
	vd_atomic_add(&g->draining, -1);
	vd_spin_unlock(&g->lock);
}

void vd_gate_drain(struct vd_gate *g) { await(g, true); }
void vd_gate_await(struct vd_gate *g) { await(g, false); }

void vd_volume_settle(struct vd_volume *vol)
{
	uint64_t last;
	int64_t was;

	vd_read_lock(&vol->map);
	last = vol->last_snapshot;
	vd_read_unlock(&vol->map);
	if (vd_atomic_read(&vol->settled) >= (int64_t)last)
		return;
	vd_gate_drain(&vol->gate);
	do {
		was = vd_atomic_read(&vol->settled);
	} while (was < (int64_t)last && !vd_atomic_swap_if(&vol->settled, was, (int64_t)last));
}

/* ---- layers ----------------------------------------------------------- */

struct vd_layer *vd_layer_bottom(struct vd_pool *pool, const struct vd_root *root)
{
	struct vd_layer *l = vd_zalloc(pool, sizeof(*l)); /* and no overlay */

	if (l) {
		l->refs = 1;
		l->bottom = true;
		l->root = *root;
	}
	return l;
}

void vd_layer_put(struct vd_pool *pool, struct vd_layer *l)
{
	while (l && !--l->refs) {
		struct vd_layer *parent = l->bottom ? NULL : l->parent;

		vd_atomic_add(&pool->volumes->overlay, -(int64_t)l->ov.count);
		vd_ov_fini(&l->ov);
		vd_free(pool, l->blank);
		vd_free(pool, l);
		l = parent;
	}
}

int vd_layer_spare(struct vd_volume *vol)
{
	struct vd_layer *l;

	if (vol->spare)
		return 0;
	l = vd_zalloc(vol->pool, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->blank = vd_layer_bottom(vol->pool, &(struct vd_root){ .height = 0 });
	if (!l->blank || vd_ov_init(&l->ov, &vol->pool->host)) {
		vd_free(vol->pool, l->blank);
		vd_free(vol->pool, l);
		return -ENOMEM;
	}
	l->refs = 1;
	vol->spare = l;
	return 0;
}

void vd_layer_freeze(struct vd_volume *vol)
{
	struct vd_layer *l = vol->spare;

	if (vd_ov_empty(&vol->active))
		return;
	vol->spare = NULL;
	vd_ov_move(&l->ov, &vol->active);
	l->owner = vol->id;
	l->parent = vol->base;
	l->depth = vol->base->depth + 1;
	vol->base = l;
}

/* ---- a volume in memory ------------------------------------------------ */

int vd_volume_setup(struct vd_pool *pool, struct vd_volume *vol, uint32_t id)
{
	int r;

	memset(vol, 0, sizeof(*vol));
	vol->pool = pool;
	vol->id = id;
	r = vd_ov_init(&vol->active, &pool->host);
	if (r)
		return r;
	vd_list_init(&vol->all);
	vd_list_init(&vol->hash);
	vd_list_init(&vol->dirty);
	vol->is_dirty = false;
	vd_list_init(&vol->cut);
	vd_list_init(&vol->cuts);
	for (r = 0; r < (int)VD_CLAIM_LISTS; r++)
		vd_list_init(&vol->claims[r]);
	vd_rwlock_init(&vol->map);
	vd_spin_init(&vol->claim_lock);
	vd_cond_init(&vol->claim_cond);
	vd_gate_init(&vol->gate);
	vd_windows_init(&vol->win);
	vd_regions_forget(vol);
	return 0;
}

void vd_volume_teardown(struct vd_volume *vol)
{
	struct vd_pool *pool = vol->pool;

	if (vol->spare)
		vd_layer_put(pool, vol->spare);
	vd_free(pool, vol->blank);
	vd_atomic_add(&pool->volumes->overlay, -(int64_t)vol->active.count);
	vd_ov_fini(&vol->active);
	while (vol->leaves)
		vd_ov_leaf_free(&pool->host, vd_ov_leaf_take(&vol->leaves));
	vd_rwlock_fini(&vol->map);
	vd_spin_fini(&vol->claim_lock);
	vd_cond_fini(&vol->claim_cond);
	vd_windows_fini(vol);
	vd_gate_fini(&vol->gate);
}

void vd_volume_dirty(struct vd_volume *vol)
{
	struct vd_volumes *vs = vol->pool->volumes;

	if (vd_volume_is_dirty(vol)) /* only a cut takes it off, which our caller's seal keeps out */
		return;
	vd_spin_lock(&vs->dirty_lock);
	if (!vol->is_dirty) {
		vd_list_add_tail(&vs->dirty, &vol->dirty);
		__atomic_store_n(&vol->is_dirty, true, __ATOMIC_RELAXED);
	}
	vd_spin_unlock(&vs->dirty_lock);
}

void vd_volume_dying(struct vd_volume *vol)
{
	if (!vol->dying)
		vd_atomic_add(&vol->pool->volumes->dying, 1);
	vol->dying = true;
}

/* ---- look-up ----------------------------------------------------------- */

static struct vd_layer *parent_of(const struct vd_layer *l)
{
	return __atomic_load_n(&l->parent, __ATOMIC_ACQUIRE);
}

/* Through the overlays only: true when one of them knows; else *out is the
 * stretch that none of them covers and *bottom the tree to ask. */
static bool find_in_overlays(const struct vd_volume *vol, vd_vblk_t v, struct vd_ext *out, const struct vd_layer **bottom)
{
	bool found = vd_ov_find(&vol->active, v, out);
	struct vd_ov_leaf *near = out->near;
	const struct vd_layer *l;

	for (l = vol->base; !found && !l->bottom; l = parent_of(l)) {
		uint64_t len = out->len, back = out->back;

		found = vd_ov_find(&l->ov, v, out);
		out->len = vd_min(len, out->len);
		out->back = vd_min(back, out->back);
	}
	out->near = near;
	*bottom = l;
	return found;
}

int vd_map_find(struct vd_volume *vol, vd_vblk_t v, unsigned flags, struct vd_ext *out)
{
	const struct vd_layer *bottom;
	struct vd_ov_leaf *near;
	uint64_t len, back;
	int r;

	if (find_in_overlays(vol, v, out, &bottom) || !bottom->root.ptr.gen) /* of an empty tree, that is all */
		return 0;
	len = out->len;
	back = out->back;
	near = out->near;
	r = vd_tree_find(vol->pool, &bottom->root, v, flags, out);
	if (r)
		return r;
	if (out->kind == VD_DATA && vol->id && vd_unlikely(!vd_pblk_valid(vol->pool, out->p, out->len)))
		return -EUCLEAN; /* our caller would read or write there */
	out->len = vd_min(out->len, len);
	out->back = vd_min(out->back, back);
	out->near = near;
	if (out->kind == VD_DATA && out->back && vol->id && vd_unlikely(!vd_pblk_valid(vol->pool, out->p - out->back, out->back)))
		out->back = 0;
	return 0;
}

int vd_map_find_wait(struct vd_volume *vol, vd_vblk_t v, struct vd_ext *out)
{
	struct vd_volumes *vs = vol->pool->volumes;
	const struct vd_layer *bottom;
	struct vd_root root;
	uint16_t token;
	int r;

	for (;;) {
		token = vd_gate_enter(&vs->gate);
		vd_read_lock(&vol->map);
		r = vd_map_find(vol, v, VD_NODE_NOWAIT, out);
		if (r == -EWOULDBLOCK && !find_in_overlays(vol, v, out, &bottom))
			root = bottom->root;
		vd_read_unlock(&vol->map);
		/* Reading below the lock: the gate keeps the old tree's blocks from reuse. */
		if (r == -EWOULDBLOCK)
			r = vd_tree_find(vol->pool, &root, v, 0, out) ?: -EWOULDBLOCK;
		vd_gate_exit(&vs->gate, token);
		if (r != -EWOULDBLOCK)
			return r;
	}
}

void vd_map_root(struct vd_volume *vol, struct vd_root *root)
{
	const struct vd_layer *l;

	vd_read_lock(&vol->map);
	for (l = vol->base; !l->bottom; l = parent_of(l))
		;
	*root = l->root;
	vd_read_unlock(&vol->map);
}

bool vd_map_gap(struct vd_volume *vol, vd_vblk_t v, uint64_t *len, struct vd_root *root)
{
	const struct vd_layer *bottom;
	struct vd_ext e;
	bool gap;

	vd_read_lock(&vol->map);
	gap = !find_in_overlays(vol, v, &e, &bottom);
	if (gap) {
		*len = e.len;
		*root = bottom->root;
	}
	vd_read_unlock(&vol->map);
	return gap;
}

int vd_map_mapped(struct vd_volume *vol, vd_vblk_t v, uint64_t len, uint64_t *mapped)
{
	uint64_t end = v + len, n = 0;
	struct vd_ext e;
	int r;

	for (; v < end; v += e.len) {
		r = vd_map_find_wait(vol, v, &e);
		if (r)
			return r;
		if (e.kind == VD_DATA)
			n += vd_min(e.len, end - v);
	}
	*mapped = n;
	return 0;
}

struct put_arg { struct vd_volume *vol; uint64_t seq; };

static void put_displaced(void *arg, const struct vd_ext *piece)
{
	struct put_arg *a = arg;

	/* Never folded and in no frozen layer: nobody else can refer to it. */
	if (a->seq)
		vd_space_release(a->vol->pool, piece->p, piece->len, a->seq);
	else
		vd_space_unreserve(a->vol->pool, piece->p, piece->len);
}

void vd_map_put(struct vd_volume *vol, const struct vd_ext *e, uint64_t seq, struct vd_ov_leaf **spare)
{
	struct vd_pool *pool = vol->pool;
	struct put_arg a = { vol, seq };
	uint64_t before = vol->active.count;
	bool noref = !vol->id; /* the index points at volume ids, not blocks */

	if (!noref)
		vd_regions_changed(vol, e); /* before what was there is given back: who begins after that must not find it (D6) */
	vd_ov_insert(&vol->active, e, vol->last_snapshot, spare, noref ? NULL : put_displaced, &a);
	if (vd_atomic_add(&pool->volumes->overlay, (int64_t)(vol->active.count - before)) >= VD_OVERLAY_LOW)
		vd_pool_want_checkpoint(pool);
	vd_volume_dirty(vol);
}

/* ---- claims ------------------------------------------------------------ */

#define io_claim(io) vd_container(io, struct vd_io, claim)

static vd_vblk_t claim_end(const struct vd_io *io)
{
	return io->nblocks ? io->v0 + io->nblocks : VD_VBLK_END;
}

/* A write's claim is at most a stretch long; it is in the list of the one where it begins. */
static struct vd_list *claims_of(struct vd_volume *vol, uint64_t stretch)
{
	return &vol->claims[stretch % VD_CLAIM_LISTS];
}

static uint64_t free_among(const struct vd_list *list, vd_vblk_t v, uint64_t len)
{
	const struct vd_list *pos;

	vd_list_for_each(pos, list) {
		const struct vd_io *o = io_claim(pos);

		if (o->v0 < v + len && v < claim_end(o))
			len = o->v0 > v ? o->v0 - v : 0;
	}
	return len;
}

/* How much of [v, v + len) nobody has claimed, from v on. */
static uint64_t claim_free(struct vd_volume *vol, vd_vblk_t v, uint64_t len)
{
	uint64_t s = v / STRETCH, last = (v + len - 1) / STRETCH;

	if (vd_likely(!vol->nclaims || !len))
		return len;
	len = free_among(&vol->cuts, v, len);
	for (s -= s != 0; s <= last; s++)
		len = free_among(claims_of(vol, s), v, len);
	return len;
}

static void claim_add(struct vd_volume *vol, struct vd_list *list, struct vd_io *io)
{
	vd_list_add_tail(list, &io->claim);
	vol->nclaims++;
}

static void claim_remove(struct vd_volume *vol, struct vd_io *io)
{
	vd_list_del(&io->claim);
	if (!--vol->nclaims)
		__atomic_store_n(&vol->mixed, false, __ATOMIC_RELAXED);
	if (vol->claim_waiters)
		vd_cond_wake_all(&vol->claim_cond);
}

/* A leaf for the overlay for each claim, before data moves (I12); most are there again
 * when the claim goes, for the next. */
static bool leaf_kept(struct vd_volume *vol)
{
	struct vd_ov_leaf *leaf;

	if (vd_likely(vol->nleaves > vol->nclaims))
		return true;
	leaf = vd_ov_leaf_new(&vol->pool->host, VD_ALLOC_NOWAIT);
	if (!leaf)
		return false;
	vd_ov_leaf_add(&vol->leaves, leaf);
	vol->nleaves++;
	return true;
}

void vd_claims_idle(struct vd_volume *vol)
{
	vd_write_lock(&vol->map);
	vd_spin_lock_inner(&vol->claim_lock);
	for (; vol->nleaves > vol->nclaims; vol->nleaves--)
		vd_ov_leaf_free(&vol->pool->host, vd_ov_leaf_take(&vol->leaves));
	vd_spin_unlock_inner(&vol->claim_lock);
	vd_write_unlock(&vol->map);
}

static void claim_wait(struct vd_volume *vol, vd_vblk_t v, uint64_t len)
{
	vd_spin_lock(&vol->claim_lock);
	vol->claim_waiters++;
	while (claim_free(vol, v, len) != len)
		vd_cond_wait_spin(&vol->claim_cond, &vol->claim_lock);
	vol->claim_waiters--;
	vd_spin_unlock(&vol->claim_lock);
}

/* A cut waits for the cuts before it, and for writes: while it is in its list none begins. */
static bool cut_waits(const struct vd_volume *vol, const struct vd_io *io)
{
	uint64_t len = claim_end(io) - io->v0;
	const struct vd_list *pos;
	unsigned i;

	for (i = 0; i < VD_CLAIM_LISTS; i++)
		if (free_among(&vol->claims[i], io->v0, len) < len)
			return true;
	vd_list_for_each(pos, &vol->cuts) {
		const struct vd_io *o = io_claim(pos);

		if (o == io)
			break;
		if (o->v0 < claim_end(io) && io->v0 < claim_end(o))
			return true;
	}
	return false;
}

/* For unmapping and shrinking: [v, end), or all from v on when that is more than a
 * request's nblocks can say (0 then).  In the list first, then waiting for those
 * before it: a stream of writes does not keep it out, and two do not wait for
 * each other. */
void vd_claim_range(struct vd_volume *vol, struct vd_io *io, vd_vblk_t v, vd_vblk_t end)
{
	io->v0 = v;
	io->nblocks = end - v <= UINT32_MAX ? (uint32_t)(end - v) : 0;
	vd_spin_lock(&vol->claim_lock);
	claim_add(vol, &vol->cuts, io);
	vol->claim_waiters++;
	while (cut_waits(vol, io))
		vd_cond_wait_spin(&vol->claim_cond, &vol->claim_lock);
	vol->claim_waiters--;
	vd_spin_unlock(&vol->claim_lock);
}

void vd_claim_drop(struct vd_volume *vol, struct vd_io *io)
{
	vd_spin_lock(&vol->claim_lock);
	claim_remove(vol, io);
	vd_spin_unlock(&vol->claim_lock);
}

void vd_map_own(struct vd_volume *vol)
{
	vd_write_lock(&vol->map);
	vd_spin_lock(&vol->claim_lock);
	__atomic_store_n(&vol->mixed, vol->nclaims != 0, __ATOMIC_RELAXED);
	vd_spin_unlock(&vol->claim_lock);
	vol->last_snapshot = 0;
	vd_reserve_follow(vol);
	vd_write_unlock(&vol->map);
}

/* How much of the io's run in place no older claim covers. */
static uint64_t unclaimed(struct vd_volume *vol, const struct vd_io *io)
{
	uint64_t n;

	vd_spin_lock(&vol->claim_lock);
	n = claim_free(vol, io->v0, io->nblocks);
	vd_spin_unlock(&vol->claim_lock);
	return n;
}

/* ---- reading ----------------------------------------------------------- */

static int check_range(const struct vd_volume *vol, uint64_t off, uint64_t len)
{
	uint64_t bytes = __atomic_load_n(&vol->size, __ATOMIC_RELAXED) << VD_BLOCK_SHIFT;

	if (!len || (off | len) & 511)
		return -EINVAL;
	return off > bytes || len > bytes - off ? -ERANGE : 0;
}

static enum vd_run_kind read_kind(const struct vd_volume *vol, const struct vd_ext *e)
{
	switch (e->kind) {
	case VD_DATA:
		return VD_RUN_DATA;
	case VD_ZERO:
		return VD_RUN_ZERO;
	default:
		return vol->has_base ? VD_RUN_BASE : VD_RUN_HOLE;
	}
}

static void io_init(struct vd_io *io, struct vd_volume *vol, uint64_t off)
{
	io->vol = vol;
	io->v0 = off >> VD_BLOCK_SHIFT;
	io->offset = off & (VD_BLOCK - 1);
	io->nblocks = 1;
	io->head.kind = io->tail.kind = VD_FILL_NONE;
	io->promised = 0;
	vd_list_init(&io->claim);
	io->wait = 0;
	io->fresh = 0;
	io->need_seq = 0;
}

static int io_park(struct vd_io *io, unsigned why, uint64_t nblocks)
{
	io->wait = why;
	io->nblocks = (uint32_t)nblocks;
	return -EWOULDBLOCK;
}

static uint32_t run_bytes(uint64_t blocks, uint32_t offset, uint64_t len)
{
	uint64_t bytes = vd_min(blocks, (uint64_t)VD_IO_MAX_BYTES / VD_BLOCK + 1) * VD_BLOCK - offset;

	return (uint32_t)vd_min(vd_min(bytes, len), (uint64_t)VD_IO_MAX_BYTES);
}

static void set_run(struct vd_io *io, enum vd_run_kind kind, const struct vd_ext *e, uint64_t len)
{
	io->kind = kind;
	io->pblk = e->p;
	io->bytes = run_bytes(e->len, io->offset, len);
	io->nblocks = (io->offset + io->bytes + VD_BLOCK - 1) >> VD_BLOCK_SHIFT;
}

/* The whole request's run, if its region is known: as of a moment since the call began, while the
 * volume's stamp is *stamp.  In the pool's gate. */
static vd_always_inline bool known(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io, bool own, uint64_t *stamp)
{
	struct vd_regions *g = vd_regions(vol);
	vd_vblk_t v = off >> VD_BLOCK_SHIFT;
	uint64_t n = ((off + len - 1) >> VD_BLOCK_SHIFT) - v + 1;

	*stamp = __atomic_load_n(&vol->stamp, __ATOMIC_ACQUIRE);
	if (vd_unlikely(!g || len > VD_IO_MAX_BYTES) ||
	    (!vd_region_find(g, *stamp, v, n, 0, own, &io->pblk) &&
	     (!__atomic_load_n(&vol->wide, __ATOMIC_RELAXED) ||
	      !vd_region_find(g, *stamp, v, n, VD_WIDE_SHIFT, own, &io->pblk))))
		return false;
	io->vol = vol;
	io->kind = VD_RUN_DATA;
	io->offset = off & (VD_BLOCK - 1);
	io->bytes = (uint32_t)len;
	io->nblocks = (uint32_t)n;
	return true;
}

/* In the pool's gate, which is left if it fails. */
static vd_noinline int read_unknown(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io)
{
	struct vd_ext e;
	int r;

	io_init(io, vol, off);
	vd_read_lock(&vol->map);
	r = vd_map_find(vol, io->v0, VD_NODE_NOWAIT, &e);
	if (!r) {
		set_run(io, read_kind(vol, &e), &e, len);
		vd_regions_found(vol, &e);
	}
	vd_read_unlock(&vol->map);
	if (!r)
		return 0;
	vd_gate_exit(&vol->pool->volumes->gate, io->gate);
	return r == -EWOULDBLOCK ? io_park(io, WAIT_NODE, 1) : r;
}

int vd_read_begin(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io)
{
	struct vd_volumes *vs = vol->pool->volumes;
	uint64_t stamp;
	int r = check_range(vol, off, len);

	if (r)
		return r;
	io->gate = vd_gate_enter(&vs->gate);
	return vd_likely(known(vol, off, len, io, false, &stamp)) ? 0 : read_unknown(vol, off, len, io);
}

void vd_read_end(struct vd_io *io)
{
	vd_gate_exit(&io->vol->pool->volumes->gate, io->gate);
}

/* ---- writing ----------------------------------------------------------- */

static bool in_place(const struct vd_volume *vol, const struct vd_ext *e)
{
	return e->kind == VD_DATA && e->birth > vol->last_snapshot;
}

static void set_fill(const struct vd_volume *vol, const struct vd_ext *e, vd_vblk_t v, struct vd_fill *f)
{
	switch (read_kind(vol, e)) {
	case VD_RUN_DATA:
		f->kind = VD_FILL_DATA;
		f->pblk = e->p + (v - e->v);
		break;
	case VD_RUN_BASE:
		f->kind = VD_FILL_BASE;
		break;
	default:
		f->kind = VD_FILL_ZERO;
	}
}

/*
 * How far the io's range needs new blocks, what was there, and where the partly
 * written ends get the rest of their block from.  `e` is what is at io->v0.  Under
 * vol->map, as the claim that follows.
 */
static int gather(struct vd_volume *vol, struct vd_io *io, uint64_t len, struct vd_ext e, uint64_t *n)
{
	uint64_t want = io->nblocks, end = io->offset + len, i = 0;
	int r;

	io->fresh = 0;
	io->head.kind = io->tail.kind = VD_FILL_NONE;
	while (i < want) {
		if (i) {
			r = vd_map_find(vol, io->v0 + i, VD_NODE_NOWAIT, &e);
			if (r)
				return r;
			if (in_place(vol, &e))
				break;
		}
		e.len = vd_min(e.len, want - i);
		if (!i && io->offset)
			set_fill(vol, &e, io->v0, &io->head);
		if ((i + e.len) * VD_BLOCK > end)
			set_fill(vol, &e, io->v0 + i + e.len - 1, &io->tail);
		if (e.kind != VD_DATA)
			io->fresh += (uint32_t)e.len;
		i += e.len;
	}
	if (i == 1 && io->offset)
		io->tail = io->head;
	else if (i == 1)
		io->head = io->tail;
	*n = i;
	return 0;
}

vd_pblk_t vd_map_beside(struct vd_volume *vol, vd_vblk_t v, vd_vblk_t start, uint64_t len)
{
	vd_vblk_t at = start, end = start + len;
	struct vd_ext e;

	for (; at < end && !vd_map_find(vol, at, VD_NODE_NOWAIT, &e); at += e.len)
		if (in_place(vol, &e) && VD_PBLK_BLOCK(e.p) + v >= e.v)
			return e.p + v - e.v;
	return VD_PBLK_NONE;
}

/* M5.  Under vol->map. */
static bool fill_unsettled(const struct vd_volume *vol, const struct vd_io *io)
{
	return (io->head.kind == VD_FILL_DATA || io->tail.kind == VD_FILL_DATA) &&
	       vd_atomic_read(&vol->settled) < (int64_t)vol->last_snapshot;
}

/* The first gather() of an io.  Most writes are of a whole block, which has nothing to gather. */
static int gather_first(struct vd_volume *vol, struct vd_io *io, uint64_t len, const struct vd_ext *e, uint64_t *n)
{
	if (vd_unlikely(io->nblocks != 1 || io->offset || len < VD_BLOCK))
		return gather(vol, io, len, *e, n);
	io->fresh = e->kind != VD_DATA;
	*n = 1;
	return 0;
}

/* Claims up to n blocks at io->v0, where `e` was found, and gets a run of blocks for as many as
 * there is one: *p, *got of them.  Under vol->map and claim_lock. */
static int claim_run(struct vd_volume *vol, uint64_t len, struct vd_io *io, const struct vd_ext *e, uint64_t n, vd_pblk_t *p, unsigned *got)
{
	int64_t room;
	int r;

	n = claim_free(vol, io->v0, n);
	io->wait = WAIT_CLAIM;
	if (!n)
		return -EWOULDBLOCK;
	io->wait = WAIT_MEMORY;
	if (!leaf_kept(vol))
		return -EWOULDBLOCK;
	io->wait = WAIT_SPACE;
	room = vd_reserve_room(vol->pool, vol);
	if (room <= 0)
		return -EWOULDBLOCK;
	io->nblocks = (uint32_t)n;
	claim_add(vol, claims_of(vol, io->v0 / STRETCH), io);
	r = check_range(vol, (io->v0 << VD_BLOCK_SHIFT) + io->offset, len); /* it may have shrunk before we had the claim */
	if (!r) {
		r = vd_windows_alloc(vol, e, (unsigned)vd_min(n, (uint64_t)room), p, got); /* the last few blocks are given too */
		if (r && *p != VD_PBLK_NONE) {
			io->wait = WAIT_GROUP;
			io->pblk = *p;
		}
	}
	if (r)
		claim_remove(vol, io);
	else
		io->nblocks = *got;
	return r;
}

static void unpromise(struct vd_io *io)
{
	if (io->promised)
		vd_atomic_add(&io->vol->promise.begun, -(int64_t)io->promised);
}

static void give_back(struct vd_io *io, vd_pblk_t p)
{
	unpromise(io);
	vd_space_unreserve(io->vol->pool, p, io->nblocks);
	vd_claim_drop(io->vol, io);
}

/*
 * Claims the range at io->v0, where `e` was found, and gets blocks for as much of it
 * as there is a run of: *p, io->nblocks of them.  Under vol->map, which makes the
 * look-up and the claim one moment, as a write that is published and the end of its
 * claim are.
 */
static int claim_blocks(struct vd_volume *vol, uint64_t len, struct vd_io *io, const struct vd_ext *e, uint64_t want, vd_pblk_t *p)
{
	uint64_t n;
	unsigned got;
	int r;

	io->nblocks = (uint32_t)want;
	r = gather_first(vol, io, len, e, &n);
	io->wait = WAIT_NODE;
	if (!r && fill_unsettled(vol, io)) {
		io->wait = WAIT_SETTLE;
		r = -EWOULDBLOCK;
	}
	if (r)
		return r == -EWOULDBLOCK ? io_park(io, io->wait, want) : r;
	vd_spin_lock_inner(&vol->claim_lock);
	r = claim_run(vol, len, io, e, n, p, &got);
	vd_spin_unlock_inner(&vol->claim_lock);
	if (!r && got < n) {
		io->wait = WAIT_NODE;
		r = gather(vol, io, len, *e, &n);
		if (r)
			give_back(io, *p);
	}
	if (r)
		return r == -EWOULDBLOCK ? io_park(io, io->wait, want) : r;
	io->promised = vol->reserved ? got : 0;
	if (io->promised)
		vd_atomic_add(&vol->promise.begun, io->promised);
	return 0;
}

/* A write that cannot go in place: io is in the pool's gate, vol->map held for reading
 * and let go here. */
static int begin_new(struct vd_volume *vol, uint64_t len, struct vd_io *io, const struct vd_ext *e) vd_lets_go(&vol->map)
{
	struct vd_pool *pool = vol->pool;
	uint64_t want = vd_min((io->offset + len + VD_BLOCK - 1) >> VD_BLOCK_SHIFT, STRETCH);
	uint64_t gone = vol->active.gone;
	vd_pblk_t p;
	int r;

	if (vd_atomic_read(&pool->volumes->overlay) >= VD_OVERLAY_HIGH)
		r = io_park(io, WAIT_OVERLAY, want);
	else
		r = claim_blocks(vol, len, io, e, want, &p);
	vd_read_unlock(&vol->map);
	if (r)
		return r;
	r = vd_journal_reserve(pool, sizeof(struct vd_disk_rec_map));
	if (r) {
		give_back(io, p);
		return r == -EWOULDBLOCK ? io_park(io, WAIT_ROOM, want) : r;
	}
	io->near = e->near;
	io->gone = gone;
	io->kind = VD_RUN_NEW;
	io->pblk = p;
	io->bytes = (uint32_t)vd_min((uint64_t)io->nblocks * VD_BLOCK - io->offset, len);
	return 0;
}

/* Under vol->map. */
static int begin_in_place(struct vd_volume *vol, uint64_t len, struct vd_io *io, struct vd_ext *e)
{
	set_run(io, VD_RUN_DATA, e, len);
	if (vd_unlikely(__atomic_load_n(&vol->mixed, __ATOMIC_RELAXED))) { /* M6 */
		e->len = unclaimed(vol, io);
		if (!e->len)
			return io_park(io, WAIT_CLAIM, io->nblocks);
		set_run(io, VD_RUN_DATA, e, len);
	}
	io->vol_gate = vd_gate_enter(&vol->gate); /* M2 */
	return 0;
}

/* M2: a snapshot gives the stamp, then waits for the gate; we enter, then look at the stamp. */
static bool begin_known(struct vd_volume *vol, struct vd_io *io, uint64_t stamp)
{
	io->vol_gate = vd_gate_enter(&vol->gate);
	if (vd_likely(__atomic_load_n(&vol->stamp, __ATOMIC_SEQ_CST) == stamp))
		return true;
	vd_gate_exit(&vol->gate, io->vol_gate);
	return false;
}

/* In the pool's gate, which is left if it fails. */
static vd_noinline int write_unknown(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io)
{
	struct vd_ext e;
	int r;

	io_init(io, vol, off);
	vd_read_lock(&vol->map);
	r = vd_map_find(vol, io->v0, VD_NODE_NOWAIT, &e);
	if (r) {
		vd_read_unlock(&vol->map);
		r = r == -EWOULDBLOCK ? io_park(io, WAIT_NODE, 1) : r;
	} else if (!in_place(vol, &e)) {
		r = begin_new(vol, len, io, &e);
	} else {
		vd_regions_found(vol, &e);
		r = begin_in_place(vol, len, io, &e);
		vd_read_unlock(&vol->map);
	}
	if (r)
		vd_gate_exit(&vol->pool->volumes->gate, io->gate);
	return r;
}

int vd_write_begin(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io)
{
	struct vd_volumes *vs = vol->pool->volumes;
	uint64_t stamp;
	int r = check_range(vol, off, len);

	if (r)
		return r;
	if (vd_volume_readonly(vol) || !vd_pool_writable(vol->pool))
		return -EROFS;
	io->gate = vd_gate_enter(&vs->gate);
	if (known(vol, off, len, io, true, &stamp) && begin_known(vol, io, stamp))
		return 0;
	return write_unknown(vol, off, len, io);
}

static void publish(struct vd_io *io)
{
	struct vd_volume *vol = io->vol;
	struct vd_pool *pool = vol->pool;
	struct vd_volumes *vs = pool->volumes;
	struct vd_disk_rec_map rec = {
		.r = { cpu_to_le16(VD_REC_MAP), cpu_to_le16(sizeof(rec)), cpu_to_le32(vol->id) },
		.vblk = cpu_to_le64(io->v0),
		.pblk_len = cpu_to_le64(io->pblk | (uint64_t)(io->nblocks - 1) << 48),
		.fresh = cpu_to_le64(io->fresh),
	};
	struct vd_ext e = { .v = io->v0, .len = io->nblocks, .p = io->pblk, .kind = VD_DATA };
	const struct vd_ov_leaf *leaf;
	uint64_t seq;

	/* Under the seal, birth, record and overlay are one moment (I1); two records of one
	 * block keep their order by its claim. */
	vd_read_lock(&vs->seal);
	e.birth = (uint64_t)vd_atomic_read(&vs->epoch);
	seq = vd_journal_append(pool, &rec.r, sizeof(rec));
	vd_write_lock_inner(&vol->map);
	if (vol->active.gone == io->gone)
		e.near = io->near;
	leaf = vol->leaves;
	vd_map_put(vol, &e, seq, &vol->leaves);
	vol->mapped += io->fresh;
	vd_reserve_wrote(vol, io->nblocks);
	unpromise(io);
	vd_spin_lock_inner(&vol->claim_lock);
	vol->nleaves -= vol->leaves != leaf;
	claim_remove(vol, io);
	if (vd_unlikely(vol->nleaves > vol->nclaims + LEAVES_KEPT)) {
		vd_ov_leaf_free(&pool->host, vd_ov_leaf_take(&vol->leaves));
		vol->nleaves--;
	}
	vd_spin_unlock_inner(&vol->claim_lock);
	vd_write_unlock_inner(&vol->map);
	vd_read_unlock(&vs->seal);
}

int vd_write_end(struct vd_io *io, int error)
{
	struct vd_volume *vol = io->vol;
	struct vd_pool *pool = vol->pool;

	/* Also after an error: part of it may have reached the member. */
	vd_journal_wrote(pool, VD_PBLK_MEMBER(io->pblk));
	if (io->kind != VD_RUN_NEW) {
		vd_gate_exit(&vol->gate, io->vol_gate);
	} else if (!error) {
		publish(io);
	} else {
		vd_journal_unreserve(pool, sizeof(struct vd_disk_rec_map));
		give_back(io, io->pblk);
	}
	vd_gate_exit(&pool->volumes->gate, io->gate);
	return error;
}

/* ---- waiting ----------------------------------------------------------- */

/*
 * The most that the next checkpoint may take: per changed extent two pages and a
 * split, the paths above, and the pages of counts: a page copied because a snapshot
 * shares it touches as many groups as it has extents (I18); on each copy.
 */
uint64_t vd_meta_need(struct vd_pool *pool)
{
	uint64_t n = (uint64_t)vd_atomic_read(&pool->volumes->overlay);
	uint64_t groups = (uint64_t)vd_atomic_read(&pool->groups);
	unsigned copies = pool->nmembers > 1 ? 2 : 1;

	return copies * (3 * n + n / 16 + 16 + vd_min(n * VD_EXTENTS_MAX, groups));
}

int vd_io_wait(struct vd_io *io)
{
	struct vd_volume *vol = io->vol;
	struct vd_pool *pool = vol->pool;
	struct vd_ext e;
	uint64_t v, end = io->v0 + io->nblocks;
	int r;

	switch (io->wait) {
	case WAIT_NODE:
		for (v = io->v0; v < end; v += e.len) {
			r = vd_map_find_wait(vol, v, &e);
			if (r)
				return r;
		}
		return 0;
	case WAIT_CLAIM:
		claim_wait(vol, io->v0, io->nblocks);
		return 0;
	case WAIT_SPACE:
		if (vd_reserve_room(pool, vol) > 0) {
			r = vd_space_refill(pool);
			if (r != -ENOSPC)
				return r;
		}
		return vd_space_make(pool, vol);
	case WAIT_GROUP:
		return vd_space_load(pool, io->pblk);
	case WAIT_ROOM:
		return vd_journal_make_room(pool);
	case WAIT_OVERLAY:
		return vd_checkpoint(pool);
	case WAIT_SETTLE:
		vd_volume_settle(vol);
		return 0;
	default:
		return -ENOMEM;
	}
}

/* ---- unmapping --------------------------------------------------------- */

static int unmap_blocks(struct vd_volume *vol, vd_vblk_t v, uint64_t len)
{
	struct vd_pool *pool = vol->pool;
	struct vd_volumes *vs = pool->volumes;
	struct vd_ext e = { .v = v, .len = len, .kind = vol->has_base ? VD_ZERO : VD_HOLE };
	struct vd_disk_rec_unmap rec = {
		.r = { cpu_to_le16(VD_REC_UNMAP), cpu_to_le16(sizeof(rec)), cpu_to_le32(vol->id) },
		.vblk = cpu_to_le64(v), .len = cpu_to_le64(len), .kind = cpu_to_le32(e.kind),
	};
	struct vd_ov_leaf *spare;
	struct vd_owned own;
	uint64_t freed, seq;
	int r;

	r = vd_map_mapped(vol, v, len, &freed);
	if (!r)
		r = vd_reserve_count(vol, v, len, freed, &own);
	if (r)
		return r;
	if (!freed && e.kind == VD_HOLE)
		return 0;
	rec.freed = cpu_to_le64(freed);
	spare = vd_ov_leaf_new(&pool->host, VD_ALLOC_WAIT);
	if (!spare)
		return -ENOMEM;
	while ((r = vd_journal_reserve(pool, sizeof(rec))) == -EWOULDBLOCK) {
		r = vd_journal_make_room(pool);
		if (r)
			break;
	}
	if (!r) {
		vd_read_lock(&vs->seal);
		vd_write_lock(&vol->map);
		e.birth = (uint64_t)vd_atomic_read(&vs->epoch);
		seq = vd_journal_append(pool, &rec.r, sizeof(rec));
		vd_map_put(vol, &e, seq, &spare);
		vol->mapped -= freed;
		vd_reserve_freed(vol, &own);
		vd_write_unlock(&vol->map);
		vd_read_unlock(&vs->seal);
	}
	vd_ov_leaf_free(&pool->host, spare);
	return r;
}

int vd_unmap(struct vd_volume *vol, uint64_t off, uint64_t len)
{
	vd_vblk_t v = (off + VD_BLOCK - 1) >> VD_BLOCK_SHIFT, end = (off + len) >> VD_BLOCK_SHIFT;
	struct vd_io io;
	int r;

	if (off + len < off || off + len > vd_volume_size(vol))
		return -ERANGE;
	if (vd_volume_readonly(vol) || !vd_pool_writable(vol->pool))
		return -EROFS;
	if (v >= end)
		return 0;
	r = vd_reserve_admit(vol->pool, vol); /* pages are copied under a snapshot */
	if (r)
		return r;
	io_init(&io, vol, v << VD_BLOCK_SHIFT);
	vd_claim_range(vol, &io, v, end);
	r = unmap_blocks(vol, v, end - v);
	vd_claim_drop(vol, &io);
	return r;
}

/* ---- small things ------------------------------------------------------ */

uint64_t vd_volume_size(const struct vd_volume *vol)
{
	return __atomic_load_n(&vol->size, __ATOMIC_RELAXED) << VD_BLOCK_SHIFT;
}

bool vd_volume_readonly(const struct vd_volume *vol)
{
	return __atomic_load_n(&vol->readonly, __ATOMIC_RELAXED);
}

int vd_extent(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_extent_info *out)
{
	vd_vblk_t v = off >> VD_BLOCK_SHIFT, end = (off + len + VD_BLOCK - 1) >> VD_BLOCK_SHIFT, at = v;
	enum vd_ext_kind kind = VD_HOLE;
	struct vd_ext e;
	int r;

	r = len && off + len > off && off + len <= vd_volume_size(vol) ? 0 : -ERANGE;
	if (r)
		return r;
	while (at < end) {
		r = vd_map_find_wait(vol, at, &e);
		if (r)
			return r;
		if (e.kind == VD_HOLE && vol->has_base)
			e.kind = VD_BASE;
		if (at == v)
			kind = e.kind;
		else if (e.kind != kind)
			break;
		at += e.len;
	}
	out->off = off;
	out->len = vd_min(at << VD_BLOCK_SHIFT, off + len) - off;
	out->kind = kind;
	return 0;
}
