// SPDX-License-Identifier: GPL-2.0-only
/*
 * Target vd-volume: README.md has its table line and status; io.c moves the data.
 */
#include <linux/module.h>
#include <linux/slab.h>

#include "dm-vd.h"

/* ---- table ------------------------------------------------------------- */

/* Entered (S1). */
static struct vdk_pool *pool_of(struct block_device *bdev)
{
	struct vdk_pool *p;

	list_for_each_entry(p, &vdk_pools, list)
		if (p->md && dm_disk(p->md) == bdev->bd_disk && vdk_pool_enter(p)) {
			p->refs++;
			return p;
		}
	return NULL;
}

/* Linked by who holds the lock: it stores its open pointer before it asks for the device. */
static bool locked_by_other(const struct vd_volume_info *info)
{
	unsigned int i;

	if (!(info->flags & VD_VOL_LOCKED))
		return false;
	for (i = 0; i < info->npointers; i++) {
		const struct vd_disk_holder *w = &info->pointer[i].who;

		if (!memcmp(w->host, info->lock.host, 16) && !memcmp(w->boot, info->lock.boot, 16) && w->pid == info->lock.pid)
			return false;
	}
	return true;
}

static int may_open(struct dm_target *ti, struct vdk_volume *v)
{
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	bool write = compat_table_writable(ti->table);
	int r;

	ti->error = "Out of memory";
	if (!info)
		return -ENOMEM;
	ti->error = "The volume's record cannot be read";
	r = vd_volume_info(v->pool->engine, v->id, info);
	if (r)
		goto out;
	r = -EACCES;
	ti->error = "The volume is locked";
	if (locked_by_other(info))
		goto out;
	r = -EROFS;
	ti->error = "The pool, or the volume, is read-only: so must the table be";
	if (write && (v->pool->readonly || info->flags & VD_VOL_READONLY))
		goto out;
	r = -EOPNOTSUPP;
	ti->error = "Volumes on a base image are not supported yet";
	if (info->flags & VD_VOL_BASE)
		goto out;
	r = -ERANGE;
	ti->error = "The volume is smaller, and the table may not write";
	if (!write && (u64)ti->len << SECTOR_SHIFT > info->size)
		goto out;
	r = 0;
out:
	kfree(info);
	return r;
}

static int volume_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	unsigned int noio = memalloc_noio_save();
	struct vdk_volume *v;
	int r = -EINVAL;

	ti->error = "A pool's device and the name of a volume are wanted";
	if (argc != 2)
		goto err;
	ti->error = "The length is not a multiple of 4096 bytes";
	if (ti->begin || ti->len % VD_SECTORS_PER_BLOCK)
		goto err;
	r = -ENOMEM;
	ti->error = "Out of memory";
	v = kzalloc(sizeof(*v), GFP_KERNEL);
	if (!v)
		goto err;
	ti->error = "The pool's device cannot be opened";
	r = dm_get_device(ti, argv[0], dm_table_get_mode(ti->table), &v->pool_dev);
	if (r)
		goto err_free;
	mutex_lock(&vdk_pools_lock);
	v->pool = pool_of(v->pool_dev->bdev);
	mutex_unlock(&vdk_pools_lock);
	r = -EINVAL;
	ti->error = "The device is not that of a vd-pool, or it is suspended";
	if (!v->pool)
		goto err_dev;
	ti->error = "There is no such volume";
	r = vd_volume_find(v->pool->engine, argv[1], &v->id);
	if (!r)
		r = vd_volume_open(v->pool->engine, v->id, &v->vol);
	if (r)
		goto err_pool;
	r = may_open(ti, v);
	if (!r) {
		ti->error = "Invalid length";
		r = dm_set_target_max_io_len(ti, VDK_MAX_IO_SECTORS);
	}
	if (r)
		goto err_volume;
	ti->private = v;
	ti->per_io_data_size = sizeof(struct vdk_bio);
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = 1;
	ti->discards_supported = true;
	ti->num_write_zeroes_bios = 1;
	ti->limit_swap_bios = true; /* a write may need memory */
	v->ti = ti;
	v->md = dm_table_get_md(ti->table);
	vdk_volume_join(v);
	vdk_pool_exit(v->pool);
	memalloc_noio_restore(noio);
	return 0;

err_volume:
	vd_volume_close(v->vol);
err_pool:
	vdk_pool_exit(v->pool);
	vdk_pool_put(v->pool);
err_dev:
	dm_put_device(ti, v->pool_dev);
err_free:
	kfree(v);
err:
	memalloc_noio_restore(noio);
	return r;
}

