// SPDX-License-Identifier: LGPL-2.1-or-later
/* Making and undoing links.  The steps are in link.h; link-list.c finds what links there are. */
#include "link-list.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "activate.h"
#include "busy.h"
#include "describe.h"
#include "drive.h"
#include "events.h"
#include "front.h"
#include "json.h"
#include "present.h"
#include "serve.h"

#define PURPOSE "vdlink" /* of the open pointers of links */
#define FRONT_END_MS 10000
#define SERVER_END_MS 20000
#define CONNECTIONS_END_MS 20000
#define ASK_MS 250

static int make_dir(const char *path, mode_t mode)
{
	return mkdir(path, mode) && errno != EEXIST ? vol_fail(NULL, -errno, "%s cannot be made: %s", path, vol_strerror(-errno)) : 0;
}

__attribute__((format(printf, 2, 3)))
static void say(const struct link_spec *spec, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!spec->say)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	spec->say(spec->arg, text);
}

int link_lock(const char *pool, int *fd)
{
	return vol_runtime_lock(pool, "links", fd);
}

/* ---- requests to the pool ------------------------------------------------ */

/* test: whether it could be, and l->link stays. */
static int call_pointer_add(struct vol_pool *p, struct link_info *l, bool test)
{
	struct json_object *q = link_request("pointer-add", l->volume), *a;
	int r;

	json_set_str(q, "mode", l->readonly ? "ro" : "rw");
	json_set_str(q, "mount", l->mount);
	json_set_str(q, "server", l->server);
	json_set_bool(q, "test", test);
	r = link_call(p, q, &a);
	if (r)
		return r;
	if (!test)
		l->link = (uint32_t)json_u64(a, "link");
	json_object_put(a);
	return 0;
}

/* front: the process whose life is the link's from now on; 0: as it was. */
static int call_pointer_set(struct vol_pool *p, const struct link_info *l, pid_t front)
{
	struct json_object *q = link_request("pointer-set", l->volume);
	struct vd_disk_holder who;
	char as[256];

	snprintf(as, sizeof(as), l->address[0] ? "%s %s %d.%llu" : "%s", l->device, l->address, (int)l->vm, (unsigned long long)l->vm_began);
	json_set_u64(q, "link", l->link);
	json_set_str(q, "opened_as", as);
	json_set_str(q, "mount", l->mount);
	if (front) {
		vol_holder_self(&who, PURPOSE);
		who.pid = cpu_to_le64((uint64_t)front);
		json_set(q, "holder", vol_holder_to_json(&who));
		json_set_bool(q, "take", true);
	}
	return link_call(p, q, NULL);
}

static int call_pointer_del(struct vol_pool *p, const struct link_info *l)
{
	struct json_object *q = link_request("pointer-del", l->volume);

	json_set_u64(q, "link", l->link);
	return link_call(p, q, NULL);
}

static int refuse(const struct link_info *l)
{
	char when[32];

	vol_time_text(l->since, when, sizeof(when));
	switch (l->state) {
	case LINK_UP:
		return vol_fail(NULL, -EBUSY, "%s/%s is linked already, %s, as %s%s%s, since %s\n'vdunlink %s/%s' ends that",
				l->pool, l->volume, l->readonly ? "read-only" : "read-write", link_served(l) ? l->address : l->device,
				link_served(l) ? " of server " : l->mount[0] ? ", mounted on " : "", link_served(l) ? l->server : l->mount,
				when, l->pool, l->volume);
	case LINK_DOWN:
		return vol_fail(NULL, -EBUSY, "%s/%s was linked as %s since %s, and that link is down\n"
				"'vdlink --restore %s' makes it again; 'vdunlink %s/%s' forgets it",
				l->pool, l->volume, l->device[0] ? l->device : "(nothing yet)", when, l->pool, l->pool, l->volume);
	case LINK_UNFINISHED:
		return vol_fail(NULL, -EBUSY, "%s/%s is being linked by process %d since %s", l->pool, l->volume, (int)l->front, when);
	case LINK_ELSEWHERE:
		return vol_fail(NULL, -EBUSY, "%s/%s is linked read-write by host %s as %s since %s\nunlink it there, or link it here with --readonly",
				l->pool, l->volume, l->hostname, l->device, when);
	case LINK_CLIENT:
		return vol_fail(NULL, -EBUSY, "%s/%s is open read-write over NBD, %s, since %s\nwait until that is done, or link it with --readonly",
				l->pool, l->volume, l->device, when);
	}
	return -EBUSY;
}

