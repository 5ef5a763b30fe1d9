/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Space as its own four files see it: space.c keeps groups and their counts,
 * space_fold.c writes them, space_alloc.c decides who gets which block, and
 * space_stage.c when a block is free again.
 *
 * Locks, outer to inner:
 *   ckpt_lock        the caller's: counts, the space tree, dirty and changed,
 *                    metadata windows, and the removal of a group from memory
 *   space->load_lock mutex: at most one group is being read; cursors of refill
 *   space->lock      spin: hash, busy bits, stages, classes, totals.  Counts are
 *                    changed under ckpt_lock *and* this, so either is enough to read
 *
 * A group's memory stays while the spin lock, or ckpt_lock, or load_lock is held.
 */
#ifndef VD_SPACE_PRIV_H
#define VD_SPACE_PRIV_H

#include "pool.h"

#define SPACE_HASH 4096u
#define SPACE_GROUPS_MAX 4096u     /* loaded; beyond, clean ones are dropped */
#define SPACE_CLASSES 14u          /* log2 of the longest free run: 1 .. 8192 */
#define SPACE_WORDS (VD_GROUP_BLOCKS / 64)
#define SPACE_PARTS_MAX 8u
#define SPACE_COUNT_MAX 0x7fffffffu
#define SPACE_WINDOW 64u           /* blocks of metadata reserved at once */
#define SPACE_WINDOW_POOR 16u      /* a shorter one is not a good one */
#define SPACE_POOR 256u            /* a shorter free run is not a good one */
#define SPACE_POOR_CREDIT 32u      /* poor answers, or windows, between two readings of groups: */
#define SPACE_POOR_CREDIT_MAX 4096u /* answers, when reading has found nothing good for long */
#define SPACE_FAILURES 8u          /* groups that could not be read, in one refill */
#define SPACE_LOW 4096u            /* free blocks a member should have in memory */
#define SPACE_PAIRS_GROUPS 64u     /* of a member that are brought in to see whether there is room for pairs */
#define SPACE_FLOOR_MAX 16384u     /* free blocks a member keeps from data, at most */

/* On their way from "count fell to 0" to free (D6). */
enum space_stage {
	STAGE_FREED,   /* by the running checkpoint */
	STAGE_RIPE,    /* that checkpoint is durable */
	STAGE_SEALED,  /* a drain is under way that began after */
	STAGES,
};

enum space_form { FORM_ABSENT, FORM_UNIFORM, FORM_PAGES }; /* in the space tree */

struct space_group {
	struct space_group *next;  /* hash chain */
	struct space_member *m;
	uint64_t nr;               /* pblk >> VD_GROUP_SHIFT */
	unsigned exist;            /* blocks before the member's end, 1..8192 */
	unsigned used;             /* of those, with count > 0 */
	unsigned free;             /* busy bits clear */
	unsigned longest;          /* no free run is longer than this */
	bool dirty;                /* counts differ from the space tree */
	bool changed;              /* by the running checkpoint: durable root has other counts */
	bool recent;               /* for the clock */
	bool meta;                 /* set apart for metadata: in no class */
	/* counts: one value, or an array of uint8_t or uint32_t */
	uint8_t csize;             /* 0, 1, 4 */
	uint32_t uniform;
	void *counts;
	/* form in the space tree, as of the running checkpoint */
	enum space_form form;
	uint32_t form_value;       /* UNIFORM */
	unsigned width, parts;     /* PAGES */
	uint64_t plain_gen;        /* checkpoint that last wrote it as ABSENT or UNIFORM */
	struct vd_ptr page[SPACE_PARTS_MAX];
	uint32_t aux[SPACE_PARTS_MAX];

	struct vd_list class_link, clock_link, dirty_link, changed_link;
	struct vd_list stage_link[STAGES];
	uint64_t *stage[STAGES];   /* bitmaps, NULL when empty */
	unsigned staged[STAGES];   /* bits set */
	uint64_t busy[SPACE_WORDS];
};

