// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * overlay.c against an array that holds one cell a block, and CRC32C against
 * the vectors of RFC 3720, B.4.  O1-O4 are the invariants at overlay.c's head.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka wants the four above first */
#include <cmocka.h>

#include "overlay.h"

static unsigned live; /* allocations not freed */
static unsigned no_nodes; /* of ten nodes of the index, for how many there is no memory */

static void *host_alloc(void *ctx, size_t size, int how)
{
	static unsigned turn;

	(void)ctx;
	if (how == VD_ALLOC_NOWAIT && ++turn * 7 % 10 < no_nodes)
		return NULL;
	live++;
	return malloc(size);
}

static void host_free(void *ctx, void *p)
{
	(void)ctx;
	live--;
	free(p);
}

static const struct vd_host host = { .alloc = host_alloc, .free = host_free };

struct displaced { struct vd_ext e[256]; unsigned n; };

static void collect(void *arg, const struct vd_ext *piece)
{
	struct displaced *d = arg;

	assert_true(d->n < 256);
	d->e[d->n++] = *piece;
}

static struct vd_ext ext(uint64_t v, uint64_t len, enum vd_ext_kind kind, uint64_t p, uint64_t birth)
{
	struct vd_ext e = { .v = v, .len = len, .p = kind == VD_DATA ? p : VD_PBLK_NONE, .birth = birth, .kind = kind };

	return e;
}

/* Answers whether the spare was used. */
static bool put(struct vd_ov *ov, struct vd_ext e, uint64_t cut, struct displaced *d)
{
	struct vd_ov_leaf *spare = vd_ov_leaf_new(&host, VD_ALLOC_WAIT);
	bool used;

	if (d)
		d->n = 0;
	vd_ov_insert(ov, &e, cut, &spare, d ? collect : NULL, d);
	used = !spare;
	vd_ov_leaf_free(&host, spare);
	return used;
}

static void assert_ext(struct vd_ext got, struct vd_ext want)
{
	assert_int_equal(got.v, want.v);
	assert_int_equal(got.len, want.len);
	assert_int_equal(got.kind, want.kind);
	assert_int_equal(got.birth, want.birth);
	if (want.kind == VD_DATA)
		assert_int_equal(got.p, want.p);
}

static void assert_list(const struct vd_ov *ov, const struct vd_ext *want, unsigned n)
{
	struct vd_ext e;
	uint64_t v = 0;
	unsigned i;

	for (i = 0; vd_ov_next(ov, v, &e); i++) {
		assert_true(i < n);
		assert_ext(e, want[i]);
		v = e.v + e.len;
	}
	assert_int_equal(i, n);
	assert_int_equal(ov->count, n);
}
#define assert_holds(ov, ...) \
	do { \
		const struct vd_ext want_[] = { __VA_ARGS__ }; \
		assert_list(ov, want_, sizeof(want_) / sizeof(want_[0])); \
	} while (0)

static int setup(void **state)
{
	struct vd_ov *ov = malloc(sizeof(*ov));

	live = 0;
	*state = ov;
	return vd_ov_init(ov, &host);
}

static int teardown(void **state)
{
	vd_ov_fini(*state);
	free(*state);
	return live ? -1 : 0;
}

static void an_empty_overlay_finds_nothing_up_to_the_end(void **state)
{
	struct vd_ov *ov = *state;
	struct vd_ext e;

	assert_true(vd_ov_empty(ov));
	assert_false(vd_ov_find(ov, 5, &e));
	assert_int_equal(e.v, 5);
	assert_int_equal(e.len, VD_VBLK_END - 5);
	assert_false(vd_ov_next(ov, 0, &e));
}

