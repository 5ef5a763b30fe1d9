// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The server's half of the control socket; client.c tells the protocol.
 *
 *   accepting thread ── one thread a connection, at most 64
 *
 * C1. Who may connect: root and the server's own uid, whatever the mode of the
 *     socket's directory.
 * C2. What a client sends costs bounded memory (a line of 1 MiB, 16 levels of
 *     nesting) and bounded time (a line begun must end within 10 s).
 * C3. A client that does not read what it asked for is dropped after 10 min.
 * C4. Whatever is wrong with a line, its sender gets an error; only one that
 *     cannot be told where the next line begins loses the connection.
 * C5. What was sent before the server ends is answered, if that is read within 5 s: it is done, or, where that takes
 *     long, broken off.
 */
#include "handle.h"
#include "json.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64u
#define LINE_MAX_BYTES (1u << 20)
#define LINE_MS 10000
#define IDLE_MS 3600000
#define SEND_S 600 /* a pager may be at the other end; nothing of the engine is held */
#define STOP_S 5 /* who stops it waits 10 s */
#define DEPTH_MAX 16

struct connection {
	struct connection *next;
	struct vol_server *server;
	pthread_t thread;
	int fd;
	atomic_bool done;
};

struct vol_server {
	struct vol_pool *pool;
	struct vol_server_hooks hooks;
	char *nbd_socket;
	int dir, listener, wake; /* runtime directory; socket; eventfd */
	char file[VOL_UUID_TEXT + 8], link[VOL_NAME_SIZE + 8];
	pthread_t thread;
	atomic_bool stopping;
	struct connection *list; /* the accepting thread's */
	unsigned n;
};

const struct vol_server_hooks *vol_server_hooks_of(const struct vol_server *s)
{
	return &s->hooks;
}

bool vol_server_stopping(const struct vol_server *s)
{
	return atomic_load(&s->stopping);
}

/* ---- one connection ------------------------------------------------------ */

static int send_json(struct connection *c, struct json_object *o)
{
	size_t len, sent = 0;
	const char *text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN, &len);

	if (!text)
		return -ENOMEM;
	/* The string's NUL has the place of the newline. */
	struct iovec iov[2] = { { (char *)text, len }, { "\n", 1 } };
	while (sent < len + 1) {
		struct msghdr m = { .msg_iov = sent < len ? iov : iov + 1, .msg_iovlen = sent < len ? 2 : 1 };
		ssize_t n = sendmsg(c->fd, &m, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		sent += (size_t)n;
		if (sent < len) {
			iov[0].iov_base = (char *)text + sent;
			iov[0].iov_len = len - sent;
		}
	}
	return 0;
}

static int send_wrapped(struct connection *c, const char *key, struct json_object *o)
{
	struct json_object *line = json_object_new_object();
	int r;

	json_set(line, key, o);
	r = send_json(c, line);
	json_object_put(line);
	return r;
}

static int send_error(struct connection *c, int errnum, const char *text)
{
	struct json_object *e = json_object_new_object();

	json_object_object_add(e, "errno", json_object_new_int(errnum));
	json_set_str(e, "message", text);
	return send_wrapped(c, "error", e);
}

static int on_part(void *arg, struct json_object *part)
{
	struct connection *c = arg;

	if (atomic_load(&c->server->stopping))
		return -EINTR;
	return send_json(c, part);
}

/* Non-zero: the connection is of no more use. */
static int answer(struct connection *c, struct json_object *request)
{
	struct vol_request rq = {
		.pool = c->server->pool, .args = request, .part = on_part, .arg = c, .server = c->server,
	};
	struct json_object *result = NULL;
	int r;

	if (!json_object_is_type(request, json_type_object))
		return send_error(c, -EINVAL, "a request is a JSON object");
	r = vol_execute(&rq, &result);
	if (r)
		return send_error(c, r, rq.err.text);
	return send_wrapped(c, "result", result);
}

