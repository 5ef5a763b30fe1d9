// SPDX-License-Identifier: LGPL-2.1-or-later
/* Requests about one volume: its record, lock and open pointers. ops.c lists them all. */
#include "ops.h"
#include "change.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIST_BATCH 128

static bool testing(struct vol_request *rq)
{
	return json_flag(rq->args, "test");
}

/* What a dry run can know of a change: is the pool writable at all? */
int op_check_writable(struct vol_request *rq, const char *name, const char *what)
{
	uint64_t epoch;

	if ((rq->pool->flags & (VOL_READONLY | VOL_TEST)) != VOL_READONLY && change_mode(rq->pool, &epoch) < VD_MODE_READONLY)
		return 0;
	return op_error(rq, -EROFS, name, what);
}

int op_drop_dead_clients(struct vol_request *rq, const char *name, uint32_t id, struct vd_volume_info *info)
{
	const struct vol_server_hooks *hooks = rq->server ? vol_server_hooks_of(rq->server) : NULL;
	char who[256];
	int r;

	if (hooks && hooks->reap && !testing(rq)) {
		hooks->reap(hooks->arg, id);
		r = vd_volume_info(rq->pool->engine, id, info);
		if (r)
			return op_error(rq, r, name, "read");
	}
	for (unsigned i = info->npointers; i-- > 0;) {
		const struct vd_disk_pointer *p = &info->pointer[i];
		if (strncmp(p->who.purpose, VOL_PURPOSE_CLIENT, sizeof(p->who.purpose)))
			continue;
		/* Beside the kernel no server of this host has the pool, whoever has that pid by now. */
		if (!vol_holder_stale(&p->who) && !(rq->pool->kernel && vol_holder_is_here(&p->who)))
			continue;
		vol_holder_text(&p->who, who, sizeof(who));
		vol_log(VOL_LOG_INFO, "volume %s/%s: the open pointer of %s is stale and is removed", rq->pool->name, name, who);
		r = testing(rq) ? 0 : change_pointer_del(rq->pool, id, le32_to_cpu(p->link));
		if (r)
			return op_error(rq, r, name, "freed of a stale open pointer");
		memmove(&info->pointer[i], &info->pointer[i + 1], (info->npointers - i - 1) * sizeof(info->pointer[0]));
		info->npointers--;
	}
	return 0;
}

/* The volume named in the request, unlocked or locked by who asks. */
static int find_mine(struct vol_request *rq, const char *what, const char **name, uint32_t *id,
		     struct vd_volume_info *info)
{
	int r = op_arg_volume(rq, "volume", name);

	if (!r)
		r = op_find(rq, *name, id, info);
	if (!r)
		r = op_check_writable(rq, *name, what);
	if (!r)
		r = op_check_lock(rq, info);
	return r ? r : op_drop_dead_clients(rq, *name, *id, info);
}

/* ---- attributes --------------------------------------------------------- */

struct json_object *op_attrs_json(const char *attrs)
{
	struct json_object *o = json_object_new_object();

	while (*attrs) {
		size_t line = strcspn(attrs, "\n"), key = strcspn(attrs, "=\n");
		char name[VD_ATTRS_MAX + 1];
		memcpy(name, attrs, key);
		name[key] = 0;
		json_set(o, name, json_object_new_string_len(attrs + key + (key < line), (int)(line - key - (key < line))));
		attrs += line + (attrs[line] == '\n');
	}
	return o;
}

