/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What link.c, which makes and undoes links, link-again.c, which makes them again, and link-pool.c,
 * which does so for whole pools, have from link-list.c, which finds them, and from each other; the
 * rest of that is in link.h.
 * Texts are in vol_error(NULL).
 */
#ifndef VOL_LINK_LIST_H
#define VOL_LINK_LIST_H

#include "link.h"

#define KERNEL_PID 1 /* holds the pointers of links in the kernel: it runs as long as that does */

/* "/dev/vdisk", and what stands for a volume there. */
const char *link_dev_dir(void);
void link_present_path(const char *pool, const char *volume, char *buf, size_t size);
/* The front's file, where the kernel has no nbd driver. */
void link_fuse_path(const struct link_info *l, char *buf, size_t size);
/* Whether that process is a front, and at work. */
bool link_front_runs(pid_t pid);
/* Until it has ended, or so much time has passed. */
void link_front_wait(pid_t pid, unsigned ms);

/* A request to the pool, and its answer (may be NULL): the request is consumed. */
struct json_object *link_request(const char *op, const char *volume);
int link_call(struct vol_pool *p, struct json_object *q, struct json_object **answer) __must_check;

/* How many of its members there are not, and how many it should have. */
int link_members(struct vol_pool *p, unsigned *missing, unsigned *members) __must_check;

#define LINK_SCAN_MS 5000u /* for a device to take its size */

/* All open pointers of a pool, or (volume not NULL) of one volume. */
int link_list_open(struct vol_pool *p, const char *volume, link_fn fn, void *arg) __must_check;
/* The link of a volume to this host, and whoever else writes to it. */
struct link_looked { struct link_info mine, writer; bool have_mine, have_writer; };
int link_look(struct vol_pool *p, const char *volume, struct link_looked *k) __must_check;
/* Calls fn for one pool, or (NULL) for each found, once.  One that cannot be had does not keep the
 * others from theirs: the first result that is not 0 is answered, with its text; other texts are logged. */
int link_each_pool(const char *pool, int (*fn)(void *arg, const char *name), void *arg) __must_check;

/* The mount of a link of this host: what is asked for, if it can be; then made, after the file system, into
 * l->mount, or l->note tells why not.  dir: full, or "" for none or one that is chosen when it is mounted. */
int link_mount_check(const struct link_spec *spec, char dir[128]) __must_check;
int link_mount(const struct link_spec *spec, struct link_info *l) __must_check;
/* each: for each directory where the device is mounted, if it is certain that it is the link's.  And what waits to
 * mount it goes. */
int link_umount(const struct link_info *l, bool certain, int (*each)(void *arg, const char *dir), void *arg) __must_check;
/* What was written to the device is with the pool, and durable; else that is said. */
void link_flush(const struct link_info *l);

/* The pool's name as on its labels, for paths. The server need not run. */
int link_pool_name(const char *pool, char name[VOL_NAME_SIZE], uint8_t uuid[16]) __must_check;
/* One link of a pool is made or undone at a time on this host. */
int link_lock(const char *pool, int *fd) __must_check;
/* Of several things done: the first result that is not 0, with its text; texts of others are logged. */
struct link_results { int r; char text[1024]; };
void link_result(struct link_results *all, int r);

/* Links that are to be made again; l is freed by who has them. */
struct link_downs { struct link_info *l; size_t n; };
/* What an open pointer says is the pool's, and a pool may come from anywhere: a link is made again without
 * being asked only where this host's own record has it, and mounted where that says.  One that it has not
 * is told of, and left out. */
int link_down(struct link_downs *d, const struct link_info *l) __must_check;
/* Before link_make_again() of all links that are down: those of servers that need it get their devices, and are prepared;
 * then all of them are opened (drive.h).  1: it is; 0: it needs none of that. */
struct server;
int link_prepare_again(struct vol_pool *p, const struct link_info *old, struct link_info *l, struct server *s) __must_check;
/* A link that is down, where the pool is served again: its device, and its mount.  *l is what it is then. */
int link_make_again(struct vol_pool *p, const struct link_info *old, struct link_info *l) __must_check;
/* drive_tell(), unless another host has a link in that pool, which is open for writing. */
void link_tell(struct vol_pool *p, const char *pool, const uint8_t uuid[16], const char *server);

#endif
