// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a request is answered, and drives made again at the start.
 *
 * R1. A drive has a record before anything else is done for it, and until everything is undone: whenever this
 *     process ends, the next finds in the records what to go on with.
 * R2. One thread at a time does something with a drive; what it goes by is the record as it is then.
 * R3. A request that failed leaves what there was before it.
 * R4. Each may be asked again, and then does what is missing.
 */
#include "agent.h"
#include "common.h"
#include "../libvol/busy.h"
#include "../libvol/device.h"
#include "../libvol/present.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define DEVICE_MS 20000  /* until a drive must have appeared, or gone */
#define RESTORE_MS 5000  /* the same where it is tried again */
#define BACKOFF_MS 30000

/* ---- one drive at a time (R2) ------------------------------------------------------ */

static pthread_mutex_t locks[64];
static pthread_once_t locks_made = PTHREAD_ONCE_INIT;

static void make_locks(void)
{
	for (unsigned i = 0; i < 64; i++)
		pthread_mutex_init(&locks[i], NULL);
}

/* Some share one, by chance. */
static pthread_mutex_t *take_drive(const uint8_t uuid[16])
{
	pthread_mutex_t *m = &locks[uuid[15] % 64];

	pthread_once(&locks_made, make_locks);
	pthread_mutex_lock(m);
	return m;
}

/* ---- how it is ---------------------------------------------------------------------- */

static int note_mount(void *arg, const char *dir)
{
	snprintf(arg, 256, "%s", dir);
	return 1;
}

/* Where the device is mounted, or its automount waits; "" nowhere. */
static void find_mount(const struct agent_drive *d, const struct agent_device *dev, char dir[256])
{
	dir[0] = 0;
	if (device_mounts(dev->path, note_mount, dir) == 0 && d->automount && d->dir[0] && busy_is_mount(d->dir, "autofs"))
		snprintf(dir, 256, "%s", d->dir);
}

void agent_drive_state(const struct agent_drive *d, struct json_object *o)
{
	struct agent_device dev;
	char dir[256] = "";
	int r = agent_device_find(d, &dev);

	if (!r)
		find_mount(d, &dev, dir);
	json_set_str(o, "uuid", d->uuid_text);
	json_set_str(o, "name", d->name);
	json_set_str(o, "mode", d->readonly ? "ro" : "rw");
	json_set_u64(o, "size", d->size);
	json_set_str(o, "device", r ? "" : dev.path);
	json_set_str(o, "address", r ? "" : dev.address);
	json_set_str(o, "mount", dir);
	json_set_str(o, "state", r ? "waiting" : !dev.live ? "stalled" : dev.size != d->size ? "size" :
			d->mount && !dir[0] ? "unmounted" : "up");
}

static int status(const struct agent *a, struct json_object *request, struct json_object *out)
{
	struct json_object *drives = json_object_new_array();
	struct agent_drive *list = NULL;
	struct agent_host host;
	struct utsname u;
	size_t n = 0;
	int r = agent_record_list(&list, &n);

	(void)a, (void)request;
	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		agent_drive_state(&list[i], o);
		json_object_array_add(drives, o);
	}
	free(list);
	json_set_str(out, "version", cmd_version());
	json_set_str(out, "host", uname(&u) ? "" : u.nodename);
	json_set(out, "drives", drives);
	if (r)
		return r;
	/* One that only takes drives over virtio needs none. */
	if (agent_host_self(&host))
		host = (struct agent_host){ "", "" };
	json_set_str(out, "hostnqn", host.nqn);
	json_set_str(out, "hostid", host.id);
	json_set_bool(out, "dhchap", agent_host_dhchap());
	return 0;
}

/* ---- making one ---------------------------------------------------------------------- */

static int secret_of(const struct agent *a, const struct agent_drive *d, char secret[AGENT_DHCHAP])
{
	uint8_t key[AGENT_KEY];
	int r;

	secret[0] = 0;
	if (!d->dhchap)
		return 0;
	r = agent_key_read(a->key, key);
	if (!r)
		r = agent_key_dhchap(key, secret);
	explicit_bzero(key, sizeof(key));
	return r;
}

