/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * The journal.  journal.h has the contract, format.h the blocks.
 *
 * A record's way:
 *
 *   reserved   counted in `claimed` and `claimed_bytes`; may be given back
 *   appended   in the tail, has a sequence; survives the process, not the machine
 *   written    in journal blocks, on some copy; replay may find it, nobody was told
 *   durable    on every copy, flushed; seq <= durable
 *   retired    in a durable checkpoint's trees; its block is behind the tail
 *
 * The ring's block numbers grow for ever; number n is at place n mod blocks.
 *
 *     tail .......... head .......... tail + blocks
 *     <--- used ---> <--- free and claimed --->
 *
 * Invariants
 *   J1  used + blocks for all claimed records in one commit + ROOM_CKPT <= blocks, so
 *     a checkpoint's commit never lacks room.  reserve() keeps ROOM_RESERVE away
 *     from that, an ordinary commit ROOM_COMMIT, after it has taken its blocks.
 *   J2  [tail, head) is never written, but for making a bad copy equal to a good
 *       one before the first append (I8).
 *   J3  A block number is written once in an incarnation, except that the blocks
 *       of a commit that has no valid end may be written again by begin(), with
 *       the surviving tail: then either the same bytes, or another last_seq, which
 *       breaks the chain to what was left of the old commit.
 *   J4  Tail memory holds every record in (durable, last] between `first` and
 *       `end`, whole, at any instruction: `end` is stored after the record, space
 *       is claimed again only after `first` has moved past it, and the head names
 *       a new incarnation only when nothing in the ring is needed any more.
 *   J5  A dirty mark is set after the data was written and before the record is
 *       appended; a round clears marks after it has sealed S.  So the marks found
 *       then cover the data of all records <= S, and of all callers that came
 *       before the round began.
 *   J6  Nobody is answered 0 who came after the round that answers him had begun,
 *       unless no round runs, nothing is dirty, and his records are durable.
 */
#include "journal_priv.h"

enum { ROOM_CKPT = 1, ROOM_COMMIT = 3, ROOM_RESERVE = 6 };
#define HOLD_MAX 320u /* a snapshot of 256 volumes at once, and some */

static uint64_t mod64(uint64_t a, uint64_t b) /* b < 2^63, not 0 */
{
	uint64_t r = 0;
	int i;

	for (i = 63; i >= 0; i--) {
		r = r << 1 | (a >> i & 1);
		if (r >= b)
			r -= b;
	}
	return r;
}

/* ---- tail memory ------------------------------------------------------- */

/* By words, none of which is in two parts: records are short, and this is done for each write
 * that allocates, where a call of memcpy() costs more. */
static inline void ring_put(uint8_t *ring, unsigned mask, uint64_t pos, const void *src, unsigned len)
{
	for (unsigned i = 0; i < len; i += 8)
		memcpy(ring + ((pos + i) & mask), (const uint8_t *)src + i, 8);
}

static void ring_get(const struct vd_journal *j, uint64_t pos, void *dst, unsigned len)
{
	unsigned at = (unsigned)pos & (j->ring_bytes - 1);
	unsigned n = vd_min(len, j->ring_bytes - at);

	memcpy(dst, j->ring + at, n);
	memcpy((uint8_t *)dst + n, j->ring, len - n);
}

/* A tail that is not handed on to a next opening has nobody to tell sound from torn. */
static uint32_t tail_rec_crc(const struct vd_journal *j, const void *rec, unsigned len)
{
	return j->th_is_plain ? 0 : vd_port_crc32c(j->seed, rec, len);
}

static vd_noinline uint32_t seq_crc(uint32_t crc, uint64_t seq)
{
	return vd_port_crc32c(crc, &seq, sizeof(seq));
}

static uint32_t tail_seq_crc(const struct vd_journal *j, uint32_t crc, uint64_t seq)
{
	return j->th_is_plain ? 0 : seq_crc(crc, seq);
}

