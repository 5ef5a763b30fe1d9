// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Reservations: a volume may always have so many blocks of its own (D10).
 *
 * What counts is not what a volume maps but what is its own, that is, what it writes
 * in place: after a snapshot it must write anew what it shares, and a reservation
 * that did not cover that would be worth nothing on the day it is wanted.
 *
 * R1  To a volume with a reservation is promised what it may still want, reserved - own, and
 *     as long as it has one the metadata of such blocks when each lies by itself, in two
 *     copies of pages half full.  own is all it maps, or, after a snapshot, what it has
 *     written since.  What is not its own is shared, and a page of it (64 blocks, at least)
 *     is copied, twice with the nodes above, by the first write there.  So giving back n
 *     blocks never makes a promise larger by more than n.
 * R2  The promises' sum changes with the volume's counts in one step, under seal (or
 *     meta) and vol->map.  A cut has both locks: superblock and records say the same,
 *     and an opening takes the sum from the superblock and goes on with the replay.
 * R3  Nobody takes a block that would leave less than the reserve and what is promised to
 *     others (A5).  What the next checkpoint may need is kept on top, by a look beforehand.
 * R4  Where a promise would grow other than by giving blocks back, it is held first: if
 *     the pool has not that much the reservation, snapshot or rollback is refused.
 * R5  Unmapping, snapshots and new volumes go on in a pool that is full for data, and cost
 *     metadata.  So that this is not missing when a promise is kept, half as much again as
 *     the reserve (vd_change_part()) is there when a promise is made; writers leave
 *     it, but that a promise is kept from it if need be.  When it is used up, such changes are
 *     refused, but for unmapping by those who pay for it with their promise or with what
 *     they give back.
 *
 * Known gap: what R1 keeps for metadata stays in the sum when that is written, so a promise
 * counts others' twice.  When metadata written since the pool was full exceeds R5's part, a
 * small promise beside a large one may be refused (with the largest reserve, by a reservation
 * of some 15 GiB that is written block by block in no order).
 *
 * own may be too large by blocks whose birth a full page has rounded down to before
 * the last snapshot: they are written anew though counted.  It takes fifteen snapshots of
 * other volumes with writes to one page in between, and the next snapshot forgets it.
 */
#include "volume.h"

static uint64_t left_of(uint64_t reserved, uint64_t own)
{
	return reserved - vd_min(reserved, own);
}

uint64_t vd_reserve_promise(uint64_t reserved, uint64_t own, uint64_t mapped)
{
	uint64_t shared = (mapped > own ? mapped - own : 0) + 63;

	return reserved ? left_of(reserved, own) + reserved / 32 + 64 + 2 * vd_min(reserved, shared / 64) : 0;
}

uint64_t vd_reserve_own(const struct vd_volume *vol)
{
	return vol->last_snapshot ? vd_min(vol->own, vol->mapped) : vol->mapped;
}

uint64_t vd_reserve_left(const struct vd_volume *vol)
{
	return left_of(vol->reserved, vd_reserve_own(vol));
}

void vd_reserve_init(struct vd_volume *vol)
{
	uint64_t own = vd_reserve_own(vol), all = vd_reserve_promise(vol->reserved, own, vol->mapped);

	vd_atomic_set(&vol->promise.all, (int64_t)all);
	vd_atomic_set(&vol->promise.left, (int64_t)left_of(vol->reserved, own));
}

void vd_reserve_follow(struct vd_volume *vol)
{
	uint64_t own = vd_reserve_own(vol), all = vd_reserve_promise(vol->reserved, own, vol->mapped);
	int64_t change = (int64_t)all - vd_atomic_read(&vol->promise.all);

	if (change > 0)
		vd_space_promise(vol->pool, change);
	vd_atomic_set(&vol->promise.left, (int64_t)left_of(vol->reserved, own));
	vd_atomic_set(&vol->promise.all, (int64_t)all);
	if (change < 0)
		vd_space_promise(vol->pool, change);
}

void vd_reserve_freed(struct vd_volume *vol, const struct vd_owned *own)
{
	if (own->last >= vol->last_snapshot) /* else a snapshot has come, and shares them all */
		vol->own -= vd_min(vol->own, own->n);
	if (vol->reserved)
		vd_reserve_follow(vol);
}

int vd_reserve_count(struct vd_volume *vol, vd_vblk_t v, uint64_t len, uint64_t freed, struct vd_owned *own)
{
	uint64_t end = v + len, n = 0, last;
	struct vd_ext e;
	bool matters;
	int r;

	vd_read_lock(&vol->map);
	last = vol->last_snapshot;
	matters = vol->reserved && last && freed;
	vd_read_unlock(&vol->map);
	*own = (struct vd_owned){ freed, last }; /* too many, perhaps */
	if (!matters)
		return 0;
	for (; v < end; v += e.len) {
		r = vd_map_find_wait(vol, v, &e);
		if (r)
			return r;
		if (e.kind == VD_DATA && e.birth > last)
			n += vd_min(e.len, end - v);
	}
	own->n = n;
	return 0;
}

int64_t vd_reserve_room(struct vd_pool *pool, const struct vd_volume *vol)
{
	return vd_space_room(pool, vol ? &vol->promise : NULL, vd_meta_need(pool));
}

/* A part of the reserve is for changes in a full pool while nothing is promised; else as much
 * beside it, which R5 keeps from writers, is.  To vol, which unmaps, its own promise is no
 * hindrance: metadata is a part of it.  Nor is any, if each of its blocks is free again when
 * it is unmapped: that is more than the pages that are split by it. */
static bool room_for_change(struct vd_pool *pool, struct vd_volume *vol)
{
	uint64_t promised = vd_space_promised(pool), own = 0;
	bool frees = false;

	if (vol && promised) {
		vd_read_lock(&vol->map);
		own = (uint64_t)vd_atomic_read(&vol->promise.all);
		frees = !vol->last_snapshot && !vol->has_base;
		vd_read_unlock(&vol->map);
	}
	return vd_space_free(pool) >= vd_meta_need(pool) +
	       (promised && !frees ? pool->reserve_blocks + promised - vd_min(promised, own) : pool->reserve_blocks - vd_change_part(pool));
}

int vd_reserve_admit(struct vd_pool *pool, struct vd_volume *vol)
{
	return vd_likely(room_for_change(pool, vol)) ? 0 : vd_space_settle(pool, vol, room_for_change);
}

uint64_t vd_reserve_most(struct vd_pool *pool)
{
	int64_t n = vd_space_promisable(pool, vd_meta_need(pool) + 64);

	return n > 0 ? (uint64_t)n - ((uint64_t)n + 32) / 33 : 0;
}

int vd_reserve_hold(struct vd_volume *vol, uint64_t reserved, uint64_t own, uint64_t mapped, uint64_t *held)
{
	uint64_t now = vd_reserve_promise(reserved, own, mapped), was = (uint64_t)vd_atomic_read(&vol->promise.all);
	int r = now > was ? vd_space_hold(vol->pool, now - was, vd_meta_need(vol->pool)) : 0;

	if (!r)
		*held = now > was ? now - was : 0;
	return r;
}

int vd_change_again(struct vd_pool *pool, int r, bool *made)
{
	if (r == -EWOULDBLOCK)
		return vd_journal_make_room(pool);
	if (r != -ENOSPC || *made)
		return r;
	*made = true; /* what was given back may not be free yet */
	r = vd_space_make(pool, NULL);
	return r == -ENOSPC ? 0 : r;
}