/* Not every target can tell the kernel that nobody may write; then it is told here. */
static int set_readonly(const struct agent_drive *d, const struct agent_device *dev)
{
	int fd, want = d->readonly, is = 0, r = 0;
	char dir[256];

	if (d->readonly == dev->readonly)
		return 0;
	if (device_mounts(dev->path, note_mount, dir))
		return vol_fail(NULL, -EBUSY, "%s is mounted on %s already, %s; unlink it first", dev->path, dir,
				want ? "for writing" : "read-only");
	fd = open(dev->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, BLKROSET, &want) || ioctl(fd, BLKROGET, &is))
		r = vol_fail(NULL, -errno, "%s cannot be made %s: %s", dev->path, want ? "read-only" : "writable", vol_strerror(-errno));
	else if (!is != !want)
		r = vol_fail(NULL, -EROFS, "%s can only be read, although the link is for writing", dev->path);
	if (fd >= 0)
		close(fd);
	return r;
}

/* Its file system is mounted, or `res` says why not.  The directory becomes part of the record: after the next start
 * it is the same, whatever else is mounted by then. */
static int present(const struct agent *a, struct agent_drive *d, const struct agent_device *dev, struct present_result *res)
{
	struct present_spec spec = {
		.device = dev->path, .name = strchr(d->name, '/') + 1, .uuid_text = d->uuid_text, .dir = d->dir, .mkfs = d->mkfs,
		.automount = d->automount, .duplicate = d->duplicate, .readonly = d->readonly,
	};
	char options[512];
	int r;

	*res = (struct present_result){ 0 };
	if (!d->mount)
		return 0;
	/* _netdev: systemd unmounts it while the network is still there. */
	snprintf(options, sizeof(options), "%s%s%s", d->options, d->nvme ? ",_netdev" : "", a->trust_options ? "" : ",nosuid,nodev");
	spec.options = options[0] == ',' ? options + 1 : options;
	r = agent_drive_allowed(a, d);
	if (!r)
		r = present_mount(&spec, res);
	if (r)
		snprintf(res->note, sizeof(res->note), "%s", vol_error(NULL));
	if (!res->mount[0] || (!strcmp(res->mount, d->dir) && !d->mkfs[0]))
		return 0;
	snprintf(d->dir, sizeof(d->dir), "%s", res->mount);
	d->mkfs[0] = 0; /* once */
	return agent_record_put(d);
}

static int make(const struct agent *a, struct agent_drive *d, int64_t deadline, struct agent_device *dev, struct present_result *res)
{
	char secret[AGENT_DHCHAP];
	int r = secret_of(a, d, secret);

	if (!r)
		r = agent_device_get(d, secret, deadline, dev);
	explicit_bzero(secret, sizeof(secret));
	if (!r)
		r = set_readonly(d, dev);
	return r ? r : present(a, d, dev, res);
}

/* No record but that of `uuid`, if it has one, needs the subsystem. */
static int is_last(const char *nqn, const uint8_t uuid[16], bool *last)
{
	struct agent_drive *list;
	size_t n;
	int r = agent_record_list(&list, &n);

	if (r)
		return r;
	*last = true;
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i].nqn, nqn) && memcmp(list[i].uuid, uuid, 16))
			*last = false;
	free(list);
	return 0;
}

/* R3.  The text of what failed stays. */
static void take_back(const struct agent_drive *d, const struct agent_drive *before)
{
	struct vol_errbuf why;
	bool last;

	snprintf(why.text, sizeof(why.text), "%s", vol_error(NULL));
	if (before)
		(void)!agent_record_put(before);
	else if (!agent_record_del(d->uuid) && d->nvme && !is_last(d->nqn, d->uuid, &last) && last)
		(void)!agent_device_gone(d->uuid, d->nqn, true, 0);
	vol_fail(NULL, 0, "%s", why.text);
}

static int link_locked(const struct agent *a, struct agent_drive *d, struct json_object *out)
{
	struct agent_drive before;
	struct agent_device dev;
	struct present_result res;
	struct device_content content;
	bool had;
	int r = agent_record_find(d->uuid, &before);

	if (r && r != -ENOENT)
		return r;
	had = !r;
	if (had && d->mount && !d->dir[0]) /* where it was before */
		snprintf(d->dir, sizeof(d->dir), "%s", before.dir);
	r = agent_record_put(d);
	if (!r)
		r = make(a, d, vol_now_ms() + DEVICE_MS, &dev, &res);
	if (r) {
		take_back(d, had ? &before : NULL);
		return r;
	}
	if (!d->mount && !device_probe(dev.path, &content))
		snprintf(res.type, sizeof(res.type), "%s", content.type);
	json_set_str(out, "device", dev.path);
	json_set_str(out, "address", dev.address);
	json_set_str(out, "mount", res.mount);
	json_set_str(out, "type", res.type);
	json_set_str(out, "note", res.note);
	vol_log(VOL_LOG_INFO, "%s is %s%s%s%s%s", d->name, dev.path, res.mount[0] ? ", mounted on " : "", res.mount, res.note[0] ? ": " : "",
		res.note);
	return 0;
}

