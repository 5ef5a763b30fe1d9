// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Opening a pool: by its server when one is there, else by its members.
 *
 * The order is socket first, members second, again from the start while the
 * members are busy: between the two looks a server may have come or gone.  What
 * decides is the lock on the members; the socket is only where to ask.
 *
 * A pool that the kernel has open is changed by messages (change.h).  What this process
 * sees of it is its last checkpoint, which is asked for first: a view, read beside the
 * owner (I16).  It is made when a request needs it; anew for each one where changes are
 * wanted.  Those are under a lock, so that what was looked at still is so when it is changed.
 */
#include "change.h"
#include "dm.h"
#include "find.h"
#include "json.h"
#include "handle.h"

#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 10000u       /* for another command to finish */
#define WAIT_READER_MS 1000u /* then a reader looks at the last checkpoint instead */
#define CLOSE_WORK_MS 30000u /* for deletions; they go on at the next opening */

static void sleep_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

/* ---- which members are the pool's -------------------------------------- */

struct chosen {
	uint8_t uuid[16];
	char name[VOL_NAME_SIZE];
	const struct vol_found *member[VD_MEMBERS_MAX];
	unsigned n; /* members found */
	/* Others that claim a place that is taken: additions that were interrupted left
	 * their labels behind.  settle() finds out which of them the pool means. */
	const struct vol_found **rival;
	size_t rivals;
	const struct vol_found *twice; /* a copy, perhaps; it is one thing too many to who opens the members here */
};

static int not_found(const char *name, const struct vol_found *found, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (found[i].error == -EACCES || found[i].error == -EPERM)
			return vol_fail(NULL, -EPERM, "pool %s is not found, but %s may not be read by this user; try as root",
					name, found[i].path);
	if (geteuid() && n == 0)
		return vol_fail(NULL, -ENOENT, "pool %s is not found: %s/devices names no member, and udev knows none\n"
				"name its members with --device, or try as root", name, vol_config_dir());
	return vol_fail(NULL, -ENOENT, "pool %s is not found among %zu member%s known from %s/devices and udev\n"
			"`vdpool ls` lists what is there; --device PATH names a member elsewhere",
			name, n, n == 1 ? "" : "s", vol_config_dir());
}

static int found_twice(const struct chosen *c, const struct vol_found *f)
{
	return vol_fail(NULL, -ENOTUNIQ, "member %u of pool %s is found twice: %s and %s (a copy?)\n"
			"take one out of %s/devices, or say which with --device",
			f->index, c->name, c->member[f->index]->path, f->path, vol_config_dir());
}

static int choose(const char *name, const struct vol_found *found, size_t n, struct chosen *c)
{
	uint8_t uuid[16];
	bool by_uuid = !vol_uuid_parse(name, uuid);

	memset(c, 0, sizeof(*c));
	c->rival = calloc(n + 1, sizeof(*c->rival));
	if (!c->rival)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const struct vol_found *f = &found[i];
		if (f->error || (by_uuid ? memcmp(f->pool, uuid, 16) != 0 : strcmp(f->pool_name, name) != 0))
			continue;
		if (c->n && memcmp(c->uuid, f->pool, 16)) {
			char a[VOL_UUID_TEXT], b[VOL_UUID_TEXT];
			unsigned m = 0;
			while (!c->member[m])
				m++;
			vol_uuid_text(c->uuid, a);
			vol_uuid_text(f->pool, b);
			return vol_fail(NULL, -ENOTUNIQ, "there are two pools called %s: %s, with %s, and %s, with %s\n"
					"say which by its UUID in place of the name", name, a, c->member[m]->path, b, f->path);
		}
		if (f->index >= VD_MEMBERS_MAX)
			continue;
		if (!c->n) {
			memcpy(c->uuid, f->pool, 16);
			snprintf(c->name, sizeof(c->name), "%s", f->pool_name);
		}
		if (c->member[f->index]) {
			/* --device comes first in the list, and wins. */
			if (c->member[f->index]->explicit_path)
				continue;
			if (memcmp(c->member[f->index]->member, f->member, 16)) {
				c->rival[c->rivals++] = f;
				continue;
			}
			c->twice = f;
			continue;
		}
		c->member[f->index] = f;
		c->n++;
	}
	return c->n ? 0 : not_found(name, found, n);
}

