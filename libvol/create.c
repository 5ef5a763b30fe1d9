// SPDX-License-Identifier: LGPL-2.1-or-later
/* New members, and pools made of them. */
#include "host.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Absolute, but a symbolic link at the end is kept: /dev/disk/by-id/… is the
 * better name to remember. */
static char *absolute(const char *path)
{
	char *copy = strdup(path), *dir = NULL, *base, *out = NULL;

	if (!copy)
		return NULL;
	base = strrchr(copy, '/');
	if (base) {
		*base++ = 0;
		dir = realpath(copy[0] ? copy : "/", NULL);
	} else {
		base = copy;
		dir = realpath(".", NULL);
	}
	if (dir && asprintf(&out, "%s/%s", dir[1] ? dir : "", base) < 0)
		out = NULL;
	if (!dir)
		out = strdup(path); /* no such directory: opening it will say so */
	free(dir);
	free(copy);
	return out;
}

/* Empty; it gets its size when it is locked. */
static int create_file(struct vol_new_member *m, struct vol_errbuf *err)
{
	int fd = open(m->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0 && errno == EEXIST)
		return 0;
	if (fd < 0)
		return vol_failbuf(err, vol_errno(), "%s cannot be created: %s", m->path, strerror(errno));
	m->created = true;
	close(fd);
	return 0;
}

/* Nothing can be lost in an empty file: it may well be what an interrupted
 * command has created and not come to make any longer. */
static int size_file(struct vol_new_member *m, uint64_t size, bool test, struct vol_errbuf *err)
{
	if (!test) {
		m->was_empty = true;
		if (ftruncate(m->fd, (off_t)size))
			return vol_failbuf(err, vol_errno(), "%s cannot be made %llu bytes long: %s", m->path,
					   (unsigned long long)size, strerror(errno));
	}
	m->geo.bytes = size;
	return 0;
}

int vol_new_member(struct vol_new_member *m, const char *path, uint64_t file_size, bool force, bool test,
		   struct vol_errbuf *err)
{
	char why[256];
	struct stat st;
	int r;

	*m = (struct vol_new_member){ .fd = -1, .path = absolute(path) };
	if (!m->path)
		return vol_failbuf(err, -ENOMEM, "out of memory");
	if (strlen(m->path) >= PATH_MAX || strchr(m->path, '\n')) {
		r = vol_failbuf(err, -EINVAL, "%.200s…: such a path cannot be kept in the devices file", m->path);
		goto err;
	}
	if (file_size && stat(m->path, &st) && errno == ENOENT) {
		m->geo = (struct vol_geometry){ .bytes = file_size, .sector = 512, .is_file = true };
		if (!test) {
			r = create_file(m, err);
			if (r)
				goto err;
		}
	}
	if (!(test && m->geo.bytes)) {
		r = vol_member_open(m->path, VOL_LOCK_EXCLUSIVE, &m->fd, &m->geo, why);
		if (r == -EBUSY)
			m->created = false; /* who was quicker has it now */
		if (r == -ENOENT) {
			vol_failbuf(err, r, "%s %s; --size SIZE would make a sparse file of it", m->path, why);
			goto err;
		}
		if (r) {
			vol_failbuf(err, r, "%s %s; it cannot become a member of a pool", m->path, why);
			goto err;
		}
		if (file_size && m->geo.is_file && !m->geo.bytes) {
			r = size_file(m, file_size, test, err);
			if (r)
				goto err;
		}
		r = vol_probe_fd(m->fd, false, &m->found);
		if (r) {
			vol_failbuf(err, r, "%s: cannot see what is on it: %s", m->path, vol_strerror(r));
			goto err;
		}
		if (m->found && !force) {
			r = vol_failbuf(err, -ENOTEMPTY, "%s has %s on it, which would be lost; nothing was changed\n"
					"if it is not wanted any more, say --force", m->path, m->found);
			goto err;
		}
	}
	if (m->geo.bytes >> VD_BLOCK_SHIFT < VD_MEMBER_MIN_BLOCKS) {
		r = vol_failbuf(err, -ENOSPC, "%s has %llu bytes; a member needs 8 MiB at least", m->path,
				(unsigned long long)m->geo.bytes);
		goto err;
	}
	return 0;
err:
	vol_new_member_undo(m);
	return r;
}

