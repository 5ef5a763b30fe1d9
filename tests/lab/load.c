// SPDX-License-Identifier: GPL-2.0-only
/*
 * A load whose every state is known, for machines that are killed.
 *
 *   load run TAG SEED DIR         writes to /dev/mapper/TAG0 … TAG2, until DIR/enough exists
 *   load check TAG SEED DIR AT    whether the volumes, which are read at AT (a directory
 *                                 with devices, or nbdkit's socket), are as they may be;
 *                                 standard input names the volumes that there are
 *
 * Writers, threads, each with cells of 64 KiB of all the volumes to itself.  What a writer
 * does first, second … k-th follows from the seed alone, and each sector that it writes has
 * k in it: so the checker needs to be told only how far things came.  DIR/TAG.acked.T has
 * the k of each flush and FUA write of writer T that ended, in order, and was in the host's
 * hands before the writer went on: it is at most one such further.  DIR/TAG.snapshots has
 * what another thread did with snapshots of some volumes at one instant:
 *
 *   B N MASK K…   snapshots TAGsN.V of the volumes in MASK are to be made; what each writer has done
 *   C N K…        made; what each has begun
 *   X N   Y N     are to be deleted; deleted
 *
 * What must be:
 *   L1  A sector of a volume is what the writer's last flush of that volume, or FUA write of
 *       that sector, left, or what a later operation wrote there.
 *   L2  Snapshots that were made and not deleted are there, those that were deleted are not.
 *   L3  Snapshots of one instant show, for each writer, what its first k operations left, the
 *       same k in all of them, and perhaps a part of the next; k is in the bounds told.
 *   L4  Nothing else is in any sector.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libdevmapper.h>
#include <libnbd.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define WRITERS 6u
#define VOLUMES 3u
#define SECTORS 16384u /* of a volume */
#define CELL 128u      /* sectors */
#define KEPT 4u        /* snapshots, about */

static const char *tag, *dir;
static uint64_t seed;

static _Noreturn void die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static _Noreturn void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "load: ");
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "\n");
	va_end(ap);
	exit(1);
}

static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15u;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

/* ---- what a writer does -------------------------------------------------------- */

enum kind { WRITE, FUA, DISCARD, ZERO, FLUSH };
struct op { enum kind kind; unsigned vol, sector, n; };

static struct op op_of(unsigned t, uint32_t k)
{
	uint64_t r = mix(mix(seed + t) + k), q = mix(r), cells = (SECTORS / CELL - t + WRITERS - 1) / WRITERS;
	unsigned what = r % 100, cell = (unsigned)(r >> 8) % (unsigned)cells * WRITERS + t;
	struct op o = { .vol = (unsigned)(r >> 32) % VOLUMES, .sector = cell * CELL };

	if (what < 8)
		return (struct op){ .kind = FLUSH, .vol = o.vol };
	o.kind = what < 16 ? FUA : what < 22 ? DISCARD : what < 24 ? ZERO : WRITE;
	switch (o.kind == DISCARD ? 2 : q % 4) {
	case 0: /* parts of blocks */
		o.sector += (q >> 8) % (CELL - 16);
		o.n = 1 + (q >> 32) % 15;
		break;
	case 1: /* blocks in a row */
		o.n = 8 * (1 + (q >> 32) % (CELL / 8));
		o.sector += (q >> 8) % ((CELL - o.n) / 8 + 1) * 8;
		break;
	default:
		o.sector += (q >> 8) % (CELL / 8) * 8;
		o.n = 8;
	}
	return o;
}

static bool leaves_zeros(const struct op *o) { return o->kind == DISCARD || o->kind == ZERO; }
static bool is_told(const struct op *o) { return o->kind == FLUSH || o->kind == FUA; }

static void fill(uint64_t w[64], unsigned vol, unsigned sector, uint32_t k)
{
	uint64_t h;
	unsigned i;

	w[0] = htole64(k | (uint64_t)vol << 32);
	w[1] = htole64(sector);
	h = mix(seed ^ mix(k) ^ mix((uint64_t)vol << 32 | sector));
	for (i = 2; i < 64; i++)
		w[i] = htole64(h + i);
}

