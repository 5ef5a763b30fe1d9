// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * nbdkit-vd-plugin: the server.  It owns one pool and serves each volume as the
 * export of that name; commands reach it through the pool's control socket.
 *
 * Export names
 *   VOLUME            whoever connects
 *   VOLUME/link=N     the link whose open pointer has id N (a name has no slash)
 *
 * Who may write (section 4 of the brief)
 *   P1. A link writes when its open pointer says read-write.  An opening without
 *       its pointer is refused: the link has been undone.
 *   P2. Any other connection is given a writable export only while no read-write
 *       open pointer and no other client stand in the way; else the export is
 *       read-only.  NBD has no way to ask for reading alone, and one who only
 *       reads (nbdinfo, nbdcopy) need not be turned away.
 *   P3. All connections of one client (process, or address) are one client: the
 *       engine is coherent, and multi-conn is told.
 *   P4. The client's own open pointer is stored before its first change, and
 *       goes with its last connection.  Where another has come first, it loses:
 *       its writes get EPERM.  So there are never two writers, and to look at an
 *       export writes nothing to the pool.
 *   P5. Pointers that a killed server left are its own kind (purpose "nbd
 *       client"), and stale since their process is gone; whoever meets one
 *       removes it.
 *
 * nbdkit forks after the configuration: the pool, its worker and the control
 * socket's threads come to be in after_fork, and end in cleanup, when the last
 * connection is closed.  No request, however bad, ends the process.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "io.h"
#include "json.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define CLIENT_PURPOSE "nbd client"
#define EXPORTS_SHOWN 9999 /* nbdkit refuses to list more */
#define REQUEST_MAX (32u << 20)
#define DYING_MS 20000u /* for the last requests of a client that has died */
#define LOOK_MS 50

static const char *pool_name;
static const char *nbd_socket;
static bool pool_readonly;
static bool takeover;
static unsigned queue_seconds = 60; /* D10: how long a write waits for space, where the policy is to wait */

static struct vol_pool *pool;
static struct vol_server *server;

/* One client with a writable volume (P3). */
struct client {
	struct client *next;
	uint32_t volume;
	char who[64];
	pid_t pid; /* 0: not of this host */
	unsigned connections;
	uint32_t pointer; /* its open pointer, when `stored` */
	bool stored;
	bool lost;        /* P4: another one had it */
};

struct conn {
	struct conn *next;
	struct vol_volume *v;
	pid_t pid;             /* 0: not known */
	struct client *client; /* NULL: read-only, or a link */
	bool may_write;
	char description[160];
};

static pthread_mutex_t clients_lock = PTHREAD_MUTEX_INITIALIZER;
static struct client *clients; /* under clients_lock, as their counts and flags */
static struct conn *conns;     /* under clients_lock */
static unsigned connections;   /* in conns; read without the lock, which is held while pointers are stored */
static pthread_cond_t closed;  /* one of conns was; of CLOCK_MONOTONIC */

/* ---- errors and log ------------------------------------------------------ */

static void log_line(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg;
	if (level <= VOL_LOG_WARN)
		nbdkit_error("%s%s", level == VOL_LOG_WARN ? "warning: " : "", text);
	else
		nbdkit_debug("%s", text);
}

/* NBD knows few errors, and a client must not take damage for a bad request. */
static int answer(int r, const char *what, uint64_t offset, uint32_t count)
{
	int e = -r;

	if (r >= 0)
		return 0;
	switch (e) {
	case EROFS:
	case EACCES:
		e = EPERM;
		break;
	case ERANGE:
		e = EINVAL;
		break;
	case EPERM:
	case ENOSPC:
	case ENOMEM:
	case EINVAL:
	case EOPNOTSUPP:
		break;
	default:
		nbdkit_error("%s of %" PRIu32 " bytes at %" PRIu64 ": %s", what, count, offset, vol_strerror(r));
		e = EIO;
	}
	nbdkit_set_error(e);
	return -1;
}

/* ---- configuration ------------------------------------------------------- */

static int on_config(const char *key, const char *value)
{
	int r;

	if (!strcmp(key, "pool")) {
		pool_name = value;
	} else if (!strcmp(key, "socket")) {
		nbd_socket = value;
	} else if (!strcmp(key, "readonly")) {
		r = nbdkit_parse_bool(value);
		if (r < 0)
			return -1;
		pool_readonly = r;
	} else if (!strcmp(key, "takeover")) {
		r = nbdkit_parse_bool(value);
		if (r < 0)
			return -1;
		takeover = r;
	} else if (!strcmp(key, "queue")) {
		if (nbdkit_parse_unsigned("queue", value, &queue_seconds))
			return -1;
	} else if (!strcmp(key, "device")) {
		if (vol_device_add(value)) {
			nbdkit_error("device=%s: %s", value, vol_error(NULL));
			return -1;
		}
	} else {
		nbdkit_error("unknown parameter '%s'; there are pool, socket, readonly, takeover, queue and device", key);
		return -1;
	}
	return 0;
}

static int on_config_complete(void)
{
	if (!pool_name) {
		nbdkit_error("say which pool to serve: pool=NAME");
		return -1;
	}
	return 0;
}

#define CONFIG_HELP \
	"pool=NAME          (required) The pool to own and serve.\n" \
	"readonly=true      Open the pool for reading only; it may have another owner.\n" \
	"takeover=true      Also when another host's owner record is on it.\n" \
	"queue=SECONDS      How long writes wait for space in a full pool (60), unless its policy is error.\n" \
	"device=PATH        A member to look at besides the devices file.\n" \
	"socket=PATH        The NBD socket, told to those who ask the control socket."

/* ---- life ---------------------------------------------------------------- */

/* Under clients_lock: until a connection has ended, or vol_now_ms() is that much. */
static void wait_closed(int64_t end)
{
	int64_t ms = end - vol_now_ms();
	struct timespec t;

	if (ms <= 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_nsec += ms % 1000 * 1000000;
	t.tv_sec += ms / 1000 + t.tv_nsec / 1000000000;
	t.tv_nsec %= 1000000000;
	(void)pthread_cond_timedwait(&closed, &clients_lock, &t);
}

static unsigned hook_connections(void *arg, unsigned ms)
{
	int64_t end = vol_now_ms() + ms;

	(void)arg;
	if (ms) {
		pthread_mutex_lock(&clients_lock);
		while (connections && vol_now_ms() < end)
			wait_closed(end);
		pthread_mutex_unlock(&clients_lock);
	}
	return __atomic_load_n(&connections, __ATOMIC_SEQ_CST);
}

/* Under clients_lock. */
static bool any_dying(uint32_t volume)
{
	const struct conn *c;

	for (c = conns; c && (vol_volume_id(c->v) != volume || !c->pid || vol_process(c->pid, NULL, NULL)); c = c->next)
		;
	return c;
}

static void hook_reap(void *arg, uint32_t volume)
{
	int64_t end = vol_now_ms() + DYING_MS;

	(void)arg;
	pthread_mutex_lock(&clients_lock);
	while (any_dying(volume) && vol_now_ms() < end)
		wait_closed(end);
	pthread_mutex_unlock(&clients_lock);
}

/* I12: memory must not wait for a write that waits for us.  Where it is not
 * permitted the server still works, as any server on a loop device does. */
static void be_reclaim_safe(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0))
		nbdkit_debug("PR_SET_IO_FLUSHER: %s", strerror(errno));
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		nbdkit_debug("mlockall: %s", strerror(errno));
}

