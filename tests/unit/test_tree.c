/* link: dm-target/core/node.c dm-target/core/tree.c dm-target/core/extents.c libvol/port.c dm-target/core/memory.c */
/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The node cache and the trees, over a disk in memory and a space layer that is
 * two arrays of counts.  Numbers in comments are the invariants of node.c (N),
 * tree.c and extents.c (T).
 */
#include "treerig.h"

static void model_random_changes_and_snapshots(void **state)
{
	(void)state;
	cache_start(300 * VD_BLOCK);
	for (unsigned gen = 1; gen <= scale(24); gen++) {
		unsigned style = gen % 8 == 1 ? 1 : gen % 4 == 2 ? 2 : 0;
		unsigned steps = style == 1 ? 12000 : style == 2 ? 5000 : 700;

		for (unsigned i = 0; i < steps; i++)
			assert_int_equal(random_step(gen, style), 0);
		checkpoint();
		if (rnd() % 3 == 0)
			cache_drop((rnd() % 2 ? 70 : 2000) * VD_BLOCK);
		verify_all(gen <= 16);
	}
	volumes_delete();
	checkpoint();
	vols_free(vols);
}

static void failures_at_every_step_lose_nothing(void **state)
{
	unsigned failures = 0;

	(void)state;
	cache_start(200 * VD_BLOCK);
	for (unsigned i = 0; i < 9000; i++)
		assert_int_equal(random_step(1, i < 6000 ? 1 : i < 7500 ? 2 : 0), 0);
	checkpoint();
	for (unsigned trial = 0; trial < scale(150); trial++) {
		int r = 0;

		state_save();
		if (rnd() % 3 == 0)
			cache_drop(200 * VD_BLOCK);
		w.failed = false;
		w.fail_in = (long)(rnd() % (trial % 2 ? 2000 : 60));
		for (unsigned i = 0; i < 60 && !r; i++)
			r = random_step(trial + 2, trial % 3 ? 0 : 2);
		if (!r)
			r = vd_cache_write(&w.pool);
		w.fail_in = -1;
		if (r) {
			assert_true(w.failed);
			assert_true(r == -EIO || r == -ENOMEM || r == -ENOSPC);
			failures++;
			state_restore();
		} else {
			checkpoint_done();
		}
		w.errors = 0;
		if (trial % 10 == 0)
			verify_all(false);
	}
	verify_all(false);
	w.errors = 0;
	cache_drop(200 * VD_BLOCK);
	volumes_delete();
	vols_free(vols);
	vols_free(saved_vols);
	assert_true(failures > scale(150) / 4);
}

static void random_blocks_take_36_bytes_at_worst(void **state)
{
	const unsigned batch = 50000, batches = scale(20);
	struct volume vol = { .used = true };
	uint64_t blocks = 0, *v = malloc(batch * sizeof(*v));
	double worst = 0;

	(void)state;
	cache_start(64 << 20);
	for (unsigned b = 0; b < batches; b++) {
		struct tally t;

		for (unsigned i = 0; i < batch; i++)
			v[i] = rnd() % (1ull << 28);
		for (unsigned gap = batch / 2; gap; gap /= 2) /* as a fold gives them: ascending */
			for (unsigned i = gap; i < batch; i++)
				for (unsigned j = i; j >= gap && v[j - gap] > v[j]; j -= gap) {
					uint64_t x = v[j];

					v[j] = v[j - gap];
					v[j - gap] = x;
				}
		for (unsigned i = 0; i < batch; i++)
			assert_int_equal(set(&vol.root, v[i], 1, VD_DATA, data(1), 1 + b / 4, &vol.mapped), 0);
		checkpoint();
		t = verify_counts(&vol, 1);
		blocks = (uint64_t)vol.mapped;
		if ((double)t.nodes * 4096 / (double)blocks > worst)
			worst = (double)t.nodes * 4096 / (double)blocks;
		print_message("  %7llu blocks: %5llu pages, %llu nodes, %.1f bytes a block\n", (unsigned long long)blocks,
			      (unsigned long long)t.pages, (unsigned long long)t.nodes, (double)t.nodes * 4096 / (double)blocks);
	}
	print_message("  worst: %.1f bytes a block; early and final writes: %lu blocks in %lu writes\n", worst, w.blocks_written, w.writes);
	assert_true(worst <= 36);
	free(v);
}

