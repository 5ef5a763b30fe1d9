// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way of a bio.
 *
 *   map ──► begin ── 0 ──► remapped to a member ──► end_io ──► end ──► completed
 *             │                                        └── FUA ──► group commit ──┘
 *             ├─ -EWOULDBLOCK, a block to be completed, or the end of the base image ──► parked
 *             └─ hole ──► zeros
 *
 *   parked, in a work item:  begin ─► wait ─► begin … ─► its member I/O, piece by piece
 *
 * K1  A bio that is parked holds nothing of the engine (I11): who drains a gate never
 *     waits for a work item that has not begun.
 * K2  Between begin and end a work item waits for members and the base image only.
 * K3  A flush, and a FUA write when its data is there, join the next group commit; one
 *     work item makes it, for all that came before it began (I5, I6).
 * K4  map() never waits: a bio that it waited for might be in the list of those that
 *     this task has still to submit.
 * K5  A parked write that finds the pool full waits in a list, where it holds neither
 *     the engine nor a worker.  It begins again when the pool looks different, and fails
 *     when it has waited too long, or at once where it is not to wait (D10).  A volume that
 *     is suspended without a flush gives its own back to the core (I14).
 * K6  REQ_NOWAIT asks that the submitter does not sleep, and by K4 it never does: it says nothing
 *     of when the bio is done.  So one that is parked goes on as any other, without the flag: who
 *     waits then is the work item.  BLK_STS_AGAIN instead would only have the submitter
 *     send the same bio again from a thread of its own.  What a member answers so is passed on, and
 *     a first write that met it has left no mapping.  Of a member that would make the submitter
 *     wait, added after the volume's table, map() keeps away.
 */
#include <linux/delay.h>
#include <linux/module.h>

#include "dm-vd.h"

static unsigned int no_space_timeout = 60;
module_param(no_space_timeout, uint, 0644);
MODULE_PARM_DESC(no_space_timeout, "How many seconds writes wait for space in a full pool; 0: for ever");

/* ---- commit ------------------------------------------------------------ */

/* All under the lock: a commit under way may take the bio when we let go, and with it the pool
 * may end. */
static void commit_later(struct vdk_pool *p, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&p->lock, flags);
	bio_list_add(&p->committing, bio);
	queue_work(p->commit_wq, &p->commit);
	spin_unlock_irqrestore(&p->lock, flags);
}

/* A bio that end_io() kept has been through bio_endio() once; its accounting there is
 * not to be done twice. */
static void finish(struct bio *bio, int error)
{
	struct vdk_bio *b = dm_per_bio_data(bio, sizeof(*b));

	if (error)
		bio->bi_status = errno_to_blk_status(error);
	if (b->returned)
		bio->bi_end_io(bio);
	else
		bio_endio(bio);
}

void vdk_commit_work(struct work_struct *work)
{
	struct vdk_pool *p = container_of(work, struct vdk_pool, commit);
	unsigned int noio = memalloc_noio_save();
	struct bio_list bios;
	struct bio *bio;
	int r;

	for (;;) {
		spin_lock_irq(&p->lock);
		bios = p->committing;
		bio_list_init(&p->committing);
		spin_unlock_irq(&p->lock);
		if (bio_list_empty(&bios))
			break;
		r = vd_flush(p->engine);
		while ((bio = bio_list_pop(&bios)))
			finish(bio, r);
	}
	memalloc_noio_restore(noio);
}

/* ---- waiting for space -------------------------------------------------- */

static bool overdue(const struct vdk_bio *b)
{
	unsigned long limit = READ_ONCE(no_space_timeout);

	return limit && time_after_eq(jiffies, b->since + limit * HZ);
}

/* False: it fails, for want of space. */
static bool starve(struct vdk_bio *b, struct bio *bio)
{
	struct vdk_pool *p = b->v->pool;
	bool requeue, keep;

	if (!b->since)
		b->since = jiffies | 1; /* 0 says that it has not waited */
	spin_lock_irq(&p->lock);
	requeue = b->v->requeue && dm_noflush_suspending(b->v->ti); /* interrupted, it is over for the core before we hear */
	keep = !requeue && !p->refuses && !overdue(b);
	if (keep) {
		bio_list_add(&p->starved, bio);
		p->nstarved++;
	}
	spin_unlock_irq(&p->lock);
	if (requeue) {
		bio->bi_status = BLK_STS_DM_REQUEUE;
		bio_endio(bio);
	}
	return keep || requeue;
}

