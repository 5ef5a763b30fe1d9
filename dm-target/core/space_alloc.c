/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Who gets which block.
 *
 * A1. Every free block of a member is in a group in a class, in the member's
 *     metadata group, in its metadata window, or in a group not in memory.
 * A2. A group's class is log2 of `longest`, a bound: all that is free when it comes in, made
 *     exact by a search that fails, raised to the run of a block that becomes free.
 * A3. -EWOULDBLOCK and refill's 0 never answer each other for ever: whenever refill
 *     answers 0, memory holds a free run that the next search takes, however poor, but
 *     for once where the groups that came in were not what they seemed, or another
 *     caller was faster.
 * A4. Data takes no block of a member that would leave less than its floor of free
 *     blocks in memory; floors together are at most the reserve.  So both copies
 *     of a node find room on two members for as long as there is a reserve, while
 *     the pool as a whole is full for data exactly at the reserve.
 * A5. Data takes no block that would leave less than the reserve and what is promised
 *     to others (R3): looked at in the same step as it is taken.
 * A6. A checkpoint takes the reserve at most, in pairs, each from two members.  So two of
 *     them have both copies when the members but the roomiest have the reserve free together,
 *     where there are two, or twice that, where both blocks of a pair may be of these.
 */
#include "space_priv.h"

int space_member_add(struct vd_pool *pool, struct vd_space *s)
{
	struct space_member *m = vd_zalloc_must(pool, sizeof(*m));
	uint64_t blocks = pool->member[s->nmembers].blocks;

	if (!m)
		return -ENOMEM;
	m->index = s->nmembers;
	m->groups = (blocks + VD_GROUP_BLOCKS - 1) >> VD_GROUP_SHIFT;
	for (unsigned c = 0; c < SPACE_CLASSES; c++)
		vd_list_init(&m->class[c]);
	vd_spin_lock(&s->lock);
	s->member[s->nmembers++] = m;
	s->total += blocks;
	space_add(&s->free, (int64_t)blocks);
	while ((1u << s->floor_shift) < s->nmembers)
		s->floor_shift++;
	vd_spin_unlock(&s->lock);
	return 0;
}

static struct space_member *member_after(const struct vd_space *s, unsigned m)
{
	return s->member[m + 1 < s->nmembers ? m + 1 : 0];
}

static uint64_t member_floor(const struct vd_pool *pool)
{
	uint64_t floor = pool->reserve_blocks >> pool->space->floor_shift;

	return vd_min(floor, (uint64_t)SPACE_FLOOR_MAX);
}

/* ---- finding runs; lock held ------------------------------------------------ */

struct run { struct space_group *g; unsigned i, n; };

/*
 * A free run of `want` blocks in g from `from` on: the first that begins on a
 * multiple of 16 when 16 or more are wanted, else the first.  If there is none,
 * the longest. n == 0: no free block.
 */
static struct run group_search(struct space_group *g, unsigned from, unsigned want)
{
	struct run best = { .g = g };
	unsigned i = from;

	while ((i = space_bit_next(g->busy, i, VD_GROUP_BLOCKS, false)) < VD_GROUP_BLOCKS) {
		unsigned aligned = want >= 16 ? (i + 15) & ~15u : i;
		/* not beyond what is enough: all behind may be free */
		unsigned end = space_bit_next(g->busy, i, vd_min(aligned + want, VD_GROUP_BLOCKS), true);

		if (aligned + want <= end) {
			best.i = aligned;
			best.n = want;
			return best;
		}
		if (end - i > best.n) {
			best.i = i;
			best.n = end - i;
		}
		i = end;
	}
	if (from == 0) {
		g->longest = best.n;
		space_classify(g);
	}
	best.n = vd_min(best.n, want);
	return best;
}

/* A run of `want` in a good group of the member, the current one first. n == 0: none.
 * The rest of what others left is not looked through while there is such a group: gaps
 * between blocks of a region are the region's (W3 of window.c). */
static struct run member_search(struct space_member *m, unsigned want)
{
	struct run none = { .n = 0 }, run;
	struct vd_list *at, *tmp;

