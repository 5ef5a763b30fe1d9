// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * The pools of tests/format/golden, as they were made.  They are not made again:
 * what a version has written, later ones must read.  A later format, or a case that
 * is missed, gets pools of its own here; pack.py puts them beside the others.
 *
 * Contents are lines of text, which compress well.
 */
#include "images.h"

struct gold {
	struct sim *sim;
	struct vd_host host;
	struct vd_pool *pool;
	unsigned writes;
};

static const struct vd_disk_holder self = {
	.host = "golden-test-host", .boot = "golden-test-boot", .hostname = "golden", .purpose = "images",
};

static void must(const char *what, int r)
{
	if (r)
		die(what, r);
}

static void begin_pool(struct gold *g, unsigned nmembers, unsigned sector, uint64_t seed)
{
	static const uint64_t blocks[] = { 2304, 2048, 2100, 2200 };
	uint8_t uuid[4][16];
	struct vd_format_spec spec = {
		.name = "golden", .nmembers = nmembers, .blocks = blocks, .member_uuid = (const uint8_t (*)[16])uuid,
		.sector_size = sector, .journal_blocks = 64,
	};
	struct rng rng = rng_seeded(seed);
	unsigned i, m;

	memset(g, 0, sizeof(*g));
	for (i = 0; i < 16; i++) {
		spec.uuid[i] = (uint8_t)rng_next(&rng);
		for (m = 0; m < 4; m++)
			uuid[m][i] = (uint8_t)rng_next(&rng);
	}
	g->sim = sim_new(seed, nmembers, blocks, sector / SECTOR);
	sim_host(g->sim, &g->host);
	must("format", vd_pool_format(&g->host, &spec));
	must("open", vd_pool_open(&g->host, 0, &self, &g->pool));
}

static void reopen(struct gold *g, enum sim_crash how)
{
	if (g->pool)
		vd_pool_abandon(g->pool);
	sim_crash(g->sim, how);
	must("open again", vd_pool_open(&g->host, 0, &self, &g->pool));
}

static struct sim *crashed(struct gold *g, enum sim_crash how)
{
	vd_pool_abandon(g->pool);
	sim_crash(g->sim, how);
	return g->sim;
}

static struct sim *closed(struct gold *g)
{
	must("close", vd_pool_close(g->pool));
	return g->sim;
}

static uint32_t create(struct gold *g, const char *name, uint64_t blocks, uint64_t nbase, const char *attrs)
{
	char base[64];
	struct vd_volume_spec spec = { .name = name, .size = blocks * VD_BLOCK, .base = nbase ? base : NULL, .attrs = attrs };
	uint32_t id;

	base_path(base, sizeof(base), nbase);
	memset(spec.uuid, (uint8_t)(g->writes + 1), 16);
	memcpy(spec.uuid, name, vd_min(strlen(name), (size_t)8));
	must("create", vd_volume_create(g->pool, &spec, &id));
	return id;
}

static struct vd_volume *opened(struct gold *g, uint32_t id)
{
	struct vd_volume *vol;

	must("open a volume", vd_volume_open(g->pool, id, &vol));
	return vol;
}

static int try_put(struct gold *g, uint32_t id, uint64_t block, uint64_t n)
{
	struct vd_volume *vol = opened(g, id);
	struct vd_volume_info info;
	uint8_t buf[VD_BLOCK];
	char text[96], line[65];
	unsigned i;
	int r = 0;

	must("info", vd_volume_info(g->pool, id, &info));
	for (g->writes++; n-- && !r; block++) {
		snprintf(text, sizeof(text), "volume %u, block %llu, write %u", id, (unsigned long long)block, g->writes);
		snprintf(line, sizeof(line), "%-63.63s\n", text);
		for (i = 0; i < VD_BLOCK; i += 64)
			memcpy(buf + i, line, 64);
		r = io_write(g->sim, vol, base_sectors(info.base), block * VD_BLOCK, buf, VD_BLOCK, NULL);
	}
	vd_volume_close(vol);
	return r;
}

static void put(struct gold *g, uint32_t id, uint64_t block, uint64_t n)
{
	must("write", try_put(g, id, block, n));
}

/* Every other block: an extent each. */
static void put_apart(struct gold *g, uint32_t id, uint64_t block, unsigned n)
{
	for (; n--; block += 2)
		put(g, id, block, 1);
}

static void unmap(struct gold *g, uint32_t id, uint64_t block, uint64_t n)
{
	struct vd_volume *vol = opened(g, id);

	must("unmap", vd_unmap(vol, block * VD_BLOCK, n * VD_BLOCK));
	vd_volume_close(vol);
}