static int link_(const struct agent *a, struct json_object *request, struct json_object *out)
{
	struct agent_drive d;
	pthread_mutex_t *m;
	int r = agent_drive_parse(request, &d);

	if (!r)
		r = agent_drive_allowed(a, &d);
	if (r)
		return r;
	m = take_drive(d.uuid);
	r = link_locked(a, &d, out);
	pthread_mutex_unlock(m);
	return r;
}

/* ---- undoing one ----------------------------------------------------------------------- */

#define MOUNTS_MAX 64

struct mounts { char *dir[MOUNTS_MAX]; unsigned n; };

static int add_mount(void *arg, const char *dir)
{
	struct mounts *m = arg;

	if (m->n == MOUNTS_MAX)
		return vol_fail(NULL, -EBUSY, "it is mounted more than %d times", MOUNTS_MAX);
	m->dir[m->n] = strdup(dir);
	return m->dir[m->n++] ? 0 : vol_fail(NULL, -ENOMEM, "out of memory");
}

static int check_unused(const char *dir)
{
	char users[512];

	device_users(dir, users, sizeof(users));
	return users[0] ? vol_fail(NULL, -EBUSY, "%s is in use by %s", dir, users) : 0;
}

/* All of them, or, as far as can be seen before, none. */
static int unmount(const struct agent_device *dev, bool test)
{
	struct mounts m = { .n = 0 };
	int r = device_mounts(dev->path, add_mount, &m);

	for (unsigned i = 0; !r && i < m.n; i++)
		r = check_unused(m.dir[i]);
	for (unsigned i = 0; i < m.n; i++) {
		if (!r && !test)
			r = present_umount(m.dir[i]);
		free(m.dir[i]);
	}
	return r;
}

/* Nobody has it but by a mount that was looked at; what was written to it is with the host. */
static int settle(const struct agent_device *dev)
{
	char users[512] = "";
	int fd, r = 0;

	for (unsigned ms = 0;; ms += 50) { /* udev looks at what was unmounted */
		fd = open(dev->path, O_RDONLY | O_CLOEXEC | O_EXCL);
		r = fd < 0 ? -errno : 0;
		if (r != -EBUSY || ms >= 2000)
			break;
		vol_nap(50);
	}
	if (r == -EBUSY) {
		device_users(dev->path, users, sizeof(users));
		busy_otherwise(dev->path, users, sizeof(users));
		return vol_fail(NULL, r, "%s is in use%s%s", dev->path, users[0] ? " by " : "", users);
	}
	if (r == -ENXIO || r == -ENODEV || r == -ENOENT)
		return 0; /* it went */
	if (r || fsync(fd) || ioctl(fd, BLKFLSBUF, 0))
		r = vol_fail(NULL, r ? r : -errno, "%s: %s", dev->path, vol_strerror(r ? r : -errno));
	if (fd >= 0)
		close(fd);
	return r;
}

/* What no device tells of: an automount that waits, or a mount whose device went. */
static int unmount_rest(const struct agent_drive *d, bool there)
{
	if (!d->dir[0] || !((d->automount && busy_is_mount(d->dir, "autofs")) || (!there && busy_is_dead_mount(d->dir))))
		return 0;
	return present_umount(d->dir);
}

static int unlink_locked(const uint8_t uuid[16], bool test)
{
	struct agent_device dev;
	struct agent_drive d;
	bool there;
	int r = agent_record_find(uuid, &d);

	if (r)
		return r == -ENOENT ? 0 : r;
	there = !agent_device_find(&d, &dev);
	if (there && !dev.live) /* it would hang until the host is there again */
		return vol_fail(NULL, -EIO, "%s cannot be unlinked while its host does not answer it: what was written to %s last is still to be stored there",
				d.name, dev.path);
	if (there)
		r = unmount(&dev, test);
	if (r || test)
		return r;
	r = unmount_rest(&d, there);
	if (!r && there)
		r = settle(&dev);
	if (!r && there)
		r = agent_device_drop(&d, &dev);
	if (!r)
		r = agent_record_del(uuid);
	if (!r)
		vol_log(VOL_LOG_INFO, "%s is unlinked", d.name);
	return r;
}

static int unlink_(const struct agent *a, struct json_object *request, struct json_object *out)
{
	uint8_t uuid[16];
	pthread_mutex_t *m;
	int r = agent_uuid_parse(request, uuid);

	(void)a, (void)out;
	if (r)
		return r;
	m = take_drive(uuid);
	r = unlink_locked(uuid, json_flag(request, "test"));
	pthread_mutex_unlock(m);
	return r;
}

