// SPDX-License-Identifier: GPL-2.0-or-later
/* What a drive is, as requests and records tell it, and what of that is allowed. */
#include "agent.h"
#include "../libvol/present.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define DEPTH_MAX 8

int agent_json_parse(const char *line, size_t len, struct json_object **out)
{
	struct json_tokener *tok;
	enum json_tokener_error e;
	struct json_object *o;
	bool whole;

	if (memchr(line, 0, len))
		return vol_fail(NULL, -EINVAL, "a NUL byte in a line");
	tok = json_tokener_new_ex(DEPTH_MAX);
	if (!tok)
		return vol_fail(NULL, -ENOMEM, "out of memory");
	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tok, line, (int)len + 1); /* with its NUL: a bare number ends there */
	e = json_tokener_get_error(tok);
	whole = e == json_tokener_success && json_tokener_get_parse_end(tok) >= len;
	json_tokener_free(tok);
	if (whole && json_object_is_type(o, json_type_object)) {
		*out = o;
		return 0;
	}
	json_object_put(o);
	return vol_fail(NULL, -EINVAL, "not a JSON object in one line: %s", e != json_tokener_success ? json_tokener_error_desc(e) :
			whole ? "it is another value" : "something follows it");
}

/* ---- fields ---------------------------------------------------------------- */

/* A string of such characters that fits; absent: "". */
static int take(struct json_object *o, const char *key, const char *chars, char *buf, size_t size)
{
	const char *s = "";

	if (json_object_object_get_ex(o, key, NULL) && !json_get_str(o, key, &s))
		return vol_fail(NULL, -EINVAL, "\"%s\" is no text", key);
	if (strlen(s) >= size)
		return vol_fail(NULL, -EINVAL, "\"%s\" is longer than %zu bytes", key, size - 1);
	for (const char *c = s; *c; c++)
		if (chars ? !strchr(chars, *c) : (unsigned char)*c < ' ' || *c == 127)
			return vol_fail(NULL, -EINVAL, "\"%s\" has a character that cannot be in it", key);
	strcpy(buf, s);
	return 0;
}

static int take_bool(struct json_object *o, const char *key, bool *b)
{
	*b = false;
	if (json_object_object_get_ex(o, key, NULL) && !json_get_bool(o, key, b))
		return vol_fail(NULL, -EINVAL, "\"%s\" is neither true nor false", key);
	return 0;
}

int agent_uuid_parse(struct json_object *o, uint8_t uuid[16])
{
	static const uint8_t none[16];
	char text[VOL_UUID_TEXT];
	uint8_t u[16];
	int r = take(o, "uuid", NULL, text, sizeof(text));

	if (r)
		return r;
	if (vol_uuid_parse(text, u) || !memcmp(u, none, 16))
		return vol_fail(NULL, -EINVAL, "\"uuid\" is not the UUID of a volume");
	memcpy(uuid, u, 16);
	return 0;
}

int agent_nqn_parse(struct json_object *o, char nqn[224])
{
	int r = take(o, "nqn", ALNUM "+_.:-", nqn, 224);

	if (!r && nqn[0] && strncmp(nqn, AGENT_NQN, strlen(AGENT_NQN)))
		r = vol_fail(NULL, -EINVAL, "\"nqn\" does not begin with " AGENT_NQN ": it is no subsystem of vd's");
	return r;
}

static bool is_port(const char *s)
{
	return *s && strlen(s) <= 5 && strspn(s, "0123456789") == strlen(s) && atoi(s) >= 1 && atoi(s) <= 65535;
}

