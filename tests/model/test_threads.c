// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Many threads on one pool.  Writers have stretches of their own in volumes they
 * share, which begin and end in the middle of a block, and know what they wrote.
 * Beside them: a worker (vd_pool_work), group snapshots taken, looked at twice and
 * deleted, a volume that grows and shrinks while it is written, volumes made,
 * rolled back and deleted, checkpoints, checks, reports.
 *
 * One writer makes dependent writes: a counter to volume A, then to volume B.  In
 * every group snapshot A's is B's or one more (I1).
 *
 * At the end the pool is checked, then killed, cut off after a flush, or closed,
 * opened again, and everything compared once more.  To be run under
 * -fsanitize=thread too.  What the threads do follows from the seed; when, not.
 */
#include <signal.h>
#include <unistd.h>

#include "world.h"

#define VOLUMES 3u
#define WRITERS 3u
#define STRETCH (330u * VD_BLOCK + 3 * SECTOR) /* of a writer in a volume */
#define VOLUME_BYTES (4ull << 20)
#define GENERATIONS 4u /* of group snapshots kept */

static struct cli cli = { .test = "test_threads", .seconds = 20 };

struct stage {
	struct sim *sim;
	struct vd_pool *pool;
	uint32_t id[VOLUMES], a, b, elastic;
	struct vd_volume *vol[VOLUMES], *va, *vb, *ve;
	int stop;
	uint64_t seed;
	uint64_t written, snapshots, checks, parked;
};

struct writer {
	struct stage *st;
	unsigned n;
	struct rng rng;
	uint64_t value[VOLUMES][STRETCH / SECTOR];
	uint64_t next;
};

#define fail(...) \
	do { \
		printf("# FAILED: " __VA_ARGS__); \
		printf("\n1..1\nnot ok 1 - test_threads\n"); \
		fflush(stdout); \
		_exit(1); \
	} while (0)

static void too_long(int sig)
{
	static const char msg[] = "# FAILED: it hangs\n1..1\nnot ok 1 - test_threads\n";

	(void)sig;
	if (write(1, msg, sizeof(msg) - 1) < 0)
		_exit(2);
	abort();
}

static bool stopped(struct stage *st)
{
	return __atomic_load_n(&st->stop, __ATOMIC_RELAXED);
}

static void count(uint64_t *n)
{
	__atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
}

static uint64_t start_of(const struct writer *w)
{
	return SECTOR + (uint64_t)w->n * STRETCH;
}

static void writer_look(struct writer *w, struct vd_volume *vol, unsigned v, unsigned s, unsigned n, const char *when)
{
	uint64_t off = start_of(w) + (uint64_t)s * SECTOR;
	uint8_t *buf = malloc((size_t)n * SECTOR);
	unsigned i;
	int r = io_read(w->st->sim, vol, 0, off, buf, (uint64_t)n * SECTOR, NULL);

	if (r)
		fail("%s: writer %u: read of volume %u: error %d", when, w->n, v, r);
	for (i = 0; i < n; i++) {
		uint64_t got = stamp_read(buf + (size_t)i * SECTOR, off / SECTOR + i);
		char what[100];

		stamp_describe(buf + (size_t)i * SECTOR, what, sizeof(what));
		if (got != w->value[v][s + i])
			fail("%s: writer %u, volume %u, sector %llu: found %s and wrote %llu", when, w->n, v,
			     (unsigned long long)(off / SECTOR + i), got ? what : "zeros", (unsigned long long)w->value[v][s + i]);
	}
	free(buf);
}

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	struct stage *st = w->st;
	uint64_t max = STRETCH / SECTOR;

	while (!stopped(st)) {
		unsigned v = (unsigned)rng_below(&w->rng, VOLUMES), s = (unsigned)rng_below(&w->rng, max), n, i;
		uint64_t off, value, b0, b1;
		int r = 0;

		n = 1 + (unsigned)rng_below(&w->rng, rng_one_in(&w->rng, 8) ? 2400 : 24);
		n = n < max - s ? n : (unsigned)(max - s);
		off = start_of(w) + (uint64_t)s * SECTOR;
		switch (rng_below(&w->rng, 16)) {
		case 0: case 1: case 2:
			writer_look(w, st->vol[v], v, s, n, "live");
			break;
		case 3: /* whole blocks of one's own only */
			b0 = (off + VD_BLOCK - 1) / VD_BLOCK * VD_BLOCK;
			b1 = (off + (uint64_t)n * SECTOR) / VD_BLOCK * VD_BLOCK;
			if (b1 <= b0)
				break;
			r = vd_unmap(st->vol[v], b0, b1 - b0);
			for (i = 0; i < (b1 - b0) / SECTOR; i++)
				w->value[v][(b0 - start_of(w)) / SECTOR + i] = 0;
			break;
		case 4:
			if (rng_one_in(&w->rng, 4))
				r = vd_flush(st->pool);
			break;
		default:
			value = (uint64_t)(w->n + 1) << 48 | w->next++;
			r = io_stamp(st->sim, st->vol[v], 0, off, (uint64_t)n * SECTOR, value, NULL);
			for (i = 0; i < n; i++)
				w->value[v][s + i] = value;
			count(&st->written);
			break;
		}
		if (r)
			fail("writer %u: error %d", w->n, r);
	}
	return NULL;
}