	if (m->cur && !m->cur->meta && m->cur->longest >= want) {
		run = group_search(m->cur, m->cur_at, want);
		if (run.n == want) {
			m->cur_at = run.i + run.n;
			return run;
		}
	}
	for (unsigned c = SPACE_CLASSES; c-- > space_log2(vd_max(want, SPACE_POOR));)
		vd_list_for_each_safe(at, tmp, &m->class[c]) {
			struct space_group *g = vd_container(at, struct space_group, class_link);

			if (g->longest < want)
				continue;
			run = group_search(g, 0, want); /* or g moves down to where it belongs */
			if (run.n == want && g->longest >= SPACE_POOR) {
				m->cur = g;
				m->cur_at = run.i + run.n;
				return run;
			}
		}
	return none;
}

/* A run of the member, at most want and longer than `than`, and no other of it is twice as
 * long; n == 0: none.  That is as good as the longest, and a thousand groups whose gaps are
 * of one length need not be gone through. */
static struct run member_longest(struct space_member *m, unsigned want, unsigned than)
{
	struct run best = { .n = 0 }, run;
	struct vd_list *at, *tmp;

	for (unsigned c = SPACE_CLASSES; c-- > 0;) {
		if ((2u << c) - 1 <= vd_max(best.n, than))
			break;
		vd_list_for_each_safe(at, tmp, &m->class[c]) {
			struct space_group *g = vd_container(at, struct space_group, class_link);

			if (best.n >= vd_min(want, 1u << c))
				return best;
			if (g->longest <= vd_max(best.n, than))
				continue;
			run = group_search(g, 0, want);
			if (run.n > vd_max(best.n, than))
				best = run;
		}
	}
	if (m->meta && m->meta->longest > vd_max(best.n, than)) {
		run = group_search(m->meta, 0, want);
		if (run.n > vd_max(best.n, than))
			best = run;
	}
	return best;
}

/* ---- data -------------------------------------------------------------------- */

/* Lock held.  In memory there is a group with a good run, as far as is known. */
static bool member_good(const struct space_member *m)
{
	for (unsigned c = space_log2(SPACE_POOR); c < SPACE_CLASSES; c++)
		if (!vd_list_empty(&m->class[c]))
			return true;
	return false;
}

/* How many blocks data may take of the member, at most want. Lock held. */
static unsigned member_room(const struct vd_pool *pool, const struct space_member *m, unsigned want)
{
	uint64_t floor = member_floor(pool);

	if (pool->member[m->index].missing || m->free <= floor)
		return 0;
	return m->free - floor < want ? (unsigned)(m->free - floor) : want;
}

static struct run near_goal(const struct vd_pool *pool, vd_pblk_t goal, unsigned want)
{
	const struct vd_space *s = pool->space;
	struct space_group *g = space_find(s, space_nr(goal));
	struct run run = { .g = g, .i = space_in(goal) };

	want = g ? member_room(pool, g->m, want) : 0;
	if (!want)
		return run;
	g->recent = true;
	if (!space_bit(g->busy, run.i)) {
		run.n = space_bit_next(g->busy, run.i, vd_min(run.i + want, VD_GROUP_BLOCKS), true) - run.i;
		return run;
	}
	if (g->longest >= want && !g->meta) {
		struct run next = group_search(g, run.i, want);

		if (next.n == want)
			return next;
	}
	return run;
}

static struct run search(struct vd_pool *pool, unsigned first, unsigned want)
{
	struct vd_space *s = pool->space;
	struct space_member *m = s->member[first];
	struct run best = { .n = 0 }, run;
	bool all = true, good = false;

	for (unsigned k = 0; k < s->nmembers; k++, m = member_after(s, m->index)) {
		unsigned w = member_room(pool, m, want);

		all &= m->dry || pool->member[m->index].missing;
		if (!w)
			continue;
		run = member_search(m, w);
		if (run.n == want) {
			return run;
		}
		if (run.n > best.n)
			best = run;
	}
	for (unsigned k = 0; k < s->nmembers; k++, m = member_after(s, m->index)) {
		unsigned w = member_room(pool, m, want);

		if (w > best.n) {
			run = member_longest(m, w, best.n);
			if (run.n)
				best = run;
		}
		good |= w && member_good(m);
	}
	all |= s->free <= (int64_t)s->loaded;
	if (best.n && !good && !all) {
		if (s->poor)
			s->poor--;
		else
			best.n = 0; /* look for better ones first */
	}
	return best;
}