static void group(struct gold *g, const uint32_t *origin, uint32_t *id, unsigned n, const char *suffix, uint32_t flags)
{
	struct vd_volume_info info;
	char name[REF_PAIRS][160];
	struct vd_snap s[REF_PAIRS];
	unsigned i;

	memset(s, 0, sizeof(s));
	for (i = 0; i < n; i++) {
		must("info", vd_volume_info(g->pool, origin[i], &info));
		snprintf(name[i], sizeof(name[i]), "%s@%s", info.name, suffix);
		s[i].origin = origin[i];
		s[i].name = name[i];
		s[i].flags = flags;
		memset(s[i].uuid, (int)(0x40 + i + g->writes), 16);
	}
	must("snapshot", vd_snapshot(g->pool, s, n));
	for (i = 0; i < n; i++)
		id[i] = s[i].id;
}

static uint32_t snap(struct gold *g, uint32_t origin, const char *suffix)
{
	uint32_t id;

	group(g, &origin, &id, 1, suffix, 0);
	return id;
}

static void settle(struct gold *g)
{
	int r;

	while ((r = vd_pool_work(g->pool)) > 0)
		;
	must("work", r);
	must("checkpoint", vd_checkpoint(g->pool));
}

static void holder(struct vd_disk_holder *h, const char *host, const char *purpose, uint64_t pid)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->host, "0123456789abcdef", 16);
	memcpy(h->boot, "fedcba9876543210", 16);
	snprintf(h->hostname, sizeof(h->hostname), "%s", host);
	snprintf(h->purpose, sizeof(h->purpose), "%s", purpose);
	h->pid = cpu_to_le64(pid);
	h->since = cpu_to_le64(1700000000123456789ull);
}

/* ---- one member, closed in order ---------------------------------------- */

static struct sim *single(void)
{
	static const struct vd_pool_policy policy = { { 700, 800, 950, 0 }, VD_POLICY_ERROR_IF_FULL, 0, 0 };
	struct vd_disk_pointer p = {
		.mode = cpu_to_le32(1), .opened_as = "/dev/loop3", .mount = "/srv/www", .server = "local",
	};
	struct vd_disk_holder h;
	struct gold g;
	uint32_t id, link;

	begin_pool(&g, 1, 512, 1);
	must("set", vd_pool_set(g.pool, &policy));
	id = create(&g, "plain", 256, 0, "role=web\nowner=somebody else\n");
	put(&g, id, 0, 40);
	put(&g, id, 200, 56);
	unmap(&g, id, 10, 7);
	put(&g, id, 12, 1);
	holder(&p.who, "host7", "vdlink", 4711);
	must("pointer", vd_volume_pointer_add(g.pool, id, &p, &link));
	p.mode = 0;
	p.mount[0] = 0;
	must("pointer", vd_volume_pointer_add(g.pool, id, &p, &link));
	id = create(&g, "locked", 16, 0, NULL);
	holder(&h, "host8", "vdcreate", 12);
	must("lock", vd_volume_lock(g.pool, id, &h));
	id = create(&g, "empty-and-read-only", 1, 0, NULL);
	must("flags", vd_volume_set_flags(g.pool, id, VD_VOL_READONLY, 0));
	id = create(&g, "tall", 4096, 0, NULL);
	put_apart(&g, id, 1000, 300); /* two pages and a node above */
	settle(&g);
	id = create(&g, "far", VD_VBLK_END, 0, NULL);
	put(&g, id, 0, 1);
	put(&g, id, 1ull << 40, 3);
	put(&g, id, VD_VBLK_END - 2, 2);
	must("rename", vd_volume_rename(g.pool, id, "A.far:volume+1_@8EiB"));
	id = create(&g, "gone", 64, 0, NULL);
	put(&g, id, 0, 64);
	settle(&g);
	must("delete", vd_volume_delete(g.pool, id));
	settle(&g);
	create(&g, "after", 3, 0, NULL);
	return closed(&g);
}

/* ---- two members, everything twice; more after the checkpoint ------------ */

static struct sim *copies(void)
{
	struct gold g;
	uint32_t v, w, s;

	begin_pool(&g, 2, 512, 2);
	v = create(&g, "v", 2048, 0, NULL);
	put_apart(&g, v, 0, 260);
	w = create(&g, "w", 600, 0, "k=v\n");
	put(&g, w, 0, 600);
	settle(&g);
	s = snap(&g, v, "monday");
	put(&g, v, 100, 30);
	settle(&g);
	reopen(&g, SIM_POWER_CUT);
	unmap(&g, w, 100, 300);
	put(&g, w, 150, 3);
	put(&g, s, 1, 1);
	must("resize", vd_volume_resize(g.pool, v, 4096 * VD_BLOCK));
	put(&g, v, 4090, 6);
	must("flush", vd_flush(g.pool));
	return crashed(&g, SIM_KILL);
}

