// SPDX-License-Identifier: LGPL-2.1-or-later
/* What a link of this host has above its device: a file system, made if asked, and mounted (present.h). */
#include "link-list.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "describe.h"
#include "present.h"

int link_mount_check(const struct link_spec *spec, char dir[128])
{
	struct stat st;
	char *full;
	int r = 0;

	if (spec->automount && !present_systemd())
		return vol_fail(NULL, -EOPNOTSUPP, "--automount needs systemd, which is not the first process of this machine\n"
				"without it the file system is mounted at once");
	if (spec->mkfs && spec->readonly)
		return vol_fail(NULL, -EINVAL, "%s/%s is to be linked read-only: no file system can be made on it", spec->pool, spec->volume);
	if (!spec->mount || !strcmp(spec->mount, LINK_AUTO))
		return 0;
	full = realpath(spec->mount, NULL);
	if (!full || stat(full, &st))
		return vol_fail(NULL, -errno, "%s: %s; make it first: mkdir -p %s", spec->mount, vol_strerror(-errno), spec->mount);
	if (!S_ISDIR(st.st_mode))
		r = vol_fail(NULL, -ENOTDIR, "%s is not a directory", spec->mount);
	else if (strlen(full) > 127)
		r = vol_fail(NULL, -ENAMETOOLONG, "%s is longer than the 127 bytes a mount point may have here", full);
	else
		snprintf(dir, 128, "%s", full);
	free(full);
	return r;
}

/* What is on the device, and whether it can be mounted. */
static int check_content(struct link_info *l, bool want_mount)
{
	int r;

	/* Only to be told. */
	if (!want_mount && (l->blank || (l->kernel && device_known(l->device, &l->content))))
		return 0;
	r = device_probe(l->device, &l->content);
	if (!want_mount)
		return 0;
	if (r)
		return r;
	if (!l->content.type[0])
		return vol_fail(NULL, -ENODATA, "nothing that can be mounted is on %s/%s: it has no file system yet\n"
				"--mkfs ext4 makes one; or link it without --mount, then 'mkfs.ext4 %s', and 'mount %s DIR'",
				l->pool, l->volume, l->path, l->path);
	if (strcmp(l->content.usage, "filesystem"))
		return vol_fail(NULL, -ENODATA, "%s/%s carries %s (%s), which is not a file system that can be mounted as a whole\n"
				"link it without --mount", l->pool, l->volume, l->content.type, l->content.usage);
	return 0;
}

static int describe(const struct link_spec *spec, const struct link_info *l)
{
	return describe_add(l->pool, l->uuid, l->volume, l->readonly, &(struct describe_drive){
		.server = l->server, .mount = l->mount, .options = l->mount[0] ? spec->options : NULL, .no_mount = spec->no_mount,
		.automount = l->mount[0] && spec->automount, .duplicate = spec->duplicate }, NULL);
}

static int mount_it(const struct link_spec *spec, struct link_info *l)
{
	struct present_result res;
	char uuid[VOL_UUID_TEXT], asked[sizeof(l->mount)];
	struct present_spec ps = {
		.device = l->device, .name = l->volume, .uuid_text = uuid, .dir = l->mount, .options = spec->options, .content = &l->content,
		.automount = spec->automount, .readonly = l->readonly,
		/* Who names the place for what nobody can write to has asked for it. */
		.duplicate = spec->duplicate || (l->readonly && l->mount[0]),
	};
	int r;

	vol_uuid_text(l->volume_uuid, uuid);
	r = present_mount(&ps, &res);
	if (r)
		return r;
	snprintf(asked, sizeof(asked), "%s", l->mount);
	snprintf(l->mount, sizeof(l->mount), "%.127s", res.mount); /* as long as what was asked for, or shorter */
	snprintf(l->note, sizeof(l->note), "%s", res.note);
	/* As it is now: a link that is made again is mounted there, or nowhere. */
	r = strcmp(asked, l->mount) || !asked[0] ? describe(spec, l) : 0;
	if (r && present_umount(l->mount))
		vol_log(VOL_LOG_WARN, "%s", vol_error(NULL));
	if (r)
		l->mount[0] = 0;
	return r;
}

int link_mount(const struct link_spec *spec, struct link_info *l)
{
	bool want = l->mount[0] || (spec->mount && !strcmp(spec->mount, LINK_AUTO));
	int r = spec->mkfs ? present_mkfs(l->device, spec->mkfs) : 0;

	if (!r && spec->mkfs)
		l->blank = false;
	if (!r)
		r = check_content(l, want);
	return r || !want ? r : mount_it(spec, l);
}

int link_umount(const struct link_info *l, bool certain, int (*each)(void *arg, const char *dir), void *arg)
{
	struct describe_drive mine;
	int r = certain ? device_mounts(l->device, each, arg) : 0;

	if (r || link_served(l) || describe_find(l->uuid, l->volume, &mine))
		return r;
	/* One that waits is no mount of the device.  Where it is only this host's record is believed. */
	if (mine.automount && mine.mount[0] == '/')
		r = present_stop(l->device, mine.mount);
	describe_drive_free(&mine);
	return r;
}

void link_flush(const struct link_info *l)
{
	int fd = open(l->device, O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && fsync(fd))
		vol_log(VOL_LOG_WARN, "%s cannot be flushed: %s; what was written to it last may be lost", l->device, vol_strerror(-errno));
	if (fd >= 0)
		close(fd);
}
