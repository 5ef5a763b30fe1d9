// SPDX-License-Identifier: LGPL-2.1-or-later
/* The description of this host: a small JSON file. */
#include "describe.h"
#include "json.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct describe {
	char dir[3072], path[3200];
	int lock;
	struct json_object *root, *drives;
};

/* A file that is not there is an empty description; one that cannot be parsed is
 * somebody's, and is not overwritten. */
static int load(struct describe *d)
{
	struct json_object *v;

	d->root = json_object_from_file(d->path);
	if (!d->root && access(d->path, F_OK) == 0)
		return vol_fail(NULL, -EINVAL, "%s is not valid JSON; repair or remove it", d->path);
	if (!d->root) {
		d->root = json_object_new_object();
		json_set_str(d->root, "server", "local");
	}
	if (json_object_object_get_ex(d->root, "drives", &v)) {
		if (!json_object_is_type(v, json_type_array))
			return vol_fail(NULL, -EINVAL, "%s: \"drives\" is not a list; repair or remove the file", d->path);
		d->drives = v;
	} else {
		d->drives = json_object_new_array();
		json_set(d->root, "drives", d->drives);
	}
	return 0;
}

static void done(struct describe *d)
{
	json_object_put(d->root);
	if (d->lock >= 0)
		close(d->lock);
}

static int begin(struct describe *d)
{
	int r;

	memset(d, 0, sizeof(*d));
	d->lock = -1;
	snprintf(d->dir, sizeof(d->dir), "%s/servers", vol_config_dir());
	if ((mkdir(vol_config_dir(), 0755) && errno != EEXIST) || (mkdir(d->dir, 0755) && errno != EEXIST))
		return vol_fail(NULL, -errno, "%s cannot be made: %s", d->dir, vol_strerror(-errno));
	d->lock = open(d->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d->lock < 0 || flock(d->lock, LOCK_EX)) {
		r = vol_fail(NULL, -errno, "%s cannot be locked: %s", d->dir, vol_strerror(-errno));
		done(d);
		return r;
	}
	snprintf(d->path, sizeof(d->path), "%s/local", d->dir);
	r = load(d);
	if (r)
		done(d);
	return r;
}

static int store(struct describe *d)
{
	const char *text = json_object_to_json_string_ext(d->root, JSON_C_TO_STRING_PRETTY);
	size_t len = strlen(text);
	char new[3210];
	int fd, r = 0;

	snprintf(new, sizeof(new), "%s.new", d->path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || write(fd, "\n", 1) != 1 || fsync(fd) ||
	    rename(new, d->path) || fsync(d->lock))
		r = vol_fail(NULL, errno ? -errno : -EIO, "%s cannot be written: %s", d->path, vol_strerror(-errno));
	if (fd >= 0)
		close(fd);
	return r;
}

/* Index of a drive, or the number of them. */
static size_t find(struct describe *d, const char *uuid, const char *volume)
{
	size_t n = json_object_array_length(d->drives), i;

	for (i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(d->drives, i);

		if (json_object_is_type(o, json_type_object) && !strcmp(json_str(o, "uuid"), uuid) &&
		    !strcmp(json_str(o, "volume"), volume))
			break;
	}
	return i;
}

int describe_add(const char *pool, const uint8_t uuid[16], const char *volume, bool readonly, const char *mount,
		 const char *options)
{
	char text[VOL_UUID_TEXT];
	struct json_object *o;
	struct describe d;
	int r;

	r = begin(&d);
	if (r)
		return r;
	vol_uuid_text(uuid, text);
	o = json_object_new_object();
	json_set_str(o, "pool", pool);
	json_set_str(o, "uuid", text);
	json_set_str(o, "volume", volume);
	json_set_str(o, "mode", readonly ? "ro" : "rw");
	json_set_str(o, "mount", mount ? mount : "");
	json_set_str(o, "options", options ? options : "");
	json_object_array_put_idx(d.drives, find(&d, text, volume), o);
	r = store(&d);
	done(&d);
	return r;
}

/* begin(), and the index of that drive. */
static int begin_at(struct describe *d, const uint8_t uuid[16], const char *volume, size_t *i)
{
	char text[VOL_UUID_TEXT];
	int r = begin(d);

	if (r)
		return r;
	vol_uuid_text(uuid, text);
	*i = find(d, text, volume);
	return 0;
}

static int copy_of(struct json_object *drive, const char *key, char **out)
{
	*out = strdup(json_str(drive, key));
	return *out ? 0 : vol_fail(NULL, -ENOMEM, "out of memory");
}

int describe_find(const uint8_t uuid[16], const char *volume, char **mount, char **options)
{
	struct json_object *o;
	struct describe d;
	size_t i;
	int r = begin_at(&d, uuid, volume, &i);

	if (r)
		return r;
	if (i < json_object_array_length(d.drives)) {
		o = json_object_array_get_idx(d.drives, i);
		if (mount)
			r = copy_of(o, "mount", mount);
		if (!r && options) {
			r = copy_of(o, "options", options);
			if (r && mount)
				free(*mount);
		}
	} else {
		r = vol_fail(NULL, -ENOENT, "%s has no record of it", d.path);
	}
	done(&d);
	return r;
}

int describe_del(const uint8_t uuid[16], const char *volume)
{
	struct describe d;
	size_t i;
	int r = begin_at(&d, uuid, volume, &i);

	if (r)
		return r;
	if (i < json_object_array_length(d.drives)) {
		json_object_array_del_idx(d.drives, i, 1);
		r = store(&d);
	}
	done(&d);
	return r;
}
