// SPDX-License-Identifier: GPL-2.0-only
/*
 * Target vd-pool: README.md has its table line, messages and status.
 *
 * A pool is opened by the first table that names its members, and shared by later
 * tables of the same device.  Its device does no I/O of its own: it reads as zeros, so
 * that nobody takes a label for its contents.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uuid.h>
#include <linux/utsname.h>

#include "dm-vd.h"

#define BLANK_BLOCKS 17 /* whose contents tell what a device is used for, the furthest being btrfs at 64 KiB */

struct features {
	bool readonly;
	enum vdk_full full;
	uint64_t low_water;
	bool ignore_discard, no_passdown;
};

/* One table of a vd-pool device. */
struct pool_table {
	struct vdk_pool *pool;
	struct features want;
	unsigned int ndevs;
	struct dm_dev *dev[VD_MEMBERS_MAX];
};

/* ---- opening ----------------------------------------------------------- */

static bool reads_only(struct dm_target *ti, const struct pool_table *t)
{
	return t->want.readonly || !compat_table_writable(ti->table);
}

/* Puts each device where its label says. */
static int place_members(struct dm_target *ti, struct vdk_pool *p, struct pool_table *t)
{
	struct vd_disk_label *label = kmalloc(sizeof(*label), GFP_KERNEL);
	struct block_device **place = kcalloc(VD_MEMBERS_MAX, sizeof(*place), GFP_KERNEL);
	uint8_t uuid[16];
	unsigned int i, m;
	int r = -ENOMEM;

	if (!label || !place)
		goto out;
	for (i = 0; i < t->ndevs; i++) {
		p->member[0] = t->dev[i]->bdev;
		r = vd_label_read(&p->host, 0, label);
		p->member[0] = NULL;
		if (r) {
			DMERR("%s: %s", t->dev[i]->name, r == -ENODATA ? "no label of a vd pool" :
			      r == -EPROTONOSUPPORT ? "of a later version of vd" : "its label cannot be read");
			ti->error = "A device is no member of a vd pool";
			goto out;
		}
		m = le32_to_cpu(label->index);
		r = -EINVAL;
		if (m >= VD_MEMBERS_MAX || (i && memcmp(uuid, label->pool, sizeof(uuid)))) {
			ti->error = "The devices are not members of one pool";
			goto out;
		}
		if (place[m]) {
			ti->error = "Two devices say that they are the same member";
			goto out;
		}
		memcpy(uuid, label->pool, sizeof(uuid));
		strscpy(p->name, label->pool_name, sizeof(p->name));
		place[m] = t->dev[i]->bdev;
	}
	memcpy(p->member, place, sizeof(p->member));
	memcpy(p->uuid, uuid, sizeof(p->uuid));
	r = 0;
out:
	kfree(place);
	kfree(label);
	return r;
}

/* What the engine leaves out, being old, is not to be read by data I/O either. */
static int take_info(struct vdk_pool *p)
{
	struct vd_pool_info *info = kmalloc(sizeof(*info), GFP_KERNEL);
	unsigned int m;

	if (!info)
		return -ENOMEM;
	vd_pool_info(p->engine, info);
	strscpy(p->name, info->name, sizeof(p->name));
	p->sector_size = info->sector_size;
	p->nmembers = info->nmembers;
	for (m = 0; m < VD_MEMBERS_MAX; m++)
		if (m >= info->nmembers || ((info->missing[m / 8] & ~info->too_short[m / 8]) >> (m % 8) & 1))
			p->member[m] = NULL;
	if (info->mode >= VD_MODE_READONLY)
		p->readonly = true;
	if (info->nmissing)
		DMWARN("pool %s: %u of %u members are missing: it is read-only", p->name, info->nmissing, info->nmembers);
	if (info->damaged && !info->rolled_back) /* the engine has told of that */
		DMWARN("pool %s: its metadata is damaged: it is read-only, and 'vdpool show %s' tells what is lost", p->name, p->name);
	kfree(info);
	return 0;
}

/* Also before the first resume: opening may free what a crash has left. */
static void take_discards(struct vdk_pool *p, const struct features *f)
{
	p->ignores_discard = f->ignore_discard;
	p->passes_down = !f->ignore_discard && !f->no_passdown;
}

