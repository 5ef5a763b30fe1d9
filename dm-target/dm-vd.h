/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's host of the engine: what its files share.
 *
 *   main.c           the module
 *   host.c           members, memory and clock for the engine; its worker
 *   io.c             the way of a bio through the engine; what waits for space
 *   suspend.c        a pool's volumes are suspended with it
 *   pool_target.c    target vd-pool: opens a pool; status
 *   message.c        its messages
 *   volume_target.c  target vd-volume: one volume of it
 *
 * A pool is held by each table that names it, its own and its volumes', and closed
 * with the last of them.  The members are held by the pool's own tables: when the last
 * of these goes before the volumes do (dmsetup remove --force), the pool has no members
 * any more and the volumes fail.
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

/* Whether writes wait for space: VD_POLICY_ERROR_IF_FULL of the pool tells, or the table does. */
enum vdk_full { VDK_FULL_AS_POOL, VDK_FULL_QUEUE, VDK_FULL_ERROR };

struct vdk_pool {
	struct list_head list;       /* vdk_pools_lock */
	unsigned int refs;           /* vdk_pools_lock: tables */
	unsigned int tables;         /* vdk_pools_lock: of these, the pool's own */
	struct mapped_device *md;    /* of the vd-pool device; vdk_pools_lock; NULL: its table is gone */
	struct dm_target *ti;        /* of its live table, for events; changed while no work is done */
	bool readonly;
	bool reads_only;             /* because its first table asks for that */
	struct vd_disk_holder self;  /* who has it open */
	struct vd_pool *engine;
	struct vd_host host;
	char name[128];
	uint8_t uuid[16];
	unsigned int sector_size;
	unsigned int nmembers;
	struct block_device *member[VD_MEMBERS_MAX]; /* by index in the pool; NULL: missing. After opening only
						      * added to, until all go (vdk_pools_lock) */

	struct bio_set bios;         /* ours: engine's I/O, and pieces of bios */
	mempool_t pages;             /* for blocks that are written in part */
	struct workqueue_struct *io_wq;     /* parked bios */
	struct workqueue_struct *commit_wq; /* flushes, and the engine's own work */
	struct delayed_work work;
	bool working;                /* work is to be queued; READ_ONCE */
	struct work_struct commit;
	spinlock_t lock;
	struct bio_list committing;  /* waiting for the next group commit; lock */

	/* message.c */
	struct mutex message_lock;   /* messages that look first, and then change */
	struct pid *reader;          /* who has VD_PIN_CHECK; message_lock */

	/* A full pool: io.c */
	struct bio_list starved;     /* writes that found no space; lock */
	unsigned int nstarved;       /* lock */
	bool refuses;                /* no more are taken in: lock */
	enum vdk_full full;          /* of the live table; changed while no work is done */
	uint64_t low_water;          /* blocks, of the live table; the same */
	bool ignores_discard;        /* volumes take none, of tables that are loaded now; the same */
	bool passes_down;            /* what is freed is discarded on the members, where the pool says so, too; the same */
	struct vdk_state_told {      /* what the last event told of; the worker's */
		enum vd_pool_mode mode;
		bool refuses, low;
		unsigned int passed; /* thresholds, a bit each */
	} told;
	uint64_t taken, total;       /* blocks, when it was looked last; the worker's */
	unsigned long looked;        /* jiffies, the same */

	/* Suspending: suspend.c */
	struct mutex hold_lock;      /* suspending, resuming; the list of volumes */
	struct list_head volumes;    /* struct vdk_volume; hold_lock */
	bool suspended;              /* lock */
	unsigned int users;          /* calls that may do I/O, other than bios; lock */
	wait_queue_head_t idle;      /* users is 0 */
};

/* One table of a vd-volume device. */
struct vdk_volume {
	struct vdk_pool *pool;
	struct vd_volume *vol;
	uint32_t id;
	struct dm_dev *pool_dev;
	struct dm_dev *base;         /* its base image; NULL: has none */
	uint64_t base_size;          /* bytes, when the table was loaded; behind it are zeros */
	struct dm_target *ti;
	struct mapped_device *md;
	struct list_head list;       /* in pool->volumes */
	bool live;                   /* its table has been resumed; READ_ONCE */
	bool held;                   /* md is suspended by the pool; pool->hold_lock */
	bool requeue;                /* being suspended without a flush: nothing waits for space; pool->lock */
};

enum vdk_state { VDK_IDLE, VDK_READ, VDK_WRITE };
/* Before each bio of a volume. */
struct vdk_bio {
	struct vd_io io;
	struct vdk_volume *v;
	struct work_struct work;
	enum vdk_state state;        /* what io's end is */
	unsigned long since;         /* jiffies: waits for space; 0: it has not yet */
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
/* Takes in what a member, or any, has become larger by; *grown, if given: it had. -ENOENT: no such member. */
int vdk_grow_member(struct vdk_pool *p, unsigned int m, bool *grown);
int vdk_grow_members(struct vdk_pool *p, bool *grown);
/* What a member answered, for the engine: to it these three tell of the pool (full, to be
 * begun again, unmapped), not of a disk. */
static inline int vdk_member_error(int r)
{
	return r == -ENOSPC || r == -EAGAIN || r == -ENODATA ? -EIO : r;
}
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
/* What waits for space begins again: there may be some, or it is refused now. */
void vdk_starved_retry(struct vdk_pool *p);
/* Ends those that have waited too long; from then on none is taken in. */
void vdk_starved_expire(struct vdk_pool *p);
/* Gives v's back to the device-mapper core, and those that come until vdk_requeue_end(). */
void vdk_requeue_begin(struct vdk_volume *v);
void vdk_requeue_end(struct vdk_volume *v);

/* ---- suspend.c ---- */
void vdk_suspend_init(struct vdk_pool *p);
/* Around what may do I/O for a pool, other than a bio.  False: it is suspended. */
bool vdk_pool_enter(struct vdk_pool *p) __must_check;
void vdk_pool_exit(struct vdk_pool *p);
/* Of the pool's device: no bio and no user is left on return, and none comes. */
void vdk_pool_hold(struct vdk_pool *p);
void vdk_pool_release(struct vdk_pool *p);
/* A volume's table comes and goes. */
void vdk_volume_join(struct vdk_volume *v);
void vdk_volume_leave(struct vdk_volume *v);

/* ---- pool_target.c, volume_target.c ---- */
extern struct target_type vdk_pool_target;
extern struct target_type vdk_volume_target;
void vdk_pool_put(struct vdk_pool *p);
/* 32 hexadecimal digits; hyphens are passed over. -EINVAL. */
int vdk_parse_id(const char *text, uint8_t id[16]) __must_check;

/* ---- message.c ---- */
/* As dm_message_fn: 1 when there is an answer in `result`. */
int vdk_message(struct vdk_pool *p, unsigned int argc, char **argv, char *result, unsigned int maxlen);
/* Ends the pin of a process that has ended. */
void vdk_reader_look(struct vdk_pool *p);

#endif