/* ---- device -------------------------------------------------------------- */

/* What a dead front, or a command that was killed, left behind. */
static int clear_remains(const struct link_info *l)
{
	char file[512], dev[DEVICE_PATH];
	int r = 0;

	if (l->kernel)
		return vol_dm_volume_stop(l->uuid, l->volume_uuid);
	link_fuse_path(l, file, sizeof(file));
	if (!device_loop_find(file, dev))
		r = device_loop_detach(dev);
	if (!r && umount2(file, MNT_DETACH | UMOUNT_NOFOLLOW) && errno != EINVAL && errno != ENOENT)
		r = vol_fail(NULL, -errno, "%s cannot be unmounted: %s", file, vol_strerror(-errno));
	if (!r)
		unlink(file);
	return r;
}

/* link and scan: on return the kernel has the device.  sector: of a front's. */
static int make_device(const struct link_spec *spec, struct vol_pool *p, struct link_info *l, unsigned sector)
{
	char file[512], dir[512], uuid[VOL_UUID_TEXT], export[VOL_NAME_SIZE + VOL_UUID_TEXT + 32], title[2 * VOL_NAME_SIZE];
	struct front_spec fs = { .pool = l->pool, .export = export, .title = title, .sector = sector, .readonly = l->readonly };
	bool nbd = device_have_nbd();
	int fd, r;

	if (vol_pool_in_kernel(p)) {
		r = activate_volume(p, l);
		l->kernel = !r;
		return r;
	}
	memcpy(fs.uuid, l->uuid, 16);
	vol_uuid_text(l->uuid, uuid);
	snprintf(export, sizeof(export), "%s/link=%u/pool=%s", l->volume, l->link, uuid);
	snprintf(title, sizeof(title), "%s/%s", l->pool, l->volume);
	if (nbd) {
		char dev[DEVICE_PATH];

		r = device_nbd_free(dev);
		if (r)
			return r;
		fs.port = &front_nbd;
		fs.place = dev;
		r = front_start(&fs, &l->front, &l->size);
		snprintf(l->device, sizeof(l->device), "%s", dev);
		return r;
	}
	snprintf(dir, sizeof(dir), "%s/links", vol_runtime_dir());
	r = make_dir(dir, 0700);
	snprintf(dir, sizeof(dir), "%s/links/%s", vol_runtime_dir(), l->pool);
	if (!r)
		r = make_dir(dir, 0700);
	if (r)
		return r;
	link_fuse_path(l, file, sizeof(file));
	fd = open(file, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return vol_fail(NULL, -errno, "%s cannot be made: %s", file, vol_strerror(-errno));
	close(fd);
	fs.port = &front_fuse;
	fs.place = file;
	r = front_start(&fs, &l->front, &l->size);
	if (r) {
		unlink(file);
		return r;
	}
	say(spec, "front is process %d", (int)l->front);
	r = device_loop_attach(file, sector, l->readonly, l->device);
	return r;
}

static int wait_device(const struct link_info *l)
{
	int64_t end = vol_now_ms() + LINK_SCAN_MS;
	struct vol_events *events = NULL;
	uint64_t size = 0;
	bool there;

	while (!(there = !device_size(l->device, &size) && size == l->size) && !vol_interrupted() && vol_now_ms() < end)
		vol_events_look(&events);
	vol_events_free(events);
	if (there)
		return 0;
	if (vol_interrupted())
		return vol_fail(NULL, -EINTR, "interrupted");
	return vol_fail(NULL, -ETIMEDOUT, "%s has %llu bytes, not the volume's %llu", l->device, (unsigned long long)size,
			(unsigned long long)l->size);
}

static int scan_device(struct link_info *l, struct server *server, unsigned sector)
{
	int r = wait_device(l);

	return r || !server ? r : drive_give(server, l, sector);
}

/* A server has it no more, whether the link is up or not.  By this host's record of it (S2). */
static int take_from_server(struct link_info *l, unsigned how)
{
	struct server s;
	int r;

	if (!link_served(l))
		return 0;
	r = server_here(l->pool, l->uuid, l->server, &s);
	return r ? r : drive_take(&s, l, how);
}

/* Device and front go. -EBUSY: in use, nothing was changed. */
static int drop_device(const struct link_info *l)
{
	char file[512], dev[DEVICE_PATH];
	int r = 0;

	if (l->kernel)
		return vol_dm_volume_stop(l->uuid, l->volume_uuid);
	if (!strncmp(l->device, "/dev/nbd", 8)) {
		if (link_front_runs(l->front))
			r = device_nbd_disconnect(l->device, l->front);
	} else {
		link_fuse_path(l, file, sizeof(file));
		/* By its file, never by the name that was stored: that may be another's by now. */
		if (!device_loop_find(file, dev))
			r = device_loop_detach(dev);
		if (!r && umount2(file, UMOUNT_NOFOLLOW) && errno != EINVAL && errno != ENOENT && errno != ENOTCONN)
			r = vol_fail(NULL, -errno, "%s cannot be unmounted: %s", file, vol_strerror(-errno));
		if (!r)
			unlink(file);
	}
	/* It ends on its own: its connections must be gone before the server counts them. */
	if (!r)
		link_front_wait(l->front, FRONT_END_MS);
	return r;
}

/* A link may be down though its front is at work: a VM that has ended. */
static int take_device(const struct link_info *l)
{
	return l->state == LINK_UP || link_front_runs(l->front) ? drop_device(l) : clear_remains(l);
}

/* ---- presentation -------------------------------------------------------- */

static int present(const struct link_info *l)
{
	char dir[512], tmp[600];
	struct stat a, b;
	int r;

	/* Made by udev's rules. */
	if (l->kernel && !stat(l->path, &a) && !stat(l->device, &b) && a.st_rdev == b.st_rdev)
		return 0;
	r = make_dir(link_dev_dir(), 0755);
	snprintf(dir, sizeof(dir), "%s/%s", link_dev_dir(), l->pool);
	if (!r)
		r = make_dir(dir, 0755);
	if (r)
		return r;
	snprintf(tmp, sizeof(tmp), "%s~", l->path); /* no volume is called so */
	unlink(tmp);
	if (symlink(l->device, tmp) || rename(tmp, l->path))
		return vol_fail(NULL, -errno, "%s cannot be made: %s", l->path, vol_strerror(-errno));
	return 0;
}

static void unpresent(const struct link_info *l)
{
	char dir[512];

	unlink(l->path);
	snprintf(dir, sizeof(dir), "%s/%s", link_dev_dir(), l->pool);
	rmdir(dir); /* when it was the last */
}

/* ---- making -------------------------------------------------------------- */

enum step { DESCRIBE, LOCK, POINTER, LINK, SCAN, REPORT, PRESENT, UNLOCK, DONE };
static const char *const step_name[] = { "describe", "lock", "pointer", "link", "scan", "report", "present", "unlock" };

int link_pool_name(const char *pool, char name[VOL_NAME_SIZE], uint8_t uuid[16])
{
	struct vol_found *found;
	struct vol_pool *p;
	uint8_t want[16];
	bool by_uuid = !vol_uuid_parse(pool, want), ok = false, two = false;
	size_t n;
	int r;

	r = vol_find_members(&found, &n);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (found[i].error || (by_uuid ? memcmp(found[i].pool, want, 16) : strcmp(found[i].pool_name, pool)))
			continue;
		two |= ok && memcmp(found[i].pool, uuid, 16);
		snprintf(name, VOL_NAME_SIZE, "%s", found[i].pool_name);
		memcpy(uuid, found[i].pool, 16);
		ok = true;
	}
	vol_found_free(found, n);
	if (ok && !two)
		return 0;
	/* A server that this process knows only by name; or else the right words. */
	r = vol_pool_open(pool, VOL_READONLY, &p);
	if (r)
		return r;
	snprintf(name, VOL_NAME_SIZE, "%s", vol_pool_name(p));
	vol_pool_uuid(p, uuid);
	return vol_pool_close(p);
}

