/* link: dm-target/core/space.c dm-target/core/space_alloc.c dm-target/core/space_fold.c dm-target/core/space_stage.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * space*.c over a space tree that is one sorted array a version and nodes that
 * stay in memory.  S, A and B are the invariants at the files' heads.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "space_priv.h"

#define OK(x) assert_int_equal((x), 0)

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

/* ---- counts and pages --------------------------------------------------------- */

static void formatting_counts_labels_and_journal(void **state)
{
	uint64_t blocks[2] = { 10000, 5000 };

	(void)state;
	pool_members(2, blocks);
	assert_int_equal(vd_space_used(P), 2 * (16 + 64));
	assert_int_equal(vd_space_free(P), 15000 - 160);
	assert_int_equal(count(0), 1);
	assert_int_equal(count(79), 1);
	assert_int_equal(count(80), 0);
	assert_int_equal(count(VD_PBLK(1, 79)), 1);
	checkpoint();
	reopen();
	assert_int_equal(count(VD_PBLK(1, 79)), 1);
	verify_totals();
}

static void a_full_group_is_one_entry(void **state)
{
	const struct vd_slot *slot;

	(void)state;
	pool_one(3 * 8192);
	OK(vd_space_inc(P, 8192, 8192));
	OK(vd_space_inc(P, 8192, 8192));
	checkpoint();
	slot = slot_of(8);
	assert_non_null(slot);
	assert_int_equal(slot->ptr.gen, 0);
	assert_int_equal(slot->ptr.a, 2);
	assert_int_equal(slot->aux, 0);
	reopen();
	assert_int_equal(count(8192), 2);
	assert_int_equal(count(16383), 2);
	verify_totals();
}

static void a_full_last_group_is_one_entry(void **state)
{
	const struct vd_slot *slot;
	uint32_t n;
	uint64_t run;

	(void)state;
	pool_one(8192 + 100);
	OK(vd_space_inc(P, 8192, 100));
	checkpoint();
	slot = slot_of(8);
	assert_non_null(slot);
	assert_int_equal(slot->ptr.gen, 0);
	assert_int_equal(slot->ptr.a, 1);
	reopen();
	OK(vd_space_run(P, 8192, ~0ull, &n, &run));
	assert_int_equal(n, 1);
	assert_int_equal(run, 100);
	OK(vd_space_dec(P, 8192, 100));
	checkpoint();
	assert_null(slot_of(8));
	verify_totals();
}

static void an_emptied_group_leaves_the_tree(void **state)
{
	(void)state;
	pool_one(3 * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_inc(P, 9000, 10));
	checkpoint();
	assert_non_null(slot_of(8));
	assert_int_equal(slot_of(8)->aux, 8192 - 10);
	OK(vd_space_dec(P, 9000, 10));
	checkpoint();
	assert_null(slot_of(8));
	reopen();
	assert_int_equal(count(9000), 0);
	verify_totals();
}

static void widths_grow_and_shrink(void **state)
{
	static const struct { uint32_t count; unsigned width, parts; } step[] = {
		{ 1, 1, 1 }, { 2, 2, 1 }, { 3, 2, 1 }, { 4, 3, 1 }, { 7, 3, 1 }, { 8, 7, 2 }, { 127, 7, 2 }, { 128, 15, 4 },
		{ 300, 15, 4 }, { 32767, 15, 4 }, { 32768, 31, 8 }, { 40000, 31, 8 },
		{ 32767, 15, 4 }, { 100, 7, 2 }, { 7, 3, 1 }, { 2, 2, 1 }, { 1, 1, 1 },
	};
	uint32_t now = 0;

	(void)state;
	pool_one(4 * 8192);
	for (unsigned i = 0; i < sizeof(step) / sizeof(*step); i++) {
		unsigned pages = 0;

		for (; now < step[i].count; now++)
			OK(vd_space_inc(P, 2 * 8192 + 5000, 2));
		for (; now > step[i].count; now--)
			OK(vd_space_dec(P, 2 * 8192 + 5000, 2));
		checkpoint();
		drain();
		for (unsigned k = 0; k < 8; k++)
			if (slot_of(16 + k)) {
				struct vd_disk_space *d = (*node_slot(slot_of(16 + k)->ptr.a))->n.data;

				assert_int_equal(le32_to_cpu(d->width), step[i].width);
				assert_int_equal(le32_to_cpu(d->nblocks), 8192 / step[i].parts);
				assert_int_equal(k % (8 / step[i].parts), 0);
				pages++;
			}
		assert_int_equal(pages, step[i].parts);
		reopen();
		assert_int_equal(count(2 * 8192 + 4999), 0);
		assert_int_equal(count(2 * 8192 + 5000), step[i].count);
		assert_int_equal(count(2 * 8192 + 5001), step[i].count);
		assert_int_equal(count(2 * 8192 + 5002), 0);
		verify_totals();
	}
}

static void folding_again_in_one_checkpoint_says_the_last_counts(void **state)
{
	static const unsigned step[] = { 1, 3, 9, 8192, 200, 40000, 1, 0, 2 };
	unsigned now = 0;

	(void)state;
	pool_one(4 * 8192);
	checkpoint();
	for (unsigned i = 0; i < sizeof(step) / sizeof(*step); i++) {
		uint64_t len = step[i] == 8192 ? 8192 : 10;

		if (len == 8192) {
			OK(vd_space_inc(P, 2 * 8192, len)); /* was it all equal, it would be one entry */
			OK(vd_space_dec(P, 2 * 8192, len));
			continue;
		}
		for (; now < step[i]; now++)
			OK(vd_space_inc(P, 2 * 8192, len));
		for (; now > step[i]; now--)
			OK(vd_space_dec(P, 2 * 8192, len));
		OK(vd_space_fold(P));
	}
	OK(vd_space_inc(P, 3 * 8192, 8192));
	OK(vd_space_fold(P));
	OK(vd_space_inc(P, 3 * 8192, 8192));
	OK(vd_space_fold(P));
	checkpoint();
	reopen();
	assert_int_equal(count(2 * 8192 + 9), 2);
	assert_int_equal(count(2 * 8192 + 10), 0);
	assert_int_equal(count(4 * 8192 - 1), 2);
	verify_totals();
}