static int parse_via(struct json_object *o, struct agent_drive *d)
{
	uint8_t addr[16];
	char kind[16];
	int r = take(o, "kind", NULL, kind, sizeof(kind));

	if (r)
		return r;
	if (!strcmp(kind, "scsi"))
		return 0;
	if (strcmp(kind, "nvme-tcp"))
		return vol_fail(NULL, -EINVAL, "\"kind\" is neither nvme-tcp nor scsi");
	d->nvme = true;
	if ((r = agent_nqn_parse(o, d->nqn)) || (r = take(o, "address", NULL, d->address, sizeof(d->address))) ||
	    (r = take(o, "port", NULL, d->port, sizeof(d->port))) || (r = take_bool(o, "dhchap", &d->dhchap)))
		return r;
	if (!d->nqn[0])
		return vol_fail(NULL, -EINVAL, "\"nqn\" is missing");
	if (inet_pton(AF_INET, d->address, addr) != 1 && inet_pton(AF_INET6, d->address, addr) != 1)
		return vol_fail(NULL, -EINVAL, "\"address\" is no IP address");
	if (!is_port(d->port))
		return vol_fail(NULL, -EINVAL, "\"port\" is not the number of one");
	return 0;
}

/* Names below the root, each there once, and none that means a way back. */
static bool is_plain_path(const char *path)
{
	for (const char *at = path; *at; ) {
		size_t n = strcspn(++at, "/");

		if (at[-1] != '/' || !n || (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
			return false;
		at += n;
	}
	return path[0] == '/';
}

static int parse_mount(struct json_object *o, struct agent_drive *d)
{
	int r;

	d->mount = true;
	if ((r = take(o, "dir", NULL, d->dir, sizeof(d->dir))) || (r = take(o, "options", ALNUM "+_.,:=/@%-", d->options, sizeof(d->options))) ||
	    (r = take(o, "mkfs", "abcdefghijklmnopqrstuvwxyz0123456789", d->mkfs, sizeof(d->mkfs))) ||
	    (r = take_bool(o, "automount", &d->automount)) || (r = take_bool(o, "duplicate", &d->duplicate)))
		return r;
	if (d->dir[0] && !is_plain_path(d->dir))
		return vol_fail(NULL, -EINVAL, "\"dir\" is no path from the root on in which nothing is said twice");
	return 0;
}

int agent_drive_parse(struct json_object *o, struct agent_drive *out)
{
	struct agent_drive d = { 0 };
	char mode[4], pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	struct json_object *part;
	int r;

	if ((r = agent_uuid_parse(o, d.uuid)) || (r = take(o, "name", NULL, d.name, sizeof(d.name))) ||
	    (r = take(o, "mode", NULL, mode, sizeof(mode))))
		return r;
	vol_uuid_text(d.uuid, d.uuid_text);
	r = vol_parse_object(d.name, pool, volume);
	if (r)
		return r;
	if (!volume[0] || d.name[0] == '/')
		return vol_fail(NULL, -EINVAL, "\"name\" is not POOL/VOLUME");
	if (!json_get_u64(o, "size", &d.size) || !d.size || d.size % 512 || d.size > INT64_MAX)
		return vol_fail(NULL, -EINVAL, "\"size\" is not that of a volume in bytes");
	if (strcmp(mode, "rw") && strcmp(mode, "ro"))
		return vol_fail(NULL, -EINVAL, "\"mode\" is neither rw nor ro");
	d.readonly = !strcmp(mode, "ro");
	if (!json_get(o, "via", json_type_object, &part))
		return vol_fail(NULL, -EINVAL, "\"via\" is missing: how is the drive reached?");
	r = parse_via(part, &d);
	if (r)
		return r;
	if (json_object_object_get_ex(o, "mount", NULL)) {
		if (!json_get(o, "mount", json_type_object, &part))
			return vol_fail(NULL, -EINVAL, "\"mount\" is no object");
		r = parse_mount(part, &d);
		if (r)
			return r;
	}
	*out = d;
	return 0;
}

struct json_object *agent_drive_json(const struct agent_drive *d)
{
	struct json_object *o = json_object_new_object(), *part = json_object_new_object();

	json_set_str(o, "uuid", d->uuid_text);
	json_set_str(o, "name", d->name);
	json_set_u64(o, "size", d->size);
	json_set_str(o, "mode", d->readonly ? "ro" : "rw");
	json_set_str(part, "kind", d->nvme ? "nvme-tcp" : "scsi");
	if (d->nvme) {
		json_set_str(part, "nqn", d->nqn);
		json_set_str(part, "address", d->address);
		json_set_str(part, "port", d->port);
		json_set_bool(part, "dhchap", d->dhchap);
	}
	json_set(o, "via", part);
	if (d->mount) {
		part = json_object_new_object();
		json_set_str(part, "dir", d->dir);
		json_set_str(part, "options", d->options);
		json_set_str(part, "mkfs", d->mkfs);
		json_set_bool(part, "automount", d->automount);
		json_set_bool(part, "duplicate", d->duplicate);
		json_set(o, "mount", part);
	}
	return o;
}

/* ---- what is allowed ----------------------------------------------------------- */

/* Of these none makes the kernel or mount(8) do anything but with this file system; those that end in
 * "=" take any value. */
static const char *const harmless[] = {
	"ro", "rw", "sync", "async", "dirsync", "lazytime", "nolazytime", "atime", "noatime", "nodiratime", "relatime", "strictatime",
	"exec", "noexec", "nosuid", "nodev", "discard", "nodiscard", "discard=", "_netdev", "nofail", "iversion", "acl", "noacl",
	"user_xattr", "nouser_xattr", "nouuid", "norecovery", "noload", "data=", "commit=", "barrier", "nobarrier", "barrier=", "errors=continue", "errors=remount-ro",
	"delalloc", "nodelalloc", "journal_checksum", "stripe=", "inode32", "inode64", "largeio", "nolargeio", "swalloc", "allocsize=",
	"logbufs=", "logbsize=", "sunit=", "swidth=", "quota", "noquota", "uquota", "gquota", "pquota", "usrquota", "grpquota", "prjquota",
	"uqnoenforce", "gqnoenforce", "pqnoenforce", "dax", "dax=", "compress", "compress=", "compress-force", "compress-force=", "space_cache=",
	"ssd", "nossd", "autodefrag", "noautodefrag", "subvol=", "subvolid=", "uid=", "gid=", "umask=", "dmask=", "fmask=", "utf8",
};

static bool is_harmless(const char *option, size_t n)
{
	for (size_t i = 0; i < sizeof(harmless) / sizeof(harmless[0]); i++) {
		size_t len = strlen(harmless[i]);

		if (!strncmp(harmless[i], option, len) && (len == n || (len < n && harmless[i][len - 1] == '=')))
			return true;
	}
	return false;
}

static int check_options(const char *options)
{
	for (const char *at = options; *at; ) {
		size_t n = strcspn(at, ",");

		if (!is_harmless(at, n))
			return vol_fail(NULL, -EPERM, "this server does not mount with the option \"%.*s\"\n"
					"its administrator may allow it: vdagent --trust-mount-options", (int)n, at);
		at += n + (at[n] == ',');
	}
	return 0;
}

static int not_allowed(const char *dir, const char *why)
{
	return vol_fail(NULL, -EPERM, "this server does not mount on %s: %s", dir, why);
}

/* Nobody but root can put another in its place, or into it. */
static bool is_roots(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && st.st_uid == geteuid() && !(st.st_mode & 022);
}

/* Which of the agent's directories it is below: its length, 0 none. */
static size_t below(const struct agent *a, const char *dir)
{
	for (unsigned i = 0; i < a->ndirs; i++) {
		size_t n = strlen(a->dir[i]);

		while (n > 1 && a->dir[i][n - 1] == '/')
			n--;
		if (!strncmp(dir, a->dir[i], n) && dir[n == 1 ? 0 : n] == '/' && dir[1])
			return n;
	}
	return 0;
}

const char *agent_default_dir(const struct agent *a, char buf[256])
{
	snprintf(buf, 256, "%s/drive", PRESENT_DIR);
	if (below(a, buf) || !a->ndirs)
		snprintf(buf, 256, "%s", PRESENT_DIR);
	else
		snprintf(buf, 256, "%.200s/vd", strcmp(a->dir[0], "/") ? a->dir[0] : "");
	return buf;
}

/* One component after the other, without symbolic links and all on the file system of the first: what a drive has on
 * it was written by its host, and leads nowhere.  What is missing is made in one that is root's.  The last may be
 * anything but a link: what is mounted there already is looked at by who mounts. */
static int walk(int fd, const char *dir, const char *at)
{
	static const char others[] = "others than root may change a directory that is above it";
	const char *why = NULL;
	struct stat first, st;
	char part[256];
	int next;

	if (fstat(fd, &first) || !is_roots(fd))
		why = others;
	while (!why && *at) {
		size_t n = strcspn(at, "/");

		snprintf(part, sizeof(part), "%.*s", (int)n, at);
		/* Without O_DIRECTORY: an automount does not begin. */
		next = openat(fd, part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0 && errno == ENOENT)
			break;
		close(fd);
		fd = next;
		if (fd < 0 || fstat(fd, &st) || !S_ISDIR(st.st_mode))
			why = "a symbolic link, or a file, is in the way";
		else if (!at[n])
			break;
		else if (st.st_dev != first.st_dev)
			why = "another file system is mounted on a directory that is above it\n"
			      "its administrator may allow that: vdagent --mount-dir";
		else if (!is_roots(fd))
			why = others;
		at += n + 1;
	}
	if (fd >= 0)
		close(fd);
	return why ? not_allowed(dir, why) : 0;
}

int agent_dir_allowed(const struct agent *a, const char *dir, char out[256])
{
	char top[256], real[PATH_MAX];
	size_t n = below(a, dir);
	int fd, r;

	if (!n)
		return not_allowed(dir, "it is below none of the directories that its vdagent was given (--mount-dir)");
	snprintf(top, sizeof(top), "%.*s", (int)n, dir);
	/* The administrator's own may be a link: mounts are known by the name without it. */
	fd = realpath(top, real) ? open(real, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd < 0)
		return not_allowed(dir, "there is no such directory");
	r = walk(fd, dir, dir + (n == 1 ? 1 : n + 1));
	if (!r && snprintf(out, 256, "%s%s", strcmp(real, "/") ? real : "", dir + (n == 1 ? 0 : n)) >= 256)
		r = not_allowed(dir, "its name is too long");
	return r;
}

static bool is_inside(const char *a, const char *b)
{
	size_t n = strlen(a);

	return n && !strncmp(a, b, n) && b[n] == '/';
}

/* A mount below another drive's would be where that leads; one above would hide it.  Of two at once, one sees the other's record. */
static int check_others(const struct agent_drive *d, const char *dir)
{
	struct agent_drive *list = NULL;
	size_t n = 0;
	int r = agent_record_list(&list, &n);

	for (size_t i = 0; !r && i < n; i++)
		if (memcmp(list[i].uuid, d->uuid, 16) && list[i].mount && (is_inside(list[i].dir, dir) || is_inside(dir, list[i].dir))) {
			char why[600];

			snprintf(why, sizeof(why), "%s is mounted on %s", list[i].name, list[i].dir);
			r = not_allowed(dir, why);
		}
	free(list);
	return r;
}

int agent_drive_allowed(const struct agent *a, const struct agent_drive *d, char dir[256])
{
	char base[256], want[512];
	int r;

	dir[0] = 0;
	if (!d->mount)
		return 0;
	r = a->trust_options ? 0 : check_options(d->options);
	agent_default_dir(a, base);
	/* Below the default one are drives' own names, and nothing deeper: the agent gives them itself. */
	if (!r && is_inside(base, d->dir) && strchr(d->dir + strlen(base) + 1, '/'))
		r = not_allowed(d->dir, "another drive may be mounted above it");
	snprintf(want, sizeof(want), "%.255s/drive", base);
	if (!r)
		r = agent_dir_allowed(a, d->dir[0] ? d->dir : want, dir);
	if (!r && !d->dir[0])
		*strrchr(dir, '/') = 0;
	return r || !d->dir[0] ? r : check_others(d, dir);
}
