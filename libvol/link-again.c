// SPDX-License-Identifier: LGPL-2.1-or-later
/* Links that are there already: made again, all that are down; and what has changed its size. */
#include "link-list.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activate.h"
#include "describe.h"
#include "drive.h"

/* ---- restoring ----------------------------------------------------------- */

struct restorer {
	bool test, complete;
	int (*fn)(void *arg, const struct link_info *l, int r, const char *text);
	void *arg;
	struct link_downs down; /* those of one pool */
	bool some_up, some_wait;/* wait: for drive_open() */
	bool prepare;           /* no more than that, and nothing is told: what fails, fails again */
	struct prepared { struct server s; struct link_info l; } *prepared;
	size_t nprepared;
};

static void prepare_one(struct restorer *rs, struct vol_pool *p, const struct link_info *down)
{
	struct prepared *more = realloc(rs->prepared, (rs->nprepared + 1) * sizeof(*more));

	if (!more)
		return;
	rs->prepared = more;
	if (link_prepare_again(p, down, &more[rs->nprepared].l, &more[rs->nprepared].s) == 1)
		rs->nprepared++;
}

/* By this host's record, without a word of those that it has not. */
static bool is_recorded(const struct link_info *l)
{
	struct describe_drive mine;
	bool same;

	if (describe_find(l->uuid, l->volume, &mine))
		return false;
	same = !strcmp(mine.server, l->server);
	describe_drive_free(&mine);
	return same;
}

static int collect_down(void *arg, const struct link_info *l)
{
	struct restorer *rs = arg;
	struct server s;

	rs->some_up |= l->state == LINK_UP;
	if (l->state != LINK_DOWN || (rs->prepare && !is_recorded(l)))
		return 0;
	rs->some_wait |= link_served(l) && !server_here(l->pool, l->uuid, l->server, &s) && drive_needs_preparing(&s);
	return link_down(&rs->down, l);
}

static int restore_pool(void *arg, const char *name)
{
	struct restorer *rs = arg;
	char pool[VOL_NAME_SIZE];
	struct vol_pool *p;
	struct link_info *l;
	uint8_t uuid[16];
	unsigned missing, members;
	int lock, r, k;

	r = link_pool_name(name, pool, uuid);
	if (!r)
		r = link_lock(pool, &lock);
	if (r)
		return rs->prepare ? 0 : r;
	l = malloc(sizeof(*l));
	rs->down.n = 0;
	rs->some_up = rs->some_wait = false;
	r = l ? vol_pool_open_uuid(uuid, VOL_READONLY, &p) : -ENOMEM;
	if (r)
		goto out;
	r = link_members(p, &missing, &members);
	if (!r && !(rs->complete && missing))
		r = link_list_open(p, NULL, collect_down, rs);
	k = vol_pool_close(p);
	r = r ? r : k;
	if (r || (rs->prepare ? !rs->some_wait : !rs->down.n && !rs->some_up))
		goto out;
	if (!rs->test) {
		const char **names = calloc(rs->down.n + 1, sizeof(*names));

		for (size_t i = 0; names && i < rs->down.n; i++)
			names[i] = rs->down.l[i].volume;
		/* Links that are up may have lost their server a moment ago. */
		r = names ? activate_pool(pool, uuid, names, (unsigned)rs->down.n, false, NULL, NULL) : -ENOMEM;
		free(names);
		if (!r)
			r = vol_pool_open_uuid(uuid, 0, &p);
		if (r)
			goto out;
	}
	for (size_t i = 0; i < rs->down.n; i++) {
		*l = rs->down.l[i];
		if (rs->prepare) {
			prepare_one(rs, p, l);
			continue;
		}
		k = rs->test ? 0 : link_make_again(p, &rs->down.l[i], l);
		if (k && !r)
			r = k;
		if (rs->fn)
			rs->fn(rs->arg, l, k, k ? vol_error(NULL) : "");
	}
	if (!rs->test) {
		k = vol_pool_close(p);
		r = r ? r : k;
	}
out:
	close(lock);
	free(l);
	return rs->prepare ? 0 : r;
}

int link_restore(const char *pool, bool test, bool complete, int (*fn)(void *, const struct link_info *, int, const char *), void *arg)
{
	struct restorer rs = { .test = test, .complete = complete, .fn = fn, .arg = arg };
	int r;

	if (!test) {
		rs.prepare = true;
		(void)!link_each_pool(pool, restore_pool, &rs);
		for (size_t i = 0; i < rs.nprepared; i++)
			(void)!drive_open(&rs.prepared[i].s, &rs.prepared[i].l); /* the link's own step tells */
		free(rs.prepared);
		rs.prepare = false;
	}
	r = link_each_pool(pool, restore_pool, &rs);
	free(rs.down.l);
	return r;
}

/* ---- resizing ------------------------------------------------------------ */

/* A front asks its server. */
static int refresh_front(const struct link_info *l)
{
	char file[512];
	struct stat st;
	uint64_t size;
	int r;

	if (!link_front_runs(l->front) || kill(l->front, SIGUSR1))
		return vol_fail(NULL, -ESRCH, "the front of %s/%s is gone", l->pool, l->volume);
	link_fuse_path(l, file, sizeof(file));
	for (unsigned ms = 0; ms < LINK_SCAN_MS; ms += 10) {
		if (!strncmp(l->device, "/dev/loop", 9) && !stat(file, &st) && (uint64_t)st.st_size == l->size) {
			r = device_loop_resize(l->device);
			if (r)
				return r;
		}
		if (!device_size(l->device, &size) && size == l->size)
			return 0;
		vol_nap(10);
	}
	return vol_fail(NULL, -ETIMEDOUT, "%s does not take the size of %s/%s", l->device, l->pool, l->volume);
}

/* The size that the device takes is still the volume's then: nobody changes it meanwhile. */
static int refresh_kernel(const struct link_info *l)
{
	struct vol_pool *p;
	int hold, r = vol_pool_open_uuid(l->uuid, VOL_READONLY, &p), e;

	if (r)
		return r;
	r = vol_pool_hold(p, &hold);
	if (!r) {
		r = activate_refresh(p, l);
		close(hold);
	} else {
		vol_fail(NULL, r, "%s", vol_error(p));
	}
	e = vol_pool_close(p);
	return r ? r : e;
}

int link_refresh(const char *pool, const char *volume, bool test)
{
	char name[VOL_NAME_SIZE];
	struct link_looked k;
	struct vol_pool *p;
	struct server s;
	uint8_t uuid[16];
	int lock, r, e;

	r = link_pool_name(pool, name, uuid);
	if (!r)
		r = link_lock(name, &lock);
	if (r)
		return r;
	r = vol_pool_open_uuid(uuid, VOL_READONLY, &p);
	if (r)
		goto out;
	r = link_look(p, volume, &k);
	e = vol_pool_close(p);
	r = r ? r : e;
	if (!r && (!k.have_mine || k.mine.state != LINK_UP))
		r = vol_fail(NULL, -ENOENT, "%s/%s is not linked to this host", pool, volume);
	if (!r && !test)
		r = k.mine.kernel ? refresh_kernel(&k.mine) : refresh_front(&k.mine);
	if (!r && !test && link_served(&k.mine))
		r = server_here(k.mine.pool, k.mine.uuid, k.mine.server, &s);
	if (!r && !test && link_served(&k.mine))
		r = drive_resize(&s, &k.mine);
out:
	close(lock);
	return r;
}
