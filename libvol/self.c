// SPDX-License-Identifier: LGPL-2.1-or-later
/* Who this process is; where its errors and remarks go. */
#include "host.h"

#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "handle.h"

/* ---- errors ------------------------------------------------------------ */

static _Thread_local struct vol_errbuf thread_error;

const char *vol_error(const struct vol_pool *pool)
{
	return pool ? pool->err.text : thread_error.text;
}

int vol_fail(struct vol_pool *pool, int r, const char *fmt, ...)
{
	struct vol_errbuf *e = pool ? &pool->err : &thread_error;
	char text[sizeof(e->text)]; /* an argument may be the old text */
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(e->text, text, sizeof(text));
	return r;
}

int vol_failbuf(struct vol_errbuf *err, int r, const char *fmt, ...)
{
	char text[sizeof(err->text)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	memcpy(err->text, text, sizeof(text));
	return r;
}

int vol_errno(void)
{
	return errno == EACCES ? -EPERM : -errno;
}

const char *vol_strerror(int r)
{
	static const struct { int r; const char *text; } own[] = {
		{ EBADMSG, "metadata is damaged in every copy (checksum)" },
		{ EUCLEAN, "metadata makes no sense" },
		{ EROFS, "the pool is read-only" },
		{ ENOSPC, "no space left in the pool" },
		{ ENODEV, "a member is missing" },
		{ EPROTONOSUPPORT, "made by a later version of vd" },
		{ EIO, "input/output error" },
		{ ENOMEM, "out of memory" },
		{ EINTR, "interrupted" },
		{ EACCES, "it is locked" },
		{ EPERM, "permission denied" },
		{ ENOENT, "does not exist" },
	};

	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		if (own[i].r == -r)
			return own[i].text;
	const char *text = strerrordesc_np(-r);
	return text ? text : "unknown error";
}

/* ---- log --------------------------------------------------------------- */

static void log_stderr(void *arg, enum vol_log_level level, const char *text)
{
	(void)arg;
	if (level <= VOL_LOG_WARN)
		fprintf(stderr, "%s: %s%s\n", program_invocation_short_name, level == VOL_LOG_WARN ? "warning: " : "", text);
}

void vol_log_syslog(void *arg, enum vol_log_level level, const char *text)
{
	static const int priority[] = { LOG_ERR, LOG_WARNING, LOG_INFO };

	(void)arg;
	syslog(LOG_DAEMON | priority[level], "%s", text);
}

static void (*log_fn)(void *, enum vol_log_level, const char *) = log_stderr;
static void *log_arg;

void vol_set_log(void (*fn)(void *, enum vol_log_level, const char *), void *arg)
{
	log_fn = fn ? fn : log_stderr;
	log_arg = arg;
}

void vol_log(enum vol_log_level level, const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_fn(log_arg, level, text);
}

/* ---- interruption ------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

void vol_interrupt(void)
{
	interrupted = 1;
}

bool vol_interrupted(void)
{
	return interrupted;
}

/* ---- directories ------------------------------------------------------- */

static const char *dir_of(const char *variable, const char *fallback)
{
	const char *dir = secure_getenv(variable);

	return dir && *dir ? dir : fallback;
}

const char *vol_config_dir(void)
{
	return dir_of("VD_CONFIG_DIR", "/etc/vd");
}

const char *vol_runtime_dir(void)
{
	return dir_of("VD_RUNTIME_DIR", "/run/vd");
}

int vol_runtime_dir_make(void)
{
	if (mkdir(vol_runtime_dir(), 0700) && errno != EEXIST)
		return vol_errno();
	return 0;
}

/* Who is waited for may be at it for long, or stopped. */
static void say_who_has(int fd, const char *path)
{
	struct stat st;
	pid_t pid = fstat(fd, &st) ? 0 : vol_lock_owner(&st);
	char comm[64];

	/* It may be no more, and have left the lock to a child. */
	if (pid && vol_process(pid, comm, NULL))
		vol_log(VOL_LOG_WARN, "process %d (%s) has %s locked: this waits until it is done", (int)pid, comm, path);
	else
		vol_log(VOL_LOG_WARN, "a process has %s locked: this waits until it is done", path);
}

int vol_runtime_lock_within(const char *what, const char *kind, unsigned seconds, int *out)
{
	int64_t end = vol_now_ms() + seconds * 1000ll;
	char path[512];
	int fd, r = vol_runtime_dir_make();

	if (r)
		return vol_fail(NULL, r, "%s cannot be made: %s", vol_runtime_dir(), vol_strerror(r));
	snprintf(path, sizeof(path), "%s/%s.%s", vol_runtime_dir(), what, kind);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return vol_fail(NULL, -errno, "%s cannot be written: %s", path, vol_strerror(-errno));
	if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK && !seconds)
		say_who_has(fd, path);
	while (flock(fd, seconds ? LOCK_EX | LOCK_NB : LOCK_EX)) {
		if (errno == EINTR && !vol_interrupted())
			continue;
		if (errno == EWOULDBLOCK && vol_now_ms() < end && !vol_interrupted()) {
			vol_nap(10);
			continue;
		}
		if (errno == EWOULDBLOCK && vol_interrupted())
			r = vol_fail(NULL, -EINTR, "interrupted");
		else if (errno == EWOULDBLOCK)
			r = vol_fail(NULL, -EBUSY, "%s is locked: what another command has begun is not done within %u seconds", path, seconds);
		else
			r = vol_fail(NULL, -errno, "%s cannot be locked: %s", path, vol_strerror(-errno));
		close(fd);
		return r;
	}
	*out = fd;
	return 0;
}

