// SPDX-License-Identifier: GPL-2.0-or-later
/* vdlock: shows the locks of volumes, and breaks one that nobody will release. */
#include "common.h"

#include <string.h>

#include "../libvol/link-list.h"

static int force;

/* ---- ls ------------------------------------------------------------------------ */

static const struct poptOption report_options[] = {
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};
static const struct cmd_field fields[] = {
	{ "path", "Volume", CMD_TEXT, "POOL/VOLUME" },
	{ "pool", "Pool", CMD_TEXT, "pool it is in" },
	{ "volume", "Name", CMD_TEXT, "name of the volume" },
	{ "holder", "Held by", CMD_TEXT, "what holds the lock: a command, as a rule" },
	{ "host", "Host", CMD_TEXT, "host it runs on" },
	{ "pid", "PID", CMD_NUMBER, "its process there" },
	{ "since", "Since", CMD_TIME, "since when, UTC" },
	{ "state", "State", CMD_TEXT, "live, stale: the holder is gone, or elsewhere: another host's" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

struct lister { const char *pool; struct cmd_report *report; };

static void add_lock(struct lister *ls, struct json_object *v)
{
	char path[2 * VOL_NAME_SIZE];
	struct json_object *lock, *o;
	struct vd_disk_holder who;

	if (!json_get(v, "lock", json_type_object, &lock) || vol_holder_from_json(lock, &who))
		return;
	o = json_object_new_object();
	snprintf(path, sizeof(path), "%s/%s", ls->pool, json_str(v, "name"));
	json_set_str(o, "path", path);
	json_set_str(o, "pool", ls->pool);
	json_set_str(o, "volume", json_str(v, "name"));
	json_set_str(o, "holder", json_str(lock, "purpose"));
	json_set_str(o, "host", json_str(lock, "hostname"));
	json_set_u64(o, "pid", json_u64(lock, "pid"));
	json_set_u64(o, "since", json_u64(lock, "since"));
	json_set_str(o, "state", !vol_holder_is_here(&who) ? "elsewhere" : vol_holder_stale(&who) ? "stale" : "live");
	cmd_report_add(ls->report, o);
}

static int on_volumes(void *arg, struct json_object *o)
{
	struct json_object *part, *volumes;

	if (!json_get(o, "part", json_type_object, &part) || !json_get(part, "volumes", json_type_array, &volumes))
		return 0;
	for (size_t i = 0; i < json_object_array_length(volumes); i++)
		add_lock(arg, json_object_array_get_idx(volumes, i));
	return 0;
}

static int ls_pool(void *arg, const char *name)
{
	struct json_object *q;
	struct vol_pool *p;
	int e, r = vol_pool_open(name, VOL_READONLY, &p);

	if (r)
		return r;
	q = link_request("list", NULL);
	r = vol_call(p, q, on_volumes, &(struct lister){ vol_pool_name(p), arg }, NULL);
	if (r)
		vol_fail(NULL, r, "%s", vol_error(p));
	json_object_put(q);
	e = vol_pool_close(p);
	return r ? r : e;
}

static int ls(const struct cmd_args *a)
{
	struct cmd_report report;
	char pool[VOL_NAME_SIZE];
	int r, code = cmd_report_init(&report, "lock", fields, "path,holder,host,pid,since,state");

	if (!code && a->n)
		code = cmd_parse_pool(a->arg[0], pool);
	if (code)
		return code;
	r = link_each_pool(a->n ? pool : NULL, ls_pool, &report);
	if (r)
		code = cmd_failed(NULL, r);
	cmd_report_print(&report);
	return code;
}

/* ---- break --------------------------------------------------------------------- */

static const struct poptOption break_options[] = {
	{ "force", 'f', POPT_ARG_NONE, &force, 0, "also a lock whose holder is alive, or on another host", NULL },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static int take_volume(void *arg, struct json_object *part)
{
	struct json_object *volumes;

	if (json_get(part, "volumes", json_type_array, &volumes) && json_object_array_length(volumes))
		*(struct json_object **)arg = json_object_get(json_object_array_get_idx(volumes, 0));
	return 0;
}

/* The volume as it is listed; *v is the caller's. */
static int look(const char *pool, const char *volume, struct json_object **v)
{
	struct json_object *q, *names = json_object_new_array();
	struct vol_pool *p;
	int code;

	*v = NULL;
	q = cmd_request("list");
	json_object_array_add(names, json_object_new_string(volume));
	json_set(q, "names", names);
	p = cmd_open(pool, VOL_READONLY, &code);
	if (!p) {
		json_object_put(q);
		return code;
	}
	code = cmd_exit_code(cmd_call(p, q, take_volume, v, NULL));
	return cmd_close(p, code);
}

/* No lock: what keeps others out may be a link all the same. */
static int not_locked(const char *pool, const char *volume, struct json_object *v)
{
	struct json_object *pointers;

	if (json_get(v, "pointers", json_type_array, &pointers) && json_object_array_length(pointers))
		return cmd_failed(NULL, vol_fail(NULL, -EBUSY, "%s/%s is not locked, but open: 'vdlink ls %s' tells by whom\n"
						 "a link ends with 'vdunlink %s/%s'", pool, volume, pool, pool, volume));
	cmd_say("%s/%s is not locked", pool, volume);
	return CMD_OK;
}

/* Asked while the pool is not held: the answer may take its time, and is about that holder. */
static int break_(const struct cmd_args *a)
{
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE], who[256];
	struct json_object *v, *lock, *q;
	struct vd_disk_holder h;
	struct vol_pool *p;
	int r, code = cmd_parse_volume(a->arg[0], pool, volume);

	if (!code)
		code = look(pool, volume, &v);
	if (code || !v)
		return code;
	if (!json_get(v, "lock", json_type_object, &lock) || vol_holder_from_json(lock, &h)) {
		code = not_locked(pool, volume, v);
		goto out;
	}
	q = cmd_request_on("unlock", volume);
	if (force && !vol_holder_stale(&h)) {
		vol_holder_text(&h, who, sizeof(who));
		json_set_bool(q, "force", true);
		json_set(q, "of", json_object_get(lock));
		if (!cmd_confirm("Break the lock of %s? %s may be at work on it", a->arg[0], who))
			code = CMD_REFUSED;
	}
	p = code ? NULL : cmd_open(pool, 0, &code);
	if (!p) {
		json_object_put(q);
		goto out;
	}
	r = cmd_call(p, q, NULL, NULL, NULL);
	if (!r)
		cmd_say(cmd_opt.test ? "the lock of %s/%s would be broken" : "%s/%s is not locked any more", pool, volume);
	code = cmd_close(p, cmd_exit_code(r));
out:
	json_object_put(v);
	return code;
}

/* ---- table ------------------------------------------------------------------------ */

static const struct cmd_subcommand subcommands[] = {
	{ "ls", ls, report_options, "ls [POOL]", 0, 1, "list locks", NULL },
	{ "break", break_, break_options, "break POOL/VOLUME", 1, 1, "take a volume's lock from whoever holds it", NULL },
};

int main(int argc, char **argv)
{
	vol_set_purpose("vdlock");
	return cmd_subcommands(argc, argv, "vdlock", subcommands, sizeof(subcommands) / sizeof(subcommands[0]));
}
