// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Snapshots and rollback.
 *
 *   cut     one step under seal for writing: epoch + 1, active overlays frozen,
 *           clones given the same base, record SNAP appended          (I1)
 *   drain   writes in place that began before the cut, each volume by itself
 *   valid   members flushed and SNAP durable, then record VALID; a clone without
 *           it is pending and dropped at the next opening
 *
 * A request that was acknowledged before another one was begun is in every
 * snapshot that has the other: inserts are shut out by seal for the whole cut, and
 * a write in place is in if it was translated before its volume's turn, which
 * nothing that was acknowledged only after the cut can have preceded.
 */
#include "record.h"

#define SNAP_MAX 256u

struct pair { struct vd_volume *origin, *clone; };

static unsigned snap_len(unsigned n)
{
	return (unsigned)sizeof(struct vd_disk_rec_snap) + n * 8;
}

static struct vd_disk_rec_snap *snap_record(struct vd_pool *pool, enum vd_rec_type type, uint32_t volume, uint64_t epoch, const struct pair *pair, unsigned n)
{
	struct vd_disk_rec_snap *rec = vd_zalloc(pool, snap_len(n));
	unsigned i;

	if (!rec)
		return NULL;
	rec->r.type = cpu_to_le16(type);
	rec->r.len = cpu_to_le16(snap_len(n));
	rec->r.volume = cpu_to_le32(volume);
	rec->epoch = cpu_to_le64(epoch);
	rec->n = cpu_to_le32(n);
	for (i = 0; i < n; i++) {
		rec->pair[i].origin = cpu_to_le32(pair[i].origin->id);
		rec->pair[i].clone = cpu_to_le32(pair[i].clone->id);
	}
	return rec;
}

/* The new volume shares what the old one has, all of which was born in epoch `last`
 * or before.  seal held; each has its spare. */
static void share(struct vd_volume *from, struct vd_volume *to, uint64_t last)
{
	struct vd_layer *base;
	uint64_t mapped;

	vd_write_lock(&from->map);
	vd_layer_freeze(from);
	base = from->base;
	base->refs++;
	mapped = from->mapped;
	from->last_snapshot = last;
	from->own = 0;
	vd_regions_forget(from); /* before writes in place are waited for (M2) */
	vd_reserve_follow(from);
	vd_write_unlock(&from->map);
	vd_write_lock(&to->map); /* never two at once: seal keeps both as they are */
	to->base = base;
	to->mapped = mapped;
	to->last_snapshot = last;
	to->own = 0;
	vd_regions_forget(to);
	vd_reserve_follow(to);
	vd_atomic_set(&to->settled, (int64_t)last); /* nobody writes to it */
	vd_write_unlock(&to->map);
	if (base->depth >= VD_CHAIN_LONG)
		vd_pool_want_checkpoint(from->pool);
	vd_volume_dirty(from);
	vd_volume_dirty(to);
}

/* The step of a SNAP record.  meta and seal held; the clones are in memory, empty. */
static void snap_apply(struct vd_pool *pool, const struct pair *pair, unsigned n, uint64_t epoch)
{
	unsigned i;

	vd_atomic_set(&pool->volumes->epoch, (int64_t)epoch);
	for (i = 0; i < n; i++) {
		vd_layer_put(pool, pair[i].clone->base);
		share(pair[i].origin, pair[i].clone, epoch - 1);
	}
}

/* Clone's record, from its origin's. */
static struct vd_record *clone_record(struct vd_pool *pool, const struct vd_snap *snap, const struct vd_volume *origin, uint32_t id)
{
	const struct vd_disk_volume *o = &origin->rec->d;
	struct vd_record *rec = vd_record_new(pool, NULL);
	struct vd_disk_volume *d;

	if (!rec)
		return NULL;
	d = &rec->d;
	d->id = cpu_to_le32(id);
	d->flags = cpu_to_le32(VD_VOL_SNAPSHOT | VD_VOL_PENDING | (snap->flags & VD_VOL_READONLY) | (le32_to_cpu(o->flags) & VD_VOL_BASE));
	memcpy(d->uuid, snap->uuid, 16);
	memcpy(d->name, snap->name, strlen(snap->name));
	d->size = o->size;
	d->family = o->family;
	d->origin = cpu_to_le64(origin->id);
	d->created = cpu_to_le64(pool->host.now(pool->host.ctx));
	memcpy(d->base, o->base, sizeof(d->base));
	return rec;
}

