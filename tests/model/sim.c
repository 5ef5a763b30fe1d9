// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "sim.h"

#define SECTOR 512u
#define CHUNK_BLOCKS 4u
#define CHUNK_SECTORS (CHUNK_BLOCKS * VD_SECTORS_PER_BLOCK)
#define CHUNK_BYTES (CHUNK_BLOCKS * VD_BLOCK)
#define GARBAGE 0xee   /* never written */
#define DISCARDED 0xdd
#define ALLOCATED 0xa5

struct sim_chunk {
	unsigned refs;
	uint8_t data[CHUNK_BYTES];
};

/* ---- numbers ---------------------------------------------------------- */

struct rng rng_seeded(uint64_t seed)
{
	struct rng r = { seed };

	return r;
}

uint64_t rng_next(struct rng *r) /* splitmix64 */
{
	uint64_t z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
	return rng_next(r) % n;
}

uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi)
{
	return lo + rng_below(r, hi - lo + 1);
}

static void *must_alloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p) {
		fprintf(stderr, "out of memory\n");
		abort();
	}
	return p;
}

/* ---- images ----------------------------------------------------------- */

static struct sim_chunk *chunk_hold(struct sim_chunk *c)
{
	if (c)
		__atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED);
	return c;
}

static void chunk_put(struct sim_chunk *c)
{
	if (c && !__atomic_sub_fetch(&c->refs, 1, __ATOMIC_ACQ_REL))
		free(c);
}

/* The chunk of this slot, its own to write to. */
static struct sim_chunk *chunk_own(struct sim_chunk **slot)
{
	struct sim_chunk *c = *slot, *n;

	if (c && __atomic_load_n(&c->refs, __ATOMIC_RELAXED) == 1)
		return c;
	n = malloc(sizeof(*n));
	if (!n)
		abort();
	n->refs = 1;
	if (c)
		memcpy(n->data, c->data, CHUNK_BYTES);
	else
		memset(n->data, GARBAGE, CHUNK_BYTES);
	chunk_put(c);
	return *slot = n;
}

static void sector_set(struct sim_chunk **chunks, uint64_t sector, const void *data)
{
	struct sim_chunk *c = chunk_own(&chunks[sector / CHUNK_SECTORS]);

	memcpy(c->data + sector % CHUNK_SECTORS * SECTOR, data, SECTOR);
}

static void sectors_get(struct sim_chunk **chunks, uint64_t sector, unsigned n, uint8_t *buf)
{
	while (n) {
		const struct sim_chunk *c = chunks[sector / CHUNK_SECTORS];
		unsigned in = (unsigned)(sector % CHUNK_SECTORS), k = vd_min(n, CHUNK_SECTORS - in);

		if (c)
			memcpy(buf, c->data + in * SECTOR, k * SECTOR);
		else
			memset(buf, GARBAGE, k * SECTOR);
		buf += k * SECTOR;
		sector += k;
		n -= k;
	}
}

static struct sim_member *member_new(uint64_t blocks)
{
	struct sim_member *m = must_alloc(sizeof(*m));