static void volume_dtr(struct dm_target *ti)
{
	struct vdk_volume *v = ti->private;
	unsigned int noio = memalloc_noio_save();

	vdk_volume_leave(v);
	vd_volume_close(v->vol);
	vdk_pool_put(v->pool);
	dm_put_device(ti, v->pool_dev);
	kfree(v);
	memalloc_noio_restore(noio);
}

/* A table that is longer than the volume makes it grow, once; a shorter one shows its beginning. */
static int grow(struct dm_target *ti, struct vdk_volume *v)
{
	uint64_t size = (uint64_t)ti->len << SECTOR_SHIFT;
	unsigned int noio;
	int r;

	if (size <= vd_volume_size(v->vol))
		return 0;
	noio = memalloc_noio_save();
	r = vd_volume_resize(v->pool->engine, v->id, size);
	memalloc_noio_restore(noio);
	if (r)
		DMERR("pool %s: volume %u cannot be made %llu bytes long, error %d", v->pool->name, v->id, size, r);
	return r;
}

static int volume_preresume(struct dm_target *ti)
{
	struct vdk_volume *v = ti->private;
	int r;

	if (READ_ONCE(v->live)) /* also when the pool resumes it */
		return 0;
	if (!vdk_pool_enter(v->pool)) {
		DMERR("pool %s is suspended: resume it before its volume %u", v->pool->name, v->id);
		return -EBUSY;
	}
	r = grow(ti, v);
	if (!r)
		WRITE_ONCE(v->live, true); /* before we exit: who suspends the pool waits for that, and looks then */
	vdk_pool_exit(v->pool);
	return r;
}

/* I14.  With a flush, what waits for space is waited for. */
static void volume_presuspend(struct dm_target *ti)
{
	if (dm_noflush_suspending(ti))
		vdk_requeue_begin(ti->private);
}

/* Whether it was without a flush is not known any more. */
static void volume_postsuspend(struct dm_target *ti)
{
	vdk_requeue_end(ti->private);
}

/* ---- I/O --------------------------------------------------------------- */

static int volume_map(struct dm_target *ti, struct bio *bio)
{
	struct vdk_bio *b = dm_per_bio_data(bio, sizeof(*b));

	return vdk_map(ti->private, b, bio, (uint64_t)dm_target_offset(ti, bio->bi_iter.bi_sector) << SECTOR_SHIFT);
}

static int volume_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	return vdk_end_io(dm_per_bio_data(bio, sizeof(struct vdk_bio)), bio, error);
}

/* The pool's device has the limits of its members. */
static int volume_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct vdk_volume *v = ti->private;

	return fn(ti, v->pool_dev, 0, bdev_nr_sectors(v->pool_dev->bdev), data);
}

static void volume_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct vdk_volume *v = ti->private;

	limits->logical_block_size = max(limits->logical_block_size, v->pool->sector_size);
	limits->physical_block_size = max(limits->physical_block_size, VD_BLOCK);
	limits->io_min = VD_BLOCK;
	limits->io_opt = VDK_WINDOW_BYTES;
	limits->discard_granularity = VD_BLOCK;
	limits->discard_alignment = 0;
	limits->max_hw_discard_sectors = limits->max_discard_sectors = round_down(UINT_MAX >> SECTOR_SHIFT, VD_SECTORS_PER_BLOCK);
	limits->max_write_zeroes_sectors = limits->max_discard_sectors;
}

/* ---- status ------------------------------------------------------------ */

static void volume_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result, unsigned int maxlen)
{
	struct vdk_volume *v = ti->private;
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_NOIO);
	unsigned int sz = 0;

	if (!info || vd_volume_info(v->pool->engine, v->id, info)) {
		DMEMIT("Error");
		goto out;
	}
	switch (type) {
	case STATUSTYPE_INFO:
		DMEMIT("%llu - name %s", info->mapped * VD_SECTORS_PER_BLOCK, info->name);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%s %s", v->pool_dev->name, info->name);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",pool=%s,volume=%s;", v->pool->name, info->name);
		break;
	}
out:
	kfree(info);
}

struct target_type vdk_volume_target = {
	.name = "vd-volume",
	.version = { 0, 1, 0 },
	.module = THIS_MODULE,
	.ctr = volume_ctr,
	.dtr = volume_dtr,
	.preresume = volume_preresume,
	.presuspend = volume_presuspend,
	.presuspend_undo = volume_postsuspend,
	.postsuspend = volume_postsuspend,
	.map = volume_map,
	.end_io = volume_end_io,
	.iterate_devices = volume_iterate_devices,
	.io_hints = volume_io_hints,
	.status = volume_status,
};