static int check_link(struct vol_pool *p, struct link_info *l, bool test)
{
	struct link_looked k;
	int r;

	r = link_look(p, l->volume, &k);
	if (r)
		return r;
	if (k.have_mine)
		return refuse(&k.mine);
	if (k.have_writer && !l->readonly) {
		/* A server that was killed left it; where the kernel has the pool none is alive. */
		if (k.writer.state == LINK_CLIENT &&
		    ((k.writer.here && vol_pool_in_kernel(p)) || (kill(k.writer.front, 0) && errno == ESRCH)))
			return test ? 0 : call_pointer_del(p, &k.writer);
		return refuse(&k.writer);
	}
	return 0;
}

static int sector_size(struct vol_pool *p, unsigned *sector)
{
	struct json_object *a;
	int r = link_call(p, link_request("pool-info", NULL), &a);

	if (r)
		return r;
	*sector = json_u64(a, "sector_size") == 4096 ? 4096 : 512;
	json_object_put(a);
	return 0;
}

/* Undoes the steps before `failed`, last first. What fails here is told, and left to --restore or vdunlink.
 * again: the pointer stays.  whole: and the drive, which the server had before.  False: not all could be undone. */
static bool undo_steps(struct vol_pool *p, struct link_info *l, enum step failed, bool again, bool whole)
{
	bool keep_pointer = again, all = true;
	char text[1024];

	snprintf(text, sizeof(text), "%s", vol_error(NULL)); /* why we are here */
	switch (failed) {
	case DONE:
	case UNLOCK:
		if (l->mount[0] && !link_served(l) && present_umount(l->mount))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		/* fall through */
	case PRESENT:
		unpresent(l);
		/* fall through */
	case REPORT:
	case SCAN:
	case LINK:
		if (!whole && (l->front || l->kernel) && ((l->given && take_from_server(l, DRIVE_FINISH)) || drop_device(l))) {
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
			keep_pointer = true; /* it is still there, and must be found */
			all = false;
		}
		/* fall through */
	case POINTER:
		if (failed > POINTER && !keep_pointer && call_pointer_del(p, l))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		if (link_call(p, link_request("unlock", l->volume), NULL))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		/* fall through */
	case LOCK:
		if (!keep_pointer && describe_del(l->uuid, l->volume))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		/* fall through */
	case DESCRIBE:
		break;
	}
	vol_fail(NULL, 0, "%s", text);
	return all;
}

