/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The node cache.
 *
 * A node is found by the address of its first copy, in a hash table whose
 * buckets are divided among VD_STRIPES locks; a hit takes one of them and a
 * reference.  Each stripe keeps its nodes on a ring for the CLOCK hand.
 *
 *   state      refs        on ring/hash   on the list of changed nodes
 *   clean      1           yes            no    evictable
 *   held       > 1         yes            maybe
 *   changed    >= 1        yes            yes   not evictable until written
 *   unhashed   >= 1        no             no    freed by the last put
 *
 * Invariants
 *   1. At most one node is hashed for an address: who reads a node looks again
 *      before it hashes its own.
 *   2. A node is hashed only if none of its stripe was forgotten or made new
 *      since its read began; so a slow reader cannot bring back a dead node.
 *   3. refs of a hashed node goes 1 -> 2 only under the stripe's lock, so a
 *      node with refs == 1 under that lock may be freed.
 *   4. A node is written from the list of changed ones only, and leaves it only
 *      when all its copies are written.  Early (before vd_cache_write) only
 *      nodes that nobody holds are: a held one may be half changed.
 *   5. A copy is repaired only under `heal`, after checking (2) once more;
 *      vd_node_forget() passes `heal` before it returns.  So a repair never
 *      overwrites a block that has been given to someone else.  (A reader's
 *      pointer is good while its translation is counted: I2.)
 */
#include "pool.h"

#define VD_STRIPES 64u
#define VD_RUN_BLOCKS 64u /* of one host write */
#define VD_SCAN 16u       /* nodes the clock hand passes in one stripe */

struct vd_stripe {
	struct vd_spin lock;
	struct vd_list ring;
	uint64_t forgets; /* addresses of this stripe forgotten or made new (2) */
};

struct vd_cache {
	struct vd_pool *pool;
	struct vd_stripe stripe[VD_STRIPES];
	struct vd_list *bucket;
	uint64_t mask;            /* buckets - 1 */
	vd_atomic_t nodes;        /* hashed */
	uint64_t max_nodes;
	vd_atomic_t hand;         /* stripe the clock looks at next */
	struct vd_list changed;   /* ckpt_lock, as the next */
	uint64_t nchanged;
	void *run;                /* VD_RUN_BLOCKS blocks */
	struct vd_mutex heal;
	vd_atomic_t healing;
	vd_atomic_t written;
};

void vd_ptr_get(struct vd_ptr *to, const struct vd_disk_ptr *from)
{
	to->a = le32_to_cpu(from->a_lo) | (uint64_t)le16_to_cpu(from->a_hi) << 32;
	to->b = le32_to_cpu(from->b_lo) | (uint64_t)le16_to_cpu(from->b_hi) << 32;
	to->gen = le64_to_cpu(from->gen);
}

void vd_ptr_put(struct vd_disk_ptr *to, const struct vd_ptr *from)
{
	to->gen = cpu_to_le64(from->gen);
	to->a_lo = cpu_to_le32((uint32_t)from->a);
	to->a_hi = cpu_to_le16((uint16_t)(from->a >> 32));
	to->b_lo = cpu_to_le32((uint32_t)from->b);
	to->b_hi = cpu_to_le16((uint16_t)(from->b >> 32));
}

/* ---- table ------------------------------------------------------------ */

static struct vd_stripe *stripe_of(struct vd_cache *c, vd_pblk_t a)
{
	return &c->stripe[vd_hash(a) & (VD_STRIPES - 1)];
}

static struct vd_list *bucket_of(struct vd_cache *c, vd_pblk_t a)
{
	return &c->bucket[vd_hash(a) & c->mask];
}

/* The stripe's lock is held, here and below where a stripe is taken. */
static struct vd_node *lookup(struct vd_cache *c, vd_pblk_t a)
{
	struct vd_list *head = bucket_of(c, a), *pos;

