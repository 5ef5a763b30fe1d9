// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Cases that random operations meet too seldom, one behaviour each: requests in
 * flight (begun, not ended) while something else is done to their blocks; crashes
 * at each host call of a short story; members that are missing, stale or spoiled.
 * The I-numbers are the design's invariants.
 *
 * A story is told twice at the same moment: to the engine and to the model of
 * ref.h.  Where the engine may wait for the request in flight, the other call is
 * made by a second thread, and the request is ended after a while.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "world.h"

static struct cli cli = { .test = "test_cases" };

#define B VD_BLOCK

/* ---- telling a story -------------------------------------------------- */

static struct world *begin_world(unsigned nmembers, unsigned sector)
{
	struct shape shape = {
		.nmembers = nmembers, .blocks = { 4096, 3000, 2500, 2048 }, .sector_size = sector, .journal_blocks = 64, .max_volumes = 20,
	};

	return world_new(&cli, cli.seed, &shape);
}

static void ok(struct world *w, const char *what, int r)
{
	if (r)
		world_fail(w, "%s: error %d", what, r);
}

static uint32_t create(struct world *w, const char *name, uint64_t blocks)
{
	struct ref_op op = { .kind = REF_CREATE, .size = blocks * B };
	struct vd_volume_spec spec = { .name = name, .size = op.size };

	snprintf(op.name, sizeof(op.name), "%s", name);
	ref_begin(w->ref, &op);
	ok(w, "create", vd_volume_create(w->pool, &spec, &w->ref->op.id));
	op.id = w->ref->op.id;
	ref_done(w->ref);
	return op.id;
}

/* Tells the model that `len` bytes at off are about to be written or unmapped. */
static uint64_t tell(struct world *w, enum ref_op_kind kind, uint32_t id, uint64_t off, uint64_t len)
{
	struct ref_op op = { .kind = kind, .id = id, .off = off, .len = len, .value = w->ref->next_value++ };

	ref_begin(w->ref, &op);
	return op.value;
}

/* These answer whether a cut has come in between; the change is pending then. */
static bool put(struct world *w, uint32_t id, uint64_t off, uint64_t len)
{
	struct vd_volume *h = world_handle(w, id);
	uint64_t value;
	int r;

	if (!h)
		return true;
	value = tell(w, REF_WRITE, id, off, len);
	r = io_stamp(w->sim, h, ref_find(w->ref, id)->nbase, off, len, value, NULL);
	if (sim_is_cut(w->sim))
		return true;
	ok(w, "write", r);
	ref_done(w->ref);
	return false;
}

static bool unmap(struct world *w, uint32_t id, uint64_t off, uint64_t len)
{
	struct vd_volume *h = world_handle(w, id);
	int r;

	if (!h)
		return true;
	tell(w, REF_UNMAP, id, off, len);
	r = vd_unmap(h, off, len);
	if (sim_is_cut(w->sim))
		return true;
	ok(w, "unmap", r);
	ref_done(w->ref);
	return false;
}

static bool flush(struct world *w)
{
	int r = vd_flush(w->pool);

	if (sim_is_cut(w->sim))
		return true;
	ok(w, "flush", r);
	ref_flushed(w->ref);
	return false;
}

static bool snap(struct world *w, uint32_t *id, const uint32_t *origin, unsigned n)
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
	ok(w, "snapshot", r);
	for (i = 0; i < n; i++)
		id[i] = w->ref->op.pair[i].id = s[i].id;
	ref_done(w->ref);
	return false;
}

static bool delete(struct world *w, uint32_t id)
{
	struct ref_op op = { .kind = REF_DELETE, .id = id };
	int r;

	world_close_volumes(w);
	ref_begin(w->ref, &op);
	r = vd_volume_delete(w->pool, id);
	if (sim_is_cut(w->sim))
		return true;
	ok(w, "delete", r);
	ref_done(w->ref);
	return false;
}

static bool work(struct world *w)
{
	int r;

	while ((r = vd_pool_work(w->pool)) > 0)
		;
	if (sim_is_cut(w->sim))
		return true;
	ok(w, "work", r);
	return false;
}

static bool checkpoint(struct world *w)
{
	int r = vd_checkpoint(w->pool);

	if (sim_is_cut(w->sim))
		return true;
	ok(w, "checkpoint", r);
	return false;
}

static void crash(struct world *w, enum sim_crash how)
{
	world_abandon(w);
	sim_crash(w->sim, how);
	world_log(w, "-------- %s", how == SIM_KILL ? "killed" : "power cut");
	world_open(w, 0);
}

static void crash_and_verify(struct world *w, enum sim_crash how)
{
	crash(w, how);
	world_verify(w, how == SIM_KILL ? REF_KILLED : REF_POWER_CUT);
}

static void end_world(struct world *w)
{
	world_verify(w, REF_LIVE);
	world_check(w);
	world_verify(w, REF_LIVE);
	world_close(w);
	world_free(w);
}

/* Tells `story` again and again, cut at its 1st, 2nd, 3rd … host call, several
 * times each since what a power cut leaves is chance; then what comes after. */
