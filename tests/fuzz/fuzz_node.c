// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Nodes in which somebody wrote: index nodes, pages of extents and of counts,
 * volume records.  The superblock is as the engine made it, so every address
 * outside of a member is one that should have been looked at.
 */
#include "patch.h"

FZ_TARGET(&fz_patches, fz_run(data, size, ~0u, 0, true))