int op_attrs_text(struct vol_request *rq, struct json_object *attrs, char buf[VD_ATTRS_MAX + 1])
{
	size_t n = 0;

	buf[0] = 0;
	json_object_object_foreach(attrs, key, v) {
		const char *value = json_object_get_string(v);
		if (!v)
			continue; /* null: taken away */
		if (!json_object_is_type(v, json_type_string) || strlen(value) != (size_t)json_object_get_string_len(v))
			return op_fail(rq, -EINVAL, "attribute \"%.60s\" is not a string", key);
		if (!*key || strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") != strlen(key))
			return op_fail(rq, -EINVAL, "attribute name \"%.60s\" has a byte that is none of a-z A-Z 0-9 _ . -", key);
		for (const char *c = value; *c; c++)
			if (iscntrl((unsigned char)*c))
				return op_fail(rq, -EINVAL, "the value of attribute %.60s has a control character in it", key);
		if (n + strlen(key) + strlen(value) + 2 > VD_ATTRS_MAX)
			return op_fail(rq, -E2BIG, "the attributes are longer than the %u bytes there are", VD_ATTRS_MAX);
		n += (size_t)sprintf(buf + n, "%s=%s\n", key, value);
	}
	return 0;
}

/* ---- list --------------------------------------------------------------- */

static struct json_object *pointer_json(const struct vd_disk_pointer *p)
{
	struct json_object *o = json_object_new_object();

	json_set_u64(o, "link", le32_to_cpu(p->link));
	json_set_str(o, "mode", le32_to_cpu(p->mode) ? "rw" : "ro");
	json_set_field(o, "opened_as", p->opened_as, sizeof(p->opened_as));
	json_set_field(o, "mount", p->mount, sizeof(p->mount));
	json_set_field(o, "server", p->server, sizeof(p->server));
	json_set_u64(o, "epoch", le64_to_cpu(p->epoch));
	json_set(o, "holder", vol_holder_to_json(&p->who));
	json_set_bool(o, "stale", vol_holder_stale(&p->who));
	return o;
}

static struct json_object *volume_json(struct vol_request *rq, const struct vd_volume_info *info,
				       struct vd_volume_info *scratch)
{
	struct json_object *o = json_object_new_object(), *list = json_object_new_array();
	char uuid[VOL_UUID_TEXT];

	vol_uuid_text(info->uuid, uuid);
	json_set_u64(o, "id", info->id);
	json_set_field(o, "name", info->name, sizeof(info->name));
	json_set_str(o, "uuid", uuid);
	json_set_u64(o, "size", info->size);
	json_set_u64(o, "mapped", info->mapped << VD_BLOCK_SHIFT);
	json_set_bool(o, "blank", info->blank);
	json_set_u64(o, "reserved", info->reserved << VD_BLOCK_SHIFT);
	json_set_u64(o, "reserved_unused", info->unused << VD_BLOCK_SHIFT);
	json_set_bool(o, "readonly", info->flags & VD_VOL_READONLY);
	json_set_bool(o, "snapshot", info->flags & VD_VOL_SNAPSHOT);
	json_set_bool(o, "locked", info->flags & VD_VOL_LOCKED);
	json_set_u64(o, "family", info->family);
	json_set_u64(o, "last_snapshot", info->last_snapshot);
	json_set_u64(o, "created", info->created);
	if (info->origin) {
		json_set_u64(o, "origin_id", info->origin);
		if (!change_info(rq->pool, info->origin, scratch))
			json_set_field(o, "origin", scratch->name, sizeof(scratch->name));
	}
	if (info->flags & VD_VOL_BASE)
		json_set_field(o, "base", info->base, sizeof(info->base));
	json_set(o, "attrs", op_attrs_json(info->attrs));
	if (info->flags & VD_VOL_LOCKED) {
		json_set(o, "lock", vol_holder_to_json(&info->lock));
		json_set_bool(o, "lock_stale", vol_holder_stale(&info->lock));
	}
	for (unsigned i = 0; i < info->npointers && i < VD_POINTERS_MAX; i++)
		json_object_array_add(list, pointer_json(&info->pointer[i]));
	json_set(o, "pointers", list);
	return o;
}

static int list_names(struct vol_request *rq, struct json_object *names, struct vd_volume_info info[2],
		      struct json_object **list, uint64_t *count)
{
	int r = 0;

	for (size_t i = 0; !r && i < json_object_array_length(names); i++) {
		struct json_object *v = json_object_array_get_idx(names, i);
		const char *name = json_object_is_type(v, json_type_string) ? json_object_get_string(v) : "";
		uint32_t id;
		r = vol_check_volume_name(name);
		if (r)
			return op_fail(rq, r, "%s", vol_error(NULL));
		r = op_find(rq, name, &id, &info[0]);
		if (r)
			return r;
		json_object_array_add(*list, volume_json(rq, &info[0], &info[1]));
		++*count;
		if (json_object_array_length(*list) == LIST_BATCH) {
			r = op_send(rq, "volumes", *list);
			*list = json_object_new_array();
		}
	}
	return r;
}

/* What can be told of a volume whose record is lost; no volume has such a name. */
static struct json_object *lost_json(uint32_t id)
{
	struct json_object *o = json_object_new_object();
	char name[32];

	snprintf(name, sizeof(name), "(lost, id %u)", id);
	json_set_u64(o, "id", id);
	json_set_str(o, "name", name);
	json_set_bool(o, "damaged", true);
	return o;
}

/* Something of the volume is among what the pool has lost. */
static bool has_lost(struct json_object *lost, uint32_t id)
{
	for (size_t i = 0; lost && i < json_object_array_length(lost); i++)
		if (json_u64(json_object_array_get_idx(lost, i), "id") == id)
			return true;
	return false;
}

static int list_each(struct vol_request *rq, struct json_object *lost, struct vd_volume_info info[2],
		     struct json_object **list, uint64_t *count)
{
	struct json_object *o;
	uint32_t id = 0;
	bool part_lost = false;
	int r, damage = 0;

	while (!(r = vd_volume_next(rq->pool->engine, &id, &part_lost))) {
		r = vd_volume_info(rq->pool->engine, id, &info[0]);
		if (r == -EBADMSG || r == -EUCLEAN || r == -ENODEV)
			damage = r;
		else if (r && r != -ENOENT) /* removed just now */
			break;
		if (r != -ENOENT) {
			o = r ? lost_json(id) : volume_json(rq, &info[0], &info[1]);
			json_set_bool(o, "damaged", r || has_lost(lost, id));
			json_object_array_add(*list, o);
			++*count;
		}
		if (json_object_array_length(*list) == LIST_BATCH) {
			r = op_send(rq, "volumes", *list);
			*list = json_object_new_array();
			if (!r && vol_interrupted())
				r = -EINTR;
			if (r)
				return r;
		}
		if (++id == 0)
			break;
	}
	if (r && r != -ENOENT)
		return op_fail(rq, r, "the volumes of pool %s cannot be listed: %s", rq->pool->name, vol_strerror(r));
	if (!damage && !part_lost)
		return 0;
	/* What can be listed is of use all the same. */
	r = op_send(rq, "volumes", *list);
	*list = json_object_new_array();
	if (!r && part_lost)
		return op_fail(rq, -EBADMSG, "part of the list of volumes is lost: pool %s may have more than are listed\n`vdpool check %s` tells what is lost",
			       rq->pool->name, rq->pool->name);
	return r ? r : op_fail(rq, damage, "records of volumes in pool %s are damaged; the others are listed\n`vdpool check %s` tells what is lost",
			       rq->pool->name, rq->pool->name);
}

static int list_all(struct vol_request *rq, struct vd_volume_info info[2], struct json_object **list, uint64_t *count)
{
	struct json_object *lost = NULL;
	uint64_t left_out;
	int r;

	if (!op_lost(rq, &lost, &left_out))
		lost = NULL;
	r = list_each(rq, lost, info, list, count);
	json_object_put(lost);
	return r;
}

int op_list(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = calloc(2, sizeof(*info));
	struct json_object *list = json_object_new_array(), *names;
	uint64_t count = 0;
	int r;

	if (!info || !list) {
		r = -ENOMEM;
		goto out;
	}
	if (json_get(rq->args, "names", json_type_array, &names)) {
		r = list_names(rq, names, info, &list, &count);
	} else {
		r = op_view(rq);
		if (!r)
			r = list_all(rq, info, &list, &count);
	}
	if (!r && json_object_array_length(list)) {
		r = op_send(rq, "volumes", list);
		list = NULL;
	}
	if (!r)
		json_set_u64(result, "volumes", count);
out:
	json_object_put(list);
	free(info);
	return r;
}

/* ---- create, remove, rename, resize, set --------------------------------- */

/* The image must be there now: a volume on a misspelt base would be of no use. */
static int check_base(struct vol_request *rq, const char *name, const char *base, uint64_t *bytes)
{
	struct stat st;
	int fd, r = 0;

	if (base[0] != '/' || strlen(base) >= VD_BASE_MAX)
		return op_fail(rq, -EINVAL, "base image \"%.100s\": wanted an absolute path of at most %u bytes", base,
			       VD_BASE_MAX - 1);
	fd = open(base, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return op_fail(rq, vol_errno(), "volume %s/%s is not created: its base image %s cannot be opened: %s",
			       rq->pool->name, name, base, strerror(errno));
	if (fstat(fd, &st))
		r = -errno;
	else if (S_ISREG(st.st_mode))
		*bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, bytes))
		r = -ENOTBLK;
	close(fd);
	return r ? op_fail(rq, r, "volume %s/%s is not created: its base image %s is neither a file nor a block device",
			   rq->pool->name, name, base) : 0;
}

