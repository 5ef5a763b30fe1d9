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

#endif
