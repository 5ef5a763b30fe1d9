// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Becoming the sole owner again (I3, its second half).
 *
 * After a snapshot a volume writes anew what was born before it.  When the
 * snapshot is gone, and nothing else shares with the volume, it may write in
 * place again.  That is found out here once, in the background, by walking its
 * tree: every node and every block must have one reference.  The first that has
 * more ends the walk, so a volume that still has snapshots costs a few nodes.
 *
 * O1  Counts are those of a durable checkpoint and hold still (ckpt_lock); what
 *     was released to reach them is durable with it.
 * O2  No layer in memory is shared: the volume's base is the bottom layer walked,
 *     and nothing else points to it.  A snapshot that is being made shares it.
 * O3  A block that is being given a new place (M1) is not written in place meanwhile:
 *     the rest of it was, or will be, copied from there.  What is claimed at that
 *     moment is looked at by writes in place too, until it is not (vol->mixed).  It is
 *     not waited for: who has a claim may be waiting for ckpt_lock.
 * O4  Nobody reads the blocks through another volume any more: to be deleted it
 *     had to be closed.
 * Forgetting it in a crash is harmless: blocks are then copied once more.
 */
#include "record.h"

static int visit(void *arg, const struct vd_visit *v)
{
	struct vd_pool *pool = arg;
	uint64_t done, run;
	struct vd_ext e;
	uint32_t count;
	unsigned i;
	int r;

	if (v->err)
		return v->err;
	r = vd_space_count(pool, v->ptr.a, &count);
	if (r || count != 1)
		return r ? r : -EXDEV;
	for (i = 0; !v->level && i < le16_to_cpu(vd_node_head(v->n)->count); i++) {
		r = vd_extents_get(v->n->data, i, &e);
		if (r)
			return r;
		for (done = 0; e.kind == VD_DATA && done < e.len; done += run) {
			r = vd_space_run(pool, e.p + done, e.len - done, &count, &run);
			if (r || count != 1)
				return r ? r : -EXDEV;
		}
	}
	return 0;
}

static bool alone(const struct vd_volume *vol)
{
	return vol->last_snapshot && vol->base->bottom && vol->base->refs == 1 && vd_root_same(&vol->base->root, &vol->disk_root);
}

/* The next volume after id that is worth a walk: open, or with space kept for it.  It stays in memory:
 * checkpoints drop those that were closed, and wait for ckpt_lock. */
static struct vd_volume *next(struct vd_volumes *vs, uint32_t id)
{
	struct vd_volume *best = NULL;
	struct vd_list *pos;

	vd_mutex_lock(&vs->lock);
	vd_list_for_each(pos, &vs->all) {
		struct vd_volume *vol = vd_container(pos, struct vd_volume, all);

		if ((vol->opens || vd_atomic_read(&vol->promise.all)) && vol->id > id && alone(vol) && (!best || vol->id < best->id))
			best = vol;
	}
	vd_mutex_unlock(&vs->lock);
	return best;
}

int vd_own_regain(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_volume *vol;
	uint32_t id = 0;
	int r = 0;

	vd_mutex_lock(&pool->ckpt_lock);
	vd_atomic_set(&vs->regain, 0);
	while (!r && (vol = next(vs, id))) {
		id = vol->id;
		r = vd_tree_walk(pool, &vol->disk_root, VD_NODE_EXTENTS, visit, pool);
		if (!r) {
			vd_mutex_lock(&vs->lock);
			if (alone(vol)) { /* O2: still */
				vd_map_own(vol); /* O3 */
				vd_volume_dirty(vol);
			}
			vd_mutex_unlock(&vs->lock);
		}
		if (r == -EXDEV || r == -EBADMSG || r == -EUCLEAN)
			r = 0; /* shared, or damaged: it stays as it is */
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}
