// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Random operations, cut off by a crash at a random host call in the middle of
 * one, again and again on the same pool: a power cut (what was not flushed is
 * dropped, kept or torn, the tail is lost) or a kill of the process (nothing that
 * was done is lost).  One reopening in three is itself cut off.  After each the
 * pool opens and checks clean, in a copy, and then holds what it must (ref.h).
 */
#include "world.h"

struct tally { uint64_t crashes, during_open, kills, ops; };

/* Brings the pool back up.  What may be expected of it afterwards. */
static enum ref_mode crash_and_reopen(struct world *w, struct rng *rng, struct tally *t, unsigned bias)
{
	enum ref_mode mode = REF_KILLED;
	int r;

	do {
		enum sim_crash how = rng_below(rng, 100) < bias ? SIM_KILL : SIM_POWER_CUT;

		world_abandon(w);
		sim_crash(w->sim, how);
		world_log(w, "-------- %s", how == SIM_KILL ? "killed" : "power cut");
		if (how == SIM_POWER_CUT)
			mode = REF_POWER_CUT;
		t->crashes++;
		t->kills += how == SIM_KILL;
		world_check_copy(w);
		if (rng_one_in(rng, 3))
			sim_cut(w->sim, rng_below(rng, rng_one_in(rng, 2) ? 12 : 60));
		r = world_open(w, 0);
		t->during_open += r || sim_is_cut(w->sim);
	} while (r || sim_is_cut(w->sim));
	sim_uncut(w->sim);
	return mode;
}

static void run(struct cli *cli, uint64_t seed, struct tally *t)
{
	struct rng rng = rng_seeded(seed);
	uint64_t cycles = rng_between(&rng, 5, 60), c, n, ops, fresh, used;
	struct vd_pool_info info;
	struct shape shape;
	struct world *w;
	unsigned bias = (unsigned)(rng_one_in(&rng, 4) ? 90 : rng_one_in(&rng, 3) ? 0 : 35), i;
	enum ref_mode mode;

	if (rng_one_in(&rng, 20))
		cycles = 300; /* a pool that grows old and fragmented */
	shape_random(&shape, &rng, rng_one_in(&rng, 4) ? SHAPE_TINY | SHAPE_QUICK : SHAPE_QUICK);
	w = world_new(cli, seed, &shape);
	fresh = world_used(w);
	if (shape.tiny && rng_one_in(&rng, 2)) { /* where what is freed is wanted at once */
		if (world_do(w, W_FILL))
			world_fail(w, "disturbed before there was a cut");
		w->weight[W_UNMAP] *= 3;
	}
	for (i = 0; i < 3 && rng_one_in(&rng, 2); i++) /* a run with a theme */
		w->weight[rng_below(&rng, W_OPS)] *= 8;
	for (c = 0; c < cycles && (!cli->crashes || t->crashes < cli->crashes); c++) {
		ops = cli->ops ? cli->ops : rng_between(&rng, 1, rng_one_in(&rng, 4) ? 150 : 25);
		switch (rng_below(&rng, 8)) {
		case 0: break; /* between two operations */
		case 1: sim_cut(w->sim, rng_below(&rng, 8)); break;
		case 2: sim_cut(w->sim, rng_below(&rng, 1000)); break;
		default: sim_cut(w->sim, rng_below(&rng, 6 * ops + 2)); break;
		}
		for (n = 0; n < ops && !sim_is_cut(w->sim); n++)
			if (world_step(w))
				break;
		t->ops += n;
		if (!sim_is_cut(w->sim)) {
			sim_uncut(w->sim);
			if (rng_one_in(&rng, 6))
				world_what_if(w, rng_one_in(&rng, 2) ? SIM_KILL : SIM_POWER_CUT);
		}
		mode = crash_and_reopen(w, &rng, t, bias);
		if (rng_one_in(&rng, 12))
			world_read_only(w); /* before anything is known of the pending change */
		world_verify(w, mode);
		if (rng_one_in(&rng, 3))
			world_check(w); /* not always: it begins with a checkpoint, and replay onto replay is wanted too */
		else if (rng_one_in(&rng, 3))
			world_what_if(w, SIM_POWER_CUT);
	}
	world_verify(w, REF_LIVE);
	world_check(w);
	used = world_empty(w);
	vd_pool_info(w->pool, &info);
	if (info.nmembers == shape.nmembers && used > fresh + 8)
		world_fail(w, "with all deleted %llu blocks are in use; %llu were when the pool was new", (unsigned long long)used, (unsigned long long)fresh);
	world_close(w);
	world_free(w);
}

int main(int argc, char **argv)
{
	struct cli cli = { .test = "test_crash", .seconds = 30, .least = 20000 };
	struct tally t = { 0 };

	cli_start(&cli, argc, argv);
	while (cli_more(&cli, t.crashes) && (!cli.crashes || t.crashes < cli.crashes))
		run(&cli, cli_run_seed(&cli), &t);
	printf("# %llu runs, %llu operations, %llu crashes (%llu kills, %llu during open), %.1f s\n1..1\nok 1 - test_crash\n",
	       (unsigned long long)cli.run, (unsigned long long)t.ops, (unsigned long long)t.crashes, (unsigned long long)t.kills,
	       (unsigned long long)t.during_open, cli_elapsed(&cli));
	return 0;
}