static int one_step(const struct link_spec *spec, struct vol_pool *p, struct link_info *l, enum step s, bool again, unsigned sector,
		    struct server *server)
{
	int r;

	if (vol_interrupted())
		return vol_fail(NULL, -EINTR, "interrupted");
	switch (s) {
	case DESCRIBE:
		return describe_add(l->pool, l->uuid, l->volume, l->readonly,
				    &(struct describe_drive){
					    .server = l->server, .mount = server || !l->mount[0] ? spec->mount : l->mount,
					    .options = spec->options, .no_mount = spec->no_mount, .automount = spec->automount,
					    .duplicate = spec->duplicate, .dhchap = server && server->dhchap },
				    server ? l->volume_uuid : NULL);
	case LOCK:
		return link_call(p, link_request("lock", l->volume), NULL);
	case POINTER:
		/* A link made again keeps its pointer, which becomes this command's. */
		return again ? call_pointer_set(p, l, getpid()) : call_pointer_add(p, l, false);
	case LINK:
		return l->given ? 0 : make_device(spec, p, l, sector); /* it is whole */
	case SCAN:
		return scan_device(l, server, sector);
	case REPORT:
		return call_pointer_set(p, l, 0);
	case PRESENT:
		if (server)
			return drive_present(server, l, spec);
		r = present(l);
		if (!r)
			r = link_mount(spec, l);
		/* Who names a directory is going to work in it. */
		if (!r && !again && spec->mount && strcmp(spec->mount, LINK_AUTO) && !l->mount[0])
			r = vol_fail(NULL, -ENODATA, "%s/%s is not mounted on %s: %s%s", l->pool, l->volume, spec->mount, l->note,
				     !spec->duplicate && strcmp(l->content.type, "btrfs") ? "\n--duplicate mounts it all the same" : "");
		return r;
	case UNLOCK:
		/* From here on the front's life is the link's. */
		r = call_pointer_set(p, l, l->kernel ? KERNEL_PID : l->front);
		return r ? r : link_call(p, link_request("unlock", l->volume), NULL);
	case DONE:
		break;
	}
	return 0;
}

