// SPDX-License-Identifier: GPL-2.0-only
/*
 * biogen: sends bios to a block device and takes the time, without a system call for each.
 *
 *     echo "DEVICE read|write seq|rand BYTES STRIDE SPAN DEPTH COUNT FLUSH" >/sys/module/biogen/parameters/run
 *     cat /sys/module/biogen/parameters/run          # nanoseconds, bios that failed
 *
 * The first SPAN bytes of the device are slots of STRIDE bytes; each of COUNT bios covers the
 * first BYTES of one.  seq goes through the slots in order, rand in a scattered one; both touch
 * each slot once before any is touched again.  DEPTH bios are in flight; after each FLUSH of
 * them (0: never) all are waited for and a flush is sent.  The write returns when the last bio
 * has ended.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/version.h>
#include <linux/wait.h>

struct job {
	char dev[128], op[8], order[8];
	unsigned int bytes, stride, depth, count, flush;
	unsigned long long span;
	u32 slots, bits;
	struct page *page;
};

static atomic_t in_flight, failed;
static DECLARE_WAIT_QUEUE_HEAD(ended);
static u64 took;

static void biogen_end_io(struct bio *bio)
{
	if (bio->bi_status)
		atomic_inc(&failed);
	bio_put(bio);
	atomic_dec(&in_flight);
	if (wq_has_sleeper(&ended))
		wake_up(&ended);
}

/* A bijection on the numbers of so many bits: both its kinds of steps are. */
static u32 scatter(u32 i, u32 bits)
{
	u32 mask = (1u << bits) - 1, half = (bits + 1) / 2;

	i = (i * 0x9e3779b1u) & mask;
	i ^= i >> half;
	i = (i * 0x85ebca6bu) & mask;
	return i ^ i >> half;
}

static u32 slot_of(const struct job *job, u32 i, bool rand)
{
	i %= job->slots;
	if (rand)
		do
			i = scatter(i, job->bits);
		while (i >= job->slots);
	return i;
}

static void run(const struct job *job, struct block_device *bdev)
{
	blk_opf_t opf = job->op[0] == 'r' ? REQ_OP_READ : REQ_OP_WRITE | REQ_SYNC | REQ_IDLE;
	bool rand = job->order[0] == 'r';
	ktime_t start = ktime_get();
	u32 i;

	for (i = 0; i < job->count; i++) {
		struct bio *bio = bio_alloc(bdev, 1, opf, GFP_KERNEL);

		bio->bi_iter.bi_sector = (u64)slot_of(job, i, rand) * (job->stride >> SECTOR_SHIFT);
		bio->bi_end_io = biogen_end_io;
		__bio_add_page(bio, job->page, job->bytes, 0);
		wait_event(ended, atomic_read(&in_flight) < job->depth);
		atomic_inc(&in_flight);
		submit_bio(bio);
		if (job->flush && (i + 1) % job->flush == 0) {
			wait_event(ended, !atomic_read(&in_flight));
			if (blkdev_issue_flush(bdev))
				atomic_inc(&failed);
		}
		cond_resched();
	}
	wait_event(ended, !atomic_read(&in_flight));
	took = ktime_to_ns(ktime_sub(ktime_get(), start));
}

static int run_on(struct job *job, struct block_device *bdev)
{
	unsigned int sector = bdev_logical_block_size(bdev);

	if (!job->bytes || job->bytes % sector || job->stride < job->bytes || job->stride % sector ||
	    job->span > bdev_nr_bytes(bdev) || job->span / job->stride > S32_MAX || job->span < job->stride ||
	    !job->depth || !job->count)
		return -EINVAL;
	job->slots = div_u64(job->span, job->stride);
	job->bits = order_base_2(job->slots);
	job->page = alloc_pages(GFP_KERNEL, get_order(job->bytes));
	if (!job->page)
		return -ENOMEM;
	memset(page_address(job->page), 0x5a, job->bytes);
	run(job, bdev);
	__free_pages(job->page, get_order(job->bytes));
	return 0;
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
static int open_and_run(struct job *job)
{
	struct file *file = bdev_file_open_by_path(job->dev, BLK_OPEN_READ | BLK_OPEN_WRITE, NULL, NULL);
	int r;

	if (IS_ERR(file))
		return PTR_ERR(file);
	r = run_on(job, file_bdev(file));
	fput(file);
	return r;
}
#else
static int open_and_run(struct job *job)
{
	struct block_device *bdev = blkdev_get_by_path(job->dev, FMODE_READ | FMODE_WRITE, NULL);
	int r;

	if (IS_ERR(bdev))
		return PTR_ERR(bdev);
	r = run_on(job, bdev);
	blkdev_put(bdev, FMODE_READ | FMODE_WRITE);
	return r;
}
#endif

/* Parameters of a module are set one at a time, so there is one job. */
static int run_set(const char *text, const struct kernel_param *kp)
{
	static struct job job;

	if (sscanf(text, "%127s %7s %7s %u %u %llu %u %u %u", job.dev, job.op, job.order, &job.bytes, &job.stride,
		   &job.span, &job.depth, &job.count, &job.flush) != 9 ||
	    (strcmp(job.op, "read") && strcmp(job.op, "write")) || (strcmp(job.order, "seq") && strcmp(job.order, "rand")))
		return -EINVAL;
	atomic_set(&failed, 0);
	took = 0;
	return open_and_run(&job);
}

static int run_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%llu %d\n", took, atomic_read(&failed));
}

static const struct kernel_param_ops run_ops = { .set = run_set, .get = run_get };
module_param_cb(run, &run_ops, NULL, 0600);
MODULE_PARM_DESC(run, "what to send; read: nanoseconds it took, bios that failed");

static int __init biogen_init(void)
{
	return 0;
}
static void __exit biogen_exit(void)
{
}
module_init(biogen_init);
module_exit(biogen_exit);

MODULE_DESCRIPTION("bio generator for benchmarks");
MODULE_LICENSE("GPL");
