/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Volumes in memory: their records, their layers of mapping, their requests.
 *
 *   active overlay -> frozen layer -> … -> bottom layer (a tree)
 *
 * A layer never changes once it is frozen, except that a checkpoint replaces it
 * by a bottom layer that says the same (I4).  Layers are shared between volumes
 * by pointer; a snapshot costs one freeze and one pointer.
 *
 * What each lock covers is told at each field.  "meta" is pool->volumes->lock.
 */
#ifndef VD_VOLUME_H
#define VD_VOLUME_H

#include "pool.h"
#include "region.h"

struct vd_layer {
	unsigned refs;            /* meta: volumes and layers that point here */
	bool bottom;
	uint32_t owner;           /* volume that was active when it was frozen */
	unsigned depth;           /* layers below */
	struct vd_layer *parent;  /* not bottom; read and replaced atomically */
	struct vd_root root;      /* bottom */
	struct vd_ov ov;          /* not bottom */
	/* the running checkpoint's, ckpt_lock */
	struct vd_layer *next, *fold_next;
	struct vd_layer *folded;  /* the bottom layer that will replace this one */
	struct vd_layer *blank;   /* which is made along with it: a fold of many must not want for memory (I7) */
	unsigned needed;
	bool marked;
};

/* Counts requests in two phases, so that those begun before a flip can be waited
 * for (I2).  Striped: a request leaves through the stripe it entered by. */
#define VD_GATE_STRIPES 8
struct vd_gate {
	struct { vd_atomic_t n[2]; char pad[48]; } stripe[VD_GATE_STRIPES];
	vd_atomic_t phase;
	vd_atomic_t draining;
	struct vd_spin lock;      /* a request that ends takes it where it may not sleep */
	bool flipped;             /* lock: a drain is under way, and others wait for it */
	struct vd_cond cond;
};
void vd_gate_init(struct vd_gate *g);
void vd_gate_fini(struct vd_gate *g);
void vd_gate_wake(struct vd_gate *g);
static inline void vd_gate_exit(struct vd_gate *g, uint16_t token)
{
	int64_t left = vd_atomic_add(&g->stripe[token >> 1].n[token & 1], -1);

	if (vd_unlikely(!left && vd_atomic_read(&g->draining)))
		vd_gate_wake(g);
}
static inline uint16_t vd_gate_enter(struct vd_gate *g)
{
	unsigned s = vd_port_cpu() % VD_GATE_STRIPES;

	for (;;) {
		unsigned phase = (unsigned)vd_atomic_read(&g->phase) & 1;
		uint16_t token = (uint16_t)(s << 1 | phase);

		vd_atomic_add(&g->stripe[s].n[phase], 1);
		/* Counted first, then looked again: a flip in between would not wait for us (I2). */
		if (vd_likely(((unsigned)vd_atomic_read(&g->phase) & 1) == phase))
			return token;
		vd_gate_exit(g, token);
	}
}
void vd_gate_flip(struct vd_gate *g);    /* the last flip must have drained */
bool vd_gate_drained(struct vd_gate *g); /* all that entered before the last flip have left */
void vd_gate_drain(struct vd_gate *g);   /* flip and wait; class B */
void vd_gate_await(struct vd_gate *g);   /* wait for the last flip to drain; class B */