static void cut_everywhere(struct world *base, void (*before)(struct world *w), void (*story)(struct world *w), void (*after)(struct world *w))
{
	uint64_t n;
	unsigned again;
	bool cut = true;

	for (n = 0; cut; n++)
		for (again = 0, cut = false; again < 6; again++) {
			enum sim_crash how = again ? SIM_POWER_CUT : SIM_KILL;
			struct world *w = world_fork(base);

			w->sim->rng = rng_seeded(cli.seed + n * 100 + again);
			world_log(w, "story cut at call %llu", (unsigned long long)n);
			world_open(w, 0);
			if (before)
				before(w);
			sim_cut(w->sim, n);
			story(w);
			cut |= sim_is_cut(w->sim);
			crash_and_verify(w, how);
			if (again % 2)
				world_check(w);
			if (after)
				after(w);
			end_world(w);
		}
}

static uint64_t value_at(struct world *w, uint32_t id, uint64_t sector)
{
	uint8_t buf[SECTOR * 8];
	uint64_t first = sector / 8 * 8;

	ok(w, "read", io_read(w->sim, world_handle(w, id), 0, first * SECTOR, buf, sizeof(buf), NULL));
	return stamp_read(buf + (sector - first) * SECTOR, sector);
}

/* ---- a second thread -------------------------------------------------- */

struct job { pthread_t t; int (*fn)(struct job *j); struct world *w; struct vd_volume *vol; uint32_t id, other; uint64_t off, len; int r, done; };

static void *job_main(void *arg)
{
	struct job *j = arg;

	j->r = j->fn(j);
	__atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Starts it and gives it time to finish, or to wait for the request in flight. Whether it has finished. */
static bool job_start(struct job *j)
{
	unsigned i;

	alarm(60);
	pthread_create(&j->t, NULL, job_main, j);
	for (i = 0; i < 60 && !__atomic_load_n(&j->done, __ATOMIC_ACQUIRE); i++)
		usleep(500);
	return __atomic_load_n(&j->done, __ATOMIC_ACQUIRE);
}

static int job_end(struct job *j)
{
	pthread_join(j->t, NULL);
	alarm(0);
	return j->r;
}

static int job_unmap(struct job *j) { return vd_unmap(j->vol, j->off, j->len); }
static int job_resize(struct job *j) { return vd_volume_resize(j->w->pool, j->id, j->len); }
static int job_rollback(struct job *j) { return vd_rollback(j->w->pool, j->id, j->other); }
static int job_snapshot(struct job *j)
{
	struct vd_snap s = { .origin = j->id, .name = "in-flight" };
	int r = vd_snapshot(j->w->pool, &s, 1);

	j->other = s.id;
	return r;
}
static int job_work(struct job *j)
{
	int r, i;

	for (i = 0; i < 4; i++)
		if ((r = vd_checkpoint(j->w->pool)) || (r = vd_pool_work(j->w->pool)) < 0)
			return r;
	return 0;
}

/* Begins a write of whole blocks of which the kind is known. */
static void begin_write(struct world *w, struct vd_volume *vol, uint64_t off, uint64_t len, struct vd_io *io, enum vd_run_kind kind)
{
	int r;

	while ((r = vd_write_begin(vol, off, len, io)) == -EWOULDBLOCK)
		ok(w, "wait", vd_io_wait(io));
	ok(w, "write_begin", r);
	if (io->kind != kind || io->bytes != len)
		world_fail(w, "a write run of kind %d, %u bytes", io->kind, io->bytes);
}

static void end_write(struct world *w, struct vd_io *io, uint64_t off, uint64_t len, uint64_t value)
{
	uint8_t *buf = malloc(len);
	uint64_t i;

	for (i = 0; i < len; i += SECTOR)
		stamp(buf + i, (off + i) / SECTOR, value);
	ok(w, "write_end", vd_write_end(io, io_run_write(w->sim, io, 0, off, buf)));
	free(buf);
}

/* ---- requests in flight ----------------------------------------------- */

static void a_second_write_to_a_block_in_transition_waits(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64);
	struct vd_volume *vol = world_handle(w, id);
	struct vd_io one, two;
	uint64_t v = tell(w, REF_WRITE, id, 0, B);

	(void)state;
	begin_write(w, vol, 0, B, &one, VD_RUN_NEW);
	assert_int_equal(vd_write_begin(vol, 512, 512, &two), -EWOULDBLOCK);
	assert_int_equal(value_at(w, id, 0), 0); /* not there before it has ended */
	end_write(w, &one, 0, B, v);
	ref_done(w->ref);
	put(w, id, 512, 512);
	assert_int_equal(value_at(w, id, 0), v);
	end_world(w);
}

static void a_failed_write_leaves_what_was_there(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64);
	struct vd_volume *vol = world_handle(w, id);
	uint64_t used;
	struct vd_io io;
	int i;

	(void)state;
	used = world_used(w);
	for (i = 0; i < 3000; i++) { /* more than the pool has: its blocks come back */
		begin_write(w, vol, 0, B, &io, VD_RUN_NEW);
		assert_int_equal(vd_write_end(&io, -EIO), -EIO);
	}
	assert_int_equal(value_at(w, id, 0), 0);
	assert_true(world_used(w) <= used + 64);
	put(w, id, 0, B);
	end_world(w);
}

