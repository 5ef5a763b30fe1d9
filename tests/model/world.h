/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * A pool on simulated disks beside its model, and the random operations that
 * are done to both.  What the model, crash and fault tests have in common.
 *
 * Everything follows from one seed: the shape of the pool, the operations, what
 * a crash leaves.  A failure prints the seed and the last operations and ends
 * the program with status 1.
 */
#ifndef VD_TESTS_WORLD_H
#define VD_TESTS_WORLD_H

#include "ref.h"

/* ---- command line ----------------------------------------------------- */

struct cli {
	const char *test;  /* what is printed after "ok 1 - " */
	uint64_t seed;
	bool seed_given;
	uint64_t runs, ops, crashes, seconds;  /* 0: not limited */
	uint64_t least;    /* of what is counted: not done before, however long it takes */
	bool verbose;
	/* set by cli_start() */
	double began;
	uint64_t run;
};
/* Reads --seed --runs --ops --crashes --seconds --verbose over the defaults given.
 * Without --seed a fresh one is taken; it is printed.  VD_TEST_SCALE (per cent)
 * scales the default seconds, VD_SOAK_SECONDS replaces them. */
void cli_start(struct cli *cli, int argc, char **argv);
bool cli_more(struct cli *cli, uint64_t done); /* another run? done: of what `least` counts */
uint64_t cli_run_seed(struct cli *cli);  /* of this run: with --seed S the first run's is S */
double cli_elapsed(const struct cli *cli);

/* ---- worlds ----------------------------------------------------------- */

struct shape {
	unsigned nmembers;
	uint64_t blocks[4];
	unsigned sector_size;
	uint64_t journal_blocks;
	bool write_through;  /* members without a volatile cache */
	bool no_tail;        /* the host has no memory that outlives the process */
	bool tiny;           /* it fills up: -ENOSPC is an ordinary answer */
	bool far;            /* volumes of up to 8 EiB, written here and there */
	bool bases;          /* volumes with base images */
	unsigned max_volumes;
	uint64_t max_write;  /* bytes */
};
enum { SHAPE_TINY = 1, SHAPE_QUICK = 2 /* for tests that open it thousands of times */ };
void shape_random(struct shape *shape, struct rng *rng, unsigned flags);

enum world_op {
	W_WRITE, W_READ, W_UNMAP, W_FLUSH, W_FUA, W_CREATE, W_DELETE, W_RENAME, W_RESIZE, W_SNAPSHOT, W_GROUP, W_ROLLBACK,
	W_ATTRS, W_LOCK, W_POINTER, W_READONLY, W_CHECKPOINT, W_WORK, W_SETTLE, W_CLOSE_VOLUME, W_DIFF, W_EXTENT, W_USAGE,
	W_REOPEN, W_ADD, W_CHECK, W_EDGE, W_FRAGMENT, W_RESERVE, W_GROW, W_POINTER_SET,
	W_POLICY, W_TRANSACTION, W_REPAIR, W_FILL, W_SERVER, W_OPS
};
extern const char *const world_op_name[W_OPS];

#define WORLD_LOG 60u
struct world {
	struct rng rng;
	uint64_t seed;
	const struct cli *cli;
	struct shape shape;
	struct sim *sim;
	struct vd_host host;
	struct vd_pool *pool;
	struct ref *ref;
	unsigned nhandles;
	struct { uint32_t id; struct vd_volume *vol; } handle[REF_VOLS];
	uint64_t names;            /* counter for fresh ones */
	unsigned weight[W_OPS];
	char log[WORLD_LOG][200];
	uint64_t nlog;
	uint64_t done[W_OPS], nospace;
};

/* Makes the disks and formats and opens the pool. */
struct world *world_new(const struct cli *cli, uint64_t seed, const struct shape *shape);
void world_free(struct world *w); /* the pool, if open, is abandoned */
/* The same disks (as a crash would find them) and model; no pool is open. */
struct world *world_fork(const struct world *w);

/* Opens; 0 or the engine's answer, which is a failure unless a cut or fault is about. */
int world_open(struct world *w, unsigned flags);
int world_close(struct world *w);    /* volumes first; the pool is gone */
void world_close_volumes(struct world *w);
void world_abandon(struct world *w); /* as if the process had died */

/* One random operation, or one of a kind.  0; or 1: a cut or a fault came in
 * between and the model has a pending change (or none). */
int world_step(struct world *w);
int world_do(struct world *w, enum world_op op);
/* The volume's handle, opened when it is not. NULL: a cut or a fault. */
struct vd_volume *world_handle(struct world *w, uint32_t id);

void world_verify(struct world *w, enum ref_mode mode);
void world_check(struct world *w);    /* vd_check finds nothing */
int world_fault_found(void *arg, const struct vd_check_report *f); /* for vd_check(): prints it */
/* What a crash at this moment would leave, looked at in a copy: opens, holds what it must, checks clean. */
void world_what_if(struct world *w, enum sim_crash how);
/* In a copy again: opened and checked.  The pool itself stays as it is, without the checkpoint of a check. */
void world_check_copy(struct world *w);
/* In a copy again: read-only, and that it does not write. */
void world_read_only(struct world *w);
/* All volumes deleted, everything settled: blocks in use. */
uint64_t world_empty(struct world *w);
uint64_t world_used(struct world *w);

/* A cut or a fault has happened: the engine's answers say nothing certain about
 * the change under way. */
bool world_disturbed(const struct world *w);
void world_weights(struct world *w); /* the ordinary ones */

void world_log(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void world_fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
