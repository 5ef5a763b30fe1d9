/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The userspace host of the engine, and what libvol's own files share.
 *
 * Members are regular files or block devices.  A pool has one owner on this
 * host: block devices are opened O_EXCL, files are flock()ed.  Member I/O is
 * buffered; flush is fdatasync().
 */
#ifndef VOL_HOST_H
#define VOL_HOST_H

#include "../dm-target/core/vd.h"
#include "vol.h"

#include <sys/stat.h>

struct vol_errbuf { char text[1024]; };
struct vol_host;   /* members and worker of one open pool */
struct vol_server; /* ctl.c */

/* ---- the pool handle, for files of libvol ------------------------------ */

/* The engine's pool; NULL when requests go to a server, or to the kernel. */
struct vd_pool *vol_pool_engine(struct vol_pool *pool);
struct vol_host *vol_pool_host(struct vol_pool *pool);
/* Whether the kernel has it open, and requests change it there. */
bool vol_pool_in_kernel(const struct vol_pool *pool);

/* Of a pool in the kernel: one at a time looks at it and then changes it; close() lets the
 * next.  Text in vol_error(pool); -EINTR. */
int vol_pool_hold(struct vol_pool *pool, int *fd) __must_check;
/* Of one that the kernel has open: its engine becomes a view that stays readable while the kernel goes on
 * writing.  *fd: for vol_pool_unpin(), which answers -EAGAIN when it has not stayed so, the pool being
 * short of space: what was read as damage may be none then. */
int vol_pool_pin(struct vol_pool *pool, int *fd) __must_check;
int vol_pool_unpin(struct vol_pool *pool, int fd) __must_check;

/* Who this process is: machine id, boot id, host name, pid, now. `purpose` NULL:
 * as set by vol_set_purpose(). */
void vol_holder_self(struct vd_disk_holder *who, const char *purpose);
/* Purpose of a server in the open pointers it stores for its NBD clients.  One of
 * these whose server is gone stands for nothing, and whoever meets it removes it. */
#define VOL_PURPOSE_CLIENT "nbd client"
/* It is one of this host. */
bool vol_holder_is_here(const struct vd_disk_holder *who);
/* The holder cannot be running any more: same host and another boot, or same boot and its pid is gone. */
bool vol_holder_stale(const struct vd_disk_holder *who);
/* {"host":…, "boot":…, "hostname":…, "purpose":…, "pid":…, "since":ns} and back. -EINVAL. */
struct json_object *vol_holder_to_json(const struct vd_disk_holder *who);
int vol_holder_from_json(struct json_object *o, struct vd_disk_holder *who) __must_check;
/* "vdcreate, pid 17, on host7 since 2026-11-21T10:15:30Z" */
void vol_holder_text(const struct vd_disk_holder *who, char *buf, size_t size);

/* An error's text; answers `r`, so that `return vol_fail(…)` reads well.  pool
 * NULL: the thread's. */