static void engine_error(struct dm_target *ti, int r)
{
	ti->error = r == -ENODATA ? "The members carry labels but no usable superblock" :
		    r == -EPROTONOSUPPORT ? "The pool was written by a later version of vd" :
		    r == -EROFS ? "The pool has features that this version can only read" :
		    r == -EBADMSG || r == -EUCLEAN ? "The superblock or the journal is damaged" : "The pool cannot be opened";
}

/* The claims on the members do not keep two of our devices from one pool: all of device-mapper
 * has one holder, and one member may be named by two devices.  vdk_pools_lock. */
static bool is_open(const struct vdk_pool *p)
{
	const struct vdk_pool *o;

	list_for_each_entry(o, &vdk_pools, list)
		if (!memcmp(o->uuid, p->uuid, sizeof(p->uuid)) && memchr_inv(o->member, 0, sizeof(o->member)))
			return true;
	return false;
}

static struct vdk_pool *pool_open(struct dm_target *ti, struct pool_table *t, const struct vd_disk_holder *self, int *err)
{
	struct vdk_pool *p = kvzalloc(sizeof(*p), GFP_KERNEL);
	int r = -ENOMEM;

	if (!p)
		goto err;
	p->refs = 1;
	p->readonly = p->reads_only = reads_only(ti, t);
	p->self = *self;
	take_discards(p, &t->want);
	vdk_suspend_init(p);
	vdk_host_init(p);
	r = vdk_host_setup(p);
	if (r)
		goto err_free;
	r = place_members(ti, p, t);
	if (r)
		goto err_host;
	if (is_open(p)) {
		ti->error = "Another device has this pool open";
		r = -EBUSY;
		goto err_host;
	}
	r = vd_pool_open(&p->host, p->readonly ? VD_OPEN_READONLY : 0, self, &p->engine);
	if (r) {
		engine_error(ti, r);
		goto err_host;
	}
	r = take_info(p);
	if (r)
		goto err_engine;
	vdk_host_start(p);
	return p;

err_engine:
	vd_pool_abandon(p->engine);
err_host:
	vdk_host_teardown(p);
err_free:
	kvfree(p);
err:
	*err = r;
	return NULL;
}

static void pool_close(struct vdk_pool *p)
{
	unsigned int noio = memalloc_noio_save();
	int r;

	vdk_host_stop(p);
	r = p->md ? vd_pool_close(p->engine) : 0;
	if (!p->md) {
		vd_pool_abandon(p->engine); /* without members */
	} else if (r == -EBUSY) {
		DMERR("pool %s: a volume is still open", p->name);
		vd_pool_abandon(p->engine);
	} else if (r) {
		DMWARN("pool %s: its last checkpoint failed, error %d: the next opening replays the journal", p->name, r);
	}
	vdk_host_teardown(p);
	kvfree(p);
	memalloc_noio_restore(noio);
}

/* vdk_pools_lock, until it is closed: a table that is loaded meanwhile opens it again only then. */
static void put(struct vdk_pool *p)
{
	if (!--p->refs) {
		list_del(&p->list);
		pool_close(p);
	}
}

void vdk_pool_put(struct vdk_pool *p)
{
	mutex_lock(&vdk_pools_lock);
	put(p);
	mutex_unlock(&vdk_pools_lock);
}

/* -1: none */
static int member_of(const struct vdk_pool *p, const struct block_device *bdev)
{
	unsigned int m;

	for (m = 0; m < VD_MEMBERS_MAX; m++)
		if (p->member[m] == bdev)
			return (int)m;
	return -1;
}

/* What a new member holds would be lost.  dm-thin asks the same of new metadata. */
static int check_blank(struct vdk_pool *p, struct dm_dev *dev)
{
	struct page *page = alloc_page(GFP_KERNEL);
	unsigned int i;
	int r = page ? 0 : -ENOMEM;

	for (i = 0; i < BLANK_BLOCKS && !r; i++) {
		r = vdk_page_io(p, dev->bdev, REQ_OP_READ, (sector_t)i * VD_SECTORS_PER_BLOCK, page, 0, VD_BLOCK);
		if (!r && memchr_inv(page_address(page), 0, VD_BLOCK))
			r = -ENOTEMPTY;
	}
	if (r)
		DMERR("pool %s: %s cannot be added, error %d: its first %u KiB must be zeros", p->name, dev->name, r, BLANK_BLOCKS * 4);
	if (page)
		__free_page(page);
	return r;
}

