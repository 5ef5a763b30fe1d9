// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Volumes as records: names, sizes, locks, open pointers, and what makes and
 * ends them.  The mapping itself is map.c's, snapshots are snap.c's.
 *
 * Every change has three steps, the same at run time and at replay:
 *   plan    look up what it needs, allocate all it may use        (blocks)
 *   apply   record into the journal, effect into memory: one moment under seal
 *   commit  wait until the record is durable
 * At replay the record is there already and the commit is not needed.
 *
 * V1  A volume's record is replaced as a whole (struct vd_record is immutable), so
 *     that a checkpoint's cut is a pointer.
 * V2  The name index and the attention list follow from the records: they have no
 *     journal records of their own.
 * V3  A volume that is pending or being deleted is on the attention list, so that
 *     an opening finds it without a scan.
 */
#include "record.h"

/* ---- a record changes ---------------------------------------------------- */

struct change {
	struct vd_volume *vol;   /* as it is, or the new one */
	struct vd_record *rec;   /* as it will be; taken over by apply */
	bool is_new;
	bool shrinks;
	struct vd_ext cut;       /* what shrinking unmaps */
	uint64_t freed;
	struct vd_owned own;
	struct vd_ov_leaf *spare;
	struct vd_plan plan;
};

static void change_fini(struct change *c)
{
	struct vd_pool *pool = c->plan.pool;

	vd_plan_fini(&c->plan);
	vd_ov_leaf_free(&pool->host, c->spare);
	vd_record_put(pool, c->rec);
}

/* rec's reference passes to the change, also on failure. */
static int change_plan(struct change *c, struct vd_pool *pool, struct vd_volume *vol, bool is_new, struct vd_record *rec)
{
	const struct vd_disk_volume *new = &rec->d;
	uint64_t blocks = le64_to_cpu(new->size) >> VD_BLOCK_SHIFT;
	uint32_t flags = le32_to_cpu(new->flags);
	int r;

	memset(c, 0, sizeof(*c));
	c->vol = vol;
	c->rec = rec;
	c->is_new = is_new;
	r = vd_plan_init(&c->plan, pool, 3);
	if (r)
		return r;
	if (is_new || strcmp(vol->rec->d.name, new->name)) {
		if (!is_new && vol->rec->d.name[0])
			r = vd_plan_name(&c->plan, vol->rec->d.name, 0);
		if (!r && new->name[0])
			r = vd_plan_name(&c->plan, new->name, vol->id);
	}
	if (!r && is_new && flags & (VD_VOL_PENDING | VD_VOL_DELETING))
		r = vd_plan_key(&c->plan, VD_INDEX_ATTENTION | vol->id, vol->id);
	if (r || is_new || blocks >= le64_to_cpu(vol->rec->d.size) >> VD_BLOCK_SHIFT) /* vol->size may be less already */
		return r;
	c->shrinks = true;
	c->cut = (struct vd_ext){ .v = blocks, .len = VD_VBLK_END - blocks, .kind = vol->has_base ? VD_ZERO : VD_HOLE };
	r = vd_map_mapped(vol, blocks, VD_VBLK_END - blocks, &c->freed);
	if (!r)
		r = vd_reserve_count(vol, blocks, VD_VBLK_END - blocks, c->freed, &c->own);
	if (r)
		return r;
	c->spare = vd_ov_leaf_new(&vol->pool->host, VD_ALLOC_WAIT);
	return c->spare ? 0 : -ENOMEM;
}

/* seal held for reading; seq of the record. */
static void change_apply(struct change *c, uint64_t seq)
{
	struct vd_volume *vol = c->vol;
	struct vd_volumes *vs = vol->pool->volumes;

	vd_plan_apply(&c->plan);
	if (c->is_new)
		vd_volume_insert(vs, vol);
	else if (c->shrinks) {
		vd_write_lock(&vol->map);
		c->cut.birth = (uint64_t)vd_atomic_read(&vs->epoch);
		vd_map_put(vol, &c->cut, seq, &c->spare);
		vol->mapped -= c->freed;
		vd_reserve_freed(vol, &c->own);
		vd_write_unlock(&vol->map);
	}
	if (c->is_new) {
		vd_write_lock(&vol->map);
		vol->reserved = le64_to_cpu(c->rec->d.reserved_blocks);
		vd_reserve_follow(vol);
		vd_write_unlock(&vol->map);
		vd_volume_dirty(vol);
		if (le32_to_cpu(c->rec->d.flags) & VD_VOL_DELETING)
			vd_volume_dying(vol);
	} else {
		vd_record_set(vol, c->rec);
	}
	c->rec = NULL;
}

