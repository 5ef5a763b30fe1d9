// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* Labels, owner records and superblocks in which somebody wrote; members may be said to be larger than they are. */
#include "patch.h"

FZ_TARGET(&fz_patches, fz_run(data, size, 0, ~0u, false))
