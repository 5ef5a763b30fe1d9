// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Volumes' records as they are on disk, and the volumes that are in memory: read when
 * they are wanted, forgotten by a checkpoint when nobody needs them.  What changes them
 * is volume.c.
 */
#include "record.h"

/* ---- records ----------------------------------------------------------- */

struct vd_record *vd_record_new(struct vd_pool *pool, const struct vd_disk_volume *d)
{
	struct vd_record *rec = vd_zalloc(pool, sizeof(*rec));

	if (rec) {
		rec->refs = 1;
		if (d)
			rec->d = *d;
	}
	return rec;
}

void vd_record_put(struct vd_pool *pool, struct vd_record *rec)
{
	if (rec && !--rec->refs)
		vd_free(pool, rec);
}

uint32_t vd_record_flags(const struct vd_volume *vol)
{
	return le32_to_cpu(vol->rec->d.flags);
}

void vd_record_set(struct vd_volume *vol, struct vd_record *rec)
{
	uint32_t flags = le32_to_cpu(rec->d.flags);

	vd_record_put(vol->pool, vol->rec);
	vol->rec = rec;
	vd_write_lock(&vol->map);
	__atomic_store_n(&vol->size, le64_to_cpu(rec->d.size) >> VD_BLOCK_SHIFT, __ATOMIC_RELAXED);
	__atomic_store_n(&vol->readonly, flags & VD_VOL_READONLY, __ATOMIC_RELAXED);
	vol->reserved = le64_to_cpu(rec->d.reserved_blocks);
	vd_reserve_follow(vol);
	vd_write_unlock(&vol->map);
	vd_volume_dirty(vol);
}

static bool name_chars(const char *s, const char *extra, size_t max)
{
	size_t n;

	if (!s || !*s || *s == '-' || *s == '.')
		return false;
	for (n = 0; s[n]; n++) {
		char c = s[n];

		if (n >= max)
			return false;
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '+' || c == '_' || c == '.' || c == '-' || strchr(extra, c)))
			return false;
	}
	return true;
}

bool vd_name_valid(const char *name) { return name_chars(name, "@:", VD_NAME_MAX); }
bool vd_pool_name_valid(const char *name) { return name_chars(name, "+", VD_NAME_MAX); }
bool vd_server_name_valid(const char *name) { return name_chars(name, "", VD_SERVER_NAME_MAX); }

static bool terminated(const char *s, size_t size)
{
	return !s[size - 1]; /* nothing behind the end either */
}

/* A record from disk or journal is input: nothing of it is used before this. */
int vd_record_verify(const struct vd_disk_volume *d, uint32_t id)
{
	uint32_t flags = le32_to_cpu(d->flags), attrs = le32_to_cpu(d->attrs_len);
	uint64_t size = le64_to_cpu(d->size);

	if (le32_to_cpu(d->id) != id || !id || size % VD_BLOCK || le64_to_cpu(d->reserved_blocks) > size >> VD_BLOCK_SHIFT || size >> VD_BLOCK_SHIFT > VD_VBLK_END ||
	    le32_to_cpu(d->npointers) > VD_POINTERS_MAX || attrs > VD_ATTRS_MAX ||
	    !terminated(d->name, sizeof(d->name)) || !terminated(d->base, sizeof(d->base)) ||
	    d->root.height >= VD_TREE_LEVELS_MAX)
		return -EUCLEAN;
	if (flags & VD_VOL_SERVER && (size || d->npointers || flags & (VD_VOL_PENDING | VD_VOL_BASE)))
		return -EUCLEAN;
	if (flags & VD_VOL_DELETING)
		return flags & VD_VOL_PENDING ? -EUCLEAN : 0;
	if (flags & VD_VOL_SERVER)
		return d->name[0] == '.' && vd_server_name_valid(d->name + 1) ? 0 : -EUCLEAN;
	return vd_name_valid(d->name) ? 0 : -EUCLEAN;
}

/* Bytes of a record in the journal: trailing zeros are cut. */
unsigned vd_record_len(const struct vd_disk_volume *d)
{
	const uint8_t *p = (const uint8_t *)d + sizeof(d->h);
	unsigned n = sizeof(*d) - sizeof(d->h);

	while (n && !p[n - 1])
		n--;
	return (unsigned)sizeof(struct vd_disk_rec) + ((n + 7) & ~7u);
}

