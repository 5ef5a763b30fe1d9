// SPDX-License-Identifier: LGPL-2.1-or-later
/* Links that are there already: made again, all that are down; and what has changed its size. */
#include "link-list.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activate.h"
#include "describe.h"
#include "drive.h"

/* ---- restoring ----------------------------------------------------------- */

/*
 * Local links first, as nobody is waited for.  Then those of servers: a server that waits for this host gives up for good
 * what it does not find when an address listens again, so all that goes through the NVMe target, of all pools that this host's
 * record names, is prepared before the first is opened (nvmet.h, N4), and then made again, one by one.
 */
enum pass { LOCAL, PREPARE, SERVED };
struct restorer {
	bool test, complete;
	int (*fn)(void *arg, const struct link_info *l, int r, const char *text);
	void *arg;
	enum pass pass;
	bool asked;             /* for the pool, and not only for what waits in it */
	struct link_downs down; /* those of one pool */
	bool some_up, some_served;
	struct wanted { uint8_t uuid[16]; bool asked; } *wanted; /* pools with links of servers to be made again */
	size_t nwanted;
	struct prepared { struct server s; struct link_info l; bool up; } *prepared; /* up: it was */
	size_t nprepared;
};

/* Of a link that is down, or (p is NULL) up. */
static void prepare_one(struct restorer *rs, struct vol_pool *p, const struct link_info *l)
{
	struct prepared *more = realloc(rs->prepared, (rs->nprepared + 1) * sizeof(*more));

	if (!more)
		return;
	rs->prepared = more;
	more += rs->nprepared;
	more->up = !p;
	if (!p)
		more->l = *l;
	if (!p || link_prepare_again(p, l, &more->l, &more->s) == 1)
		rs->nprepared++;
}

static const struct prepared *prepared(const struct restorer *rs, const uint8_t uuid[16], const char *volume)
{
	for (size_t i = 0; i < rs->nprepared; i++)
		if (!memcmp(rs->prepared[i].l.uuid, uuid, 16) && !strcmp(rs->prepared[i].l.volume, volume))
			return &rs->prepared[i];
	return NULL;
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

static bool waits(const char *pool, const uint8_t uuid[16], const char *server)
{
	struct server s;

	return !server_here(pool, uuid, server, &s) && drive_needs_preparing(&s);
}

static int collect_down(void *arg, const struct link_info *l)
{
	struct restorer *rs = arg;
	const struct prepared *p = prepared(rs, l->uuid, l->volume);
	bool was_down = p && !p->up; /* and may look as if it were up since */

	rs->some_up |= l->state == LINK_UP;
	if (l->state == LINK_UP && rs->pass == PREPARE && link_served(l))
		prepare_one(rs, NULL, l);
	if (l->state != LINK_DOWN && !was_down)
		return 0;
	rs->some_served |= link_served(l);
	if (link_served(l) != (rs->pass != LOCAL))
		return 0;
	if (rs->pass == PREPARE && (!is_recorded(l) || !waits(l->pool, l->uuid, l->server)))
		return 0;
	if (rs->pass == SERVED && !rs->asked && !was_down)
		return 0;
	return link_down(&rs->down, l);
}

static int want(struct restorer *rs, const uint8_t uuid[16], bool asked)
{
	struct wanted *more;

	for (size_t i = 0; i < rs->nwanted; i++)
		if (!memcmp(rs->wanted[i].uuid, uuid, 16))
			return 0;
	more = realloc(rs->wanted, (rs->nwanted + 1) * sizeof(*more));
	if (!more)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	rs->wanted = more;
	memcpy(more[rs->nwanted].uuid, uuid, 16);
	more[rs->nwanted++].asked = asked;
	return 0;
}

/* What could not be made again, and is there all the same. */
static int make_one(struct restorer *rs, struct vol_pool *p, const struct link_info *down, struct link_info *l)
{
	int r = rs->test ? 0 : link_make_again(p, down, l);
	char why[1024];

	if (r && link_served(l) && drive_up(l)) {
		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		vol_fail(NULL, r, "%s\n%s has it all the same, and may write to it: 'vdunlink %s/%s' takes it away", why, l->server, l->pool,
			 l->volume);
	}
	if (rs->fn)
		rs->fn(rs->arg, l, r, r ? vol_error(NULL) : "");
	return r;
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
		return r;
	l = malloc(sizeof(*l));
	rs->down.n = 0;
	rs->some_up = rs->some_served = false;
	r = l ? vol_pool_open_uuid(uuid, VOL_READONLY, &p) : -ENOMEM;
	if (r)
		goto out;
	r = link_members(p, &missing, &members);
	if (!r && !((rs->complete || !rs->asked) && missing))
		r = link_list_open(p, NULL, collect_down, rs);
	k = vol_pool_close(p);
	r = r ? r : k;
	if (!r && rs->pass == LOCAL && (rs->some_served || (!rs->test && drive_untold(uuid))))
		r = want(rs, uuid, true);
	if (r || (!rs->down.n && !(rs->some_up && rs->pass == LOCAL)))
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
		if (rs->pass == PREPARE) {
			prepare_one(rs, p, l);
			continue;
		}
		k = make_one(rs, p, &rs->down.l[i], l);
		r = r ? r : k;
	}
	if (!rs->test) {
		k = vol_pool_close(p);
		r = r ? r : k;
	}
out:
	close(lock);
	free(l);
	return r;
}

