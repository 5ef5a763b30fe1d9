/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * When a block is free again (D6).
 *
 * The life of a block, by its busy bit, its count and its stage:
 *
 *   free --reserve--> busy, count 0 --inc--> busy, count > 0
 *   busy, count 0 --unreserve--> free
 *   busy, count 0 --release(seq)--> released --seal, seq durable--> SEALED
 *   busy, count > 0 --dec to 0--> FREED --checkpointed--> RIPE --seal--> SEALED
 *   FREED --inc (same checkpoint)--> busy, count > 0
 *   SEALED --drained, passed down as a discard--> free
 *
 * B1. A block in a stage is busy and has count 0; so its group stays in memory.
 * B2. A stage is a bitmap a group: O(1) a block, O(groups) a step.  When there is
 *     no memory for one, its blocks stay busy until the next opening, which knows
 *     only counts.
 * B3. While a reader has the trees of a checkpoint pinned RIPE blocks stay RIPE.  Sealing is
 *     under work_lock, and so is pinning: what a later checkpoint frees is not sealed by a
 *     call that began before.  A released block was in no tree.
 * B4. Released ranges wait in chunks of 4 KiB, in the order they came.
 */
#include "space_priv.h"

int space_stage_ready(struct vd_pool *pool, struct space_group *g, enum space_stage st, int how)
{
	struct vd_space *s = pool->space;

	if (g->stage[st])
		return 0;
	g->stage[st] = pool->host.alloc(pool->host.ctx, SPACE_WORDS * 8, how);
	if (!g->stage[st]) /* or the group, which is from there perhaps, would stay in memory for good */
		g->stage[st] = vd_memory_last(pool, SPACE_WORDS * 8);
	if (!g->stage[st]) {
		if (!s->warned_leak)
			vd_log(pool, VD_LOG_WARN, "no memory: freed blocks of member %a are not used again before the next opening", g->m->index, 0);
		s->warned_leak = true;
		return -ENOMEM;
	}
	memset(g->stage[st], 0, SPACE_WORDS * 8);
	return 0;
}

unsigned space_stage_set(struct vd_space *s, struct space_group *g, enum space_stage st, unsigned i, unsigned n)
{
	unsigned changed = space_bits_fill(g->stage[st], i, n, true);

	if (changed && !g->staged[st])
		vd_list_add_tail(&s->stage[st], &g->stage_link[st]);
	g->staged[st] += changed;
	s->staged[st] += changed;
	return changed;
}

/* Nothing of g is in the stage any more. */
static void stage_drop(struct vd_pool *pool, struct space_group *g, enum space_stage st)
{
	pool->space->staged[st] -= g->staged[st];
	g->staged[st] = 0;
	vd_list_del(&g->stage_link[st]);
	vd_free(pool, g->stage[st]);
	g->stage[st] = NULL;
}

void space_stage_clear(struct vd_pool *pool, struct space_group *g, enum space_stage st, unsigned i, unsigned n)
{
	unsigned changed;

	if (!g->staged[st])
		return;
	changed = space_bits_fill(g->stage[st], i, n, false);
	g->staged[st] -= changed;
	pool->space->staged[st] -= changed;
	if (!g->staged[st])
		stage_drop(pool, g, st);
}

/* All of stage `st` goes on to the next. */
static void stage_advance(struct vd_pool *pool, enum space_stage st)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	while (!vd_list_empty(&s->stage[st])) {
		struct space_group *g = vd_container(s->stage[st].next, struct space_group, stage_link[st]);
		uint64_t *from = g->stage[st];
		unsigned n = g->staged[st];

		if (!g->stage[st + 1]) {
			g->stage[st + 1] = from;
			g->stage[st] = NULL;
		} else {
			for (unsigned w = 0; w < SPACE_WORDS; w++)
				g->stage[st + 1][w] |= from[w]; /* disjoint: a block is in one stage */
		}
		stage_drop(pool, g, st);
		if (!g->staged[st + 1])
			vd_list_add_tail(&s->stage[st + 1], &g->stage_link[st + 1]);
		g->staged[st + 1] += n;
		s->staged[st + 1] += n;
		vd_spin_unlock(&s->lock); /* for those that wait */
		vd_spin_lock(&s->lock);
	}
	vd_spin_unlock(&s->lock);
}

void vd_space_checkpointed(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	s->root = pool->space_root;
	vd_spin_unlock(&s->lock);
	while (!vd_list_empty(&s->changed)) { /* S1: only now may they be dropped */
		struct space_group *g = vd_container(s->changed.next, struct space_group, changed_link);

		vd_list_del(&g->changed_link);
		g->changed = false;
	}
	stage_advance(pool, STAGE_FREED);
	space_shrink(pool);
}

void vd_space_release(struct vd_pool *pool, vd_pblk_t p, uint64_t len, uint64_t seq)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	if (!space_valid(s, pool, p, len, false))
		len = 0;
	while (len) {
		struct space_chunk *c = s->released_last;
		uint64_t n = vd_min(len, (uint64_t)65536);

		if (!c || c->n == SPACE_CHUNK_MAX) {
			c = pool->host.alloc(pool->host.ctx, sizeof(*c), VD_ALLOC_NOWAIT);
			if (!c)
				break; /* they leak until the next opening */
			c->next = NULL;
			c->n = 0;
			if (s->released_last)
				s->released_last->next = c;
			else
				s->released = c;
			s->released_last = c;
		}
		if (c->n && c->e[c->n - 1].seq == seq) {
			struct space_range *e = &c->e[c->n - 1];
			uint64_t have = (e->p_len >> 48) + 1;

			if ((e->p_len & VD_PBLK_NONE) + have == p && have + n <= 65536) {
				e->p_len += n << 48;
				n = 0;
			}
		}
		if (n) {
			c->e[c->n].p_len = p | (n - 1) << 48;
			c->e[c->n++].seq = seq;
		} else {
			n = vd_min(len, (uint64_t)65536);
		}
		p += n;
		len -= n;
	}
	vd_spin_unlock(&s->lock);
}

