// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The index: names of volumes, and the attention list (V2, V3 in volume.c).
 *
 * It is an extent tree of its own, volume 0, with overlay and checkpoints like any
 * other; what its extents "point to" are volume ids, and are not counted.  A name
 * hashes to a bucket of 16 consecutive keys, any of which it may have; all are
 * looked at, so that a removal needs no marker.
 */
#include "record.h"

static vd_vblk_t name_key(const char *name)
{
	size_t n = strlen(name);
	uint64_t hi = vd_port_crc32c(~0u, name, n), lo = vd_port_crc32c(0x5bd1e995u, name, n);

	/* 46 bits of hash, then the place in the bucket; below the attention list. */
	return (hi << 18 | (lo & 0x3fff) << 4) & (VD_INDEX_ATTENTION - 1);
}

int vd_index_find(struct vd_pool *pool, const char *name, uint32_t *id, vd_vblk_t *key)
{
	struct vd_volumes *vs = pool->volumes;
	vd_vblk_t first = name_key(name), k = first, end = first + VD_INDEX_BUCKET;
	struct vd_volume *vol;
	struct vd_ext e;
	bool room = false;
	int r;

	for (; k < end; k++) {
		r = vd_map_find_wait(&vs->index, k, &e);
		if (r)
			return r;
		if (e.kind != VD_DATA) {
			if (!room)
				*key = k;
			room = true;
			if (e.len >= end - k)
				break;
			continue;
		}
		r = vd_volumes_load(pool, (uint32_t)e.p, &vol);
		if (r && r != -ENOENT)
			return r;
		if (!r && !strcmp(vol->rec->d.name, name)) {
			*id = vol->id;
			*key = k;
			return 0;
		}
	}
	return room ? -ENOENT : -EEXIST;
}

int vd_plan_init(struct vd_plan *plan, struct vd_pool *pool, unsigned max)
{
	plan->pool = pool;
	plan->n = 0;
	plan->max = max;
	plan->op = vd_zalloc(pool, max * sizeof(*plan->op));
	return plan->op ? 0 : -ENOMEM;
}

void vd_plan_fini(struct vd_plan *plan)
{
	unsigned i;

	for (i = 0; plan->op && i < plan->n; i++)
		vd_ov_leaf_free(&plan->pool->host, plan->op[i].spare);
	vd_free(plan->pool, plan->op);
}

int vd_plan_key(struct vd_plan *plan, vd_vblk_t key, uint32_t id)
{
	struct vd_index_op *op = &plan->op[plan->n];

	if (plan->n == plan->max)
		return -EUCLEAN;
	op->spare = vd_ov_leaf_new(&plan->pool->host, VD_ALLOC_WAIT);
	if (!op->spare)
		return -ENOMEM;
	op->key = key;
	op->id = id;
	plan->n++;
	return 0;
}

static bool planned(const struct vd_plan *plan, vd_vblk_t key)
{
	unsigned i;

	for (i = 0; i < plan->n; i++)
		if (plan->op[i].key == key && plan->op[i].id)
			return true;
	return false;
}

int vd_plan_name(struct vd_plan *plan, const char *name, uint32_t id)
{
	vd_vblk_t key, end = name_key(name) + VD_INDEX_BUCKET;
	struct vd_ext e;
	uint32_t other;
	int r = vd_index_find(plan->pool, name, &other, &key);

	if (!id) /* removal */
		return r == -ENOENT ? 0 : r ? r : vd_plan_key(plan, key, 0);
	if (!r)
		return -EEXIST;
	if (r != -ENOENT)
		return r;
	/* Names of one plan that share a bucket must not take one place. */
	for (; key < end; key++) {
		if (planned(plan, key))
			continue;
		r = vd_map_find_wait(&plan->pool->volumes->index, key, &e);
		if (r)
			return r;
		if (e.kind != VD_DATA)
			return vd_plan_key(plan, key, id);
	}
	return -EEXIST; /* 16 names of one hash */
}

void vd_plan_apply(struct vd_plan *plan)
{
	struct vd_volume *index = &plan->pool->volumes->index;
	unsigned i;

	vd_write_lock(&index->map);
	for (i = 0; i < plan->n; i++) {
		struct vd_index_op *op = &plan->op[i];
		struct vd_ext e = { .v = op->key, .len = 1, .p = op->id, .kind = op->id ? VD_DATA : VD_HOLE };

		vd_map_put(index, &e, 0, &op->spare);
	}
	vd_write_unlock(&index->map);
}