static int note_uuid(void *arg, struct json_object *o)
{
	struct json_object *part, *vols;
	struct link_info *l = arg;

	if (!json_get(o, "part", json_type_object, &part) || !json_get(part, "volumes", json_type_array, &vols))
		return 0;
	for (size_t i = 0; i < json_object_array_length(vols); i++)
		if (vol_uuid_parse(json_str(json_object_array_get_idx(vols, i), "uuid"), l->volume_uuid))
			return -EPROTO;
	return 0;
}

static int volume_uuid(struct vol_pool *p, struct link_info *l)
{
	struct json_object *q = link_request("list", NULL), *names = json_object_new_array();
	int r;

	json_object_array_add(names, json_object_new_string(l->volume));
	json_set(q, "names", names);
	r = vol_call(p, q, note_uuid, l, NULL);
	json_object_put(q);
	return r ? vol_fail(NULL, r, "%s", vol_error(p)) : 0;
}

static int is_elsewhere(void *arg, const struct link_info *l)
{
	(void)arg;
	return !l->here;
}

void link_tell(struct vol_pool *p, const char *pool, const uint8_t uuid[16], const char *server)
{
	if (drive_untold(uuid) && !link_list_open(p, NULL, is_elsewhere, NULL))
		drive_tell(pool, uuid, server);
}

static int run_steps(const struct link_spec *spec, struct vol_pool *p, struct link_info *l, bool again)
{
	struct server found, *server = link_served(l) ? &found : NULL;
	struct describe_drive mine;
	bool whole = l->given, undone;
	unsigned sector = 0;
	enum step s;
	int r;

	r = vol_pool_in_kernel(p) && !server ? 0 : sector_size(p, &sector);
	if (!r && server)
		r = server_agreed(p, l->server, server);
	if (!r && server && !again)
		r = drive_check(server, spec);
	if (!r && server)
		r = drive_ready(server, again); /* nothing is begun for one that is off, or hangs */
	if (!r && server && server->deaf && !describe_find(l->uuid, l->volume, &mine)) {
		server->dhchap = mine.dhchap; /* as it was when it answered */
		describe_drive_free(&mine);
	}
	if (!r && (server || (spec->mount && *spec->mount && !l->mount[0]))) /* its mount point may have it in its name */
		r = volume_uuid(p, l);
	if (r)
		return r;
	for (s = DESCRIBE; s < DONE; s++) {
		r = one_step(spec, p, l, s, again, sector, server);
		if (r)
			break;
		say(spec, "%s: done%s%s", step_name[s], s == SCAN ? ", " : "", s == SCAN ? server ? l->address : l->device : "");
	}
	if (!r) {
		if (server && !server->deaf)
			link_tell(p, l->pool, l->uuid, server->name);
		return 0;
	}
	undone = undo_steps(p, l, s, again, whole);
	return vol_fail(NULL, r, "%s/%s: step \"%s\" failed, and %s: %s", l->pool, l->volume, step_name[s],
			whole ? "the server keeps the drive as it is" : undone ? "the steps before it were undone" :
			"not all before it could be undone", vol_error(NULL));
}

/* Closes the pool in the kernel, or stops the server, unless somebody still needs it. */
static void stop_if_unused(struct vol_pool *p)
{
	uint8_t uuid[16];
	struct json_object *q, *a;
	bool stopped, linked;
	int64_t end, asked;
	int server;

	if (vol_pool_in_kernel(p)) {
		int hold, r = vol_pool_hold(p, &hold);

		vol_pool_uuid(p, uuid);
		if (!r) {
			r = vol_dm_pool_stop(uuid);
			close(hold);
		}
		if (r && r != -EBUSY)
			vol_log(VOL_LOG_WARN, "pool %s stays open in the kernel: %s\nthe next vdunlink tries again", vol_pool_name(p),
				r == -EAGAIN ? "something has its device open" : vol_strerror(r));
		return;
	}
	if (!vol_pool_is_remote(p))
		return;
	/* The front's connections end a moment after the front, a long one where many
	 * processes want to run; with another link there is nothing to wait for. */
	server = vol_pool_server(p);
	end = vol_now_ms() + CONNECTIONS_END_MS;
	for (;;) {
		asked = vol_now_ms();
		q = link_request("stop-if-unused", NULL);
		json_set_u64(q, "wait", ASK_MS);
		if (link_call(p, q, &a))
			break;
		stopped = json_flag(a, "stopped");
		linked = json_flag(a, "linked");
		json_object_put(a);
		if (stopped) {
			if (server >= 0)
				vol_process_wait(server, SERVER_END_MS);
			/* One in another PID namespace is known by its socket alone, which goes a moment before. */
			for (unsigned ms = 0; server < 0 && vol_serve_running(vol_pool_name(p)) && ms < SERVER_END_MS; ms += 10)
				vol_nap(10);
			break;
		}
		if (linked || vol_now_ms() >= end)
			break;
		if (vol_now_ms() < asked + ASK_MS)
			vol_nap(20); /* one of an earlier version does not wait */
	}
	if (server >= 0)
		close(server);
}