static void ranges_cross_groups(void **state)
{
	uint32_t n;
	uint64_t run;

	(void)state;
	pool_one(5 * 8192 + 777);
	OK(vd_space_inc(P, 8000, 4 * 8192 + 192 + 777)); /* up to the very end */
	OK(vd_space_inc(P, 8190, 8196));
	checkpoint();
	reopen();
	assert_int_equal(count(7999), 0);
	assert_int_equal(count(8000), 1);
	OK(vd_space_run(P, 8190, 100, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 2);
	OK(vd_space_run(P, 8192, 100000, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 8192);
	OK(vd_space_run(P, 2 * 8192, 100000, &n, &run));
	assert_int_equal(n, 2);
	assert_int_equal(run, 2);
	OK(vd_space_run(P, 5 * 8192, 100000, &n, &run));
	assert_int_equal(n, 1);
	assert_int_equal(run, 777);
	OK(vd_space_dec(P, 8000, 190));
	assert_int_equal(count(8189), 0);
	assert_int_equal(count(8190), 2);
	verify_totals();
}

static void impossible_ranges_are_refused(void **state)
{
	vd_pblk_t end = 8192 + 100;
	uint64_t run;
	uint32_t n;

	(void)state;
	pool_one(end);
	assert_int_equal(vd_space_inc(P, end, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, end - 1, 2), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 100, ~0ull), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 100, 0), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, VD_PBLK(1, 100), 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, VD_PBLK_NONE, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, ~0ull, 1), -EUCLEAN);
	assert_int_equal(vd_space_inc(P, 15, 1), -EUCLEAN);  /* a label */
	assert_int_equal(vd_space_dec(P, 79, 1), -EUCLEAN);  /* the journal */
	assert_int_equal(vd_space_claim(P, 16, 1), -EUCLEAN);
	assert_int_equal(vd_space_dec(P, 80, 1), -EUCLEAN);  /* count is 0 */
	assert_int_equal(vd_space_run(P, end, 1, &n, &run), -EUCLEAN);
	verify_totals();
}

static void counts_end_at_31_bits(void **state)
{
	struct space_group *g;

	(void)state;
	pool_one(8192 * 2);
	OK(vd_space_inc(P, 9000, 1));
	for (unsigned i = 0; i < 300; i++)
		OK(vd_space_inc(P, 9001, 1));
	OK(space_load(P, 1, true, &g));
	assert_int_equal(g->csize, 4);
	((uint32_t *)g->counts)[9000 - 8192] = 0x7fffffff;
	assert_int_equal(vd_space_inc(P, 9000, 1), -EOVERFLOW);
	checkpoint();
	reopen();
	assert_int_equal(count(9000), 0x7fffffff);
	assert_int_equal(count(9001), 300);
}

/* ---- when a block is free again ------------------------------------------------ */

static void a_freed_block_waits_for_checkpoint_and_drain(void **state)
{
	vd_pblk_t p;
	uint64_t before;

	(void)state;
	pool_one(8192);
	p = take(1);
	OK(vd_space_inc(P, p, 1));
	checkpoint();
	drain();
	before = vd_space_free(P);
	OK(vd_space_dec(P, p, 1));
	assert_true(vd_space_pending(P));
	drain(); /* the checkpoint is not durable */
	assert_true(is_busy(p));
	OK(vd_space_fold(P));
	drain();
	assert_true(is_busy(p));
	vd_space_checkpointed(P);
	P->ckpt_gen++;
	assert_true(is_busy(p));
	vd_space_drained(P); /* not sealed before this drain */
	assert_true(is_busy(p));
	vd_space_seal(P);
	assert_true(is_busy(p));
	vd_space_drained(P);
	assert_false(is_busy(p));
	assert_false(vd_space_pending(P));
	assert_int_equal(vd_space_free(P), before + 1);
	verify_totals();
}

static void a_block_counted_again_in_the_same_checkpoint_stays(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(4);
	OK(vd_space_inc(P, p, 4));
	checkpoint();
	OK(vd_space_dec(P, p, 4));
	OK(vd_space_inc(P, p + 1, 2));
	checkpoint();
	drain();
	assert_false(is_busy(p));
	assert_true(is_busy(p + 1));
	assert_true(is_busy(p + 2));
	assert_false(is_busy(p + 3));
	verify_totals();
}

static void a_block_of_an_older_checkpoint_cannot_come_back(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(1);
	OK(vd_space_inc(P, p, 1));
	checkpoint();
	OK(vd_space_dec(P, p, 1));
	checkpoint();
	assert_int_equal(vd_space_inc(P, p, 1), -EUCLEAN);
	vd_space_seal(P);
	assert_int_equal(vd_space_inc(P, p, 1), -EUCLEAN);
	vd_space_drained(P);
	OK(vd_space_claim(P, p, 1));
	OK(vd_space_inc(P, p, 1));
	verify_totals();
}

