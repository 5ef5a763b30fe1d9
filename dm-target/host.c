// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the engine asks of its host (core/host.h), done with block devices.
 *
 * Reads, writes and flushes are class B: made one after the other, each waited
 * for.  Their bios come from a set of our own: a file system above us may hold the
 * common one's reserve while it waits for us.
 *
 * Small memory is always from kmalloc, so that it can be freed with interrupts off.
 */
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "dm-vd.h"

#define SMALL_MAX (32u << 10)

#define CACHE_MIB_LEAST 4
#define CACHE_MIB_MOST 65536
static unsigned int cache_mib = 128;

static int set_cache_mib(const char *text, const struct kernel_param *kp)
{
	return param_set_uint_minmax(text, kp, CACHE_MIB_LEAST, CACHE_MIB_MOST);
}

static const struct kernel_param_ops cache_mib_ops = { .set = set_cache_mib, .get = param_get_uint };
__MODULE_PARM_TYPE(cache_mib, "uint");
module_param_cb(cache_mib, &cache_mib_ops, &cache_mib, 0644);
MODULE_PARM_DESC(cache_mib, "MiB of metadata that each pool keeps in memory, from 4 to 65536; for pools that are opened from then on");

/* ---- member I/O -------------------------------------------------------- */

static unsigned int add_buffer(struct bio *bio, const char *buf, size_t len)
{
	unsigned int done = 0;

	while (len) {
		struct page *page = is_vmalloc_addr(buf) ? vmalloc_to_page(buf) : virt_to_page(buf);
		unsigned int in = offset_in_page(buf), n = min_t(size_t, len, PAGE_SIZE - in);

		if (bio_add_page(bio, page, n, in) != n)
			break;
		buf += n;
		len -= n;
		done += n;
	}
	return done & ~(VD_BLOCK - 1);
}

static int member_io(struct vdk_pool *p, unsigned int member, blk_opf_t opf, uint64_t block, char *buf, unsigned int nblocks)
{
	struct block_device *bdev = member < VD_MEMBERS_MAX ? p->member[member] : NULL;
	size_t left = (size_t)nblocks << VD_BLOCK_SHIFT;
	sector_t sector = (sector_t)block * VD_SECTORS_PER_BLOCK;
	int r = 0;

	if (!bdev)
		return -ENODEV;
	if (block + nblocks > bdev_nr_sectors(bdev) / VD_SECTORS_PER_BLOCK)
		return -EIO; /* shorter than its label says */
	if (is_vmalloc_addr(buf) && op_is_write(opf))
		flush_kernel_vmap_range(buf, (int)left);
	while (left && !r) {
		struct bio *bio = bio_alloc_bioset(bdev, min_t(size_t, left / VD_BLOCK + 1, BIO_MAX_VECS), opf, GFP_NOIO, &p->bios);
		unsigned int n;

		bio->bi_iter.bi_sector = sector;
		n = add_buffer(bio, buf, left);
		bio->bi_iter.bi_size = n;
		r = n ? submit_bio_wait(bio) : -EIO;
		bio_put(bio);
		if (is_vmalloc_addr(buf) && !op_is_write(opf))
			invalidate_kernel_vmap_range(buf, (int)n);
		buf += n;
		left -= n;
		sector += n >> SECTOR_SHIFT;
	}
	return vdk_member_error(r);
}

static int host_read(void *ctx, unsigned int member, uint64_t block, void *buf, unsigned int nblocks)
{
	return member_io(ctx, member, REQ_OP_READ | REQ_META, block, buf, nblocks);
}

static int host_write(void *ctx, unsigned int member, uint64_t block, const void *buf, unsigned int nblocks)
{
	return member_io(ctx, member, REQ_OP_WRITE | REQ_META, block, (char *)buf, nblocks);
}

static int host_flush(void *ctx, unsigned int member)
{
	struct vdk_pool *p = ctx;
	struct block_device *bdev = member < VD_MEMBERS_MAX ? p->member[member] : NULL;

	return bdev ? vdk_member_error(blkdev_issue_flush(bdev)) : -ENODEV;
}

/* Where it takes several bios, each of them is FUA. */
static int host_commit(void *ctx, unsigned int member, uint64_t block, const void *buf, unsigned int nblocks)
{
	return member_io(ctx, member, REQ_OP_WRITE | REQ_META | REQ_PREFLUSH | REQ_FUA, block, (char *)buf, nblocks);
}

static int host_discard(void *ctx, unsigned int member, uint64_t block, uint64_t nblocks)
{
	struct vdk_pool *p = ctx;
	struct block_device *bdev = member < VD_MEMBERS_MAX ? p->member[member] : NULL;

	if (!bdev)
		return -ENODEV;
	if (!p->passes_down || !bdev_max_discard_sectors(bdev))
		return -EOPNOTSUPP;
	return blkdev_issue_discard(bdev, (sector_t)block * VD_SECTORS_PER_BLOCK, (sector_t)nblocks * VD_SECTORS_PER_BLOCK,
				    GFP_NOIO);
}