/* Discard against a write in flight, to a hole and in place (I13). */
static void unmap_against_write(enum vd_run_kind kind)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), other = create(w, "other", 4096);
	struct job j = { .fn = job_unmap, .w = w, .off = 0, .len = 8 * B };
	struct vd_io io;
	uint64_t v, i, got;
	bool early;

	if (kind == VD_RUN_DATA)
		put(w, id, 0, 8 * B);
	flush(w);
	v = tell(w, REF_WRITE, id, 2 * B, B);
	j.vol = world_handle(w, id);
	begin_write(w, j.vol, 2 * B, B, &io, kind);
	early = job_start(&j);
	if (early) { /* it did not wait: what it freed must not be used again yet (D6) */
		ok(w, "unmap", j.r);
		flush(w);
		checkpoint(w);
	}
	end_write(w, &io, 2 * B, B, v);
	ok(w, "unmap", job_end(&j));
	got = value_at(w, id, 16);
	if (got && got != v)
		world_fail(w, "after unmap and write: %llu", (unsigned long long)got);
	if (early && kind == VD_RUN_DATA && got)
		world_fail(w, "unmapped, and an older write is back");
	ref_done(w->ref); /* the write … */
	tell(w, REF_UNMAP, id, 0, 8 * B);
	if (got) { /* … which was ordered after the unmap */
		ref_done(w->ref);
		tell(w, REF_WRITE, id, 2 * B, B);
		w->ref->op.value = v;
	}
	ref_done(w->ref);
	world_verify(w, REF_LIVE);
	for (i = 0; i < 3000; i += 8) /* whatever is free is written to */
		if (put(w, other, i * B, 8 * B))
			break;
		else if (world_used(w) > 3500)
			break;
	world_verify(w, REF_LIVE);
	flush(w);
	crash_and_verify(w, SIM_POWER_CUT);
	end_world(w);
}

static void unmap_against_a_first_write(void **state) { (void)state; unmap_against_write(VD_RUN_NEW); }
static void unmap_against_a_write_in_place(void **state) { (void)state; unmap_against_write(VD_RUN_DATA); }

/* The write ends before or after the shrink, and in no case does it show when the volume grows again. */
static void shrink_against_write(enum vd_run_kind kind)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64);
	struct job j = { .fn = job_resize, .w = w, .id = id, .len = 16 * B };
	struct ref_op op = { .kind = REF_RESIZE, .id = id, .size = 16 * B };
	struct vd_volume *vol = world_handle(w, id);
	struct vd_io io;
	uint64_t v;

	put(w, id, 0, 8 * B);
	if (kind == VD_RUN_DATA)
		put(w, id, 32 * B, 8 * B);
	flush(w);
	v = tell(w, REF_WRITE, id, 33 * B, B);
	begin_write(w, vol, 33 * B, B, &io, kind);
	job_start(&j);
	end_write(w, &io, 33 * B, B, v);
	ok(w, "resize", job_end(&j));
	ref_done(w->ref);
	ref_begin(w->ref, &op);
	ref_done(w->ref);
	world_verify(w, REF_LIVE);
	assert_int_equal(vd_write_begin(vol, 33 * B, B, &io), -ERANGE);
	op.size = 64 * B;
	ref_begin(w->ref, &op);
	ok(w, "resize", vd_volume_resize(w->pool, id, 64 * B));
	ref_done(w->ref);
	assert_int_equal(value_at(w, id, 33 * 8), 0);
	crash_and_verify(w, SIM_POWER_CUT);
	end_world(w);
}

static void shrink_against_a_first_write(void **state) { (void)state; shrink_against_write(VD_RUN_NEW); }
static void shrink_against_a_write_in_place(void **state) { (void)state; shrink_against_write(VD_RUN_DATA); }

/* I1: what is in flight when the snapshot is taken is in it or not, and stays so. */
static void snapshot_against_write(enum vd_run_kind kind)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64);
	struct job j = { .fn = job_snapshot, .w = w, .id = id };
	struct vd_volume *vol = world_handle(w, id), *s;
	uint8_t was[B], is[B];
	struct vd_io io;
	uint64_t v, got;
	bool early;

	if (kind == VD_RUN_DATA)
		put(w, id, 0, 8 * B);
	v = tell(w, REF_WRITE, id, 2 * B, B);
	begin_write(w, vol, 2 * B, B, &io, kind);
	early = job_start(&j);
	if (early) {
		ok(w, "snapshot", j.r);
		ok(w, "open", vd_volume_open(w->pool, j.other, &s));
		ok(w, "read", io_read(w->sim, s, 0, 2 * B, was, B, NULL));
		vd_volume_close(s);
	}
	end_write(w, &io, 2 * B, B, v);
	ok(w, "snapshot", job_end(&j));
	ref_done(w->ref);
	ok(w, "open", vd_volume_open(w->pool, j.other, &s));
	ok(w, "read", io_read(w->sim, s, 0, 2 * B, is, B, NULL));
	if (early && memcmp(was, is, B))
		world_fail(w, "a write that was in flight came into the snapshot after it was taken");
	got = stamp_read(is, 16);
	if (got != v && (kind == VD_RUN_NEW ? got != 0 : got + 1 != v))
		world_fail(w, "the snapshot has %llu, of a write that was in flight", (unsigned long long)got);
	put(w, id, 2 * B, B);
	flush(w);
	ok(w, "read", io_read(w->sim, s, 0, 2 * B, was, B, NULL));
	assert_memory_equal(was, is, B);
	vd_volume_close(s);
	ok(w, "delete", vd_volume_delete(w->pool, j.other));
	work(w);
	end_world(w);
}