	vd_list_for_each(pos, head) {
		struct vd_node *n = vd_container(pos, struct vd_node, hash);

		if (n->ptr.a == a)
			return n;
	}
	return NULL;
}

static void node_hash(struct vd_cache *c, struct vd_stripe *s, struct vd_node *n)
{
	vd_atomic_add(&n->refs, 1);
	vd_list_add_tail(bucket_of(c, n->ptr.a), &n->hash);
	vd_list_add_tail(&s->ring, &n->lru);
	vd_atomic_add(&c->nodes, 1);
}

/* The cache's reference passes to the caller, who puts it without the lock. */
static void node_unhash(struct vd_cache *c, struct vd_node *n)
{
	vd_list_del(&n->hash);
	vd_list_del(&n->lru);
	vd_atomic_add(&c->nodes, -1);
}

static uint64_t drop_from(struct vd_pool *pool, uint64_t gen, bool idle);

void *vd_alloc_must(struct vd_pool *pool, size_t size)
{
	void *p = vd_alloc(pool, size);

	if (vd_likely(p) || !vd_memory_is_open(pool))
		return p;
	p = vd_memory_last(pool, size);
	if (p)
		return p;
	drop_from(pool, 0, true); /* a fold goes before what is only kept to be fast */
	p = vd_alloc(pool, size);
	return p ? p : vd_memory_last(pool, size);
}

static struct vd_node *node_alloc(struct vd_pool *pool)
{
	struct vd_node *n = vd_zalloc_must(pool, sizeof(*n));

	if (!n)
		return NULL;
	n->data = vd_alloc_must(pool, VD_BLOCK);
	if (!n->data) {
		vd_free(pool, n);
		return NULL;
	}
	n->cache = pool->cache;
	vd_atomic_set(&n->refs, 1);
	vd_list_init(&n->lru);
	vd_list_init(&n->hash);
	vd_list_init(&n->changed);
	return n;
}

static void node_free(struct vd_pool *pool, struct vd_node *n)
{
	vd_free(pool, n->data);
	vd_free(pool, n);
}

void vd_node_put(struct vd_pool *pool, struct vd_node *n)
{
	if (n && !vd_atomic_add(&n->refs, -1))
		node_free(pool, n);
}

/* Not written any more, whatever it holds. ckpt_lock. */
static void node_settle(struct vd_cache *c, struct vd_node *n)
{
	n->gone = true;
	if (!n->dirty)
		return;
	n->dirty = false;
	vd_list_del(&n->changed);
	c->nchanged--;
}

void vd_node_dirty(struct vd_node *n)
{
	struct vd_cache *c = n->cache;

	if (n->dirty || n->gone) /* forgotten: nobody will read it */
		return;
	n->dirty = true;
	vd_list_add_tail(&c->changed, &n->changed);
	c->nchanged++;
}

/* One turn of the clock over the stripes at most; gives up when all is held or changed. */
static void shrink(struct vd_pool *pool)
{
	struct vd_cache *c = pool->cache;
	unsigned turn;

	for (turn = 0; turn < 2 * VD_STRIPES; turn++) {
		struct vd_stripe *s;
		struct vd_node *victim = NULL;
		unsigned i;

		if ((uint64_t)vd_atomic_read(&c->nodes) <= c->max_nodes)
			return;
		s = &c->stripe[(uint64_t)vd_atomic_add(&c->hand, 1) & (VD_STRIPES - 1)];
		vd_spin_lock(&s->lock);
		for (i = 0; i < VD_SCAN && !vd_list_empty(&s->ring); i++) {
			struct vd_node *n = vd_container(s->ring.next, struct vd_node, lru);

			if (vd_atomic_read(&n->refs) == 1 && !n->dirty && !n->used) {
				node_unhash(c, n);
				victim = n;
				break;
			}
			n->used = false;
			vd_list_del(&n->lru);
			vd_list_add_tail(&s->ring, &n->lru);
		}
		vd_spin_unlock(&s->lock);
		vd_node_put(pool, victim);
	}
}

