/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Where the regions of volumes are, for those who look without a lock (D7).
 *
 * An entry tells of sixteen stretches of a volume that follow each other, of one block or
 * of 64 blocks each (then it is wide): those with a bit in the lower half of `bits` are
 * mapped, at p + their distance from the first; those with one in the upper half may be
 * written in place, too.  The table is the pool's, has a fixed size, and forgets: what it
 * does not know is looked up under vol->map, and told to it.
 */
#ifndef VD_REGION_H
#define VD_REGION_H

#include "host.h"

#define VD_REGION_BITS 16u
#define VD_WIDE_SHIFT 6u

struct vd_region {
	uint32_t seq, bits;  /* seq odd: it is being changed */
	uint64_t stamp, at;
	vd_pblk_t p;
};
struct vd_regions {
	uint64_t mask;       /* entries - 1 */
	uint64_t none[3];    /* where memory is aligned, no entry is in two lines of the cache */
	struct vd_region entry[];
};

/* Regions that follow each other have entries that do, so that those of a volume do not
 * take each other's places; wide ones in the other direction. */
static inline struct vd_region *vd_region_of(struct vd_regions *g, uint64_t stamp, uint64_t at)
{
	uint64_t i = at >> 1;

	return &g->entry[((stamp >> 32) + (at & 1 ? ~i : i)) & g->mask];
}

/* The region of v, as an entry tells it. */
static inline uint64_t vd_region_at(vd_vblk_t v, unsigned shift)
{
	return v / VD_REGION_BITS >> shift << 1 | (shift != 0);
}

static inline bool vd_region_is(const struct vd_region *e, uint64_t stamp, uint64_t at)
{
	return __atomic_load_n(&e->stamp, __ATOMIC_ACQUIRE) == stamp && __atomic_load_n(&e->at, __ATOMIC_ACQUIRE) == at;
}

/* The blocks [v, v + n) are mapped, at *p and on, and may be written in place if `own`. */
static inline bool vd_region_find(struct vd_regions *g, uint64_t stamp, vd_vblk_t v, uint64_t n, unsigned shift, bool own,
				  vd_pblk_t *p)
{
	uint64_t stretch = v >> shift, at = vd_region_at(v, shift);
	struct vd_region *e = vd_region_of(g, stamp, at);
	uint32_t seq = __atomic_load_n(&e->seq, __ATOMIC_ACQUIRE), bits, want;
	uint64_t first = stretch % VD_REGION_BITS, last = ((v + n - 1) >> shift) - stretch + first;
	vd_pblk_t base;

	if (last >= VD_REGION_BITS || !vd_region_is(e, stamp, at))
		return false;
	want = ((2u << last) - (1u << first)) << (own ? VD_REGION_BITS : 0);
	base = __atomic_load_n(&e->p, __ATOMIC_ACQUIRE);
	bits = __atomic_load_n(&e->bits, __ATOMIC_ACQUIRE);
	*p = base + v % (VD_REGION_BITS << shift);
	return (bits & want) == want && !(seq & 1) && __atomic_load_n(&e->seq, __ATOMIC_RELAXED) == seq;
}

#endif
