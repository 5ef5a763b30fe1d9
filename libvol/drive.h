/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server's part of a link: a block device of this host becomes a drive of the server, is mounted there, and is
 * taken away again.  How it gets there is of the server's kind (vm.h, nvmet.h); what is done on the server does
 * its agent (agent.h), if it has one.
 *
 *   link.c's step   kind      agent
 *   (before all)    ready     it answers
 *   scan            plug      it has the drive
 *   present                   it mounts it
 *   (undone:)                 it unmounts it, and lets go
 *                   unplug    it has noticed
 *                   clear
 *
 * Each may be done again, and then completes what a killed command has left.
 * Texts are in vol_error(NULL).
 */
#ifndef VOL_DRIVE_H
#define VOL_DRIVE_H

#include "link.h"
#include "server.h"

/* Whether it can be given what is wanted. -EINVAL, -EOPNOTSUPP. */
int drive_check(const struct server *s, const struct link_spec *spec) __must_check;
/* again: an agent that does not answer, or nothing of use, is told of in the log, makes s->deaf, and is asked nothing more by
 * this process; it finds the drives that it had, when it is back, by itself.  -EPERM: it is another machine. */
int drive_ready(struct server *s, bool again) __must_check;
/* Agents are told which drives of that pool were taken from them while they were away: that server's, or all (NULL).  For who
 * has the pool open for writing, and knows that no other host has given any of it to a server. */
void drive_tell(const char *pool, const uint8_t uuid[16], const char *server);
/* Whether there is anything to be told. */
bool drive_untold(const uint8_t uuid[16]);
/* Sets l->address; and l->given, unless the server has nothing of it. sector: of l->device. */
int drive_give(struct server *s, struct link_info *l, unsigned sector) __must_check;
/* Mounts it, as an agent does unless spec->no_mount.  Sets l->mount, l->note. */
int drive_present(struct server *s, struct link_info *l, const struct link_spec *spec) __must_check;
/* The server has it no more, and l->device is not open for it.  0 also when it had not.  -EBUSY: in use there, and nothing was
 * undone.  l->mount is empty when it is not mounted there any more. */
#define DRIVE_FORCE 1u  /* an agent that cannot let go, or does not answer, is passed over */
#define DRIVE_FINISH 2u /* no -EINTR */
int drive_take(const struct server *s, struct link_info *l, unsigned how) __must_check;
int drive_take_test(const struct server *s, const struct link_info *l) __must_check;
/* Of a link that is down: what there is of it here goes, before it is made again.  *keep: it is whole, as the
 * server may be using it, and stays with its device.  Where that can still be read, a server lets go of it first. */
int drive_clear(const struct server *s, struct link_info *l, bool *keep) __must_check;
/* Of several links that are down, before each is made again by the steps above: all are prepared, and then all opened, so that
 * a server which waits for this host finds all of them there. */
int drive_prepare(struct server *s, struct link_info *l) __must_check;
int drive_open(const struct server *s, const struct link_info *l) __must_check;
bool drive_needs_preparing(const struct server *s);
/* The drive takes in l->size, and the agent learns of it. */
int drive_resize(struct server *s, struct link_info *l) __must_check;
/* Whether this host still gives it to the server. */
bool drive_up(const struct link_info *l);

#endif