static void snapshot_against_a_first_write(void **state) { (void)state; snapshot_against_write(VD_RUN_NEW); }
static void snapshot_against_a_write_in_place(void **state) { (void)state; snapshot_against_write(VD_RUN_DATA); }

/* Rollback to a snapshot that is itself being written to in place. */
static void rollback_against_a_write_to_its_source(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), sid;
	struct job j = { .fn = job_rollback, .w = w, .id = id };
	struct vd_volume *s;
	struct vd_io io;
	uint64_t v, old, got;

	(void)state;
	put(w, id, 0, 8 * B);
	snap(w, &sid, &id, 1);
	put(w, sid, 0, 8 * B);
	old = value_at(w, sid, 16);
	world_close_volumes(w);
	s = world_handle(w, sid);
	j.other = sid;
	v = w->ref->next_value++;
	begin_write(w, s, 2 * B, B, &io, VD_RUN_DATA);
	job_start(&j);
	end_write(w, &io, 2 * B, B, v);
	ok(w, "rollback", job_end(&j));
	got = value_at(w, id, 16);
	if (got != old && got != v)
		world_fail(w, "rolled back to %llu", (unsigned long long)got);
	ok(w, "write", io_stamp(w->sim, s, 0, 2 * B, B, v + 1, NULL));
	assert_int_equal(value_at(w, id, 16), got); /* no longer the same block */
	assert_int_equal(value_at(w, sid, 16), v + 1);
	w->ref->next_value += 2;
	world_check(w);
	world_close(w);
	world_free(w);
}

static void what_is_open_is_neither_deleted_nor_rolled_back(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), sid;
	struct vd_volume *vol;
	struct vd_io io;

	(void)state;
	put(w, id, 0, 8 * B);
	snap(w, &sid, &id, 1);
	vol = world_handle(w, id);
	begin_write(w, vol, 0, B, &io, VD_RUN_NEW);
	assert_int_equal(vd_volume_delete(w->pool, id), -EBUSY);
	assert_int_equal(vd_rollback(w->pool, id, sid), -EBUSY);
	assert_int_equal(vd_pool_close(w->pool), -EBUSY);
	assert_int_equal(vd_write_end(&io, -EIO), -EIO);
	end_world(w);
}

/* I3, its second half */
static void a_volume_whose_snapshots_are_gone_is_written_in_place(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), sid, other;

	(void)state;
	put(w, id, 0, 8 * B);
	snap(w, &sid, &id, 1);
	snap(w, &other, &id, 1);
	delete(w, sid);
	world_handle(w, id);
	work(w);
	for (uint64_t b = 0; b < 3; b++) {
		struct vd_volume *vol = world_handle(w, id);
		struct vd_io io;
		uint64_t v = tell(w, REF_WRITE, id, b * B, B);

		/* b 0: the other snapshot is there; 1: it is gone; 2: after a crash */
		begin_write(w, vol, b * B, B, &io, b ? VD_RUN_DATA : VD_RUN_NEW);
		end_write(w, &io, b * B, B, v);
		ref_done(w->ref);
		if (!b)
			delete(w, other);
		world_handle(w, id);
		work(w);
		if (b == 1) {
			flush(w);
			crash_and_verify(w, SIM_POWER_CUT);
			world_handle(w, id);
			work(w);
		}
	}
	end_world(w);
}

/* D6: a block that is being read is not given to another, though it was freed
 * since, durably, and everything that is free is wanted. */