static void sequential_100_gib_takes_few_pages(void **state)
{
	struct volume vol = { .used = true };
	struct tally t = { .flags = VD_TREE_NOREF };

	(void)state;
	cache_start(1 << 20);
	for (unsigned i = 0; i < 400; i++) {
		struct vd_ext e = { .v = i * 65536ull, .len = 65536, .p = VD_PBLK(0, 16 + i * 65600ull), .birth = 1, .kind = VD_DATA };

		assert_int_equal(vd_tree_set(&w.pool, &vol.root, 1, &e, VD_TREE_NOREF, &vol.mapped), 0);
	}
	for (unsigned m = 0; m < MEMBERS; m++)
		found[m] = calloc(BLOCKS, sizeof(uint32_t));
	assert_int_equal(vd_tree_walk(&w.pool, &vol.root, VD_NODE_EXTENTS, tally_visit, &t), 0);
	for (unsigned m = 0; m < MEMBERS; m++)
		free(found[m]);
	print_message("  100 GiB in 400 extents: %llu pages, %llu nodes\n", (unsigned long long)t.pages, (unsigned long long)t.nodes);
	assert_int_equal(t.extents, 400);
	assert_int_equal(t.pages, 2);
}

static void long_data_is_cut_and_contiguous_data_joins(void **state)
{
	struct volume vol = { .used = true };
	struct vd_ext x;
	struct tally t;

	(void)state;
	cache_start(1 << 20);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(set(&vol.root, 500 + i, 1, VD_DATA, data(1), 3, &vol.mapped), 0);
	assert_int_equal(verify_counts(&vol, 1).extents, 1);
	assert_int_equal(set(&vol.root, 10000, 200000, VD_DATA, data(200000), 3, &vol.mapped), 0);
	t = verify_counts(&vol, 1);
	assert_int_equal(t.extents, 1 + 4);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10000 + 65536, 0, &x), 0);
	assert_int_equal(x.len, 65536);
	/* another birth, or another place, does not join */
	assert_int_equal(set(&vol.root, 1500, 1, VD_DATA, data(1), 3, &vol.mapped), 0);
	assert_int_equal(set(&vol.root, 1501, 1, VD_DATA, VD_PBLK(0, DATA_FROM + w.next_data), 4, &vol.mapped), 0);
	w.next_data++;
	assert_int_equal(verify_counts(&vol, 1).extents, 7);
	assert_int_equal(vol.mapped, 201002);
}

static void zero_spans_everything(void **state)
{
	struct volume vol = { .used = true };
	struct vd_ext x;

	(void)state;
	cache_start(1 << 20);
	for (unsigned i = 0; i < 3000; i++)
		assert_int_equal(set(&vol.root, i * 1000000007ull, 1, VD_DATA, data(1), 3, &vol.mapped), 0);
	assert_int_equal(set(&vol.root, 0, VD_VBLK_END, VD_ZERO, 0, 4, &vol.mapped), 0);
	assert_int_equal(vol.mapped, 0);
	assert_int_equal(verify_counts(&vol, 1).nodes, 1);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 77, 0, &x), 0);
	assert_int_equal(x.kind, VD_ZERO);
	assert_int_equal(x.len, VD_VBLK_END - 77);
	checkpoint();
	cache_drop(1 << 20);
	assert_int_equal(set(&vol.root, 1ull << 40, 1, VD_HOLE, 0, 0, &vol.mapped), 0);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 77, 0, &x), 0);
	assert_int_equal(x.len, (1ull << 40) - 77);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 1ull << 40, 0, &x), 0);
	assert_int_equal(x.kind, VD_HOLE);
	assert_int_equal(x.len, 1);
	assert_int_equal(set(&vol.root, 0, VD_VBLK_END, VD_HOLE, 0, 0, &vol.mapped), 0);
	assert_int_equal(vol.root.ptr.gen, 0);
	verify_counts(&vol, 1);
}

