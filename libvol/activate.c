// SPDX-License-Identifier: LGPL-2.1-or-later
/* Who serves a pool's volumes on this host. activate.h tells. */
#include "activate.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "handle.h"
#include "io.h"
#include "json.h"
#include "serve.h"

#define TRIES 20 /* another command may open the pool between two looks */

static const char served[] = "a server has it open";

/* ---- a volume's record ----------------------------------------------------- */

struct record {
	struct dm_volume v;
	unsigned found;
	char base[VD_BASE_MAX]; /* path of the last one's image, or "" */
	bool odd;               /* an image ends within 512 bytes */
	unsigned sector;        /* the largest sectors of an image */
};

/* One that cannot be opened is told of by who needs it. */
static void look_at_base(struct record *rec)
{
	int fd = open(rec->base, O_RDONLY | O_CLOEXEC | O_NONBLOCK), sector;
	struct stat st;

	if (fd < 0)
		return;
	if (!fstat(fd, &st) && S_ISREG(st.st_mode))
		rec->odd |= st.st_size % 512 != 0;
	else if (!ioctl(fd, BLKSSZGET, &sector))
		rec->sector = vd_max(rec->sector, (unsigned)sector);
	close(fd);
}

static int take_record(void *arg, struct json_object *o)
{
	struct json_object *part, *vols, *vol;
	struct record *rec = arg;

	if (!json_get(o, "part", json_type_object, &part) || !json_get(part, "volumes", json_type_array, &vols))
		return 0;
	for (size_t i = 0; i < json_object_array_length(vols); i++) {
		vol = json_object_array_get_idx(vols, i);
		if (vol_uuid_parse(json_str(vol, "uuid"), rec->v.uuid))
			return -EPROTO;
		rec->v.size = json_u64(vol, "size");
		rec->v.snapshot = json_flag(vol, "snapshot");
		snprintf(rec->base, sizeof(rec->base), "%s", json_str(vol, "base"));
		rec->v.blank = json_flag(vol, "blank");
		if (*rec->base)
			look_at_base(rec);
		rec->found++;
	}
	return 0;
}

/* What the device of a volume is made of; of several volumes, what there is to say of their images. */
static int read_record(struct vol_pool *p, const char *const *volume, unsigned n, struct record *rec)
{
	struct json_object *q = json_object_new_object(), *names = json_object_new_array();
	int r;

	for (unsigned i = 0; i < n; i++)
		json_object_array_add(names, json_object_new_string(volume[i]));
	json_set_str(q, "op", "list");
	json_set(q, "names", names);
	r = vol_call(p, q, take_record, rec, NULL);
	json_object_put(q);
	return r ? vol_fail(NULL, r, "%s", vol_error(p)) : rec->found == n ? 0 : -EPROTO;
}

/* A device consists of sectors, which are not larger than those of the volume: these are the pool's. */
static int why_not_base(struct vol_pool *p, const struct record *rec, const char **why)
{
	struct json_object *q, *a;
	int r = 0;

	if (rec->odd)
		*why = "a base image ends within a sector of 512 bytes";
	if (rec->odd || rec->sector <= 512)
		return 0;
	q = json_object_new_object();
	json_set_str(q, "op", "pool-info");
	r = vol_call(p, q, NULL, NULL, &a);
	json_object_put(q);
	if (r)
		return vol_fail(NULL, r, "%s", vol_error(p));
	if (json_u64(a, "sector_size") < rec->sector)
		*why = "a base image has larger sectors than the pool";
	json_object_put(a);
	return 0;
}

/* ---- pools ------------------------------------------------------------------ */

/* Seen before the module is loaded for nothing. */
static bool has_file(const uint8_t uuid[16])
{
	struct vol_found *found;
	struct stat st;
	bool file = false;
	size_t n;

	if (vol_find_members(&found, &n))
		return false;
	for (size_t i = 0; i < n && !file; i++)
		file = !found[i].error && !memcmp(found[i].pool, uuid, 16) && !stat(found[i].path, &st) && S_ISREG(st.st_mode);
	vol_found_free(found, n);
	return file;
}

