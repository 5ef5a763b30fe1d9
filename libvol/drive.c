// SPDX-License-Identifier: LGPL-2.1-or-later
/* Drives of servers. drive.h tells. */
#include "drive.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent.h"
#include "describe.h"
#include "json.h"
#include "nvmet.h"
#include "vm.h"

static bool is_vm(const struct server *s)
{
	return !strcmp(s->kind, "vm");
}

static struct json_object *via(const struct server *s, const struct link_info *l)
{
	struct json_object *o;

	if (!is_vm(s))
		return nvmet_via(s, l);
	o = json_object_new_object();
	json_set_str(o, "kind", "scsi");
	return o;
}

int drive_check(const struct server *s, const struct link_spec *spec)
{
	bool mounts = spec->mount || spec->options || spec->automount || spec->mkfs || spec->duplicate;

	if (mounts && !s->agent[0])
		return vol_fail(NULL, -EINVAL, "server %s has no agent that could mount anything there; vdserver(8) tells of agents", s->name);
	if (spec->mkfs && spec->no_mount)
		return vol_fail(NULL, -EINVAL, "an agent makes a file system when it mounts it: --mkfs does not go with --no-mount");
	if (spec->mount && (spec->mount[0] != '/' || strlen(spec->mount) > 127))
		return vol_fail(NULL, -EINVAL, "\"%s\": a directory of server %s is an absolute path of 127 bytes at most", spec->mount, s->name);
	if (spec->readonly && !is_vm(s))
		return vol_fail(NULL, -EOPNOTSUPP, "the kernel's NVMe target takes no device that cannot be written\n"
				"link a snapshot that can be, or link it to another kind of server");
	return 0;
}

/* Agents that this command has found deaf, where links are made again: each is waited for once. */
static struct { char (*agent)[sizeof(((struct server *)0)->agent)]; size_t n; } deaf;

static void note_deaf(struct server *s)
{
	void *more = realloc(deaf.agent, (deaf.n + 1) * sizeof(*deaf.agent));

	vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	s->deaf = true;
	if (!more)
		return;
	deaf.agent = more;
	memcpy(deaf.agent[deaf.n++], s->agent, sizeof(s->agent));
}

static bool is_deaf(const struct server *s)
{
	for (size_t i = 0; i < deaf.n; i++)
		if (!strcmp(deaf.agent[i], s->agent))
			return true;
	return false;
}

int drive_ready(struct server *s, bool again)
{
	int r = is_vm(s) ? vm_ready(s) : nvmet_ready();

	if (r || !s->agent[0])
		return r;
	s->again = again;
	if (again && is_deaf(s)) {
		s->deaf = true;
		return 0;
	}
	r = agent_ready(s);
	/* Its kernel needs this host's target, and no agent. */
	if (r && again && r != -EPERM && r != -EINTR) {
		note_deaf(s);
		r = 0;
	}
	return r;
}

struct telling { const char *pool; const uint8_t *uuid; const char *server; };

static int tell_one(void *arg, const struct describe_untold *u)
{
	const struct telling *t = arg;
	struct link_info l = { 0 };
	struct server s;
	int r;

	if ((t->server && strcmp(u->server, t->server)) || server_here(t->pool, t->uuid, u->server, &s) || !s.agent[0] || is_deaf(&s))
		return 0;
	memcpy(l.volume_uuid, u->volume_uuid, 16);
	r = agent_ready(&s);
	if (!r)
		r = agent_unlink(&s, &l, false, false);
	if (!r)
		r = describe_untold_del(t->uuid, u);
	if (r == -ENOTCONN)
		note_deaf(&s);
	else if (r)
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	return r == -EINTR ? r : 0;
}

void drive_tell(const char *pool, const uint8_t uuid[16], const char *server)
{
	(void)!describe_untold_each(uuid, tell_one, &(struct telling){ pool, uuid, server });
}

static int is_untold(void *arg, const struct describe_untold *u)
{
	(void)arg, (void)u;
	return 1;
}

bool drive_untold(const uint8_t uuid[16])
{
	return describe_untold_each(uuid, is_untold, NULL) == 1;
}

/* A drive that the server has by now, whether or not its agent says so. */
static int tell_agent(struct server *s, struct link_info *l, const struct link_spec *spec)
{
	int r = s->agent[0] && !s->deaf ? agent_link(s, l, spec, via(s, l)) : 0;

	if (r == -ENOTCONN && s->again) {
		note_deaf(s);
		r = 0;
	}
	return r;
}