static void find_clips_at_its_start_and_not_at_the_end(void **state)
{
	struct vd_ov *ov = *state;
	struct vd_ext e;

	put(ov, ext(10, 10, VD_DATA, 100, 3), 0, NULL);
	assert_true(vd_ov_find(ov, 13, &e));
	assert_ext(e, ext(13, 7, VD_DATA, 103, 3));
	assert_true(vd_ov_next(ov, 13, &e));
	assert_ext(e, ext(10, 10, VD_DATA, 100, 3));
	assert_false(vd_ov_find(ov, 4, &e));
	assert_int_equal(e.len, 6);
	assert_false(vd_ov_find(ov, 20, &e));
	assert_int_equal(e.len, VD_VBLK_END - 20);
}

static void sequential_data_joins_into_one(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, 4, VD_DATA, 100, 1), 0, NULL);
	put(ov, ext(4, 4, VD_DATA, 104, 1), 0, NULL);
	put(ov, ext(12, 4, VD_DATA, 112, 1), 0, NULL);
	put(ov, ext(8, 4, VD_DATA, 108, 1), 0, NULL);
	assert_holds(ov, ext(0, 16, VD_DATA, 100, 1));
}

static void a_neighbour_behind_grows_towards_the_front(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(8, 8, VD_DATA, 108, 2), 0, NULL);
	put(ov, ext(4, 4, VD_DATA, 104, 1), 0, NULL);
	assert_holds(ov, ext(4, 12, VD_DATA, 104, 1));
}

static void data_that_is_not_contiguous_stays_apart(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, 4, VD_DATA, 100, 1), 0, NULL);
	put(ov, ext(4, 4, VD_DATA, 105, 1), 0, NULL);
	put(ov, ext(8, 4, VD_ZERO, 0, 1), 0, NULL);
	put(ov, ext(12, 4, VD_HOLE, 0, 1), 0, NULL);
	assert_holds(ov, ext(0, 4, VD_DATA, 100, 1), ext(4, 4, VD_DATA, 105, 1), ext(8, 4, VD_ZERO, 0, 1), ext(12, 4, VD_HOLE, 0, 1));
}

static void a_joined_extent_keeps_the_oldest_birth(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, 4, VD_DATA, 100, 7), 5, NULL);
	put(ov, ext(4, 4, VD_DATA, 104, 6), 5, NULL);
	assert_holds(ov, ext(0, 8, VD_DATA, 100, 6));
}

static void births_on_two_sides_of_the_cut_are_not_joined(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, 4, VD_DATA, 100, 5), 5, NULL);
	put(ov, ext(4, 4, VD_DATA, 104, 6), 5, NULL);
	assert_holds(ov, ext(0, 4, VD_DATA, 100, 5), ext(4, 4, VD_DATA, 104, 6));
	put(ov, ext(8, 4, VD_DATA, 108, 5), 5, NULL);
	assert_holds(ov, ext(0, 4, VD_DATA, 100, 5), ext(4, 4, VD_DATA, 104, 6), ext(8, 4, VD_DATA, 108, 5));
}

static void data_is_not_joined_beyond_the_longest_extent(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, VD_EXTENT_LEN_MAX - 1, VD_DATA, 1000, 1), 0, NULL);
	put(ov, ext(VD_EXTENT_LEN_MAX - 1, 1, VD_DATA, 1000 + VD_EXTENT_LEN_MAX - 1, 1), 0, NULL);
	put(ov, ext(VD_EXTENT_LEN_MAX, 1, VD_DATA, 1000 + VD_EXTENT_LEN_MAX, 1), 0, NULL);
	assert_holds(ov, ext(0, VD_EXTENT_LEN_MAX, VD_DATA, 1000, 1), ext(VD_EXTENT_LEN_MAX, 1, VD_DATA, 1000 + VD_EXTENT_LEN_MAX, 1));
}

