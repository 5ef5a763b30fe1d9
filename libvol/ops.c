// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Requests: one JSON object in, one out, the same on a control socket and in
 * the process that has the pool open.
 *
 * vol-requests.  Volumes are named in "volume"; sizes and offsets are bytes;
 * [x] may be left out.  Every request has "holder": who asks.
 *
 *   ping            → name uuid pid server nbd
 *   pool-info       → see below, op_pool_info()
 *   pool-check      [quick] [repair] ; parts {"faults": [{fault text a b [id volume] [member]}…]} → faults not_listed
 *   pool-dump       parts {"nodes": […]} → nodes lost
 *   pool-add        path [size] [force] [test] → path member
 *   pool-set        [thresholds: 4 per-mille numbers] [policy: "queue" | "error"] [discards: "passdown" | "nopassdown"] [grow_by] [grow_to]
 *   pool-grow       [member: number or path] [size | grow] → grown: [{member path before size}…]
 *   flush  checkpoint
 *   stop-if-unused  [wait: ms for connections to end, 250 at most] → stopped: true, or false and reason, linked
 *   list            [names: […]] ; parts {"volumes": [{…}…]} → volumes
 *   create          volume size|base [readonly] [attrs] [locked] [reserve] → id uuid size
 *   remove          volume → id
 *   rename          volume to
 *   resize          volume size|grow|shrink [allow_shrink] [force] → size before
 *   reserve         volume reserve: bytes or "all" → reserve before
 *   set             volume [readonly] [attrs: {key: string or null}]
 *   lock            volume
 *   unlock          volume [force: whoever holds it, [of: if it is still that holder]]
 *   pointer-add     volume mode: "ro" | "rw" [opened_as] [mount] [server] → link
 *   pointer-set     volume link [opened_as] [mount] [server] [take: who asks becomes the holder]
 *   pointer-del     volume link
 *   snapshot        snapshots: [{volume [name]}…] [readonly] → snapshots: [{volume name uuid id}…]
 *   rollback        volume snapshot
 *   diff            a b ; parts {"ranges": [[offset, length]…]} → ranges bytes
 *   usage           volume → mapped exclusive shared metadata
 *   server-add      server attrs: {kind: "vm", qmp: path, [bus]} → uuid
 *   server-list     [server] ; parts {"servers": [{name uuid created attrs}…]} → servers
 *   server-remove   server
 *
 * With "test": true nothing is changed, and only what can be known is checked.
 * A result may have "warnings": […], for the user.
 *
 * All values come from outside: each is looked at for type and range before use.
 */
#include "ops.h"
#include "change.h"
#include "dm.h"
#include "find.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define BATCH 256 /* items of one part */

/* ---- shared ------------------------------------------------------------- */

void op_warn(struct vol_request *rq, const char *fmt, ...)
{
	struct json_object *list;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!json_get(rq->result, "warnings", json_type_array, &list)) {
		list = json_object_new_array();
		json_set(rq->result, "warnings", list);
	}
	json_object_array_add(list, json_object_new_string(text));
	if (rq->server)
		vol_log(VOL_LOG_WARN, "pool %s: %s", rq->pool->name, text);
}

int op_view(struct vol_request *rq)
{
	int r = vol_pool_view(rq->pool);

	return r && r != -ESTALE ? op_fail(rq, r, "%s", vol_error(NULL)) : r;
}

static const char *read_only_why(struct vol_request *rq)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	const char *why = "it is open for reading only";

	if (!info || vol_pool_view(rq->pool)) {
		free(info);
		return why;
	}
	change_state(rq->pool, info);
	if (info->mode == VD_MODE_FAILED && rq->pool->kernel)
		why = "a metadata write failed, and the kernel takes nothing any more\n"
		      "unmount its volumes, 'dmsetup remove' their devices and then the pool's, and 'vdlink --restore'";
	else if (info->mode == VD_MODE_FAILED)
		why = "a metadata write failed, and nothing is taken any more until it is opened again";
	else if (info->nmissing)
		why = "members are missing; `vdpool show` tells which";
	else if (info->rolled_back)
		why = "its newest superblock is lost, and what is shown is older; vd(7), DAMAGE tells what can be done";
	else if (info->read_only_feature)
		why = "a later version of vd gave it a feature with which this one can only read it";
	else if (info->damaged || !(rq->pool->flags & VOL_READONLY))
		why = "its metadata is damaged; `vdpool show` tells what is lost, and vd(7), DAMAGE what can be done";
	free(info);
	return why;
}

/* Who has it open, as far as the pool knows. */
static void busy_why(struct vol_request *rq, const char *volume, char *buf, size_t size)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	char who[256];
	uint32_t id;

	snprintf(buf, size, rq->pool->kernel ? "a table of device-mapper names it\n`dmsetup table --target vd-volume` tells which" :
					       "it is open in the pool's server");
	if (info && !change_find(rq->pool, volume, &id, info) && info->npointers) {
		const struct vd_disk_pointer *p = &info->pointer[0];
		for (unsigned i = 0; i < info->npointers; i++)
			if (le32_to_cpu(info->pointer[i].mode))
				p = &info->pointer[i]; /* the writer, if any */
		vol_holder_text(&p->who, who, sizeof(who));
		snprintf(buf, size, "it is open %s as %.*s%s%.*s (link %u; %s)\n`vdunlink %s/%s` ends that",
			 le32_to_cpu(p->mode) ? "read-write" : "read-only", (int)sizeof(p->opened_as), p->opened_as,
			 p->mount[0] ? ", mounted on " : "", (int)sizeof(p->mount), p->mount, le32_to_cpu(p->link), who,
			 rq->pool->name, volume);
	}
	free(info);
}

