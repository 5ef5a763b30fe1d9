// SPDX-License-Identifier: LGPL-2.1-or-later
/* The kernel's device-mapper.  Names and waits are in dm.h. */
#include "dm.h"

#include <errno.h>
#include <fcntl.h>
#include <libdevmapper.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sem.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "busy.h"
#include "device.h"
#include "events.h"

#define UDEV_MS 30000      /* for udev to do its part */
#define UDEV_TICK_MS 250   /* a signal may have come just before */
#define PROBE_MS 2000      /* for udev to look at a device */
#define POOL_SECTORS 1024u /* means nothing */
#define PREFIX "VD-"
/* Nobody is to look for anything on a pool's device. */
#define POOL_FLAGS (DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | DM_UDEV_DISABLE_DISK_RULES_FLAG | DM_UDEV_DISABLE_OTHER_RULES_FLAG)

extern char **environ;

/* What libdevmapper said last: the reason, where the errno tells little. */
static _Thread_local char said[256];
static _Thread_local bool late; /* udev was, when it was waited for last */

__attribute__((format(printf, 5, 6)))
static void on_log(int level, const char *file, int line, int dm_errno_or_class, const char *fmt, ...)
{
	va_list ap;

	(void)file, (void)line, (void)dm_errno_or_class;
	if ((level & 7) > 3) /* LOG_ERR of syslog(3) */
		return;
	va_start(ap, fmt);
	vsnprintf(said, sizeof(said), fmt, ap);
	va_end(ap);
}

static void init(void)
{
	dm_log_with_errno_init(on_log);
}

static void once(void)
{
	static pthread_once_t done = PTHREAD_ONCE_INIT;

	pthread_once(&done, init);
	said[0] = 0;
}

void vol_dm_no_udev_sync(void)
{
	once();
	dm_udev_set_sync_support(0);
	dm_udev_set_checking(0);
}

bool vol_dm_present(void)
{
	return !access("/sys/module/dm_vd", F_OK);
}

bool vol_dm_load(void)
{
	if (!vol_dm_present())
		vol_modprobe("dm-vd");
	return vol_dm_present();
}

/* ---- names ---------------------------------------------------------------- */

/* Hyphens doubled; how many bytes it takes, which may be more than there are. */
static size_t mangle(char *to, size_t size, const char *name)
{
	size_t n = 0;

	for (; *name; name++)
		for (int k = *name == '-' ? 2 : 1; k; k--, n++)
			if (n < size)
				to[n] = *name;
	return n;
}

static int dm_name(const char *first, const char *second, bool hidden, char name[DM_PATH])
{
	size_t room = DM_PATH - sizeof("/dev/mapper/"), n = 0;

	if (hidden)
		n += (size_t)snprintf(name, DM_PATH, "vd-");
	n += mangle(name + n, room - n, first);
	if (n < room)
		name[n] = '-';
	n++;
	/* What does not fit is counted all the same. */
	n += n < room ? mangle(name + n, room - n, second) : mangle(NULL, 0, second);
	if (n > room)
		return vol_fail(NULL, -ENAMETOOLONG, "%s/%s: the names together are longer than a device of the kernel may be called (%zu bytes)",
				first, second, room);
	name[n] = 0;
	return 0;
}

int vol_dm_pool_name(const char *pool, char name[DM_PATH])
{
	return dm_name(pool, "pool", true, name);
}

int vol_dm_volume_path(const char *pool, const char *volume, char path[DM_PATH])
{
	char name[DM_PATH];
	int r = dm_name(pool, volume, false, name);

	if (!r)
		snprintf(path, DM_PATH, "/dev/mapper/%.*s", (int)(DM_PATH - sizeof("/dev/mapper/")), name);
	return r;
}

static void dm_uuid(const uint8_t pool[16], const uint8_t *volume, char uuid[128])
{
	char p[VOL_UUID_TEXT], v[VOL_UUID_TEXT] = "pool";

	vol_uuid_text(pool, p);
	if (volume)
		vol_uuid_text(volume, v);
	snprintf(uuid, 128, PREFIX "%s-%s", p, v);
}

/* ---- tasks ---------------------------------------------------------------- */

static struct dm_task *task(int type, const uint8_t pool[16], const uint8_t *volume)
{
	struct dm_task *t;
	char uuid[128];

	once();
	t = dm_task_create(type);
	dm_uuid(pool, volume, uuid);
	if (t && (type == DM_DEVICE_CREATE || dm_task_set_uuid(t, uuid)))
		return t;
	if (t)
		dm_task_destroy(t);
	return NULL;
}