static uint64_t host_size(void *ctx, unsigned int member)
{
	struct vdk_pool *p = ctx;
	struct block_device *bdev = member < VD_MEMBERS_MAX ? p->member[member] : NULL;

	return bdev ? bdev_nr_sectors(bdev) / VD_SECTORS_PER_BLOCK : 0;
}

int vdk_page_io(struct vdk_pool *p, struct block_device *bdev, blk_opf_t opf, sector_t sector, struct page *page,
		unsigned int in, unsigned int len)
{
	struct bio *bio;
	int r = -EIO;

	if (!bdev)
		return -ENODEV;
	bio = bio_alloc_bioset(bdev, 1, opf, GFP_NOIO, &p->bios);
	bio->bi_iter.bi_sector = sector;
	if (bio_add_page(bio, page, len, in) == len)
		r = submit_bio_wait(bio);
	bio_put(bio);
	return vdk_member_error(r);
}

/* ---- memory, clock, remarks -------------------------------------------- */

static void *host_alloc(void *ctx, size_t size, int how)
{
	unsigned int noio;
	void *mem;

	if (how == VD_ALLOC_NOWAIT)
		return kmalloc(size, GFP_NOWAIT | __GFP_NOWARN);
	if (size <= SMALL_MAX)
		return kmalloc(size, GFP_NOIO);
	noio = memalloc_noio_save();
	mem = kvmalloc(size, GFP_KERNEL);
	memalloc_noio_restore(noio);
	return mem;
}

static void host_free(void *ctx, void *mem)
{
	kvfree(mem);
}

static uint64_t host_now(void *ctx)
{
	return ktime_get_real_ns();
}

/* The engine formats nothing: %a and %b stand for the two numbers. */
static void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	struct vdk_pool *p = ctx;
	char text[256];
	size_t n = 0;

	for (; *msg && n < sizeof(text) - 24; msg++) {
		if (msg[0] == '%' && (msg[1] == 'a' || msg[1] == 'b'))
			n += scnprintf(text + n, sizeof(text) - n, "%llu", *++msg == 'a' ? a : b);
		else
			text[n++] = *msg;
	}
	text[n] = 0;
	if (level == VD_LOG_ERROR)
		DMERR_LIMIT("pool %s: %s", p->name, text);
	else if (level == VD_LOG_WARN)
		DMWARN_LIMIT("pool %s: %s", p->name, text);
	else
		DMINFO("pool %s: %s", p->name, text);
}

/* ---- growth ------------------------------------------------------------- */

int vdk_grow_member(struct vdk_pool *p, unsigned int m, bool *grown)
{
	uint64_t blocks, size = host_size(p, m);
	uint8_t uuid[16];
	bool missing;
	int r = vd_pool_member(p->engine, m, uuid, &blocks, &missing);

	if (r || missing || size <= blocks)
		return r;
	r = vd_pool_grow(p->engine, m, size);
	if (r) {
		DMERR_LIMIT("pool %s: member %u cannot grow from %llu to %llu blocks, error %d", p->name, m, blocks, size, r);
		return r;
	}
	DMINFO("pool %s: member %u has become larger: %llu blocks, and now %llu", p->name, m, blocks, size);
	if (grown)
		*grown = true;
	return 0;
}

int vdk_grow_members(struct vdk_pool *p, bool *grown)
{
	unsigned int m;
	int r = 0;

	for (m = 0; m < p->nmembers && !r; m++)
		r = vdk_grow_member(p, m, grown);
	return r;
}

/* Before writers are told that the pool is full. */
static bool host_grow(void *ctx)
{
	bool grown = false;

	return !vdk_grow_members(ctx, &grown) && grown;
}

/* ---- the engine's work ------------------------------------------------- */

static void host_kick(void *ctx)
{
	struct vdk_pool *p = ctx;

	if (READ_ONCE(p->working))
		mod_delayed_work(p->commit_wq, &p->work, 0);
}

/* Blocks.  What is promised cannot be given to others. */
static uint64_t taken_of(const struct vd_pool_info *info)
{
	return info->used_blocks + info->promised_blocks;
}

/* Says which thresholds are passed, and that some no longer are. */
static unsigned int passed_thresholds(struct vdk_pool *p, const struct vd_pool_info *info)
{
	/* 2^48 blocks at most */
	uint64_t permille = div64_u64(taken_of(info) * 1000, info->total_blocks ?: 1);
	unsigned int i, now = 0;

	for (i = 0; i < ARRAY_SIZE(info->policy.threshold); i++) {
		unsigned int limit = info->policy.threshold[i];

		if (limit && permille >= limit)
			now |= 1u << i;
		if (limit && (now ^ p->told.passed) >> i & 1)
			DMWARN("pool %s is %s than %u.%u %% full: %llu.%llu %% is in use", p->name, now >> i & 1 ? "more" : "less",
			       limit / 10, limit % 10, permille / 10, permille % 10);
	}
	return now;
}

static bool is_low(const struct vdk_pool *p, const struct vd_pool_info *info)
{
	return p->low_water && p->low_water >= info->total_blocks - min(info->total_blocks, taken_of(info));
}

/* Those who wait for space try again when there may be some, and no oftener: a try costs
 * a checkpoint. */
