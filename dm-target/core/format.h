/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The on-disk format, version 1.  man/vd-format.5 tells the same for someone
 * who writes another reader; change both or neither.
 *
 * All numbers are little-endian.  All metadata I/O is whole aligned 4 KiB
 * blocks (I15).  Every structure carries a CRC32C of its whole extent with the
 * crc field taken as zero (initial value ~0, no final inversion).
 *
 * A member (file or block device):
 *
 *   block 0        label: who I am (written once, at creation or addition)
 *   block 1        owner record: who may change the pool now
 *   blocks 2-3     spare
 *   blocks 4-7     superblock slot 0   (generation even)
 *   blocks 8-11    superblock slot 1   (generation odd)
 *   blocks 12-15   spare
 *   blocks 16-     journal copy (members that the superblock names), then
 *                  metadata nodes and data, mixed, allocated in 4 KiB blocks
 *
 * A pool block address (vd_pblk_t) is member << 40 | block.  Up to 256 members
 * of 2^40 blocks (4 PiB) each: 1 EiB.
 *
 * From the superblock hang three trees of nodes:
 *   space    page key = block group (pblk >> 13); pages are reference counts
 *   volumes  page key = volume id; pages are volume records
 *   index    an extent tree whose "virtual block" is a hash of a volume's name
 * and from each volume record hangs the extent tree of its mapping.
 */
#ifndef VD_FORMAT_H
#define VD_FORMAT_H

#include "port.h"

typedef uint64_t vd_vblk_t;   /* 4 KiB block within a volume, < 2^51 */
typedef uint64_t vd_pblk_t;   /* 4 KiB block within the pool: member << 40 | block */
typedef uint64_t vd_sector_t; /* 512 bytes */

#define VD_BLOCK 4096u
#define VD_BLOCK_SHIFT 12
#define VD_SECTORS_PER_BLOCK 8u
#define VD_VBLK_END (1ull << 51) /* 8 EiB */
#define VD_MEMBERS_MAX 256u
#define VD_MEMBER_SHIFT 40
#define VD_PBLK_NONE 0xffffffffffffull /* 48 bits of ones: no block */
#define VD_PBLK(member, block) (((vd_pblk_t)(member) << VD_MEMBER_SHIFT) | (block))
#define VD_PBLK_MEMBER(p) ((unsigned)((p) >> VD_MEMBER_SHIFT))
#define VD_PBLK_BLOCK(p) ((p) & ((1ull << VD_MEMBER_SHIFT) - 1))

#define VD_LABEL_BLOCK 0u
#define VD_OWNER_BLOCK 1u
#define VD_SUPER_BLOCK0 4u
#define VD_SUPER_BLOCKS 4u /* length of one slot */
#define VD_SYSTEM_BLOCKS 16u
#define VD_MEMBER_MIN_BLOCKS 2048u /* 8 MiB */

#define VD_LABEL_MAGIC "vdLABEL1"
#define VD_OWNER_MAGIC "vdOWNER1"
#define VD_SUPER_MAGIC "vdSUPER1"
#define VD_NODE_MAGIC 0x444f4e76u /* "vNOD" */
#define VD_JOURNAL_MAGIC 0x4e4c4a76u /* "vJLN" */
#define VD_FORMAT_VERSION 1u

/* Feature flags: an unknown compatible flag is ignored, an unknown read-only
 * compatible flag allows reading only, an unknown incompatible flag refuses. */
#define VD_FEATURE_COMPAT_KNOWN 0ull
#define VD_FEATURE_DAMAGED 1ull /* ro_compat: metadata was found lost in every copy; cleared by a repair that finds no more */
#define VD_FEATURE_RO_COMPAT_KNOWN VD_FEATURE_DAMAGED
#define VD_FEATURE_SERVERS 1ull /* incompat: records may be those of servers (VD_VOL_SERVER); set with the first, and stays */
#define VD_FEATURE_INCOMPAT_KNOWN VD_FEATURE_SERVERS

struct vd_disk_ptr { /* a tree entry: key, then where the child is */
	__le64 key;
	__le64 gen;      /* generation the child carries; 0: no child, see below */
	__le32 a_lo;     /* first copy; carries the reference count of the node */
	__le32 b_lo;     /* second copy, on another member, or all ones */
	__le16 a_hi, b_hi;
	__le32 aux;      /* space tree: free blocks below, saturating; else 0 */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_ptr) == 32, "vd_disk_ptr");
/* In the space tree an entry of generation 0 stands for a whole group whose
 * blocks all have the reference count in a_lo. */

