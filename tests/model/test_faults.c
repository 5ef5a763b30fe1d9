// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Each kind of change, with its 1st, 2nd, 3rd … read, write, flush or allocation
 * failing, until it gets through without coming to the one that would fail; once,
 * and from there on for good.  Whatever the engine answered, it was honest: 0 means
 * done, and durable where it promises so; an error means before or after, nothing
 * else.  If the pool still takes writes it goes on as if nothing had happened.
 * Then a power cut, a kill or an ordinary close, and the pool opens clean.
 *
 * The pool is made once a run: volumes, snapshots, fragments, on disk; each trial
 * begins with a copy of it, some operations more for the overlays and the tail,
 * always the same, and then the change.
 */
#include "world.h"

enum change {
	C_WRITE, C_FUA, C_UNMAP, C_FLUSH, C_CREATE, C_DELETE, C_RENAME, C_RESIZE, C_SNAPSHOT, C_GROUP, C_ROLLBACK, C_ATTRS,
	C_LOCK, C_POINTER, C_READONLY, C_CHECKPOINT, C_WORK, C_FRAGMENT, C_READ, C_DIFF, C_USAGE, C_ADD, C_RESERVE, C_GROW, C_POINTER_SET,
	C_POLICY, C_TRANSACTION, C_REPAIR, C_SERVER, C_OPEN, C_CLOSE, C_CHANGES
};
static const enum world_op op_of[C_CHANGES] = {
	W_WRITE, W_FUA, W_UNMAP, W_FLUSH, W_CREATE, W_DELETE, W_RENAME, W_RESIZE, W_SNAPSHOT, W_GROUP, W_ROLLBACK, W_ATTRS,
	W_LOCK, W_POINTER, W_READONLY, W_CHECKPOINT, W_SETTLE, W_FRAGMENT, W_READ, W_DIFF, W_USAGE, W_ADD, W_RESERVE, W_GROW, W_POINTER_SET,
	W_POLICY, W_TRANSACTION, W_REPAIR, W_SERVER, W_OPS, W_OPS,
};
static const char *name_of(enum change c)
{
	return c == C_OPEN ? "open" : c == C_CLOSE ? "close" : world_op_name[op_of[c]];
}

struct tally { uint64_t trials, hit, failed_pools, longest; };

static void steps(struct world *w, unsigned n)
{
	while (n--)
		if (world_step(w))
			world_fail(w, "disturbed before the fault was armed");
}

static enum vd_pool_mode mode_of(struct world *w)
{
	struct vd_pool_info info;

	vd_pool_info(w->pool, &info);
	return info.mode;
}

/* ---- something to repair: one copy of some nodes is bad ---- */

static int spoil_copy(void *arg, const struct vd_dump_item *item)
{
	const struct vd_disk_node *h = item->node;
	struct world *w = arg;
	uint64_t a = le64_to_cpu(h->a), b = le64_to_cpu(h->b);

	if (b != VD_PBLK_NONE && rng_one_in(&w->rng, 3)) {
		if (a % 2) /* always the same one: volumes share nodes, and come to them each */
			a = b;
		sim_spoil(w->sim, VD_PBLK_MEMBER(a), VD_PBLK_BLOCK(a), 100, 50);
	}
	return 0;
}

/* The change is made; 1: it met the fault and its outcome is open. */
static int make(struct world *w, enum change c)
{
	uint64_t faults;

	switch (c) {
	case C_OPEN:
		return world_open(w, 0) != 0;
	case C_CLOSE:
		return world_close(w) != 0;
	case C_REPAIR:
		return vd_check(w->pool, VD_CHECK_REPAIR, NULL, NULL, NULL, &faults) != 0;
	default:
		return world_do(w, op_of[c]);
	}
}

