// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* What is done on a pool that somebody tampered with. */
#include "disk.h"

#define WORK_MAX 300u  /* F1: turns of background work */
#define LOOK_MAX 40u   /* volumes looked at */
#define CHECKED_MAX 2000u

struct seen { uint32_t id; bool rw; };
struct hands {
	struct fz_disk *d;
	struct vd_pool *pool;
	struct rng *rng;
	struct seen vol[LOOK_MAX];
	unsigned n;
	bool failed; /* a call said that something is wrong with the metadata */
	unsigned faults;
};

static int answer(struct hands *h, const char *call, int r)
{
	fz_answer(call, r);
	if (r == -EIO || r == -EUCLEAN || r == -EBADMSG || r == -ENODEV || r == -EROFS)
		h->failed = true;
	return r;
}

/* ---- looking ---------------------------------------------------------------- */

static int on_fault(void *arg, const struct vd_check_report *rep)
{
	struct hands *h = arg;

	if (getenv("FZ_VERBOSE"))
		fprintf(stderr, "fault %d volume %u: %#llx %#llx\n", rep->fault, rep->volume, (unsigned long long)rep->a,
			(unsigned long long)rep->b);
	return ++h->faults > CHECKED_MAX ? -ECANCELED : 0;
}

static int on_dump(void *arg, const struct vd_dump_item *item)
{
	unsigned *n = arg;

	if (item->level > VD_TREE_LEVELS_MAX)
		fz_fault("a dumped node of level %u", item->level);
	return ++*n > 5000 ? -ECANCELED : 0;
}

struct ranges { uint64_t end; unsigned n; };
static int on_range(void *arg, uint64_t off, uint64_t len)
{
	struct ranges *g = arg;

	if (off < g->end || !len || off + len < off)
		fz_fault("difference %llu+%llu after %llu", (unsigned long long)off, (unsigned long long)len, (unsigned long long)g->end);
	g->end = off + len;
	return ++g->n > 2000 ? -ECANCELED : 0;
}

static int on_progress(void *arg, unsigned permille)
{
	(void)arg;
	if (permille > 1000)
		fz_fault("progress %u", permille);
	return 0;
}

/* Number of faults, or -1. */
static int check(struct hands *h, unsigned flags)
{
	uint64_t faults = 0;
	int r;

	h->faults = 0;
	r = answer(h, "vd_check", vd_check(h->pool, flags, on_fault, h, on_progress, &faults));
	if (!r && faults != h->faults)
		fz_fault("%llu faults, %u told", (unsigned long long)faults, h->faults);
	return r ? -1 : (int)faults;
}

static void list(struct hands *h)
{
	struct vd_volume_info *info = must_zero(sizeof(*info));
	uint32_t id = 0, last = 0, other;
	int r;

	h->n = 0;
	while (h->n < LOOK_MAX && !(r = answer(h, "vd_volume_next", vd_volume_next(h->pool, &id, NULL)))) {
		if (id <= last)
			fz_fault("volume %u is listed after %u", id, last);
		last = id;
		h->vol[h->n++].id = id;
		r = answer(h, "vd_volume_info", vd_volume_info(h->pool, id, info));
		if (!r) {
			if (!memchr(info->name, 0, sizeof(info->name)) || !memchr(info->base, 0, sizeof(info->base)) ||
			    info->attrs[VD_ATTRS_MAX] || info->npointers > VD_POINTERS_MAX)
				fz_fault("a record that makes no sense was believed");
			(void)!answer(h, "vd_volume_find", vd_volume_find(h->pool, info->name, &other));
		}
		if (!++id)
			break;
	}
	free(info);
}

