/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * What the tests of space*.c stand on: a space tree that is one sorted array a
 * version, and nodes that stay in memory; a pool of any size; ways to look at it.
 */
#ifndef SPACE_FAKE_H
#define SPACE_FAKE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* cmocka wants some of the above first */
#include <cmocka.h>

#include "space_priv.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* no test uses all of it */
#pragma GCC diagnostic ignored "-Wunused-variable"

#define OK(x) assert_int_equal((x), 0)
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

/* ---- a host ---------------------------------------------------------------- */

static _Atomic long live;          /* allocations not freed */
static long fail_at = -1;   /* the nth allocation from now on that fails */
static bool fail_on;        /* and all after it */
static unsigned discarded;  /* blocks */
static unsigned discards;
static unsigned warnings;

static void *host_alloc(void *ctx, size_t size, int how)
{
	(void)ctx, (void)how;
	if (fail_at == 0) {
		if (!fail_on)
			fail_at = -1;
		return NULL;
	}
	if (fail_at > 0)
		fail_at--;
	live++;
	return malloc(size);
}

static void host_free(void *ctx, void *p)
{
	(void)ctx;
	live--;
	free(p);
}

static int host_discard(void *ctx, unsigned m, uint64_t block, uint64_t n)
{
	(void)ctx, (void)m, (void)block;
	discards++;
	discarded += n;
	return 0;
}

static void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	(void)ctx, (void)level, (void)msg, (void)a, (void)b;
	warnings++;
}

/* The fakes below are one at a time; node_new allocates, and that looks into the tree. */
static pthread_mutex_t fake_lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static void fake_enter(void) { pthread_mutex_lock(&fake_lock); }
static int fake_leave(int r)
{
	pthread_mutex_unlock(&fake_lock);
	return r;
}

/* ---- nodes in memory ------------------------------------------------------- */

#define NODES 20011u
struct fake_node { struct vd_node n; uint64_t data[VD_BLOCK / 8]; bool live; };
static struct fake_node *nodes[NODES]; /* by address, open addressing */
static unsigned fetched, fetch_error_at; /* reads; the nth read to fail */

static struct fake_node **node_slot(vd_pblk_t a)
{
	unsigned i = (unsigned)((a * 0x9e3779b97f4a7c15ull) >> 32) % NODES;

	while (nodes[i] && nodes[i]->n.ptr.a != a)
		i = (i + 1) % NODES;
	return &nodes[i];
}

void *vd_alloc_must(struct vd_pool *pool, size_t size) { return vd_alloc(pool, size); }

int vd_node_get(struct vd_pool *pool, const struct vd_ptr *ptr, enum vd_node_kind kind, unsigned level, unsigned flags, struct vd_node **out)
{
	struct fake_node *f;

	(void)pool, (void)flags;
	fake_enter();
	fetched++;
	if (fetch_error_at && !--fetch_error_at)
		return fake_leave(-EIO);
	f = *node_slot(ptr->a);
	if (!f || f->n.ptr.gen != ptr->gen || f->n.ptr.b != ptr->b || f->n.kind != kind || f->n.level != level)
		return fake_leave(-EUCLEAN);
	vd_atomic_add(&f->n.refs, 1);
	*out = &f->n;
	return fake_leave(0);
}

void vd_node_put(struct vd_pool *pool, struct vd_node *n)
{
	(void)pool;
	assert_true(vd_atomic_add(&n->refs, -1) >= 0);
}

int vd_node_new(struct vd_pool *pool, enum vd_node_kind kind, unsigned level, uint32_t owner, struct vd_node **out)
{
	struct fake_node *f, **slot;
	vd_pblk_t a, b;
	int r = vd_space_alloc_node(pool, &a, &b);

	(void)owner;
	if (r)
		return r;
	fake_enter();
	slot = node_slot(a);
	if (!*slot)
		*slot = calloc(1, sizeof(*f));
	f = *slot;
	assert_false(f->live); /* an address is given once */
	memset(f, 0, sizeof(*f));
	f->n.ptr = (struct vd_ptr){ a, b, pool->ckpt_gen };
	f->n.kind = kind;
	f->n.level = level;
	f->n.data = f->data;
	f->live = true;
	vd_atomic_set(&f->n.refs, 1);
	*out = &f->n;
	return fake_leave(0);
}

void vd_node_dirty(struct vd_node *n)
{
	(void)n;
}

void vd_node_forget(struct vd_pool *pool, const struct vd_ptr *ptr)
{
	struct fake_node *f;

	(void)pool;
	fake_enter();
	f = *node_slot(ptr->a);
	assert_non_null(f);
	assert_true(f->live);
	f->live = false;
	fake_leave(0);
}

/* ---- a tree: each version is one node that stands for a sorted array -------- */

struct fake_tree { struct vd_slot *slot; unsigned n; };
#define TREES 4096u
static struct fake_tree trees[TREES];
static unsigned ntrees;