/* Run time: appends and applies. -EWOULDBLOCK: the journal wants room; nothing was done. */
static int change_do(struct change *c, uint64_t *seq)
{
	struct vd_pool *pool = c->plan.pool;
	unsigned len = vd_record_len(&c->rec->d);
	struct vd_disk_rec *rec;
	int r = vd_journal_reserve(pool, len);

	if (r)
		return r;
	rec = vd_zalloc(pool, len);
	if (!rec) {
		vd_journal_unreserve(pool, len);
		return -ENOMEM;
	}
	vd_record_encode(&c->rec->d, rec);
	vd_read_lock(&pool->volumes->seal);
	*seq = vd_journal_append(pool, rec, len);
	change_apply(c, *seq);
	vd_read_unlock(&pool->volumes->seal);
	vd_free(pool, rec);
	return 0;
}

/* ---- run-time calls ------------------------------------------------------ */

static int writable(struct vd_pool *pool)
{
	return vd_pool_writable(pool) ? 0 : -EROFS;
}

int vd_record_create(struct vd_pool *pool, const struct vd_volume_spec *spec, const char *name, uint32_t flags, uint32_t *id)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_root empty = { .height = 0 };
	struct vd_disk_volume *d;
	struct vd_record *rec;
	struct vd_volume *vol = NULL;
	struct change c;
	uint64_t seq, held;
	bool made = false;
	int r = writable(pool);

	if (r)
		return r;
	if (spec->attrs && strlen(spec->attrs) > VD_ATTRS_MAX)
		return -E2BIG;
	r = vd_reserve_admit(pool, NULL);
	if (r)
		return r;
	for (;;) {
		rec = vd_record_new(pool, NULL);
		if (!rec)
			return -ENOMEM;
		d = &rec->d;
		vd_mutex_lock(&vs->lock);
		if (vs->next_id > UINT32_MAX) {
			vd_mutex_unlock(&vs->lock);
			vd_record_put(pool, rec);
			return -ENOSPC;
		}
		d->id = cpu_to_le32((uint32_t)vs->next_id);
		d->flags = cpu_to_le32(flags | (spec->base ? VD_VOL_BASE : 0));
		memcpy(d->uuid, spec->uuid, 16);
		memcpy(d->name, name, strlen(name));
		d->size = cpu_to_le64(spec->size);
		d->reserved_blocks = cpu_to_le64(spec->reserved);
		d->family = cpu_to_le64(vs->next_id);
		d->created = cpu_to_le64(pool->host.now(pool->host.ctx));
		d->lock = spec->lock;
		if (spec->base)
			memcpy(d->base, spec->base, strlen(spec->base));
		if (spec->attrs) {
			memcpy(d->attrs, spec->attrs, strlen(spec->attrs));
			d->attrs_len = cpu_to_le32((uint32_t)strlen(spec->attrs));
		}
		r = vd_volume_new(pool, (uint32_t)vs->next_id, &empty, rec, &vol);
		if (r) {
			vd_record_put(pool, rec);
			vd_mutex_unlock(&vs->lock);
			return r;
		}
		rec->refs++; /* the volume's and the change's */
		held = 0;
		r = change_plan(&c, pool, vol, true, rec);
		if (!r)
			r = vd_reserve_hold(vol, spec->reserved, 0, 0, &held); /* R4 */
		if (!r)
			r = change_do(&c, &seq);
		vd_space_unhold(pool, held);
		if (!r) {
			*id = vol->id;
			vs->next_id++;
			rec->refs--;
		}
		change_fini(&c);
		if (r)
			vd_volume_forget(pool, vol);
		vd_mutex_unlock(&vs->lock);
		if (!r)
			return vd_journal_commit(pool, seq);
		r = vd_change_again(pool, r, &made);
		if (r)
			return r;
	}
}

int vd_volume_create(struct vd_pool *pool, const struct vd_volume_spec *spec, uint32_t *id)
{
	if (!vd_name_valid(spec->name) || !spec->size || spec->size % VD_BLOCK || spec->size >> VD_BLOCK_SHIFT > VD_VBLK_END ||
	    (spec->base && strlen(spec->base) >= VD_BASE_MAX) || spec->reserved > spec->size >> VD_BLOCK_SHIFT)
		return -EINVAL;
	return vd_record_create(pool, spec, spec->name, spec->flags & (VD_VOL_READONLY | VD_VOL_LOCKED), id);
}

/* Changes the record of a volume that users see: fn edits a copy of it, looking at
 * the old one; what it answers but 0 ends the call. */