int vd_cache_init(struct vd_pool *pool, uint64_t max_bytes)
{
	struct vd_cache *c = vd_zalloc(pool, sizeof(*c));
	uint64_t n = VD_STRIPES, i;

	if (!c)
		return -ENOMEM;
	c->pool = pool;
	c->max_nodes = vd_max(max_bytes >> VD_BLOCK_SHIFT, VD_STRIPES);
	while (n < c->max_nodes && n < (1u << 20))
		n <<= 1;
	c->mask = n - 1;
	c->bucket = vd_alloc(pool, n * sizeof(*c->bucket));
	if (!c->bucket)
		goto err_cache;
	c->run = vd_alloc(pool, VD_RUN_BLOCKS * VD_BLOCK);
	if (!c->run)
		goto err_bucket;
	for (i = 0; i < n; i++)
		vd_list_init(&c->bucket[i]);
	for (i = 0; i < VD_STRIPES; i++) {
		vd_spin_init(&c->stripe[i].lock);
		vd_list_init(&c->stripe[i].ring);
	}
	vd_list_init(&c->changed);
	vd_mutex_init(&c->heal);
	pool->cache = c;
	return 0;

err_bucket:
	vd_free(pool, c->bucket);
err_cache:
	vd_free(pool, c);
	return -ENOMEM;
}

/* Unhashes every node of generation >= gen, or only those that are clean and nobody
 * holds; answers how many were still held. */
static uint64_t drop_from(struct vd_pool *pool, uint64_t gen, bool idle)
{
	struct vd_cache *c = pool->cache;
	uint64_t held = 0;
	unsigned i;

	for (i = 0; i < VD_STRIPES; i++) {
		struct vd_stripe *s = &c->stripe[i];
		struct vd_list gone, *pos, *tmp;

		vd_list_init(&gone);
		vd_spin_lock(&s->lock);
		s->forgets += !idle; /* those dropped as idle are good, and may come back */
		vd_list_for_each_safe(pos, tmp, &s->ring) {
			struct vd_node *n = vd_container(pos, struct vd_node, lru);

			if (n->ptr.gen < gen || (idle && (n->dirty || vd_atomic_read(&n->refs) > 1)))
				continue;
			node_unhash(c, n);
			node_settle(c, n);
			vd_list_add_tail(&gone, &n->lru);
		}
		vd_spin_unlock(&s->lock);
		vd_list_for_each_safe(pos, tmp, &gone) {
			struct vd_node *n = vd_container(pos, struct vd_node, lru);

			vd_list_del(&n->lru);
			held += vd_atomic_read(&n->refs) > 1;
			vd_node_put(pool, n);
		}
	}
	return held;
}

void vd_cache_abort(struct vd_pool *pool)
{
	drop_from(pool, pool->ckpt_gen, false);
}

void vd_cache_fini(struct vd_pool *pool)
{
	struct vd_cache *c = pool->cache;
	uint64_t held;
	unsigned i;

	if (!c)
		return;
	held = drop_from(pool, 0, false);
	if (held)
		vd_log(pool, VD_LOG_ERROR, "metadata cache: %a nodes were still held at its end", held, 0);
	for (i = 0; i < VD_STRIPES; i++)
		vd_spin_fini(&c->stripe[i].lock);
	vd_mutex_fini(&c->heal);
	vd_free(pool, c->run);
	vd_free(pool, c->bucket);
	vd_free(pool, c);
	pool->cache = NULL;
}

uint64_t vd_cache_written(const struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->cache->written);
}

/* ---- reading ---------------------------------------------------------- */

static uint32_t node_crc(const void *data)
{
	static const uint8_t zero[4];
	const uint8_t *d = data;
	const size_t at = offsetof(struct vd_disk_node, crc);
	uint32_t crc = vd_port_crc32c(~0u, d, at);

	crc = vd_port_crc32c(crc, zero, sizeof(zero));
	return vd_port_crc32c(crc, d + at + 4, VD_BLOCK - at - 4);
}

