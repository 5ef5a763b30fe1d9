// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include <signal.h>
#include <stdarg.h>

#include "world.h"

static const struct vd_disk_holder self = {
	.host = "model-test-host", .boot = "model-test-boot", .hostname = "model", .purpose = "test",
};

/* ---- messages --------------------------------------------------------- */

void world_log(struct world *w, const char *fmt, ...)
{
	char *line = w->log[w->nlog++ % WORLD_LOG];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(w->log[0]), fmt, ap);
	va_end(ap);
	if (w->cli && w->cli->verbose)
		fprintf(stderr, "%6llu %s\n", (unsigned long long)w->nlog, line);
}

void world_fail(struct world *w, const char *fmt, ...)
{
	const char *test = w->cli ? w->cli->test : "test";
	const struct shape *s = &w->shape;
	uint64_t i;
	va_list ap;

	printf("# the last operations:\n");
	for (i = w->nlog > WORLD_LOG ? w->nlog - WORLD_LOG : 0; i < w->nlog; i++)
		printf("# %6llu %s\n", (unsigned long long)i + 1, w->log[i % WORLD_LOG]);
	printf("# pool: %u members of %llu, %llu, %llu blocks, journal %llu, sector %u%s%s%s%s%s; host calls %llu\n", s->nmembers,
	       (unsigned long long)s->blocks[0], (unsigned long long)s->blocks[1], (unsigned long long)s->blocks[2],
	       (unsigned long long)s->journal_blocks, s->sector_size,
	       s->write_through ? ", write-through" : "", s->no_tail ? ", no tail" : "", s->tiny ? ", tiny" : "",
	       s->far ? ", far" : "", s->bases ? ", bases" : "", (unsigned long long)w->sim->ncalls);
	printf("# FAILED: ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n# again: %s --seed %#llx --runs 1", test, (unsigned long long)w->seed);
	if (w->cli && w->cli->ops)
		printf(" --ops %llu", (unsigned long long)w->cli->ops);
	printf("\n1..1\nnot ok 1 - %s\n", test);
	fflush(stdout);
	exit(1);
}

static struct world *current; /* for the message when the program is aborted */

static void aborted(int sig)
{
	signal(sig, SIG_DFL);
	if (current)
		world_fail(current, "signal %d", sig);
}

/* A cut or a fault has happened: the engine's answers say nothing about the change under way. */
bool world_disturbed(const struct world *w)
{
	return sim_is_cut(w->sim) || w->sim->fault.hit;
}

/* ---- making and opening ----------------------------------------------- */

void shape_random(struct shape *s, struct rng *rng, unsigned flags)
{
	bool quick = flags & SHAPE_QUICK;
	unsigned m;

	memset(s, 0, sizeof(*s));
	s->tiny = flags & SHAPE_TINY;
	s->nmembers = (unsigned)(s->tiny ? rng_between(rng, 1, 2) : rng_between(rng, 1, 3));
	for (m = 0; m < s->nmembers; m++)
		s->blocks[m] = s->tiny ? VD_MEMBER_MIN_BLOCKS + rng_below(rng, 512) : quick ? rng_between(rng, 3000, 5000) : rng_between(rng, 4096, 16384);
	s->sector_size = rng_one_in(rng, 8) ? 4096 : 512;
	if (rng_one_in(rng, 2))
		s->journal_blocks = rng_between(rng, 64, 300); /* it wraps often */
	s->write_through = rng_one_in(rng, 10);
	s->no_tail = rng_one_in(rng, 8);
	s->far = rng_one_in(rng, 3);
	s->bases = !s->far && rng_one_in(rng, 2);
	s->max_volumes = (unsigned)rng_between(rng, 2, quick ? 10 : 20);
	s->max_write = s->tiny && !quick ? 1 << 20 : quick ? 32768 : 131072;
}

struct world *world_new(const struct cli *cli, uint64_t seed, const struct shape *shape)
{
	struct world *w = calloc(1, sizeof(*w));
	struct vd_format_spec spec = { .name = "p0", .policy = VD_POLICY_ERROR_IF_FULL };
	uint8_t uuids[4][16];
	unsigned m, i;
	int r;