typedef int (*edit_fn)(struct vd_volume *vol, struct vd_disk_volume *d, void *arg);

static int edit(struct vd_pool *pool, uint32_t id, edit_fn fn, void *arg)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_record *rec;
	struct vd_volume *vol;
	struct change c;
	uint64_t seq;
	int r = writable(pool);

	while (!r) {
		vd_mutex_lock(&vs->lock);
		r = vd_volume_user(pool, id, &vol);
		if (r) {
			vd_mutex_unlock(&vs->lock);
			return r;
		}
		rec = vd_record_new(pool, &vol->rec->d);
		r = rec ? fn(vol, &rec->d, arg) : -ENOMEM;
		if (r) {
			vd_record_put(pool, rec);
			vd_mutex_unlock(&vs->lock);
			return r;
		}
		r = change_plan(&c, pool, vol, false, rec);
		if (!r)
			r = change_do(&c, &seq);
		change_fini(&c);
		vd_mutex_unlock(&vs->lock);
		if (r != -EWOULDBLOCK)
			return r ? r : vd_journal_commit(pool, seq);
		r = vd_journal_make_room(pool);
	}
	return r;
}

static int edit_name(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	const char *name = arg;

	(void)vol;
	memset(d->name, 0, sizeof(d->name));
	memcpy(d->name, name, strlen(name));
	return 0;
}

int vd_volume_rename(struct vd_pool *pool, uint32_t id, const char *name)
{
	return vd_name_valid(name) ? edit(pool, id, edit_name, (void *)name) : -EINVAL;
}

static int edit_size(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	(void)vol;
	d->size = cpu_to_le64(*(uint64_t *)arg);
	d->reserved_blocks = cpu_to_le64(vd_min(le64_to_cpu(d->reserved_blocks), *(uint64_t *)arg >> VD_BLOCK_SHIFT));
	return 0;
}

int vd_volume_resize(struct vd_pool *pool, uint32_t id, uint64_t size)
{
	uint64_t blocks = size >> VD_BLOCK_SHIFT, before;
	struct vd_volume *vol;
	struct vd_io io;
	int r = writable(pool);

	if (r)
		return r;
	if (!size || size % VD_BLOCK || blocks > VD_VBLK_END)
		return -EINVAL;
	r = vd_volume_open(pool, id, &vol);
	if (r)
		return r;
	vd_mutex_lock(&pool->volumes->lock); /* another resize may be under way */
	before = le64_to_cpu(vol->rec->d.size) >> VD_BLOCK_SHIFT;
	if (blocks < vol->size) {
		/* New requests beyond the end are refused from here on; those under
		 * way give their mapping before the claim is had. */
		__atomic_store_n(&vol->size, blocks, __ATOMIC_RELAXED);
		vd_windows_drop(vol);
	}
	vd_mutex_unlock(&pool->volumes->lock);
	vd_list_init(&io.claim);
	vd_claim_range(vol, &io, vd_min(blocks, before), VD_VBLK_END);
	vd_mutex_lock(&pool->volumes->lock);
	__atomic_store_n(&vol->size, le64_to_cpu(vol->rec->d.size) >> VD_BLOCK_SHIFT, __ATOMIC_RELAXED);
	vd_mutex_unlock(&pool->volumes->lock);
	r = edit(pool, id, edit_size, &size);
	vd_claim_drop(vol, &io);
	vd_volume_close(vol);
	return r;
}

struct flag_arg { uint32_t set, clear; };

static int edit_flags(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	struct flag_arg *a = arg;

	(void)vol;
	d->flags = cpu_to_le32((le32_to_cpu(d->flags) | a->set) & ~a->clear);
	return 0;
}

int vd_volume_set_flags(struct vd_pool *pool, uint32_t id, uint32_t set, uint32_t clear)
{
	struct flag_arg a = { set, clear };

	return (set | clear) & ~(uint32_t)VD_VOL_READONLY ? -EINVAL : edit(pool, id, edit_flags, &a);
}

struct reserve_arg { uint64_t blocks, held; };

static int edit_reserve(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	struct reserve_arg *a = arg;
	uint64_t own, mapped;

	vd_space_unhold(vol->pool, a->held); /* of the round before */
	a->held = 0;
	if (a->blocks > le64_to_cpu(d->size) >> VD_BLOCK_SHIFT)
		return -EINVAL;
	d->reserved_blocks = cpu_to_le64(a->blocks);
	vd_read_lock(&vol->map);
	own = vd_reserve_own(vol);
	mapped = vol->mapped;
	vd_read_unlock(&vol->map);
	return vd_reserve_hold(vol, a->blocks, own, mapped, &a->held); /* R4 */
}