static void build(struct volume *vol, unsigned extents)
{
	vol->used = true;
	for (unsigned i = 0; i < extents; i++)
		assert_int_equal(set(&vol->root, i * 10ull, 1, VD_DATA, data(1), 1, &vol->mapped), 0);
}

static void covered_shared_subtree_is_not_read(void **state)
{
	struct volume vol[2] = { 0 };
	unsigned long reads;

	(void)state;
	cache_start(64 * VD_BLOCK);
	build(&vol[0], 100000);
	assert_int_equal(vol[0].root.height, 2);
	checkpoint();
	vol[1] = vol[0];
	assert_int_equal(vd_tree_hold(&w.pool, &vol[0].root), 0);
	cache_drop(64 * VD_BLOCK);
	reads = w.reads;
	assert_int_equal(set(&vol[0].root, 15, 999000, VD_HOLE, 0, 0, NULL), 0);
	assert_true(w.reads - reads <= 12);
	verify_counts(vol, 2);
	checkpoint();
	reads = w.reads;
	cache_drop(64 * VD_BLOCK);
	assert_int_equal(set(&vol[1].root, 0, VD_VBLK_END, VD_HOLE, 0, 0, &vol[1].mapped), 0);
	assert_int_equal(vol[1].mapped, 0);
	verify_counts(vol, 2);
	assert_int_equal(vd_tree_mapped(&w.pool, &vol[0].root, 0, VD_VBLK_END, (uint64_t *)&vol[0].mapped), 0);
	assert_int_equal(vol[0].mapped, 2 + 100000 - 99902);
}

static void unmapping_a_hole_copies_nothing(void **state)
{
	struct volume vol = { 0 };
	unsigned long written;

	(void)state;
	cache_start(1 << 20);
	build(&vol, 5000);
	checkpoint();
	written = vd_cache_written(&w.pool);
	assert_int_equal(set(&vol.root, 1, 9, VD_HOLE, 0, 0, &vol.mapped), 0);
	assert_int_equal(set(&vol.root, 50000, 1ull << 45, VD_HOLE, 0, 0, &vol.mapped), 0);
	checkpoint();
	assert_int_equal(vd_cache_written(&w.pool), written);
}

static void births_round_down_and_the_newest_stay(void **state)
{
	struct volume vol = { .used = true };
	struct vd_ext x;

	(void)state;
	cache_start(1 << 20);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(set(&vol.root, i * 2, 1, VD_DATA, data(1), 100 + i, &vol.mapped), 0);
		for (unsigned k = 0; k <= i; k++) {
			assert_int_equal(vd_tree_find(&w.pool, &vol.root, k * 2, 0, &x), 0);
			if (i - k < VD_BIRTHS - 1)
				assert_int_equal(x.birth, 100 + k);
			else
				assert_int_equal(x.birth, 100);
		}
	}
	assert_int_equal(set(&vol.root, 1001, 1, VD_DATA, data(1), 5, &vol.mapped), 0);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 0, 0, &x), 0);
	assert_int_equal(x.birth, 5);
	assert_int_equal(set(&vol.root, 1003, 1, VD_DATA, data(1), 50, &vol.mapped), 0);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 1003, 0, &x), 0);
	assert_int_equal(x.birth, 5);
}

static void common_ranges_are_found(void **state)
{
	struct volume vol[2] = { 0 };
	uint64_t v, len, differ = 0, steps = 0;

	(void)state;
	cache_start(16 << 20);
	build(&vol[0], 100000);
	checkpoint();
	vol[1] = vol[0];
	assert_int_equal(vd_tree_hold(&w.pool, &vol[0].root), 0);
	assert_int_equal(vd_tree_common(&w.pool, &vol[0].root, &vol[1].root, 5, &len), 0);
	assert_int_equal(len, VD_VBLK_END - 5);
	assert_int_equal(set(&vol[1].root, 500001, 1, VD_DATA, data(1), 2, &vol[1].mapped), 0);
	for (v = 0; v < 1000000; steps++) {
		assert_int_equal(vd_tree_common(&w.pool, &vol[0].root, &vol[1].root, v, &len), 0);
		if (!len) {
			differ++;
			len = 1;
		}
		v += len;
	}
	assert_int_equal(differ, 1);
	assert_true(steps < 300); /* nodes and pages, not the 100,000 extents */
	verify_counts(vol, 2);
}

