// SPDX-License-Identifier: LGPL-2.1-or-later
/* Questions to a server's agent. agent.h tells. */
#include "agent.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "child.h"
#include "json.h"

#define PROGRAM "vdagent"
#define ANSWER_MAX (1u << 20) /* as `vdagent ask` has it */
#define DEPTH_MAX 16
/* How many times as long as a plain answer takes what is done there may take. */
#define UNMOUNT_TIMES 12
#define SCAN_TIMES 6
#define MKFS_TIMES 60
#define KEY_SECONDS 60 /* nobody else is asked */

/* ---- the program that asks -------------------------------------------------- */

/* $VD_AGENT; beside this executable; in PATH. */
static const char *find_program(char *path, size_t size)
{
	const char *env = getenv("VD_AGENT");

	if (env && *env)
		return env;
	if (vol_beside_self(PROGRAM, path, size) && !access(path, X_OK))
		return path;
	return PROGRAM;
}

/* ---- questions ---------------------------------------------------------------- */

static int nonsense(const struct server *s, const char *what)
{
	return vol_fail(NULL, -EPROTO, "what answers for the agent of server %s is no vdagent: %s", s->name, what);
}

/* These say something to who called; another of them is a failure, and its text tells. */
static int passed_on(uint64_t e)
{
	return e == EBUSY || e == EROFS || e == ENODATA || e == ENOSPC ? -(int)e : -EREMOTEIO;
}

static int parse_answer(const struct server *s, const char *line, struct json_object **out)
{
	struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
	struct json_object *o;
	char why[768];
	bool ok;
	int r = 0;

	if (!t)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	o = json_tokener_parse_ex(t, line, (int)strlen(line) + 1);
	json_tokener_free(t);
	if (!o || !json_object_is_type(o, json_type_object) || !json_get_bool(o, "ok", &ok))
		r = nonsense(s, "a line is no answer");
	else if (!ok) {
		vol_printable(why, sizeof(why), json_str(o, "error"));
		r = vol_fail(NULL, passed_on(json_u64(o, "errno")), "server %s says: %s", s->name, *why ? why : "no");
	}
	if (r)
		json_object_put(o);
	else
		*out = o;
	return r;
}

/* One conversation is kept, with the agent that was asked last: a new one costs it a process, a connection, and the
 * proof of its key. */
static struct { char agent[264], key[4096], program[4096]; struct child_talk talk; bool open, answered; } with; /* answered: it is there */

static void hang_up(void)
{
	if (with.open)
		child_hang_up(&with.talk);
	with.open = false;
}

static bool talks_to(const struct server *s)
{
	char key[4096];

	server_key_path(s->name, key, sizeof(key));
	return with.open && !strcmp(with.agent, s->agent) && !strcmp(with.key, key);
}

static int call(const struct server *s)
{
	/* Who asks here looks at the time. */
	char path[4096], *argv[] = { with.program, "ask", "--key", with.key, "--timeout", "3600", (char *)s->agent, NULL };
	int r;

	hang_up();
	snprintf(with.agent, sizeof(with.agent), "%s", s->agent);
	server_key_path(s->name, with.key, sizeof(with.key));
	snprintf(with.program, sizeof(with.program), "%s", find_program(path, sizeof(path)));
	r = child_talk(argv, &with.talk);
	with.open = !r;
	with.answered = false;
	return r;
}