/* Counter to A, then to B, each at several places, the same in both. */
#define PLACES 8u
static void *dependent_main(void *arg)
{
	struct stage *st = arg;
	uint64_t n;

	for (n = 1; !stopped(st); n++) {
		uint64_t off = n % PLACES * 8 * SECTOR + n % 3 * SECTOR;
		int r = io_stamp(st->sim, st->va, 0, 0, SECTOR, n, NULL);

		if (!r)
			r = io_stamp(st->sim, st->vb, 0, 0, SECTOR, n, NULL);
		if (!r)
			r = io_stamp(st->sim, st->va, 0, VD_BLOCK * 16 + off, SECTOR, n, NULL);
		if (r)
			fail("dependent writes: error %d", r);
		if (n % 64 == 0)
			sched_yield();
	}
	return NULL;
}

static uint64_t counter(struct stage *st, uint32_t id)
{
	uint8_t buf[SECTOR];
	struct vd_volume *vol;
	uint64_t n;
	int r = vd_volume_open(st->pool, id, &vol);

	if (!r)
		r = io_read(st->sim, vol, 0, 0, buf, SECTOR, NULL);
	if (r)
		fail("reading a snapshot's counter: error %d", r);
	n = stamp_read(buf, 0);
	if (n == VALUE_BAD)
		fail("a snapshot's counter is torn");
	vd_volume_close(vol);
	return n;
}

static uint32_t hash_of(struct stage *st, uint32_t id)
{
	uint8_t *buf = malloc(VOLUME_BYTES);
	struct vd_volume *vol;
	uint32_t crc;
	int r = vd_volume_open(st->pool, id, &vol);

	if (!r)
		r = io_read(st->sim, vol, 0, 0, buf, VOLUME_BYTES, NULL);
	if (r)
		fail("reading a snapshot: error %d", r);
	vd_volume_close(vol);
	crc = vd_port_crc32c(~0u, buf, VOLUME_BYTES);
	free(buf);
	return crc;
}

#define GROUP (VOLUMES + 2)
struct generation { uint32_t id[GROUP], hash[GROUP]; bool used; };

static void generation_end(struct stage *st, struct generation *g)
{
	unsigned i;
	int r;

	if (!g->used)
		return;
	for (i = 0; i < GROUP; i++) {
		if (hash_of(st, g->id[i]) != g->hash[i])
			fail("snapshot %u changed while it was kept", g->id[i]);
		r = vd_volume_delete(st->pool, g->id[i]);
		if (r)
			fail("deleting snapshot %u: error %d", g->id[i], r);
	}
	g->used = false;
}

static int ignore_range(void *arg, uint64_t off, uint64_t len)
{
	(void)arg, (void)off, (void)len;
	return 0;
}