static void writes_are_sorted_and_joined(void **state)
{
	struct volume vol = { 0 };

	(void)state;
	cache_start(16 << 20);
	build(&vol, 40000);
	assert_int_equal(w.writes, 0);
	checkpoint();
	assert_int_equal(w.largest, 64);
	assert_true(w.writes <= 2 * (w.blocks_written / 2 / 64 + 1));
	checkpoint();
	assert_int_equal(vd_cache_written(&w.pool), w.blocks_written);
}

/* ---- damage ---------------------------------------------------------------- */

static void reseal(uint8_t *d)
{
	static const uint8_t zero[4];
	uint32_t crc;

	memcpy(d + 4, zero, 4);
	crc = vd_port_crc32c(~0u, d, VD_BLOCK);
	((struct vd_disk_node *)d)->crc = cpu_to_le32(crc);
}

static void a_bad_copy_is_healed(void **state)
{
	struct volume vol = { 0 };
	uint8_t *a, *b, good[VD_BLOCK];
	struct vd_ext x;

	(void)state;
	cache_start(16 << 20);
	build(&vol, 100);
	checkpoint();
	a = w.block[0][VD_PBLK_BLOCK(vol.root.ptr.a)];
	b = w.block[1][VD_PBLK_BLOCK(vol.root.ptr.b)];
	assert_memory_equal(a, b, VD_BLOCK);
	memcpy(good, a, VD_BLOCK);

	for (unsigned how = 0; how < 5; how++) {
		memcpy(a, good, VD_BLOCK);
		w.read_error = VD_PBLK_NONE;
		switch (how) {
		case 0: a[1000] ^= 4; break; /* a flipped bit */
		case 1: memset(a, 0, VD_BLOCK); break; /* never written */
		case 2: ((struct vd_disk_node *)a)->gen = cpu_to_le64(77); reseal(a); break; /* a lost write */
		case 3: ((struct vd_disk_node *)a)->a = cpu_to_le64(99); reseal(a); break; /* misdirected */
		case 4: w.read_error = vol.root.ptr.a; a[9] ^= 1; break;
		}
		cache_drop(16 << 20);
		w.warnings = 0;
		assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), 0);
		assert_int_equal(x.kind, VD_DATA);
		assert_int_equal(w.warnings, 2);
		assert_memory_equal(a, good, VD_BLOCK);
	}
	/* not in a pool that may not be written */
	w.read_error = VD_PBLK_NONE;
	a[1000] ^= 4;
	cache_drop(16 << 20);
	vd_atomic_set(&w.pool.mode, VD_MODE_READONLY);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), 0);
	assert_memory_not_equal(a, good, VD_BLOCK);
	/* both bad */
	b[1000] ^= 4;
	cache_drop(16 << 20);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), -EBADMSG);
	((struct vd_disk_node *)a)->gen = cpu_to_le64(77);
	reseal(a);
	memcpy(b, a, VD_BLOCK);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), -EUCLEAN);
	w.errors = 0;
}

static void one_copy_is_enough_for_one_member(void **state)
{
	struct volume vol = { 0 };
	struct vd_ext x;

	(void)state;
	w.single = true;
	cache_start(16 << 20);
	build(&vol, 3000);
	checkpoint();
	verify_counts(&vol, 1);
	cache_drop(16 << 20);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), 0);
	assert_int_equal(x.kind, VD_DATA);
	cache_drop(16 << 20);
	w.block[0][VD_PBLK_BLOCK(vol.root.ptr.a)][77] ^= 1;
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), -EBADMSG);
	assert_int_equal(w.errors, 1);
	w.read_error = vol.root.ptr.a;
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), -EIO);
	w.pool.member[0].missing = true;
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), -ENODEV);
	w.errors = 0;
}