/* One pool of those wanted. */
static int restore_wanted(struct restorer *rs, enum pass pass, size_t i)
{
	char text[VOL_UUID_TEXT];

	rs->pass = pass;
	rs->asked = rs->wanted[i].asked;
	vol_uuid_text(rs->wanted[i].uuid, text);
	return restore_pool(rs, text);
}

static int want_recorded(void *arg, const uint8_t uuid[16], const char *pool, const char *volume, const char *server)
{
	(void)volume;
	return waits(pool, uuid, server) ? want(arg, uuid, false) : 0;
}

/* Of a pool that was not asked for: nobody else tells. */
static int tell_missing(void *arg, const uint8_t uuid[16], const char *pool, const char *volume, const char *server)
{
	const struct restorer *rs = arg;

	for (size_t i = 0; i < rs->nwanted; i++)
		if (!memcmp(rs->wanted[i].uuid, uuid, 16) && rs->wanted[i].asked)
			return 0;
	if (waits(pool, uuid, server) && !prepared(rs, uuid, volume))
		vol_log(VOL_LOG_WARN, "%s/%s cannot be given to server %s now, which loses it if it waits for it; "
			"'vdlink --restore %s' makes that link again", pool, volume, server, pool);
	return 0;
}

static void prepare(struct restorer *rs)
{
	size_t n = rs->nwanted, down = 0;

	/* What fails, fails again, and is told then. */
	for (size_t i = 0; i < n; i++)
		(void)!restore_wanted(rs, PREPARE, i);
	for (size_t i = 0; i < rs->nprepared; i++)
		down += !rs->prepared[i].up;
	if (!down)
		return;
	(void)!describe_each(want_recorded, rs);
	for (size_t i = n; i < rs->nwanted; i++)
		(void)!restore_wanted(rs, PREPARE, i);
	if (rs->nwanted > n)
		(void)!describe_each(tell_missing, rs);
	for (size_t i = 0; i < rs->nprepared; i++)
		if (!rs->prepared[i].up)
			(void)!drive_open(&rs->prepared[i].s, &rs->prepared[i].l);
}

/* What cannot be opened for writing may be another host's: the next restore tells. */
static void tell(const uint8_t uuid[16])
{
	char name[VOL_UUID_TEXT], pool[VOL_NAME_SIZE];
	uint8_t same[16];
	struct vol_pool *p;
	int lock;

	vol_uuid_text(uuid, name);
	if (!drive_untold(uuid) || link_pool_name(name, pool, same) || link_lock(pool, &lock))
		return;
	if (!vol_pool_open_uuid(uuid, 0, &p)) {
		link_tell(p, pool, uuid, NULL);
		if (vol_pool_close(p))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	}
	close(lock);
}

int link_restore(const char *pool, bool test, bool complete, int (*fn)(void *, const struct link_info *, int, const char *), void *arg)
{
	struct restorer rs = { .test = test, .complete = complete, .fn = fn, .arg = arg, .asked = true };
	struct link_results all = { 0 };

	link_result(&all, link_each_pool(pool, restore_pool, &rs));
	if (!test)
		prepare(&rs);
	for (size_t i = 0; i < rs.nwanted; i++)
		link_result(&all, restore_wanted(&rs, SERVED, i));
	for (size_t i = 0; !test && i < rs.nwanted; i++)
		if (rs.wanted[i].asked)
			tell(rs.wanted[i].uuid);
	free(rs.prepared);
	free(rs.wanted);
	free(rs.down.l);
	return all.r ? vol_fail(NULL, all.r, "%s", all.text) : 0;
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
