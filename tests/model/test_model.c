// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Random operations on a small pool, compared with the model: every read, every
 * record, extents, differences, counts of blocks.  No crash here, but the pool is
 * closed and opened, checked, looked at as if it had crashed (in a copy), and one
 * in three is so small that it is full most of the time: -ENOSPC is an answer
 * then, deleting and unmapping still work, and at the end all space comes back.
 */
#include "world.h"

static void no_space_left_behind(struct world *w, uint64_t fresh)
{
	uint64_t used = world_empty(w), largest = 0, i;
	struct ref_op op = { .kind = REF_CREATE, .name = "all-of-it", .size = 64ull << 20 };
	struct vd_volume_spec spec = { .name = op.name, .size = op.size };
	struct vd_pool_info info;
	int r;

	/* what a member added meanwhile brings is in use too; trees may keep a node or two */
	vd_pool_info(w->pool, &info);
	if (info.nmembers == w->shape.nmembers && used > fresh + 8)
		world_fail(w, "with all deleted %llu blocks are in use; %llu were when the pool was new", (unsigned long long)used, (unsigned long long)fresh);
	world_check(w);
	if (!w->shape.tiny)
		return;
	/* and all of it can be written to again */
	ref_begin(w->ref, &op);
	r = vd_volume_create(w->pool, &spec, &w->ref->op.id);
	if (r)
		world_fail(w, "create in an emptied pool: error %d", r);
	ref_done(w->ref);
	memset(&op, 0, sizeof(op));
	op.kind = REF_WRITE;
	op.id = w->ref->vol[0]->id;
	for (i = 0; i < (64ull << 20) / (128 << 10); i++) {
		uint64_t done;

		op.off = i * (128 << 10);
		op.len = 128 << 10;
		op.value = w->ref->next_value++;
		ref_begin(w->ref, &op);
		r = io_stamp(w->sim, world_handle(w, op.id), 0, op.off, op.len, op.value, &done);
		ref_done_partly(w->ref, done);
		largest += done / VD_BLOCK;
		if (r)
			break;
	}
	world_log(w, "an emptied pool took %llu blocks: %d", (unsigned long long)largest, r);
	if (r && r != -ENOSPC)
		world_fail(w, "filling an emptied pool: error %d", r);
	if (r && largest + info.reserve_blocks + used + 64 < info.total_blocks - info.total_blocks / 8)
		world_fail(w, "an emptied pool of %llu blocks, %llu in use, %llu in reserve, took only %llu", (unsigned long long)info.total_blocks,
			   (unsigned long long)used, (unsigned long long)info.reserve_blocks, (unsigned long long)largest);
	world_verify(w, REF_LIVE);
	world_check(w);
}

static void run(struct cli *cli, uint64_t seed, uint64_t *total, uint64_t *full)
{
	struct rng rng = rng_seeded(seed);
	struct shape shape;
	struct world *w;
	uint64_t n, fresh, ops = cli->ops ? cli->ops : rng_between(&rng, 50, 3000);

	shape_random(&shape, &rng, rng_one_in(&rng, 3) ? SHAPE_TINY : 0);
	w = world_new(cli, seed, &shape);
	fresh = world_used(w);
	for (n = 0; n < ops; n++) {
		if (world_step(w))
			world_fail(w, "an operation was disturbed, and nothing disturbs here");
		if (rng_one_in(&rng, 60))
			world_verify(w, REF_LIVE);
		if (rng_one_in(&rng, 150))
			world_what_if(w, rng_one_in(&rng, 2) ? SIM_KILL : SIM_POWER_CUT);
		if (rng_one_in(&rng, 400))
			world_read_only(w);
	}
	world_verify(w, REF_LIVE);
	world_check(w);
	world_verify(w, REF_LIVE);
	no_space_left_behind(w, fresh);
	world_close(w);
	*total += n;
	*full += w->nospace;
	world_free(w);
}

int main(int argc, char **argv)
{
	struct cli cli = { .test = "test_model", .seconds = 30, .least = 2000000 };
	uint64_t total = 0, full = 0;

	cli_start(&cli, argc, argv);
	while (cli_more(&cli, total))
		run(&cli, cli_run_seed(&cli), &total, &full);
	printf("# %llu runs, %llu operations, %llu found the pool full, %.1f s\n1..1\nok 1 - test_model\n", (unsigned long long)cli.run,
	       (unsigned long long)total, (unsigned long long)full, cli_elapsed(&cli));
	return 0;
}
