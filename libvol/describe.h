/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Server descriptions: which drives a server is to have.  There is one so far,
 * this host: $VD_CONFIG_DIR/servers/local, a JSON object
 *
 *   {"server": "local", "drives": [{"pool": NAME, "uuid": UUID, "volume": NAME,
 *                                   "mode": "rw"|"ro", "mount": DIR or "",
 *                                   "options": of the mount, or ""}…]}
 *
 * Earlier versions wrote no options, and took no notice of them.
 *
 * Changes are atomic (a new file takes the old one's place) and one at a time.
 * Texts in vol_error(NULL).
 */
#ifndef VOL_DESCRIBE_H
#define VOL_DESCRIBE_H

#include "host.h"

/* Adds a drive, or changes the one of that pool and volume. Durable on return. */
int describe_add(const char *pool, const uint8_t uuid[16], const char *volume, bool readonly, const char *mount,
		 const char *options) __must_check; /* both may be NULL */
/* Where a drive is mounted, and the options, each to be freed, and "" when there are none; either may be
 * NULL. -ENOENT: no such drive. */
int describe_find(const uint8_t uuid[16], const char *volume, char **mount, char **options) __must_check;
/* 0 also when it was not there. */
int describe_del(const uint8_t uuid[16], const char *volume) __must_check;

#endif
