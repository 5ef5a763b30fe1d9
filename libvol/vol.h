/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvol: pools, volumes, snapshots.
 *
 * A pool has one owner at a time.  While a server owns it, vol_pool_open()
 * connects to that server's control socket; while the kernel does, requests are done by
 * messages to its device; else it opens the members in this process.  The caller sees no
 * difference: all take the same requests.
 *
 * Every call answers 0 or a negative errno; outputs are untouched on failure.
 * vol_error() then has one or two lines that name the object, what was wanted,
 * what was found and what to do.
 *
 * A handle is used by one thread at a time; different handles may be used at
 * once.  Sizes and offsets are in bytes.  Strings are UTF-8, NUL-terminated and
 * the library's own unless a comment says that the caller frees them.
 *
 * Environment: VD_CONFIG_DIR (default /etc/vd) holds `devices`; VD_RUNTIME_DIR
 * (default /run/vd) holds control sockets and redo tails.
 */
#ifndef VOL_H
#define VOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct json_object; /* of json-c */
struct vol_pool;

#define VOL_NAME_SIZE 128  /* a name with its NUL */
#define VOL_UUID_TEXT 37   /* a UUID as text with its NUL */

/* ---- errors, log, interruption ---------------------------------------- */

/* Text of the last failed call on `pool`.  NULL: of the last failed call of this
 * thread that had no pool to hold it (vol_pool_open, vol_pool_create, parsing).
 * Empty when none failed.  Valid until the next call on the same handle/thread. */
const char *vol_error(const struct vol_pool *pool);

enum vol_log_level { VOL_LOG_ERROR = 0, VOL_LOG_WARN = 1, VOL_LOG_INFO = 2 };
/* Where the library's and the engine's own remarks go; text has no newline.
 * May be called from any thread.  Default (fn NULL): errors and warnings to
 * stderr.  Set before the first open. */
void vol_set_log(void (*fn)(void *arg, enum vol_log_level level, const char *text), void *arg);
/* A log function for vol_set_log(): syslog(3), facility daemon. */
void vol_log_syslog(void *arg, enum vol_log_level level, const char *text);

/* Ends what long call is running in this process at the next moment it can, with
 * -EINTR and nothing half done.  Async-signal-safe.  Stays set. */
void vol_interrupt(void);

/* Who this process is in lock and owner records, at most 31 bytes; default: the
 * program's name.  Set before the first open. */
void vol_set_purpose(const char *purpose);

/* ---- names and sizes -------------------------------------------------- */

/* "POOL", "POOL/VOLUME" or "/dev/vdisk/POOL/VOLUME".  The pool may be a UUID.
 * volume[0] is 0 when there is none.  -EINVAL: a name breaks the rule (the
 * text says which and how). */
int vol_parse_object(const char *text, char pool[VOL_NAME_SIZE], char volume[VOL_NAME_SIZE]);
/* 1..127 bytes of [A-Za-z0-9+_.-], for a volume also @ and :, not starting with
 * -, and not "." or "..". -EINVAL. */
int vol_check_pool_name(const char *name);
int vol_check_volume_name(const char *name);

/* "NUMBER[b|s|k|m|g|t|p|e]", case does not matter, as LVM reads -L: powers of
 * 1024, s = 512-byte sectors, a bare number is MiB; a decimal point is allowed.
 * *sign: '+', '-' or 0 when a sign is allowed (sign not NULL). -EINVAL, -ERANGE. */
int vol_parse_size(const char *text, uint64_t *bytes, char *sign);
/* Units as LVM's --units: h (human, 1024), H (1000), r (human, with < when
 * rounded up), or one of b s k m g t p e; capitals but B and S are powers of
 * 1000.  Writes e.g. "1.00g".  buf of 32 bytes is enough. */
void vol_format_size(uint64_t bytes, char unit, bool suffix, char *buf, size_t size);
bool vol_units_valid(char unit);

/* Whether two paths are of one file or device; of what is not there, whether they are the same. */
bool vol_same_file(const char *a, const char *b);

void vol_uuid_text(const uint8_t uuid[16], char text[VOL_UUID_TEXT]);
/* -EINVAL: not a UUID. */
int vol_uuid_parse(const char *text, uint8_t uuid[16]);
void vol_uuid_new(uint8_t uuid[16]);

/* ---- finding pools ---------------------------------------------------- */

/* A member to look at besides $VD_CONFIG_DIR/devices and udev; for the whole
 * process, before the first open. -ENOMEM. */
int vol_device_add(const char *path);