int vd_volume_reserve(struct vd_pool *pool, uint32_t id, uint64_t blocks)
{
	struct reserve_arg a = { blocks, 0 };
	bool made = false;
	int r = edit(pool, id, edit_reserve, &a);

	if (r == -ENOSPC) {
		r = vd_change_again(pool, r, &made);
		if (!r)
			r = edit(pool, id, edit_reserve, &a);
	}
	vd_space_unhold(pool, a.held);
	return r;
}

static int edit_attrs(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	const char *attrs = arg;

	(void)vol;
	memset(d->attrs, 0, sizeof(d->attrs));
	memcpy(d->attrs, attrs, strlen(attrs));
	d->attrs_len = cpu_to_le32((uint32_t)strlen(attrs));
	return 0;
}

int vd_volume_set_attrs(struct vd_pool *pool, uint32_t id, const char *attrs)
{
	return strlen(attrs) > VD_ATTRS_MAX ? -E2BIG : edit(pool, id, edit_attrs, (void *)attrs);
}

static int edit_lock(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	uint32_t flags = le32_to_cpu(d->flags);

	(void)vol;
	if (flags & VD_VOL_LOCKED)
		return -EACCES;
	d->flags = cpu_to_le32(flags | VD_VOL_LOCKED);
	d->lock = *(const struct vd_disk_holder *)arg;
	return 0;
}

int vd_volume_lock(struct vd_pool *pool, uint32_t id, const struct vd_disk_holder *who)
{
	return edit(pool, id, edit_lock, (void *)who);
}

static int edit_unlock(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	(void)vol;
	(void)arg;
	d->flags = cpu_to_le32(le32_to_cpu(d->flags) & ~(uint32_t)VD_VOL_LOCKED);
	memset(&d->lock, 0, sizeof(d->lock));
	return 0;
}

int vd_volume_unlock(struct vd_pool *pool, uint32_t id)
{
	return edit(pool, id, edit_unlock, NULL);
}

struct pointer_arg { const struct vd_disk_pointer *ptr; uint32_t link; };

/* The pointer would be a second one that writes, beside another than the `but`-th. */
static bool second_writer(const struct vd_disk_volume *d, const struct vd_disk_pointer *ptr, uint32_t but)
{
	for (uint32_t i = 0; le32_to_cpu(ptr->mode) && i < le32_to_cpu(d->npointers); i++)
		if (i != but && le32_to_cpu(d->pointer[i].mode))
			return true;
	return false;
}

static int edit_pointer_add(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	struct pointer_arg *a = arg;
	struct vd_volumes *vs = vol->pool->volumes;
	uint32_t n = le32_to_cpu(d->npointers);

	if (second_writer(d, a->ptr, n))
		return -EBUSY;
	if (n == VD_POINTERS_MAX)
		return -ENOSPC;
	if (!a->link)
		a->link = (uint32_t)++vs->next_link;
	d->pointer[n] = *a->ptr;
	d->pointer[n].link = cpu_to_le32(a->link);
	d->npointers = cpu_to_le32(n + 1);
	return 0;
}

int vd_volume_pointer_add(struct vd_pool *pool, uint32_t id, const struct vd_disk_pointer *ptr, uint32_t *link)
{
	struct pointer_arg a = { ptr, 0 };
	int r = edit(pool, id, edit_pointer_add, &a);

	if (!r)
		*link = a.link;
	return r;
}

static int edit_pointer_set(struct vd_volume *vol, struct vd_disk_volume *d, void *arg)
{
	struct pointer_arg *a = arg;
	uint32_t i, n = le32_to_cpu(d->npointers);

	(void)vol;
	for (i = 0; i < n; i++)
		if (le32_to_cpu(d->pointer[i].link) == a->link)
			break;
	if (i == n)
		return -ENOENT;
	if (a->ptr) {
		__le32 link = d->pointer[i].link;

		if (second_writer(d, a->ptr, i))
			return -EBUSY;
		d->pointer[i] = *a->ptr;
		d->pointer[i].link = link;
		return 0;
	}
	memmove(&d->pointer[i], &d->pointer[i + 1], (n - i - 1) * sizeof(d->pointer[0]));
	memset(&d->pointer[n - 1], 0, sizeof(d->pointer[0]));
	d->npointers = cpu_to_le32(n - 1);
	return 0;
}