/* The kernel takes none of these. */
static bool on_files(const struct chosen *c)
{
	struct stat st;

	for (unsigned i = 0; i < VD_MEMBERS_MAX; i++)
		if (c->member[i] && (stat(c->member[i]->path, &st) || !S_ISREG(st.st_mode)))
			return false;
	return true;
}

/* ---- opening the members ----------------------------------------------- */

static int open_members(struct vol_pool *p, const struct chosen *c, enum vol_lock lock)
{
	int r;

	r = vol_host_new(&p->host);
	if (r)
		return vol_fail(NULL, r, "out of memory");
	for (unsigned i = 0; i < VD_MEMBERS_MAX; i++) {
		const struct vol_found *f = c->member[i];
		struct vd_disk_label label;
		struct vol_geometry geo;
		char why[256];
		int fd;
		if (!f)
			continue;
		r = vol_member_open(f->path, lock, &fd, &geo, why);
		if (r) {
			vol_fail(NULL, r, "pool %s: its member %s %s%s", c->name, f->path, why,
				 r == -EBUSY ? "\ntry again when that has ended" : "");
			goto err;
		}
		/* The kernel's pool writes past the cache of the device, which is kept while anybody has it open:
		 * by another reader, say, who came before the kernel. */
		if (!geo.is_file)
			(void)!ioctl(fd, BLKFLSBUF, 0);
		r = vol_label_fd(fd, &label);
		if (r || memcmp(label.pool, c->uuid, 16) || le32_to_cpu(label.index) != i) {
			close(fd);
			r = vol_fail(NULL, -EAGAIN, "pool %s: its member %s was changed while it was being opened; try again",
				     c->name, f->path);
			goto err;
		}
		r = vol_host_set_member(p->host, i, fd, f->path, geo.is_file);
		if (r) {
			close(fd);
			goto err;
		}
	}
	vol_host_set_identity(p->host, c->uuid, c->name, lock != VOL_LOCK_EXCLUSIVE || p->flags & VOL_READONLY);
	/* Of a pool in the kernel that has said what there is to say; what a view meets may only be its age. */
	vol_host_set_quiet(p->host, p->kernel);
	return 0;
err:
	vol_host_free(p->host);
	p->host = NULL;
	return r;
}

/* The newest owner record that any member has. */
static void read_owner(struct vol_pool *p)
{
	struct vd_disk_owner o;

	for (unsigned m = 0; m < VD_MEMBERS_MAX; m++) {
		if (vol_host_fd(p->host, m) < 0 || vd_owner_read(vol_host_vd(p->host), m, &o))
			continue;
		if (!p->have_owner || le64_to_cpu(o.incarnation) > le64_to_cpu(p->owner.incarnation))
			p->owner = o;
		p->have_owner = true;
	}
}

static int check_owner(struct vol_pool *p)
{
	struct vd_disk_holder self;
	char who[256];

	vol_holder_self(&self, NULL);
	if (!p->have_owner || le32_to_cpu(p->owner.state) == 0 || !memcmp(p->owner.who.host, self.host, 16))
		return 0;
	vol_holder_text(&p->owner.who, who, sizeof(who));
	if (p->flags & VOL_TAKEOVER) {
		vol_log(VOL_LOG_WARN, "pool %s: taken over from %s", p->name, who);
		return 0;
	}
	return vol_fail(NULL, -EBUSY, "pool %s is marked as in use by another host: %s\n"
			"if that host is certainly down or has given it up, say --takeover", p->name, who);
}

static int engine_error(struct vol_pool *p, int r)
{
	switch (r) {
	case -ENODATA:
		return vol_fail(NULL, r, "pool %s: its members carry labels but no usable superblock; nothing was changed", p->name);
	case -EPROTONOSUPPORT:
		return vol_fail(NULL, r, "pool %s was written by a later version of vd and cannot be opened by this one", p->name);
	case -EROFS:
		return vol_fail(NULL, r, "pool %s has features that this version can only read; it cannot be changed here", p->name);
	case -EBADMSG: case -EUCLEAN:
		return vol_fail(NULL, r, "pool %s cannot be opened: its superblock or journal: %s\n`vdpool check %s` tells more",
				p->name, vol_strerror(r), p->name);
	}
	return vol_fail(NULL, r, "pool %s cannot be opened: %s", p->name, vol_strerror(r));
}

