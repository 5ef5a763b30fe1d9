// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Block devices of drives: looked for in sysfs, asked for, let go.
 *
 * W1. What tells that a device is there is sysfs; udev's events only say when to look again, and without
 *     any it is looked at twice a second.
 * W2. Only the subsystem, or the virtio-scsi buses, that may have the drive are asked to look.
 * W3. What sysfs says is of the kernel's, and in it are texts of the target's: each is bounded, and
 *     compared; none is used as a name.
 */
#include "agent.h"
#include "../libvol/busy.h"
#include "../libvol/device.h"
#include "../libvol/events.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <libudev.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LOOK_MS 500
#define TOLD_MS 3000
#define REACH_MS 3000
#define NAME_MAX_ 32 /* of a device or controller */

static const char *sysfs(void)
{
	const char *dir = secure_getenv("VD_SYSFS_DIR");

	return dir && *dir ? dir : "/sys";
}

static const char *fabrics(void)
{
	const char *path = secure_getenv("VD_NVME_FABRICS");

	return path && *path ? path : "/dev/nvme-fabrics";
}

__attribute__((format(printf, 2, 3)))
static int open_sys(int how, const char *fmt, ...)
{
	char path[1024], rest[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(rest, sizeof(rest), fmt, ap);
	va_end(ap);
	snprintf(path, sizeof(path), "%.400s/%s", sysfs(), rest);
	return open(path, how | O_CLOEXEC);
}

/* Its bytes, and a NUL; -1: it is not there. */
static ssize_t read_bytes(int fd, char *buf, size_t size)
{
	ssize_t n = fd >= 0 ? read(fd, buf, size - 1) : -1;

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = 0;
	return n;
}

/* One line, "" when it is not there. */
static void read_line(int fd, char *buf, size_t size)
{
	read_bytes(fd, buf, size);
	buf[strcspn(buf, "\n")] = 0;
}

static bool is(int fd, const char *want)
{
	char buf[256];

	read_line(fd, buf, sizeof(buf));
	return !strcmp(buf, want);
}

static int tell(int fd, const char *what)
{
	int r = fd < 0 || write(fd, what, strlen(what)) != (ssize_t)strlen(what) ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

/* Calls fn for each name in a directory of sysfs until it answers other than 0. */
static int each(const char *dir, int (*fn)(const char *name, void *arg), void *arg)
{
	char path[512];
	struct dirent *e;
	int r = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%.400s/%s", sysfs(), dir);
	d = opendir(path);
	while (d && !r && (e = readdir(d)))
		if (e->d_name[0] != '.' && strlen(e->d_name) < NAME_MAX_)
			r = fn(e->d_name, arg);
	if (d)
		closedir(d);
	return r;
}

/* ---- NVMe controllers ------------------------------------------------------------ */

/* address: only one to it; other: only one that is not to it. */
struct controller { const char *nqn, *address, *port; bool other; char name[NAME_MAX_]; bool live; };

static bool is_address(int fd, const char *address, const char *port)
{
	char text[256], want[64];

	read_line(fd, text, sizeof(text));
	snprintf(want, sizeof(want), "traddr=%s,trsvcid=%s", address, port);
	return !strncmp(text, want, strlen(want)) && (!text[strlen(want)] || text[strlen(want)] == ',');
}

/* One over TCP, of that subsystem. */
static int is_controller(const char *name, void *arg)
{
	struct controller *c = arg;

	if (!is(open_sys(O_RDONLY, "class/nvme/%s/subsysnqn", name), c->nqn) ||
	    !is(open_sys(O_RDONLY, "class/nvme/%s/transport", name), "tcp"))
		return 0;
	if (c->address && is_address(open_sys(O_RDONLY, "class/nvme/%s/address", name), c->address, c->port) == c->other)
		return 0;
	snprintf(c->name, sizeof(c->name), "%s", name);
	c->live = is(open_sys(O_RDONLY, "class/nvme/%s/state", name), "live");
	return c->live; /* rather one that is */
}

static bool find_controller(struct controller *c)
{
	c->name[0] = 0;
	each("class/nvme", is_controller, c);
	return c->name[0];
}

/* ---- what a device is -------------------------------------------------------------- */

static bool is_uuid(int fd, const uint8_t uuid[16])
{
	char text[64];
	uint8_t u[16];

	read_line(fd, text, sizeof(text));
	return !vol_uuid_parse(text, u) && !memcmp(u, uuid, 16);
}

/* nqn NULL: of any subsystem of vd's */
static bool is_nvme(const char *name, const char *nqn)
{
	char text[256];

	read_line(open_sys(O_RDONLY, "block/%s/device/subsysnqn", name), text, sizeof(text));
	return (nqn ? !strcmp(text, nqn) : !strncmp(text, AGENT_NQN, strlen(AGENT_NQN))) && !is(open_sys(O_RDONLY, "block/%s/hidden", name), "1");
}

/* The id of page 83h that is this text. */
static bool in_page_83(const uint8_t *page, size_t n, const char *text)
{
	size_t len = strlen(text), at = 4;

	while (at + 4 <= n) {
		size_t size = page[at + 3];

		if ((page[at] & 0xf) == 2 /* ASCII */ && size == len && at + 4 + size <= n && !memcmp(page + at + 4, text, len))
			return true;
		at += 4 + size;
	}
	return false;
}

static bool is_serial(const char *name, const uint8_t uuid[16])
{
	char text[VOL_UUID_TEXT], buf[1024];
	uint8_t *page = (uint8_t *)buf;
	ssize_t n = read_bytes(open_sys(O_RDONLY, "block/%s/device/vpd_pg80", name), buf, sizeof(buf));

	vol_uuid_text(uuid, text);
	if (n >= 4 + (ssize_t)strlen(text) && page[1] == 0x80 && (page[2] << 8 | page[3]) == (int)strlen(text) &&
	    !memcmp(page + 4, text, strlen(text)))
		return true;
	n = read_bytes(open_sys(O_RDONLY, "block/%s/device/vpd_pg83", name), buf, sizeof(buf));
	return n > 4 && page[1] == 0x83 && in_page_83(page, (size_t)n, text);
}

/* Host, channel, target and unit of a SCSI device on a virtio-scsi bus. */
static bool scsi_address(const char *name, char *out, size_t size)
{
	char path[1024], real[PATH_MAX];
	unsigned host, channel, target, unit;
	const char *last;
	int n = 0;

	snprintf(path, sizeof(path), "%.400s/block/%s/device", sysfs(), name);
	if (!realpath(path, real))
		return false;
	last = strrchr(real, '/') + 1;
	if (sscanf(last, "%u:%u:%u:%u%n", &host, &channel, &target, &unit, &n) != 4 || last[n] ||
	    !is(open_sys(O_RDONLY, "class/scsi_host/host%u/proc_name", host), "virtio_scsi"))
		return false;
	snprintf(out, size, "%u:%u:%u:%u", host, channel, target, unit);
	return true;
}

struct wanted { const uint8_t *uuid; const char *nqn, *at, *port; char name[NAME_MAX_], address[64]; };

static bool has_uuid(const char *name, const uint8_t uuid[16])
{
	return is_uuid(open_sys(O_RDONLY, "block/%s/nguid", name), uuid) || is_uuid(open_sys(O_RDONLY, "block/%s/uuid", name), uuid);
}

static int is_wanted(const char *name, void *arg)
{
	struct wanted *w = arg;
	char state[32];

	if (w->nqn[0] ? !is_nvme(name, w->nqn) || !has_uuid(name, w->uuid) :
			!is_serial(name, w->uuid) || !scsi_address(name, w->address, sizeof(w->address)))
		return 0;
	snprintf(w->name, sizeof(w->name), "%s", name);
	if (!w->nqn[0] || !w->at)
		return 1;
	/* Rather one by that address, where each controller has a device of its own; else it is of all controllers. */
	read_line(open_sys(O_RDONLY, "block/%s/device/state", name), state, sizeof(state));
	return !state[0] || is_address(open_sys(O_RDONLY, "block/%s/device/address", name), w->at, w->port);
}

int agent_device_find(const struct agent_drive *d, struct agent_device *out)
{
	struct wanted w = { .uuid = d->uuid, .nqn = d->nqn, .at = d->address[0] ? d->address : NULL, .port = d->port };
	struct controller c = { .nqn = d->nqn }, asked = { .nqn = d->nqn, .address = w.at, .port = d->port };
	char text[64], name[NAME_MAX_];
	struct stat st;
	struct agent_device dev = { .live = true, .asked = true };

	each("block", is_wanted, &w);
	if (!w.name[0])
		return vol_fail(NULL, -ENODEV, "no block device of this server is volume %s", d->uuid_text);
	snprintf(dev.path, sizeof(dev.path), "/dev/%s", w.name);
	for (char *s = dev.path + 5; *s; s++)
		if (*s == '!') /* so sysfs writes it */
			*s = '/';
	read_line(open_sys(O_RDONLY, "block/%s/dev", w.name), text, sizeof(text));
	/* The node may be udev's to make, yet. */
	if (stat(dev.path, &st) || !S_ISBLK(st.st_mode))
		return vol_fail(NULL, -ENODEV, "%s is not there yet", dev.path);
	snprintf(dev.address, sizeof(dev.address), "%u:%u", major(st.st_rdev), minor(st.st_rdev));
	if (strcmp(dev.address, text))
		return vol_fail(NULL, -ENODEV, "%s is another device", dev.path);
	read_line(open_sys(O_RDONLY, "block/%s/size", w.name), text, sizeof(text));
	dev.size = strtoull(text, NULL, 10) * 512;
	dev.readonly = is(open_sys(O_RDONLY, "block/%s/ro", w.name), "1");
	if (d->nvme) {
		dev.live = find_controller(&c) && c.live;
		strcpy(name, w.name);
		dev.asked = find_controller(&asked) && asked.live && is_wanted(name, &w);
		read_line(open_sys(O_RDONLY, "block/%s/nsid", w.name), text, sizeof(text));
		snprintf(dev.address, sizeof(dev.address), "%s nsid %lu", asked.name[0] ? asked.name : c.name[0] ? c.name : "?", strtoul(text, NULL, 10));
	} else {
		snprintf(dev.address, sizeof(dev.address), "%s", w.address);
	}
	*out = dev;
	return 0;
}

struct any { const uint8_t *uuid; char name[NAME_MAX_]; bool nvme; };

static int is_any(const char *name, void *arg)
{
	struct any *a = arg;
	char address[64];

	a->nvme = is_nvme(name, NULL) && has_uuid(name, a->uuid);
	if (!a->nvme && (!is_serial(name, a->uuid) || !scsi_address(name, address, sizeof(address))))
		return 0;
	snprintf(a->name, sizeof(a->name), "%s", name);
	return 1;
}

bool agent_device_any(const uint8_t uuid[16], struct agent_drive *d)
{
	struct any a = { .uuid = uuid };

	if (!each("block", is_any, &a))
		return false;
	*d = (struct agent_drive){ .nvme = a.nvme };
	memcpy(d->uuid, uuid, 16);
	vol_uuid_text(uuid, d->uuid_text);
	snprintf(d->name, sizeof(d->name), "volume %s", d->uuid_text);
	if (a.nvme)
		read_line(open_sys(O_RDONLY, "block/%s/device/subsysnqn", a.name), d->nqn, sizeof(d->nqn));
	return true;
}

/* ---- this machine's name ------------------------------------------------------------- */

static bool read_config(const char *path, char *buf, size_t size)
{
	read_line(open(path, O_RDONLY | O_CLOEXEC), buf, size);
	for (char *s = buf; *s; s++)
		if (!isalnum((unsigned char)*s) && !strchr(".:_-", *s))
			return false;
	return buf[0];
}

/* Of the machine's id, which is not for others to know, as machine-id(5) asks. */
static int derive_id(char id[VOL_UUID_TEXT])
{
	static const char salt[] = "vd NVMe host";
	static const uint8_t none[16];
	struct vd_disk_holder self;
	uint8_t hash[32];

	vol_holder_self(&self, NULL);
	if (!memcmp(self.host, none, 16))
		return vol_fail(NULL, -ENOENT, "this machine has no name for NVMe: neither /etc/nvme/hostnqn nor /etc/machine-id tells one\n"
				"'systemd-machine-id-setup' makes the latter");
	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, self.host, 16, salt, strlen(salt), hash))
		return vol_fail(NULL, -EIO, "HMAC-SHA256 failed");
	hash[6] = (hash[6] & 0x0f) | 0x40;
	hash[8] = (hash[8] & 0x3f) | 0x80;
	vol_uuid_text(hash, id);
	return 0;
}

