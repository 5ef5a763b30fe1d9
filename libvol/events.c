// SPDX-License-Identifier: LGPL-2.1-or-later
#include "events.h"

#include <libudev.h>
#include <poll.h>
#include <stdlib.h>

#define TICK_MS 500  /* between looks whether all is to end: a signal may be another thread's */
#define LOOK_MS 100  /* at most, for who is not udev, or where there is none: nothing tells of those */

struct vol_events { struct udev *udev; struct udev_monitor *monitor; unsigned look; };

struct vol_events *vol_events_new(void)
{
	struct vol_events *e = calloc(1, sizeof(*e));

	if (!e)
		return NULL;
	e->udev = udev_new();
	e->monitor = e->udev ? udev_monitor_new_from_netlink(e->udev, "udev") : NULL;
	if (e->monitor && !udev_monitor_filter_add_match_subsystem_devtype(e->monitor, "block", NULL) &&
	    udev_monitor_enable_receiving(e->monitor) >= 0)
		return e;
	vol_events_free(e);
	return NULL;
}

void vol_events_free(struct vol_events *e)
{
	if (!e)
		return;
	udev_monitor_unref(e->monitor);
	udev_unref(e->udev);
	free(e);
}

/* Whether there was one within that time. */
static bool take(struct vol_events *e, int64_t ms)
{
	struct pollfd p = { e ? udev_monitor_get_fd(e->monitor) : -1, POLLIN, 0 };
	struct udev_device *d;

	if (poll(&p, 1, (int)ms) <= 0)
		return false;
	for (unsigned i = 0; i < 1000 && (d = udev_monitor_receive_device(e->monitor)); i++)
		udev_device_unref(d);
	return true;
}

void vol_events_wait(struct vol_events *e, int64_t deadline)
{
	int64_t left;

	while (!vol_interrupted() && (left = deadline - vol_now_ms()) > 0 && !take(e, left > TICK_MS ? TICK_MS : left))
		;
}

void vol_events_look(struct vol_events **e)
{
	if (!*e) { /* before the next look, not after */
		*e = vol_events_new();
		if (*e)
			(*e)->look = 10;
		else
			vol_nap(LOOK_MS);
		return;
	}
	vol_nap(5); /* events may be many, and a look take long */
	take(*e, (*e)->look);
	(*e)->look = vd_min(2 * (*e)->look, (unsigned)LOOK_MS);
}