int op_error(struct vol_request *rq, int r, const char *volume, const char *what)
{
	const char *pool = rq->pool->name;
	char why[768];

	switch (r) {
	case -ENOENT:
		return op_fail(rq, r, "there is no volume %s/%s; `vdls %s` lists what there is", pool, volume, pool);
	case -EACCES:
		return op_fail(rq, r, "volume %s/%s cannot be %s: it is locked", pool, volume, what);
	case -EBUSY:
		busy_why(rq, volume, why, sizeof(why));
		return op_fail(rq, r, "volume %s/%s cannot be %s: %s", pool, volume, what, why);
	case -EROFS:
		return op_fail(rq, r, "volume %s/%s cannot be %s: the pool is read-only: %s", pool, volume, what,
			       read_only_why(rq));
	case -ENOSPC:
		return op_fail(rq, r, "volume %s/%s cannot be %s: the pool is full\nremove volumes or snapshots, or give it a member: vdpool add %s DEVICE",
			       pool, volume, what, pool);
	}
	return op_fail(rq, r, "volume %s/%s cannot be %s: %s", pool, volume, what, vol_strerror(r));
}

int op_not_in_kernel(struct vol_request *rq, const char *what)
{
	char device[DM_PATH] = "";

	if (vol_dm_find(rq->pool->uuid, NULL, device))
		device[0] = 0;
	return op_fail(rq, -EBUSY, "pool %s is open in the kernel, where %s is not possible yet\n"
		       "unlink its volumes ('vdlink ls %s' lists them; then %s is gone), do it, and link them again",
		       rq->pool->name, what, rq->pool->name, *device ? device : "its device");
}

int op_arg_volume(struct vol_request *rq, const char *key, const char **name)
{
	if (!json_get_str(rq->args, key, name))
		return op_fail(rq, -EINVAL, "request \"%s\" lacks \"%s\", the name of a volume", json_str(rq->args, "op"), key);
	int r = vol_check_volume_name(*name);
	return r ? op_fail(rq, r, "%s", vol_error(NULL)) : 0;
}

int op_find(struct vol_request *rq, const char *name, uint32_t *id, struct vd_volume_info *info)
{
	int r = change_find(rq->pool, name, id, info);

	if (r == -EBUSY)
		return op_fail(rq, r, "pool %s: the kernel, which has it open, cannot be asked: %s", rq->pool->name, vol_strerror(r));
	return r && r != -ESTALE ? op_error(rq, r, name, "read") : r;
}

int op_holder(struct vol_request *rq, struct vd_disk_holder *who)
{
	struct json_object *o;

	if (!json_get(rq->args, "holder", json_type_object, &o) || vol_holder_from_json(o, who))
		return op_fail(rq, -EINVAL, "request \"%s\" does not say who asks (\"holder\")", json_str(rq->args, "op"));
	return 0;
}

bool op_holds(const struct vd_volume_info *info, const struct vd_disk_holder *who)
{
	const struct vd_disk_holder *lock = &info->lock;

	return info->flags & VD_VOL_LOCKED && !memcmp(lock->host, who->host, 16) && !memcmp(lock->boot, who->boot, 16) &&
	       lock->pid == who->pid;
}

int op_check_lock(struct vol_request *rq, const struct vd_volume_info *info)
{
	struct vd_disk_holder who;
	char text[256];
	int r;

	if (!(info->flags & VD_VOL_LOCKED))
		return 0;
	r = op_holder(rq, &who);
	if (r)
		return r;
	if (op_holds(info, &who))
		return 0;
	vol_holder_text(&info->lock, text, sizeof(text));
	if (!vol_holder_stale(&info->lock))
		return op_fail(rq, -EACCES, "volume %s/%s is locked by %s\nwait until that is done; if it never will be: vdlock break --force %s/%s",
			       rq->pool->name, info->name, text, rq->pool->name, info->name);
	op_warn(rq, "volume %s/%s: the lock of %s is stale and was broken", rq->pool->name, info->name, text);
	if (json_flag(rq->args, "test"))
		return 0;
	r = change_unlock(rq->pool, info->id);
	return r ? op_error(rq, r, info->name, "unlocked") : 0;
}

int op_send(struct vol_request *rq, const char *key, struct json_object *list)
{
	struct json_object *o, *part;
	int r;

	if (!rq->part) {
		json_object_put(list);
		return 0;
	}
	o = json_object_new_object();
	part = json_object_new_object();
	json_set(part, key, list);
	json_set(o, "part", part);
	r = rq->part(rq->arg, o);
	json_object_put(o);
	return r;
}

int op_progress(void *arg, unsigned permille)
{
	struct vol_request *rq = arg;
	struct json_object *o;
	int r;

	if (vol_interrupted() || (rq->server && vol_server_stopping(rq->server)))
		return -EINTR;
	if (!rq->part || permille == rq->permille)
		return 0;
	rq->permille = permille;
	o = json_object_new_object();
	json_set_u64(o, "progress", permille);
	r = rq->part(rq->arg, o);
	json_object_put(o);
	return r;
}

/* ---- pool --------------------------------------------------------------- */

static int op_ping(struct vol_request *rq, struct json_object *result)
{
	char uuid[VOL_UUID_TEXT];

	vol_uuid_text(rq->pool->uuid, uuid);
	json_set_str(result, "name", rq->pool->name);
	json_set_str(result, "uuid", uuid);
	json_set_u64(result, "pid", (uint64_t)getpid());
	json_set_bool(result, "server", rq->server != NULL);
	if (rq->server)
		json_set_str(result, "nbd", vol_server_hooks_of(rq->server)->nbd_socket);
	return 0;
}

static struct json_object *members_json(struct vol_request *rq, const struct vd_pool_info *info)
{
	struct json_object *list = json_object_new_array();

	for (unsigned m = 0; m < info->nmembers; m++) {
		struct json_object *o = json_object_new_object();
		char text[VOL_UUID_TEXT];
		uint8_t uuid[16];
		uint64_t blocks;
		bool missing;
		if (vd_pool_member(rq->pool->engine, m, uuid, &blocks, &missing)) {
			json_object_put(o);
			continue;
		}
		vol_uuid_text(uuid, text);
		json_set_u64(o, "member", m);
		json_set_str(o, "uuid", text);
		json_set_u64(o, "size", blocks << VD_BLOCK_SHIFT);
		json_set_str(o, "path", vol_host_path(rq->pool->host, m));
		json_set_bool(o, "missing", missing);
		json_set_bool(o, "too_short", info->too_short[m / 8] >> (m % 8) & 1);
		json_object_array_add(list, o);
	}
	return list;
}