/* nbdkit 1.32 asks for SIGTERM at its parent's death also without
 * --exit-with-parent.  The command or front that started us is not to take us along. */
static void on_load(void)
{
	pthread_condattr_t at;
	char args[4096];
	ssize_t n = -1;
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		n = read(fd, args, sizeof(args));
		close(fd);
	}
	if (n <= 0 || !memmem(args, (size_t)n, "--exit-with-parent", 18))
		prctl(PR_SET_PDEATHSIG, 0);
	pthread_condattr_init(&at);
	pthread_condattr_setclock(&at, CLOCK_MONOTONIC);
	pthread_cond_init(&closed, &at);
	pthread_condattr_destroy(&at);
}

/* A connection of a client, as opposed to what we listen on and to the log. */
static bool is_connection(int fd)
{
	int type = 0, listening = 1;
	socklen_t len = sizeof(int);

	return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) && type == SOCK_STREAM &&
	       !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) && !listening;
}

/*
 * nbdkit waits at its end until every client has gone, and a link's front never
 * goes: it wants the next server.  So when the end has been asked for, nothing more
 * is read from the connections; what has been read is still answered.  A plugin is
 * not told of that moment, so nbdkit's handlers of the signals that mean it are
 * called from ours.
 */
static const int end_signals[] = { SIGTERM, SIGINT, SIGQUIT, SIGHUP };
static struct sigaction end_action[4]; /* nbdkit's */
static int end_pipe[2] = { -1, -1 };
static pthread_t watcher;
static bool watched;