/* Those of v; all, when it is NULL; those that are overdue, when `late`. lock */
static struct bio_list take_starved(struct vdk_pool *p, const struct vdk_volume *v, bool late)
{
	struct bio_list all = p->starved, taken;
	struct bio *bio;

	bio_list_init(&p->starved);
	bio_list_init(&taken);
	while ((bio = bio_list_pop(&all))) {
		const struct vdk_bio *b = dm_per_bio_data(bio, sizeof(*b));

		if ((!v || b->v == v) && (!late || overdue(b))) {
			bio_list_add(&taken, bio);
			p->nstarved--;
		} else {
			bio_list_add(&p->starved, bio);
		}
	}
	return taken;
}

static void end_all(struct bio_list *bios, blk_status_t status)
{
	struct bio *bio;

	while ((bio = bio_list_pop(bios))) {
		bio->bi_status = status;
		bio_endio(bio);
	}
}

void vdk_starved_retry(struct vdk_pool *p)
{
	struct bio_list bios;
	struct bio *bio;

	spin_lock_irq(&p->lock);
	bios = take_starved(p, NULL, false);
	spin_unlock_irq(&p->lock);
	while ((bio = bio_list_pop(&bios))) {
		struct vdk_bio *b = dm_per_bio_data(bio, sizeof(*b));

		queue_work(p->io_wq, &b->work);
	}
}

void vdk_starved_expire(struct vdk_pool *p)
{
	struct bio_list bios;

	spin_lock_irq(&p->lock);
	bios = take_starved(p, NULL, true);
	if (!bio_list_empty(&bios))
		p->refuses = true;
	spin_unlock_irq(&p->lock);
	end_all(&bios, BLK_STS_NOSPC);
}

void vdk_requeue_begin(struct vdk_volume *v)
{
	struct bio_list bios;

	spin_lock_irq(&v->pool->lock);
	v->requeue = true;
	bios = take_starved(v->pool, v, false);
	spin_unlock_irq(&v->pool->lock);
	end_all(&bios, BLK_STS_DM_REQUEUE);
}

void vdk_requeue_end(struct vdk_volume *v)
{
	spin_lock_irq(&v->pool->lock);
	v->requeue = false;
	spin_unlock_irq(&v->pool->lock);
}

/* ---- parked ------------------------------------------------------------ */

/* Sleeps until it makes sense to begin again. */
static int wait_for(struct vd_io *io)
{
	int r = vd_io_wait(io);

	if (r == -ENOMEM) { /* this write may be what memory is waiting for */
		msleep(1);
		r = 0;
	}
	return r;
}

static int read_begin(struct vdk_volume *v, uint64_t off, uint64_t len, struct vd_io *io)
{
	int r;

	while ((r = vd_read_begin(v->vol, off, len, io)) == -EWOULDBLOCK) {
		r = wait_for(io);
		if (r)
			break;
	}
	return r;
}

/* The second try may use what is kept for those who free memory. */
static int write_begin(struct vdk_volume *v, uint64_t off, uint64_t len, struct vd_io *io)
{
	unsigned int reserves;
	int r = vd_write_begin(v->vol, off, len, io);

	while (r == -EWOULDBLOCK) {
		r = wait_for(io);
		if (r)
			break;
		reserves = memalloc_noreclaim_save();
		r = vd_write_begin(v->vol, off, len, io);
		memalloc_noreclaim_restore(reserves);
	}
	return r;
}

/* How much of [off, off + len) the base image has, from its begin on. */
static unsigned int in_base(const struct vdk_volume *v, uint64_t off, unsigned int len)
{
	return off < v->base_size ? (unsigned int)min_t(uint64_t, len, v->base_size - off) : 0;
}

/* The first `len` bytes of the bio, to or from a member or the base image. */
static int piece_io(struct vdk_pool *p, struct bio *bio, struct block_device *bdev, sector_t sector, unsigned int len)
{
	struct bio *piece;
	int r;

	if (!bdev)
		return -ENODEV;
	piece = bio_alloc_clone(bdev, bio, GFP_NOIO, &p->bios);
	piece->bi_iter.bi_sector = sector;
	piece->bi_iter.bi_size = len;
	r = submit_bio_wait(piece);
	bio_put(piece);
	return vdk_member_error(r);
}

/* `len` bytes of the bio from byte `from` on */
static void zero_piece(struct bio *bio, unsigned int from, unsigned int len)
{
	struct bvec_iter iter = bio->bi_iter;
	struct bio_vec bv;

	bio_advance_iter(bio, &iter, from);
	iter.bi_size = len;
	__bio_for_each_segment(bv, bio, iter, iter)
		memzero_bvec(&bv);
}