/* By name: where udev does not do it, libdevmapper makes and removes the node of the name it was given. */
static struct dm_task *task_named(int type, const char *name)
{
	struct dm_task *t;

	once();
	t = dm_task_create(type);
	if (t && dm_task_set_name(t, name))
		return t;
	if (t)
		dm_task_destroy(t);
	return NULL;
}

/* None could be made: libdevmapper asks the kernel for its version before, and does not tell
 * why it could not.  -EPERM: may not be asked; -ENOENT: nobody to ask, as in a container. */
static int why_no_task(void)
{
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	int r = fd < 0 ? vol_errno() : -ENOMEM;

	if (fd >= 0)
		close(fd);
	return r;
}

static int run(struct dm_task *t)
{
	int e;

	if (dm_task_run(t))
		return 0;
	e = dm_task_get_errno(t);
	return e > 0 ? -e : -EIO;
}

/* libdevmapper's own wait has no end.  The cookie is the key of a semaphore: a part of it is ours, and each that is udev's
 * dmsetup(8), `udevcomplete`, takes from it. */
static void wait_for_udev(uint32_t cookie)
{
	struct sembuf ours = { 0, -1, IPC_NOWAIT }, none = { 0, 0, 0 };
	struct timespec t = { 0, UDEV_TICK_MS * 1000000l };
	int64_t end = vol_now_ms() + UDEV_MS;
	int id = semget((key_t)cookie, 1, 0);
	int r = id < 0 || semop(id, &ours, 1) ? -EIDRM : -EAGAIN; /* somebody has taken it away, or its parts */

	while ((r == -EAGAIN || r == -EINTR) && !vol_interrupted() && vol_now_ms() < end)
		r = semtimedop(id, &none, 1, &t) ? -errno : 0;
	late = r && !vol_interrupted();
	if (late && (r == -EAGAIN || r == -EINTR))
		vol_log(VOL_LOG_WARN, "udev has not finished with a device after %d s; its names in /dev may come later", UDEV_MS / 1000);
	if (id >= 0)
		(void)!semctl(id, 0, IPC_RMID); /* it does not outlive us */
}

/* Runs one that changes names in /dev; on return they are there, or gone. */
static int run_synced(struct dm_task *t, uint16_t flags)
{
	uint32_t cookie = 0;
	int r;

	if (!dm_task_set_cookie(t, &cookie, flags))
		return -EIO;
	r = run(t);
	if (cookie)
		wait_for_udev(cookie);
	dm_task_update_nodes();
	return r;
}

static int info(const uint8_t pool[16], const uint8_t *volume, struct dm_info *di, char path[DM_PATH])
{
	struct dm_task *t = task(DM_DEVICE_INFO, pool, volume);
	int r;

	if (!t)
		return why_no_task();
	r = run(t);
	if (!r && (!dm_task_get_info(t, di) || !di->exists))
		r = -ENOENT;
	if (!r && path)
		snprintf(path, DM_PATH, "/dev/mapper/%s", dm_task_get_name(t));
	dm_task_destroy(t);
	return r == -ENXIO ? -ENOENT : r;
}

int vol_dm_find(const uint8_t pool[16], const uint8_t *volume, char path[DM_PATH])
{
	struct dm_info di;
	int r = vol_dm_present() ? info(pool, volume, &di, path) : -ENOENT;

	return !r && !volume && !di.live_table ? -ENOENT : r;
}

int vol_dm_find_pool(const char *pool, uint8_t uuid[16])
{
	char name[DM_PATH], text[VOL_UUID_TEXT];
	struct dm_task *t;
	const char *id;
	int r = -ENOENT;

	if (!vol_dm_present() || vol_dm_pool_name(pool, name))
		return r;
	t = task_named(DM_DEVICE_INFO, name);
	if (t && !run(t)) {
		id = dm_task_get_uuid(t);
		if (id && sscanf(id, PREFIX "%36s", text) == 1 && !strcmp(id + strlen(PREFIX) + strlen(text), "-pool") &&
		    !vol_uuid_parse(text, uuid))
			r = 0;
	}
	if (t)
		dm_task_destroy(t);
	return r;
}

/* ---- devices -------------------------------------------------------------- */

struct device {
	const uint8_t *pool, *volume;
	char *name;          /* NULL: there is one, and this is its next table */
	const char *target, *params;
	uint64_t sectors;
	bool readonly;
	uint16_t flags;      /* of the cookie */
};