static bool ending; /* atomic */

static void end_asked(void)
{
	int e = errno;

	__atomic_store_n(&ending, true, __ATOMIC_RELAXED);
	if (write(end_pipe[1], "", 1) < 0)
		abort(); /* cannot be: it is written a few times at most */
	errno = e;
}

static void on_end_signal(int sig, siginfo_t *info, void *context)
{
	for (unsigned i = 0; i < 4; i++) {
		if (end_signals[i] != sig)
			continue;
		if (end_action[i].sa_flags & SA_SIGINFO)
			end_action[i].sa_sigaction(sig, info, context);
		else if (end_action[i].sa_handler != SIG_DFL && end_action[i].sa_handler != SIG_IGN)
			end_action[i].sa_handler(sig);
	}
	end_asked();
}

static void hook_stop(void *arg)
{
	(void)arg;
	nbdkit_shutdown();
	end_asked();
}

static void *watch_for_end(void *arg)
{
	struct dirent *e;
	char c;
	DIR *d;

	while (read(end_pipe[0], &c, 1) < 0 && errno == EINTR)
		;
	d = opendir("/proc/self/fd");
	while (d && (e = readdir(d))) {
		int fd = atoi(e->d_name);

		if (fd > 2 && is_connection(fd))
			shutdown(fd, SHUT_RD);
	}
	if (d)
		closedir(d);
	return arg;
}

static int start_watch(void)
{
	struct sigaction sa = { .sa_sigaction = on_end_signal, .sa_flags = SA_SIGINFO | SA_RESTART };

	if (pipe2(end_pipe, O_CLOEXEC))
		return -errno;
	if (pthread_create(&watcher, NULL, watch_for_end, NULL))
		return -EAGAIN;
	watched = true;
	for (unsigned i = 0; i < 4; i++)
		if (!sigaction(end_signals[i], NULL, &end_action[i]))
			sigaction(end_signals[i], &sa, NULL);
	return 0;
}

/* Nothing of ours may run, or be called by a signal, when nbdkit has unloaded us. */
static void stop_watch(void)
{
	if (!watched)
		return;
	for (unsigned i = 0; i < 4; i++)
		sigaction(end_signals[i], &end_action[i], NULL);
	end_asked();
	pthread_join(watcher, NULL);
	watched = false;
}

/* A damaged pool is served as far as it goes; what it has lost is said at once. */
static void say_lost(void)
{
	struct json_object *q = json_object_new_object(), *info, *list;

	json_set_str(q, "op", "pool-info");
	if (!vol_call(pool, q, NULL, NULL, &info)) {
		if (json_get(info, "lost", json_type_array, &list))
			for (size_t i = 0; i < json_object_array_length(list); i++)
				nbdkit_error("pool %s: %s", pool_name, json_str(json_object_array_get_idx(list, i), "text"));
		json_object_put(info);
	}
	json_object_put(q);
}

