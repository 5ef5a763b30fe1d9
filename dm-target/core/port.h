/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the engine needs from the world it is compiled into: integer types,
 * byte order, locks, atomics, lists and CRC32C.  This is the only file of the
 * engine that tests __KERNEL__; every other one is the same on both sides.
 *
 * Locks are thin names for the host's own.  A vd_mutex may sleep and may be
 * held across host I/O; a vd_rwlock and a vd_spin never are, nor is memory asked
 * for with VD_ALLOC_WAIT below one: in the kernel they keep interrupts out, since
 * what ends a request takes some of them.
 */
#ifndef VD_PORT_H
#define VD_PORT_H

/* What is done for each request is one piece of code, what is seldom done is beside it. */
#define vd_always_inline inline __attribute__((__always_inline__))
#define vd_noinline __attribute__((__noinline__))

#ifdef __KERNEL__
#include "../port_kernel.h"
#else

#include <endian.h>
#include <errno.h>
#include <linux/types.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef EUCLEAN
#define EUCLEAN 117
#endif

#define cpu_to_le16(x) ((__le16)htole16(x))
#define cpu_to_le32(x) ((__le32)htole32(x))
#define cpu_to_le64(x) ((__le64)htole64(x))
#define le16_to_cpu(x) le16toh((uint16_t)(x))
#define le32_to_cpu(x) le32toh((uint32_t)(x))
#define le64_to_cpu(x) le64toh((uint64_t)(x))

#define __must_check __attribute__((warn_unused_result))
#define vd_likely(x) __builtin_expect(!!(x), 1)
#define vd_unlikely(x) __builtin_expect(!!(x), 0)

enum { VD_LOCK_LOOKS = 100, VD_LOCK_TRIES = VD_LOCK_LOOKS + 20 };

struct vd_mutex { pthread_mutex_t m; };
struct vd_spin { pthread_mutex_t m; };
struct vd_rwlock { pthread_rwlock_t l; };
/* A condition: waiters hold the mutex given, and look again when woken. */
struct vd_cond { pthread_cond_t c; };

static inline void vd_mutex_init(struct vd_mutex *m) { pthread_mutex_init(&m->m, NULL); }
static inline void vd_mutex_fini(struct vd_mutex *m) { pthread_mutex_destroy(&m->m); }
static inline void vd_mutex_lock(struct vd_mutex *m) { pthread_mutex_lock(&m->m); }
static inline void vd_mutex_unlock(struct vd_mutex *m) { pthread_mutex_unlock(&m->m); }
static inline bool vd_mutex_trylock(struct vd_mutex *m) { return !pthread_mutex_trylock(&m->m); }
static inline void vd_spin_init(struct vd_spin *s) { pthread_mutex_init(&s->m, NULL); }
static inline void vd_spin_fini(struct vd_spin *s) { pthread_mutex_destroy(&s->m); }
/* A writer that waits goes before readers that come: a snapshot must not wait for a
 * moment without I/O.  So no thread takes one for reading twice. */
static inline void vd_rwlock_init(struct vd_rwlock *l)
{
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&l->l, &attr);
	pthread_rwlockattr_destroy(&attr);
}
static inline void vd_rwlock_fini(struct vd_rwlock *l) { pthread_rwlock_destroy(&l->l); }
/* Spins and rwlocks are held for a microsecond; a sleep and its wake-up cost ten, for the
 * one who lets go too.  So who finds one taken looks again for about as long, then gives
 * its CPU to the holder, which may have lost its own, and only then sleeps. */
