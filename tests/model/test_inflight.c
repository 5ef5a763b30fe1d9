// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * Requests in flight: begun and not ended while something else is done to their
 * blocks.  Where the engine may wait for the request, the other call is made by a
 * second thread, and the request is ended after a while.  The I-numbers are the
 * design's invariants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <unistd.h>
/* cmocka wants them first */
#include <cmocka.h>

#include "story.h"

static struct cli cli = { .test = "test_inflight" };

#define B VD_BLOCK

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

	alarm(300);
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
		story_ok(w, "wait", vd_io_wait(io));
	story_ok(w, "write_begin", r);
	if (io->kind != kind || io->bytes != len)
		world_fail(w, "a write run of kind %d, %u bytes", io->kind, io->bytes);
}

static void end_write(struct world *w, struct vd_io *io, uint64_t off, uint64_t len, uint64_t value)
{
	uint8_t *buf = malloc(len);
	uint64_t i;

	for (i = 0; i < len; i += SECTOR)
		stamp(buf + i, (off + i) / SECTOR, value);
	story_ok(w, "write_end", vd_write_end(io, io_run_write(w->sim, io, 0, off, buf)));
	free(buf);
}

/* ---- requests in flight ----------------------------------------------- */

static void a_second_write_to_a_block_in_transition_waits(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
	struct vd_volume *vol = world_handle(w, id);
	struct vd_io one, two;
	uint64_t v = story_tell(w, REF_WRITE, id, 0, B);

	(void)state;
	begin_write(w, vol, 0, B, &one, VD_RUN_NEW);
	assert_int_equal(vd_write_begin(vol, 512, 512, &two), -EWOULDBLOCK);
	assert_int_equal(story_value(w, id, 0), 0); /* not there before it has ended */
	end_write(w, &one, 0, B, v);
	ref_done(w->ref);
	story_put(w, id, 512, 512);
	assert_int_equal(story_value(w, id, 0), v);
	story_end(w);
}

static void a_failed_write_leaves_what_was_there(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
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
	assert_int_equal(story_value(w, id, 0), 0);
	assert_true(world_used(w) <= used + 64);
	story_put(w, id, 0, B);
	story_end(w);
}

/* Discard against a write in flight, to a hole and in place (I13). */
static void unmap_against_write(enum vd_run_kind kind)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64), other = story_create(w, "other", 4096);
	struct job j = { .fn = job_unmap, .w = w, .off = 0, .len = 8 * B };
	struct vd_io io;
	uint64_t v, i, got;
	bool early;

	if (kind == VD_RUN_DATA)
		story_put(w, id, 0, 8 * B);
	story_flush(w);
	v = story_tell(w, REF_WRITE, id, 2 * B, B);
	j.vol = world_handle(w, id);
	begin_write(w, j.vol, 2 * B, B, &io, kind);
	early = job_start(&j);
	if (early) { /* it did not wait: what it freed must not be used again yet (D6) */
		story_ok(w, "unmap", j.r);
		story_flush(w);
		story_checkpoint(w);
	}
	end_write(w, &io, 2 * B, B, v);
	story_ok(w, "unmap", job_end(&j));
	got = story_value(w, id, 16);
	if (got && got != v)
		world_fail(w, "after unmap and write: %llu", (unsigned long long)got);
	if (early && kind == VD_RUN_DATA && got)
		world_fail(w, "unmapped, and an older write is back");
	ref_done(w->ref); /* the write … */
	story_tell(w, REF_UNMAP, id, 0, 8 * B);
	if (got) { /* … which was ordered after the unmap */
		ref_done(w->ref);
		story_tell(w, REF_WRITE, id, 2 * B, B);
		w->ref->op.value = v;
	}
	ref_done(w->ref);
	world_verify(w, REF_LIVE);
	for (i = 0; i < 3000; i += 8) /* whatever is free is written to */
		if (story_put(w, other, i * B, 8 * B))
			break;
		else if (world_used(w) > 3500)
			break;
	world_verify(w, REF_LIVE);
	story_flush(w);
	story_crash_and_verify(w, SIM_POWER_CUT);
	story_end(w);
}

static void unmap_against_a_first_write(void **state) { (void)state; unmap_against_write(VD_RUN_NEW); }
static void unmap_against_a_write_in_place(void **state) { (void)state; unmap_against_write(VD_RUN_DATA); }