static int64_t set_aside(const struct vd_pool *pool)
{
	int64_t n = vd_atomic_read(&pool->space->promised) + vd_atomic_read(&pool->space->held);

	return n > 0 ? n + (int64_t)vd_change_part(pool) : 0; /* a superblock may promise too little */
}

/* With s->lock, or for a look.  Who is promised something has it from R5's part if need be, and no more than
 * that: beyond it he is a writer like others. */
int64_t vd_space_room(const struct vd_pool *pool, const struct vd_promise *mine, uint64_t kept)
{
	const struct vd_space *s = pool->space;
	int64_t free = __atomic_load_n(&s->free, __ATOMIC_RELAXED) - __atomic_load_n(&s->joining, __ATOMIC_RELAXED);
	int64_t aside = set_aside(pool), room = free - (int64_t)(pool->reserve_blocks + kept) - aside, left;

	left = mine && aside ? vd_promise_open(mine) : 0;
	return left > 0 ? vd_max(room, vd_min(left, room + (int64_t)vd_change_part(pool) + vd_atomic_read(&mine->all))) : room;
}

uint64_t vd_space_set_aside(struct vd_pool *pool)
{
	return (uint64_t)set_aside(pool);
}

int vd_space_reserve_for(struct vd_pool *pool, const struct vd_promise *mine, vd_pblk_t goal, unsigned want, vd_pblk_t *p, unsigned *got)
{
	struct vd_space *s = pool->space;
	struct run run = { .n = 0 };
	unsigned first;
	int64_t room;

	if (!want || want > 1024)
		return -EINVAL;
	vd_spin_lock(&s->lock);
	room = vd_space_room(pool, mine, 0);
	if (room > 0) {
		want = room < want ? (unsigned)room : want;
		if (goal != VD_PBLK_NONE && VD_PBLK_MEMBER(goal) < s->nmembers) {
			first = VD_PBLK_MEMBER(goal);
			run = near_goal(pool, goal, want);
		} else {
			first = s->rotor;
			s->rotor = member_after(s, first)->index;
		}
		if (!run.n)
			run = search(pool, first, want);
	}
	if (run.n) {
		if (run.n == want && run.g->longest >= SPACE_POOR && !run.g->meta) { /* beside the goal, too */
			s->found = true;
			s->poor = 0;
		}
		space_busy_set(s, run.g, run.i, run.n);
		run.g->recent = true;
		if (run.g == run.g->m->cur && want >= 16) /* who has no goal need not go through what this left */
			run.g->m->cur_at = vd_max(run.g->m->cur_at, run.i + run.n);
		*p = space_first(run.g) + run.i;
		*got = run.n;
	}
	vd_spin_unlock(&s->lock);
	return run.n ? 0 : -EWOULDBLOCK;
}

int vd_space_reserve_mask(struct vd_pool *pool, const struct vd_promise *mine, vd_pblk_t p, unsigned n, unsigned must, uint32_t *mask)
{
	struct vd_space *s = pool->space;
	struct space_group *g;
	uint32_t got = 0;
	unsigned at = space_in(p), end = at + n, last;
	bool load;

	vd_spin_lock(&s->lock);
	g = VD_PBLK_MEMBER(p) < s->nmembers ? space_find(s, space_nr(p)) : NULL;
	if (g && end <= VD_GROUP_BLOCKS && !space_bit(g->busy, at + must) && vd_space_room(pool, mine, 0) >= (int64_t)n &&
	    member_room(pool, g->m, n) == n)
		while ((at = space_bit_next(g->busy, at, end, false)) < end) {
			last = space_bit_next(g->busy, at, end, true);
			space_busy_set(s, g, at, last - at);
			got |= (~0u >> (32 - (last - at))) << (at - space_in(p));
			at = last;
		}
	if (got)
		g->recent = true;
	load = !g && s->unreadable != space_nr(p) && space_valid(s, pool, p, n, true);
	vd_spin_unlock(&s->lock);
	*mask = got;
	return load ? -EWOULDBLOCK : 0;
}