static void *snapshots_main(void *arg)
{
	struct stage *st = arg;
	struct generation gen[GENERATIONS] = { 0 };
	struct rng rng = rng_seeded(st->seed + 77);
	struct vd_snap snap[GROUP];
	char name[GROUP][32];
	uint64_t n, a, b;
	unsigned i;
	int r;

	for (n = 0; !stopped(st); n++) {
		struct generation *g = &gen[rng_below(&rng, GENERATIONS)];

		generation_end(st, g);
		memset(snap, 0, sizeof(snap));
		for (i = 0; i < GROUP; i++) {
			snprintf(name[i], sizeof(name[i]), "snap-%llu-%u", (unsigned long long)n, i);
			snap[i].name = name[i];
			snap[i].origin = i < VOLUMES ? st->id[i] : i == VOLUMES ? st->a : st->b;
			snap[i].flags = VD_VOL_READONLY;
		}
		r = vd_snapshot(st->pool, snap, GROUP);
		if (r)
			fail("group snapshot: error %d", r);
		for (i = 0; i < GROUP; i++) {
			g->id[i] = snap[i].id;
			g->hash[i] = hash_of(st, snap[i].id);
		}
		g->used = true;
		a = counter(st, g->id[VOLUMES]);
		b = counter(st, g->id[VOLUMES + 1]);
		if (a != b && a != b + 1)
			fail("group snapshot %llu: A has %llu and B, written after it, %llu", (unsigned long long)n, (unsigned long long)a, (unsigned long long)b);
		count(&st->snapshots);
		if (rng_one_in(&rng, 4)) {
			struct vd_usage u;

			r = vd_diff(st->pool, st->id[0], g->id[0], ignore_range, NULL);
			if (!r)
				r = vd_volume_usage(st->pool, g->id[1], &u, NULL, NULL);
			if (r)
				fail("reports: error %d", r);
		}
	}
	for (i = 0; i < GENERATIONS; i++)
		generation_end(st, &gen[i]);
	return NULL;
}

/* Grows and shrinks while the next one writes. */
static void *resizer_main(void *arg)
{
	struct stage *st = arg;
	struct rng rng = rng_seeded(st->seed + 78);
	int r;

	while (!stopped(st)) {
		r = vd_volume_resize(st->pool, st->elastic, VD_BLOCK * rng_between(&rng, 1, 256));
		if (r)
			fail("resize: error %d", r);
		usleep((useconds_t)rng_below(&rng, 500));
	}
	return NULL;
}

static void *elastic_main(void *arg)
{
	struct stage *st = arg;
	struct rng rng = rng_seeded(st->seed + 79);
	uint8_t buf[VD_BLOCK * 4];
	uint64_t n;
	int r;

	for (n = 1; !stopped(st); n++) {
		uint64_t off = rng_below(&rng, 252) * VD_BLOCK + rng_below(&rng, 8) * SECTOR, len = SECTOR * rng_between(&rng, 1, 24), i;

		r = rng_one_in(&rng, 8) ? vd_unmap(st->ve, off, len) : io_stamp(st->sim, st->ve, 0, off, len, n, NULL);
		if (r && r != -ERANGE)
			fail("writing to a volume that is resized: error %d", r);
		r = io_read(st->sim, st->ve, 0, off, buf, len, NULL);
		if (r && r != -ERANGE)
			fail("reading a volume that is resized: error %d", r);
		for (i = 0; !r && i < len / SECTOR; i++) { /* what was written, or what a shrink left: zeros */
			uint64_t got = stamp_read(buf + i * SECTOR, off / SECTOR + i);

			if (got == VALUE_BAD || got > n)
				fail("a volume that is resized holds what was never written to it");
		}
	}
	return NULL;
}

