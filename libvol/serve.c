// SPDX-License-Identifier: LGPL-2.1-or-later
/* Finding and starting the server process of a pool. */
#include "serve.h"
#include "dm.h"
#include "find.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 60000
#define LOOK_MS 50
#define PLUGIN_FILE "nbdkit-vd-plugin.so"

extern char **environ;

/* POOL.nbd; of a name that is too long for a socket its beginning, and a hash of all of it.
 * No pool's name has a ~. */
int vol_serve_socket_path(const char *pool, char *buf, size_t size)
{
	uint64_t hash = 0xcbf29ce484222325; /* FNV-1a */
	struct sockaddr_un un;
	int n = snprintf(buf, size, "%s/%s.nbd", vol_runtime_dir(), pool);

	if (n >= (int)sizeof(un.sun_path)) {
		for (const char *p = pool; *p; p++)
			hash = (hash ^ (uint8_t)*p) * 0x100000001b3;
		n = snprintf(buf, size, "%s/%.8s~%016llx.nbd", vol_runtime_dir(), pool, (unsigned long long)hash);
	}
	if (n < 0 || (size_t)n >= size || (size_t)n >= sizeof(un.sun_path))
		return vol_fail(NULL, -ENAMETOOLONG, "%s/%s.nbd is too long for a socket; choose a shorter VD_RUNTIME_DIR",
				vol_runtime_dir(), pool);
	return 0;
}

void vol_serve_log_path(const char *pool, char *buf, size_t size)
{
	snprintf(buf, size, "%s/%s.log", vol_runtime_dir(), pool);
}

/* Looked up, not tried: a server would complain about a client that says nothing. */
bool vol_serve_running(const char *pool)
{
	char path[160], *line = NULL, *at;
	unsigned flags;
	size_t size = 0;
	bool up = false;
	FILE *f;

	if (vol_serve_socket_path(pool, path, sizeof(path)))
		return false;
	f = fopen("/proc/net/unix", "re");
	while (f && !up && getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		at = strchr(line, '/');
		/* Num RefCount Protocol Flags Type St Inode Path; 0x10000: it listens */
		up = at && !strcmp(at, path) && sscanf(line, "%*s %*s %*s %x", &flags) == 1 && flags & 0x10000;
	}
	free(line);
	if (f)
		fclose(f);
	return up;
}

int vol_serve_log_open(const char *pool)
{
	char path[512];
	int fd;

	vol_serve_log_path(pool, path, sizeof(path));
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return vol_fail(NULL, -errno, "%s: cannot be written: %s", path, vol_strerror(-errno));
	if (dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
		close(fd);
		return -EIO;
	}
	if (fd > 2)
		close(fd);
	return 0;
}

uint64_t vol_serve_tail_token(const uint8_t uuid[16])
{
	char pool[VOL_UUID_TEXT], boot[VOL_UUID_TEXT], path[512];
	struct vd_disk_holder self;
	struct statx sx;

	vol_holder_self(&self, NULL);
	vol_uuid_text(uuid, pool);
	vol_uuid_text(self.boot, boot);
	snprintf(path, sizeof(path), "%s/%s.%s.tail", vol_runtime_dir(), pool, boot);
	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &sx))
		return 0;
	/* A file made anew has another inode number (tmpfs never gives one twice),
	 * or at least another time of birth. */
	uint64_t t = sx.stx_mask & STATX_BTIME ?
		(uint64_t)sx.stx_btime.tv_sec * 1000000000ull + sx.stx_btime.tv_nsec : 0;
	return (sx.stx_ino * 0x9e3779b97f4a7c15ull ^ t) | 1;
}

/* $VD_PLUGIN; beside this executable, in a build tree; the place it is installed. */
static int find_plugin(char *path, size_t size)
{
	const char *env = getenv("VD_PLUGIN");

	if (env && *env) {
		snprintf(path, size, "%s", env);
		return access(path, R_OK) ? vol_fail(NULL, -ENOENT, "VD_PLUGIN says %s, which cannot be read", env) : 0;
	}
	if (vol_beside_self(PLUGIN_FILE, path, size) && !access(path, R_OK))
		return 0;
#ifdef VD_PLUGINDIR
	snprintf(path, size, VD_PLUGINDIR "/" PLUGIN_FILE);
	if (!access(path, R_OK))
		return 0;
#endif
	return vol_fail(NULL, -ENOENT, PLUGIN_FILE " is not installed; run 'make install', or say where it is in VD_PLUGIN");
}

