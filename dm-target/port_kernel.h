/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's half of the engine's portability layer (core/port.h).
 *
 * Requests end in interrupt context (I12), and vd_write_end() takes the engine's
 * short locks there.  So each of them keeps interrupts out while it is held.  The
 * first one that a CPU takes saves the interrupt state and the last one that it
 * lets go restores it, whatever the order between: the count can be per CPU since
 * nothing moves while interrupts are off.  That leaves no place for kernels whose
 * spinlocks sleep (PREEMPT_RT).
 *
 * Lock initialisers are macros: lockdep tells classes apart by the place.
 */
#ifndef VD_PORT_KERNEL_H
#define VD_PORT_KERNEL_H

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/crc32c.h>
#include <linux/errno.h>
#include <linux/irqflags.h>
#include <linux/limits.h>
#include <linux/lockdep.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/types.h>
#include <linux/wait.h>
#include <asm/byteorder.h>

#ifdef CONFIG_PREEMPT_RT
#error "dm-vd takes spinlocks with interrupts off; it is not for PREEMPT_RT"
#endif

#ifndef UINT32_MAX
#define UINT32_MAX U32_MAX
#endif

#define vd_likely(x) likely(x)
#define vd_unlikely(x) unlikely(x)

struct vd_irq_state {
	unsigned int depth;
	unsigned long flags;
};
DECLARE_PER_CPU(struct vd_irq_state, vd_irq_state);

static inline void vd_irq_off(void)
{
	unsigned long flags;

	local_irq_save(flags);
	if (__this_cpu_inc_return(vd_irq_state.depth) == 1)
		__this_cpu_write(vd_irq_state.flags, flags);
}
static inline void vd_irq_on(void)
{
	unsigned long flags = __this_cpu_read(vd_irq_state.flags);

	if (!__this_cpu_dec_return(vd_irq_state.depth))
		local_irq_restore(flags);
}

struct vd_mutex { struct mutex m; };
struct vd_spin { spinlock_t l; };
struct vd_rwlock { rwlock_t l; };
/* A condition: waiters hold the lock given, and look again when woken. */
struct vd_cond { wait_queue_head_t q; };

#define vd_mutex_init(x) mutex_init(&(x)->m)
static inline void vd_mutex_fini(struct vd_mutex *m) { mutex_destroy(&m->m); }
static inline void vd_mutex_lock(struct vd_mutex *m) { mutex_lock(&m->m); }
static inline void vd_mutex_unlock(struct vd_mutex *m) { mutex_unlock(&m->m); }
static inline bool vd_mutex_trylock(struct vd_mutex *m) { return mutex_trylock(&m->m); }

#define vd_spin_init(x) spin_lock_init(&(x)->l)
static inline void vd_spin_fini(struct vd_spin *s) { (void)s; }
static inline void vd_spin_lock(struct vd_spin *s)
{
	vd_irq_off();
	spin_lock(&s->l);
}
static inline void vd_spin_unlock(struct vd_spin *s)
{
	spin_unlock(&s->l);
	vd_irq_on();
}

/* Where queued rwlocks are, a writer that waits goes before readers that come. */
#define vd_rwlock_init(x) rwlock_init(&(x)->l)
static inline void vd_rwlock_fini(struct vd_rwlock *l) { (void)l; }
static inline void vd_read_lock(struct vd_rwlock *l)
{
	vd_irq_off();
	read_lock(&l->l);
}
static inline void vd_read_unlock(struct vd_rwlock *l)
{
	read_unlock(&l->l);
	vd_irq_on();
}
static inline void vd_write_lock(struct vd_rwlock *l)
{
	vd_irq_off();
	write_lock(&l->l);
}
static inline void vd_write_unlock(struct vd_rwlock *l)
{
	write_unlock(&l->l);
	vd_irq_on();
}

#define vd_holds(l) __must_hold(l)
#define vd_lets_go(l) __releases(l)

/* While the caller holds another, which keeps interrupts out. */
static inline void vd_spin_lock_inner(struct vd_spin *s)
{
	lockdep_assert_irqs_disabled();
	spin_lock(&s->l);
}
static inline void vd_spin_unlock_inner(struct vd_spin *s) { spin_unlock(&s->l); }
static inline void vd_write_lock_inner(struct vd_rwlock *l)
{
	lockdep_assert_irqs_disabled();
	write_lock(&l->l);
}
static inline void vd_write_unlock_inner(struct vd_rwlock *l) { write_unlock(&l->l); }

#define vd_cond_init(x) init_waitqueue_head(&(x)->q)
static inline void vd_cond_fini(struct vd_cond *c) { (void)c; }
static inline void vd_cond_wait(struct vd_cond *c, struct vd_mutex *m)
{
	DEFINE_WAIT(wait);

	prepare_to_wait(&c->q, &wait, TASK_UNINTERRUPTIBLE);
	vd_mutex_unlock(m);
	schedule();
	finish_wait(&c->q, &wait);
	vd_mutex_lock(m);
}
/* The only short lock held is s. */
static inline void vd_cond_wait_spin(struct vd_cond *c, struct vd_spin *s)
{
	DEFINE_WAIT(wait);

	prepare_to_wait(&c->q, &wait, TASK_UNINTERRUPTIBLE);
	vd_spin_unlock(s);
	schedule();
	finish_wait(&c->q, &wait);
	vd_spin_lock(s);
}
static inline void vd_cond_wake_all(struct vd_cond *c) { wake_up_all(&c->q); }

typedef struct { atomic64_t v; } vd_atomic_t;
static inline int64_t vd_atomic_read(const vd_atomic_t *a) { return atomic64_read_acquire(&a->v); }
static inline void vd_atomic_set(vd_atomic_t *a, int64_t v) { atomic64_xchg(&a->v, v); }
/* Adds and returns the new value; a full barrier on both sides. */
static inline int64_t vd_atomic_add(vd_atomic_t *a, int64_t n) { return atomic64_add_return(n, &a->v); }
/* Puts v in place of `was`; false when it was something else. */
static inline bool vd_atomic_swap_if(vd_atomic_t *a, int64_t was, int64_t v)
{
	return atomic64_cmpxchg(&a->v, was, v) == was;
}

static inline bool vd_u32_swap_if(uint32_t *p, uint32_t was, uint32_t v) { return cmpxchg(p, was, v) == was; }

/* A small number that differs between CPUs that run at once; only a hint. */
static inline unsigned vd_port_cpu(void) { return raw_smp_processor_id(); }

/* CRC32C as in core/port.h: the kernel's has no inversion at either end. */
static inline uint32_t vd_port_crc32c(uint32_t crc, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	for (; len > 1u << 30; p += 1u << 30, len -= 1u << 30)
		crc = crc32c(crc, p, 1u << 30);
	return crc32c(crc, p, (unsigned int)len);
}

#endif
