// SPDX-License-Identifier: GPL-2.0-only
/*
 * A tree of directories behaves as nvmet's configfs: a library to be preloaded (LD_PRELOAD), for what is
 * below $VD_NVMET_DIR.  A directory that is made gets its attributes, one that is removed must be
 * unused, and takes them along; what the kernel refuses is refused.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static const char *below(const char *path)
{
	const char *root = getenv("VD_NVMET_DIR");
	size_t n = root ? strlen(root) : 0;

	return n && !strncmp(path, root, n) && path[n] == '/' ? path + n + 1 : NULL;
}

static void write_file(const char *dir, const char *name, const char *text)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	fputs(text, f);
	fclose(f);
}

static void group(const char *dir, const char *name)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	NEXT(mkdir)(path, 0755);
}

static int parts(const char *rel)
{
	int n = 1;

	for (; *rel; rel++)
		n += *rel == '/';
	return n;
}

int mkdir(const char *path, mode_t mode)
{
	const char *rel = below(path);
	int r = NEXT(mkdir)(path, mode);

	if (r || !rel)
		return r;
	if (parts(rel) == 2 && !strncmp(rel, "subsystems/", 11)) {
		write_file(path, "attr_serial", "0123456789\n");
		write_file(path, "attr_model", "Linux\n");
		write_file(path, "attr_allow_any_host", "0\n");
		group(path, "namespaces");
		group(path, "allowed_hosts");
	} else if (parts(rel) == 2 && !strncmp(rel, "ports/", 6)) {
		write_file(path, "addr_trtype", "\n");
		write_file(path, "addr_adrfam", "\n");
		write_file(path, "addr_traddr", "\n");
		write_file(path, "addr_trsvcid", "\n");
		group(path, "subsystems");
	} else if (parts(rel) == 2 && getenv("CONFIGFS_DHCHAP")) {
		write_file(path, "dhchap_key", "");
	} else if (parts(rel) == 4) {
		write_file(path, "device_path", "\n");
		write_file(path, "device_uuid", "00000000-0000-0000-0000-000000000000\n");
		write_file(path, "device_nguid", "00000000-0000-0000-0000-000000000000\n");
		write_file(path, "enable", "0\n");
		write_file(path, "revalidate_size", "");
	}
	return 0;
}

static int any(const char *fmt, const char *a)
{
	char pattern[PATH_MAX];
	glob_t g;
	int found;

	snprintf(pattern, sizeof(pattern), fmt, getenv("VD_NVMET_DIR"), a);
	found = !glob(pattern, GLOB_NOSORT, NULL, &g);
	globfree(&g);
	return found;
}

int rmdir(const char *path)
{
	static const char *const inside[] = { "attr_serial", "attr_model", "attr_allow_any_host", "addr_trtype", "addr_adrfam",
		"addr_traddr", "addr_trsvcid", "dhchap_key", "device_path", "device_uuid", "device_nguid", "enable", "revalidate_size" };
	static const char *const groups[] = { "namespaces", "allowed_hosts", "subsystems" };
	const char *rel = below(path), *name = strrchr(path, '/') + 1;
	char p[PATH_MAX];

	if (!rel || access(path, F_OK))
		return NEXT(rmdir)(path);
	if ((!strncmp(rel, "hosts/", 6) && any("%s/subsystems/*/allowed_hosts/%s", name)) ||
	    (!strncmp(rel, "subsystems/", 11) && parts(rel) == 2 && any("%s/ports/*/subsystems/%s", name))) {
		errno = EBUSY;
		return -1;
	}
	for (unsigned i = 0; i < 3; i++) {
		snprintf(p, sizeof(p), "%s/%s", path, groups[i]);
		if (NEXT(rmdir)(p) && errno != ENOENT)
			return -1;
	}
	for (unsigned i = 0; i < sizeof(inside) / sizeof(inside[0]); i++) {
		snprintf(p, sizeof(p), "%s/%s", path, inside[i]);
		NEXT(unlink)(p);
	}
	return NEXT(rmdir)(path);
}

int symlink(const char *target, const char *path)
{
	const char *rel = below(path), *wrong = getenv("CONFIGFS_NO_ADDRESS");
	char p[PATH_MAX], text[64] = "";
	int fd;

	if (rel && !strncmp(rel, "ports/", 6) && wrong) {
		snprintf(p, sizeof(p), "%.*s/../addr_traddr", (int)(strrchr(path, '/') - path), path);
		fd = open(p, O_RDONLY);
		if (fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && !strncmp(text, wrong, strlen(wrong))) {
			close(fd);
			errno = EADDRNOTAVAIL;
			return -1;
		}
		close(fd);
	}
	if (rel && access(target, F_OK)) {
		errno = ENOENT;
		return -1;
	}
	return NEXT(symlink)(target, path);
}

/* A namespace is enabled when it has a block device, and is not changed while it is. */
ssize_t write(int fd, const void *buf, size_t n)
{
	char link[64], path[PATH_MAX], p[PATH_MAX + 16], text[PATH_MAX] = "";
	const char *rel;
	ssize_t k;
	int other;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	k = readlink(link, path, sizeof(path) - 1);
	path[k > 0 ? k : 0] = 0;
	rel = below(path);
	if (rel && strstr(rel, "/namespaces/")) {
		int enabling = !strcmp(strrchr(rel, '/'), "/enable"), resizing = !strcmp(strrchr(rel, '/'), "/revalidate_size");
		struct stat st;

		*strrchr(path, '/') = 0;
		snprintf(p, sizeof(p), "%s/%s", path, enabling ? "device_path" : "enable");
		other = open(p, O_RDONLY);
		k = read(other, text, sizeof(text) - 1);
		close(other);
		text[k > 0 ? k : 0] = 0;
		text[strcspn(text, "\n")] = 0;
		if (enabling && *(const char *)buf == '1' && (stat(text, &st) || !S_ISBLK(st.st_mode))) {
			errno = ENOTBLK;
			return -1;
		}
		if (!enabling && !resizing && !strcmp(text, "1")) {
			errno = EBUSY;
			return -1;
		}
	}
	return NEXT(write)(fd, buf, n);
}