/* Reads one copy into `data` and checks that it is the node ptr means. */
static int read_at(struct vd_pool *pool, const struct vd_ptr *ptr, vd_pblk_t at, void *data)
{
	const struct vd_disk_node *h = data;
	int r;

	if (!vd_pblk_valid(pool, at, 1))
		return -EUCLEAN;
	if (pool->member[VD_PBLK_MEMBER(at)].missing)
		return -ENODEV;
	r = pool->host.read(pool->host.ctx, VD_PBLK_MEMBER(at), VD_PBLK_BLOCK(at), data, 1);
	if (r)
		return r;
	if (le32_to_cpu(h->magic) != VD_NODE_MAGIC || le32_to_cpu(h->crc) != node_crc(data))
		return -EBADMSG;
	return le64_to_cpu(h->pool) != pool->id || le64_to_cpu(h->a) != ptr->a || le64_to_cpu(h->b) != ptr->b ||
	       le64_to_cpu(h->gen) != ptr->gen ? -EUCLEAN : 0;
}

static int read_copy(struct vd_pool *pool, struct vd_node *n, vd_pblk_t at)
{
	const struct vd_disk_node *h = n->data;
	int r = read_at(pool, &n->ptr, at, n->data);

	if (!r && (h->kind != n->kind || h->level != n->level))
		r = -EUCLEAN;
	return r ? r : vd_node_verify(n);
}

bool vd_node_is_there(struct vd_pool *pool, const struct vd_ptr *ptr)
{
	void *data = vd_alloc(pool, VD_BLOCK);
	bool there = data && (!read_at(pool, ptr, ptr->a, data) || !read_at(pool, ptr, ptr->b, data));

	vd_free(pool, data);
	return there;
}

/* The copy at `bad` is overwritten with n's contents, if n is still what it was (5). */
static void heal_copy(struct vd_pool *pool, struct vd_node *n, vd_pblk_t bad, uint64_t forgets)
{
	struct vd_cache *c = pool->cache;
	struct vd_stripe *s = stripe_of(c, n->ptr.a);
	bool alive;
	int r;

	if (!vd_pool_writable(pool) || !vd_pblk_valid(pool, bad, 1))
		return;
	vd_atomic_add(&c->healing, 1);
	vd_mutex_lock(&c->heal);
	vd_spin_lock(&s->lock);
	alive = s->forgets == forgets;
	vd_spin_unlock(&s->lock);
	if (alive) {
		r = pool->host.write(pool->host.ctx, VD_PBLK_MEMBER(bad), VD_PBLK_BLOCK(bad), n->data, 1);
		if (r) {
			vd_log(pool, VD_LOG_WARN, "metadata block %a: repair failed, its good copy is %b", bad,
			       bad == n->ptr.a ? n->ptr.b : n->ptr.a);
		} else {
			vd_atomic_add(&c->written, 1);
			vd_log(pool, VD_LOG_WARN, "metadata block %a: repaired from its copy %b", bad,
			       bad == n->ptr.a ? n->ptr.b : n->ptr.a);
		}
	}
	vd_mutex_unlock(&c->heal);
	vd_atomic_add(&c->healing, -1);
}

/* Which of two failures to tell: one that may pass, before one that will not. */
static int worse(int x, int y)
{
	if (x == -EBADMSG || (x == -EUCLEAN && y != -EBADMSG))
		return y;
	return x;
}