int vol_new_member_wipe(struct vol_new_member *m, struct vol_errbuf *err)
{
	char *found = NULL;
	int r;

	if (!m->found)
		return 0;
	r = vol_probe_fd(m->fd, true, &found);
	free(found);
	if (r)
		return vol_failbuf(err, r, "%s: cannot take %s off it: %s", m->path, m->found, vol_strerror(r));
	vol_log(VOL_LOG_WARN, "%s: %s is overwritten", m->path, m->found);
	return 0;
}

int vol_new_member_give(const struct vol_new_member *m, struct vol_host *h, unsigned index)
{
	int fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 0), r;

	if (fd < 0)
		return vol_errno();
	r = vol_host_set_member(h, index, fd, m->path, m->geo.is_file);
	if (r)
		close(fd);
	return r;
}

void vol_new_member_keep(struct vol_new_member *m)
{
	m->created = m->was_empty = false;
}

void vol_new_member_undo(struct vol_new_member *m)
{
	/* While it is locked: nobody else has put anything there. */
	if (m->created)
		unlink(m->path);
	else if (m->was_empty && ftruncate(m->fd, 0))
		vol_log(VOL_LOG_WARN, "%s was empty and is not any more: %s", m->path, strerror(errno));
	if (m->fd >= 0)
		close(m->fd);
	free(m->path);
	free(m->found);
	*m = (struct vol_new_member){ .fd = -1 };
}

/* ---- pools ------------------------------------------------------------- */

bool vol_same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	if (stat(a, &sa) || stat(b, &sb))
		return !strcmp(a, b);
	if (S_ISBLK(sa.st_mode) && S_ISBLK(sb.st_mode))
		return sa.st_rdev == sb.st_rdev;
	return sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino;
}

/* A second pool of that name could only be told apart by its UUID. */
static int check_name_free(const struct vol_pool_spec *spec)
{
	struct vol_found *found;
	size_t n;
	int r;

	r = vol_find_members(&found, &n);
	if (r)
		return r;
	for (size_t i = 0; i < n && !r; i++) {
		char uuid[VOL_UUID_TEXT];
		bool replaced = false;
		if (found[i].error || strcmp(found[i].pool_name, spec->name))
			continue;
		for (unsigned k = 0; k < spec->npaths; k++)
			replaced |= spec->force && vol_same_file(found[i].path, spec->path[k]);
		if (replaced)
			continue;
		vol_uuid_text(found[i].pool, uuid);
		r = vol_fail(NULL, -EEXIST, "a pool called %s exists already (%s, with member %s); choose another name",
			     spec->name, uuid, found[i].path);
	}
	vol_found_free(found, n);
	return r;
}

static int choose_sector(const struct vol_pool_spec *spec, const struct vol_new_member *m, uint32_t *sector)
{
	uint32_t want = spec->sector_size;

	if (want && want != 512 && want != 4096)
		return vol_fail(NULL, -EINVAL, "a sector size of %u is not possible; it is 512 or 4096", want);
	for (unsigned i = 0; i < spec->npaths; i++) {
		if (m[i].geo.sector != 512 && m[i].geo.sector != 4096)
			return vol_fail(NULL, -EINVAL, "%s has sectors of %u bytes; a member's are 512 or 4096",
					m[i].path, m[i].geo.sector);
		if (m[i].geo.sector > 512 && want == 512)
			return vol_fail(NULL, -EINVAL, "%s takes only sectors of 4096 bytes; a pool with sectors of 512 cannot have it",
					m[i].path);
	}
	if (!want) {
		want = 512;
		for (unsigned i = 0; i < spec->npaths; i++)
			want = vd_max(want, m[i].geo.sector);
	}
	*sector = want;
	return 0;
}