int vd_volume_pointer_set(struct vd_pool *pool, uint32_t id, uint32_t link, const struct vd_disk_pointer *ptr)
{
	struct pointer_arg a = { ptr, link };

	return ptr ? edit(pool, id, edit_pointer_set, &a) : -EINVAL;
}

int vd_volume_pointer_del(struct vd_pool *pool, uint32_t id, uint32_t link)
{
	struct pointer_arg a = { NULL, link };

	return edit(pool, id, edit_pointer_set, &a);
}

/* ---- deletion ------------------------------------------------------------ */

static int delete_plan(struct vd_plan *plan, struct vd_volume *vol, struct vd_record **rec)
{
	struct vd_pool *pool = vol->pool;
	int r = vd_plan_init(plan, pool, 2);

	*rec = vd_record_new(pool, &vol->rec->d);
	if (!r && !*rec)
		r = -ENOMEM;
	if (!r)
		r = vd_plan_name(plan, vol->rec->d.name, 0);
	if (!r)
		r = vd_plan_key(plan, VD_INDEX_ATTENTION | vol->id, vol->id);
	if (!r) {
		struct vd_disk_volume *d = &(*rec)->d;

		memset(d->name, 0, sizeof(d->name));
		d->flags = cpu_to_le32((le32_to_cpu(d->flags) & ~(uint32_t)VD_VOL_PENDING) | VD_VOL_DELETING);
		d->reserved_blocks = 0;
	}
	return r;
}

/* Whose snapshot this was, it may soon be alone, and have less kept for it: own.c looks at
 * those in memory.  If it cannot be read it is found when it is opened.  meta */
static void load_origin(const struct vd_volume *vol)
{
	uint64_t origin = le64_to_cpu(vol->rec->d.origin);
	struct vd_volume *unused;

	if (origin && origin <= UINT32_MAX && vd_space_promised(vol->pool))
		(void)!vd_volumes_load(vol->pool, (uint32_t)origin, &unused);
}

static void delete_apply(struct vd_plan *plan, struct vd_volume *vol, struct vd_record **rec)
{
	vd_plan_apply(plan);
	vd_record_set(vol, *rec);
	*rec = NULL;
	vd_volume_dying(vol);
}

static int delete_do(struct vd_volume *vol, uint64_t *seq)
{
	struct vd_pool *pool = vol->pool;
	struct vd_disk_rec rec = { cpu_to_le16(VD_REC_DELETE), cpu_to_le16(sizeof(rec)), cpu_to_le32(vol->id) };
	struct vd_record *new;
	struct vd_plan plan;
	int r;

	r = delete_plan(&plan, vol, &new);
	if (!r)
		r = vd_journal_reserve(pool, sizeof(rec));
	if (!r) {
		vd_read_lock(&pool->volumes->seal);
		*seq = vd_journal_append(pool, &rec, sizeof(rec));
		delete_apply(&plan, vol, &new);
		vd_read_unlock(&pool->volumes->seal);
		vd_windows_drop(vol);
		load_origin(vol);
	}
	vd_record_put(pool, new);
	vd_plan_fini(&plan);
	return r;
}

int vd_record_delete(struct vd_pool *pool, uint32_t id, enum vd_whose whose)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_volume *vol;
	uint64_t seq = 0;
	int r = writable(pool);

	while (!r) {
		vd_mutex_lock(&vs->lock);
		r = whose == VD_PENDING ? vd_volumes_load(pool, id, &vol) : vd_record_user(pool, id, whose == VD_SERVER, &vol);
		if (!r && whose != VD_PENDING) {
			if (vol->opens || vol->rec->d.npointers)
				r = -EBUSY;
			else if (vd_record_flags(vol) & VD_VOL_LOCKED)
				r = -EACCES;
		}
		if (!r)
			r = delete_do(vol, &seq);
		vd_mutex_unlock(&vs->lock);
		if (r != -EWOULDBLOCK) {
			if (r)
				return r;
			vd_pool_want_checkpoint(pool);
			return vd_journal_commit(pool, seq);
		}
		r = vd_journal_make_room(pool);
	}
	return r;
}

int vd_volume_delete(struct vd_pool *pool, uint32_t id)
{
	return vd_record_delete(pool, id, VD_VOLUME);
}

int vd_volume_drop(struct vd_pool *pool, uint32_t id)
{
	return vd_record_delete(pool, id, VD_PENDING);
}

/* ---- asking -------------------------------------------------------------- */