static void a_block_is_not_reused_under_a_read(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), other = create(w, "other", 1 << 16);
	struct job j = { .fn = job_work, .w = w };
	struct vd_volume *vol = world_handle(w, id), *o = world_handle(w, other);
	uint8_t buf[B], want[B];
	struct vd_io rd, io;
	uint64_t i;
	bool seen = false;
	int r;

	(void)state;
	put(w, id, 0, B);
	checkpoint(w);
	ok(w, "read_begin", vd_read_begin(vol, 0, B, &rd));
	assert_int_equal(rd.kind, VD_RUN_DATA);
	io_run_read(w->sim, &rd, 0, 0, want);
	unmap(w, id, 0, B);
	flush(w);
	job_start(&j);
	for (i = 0; i < 3500; i++) {
		r = vd_write_begin(o, i * B, B, &io);
		if (r == -EWOULDBLOCK || r == -ENOSPC)
			break; /* waiting for space would wait for the read */
		ok(w, "write_begin", r);
		if (io.pblk <= rd.pblk && rd.pblk < io.pblk + io.nblocks)
			world_fail(w, "a block that is being read was given to a write");
		memset(buf, 0x11, sizeof(buf));
		ok(w, "write", vd_write_end(&io, io_run_write(w->sim, &io, 0, i * B, buf)));
	}
	io_run_read(w->sim, &rd, 0, 0, buf);
	assert_memory_equal(buf, want, B);
	vd_read_end(&rd);
	ok(w, "work", job_end(&j));
	for (; !seen && i < 60000; i++) { /* and now it may be */
		r = vd_write_begin(o, i * B, B, &io);
		if (r == -EWOULDBLOCK && !(r = vd_io_wait(&io)))
			continue;
		if (r)
			break;
		seen = io.pblk <= rd.pblk && rd.pblk < io.pblk + io.nblocks;
		ok(w, "write", vd_write_end(&io, io_run_write(w->sim, &io, 0, i * B, buf)));
	}
	assert_true(seen);
	world_check(w);
	world_close(w);
	world_free(w);
}

/* ---- crashes in a short story ----------------------------------------- */

static void torn_before(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id, i;

	for (i = 0; i < 400; i++) /* a commit of several blocks, to be torn */
		put(w, id, (2 * i + 1) * B, B);
}

static void torn_story(struct world *w)
{
	if (flush(w))
		return;
	put(w, w->ref->vol[0]->id, 3 * B, 2 * B);
	flush(w);
}

/* Another, shorter commit over the torn one, and a second crash: what was given
 * up after the first must not come back (I8). */
static void torn_after(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;
	unsigned i;

	for (i = 0; i < 3; i++) {
		put(w, id, (60 + i) * B, B);
		if (i != 1)
			flush(w);
		crash_and_verify(w, SIM_POWER_CUT);
	}
}

static void a_torn_journal_followed_by_a_second_crash(void **state)
{
	struct world *w;
	unsigned n, again;

	(void)state;
	for (again = 0; again < 10; again++, cli.seed += 77777)
		for (n = 1; n <= 2; n++) {
			w = begin_world(n, 512);
			put(w, create(w, "v", 1024), 0, 8 * B);
			world_close(w);
			cut_everywhere(w, torn_before, torn_story, torn_after);
			world_free(w);
		}
}

/* After a crash that one copy of the journal came through and the other did not,
 * both are whole again: later either will do (I8). */
static void levelled_after(struct world *w)
{
	unsigned m = (unsigned)rng_below(&w->rng, 2), b;

	put(w, w->ref->vol[0]->id, 5 * B, B);
	flush(w);
	world_abandon(w);
	sim_crash(w->sim, SIM_POWER_CUT);
	for (b = 0; b < 64; b++)
		sim_spoil(w->sim, m, VD_SYSTEM_BLOCKS + b, 8, 40);
	world_log(w, "journal copy %u spoiled", m);
	world_open(w, 0);
	world_verify(w, REF_POWER_CUT);
}

static void copies_of_the_journal_are_levelled_after_a_crash(void **state)
{
	struct world *w = begin_world(2, 512);

	(void)state;
	put(w, create(w, "v", 1024), 0, 8 * B);
	world_close(w);
	cut_everywhere(w, torn_before, torn_story, levelled_after);
	world_free(w);
}

/* D6: unmapped, and the record not durable: in a pool that has hardly anything
 * else, a write that is to have a place waits for it to be. */
static void a_block_is_not_reused_before_the_record_that_freed_it_is_durable(void **state)
{
	struct world *base = begin_world(1, 512), *w;
	uint32_t fill = create(base, "fill", 8192), id = create(base, "v", 512), other = create(base, "other", 512), i, k, again;
	struct vd_pool_info info;

	(void)state;
	for (i = 0;; i++) {
		vd_pool_info(base->pool, &info);
		if (info.total_blocks < info.used_blocks + info.reserve_blocks + 400)
			break;
		put(base, fill, i * 8ull * B, 8 * B);
	}
	for (again = 0; again < 40; again++) {
		w = world_fork(base);
		sim_crash(w->sim, SIM_KILL);
		w->sim->rng = rng_seeded(cli.seed + again);
		world_open(w, 0);
		checkpoint(w);
		work(w);
		for (k = 0; k < 8; k++) { /* in the overlay, and durable */
			struct ref_op op = { .kind = REF_WRITE, .id = id, .off = k * 32 * B, .len = 32 * B, .value = w->ref->next_value++ };
			uint64_t done;

			ref_begin(w->ref, &op);
			i = (uint32_t)-io_stamp(w->sim, world_handle(w, id), 0, op.off, op.len, op.value, &done);
			ref_done_partly(w->ref, done);
			if (i)
				break;
			if (k == 6)
				flush(w);
		}
		for (k = 0; k < 1 + again % 8; k++) {
			struct ref_op op = { .kind = REF_WRITE, .id = other, .off = k * 16 * B, .len = 16 * B, .value = w->ref->next_value++ };
			uint64_t done;

			unmap(w, id, k * 32 * B, 32 * B);
			ref_begin(w->ref, &op);
			i = (uint32_t)-io_stamp(w->sim, world_handle(w, other), 0, op.off, op.len, op.value, &done);
			ref_done_partly(w->ref, done);
			if (i && i != ENOSPC)
				world_fail(w, "write: error -%u", i);
		}
		crash_and_verify(w, SIM_POWER_CUT);
		end_world(w);
	}
	world_free(base);
}