/* Blocks reserved for a stretch of a volume (D2).  Within one region: */
#define VD_REGION_BLOCKS 16u /* 64 KiB, the smallest window */
#define VD_SET_WAYS 6u
#define VD_SETS 128u
struct vd_window_set { /* two lines of the cache: all that a write looks at */
	uint64_t region[VD_SET_WAYS];    /* v / VD_REGION_BLOCKS */
	vd_pblk_t p[VD_SET_WAYS];        /* of the region's block 0, modulo 2^64 if it lies elsewhere */
	uint16_t has[VD_SET_WAYS];       /* blocks of the region that are the window's; 0: no window */
	uint16_t left[VD_SET_WAYS];      /* those not given out */
	uint16_t turn;                   /* which goes when another comes */
};
_Static_assert(sizeof(struct vd_window_set) == 128, "vd_window_set");
#define VD_PAGE_SETS (VD_BLOCK / sizeof(struct vd_window_set))
/* Larger, or in two regions: */
#define VD_WINDOW_BLOCKS 1024u
#define VD_WIDE_MAX 64u
struct vd_window {
	struct vd_window *next; /* of its bucket */
	vd_vblk_t v;
	vd_pblk_t p;
	uint32_t len, used;
	struct vd_list lru;
	uint64_t map[VD_WINDOW_BLOCKS / 64]; /* bit: given out */
};
struct vd_windows {
	struct vd_window_set *set[VD_SETS / VD_PAGE_SETS]; /* pages, had when needed */
	struct vd_window *wide[32]; /* by v / VD_WINDOW_BLOCKS */
	struct vd_list lru;
	unsigned nwide;
	unsigned made;           /* goes up with each window */
	vd_vblk_t next_v;        /* where the last window ended: sequential if the next begins there */
	vd_pblk_t goal;          /* where the last window ended on disk */
	uint32_t grow;           /* length of the next sequential window */
	vd_pblk_t strip;         /* regions' next windows: a multiple of VD_REGION_BLOCKS */
	uint32_t strip_left, strip_next; /* and how many blocks the next strip should have */
	uint64_t run;            /* blocks on this member so far */
};
void vd_windows_init(struct vd_windows *w);
void vd_windows_fini(struct vd_volume *vol); /* all were dropped before */
/* Blocks for the volume's [e->v, e->v + want), where e was found, not its own: contiguous, got <= want. Class N;
 * -EWOULDBLOCK, then *p is a block whose group must be loaded first, or VD_PBLK_NONE. Under vol->map and claim_lock,
 * which is let go for a while. */
int vd_windows_alloc(struct vd_volume *vol, const struct vd_ext *e, unsigned want, vd_pblk_t *p, unsigned *got) __must_check;
/* Gives back all that was reserved and not given out. Class N. */
void vd_windows_drop(struct vd_volume *vol);

struct vd_record { /* immutable once published; meta */
	unsigned refs;
	struct vd_disk_volume d; /* root, mapped, last_snapshot, node head are not kept here */
};

#define VD_CLAIM_LISTS 64u

struct vd_volume {
	struct vd_pool *pool;
	uint32_t id;
	struct vd_list all;       /* meta */
	struct vd_list hash;      /* meta */
	bool is_dirty;            /* on that list; set under dirty_lock, read anywhere */
	struct vd_list dirty;     /* volumes->dirty_lock; on it: changed since the last cut */
	unsigned opens;           /* meta */
	struct vd_record *rec;    /* meta */
	struct vd_layer *spare;   /* meta: for the next freeze */

	struct vd_rwlock map;
	struct vd_ov active;      /* map */
	struct vd_layer *base;    /* map to read, meta + map to change */
	uint64_t last_snapshot;   /* map */
	uint64_t mapped;          /* map */
	uint64_t own;             /* of these, born after last_snapshot, unless that is 0; map */
	uint64_t reserved;        /* map */
	struct vd_promise promise; /* to it, of what the space layer has in sum; map to change (R2) */
	uint64_t size;            /* blocks; map */
	bool readonly, has_base;  /* map */

	uint64_t stamp;           /* of its entries among the regions; map to change, read anywhere */
	bool wide;                /* it may have wide ones; the same */
	struct vd_gate gate;      /* writes in place */
	vd_atomic_t settled;      /* those begun before last_snapshot became so much have ended (M5) */

	struct vd_spin claim_lock;
	struct vd_windows win;    /* claim_lock */
	struct vd_list claims[VD_CLAIM_LISTS]; /* of vd_io.claim, by their begin; claim_lock */
	struct vd_list cuts;      /* those of unmaps and resizes, of any length, in the order they came; claim_lock */
	unsigned nclaims, nleaves;/* claim_lock */
	struct vd_ov_leaf *leaves;/* spare ones, one for each claim (I12); under map to read with claim_lock, or to write */
	struct vd_cond claim_cond;
	unsigned claim_waiters;
	bool mixed;               /* some claims are older than last_snapshot = 0; map and claim_lock to set */