static void a_released_block_waits_for_its_record_and_drain(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(8192);
	p = take(3);
	vd_space_release(P, p, 1, 7);
	vd_space_release(P, p + 1, 1, 5);
	vd_space_release(P, p + 2, 1, 7);
	assert_true(vd_space_pending(P));
	durable_seq = 4;
	drain();
	assert_true(is_busy(p) && is_busy(p + 1));
	durable_seq = 5;
	vd_space_seal(P);
	durable_seq = 7;
	assert_true(is_busy(p + 1));
	vd_space_drained(P);
	assert_false(is_busy(p + 1));
	assert_true(is_busy(p) && is_busy(p + 2));
	drain();
	assert_false(is_busy(p) || is_busy(p + 2));
	assert_false(vd_space_pending(P));
	verify_totals();
}

static void many_releases_are_kept_and_come_back(void **state)
{
	uint64_t before;
	vd_pblk_t p;

	(void)state;
	pool_one(8 * 8192);
	before = vd_space_free(P);
	for (unsigned i = 0; i < 40; i++) {
		p = take(1000);
		for (unsigned j = 0; j < 1000; j += 2)
			vd_space_release(P, p + j, 1, i + 1);
		vd_space_release(P, p + 1, 1, i + 1);
		for (unsigned j = 3; j < 1000; j += 2)
			vd_space_unreserve(P, p + j, 1);
	}
	assert_int_equal(vd_space_free(P), before - 40 * 501);
	for (durable_seq = 0; durable_seq <= 40; durable_seq += 8) {
		drain();
		assert_int_equal(vd_space_free(P), before - (40 - durable_seq) * 501);
	}
	assert_false(vd_space_pending(P));
	verify_totals();
}

static void freed_runs_are_passed_down_before_reuse(void **state)
{
	vd_pblk_t p, q;

	(void)state;
	pool_one(8192);
	p = take(64);
	q = take(15);
	OK(vd_space_inc(P, p, 64));
	checkpoint();
	drain();
	discards = discarded = 0;
	OK(vd_space_dec(P, p, 40));
	vd_space_release(P, q, 15, 0);
	checkpoint();
	vd_space_seal(P);
	assert_int_equal(discards, 0);
	vd_space_drained(P);
	assert_int_equal(discards, 1);
	assert_int_equal(discarded, 40);
	verify_totals();
}

static void memory_that_is_out_leaks_but_frees_nothing_early(void **state)
{
	vd_pblk_t p, q;

	(void)state;
	pool_one(2 * 8192);
	p = take(2);
	q = take(2);
	OK(vd_space_inc(P, p, 2));
	checkpoint();
	drain();
	fail_at = 0;
	fail_on = true;
	OK(vd_space_dec(P, p, 1));
	vd_space_release(P, q, 1, 0);
	fail_at = -1;
	fail_on = false;
	checkpoint();
	drain();
	assert_true(is_busy(p));
	assert_true(is_busy(q));
	checkpoint();
	drain();
	reopen();
	assert_false(is_busy(p));
	assert_false(is_busy(q));
	verify_totals();
}

/* ---- data ------------------------------------------------------------------------- */

static void reserve_gives_exactly_the_goal(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	p = take(16);
	assert_int_equal(p & 15, 0);
	OK(reserve(p + 16, 100, &q, &got));
	assert_int_equal(q, p + 16);
	assert_int_equal(got, 100);
	vd_space_unreserve(P, p + 3, 5);
	OK(reserve(p + 4, 16, &q, &got)); /* as far as it is free */
	assert_int_equal(q, p + 4);
	assert_int_equal(got, 4);
	verify_totals();
}

static void reserve_near_the_goal_when_it_is_taken(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	p = take(256);
	OK(reserve(p + 100, 16, &q, &got));
	assert_int_equal(got, 16);
	assert_int_equal(q, p + 256);
	verify_totals();
}

static void reserve_gives_the_longest_when_none_fits(void **state)
{
	vd_pblk_t p, last = 0;
	unsigned got;

	(void)state;
	pool_one(8192);
	while (!reserve(VD_PBLK_NONE, 64, &p, &got))
		last = p;
	assert_int_equal(vd_space_free(P), 0);
	assert_int_equal(vd_space_reserve(P, VD_PBLK_NONE, 1, &p, &got), -EWOULDBLOCK);
	assert_int_equal(vd_space_refill(P), -ENOSPC);
	vd_space_unreserve(P, 1000, 3);
	vd_space_unreserve(P, 2000, 7);
	vd_space_unreserve(P, 3000, 5);
	OK(reserve(VD_PBLK_NONE, 64, &p, &got));
	assert_int_equal(p, 2000);
	assert_int_equal(got, 7);
	OK(reserve(VD_PBLK_NONE, 64, &p, &got));
	assert_int_equal(p, 3000);
	(void)last;
	verify_totals();
}

static void reserve_aligns_long_runs(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(4 * 8192);
	for (unsigned i = 0; i < 20; i++) {
		OK(reserve(VD_PBLK_NONE, 3, &p, &got));
		OK(reserve(VD_PBLK_NONE, 16 + i, &p, &got));
		assert_int_equal(p & 15, 0);
	}
	verify_totals();
}