static int stop(const uint8_t pool[16], const uint8_t *volume)
{
	char path[DM_PATH];
	struct dm_info di;
	struct dm_task *t;
	int r = info(pool, volume, &di, path);

	if (r)
		return r == -ENOENT ? 0 : r;
	t = task_named(DM_DEVICE_REMOVE, path + sizeof("/dev/mapper/") - 1);
	if (!t)
		return why_no_task();
	dm_task_retry_remove(t); /* udev may be looking at it just now */
	r = run_synced(t, 0);
	dm_task_destroy(t);
	return r == -ENXIO ? 0 : r;
}

static int create(const struct device *d)
{
	struct dm_task *t = task(DM_DEVICE_CREATE, d->pool, d->volume);
	char uuid[128];
	int r = -ENOMEM;

	if (!t)
		return why_no_task();
	dm_uuid(d->pool, d->volume, uuid);
	if (dm_task_set_name(t, d->name) && dm_task_set_uuid(t, uuid) && dm_task_set_add_node(t, DM_ADD_NODE_ON_RESUME))
		r = run(t);
	dm_task_destroy(t);
	return r;
}

static int load(const struct device *d)
{
	struct dm_task *t = task(DM_DEVICE_RELOAD, d->pool, d->volume);
	int r = -ENOMEM;

	if (!t)
		return why_no_task();
	if (dm_task_add_target(t, 0, d->sectors, d->target, d->params) && (!d->readonly || dm_task_set_ro(t)))
		r = run(t);
	dm_task_destroy(t);
	return r;
}

static int resume(const struct device *d)
{
	struct dm_task *t = d->name ? task_named(DM_DEVICE_RESUME, d->name) : task(DM_DEVICE_RESUME, d->pool, d->volume);
	int r;

	if (!t)
		return why_no_task();
	r = run_synced(t, d->flags);
	dm_task_destroy(t);
	return r;
}

/* A device with its table, live; or not there at all.  One ioctl at a time: of the one
 * that does all three libdevmapper loses the errno.  *taken: its name, or its UUID, is. */
static int start(const struct device *d, bool *taken)
{
	char why[sizeof(said)];
	int r;

	*taken = false;
	if (d->name) {
		r = create(d);
		*taken = r == -EBUSY;
		if (r)
			return r;
	}
	r = load(d);
	if (!r)
		r = resume(d);
	if (r && d->name) {
		memcpy(why, said, sizeof(why));
		if (stop(d->pool, d->volume))
			vol_log(VOL_LOG_WARN, "the device %s has no table and cannot be removed: %s", d->name, said);
		memcpy(said, why, sizeof(said));
	}
	return r;
}

static void hex(const uint8_t id[16], char text[33])
{
	for (unsigned i = 0; i < 16; i++)
		sprintf(text + 2 * i, "%02x", id[i]);
}

int vol_dm_pool_start(const char *name, const uint8_t uuid[16], const char *const *member, unsigned n, bool readonly)
{
	char dev[DM_PATH], live[DM_PATH], host[33], boot[33], *params = NULL;
	struct device d = { .pool = uuid, .name = dev, .target = "vd-pool", .sectors = POOL_SECTORS,
		.flags = POOL_FLAGS };
	struct vd_disk_holder self;
	struct stat st;
	size_t size;
	bool taken;
	FILE *f;
	int r = vol_dm_pool_name(name, dev);

	if (r)
		return r;
	f = open_memstream(&params, &size);
	if (!f)
		return -ENOMEM;
	fprintf(f, "%u", n);
	/* By number: a path may have a space in it. */
	for (unsigned i = 0; i < n && !r; i++) {
		if (stat(member[i], &st))
			r = vol_fail(NULL, -errno, "pool %s: its member %s: %s", name, member[i], vol_strerror(-errno));
		else
			fprintf(f, " %u:%u", major(st.st_rdev), minor(st.st_rdev));
	}
	vol_holder_self(&self, NULL);
	hex(self.host, host);
	hex(self.boot, boot);
	fprintf(f, " %u host %s boot %s%s", readonly ? 5 : 4, host, boot, readonly ? " read_only" : "");
	if (fclose(f))
		r = -ENOMEM;
	d.params = params;
	if (!r) {
		r = start(&d, &taken);
		if (taken && vol_dm_find(uuid, NULL, live))
			vol_fail(NULL, r, "pool %s cannot be opened in the kernel: another device is called %s there\n"
				 "'dmsetup info %s' tells of it; 'dmsetup rename' gives it another name", name, dev, dev);
		else if (r == -EBUSY)
			r = vol_fail(NULL, -EAGAIN, "pool %s cannot be opened in the kernel: a member is in use", name);
		else if (r)
			vol_fail(NULL, r, "pool %s cannot be opened in the kernel: %s\nthe kernel's log (dmesg) tells more; "
				 "with VD_KERNEL=n in the environment a server has it instead", name,
				 *said ? said : vol_strerror(r));
	}
	free(params);
	return r;
}