static const char *why_no_device(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n)
{
	char path[DM_PATH];
	const char *e = getenv("VD_KERNEL");
	int r;

	if (e && (*e == 'n' || *e == '0'))
		return "VD_KERNEL says so";
	r = vol_dm_pool_name(pool, path);
	for (unsigned i = 0; i < n && !r; i++)
		r = vol_dm_volume_path(pool, volume[i], path);
	if (r)
		return "the names are too long for a device of the kernel";
	if (has_file(uuid))
		return "a member is a file";
	return vol_dm_load() ? NULL : "dm-vd is not loaded, and cannot be";
}

/* -EAGAIN: somebody was faster.
 * Until the kernel has the members, a reader could take them for those of a pool at rest. */
static int hand_over(const char *pool, const uint8_t uuid[16], char *const *member, unsigned n, bool readonly)
{
	int keep[VD_MEMBERS_MAX], r = 0;
	unsigned kept = 0;

	while (!r && kept < n) {
		r = vol_member_keep(member[kept], &keep[kept]);
		kept += !r;
	}
	if (!r)
		r = vol_dm_pool_start(pool, uuid, (const char *const *)member, n, readonly);
	else
		r = vol_fail(NULL, r == -EBUSY ? -EAGAIN : r, "pool %s: its member %s: %s", pool, member[kept], vol_strerror(r));
	while (kept)
		close(keep[--kept]);
	return r;
}

/* Opens the pool here first: its owner, its members, its journal are looked at as ever,
 * and what is wrong is told in the same words. */
static int start_in_kernel(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n, unsigned flags,
			   const char **why)
{
	char *member[VD_MEMBERS_MAX];
	struct record rec = { 0 };
	struct vol_pool *p;
	unsigned m, k = 0;
	bool fronts;
	int r, e;

	vol_dm_pool_clear(uuid);
	r = vol_serve_alone(pool, uuid);
	if (r)
		return r;
	r = vol_pool_open_uuid(uuid, VOL_OFFLINE | flags, &p);
	if (r)
		return r;
	r = link_fronts(p, &fronts);
	if (!r && fronts)
		*why = "a link of the pool has a front, which needs a server";
	if (!r && n)
		r = read_record(p, volume, n, &rec);
	if (!r && !*why)
		r = why_not_base(p, &rec, why);
	for (m = 0; !r && !*why && m < VD_MEMBERS_MAX; m++) {
		const char *path = vol_host_path(vol_pool_host(p), m);
		if (!path)
			continue;
		if (vol_host_is_file(vol_pool_host(p), m))
			*why = "a member is a file";
		member[k] = strdup(path);
		r = member[k++] ? 0 : vol_fail(NULL, -ENOMEM, "out of memory");
	}
	p->passed_on = !r && !*why;
	e = vol_pool_close(p);
	r = r ? r : e;
	if (!r && !*why)
		r = hand_over(pool, uuid, member, k, flags & VOL_READONLY);
	while (k)
		free(member[--k]);
	return r;
}

static bool in_kernel(const uint8_t uuid[16])
{
	char device[DM_PATH];

	return !vol_dm_find(uuid, NULL, device);
}

int activate_kernel(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n, unsigned flags,
		    bool *started, const char **why)
{
	int lock, r;

	*started = false;
	for (unsigned i = 0;; i++) {
		r = vol_serve_alone(pool, uuid);
		if (r)
			return r;
		*why = vol_serve_running(pool) ? served : NULL;
		if (*why || in_kernel(uuid))
			return 0;
		*why = why_no_device(pool, uuid, volume, n);
		if (*why)
			return 0;
		/* A front may be starting the server again just now. */
		r = vol_serve_lock(pool, &lock);
		if (r)
			return r;
		if (vol_serve_running(pool))
			*why = served;
		else
			r = start_in_kernel(pool, uuid, volume, n, flags, why);
		close(lock);
		*started = !r && !*why;
		if (r != -EAGAIN)
			return r;
		if (vol_interrupted())
			return vol_fail(NULL, -EINTR, "interrupted");
		if (i == TRIES)
			return -EBUSY;
		vol_nap(50);
	}
}