void vd_record_encode(const struct vd_disk_volume *d, struct vd_disk_rec *rec)
{
	unsigned len = vd_record_len(d);

	rec->type = cpu_to_le16(VD_REC_VOLUME);
	rec->len = cpu_to_le16(len);
	rec->volume = d->id;
	memcpy(rec + 1, (const uint8_t *)d + sizeof(d->h), len - sizeof(*rec));
}

/* ---- volumes in memory -------------------------------------------------- */

static struct vd_list *id_bucket(struct vd_volumes *vs, uint32_t id)
{
	return &vs->hash[id % VD_ID_BUCKETS];
}

struct vd_volume *vd_volume_in_memory(struct vd_volumes *vs, uint32_t id)
{
	struct vd_list *pos;

	vd_list_for_each(pos, id_bucket(vs, id)) {
		struct vd_volume *vol = vd_container(pos, struct vd_volume, hash);

		if (vol->id == id)
			return vol;
	}
	return NULL;
}

int vd_volume_new(struct vd_pool *pool, uint32_t id, const struct vd_root *root, struct vd_record *rec, struct vd_volume **out)
{
	struct vd_volume *vol = vd_alloc(pool, sizeof(*vol));
	int r;

	if (!vol)
		return -ENOMEM;
	r = vd_volume_setup(pool, vol, id);
	if (r) {
		vd_free(pool, vol);
		return r;
	}
	vol->base = vd_layer_bottom(pool, root);
	if (!vol->base) {
		vd_volume_teardown(vol);
		vd_free(pool, vol);
		return -ENOMEM;
	}
	vol->rec = rec;
	vol->size = le64_to_cpu(rec->d.size) >> VD_BLOCK_SHIFT;
	vol->readonly = le32_to_cpu(rec->d.flags) & VD_VOL_READONLY;
	vol->has_base = le32_to_cpu(rec->d.flags) & VD_VOL_BASE;
	*out = vol;
	return 0;
}

void vd_volume_insert(struct vd_volumes *vs, struct vd_volume *vol)
{
	vd_list_add_tail(&vs->all, &vol->all);
	vd_list_add_tail(id_bucket(vs, vol->id), &vol->hash);
}

void vd_volume_forget(struct vd_pool *pool, struct vd_volume *vol)
{
	vd_windows_drop(vol);
	vd_spin_lock(&pool->volumes->dirty_lock);
	vd_volume_undirty(vol);
	vd_spin_unlock(&pool->volumes->dirty_lock);
	vd_list_del(&vol->all);
	vd_list_del(&vol->hash);
	vd_layer_put(pool, vol->base);
	vd_record_put(pool, vol->rec);
	vd_volume_teardown(vol);
	vd_free(pool, vol);
}

int vd_volumes_load(struct vd_pool *pool, uint32_t id, struct vd_volume **out)
{
	struct vd_volumes *vs = pool->volumes;
	const struct vd_disk_volume *d;
	struct vd_record *rec;
	struct vd_volume *vol;
	struct vd_slot slot;
	struct vd_node *node;
	struct vd_root root;
	int r;

	*out = vd_volume_in_memory(vs, id);
	if (*out)
		return (*out)->gone ? -ENOENT : 0;
	r = vd_ptree_next(pool, &vs->root, id, false, 0, &slot);
	if (r == -ENODATA || (!r && slot.key != id))
		return -ENOENT;
	if (r)
		return r;
	r = vd_node_get(pool, &slot.ptr, VD_NODE_VOLUME, 0, 0, &node);
	if (r)
		return r;
	d = node->data;
	r = vd_record_verify(d, id);
	rec = r ? NULL : vd_record_new(pool, d);
	if (!r && !rec)
		r = -ENOMEM;
	if (!r) {
		vd_root_get(&root, &d->root);
		r = vd_volume_new(pool, id, &root, rec, &vol);
	}
	if (!r) {
		vol->mapped = le64_to_cpu(d->mapped);
		vol->own = le64_to_cpu(d->own_blocks);
		vol->last_snapshot = le64_to_cpu(d->last_snapshot);
		vd_atomic_set(&vol->settled, (int64_t)vol->last_snapshot);
		vol->reserved = le64_to_cpu(d->reserved_blocks);
		vd_reserve_init(vol); /* it is in the sum (R2) */
		vol->disk_root = root;
		vol->disk_page = slot.ptr;
		vd_volume_insert(vs, vol);
		*out = vol;
	} else {
		vd_record_put(pool, rec);
	}
	vd_node_put(pool, node);
	return r;
}