int vd_space_load(struct vd_pool *pool, vd_pblk_t p)
{
	struct vd_space *s = pool->space;
	struct space_group *g;
	int r = space_load(pool, space_nr(p), false, &g);

	if (!r || r == -ENOMEM)
		return r;
	vd_spin_lock(&s->lock); /* who asks again takes other blocks */
	s->unreadable = space_nr(p);
	vd_spin_unlock(&s->lock);
	return 0;
}

void vd_space_unreserve(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	if (!space_valid(s, pool, p, len, false))
		len = 0;
	while (len) {
		struct space_group *g = space_find(s, space_nr(p));
		unsigned i = space_in(p), n = (unsigned)vd_min(len, (uint64_t)(VD_GROUP_BLOCKS - i));

		for (unsigned j = i, end; g && j < i + n; j = end + 1) {
			for (end = j; end < i + n && !space_count_at(g, end); end++)
				;
			if (end > j)
				space_busy_clear(s, g, j, end - j);
		}
		p += n;
		len -= n;
	}
	vd_spin_unlock(&s->lock);
}

/* Busy bits of one group's part. 0; -EUCLEAN; -EAGAIN not in memory. */
static int claim_group(struct vd_space *s, uint64_t nr, unsigned i, unsigned n)
{
	struct space_group *g;
	int r = 0;

	vd_spin_lock(&s->lock);
	g = space_find(s, nr);
	if (!g)
		r = -EAGAIN;
	else if (space_bit_next(g->busy, i, i + n, true) < i + n)
		r = -EUCLEAN;
	else
		space_busy_set(s, g, i, n);
	vd_spin_unlock(&s->lock);
	return r;
}

int vd_space_claim(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	struct vd_space *s = pool->space;
	struct space_group *g;
	int r;

	if (!space_valid(s, pool, p, len, false))
		return -EUCLEAN;
	while (len) {
		unsigned i = space_in(p), n = (unsigned)vd_min(len, (uint64_t)(VD_GROUP_BLOCKS - i));

		do { /* a checkpoint may drop it between the two */
			r = space_load(pool, space_nr(p), false, &g);
			if (!r)
				r = claim_group(s, space_nr(p), i, n);
		} while (r == -EAGAIN);
		if (r)
			return r;
		p += n;
		len -= n;
	}
	return 0;
}

/* ---- refill: load_lock held --------------------------------------------------- */

/*
 * The next group of m from `g` on that may have free blocks, as far as the space
 * tree tells; m->groups: none.  A lap that is not slow skips stretches of full
 * groups by their sums, and with them gaps (free groups) between full ones.
 */
static int next_candidate(struct vd_pool *pool, struct space_member *m, uint64_t g, uint64_t *out)
{
	uint64_t base = space_member_nr(m->index), lo, hi;
	struct vd_slot slot;
	int r;

	r = space_durable_next(pool, (base + g) * SPACE_PARTS_MAX, false, &slot);
	if (r && r != -ENODATA)
		return r;
	if (r || slot.key / SPACE_PARTS_MAX > base + g) {
		*out = g;
		return 0;
	}
	r = space_durable_next(pool, (base + g) * SPACE_PARTS_MAX, true, &slot);
	if (r && r != -ENODATA)
		return r;
	if (!r && slot.key / SPACE_PARTS_MAX == base + g) {
		*out = g;
		return 0;
	}
	if (m->slow) {
		*out = g + 1;
		return 0;
	}
	if (!r && slot.key / SPACE_PARTS_MAX < base + m->groups) {
		*out = slot.key / SPACE_PARTS_MAX - base;
		return 0;
	}
	lo = g + 1; /* the first group above all that the tree knows: between lo and hi */
	hi = m->groups;
	while (lo < hi) {
		uint64_t mid = lo + ((hi - lo) >> 1);

		r = space_durable_next(pool, (base + mid) * SPACE_PARTS_MAX, false, &slot);
		if (r && r != -ENODATA)
			return r;
		if (r || slot.key / SPACE_PARTS_MAX >= base + m->groups)
			hi = mid;
		else
			lo = slot.key / SPACE_PARTS_MAX - base + 1;
	}
	*out = lo;
	return 0;
}

static void lap_end(struct vd_space *s, struct space_member *m)
{
	vd_spin_lock(&s->lock);
	if (m->lap_found) {
		m->slow = false;
	} else if (!m->slow) {
		m->slow = true;
	} else {
		m->slow = false;
		m->dry = m->lap_evicted == m->evicted;
	}
	m->lap_evicted = m->evicted;
	vd_spin_unlock(&s->lock);
	m->cursor = 0;
	m->lap_found = 0;
}

