/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The mapping engine.  It decides and remembers; data I/O is its caller's.
 *
 * Contract of every call
 *   - returns 0 or a negative errno; outputs are untouched on failure;
 *   - class B (blocking) may sleep, do host I/O and take mutexes;
 *   - class N (non-blocking) does none of these: what it cannot do at once it
 *     answers with -EWOULDBLOCK; the caller then holds nothing of the engine,
 *     calls vd_io_wait() (class B) from a context that may sleep, and starts
 *     that request again from the beginning (I11);
 *   - all calls may be made from several threads at once unless said otherwise.
 *
 * Errors that every call may give: -ENOMEM; -EIO, -ENODEV (a member failed or
 * is missing); -EBADMSG (both copies of a metadata block fail their checksum);
 * -EUCLEAN (metadata that cannot be); -EROFS (pool opened read-only, or made so
 * by an error: vd_pool_info tells which).
 */
#ifndef VD_VD_H
#define VD_VD_H

#include "host.h"

struct vd_pool;
struct vd_volume;

/* ---- pool ------------------------------------------------------------- */

struct vd_format_spec {
	uint8_t uuid[16];
	const char *name;            /* 1..127 bytes of [A-Za-z0-9+_.-], not starting with - */
	unsigned nmembers;           /* 1..256 */
	const uint64_t *blocks;      /* size of each member in 4 KiB blocks, >= 2048 */
	const uint8_t (*member_uuid)[16];
	unsigned sector_size;        /* 512 or 4096 (I15) */
	uint64_t journal_blocks;     /* 0: chosen from the size of the first member */
	uint32_t policy;             /* VD_POLICY_* */
	bool test;                   /* look whether it can be so; nothing is read or written */
};
/* Writes labels, superblocks, an empty journal to all members.  Crash effect:
 * a pool, with all its members, exists once one of them has a superblock, which is
 * last; labels alone are no pool (-ENODATA when it is opened). Class B.
 * -EINVAL spec out of range; -ENOSPC a member is too small. */
int vd_pool_format(const struct vd_host *host, const struct vd_format_spec *spec) __must_check;

/* Reads one member's label and checks it. -ENODATA: no label here;
 * -EBADMSG: a damaged one; -EPROTONOSUPPORT: of a later version. Class B. */
int vd_label_read(const struct vd_host *host, unsigned member, struct vd_disk_label *label) __must_check;
/* How many blocks the member has, by its newest superblock of those that know it with this label. -ENODATA:
 * there is none.  Class B. */
int vd_member_read(const struct vd_host *host, unsigned member, const struct vd_disk_label *label, uint64_t *blocks) __must_check;
/* Reads the owner record: who has the pool open now, or had it when it crashed. Class B. */
int vd_owner_read(const struct vd_host *host, unsigned member, struct vd_disk_owner *owner) __must_check;

enum vd_open_flags {
	VD_OPEN_READONLY = 1, /* no write whatever; the journal is replayed in memory */
	VD_OPEN_NO_REPLAY = 2,/* with READONLY: the last checkpoint only; for a reader beside an owner (I16) */
	VD_OPEN_REPAIR = 4,   /* writable although damaged: to delete what is lost, and to check */
	VD_OPEN_ACCEPT = 8,   /* writable although rolled back: to check that state, which is the newest from then on */
};
/* Opens the pool whose members the host has.  Replays the journal, drops
 * pending snapshots, records ownership.  Missing members (host answers -ENODEV),
 * an older superblock on one, or recorded damage make it read-only. `self` is copied.
 * Class B.
 * -ENODATA no superblock found; -EPROTONOSUPPORT the newest has a feature unknown here;
 * -EROFS writing wanted but an ro_compat feature is unknown. */