/* ---- snapshots: groups, chains, base images, roll-back, deletion under way - */

static struct sim *snapshots(void)
{
	struct gold g;
	uint32_t v[3], s[3], t[3], id, i;
	char name[16];

	begin_pool(&g, 2, 512, 3);
	v[0] = create(&g, "data", 512, 0, NULL);
	v[1] = create(&g, "log", 128, 0, NULL);
	v[2] = create(&g, "station", 512, 320, "image=debian\n"); /* 40 blocks of base image */
	put_apart(&g, v[0], 0, 250);
	put(&g, v[1], 0, 20);
	put(&g, v[2], 3, 10);
	group(&g, v, s, 3, "g1", VD_VOL_READONLY);
	put(&g, v[0], 60, 9);
	unmap(&g, v[2], 8, 20);            /* ZERO over the base image */
	unmap(&g, v[1], 2, 4);
	settle(&g);
	group(&g, v, t, 3, "g2", 0);
	put(&g, t[0], 61, 2);              /* a snapshot that is written */
	id = snap(&g, t[0], "again");      /* and one of it */
	put(&g, t[0], 300, 4);
	for (i = 0; i < 9; i++) {          /* counts of 7 bits */
		snprintf(name, sizeof(name), "n%u", i);
		snap(&g, v[1], name);
		put(&g, v[1], 30 + i, 1);
		settle(&g);
	}
	must("resize", vd_volume_resize(g.pool, v[2], 50 * VD_BLOCK)); /* down and up again: ZERO from 50 on */
	must("resize", vd_volume_resize(g.pool, v[2], 300 * VD_BLOCK));
	put(&g, v[2], 290, 2);
	must("resize", vd_volume_resize(g.pool, v[0], 64 * VD_BLOCK));
	must("roll back", vd_rollback(g.pool, v[1], s[1]));
	put(&g, v[1], 100, 1);
	settle(&g);
	must("delete", vd_volume_delete(g.pool, s[0])); /* in the middle of its family */
	settle(&g);
	must("delete", vd_volume_delete(g.pool, id)); /* of these two the trees know nothing yet */
	must("delete", vd_volume_delete(g.pool, t[2]));
	put(&g, t[1], 7, 1);
	must("flush", vd_flush(g.pool));
	return crashed(&g, SIM_POWER_CUT);
}

/* ---- nothing but a journal: all kinds of records; a snapshot that is not valid - */

static struct sim *journal(void)
{
	struct vd_snap pending = { .name = "pending" };
	struct vd_disk_holder h;
	struct gold g;
	uint32_t v[2], s[2], t, base;

	begin_pool(&g, 2, 512, 4);
	v[0] = create(&g, "one", 300, 0, NULL);
	v[1] = create(&g, "two", 300, 0, NULL);
	base = create(&g, "based", 40, 77, NULL); /* a base image that ends within a block */
	put(&g, v[0], 0, 20);
	put(&g, v[0], 10, 30);
	put_apart(&g, v[1], 5, 20);
	must("flush", vd_flush(g.pool));
	group(&g, v, s, 2, "a", 0);
	put(&g, v[0], 5, 10);
	unmap(&g, v[1], 0, 12);
	unmap(&g, base, 1, 3);
	put(&g, base, 2, 1);
	put(&g, base, 30, 2);
	must("resize", vd_volume_resize(g.pool, v[1], 20 * VD_BLOCK));
	must("resize", vd_volume_resize(g.pool, v[1], 30 * VD_BLOCK));
	must("resize", vd_volume_resize(g.pool, base, 5 * VD_BLOCK));
	must("resize", vd_volume_resize(g.pool, base, 90 * VD_BLOCK));
	t = snap(&g, s[0], "b");
	put(&g, s[0], 0, 2);
	must("rename", vd_volume_rename(g.pool, t, "another-name"));
	must("attrs", vd_volume_set_attrs(g.pool, v[0], "a=1\nb=2\n"));
	holder(&h, "host9", "backup", 99);
	must("lock", vd_volume_lock(g.pool, t, &h));
	must("delete", vd_volume_delete(g.pool, s[1]));
	must("roll back", vd_rollback(g.pool, v[0], s[0]));
	put(&g, v[0], 50, 1);
	must("flush", vd_flush(g.pool));
	pending.origin = v[0];
	sim_cut(g.sim, 2); /* its SNAP is written, and nothing after that */
	if (!vd_snapshot(g.pool, &pending, 1))
		die("a snapshot that was cut off succeeded", 0);
	return crashed(&g, SIM_KILL);
}