static void zeros_and_holes_join_without_a_limit(void **state)
{
	struct vd_ov *ov = *state;

	put(ov, ext(0, 1ull << 40, VD_ZERO, 0, 1), 0, NULL);
	put(ov, ext(1ull << 40, 1ull << 50, VD_ZERO, 0, 1), 0, NULL);
	assert_holds(ov, ext(0, (1ull << 40) + (1ull << 50), VD_ZERO, 0, 1));
	put(ov, ext(0, VD_VBLK_END, VD_HOLE, 0, 1), 0, NULL);
	assert_holds(ov, ext(0, VD_VBLK_END, VD_HOLE, 0, 1));
}

static void a_split_reports_the_middle(void **state)
{
	struct vd_ov *ov = *state;
	struct displaced d;

	put(ov, ext(0, 30, VD_DATA, 100, 4), 0, &d);
	assert_int_equal(d.n, 0);
	put(ov, ext(10, 5, VD_HOLE, 0, 6), 0, &d);
	assert_int_equal(d.n, 1);
	assert_ext(d.e[0], ext(10, 5, VD_DATA, 110, 4));
	assert_holds(ov, ext(0, 10, VD_DATA, 100, 4), ext(10, 5, VD_HOLE, 0, 6), ext(15, 15, VD_DATA, 115, 4));
}

/* In whatever place of a leaf, with however many in it: two more extents, one spare. */
static void one_spare_is_enough_for_a_split(void **state)
{
	struct vd_ov *ov = *state;
	unsigned n, i, used = 0;

	for (n = 1; n < 40; n++)
		for (i = 0; i < n; i++) {
			struct vd_ext e;
			unsigned k;

			vd_ov_fini(ov);
			assert_int_equal(vd_ov_init(ov, &host), 0);
			for (k = 0; k < n; k++)
				put(ov, ext(k * 100, 30, VD_DATA, 1000 * k, 4), 0, NULL);
			used += put(ov, ext(i * 100 + 10, 5, VD_ZERO, 0, 6), 0, NULL);
			assert_int_equal(ov->count, n + 2);
			for (k = 0; k < n; k++) {
				assert_true(vd_ov_find(ov, k * 100 + 20, &e));
				assert_int_equal(e.p, 1000 * k + 20);
				assert_int_equal(e.len, 10);
			}
			assert_true(vd_ov_find(ov, i * 100 + 10, &e));
			assert_int_equal(e.kind, VD_ZERO);
			assert_int_equal(e.len, 5);
		}
	assert_true(used);
}

/* Whatever the order they come in: a leaf is half full, or nearly. */
static void leaves_are_not_left_with_one_extent(void **state)
{
	struct vd_ov *ov = *state;
	const unsigned n = 20000;
	unsigned turn, i;

	for (turn = 0; turn < 4; turn++) {
		vd_ov_fini(ov);
		assert_int_equal(live, 0);
		assert_int_equal(vd_ov_init(ov, &host), 0);
		for (i = 0; i < 14 * turn; i++)
			put(ov, ext(2 * i, 1, VD_DATA, 7 * i, 1), 0, NULL);
		for (i = 0; i < n; i++)
			put(ov, ext(200 + 2 * (turn & 1 ? n - i : i), 1, VD_DATA, 7 * i, 1), 0, NULL);
		assert_in_range(live, n / 14, n / 5);
	}
}

static void displaced_pieces_are_data_clipped_to_the_range(void **state)
{
	struct vd_ov *ov = *state;
	struct displaced d;

	put(ov, ext(0, 10, VD_DATA, 100, 1), 0, NULL);
	put(ov, ext(10, 10, VD_ZERO, 0, 1), 0, NULL);
	put(ov, ext(20, 10, VD_DATA, 200, 2), 0, NULL);
	put(ov, ext(30, 10, VD_DATA, 300, 3), 0, NULL);
	put(ov, ext(5, 30, VD_DATA, 400, 9), 8, &d);
	assert_int_equal(d.n, 3);
	assert_ext(d.e[0], ext(5, 5, VD_DATA, 105, 1));
	assert_ext(d.e[1], ext(20, 10, VD_DATA, 200, 2));
	assert_ext(d.e[2], ext(30, 5, VD_DATA, 300, 3));
	assert_holds(ov, ext(0, 5, VD_DATA, 100, 1), ext(5, 30, VD_DATA, 400, 9), ext(35, 5, VD_DATA, 305, 3));
}