/* The record at `pos` into j->rec, if there is a sound one before `end`. */
bool vd_journal_tail_take(struct vd_journal *j, uint64_t pos, uint64_t end, struct tail_rec *h)
{
	struct vd_disk_rec r;

	if (end - pos < sizeof(*h))
		return false;
	ring_get(j, pos, h, sizeof(*h));
	if (!vd_journal_rec_len_ok(h->len) || end - pos < vd_journal_rec_bytes(h->len))
		return false;
	ring_get(j, pos + sizeof(*h), j->rec, h->len);
	if (h->crc != tail_seq_crc(j, tail_rec_crc(j, j->rec, h->len), h->seq))
		return false;
	memcpy(&r, j->rec, sizeof(r));
	return le16_to_cpu(r.len) == h->len;
}

/* ---- reserve and append ------------------------------------------------ */

static void unclaim(struct vd_journal *j, unsigned len)
{
	vd_atomic_add(&j->claimed_bytes, -(int64_t)vd_journal_rec_bytes(len));
	vd_atomic_add(&j->claimed, -(int64_t)len);
}

static int64_t blocks_for(int64_t bytes)
{
	return (int64_t)((uint64_t)vd_max(bytes, (int64_t)0) / VD_JOURNAL_PAYLOAD) + 1;
}

/* J1, with `room` blocks to spare. */
static bool fits(const struct vd_journal *j, int64_t claimed, int64_t room)
{
	return vd_atomic_read(&j->used) + blocks_for(claimed) + room <= (int64_t)j->blocks;
}

/* More than half of what checkpointed records leave, or of the tail, is claimed; or that is
 * so little that it may not fit(). */
static bool crowded(const struct vd_journal *j, int64_t claimed, int64_t bytes)
{
	int64_t left = (int64_t)j->blocks - vd_atomic_read(&j->used);

	return bytes > (int64_t)j->ring_bytes / 2 || 2 * blocks_for(claimed) > left || left < 2 * ROOM_RESERVE;
}

int vd_journal_reserve(struct vd_pool *pool, unsigned len)
{
	struct vd_journal *j = pool->journal;
	int64_t claimed, bytes;

	if (vd_unlikely(!vd_journal_rec_len_ok(len)))
		return -EINVAL;
	if (vd_unlikely(!vd_pool_writable(pool)))
		return -EROFS;
	claimed = vd_atomic_add(&j->claimed, len);
	bytes = vd_atomic_add(&j->claimed_bytes, vd_journal_rec_bytes(len));
	if (vd_likely(!crowded(j, claimed, bytes)))
		return 0;
	if (!fits(j, claimed, ROOM_RESERVE) || bytes > (int64_t)j->ring_bytes) {
		unclaim(j, len);
		return -EWOULDBLOCK;
	}
	if (!vd_atomic_read(&j->due)) {
		vd_atomic_set(&j->due, 1);
		vd_pool_kick(pool);
	}
	return 0;
}

void vd_journal_unreserve(struct vd_pool *pool, unsigned len)
{
	unclaim(pool->journal, len);
}

bool vd_journal_due(const struct vd_pool *pool)
{
	return vd_atomic_read(&pool->journal->due) != 0;
}

uint64_t vd_journal_append(struct vd_pool *pool, const struct vd_disk_rec *rec, unsigned len)
{
	struct vd_journal *j = pool->journal;
	uint32_t crc = tail_rec_crc(j, rec, len);
	unsigned mask = j->ring_bytes - 1;
	struct tail_rec h = { .len = len };
	uint8_t *ring = j->ring;

	vd_spin_lock_inner(&j->tail_lock);
	h.seq = (uint64_t)vd_atomic_read(&j->last) + 1;
	h.crc = tail_seq_crc(j, crc, h.seq);
	ring_put(ring, mask, j->end, &h, sizeof(h));
	ring_put(ring, mask, j->end + sizeof(h), rec, len);
	j->end += vd_journal_rec_bytes(len);
	vd_atomic_set(&j->th->end, (int64_t)j->end); /* published (J4) */
	vd_atomic_set(&j->last, (int64_t)h.seq);
	vd_spin_unlock_inner(&j->tail_lock);
	return h.seq;
}

unsigned vd_journal_hold_max(const struct vd_pool *pool)
{
	return (unsigned)vd_min(pool->journal->blocks / 2, (uint64_t)HOLD_MAX);
}

