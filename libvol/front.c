// SPDX-License-Identifier: LGPL-2.1-or-later
/* The front of a link: its process, its connections to the server, what to do
 * when they break.  The rules F1 to F5 are in front.h. */
#include "front.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define TIMEOUT_S 300
#define HANDSHAKE_TRIES 100   /* of a server that runs but refuses the export */
#define ZERO_MAX (1u << 30)   /* bytes in one NBD request */

enum state { UP, DOWN, BROKEN };

struct front {
	struct front_spec spec;
	char socket[160];
	void *port;
	uint64_t token;        /* F2 */
	pid_t server;          /* where there is no tail: the only server that will do */
	uint64_t size;         /* atomic */
	uint64_t timeout_ms;

	pthread_mutex_t lock;  /* what follows */
	enum state state;
	uint64_t down_since;   /* ms */
	bool given_up;         /* DOWN for longer than the time limit: said once */
};

struct front_worker {
	struct front *f;
	pthread_t thread;
	struct nbd_handle *nbd; /* NULL: not connected */
	uint64_t size;          /* of the volume as this connection knows it */
	char *buf;
};

/* What a front calls of libnbd.  Loaded by the front alone: with it come some twenty libraries, for which
 * every command would have to wait that has no front. */
#define LIBNBD(X) X(create) X(close) X(set_pread_initialize) X(set_export_name) X(connect_unix) X(get_errno) X(get_error) \
	X(get_size) X(is_read_only) X(aio_get_fd) X(aio_is_ready) X(pread) X(pwrite) X(zero) X(trim) X(flush)
#define POINTER(name) __typeof__(nbd_##name) *name;
static struct { LIBNBD(POINTER) } lib;

static int load_libnbd(void)
{
	void *so = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
	bool all = so;

#define LOAD(name) all = all && (lib.name = (__typeof__(lib.name))dlsym(so, "nbd_" #name));
	LIBNBD(LOAD)
	return all ? 0 : vol_fail(NULL, -ENOENT, "libnbd cannot be loaded: %s", dlerror());
}

uint64_t front_size(const struct front *f)
{
	return __atomic_load_n(&f->size, __ATOMIC_RELAXED);
}

