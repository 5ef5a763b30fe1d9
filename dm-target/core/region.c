// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * What is known of regions (region.h): how it is kept true.
 *
 * Invariants
 *   G1. An entry counts only for the volume whose stamp it has.  No stamp is given twice,
 *       and a volume gets a new one with each snapshot and whatever else changes many
 *       regions.
 *   G2. What is found is told under the same vol->map; every change is told while
 *       vol->map is held for writing.  So who begins after a change has ended does not
 *       find what was before it.
 *   G3. Who makes `seq` odd changes the entry, and makes it even.  An entry is made odd
 *       only to become another, or by who saw with the same seq that it is of his volume.
 *       So who finds it odd, or changed, may leave it alone: beside him, who holds
 *       vol->map for writing, it is another volume's, or is becoming that.
 */
#include "volume.h"

#define BITS VD_REGION_BITS
#define ENTRIES_MIN 256u
#define ENTRIES_MAX (1u << 17) /* 4 MiB; they know 8 GiB, or if all are wide 512 GiB */
#define MANY (64u * BITS)      /* blocks: a change of more makes the volume's entries void */

static vd_vblk_t begin_of(vd_vblk_t v, unsigned shift)
{
	return v & ~(((uint64_t)BITS << shift) - 1);
}

/* The bits of [v, end), of which some is in v's region: of stretches that are in it as a
 * whole, or `touched`. */
static uint32_t bits_of(vd_vblk_t v, vd_vblk_t end, unsigned shift, bool touched)
{
	vd_vblk_t begin = begin_of(v, shift), past = begin + ((uint64_t)BITS << shift);
	uint64_t up = ((uint64_t)1 << shift) - 1;
	unsigned from = (unsigned)((v - begin + (touched ? 0 : up)) >> shift);
	unsigned to = (unsigned)((vd_min(end, past) - begin + (touched ? up : 0)) >> shift);

	return from < to ? (1u << to) - (1u << from) : 0;
}

void vd_regions_init(struct vd_pool *pool)
{
	uint64_t n = ENTRIES_MIN, want;
	struct vd_regions *g;

	if (pool->regions)
		return;
	want = le64_to_cpu(pool->super->total_blocks) / BITS;
	while (n < want && n < ENTRIES_MAX)
		n <<= 1;
	g = vd_zalloc(pool, sizeof(*g) + n * sizeof(g->entry[0]));
	if (!g) /* the next opening tries again, and all works without */
		return;
	g->mask = n - 1;
	__atomic_store_n(&pool->regions, g, __ATOMIC_RELEASE);
}

void vd_regions_fini(struct vd_pool *pool)
{
	vd_free(pool, pool->regions);
}

void vd_regions_forget(struct vd_volume *vol)
{
	uint64_t n = (uint64_t)vd_atomic_add(&vol->pool->stamps, 1);

	/* By an odd number: all different, and far apart above, where vd_region_of() looks. */
	__atomic_store_n(&vol->stamp, n * 0x9e3779b97f4a7c15ull, __ATOMIC_RELEASE);
}

/* ---- telling ------------------------------------------------------------ */

/* Of an entry whose seq is even and `seq`.  False: leave it alone (G3). */
static bool change_begin(struct vd_region *e, uint32_t seq)
{
	return !(seq & 1) && vd_u32_swap_if(&e->seq, seq, seq + 1);
}

static void change_end(struct vd_region *e, uint32_t seq)
{
	__atomic_store_n(&e->seq, seq + 2, __ATOMIC_RELEASE);
}

/* Reading is for who has made seq odd; stores are seen by those who look meanwhile. */
static void set(struct vd_region *e, uint64_t stamp, uint64_t at, vd_pblk_t p, uint32_t bits)
{
	__atomic_store_n(&e->stamp, stamp, __ATOMIC_RELEASE);
	__atomic_store_n(&e->at, at, __ATOMIC_RELEASE);
	__atomic_store_n(&e->p, p, __ATOMIC_RELEASE);
	__atomic_store_n(&e->bits, bits, __ATOMIC_RELEASE);
}