static bool roomy(const struct vd_pool *pool)
{
	const struct vd_journal *j = pool->journal;

	return fits(j, vd_atomic_read(&j->claimed), ROOM_RESERVE + vd_journal_hold_max(pool)) &&
	       vd_atomic_read(&j->claimed_bytes) <= (int64_t)(j->ring_bytes / 4);
}

int vd_journal_make_room(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;
	int r;

	r = vd_journal_commit(pool, ~0ull);
	if (r)
		return r;
	vd_mutex_lock(&j->room_lock);
	/* With little in use it is reservations in flight that fill the ring:
	 * they end on their own, and a checkpoint would not help. */
	if (!roomy(pool) && 4 * vd_journal_used(pool) >= j->blocks)
		r = vd_checkpoint(pool);
	vd_mutex_unlock(&j->room_lock);
	return r;
}

/* ---- dirty members ----------------------------------------------------- */

void vd_journal_wrote(struct vd_pool *pool, unsigned member)
{
	struct vd_journal *j = pool->journal;

	if (member >= VD_MEMBERS_MAX || vd_atomic_read(&j->dirty[member]))
		return;
	vd_atomic_set(&j->dirty[member], 1);
}

/* But for member `but`; VD_MEMBERS_MAX: any at all. */
static bool any_dirty(const struct vd_journal *j, unsigned but)
{
	unsigned m;

	for (m = 0; m < VD_MEMBERS_MAX; m++)
		if (m != but && vd_atomic_read(&j->dirty[m]))
			return true;
	return false;
}

int vd_journal_flush_member(struct vd_pool *pool, unsigned m)
{
	struct vd_journal *j = pool->journal;
	int r;

	vd_atomic_set(&j->dirty[m], 0); /* before the flush: J5 */
	r = pool->host.flush(pool->host.ctx, m);
	if (r)
		vd_atomic_set(&j->dirty[m], 1);
	return r;
}

static int flush_dirty(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;
	unsigned m;
	int r;

	for (m = 0; m < VD_MEMBERS_MAX; m++) {
		if (!vd_atomic_read(&j->dirty[m]))
			continue;
		r = vd_journal_flush_member(pool, m);
		if (r)
			return r;
	}
	return 0;
}

/* ---- commit ------------------------------------------------------------ */

uint32_t vd_journal_block_crc(const struct vd_disk_journal *b)
{
	static const uint8_t zero[4];
	uint32_t crc = vd_port_crc32c(~0u, &b->magic, 4);

	crc = vd_port_crc32c(crc, zero, 4);
	return vd_port_crc32c(crc, &b->pool, VD_BLOCK - 8);
}

static int commit_put(struct vd_journal *j, struct commit *c, const uint8_t *p, unsigned len)
{
	unsigned n;

	while (len) {
		if (!c->nblocks || c->used == VD_JOURNAL_PAYLOAD) {
			if (c->nblocks == j->buf_blocks)
				return -EUCLEAN;
			c->nblocks++;
			c->used = 0;
		}
		n = vd_min(len, (unsigned)VD_JOURNAL_PAYLOAD - c->used);
		memcpy(vd_journal_buf_block(j, c->nblocks - 1)->payload + c->used, p, n);
		c->used += n;
		p += n;
		len -= n;
	}
	return 0;
}

static void commit_seal(struct vd_pool *pool, struct commit *c)
{
	struct vd_journal *j = pool->journal;
	struct vd_disk_journal *b;
	unsigned i, flags, len;

	memset(vd_journal_buf_block(j, c->nblocks - 1)->payload + c->used, 0, VD_JOURNAL_PAYLOAD - c->used);
	c->crc = j->head_crc;
	for (i = 0; i < c->nblocks; i++) {
		b = vd_journal_buf_block(j, i);
		flags = i ? 0 : VD_JOURNAL_BEGIN;
		len = VD_JOURNAL_PAYLOAD;
		if (i == c->nblocks - 1) {
			flags |= VD_JOURNAL_END;
			len = c->used;
		}
		b->magic = cpu_to_le32(VD_JOURNAL_MAGIC);
		b->pool = cpu_to_le64(pool->id);
		b->incarnation = cpu_to_le64(j->inc);
		b->block = cpu_to_le64(j->head + i);
		b->prev_crc = cpu_to_le32(c->crc);
		b->flags = cpu_to_le16(flags);
		b->len = cpu_to_le16(len);
		b->first_seq = cpu_to_le64(c->first_seq);
		b->last_seq = cpu_to_le64(c->last_seq);
		c->crc = vd_journal_block_crc(b);
		b->crc = cpu_to_le32(c->crc);
	}
}

