// SPDX-License-Identifier: GPL-2.0-or-later
/* vdrename: gives a volume another name. */
#include "common.h"

static const struct poptOption options[] = {
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

int main(int argc, char **argv)
{
	char pool_name[VOL_NAME_SIZE], volume[VOL_NAME_SIZE], to[VOL_NAME_SIZE];
	struct json_object *q;
	struct vol_pool *pool;
	struct cmd_args a;
	int code, r;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME {NEW | POOL/NEW}", 2, 2, NULL);
	code = cmd_parse_volume(a.arg[0], pool_name, volume);
	if (!code)
		code = cmd_parse_new_name(a.arg[1], pool_name, to);
	if (code)
		return code;
	pool = cmd_open(pool_name, 0, &code);
	if (!pool)
		return code;
	q = cmd_request_on("rename", volume);
	json_set_str(q, "to", to);
	r = cmd_call(pool, q, NULL, NULL, NULL);
	if (!r)
		cmd_say(cmd_opt.test ? "volume %s/%s would be renamed to %s" : "volume %s/%s renamed to %s",
			vol_pool_name(pool), volume, to);
	code = cmd_close(pool, cmd_exit_code(r));
	cmd_args_free(&a);
	return code;
}