/* Which operation wrote this sector; 0: none. */
static uint32_t written_by(const uint64_t w[64], const char *name, unsigned vol, unsigned sector)
{
	static const uint64_t zeros[64];
	uint64_t want[64];
	uint32_t k = (uint32_t)le64toh(w[0]);

	if (!memcmp(w, zeros, sizeof(zeros)))
		return 0;
	fill(want, vol, sector, k);
	if (!k || memcmp(w, want, sizeof(want)))
		die("%s: sector %u has what nobody wrote there: %016" PRIx64 " %016" PRIx64 " %016" PRIx64, name, sector,
		    le64toh(w[0]), le64toh(w[1]), le64toh(w[2]));
	return k;
}

/* ---- run ----------------------------------------------------------------------- */

static int volume[VOLUMES];
static _Atomic uint32_t begun[WRITERS], done[WRITERS];
static _Atomic bool enough;

static int told_file(const char *name, unsigned t)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), t == WRITERS ? "%s/%s.%s" : "%s/%s.%s.%u", dir, tag, name, t);
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static void tell(int fd, const char *line)
{
	if (write(fd, line, strlen(line)) != (ssize_t)strlen(line))
		die("the host cannot be told: %s", strerror(errno));
}

static void *writer(void *arg)
{
	unsigned t = (unsigned)(uintptr_t)arg, i;
	int fd = told_file("acked", t);
	uint64_t (*buf)[64];
	uint32_t k;

	if (posix_memalign((void **)&buf, 4096, CELL * 512))
		die("no memory");
	for (k = 1; !atomic_load(&enough); k++) {
		struct op o = op_of(t, k);
		uint64_t range[2] = { o.sector * 512ull, o.n * 512ull };
		struct iovec iov = { buf, o.n * 512 };
		char line[32];
		bool ok = false;

		atomic_store(&begun[t], k);
		switch (o.kind) {
		case FLUSH:
			ok = !fdatasync(volume[o.vol]);
			break;
		case DISCARD:
			ok = !ioctl(volume[o.vol], BLKDISCARD, range);
			break;
		case ZERO:
			ok = !ioctl(volume[o.vol], BLKZEROOUT, range);
			break;
		case WRITE:
		case FUA:
			for (i = 0; i < o.n; i++)
				fill(buf[i], o.vol, o.sector + i, k);
			ok = pwritev2(volume[o.vol], &iov, 1, (off_t)range[0], o.kind == FUA ? RWF_DSYNC : 0) == (ssize_t)range[1];
		}
		if (!ok)
			die("writer %u, operation %u of kind %d: %s", t, k, o.kind, strerror(errno));
		atomic_store(&done[t], k);
		snprintf(line, sizeof(line), "%u\n", k);
		if (is_told(&o))
			tell(fd, line);
	}
	return NULL;
}

static void message(const char *text)
{
	struct dm_task *task = dm_task_create(DM_DEVICE_TARGET_MSG);

	if (!task || !dm_task_set_name(task, "pool") || !dm_task_set_sector(task, 0) || !dm_task_set_message(task, text) || !dm_task_run(task))
		die("%s: refused", text);
	dm_task_destroy(task);
}

static void counts(char *line, size_t size, _Atomic uint32_t *count)
{
	unsigned t;

	for (t = 0; t < WRITERS; t++)
		snprintf(line + strlen(line), size - strlen(line), " %u", atomic_load(&count[t]));
	strncat(line, "\n", size - strlen(line) - 1);
}

static void snapshot(int fd, unsigned n, unsigned mask)
{
	char line[256], text[512] = "create_snap";
	unsigned v;

	snprintf(line, sizeof(line), "B %u %u", n, mask);
	counts(line, sizeof(line), done);
	tell(fd, line);
	for (v = 0; v < VOLUMES; v++)
		if (mask >> v & 1)
			snprintf(text + strlen(text), sizeof(text) - strlen(text), " %ss%u.%u %s%u", tag, n, v, tag, v);
	message(text);
	snprintf(line, sizeof(line), "C %u", n);
	counts(line, sizeof(line), begun);
	tell(fd, line);
}