void vd_volumes_evict(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_list *pos, *tmp;

	vd_list_for_each_safe(pos, tmp, &vs->all) {
		struct vd_volume *vol = vd_container(pos, struct vd_volume, all);

		if (!vol->opens && !vd_volume_is_dirty(vol) && vol->base->bottom && vd_ov_empty(&vol->active) &&
		    !(vd_record_flags(vol) & (VD_VOL_DELETING | VD_VOL_PENDING)) &&
		    !(vol->last_snapshot && vd_atomic_read(&vol->promise.all))) /* own.c looks at it */
			vd_volume_forget(pool, vol);
	}
}

/* One that a user can name. */
int vd_record_user(struct vd_pool *pool, uint32_t id, bool server, struct vd_volume **out)
{
	struct vd_volume *vol;
	int r = vd_volumes_load(pool, id, &vol);

	if (r)
		return r;
	if (vd_record_flags(vol) & (VD_VOL_DELETING | VD_VOL_PENDING) || !(vd_record_flags(vol) & VD_VOL_SERVER) == server)
		return -ENOENT;
	*out = vol;
	return 0;
}

int vd_volume_user(struct vd_pool *pool, uint32_t id, struct vd_volume **out)
{
	return vd_record_user(pool, id, false, out);
}

int vd_volumes_init(struct vd_pool *pool)
{
	struct vd_volumes *vs = vd_zalloc(pool, sizeof(*vs));
	struct vd_slot slot;
	unsigned i;
	int r;

	if (!vs)
		return -ENOMEM;
	pool->volumes = vs;
	vd_mutex_init(&vs->lock);
	vd_mutex_init(&vs->work_lock);
	vd_spin_init(&vs->dirty_lock);
	vd_rwlock_init(&vs->seal);
	vd_list_init(&vs->all);
	vd_list_init(&vs->dirty);
	vd_gate_init(&vs->gate);
	for (i = 0; i < VD_ID_BUCKETS; i++)
		vd_list_init(&vs->hash[i]);
	r = vd_volume_setup(pool, &vs->index, 0);
	if (r)
		return r;
	vd_root_get(&vs->index.disk_root, &pool->super->index);
	vs->index.base = vd_layer_bottom(pool, &vs->index.disk_root);
	vs->index.rec = vd_record_new(pool, NULL);
	vs->index.cut_root = vs->index.disk_root;
	vs->index.size = VD_VBLK_END;
	vs->root = pool->volumes_root;
	vs->next_id = vd_max(le64_to_cpu(pool->super->next_volume), (uint64_t)1);
	vs->next_link = le32_to_cpu(pool->super->next_link);
	vd_atomic_set(&vs->epoch, (int64_t)vd_max(le64_to_cpu(pool->super->epoch), (uint64_t)1));
	if (!vs->index.base || !vs->index.rec)
		return -ENOMEM;
	/* Or the next volume to be made would have the id of one there is. */
	return vd_ptree_next(pool, &vs->root, vs->next_id, false, 0, &slot) ? 0 : -EUCLEAN;
}

void vd_volumes_fini(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;

	if (!vs)
		return;
	while (!vd_list_empty(&vs->all))
		vd_volume_forget(pool, vd_container(vs->all.next, struct vd_volume, all));
	if (vs->index.pool) {
		if (vs->index.base)
			vd_layer_put(pool, vs->index.base);
		vd_record_put(pool, vs->index.rec);
		vd_volume_teardown(&vs->index);
	}
	vd_regions_fini(pool);
	vd_gate_fini(&vs->gate);
	vd_rwlock_fini(&vs->seal);
	vd_spin_fini(&vs->dirty_lock);
	vd_mutex_fini(&vs->work_lock);
	vd_mutex_fini(&vs->lock);
	vd_free(pool, vs);
	pool->volumes = NULL;
}
