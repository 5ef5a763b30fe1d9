/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/* What the tests of trees stand on: disks in memory, a simple space layer, volumes with a model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "pool.h"

#define MEMBERS 2u
#define BLOCKS (1u << 21)   /* of each member */
#define DATA_FROM (1u << 19)/* nodes below, data above */

/* ---- a world ------------------------------------------------------------ */

static struct world {
	struct vd_pool pool;
	pthread_mutex_t lock;
	uint8_t **block[MEMBERS];
	uint32_t *count[MEMBERS];
	uint32_t *saved[MEMBERS];   /* counts at the last checkpoint */
	uint32_t next_node, next_data;
	vd_pblk_t *freed;           /* not to be used again before the next checkpoint */
	size_t nfreed, freed_max;
	vd_pblk_t *free_nodes;      /* pairs' first addresses */
	size_t nfree_nodes, free_max;
	long fail_in;               /* this many operations from now one fails; -1: none does */
	bool failed, io_only;
	unsigned long reads, writes, blocks_written, warnings, errors, allocs, largest;
	vd_pblk_t read_error;       /* this block cannot be read */
	bool single;                /* nodes have one copy */
} w;

static uint64_t rnd_state = 1;
static uint64_t rnd(void)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	rnd_state ^= rnd_state << 17;
	return rnd_state * 0x2545f4914f6cdd1dull >> 11;
}

static bool fails(void)
{
	bool now;

	pthread_mutex_lock(&w.lock);
	now = w.fail_in >= 0 && !w.fail_in--;
	w.failed |= now;
	pthread_mutex_unlock(&w.lock);
	return now;
}

static int h_read(void *ctx, unsigned m, uint64_t b, void *buf, unsigned n)
{
	(void)ctx;
	assert_true(m < MEMBERS && b + n <= BLOCKS);
	if (fails() || VD_PBLK(m, b) == w.read_error)
		return -EIO;
	pthread_mutex_lock(&w.lock);
	w.reads++;
	for (unsigned i = 0; i < n; i++) {
		if (w.block[m][b + i])
			memcpy((uint8_t *)buf + i * VD_BLOCK, w.block[m][b + i], VD_BLOCK);
		else
			memset((uint8_t *)buf + i * VD_BLOCK, 0, VD_BLOCK);
	}
	pthread_mutex_unlock(&w.lock);
	return 0;
}

static int h_write(void *ctx, unsigned m, uint64_t b, const void *buf, unsigned n)
{
	(void)ctx;
	assert_true(m < MEMBERS && b >= VD_SYSTEM_BLOCKS && b + n <= BLOCKS);
	if (fails())
		return -EIO;
	pthread_mutex_lock(&w.lock);
	w.writes++;
	w.blocks_written += n;
	if (n > w.largest)
		w.largest = n;
	for (unsigned i = 0; i < n; i++) {
		if (!w.block[m][b + i])
			w.block[m][b + i] = malloc(VD_BLOCK);
		memcpy(w.block[m][b + i], (const uint8_t *)buf + i * VD_BLOCK, VD_BLOCK);
	}
	pthread_mutex_unlock(&w.lock);
	return 0;
}

static int h_flush(void *ctx, unsigned m)
{
	(void)ctx;
	(void)m;
	return 0;
}

static void *h_alloc(void *ctx, size_t size, int how)
{
	(void)ctx;
	(void)how;
	if (!w.io_only && fails())
		return NULL;
	__atomic_add_fetch(&w.allocs, 1, __ATOMIC_RELAXED);
	return malloc(size);
}

static void h_free(void *ctx, void *p)
{
	(void)ctx;
	__atomic_sub_fetch(&w.allocs, 1, __ATOMIC_RELAXED);
	free(p);
}

static void h_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	(void)ctx;
	(void)a;
	(void)b;
	if (level == VD_LOG_ERROR)
		__atomic_add_fetch(&w.errors, 1, __ATOMIC_RELAXED);
	else
		__atomic_add_fetch(&w.warnings, 1, __ATOMIC_RELAXED);
	if (getenv("VD_TEST_VERBOSE"))
		print_message("%s (%llx, %llx)\n", msg, (unsigned long long)a, (unsigned long long)b);
}