	m->blocks = blocks;
	m->nchunks = (blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;
	m->now = must_alloc(m->nchunks * sizeof(*m->now));
	m->durable = must_alloc(m->nchunks * sizeof(*m->durable));
	m->last = &m->first;
	return m;
}

static void writes_drop(struct sim_member *m)
{
	struct sim_write *w, *next;

	for (w = m->first; w; w = next) {
		next = w->next;
		free(w->done);
		free(w);
	}
	m->first = NULL;
	m->last = &m->first;
	m->unflushed = 0;
}

void sim_member_free(struct sim_member *m)
{
	uint64_t i;

	if (!m)
		return;
	writes_drop(m);
	for (i = 0; i < m->nchunks; i++) {
		chunk_put(m->now[i]);
		chunk_put(m->durable[i]);
	}
	free(m->now);
	free(m->durable);
	free(m);
}

/* Makes one of the two images like the other where they differ. */
static void settle(struct sim_member *m, struct sim_chunk **to, struct sim_chunk **from)
{
	const struct sim_write *w;
	uint64_t c;

	for (w = m->first; w; w = w->next)
		for (c = w->sector / CHUNK_SECTORS; c <= (w->sector + w->nsectors - 1) / CHUNK_SECTORS; c++)
			if (to[c] != from[c]) {
				chunk_put(to[c]);
				to[c] = chunk_hold(from[c]);
			}
	writes_drop(m);
}

/* Writes the sectors for which done says so (NULL: all) to the cache, or through it. */
static void put(struct sim_member *m, uint64_t sector, unsigned n, const uint8_t *data, const uint8_t *done)
{
	struct sim_write *w;
	unsigned i, k;

	if (!done) {
		for (i = 0; i < n; i += k) {
			unsigned in = (unsigned)((sector + i) % CHUNK_SECTORS);

			k = vd_min(n - i, CHUNK_SECTORS - in);
			memcpy(chunk_own(&m->now[(sector + i) / CHUNK_SECTORS])->data + in * SECTOR, data + i * SECTOR, k * SECTOR);
		}
	} else {
		for (i = 0; i < n; i++)
			if (done[i])
				sector_set(m->now, sector + i, data + i * SECTOR);
	}
	w = malloc(sizeof(*w) + n * SECTOR);
	if (!w)
		abort();
	w->next = NULL;
	w->sector = sector;
	w->nsectors = n;
	w->done = NULL;
	memcpy(w->data, data, n * SECTOR);
	if (done) {
		w->done = must_alloc(n);
		memcpy(w->done, done, n);
	}
	*m->last = w;
	m->last = &w->next;
	m->unflushed++;
	if (m->write_through)
		settle(m, m->durable, m->now);
}

/* Which of n sectors of one write get done: none, all, up to somewhere, from
 * somewhere on, all but a few, each block or each sector for itself. */
static void choose(struct rng *rng, unsigned tear, unsigned n, uint8_t *done)
{
	unsigned how = (unsigned)rng_below(rng, 7), at = (unsigned)rng_below(rng, n + 1), len = (unsigned)rng_between(rng, 1, 8), i;
	unsigned grain = how == 5 ? VD_SECTORS_PER_BLOCK : tear;
	uint8_t yes = 0;

	for (i = 0; i < n; i++) {
		if (i % grain && i % tear == 0 && how >= 5) {
			done[i] = yes;
			continue;
		}
		if (i % tear == 0)
			switch (how) {
			case 0: yes = 0; break;
			case 1: yes = 1; break;
			case 2: yes = i < at; break;
			case 3: yes = i >= at; break;
			case 4: yes = i < at || i >= at + len; break;
			default: yes = (uint8_t)rng_below(rng, 2); break;
			}
		done[i] = yes;
	}
}

/* ---- faults and cuts -------------------------------------------------- */

/* Under the lock.  *torn: this write may be done in part though it fails. */
static int fate(struct sim *sim, enum sim_call call, bool *torn)
{
	*torn = false;
	sim->calls[call]++;
	if (call != SIM_ALLOC) {
		sim->ncalls++;
		if (sim->cut.done)
			return -EIO;
		if (sim->cut.armed && !sim->cut.after--) {
			sim->cut.done = true;
			if (sim->tail && (sim->cut.tail = malloc(sim->tail_size)))
				memcpy(sim->cut.tail, sim->tail, sim->tail_size);
			*torn = true;
			return -EIO;
		}
	}
	if (sim->fault.armed && sim->fault.call == call) {
		if (sim->fault.nth > 1) {
			sim->fault.nth--;
		} else if (sim->fault.sticky || !sim->fault.hit) {
			*torn = !sim->fault.hit;
			sim->fault.hit = true;
			return sim->fault.err;
		}
	}
	return 0;
}

void sim_cut(struct sim *sim, uint64_t after)
{
	sim_uncut(sim);
	sim->cut.armed = true;
	sim->cut.after = after;
}

void sim_uncut(struct sim *sim)
{
	free(sim->cut.tail);
	memset(&sim->cut, 0, sizeof(sim->cut));
}

void sim_fail(struct sim *sim, enum sim_call call, uint64_t nth, int err, bool sticky)
{
	pthread_mutex_lock(&sim->lock);
	memset(&sim->fault, 0, sizeof(sim->fault));
	sim->fault.armed = true;
	sim->fault.call = call;
	sim->fault.nth = nth;
	sim->fault.err = err;
	sim->fault.sticky = sticky;
	pthread_mutex_unlock(&sim->lock);
}

bool sim_unfail(struct sim *sim)
{
	bool hit;

	pthread_mutex_lock(&sim->lock);
	hit = sim->fault.hit;
	memset(&sim->fault, 0, sizeof(sim->fault));
	pthread_mutex_unlock(&sim->lock);
	return hit;
}

static void power_cut(struct sim *sim, struct sim_member *m)
{
	/* The whole cache at once: all lost, all kept, or each write torn by itself,
	 * more or less likely to have been done. */
	unsigned how = (unsigned)rng_below(&sim->rng, 6), keep = (unsigned)rng_between(&sim->rng, 1, 15), i;
	const struct sim_write *w;

	if (how == 1) {
		settle(m, m->durable, m->now);
		return;
	}
	for (w = how ? m->first : NULL; w; w = w->next) {
		uint8_t *done = must_alloc(w->nsectors);
		bool all = rng_below(&sim->rng, 16) < keep;

		/* 2, 3: whole writes, or sectors of one mind; else each sector for itself */
		choose(&sim->rng, sim->tear, w->nsectors, done);
		for (i = 0; i < w->nsectors; i++)
			if ((how <= 3 ? all : done[i]) && (!w->done || w->done[i]))
				sector_set(m->durable, w->sector + i, w->data + i * SECTOR);
		free(done);
	}
	settle(m, m->now, m->durable);
}

void sim_crash(struct sim *sim, enum sim_crash how)
{
	unsigned m;

	if (how == SIM_POWER_CUT) {
		for (m = 0; m < sim->nmembers; m++)
			power_cut(sim, sim->member[m]);
		if (sim->tail)
			memset(sim->tail, 0, sim->tail_size);
	} else if (sim->cut.tail) {
		memcpy(sim->tail, sim->cut.tail, sim->tail_size);
	}
	sim_uncut(sim);
	sim_unfail(sim);
}

/* ---- the host --------------------------------------------------------- */

static int sectors_io(struct sim *sim, enum sim_call call, unsigned member, uint64_t sector, unsigned n, void *rbuf, const void *wbuf)
{
	struct sim_member *m;
	bool torn;
	int r;

	pthread_mutex_lock(&sim->lock);
	r = fate(sim, call, &torn);
	if (member >= sim->nmembers || sim->member[member]->missing) {
		r = -ENODEV;
		goto out;
	}
	m = sim->member[member];
	if (!n || sector + n > m->blocks * VD_SECTORS_PER_BLOCK) {
		fprintf(stderr, "sim: member %u: %s of sectors %llu+%u outside of it\n", member, rbuf ? "read" : "write",
			(unsigned long long)sector, n);
		abort();
	}
	if (r && torn && wbuf) {
		uint8_t *done = must_alloc(n);

		choose(&sim->rng, sim->tear, n, done);
		put(m, sector, n, wbuf, done);
		free(done);
	}
	for (unsigned i = 0; i < 4 && !r; i++) {
		if (!m->bad[i] || m->bad[i] < sector / VD_SECTORS_PER_BLOCK || m->bad[i] > (sector + n - 1) / VD_SECTORS_PER_BLOCK)
			continue;
		if (rbuf)
			r = -EIO;
		else
			m->bad[i] = 0;
	}
	if (r)
		goto out;
	if (rbuf)
		sectors_get(m->now, sector, n, rbuf);
	else
		put(m, sector, n, wbuf, NULL);
out:
	pthread_mutex_unlock(&sim->lock);
	return r;
}

static int host_read(void *ctx, unsigned member, uint64_t block, void *buf, unsigned nblocks)
{
	return sectors_io(ctx, SIM_READ, member, block * VD_SECTORS_PER_BLOCK, nblocks * VD_SECTORS_PER_BLOCK, buf, NULL);
}

static int host_write(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks)
{
	return sectors_io(ctx, SIM_WRITE, member, block * VD_SECTORS_PER_BLOCK, nblocks * VD_SECTORS_PER_BLOCK, NULL, buf);
}

static int host_flush(void *ctx, unsigned member)
{
	struct sim *sim = ctx;
	bool torn;
	int r;

	pthread_mutex_lock(&sim->lock);
	r = fate(sim, SIM_FLUSH, &torn);
	if (member >= sim->nmembers || sim->member[member]->missing)
		r = -ENODEV;
	if (!r)
		settle(sim->member[member], sim->member[member]->durable, sim->member[member]->now);
	pthread_mutex_unlock(&sim->lock);
	return r;
}

static int host_commit(void *ctx, unsigned member, uint64_t block, const void *buf, unsigned nblocks)
{
	struct sim *sim = ctx;
	int r = host_flush(ctx, member);

	if (!r)
		r = host_write(ctx, member, block, buf, nblocks);
	if (r)
		return r;
	pthread_mutex_lock(&sim->lock);
	for (unsigned i = 0; i < nblocks * VD_SECTORS_PER_BLOCK; i++)
		sector_set(sim->member[member]->durable, block * VD_SECTORS_PER_BLOCK + i, (const uint8_t *)buf + i * SECTOR);
	pthread_mutex_unlock(&sim->lock);
	return 0;
}

static int host_discard(void *ctx, unsigned member, uint64_t block, uint64_t nblocks)
{
	struct sim *sim = ctx;
	uint8_t garbage[VD_BLOCK];

	memset(garbage, DISCARDED, sizeof(garbage));
	pthread_mutex_lock(&sim->lock);
	if (member >= sim->nmembers || block + nblocks > sim->member[member]->blocks)
		abort();
	sim->ndiscards++;
	for (; nblocks && !sim->cut.done; block++, nblocks--)
		put(sim->member[member], block * VD_SECTORS_PER_BLOCK, VD_SECTORS_PER_BLOCK, garbage, NULL);
	pthread_mutex_unlock(&sim->lock);
	return 0;
}

static void *host_alloc(void *ctx, size_t size, int how)
{
	struct sim *sim = ctx;
	bool torn;
	void *p;
	int r;

	(void)how;
	pthread_mutex_lock(&sim->lock);
	r = fate(sim, SIM_ALLOC, &torn);
	if (!r)
		sim->live++;
	pthread_mutex_unlock(&sim->lock);
	if (r)
		return NULL;
	p = malloc(size);
	if (!p)
		abort();
	memset(p, ALLOCATED, vd_min(size, (size_t)16384));
	return p;
}

static void host_free(void *ctx, void *p)
{
	struct sim *sim = ctx;

	if (!p)
		return;
	pthread_mutex_lock(&sim->lock);
	sim->live--;
	pthread_mutex_unlock(&sim->lock);
	free(p);
}

static uint64_t host_now(void *ctx)
{
	struct sim *sim = ctx;

	return 1700000000000000000ull + __atomic_add_fetch(&sim->clock, 1000000, __ATOMIC_RELAXED);
}

static void host_log(void *ctx, int level, const char *msg, uint64_t a, uint64_t b)
{
	struct sim *sim = ctx;
	const char *p;

	if (level == VD_LOG_ERROR)
		__atomic_add_fetch(&sim->errors_logged, 1, __ATOMIC_RELAXED);
	if (!sim->verbose)
		return;
	fprintf(stderr, "engine[%d]: ", level);
	for (p = msg; *p; p++) {
		if (p[0] == '%' && (p[1] == 'a' || p[1] == 'b'))
			fprintf(stderr, "%#llx", (unsigned long long)(*++p == 'a' ? a : b));
		else
			fputc(*p, stderr);
	}
	fputc('\n', stderr);
}

static void host_kick(void *ctx)
{
	__atomic_store_n(&((struct sim *)ctx)->kicked, true, __ATOMIC_RELAXED);
}

static uint64_t host_size(void *ctx, unsigned member)
{
	struct sim *sim = ctx;
	uint64_t n;

	pthread_mutex_lock(&sim->lock);
	n = member < sim->nmembers && !sim->member[member]->missing ? sim->member[member]->blocks : 0;
	pthread_mutex_unlock(&sim->lock);
	return n;
}

static void *host_tail(void *ctx, size_t size)
{
	struct sim *sim = ctx;

	if (sim->no_tail)
		return NULL;
	if (!sim->tail) {
		sim->tail = must_alloc(size);
		sim->tail_size = size;
	}
	if (size > sim->tail_size)
		abort();
	return sim->tail;
}

void sim_host(struct sim *sim, struct vd_host *host)
{
	memset(host, 0, sizeof(*host));
	host->ctx = sim;
	host->read = host_read;
	host->write = host_write;
	host->flush = host_flush;
	host->commit = sim->one_write ? host_commit : NULL;
	host->discard = host_discard;
	host->alloc = host_alloc;
	host->free = host_free;
	host->now = host_now;
	host->log = host_log;
	host->kick = host_kick;
	host->tail = host_tail;
	host->size = host_size;
}

int sim_data_read(struct sim *sim, vd_pblk_t p, uint32_t offset, void *buf, uint32_t bytes)
{
	return sectors_io(sim, SIM_READ, VD_PBLK_MEMBER(p), VD_PBLK_BLOCK(p) * VD_SECTORS_PER_BLOCK + offset / SECTOR,
			  bytes / SECTOR, buf, NULL);
}

int sim_data_write(struct sim *sim, vd_pblk_t p, uint32_t offset, const void *buf, uint32_t bytes)
{
	return sectors_io(sim, SIM_WRITE, VD_PBLK_MEMBER(p), VD_PBLK_BLOCK(p) * VD_SECTORS_PER_BLOCK + offset / SECTOR,
			  bytes / SECTOR, NULL, buf);
}

/* ---- whole disks ------------------------------------------------------ */

struct sim *sim_new(uint64_t seed, unsigned nmembers, const uint64_t *blocks, unsigned tear)
{
	struct sim *sim = must_alloc(sizeof(*sim));
	unsigned m;