int vd_pool_open(const struct vd_host *host, unsigned flags, const struct vd_disk_holder *self, struct vd_pool **out) __must_check;
/* Checkpoints (unless read-only), gives up ownership, frees all.  No volume may
 * be open and no I/O in flight (-EBUSY, nothing closed).  The pool is gone after
 * any other answer; an error says that the last checkpoint failed, which costs
 * nothing but a replay. Class B. */
int vd_pool_close(struct vd_pool *pool) __must_check;
/* As if the process had died here: frees memory, writes nothing. For tests. */
void vd_pool_abandon(struct vd_pool *pool);

enum vd_pool_mode {
	VD_MODE_RW,
	VD_MODE_OUT_OF_SPACE, /* writes that allocate fail or wait; all else works */
	VD_MODE_READONLY,     /* opened so, a member is missing, or metadata is damaged */
	VD_MODE_FAILED,       /* a metadata write or flush failed; nothing is acknowledged any more */
};
struct vd_pool_policy {
	uint32_t threshold[4];     /* use that is reported, per mille; 0: none */
	uint32_t flags;            /* VD_POLICY_* */
	uint64_t grow_by, grow_to; /* blocks; the host's to follow, see format.h */
};
/* Who reads beside the owner: one for as long as he likes, and a check. */
enum vd_pin { VD_PIN_USER, VD_PIN_CHECK, VD_PINS };

struct vd_pool_info {
	uint8_t uuid[16];
	char name[128];
	enum vd_pool_mode mode;
	bool damaged;                        /* metadata was found lost in every copy, now or earlier; vd_check() lists it */
	bool rolled_back;                    /* the newest superblock is lost on every member: this is an older state */
	bool read_only_feature;              /* it has one that this version does not know, and so cannot write */
	unsigned nmembers, nmissing;
	uint8_t missing[VD_MEMBERS_MAX / 8]; /* bit map */
	uint8_t too_short[VD_MEMBERS_MAX / 8]; /* of these: what there is of it is as new as the pool */
	uint64_t total_blocks, used_blocks;  /* used: data and metadata, counting what awaits a checkpoint */
	uint64_t metadata_blocks;            /* both copies, journal and labels included */
	uint64_t reserve_blocks;             /* kept for metadata: writers see a full pool before */
	uint64_t promised_blocks;            /* kept from others for volumes with reservations, metadata included */
	uint64_t reservable_blocks;          /* the most that a new volume could have reserved */
	uint64_t generation, incarnation, epoch, seq, durable_seq;
	uint64_t journal_blocks, journal_used;
	uint64_t overlay_extents;
	uint64_t meta_written;               /* metadata and journal blocks written since open, all copies */
	struct vd_pool_policy policy;
	unsigned sector_size;
	uint64_t created;
	uint64_t transaction;                /* as vd_pool_set_transaction() left it; 0 at first */
	uint64_t pinned[VD_PINS];            /* generation that vd_pool_pin() keeps; 0: none */
};
void vd_pool_info(struct vd_pool *pool, struct vd_pool_info *info);
/* Of these what changes with every request, without waiting for a checkpoint. */
void vd_pool_now(struct vd_pool *pool, enum vd_pool_mode *mode, uint64_t *epoch);
/* Member m's label data as the superblock has it. -ENOENT: no such member.  The caller
 * does no data I/O on one that is missing and not too short, though it may have it: it is old (I9). */
int vd_pool_member(struct vd_pool *pool, unsigned m, uint8_t uuid[16], uint64_t *blocks, bool *missing) __must_check;
/* Adds a member live: the host already answers for index `nmembers`. Durable on
 * return. -EEXIST 256 are in; -EINVAL wrong sector size or too small. Class B. */
int vd_pool_add(struct vd_pool *pool, const uint8_t uuid[16], uint64_t blocks, unsigned sector_size) __must_check;
/* Member m has so many blocks at least: takes in, live, what the pool has not yet.  Durable
 * on return; after a crash the pool has the old size or the new.  The host must have made
 * the size durable.  -ENOENT no such member; -EINVAL too many. Class B. */