static void the_reserve_is_exact_over_members(void **state)
{
	uint64_t blocks[3] = { 3000, 8192, 8192 };
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_members(3, blocks);
	P->reserve_blocks = 1001;
	while (!reserve(VD_PBLK_NONE, 37, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 1001);
	for (unsigned m = 0; m < 3; m++)
		assert_true(P->space->member[m]->free >= 1001 / 4);
	verify_totals();
}

static void reserve_leaves_the_metadata_reserve(void **state)
{
	vd_pblk_t p, a, b;
	unsigned got;
	int r;

	(void)state;
	pool_one(3 * 8192);
	P->reserve_blocks = 1000;
	while (!(r = reserve(VD_PBLK_NONE, 1024, &p, &got)))
		;
	assert_int_equal(r, -ENOSPC);
	assert_int_equal(vd_space_free(P), 1000);
	for (unsigned i = 0; i < 1000; i++)
		OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(vd_space_alloc_node(P, &a, &b), -ENOSPC);
	assert_int_equal(vd_space_free(P), 0);
	verify_totals();
}

static void the_reserve_is_kept_on_each_member(void **state)
{
	uint64_t blocks[2] = { 2048, 8 * 8192 };
	vd_pblk_t p, a, b;
	unsigned got;

	(void)state;
	pool_members(2, blocks);
	P->reserve_blocks = 1000;
	while (!reserve(VD_PBLK_NONE, 100, &p, &got))
		;
	assert_int_equal(vd_space_free(P), 1000);
	for (unsigned i = 0; i < 500; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		assert_int_not_equal(b, VD_PBLK_NONE);
		assert_int_not_equal(VD_PBLK_MEMBER(a), VD_PBLK_MEMBER(b));
	}
	verify_totals();
}

static void without_goal_members_take_turns(void **state)
{
	uint64_t blocks[4] = { 8192, 8192, 3 * 8192, 8192 };

	(void)state;
	pool_members(4, blocks);
	for (unsigned i = 0; i < 12; i++)
		assert_int_equal(VD_PBLK_MEMBER(take(16)), i % 4);
	P->member[1].missing = true;
	for (unsigned i = 0; i < 12; i++)
		assert_int_not_equal(VD_PBLK_MEMBER(take(16)), 1);
}

static void data_of_one_stream_stays_together(void **state)
{
	vd_pblk_t p, q;
	unsigned got;

	(void)state;
	pool_one(16 * 8192);
	p = take(16);
	for (unsigned i = 0; i < 200; i++) {
		vd_pblk_t a, b;

		OK(reserve(p + 16, 16, &q, &got));
		assert_int_equal(q, p + 16);
		OK(vd_space_alloc_node(P, &a, &b)); /* metadata is elsewhere */
		p = q;
	}
}

static void refill_finds_what_is_free_after_opening(void **state)
{
	uint64_t total = 0;
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(40 * 8192);
	for (unsigned k = 1; k < 40; k++)
		OK(vd_space_inc(P, k * 8192, 8192 - (k % 5 == 0 ? 20 : 0)));
	checkpoint();
	drain();
	/* a gap between full groups */
	OK(vd_space_dec(P, 22 * 8192, 8192));
	checkpoint();
	drain();
	reopen();
	for (uint64_t was = vd_space_free(P); !reserve(VD_PBLK_NONE, 64, &p, &got); total += got)
		assert_int_equal(vd_space_free(P), was - total - got);
	assert_int_equal(vd_space_free(P), 0);
	assert_true(total > 8192 * 2 - 80 - 100);
	verify_totals();
}

static void refill_skips_what_is_full(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(3000ull * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_claim(P, 4096, 4096));
	OK(vd_space_inc(P, 4096, 4096));
	OK(vd_space_inc(P, 8192, 2000ull * 8192));
	OK(vd_space_dec(P, 1500 * 8192 + 100, 200));
	checkpoint();
	drain();
	reopen();
	fetched = 0;
	for (unsigned i = 0; i < 3000; i++)
		OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
	assert_true(fetched < 4000); /* some for each of the 500 groups that were used */
	verify_totals();
}

static void refill_passes_over_groups_it_cannot_read(void **state)
{
	struct vd_disk_space *d;
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(3 * 8192);
	checkpoint(); /* metadata is in group 0 */
	OK(vd_space_inc(P, 9000, 1));
	checkpoint();
	drain();
	reopen();
	d = (*node_slot(slot_of(8)->ptr.a))->n.data;
	d->width = cpu_to_le32(5);
	while (!vd_space_reserve(P, VD_PBLK_NONE, 512, &p, &got) || !vd_space_refill(P))
		;
	assert_true(warnings > 0);
	assert_true(vd_space_free(P) >= 8190);
	assert_true(vd_space_free(P) < 8192);
}

static void claims_conflict(void **state)
{
	vd_pblk_t p;

	(void)state;
	pool_one(3 * 8192);
	OK(vd_space_inc(P, 5000, 1));
	checkpoint();
	reopen();
	assert_int_equal(vd_space_claim(P, 4990, 20), -EUCLEAN);
	OK(vd_space_claim(P, 8000, 500)); /* over groups */
	assert_int_equal(vd_space_claim(P, 8499, 1), -EUCLEAN);
	OK(vd_space_claim(P, 8500, 1));
	p = take(16);
	assert_int_equal(vd_space_claim(P, p + 15, 1), -EUCLEAN);
	assert_int_equal(vd_space_claim(P, 3 * 8192 - 1, 2), -EUCLEAN);
	verify_totals();
}

/* ---- metadata ----------------------------------------------------------------------- */

static void nodes_have_copies_on_two_members(void **state)
{
	uint64_t blocks[3] = { 8192, 8192, 8192 };
	unsigned seen[3] = { 0 };
	vd_pblk_t a, b;

	(void)state;
	pool_members(3, blocks);
	for (unsigned i = 0; i < 600; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		assert_int_not_equal(VD_PBLK_MEMBER(a), VD_PBLK_MEMBER(b));
		seen[VD_PBLK_MEMBER(a)]++;
		seen[VD_PBLK_MEMBER(b)]++;
		assert_int_equal(count(a), 1);
		assert_int_equal(count(b), 1);
	}
	for (unsigned m = 0; m < 3; m++)
		assert_true(seen[m] > 300);
	P->member[0].missing = P->member[2].missing = true;
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(VD_PBLK_MEMBER(a), 1);
	assert_int_equal(b, VD_PBLK_NONE);
	verify_totals();
}

static void nodes_of_a_checkpoint_are_contiguous(void **state)
{
	vd_pblk_t a, b, last = 0, p;
	unsigned breaks = 0, got;

	(void)state;
	pool_one(8 * 8192);
	for (unsigned i = 0; i < 512; i++) {
		OK(vd_space_alloc_node(P, &a, &b));
		OK(reserve(VD_PBLK_NONE, 16, &p, &got));
		breaks += a != last + 1;
		last = a;
	}
	assert_true(breaks <= 8);
}

static void one_copy_when_the_other_member_is_full(void **state)
{
	uint64_t blocks[2] = { 2048, 3 * 8192 };
	vd_pblk_t a, b;

	(void)state;
	pool_members(2, blocks);
	OK(vd_space_claim(P, 80, 2048 - 80));
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_equal(VD_PBLK_MEMBER(a), 1);
	assert_int_equal(b, VD_PBLK_NONE);
	assert_int_equal(warnings, 1);
}

static void a_node_goes_with_its_last_reference(void **state)
{
	uint64_t blocks[2] = { 8192, 8192 };
	struct vd_node *n;
	struct vd_ptr ptr;
	uint32_t left;

	(void)state;
	pool_members(2, blocks);
	OK(vd_node_new(P, VD_NODE_INDEX, 1, 0, &n));
	ptr = n->ptr;
	vd_node_put(P, n);
	OK(vd_space_inc(P, ptr.a, 1));
	OK(vd_space_drop_node(P, &ptr, &left));
	assert_int_equal(left, 1);
	assert_int_equal(count(ptr.b), 1);
	OK(vd_space_drop_node(P, &ptr, &left));
	assert_int_equal(left, 0);
	assert_int_equal(count(ptr.a), 0);
	assert_int_equal(count(ptr.b), 0);
	assert_false((*node_slot(ptr.a))->live);
	assert_int_equal(vd_space_drop_node(P, &ptr, &left), -EUCLEAN);
	checkpoint();
	drain();
	assert_false(is_busy(ptr.a));
	assert_false(is_busy(ptr.b));
}

/* ---- memory --------------------------------------------------------------------------- */

static void clean_groups_leave_memory(void **state)
{
	(void)state;
	pool_one(400 * 8192);
	for (unsigned k = 1; k < 400; k++)
		OK(vd_space_inc(P, k * 8192 + k, 3));
	checkpoint();
	drain();
	checkpoint();
	drain();
	P->space->max_groups = 50;
	checkpoint();
	for (unsigned turn = 0; turn < 2; turn++)
		for (unsigned k = 1; k < 400; k++) {
			assert_int_equal(count(k * 8192 + k - 1), 0);
			assert_int_equal(count(k * 8192 + k + 2), 1);
		}
	assert_true(P->space->ngroups <= 55);
	verify_totals();
}

static void changed_groups_stay_in_memory(void **state)
{
	(void)state;
	pool_one(100 * 8192);
	P->space->max_groups = 4;
	for (unsigned k = 1; k < 100; k++)
		OK(vd_space_inc(P, k * 8192 + k, 3));
	OK(vd_space_fold(P));
	for (unsigned k = 1; k < 100; k++)
		assert_int_equal(count(k * 8192 + k), 1);
	assert_true(P->space->ngroups >= 99);
	vd_space_checkpointed(P);
	P->ckpt_gen++;
	drain();
	for (unsigned k = 1; k < 100; k++)
		assert_int_equal(count(k * 8192 + k), 1);
	assert_true(P->space->ngroups < 20);
	verify_totals();
}

static void the_largest_pool_costs_nothing_by_its_size(void **state)
{
	static uint64_t blocks[256];
	vd_pblk_t p, a, b;
	unsigned got;

	(void)state;
	for (unsigned i = 0; i < 256; i++)
		blocks[i] = 1ull << 40;
	pool_members(256, blocks);
	P->reserve_blocks = 1ull << 40;
	for (unsigned i = 0; i < 512; i++) {
		OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
		assert_int_equal(got, 1024);
		OK(vd_space_inc(P, p, got));
		OK(vd_space_alloc_node(P, &a, &b));
	}
	OK(vd_space_inc(P, VD_PBLK(255, (1ull << 40) - 10), 10));
	checkpoint();
	drain();
	assert_true(P->space->ngroups < 256 * 5);
	reopen();
	assert_int_equal(count(VD_PBLK(255, (1ull << 40) - 1)), 1);
	assert_int_equal(count(p), 1);
	OK(reserve(VD_PBLK_NONE, 1024, &p, &got));
	assert_int_equal(vd_space_free(P), (1ull << 48) - vd_space_used(P) - 1024);
}

static void a_member_joins_live(void **state)
{
	uint64_t before;
	vd_pblk_t a, b;

	(void)state;
	pool_one(8192);
	checkpoint();
	before = vd_space_free(P);
	P->member[1].blocks = 4096;
	super.journal_member[1] = cpu_to_le32(1);
	P->nmembers = 2;
	OK(vd_space_format(P, 1));
	assert_int_equal(vd_space_free(P), before + 4096 - 80);
	OK(vd_space_alloc_node(P, &a, &b));
	assert_int_not_equal(b, VD_PBLK_NONE);
	checkpoint();
	reopen();
	verify_totals();
}

static uint64_t seed;
static uint32_t rnd(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)((seed >> 33) % n);
}