/* *bad: a copy to repair, or VD_PBLK_NONE. */
static int read_node(struct vd_pool *pool, struct vd_node *n, vd_pblk_t *bad)
{
	int ra, rb;

	*bad = VD_PBLK_NONE;
	ra = read_copy(pool, n, n->ptr.a);
	if (!ra)
		return 0;
	if (n->ptr.b == VD_PBLK_NONE) {
		vd_log(pool, VD_LOG_ERROR, "metadata block %a: unreadable, and it has no copy (error %b)",
		       n->ptr.a, (uint64_t)-ra);
		return ra;
	}
	if (ra != -ENODEV) /* a missing member was reported when the pool was opened */
		vd_log(pool, VD_LOG_WARN, "metadata block %a: bad, trying its copy %b", n->ptr.a, n->ptr.b);
	rb = read_copy(pool, n, n->ptr.b);
	if (!rb) {
		*bad = n->ptr.a;
		return 0;
	}
	vd_log(pool, VD_LOG_ERROR, "metadata block %a: unreadable, and so is its copy %b", n->ptr.a, n->ptr.b);
	return worse(ra, rb);
}

/* A hit: 0 and *out.  -ENODATA: read it; -EUCLEAN: ptr cannot be right. */
static int cache_find(struct vd_cache *c, const struct vd_ptr *ptr, enum vd_node_kind kind, unsigned level,
		      uint64_t *forgets, struct vd_node **out)
{
	struct vd_stripe *s = stripe_of(c, ptr->a);
	struct vd_node *n, *stale = NULL;
	int r = -ENODATA;

	vd_spin_lock(&s->lock);
	n = lookup(c, ptr->a);
	*forgets = s->forgets;
	if (n && n->ptr.gen == ptr->gen) {
		if (n->ptr.b != ptr->b || n->kind != kind || n->level != level) {
			r = -EUCLEAN;
		} else {
			vd_atomic_add(&n->refs, 1);
			n->used = true;
			*out = n;
			r = 0;
		}
	} else if (n) {
		/* Of another generation.  Ours is newer: the address was used again
		 * and nobody can hold the old one.  Else the pointer is wrong. */
		if (n->ptr.gen > ptr->gen || vd_atomic_read(&n->refs) > 1 || n->dirty) {
			r = -EUCLEAN;
		} else {
			node_unhash(c, n);
			stale = n;
		}
	}
	vd_spin_unlock(&s->lock);
	vd_node_put(c->pool, stale);
	return r;
}

static int node_get(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind kind, unsigned level,
		    unsigned flags, struct vd_node **out)
{
	struct vd_cache *c = pool->cache;
	struct vd_node *n, *other = NULL;
	struct vd_stripe *s;
	uint64_t forgets;
	vd_pblk_t bad;
	int r;

	if (!ptr->gen)
		return -EUCLEAN;
	r = cache_find(c, ptr, kind, level, &forgets, out);
	if (r != -ENODATA)
		return r;
	if (!vd_pblk_valid(pool, ptr->a, 1) || (ptr->b != VD_PBLK_NONE && !vd_pblk_valid(pool, ptr->b, 1)))
		return -EUCLEAN; /* whoever has the node may write to its copies */
	if (flags & VD_NODE_NOWAIT)
		return -EWOULDBLOCK;
	n = node_alloc(pool);
	if (!n)
		return -ENOMEM;
	n->ptr = *ptr;
	n->kind = (uint8_t)kind;
	n->level = (uint8_t)level;
	r = read_node(pool, n, &bad);
	if (r) {
		node_free(pool, n);
		return r;
	}

	s = stripe_of(c, ptr->a);
	vd_spin_lock(&s->lock);
	other = lookup(c, ptr->a);
	if (other && other->ptr.gen == ptr->gen && other->kind == kind && other->level == level &&
	    other->ptr.b == ptr->b) {
		vd_atomic_add(&other->refs, 1);
	} else {
		if (!other && s->forgets == forgets)
			node_hash(c, s, n);
		other = NULL; /* (2): when not hashed, the caller alone has it */
	}
	vd_spin_unlock(&s->lock);
	if (other) {
		node_free(pool, n);
		n = other;
	} else if (bad != VD_PBLK_NONE) {
		heal_copy(pool, n, bad, forgets);
	}
	shrink(pool);
	*out = n;
	return 0;
}

