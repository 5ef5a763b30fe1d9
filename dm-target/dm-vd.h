/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's host of the engine: what its files share.
 *
 *   main.c           the module
 *   host.c           members, memory and clock for the engine; its worker
 *   io.c             the way of a bio through the engine
 *   pool_target.c    target vd-pool: opens a pool; messages, status
 *   volume_target.c  target vd-volume: one volume of it
 *
 * A pool is held by each table that names it, its own and its volumes', and closed
 * with the last of them.  Every such table also holds the members, so that they stay
 * while a bio may be on its way.
 *
 * Contexts.  Engine calls of class N are made in map(), where a bio is submitted, and
 * in end_io(), which may be interrupt context.  Class B calls are made by work items
 * and in ioctls, always with I/O kept out of memory reclaim (vdk_noio).
 */
#ifndef DM_VD_H
#define DM_VD_H

#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/mempool.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "core/vd.h"

#define DM_MSG_PREFIX "vd"

#define VDK_MAX_IO_SECTORS (VD_IO_MAX_BYTES >> SECTOR_SHIFT)
#define VDK_WINDOW_BYTES (64u << 10)

struct vdk_pool {
	struct list_head list;       /* vdk_pools_lock */
	unsigned int refs;           /* vdk_pools_lock: tables */
	struct mapped_device *md;    /* of the vd-pool device; vdk_pools_lock; NULL: its table is gone */
	struct dm_target *ti;        /* of its live table, for events; changed while no work is done */
	enum vd_pool_mode told;      /* the mode that an event told of; the worker's */
	bool readonly;
	struct vd_pool *engine;
	struct vd_host host;
	char name[128];
	unsigned int sector_size;
	unsigned int nmembers;
	struct block_device *member[VD_MEMBERS_MAX]; /* by index in the pool; NULL: missing. Fixed after opening */

	struct bio_set bios;         /* ours: engine's I/O, and pieces of bios */
	mempool_t pages;             /* for blocks that are written in part */
	struct workqueue_struct *io_wq;     /* parked bios */
	struct workqueue_struct *commit_wq; /* flushes, and the engine's own work */
	struct delayed_work work;
	bool working;                /* work is to be queued; READ_ONCE */
	struct work_struct commit;
	spinlock_t commit_lock;
	struct bio_list committing;  /* waiting for the next group commit; commit_lock */
};

struct vdk_volume {
	struct vdk_pool *pool;
	struct vd_volume *vol;
	uint32_t id;
	struct dm_dev *pool_dev;
	unsigned int nmembers;
	struct dm_dev *member[];     /* held by this table; order means nothing */
};

enum vdk_state { VDK_IDLE, VDK_READ, VDK_WRITE };
/* Before each bio of a volume. */
struct vdk_bio {
	struct vd_io io;
	struct vdk_volume *v;
	struct work_struct work;
	enum vdk_state state;        /* what io's end is */
	bool fua;                    /* a commit is due when its data is written */
	bool returned;               /* end_io() has seen it and kept it */
};

/* ---- main.c ---- */
extern struct mutex vdk_pools_lock;
extern struct list_head vdk_pools;

/* ---- host.c ---- */
/* Fills in p->host; the members are looked up in p->member[]. */
void vdk_host_init(struct vdk_pool *p);
/* Bios, pages and queues; starts nothing. */
int vdk_host_setup(struct vdk_pool *p) __must_check;
void vdk_host_teardown(struct vdk_pool *p);
/* Background work goes on, or has stopped on return. */
void vdk_host_start(struct vdk_pool *p);
void vdk_host_stop(struct vdk_pool *p);
/* One segment, waited for. `in` and `len`: of the page. */
int vdk_page_io(struct vdk_pool *p, struct block_device *bdev, blk_opf_t opf, sector_t sector, struct page *page,
		unsigned int in, unsigned int len) __must_check;

static inline struct block_device *vdk_member(const struct vdk_pool *p, vd_pblk_t pblk)
{
	return p->member[VD_PBLK_MEMBER(pblk) % VD_MEMBERS_MAX];
}
static inline sector_t vdk_sector(vd_pblk_t pblk, uint32_t offset)
{
	return (sector_t)VD_PBLK_BLOCK(pblk) * VD_SECTORS_PER_BLOCK + (offset >> SECTOR_SHIFT);
}

/* ---- io.c ---- */
int vdk_map(struct vdk_volume *v, struct vdk_bio *b, struct bio *bio, uint64_t off);
int vdk_end_io(struct vdk_bio *b, struct bio *bio, blk_status_t *error);
void vdk_commit_work(struct work_struct *work);

/* ---- pool_target.c, volume_target.c ---- */
extern struct target_type vdk_pool_target;
extern struct target_type vdk_volume_target;
void vdk_pool_put(struct vdk_pool *p);

#endif
