/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What journal.c (tail, commits, room) and replay.c (opening) share; nobody else
 * includes it.  journal.c tells how it all fits together.
 */
#ifndef VD_JOURNAL_PRIV_H
#define VD_JOURNAL_PRIV_H

#include "pool.h"

#define VD_BOUNDS_MAX 256u /* remembered ends of commits */
#define VD_SEQ_END (1ull << 62)
#define VD_NUMBER_END (1ull << 62)
#define TAIL_MAGIC "vdTAIL1"

struct tail_head { /* native byte order: it never leaves this boot */
	char magic[8];
	uint32_t crc;     /* of the next three */
	uint32_t bytes;
	uint64_t pool, incarnation;
	vd_atomic_t first; /* where the oldest record that is kept begins; grows for ever */
	vd_atomic_t end;   /* where the newest ends: storing it publishes a record */
};

struct tail_rec { /* before each record in the tail's ring */
	uint64_t seq;
	uint32_t crc; /* of the record, then of seq; starts with the head's crc */
	uint32_t len; /* of the record */
};

struct bound { /* the end of a commit, where the ring's tail may go */
	uint64_t seq;    /* last record before it */
	uint64_t number; /* block after it */
	uint32_t crc;    /* of the block before `number` */
};

struct segment {
	uint64_t inc, number;
};

struct vd_journal {
	/* fixed after init */
	uint64_t start, blocks;
	unsigned copy[VD_JOURNAL_COPIES]; /* members that hold the journal and are in */
	unsigned ncopies;
	struct tail_head *th;
	uint8_t *ring;
	unsigned ring_bytes;  /* a power of two */
	unsigned buf_blocks;  /* longest commit */
	bool th_is_plain; /* ours to free: dies with the process */
	uint8_t *buf;   /* one commit's blocks; the running round's, or replay's */
	uint8_t *rec;   /* one record, aligned; same owner */

	struct vd_spin tail_lock;
	uint64_t end;   /* private copy of th->end; tail_lock */
	uint32_t seed;  /* crc of the head, fixed after begin */
	vd_atomic_t last;

	vd_atomic_t claimed;       /* J1: bytes of records reserved or not yet durable */
	vd_atomic_t claimed_bytes; /* the same in the tail's ring, with their heads */
	vd_atomic_t due;
	struct vd_mutex room_lock; /* one caller at a time looks for room; outside ckpt_lock */

	vd_atomic_t dirty[VD_MEMBERS_MAX];

	struct vd_mutex lock; /* all below; the running round changes them only with it held */
	struct vd_cond moved;
	uint64_t started, done; /* rounds; done: the newest that succeeded */
	bool running, failed, began;
	bool level;     /* the copies are equal up to the head */
	unsigned pref;  /* copy that replay believed where they differ */
	uint64_t first; /* tail ring: begin of the oldest record not durable */
	uint64_t inc;
	uint64_t tail, head, place; /* block numbers; place of head in the ring */
	uint32_t tail_crc, head_crc; /* of the blocks before them */
	unsigned nsegments;
	struct segment segment[VD_SEGMENTS_MAX];
	unsigned nbounds;
	struct bound bound[VD_BOUNDS_MAX]; /* ascending */
	vd_atomic_t durable, used, written;
};

/* What a commit is made of: the tail's records [first, end), seq (durable, last]. */
struct commit {
	uint64_t first, end;
	uint64_t first_seq, last_seq;
	unsigned nblocks;      /* out */
	unsigned used;         /* payload bytes of the last block so far */
	int64_t claims, bytes; /* out: what the records had reserved, without and with heads */
	uint32_t crc;          /* out: of the last block */
};

static inline unsigned vd_journal_rec_bytes(unsigned len)
{
	return (unsigned)sizeof(struct tail_rec) + len;
}

static inline bool vd_journal_rec_len_ok(unsigned len)
{
	return len >= sizeof(struct vd_disk_rec) && len <= VD_REC_MAX && !(len & 7);
}

/* Place of block `n`, which is at most `blocks` before or after the head. */
static inline uint64_t vd_journal_place(const struct vd_journal *j, uint64_t n)
{
	uint64_t d;

	if (n >= j->head) {
		d = j->place + (n - j->head);
		return d >= j->blocks ? d - j->blocks : d;
	}
	d = j->head - n;
	return d > j->place ? j->place + j->blocks - d : j->place - d;
}

static inline struct vd_disk_journal *vd_journal_buf_block(const struct vd_journal *j, unsigned i)
{
	return (struct vd_disk_journal *)(j->buf + (size_t)i * VD_BLOCK);
}

/* The tail record at `pos` into j->rec, if there is a sound one before `end`. */
bool vd_journal_tail_take(struct vd_journal *j, uint64_t pos, uint64_t end, struct tail_rec *h);
uint32_t vd_journal_block_crc(const struct vd_disk_journal *b);
int vd_journal_flush_member(struct vd_pool *pool, unsigned m) __must_check;
/* Blocks n... to one member, in one write, or two where the ring wraps; not flushed. */
int vd_journal_write_blocks(struct vd_pool *pool, unsigned member, uint64_t n, const uint8_t *buf, unsigned count) __must_check;
/* What is dirty, then the records of a commit to every copy: durable on return. */
int vd_journal_commit_write(struct vd_pool *pool, struct commit *c) __must_check;
/* The commit has become durable: moves head and durable, trims the tail.  j->lock. */
void vd_journal_commit_done(struct vd_journal *j, const struct commit *c);
void vd_journal_bound_add(struct vd_journal *j, uint64_t seq); /* j->head is the end of a commit; j->lock */
/* Segments that end at or before block `tail` are of no use; the last one stays. */
unsigned vd_journal_segments_drop(struct segment *seg, unsigned n, uint64_t tail);
void vd_journal_segments_store(struct vd_disk_super *super, const struct segment *seg, unsigned n);

#endif