/* Fills j->buf.  -EUCLEAN: somebody else wrote to the tail's memory. */
static int commit_build(struct vd_pool *pool, struct commit *c)
{
	struct vd_journal *j = pool->journal;
	uint64_t pos = c->first, seq = c->first_seq;
	struct tail_rec h;
	int r;

	while (pos != c->end) {
		if (!vd_journal_tail_take(j, pos, c->end, &h) || h.seq != seq)
			return -EUCLEAN;
		r = commit_put(j, c, j->rec, h.len);
		if (r)
			return r;
		c->claims += h.len;
		c->bytes += vd_journal_rec_bytes(h.len);
		pos += vd_journal_rec_bytes(h.len);
		seq++;
	}
	if (seq != c->last_seq + 1)
		return -EUCLEAN;
	commit_seal(pool, c);
	return 0;
}

int vd_journal_write_blocks(struct vd_pool *pool, unsigned member, uint64_t n, const uint8_t *buf, unsigned count)
{
	struct vd_journal *j = pool->journal;
	uint64_t at = vd_journal_place(j, n);
	unsigned run = count;
	int r;

	if (run > j->blocks - at)
		run = (unsigned)(j->blocks - at);
	r = pool->host.write(pool->host.ctx, member, j->start + at, buf, run);
	if (!r && run < count)
		r = pool->host.write(pool->host.ctx, member, j->start, buf + (size_t)run * VD_BLOCK, count - run);
	if (!r)
		vd_atomic_add(&j->written, count);
	return r;
}

/* One write serves, with a flush of the same member before it: no other is dirty. */
static bool one_write_serves(const struct vd_pool *pool, const struct commit *c)
{
	const struct vd_journal *j = pool->journal;

	return pool->host.commit && j->ncopies == 1 && vd_journal_place(j, j->head) + c->nblocks <= j->blocks &&
	       !any_dirty(j, j->copy[0]);
}

static int commit_in_one(struct vd_pool *pool, const struct commit *c)
{
	struct vd_journal *j = pool->journal;
	unsigned m = j->copy[0];
	int r;

	vd_atomic_set(&j->dirty[m], 0); /* J5 */
	r = pool->host.commit(pool->host.ctx, m, j->start + vd_journal_place(j, j->head), j->buf, c->nblocks);
	if (r)
		vd_atomic_set(&j->dirty[m], 1);
	else
		vd_atomic_add(&j->written, c->nblocks);
	return r;
}

/* What is dirty, then the records of a commit to every copy: durable on return. */
int vd_journal_commit_write(struct vd_pool *pool, struct commit *c)
{
	struct vd_journal *j = pool->journal;
	unsigned i;
	int r;

	r = commit_build(pool, c);
	if (r)
		return r;
	if (c->nblocks > j->blocks - (uint64_t)vd_atomic_read(&j->used))
		return -EUCLEAN; /* J1 says no */
	if (one_write_serves(pool, c))
		return commit_in_one(pool, c);
	r = flush_dirty(pool);
	if (r)
		return r;
	for (i = 0; i < j->ncopies; i++) {
		r = vd_journal_write_blocks(pool, j->copy[i], j->head, j->buf, c->nblocks);
		if (r)
			return r;
	}
	for (i = 0; i < j->ncopies; i++) {
		r = vd_journal_flush_member(pool, j->copy[i]);
		if (r)
			return r;
	}
	return 0;
}

/* Remembers the end of a commit at j->head; when there is no place for it, every
 * other one is forgotten, which costs a checkpoint a little of its room. */