/* While it waits for one write no other begins in its range, or it might wait for ever. */
static void an_unmap_that_waits_is_next(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
	struct job j = { .fn = job_unmap, .w = w, .off = 0, .len = 8 * B };
	struct vd_io one, two;
	uint64_t v = story_tell(w, REF_WRITE, id, 2 * B, B);
	unsigned i;

	(void)state;
	j.vol = world_handle(w, id);
	begin_write(w, j.vol, 2 * B, B, &one, VD_RUN_NEW);
	assert_false(job_start(&j));
	for (i = 0; i < 10000 && !vd_write_begin(j.vol, 4 * B, B, &two); i++) { /* it may not have come there yet */
		assert_int_equal(vd_write_end(&two, -EIO), -EIO);
		usleep(1000);
	}
	assert_in_range(i, 0, 9999);
	begin_write(w, j.vol, 8 * B, B, &two, VD_RUN_NEW); /* beside it */
	assert_int_equal(vd_write_end(&two, -EIO), -EIO);
	end_write(w, &one, 2 * B, B, v);
	story_ok(w, "unmap", job_end(&j));
	ref_done(w->ref);
	story_tell(w, REF_UNMAP, id, 0, 8 * B);
	ref_done(w->ref);
	world_verify(w, REF_LIVE);
	story_end(w);
}

/* The write ends before or after the shrink, and in no case does it show when the volume grows again. */
static void shrink_against_write(enum vd_run_kind kind)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
	struct job j = { .fn = job_resize, .w = w, .id = id, .len = 16 * B };
	struct ref_op op = { .kind = REF_RESIZE, .id = id, .size = 16 * B };
	struct vd_volume *vol = world_handle(w, id);
	struct vd_io io;
	uint64_t v;

	story_put(w, id, 0, 8 * B);
	if (kind == VD_RUN_DATA)
		story_put(w, id, 32 * B, 8 * B);
	story_flush(w);
	v = story_tell(w, REF_WRITE, id, 33 * B, B);
	begin_write(w, vol, 33 * B, B, &io, kind);
	job_start(&j);
	end_write(w, &io, 33 * B, B, v);
	story_ok(w, "resize", job_end(&j));
	ref_done(w->ref);
	ref_begin(w->ref, &op);
	ref_done(w->ref);
	world_verify(w, REF_LIVE);
	assert_int_equal(vd_write_begin(vol, 33 * B, B, &io), -ERANGE);
	op.size = 64 * B;
	ref_begin(w->ref, &op);
	story_ok(w, "resize", vd_volume_resize(w->pool, id, 64 * B));
	ref_done(w->ref);
	assert_int_equal(story_value(w, id, 33 * 8), 0);
	story_crash_and_verify(w, SIM_POWER_CUT);
	story_end(w);
}

static void shrink_against_a_first_write(void **state) { (void)state; shrink_against_write(VD_RUN_NEW); }
static void shrink_against_a_write_in_place(void **state) { (void)state; shrink_against_write(VD_RUN_DATA); }

/* I1: what is in flight when the snapshot is taken is in it or not, and stays so. */
static void snapshot_against_write(enum vd_run_kind kind)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64);
	struct job j = { .fn = job_snapshot, .w = w, .id = id };
	struct vd_volume *vol = world_handle(w, id), *s;
	uint8_t was[B], is[B];
	struct vd_io io;
	uint64_t v, got;
	bool early;

	if (kind == VD_RUN_DATA)
		story_put(w, id, 0, 8 * B);
	v = story_tell(w, REF_WRITE, id, 2 * B, B);
	begin_write(w, vol, 2 * B, B, &io, kind);
	early = job_start(&j);
	if (early) {
		story_ok(w, "snapshot", j.r);
		story_ok(w, "open", vd_volume_open(w->pool, j.other, &s));
		story_ok(w, "read", io_read(w->sim, s, 0, 2 * B, was, B, NULL));
		vd_volume_close(s);
	}
	end_write(w, &io, 2 * B, B, v);
	story_ok(w, "snapshot", job_end(&j));
	ref_done(w->ref);
	story_ok(w, "open", vd_volume_open(w->pool, j.other, &s));
	story_ok(w, "read", io_read(w->sim, s, 0, 2 * B, is, B, NULL));
	if (early && memcmp(was, is, B))
		world_fail(w, "a write that was in flight came into the snapshot after it was taken");
	got = stamp_read(is, 16);
	if (got != v && (kind == VD_RUN_NEW ? got != 0 : got + 1 != v))
		world_fail(w, "the snapshot has %llu, of a write that was in flight", (unsigned long long)got);
	story_put(w, id, 2 * B, B);
	story_flush(w);
	story_ok(w, "read", io_read(w->sim, s, 0, 2 * B, was, B, NULL));
	assert_memory_equal(was, is, B);
	vd_volume_close(s);
	story_ok(w, "delete", vd_volume_delete(w->pool, j.other));
	story_work(w);
	story_end(w);
}

