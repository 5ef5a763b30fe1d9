// SPDX-License-Identifier: LGPL-2.1-or-later
/* Drives of NVMe/TCP hosts. nvmet.h tells. */
#include "nvmet.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "json.h"

#define CONFIGFS "/sys/kernel/config"
#define PREFIX "nqn.2026-11.org.vd:"
#define PORT_FIRST 30308u /* "vd" */
#define PORTS 256u
#define PATH 1024

static const char *root(void)
{
	const char *e = getenv("VD_NVMET_DIR");

	return e && *e ? e : CONFIGFS "/nvmet";
}

static void nqn_of(const struct link_info *l, char nqn[128])
{
	char pool[VOL_UUID_TEXT], volume[VOL_UUID_TEXT];

	vol_uuid_text(l->uuid, pool);
	vol_uuid_text(l->volume_uuid, volume);
	snprintf(nqn, 128, PREFIX "%s:%s", pool, volume);
}

/* ---- the tree -------------------------------------------------------------- */

__attribute__((format(printf, 2, 3)))
static void path_of(char path[PATH], const char *fmt, ...)
{
	int n = snprintf(path, PATH, "%s/", root());
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path + n, n < PATH ? PATH - (size_t)n : 0, fmt, ap);
	va_end(ap);
}

__attribute__((format(printf, 2, 3)))
static void join_path(char path[PATH], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(path, PATH, fmt, ap);
	va_end(ap);
}

/* An attribute without its newline; "" when it is not there. */
static void get(const char *dir, const char *name, char *buf, size_t size)
{
	char path[PATH];
	ssize_t n = -1;
	int fd;

	join_path(path, "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buf, size - 1);
		close(fd);
	}
	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

static int put(const char *dir, const char *name, const char *value)
{
	char path[PATH];
	size_t n = strlen(value);
	int fd, r = 0;

	join_path(path, "%s/%s", dir, name);
	errno = 0;
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, value, n) != (ssize_t)n)
		r = errno ? -errno : -EIO;
	if (fd >= 0)
		close(fd);
	return r;
}

/* What cannot be changed any more is not written again if it is so already. */
static int set(const char *dir, const char *name, const char *value)
{
	char now[512];
	int r;

	get(dir, name, now, sizeof(now));
	if (!strcmp(now, value))
		return 0;
	r = put(dir, name, value);
	return r ? vol_fail(NULL, r, "%s/%s cannot be set to %s: %s", dir, name, value, vol_strerror(r)) : 0;
}

static int make(const char *path)
{
	return mkdir(path, 0755) && errno != EEXIST ? vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno)) : 0;
}

static int take_away(const char *path)
{
	return rmdir(path) && errno != ENOENT ? vol_fail(NULL, -errno, "%s cannot be removed: %s", path, vol_strerror(-errno)) : 0;
}

static int join(const char *what, const char *path)
{
	return symlink(what, path) && errno != EEXIST ? -errno : 0;
}

static int part(const char *path)
{
	return unlink(path) && errno != ENOENT ? vol_fail(NULL, -errno, "%s cannot be removed: %s", path, vol_strerror(-errno)) : 0;
}

/* Calls fn for each name in a directory, until one does not answer 0. */
static int each(const char *dir, int (*fn)(void *arg, const char *dir, const char *name), void *arg)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int r = 0;

	if (!d && errno != ENOENT)
		return vol_fail(NULL, -errno, "%s cannot be listed: %s", dir, vol_strerror(-errno));
	while (d && !r && (e = readdir(d)))
		if (e->d_name[0] != '.')
			r = fn(arg, dir, e->d_name);
	if (d)
		closedir(d);
	return r;
}

static int is_one(void *arg, const char *dir, const char *name)
{
	(void)arg, (void)dir, (void)name;
	return 1;
}

static bool empty(const char *dir)
{
	return !each(dir, is_one, NULL);
}

static int lock(int *fd)
{
	return vol_runtime_lock("nvmet", "target", fd);
}

/* ---- the kernel's part ------------------------------------------------------- */