static void moving_empties_the_source_and_both_stay_valid(void **state)
{
	struct vd_ov *from = *state, to;

	put(from, ext(0, 4, VD_DATA, 100, 1), 0, NULL);
	put(from, ext(8, 4, VD_ZERO, 0, 1), 0, NULL);
	assert_int_equal(vd_ov_init(&to, &host), 0);
	vd_ov_move(&to, from);
	assert_true(vd_ov_empty(from));
	assert_holds(&to, ext(0, 4, VD_DATA, 100, 1), ext(8, 4, VD_ZERO, 0, 1));
	put(from, ext(1, 1, VD_HOLE, 0, 2), 0, NULL);
	put(&to, ext(4, 4, VD_DATA, 104, 1), 0, NULL);
	assert_holds(from, ext(1, 1, VD_HOLE, 0, 2));
	assert_holds(&to, ext(0, 8, VD_DATA, 100, 1), ext(8, 4, VD_ZERO, 0, 1));
	vd_ov_fini(&to);
}

static void *no_memory(void *ctx, size_t size, int how)
{
	(void)ctx, (void)size, (void)how;
	return NULL;
}

static void no_memory_is_said(void **state)
{
	const struct vd_host poor = { .alloc = no_memory, .free = host_free };
	struct vd_ov ov;

	(void)state;
	assert_int_equal(vd_ov_init(&ov, &poor), -ENOMEM);
	assert_null(vd_ov_leaf_new(&poor, VD_ALLOC_NOWAIT));
}

/* ---- against an array ------------------------------------------------- */

#define CELLS 600u
struct cell { bool set; enum vd_ext_kind kind; uint64_t p, birth; };

static uint64_t rnd(uint64_t *s, uint64_t n)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return (*s >> 11) % n;
}

static void compare(const struct vd_ov *ov, const struct cell *c, uint64_t cut)
{
	struct vd_ext e;
	uint64_t v, i, n = 0;

	for (v = 0; v < CELLS; v++) {
		bool found = vd_ov_find(ov, v, &e);

		assert_int_equal(found, c[v].set);
		assert_int_equal(e.v, v);
		if (!found) {
			for (i = v; i < CELLS && !c[i].set; i++)
				;
			assert_int_equal(e.len, i < CELLS ? i - v : VD_VBLK_END - v);
			continue;
		}
		assert_int_equal(e.kind, c[v].kind);
		if (e.kind == VD_DATA)
			assert_int_equal(e.p, c[v].p);
		/* I1: older is allowed, but never across the cut */
		assert_true(e.birth <= c[v].birth);
		assert_int_equal(e.birth <= cut, c[v].birth <= cut);
	}
	for (v = 0; vd_ov_next(ov, v, &e); v = e.v + e.len, n++) { /* O1 */
		assert_true(e.v >= v && e.len);
		if (e.kind == VD_DATA) /* O4 */
			assert_true(e.len <= VD_EXTENT_LEN_MAX);
	}
	assert_int_equal(ov->count, n);

}

struct tally { const struct cell *c; uint64_t v, end, data; };

static void check_displaced(void *arg, const struct vd_ext *piece)
{
	struct tally *t = arg;
	uint64_t i;

	assert_int_equal(piece->kind, VD_DATA);
	assert_true(piece->v >= t->v && piece->v + piece->len <= t->end);
	t->v = piece->v + piece->len; /* ascending, each once */
	for (i = 0; i < piece->len; i++) {
		assert_true(t->c[piece->v + i].set && t->c[piece->v + i].kind == VD_DATA);
		assert_int_equal(t->c[piece->v + i].p, piece->p + i);
	}
	t->data += piece->len;
}