static int on_after_fork(void)
{
	const struct vol_server_hooks hooks = {
		.nbd_socket = nbd_socket, .connections = hook_connections, .reap = hook_reap, .stop = hook_stop,
	};
	int r;

	vol_set_purpose("nbdkit-vd");
	vol_set_log(log_line, NULL);
	be_reclaim_safe();
	r = vol_pool_open(pool_name, VOL_OFFLINE | (pool_readonly ? VOL_READONLY : 0) | (takeover ? VOL_TAKEOVER : 0), &pool);
	if (r == -EROFS && !pool_readonly) {
		/* Degraded: what is there can still be read and copied away. */
		nbdkit_error("%s; serving it read-only", vol_error(NULL));
		pool_readonly = true;
		r = vol_pool_open(pool_name, VOL_OFFLINE | VOL_READONLY, &pool);
	}
	if (r) {
		nbdkit_error("%s", vol_error(NULL));
		goto no_pool;
	}
	pool_name = vol_pool_name(pool); /* not the UUID, if that was given */
	say_lost();
	r = vol_server_start(pool, &hooks, &server);
	if (r) {
		nbdkit_error("%s", vol_error(NULL));
		goto no_server;
	}
	if (start_watch())
		nbdkit_error("no thread to watch for the end; clients will have to leave first");
	return 0;

no_server:
	r = vol_pool_close(pool);
	if (r)
		nbdkit_error("%s", vol_error(NULL));
	pool = NULL;
no_pool:
	return -1;
}

/* ---- clients (P2 to P5) -------------------------------------------------- */

/* Who is at the other end: a process of this host, whose pid is answered, or an address. */
static pid_t peer_text(char *who, size_t size)
{
	union { struct sockaddr sa; struct sockaddr_in in; struct sockaddr_in6 in6; struct sockaddr_storage ss; } u;
	char ip[INET6_ADDRSTRLEN] = "?", comm[64];
	socklen_t len = sizeof(u);
	int64_t pid;

	memset(&u, 0, sizeof(u));
	if (nbdkit_peer_name(&u.sa, &len)) {
		snprintf(who, size, "unknown");
		return 0;
	}
	if (u.sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &u.in.sin_addr, ip, sizeof(ip));
	} else if (u.sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &u.in6.sin6_addr, ip, sizeof(ip));
	} else if (u.sa.sa_family == AF_UNIX && (pid = nbdkit_peer_pid()) > 0) {
		(void)vol_process((pid_t)pid, comm, NULL);
		snprintf(who, size, "process %" PRId64 " (%.31s)", pid, comm[0] ? comm : "gone");
		return (pid_t)pid;
	}
	snprintf(who, size, "address %s", ip);
	return 0;
}

/* The read-write open pointer of a volume, P5 done: 0, or -ENOENT. */
static int writer_of(uint32_t volume, struct vd_volume_info *info, struct vd_disk_pointer *out)
{
	struct vd_pool *engine = vol_pool_engine(pool);
	int r = vd_volume_info(engine, volume, info);

	if (r)
		return r;
	for (unsigned i = 0; i < info->npointers; i++) {
		struct vd_disk_pointer *p = &info->pointer[i];

		if (!le32_to_cpu(p->mode))
			continue;
		if (!strncmp(p->who.purpose, CLIENT_PURPOSE, sizeof(p->who.purpose)) && vol_holder_stale(&p->who) &&
		    !pool_readonly && !vd_volume_pointer_del(engine, volume, le32_to_cpu(p->link)))
			continue;
		*out = *p;
		return 0;
	}
	return -ENOENT;
}

/* One try of client_join(). -EAGAIN: who is in the way has died, and what it asked
 * for is still being done; it leaves as soon as that is over. */
static int join_once(uint32_t volume, const char *who, pid_t pid, struct client **fresh, struct vd_volume_info *info,
		     struct client **out, char *why, size_t size)
{
	struct vd_disk_pointer p;
	struct client *c;
	char holder[256];
	int r = -EBUSY;