/* ---- hostile pages ----------------------------------------------------------------------- */

static void impossible_pages_are_refused(void **state)
{
	uint32_t n;

	(void)state;
	for (unsigned kind = 0; kind < 14; kind++) {
		struct vd_disk_space *d;
		struct fake_tree *t;
		struct vd_slot *slot;

		pool_one(2 * 8192 + 100);
		OK(vd_space_inc(P, 2 * 8192, 1)); /* the last, partial group */
		for (unsigned i = 0; i < 9; i++)
			OK(vd_space_inc(P, 8200, 1)); /* two pages */
		checkpoint();
		reopen();
		t = tree_of(&P->space_root);
		slot = (struct vd_slot *)slot_of(kind < 7 ? 16 : 8);
		d = (*node_slot(slot->ptr.a))->n.data;
		switch (kind) {
		case 0: d->width = cpu_to_le32(4); break;
		case 1: d->width = 0; break;
		case 2: d->nblocks = cpu_to_le32(4096); break;
		case 3: d->h.count = cpu_to_le16(2); break;
		case 4: d->h.key_lo = cpu_to_le64(15); break;
		case 5: d->bits[100 / 8] |= 0xf0; break; /* counts past the end */
		case 6: slot->aux++; break;
		case 7: d->width = cpu_to_le32(15); break;
		case 8: slot->key++; break;
		case 9: slot->ptr.gen++; break;
		case 10: slot[1].key++; break;
		case 11: /* half of a group */
			memmove(slot + 1, slot + 2, (char *)(t->slot + t->n) - (char *)(slot + 2));
			t->n--;
			break;
		case 12: slot[1].ptr = slot[0].ptr; break;
		case 13: slot->ptr = (struct vd_ptr){ 1, VD_PBLK_NONE, 0 }; slot->aux = 0; break; /* uniform and a page */
		}
		assert_int_equal(vd_space_count(P, kind < 7 ? 2 * 8192 : 8200, &n), -EUCLEAN);
		assert_int_equal(vd_space_claim(P, kind < 7 ? 2 * 8192 + 1 : 8201, 1), -EUCLEAN);
		pool_end();
	}
}

