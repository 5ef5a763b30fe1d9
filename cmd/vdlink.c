// SPDX-License-Identifier: GPL-2.0-or-later
/* vdlink: makes a volume a block device of this host, or a disk of a VM; shows links; makes them again. */
#include "link.h"

#include <stdlib.h>
#include <string.h>

static int readonly, restore, complete, refresh, no_mount, automount, duplicate;
static char *mount_dir, *mount_options, *mkfs;

static const struct poptOption options[] = {
	{ "readonly", 'r', POPT_ARG_NONE, &readonly, 0, "link it for reading only", NULL },
	{ "mount", 'm', POPT_ARG_STRING, &mount_dir, 0, "mount the file system on it; auto: on a directory named after it", "DIR" },
	{ "mount-options", 0, POPT_ARG_STRING, &mount_options, 0, "options for mount(8)", "OPTIONS" },
	{ "automount", 0, POPT_ARG_NONE, &automount, 0, "mount it when somebody looks into the directory", NULL },
	{ "no-mount", 0, POPT_ARG_NONE, &no_mount, 0, "mount it nowhere, as on this host without --mount", NULL },
	{ "mkfs", 0, POPT_ARG_STRING, &mkfs, 0, "make that file system if nothing at all is on it", "TYPE" },
	{ "duplicate", 0, POPT_ARG_NONE, &duplicate, 0, "mount it beside one with the same UUID", NULL },
	{ "restore", 0, POPT_ARG_NONE, &restore, 0, "make this host's links again that are down", NULL },
	{ "complete", 0, POPT_ARG_NONE, &complete, 0, "with --restore: pass over pools with a member missing", NULL },
	{ "refresh", 0, POPT_ARG_NONE, &refresh, 0, "take in a linked volume's new size", NULL },
	CMD_UDEV_OPTION,
	CMD_CHANGE_OPTIONS,
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static const struct cmd_field fields[] = {
	{ "path", "Volume", CMD_TEXT, "POOL/VOLUME" },
	{ "pool", "Pool", CMD_TEXT, "pool it is in" },
	{ "volume", "Name", CMD_TEXT, "name of the volume" },
	{ "mode", "Mode", CMD_TEXT, "rw or ro" },
	{ "state", "State", CMD_TEXT, "up, down, unfinished, elsewhere or client" },
	{ "device", "Device", CMD_TEXT, "what it is open as" },
	{ "node", "Node", CMD_TEXT, "name of the device in /dev/vdisk" },
	{ "server", "Server", CMD_TEXT, "whose drive it is: local is the host" },
	{ "address", "Address", CMD_TEXT, "where it is on a server: bus:channel:target:lun, or its device when it was linked" },
	{ "mount", "Mounted on", CMD_TEXT, "where vdlink mounted it, or a server's agent did then" },
	{ "size", "Size", CMD_SIZE, "size of the volume" },
	{ "host", "Host", CMD_TEXT, "host that has it" },
	{ "since", "Since", CMD_TIME, "since when, UTC" },
	{ "link", "Link", CMD_NUMBER, "number of the link in the pool" },
	{ "pid", "PID", CMD_NUMBER, "its front, or the client's server" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

static int add_row(void *arg, const struct link_info *l)
{
	struct json_object *o = json_object_new_object();
	char path[2 * VOL_NAME_SIZE];

	snprintf(path, sizeof(path), "%s/%s", l->pool, l->volume);
	json_set_str(o, "path", path);
	json_set_str(o, "pool", l->pool);
	json_set_str(o, "volume", l->volume);
	json_set_str(o, "mode", l->readonly ? "ro" : "rw");
	json_set_str(o, "state", link_state_text(l->state));
	json_set_str(o, "device", l->device);
	json_set_str(o, "server", l->server);
	json_set_str(o, "address", l->address);
	json_set_str(o, "node", l->state == LINK_UP && !link_served(l) ? l->path : "");
	json_set_str(o, "mount", l->mount);
	json_set_u64(o, "size", l->size);
	json_set_str(o, "host", l->hostname);
	json_set_u64(o, "since", l->since);
	json_set_u64(o, "link", l->link);
	json_set_u64(o, "pid", (uint64_t)l->front);
	cmd_report_add(arg, o);
	return 0;
}

static int do_ls(const char *pool)
{
	struct cmd_report report;
	int r, code;

	code = cmd_report_init(&report, "link", fields, "path,mode,state,server,device,mount,size,since");
	if (code)
		return code;
	r = link_list(pool, add_row, &report);
	if (r)
		code = cmd_failed(NULL, r);
	cmd_report_print(&report);
	return code;
}

static int told(void *arg, const struct link_info *l, int r, const char *text)
{
	(void)arg;
	if (!r && !cmd_opt.test && !l->mount[0] && l->note[0])
		vol_log(VOL_LOG_WARN, "%s/%s is not mounted: %s", l->pool, l->volume, l->note);
	if (r)
		fprintf(stderr, "vdlink: %s/%s is still down: %s\n", l->pool, l->volume, text);
	else if (cmd_opt.test)
		cmd_say("%s/%s is down and would be linked again", l->pool, l->volume);
	else if (link_served(l))
		cmd_say("%s/%s is %s of %s again%s%s", l->pool, l->volume, l->address[0] ? l->address : "a drive", l->server,
			l->mount[0] ? ", mounted on " : "", l->mount);
	else
		cmd_say("%s is %s again%s%s", l->path, l->device, l->mount[0] ? ", mounted on " : "", l->mount);
	return 0;
}

static int do_restore(const char *pool)
{
	int r = link_restore(pool, cmd_opt.test, complete, told, NULL);

	return r ? cmd_failed(NULL, r) : CMD_OK;
}

static int do_refresh(const char *pool, const char *volume)
{
	int r = link_refresh(pool, volume, cmd_opt.test);

	if (r)
		return cmd_failed(NULL, r);
	if (cmd_opt.test)
		cmd_say("%s/%s is linked, and its device would take in its size", pool, volume);
	return CMD_OK;
}

static int do_link(const char *pool, const char *volume, const char *server)
{
	struct link_spec spec = {
		.pool = pool, .volume = volume, .server = server, .readonly = readonly, .mount = mount_dir, .options = mount_options,
		.no_mount = no_mount, .automount = automount, .mkfs = mkfs, .duplicate = duplicate,
	};

	return cmd_link(&spec);
}

int main(int argc, char **argv)
{
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	const char *server;
	struct cmd_args a;
	int code;

	cmd_parse(&a, argc, argv, options, "POOL/VOLUME [SERVER] | ls [POOL] | --restore [POOL] | --refresh POOL/VOLUME", 0, 2, NULL);
	vol_set_purpose("vdlink");
	if (cmd_opt.noudevsync)
		link_no_udev_sync();
	server = a.n > 1 && strcmp(a.arg[1], "local") ? a.arg[1] : NULL;
	if (!server && !restore && !mount_dir && (mount_options || automount || duplicate))
		code = cmd_usage("--mount-options, --automount and --duplicate are of no use without --mount");
	else if (no_mount && (mount_dir || mount_options || automount || duplicate))
		code = cmd_usage("--no-mount says that it is mounted nowhere; the other options say how");
	else if (mkfs && readonly)
		code = cmd_usage("--mkfs is of no use with --readonly: no file system can be made then");
	else if (server && mount_dir && !strcmp(mount_dir, LINK_AUTO))
		code = cmd_usage("--mount auto is for this host; a server's agent has its default without --mount");
	else if (restore && (readonly || refresh || mount_dir || mount_options || no_mount || automount || mkfs || duplicate))
		code = cmd_usage("--restore makes links as they were; it takes no other options of a link");
	else if (complete && !restore)
		code = cmd_usage("--complete is of no use without --restore");
	else if (a.n && !strcmp(a.arg[0], "ls"))
		code = a.n == 1 ? do_ls(NULL) : (code = cmd_parse_pool(a.arg[1], pool)) ? code : do_ls(pool);
	else if (a.n > 1 && (restore || refresh))
		code = cmd_usage("too many arguments: --restore is of one pool or all, --refresh of one volume");
	else if (restore)
		code = !a.n ? do_restore(NULL) : (code = cmd_parse_pool_of(a.arg[0], pool)) ? code : do_restore(pool);
	else if (!a.n)
		code = cmd_usage("which volume? wanted: vdlink POOL/VOLUME");
	else if ((code = cmd_parse_volume(a.arg[0], pool, volume)))
		;
	else if (refresh)
		code = do_refresh(pool, volume);
	else
		code = do_link(pool, volume, server);
	cmd_args_free(&a);
	return code;
}