void vol_dm_pool_clear(const uint8_t uuid[16])
{
	struct dm_info di;

	if (vol_dm_present() && !info(uuid, NULL, &di, NULL) && !di.live_table && stop(uuid, NULL))
		vol_log(VOL_LOG_WARN, "the device of a pool that somebody began to open cannot be removed: %s", said);
}

void vol_dm_pool_drop_table(const uint8_t uuid[16])
{
	struct dm_task *t = task(DM_DEVICE_CLEAR, uuid, NULL);

	if (!t || run(t))
		vol_log(VOL_LOG_WARN, "a table that somebody began to give a pool cannot be taken from it: %s", said);
	if (t)
		dm_task_destroy(t);
}

int vol_dm_pool_stop(const uint8_t uuid[16])
{
	int64_t end = vol_now_ms() + PROBE_MS;
	struct vol_events *events = NULL;
	struct dm_info di;
	char volume[64];
	int r = vol_dm_present() ? info(uuid, NULL, &di, NULL) : -ENOENT;

	/* Not a volume: somebody who lists devices, and is done soon. */
	while (!r && di.open_count && vol_now_ms() < end) {
		if (vol_part_of(makedev(di.major, di.minor), volume)) {
			r = -EBUSY;
			break;
		}
		vol_events_look(&events);
		r = info(uuid, NULL, &di, NULL);
	}
	vol_events_free(events);
	if (r)
		return r == -ENOENT ? 0 : r;
	return di.open_count ? -EAGAIN : stop(uuid, NULL);
}

/* type: DM_DEVICE_STATUS or DM_DEVICE_TABLE, of the live table */
static int pool_text(int type, const uint8_t uuid[16], char *buf, size_t size, struct dm_info *di)
{
	struct dm_task *t = task(type, uuid, NULL);
	char *target = NULL, *params = NULL;
	uint64_t at, length;
	int r;

	if (!t)
		return why_no_task();
	r = run(t);
	if (!r) {
		dm_get_next_target(t, NULL, &at, &length, &target, &params);
		if (target && !strcmp(target, "vd-pool"))
			snprintf(buf, size, "%s", params);
		else
			r = -ENOENT;
	}
	if (!r && di && !dm_task_get_info(t, di))
		r = -EIO;
	dm_task_destroy(t);
	return r == -ENXIO ? -ENOENT : r;
}

int vol_dm_pool_status(const uint8_t uuid[16], struct dm_pool_status *st)
{
	char text[1024], mode[32], check[32], *at;
	unsigned long long generation;
	struct dm_info di;
	int r = pool_text(DM_DEVICE_STATUS, uuid, text, sizeof(text), &di);

	if (r)
		return r;
	memset(st, 0, sizeof(*st));
	st->other_table = di.inactive_table;
	if (!strncmp(text, "Fail", 4)) {
		st->mode = VD_MODE_FAILED;
		return 0;
	}
	at = strstr(text, " generation ");
	if (sscanf(text, "%*s %*s %*s %*s %31s %*s %*s %31s %*s name %127s", mode, check, st->name) != 3 ||
	    !at || sscanf(at, " generation %llu", &generation) != 1)
		return -EPROTO;
	st->mode = !strcmp(mode, "rw") ? VD_MODE_RW : !strcmp(mode, "out_of_data_space") ? VD_MODE_OUT_OF_SPACE : VD_MODE_READONLY;
	st->damaged = strcmp(check, "-");
	st->generation = generation;
	return 0;
}

int vol_dm_pool_members(const uint8_t uuid[16], dev_t dev[VD_MEMBERS_MAX], unsigned *n)
{
	struct dm_task *t = task(DM_DEVICE_DEPS, uuid, NULL);
	struct dm_deps *deps;
	int r;

	if (!t)
		return why_no_task();
	r = run(t);
	deps = r ? NULL : dm_task_get_deps(t);
	if (!r && (!deps || !deps->count || deps->count > VD_MEMBERS_MAX))
		r = deps && deps->count ? -EPROTO : -ENOENT;
	for (unsigned i = 0; !r && i < deps->count; i++)
		dev[i] = (dev_t)deps->device[i];
	if (!r)
		*n = deps->count;
	dm_task_destroy(t);
	return r == -ENXIO ? -ENOENT : r;
}