	/* as the last checkpoint wrote it; ckpt_lock */
	struct vd_root disk_root;
	struct vd_ptr disk_page;
	/* the running cut's; ckpt_lock */
	struct vd_layer *cut_base;
	struct vd_record *cut_rec;
	uint64_t cut_mapped, cut_snapshot, cut_own;
	struct vd_root cut_root;  /* what the fold made of it; of the index always the newest */
	struct vd_layer *cut_new; /* bottom layer for cut_root when it is not cut_base's own */
	struct vd_layer *blank;   /* for that; meta */
	struct vd_list cut;
	bool gone;                /* deletion has ended */
	bool dying;               /* counted in volumes->dying: a damaged pool may have one that is not */
};

#define VD_ID_BUCKETS 4096u
struct vd_volumes {
	struct vd_mutex lock;     /* "meta" */
	struct vd_list all;
	struct vd_list hash[VD_ID_BUCKETS];
	struct vd_spin dirty_lock;
	bool is_dirty;            /* on that list; set under dirty_lock, read anywhere */
	struct vd_list dirty;
	struct vd_rwlock seal;
	uint64_t next_id;         /* meta */
	uint64_t next_link;       /* meta */
	vd_atomic_t epoch;        /* raised under seal for writing; I1 */
	struct vd_root root;      /* published volumes tree; meta */
	struct vd_volume index;   /* names; its extents are not counted */
	vd_atomic_t overlay;      /* entries in all overlays */
	vd_atomic_t dying;        /* volumes being deleted */
	struct vd_gate gate;      /* all requests, for the reuse of blocks (D6) */
	struct vd_mutex work_lock;/* outermost: before ckpt_lock */
	bool sealed;              /* work_lock: a drain is under way */
	vd_atomic_t want;         /* checkpoint wanted */
	vd_atomic_t regain;       /* a volume may have become the only one to hold its blocks */
};

#define VD_OVERLAY_LOW 131072   /* entries: start a checkpoint (I19) */
#define VD_OVERLAY_HIGH 524288  /* entries: park writers */
#define VD_CHAIN_LONG 8         /* layers: start a checkpoint */

/* The name index: 16 consecutive keys a bucket, all looked at. */
#define VD_INDEX_BUCKET 16u
#define VD_INDEX_ATTENTION (1ull << 50) /* | id: volume is pending or being deleted */

/* ---- map.c ---- */
int vd_volume_setup(struct vd_pool *pool, struct vd_volume *vol, uint32_t id) __must_check;
void vd_volume_teardown(struct vd_volume *vol); /* without its base */
/* Where v would be if it lay beside a block of its own in [start, start + len):
 * VD_PBLK_NONE when there is none, or none that can be told without reading. Under vol->map. */
vd_pblk_t vd_map_beside(struct vd_volume *vol, vd_vblk_t v, vd_vblk_t start, uint64_t len);
/* Look-up through all layers, under vol->map; v is below VD_VBLK_END. */
int vd_map_find(struct vd_volume *vol, vd_vblk_t v, unsigned flags, struct vd_ext *out) __must_check;
/* The same from outside the lock, reading what is missing. Class B. */
int vd_map_find_wait(struct vd_volume *vol, vd_vblk_t v, struct vd_ext *out) __must_check;
/* The tree below all layers. */
void vd_map_root(struct vd_volume *vol, struct vd_root *root);
/* True: no overlay covers [v, v + *len), only the tree at *root. Within volumes->gate. */
bool vd_map_gap(struct vd_volume *vol, vd_vblk_t v, uint64_t *len, struct vd_root *root);
unsigned vd_permille(uint64_t n, uint64_t all); /* report.c */
int vd_map_mapped(struct vd_volume *vol, vd_vblk_t v, uint64_t len, uint64_t *mapped) __must_check;
/* Puts e into the active overlay, under vol->map for writing; seq of its record, for what it displaces;
 * 0 in replay: what was displaced then may have been used again since. */
