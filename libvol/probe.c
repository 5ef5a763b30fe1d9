// SPDX-License-Identifier: LGPL-2.1-or-later
/* What is on a device or file already: libblkid's low-level probing, and our own label. */
#include "find.h"

#include <blkid/blkid.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROBE_PLAIN (1u << 20) /* so much of a file without a signature must be empty */

static int own_label(int fd, char **what)
{
	struct vd_disk_label label;
	char uuid[VOL_UUID_TEXT];
	int r = vol_label_fd(fd, &label);

	if (r == -ENODATA || r == -EIO)
		return 0; /* none, or too short to have one */
	if (r == -EBADMSG || r == -EPROTONOSUPPORT) {
		*what = strdup(r == -EBADMSG ? "a damaged vd label" : "a vd label of a later version");
		return *what ? 0 : -ENOMEM;
	}
	if (r)
		return r;
	vol_uuid_text(label.pool, uuid);
	if (asprintf(what, "member %u of vd pool %.127s (%s)", le32_to_cpu(label.index), label.pool_name, uuid) < 0) {
		*what = NULL;
		return -ENOMEM;
	}
	return 0;
}

static const char *value(blkid_probe pr, const char *name)
{
	const char *data;
	size_t len;

	return blkid_probe_lookup_value(pr, name, &data, &len) ? NULL : data;
}

static char *describe(blkid_probe pr)
{
	const char *type = value(pr, "TYPE"), *table = value(pr, "PTTYPE"), *usage = value(pr, "USAGE");
	const char *label = value(pr, "LABEL"), *uuid = value(pr, "UUID");
	const char *noun = usage && !strcmp(usage, "filesystem") ? " filesystem" :
			   usage && !strcmp(usage, "raid")	 ? " member" :
			   usage && !strcmp(usage, "crypto")	 ? " encrypted volume" : "";
	char *what = NULL;
	int n;

	if (type)
		n = asprintf(&what, "%s%s%s%s%s%s%s%s", type, noun, label ? " labelled \"" : "", label ? label : "",
			     label ? "\"" : "", uuid ? " (UUID " : "", uuid ? uuid : "", uuid ? ")" : "");
	else
		n = asprintf(&what, "%s partition table", table ? table : "unknown");
	return n < 0 ? NULL : what;
}

static bool empty_at_start(int fd, const struct stat *st)
{
	char buf[65536];
	off_t end = st->st_size < (off_t)PROBE_PLAIN ? st->st_size : (off_t)PROBE_PLAIN;

	for (off_t off = 0; off < end;) {
		ssize_t n = pread(fd, buf, sizeof(buf), off);
		if (n <= 0)
			break;
		for (ssize_t i = 0; i < n; i++)
			if (buf[i])
				return false;
		off += n;
	}
	return true;
}

int vol_probe_fd(int fd, bool wipe, char **what)
{
	char *found = NULL;
	struct stat st;
	blkid_probe pr;
	int r;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISREG(st.st_mode) && st.st_size == 0) {
		*what = NULL;
		return 0; /* libblkid takes an empty file for an error */
	}
	r = own_label(fd, &found);
	if (r)
		return r;
	pr = blkid_new_probe();
	if (!pr || blkid_probe_set_device(pr, fd, 0, 0)) {
		r = errno ? -errno : -EIO;
		goto out;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL |
						      BLKID_SUBLKS_UUID | BLKID_SUBLKS_MAGIC);
	blkid_probe_enable_partitions(pr, 1);
	blkid_probe_set_partitions_flags(pr, BLKID_PARTS_MAGIC);
	r = 0;
	/* Not the safe probe: several signatures are several reasons to refuse. */
	for (;;) {
		int found_one = blkid_do_probe(pr);
		if (found_one < 0) {
			r = errno ? -errno : -EIO;
			break;
		}
		if (found_one)
			break;
		if (!found)
			found = describe(pr);
		if (!wipe)
			break;
		if (blkid_do_wipe(pr, 0)) {
			r = errno ? -errno : -EIO;
			break;
		}
	}
	if (!r && !found && S_ISREG(st.st_mode) && !empty_at_start(fd, &st))
		found = strdup("data of a kind libblkid does not know");
out:
	if (pr)
		blkid_free_probe(pr);
	if (r) {
		free(found);
		return r;
	}
	*what = found;
	return 0;
}

int vol_probe_beside(int fd, uint64_t from, uint64_t to, char **what)
{
	blkid_probe pr = blkid_new_probe();
	int one, r = 0;

	*what = NULL;
	if (!pr || blkid_probe_set_device(pr, fd, 0, 0)) {
		r = errno ? -errno : -EIO;
		goto out;
	}
	blkid_probe_enable_superblocks(pr, 1);
	blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
						      BLKID_SUBLKS_MAGIC);
	while (!(one = blkid_do_probe(pr)) && !*what) {
		const char *at = value(pr, "SBMAGIC_OFFSET");
		uint64_t off = at ? strtoull(at, NULL, 10) : 0;

		if (off < from || off >= to)
			*what = describe(pr);
	}
	if (one < 0)
		r = errno ? -errno : -EIO;
out:
	if (pr)
		blkid_free_probe(pr);
	return r;
}

int vol_probe(const char *path, char **what)
{
	struct vol_geometry geo;
	char why[256];
	int fd, r;

	r = vol_member_open(path, VOL_LOCK_NONE, &fd, &geo, why);
	if (r)
		return vol_fail(NULL, r, "%s %s", path, why);
	r = vol_probe_fd(fd, false, what);
	close(fd);
	if (r)
		return vol_fail(NULL, r, "%s: cannot look for signatures on it: %s", path, vol_strerror(r));
	return 0;
}