static inline void vd_look_again(unsigned i)
{
	if (i >= VD_LOCK_LOOKS)
		sched_yield();
#if defined(__x86_64__) || defined(__i386__)
	else
		__builtin_ia32_pause();
#endif
}
static inline void vd_spin_lock(struct vd_spin *s)
{
	unsigned i;

	for (i = 0; i < VD_LOCK_TRIES; i++, vd_look_again(i))
		if (!pthread_mutex_trylock(&s->m))
			return;
	pthread_mutex_lock(&s->m);
}
static inline void vd_spin_unlock(struct vd_spin *s) { pthread_mutex_unlock(&s->m); }
static inline void vd_read_lock(struct vd_rwlock *l)
{
	unsigned i;

	for (i = 0; i < VD_LOCK_TRIES; i++, vd_look_again(i))
		if (!pthread_rwlock_tryrdlock(&l->l))
			return;
	pthread_rwlock_rdlock(&l->l);
}
static inline void vd_write_lock(struct vd_rwlock *l)
{
	unsigned i;

	for (i = 0; i < VD_LOCK_TRIES; i++, vd_look_again(i))
		if (!pthread_rwlock_trywrlock(&l->l))
			return;
	pthread_rwlock_wrlock(&l->l);
}
static inline void vd_read_unlock(struct vd_rwlock *l) { pthread_rwlock_unlock(&l->l); }
static inline void vd_write_unlock(struct vd_rwlock *l) { pthread_rwlock_unlock(&l->l); }
/* For sparse, which counts locks: a function that begins with the lock held, and ends with it or without. */
#define vd_holds(l)
#define vd_lets_go(l)
/* The same, taken while the caller holds another of them, and let go before that is. */
#define vd_spin_lock_inner(s) vd_spin_lock(s)
#define vd_spin_unlock_inner(s) vd_spin_unlock(s)
#define vd_write_lock_inner(l) vd_write_lock(l)
#define vd_write_unlock_inner(l) vd_write_unlock(l)
static inline void vd_cond_init(struct vd_cond *c) { pthread_cond_init(&c->c, NULL); }
static inline void vd_cond_fini(struct vd_cond *c) { pthread_cond_destroy(&c->c); }
static inline void vd_cond_wait(struct vd_cond *c, struct vd_mutex *m) { pthread_cond_wait(&c->c, &m->m); }
static inline void vd_cond_wait_spin(struct vd_cond *c, struct vd_spin *s) { pthread_cond_wait(&c->c, &s->m); }
static inline void vd_cond_wake_all(struct vd_cond *c) { pthread_cond_broadcast(&c->c); }

typedef struct { int64_t v; } vd_atomic_t;
static inline int64_t vd_atomic_read(const vd_atomic_t *a) { return __atomic_load_n(&a->v, __ATOMIC_SEQ_CST); }
static inline void vd_atomic_set(vd_atomic_t *a, int64_t v) { __atomic_store_n(&a->v, v, __ATOMIC_SEQ_CST); }
/* Adds and returns the new value; a full barrier on both sides. */
static inline int64_t vd_atomic_add(vd_atomic_t *a, int64_t n) { return __atomic_add_fetch(&a->v, n, __ATOMIC_SEQ_CST); }
/* Puts v in place of `was`; false when it was something else. */
static inline bool vd_atomic_swap_if(vd_atomic_t *a, int64_t was, int64_t v)
{
	return __atomic_compare_exchange_n(&a->v, &was, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static inline bool vd_u32_swap_if(uint32_t *p, uint32_t was, uint32_t v)
{
	return __atomic_compare_exchange_n(p, &was, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* A small number that differs between CPUs that run at once; only a hint. */
unsigned vd_port_cpu(void);

/* CRC32C (Castagnoli, RFC 3720 appendix B.4); chain by passing the last result. Start with ~0u. */
uint32_t vd_port_crc32c(uint32_t crc, const void *buf, size_t len);

#endif

/* Doubly linked ring; a head or an unlinked node points to itself. */
struct vd_list { struct vd_list *next, *prev; };
#define vd_container(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
static inline void vd_list_init(struct vd_list *l) { l->next = l->prev = l; }
static inline bool vd_list_empty(const struct vd_list *l) { return l->next == l; }
static inline void vd_list_add_tail(struct vd_list *head, struct vd_list *n)
{
	n->prev = head->prev;
	n->next = head;
	head->prev->next = n;
	head->prev = n;
}
static inline void vd_list_del(struct vd_list *n)
{
	n->prev->next = n->next;
	n->next->prev = n->prev;
	vd_list_init(n);
}
#define vd_list_for_each(pos, head) for (pos = (head)->next; pos != (head); pos = pos->next)
#define vd_list_for_each_safe(pos, tmp, head) \
	for (pos = (head)->next, tmp = pos->next; pos != (head); pos = tmp, tmp = pos->next)

#define vd_min(a, b) ((a) < (b) ? (a) : (b))
#define vd_max(a, b) ((a) > (b) ? (a) : (b))

#endif
