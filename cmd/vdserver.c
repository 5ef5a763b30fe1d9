// SPDX-License-Identifier: GPL-2.0-or-later
/* vdserver: describes the servers that a pool's volumes are linked to. */
#include "common.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../libvol/agent.h"
#include "../libvol/link.h"
#include "../libvol/server.h"

static char *kind, *qmp, *domain, *bus, *host, *address, *port, *agent;

/* ---- POOL/SERVER -------------------------------------------------------------- */

static int parse_server(const char *text, char pool[VOL_NAME_SIZE], const char **name)
{
	const char *slash = strchr(text, '/');

	if (!slash || !slash[1])
		return cmd_usage("\"%s\": which server? wanted: POOL/SERVER", text);
	if (slash - text >= VOL_NAME_SIZE)
		return cmd_usage("the name of the pool is too long: %s", text);
	memcpy(pool, text, (size_t)(slash - text));
	pool[slash - text] = 0;
	*name = slash + 1;
	return vol_check_pool_name(pool) || vol_check_server_name(*name) ? cmd_usage("%s", vol_error(NULL)) : 0;
}

/* ---- add, accept, rm ------------------------------------------------------------- */

static const struct poptOption add_options[] = {
	{ "kind", 'k', POPT_ARG_STRING, &kind, 0, "vm: a QEMU guest on this host (default); nvme-tcp: a machine", "KIND" },
	{ "qmp", 0, POPT_ARG_STRING, &qmp, 0, "vm: its QMP socket", "PATH" },
	{ "domain", 0, POPT_ARG_STRING, &domain, 0, "vm: what libvirt calls it, in place of --qmp", "NAME" },
	{ "bus", 0, POPT_ARG_STRING, &bus, 0, "vm: its virtio-scsi controller, if it has several", "ID" },
	{ "host", 0, POPT_ARG_STRING, &host, 0, "nvme-tcp: its own NQN, if its agent cannot be asked", "NQN" },
	{ "address", 0, POPT_ARG_STRING, &address, 0, "nvme-tcp: an IP address of this host, where it finds drives", "IP" },
	{ "port", 0, POPT_ARG_STRING, &port, 0, "nvme-tcp: and the port there, 4420 if it is not told", "PORT" },
	{ "agent", 0, POPT_ARG_STRING, &agent, 0, "where its agent is, vdagent(8)", "HOST[:PORT]" },
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};
static const struct poptOption change_options[] = {
	CMD_CHANGE_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};

static bool has_key(const char *name)
{
	char path[4096];

	server_key_path(name, path, sizeof(path));
	return !access(path, F_OK);
}

static void say_key(const char *name, bool is_new)
{
	char path[4096];

	server_key_path(name, path, sizeof(path));
	if (is_new && !cmd_opt.test)
		cmd_say("its key is new: %s\ncopy it to that machine, as /etc/vd/agent.key, with mode 0600, and start vdagent there", path);
}

/* Who is not described by --host is asked; that needs the key on both sides. */
static int ask_host(const char *name, char its[224])
{
	char path[4096];
	bool had = has_key(name);
	int r;

	server_key_path(name, path, sizeof(path));
	if (!had && cmd_opt.test)
		return cmd_usage("what is its NQN? --host NQN; its agent cannot be asked, as there is no %s", path);
	r = had ? agent_host(name, agent, its) : server_key_make(name);
	if (r)
		return cmd_failed(NULL, r);
	if (!had)
		return cmd_usage("what is its NQN? its agent can be asked for it as soon as it has its key, which is new: %s\n"
				 "copy it to that machine, as /etc/vd/agent.key, with mode 0600, start vdagent there, and say this again\n"
				 "or tell --host NQN: /etc/nvme/hostnqn there has it", path);
	host = its;
	return 0;
}

static int add(const struct cmd_args *a)
{
	struct json_object *attrs;
	char pool[VOL_NAME_SIZE], *path = NULL;
	const struct { const char *key; char **value; } all[] = {
		{ "qmp", &path }, { "domain", &domain }, { "bus", &bus }, { "host", &host }, { "address", &address }, { "port", &port }, { "agent", &agent },
	};
	char its[224] = "";
	const char *name;
	bool new_key;
	int r, code = parse_server(a->arg[0], pool, &name);

	if (code)
		return code;
	if (!qmp && !domain && (!kind || !strcmp(kind, "vm")))
		return cmd_usage("where is its QMP socket? --qmp PATH; or which domain of libvirt is it? --domain NAME");
	if (kind && !strcmp(kind, "nvme-tcp") && agent && !host)
		code = ask_host(name, its);
	if (code)
		return code;
	if (qmp)
		path = cmd_absolute(qmp);
	attrs = json_object_new_object();
	json_set_str(attrs, "kind", kind ? kind : "vm");
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (*all[i].value)
			json_set_str(attrs, all[i].key, *all[i].value);
	new_key = agent && !has_key(name);
	r = server_add(pool, name, attrs, cmd_opt.test);
	json_object_put(attrs);
	free(path);
	if (r)
		return cmd_failed(NULL, r);
	cmd_say(cmd_opt.test ? "server %s/%s would be described" : "server %s/%s is described; 'vdlink %s/VOLUME %s' gives it a drive", pool, name,
		pool, name);
	say_key(name, new_key);
	return CMD_OK;
}