static int gone(const struct agent *a, struct json_object *request, struct json_object *out)
{
	struct agent_drive d;
	uint8_t uuid[16];
	pthread_mutex_t *m;
	bool last = true;
	char nqn[224];
	int r = agent_uuid_parse(request, uuid);

	(void)a, (void)out;
	if (!r)
		r = agent_nqn_parse(request, nqn);
	if (r)
		return r;
	m = take_drive(uuid);
	r = agent_record_find(uuid, &d);
	if (!r)
		r = vol_fail(NULL, -EBUSY, "this server still has %s: it was not unlinked", d.name);
	else if (r == -ENOENT)
		r = nqn[0] ? is_last(nqn, uuid, &last) : 0;
	if (!r)
		r = agent_device_gone(uuid, nqn, last, vol_now_ms() + DEVICE_MS);
	pthread_mutex_unlock(m);
	return r;
}

/* ---- again, at the start ------------------------------------------------------------------ */

struct restored { struct agent_drive drive; const struct agent *agent; pthread_t thread; };

static struct restored *restored;
static size_t nrestored;

/* 0: there is no more to do for it. */
static int restore_one(const struct restored *s)
{
	struct present_result res = { 0 };
	struct agent_device dev;
	struct agent_drive d;
	pthread_mutex_t *m = take_drive(s->drive.uuid);
	int r = agent_record_find(s->drive.uuid, &d);

	if (!r)
		r = make(s->agent, &d, vol_now_ms() + RESTORE_MS, &dev, &res);
	else if (r == -ENOENT)
		r = 0; /* unlinked meanwhile */
	pthread_mutex_unlock(m);
	if (!r && res.note[0])
		vol_log(VOL_LOG_WARN, "%s is %s: %s", d.name, dev.path, res.note);
	return r;
}

/* What keeps a drive away may end in a second, or in a week. */
static void *restore_drive(void *arg)
{
	struct agent_events *events = agent_events_new();
	const struct restored *s = arg;
	int64_t delay = 1000;

	while (!vol_interrupted() && restore_one(s)) {
		if (vol_interrupted())
			break;
		if (delay == 1000)
			vol_log(VOL_LOG_WARN, "%s is not there yet: %s", s->drive.name, vol_error(NULL));
		vol_nap(200); /* events may be many */
		agent_events_wait(events, vol_now_ms() + delay);
		delay = 2 * delay > BACKOFF_MS ? BACKOFF_MS : 2 * delay;
	}
	agent_events_free(events);
	return NULL;
}

int agent_restore_start(const struct agent *a)
{
	struct agent_drive *list;
	size_t n;
	int r = agent_record_list(&list, &n);

	if (r)
		return r;
	restored = calloc(n + 1, sizeof(*restored));
	for (size_t i = 0; restored && i < n && !r; i++) {
		restored[i] = (struct restored){ .drive = list[i], .agent = a };
		r = -pthread_create(&restored[i].thread, NULL, restore_drive, &restored[i]);
		nrestored += !r;
	}
	free(list);
	return restored && !r ? 0 : vol_fail(NULL, -ENOMEM, "out of memory, or of threads");
}

void agent_restore_end(void)
{
	while (nrestored)
		pthread_join(restored[--nrestored].thread, NULL);
	free(restored);
}

/* ---- table ---------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*fn)(const struct agent *a, struct json_object *request, struct json_object *out);
} ops[] = {
	{ "status", status },
	{ "link", link_ },
	{ "unlink", unlink_ },
	{ "gone", gone },
};

struct json_object *agent_answer(const struct agent *a, struct json_object *request)
{
	struct json_object *out = json_object_new_object();
	const char *op = json_str(request, "op");
	size_t i, n = sizeof(ops) / sizeof(ops[0]);
	int r;

	json_set_bool(out, "ok", true);
	for (i = 0; i < n && strcmp(ops[i].name, op); i++)
		;
	r = i < n ? ops[i].fn(a, request, out) :
	    vol_fail(NULL, -EOPNOTSUPP, "this vdagent (%s) knows no request \"%.40s\"", cmd_version(), op);
	if (r) {
		json_object_put(out);
		out = json_object_new_object();
		json_set_bool(out, "ok", false);
		json_set_u64(out, "errno", (uint64_t)-r);
		json_set_str(out, "error", vol_error(NULL));
	}
	return out;
}