struct work {
	struct pair *pair;
	struct vd_plan plan;
	struct vd_disk_rec_snap *snap;
	unsigned n, made;
	unsigned roomed;    /* clones whose record has room in the journal */
	bool snap_roomed;
	struct vd_disk_rec *vol_rec; /* one buffer, for each clone's record in turn */
};

static void work_fini(struct vd_pool *pool, struct work *w, bool done)
{
	unsigned i;

	for (i = 0; w->pair && !done && i < w->made; i++) {
		if (i < w->roomed)
			vd_journal_unreserve(pool, vd_record_len(&w->pair[i].clone->rec->d));
		vd_volume_forget(pool, w->pair[i].clone);
	}
	if (!done && w->snap_roomed)
		vd_journal_unreserve(pool, snap_len(w->n));
	vd_plan_fini(&w->plan);
	vd_free(pool, w->pair);
	vd_free(pool, w->snap);
	vd_free(pool, w->vol_rec);
}

/* meta held. Looks at all, makes the clones, reserves. */
static int prepare(struct vd_pool *pool, struct work *w, struct vd_snap *snap, unsigned n)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_root empty = { .height = 0 };
	struct vd_record *rec;
	unsigned i, j;
	int r;

	w->n = n;
	r = vd_plan_init(&w->plan, pool, 2 * n);
	if (r)
		return r;
	w->pair = vd_zalloc(pool, n * sizeof(*w->pair));
	w->vol_rec = vd_zalloc(pool, VD_BLOCK);
	if (!w->pair || !w->vol_rec)
		return -ENOMEM;
	if (vs->next_id + n > UINT32_MAX || n + 1 > vd_journal_hold_max(pool))
		return -ENOSPC;
	for (i = 0; i < n; i++) {
		struct vd_volume *origin;

		r = vd_volume_user(pool, snap[i].origin, &origin);
		if (r)
			return r;
		if (vd_record_flags(origin) & VD_VOL_LOCKED)
			return -EACCES;
		for (j = 0; j < i; j++)
			if (w->pair[j].origin == origin)
				return -EINVAL;
			else if (!strcmp(snap[j].name, snap[i].name))
				return -EEXIST;
		r = vd_layer_spare(origin);
		if (r)
			return r;
		rec = clone_record(pool, &snap[i], origin, (uint32_t)vs->next_id + i);
		if (!rec)
			return -ENOMEM;
		r = vd_volume_new(pool, (uint32_t)vs->next_id + i, &empty, rec, &w->pair[i].clone);
		if (r) {
			vd_record_put(pool, rec);
			return r;
		}
		w->pair[i].origin = origin;
		w->made++;
		r = vd_plan_name(&w->plan, snap[i].name, w->pair[i].clone->id);
		if (!r)
			r = vd_plan_key(&w->plan, VD_INDEX_ATTENTION | w->pair[i].clone->id, w->pair[i].clone->id);
		if (r)
			return r;
		r = vd_journal_reserve(pool, vd_record_len(&rec->d));
		if (r)
			return r;
		w->roomed++;
	}
	w->snap = snap_record(pool, VD_REC_SNAP, 0, (uint64_t)vd_atomic_read(&vs->epoch) + 1, w->pair, n);
	if (!w->snap)
		return -ENOMEM;
	r = vd_journal_reserve(pool, snap_len(n));
	w->snap_roomed = !r;
	return r;
}

/* R4: what is shared from now on is promised once more.  seal held for writing. */
static int hold(struct vd_pool *pool, const struct pair *pair, unsigned n, uint64_t *held)
{
	uint64_t more;
	unsigned i;
	int r = 0;

	*held = 0;
	for (i = 0; i < n && !r; i++) {
		r = vd_reserve_hold(pair[i].origin, pair[i].origin->reserved, 0, pair[i].origin->mapped, &more);
		*held += r ? 0 : more;
	}
	if (r)
		vd_space_unhold(pool, *held);
	return r;
}

