/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the requests change in a pool.  Where this process has the pool open these are the
 * engine's calls of the same name (vd.h).  Where the kernel has it open they are messages
 * to its device, which do and answer the same (dm-target/message.c).
 *
 * So are the looks at one volume: the kernel tells its record as it is now.  All else is seen by
 * a view, which costs a checkpoint and is made for those requests that need it (ops.c).
 */
#ifndef VOL_CHANGE_H
#define VOL_CHANGE_H

#include "handle.h"

/* As vd_pool_info(); the mode is the owner's.  There is a view. */
void change_state(struct vol_pool *p, struct vd_pool_info *info);
/* Of that what is known without one, once a volume was looked at. */
enum vd_pool_mode change_mode(struct vol_pool *p, uint64_t *epoch);

/* info may be NULL.  -ENOENT; -ESTALE: the kernel does not have the pool any more; -EBUSY: it cannot
 * be asked now. */
int change_find(struct vol_pool *p, const char *name, uint32_t *id, struct vd_volume_info *info) __must_check;
int change_info(struct vol_pool *p, uint32_t id, struct vd_volume_info *info) __must_check;
/* The kernel's answer to "record": cut up, and taken apart.  -ENOENT: there is no such volume;
 * -EPROTO.  *mode and *epoch, of the pool, stay as they are if they are not told. */
int change_take_record(char *text, struct vd_volume_info *info, uint32_t *mode, uint64_t *epoch) __must_check;

int change_flush(struct vol_pool *p) __must_check;
int change_checkpoint(struct vol_pool *p) __must_check;
int change_pool_set(struct vol_pool *p, const struct vd_pool_policy *was, const struct vd_pool_policy *policy) __must_check;
/* The kernel looks itself how large the member is. */
int change_pool_grow(struct vol_pool *p, unsigned m, uint64_t blocks) __must_check;
int change_create(struct vol_pool *p, const struct vd_volume_spec *spec, uint32_t *id) __must_check;
int change_delete(struct vol_pool *p, uint32_t id) __must_check;
int change_rename(struct vol_pool *p, uint32_t id, const char *name) __must_check;
int change_resize(struct vol_pool *p, uint32_t id, uint64_t size) __must_check;
int change_reserve(struct vol_pool *p, uint32_t id, uint64_t blocks) __must_check;
int change_set_flags(struct vol_pool *p, uint32_t id, uint32_t set, uint32_t clear) __must_check;
int change_set_attrs(struct vol_pool *p, uint32_t id, const char *attrs) __must_check;
int change_lock(struct vol_pool *p, uint32_t id, const struct vd_disk_holder *who) __must_check;
int change_unlock(struct vol_pool *p, uint32_t id) __must_check;
int change_pointer_add(struct vol_pool *p, uint32_t id, const struct vd_disk_pointer *ptr, uint32_t *link) __must_check;
int change_pointer_set(struct vol_pool *p, uint32_t id, uint32_t link, const struct vd_disk_pointer *ptr) __must_check;
int change_pointer_del(struct vol_pool *p, uint32_t id, uint32_t link) __must_check;
int change_server_add(struct vol_pool *p, const char *name, const uint8_t uuid[16], const char *attrs, uint32_t *id) __must_check;
int change_server_delete(struct vol_pool *p, uint32_t id, const char *name) __must_check; /* id and name are one's */
int change_snapshot(struct vol_pool *p, struct vd_snap *snap, unsigned n) __must_check;
int change_rollback(struct vol_pool *p, uint32_t id, uint32_t snap) __must_check;

#endif