static void look_at_starved(struct vdk_pool *p, const struct vd_pool_info *info)
{
	uint64_t taken = taken_of(info);
	bool full = info->mode == VD_MODE_OUT_OF_SPACE;

	spin_lock_irq(&p->lock);
	if (p->full == VDK_FULL_AS_POOL ? info->policy.flags & VD_POLICY_ERROR_IF_FULL : p->full == VDK_FULL_ERROR)
		p->refuses = true;
	else if (!full)
		p->refuses = false;
	spin_unlock_irq(&p->lock);
	if (!full || READ_ONCE(p->refuses) || info->total_blocks != p->total || taken < p->taken)
		vdk_starved_retry(p);
	else
		vdk_starved_expire(p);
	p->taken = taken;
	p->total = info->total_blocks;
}

/* Who waits for an event of the pool's device looks at its status then.  In a full pool,
 * what was freed is free again only after a checkpoint: the next writer would take one, but
 * who waits until there is space does not write.  True: it has taken one, and is to look again. */
static bool look_at_pool(struct vdk_pool *p)
{
	struct vd_pool_info *info = kmalloc(sizeof(*info), GFP_NOIO);
	struct vdk_state_told now;
	bool again = false;

	if (!info)
		return false;
	vdk_reader_look(p);
	if (READ_ONCE(p->nstarved))
		(void)vdk_grow_members(p, NULL); /* has been told; the next second may be better */
	vd_pool_info(p->engine, info);
	look_at_starved(p, info);
	now = (struct vdk_state_told){ info->mode, READ_ONCE(p->refuses), is_low(p, info), passed_thresholds(p, info) };
	if (now.low && !p->told.low)
		DMWARN("pool %s has reached its low-water mark: %llu blocks are free", p->name,
		       info->total_blocks - min(info->total_blocks, taken_of(info)));
	if (p->ti && (now.mode != p->told.mode || now.refuses != p->told.refuses || now.low != p->told.low || now.passed != p->told.passed))
		dm_table_event(p->ti->table);
	p->told = now;
	if (info->mode == VD_MODE_OUT_OF_SPACE && info->overlay_extents)
		again = !vd_checkpoint(p->engine);
	kfree(info);
	return again;
}

/* When kicked, and once a second.  Under load the engine always has more to do. */
static void background_work(struct work_struct *work)
{
	struct vdk_pool *p = container_of(to_delayed_work(work), struct vdk_pool, work);
	unsigned int noio = memalloc_noio_save();
	bool more = vd_pool_work(p->engine) > 0;

	if (!more || time_after_eq(jiffies, p->looked + HZ)) {
		more |= look_at_pool(p);
		p->looked = jiffies;
	}
	memalloc_noio_restore(noio);
	if (READ_ONCE(p->working))
		queue_delayed_work(p->commit_wq, &p->work, more ? 0 : HZ);
}

void vdk_host_start(struct vdk_pool *p)
{
	if (p->readonly)
		return;
	p->looked = jiffies;
	WRITE_ONCE(p->working, true);
	mod_delayed_work(p->commit_wq, &p->work, 0);
}

void vdk_host_stop(struct vdk_pool *p)
{
	WRITE_ONCE(p->working, false);
	cancel_delayed_work_sync(&p->work);
}

/* ---- life -------------------------------------------------------------- */

void vdk_host_init(struct vdk_pool *p)
{
	p->host = (struct vd_host){
		.ctx = p, .read = host_read, .write = host_write, .flush = host_flush, .commit = host_commit,
		.discard = host_discard,
		.alloc = host_alloc, .free = host_free, .now = host_now, .log = host_log, .kick = host_kick,
		.size = host_size, .grow = host_grow,
		.cache = (uint64_t)READ_ONCE(cache_mib) << 20,
	};
}

int vdk_host_setup(struct vdk_pool *p)
{
	int r;

	INIT_DELAYED_WORK(&p->work, background_work);
	INIT_WORK(&p->commit, vdk_commit_work);
	mutex_init(&p->message_lock);
	spin_lock_init(&p->lock);
	bio_list_init(&p->committing);
	bio_list_init(&p->starved);
	r = bioset_init(&p->bios, 16, 0, BIOSET_NEED_BVECS);
	if (r)
		return r;
	r = mempool_init_page_pool(&p->pages, 4, 0);
	if (r)
		goto err_bios;
	r = -ENOMEM;
	p->commit_wq = alloc_workqueue("vd_commit", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (!p->commit_wq)
		goto err_pages;
	p->io_wq = alloc_workqueue("vd_io", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (!p->io_wq)
		goto err_commit;
	return 0;

err_commit:
	destroy_workqueue(p->commit_wq);
err_pages:
	mempool_exit(&p->pages);
err_bios:
	bioset_exit(&p->bios);
	return r;
}

void vdk_host_teardown(struct vdk_pool *p)
{
	destroy_workqueue(p->io_wq); /* first: it has work for the other */
	destroy_workqueue(p->commit_wq);
	put_pid(p->reader);
	mutex_destroy(&p->message_lock);
	mempool_exit(&p->pages);
	bioset_exit(&p->bios);
}