	pthread_mutex_lock(&clients_lock);
	for (c = clients; c && c->volume != volume; c = c->next)
		;
	if (c && strcmp(c->who, who)) {
		snprintf(why, size, "%s has it", c->who);
		r = c->pid && !vol_process(c->pid, NULL, NULL) ? -EAGAIN : -EBUSY;
	} else if (c && c->lost) {
		snprintf(why, size, "it was linked");
	} else if (c) {
		c->connections++;
		*out = c;
		r = 0;
	} else if (!writer_of(volume, info, &p)) {
		vol_holder_text(&p.who, holder, sizeof(holder));
		snprintf(why, size, "%s has it", holder);
	} else {
		c = *fresh;
		*fresh = NULL;
		c->volume = volume;
		c->connections = 1;
		c->pid = pid;
		snprintf(c->who, sizeof(c->who), "%s", who);
		c->next = clients;
		clients = c;
		*out = c;
		r = 0;
	}
	pthread_mutex_unlock(&clients_lock);
	return r;
}

/* A connection that would like to write: its client, new or known; NULL when
 * another is in the way, and then *why says who. */
static struct client *client_join(uint32_t volume, const char *who, pid_t pid, struct vd_volume_info *info, char *why, size_t size)
{
	struct client *c = NULL, *fresh = calloc(1, sizeof(*fresh));
	int64_t end = vol_now_ms() + DYING_MS;
	int r;

	if (!fresh) {
		snprintf(why, size, "out of memory");
		return NULL;
	}
	while ((r = join_once(volume, who, pid, &fresh, info, &c, why, size)) == -EAGAIN && vol_now_ms() < end) {
		pthread_mutex_lock(&clients_lock);
		wait_closed(vol_now_ms() + LOOK_MS); /* it may have been closed just before */
		pthread_mutex_unlock(&clients_lock);
	}
	free(fresh);
	return r ? NULL : c;
}

static void client_leave(struct client *c)
{
	struct client **at;

	pthread_mutex_lock(&clients_lock);
	if (!--c->connections) {
		for (at = &clients; *at != c; at = &(*at)->next)
			;
		*at = c->next;
		if (c->stored && vd_volume_pointer_del(vol_pool_engine(pool), c->volume, c->pointer))
			nbdkit_error("%s: its open pointer could not be removed", c->who);
		free(c);
	}
	pthread_mutex_unlock(&clients_lock);
}

/* P4, before a change. 0, -EPERM, or what storing the pointer gave. */
static int client_store(struct client *c)
{
	struct vd_disk_pointer *p;
	int r = 0;

	if (vd_likely(__atomic_load_n(&c->stored, __ATOMIC_ACQUIRE)))
		return 0;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	pthread_mutex_lock(&clients_lock);
	if (c->lost) {
		r = -EPERM;
	} else if (!c->stored) {
		vol_holder_self(&p->who, CLIENT_PURPOSE);
		p->mode = cpu_to_le32(1);
		snprintf(p->opened_as, sizeof(p->opened_as), "nbd:%s", c->who);
		snprintf(p->server, sizeof(p->server), "local");
		r = vd_volume_pointer_add(vol_pool_engine(pool), c->volume, p, &c->pointer);
		if (r == -EBUSY) {
			nbdkit_error("%s: the volume has another writer by now", c->who);
			c->lost = true;
			r = -EPERM;
		} else if (!r) {
			__atomic_store_n(&c->stored, true, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&clients_lock);
	free(p);
	return r;
}

/* ---- connections --------------------------------------------------------- */

static int on_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	struct vd_volume_info *info = malloc(sizeof(*info));
	char text[128], size[32];
	unsigned shown = 0;
	bool lost = false;
	int r = 0;

	(void)readonly;
	(void)is_tls;
	if (!info) {
		nbdkit_error("out of memory");
		return -1;
	}
	for (uint32_t id = 0; shown < EXPORTS_SHOWN && !vd_volume_next(vol_pool_engine(pool), &id, &lost); id++) {
		if (vd_volume_info(vol_pool_engine(pool), id, info))
			continue; /* damaged, or deleted just now: the others are still there */
		vol_format_size(info->size, 'h', true, size, sizeof(size));
		snprintf(text, sizeof(text), "%s%s", size, info->flags & VD_VOL_READONLY ? ", read-only" : "");
		r = nbdkit_add_export(exports, info->name, text);
		if (r)
			break;
		shown++;
	}
	if (lost)
		vol_log(VOL_LOG_WARN, "pool %s: part of the list of volumes is lost: there may be more than these exports", vol_pool_name(pool));
	free(info);
	return r;
}

/* No volume is meant by an empty name. */
static const char *on_default_export(int readonly, int is_tls)
{
	(void)readonly;
	(void)is_tls;
	return "";
}

/* "VOLUME", "VOLUME/link=N", or "VOLUME/link=N/pool=UUID". */
static int parse_export(const char *text, char name[VOL_NAME_SIZE], uint32_t *link, bool *is_link)
{
	uint8_t want[16], have[16];
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);
	char *end;
	unsigned long id;

	if (!n || n >= VOL_NAME_SIZE)
		return -EINVAL;
	memcpy(name, text, n);
	name[n] = 0;
	*is_link = slash;
	if (!slash)
		return 0;
	if (strncmp(slash, "/link=", 6) || slash[6] < '0' || slash[6] > '9')
		return -EINVAL;
	errno = 0;
	id = strtoul(slash + 6, &end, 10);
	if (errno || id > UINT32_MAX)
		return -EINVAL;
	if (*end) { /* who had a link before this server ran: it may be of another pool called so */
		vol_pool_uuid(pool, have);
		if (strncmp(end, "/pool=", 6) || vol_uuid_parse(end + 6, want) || memcmp(want, have, 16))
			return -EINVAL;
	}
	*link = (uint32_t)id;
	return 0;
}

