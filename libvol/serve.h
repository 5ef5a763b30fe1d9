/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server process of a pool: nbdkit with nbdkit-vd-plugin, found or started.
 *
 * In the runtime directory: POOL.nbd its NBD socket, POOL.log what it and the
 * links of the pool say, POOL.start a lock file held while somebody starts it.
 * POOL is the pool's name, never its UUID: of two pools of one name a host serves one
 * at a time, here or in the kernel, as their volumes would have the same names, too.
 */
#ifndef VOL_SERVE_H
#define VOL_SERVE_H

#include "host.h"

/* Paths; -ENAMETOOLONG when the socket's does not fit an AF_UNIX address. */
int vol_serve_socket_path(const char *pool, char *buf, size_t size) __must_check;
void vol_serve_log_path(const char *pool, char *buf, size_t size);

/* Whether something listens on the NBD socket. */
bool vol_serve_running(const char *pool);

/* Members named by vol_device_add() are named to it too.
 *
 * Starts the server unless it runs; returns when the pool is open and its
 * control socket answers.  One starter at a time on this host; the others wait.
 * Safe in a process with threads.  *started (may be NULL): it was not running.
 * Text in vol_error(NULL): what the server said.  -ENOENT no nbdkit or no plugin;
 * -ETIMEDOUT; -EIO it ended; -EBUSY as below; -EINTR.
 */
int vol_serve_start(const char *pool, const uint8_t uuid[16], bool takeover, bool *started) __must_check;

/* -EBUSY: another pool of that name is served on this host.  Under vol_serve_lock() it stays so. */
int vol_serve_alone(const char *pool, const uint8_t uuid[16]) __must_check;

/* The lock of one who starts the server, or has the kernel take its place; close() lets it
 * go.  -EINTR. */
int vol_serve_lock(const char *pool, int *fd) __must_check;

/* Redirects stdout and stderr to the pool's log. */
int vol_serve_log_open(const char *pool) __must_check;

/* Identifies the memory that keeps acknowledged, unflushed writes over a restart
 * of the server (I10): equal as long as nothing was lost.  0: there is none. */
uint64_t vol_serve_tail_token(const uint8_t uuid[16]);

#endif