static void damaged_pages_are_read_or_refused(void **state)
{
	static const unsigned counts[] = { 1, 9, 200, 40000 };

	(void)state;
	seed = 3;
	for (unsigned i = 0; i < 4; i++) {
		pool_one(2 * 8192 + 100);
		for (unsigned k = 0; k < counts[i]; k++)
			OK(vd_space_inc(P, 9000, 1));
		OK(vd_space_inc(P, 2 * 8192 + 50, 7));
		checkpoint();
		P->space->max_groups = 1;
		for (unsigned k = 0; k < 500; k++) {
			struct fake_tree *t = tree_of(&P->space_root);
			struct vd_slot *slot = &t->slot[rnd(t->n)];
			struct fake_node *f = slot->ptr.gen ? *node_slot(slot->ptr.a) : NULL;
			struct vd_slot was = *slot;
			unsigned at = rnd(rnd(2) ? 128 : VD_BLOCK);
			uint8_t flip = (uint8_t)(1u << rnd(8)), *d = f ? (uint8_t *)f->data + at : NULL;
			uint32_t n;
			int r;

			if (d && rnd(4))
				*d ^= flip;
			else if (rnd(2))
				slot->aux ^= flip;
			else
				slot->ptr.a ^= 1ull << rnd(48);
			for (unsigned g = 0; g < 3; g++) {
				r = vd_space_count(P, g * 8192 + 99, &n);
				assert_true(r == 0 || r == -EUCLEAN);
			}
			r = vd_space_refill(P);
			assert_true(r == 0 || r == -EUCLEAN);
			*slot = was; /* the pages' damage adds up */
		}
		pool_end();
	}
}

static void an_impossible_total_is_refused(void **state)
{
	(void)state;
	pool_one(8192);
	checkpoint();
	vd_space_fini(P);
	super.used_blocks = cpu_to_le64(8193);
	assert_int_equal(vd_space_init(P), -EUCLEAN);
}

static void system_blocks_are_busy_whatever_counts_say(void **state)
{
	vd_pblk_t p;
	unsigned got;

	(void)state;
	pool_one(8192);
	memset(&P->space_root, 0, sizeof(P->space_root)); /* as if all were free */
	super.used_blocks = 0;
	vd_space_fini(P);
	OK(vd_space_init(P));
	while (!reserve(VD_PBLK_NONE, 16, &p, &got))
		assert_true(p >= 80);
	assert_int_equal(vd_space_free(P), 0);
}

/* ---- model -------------------------------------------------------------------------------- */

#define UNTIL_CHECKPOINT (~0ull)
#define UNTIL_DRAIN (~1ull)
/* else: that sequence, durable, and a drain */
struct model {
	uint64_t blocks[3];
	unsigned n;
	uint32_t *count[3];   /* data only */
	uint64_t *until[3];   /* 0, or when a block may be given again: */
};