static bool in_memory(struct vd_space *s, uint64_t nr)
{
	bool yes;

	vd_spin_lock(&s->lock);
	yes = space_find(s, nr) != NULL;
	vd_spin_unlock(&s->lock);
	return yes;
}

/* One step on the way round the member. *found: a group with free blocks came in. */
static int lap_step(struct vd_pool *pool, struct space_member *m, bool ckpt, bool *found)
{
	struct vd_space *s = pool->space;
	uint64_t base = space_member_nr(m->index), next;
	struct space_group *g;
	int r;

	*found = false;
	if (m->cursor >= m->groups) {
		lap_end(s, m);
		return 0;
	}
	if (in_memory(s, base + m->cursor)) {
		m->cursor++;
		return 0;
	}
	r = next_candidate(pool, m, m->cursor, &next);
	if (r || next != m->cursor) {
		m->cursor = r ? m->cursor + 1 : next;
		return r;
	}
	m->cursor++;
	r = space_load_locked(pool, base + next, ckpt, &g);
	if (!r) {
		vd_spin_lock(&s->lock);
		*found = g->free > 0;
		vd_spin_unlock(&s->lock);
		m->lap_found += *found;
	}
	return r;
}

enum need { NEED_DATA, NEED_META, NEED_PAIRS };

/* A6; floors end somewhere, and so does this. */
static uint64_t pairs_need(const struct vd_pool *pool)
{
	uint64_t need = vd_min(pool->reserve_blocks, 2ull * SPACE_FLOOR_MAX);

	return pool->space->nmembers > 2 ? 2 * need : need;
}

static bool member_wants(const struct vd_pool *pool, const struct space_member *m, enum need need)
{
	struct vd_space *s = pool->space;
	bool wants = true;

	vd_spin_lock(&s->lock);
	if (m->dry || s->free <= (int64_t)s->loaded) /* none is free that is not in memory */
		wants = false;
	else if (need == NEED_DATA)
		wants = !member_good(m) || m->free < member_floor(pool) + SPACE_LOW;
	else if (need == NEED_PAIRS) /* gaps between full groups are not worth looking at each */
		wants = !m->slow && m->free < pairs_need(pool);
	vd_spin_unlock(&s->lock);
	return wants;
}

/*
 * Brings in up to `most` groups with free blocks while the member wants some.
 * A group that cannot be read is passed over, as if it were full: *bad says why.
 */
static int member_fill(struct vd_pool *pool, struct space_member *m, enum need need, unsigned most, bool ckpt, int *bad)
{
	struct vd_space *s = pool->space;
	unsigned steps = 0, failed = 0;
	bool found;
	int r = 0;

	vd_mutex_lock(&s->load_lock);
	while (most && member_wants(pool, m, need)) {
		r = lap_step(pool, m, ckpt, &found);
		if (r == -ENOMEM)
			break;
		if (r) {
			vd_log(pool, VD_LOG_WARN, "space group %a of member %b cannot be read and is not used", m->cursor - 1, m->index);
			*bad = s->bad = r;
			r = 0;
			vd_spin_lock(&s->lock);
			m->evicted++; /* nor is the member dry: another time it may be read */
			vd_spin_unlock(&s->lock);
			if (++failed == SPACE_FAILURES)
				break;
		}
		most -= found;
		if (++steps % 256 == 0) { /* let a checkpoint load its groups */
			vd_mutex_unlock(&s->load_lock);
			vd_mutex_lock(&s->load_lock);
		}
	}
	vd_mutex_unlock(&s->load_lock);
	return r;
}