int nvmet_ready(void)
{
	char path[PATH];

	path_of(path, "subsystems");
	if (!access(path, F_OK))
		return 0;
	if (!getenv("VD_NVMET_DIR")) {
		vol_modprobe("nvmet-tcp");
		if (access(path, F_OK) && mount("configfs", CONFIGFS, "configfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) && errno != EBUSY)
			return vol_fail(NULL, -errno, CONFIGFS " cannot be mounted: %s", vol_strerror(-errno));
	}
	if (access(path, F_OK))
		return vol_fail(NULL, -ENODEV, "this kernel has no NVMe target: there is no %s\n'modprobe nvmet-tcp' may help", path);
	return 0;
}

/* ---- who may come in ---------------------------------------------------------- */

/* An entry that was made here, and not by somebody else (N1); the runtime directory is emptied when the tree is, at boot. */
static void host_mark(const struct server *s, char path[PATH])
{
	join_path(path, "%s/nvmet-%s", vol_runtime_dir(), s->host);
}

static int make_host(const struct server *s, const char *path)
{
	char mark[PATH];
	int fd;

	if (!access(path, F_OK))
		return 0;
	host_mark(s, mark);
	fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return vol_fail(NULL, -errno, "%s cannot be made: %s", mark, vol_strerror(-errno));
	close(fd);
	return make(path);
}

/* It stays as long as somebody lets it in. */
static int drop_host(const struct server *s)
{
	char path[PATH], mark[PATH];

	host_mark(s, mark);
	if (access(mark, F_OK))
		return 0;
	path_of(path, "hosts/%s", s->host);
	if (rmdir(path) && errno != ENOENT)
		return errno == EBUSY || errno == ENOTEMPTY ? 0 :
		       vol_fail(NULL, -errno, "%s cannot be removed: %s", path, vol_strerror(-errno));
	unlink(mark);
	return 0;
}

bool nvmet_authenticates(const struct server *s)
{
	char path[PATH], now[256];

	path_of(path, "hosts/%s", s->host);
	get(path, "dhchap_key", now, sizeof(now));
	explicit_bzero(now + 1, sizeof(now) - 1);
	return now[0];
}

struct hosted { const char *host; bool others; };

static int note_others(void *arg, const char *dir, const char *name)
{
	struct hosted *h = arg;
	char path[PATH];

	join_path(path, "%s/%s/allowed_hosts/%s", dir, name, h->host);
	if (!access(path, F_OK) && strncmp(name, PREFIX, strlen(PREFIX)))
		h->others = true;
	return 0;
}

/* The server's entry, with the secret where both kernels know of such.  That of a server which has subsystems of
 * somebody else's too is theirs (N1). */
static int put_host(struct server *s)
{
	char path[PATH], file[PATH], all[PATH], now[256], secret[AGENT_SECRET];
	struct hosted h = { s->host, false };
	int r;

	path_of(path, "hosts/%s", s->host);
	path_of(all, "subsystems");
	r = make_host(s, path);
	if (r)
		return r;
	join_path(file, "%s/dhchap_key", path);
	if (!s->dhchap && nvmet_authenticates(s)) {
		s->dhchap = s->deaf; /* nobody has said that it cannot any more */
		return s->deaf ? 0 :
		       vol_fail(NULL, -EOPNOTSUPP, "server %s cannot authenticate itself now, and could when it was given other drives: "
				"%s asks it to\nboot a kernel with nvme-tcp's authentication there, or unlink those drives first "
				"(if there are none, 'rmdir %s')", s->name, file, path);
	}
	if (!s->dhchap || access(file, F_OK)) {
		s->dhchap = false;
		return 0;
	}
	r = server_secret(s, secret);
	if (r)
		return r;
	get(path, "dhchap_key", now, sizeof(now));
	if (strcmp(now, secret)) {
		(void)each(all, note_others, &h);
		if (h.others && *now)
			r = vol_fail(NULL, -EEXIST, "%s has another key than the agent of server %s: other subsystems than vd's use it", path, s->name);
		else if (h.others)
			s->dhchap = false;
		/* The kernel has it readable for everybody. */
		else if (chmod(file, 0600))
			r = vol_fail(NULL, -errno, "%s cannot be kept from others: %s", file, vol_strerror(-errno));
		else if ((r = put(path, "dhchap_key", secret)))
			vol_fail(NULL, r, "%s cannot be set: %s", file, vol_strerror(r));
	}
	explicit_bzero(secret, sizeof(secret));
	explicit_bzero(now, sizeof(now));
	return r;
}

/* One that the volume was given to before stays out. */
static int shut_out(void *arg, const char *dir, const char *name)
{
	char path[PATH];

	if (!strcmp(arg, name))
		return 0;
	join_path(path, "%s/%s", dir, name);
	return part(path);
}

static int put_subsystem(const struct server *s, const char *nqn, const char *serial)
{
	char sub[PATH], dir[PATH], host[PATH], path[PATH];
	int r;

	path_of(sub, "subsystems/%s", nqn);
	path_of(host, "hosts/%s", s->host);
	join_path(dir, "%s/allowed_hosts", sub);
	join_path(path, "%s/%s", dir, s->host);
	r = make(sub);
	if (!r)
		r = set(sub, "attr_serial", serial);
	if (!r)
		r = set(sub, "attr_model", "vd");
	if (!r)
		r = set(sub, "attr_allow_any_host", "0");
	if (!r)
		r = each(dir, shut_out, (void *)s->host);
	if (r)
		return r;
	r = join(host, path);
	return r ? vol_fail(NULL, r, "%s cannot be let in: %s", path, vol_strerror(r)) : 0;
}

/* ---- the namespace ------------------------------------------------------------ */

static int drop_namespace(void *arg, const char *dir, const char *name)
{
	char path[PATH], enabled[8];
	int r = 0;

	(void)arg;
	join_path(path, "%s/%s", dir, name);
	get(path, "enable", enabled, sizeof(enabled));
	if (!strcmp(enabled, "1"))
		r = put(path, "enable", "0");
	return r ? vol_fail(NULL, r, "%s cannot be disabled: %s", path, vol_strerror(r)) : take_away(path);
}

bool nvmet_has(const struct link_info *l)
{
	char nqn[128], path[PATH], text[512];

	nqn_of(l, nqn);
	path_of(path, "subsystems/%s/namespaces/1", nqn);
	get(path, "enable", text, sizeof(text));
	if (strcmp(text, "1"))
		return false;
	get(path, "device_path", text, sizeof(text));
	return !strcmp(text, l->device);
}

static int put_namespace(const struct link_info *l, const char *nqn)
{
	char dir[PATH], path[PATH], uuid[VOL_UUID_TEXT];
	int r;

	if (nvmet_has(l))
		return 0;
	path_of(dir, "subsystems/%s/namespaces", nqn);
	path_of(path, "subsystems/%s/namespaces/1", nqn);
	vol_uuid_text(l->volume_uuid, uuid);
	r = each(dir, drop_namespace, NULL);
	if (!r)
		r = make(path);
	if (!r)
		r = set(path, "device_path", l->device);
	if (!r)
		r = set(path, "device_uuid", uuid);
	if (!r)
		r = set(path, "device_nguid", uuid);
	if (r)
		return r;
	r = put(path, "enable", "1");
	return r ? vol_fail(NULL, r, "the NVMe target does not take %s: %s", l->device, vol_strerror(r)) : 0;
}

/* ---- ports --------------------------------------------------------------------- */

struct port { const struct server *s; const char *nqn; char name[64]; bool used[PORTS]; };

static bool is_ours(const char *name, unsigned *n)
{
	unsigned long id = strtoul(name, NULL, 10);

	*n = (unsigned)(id - PORT_FIRST);
	return id >= PORT_FIRST && id < PORT_FIRST + PORTS;
}

static int look_at_port(void *arg, const char *dir, const char *name)
{
	char path[PATH], type[16], address[64], service[16];
	struct port *p = arg;
	unsigned n;

	join_path(path, "%s/%s", dir, name);
	if (is_ours(name, &n))
		p->used[n] = true;
	get(path, "addr_trtype", type, sizeof(type));
	get(path, "addr_traddr", address, sizeof(address));
	get(path, "addr_trsvcid", service, sizeof(service));
	if (!strcmp(type, "tcp") && !strcmp(address, p->s->address) && !strcmp(service, p->s->port))
		snprintf(p->name, sizeof(p->name), "%.63s", name);
	return 0;
}

/* Ours, and of no use: of a subsystem that went, or never given its address. */
static int drop_port(void *arg, const char *dir, const char *name)
{
	char path[PATH], subsystems[PATH];
	unsigned n;

	(void)arg;
	if (!is_ours(name, &n))
		return 0;
	join_path(path, "%s/%s", dir, name);
	join_path(subsystems, "%s/subsystems", path);
	return empty(subsystems) ? take_away(path) : 0;
}

static int make_port(struct port *p, const char *dir)
{
	char path[PATH];
	unsigned n = 0;
	int r;

	while (n < PORTS && p->used[n])
		n++;
	if (n == PORTS)
		return vol_fail(NULL, -ENOSPC, "%u ports of the NVMe target are in use", PORTS);
	snprintf(p->name, sizeof(p->name), "%u", PORT_FIRST + n);
	join_path(path, "%s/%s", dir, p->name);
	r = make(path);
	if (!r)
		r = set(path, "addr_trtype", "tcp");
	if (!r)
		r = set(path, "addr_adrfam", strchr(p->s->address, ':') ? "ipv6" : "ipv4");
	if (!r)
		r = set(path, "addr_traddr", p->s->address);
	return r ? r : set(path, "addr_trsvcid", p->s->port);
}

/* Leaves a port but for `name`. */
static int leave_port(void *arg, const char *dir, const char *name)
{
	const struct port *p = arg;
	char path[PATH];

	if (!strcmp(p->name, name))
		return 0;
	join_path(path, "%s/%s/subsystems/%s", dir, name, p->nqn);
	return part(path);
}

/* It listens as soon as it has a subsystem. */
static int put_port(const struct server *s, const char *nqn)
{
	char dir[PATH], sub[PATH], path[PATH];
	struct port p = { .s = s, .nqn = nqn };
	int r;

	path_of(dir, "ports");
	path_of(sub, "subsystems/%s", nqn);
	r = each(dir, look_at_port, &p);
	if (!r && !p.name[0])
		r = each(dir, drop_port, NULL);
	if (!r && !p.name[0])
		r = make_port(&p, dir);
	if (!r)
		r = each(dir, leave_port, &p);
	if (r)
		return r;
	path_of(path, "ports/%s/subsystems/%s", p.name, nqn);
	r = join(sub, path);
	return r ? vol_fail(NULL, r, "the NVMe target cannot listen on %s, port %s: %s%s", s->address, s->port, vol_strerror(r),
			    r == -EADDRNOTAVAIL ? "; it is no address of this host now" : "") : 0;
}

/* ---- all of it ------------------------------------------------------------------- */

int nvmet_prepare(struct server *s, const struct link_info *l)
{
	char nqn[128], serial[21];
	int fd, r;

	nqn_of(l, nqn);
	for (unsigned i = 0; i < 10; i++)
		sprintf(serial + 2 * i, "%02x", l->volume_uuid[i]);
	r = lock(&fd);
	if (r)
		return r;
	r = put_host(s);
	if (!r)
		r = put_subsystem(s, nqn, serial);
	if (!r)
		r = put_namespace(l, nqn);
	close(fd);
	return r;
}

int nvmet_open(const struct server *s, const struct link_info *l)
{
	char nqn[128];
	int fd, r = lock(&fd);

	if (r)
		return r;
	nqn_of(l, nqn);
	r = put_port(s, nqn);
	close(fd);
	return r;
}

int nvmet_plug(struct server *s, const struct link_info *l)
{
	int r = nvmet_prepare(s, l);

	return r ? r : nvmet_open(s, l); /* N2 */
}

int nvmet_unplug(const struct link_info *l)
{
	char nqn[128], path[PATH];
	int fd, r = lock(&fd);

	if (r)
		return r;
	nqn_of(l, nqn);
	path_of(path, "subsystems/%s/namespaces", nqn);
	r = each(path, drop_namespace, NULL);
	close(fd);
	return r;
}

int nvmet_clear(const struct server *s, const struct link_info *l)
{
	char nqn[128], path[PATH], ports[PATH];
	struct port none = { .nqn = nqn };
	int fd, r = lock(&fd);

	if (r)
		return r;
	nqn_of(l, nqn);
	path_of(ports, "ports");
	r = each(ports, leave_port, &none);
	if (!r)
		r = each(ports, drop_port, NULL);
	path_of(path, "subsystems/%s/allowed_hosts", nqn);
	if (!r)
		r = each(path, shut_out, "");
	path_of(path, "subsystems/%s", nqn);
	if (!r)
		r = take_away(path);
	if (!r)
		r = drop_host(s);
	close(fd);
	return r;
}

int nvmet_resize(const struct link_info *l)
{
	char nqn[128], path[PATH];
	int r;

	nqn_of(l, nqn);
	path_of(path, "subsystems/%s/namespaces/1", nqn);
	r = put(path, "revalidate_size", "1");
	return r ? vol_fail(NULL, r, "%s does not take the new size of %s: %s", path, l->device, vol_strerror(r)) : 0;
}

struct json_object *nvmet_via(const struct server *s, const struct link_info *l)
{
	struct json_object *o = json_object_new_object();
	char nqn[128];

	nqn_of(l, nqn);
	json_set_str(o, "kind", "nvme-tcp");
	json_set_str(o, "nqn", nqn);
	json_set_str(o, "address", s->address);
	json_set_str(o, "port", s->port);
	json_set_bool(o, "dhchap", s->dhchap);
	return o;
}