static void delete(int fd, unsigned n, unsigned mask)
{
	char line[64], text[128];
	unsigned v;

	snprintf(line, sizeof(line), "X %u\n", n);
	tell(fd, line);
	for (v = 0; v < VOLUMES; v++) {
		if (!(mask >> v & 1))
			continue;
		snprintf(text, sizeof(text), "delete %ss%u.%u", tag, n, v);
		message(text);
	}
	snprintf(line, sizeof(line), "Y %u\n", n);
	tell(fd, line);
}

static void snapshots(void)
{
	unsigned n, gone, mask[KEPT + 1], kept[KEPT + 1], nkept = 0;
	int fd = told_file("snapshots", WRITERS);
	char path[256];

	snprintf(path, sizeof(path), "%s/enough", dir);
	for (n = 1; access(path, F_OK); n++) {
		uint64_t r = mix(mix(seed + WRITERS) + n);

		usleep((useconds_t)(r % 250000));
		kept[nkept] = n;
		mask[nkept] = 1 + (unsigned)(r >> 20) % ((1u << VOLUMES) - 1);
		snapshot(fd, n, mask[nkept++]);
		if (!((r >> 30) % 6))
			message("checkpoint");
		if (nkept <= KEPT)
			continue;
		gone = (unsigned)(r >> 40) % nkept;
		delete(fd, kept[gone], mask[gone]);
		nkept--;
		kept[gone] = kept[nkept];
		mask[gone] = mask[nkept];
	}
	atomic_store(&enough, true);
}

static int run(void)
{
	pthread_t thread[WRITERS];
	unsigned i;

	for (i = 0; i < VOLUMES; i++) {
		char path[256];

		snprintf(path, sizeof(path), "/dev/mapper/%s%u", tag, i);
		volume[i] = open(path, O_RDWR | O_DIRECT);
		if (volume[i] < 0)
			die("%s: %s", path, strerror(errno));
	}
	for (i = 0; i < WRITERS; i++)
		if (pthread_create(&thread[i], NULL, writer, (void *)(uintptr_t)i))
			die("no thread");
	snapshots();
	for (i = 0; i < WRITERS; i++)
		pthread_join(thread[i], NULL);
	return 0;
}

/* ---- check --------------------------------------------------------------------- */

struct told { uint32_t *k; size_t n; uint32_t limit; }; /* what was acknowledged; what can have been begun */
static struct told told[WRITERS];
struct group { /* snapshots of one instant */
	unsigned n, mask;
	bool made, going, gone;
	uint32_t lo[WRITERS], hi[WRITERS];
};
static char *names; /* "\nNAME\nNAME\n" */
static const char *at;

static FILE *told_of(const char *name, unsigned t)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), t == WRITERS ? "%s/%s.%s" : "%s/%s.%s.%u", dir, tag, name, t);
	f = fopen(path, "r");
	if (!f)
		die("%s: %s", path, strerror(errno));
	return f;
}

static void read_told(unsigned t)
{
	FILE *f = told_of("acked", t);
	struct told *d = &told[t];
	uint32_t k;

	while (fscanf(f, "%u", &k) == 1) {
		if (!(d->n & (d->n - 1)))
			d->k = realloc(d->k, (d->n ? 2 * d->n : 1) * sizeof(*d->k));
		if (!d->k)
			die("no memory");
		d->k[d->n++] = k;
	}
	fclose(f);
	for (d->limit = d->n ? d->k[d->n - 1] + 1 : 1;; d->limit++) {
		struct op o = op_of(t, d->limit);

		if (is_told(&o))
			break;
	}
}

static bool is_there(const char *name)
{
	char line[128];

	snprintf(line, sizeof(line), "\n%s\n", name);
	return strstr(names, line);
}

