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
	struct json_object *root, *drives, *servers, *untold;
};

static int list_of(struct describe *d, const char *key, struct json_object **list)
{
	if (json_object_object_get_ex(d->root, key, list))
		return json_object_is_type(*list, json_type_array) ? 0 :
		       vol_fail(NULL, -EINVAL, "%s: \"%s\" is not a list; repair or remove the file", d->path, key);
	*list = json_object_new_array();
	json_set(d->root, key, *list);
	return 0;
}

/* A file that is not there is an empty description; one that cannot be parsed is
 * somebody's, and is not overwritten. */
static int load(struct describe *d)
{
	int r;

	d->root = json_object_from_file(d->path);
	if (!d->root && access(d->path, F_OK) == 0)
		return vol_fail(NULL, -EINVAL, "%s is not valid JSON; repair or remove it", d->path);
	if (!d->root) {
		d->root = json_object_new_object();
		json_set_str(d->root, "server", "local");
	}
	r = list_of(d, "drives", &d->drives);
	if (!r)
		r = list_of(d, "servers", &d->servers);
	return r ? r : list_of(d, "untold", &d->untold);
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

int describe_write(const char *path, int dir, struct json_object *root)
{
	const char *text = json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY);
	size_t len = strlen(text);
	char new[3210];
	int fd, r = 0;

	if (snprintf(new, sizeof(new), "%s.new", path) >= (int)sizeof(new))
		return vol_fail(NULL, -ENAMETOOLONG, "%.100s… is too long for a path", path);
	fd = open(new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0 || write(fd, text, len) != (ssize_t)len || write(fd, "\n", 1) != 1 || fsync(fd) ||
	    rename(new, path) || fsync(dir))
		r = vol_fail(NULL, errno ? -errno : -EIO, "%s cannot be written: %s", path, vol_strerror(-errno));
	if (fd >= 0)
		close(fd);
	return r;
}

static int store(struct describe *d)
{
	return describe_write(d->path, d->lock, d->root);
}

/* Index of the entry of that pool with `name` as its `key`, or how many there are. */
static size_t find(struct json_object *list, const uint8_t uuid[16], const char *key, const char *name)
{
	size_t n = json_object_array_length(list), i;
	char text[VOL_UUID_TEXT];

	vol_uuid_text(uuid, text);
	for (i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(list, i);

		if (json_object_is_type(o, json_type_object) && !strcmp(json_str(o, "uuid"), text) && !strcmp(json_str(o, key), name))
			break;
	}
	return i;
}

static void set_uuid(struct json_object *o, const char *key, const uint8_t uuid[16])
{
	char text[VOL_UUID_TEXT];

	vol_uuid_text(uuid, text);
	json_set_str(o, key, text);
}

static struct json_object *entry(const char *pool, const uint8_t uuid[16], const char *key, const char *name)
{
	struct json_object *o = json_object_new_object();

	json_set_str(o, "pool", pool);
	set_uuid(o, "uuid", uuid);
	json_set_str(o, key, name);
	return o;
}

static int del(struct describe *d, struct json_object *list, size_t i)
{
	int r = 0;

	if (i < json_object_array_length(list)) {
		json_object_array_del_idx(list, i, 1);
		r = store(d);
	}
	done(d);
	return r;
}

/* The same of what a server is to be told of a volume. */
static size_t find_untold(struct describe *d, const uint8_t uuid[16], const struct describe_untold *u)
{
	size_t n = json_object_array_length(d->untold), i;
	char text[VOL_UUID_TEXT], volume[VOL_UUID_TEXT];

	vol_uuid_text(uuid, text);
	vol_uuid_text(u->volume_uuid, volume);
	for (i = 0; i < n; i++) {
		struct json_object *o = json_object_array_get_idx(d->untold, i);

		if (json_object_is_type(o, json_type_object) && !strcmp(json_str(o, "uuid"), text) && !strcmp(json_str(o, "server"), u->server) &&
		    !strcmp(json_str(o, "volume_uuid"), volume))
			break;
	}
	return i;
}