int drive_give(struct server *s, struct link_info *l, unsigned sector)
{
	int r;

	if (is_vm(s)) {
		r = vm_plug(s, l, sector);
		l->given = l->vm;
		if (!r)
			r = vm_verify(s, l);
	} else {
		l->given = true;
		r = nvmet_plug(s, l);
	}
	return r ? r : tell_agent(s, l, NULL);
}

int drive_present(struct server *s, struct link_info *l, const struct link_spec *spec)
{
	return spec->no_mount ? 0 : tell_agent(s, l, spec);
}

/* 1: the agent has let go of it; 0: it cannot, or does not answer, which may be. -EBUSY always counts. */
static int let_go(const struct server *s, struct link_info *l, bool may_be_lost, bool finish)
{
	struct describe_untold u;
	char why[768];
	int r = agent_unlink(s, l, false, finish);

	u = (struct describe_untold){ .server = s->name, .volume = l->volume };
	memcpy(u.volume_uuid, l->volume_uuid, 16);
	if (!r) {
		if (describe_untold_del(l->uuid, &u)) /* of an earlier time */
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		l->mount[0] = 0;
		return 1;
	}
	if (r == -EBUSY || r == -EINTR)
		return r;
	snprintf(why, sizeof(why), "%s", vol_error(NULL));
	if (!may_be_lost)
		return vol_fail(NULL, r, "%s\nif that server is gone for good: vdunlink --force %s/%s", why, l->pool, l->volume);
	vol_log(VOL_LOG_WARN, "%s", why);
	if (describe_untold_add(l->pool, l->uuid, &u))
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	return 0;
}

int drive_take(const struct server *s, struct link_info *l, unsigned how)
{
	bool finish = how & DRIVE_FINISH;
	bool asked = false;
	int r;

	if (s->agent[0]) {
		r = let_go(s, l, how & DRIVE_FORCE || (is_vm(s) && !vm_runs(l)), finish);
		if (r < 0)
			return r;
		asked = r > 0;
	}
	r = is_vm(s) ? vm_unplug(s, l) : nvmet_unplug(l);
	if (r)
		return r;
	/* When it is away there is nothing left to protect: what is told then is a remark.  The device of a VM's went when
	 * its agent let go of it. */
	if (asked && !is_vm(s) && agent_gone(s, l, via(s, l), finish))
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	return is_vm(s) ? 0 : nvmet_clear(s, l);
}

int drive_take_test(const struct server *s, const struct link_info *l)
{
	return s->agent[0] ? agent_unlink(s, l, true, false) : 0;
}

/* Its front is at work. */
static bool can_be_read(const struct link_info *l)
{
	static char buf[4096] __attribute__((aligned(4096)));
	int fd = open(l->device, O_RDONLY | O_DIRECT | O_CLOEXEC);
	bool can = fd >= 0 && pread(fd, buf, sizeof(buf), 0) == (ssize_t)sizeof(buf);

	if (fd >= 0)
		close(fd);
	return can;
}

int drive_clear(const struct server *s, struct link_info *l, bool *keep)
{
	bool has = drive_up(l);
	int r;

	*keep = has && !l->vm && l->kernel;
	if (*keep)
		return 0;
	/* It may be at work with it; there is nothing to lose where it gets errors alone. */
	if (has && s->agent[0])
		return drive_take(s, l, can_be_read(l) ? 0 : DRIVE_FORCE);
	if (is_vm(s))
		return vm_unplug(s, l);
	r = nvmet_unplug(l);
	return r ? r : nvmet_clear(s, l);
}

bool drive_needs_preparing(const struct server *s)
{
	return !is_vm(s);
}

int drive_prepare(struct server *s, struct link_info *l)
{
	int r = nvmet_ready();

	return r ? r : nvmet_prepare(s, l);
}

int drive_open(const struct server *s, const struct link_info *l)
{
	return nvmet_open(s, l);
}

int drive_resize(struct server *s, struct link_info *l)
{
	int r = is_vm(s) ? vm_resize(s, l) : nvmet_resize(l);

	if (r || !s->agent[0])
		return r;
	if (!is_vm(s))
		s->dhchap = nvmet_authenticates(s);
	if (agent_link(s, l, NULL, via(s, l)))
		vol_log(VOL_LOG_WARN, "%s\nthe drive has its new size, but the agent has not seen it: 'vdlink --refresh %s/%s' tells it again",
			vol_error(NULL), l->pool, l->volume);
	return 0;
}

bool drive_up(const struct link_info *l)
{
	return l->vm ? vm_runs(l) : nvmet_has(l);
}
