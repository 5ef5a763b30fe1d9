// SPDX-License-Identifier: GPL-2.0-only
/*
 * A pool's volumes are suspended with it (I14).
 *
 *   pool's device:  running ── presuspend: hold ──► suspended ── resume: release ──► running
 *
 * S1  Suspended means: no bio of a volume, no message and no volume's table is at work in
 *     the engine, and none begins.  The engine's own work stops after that, and starts
 *     before the volumes do; so nothing is read or written in between.
 * S2  The device of each live table of a volume is suspended once, by the core's internal
 *     suspend, which does not flush: what waits for space goes back to the core.
 *     Inactive tables become live only when the pool is resumed.
 * S3  Locks: the core's suspend_lock of the pool's device ► hold_lock ► that of a volume's.
 *     So nothing that runs below the last may wait for hold_lock: preresume takes
 *     the pool's spinlock.  A destructor is called with none of them held.
 *     A pool's device that is being destroyed has no volumes, and does not take hold_lock.
 */
#include <linux/wait.h>

#include "dm-vd.h"

void vdk_suspend_init(struct vdk_pool *p)
{
	mutex_init(&p->hold_lock);
	INIT_LIST_HEAD(&p->volumes);
	init_waitqueue_head(&p->idle);
}

bool vdk_pool_enter(struct vdk_pool *p)
{
	bool ok;

	spin_lock_irq(&p->lock);
	ok = !p->suspended;
	p->users += ok;
	spin_unlock_irq(&p->lock);
	return ok;
}

void vdk_pool_exit(struct vdk_pool *p)
{
	spin_lock_irq(&p->lock);
	if (!--p->users)
		wake_up_all(&p->idle);
	spin_unlock_irq(&p->lock);
}

static bool is_idle(struct vdk_pool *p)
{
	bool idle;

	spin_lock_irq(&p->lock);
	idle = !p->users;
	spin_unlock_irq(&p->lock);
	return idle;
}

static struct vdk_volume *other_of(const struct vdk_volume *v)
{
	struct vdk_volume *o;

	list_for_each_entry(o, &v->pool->volumes, list)
		if (o != v && o->md == v->md)
			return o;
	return NULL;
}

/* The old and the new table of one device are both live for a moment. */
static bool is_held(const struct vdk_volume *v)
{
	const struct vdk_volume *o;

	list_for_each_entry(o, &v->pool->volumes, list)
		if (o->held && o->md == v->md)
			return true;
	return false;
}

void vdk_pool_hold(struct vdk_pool *p)
{
	struct vdk_volume *v;

	spin_lock_irq(&p->lock);
	p->suspended = true; /* from here on no table becomes live */
	spin_unlock_irq(&p->lock);
	wait_event(p->idle, is_idle(p));
	if (list_empty(&p->volumes)) /* S3; one that comes meanwhile is not live */
		return;
	mutex_lock(&p->hold_lock);
	list_for_each_entry(v, &p->volumes, list) {
		if (!READ_ONCE(v->live) || is_held(v))
			continue;
		dm_internal_suspend_noflush(v->md);
		v->held = true;
	}
	mutex_unlock(&p->hold_lock);
}

void vdk_pool_release(struct vdk_pool *p)
{
	struct vdk_volume *v;

	spin_lock_irq(&p->lock);
	p->suspended = false; /* before the volumes' preresume asks */
	spin_unlock_irq(&p->lock);
	if (list_empty(&p->volumes))
		return;
	mutex_lock(&p->hold_lock);
	list_for_each_entry(v, &p->volumes, list) {
		if (!v->held)
			continue;
		v->held = false;
		dm_internal_resume(v->md);
	}
	mutex_unlock(&p->hold_lock);
}

void vdk_volume_join(struct vdk_volume *v)
{
	mutex_lock(&v->pool->hold_lock);
	list_add_tail(&v->list, &v->pool->volumes);
	mutex_unlock(&v->pool->hold_lock);
}

/* What is held is the device.  It is left to another table of it that we know; where there
 * is none the device is on its way out, or has got a table that is not ours. */
void vdk_volume_leave(struct vdk_volume *v)
{
	struct vdk_volume *o;

	mutex_lock(&v->pool->hold_lock);
	o = v->held ? other_of(v) : NULL;
	list_del(&v->list);
	if (o) {
		o->held = true;
	} else if (v->held && !dm_hold(v->md)) {
		dm_internal_resume(v->md);
		dm_put(v->md);
	}
	mutex_unlock(&v->pool->hold_lock);
}