void link_no_udev_sync(void)
{
	vol_dm_no_udev_sync();
}

int link_make(const struct link_spec *spec, struct link_info *l)
{
	struct vol_pool *p;
	const char *started, *why, *name = spec->volume;
	struct server s;
	int lock, r, k;

	memset(l, 0, sizeof(*l));
	l->readonly = spec->readonly;
	snprintf(l->volume, sizeof(l->volume), "%s", spec->volume);
	snprintf(l->server, sizeof(l->server), "%s", spec->server ? spec->server : VOL_SERVER_LOCAL);
	r = spec->server ? vol_check_server_name(spec->server) : link_mount_check(spec, l->mount);
	if (!r)
		r = link_pool_name(spec->pool, l->pool, l->uuid);
	if (r)
		return r;
	link_present_path(l->pool, l->volume, l->path, sizeof(l->path));
	r = link_lock(l->pool, &lock);
	if (r)
		return r;
	if (!spec->test) {
		r = activate_pool(l->pool, l->uuid, &name, 1, spec->takeover, &started, &why);
		if (started && why)
			say(spec, "not in the kernel: %s", why);
		if (started)
			say(spec, strcmp(started, "kernel") ? "server of pool %s started" : "pool %s opened in the kernel", l->pool);
	}
	if (r)
		goto no_pool;
	r = vol_pool_open_uuid(l->uuid, spec->test ? VOL_TEST | (spec->takeover ? VOL_TAKEOVER : 0) : 0, &p);
	if (r) {
		if (!spec->test)
			(void)!vol_dm_pool_stop(l->uuid); /* where it was opened for nothing */
		goto no_pool;
	}
	r = check_link(p, l, spec->test);
	if (!r && spec->test && link_served(l)) {
		r = server_agreed(p, l->server, &s);
		if (!r)
			r = drive_check(&s, spec);
		if (!r)
			r = drive_ready(&s, false);
	}
	if (!r && spec->test)
		r = call_pointer_add(p, l, true);
	if (!r && !spec->test) {
		r = run_steps(spec, p, l, false);
		if (!r)
			l->state = LINK_UP;
	}
	if (r && !spec->test) {
		char text[1024];

		snprintf(text, sizeof(text), "%s", vol_error(NULL));
		stop_if_unused(p);
		vol_fail(NULL, r, "%s", text);
	}
	k = vol_pool_close(p);
	r = r ? r : k;
no_pool:
	close(lock);
	return r;
}

/* ---- undoing ------------------------------------------------------------- */

/* arg: counts mounts. */
static int umount_test(void *arg, const char *dir)
{
	++*(unsigned *)arg;
	return device_unused(dir);
}

/* What can be known of it before it is tried: a volume that is locked, a device in use. */
static int undo_test(struct vol_pool *p, const struct link_info *l)
{
	struct json_object *q = link_request("lock", l->volume);
	struct server s;
	unsigned mounts = 0;
	int r;

	json_set_bool(q, "test", true);
	r = link_call(p, q, NULL);
	if (r || l->state != LINK_UP)
		return r;
	if (link_served(l)) { /* which has it open */
		r = server_here(l->pool, l->uuid, l->server, &s);
		return r ? r : drive_take_test(&s, l);
	}
	r = device_mounts(l->device, umount_test, &mounts);
	return r || mounts ? r : device_unused_but(l->device, l->front); /* which has an nbd device open */
}