void vd_journal_bound_add(struct vd_journal *j, uint64_t seq)
{
	unsigned i;

	if (j->nbounds == VD_BOUNDS_MAX) {
		for (i = 0; i < VD_BOUNDS_MAX / 2; i++)
			j->bound[i] = j->bound[2 * i + 1];
		j->nbounds = VD_BOUNDS_MAX / 2;
	}
	j->bound[j->nbounds++] = (struct bound){ .seq = seq, .number = j->head, .crc = j->head_crc };
}

/* The commit has become durable.  j->lock. */
void vd_journal_commit_done(struct vd_journal *j, const struct commit *c)
{
	j->place = vd_journal_place(j, j->head + c->nblocks);
	j->head += c->nblocks;
	j->head_crc = c->crc;
	vd_journal_bound_add(j, c->last_seq);
	vd_atomic_set(&j->used, (int64_t)(j->head - j->tail));
	vd_atomic_set(&j->durable, (int64_t)c->last_seq);
	j->first = c->end;
	vd_atomic_set(&j->th->first, (int64_t)j->first);
}

static void seal(struct vd_journal *j, struct commit *c)
{
	memset(c, 0, sizeof(*c));
	c->first = c->end = j->first;
	c->last_seq = (uint64_t)vd_atomic_read(&j->durable);
	c->first_seq = c->last_seq + 1;
	if (!j->began)
		return; /* a survivor of the old tail is begin()'s to write */
	vd_spin_lock(&j->tail_lock);
	c->end = j->end;
	c->last_seq = (uint64_t)vd_atomic_read(&j->last);
	vd_spin_unlock(&j->tail_lock);
}

/* One round, for all who came before it.  Called and returns with j->lock held. */
static void run_round(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;
	struct commit c;
	int r;

	j->running = true;
	j->started++;
	seal(j, &c);
	vd_mutex_unlock(&j->lock);

	r = c.end != c.first ? vd_journal_commit_write(pool, &c) : flush_dirty(pool);
	if (r) {
		vd_log(pool, VD_LOG_ERROR, "journal block %a: commit failed, error %b", j->head, (uint64_t)-r);
		vd_pool_set_mode(pool, VD_MODE_FAILED); /* before anyone is answered (I9) */
	}

	vd_mutex_lock(&j->lock);
	if (r) {
		j->failed = true;
	} else {
		if (c.nblocks)
			vd_journal_commit_done(j, &c);
		vd_atomic_add(&j->claimed, -c.claims);
		vd_atomic_add(&j->claimed_bytes, -c.bytes);
		vd_atomic_set(&j->due, 0);
		j->done = j->started;
	}
	j->running = false;
	vd_cond_wake_all(&j->moved);
}

static int commit(struct vd_pool *pool, uint64_t seq, bool ckpt)
{
	struct vd_journal *j = pool->journal;
	uint64_t last = vd_journal_last(pool);
	uint64_t mine;
	bool led = false, tried = ckpt;
	int r = 0;

	if (seq > last)
		seq = last;
	vd_mutex_lock(&j->lock);
	mine = j->started + 1;
	while (j->done < mine) {
		if (j->failed || vd_pool_mode(pool) == VD_MODE_FAILED) {
			r = -EIO;
			break;
		}
		if (j->running) {
			vd_cond_wait(&j->moved, &j->lock);
			continue;
		}
		if (seq <= vd_journal_durable(pool)) {
			if (!any_dirty(j, VD_MEMBERS_MAX))
				break; /* nothing new (I5) */
		} else if (!j->began) {
			r = -EROFS;
			break;
		}
		if (!tried && !fits(j, vd_atomic_read(&j->claimed), ROOM_COMMIT + 1)) {
			tried = true; /* what a checkpoint does not give back, nobody needs */
			vd_mutex_unlock(&j->lock);
			r = vd_checkpoint(pool);
			vd_mutex_lock(&j->lock);
			if (r)
				break;
			continue;
		}
		run_round(pool);
		led = true;
	}
	vd_mutex_unlock(&j->lock);
	if (led && !r && 2 * vd_journal_used(pool) > j->blocks)
		vd_pool_want_checkpoint(pool);
	return r;
}