static void model_check(struct model *m)
{
	for (unsigned k = 0; k < m->n; k++) {
		uint8_t *meta = calloc(1, m->blocks[k]);

		memset(meta, 1, 80);
		for (unsigned i = 0; i < NODES; i++)
			if (nodes[i] && nodes[i]->live) {
				vd_pblk_t c[2] = { nodes[i]->n.ptr.a, nodes[i]->n.ptr.b };

				for (unsigned j = 0; j < 2; j++)
					if (c[j] != VD_PBLK_NONE && VD_PBLK_MEMBER(c[j]) == k) {
						assert_int_equal(meta[VD_PBLK_BLOCK(c[j])], 0);
						meta[VD_PBLK_BLOCK(c[j])] = 1;
					}
			}
		if (k == 2)
			memset(meta + 16, 0, 64);
		for (uint64_t b = 0; b < m->blocks[k];) {
			uint64_t run;
			uint32_t n;

			OK(vd_space_run(P, VD_PBLK(k, b), m->blocks[k] - b, &n, &run));
			for (; run; run--, b++)
				if (n != m->count[k][b] + meta[b])
					fail_msg("seed %llu: block %u:%llu has count %u, not %u + %u", (unsigned long long)seed, k, (unsigned long long)b, n, m->count[k][b], meta[b]);
		}
		free(meta);
	}
	verify_totals();
}

static void model_run(uint64_t from, unsigned n, const uint64_t *blocks, unsigned steps)
{
	struct model m = { .n = n };
	uint64_t seq = 0;

	seed = from;
	pool_members(n, blocks);
	P->reserve_blocks = 800;
	P->space->max_groups = 2 + rnd(6);
	for (unsigned k = 0; k < n; k++) {
		m.blocks[k] = blocks[k];
		m.count[k] = calloc(blocks[k], 4);
		m.until[k] = calloc(blocks[k], 8);
	}
	for (unsigned i = 0; i < steps; i++) {
		unsigned k = rnd(n), len = 1 + rnd(rnd(4) ? 40 : 1024), got, reps = 1;
		vd_pblk_t p;
		uint64_t b = rnd((uint32_t)blocks[k]);

		len = vd_min(len, (unsigned)(blocks[k] - b));
		switch (rnd(12)) {
		case 0:
		case 1:
		case 2:
		case 3: { /* allocate, and count, or give back, or release */
			int r = reserve(rnd(2) ? VD_PBLK_NONE : VD_PBLK(k, b), len, &p, &got);
			unsigned what = rnd(6);

			if (r == -ENOSPC)
				break;
			OK(r);
			assert_true(got <= len);
			k = VD_PBLK_MEMBER(p);
			b = VD_PBLK_BLOCK(p);
			for (unsigned j = 0; j < got; j++) {
				assert_int_equal(m.count[k][b + j], 0);
				assert_int_equal(m.until[k][b + j], 0);
			}
			if (what == 0) {
				vd_space_unreserve(P, p, got);
			} else if (what == 1) {
				vd_space_release(P, p, got, ++seq);
				for (unsigned j = 0; j < got; j++)
					m.until[k][b + j] = seq;
			} else {
				OK(vd_space_inc(P, p, got));
				for (unsigned j = 0; j < got; j++)
					m.count[k][b + j]++;
			}
			break;
		}
		case 4:
		case 5: /* share what is counted */
			if (!rnd(8))
				reps = 1 + rnd(200);
			for (unsigned j = 0, e; j < len; j = e + 1) {
				for (e = j; e < len && m.count[k][b + e]; e++)
					;
				for (unsigned t = 0; t < reps && e > j; t++) {
					OK(vd_space_inc(P, VD_PBLK(k, b + j), e - j));
					for (unsigned x = j; x < e; x++)
						m.count[k][b + x]++;
				}
			}
			break;
		case 6:
		case 7:
		case 8:
		case 9:
			if (!rnd(8))
				reps = 1 + rnd(200);
			for (unsigned t = 0; t < reps; t++)
				for (unsigned j = 0, e; j < len; j = e + 1) {
					for (e = j; e < len && m.count[k][b + e]; e++)
						;
					if (e == j)
						continue;
					OK(vd_space_dec(P, VD_PBLK(k, b + j), e - j));
					for (unsigned x = j; x < e; x++)
						if (!--m.count[k][b + x])
							m.until[k][b + x] = UNTIL_CHECKPOINT;
				}
			break;
		case 10:
			durable_seq = seq - (seq ? rnd(2) : 0);
			drain();
			for (unsigned x = 0; x < n; x++)
				for (uint64_t y = 0; y < blocks[x]; y++)
					if (m.until[x][y] == UNTIL_DRAIN || m.until[x][y] <= durable_seq)
						m.until[x][y] = 0;
			break;
		case 11:
			if (rnd(3))
				break;
			OK(vd_space_fold(P));
			assert_true(vd_list_empty(&P->space->dirty));
			super.used_blocks = cpu_to_le64(vd_space_used(P));
			vd_space_checkpointed(P);
			P->ckpt_gen++;
			for (unsigned x = 0; x < n; x++)
				for (uint64_t y = 0; y < blocks[x]; y++)
					if (m.until[x][y] == UNTIL_CHECKPOINT)
						m.until[x][y] = UNTIL_DRAIN;
			if (rnd(2))
				break;
			model_check(&m);
			if (rnd(2))
				break;
			reopen();
			P->space->max_groups = 2 + rnd(6);
			for (unsigned x = 0; x < n; x++)
				memset(m.until[x], 0, blocks[x] * 8);
			if (rnd(2))
				model_check(&m);
			break;
		}
	}
	checkpoint();
	reopen();
	model_check(&m);
	for (unsigned k = 0; k < n; k++) {
		free(m.count[k]);
		free(m.until[k]);
	}
	pool_end();
}