struct vd_disk_node { /* head of every node and page */
	__le32 magic;
	__le32 crc;
	__le64 pool;     /* first eight bytes of the pool's uuid */
	__le64 a, b;     /* own addresses; b = VD_PBLK_NONE when there is one copy */
	__le64 gen;      /* checkpoint generation that wrote it */
	uint8_t kind;    /* enum vd_node_kind */
	uint8_t level;   /* index: 1 is just above the pages; pages: 0 */
	__le16 count;    /* entries */
	__le32 owner;    /* volume that wrote it, for repair by scan; 0 for the pool */
	__le64 key_lo, key_hi; /* half-open range of keys below, for repair */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_node) == 64, "vd_disk_node");

enum vd_node_kind {
	VD_NODE_INDEX = 1, /* vd_disk_ptr entries */
	VD_NODE_EXTENTS,   /* vd_disk_extents */
	VD_NODE_SPACE,     /* vd_disk_space */
	VD_NODE_VOLUME,    /* vd_disk_volume */
};

#define VD_INDEX_MAX ((VD_BLOCK - sizeof(struct vd_disk_node)) / sizeof(struct vd_disk_ptr)) /* 126 */
#define VD_TREE_LEVELS_MAX 12u /* pages included: a root is at most 11 high */

/* A page of mapping.  Births are kept as an index into a table of the page;
 * a birth that finds the table full is rounded down to the next older entry,
 * which is always safe (an older block is only copied once more). */
#define VD_BIRTHS 16u
struct vd_disk_extent {
	__le64 w0; /* vblk:52 | birth index:4 | kind:2 | zero:6, from the low end */
	__le64 w1; /* DATA: pblk:48 | length-1:16.  ZERO: length-1:64 */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_extent) == 16, "vd_disk_extent");
#define VD_EXTENT_LEN_MAX 65536u /* blocks, of a DATA extent */
#define VD_EXTENTS_MAX ((VD_BLOCK - sizeof(struct vd_disk_node) - VD_BIRTHS * 8) / sizeof(struct vd_disk_extent)) /* 244 */
struct vd_disk_extents {
	struct vd_disk_node h;
	__le64 birth[VD_BIRTHS]; /* 0: unused entry, except that births may be 0 */
	struct vd_disk_extent e[VD_EXTENTS_MAX]; /* ascending, disjoint, within the page's key range */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_extents) == VD_BLOCK, "vd_disk_extents");
enum vd_ext_kind { VD_HOLE = 0, VD_DATA = 1, VD_ZERO = 2, VD_BASE = 3 /* never on disk */ };

/* Reference counts of one block group of 8192 blocks (32 MiB), packed at 1, 2,
 * 3, 7, 15 or 31 bits a block.  What does not fit in one page at the width the
 * largest count needs is kept in 2, 4 or 8 pages of equal parts; the key of a
 * part is its first pblk >> 10, so a group's first page is at group * 8. */
#define VD_GROUP_SHIFT 13
#define VD_GROUP_BLOCKS 8192u
#define VD_SPACE_KEY_SHIFT 10
struct vd_disk_space {
	struct vd_disk_node h; /* key_lo, key_hi in units of the key; count = parts of the group */
	__le32 width;          /* bits a block: 1, 2, 3 (1 part), 7 (2), 15 (4), 31 (8) */
	__le32 nblocks;        /* blocks this page covers: 8192, 4096, 2048 or 1024 */
	uint8_t bits[VD_BLOCK - 64 - 8]; /* little-endian bit string: block i at bit i * width */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_space) == VD_BLOCK, "vd_disk_space");

struct vd_disk_root {
	struct vd_disk_ptr ptr; /* key unused; gen 0: empty tree */
	uint8_t height;         /* index levels above the pages; 0: ptr is a page */
	uint8_t zero[7];
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_root) == 40, "vd_disk_root");

struct vd_disk_holder { /* who holds a lock, an opening, or the pool */
	uint8_t host[16];  /* machine id */
	uint8_t boot[16];  /* boot id */
	char hostname[64];
	char purpose[32];  /* "vdcreate", "nbd export", … */
	__le64 pid;
	__le64 since;      /* ns since 1970 */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_holder) == 144, "vd_disk_holder");

struct vd_disk_pointer { /* open pointer: one opening of a volume */
	struct vd_disk_holder who;
	__le64 epoch;        /* the pool's epoch when it was opened */
	__le32 mode;         /* 0 read-only, 1 read-write */
	__le32 link;         /* id of the link it belongs to, unique in the pool */
	char opened_as[128]; /* "/dev/loop3", "/dev/loop3 scsi0.0:0:2:0 4711" */
	char mount[128];     /* where it was mounted, or empty */
	char server[64];     /* server description; "local" */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_pointer) == 480, "vd_disk_pointer");

