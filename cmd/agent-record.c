// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The drives that this server was given: drives.json in $VD_STATE_DIR, {"drives": […]}, each as a
 * request "link" tells it, with the directory that it was mounted on.  Read for each question: it is small, and what is
 * on disk is what is true.
 */
#include "agent.h"
#include "../libvol/describe.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRIVES_MAX 512 /* each has a thread, and a socket of udev's, until it is there */

struct records {
	char path[4096];
	int dir; /* locked */
	struct json_object *root, *drives;
};

static void done(struct records *f)
{
	json_object_put(f->root);
	close(f->dir);
}

/* A file that is no list of drives is somebody's, and is not overwritten. */
static int begin(struct records *f)
{
	const char *dir = secure_getenv("VD_STATE_DIR");
	int r;

	dir = dir && *dir ? dir : "/var/lib/vdagent";
	memset(f, 0, sizeof(*f));
	if (snprintf(f->path, sizeof(f->path) - 1000, "%s/drives.json", dir) >= (int)sizeof(f->path) - 1000)
		return vol_fail(NULL, -ENAMETOOLONG, "VD_STATE_DIR is too long");
	if (mkdir(dir, 0755) && errno != EEXIST)
		return vol_fail(NULL, -errno, "%s cannot be made: %s", dir, vol_strerror(-errno));
	f->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f->dir < 0 || flock(f->dir, LOCK_EX)) {
		r = vol_fail(NULL, -errno, "%s cannot be locked: %s", dir, vol_strerror(-errno));
		if (f->dir >= 0)
			close(f->dir);
		return r;
	}
	f->root = json_object_from_file(f->path);
	if (!f->root && access(f->path, F_OK)) {
		f->root = json_object_new_object();
		json_set(f->root, "drives", json_object_new_array());
	}
	if (json_get(f->root, "drives", json_type_array, &f->drives))
		return 0;
	r = vol_fail(NULL, -EINVAL, "%s is not a list of drives; repair or remove it", f->path);
	done(f);
	return r;
}

/* Its place, or how many there are. */
static size_t find(struct records *f, const uint8_t uuid[16])
{
	size_t i, n = json_object_array_length(f->drives);
	uint8_t u[16];

	for (i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(f->drives, i);

		if (json_object_is_type(o, json_type_object) && !agent_uuid_parse(o, u) && !memcmp(u, uuid, 16))
			break;
	}
	return i;
}

static int put(const struct agent_drive *d, bool new)
{
	struct records f;
	size_t at;
	int r = begin(&f);

	if (r)
		return r;
	at = find(&f, d->uuid);
	if (!new && at == json_object_array_length(f.drives)) {
		r = vol_fail(NULL, -ENOENT, "this server has no such drive");
	} else if (at >= DRIVES_MAX) {
		r = vol_fail(NULL, -ENOSPC, "this server has %d drives, and takes no more", DRIVES_MAX);
	} else {
		json_object_array_put_idx(f.drives, at, agent_drive_json(d));
		r = describe_write(f.path, f.dir, f.root);
	}
	done(&f);
	return r;
}

int agent_record_put(const struct agent_drive *d)
{
	return put(d, true);
}

int agent_record_change(const struct agent_drive *d)
{
	return put(d, false);
}

int agent_record_del(const uint8_t uuid[16])
{
	struct records f;
	size_t at;
	int r = begin(&f);

	if (r)
		return r;
	at = find(&f, uuid);
	if (at < json_object_array_length(f.drives)) {
		json_object_array_del_idx(f.drives, at, 1);
		r = describe_write(f.path, f.dir, f.root);
	}
	done(&f);
	return r;
}

int agent_record_find(const uint8_t uuid[16], struct agent_drive *d)
{
	struct records f;
	size_t at;
	int r = begin(&f);

	if (r)
		return r;
	at = find(&f, uuid);
	if (at == json_object_array_length(f.drives))
		r = vol_fail(NULL, -ENOENT, "this server has no such drive");
	else if (agent_drive_parse(json_object_array_get_idx(f.drives, at), d))
		r = -EBADMSG;
	done(&f);
	return r;
}

int agent_record_list(struct agent_drive **list, size_t *n)
{
	struct agent_drive *out;
	struct records f;
	size_t k = 0, total;
	int r = begin(&f);

	if (r)
		return r;
	total = json_object_array_length(f.drives);
	out = calloc(total + 1, sizeof(*out));
	for (size_t i = 0; out && i < total && i < DRIVES_MAX; i++) {
		struct json_object *o = json_object_array_get_idx(f.drives, i);

		if (json_object_is_type(o, json_type_object) && !agent_drive_parse(o, &out[k]))
			k++;
		else
			vol_log(VOL_LOG_WARN, "%s: drive %zu is passed over: %s", f.path, i, vol_error(NULL));
	}
	done(&f);
	if (!out)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	*list = out;
	*n = k;
	return 0;
}