int vd_space_refill(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	bool any = false, good = false;
	int r = 0, bad = 0;
	unsigned n;

	vd_spin_lock(&s->lock);
	n = s->free > (int64_t)pool->reserve_blocks ? s->nmembers : 0;
	vd_spin_unlock(&s->lock);
	if (!n)
		return -ENOSPC;
	for (unsigned i = 0; i < n && !r; i++)
		if (!pool->member[i].missing)
			r = member_fill(pool, s->member[i], NEED_DATA, 2, false, &bad);
	vd_spin_lock(&s->lock);
	for (unsigned i = 0; i < n; i++) {
		const struct space_member *m = s->member[i];

		if (!member_room(pool, m, 1))
			continue;
		any |= m->free > m->window_left;
		good |= member_good(m);
	}
	/* Nothing good, or nothing that was so when it was looked at (what a group's longest run
	 * is nobody knows when it comes in): reserve takes what there is, for longer each time, so
	 * that a pool where nothing better is left does not go through its groups for ever. */
	s->credit = good && s->found ? 0 : vd_min(vd_max(2 * s->credit, SPACE_POOR_CREDIT), SPACE_POOR_CREDIT_MAX);
	s->poor = s->credit;
	s->found = false;
	any &= s->free > (int64_t)pool->reserve_blocks;
	vd_spin_unlock(&s->lock);
	if (any)
		return 0;
	return r ? r : bad ? bad : -ENOSPC;
}

int vd_space_bad(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	int r;

	vd_mutex_lock(&s->load_lock);
	r = s->bad;
	vd_mutex_unlock(&s->load_lock);
	return r;
}

/* ---- metadata: ckpt_lock held --------------------------------------------------- */

/* Lock held. Takes g from data. */
static void meta_group(struct space_member *m, struct space_group *g)
{
	if (m->meta) {
		m->meta->meta = false;
		space_classify(m->meta);
	}
	m->meta = g;
	g->meta = true;
	space_classify(g);
}

/* Lock held.  The group in memory best suited for metadata: of those with the
 * longest runs the last that came, not where data goes if another will do. */
static struct space_group *meta_choose(struct space_member *m)
{
	for (unsigned c = SPACE_CLASSES; c-- > 0;) {
		struct vd_list *at = m->class[c].prev;

		if (at != &m->class[c] && m->cur && at == &m->cur->class_link && at->prev != &m->class[c])
			at = at->prev;
		if (at != &m->class[c])
			return vd_container(at, struct space_group, class_link);
	}
	return NULL;
}

/* Lock held.  A new window in the metadata group, or in a better one if that has
 * only short runs left.  False: the member has no free block in memory, or, unless
 * `poor`, none but short runs and those where data goes. */
static bool window_open(struct vd_space *s, struct space_member *m, bool poor)
{
	for (;;) {
		struct run run = { .n = 0 };
		struct space_group *g;

		if (m->meta)
			run = group_search(m->meta, 0, SPACE_WINDOW);
		if (run.n < SPACE_WINDOW_POOR) {
			g = meta_choose(m);
			if (g && g->longest > run.n) {
				struct run other = group_search(g, 0, SPACE_WINDOW);

				if (other.n > run.n) {
					if (g == m->cur && !poor)
						return false;
					meta_group(m, g);
					run = other;
				} else {
					continue; /* its class was only a guess, and is right now */
				}
			}
		}
		if (!run.n || (run.n < SPACE_WINDOW_POOR && !poor))
			return false;
		if (poor && (run.n < SPACE_WINDOW_POOR || run.g == m->cur))
			m->poor_windows--;
		space_busy_set(s, run.g, run.i, run.n);
		m->window = space_first(run.g) + run.i;
		m->window_left = run.n;
		m->free += run.n; /* still free, for metadata */
		s->loaded += run.n;
		space_add(&s->free, run.n);
		return true;
	}
}

/* A block of the member, busy. -ENOSPC. */
static int meta_take(struct vd_pool *pool, struct space_member *m, vd_pblk_t *p)
{
	struct vd_space *s = pool->space;
	int r, bad = 0;

	for (unsigned tries = 0; tries < 3; tries++) {
		bool have;

		vd_spin_lock(&s->lock);
		if (tries == 2)
			m->poor_windows = SPACE_POOR_CREDIT;
		have = m->window_left || window_open(s, m, m->poor_windows);
		if (have) {
			*p = m->window++;
			m->window_left--;
			m->free--;
			s->loaded--;
			space_add(&s->free, -1);
		}
		vd_spin_unlock(&s->lock);
		if (have)
			return 0;
		if (tries < 2) {
			r = member_fill(pool, m, NEED_META, 2, true, &bad);
			if (r)
				return r;
		}
	}
	return bad ? bad : -ENOSPC;
}