/* ---- what pool.c and space.c would do ------------------------------------ */

bool vd_pblk_valid(const struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	uint64_t b = VD_PBLK_BLOCK(p);

	(void)pool;
	return p < VD_PBLK_NONE && VD_PBLK_MEMBER(p) < MEMBERS && b >= VD_SYSTEM_BLOCKS && len && len <= BLOCKS && b + len <= BLOCKS;
}

static uint32_t *counter(vd_pblk_t p)
{
	return &w.count[VD_PBLK_MEMBER(p)][VD_PBLK_BLOCK(p)];
}

int vd_space_inc(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	assert_true(vd_pblk_valid(pool, p, len));
	if (fails())
		return -EIO;
	while (len--)
		++*counter(p++);
	return 0;
}

static void freed(vd_pblk_t p)
{
	if (w.nfreed == w.freed_max) {
		w.freed_max = w.freed_max ? 2 * w.freed_max : 1024;
		w.freed = realloc(w.freed, w.freed_max * sizeof(*w.freed));
	}
	w.freed[w.nfreed++] = p;
}

int vd_space_dec(struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	assert_true(vd_pblk_valid(pool, p, len));
	if (fails())
		return -EIO;
	for (; len--; p++) {
		if (!*counter(p))
			return -EUCLEAN;
		if (!--*counter(p) && VD_PBLK_BLOCK(p) < DATA_FROM && !VD_PBLK_MEMBER(p))
			freed(p);
	}
	return 0;
}

int vd_space_count(struct vd_pool *pool, vd_pblk_t p, uint32_t *count)
{
	assert_true(vd_pblk_valid(pool, p, 1));
	if (fails())
		return -EIO;
	*count = *counter(p);
	return 0;
}

int vd_space_alloc_node(struct vd_pool *pool, vd_pblk_t *a, vd_pblk_t *b)
{
	uint64_t at;

	(void)pool;
	if (fails())
		return -ENOSPC;
	if (w.nfree_nodes)
		at = w.free_nodes[--w.nfree_nodes];
	else
		at = w.next_node++;
	assert_true(at < DATA_FROM);
	*a = VD_PBLK(0, at);
	*b = w.single ? VD_PBLK_NONE : VD_PBLK(1, at + 3);
	assert_int_equal(*counter(*a), 0);
	*counter(*a) = 1;
	if (!w.single) {
		assert_int_equal(*counter(*b), 0);
		*counter(*b) = 1;
	}
	return 0;
}

int vd_space_drop_node(struct vd_pool *pool, const struct vd_ptr *ptr, uint32_t *left)
{
	int r = vd_space_dec(pool, ptr->a, 1);

	if (!r && !*counter(ptr->a)) {
		if (ptr->b != VD_PBLK_NONE)
			r = vd_space_dec(pool, ptr->b, 1);
		vd_node_forget(pool, ptr);
	}
	*left = *counter(ptr->a);
	return r;
}

static vd_pblk_t data(uint64_t n)
{
	vd_pblk_t p = VD_PBLK(0, DATA_FROM + w.next_data);

	w.next_data += n;
	assert_true(DATA_FROM + w.next_data <= BLOCKS);
	return p;
}

