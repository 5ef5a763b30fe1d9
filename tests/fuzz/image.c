// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The images that inputs start from: made by the engine, by its own calls. */
#include "disk.h"

#define MIB (1ull << 20)

struct maker {
	struct fz_disk d;
	struct vd_host host;
	struct vd_pool *pool;
	unsigned sector;
};

static void must(const char *what, int r)
{
	if (r)
		fz_fault("making an image: %s: %d", what, r);
}

static void format(struct maker *k, unsigned nmembers, uint64_t blocks, unsigned sector, bool tail)
{
	static const uint8_t member[4][16] = { "member-0", "member-1", "member-2", "member-3" };
	uint64_t size[4] = { blocks, blocks + 512, blocks, blocks };
	struct vd_format_spec spec = {
		.uuid = "pool-of-fuzzing", .name = "fuzz", .nmembers = nmembers, .blocks = size, .member_uuid = member,
		.sector_size = sector, .journal_blocks = 128, .policy = VD_POLICY_ERROR_IF_FULL, /* nobody else is there to make room */
	};

	memset(k, 0, sizeof(*k));
	fz_disk_init(&k->d, sim_new(1, nmembers, size, sector / 512u), true);
	k->d.sim->no_tail = !tail;
	fz_host(&k->d, &k->host);
	k->sector = sector;
	must("format", vd_pool_format(&k->host, &spec));
}

static void start(struct maker *k)
{
	static const struct vd_disk_holder self = { .host = "host-of-fuzzing", .boot = "boot-1", .purpose = "fuzz" };

	must("open", vd_pool_open(&k->host, 0, &self, &k->pool));
}

static uint32_t create(struct maker *k, const char *name, uint64_t size, const char *base, uint32_t flags)
{
	struct vd_volume_spec spec = { .name = name, .size = size, .base = base, .flags = flags, .attrs = "kind=fuzz\nuse=test\n" };
	uint32_t id;

	memcpy(spec.uuid, name, strnlen(name, 16));
	must("create", vd_volume_create(k->pool, &spec, &id));
	return id;
}

/* n blocks, one in `step`, from `block` on */
static void fill(struct maker *k, uint32_t id, uint64_t block, unsigned n, unsigned step)
{
	struct vd_volume *vol;
	unsigned i;

	must("open volume", vd_volume_open(k->pool, id, &vol));
	for (i = 0; i < n; i++)
		must("write", fz_write(&k->d, vol, (block + (uint64_t)i * step) * VD_BLOCK, VD_BLOCK));
	vd_volume_close(vol);
}

static void unmap(struct maker *k, uint32_t id, uint64_t block, unsigned n, unsigned step)
{
	struct vd_volume *vol;
	unsigned i;

	must("open volume", vd_volume_open(k->pool, id, &vol));
	for (i = 0; i < n; i++)
		must("unmap", vd_unmap(vol, (block + (uint64_t)i * step) * VD_BLOCK, VD_BLOCK));
	vd_volume_close(vol);
}

static uint32_t snap(struct maker *k, uint32_t origin, const char *name)
{
	struct vd_snap s = { .origin = origin, .name = name };

	must("snapshot", vd_snapshot(k->pool, &s, 1));
	return s.id;
}

static void checkpoint(struct maker *k)
{
	must("checkpoint", vd_checkpoint(k->pool));
	while (vd_pool_work(k->pool) == 1)
		;
}

/* What most images have: ids 1 to 9. */
static void populate(struct maker *k)
{
	struct vd_disk_pointer p = { .mode = cpu_to_le32(1), .opened_as = "/dev/loop7", .mount = "/mnt", .server = "local" };
	struct vd_snap group[2];
	uint32_t a, b, c, l, gone, link;

	a = create(k, "a", 16 * MIB, NULL, 0);
	b = create(k, "b", 2 * MIB, "/base:100", 0);
	c = create(k, "c", 1ull << 62, NULL, 0);
	l = create(k, "locked", 1 * MIB, NULL, VD_VOL_LOCKED);
	gone = create(k, "gone", 1 * MIB, NULL, 0);
	fill(k, a, 0, 300, 2); /* more than a page holds */
	fill(k, a, 1000, 40, 1);
	fill(k, b, 3, 5, 1);
	unmap(k, b, 20, 20, 2);
	fill(k, c, 1ull << 40, 4, 1000);
	fill(k, gone, 0, 20, 1);
	checkpoint(k);
	snap(k, a, "a@1");
	fill(k, a, 1, 40, 2);
	fill(k, a, 400, 10, 1);
	checkpoint(k);
	group[0] = (struct vd_snap){ .origin = a, .name = "a@2" };
	group[1] = (struct vd_snap){ .origin = b, .name = "b@2", .flags = VD_VOL_READONLY };
	must("group", vd_snapshot(k->pool, group, 2));
	fill(k, group[0].id, 5, 3, 1);
	fill(k, a, 50, 20, 1);
	must("pointer", vd_volume_pointer_add(k->pool, c, &p, &link));
	must("delete", vd_volume_delete(k->pool, gone));
	(void)l;
	checkpoint(k);
}

