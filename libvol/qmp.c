// SPDX-License-Identifier: LGPL-2.1-or-later
/* A client of QEMU's machine protocol. qmp.h tells. */
#include "qmp.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_ (4u << 20) /* with some hundred drives a list of them has not a tenth of it */
#define DEPTH_MAX 32
#define DELETED_MAX 64
#define ID_SIZE 64

struct qmp {
	int fd;
	pid_t pid;
	bool finish;
	char path[128];
	uint64_t deadline; /* ms, of the call under way */
	uint64_t number;   /* of the last command */
	char *buf;
	size_t len, room, seen; /* seen: bytes in which there is no end of a line */
	char class[48], desc[256];
	char deleted[DELETED_MAX][ID_SIZE];
	unsigned ndeleted;
};

static unsigned limit_s(void)
{
	const char *e = getenv("VD_SERVER_TIMEOUT");
	unsigned long s = e ? strtoul(e, NULL, 10) : 0;

	return s && s <= 3600 ? (unsigned)s : 10;
}

static void begin(struct qmp *q)
{
	q->deadline = (uint64_t)vol_now_ms() + limit_s() * 1000u;
}

static int wait_for(struct qmp *q, short events)
{
	for (;;) {
		uint64_t now = (uint64_t)vol_now_ms();
		struct pollfd p = { q->fd, events, 0 };
		int n;

		if (!q->finish && vol_interrupted())
			return vol_fail(NULL, -EINTR, "interrupted");
		if (now >= q->deadline)
			return vol_fail(NULL, -ETIMEDOUT, "QMP socket %s does not answer within %u seconds\n"
					"the VM hangs, or another program has the socket: it serves one at a time", q->path, limit_s());
		n = poll(&p, 1, (int)(q->deadline - now));
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return vol_fail(NULL, -errno, "QMP socket %s: %s", q->path, vol_strerror(-errno));
	}
}

static int closed(const struct qmp *q)
{
	return vol_fail(NULL, -ECONNRESET, "QMP socket %s was closed: the VM ended", q->path);
}

static int nonsense(const struct qmp *q, const char *what)
{
	return vol_fail(NULL, -EPROTO, "what answers on %s does not speak QMP: %s", q->path, what);
}

/* One object. */
static int parse(struct qmp *q, const char *line, size_t n, struct json_object **out)
{
	struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
	struct json_object *o;

	if (!t)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	o = json_tokener_parse_ex(t, line, (int)n);
	json_tokener_free(t);
	if (!o || !json_object_is_type(o, json_type_object)) {
		json_object_put(o);
		return nonsense(q, "a line is no JSON object");
	}
	*out = o;
	return 0;
}

static int next_line(struct qmp *q, struct json_object **out)
{
	char *end, *more;
	ssize_t n;
	int r;

	for (;;) {
		end = memchr(q->buf + q->seen, '\n', q->len - q->seen);
		if (end) {
			size_t used = (size_t)(end - q->buf) + 1;

			r = parse(q, q->buf, used - 1, out);
			memmove(q->buf, q->buf + used, q->len - used);
			q->len -= used;
			q->seen = 0;
			return r;
		}
		q->seen = q->len;
		if (q->len == q->room) {
			if (q->room >= LINE_MAX_)
				return nonsense(q, "a line has no end");
			more = realloc(q->buf, q->room * 2);
			if (!more)
				return vol_fail(NULL, -ENOMEM, "out of memory");
			q->buf = more;
			q->room *= 2;
		}
		r = wait_for(q, POLLIN);
		if (r)
			return r;
		n = recv(q->fd, q->buf + q->len, q->room - q->len, MSG_DONTWAIT);
		if (!n || (n < 0 && errno == ECONNRESET))
			return closed(q);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return vol_fail(NULL, -errno, "QMP socket %s: %s", q->path, vol_strerror(-errno));
		if (n > 0)
			q->len += (size_t)n;
	}
}

static void note_event(struct qmp *q, const char *event, struct json_object *o)
{
	struct json_object *data;
	const char *device;

	if (strcmp(event, "DEVICE_DELETED") || !json_get(o, "data", json_type_object, &data) ||
	    !json_get_str(data, "device", &device) || strlen(device) >= ID_SIZE)
		return;
	snprintf(q->deleted[q->ndeleted++ % DELETED_MAX], ID_SIZE, "%s", device);
}

/* The next line that is no event.  Without `answer`: the next event. */
static int next_answer(struct qmp *q, struct json_object **answer)
{
	struct json_object *o = NULL;
	const char *event;
	int r;

	for (;;) {
		r = next_line(q, &o);
		if (r)
			return r;
		if (!json_get_str(o, "event", &event)) {
			if (answer) {
				*answer = o;
				return 0;
			}
			json_object_put(o);
			return nonsense(q, "an answer to no question");
		}
		note_event(q, event, o);
		json_object_put(o);
		if (!answer)
			return 0;
	}
}