static void forget_untold(struct describe *d, const uint8_t uuid[16], const char *server)
{
	size_t i;

	while ((i = find(d->untold, uuid, "server", server)) < json_object_array_length(d->untold))
		json_object_array_del_idx(d->untold, i, 1);
}

/* ---- drives --------------------------------------------------------------- */

int describe_add(const char *pool, const uint8_t uuid[16], const char *volume, bool readonly, const struct describe_drive *drive,
		 const uint8_t volume_uuid[16])
{
	struct json_object *o;
	struct describe d;
	int r = begin(&d);

	if (r)
		return r;
	o = entry(pool, uuid, "volume", volume);
	if (volume_uuid)
		set_uuid(o, "volume_uuid", volume_uuid);
	json_set_str(o, "mode", readonly ? "ro" : "rw");
	json_set_str(o, "server", drive->server);
	json_set_str(o, "mount", drive->mount ? drive->mount : "");
	json_set_str(o, "options", drive->options ? drive->options : "");
	json_set_bool(o, "no_mount", drive->no_mount);
	json_set_bool(o, "automount", drive->automount);
	json_set_bool(o, "duplicate", drive->duplicate);
	json_set_bool(o, "dhchap", drive->dhchap);
	json_object_array_put_idx(d.drives, find(d.drives, uuid, "volume", volume), o);
	r = store(&d);
	done(&d);
	return r;
}

void describe_drive_free(struct describe_drive *drive)
{
	json_object_put(drive->entry);
	memset(drive, 0, sizeof(*drive));
}

int describe_find(const uint8_t uuid[16], const char *volume, struct describe_drive *out)
{
	struct json_object *o;
	struct describe d;
	const char *server;
	size_t i;
	int r = begin(&d);

	if (r)
		return r;
	i = find(d.drives, uuid, "volume", volume);
	if (i < json_object_array_length(d.drives)) {
		o = json_object_array_get_idx(d.drives, i);
		if (!json_get_str(o, "server", &server))
			server = VOL_SERVER_LOCAL;
		*out = (struct describe_drive){
			.server = server, .mount = json_str(o, "mount"), .options = json_str(o, "options"),
			.no_mount = json_flag(o, "no_mount"), .automount = json_flag(o, "automount"),
			.duplicate = json_flag(o, "duplicate"), .dhchap = json_flag(o, "dhchap"), .entry = json_object_get(o),
		};
	} else {
		r = vol_fail(NULL, -ENOENT, "%s has no record of it", d.path);
	}
	done(&d);
	return r;
}

int describe_each(int (*fn)(void *arg, const uint8_t uuid[16], const char *pool, const char *volume, const char *server), void *arg)
{
	struct json_object *drives;
	struct describe d;
	int r = begin(&d);

	if (r)
		return r;
	drives = json_object_get(d.drives);
	done(&d); /* fn may look, too */
	for (size_t i = 0; !r && i < json_object_array_length(drives); i++) {
		struct json_object *o = json_object_array_get_idx(drives, i);
		const char *server;
		uint8_t uuid[16];

		if (json_object_is_type(o, json_type_object) && json_get_str(o, "server", &server) && strcmp(server, VOL_SERVER_LOCAL) &&
		    !vol_uuid_parse(json_str(o, "uuid"), uuid))
			r = fn(arg, uuid, json_str(o, "pool"), json_str(o, "volume"), server);
	}
	json_object_put(drives);
	return r;
}

int describe_del(const uint8_t uuid[16], const char *volume)
{
	struct describe d;
	int r = begin(&d);

	return r ? r : del(&d, d.drives, find(d.drives, uuid, "volume", volume));
}

/* ---- what servers are to be told --------------------------------------------- */

int describe_untold_add(const char *pool, const uint8_t uuid[16], const struct describe_untold *u)
{
	struct json_object *o;
	struct describe d;
	int r = begin(&d);

	if (r)
		return r;
	o = entry(pool, uuid, "server", u->server);
	json_set_str(o, "volume", u->volume);
	set_uuid(o, "volume_uuid", u->volume_uuid);
	json_object_array_put_idx(d.untold, find_untold(&d, uuid, u), o);
	r = store(&d);
	done(&d);
	return r;
}