static int check_size(struct vol_request *rq, const char *name, uint64_t size)
{
	if (!size)
		return op_fail(rq, -EINVAL, "volume %s/%s: a size of 0 is not possible", rq->pool->name, name);
	if (size % VD_BLOCK)
		return op_fail(rq, -EINVAL, "volume %s/%s: %llu bytes is not a multiple of 4096", rq->pool->name, name,
			       (unsigned long long)size);
	if (size >> VD_BLOCK_SHIFT > VD_VBLK_END)
		return op_fail(rq, -EINVAL, "volume %s/%s: %llu bytes is more than the 8 EiB a volume can have",
			       rq->pool->name, name, (unsigned long long)size);
	return 0;
}

/* "reserve": bytes, whole blocks up to its size, or "all". */
static int arg_reserve(struct vol_request *rq, const char *name, uint64_t size, uint64_t *blocks)
{
	uint64_t bytes = 0;

	if (!strcmp(json_str(rq->args, "reserve"), "all"))
		bytes = size;
	else if (!json_get_u64(rq->args, "reserve", &bytes) || bytes % VD_BLOCK)
		return op_fail(rq, -EINVAL, "volume %s/%s: \"reserve\" is neither a multiple of 4096 nor \"all\"", rq->pool->name, name);
	if (bytes > size)
		return op_fail(rq, -EINVAL, "volume %s/%s has %llu bytes; a reservation of %llu is more than it can ever use",
			       rq->pool->name, name, (unsigned long long)size, (unsigned long long)bytes);
	*blocks = bytes >> VD_BLOCK_SHIFT;
	return 0;
}

