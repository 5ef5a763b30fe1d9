/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that dm-vd is built for, 6.1 and later.  The
 * only file that tests a kernel's version.
 */
#ifndef VD_COMPAT_H
#define VD_COMPAT_H

#include <linux/blkdev.h>
#include <linux/device-mapper.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "dm-vd needs Linux 6.1 or later"
#endif

/* Exported, but declared in drivers/md/dm.h, which is not shipped. */
void dm_internal_suspend_noflush(struct mapped_device *md);
void dm_internal_resume(struct mapped_device *md);

/* For dm_get_device(): to read only. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#define COMPAT_OPEN_READ BLK_OPEN_READ
#else
#define COMPAT_OPEN_READ FMODE_READ
#endif

static inline bool compat_table_writable(struct dm_table *t)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
	return dm_table_get_mode(t) & BLK_OPEN_WRITE;
#else
	return dm_table_get_mode(t) & FMODE_WRITE;
#endif
}

#endif