static void missing_text(const struct vd_pool_info *info, char *buf, size_t size)
{
	size_t n = 0;

	buf[0] = 0;
	for (unsigned m = 0; m < info->nmembers && n < size - 8; m++)
		if (info->missing[m / 8] >> (m % 8) & 1)
			n += (size_t)snprintf(buf + n, size - n, "%s%u", n ? ", " : "", m);
}

/* A member that is there, but shorter than the pool counts on. */
static int short_member(struct vol_pool *p, const struct vd_pool_info *info)
{
	char has[32], had[32];
	uint8_t uuid[16];
	uint64_t blocks;
	bool missing;

	for (unsigned m = 0; m < info->nmembers; m++) {
		if (!(info->too_short[m / 8] >> (m % 8) & 1) || vd_pool_member(p->engine, m, uuid, &blocks, &missing))
			continue;
		vol_format_size(vol_host_size(p->host, m), 'h', true, has, sizeof(has));
		vol_format_size(blocks << VD_BLOCK_SHIFT, 'h', true, had, sizeof(had));
		return vol_fail(NULL, -EROFS, "pool %s is read-only: its member %s has %s and had %s\n"
				"give it that size again, with what was there; `vdpool check %s` tells what is lost without it",
				p->name, vol_host_path(p->host, m), has, had, p->name);
	}
	return 0;
}

static int open_engine(struct vol_pool *p, unsigned eflags)
{
	struct vd_disk_holder self;
	struct vd_pool_info info;
	char missing[128];
	int r;

	vol_holder_self(&self, NULL);
	r = vd_pool_open(vol_host_vd(p->host), eflags, &self, &p->engine);
	if (r)
		return engine_error(p, r);
	if (eflags & VD_OPEN_READONLY && !(p->flags & VOL_TEST))
		return 0;
	vd_pool_info(p->engine, &info);
	if (p->flags & VOL_TEST ? !info.nmissing && !info.read_only_feature && (!info.damaged || p->flags & VOL_REPAIR) && (!info.rolled_back || p->flags & VOL_ACCEPT) :
				  info.mode < VD_MODE_READONLY)
		return 0;
	missing_text(&info, missing, sizeof(missing));
	r = short_member(p, &info);
	if (vd_pool_close(p->engine))
		vd_pool_abandon(p->engine);
	p->engine = NULL;
	if (r)
		return r;
	if (info.nmissing)
		return vol_fail(NULL, -EROFS, "pool %s is read-only: %u of its %u members missing (number %s)\n"
				"bring them back, or name them with --device; `vdpool show %s` tells which are there",
				p->name, info.nmissing, info.nmembers, missing, p->name);
	if (info.read_only_feature)
		return vol_fail(NULL, -EROFS, "pool %s is read-only: a later version of vd gave it a feature with which this one can only read it",
				p->name);
	return vol_fail(NULL, -EROFS, "pool %s is read-only: %s\n`vdpool show %s` tells what is lost, and vd(7), DAMAGE what can be done", p->name,
			info.rolled_back ? "its newest superblock is lost, and what is shown is older" : "its metadata is damaged", p->name);
}