/* [v, end), of which some is in v's region, lies at p and on.  With others that are where
 * the region says; in place of any that are not. */
static inline void add(struct vd_regions *g, uint64_t stamp, vd_vblk_t v, vd_vblk_t end, vd_pblk_t p, unsigned shift, bool own)
{
	uint64_t at = vd_region_at(v, shift);
	struct vd_region *e = vd_region_of(g, stamp, at);
	uint32_t seq = __atomic_load_n(&e->seq, __ATOMIC_ACQUIRE), bits = bits_of(v, end, shift, false);
	vd_pblk_t base = p - (v - begin_of(v, shift));

	if (!bits || !change_begin(e, seq))
		return;
	if (own)
		bits |= bits << BITS;
	if (vd_region_is(e, stamp, at) && e->p == base)
		bits |= e->bits;
	set(e, stamp, at, base, bits);
	change_end(e, seq);
}

static void drop(struct vd_regions *g, uint64_t stamp, vd_vblk_t v, vd_vblk_t end, unsigned shift)
{
	uint64_t at = vd_region_at(v, shift);
	struct vd_region *e = vd_region_of(g, stamp, at);
	uint32_t seq = __atomic_load_n(&e->seq, __ATOMIC_ACQUIRE), bits = bits_of(v, end, shift, true);

	if (!vd_region_is(e, stamp, at) || !change_begin(e, seq))
		return;
	set(e, stamp, at, e->p, e->bits & ~(bits | bits << BITS));
	change_end(e, seq);
}

static bool knows(struct vd_regions *g, uint64_t stamp, vd_vblk_t v)
{
	uint64_t at = vd_region_at(v, 0);

	return vd_region_is(vd_region_of(g, stamp, at), stamp, at);
}

static bool may_be_own(const struct vd_volume *vol, const struct vd_ext *e)
{
	return e->birth > vol->last_snapshot && !__atomic_load_n(&vol->mixed, __ATOMIC_RELAXED); /* M2, M6 */
}

void vd_regions_found(struct vd_volume *vol, const struct vd_ext *e)
{
	struct vd_regions *g = vd_regions(vol);
	vd_vblk_t first = e->v - e->back, from = begin_of(e->v, VD_WIDE_SHIFT), stretch = e->v >> VD_WIDE_SHIFT << VD_WIDE_SHIFT;
	bool own = may_be_own(vol, e);

	if (!g || e->kind != VD_DATA)
		return;
	if (first <= stretch && e->v + e->len >= stretch + (1u << VD_WIDE_SHIFT)) {
		from = vd_max(from, first);
		add(g, vol->stamp, from, e->v + e->len, e->p - (e->v - from), VD_WIDE_SHIFT, own);
		__atomic_store_n(&vol->wide, true, __ATOMIC_RELAXED);
	} else {
		from = vd_max(begin_of(e->v, 0), first);
		add(g, vol->stamp, from, e->v + e->len, e->p - (e->v - from), 0, own);
	}
}

void vd_regions_changed(struct vd_volume *vol, const struct vd_ext *e)
{
	struct vd_regions *g = vd_regions(vol);
	vd_vblk_t v, end = e->v + e->len;

	if (!g)
		return;
	if (e->len > MANY) {
		vd_regions_forget(vol);
		return;
	}
	/* Of a region of which nothing is known a small write tells nothing: it may be the only one. */
	for (v = e->v; v < end; v = begin_of(v, 0) + BITS)
		if (e->kind != VD_DATA)
			drop(g, vol->stamp, v, end, 0);
		else if (e->len >= BITS || knows(g, vol->stamp, v))
			add(g, vol->stamp, v, end, e->p + (v - e->v), 0, may_be_own(vol, e));
	if (!vol->wide)
		return;
	for (v = e->v; v < end; v = begin_of(v, VD_WIDE_SHIFT) + ((uint64_t)BITS << VD_WIDE_SHIFT))
		drop(g, vol->stamp, v, end, VD_WIDE_SHIFT);
}