/* Of a later table of an open pool: all the members, and perhaps some more.  To a read-only
 * pool these are not added: they may be members that it leaves out, being old. */
static int check_members(struct dm_target *ti, struct vdk_pool *p, const struct pool_table *t)
{
	unsigned int i, m;
	int r;

	for (m = 0; m < VD_MEMBERS_MAX; m++) {
		for (i = 0; p->member[m] && i < t->ndevs && t->dev[i]->bdev != p->member[m]; i++)
			;
		if (i == t->ndevs) {
			ti->error = "A member of the table before is missing";
			return -EINVAL;
		}
	}
	for (i = 0; i < t->ndevs; i++) {
		if (member_of(p, t->dev[i]->bdev) >= 0)
			continue;
		if (p->readonly) {
			DMWARN("pool %s is read-only, and leaves %s out: to open it anew remove its device", p->name, t->dev[i]->name);
			continue;
		}
		ti->error = "A device to be added has larger sectors than the pool";
		if (bdev_logical_block_size(t->dev[i]->bdev) > p->sector_size)
			return -EINVAL;
		ti->error = "A device to be added has less than 8 MiB";
		if (bdev_nr_bytes(t->dev[i]->bdev) < (u64)VD_MEMBER_MIN_BLOCKS << VD_BLOCK_SHIFT)
			return -EINVAL;
		ti->error = "A device to be added is not blank";
		r = check_blank(p, t->dev[i]);
		if (r)
			return r;
	}
	return 0;
}

/* vdk_pools_lock. */
static int pool_get(struct dm_target *ti, struct pool_table *t, const struct vd_disk_holder *self)
{
	struct mapped_device *md = dm_table_get_md(ti->table);
	struct vdk_pool *p;
	int r = 0;

	list_for_each_entry(p, &vdk_pools, list) {
		if (p->md != md)
			continue;
		if (p->reads_only && !reads_only(ti, t)) {
			ti->error = "The pool is open for reading only; remove its device first";
			return -EROFS;
		}
		if (!p->readonly && reads_only(ti, t)) {
			ti->error = "The pool is open for writing; remove its device first";
			return -EINVAL;
		}
		r = check_members(ti, p, t);
		if (r)
			return r;
		p->refs++;
		p->tables++;
		t->pool = p;
		return 0;
	}
	p = pool_open(ti, t, self, &r);
	if (!p)
		return r;
	p->md = md;
	p->tables = 1;
	list_add(&p->list, &vdk_pools);
	t->pool = p;
	return 0;
}

/* ---- table ------------------------------------------------------------- */

int vdk_parse_id(const char *text, uint8_t id[16])
{
	unsigned int n = 0;

	for (; *text && n < 32; text++) {
		int v = hex_to_bin(*text);

		if (*text == '-')
			continue;
		if (v < 0)
			return -EINVAL;
		id[n / 2] = n & 1 ? id[n / 2] | v : v << 4;
		n++;
	}
	return n == 32 && !*text ? 0 : -EINVAL;
}

static int parse_features(struct dm_target *ti, struct dm_arg_set *as, struct features *f, struct vd_disk_holder *self)
{
	static const struct dm_arg nfeatures[] = { { 0, 10, "Invalid number of feature arguments" } };
	unsigned int n;
	int r;

	strscpy(self->hostname, utsname()->nodename, sizeof(self->hostname));
	strscpy(self->purpose, "dm-vd", sizeof(self->purpose));
	self->since = cpu_to_le64(ktime_get_real_ns());
	if (!as->argc)
		return 0;
	r = dm_read_arg_group(nfeatures, as, &n, &ti->error);
	while (!r && n--) {
		const char *arg = dm_shift_arg(as);

		if (!strcasecmp(arg, "read_only")) {
			f->readonly = true;
		} else if (!strcasecmp(arg, "queue_if_no_space")) {
			f->full = VDK_FULL_QUEUE;
		} else if (!strcasecmp(arg, "error_if_no_space")) {
			f->full = VDK_FULL_ERROR;
		} else if (!strcasecmp(arg, "ignore_discard")) {
			f->ignore_discard = true;
		} else if (!strcasecmp(arg, "no_discard_passdown")) {
			f->no_passdown = true;
		} else if (!strcasecmp(arg, "low_water") && n) {
			n--;
			r = kstrtou64(dm_shift_arg(as), 10, &f->low_water);
		} else if (!strcasecmp(arg, "host") && n) {
			n--;
			r = vdk_parse_id(dm_shift_arg(as), self->host);
		} else if (!strcasecmp(arg, "boot") && n) {
			n--;
			r = vdk_parse_id(dm_shift_arg(as), self->boot);
		} else {
			r = -EINVAL;
		}
		if (r)
			ti->error = "Invalid feature argument";
	}
	if (!r && as->argc) {
		ti->error = "More feature arguments than are announced";
		r = -EINVAL;
	}
	return r;
}