int vd_pool_grow(struct vd_pool *pool, unsigned m, uint64_t blocks) __must_check;
/* Durable on return. -EINVAL. Class B. */
int vd_pool_set(struct vd_pool *pool, const struct vd_pool_policy *policy) __must_check;
/* A number that is kept for who administers the pool from outside: `now` in place of `was`.
 * -EBUSY: it is another.  Durable on return. Class B. */
int vd_pool_set_transaction(struct vd_pool *pool, uint64_t was, uint64_t now) __must_check;

/* Makes everything acknowledged so far durable: all data written on any volume
 * before the call, and its mapping (I5).  Joins a commit under way. Class B. */
int vd_flush(struct vd_pool *pool) __must_check;
/* Folds the overlays into the trees and moves the journal's tail. Class B. */
int vd_checkpoint(struct vd_pool *pool) __must_check;
/* For who reads beside the owner (I16): the trees of the last checkpoint, and of those that follow, stay as
 * they are, though later ones have others: what they alone reach is not used again.  It ends
 * with vd_pool_unpin(), or by itself, with others', when the pool is short of space, or of memory for what it
 * keeps.  Each `who` has one.  Class B.
 * -EBUSY: his is there; -EROFS: nothing is written, and all stays anyway. */
int vd_pool_pin(struct vd_pool *pool, enum vd_pin who) __must_check;
int vd_pool_unpin(struct vd_pool *pool, enum vd_pin who) __must_check; /* -ENOENT: none is, or not any more. Class N. */
/* Does what is due in the background: checkpoints, deletions, releasing space.
 * One caller at a time. 0: nothing left; 1: call again. Class B. */
int vd_pool_work(struct vd_pool *pool) __must_check;

/* ---- volumes ---------------------------------------------------------- */

struct vd_volume_spec {
	const char *name;       /* 1..127 bytes of [A-Za-z0-9+_.@:-], not starting with - */
	uint8_t uuid[16];
	uint64_t size;          /* bytes, multiple of 4096, <= 8 EiB */
	uint32_t flags;         /* VD_VOL_READONLY, VD_VOL_LOCKED */
	const char *base;       /* path of a base image, or NULL */
	const char *attrs;      /* "key=value\n…", or NULL */
	struct vd_disk_holder lock; /* when LOCKED */
	uint64_t reserved;      /* blocks, at most its size */
};
struct vd_volume_info {
	uint32_t id, flags;
	uint32_t blank;         /* 1: it has no base, and no tree or change says that anything is mapped */
	uint8_t uuid[16];
	char name[128];
	uint64_t size, mapped;  /* bytes; blocks */
	uint64_t reserved, unused; /* blocks; unused: of the reserved, those it has not yet as its own */
	uint64_t last_snapshot, family, created;
	uint32_t origin;
	char base[VD_BASE_MAX];
	char attrs[VD_ATTRS_MAX + 1];
	struct vd_disk_holder lock;
	unsigned npointers;
	struct vd_disk_pointer pointer[VD_POINTERS_MAX];
};

/* All of these: class B, durable on return, atomic over a crash.
 * -EEXIST name taken, -ENOENT no such volume, -EINVAL a value out of range,
 * -EBUSY open (vd_volume_open) or with open pointers, -EACCES locked. */
int vd_volume_create(struct vd_pool *pool, const struct vd_volume_spec *spec, uint32_t *id) __must_check; /* -ENOSPC: cannot be reserved */
int vd_volume_delete(struct vd_pool *pool, uint32_t id) __must_check;
int vd_volume_rename(struct vd_pool *pool, uint32_t id, const char *name) __must_check;
int vd_volume_resize(struct vd_pool *pool, uint32_t id, uint64_t size) __must_check; /* allowed while open; shrinking frees */
int vd_volume_set_flags(struct vd_pool *pool, uint32_t id, uint32_t set, uint32_t clear) __must_check; /* VD_VOL_READONLY */
/* Of its own it may always have so many blocks (0: as there are), whatever others write.  A snapshot
 * of it begins the count anew.  -EINVAL above its size; -ENOSPC: vd_pool_info tells how much could be.
 * Snapshots of it, and its rollback, then answer -ENOSPC where the pool cannot promise it all again. */