/* Also of a root that is not live any more, as long as its block is not used again (S2). */
static struct fake_tree *tree_of(const struct vd_root *root)
{
	struct fake_tree *t;
	struct fake_node *f;

	fake_enter();
	f = *node_slot(root->ptr.a);
	assert_non_null(f);
	assert_int_equal(f->n.ptr.gen, root->ptr.gen);
	t = &trees[f->data[0]];
	fake_leave(0);
	return t;
}

int vd_ptree_next(struct vd_pool *pool, const struct vd_root *root, uint64_t key, bool with_aux, unsigned flags, struct vd_slot *out)
{
	struct fake_tree *t;
	unsigned lo = 0, hi;

	(void)pool, (void)flags;
	if (!root->ptr.gen)
		return -ENODATA;
	fake_enter();
	fetched++;
	if (fetch_error_at && !--fetch_error_at)
		return fake_leave(-EIO);
	t = tree_of(root);
	hi = t->n;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (t->slot[mid].key < key)
			lo = mid + 1;
		else
			hi = mid;
	}
	while (with_aux && lo < t->n && !t->slot[lo].aux)
		lo++;
	if (lo < t->n)
		*out = t->slot[lo];
	return fake_leave(lo < t->n ? 0 : -ENODATA);
}

/* The root's node belongs to the running checkpoint. */
static int tree_own(struct vd_pool *pool, struct vd_root *root)
{
	struct vd_root old = *root;
	struct vd_node *n;
	struct fake_tree *t;
	uint32_t left;
	int r;

	if (root->ptr.gen == pool->ckpt_gen)
		return 0;
	r = vd_node_new(pool, VD_NODE_INDEX, 1, 0, &n);
	if (r)
		return r;
	fake_enter();
	assert_true(ntrees < TREES);
	((uint64_t *)n->data)[0] = ntrees;
	t = &trees[ntrees++];
	if (old.ptr.gen) {
		struct fake_tree *o = tree_of(&old);

		t->n = o->n;
		t->slot = malloc(sizeof(*t->slot) * (o->n + 1));
		memcpy(t->slot, o->slot, sizeof(*t->slot) * o->n);
	}
	root->ptr = n->ptr;
	root->height = 1;
	fake_leave(0);
	vd_node_put(pool, n);
	return old.ptr.gen ? vd_space_drop_node(pool, &old.ptr, &left) : 0;
}

int vd_ptree_set(struct vd_pool *pool, struct vd_root *root, enum vd_node_kind kind, const struct vd_slot *slot)
{
	struct fake_tree *t;
	unsigned i;
	int r = tree_own(pool, root);

	(void)kind;
	if (r)
		return r;
	fake_enter();
	t = tree_of(root);
	for (i = 0; i < t->n && t->slot[i].key < slot->key; i++)
		;
	if (i == t->n || t->slot[i].key != slot->key) {
		t->slot = realloc(t->slot, sizeof(*slot) * (t->n + 1));
		memmove(t->slot + i + 1, t->slot + i, sizeof(*slot) * (t->n - i));
		t->n++;
	}
	t->slot[i] = *slot;
	return fake_leave(0);
}

int vd_ptree_del(struct vd_pool *pool, struct vd_root *root, uint64_t key)
{
	struct fake_tree *t;
	struct vd_slot at;
	unsigned i = 0;
	uint32_t left;
	int r = vd_ptree_next(pool, root, key, false, 0, &at);

	if (r)
		return r;
	if (at.key != key)
		return -ENODATA;
	r = tree_own(pool, root);
	if (r)
		return r;
	fake_enter();
	t = tree_of(root);
	while (t->slot[i].key != key)
		i++;
	memmove(t->slot + i, t->slot + i + 1, sizeof(at) * (--t->n - i));
	if (fake_leave((int)t->n))
		return 0;
	r = vd_space_drop_node(pool, &root->ptr, &left);
	memset(root, 0, sizeof(*root));
	return r;
}

static _Atomic uint64_t durable_seq;
uint64_t vd_journal_durable(const struct vd_pool *pool)
{
	(void)pool;
	return durable_seq;
}

/* ---- a pool ------------------------------------------------------------------ */

static struct vd_pool *P;
static struct vd_disk_super super;
static uint64_t start_state; /* of live, when the test began */

static void forget_all(void)
{
	for (unsigned i = 0; i < NODES; i++) {
		if (nodes[i])
			assert_int_equal(vd_atomic_read(&nodes[i]->n.refs), nodes[i]->n.refs.v);
		free(nodes[i]);
		nodes[i] = NULL;
	}
	for (unsigned i = 0; i < ntrees; i++)
		free(trees[i].slot);
	memset(trees, 0, sizeof(trees));
	ntrees = 0;
}

