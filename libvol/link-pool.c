// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Pools as a whole: opened in the kernel, and closed there, with the devices of this host's
 * links.  Closing asks device-mapper alone what there is, so that a pool can be closed that
 * cannot be read any more.
 */
#include "link-list.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "activate.h"
#include "handle.h"

/* ---- what device-mapper has -------------------------------------------------- */

#define DEVICES_MAX 4096

/* UUIDs of devices that begin with "VD-" and `pool`: what follows that.  A list, which the caller frees. */
struct uuids { char text[DEVICES_MAX][2 * VOL_UUID_TEXT]; unsigned n; };

static int list_uuids(const char *pool, struct uuids **out)
{
	char path[320], line[160];
	struct uuids *u = calloc(1, sizeof(*u));
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	FILE *f;

	while (u && d && u->n < DEVICES_MAX && (e = readdir(d))) {
		snprintf(path, sizeof(path), "/sys/block/%s/dm/uuid", e->d_name);
		f = strncmp(e->d_name, "dm-", 3) ? NULL : fopen(path, "re");
		if (!f)
			continue;
		if (fgets(line, sizeof(line), f)) {
			line[strcspn(line, "\n")] = 0;
			if (!strncmp(line, "VD-", 3) && !strncmp(line + 3, pool, strlen(pool)) && strlen(line + 3) < sizeof(u->text[0]))
				strcpy(u->text[u->n++], line + 3);
		}
		fclose(f);
	}
	if (d)
		closedir(d);
	if (!u)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	*out = u;
	return 0;
}

int link_each_active(int (*fn)(void *arg, const char *pool), void *arg)
{
	struct link_results all = { 0 };
	struct uuids *u;
	int r = list_uuids("", &u);

	if (r)
		return r;
	for (unsigned i = 0; i < u->n; i++) {
		if (strlen(u->text[i]) != VOL_UUID_TEXT - 1 + strlen("-pool") || strcmp(u->text[i] + VOL_UUID_TEXT - 1, "-pool"))
			continue;
		u->text[i][VOL_UUID_TEXT - 1] = 0;
		link_result(&all, fn(arg, u->text[i]));
	}
	free(u);
	return all.r ? vol_fail(NULL, all.r, "%s", all.text) : 0;
}

/* ---- opening ------------------------------------------------------------------ */

struct down { struct link_downs links; bool mounts; };

static int note_down(void *arg, const struct link_info *l)
{
	struct down *d = arg;

	/* VMs are started when more of the host is there: link_restore() then. */
	return l->state != LINK_DOWN || (l->mount[0] && !d->mounts) || link_served(l) ? 0 : link_down(&d->links, l);
}

static int look_at_pool(const char *uuid, struct link_pool *lp, struct down *d)
{
	struct vol_pool *p;
	int r, e;

	r = vol_pool_open(uuid, VOL_READONLY, &p);
	if (r)
		return r;
	snprintf(lp->name, sizeof(lp->name), "%s", vol_pool_name(p));
	lp->was = vol_pool_in_kernel(p);
	if (vol_pool_is_remote(p))
		lp->why = "a server has it open";
	r = link_members(p, &lp->missing, &lp->members);
	if (!r)
		r = link_list_open(p, NULL, note_down, d);
	e = vol_pool_close(p);
	return r ? r : e;
}

static int make_devices(const char *uuid, const struct link_pool *lp, const struct link_downs *d)
{
	struct link_info *l = malloc(sizeof(*l));
	struct vol_pool *p;
	int r = 0, e;

	if (!l)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	e = vol_pool_open(uuid, lp->readonly ? VOL_READONLY : 0, &p);
	if (e) {
		free(l);
		return e;
	}
	for (size_t i = 0; i < d->n; i++) {
		*l = d->l[i];
		l->readonly |= lp->readonly;
		e = !lp->readonly ? link_make_again(p, &d->l[i], l) : l->kernel ? 0 : activate_volume(p, l);
		r = r ? r : e;
		if (lp->fn)
			lp->fn(lp->arg, l, e, e ? vol_error(NULL) : "");
	}
	if (r)
		vol_fail(NULL, r, "pool %s is active, but not all links are up", lp->name);
	free(l);
	e = vol_pool_close(p);
	return r ? r : e;
}

static int activate(const char *uuid_text, const uint8_t uuid[16], struct link_pool *lp, const struct link_downs *d)
{
	const char **volume = calloc(d->n + 1, sizeof(*volume));
	bool started;
	int r;

	if (!volume)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	for (size_t i = 0; i < d->n; i++)
		volume[i] = d->l[i].volume;
	r = activate_kernel(lp->name, uuid, volume, (unsigned)d->n,
			    (lp->readonly ? VOL_READONLY : 0) | (lp->takeover ? VOL_TAKEOVER : 0), &started, &lp->why);
	free(volume);
	return r || lp->why || !d->n ? r : make_devices(uuid_text, lp, d);
}

