/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drives of machines that reach this host by NVMe over TCP: the kernel's target, nvmet, by its configfs tree,
 * /sys/kernel/config/nvmet, or $VD_NVMET_DIR.
 *
 * A drive is a subsystem of its own, "nqn.2026-11.org.vd:POOL-UUID:VOLUME-UUID", with one namespace, 1, that has
 * the block device of this host, and the volume's UUID for its UUID and NGUID.  Only the server's NQN is allowed in.
 * So what becomes of one link is nothing to another.
 *
 * A server that was connected when this host went down tries again and again, and for good gives up a subsystem, with what is
 * mounted of it, that is not there, or is empty, when somebody listens; what it finds closed it tries again.
 * So after a boot all are made first, and then given to their ports, at once (N4).
 *
 * N1  What is not called as above, or numbered as below, is somebody else's, and stays as it is.  A port with the
 *     wanted address is used whoever made it; those made here have the numbers from 30308 on, and go
 *     with their last subsystem.
 * N2  A subsystem is given to a port last, when its namespace is enabled and only the server may come in.
 * N3  Killed at any point, what is there is completed by the next nvmet_plug(), or taken away by nvmet_unplug() and
 *     nvmet_clear().  A namespace that is not enabled is a remnant.
 * N4  nvmet_open() of several, one after the other, after nvmet_prepare() of all: as near to "at once" as the target has.
 *
 * One process changes the tree at a time (a lock file).  Texts are in vol_error(NULL).
 */
#ifndef VOL_NVMET_H
#define VOL_NVMET_H

#include "link.h"
#include "server.h"

/* The kernel has the target, loaded if need be. -ENODEV. */
int nvmet_ready(void) __must_check;
/* All but that the server may connect.  s->dhchap: it must authenticate itself, if this kernel can ask it to; else it
 * becomes false. */
int nvmet_prepare(struct server *s, const struct link_info *l) __must_check;
/* It may connect, and finds l->device. */
int nvmet_open(const struct server *s, const struct link_info *l) __must_check;
/* Both. */
int nvmet_plug(struct server *s, const struct link_info *l) __must_check;
/* The device is not open there any more; a server that is connected is told.  0 also when it was not there. */
int nvmet_unplug(const struct link_info *l) __must_check;
/* And nothing is left of the subsystem; who is connected loses it. */
int nvmet_clear(const struct server *s, const struct link_info *l) __must_check;
/* The namespace takes in the size of its device. */
int nvmet_resize(const struct link_info *l) __must_check;
/* Whether the server must authenticate itself. */
bool nvmet_authenticates(const struct server *s);
/* Whether l->device is enabled in a namespace. */
bool nvmet_has(const struct link_info *l);
/* How a server gets there, for its agent. */
struct json_object *nvmet_via(const struct server *s, const struct link_info *l);

#endif