/* By its UUID: it may have another name by now, and another its name.  Earlier versions recorded none. */
static bool is_drive(struct describe *d, const uint8_t uuid[16], struct json_object *untold)
{
	size_t n = json_object_array_length(d->drives), i = find(d->drives, uuid, "volume", json_str(untold, "volume"));

	if (i < n && !*json_str(json_object_array_get_idx(d->drives, i), "volume_uuid"))
		return true;
	return find(d->drives, uuid, "volume_uuid", json_str(untold, "volume_uuid")) < n;
}

int describe_untold_each(const uint8_t uuid[16], int (*fn)(void *arg, const struct describe_untold *u), void *arg)
{
	struct json_object *list = json_object_new_array();
	char text[VOL_UUID_TEXT];
	struct describe d;
	int r = begin(&d);

	if (r) {
		json_object_put(list);
		return r;
	}
	vol_uuid_text(uuid, text);
	for (size_t i = 0; i < json_object_array_length(d.untold); i++) {
		struct json_object *o = json_object_array_get_idx(d.untold, i);

		if (json_object_is_type(o, json_type_object) && !strcmp(json_str(o, "uuid"), text) && !is_drive(&d, uuid, o))
			json_object_array_add(list, json_object_get(o));
	}
	done(&d); /* fn may change it */
	for (size_t i = 0; !r && i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);
		struct describe_untold u = { .server = json_str(o, "server"), .volume = json_str(o, "volume") };

		if (!vol_uuid_parse(json_str(o, "volume_uuid"), u.volume_uuid))
			r = fn(arg, &u);
	}
	json_object_put(list);
	return r;
}

int describe_untold_del(const uint8_t uuid[16], const struct describe_untold *u)
{
	struct describe d;
	int r = begin(&d);

	return r ? r : del(&d, d.untold, find_untold(&d, uuid, u));
}

/* ---- servers -------------------------------------------------------------- */

int describe_server_add(const char *pool, const uint8_t uuid[16], const char *server, struct json_object *attrs)
{
	struct json_object *o;
	struct describe d;
	int r = begin(&d);
	size_t i;

	if (r)
		return r;
	i = find(d.servers, uuid, "server", server);
	if (i == json_object_array_length(d.servers) || !json_get(json_object_array_get_idx(d.servers, i), "attrs", json_type_object, &o) ||
	    !json_object_equal(o, attrs))
		forget_untold(&d, uuid, server);
	o = entry(pool, uuid, "server", server);
	json_set(o, "attrs", json_object_get(attrs));
	json_object_array_put_idx(d.servers, i, o);
	r = store(&d);
	done(&d);
	return r;
}

int describe_server_find(const uint8_t uuid[16], const char *server, struct json_object **attrs)
{
	struct describe d;
	size_t i;
	int r = begin(&d);

	if (r)
		return r;
	i = find(d.servers, uuid, "server", server);
	if (i == json_object_array_length(d.servers) ||
	    !json_get(json_object_array_get_idx(d.servers, i), "attrs", json_type_object, attrs))
		r = vol_fail(NULL, -ENOENT, "%s has no record of it", d.path);
	else
		json_object_get(*attrs);
	done(&d);
	return r;
}

int describe_server_del(const uint8_t uuid[16], const char *server)
{
	struct describe d;
	int r = begin(&d);


	if (!r)
		forget_untold(&d, uuid, server);
	return r ? r : del(&d, d.servers, find(d.servers, uuid, "server", server));
}

int describe_server_other(const uint8_t uuid[16], const char *server, char pool[VOL_NAME_SIZE])
{
	char text[VOL_UUID_TEXT];
	struct describe d;
	int r = begin(&d);

	if (r)
		return r;
	vol_uuid_text(uuid, text);
	r = -ENOENT;
	for (size_t i = 0; r && i < json_object_array_length(d.servers); i++) {
		struct json_object *o = json_object_array_get_idx(d.servers, i);

		if (!json_object_is_type(o, json_type_object) || strcmp(json_str(o, "server"), server) || !strcmp(json_str(o, "uuid"), text))
			continue;
		snprintf(pool, VOL_NAME_SIZE, "%s", json_str(o, "pool"));
		r = 0;
	}
	done(&d);
	return r;
}