static int format(const struct vol_pool_spec *spec, struct vol_new_member *m, struct vol_errbuf *err, uint8_t uuid[16])
{
	uint64_t *blocks = calloc(spec->npaths, sizeof(*blocks));
	uint8_t(*ids)[16] = calloc(spec->npaths, sizeof(*ids));
	struct vd_format_spec fs = {
		.name = spec->name, .nmembers = spec->npaths, .journal_blocks = spec->journal_size >> VD_BLOCK_SHIFT,
		.policy = (spec->error_if_full ? VD_POLICY_ERROR_IF_FULL : 0) | (spec->no_discards ? VD_POLICY_NO_DISCARD : 0),
		.test = spec->test,
	};
	struct vol_host *h = NULL;
	int r = -ENOMEM;

	if (!blocks || !ids || vol_host_new(&h)) {
		vol_failbuf(err, r, "out of memory");
		goto out;
	}
	r = choose_sector(spec, m, &fs.sector_size);
	if (r) {
		snprintf(err->text, sizeof(err->text), "%s", vol_error(NULL));
		goto out;
	}
	vol_uuid_new(fs.uuid);
	for (unsigned i = 0; i < spec->npaths; i++) {
		blocks[i] = m[i].geo.bytes >> VD_BLOCK_SHIFT;
		vol_uuid_new(ids[i]);
		if (spec->test)
			continue;
		r = vol_new_member_wipe(&m[i], err);
		if (!r) {
			r = vol_new_member_give(&m[i], h, i);
			if (r)
				vol_failbuf(err, r, "out of memory");
		}
		if (r)
			goto out;
	}
	fs.blocks = blocks;
	fs.member_uuid = (const uint8_t(*)[16])ids;
	vol_host_set_identity(h, fs.uuid, spec->name, false);
	r = vd_pool_format(vol_host_vd(h), &fs);
	if (r == -ENOSPC)
		vol_failbuf(err, r, "pool %s: the members are too small for its journal; give it larger ones or a smaller --journal",
			    spec->name);
	else if (r == -EINVAL)
		vol_failbuf(err, r, "pool %s cannot be made so: its journal of %llu bytes or a member's size is out of range",
			    spec->name, (unsigned long long)spec->journal_size);
	else if (r)
		vol_failbuf(err, r, "pool %s cannot be written to its members: %s", spec->name, vol_strerror(r));
out:
	if (!r)
		memcpy(uuid, fs.uuid, 16);
	vol_host_free(h);
	free(blocks);
	free(ids);
	return r;
}

int vol_pool_create(const struct vol_pool_spec *spec, uint8_t uuid[16])
{
	struct vol_new_member *m = NULL;
	struct vol_errbuf err = { "" };
	const char **paths = NULL;
	unsigned n = 0;
	int r;

	r = vol_check_pool_name(spec->name);
	if (r)
		return r;
	uint8_t ignored[16];
	if (!vol_uuid_parse(spec->name, ignored))
		return vol_fail(NULL, -EINVAL, "pool name \"%s\" is a UUID, and would be taken for a pool's UUID; choose another",
				spec->name);
	if (spec->npaths < 1 || spec->npaths > VD_MEMBERS_MAX)
		return vol_fail(NULL, -EINVAL, "pool %s: %u members were named; 1 to %u are possible", spec->name,
				spec->npaths, VD_MEMBERS_MAX);
	r = check_name_free(spec);
	if (r)
		return r;
	m = calloc(spec->npaths, sizeof(*m));
	paths = calloc(spec->npaths, sizeof(*paths));
	if (!m || !paths) {
		r = vol_fail(NULL, -ENOMEM, "out of memory");
		goto out;
	}
	for (n = 0; n < spec->npaths && !r; n++) {
		for (unsigned k = 0; k < n && !r; k++)
			if (vol_same_file(spec->path[k], spec->path[n]))
				r = vol_failbuf(&err, -EINVAL, "%s and %s are the same; a pool has each member once",
						spec->path[k], spec->path[n]);
		if (r)
			break;
		r = vol_new_member(&m[n], spec->path[n], spec->file_size, spec->force, spec->test, &err);
		if (r)
			break;
		paths[n] = m[n].path;
	}
	/* Known before it exists: a pool that cannot be found is worse than a path with nothing behind it. */
	if (!r && !spec->test) {
		r = vol_devices_remember(paths, n);
		if (r)
			vol_failbuf(&err, r, "pool %s is not made: %s", spec->name, vol_error(NULL));
	}
	if (!r) {
		r = format(spec, m, &err, uuid);
		if (r && !spec->test)
			(void)vol_devices_forget(paths, n);
		for (unsigned i = 0; !r && i < n; i++)
			vol_new_member_keep(&m[i]);
	}
	if (r)
		vol_fail(NULL, r, "%s", err.text);
out:
	for (unsigned i = 0; i < n; i++)
		vol_new_member_undo(&m[i]);
	free(m);
	free(paths);
	return r;
}