/* Of those that claim one place the pool's own table says which is meant. */
static int settle(struct vol_pool *p, struct chosen *c)
{
	const struct vol_found *first[VD_MEMBERS_MAX] = { NULL };
	struct vd_disk_holder self;
	struct vd_pool *engine;
	int r;

	if (!c->rivals)
		return 0;
	for (size_t i = 0; i < c->rivals; i++) {
		unsigned m = c->rival[i]->index;
		if (c->member[m])
			first[m] = c->member[m];
		c->member[m] = NULL;
	}
	r = open_members(p, c, VOL_LOCK_NONE);
	if (r)
		return r;
	vol_holder_self(&self, NULL);
	vol_host_set_quiet(p->host, true); /* those left out here are not missing */
	r = vd_pool_open(vol_host_vd(p->host), VD_OPEN_READONLY | VD_OPEN_NO_REPLAY, &self, &engine);
	for (size_t i = 0; !r && i < c->rivals; i++) {
		const struct vol_found *f = c->rival[i];
		uint8_t uuid[16];
		uint64_t blocks;
		bool missing;
		if (vd_pool_member(engine, f->index, uuid, &blocks, &missing))
			continue; /* not a member at all */
		if (!memcmp(first[f->index]->member, uuid, 16))
			c->member[f->index] = first[f->index];
		else if (memcmp(f->member, uuid, 16))
			continue;
		else if (!c->member[f->index])
			c->member[f->index] = f;
		else
			r = found_twice(c, f);
	}
	if (!r || r == -ENOTUNIQ) {
		if (vd_pool_close(engine))
			vd_pool_abandon(engine);
	} else {
		engine_error(p, r);
	}
	vol_host_free(p->host);
	p->host = NULL;
	return r;
}

/* What the engine has left out is not to be read by the data path either: a stale
 * member has old blocks where the mapping means new ones. */
static void drop_left_out(struct vol_pool *p)
{
	struct vd_pool_info info;

	vd_pool_info(p->engine, &info);
	for (unsigned i = 0; i < VD_MEMBERS_MAX; i++) {
		if (!vol_host_path(p->host, i) ||
		    (i < info.nmembers && !((info.missing[i / 8] & ~info.too_short[i / 8]) >> (i % 8) & 1)))
			continue;
		if (i >= info.nmembers)
			vol_log(VOL_LOG_INFO, "%s carries a label of pool %s but is no member of it (an interrupted vdpool add)",
				vol_host_path(p->host, i), p->name);
		vol_host_drop_member(p->host, i);
	}
}

static int open_local(struct vol_pool *p, struct chosen *c, bool beside)
{
	bool readonly = beside || p->flags & VOL_READONLY, writer = !readonly || p->flags & VOL_TEST;
	int r;

	r = c->twice ? found_twice(c, c->twice) : settle(p, c);
	if (r)
		return r;
	r = open_members(p, c, beside ? VOL_LOCK_NONE : writer ? VOL_LOCK_EXCLUSIVE : VOL_LOCK_SHARED);
	if (r)
		return r;
	read_owner(p);
	if (writer)
		r = check_owner(p);
	if (!r)
		/* Of an owner that writes no more the journal is part of what there is. */
		r = open_engine(p, beside && !(p->kernel && p->kernel_mode >= VD_MODE_READONLY) ?
				   VD_OPEN_READONLY | VD_OPEN_NO_REPLAY : readonly ? VD_OPEN_READONLY :
				   (p->flags & VOL_REPAIR ? VD_OPEN_REPAIR : 0) | (p->flags & VOL_ACCEPT ? VD_OPEN_ACCEPT : 0));
	if (!r && !readonly) {
		r = vol_host_start_worker(p->host, p->engine);
		if (r) {
			vol_fail(NULL, r, "pool %s: no thread for its background work: %s", p->name, vol_strerror(r));
			if (vd_pool_close(p->engine))
				vd_pool_abandon(p->engine);
			p->engine = NULL;
		}
	}
	if (r) {
		vol_host_free(p->host);
		p->host = NULL;
		return r;
	}
	drop_left_out(p);
	p->beside = beside;
	return 0;
}

/* ---- a pool of a server ------------------------------------------------ */

/* A server that this process cannot find the members of, but knows by name. */
static int connect_by_name(struct vol_pool *p, const char *name)
{
	struct json_object *q, *a;
	char file[VOL_NAME_SIZE + 8];
	int r;

	snprintf(file, sizeof(file), "%s.ctl", name);
	r = vol_client_connect(file, &p->client);
	if (r)
		return r;
	q = json_object_new_object();
	json_set_str(q, "op", "ping");
	r = vol_call(p, q, NULL, NULL, &a);
	json_object_put(q);
	if (!r) {
		snprintf(p->name, sizeof(p->name), "%s", json_str(a, "name"));
		r = vol_uuid_parse(json_str(a, "uuid"), p->uuid);
		json_object_put(a);
	} else {
		vol_fail(NULL, r, "%s", p->err.text);
	}
	if (r) {
		vol_client_close(p->client);
		p->client = NULL;
	}
	return r;
}