void vd_map_put(struct vd_volume *vol, const struct vd_ext *e, uint64_t seq, struct vd_ov_leaf **spare);
/* Its deletion goes on at the next checkpoint. */
void vd_volume_dying(struct vd_volume *vol);
void vd_volume_dirty(struct vd_volume *vol);
static inline bool vd_volume_is_dirty(const struct vd_volume *vol)
{
	return __atomic_load_n(&vol->is_dirty, __ATOMIC_RELAXED);
}
/* Takes it off the list; dirty_lock, or seal for writing. */
static inline void vd_volume_undirty(struct vd_volume *vol)
{
	vd_list_del(&vol->dirty);
	__atomic_store_n(&vol->is_dirty, false, __ATOMIC_RELAXED);
}
/* The volume is the sole owner of all it maps: last_snapshot becomes 0 (own.c). */
void vd_map_own(struct vd_volume *vol);
/* Waits until the writes in place that began before the last snapshot have ended. Class B. */
void vd_volume_settle(struct vd_volume *vol);
/* Claims [v, end of all) through io, waiting for what is claimed there. Class B. */
void vd_claim_range(struct vd_volume *vol, struct vd_io *io, vd_vblk_t v, vd_vblk_t end);
void vd_claim_drop(struct vd_volume *vol, struct vd_io *io);
void vd_claims_idle(struct vd_volume *vol); /* gives back what was kept for the next claims. Class N */
uint64_t vd_meta_need(struct vd_pool *pool); /* blocks that the next checkpoint may take, beyond the reserve */
typedef bool (*vd_room_fn)(struct vd_pool *pool, struct vd_volume *vol);
/* Class B: frees what can be freed and grows, until it is enough. -ENOSPC: it is not.  It waits for
 * the requests that are under way. */
int vd_space_settle(struct vd_pool *pool, struct vd_volume *vol, vd_room_fn enough) __must_check;
/* The same for data, and sets the mode. -ENOSPC: still nothing for vol (NULL: for one without a reservation). */
int vd_space_make(struct vd_pool *pool, struct vd_volume *vol) __must_check;

/* ---- region.c ---- */
void vd_regions_init(struct vd_pool *pool); /* meta; when the first volume is opened */
void vd_regions_fini(struct vd_pool *pool);
static inline struct vd_regions *vd_regions(const struct vd_volume *vol)
{
	return __atomic_load_n(&vol->pool->regions, __ATOMIC_ACQUIRE);
}
/* What vd_map_find() gave; under the same vol->map. */
void vd_regions_found(struct vd_volume *vol, const struct vd_ext *e);
/* e is the volume's new map there.  Under vol->map for writing. */
void vd_regions_changed(struct vd_volume *vol, const struct vd_ext *e);
/* What is known of the volume counts no more: it is new, was shared, or much of it changed.
 * Under vol->map for writing. */
void vd_regions_forget(struct vd_volume *vol);

/* ---- reserve.c ---- */
/* After any change of the volume's counts or reservation, under seal (or meta) and map for writing. */
void vd_reserve_follow(struct vd_volume *vol);
/* The same after n blocks were mapped anew, or `own` of its own unmapped. */
static inline void vd_reserve_wrote(struct vd_volume *vol, uint64_t n)
{
	vol->own += n;
	if (vd_unlikely(vol->reserved))
		vd_reserve_follow(vol);
}
/* Blocks of a range that were the volume's own when last_snapshot was `last`. */
struct vd_owned { uint64_t n, last; };
void vd_reserve_freed(struct vd_volume *vol, const struct vd_owned *own);
/* What vd_reserve_freed() is to be told when [v, v + len), of which `freed` blocks are mapped, is
 * unmapped.  The range is claimed; a snapshot may come in between. Class B. */
int vd_reserve_count(struct vd_volume *vol, vd_vblk_t v, uint64_t len, uint64_t freed, struct vd_owned *own) __must_check;
/* Blocks that a write to vol may take, and leave the reserve, what the next checkpoint may need and
 * what is promised to others.  vol NULL: one without a reservation. Class N. */
