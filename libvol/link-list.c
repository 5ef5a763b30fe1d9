// SPDX-License-Identifier: LGPL-2.1-or-later
/* What links there are: read from pools' open pointers, and from what of them is there. */
#include "link-list.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "dm.h"
#include "drive.h"
#include "json.h"

#define CLIENT_PURPOSE "nbd client" /* nbdkit-plugin.c's open pointers */

/* ---- names and places ---------------------------------------------------- */

const char *link_dev_dir(void)
{
	const char *e = getenv("VD_DEV_DIR");

	return e && *e ? e : "/dev/vdisk";
}

void link_present_path(const char *pool, const char *volume, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s/%s", link_dev_dir(), pool, volume);
}

void link_fuse_path(const struct link_info *l, char *buf, size_t size)
{
	snprintf(buf, size, "%s/links/%s/%s.%u", vol_runtime_dir(), l->pool, l->volume, l->link);
}

const char *link_state_text(enum link_state s)
{
	static const char *const text[] = { "up", "down", "unfinished", "elsewhere", "client" };

	return text[s];
}

bool link_served(const struct link_info *l)
{
	return strcmp(l->server, VOL_SERVER_LOCAL) != 0;
}

/* ---- requests to the pool ------------------------------------------------ */

struct json_object *link_request(const char *op, const char *volume)
{
	struct json_object *q = json_object_new_object();

	json_set_str(q, "op", op);
	if (volume)
		json_set_str(q, "volume", volume);
	return q;
}

/* The text moves to where the callers look. */
int link_call(struct vol_pool *p, struct json_object *q, struct json_object **answer)
{
	int r = vol_call(p, q, NULL, NULL, answer);

	json_object_put(q);
	return r ? vol_fail(NULL, r, "%s", vol_error(p)) : 0;
}

int link_members(struct vol_pool *p, unsigned *missing, unsigned *members)
{
	struct json_object *a, *list;
	int r = link_call(p, link_request("pool-info", NULL), &a);

	if (r)
		return r;
	*missing = (unsigned)json_u64(a, "members_missing");
	*members = json_get(a, "members", json_type_array, &list) ? (unsigned)json_object_array_length(list) : 0;
	json_object_put(a);
	return 0;
}

/* ---- what links there are ------------------------------------------------ */

bool link_front_runs(pid_t pid)
{
	char comm[64];

	return vol_process(pid, comm, NULL) && !strcmp(comm, "vd-front");
}

void link_front_wait(pid_t pid, unsigned ms)
{
	int fd = link_front_runs(pid) ? pidfd_open(pid, 0) : -1;

	if (fd < 0)
		return;
	if (link_front_runs(pid)) /* still, and it is that which is waited for */
		vol_process_wait(fd, ms);
	close(fd);
}

static enum link_state state_of(const struct link_info *l, const struct vd_disk_holder *who, const struct vd_disk_holder *self)
{
	char file[512], dev[DEVICE_PATH], comm[64];
	uint64_t size;

	if (!strncmp(who->purpose, CLIENT_PURPOSE, sizeof(who->purpose)))
		return LINK_CLIENT;
	if (memcmp(who->host, self->host, 16))
		return LINK_ELSEWHERE;
	if (memcmp(who->boot, self->boot, 16))
		return LINK_DOWN;
	if (l->kernel && l->front == KERNEL_PID)
		return link_served(l) && !drive_up(l) ? LINK_DOWN : LINK_UP;
	if (!link_front_runs(l->front))
		return vol_process(l->front, comm, NULL) && !strncmp(comm, "vd", 2) ? LINK_UNFINISHED : LINK_DOWN;
	link_fuse_path(l, file, sizeof(file));
	if (device_size(l->device, &size) || !size)
		return LINK_DOWN;
	if (!strncmp(l->device, "/dev/loop", 9) && (device_loop_find(file, dev) || strcmp(dev, l->device)))
		return LINK_DOWN;
	return link_served(l) && !drive_up(l) ? LINK_DOWN : LINK_UP;
}

/* opened_as of a drive of a server: DEVICE ADDRESS PROCESS.BEGAN, where that is 0.0 if it is no VM; or no more than the first. */
static void take_words(struct link_info *l)
{
	unsigned long long began;
	char word[128];
	int pid;

	if (sscanf(l->device, "%127s %47s %d.%llu", word, l->address, &pid, &began) == 4) {
		l->vm = pid;
		l->vm_began = began;
	}
	l->device[strcspn(l->device, " ")] = 0;
}

struct lister { struct vol_pool *pool; link_fn fn; void *arg; struct vd_disk_holder self; };