/* For data of volumes without a reservation. */
static uint64_t free_blocks(const struct vd_pool_info *info)
{
	uint64_t taken = info->used_blocks + info->reserve_blocks + info->promised_blocks;

	return info->total_blocks > taken ? info->total_blocks - taken : 0;
}

static int op_pool_info(struct vol_request *rq, struct json_object *result)
{
	static const char *const modes[] = { "rw", "out-of-space", "read-only", "failed" };
	struct vd_pool_info *info = malloc(sizeof(*info));
	struct json_object *o;
	char uuid[VOL_UUID_TEXT], device[DM_PATH];
	uint64_t left_out;

	if (!info)
		return -ENOMEM;
	change_state(rq->pool, info);
	vol_uuid_text(info->uuid, uuid);
	json_set_str(result, "name", info->name);
	json_set_str(result, "uuid", uuid);
	/* How it is, not how this process happens to have opened it. */
	if (info->mode == VD_MODE_READONLY && (rq->pool->flags & VOL_READONLY) && !info->nmissing && !info->damaged &&
	    !info->read_only_feature)
		info->mode = free_blocks(info) ? VD_MODE_RW : VD_MODE_OUT_OF_SPACE;
	json_set_str(result, "mode", (unsigned)info->mode < 4 ? modes[info->mode] : "unknown");
	json_set_u64(result, "size", info->total_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "used", info->used_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "metadata", info->metadata_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "reserve", info->reserve_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "reserved", info->promised_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "reservable", info->reservable_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "free", free_blocks(info) << VD_BLOCK_SHIFT);
	json_set_u64(result, "journal", info->journal_blocks << VD_BLOCK_SHIFT);
	json_set_u64(result, "journal_used", info->journal_used << VD_BLOCK_SHIFT);
	json_set_u64(result, "overlay_extents", info->overlay_extents);
	json_set_u64(result, "metadata_written", info->meta_written << VD_BLOCK_SHIFT);
	json_set_u64(result, "generation", info->generation);
	json_set_u64(result, "incarnation", info->incarnation);
	json_set_u64(result, "epoch", info->epoch);
	json_set_u64(result, "seq", info->seq);
	json_set_u64(result, "durable_seq", info->durable_seq);
	json_set_u64(result, "sector_size", info->sector_size);
	json_set_u64(result, "created", info->created);
	json_set_str(result, "policy", info->policy.flags & VD_POLICY_ERROR_IF_FULL ? "error" : "queue");
	json_set_str(result, "discards", info->policy.flags & VD_POLICY_NO_DISCARD ? "nopassdown" : "passdown");
	o = json_object_new_array();
	for (unsigned i = 0; i < 4; i++)
		json_object_array_add(o, json_object_new_uint64(info->policy.threshold[i]));
	json_set(result, "thresholds", o);
	json_set_u64(result, "grow_by", info->policy.grow_by << VD_BLOCK_SHIFT);
	json_set_u64(result, "grow_to", info->policy.grow_to << VD_BLOCK_SHIFT);
	json_set_bool(result, "damaged", info->damaged);
	json_set_bool(result, "rolled_back", info->rolled_back);
	json_set_bool(result, "read_only_feature", info->read_only_feature);
	if (op_lost(rq, &o, &left_out)) {
		json_set(result, "lost", o);
		json_set_u64(result, "lost_not_listed", left_out);
	}
	json_set_u64(result, "members_missing", info->nmissing);
	json_set(result, "members", members_json(rq, info));
	if (rq->pool->have_owner) {
		o = json_object_new_object();
		json_set_bool(o, "in_use", le32_to_cpu(rq->pool->owner.state) != 0);
		json_set_u64(o, "incarnation", le64_to_cpu(rq->pool->owner.incarnation));
		json_set(o, "holder", vol_holder_to_json(&rq->pool->owner.who));
		json_set(result, "last_owner", o);
	}
	json_set_bool(result, "beside_owner", rq->pool->beside);
	json_set_str(result, "active", rq->pool->kernel ? "kernel" : rq->server ? "server" : "no");
	if (rq->pool->kernel && !vol_dm_find(rq->pool->uuid, NULL, device))
		json_set_str(result, "device", device);
	if (rq->server) {
		o = json_object_new_object();
		json_set_u64(o, "pid", (uint64_t)getpid());
		json_set_str(o, "nbd", vol_server_hooks_of(rq->server)->nbd_socket);
		if (vol_server_hooks_of(rq->server)->connections)
			json_set_u64(o, "connections",
				     vol_server_hooks_of(rq->server)->connections(vol_server_hooks_of(rq->server)->arg, 0));
		json_set(result, "server", o);
	} else {
		json_set(result, "server", NULL);
	}
	free(info);
	return 0;
}

/* What a walk found, kept until it is over: during the walk the engine holds the
 * checkpoint back, and must not wait for a slow reader of the answer. */
struct found {
	struct vol_request *rq;
	void *item;
	size_t n, room, size; /* items; of one */
	uint64_t left_out;
};
#define FAULTS_MAX 65536u /* told one by one */
#define LOST_MAX 1024u

static int found_add(struct found *f, const void *item)
{
	if (f->n == f->room) {
		size_t room = f->room ? 2 * f->room : 64;
		void *grown = realloc(f->item, room * f->size);
		if (!grown)
			return -ENOMEM;
		f->item = grown;
		f->room = room;
	}
	memcpy((char *)f->item + f->n++ * f->size, item, f->size);
	return 0;
}