static void group_story(struct world *w)
{
	uint32_t id[2] = { w->ref->vol[0]->id, w->ref->vol[1]->id }, s[2];

	if (put(w, id[0], 0, B) || put(w, id[1], 0, B) || put(w, id[0], 9 * B, 512) || snap(w, s, id, 2))
		return;
	if (put(w, id[0], 0, B) || put(w, id[1], 0, B))
		return;
	flush(w);
}

static void a_group_snapshot_is_there_as_a_whole_or_not(void **state)
{
	struct world *w = begin_world(2, 512);

	(void)state;
	put(w, create(w, "a", 64), 0, 8 * B);
	put(w, create(w, "b", 64), 0, 8 * B);
	world_close(w);
	cut_everywhere(w, NULL, group_story, NULL);
	world_free(w);
}

/* I3: in place only when the record that released the other reference is durable. */
static void overwrite_story(struct world *w)
{
	uint32_t id = ref_named(w->ref, "v")->id, s = w->ref->vol[0]->id == id ? w->ref->vol[1]->id : w->ref->vol[0]->id;

	if (delete(w, s) || put(w, id, 0, B) || put(w, id, 3 * B + 512, 1024) || work(w) || put(w, id, 0, 8 * B))
		return;
	flush(w);
}

static void a_crash_between_the_deletion_of_a_snapshot_and_an_overwrite(void **state)
{
	struct world *w = begin_world(1, 512);
	uint32_t id = create(w, "v", 64), s;

	(void)state;
	put(w, id, 0, 8 * B);
	snap(w, &s, &id, 1);
	world_close(w);
	cut_everywhere(w, NULL, overwrite_story, NULL);
	world_free(w);
}

static void fua_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	if (put(w, id, 0, B))      /* mapped, not durably */
		return;
	if (put(w, id, 512, 1024)) /* in place … */
		return;
	flush(w);                  /* … with FUA: it joins a commit (I6) */
}

static void fua_after(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	put(w, id, 20 * B, B);
	flush(w);
	put(w, id, 20 * B + 512, 512);
	flush(w);
	crash_and_verify(w, SIM_POWER_CUT);
}

static void fua_to_a_mapping_that_is_not_durable(void **state)
{
	struct world *w = begin_world(2, 512);

	(void)state;
	create(w, "v", 64);
	world_close(w);
	cut_everywhere(w, NULL, fua_story, fua_after);
	world_free(w);
}

static void delete_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id;

	if (delete(w, id) || work(w) || checkpoint(w))
		return;
	work(w);
}

static void delete_after(struct world *w)
{
	uint32_t id = ref_named(w->ref, "new") ? 0 : create(w, "new", 128);

	put(w, id, 0, 64 * B); /* over what was freed */
	flush(w);
	crash_and_verify(w, SIM_POWER_CUT);
	work(w);
}

static void a_crash_in_the_middle_of_a_deletion(void **state)
{
	struct world *w = begin_world(2, 512);
	uint32_t id = create(w, "v", 4096), keep = create(w, "keep", 4096), s, i;

	(void)state;
	for (i = 0; i < 300; i++) {
		put(w, id, i * 3 * B, B);
		put(w, keep, i * 2 * B, B);
	}
	snap(w, &s, &keep, 1);
	for (i = 0; i < 100; i++)
		put(w, keep, i * 6 * B, B);
	world_close(w);
	cut_everywhere(w, NULL, delete_story, delete_after);
	world_free(w);
}

static void checkpoint_story(struct world *w)
{
	uint32_t id = w->ref->vol[0]->id, i;

	for (i = 0; i < 20; i++)
		if (put(w, id, (100 + 2 * i) * B, B))
			return;
	if (unmap(w, id, 0, 50 * B) || checkpoint(w) || work(w))
		return;
	if (put(w, id, 0, 60 * B) || checkpoint(w))
		return;
	flush(w);
}

static void a_crash_in_the_middle_of_a_checkpoint(void **state)
{
	struct world *w;
	unsigned n;

	(void)state;
	for (n = 1; n <= 3; n++) {
		w = begin_world(n, 512);
		put(w, create(w, "v", 1024), 0, 64 * B);
		world_close(w);
		cut_everywhere(w, NULL, checkpoint_story, torn_after);
		world_free(w);
	}
}

static void add_story(struct world *w)
{
	uint8_t uuid[16] = { 99 };

	if (put(w, w->ref->vol[0]->id, 30 * B, 8 * B))
		return;
	if (vd_pool_add(w->pool, uuid, w->sim->member[1]->blocks, 512) && !sim_is_cut(w->sim))
		world_fail(w, "add failed");
	if (!sim_is_cut(w->sim))
		put(w, w->ref->vol[0]->id, 0, 64 * B);
}