/* What the server said since the log was `from` bytes long: its last error. */
static void last_words(const char *pool, off_t from, char *buf, size_t size)
{
	char path[512], *line, *save = NULL, text[4096];
	const char *best = NULL;
	ssize_t n = -1;
	int fd;

	snprintf(buf, size, "see its log");
	vol_serve_log_path(pool, path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = pread(fd, text, sizeof(text) - 1, from);
		close(fd);
	}
	if (n <= 0)
		return;
	text[n] = 0;
	for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		const char *e = strstr(line, "error: ");

		if (e)
			best = e + 7;
	}
	if (best)
		snprintf(buf, size, "%s", best);
}

/* Who makes or removes its socket tells by that; a server whose socket stays is looked at all the same. */
static int watch_sockets(void)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd >= 0)
		(void)!inotify_add_watch(fd, vol_runtime_dir(), IN_MOVED_TO | IN_DELETE);
	return fd;
}

/* Until there was something, that process has ended, or a moment has passed. */
static void wait_sockets(int watch, int process)
{
	struct pollfd p[2] = { { watch, POLLIN, 0 }, { process, POLLIN, 0 } };
	char events[4096];

	if (poll(p, 2, LOOK_MS) > 0 && p[0].revents)
		(void)!read(watch, events, sizeof(events));
}

#define DEVICES_MAX 256

/* Members that only this process was told of: "device=PATH", malloc'd. */
static unsigned named_devices(const uint8_t uuid[16], char *arg[DEVICES_MAX])
{
	struct vol_found *found;
	unsigned k = 0;
	size_t n;

	if (vol_find_members(&found, &n))
		return 0;
	for (size_t i = 0; i < n && k < DEVICES_MAX; i++)
		if (found[i].explicit_path && !found[i].error && !memcmp(found[i].pool, uuid, 16) &&
		    asprintf(&arg[k], "device=%s", found[i].path) > 0)
			k++;
	vol_found_free(found, n);
	return k;
}

/*
 * nbdkit in the foreground, as our child: its end and its words reach us.  It is
 * adopted by init when we end.
 *
 * One thread a connection: nbdkit before 1.34 aborts when a client goes away while
 * several of its requests are being done on one connection, and all other clients
 * with it.  A front has a connection for each of its threads and loses nothing.
 */
static int spawn_server(const char *pool, const uint8_t uuid[16], const char *socket, const char *plugin, bool takeover, pid_t *pid)
{
	char log[512], text[VOL_UUID_TEXT], arg_pool[VOL_UUID_TEXT + 8], arg_socket[192];
	char *argv[DEVICES_MAX + 16] = { "nbdkit", "--foreground", "--threads", "1", "--unix", (char *)socket, (char *)plugin,
					 arg_pool, arg_socket };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t all, none;
	unsigned argc = 9, named;
	int r;

	vol_uuid_text(uuid, text);
	snprintf(arg_pool, sizeof(arg_pool), "pool=%s", text);
	snprintf(arg_socket, sizeof(arg_socket), "socket=%s", socket);
	named = named_devices(uuid, argv + argc);
	if (takeover)
		argv[argc + named] = "takeover=true";
	vol_serve_log_path(pool, log, sizeof(log));
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&fa, 1, log, O_WRONLY | O_APPEND | O_CREAT, 0600);
	posix_spawn_file_actions_adddup2(&fa, 1, 2);
	posix_spawn_file_actions_addclosefrom_np(&fa, 3);
	posix_spawnattr_init(&at);
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_setsigdefault(&at, &all);
	posix_spawnattr_setsigmask(&at, &none);
	posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	r = posix_spawnp(pid, "nbdkit", &fa, &at, argv, environ);
	posix_spawnattr_destroy(&at);
	posix_spawn_file_actions_destroy(&fa);
	while (named)
		free(argv[argc + --named]);
	if (r)
		return vol_fail(NULL, -r, "nbdkit cannot be started (%s); is it installed?", vol_strerror(-r));
	return 0;
}