static int connect_by_uuid(struct vol_pool *p)
{
	char uuid[VOL_UUID_TEXT], file[VOL_NAME_SIZE];
	int r;

	vol_uuid_text(p->uuid, uuid);
	snprintf(file, sizeof(file), "%s.ctl", uuid);
	r = vol_client_connect(file, &p->client);
	if (r && r != -ENOENT)
		vol_fail(NULL, r, "pool %s: its server does not take the connection: %s", p->name, vol_strerror(r));
	return r;
}

/* ---- a pool in the kernel ----------------------------------------------- */

static void view_close(struct vol_pool *p)
{
	if (p->engine && vd_pool_close(p->engine))
		vd_pool_abandon(p->engine);
	vol_host_free(p->host);
	p->engine = NULL;
	p->host = NULL;
}

/* A later checkpoint is there: what the view stands on may be something else by now. */
static bool overtaken(const struct vol_pool *p)
{
	struct dm_pool_status st;

	return !vol_dm_pool_status(p->uuid, &st) && st.generation > p->generation;
}

/* Asks for a checkpoint and opens that, on the devices which the kernel has: a copy of a
 * member may carry the same label.  -ESTALE: the kernel does not have the pool any more. */
static int view(struct vol_pool *p)
{
	struct dm_pool_status st;
	dev_t dev[VD_MEMBERS_MAX];
	struct vol_found *found;
	struct vd_pool_info info;
	char uuid[VOL_UUID_TEXT];
	struct chosen c;
	unsigned ndev;
	size_t n;
	int r;

	view_close(p);
	r = vol_dm_pool_status(p->uuid, &st);
	if (!r && st.other_table && p->held)
		vol_dm_pool_drop_table(p->uuid);
	if (!r && st.mode < VD_MODE_READONLY) {
		r = change_checkpoint(p);
		if (!r)
			r = vol_dm_pool_status(p->uuid, &st);
	}
	if (!r)
		r = vol_dm_pool_members(p->uuid, dev, &ndev);
	if (r == -ENOENT || r == -ENXIO)
		return -ESTALE;
	if (r)
		return vol_fail(NULL, r, "pool %s: the kernel, which has it open, cannot be asked: %s", p->name, vol_strerror(r));
	p->kernel_mode = st.mode;
	p->generation = st.generation;
	r = vol_find_devices(dev, ndev, &found, &n);
	if (r)
		return r;
	vol_uuid_text(p->uuid, uuid);
	r = choose(uuid, found, n, &c);
	if (!r)
		r = open_local(p, &c, true);
	p->beside = false;
	free(c.rival);
	vol_found_free(found, n);
	if (r)
		return r;
	vd_pool_info(p->engine, &info);
	p->generation = info.generation;
	p->kernel_epoch = info.epoch;
	if (info.generation < st.generation || (info.damaged && !st.damaged && overtaken(p)))
		return vol_fail(NULL, -EAGAIN, "pool %s changes while it is being read; try again", p->name);
	return 0;
}

int vol_pool_hold(struct vol_pool *p, int *fd)
{
	char uuid[VOL_UUID_TEXT];
	int r;

	vol_uuid_text(p->uuid, uuid);
	r = vol_runtime_lock(uuid, "kernel", fd);
	return r ? vol_fail(p, r, "%s", vol_error(NULL)) : 0;
}

