/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * Opening the journal: the chain of blocks, the surviving tail, and the beginning
 * of a new incarnation.  journal.c has the invariants (J1 and so on).
 *
 * A block continues the chain when its checksum, pool, running number, incarnation
 * and the checksum of its predecessor are as expected; what does not ends it.  A
 * block that passes and is still impossible was written so: -EUCLEAN.
 *
 *   chain end ---- commits complete and applied ---- [ torn commit ]
 *                                                  ^ head
 */
#include "journal_priv.h"

#define CHUNK 64u /* blocks read at once */

/* ---- the chain --------------------------------------------------------- */

/* Replay goes over the ring up to three times: MEASURE finds the end (twice when
 * the copies hold different chains), APPLY hands out the records, LEVEL makes the
 * copies equal. */
enum pass { MEASURE, APPLY, LEVEL };

struct reader {
	uint8_t *chunk[VD_JOURNAL_COPIES];
	uint64_t bad[VD_JOURNAL_COPIES]; /* blocks of the chunk that could not be read */
	uint64_t from;                   /* number of the chunk's first block */
	unsigned count;
	unsigned pref;                   /* copy to believe where both are valid and differ */
	bool differ;                     /* they did */
	bool unequal;                    /* a block of the chain is not the same in all copies */
	/* the chain so far */
	uint64_t number, seq;
	uint32_t crc;
	/* the commit under way: blocks in j->buf */
	unsigned nblocks;
	uint64_t first_seq, last_seq;
	/* the end of the last complete one */
	uint64_t end, end_seq;
	vd_replay_fn fn;
};
_Static_assert(CHUNK == 64, "reader.bad has a bit for each block");

static bool rec_ok(const struct vd_disk_rec *rec, unsigned len)
{
	struct vd_disk_rec_snap snap;
	unsigned type = le16_to_cpu(rec->type);
	unsigned n;

	switch (type) {
	case VD_REC_MAP:
		return len == sizeof(struct vd_disk_rec_map);
	case VD_REC_UNMAP:
		return len == sizeof(struct vd_disk_rec_unmap);
	case VD_REC_VOLUME:
	case VD_REC_DELETE:
		return true;
	case VD_REC_SNAP:
	case VD_REC_VALID:
	case VD_REC_ROLLBACK:
		if (len < sizeof(snap))
			return false;
		memcpy(&snap, rec, sizeof(snap));
		n = le32_to_cpu(snap.n);
		if (n < 1 || n > VD_REC_MAX / 8 || (type == VD_REC_ROLLBACK && n != 1))
			return false;
		return len >= sizeof(snap) + n * 8;
	default:
		return false;
	}
}

static void read_chunk(struct vd_pool *pool, struct reader *rd, uint64_t n)
{
	struct vd_journal *j = pool->journal;
	uint64_t at = vd_journal_place(j, n);
	unsigned i, b;

	rd->from = n;
	rd->count = CHUNK;
	if (rd->count > j->blocks - at)
		rd->count = (unsigned)(j->blocks - at);
	for (i = 0; i < j->ncopies; i++) {
		rd->bad[i] = 0;
		if (!pool->host.read(pool->host.ctx, j->copy[i], j->start + at, rd->chunk[i], rd->count))
			continue;
		for (b = 0; b < rd->count; b++)
			if (pool->host.read(pool->host.ctx, j->copy[i], j->start + at + b, rd->chunk[i] + (size_t)b * VD_BLOCK, 1))
				rd->bad[i] |= 1ull << b;
	}
}

static const struct vd_disk_journal *chunk_block(const struct reader *rd, unsigned copy)
{
	return (const struct vd_disk_journal *)(rd->chunk[copy] + (size_t)(rd->number - rd->from) * VD_BLOCK);
}

static bool chunk_bad(const struct reader *rd, unsigned copy)
{
	return rd->bad[copy] >> (rd->number - rd->from) & 1;
}

static uint64_t incarnation_of(const struct vd_journal *j, uint64_t number)
{
	unsigned i = j->nsegments - 1;

	while (i > 0 && j->segment[i].number > number)
		i--;
	return j->segment[i].inc;
}