	pthread_mutex_init(&sim->lock, NULL);
	sim->rng = rng_seeded(seed);
	sim->tear = tear;
	sim->one_write = seed >> 7 & 1;
	for (m = 0; m < nmembers; m++)
		sim_add(sim, blocks[m]);
	return sim;
}

void sim_add(struct sim *sim, uint64_t blocks)
{
	sim->member[sim->nmembers++] = member_new(blocks);
}

void sim_grow(struct sim *sim, unsigned m, uint64_t blocks)
{
	struct sim_member *mb = sim->member[m];
	uint64_t n = (blocks + CHUNK_BLOCKS - 1) / CHUNK_BLOCKS;

	pthread_mutex_lock(&sim->lock);
	if (n > mb->nchunks) {
		mb->now = realloc(mb->now, n * sizeof(*mb->now));
		mb->durable = realloc(mb->durable, n * sizeof(*mb->durable));
		if (!mb->now || !mb->durable)
			abort();
		memset(mb->now + mb->nchunks, 0, (n - mb->nchunks) * sizeof(*mb->now));
		memset(mb->durable + mb->nchunks, 0, (n - mb->nchunks) * sizeof(*mb->durable));
		mb->nchunks = n;
	}
	mb->blocks = blocks;
	pthread_mutex_unlock(&sim->lock);
}

void sim_free(struct sim *sim)
{
	unsigned m;

	if (!sim)
		return;
	for (m = 0; m < sim->nmembers; m++)
		sim_member_free(sim->member[m]);
	sim_uncut(sim);
	free(sim->tail);
	pthread_mutex_destroy(&sim->lock);
	free(sim);
}

static struct sim_member *member_copy(const struct sim_member *from, struct sim_chunk **now)
{
	struct sim_member *m = member_new(vd_max(from->blocks, from->nchunks * CHUNK_BLOCKS));
	uint64_t i;

