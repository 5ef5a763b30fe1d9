// SPDX-License-Identifier: LGPL-2.1-or-later
/* Requests about snapshots and what volumes share. ops.c lists them all. */
#include "ops.h"
#include "change.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RANGES 1024 /* of one part */
#define SNAPS_MAX 256

/* ---- snapshot ------------------------------------------------------------ */

struct wanted {
	const char *volume;
	char name[VOL_NAME_SIZE];
	bool named;
};

static int parse_wanted(struct vol_request *rq, struct json_object *item, struct wanted *w)
{
	const char *name = NULL;

	if (!json_object_is_type(item, json_type_object) || !json_get_str(item, "volume", &w->volume))
		return op_fail(rq, -EINVAL, "request \"snapshot\": each of \"snapshots\" needs \"volume\"");
	w->named = json_get_str(item, "name", &name);
	if (vol_check_volume_name(w->volume) || (w->named && vol_check_volume_name(name)))
		return op_fail(rq, -EINVAL, "%s", vol_error(NULL));
	if (w->named)
		snprintf(w->name, sizeof(w->name), "%s", name);
	return 0;
}

/* VOLUME@TIME, and -2, -3, … when it is taken. */
static int make_name(struct vol_request *rq, struct wanted *w, const struct wanted *others, unsigned n, const char *time)
{
	for (unsigned k = 1; k < 10000; k++) {
		char suffix[16] = "";
		bool taken = false;
		uint32_t id;
		int r;
		if (k > 1)
			snprintf(suffix, sizeof(suffix), "-%u", k);
		int len = snprintf(w->name, sizeof(w->name), "%s@%s%s", w->volume, time, suffix);
		if (len < 0 || (size_t)len >= sizeof(w->name))
			return op_fail(rq, -ENAMETOOLONG, "volume %s/%s: with the time added the snapshot's name is longer than %u bytes; name it with -n",
				       rq->pool->name, w->volume, VD_NAME_MAX);
		for (unsigned i = 0; i < n; i++)
			taken |= !strcmp(others[i].name, w->name);
		if (taken)
			continue;
		r = change_find(rq->pool, w->name, &id, NULL);
		if (r == -ENOENT)
			return 0;
		if (r)
			return op_error(rq, r, w->volume, "snapshotted");
	}
	return op_fail(rq, -EEXIST, "volume %s/%s: no free name for its snapshot; name it with -n", rq->pool->name, w->volume);
}

/* A dry run's answer to what the engine would say.  again: blocks that are to be kept once more. */
static int test_snapshot(struct vol_request *rq, const struct wanted *w, unsigned n, uint64_t again)
{
	struct vd_pool_info *info;
	uint32_t id;
	int r = op_check_writable(rq, w[0].volume, "snapshotted");

	for (unsigned i = 0; !r && i < n; i++) {
		for (unsigned k = 0; !r && k < i; k++)
			r = strcmp(w[k].name, w[i].name) ? 0 : -EEXIST;
		if (!r) {
			r = change_find(rq->pool, w[i].name, &id, NULL);
			r = r == -ENOENT ? 0 : r ? r : -EEXIST;
		}
	}
	if (r || !again)
		return r;
	r = op_view(rq);
	if (r)
		return r;
	info = malloc(sizeof(*info));
	if (!info)
		return -ENOMEM;
	change_state(rq->pool, info);
	r = again > info->reservable_blocks ? -ENOSPC : 0;
	free(info);
	return r;
}