static bool block_continues(const struct vd_pool *pool, const struct reader *rd, const struct vd_disk_journal *b)
{
	return le32_to_cpu(b->magic) == VD_JOURNAL_MAGIC && le64_to_cpu(b->pool) == pool->id &&
	       le64_to_cpu(b->block) == rd->number && le32_to_cpu(b->prev_crc) == rd->crc &&
	       le64_to_cpu(b->incarnation) == incarnation_of(pool->journal, rd->number) &&
	       le16_to_cpu(b->len) <= VD_JOURNAL_PAYLOAD && le32_to_cpu(b->crc) == vd_journal_block_crc(b);
}

/* The block that continues the chain, or NULL: it ends here.  Only when no copy
 * could be read is the end not known. */
static int chain_next(struct vd_pool *pool, struct reader *rd, const struct vd_disk_journal **out)
{
	struct vd_journal *j = pool->journal;
	const struct vd_disk_journal *b, *pick = NULL;
	unsigned i, c, nbad = 0;

	if (!rd->count || rd->number - rd->from >= rd->count)
		read_chunk(pool, rd, rd->number);
	for (i = 0; i < j->ncopies; i++) {
		c = i ^ rd->pref;
		if (chunk_bad(rd, c)) {
			nbad++;
			continue;
		}
		b = chunk_block(rd, c);
		if (!block_continues(pool, rd, b))
			continue;
		if (!pick)
			pick = b;
		else if (memcmp(pick, b, VD_BLOCK))
			rd->differ = true;
	}
	if (!pick && nbad == j->ncopies) {
		vd_log(pool, VD_LOG_ERROR, "journal block %a cannot be read from any copy", rd->number, 0);
		return -EIO;
	}
	for (i = 0; pick && i < j->ncopies; i++)
		if (chunk_bad(rd, i) || memcmp(pick, chunk_block(rd, i), VD_BLOCK))
			rd->unequal = true;
	*out = pick;
	return 0;
}

struct cursor {
	unsigned block, off;
};

static bool cursor_end(const struct vd_journal *j, const struct reader *rd, struct cursor *c)
{
	while (c->block < rd->nblocks && c->off == le16_to_cpu(vd_journal_buf_block(j, c->block)->len)) {
		c->block++;
		c->off = 0;
	}
	return c->block == rd->nblocks;
}

static bool cursor_take(const struct vd_journal *j, const struct reader *rd, struct cursor *c, uint8_t *dst, unsigned len)
{
	unsigned n;

	while (len) {
		if (cursor_end(j, rd, c))
			return false;
		n = vd_min(len, le16_to_cpu(vd_journal_buf_block(j, c->block)->len) - c->off);
		memcpy(dst, vd_journal_buf_block(j, c->block)->payload + c->off, n);
		c->off += n;
		dst += n;
		len -= n;
	}
	return true;
}

/* The records of the commit in j->buf: all are looked at before any is handed out. */
static int commit_records(struct vd_pool *pool, const struct reader *rd, vd_replay_fn fn)
{
	struct vd_journal *j = pool->journal;
	struct vd_disk_rec *rec = (struct vd_disk_rec *)j->rec;
	uint64_t seq = rd->first_seq, skip = le64_to_cpu(pool->super->seq);
	struct cursor c = { 0, 0 };
	unsigned len;
	int r;

	while (!cursor_end(j, rd, &c)) {
		if (seq > rd->last_seq || !cursor_take(j, rd, &c, j->rec, sizeof(*rec)))
			return -EUCLEAN;
		len = le16_to_cpu(rec->len);
		if (!vd_journal_rec_len_ok(len) || !cursor_take(j, rd, &c, j->rec + sizeof(*rec), len - (unsigned)sizeof(*rec)) ||
		    !rec_ok(rec, len))
			return -EUCLEAN;
		if (fn && seq > skip) {
			r = fn(pool, seq, rec);
			if (r)
				return r;
		}
		seq++;
	}
	return seq == rd->last_seq + 1 ? 0 : -EUCLEAN;
}

/* Adds a block whose checksum and place in the chain are right: whatever else is
 * wrong with it was written so. */