	if (!w)
		abort();
	w->cli = cli;
	w->seed = seed;
	current = w;
	signal(SIGABRT, aborted);
	w->rng = rng_seeded(seed ^ 0x776f726c64ull);
	w->shape = *shape;
	w->ref = ref_new();
	world_weights(w);
	w->sim = sim_new(rng_next(&w->rng), shape->nmembers, shape->blocks, shape->sector_size / SECTOR);
	w->sim->no_tail = shape->no_tail;
	w->sim->verbose = cli && cli->verbose;
	for (m = 0; m < shape->nmembers; m++)
		w->sim->member[m]->write_through = shape->write_through;
	sim_host(w->sim, &w->host);
	for (i = 0; i < 16; i++) {
		spec.uuid[i] = (uint8_t)rng_next(&w->rng);
		for (m = 0; m < 4; m++)
			uuids[m][i] = (uint8_t)(m * 16 + i + 1);
	}
	spec.nmembers = shape->nmembers;
	spec.blocks = shape->blocks;
	spec.member_uuid = (const uint8_t (*)[16])uuids;
	spec.sector_size = shape->sector_size;
	spec.journal_blocks = shape->journal_blocks;
	w->ref->knows_pool = true;
	w->ref->policy.flags = spec.policy;
	r = vd_pool_format(&w->host, &spec);
	if (r)
		world_fail(w, "format: error %d", r);
	if (w->sim->live)
		world_fail(w, "format leaves %lld allocations behind", (long long)w->sim->live);
	world_open(w, 0);
	return w;
}

struct world *world_fork(const struct world *from)
{
	struct world *w = malloc(sizeof(*w));

	if (!w)
		abort();
	*w = *from;
	current = w;
	w->sim = sim_copy(from->sim);
	w->ref = ref_copy(from->ref);
	w->pool = NULL;
	w->nhandles = 0;
	sim_host(w->sim, &w->host);
	return w;
}

void world_free(struct world *w)
{
	if (current == w)
		current = NULL;
	world_abandon(w);
	ref_free(w->ref);
	sim_free(w->sim);
	free(w);
}

static void no_leak(struct world *w, const char *after)
{
	if (w->sim->live)
		world_fail(w, "%lld allocations are left after %s", (long long)w->sim->live, after);
}

int world_open(struct world *w, unsigned flags)
{
	struct vd_pool_info info;
	int r = vd_pool_open(&w->host, flags, &self, &w->pool);

	world_log(w, "open%s: %d", flags & VD_OPEN_READONLY ? " read-only" : "", r);
	if (r) {
		w->pool = NULL;
		if (!world_disturbed(w))
			world_fail(w, "open: error %d", r);
		no_leak(w, "an open that failed");
		return r;
	}
	vd_pool_info(w->pool, &info);
	if (!world_disturbed(w) && !(flags & VD_OPEN_READONLY) && info.mode != VD_MODE_RW && info.mode != VD_MODE_OUT_OF_SPACE)
		world_fail(w, "opened in mode %d", info.mode);
	return 0;
}

void world_close_volumes(struct world *w)
{
	while (w->nhandles)
		vd_volume_close(w->handle[--w->nhandles].vol);
}

int world_close(struct world *w)
{
	int r;

	world_close_volumes(w);
	r = vd_pool_close(w->pool);
	world_log(w, "close: %d", r);
	if (r && !world_disturbed(w))
		world_fail(w, "close: error %d", r);
	if (r == -EBUSY)
		world_fail(w, "close: busy, with no volume open");
	w->pool = NULL;
	no_leak(w, "close");
	if (!r && !world_disturbed(w))
		ref_flushed(w->ref);
	return r;
}

void world_abandon(struct world *w)
{
	if (!w->pool)
		return;
	vd_pool_abandon(w->pool);
	w->pool = NULL;
	w->nhandles = 0;
	no_leak(w, "abandon");
}

/* ---- looking at it ---------------------------------------------------- */

void world_verify(struct world *w, enum ref_mode mode)
{
	static const char *const name[] = { "live", "after a kill", "after a kill without a tail", "after a power cut" };
	enum ref_op_kind pending = w->ref->op.kind;
	char msg[400];

	if (mode == REF_KILLED && w->shape.no_tail)
		mode = REF_KILLED_NO_TAIL;
	if (ref_verify(w->ref, w->sim, w->pool, mode, &w->rng, msg, sizeof(msg)))
		world_fail(w, "contents %s (pending %s): %s", name[mode], ref_op_name[pending], msg);
	world_log(w, "verified %s (pending %s)", name[mode], ref_op_name[pending]);
}

int world_fault_found(void *arg, const struct vd_check_report *f)
{
	static const char *const name[] = { "node", "copy", "count", "leak", "order", "record", "range", "name", "mapped",
						    "promised", "member", "used" };

	if (arg && world_disturbed(arg))
		return 0;
	printf("# check: %s fault, volume %u, a %#llx, b %#llx\n", name[f->fault], f->volume, (unsigned long long)f->a, (unsigned long long)f->b);
	return 0;
}