int agent_host_self(struct agent_host *h)
{
	static const char prefix[] = "nqn.2014-08.org.nvmexpress:uuid:";
	bool named = read_config("/etc/nvme/hostnqn", h->nqn, sizeof(h->nqn));
	uint8_t u[16];
	int r = 0;

	/* One name has one id: the kernel takes no pair of which it knows only one half. */
	if (!read_config("/etc/nvme/hostid", h->id, sizeof(h->id)) || vol_uuid_parse(h->id, u)) {
		if (named && !strncmp(h->nqn, prefix, sizeof(prefix) - 1) && !vol_uuid_parse(h->nqn + sizeof(prefix) - 1, u))
			vol_uuid_text(u, h->id);
		else
			r = derive_id(h->id);
	}
	if (!r && !named)
		snprintf(h->nqn, sizeof(h->nqn), "%s%s", prefix, h->id);
	return r;
}

/* The options that it lists are those of a kernel without it, too. */
bool agent_host_dhchap(void)
{
	static atomic_bool looked, found; /* reading all the kernel's names takes a while, and these stay */
	char options[4096], *line = NULL;
	size_t size = 0;
	FILE *f;

	read_bytes(open(fabrics(), O_RDONLY | O_CLOEXEC), options, sizeof(options));
	if (!strstr(options, "dhchap_secret"))
		return false;
	if (looked)
		return found;
	f = fopen("/proc/kallsyms", "re");
	while (f && !found && getline(&line, &size, f) > 0)
		found = strstr(line, " nvme_auth_init_ctrl");
	free(line);
	if (f)
		fclose(f);
	looked = true;
	return found;
}