static void put_devices(struct dm_target *ti, struct pool_table *t)
{
	while (t->ndevs)
		dm_put_device(ti, t->dev[--t->ndevs]);
}

static int pool_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	static const struct dm_arg nmembers[] = { { 1, VD_MEMBERS_MAX, "Invalid number of members" } };
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct vd_disk_holder *self = kzalloc(sizeof(*self), GFP_KERNEL);
	struct pool_table *t = kzalloc(sizeof(*t), GFP_KERNEL);
	unsigned int n, noio;
	int r = -ENOMEM;

	ti->error = "Out of memory";
	if (!t || !self)
		goto err;
	ti->error = "The number of members, or one of them, is missing";
	r = dm_read_arg_group(nmembers, &as, &n, &ti->error);
	if (r)
		goto err;
	while (t->ndevs < n) {
		r = dm_get_device(ti, dm_shift_arg(&as), dm_table_get_mode(ti->table), &t->dev[t->ndevs]);
		if (r) {
			ti->error = "A member cannot be opened";
			goto err_devices;
		}
		t->ndevs++;
	}
	ti->error = "Invalid argument";
	r = parse_features(ti, &as, &t->want, self);
	if (r)
		goto err_devices;
	ti->error = "The pool cannot be opened";
	noio = memalloc_noio_save();
	mutex_lock(&vdk_pools_lock);
	r = pool_get(ti, t, self);
	mutex_unlock(&vdk_pools_lock);
	memalloc_noio_restore(noio);
	if (r)
		goto err_devices;
	kfree(self);
	ti->private = t;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_write_zeroes_bios = 1; /* refused; see pool_resume() */
	return 0;

err_devices:
	put_devices(ti, t);
err:
	kfree(self);
	kfree(t);
	return r;
}

/* The last table of the pool's device goes while volumes are there: dmsetup remove --force.
 * It holds the members, so that from now on there are none.  Ends the table's hold on p. */
static void orphan(struct vdk_pool *p)
{
	DMERR("pool %s: its device is taken away; its volumes fail", p->name);
	vdk_pool_hold(p);
	vdk_host_stop(p);
	p->ti = NULL;
	p->refuses = true;
	mutex_lock(&vdk_pools_lock);
	memset(p->member, 0, sizeof(p->member)); /* from here on the pool may be opened anew */
	mutex_unlock(&vdk_pools_lock);
	vdk_pool_release(p);
	vdk_pool_put(p);
}

static void pool_dtr(struct dm_target *ti)
{
	struct pool_table *t = ti->private;
	struct vdk_pool *p = t->pool;
	bool last;

	mutex_lock(&vdk_pools_lock);
	last = !--p->tables && p->refs > 1;
	if (last)
		p->md = NULL; /* no volume comes any more */
	else
		put(p); /* in one step with the look at refs: a volume may come, and must find it open or not at all */
	mutex_unlock(&vdk_pools_lock);
	if (last)
		orphan(p);
	put_devices(ti, t);
	kfree(t);
}

/* ---- I/O, of the pool's device itself ---------------------------------- */