/* The request is consumed. */
static int ask(const struct server *s, struct json_object *q, unsigned seconds, bool finish, struct json_object **answer)
{
	char why[600], *line = NULL, *text = malloc(ANSWER_MAX + 1);
	bool old;
	int r = 0;

	if (!text || asprintf(&line, "%s\n", json_object_to_json_string_ext(q, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0) {
		line = NULL;
		r = vol_fail(NULL, -ENOMEM, "out of memory");
	}
	json_object_put(q);
	/* The agent may have closed a conversation in which nothing was said for a while: what was asked may be asked again. */
	for (old = talks_to(s); !r; old = false) {
		r = old ? 0 : call(s);
		if (!r)
			r = child_ask(&with.talk, with.program, line, seconds, finish, text, ANSWER_MAX + 1);
		if (!r)
			break;
		hang_up();
		if (old && r == -EIO)
			r = 0;
	}
	if (r == -ETIMEDOUT)
		r = vol_fail(NULL, -ENOTCONN, "the agent of server %s, %s, does not answer within %u seconds", s->name, s->agent, seconds);
	else if (r == -EIO) {
		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		r = vol_fail(NULL, -ENOTCONN, "the agent of server %s, %s, does not answer: %s", s->name, s->agent, why);
	} else if (r == -EMSGSIZE || r == -EPROTO) {
		r = nonsense(s, "an answer is one line");
	}
	if (!r) {
		r = parse_answer(s, text, answer);
		explicit_bzero(text, strlen(text)); /* it may be a secret */
	}
	free(text);
	free(line);
	return r;
}

static struct json_object *question(const char *op, const struct link_info *l)
{
	struct json_object *q = json_object_new_object();
	char uuid[VOL_UUID_TEXT];

	json_set_str(q, "op", op);
	if (l) {
		vol_uuid_text(l->volume_uuid, uuid);
		json_set_str(q, "uuid", uuid);
	}
	return q;
}

static int hello(const struct server *s, bool finish, struct json_object **answer)
{
	int r = ask(s, question("hello", NULL), vol_server_timeout(), finish, answer);

	with.answered |= !r;
	return r;
}

int agent_ready(struct server *s)
{
	struct json_object *a;
	int r = hello(s, false, &a);

	if (r)
		return r;
	if (s->host[0] && strcmp(json_str(a, "hostnqn"), s->host)) {
		char its[224];

		vol_printable(its, sizeof(its), json_str(a, "hostnqn"));
		r = vol_fail(NULL, -EPERM, "server %s is %s, and not %s, as its description says\n'vdserver rm', and 'vdserver add --host' with the right one",
			     s->name, *its ? its : "no NVMe host", s->host);
	}
	s->dhchap = json_flag(a, "dhchap");
	json_object_put(a);
	return r;
}

/* What may take so many times as long as a plain answer: whether it answers at all is known sooner.  The request is consumed. */
static int ask_long(const struct server *s, struct json_object *q, unsigned times, bool finish, struct json_object **answer)
{
	struct json_object *a = NULL;
	int r = talks_to(s) && with.answered ? 0 : hello(s, finish, &a);

	json_object_put(a);
	json_set_u64(q, "wait", vol_server_timeout() * times); /* for the drive, where it is at work for another */
	if (!r)
		return ask(s, q, vol_server_timeout() * times, finish, answer);
	json_object_put(q);
	return r;
}

int agent_host(const char *name, const char *agent, char host[224])
{
	struct server s = { 0 };
	struct json_object *a;
	int r;

	snprintf(s.name, sizeof(s.name), "%s", name);
	snprintf(s.agent, sizeof(s.agent), "%s", agent);
	r = hello(&s, false, &a);
	if (r)
		return r;
	if (strlen(json_str(a, "hostnqn")) >= 224)
		r = nonsense(&s, "\"hostnqn\" is too long");
	else
		snprintf(host, 224, "%s", json_str(a, "hostnqn"));
	json_object_put(a);
	return r;
}

static bool is_path(const char *text, size_t size)
{
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			return false;
	return *text == '/' && strlen(text) < size;
}

static struct json_object *mount_request(const struct link_spec *spec)
{
	struct json_object *o = json_object_new_object();

	json_set_str(o, "dir", spec->mount ? spec->mount : "");
	json_set_str(o, "options", spec->options ? spec->options : "");
	json_set_bool(o, "automount", spec->automount);
	json_set_str(o, "mkfs", spec->mkfs ? spec->mkfs : "");
	json_set_bool(o, "duplicate", spec->duplicate);
	return o;
}

/* Where nothing was asked for but what is usual, nothing mounted is a remark. */
static int take_mount(const struct server *s, struct link_info *l, const struct link_spec *spec, struct json_object *a)
{
	const char *dir = json_str(a, "mount");

	vol_printable(l->note, sizeof(l->note), json_str(a, "note"));
	vol_printable(l->content.type, sizeof(l->content.type), json_str(a, "type"));
	if (*dir && !is_path(dir, PATH_MAX))
		return nonsense(s, "\"mount\" is no path");
	if (!*dir && ((spec->mount && *spec->mount) || spec->mkfs))
		return vol_fail(NULL, -ENODATA, "server %s has not mounted it: %s", s->name, *l->note ? l->note : "it does not say why");
	/* Where it was mounted before may be longer than what can be recorded, and is only shown. */
	if (strlen(dir) >= sizeof(l->mount)) {
		size_t n = sizeof(l->mount) - sizeof("...");

		while ((dir[n] & 0xc0) == 0x80)
			n--;
		snprintf(l->mount, sizeof(l->mount), "%.*s...", (int)n, dir);
	} else {
		snprintf(l->mount, sizeof(l->mount), "%s", dir);
	}
	return 0;
}

int agent_link(const struct server *s, struct link_info *l, const struct link_spec *spec, struct json_object *via)
{
	struct json_object *q = question("link", l), *a;
	char name[2 * VOL_NAME_SIZE];
	const char *device;
	int r;

	snprintf(name, sizeof(name), "%s/%s", l->pool, l->volume);
	json_set_str(q, "name", name);
	json_set_u64(q, "size", l->size);
	json_set_str(q, "mode", l->readonly ? "ro" : "rw");
	json_set(q, "via", via);
	if (spec)
		json_set(q, "mount", mount_request(spec));
	r = ask_long(s, q, spec && spec->mkfs ? MKFS_TIMES : SCAN_TIMES, false, &a);
	if (r)
		return r;
	device = json_str(a, "device");
	/* It becomes a word of the open pointer. */
	if (!is_path(device, sizeof(l->address)) || strchr(device, ' '))
		r = nonsense(s, "\"device\" is no path");
	else if (!l->vm) /* whose drives have the address that they were plugged at */
		snprintf(l->address, sizeof(l->address), "%s", device);
	if (!r && spec)
		r = take_mount(s, l, spec, a);
	json_object_put(a);
	return r;
}

int agent_unlink(const struct server *s, const struct link_info *l, bool test, bool finish)
{
	struct json_object *q = question("unlink", l), *a = NULL;
	int r;

	json_set_bool(q, "test", test);
	r = ask_long(s, q, UNMOUNT_TIMES, finish, &a);
	json_object_put(a);
	return r;
}

int agent_gone(const struct server *s, const struct link_info *l, struct json_object *via, bool finish)
{
	struct json_object *q = question("gone", l), *a = NULL;
	int r;

	json_set_str(q, "nqn", json_str(via, "nqn"));
	json_set(q, "via", via);
	r = ask_long(s, q, SCAN_TIMES, finish, &a);
	json_object_put(a);
	return r;
}

/* ---- keys ----------------------------------------------------------------------- */

void server_key_path(const char *server, char *buf, size_t size)
{
	snprintf(buf, size, "%s/keys/%s.key", vol_config_dir(), server);
}

int server_key_make(const char *server)
{
	char path[4096], text[256], program[4096], why[600], *argv[] = { NULL, "key", path, NULL };
	struct child out = { .input = "", .seconds = KEY_SECONDS, .finish = true, .keep = -1, .text = text, .size = sizeof(text) };
	int r;

	server_key_path(server, path, sizeof(path));
	if (!access(path, F_OK))
		return 0;
	*strrchr(path, '/') = 0;
	if (mkdir(path, 0700) && errno != EEXIST)
		return vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno));
	server_key_path(server, path, sizeof(path));
	argv[0] = (char *)find_program(program, sizeof(program));
	r = child_run(argv, &out);
	if (!r || !access(path, F_OK)) /* or another command has made it */
		return 0;
	snprintf(why, sizeof(why), "%s", r == -ETIMEDOUT ? "it takes too long" : vol_error(NULL));
	return vol_fail(NULL, -EIO, "the agent's key %s cannot be made: %s", path, why);
}

int server_key_remove(const char *server)
{
	char path[4096];

	server_key_path(server, path, sizeof(path));
	return unlink(path) && errno != ENOENT ? vol_fail(NULL, -errno, "%s cannot be removed: %s", path, vol_strerror(-errno)) : 0;
}

int server_secret(const struct server *s, char secret[AGENT_SECRET])
{
	struct json_object *a;
	char why[768];
	int r = ask(s, question("secret", NULL), KEY_SECONDS, true, &a);

	if (r) { /* no agent was asked */
		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		return vol_fail(NULL, r == -ENOTCONN ? -EIO : r, "no secret can be made of the key of server %s: %s", s->name, why);
	}
	snprintf(secret, AGENT_SECRET, "%s", json_str(a, "secret"));
	json_object_put(a);
	return strncmp(secret, "DHHC-1:", 7) ? vol_fail(NULL, -EPROTO, "no secret can be made of the key of server %s", s->name) : 0;
}
