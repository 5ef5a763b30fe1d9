/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What record.c, volume.c and snap.c share: records, and plans of changes to the name
 * index.  All under meta (pool->volumes->lock) unless said otherwise.
 */
#ifndef VD_RECORD_H
#define VD_RECORD_H

#include "volume.h"

struct vd_record *vd_record_new(struct vd_pool *pool, const struct vd_disk_volume *d); /* copy, or zeros; NULL: no memory */
uint32_t vd_record_flags(const struct vd_volume *vol);
/* Makes rec the volume's record; its reference passes over. */
void vd_record_set(struct vd_volume *vol, struct vd_record *rec);
unsigned vd_record_len(const struct vd_disk_volume *d); /* bytes in the journal */
void vd_record_encode(const struct vd_disk_volume *d, struct vd_disk_rec *rec);

/* A record read from disk or journal: -EUCLEAN if it makes no sense. */
int vd_record_verify(const struct vd_disk_volume *d, uint32_t id) __must_check;

bool vd_name_valid(const char *name);
bool vd_pool_name_valid(const char *name);
bool vd_server_name_valid(const char *name);

struct vd_volume *vd_volume_in_memory(struct vd_volumes *vs, uint32_t id);
int vd_volume_new(struct vd_pool *pool, uint32_t id, const struct vd_root *root, struct vd_record *rec, struct vd_volume **out) __must_check;
void vd_volume_insert(struct vd_volumes *vs, struct vd_volume *vol);
/* Deletes one that is pending, which no user can name. Class B, no lock held. */
int vd_volume_drop(struct vd_pool *pool, uint32_t id) __must_check;
int vd_volume_user(struct vd_pool *pool, uint32_t id, struct vd_volume **out) __must_check;
/* The same of a record that is a server's, or a volume's. */
int vd_record_user(struct vd_pool *pool, uint32_t id, bool server, struct vd_volume **out) __must_check;

/* What volumes and servers share; name: as the record has it; flags: READONLY and LOCKED as spec's, SERVER. */
int vd_record_create(struct vd_pool *pool, const struct vd_volume_spec *spec, const char *name, uint32_t flags, uint32_t *id) __must_check;
enum vd_whose { VD_VOLUME, VD_SERVER, VD_PENDING };
int vd_record_delete(struct vd_pool *pool, uint32_t id, enum vd_whose whose) __must_check;
int vd_record_find(struct vd_pool *pool, const char *name, bool server, uint32_t *id) __must_check;
int vd_record_next(struct vd_pool *pool, bool server, uint32_t *id, bool *lost) __must_check;

/* 0: *id and *key are the name's; -ENOENT: *key is a free place for it; -EEXIST: there is none. */
int vd_index_find(struct vd_pool *pool, const char *name, uint32_t *id, vd_vblk_t *key) __must_check;

/* A plan looks up keys and takes memory beforehand; applying it cannot fail. */
struct vd_index_op { vd_vblk_t key; uint32_t id; /* 0: remove */ struct vd_ov_leaf *spare; };
struct vd_plan { struct vd_pool *pool; struct vd_index_op *op; unsigned n, max; };
int vd_plan_init(struct vd_plan *plan, struct vd_pool *pool, unsigned max) __must_check;
void vd_plan_fini(struct vd_plan *plan);
int vd_plan_key(struct vd_plan *plan, vd_vblk_t key, uint32_t id) __must_check;
int vd_plan_name(struct vd_plan *plan, const char *name, uint32_t id) __must_check; /* id 0: the name goes. -EEXIST */
void vd_plan_apply(struct vd_plan *plan); /* under seal, reading or writing */

int vd_snap_replay(struct vd_pool *pool, const struct vd_disk_rec *rec) __must_check; /* snap.c */

#endif