static const struct vd_disk_pointer *find_pointer(const struct vd_volume_info *info, uint32_t link)
{
	for (unsigned i = 0; i < info->npointers; i++)
		if (le32_to_cpu(info->pointer[i].link) == link)
			return &info->pointer[i];
	return NULL;
}

static void *on_open(int readonly)
{
	const char *export = nbdkit_export_name();
	struct vd_volume_info *info = malloc(sizeof(*info));
	struct conn *c = calloc(1, sizeof(*c));
	char name[VOL_NAME_SIZE], why[384] = "", who[sizeof(c->client->who)];
	const struct vd_disk_pointer *p = NULL;
	uint32_t id, link = 0;
	bool is_link = false;
	int r;

	if (!export || !c || !info) {
		nbdkit_error("out of memory");
		goto fail;
	}
	if (parse_export(export, name, &link, &is_link)) {
		nbdkit_error(*export ? "no export is called '%s'; nbdinfo --list shows them" :
				       "an export must be named (%s): it is the volume's name", *export ? export : pool_name);
		goto fail;
	}
	r = vd_volume_find(vol_pool_engine(pool), name, &id);
	if (!r)
		r = vd_volume_info(vol_pool_engine(pool), id, info);
	if (r) {
		nbdkit_error("volume %s/%s: %s", pool_name, name, vol_strerror(r));
		goto fail;
	}
	if (is_link) {
		p = find_pointer(info, link);
		if (!p) {
			nbdkit_error("volume %s/%s: link %" PRIu32 " has been undone", pool_name, name, link);
			goto fail;
		}
		readonly |= !le32_to_cpu(p->mode);
	}
	readonly |= pool_readonly || info->flags & VD_VOL_READONLY;
	r = vol_volume_open(pool, name, link, readonly, &c->v);
	if (r == -EROFS && !readonly) {
		readonly = true;
		r = vol_volume_open(pool, name, link, readonly, &c->v);
	}
	if (r) {
		nbdkit_error("%s", vol_error(NULL));
		goto fail;
	}
	c->pid = peer_text(who, sizeof(who));
	if (readonly) {
		snprintf(c->description, sizeof(c->description), "read-only");
	} else if (is_link) {
		c->may_write = true; /* P1 */
	} else {
		c->client = client_join(id, who, c->pid, info, why, sizeof(why));
		c->may_write = c->client;
		if (!c->client) {
			nbdkit_debug("volume %s/%s is read-only here: %s", pool_name, name, why);
			snprintf(c->description, sizeof(c->description), "read-only here: %.140s", why);
		}
	}
	pthread_mutex_lock(&clients_lock);
	c->next = conns;
	conns = c;
	__atomic_add_fetch(&connections, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&clients_lock);
	free(info);
	return c;

fail:
	free(info);
	free(c);
	return NULL;
}