/* ---- asking for it ----------------------------------------------------------------------- */

/* The kernel would try for minutes, and could not be told to stop.  The connection stays until it has its own: a target
 * complains of one that has ended when it looks at it. */
static int check_reachable(const struct agent_drive *d, int *out)
{
	struct sockaddr_storage to = { 0 };
	struct sockaddr_in *v4 = (void *)&to;
	struct sockaddr_in6 *v6 = (void *)&to;
	bool four = inet_pton(AF_INET, d->address, &v4->sin_addr) == 1;
	struct pollfd p;
	socklen_t size = sizeof(int);
	int e = 0;

	to.ss_family = four ? AF_INET : AF_INET6;
	if (four)
		v4->sin_port = htons((uint16_t)atoi(d->port));
	else if (inet_pton(AF_INET6, d->address, &v6->sin6_addr) == 1)
		v6->sin6_port = htons((uint16_t)atoi(d->port));
	p = (struct pollfd){ socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), POLLOUT, 0 };
	if (p.fd < 0)
		return vol_fail(NULL, -errno, "no socket: %s", vol_strerror(-errno));
	if (connect(p.fd, (struct sockaddr *)&to, four ? sizeof(*v4) : sizeof(*v6))) {
		e = errno;
		if (e == EINPROGRESS)
			e = poll(&p, 1, REACH_MS) == 1 ? getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &e, &size) ? errno : e : ETIMEDOUT;
	}
	*out = p.fd;
	return e ? vol_fail(NULL, -e, "the NVMe target at %s, port %s, cannot be reached: %s", d->address, d->port, strerrordesc_np(e)) : 0;
}