int vd_record_find(struct vd_pool *pool, const char *name, bool server, uint32_t *id)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_volume *vol;
	vd_vblk_t key;
	uint32_t found;
	int r;

	vd_mutex_lock(&vs->lock);
	r = vd_index_find(pool, name, &found, &key);
	if (r == -EEXIST)
		r = -ENOENT;
	if (!r)
		r = vd_record_user(pool, found, server, &vol);
	vd_mutex_unlock(&vs->lock);
	if (!r)
		*id = found;
	return r;
}

int vd_volume_find(struct vd_pool *pool, const char *name, uint32_t *id)
{
	return vd_name_valid(name) ? vd_record_find(pool, name, false, id) : -EINVAL;
}

int vd_volume_info(struct vd_pool *pool, uint32_t id, struct vd_volume_info *info)
{
	struct vd_volumes *vs = pool->volumes;
	const struct vd_disk_volume *d;
	struct vd_volume *vol;
	int r;

	vd_mutex_lock(&vs->lock);
	r = vd_volume_user(pool, id, &vol);
	if (!r) {
		d = &vol->rec->d;
		memset(info, 0, sizeof(*info));
		info->id = id;
		info->flags = le32_to_cpu(d->flags);
		memcpy(info->uuid, d->uuid, 16);
		memcpy(info->name, d->name, sizeof(info->name));
		info->size = le64_to_cpu(d->size);
		info->family = le64_to_cpu(d->family);
		info->created = le64_to_cpu(d->created);
		info->origin = (uint32_t)le64_to_cpu(d->origin);
		memcpy(info->base, d->base, sizeof(info->base));
		memcpy(info->attrs, d->attrs, le32_to_cpu(d->attrs_len));
		info->lock = d->lock;
		info->npointers = le32_to_cpu(d->npointers);
		memcpy(info->pointer, d->pointer, sizeof(info->pointer));
		vd_read_lock(&vol->map);
		info->mapped = vol->mapped;
		info->reserved = vol->reserved;
		info->unused = vd_reserve_left(vol);
		info->last_snapshot = vol->last_snapshot;
		info->blank = !vol->has_base && !vol->mapped && vol->base->bottom && !vol->base->root.height && vd_ov_empty(&vol->active);
		vd_read_unlock(&vol->map);
	}
	vd_mutex_unlock(&vs->lock);
	return r;
}

/* The smallest id from `at` on of the volumes in memory; vs->next_id: there is none. */
static uint64_t next_in_memory(struct vd_volumes *vs, uint64_t at)
{
	uint64_t best = vs->next_id, i;
	struct vd_list *pos;

	for (i = at; i < best && i - at < 64; i++)
		if (vd_volume_in_memory(vs, (uint32_t)i))
			return i;
	vd_list_for_each(pos, &vs->all) { /* ids are not used again: gaps may be wide */
		i = vd_container(pos, struct vd_volume, all)->id;
		if (i >= at && i < best)
			best = i;
	}
	return best;
}

int vd_record_next(struct vd_pool *pool, bool server, uint32_t *id, bool *lost)
{
	struct vd_volumes *vs = pool->volumes;
	uint64_t at = *id ? *id : 1;
	struct vd_volume *vol;
	struct vd_slot slot;
	int r = 0;

	vd_mutex_lock(&vs->lock);
	for (; at < vs->next_id; at++) {
		/* Those that are in no tree yet are younger than all that are. */
		r = vd_ptree_next(pool, &vs->root, at, false, 0, &slot);
		if (!r)
			at = slot.key;
		else if (r == -ENODATA)
			at = next_in_memory(vs, at);
		else if (vd_is_damage(r) || r == -ENODEV) { /* whoever is there cannot be told, but for those in memory */
			if (lost)
				*lost = true;
			at = vd_min(slot.key, next_in_memory(vs, at));
			if (at == slot.key) {
				at--;
				continue;
			}
			r = 0;
		}
		if ((r && r != -ENODATA) || at >= vs->next_id)
			break;
		r = vd_record_user(pool, (uint32_t)at, server, &vol);
		if (vd_is_damage(r) || r == -ENODEV) /* is taken for a volume's */
			r = server ? -ENOENT : 0;
		if (r != -ENOENT)
			break;
	}
	if (at >= vs->next_id)
		r = -ENOENT;
	vd_mutex_unlock(&vs->lock);
	if (!r)
		*id = (uint32_t)at;
	return r;
}

int vd_volume_next(struct vd_pool *pool, uint32_t *id, bool *lost)
{
	return vd_record_next(pool, false, id, lost);
}