int64_t vd_reserve_room(struct vd_pool *pool, const struct vd_volume *vol);
/* Before a change that needs metadata and no data: unmapping of vol, or (NULL) a snapshot, a new
 * volume.  It may be made in a full pool.  -ENOSPC: not any more, though all that was given back is
 * free now. Class B. */
int vd_reserve_admit(struct vd_pool *pool, struct vd_volume *vol) __must_check;
void vd_reserve_init(struct vd_volume *vol); /* of a record just read */
uint64_t vd_reserve_promise(uint64_t reserved, uint64_t own, uint64_t mapped); /* blocks kept for it */
uint64_t vd_reserve_own(const struct vd_volume *vol); /* map, or seal for writing */
uint64_t vd_reserve_left(const struct vd_volume *vol); /* of its reservation, what it may still write; the same */
uint64_t vd_reserve_most(struct vd_pool *pool); /* that a new volume could have reserved */
/* Keeps back what would be promised more if the volume had that reservation and owned so much;
 * -ENOSPC.  *held goes to vd_space_unhold() when it is done, or not. */
int vd_reserve_hold(struct vd_volume *vol, uint64_t reserved, uint64_t own, uint64_t mapped, uint64_t *held) __must_check;
/* After a change failed with r, all locks let go: 0 when it is worth another try, since there
 * is journal room again, or space was given back (which is tried once: *made). Class B. */
int vd_change_again(struct vd_pool *pool, int r, bool *made) __must_check;

/* ---- own.c ---- */
/* Looks through volumes in memory that had snapshots, and are open or have a reservation, for
 * those that are sole owners of all they map by now, so that they are written in place again
 * and no more is kept for them than they need. Class B. */
int vd_own_regain(struct vd_pool *pool) __must_check;

/* ---- layer handling, meta held ---- */
struct vd_layer *vd_layer_bottom(struct vd_pool *pool, const struct vd_root *root); /* refs 1; NULL: no memory */
void vd_layer_put(struct vd_pool *pool, struct vd_layer *l);
int vd_layer_spare(struct vd_volume *vol) __must_check; /* makes vol->spare */
void vd_layer_freeze(struct vd_volume *vol);            /* map and seal for writing; uses vol->spare unless active is empty */

/* ---- checkpoint.c, ckpt_lock held ---- */
typedef int (*vd_super_fn)(struct vd_pool *pool, struct vd_disk_super *super, void *arg);
/* Takes a checkpoint whether or not anything changed.  `edit` may change the superblock, and
 * counts of blocks with it; it is called before the fold, when an error ends the pool as one
 * of the fold does, and memory is not a reason for one.  An error before that leaves all as
 * it was, and the mode writable. */
int vd_checkpoint_locked(struct vd_pool *pool, vd_super_fn edit, void *arg) __must_check;
int vd_members_flush(struct vd_pool *pool) __must_check; /* all of them */
/* Gives the members that are behind this superblock, one by one, durably. ckpt_lock. */
int vd_super_level(struct vd_pool *pool, struct vd_disk_super *super) __must_check;
int vd_super_write(struct vd_pool *pool, struct vd_disk_super *super) __must_check; /* durable on return */

/* ---- volume.c ---- */
int vd_volumes_replay(struct vd_pool *pool, uint64_t seq, const struct vd_disk_rec *rec) __must_check;
int vd_volumes_recover(struct vd_pool *pool) __must_check; /* after replay: pending ones go, deletions go on */

/* ---- record.c ---- */
int vd_volumes_init(struct vd_pool *pool) __must_check;
void vd_volumes_fini(struct vd_pool *pool);
int vd_volumes_load(struct vd_pool *pool, uint32_t id, struct vd_volume **out) __must_check; /* meta; deleting ones too */
void vd_volumes_evict(struct vd_pool *pool); /* meta */
void vd_record_put(struct vd_pool *pool, struct vd_record *rec);
void vd_volume_forget(struct vd_pool *pool, struct vd_volume *vol); /* meta: out of memory */

#endif