static int list_pointer(struct lister *ls, struct json_object *vol, struct json_object *ptr)
{
	struct vd_disk_holder who;
	struct json_object *h;
	struct link_info *l = calloc(1, sizeof(*l));
	int r = 0;

	if (!l)
		return -ENOMEM;
	if (!json_get(ptr, "holder", json_type_object, &h) || vol_holder_from_json(h, &who))
		goto out;
	snprintf(l->pool, sizeof(l->pool), "%s", vol_pool_name(ls->pool));
	vol_pool_uuid(ls->pool, l->uuid);
	snprintf(l->volume, sizeof(l->volume), "%s", json_str(vol, "name"));
	l->link = (uint32_t)json_u64(ptr, "link");
	l->readonly = strcmp(json_str(ptr, "mode"), "rw");
	snprintf(l->device, sizeof(l->device), "%s", json_str(ptr, "opened_as"));
	snprintf(l->mount, sizeof(l->mount), "%s", json_str(ptr, "mount"));
	snprintf(l->server, sizeof(l->server), "%s", *json_str(ptr, "server") ? json_str(ptr, "server") : VOL_SERVER_LOCAL);
	if (link_served(l))
		take_words(l);
	snprintf(l->hostname, sizeof(l->hostname), "%.*s", (int)sizeof(who.hostname), who.hostname);
	l->since = le64_to_cpu(who.since);
	l->front = (pid_t)le64_to_cpu(who.pid);
	l->size = json_u64(vol, "size");
	link_present_path(l->pool, l->volume, l->path, sizeof(l->path));
	l->here = !memcmp(who.host, ls->self.host, 16);
	l->kernel = l->here && !vol_uuid_parse(json_str(vol, "uuid"), l->volume_uuid) &&
		    !vol_dm_find(l->uuid, l->volume_uuid, l->device);
	l->state = state_of(l, &who, &ls->self);
	if (l->front == KERNEL_PID)
		l->front = 0; /* nobody's to signal, or to show */
	r = ls->fn(ls->arg, l);
out:
	free(l);
	return r;
}

static int list_part(void *arg, struct json_object *o)
{
	struct json_object *part, *vols, *vol, *ptrs;
	int r = 0;

	if (!json_get(o, "part", json_type_object, &part) || !json_get(part, "volumes", json_type_array, &vols))
		return 0;
	for (size_t i = 0; !r && i < json_object_array_length(vols); i++) {
		vol = json_object_array_get_idx(vols, i);
		if (!json_get(vol, "pointers", json_type_array, &ptrs))
			continue;
		for (size_t k = 0; !r && k < json_object_array_length(ptrs); k++)
			r = list_pointer(arg, vol, json_object_array_get_idx(ptrs, k));
	}
	return r;
}

int link_list_open(struct vol_pool *p, const char *volume, link_fn fn, void *arg)
{
	struct lister ls = { .pool = p, .fn = fn, .arg = arg };
	struct json_object *q = link_request("list", NULL), *names;
	int r;

	vol_holder_self(&ls.self, NULL);
	if (volume) {
		names = json_object_new_array();
		json_object_array_add(names, json_object_new_string(volume));
		json_set(q, "names", names);
	}
	r = vol_call(p, q, list_part, &ls, NULL);
	json_object_put(q);
	return r < 0 && *vol_error(p) ? vol_fail(NULL, r, "%s", vol_error(p)) : r;
}

static int look(void *arg, const struct link_info *l)
{
	struct link_looked *k = arg;

	if (l->state != LINK_ELSEWHERE && l->state != LINK_CLIENT) {
		k->mine = *l;
		k->have_mine = true;
	} else if (!l->readonly) {
		k->writer = *l;
		k->have_writer = true;
	}
	return 0;
}

int link_look(struct vol_pool *p, const char *volume, struct link_looked *k)
{
	memset(k, 0, sizeof(*k));
	return link_list_open(p, volume, look, k);
}

void link_result(struct link_results *all, int r)
{
	if (r && all->r)
		vol_log(VOL_LOG_ERROR, "%s", vol_error(NULL));
	else if (r)
		snprintf(all->text, sizeof(all->text), "%s", vol_error(NULL));
	all->r = all->r ? all->r : r;
}

int link_each_pool(const char *pool, int (*fn)(void *arg, const char *name), void *arg)
{
	struct link_results all = { 0 };
	struct vol_found *found;
	size_t n, k;
	int r;

	if (pool)
		return fn(arg, pool);
	r = vol_find_members(&found, &n);
	if (r)
		return r;
	for (size_t i = 0; i < n && !vol_interrupted(); i++) {
		char uuid[VOL_UUID_TEXT];

		if (found[i].error)
			continue;
		for (k = 0; k < i && (found[k].error || memcmp(found[k].pool, found[i].pool, 16)); k++)
			;
		if (k < i)
			continue;
		vol_uuid_text(found[i].pool, uuid);
		link_result(&all, fn(arg, uuid));
	}
	vol_found_free(found, n);
	if (!all.r && vol_interrupted())
		return vol_fail(NULL, -EINTR, "interrupted");
	return all.r ? vol_fail(NULL, all.r, "%s", all.text) : 0;
}

struct list_all { link_fn fn; void *arg; };

static int list_one(void *arg, const char *name)
{
	struct list_all *a = arg;
	struct vol_pool *p;
	int r, k;

	r = vol_pool_open(name, VOL_READONLY, &p);
	if (r)
		return r;
	r = link_list_open(p, NULL, a->fn, a->arg);
	k = vol_pool_close(p);
	return r ? r : k;
}

int link_list(const char *pool, link_fn fn, void *arg)
{
	struct list_all a = { fn, arg };

	return link_each_pool(pool, list_one, &a);
}

static int note_front(void *arg, const struct link_info *l)
{
	*(bool *)arg |= l->state != LINK_ELSEWHERE && l->state != LINK_CLIENT && link_front_runs(l->front);
	return 0;
}

int link_fronts(struct vol_pool *p, bool *any)
{
	*any = false;
	return link_list_open(p, NULL, note_front, any);
}