static void on_close(void *handle)
{
	struct conn *c = handle, **at;

	if (c->client)
		client_leave(c->client);
	pthread_mutex_lock(&clients_lock);
	for (at = &conns; *at != c; at = &(*at)->next)
		;
	*at = c->next;
	vol_volume_close(c->v); /* under the lock: hook_reap() looks at it, and must find it closed */
	__atomic_sub_fetch(&connections, 1, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&closed);
	pthread_mutex_unlock(&clients_lock);
	free(c);
}

static void on_cleanup(void)
{
	int r;

	if (!pool)
		return;
	stop_watch();
	vol_server_stop(server);
	server = NULL;
	/* nbdkit closes no handle once it has been told to end. */
	while (conns)
		on_close(conns);
	r = vol_pool_close(pool);
	if (r == -EBUSY)
		nbdkit_error("%s", vol_error(pool));
	else if (r)
		nbdkit_error("%s", vol_error(NULL));
	pool = NULL;
}

static const char *on_export_description(void *handle)
{
	struct conn *c = handle;

	return c->description;
}

static int64_t on_get_size(void *handle)
{
	struct conn *c = handle;
	uint64_t size = vol_volume_size(c->v);

	if (size > INT64_MAX) {
		nbdkit_error("a volume of 8 EiB is one byte more than NBD can tell");
		return -1;
	}
	return (int64_t)size;
}

static int on_block_size(void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	(void)handle;
	*minimum = 1; /* so that an image of any length can be copied in; vol_pwrite() does the edges */
	*preferred = VD_BLOCK;
	*maximum = REQUEST_MAX;
	return 0;
}

static int on_can_write(void *handle)
{
	return ((struct conn *)handle)->may_write;
}

static int yes(void *handle)
{
	(void)handle;
	return 1;
}

static int no(void *handle)
{
	(void)handle;
	return 0;
}

static int on_can_fua(void *handle)
{
	(void)handle;
	return NBDKIT_FUA_NATIVE;
}

static int on_can_cache(void *handle)
{
	(void)handle;
	return NBDKIT_CACHE_NATIVE;
}

/* ---- requests ------------------------------------------------------------ */

static int before_change(struct conn *c)
{
	return c->client ? client_store(c->client) : 0;
}

/*
 * D10: whether to try again what met a full pool.  Sleeps until the pool looks
 * different, or so long that it is worth a try anyway, for a try costs a checkpoint
 * and all the writers would make it; one that ends or has waited long enough does
 * not try again.
 */
#define SPACE_LOOK_MS 50u
#define SPACE_TRY_MS 2000u
struct patience { unsigned waited_ms; };

static bool wait_for_space(struct patience *p, int r)
{
	struct vd_pool_info *info;
	uint64_t total = 0, taken = 0, now;
	bool queue, changed = false;

	if (vd_likely(r != -ENOSPC))
		return false;
	info = malloc(sizeof(*info));
	if (!info)
		return false;
	for (unsigned ms = 0;; ms += SPACE_LOOK_MS) {
		vd_pool_info(vol_pool_engine(pool), info);
		queue = !(info->policy.flags & VD_POLICY_ERROR_IF_FULL) && info->mode <= VD_MODE_OUT_OF_SPACE;
		now = info->used_blocks + info->promised_blocks;
		if (ms)
			changed = info->total_blocks != total || now < taken;
		total = info->total_blocks;
		taken = now;
		if (!queue || changed || ms >= SPACE_TRY_MS || p->waited_ms >= queue_seconds * 1000 ||
		    __atomic_load_n(&ending, __ATOMIC_RELAXED))
			break;
		nanosleep(&(struct timespec){ 0, SPACE_LOOK_MS * 1000000 }, NULL);
		p->waited_ms += SPACE_LOOK_MS;
	}
	free(info);
	return queue && p->waited_ms < queue_seconds * 1000 && !__atomic_load_n(&ending, __ATOMIC_RELAXED);
}

