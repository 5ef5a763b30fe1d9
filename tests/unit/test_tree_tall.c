/* link: libvol/port.c dm-target/core/memory.c */
/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* The tests of test_tree.c on trees of small nodes: six and more levels. */
#define VD_INDEX_FILL 6u
#define VD_EXTENTS_FILL 12u
#include "dm-target/core/node.c"
#include "dm-target/core/tree.c"
#include "dm-target/core/extents.c"
#define TALL 1 /* leaves out what counts whole nodes */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "test_tree.c"
