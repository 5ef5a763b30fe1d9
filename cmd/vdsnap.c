// SPDX-License-Identifier: GPL-2.0-or-later
/* vdsnap: snapshots of volumes at one instant, and rollback to one. */
#include "link.h"

static char *name_text, *permission, *activate;
static int readonly, rollback, group, activated;

static const struct poptOption options[] = {
	{ "name", 'n', POPT_ARG_STRING, &name_text, 0, "name of the snapshot; of several: VOLUME@NAME each", "NAME" },
	{ "readonly", 0, POPT_ARG_NONE, &readonly, 0, "the snapshot cannot be written", NULL },
	{ "permission", 'p', POPT_ARG_STRING, &permission, 0, "rw, or r for --readonly", "r|rw" },
	{ "activate", 'a', POPT_ARG_STRING, &activate, 0, "y links the snapshots to this host at once; the default is n", "y|n" },
	{ "group", 0, POPT_ARG_NONE, &group, 0, "all volumes at one instant (as always within a pool)", NULL },
	{ "rollback", 0, POPT_ARG_NONE, &rollback, 0, "the volume takes the contents of the snapshot", NULL },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static void say_made(struct vol_pool *pool, struct json_object *result)
{
	struct json_object *list;

	if (!json_get(result, "snapshots", json_type_array, &list))
		return;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		cmd_say(cmd_opt.test ? "%s/%s would be made, a snapshot of %s" : "%s/%s made, a snapshot of %s",
			vol_pool_name(pool), json_str(o, "name"), json_str(o, "volume"));
	}
}

/* Each that was made; the first failure is what the exit code tells. */
static int link_made(const char *pool, struct json_object *result)
{
	struct json_object *list;
	int code = CMD_OK;

	vol_set_purpose("vdlink"); /* as which links are known */
	if (!json_get(result, "snapshots", json_type_array, &list))
		return code;
	for (size_t i = 0; i < json_object_array_length(list) && !vol_interrupted(); i++) {
		struct link_spec spec = {
			.pool = pool, .volume = json_str(json_object_array_get_idx(list, i), "name"), .readonly = readonly,
		};
		int r = cmd_link(&spec);

		code = code ? code : r;
	}
	return code;
}

static int one_name(const char *volume, const char *pool, bool several, char name[VOL_NAME_SIZE])
{
	char text[3 * VOL_NAME_SIZE];

	if (!several)
		return cmd_parse_new_name(name_text, pool, name);
	snprintf(text, sizeof(text), "%s@%.*s", volume, VOL_NAME_SIZE, name_text);
	return cmd_parse_new_name(text, pool, name);
}

static int take(const char **object, unsigned n)
{
	struct json_object *q = cmd_request("snapshot"), *list = json_object_new_array(), *result = NULL;
	char pool_name[VOL_NAME_SIZE] = "", other[VOL_NAME_SIZE], volume[VOL_NAME_SIZE], name[VOL_NAME_SIZE];
	struct vol_pool *pool;
	int code = 0, r;

	json_set(q, "snapshots", list);
	json_set_bool(q, "readonly", readonly);
	for (unsigned i = 0; i < n && !code; i++) {
		struct json_object *o;
		code = cmd_parse_volume(object[i], other, volume);
		if (!code && i && strcmp(pool_name, other))
			code = cmd_usage("%s and %s are in two pools; one instant is possible within one pool only\n"
					 "say vdsnap for each pool", object[0], object[i]);
		strcpy(pool_name, other);
		if (!code && name_text)
			code = one_name(volume, pool_name, n > 1, name);
		if (code)
			break;
		o = json_object_new_object();
		json_set_str(o, "volume", volume);
		if (name_text)
			json_set_str(o, "name", name);
		json_object_array_add(list, o);
	}
	pool = code ? NULL : cmd_open(pool_name, 0, &code);
	if (!pool) {
		json_object_put(q);
		return code;
	}
	r = cmd_call(pool, q, NULL, NULL, &result);
	if (!r)
		say_made(pool, result);
	code = cmd_close(pool, cmd_exit_code(r));
	if (!code && activated && !cmd_opt.test)
		code = link_made(pool_name, result);
	json_object_put(result);
	return code;
}

static int on_volume(void *arg, struct json_object *part)
{
	struct json_object *list;
	char *origin = arg;

	if (json_get(part, "volumes", json_type_array, &list) && json_object_array_length(list) == 1)
		snprintf(origin, VOL_NAME_SIZE, "%s", json_str(json_object_array_get_idx(list, 0), "origin"));
	return 0;
}

/* What a snapshot was made of.  The pool is closed again before the user is asked. */
static int find_origin(const char *pool_name, const char *snap, char origin[VOL_NAME_SIZE])
{
	struct json_object *q, *names;
	struct vol_pool *pool;
	int code = 0, r;

	pool = cmd_open(pool_name, VOL_READONLY, &code);
	if (!pool)
		return code;
	names = json_object_new_array();
	json_object_array_add(names, json_object_new_string(snap));
	q = cmd_request("list");
	json_set(q, "names", names);
	r = cmd_call(pool, q, on_volume, origin, NULL);
	code = cmd_close(pool, cmd_exit_code(r));
	if (!code && !origin[0])
		code = cmd_usage("%s/%s is no snapshot, or what it was made of is gone; say which volume is to be rolled back",
				 pool_name, snap);
	return code;
}

static int roll_back(const char **object, unsigned n)
{
	char pool_name[VOL_NAME_SIZE], snap[VOL_NAME_SIZE], volume[VOL_NAME_SIZE] = "";
	struct json_object *q;
	struct vol_pool *pool;
	int code, r;

	if (n > 2)
		return cmd_usage("--rollback takes one snapshot, and the volume if it is not the snapshot's origin");
	code = cmd_parse_volume(object[0], pool_name, snap);
	if (!code && n == 2)
		code = cmd_parse_new_name(object[1], pool_name, volume);
	if (!code && n == 1)
		code = find_origin(pool_name, snap, volume);
	if (code)
		return code;
	if (!cmd_confirm("Roll %s/%s back to %s, and lose what was written since?", pool_name, volume, snap))
		return CMD_REFUSED;
	pool = cmd_open(pool_name, 0, &code);
	if (!pool)
		return code;
	q = cmd_request_on("rollback", volume);
	json_set_str(q, "snapshot", snap);
	r = cmd_call(pool, q, NULL, NULL, NULL);
	if (!r)
		cmd_say(cmd_opt.test ? "volume %s/%s would be rolled back to %s" : "volume %s/%s rolled back to %s",
			vol_pool_name(pool), volume, snap);
	return cmd_close(pool, cmd_exit_code(r));
}

int main(int argc, char **argv)
{
	struct cmd_args a;
	int code;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME... | --rollback POOL/SNAPSHOT [VOLUME]", 1, 256, NULL);
	if (permission && strcmp(permission, "r") && strcmp(permission, "rw"))
		return cmd_usage("--permission %s: wanted r or rw", permission);
	readonly |= permission && !strcmp(permission, "r");
	if (activate && (activated = cmd_parse_yes_no("--activate", activate)) < 0)
		return CMD_USAGE;
	if (rollback && (name_text || readonly || group || activate))
		return cmd_usage("--rollback makes no snapshot: -n, --readonly, --activate and --group do not go with it");
	code = rollback ? roll_back(a.arg, a.n) : take(a.arg, a.n);
	cmd_args_free(&a);
	return code;
}