static void cache_start(uint64_t bytes)
{
	assert_int_equal(vd_cache_init(&w.pool, bytes), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	pthread_mutex_init(&w.lock, NULL);
	for (unsigned m = 0; m < MEMBERS; m++) {
		w.block[m] = calloc(BLOCKS, sizeof(*w.block[m]));
		w.count[m] = calloc(BLOCKS, sizeof(*w.count[m]));
		w.saved[m] = calloc(BLOCKS, sizeof(*w.saved[m]));
	}
	w.next_node = VD_SYSTEM_BLOCKS;
	w.fail_in = -1;
	w.read_error = VD_PBLK_NONE;
	w.pool.host = (struct vd_host){ .read = h_read, .write = h_write, .flush = h_flush, .alloc = h_alloc, .free = h_free, .log = h_log };
	w.pool.id = 0x1122334455667788ull;
	w.pool.ckpt_gen = 1;
	w.pool.nmembers = MEMBERS;
	vd_atomic_set(&w.pool.mode, VD_MODE_RW);
	rnd_state = getenv("VD_TEST_SEED") ? strtoull(getenv("VD_TEST_SEED"), NULL, 0) | 1 : 88172645463325252ull;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	vd_cache_fini(&w.pool);
	for (unsigned m = 0; m < MEMBERS; m++) {
		for (unsigned i = 0; i < BLOCKS; i++)
			free(w.block[m][i]);
		free(w.block[m]);
		free(w.count[m]);
		free(w.saved[m]);
	}
	free(w.freed);
	free(w.free_nodes);
	if (w.allocs)
		print_message("%lu allocations are left\n", w.allocs);
	return w.allocs != 0;
}

/* The checkpoint is durable: what it freed may be used again. */
static void checkpoint_done(void)
{
	for (size_t i = 0; i < w.nfreed; i++) {
		if (*counter(w.freed[i]))
			continue;
		if (w.nfree_nodes == w.free_max) {
			w.free_max = w.free_max ? 2 * w.free_max : 1024;
			w.free_nodes = realloc(w.free_nodes, w.free_max * sizeof(*w.free_nodes));
		}
		w.free_nodes[w.nfree_nodes++] = w.freed[i];
	}
	w.nfreed = 0;
	w.pool.ckpt_gen++;
}

static void checkpoint(void)
{
	assert_int_equal(vd_cache_write(&w.pool), 0);
	checkpoint_done();
}

static void cache_drop(uint64_t bytes)
{
	vd_cache_fini(&w.pool);
	assert_int_equal(w.errors, 0); /* nothing was held */
	cache_start(bytes);
}

static int set(struct vd_root *root, vd_vblk_t v, uint64_t len, enum vd_ext_kind kind, vd_pblk_t p, uint64_t birth, int64_t *mapped)
{
	struct vd_ext e = { .v = v, .len = len, .p = p, .birth = birth, .kind = kind };

	return vd_tree_set(&w.pool, root, 7, &e, 0, mapped);
}

/* ---- reference model ------------------------------------------------------ */

#define UNIVERSE 60000u
#define VOLUMES 6u
struct cell { uint8_t kind; uint32_t birth; vd_pblk_t p; };
static struct volume {
	bool used;
	struct vd_root root;
	int64_t mapped;
	struct cell *cell;
} vols[VOLUMES], saved_vols[VOLUMES];

static struct cell *cells(void)
{
	return calloc(UNIVERSE, sizeof(struct cell));
}

static void vols_free(struct volume *v)
{
	for (unsigned i = 0; i < VOLUMES; i++) {
		free(v[i].cell);
		memset(&v[i], 0, sizeof(v[i]));
	}
}

static void verify_contents(const struct volume *vol, bool exact_births)
{
	uint64_t v = 0, mapped = 0, ref = 0;

	while (v < UNIVERSE) {
		struct vd_ext x;

		assert_int_equal(vd_tree_find(&w.pool, &vol->root, v, 0, &x), 0);
		assert_int_equal(x.v, v);
		assert_true(x.len > 0 && x.len <= VD_VBLK_END - v);
		for (uint64_t i = 0; i < x.len && v + i < UNIVERSE; i++) {
			const struct cell *c = &vol->cell[v + i];

			assert_int_equal(c->kind, x.kind);
			if (x.kind == VD_HOLE)
				continue;
			if (x.kind == VD_DATA)
				assert_int_equal(c->p, x.p + i);
			if (exact_births)
				assert_int_equal(c->birth, x.birth);
			else
				assert_true(x.birth <= c->birth);
		}
		v += x.len;
	}
	for (v = 0; v < UNIVERSE; v++)
		ref += vol->cell[v].kind == VD_DATA;
	assert_int_equal(vol->mapped, ref);
	assert_int_equal(vd_tree_mapped(&w.pool, &vol->root, 0, VD_VBLK_END, &mapped), 0);
	assert_int_equal(mapped, ref);
}

static uint32_t *found[MEMBERS];
struct tally { uint64_t pages, nodes, extents; unsigned flags; };

static int tally_visit(void *arg, const struct vd_visit *v)
{
	struct tally *t = arg;
	const struct vd_disk_extents *d;

	assert_int_equal(v->err, 0);
	assert_true(v->lo < v->hi);
	if (found[0][VD_PBLK_BLOCK(v->ptr.a)]++)
		return 1;
	if (v->ptr.b != VD_PBLK_NONE)
		found[1][VD_PBLK_BLOCK(v->ptr.b)]++;
	t->nodes++;
	assert_int_equal(vd_node_verify(v->n), 0);
	if (v->level) {
		assert_int_equal(le64_to_cpu(vd_index_entry(v->n, 0)->key) < v->lo, 0);
		return 0;
	}
	t->pages++;
	d = v->n->data;
	assert_true(le16_to_cpu(d->h.count) > 0);
	for (unsigned i = 0; i < le16_to_cpu(d->h.count); i++) {
		struct vd_ext x;

		t->extents++;
		assert_int_equal(vd_extents_get(d, i, &x), 0);
		assert_true(x.v >= v->lo && x.v + x.len <= v->hi);
		if (x.kind == VD_DATA && !(t->flags & VD_TREE_NOREF))
			for (uint64_t k = 0; k < x.len; k++)
				found[VD_PBLK_MEMBER(x.p)][VD_PBLK_BLOCK(x.p) + k]++;
	}
	return 0;
}

/* Counts recomputed from the roots are the space layer's, block by block. */
static struct tally verify_counts(const struct volume *v, unsigned n)
{
	struct tally t = { 0 };

	for (unsigned m = 0; m < MEMBERS; m++)
		found[m] = calloc(BLOCKS, sizeof(uint32_t));
	for (unsigned i = 0; i < n; i++)
		if (v[i].used)
			assert_int_equal(vd_tree_walk(&w.pool, &v[i].root, VD_NODE_EXTENTS, tally_visit, &t), 0);
	for (unsigned m = 0; m < MEMBERS; m++) {
		for (unsigned i = 0; i < BLOCKS; i++)
			if (found[m][i] != w.count[m][i])
				fail_msg("block %u:%u: %u references, counted %u", m, i, found[m][i], w.count[m][i]);
		free(found[m]);
	}
	return t;
}

static void verify_all(bool exact_births)
{
	for (unsigned i = 0; i < VOLUMES; i++)
		if (vols[i].used)
			verify_contents(&vols[i], exact_births);
	verify_counts(vols, VOLUMES);
}

/* One random change of a volume; the model follows when it succeeds. */
static int random_change(struct volume *vol, uint32_t birth, unsigned style)
{
	uint64_t v = rnd() % UNIVERSE, len, dice = rnd() % 100;
	enum vd_ext_kind kind = dice < 65 ? VD_DATA : dice < 72 ? VD_ZERO : VD_HOLE;
	vd_pblk_t p = 0;
	int r;

	if (style == 1) /* filling up with single blocks */
		kind = dice < 98 ? VD_DATA : VD_HOLE;
	if (style == 2) /* thinning out */
		kind = dice < 15 ? VD_DATA : VD_HOLE;
	len = style == 1 ? 1 : style == 2 ? rnd() % 20 + 1 : rnd() % 200 == 0 ? rnd() % UNIVERSE + 1 : rnd() % 10 ? rnd() % 4 + 1 : rnd() % 400 + 1;
	if (kind == VD_DATA && len > 3000)
		len = 3000;
	len = vd_min(len, UNIVERSE - v);
	if (kind == VD_DATA && rnd() % 20 == 0 && v && vol->cell[v - 1].kind == VD_DATA && w.count[0][VD_PBLK_BLOCK(vol->cell[v - 1].p)]) {
		/* physically after its neighbour, which may have been given to another: any valid block will do */
		p = vol->cell[v - 1].p + 1;
		len = vd_min(len, (uint64_t)BLOCKS - VD_PBLK_BLOCK(p));
		if (!len)
			return 0;
	} else if (kind == VD_DATA) {
		if (DATA_FROM + w.next_data + len > BLOCKS - 8)
			w.next_data = 0; /* the model does not mind who shares what */
		p = data(len);
	}
	r = set(&vol->root, v, len, kind, p, birth, &vol->mapped);
	if (r)
		return r;
	for (uint64_t i = 0; i < len; i++)
		vol->cell[v + i] = (struct cell){ kind, birth, kind == VD_DATA ? p + i : 0 };
	return 0;
}

static int volume_delete(struct volume *vol)
{
	uint32_t left;
	vd_vblk_t below = VD_VBLK_END, last;
	int r = vd_tree_release(&w.pool, &vol->root, &left);

	while (!r && !left && below) {
		last = below;
		r = vd_tree_trim(&w.pool, &vol->root, 7, 1 + (unsigned)(rnd() % 20), &below);
		if (!r)
			assert_true(below < last || !below);
	}
	if (r)
		return r;
	free(vol->cell);
	memset(vol, 0, sizeof(*vol));
	return 0;
}

static int volume_snapshot(struct volume *to, const struct volume *from)
{
	int r = vd_tree_hold(&w.pool, &from->root);

	if (r)
		return r;
	*to = *from;
	to->cell = cells();
	memcpy(to->cell, from->cell, UNIVERSE * sizeof(*to->cell));
	return 0;
}

static int random_step(uint32_t birth, unsigned style)
{
	struct volume *v = &vols[rnd() % VOLUMES], *to = &vols[rnd() % VOLUMES];
	uint64_t dice = rnd() % 1000;

	if (!v->used) {
		if (dice > 50)
			return 0;
		v->used = true;
		v->cell = cells();
		return 0;
	}
	if (dice < 2)
		return volume_delete(v);
	if (dice < 6 && !to->used)
		return volume_snapshot(to, v);
	return random_change(v, birth, style);
}

static void state_save(void)
{
	vols_free(saved_vols);
	for (unsigned i = 0; i < VOLUMES; i++) {
		saved_vols[i] = vols[i];
		if (vols[i].cell) {
			saved_vols[i].cell = cells();
			memcpy(saved_vols[i].cell, vols[i].cell, UNIVERSE * sizeof(struct cell));
		}
	}
	for (unsigned m = 0; m < MEMBERS; m++)
		memcpy(w.saved[m], w.count[m], BLOCKS * sizeof(uint32_t));
}

/* The checkpoint failed: back to the last one. */
static void state_restore(void)
{
	w.fail_in = -1;
	vols_free(vols);
	for (unsigned i = 0; i < VOLUMES; i++) {
		vols[i] = saved_vols[i];
		memset(&saved_vols[i], 0, sizeof(saved_vols[i]));
	}
	for (unsigned m = 0; m < MEMBERS; m++)
		memcpy(w.count[m], w.saved[m], BLOCKS * sizeof(uint32_t));
	w.nfreed = 0;
	w.nfree_nodes = 0;
	for (uint32_t i = VD_SYSTEM_BLOCKS; i < w.next_node; i++)
		if (!w.count[0][i])
			freed(VD_PBLK(0, i));
	vd_cache_abort(&w.pool);
	checkpoint_done();
}

static void volumes_delete(void)
{
	for (unsigned i = 0; i < VOLUMES; i++)
		if (vols[i].used)
			assert_int_equal(volume_delete(&vols[i]), 0);
	for (unsigned m = 0; m < MEMBERS; m++)
		for (unsigned i = 0; i < BLOCKS; i++)
			assert_int_equal(w.count[m][i], 0);
}

static unsigned scale(unsigned n)
{
	const char *s = getenv("VD_TEST_SCALE");
	unsigned k = s ? (unsigned)atoi(s) : 100;

	return n * k / 100 ? n * k / 100 : 1;
}

/* ---- tests ---------------------------------------------------------------- */
