// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Pools with a past, for reader.py to read.
 *
 *   images random SEED DIR   random operations and crashes, as in
 *                            tests/model/test_crash.c, the last one not repaired
 *   images golden NAME DIR   one of golden.c
 *   images tell MEMBER...    what the engine finds in these; `-` is a missing one
 *
 * The first two put members in DIR/m0, DIR/m1, … and base images, stamped as io.h
 * has it, in DIR/base:N.  All end with what the engine finds, opened read-only, as
 * JSON on stdout; `reader.py view` must say the same.
 */
#include "images.h"

void die(const char *what, int r)
{
	fprintf(stderr, "images: %s: error %d\n", what, r);
	exit(1);
}

static void no_kick(void *ctx)
{
	(void)ctx;
}

static void random_life(struct world *w, struct rng *rng)
{
	static const enum world_op folds[] = { W_CHECKPOINT, W_CHECK, W_DIFF, W_SETTLE, W_WORK, W_REOPEN, W_USAGE };
	uint64_t cycles = rng_below(rng, 6), ops, n;

	if (rng_one_in(rng, 2)) { /* nothing that takes a checkpoint: much is left to replay */
		for (n = 0; n < sizeof(folds) / sizeof(folds[0]); n++)
			w->weight[folds[n]] = 0;
		world_close(w);
		w->host.kick = no_kick;
		world_open(w, 0);
	}
	if (rng_one_in(rng, 3))
		w->weight[W_ROLLBACK] *= 8;
	for (;;) {
		ops = rng_between(rng, 1, rng_one_in(rng, 3) ? 300 : 60);
		if (!rng_one_in(rng, 3))
			sim_cut(w->sim, rng_below(rng, 6 * ops + 2));
		for (n = 0; n < ops && !sim_is_cut(w->sim); n++)
			if (world_step(w))
				break;
		if (n == ops && rng_one_in(rng, 2))
			(void)world_do(w, W_FLUSH); /* all of it is in the journal, or it is cut off */
		world_abandon(w);
		sim_crash(w->sim, rng_one_in(rng, 4) ? SIM_KILL : SIM_POWER_CUT);
		if (!cycles--)
			break;
		for (;;) { /* an opening may be cut off as well: its traces are wanted too */
			if (rng_one_in(rng, 2))
				sim_cut(w->sim, rng_below(rng, 60));
			if (!world_open(w, 0) && !sim_is_cut(w->sim))
				break;
			if (w->pool)
				world_abandon(w);
			sim_crash(w->sim, SIM_POWER_CUT);
			if (rng_one_in(rng, 3))
				return;
		}
		sim_uncut(w->sim);
		world_verify(w, REF_POWER_CUT);
	}
}

static void dump(struct sim *sim, const char *dir)
{
	uint8_t block[VD_BLOCK];
	char path[512];
	unsigned m;
	uint64_t b;
	FILE *f;

	for (m = 0; m < sim->nmembers; m++) {
		snprintf(path, sizeof(path), "%s/m%u", dir, m);
		f = fopen(path, "w");
		if (!f)
			die(path, errno);
		for (b = 0; b < sim->member[m]->blocks; b++) {
			sim_peek(sim, m, b, block);
			if (fwrite(block, VD_BLOCK, 1, f) != 1)
				die(path, errno);
		}
		if (fclose(f))
			die(path, errno);
	}
}

void dump_base(uint64_t nsectors, const char *dir)
{
	uint8_t *buf = malloc(nsectors * SECTOR);
	char path[512], name[64];
	FILE *f;

	base_path(name, sizeof(name), nsectors);
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	base_read(nsectors, 0, buf, nsectors * SECTOR);
	f = fopen(path, "w");
	if (!f || fwrite(buf, SECTOR, nsectors, f) != nsectors || fclose(f))
		die(path, errno);
	free(buf);
}

static int random_pool(uint64_t seed, const char *dir)
{
	struct cli cli = { .test = "images", .seed = seed };
	struct rng rng = rng_seeded(seed);
	struct shape shape;
	struct world *w;

	shape_random(&shape, &rng, rng_one_in(&rng, 3) ? SHAPE_TINY | SHAPE_QUICK : SHAPE_QUICK);
	if (rng_one_in(&rng, 2))
		shape.journal_blocks = 500; /* of which 2048 blocks allow no more */
	w = world_new(&cli, seed, &shape);
	random_life(w, &rng);
	dump(w->sim, dir);
	tell_pool(w->sim, dir);
	world_free(w);
	return 0;
}

static int golden_pool(const char *name, const char *dir)
{
	struct sim *sim = golden_make(name);

	if (!sim) {
		fprintf(stderr, "images: there is no golden pool %s\n", name);
		return 2;
	}
	dump(sim, dir);
	tell_pool(sim, dir);
	sim_free(sim);
	return 0;
}

static int tell(unsigned n, char **path)
{
	uint64_t blocks[VD_MEMBERS_MAX], b;
	uint8_t block[VD_BLOCK];
	struct vd_host host;
	FILE *f[VD_MEMBERS_MAX];
	struct sim *sim;
	unsigned m;

	for (m = 0; m < n; m++) {
		blocks[m] = VD_MEMBER_MIN_BLOCKS;
		f[m] = NULL;
		if (!strcmp(path[m], "-"))
			continue;
		f[m] = fopen(path[m], "r");
		if (!f[m] || fseek(f[m], 0, SEEK_END))
			die(path[m], errno);
		blocks[m] = (uint64_t)ftell(f[m]) / VD_BLOCK;
		rewind(f[m]);
	}
	sim = sim_new(1, n, blocks, 1);
	sim_host(sim, &host);
	for (m = 0; m < n; m++) {
		sim->member[m]->missing = !f[m];
		sim->member[m]->write_through = true;
		for (b = 0; f[m] && b < blocks[m]; b++)
			if (fread(block, VD_BLOCK, 1, f[m]) != 1 || host.write(host.ctx, m, b, block, 1))
				die(path[m], errno);
		if (f[m])
			fclose(f[m]);
	}
	tell_pool(sim, NULL);
	sim_free(sim);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "random"))
		return random_pool(strtoull(argv[2], NULL, 0), argv[3]);
	if (argc == 4 && !strcmp(argv[1], "golden"))
		return golden_pool(argv[2], argv[3]);
	if (argc > 2 && (unsigned)argc - 2 <= VD_MEMBERS_MAX && !strcmp(argv[1], "tell"))
		return tell((unsigned)argc - 2, argv + 2);
	fprintf(stderr, "usage: images random SEED DIR | golden NAME DIR | tell MEMBER...\n");
	return 2;
}
