// SPDX-License-Identifier: GPL-2.0-or-later
/* vdrm: removes volumes and snapshots. */
#include "common.h"

static const struct poptOption options[] = {
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_TABLEEND
};

static int remove_one(const char *object)
{
	char pool_name[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	struct vol_pool *pool;
	int code = cmd_parse_volume(object, pool_name, volume), r;

	if (code)
		return code;
	pool = cmd_open(pool_name, VOL_REPAIR, &code);
	if (!pool)
		return code;
	r = cmd_call(pool, cmd_request_on("remove", volume), NULL, NULL, NULL);
	if (!r)
		cmd_say(cmd_opt.test ? "volume %s/%s would be removed" : "volume %s/%s removed", vol_pool_name(pool), volume);
	return cmd_close(pool, cmd_exit_code(r));
}

int main(int argc, char **argv)
{
	struct cmd_args a;
	int code = 0;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME...", 1, 4096, NULL);
	for (unsigned i = 0; i < a.n; i++) {
		/* Asked while the pool is not held: the answer may take its time. */
		int r = cmd_confirm("Remove %s and all that is in it?", a.arg[i]) ? remove_one(a.arg[i]) : CMD_REFUSED;
		code = code ? code : r;
	}
	cmd_args_free(&a);
	return code;
}