int op_no_promise(struct vol_request *rq, const char *volume, const char *what, uint64_t wanted)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	char want[32], most[32];
	uint64_t n;
	int r = info ? op_view(rq) : -ENOMEM;

	if (r) {
		free(info);
		return r;
	}
	change_state(rq->pool, info);
	n = info->reservable_blocks;
	free(info);
	vol_format_size(wanted, 'h', true, want, sizeof(want));
	vol_format_size(n << VD_BLOCK_SHIFT, 'h', true, most, sizeof(most));
	return op_fail(rq, -ENOSPC, "volume %s/%s cannot be %s: %s would have to be kept for it, and pool %s has %s to promise\n"
		       "reserve less (vdresize --reserve), make room, or enlarge the pool: vdpool add, vdpool grow",
		       rq->pool->name, volume, what, want, rq->pool->name, most);
}

/* A dry run's answer to what the engine would say. */
static int check_reserve(struct vol_request *rq, const struct vd_volume_info *info, uint64_t blocks)
{
	struct vd_pool_info *pi = malloc(sizeof(*pi));
	uint64_t own = !info ? 0 : info->last_snapshot ? info->reserved - info->unused : info->mapped, most;
	int r = pi ? op_view(rq) : -ENOMEM;

	if (r) {
		free(pi);
		return r;
	}
	change_state(rq->pool, pi);
	most = pi->reservable_blocks + own + (info ? info->unused : 0);
	free(pi);
	return blocks > most && (!info || blocks > info->reserved) ? -ENOSPC : 0;
}