static int snapshot(struct vol_request *rq, struct wanted *w, struct vd_snap *snap, unsigned n, struct vd_volume_info *info)
{
	uint64_t now = (uint64_t)time(NULL) * 1000000000u;
	bool test = json_flag(rq->args, "test"), all_named = true;
	const char *promised = NULL;
	uint64_t again = 0;
	char when[32];
	int r;

	vol_time_text(now, when, sizeof(when));
	for (unsigned i = 0; i < n; i++) {
		for (unsigned k = 0; k < i; k++)
			if (!strcmp(w[k].volume, w[i].volume))
				return op_fail(rq, -EINVAL, "volume %s/%s is named twice; a snapshot has each volume once",
					       rq->pool->name, w[i].volume);
		r = op_find(rq, w[i].volume, &snap[i].origin, info);
		if (!r)
			r = op_check_lock(rq, info);
		if (r)
			return r;
		if (info->reserved) {
			promised = w[i].volume;
			again += info->reserved - info->unused;
		}
		snap[i].flags = json_flag(rq->args, "readonly") ? VD_VOL_READONLY : 0;
		snap[i].name = w[i].name;
		vol_uuid_new(snap[i].uuid);
	}
	for (unsigned tries = 0;; tries++) {
		for (unsigned i = 0; i < n; i++) {
			if (w[i].named)
				continue;
			all_named = false;
			r = make_name(rq, &w[i], w, i, when);
			if (r)
				return r;
		}
		r = test ? test_snapshot(rq, w, n, again) : change_snapshot(rq->pool, snap, n);
		if (r != -EEXIST || all_named || tries == 3)
			break;
	}
	if (!r)
		return 0;
	if (r == -EEXIST) {
		for (unsigned i = 0; i < n; i++) {
			uint32_t id;
			if (!change_find(rq->pool, w[i].name, &id, NULL))
				return op_fail(rq, r, "volume %s/%s exists already; choose another name for the snapshot",
					       rq->pool->name, w[i].name);
		}
		return op_fail(rq, r, "two of the snapshots have the same name");
	}
	if (r == -EACCES)
		return op_fail(rq, r, "no snapshot of %s/%s%s: a volume is locked, by who asks or since a moment", rq->pool->name,
			       w[0].volume, n > 1 ? " and the others" : "");
	if (r == -ENOSPC && promised) /* what it shares with the snapshot it must be able to write anew */
		return op_no_promise(rq, promised, "snapshotted", again << VD_BLOCK_SHIFT);
	return rq->err.text[0] ? r : op_error(rq, r, w[0].volume, n > 1 ? "snapshotted with the others" : "snapshotted");
}

int op_snapshot(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct json_object *list, *out;
	struct wanted *w = NULL;
	struct vd_snap *snap = NULL;
	char uuid[VOL_UUID_TEXT];
	size_t n;
	int r;

	if (!json_get(rq->args, "snapshots", json_type_array, &list) || (n = json_object_array_length(list)) < 1 ||
	    n > SNAPS_MAX) {
		r = op_fail(rq, -EINVAL, "a snapshot is of 1 to %u volumes at once", SNAPS_MAX);
		goto out;
	}
	w = calloc(n, sizeof(*w));
	snap = calloc(n, sizeof(*snap));
	r = w && snap && info ? 0 : -ENOMEM;
	for (size_t i = 0; !r && i < n; i++)
		r = parse_wanted(rq, json_object_array_get_idx(list, i), &w[i]);
	if (!r)
		r = snapshot(rq, w, snap, (unsigned)n, info);
	if (r)
		goto out;
	out = json_object_new_array();
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();
		vol_uuid_text(snap[i].uuid, uuid);
		json_set_str(o, "volume", w[i].volume);
		json_set_str(o, "name", w[i].name);
		json_set_str(o, "uuid", uuid);
		json_set_u64(o, "id", snap[i].id);
		json_object_array_add(out, o);
	}
	json_set(result, "snapshots", out);
out:
	free(w);
	free(snap);
	free(info);
	return r;
}