static void look_volume(struct hands *h, uint32_t id)
{
	struct vd_extent_info e = { 0 };
	struct vd_volume *vol;
	struct vd_usage u;
	uint64_t size, at = 0;
	unsigned i;

	(void)!answer(h, "vd_volume_usage", vd_volume_usage(h->pool, id, &u, on_progress, NULL));
	if (answer(h, "vd_volume_open", vd_volume_open(h->pool, id, &vol)))
		return;
	size = vd_volume_size(vol);
	for (i = 0; i < 60 && at < size; i++) {
		if (answer(h, "vd_extent", vd_extent(vol, at, size - at, &e)))
			break;
		if (e.off != at || !e.len || e.len > size - at || e.kind > VD_BASE)
			fz_fault("extent %llu+%llu at %llu", (unsigned long long)e.off, (unsigned long long)e.len, (unsigned long long)at);
		if (e.kind == VD_DATA)
			(void)!answer(h, "read", fz_read(h->d, vol, at, (uint32_t)vd_min(e.len, (uint64_t)65536)));
		at += e.len;
	}
	if (size) {
		(void)!answer(h, "read", fz_read(h->d, vol, 0, (uint32_t)vd_min(size, (uint64_t)131072)));
		(void)!answer(h, "read", fz_read(h->d, vol, size - VD_BLOCK, VD_BLOCK));
	}
	if (fz_read(h->d, vol, size, VD_BLOCK) != -ERANGE)
		fz_fault("read beyond the end");
	vd_volume_close(vol);
}

static void diff(struct hands *h, uint32_t a, uint32_t b)
{
	struct ranges g = { 0 };

	(void)!answer(h, "vd_diff", vd_diff(h->pool, a, b, on_range, &g));
}

static void look(struct hands *h)
{
	struct vd_pool_info *info = must_zero(sizeof(*info));
	unsigned m, i, n = 0;
	uint8_t uuid[16];
	uint64_t blocks;
	bool missing;

	vd_pool_info(h->pool, info);
	if (!memchr(info->name, 0, sizeof(info->name)) || info->nmembers > VD_MEMBERS_MAX)
		fz_fault("a superblock that makes no sense was believed");
	for (m = 0; m < info->nmembers; m++)
		(void)!answer(h, "vd_pool_member", vd_pool_member(h->pool, m, uuid, &blocks, &missing));
	free(info);
	list(h);
	for (i = 0; i < h->n && i < 12; i++)
		look_volume(h, h->vol[i].id);
	if (h->n > 1) {
		i = (unsigned)rng_below(h->rng, h->n);
		diff(h, h->vol[i].id, h->vol[rng_below(h->rng, h->n)].id);
		diff(h, h->vol[0].id, h->vol[h->n / 2].id);
	}
	(void)!answer(h, "vd_dump", vd_dump(h->pool, on_dump, &n));
	(void)check(h, VD_CHECK_QUICK);
}

/* ---- changing ----------------------------------------------------------------- */

static uint32_t pick(struct hands *h)
{
	return h->n ? h->vol[rng_below(h->rng, h->n)].id : 1;
}

static void name(struct hands *h, char *buf, size_t size)
{
	snprintf(buf, size, "w%llu", (unsigned long long)rng_below(h->rng, 1000));
}

static void background(struct hands *h)
{
	unsigned turn = 0;
	int r;

	while ((r = vd_pool_work(h->pool)) == 1)
		if (++turn > WORK_MAX)
			fz_fault("there is always more to do in the background");
	(void)!answer(h, "vd_pool_work", r);
}

static void io(struct hands *h, uint32_t id)
{
	struct vd_volume *vol;
	uint64_t size, off;
	uint32_t len;
	unsigned i;

	if (answer(h, "vd_volume_open", vd_volume_open(h->pool, id, &vol)))
		return;
	size = vd_volume_size(vol);
	for (i = 0; i < 6 && size; i++) {
		uint64_t within = rng_one_in(h->rng, 4) ? size : vd_min(size, (uint64_t)6 << 20);

		off = rng_below(h->rng, within >> 12) << 12;
		len = 4096u << rng_below(h->rng, 5);
		if (rng_one_in(h->rng, 3)) {
			off += rng_below(h->rng, 8) * 512;
			len = 512 * (1 + (uint32_t)rng_below(h->rng, 20));
		}
		if (off + len > size)
			continue;
		switch (rng_below(h->rng, 6)) {
		case 0:
			(void)!answer(h, "vd_unmap", vd_unmap(vol, off, len));
			break;
		case 1:
			(void)!answer(h, "vd_unmap", vd_unmap(vol, off, vd_min(size - off, (uint64_t)1 << rng_between(h->rng, 12, 62))));
			break;
		case 2:
			(void)!answer(h, "read", fz_read(h->d, vol, off, len));
			break;
		default:
			(void)!answer(h, "write", fz_write(h->d, vol, off, len));
		}
	}
	vd_volume_close(vol);
}