int op_create(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_spec spec = { 0 };
	struct json_object *attrs;
	char text[VD_ATTRS_MAX + 1], uuid[VOL_UUID_TEXT];
	uint64_t base_size = 0;
	uint32_t id;
	int r;

	r = op_arg_volume(rq, "volume", &spec.name);
	if (r)
		return r;
	if (json_get_str(rq->args, "base", &spec.base)) {
		r = check_base(rq, spec.name, spec.base, &base_size);
		if (r)
			return r;
		spec.size = (base_size + VD_BLOCK - 1) & ~(uint64_t)(VD_BLOCK - 1);
	}
	if (json_get_u64(rq->args, "size", &spec.size) || spec.base)
		r = check_size(rq, spec.name, spec.size);
	else
		r = op_fail(rq, -EINVAL, "volume %s/%s: neither a size nor a base image was given", rq->pool->name, spec.name);
	if (r)
		return r;
	if (json_get(rq->args, "attrs", json_type_object, &attrs)) {
		r = op_attrs_text(rq, attrs, text);
		if (r)
			return r;
		spec.attrs = text;
	}
	if (json_object_object_get_ex(rq->args, "reserve", &attrs)) {
		r = arg_reserve(rq, spec.name, spec.size, &spec.reserved);
		if (r)
			return r;
	}
	if (json_flag(rq->args, "readonly"))
		spec.flags |= VD_VOL_READONLY;
	if (json_flag(rq->args, "locked")) {
		spec.flags |= VD_VOL_LOCKED;
		r = op_holder(rq, &spec.lock);
		if (r)
			return r;
	}
	vol_uuid_new(spec.uuid);
	if (testing(rq)) {
		r = change_find(rq->pool, spec.name, &id, NULL);
		r = r == -ENOENT ? op_check_writable(rq, spec.name, "created") : r ? r : -EEXIST;
		if (!r && spec.reserved)
			r = check_reserve(rq, NULL, spec.reserved);
	} else {
		r = change_create(rq->pool, &spec, &id);
		json_set_u64(result, "id", r ? 0 : id);
	}
	if (r == -EEXIST)
		return op_fail(rq, r, "volume %s/%s exists already; choose another name, or remove it first: vdrm %s/%s",
			       rq->pool->name, spec.name, rq->pool->name, spec.name);
	if (r == -ENOSPC && spec.reserved)
		return op_no_promise(rq, spec.name, "created", spec.reserved << VD_BLOCK_SHIFT);
	if (r)
		return rq->err.text[0] ? r : op_error(rq, r, spec.name, "created");
	vol_uuid_text(spec.uuid, uuid);
	json_set_str(result, "uuid", uuid);
	json_set_u64(result, "size", spec.size);
	return 0;
}

int op_remove(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	const char *name;
	uint32_t id;
	int r;

	if (!info)
		return -ENOMEM;
	r = find_mine(rq, "removed", &name, &id, info);
	if (!r && info->npointers)
		r = op_error(rq, -EBUSY, name, "removed");
	if (!r && !testing(rq)) {
		/* Its own lock: the engine removes nothing that is locked. */
		if ((info->flags & VD_VOL_LOCKED) && !vol_holder_stale(&info->lock))
			r = change_unlock(rq->pool, id);
		if (!r)
			r = change_delete(rq->pool, id);
		if (r)
			r = op_error(rq, r, name, "removed");
	}
	if (!r)
		json_set_u64(result, "id", id);
	free(info);
	return r;
}

int op_rename(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	const char *name, *to;
	uint32_t id, other;
	int r;

	(void)result;
	if (!info)
		return -ENOMEM;
	r = op_arg_volume(rq, "to", &to);
	if (!r)
		r = find_mine(rq, "renamed", &name, &id, info);
	/* Links are made by name: /dev/vdisk/POOL/VOLUME, and the export. */
	if (!r && info->npointers)
		r = op_error(rq, -EBUSY, name, "renamed");
	if (!r) {
		r = testing(rq) ? change_find(rq->pool, to, &other, NULL) : change_rename(rq->pool, id, to);
		if (testing(rq))
			r = r == -ENOENT ? 0 : r ? r : -EEXIST;
		if (r == -EEXIST)
			r = op_fail(rq, r, "volume %s/%s cannot be renamed: %s/%s exists already", rq->pool->name, name,
				    rq->pool->name, to);
		else if (r)
			r = op_error(rq, r, name, "renamed");
	}
	free(info);
	return r;
}

static bool open_for_writing(const struct vd_volume_info *info)
{
	for (unsigned i = 0; i < info->npointers; i++)
		if (le32_to_cpu(info->pointer[i].mode))
			return true;
	return false;
}

