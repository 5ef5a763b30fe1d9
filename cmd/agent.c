// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a request is answered, and drives made again at the start.
 *
 * R1. A drive has a record before anything else is done for it, and until everything is undone: whenever this
 *     process ends, the next finds in the records what to go on with.
 * R2. One thread at a time does something with a drive, in the order in which that was asked for, unless who asked has
 *     left; what it goes by is the record as it is then.
 * R3. A request that failed leaves what there was before it.
 * R4. Each may be asked again, and then does what is missing.
 * R5. Nothing is read from a device whose host does not answer, and what may hang all the same has a process of
 *     its own, and so much time: a host that goes away keeps no thread, and no drive of another host.
 */
#include "agent.h"
#include "common.h"
#include "../libvol/busy.h"
#include "../libvol/device.h"
#include "../libvol/events.h"
#include "../libvol/present.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define WAIT_S 10        /* that a drive may be at work for another, where the host does not say how long it waits */
#define WAIT_MAX_S 3600
#define DEVICE_MS 20000  /* until a drive must have appeared, or gone */
#define NAMED_MS 5000    /* for udev, without which the drive is there all the same */
#define SETTLE_MS 2000   /* for udev to be done with it */
#define PATIENCE_MS 25000
#define RESTORE_MS 5000  /* the same where it is tried again */
#define BACKOFF_MS 30000

/* ---- one drive at a time (R2) ------------------------------------------------------ */