	for (i = 0; i < m->nchunks; i++) {
		m->now[i] = chunk_hold(now[i]);
		m->durable[i] = chunk_hold(now[i]);
	}
	m->blocks = from->blocks;
	m->missing = from->missing;
	m->write_through = from->write_through;
	return m;
}

struct sim *sim_copy(const struct sim *sim)
{
	struct sim *to = must_alloc(sizeof(*to));
	unsigned m;

	pthread_mutex_init(&to->lock, NULL);
	to->rng = sim->rng;
	to->rng.s ^= 0x5555;
	to->tear = sim->tear;
	to->no_tail = sim->no_tail;
	to->one_write = sim->one_write;
	to->clock = sim->clock;
	to->verbose = sim->verbose;
	to->nmembers = sim->nmembers;
	for (m = 0; m < sim->nmembers; m++) {
		const struct sim_write *w;

		to->member[m] = member_copy(sim->member[m], sim->member[m]->durable);
		to->member[m]->write_through = false;
		for (w = sim->member[m]->first; w; w = w->next)
			put(to->member[m], w->sector, w->nsectors, w->data, w->done);
		to->member[m]->write_through = sim->member[m]->write_through;
	}
	if (sim->tail) {
		to->tail = must_alloc(sim->tail_size);
		to->tail_size = sim->tail_size;
		memcpy(to->tail, sim->cut.tail ? sim->cut.tail : sim->tail, sim->tail_size);
	}
	return to;
}

struct sim_member *sim_member_save(const struct sim *sim, unsigned m)
{
	return member_copy(sim->member[m], sim->member[m]->durable);
}

void sim_member_restore(struct sim *sim, unsigned m, const struct sim_member *saved)
{
	sim_member_free(sim->member[m]);
	sim->member[m] = member_copy(saved, saved->durable);
}

void sim_spoil(struct sim *sim, unsigned m, uint64_t block, unsigned offset, unsigned len)
{
	uint8_t *b, buf[VD_BLOCK];
	unsigned i;

	settle(sim->member[m], sim->member[m]->durable, sim->member[m]->now);
	sectors_get(sim->member[m]->now, block * VD_SECTORS_PER_BLOCK, VD_SECTORS_PER_BLOCK, buf);
	for (b = buf + offset, i = 0; i < len && offset + i < VD_BLOCK; i++)
		b[i] ^= (uint8_t)rng_between(&sim->rng, 1, 255);
	put(sim->member[m], block * VD_SECTORS_PER_BLOCK, VD_SECTORS_PER_BLOCK, buf, NULL);
	settle(sim->member[m], sim->member[m]->durable, sim->member[m]->now);
}

void sim_peek(struct sim *sim, unsigned m, uint64_t block, void *buf)
{
	sectors_get(sim->member[m]->now, block * VD_SECTORS_PER_BLOCK, VD_SECTORS_PER_BLOCK, buf);
}