int op_rollback(struct vol_request *rq, struct json_object *result)
{
	struct vd_volume_info *info = calloc(2, sizeof(*info));
	const char *name, *snap;
	uint32_t id, from;
	int r;

	(void)result;
	if (!info)
		return -ENOMEM;
	r = op_arg_volume(rq, "volume", &name);
	if (!r)
		r = op_arg_volume(rq, "snapshot", &snap);
	if (!r)
		r = op_find(rq, name, &id, &info[0]);
	if (!r)
		r = op_find(rq, snap, &from, &info[1]);
	if (!r)
		r = op_check_lock(rq, &info[0]);
	if (!r)
		r = op_check_lock(rq, &info[1]);
	if (!r && id == from)
		r = op_fail(rq, -EINVAL, "volume %s/%s cannot be rolled back to itself", rq->pool->name, name);
	if (!r)
		r = op_check_writable(rq, name, "rolled back");
	if (!r)
		r = op_drop_dead_clients(rq, name, id, &info[0]);
	if (!r && info[0].npointers)
		r = op_error(rq, -EBUSY, name, "rolled back");
	if (!r && info[0].family != info[1].family)
		r = -EXDEV;
	if (!r && !json_flag(rq->args, "test"))
		r = change_rollback(rq->pool, id, from);
	if (r == -EXDEV)
		op_fail(rq, r, "volume %s/%s cannot be rolled back to %s: that is no snapshot of it, nor of its family\n"
			"`vdls -o name,origin %s` tells what was made from what", rq->pool->name, name, snap, rq->pool->name);
	else if (r == -ENOSPC && info[0].reserved)
		op_no_promise(rq, name, "rolled back", (info[0].reserved - info[0].unused) << VD_BLOCK_SHIFT);
	else if (r && !rq->err.text[0])
		op_error(rq, r, name, "rolled back");
	free(info);
	return r;
}

/* ---- diff and usage ------------------------------------------------------ */

struct diff {
	struct vol_request *rq;
	struct json_object *list;
	uint64_t ranges, bytes;
};

static int on_range(void *arg, uint64_t off, uint64_t len)
{
	struct diff *d = arg;
	struct json_object *pair;

	d->ranges++;
	d->bytes += len;
	if (vol_interrupted())
		return -EINTR;
	if (!d->rq->part)
		return 0;
	if (!d->list)
		d->list = json_object_new_array_ext(RANGES);
	pair = json_object_new_array_ext(2);
	json_object_array_add(pair, json_object_new_uint64(off));
	json_object_array_add(pair, json_object_new_uint64(len));
	json_object_array_add(d->list, pair);
	if (json_object_array_length(d->list) < RANGES)
		return 0;
	pair = d->list;
	d->list = NULL;
	return op_send(d->rq, "ranges", pair);
}

int op_diff(struct vol_request *rq, struct json_object *result)
{
	struct diff d = { .rq = rq };
	const char *a, *b;
	uint32_t ia, ib;
	int r;

	r = op_arg_volume(rq, "a", &a);
	if (!r)
		r = op_arg_volume(rq, "b", &b);
	if (!r)
		r = op_find(rq, a, &ia, NULL);
	if (!r)
		r = op_find(rq, b, &ib, NULL);
	if (r)
		return r;
	r = vd_diff(rq->pool->engine, ia, ib, on_range, &d);
	if (!r && d.list) {
		r = op_send(rq, "ranges", d.list);
		d.list = NULL;
	}
	json_object_put(d.list);
	if (r == -EXDEV)
		return op_fail(rq, r, "volumes %s/%s and %s/%s have nothing to do with each other: neither is a snapshot of the other, nor both of a third",
			       rq->pool->name, a, rq->pool->name, b);
	if (r)
		return op_fail(rq, r, "volumes %s/%s and %s/%s cannot be compared: %s", rq->pool->name, a, rq->pool->name, b,
			       vol_strerror(r));
	json_set_u64(result, "ranges", d.ranges);
	json_set_u64(result, "bytes", d.bytes);
	return 0;
}

int op_usage(struct vol_request *rq, struct json_object *result)
{
	struct vd_usage u;
	const char *name;
	uint32_t id;
	int r;

	r = op_arg_volume(rq, "volume", &name);
	if (!r)
		r = op_find(rq, name, &id, NULL);
	if (r)
		return r;
	r = vd_volume_usage(rq->pool->engine, id, &u, op_progress, rq);
	if (r)
		return op_error(rq, r, name, "measured");
	json_set_u64(result, "mapped", u.mapped << VD_BLOCK_SHIFT);
	json_set_u64(result, "exclusive", u.exclusive << VD_BLOCK_SHIFT);
	json_set_u64(result, "shared", u.shared << VD_BLOCK_SHIFT);
	json_set_u64(result, "metadata", u.meta << VD_BLOCK_SHIFT);
	return 0;
}