static void pool_members(unsigned n, const uint64_t *blocks)
{
	forget_all();
	P = calloc(1, sizeof(*P));
	memset(&super, 0, sizeof(super));
	P->host = (struct vd_host){ .alloc = host_alloc, .free = host_free, .discard = host_discard, .log = host_log };
	P->super = &super;
	P->nmembers = n;
	for (unsigned i = 0; i < n; i++)
		P->member[i].blocks = blocks[i];
	super.journal_member[0] = 0;
	super.journal_member[1] = cpu_to_le32(n > 1 ? 1 : ~0u);
	super.journal_start = cpu_to_le64(16);
	super.journal_blocks = cpu_to_le64(64);
	P->ckpt_gen = 1;
	vd_mutex_init(&P->ckpt_lock);
	durable_seq = 0;
	discarded = discards = warnings = fetch_error_at = 0;
	fail_at = -1;
	OK(vd_space_init(P));
	for (unsigned i = 0; i < n; i++)
		OK(vd_space_format(P, i));
}

static void pool_one(uint64_t blocks) { pool_members(1, &blocks); }

static int try_checkpoint(void)
{
	int r = vd_space_fold(P);

	if (r)
		return r;
	super.used_blocks = cpu_to_le64(vd_space_used(P));
	vd_space_checkpointed(P);
	P->ckpt_gen++;
	return 0;
}

static void checkpoint(void) { OK(try_checkpoint()); }

static void drain(void)
{
	vd_space_seal(P);
	vd_space_drained(P);
}

/* As if the pool were closed after its last checkpoint and opened again. */
static void reopen(void)
{
	P->space_root = P->space->root;
	vd_space_fini(P);
	OK(vd_space_init(P));
}

static void pool_end(void)
{
	vd_space_fini(P);
	forget_all();
	free(P);
	P = NULL;
	fail_at = -1;
}

static int setup(void **state)
{
	(void)state;
	start_state = (uint64_t)live;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	if (P)
		pool_end();
	return (uint64_t)live == start_state ? 0 : -1;
}

static uint32_t count(vd_pblk_t p)
{
	uint32_t n;

	OK(vd_space_count(P, p, &n));
	return n;
}

/* Reserves as a caller does who may sleep. */
static int reserve(vd_pblk_t goal, unsigned want, vd_pblk_t *p, unsigned *got)
{
	for (unsigned i = 0; i < 1000; i++) {
		int r = vd_space_reserve(P, goal, want, p, got);

		if (r != -EWOULDBLOCK)
			return r;
		r = vd_space_refill(P);
		if (r)
			return r;
	}
	fail_msg("reserve and refill do not agree");
	return 0;
}

/* A block that data may have, as of a fresh pool. */
static vd_pblk_t take(unsigned want)
{
	vd_pblk_t p;
	unsigned got;

	OK(reserve(VD_PBLK_NONE, want, &p, &got));
	assert_int_equal(got, want);
	return p;
}

static bool is_busy(vd_pblk_t p)
{
	struct space_group *g;

	OK(space_load(P, space_nr(p), true, &g));
	return space_bit(g->busy, space_in(p));
}

static const struct vd_slot *slot_of(uint64_t key)
{
	struct fake_tree *t;

	if (!P->space_root.ptr.gen)
		return NULL;
	t = tree_of(&P->space_root);
	for (unsigned i = 0; i < t->n; i++)
		if (t->slot[i].key == key)
			return &t->slot[i];
	return NULL;
}

/* Recounts what the totals say (S5), and that busy says what it must (S4). */
static void verify_totals(void)
{
	struct vd_space *s = P->space;
	uint64_t used = 0, busy_free = 0, windows = 0, total = 0, loaded = 0;

	for (unsigned m = 0; m < P->nmembers; m++) {
		uint64_t groups = s->member[m]->groups;

		total += P->member[m].blocks;
		for (uint64_t k = 0; k < groups; k++) {
			struct space_group *g;
			unsigned nfree = 0;

			OK(space_load(P, space_member_nr(m) + k, true, &g));
			used += g->used;
			for (unsigned i = 0; i < VD_GROUP_BLOCKS; i++) {
				bool b = space_bit(g->busy, i);

				nfree += !b;
				if (i >= g->exist || space_count_at(g, i))
					assert_true(b);
			}
			assert_int_equal(nfree, g->free);
			assert_true(g->longest <= g->free);
			busy_free += nfree;
		}
	}
	for (unsigned m = 0; m < P->nmembers; m++) {
		uint64_t member_free = 0;

		for (struct space_group **h = s->hash; h < s->hash + SPACE_HASH; h++)
			for (struct space_group *g = *h; g; g = g->next)
				if (g->m->index == m)
					member_free += g->free;
		member_free += s->member[m]->window_left;
		assert_int_equal(member_free, s->member[m]->free);
		windows += s->member[m]->window_left;
		loaded += member_free;
	}
	assert_int_equal(loaded, s->loaded);
	assert_int_equal(used, vd_space_used(P));
	assert_int_equal(busy_free + windows, vd_space_free(P));
	assert_int_equal(total, s->total);
}

/* ---- chance ------------------------------------------------------------------ */

static uint64_t seed;
static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % n);
}

#endif