int vol_pool_pin(struct vol_pool *p, int *fd)
{
	char uuid[VOL_UUID_TEXT];
	int r;

	*fd = -1;
	if (p->kernel_mode >= VD_MODE_READONLY)
		return 0; /* nothing is written */
	vol_uuid_text(p->uuid, uuid);
	r = vol_runtime_lock(uuid, "reader", fd);
	if (r)
		return r;
	r = vol_dm_message(p->uuid, "pin", NULL, 0); /* ends with this process */
	if (r && r != -EROFS && r != -ENOENT && r != -ENXIO)
		vol_fail(NULL, r, "pool %s: the kernel, which has it open, does not keep its metadata for a reader: %s", p->name, vol_strerror(r));
	else
		r = view(p); /* of what is kept, or of what now is there */
	/* What was read ahead before that checkpoint was found may be older than it. */
	for (unsigned m = 0; !r && m < VD_MEMBERS_MAX; m++)
		if (vol_host_fd(p->host, m) >= 0)
			(void)!ioctl(vol_host_fd(p->host, m), BLKFLSBUF, 0);
	if (r)
		(void)!vol_pool_unpin(p, *fd);
	return r;
}

int vol_pool_unpin(struct vol_pool *p, int fd)
{
	int r = 0;

	if (fd < 0)
		return 0;
	if (vol_dm_message(p->uuid, "unpin", NULL, 0) && p->kernel_mode < VD_MODE_READONLY)
		r = vol_fail(NULL, -EAGAIN, "pool %s needed the space of what was being read, and has changed it; try again", p->name);
	close(fd);
	return r;
}

/* A reader that has been overtaken begins again: what it had to tell is kept back until it
 * is done, or has become much. */
#define HELD_MAX 256u
struct parts { vol_part_fn fn; void *arg; struct json_object *held; bool sent; };

static int let_go(struct parts *ps)
{
	int r = 0;

	for (size_t i = 0; !r && i < json_object_array_length(ps->held); i++)
		r = ps->fn(ps->arg, json_object_array_get_idx(ps->held, i));
	ps->sent |= json_object_array_length(ps->held) > 0;
	json_object_put(ps->held);
	ps->held = json_object_new_array();
	return r;
}

static int hold_part(void *arg, struct json_object *o)
{
	struct parts *ps = arg;
	struct json_object *progress;

	if (ps->sent || json_object_object_get_ex(o, "progress", &progress))
		return ps->fn(ps->arg, o);
	json_object_array_add(ps->held, json_object_get(o));
	return json_object_array_length(ps->held) < HELD_MAX ? 0 : let_go(ps);
}

static bool is_damage(int r)
{
	return r == -EBADMSG || r == -EUCLEAN;
}

int vol_pool_view(struct vol_pool *p)
{
	int r;

	if (!p->kernel || p->viewed)
		return 0;
	r = view(p);
	p->viewed = !r;
	return r;
}

/* Where it needs a view, on one as new as this call needs it. */
static int call_on_view(struct vol_pool *p, struct vol_request *rq, bool anew, struct json_object **answer)
{
	int r;

	p->viewed &= !anew;
	r = vol_execute(rq, answer);
	/* What the view stands on is reused some time after the next checkpoint. */
	if (is_damage(r) && p->viewed && overtaken(p))
		r = vol_failbuf(&rq->err, -EAGAIN, "pool %s changes while it is being read; try again", p->name);
	return r;
}

/* -ESTALE, of nothing that was done: the kernel does not have the pool any more. */
static int call_in_kernel(struct vol_pool *p, struct vol_request *rq, struct json_object **answer)
{
	struct parts ps = { .fn = rq->part, .arg = rq->arg, .held = json_object_new_array() };
	bool changes = !(p->flags & VOL_READONLY);
	int fd = -1, r, e;

	if (rq->part) {
		rq->part = hold_part;
		rq->arg = &ps;
	}
	r = changes ? vol_pool_hold(p, &fd) : 0;
	p->held = !r && changes;
	for (unsigned tries = 0; !r; tries++) {
		r = call_on_view(p, rq, changes || tries, answer);
		if (r != -EAGAIN || ps.sent || tries == 3 || vol_interrupted())
			break;
		json_object_put(ps.held);
		ps.held = json_object_new_array();
		r = 0;
	}
	if (r != -ESTALE && json_object_array_length(ps.held)) {
		e = let_go(&ps);
		if (!r && e) {
			json_object_put(*answer);
			*answer = NULL;
		}
		r = r ? r : e;
	}
	json_object_put(ps.held);
	p->held = false;
	if (fd >= 0)
		close(fd);
	return r;
}

