/* link: dm-target/core/space.c dm-target/core/space_alloc.c dm-target/core/space_fold.c dm-target/core/space_stage.c dm-target/core/memory.c */
// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Random operations against a model, and each allocation and read failing in turn.
 */
#include "space_fake.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(random_operations_agree_with_a_model),
		T(every_allocation_may_fail),
		T(every_metadata_read_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
