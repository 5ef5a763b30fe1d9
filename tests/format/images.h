/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Pools for reader.py to read, and what the engine finds in them.
 */
#ifndef VD_TESTS_IMAGES_H
#define VD_TESTS_IMAGES_H

#include "../model/world.h"

_Noreturn void die(const char *what, int r);

/* golden.c: the pool of that name, always the same bytes; NULL: there is none. */
struct sim *golden_make(const char *name);

/* What a read-only opening finds, as JSON on stdout.  The base images that volumes
 * have are put in dir, if given. */
void tell_pool(struct sim *sim, const char *dir);
void dump_base(uint64_t nsectors, const char *dir);

#endif
