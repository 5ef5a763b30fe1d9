/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's device-mapper, the only file that calls libdevmapper.
 *
 * A pool that the kernel has open is a device of the target vd-pool, with the UUID
 * VD-POOLUUID-pool and the name vd-POOL-pool; it holds no data, and udev's rules leave
 * it alone.  A volume there is a vd-volume: VD-POOLUUID-VOLUMEUUID, POOL-VOLUME.  In
 * these names a hyphen of the pool or volume is doubled, as LVM does it: so no two
 * volumes can have the same.
 *
 * The two names of a volume are in names/POOL-VOLUME of the runtime directory while it has a
 * device, as udev's rules read variables: to take them apart again they would need a process.
 * The contents follow from the file's name, so that one which was left behind is right, too.
 *
 * What udev does about a device is waited for, some seconds at most (a cookie), so that
 * the names in /dev are there, or gone, when a call returns.
 *
 * Texts are in vol_error(NULL) unless a call takes an errbuf.
 */
#ifndef VOL_DM_H
#define VOL_DM_H

#include "host.h"

#define DM_PATH 128 /* "/dev/mapper/POOL-VOLUME", as long as an open pointer can have it */

/* Udev is not waited for from now on, and nodes in /dev/mapper are made here. */
void vol_dm_no_udev_sync(void);

/* Whether dm-vd is loaded: if not, the kernel has no pool. Costs one look at a file. */
bool vol_dm_present(void);
/* The same, after having tried to load it. */
bool vol_dm_load(void);

/* The names of a pool's device and of a volume's; -ENAMETOOLONG: cannot be had, the names are too long. */
int vol_dm_pool_name(const char *pool, char name[DM_PATH]) __must_check;
int vol_dm_volume_path(const char *pool, const char *volume, char path[DM_PATH]) __must_check;
/* Whether there is such a device, and its path. `volume` NULL: the pool's, which is there
 * when it is open: while it is being opened or closed the lock on its members tells.  -ENOENT. */
int vol_dm_find(const uint8_t pool[16], const uint8_t *volume, char path[DM_PATH]) __must_check;

/* The pool that is called so. -ENOENT. */
int vol_dm_find_pool(const char *name, uint8_t uuid[16]) __must_check;

/* Members are block devices.  -EAGAIN: one is in use, or somebody was faster; -EBUSY: the name
 * of its device is another's. */
int vol_dm_pool_start(const char *name, const uint8_t uuid[16], const char *const *member, unsigned n, bool readonly) __must_check;
/* Removes what somebody left who was killed while opening it: a device without a table, which
 * may keep the members.  Under the lock on the links, so that nobody is at it now. */
void vol_dm_pool_clear(const uint8_t uuid[16]);
/* Takes away the table that somebody left who was killed while adding a member: it holds the member, and who
 * resumes the device would add it.  Under vol_pool_hold(), so that nobody is at it now. */
void vol_dm_pool_drop_table(const uint8_t uuid[16]);
/* -EBUSY: it has volumes; -EAGAIN: somebody has its device open, and does not let it go. */
int vol_dm_pool_stop(const uint8_t uuid[16]) __must_check;

/* One more member, blank, which nobody else has open; its volumes are suspended for that moment. */
int vol_dm_pool_add(const char *name, const uint8_t uuid[16], const char *path) __must_check;

struct dm_pool_status {
	enum vd_pool_mode mode;
	char name[VOL_NAME_SIZE]; /* this and the rest only if it has not failed */
	bool damaged;
	uint64_t generation;      /* of the last checkpoint */
	bool other_table;         /* one is loaded that is not live; also if it has failed */
};
/* -ENOENT: it is not open. */
int vol_dm_pool_status(const uint8_t uuid[16], struct dm_pool_status *st) __must_check;
/* The devices that are its members there. -ENOENT. */
int vol_dm_pool_members(const uint8_t uuid[16], dev_t dev[VD_MEMBERS_MAX], unsigned *n) __must_check;

struct dm_volume {
	const char *pool, *name;
	uint8_t pool_uuid[16], uuid[16];
	uint64_t size;      /* bytes */
	bool readonly, snapshot;
	bool blank;         /* it reads as zeros, and nobody writes to it until its device is there */
	dev_t base;         /* device of its base image; 0: has none */
};
int vol_dm_volume_start(const struct dm_volume *v, char path[DM_PATH]) __must_check;
/* It takes the size that v says. */
int vol_dm_volume_resize(const struct dm_volume *v) __must_check;
/* -EBUSY: open (text: by whom). */
int vol_dm_volume_stop(const uint8_t pool[16], const uint8_t uuid[16]) __must_check;

/* Sends a message to the pool's device; answer (may be NULL) gets what it says.  No text:
 * a negative errno is the engine's. */
int vol_dm_message(const uint8_t uuid[16], const char *text, char *answer, size_t size) __must_check;

#endif
