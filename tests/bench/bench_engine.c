// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The engine alone: what a translation costs, and how metadata scales.  No data
 * is written: a write is begun and ended, its blocks stay as they are.  Members
 * are sparse files in the directory given, metadata I/O is real.
 *
 *   bench_engine DIR TEST        one line "name value unit" for each figure
 */
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "vd.h"

#define MEMBERS_MAX 2u

static struct { int fd[MEMBERS_MAX]; unsigned n; } disk;
static bool no_flush; /* durability costs the disk's time, not the engine's */

static int disk_read(void *ctx, unsigned m, uint64_t block, void *buf, unsigned n)
{
	(void)ctx;
	if (m >= disk.n)
		return -ENODEV;
	ssize_t got = pread(disk.fd[m], buf, (size_t)n * VD_BLOCK, (off_t)(block * VD_BLOCK));

	return got < 0 ? -errno : got == (ssize_t)((size_t)n * VD_BLOCK) ? 0 : -EIO;
}

static int disk_write(void *ctx, unsigned m, uint64_t block, const void *buf, unsigned n)
{
	ssize_t put;

	(void)ctx;
	if (m >= disk.n)
		return -ENODEV;
	put = pwrite(disk.fd[m], buf, (size_t)n * VD_BLOCK, (off_t)(block * VD_BLOCK));
	return put < 0 ? -errno : put == (ssize_t)((size_t)n * VD_BLOCK) ? 0 : -EIO;
}

static int disk_flush(void *ctx, unsigned m)
{
	(void)ctx;
	if (m >= disk.n)
		return -ENODEV;
	return no_flush ? 0 : fdatasync(disk.fd[m]) ? -errno : 0;
}

static void *mem_alloc(void *ctx, size_t size, int how)
{
	(void)ctx, (void)how;
	return malloc(size);
}

static void mem_free(void *ctx, void *p)
{
	(void)ctx;
	free(p);
}