int vd_volume_reserve(struct vd_pool *pool, uint32_t id, uint64_t blocks) __must_check;
int vd_volume_set_attrs(struct vd_pool *pool, uint32_t id, const char *attrs) __must_check; /* -E2BIG */
int vd_volume_lock(struct vd_pool *pool, uint32_t id, const struct vd_disk_holder *who) __must_check; /* -EACCES: held */
int vd_volume_unlock(struct vd_pool *pool, uint32_t id) __must_check;
/* Open pointers.  A read-write pointer excludes any other read-write one (-EBUSY);
 * -ENOSPC: VD_POINTERS_MAX are in. *link is the new pointer's id. */
int vd_volume_pointer_add(struct vd_pool *pool, uint32_t id, const struct vd_disk_pointer *ptr, uint32_t *link) __must_check;
int vd_volume_pointer_set(struct vd_pool *pool, uint32_t id, uint32_t link, const struct vd_disk_pointer *ptr) __must_check;
int vd_volume_pointer_del(struct vd_pool *pool, uint32_t id, uint32_t link) __must_check;

int vd_volume_find(struct vd_pool *pool, const char *name, uint32_t *id) __must_check;
int vd_volume_info(struct vd_pool *pool, uint32_t id, struct vd_volume_info *info) __must_check;
/* The volume with the smallest id >= *id, deleting and pending ones left out;
 * *id is set to it. -ENOENT: no more.  A volume whose record is lost is given too:
 * vd_volume_info() then says -EBADMSG or -EUCLEAN.  *lost (may be NULL) is set to true when
 * volumes may have been passed over, as a part of their list is lost; else it stays as it is. */
int vd_volume_next(struct vd_pool *pool, uint32_t *id, bool *lost) __must_check;

/* Descriptions of servers that take links: names and attributes, of no meaning here.  A server
 * may have a volume's name.  Durable on return, atomic, as above; class B.  That no open pointer names one
 * that is deleted is for who deletes it to see to. */
struct vd_server_info {
	uint32_t id;            /* no volume has it */
	uint8_t uuid[16];
	char name[VD_SERVER_NAME_MAX + 1];
	uint64_t created;
	char attrs[VD_ATTRS_MAX + 1];
};
/* name: 1..63 bytes of [A-Za-z0-9+_.-], not starting with - or . */
int vd_server_add(struct vd_pool *pool, const char *name, const uint8_t uuid[16], const char *attrs, uint32_t *id) __must_check;
int vd_server_delete(struct vd_pool *pool, uint32_t id) __must_check;
int vd_server_find(struct vd_pool *pool, const char *name, uint32_t *id) __must_check;
int vd_server_info(struct vd_pool *pool, uint32_t id, struct vd_server_info *info) __must_check;
/* As vd_volume_next(); one whose record is lost is not given. */
int vd_server_next(struct vd_pool *pool, uint32_t *id) __must_check;

struct vd_snap {
	uint32_t origin;
	const char *name;   /* of the snapshot */
	uint8_t uuid[16];
	uint32_t flags;     /* VD_VOL_READONLY */
	uint32_t id;        /* out */
};
/* Snapshots of n different volumes (1..256) at one instant, while I/O runs (I1).
 * All or none. O(1) in the size and number of volumes and snapshots. */
int vd_snapshot(struct vd_pool *pool, struct vd_snap *snap, unsigned n) __must_check;
/* Volume `id` takes the contents (and size) of `snap`, which stays. -EBUSY: open;
 * -EXDEV: not related. */
int vd_rollback(struct vd_pool *pool, uint32_t id, uint32_t snap) __must_check;

