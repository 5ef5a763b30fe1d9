// SPDX-License-Identifier: LGPL-2.1-or-later
/* Requests about servers, which the pool describes for links. ops.c lists them all. */
#include "ops.h"
#include "change.h"

#include <stdlib.h>

#define BATCH 64 /* servers of one part */

int op_find_server(struct vol_request *rq, const char *name, uint32_t *id)
{
	int r = op_view(rq);

	if (!r)
		r = vd_server_find(rq->pool->engine, name, id);
	if (r == -ENOENT || r == -EINVAL)
		return op_fail(rq, -ENOENT, "pool %s describes no server %.63s; `vdserver ls %s` lists what there is", rq->pool->name, name,
			       rq->pool->name);
	return r ? op_fail(rq, r, "server %s of pool %s cannot be read: %s", name, rq->pool->name, vol_strerror(r)) : 0;
}

static int arg_server(struct vol_request *rq, const char **name)
{
	int r;

	if (!json_get_str(rq->args, "server", name))
		return op_fail(rq, -EINVAL, "request \"%s\" lacks \"server\", the name of a server", json_str(rq->args, "op"));
	r = vol_check_server_name(*name);
	return r ? op_fail(rq, r, "%s", vol_error(NULL)) : 0;
}

static int check_writable(struct vol_request *rq)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	bool readonly = (rq->pool->flags & (VOL_READONLY | VOL_TEST)) == VOL_READONLY;

	if (!info)
		return -ENOMEM;
	change_state(rq->pool, info);
	readonly |= info->mode >= VD_MODE_READONLY;
	free(info);
	return readonly ? op_fail(rq, -EROFS, "pool %s cannot be changed: it is read-only; `vdpool show %s` tells more", rq->pool->name,
				  rq->pool->name) : 0;
}

int op_server_add(struct vol_request *rq, struct json_object *result)
{
	char text[VD_ATTRS_MAX + 1], uuid_text[VOL_UUID_TEXT];
	struct json_object *attrs;
	const char *name;
	uint8_t uuid[16];
	uint32_t id;
	int r = arg_server(rq, &name);

	if (!r && !json_get(rq->args, "attrs", json_type_object, &attrs))
		r = op_fail(rq, -EINVAL, "request \"server-add\" lacks \"attrs\", an object");
	if (!r)
		r = op_attrs_text(rq, attrs, text);
	if (!r && vol_check_server(attrs))
		r = op_fail(rq, -EINVAL, "%s", vol_error(NULL));
	if (!r)
		r = check_writable(rq);
	if (r)
		return r;
	if (json_flag(rq->args, "test")) {
		r = vd_server_find(rq->pool->engine, name, &id);
		r = r == -ENOENT ? 0 : r ? r : -EEXIST;
	} else {
		vol_uuid_new(uuid);
		r = change_server_add(rq->pool, name, uuid, text, &id);
		vol_uuid_text(uuid, uuid_text);
		json_set_str(result, "uuid", uuid_text);
	}
	if (r == -EEXIST)
		return op_fail(rq, r, "pool %s describes a server %s already; choose another name, or remove that: vdserver rm %s/%s",
			       rq->pool->name, name, rq->pool->name, name);
	return r ? op_fail(rq, r, "server %s cannot be described in pool %s: %s", name, rq->pool->name, vol_strerror(r)) : 0;
}

static struct json_object *server_json(const struct vd_server_info *info)
{
	struct json_object *o = json_object_new_object();
	char uuid[VOL_UUID_TEXT];

	vol_uuid_text(info->uuid, uuid);
	json_set_str(o, "name", info->name);
	json_set_str(o, "uuid", uuid);
	json_set_u64(o, "created", info->created);
	json_set(o, "attrs", op_attrs_json(info->attrs));
	return o;
}

int op_server_list(struct vol_request *rq, struct json_object *result)
{
	struct vd_server_info *info = malloc(sizeof(*info));
	struct json_object *list = json_object_new_array(), *v;
	const char *name;
	uint64_t n = 0;
	uint32_t id = 0;
	bool one = json_object_object_get_ex(rq->args, "server", &v);
	int r = 0, e;

	if (!info)
		r = -ENOMEM;
	else if (one)
		r = arg_server(rq, &name);
	if (!r && one)
		r = op_find_server(rq, name, &id);
	while (!r && (one || !(r = vd_server_next(rq->pool->engine, &id)))) {
		e = vd_server_info(rq->pool->engine, id, info);
		if (!e) { /* else it was removed just now */
			json_object_array_add(list, server_json(info));
			n++;
		}
		if (one || !++id)
			break;
		if (json_object_array_length(list) == BATCH) {
			r = op_send(rq, "servers", list);
			list = json_object_new_array();
		}
	}
	free(info);
	if (r && r != -ENOENT) {
		json_object_put(list);
		return rq->err.text[0] ? r : op_fail(rq, r, "the servers of pool %s cannot be listed: %s", rq->pool->name, vol_strerror(r));
	}
	if (one && !n) {
		json_object_put(list);
		return rq->err.text[0] ? -ENOENT : op_find_server(rq, name, &id);
	}
	json_set_u64(result, "servers", n);
	return op_send(rq, "servers", list);
}

/* A volume with an open pointer that names it. 0: none */
static int linked_to(struct vol_request *rq, const char *name, char volume[VD_NAME_MAX + 1])
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	uint32_t id = 0;
	int r = info ? 0 : -ENOMEM;

	for (; !r && !(r = vd_volume_next(rq->pool->engine, &id, NULL)); id++) {
		if (vd_volume_info(rq->pool->engine, id, info))
			continue;
		for (unsigned i = 0; i < info->npointers; i++)
			if (!strncmp(info->pointer[i].server, name, sizeof(info->pointer[i].server))) {
				memcpy(volume, info->name, sizeof(info->name));
				r = 1;
			}
	}
	free(info);
	return r == -ENOENT ? 0 : r;
}

int op_server_remove(struct vol_request *rq, struct json_object *result)
{
	char volume[VD_NAME_MAX + 1];
	const char *name;
	uint32_t id;
	int r = arg_server(rq, &name);

	(void)result;
	if (!r)
		r = op_find_server(rq, name, &id);
	if (!r)
		r = check_writable(rq);
	if (r)
		return r;
	r = linked_to(rq, name, volume);
	if (r == 1)
		return op_fail(rq, -EBUSY, "server %s of pool %s cannot be removed: %s/%s is linked to it\n'vdunlink %s/%s' ends that", name,
			       rq->pool->name, rq->pool->name, volume, rq->pool->name, volume);
	if (!r && !json_flag(rq->args, "test"))
		r = change_server_delete(rq->pool, id, name);
	return r ? op_fail(rq, r, "server %s of pool %s cannot be removed: %s", name, rq->pool->name, vol_strerror(r)) : 0;
}