static int base_piece(struct vdk_volume *v, struct bio *bio, uint64_t off, unsigned int len)
{
	unsigned int n = in_base(v, off, len);
	int r = n ? piece_io(v->pool, bio, v->base->bdev, off >> SECTOR_SHIFT, n) : 0;

	zero_piece(bio, n, len - n);
	return r;
}

/* The page's bytes from `in` on, which are the volume's from `off` on. */
static int fill(struct vdk_volume *v, const struct vd_fill *f, uint64_t off, struct page *page, unsigned int in,
		unsigned int len)
{
	struct vdk_pool *p = v->pool;
	unsigned int n = 0;
	int r = 0;

	if (f->kind == VD_FILL_DATA)
		return vdk_page_io(p, vdk_member(p, f->pblk), REQ_OP_READ, vdk_sector(f->pblk, in), page, in, len);
	if (f->kind == VD_FILL_BASE)
		n = in_base(v, off, len);
	if (n)
		r = vdk_page_io(p, v->base->bdev, REQ_OP_READ, off >> SECTOR_SHIFT, page, in, n);
	memset(page_address(page) + in + n, 0, len - n);
	return r;
}

/* Part of one block, whose new contents are in the page where they are in the block. */
static int write_part(struct vdk_volume *v, struct page *page, uint64_t off, unsigned int len)
{
	struct vdk_pool *p = v->pool;
	unsigned int in = off & (VD_BLOCK - 1), end = in + len;
	struct block_device *bdev;
	struct vd_io io;
	int r;

	r = write_begin(v, off, len, &io);
	if (r)
		return r;
	bdev = vdk_member(p, io.pblk);
	if (io.kind == VD_RUN_DATA) {
		r = vdk_page_io(p, bdev, REQ_OP_WRITE, vdk_sector(io.pblk, io.offset), page, in, len);
		return vd_write_end(&io, r);
	}
	if (in)
		r = fill(v, &io.head, off - in, page, 0, in);
	if (!r && end < VD_BLOCK)
		r = fill(v, &io.tail, off + len, page, end, VD_BLOCK - end);
	if (!r)
		r = vdk_page_io(p, bdev, REQ_OP_WRITE, vdk_sector(io.pblk, 0), page, 0, VD_BLOCK);
	return vd_write_end(&io, r);
}

static void copy_piece(struct page *page, unsigned int in, unsigned int len, struct bio *bio)
{
	char *to = (char *)page_address(page) + in;
	struct bvec_iter iter = bio->bi_iter;
	struct bio_vec bv;

	iter.bi_size = len;
	__bio_for_each_segment(bv, bio, iter, iter) {
		memcpy_from_bvec(to, &bv);
		to += bv.bv_len;
	}
}

static int bounce(struct vdk_volume *v, struct bio *bio, uint64_t off, unsigned int len)
{
	struct page *page = mempool_alloc(&v->pool->pages, GFP_NOIO);
	int r;

	copy_piece(page, off & (VD_BLOCK - 1), len, bio);
	r = write_part(v, page, off, len);
	mempool_free(page, &v->pool->pages);
	return r;
}

/* To the next block's begin, or whole blocks, or what is left of the last one. */
static unsigned int next_piece(uint64_t off, unsigned int left)
{
	unsigned int in = off & (VD_BLOCK - 1);

	if (in)
		return min(left, VD_BLOCK - in);
	return left < VD_BLOCK ? left : left & ~(VD_BLOCK - 1);
}

/* Sends off the bio itself for what is left of it; end_io() does the rest. */
static void send(struct vdk_bio *b, struct bio *bio, struct block_device *bdev, enum vdk_state state)
{
	bio_set_dev(bio, bdev);
	bio->bi_iter.bi_sector = vdk_sector(b->io.pblk, b->io.offset);
	b->state = state;
}

static void send_to_base(struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	bio_set_dev(bio, b->v->base->bdev);
	bio->bi_iter.bi_sector = off >> SECTOR_SHIFT;
	b->state = VDK_READ;
}