/* A volume is opened for I/O; several openings share the object. Class B. */
int vd_volume_open(struct vd_pool *pool, uint32_t id, struct vd_volume **out) __must_check;
void vd_volume_close(struct vd_volume *vol);
uint64_t vd_volume_size(const struct vd_volume *vol); /* bytes; class N */
bool vd_volume_readonly(const struct vd_volume *vol);

/* ---- I/O -------------------------------------------------------------- */

enum vd_fill_kind { VD_FILL_NONE = 0, VD_FILL_ZERO, VD_FILL_DATA, VD_FILL_BASE };
struct vd_fill { /* where the old contents of a partly written block are */
	enum vd_fill_kind kind;
	vd_pblk_t pblk; /* DATA */
};
enum vd_run_kind {
	VD_RUN_DATA,  /* read or write in place at pblk, byte offset within it `offset` */
	VD_RUN_ZERO,  /* read: zeros */
	VD_RUN_HOLE,  /* read: zeros, never written */
	VD_RUN_BASE,  /* read: the base image at the volume's own address, zeros past its end */
	VD_RUN_NEW,   /* write: write whole blocks at pblk, filling head and tail */
};
/* One request in flight.  Caller's memory; not moved between begin and end. */
struct vd_io {
	/* what to do, valid after a successful begin */
	enum vd_run_kind kind;
	uint32_t bytes;      /* this run covers so much of the request; the rest begins anew */
	vd_pblk_t pblk;
	uint32_t offset;     /* bytes into the first block, a multiple of 512 */
	uint32_t nblocks;    /* blocks touched, partly or whole */
	struct vd_fill head; /* NEW: where the first block's bytes before `offset` come from */
	struct vd_fill tail; /* NEW: where the last block's bytes after the data come from */
	/* the engine's */
	struct vd_volume *vol;
	uint64_t v0;
	uint64_t need_seq;
	uint32_t fresh, wait;
	uint16_t gate, vol_gate;
	struct vd_list claim;
	struct vd_ov_leaf *near; /* where it goes, unless leaves have gone since */
	uint64_t gone;
	uint32_t promised;   /* blocks of it that are counted as begun of what is promised to vol */
};
#define VD_IO_MAX_BYTES (1u << 20) /* the longest run a begin gives */

/* Class N.  `off` and `len` in bytes, multiples of 512 (of 4096 in a 4Kn pool),
 * len > 0.  On 0 the caller does the run's I/O and calls the matching end, once,
 * from any context.  -ERANGE beyond the end of the volume; -EROFS; -EWOULDBLOCK
 * see above.  That the pool is full is vd_io_wait()'s to say (-ENOSPC): to queue such
 * requests for a while, as the pool's policy may want it, is the host's (D10). */
int vd_read_begin(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io) __must_check;
void vd_read_end(struct vd_io *io);
int vd_write_begin(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io) __must_check;
/* error: what the data I/O gave.  Never blocks, cannot fail when error is 0
 * (I12): the mapping is in the overlay when it returns.  Gives `error` back. */
int vd_write_end(struct vd_io *io, int error);
/* After -EWOULDBLOCK: sleeps until trying again makes sense. Class B. Errors are final for the request. */
int vd_io_wait(struct vd_io *io) __must_check;

/* Class B; need not be aligned: only whole blocks are freed, the edges are
 * zeroed by the caller first for write-zeroes (vd_unmap leaves edges alone).
 * After it the blocks read as zeros, also over a base image (I13).  When the pool is full this,
 * a snapshot and a new volume wait for all requests in flight: none of them may be the caller's. */
int vd_unmap(struct vd_volume *vol, uint64_t off, uint64_t len) __must_check;

struct vd_extent_info { uint64_t off, len; enum vd_ext_kind kind; }; /* bytes */
/* What is at `off` and how far it goes, within len: HOLE, DATA, ZERO or BASE. Class B. */
int vd_extent(struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_extent_info *out) __must_check;