int vd_node_get(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind kind, unsigned level,
		unsigned flags, struct vd_node **out)
{
	int r = node_get(pool, ptr, kind, level, flags, out);

	if (vd_unlikely(r == -EIO)) {
		/* It may pass, so while the pool is whole nothing is given up for it; but what
		 * a damaged pool, or one that is only looked at, cannot read is as good as lost. */
		if (vd_atomic_swap_if(&pool->unreadable, 0, 2)) {
			pool->suspect = *ptr;
			vd_atomic_set(&pool->unreadable, 1);
		}
		if (pool->flags & VD_OPEN_READONLY || pool->known_damage)
			r = -EBADMSG;
	}
	if (vd_unlikely(vd_is_damage(r)))
		vd_pool_damage(pool);
	return r;
}

void vd_node_forget(struct vd_pool *pool, const struct vd_ptr *ptr)
{
	struct vd_cache *c = pool->cache;
	struct vd_stripe *s = stripe_of(c, ptr->a);
	struct vd_node *n;

	vd_spin_lock(&s->lock);
	s->forgets++;
	n = lookup(c, ptr->a);
	if (n) {
		node_unhash(c, n);
		node_settle(c, n);
	}
	vd_spin_unlock(&s->lock);
	vd_node_put(pool, n);
	if (vd_atomic_read(&c->healing)) { /* (5) */
		vd_mutex_lock(&c->heal);
		vd_mutex_unlock(&c->heal);
	}
}

/* ---- writing: ckpt_lock ----------------------------------------------- */

static vd_pblk_t copy_at(const struct vd_node *n, unsigned copy)
{
	return copy ? n->ptr.b : n->ptr.a;
}

/* Joins two ascending chains (linked by changed.next, ended by NULL). */
static struct vd_list *merge_chains(struct vd_list *x, struct vd_list *y, unsigned copy)
{
	struct vd_list *first = NULL, **at = &first;

	while (x && y) {
		struct vd_list **least;

		least = copy_at(vd_container(x, struct vd_node, changed), copy) <=
			copy_at(vd_container(y, struct vd_node, changed), copy) ? &x : &y;
		*at = *least;
		at = &(*least)->next;
		*least = (*least)->next;
	}
	*at = x ? x : y;
	return first;
}

/* Bottom-up merge sort: chain[i] holds 2^i nodes.  Needs no memory (I7). */
static void sort_changed(struct vd_list *head, unsigned copy)
{
	struct vd_list *chain[40] = { NULL };
	struct vd_list *pos = head->next, *next, *all = NULL;
	unsigned i;

	while (pos != head) {
		next = pos->next;
		pos->next = NULL;
		for (i = 0; i < 39 && chain[i]; i++) {
			pos = merge_chains(chain[i], pos, copy);
			chain[i] = NULL;
		}
		chain[i] = chain[i] ? merge_chains(chain[i], pos, copy) : pos;
		pos = next;
	}
	for (i = 0; i < 40; i++)
		all = merge_chains(chain[i], all, copy);
	vd_list_init(head);
	for (pos = all; pos; pos = next) {
		next = pos->next;
		vd_list_add_tail(head, pos);
	}
}

/* Writes one copy of all nodes on the sorted list. */
static int write_copies(struct vd_pool *pool, struct vd_list *head, unsigned copy)
{
	struct vd_cache *c = pool->cache;
	struct vd_list *pos = head->next, *end;
	int r;

	while (pos != head) {
		vd_pblk_t at = copy_at(vd_container(pos, struct vd_node, changed), copy);
		void *from = vd_container(pos, struct vd_node, changed)->data;
		unsigned n = 1, i;

		if (at == VD_PBLK_NONE) /* sorted last: the rest has one copy only */
			return 0;
		for (end = pos->next; end != head && n < VD_RUN_BLOCKS; end = end->next, n++)
			if (copy_at(vd_container(end, struct vd_node, changed), copy) != at + n)
				break;
		if (n > 1) {
			for (i = 0; i < n; i++, pos = pos->next)
				memcpy((uint8_t *)c->run + i * VD_BLOCK,
				       vd_container(pos, struct vd_node, changed)->data, VD_BLOCK);
			from = c->run;
		}
		r = pool->host.write(pool->host.ctx, VD_PBLK_MEMBER(at), VD_PBLK_BLOCK(at), from, n);
		if (r)
			return r;
		vd_atomic_add(&c->written, n);
		pos = end;
	}
	return 0;
}