int vd_journal_commit(struct vd_pool *pool, uint64_t seq) { return commit(pool, seq, false); }
int vd_journal_commit_for_checkpoint(struct vd_pool *pool, uint64_t seq) { return commit(pool, seq, true); }

uint64_t vd_journal_durable(const struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->journal->durable);
}

uint64_t vd_journal_last(const struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->journal->last);
}

uint64_t vd_journal_used(const struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->journal->used);
}

uint64_t vd_journal_written(const struct vd_pool *pool)
{
	return (uint64_t)vd_atomic_read(&pool->journal->written);
}

/* ---- checkpoint -------------------------------------------------------- */

/* Segments that end at or before block `tail` are of no use; the last one stays. */
unsigned vd_journal_segments_drop(struct segment *seg, unsigned n, uint64_t tail)
{
	unsigned i = 0;

	while (i + 1 < n && seg[i + 1].number <= tail)
		i++;
	memmove(seg, seg + i, (n - i) * sizeof(*seg));
	return n - i;
}

void vd_journal_segments_store(struct vd_disk_super *super, const struct segment *seg, unsigned n)
{
	unsigned i;

	memset(super->segment, 0, sizeof(super->segment));
	for (i = 0; i < n; i++) {
		super->segment[i].incarnation = cpu_to_le64(seg[i].inc);
		super->segment[i].block = cpu_to_le64(seg[i].number);
	}
	super->nsegments = cpu_to_le32(n);
}

void vd_journal_tail_at(struct vd_pool *pool, uint64_t seq, struct vd_disk_super *super)
{
	struct vd_journal *j = pool->journal;
	struct segment seg[VD_SEGMENTS_MAX];
	uint64_t tail;
	uint32_t crc;
	unsigned i, n;

	vd_mutex_lock(&j->lock);
	tail = j->tail;
	crc = j->tail_crc;
	for (i = 0; i < j->nbounds && j->bound[i].seq <= seq; i++) {
		tail = j->bound[i].number;
		crc = j->bound[i].crc;
	}
	memcpy(seg, j->segment, sizeof(seg));
	n = vd_journal_segments_drop(seg, j->nsegments, tail);
	vd_mutex_unlock(&j->lock);

	super->journal_tail = cpu_to_le64(tail);
	super->journal_crc = cpu_to_le32(crc);
	vd_journal_segments_store(super, seg, n);
}

void vd_journal_tail_set(struct vd_pool *pool, const struct vd_disk_super *super)
{
	struct vd_journal *j = pool->journal;
	uint64_t tail = le64_to_cpu(super->journal_tail);
	unsigned i;

	vd_mutex_lock(&j->lock);
	if (tail > j->tail && tail <= j->head) {
		j->tail = tail;
		j->tail_crc = le32_to_cpu(super->journal_crc);
		vd_atomic_set(&j->used, (int64_t)(j->head - tail));
		j->nsegments = vd_journal_segments_drop(j->segment, j->nsegments, tail);
		for (i = 0; i < j->nbounds && j->bound[i].number <= tail; i++)
			;
		j->nbounds -= i;
		memmove(j->bound, j->bound + i, j->nbounds * sizeof(j->bound[0]));
	}
	vd_mutex_unlock(&j->lock);
}

/* ---- init -------------------------------------------------------------- */

static int init_ring(struct vd_pool *pool, struct vd_journal *j)
{
	const struct vd_disk_super *s = pool->super;
	unsigned i, m;

	j->start = le64_to_cpu(s->journal_start);
	j->blocks = le64_to_cpu(s->journal_blocks);
	if (j->start < VD_SYSTEM_BLOCKS || j->start >> VD_MEMBER_SHIFT || j->blocks < VD_JOURNAL_MIN_BLOCKS ||
	    j->blocks >> VD_MEMBER_SHIFT)
		return -EUCLEAN;
	for (i = 0; i < VD_JOURNAL_COPIES; i++) {
		m = le32_to_cpu(s->journal_member[i]);
		if (i && m == ~0u)
			continue;
		if (m >= pool->nmembers || m >= VD_MEMBERS_MAX || (i && m == le32_to_cpu(s->journal_member[0])) ||
		    j->start + j->blocks > pool->member[m].blocks)
			return -EUCLEAN;
		if (!pool->member[m].missing)
			j->copy[j->ncopies++] = m;
	}
	return 0;
}