static int found_send(struct found *f, const char *key, struct json_object *(*to_json)(struct vol_request *, const void *))
{
	struct json_object *list = NULL;
	int r = 0;

	for (size_t i = 0; !r && i < f->n; i++) {
		if (!list)
			list = json_object_new_array();
		json_object_array_add(list, to_json(f->rq, (const char *)f->item + i * f->size));
		if (json_object_array_length(list) == BATCH || i == f->n - 1) {
			r = op_send(f->rq, key, list);
			list = NULL;
		}
	}
	json_object_put(list);
	return r;
}

static void place(char *buf, size_t size, vd_pblk_t p)
{
	snprintf(buf, size, "block %llu of member %u", (unsigned long long)VD_PBLK_BLOCK(p), VD_PBLK_MEMBER(p));
}

static void fault_text(const struct vd_check_report *r, const char *name, char *buf, size_t size)
{
	unsigned long long a = r->a, b = r->b;
	char who[VOL_NAME_SIZE + 32] = "", at[64];

	if (r->volume && name[0])
		snprintf(who, sizeof(who), "volume %s: ", name);
	else if (r->volume)
		snprintf(who, sizeof(who), "volume id %u: ", r->volume);
	place(at, sizeof(at), r->a);
	switch (r->fault) {
	case VD_FAULT_NODE:
		snprintf(buf, size, "%smetadata, %s: unreadable in every copy", who, at);
		return;
	case VD_FAULT_COPY:
		snprintf(buf, size, "%smetadata, %s: this copy is bad or missing, the other is good", who, at);
		return;
	case VD_FAULT_COUNT:
		snprintf(buf, size, "%s%s: %llu references found, %llu recorded", who, at, b >> 32, b & 0xffffffffu);
		return;
	case VD_FAULT_LEAK:
		snprintf(buf, size, "%s%llu blocks from %s on: counted as used, but nothing refers to them", who, b, at);
		return;
	case VD_FAULT_ORDER:
		snprintf(buf, size, "%smetadata, %s: entries out of order or out of range", who, at);
		return;
	case VD_FAULT_RECORD:
		snprintf(buf, size, "%sits record makes no sense", who[0] ? who : "a volume: ");
		return;
	case VD_FAULT_RANGE:
		if (r->member < VD_MEMBERS_MAX)
			snprintf(buf, size, "%scannot be read: %llu bytes from %llu on, which are on member %u", who, b, a, r->member);
		else
			snprintf(buf, size, "%slost: %llu bytes from %llu on", who, b, a);
		return;
	case VD_FAULT_NAME:
		snprintf(buf, size, "%sit is not found by its name", who);
		return;
	case VD_FAULT_MAPPED:
		snprintf(buf, size, "%s%llu mapped blocks recorded, %llu found", who, a, b);
		return;
	case VD_FAULT_PROMISED:
		snprintf(buf, size, "%llu blocks recorded as kept for reservations, and volumes have %llu", a, b);
		return;
	case VD_FAULT_MEMBER:
		if (b)
			snprintf(buf, size, "member %llu is too short: it has %llu blocks of 4 KiB, and the data behind them cannot be read", a, b);
		else
			snprintf(buf, size, "member %llu is missing: the data on it cannot be read", a);
		return;
	case VD_FAULT_USED:
		snprintf(buf, size, "%llu used blocks recorded in the superblock, %llu counted", a, b);
		return;
	case VD_FAULT_MORE:
		snprintf(buf, size, "%scannot be read: %llu bytes more in many pieces, from %llu on, which are on missing members", who, b, a);
		return;
	case VD_FAULT_VOLUMES:
		snprintf(buf, size, "part of the list of volumes is lost: those with ids %llu to %llu cannot be found", a, a + b - 1);
		return;
	}
	snprintf(buf, size, "%sfault %d (%llu, %llu)", who, (int)r->fault, a, b);
}

static struct json_object *fault_json(struct vol_request *rq, const void *item)
{
	static const char *const names[] = { "node", "copy", "count", "leak", "order", "record", "range", "name", "mapped",
						     "promised", "member", "used", "more", "volumes" };
	struct vd_check_report r = *(const struct vd_check_report *)item, *rep = &r;
	struct json_object *o = json_object_new_object();
	struct vd_volume_info *info = rep->volume ? malloc(sizeof(*info)) : NULL;
	const char *name = info && !vd_volume_info(rq->pool->engine, rep->volume, info) ? info->name : "";
	char text[512];

	/* A page covers more than the volume has. */
	if (rep->fault == VD_FAULT_RANGE && name[0] && rep->a < info->size)
		rep->b = vd_min(rep->b, info->size - rep->a);
	fault_text(rep, name, text, sizeof(text));
	json_set_str(o, "fault", (unsigned)rep->fault < sizeof(names) / sizeof(names[0]) ? names[rep->fault] : "other");
	json_set_str(o, "text", text);
	if (rep->volume)
		json_set_u64(o, "id", rep->volume);
	if (name[0])
		json_set_str(o, "volume", name);
	json_set_u64(o, "a", rep->a);
	json_set_u64(o, "b", rep->b);
	if (rep->fault == VD_FAULT_RANGE && rep->member < VD_MEMBERS_MAX)
		json_set_u64(o, "member", rep->member);
	free(info);
	return o;
}

static int on_fault(void *arg, const struct vd_check_report *rep)
{
	struct vol_request *rq = arg;
	struct found *f = rq->scratch;

	if (f->n < FAULTS_MAX)
		return found_add(f, rep);
	f->left_out++;
	return 0;
}

static bool is_damaged(struct vol_request *rq)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	bool yes = false;

	if (info) {
		change_state(rq->pool, info);
		yes = info->damaged;
	}
	free(info);
	return yes;
}

static int on_lost(void *arg, const struct vd_check_report *rep)
{
	struct found *f = arg;

	if (f->n < LOST_MAX)
		return found_add(f, rep);
	f->left_out++;
	return 0;
}

