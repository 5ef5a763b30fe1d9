/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What a pool must hold: the trivial model that the engine is compared with.
 *
 * A volume is a map from sectors to values (io.h), kept in pages that snapshots
 * share.  Beside the value that a sector has now, a volume remembers the values
 * that it may have after a power cut: those it had at the last completed flush
 * or since.
 *
 * A change is told to the model twice: ref_begin() before the engine is called,
 * ref_done() or ref_undone() when it has answered plainly.  Where it has not (a
 * crash, an I/O error), the change stays pending, and the next verification
 * finds out by looking which way it went: volumes either before or after, as a
 * whole; written and unmapped sectors each for itself.
 */
#ifndef VD_TESTS_REF_H
#define VD_TESTS_REF_H

#include "io.h"

#define REF_VOLS 64u
#define REF_RW (1ull << 63) /* of an opener: its pointer is read-write */
#define REF_PAIRS 8u
#define REF_SERVERS 4u
#define PAGE_SECTORS 64u
#define PAGE_BLOCKS (PAGE_SECTORS / VD_SECTORS_PER_BLOCK)
#define PAGE_BYTES (PAGE_SECTORS * SECTOR)

struct ref_page {
	unsigned refs;
	uint64_t number;
	uint64_t value[PAGE_SECTORS];
	uint8_t kind[PAGE_BLOCKS]; /* enum vd_ext_kind; of use while ref->exact */
};
struct ref_past { uint64_t sector, value; };
struct ref_vol {
	uint32_t id, family, origin;
	char name[128];
	char attrs[64];
	uint64_t size;
	uint64_t nbase;     /* sectors of base image; 0: none */
	uint64_t reserved;  /* blocks */
	bool readonly, locked;
	unsigned npointers;
	uint32_t link[VD_POINTERS_MAX];
	uint64_t opener[VD_POINTERS_MAX]; /* the pointer's pid, one of its own; the topmost bit: read-write */
	struct ref_page **bucket;  /* open addressing by page number */
	unsigned nbuckets, npages;
	struct ref_past *past;
	unsigned npast, past_room;
	bool past_sorted;
};

enum ref_op_kind {
	REF_NONE, REF_WRITE, REF_UNMAP, REF_CREATE, REF_DELETE, REF_RENAME, REF_RESIZE, REF_SNAPSHOT, REF_ROLLBACK,
	REF_ATTRS, REF_LOCK, REF_UNLOCK, REF_POINTER_ADD, REF_POINTER_DEL, REF_READONLY, REF_RESERVE, REF_POINTER_SET,
	REF_POLICY, REF_TRANSACTION, REF_SERVER_ADD, REF_SERVER_DEL, REF_KINDS
};
extern const char *const ref_op_name[REF_KINDS];
struct ref_op {
	enum ref_op_kind kind;
	uint32_t id, other;       /* other: ROLLBACK's snapshot, POINTER's link, SERVER's place in the model */
	uint64_t off, len, value; /* WRITE, UNMAP, in bytes; POINTER_*: value is the opener; TRANSACTION: the number */
	struct vd_pool_policy policy;
	uint64_t size, nbase, reserved;
	char name[128], attrs[64];
	bool readonly;
	unsigned n;
	struct { uint32_t origin, id; char name[128]; bool readonly; } pair[REF_PAIRS];
};

struct ref {
	unsigned n;
	struct ref_vol *vol[REF_VOLS];
	struct ref_op op;   /* pending; REF_NONE: none */
	bool exact;         /* no crash yet: which blocks are mapped is known */
	uint64_t next_value;
	bool knows_pool;    /* policy and transaction are compared too */
	struct vd_pool_policy policy;
	uint64_t transaction;
	struct { bool there; char attrs[64]; } server[REF_SERVERS]; /* called s0, s1, … */
};

struct ref *ref_new(void);
struct ref *ref_copy(const struct ref *ref);
void ref_free(struct ref *ref);
struct ref_vol *ref_find(struct ref *ref, uint32_t id);
void ref_server_name(uint32_t place, char name[8]);
struct ref_vol *ref_named(struct ref *ref, const char *name);

void ref_begin(struct ref *ref, const struct ref_op *op);
void ref_done(struct ref *ref);               /* it happened; ids that the engine gave are in ref->op */
void ref_done_partly(struct ref *ref, uint64_t bytes); /* WRITE: so much from its start, the rest not */
void ref_undone(struct ref *ref);             /* it did not happen */
void ref_flushed(struct ref *ref);            /* all of now is durable */

uint64_t ref_value(const struct ref_vol *v, uint64_t sector);
enum vd_ext_kind ref_kind(const struct ref_vol *v, uint64_t vblk);
uint64_t ref_mapped(const struct ref_vol *v); /* blocks of kind DATA */

enum ref_mode {
	REF_LIVE,      /* no crash: all values as they are */
	REF_KILLED,    /* the same: what was acknowledged outlives the process (I10) */
	REF_KILLED_NO_TAIL, /* a host without such memory: values of now, or since the last flush */
	REF_POWER_CUT, /* values of now, or since the last flush; the same, and what is found is kept from now on */
};
/* Compares the whole pool.  Resolves the pending change.  0, or -1 with a message. */
int ref_verify(struct ref *ref, struct sim *sim, struct vd_pool *pool, enum ref_mode mode, struct rng *rng, char *msg, size_t size);

#endif
