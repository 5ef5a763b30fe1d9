// SPDX-License-Identifier: LGPL-2.1-or-later
/* Questions to a server's agent. agent.h tells. */
#include "agent.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "json.h"

#define PROGRAM "vdagent"
#define LINE_MAX_ (64u << 10)
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
	ssize_t n;
	char *slash;

	if (env && *env)
		return env;
	n = readlink("/proc/self/exe", path, size - sizeof("/" PROGRAM));
	if (n > 0) {
		path[n] = 0;
		slash = strrchr(path, '/');
		if (slash) {
			strcpy(slash, "/" PROGRAM);
			if (!access(path, X_OK))
				return path;
		}
	}
	return PROGRAM;
}

struct child { pid_t pid; int in, out, err, process; };

/* Its input is a socket, so that writing to one that has ended is an error and no signal.  In a group of its
 * own: what is typed at a terminal is for this process to heed. */
static int start(char *const argv[], struct child *c)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t all, none;
	int in[2] = { -1, -1 }, out[2] = { -1, -1 }, err[2] = { -1, -1 }, r = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, in) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
		r = vol_fail(NULL, -errno, "no pipe: %s", vol_strerror(-errno));
	if (!r) {
		posix_spawn_file_actions_init(&fa);
		posix_spawn_file_actions_adddup2(&fa, in[1], 0);
		posix_spawn_file_actions_adddup2(&fa, out[1], 1);
		posix_spawn_file_actions_adddup2(&fa, err[1], 2);
		posix_spawn_file_actions_addclosefrom_np(&fa, 3);
		posix_spawnattr_init(&at);
		sigfillset(&all);
		sigemptyset(&none);
		posix_spawnattr_setsigdefault(&at, &all);
		posix_spawnattr_setsigmask(&at, &none);
		posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
		r = -posix_spawnp(&c->pid, argv[0], &fa, &at, argv, environ);
		posix_spawnattr_destroy(&at);
		posix_spawn_file_actions_destroy(&fa);
		if (r)
			vol_fail(NULL, r, "%s cannot be run (%s), by which agents are asked; is it installed?", argv[0], vol_strerror(r));
	}
	close(in[1]);
	close(out[1]);
	close(err[1]);
	c->in = in[0];
	c->out = out[0];
	c->err = err[0];
	c->process = r ? -1 : pidfd_open(c->pid, 0);
	if (!r && c->process < 0) {
		r = vol_fail(NULL, -errno, "%s cannot be waited for: %s", argv[0], vol_strerror(-errno));
		kill(c->pid, SIGKILL);
		waitpid(c->pid, NULL, 0);
	}
	if (r) {
		close(c->in);
		close(c->out);
		close(c->err);
	}
	return r;
}

struct stream { char *text; size_t size, n; bool ended; };

static void take_some(int fd, struct stream *s)
{
	char more[4096];
	ssize_t n = read(fd, more, sizeof(more));

	if (n <= 0) {
		s->ended = n == 0 || errno != EINTR;
		return;
	}
	if ((size_t)n > s->size - 1 - s->n)
		n = (ssize_t)(s->size - 1 - s->n);
	memcpy(s->text + s->n, more, (size_t)n);
	s->n += (size_t)n;
	s->text[s->n] = 0;
}

/* What it says, until it has ended.  finish: whatever comes in between. */
static int listen_to(const struct child *c, struct stream *out, struct stream *err, int64_t deadline, bool finish)
{
	int64_t now;

	for (;;) {
		struct pollfd p[3] = { { out->ended ? -1 : c->out, POLLIN, 0 }, { err->ended ? -1 : c->err, POLLIN, 0 },
				       { out->ended ? c->process : -1, POLLIN, 0 } };

		if (!finish && vol_interrupted())
			return vol_fail(NULL, -EINTR, "interrupted");
		now = vol_now_ms();
		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(p, 3, (int)(deadline - now)) < 0) {
			if (errno != EINTR)
				return vol_fail(NULL, -errno, "poll: %s", vol_strerror(-errno));
			continue;
		}
		if (p[0].revents)
			take_some(c->out, out);
		if (p[1].revents)
			take_some(c->err, err);
		else if (p[2].revents)
			return 0;
	}
}

/* Runs it with `input`; 0: it ended well, and out->text is what it said.  -ENOTCONN: it did not (text: why, but for the
 * first words); -ETIMEDOUT. */