/* One trial. Whether the fault was met. */
static bool trial(struct world *base, enum change c, enum sim_call call, uint64_t nth, bool sticky, uint64_t after, struct tally *t)
{
	struct world *w = world_fork(base);
	enum sim_crash how = SIM_KILL;
	bool hit, failed = false, unseen = false; /* a power cut and not looked at yet */
	int r;

	world_log(w, "trial: %s with %s %s %llu failing%s", name_of(c), (const char *[]){ "read", "write", "flush", "alloc" }[call],
		  "number", (unsigned long long)nth, sticky ? " from then on" : "");
	/* the same operations before the change in each trial, different ones after it */
	w->rng = rng_seeded(base->seed + c);
	world_open(w, 0);
	steps(w, 6);
	if (c == C_OPEN) {
		how = rng_one_in(&w->rng, 2) ? SIM_POWER_CUT : SIM_KILL;
		world_abandon(w);
		sim_crash(w->sim, how);
		world_log(w, "%s", how == SIM_KILL ? "killed" : "power cut");
	}
	if (c == C_REPAIR && vd_dump(w->pool, spoil_copy, w))
		world_fail(w, "no dump before the fault was armed");
	sim_fail(w->sim, call, nth, call == SIM_ALLOC ? -ENOMEM : -EIO, sticky);
	r = make(w, c);
	hit = sim_unfail(w->sim);
	world_log(w, "%s: %s, %s", name_of(c), r ? "open" : "done", hit ? "met the fault" : "did not meet the fault");
	w->rng = rng_seeded(after);
	if (c == C_OPEN) {
		if (!w->pool)
			world_open(w, 0); /* it did no harm: now it opens */
		if (mode_of(w) == VD_MODE_RW) /* read-only, with a member it could not read: that may be behind */
			world_verify(w, how == SIM_KILL ? REF_KILLED : REF_POWER_CUT);
		else
			unseen = how == SIM_POWER_CUT;
	}
	if (w->pool && mode_of(w) >= VD_MODE_READONLY) {
		failed = true;
		t->failed_pools++;
		if (call == SIM_ALLOC)
			world_fail(w, "the pool stopped for want of memory"); /* I7 */
		if (!hit)
			world_fail(w, "mode %d after nothing at all", mode_of(w));
	} else if (w->pool && rng_one_in(&w->rng, 2)) { /* life goes on */
		if (c == C_REPAIR && r)
			world_do(w, W_REPAIR);
		world_verify(w, REF_LIVE);
		steps(w, 1 + (unsigned)rng_below(&w->rng, 6));
	}
	how = SIM_KILL;
	if (w->pool) {
		switch (rng_below(&w->rng, 3)) {
		case 0:
			if (!failed) {
				world_verify(w, REF_LIVE);
				world_close(w);
				break;
			}
			world_close_volumes(w);
			w->sim->fault.hit = true; /* may say so, may not */
			(void)world_close(w);
			sim_unfail(w->sim);
			break;
		case 1:
			world_abandon(w);
			sim_crash(w->sim, SIM_KILL);
			break;
		default:
			how = SIM_POWER_CUT;
			world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
			break;
		}
	} else {
		how = rng_one_in(&w->rng, 2) ? SIM_KILL : SIM_POWER_CUT;
		sim_crash(w->sim, how);
	}
	world_log(w, "now %s", how == SIM_KILL ? "killed or closed" : "power cut");
	world_open(w, 0);
	world_verify(w, how == SIM_POWER_CUT || unseen ? REF_POWER_CUT : REF_KILLED);
	if (c == C_REPAIR && (r || how == SIM_POWER_CUT))
		world_do(w, W_REPAIR); /* what the other did not come to, or did not flush */
	world_check(w);
	world_verify(w, REF_LIVE);
	world_free(w);
	t->trials++;
	t->hit += hit;
	return hit;
}

static void run(struct cli *cli, uint64_t seed, struct tally *t)
{
	struct rng rng = rng_seeded(seed);
	enum change c, first = (enum change)rng_below(&rng, C_CHANGES), k;
	struct shape shape;
	struct world *base;
	uint64_t nth;
	unsigned call, sticky;

	shape_random(&shape, &rng, SHAPE_QUICK);
	shape.max_volumes = vd_min(shape.max_volumes, 6);
	shape.write_through = shape.no_tail = false;
	base = world_new(cli, seed, &shape);
	base->weight[W_CHECKPOINT] = base->weight[W_REOPEN] = base->weight[W_SETTLE] = 2;
	base->weight[W_FRAGMENT] = 10;
	steps(base, 40 + (unsigned)rng_below(&rng, 100));
	world_close(base);
	for (k = 0; k < C_CHANGES; k++)
		for (c = (first + k) % C_CHANGES, call = 0; call < SIM_CALLS; call++)
			for (sticky = 0; sticky < 2; sticky++)
				for (nth = 1; trial(base, c, (enum sim_call)call, nth, sticky, rng_next(&rng), t); nth++) {
					if (nth > t->longest)
						t->longest = nth;
					if (cli->run > cli->least && cli->seconds && cli_elapsed(cli) > (double)cli->seconds)
						goto out;
					if (nth > 60) /* long ones: not each */
						nth += rng_below(&rng, nth / 8);
				}
out:
	world_free(base);
}

int main(int argc, char **argv)
{
	struct cli cli = { .test = "test_faults", .seconds = 40 };
	struct tally t = { 0 };

	cli_start(&cli, argc, argv);
	cli.least = 1; /* whatever the scale: all kinds of change, once through */
	while (cli_more(&cli, cli.run))
		run(&cli, cli_run_seed(&cli), &t);
	printf("# %llu runs, %llu trials, %llu met their fault, %llu stopped the pool, up to the %llu. call, %.1f s\n1..1\nok 1 - test_faults\n",
	       (unsigned long long)cli.run, (unsigned long long)t.trials, (unsigned long long)t.hit, (unsigned long long)t.failed_pools,
	       (unsigned long long)t.longest, cli_elapsed(&cli));
	return 0;
}
