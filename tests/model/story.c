// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#include "story.h"

#define B VD_BLOCK

struct world *story_begin(const struct cli *cli, unsigned nmembers)
{
	struct shape shape = {
		.nmembers = nmembers, .blocks = { 4096, 3000, 2500, 2048 }, .sector_size = 512, .journal_blocks = 64, .max_volumes = 20,
	};

	return world_new(cli, cli->seed, &shape);
}

void story_ok(struct world *w, const char *what, int r)
{
	if (r)
		world_fail(w, "%s: error %d", what, r);
}

uint32_t story_create(struct world *w, const char *name, uint64_t blocks)
{
	struct ref_op op = { .kind = REF_CREATE, .size = blocks * B };
	struct vd_volume_spec spec = { .name = name, .size = op.size };

	snprintf(op.name, sizeof(op.name), "%s", name);
	ref_begin(w->ref, &op);
	story_ok(w, "create", vd_volume_create(w->pool, &spec, &w->ref->op.id));
	op.id = w->ref->op.id;
	ref_done(w->ref);
	return op.id;
}

/* Tells the model that `len` bytes at off are about to be written or unmapped. */
uint64_t story_tell(struct world *w, enum ref_op_kind kind, uint32_t id, uint64_t off, uint64_t len)
{
	struct ref_op op = { .kind = kind, .id = id, .off = off, .len = len, .value = w->ref->next_value++ };

	ref_begin(w->ref, &op);
	return op.value;
}

/* These answer whether a cut has come in between; the change is pending then. */
bool story_put(struct world *w, uint32_t id, uint64_t off, uint64_t len)
{
	struct vd_volume *h = world_handle(w, id);
	uint64_t value;
	int r;

	if (!h)
		return true;
	value = story_tell(w, REF_WRITE, id, off, len);
	r = io_stamp(w->sim, h, ref_find(w->ref, id)->nbase, off, len, value, NULL);
	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "write", r);
	ref_done(w->ref);
	return false;
}

bool story_unmap(struct world *w, uint32_t id, uint64_t off, uint64_t len)
{
	struct vd_volume *h = world_handle(w, id);
	int r;

	if (!h)
		return true;
	story_tell(w, REF_UNMAP, id, off, len);
	r = vd_unmap(h, off, len);
	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "unmap", r);
	ref_done(w->ref);
	return false;
}

bool story_flush(struct world *w)
{
	int r = vd_flush(w->pool);

	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "flush", r);
	ref_flushed(w->ref);
	return false;
}

bool story_snap(struct world *w, uint32_t *id, const uint32_t *origin, unsigned n)
{
	struct ref_op op = { .kind = REF_SNAPSHOT, .n = n };
	struct vd_snap s[REF_PAIRS] = { 0 };
	unsigned i;
	int r;

	for (i = 0; i < n; i++) {
		op.pair[i].origin = s[i].origin = origin[i];
		snprintf(op.pair[i].name, sizeof(op.pair[i].name), "s%llu", (unsigned long long)w->names++);
		s[i].name = op.pair[i].name;
	}
	ref_begin(w->ref, &op);
	r = vd_snapshot(w->pool, s, n);
	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "snapshot", r);
	for (i = 0; i < n; i++)
		id[i] = w->ref->op.pair[i].id = s[i].id;
	ref_done(w->ref);
	return false;
}

bool story_delete(struct world *w, uint32_t id)
{
	struct ref_op op = { .kind = REF_DELETE, .id = id };
	int r;

	world_close_volumes(w);
	ref_begin(w->ref, &op);
	r = vd_volume_delete(w->pool, id);
	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "delete", r);
	ref_done(w->ref);
	return false;
}

bool story_work(struct world *w)
{
	int r;

	while ((r = vd_pool_work(w->pool)) > 0)
		;
	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "work", r);
	return false;
}

bool story_checkpoint(struct world *w)
{
	int r = vd_checkpoint(w->pool);

	if (sim_is_cut(w->sim))
		return true;
	story_ok(w, "checkpoint", r);
	return false;
}

void story_crash(struct world *w, enum sim_crash how)
{
	world_abandon(w);
	sim_crash(w->sim, how);
	world_log(w, "-------- %s", how == SIM_KILL ? "killed" : "power cut");
	world_open(w, 0);
}

void story_crash_and_verify(struct world *w, enum sim_crash how)
{
	story_crash(w, how);
	world_verify(w, how == SIM_KILL ? REF_KILLED : REF_POWER_CUT);
}

void story_end(struct world *w)
{
	world_verify(w, REF_LIVE);
	world_check(w);
	world_verify(w, REF_LIVE);
	world_close(w);
	world_free(w);
}

uint64_t story_value(struct world *w, uint32_t id, uint64_t sector)
{
	uint8_t buf[SECTOR * 8];
	uint64_t first = sector / 8 * 8;

	story_ok(w, "read", io_read(w->sim, world_handle(w, id), 0, first * SECTOR, buf, sizeof(buf), NULL));
	return stamp_read(buf + (sector - first) * SECTOR, sector);
}

void story_too_long(int sig)
{
	(void)sig;
	fprintf(stderr, "it hangs\n");
	abort();
}