int vol_runtime_lock(const char *what, const char *kind, int *out)
{
	return vol_runtime_lock_within(what, kind, 0, out);
}

/* ---- servers that take links ---------------------------------------------- */

unsigned vol_server_timeout(void)
{
	const char *e = getenv("VD_SERVER_TIMEOUT");
	unsigned long s = e ? strtoul(e, NULL, 10) : 0;

	return s && s <= 3600 ? (unsigned)s : 10;
}

void vol_printable(char *to, size_t size, const char *from)
{
	size_t n = 0;

	for (; from[n] && n < size - 1; n++)
		to[n] = (unsigned char)from[n] < 0x20 || from[n] == 0x7f ? ' ' : from[n];
	to[n] = 0;
}

/* ---- time -------------------------------------------------------------- */

void vol_time_text(uint64_t ns, char *buf, size_t size)
{
	time_t t = (time_t)(ns / 1000000000u);
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(buf, size, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buf, size, "?");
}

/* ---- holders ----------------------------------------------------------- */

static char purpose_set[32];

void vol_set_purpose(const char *purpose)
{
	snprintf(purpose_set, sizeof(purpose_set), "%s", purpose);
}

static void read_id(const char *path, uint8_t id[16])
{
	char text[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n > 0) {
		text[n] = 0;
		text[strcspn(text, "\n")] = 0;
		(void)vol_uuid_parse(text, id);
	}
}

static void host_id(uint8_t id[16])
{
	const char *own = secure_getenv("VD_MACHINE_ID");

	memset(id, 0, 16);
	if (!own || vol_uuid_parse(own, id))
		read_id("/etc/machine-id", id);
}

void vol_holder_self(struct vd_disk_holder *who, const char *purpose)
{
	struct timespec now;
	char host[65] = "";

	memset(who, 0, sizeof(*who));
	host_id(who->host);
	read_id("/proc/sys/kernel/random/boot_id", who->boot);
	if (gethostname(host, sizeof(host) - 1))
		strcpy(host, "?");
	snprintf(who->hostname, sizeof(who->hostname), "%.*s", (int)sizeof(who->hostname) - 1, host);
	if (!purpose)
		purpose = purpose_set[0] ? purpose_set : program_invocation_short_name;
	snprintf(who->purpose, sizeof(who->purpose), "%.*s", (int)sizeof(who->purpose) - 1, purpose);
	who->pid = cpu_to_le64((uint64_t)getpid());
	clock_gettime(CLOCK_REALTIME, &now);
	who->since = cpu_to_le64((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
}

bool vol_holder_is_here(const struct vd_disk_holder *who)
{
	struct vd_disk_holder self;

	vol_holder_self(&self, NULL);
	return !memcmp(who->host, self.host, 16);
}

bool vol_holder_stale(const struct vd_disk_holder *who)
{
	struct vd_disk_holder self;

	vol_holder_self(&self, NULL);
	if (memcmp(who->host, self.host, 16))
		return false; /* another host's: not for us to say */
	if (memcmp(who->boot, self.boot, 16))
		return true;
	pid_t pid = (pid_t)le64_to_cpu(who->pid);
	return pid <= 0 || (kill(pid, 0) && errno == ESRCH);
}

/* A fixed field of a disk structure, which need not end in NUL. */
static struct json_object *json_field(const char *field, size_t size)
{
	return json_object_new_string_len(field, (int)strnlen(field, size));
}

struct json_object *vol_holder_to_json(const struct vd_disk_holder *who)
{
	struct json_object *o = json_object_new_object();
	char id[VOL_UUID_TEXT];

	vol_uuid_text(who->host, id);
	json_object_object_add(o, "host", json_object_new_string(id));
	vol_uuid_text(who->boot, id);
	json_object_object_add(o, "boot", json_object_new_string(id));
	json_object_object_add(o, "hostname", json_field(who->hostname, sizeof(who->hostname)));
	json_object_object_add(o, "purpose", json_field(who->purpose, sizeof(who->purpose)));
	json_object_object_add(o, "pid", json_object_new_uint64(le64_to_cpu(who->pid)));
	json_object_object_add(o, "since", json_object_new_uint64(le64_to_cpu(who->since)));
	return o;
}

static const char *member_string(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_string))
		return NULL;
	return json_object_get_string(v);
}