static void nowait_does_not_read(void **state)
{
	struct volume vol = { 0 };
	struct vd_ext x;

	(void)state;
	cache_start(16 << 20);
	build(&vol, 1000);
	checkpoint();
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, VD_NODE_NOWAIT, &x), 0);
	cache_drop(16 << 20);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, VD_NODE_NOWAIT, &x), -EWOULDBLOCK);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, 0, &x), 0);
	assert_int_equal(vd_tree_find(&w.pool, &vol.root, 10, VD_NODE_NOWAIT, &x), 0);
}

static void an_address_used_again_is_another_node(void **state)
{
	struct volume vol = { 0 }, other = { .used = true };
	struct vd_root old;
	struct vd_ext x;
	vd_vblk_t left;

	(void)state;
	cache_start(16 << 20);
	build(&vol, 10);
	checkpoint();
	old = vol.root;
	assert_int_equal(vd_tree_trim(&w.pool, &vol.root, 1, 100, &left), 0);
	assert_int_equal(left, 0);
	checkpoint();
	assert_int_equal(set(&other.root, 5, 1, VD_ZERO, 0, 9, &other.mapped), 0);
	assert_int_equal(other.root.ptr.a, old.ptr.a);
	assert_int_equal(vd_tree_find(&w.pool, &other.root, 5, 0, &x), 0);
	assert_int_equal(x.kind, VD_ZERO);
	assert_int_equal(vd_tree_find(&w.pool, &old, 5, 0, &x), -EUCLEAN);
	checkpoint();
	cache_drop(16 << 20);
	w.pool.mode.v = VD_MODE_READONLY; /* a stale pointer is not to repair anything */
	assert_int_equal(vd_tree_find(&w.pool, &old, 5, 0, &x), -EUCLEAN);
	assert_int_equal(vd_tree_find(&w.pool, &other.root, 5, 0, &x), 0);
	w.errors = 0;
}

static int count_visit(void *arg, const struct vd_visit *v)
{
	(void)v;
	++*(uint64_t *)arg;
	return 0;
}