int op_resize(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	uint64_t size = 0, delta;
	const char *name;
	uint32_t id;
	int r;

	if (!info)
		return -ENOMEM;
	r = find_mine(rq, "resized", &name, &id, info);
	if (r)
		goto out;
	if (json_get_u64(rq->args, "grow", &delta))
		size = info->size + delta < delta ? UINT64_MAX & ~(uint64_t)(VD_BLOCK - 1) : info->size + delta;
	else if (json_get_u64(rq->args, "shrink", &delta))
		size = info->size > delta ? info->size - delta : 0;
	else if (!json_get_u64(rq->args, "size", &size))
		r = op_fail(rq, -EINVAL, "request \"resize\" lacks \"size\", \"grow\" or \"shrink\"");
	if (!r && !size && json_get_u64(rq->args, "shrink", &delta))
		r = op_fail(rq, -EINVAL, "volume %s/%s has %llu bytes; %llu less leaves nothing\nvdrm removes it",
			    rq->pool->name, name, (unsigned long long)info->size, (unsigned long long)delta);
	if (!r)
		r = check_size(rq, name, size);
	if (!r && size < info->size && !json_flag(rq->args, "allow_shrink"))
		r = op_fail(rq, -ENOTEMPTY, "volume %s/%s would shrink from %llu to %llu bytes, and what is beyond would be lost",
			    rq->pool->name, name, (unsigned long long)info->size, (unsigned long long)size);
	if (!r && size < info->size && open_for_writing(info) && !json_flag(rq->args, "force"))
		r = op_error(rq, -EBUSY, name, "made smaller");
	if (!r && !testing(rq) && size != info->size) {
		r = change_resize(rq->pool, id, size);
		if (r)
			op_error(rq, r, name, "resized");
	}
	if (!r) {
		json_set_u64(result, "size", size);
		json_set_u64(result, "before", info->size);
	}
out:
	free(info);
	return r;
}

int op_reserve(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	const char *name;
	uint64_t blocks;
	uint32_t id;
	int r;

	if (!info)
		return -ENOMEM;
	r = find_mine(rq, "changed", &name, &id, info);
	if (!r)
		r = arg_reserve(rq, name, info->size, &blocks);
	if (r)
		goto out;
	r = testing(rq) ? check_reserve(rq, info, blocks) : change_reserve(rq->pool, id, blocks);
	if (r == -ENOSPC)
		op_no_promise(rq, name, "given that reservation", blocks << VD_BLOCK_SHIFT);
	else if (r)
		op_error(rq, r, name, "changed");
	if (!r) {
		json_set_u64(result, "reserve", blocks << VD_BLOCK_SHIFT);
		json_set_u64(result, "before", info->reserved << VD_BLOCK_SHIFT);
	}
out:
	free(info);
	return r;
}

static pthread_mutex_t attrs_lock = PTHREAD_MUTEX_INITIALIZER; /* read, merge, write */

static int set_attrs(struct vol_request *rq, const char *name, uint32_t id, struct json_object *changes)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct json_object *attrs = NULL;
	char text[VD_ATTRS_MAX + 1];
	int r;

	if (!info)
		return -ENOMEM;
	pthread_mutex_lock(&attrs_lock);
	r = change_info(rq->pool, id, info);
	if (!r) {
		attrs = op_attrs_json(info->attrs);
		json_object_object_foreach(changes, key, v)
			json_set(attrs, key, json_object_get(v));
		r = op_attrs_text(rq, attrs, text);
		if (!r && !testing(rq)) {
			r = change_set_attrs(rq->pool, id, text);
			if (r)
				op_error(rq, r, name, "changed");
		}
	}
	pthread_mutex_unlock(&attrs_lock);
	json_object_put(attrs);
	free(info);
	return r;
}

int op_set(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct json_object *attrs;
	const char *name;
	bool readonly;
	uint32_t id;
	int r;

	(void)result;
	if (!info)
		return -ENOMEM;
	r = find_mine(rq, "changed", &name, &id, info);
	if (!r && json_get_bool(rq->args, "readonly", &readonly)) {
		if (readonly && open_for_writing(info))
			r = op_error(rq, -EBUSY, name, "made read-only");
		else if (!testing(rq))
			r = change_set_flags(rq->pool, id, readonly ? VD_VOL_READONLY : 0, readonly ? 0 : VD_VOL_READONLY);
		if (r && !rq->err.text[0])
			op_error(rq, r, name, "changed");
	}
	if (!r && json_get(rq->args, "attrs", json_type_object, &attrs))
		r = set_attrs(rq, name, id, attrs);
	free(info);
	return r;
}