int vol_fail(struct vol_pool *pool, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int vol_failbuf(struct vol_errbuf *err, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The last system call's, negative. -EPERM for EACCES: that is a volume's lock here. */
int vol_errno(void);
/* strerror in words that fit after "cannot …: ", with this project's codes told. */
const char *vol_strerror(int r);
void vol_log(enum vol_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool vol_interrupted(void);
/* Has the kernel load a module, if it can: whether it has is for the caller to see. */
void vol_modprobe(const char *module);
/* The path of what is called so in the directory of this executable, whether or not it is there. */
bool vol_beside_self(const char *name, char *path, size_t size);
int64_t vol_now_ms(void); /* CLOCK_MONOTONIC */
unsigned vol_server_timeout(void); /* seconds in which a server must answer: $VD_SERVER_TIMEOUT, or 10 */
/* A text that a peer sent, to be shown to people: without control characters, cut to fit. */
void vol_printable(char *to, size_t size, const char *from);
void vol_nap(unsigned ms); /* less when a signal comes */
/* Whether it runs, what it is called ("" when it is gone), and when it began, in ticks since the boot: with its
 * number that is no other's.  The last two may be NULL. */
bool vol_process(pid_t pid, char comm[64], uint64_t *began);
/* Until the process of a pidfd has ended, or so much time has passed, whatever signals come.  False: it has not ended. */
bool vol_process_wait(int pidfd, unsigned ms);
/* As vol_pool_open(): a name may be of two pools, this is not. */
int vol_pool_open_uuid(const uint8_t uuid[16], unsigned flags, struct vol_pool **out) __must_check;
/* Who has flock()ed this file, from /proc/locks; 0: not found. */
pid_t vol_lock_owner(const struct stat *st);
const char *vol_config_dir(void);
const char *vol_runtime_dir(void);
/* Makes the runtime directory (0700) when it is not there. */
int vol_runtime_dir_make(void) __must_check;
/* Waits for the lock WHAT.KIND of the runtime directory, and says for whom; close() lets it go.  Text in
 * vol_error(NULL); -EINTR. */
int vol_runtime_lock(const char *what, const char *kind, int *fd) __must_check;
/* The same; -EBUSY: not within so many seconds. */
int vol_runtime_lock_within(const char *what, const char *kind, unsigned seconds, int *fd) __must_check;
/* ISO 8601 UTC, to the second; buf of 32 bytes. */
void vol_time_text(uint64_t ns, char *buf, size_t size);

/* ---- members ----------------------------------------------------------- */

enum vol_lock { VOL_LOCK_NONE, VOL_LOCK_SHARED, VOL_LOCK_EXCLUSIVE };
struct vol_geometry { uint64_t bytes; uint32_t sector; bool is_file; };
/* Opens a member, read-only unless the lock is EXCLUSIVE.  A device that is part of another
 * one is busy to SHARED too: the kernel, which writes to it there, knows no locks.  On failure `why` (256
 * bytes) has the rest of a sentence that begins with the path: "is mounted on
 * /srv", "is in use by process 17 (nbdkit)".  -EBUSY; -ENOTBLK neither a block
 * device nor a regular file. */
int vol_member_open(const char *path, enum vol_lock lock, int *fd, struct vol_geometry *geo, char why[256]) __must_check;

/* Another device of the kernel's that has this one as a part: "dm-3".  Who opens without
 * O_EXCL is not told by the kernel, and its own users take no lock of ours. */
bool vol_part_of(dev_t dev, char name[64]);

/* Keeps other commands off a member that the kernel is about to open: a lock without the
 * claim (O_EXCL) that would keep the kernel off as well. -EBUSY. */
int vol_member_keep(const char *path, int *fd) __must_check;

/* A host without members. */
int vol_host_new(struct vol_host **out) __must_check;
/* Closes the members; the worker must have been stopped. */
void vol_host_free(struct vol_host *h);
/* Puts an open member at `index`; the fd and lock become the host's. */
int vol_host_set_member(struct vol_host *h, unsigned index, int fd, const char *path, bool is_file) __must_check;
void vol_host_drop_member(struct vol_host *h, unsigned index);
/* fd of a member, or -1: missing. For data I/O; any thread. */
int vol_host_fd(const struct vol_host *h, unsigned member);
/* Before data is written to a block that was free: a sparse file gets space for the stretch
 * of 4 MiB about it at once, if it has none of it yet, so that its file system need not find
 * some for each block, and keeps them together.  Not of its last 256 MiB.  A hint; any thread. */
void vol_host_writes(struct vol_host *h, unsigned member, uint64_t block);
const char *vol_host_path(const struct vol_host *h, unsigned member); /* NULL: missing */
/* Bytes it has now, whole blocks; 0: missing, or not to be told. */
uint64_t vol_host_size(const struct vol_host *h, unsigned member);
bool vol_host_is_file(const struct vol_host *h, unsigned member);
/* The file has at least so many bytes, durably; it is never made shorter. */
int vol_host_extend(struct vol_host *h, unsigned member, uint64_t bytes) __must_check;
/* What members have gained is taken into the pool; when none has, and the pool's policy is
 * that files grow, one is made longer.  Told in the log.  Whether there is more now. */
bool vol_host_grow(struct vol_host *h);
void vol_host_set_identity(struct vol_host *h, const uint8_t uuid[16], const char *name, bool readonly);
const struct vd_host *vol_host_vd(struct vol_host *h);
/* The engine's remarks are not passed on. */
void vol_host_set_quiet(struct vol_host *h, bool quiet);
/* The worker calls vd_pool_work() when kicked and about once a second, looks at the
 * pool's thresholds, and lets it grow when it is low on space. */
int vol_host_start_worker(struct vol_host *h, struct vd_pool *pool) __must_check;
void vol_host_stop_worker(struct vol_host *h);

/* ---- devices file ------------------------------------------------------ */

/* What pool create and pool add do with each new member: opens it exclusively
 * (creating it, sparse, when `file_size` says how large and it does not exist or is
 * an empty file), refuses what is on it without `force`, checks its size. */
struct vol_new_member {
	char *path; /* absolute */
	int fd;     /* its lock too; -1: not opened (a file that `test` would create) */
	struct vol_geometry geo;
	char *found;/* what was on it, or NULL */
	bool created, was_empty;
};
int vol_new_member(struct vol_new_member *m, const char *path, uint64_t file_size, bool force, bool test,
		   struct vol_errbuf *err) __must_check;
/* Takes foreign signatures off it; the last step before it becomes a member. */
int vol_new_member_wipe(struct vol_new_member *m, struct vol_errbuf *err) __must_check;
/* It is member `index` of this host as well, with the lock. */
int vol_new_member_give(const struct vol_new_member *m, struct vol_host *h, unsigned index) __must_check;
/* It is a member: there is nothing to undo. */
void vol_new_member_keep(struct vol_new_member *m);
/* Closes it; unless it was kept, removes what was created and empties what was empty. */
void vol_new_member_undo(struct vol_new_member *m);

int vol_devices_remember(const char *const *path, unsigned n) __must_check;
/* Anything foreign on it: as vol_probe(), on an open fd.  With `wipe`: removes what was found. */
int vol_probe_fd(int fd, bool wipe, char **what) __must_check;

/* ---- servers ----------------------------------------------------------- */

#define VOL_SERVER_LOCAL "local" /* this host, whichever it is: has no description */
/* 1..63 bytes of [A-Za-z0-9+_.-], not starting with - or ., and not "local". -EINVAL. */
int vol_check_server_name(const char *name) __must_check;
/* What describes a server: "kind", and what that needs. -EINVAL: this one cannot be linked to; text in
 * vol_error(NULL). */
struct json_object;
int vol_check_server(struct json_object *attrs) __must_check;

/* ---- requests ---------------------------------------------------------- */

/* Executes one request on the engine in this process; what vol_call() and the
 * control socket both end in.  Thread-safe for one pool.  `err` gets the text. */
struct vol_request {
	struct vol_pool *pool;
	struct json_object *args;
	vol_part_fn part; /* may be NULL */
	void *arg;
	struct vol_server *server; /* NULL: offline */
	struct json_object *result;/* set by vol_execute */
	unsigned permille;         /* last progress sent */
	void *scratch;             /* the running operation's */
	struct vol_errbuf err;
};
int vol_execute(struct vol_request *rq, struct json_object **result) __must_check;

/* ---- control socket: server (ctl.c) ------------------------------------ */

/*
 * The process that serves data owns the pool (vol_pool_open with VOL_OFFLINE)
 * and starts the control socket on it, $VD_RUNTIME_DIR/UUID.ctl, with a
 * symbolic link NAME.ctl.  One thread a connection; only root and the own uid
 * may connect.
 */
struct vol_server_hooks {
	void *arg;
	const char *nbd_socket; /* told by "ping" and "pool-info"; may be NULL; copied */
	/* Clients that have volumes open, waited for so long if there are any: until there is none. May be NULL: 0. */
	unsigned (*connections)(void *arg, unsigned ms);
	/* Waits, some seconds at most, until clients of this volume whose process has ended
	 * are rid of it: what follows the end of a program finds it closed. May be NULL. */
	void (*reap)(void *arg, uint32_t volume);
	/* "stop-if-unused" found no open pointer of this host and no connection: end
	 * the process soon, in order.  Must not wait for the calling thread.  May be
	 * NULL: -EOPNOTSUPP. */
	void (*stop)(void *arg);
};
int vol_server_start(struct vol_pool *pool, const struct vol_server_hooks *hooks, struct vol_server **out) __must_check;
/* Ends running requests, closes connections, joins the threads, removes the socket. */
void vol_server_stop(struct vol_server *server);
/* What "ping" and "stop-if-unused" ask. */
const struct vol_server_hooks *vol_server_hooks_of(const struct vol_server *server);
/* vol_server_stop() was called: operations under way are to end. */
bool vol_server_stopping(const struct vol_server *server);
/* Path of the control socket of a pool, whether or not a server is there. */
void vol_ctl_path(const uint8_t uuid[16], char *buf, size_t size);

/* Client half, used by vol_pool_open() and vol_call(). */
struct vol_client;
int vol_client_connect(const char *file, struct vol_client **out) __must_check; /* "UUID.ctl" or "NAME.ctl"; -ENOENT: no server */
void vol_client_close(struct vol_client *c);
/* A descriptor of the server's process, the caller's to close, which is readable when that has ended; -errno. */
int vol_client_process(const struct vol_client *c);
int vol_pool_server(const struct vol_pool *p); /* the same of the pool's, if it has one */
int vol_client_call(struct vol_client *c, struct json_object *request, vol_part_fn part, void *arg,
		    struct json_object **result, struct vol_errbuf *err) __must_check;

#endif