static void a_crash_while_a_member_is_added(void **state)
{
	struct world *w = begin_world(1, 512);

	(void)state;
	put(w, create(w, "v", 1024), 0, 8 * B);
	world_close(w);
	sim_add(w->sim, 3000);
	cut_everywhere(w, NULL, add_story, torn_after);
	world_free(w);
}

/* I10 */
static void a_killed_server_loses_nothing_it_acknowledged(void **state)
{
	struct world *w = begin_world(2, 512);
	uint32_t id = create(w, "v", 256), s, i;

	(void)state;
	for (i = 0; i < 40; i++) {
		put(w, id, (i * 7 % 200) * B + 512, 3 * B);
		if (i == 10)
			snap(w, &s, &id, 1);
		if (i % 5 == 3)
			unmap(w, id, i * B, 4 * B);
		crash_and_verify(w, SIM_KILL);
		if (i % 8 == 7) { /* what came back is made durable by a flush like anything else */
			flush(w);
			crash_and_verify(w, SIM_POWER_CUT);
		}
	}
	end_world(w);
}

static void a_kill_during_the_opening_after_a_kill(void **state)
{
	struct world *base = begin_world(2, 512), *w;
	uint32_t id = create(base, "v", 256);
	unsigned i, n, opened = 0;

	(void)state;
	flush(base);
	for (i = 0; i < 10; i++)
		put(base, id, 5 * i * B + 512, 2 * B);
	for (n = 0; opened < 3; n++) { /* cut at each call of the opening, then killed, or the power goes */
		for (i = 0; i < 4; i++) {
			int r;

			w = world_fork(base);
			w->sim->rng = rng_seeded(cli.seed + n * 10 + i);
			sim_crash(w->sim, SIM_KILL);
			sim_cut(w->sim, n);
			r = world_open(w, 0);
			opened += !r && !sim_is_cut(w->sim);
			crash_and_verify(w, i ? SIM_POWER_CUT : SIM_KILL);
			end_world(w);
		}
	}
	world_free(base);
}

/* ---- members ---------------------------------------------------------- */

static enum vd_pool_mode open_mode(struct world *w)
{
	struct vd_pool_info info;
	int r = vd_pool_open(&w->host, 0, NULL, &w->pool);

	if (r) {
		world_log(w, "open: %d", r);
		w->pool = NULL;
		return VD_MODE_FAILED;
	}
	vd_pool_info(w->pool, &info);
	return info.mode;
}

static void a_pool_with_a_member_missing_opens_read_only_and_heals(void **state)
{
	struct world *w = begin_world(3, 512);
	uint32_t id = create(w, "v", 256), nid;
	struct vd_volume_spec spec = { .name = "no", .size = B };
	struct vd_pool_info info;
	unsigned m;

	(void)state;
	put(w, id, 0, 200 * B);
	for (m = 0; m < 3; m++) {
		put(w, id, m * B, B);
		world_close(w);
		w->sim->member[m]->missing = true;
		if (open_mode(w) == VD_MODE_READONLY) {
			vd_pool_info(w->pool, &info);
			assert_int_equal(info.nmissing, 1);
			assert_int_equal(info.missing[0], 1u << m);
			assert_int_equal(vd_volume_create(w->pool, &spec, &nid), -EROFS);
			assert_int_equal(vd_volume_find(w->pool, "v", &nid), 0);
			assert_int_equal(vd_pool_close(w->pool), 0);
			w->pool = NULL;
		} else {
			world_fail(w, "member %u missing: not read-only", m);
		}
		w->sim->member[m]->missing = false;
		world_open(w, 0);
		world_verify(w, REF_LIVE);
	}
	end_world(w);
}

static void a_member_that_comes_back_stale_is_left_out(void **state)
{
	struct world *w = begin_world(2, 512);
	uint32_t id = create(w, "v", 256);
	unsigned m, when;

	(void)state;
	put(w, id, 0, 64 * B);
	for (when = 0; when < 2; when++)
		for (m = 0; m < 2; m++) {
			struct sim_member *old, *now;
			struct vd_pool_info info;
			enum vd_pool_mode mode;
			uint64_t i;

			flush(w);
			if (!when) {
				world_close(w);
				old = sim_member_save(w->sim, m);
				world_open(w, 0);
			} else {
				old = sim_member_save(w->sim, m); /* while it is in use */
			}
			for (i = 0; i < 3; i++) {
				if (when) /* within one opening it shows by superblocks only */
					unmap(w, id, 20 * i * B, 30 * B);
				put(w, id, 20 * i * B, 30 * B);
				checkpoint(w);
			}
			world_close(w);
			now = sim_member_save(w->sim, m);
			sim_member_restore(w->sim, m, old);
			mode = open_mode(w);
			if (mode != VD_MODE_READONLY)
				world_fail(w, "member %u stale: mode %d", m, mode);
			vd_pool_info(w->pool, &info);
			assert_int_equal(info.missing[0], 1u << m);
			assert_int_equal(vd_pool_close(w->pool), 0);
			w->pool = NULL;
			sim_member_restore(w->sim, m, now); /* the right one again */
			world_open(w, 0);
			world_verify(w, REF_LIVE);
			sim_member_free(old);
			sim_member_free(now);
		}
	end_world(w);
}