static int take_line(struct connection *c, const char *line, size_t len)
{
	struct json_tokener *tok = json_tokener_new_ex(DEPTH_MAX);
	struct json_object *o;
	enum json_tokener_error e;
	char text[128];
	int r;

	if (!tok)
		return send_error(c, -ENOMEM, "out of memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tok, line, (int)len + 1); /* with its NUL: a bare number ends there */
	e = json_tokener_get_error(tok);
	if (e != json_tokener_success || json_tokener_get_parse_end(tok) < len) {
		snprintf(text, sizeof(text), "not a JSON object in one line: %s",
			 e == json_tokener_success ? "something follows it" : json_tokener_error_desc(e));
		r = send_error(c, -EINVAL, text);
	} else {
		r = answer(c, o);
	}
	json_object_put(o);
	json_tokener_free(tok);
	return r;
}

/* Lines until the client or the server ends. */
static void converse(struct connection *c)
{
	size_t have = 0, room = 4096, looked = 0;
	char *buf = malloc(room);
	int64_t deadline = vol_now_ms() + IDLE_MS;

	while (buf) {
		char *end = memchr(buf + looked, '\n', have - looked);
		if (end) {
			size_t len = (size_t)(end - buf);
			*end = 0;
			if (memchr(buf, 0, len) ? send_error(c, -EINVAL, "a NUL byte in a line") : take_line(c, buf, len))
				break;
			have -= len + 1;
			memmove(buf, end + 1, have);
			looked = 0;
			deadline = vol_now_ms() + (have ? LINE_MS : IDLE_MS);
			continue;
		}
		looked = have;
		if (have == room) {
			char *grown = room >= LINE_MAX_BYTES ? NULL : realloc(buf, 2 * room);
			if (!grown) {
				(void)send_error(c, -EMSGSIZE, "the line is longer than 1 MiB");
				break;
			}
			buf = grown;
			room *= 2;
		}
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		int64_t left = deadline - vol_now_ms();
		if (left <= 0) {
			if (have)
				(void)send_error(c, -ETIMEDOUT, "the line was begun but not ended within 10 s");
			break;
		}
		int ready = poll(&p, 1, (int)left);
		if (ready <= 0)
			continue;
		ssize_t n = recv(c->fd, buf + have, room - have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		if (!have)
			deadline = vol_now_ms() + LINE_MS;
		have += (size_t)n;
	}
	free(buf);
}

static void *serve(void *arg)
{
	struct connection *c = arg;

	converse(c);
	shutdown(c->fd, SHUT_RDWR);
	atomic_store(&c->done, true);
	return NULL;
}

/* ---- accepting ----------------------------------------------------------- */

static bool may_connect(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	return peer.uid == 0 || peer.uid == geteuid();
}

static void drop(struct vol_server *s, struct connection **at)
{
	struct connection *c = *at;

	close(c->fd);
	*at = c->next;
	free(c);
	s->n--;
}

static void reap(struct vol_server *s)
{
	struct connection **at = &s->list;

	while (*at) {
		if (atomic_load(&(*at)->done)) {
			pthread_join((*at)->thread, NULL);
			drop(s, at);
		} else {
			at = &(*at)->next;
		}
	}
}

static void take_connection(struct vol_server *s, int fd)
{
	struct timeval limit = { .tv_sec = SEND_S };
	struct connection *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->fd = fd;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
	if (!may_connect(fd) || s->n >= CONNECTIONS_MAX) {
		(void)send_error(c, s->n >= CONNECTIONS_MAX ? -EAGAIN : -EPERM,
				 s->n >= CONNECTIONS_MAX ? "too many connections; try again" : "only root may ask");
		goto drop;
	}
	if (pthread_create(&c->thread, NULL, serve, c))
		goto drop;
	c->next = s->list;
	s->list = c;
	s->n++;
	return;
drop:
	close(fd);
	free(c);
}

/* C5 */
static void end_all(struct vol_server *s)
{
	struct timespec end;
	int fd;

	while ((fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) /* who had connected by now */
		take_connection(s, fd);
	for (struct connection *c = s->list; c; c = c->next)
		shutdown(c->fd, SHUT_RD);
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += STOP_S;
	while (s->list) {
		if (pthread_timedjoin_np(s->list->thread, NULL, &end)) {
			shutdown(s->list->fd, SHUT_RDWR);
			pthread_join(s->list->thread, NULL);
		}
		drop(s, &s->list);
	}
}

static void *accept_all(void *arg)
{
	struct vol_server *s = arg;

	while (!atomic_load(&s->stopping)) {
		struct pollfd p[2] = { { .fd = s->listener, .events = POLLIN }, { .fd = s->wake, .events = POLLIN } };
		int ready = poll(p, 2, s->n ? 1000 : -1);
		reap(s);
		if (ready <= 0 || !(p[0].revents & POLLIN))
			continue;
		int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			take_connection(s, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			poll(&p[1], 1, 100); /* do not spin while there is nothing to take it with */
	}
	end_all(s);
	return NULL;
}

/* ---- start and stop ------------------------------------------------------- */

static int listen_in(struct vol_server *s)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	char fresh[sizeof(s->link) + 8];
	int r;

	/* The directory may have a longer name than sun_path holds. */
	snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", s->dir, s->file);
	s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->listener < 0)
		return -errno;
	/* The pool is ours, so what lies there is a dead server's. */
	if (unlinkat(s->dir, s->file, 0) && errno != ENOENT)
		return -errno;
	if (fchmod(s->listener, 0600) || bind(s->listener, (struct sockaddr *)&sa, sizeof(sa)))
		return -errno;
	if (listen(s->listener, 32)) {
		r = -errno;
		unlinkat(s->dir, s->file, 0);
		return r;
	}
	snprintf(fresh, sizeof(fresh), ".%s.new", s->link);
	unlinkat(s->dir, fresh, 0);
	if (symlinkat(s->file, s->dir, fresh) || renameat(s->dir, fresh, s->dir, s->link))
		vol_log(VOL_LOG_WARN, "pool %s: no link %s to its control socket: %s", s->pool->name, s->link, strerror(errno));
	return 0;
}

static void unlink_own(struct vol_server *s)
{
	char target[sizeof(s->file) + 8];
	ssize_t n = readlinkat(s->dir, s->link, target, sizeof(target) - 1);

	unlinkat(s->dir, s->file, 0);
	if (n > 0 && (size_t)n == strlen(s->file) && !memcmp(target, s->file, (size_t)n))
		unlinkat(s->dir, s->link, 0);
}

static void free_server(struct vol_server *s)
{
	if (s->listener >= 0)
		close(s->listener);
	if (s->wake >= 0)
		close(s->wake);
	if (s->dir >= 0)
		close(s->dir);
	free(s->nbd_socket);
	free(s);
}

int vol_server_start(struct vol_pool *pool, const struct vol_server_hooks *hooks, struct vol_server **out)
{
	struct vol_server *s;
	char uuid[VOL_UUID_TEXT];
	int r;

	if (!pool->engine)
		return vol_fail(NULL, -EINVAL, "pool %s has another server already", pool->name);
	r = vol_runtime_dir_make();
	if (r)
		return vol_fail(NULL, r, "pool %s: %s cannot be made: %s", pool->name, vol_runtime_dir(), vol_strerror(r));
	s = calloc(1, sizeof(*s));
	if (!s)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	s->pool = pool;
	s->listener = s->wake = -1;
	s->hooks = *hooks;
	s->nbd_socket = hooks->nbd_socket ? strdup(hooks->nbd_socket) : NULL;
	s->hooks.nbd_socket = s->nbd_socket;
	vol_uuid_text(pool->uuid, uuid);
	snprintf(s->file, sizeof(s->file), "%s.ctl", uuid);
	snprintf(s->link, sizeof(s->link), "%s.ctl", pool->name);
	s->dir = open(vol_runtime_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
	r = s->dir < 0 ? -errno : 0;
	if (!r) {
		s->wake = eventfd(0, EFD_CLOEXEC);
		r = s->wake < 0 ? -errno : listen_in(s);
	}
	if (!r) {
		r = -pthread_create(&s->thread, NULL, accept_all, s);
		if (r)
			unlink_own(s);
	}
	if (r) {
		vol_fail(NULL, r, "pool %s: its control socket %s/%s cannot be made: %s", pool->name, vol_runtime_dir(), s->file,
			 vol_strerror(r));
		free_server(s);
		return r;
	}
	*out = s;
	return 0;
}

void vol_server_stop(struct vol_server *s)
{
	uint64_t one = 1;

	if (!s)
		return;
	unlink_own(s); /* first: nobody finds a server that goes */
	atomic_store(&s->stopping, true);
	while (write(s->wake, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(s->thread, NULL);
	free_server(s);
}