/* Whatever a node holds, with a right checksum: an answer or an error, in bounded time. */
static void hostile_nodes_give_errors_only(void **state)
{
	struct volume vol = { 0 }, snap;
	const unsigned rounds = scale(1200);
	unsigned errors = 0;
	uint32_t first, last;

	(void)state;
	cache_start(16 << 20);
	build(&vol, 40000);
	checkpoint();
	first = VD_SYSTEM_BLOCKS;
	last = w.next_node;
	assert_true(vol.root.height == 2);
	state_save();
	for (unsigned round = 0; round < rounds; round++) {
		struct vd_root root = vol.root, two = vol.root;
		uint32_t at = rnd() % 3 ? first + (uint32_t)(rnd() % (last - first)) : (uint32_t)VD_PBLK_BLOCK(root.ptr.a);
		uint8_t *a = w.block[0][at], *b = w.block[1][at + 3], keep[VD_BLOCK];
		uint64_t n, len;
		struct vd_ext x;
		int64_t mapped = 0;
		vd_vblk_t left = VD_VBLK_END;
		uint32_t count;
		int r = 0;

		memcpy(keep, a, VD_BLOCK);
		switch (rnd() % 4) {
		case 0: /* everything behind the head */
			for (unsigned i = 64; i < VD_BLOCK; i++)
				a[i] = (uint8_t)rnd();
			break;
		case 1: /* a few bytes anywhere but where identity is */
			for (unsigned i = 0; i < 8; i++)
				a[42 + rnd() % (VD_BLOCK - 42)] = (uint8_t)rnd();
			break;
		case 2: /* a few entries bytes */
			for (unsigned i = 0; i < 3; i++)
				a[64 + rnd() % (VD_BLOCK - 64)] ^= (uint8_t)(1u << rnd() % 8);
			break;
		case 3: { /* the contents of another node under this one's name */
			uint32_t from = first + (uint32_t)(rnd() % (last - first));
			memcpy(a + 42, w.block[0][from] + 42, VD_BLOCK - 42);
			break;
		}
		}
		reseal(a);
		memcpy(b, a, VD_BLOCK);
		vd_cache_fini(&w.pool);
		cache_start(16 << 20);
		for (unsigned i = 0; i < 60 && !r; i++)
			r = vd_tree_find(&w.pool, &root, rnd() % 400000, 0, &x);
		errors += r != 0;
		n = 0;
		r = vd_tree_walk(&w.pool, &root, VD_NODE_EXTENTS, count_visit, &n);
		assert_true(n < 20000);
		n = 0;
		r = vd_tree_walk(&w.pool, &root, VD_NODE_SPACE, count_visit, &n);
		assert_true(n < 20000);
		r = vd_tree_mapped(&w.pool, &root, 0, VD_VBLK_END, &n);
		errors += r != 0;
		r = vd_tree_common(&w.pool, &root, &two, rnd() % 400000, &len);
		r = vd_tree_hold(&w.pool, &root);
		for (unsigned i = 0; i < 20 && !r; i++)
			r = set(&two, rnd() % 400000, rnd() % 20 ? rnd() % 3 + 1 : rnd() % 100000 + 1,
				rnd() % 2 ? VD_DATA : VD_HOLE, VD_PBLK(0, DATA_FROM + rnd() % 1000), 2, &mapped);
		errors += r != 0;
		if (!r)
			r = vd_tree_release(&w.pool, &two, &count);
		for (unsigned i = 0; i < 2000 && !r && left; i++)
			r = vd_tree_trim(&w.pool, &root, 1, 5, &left);
		errors += r != 0;
		memcpy(a, keep, VD_BLOCK);
		memcpy(b, keep, VD_BLOCK);
		w.errors = 0;
		/* everything of that checkpoint is thrown away */
		for (unsigned m = 0; m < MEMBERS; m++)
			memcpy(w.count[m], w.saved[m], BLOCKS * sizeof(uint32_t));
		vd_cache_abort(&w.pool);
		w.nfreed = w.nfree_nodes = 0;
		w.next_node = last;
		w.pool.ckpt_gen++;
	}
	snap = vol;
	cache_drop(16 << 20);
	verify_counts(&snap, 1);
	print_message("  %u rounds, %u errors\n", rounds, errors);
	assert_true(errors > rounds / 4);
}

/* ---- trees of pages ---------------------------------------------------------- */

#define KEYS 30000u
static void ptree_follows_its_model(void **state)
{
	struct { uint32_t aux; bool in; uint64_t val; } *ref = calloc(KEYS, sizeof(*ref));
	struct vd_root root = { 0 };
	uint64_t live = 0;

	(void)state;
	cache_start(100 * VD_BLOCK);
	for (unsigned gen = 0; gen < scale(30); gen++) {
		unsigned most = gen % 10 < 6 ? 90 : 15; /* growing, then shrinking */
		struct tally t = { 0 };

		for (unsigned i = 0; i < 3000; i++) {
			uint32_t k = (uint32_t)(rnd() % KEYS);
			struct vd_slot s = { k * 8ull, { k * 3 + gen, VD_PBLK_NONE, 0 }, rnd() % 50 ? 0 : (uint32_t)rnd() };
			int r;

			if (rnd() % 100 < most) {
				assert_int_equal(vd_ptree_set(&w.pool, &root, VD_NODE_SPACE, &s), 0);
				live += !ref[k].in;
				ref[k].in = true;
				ref[k].aux = s.aux;
				ref[k].val = s.ptr.a;
			} else {
				r = vd_ptree_del(&w.pool, &root, s.key);
				assert_int_equal(r, ref[k].in ? 0 : -ENODATA);
				live -= ref[k].in;
				ref[k].in = false;
			}
		}
		checkpoint();
		if (gen % 3 == 0)
			cache_drop(100 * VD_BLOCK);
		for (int aux = 0; aux < 2; aux++) {
			uint64_t key = 0;

			for (uint32_t k = 0; k <= KEYS; k++) {
				struct vd_slot s;
				int r;

				if (k < KEYS && (!ref[k].in || (aux && !ref[k].aux)))
					continue;
				r = vd_ptree_next(&w.pool, &root, key, aux, 0, &s);
				if (k == KEYS) {
					assert_int_equal(r, -ENODATA);
					break;
				}
				assert_int_equal(r, 0);
				assert_int_equal(s.key, k * 8ull);
				assert_int_equal(s.ptr.a, ref[k].val);
				assert_int_equal(s.aux, ref[k].aux);
				key = s.key + 1;
			}
		}
		(void)t;
	}
	for (uint32_t k = 0; k < KEYS; k++)
		if (ref[k].in)
			assert_int_equal(vd_ptree_del(&w.pool, &root, k * 8ull), 0);
	assert_int_equal(root.ptr.gen, 0);
	for (uint32_t i = 0; i < BLOCKS; i++)
		assert_int_equal(w.count[0][i] + w.count[1][i], 0);
	free(ref);
}