static void *contents(const char *name)
{
	const size_t piece = 1 << 20;
	char *buf = malloc(SECTORS * 512), path[256];
	struct stat st;
	size_t off;

	if (!buf)
		die("no memory");
	if (!stat(at, &st) && S_ISDIR(st.st_mode)) {
		int fd;

		snprintf(path, sizeof(path), "%s/%s", at, name);
		fd = open(path, O_RDONLY);
		for (off = 0; off < SECTORS * 512; off += piece)
			if (pread(fd, buf + off, piece, (off_t)off) != (ssize_t)piece)
				die("%s: %s", path, strerror(errno));
		close(fd);
	} else {
		struct nbd_handle *h = nbd_create();

		if (!h || nbd_set_export_name(h, name) || nbd_connect_unix(h, at))
			die("%s: %s", name, nbd_get_error());
		for (off = 0; off < SECTORS * 512; off += piece)
			if (nbd_pread(h, buf + off, piece, off, 0))
				die("%s: %s", name, nbd_get_error());
		nbd_shutdown(h, 0);
		nbd_close(h);
	}
	return buf;
}

static void read_volume(const char *name, unsigned vol, uint32_t found[SECTORS])
{
	uint64_t (*buf)[64] = contents(name);
	unsigned s;

	for (s = 0; s < SECTORS; s++)
		found[s] = written_by(buf[s], name, vol, s);
	free(buf);
}

/* L1 */
static void check_volume(unsigned vol)
{
	static uint32_t found[SECTORS], least[SECTORS];
	static bool ok[SECTORS];
	char name[64];
	unsigned s, t;

	snprintf(name, sizeof(name), "%s%u", tag, vol);
	if (!is_there(name))
		die("%s is not there", name);
	read_volume(name, vol, found);
	memset(least, 0, sizeof(least));
	for (s = 0; s < SECTORS; s++)
		ok[s] = !found[s];
	for (t = 0; t < WRITERS; t++) {
		uint32_t k, flushed = 0;
		size_t i;

		for (i = 0; i < told[t].n; i++) {
			struct op o = op_of(t, told[t].k[i]);

			if (o.kind == FLUSH && o.vol == vol)
				flushed = told[t].k[i];
		}
		for (k = 1, i = 0; k <= told[t].limit; k++) {
			struct op o = op_of(t, k);
			bool sure = k <= flushed;

			while (i < told[t].n && told[t].k[i] < k)
				i++;
			if (o.kind == FUA && i < told[t].n && told[t].k[i] == k)
				sure = true;
			if (o.kind == FLUSH || o.vol != vol)
				continue;
			for (s = o.sector; s < o.sector + o.n; s++) {
				bool is = found[s] == (leaves_zeros(&o) ? 0 : k);

				ok[s] = sure ? is : ok[s] || is;
				if (sure)
					least[s] = k;
			}
		}
	}
	for (s = 0; s < SECTORS; s++)
		if (!ok[s])
			die("%s: sector %u is of operation %u of writer %u; operation %u was flushed, %u is the last there can be",
			    name, s, found[s], s / CELL % WRITERS, least[s], told[s / CELL % WRITERS].limit);
}

/* L3, of one writer */
static void check_prefix(const struct group *g, unsigned t, uint32_t (*found)[SECTORS])
{
	static uint32_t state[VOLUMES][SECTORS];
	unsigned v, s, wrong = 0, best = ~0u;
	uint32_t k, best_k = 0;

	memset(state, 0, sizeof(state));
	for (v = 0; v < VOLUMES; v++)
		for (s = 0; g->mask >> v & 1 && s < SECTORS; s++)
			wrong += s / CELL % WRITERS == t && found[v][s];
	for (k = 0; k <= g->hi[t]; k++) {
		struct op o = op_of(t, k + 1);
		bool counts = o.kind != FLUSH && g->mask >> o.vol & 1;
		unsigned of_next = 0;
		uint32_t next = leaves_zeros(&o) ? 0 : k + 1;

		for (s = o.sector; counts && k < g->hi[t] && s < o.sector + o.n; s++)
			of_next += found[o.vol][s] == next && state[o.vol][s] != next;
		if (k >= g->lo[t] && wrong == of_next)
			return;
		if (k >= g->lo[t] && wrong - of_next < best) {
			best = wrong - of_next;
			best_k = k;
		}
		for (s = o.sector; counts && s < o.sector + o.n; s++) {
			wrong -= state[o.vol][s] != found[o.vol][s];
			state[o.vol][s] = next;
			wrong += state[o.vol][s] != found[o.vol][s];
		}
	}
	die("snapshots %ss%u (mask %u): not what any of writer %u's first %u to %u operations left; %u of them come nearest, with %u sectors wrong",
	    tag, g->n, g->mask, t, g->lo[t], g->hi[t], best_k, best);
}

