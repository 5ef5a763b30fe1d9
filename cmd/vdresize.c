// SPDX-License-Identifier: GPL-2.0-or-later
/* vdresize: makes a volume larger or smaller, or changes what is kept for it. */
#include "common.h"

static char *size_text, *reserve;
static int force;

static const struct poptOption options[] = {
	{ "size", 'L', POPT_ARG_STRING, &size_text, 0, "new size, or by how much; a bare number is MiB", "[+|-]SIZE[b|s|k|m|g|t|p|e]" },
	{ "reserve", 0, POPT_ARG_STRING, &reserve, 0, "keep so much of the pool for it; all: as much as its size, 0: nothing", "SIZE|all" },
	{ "force", 'f', POPT_ARG_NONE, &force, 0, "make it smaller even while it is open for writing", NULL },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static struct json_object *request(const char *volume, uint64_t size, char sign, bool allow_shrink)
{
	struct json_object *q = cmd_request_on("resize", volume);

	json_set_u64(q, sign == '+' ? "grow" : "size", size);
	json_set_bool(q, "allow_shrink", allow_shrink);
	json_set_bool(q, "force", force);
	return q;
}

static int on_volume(void *arg, struct json_object *part)
{
	struct json_object *list;

	if (json_get(part, "volumes", json_type_array, &list) && json_object_array_length(list) == 1)
		*(uint64_t *)arg = json_u64(json_object_array_get_idx(list, 0), "size");
	return 0;
}

/* Looked up with the pool open for reading only, and closed again: a question to
 * the user may stand for long. */
static int size_now(const char *pool_name, const char *volume, uint64_t *size)
{
	struct json_object *q, *names;
	struct vol_pool *pool;
	int code = 0, r;

	pool = cmd_open(pool_name, VOL_READONLY, &code);
	if (!pool)
		return code;
	names = json_object_new_array();
	json_object_array_add(names, json_object_new_string(volume));
	q = cmd_request("list");
	json_set(q, "names", names);
	r = cmd_call(pool, q, on_volume, size, NULL);
	return cmd_close(pool, cmd_exit_code(r));
}

/* *shrink: it becomes smaller, and that is wanted. */
static int ask(const char *pool, const char *volume, uint64_t *size, char *sign, bool *shrink)
{
	uint64_t now = 0;
	int code;

	if (*sign == '+')
		return 0;
	code = size_now(pool, volume, &now);
	if (code)
		return code;
	if (*sign == '-') {
		if (*size >= now)
			return cmd_usage("volume %s/%s has %s; %s less leaves nothing\nvdrm removes it", pool, volume,
					 cmd_size(now), cmd_size(*size));
		*size = now - *size;
		*sign = 0; /* what is confirmed, not what it may become until then */
	}
	*shrink = *size < now;
	if (*shrink && !cmd_confirm("Make %s/%s smaller, from %s to %s, and lose what is beyond?", pool, volume,
				    cmd_size(now), cmd_size(*size)))
		return CMD_REFUSED;
	return 0;
}

static int set_reserve(const char *pool_name, const char *volume)
{
	struct json_object *q, *done;
	struct vol_pool *pool;
	int code = cmd_check_reserve(reserve), r;

	pool = code ? NULL : cmd_open(pool_name, 0, &code);
	if (!pool)
		return code;
	q = cmd_request_on("reserve", volume);
	cmd_set_reserve(q, reserve);
	r = cmd_call(pool, q, NULL, NULL, &done);
	if (!r) {
		cmd_say(cmd_opt.test ? "%s would be kept for volume %s/%s, instead of %s" : "%s are kept for volume %s/%s, instead of %s",
			cmd_size(json_u64(done, "reserve")), vol_pool_name(pool), volume, cmd_size(json_u64(done, "before")));
		json_object_put(done);
	}
	return cmd_close(pool, cmd_exit_code(r));
}

int main(int argc, char **argv)
{
	char pool_name[VOL_NAME_SIZE], volume[VOL_NAME_SIZE], sign;
	struct json_object *done;
	struct vol_pool *pool;
	uint64_t size;
	bool shrink = false;
	struct cmd_args a;
	int code, r;

	cmd_parse(&a, argc, argv, options, "{-L [+|-]SIZE | --reserve SIZE} POOL/VOLUME", 1, 1, NULL);
	code = cmd_parse_volume(a.arg[0], pool_name, volume);
	if (code)
		return code;
	if (!size_text == !reserve)
		return cmd_usage(reserve ? "volume %s/%s: --size and --reserve are two changes; make one after the other" :
					   "volume %s/%s: -L SIZE says how large it is to be, --reserve SIZE how much is kept for it",
				 pool_name, volume);
	if (reserve) {
		code = set_reserve(pool_name, volume);
		cmd_args_free(&a);
		return code;
	}
	r = vol_parse_size(size_text, &size, &sign);
	if (r)
		return cmd_failed(NULL, r);
	if (size % 4096) {
		size += 4096 - size % 4096;
		cmd_say("size rounded up to %s, whole blocks of 4 KiB", cmd_size(size));
	}
	code = ask(pool_name, volume, &size, &sign, &shrink);
	if (code)
		return code;
	pool = cmd_open(pool_name, 0, &code);
	if (!pool)
		return code;
	r = cmd_call(pool, request(volume, size, sign, shrink), NULL, NULL, &done);
	if (!r) {
		cmd_say(cmd_opt.test ? "volume %s/%s would be resized from %s to %s" : "volume %s/%s resized from %s to %s",
			vol_pool_name(pool), volume, cmd_size(json_u64(done, "before")), cmd_size(json_u64(done, "size")));
		json_object_put(done);
	}
	code = cmd_close(pool, cmd_exit_code(r));
	cmd_args_free(&a);
	return code;
}