static int change(const char *text, int (*fn)(const char *pool, const char *name, bool test), const char *done)
{
	char pool[VOL_NAME_SIZE];
	const char *name;
	int r, code = parse_server(text, pool, &name);

	if (code)
		return code;
	r = fn(pool, name, cmd_opt.test);
	if (r)
		return cmd_failed(NULL, r);
	cmd_say("server %s/%s %s %s", pool, name, cmd_opt.test ? "would be" : "is", done);
	return CMD_OK;
}

static int accept_(const struct cmd_args *a)
{
	const char *name = strchr(a->arg[0], '/');
	bool had = name && !vol_check_server_name(name + 1) && has_key(name + 1);
	int code = change(a->arg[0], server_accept, "accepted on this host, as the pool describes it");

	if (!code)
		say_key(name + 1, !had && has_key(name + 1));
	return code;
}

static int remove_(const struct cmd_args *a)
{
	return change(a->arg[0], server_remove, "removed");
}

/* ---- ls, show, export -------------------------------------------------------------- */

static const struct poptOption report_options[] = {
	CMD_REPORT_OPTIONS,
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};
static const struct poptOption show_options[] = {
	CMD_COMMON_OPTIONS,
	POPT_AUTOHELP
	POPT_TABLEEND
};
static const struct cmd_field fields[] = {
	{ "path", "Server", CMD_TEXT, "POOL/SERVER" },
	{ "pool", "Pool", CMD_TEXT, "pool that describes it" },
	{ "server", "Name", CMD_TEXT, "name of the server" },
	{ "kind", "Kind", CMD_TEXT, "what it is: vm or nvme-tcp" },
	{ "accepted", "Accepted", CMD_TEXT, "whether this host may speak to it: yes, no, or differs" },
	{ "drives", "Drives", CMD_NUMBER, "volumes that are linked to it" },
	{ "address", "Address", CMD_TEXT, "how it is reached" },
	{ "agent", "Agent", CMD_TEXT, "where its agent is, if it has one" },
	{ "bus", "Bus", CMD_TEXT, "its virtio-scsi controller, if that is told" },
	{ "created", "Since", CMD_TIME, "when it was described, UTC" },
	{ NULL, NULL, CMD_TEXT, NULL },
};

/* Servers, and then the links that are theirs: one look at each pool. */
struct found { struct server_info *s; size_t n; struct link_info *l; size_t nl; };