/* meta held. The cut itself. -ENOSPC: nothing was done. */
static int cut(struct vd_pool *pool, struct work *w, uint64_t *out)
{
	struct vd_volumes *vs = pool->volumes;
	uint64_t seq, held;
	unsigned i;
	int r;

	vd_write_lock(&vs->seal);
	r = hold(pool, w->pair, w->n, &held);
	if (r) {
		vd_write_unlock(&vs->seal);
		return r;
	}
	for (i = 0; i < w->n; i++) {
		struct vd_volume *clone = w->pair[i].clone;

		vd_record_encode(&clone->rec->d, w->vol_rec);
		vd_journal_append(pool, w->vol_rec, le16_to_cpu(w->vol_rec->len));
		memset(w->vol_rec, 0, VD_BLOCK);
		vd_volume_insert(vs, clone);
	}
	vd_plan_apply(&w->plan);
	seq = vd_journal_append(pool, &w->snap->r, snap_len(w->n));
	snap_apply(pool, w->pair, w->n, le64_to_cpu(w->snap->epoch));
	vd_space_unhold(pool, held);
	vd_write_unlock(&vs->seal);
	vs->next_id += w->n;
	*out = seq;
	return 0;
}

/* ---- validity ------------------------------------------------------------ */

static int valid_plan(struct vd_pool *pool, struct vd_plan *plan, struct vd_record **rec, const struct pair *pair, unsigned n)
{
	unsigned i;
	int r = vd_plan_init(plan, pool, n);

	for (i = 0; !r && i < n; i++) {
		struct vd_disk_volume *d;

		rec[i] = vd_record_new(pool, &pair[i].clone->rec->d);
		if (!rec[i])
			return -ENOMEM;
		d = &rec[i]->d;
		d->flags = cpu_to_le32(le32_to_cpu(d->flags) & ~(uint32_t)VD_VOL_PENDING);
		r = vd_plan_key(plan, VD_INDEX_ATTENTION | pair[i].clone->id, 0);
	}
	return r;
}

static void valid_apply(struct vd_plan *plan, struct vd_record **rec, const struct pair *pair, unsigned n)
{
	unsigned i;

	vd_plan_apply(plan);
	for (i = 0; i < n; i++) {
		vd_record_set(pair[i].clone, rec[i]);
		rec[i] = NULL;
	}
}

static void records_free(struct vd_pool *pool, struct vd_record **rec, unsigned n)
{
	unsigned i;

	for (i = 0; rec && i < n; i++)
		vd_record_put(pool, rec[i]);
	vd_free(pool, rec);
}

static int make_valid(struct vd_pool *pool, const struct pair *pair, unsigned n)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_disk_rec_snap *rec = NULL;
	struct vd_record **records;
	struct vd_plan plan;
	uint64_t seq = 0;
	int r;

	for (;;) {
		records = vd_zalloc(pool, n * sizeof(*records));
		if (!records)
			return -ENOMEM;
		vd_mutex_lock(&vs->lock);
		r = valid_plan(pool, &plan, records, pair, n);
		if (!r) {
			rec = snap_record(pool, VD_REC_VALID, 0, (uint64_t)vd_atomic_read(&vs->epoch), pair, n);
			r = rec ? vd_journal_reserve(pool, snap_len(n)) : -ENOMEM;
		}
		if (!r) {
			vd_read_lock(&vs->seal);
			seq = vd_journal_append(pool, &rec->r, snap_len(n));
			valid_apply(&plan, records, pair, n);
			vd_read_unlock(&vs->seal);
		}
		vd_plan_fini(&plan);
		records_free(pool, records, n);
		vd_free(pool, rec);
		rec = NULL;
		vd_mutex_unlock(&vs->lock);
		if (r != -EWOULDBLOCK)
			return r ? r : vd_journal_commit(pool, seq);
		r = vd_journal_make_room(pool);
		if (r)
			return r;
	}
}

/* ---- calls ---------------------------------------------------------------- */

/* What could not be made valid goes, name and all; if that fails too, at the next opening. */
static void drop_pending(struct vd_pool *pool, uint32_t first, unsigned n)
{
	unsigned i;

	for (i = 0; i < n; i++)
		if (vd_volume_drop(pool, first + i))
			vd_log(pool, VD_LOG_WARN, "a snapshot that did not come about, volume %a, goes at the next opening", first + i, 0);
}

