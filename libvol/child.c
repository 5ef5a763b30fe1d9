// SPDX-License-Identifier: LGPL-2.1-or-later
/* Programs that are run. child.h tells. */
#include "child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct pipes { pid_t pid; int out, err, process; };

static int input_file(const char *input)
{
	size_t n = strlen(input);
	int fd = memfd_create("vd-input", MFD_CLOEXEC), r;

	if (fd >= 0 && pwrite(fd, input, n, 0) == (ssize_t)n)
		return fd;
	r = vol_fail(NULL, -errno, "no memory for a program's input: %s", vol_strerror(-errno));
	if (fd >= 0)
		close(fd);
	return r;
}

/* In a group of its own: what is typed at a terminal is for this process to heed. */
static int spawn(char *const argv[], int in, int out, int err, int keep, pid_t *pid)
{
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t all, none;
	int r;

	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, in, 0);
	posix_spawn_file_actions_adddup2(&fa, out, 1);
	posix_spawn_file_actions_adddup2(&fa, err, 2);
	if (keep >= 0)
		posix_spawn_file_actions_adddup2(&fa, keep, 3);
	posix_spawn_file_actions_addclosefrom_np(&fa, keep >= 0 ? 4 : 3);
	posix_spawnattr_init(&at);
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_setsigdefault(&at, &all);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	r = -posix_spawnp(pid, argv[0], &fa, &at, argv, environ);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	return r ? vol_fail(NULL, r, "%s cannot be run (%s); is it installed?", argv[0], vol_strerror(r)) : 0;
}

static void end(pid_t pid, int *status)
{
	while (waitpid(pid, status, 0) < 0 && errno == EINTR)
		;
}

/* in and out are closed here, in any case. */
static int start(char *const argv[], int in, int out, int keep, struct pipes *p)
{
	int err[2] = { -1, -1 }, r = 0;

	if (pipe2(err, O_CLOEXEC))
		r = vol_fail(NULL, -errno, "no pipe: %s", vol_strerror(-errno));
	if (!r)
		r = spawn(argv, in, out, err[1], keep, &p->pid);
	close(in);
	close(out);
	close(err[1]);
	p->err = err[0];
	p->process = r ? -1 : pidfd_open(p->pid, 0);
	if (!r && p->process < 0) {
		r = vol_fail(NULL, -errno, "%s cannot be waited for: %s", argv[0], vol_strerror(-errno));
		kill(-p->pid, SIGKILL);
		end(p->pid, NULL);
	}
	if (r)
		close(p->err);
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

/* What it says, until it has ended, or (line) a line of it is there. */
static int listen_to(const struct pipes *c, struct stream *out, struct stream *err, int64_t deadline, bool finish, bool line)
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
		if (line && (memchr(out->text, '\n', out->n) || out->n == out->size - 1))
			return 0;
		if (p[1].revents)
			take_some(c->err, err);
		else if (p[2].revents)
			return 0;
	}
}

static int failed(const char *name, char *said)
{
	char why[1024];
	const char *slash = strrchr(name, '/');
	size_t n;

	name = slash ? slash + 1 : name;
	n = strlen(name);
	for (char *c = said; *c; c++)
		if (*c != '\n' && ((unsigned char)*c < 0x20 || *c == 0x7f))
			*c = ' ';
	for (char *c = said + strlen(said); c > said && c[-1] == '\n'; *--c = 0)
		;
	snprintf(why, sizeof(why), "%s", !strncmp(said, name, n) && !strncmp(said + n, ": ", 2) ? said + n + 2 : said);
	return *why ? vol_fail(NULL, -EIO, "%s", why) : vol_fail(NULL, -EIO, "%s failed, and said nothing", name);
}

int child_run(char *const argv[], struct child *c)
{
	char said[1024] = "";
	struct stream out = { .text = c->text, .size = c->size }, err = { .text = said, .size = sizeof(said) };
	int64_t deadline = vol_now_ms() + c->seconds * 1000ll;
	int in = input_file(c->input), pipe[2], r, status = 0;
	struct pipes p;

	c->text[0] = 0;
	c->n = 0;
	if (in < 0)
		return in;
	if (pipe2(pipe, O_CLOEXEC)) {
		r = vol_fail(NULL, -errno, "no pipe: %s", vol_strerror(-errno));
		close(in);
		return r;
	}
	p.out = pipe[0];
	r = start(argv, in, pipe[1], c->keep, &p);
	if (!r) {
		r = listen_to(&p, &out, &err, deadline, c->finish, false);
		if (r)
			kill(-p.pid, SIGKILL);
		end(p.pid, &status);
		close(p.err);
		close(p.process);
	}
	close(p.out);
	c->n = out.n;
	return !r && (!WIFEXITED(status) || WEXITSTATUS(status)) ? failed(argv[0], said) : r;
}

int child_talk(char *const argv[], struct child_talk *t)
{
	struct pipes p;
	int s[2], out, r;

	/* A socket: writing to one whose other end is gone raises no signal if it is asked not to. */
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s))
		return vol_fail(NULL, -errno, "no socket: %s", vol_strerror(-errno));
	out = fcntl(s[1], F_DUPFD_CLOEXEC, 0);
	r = out < 0 ? vol_fail(NULL, -errno, "no descriptor: %s", vol_strerror(-errno)) : start(argv, s[1], out, -1, &p);
	if (r) {
		if (out < 0)
			close(s[1]);
		close(s[0]);
		return r;
	}
	*t = (struct child_talk){ p.pid, s[0], p.err, p.process };
	return 0;
}

static int say(int fd, const char *line)
{
	for (size_t n = strlen(line); n;) {
		ssize_t k = send(fd, line, n, MSG_NOSIGNAL);

		if (k < 0 && errno != EINTR)
			return -errno;
		line += k > 0 ? k : 0;
		n -= k > 0 ? (size_t)k : 0;
	}
	return 0;
}

int child_ask(struct child_talk *t, const char *name, const char *line, unsigned seconds, bool finish, char *text, size_t size)
{
	char said[1024] = "", *nl;
	struct stream out = { .text = text, .size = size }, err = { .text = said, .size = sizeof(said) };
	struct pipes p = { t->pid, t->io, t->err, t->process };
	int r;

	text[0] = 0;
	(void)!say(t->io, line); /* when it cannot be, what it has said tells why */
	r = listen_to(&p, &out, &err, vol_now_ms() + seconds * 1000ll, finish, true);
	if (r)
		return r;
	nl = memchr(text, '\n', out.n);
	if (!nl)
		return out.n == size - 1 ? vol_fail(NULL, -EMSGSIZE, "%s answers with a line of more than %zu bytes", name, size - 1) : failed(name, said);
	if (nl + 1 != text + out.n)
		return vol_fail(NULL, -EPROTO, "%s answers with more than a line", name);
	*nl = 0;
	return 0;
}

void child_hang_up(struct child_talk *t)
{
	close(t->io);
	kill(-t->pid, SIGKILL); /* it has nothing to bring to an end */
	end(t->pid, NULL);
	close(t->err);
	close(t->process);
}
