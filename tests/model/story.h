/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * A story is told twice at the same moment: to the engine and to the model of
 * ref.h.  For tests of one behaviour each; world.h has the random ones.
 *
 * Those that answer bool answer whether a cut has come in between: the change is
 * pending then and the story ends.  Any error that is not from a cut fails.
 */
#ifndef VD_TESTS_STORY_H
#define VD_TESTS_STORY_H

#include "world.h"

/* 1 to 4 members of 512-byte sectors, the smallest journal. */
struct world *story_begin(const struct cli *cli, unsigned nmembers);
void story_end(struct world *w); /* compared, checked, closed, freed */
void story_too_long(int sig); /* for SIGALRM: says so, and ends */
void story_ok(struct world *w, const char *what, int r); /* fails when r is an error */

uint32_t story_create(struct world *w, const char *name, uint64_t blocks);
bool story_put(struct world *w, uint32_t id, uint64_t off, uint64_t len); /* bytes */
bool story_unmap(struct world *w, uint32_t id, uint64_t off, uint64_t len);
bool story_flush(struct world *w);
bool story_snap(struct world *w, uint32_t *id, const uint32_t *origin, unsigned n);
bool story_delete(struct world *w, uint32_t id); /* closes all volumes first */
bool story_work(struct world *w);
bool story_checkpoint(struct world *w);

/* Tells the model only: a write or unmap that the caller makes himself, ended by
 * ref_done().  The value to be written. */
uint64_t story_tell(struct world *w, enum ref_op_kind kind, uint32_t id, uint64_t off, uint64_t len);
uint64_t story_value(struct world *w, uint32_t id, uint64_t sector);

void story_crash(struct world *w, enum sim_crash how); /* and opens again */
void story_crash_and_verify(struct world *w, enum sim_crash how);

#endif