/* Volumes of its own: made, written, rolled back, deleted. */
static void *manager_main(void *arg)
{
	struct stage *st = arg;
	struct rng rng = rng_seeded(st->seed + 80);
	struct vd_volume *vol;
	uint64_t n, faults;
	uint8_t buf[SECTOR];
	int r;

	for (n = 0; !stopped(st); n++) {
		char name[32], sname[32];
		struct vd_volume_spec spec = { .name = name, .size = 64 * VD_BLOCK };
		struct vd_snap snap = { .name = sname };

		snprintf(name, sizeof(name), "own-%llu", (unsigned long long)n);
		snprintf(sname, sizeof(sname), "own-%llu-s", (unsigned long long)n);
		r = vd_volume_create(st->pool, &spec, &snap.origin);
		if (!r)
			r = vd_volume_open(st->pool, snap.origin, &vol);
		if (!r)
			r = io_stamp(st->sim, vol, 0, 5 * SECTOR, 20 * SECTOR, 2 * n + 1, NULL);
		if (!r)
			r = vd_snapshot(st->pool, &snap, 1);
		if (!r)
			r = io_stamp(st->sim, vol, 0, 0, 64 * SECTOR, 2 * n + 2, NULL);
		if (r)
			fail("manager: error %d", r);
		if (rng_one_in(&rng, 3) && (r = vd_checkpoint(st->pool)))
			fail("checkpoint: error %d", r);
		if (vd_rollback(st->pool, snap.origin, snap.id) != -EBUSY)
			fail("rollback of an open volume");
		vd_volume_close(vol);
		r = vd_rollback(st->pool, snap.origin, snap.id);
		if (!r)
			r = vd_volume_open(st->pool, snap.origin, &vol);
		if (!r)
			r = io_read(st->sim, vol, 0, 7 * SECTOR, buf, SECTOR, NULL);
		if (r || stamp_read(buf, 7) != 2 * n + 1)
			fail("rollback: error %d, or not what the snapshot had", r);
		vd_volume_close(vol);
		r = vd_volume_delete(st->pool, rng_one_in(&rng, 2) ? snap.id : snap.origin);
		if (r)
			fail("delete: error %d", r);
		r = vd_volume_find(st->pool, name, &snap.id);
		if (r == -ENOENT)
			r = vd_volume_find(st->pool, sname, &snap.id);
		if (!r)
			r = vd_volume_delete(st->pool, snap.id);
		if (r)
			fail("delete: error %d", r);
		if (rng_one_in(&rng, 10)) {
			r = vd_check(st->pool, 0, world_fault_found, NULL, NULL, &faults);
			if (r || faults)
				fail("check beside I/O: error %d, %llu faults", r, (unsigned long long)faults);
			count(&st->checks);
		}
	}
	return NULL;
}

static void *worker_main(void *arg)
{
	struct stage *st = arg;
	int r;

	while (!stopped(st)) {
		r = vd_pool_work(st->pool);
		if (r < 0)
			fail("work: error %d", r);
		if (!r)
			usleep(200);
	}
	return NULL;
}

static void open_all(struct stage *st)
{
	unsigned v;
	int r = 0;

	for (v = 0; v < VOLUMES && !r; v++)
		r = vd_volume_open(st->pool, st->id[v], &st->vol[v]);
	if (!r)
		r = vd_volume_open(st->pool, st->a, &st->va);
	if (!r)
		r = vd_volume_open(st->pool, st->b, &st->vb);
	if (!r)
		r = vd_volume_open(st->pool, st->elastic, &st->ve);
	if (r)
		fail("opening volumes: error %d", r);
}

static void close_all(struct stage *st)
{
	unsigned v;

	for (v = 0; v < VOLUMES; v++)
		vd_volume_close(st->vol[v]);
	vd_volume_close(st->va);
	vd_volume_close(st->vb);
	vd_volume_close(st->ve);
}

static uint32_t make_volume(struct stage *st, const char *name, uint64_t size)
{
	struct vd_volume_spec spec = { .name = name, .size = size };
	uint32_t id;
	int r = vd_volume_create(st->pool, &spec, &id);

	if (r)
		fail("create: error %d", r);
	return id;
}

static void end(struct stage *st, const struct vd_host *host, struct writer *w, struct rng *rng)
{
	uint64_t faults;
	unsigned v, n;
	int r;

	for (n = 0; n < WRITERS; n++)
		for (v = 0; v < VOLUMES; v++)
			writer_look(&w[n], st->vol[v], v, 0, STRETCH / SECTOR, "at the end");
	switch (rng_below(rng, 3)) {
	case 0:
		vd_pool_abandon(st->pool);
		sim_crash(st->sim, SIM_KILL);
		break;
	case 1:
		r = vd_flush(st->pool);
		if (r)
			fail("flush: error %d", r);
		vd_pool_abandon(st->pool);
		sim_crash(st->sim, SIM_POWER_CUT);
		break;
	default:
		close_all(st);
		r = vd_pool_close(st->pool);
		if (r)
			fail("close: error %d", r);
		sim_crash(st->sim, SIM_POWER_CUT);
	}
	if (st->sim->live)
		fail("%lld allocations are left", (long long)st->sim->live);
	r = vd_pool_open(host, 0, NULL, &st->pool);
	if (r)
		fail("opening again: error %d", r);
	open_all(st);
	for (n = 0; n < WRITERS; n++)
		for (v = 0; v < VOLUMES; v++)
			writer_look(&w[n], st->vol[v], v, 0, STRETCH / SECTOR, "after opening again");
	r = vd_check(st->pool, 0, NULL, NULL, NULL, &faults);
	if (r || faults)
		fail("check: error %d, %llu faults", r, (unsigned long long)faults);
	close_all(st);
	r = vd_pool_close(st->pool);
	if (r)
		fail("close: error %d", r);
}

