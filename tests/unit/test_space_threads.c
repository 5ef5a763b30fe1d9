/* link: dm-target/core/space.c dm-target/core/space_alloc.c dm-target/core/space_fold.c dm-target/core/space_stage.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Several threads beside checkpoints (S1-S3).
 */
#include "space_fake.h"

/* ---- threads ---------------------------------------------------------------------------------- */

static _Atomic bool drained;
static void *drain_thread(void *arg)
{
	(void)arg;
	vd_space_drained(P);
	drained = true;
	return NULL;
}

/* S2 */
static void nothing_is_free_while_an_older_root_is_read(void **state)
{
	struct timespec moment = { 0, 30000000 };
	pthread_t thread;
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(1);
	vd_space_release(P, p, 1, 0);
	vd_space_seal(P);
	drained = false;
	vd_mutex_lock(&P->space->load_lock); /* as a load does */
	OK(pthread_create(&thread, NULL, drain_thread, NULL));
	nanosleep(&moment, NULL);
	assert_false(drained);
	assert_true(is_busy(p));
	vd_mutex_unlock(&P->space->load_lock);
	OK(pthread_join(thread, NULL));
	assert_false(is_busy(p));
}

static void *load_thread(void *arg)
{
	struct space_group **g = arg;

	if (space_load(P, 2, false, g))
		*g = NULL;
	return NULL;
}

/* S3 */
static void two_who_load_a_group_get_the_same(void **state)
{
	struct timespec moment = { 0, 30000000 };
	struct space_group *g[2];
	pthread_t thread[2];
	unsigned before;

	(void)state;
	pool_one(4 * 8192);
	before = P->space->ngroups;
	vd_mutex_lock(&P->space->load_lock);
	for (unsigned i = 0; i < 2; i++)
		OK(pthread_create(&thread[i], NULL, load_thread, &g[i]));
	nanosleep(&moment, NULL);
	vd_mutex_unlock(&P->space->load_lock);
	for (unsigned i = 0; i < 2; i++)
		OK(pthread_join(thread[i], NULL));
	assert_non_null(g[0]);
	assert_ptr_equal(g[0], g[1]);
	assert_int_equal(P->space->ngroups, before + 1);
}

#define CROWD 3u
#define CROWD_BLOCKS (12 * 8192u)
static struct {
	pthread_mutex_t lock;
	_Atomic unsigned char owned[2][CROWD_BLOCKS]; /* by a thread, the trees, or not yet free */
	struct space_range queue[4096], gone[65536];  /* for the checkpoint to count; released */
	unsigned queued, ngone;
	uint64_t seq;
	_Atomic bool stop;
	_Atomic unsigned wrong, reserved;
} crowd;

static void crowd_set(vd_pblk_t p, unsigned n, bool own)
{
	for (; n; n--, p++)
		if (atomic_exchange(&crowd.owned[VD_PBLK_MEMBER(p)][VD_PBLK_BLOCK(p)], own) == own)
			crowd.wrong++;
}

static void *crowd_writer(void *arg)
{
	uint32_t x = (uint32_t)(uintptr_t)arg * 2654435761u + 1;
	vd_pblk_t p, goal = VD_PBLK_NONE;
	unsigned got;

	while (!crowd.stop) {
		int r;

		x = x * 1664525u + 1013904223u;
		r = vd_space_reserve(P, x >> 30 ? goal : VD_PBLK_NONE, 1 + (x >> 20) % 64, &p, &got);
		if (r == -EWOULDBLOCK)
			r = vd_space_refill(P);
		else if (!r) {
			crowd.reserved++;
			crowd_set(p, got, true);
			goal = p + got;
			pthread_mutex_lock(&crowd.lock);
			if ((x >> 16) % 4 == 0 || crowd.queued == 4096) {
				crowd_set(p, got, false);
				vd_space_unreserve(P, p, got);
			} else if ((x >> 16) % 4 == 1 && crowd.ngone < 65536) {
				vd_space_release(P, p, got, ++crowd.seq);
				crowd.gone[crowd.ngone++] = (struct space_range){ p | (uint64_t)(got - 1) << 48, crowd.seq };
			} else {
				crowd.queue[crowd.queued++] = (struct space_range){ p | (uint64_t)(got - 1) << 48, 0 };
			}
			pthread_mutex_unlock(&crowd.lock);
		}
		if (r && r != -ENOSPC)
			crowd.wrong++;
	}
	return NULL;
}

static void crowd_may_go(const struct space_range *e)
{
	crowd_set(e->p_len & VD_PBLK_NONE, (unsigned)(e->p_len >> 48) + 1, false);
}

static void threads_reserve_beside_checkpoints(void **state)
{
	static struct space_range counted[200000], queue[4096], gone[65536];
	uint64_t blocks[2] = { CROWD_BLOCKS, CROWD_BLOCKS };
	unsigned n = 0, nqueue, ngone, first;
	pthread_t thread[CROWD];

	(void)state;
	memset(&crowd, 0, sizeof(crowd));
	pthread_mutex_init(&crowd.lock, NULL);
	pool_members(2, blocks);
	P->reserve_blocks = 2000;
	P->space->max_groups = 3;
	for (uintptr_t i = 0; i < CROWD; i++)
		OK(pthread_create(&thread[i], NULL, crowd_writer, (void *)(i + 1)));
	for (unsigned turn = 0; turn < 40 || crowd.reserved < 2000;) {
		pthread_mutex_lock(&crowd.lock);
		memcpy(queue, crowd.queue, sizeof(*queue) * (nqueue = crowd.queued));
		memcpy(gone, crowd.gone, sizeof(*gone) * (ngone = crowd.ngone));
		crowd.queued = crowd.ngone = 0;
		durable_seq = crowd.seq;
		pthread_mutex_unlock(&crowd.lock);
		if (!nqueue && !ngone) {
			sched_yield(); /* they have not begun, or wait for what follows */
			if (!n)
				continue;
		}
		turn++;
		vd_mutex_lock(&P->ckpt_lock);
		for (unsigned i = 0; i < nqueue; i++) {
			assert_true(n < 200000);
			OK(vd_space_inc(P, queue[i].p_len & VD_PBLK_NONE, (queue[i].p_len >> 48) + 1));
			counted[n++] = queue[i];
		}
		/* the oldest go again, all but 300 */
		first = n > 300 ? n - 300 : n / 2;
		for (unsigned i = 0; i < first; i++)
			OK(vd_space_dec(P, counted[i].p_len & VD_PBLK_NONE, (counted[i].p_len >> 48) + 1));
		checkpoint();
		vd_mutex_unlock(&P->ckpt_lock);
		vd_space_seal(P);
		for (unsigned i = 0; i < first; i++)
			crowd_may_go(&counted[i]);
		for (unsigned i = 0; i < ngone; i++)
			crowd_may_go(&gone[i]);
		vd_space_drained(P);
		memmove(counted, counted + first, sizeof(*counted) * (n - first));
		n -= first;
	}
	crowd.stop = true;
	for (unsigned i = 0; i < CROWD; i++)
		OK(pthread_join(thread[i], NULL));
	assert_int_equal(crowd.wrong, 0);
	assert_true(crowd.reserved > 1000);
	verify_totals();
	checkpoint();
	reopen();
	verify_totals();
	for (unsigned i = 0; i < n; i++)
		assert_int_equal(count(counted[i].p_len & VD_PBLK_NONE), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_is_free_while_an_older_root_is_read),
		T(two_who_load_a_group_get_the_same),
		T(threads_reserve_beside_checkpoints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