static void snapshot_against_a_first_write(void **state) { (void)state; snapshot_against_write(VD_RUN_NEW); }
static void snapshot_against_a_write_in_place(void **state) { (void)state; snapshot_against_write(VD_RUN_DATA); }

/* Rollback to a snapshot that is itself being written to in place. */
static void rollback_against_a_write_to_its_source(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64), sid;
	struct job j = { .fn = job_rollback, .w = w, .id = id };
	struct vd_volume *s;
	struct vd_io io;
	uint64_t v, old, got;

	(void)state;
	story_put(w, id, 0, 8 * B);
	story_snap(w, &sid, &id, 1);
	story_put(w, sid, 0, 8 * B);
	old = story_value(w, sid, 16);
	world_close_volumes(w);
	s = world_handle(w, sid);
	j.other = sid;
	v = w->ref->next_value++;
	begin_write(w, s, 2 * B, B, &io, VD_RUN_DATA);
	job_start(&j);
	end_write(w, &io, 2 * B, B, v);
	story_ok(w, "rollback", job_end(&j));
	got = story_value(w, id, 16);
	if (got != old && got != v)
		world_fail(w, "rolled back to %llu", (unsigned long long)got);
	story_ok(w, "write", io_stamp(w->sim, s, 0, 2 * B, B, v + 1, NULL));
	assert_int_equal(story_value(w, id, 16), got); /* no longer the same block */
	assert_int_equal(story_value(w, sid, 16), v + 1);
	w->ref->next_value += 2;
	world_check(w);
	world_close(w);
	world_free(w);
}

static void what_is_open_is_neither_deleted_nor_rolled_back(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64), sid;
	struct vd_volume *vol;
	struct vd_io io;

	(void)state;
	story_put(w, id, 0, 8 * B);
	story_snap(w, &sid, &id, 1);
	vol = world_handle(w, id);
	begin_write(w, vol, 0, B, &io, VD_RUN_NEW);
	assert_int_equal(vd_volume_delete(w->pool, id), -EBUSY);
	assert_int_equal(vd_rollback(w->pool, id, sid), -EBUSY);
	assert_int_equal(vd_pool_close(w->pool), -EBUSY);
	assert_int_equal(vd_write_end(&io, -EIO), -EIO);
	story_end(w);
}

/* I3, its second half */
static void a_volume_whose_snapshots_are_gone_is_written_in_place(void **state)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 64), sid, other;

	(void)state;
	story_put(w, id, 0, 8 * B);
	story_snap(w, &sid, &id, 1);
	story_snap(w, &other, &id, 1);
	story_delete(w, sid);
	world_handle(w, id);
	story_work(w);
	for (uint64_t b = 0; b < 3; b++) {
		struct vd_volume *vol = world_handle(w, id);
		struct vd_io io;
		uint64_t v = story_tell(w, REF_WRITE, id, b * B, B);

		/* b 0: the other snapshot is there; 1: it is gone; 2: after a crash */
		begin_write(w, vol, b * B, B, &io, b ? VD_RUN_DATA : VD_RUN_NEW);
		end_write(w, &io, b * B, B, v);
		ref_done(w->ref);
		if (!b)
			story_delete(w, other);
		world_handle(w, id);
		story_work(w);
		if (b == 1) {
			story_flush(w);
			story_crash_and_verify(w, SIM_POWER_CUT);
			world_handle(w, id);
			story_work(w);
		}
	}
	story_end(w);
}

