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

static int may_open(struct dm_target *ti, struct vdk_volume *v, const char *base)
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
	r = -EINVAL;
	ti->error = "The volume is on a base image: feature 'base', with its device, is missing";
	if (info->flags & VD_VOL_BASE && !base)
		goto out;
	ti->error = "The volume is on no base image: feature 'base' is one too many";
	if (!(info->flags & VD_VOL_BASE) && base)
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

/* A volume of the pool is suspended with it, perhaps first, and who reads it then would be waited for
 * for ever. */
static bool is_volume_of(const struct gendisk *disk, const struct vdk_volume *v)
{
	const struct vdk_volume *o;
	bool found = disk == dm_disk(v->md);

	mutex_lock(&v->pool->hold_lock);
	list_for_each_entry(o, &v->pool->volumes, list)
		found |= disk == dm_disk(o->md);
	mutex_unlock(&v->pool->hold_lock);
	return found;
}

/* It is none of the devices that make the volume's limits: it is read only, and what it cannot do
 * nobody asks of it.  But it must take what the volume takes. */
static int open_base(struct dm_target *ti, struct vdk_volume *v, const char *path)
{
	int r = dm_get_device(ti, path, COMPAT_OPEN_READ, &v->base);

	if (r) {
		ti->error = "The base image's device cannot be opened";
		return r;
	}
	ti->error = "The base image is a volume of the same pool";
	if (is_volume_of(v->base->bdev->bd_disk, v))
		goto err;
	ti->error = "The base image's device has larger sectors than the pool";
	if (bdev_logical_block_size(v->base->bdev) > v->pool->sector_size)
		goto err;
	v->base_size = bdev_nr_bytes(v->base->bdev);
	return 0;
err:
	dm_put_device(ti, v->base);
	return -EINVAL;
}

static int parse_features(struct dm_target *ti, struct dm_arg_set *as, const char **base)
{
	static const struct dm_arg nfeatures[] = { { 0, 2, "Invalid number of feature arguments" } };
	unsigned int n = 0;
	int r = as->argc ? dm_read_arg_group(nfeatures, as, &n, &ti->error) : 0;

	while (!r && n--) {
		if (!strcasecmp(dm_shift_arg(as), "base") && n) {
			n--;
			*base = dm_shift_arg(as);
		} else {
			ti->error = "Invalid feature argument";
			r = -EINVAL;
		}
	}
	if (!r && as->argc) {
		ti->error = "More feature arguments than are announced";
		r = -EINVAL;
	}
	return r;
}

static int volume_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc - 2, .argv = argv + 2 };
	unsigned int noio = memalloc_noio_save();
	const char *base = NULL;
	struct vdk_volume *v;
	int r = -EINVAL;

	ti->error = "A pool's device and the name of a volume are wanted";
	if (argc < 2)
		goto err;
	r = parse_features(ti, &as, &base);
	if (r)
		goto err;
	r = -EINVAL;
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
	v->md = dm_table_get_md(ti->table);
	r = may_open(ti, v, base);
	if (!r && base)
		r = open_base(ti, v, base);
	if (r)
		goto err_volume;
	ti->error = "Invalid length";
	r = dm_set_target_max_io_len(ti, VDK_MAX_IO_SECTORS);
	if (r)
		goto err_base;
	ti->private = v;
	ti->per_io_data_size = sizeof(struct vdk_bio);
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = !v->pool->ignores_discard;
	ti->discards_supported = !v->pool->ignores_discard;
	ti->num_write_zeroes_bios = 1;
	ti->limit_swap_bios = true; /* a write may need memory */
	v->ti = ti;
	vdk_volume_join(v);
	vdk_pool_exit(v->pool);
	memalloc_noio_restore(noio);
	return 0;

err_base:
	if (v->base)
		dm_put_device(ti, v->base);
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
	if (v->base)
		dm_put_device(ti, v->base);
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
	const unsigned int most = round_down(UINT_MAX >> SECTOR_SHIFT, VD_SECTORS_PER_BLOCK);

	limits->logical_block_size = max(limits->logical_block_size, v->pool->sector_size);
	limits->physical_block_size = max(limits->physical_block_size, VD_BLOCK);
	/* The core cuts bios at these; within a block, both parts would have to be read first. */
	limits->max_hw_sectors = round_down(limits->max_hw_sectors, VD_SECTORS_PER_BLOCK);
	limits->max_sectors = round_down(limits->max_sectors, VD_SECTORS_PER_BLOCK);
	limits->io_min = VD_BLOCK;
	limits->io_opt = VDK_WINDOW_BYTES;
	if (ti->discards_supported) {
		limits->discard_granularity = VD_BLOCK;
		limits->discard_alignment = 0;
		limits->max_hw_discard_sectors = limits->max_discard_sectors = most;
	}
	limits->max_write_zeroes_sectors = most;
}

/* ---- status ------------------------------------------------------------ */

static void volume_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result, unsigned int maxlen)
{
	struct vdk_volume *v = ti->private;
	struct vd_volume_info *info = kmalloc(sizeof(*info), GFP_NOIO);
	enum vd_pool_mode mode;
	unsigned int sz = 0;
	uint64_t epoch;

	vd_pool_now(v->pool->engine, &mode, &epoch);
	if (type == STATUSTYPE_INFO && mode == VD_MODE_FAILED) {
		DMEMIT("Fail");
		goto out;
	}
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
		if (v->base)
			DMEMIT(" 2 base %s", v->base->name);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",pool=%s,volume=%s", v->pool->name, info->name);
		if (v->base)
			DMEMIT(",base=%s", v->base->name);
		DMEMIT(";");
		break;
	}
out:
	kfree(info);
}

struct target_type vdk_volume_target = {
	.name = "vd-volume",
	.features = DM_TARGET_NOWAIT, /* io.c, K6 */
	.version = { 0, 5, 0 },
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
