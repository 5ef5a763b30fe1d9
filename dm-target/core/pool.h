/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The pool as the engine's own files see it.  vd.h is what others see.
 *
 * Locks, taken in this order (never the other way round):
 *
 *   work_lock   mutex     background work and making space, one at a time
 *   ckpt_lock   mutex     a checkpoint; counts, trees, dirty nodes
 *   meta_lock   mutex     names, records, open volumes: create, delete, snapshot …
 *   seal        rwlock    read: a change of any overlay; write: a cut through all of them
 *   vol->map    rwlock    a volume's overlay and layers
 *   vol->win    spin      a volume's allocation windows
 *   space, journal and cache locks: inner, their files' own
 *
 * ckpt_lock is held across I/O; meta_lock is too (records are durable on return)
 * but a checkpoint takes it only for the moment of its cut, so that snapshots do
 * not wait for a fold.
 */
#ifndef VD_POOL_H
#define VD_POOL_H

#include "vd.h"
#include "node.h"
#include "overlay.h"
#include "space.h"
#include "tree.h"
#include "journal.h"

struct vd_member {
	uint8_t uuid[16];
	uint64_t blocks; /* grows only, under ckpt_lock */
	bool missing; /* host answers -ENODEV, its superblock is older than the pool's, or not written yet */
	bool is_short;/* it has fewer blocks than that: counts as missing, but what is there is read */
	uint64_t has; /* if is_short: so many blocks */
	bool behind;  /* it has not the pool's last superblock: gets it before any other is written; ckpt_lock */
};

struct vd_pool {
	struct vd_host host;
	unsigned flags;               /* enum vd_open_flags */
	vd_atomic_t mode;             /* enum vd_pool_mode; only ever set by vd_pool_set_mode() */
	vd_atomic_t damage;           /* metadata was met that is lost in every copy; goes into the next superblock */
	vd_atomic_t unreadable;       /* since the running fold began: 1 no copy of `suspect` could be read, 2 it is being set */
	struct vd_ptr suspect;
	bool known_damage;            /* fixed after open: the superblock tells of damage */
	bool rolled_back;             /* fixed after open: an older superblock had to be taken (P3) */
	uint64_t id;                  /* first eight bytes of the uuid, as in every node */
	struct vd_disk_super *super;  /* last durable superblock; ckpt_lock */
	struct vd_disk_holder self;
	unsigned nmembers;            /* grows only; read anywhere */
	struct vd_member member[VD_MEMBERS_MAX];

	struct vd_mutex ckpt_lock;
	uint64_t ckpt_gen;            /* generation of the running checkpoint, or of the next */
	struct vd_root space_root;    /* as of the running checkpoint; ckpt_lock for changes */
	struct vd_root volumes_root;
	vd_atomic_t groups;           /* block groups of all members */
	vd_atomic_t pinned[VD_PINS];  /* generation of the oldest checkpoint that this reader may need; 0: none.  Set under work_lock */
	uint64_t reserve_blocks;      /* fixed after open, raised by vd_pool_add and vd_pool_grow */

	struct vd_memory *memory;
	struct vd_cache *cache;
	struct vd_space *space;
	struct vd_journal *journal;
	struct vd_volumes *volumes;   /* record.c */
	struct vd_regions *regions;   /* NULL: not needed yet, or no memory; set once */
	vd_atomic_t stamps;           /* of volumes, for their regions: so many were given */
};

/* memory.c.  init: class B, -ENOMEM; fini: after all else has freed its own. */
int vd_memory_init(struct vd_pool *pool) __must_check;
void vd_memory_fini(struct vd_pool *pool);
/* Between true and false what the host has no memory for comes from the place kept for
 * checkpoints. ckpt_lock. */
void vd_memory_open(struct vd_pool *pool, bool open);
bool vd_memory_is_open(struct vd_pool *pool); /* Class N. */
bool vd_memory_low(struct vd_pool *pool, size_t size); /* half of the pieces for such sizes are taken. Class N. */
void *vd_memory_last(struct vd_pool *pool, size_t size); /* NULL: no. Class N. */
bool vd_memory_back(struct vd_pool *pool, void *p);      /* false: not from there. Class N. */