bool op_lost(struct vol_request *rq, struct json_object **list, uint64_t *left_out)
{
	struct found f = { .rq = rq, .size = sizeof(struct vd_check_report) };
	uint64_t faults;
	int r;

	if (!is_damaged(rq))
		return false;
	*list = json_object_new_array();
	r = vd_check(rq->pool->engine, VD_CHECK_LOST, on_lost, &f, NULL, &faults);
	for (size_t i = 0; !r && i < f.n; i++)
		json_object_array_add(*list, fault_json(rq, (const struct vd_check_report *)f.item + i));
	*left_out = f.left_out;
	free(f.item);
	if (r)
		vol_log(VOL_LOG_WARN, "pool %s: what it has lost cannot be found out: %s", rq->pool->name, vol_strerror(r));
	return true;
}

static int op_pool_check(struct vol_request *rq, struct json_object *result)
{
	struct found f = { .rq = rq, .size = sizeof(struct vd_check_report) };
	bool was, repair = json_flag(rq->args, "repair") && !json_flag(rq->args, "test"), kernel = rq->pool->kernel;
	uint64_t faults = 0;
	int r, pin;

	if (repair && kernel)
		return op_not_in_kernel(rq, "a repair, for which nothing else may change,");
	r = kernel ? vol_pool_pin(rq->pool, &pin) : 0;
	if (r)
		return r == -ESTALE ? r : op_fail(rq, r, "%s", vol_error(NULL));
	was = is_damaged(rq);
	rq->scratch = &f;
	r = vd_check(rq->pool->engine, json_flag(rq->args, "quick") ? VD_CHECK_QUICK : repair ? VD_CHECK_REPAIR : 0,
		     on_fault, rq, op_progress, &faults);
	if (kernel && vol_pool_unpin(rq->pool, pin) && r != -EINTR && (r || faults))
		r = op_fail(rq, -EAGAIN, "%s", vol_error(NULL));
	if (!r)
		r = found_send(&f, "faults", fault_json);
	free(f.item);
	if (r == -EINTR)
		return op_fail(rq, r, "the check of pool %s was interrupted; nothing is known of the rest", rq->pool->name);
	if (r == -EAGAIN && kernel)
		return r;
	if (r)
		return op_fail(rq, r, "pool %s cannot be checked: %s", rq->pool->name, vol_strerror(r));
	json_set_u64(result, "faults", faults);
	json_set_bool(result, "was_damaged", was);
	json_set_bool(result, "damaged", is_damaged(rq));
	json_set_u64(result, "not_listed", f.left_out);
	json_set_bool(result, "quick", json_flag(rq->args, "quick"));
	return 0;
}

struct dumped {
	struct vd_disk_node node;
	uint32_t volume;
	unsigned level;
	bool lost;
};

static struct json_object *node_json(struct vol_request *rq, const void *item)
{
	static const char *const kinds[] = { "?", "index", "extents", "space", "volume" };
	const struct dumped *d = item;
	struct json_object *o = json_object_new_object();
	uint64_t b = le64_to_cpu(d->node.b);

	(void)rq;
	json_set_u64(o, "volume", d->volume);
	json_set_u64(o, "level", d->level);
	json_set_str(o, "kind", d->lost ? "lost" : d->node.kind < 5 ? kinds[d->node.kind] : "?");
	json_set_u64(o, "block", le64_to_cpu(d->node.a));
	json_set(o, "copy", b == VD_PBLK_NONE ? NULL : json_object_new_uint64(b));
	json_set_u64(o, "generation", le64_to_cpu(d->node.gen));
	json_set_u64(o, "key_lo", le64_to_cpu(d->node.key_lo));
	json_set_u64(o, "key_hi", le64_to_cpu(d->node.key_hi));
	if (!d->lost) {
		json_set_u64(o, "entries", le16_to_cpu(d->node.count));
		json_set_u64(o, "owner", le32_to_cpu(d->node.owner));
	}
	return o;
}

static int on_node(void *arg, const struct vd_dump_item *item)
{
	struct dumped d = { .volume = item->volume, .level = item->level, .lost = !item->node };

	if (item->node) {
		d.node = *item->node;
	} else {
		d.node.a = cpu_to_le64(item->a);
		d.node.b = cpu_to_le64(item->b);
		d.node.gen = cpu_to_le64(item->gen);
		d.node.key_lo = cpu_to_le64(item->lo);
		d.node.key_hi = cpu_to_le64(item->hi);
	}
	return vol_interrupted() ? -EINTR : found_add(arg, &d);
}

static int op_pool_dump(struct vol_request *rq, struct json_object *result)
{
	struct found f = { .rq = rq, .size = sizeof(struct dumped) };
	uint64_t lost = 0;
	int r;

	r = vd_dump(rq->pool->engine, on_node, &f);
	for (size_t i = 0; !r && i < f.n; i++)
		lost += ((const struct dumped *)f.item + i)->lost;
	if (!r)
		r = found_send(&f, "nodes", node_json);
	free(f.item);
	if (r)
		return op_fail(rq, r, "pool %s cannot be dumped: %s", rq->pool->name, vol_strerror(r));
	json_set_u64(result, "nodes", f.n);
	json_set_u64(result, "lost", lost);
	return 0;
}

static pthread_mutex_t add_lock = PTHREAD_MUTEX_INITIALIZER;

/* The kernel asks that it be blank. */
static int blank(struct vol_new_member *m)
{
	static const char zeros[68u << 10];
	ssize_t n = pwrite(m->fd, zeros, sizeof(zeros), 0);

	return n < 0 ? vol_errno() : n != sizeof(zeros) ? -EIO : fsync(m->fd) ? vol_errno() : 0;
}

/* Device-mapper claims it, as did we until now.  The label is written past the cache of the device, which
 * may have what was there before; and udev looks for one when somebody who may write closes it. */
static int join_in_kernel(struct vol_pool *p, struct vol_new_member *m)
{
	int r, fd;

	close(m->fd);
	m->fd = -1;
	r = vol_dm_pool_add(p->name, p->uuid, m->path);
	fd = r ? -1 : open(m->path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!ioctl(fd, BLKFLSBUF, 0);
		close(fd);
	}
	return r;
}

