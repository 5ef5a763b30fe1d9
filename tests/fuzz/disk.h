/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the fuzz targets of the engine stand on: simulated disks (tests/model/sim.c)
 * behind a host that watches, images that the engine made itself at start, and the
 * work that is done on a pool once it has been tampered with.
 *
 * One input is one run:
 *
 *   copy of an image ► patches, checksums made right again ► open ► work ► close
 *
 * What is wrong is a crash, an assertion, a sanitiser's complaint, and further:
 *   F1  a call that does not end, or goes on for ever in small steps;
 *   F2  I/O outside of a member, by the engine or where the engine sends its caller
 *       (not where the superblock itself lies about the members' sizes);
 *   F3  memory: kept after the pool is gone, or out of all proportion;
 *   F4  an answer that is neither 0 nor a negative errno; a list that goes backwards;
 *   F5  a pool that checked clean, on which nothing failed, and that no longer does.
 * Errors are fine.
 */
#ifndef VD_FUZZ_DISK_H
#define VD_FUZZ_DISK_H

#include "tests/model/sim.h"

struct fz_disk {
	struct sim *sim;
	struct vd_host inner; /* the sim's */
	bool strict;          /* F2 */
	uint64_t calls;       /* of the host, in this run */
	uint64_t bytes;       /* allocated now */
};
/* Takes sim over. */
void fz_disk_init(struct fz_disk *d, struct sim *sim, bool strict);
void fz_disk_fini(struct fz_disk *d); /* F3: nothing is held any more */
void fz_host(struct fz_disk *d, struct vd_host *host);

/* A call of the host fails during the run, if `what` is not 0: its low two bits say which
 * kind (enum sim_call), the third whether all later ones too, those from the eighth
 * on how many are done before. */
void fz_fail(struct fz_disk *d, uint16_t what);

/* Data I/O of the engine's caller. */
int fz_read(struct fz_disk *d, struct vd_volume *vol, uint64_t off, uint32_t len);
int fz_write(struct fz_disk *d, struct vd_volume *vol, uint64_t off, uint32_t len);
/* F4 */
int fz_answer(const char *call, int r);
_Noreturn void fz_fault(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void *must_zero(size_t size); /* never NULL */
/* Blocks behind the engine's back, on every image there is of them. */
void fz_peek(const struct sim *sim, unsigned m, uint64_t block, void *buf);
void fz_poke(struct sim *sim, unsigned m, uint64_t block, const void *buf);

/* ---- images ------------------------------------------------------------- */

enum fz_shape {
	FZ_TWO,      /* two members, trees of height 1, snapshots, base, lock, pointers; closed */
	FZ_ONE,      /* one member, sectors of 4096 */
	FZ_CRASHED,  /* as TWO, the process died: a journal to replay, and a tail in memory */
	FZ_HALF,     /* as TWO; a deletion and a snapshot were under way */
	FZ_FULL,     /* no space left */
	FZ_TALL,     /* an extent tree of height 2 */
	FZ_SHAPES
};
/* Made at the first call, kept for ever. */
const struct sim *fz_image(enum fz_shape shape);

/* ---- work ---------------------------------------------------------------- */

enum {
	FZ_RO = 1, FZ_NO_REPLAY = 2, FZ_MISSING = 4 /* the last member is not there */, FZ_AGAIN = 8, /* killed, and opened again */
	FZ_QUIET = 16, /* no changes */
};
/* Opens the pool, looks at everything, does some things that seed says, closes it.  With FZ_SAVE
 * in the environment its image is saved instead (save.c). */
void fz_work(struct fz_disk *d, unsigned flags, uint32_t seed);
#define FZ_PLACE (16ull << 20)
void fz_save(struct fz_disk *d, const char *path);
/* The part between: pool stays open. Used by fz_work(). */
void fz_look(struct fz_disk *d, struct vd_pool *pool, struct rng *rng);
void fz_change(struct fz_disk *d, struct vd_pool *pool, struct rng *rng, unsigned steps);

#endif