static int nvme_connect(const struct agent_drive *d, const char *secret)
{
	struct agent_host host;
	char text[1024];
	int fd = -1, reached = -1, r = agent_host_self(&host);
	ssize_t n;

	if (!r)
		r = check_reachable(d, &reached);
	if (!r)
		fd = open(fabrics(), O_RDWR | O_CLOEXEC);
	if (!r && fd < 0)
		r = vol_fail(NULL, -errno, "%s: %s; the kernel needs its module nvme-tcp: 'modprobe nvme-tcp'", fabrics(), strerrordesc_np(errno));
	if (r)
		goto out;
	n = snprintf(text, sizeof(text), "nqn=%s,transport=tcp,traddr=%s,trsvcid=%s,hostnqn=%s,hostid=%s,ctrl_loss_tmo=-1,reconnect_delay=2%s%s",
		     d->nqn, d->address, d->port, host.nqn, host.id, d->dhchap ? ",dhchap_secret=" : "", d->dhchap ? secret : "");
	/* EALREADY: another drive's thread was first. */
	if (n < (ssize_t)sizeof(text) && write(fd, text, (size_t)n) < 0 && errno != EALREADY)
		r = vol_fail(NULL, -errno, "the NVMe target at %s, port %s, does not let this server (%s) have %s: %s\nthe kernel's log tells more",
			     d->address, d->port, host.nqn, d->nqn, strerrordesc_np(errno));
	explicit_bzero(text, sizeof(text));
	close(fd);
out:
	if (reached >= 0)
		close(reached);
	return r;
}