static void ptree_failures_leave_the_old_tree(void **state)
{
	struct vd_root root = { 0 }, old;
	unsigned failures = 0;

	(void)state;
	cache_start(64 * VD_BLOCK);
	for (uint64_t k = 0; k < 20000; k++) {
		struct vd_slot s = { k * 8, { k + 1, VD_PBLK_NONE, 0 }, 1 };

		assert_int_equal(vd_ptree_set(&w.pool, &root, VD_NODE_SPACE, &s), 0);
	}
	checkpoint();
	for (unsigned trial = 0; trial < scale(300); trial++) {
		uint64_t from = rnd() % 19000;
		int r = 0;

		state_save();
		old = root;
		w.fail_in = (long)(rnd() % 60);
		for (unsigned i = 0; i < 100 && !r; i++) {
			struct vd_slot s = { (from + i) * 8 + 1, { 5, VD_PBLK_NONE, 0 }, 0 };

			r = vd_ptree_set(&w.pool, &root, VD_NODE_SPACE, &s);
			if (!r)
				r = vd_ptree_del(&w.pool, &root, (from + i) * 8);
			if (!r) {
				s.key--;
				s.ptr.a = from + i + 1;
				s.aux = 1;
				r = vd_ptree_set(&w.pool, &root, VD_NODE_SPACE, &s);
			}
			if (!r)
				r = vd_ptree_del(&w.pool, &root, s.key + 1);
		}
		if (!r)
			r = vd_cache_write(&w.pool);
		if (r) {
			assert_true(r == -EIO || r == -ENOMEM || r == -ENOSPC);
			failures++;
			state_restore();
			root = old;
		} else {
			w.fail_in = -1;
			checkpoint_done();
		}
		w.errors = 0;
		if (trial % 20 == 0)
			cache_drop(64 * VD_BLOCK);
		for (unsigned i = 0; i < 200; i++) {
			struct vd_slot s;

			assert_int_equal(vd_ptree_next(&w.pool, &root, (from + i) * 8 - !!from, i & 1, 0, &s), 0);
			assert_int_equal(s.key, (from + i) * 8);
			assert_int_equal(s.ptr.a, from + i + 1);
		}
	}
	assert_true(failures > scale(300) / 2);
}

static int slot_visit(void *arg, const struct vd_visit *v)
{
	if (!v->level) {
		assert_non_null(v->slot);
		assert_int_equal(v->lo, v->slot->key);
		assert_int_equal(v->slot->ptr.a, v->slot->key / 8 + 1);
		++*(uint64_t *)arg;
	}
	return 0;
}

