/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef VD_CMD_LINK_H
#define VD_CMD_LINK_H

#include "common.h"

#include "../libvol/link.h"

/* Makes the link, with what the options say of how, and tells of it; the exit code. */
int cmd_link(struct link_spec *spec);

#endif