#define VD_NAME_MAX 127u
#define VD_SERVER_NAME_MAX 63u /* an open pointer has room for it */
#define VD_POINTERS_MAX 4u
#define VD_BASE_MAX 512u
#define VD_ATTRS_MAX 768u

enum vd_volume_flags {
	VD_VOL_READONLY = 1u << 0,
	VD_VOL_LOCKED = 1u << 1,    /* lock record is valid */
	VD_VOL_DELETING = 1u << 2,  /* no name; its tree is being freed */
	VD_VOL_PENDING = 1u << 3,   /* snapshot not yet valid (I1); dropped at open */
	VD_VOL_SNAPSHOT = 1u << 4,  /* made by a snapshot */
	VD_VOL_BASE = 1u << 5,      /* has a base image */
	VD_VOL_SERVER = 1u << 6,    /* no volume: describes a server, in attrs; its name is kept behind a dot, its size is 0 */
};

struct vd_disk_volume { /* page of the volume tree; key = id */
	struct vd_disk_node h;
	__le32 id;
	__le32 flags;
	uint8_t uuid[16];
	char name[128];        /* NUL-terminated; empty when deleting */
	__le64 size;           /* bytes, a multiple of 4096 */
	__le64 mapped;         /* blocks of its own or shared that it maps */
	struct vd_disk_root root;
	__le64 last_snapshot;  /* epoch; blocks born later are its own */
	__le64 family;         /* id of the first volume of all that share with it */
	__le64 origin;         /* volume it is a snapshot of, or 0 */
	__le64 created;        /* ns since 1970 */
	__le64 reserved_blocks;/* so many of its own it may always have (D10) */
	__le64 own_blocks;     /* written since last_snapshot; means nothing when that is 0 */
	struct vd_disk_holder lock;
	__le32 npointers;
	__le32 attrs_len;
	struct vd_disk_pointer pointer[VD_POINTERS_MAX];
	char base[VD_BASE_MAX];   /* path of the base image */
	char attrs[VD_ATTRS_MAX]; /* key=value\n… */
	uint8_t zero[VD_BLOCK - 64 - 8 - 16 - 128 - 16 - 40 - 48 - 144 - 8 - 480 * VD_POINTERS_MAX - VD_BASE_MAX - VD_ATTRS_MAX];
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_volume) == VD_BLOCK, "vd_disk_volume");

struct vd_disk_label {
	char magic[8];
	__le32 crc;
	__le32 version;
	uint8_t pool[16];
	uint8_t member[16];
	__le32 index;     /* of this member in the pool */
	__le32 zero;
	__le64 blocks;    /* size of the member when it joined */
	char pool_name[128];
	uint8_t rest[VD_BLOCK - 192];
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_label) == VD_BLOCK, "vd_disk_label");

struct vd_disk_owner { /* section 3 of the brief: one owner at a time */
	char magic[8];
	__le32 crc;
	__le32 state;          /* 0 nobody, 1 in use */
	__le64 incarnation;    /* of the opening that wrote it */
	struct vd_disk_holder who;
	__le64 generation;     /* of the superblock that every member had then; 0: not told */
	uint8_t rest[VD_BLOCK - 176];
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_owner) == VD_BLOCK, "vd_disk_owner");

struct vd_disk_member {
	uint8_t uuid[16];
	__le64 blocks;
	__le32 flags; /* VD_MEMBER_* */
	__le32 zero;
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_member) == 32, "vd_disk_member");
#define VD_MEMBER_OUT 1u /* failed, not written since (I9) */

#define VD_JOURNAL_COPIES 2u
#define VD_SEGMENTS_MAX 8u
struct vd_disk_segment { /* journal blocks from here on carry this incarnation (I8) */
	__le64 incarnation;
	__le64 block;
} __attribute__((packed));