struct vol_found {
	char *path;
	int error;            /* 0, or why the label could not be read; the rest is empty then */
	uint8_t pool[16];
	uint8_t member[16];
	char pool_name[VOL_NAME_SIZE];
	uint32_t index;       /* of the member in its pool */
	uint64_t size;        /* bytes, when it joined */
	bool configured;      /* from the devices file or vol_device_add(), not only from udev */
	bool explicit_path;   /* from vol_device_add() */
};
/* Reads the labels of all known members: those that carry one, and those
 * configured that cannot be read (error set).  The caller frees the list. */
int vol_find_members(struct vol_found **list, size_t *n);
void vol_found_free(struct vol_found *list, size_t n);

/* ---- pools ------------------------------------------------------------ */

enum vol_open_flags {
	VOL_READONLY = 1, /* nothing is written; several readers may be in at once.  Beside an
	                   * owner that has no socket: the last checkpoint is seen */
	VOL_OFFLINE = 2,  /* not through a server or the kernel: -EBUSY when one owns the pool.  What a server itself uses */
	VOL_TAKEOVER = 4, /* also when the owner record says that another host has it in use */
	VOL_REPAIR = 16,  /* for writing although it is damaged: to remove what is lost, and to check */
	VOL_ACCEPT = 32,  /* for writing although the newest superblock is lost: to check what is there instead */
	VOL_TEST = 64,    /* as for writing, and refused as that is, but nothing is written: requests with "test" */
	VOL_NO_WAIT = 8,  /* -EBUSY at once; else waits some seconds for another command to finish */
};
/* Opens the pool called `name` (or of that UUID).  -ENOENT none found; -ENOTUNIQ
 * several have that name; -EBUSY another process owns it (text: who); -EROFS
 * writing wanted, but members are missing or it is damaged: open it READONLY. */
int vol_pool_open(const char *name, unsigned flags, struct vol_pool **out);
/* Finishes deletions that are under way when the pool was opened here for writing
 * (unless interrupted), checkpoints, gives up ownership.  The handle is gone in
 * any case but -EBUSY (volumes open). NULL is allowed. */
int vol_pool_close(struct vol_pool *pool);
const char *vol_pool_name(const struct vol_pool *pool);
void vol_pool_uuid(const struct vol_pool *pool, uint8_t uuid[16]);
/* Whether requests go to a server rather than to the members. */
bool vol_pool_is_remote(const struct vol_pool *pool);

struct vol_pool_spec {
	const char *name;
	const char *const *path;  /* members: block devices or regular files */
	unsigned npaths;          /* 1..256 */
	uint64_t file_size;       /* not 0: files that do not exist or are empty get this size, sparse */
	uint32_t sector_size;     /* 512, 4096, or 0: 512 unless a member takes only 4096 */
	uint64_t journal_size;    /* 0: chosen */
	bool error_if_full;       /* writes to a full pool fail at once instead of waiting */
	bool no_discards;         /* what is free again is not discarded on the members */
	bool force;               /* also over what is found on a member; it is wiped */
	bool test;                /* look at everything, change nothing */
};
/* Makes a pool and puts its members into the devices file.  -ENOTEMPTY something is
 * on a member (the text names it); -EEXIST a pool of that name exists; -EBUSY a member is
 * in use; -ENOSPC too small.  On failure a file it created is removed again,
 * and one that was empty is empty again. */
int vol_pool_create(const struct vol_pool_spec *spec, uint8_t uuid[16]);

/* Takes paths out of the devices file (absolute, as they stand there). -ENOENT: one is not in it, and
 * nothing was changed. */
int vol_devices_forget(const char *const *path, unsigned n);

/* What is on a device or file: 0 and *what = NULL nothing; 0 and a text such as
 * "ext4 filesystem", "gpt partition table", "member 0 of vd pool vol1
 * (UUID)", which the caller frees. */
int vol_probe(const char *path, char **what);

/* ---- requests --------------------------------------------------------- */

/*
 * A request is an object {"op": NAME, …}; an answer is the operation's result
 * object.  vol-requests in libvol/ops.c lists all of them.  Operations are
 * atomic: done and durable when 0 is returned, not done at all otherwise.
 *
 * `part`, when not NULL, is called for what comes before the result: either
 * {"progress": PERMILLE} or {"part": {…}} with a piece of a long list.  A
 * non-zero answer ends the call with that value where the operation can be
 * ended, and the handle stays usable.  The object is the library's.
 *
 * *result (may be NULL) is the caller's, json_object_put().  The request stays
 * the caller's; "holder" is added to it: who asks.
 */
typedef int (*vol_part_fn)(void *arg, struct json_object *part);
int vol_call(struct vol_pool *pool, struct json_object *request, vol_part_fn part, void *arg,
	     struct json_object **result);

#ifdef __cplusplus
}
#endif
#endif