static uint64_t now(void *ctx)
{
	struct timespec ts;

	(void)ctx;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void say(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	(void)ctx;
	if (level <= VD_LOG_WARN)
		fprintf(stderr, "engine: %s (%llu, %llu)\n", msg, (unsigned long long)a, (unsigned long long)b);
}

static const struct vd_host host = {
	.read = disk_read, .write = disk_write, .flush = disk_flush,
	.alloc = mem_alloc, .free = mem_free, .now = now, .log = say,
};

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void must(int r, const char *what)
{
	if (r < 0) {
		fprintf(stderr, "bench_engine: %s: %s\n", what, strerror(-r));
		exit(1);
	}
}

static void figure(const char *name, double value, const char *unit)
{
	printf("%-52s %14.3f %s\n", name, value, unit);
	fflush(stdout);
}

static uint64_t rnd_state = 88172645463325252ull;
static uint64_t rnd(void)
{
	rnd_state ^= rnd_state << 13;
	rnd_state ^= rnd_state >> 7;
	return rnd_state ^= rnd_state << 17;
}

static struct vd_pool *pool_make(const char *dir, unsigned members, uint64_t blocks_each)
{
	uint64_t blocks[MEMBERS_MAX];
	uint8_t uuid[MEMBERS_MAX][16];
	struct vd_format_spec spec = { .uuid = "benchbenchbench", .name = "bench", .nmembers = members, .blocks = blocks,
		.member_uuid = (const uint8_t (*)[16])uuid, .sector_size = 512 };
	struct vd_pool *pool;
	char path[4096];
	unsigned m;

	for (m = 0; m < members; m++) {
		snprintf(path, sizeof(path), "%s/member%u", dir, m);
		unlink(path);
		disk.fd[m] = open(path, O_RDWR | O_CREAT, 0600);
		if (disk.fd[m] < 0 || ftruncate(disk.fd[m], (off_t)(blocks_each * VD_BLOCK)))
			must(-errno, path);
		unlink(path); /* goes with the process */
		blocks[m] = blocks_each;
		memset(uuid[m], (int)m + 1, 16);
	}
	disk.n = members;
	must(vd_pool_format(&host, &spec), "format");
	must(vd_pool_open(&host, 0, NULL, &pool), "open");
	return pool;
}

static uint32_t volume(struct vd_pool *pool, const char *name, uint64_t size, struct vd_volume **vol)
{
	struct vd_volume_spec spec = { .name = name, .size = size };
	uint32_t id;

	must(vd_volume_create(pool, &spec, &id), "create");
	if (vol)
		must(vd_volume_open(pool, id, vol), "open volume");
	return id;
}

static void map_blocks(struct vd_volume *vol, uint64_t v, uint64_t n)
{
	struct vd_io io;
	int r;

	while (n) {
		r = vd_write_begin(vol, v * VD_BLOCK, n * VD_BLOCK, &io);
		if (r == -EWOULDBLOCK) {
			must(vd_io_wait(&io), "wait");
			continue;
		}
		must(r, "write");
		must(vd_write_end(&io, 0), "end");
		v += io.bytes / VD_BLOCK;
		n -= io.bytes / VD_BLOCK;
	}
}

static void settle(struct vd_pool *pool)
{
	int r;

	do {
		r = vd_pool_work(pool);
		must(r, "work");
	} while (r);
	must(vd_checkpoint(pool), "checkpoint");
}

static uint32_t snapshot(struct vd_pool *pool, uint32_t id, unsigned i)
{
	char name[64];
	struct vd_snap s = { .origin = id, .name = name };

	snprintf(name, sizeof(name), "snap-%u", i);
	must(vd_snapshot(pool, &s, 1), "snapshot");
	return s.id;
}

static uint64_t meta_written(struct vd_pool *pool)
{
	struct vd_pool_info info;

	vd_pool_info(pool, &info);
	return info.meta_written;
}

static double rss_mb(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f) {
		if (fscanf(f, "%*d %ld", &pages) != 1)
			pages = 0;
		fclose(f);
	}
	return (double)pages * 4096 / 1e6;
}

/* Every block of the volume once, in random order (a linear congruence of full period). */
struct order { uint64_t at, mask; };
static uint64_t order_next(struct order *o)
{
	o->at = (o->at * 6364136223846793005ull + 1442695040888963407ull) & o->mask;
	return o->at;
}

static void bench_translate(const char *dir)
{
	struct vd_pool *pool = pool_make(dir, 1, 16ull << 20);
	struct vd_volume *vol;
	struct vd_io io;
	uint64_t i, n = 1 << 20, miss = 0;
	double t;

	no_flush = true;
	volume(pool, "v", n * VD_BLOCK, &vol);
	for (i = 0; i < n; i += 2) /* every second block: as many extents as can be */
		map_blocks(vol, i, 1);
	settle(pool);
	for (int pass = 0; pass < 2; pass++) {
		t = seconds();
		for (i = 0; i < 2000000; i++) {
			if (vd_read_begin(vol, (rnd() % n & ~1ull) * VD_BLOCK, 4096, &io)) {
				miss++;
				must(vd_io_wait(&io), "wait");
			} else {
				vd_read_end(&io);
			}
		}
		t = seconds() - t;
	}
	figure("translate a mapped block, 524288 extents, random", t / 2e6 * 1e9, "ns");
	t = seconds();
	for (i = 0; i < 2000000; i++) {
		must(vd_write_begin(vol, (rnd() % n & ~1ull) * VD_BLOCK, 4096, &io), "overwrite");
		must(vd_write_end(&io, 0), "end");
	}
	figure("begin and end of a write in place", (seconds() - t) / 2e6 * 1e9, "ns");
	vd_volume_close(vol);
	vd_pool_abandon(pool);
}