struct vd_disk_super {
	char magic[8];
	__le32 crc;            /* of the whole slot, 16 KiB */
	__le32 version;
	__le64 compat, ro_compat, incompat;
	uint8_t pool[16];
	char name[128];
	__le64 generation;     /* of the checkpoint this slot completes */
	__le64 incarnation;    /* raised at each opening for writing */
	__le64 epoch;          /* I1, as of seq */
	__le64 seq;            /* every record up to this one is in the trees */
	__le64 next_volume;    /* next volume id to give */
	__le64 total_blocks, used_blocks; /* used: reference count above 0 */
	__le64 created;
	__le32 sector_size;    /* logical: 512 or 4096 (I15) */
	__le32 nmembers;
	struct vd_disk_root space, volumes, index;
	__le64 journal_start;  /* block on each journal member */
	__le64 journal_blocks;
	__le32 journal_member[VD_JOURNAL_COPIES]; /* ~0: no second copy */
	__le64 journal_tail;   /* number of the first journal block to replay; its place is start + number % blocks */
	__le32 journal_crc;    /* crc of the block before the tail */
	__le32 nsegments;
	struct vd_disk_segment segment[VD_SEGMENTS_MAX];
	__le32 policy;         /* VD_POLICY_* */
	__le32 threshold[4];   /* use of the pool, in per mille, that is reported; 0: none */
	__le32 next_link;
	__le64 reserve_blocks;
	__le64 meta_blocks;    /* of used_blocks: nodes, both copies, system blocks, journal */
	__le64 promised_blocks;/* not to be taken but by volumes with reservations: sum over these, as of seq */
	__le64 grow_by, grow_to; /* blocks: files among the members grow by so much, until the pool has so much; 0: not, no limit */
	struct vd_disk_suspect { __le64 a, b, gen; } suspect; /* gen 0: none. DAMAGED was set because this node could not be read */
	__le64 transaction;    /* the administrator's, of no meaning here */
	uint8_t pad[4096 - 640];
	struct vd_disk_member member[VD_MEMBERS_MAX];
	uint8_t rest[4096];
} __attribute__((packed));
_Static_assert(offsetof(struct vd_disk_super, member) == 4096, "vd_disk_super");
_Static_assert(sizeof(struct vd_disk_super) == VD_SUPER_BLOCKS * VD_BLOCK, "vd_disk_super");
#define VD_POLICY_ERROR_IF_FULL 1u /* else the host queues writes to a full pool for a while */
#define VD_POLICY_NO_DISCARD 2u    /* what is free again is not discarded on the members */
#define VD_POLICY_KNOWN (VD_POLICY_ERROR_IF_FULL | VD_POLICY_NO_DISCARD)

/* Journal.  One commit is one or more consecutive blocks, written at once; the
 * payloads of its blocks joined are a string of records.  A commit counts only
 * when its last block, marked VD_JOURNAL_END, is valid too. */
struct vd_disk_journal {
	__le32 magic;
	__le32 crc;
	__le64 pool;
	__le64 incarnation;
	__le64 block;      /* running number, never reused */
	__le32 prev_crc;   /* crc field of block - 1 */
	__le16 flags;
	__le16 len;        /* bytes of payload used */
	__le64 first_seq;  /* of the commit's first record */
	__le64 last_seq;   /* of the commit's last record */
	uint8_t payload[VD_BLOCK - 56];
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_journal) == VD_BLOCK, "vd_disk_journal");
#define VD_JOURNAL_BEGIN 1u
#define VD_JOURNAL_END 2u
#define VD_JOURNAL_PAYLOAD (VD_BLOCK - 56u)

/* Records.  Sequence numbers are implied: first_seq, first_seq + 1, … */
struct vd_disk_rec {
	__le16 type;
	__le16 len; /* of the whole record, a multiple of 8 */
	__le32 volume;
} __attribute__((packed));
enum vd_rec_type {
	VD_REC_MAP = 1,  /* vd_disk_rec_map */
	VD_REC_UNMAP,    /* vd_disk_rec_unmap */
	VD_REC_VOLUME,   /* vd_disk_volume without its node head, trailing zeros cut: new state of the record; of a volume that is there, flags PENDING and DELETING stay; root, mapped, last_snapshot and own_blocks are never taken from it */
	VD_REC_SNAP,     /* vd_disk_rec_snap: one step for all pairs */
	VD_REC_VALID,    /* vd_disk_rec_snap: those clones are valid */
	VD_REC_DELETE,   /* the volume's name goes, its tree will */
	VD_REC_ROLLBACK, /* vd_disk_rec_snap with one pair: origin takes the clone's mapping; volume = hidden volume that inherits the old one */
};
struct vd_disk_rec_map {
	struct vd_disk_rec r;
	__le64 vblk;
	__le64 pblk_len; /* pblk:48 | length-1:16 */
	__le64 fresh;    /* how many of the blocks were unmapped before */
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_rec_map) == 32, "vd_disk_rec_map");
struct vd_disk_rec_unmap {
	struct vd_disk_rec r;
	__le64 vblk, len;
	__le64 freed;    /* how many of the blocks were mapped before */
	__le32 kind;     /* VD_HOLE or VD_ZERO */
	__le32 zero;
} __attribute__((packed));
_Static_assert(sizeof(struct vd_disk_rec_unmap) == 40, "vd_disk_rec_unmap");
struct vd_disk_rec_snap {
	struct vd_disk_rec r;
	__le64 epoch;    /* the new epoch */
	__le32 n, zero;
	struct { __le32 origin, clone; } pair[];
} __attribute__((packed));

#endif