static int commit_add(struct vd_pool *pool, struct reader *rd, const struct vd_disk_journal *b)
{
	struct vd_journal *j = pool->journal;
	uint64_t first_seq = le64_to_cpu(b->first_seq), last_seq = le64_to_cpu(b->last_seq);
	uint64_t reached = vd_max(rd->seq, le64_to_cpu(pool->super->seq));
	bool begins = le16_to_cpu(b->flags) & VD_JOURNAL_BEGIN;

	if (begins != !rd->nblocks || rd->nblocks == j->buf_blocks)
		return -EUCLEAN;
	if (begins) {
		/* Sequences go on without a gap, but that what the trees hold
		 * already need not be in the chain. */
		if (first_seq <= rd->seq || first_seq > reached + 1 || last_seq < first_seq || last_seq >= VD_SEQ_END ||
		    last_seq - first_seq >= j->ring_bytes / sizeof(struct vd_disk_rec))
			return -EUCLEAN;
		rd->first_seq = first_seq;
		rd->last_seq = last_seq;
	} else if (first_seq != rd->first_seq || last_seq != rd->last_seq) {
		return -EUCLEAN;
	}
	memcpy(vd_journal_buf_block(j, rd->nblocks++), b, VD_BLOCK);
	return 0;
}

static int level_block(struct vd_pool *pool, struct reader *rd, const struct vd_disk_journal *b)
{
	struct vd_journal *j = pool->journal;
	unsigned i;
	int r;

	for (i = 0; i < j->ncopies; i++) {
		if (!chunk_bad(rd, i) && !memcmp(b, chunk_block(rd, i), VD_BLOCK))
			continue;
		r = vd_journal_write_blocks(pool, j->copy[i], rd->number, (const uint8_t *)b, 1);
		if (r)
			return r;
	}
	return 0;
}

static int walk(struct vd_pool *pool, struct reader *rd, enum pass pass, uint64_t until)
{
	struct vd_journal *j = pool->journal;
	const struct vd_disk_journal *b;
	int r;

	rd->count = rd->nblocks = 0;
	rd->number = rd->end = j->tail;
	rd->crc = j->tail_crc;
	rd->seq = rd->end_seq = 0;
	while (rd->number < until) {
		r = chain_next(pool, rd, &b);
		if (r)
			return r;
		if (!b)
			break;
		r = commit_add(pool, rd, b);
		if (!r && pass == LEVEL)
			r = level_block(pool, rd, b);
		if (r)
			return r;
		rd->crc = le32_to_cpu(b->crc);
		rd->number++;
		if (!(le16_to_cpu(b->flags) & VD_JOURNAL_END))
			continue;
		r = commit_records(pool, rd, NULL);
		if (!r && pass == APPLY)
			r = commit_records(pool, rd, rd->fn);
		if (r)
			return r;
		rd->seq = rd->end_seq = rd->last_seq;
		rd->end = rd->number;
		rd->nblocks = 0;
		if (pass == APPLY) {
			j->place = vd_journal_place(j, rd->end);
			j->head = rd->end;
			j->head_crc = rd->crc;
			vd_journal_bound_add(j, rd->end_seq);
		}
	}
	return 0;
}

static void reader_close(struct vd_pool *pool, struct reader *rd)
{
	vd_free(pool, rd->chunk[0]);
	vd_free(pool, rd->chunk[1]);
}

static int reader_open(struct vd_pool *pool, struct reader *rd)
{
	unsigned i;

	memset(rd, 0, sizeof(*rd));
	for (i = 0; i < pool->journal->ncopies; i++) {
		rd->chunk[i] = vd_alloc(pool, (size_t)CHUNK * VD_BLOCK);
		if (!rd->chunk[i]) {
			reader_close(pool, rd);
			return -ENOMEM;
		}
	}
	return 0;
}

static int replay_chain(struct vd_pool *pool, struct reader *rd)
{
	struct vd_journal *j = pool->journal;
	uint64_t end;
	int r;

	r = walk(pool, rd, MEASURE, j->tail + j->blocks);
	if (r)
		return r;
	if (rd->differ) {
		end = rd->end;
		rd->pref = 1;
		r = walk(pool, rd, MEASURE, j->tail + j->blocks);
		if (r)
			return r;
		if (rd->end <= end) {
			rd->pref = 0;
			rd->end = end;
		}
		rd->unequal = true;
	}
	j->pref = rd->pref;
	j->level = !rd->unequal;
	return walk(pool, rd, APPLY, rd->end);
}