/* n writes of a block each, `depth` of them under way. */
static void map_deep(struct vd_volume *vol, struct order *o, uint64_t n, unsigned depth)
{
	struct vd_io io[256];
	uint64_t i, v;
	int r;

	for (i = 0; i < n + depth; i++) {
		if (i >= depth)
			must(vd_write_end(&io[i % depth], 0), "end");
		if (i >= n)
			continue;
		v = order_next(o);
		while ((r = vd_write_begin(vol, v * VD_BLOCK, VD_BLOCK, &io[i % depth])) == -EWOULDBLOCK)
			must(vd_io_wait(&io[i % depth]), "wait");
		must(r, "write");
	}
}

static void bench_insert(const char *dir)
{
	struct vd_pool *pool = pool_make(dir, 1, 64ull << 20);
	struct vd_volume *vol;
	uint64_t i, n = 60000; /* below the mark that starts a checkpoint */
	struct order o = { 1, (16 << 20) - 1 };
	double t;

	no_flush = true;
	volume(pool, "v", (16ull << 20) * VD_BLOCK, &vol);
	t = seconds();
	for (i = 0; i < n; i++)
		map_blocks(vol, order_next(&o), 1);
	figure("insert a first write, random", (seconds() - t) / (double)n * 1e9, "ns");
	settle(pool);
	t = seconds();
	map_deep(vol, &o, n / 2, 32);
	figure("the same, 32 under way", (seconds() - t) / (double)(n / 2) * 1e9, "ns");
	settle(pool);
	t = seconds();
	map_deep(vol, &o, n / 2, 256);
	figure("the same, 256 under way", (seconds() - t) / (double)(n / 2) * 1e9, "ns");
	settle(pool);
	t = seconds();
	for (i = 0; i < n; i++)
		map_blocks(vol, i, 1);
	figure("insert a first write, sequential", (seconds() - t) / (double)n * 1e9, "ns");
	vd_volume_close(vol);
	vd_pool_abandon(pool);
}

/* One job of several: first writes at random in a stretch of the volume that is its own. */
struct job { struct vd_volume *vol; uint64_t from, n; pthread_t thread; };

static void *job_run(void *arg)
{
	struct job *j = arg;
	struct order o = { 1, (4 << 20) - 1 };
	uint64_t i;

	for (i = 0; i < j->n; i++)
		map_blocks(j->vol, j->from + order_next(&o), 1);
	return NULL;
}

static void bench_threads(const char *dir)
{
	struct vd_pool *pool = pool_make(dir, 1, 64ull << 20);
	struct job job[4];
	uint64_t n = 60000; /* below the mark that starts a checkpoint */
	unsigned jobs, i;
	bool apart;
	char name[64];
	double t;

	no_flush = true;
	for (apart = false;; apart = true) {
		for (jobs = 1; jobs <= 4; jobs *= 2) {
			for (i = 0; i < jobs; i++) {
				snprintf(name, sizeof(name), "v%d-%u-%u", apart, jobs, i);
				if (apart || !i)
					volume(pool, name, (16ull << 20) * VD_BLOCK, &job[i].vol);
				else
					job[i].vol = job[0].vol;
				job[i].from = (uint64_t)i * (4 << 20);
				job[i].n = n / jobs;
			}
			t = seconds();
			for (i = 0; i < jobs; i++)
				must(-pthread_create(&job[i].thread, NULL, job_run, &job[i]), "thread");
			for (i = 0; i < jobs; i++)
				must(-pthread_join(job[i].thread, NULL), "thread");
			snprintf(name, sizeof(name), "first writes a second, jobs: %u, volumes: %u", jobs, apart ? jobs : 1);
			figure(name, (double)n / (seconds() - t), "");
			for (i = 0; i < (apart ? jobs : 1); i++)
				vd_volume_close(job[i].vol);
			settle(pool);
		}
		if (apart)
			break;
	}
	vd_pool_abandon(pool);
}