static struct vd_pool_info pool_info(struct world *w)
{
	struct vd_pool_info info;

	vd_pool_info(w->pool, &info);
	return info;
}

uint64_t world_used(struct world *w)
{
	return pool_info(w).used_blocks;
}

void world_check(struct world *w)
{
	uint64_t faults = 0;
	int r = vd_check(w->pool, 0, world_fault_found, w, NULL, &faults);

	world_log(w, "check: %d, %llu faults", r, (unsigned long long)faults);
	if (world_disturbed(w))
		return;
	if (r || faults)
		world_fail(w, "check: error %d, %llu faults", r, (unsigned long long)faults);
}

void world_what_if(struct world *w, enum sim_crash how)
{
	struct world *c = world_fork(w);

	world_log(c, "in a copy: %s", how == SIM_KILL ? "killed" : "power cut");
	c->sim->rng.s ^= rng_next(&w->rng);
	sim_crash(c->sim, how);
	world_open(c, 0);
	world_verify(c, how == SIM_KILL ? REF_KILLED : REF_POWER_CUT);
	world_check(c);
	world_verify(c, REF_LIVE);
	world_close(c);
	world_free(c);
	current = w;
}

void world_check_copy(struct world *w)
{
	struct world *c = world_fork(w);

	world_log(c, "in a copy: checked");
	world_open(c, 0);
	world_check(c);
	world_free(c);
	current = w;
}

void world_read_only(struct world *w)
{
	struct world *c = world_fork(w);

	world_log(c, "in a copy: read-only");
	world_open(c, VD_OPEN_READONLY);
	/* the tail of this boot is not replayed: what is not in the journal may not be seen */
	world_verify(c, REF_POWER_CUT);
	world_check(c);
	world_close_volumes(c);
	if (vd_pool_close(c->pool))
		world_fail(c, "close of a pool opened read-only failed");
	c->pool = NULL;
	if (c->sim->calls[SIM_WRITE] || c->sim->calls[SIM_FLUSH])
		world_fail(c, "a pool opened read-only was written to");
	world_free(c);
	current = w;
}

uint64_t world_empty(struct world *w)
{
	struct ref_op op = { .kind = REF_DELETE };
	char name[8];
	uint32_t id;
	unsigned i;
	int r;

	world_close_volumes(w);
	(void)!vd_pool_unpin(w->pool, VD_PIN_USER);
	(void)!vd_pool_unpin(w->pool, VD_PIN_CHECK);
	while (w->ref->n) {
		struct ref_vol *v = w->ref->vol[rng_below(&w->rng, w->ref->n)];

		if (v->locked && (r = vd_volume_unlock(w->pool, v->id)))
			world_fail(w, "unlock %u: error %d", v->id, r);
		while (v->npointers)
			if ((r = vd_volume_pointer_del(w->pool, v->id, v->link[--v->npointers])))
				world_fail(w, "pointer_del %u: error %d", v->id, r);
		op.id = v->id;
		ref_begin(w->ref, &op);
		r = vd_volume_delete(w->pool, v->id);
		world_log(w, "delete %u: %d", op.id, r);
		if (r)
			world_fail(w, "deleting everything: volume %u: error %d", v->id, r);
		ref_done(w->ref);
		if (rng_one_in(&w->rng, 3) && (r = vd_pool_work(w->pool)) < 0)
			world_fail(w, "work: error %d", r);
	}
	for (i = 0; i < REF_SERVERS; i++) {
		op = (struct ref_op){ .kind = REF_SERVER_DEL, .other = i };
		ref_server_name(i, name);
		if (!w->ref->server[i].there)
			continue;
		ref_begin(w->ref, &op);
		r = vd_server_find(w->pool, name, &id);
		if (r || (r = vd_server_delete(w->pool, id)))
			world_fail(w, "deleting everything: server %s: error %d", name, r);
		ref_done(w->ref);
	}
	for (i = 0; (r = vd_pool_work(w->pool)) > 0 && i < 100000; i++)
		;
	if (r)
		world_fail(w, "after deleting everything: work: %d", r);
	for (i = 0; i < 3; i++)
		if ((r = vd_checkpoint(w->pool)) || (r = vd_pool_work(w->pool)) < 0)
			world_fail(w, "after deleting everything: error %d", r);
	ref_flushed(w->ref);
	return world_used(w);
}