/* A table line with one member more: "2 8:16 8:32 …" */
static int longer(const char *table, dev_t dev, char *buf, size_t size)
{
	char *rest;
	unsigned long n = strtoul(table, &rest, 10);
	const char *end = rest;

	for (unsigned long i = 0; i < n && *end; i++)
		end += 1 + strcspn(end + 1, " ");
	return snprintf(buf, size, "%lu%.*s %u:%u%s", n + 1, (int)(end - rest), rest, major(dev), minor(dev), end) < (int)size ? 0 : -E2BIG;
}

int vol_dm_pool_add(const char *name, const uint8_t uuid[16], const char *path)
{
	char was[8192], now[sizeof(was) + 32], why[sizeof(said)], device[DM_PATH];
	struct device d = { .pool = uuid, .target = "vd-pool", .sectors = POOL_SECTORS, .params = now, .flags = POOL_FLAGS };
	struct dm_pool_status status;
	struct dm_info di;
	struct stat st;
	bool taken;
	int r = stat(path, &st) ? vol_errno() : pool_text(DM_DEVICE_TABLE, uuid, was, sizeof(was), NULL);

	if (!r)
		r = longer(was, st.st_rdev, now, sizeof(now));
	if (r)
		return vol_fail(NULL, r, "%s cannot become a member of pool %s: %s", path, name, vol_strerror(r));
	r = start(&d, &taken);
	memcpy(why, said, sizeof(why));
	/* Of a pool that has failed meanwhile, which is resumed to be read, it may be none. */
	if (!r)
		return vol_dm_pool_status(uuid, &status) || status.mode < VD_MODE_READONLY ? 0 :
		       vol_fail(NULL, -EROFS, "%s cannot become a member of pool %s, which is not written any more; the kernel's log (dmesg) tells why", path, name);
	/* Its volumes wait. */
	if (!info(uuid, NULL, &di, device) && di.suspended) {
		d.params = was;
		if (start(&d, &taken))
			vol_log(VOL_LOG_ERROR, "pool %s is suspended, and with it its volumes: %s\n'dmsetup resume %s' tries again",
				name, *said ? said : "it cannot be resumed", device);
	}
	return vol_fail(NULL, r, "%s cannot become a member of pool %s: %s\nthe kernel's log (dmesg) tells more", path, name,
			*why ? why : vol_strerror(r));
}

static void names_path(const char *name, char *buf, size_t size)
{
	snprintf(buf, size, "%s/names/%s", vol_runtime_dir(), name);
}

/* For udev's rules, which find the names another way if this cannot be written. */
static void tell_names(const struct dm_volume *v, const char *name)
{
	char path[4096], text[2 * VOL_NAME_SIZE + VOL_UUID_TEXT + 64], uuid[VOL_UUID_TEXT];
	size_t n;
	int fd;

	names_path("", path, sizeof(path));
	if (strchr(name, '/') || vol_runtime_dir_make() || (mkdir(path, 0700) && errno != EEXIST))
		return;
	names_path(name, path, sizeof(path));
	vol_uuid_text(v->uuid, uuid);
	n = (size_t)snprintf(text, sizeof(text), "VD_POOL=%s\nVD_VOLUME=%s\nVD_VOLUME_UUID=%s\n", v->pool, v->name, uuid);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && write(fd, text, n) != (ssize_t)n)
		unlink(path);
	if (fd >= 0)
		close(fd);
}

/* Udev was told that there is nothing on it, which may not be so when it comes to that. */
static void look_again(const struct dm_volume *v)
{
	struct dm_info di;
	char path[64];
	int fd;

	if (info(v->pool_uuid, v->uuid, &di, NULL))
		return;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", di.major, di.minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!write(fd, "change", 6);
		close(fd);
	}
}