struct space_member {
	unsigned index;
	uint64_t groups;           /* of this member, the last one perhaps partial */
	uint64_t free;             /* free blocks of its groups in memory, window included */
	struct space_group *cur;   /* where data goes */
	unsigned cur_at;           /* and from which block of it on */
	struct space_group *meta;  /* where metadata goes */
	vd_pblk_t window;          /* metadata: next block, and how many are left */
	unsigned window_left;
	unsigned poor_windows;     /* short windows allowed before more groups are read */
	struct vd_list class[SPACE_CLASSES]; /* groups with free blocks, by log2(longest) */
	/* refill's way round the member; load_lock */
	uint64_t cursor;           /* group within the member */
	uint64_t lap_found;        /* groups with free blocks loaded in this lap */
	uint64_t lap_evicted;      /* value of evicted when it began */
	bool slow;                 /* this lap looks at every group, for gaps between full ones */
	bool dry;                  /* all its free blocks are in memory */
	uint64_t evicted;          /* groups with free blocks dropped from memory */
};

struct space_range { uint64_t p_len; uint64_t seq; }; /* pblk:48 | length-1:16 */
#define SPACE_CHUNK_MAX 254u
struct space_chunk { /* 4 KiB of released ranges */
	struct space_chunk *next;
	uint64_t n;
	struct space_range e[SPACE_CHUNK_MAX];
};
_Static_assert(sizeof(struct space_chunk) <= VD_BLOCK, "space_chunk");

struct vd_space {
	struct vd_mutex load_lock;
	struct vd_spin lock;
	unsigned nmembers;
	unsigned floor_shift;      /* ceil(log2(nmembers)) */
	struct space_member *member[VD_MEMBERS_MAX];
	uint64_t total;            /* blocks of all members */
	uint64_t used;             /* blocks with count > 0 */
	vd_atomic_t meta;          /* of those, metadata's; told only */
	int64_t free;              /* not busy, in memory or not, windows included; changed by space_add() */
	int64_t joining;           /* of free, of a member that no superblock tells of yet: nobody's; the same */
	vd_atomic_t promised, held; /* of free, to volumes with reservations; written under the lock */
	uint64_t loaded;           /* free blocks in memory, windows included */
	uint64_t staged[STAGES];
	/* journal's place, never free whatever the counts say */
	unsigned jmember[VD_JOURNAL_COPIES];
	uint64_t jstart, jblocks;

	struct vd_root root;       /* durable: groups not in memory are as it says */

	unsigned ngroups, max_groups;
	struct vd_list clock, dirty, changed, stage[STAGES];
	struct space_chunk *released, *released_last;

	unsigned rotor;            /* member whose turn it is for data */
	unsigned pair;             /* member whose turn it is for metadata */
	unsigned poor;             /* poor answers allowed before refill is asked */
	unsigned credit;           /* the last that refill allowed */
	bool found;                /* a good run, since refill was asked last */
	uint64_t unreadable;       /* number of the last group that vd_space_load() could not read */
	bool warned_copy, warned_leak;
	int bad;                   /* why a group was passed over, or 0; load_lock */
	struct space_group *hash[SPACE_HASH];
};

/* Lock held.  To what vd_space_room() reads without it. */
static inline void space_add(int64_t *total, int64_t n)
{
	__atomic_store_n(total, *total + n, __ATOMIC_RELAXED);
}

/* ---- bits -------------------------------------------------------------- */