/* 1: sent off. */
static int parked_read(struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	struct vdk_volume *v = b->v;
	int r;

	while (bio->bi_iter.bi_size) {
		unsigned int n;

		r = read_begin(v, off, bio->bi_iter.bi_size, &b->io);
		if (r)
			return r;
		n = b->io.bytes;
		if (b->io.kind == VD_RUN_DATA && n == bio->bi_iter.bi_size && vdk_member(v->pool, b->io.pblk)) {
			send(b, bio, vdk_member(v->pool, b->io.pblk), VDK_READ);
			submit_bio_noacct(bio);
			return 1;
		}
		if (b->io.kind == VD_RUN_BASE && in_base(v, off, n) == bio->bi_iter.bi_size) {
			send_to_base(b, bio, off);
			submit_bio_noacct(bio);
			return 1;
		}
		if (b->io.kind == VD_RUN_DATA)
			r = piece_io(v->pool, bio, vdk_member(v->pool, b->io.pblk), vdk_sector(b->io.pblk, b->io.offset), n);
		else if (b->io.kind == VD_RUN_BASE)
			r = base_piece(v, bio, off, n);
		else
			zero_piece(bio, 0, n);
		vd_read_end(&b->io);
		if (r)
			return r;
		bio_advance(bio, n);
		off += n;
	}
	return 0;
}

/* 1: sent off. */
static int parked_write(struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	struct vdk_volume *v = b->v;
	int r;

	while (bio->bi_iter.bi_size) {
		unsigned int n = next_piece(off, bio->bi_iter.bi_size);

		if (n & (VD_BLOCK - 1)) {
			r = bounce(v, bio, off, n);
		} else {
			r = write_begin(v, off, n, &b->io);
			if (r)
				return r;
			n = b->io.bytes;
			if (n == bio->bi_iter.bi_size && vdk_member(v->pool, b->io.pblk)) {
				send(b, bio, vdk_member(v->pool, b->io.pblk), VDK_WRITE);
				submit_bio_noacct(bio);
				return 1;
			}
			r = piece_io(v->pool, bio, vdk_member(v->pool, b->io.pblk), vdk_sector(b->io.pblk, b->io.offset), n);
			r = vd_write_end(&b->io, r);
		}
		if (r)
			return r;
		bio_advance(bio, n);
		off += n;
	}
	return 0;
}

/* Part of one block; what reads as zeros already is left alone. */
static int zero_part(struct vdk_volume *v, uint64_t off, unsigned int len)
{
	struct vd_extent_info e;
	struct page *page;
	int r;

	if (!len)
		return 0;
	r = vd_extent(v->vol, off & ~(uint64_t)(VD_BLOCK - 1), VD_BLOCK, &e);
	if (r || e.kind == VD_HOLE || e.kind == VD_ZERO)
		return r;
	page = mempool_alloc(&v->pool->pages, GFP_NOIO);
	clear_page(page_address(page));
	r = write_part(v, page, off, len);
	mempool_free(page, &v->pool->pages);
	return r;
}

static int write_zeroes(struct vdk_volume *v, uint64_t off, uint64_t len)
{
	uint64_t end = off + len, first = round_up(off, VD_BLOCK), last = round_down(end, VD_BLOCK);
	int r;

	if (first > last) /* within one block */
		return zero_part(v, off, (unsigned int)len);
	r = zero_part(v, off, (unsigned int)(first - off));
	if (!r && last > first)
		r = vd_unmap(v->vol, first, last - first);
	if (!r)
		r = zero_part(v, last, (unsigned int)(end - last));
	return r;
}

static void parked_work(struct work_struct *work)
{
	struct vdk_bio *b = container_of(work, struct vdk_bio, work);
	struct bio *bio = dm_bio_from_per_bio_data(b, sizeof(*b));
	unsigned int noio = memalloc_noio_save();
	uint64_t off = (uint64_t)bio->bi_iter.bi_sector << SECTOR_SHIFT; /* vdk_park() made it the volume's */
	int r;

	switch (bio_op(bio)) {
	case REQ_OP_READ:
		r = parked_read(b, bio, off);
		break;
	case REQ_OP_WRITE:
		r = parked_write(b, bio, off);
		break;
	case REQ_OP_DISCARD:
		r = vd_unmap(b->v->vol, off, bio->bi_iter.bi_size);
		break;
	default:
		r = write_zeroes(b->v, off, bio->bi_iter.bi_size);
	}
	memalloc_noio_restore(noio);
	if (r > 0)
		return;
	/* A discard has no use for space: what it is refused is a change in a pool that has no room even for that. */
	if (r == -ENOSPC && bio_op(bio) != REQ_OP_DISCARD && starve(b, bio))
		return;
	if (!r && b->fua)
		commit_later(b->v->pool, bio);
	else
		finish(bio, r);
}

static int park(struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	bio->bi_iter.bi_sector = off >> SECTOR_SHIFT;
	bio->bi_opf &= ~REQ_NOWAIT; /* K6 */
	bio_clear_polled(bio); /* pieces of it are waited for, and nobody polls for them */
	INIT_WORK(&b->work, parked_work);
	queue_work(b->v->pool->io_wq, &b->work);
	return DM_MAPIO_SUBMITTED;
}

