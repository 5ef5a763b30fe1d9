// SPDX-License-Identifier: GPL-2.0-or-later
/* vdunlink: takes the block device of a volume away. */
#include "common.h"

#include "../libvol/link.h"

static int force;

static const struct poptOption options[] = {
	{ "force", 0, POPT_ARG_NONE, &force, 0, "also when the server's agent does not answer: it is gone for good", NULL },
	CMD_UDEV_OPTION,
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static void on_step(void *arg, const char *text)
{
	(void)arg;
	if (cmd_opt.verbose)
		fprintf(stderr, "%s\n", text);
}

static int unlink_one(const char *text)
{
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	struct link_spec spec = {
		.pool = pool, .volume = volume, .test = cmd_opt.test, .takeover = cmd_opt.takeover, .force = force, .say = on_step,
	};
	struct link_info l;
	int code, r;

	code = cmd_parse_volume(text, pool, volume);
	if (code)
		return code;
	r = link_undo(&spec, &l);
	if (r)
		return cmd_failed(NULL, r);
	cmd_say(cmd_opt.test ? "%s/%s is linked as %s and would be unlinked" : "%s/%s is not linked any more; it was %s", l.pool,
		l.volume, l.device[0] ? l.device : "no device");
	return CMD_OK;
}

int main(int argc, char **argv)
{
	struct cmd_args a;
	int code = CMD_OK, one;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME...", 1, 4096, NULL);
	vol_set_purpose("vdunlink");
	if (cmd_opt.noudevsync)
		link_no_udev_sync();
	/* One that cannot be unlinked does not keep the others linked. */
	for (unsigned i = 0; i < a.n; i++) {
		one = unlink_one(a.arg[i]);
		if (!code)
			code = one;
	}
	cmd_args_free(&a);
	return code;
}