static int join(struct vol_pool *p, struct vol_new_member *m)
{
	uint8_t uuid[16];
	int r;

	if (p->kernel)
		return join_in_kernel(p, m);
	vol_uuid_new(uuid);
	r = vd_pool_add(p->engine, uuid, m->geo.bytes >> VD_BLOCK_SHIFT, m->geo.sector);
	return r ? vol_fail(NULL, r, "%s cannot become a member of pool %s: %s", m->path, p->name, vol_strerror(r)) : 0;
}

/* That it did not join it is certain while the pool is written: no superblock tells of it then, on any member.
 * And without a label, which comes before these. */
static bool surely_none(struct vol_pool *p, const char *path)
{
	struct dm_pool_status st;
	struct vd_pool_info *info;
	struct vol_found f;
	bool writes;
	int r;

	if (p->kernel) {
		writes = !vol_dm_pool_status(p->uuid, &st) && st.mode < VD_MODE_READONLY;
	} else {
		info = malloc(sizeof(*info));
		if (info)
			vd_pool_info(p->engine, info);
		writes = info && info->mode < VD_MODE_READONLY;
		free(info);
	}
	r = writes ? 0 : vol_find_label(path, &f);
	return writes || r == -ENOENT || (!r && memcmp(f.pool, p->uuid, 16));
}

static int add_member(struct vol_request *rq, struct vol_new_member *m, struct json_object *result)
{
	struct vol_pool *p = rq->pool;
	struct vd_pool_info *info = malloc(sizeof(*info));
	const char *path = m->path;
	unsigned index;
	int r;

	if (!info)
		return -ENOMEM;
	change_state(p, info);
	index = info->nmembers;
	r = info->mode >= VD_MODE_READONLY ? -EROFS : info->sector_size < m->geo.sector ? -EINVAL :
	    index >= VD_MEMBERS_MAX ? -EEXIST : 0;
	if (r == -EROFS)
		op_fail(rq, r, "pool %s cannot take a member: it is read-only: %s", p->name, read_only_why(rq));
	if (r == -EINVAL)
		op_fail(rq, r, "%s has sectors of %u bytes; pool %s has sectors of %u, and cannot take it", m->path,
			m->geo.sector, p->name, info->sector_size);
	if (r == -EEXIST)
		op_fail(rq, r, "pool %s has %u members already; there cannot be more", p->name, index);
	free(info);
	if (r)
		return r;
	json_set_str(result, "path", m->path);
	json_set_u64(result, "member", index);
	json_set_u64(result, "size", m->geo.bytes & ~(uint64_t)(VD_BLOCK - 1));
	if (json_flag(rq->args, "test"))
		return 0;
	r = vol_new_member_wipe(m, &rq->err);
	if (!r && p->kernel) {
		r = blank(m);
		if (r)
			op_fail(rq, r, "%s cannot be written: %s", path, vol_strerror(r));
	} else if (!r) {
		r = vol_new_member_give(m, p->host, index);
	}
	if (r)
		return r;
	/* First: a member that is in the pool but not known here would be a missing one. */
	r = vol_devices_remember(&path, 1);
	if (r) {
		vol_host_drop_member(p->host, index);
		return op_fail(rq, r, "%s is not added to pool %s: %s", m->path, p->name, vol_error(NULL));
	}
	r = join(p, m);
	if (r) {
		char why[1024];

		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		if (!surely_none(p, path)) {
			vol_new_member_keep(m);
			return op_fail(rq, r, "%s\n%s may be a member all the same, and is left as it is: 'vdpool show %s' tells when the pool is opened again",
				       why, path, p->name);
		}
		vol_host_drop_member(p->host, index);
		op_fail(rq, r, "%s", why);
		if (vol_devices_forget(&path, 1))
			op_warn(rq, "%s stays in the devices file: %s", m->path, vol_error(NULL));
		return r;
	}
	vol_new_member_keep(m);
	return 0;
}

/* The member that `text` names by its number or path; n: there is none. */
static unsigned which_member(struct vol_request *rq, const char *text, unsigned n)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);
	unsigned m;

	if (*text && !*end)
		return number < n ? (unsigned)number : n;
	for (m = 0; m < n; m++) {
		const char *path = vol_host_path(rq->pool->host, m);
		if (path && vol_same_file(path, text))
			break;
	}
	return m;
}

static int op_pool_add(struct vol_request *rq, struct json_object *result)
{
	struct vd_pool_info *info;
	struct vol_new_member m;
	const char *path;
	struct stat st;
	int r;

	if (!json_get_str(rq->args, "path", &path) || path[0] != '/')
		return op_fail(rq, -EINVAL, "request \"pool-add\" lacks \"path\", an absolute one");
	if (rq->pool->kernel && (stat(path, &st) ? json_u64(rq->args, "size") : !S_ISBLK(st.st_mode)))
		return op_not_in_kernel(rq, "adding a file");
	info = malloc(sizeof(*info));
	if (!info)
		return -ENOMEM;
	pthread_mutex_lock(&add_lock);
	change_state(rq->pool, info);
	if (which_member(rq, path, info->nmembers) < info->nmembers)
		r = op_fail(rq, -EEXIST, "%s is a member of pool %s already", path, rq->pool->name);
	else
		r = vol_new_member(&m, path, json_u64(rq->args, "size"), json_flag(rq->args, "force"),
				   json_flag(rq->args, "test"), &rq->err);
	if (!r) {
		r = add_member(rq, &m, result);
		vol_new_member_undo(&m);
	}
	pthread_mutex_unlock(&add_lock);
	free(info);
	return r;
}