static int pool_map(struct dm_target *ti, struct bio *bio)
{
	if (bio_op(bio) == REQ_OP_READ)
		zero_fill_bio(bio);
	else if (!(bio->bi_opf & REQ_PREFLUSH))
		return DM_MAPIO_KILL;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

static void pool_presuspend(struct dm_target *ti)
{
	struct pool_table *t = ti->private;

	vdk_pool_hold(t->pool);
}

static void pool_presuspend_undo(struct dm_target *ti)
{
	struct pool_table *t = ti->private;

	vdk_pool_release(t->pool);
}

static void pool_postsuspend(struct dm_target *ti)
{
	struct pool_table *t = ti->private;
	unsigned int noio = memalloc_noio_save();
	int r;

	vdk_host_stop(t->pool);
	t->pool->ti = NULL;
	r = vd_flush(t->pool->engine);
	if (r)
		DMERR("pool %s: not all is durable, error %d", t->pool->name, r);
	memalloc_noio_restore(noio);
}

static int add_member(struct vdk_pool *p, struct dm_dev *dev)
{
	unsigned int m = p->nmembers;
	uint8_t uuid[16];
	int r;

	if (m == VD_MEMBERS_MAX)
		return -E2BIG;
	generate_random_uuid(uuid);
	p->member[m] = dev->bdev;
	r = vd_pool_add(p->engine, uuid, bdev_nr_sectors(dev->bdev) / VD_SECTORS_PER_BLOCK, bdev_logical_block_size(dev->bdev));
	if (r) {
		p->member[m] = NULL;
		DMERR("pool %s: %s cannot be added, error %d", p->name, dev->name, r);
		return r;
	}
	p->nmembers++;
	DMINFO("pool %s: %s is its member %u", p->name, dev->name, m);
	return 0;
}

/* The table may name more devices than there are members, and the members may have grown.
 * A failure leaves the volumes suspended until a table comes that asks for less: so only what
 * was asked for fails, and a pool that is not written any more comes back to be read. */
static int pool_preresume(struct dm_target *ti)
{
	struct pool_table *t = ti->private;
	unsigned int i, noio = memalloc_noio_save();
	int r = 0;

	if (!t->pool->readonly) {
		for (i = 0; i < t->ndevs && !r; i++)
			if (member_of(t->pool, t->dev[i]->bdev) < 0)
				r = add_member(t->pool, t->dev[i]);
		if (r == -EROFS)
			r = 0;
		if (!r)
			(void)vdk_grow_members(t->pool, NULL); /* has been told; tried again when the pool is full */
	}
	memalloc_noio_restore(noio);
	return r;
}

static void pool_resume(struct dm_target *ti)
{
	struct pool_table *t = ti->private;
	struct vdk_pool *p = t->pool;

	vdk_host_stop(p); /* it may have begun when the table was loaded */
	p->ti = ti;
	/* Volumes free blocks for them, and ask no member.  But the core lets them only where the device
	 * below does, whose limit it has just made of those of its members. */
	dm_disk(p->md)->queue->limits.max_write_zeroes_sectors = UINT_MAX >> SECTOR_SHIFT;
	p->full = t->want.full;
	p->low_water = t->want.low_water;
	take_discards(p, &t->want);
	p->refuses = false; /* the worker looks at it first */
	vdk_host_start(p);
	vdk_pool_release(p);
}

static int pool_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn, void *data)
{
	struct pool_table *t = ti->private;
	unsigned int i;
	int r = 0;

	for (i = 0; i < t->ndevs && !r; i++)
		r = fn(ti, t->dev[i], 0, bdev_nr_sectors(t->dev[i]->bdev), data);
	return r;
}

/* ---- messages ---------------------------------------------------------- */

static int pool_message(struct dm_target *ti, unsigned int argc, char **argv, char *result, unsigned int maxlen)
{
	struct pool_table *t = ti->private;
	struct vdk_pool *p = t->pool;
	unsigned int noio = memalloc_noio_save();
	int r;

	if (!vdk_pool_enter(p)) {
		DMWARN("pool %s is suspended: message %s has to wait until it is resumed", p->name, argv[0]);
		r = -EBUSY;
		goto out;
	}
	r = vdk_message(p, argc, argv, result, maxlen);
	vdk_pool_exit(p);
	if (r < 0)
		DMWARN("pool %s: message %s failed, error %d", p->name, argv[0], r);
out:
	memalloc_noio_restore(noio);
	return r;
}

/* ---- status ------------------------------------------------------------ */

static const char *mode_text(const struct vd_pool_info *info)
{
	return info->mode == VD_MODE_RW ? "rw" : info->mode == VD_MODE_OUT_OF_SPACE ? "out_of_data_space" : "ro";
}