/* ---- lock --------------------------------------------------------------- */

int op_lock(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct vd_disk_holder who;
	const char *name;
	uint32_t id;
	int r;

	(void)result;
	if (!info)
		return -ENOMEM;
	r = op_holder(rq, &who);
	if (!r)
		r = find_mine(rq, "locked", &name, &id, info);
	if (!r && !testing(rq) && !op_holds(info, &who)) {
		r = change_lock(rq->pool, id, &who);
		if (r == -EACCES) { /* another came between */
			int k = change_info(rq->pool, id, info);
			r = k ? op_error(rq, k, name, "locked") : op_check_lock(rq, info);
		} else if (r) {
			op_error(rq, r, name, "locked");
		}
	}
	free(info);
	return r;
}

/* Held by a command of this host that is at work on a link of the volume: making or undoing it. */
static bool links_lock(const struct vd_volume_info *info)
{
	char comm[64];

	/* Whoever has a dead command's number by now is not it. */
	if (!vol_holder_is_here(&info->lock) || vol_holder_stale(&info->lock) ||
	    !vol_process((pid_t)le64_to_cpu(info->lock.pid), comm, NULL) || strncmp(comm, "vd", 2))
		return false;
	/* It has no pointer yet, or no more. */
	if (!strncmp(info->lock.purpose, "vdlink", sizeof(info->lock.purpose)) || !strncmp(info->lock.purpose, "vdunlink", sizeof(info->lock.purpose)))
		return true;
	for (unsigned i = 0; i < info->npointers && i < VD_POINTERS_MAX; i++)
		if (strncmp(info->pointer[i].who.purpose, VOL_PURPOSE_CLIENT, sizeof(info->pointer[i].who.purpose)) &&
		    vol_holder_is_here(&info->pointer[i].who))
			return true;
	return false;
}

static int break_lock(struct vol_request *rq, const struct vd_volume_info *info)
{
	struct vd_disk_holder of;
	struct json_object *o;
	char who[256];

	if (!(info->flags & VD_VOL_LOCKED))
		return 0;
	vol_holder_text(&info->lock, who, sizeof(who));
	if (json_get(rq->args, "of", json_type_object, &o)) {
		if (vol_holder_from_json(o, &of))
			return op_fail(rq, -EINVAL, "request \"unlock\": \"of\" is no holder of a lock");
		if (!op_holds(info, &of) || of.since != info->lock.since)
			return op_fail(rq, -EACCES, "volume %s/%s is locked by another now: %s", rq->pool->name, info->name, who);
	}
	if (links_lock(info))
		return op_fail(rq, -EBUSY, "volume %s/%s is being linked or unlinked by %s\n"
			       "wait until that is done, or end it; then 'vdunlink %s/%s' takes away what it has left",
			       rq->pool->name, info->name, who, rq->pool->name, info->name);
	op_warn(rq, "volume %s/%s: the lock of %s was broken", rq->pool->name, info->name, who);
	return 0;
}

int op_unlock(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	const char *name;
	uint32_t id;
	int r;

	(void)result;
	if (!info)
		return -ENOMEM;
	if (!json_flag(rq->args, "force")) {
		r = find_mine(rq, "unlocked", &name, &id, info);
	} else {
		r = op_arg_volume(rq, "volume", &name);
		if (!r)
			r = op_find(rq, name, &id, info);
		if (!r)
			r = op_check_writable(rq, name, "unlocked");
		if (!r)
			r = break_lock(rq, info);
	}
	if (!r && (info->flags & VD_VOL_LOCKED) && !testing(rq)) {
		r = change_unlock(rq->pool, id);
		if (r)
			op_error(rq, r, name, "unlocked");
	}
	free(info);
	return r;
}

/* ---- open pointers ------------------------------------------------------- */

static int pointer_field(struct vol_request *rq, const char *key, char *field, size_t size)
{
	const char *text;

	if (!json_get_str(rq->args, key, &text))
		return 0;
	if (strlen(text) >= size)
		return op_fail(rq, -EINVAL, "\"%s\" has %zu bytes; at most %zu are possible", key, strlen(text), size - 1);
	memset(field, 0, size);
	memcpy(field, text, strlen(text));
	return 0;
}