struct scan { unsigned n; int r; };

static int scan_bus(const char *name, void *arg)
{
	struct scan *s = arg;
	int r;

	if (!is(open_sys(O_RDONLY, "class/scsi_host/%s/proc_name", name), "virtio_scsi"))
		return 0;
	r = tell(open_sys(O_WRONLY, "class/scsi_host/%s/scan", name), "- - -");
	s->n++;
	s->r = r ? r : s->r;
	return 0;
}

struct claim { char path[64]; };

static int open_alone(void *arg)
{
	int fd = open(((struct claim *)arg)->path, O_RDONLY | O_CLOEXEC | O_EXCL | O_NONBLOCK), r = fd < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return r;
}

/* No device of the subsystem is in use. */
static int is_in_use(const char *name, void *arg)
{
	char users[512] = "";
	struct claim c;
	int r;

	if (!is_nvme(name, arg))
		return 0;
	snprintf(c.path, sizeof(c.path), "/dev/%s", name);
	r = device_apart(open_alone, &c, sizeof(c), c.path, 1);
	if (r != -EBUSY && r != -ETIMEDOUT)
		return 0;
	busy_otherwise(c.path, users, sizeof(users));
	return vol_fail(NULL, -EBUSY, "%s, a drive of the same host, is in use%s%s: the connection stays", c.path, users[0] ? " by " : "", users);
}

static int delete_controller(const char *name)
{
	int r = tell(open_sys(O_WRONLY, "class/nvme/%s/delete_controller", name), "1");

	return !r || r == -ENOENT ? 0 : vol_fail(NULL, r, "%s cannot be disconnected: %s", name, strerrordesc_np(-r));
}

/* To where the host was, or another was that had the pool: NQN and UUIDs are the pool's.  One in use that does not answer may stay,
 * as the kernel takes the new one for another way to the same drive, where the target has numbered them differently. */