static void bench_snap(const char *dir)
{
	struct vd_pool *pool = pool_make(dir, 2, 4ull << 20);
	struct vd_volume *vol;
	unsigned i, at = 0, steps[] = { 1, 1000, 10000 };
	uint32_t id;
	double t, first = 0;
	char name[80];

	no_flush = true;
	id = volume(pool, "v", 1ull << 30, &vol);
	map_blocks(vol, 0, 1000);
	settle(pool);
	for (unsigned s = 0; s < 3; s++) {
		double samples[101], all = 0;

		for (; at < steps[s]; at++) {
			map_blocks(vol, rnd() % 200000, 1);
			snapshot(pool, id, at);
			if (at % 64 == 63)
				settle(pool);
		}
		settle(pool);
		for (i = 0; i < 101; i++) {
			map_blocks(vol, rnd() % 200000, 1);
			t = seconds();
			snapshot(pool, id, at + i);
			samples[i] = seconds() - t;
			all += samples[i];
		}
		at += 101;
		for (i = 1; i < 101; i++) /* insertion sort: the median */
			for (unsigned k = i; k && samples[k] < samples[k - 1]; k--) {
				double x = samples[k];

				samples[k] = samples[k - 1];
				samples[k - 1] = x;
			}
		snprintf(name, sizeof(name), "snapshot, engine time, with %u", steps[s]);
		figure(name, samples[50] * 1e3, "ms");
		if (!s)
			first = samples[50];
	}
	figure("  memory", rss_mb(), "MB");
	(void)first;
	vd_volume_close(vol);
	t = seconds();
	must(vd_pool_close(pool), "close");
	must(vd_pool_open(&host, 0, NULL, &pool), "open");
	figure("close and open with 10,000 snapshots", seconds() - t, "s");
	vd_pool_abandon(pool);
}

static int count_range(void *arg, uint64_t off, uint64_t len)
{
	(void)off, (void)len;
	++*(uint64_t *)arg;
	return 0;
}

/* What a comparison costs that does not know what is shared: every extent of both. */
static int compare_all(struct vd_pool *pool, struct vd_volume *a, uint32_t other, uint64_t blocks)
{
	struct vd_extent_info x, y;
	struct vd_volume *b;
	uint64_t off = 0, end = blocks * VD_BLOCK;
	int r = vd_volume_open(pool, other, &b);

	for (; !r && off < end; off += vd_min(x.len, y.len)) {
		r = vd_extent(a, off, vd_min(end - off, (uint64_t)VD_BLOCK), &x);
		if (!r)
			r = vd_extent(b, off, vd_min(end - off, (uint64_t)VD_BLOCK), &y);
	}
	vd_volume_close(b);
	return r;
}

static void bench_large(const char *dir)
{
	uint64_t n = 10000000, i;
	struct vd_pool *pool = pool_make(dir, 1, 32ull << 20);
	struct vd_volume *vol;
	struct vd_usage use;
	uint32_t id, snap;
	uint64_t ranges = 0;
	double t, diff;

	no_flush = true;
	id = volume(pool, "v", 2 * n * VD_BLOCK, &vol);
	for (i = 0; i < n; i++)
		map_blocks(vol, 2 * i, 1);
	settle(pool);
	must(vd_volume_usage(pool, id, &use, NULL, NULL), "usage");
	figure("extents' pages in a pool of 10 million extents", (double)use.meta * 4096 / 1e6, "MB");
	vd_volume_close(vol);
	must(vd_pool_close(pool), "close");
	malloc_trim(0);
	t = rss_mb();
	diff = seconds();
	must(vd_pool_open(&host, 0, NULL, &pool), "open");
	figure("open with 10 million extents", seconds() - diff, "s");
	figure("  memory", rss_mb() - t, "MB");
	must(vd_volume_open(pool, id, &vol), "open volume");
	snap = snapshot(pool, id, 0);
	for (i = 0; i < 1000; i++)
		map_blocks(vol, rnd() % (2 * n), 1);
	settle(pool);
	t = seconds();
	must(vd_diff(pool, id, snap, count_range, &ranges), "diff");
	diff = seconds() - t;
	figure("changed-block list, 1,000 changes in 10 million extents", diff * 1e3, "ms");
	figure("  ranges", (double)ranges, "");
	t = seconds();
	must(compare_all(pool, vol, snap, 2 * n), "compare");
	t = seconds() - t;
	figure("comparing every extent by look-ups", t * 1e3, "ms");
	figure("  ratio", t / diff, "x");
	vd_volume_close(vol);
	vd_pool_abandon(pool);
}