bool front_readonly(const struct front *f)
{
	return f->spec.readonly;
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

__attribute__((format(printf, 2, 3)))
static void say(const struct front *f, const char *fmt, ...)
{
	char text[512], when[32];
	struct timespec t;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	clock_gettime(CLOCK_REALTIME, &t);
	vol_time_text((uint64_t)t.tv_sec * 1000000000u, when, sizeof(when));
	dprintf(2, "%s link %s: %s\n", when, f->spec.title, text);
}

/* ---- connections --------------------------------------------------------- */

static void disconnect(struct front_worker *w)
{
	lib.close(w->nbd);
	w->nbd = NULL;
}

/* The kernel learns of another size where it can take it in.  A worker's connection
 * may be older than another's: only who was asked to look believes a smaller one. */
static void note_size(struct front *f, int64_t size, bool asked)
{
	if (size > 0 && (asked ? (uint64_t)size != front_size(f) : (uint64_t)size > front_size(f))) {
		if (front_size(f))
			say(f, "size is %lld bytes now", (long long)size);
		__atomic_store_n(&f->size, (uint64_t)size, __ATOMIC_RELAXED);
		if (f->port && f->spec.port->resized)
			f->spec.port->resized(f->port);
	}
}

/* F2: whether this server has all that was acknowledged. */
static bool same_memory(struct front *f, struct nbd_handle *nbd)
{
	struct ucred peer = { 0 };
	socklen_t len = sizeof(peer);

	if (vol_serve_tail_token(f->spec.uuid) != f->token)
		return false;
	if (f->token)
		return true;
	if (getsockopt(lib.aio_get_fd(nbd), SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return false;
	if (!f->server)
		f->server = peer.pid;
	return f->server == peer.pid;
}

/* One try. 0; -ECONNREFUSED nobody listens; -EPROTO it will not have us; -ESTALE (F2). */
static int connect_once(struct front_worker *w)
{
	struct front *f = w->f;
	struct nbd_handle *nbd = lib.create();

	if (!nbd)
		return -ENOMEM;
	lib.set_pread_initialize(nbd, false);
	/* One that hangs in the handshake would hang us: it is on this host. */
	if (lib.set_export_name(nbd, f->spec.export) || lib.connect_unix(nbd, f->socket)) {
		int e = lib.get_errno();

		lib.close(nbd);
		return e == ECONNREFUSED || e == ENOENT ? -ECONNREFUSED : -EPROTO;
	}
	if (!f->spec.readonly && !same_memory(f, nbd)) {
		lib.close(nbd);
		return -ESTALE;
	}
	w->nbd = nbd;
	w->size = (uint64_t)lib.get_size(nbd);
	note_size(f, lib.get_size(nbd), false);
	return 0;
}

/* State changes are told once, by the worker that makes them. */
static void set_state(struct front *f, enum state state, const char *why)
{
	pthread_mutex_lock(&f->lock);
	if (f->state != BROKEN && f->state != state) {
		if (state == UP)
			say(f, "the server is back after %llu ms", (unsigned long long)(now_ms() - f->down_since));
		else
			say(f, "%s", why);
		if (state == DOWN)
			f->down_since = now_ms();
		f->given_up = false;
		f->state = state;
	}
	pthread_mutex_unlock(&f->lock);
}

/* Whether to go on trying. */
static bool still_hoping(struct front *f)
{
	bool yes;

	pthread_mutex_lock(&f->lock);
	yes = f->state == UP || (f->state == DOWN && now_ms() - f->down_since < f->timeout_ms);
	if (!yes && f->state == DOWN && !f->given_up) {
		say(f, "no server for %llu s: requests fail until there is one", (unsigned long long)f->timeout_ms / 1000);
		f->given_up = true;
	}
	pthread_mutex_unlock(&f->lock);
	return yes;
}

/* Connects, starting the server if need be (F4). 0 or -EIO.  Who is patient knows no
 * time limit. */
static int connect_again(struct front_worker *w, bool patient)
{
	struct front *f = w->f;
	unsigned delay = 5, refused = 0;
	bool started;
	int r;

	for (;;) {
		if (__atomic_load_n(&f->state, __ATOMIC_RELAXED) == BROKEN)
			return -EIO;
		r = connect_once(w);
		if (!r) {
			set_state(f, UP, NULL);
			return 0;
		}
		if (r == -ESTALE) {
			set_state(f, BROKEN, "the server was started anew without the redo tail: what was not flushed may be lost. "
				  "Every request fails until the volume is linked again");
			return -EIO;
		}
		if (r == -EPROTO && ++refused > HANDSHAKE_TRIES) {
			set_state(f, BROKEN, "the server does not take this link any more. "
				  "Every request fails until the volume is linked again");
			return -EIO;
		}
		if (!still_hoping(f) && !patient)
			return -EIO;
		if (r == -ECONNREFUSED) {
			set_state(f, DOWN, "the server is gone; starting it again");
			if (vol_serve_start(f->spec.pool, f->spec.uuid, false, &started)) {
				say(f, "%s", vol_error(NULL));
				delay = vd_max(delay, 1000u);
			} else if (started) {
				continue;
			}
		}
		vol_nap(delay);
		delay = vd_min(delay * 2, 2000u);
	}
}

/* ---- requests ------------------------------------------------------------ */

static int send_once(struct nbd_handle *nbd, const struct front_request *rq, uint64_t off, uint64_t len)
{
	switch (rq->op) {
	case FRONT_READ:
		return lib.pread(nbd, rq->buf, len, off, 0);
	case FRONT_WRITE:
		return lib.pwrite(nbd, rq->buf, len, off, 0);
	case FRONT_ZERO:
		return lib.zero(nbd, len, off, 0);
	case FRONT_TRIM:
		return lib.trim(nbd, len, off, 0);
	case FRONT_FLUSH:
		return lib.flush(nbd, 0);
	}
	return -1;
}

int front_do(struct front_worker *w, const struct front_request *rq)
{
	uint64_t done = 0, n;
	int e;

	if (rq->op != FRONT_FLUSH && (rq->off > front_size(w->f) || rq->len > front_size(w->f) - rq->off))
		return -EIO;
	if (w->nbd && rq->off + rq->len > w->size)
		disconnect(w); /* NBD tells a size once: this connection is from before a growth */
	do {
		if (!w->nbd && connect_again(w, false))
			return -EIO;
		n = vd_min(rq->len - done, (uint64_t)ZERO_MAX);
		if (!send_once(w->nbd, rq, rq->off + done, n)) {
			done += n;
			continue;
		}
		e = lib.get_errno();
		if (lib.aio_is_ready(w->nbd) == 1 && e != ESHUTDOWN)
			return e ? -e : -EIO; /* F3 */
		disconnect(w); /* F1 */
	} while (done < rq->len);
	return 0;
}

/* ---- the process --------------------------------------------------------- */

static void *worker_main(void *arg)
{
	struct front_worker *w = arg;

	w->f->spec.port->serve(w->f->port, w, w->buf);
	if (w->nbd)
		disconnect(w);
	return NULL;
}

/*
 * Has a connection only to see it break, so that the server is started again at once
 * and not when the kernel next wants something; goes on trying when the workers have
 * given up.  SIGUSR1: a fresh connection knows the size as it is now.
 */
static void *watch_main(void *arg)
{
	struct front_worker *w = arg;
	struct signalfd_siginfo info;
	struct pollfd p[2];
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	p[0] = (struct pollfd){ .fd = signalfd(-1, &set, SFD_CLOEXEC), .events = POLLIN };
	for (;;) {
		if (!w->nbd && connect_again(w, true))
			break; /* broken for good */
		p[1] = (struct pollfd){ .fd = lib.aio_get_fd(w->nbd), .events = POLLIN };
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[1].revents) /* nothing was asked: the server is going */
			disconnect(w);
		if (p[0].revents && read(p[0].fd, &info, sizeof(info)) == sizeof(info)) {
			if (w->nbd)
				disconnect(w);
			if (!connect_once(w))
				note_size(w->f, lib.get_size(w->nbd), true);
		}
	}
	return NULL;
}

static int front_prepare(struct front *f, struct front_worker *w)
{
	unsigned i;
	int r;

	r = load_libnbd();
	if (!r)
		r = vol_serve_socket_path(f->spec.pool, f->socket, sizeof(f->socket));
	if (r)
		return r;
	r = connect_once(&w[0]);
	if (r)
		return vol_fail(NULL, -EIO, "the server refuses the link: %s", lib.get_error());
	if (!f->spec.readonly && lib.is_read_only(w[0].nbd) != 0)
		return vol_fail(NULL, -EROFS, "the server serves it read-only; link it with --readonly");
	for (i = 0; i < FRONT_WORKERS; i++) {
		w[i].buf = mmap(NULL, FRONT_BUF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (w[i].buf == MAP_FAILED)
			return vol_fail(NULL, -ENOMEM, "out of memory");
	}
	return f->spec.port->open(f, f->spec.place, f->spec.sector, &f->port);
}

struct ready { int r; uint64_t size; char text[512]; };

/* Never returns. */
static void front_main(const struct front_spec *spec, int ready_fd)
{
	static struct front_worker w[FRONT_WORKERS + 1];
	static struct front front;
	const char *limit = getenv("VD_LINK_TIMEOUT");
	unsigned i, first = spec->port->run ? 0 : 1;
	struct ready ready = { 0 };
	struct front *f = &front;
	sigset_t usr1;
	pthread_t t;

	f->spec = *spec;
	f->timeout_ms = 1000ull * (limit && atoi(limit) > 0 ? (unsigned)atoi(limit) : TIMEOUT_S);
	pthread_mutex_init(&f->lock, NULL);
	f->token = vol_serve_tail_token(spec->uuid);
	for (i = 0; i <= FRONT_WORKERS; i++)
		w[i].f = f;
	prctl(PR_SET_NAME, "vd-front");
	umask(077);
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	(void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* F5: where permitted */
	ready.r = front_prepare(f, w);
	if (!ready.r) {
		(void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
		for (i = first; i < FRONT_WORKERS && !ready.r; i++)
			ready.r = -pthread_create(&w[i].thread, NULL, worker_main, &w[i]);
		if (!ready.r)
			ready.r = -pthread_create(&t, NULL, watch_main, &w[FRONT_WORKERS]);
		if (ready.r)
			vol_fail(NULL, ready.r, "no threads: %s", vol_strerror(ready.r));
	}
	ready.size = front_size(f);
	snprintf(ready.text, sizeof(ready.text), "%s", ready.r ? vol_error(NULL) : "");
	if (write(ready_fd, &ready, sizeof(ready)) != sizeof(ready) || ready.r)
		_exit(1);
	close(ready_fd);
	if (spec->port->run)
		spec->port->run(f->port);
	else
		worker_main(&w[0]);
	for (i = first; i < FRONT_WORKERS; i++)
		pthread_join(w[i].thread, NULL);
	_exit(0);
}

int front_start(const struct front_spec *spec, pid_t *pid, uint64_t *size)
{
	struct ready ready;
	int p[2];
	pid_t child;
	ssize_t n;

	if (pipe2(p, O_CLOEXEC))
		return vol_fail(NULL, -errno, "no pipe: %s", vol_strerror(-errno));
	fflush(NULL);
	child = fork();
	if (child < 0) {
		close(p[0]);
		close(p[1]);
		return vol_fail(NULL, -errno, "no process: %s", vol_strerror(-errno));
	}
	if (!child) {
		int null = open("/dev/null", O_RDWR);

		/* Nothing of the command's: not its locks, not its terminal. */
		setsid();
		if (chdir("/") || null < 0 || dup2(null, 0) < 0 || vol_serve_log_open(spec->pool) || dup2(p[1], 3) < 0)
			_exit(1);
		syscall(SYS_close_range, 4u, ~0u, 0u);
		front_main(spec, 3);
	}
	close(p[1]);
	do
		n = read(p[0], &ready, sizeof(ready));
	while (n < 0 && errno == EINTR && !vol_interrupted());
	close(p[0]);
	if (n != sizeof(ready)) {
		kill(child, SIGKILL);
		return vol_fail(NULL, -EIO, "the front process died; see %s/%s.log", vol_runtime_dir(), spec->pool);
	}
	if (ready.r)
		return vol_fail(NULL, ready.r, "%s", ready.text);
	*pid = child;
	*size = ready.size;
	return 0;
}