static unsigned check_group(const struct group *g)
{
	static uint32_t found[VOLUMES][SECTORS];
	unsigned v, t, there = 0, all = 0;
	char name[64];

	for (v = 0; v < VOLUMES; v++) {
		if (!(g->mask >> v & 1))
			continue;
		snprintf(name, sizeof(name), "%ss%u.%u", tag, g->n, v);
		all++;
		if (!is_there(name)) {
			if (g->made && !g->going)
				die("%s is not there", name);
			continue;
		}
		if (g->gone)
			die("%s was deleted, and is there", name);
		there |= 1u << v;
		read_volume(name, v, found[v]);
	}
	if (there && there != g->mask && !g->going)
		die("snapshots %ss%u: only some of mask %u are there: %u", tag, g->n, g->mask, there);
	for (t = 0; there && t < WRITERS; t++) {
		struct group part = *g;

		part.mask = there;
		check_prefix(&part, t, found);
	}
	return there ? all : 0;
}

static void read_counts(FILE *f, uint32_t count[WRITERS])
{
	unsigned t;

	for (t = 0; t < WRITERS; t++)
		if (fscanf(f, "%u", &count[t]) != 1)
			die("a line about snapshots is not whole");
}

static unsigned check_groups(void)
{
	FILE *f = told_of("snapshots", WRITERS);
	struct group *all = NULL;
	unsigned n, t, max = 0, there = 0;
	char what;

	while (fscanf(f, " %c %u", &what, &n) == 2) {
		if (what == 'B') {
			if (n != max + 1 || !(all = realloc(all, (n + 1) * sizeof(*all))))
				die("snapshots %u after %u", n, max);
			max = n;
			all[n] = (struct group){ .n = n };
			if (fscanf(f, "%u", &all[n].mask) != 1)
				die("a line about snapshots is not whole");
			read_counts(f, all[n].lo);
			for (t = 0; t < WRITERS; t++)
				all[n].hi[t] = told[t].limit;
		} else if (!n || n > max) {
			die("snapshots %u were not begun", n);
		} else if (what == 'C') {
			all[n].made = true;
			read_counts(f, all[n].hi);
		} else if (what == 'X') {
			all[n].going = true;
		} else {
			all[n].gone = true;
		}
	}
	fclose(f);
	for (n = 1; n <= max; n++)
		there += check_group(&all[n]);
	free(all);
	return there;
}

static int check(void)
{
	size_t size = 1, n;
	unsigned v, t, snaps;
	uint64_t ops = 0;

	names = calloc(1, 1 << 20);
	if (!names)
		die("no memory");
	names[0] = '\n';
	while ((n = fread(names + size, 1, (1 << 20) - 2 - size, stdin)))
		size += n;
	for (t = 0; t < WRITERS; t++) {
		read_told(t);
		ops += told[t].limit;
	}
	for (v = 0; v < VOLUMES; v++)
		check_volume(v);
	snaps = check_groups();
	printf("%s: after %" PRIu64 " operations: %u volumes, %u snapshots\n", tag, ops, VOLUMES, snaps);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 5 || (strcmp(argv[1], "run") && argc < 6))
		die("run TAG SEED DIR, or check TAG SEED DIR AT");
	tag = argv[2];
	seed = mix(strtoull(argv[3], NULL, 0)) ^ mix((uint64_t)tag[0]);
	dir = argv[4];
	at = argv[5];
	return strcmp(argv[1], "run") ? check() : run();
}