static int is_mount(void *arg, const char *dir)
{
	return !strcmp(dir, arg);
}

/* A device that stays although its mount is gone: it is not said to be mounted any longer. */
static void forget_mount(struct vol_pool *p, struct link_info *l)
{
	struct describe_drive mine;
	char text[1024];
	bool served = link_served(l);
	int r;

	if (served ? l->mount[0] : device_mounts(l->device, is_mount, l->mount)) /* it is still */
		return;
	if (!served && !busy_sees_mounts()) /* it undoes copies */
		return;
	snprintf(text, sizeof(text), "%s", vol_error(NULL)); /* why it stays */
	l->mount[0] = 0;
	r = call_pointer_set(p, l, 0);
	if (!r)
		r = describe_find(l->uuid, l->volume, &mine);
	if (!r) {
		mine.mount = "";
		mine.no_mount |= served;
		r = describe_add(l->pool, l->uuid, l->volume, l->readonly, &mine, served ? l->volume_uuid : NULL);
		describe_drive_free(&mine);
	}
	if (r)
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	vol_fail(NULL, 0, "%s", text);
}

static int umount_one(void *arg, const char *dir)
{
	say(arg, "unmount %s", dir);
	return present_umount(dir);
}

/* Mounts of the device only where it is certainly this link's. */
static int umount_all(struct link_info *l, int (*each)(void *arg, const char *dir), void *arg)
{
	char file[512], dev[DEVICE_PATH];
	bool certain = l->state == LINK_UP || l->kernel || device_nbd_of(l->device, l->front);

	link_fuse_path(l, file, sizeof(file));
	if (!certain && !device_loop_find(file, dev)) {
		snprintf(l->device, sizeof(l->device), "%s", dev);
		certain = true;
	}
	return link_umount(l, certain, each, arg);
}

int link_undo(const struct link_spec *spec, struct link_info *l)
{
	struct link_looked k;
	struct vol_pool *p;
	char pool[VOL_NAME_SIZE];
	uint8_t uuid[16];
	int lock, r, e;

	memset(l, 0, sizeof(*l));
	r = link_pool_name(spec->pool, pool, uuid);
	if (r)
		return r;
	r = link_lock(pool, &lock);
	if (r)
		return r;
	if (!spec->test)
		vol_dm_pool_clear(uuid);
	/* With no server running, the pool is opened here: nothing of the link is up then. */
	r = vol_pool_open_uuid(uuid, (spec->test ? VOL_TEST : 0) | (spec->takeover ? VOL_TAKEOVER : 0), &p);
	if (r)
		goto no_pool;
	r = link_look(p, spec->volume, &k);
	if (!r && !k.have_mine) {
		/* A command that was killed may have left it open for nobody. */
		if (vol_pool_in_kernel(p) && !spec->test)
			stop_if_unused(p);
		/* Or before it stored the pointer, or after it had removed it. */
		if (!spec->test && describe_del(uuid, spec->volume))
			vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
		r = vol_fail(NULL, -ENOENT, "%s/%s is not linked to this host; 'vdlink ls' shows what is", pool, spec->volume);
	}
	if (!r)
		*l = k.mine;
	if (!r && l->state == LINK_UNFINISHED)
		r = refuse(l);
	if (!r && spec->test)
		r = undo_test(p, l);
	if (r || spec->test)
		goto out;
	r = link_call(p, link_request("lock", l->volume), NULL);
	if (r)
		goto out;
	if (link_served(l))
		say(spec, "waiting for %s to let go of it", l->server);
	r = take_from_server(l, spec->force ? DRIVE_FORCE : 0); /* nothing else is touched if it cannot be */
	if (!r)
		r = umount_all(l, umount_one, (void *)spec);
	if (!r && l->state == LINK_UP)
		link_flush(l);
	if (!r)
		r = take_device(l);
	if (r && l->state == LINK_UP && k.mine.mount[0])
		forget_mount(p, l);
	if (!r) {
		say(spec, "%s is gone", l->device[0] ? l->device : "device");
		unpresent(l);
		r = call_pointer_del(p, l);
	}
	if (!r)
		r = describe_del(l->uuid, l->volume);
	{
		char text[1024];

		snprintf(text, sizeof(text), "%s", vol_error(NULL));
		e = link_call(p, link_request("unlock", l->volume), NULL);
		if (r)
			vol_fail(NULL, r, "%s/%s is still linked: %s", l->pool, l->volume, text);
		else
			r = e;
	}
	if (!r)
		stop_if_unused(p);
out:
	e = vol_pool_close(p);
	r = r ? r : e;
no_pool:
	close(lock);
	return r;
}