static void random_operations_agree_with_a_model(void **state)
{
	uint64_t blocks[3] = { 20000, 8192 * 2, 3000 };

	(void)state;
	for (unsigned i = 0; i < 6; i++)
		model_run(1000 + i, 1 + i % 3, blocks, 1500);
}

/* ---- failures ------------------------------------------------------------------------------- */

static void work(unsigned upto)
{
	vd_pblk_t p;
	unsigned got;

	for (unsigned i = 0; i < upto && !P->flags; i++) {
		int r = reserve(VD_PBLK_NONE, 50, &p, &got);

		if (!r)
			r = vd_space_inc(P, p, got);
		if (!r && i % 3 == 0)
			r = vd_space_dec(P, p, got / 2);
		if (!r && i % 5 == 0)
			for (unsigned j = 0; j < 300 && !r; j++)
				r = vd_space_inc(P, p + got - 1, 1);
		if (!r && i % 4 == 0)
			r = try_checkpoint();
		if (!r && i % 4 == 2)
			drain();
		if (r) {
			assert_true(r == -ENOMEM || r == -EIO);
			P->flags = 1; /* the pool has failed */
		}
	}
}

static void every_allocation_may_fail(void **state)
{
	uint64_t blocks[2] = { 3 * 8192, 2 * 8192 };
	bool ended = false;

	(void)state;
	for (long n = 0; !ended; n++) {
		pool_members(2, blocks);
		fail_at = n;
		fail_on = false;
		work(24);
		ended = fail_at > 0;
		fail_at = -1;
		if (!P->flags) {
			verify_totals();
			checkpoint();
			reopen();
			verify_totals();
		}
		pool_end();
	}
}

static void every_metadata_read_may_fail(void **state)
{
	uint64_t blocks[2] = { 3 * 8192, 2 * 8192 };
	bool ended = false;

	(void)state;
	for (unsigned n = 1; !ended; n++) {
		pool_members(2, blocks);
		work(4);
		checkpoint();
		reopen();
		P->space->max_groups = 1;
		fetch_error_at = n;
		work(24);
		ended = fetch_error_at > 0;
		fetch_error_at = 0;
		if (!P->flags)
			verify_totals();
		pool_end();
	}
}

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
	seed = 5;
	for (unsigned turn = 0; turn < 40; turn++) {
		pthread_mutex_lock(&crowd.lock);
		memcpy(queue, crowd.queue, sizeof(*queue) * (nqueue = crowd.queued));
		memcpy(gone, crowd.gone, sizeof(*gone) * (ngone = crowd.ngone));
		crowd.queued = crowd.ngone = 0;
		durable_seq = crowd.seq;
		pthread_mutex_unlock(&crowd.lock);
		vd_mutex_lock(&P->ckpt_lock);
		first = n;
		for (unsigned i = 0; i < nqueue; i++) {
			assert_true(n < 200000);
			OK(vd_space_inc(P, queue[i].p_len & VD_PBLK_NONE, (queue[i].p_len >> 48) + 1));
			counted[n++] = queue[i];
		}
		/* the oldest half goes again: those in front of `n - first` are kept */
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

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(formatting_counts_labels_and_journal),
		T(a_full_group_is_one_entry),
		T(a_full_last_group_is_one_entry),
		T(an_emptied_group_leaves_the_tree),
		T(widths_grow_and_shrink),
		T(folding_again_in_one_checkpoint_says_the_last_counts),
		T(ranges_cross_groups),
		T(impossible_ranges_are_refused),
		T(counts_end_at_31_bits),
		T(a_freed_block_waits_for_checkpoint_and_drain),
		T(a_block_counted_again_in_the_same_checkpoint_stays),
		T(a_block_of_an_older_checkpoint_cannot_come_back),
		T(a_released_block_waits_for_its_record_and_drain),
		T(many_releases_are_kept_and_come_back),
		T(freed_runs_are_passed_down_before_reuse),
		T(memory_that_is_out_leaks_but_frees_nothing_early),
		T(reserve_gives_exactly_the_goal),
		T(reserve_near_the_goal_when_it_is_taken),
		T(reserve_gives_the_longest_when_none_fits),
		T(reserve_aligns_long_runs),
		T(reserve_leaves_the_metadata_reserve),
		T(the_reserve_is_exact_over_members),
		T(the_reserve_is_kept_on_each_member),
		T(without_goal_members_take_turns),
		T(data_of_one_stream_stays_together),
		T(refill_finds_what_is_free_after_opening),
		T(refill_skips_what_is_full),
		T(refill_passes_over_groups_it_cannot_read),
		T(claims_conflict),
		T(nodes_have_copies_on_two_members),
		T(nodes_of_a_checkpoint_are_contiguous),
		T(one_copy_when_the_other_member_is_full),
		T(a_node_goes_with_its_last_reference),
		T(clean_groups_leave_memory),
		T(changed_groups_stay_in_memory),
		T(the_largest_pool_costs_nothing_by_its_size),
		T(a_member_joins_live),
		T(impossible_pages_are_refused),
		T(damaged_pages_are_read_or_refused),
		T(an_impossible_total_is_refused),
		T(system_blocks_are_busy_whatever_counts_say),
		T(random_operations_agree_with_a_model),
		T(nothing_is_free_while_an_older_root_is_read),
		T(two_who_load_a_group_get_the_same),
		T(threads_reserve_beside_checkpoints),
		T(every_allocation_may_fail),
		T(every_metadata_read_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