/* 0: it is there, and a request will make the view. -ENOENT: it is not. */
static int find_in_kernel(struct vol_pool *p)
{
	char device[DM_PATH];
	int r = vol_dm_find(p->uuid, NULL, device);

	/* To one who may not ask the lock on the members tells. */
	if (r == -EPERM)
		return -ENOENT;
	if (r)
		return r == -ENOENT ? r : vol_fail(NULL, r, "pool %s: whether the kernel has it open cannot be found out: %s", p->name,
						   vol_strerror(r));
	p->kernel = true;
	if (p->flags & VOL_OFFLINE)
		return vol_fail(NULL, -EBUSY, "pool %s is open in the kernel, as %s\n"
				"unlink its volumes first ('vdlink ls %s' lists them), or say 'vdpool deactivate %s'; then it is free",
				p->name, device, p->name, p->name);
	return 0;
}

/* One whose members this process cannot find, but which the kernel knows by its name. */
static int kernel_by_name(struct vol_pool *p, const char *name)
{
	struct dm_pool_status st;
	int r;

	if (!vol_dm_present())
		return -ENOENT;
	r = vol_uuid_parse(name, p->uuid) ? vol_dm_find_pool(name, p->uuid) : 0;
	if (!r)
		r = vol_dm_pool_status(p->uuid, &st);
	if (r || (*st.name && vol_check_pool_name(st.name)))
		return -ENOENT;
	snprintf(p->name, sizeof(p->name), "%s", *st.name ? st.name : name);
	p->kernel = true;
	return 0;
}

/* ---- opening ----------------------------------------------------------- */

static int open_once(struct vol_pool *p, const char *name, bool beside)
{
	struct vol_found *found;
	struct chosen c;
	size_t n;
	int r;

	r = vol_find_members(&found, &n);
	if (r)
		return r;
	r = choose(name, found, n, &c);
	if (r == -ENOENT && !(p->flags & VOL_OFFLINE)) {
		int k = connect_by_name(p, name);
		if (k == -ENOENT)
			k = kernel_by_name(p, name);
		if (k != -ENOENT)
			r = k;
		goto out;
	}
	if (r)
		goto out;
	memcpy(p->uuid, c.uuid, 16);
	snprintf(p->name, sizeof(p->name), "%s", c.name);
	if (!(p->flags & VOL_OFFLINE)) {
		r = connect_by_uuid(p);
		if (r != -ENOENT)
			goto out;
	}
	r = on_files(&c) ? -ENOENT : find_in_kernel(p);
	if (r == -ENOENT)
		r = open_local(p, &c, beside);
out:
	free(c.rival);
	vol_found_free(found, n);
	return r;
}

static int open_waiting(struct vol_pool *p, const char *name)
{
	int64_t start = vol_now_ms();
	unsigned nap = 5;
	int r;

	for (;;) {
		bool beside = (p->flags & VOL_READONLY) && !(p->flags & (VOL_OFFLINE | VOL_TEST)) && vol_now_ms() - start >= WAIT_READER_MS;
		r = open_once(p, name, beside);
		if ((r != -EBUSY && r != -EAGAIN) || (p->flags & VOL_NO_WAIT) || vol_interrupted() ||
		    vol_now_ms() - start >= WAIT_MS)
			break;
		if ((p->have_owner || p->kernel) && r == -EBUSY)
			break; /* another host's, or the kernel's: waiting is no use */
		sleep_ms(nap);
		nap = vd_min(2 * nap, 100u);
	}
	if (!r && p->beside)
		vol_log(VOL_LOG_WARN, "pool %s is in use by another process that cannot be asked: what is shown is its last checkpoint",
			p->name);
	return r;
}

int vol_pool_open(const char *name, unsigned flags, struct vol_pool **out)
{
	struct vol_pool *p;
	int r;

	r = vol_check_pool_name(name);
	if (r)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	p->flags = flags | (flags & VOL_TEST ? VOL_READONLY : 0);
	r = open_waiting(p, name);
	if (r) {
		free(p);
		return r;
	}
	*out = p;
	return 0;
}

int vol_pool_open_uuid(const uint8_t uuid[16], unsigned flags, struct vol_pool **out)
{
	char text[VOL_UUID_TEXT];

	vol_uuid_text(uuid, text);
	return vol_pool_open(text, flags, out);
}