static void walk_shows_uniform_groups(void **state)
{
	struct vd_root root = { 0 };
	uint64_t n = 0;

	(void)state;
	cache_start(1 << 20);
	for (unsigned i = 0; i < 1000; i++) {
		struct vd_slot s = { i * 8, { i + 1, VD_PBLK_NONE, 0 }, 0 };

		assert_int_equal(vd_ptree_set(&w.pool, &root, VD_NODE_SPACE, &s), 0);
	}
	assert_int_equal(vd_tree_walk(&w.pool, &root, VD_NODE_SPACE, slot_visit, &n), 0);
	assert_int_equal(n, 1000);
}

/* ---- threads ------------------------------------------------------------------ */

static struct vd_root shared_root;
static int stop;

static void *reader(void *arg)
{
	uint64_t x = (uintptr_t)arg * 7919 + 1, n = 0;

	/* One at least: it may come to run when all is over. */
	do {
		struct vd_ext e;
		int r;

		x = x * 6364136223846793005ull + 1442695040888963407ull;
		r = vd_tree_find(&w.pool, &shared_root, (x >> 33) % 200000, 0, &e);
		if (r || (e.kind == VD_DATA) != (e.v % 10 == 0))
			return (void *)(intptr_t)-1;
		n++;
	} while (!__atomic_load_n(&stop, __ATOMIC_RELAXED));
	return (void *)(intptr_t)n;
}

static void readers_run_beside_a_checkpoint(void **state)
{
	struct volume vol[2] = { 0 };
	pthread_t t[3];
	uint64_t finds = 0;

	(void)state;
	cache_start(64 * VD_BLOCK);
	build(&vol[0], 20000);
	checkpoint();
	vol[1] = vol[0];
	assert_int_equal(vd_tree_hold(&w.pool, &vol[0].root), 0);
	shared_root = vol[1].root;
	stop = 0;
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)i), 0);
	for (unsigned gen = 0; gen < scale(6); gen++) {
		vd_vblk_t left = 1;

		for (unsigned i = 0; i < 800; i++)
			assert_int_equal(set(&vol[0].root, rnd() % 200000, 1 + rnd() % 20, rnd() % 3 ? VD_DATA : VD_HOLE,
					     VD_PBLK(0, DATA_FROM + rnd() % 100000), gen + 2, &vol[0].mapped), 0);
		checkpoint();
		if (gen % 2) {
			while (left)
				assert_int_equal(vd_tree_trim(&w.pool, &vol[0].root, 1, 7, &left), 0);
			checkpoint();
			vol[0].root = vol[1].root;
			assert_int_equal(vd_tree_hold(&w.pool, &vol[1].root), 0);
		}
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < 3; i++) {
		void *n;

		pthread_join(t[i], &n);
		assert_true((intptr_t)n > 0);
		finds += (uint64_t)(intptr_t)n;
	}
	print_message("  %llu look-ups beside it\n", (unsigned long long)finds);
	verify_counts(vol, 2);
}

#ifdef TALL
#define FULL_NODES_ONLY(f)
#else
#define FULL_NODES_ONLY(f) T(f),
#endif
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(long_data_is_cut_and_contiguous_data_joins),
		T(zero_spans_everything),
		FULL_NODES_ONLY(covered_shared_subtree_is_not_read)
		T(unmapping_a_hole_copies_nothing),
		FULL_NODES_ONLY(births_round_down_and_the_newest_stay)
		FULL_NODES_ONLY(common_ranges_are_found)
		FULL_NODES_ONLY(writes_are_sorted_and_joined)
		FULL_NODES_ONLY(sequential_100_gib_takes_few_pages)
		FULL_NODES_ONLY(a_bad_copy_is_healed)
		FULL_NODES_ONLY(one_copy_is_enough_for_one_member)
		T(nowait_does_not_read),
		FULL_NODES_ONLY(an_address_used_again_is_another_node)
		T(ptree_follows_its_model),
		T(ptree_failures_leave_the_old_tree),
		T(walk_shows_uniform_groups),
		T(readers_run_beside_a_checkpoint),
		FULL_NODES_ONLY(hostile_nodes_give_errors_only)
		T(model_random_changes_and_snapshots),
		T(failures_at_every_step_lose_nothing),
		FULL_NODES_ONLY(random_blocks_take_36_bytes_at_worst)
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
