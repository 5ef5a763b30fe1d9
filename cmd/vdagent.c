// SPDX-License-Identifier: GPL-2.0-or-later
/* vdagent: the agent of a server that takes drives from another host; and what asks it. */
#include "agent.h"
#include "common.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPT_MOUNT_DIR = 1 };

static struct agent agent;
static char *key_file;
static int timeout_s = 60, dhchap;

static const char *own_key(void)
{
	static char path[4096];

	if (key_file)
		return key_file;
	snprintf(path, sizeof(path), "%s/agent.key", vol_config_dir());
	return path;
}

/* ---- serve ---------------------------------------------------------------------- */

static const struct poptOption serve_options[] = {
	{ "listen", 0, POPT_ARG_STRING, &agent.listen, 0, "address to listen on, default every one, port " AGENT_PORT, "ADDRESS[:PORT]" },
	{ "key", 0, POPT_ARG_STRING, &key_file, 0, "the key that hosts need", "FILE" },
	{ "mount-dir", 0, POPT_ARG_STRING, NULL, OPT_MOUNT_DIR, "drives may be mounted below DIR (again for more), "
	  "default /srv, /mnt, /media, /data and /home", "DIR" },
	{ "trust-mount-options", 0, POPT_ARG_NONE, &agent.trust_options, 0, "mount with whatever options a host says", NULL },
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static int take_dir(int val, char *dir)
{
	(void)val;
	if (dir[0] != '/')
		return cmd_usage("--mount-dir %s: wanted a path from the root on", dir);
	if (agent.ndirs == AGENT_DIRS)
		return cmd_usage("--mount-dir is possible %u times", AGENT_DIRS);
	agent.dir[agent.ndirs++] = dir;
	return 0;
}

static int serve(const struct cmd_args *a)
{
	static const char *const usual[] = { "/srv", "/mnt", "/media", "/data", "/home" };
	int r;

	(void)a;
	if (!agent.ndirs) {
		agent.ndirs = sizeof(usual) / sizeof(usual[0]);
		memcpy(agent.dir, usual, sizeof(usual));
	}
	agent.key = own_key();
	r = agent_serve(&agent);
	return r ? cmd_failed(NULL, r) : CMD_OK;
}

/* ---- ask -------------------------------------------------------------------------- */

static const struct poptOption ask_options[] = {
	{ "key", 0, POPT_ARG_STRING, &key_file, 0, "the key of that agent", "FILE" },
	{ "timeout", 0, POPT_ARG_INT, &timeout_s, 0, "seconds until there must be an answer to a request, default 60", "SECONDS" },
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static int ask_one(struct agent_channel *c, const char *request, int64_t deadline)
{
	struct json_object *o = NULL;
	char *line;
	size_t len;
	bool ok;
	int r = agent_channel_send(c, request, deadline);

	if (!r)
		r = agent_channel_line(c, deadline, &line, &len);
	if (!r)
		r = agent_json_parse(line, len, &o);
	if (!r && !json_get_bool(o, "ok", &ok))
		r = vol_fail(NULL, -EPROTO, "an answer came that is none");
	if (!r) { /* as json-c writes it: with no byte in it that a terminal acts on */
		printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
		r = fflush(stdout) ? vol_fail(NULL, -errno, "the answer cannot be written: %s", vol_strerror(-errno)) : 0;
	}
	json_object_put(o);
	return r;
}

/* Which goes to no agent: host and server both make it of their key. */
static bool is_for_secret(const char *request)
{
	struct json_object *o = NULL;
	bool is = !agent_json_parse(request, strlen(request), &o) && !strcmp(json_str(o, "op"), "secret");

	json_object_put(o);
	return is;
}

static int say_secret(void)
{
	char secret[AGENT_DHCHAP], answer[AGENT_DHCHAP + 64];
	int n, r = agent_key_dhchap(own_key(), secret);

	if (!r) {
		n = snprintf(answer, sizeof(answer), "{\"ok\":true,\"secret\":\"%s\"}\n", secret);
		r = write(1, answer, (size_t)n) == n ? 0 : vol_fail(NULL, -errno, "the answer cannot be written: %s", vol_strerror(-errno));
	}
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(answer, sizeof(answer));
	return r;
}

/* Each line of standard input, in one conversation; of none, whether there can be one. */
static int ask_all(const struct agent_address *to)
{
	static char request[AGENT_LINE + 1];
	struct agent_channel *c = NULL;
	bool asked = false;
	int r = 0;

	while (!r && !vol_interrupted() && fgets(request, sizeof(request), stdin)) {
		int64_t deadline = vol_now_ms() + timeout_s * INT64_C(1000);

		asked = true;
		if (!strchr(request, '\n') && !feof(stdin)) {
			r = vol_fail(NULL, -EMSGSIZE, "the request is longer than %u bytes", AGENT_LINE - 1);
			break;
		}
		request[strcspn(request, "\n")] = 0;
		if (is_for_secret(request)) {
			r = say_secret();
			continue;
		}
		if (!c)
			r = agent_channel_connect(to, own_key(), deadline, &c);
		if (!r)
			r = ask_one(c, request, deadline);
	}
	if (!r && !asked)
		r = agent_channel_connect(to, own_key(), vol_now_ms() + timeout_s * INT64_C(1000), &c);
	if (!r && vol_interrupted())
		r = vol_fail(NULL, -EINTR, "interrupted");
	agent_channel_close(c);
	return r;
}

static int ask(const struct cmd_args *a)
{
	struct agent_address to;
	int r;

	if (timeout_s < 1 || timeout_s > 3600)
		return cmd_usage("--timeout %d: wanted 1 to 3600 seconds", timeout_s);
	r = agent_address_parse(a->arg[0], &to);
	if (r)
		return cmd_failed(NULL, r);
	r = ask_all(&to);
	if (r)
		cmd_failed(NULL, r);
	return r ? CMD_FAILED : CMD_OK;
}

/* ---- key --------------------------------------------------------------------------- */

static const struct poptOption key_options[] = {
	{ "dhchap", 0, POPT_ARG_NONE, &dhchap, 0, "write, of a key that is there, the secret of DH-HMAC-CHAP that goes with it", NULL },
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static int write_secret(const char *path)
{
	char secret[AGENT_DHCHAP];
	int r = agent_key_dhchap(path, secret);

	if (!r)
		puts(secret);
	explicit_bzero(secret, sizeof(secret));
	return r ? cmd_failed(NULL, r) : CMD_OK;
}

static int key_(const struct cmd_args *a)
{
	int r;

	if (dhchap)
		return write_secret(a->arg[0]);
	r = agent_key_make(a->arg[0]);
	if (r)
		return cmd_failed(NULL, r);
	cmd_say("%s has a new key; host and server need the same, and nobody else", a->arg[0]);
	return CMD_OK;
}

/* ---- status ------------------------------------------------------------------------- */

static const struct poptOption status_options[] = {
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};
static const struct cmd_field fields[] = {
	{ "name", "Drive", CMD_TEXT, "POOL/VOLUME, on its host" },
	{ "uuid", "UUID", CMD_TEXT, "of the volume" },
	{ "size", "Size", CMD_SIZE, "of the volume" },
	{ "mode", "Mode", CMD_TEXT, "rw or ro" },
	{ "device", "Device", CMD_TEXT, "that it is here" },
	{ "address", "Address", CMD_TEXT, "on its bus, or of its controller" },
	{ "mount", "Mount", CMD_TEXT, "where it is mounted" },
	{ "state", "State", CMD_TEXT, "up, waiting (for its device), stalled (the host does not answer), "
	  "or unmounted (although it should be)" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

/* What 'vdserver add' wants to know. */
static void say_self(void)
{
	bool json = cmd_opt.format && !strcmp(cmd_opt.format, "json");
	struct agent_host h;

	if (cmd_opt.noheadings || json)
		return;
	if (agent_host_self(&h))
		cmd_say("%s", vol_error(NULL));
	else
		cmd_say("This server is %s", h.nqn);
}

/* Of the records and what the kernel has: whether an agent runs or not. */
static int status(const struct cmd_args *a)
{
	struct agent_drive *list;
	struct cmd_report report;
	size_t n;
	int r, code = cmd_report_init(&report, "drive", fields, "name,size,mode,device,mount,state");

	(void)a;
	if (code)
		return code;
	say_self();
	r = agent_record_list(&list, &n);
	if (r)
		return cmd_failed(NULL, r);
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		agent_drive_state(&list[i], o);
		cmd_report_add(&report, o);
	}
	free(list);
	cmd_report_print(&report);
	return CMD_OK;
}

/* ---- forget -------------------------------------------------------------------------- */

static const struct poptOption forget_options[] = {
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

/* By its UUID, or its name where one drive alone has it. */
static int find_drive(const char *what, struct agent_drive *d)
{
	struct agent_drive *list;
	unsigned found = 0;
	uint8_t uuid[16];
	size_t n;
	int r;

	if (!vol_uuid_parse(what, uuid) && agent_device_any(uuid, d))
		found = 1;
	r = agent_record_list(&list, &n);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].uuid_text, what)) {
			*d = list[i];
			found = 1;
			break;
		} else if (!strcmp(list[i].name, what)) {
			*d = list[i];
			found++;
		}
	free(list);
	return found == 1 ? 0 : vol_fail(NULL, -ENOENT, found ? "more than one drive is called %s; say its UUID, 'vdagent status -o name,uuid' tells it" :
					 "this server has no drive %s; 'vdagent status' lists them", what);
}

static int forget(const struct cmd_args *a)
{
	struct agent_device dev;
	struct agent_drive d;
	int r = find_drive(a->arg[0], &d);
	bool live;

	if (r)
		return cmd_failed(NULL, r);
	live = agent_device_find(&d, &dev) || dev.live;
	if (!cmd_confirm(live ? "Give up %s?  Its host is not told." :
			 "Give up %s, whose host does not answer?  What was not stored there yet is lost.", d.name))
		return CMD_FAILED;
	if (!cmd_opt.test)
		r = agent_forget(&agent, &d);
	if (r)
		return cmd_failed(NULL, r);
	cmd_say("%s is given up; on its host 'vdunlink --force' ends the link", d.name);
	return CMD_OK;
}

/* ---- table ---------------------------------------------------------------------------- */

static const struct cmd_subcommand subcommands[] = {
	{ "serve", serve, serve_options, "[serve]", 0, 0, "take drives from hosts that have the key", take_dir },
	{ "status", status, status_options, "status", 0, 0, "list the drives that this server was given", NULL },
	{ "forget", forget, forget_options, "forget DRIVE|UUID", 1, 1, "give up a drive that its host will not take back", NULL },
	{ "key", key_, key_options, "key FILE", 1, 1, "make a key", NULL },
	{ "ask", ask, ask_options, "ask HOST[:PORT]", 1, 1, "send an agent a request, from standard input, and write its answer", NULL },
};

static bool is_general(const char *option)
{
	return !strcmp(option, "--help") || !strcmp(option, "-?") || !strcmp(option, "--version");
}

int main(int argc, char **argv)
{
	char **with = calloc((size_t)argc + 2, sizeof(*with));
	int code;

	vol_set_purpose("vdagent");
	if (with && (argc < 2 || (argv[1][0] == '-' && !is_general(argv[1])))) {
		with[0] = argv[0];
		with[1] = "serve";
		memcpy(with + 2, argv + 1, (size_t)argc * sizeof(*argv)); /* with its NULL */
		argv = with;
		argc++;
	}
	code = cmd_subcommands(argc, argv, "vdagent", subcommands, sizeof(subcommands) / sizeof(subcommands[0]));
	free(with);
	return code;
}