/* ---- torn tails of three openings, the last one not repaired ------------- */

/* The seed says what of the last commit is left in the first copy of the journal. */
static struct sim *torn_as(uint64_t seed)
{
	struct gold g;
	uint32_t v, i;

	begin_pool(&g, 2, 512, 5);
	v = create(&g, "v", 4096, 0, NULL);
	put(&g, v, 0, 10);
	settle(&g);
	for (i = 0; i < 3; i++) {
		if (i)
			reopen(&g, SIM_POWER_CUT);
		put_apart(&g, v, 100 + 600 * i, 5);
		must("flush", vd_flush(g.pool));
		put_apart(&g, v, 200 + 600 * i, 150); /* more records than a block of journal takes */
		g.sim->rng = rng_seeded(seed);
		sim_cut(g.sim, 1);
		if (!vd_flush(g.pool))
			die("a flush that was cut off succeeded", 0);
	}
	return crashed(&g, SIM_KILL);
}

/* Of two blocks the first is torn, the second whole. */
static struct sim *torn(void)
{
	return torn_as(8);
}

/* The first is whole, the second torn. */
static struct sim *half(void)
{
	return torn_as(66);
}

/* The first is still that of the attempt before, by another opening; the second is new. */
static struct sim *rewritten(void)
{
	return torn_as(14);
}

/* ---- 4096-byte sectors, four members, two of them added; a ring gone round - */

static struct sim *grown(void)
{
	static const uint8_t uuid[2][16] = { "third-member-...", "fourth-member-.." };
	struct gold g;
	uint32_t v, i;

	begin_pool(&g, 2, 4096, 6);
	v = create(&g, "v", 8192, 0, NULL);
	for (i = 0; i < 90; i++) {
		put(&g, v, 37 * i % 1000, 2);
		must("flush", vd_flush(g.pool));
		if (i % 30 == 29)
			settle(&g);
	}
	for (i = 0; i < 2; i++) {
		sim_add(g.sim, 2200 + 100 * i);
		must("add", vd_pool_add(g.pool, uuid[i], 2200 + 100 * i, 4096));
	}
	snap(&g, v, "s");
	put(&g, v, 2000, 600);
	settle(&g);
	for (i = 0; i < 20; i++) {
		put(&g, v, 41 * i, 1);
		must("flush", vd_flush(g.pool));
	}
	return crashed(&g, SIM_POWER_CUT);
}

/* ---- servers: in the tree, in the journal, and one that is gone -------------- */

static uint32_t describe(struct gold *g, const char *name, const char *attrs)
{
	uint8_t uuid[16] = { 0 };
	uint32_t id;

	memcpy(uuid, name, strlen(name));
	must("describe", vd_server_add(g->pool, name, uuid, attrs, &id));
	return id;
}

static struct sim *servers(void)
{
	struct vd_disk_pointer ptr = { .mode = cpu_to_le32(1), .opened_as = "/dev/loop3 scsi0.0:0:2:0 4711.8839", .server = "web-1" };
	struct gold g;
	uint32_t v, link;

	begin_pool(&g, 2, 512, 7);
	v = create(&g, "v", 300, 0, NULL);
	put(&g, v, 0, 20);
	describe(&g, "web-1", "kind=vm\nqmp=/run/web-1.qmp\n");
	describe(&g, "v", "kind=vm\nqmp=/run/v.qmp\nbus=scsi1\n"); /* a volume's name */
	holder(&ptr.who, "host9", "vdlink", 99);
	must("open pointer", vd_volume_pointer_add(g.pool, v, &ptr, &link));
	settle(&g);
	describe(&g, "later", "");
	must("delete", vd_server_delete(g.pool, describe(&g, "gone", "kind=vm\n")));
	put(&g, v, 10, 30);
	must("flush", vd_flush(g.pool));
	return crashed(&g, SIM_POWER_CUT);
}

struct sim *golden_make(const char *name)
{
	static const struct { const char *name; struct sim *(*make)(void); } pool[] = {
		{ "single", single }, { "copies", copies }, { "snapshots", snapshots }, { "journal", journal }, { "torn", torn },
		{ "half", half }, { "rewritten", rewritten }, { "grown", grown }, { "servers", servers },
	};
	unsigned i;

	for (i = 0; i < sizeof(pool) / sizeof(pool[0]); i++)
		if (!strcmp(name, pool[i].name))
			return pool[i].make();
	return NULL;
}