/* What the member is to have: as the request says, or what it has. */
static int grow_size(struct vol_request *rq, unsigned m, uint64_t before, uint64_t *size)
{
	const char *path = vol_host_path(rq->pool->host, m);
	uint64_t n, has = vol_host_size(rq->pool->host, m);
	bool by = json_get_u64(rq->args, "grow", &n);

	*size = has;
	if (!by && !json_get_u64(rq->args, "size", &n))
		return 0;
	if (!vol_host_is_file(rq->pool->host, m))
		return op_fail(rq, -EINVAL, "%s is a block device: make it larger by its own means, then `vdpool grow %s` takes it in",
			       path, rq->pool->name);
	*size = (by ? before + n : n) & ~(uint64_t)(VD_BLOCK - 1);
	if (*size < before || (by && *size < n) || *size >> VD_BLOCK_SHIFT > 1ull << VD_MEMBER_SHIFT)
		return op_fail(rq, -EINVAL, "%s has %llu bytes, and cannot have %llu: a member does not become smaller, nor larger than 4 PiB",
			       path, (unsigned long long)before, (unsigned long long)*size);
	*size = vd_max(*size, has);
	return 0;
}

static int grow_member(struct vol_request *rq, unsigned m, struct json_object *list)
{
	const char *path = vol_host_path(rq->pool->host, m);
	uint64_t before, size;
	struct json_object *o;
	uint8_t uuid[16];
	bool missing;
	int r = vd_pool_member(rq->pool->engine, m, uuid, &before, &missing);

	before <<= VD_BLOCK_SHIFT;
	if (!r)
		r = grow_size(rq, m, before, &size);
	if (r || size <= before)
		return r;
	if (!json_flag(rq->args, "test")) {
		if (vol_host_is_file(rq->pool->host, m)) /* durably, also when it is so long already */
			r = vol_host_extend(rq->pool->host, m, size);
		if (r)
			return op_fail(rq, r, "%s cannot be made %llu bytes long: %s", path, (unsigned long long)size, vol_strerror(r));
		r = change_pool_grow(rq->pool, m, size >> VD_BLOCK_SHIFT);
		if (r)
			return op_fail(rq, r, "%s has %llu bytes now, but pool %s cannot take them in: %s", path,
				       (unsigned long long)size, rq->pool->name, vol_strerror(r));
	}
	o = json_object_new_object();
	json_set_u64(o, "member", m);
	json_set_str(o, "path", path);
	json_set_u64(o, "before", before);
	json_set_u64(o, "size", size);
	json_object_array_add(list, o);
	return 0;
}

static int op_pool_grow(struct vol_request *rq, struct json_object *result)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	struct json_object *list, *v;
	const char *member;
	unsigned m, n;
	int r = 0;

	if (!info)
		return -ENOMEM;
	change_state(rq->pool, info);
	n = info->nmembers;
	r = info->mode >= VD_MODE_READONLY ? -EROFS : 0;
	free(info);
	if (r)
		return op_fail(rq, r, "pool %s cannot grow: it is read-only: %s", rq->pool->name, read_only_why(rq));
	list = json_object_new_array();
	json_set(result, "grown", list);
	if (json_get_str(rq->args, "member", &member)) {
		m = which_member(rq, member, n);
		if (m == n)
			return op_fail(rq, -ENOENT, "pool %s has no member %s; `vdpool show %s` lists them", rq->pool->name, member,
				       rq->pool->name);
		return grow_member(rq, m, list);
	}
	if (n > 1 && (json_object_object_get_ex(rq->args, "size", &v) || json_object_object_get_ex(rq->args, "grow", &v)))
		return op_fail(rq, -EINVAL, "pool %s has %u members; say which is to have that size", rq->pool->name, n);
	for (m = 0; m < n && !r; m++)
		r = grow_member(rq, m, list);
	return r;
}

static int op_pool_set(struct vol_request *rq, struct json_object *result)
{
	struct vd_pool_info *info = malloc(sizeof(*info));
	struct json_object *list;
	const char *full, *discards;
	struct vd_pool_policy was, policy;
	uint64_t bytes;
	bool readonly;
	int r = 0;

	(void)result;
	if (!info)
		return -ENOMEM;
	change_state(rq->pool, info);
	was = policy = info->policy;
	readonly = info->mode >= VD_MODE_READONLY;
	free(info);
	if (json_get(rq->args, "thresholds", json_type_array, &list)) {
		if (json_object_array_length(list) > 4)
			return op_fail(rq, -EINVAL, "%zu thresholds were given; a pool has four at most",
				       json_object_array_length(list));
		memset(policy.threshold, 0, sizeof(policy.threshold));
		for (size_t i = 0; i < json_object_array_length(list); i++) {
			struct json_object *v = json_object_array_get_idx(list, i);
			int64_t n = json_object_is_type(v, json_type_int) ? json_object_get_int64(v) : -1;
			if (n < 0 || n > 1000)
				return op_fail(rq, -EINVAL, "threshold %zu is not a number from 0 to 1000 (per mille of the pool)", i + 1);
			policy.threshold[i] = (uint32_t)n;
		}
	}
	if (json_get_str(rq->args, "policy", &full)) {
		if (strcmp(full, "queue") && strcmp(full, "error"))
			return op_fail(rq, -EINVAL, "policy \"%s\" is neither \"queue\" nor \"error\"", full);
		policy.flags = (policy.flags & ~VD_POLICY_ERROR_IF_FULL) | (full[0] == 'e' ? VD_POLICY_ERROR_IF_FULL : 0);
	}
	if (json_get_str(rq->args, "discards", &discards)) {
		if (strcmp(discards, "passdown") && strcmp(discards, "nopassdown"))
			return op_fail(rq, -EINVAL, "discards \"%s\" is neither \"passdown\" nor \"nopassdown\"", discards);
		policy.flags = (policy.flags & ~VD_POLICY_NO_DISCARD) | (discards[0] == 'n' ? VD_POLICY_NO_DISCARD : 0);
	}
	if (json_get_u64(rq->args, "grow_by", &bytes))
		policy.grow_by = (bytes + VD_BLOCK - 1) >> VD_BLOCK_SHIFT;
	if (json_get_u64(rq->args, "grow_to", &bytes))
		policy.grow_to = (bytes + VD_BLOCK - 1) >> VD_BLOCK_SHIFT;
	if (!json_flag(rq->args, "test"))
		r = change_pool_set(rq->pool, &was, &policy);
	else if (readonly)
		r = -EROFS;
	if (r == -EROFS)
		return op_fail(rq, r, "pool %s cannot be changed: %s", rq->pool->name, read_only_why(rq));
	if (r)
		return op_fail(rq, r, "pool %s: its policy cannot be changed: %s", rq->pool->name, vol_strerror(r));
	return 0;
}