static inline unsigned space_popcount(uint64_t w)
{
	w -= (w >> 1) & 0x5555555555555555ull;
	w = (w & 0x3333333333333333ull) + ((w >> 2) & 0x3333333333333333ull);
	w = (w + (w >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return (unsigned)((w * 0x0101010101010101ull) >> 56);
}
static inline bool space_bit(const uint64_t *bits, unsigned i)
{
	return bits[i >> 6] >> (i & 63) & 1;
}
/* First bit in [i, end) that is as `set` says; end: none. */
static inline unsigned space_bit_next(const uint64_t *bits, unsigned i, unsigned end, bool set)
{
	while (i < end) {
		uint64_t w = (set ? bits[i >> 6] : ~bits[i >> 6]) >> (i & 63);

		if (w) {
			i += (unsigned)__builtin_ctzll(w);
			return vd_min(i, end);
		}
		i = (i | 63) + 1;
	}
	return end;
}
/* How many bits right below i are clear. */
static inline unsigned space_bits_clear_before(const uint64_t *bits, unsigned i)
{
	unsigned at = i;

	while (at) {
		uint64_t w = bits[(at - 1) >> 6] << (63 - ((at - 1) & 63));

		if (w)
			return i - at + (unsigned)__builtin_clzll(w);
		at = (at - 1) & ~63u;
	}
	return i;
}
/* Makes n bits from i as `set` says; gives how many changed. */
static inline unsigned space_bits_fill(uint64_t *bits, unsigned i, unsigned n, bool set)
{
	unsigned changed = 0, end = i + n;

	while (i < end) {
		unsigned last = vd_min(end, (i | 63) + 1);
		uint64_t mask = (~0ull >> (64 - (last - i))) << (i & 63);
		uint64_t *w = &bits[i >> 6];

		changed += space_popcount(set ? ~*w & mask : *w & mask);
		*w = set ? *w | mask : *w & ~mask;
		i = last;
	}
	return changed;
}
static inline unsigned space_log2(unsigned x) /* x > 0 */
{
	return 31 - (unsigned)__builtin_clz(x);
}

static inline uint64_t space_nr(vd_pblk_t p) { return p >> VD_GROUP_SHIFT; }
static inline vd_pblk_t space_first(const struct space_group *g) { return g->nr << VD_GROUP_SHIFT; }
static inline unsigned space_in(vd_pblk_t p) { return (unsigned)(p & (VD_GROUP_BLOCKS - 1)); }
static inline uint64_t space_member_nr(unsigned m) { return (uint64_t)m << (VD_MEMBER_SHIFT - VD_GROUP_SHIFT); }
static inline uint32_t space_count_at(const struct space_group *g, unsigned i)
{
	if (g->csize == 0)
		return g->uniform;
	return g->csize == 1 ? ((const uint8_t *)g->counts)[i] : ((const uint32_t *)g->counts)[i];
}

/* ---- space.c ------------------------------------------------------------ */

/* Lock held. NULL: not in memory. */
struct space_group *space_find(const struct vd_space *s, uint64_t nr);
/* Group nr into memory. `ckpt`: the caller holds ckpt_lock, so that others may be
 * dropped for it. Without: load_lock is held already, and the group is good until
 * it is let go. Class B. */
int space_load(struct vd_pool *pool, uint64_t nr, bool ckpt, struct space_group **out) __must_check;
int space_load_locked(struct vd_pool *pool, uint64_t nr, bool ckpt, struct space_group **out) __must_check;
/* Drops clean groups that are more than max_groups. ckpt_lock. */
void space_shrink(struct vd_pool *pool);
/* As vd_ptree_next on the durable root; load_lock held. */
int space_durable_next(struct vd_pool *pool, uint64_t key, bool with_aux, struct vd_slot *out) __must_check;
/* [p, p+len) is within a member; `system`: also where labels and the journal are. */
bool space_valid(const struct vd_space *s, struct vd_pool *pool, vd_pblk_t p, uint64_t len, bool system);
bool space_is_system(const struct vd_space *s, vd_pblk_t p, uint64_t len);
/* Lock held: puts g into the class that its free runs belong to. */
void space_classify(struct space_group *g);
/* Lock held: busy bits and the totals that follow. Gives how many changed. */
unsigned space_busy_set(struct vd_space *s, struct space_group *g, unsigned i, unsigned n);
unsigned space_busy_clear(struct vd_space *s, struct space_group *g, unsigned i, unsigned n);

/* ---- space_fold.c ------------------------------------------------------- */

unsigned space_parts(unsigned width); /* pages of a group whose counts have so many bits; 0: no such width */
uint64_t space_key(const struct space_group *g, unsigned parts, unsigned part); /* in the space tree */

/* ---- space_alloc.c ------------------------------------------------------ */

int space_member_add(struct vd_pool *pool, struct vd_space *s) __must_check; /* the next one */
void space_windows_release(struct vd_pool *pool);

/* ---- space_stage.c ------------------------------------------------------ */

/* Lock held.  bitmap of the stage exists, or -ENOMEM. */
int space_stage_ready(struct vd_pool *pool, struct space_group *g, enum space_stage st, int how) __must_check;
unsigned space_stage_set(struct vd_space *s, struct space_group *g, enum space_stage st, unsigned i, unsigned n);
void space_stage_clear(struct vd_pool *pool, struct space_group *g, enum space_stage st, unsigned i, unsigned n);
void space_stage_fini(struct vd_pool *pool);

#endif