/* Writes and settles the changed nodes; `early`: those that nobody holds (4). */
static int write_changed(struct vd_pool *pool, bool early)
{
	struct vd_cache *c = pool->cache;
	struct vd_list batch, *pos, *tmp;
	int r;

	vd_list_init(&batch);
	vd_list_for_each_safe(pos, tmp, &c->changed) {
		struct vd_node *n = vd_container(pos, struct vd_node, changed);

		if (early && vd_atomic_read(&n->refs) > 1)
			continue;
		vd_node_head(n)->crc = cpu_to_le32(node_crc(n->data));
		vd_list_del(pos);
		vd_list_add_tail(&batch, pos);
	}
	sort_changed(&batch, 0);
	r = write_copies(pool, &batch, 0);
	if (!r) {
		sort_changed(&batch, 1);
		r = write_copies(pool, &batch, 1);
	}
	vd_list_for_each_safe(pos, tmp, &batch) {
		struct vd_node *n = vd_container(pos, struct vd_node, changed);
		struct vd_stripe *s = stripe_of(c, n->ptr.a);

		vd_list_del(pos);
		if (r) {
			vd_list_add_tail(&c->changed, pos);
			continue;
		}
		c->nchanged--;
		vd_spin_lock(&s->lock);
		n->dirty = false; /* from here on it may be evicted */
		vd_spin_unlock(&s->lock);
	}
	return r;
}

int vd_cache_write(struct vd_pool *pool)
{
	int r = write_changed(pool, false);

	if (!r)
		shrink(pool);
	return r;
}

int vd_node_new(struct vd_pool *pool, enum vd_node_kind kind, unsigned level, uint32_t owner, struct vd_node **out)
{
	struct vd_cache *c = pool->cache;
	struct vd_node *n, *stale;
	struct vd_disk_node *h;
	struct vd_stripe *s;
	bool scarce;
	int r;

	scarce = vd_memory_low(pool, VD_BLOCK);
	if (scarce || c->nchanged > c->max_nodes / 2) {
		r = write_changed(pool, true);
		if (r)
			return r;
	}
	if (scarce)
		drop_from(pool, 0, true); /* what the host gave comes back to it, the rest to the next node (I7) */
	n = node_alloc(pool);
	if (!n)
		return -ENOMEM;
	r = vd_space_alloc_node(pool, &n->ptr.a, &n->ptr.b);
	if (r) {
		node_free(pool, n);
		return r;
	}
	n->ptr.gen = pool->ckpt_gen;
	n->kind = (uint8_t)kind;
	n->level = (uint8_t)level;
	n->used = true;
	memset(n->data, 0, VD_BLOCK);
	h = n->data;
	h->magic = cpu_to_le32(VD_NODE_MAGIC);
	h->pool = cpu_to_le64(pool->id);
	h->a = cpu_to_le64(n->ptr.a);
	h->b = cpu_to_le64(n->ptr.b);
	h->gen = cpu_to_le64(n->ptr.gen);
	h->kind = (uint8_t)kind;
	h->level = (uint8_t)level;
	h->owner = cpu_to_le32(owner);

	s = stripe_of(c, n->ptr.a);
	vd_spin_lock(&s->lock);
	s->forgets++;
	stale = lookup(c, n->ptr.a);
	if (stale) {
		node_unhash(c, stale);
		node_settle(c, stale);
	}
	node_hash(c, s, n);
	vd_spin_unlock(&s->lock);
	vd_node_put(pool, stale);
	vd_node_dirty(n);
	shrink(pool);
	*out = n;
	return 0;
}