/* As dm-thin says it, which passes none down either where its data device takes none. */
static const char *discard_text(const struct vdk_pool *p, const struct vd_pool_info *info)
{
	unsigned int m;

	if (p->ignores_discard)
		return "ignore_discard";
	for (m = 0; p->passes_down && !(info->policy.flags & VD_POLICY_NO_DISCARD) && m < VD_MEMBERS_MAX; m++)
		if (p->member[m] && bdev_max_discard_sectors(p->member[m]))
			return "discard_passdown";
	return "no_discard_passdown";
}

static void emit_features(const struct features *f, char *result, unsigned int maxlen)
{
	unsigned int sz = 0, n = f->readonly + (f->full != VDK_FULL_AS_POOL) + 2 * !!f->low_water;

	n += f->ignore_discard + f->no_passdown;
	if (n)
		DMEMIT(" %u", n);
	if (f->ignore_discard)
		DMEMIT(" ignore_discard");
	if (f->no_passdown)
		DMEMIT(" no_discard_passdown");
	if (f->readonly)
		DMEMIT(" read_only");
	if (f->full != VDK_FULL_AS_POOL)
		DMEMIT(f->full == VDK_FULL_QUEUE ? " queue_if_no_space" : " error_if_no_space");
	if (f->low_water)
		DMEMIT(" low_water %llu", f->low_water);
}

static void pool_status(struct dm_target *ti, status_type_t type, unsigned int flags, char *result, unsigned int maxlen)
{
	struct pool_table *t = ti->private;
	struct vd_pool_info *info;
	unsigned int i, sz = 0;
	u64 data;

	switch (type) {
	case STATUSTYPE_INFO:
		info = kmalloc(sizeof(*info), GFP_NOIO);
		if (!info) {
			DMEMIT("Error");
			break;
		}
		vd_pool_info(t->pool->engine, info);
		if (info->mode == VD_MODE_FAILED) {
			DMEMIT("Fail");
		} else {
			data = info->used_blocks > info->metadata_blocks ? info->used_blocks - info->metadata_blocks : 0;
			DMEMIT("%llu %llu/%llu %llu/%llu ", info->transaction, info->metadata_blocks,
			       info->metadata_blocks + info->reserve_blocks, data, info->total_blocks - info->metadata_blocks);
			if (info->pinned[VD_PIN_USER])
				DMEMIT("%llu", info->pinned[VD_PIN_USER]);
			else
				DMEMIT("-");
			DMEMIT(" %s %s %s %s %llu", mode_text(info), discard_text(t->pool, info),
			       READ_ONCE(t->pool->refuses) ? "error_if_no_space" : "queue_if_no_space",
			       info->damaged ? "needs_check" : "-", info->reserve_blocks);
			DMEMIT(" name %s journal %llu/%llu overlay %llu seq %llu/%llu generation %llu waiting %u pinned %llu", info->name,
			       info->journal_used, info->journal_blocks, info->overlay_extents,
			       info->durable_seq, info->seq, info->generation, READ_ONCE(t->pool->nstarved),
			       info->pinned[VD_PIN_CHECK]);
		}
		kfree(info);
		break;
	case STATUSTYPE_TABLE:
		DMEMIT("%u", t->ndevs);
		for (i = 0; i < t->ndevs; i++)
			DMEMIT(" %s", t->dev[i]->name);
		emit_features(&t->want, result + sz, maxlen - sz);
		break;
	case STATUSTYPE_IMA:
		DMEMIT_TARGET_NAME_VERSION(ti->type);
		DMEMIT(",pool=%s;", t->pool->name);
		break;
	}
}

struct target_type vdk_pool_target = {
	.name = "vd-pool",
	.features = DM_TARGET_SINGLETON | DM_TARGET_IMMUTABLE | DM_TARGET_NOWAIT,
	.version = { 0, 5, 0 },
	.module = THIS_MODULE,
	.ctr = pool_ctr,
	.dtr = pool_dtr,
	.map = pool_map,
	.presuspend = pool_presuspend,
	.presuspend_undo = pool_presuspend_undo,
	.postsuspend = pool_postsuspend,
	.preresume = pool_preresume,
	.resume = pool_resume,
	.iterate_devices = pool_iterate_devices,
	.message = pool_message,
	.status = pool_status,
};