/* ---- map and end_io ---------------------------------------------------- */

static int fail(struct bio *bio, int error)
{
	bio->bi_status = errno_to_blk_status(error);
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

/* The device may have the submitter wait, who will not (K6). */
static bool may_wait(const struct bio *bio, struct block_device *bdev)
{
	return bio->bi_opf & REQ_NOWAIT && !bdev_nowait(bdev);
}

static void accept(struct bio *bio, const struct vd_io *io)
{
	if (io->bytes < bio->bi_iter.bi_size)
		dm_accept_partial_bio(bio, io->bytes >> SECTOR_SHIFT);
}

static int map_read(struct vdk_volume *v, struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	int r = vd_read_begin(v->vol, off, bio->bi_iter.bi_size, &b->io);
	struct block_device *bdev;

	if (unlikely(r))
		return r == -EWOULDBLOCK ? park(b, bio, off) : fail(bio, r);
	accept(bio, &b->io);
	if (likely(b->io.kind == VD_RUN_DATA)) {
		bdev = vdk_member(v->pool, b->io.pblk);
		if (unlikely(!bdev)) {
			vd_read_end(&b->io);
			return fail(bio, -ENODEV);
		}
		if (unlikely(may_wait(bio, bdev))) {
			vd_read_end(&b->io);
			return park(b, bio, off);
		}
		send(b, bio, bdev, VDK_READ);
		return DM_MAPIO_REMAPPED;
	}
	if (b->io.kind == VD_RUN_BASE && in_base(v, off, 1)) {
		if (in_base(v, off, bio->bi_iter.bi_size) == bio->bi_iter.bi_size && !may_wait(bio, v->base->bdev)) {
			send_to_base(b, bio, off);
			return DM_MAPIO_REMAPPED;
		}
		/* It ends in here.  Not cut in two: the rest might then be looked up within a sector of the pool's. */
		vd_read_end(&b->io);
		return park(b, bio, off);
	}
	zero_fill_bio(bio);
	vd_read_end(&b->io);
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

static int map_write(struct vdk_volume *v, struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	int r = vd_write_begin(v->vol, off, bio->bi_iter.bi_size, &b->io);
	struct block_device *bdev;

	if (unlikely(r))
		return r == -EWOULDBLOCK ? park(b, bio, off) : fail(bio, r);
	if (unlikely(b->io.kind == VD_RUN_NEW && (b->io.head.kind || b->io.tail.kind))) {
		(void)vd_write_end(&b->io, -EAGAIN); /* K1: it is begun again where it can be waited for */
		return park(b, bio, off);
	}
	bdev = vdk_member(v->pool, b->io.pblk);
	if (unlikely(!bdev))
		return fail(bio, vd_write_end(&b->io, -ENODEV));
	if (unlikely(may_wait(bio, bdev))) {
		(void)vd_write_end(&b->io, -EAGAIN);
		return park(b, bio, off);
	}
	accept(bio, &b->io);
	send(b, bio, bdev, VDK_WRITE);
	return DM_MAPIO_REMAPPED;
}

int vdk_map(struct vdk_volume *v, struct vdk_bio *b, struct bio *bio, uint64_t off)
{
	b->v = v;
	b->state = VDK_IDLE;
	b->returned = false;
	b->since = 0;
	b->fua = bio->bi_opf & REQ_FUA;
	bio->bi_opf &= ~REQ_FUA;
	if (bio->bi_opf & REQ_PREFLUSH) { /* without data: the core sends that later */
		commit_later(v->pool, bio);
		return DM_MAPIO_SUBMITTED;
	}
	switch (bio_op(bio)) {
	case REQ_OP_READ:
		return map_read(v, b, bio, off);
	case REQ_OP_WRITE:
		return map_write(v, b, bio, off);
	case REQ_OP_DISCARD:
	case REQ_OP_WRITE_ZEROES:
		return park(b, bio, off);
	default:
		return DM_MAPIO_KILL;
	}
}

int vdk_end_io(struct vdk_bio *b, struct bio *bio, blk_status_t *error)
{
	enum vdk_state state = b->state;

	b->state = VDK_IDLE;
	if (state == VDK_READ) {
		vd_read_end(&b->io);
	} else if (state == VDK_WRITE) {
		int r = vd_write_end(&b->io, blk_status_to_errno(*error));

		if (!r && b->fua) {
			b->fua = false;
			b->returned = true;
			commit_later(b->v->pool, bio);
			return DM_ENDIO_INCOMPLETE;
		}
	}
	return DM_ENDIO_DONE;
}
