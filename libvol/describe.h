/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What this host is to do for pools: which drives it has, or gives to which server, and which
 * servers it may speak to.  $VD_CONFIG_DIR/servers/local, a JSON object
 *
 *   {"server": "local",
 *    "drives": [{"pool": NAME, "uuid": UUID, "volume": NAME, "mode": "rw"|"ro",
 *                "server": NAME, "mount": DIR or "", "options": of the mount, or "",
 *                "no_mount": bool, "automount": bool, "duplicate": bool, "dhchap": bool,
 *                "volume_uuid": UUID of a server's}…],
 *    "servers": [{"pool": NAME, "uuid": UUID, "server": NAME, "attrs": {"kind": …, …}}…],
 *    "untold": [{"pool": NAME, "uuid": UUID, "server": NAME, "volume": NAME, "volume_uuid": UUID}…]}
 *
 * A pool has records of the same (open pointers, servers), but may come from anywhere: what is
 * mounted here, and where root connects to, is what this file says, which only commands on this
 * host write.  Earlier versions wrote no options, servers, untold, or server of a drive, which is "local" then,
 * and no booleans, which are false.
 *
 * Changes are atomic (a new file takes the old one's place) and one at a time.
 * Texts in vol_error(NULL).
 */
#ifndef VOL_DESCRIBE_H
#define VOL_DESCRIBE_H

#include "host.h"

/* What is recorded of a drive: as link_spec has it.  Texts are "" when there is none, and may be NULL in what is added. */
struct describe_drive {
	const char *server, *mount, *options;
	bool no_mount, automount;
	bool duplicate; /* as link_spec's */
	bool dhchap; /* the server authenticated itself to the NVMe target */
	struct json_object *entry; /* of one that was found: has the texts */
};
/* Adds a drive, or changes the one of that pool and volume. Durable on return.  volume_uuid: of a server's drive, or NULL. */
int describe_add(const char *pool, const uint8_t uuid[16], const char *volume, bool readonly, const struct describe_drive *drive, const uint8_t volume_uuid[16]) __must_check;
/* -ENOENT: no such drive. */
int describe_find(const uint8_t uuid[16], const char *volume, struct describe_drive *out) __must_check;
void describe_drive_free(struct describe_drive *drive);
/* Calls fn for each drive of a server other than "local", until it does not answer 0. */
int describe_each(int (*fn)(void *arg, const uint8_t uuid[16], const char *pool, const char *volume, const char *server), void *arg) __must_check;
/* 0 also when it was not there. */
int describe_del(const uint8_t uuid[16], const char *volume) __must_check;

/* A server of that pool, with the attributes by which this host may use it. */
int describe_server_add(const char *pool, const uint8_t uuid[16], const char *server, struct json_object *attrs) __must_check;
/* *attrs: json_object_put(). -ENOENT */
int describe_server_find(const uint8_t uuid[16], const char *server, struct json_object **attrs) __must_check;
int describe_server_del(const uint8_t uuid[16], const char *server) __must_check; /* 0 also when it was not there */
/* Another pool than that with a server of that name; its name into `pool`. -ENOENT: there is none. */
int describe_server_other(const uint8_t uuid[16], const char *server, char pool[VOL_NAME_SIZE]) __must_check;

/*
 * A drive was taken from a server whose agent was away, which is to be told.  That is nothing to tell for as long as the
 * volume is in `drives`, to whichever server: taking it may have failed, or it was given again.  All of a server is forgotten when
 * the server is, or is described otherwise.
 */
struct describe_untold { const char *server, *volume; uint8_t volume_uuid[16]; };
int describe_untold_add(const char *pool, const uint8_t uuid[16], const struct describe_untold *u) __must_check;
/* Calls fn for each of that pool that is to be told, until it does not answer 0. */
int describe_untold_each(const uint8_t uuid[16], int (*fn)(void *arg, const struct describe_untold *u), void *arg) __must_check;
int describe_untold_del(const uint8_t uuid[16], const struct describe_untold *u) __must_check; /* 0 also when it was not there */

/* Puts such a file in place of an old one, durably; dir: its directory, open, and locked against other writers. */
int describe_write(const char *path, int dir, struct json_object *root) __must_check;

#endif
