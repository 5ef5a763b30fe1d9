// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vd: virtual drives.  Thin volumes and snapshots in a pool of disks.
 */
#include <linux/module.h>

#include "dm-vd.h"

DEFINE_PER_CPU(struct vd_irq_state, vd_irq_state);
DEFINE_MUTEX(vdk_pools_lock);
LIST_HEAD(vdk_pools);

static int __init vdk_init(void)
{
	int r;

	r = dm_register_target(&vdk_pool_target);
	if (r)
		return r;
	r = dm_register_target(&vdk_volume_target);
	if (r)
		dm_unregister_target(&vdk_pool_target);
	return r;
}

static void __exit vdk_exit(void)
{
	dm_unregister_target(&vdk_volume_target);
	dm_unregister_target(&vdk_pool_target);
}

module_init(vdk_init);
module_exit(vdk_exit);

MODULE_DESCRIPTION("device-mapper targets for virtual drives");
MODULE_AUTHOR("The vd developers");
MODULE_LICENSE("GPL");
MODULE_VERSION(VD_VERSION);
MODULE_ALIAS("dm-vd-pool");
MODULE_ALIAS("dm-vd-volume");
