// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connections of hosts, a thread each.
 *
 * G1. A connection that has not shown the key lasts 10 s at most; when there are many, the oldest of
 *     those makes room: strangers do not keep out who has the key.
 * G2. What one connection waits for keeps no other waiting, but for one on the same drive.
 * G3. Whatever is wrong with a line, its sender gets an error; only one that cannot be told where the
 *     next line begins loses the connection.
 */
#include "agent.h"

#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64u
#define IDLE_MS 60000
#define SEND_MS 10000
#define END_MS 5000

struct connection {
	struct connection *next; /* the newest is first */
	const struct agent *agent;
	int fd;     /* to be shut down, while it is in the list */
	bool known; /* has the key */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t fewer = PTHREAD_COND_INITIALIZER;
static struct connection *list;
static unsigned connections;

/* ---- one of them -------------------------------------------------------------- */

static int refuse(struct agent_channel *ch, int r)
{
	struct json_object *o = json_object_new_object();

	json_set_bool(o, "ok", false);
	json_set_u64(o, "errno", (uint64_t)-r);
	json_set_str(o, "error", vol_error(NULL));
	r = agent_channel_send(ch, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE), vol_now_ms() + SEND_MS);
	json_object_put(o);
	return r;
}

/* Non-zero: the connection is of no more use. */
static int answer(struct connection *c, struct agent_channel *ch, const char *line, size_t len)
{
	struct json_object *request, *o;
	int r = agent_json_parse(line, len, &request);

	if (r)
		return refuse(ch, r);
	o = agent_answer(c->agent, request, c->fd);
	json_object_put(request);
	if (!o)
		return -ENOMEM;
	r = agent_channel_send(ch, json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE), vol_now_ms() + SEND_MS);
	json_object_put(o);
	return r;
}

static void converse(struct connection *c, struct agent_channel *ch)
{
	char *line;
	size_t len;
	int r;

	do {
		r = agent_channel_line(ch, vol_now_ms() + IDLE_MS, &line, &len);
		if (r == -EMSGSIZE)
			(void)!refuse(ch, r);
		if (!r)
			r = answer(c, ch, line, len);
	} while (!r && !vol_interrupted());
}

static void *serve(void *arg)
{
	struct connection *c = arg, **at;
	struct agent_channel *ch = NULL;
	uint8_t key[AGENT_KEY];
	int r = agent_key_read(c->agent->key, key); /* each time: it may be changed while this runs */

	if (!r)
		r = agent_channel_accept(c->fd, key, vol_now_ms() + AGENT_BEGUN_MS, &ch);
	explicit_bzero(key, sizeof(key));
	if (r)
		vol_log(VOL_LOG_WARN, "a connection is refused: %s", vol_error(NULL));
	pthread_mutex_lock(&lock);
	c->known = !r;
	pthread_mutex_unlock(&lock);
	if (!r)
		converse(c, ch);
	pthread_mutex_lock(&lock);
	for (at = &list; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	pthread_mutex_unlock(&lock);
	/* Now that nobody shuts it down any more its number may be another's. */
	agent_channel_close(ch);
	close(c->fd);
	free(c);
	pthread_mutex_lock(&lock);
	connections--;
	pthread_cond_signal(&fewer);
	pthread_mutex_unlock(&lock);
	return NULL;
}

/* ---- all ------------------------------------------------------------------------ */

/* G1.  Whether there is room for one more. */
static bool make_room(void)
{
	struct connection *oldest = NULL;

	if (connections < CONNECTIONS_MAX)
		return true;
	for (struct connection *c = list; c; c = c->next)
		if (!c->known)
			oldest = c;
	if (oldest) {
		shutdown(oldest->fd, SHUT_RDWR);
		oldest->known = true; /* its turn is over */
	}
	return oldest && connections < 2 * CONNECTIONS_MAX;
}

static void take(const struct agent *a, int fd)
{
	struct connection *c = calloc(1, sizeof(*c));
	pthread_attr_t at;
	pthread_t t;
	bool fits;

	pthread_mutex_lock(&lock);
	fits = c && make_room();
	if (fits) {
		*c = (struct connection){ .next = list, .agent = a, .fd = fd };
		list = c;
		connections++;
		pthread_attr_init(&at);
		pthread_attr_setdetachstate(&at, PTHREAD_CREATE_DETACHED);
		if (pthread_create(&t, &at, serve, c)) {
			list = c->next;
			connections--;
			fits = false;
		}
		pthread_attr_destroy(&at);
	}
	pthread_mutex_unlock(&lock);
	if (!fits) {
		close(fd);
		free(c);
	}
}

/* Whether all have ended. */
static bool end_all(int64_t deadline)
{
	bool all;

	pthread_mutex_lock(&lock);
	for (struct connection *c = list; c; c = c->next)
		shutdown(c->fd, SHUT_RDWR);
	while (connections && vol_now_ms() < deadline) {
		struct timespec t;

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec++;
		pthread_cond_timedwait(&fewer, &lock, &t);
	}
	all = !connections;
	pthread_mutex_unlock(&lock);
	return all;
}

static int listen_on(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, ai->ai_protocol), on = 1, off = 0, r;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (ai->ai_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 32)) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* Its descriptor. */
static int open_listener(const struct agent *a)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV }, *ai;
	struct agent_address at;
	int fd = -1, r;

	r = agent_address_parse(a->listen ? a->listen : "::", &at);
	if (r)
		return r;
	r = getaddrinfo(at.host, at.port, &hints, &ai);
	if (r)
		return vol_fail(NULL, -EINVAL, "%s is no address of this machine: %s", at.host, gai_strerror(r));
	fd = listen_on(ai);
	freeaddrinfo(ai);
	if ((fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) && !a->listen && !getaddrinfo("0.0.0.0", at.port, &hints, &ai)) { /* without IPv6 */
		fd = listen_on(ai);
		freeaddrinfo(ai);
	}
	return fd < 0 ? vol_fail(NULL, fd, "cannot listen on %s, port %s: %s", at.host, at.port, vol_strerror(fd)) : fd;
}

static void say_ready(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (!n || n >= sizeof(un.sun_path))
		return;
	memcpy(un.sun_path, path, n);
	if (path[0] == '@')
		un.sun_path[0] = 0;
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	(void)!sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&un, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
	close(fd);
}

int agent_serve(const struct agent *a)
{
	uint8_t key[AGENT_KEY];
	sigset_t ends, before;
	int64_t deadline;
	bool ended;
	int listener, r = agent_key_read(a->key, key);

	explicit_bzero(key, sizeof(key));
	listener = r ? r : open_listener(a);
	if (listener < 0)
		return listener;
	/* Only this thread hears them, and only while it waits. */
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	pthread_sigmask(SIG_BLOCK, &ends, &before);
	signal(SIGPIPE, SIG_IGN);
	r = agent_restore_start(a);
	if (r) {
		close(listener);
		return r;
	}
	say_ready();
	while (!vol_interrupted()) {
		struct pollfd p = { listener, POLLIN, 0 };
		int fd;

		if (ppoll(&p, 1, NULL, &before) <= 0)
			continue;
		fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			take(a, fd);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			vol_nap(100); /* do not spin while there is nothing to take it with */
	}
	close(listener);
	deadline = vol_now_ms() + END_MS;
	ended = end_all(deadline);
	ended &= agent_restore_end(deadline);
	if (!ended) { /* the records tell the next what to go on with */
		fflush(NULL);
		_exit(0);
	}
	return 0;
}