static int note_server(void *arg, const struct server_info *s)
{
	struct found *f = arg;
	struct server_info *more = realloc(f->s, (f->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	f->s = more;
	more[f->n] = *s;
	json_object_get(more[f->n++].attrs);
	return 0;
}

static int note_link(void *arg, const struct link_info *l)
{
	struct found *f = arg;
	struct link_info *more;

	if (!link_served(l))
		return 0;
	more = realloc(f->l, (f->nl + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	f->l = more;
	more[f->nl++] = *l;
	return 0;
}

static void forget(struct found *f)
{
	for (size_t i = 0; i < f->n; i++)
		json_object_put(f->s[i].attrs);
	free(f->s);
	free(f->l);
}

/* All, those of a pool, or one. */
static int find(const char *pool, const char *name, struct found *f)
{
	int r = server_list(pool, name, note_server, f);

	if (!r && f->n)
		r = link_list(pool, note_link, f);
	return r ? cmd_failed(NULL, r) : 0;
}

static bool is_of(const struct link_info *l, const struct server_info *s)
{
	return !strcmp(l->pool, s->pool) && !strcmp(l->server, s->name);
}

static const char *accepted_text(const struct server_info *s)
{
	static const char *const text[] = { "no", "yes", "differs" };

	return text[s->accepted];
}

static int ls(const struct cmd_args *a)
{
	struct found f = { 0 };
	struct cmd_report report;
	char pool[VOL_NAME_SIZE];
	int code = cmd_report_init(&report, "server", fields, "path,kind,accepted,drives,address");

	if (!code && a->n)
		code = cmd_parse_pool(a->arg[0], pool);
	if (code)
		return code;
	code = find(a->n ? pool : NULL, NULL, &f);
	for (size_t i = 0; i < f.n; i++) {
		struct json_object *o = json_object_new_object();
		const struct server_info *s = &f.s[i];
		char path[2 * VOL_NAME_SIZE], where[80];
		uint64_t drives = 0;

		for (size_t k = 0; k < f.nl; k++)
			drives += is_of(&f.l[k], s);
		snprintf(path, sizeof(path), "%s/%s", s->pool, s->name);
		json_set_str(o, "path", path);
		json_set_str(o, "pool", s->pool);
		json_set_str(o, "server", s->name);
		json_set_str(o, "kind", json_str(s->attrs, "kind"));
		json_set_str(o, "accepted", accepted_text(s));
		json_set_u64(o, "drives", drives);
		snprintf(where, sizeof(where), "%s%s%s", json_str(s->attrs, "address"), *json_str(s->attrs, "port") ? " " : "",
			 json_str(s->attrs, "port"));
		json_set_str(o, "address", *where ? where : json_str(s->attrs, *json_str(s->attrs, "qmp") ? "qmp" : "domain"));
		json_set_str(o, "agent", json_str(s->attrs, "agent"));
		json_set_str(o, "bus", json_str(s->attrs, "bus"));
		json_set_u64(o, "created", s->created);
		cmd_report_add(&report, o);
	}
	cmd_report_print(&report);
	forget(&f);
	return code;
}

/* What the pool says: [POOL/SERVER], and a line each, KEY = VALUE. */
static void print_description(const struct found *f, const struct server_info *s)
{
	printf("[%s/%s]\n", s->pool, s->name);
	json_object_object_foreach(s->attrs, key, v)
		printf("%s = %s\n", key, json_object_get_string(v));
	for (size_t k = 0; k < f->nl; k++)
		if (is_of(&f->l[k], s))
			printf("drive = %s/%s %s\n", f->l[k].pool, f->l[k].volume, f->l[k].readonly ? "ro" : "rw");
}

static int show(const struct cmd_args *a)
{
	struct found f = { 0 };
	char pool[VOL_NAME_SIZE];
	const char *name;
	int code = parse_server(a->arg[0], pool, &name);

	if (!code)
		code = find(pool, name, &f);
	for (size_t i = 0; i < f.n; i++) {
		print_description(&f, &f.s[i]);
		printf("accepted = %s\n", accepted_text(&f.s[i]));
		for (size_t k = 0; k < f.nl; k++)
			if (is_of(&f.l[k], &f.s[i]))
				printf("link = %s/%s %s %s %s\n", f.l[k].pool, f.l[k].volume, link_state_text(f.l[k].state), f.l[k].device,
				       f.l[k].address);
	}
	forget(&f);
	return code;
}

static int export(const struct cmd_args *a)
{
	struct found f = { 0 };
	char pool[VOL_NAME_SIZE];
	const char *name = NULL;
	int code = strchr(a->arg[0], '/') ? parse_server(a->arg[0], pool, &name) : cmd_parse_pool(a->arg[0], pool);

	if (!code)
		code = find(pool, name, &f);
	for (size_t i = 0; i < f.n; i++) {
		if (i)
			putchar('\n');
		print_description(&f, &f.s[i]);
	}
	forget(&f);
	return code;
}

/* ---- table ---------------------------------------------------------------------------- */

static const struct cmd_subcommand subcommands[] = {
	{ "add", add, add_options, "add POOL/SERVER {--qmp PATH | --domain NAME | --kind nvme-tcp --address IP --agent HOST}", 1, 1, "describe a server in the pool", NULL },
	{ "accept", accept_, change_options, "accept POOL/SERVER", 1, 1, "have this host speak to one that a pool describes", NULL },
	{ "ls", ls, report_options, "ls [POOL]", 0, 1, "list servers", NULL },
	{ "show", show, show_options, "show POOL/SERVER", 1, 1, "tell all about a server", NULL },
	{ "export", export, show_options, "export {POOL | POOL/SERVER}", 1, 1, "write what the pool says as text", NULL },
	{ "rm", remove_, change_options, "rm POOL/SERVER", 1, 1, "remove a server's description", NULL },
};

int main(int argc, char **argv)
{
	vol_set_purpose("vdserver");
	return cmd_subcommands(argc, argv, "vdserver", subcommands, sizeof(subcommands) / sizeof(subcommands[0]));
}