/* It is shown to people. */
static void copy_printable(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n < size - 1; n++)
		to[n] = (unsigned char)from[n] < 0x20 || from[n] == 0x7f ? ' ' : from[n];
	to[n] = 0;
}

static int send_all(struct qmp *q, const char *text, size_t n)
{
	while (n) {
		ssize_t did;
		int r = wait_for(q, POLLOUT);

		if (r)
			return r;
		did = send(q->fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (did < 0 && (errno == EPIPE || errno == ECONNRESET))
			return closed(q);
		if (did < 0 && errno != EAGAIN && errno != EINTR)
			return vol_fail(NULL, -errno, "QMP socket %s: %s", q->path, vol_strerror(-errno));
		if (did > 0) {
			text += did;
			n -= (size_t)did;
		}
	}
	return 0;
}

int qmp_call(struct qmp *q, const char *command, struct json_object *args, struct json_object **result)
{
	struct json_object *o = json_object_new_object(), *a, *v;
	char *text;
	int n, r;

	begin(q);
	json_set_str(o, "execute", command);
	if (args)
		json_set(o, "arguments", args);
	json_set_u64(o, "id", ++q->number);
	n = asprintf(&text, "%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
	r = n < 0 ? vol_fail(NULL, -ENOMEM, "out of memory") : send_all(q, text, (size_t)n);
	if (n >= 0)
		free(text);
	json_object_put(o);
	if (!r)
		r = next_answer(q, &a);
	if (r)
		return r;
	if (json_u64(a, "id") != q->number) {
		r = nonsense(q, "an answer to another question");
	} else if (json_get(a, "error", json_type_object, &v)) {
		copy_printable(q->class, sizeof(q->class), json_str(v, "class"));
		copy_printable(q->desc, sizeof(q->desc), json_str(v, "desc"));
		r = vol_fail(NULL, -EREMOTEIO, "QEMU refused %s: %s", command, q->desc);
	} else if (!json_object_object_get_ex(a, "return", &v)) {
		r = nonsense(q, "an answer with no result");
	} else if (result) {
		*result = json_object_get(v);
	}
	json_object_put(a);
	return r;
}

const char *qmp_class(const struct qmp *q) { return q->class; }
const char *qmp_desc(const struct qmp *q) { return q->desc; }
pid_t qmp_pid(const struct qmp *q) { return q->pid; }

int qmp_wait_deleted(struct qmp *q, const char *id)
{
	int r = 0;

	begin(q);
	while (!r) {
		for (unsigned i = 0; i < q->ndeleted && i < DELETED_MAX; i++)
			if (!strcmp(q->deleted[i], id))
				return 0;
		r = next_answer(q, NULL);
	}
	return r;
}

static int greet(struct qmp *q)
{
	struct json_object *o, *v;
	int r = next_answer(q, &o);

	if (r)
		return r;
	if (!json_get(o, "QMP", json_type_object, &v))
		r = nonsense(q, "there is no greeting");
	json_object_put(o);
	return r ? r : qmp_call(q, "qmp_capabilities", NULL, NULL);
}

static int connect_to(struct qmp *q, const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct ucred who;
	socklen_t n = sizeof(who);

	if (strlen(path) >= sizeof(a.sun_path))
		return vol_fail(NULL, -ENAMETOOLONG, "%s is longer than the %zu bytes a socket's path can have", path, sizeof(a.sun_path) - 1);
	strcpy(a.sun_path, path);
	q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (q->fd < 0)
		return vol_fail(NULL, -errno, "no socket: %s", vol_strerror(-errno));
	if (connect(q->fd, (struct sockaddr *)&a, sizeof(a))) {
		if (errno == ENOENT || errno == ECONNREFUSED)
			return vol_fail(NULL, -ENOTCONN, "the VM is not running: nobody listens on %s", path);
		if (errno == EAGAIN)
			return vol_fail(NULL, -ETIMEDOUT, "QMP socket %s takes no connection: the VM hangs, or other programs wait for it", path);
		return vol_fail(NULL, -errno, "%s cannot be connected to: %s", path, vol_strerror(-errno));
	}
	if (!getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &who, &n))
		q->pid = who.pid;
	return 0;
}

int qmp_open(const char *path, bool finish, struct qmp **out)
{
	struct qmp *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	q->fd = -1;
	q->finish = finish;
	q->room = 4096;
	q->buf = malloc(q->room);
	snprintf(q->path, sizeof(q->path), "%s", path);
	begin(q);
	r = q->buf ? connect_to(q, path) : vol_fail(NULL, -ENOMEM, "out of memory");
	if (!r)
		r = greet(q);
	if (r)
		qmp_close(q);
	else
		*out = q;
	return r;
}

void qmp_close(struct qmp *q)
{
	if (!q)
		return;
	if (q->fd >= 0)
		close(q->fd);
	free(q->buf);
	free(q);
}