int vd_snapshot(struct vd_pool *pool, struct vd_snap *snap, unsigned n)
{
	struct vd_volumes *vs = pool->volumes;
	struct work w;
	uint64_t seq = 0;
	bool made = false;
	unsigned i;
	int r;

	if (!n || n > SNAP_MAX)
		return -EINVAL;
	for (i = 0; i < n; i++)
		if (!vd_name_valid(snap[i].name))
			return -EINVAL;
	r = vd_reserve_admit(pool, NULL);
	if (r)
		return r;
	for (;;) {
		if (!vd_pool_writable(pool))
			return -EROFS;
		memset(&w, 0, sizeof(w));
		vd_mutex_lock(&vs->lock);
		r = prepare(pool, &w, snap, n);
		if (!r)
			r = cut(pool, &w, &seq);
		if (!r)
			break;
		work_fini(pool, &w, false);
		vd_mutex_unlock(&vs->lock);
		r = vd_change_again(pool, r, &made);
		if (r)
			return r;
	}
	for (i = 0; i < n; i++) /* neither may go while we are not looking */
		w.pair[i].origin->opens++, w.pair[i].clone->opens++;
	vd_mutex_unlock(&vs->lock);

	for (i = 0; i < n; i++)
		vd_volume_settle(w.pair[i].origin);
	r = vd_journal_commit(pool, seq);
	if (!r)
		r = make_valid(pool, w.pair, n);

	vd_mutex_lock(&vs->lock);
	for (i = 0; i < n; i++) {
		w.pair[i].origin->opens--, w.pair[i].clone->opens--;
		if (!r)
			snap[i].id = w.pair[i].clone->id;
	}
	vd_mutex_unlock(&vs->lock);
	if (r)
		drop_pending(pool, le32_to_cpu(w.snap->pair[0].clone), n);
	work_fini(pool, &w, true);
	return r;
}

/*
 * Rollback: the volume takes the snapshot's mapping, size and base image; a hidden
 * volume, being deleted, takes the volume's old mapping.
 */
struct rollback {
	struct vd_volume *vol, *snap, *hidden;
	struct vd_record *rec;  /* the volume's new one */
	struct vd_plan plan;
};

static void rollback_fini(struct vd_pool *pool, struct rollback *b)
{
	vd_plan_fini(&b->plan);
	vd_record_put(pool, b->rec);
}

static int rollback_plan(struct vd_pool *pool, struct rollback *b)
{
	const struct vd_disk_volume *s = &b->snap->rec->d;
	struct vd_disk_volume *d;
	int r;

	r = vd_plan_init(&b->plan, pool, 1);
	if (!r)
		r = vd_layer_spare(b->vol);
	if (!r)
		r = vd_layer_spare(b->snap);
	if (r)
		return r;
	b->rec = vd_record_new(pool, &b->vol->rec->d);
	if (!b->rec)
		return -ENOMEM;
	d = &b->rec->d;
	d->size = s->size;
	d->reserved_blocks = cpu_to_le64(vd_min(le64_to_cpu(d->reserved_blocks), le64_to_cpu(s->size) >> VD_BLOCK_SHIFT));
	d->flags = cpu_to_le32((le32_to_cpu(d->flags) & ~(uint32_t)VD_VOL_BASE) | (le32_to_cpu(s->flags) & VD_VOL_BASE));
	memcpy(d->base, s->base, sizeof(d->base));
	return 0;
}

/* seal held for writing. */
static void rollback_apply(struct vd_pool *pool, struct rollback *b, uint64_t epoch)
{
	struct vd_volume *vol = b->vol, *hidden = b->hidden;

	vd_write_lock(&vol->map);
	vd_layer_freeze(vol);
	vd_layer_put(pool, hidden->base);
	hidden->base = vol->base;
	hidden->mapped = vol->mapped;
	hidden->last_snapshot = vol->last_snapshot;
	vol->base = NULL;
	vd_write_unlock(&vol->map);
	vd_atomic_set(&pool->volumes->epoch, (int64_t)epoch);
	share(b->snap, vol, epoch - 1);
	vd_record_set(vol, b->rec);
	b->rec = NULL;
	vd_volume_dirty(hidden);
}

static struct vd_record *hidden_record(struct vd_pool *pool, const struct vd_volume *vol, uint32_t id)
{
	struct vd_record *rec = vd_record_new(pool, NULL);

	if (rec) {
		rec->d.id = cpu_to_le32(id);
		rec->d.flags = cpu_to_le32(VD_VOL_DELETING);
		rec->d.size = vol->rec->d.size;
		rec->d.family = vol->rec->d.family;
		memcpy(rec->d.uuid, vol->rec->d.uuid, 16);
	}
	return rec;
}