static int leave_others(const struct agent_drive *d, char stays[256])
{
	struct controller c = { .nqn = d->nqn, .address = d->address, .port = d->port, .other = true };
	char address[256];
	int r = 0;

	stays[0] = 0;
	for (unsigned i = 0; !r && i < 64 && find_controller(&c); i++) {
		read_line(open_sys(O_RDONLY, "class/nvme/%s/address", c.name), address, sizeof(address));
		if (!each("block", is_in_use, (void *)d->nqn)) {
			r = delete_controller(c.name);
		} else if (!c.live) {
			strcpy(stays, address);
			break;
		} else {
			r = vol_fail(NULL, -EBUSY, "this server has %s from another host already, or by another address (%s), and uses it\n"
				     "on this server 'vdagent forget %s' gives it up", d->name, address, d->uuid_text);
		}
	}
	return r;
}

/* W2 */
static int ask_for(const struct agent_drive *d, const char *secret)
{
	struct controller c = { .nqn = d->nqn, .address = d->address, .port = d->port };
	struct scan s = { 0 };

	if (d->nvme) {
		if (!find_controller(&c)) {
			char stays[256];
			int r = leave_others(d, stays);

			if (!r)
				r = nvme_connect(d, secret);
			return !r || !stays[0] ? r : vol_fail(NULL, -EBUSY, "%s\nthis server has the drive in use by another address (%s), which does not "
							      "answer: 'vdagent forget %s' gives that up", vol_error(NULL), stays, d->uuid_text);
		}
		(void)!tell(open_sys(O_WRONLY, "class/nvme/%s/rescan_controller", c.name), "1"); /* it may be reconnecting */
		return 0;
	}
	each("class/scsi_host", scan_bus, &s);
	if (!s.n)
		return vol_fail(NULL, -ENODEV, "this machine has no virtio-scsi bus");
	return s.r ? vol_fail(NULL, s.r, "the SCSI bus cannot be scanned: %s", strerrordesc_np(-s.r)) : 0;
}

/* A device that is there and was smaller before. */
static void look_at_size(const struct agent_drive *d, const struct agent_device *dev)
{
	if (!d->nvme)
		(void)!tell(open_sys(O_WRONLY, "block/%s/device/rescan", dev->path + 5), "1");
}

/* 0, or -EAGAIN: to be waited for, the text tells for what. */
static int look(const struct agent_drive *d, bool any_size, struct agent_device *dev)
{
	if (agent_device_find(d, dev))
		return vol_fail(NULL, -EAGAIN, "the drive did not appear on this server: no %s has volume %s", d->nvme ?
				"namespace of the subsystem" : "disk of its virtio-scsi buses", d->uuid_text);
	if (!dev->asked)
		return vol_fail(NULL, -EAGAIN, "%s is there, but its host does not answer at %s, port %s", dev->path, d->address, d->port);
	if (any_size ? !dev->size : dev->size != d->size)
		return vol_fail(NULL, -EAGAIN, "%s has %llu bytes, and not the %llu that the volume has", dev->path,
				(unsigned long long)dev->size, (unsigned long long)d->size);
	return 0;
}

int agent_device_get(const struct agent_drive *d, const char *secret, bool any_size, int64_t deadline, struct agent_device *out)
{
	struct vol_events *events = vol_events_new(); /* before anything can come */
	struct agent_device dev = { 0 };
	/* A VM tells its driver of the disk, and a scan of all addresses can take seconds. */
	int64_t ask = d->nvme ? 0 : vol_now_ms() + TOLD_MS;
	int r;

	while ((r = look(d, any_size, &dev)) && vol_now_ms() < deadline) {
		if (vol_now_ms() >= ask) {
			r = ask_for(d, secret);
			if (dev.path[0])
				look_at_size(d, &dev);
			ask = vol_now_ms() + 4 * LOOK_MS;
			if (r)
				break;
			r = look(d, any_size, &dev);
			if (!r)
				break;
		}
		if (vol_interrupted()) {
			r = vol_fail(NULL, -EINTR, "interrupted");
			break;
		}
		vol_events_wait(events, vol_now_ms() + LOOK_MS < deadline ? vol_now_ms() + LOOK_MS : deadline);
	}
	vol_events_free(events);
	if (!r)
		*out = dev;
	return r == -EAGAIN ? -ETIMEDOUT : r;
}

