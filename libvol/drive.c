// SPDX-License-Identifier: LGPL-2.1-or-later
/* Drives of servers. drive.h tells. */
#include "drive.h"

#include <stdio.h>

#include "agent.h"
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

int drive_ready(struct server *s, bool again)
{
	int r = is_vm(s) ? vm_ready(s) : nvmet_ready();

	if (r || !s->agent[0])
		return r;
	r = agent_ready(s);
	if (r != -ENOTCONN || !again)
		return r;
	vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	s->deaf = true;
	return 0;
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
	return r || !s->agent[0] || s->deaf ? r : agent_link(s, l, NULL, via(s, l));
}

int drive_present(const struct server *s, struct link_info *l, const struct link_spec *spec)
{
	return !s->agent[0] || s->deaf || spec->no_mount ? 0 : agent_link(s, l, spec, via(s, l));
}

/* 1: the agent has let go of it; 0: it cannot, or does not answer, which may be. -EBUSY always counts. */
static int let_go(const struct server *s, struct link_info *l, bool may_be_lost)
{
	char why[768];
	int r = agent_unlink(s, l, false);

	if (!r) {
		l->mount[0] = 0;
		return 1;
	}
	if (r == -EBUSY)
		return r;
	snprintf(why, sizeof(why), "%s", vol_error(NULL));
	if (!may_be_lost)
		return vol_fail(NULL, r, "%s\nif that server is gone for good: vdunlink --force %s/%s", why, l->pool, l->volume);
	vol_log(VOL_LOG_WARN, "%s", why);
	return 0;
}

int drive_take(const struct server *s, struct link_info *l, bool force)
{
	bool asked = false;
	int r;

	if (s->agent[0]) {
		r = let_go(s, l, force || (is_vm(s) && !vm_runs(l)));
		if (r < 0)
			return r;
		asked = r > 0;
	}
	r = is_vm(s) ? vm_unplug(s, l) : nvmet_unplug(l);
	if (r)
		return r;
	/* When it is away there is nothing left to protect: what is told then is a remark. */
	if (asked && agent_gone(s, l, via(s, l)))
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	return is_vm(s) ? 0 : nvmet_clear(s, l);
}

int drive_take_test(const struct server *s, const struct link_info *l)
{
	return s->agent[0] ? agent_unlink(s, l, true) : 0;
}

int drive_clear(const struct server *s, struct link_info *l, bool *keep)
{
	bool has = drive_up(l);
	int r;

	*keep = has && !l->vm && l->kernel;
	if (*keep)
		return 0;
	/* It may be at work with it, as far as it goes. */
	if (has && s->agent[0])
		return drive_take(s, l, true);
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

int drive_resize(const struct server *s, const struct link_info *l)
{
	return is_vm(s) ? vm_resize(s, l) : nvmet_resize(l);
}

bool drive_up(const struct link_info *l)
{
	return l->vm ? vm_runs(l) : nvmet_has(l);
}