/* ---- the surviving tail --------------------------------------- */

static uint32_t tail_head_crc(const struct tail_head *th)
{
	return vd_port_crc32c(~0u, &th->bytes, offsetof(struct tail_head, first) - offsetof(struct tail_head, bytes));
}

static bool tail_is_ours(const struct vd_pool *pool)
{
	const struct vd_journal *j = pool->journal;
	const struct tail_head *th = j->th;

	return th && !j->th_is_plain && j->nsegments && !memcmp(th->magic, TAIL_MAGIC, sizeof(th->magic)) &&
	       th->bytes == j->ring_bytes && th->pool == pool->id &&
	       th->incarnation == j->segment[j->nsegments - 1].inc && th->crc == tail_head_crc(th);
}

static int replay_tail(struct vd_pool *pool, vd_replay_fn fn)
{
	struct vd_journal *j = pool->journal;
	uint64_t pos, end, last = vd_journal_last(pool), prev = 0;
	struct vd_disk_rec *rec = (struct vd_disk_rec *)j->rec;
	struct tail_rec h;
	int r;

	if (!tail_is_ours(pool))
		return 0;
	j->seed = j->th->crc;
	pos = (uint64_t)vd_atomic_read(&j->th->first);
	end = (uint64_t)vd_atomic_read(&j->th->end);
	j->first = j->end = pos;
	if (end - pos > j->ring_bytes)
		end = pos;
	while (vd_journal_tail_take(j, pos, end, &h)) {
		if (!h.seq || h.seq > last + 1 || (prev && h.seq != prev + 1) || !rec_ok(rec, h.len))
			break;
		prev = h.seq;
		if (h.seq == last + 1) {
			if (h.seq >= VD_SEQ_END)
				return -EUCLEAN;
			if (j->first == j->end)
				j->first = pos;
			r = fn(pool, h.seq, rec);
			if (r)
				return r;
			last++;
			j->end = pos + vd_journal_rec_bytes(h.len);
			vd_atomic_set(&j->last, (int64_t)last);
		}
		pos += vd_journal_rec_bytes(h.len);
	}
	if (pos != end)
		vd_log(pool, VD_LOG_WARN, "redo tail: records after %a are damaged and were dropped", last, 0);
	return 0;
}

int vd_journal_replay(struct vd_pool *pool, vd_replay_fn fn)
{
	struct vd_journal *j = pool->journal;
	struct reader rd;
	uint64_t last = le64_to_cpu(pool->super->seq);
	int r;

	if (!j->ncopies)
		return -ENODEV;
	if (j->nsegments) {
		r = reader_open(pool, &rd);
		if (r)
			return r;
		rd.fn = fn;
		r = replay_chain(pool, &rd);
		reader_close(pool, &rd);
		if (r)
			return r;
		last = vd_max(last, rd.end_seq);
	}
	vd_atomic_set(&j->last, (int64_t)last);
	vd_atomic_set(&j->durable, (int64_t)last);
	vd_atomic_set(&j->used, (int64_t)(j->head - j->tail));
	return replay_tail(pool, fn);
}

/* ---- is there a later superblock? --------------------------------------- */

int vd_journal_outlived(struct vd_pool *pool, bool *yes)
{
	struct vd_journal *j = pool->journal;
	uint64_t inc = j->nsegments ? j->segment[j->nsegments - 1].inc : 0, n;
	struct reader rd;
	unsigned i;
	int r;

	*yes = false;
	if (!j->nsegments || !j->ncopies) /* never written: an opening would show in the owner records */
		return 0;
	r = reader_open(pool, &rd);
	if (r)
		return r;
	for (n = j->tail; n < j->tail + j->blocks; n += rd.count) {
		read_chunk(pool, &rd, n);
		for (rd.number = n; rd.number < n + rd.count; rd.number++)
			for (i = 0; i < j->ncopies; i++) {
				const struct vd_disk_journal *b = chunk_block(&rd, i);

				if (!chunk_bad(&rd, i) && le32_to_cpu(b->magic) == VD_JOURNAL_MAGIC && le64_to_cpu(b->pool) == pool->id &&
				    (le64_to_cpu(b->incarnation) > inc || le64_to_cpu(b->block) >= j->tail + j->blocks) &&
				    le32_to_cpu(b->crc) == vd_journal_block_crc(b))
					*yes = true;
			}
	}
	reader_close(pool, &rd);
	return 0;
}