int vd_volume_open(struct vd_pool *pool, uint32_t id, struct vd_volume **out)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_volume *vol;
	int r;

	vd_mutex_lock(&vs->lock);
	r = vd_volume_user(pool, id, &vol);
	if (!r) {
		vd_regions_init(pool);
		if (!vol->opens++ && vol->last_snapshot && vd_pool_writable(pool)) {
			vd_atomic_set(&vs->regain, 1);
			vd_pool_kick(pool);
		}
		*out = vol;
	}
	vd_mutex_unlock(&vs->lock);
	return r;
}

void vd_volume_close(struct vd_volume *vol)
{
	struct vd_volumes *vs = vol->pool->volumes;

	vd_mutex_lock(&vs->lock);
	if (!--vol->opens) {
		vd_windows_drop(vol);
		vd_claims_idle(vol);
	}
	vd_mutex_unlock(&vs->lock);
}

/* ---- replay -------------------------------------------------------------- */

static int replay_volume(struct vd_pool *pool, const struct vd_disk_rec *r0, uint32_t id)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_root empty = { .height = 0 };
	unsigned len = le16_to_cpu(r0->len) - (unsigned)sizeof(*r0);
	struct vd_record *rec;
	struct vd_volume *vol;
	struct change c;
	bool is_new;
	uint32_t i;
	int r;

	if (len > sizeof(rec->d) - sizeof(rec->d.h))
		return -EUCLEAN;
	rec = vd_record_new(pool, NULL);
	if (!rec)
		return -ENOMEM;
	memcpy((uint8_t *)&rec->d + sizeof(rec->d.h), r0 + 1, len);
	r = vd_record_verify(&rec->d, id);
	if (!r) {
		r = vd_volumes_load(pool, id, &vol);
		is_new = r == -ENOENT;
		if (is_new) {
			r = vd_volume_new(pool, id, &empty, rec, &vol);
			if (!r)
				rec->refs++;
		} else if (!r) { /* these are not the record's to say */
			uint32_t keep = VD_VOL_PENDING | VD_VOL_DELETING;

			if ((le32_to_cpu(rec->d.flags) ^ vd_record_flags(vol)) & VD_VOL_SERVER)
				r = -EUCLEAN;
			rec->d.flags = cpu_to_le32((le32_to_cpu(rec->d.flags) & ~keep) | (vd_record_flags(vol) & keep));
		}
	}
	if (r) {
		vd_record_put(pool, rec);
		return r;
	}
	r = change_plan(&c, pool, vol, is_new, rec);
	if (!r) {
		if (is_new)
			rec->refs--;
		vd_read_lock(&vs->seal);
		change_apply(&c, 0);
		vd_read_unlock(&vs->seal);
		vs->next_id = vd_max(vs->next_id, (uint64_t)id + 1);
		for (i = 0; i < le32_to_cpu(vol->rec->d.npointers); i++)
			vs->next_link = vd_max(vs->next_link, (uint64_t)le32_to_cpu(vol->rec->d.pointer[i].link));
	}
	change_fini(&c);
	if (r && is_new)
		vd_volume_forget(pool, vol);
	return r;
}

static int replay_map(struct vd_pool *pool, struct vd_volume *vol, const struct vd_disk_rec *r0)
{
	bool map = le16_to_cpu(r0->type) == VD_REC_MAP;
	struct vd_disk_rec_unmap u = { .kind = 0 };
	struct vd_disk_rec_map m = { .vblk = 0 };
	struct vd_ov_leaf *spare;
	struct vd_owned own = { 0, 0 };
	uint64_t pl, fresh = 0, freed = 0;
	struct vd_ext e = { .birth = (uint64_t)vd_atomic_read(&pool->volumes->epoch) };
	int r;

	if (le16_to_cpu(r0->len) != (map ? sizeof(m) : sizeof(u)))
		return -EUCLEAN;
	if (map) {
		memcpy(&m, r0, sizeof(m));
		pl = le64_to_cpu(m.pblk_len);
		e.v = le64_to_cpu(m.vblk);
		e.len = (pl >> 48) + 1;
		e.p = pl & VD_PBLK_NONE;
		e.kind = VD_DATA;
		fresh = le64_to_cpu(m.fresh);
		if (!vd_pblk_valid(pool, e.p, e.len) || fresh > e.len)
			return -EUCLEAN;
	} else {
		memcpy(&u, r0, sizeof(u));
		e.v = le64_to_cpu(u.vblk);
		e.len = le64_to_cpu(u.len);
		e.kind = le32_to_cpu(u.kind) == VD_ZERO ? VD_ZERO : VD_HOLE;
		freed = le64_to_cpu(u.freed);
	}
	if (e.v >= VD_VBLK_END || !e.len || e.len > VD_VBLK_END - e.v || freed > vol->mapped)
		return -EUCLEAN;
	spare = vd_ov_leaf_new(&pool->host, VD_ALLOC_WAIT);
	if (!spare)
		return -ENOMEM;
	r = map ? vd_space_claim(pool, e.p, e.len) : vd_reserve_count(vol, e.v, e.len, freed, &own);
	if (!map && r != -ENOMEM)
		r = 0; /* a page that cannot be read: own is too large, which only promises too much */
	if (!r) {
		vd_read_lock(&pool->volumes->seal);
		vd_write_lock(&vol->map);
		vd_map_put(vol, &e, 0, &spare);
		vol->mapped += fresh - freed;
		if (map)
			vd_reserve_wrote(vol, e.len);
		else
			vd_reserve_freed(vol, &own);
		vd_write_unlock(&vol->map);
		vd_read_unlock(&pool->volumes->seal);
	}
	vd_ov_leaf_free(&pool->host, spare);
	return r;
}