static int run(char *const argv[], const char *input, unsigned seconds, bool finish, struct stream *out)
{
	char said[1024] = "", why[512];
	struct stream err = { .text = said, .size = sizeof(said) };
	int64_t deadline = vol_now_ms() + seconds * 1000ll;
	size_t n = strlen(input);
	struct child c;
	int r = start(argv, &c), status = 0;

	if (r)
		return r;
	/* Whatever is not taken of it, the answer is to nothing that was asked, or none. */
	if (send(c.in, input, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n)
		shutdown(c.in, SHUT_WR);
	r = listen_to(&c, out, &err, deadline, finish);
	if (r)
		kill(c.pid, SIGKILL);
	while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
		;
	close(c.in);
	close(c.out);
	close(c.err);
	close(c.process);
	if (!r && (!WIFEXITED(status) || WEXITSTATUS(status))) {
		said[strcspn(said, "\n")] = 0;
		vol_printable(why, sizeof(why), !strncmp(said, PROGRAM ": ", sizeof(PROGRAM)) ? said + sizeof(PROGRAM) + 1 : said);
		r = vol_fail(NULL, -ENOTCONN, "%s", *why ? why : PROGRAM " failed, and said nothing");
	}
	return r;
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

/* The request is consumed. */
static int ask(const struct server *s, struct json_object *q, unsigned seconds, bool finish, struct json_object **answer)
{
	char program[4096], key[4096], limit[16], why[600];
	struct stream out = { .text = calloc(1, LINE_MAX_ + 1), .size = LINE_MAX_ + 1 };
	char *line = NULL, *argv[] = { NULL, "ask", "--key", key, "--timeout", limit, (char *)s->agent, NULL };
	int r = 0;

	argv[0] = (char *)find_program(program, sizeof(program));
	server_key_path(s->name, key, sizeof(key));
	snprintf(limit, sizeof(limit), "%u", seconds);
	if (!out.text || asprintf(&line, "%s\n", json_object_to_json_string_ext(q, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)) < 0) {
		line = NULL;
		r = vol_fail(NULL, -ENOMEM, "out of memory");
	}
	json_object_put(q);
	if (!r)
		r = run(argv, line, seconds + 2, finish, &out); /* it looks at the time itself */
	if (r == -ETIMEDOUT)
		r = vol_fail(NULL, -ENOTCONN, "the agent of server %s, %s, does not answer within %u seconds", s->name, s->agent, seconds);
	else if (r == -ENOTCONN) {
		snprintf(why, sizeof(why), "%s", vol_error(NULL));
		r = vol_fail(NULL, r, "the agent of server %s, %s, does not answer: %s", s->name, s->agent, why);
	}
	if (!r && strcspn(out.text, "\n") + 1 != out.n)
		r = nonsense(s, "an answer is one line");
	if (!r)
		r = parse_answer(s, out.text, answer);
	free(out.text);
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

int agent_ready(struct server *s)
{
	struct json_object *a;
	int r = ask(s, question("status", NULL), vol_server_timeout(), false, &a);

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
	if (*dir && !is_path(dir, sizeof(l->mount)))
		return nonsense(s, "\"mount\" is no path");
	if (!*dir && ((spec->mount && *spec->mount) || spec->mkfs))
		return vol_fail(NULL, -ENODATA, "server %s has not mounted it: %s", s->name, *l->note ? l->note : "it does not say why");
	snprintf(l->mount, sizeof(l->mount), "%s", dir);
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
	r = ask(s, q, vol_server_timeout() * (spec && spec->mkfs ? MKFS_TIMES : SCAN_TIMES), false, &a);
	if (r)
		return r;
	device = json_str(a, "device");
	/* It becomes a word of the open pointer. */
	if (!is_path(device, sizeof(l->address)) || strchr(device, ' '))
		r = nonsense(s, "\"device\" is no path");
	else if (!l->address[0])
		snprintf(l->address, sizeof(l->address), "%s", device);
	if (!r && spec)
		r = take_mount(s, l, spec, a);
	json_object_put(a);
	return r;
}

int agent_unlink(const struct server *s, const struct link_info *l, bool test)
{
	struct json_object *q = question("unlink", l), *a = NULL;
	int r;

	json_set_bool(q, "test", test);
	r = ask(s, q, vol_server_timeout() * UNMOUNT_TIMES, !test, &a);
	json_object_put(a);
	return r;
}

int agent_gone(const struct server *s, const struct link_info *l, struct json_object *via)
{
	struct json_object *q = question("gone", l), *a = NULL;
	int r;

	json_set_str(q, "nqn", json_str(via, "nqn"));
	json_set(q, "via", via);
	r = ask(s, q, vol_server_timeout() * SCAN_TIMES, true, &a);
	json_object_put(a);
	return r;
}

/* ---- keys ----------------------------------------------------------------------- */

void server_key_path(const char *server, char *buf, size_t size)
{
	snprintf(buf, size, "%s/keys/%s.key", vol_config_dir(), server);
}

/* `vdagent key [--dhchap] FILE`: what it says, in out. */
static int key_program(const char *server, bool dhchap, const char *what, struct stream *out)
{
	char program[4096], key[4096], why[600], *argv[] = { NULL, "key", dhchap ? "--dhchap" : key, dhchap ? key : NULL, NULL };
	int r;

	argv[0] = (char *)find_program(program, sizeof(program));
	server_key_path(server, key, sizeof(key));
	r = run(argv, "", KEY_SECONDS, true, out);
	if (!r)
		return 0;
	snprintf(why, sizeof(why), "%s", r == -ETIMEDOUT ? "it takes too long" : vol_error(NULL));
	return vol_fail(NULL, -EIO, "%s %s: %s", what, key, why);
}

int server_key_make(const char *server)
{
	char path[4096], text[256] = "";
	struct stream out = { .text = text, .size = sizeof(text) };
	int r;

	server_key_path(server, path, sizeof(path));
	if (!access(path, F_OK))
		return 0;
	*strrchr(path, '/') = 0;
	if (mkdir(path, 0700) && errno != EEXIST)
		return vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno));
	r = key_program(server, false, "the agent's key cannot be made,", &out);
	server_key_path(server, path, sizeof(path));
	return !access(path, F_OK) ? 0 : r; /* or another command has */
}

int server_secret(const struct server *s, char secret[AGENT_SECRET])
{
	struct stream out = { .text = secret, .size = AGENT_SECRET };
	int r;

	secret[0] = 0;
	r = key_program(s->name, true, "no secret can be made of", &out);
	secret[strcspn(secret, "\n")] = 0;
	return !r && strncmp(secret, "DHHC-1:", 7) ? vol_fail(NULL, -EPROTO, "no secret can be made of the key of server %s", s->name) : r;
}