/* ---- reports ---------------------------------------------------------- */

/* Calls fn for each range (bytes, ascending, merged) in which the two volumes
 * may differ; skips what they share. A non-zero answer of fn ends it and is
 * returned. -EXDEV: the volumes are not related and flags lack FORCE. Class B. */
typedef int (*vd_range_fn)(void *arg, uint64_t off, uint64_t len);
int vd_diff(struct vd_pool *pool, uint32_t a, uint32_t b, vd_range_fn fn, void *arg) __must_check;

struct vd_usage { uint64_t mapped, exclusive, shared, meta; }; /* blocks; meta: nodes of its tree, one copy */
/* progress: per mille done, may be NULL; non-zero answer ends with -EINTR. Class B. */
int vd_volume_usage(struct vd_pool *pool, uint32_t id, struct vd_usage *out, int (*progress)(void *arg, unsigned permille), void *arg) __must_check;

enum vd_fault { /* what a check found */
	VD_FAULT_NODE,     /* a = node address; unreadable in both copies */
	VD_FAULT_COPY,     /* a = address of the bad copy; the other is good */
	VD_FAULT_COUNT,    /* a = block, b = found << 32 | recorded */
	VD_FAULT_LEAK,     /* a = block, b = length: counted, not reachable */
	VD_FAULT_ORDER,    /* a = node address; entries out of order or of range */
	VD_FAULT_RECORD,   /* a = volume id; its record makes no sense */
	VD_FAULT_RANGE,    /* volume's range a..a+b (bytes) is lost, or on `member`, which is missing or too short */
	VD_FAULT_NAME,     /* a = volume id; not found by its name */
	VD_FAULT_MAPPED,   /* a = recorded, b = found */
	VD_FAULT_PROMISED, /* a = blocks promised as the superblock says, b = as the volumes say */
	VD_FAULT_MEMBER,   /* a = member; b = 0: it is missing; else it is too short and has b blocks. What is not there is not looked at */
	VD_FAULT_USED,     /* used blocks: a = in the superblock, b = by the counts */
	VD_FAULT_MORE,     /* b bytes more of the volume, in pieces from a on, are on members that are missing or too short */
	VD_FAULT_VOLUMES,  /* part of the list of volumes is lost: those with the b ids from a on cannot be found */
};
/* member: of a RANGE; ~0: on none, the metadata that led to it is lost. */
struct vd_check_report { enum vd_fault fault; uint32_t volume; uint64_t a, b; uint32_t member; };
typedef int (*vd_check_fn)(void *arg, const struct vd_check_report *r);
enum {
	VD_CHECK_QUICK = 1, /* members, the list of volumes, records, roots and for the pool's own trees what is just below */
	VD_CHECK_LOST = 2,  /* only what is lost: nodes of the pool (NODE), parts of the list of volumes, records, ranges of volumes */
	VD_CHECK_REPAIR = 4,/* gives back what is counted and not referred to; if then nothing is wrong the pool is damaged no more */
};
/* Checks the pool as of its last checkpoint plus the overlays.  Takes a
 * checkpoint first when the pool is writable. *faults counts them, also those that
 * were repaired: bad copies always are, when the pool is writable. Class B. */
int vd_check(struct vd_pool *pool, unsigned flags, vd_check_fn fn, void *arg, int (*progress)(void *arg, unsigned permille), uint64_t *faults) __must_check;

/* Walks every node from the roots for `vdpool dump`.  One that no copy can be read of, or a record that
 * makes no sense, has node = NULL, and what its parent says of it; what is below is left out. */
struct vd_dump_item {
	uint32_t volume;
	unsigned level;
	const struct vd_disk_node *node;
	vd_pblk_t a, b; /* these of lost ones only */
	uint64_t gen, lo, hi;
};
int vd_dump(struct vd_pool *pool, int (*fn)(void *arg, const struct vd_dump_item *item), void *arg) __must_check;

#endif