/* D4: either copy of each metadata block will do, and is mended. */
struct nodes { vd_pblk_t p[4096]; unsigned n; };
static int note_node(void *arg, const struct vd_dump_item *item)
{
	struct nodes *l = arg;

	if (item->node && l->n + 2 <= 4096) {
		l->p[l->n++] = le64_to_cpu(item->node->a);
		if (le64_to_cpu(item->node->b) != VD_PBLK_NONE)
			l->p[l->n++] = le64_to_cpu(item->node->b);
	}
	return 0;
}

static int tolerate(void *arg, const struct vd_check_report *f)
{
	unsigned *copies = arg;

	if (f->fault == VD_FAULT_COPY)
		++*copies;
	return 0;
}

static void any_one_copy_of_the_metadata_will_do(void **state)
{
	struct world *base = begin_world(2, 512), *w;
	uint32_t id = create(base, "v", 4096), s, i;
	struct nodes *l = calloc(1, sizeof(*l));
	uint64_t faults;
	unsigned copies;
	int r;

	(void)state;
	for (i = 0; i < 600; i++)
		put(base, id, i * 2 * B, B);
	snap(base, &s, &id, 1);
	for (i = 0; i < 50; i++)
		put(base, id, i * 11 * B, B);
	world_close(base);
	world_open(base, 0);
	ok(base, "dump", vd_dump(base->pool, note_node, l));
	assert_true(l->n > 12);
	world_close(base);
	for (i = 0; i < l->n; i++) {
		w = world_fork(base);
		world_log(w, "metadata block %#llx spoiled", (unsigned long long)l->p[i]);
		sim_spoil(w->sim, VD_PBLK_MEMBER(l->p[i]), VD_PBLK_BLOCK(l->p[i]), (unsigned)rng_below(&w->rng, 4000), 1 + (unsigned)rng_below(&w->rng, 90));
		world_open(w, 0);
		world_verify(w, REF_LIVE);
		copies = 0;
		r = vd_check(w->pool, 0, tolerate, &copies, NULL, &faults);
		if (r || faults != copies)
			world_fail(w, "check: error %d, %llu faults, %u of them copies", r, (unsigned long long)faults, copies);
		world_check(w); /* mended by now */
		put(w, id, 0, 100 * B);
		end_world(w);
	}
	free(l);
	world_free(base);
}

static void a_spoiled_journal_copy_is_made_up_for_by_the_other(void **state)
{
	struct world *base = begin_world(2, 512), *w;
	uint32_t id = create(base, "v", 256), i;
	unsigned m, b;

	(void)state;
	checkpoint(base);
	for (i = 0; i < 20; i++) {
		put(base, id, i * 3 * B, B);
		flush(base);
	}
	for (m = 0; m < 2; m++)
		for (b = 0; b < 64; b++) {
			w = world_fork(base);
			sim_crash(w->sim, SIM_POWER_CUT);
			sim_spoil(w->sim, m, VD_SYSTEM_BLOCKS + b, 8, 40);
			world_open(w, 0);
			world_verify(w, REF_POWER_CUT);
			put(w, id, 100 * B, B);
			flush(w);
			crash_and_verify(w, SIM_POWER_CUT);
			end_world(w);
		}
	world_free(base);
}

static void too_long(int sig)
{
	(void)sig;
	fprintf(stderr, "it hangs\n");
	abort();
}

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_second_write_to_a_block_in_transition_waits),
		T(a_failed_write_leaves_what_was_there),
		T(unmap_against_a_first_write),
		T(unmap_against_a_write_in_place),
		T(shrink_against_a_first_write),
		T(shrink_against_a_write_in_place),
		T(snapshot_against_a_first_write),
		T(snapshot_against_a_write_in_place),
		T(rollback_against_a_write_to_its_source),
		T(what_is_open_is_neither_deleted_nor_rolled_back),
		T(a_block_is_not_reused_under_a_read),
		T(a_block_is_not_reused_before_the_record_that_freed_it_is_durable),
		T(a_torn_journal_followed_by_a_second_crash),
		T(copies_of_the_journal_are_levelled_after_a_crash),
		T(a_group_snapshot_is_there_as_a_whole_or_not),
		T(a_volume_whose_snapshots_are_gone_is_written_in_place),
		T(a_crash_between_the_deletion_of_a_snapshot_and_an_overwrite),
		T(fua_to_a_mapping_that_is_not_durable),
		T(a_crash_in_the_middle_of_a_deletion),
		T(a_crash_in_the_middle_of_a_checkpoint),
		T(a_crash_while_a_member_is_added),
		T(a_killed_server_loses_nothing_it_acknowledged),
		T(a_kill_during_the_opening_after_a_kill),
		T(a_pool_with_a_member_missing_opens_read_only_and_heals),
		T(a_member_that_comes_back_stale_is_left_out),
		T(any_one_copy_of_the_metadata_will_do),
		T(a_spoiled_journal_copy_is_made_up_for_by_the_other),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, too_long);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