/* Some of everything that a journal can hold. */
static void leave_journal(struct maker *k)
{
	struct vd_snap s[2] = { { .origin = 1, .name = "j1" }, { .origin = 3, .name = "j2" } };
	uint32_t id;

	id = create(k, "new", 4 * MIB, NULL, 0);
	fill(k, id, 0, 6, 3);
	fill(k, 1, 600, 8, 1);
	must("flush", vd_flush(k->pool));
	must("snapshot", vd_snapshot(k->pool, s, 2));
	fill(k, 1, 600, 4, 1);
	unmap(k, 2, 3, 2, 1);
	must("flush", vd_flush(k->pool));
	must("resize", vd_volume_resize(k->pool, id, 1 * MIB));
	must("rename", vd_volume_rename(k->pool, id, "newer"));
	must("rollback", vd_rollback(k->pool, id, snap(k, id, "j3")));
	must("delete", vd_volume_delete(k->pool, s[1].id));
	must("flush", vd_flush(k->pool));
	fill(k, 1, 700, 3, 5); /* in the tail only */
}

static struct sim *make_two(bool journal)
{
	struct maker k;

	format(&k, 2, 2304, 512, journal);
	start(&k);
	populate(&k);
	if (journal) {
		leave_journal(&k);
		vd_pool_abandon(k.pool);
	} else {
		must("close", vd_pool_close(k.pool));
	}
	return k.d.sim;
}

static struct sim *make_one(void)
{
	struct maker k;

	format(&k, 1, 4096, 4096, false);
	start(&k);
	populate(&k);
	must("close", vd_pool_close(k.pool));
	return k.d.sim;
}

/* Fails the host's nth write or flush from now, then everything: as if the process died there. */
static void snap_and_die(struct maker *k, uint32_t origin, const char *name)
{
	struct vd_snap s = { .origin = origin, .name = name };
	uint64_t calls = k->d.sim->ncalls;
	struct sim *before = sim_copy(k->d.sim);

	/* how many host calls a snapshot takes: the last of its two commits is not to be */
	must("snapshot", vd_snapshot(k->pool, &s, 1));
	calls = k->d.sim->ncalls - calls;
	vd_pool_abandon(k->pool);
	sim_free(k->d.sim);
	fz_disk_init(&k->d, before, true);
	k->d.sim->no_tail = true;
	fz_host(&k->d, &k->host);
	start(k);
	calls = calls / 2;
	sim_cut(k->d.sim, calls);
	if (!vd_snapshot(k->pool, &s, 1))
		fz_fault("making an image: the snapshot was not cut off");
	vd_pool_abandon(k->pool);
	sim_crash(k->d.sim, SIM_KILL);
}

static struct sim *make_half(void)
{
	struct maker k;

	format(&k, 2, 2304, 512, false);
	start(&k);
	populate(&k);
	must("delete", vd_volume_delete(k.pool, 6)); /* a@1: its record is in the journal only */
	snap_and_die(&k, 1, "half");
	return k.d.sim;
}

static struct sim *make_full(void)
{
	struct vd_volume *vol;
	struct maker k;
	uint64_t v;
	uint32_t id;
	int r = 0;

	format(&k, 1, 2048, 512, false);
	start(&k);
	id = create(&k, "f", 64 * MIB, NULL, 0);
	must("open volume", vd_volume_open(k.pool, id, &vol));
	for (v = 0; !r && v < 1000; v++)
		r = fz_write(&k.d, vol, v * 3 * VD_BLOCK, VD_BLOCK);
	vd_volume_close(vol);
	checkpoint(&k);
	snap(&k, id, "f@1");
	must("open volume", vd_volume_open(k.pool, id, &vol));
	for (r = 0, v = 0; !r && v < 16000; v++)
		r = fz_write(&k.d, vol, v * VD_BLOCK, VD_BLOCK);
	vd_volume_close(vol);
	if (r != -ENOSPC)
		must("filling", r ? r : 1);
	must("close", vd_pool_close(k.pool));
	return k.d.sim;
}

/* Zeroes over a base image make extents that take no data blocks. */
static struct sim *make_tall(void)
{
	struct maker k;
	uint32_t id;

	format(&k, 1, 4096, 512, false);
	start(&k);
	id = create(&k, "tall", 512 * MIB, "/base:8", 0);
	unmap(&k, id, 0, 30900, 2);
	checkpoint(&k);
	snap(&k, id, "tall@1");
	fill(&k, id, 7, 3, 30);
	must("close", vd_pool_close(k.pool));
	return k.d.sim;
}

static struct sim *make(enum fz_shape shape)
{
	switch (shape) {
	case FZ_TWO:
		return make_two(false);
	case FZ_CRASHED:
		return make_two(true);
	case FZ_ONE:
		return make_one();
	case FZ_HALF:
		return make_half();
	case FZ_FULL:
		return make_full();
	case FZ_TALL:
		return make_tall();
	case FZ_SHAPES:
		break;
	}
	return NULL;
}

const struct sim *fz_image(enum fz_shape shape)
{
	static struct sim *made[FZ_SHAPES];

	if (!made[shape]) {
		struct sim *all = make(shape);

		made[shape] = sim_copy(all);
		sim_free(all);
		for (unsigned m = 0; m < made[shape]->nmembers; m++) {
			struct vd_host host;

			sim_host(made[shape], &host);
			must("flush", host.flush(made[shape], m));
		}
	}
	return made[shape];
}