/* The control socket answers: the pool is open. */
static bool answers(const uint8_t uuid[16])
{
	char text[VOL_UUID_TEXT], file[VOL_UUID_TEXT + 8];
	struct vol_client *c;

	vol_uuid_text(uuid, text);
	snprintf(file, sizeof(file), "%s.ctl", text);
	if (vol_client_connect(file, &c))
		return false;
	vol_client_close(c);
	return true;
}

int vol_serve_lock(const char *pool, int *fd)
{
	return vol_runtime_lock(pool, "start", fd);
}

/* The pool whose server has the name. */
static int served_by_name(const char *pool, uint8_t uuid[16])
{
	char path[512], target[VOL_UUID_TEXT + 8];
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s.ctl", vol_runtime_dir(), pool);
	n = readlink(path, target, sizeof(target) - 1); /* UUID.ctl */
	if (n < VOL_UUID_TEXT)
		return -ENOENT;
	target[VOL_UUID_TEXT - 1] = 0;
	return !vol_uuid_parse(target, uuid) && answers(uuid) ? 0 : -ENOENT;
}

int vol_serve_alone(const char *pool, const uint8_t uuid[16])
{
	char text[VOL_UUID_TEXT];
	uint8_t other[16];
	const char *who;

	if (!served_by_name(pool, other) && memcmp(other, uuid, 16))
		who = "a server";
	else if (!vol_dm_find_pool(pool, other) && memcmp(other, uuid, 16))
		who = "the kernel";
	else
		return 0;
	vol_uuid_text(other, text);
	return vol_fail(NULL, -EBUSY, "another pool called %s is served on this host: %s has %s open\n"
			"their volumes would have the same names; one at a time can be linked", pool, who, text);
}

int vol_serve_start(const char *pool, const uint8_t uuid[16], bool takeover, bool *started)
{
	char socket[160], plugin[4096], path[512], words[1024];
	int r, lock, status, watch = -1, process = -1;
	struct stat st;
	int64_t end;
	off_t log_end = 0;
	mode_t mask;
	pid_t pid;

	if (started)
		*started = false;
	r = vol_serve_socket_path(pool, socket, sizeof(socket));
	if (!r)
		r = vol_serve_lock(pool, &lock);
	if (r)
		return r;
	if (vol_serve_running(pool) && answers(uuid))
		goto out;
	r = vol_serve_alone(pool, uuid);
	if (r)
		goto out;
	r = find_plugin(plugin, sizeof(plugin));
	if (r)
		goto out;
	watch = watch_sockets();
	end = vol_now_ms() + START_TIMEOUT_MS;
	/* One that is ending still has its socket; it closes the pool in order. */
	while (vol_serve_running(pool) && !answers(uuid)) {
		if (vol_now_ms() >= end || vol_interrupted()) {
			r = vol_fail(NULL, -ETIMEDOUT, "the server of pool %s does not answer; see %s/%s.log", pool,
				     vol_runtime_dir(), pool);
			goto out;
		}
		wait_sockets(watch, -1);
	}
	if (vol_serve_running(pool))
		goto out;
	unlink(socket);
	vol_serve_log_path(pool, path, sizeof(path));
	if (!stat(path, &st))
		log_end = st.st_size;
	mask = umask(077);
	r = spawn_server(pool, uuid, socket, plugin, takeover, &pid);
	umask(mask);
	if (r)
		goto out;
	process = pidfd_open(pid, 0);
	for (end = vol_now_ms() + START_TIMEOUT_MS; !answers(uuid);) {
		if (waitpid(pid, &status, WNOHANG)) {
			last_words(pool, log_end, words, sizeof(words));
			r = vol_fail(NULL, -EIO, "the server of pool %s did not start: %s", pool, words);
			goto out;
		}
		if (vol_now_ms() >= end || vol_interrupted()) {
			kill(pid, SIGTERM);
			r = vol_interrupted() ? vol_fail(NULL, -EINTR, "interrupted") :
				vol_fail(NULL, -ETIMEDOUT, "the server of pool %s does not answer; see %s", pool, path);
			goto out;
		}
		wait_sockets(watch, process);
	}
	if (started)
		*started = true;
out:
	if (process >= 0)
		close(process);
	if (watch >= 0)
		close(watch);
	close(lock);
	return r;
}