void space_windows_release(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;

	vd_spin_lock(&s->lock);
	for (unsigned i = 0; i < s->nmembers; i++) {
		struct space_member *m = s->member[i];
		struct space_group *g;

		if (!m->window_left)
			continue;
		g = space_find(s, space_nr(m->window)); /* busy says more than counts: in memory */
		m->free -= m->window_left;
		s->loaded -= m->window_left;
		space_add(&s->free, -(int64_t)m->window_left);
		space_busy_clear(s, g, space_in(m->window), m->window_left);
		m->window_left = 0;
	}
	vd_spin_unlock(&s->lock);
}

/* In memory, and so at least. */
static bool have_pairs(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	uint64_t sum = 0, most = 0;

	vd_spin_lock(&s->lock);
	for (unsigned i = 0; i < s->nmembers; i++) {
		uint64_t n = pool->member[i].missing ? 0 : s->member[i]->free;

		sum += n;
		most = vd_max(most, n);
	}
	vd_spin_unlock(&s->lock);
	return s->nmembers < 2 || sum - most >= pairs_need(pool);
}

bool vd_space_short(struct vd_pool *pool)
{
	struct vd_space *s = pool->space;
	bool groups, pairs;
	int bad = 0;

	vd_spin_lock(&s->lock);
	groups = s->ngroups > 2 * s->max_groups;
	vd_spin_unlock(&s->lock);
	/* As each checkpoint may take the reserve, which is there for it, one more must be left for the next. */
	if (groups || vd_space_free(pool) < 2 * pool->reserve_blocks)
		return true;
	pairs = have_pairs(pool);
	for (unsigned i = 0; i < s->nmembers && !pairs; i++)
		if (!pool->member[i].missing) {
			if (member_fill(pool, s->member[i], NEED_PAIRS, SPACE_PAIRS_GROUPS, true, &bad))
				break;
			pairs = have_pairs(pool);
		}
	return !pairs;
}

/* Takes a block of a member other than `not`, from *at on. */
static int meta_any(struct vd_pool *pool, unsigned *at, unsigned not, vd_pblk_t *p)
{
	struct vd_space *s = pool->space;
	struct space_member *m = s->member[*at];
	int r = -ENOSPC;

	for (unsigned k = 0; k < s->nmembers; k++, m = member_after(s, m->index)) {
		if (m->index == not || pool->member[m->index].missing)
			continue;
		r = meta_take(pool, m, p);
		if (r != -ENOSPC) {
			*at = m->index;
			break;
		}
	}
	return r;
}

int vd_space_alloc_node(struct vd_pool *pool, vd_pblk_t *a, vd_pblk_t *b)
{
	struct vd_space *s = pool->space;
	vd_pblk_t p, q = VD_PBLK_NONE;
	unsigned at = s->pair, other, present = 0;
	int r;

	for (unsigned i = 0; i < s->nmembers; i++)
		present += !pool->member[i].missing;
	r = meta_any(pool, &at, ~0u, &p);
	if (r)
		return r;
	if (present > 1) {
		other = member_after(s, at)->index;
		r = meta_any(pool, &other, at, &q);
		if (r == -ENOSPC) { /* one copy is better than a failed checkpoint */
			if (!s->warned_copy)
				vd_log(pool, VD_LOG_WARN, "no space for a second copy of metadata beside member %a", at, 0);
			s->warned_copy = true;
			q = VD_PBLK_NONE;
			r = 0;
		}
	}
	s->pair = s->member[at]->window_left ? at : member_after(s, at)->index;
	if (!r)
		r = vd_space_inc(pool, p, 1);
	if (r)
		goto undo_p;
	if (q != VD_PBLK_NONE) {
		r = vd_space_inc(pool, q, 1);
		if (r)
			goto undo_q;
	}
	vd_atomic_add(&s->meta, q == VD_PBLK_NONE ? 1 : 2);
	*a = p;
	*b = q;
	return 0;
undo_q:
	vd_space_unreserve(pool, q, 1);
	if (vd_space_dec(pool, p, 1)) /* p is free after the checkpoint, as any other */
		return -EUCLEAN;
	return r;
undo_p:
	vd_space_unreserve(pool, p, 1);
	if (q != VD_PBLK_NONE)
		vd_space_unreserve(pool, q, 1);
	return r;
}