/* D6: a block that is being read is not given to another, though it was freed
 * since, durably, and everything that is free is wanted.  `folded`: a checkpoint
 * had put its mapping into a tree.  `drain`: a drain of requests is under way
 * that began before the read, and ends while the read goes on. */
static void reuse_under_a_read(bool folded, bool drain)
{
	struct world *w = story_begin(&cli, 1);
	uint32_t id = story_create(w, "v", 128), other = story_create(w, "other", 1 << 16);
	struct job j = { .fn = job_work, .w = w };
	struct vd_volume *vol = world_handle(w, id), *o = world_handle(w, other);
	uint8_t buf[B], want[B];
	struct vd_io before, rd, io;
	bool seen = false;
	uint64_t i;
	int r;

	story_put(w, id, 0, 128 * B); /* a run worth taking again */
	if (folded)
		story_checkpoint(w);
	if (drain) {
		story_ok(w, "read_begin", vd_read_begin(vol, 100 * B, B, &before));
		story_unmap(w, id, 90 * B, B);
		story_flush(w);
		story_checkpoint(w);
		if (vd_pool_work(w->pool) < 0) /* begins it */
			world_fail(w, "work failed");
	}
	story_ok(w, "read_begin", vd_read_begin(vol, 0, B, &rd));
	assert_int_equal(rd.kind, VD_RUN_DATA);
	io_run_read(w->sim, &rd, 0, 0, want);
	story_unmap(w, id, 0, 64 * B);
	story_flush(w);
	if (folded)
		story_checkpoint(w);
	if (drain)
		vd_read_end(&before);
	job_start(&j);
	memset(buf, 0x11, sizeof(buf));
	for (i = 0; i < 3500; i++) {
		r = vd_write_begin(o, i * B, B, &io);
		if (r == -EWOULDBLOCK || r == -ENOSPC)
			break; /* waiting for space would wait for the read */
		story_ok(w, "write_begin", r);
		if (io.pblk <= rd.pblk && rd.pblk < io.pblk + io.nblocks)
			world_fail(w, "a block that is being read was given to a write");
		story_ok(w, "write", vd_write_end(&io, io_run_write(w->sim, &io, 0, i * B, buf)));
	}
	io_run_read(w->sim, &rd, 0, 0, buf);
	assert_memory_equal(buf, want, B);
	vd_read_end(&rd);
	story_ok(w, "work", job_end(&j));
	for (; !seen && i < 60000; i++) { /* and now it may be */
		while ((r = vd_write_begin(o, i * B, B, &io)) == -EWOULDBLOCK)
			if ((r = vd_io_wait(&io)))
				break;
		if (r)
			break;
		seen = io.pblk <= rd.pblk && rd.pblk < io.pblk + io.nblocks;
		story_ok(w, "write", vd_write_end(&io, io_run_write(w->sim, &io, 0, i * B, buf)));
	}
	assert_true(seen || drain); /* or it is one of those that only metadata gets */
	world_check(w);
	world_close(w);
	world_free(w);
}

static void a_block_of_a_tree_is_not_reused_under_a_read(void **state) { (void)state; reuse_under_a_read(true, false); }
static void a_block_of_an_overlay_is_not_reused_under_a_read(void **state) { (void)state; reuse_under_a_read(false, false); }
static void a_drain_begun_before_the_read_does_not_count(void **state)
{
	(void)state;
	reuse_under_a_read(true, true);
	reuse_under_a_read(false, true);
}

#define T(f) cmocka_unit_test(f)
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		T(a_second_write_to_a_block_in_transition_waits),
		T(a_failed_write_leaves_what_was_there),
		T(unmap_against_a_first_write),
		T(unmap_against_a_write_in_place), T(an_unmap_that_waits_is_next),
		T(shrink_against_a_first_write),
		T(shrink_against_a_write_in_place),
		T(snapshot_against_a_first_write),
		T(snapshot_against_a_write_in_place),
		T(rollback_against_a_write_to_its_source),
		T(what_is_open_is_neither_deleted_nor_rolled_back),
		T(a_block_of_a_tree_is_not_reused_under_a_read),
		T(a_block_of_an_overlay_is_not_reused_under_a_read),
		T(a_drain_begun_before_the_read_does_not_count),
		T(a_volume_whose_snapshots_are_gone_is_written_in_place),
	};

	cli_start(&cli, argc, argv);
	signal(SIGALRM, story_too_long);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
