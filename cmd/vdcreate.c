// SPDX-License-Identifier: GPL-2.0-or-later
/* vdcreate: makes a volume. */
#include "link.h"

#include <stdlib.h>

static char *size_text, *name_text, *base, *activate, *permission, *reserve;
static int readonly;
static struct json_object *attrs;

static int on_option(int val, char *arg)
{
	int r = val == 'A' ? cmd_parse_attr(arg, attrs) : 0;

	free(arg);
	return r;
}

static const struct poptOption options[] = {
	{ "size", 'L', POPT_ARG_STRING, &size_text, 0, "size; a bare number is MiB", "SIZE[b|s|k|m|g|t|p|e]" },
	{ "name", 'n', POPT_ARG_STRING, &name_text, 0, "name of the volume", "NAME" },
	{ "base", 0, POPT_ARG_STRING, &base, 0, "what is not written yet is read from this raw image", "IMAGE" },
	{ "reserve", 0, POPT_ARG_STRING, &reserve, 0, "keep so much of the pool for it, or as much as its size", "SIZE|all" },
	{ "readonly", 0, POPT_ARG_NONE, &readonly, 0, "the volume cannot be written", NULL },
	{ "permission", 'p', POPT_ARG_STRING, &permission, 0, "rw, or r for --readonly", "r|rw" },
	{ "attr", 0, POPT_ARG_STRING, NULL, 'A', "an attribute of the volume (again for more)", "KEY=VALUE" },
	{ "activate", 'a', POPT_ARG_STRING, &activate, 0, "y links it to this host at once; the default is n", "y|n" },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static struct json_object *request(const char *volume, uint64_t size)
{
	struct json_object *q = cmd_request_on("create", volume);
	char *image = base ? realpath(base, NULL) : NULL;

	if (size)
		json_set_u64(q, "size", size);
	if (base)
		json_set_str(q, "base", image ? image : base);
	free(image);
	json_set_bool(q, "readonly", readonly);
	json_set_bool(q, "locked", true);
	if (reserve)
		cmd_set_reserve(q, reserve);
	json_set(q, "attrs", json_object_get(attrs));
	return q;
}

/* Born locked, so that nobody takes it half made; if this process dies before it
 * unlocks, the lock is stale and whoever comes next breaks it. */
static int create(const char *pool_name, const char *volume, uint64_t size, bool keep_lock)
{
	struct json_object *made;
	struct vol_pool *pool;
	int code = CMD_OK, r;

	pool = cmd_open(pool_name, 0, &code);
	if (!pool)
		return code;
	r = cmd_call(pool, request(volume, size), NULL, NULL, &made);
	if (!r) {
		size = json_u64(made, "size");
		json_object_put(made);
		if (!cmd_opt.test && !keep_lock)
			r = cmd_call(pool, cmd_request_on("unlock", volume), NULL, NULL, NULL);
	}
	if (!r)
		cmd_say(cmd_opt.test ? "volume %s/%s of %s would be created" : "volume %s/%s of %s created",
			vol_pool_name(pool), volume, cmd_size(size));
	return cmd_close(pool, cmd_exit_code(r));
}

/* The link takes over the lock that the volume was born with, and lets it go. */
static int link_it(const char *pool_name, const char *volume)
{
	struct link_spec spec = { .pool = pool_name, .volume = volume, .readonly = readonly };
	struct json_object *q;
	struct vol_pool *pool;
	int code, ignored;

	vol_set_purpose("vdlink"); /* as which links are known */
	code = cmd_link(&spec);
	if (!code)
		return code;
	pool = cmd_open(pool_name, 0, &ignored);
	if (pool) { /* without a word: a link that was undone has done it */
		q = cmd_request_on("unlock", volume);
		(void)!vol_call(pool, q, NULL, NULL, NULL);
		json_object_put(q);
		(void)cmd_close(pool, CMD_OK);
	}
	return code;
}

int main(int argc, char **argv)
{
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	struct cmd_args a;
	uint64_t size = 0;
	int r, activated = 0;

	attrs = json_object_new_object();
	cmd_parse(&a, argc, argv, options, "-L SIZE {-n NAME POOL | POOL/NAME}", 1, 1, on_option);
	r = vol_parse_object(a.arg[0], pool, volume);
	if (r)
		return cmd_failed(NULL, r);
	if (!name_text && !volume[0])
		return cmd_usage("the volume needs a name: -n NAME %s, or %s/NAME", pool, pool);
	if (name_text && volume[0])
		return cmd_usage("two names were given, %s and %s; say one", name_text, volume);
	if (name_text && (r = cmd_parse_new_name(name_text, pool, volume)))
		return r;
	if (!size_text && !base)
		return cmd_usage("volume %s/%s needs a size: -L SIZE (or --base IMAGE, whose size it takes)", pool, volume);
	if (size_text) {
		r = vol_parse_size(size_text, &size, NULL);
		if (r)
			return cmd_failed(NULL, r);
		if (!size)
			return cmd_usage("volume %s/%s: a size of 0 is not possible", pool, volume);
		if (size % 4096) {
			size += 4096 - size % 4096;
			cmd_say("size rounded up to %s, whole blocks of 4 KiB", cmd_size(size));
		}
	}
	if (reserve && (r = cmd_check_reserve(reserve)))
		return r;
	if (permission && strcmp(permission, "r") && strcmp(permission, "rw"))
		return cmd_usage("--permission %s: wanted r or rw", permission);
	readonly |= permission && !strcmp(permission, "r");
	if (activate && (activated = cmd_parse_yes_no("--activate", activate)) < 0)
		return CMD_USAGE;
	activated &= !cmd_opt.test;
	r = create(pool, volume, size, activated);
	if (!r && activated)
		r = link_it(pool, volume);
	json_object_put(attrs);
	cmd_args_free(&a);
	return r;
}