/* ---- a new incarnation -------------------------------------------------- */

/* An empty ring of incarnation `inc`.  A kill in the middle leaves an empty ring
 * or a head that is not believed: nothing in it is needed (J4). */
static void tail_begin(struct vd_pool *pool, uint64_t inc)
{
	struct vd_journal *j = pool->journal;
	struct tail_head *th = j->th;

	vd_atomic_set(&th->first, 0);
	vd_atomic_set(&th->end, 0);
	memcpy(th->magic, TAIL_MAGIC, sizeof(th->magic));
	th->bytes = j->ring_bytes;
	th->pool = pool->id;
	th->incarnation = inc;
	th->crc = tail_head_crc(th);
	j->seed = th->crc;
	j->first = j->end = 0;
}

static int level_copies(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;
	struct reader rd;
	int r;

	r = reader_open(pool, &rd);
	if (r)
		return r;
	rd.pref = j->pref;
	r = walk(pool, &rd, LEVEL, j->head);
	if (!r && rd.end != j->head)
		r = -EUCLEAN; /* it was there a moment ago */
	reader_close(pool, &rd);
	return r;
}

/* What the last owner's process left behind becomes durable, in its own
 * incarnation: whoever opens next, with our superblock or without, finds it. */
static int settle(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;
	struct commit c;
	unsigned m;
	int r;

	if (!j->level) {
		r = level_copies(pool);
		if (r)
			return r;
		j->level = true;
	}
	for (m = 0; m < pool->nmembers; m++) {
		if (pool->member[m].missing)
			continue;
		r = vd_journal_flush_member(pool, m);
		if (r)
			return r;
	}
	memset(&c, 0, sizeof(c));
	c.first = j->first;
	c.end = j->end;
	c.first_seq = vd_journal_durable(pool) + 1;
	c.last_seq = vd_journal_last(pool);
	if (c.first == c.end)
		return 0;
	r = vd_journal_commit_write(pool, &c);
	if (r)
		return r;
	vd_mutex_lock(&j->lock);
	vd_journal_commit_done(j, &c);
	vd_mutex_unlock(&j->lock);
	return 0;
}

int vd_journal_begin(struct vd_pool *pool, uint64_t inc)
{
	struct vd_journal *j = pool->journal;
	int r = 0;

	if ((pool->flags & VD_OPEN_READONLY) || !j->ncopies)
		return -EROFS;
	if (!inc || j->began || (j->nsegments && inc <= j->segment[j->nsegments - 1].inc))
		return -EINVAL;
	r = settle(pool);
	if (r) {
		vd_log(pool, VD_LOG_ERROR, "journal block %a: cannot begin, error %b", j->head, (uint64_t)-r);
		if (r != -ENOMEM) {
			j->failed = true;
			vd_pool_set_mode(pool, VD_MODE_FAILED);
		}
		return r;
	}

	vd_mutex_lock(&j->lock);
	j->nsegments = vd_journal_segments_drop(j->segment, j->nsegments, j->tail);
	if (j->nsegments && j->segment[j->nsegments - 1].number == j->head)
		j->nsegments--; /* it never came to a commit */
	if (j->nsegments == VD_SEGMENTS_MAX) {
		r = -ENOSPC;
	} else {
		j->segment[j->nsegments++] = (struct segment){ .inc = inc, .number = j->head };
		j->nsegments = vd_journal_segments_drop(j->segment, j->nsegments, j->tail);
		vd_journal_segments_store(pool->super, j->segment, j->nsegments);
		j->inc = inc;
		tail_begin(pool, inc);
		j->began = true;
	}
	vd_mutex_unlock(&j->lock);
	return r;
}