/* name: of a new device. */
static int volume_table(const struct dm_volume *v, char *name, bool *taken)
{
	char params[VOL_NAME_SIZE + 96], base[64] = "";
	struct device d = { .pool = v->pool_uuid, .volume = v->uuid, .name = name, .target = "vd-volume", .params = params,
		.sectors = v->size >> 9, .readonly = v->readonly,
		/* To our rules: no by-uuid and by-label for it. */
		.flags = v->snapshot ? DM_SUBSYSTEM_UDEV_FLAG0 : 0 };
	bool blank = name && v->blank && dm_udev_get_sync_support();
	struct dm_info di;
	int r = info(v->pool_uuid, NULL, &di, NULL);

	*taken = false;
	if (r)
		return r;
	if (v->base)
		snprintf(base, sizeof(base), " 2 base %u:%u", major(v->base), minor(v->base));
	snprintf(params, sizeof(params), "%u:%u %s%s", di.major, di.minor, v->name, base);
	if (name)
		tell_names(v, name);
	if (blank)
		d.flags |= DM_SUBSYSTEM_UDEV_FLAG1;
	r = start(&d, taken);
	if (!r && blank && late)
		look_again(v);
	return r;
}

int vol_dm_volume_start(const struct dm_volume *v, char path[DM_PATH])
{
	char name[DM_PATH];
	bool taken;
	int r = dm_name(v->pool, v->name, false, name);

	if (r)
		return r;
	r = volume_table(v, name, &taken);
	if (r && taken)
		return vol_fail(NULL, r, "%s/%s cannot be opened in the kernel: another device is called %s there\n"
				"'dmsetup info %s' tells of it; 'dmsetup rename' gives it another name", v->pool, v->name, name, name);
	if (r)
		return vol_fail(NULL, r, "%s/%s cannot be opened in the kernel: %s\nthe kernel's log (dmesg) tells more", v->pool, v->name,
				*said ? said : vol_strerror(r));
	return vol_dm_volume_path(v->pool, v->name, path);
}

int vol_dm_volume_resize(const struct dm_volume *v)
{
	char why[sizeof(said)], path[DM_PATH];
	struct dm_info di;
	bool taken;
	int r = volume_table(v, NULL, &taken);

	if (!r)
		return 0;
	memcpy(why, said, sizeof(why));
	if (r == -EACCES)
		return vol_fail(NULL, r, "%s/%s does not take its new size: it is locked\n'vdlock ls %s' tells by whom", v->pool, v->name,
				v->pool);
	if (!info(v->pool_uuid, v->uuid, &di, path) && di.suspended)
		return vol_fail(NULL, r, "%s/%s does not take its new size: %s\nit is suspended, so that nothing is read or written; "
				"'dmsetup resume %s' tries again", v->pool, v->name, *why ? why : vol_strerror(r), path);
	return vol_fail(NULL, r, "%s/%s does not take its new size: %s\nthe kernel's log (dmesg) tells more", v->pool, v->name,
			*why ? why : vol_strerror(r));
}

int vol_dm_volume_stop(const uint8_t pool[16], const uint8_t uuid[16])
{
	char path[DM_PATH], who[512] = "", names[4096];
	int64_t end = vol_now_ms() + PROBE_MS;
	struct vol_events *events = NULL;
	struct dm_info di;
	int r = info(pool, uuid, &di, path);

	/* It may be udev that has it open, for a moment. */
	while (!r && di.open_count && vol_now_ms() < end) {
		vol_events_look(&events);
		r = info(pool, uuid, &di, path);
	}
	vol_events_free(events);
	if (r)
		return r == -ENOENT ? 0 : vol_fail(NULL, r, "its device cannot be looked at: %s", vol_strerror(r));
	if (di.open_count)
		device_users(path, who, sizeof(who));
	r = *who ? -EBUSY : stop(pool, uuid);
	if (!r) {
		names_path(path + sizeof("/dev/mapper/") - 1, names, sizeof(names));
		unlink(names);
	}
	if (r == -EBUSY) {
		busy_otherwise(path, who, sizeof(who));
		return vol_fail(NULL, r, "%s is in use%s%s%s", path, *who ? " by " : "", who,
				*who ? "" : "; see 'lsblk' for what is on it");
	}
	return r ? vol_fail(NULL, r, "%s cannot be removed: %s", path, *said ? said : vol_strerror(r)) : 0;
}

int vol_dm_message(const uint8_t uuid[16], const char *text, char *answer, size_t size)
{
	struct dm_task *t = task(DM_DEVICE_TARGET_MSG, uuid, NULL);
	const char *got;
	int r = t ? -ENOMEM : why_no_task();

	if (t && dm_task_set_sector(t, 0) && dm_task_set_message(t, text)) {
		r = run(t);
		got = r ? NULL : dm_task_get_message_response(t);
		if (!r && answer)
			snprintf(answer, size, "%s", got ? got : "");
	}
	if (t)
		dm_task_destroy(t);
	return r;
}
