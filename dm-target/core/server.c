// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Servers: records beside those of volumes, of the same form and in the same tree, index and
 * journal, so that they change as those do (volume.c).  What a server's has is its name, behind a
 * dot, which no volume's begins with, and its attributes.
 */
#include "record.h"

static void record_name(const char *name, char out[VD_SERVER_NAME_MAX + 2])
{
	out[0] = '.';
	memcpy(out + 1, name, strlen(name) + 1);
}

static int feature(struct vd_pool *pool, struct vd_disk_super *s, void *arg)
{
	(void)pool;
	(void)arg;
	s->incompat |= cpu_to_le64(VD_FEATURE_SERVERS);
	return 0;
}

int vd_server_add(struct vd_pool *pool, const char *name, const uint8_t uuid[16], const char *attrs, uint32_t *id)
{
	struct vd_volume_spec spec = { .attrs = attrs };
	char record[VD_SERVER_NAME_MAX + 2];
	int r = 0;

	if (!vd_pool_writable(pool))
		return -EROFS;
	if (!vd_server_name_valid(name))
		return -EINVAL;
	/* Durable before there is a record that who does not know of servers takes for a volume's. */
	vd_mutex_lock(&pool->ckpt_lock);
	if (!(le64_to_cpu(pool->super->incompat) & VD_FEATURE_SERVERS))
		r = vd_checkpoint_locked(pool, feature, NULL);
	vd_mutex_unlock(&pool->ckpt_lock);
	if (r)
		return r;
	record_name(name, record);
	memcpy(spec.uuid, uuid, 16);
	return vd_record_create(pool, &spec, record, VD_VOL_SERVER, id);
}

int vd_server_delete(struct vd_pool *pool, uint32_t id)
{
	return vd_record_delete(pool, id, VD_SERVER);
}

int vd_server_find(struct vd_pool *pool, const char *name, uint32_t *id)
{
	char record[VD_SERVER_NAME_MAX + 2];

	if (!vd_server_name_valid(name))
		return -EINVAL;
	record_name(name, record);
	return vd_record_find(pool, record, true, id);
}

int vd_server_next(struct vd_pool *pool, uint32_t *id)
{
	return vd_record_next(pool, true, id, NULL);
}

int vd_server_info(struct vd_pool *pool, uint32_t id, struct vd_server_info *info)
{
	const struct vd_disk_volume *d;
	struct vd_volume *vol;
	int r;

	vd_mutex_lock(&pool->volumes->lock);
	r = vd_record_user(pool, id, true, &vol);
	if (!r) {
		d = &vol->rec->d;
		memset(info, 0, sizeof(*info));
		info->id = id;
		memcpy(info->uuid, d->uuid, 16);
		memcpy(info->name, d->name + 1, VD_SERVER_NAME_MAX);
		info->created = le64_to_cpu(d->created);
		memcpy(info->attrs, d->attrs, le32_to_cpu(d->attrs_len));
	}
	vd_mutex_unlock(&pool->volumes->lock);
	return r;
}