static double tree_bytes(struct vd_pool *pool, uint64_t data_blocks, uint64_t fixed)
{
	struct vd_pool_info info;

	vd_pool_info(pool, &info);
	return (double)(info.used_blocks - data_blocks - fixed) * 4096;
}

static void bench_metadata(const char *dir)
{
	uint64_t n = 4ull << 20, i, fixed;
	struct order o = { 1, n - 1 };
	struct vd_pool_info info;
	struct vd_volume *vol;
	struct vd_pool *pool;
	double worst = 0, before, fill, over;
	uint32_t id;

	no_flush = true;
	pool = pool_make(dir, 1, 32ull << 20);
	vd_pool_info(pool, &info);
	fixed = info.used_blocks;
	volume(pool, "seq", 100ull << 30, &vol);
	for (i = 0; i < (100ull << 30) / VD_BLOCK; i += 256)
		map_blocks(vol, i, 256);
	vd_volume_close(vol);
	settle(pool);
	settle(pool);
	figure("metadata, 100 GiB written in sequence", tree_bytes(pool, (100ull << 30) / VD_BLOCK, fixed) / 1048576, "MiB");
	vd_pool_abandon(pool);

	pool = pool_make(dir, 1, 16ull << 20);
	vd_pool_info(pool, &info);
	fixed = info.used_blocks;
	id = volume(pool, "rnd", n * VD_BLOCK, &vol);
	before = (double)meta_written(pool);
	for (i = 0; i < n; i++) {
		map_blocks(vol, order_next(&o), 1);
		if (i % 50000 == 49999) {
			must(vd_pool_work(pool), "work");
			if (i % 250000 == 249999) {
				struct vd_usage u;

				must(vd_volume_usage(pool, id, &u, NULL, NULL), "usage");
				worst = vd_max(worst, (double)u.meta * 4096 / (double)u.mapped);
			}
		}
	}
	settle(pool);
	fill = ((double)meta_written(pool) - before) / (double)n;
	figure("metadata per random 4 KiB block, worst of each 250,000", worst, "bytes");
	figure("metadata written per random first write", fill * 4096, "bytes");
	snapshot(pool, id, 0);
	settle(pool);
	before = (double)meta_written(pool);
	o.at = 77;
	for (i = 0; i < n; i++) {
		map_blocks(vol, order_next(&o), 1);
		if (i % 50000 == 49999)
			must(vd_pool_work(pool), "work");
	}
	settle(pool);
	over = ((double)meta_written(pool) - before) / (double)n;
	figure("metadata written per random overwrite after a snapshot", over * 4096, "bytes");
	figure("  ratio", over / fill, "x");
	vd_volume_close(vol);
	vd_pool_abandon(pool);
}

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*fn)(const char *dir); } tests[] = {
		{ "translate", bench_translate }, { "insert", bench_insert }, { "threads", bench_threads },
		{ "snapshot", bench_snap }, { "large", bench_large }, { "metadata", bench_metadata },
	};
	bool found = false;

	for (unsigned i = 0; argc >= 2 && i < sizeof(tests) / sizeof(tests[0]); i++)
		if (argc == 2 || !strcmp(argv[2], tests[i].name)) {
			tests[i].fn(argv[1]);
			found = true;
		}
	if (!found)
		fprintf(stderr, "usage: bench_engine DIR [translate|insert|threads|snapshot|large|metadata]\n");
	return !found;
}