static int on_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct conn *c = handle;

	(void)flags;
	return answer(vol_pread(c->v, buf, count, offset), "read", offset, count);
}

static int on_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct conn *c = handle;
	struct patience p = { 0 };
	int r = before_change(c);

	if (!r)
		do
			r = vol_pwrite(c->v, buf, count, offset, flags & NBDKIT_FLAG_FUA ? VOL_IO_FUA : 0);
		while (wait_for_space(&p, r));
	return answer(r, "write", offset, count);
}

static int on_flush(void *handle, uint32_t flags)
{
	struct conn *c = handle;

	(void)flags;
	return answer(vol_flush(c->v), "flush", 0, 0);
}

static int on_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct conn *c = handle;
	int r = before_change(c);

	if (!r)
		r = vol_unmap(c->v, offset, count, flags & NBDKIT_FLAG_FUA ? VOL_IO_FUA : 0);
	return answer(r, "trim", offset, count);
}

/* Whole blocks are freed, which is fast whatever the range.  A client that asked
 * for no hole (MAY_TRIM clear) gets zeros that cost an allocation when it writes:
 * a volume is thin, and no block is promised but by a reservation. */
static int on_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct conn *c = handle;
	struct patience p = { 0 };
	int r = before_change(c);

	if (!r)
		do
			r = vol_zero(c->v, offset, count, (flags & NBDKIT_FLAG_FUA ? VOL_IO_FUA : 0) |
							  (flags & NBDKIT_FLAG_FAST_ZERO ? VOL_IO_FAST_ZERO : 0));
		while (wait_for_space(&p, r));
	return answer(r, "zero", offset, count);
}

struct extents_arg { struct nbdkit_extents *list; bool one; };

/* base:allocation.  A hole and an explicit zero have no storage and read as
 * zeros.  A block of the base image is data to a client: it has contents, and
 * a copy of the export must contain it. */
static int add_extent(void *arg, uint64_t off, uint64_t len, enum vd_ext_kind kind)
{
	struct extents_arg *a = arg;
	bool zeros = kind == VD_HOLE || kind == VD_ZERO;

	if (nbdkit_add_extent(a->list, off, len, zeros ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0))
		return -ENOMEM;
	return a->one; /* 1 ends the walk */
}

static int on_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags, struct nbdkit_extents *extents)
{
	struct conn *c = handle;
	struct extents_arg a = { extents, flags & NBDKIT_FLAG_REQ_ONE };

	return answer(vol_extents(c->v, offset, count, add_extent, &a), "extents", offset, count);
}

static int on_cache(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	struct conn *c = handle;

	(void)flags;
	return answer(vol_cache(c->v, offset, count), "cache", offset, count);
}

static struct nbdkit_plugin plugin = {
	.name = "vd",
	.longname = "virtual drives of a vd pool",
	.version = "1",
	.load = on_load,
	.config = on_config,
	.config_complete = on_config_complete,
	.config_help = CONFIG_HELP,
	.magic_config_key = "pool",
	.after_fork = on_after_fork,
	.cleanup = on_cleanup,
	.list_exports = on_list_exports,
	.default_export = on_default_export,
	.export_description = on_export_description,
	.open = on_open,
	.close = on_close,
	.get_size = on_get_size,
	.block_size = on_block_size,
	.can_write = on_can_write,
	.can_flush = yes,
	.can_fua = on_can_fua,
	.can_trim = yes,
	.can_zero = yes,
	.can_fast_zero = yes,
	.can_extents = yes,
	.can_cache = on_can_cache,
	.can_multi_conn = yes,
	.is_rotational = no,
	.pread = on_pread,
	.pwrite = on_pwrite,
	.flush = on_flush,
	.trim = on_trim,
	.zero = on_zero,
	.extents = on_extents,
	.cache = on_cache,
};

NBDKIT_REGISTER_PLUGIN(plugin)
