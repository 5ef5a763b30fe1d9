/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* What the random operations share, and those on volumes. */
#ifndef VD_TESTS_OPS_H
#define VD_TESTS_OPS_H

#include "world.h"

typedef unsigned long long ull;

/* ---- choosing --------------------------------------------------------- */

static inline uint64_t below(struct world *w, uint64_t n) { return rng_below(&w->rng, n); }
static inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline bool one_in(struct world *w, uint64_t n) { return rng_one_in(&w->rng, n); }

enum { ANY = 0, UNLOCKED = 1, WRITABLE = 2, NO_POINTERS = 4 };
/* One that is as wanted; NULL: there is none. */
struct ref_vol *world_pick(struct world *w, unsigned want);
bool world_is_open(const struct world *w, uint32_t id);
void world_close_handle(struct world *w, uint32_t id);
void world_fresh_name(struct world *w, char *name, size_t size);

/* ---- judging ---------------------------------------------------------- */

/*
 * What the engine's answer r to the change in ref->op means.  also: an errno
 * that is a proper refusal here.  0, or 1 when a cut or fault leaves it open.
 */
int world_settle(struct world *w, int r, int also);

/* ---- volumes ---------------------------------------------------------- */

int op_create(struct world *w);
int op_delete(struct world *w);
int op_rename(struct world *w);
int op_resize(struct world *w);
int op_snapshot(struct world *w, unsigned n); /* n of them, as a group */
int op_rollback(struct world *w);
int op_attrs(struct world *w);
int op_lock(struct world *w);
int op_pointer(struct world *w);
int op_pointer_set(struct world *w);
int op_readonly(struct world *w);
int op_reserve(struct world *w);

#endif
