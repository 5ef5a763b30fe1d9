/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * A simulated set of disks that is a struct vd_host.
 *
 * Each member is an image in memory with a volatile write cache: reads see all
 * writes, a crash keeps only what was flushed plus whatever the cache had chosen
 * to write, torn at 512 bytes (or at the pool's sector).  What was never written,
 * or was discarded, reads as garbage: an engine that shows such a block to
 * anyone is found out.
 *
 * Images are made of reference-counted chunks, so that copying a whole disk (to
 * look at what a crash would have left, while the pool goes on) costs little.
 *
 * A cut is a crash in the making: after the given number of host calls every
 * call fails with -EIO, and what it would have done is not done (the call at the
 * cut may be done in part).  The program unwinds, abandons its pool, and calls
 * sim_crash().
 *
 * Thread-safe, but for making, copying, crashing and destroying.
 */
#ifndef VD_TESTS_SIM_H
#define VD_TESTS_SIM_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "vd.h"

struct rng { uint64_t s; };
struct rng rng_seeded(uint64_t seed);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);               /* 0 .. n-1; n > 0 */
uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi); /* both may come */
static inline bool rng_one_in(struct rng *r, uint64_t n) { return !rng_below(r, n); }

enum sim_call { SIM_READ, SIM_WRITE, SIM_FLUSH, SIM_ALLOC, SIM_CALLS };
enum sim_crash { SIM_POWER_CUT, SIM_KILL };

struct sim_chunk;
struct sim_write { /* one write call not flushed since: data follows, a byte per sector says whether it was done */
	struct sim_write *next;
	uint64_t sector;
	unsigned nsectors;
	uint8_t *done; /* NULL: all */
	uint8_t data[];
};
struct sim_member {
	uint64_t blocks;
	uint64_t nchunks;
	struct sim_chunk **now, **durable; /* the same chunk where nothing is unflushed */
	struct sim_write *first, **last;
	uint64_t unflushed;
	bool missing;       /* all calls answer -ENODEV */
	bool write_through; /* no volatile cache */
	uint64_t bad[4];    /* blocks that cannot be read until they are written; 0: none */
};

struct sim {
	pthread_mutex_t lock;
	struct rng rng;
	unsigned nmembers;
	struct sim_member *member[VD_MEMBERS_MAX];
	unsigned tear;        /* sectors that are written together or not at all: 1 or 8 */
	void *tail;           /* memory of this boot that outlives the process */
	size_t tail_size;
	bool no_tail;         /* the host offers none */
	bool one_write;       /* the host has `commit` */
	uint64_t calls[SIM_CALLS];
	uint64_t ncalls;      /* reads, writes, flushes together */
	uint64_t ndiscards;
	int64_t live;         /* allocations not freed */
	uint64_t clock;
	bool kicked;
	bool verbose;         /* the engine's log goes to stderr */
	uint64_t errors_logged;
	/* a failure on order */
	struct { bool armed, sticky, hit; enum sim_call call; uint64_t nth; int err; } fault;
	/* a cut on order */
	struct { bool armed, done; uint64_t after; void *tail; } cut;
};

struct sim *sim_new(uint64_t seed, unsigned nmembers, const uint64_t *blocks, unsigned tear);
void sim_free(struct sim *sim);
/* As things would be after a crash: images and tail, no faults, no cut. */
struct sim *sim_copy(const struct sim *sim);
void sim_add(struct sim *sim, uint64_t blocks);
void sim_grow(struct sim *sim, unsigned m, uint64_t blocks); /* or becomes shorter; durably, at once */
void sim_host(struct sim *sim, struct vd_host *host);

/* A later crash begins when `after` more host calls are made. */
void sim_cut(struct sim *sim, uint64_t after);
void sim_uncut(struct sim *sim);
static inline bool sim_is_cut(const struct sim *sim) { return sim->cut.done; }
/* What is left: no faults and no cut afterwards.  A power cut loses the tail and
 * what the caches had not written; a kill loses nothing that was done by the cut. */
void sim_crash(struct sim *sim, enum sim_crash how);

/* The nth call from now of this kind fails with err; sticky: and all later ones too. */
void sim_fail(struct sim *sim, enum sim_call call, uint64_t nth, int err, bool sticky);
bool sim_unfail(struct sim *sim); /* whether it came to it */

/* One member's durable image, to be put back later as a stale one. */
struct sim_member *sim_member_save(const struct sim *sim, unsigned m);
void sim_member_restore(struct sim *sim, unsigned m, const struct sim_member *saved);
void sim_member_free(struct sim_member *saved);
/* Spoils bytes behind the engine's back, durably. */
void sim_spoil(struct sim *sim, unsigned m, uint64_t block, unsigned offset, unsigned len);
void sim_peek(struct sim *sim, unsigned m, uint64_t block, void *buf);

/* Data I/O of the engine's caller: 512-byte sectors of a pool block. */
int sim_data_read(struct sim *sim, vd_pblk_t p, uint32_t offset, void *buf, uint32_t bytes);
int sim_data_write(struct sim *sim, vd_pblk_t p, uint32_t offset, const void *buf, uint32_t bytes);

#endif