/* Requests for drives, as they came: a host that gave up one, and then says what it wants instead, is the last to be heard. */
struct work { struct work *next; const uint8_t *uuid; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static struct work *working;

static bool is_first(const struct work *w)
{
	for (const struct work *before = working; before != w; before = before->next)
		if (!memcmp(before->uuid, w->uuid, 16))
			return false;
	return true;
}

static void leave_drive_locked(const struct work *w)
{
	struct work **at = &working;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	pthread_cond_broadcast(&ended);
}

static void leave_drive(const struct work *w)
{
	pthread_mutex_lock(&lock);
	leave_drive_locked(w);
	pthread_mutex_unlock(&lock);
}

/* What is asked, and who asks: NULL where nobody does. */
struct asked { const struct agent *agent; struct json_object *request; int fd; };

static bool has_left(const struct asked *q)
{
	struct pollfd p = { q ? q->fd : -1, POLLRDHUP, 0 };

	return poll(&p, 1, 0) > 0;
}

static int may_wait(const struct work *w, const struct asked *q, int seconds, int64_t deadline)
{
	if (vol_interrupted())
		return vol_fail(NULL, -EINTR, "this agent ends");
	if (has_left(q)) /* and has called it a failure */
		return vol_fail(NULL, -ENOTCONN, "who asked for it has left");
	if (!is_first(w) && vol_now_ms() >= deadline)
		return vol_fail(NULL, -EBUSY, "another request for this drive is at work on this server, since %d seconds at least; ask again",
				seconds);
	return 0;
}

/* Half of the time that the host waits is for the work itself. */
static int take_drive(struct work *w, const uint8_t uuid[16], const struct asked *q)
{
	uint64_t wait = q ? json_u64(q->request, "wait") : 0;
	int seconds = wait > WAIT_MAX_S ? WAIT_MAX_S / 2 : wait > 1 ? (int)wait / 2 : WAIT_S, r;
	int64_t deadline = vol_now_ms() + (int64_t)seconds * 1000;
	struct work **at = &working;
	char text[VOL_UUID_TEXT];

	*w = (struct work){ NULL, uuid };
	pthread_mutex_lock(&lock);
	while (*at)
		at = &(*at)->next;
	*at = w;
	vol_uuid_text(uuid, text);
	if (!is_first(w))
		vol_log(VOL_LOG_INFO, "a request for drive %s waits for another to be done", text);
	while (!(r = may_wait(w, q, seconds, deadline)) && !is_first(w)) {
		struct timespec t;

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec++;
		pthread_cond_timedwait(&ended, &lock, &t);
	}
	if (r)
		leave_drive_locked(w);
	pthread_mutex_unlock(&lock);
	if (r)
		vol_log(VOL_LOG_INFO, "a request for drive %s was not done: %s", text, vol_error(NULL));
	return r;
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
	json_set_u64(o, "size", r ? d->size : dev.size);
	json_set_str(o, "device", r ? "" : dev.path);
	json_set_str(o, "address", r ? "" : dev.address);
	json_set_str(o, "mount", dir);
	json_set_str(o, "state", r ? "waiting" : !dev.live ? "stalled" : d->mount && !dir[0] ? "unmounted" : "up");
}

/* Who this is, which is small. */
static int hello(const struct asked *q, struct json_object *out)
{
	struct agent_host host;
	struct utsname u;

	(void)q;
	json_set_str(out, "version", cmd_version());
	json_set_str(out, "host", uname(&u) ? "" : u.nodename);
	/* One that only takes drives over virtio needs none. */
	if (agent_host_self(&host))
		host = (struct agent_host){ "", "" };
	json_set_str(out, "hostnqn", host.nqn);
	json_set_str(out, "hostid", host.id);
	json_set_bool(out, "dhchap", agent_host_dhchap());
	return 0;
}

static int status(const struct asked *q, struct json_object *out)
{
	struct json_object *drives = json_object_new_array();
	struct agent_drive *list = NULL;
	size_t n = 0;
	int r = agent_record_list(&list, &n);

	for (size_t i = 0; i < n; i++) {
		struct json_object *o = json_object_new_object();

		agent_drive_state(&list[i], o);
		json_object_array_add(drives, o);
	}
	free(list);
	json_set(out, "drives", drives);
	return r ? r : hello(q, out);
}

/* ---- making one ---------------------------------------------------------------------- */

static int secret_of(const struct agent *a, const struct agent_drive *d, char secret[AGENT_DHCHAP])
{
	secret[0] = 0;
	return d->dhchap ? agent_key_dhchap(a->key, secret) : 0;
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

/* Where it is mounted is part of the record: after the next start it is the same, whatever else is mounted by then.
 * Where somebody has mounted it by hand is not. */
static void note_place(const struct agent *a, struct agent_drive *d, const char *asked, struct present_result *res)
{
	struct agent_drive new = *d;
	char dir[256];

	if (!res->mount[0])
		return;
	if (d->dir[0] ? strcmp(res->mount, asked) : agent_dir_allowed(a, res->mount, dir)) {
		snprintf(res->note, sizeof(res->note), "it was mounted on %.200s already", res->mount);
		return;
	}
	snprintf(new.dir, sizeof(new.dir), "%s", res->mount);
	new.mkfs[0] = 0; /* once */
	if (!strcmp(new.dir, d->dir) && !d->mkfs[0])
		return;
	*d = new;
	if (agent_record_change(d))
		snprintf(res->note, sizeof(res->note), "it is mounted, but that could not be written down: %.180s", vol_error(NULL));
}

/* Its file system is mounted, or `res` says why not, as something is with it. */
static int present(const struct agent *a, struct agent_drive *d, const struct agent_device *dev, struct present_result *res)
{
	char options[512], dir[256];
	struct present_spec spec = {
		.device = dev->path, .name = strchr(d->name, '/') + 1, .uuid_text = d->uuid_text, .base = dir, .mkfs = d->mkfs,
		.automount = d->automount, .duplicate = d->duplicate, .readonly = d->readonly, .strict = !a->trust_options, .bound = true,
	};
	int r;

	*res = (struct present_result){ 0 };
	/* _netdev: systemd unmounts it while the network is still there. */
	snprintf(options, sizeof(options), "%s%s%s", d->options, d->nvme ? ",_netdev" : "", a->trust_options ? "" : ",nosuid,nodev");
	spec.options = options[0] == ',' ? options + 1 : options;
	r = agent_drive_allowed(a, d, dir);
	if (!r && d->dir[0]) {
		spec.dir = dir;
		r = present_clear(dir);
	}
	if (!r)
		r = present_mount(&spec, res);
	if (r) {
		snprintf(res->note, sizeof(res->note), "%s", vol_error(NULL));
		return r;
	}
	note_place(a, d, dir, res);
	return 0;
}

/* The device, and what is to be known of it.  again: its size is what it is now. */
static int make(const struct agent *a, struct agent_drive *d, bool again, int64_t deadline, struct agent_device *dev)
{
	char secret[AGENT_DHCHAP];
	int r = secret_of(a, d, secret);

	if (!r)
		r = agent_device_get(d, secret, again, deadline, dev);
	explicit_bzero(secret, sizeof(secret));
	if (!r && d->size != dev->size) {
		d->size = dev->size;
		r = agent_record_change(d);
	}
	return r ? r : set_readonly(d, dev);
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

/* R3.  The text of what failed stays; and R1: what is mounted has a record. */
static void take_back(const struct agent_drive *d, const struct agent_drive *before)
{
	struct agent_device dev;
	struct vol_errbuf why;
	char dir[256] = "";
	bool last;

	snprintf(why.text, sizeof(why.text), "%s", vol_error(NULL));
	if (!agent_device_find(d, &dev))
		find_mount(d, &dev, dir);
	if (before)
		(void)!agent_record_put(before);
	else if (!dir[0] && !agent_record_del(d->uuid) && d->nvme && !is_last(d->nqn, d->uuid, &last) && last)
		(void)!agent_device_gone(d->uuid, d->nqn, true, 0);
	vol_fail(NULL, 0, "%s", why.text);
}

/* What is on it, where it is not mounted as this request wants. */
static void look_at_content(const struct agent_device *dev, struct present_result *res)
{
	struct device_content content;
	char dir[256];

	if (device_mounts(dev->path, note_mount, dir))
		busy_mount_type(dir, res->type, sizeof(res->type));
	else if (!device_probe(dev->path, &content))
		snprintf(res->type, sizeof(res->type), "%s", content.type);
}

/* What a request does not say of the mount stays as it was. */
static void keep_mount(struct agent_drive *d, const struct agent_drive *before)
{
	struct agent_drive new = *before;

	if (d->mount && !d->dir[0])
		snprintf(d->dir, sizeof(d->dir), "%s", before->dir);
	if (d->mount)
		return;
	new.size = d->size;
	new.readonly = d->readonly;
	new.nvme = d->nvme;
	new.dhchap = d->dhchap;
	memcpy(new.name, d->name, sizeof(new.name));
	memcpy(new.nqn, d->nqn, sizeof(new.nqn));
	memcpy(new.address, d->address, sizeof(new.address));
	memcpy(new.port, d->port, sizeof(new.port));
	*d = new;
}

static int link_locked(const struct agent *a, struct agent_drive *d, struct json_object *out)
{
	struct present_result res = { 0 };
	struct agent_drive before;
	struct agent_device dev;
	bool had, mount = d->mount;
	int r = agent_record_find(d->uuid, &before);

	if (r && r != -ENOENT && r != -EBADMSG)
		return r;
	had = !r;
	if (had)
		keep_mount(d, &before);
	r = agent_record_put(d);
	if (!r)
		r = make(a, d, false, vol_now_ms() + DEVICE_MS, &dev);
	if (r) {
		take_back(d, had ? &before : NULL);
		return r;
	}
	/* What cannot be mounted is a drive all the same. */
	if (mount && present(a, d, &dev, &res))
		look_at_content(&dev, &res);
	agent_device_named(&dev, vol_now_ms() + NAMED_MS);
	json_set_str(out, "device", dev.path);
	json_set_str(out, "address", dev.address);
	json_set_str(out, "mount", res.mount);
	json_set_str(out, "type", res.type);
	json_set_str(out, "note", res.note);
	vol_log(VOL_LOG_INFO, "%s is %s%s%s%s%s", d->name, dev.path, res.mount[0] ? ", mounted on " : "", res.mount, res.note[0] ? ": " : "",
		res.note);
	return 0;
}

static int link_(const struct asked *q, struct json_object *out)
{
	struct agent_drive d;
	char dir[256];
	struct work w;
	int r = agent_drive_parse(q->request, &d);

	if (r)
		return r;
	r = agent_drive_allowed(q->agent, &d, dir);
	/* Who has asked for no place gets the drive, and is told. */
	if (r && (d.dir[0] || d.options[0] || r != -EPERM))
		return r;
	r = take_drive(&w, d.uuid, q);
	if (r)
		return r;
	r = link_locked(q->agent, &d, out);
	leave_drive(&w);
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

/* All of them, or, as far as can be seen before, none. */
static int unmount(const struct agent_device *dev, bool test)
{
	struct mounts m = { .n = 0 };
	int r = device_mounts(dev->path, add_mount, &m);

	/* One alone is unmounted, or is not. */
	for (unsigned i = 0; !r && (test || m.n > 1) && i < m.n; i++)
		r = device_unused(m.dir[i]);
	for (unsigned i = 0; i < m.n; i++) {
		if (!r && !test)
			r = present_umount(m.dir[i]);
		free(m.dir[i]);
	}
	return r;
}

struct settled { char path[64]; bool test; };

static int settle_here(void *arg)
{
	const struct settled *s = arg;
	struct vol_events *events = NULL;
	int64_t end = vol_now_ms() + SETTLE_MS;
	int fd, r;

	for (;; vol_events_look(&events)) { /* udev looks at what was unmounted */
		fd = open(s->path, O_RDONLY | O_CLOEXEC | O_EXCL);
		r = fd < 0 ? -errno : 0;
		/* It has the lock while it reads, and what it reads next would fail. */
		if (vol_now_ms() >= end || (r && r != -EBUSY) || (!r && !flock(fd, LOCK_EX | LOCK_NB)))
			break;
		if (!r)
			close(fd);
	}
	vol_events_free(events);
	if (fd >= 0 && !s->test && (fsync(fd) || ioctl(fd, BLKFLSBUF, 0)))
		r = -errno;
	if (fd >= 0)
		close(fd);
	if (r == -ENXIO || r == -ENODEV || r == -ENOENT)
		return 0; /* it went */
	return r ? vol_fail(NULL, r, "%s: %s", s->path, vol_strerror(r)) : 0;
}

/* Nobody has it but by a mount that was looked at; what was written to it is with the host. */
static int settle(const struct agent_device *dev, bool test)
{
	struct settled s = { .test = test };
	char users[512] = "";
	int r;

	snprintf(s.path, sizeof(s.path), "%s", dev->path);
	r = device_apart(settle_here, &s, sizeof(s), s.path, 1);
	if (r == -EBUSY) {
		device_users(dev->path, users, sizeof(users));
		busy_otherwise(dev->path, users, sizeof(users));
		vol_fail(NULL, r, "%s is in use%s%s", dev->path, users[0] ? " by " : "", users);
	}
	return r;
}

/* What no device tells of: an automount that waits, or a mount whose device went. */
static int unmount_rest(const struct agent_drive *d)
{
	if (!d->dir[0])
		return 0;
	if (d->automount && busy_is_mount(d->dir, "autofs"))
		return present_umount(d->dir);
	return present_clear(d->dir);
}

/* The text of what was in the way stays. */
static void mount_again(const struct agent *a, struct agent_drive *d, const struct agent_device *dev)
{
	struct present_result res;
	struct vol_errbuf why;

	snprintf(why.text, sizeof(why.text), "%s", vol_error(NULL));
	if (present(a, d, dev, &res))
		vol_log(VOL_LOG_WARN, "%s is not mounted any more: %s", d->name, vol_error(NULL));
	vol_fail(NULL, 0, "%s", why.text);
}

/* Nothing of this machine has it, or nothing has changed. `record`: it has one that can be read. */
static int let_go(const struct agent *a, struct agent_drive *d, bool record, bool test)
{
	struct agent_device dev;
	char dir[256] = "";
	int r = agent_device_find(d, &dev);

	if (r)
		return test ? 0 : unmount_rest(d);
	if (!dev.live) /* it would hang until the host is there again */
		return vol_fail(NULL, -EIO, "%s cannot be unlinked while its host does not answer it: what was written to %s last is still to be stored there\n"
				"on the server 'vdagent forget %s' gives it up all the same", d->name, dev.path, d->uuid_text);
	(void)!device_mounts(dev.path, note_mount, dir);
	r = unmount(&dev, test);
	if (r || (test && dir[0]))
		return r;
	if (!test)
		r = unmount_rest(d);
	if (!r)
		r = settle(&dev, test);
	if (r && record && d->mount && !test && !strcmp(dir, d->dir))
		mount_again(a, d, &dev);
	return r || test ? r : agent_device_drop(d, &dev);
}

/* Where there is no record of it, it is the drive all the same. */
static int unlink_locked(const struct agent *a, const uint8_t uuid[16], bool test)
{
	struct agent_drive d;
	int r = agent_record_find(uuid, &d);
	bool record = !r;

	if (r && r != -ENOENT && r != -EBADMSG)
		return r;
	r = record || agent_device_any(uuid, &d) ? let_go(a, &d, record, test) : 0;
	if (r || test)
		return r;
	r = agent_record_del(uuid);
	if (!r && record)
		vol_log(VOL_LOG_INFO, "%s was given back", d.name);
	return r;
}

static int unlink_(const struct asked *q, struct json_object *out)
{
	uint8_t uuid[16];
	struct work w;
	int r = agent_uuid_parse(q->request, uuid);

	(void)out;
	if (!r)
		r = take_drive(&w, uuid, q);
	if (r)
		return r;
	r = unlink_locked(q->agent, uuid, json_flag(q->request, "test"));
	leave_drive(&w);
	return r;
}

static int gone_locked(const uint8_t uuid[16], const char *nqn)
{
	struct agent_device dev;
	struct agent_drive d;
	bool last = true;
	int r = agent_record_find(uuid, &d);

	if (!r)
		return vol_fail(NULL, -EBUSY, "this server still has %s: it was not unlinked", d.name);
	if (r != -ENOENT)
		return r;
	r = nqn[0] ? is_last(nqn, uuid, &last) : 0;
	if (!r && agent_device_any(uuid, &d) && !agent_device_find(&d, &dev) && dev.live)
		r = unmount(&dev, false);
	return r ? r : agent_device_gone(uuid, nqn, last, vol_now_ms() + DEVICE_MS);
}

static int gone(const struct asked *q, struct json_object *out)
{
	uint8_t uuid[16];
	struct work w;
	char nqn[224];
	int r = agent_uuid_parse(q->request, uuid);

	(void)out;
	if (!r)
		r = agent_nqn_parse(q->request, nqn);
	if (!r)
		r = take_drive(&w, uuid, q);
	if (r)
		return r;
	r = gone_locked(uuid, nqn);
	leave_drive(&w);
	return r;
}

int agent_forget(const struct agent *a, struct agent_drive *d)
{
	struct mounts m = { .n = 0 };
	struct agent_device dev;
	bool last, there = !agent_device_find(d, &dev), live = there && dev.live;
	int r = is_last(d->nqn, d->uuid, &last);

	device_patience(PATIENCE_MS);
	if (!r && live)
		r = let_go(a, d, true, false);
	else if (!r && there)
		r = device_mounts(dev.path, add_mount, &m);
	if (!r) /* from now on an agent that runs asks for it no more */
		r = agent_record_del(d->uuid);
	if (!r && !live && last)
		r = agent_device_lose(d);
	if (!r && d->nvme)
		r = agent_device_gone(d->uuid, d->nqn, live && last, vol_now_ms() + DEVICE_MS);
	for (unsigned i = 0; i < m.n; i++) {
		if (!r)
			r = present_clear(m.dir[i]);
		free(m.dir[i]);
	}
	return r ? r : live ? 0 : unmount_rest(d);
}

/* ---- again, at the start ------------------------------------------------------------------ */

struct restored { struct agent_drive drive; const struct agent *agent; pthread_t thread; };

static struct restored *restored;
static size_t nrestored;

/* 0: there is no more to do for it: it is mounted, or will never be as it is. */
static int restore_one(const struct restored *s)
{
	struct present_result res = { 0 };
	struct agent_device dev;
	struct agent_drive d;
	struct work w;
	int r = take_drive(&w, s->drive.uuid, NULL);

	if (r)
		return r;
	r = agent_record_find(s->drive.uuid, &d);
	if (!r) {
		r = make(s->agent, &d, true, vol_now_ms() + RESTORE_MS, &dev);
		if (!r && d.mount)
			r = present(s->agent, &d, &dev, &res);
		if (r == -EPERM && res.note[0])
			r = 0;
	} else if (r == -ENOENT || r == -EBADMSG) {
		r = 0; /* unlinked meanwhile */
	}
	leave_drive(&w);
	if (!r && res.note[0])
		vol_log(VOL_LOG_WARN, "%s is %s: %s", d.name, dev.path, res.note);
	return r;
}

/* What keeps a drive away may end in a second, or in a week. */
static void *restore_drive(void *arg)
{
	struct vol_events *events = vol_events_new();
	const struct restored *s = arg;
	int64_t delay = 1000;

	while (!vol_interrupted() && restore_one(s)) {
		if (vol_interrupted())
			break;
		if (delay == 1000)
			vol_log(VOL_LOG_WARN, "%s is not there yet, as it should be: %s", s->drive.name, vol_error(NULL));
		vol_nap(200); /* events may be many */
		vol_events_wait(events, vol_now_ms() + delay);
		delay = 2 * delay > BACKOFF_MS ? BACKOFF_MS : 2 * delay;
	}
	vol_events_free(events);
	return NULL;
}

int agent_restore_start(const struct agent *a)
{
	struct agent_drive *list;
	size_t n;
	int r = agent_record_list(&list, &n);

	if (r)
		return r;
	device_patience(PATIENCE_MS);
	agent_device_strays(list, n);
	restored = calloc(n + 1, sizeof(*restored));
	for (size_t i = 0; restored && i < n && !r; i++) {
		restored[i] = (struct restored){ .drive = list[i], .agent = a };
		r = -pthread_create(&restored[i].thread, NULL, restore_drive, &restored[i]);
		nrestored += !r;
	}
	free(list);
	return restored && !r ? 0 : vol_fail(NULL, -ENOMEM, "out of memory, or of threads");
}

bool agent_restore_end(int64_t deadline)
{
	bool all = true;

	for (size_t i = 0; i < nrestored; i++) {
		struct timespec t;
		int64_t left = deadline - vol_now_ms();

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_sec += left > 0 ? left / 1000 + 1 : 0;
		all &= !pthread_timedjoin_np(restored[i].thread, NULL, &t);
	}
	if (all)
		free(restored);
	return all;
}

/* ---- table ---------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	int (*fn)(const struct asked *q, struct json_object *out);
} ops[] = {
	{ "hello", hello },
	{ "status", status },
	{ "link", link_ },
	{ "unlink", unlink_ },
	{ "gone", gone },
};

struct json_object *agent_answer(const struct agent *a, struct json_object *request, int fd)
{
	const struct asked q = { a, request, fd };
	struct json_object *out = json_object_new_object();
	const char *op = json_str(request, "op");
	size_t i, n = sizeof(ops) / sizeof(ops[0]);
	int r;

	json_set_bool(out, "ok", true);
	for (i = 0; i < n && strcmp(ops[i].name, op); i++)
		;
	r = i < n ? ops[i].fn(&q, out) :
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
