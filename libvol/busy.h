/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who or what keeps a block device busy: device.c's and dm.c's, and device_users() of device.h.
 * All of it is read from /proc and /sys, is true of a moment, and what cannot be read
 * is passed over.
 */
#ifndef VOL_BUSY_H
#define VOL_BUSY_H

#include "host.h"

#include <sys/types.h>

/* The mount points of a device as the process ("self", "17") sees them, first mounted
 * first; partitions: those of its partitions too.  A result of fn that is not 0 ends it. */
int busy_mounts(const char *pid, dev_t dev, bool partitions, int (*fn)(void *arg, const char *dir), void *arg) __must_check;

/* The source and the mount point of each mount of this process's that is of a block device, or of what is
 * said to be one.  A result of fn that is not 0 ends it. */
int busy_sources(int (*fn)(void *arg, const char *source, const char *dir), void *arg) __must_check;
/* Whether what this process sees and undoes are the host's mounts, and not, in a namespace of its own, copies. */
bool busy_sees_mounts(void);
/* Whether the last mount on that directory is of such a type ("autofs"), NULL: of any. */
bool busy_is_mount(const char *dir, const char *type);
/* Whether one of those mounts is, below others or not. */
bool busy_has_mount(const char *dir, const char *type);
/* Of the last mount there; "" when there is none. */
void busy_mount_type(const char *dir, char *type, size_t size);
/* Whether it is of a device that is not there any more. */
bool busy_is_dead_mount(const char *dir);

/* Adds to the text what else than a process that has it open keeps a device, or a partition of
 * it, that is known to be busy: swap, other devices made on it, mounts, in whichever namespace.
 * For the text only: a mount's source can be said by any user to be any device. */
void busy_otherwise(const char *dev, char *buf, size_t size);

#endif