/* The kernel has closed the pool since: it is opened as if it were now. */
static int open_anew(struct vol_pool *p)
{
	char uuid[VOL_UUID_TEXT];
	int r;

	view_close(p);
	p->kernel = p->viewed = p->have_owner = false;
	vol_uuid_text(p->uuid, uuid);
	r = open_waiting(p, uuid);
	/* As it was, for the next call: this one has failed. */
	p->kernel |= r != 0;
	return r ? vol_fail(p, r, "%s", vol_error(NULL)) : 0;
}

int vol_pool_close(struct vol_pool *p)
{
	int r = 0;

	if (!p)
		return 0;
	if (p->kernel) {
		view_close(p);
	} else if (p->engine) {
		if (!(p->flags & VOL_READONLY)) {
			int64_t start = vol_now_ms();
			vol_host_stop_worker(p->host);
			while (!p->passed_on && !vol_interrupted() && vol_now_ms() - start < CLOSE_WORK_MS && vd_pool_work(p->engine) == 1)
				;
		}
		r = vd_pool_close(p->engine);
		if (r == -EBUSY) {
			if (!(p->flags & VOL_READONLY) && vol_host_start_worker(p->host, p->engine))
				vol_log(VOL_LOG_WARN, "pool %s: its background work has stopped", p->name);
			return vol_fail(p, r, "pool %s: volumes are still open", p->name);
		}
		if (r)
			vol_fail(NULL, r, "pool %s: its last checkpoint failed: %s; the next opening will replay the journal",
				 p->name, vol_strerror(r));
	}
	vol_host_free(p->host);
	vol_client_close(p->client);
	free(p);
	return r;
}

const char *vol_pool_name(const struct vol_pool *p)
{
	return p->name;
}

void vol_pool_uuid(const struct vol_pool *p, uint8_t uuid[16])
{
	memcpy(uuid, p->uuid, 16);
}

bool vol_pool_in_kernel(const struct vol_pool *p)
{
	return p->kernel;
}

int vol_pool_server(const struct vol_pool *p)
{
	return p->client ? vol_client_process(p->client) : -ENOENT;
}

bool vol_pool_is_remote(const struct vol_pool *p)
{
	return p->client != NULL;
}

struct vd_pool *vol_pool_engine(struct vol_pool *p)
{
	return p->engine;
}

struct vol_host *vol_pool_host(struct vol_pool *p)
{
	return p->host;
}

static int call_once(struct vol_pool *p, struct json_object *request, vol_part_fn part, void *arg, struct json_object **result)
{
	struct vol_request rq = { .pool = p, .args = request, .part = part, .arg = arg };
	struct json_object *answer = NULL;
	int r;

	if (p->client)
		return vol_client_call(p->client, request, part, arg, result, &p->err);
	r = p->kernel ? call_in_kernel(p, &rq, &answer) : vol_execute(&rq, &answer);
	if (r && rq.err.text[0])
		p->err = rq.err;
	else if (result)
		*result = answer;
	else
		json_object_put(answer);
	return r;
}

int vol_call(struct vol_pool *p, struct json_object *request, vol_part_fn part, void *arg, struct json_object **result)
{
	struct vd_disk_holder self;
	struct json_object *have;
	int r;

	if (!json_object_object_get_ex(request, "holder", &have)) {
		vol_holder_self(&self, NULL);
		json_set(request, "holder", vol_holder_to_json(&self));
	}
	for (unsigned tries = 0;; tries++) {
		p->err.text[0] = 0;
		r = call_once(p, request, part, arg, result);
		if (r != -ESTALE || !p->kernel)
			break;
		r = tries < 3 ? open_anew(p) :
			vol_fail(p, -EAGAIN, "pool %s is opened and closed in the kernel all the time, or its device is no vd-pool; "
				 "'dmsetup table --target vd-pool' tells what there is", p->name);
		if (r)
			break;
	}
	if (r && !p->err.text[0])
		vol_fail(p, r, "pool %s: %s", p->name, vol_strerror(r));
	return r;
}
