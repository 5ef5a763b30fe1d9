/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Memory that a checkpoint lives on when the host has none (I7).
 *
 * A checkpoint makes memory free: overlay entries, and a place in the journal for
 * those who wait.  So it must get through when nobody else does.  What it allocates
 * is nodes, which can be written early and dropped (node.c), however many; and groups
 * of counts, which stay until it is durable (S1).  Both have a place here that is taken
 * when the pool is opened, used only while a checkpoint folds and the host says no, and
 * comes back by vd_free().
 *
 * It is bounded in the groups alone: 68 that were not in memory, a little over 2 GiB.
 * For more the host must have something, if only what the node cache gives back for it.
 */
#include "pool.h"

/* By size: heads of nodes; nodes and groups; counts of a byte each; counts at their widest. */
static const struct { unsigned size, n; } sort_of[] = {
	{ 256, 512 },
	{ VD_BLOCK, 512 },
	{ VD_GROUP_BLOCKS, 64 },
	{ VD_GROUP_BLOCKS * 4, 4 },
};
#define SORTS (sizeof(sort_of) / sizeof(sort_of[0]))

struct vd_memory {
	struct vd_spin lock;
	bool open;              /* a checkpoint folds */
	uint8_t *arena, *end;   /* the pieces of each sort, one sort after the other */
	void *free[SORTS];      /* a free piece's first word is the next one */
	unsigned nfree[SORTS];
};

static void give(struct vd_memory *m, unsigned sort, void *p)
{
	*(void **)p = m->free[sort];
	m->free[sort] = p;
	m->nfree[sort]++;
}

int vd_memory_init(struct vd_pool *pool)
{
	struct vd_memory *m = vd_zalloc(pool, sizeof(*m));
	size_t bytes = 0;

	if (!m)
		return -ENOMEM;
	for (unsigned i = 0; i < SORTS; i++)
		bytes += (size_t)sort_of[i].size * sort_of[i].n;
	m->arena = m->end = vd_alloc(pool, bytes);
	if (!m->arena) {
		vd_free(pool, m);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < SORTS; i++)
		for (unsigned n = sort_of[i].n; n; n--, m->end += sort_of[i].size)
			give(m, i, m->end);
	vd_spin_init(&m->lock);
	pool->memory = m;
	return 0;
}

void vd_memory_fini(struct vd_pool *pool)
{
	struct vd_memory *m = pool->memory;

	if (!m)
		return;
	pool->memory = NULL;
	vd_spin_fini(&m->lock);
	vd_free(pool, m->arena);
	vd_free(pool, m);
}

void vd_memory_open(struct vd_pool *pool, bool open)
{
	vd_spin_lock(&pool->memory->lock);
	pool->memory->open = open;
	vd_spin_unlock(&pool->memory->lock);
}

bool vd_memory_is_open(struct vd_pool *pool)
{
	struct vd_memory *m = pool->memory;
	bool open = false;

	if (m) {
		vd_spin_lock(&m->lock);
		open = m->open;
		vd_spin_unlock(&m->lock);
	}
	return open;
}

bool vd_memory_low(struct vd_pool *pool, size_t size)
{
	struct vd_memory *m = pool->memory;
	unsigned i = 0;
	bool low;

	if (!m)
		return false;
	while (i + 1 < SORTS && size > sort_of[i].size)
		i++;
	vd_spin_lock(&m->lock);
	low = m->nfree[i] < sort_of[i].n / 2;
	vd_spin_unlock(&m->lock);
	return low;
}

void *vd_memory_last(struct vd_pool *pool, size_t size)
{
	struct vd_memory *m = pool->memory;
	void *p = NULL;

	if (!m)
		return NULL;
	vd_spin_lock(&m->lock);
	for (unsigned i = 0; i < SORTS && m->open && !p; i++)
		if (size <= sort_of[i].size && m->free[i]) {
			p = m->free[i];
			m->free[i] = *(void **)p;
			m->nfree[i]--;
		}
	vd_spin_unlock(&m->lock);
	return p;
}

bool vd_memory_back(struct vd_pool *pool, void *p)
{
	struct vd_memory *m = pool->memory;
	uint8_t *at = p, *first;
	unsigned i = 0;

	if (vd_likely(!m || at < m->arena || at >= m->end))
		return false;
	for (first = m->arena; at >= first + (size_t)sort_of[i].size * sort_of[i].n; i++)
		first += (size_t)sort_of[i].size * sort_of[i].n;
	vd_spin_lock(&m->lock);
	give(m, i, p);
	vd_spin_unlock(&m->lock);
	return true;
}