static uint64_t member_number(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_object_get_ex(o, key, &v) || !json_object_is_type(v, json_type_int))
		return 0;
	return json_object_get_uint64(v);
}

int vol_holder_from_json(struct json_object *o, struct vd_disk_holder *who)
{
	struct vd_disk_holder w = { 0 };
	const char *host = member_string(o, "host"), *boot = member_string(o, "boot");
	const char *name = member_string(o, "hostname"), *purpose = member_string(o, "purpose");

	if (!host || !boot || vol_uuid_parse(host, w.host) || vol_uuid_parse(boot, w.boot))
		return -EINVAL;
	snprintf(w.hostname, sizeof(w.hostname), "%s", name ? name : "");
	snprintf(w.purpose, sizeof(w.purpose), "%s", purpose ? purpose : "");
	w.pid = cpu_to_le64(member_number(o, "pid"));
	w.since = cpu_to_le64(member_number(o, "since"));
	*who = w;
	return 0;
}

void vol_holder_text(const struct vd_disk_holder *who, char *buf, size_t size)
{
	char since[32];

	vol_time_text(le64_to_cpu(who->since), since, sizeof(since));
	snprintf(buf, size, "%.*s, pid %llu, on %.*s since %s", (int)sizeof(who->purpose), who->purpose,
		 (unsigned long long)le64_to_cpu(who->pid), (int)sizeof(who->hostname), who->hostname, since);
}

int64_t vol_now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void vol_nap(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

bool vol_process(pid_t pid, char comm[64], uint64_t *began)
{
	char path[64], text[1024], state, *name, *end;
	unsigned long long ticks;
	size_t n;
	FILE *f;

	if (comm)
		comm[0] = 0;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	f = pid > 0 ? fopen(path, "re") : NULL;
	if (!f)
		return false;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = 0;
	/* Between the two the process may have put anything. */
	name = strchr(text, '(');
	end = strrchr(text, ')');
	if (!name || !end)
		return false;
	*end = 0;
	if (comm)
		snprintf(comm, 64, "%s", name + 1);
	if (sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &ticks) != 2)
		return false;
	if (began)
		*began = ticks;
	return state != 'Z' && state != 'X';
}

bool vol_process_wait(int pidfd, unsigned ms)
{
	int64_t end = vol_now_ms() + ms, left;
	int r;

	do {
		left = end - vol_now_ms();
		r = poll(&(struct pollfd){ .fd = pidfd, .events = POLLIN }, 1, left > 0 ? (int)left : 0);
	} while (r < 0 && errno == EINTR);
	return r > 0;
}

bool vol_beside_self(const char *name, char *path, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", path, size);
	char *slash;

	if (n <= 0 || (size_t)n >= size)
		return false;
	path[n] = 0;
	slash = strrchr(path, '/');
	return slash && snprintf(slash + 1, size - (size_t)(slash + 1 - path), "%s", name) < (int)(size - (size_t)(slash + 1 - path));
}

void vol_modprobe(const char *module)
{
	char *argv[] = { "modprobe", "-q", (char *)module, NULL }, dir[128];
	struct utsname u;
	pid_t pid;

	/* A machine without modules, a container: not worth a process. */
	if (geteuid() || uname(&u))
		return;
	snprintf(dir, sizeof(dir), "/lib/modules/%s/modules.dep", u.release);
	if (access(dir, R_OK) || posix_spawnp(&pid, "modprobe", NULL, NULL, argv, environ))
		return;
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}