static bool is_named(const char *name)
{
	struct udev *udev = udev_new();
	struct udev_device *d = udev ? udev_device_new_from_subsystem_sysname(udev, "block", name) : NULL;
	bool named = !d || udev_device_get_is_initialized(d) > 0;

	udev_device_unref(d);
	udev_unref(udev);
	return named;
}

void agent_device_named(const struct agent_device *dev, int64_t deadline)
{
	bool runs = !access("/run/udev/control", F_OK);
	struct vol_events *e = NULL;

	while (runs && !is_named(dev->path + 5) && vol_now_ms() < deadline && !vol_interrupted())
		vol_events_look(&e);
	vol_events_free(e);
}

/* ---- letting it go -------------------------------------------------------------------------- */

int agent_device_drop(const struct agent_drive *d, const struct agent_device *dev)
{
	int r = d->nvme ? 0 : tell(open_sys(O_WRONLY, "block/%s/device/delete", dev->path + 5), "1");

	return r ? vol_fail(NULL, r, "%s cannot be removed: %s", dev->path, strerrordesc_np(-r)) : 0;
}

static int disconnect(const char *nqn, bool used)
{
	struct controller c = { .nqn = nqn };
	int r = used ? 0 : each("block", is_in_use, (void *)nqn);

	for (unsigned i = 0; !r && i < 64 && find_controller(&c); i++)
		r = delete_controller(c.name);
	return r;
}

struct known { const struct agent_drive *list; size_t n; };

static int is_device_of(const char *name, void *arg)
{
	return is_nvme(name, arg);
}

static int leave(void *name)
{
	return delete_controller(name);
}

static int leave_stray(const char *name, void *arg)
{
	const struct known *k = arg;
	char nqn[224], copy[NAME_MAX_];

	read_line(open_sys(O_RDONLY, "class/nvme/%s/subsysnqn", name), nqn, sizeof(nqn));
	if (strncmp(nqn, AGENT_NQN, strlen(AGENT_NQN)) || each("block", is_device_of, nqn))
		return 0;
	for (size_t i = 0; i < k->n; i++)
		if (!strcmp(k->list[i].nqn, nqn))
			return 0;
	/* The kernel goes on with it; but it may be amid a try, which takes long (R5). */
	snprintf(copy, sizeof(copy), "%s", name);
	if (device_apart(leave, copy, sizeof(copy), name, 0))
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	return 0;
}

void agent_device_strays(const struct agent_drive *list, size_t n)
{
	each("class/nvme", leave_stray, &(struct known){ list, n });
}

int agent_device_lose(const struct agent_drive *d)
{
	return d->nvme ? disconnect(d->nqn, true) : 0;
}

int agent_device_gone(const uint8_t uuid[16], const char *nqn, bool let_go, int64_t deadline)
{
	struct vol_events *events = vol_events_new();
	struct wanted w = { .uuid = uuid, .nqn = nqn };
	struct controller c = { .nqn = nqn };
	int64_t ask = 0;
	int r = nqn[0] && let_go ? disconnect(nqn, false) : 0;

	while (!r && each("block", is_wanted, &w)) {
		if (vol_interrupted())
			r = vol_fail(NULL, -EINTR, "interrupted");
		else if (vol_now_ms() >= deadline)
			r = vol_fail(NULL, -ETIMEDOUT, "this server still has the drive, as /dev/%s", w.name);
		else if (nqn[0] && vol_now_ms() >= ask && find_controller(&c)) {
			(void)!tell(open_sys(O_WRONLY, "class/nvme/%s/rescan_controller", c.name), "1");
			ask = vol_now_ms() + 4 * LOOK_MS;
		}
		if (!r)
			vol_events_wait(events, vol_now_ms() + LOOK_MS < deadline ? vol_now_ms() + LOOK_MS : deadline);
	}
	vol_events_free(events);
	return r;
}