/* R4: both share all they have from now on.  seal held for writing. */
static int rollback_hold(struct rollback *b, uint64_t *held)
{
	uint64_t more;
	int r = vd_reserve_hold(b->vol, le64_to_cpu(b->rec->d.reserved_blocks), 0, b->snap->mapped, held);

	if (r)
		return r;
	r = vd_reserve_hold(b->snap, b->snap->reserved, 0, b->snap->mapped, &more);
	if (r)
		vd_space_unhold(b->vol->pool, *held);
	else
		*held += more;
	return r;
}

static int rollback_do(struct vd_pool *pool, struct rollback *b, uint64_t *seq)
{
	struct vd_volumes *vs = pool->volumes;
	struct pair pair = { b->vol, b->snap };
	struct vd_root empty = { .height = 0 };
	uint32_t id = (uint32_t)vs->next_id;
	struct vd_disk_rec_snap *rec = NULL;
	struct vd_disk_rec *hrec = NULL;
	struct vd_record *hidden;
	uint64_t held = 0;
	unsigned hlen;
	int r;

	if (vs->next_id > UINT32_MAX)
		return -ENOSPC;
	hidden = hidden_record(pool, b->vol, id);
	if (!hidden)
		return -ENOMEM;
	r = vd_volume_new(pool, id, &empty, hidden, &b->hidden);
	if (r) {
		vd_record_put(pool, hidden);
		return r;
	}
	hlen = vd_record_len(&hidden->d);
	rec = snap_record(pool, VD_REC_ROLLBACK, id, (uint64_t)vd_atomic_read(&vs->epoch) + 1, &pair, 1);
	hrec = vd_zalloc(pool, hlen);
	r = rec && hrec ? vd_plan_key(&b->plan, VD_INDEX_ATTENTION | id, id) : -ENOMEM;
	if (!r)
		r = vd_journal_reserve(pool, hlen);
	if (!r) {
		r = vd_journal_reserve(pool, snap_len(1));
		if (r)
			vd_journal_unreserve(pool, hlen);
	}
	if (!r) {
		vd_record_encode(&hidden->d, hrec);
		vd_write_lock(&vs->seal);
		r = rollback_hold(b, &held);
		if (!r) {
			vd_journal_append(pool, hrec, hlen);
			*seq = vd_journal_append(pool, &rec->r, snap_len(1));
			vd_plan_apply(&b->plan);
			vd_volume_insert(vs, b->hidden);
			rollback_apply(pool, b, le64_to_cpu(rec->epoch));
			vd_space_unhold(pool, held);
			vd_volume_dying(b->hidden);
			vs->next_id++;
		}
		vd_write_unlock(&vs->seal);
		if (r) {
			vd_journal_unreserve(pool, hlen);
			vd_journal_unreserve(pool, snap_len(1));
		}
	}
	if (r)
		vd_volume_forget(pool, b->hidden);
	vd_free(pool, rec);
	vd_free(pool, hrec);
	return r;
}

int vd_rollback(struct vd_pool *pool, uint32_t id, uint32_t snap)
{
	struct vd_volumes *vs = pool->volumes;
	struct rollback b;
	uint64_t seq = 0;
	bool made = false;
	int r;

	for (;;) {
		if (!vd_pool_writable(pool))
			return -EROFS;
		memset(&b, 0, sizeof(b));
		b.plan.pool = pool;
		vd_mutex_lock(&vs->lock);
		r = vd_volume_user(pool, id, &b.vol);
		if (!r)
			r = vd_volume_user(pool, snap, &b.snap);
		if (!r && id == snap)
			r = -EINVAL;
		if (!r && b.vol->rec->d.family != b.snap->rec->d.family)
			r = -EXDEV;
		if (!r && (b.vol->opens || b.vol->rec->d.npointers))
			r = -EBUSY;
		if (!r && (vd_record_flags(b.vol) | vd_record_flags(b.snap)) & VD_VOL_LOCKED)
			r = -EACCES;
		if (!r)
			r = rollback_plan(pool, &b);
		if (!r) {
			vd_windows_drop(b.vol);
			r = rollback_do(pool, &b, &seq);
		}
		rollback_fini(pool, &b);
		if (!r)
			b.snap->opens++;
		vd_mutex_unlock(&vs->lock);
		if (!r)
			break;
		r = vd_change_again(pool, r, &made);
		if (r)
			return r;
	}
	vd_volume_settle(b.snap);
	vd_pool_want_checkpoint(pool);
	r = vd_journal_commit(pool, seq);
	vd_mutex_lock(&vs->lock);
	b.snap->opens--;
	vd_mutex_unlock(&vs->lock);
	return r;
}

