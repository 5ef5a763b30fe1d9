/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What udev says of block devices when it has done with them.  Events are hints: who waits for one looks again, and after a
 * while without. */
#ifndef VOL_EVENTS_H
#define VOL_EVENTS_H

#include "host.h"

struct vol_events;
struct vol_events *vol_events_new(void); /* NULL: there is no udev, or no memory */
void vol_events_free(struct vol_events *e);
/* Until there was one, or vol_interrupt(), or vol_now_ms() is that much.  `e` may be NULL. */
void vol_events_wait(struct vol_events *e, int64_t deadline);
/* For who finds a device in use, and is to look again: it may be udev.  Begins with *e NULL, and the first time there is
 * no waiting; vol_events_free(*e) at the end. */
void vol_events_look(struct vol_events **e);

#endif
