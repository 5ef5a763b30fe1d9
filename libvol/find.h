/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding members; the devices file. */
#ifndef VOL_FIND_H
#define VOL_FIND_H

#include "host.h"

/* As vol_find_members(), of these devices alone, wherever they are known from.  -ENODEV: a
 * device has no name. */
int vol_find_devices(const dev_t *dev, unsigned ndev, struct vol_found **list, size_t *n) __must_check;

/* Reads the label of an open file: as vd_label_read(). */
int vol_label_fd(int fd, struct vd_disk_label *label) __must_check;

/* What the label of a device or file says; f->path is NULL.  -ENOENT: it is not there, or has none;
 * -EBADMSG: damaged.  Text in vol_error(NULL). */
int vol_find_label(const char *path, struct vol_found *f) __must_check;
/* The same, if it is all that is to be believed of the device.  What else libblkid sees may be what a volume
 * has, where volumes have their blocks: behind the system's, and before the end that the superblock tells.
 * -ENOTEMPTY: it sees something elsewhere, as a RAID with its metadata at the end would be, of which the pool's
 * member is the contents; or something that was made there since. */
int vol_find_sole_label(const char *path, struct vol_found *f) __must_check;

/* A signature that libblkid knows, of which a part is outside of [from, to) (bytes): free() it; NULL: there
 * is none.  Partition tables are not looked for. */
int vol_probe_beside(int fd, uint64_t from, uint64_t to, char **what) __must_check;

#endif