int link_activate(const char *pool, struct link_pool *lp)
{
	struct down d = { .mounts = lp->readonly };
	char text[VOL_UUID_TEXT];
	uint8_t uuid[16];
	int lock, r;

	lp->why = NULL;
	r = link_pool_name(pool, lp->name, uuid);
	if (!r)
		r = link_lock(lp->name, &lock);
	if (r)
		return r;
	vol_uuid_text(uuid, text);
	r = look_at_pool(text, lp, &d);
	if (!r && !lp->why && lp->missing && !lp->was && !lp->readonly && !lp->complete)
		r = vol_fail(NULL, -EROFS, "pool %s is not activated: %u of its %u members are missing; 'vdpool show %s' tells which\n"
			     "'vdpool activate --readonly %s' opens it for reading", lp->name, lp->missing, lp->members, lp->name, lp->name);
	if (!r && !lp->why && !lp->test && !(lp->complete && lp->missing))
		r = activate(text, uuid, lp, &d.links);
	free(d.links.l);
	close(lock);
	return r;
}

/* ---- closing ------------------------------------------------------------------ */

/* "vd-POOL-pool", with hyphens doubled: all there is to know of one that has failed. */
static void pool_of_device(const char *path, char name[VOL_NAME_SIZE])
{
	const char *from = path + strlen("/dev/mapper/vd-"), *end = path + strlen(path) - strlen("-pool");
	size_t n = 0;

	for (; from < end && n < VOL_NAME_SIZE - 1; from++) {
		name[n++] = *from;
		from += *from == '-';
	}
	name[n] = 0;
}

static int stop_volume(const uint8_t uuid[16], const uint8_t volume[16], bool test)
{
	char path[DM_PATH];

	if (!test)
		return vol_dm_volume_stop(uuid, volume);
	return vol_dm_find(uuid, volume, path) ? 0 : device_unused(path);
}

static int stop_volumes(const char *uuid_text, const uint8_t uuid[16], const struct link_pool *lp)
{
	struct link_results all = { 0 };
	uint8_t volume[16];
	struct uuids *u;
	int r = list_uuids(uuid_text, &u);

	if (r)
		return r;
	for (unsigned i = 0; i < u->n; i++) {
		if (vol_uuid_parse(u->text[i] + VOL_UUID_TEXT, volume)) /* the pool's own */
			continue;
		link_result(&all, stop_volume(uuid, volume, lp->test));
	}
	free(u);
	return all.r ? vol_fail(NULL, all.r, "pool %s stays active: %s", lp->name, all.text) : 0;
}

static int stop_pool(const char *uuid_text, const uint8_t uuid[16], const struct link_pool *lp)
{
	int hold, r = vol_runtime_lock(uuid_text, "kernel", &hold);

	if (r)
		return r;
	r = vol_dm_pool_stop(uuid);
	close(hold);
	if (!r)
		return 0;
	return vol_fail(NULL, r == -EAGAIN ? -EBUSY : r, "pool %s stays active: %s", lp->name,
			r == -EBUSY ? "a table of device-mapper names it, which no command of ours has made\n"
				      "'dmsetup deps' tells which; 'dmsetup remove' takes it away" :
			r == -EAGAIN ? "something has its device open" : vol_strerror(r));
}

static int not_a_servers(const char *pool, const uint8_t uuid[16])
{
	struct vol_pool *p;
	int r = vol_pool_open_uuid(uuid, VOL_READONLY, &p), e;

	if (r)
		return r;
	if (vol_pool_is_remote(p))
		r = vol_fail(NULL, -EBUSY, "pool %s is open in a server, for its links or clients\n'vdlink ls %s' lists the links; "
			     "'vdunlink' ends them", pool, pool);
	e = vol_pool_close(p);
	return r ? r : e;
}

int link_deactivate(const char *pool, struct link_pool *lp)
{
	char text[VOL_UUID_TEXT], device[DM_PATH];
	uint8_t uuid[16];
	int lock, r;

	lp->was = false;
	/* One that has failed, or lost all members, is known to the kernel alone. */
	if (vol_uuid_parse(pool, uuid) ? vol_dm_find_pool(pool, uuid) : vol_dm_find(uuid, NULL, device)) {
		r = link_pool_name(pool, lp->name, uuid);
		return r ? r : not_a_servers(lp->name, uuid);
	}
	lp->was = true;
	r = vol_dm_find(uuid, NULL, device);
	if (r)
		return r == -ENOENT ? 0 : vol_fail(NULL, r, "pool %s cannot be looked at: %s", pool, vol_strerror(r));
	pool_of_device(device, lp->name);
	r = link_lock(lp->name, &lock);
	if (r)
		return r;
	vol_uuid_text(uuid, text);
	r = stop_volumes(text, uuid, lp);
	if (!r && !lp->test)
		r = stop_pool(text, uuid, lp);
	close(lock);
	return r;
}
