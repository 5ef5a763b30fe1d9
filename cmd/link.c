// SPDX-License-Identifier: GPL-2.0-or-later
/* Linking a volume, which vdlink does, and --activate of vdcreate and vdsnap. */
#include "link.h"

#include <string.h>

static void on_step(void *arg, const char *text)
{
	(void)arg;
	if (cmd_opt.verbose)
		fprintf(stderr, "%s\n", text);
}

int cmd_link(struct link_spec *spec)
{
	struct link_info l;
	int r;

	spec->test = cmd_opt.test;
	spec->takeover = cmd_opt.takeover;
	spec->say = on_step;
	r = link_make(spec, &l);
	if (r)
		return cmd_failed(NULL, r);
	if (cmd_opt.test)
		cmd_say("%s/%s would be linked %s %s %s", l.pool, l.volume, l.readonly ? "read-only" : "read-write",
			link_served(&l) ? "to" : "as", link_served(&l) ? l.server : l.path);
	else if (link_served(&l))
		cmd_say("%s/%s is %s of %s, %s%s%s%s%s%s", l.pool, l.volume, l.address, l.server, cmd_size(l.size),
			l.readonly ? ", read-only" : "", l.mount[0] ? ", mounted on " : "", l.mount,
			!l.mount[0] && l.note[0] ? ", not mounted: " : "", l.mount[0] ? "" : l.note);
	else
		cmd_say("%s is %s, %s, %s%s%s%s", l.path, l.device, cmd_size(l.size),
			l.content.type[0] ? l.content.type : "empty", l.readonly ? ", read-only" : "",
			l.mount[0] ? ", mounted on " : "", l.mount);
	if (!cmd_opt.test && !link_served(&l) && !l.mount[0] && l.note[0])
		vol_log(VOL_LOG_WARN, "%s/%s is linked, but not mounted: %s%s", l.pool, l.volume, l.note,
			!spec->duplicate && strcmp(l.content.type, "btrfs") ?
			"\nto have it mounted all the same: vdunlink it, and link it with --duplicate" : "");
	return CMD_OK;
}