/* ---- again --------------------------------------------------------------- */

int link_down(struct link_downs *d, const struct link_info *l)
{
	struct link_info *more = realloc(d->l, (d->n + 1) * sizeof(*more));
	struct describe_drive mine;
	int r;

	if (!more)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	d->l = more;
	r = describe_find(l->uuid, l->volume, &mine);
	if (!r && strcmp(mine.server, l->server)) {
		r = vol_fail(NULL, -ENOENT, "for this host that is a drive of server %s, not %s", mine.server, l->server);
		describe_drive_free(&mine);
	}
	if (r == -ENOENT) {
		vol_log(VOL_LOG_WARN, "%s/%s was linked by this host, as its pool says, but %s: it is left alone ('vdlink %s/%s' links it)",
			l->pool, l->volume, vol_error(NULL), l->pool, l->volume);
		return 0;
	}
	if (r)
		return r;
	more[d->n] = *l;
	if (!link_served(l)) /* else it is to be shown, no more */
		snprintf(more[d->n].mount, sizeof(l->mount), "%s", mine.mount);
	d->n++;
	describe_drive_free(&mine);
	return 0;
}

static int umount_dead(void *arg, const char *dir)
{
	(void)arg;
	return present_umount(dir);
}

int link_make_again(struct vol_pool *p, const struct link_info *old, struct link_info *l)
{
	struct link_spec spec = { .readonly = old->readonly };
	struct describe_drive mine;
	int r;

	*l = *old;
	l->note[0] = 0;
	if (link_served(l)) {
		struct server s;

		r = server_here(l->pool, l->uuid, l->server, &s);
		if (!r)
			r = drive_clear(&s, l, &l->given);
		if (r)
			return r;
		if (l->given)
			goto steps;
	}
	l->address[0] = 0;
	/* What a dead front left mounted gives errors for ever: it has to go first. */
	r = umount_all(l, umount_dead, NULL);
	if (r)
		return r;
	r = take_device(l);
	if (r)
		return r;
	l->front = 0;
	l->vm = 0;
	l->kernel = l->blank = false;
steps:
	r = describe_find(l->uuid, l->volume, &mine);
	if (r)
		return r;
	spec.mount = mine.mount;
	spec.options = mine.options;
	spec.no_mount = mine.no_mount;
	spec.automount = mine.automount;
	/* What was mounted here has its record by that alone, and its copy may be mounted before it now. */
	spec.duplicate = mine.duplicate || (!link_served(l) && mine.mount[0] == '/');
	if (!strcmp(l->mount, LINK_AUTO))
		l->mount[0] = 0;
	r = run_steps(&spec, p, l, true);
	describe_drive_free(&mine);
	return r;
}

int link_prepare_again(struct vol_pool *p, const struct link_info *old, struct link_info *l, struct server *s)
{
	struct describe_drive mine;
	struct json_object *q;
	bool whole;
	int r;

	/* A front has no device without its link. */
	if (!link_served(old) || !vol_pool_in_kernel(p))
		return 0;
	*l = *old;
	r = server_agreed(p, l->server, s);
	if (r || !drive_needs_preparing(s))
		return r;
	r = describe_find(l->uuid, l->volume, &mine);
	if (r)
		return r;
	/* What keeps it from being made again keeps it from being given, too. */
	q = link_request("lock", l->volume);
	json_set_bool(q, "test", true);
	r = link_call(p, q, NULL);
	if (!r)
		r = drive_ready(s, true);
	if (!r && s->deaf)
		s->dhchap = mine.dhchap;
	describe_drive_free(&mine);
	if (!r)
		r = drive_clear(s, l, &whole);
	if (!r && !whole)
		r = take_device(l);
	if (!r && !whole)
		r = make_device(&(struct link_spec){ .readonly = l->readonly }, p, l, 0);
	if (!r && !whole)
		r = wait_device(l);
	if (!r)
		r = drive_prepare(s, l);
	return r ? r : 1;
}