static void behaves_as_an_array_of_cells(void **state)
{
	struct vd_ov *ov = *state;
	struct cell *c = calloc(CELLS, sizeof(*c));
	uint64_t s = 88172645463325252ull, cut = 0, epoch = 1, round, i, want;

	for (round = 0; round < 20000; round++) {
		struct vd_ov_leaf *spare = vd_ov_leaf_new(&host, VD_ALLOC_NOWAIT);
		struct vd_ext e = { .v = rnd(&s, CELLS), .kind = (enum vd_ext_kind)rnd(&s, 3) };
		struct tally t = { .c = c };

		want = rnd(&s, 8) ? 12 : 200;
		e.len = 1 + rnd(&s, vd_min(CELLS - e.v, want));
		e.birth = 1 + rnd(&s, epoch);
		if (e.kind != VD_DATA)
			e.p = VD_PBLK_NONE;
		else if (rnd(&s, 3)) /* the likes of a window: contiguous beside its neighbours */
			e.p = 10000 + e.v;
		else
			e.p = 20000 + rnd(&s, 100000);
		if (!rnd(&s, 50)) {
			cut = epoch++; /* a snapshot: what is there is not the volume's own any more */
			if (rnd(&s, 2)) { /* as vd_snapshot does it: the overlay is swapped */
				vd_ov_fini(ov);
				assert_int_equal(vd_ov_init(ov, &host), 0);
				memset(c, 0, CELLS * sizeof(*c));
			} else { /* joined extents have taken older births: adopt them, then go on with the old cut */
				struct vd_ext x;

				for (i = 0; i < CELLS; i++)
					if (vd_ov_find(ov, i, &x))
						c[i].birth = x.birth;
			}
		}
		t.v = e.v;
		t.end = e.v + e.len;
		for (i = 0, want = 0; i < e.len; i++)
			want += c[e.v + i].set && c[e.v + i].kind == VD_DATA;
		vd_ov_insert(ov, &e, cut, &spare, check_displaced, &t);
		assert_int_equal(t.data, want);
		for (i = 0; i < e.len; i++) {
			c[e.v + i].set = true;
			c[e.v + i].kind = e.kind;
			c[e.v + i].p = e.p + i;
			c[e.v + i].birth = e.birth;
		}
		vd_ov_leaf_free(&host, spare);
		if (round % 7 == 0)
			compare(ov, c, cut);
	}
	compare(ov, c, cut);
	free(c);
}

static void many_entries_stay_quick_to_find(void **state)
{
	struct vd_ov *ov = *state;
	uint64_t i, s = 12345, n = 100000;
	struct vd_ext e;

	for (i = 0; i < n; i++) { /* a permutation of 0 .. n-1 */
		uint64_t v = i * 77777 % n;

		put(ov, ext(2 * v, 1, VD_DATA, 5 * v, 1), 0, NULL);
	}
	assert_int_equal(ov->count, n);
	for (i = 0; i < n; i++) {
		uint64_t v = rnd(&s, n);

		assert_true(vd_ov_find(ov, 2 * v, &e));
		assert_int_equal(e.p, 5 * v);
		assert_false(vd_ov_find(ov, 2 * v + 1, &e));
	}
}

/* Thousands of leaves, whose first extents come and go: with nodes of the index always, at
 * times and never to be had. */