/* Lock held.  A released range into SEALED, but for blocks that a checkpoint
 * counted since. False: no memory now. */
static bool seal_range(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	struct vd_space *s = pool->space;

	for (uint64_t left = len, n; left; p += n, left -= n) {
		struct space_group *g = space_find(s, space_nr(p));
		unsigned i = space_in(p);

		n = vd_min(left, (uint64_t)(VD_GROUP_BLOCKS - i));
		if (!g)
			continue;
		if (space_stage_ready(pool, g, STAGE_SEALED, VD_ALLOC_NOWAIT))
			return false;
		for (unsigned j = i; j < i + (unsigned)n; j++)
			if (space_bit(g->busy, j) && !space_count_at(g, j))
				space_stage_set(s, g, STAGE_SEALED, j, 1);
		if (!g->staged[STAGE_SEALED])
			stage_drop(pool, g, STAGE_SEALED);
	}
	return true;
}

/* What is durable of one chunk; the rest stays in it. */
static void seal_chunk(struct vd_pool *pool, struct space_chunk *c, uint64_t durable)
{
	struct vd_space *s = pool->space;
	unsigned kept = 0;

	vd_spin_lock(&s->lock);
	for (unsigned i = 0; i < c->n; i++) {
		struct space_range e = c->e[i];

		if (e.seq > durable || !seal_range(pool, e.p_len & VD_PBLK_NONE, (e.p_len >> 48) + 1))
			c->e[kept++] = e;
	}
	c->n = kept;
	vd_spin_unlock(&s->lock);
}

void vd_space_seal(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	uint64_t durable = vd_journal_durable(pool);
	struct space_chunk *c, *next, *keep = NULL;

	if (!vd_pool_pinned(pool))
		stage_advance(pool, STAGE_RIPE);
	vd_spin_lock(&s->lock);
	c = s->released;
	s->released = s->released_last = NULL;
	vd_spin_unlock(&s->lock);
	for (; c; c = next) {
		next = c->next;
		seal_chunk(pool, c, durable);
		if (c->n) {
			c->next = keep;
			keep = c;
		} else {
			vd_free(pool, c);
		}
	}
	vd_spin_lock(&s->lock);
	while (keep) { /* in front of what came since */
		next = keep->next;
		keep->next = s->released;
		s->released = keep;
		if (!s->released_last)
			s->released_last = keep;
		keep = next;
	}
	vd_spin_unlock(&s->lock);
}

/* The sealed blocks of g are passed down as discards. They are SEALED until the
 * caller frees them, so that nobody uses them and g stays. */
static void discard_group(struct vd_pool *pool, const struct space_group *g)
{
	const uint64_t *bits = g->stage[STAGE_SEALED];
	unsigned i = 0;

	while ((i = space_bit_next(bits, i, VD_GROUP_BLOCKS, true)) < VD_GROUP_BLOCKS) {
		unsigned end = space_bit_next(bits, i, VD_GROUP_BLOCKS, false);

		if (end - i >= 16)
			(void)pool->host.discard(pool->host.ctx, g->m->index, VD_PBLK_BLOCK(space_first(g)) + i, end - i);
		i = end;
	}
}

void vd_space_drained(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	bool discard;

	vd_mutex_lock(&pool->ckpt_lock);
	discard = pool->host.discard && !(le32_to_cpu(pool->super->policy) & VD_POLICY_NO_DISCARD);
	vd_mutex_unlock(&pool->ckpt_lock);
	vd_mutex_lock(&s->load_lock); /* who still reads from an older root ends first (S2) */
	vd_mutex_unlock(&s->load_lock);
	for (;;) {
		struct space_group *g = NULL;

		vd_spin_lock(&s->lock);
		if (!vd_list_empty(&s->stage[STAGE_SEALED]))
			g = vd_container(s->stage[STAGE_SEALED].next, struct space_group, stage_link[STAGE_SEALED]);
		vd_spin_unlock(&s->lock);
		if (!g)
			break;
		if (discard)
			discard_group(pool, g);
		vd_spin_lock(&s->lock);
		for (unsigned i = 0, end; (i = space_bit_next(g->stage[STAGE_SEALED], i, VD_GROUP_BLOCKS, true)) < VD_GROUP_BLOCKS; i = end) {
			end = space_bit_next(g->stage[STAGE_SEALED], i, VD_GROUP_BLOCKS, false);
			space_busy_clear(s, g, i, end - i);
		}
		stage_drop(pool, g, STAGE_SEALED);
		vd_spin_unlock(&s->lock);
	}
}

bool vd_space_pending(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	bool any;

	vd_spin_lock(&s->lock);
	any = s->staged[STAGE_FREED] || (s->staged[STAGE_RIPE] && !vd_pool_pinned(pool)) || s->staged[STAGE_SEALED] || s->released;
	vd_spin_unlock(&s->lock);
	return any;
}

void space_stage_fini(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	while (s->released) {
		struct space_chunk *c = s->released;

		s->released = c->next;
		vd_free(pool, c);
	}
}
