/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Finding members; the devices file. */
#ifndef VOL_FIND_H
#define VOL_FIND_H

#include "host.h"

/* Reads the label of an open file: as vd_label_read(). */
int vol_label_fd(int fd, struct vd_disk_label *label) __must_check;

#endif