static void run(uint64_t seed, double seconds, struct stage *total)
{
	static void *(*const others[])(void *) = {
		dependent_main, snapshots_main, resizer_main, elastic_main, manager_main, worker_main,
	};
	const uint64_t blocks[2] = { 16384, 12288 };
	static const uint8_t uuids[2][16] = { { 1 }, { 2 } };
	struct rng rng = rng_seeded(seed);
	struct vd_format_spec spec = {
		.name = "threads", .uuid = { 7 }, .nmembers = (unsigned)rng_between(&rng, 1, 2), .blocks = blocks,
		.member_uuid = uuids, .sector_size = 512, .policy = VD_POLICY_ERROR_IF_FULL,
		.journal_blocks = rng_one_in(&rng, 2) ? rng_between(&rng, 64, 200) : 0,
	};
	struct stage st = { .seed = seed };
	struct writer *w = calloc(WRITERS, sizeof(*w));
	pthread_t thread[WRITERS + 8];
	struct vd_host host;
	unsigned n, nthreads = 0;
	char name[16];
	int r;

	st.sim = sim_new(seed, spec.nmembers, blocks, 1);
	sim_host(st.sim, &host);
	r = vd_pool_format(&host, &spec);
	if (!r)
		r = vd_pool_open(&host, 0, NULL, &st.pool);
	if (r)
		fail("format, open: error %d", r);
	for (n = 0; n < VOLUMES; n++) {
		snprintf(name, sizeof(name), "v%u", n);
		st.id[n] = make_volume(&st, name, VOLUME_BYTES);
	}
	st.a = make_volume(&st, "A", VOLUME_BYTES);
	st.b = make_volume(&st, "B", VOLUME_BYTES);
	st.elastic = make_volume(&st, "elastic", VOLUME_BYTES);
	open_all(&st);
	for (n = 0; n < WRITERS; n++) {
		w[n].st = &st;
		w[n].n = n;
		w[n].rng = rng_seeded(seed + 1000 + n);
		w[n].next = 1;
		pthread_create(&thread[nthreads++], NULL, writer_main, &w[n]);
	}
	for (n = 0; n < sizeof(others) / sizeof(others[0]); n++)
		pthread_create(&thread[nthreads++], NULL, others[n], &st);
	usleep((useconds_t)(seconds * 1e6));
	__atomic_store_n(&st.stop, 1, __ATOMIC_RELAXED);
	for (n = 0; n < nthreads; n++)
		pthread_join(thread[n], NULL);
	total->written += st.written;
	total->snapshots += st.snapshots;
	total->checks += st.checks;
	end(&st, &host, w, &rng);
	sim_free(st.sim);
	free(w);
}

int main(int argc, char **argv)
{
	struct stage total = { 0 };

	cli_start(&cli, argc, argv);
	signal(SIGALRM, too_long);
	while (cli_more(&cli, 0)) {
		alarm(900);
		run(cli_run_seed(&cli), vd_min(2.5, vd_max(0.5, (double)cli.seconds / 4)), &total);
	}
	printf("# %llu runs, %llu writes, %llu group snapshots, %llu checks beside I/O, %.1f s\n1..1\nok 1 - test_threads\n",
	       (unsigned long long)cli.run, (unsigned long long)total.written, (unsigned long long)total.snapshots,
	       (unsigned long long)total.checks, cli_elapsed(&cli));
	return 0;
}