static void a_search_does_not_trust_the_index(void **state)
{
	enum { BLOCKS = 60000, TURNS = 12 };
	static uint64_t p[BLOCKS]; /* 0: a hole was put there, or nothing */
	struct vd_ov *ov = *state;
	uint64_t s = 4711, i, v, len;
	struct vd_ext e;
	unsigned turn;

	for (turn = 0; turn < TURNS; turn++) {
		no_nodes = turn % 3 * 5;
		for (i = 0; i < 12000; i++) {
			v = rnd(&s, BLOCKS);
			put(ov, ext(v, 1, VD_DATA, p[v] = 3 * i + 5, 1), 0, NULL);
		}
		for (i = 0; i < 40; i++) { /* leaves go, and others lose what they began with */
			len = 1 + rnd(&s, i % 10 ? 300 : 9000);
			v = rnd(&s, BLOCKS - len);
			memset(&p[v], 0, len * sizeof(p[0]));
			put(ov, ext(v, len, VD_HOLE, 0, 1), 0, NULL);
		}
		for (i = 0; i < 20000; i++) {
			v = rnd(&s, BLOCKS);
			if (vd_ov_find(ov, v, &e) && e.kind == VD_DATA)
				assert_int_equal(e.p, p[v]);
			else
				assert_int_equal(p[v], 0);
		}
		for (v = 0, i = 0; vd_ov_next(ov, v, &e); v = e.v + e.len, i++)
			assert_true(e.v >= v && e.len);
		assert_int_equal(i, ov->count);
	}
	no_nodes = 0;
	put(ov, ext(0, BLOCKS, VD_HOLE, 0, 1), 0, NULL);
	assert_in_range(live, 1, 4); /* the head, a leaf and the nodes above it */
}

/* ---- CRC32C ----------------------------------------------------------- */

static void crc32c_is_that_of_rfc_3720(void **state)
{
	uint8_t b[48];
	static const uint8_t read10[48] = { 0x01, 0xc0, [16] = 0x14, [22] = 0x04, [27] = 0x14, [31] = 0x18, 0x28, [40] = 0x02 };
	unsigned i;

	(void)state;
	memset(b, 0, 32);
	assert_int_equal(vd_port_crc32c(~0u, b, 32), ~0x8a9136aau);
	memset(b, 0xff, 32);
	assert_int_equal(vd_port_crc32c(~0u, b, 32), ~0x62a8ab43u);
	for (i = 0; i < 32; i++)
		b[i] = (uint8_t)i;
	assert_int_equal(vd_port_crc32c(~0u, b, 32), ~0x46dd794eu);
	for (i = 0; i < 32; i++)
		b[i] = (uint8_t)(31 - i);
	assert_int_equal(vd_port_crc32c(~0u, b, 32), ~0x113fdb5cu);
	assert_int_equal(vd_port_crc32c(~0u, read10, 48), ~0xd9963a56u);
}

static void crc32c_chains(void **state)
{
	uint8_t b[4096];
	unsigned i;
	uint32_t whole;

	(void)state;
	for (i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 7 + i / 256);
	whole = vd_port_crc32c(~0u, b, sizeof(b));
	for (i = 0; i <= sizeof(b); i += 113)
		assert_int_equal(vd_port_crc32c(vd_port_crc32c(~0u, b, i), b + i, sizeof(b) - i), whole);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(an_empty_overlay_finds_nothing_up_to_the_end),
		T(find_clips_at_its_start_and_not_at_the_end),
		T(sequential_data_joins_into_one),
		T(a_neighbour_behind_grows_towards_the_front),
		T(data_that_is_not_contiguous_stays_apart),
		T(a_joined_extent_keeps_the_oldest_birth),
		T(births_on_two_sides_of_the_cut_are_not_joined),
		T(data_is_not_joined_beyond_the_longest_extent),
		T(zeros_and_holes_join_without_a_limit),
		T(a_split_reports_the_middle), T(one_spare_is_enough_for_a_split), T(leaves_are_not_left_with_one_extent),
		T(displaced_pieces_are_data_clipped_to_the_range),
		T(moving_empties_the_source_and_both_stay_valid),
		T(no_memory_is_said),
		T(behaves_as_an_array_of_cells),
		T(many_entries_stay_quick_to_find),
		T(a_search_does_not_trust_the_index),
		cmocka_unit_test(crc32c_is_that_of_rfc_3720),
		cmocka_unit_test(crc32c_chains),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