static int op_flush(struct vol_request *rq, struct json_object *result)
{
	int r = rq->pool->flags & VOL_READONLY ? 0 : change_flush(rq->pool);

	(void)result;
	return r ? op_fail(rq, r, "pool %s cannot be flushed: %s", rq->pool->name, vol_strerror(r)) : 0;
}

static int op_checkpoint(struct vol_request *rq, struct json_object *result)
{
	int r = change_checkpoint(rq->pool);

	(void)result;
	return r ? op_fail(rq, r, "pool %s: checkpoint failed: %s", rq->pool->name, vol_strerror(r)) : 0;
}

/* An open pointer of this host says that a link lives here, or is to be restored here. */
static int local_pointer(struct vol_request *rq, char *reason, size_t size)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct vd_disk_holder self;
	int r;

	if (!info)
		return -ENOMEM;
	vol_holder_self(&self, NULL);
	for (uint32_t id = 0; !(r = vd_volume_next(rq->pool->engine, &id, NULL)); id++) {
		if (vd_volume_info(rq->pool->engine, id, info))
			continue;
		for (unsigned i = 0; i < info->npointers; i++)
			if (!memcmp(info->pointer[i].who.host, self.host, 16)) {
				snprintf(reason, size, "volume %s is linked (link %u)", info->name,
					 le32_to_cpu(info->pointer[i].link));
				free(info);
				return 1;
			}
	}
	free(info);
	return r == -ENOENT ? 0 : r;
}

static int op_stop_if_unused(struct vol_request *rq, struct json_object *result)
{
	const struct vol_server_hooks *hooks = rq->server ? vol_server_hooks_of(rq->server) : NULL;
	/* Not for long: who asked may be gone, and somebody else about to link. */
	unsigned n, wait = (unsigned)vd_min(json_u64(rq->args, "wait"), (uint64_t)250);
	char reason[256] = "";
	int r;

	if (!hooks || !hooks->stop)
		return op_fail(rq, -EOPNOTSUPP, "pool %s has no server that could be stopped", rq->pool->name);
	for (;; wait = 0) {
		r = local_pointer(rq, reason, sizeof(reason));
		if (r < 0)
			return op_fail(rq, r, "pool %s: whether it is used cannot be found out: %s", rq->pool->name, vol_strerror(r));
		n = hooks->connections ? hooks->connections(hooks->arg, r ? 0 : wait) : 0;
		if (r || n || !wait)
			break;
	}
	json_set_bool(result, "linked", r);
	if (!r && n)
		snprintf(reason, sizeof(reason), "%u NBD connection%s open", n, n == 1 ? " is" : "s are");
	r = r || n;
	json_set_bool(result, "stopped", !r);
	if (r)
		json_set_str(result, "reason", reason);
	else if (!json_flag(rq->args, "test"))
		hooks->stop(hooks->arg);
	return 0;
}

/* ---- dispatch ------------------------------------------------------------ */

/* view: it looks at more of the pool than at single volumes */
static const struct { const char *name; op_fn fn; bool view; } ops[] = {
	{ "ping", op_ping, false },
	{ "pool-info", op_pool_info, true },
	{ "pool-check", op_pool_check, true },
	{ "pool-dump", op_pool_dump, true },
	{ "pool-add", op_pool_add, true },
	{ "pool-grow", op_pool_grow, true },
	{ "pool-set", op_pool_set, true },
	{ "flush", op_flush, true },
	{ "checkpoint", op_checkpoint, true },
	{ "stop-if-unused", op_stop_if_unused, true },
	{ "list", op_list, false },
	{ "create", op_create, false },
	{ "remove", op_remove, false },
	{ "rename", op_rename, false },
	{ "resize", op_resize, false },
	{ "reserve", op_reserve, false },
	{ "set", op_set, false },
	{ "lock", op_lock, false },
	{ "unlock", op_unlock, false },
	{ "pointer-add", op_pointer_add, false },
	{ "pointer-set", op_pointer_set, false },
	{ "pointer-del", op_pointer_del, false },
	{ "snapshot", op_snapshot, false },
	{ "rollback", op_rollback, false },
	{ "diff", op_diff, true },
	{ "usage", op_usage, true },
	{ "server-add", op_server_add, true },
	{ "server-list", op_server_list, true },
	{ "server-remove", op_server_remove, true },
};

int vol_execute(struct vol_request *rq, struct json_object **result)
{
	const char *name;
	int r;

	rq->err.text[0] = 0;
	if (!json_get_str(rq->args, "op", &name))
		return op_fail(rq, -EINVAL, "a request needs \"op\", a string");
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		if (strcmp(ops[i].name, name))
			continue;
		rq->result = json_object_new_object();
		if (!rq->result)
			return op_fail(rq, -ENOMEM, "out of memory");
		r = ops[i].view ? op_view(rq) : 0;
		if (!r)
			r = ops[i].fn(rq, rq->result);
		if (!r) {
			*result = rq->result;
			rq->result = NULL;
			return 0;
		}
		json_object_put(rq->result);
		rq->result = NULL;
		if (!rq->err.text[0])
			op_fail(rq, r, "pool %s: %s: %s", rq->pool->name, name, vol_strerror(r));
		return r;
	}
	return op_fail(rq, -EOPNOTSUPP, "the operation \"%.60s\" is not known to this version of vd", name);
}