static void grow(struct hands *h)
{
	struct vd_pool_policy policy = { { (uint32_t)rng_below(h->rng, 1200), 900, 0, 0 }, VD_POLICY_ERROR_IF_FULL, rng_below(h->rng, 9), 0 };
	unsigned m = (unsigned)rng_below(h->rng, h->d->sim->nmembers);
	uint8_t uuid[16] = { (uint8_t)h->d->sim->nmembers, 1 };

	(void)!answer(h, "vd_pool_set", vd_pool_set(h->pool, &policy));
	if (!rng_below(h->rng, 3)) {
		sim_grow(h->d->sim, m, h->d->sim->member[m]->blocks + 1 + rng_below(h->rng, 700));
		(void)!answer(h, "vd_pool_grow", vd_pool_grow(h->pool, m, h->d->sim->member[m]->blocks));
	}
	if (h->d->sim->nmembers == 4 || rng_below(h->rng, 3))
		return;
	sim_add(h->d->sim, 2100);
	(void)!answer(h, "vd_pool_add", vd_pool_add(h->pool, uuid, 2100, 512));
}

static void change(struct hands *h)
{
	struct vd_disk_pointer p = { .mode = cpu_to_le32((uint32_t)rng_below(h->rng, 2)) };
	struct vd_volume_spec spec = { .size = 4096ull << rng_below(h->rng, 40) };
	struct vd_disk_holder who = { .host = "someone" };
	struct vd_snap snap[2];
	char text[2][32];
	uint32_t id = pick(h), other = pick(h);

	name(h, text[0], sizeof(text[0]));
	name(h, text[1], sizeof(text[1]));
	switch (rng_below(h->rng, 20)) {
	case 0:
		spec.name = text[0];
		if (!answer(h, "vd_volume_create", vd_volume_create(h->pool, &spec, &id)))
			io(h, id);
		break;
	case 1:
		(void)!answer(h, "vd_volume_delete", vd_volume_delete(h->pool, id));
		break;
	case 2:
		(void)!answer(h, "vd_volume_rename", vd_volume_rename(h->pool, id, text[0]));
		break;
	case 3:
		(void)!answer(h, "vd_volume_resize", vd_volume_resize(h->pool, id, spec.size));
		break;
	case 4:
		(void)!answer(h, "vd_volume_set_flags", vd_volume_set_flags(h->pool, id, VD_VOL_READONLY, 0));
		break;
	case 5:
		(void)!answer(h, "vd_volume_set_flags", vd_volume_set_flags(h->pool, id, 0, VD_VOL_READONLY));
		(void)!answer(h, "vd_volume_set_attrs", vd_volume_set_attrs(h->pool, id, "x=y\n"));
		break;
	case 6:
		(void)!answer(h, "vd_volume_lock", vd_volume_lock(h->pool, id, &who));
		break;
	case 7:
		(void)!answer(h, "vd_volume_unlock", vd_volume_unlock(h->pool, id));
		break;
	case 8:
		(void)!answer(h, "vd_volume_pointer_add", vd_volume_pointer_add(h->pool, id, &p, &other));
		break;
	case 9:
		(void)!answer(h, "vd_volume_pointer_set", vd_volume_pointer_set(h->pool, id, other, &p));
		(void)!answer(h, "vd_volume_pointer_del", vd_volume_pointer_del(h->pool, id, 1));
		break;
	case 10:
	case 11:
		snap[0] = (struct vd_snap){ .origin = id, .name = text[0] };
		snap[1] = (struct vd_snap){ .origin = other, .name = text[1] };
		(void)!answer(h, "vd_snapshot", vd_snapshot(h->pool, snap, 1 + (unsigned)rng_below(h->rng, 2)));
		break;
	case 12:
		(void)!answer(h, "vd_rollback", vd_rollback(h->pool, id, other));
		break;
	case 13:
		(void)!answer(h, "vd_checkpoint", vd_checkpoint(h->pool));
		break;
	case 14:
		(void)!answer(h, "vd_flush", vd_flush(h->pool));
		break;
	case 15:
		background(h);
		break;
	case 16:
		diff(h, id, other);
		look_volume(h, id);
		break;
	case 17:
		grow(h);
		break;
	default:
		io(h, id);
	}
}