static int init_chain(struct vd_pool *pool, struct vd_journal *j)
{
	const struct vd_disk_super *s = pool->super;
	uint64_t seq = le64_to_cpu(s->seq);
	unsigned i, n = le32_to_cpu(s->nsegments);

	j->tail = j->head = le64_to_cpu(s->journal_tail);
	j->tail_crc = j->head_crc = le32_to_cpu(s->journal_crc);
	if (seq >= VD_SEQ_END || j->tail >= VD_NUMBER_END || n > VD_SEGMENTS_MAX)
		return -EUCLEAN;
	j->place = mod64(j->tail, j->blocks);
	for (i = 0; i < n; i++) {
		j->segment[i].inc = le64_to_cpu(s->segment[i].incarnation);
		j->segment[i].number = le64_to_cpu(s->segment[i].block);
		if (i ? j->segment[i].inc <= j->segment[i - 1].inc || j->segment[i].number < j->segment[i - 1].number :
			j->segment[i].number > j->tail)
			return -EUCLEAN;
		if (j->segment[i].number > j->tail + j->blocks)
			return -EUCLEAN;
	}
	j->nsegments = n;
	j->inc = n ? j->segment[n - 1].inc : 0;
	vd_atomic_set(&j->last, (int64_t)seq);
	vd_atomic_set(&j->durable, (int64_t)seq);
	return 0;
}

static int init_buffers(struct vd_pool *pool, struct vd_journal *j)
{
	void *area = NULL;

	for (j->ring_bytes = VD_TAIL_MIN; j->ring_bytes < VD_TAIL_MAX && j->ring_bytes < j->blocks * VD_BLOCK / 8;)
		j->ring_bytes *= 2;
	j->buf_blocks = (j->ring_bytes + (unsigned)VD_JOURNAL_PAYLOAD - 1) / (unsigned)VD_JOURNAL_PAYLOAD;
	j->buf = vd_alloc(pool, (size_t)j->buf_blocks * VD_BLOCK);
	j->rec = vd_zalloc(pool, VD_REC_MAX);
	if (!j->buf || !j->rec)
		return -ENOMEM;
	if (pool->flags & VD_OPEN_READONLY)
		return 0; /* the tail may be in use by the owner */
	if (pool->host.tail)
		area = pool->host.tail(pool->host.ctx, j->ring_bytes + VD_TAIL_HEAD);
	if (!area) {
		area = vd_zalloc(pool, j->ring_bytes + VD_TAIL_HEAD);
		j->th_is_plain = true;
	}
	if (!area)
		return -ENOMEM;
	j->th = area;
	j->ring = (uint8_t *)area + VD_TAIL_HEAD;
	return 0;
}

int vd_journal_init(struct vd_pool *pool)
{
	struct vd_journal *j;
	int r;

	j = vd_zalloc(pool, sizeof(*j));
	if (!j)
		return -ENOMEM;
	vd_mutex_init(&j->lock);
	vd_mutex_init(&j->room_lock);
	vd_spin_init(&j->tail_lock);
	vd_cond_init(&j->moved);
	pool->journal = j;
	r = init_ring(pool, j);
	if (!r)
		r = init_chain(pool, j);
	if (!r)
		r = init_buffers(pool, j);
	if (r)
		vd_journal_fini(pool);
	return r;
}

void vd_journal_fini(struct vd_pool *pool)
{
	struct vd_journal *j = pool->journal;

	if (!j)
		return;
	if (j->th_is_plain)
		vd_free(pool, j->th);
	vd_free(pool, j->buf);
	vd_free(pool, j->rec);
	vd_cond_fini(&j->moved);
	vd_spin_fini(&j->tail_lock);
	vd_mutex_fini(&j->room_lock);
	vd_mutex_fini(&j->lock);
	vd_free(pool, j);
	pool->journal = NULL;
}