static int pointer_fields(struct vol_request *rq, struct vd_disk_pointer *p)
{
	int r = pointer_field(rq, "opened_as", p->opened_as, sizeof(p->opened_as));

	if (!r)
		r = pointer_field(rq, "mount", p->mount, sizeof(p->mount));
	if (!r)
		r = pointer_field(rq, "server", p->server, sizeof(p->server));
	return r;
}

int op_pointer_add(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct vd_disk_pointer p = { 0 };
	const char *name, *mode = "";
	uint32_t id, link, server;
	uint64_t epoch;
	int r;

	if (!info)
		return -ENOMEM;
	r = find_mine(rq, "opened", &name, &id, info);
	if (!r)
		r = op_holder(rq, &p.who);
	if (!r && (!json_get_str(rq->args, "mode", &mode) || (strcmp(mode, "ro") && strcmp(mode, "rw"))))
		r = op_fail(rq, -EINVAL, "request \"pointer-add\" needs \"mode\", which is \"ro\" or \"rw\"");
	if (!r && !strcmp(mode, "rw") && (info->flags & VD_VOL_READONLY))
		r = op_fail(rq, -EROFS, "volume %s/%s is read-only; open it so, or make it writable: vdpool set --readonly n %s/%s",
			    rq->pool->name, name, rq->pool->name, name);
	if (!r)
		r = pointer_fields(rq, &p);
	if (!r && p.server[0] && strcmp(p.server, VOL_SERVER_LOCAL))
		r = op_find_server(rq, p.server, &server);
	if (r)
		goto out;
	(void)change_mode(rq->pool, &epoch);
	p.epoch = cpu_to_le64(epoch);
	p.mode = cpu_to_le32(!strcmp(mode, "rw"));
	if (testing(rq))
		goto out;
	r = change_pointer_add(rq->pool, id, &p, &link);
	if (r == -ENOSPC)
		op_fail(rq, r, "volume %s/%s is opened %u times already, which is the most there can be", rq->pool->name, name,
			info->npointers);
	else if (r)
		op_error(rq, r, name, "opened read-write");
	else
		json_set_u64(result, "link", link);
out:
	free(info);
	return r;
}

static int find_link(struct vol_request *rq, const struct vd_volume_info *info, const char *name, uint64_t link,
		     struct vd_disk_pointer *p)
{
	for (unsigned i = 0; i < info->npointers; i++)
		if (le32_to_cpu(info->pointer[i].link) == link) {
			*p = info->pointer[i];
			return 0;
		}
	return op_fail(rq, -ENOENT, "volume %s/%s has no link %llu (any more)", rq->pool->name, name, (unsigned long long)link);
}

static int change_pointer(struct vol_request *rq, bool set)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct vd_disk_pointer p;
	struct json_object *holder;
	const char *name;
	uint64_t link = 0;
	uint32_t id;
	int r;

	if (!info)
		return -ENOMEM;
	r = op_arg_volume(rq, "volume", &name);
	if (!r && !json_get_u64(rq->args, "link", &link))
		r = op_fail(rq, -EINVAL, "request \"%s\" lacks \"link\", a number", json_str(rq->args, "op"));
	if (!r)
		r = op_find(rq, name, &id, info);
	if (!r)
		r = find_link(rq, info, name, link, &p);
	if (!r && set) {
		r = pointer_fields(rq, &p);
		if (!r && json_flag(rq->args, "take") && json_get(rq->args, "holder", json_type_object, &holder))
			r = op_holder(rq, &p.who);
	}
	if (!r && !testing(rq)) {
		r = set ? change_pointer_set(rq->pool, id, (uint32_t)link, &p) : change_pointer_del(rq->pool, id, (uint32_t)link);
		if (r)
			op_error(rq, r, name, "changed");
	}
	free(info);
	return r;
}

int op_pointer_set(struct vol_request *rq, struct json_object *result)
{
	(void)result;
	return change_pointer(rq, true);
}

int op_pointer_del(struct vol_request *rq, struct json_object *result)
{
	(void)result;
	return change_pointer(rq, false);
}