void fz_look(struct fz_disk *d, struct vd_pool *pool, struct rng *rng)
{
	struct hands h = { .d = d, .pool = pool, .rng = rng };

	look(&h);
	(void)check(&h, 0);
}

void fz_change(struct fz_disk *d, struct vd_pool *pool, struct rng *rng, unsigned steps)
{
	struct hands h = { .d = d, .pool = pool, .rng = rng };
	int clean = check(&h, 0), then;

	while (steps--) {
		list(&h);
		change(&h);
	}
	background(&h);
	then = check(&h, 0);
	if (!clean && then > 0 && !h.failed && !d->sim->fault.hit) /* F5 */
		fz_fault("the pool was clean, and now has %d faults", then);
	list(&h);
}

/* ---- all -------------------------------------------------------------------------- */

static struct vd_pool *open_pool(struct fz_disk *d, unsigned flags)
{
	static const struct vd_disk_holder self = { .host = "host-of-fuzzing", .boot = "boot-2", .purpose = "fuzz" };
	struct vd_pool *pool = NULL;
	struct vd_host host;
	int r;

	fz_host(d, &host);
	r = fz_answer("vd_pool_open", vd_pool_open(&host, flags, &self, &pool));
	if (!r && !pool)
		fz_fault("vd_pool_open answered 0 and gave no pool");
	if (getenv("FZ_VERBOSE")) {
		struct vd_pool_info *info = must_zero(sizeof(*info));

		if (pool)
			vd_pool_info(pool, info);
		fprintf(stderr, "open: %d, mode %d, record %llu, %llu extents in memory\n", r, info->mode,
			(unsigned long long)info->seq, (unsigned long long)info->overlay_extents);
		free(info);
	}
	return r ? NULL : pool;
}

static void close_pool(struct vd_pool *pool)
{
	if (fz_answer("vd_pool_close", vd_pool_close(pool)) == -EBUSY)
		fz_fault("vd_pool_close finds an open volume");
}

void fz_work(struct fz_disk *d, unsigned flags, uint32_t seed)
{
	struct rng rng = rng_seeded(seed);
	unsigned oflags = (flags & FZ_RO ? VD_OPEN_READONLY : 0) | (flags & FZ_NO_REPLAY ? VD_OPEN_READONLY | VD_OPEN_NO_REPLAY : 0);
	struct vd_disk_label *label = must_zero(sizeof(*label));
	struct vd_disk_owner *owner = must_zero(sizeof(*owner));
	struct vd_host host;
	struct vd_pool *pool;
	unsigned m;

	if (getenv("FZ_SAVE")) {
		fz_save(d, getenv("FZ_SAVE"));
		free(label);
		free(owner);
		return;
	}
	fz_host(d, &host);
	for (m = 0; m < d->sim->nmembers; m++) {
		fz_answer("vd_label_read", vd_label_read(&host, m, label));
		fz_answer("vd_owner_read", vd_owner_read(&host, m, owner));
	}
	free(label);
	free(owner);
	if (flags & FZ_MISSING)
		d->sim->member[d->sim->nmembers - 1]->missing = true;
	pool = open_pool(d, oflags);
	if (!pool)
		return;
	if (flags & FZ_AGAIN && !oflags) {
		vd_pool_abandon(pool);
		pool = open_pool(d, 0);
		if (!pool)
			return;
	}
	fz_look(d, pool, &rng);
	if (!(flags & FZ_QUIET) && !oflags)
		fz_change(d, pool, &rng, 2 + seed % 10);
	close_pool(pool);
	sim_unfail(d->sim);
	pool = open_pool(d, VD_OPEN_READONLY);
	if (!pool)
		return;
	fz_look(d, pool, &rng);
	close_pool(pool);
}