/* Class B. */
static inline void *vd_alloc(struct vd_pool *pool, size_t size)
{
	return pool->host.alloc(pool->host.ctx, size, VD_ALLOC_WAIT);
}
/* What a fold may want, nodes and groups: nobody else takes from the place that is kept for
 * it, and for it the cache gives up what nobody holds. Not under a short lock. */
void *vd_alloc_must(struct vd_pool *pool, size_t size); /* node.c */
static inline void *vd_zalloc_must(struct vd_pool *pool, size_t size)
{
	void *p = vd_alloc_must(pool, size);
	if (p)
		memset(p, 0, size);
	return p;
}
static inline void *vd_zalloc(struct vd_pool *pool, size_t size)
{
	void *p = vd_alloc(pool, size);
	if (p)
		memset(p, 0, size);
	return p;
}
/* Below 2^32.  Multiplied by 2^64 / golden ratio (Knuth, vol. 3, 6.4): neighbours are far apart. */
static inline uint64_t vd_hash(uint64_t x)
{
	return x * 0x9e3779b97f4a7c15ull >> 32;
}
static inline void vd_free(struct vd_pool *pool, void *p)
{
	if (p && !vd_memory_back(pool, p))
		pool->host.free(pool->host.ctx, p);
}

/* Of the reserve: so much is for changes in a full pool that cost metadata only (reserve.c, R5). */
static inline uint64_t vd_change_part(const struct vd_pool *pool)
{
	return pool->reserve_blocks / 2;
}

static inline void vd_log(struct vd_pool *pool, int level, const char *msg, uint64_t a, uint64_t b)
{
	pool->host.log(pool->host.ctx, level, msg, a, b);
}
static inline enum vd_pool_mode vd_pool_mode(const struct vd_pool *pool)
{
	return (enum vd_pool_mode)vd_atomic_read(&pool->mode);
}
static inline bool vd_pool_writable(const struct vd_pool *pool)
{
	return vd_pool_mode(pool) < VD_MODE_READONLY;
}
/* Class N. */
static inline bool vd_pool_pinned(const struct vd_pool *pool)
{
	for (unsigned i = 0; i < VD_PINS; i++)
		if (vd_atomic_read(&pool->pinned[i]))
			return true;
	return false;
}
static inline uint64_t vd_member_blocks(const struct vd_pool *pool, unsigned m)
{
	return __atomic_load_n(&pool->member[m].blocks, __ATOMIC_RELAXED);
}
/* Metadata that no copy has was met: who looked for it gets the error, the rest goes on,
 * and the next opening is read-only and says what is lost. Class N. */
static inline void vd_pool_damage(struct vd_pool *pool)
{
	if (vd_atomic_read(&pool->damage))
		return;
	vd_atomic_set(&pool->damage, 1);
	if (pool->host.kick)
		pool->host.kick(pool->host.ctx);
}
/* No copy could be believed, and trying again is no use. */
static inline bool vd_is_damage(int r)
{
	return r == -EBADMSG || r == -EUCLEAN;
}
/* So too what is on members that are missing, or that they do not give. */
static inline bool vd_is_unreadable(int r)
{
	return vd_is_damage(r) || r == -EIO || r == -ENODEV;
}
/* To a worse mode only, except that OUT_OF_SPACE may go back to RW. Class N. */
void vd_pool_set_mode(struct vd_pool *pool, enum vd_pool_mode mode);
void vd_pool_room(struct vd_pool *pool); /* OUT_OF_SPACE ends, if there is room for data. Class N. */
/* Asks the host to call vd_pool_work(). Class N. */
void vd_pool_kick(struct vd_pool *pool);
/* A checkpoint is wanted soon (journal half full, overlay large, space short); kicks. Class N. */
void vd_pool_want_checkpoint(struct vd_pool *pool);
bool vd_pblk_valid(const struct vd_pool *pool, vd_pblk_t p, uint64_t len); /* within a member, past its system blocks */

#endif
