// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The client's half of the control socket.  One line a message, JSON:
 *
 *   → {"op": …}
 *   ← {"progress": PERMILLE}            any number of
 *   ← {"part": {…}}                     these two, then one of
 *   ← {"result": {…}}
 *   ← {"error": {"errno": -17, "message": "…"}}
 *
 * A call that is given up half-way closes the connection, which tells the
 * server to end the operation; the next call connects again.
 */
#include "host.h"
#include "json.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_MAX (16u << 20) /* one line */

struct vol_client {
	char file[VOL_NAME_SIZE + 8];
	int fd; /* -1: connect again */
	char *buf;
	size_t have, room;
};

void vol_ctl_path(const uint8_t uuid[16], char *buf, size_t size)
{
	char text[VOL_UUID_TEXT];

	vol_uuid_text(uuid, text);
	snprintf(buf, size, "%s/%s.ctl", vol_runtime_dir(), text);
}

/* The directory may have a longer name than sun_path holds. */
static int connect_in(const char *file)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t len = sizeof(peer);
	char target[VOL_NAME_SIZE + 8];
	ssize_t n;
	int dir, fd, r;

	dir = open(vol_runtime_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return errno == ENOENT ? -ENOENT : -errno;
	n = readlinkat(dir, file, target, sizeof(target) - 1); /* NAME.ctl → UUID.ctl */
	if (n > 0) {
		target[n] = 0;
		file = target;
	}
	if (strchr(file, '/') || snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d/%s", dir, file) >=
					 (int)sizeof(sa.sun_path)) {
		close(dir);
		return -ENOENT;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		r = -errno;
		close(dir);
		return r;
	}
	r = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) ? -errno : 0;
	close(dir);
	if (!r && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		r = -errno;
	if (!r && peer.uid != 0 && peer.uid != geteuid())
		r = -EPERM;
	if (r) {
		close(fd);
		return r == -ECONNREFUSED ? -ENOENT : r; /* left by a dead server */
	}
	return fd;
}

int vol_client_connect(const char *file, struct vol_client **out)
{
	struct vol_client *c;
	int fd;

	if (strlen(file) >= sizeof(c->file))
		return -ENOENT;
	fd = connect_in(file);
	if (fd < 0)
		return fd;
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	strcpy(c->file, file);
	c->fd = fd;
	*out = c;
	return 0;
}

int vol_client_process(const struct vol_client *c)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd;

	if (c->fd < 0 || getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -ENOTCONN;
	fd = pidfd_open(peer.pid, 0);
	return fd < 0 ? -errno : fd;
}

static void disconnect(struct vol_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->have = 0;
}

void vol_client_close(struct vol_client *c)
{
	if (!c)
		return;
	disconnect(c);
	free(c->buf);
	free(c);
}

static int send_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		p += k;
		n -= (size_t)k;
	}
	return 0;
}

/* The next line, without its newline, valid until the next call; the bytes of the line are
 * taken out of the buffer by `used`. */
static int recv_line(struct vol_client *c, bool may_end, char **line, size_t *used)
{
	size_t looked = 0;

	for (;;) {
		char *end = c->have > looked ? memchr(c->buf + looked, '\n', c->have - looked) : NULL;
		if (end) {
			*end = 0;
			*line = c->buf;
			*used = (size_t)(end - c->buf) + 1;
			return 0;
		}
		looked = c->have;
		if (c->have == c->room) {
			size_t room = c->room ? 2 * c->room : 65536;
			char *grown = room > ANSWER_MAX ? NULL : realloc(c->buf, room);
			if (!grown)
				return room > ANSWER_MAX ? -EMSGSIZE : -ENOMEM;
			c->buf = grown;
			c->room = room;
		}
		struct pollfd p = { .fd = c->fd, .events = POLLIN };
		int ready = poll(&p, 1, 250);
		if (may_end && vol_interrupted())
			return -EINTR;
		if (ready <= 0)
			continue;
		ssize_t n = recv(c->fd, c->buf + c->have, c->room - c->have, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ECONNRESET;
		c->have += (size_t)n;
	}
}

/* Operations that only read may be ended half-way; others are short, and whether
 * they were done must be known. */
static bool may_be_ended(struct json_object *request)
{
	static const char *const ops[] = { "pool-check", "pool-dump", "diff", "usage", "list" };
	const char *op = json_str(request, "op");

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		if (!strcmp(op, ops[i]))
			return true;
	return false;
}

static int server_error(struct json_object *e, struct vol_errbuf *err)
{
	struct json_object *v;
	int r = json_get(e, "errno", json_type_int, &v) ? json_object_get_int(v) : 0;

	snprintf(err->text, sizeof(err->text), "%s", json_str(e, "message"));
	return r < 0 && r > -4096 ? r : -EPROTO;
}

int vol_client_call(struct vol_client *c, struct json_object *request, vol_part_fn part, void *arg,
		    struct json_object **result, struct vol_errbuf *err)
{
	bool may_end = may_be_ended(request), again = true;
	const char *text;
	size_t len;
	int r, sent;

	text = json_object_to_json_string_length(request, JSON_C_TO_STRING_PLAIN, &len);
	if (!text)
		return -ENOMEM;
retry:
	r = 0;
	if (c->fd < 0) {
		c->fd = connect_in(c->file);
		again = false;
		r = c->fd < 0 ? c->fd : 0;
	}
	if (!r)
		r = send_all(c->fd, text, len);
	if (!r)
		r = send_all(c->fd, "\n", 1);
	sent = r;
	for (;;) {
		struct json_object *o, *v;
		char *line = NULL;
		size_t used = 0;
		/* One that will not have us says so and closes, before it has read anything. */
		if (!sent || sent == -EPIPE || sent == -ECONNRESET)
			r = recv_line(c, may_end, &line, &used);
		if (r && sent) {
			disconnect(c);
			if (again) /* an idle connection that it closed */
				goto retry;
			snprintf(err->text, sizeof(err->text), "the pool's server cannot be reached: %s", vol_strerror(sent));
			return sent;
		}
		if (r) {
			snprintf(err->text, sizeof(err->text), r == -EINTR ? "interrupted" :
				 "the pool's server ended the connection without an answer (%s); whether \"%s\" was done is not known",
				 vol_strerror(r), json_str(request, "op"));
			break;
		}
		o = json_tokener_parse(line);
		memmove(c->buf, c->buf + used, c->have - used);
		c->have -= used;
		if (o && (json_object_object_get_ex(o, "progress", &v) || json_get(o, "part", json_type_object, &v))) {
			r = part ? part(arg, o) : 0;
			json_object_put(o);
			if (!r)
				continue;
			break;
		}
		if (o && json_get(o, "result", json_type_object, &v)) {
			if (result)
				*result = json_object_get(v);
			json_object_put(o);
			return 0;
		}
		if (o && json_get(o, "error", json_type_object, &v)) {
			r = server_error(v, err);
			json_object_put(o);
			return r;
		}
		json_object_put(o);
		r = -EPROTO;
		snprintf(err->text, sizeof(err->text), "the pool's server answers something else than the protocol says");
		break;
	}
	disconnect(c);
	return r;
}