/* ---- replay --------------------------------------------------------------- */

static int replay_pairs(struct vd_pool *pool, const struct vd_disk_rec_snap *rec, bool snap)
{
	unsigned i, n = le32_to_cpu(rec->n);
	struct pair *pair = vd_zalloc(pool, n * sizeof(*pair));
	struct vd_record **records = NULL;
	struct vd_plan plan = { .pool = pool };
	int r = pair ? 0 : -ENOMEM;

	for (i = 0; !r && i < n; i++) {
		r = vd_volumes_load(pool, le32_to_cpu(rec->pair[i].origin), &pair[i].origin);
		/* When the clone is made valid its origin may be gone by now. */
		if (r == -ENOENT && !snap)
			r = 0;
		if (!r)
			r = vd_volumes_load(pool, le32_to_cpu(rec->pair[i].clone), &pair[i].clone);
		if (!r && (pair[i].clone == pair[i].origin || !(vd_record_flags(pair[i].clone) & VD_VOL_PENDING) ||
			   (pair[i].origin && vd_record_flags(pair[i].origin) & VD_VOL_SERVER)))
			r = -EUCLEAN;
		if (!r && snap)
			r = pair[i].clone->mapped ? -EUCLEAN : vd_layer_spare(pair[i].origin);
	}
	if (!r && !snap) {
		records = vd_zalloc(pool, n * sizeof(*records));
		r = records ? valid_plan(pool, &plan, records, pair, n) : -ENOMEM;
	}
	if (!r && snap) {
		vd_write_lock(&pool->volumes->seal);
		snap_apply(pool, pair, n, le64_to_cpu(rec->epoch));
		vd_write_unlock(&pool->volumes->seal);
	} else if (!r) {
		valid_apply(&plan, records, pair, n);
	}
	vd_plan_fini(&plan);
	records_free(pool, records, n);
	vd_free(pool, pair);
	return r;
}

static int replay_rollback(struct vd_pool *pool, const struct vd_disk_rec_snap *rec)
{
	struct rollback b = { .plan.pool = pool };
	int r;

	r = vd_volumes_load(pool, le32_to_cpu(rec->pair[0].origin), &b.vol);
	if (!r)
		r = vd_volumes_load(pool, le32_to_cpu(rec->pair[0].clone), &b.snap);
	if (!r)
		r = vd_volumes_load(pool, le32_to_cpu(rec->r.volume), &b.hidden);
	if (!r && (b.vol == b.snap || b.vol == b.hidden || b.snap == b.hidden || b.hidden->mapped ||
		   (vd_record_flags(b.vol) | vd_record_flags(b.snap)) & VD_VOL_SERVER))
		r = -EUCLEAN;
	if (!r)
		r = rollback_plan(pool, &b);
	if (!r) {
		vd_write_lock(&pool->volumes->seal);
		rollback_apply(pool, &b, le64_to_cpu(rec->epoch));
		vd_write_unlock(&pool->volumes->seal);
	}
	rollback_fini(pool, &b);
	return r;
}

int vd_snap_replay(struct vd_pool *pool, const struct vd_disk_rec *r0)
{
	const struct vd_disk_rec_snap *rec = (const struct vd_disk_rec_snap *)r0;
	unsigned type = le16_to_cpu(r0->type), len = le16_to_cpu(r0->len), n;
	int r;

	if (len < snap_len(1))
		return -EUCLEAN;
	n = le32_to_cpu(rec->n);
	if (!n || n > SNAP_MAX || len < snap_len(n))
		return -EUCLEAN;
	if (type != VD_REC_VALID && le64_to_cpu(rec->epoch) <= (uint64_t)vd_atomic_read(&pool->volumes->epoch))
		return -EUCLEAN;
	r = type == VD_REC_ROLLBACK ? replay_rollback(pool, rec) : replay_pairs(pool, rec, type == VD_REC_SNAP);
	return r == -ENOENT ? -EUCLEAN : r;
}