static int replay_delete(struct vd_volume *vol)
{
	struct vd_record *rec;
	struct vd_plan plan;
	int r;

	if (vd_record_flags(vol) & VD_VOL_DELETING)
		return -EUCLEAN;
	r = delete_plan(&plan, vol, &rec);
	if (!r) {
		delete_apply(&plan, vol, &rec);
		load_origin(vol);
	}
	vd_record_put(vol->pool, rec);
	vd_plan_fini(&plan);
	return r;
}

int vd_volumes_replay(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec)
{
	uint32_t id = le32_to_cpu(rec->volume);
	unsigned type = le16_to_cpu(rec->type);
	struct vd_volume *vol;
	int r;

	(void)seq; /* it is durable: nothing waits for it */
	vd_mutex_lock(&pool->volumes->lock);
	switch (type) {
	case VD_REC_VOLUME:
		r = replay_volume(pool, rec, id);
		break;
	case VD_REC_MAP:
	case VD_REC_UNMAP:
	case VD_REC_DELETE:
		r = vd_volumes_load(pool, id, &vol);
		if (!r)
			r = type == VD_REC_DELETE ? replay_delete(vol) : replay_map(pool, vol, rec);
		if (r == -ENOENT)
			r = -EUCLEAN;
		break;
	case VD_REC_SNAP:
	case VD_REC_VALID:
	case VD_REC_ROLLBACK:
		r = vd_snap_replay(pool, rec);
		break;
	default:
		r = -EUCLEAN;
	}
	vd_mutex_unlock(&pool->volumes->lock);
	return r;
}

/* How many of the n ids from `id` on belong to no volume, at least 1 being so. */
static uint64_t ids_missing(struct vd_pool *pool, uint64_t id, uint64_t n)
{
	struct vd_volumes *vs = pool->volumes;
	uint64_t next = next_in_memory(vs, id + 1);
	struct vd_slot slot;
	int r = vd_ptree_next(pool, &vs->root, id + 1, false, 0, &slot);

	if (r != -ENODATA)
		next = r ? id + 1 : vd_min(next, slot.key);
	return next < vs->next_id ? vd_min(next - id, n) : n;
}

int vd_volumes_recover(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	vd_vblk_t k = VD_INDEX_ATTENTION, end = VD_INDEX_ATTENTION << 1;
	struct vd_volume *vol;
	struct vd_ext e;
	int r;

	while (k < end) {
		r = vd_map_find_wait(&vs->index, k, &e);
		if (r)
			return r;
		if (e.kind != VD_DATA || e.p != k - VD_INDEX_ATTENTION || e.p >= vs->next_id) {
			k += e.len;
			continue;
		}
		vd_mutex_lock(&vs->lock);
		r = vd_volumes_load(pool, (uint32_t)e.p, &vol);
		if (r == -ENOENT) /* as many as anyone cares to write into the index */
			k += ids_missing(pool, e.p, e.len) - 1;
		if (!r && vd_record_flags(vol) & VD_VOL_DELETING && !vd_volume_is_dirty(vol)) {
			vd_volume_dirty(vol); /* begun before the last checkpoint */
			vd_volume_dying(vol);
			load_origin(vol);
		}
		vd_mutex_unlock(&vs->lock);
		if (r && r != -ENOENT)
			return r;
		if (!r && vd_record_flags(vol) & VD_VOL_PENDING && vd_pool_writable(pool)) {
			r = vd_record_delete(pool, vol->id, VD_PENDING);
			if (r)
				return r;
		}
		k++;
	}
	return 0;
}
