/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Tampering with an image: what is in it, patches to that, and the mutator that
 * makes patches.
 *
 * An input is a head of 8 bytes and up to FZ_PATCHES patches of 16.  A patch names
 * an object of the image (by its number in the order of a walk from the superblock,
 * or as the nth of its type), a field of it, and what becomes of the field.  Checksums are made
 * right again, unless the patch says that the block is to be damaged.
 */
#ifndef VD_FUZZ_PATCH_H
#define VD_FUZZ_PATCH_H

#include "disk.h"

struct fz_head {
	uint8_t shape;
	uint8_t flags;  /* FZ_RO … */
	uint16_t seed;  /* of the work */
	uint32_t spare; /* fz_fail(); of fuzz_journal the upper half */
};

enum fz_op {
	FZ_SET, FZ_ADD, FZ_XOR,
	FZ_COPY,   /* the same field of another object */
	FZ_POINT,  /* a pointer field: to another object */
	FZ_BODY,   /* all behind the head, from another object of the same type */
	FZ_DUP, FZ_DEL, FZ_SWAP, /* entries of a node */
	FZ_BYTES,  /* raw, at any offset */
	FZ_BOTH,   /* a field of a node's head, and where its parents say the same */
	FZ_CUT,    /* the block is zeros from an offset on */
	FZ_OPS
};
enum {
	FZ_FIRST_COPY = 1, FZ_SECOND_COPY = 2, /* only that; both or none: all */
	FZ_DAMAGED = 4,                        /* the checksum stays wrong */
};
struct fz_patch {
	uint8_t op, flags;
	uint16_t object;
	uint16_t field;
	uint16_t index;  /* of an entry */
	uint64_t value;
};
_Static_assert(sizeof(struct fz_head) == 8 && sizeof(struct fz_patch) == 16, "layout of inputs");
#define FZ_PATCHES 24u

enum fz_type { FZ_LABEL, FZ_OWNER, FZ_SUPER, FZ_INDEX, FZ_EXTENTS, FZ_SPACE, FZ_VOLUME, FZ_TYPES };
struct fz_object {
	enum fz_type type;
	unsigned nblocks;  /* 1; superblock: 4 */
	unsigned ncopies;
	struct { unsigned m; uint64_t block; } at[4];
	struct vd_disk_ptr ptr; /* how parents point to it */
};
struct fz_ref { unsigned parent, child, offset; }; /* a vd_disk_ptr in parent's block */

#define FZ_OBJECTS 1200u
struct fz_map { /* of an image; the fixed ones come first */
	const struct sim *sim;
	struct fz_object obj[FZ_OBJECTS];
	struct fz_ref ref[2 * FZ_OBJECTS];
	unsigned n, nrefs, first_node;
};
const struct fz_map *fz_map(enum fz_shape shape);

/* Does the patches to objects [first, end) of a copy of the map's image. */
void fz_patch(struct sim *sim, const struct fz_map *map, unsigned first, unsigned end, const struct fz_patch *patch, unsigned n);

/* The common shape of a target: head, patches. */
void fz_run(const uint8_t *data, size_t size, unsigned first, unsigned end /* 0: all */, bool strict);

/* ---- mutator, for heads followed by elements of one size -------------------- */

struct fz_kind {
	size_t size;
	unsigned max;                       /* elements */
	void (*make)(struct rng *r, void *out);
	size_t field[12];                   /* where fields begin, then size; field 2: what it is about */
};
extern const struct fz_kind fz_patches;
size_t fz_mutate(const struct fz_kind *kind, uint8_t *data, size_t size, size_t max, unsigned seed);
size_t fz_cross(const struct fz_kind *kind, const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max,
		unsigned seed);
uint64_t fz_interesting(struct rng *r);

/* What libFuzzer calls, with a kind of element. */
#define FZ_TARGET(kind, run) \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size); \
	size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed); \
	size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max, unsigned seed); \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) { run; return 0; } \
	size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) { return fz_mutate(kind, data, size, max, seed); } \
	size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t na, const uint8_t *b, size_t nb, uint8_t *out, size_t max, unsigned seed) { return fz_cross(kind, a, na, b, nb, out, max, seed); }

#endif