int activate_pool(const char *pool, const uint8_t uuid[16], const char *const *volume, unsigned n, bool takeover,
		  const char **started, const char **why)
{
	const char *reason;
	bool here;
	int r;

	if (started)
		*started = NULL;
	if (why)
		*why = NULL;
	r = activate_kernel(pool, uuid, volume, n, takeover ? VOL_TAKEOVER : 0, &here, &reason);
	if (!r && here && started)
		*started = "kernel";
	if (r || !reason)
		return r;
	if (why && reason != served)
		*why = reason;
	r = vol_serve_start(pool, uuid, takeover, &here);
	if (!r && here && started)
		*started = "server";
	return r;
}

/* ---- volumes ---------------------------------------------------------------- */

static int device_of(struct vol_pool *p, const struct link_info *l, struct record *rec)
{
	const char *name = l->volume;

	memset(rec, 0, sizeof(*rec));
	rec->v.pool = l->pool;
	rec->v.name = l->volume;
	rec->v.readonly = l->readonly;
	memcpy(rec->v.pool_uuid, l->uuid, 16);
	return read_record(p, &name, 1, rec);
}

/* Suspending the pool would wait for readers of the image, and they for the pool. */
static bool is_in_pool(const uint8_t uuid[16], const struct stat *image)
{
	char path[DM_PATH];
	struct stat st;

	return !vol_dm_find(uuid, NULL, path) && !stat(path, &st) &&
	       device_stands_on(S_ISBLK(image->st_mode) ? image->st_rdev : image->st_dev, st.st_rdev);
}

/* The device of the volume's base image, if it has one.  *fd: unless -1, to be closed when a table has
 * it, or none gets it; with the last of these a loop device goes. */
static int base_device(struct vol_pool *p, const struct link_info *l, struct record *rec, int *fd)
{
	const char *why = NULL;
	struct stat st;
	uint64_t size;
	int loop, r;

	*fd = -1;
	if (!*rec->base)
		return 0;
	r = vol_base_open(l->pool, l->volume, rec->base, fd, &size);
	if (!r)
		r = why_not_base(p, rec, &why);
	if (!r && !fstat(*fd, &st) && is_in_pool(l->uuid, &st))
		why = "a base image is stored in the pool itself";
	if (!r && why)
		r = vol_fail(NULL, -EBUSY, "%s/%s: %s (%s): only a server can do with that, and pool %s is open in the kernel\n"
			     "unlink its other volumes first ('vdlink ls %s'), or link them all with VD_KERNEL=n%s%s",
			     l->pool, l->volume, why, rec->base, l->pool, l->pool,
			     rec->odd ? "; or, as behind its end are zeros anyway: truncate -s %512 " : "",
			     rec->odd ? rec->base : "");
	if (r)
		return r;
	if (!fstat(*fd, &st) && S_ISREG(st.st_mode)) {
		r = device_loop_image(rec->base, *fd, size, &loop);
		close(*fd);
		*fd = r ? -1 : loop;
	}
	if (!r && fstat(*fd, &st))
		r = vol_fail(NULL, -errno, "%s: %s", rec->base, vol_strerror(-errno));
	if (!r)
		rec->v.base = st.st_rdev;
	return r;
}

int activate_volume(struct vol_pool *p, struct link_info *l)
{
	struct record rec;
	int fd = -1, r = device_of(p, l, &rec);

	if (!r)
		r = base_device(p, l, &rec, &fd);
	if (!r)
		r = vol_dm_volume_start(&rec.v, l->device);
	if (fd >= 0)
		close(fd);
	if (r)
		return r;
	l->size = rec.v.size;
	l->blank = rec.v.blank;
	memcpy(l->volume_uuid, rec.v.uuid, 16);
	return 0;
}

int activate_refresh(struct vol_pool *p, const struct link_info *l)
{
	struct record rec;
	int fd = -1, r = device_of(p, l, &rec);

	if (!r)
		r = base_device(p, l, &rec, &fd);
	if (!r)
		r = vol_dm_volume_resize(&rec.v);
	if (fd >= 0)
		close(fd);
	return r;
}
