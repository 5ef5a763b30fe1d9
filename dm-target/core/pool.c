// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A pool is made, opened, changed as a whole and closed here.
 *
 *   format: labels ► space tree ► superblock      a pool exists when one member has that:
 *                                                 the others are behind (P1), not missing
 *   open:   labels, best superblock ► trees ► replay ► journal begins anew ►
 *           superblock with a new incarnation ► owner record ► deletions go on
 *
 * P1  Superblock slots alternate by generation; the highest valid one counts.  A
 *     member may be one generation behind (a crash between two members' writes);
 *     one that is further behind came back from another time and counts as missing,
 *     and so does one from before an opening of which an owner record tells: those
 *     are written when every member has the opening's superblock.
 *     So one that is behind is brought level before the next generation is begun,
 *     else a second crash would leave it two behind.
 *     An older slot counts only when the newer one is damaged, not when it could
 *     not be read (I9), nor when it is whole but has what this version does not know.
 * P2  With a member missing nothing is written, whatever was asked for (I9).
 * P3  When only one of the two slots is valid anywhere, the other was torn by a crash
 *     before anything followed it, or it was the newest and is lost.  It was lost if
 *     an owner record, written at opening and closing, names a later generation; or
 *     the ring holds what only a later superblock allows: a later incarnation, or a
 *     block over the tail's place.  Then
 *     the older state is read and not written: blocks it needs may be in use again,
 *     which takes a whole check to find out (VD_OPEN_ACCEPT).  After a crash with none
 *     of these signs the journal is whole, and replaying it gives what was lost; a
 *     block that was used again meanwhile shows there too, as one claimed twice.
 */
#include "record.h"

#define CACHE_BYTES (128u << 20)
#define JOURNAL_MAX (1u << 24)    /* blocks: 64 GiB; a check counts each */
#define NUMBER_MAX (1ull << 62)   /* what is counted for ever, and cannot come near */

/* ---- modes ---------------------------------------------------------------- */

void vd_pool_set_mode(struct vd_pool *pool, enum vd_pool_mode mode)
{
	enum vd_pool_mode now;

	do {
		now = vd_pool_mode(pool);
		if (now == mode || (now > mode && now != VD_MODE_OUT_OF_SPACE))
			return;
	} while (!vd_atomic_swap_if(&pool->mode, (int64_t)now, (int64_t)mode));
	if (mode == VD_MODE_FAILED)
		vd_log(pool, VD_LOG_ERROR, "the pool has failed: nothing is acknowledged any more; close it, mend its members, open it again", 0, 0);
	else if (mode == VD_MODE_OUT_OF_SPACE)
		vd_log(pool, VD_LOG_WARN, "the pool is full: add a member, enlarge one, or delete something", 0, 0);
	else if (mode == VD_MODE_RW && now == VD_MODE_OUT_OF_SPACE)
		vd_log(pool, VD_LOG_INFO, "the pool has space again", 0, 0);
}

void vd_pool_kick(struct vd_pool *pool)
{
	if (pool->host.kick)
		pool->host.kick(pool->host.ctx);
}

void vd_pool_want_checkpoint(struct vd_pool *pool)
{
	if (vd_atomic_read(&pool->volumes->want))
		return;
	vd_atomic_set(&pool->volumes->want, 1);
	vd_pool_kick(pool);
}

bool vd_pblk_valid(const struct vd_pool *pool, vd_pblk_t p, uint64_t len)
{
	uint64_t m = p >> VD_MEMBER_SHIFT, block = VD_PBLK_BLOCK(p), end = m < pool->nmembers ? vd_member_blocks(pool, (unsigned)m) : 0;

	return block >= VD_SYSTEM_BLOCKS && block < end && len <= end - block;
}

/* ---- memory --------------------------------------------------------------- */

static struct vd_pool *pool_new(const struct vd_host *host, unsigned flags)
{
	struct vd_pool *pool = host->alloc(host->ctx, sizeof(*pool), VD_ALLOC_WAIT);

	if (!pool)
		return NULL;
	memset(pool, 0, sizeof(*pool));
	pool->host = *host;
	pool->flags = flags;
	vd_mutex_init(&pool->ckpt_lock);
	pool->super = vd_zalloc(pool, sizeof(*pool->super));
	if (!pool->super) {
		vd_mutex_fini(&pool->ckpt_lock);
		host->free(host->ctx, pool);
		return NULL;
	}
	return pool;
}

static void pool_free(struct vd_pool *pool)
{
	struct vd_host host = pool->host;

	vd_volumes_fini(pool);
	if (pool->journal)
		vd_journal_fini(pool);
	if (pool->space)
		vd_space_fini(pool);
	if (pool->cache)
		vd_cache_fini(pool);
	vd_memory_fini(pool);
	vd_free(pool, pool->super);
	vd_mutex_fini(&pool->ckpt_lock);
	host.free(host.ctx, pool);
}

void vd_pool_abandon(struct vd_pool *pool)
{
	pool_free(pool);
}

/* What the superblock says, where the rest of the engine looks for it. */
static void take_super(struct vd_pool *pool)
{
	const struct vd_disk_super *s = pool->super;
	__le64 id;
	unsigned m;

	memcpy(&id, s->pool, sizeof(id));
	pool->id = le64_to_cpu(id);
	pool->nmembers = le32_to_cpu(s->nmembers);
	for (m = 0; m < pool->nmembers; m++) {
		memcpy(pool->member[m].uuid, s->member[m].uuid, 16);
		pool->member[m].blocks = le64_to_cpu(s->member[m].blocks);
		vd_atomic_add(&pool->groups, (int64_t)(pool->member[m].blocks >> VD_GROUP_SHIFT) + 1);
	}
	pool->ckpt_gen = le64_to_cpu(s->generation) + 1;
	pool->reserve_blocks = le64_to_cpu(s->reserve_blocks);
	vd_root_get(&pool->space_root, &s->space);
	vd_root_get(&pool->volumes_root, &s->volumes);
}

static uint64_t bounded(uint64_t v, uint64_t lo, uint64_t hi)
{
	return v < lo ? lo : v > hi ? hi : v;
}

static uint64_t reserve_for(uint64_t total)
{
	return bounded(total / 32, 128, 65536);
}

static uint64_t cache_bytes(const struct vd_pool *pool)
{
	return pool->host.cache ? pool->host.cache : CACHE_BYTES;
}

/* ---- format ---------------------------------------------------------------- */

static int label_write(struct vd_pool *pool, unsigned m)
{
	struct vd_disk_label *l = vd_zalloc(pool, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	memcpy(l->magic, VD_LABEL_MAGIC, sizeof(l->magic));
	l->version = cpu_to_le32(VD_FORMAT_VERSION);
	memcpy(l->pool, pool->super->pool, 16);
	memcpy(l->member, pool->member[m].uuid, 16);
	l->index = cpu_to_le32(m);
	l->blocks = cpu_to_le64(pool->member[m].blocks);
	memcpy(l->pool_name, pool->super->name, sizeof(l->pool_name));
	l->crc = cpu_to_le32(vd_port_crc32c(~0u, l, sizeof(*l)));
	r = pool->host.write(pool->host.ctx, m, VD_LABEL_BLOCK, l, 1);
	if (!r)
		r = pool->host.flush(pool->host.ctx, m);
	vd_free(pool, l);
	return r;
}

/* Old labels, owners and superblocks must not be taken for this pool's; and a
 * journal that is written once costs its host file no allocation later. */
static int wipe(struct vd_pool *pool, unsigned m)
{
	uint64_t start = le64_to_cpu(pool->super->journal_start), n = le64_to_cpu(pool->super->journal_blocks), at;
	void *zero = vd_zalloc(pool, 64 * VD_BLOCK);
	unsigned i;
	int r;

	if (!zero)
		return -ENOMEM;
	r = pool->host.write(pool->host.ctx, m, 0, zero, VD_SYSTEM_BLOCKS);
	for (i = 0; i < VD_JOURNAL_COPIES; i++)
		if (le32_to_cpu(pool->super->journal_member[i]) == m)
			for (at = 0; at < n && !r; at += 64)
				r = pool->host.write(pool->host.ctx, m, start + at, zero, (unsigned)vd_min(n - at, (uint64_t)64));
	if (!r)
		r = pool->host.flush(pool->host.ctx, m);
	vd_free(pool, zero);
	return r;
}

static int spec_to_super(const struct vd_host *host, const struct vd_format_spec *spec, struct vd_disk_super *s)
{
	uint64_t total = 0, journal, least = ~0ull;
	unsigned m;

	if (!vd_pool_name_valid(spec->name) || !spec->nmembers || spec->nmembers > VD_MEMBERS_MAX ||
	    (spec->sector_size != 512 && spec->sector_size != VD_BLOCK))
		return -EINVAL;
	for (m = 0; m < spec->nmembers; m++) {
		if (spec->blocks[m] < VD_MEMBER_MIN_BLOCKS)
			return -ENOSPC;
		if (spec->blocks[m] > 1ull << VD_MEMBER_SHIFT)
			return -EINVAL;
		total += spec->blocks[m];
		if (m < VD_JOURNAL_COPIES)
			least = vd_min(least, spec->blocks[m]);
		memcpy(s->member[m].uuid, spec->member_uuid[m], 16);
		s->member[m].blocks = cpu_to_le64(spec->blocks[m]);
	}
	journal = spec->journal_blocks ? spec->journal_blocks : bounded(least / 64, 128, 16384);
	if (journal < 64 || journal > least / 4 || journal > JOURNAL_MAX)
		return -EINVAL;
	memcpy(s->magic, VD_SUPER_MAGIC, sizeof(s->magic));
	s->version = cpu_to_le32(VD_FORMAT_VERSION);
	memcpy(s->pool, spec->uuid, 16);
	memcpy(s->name, spec->name, strlen(spec->name));
	s->generation = cpu_to_le64(1);
	s->epoch = cpu_to_le64(1);
	s->next_volume = cpu_to_le64(1);
	s->total_blocks = cpu_to_le64(total);
	s->created = cpu_to_le64(host->now(host->ctx));
	s->sector_size = cpu_to_le32(spec->sector_size);
	s->nmembers = cpu_to_le32(spec->nmembers);
	s->journal_start = cpu_to_le64(VD_SYSTEM_BLOCKS);
	s->journal_blocks = cpu_to_le64(journal);
	s->journal_member[0] = 0;
	s->journal_member[1] = cpu_to_le32(spec->nmembers > 1 ? 1 : ~0u);
	s->policy = cpu_to_le32(spec->policy);
	s->reserve_blocks = cpu_to_le64(reserve_for(total));
	return 0;
}

static int format_trees(struct vd_pool *pool)
{
	unsigned m;
	int r = vd_cache_init(pool, cache_bytes(pool));

	if (!r)
		r = vd_space_init(pool);
	vd_mutex_lock(&pool->ckpt_lock);
	for (m = 0; m < pool->nmembers && !r; m++)
		r = vd_space_format(pool, m);
	if (!r)
		r = vd_space_fold(pool);
	if (!r)
		r = vd_cache_write(pool);
	if (!r)
		r = vd_members_flush(pool);
	if (!r) {
		pool->super->used_blocks = cpu_to_le64(vd_space_used(pool));
		pool->super->meta_blocks = cpu_to_le64(vd_space_meta(pool));
		vd_root_put(&pool->super->space, &pool->space_root);
		r = vd_super_write(pool, pool->super);
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}

int vd_pool_format(const struct vd_host *host, const struct vd_format_spec *spec)
{
	struct vd_pool *pool = pool_new(host, 0);
	unsigned m;
	int r;

	if (!pool)
		return -ENOMEM;
	r = spec_to_super(host, spec, pool->super);
	if (r || spec->test)
		goto out;
	take_super(pool);
	pool->ckpt_gen = 1;
	for (m = 0; m < pool->nmembers && !r; m++)
		r = wipe(pool, m);
	for (m = 0; m < pool->nmembers && !r; m++)
		r = label_write(pool, m);
	if (!r)
		r = vd_volumes_init(pool);
	if (!r)
		r = format_trees(pool);
out:
	pool_free(pool);
	return r;
}

/* ---- reading what is there --------------------------------------------------- */

/* Labels, owner records and superblocks have their checksum behind the magic. */
#define CRC_AT 8
static bool crc_matches(void *buf, size_t size)
{
	uint8_t *at = (uint8_t *)buf + CRC_AT;
	__le32 was, zero = 0;
	bool ok;

	memcpy(&was, at, sizeof(was));
	memcpy(at, &zero, sizeof(zero));
	ok = vd_port_crc32c(~0u, buf, size) == le32_to_cpu(was);
	memcpy(at, &was, sizeof(was));
	return ok;
}
_Static_assert(offsetof(struct vd_disk_label, crc) == CRC_AT && offsetof(struct vd_disk_owner, crc) == CRC_AT &&
	       offsetof(struct vd_disk_super, crc) == CRC_AT, "place of the checksum");

int vd_label_read(const struct vd_host *host, unsigned member, struct vd_disk_label *label)
{
	struct vd_disk_label *l = host->alloc(host->ctx, sizeof(*l), VD_ALLOC_WAIT);
	int r;

	if (!l)
		return -ENOMEM;
	r = host->read(host->ctx, member, VD_LABEL_BLOCK, l, 1);
	if (r)
		;
	else if (memcmp(l->magic, VD_LABEL_MAGIC, sizeof(l->magic)))
		r = -ENODATA;
	else if (!crc_matches(l, sizeof(*l)) || l->pool_name[sizeof(l->pool_name) - 1])
		r = -EBADMSG;
	else if (le32_to_cpu(l->version) != VD_FORMAT_VERSION)
		r = -EPROTONOSUPPORT;
	else
		*label = *l;
	host->free(host->ctx, l);
	return r;
}

int vd_owner_read(const struct vd_host *host, unsigned member, struct vd_disk_owner *owner)
{
	struct vd_disk_owner *o = host->alloc(host->ctx, sizeof(*o), VD_ALLOC_WAIT);
	int r;

	if (!o)
		return -ENOMEM;
	r = host->read(host->ctx, member, VD_OWNER_BLOCK, o, 1);
	if (r)
		;
	else if (memcmp(o->magic, VD_OWNER_MAGIC, sizeof(o->magic)))
		r = -ENODATA;
	else if (!crc_matches(o, sizeof(*o)))
		r = -EBADMSG;
	else
		*owner = *o;
	host->free(host->ctx, o);
	return r;
}

static int owner_write(struct vd_pool *pool, uint32_t state)
{
	struct vd_disk_owner *o = vd_zalloc(pool, sizeof(*o));
	unsigned m;
	int r = 0;

	if (!o)
		return -ENOMEM;
	memcpy(o->magic, VD_OWNER_MAGIC, sizeof(o->magic));
	o->state = cpu_to_le32(state);
	o->incarnation = pool->super->incarnation;
	o->generation = pool->super->generation;
	o->who = pool->self;
	o->crc = cpu_to_le32(vd_port_crc32c(~0u, o, sizeof(*o)));
	for (m = 0; m < pool->nmembers && !r; m++)
		r = pool->host.write(pool->host.ctx, m, VD_OWNER_BLOCK, o, 1);
	vd_free(pool, o);
	return r;
}

static bool root_sane(const struct vd_disk_root *root)
{
	return root->height < VD_TREE_LEVELS_MAX;
}

/* 0, or why this slot is no superblock of `pool`. */
static int super_verify(struct vd_disk_super *s, const uint8_t pool[16])
{
	unsigned m, i, n;
	uint64_t jn, total = 0;

	if (memcmp(s->magic, VD_SUPER_MAGIC, sizeof(s->magic)))
		return -ENODATA;
	if (!crc_matches(s, sizeof(*s)) || memcmp(s->pool, pool, 16))
		return -EBADMSG;
	if (le32_to_cpu(s->version) != VD_FORMAT_VERSION || le64_to_cpu(s->incompat) & ~VD_FEATURE_INCOMPAT_KNOWN)
		return -EPROTONOSUPPORT;
	n = le32_to_cpu(s->nmembers);
	if (!n || n > VD_MEMBERS_MAX || s->name[sizeof(s->name) - 1] || le32_to_cpu(s->nsegments) > VD_SEGMENTS_MAX ||
	    !root_sane(&s->space) || !root_sane(&s->volumes) || !root_sane(&s->index) ||
	    (le32_to_cpu(s->sector_size) != 512 && le32_to_cpu(s->sector_size) != VD_BLOCK))
		return -EUCLEAN;
	for (m = 0; m < n; m++) {
		if (le64_to_cpu(s->member[m].blocks) < VD_MEMBER_MIN_BLOCKS || le64_to_cpu(s->member[m].blocks) > 1ull << VD_MEMBER_SHIFT)
			return -EUCLEAN;
		total += le64_to_cpu(s->member[m].blocks);
	}
	if (le64_to_cpu(s->total_blocks) != total || le64_to_cpu(s->used_blocks) > total || le64_to_cpu(s->reserve_blocks) > total ||
	    le64_to_cpu(s->promised_blocks) > NUMBER_MAX ||
	    le64_to_cpu(s->generation) > NUMBER_MAX || le64_to_cpu(s->incarnation) > NUMBER_MAX ||
	    le64_to_cpu(s->epoch) > NUMBER_MAX || le64_to_cpu(s->next_volume) > 1ull << 32)
		return -EUCLEAN;
	jn = le64_to_cpu(s->journal_blocks);
	for (i = 0; i < VD_JOURNAL_COPIES; i++) {
		m = le32_to_cpu(s->journal_member[i]);
		if (m == ~0u && i)
			continue;
		if (m >= n || jn < 64 || jn > JOURNAL_MAX || jn > le64_to_cpu(s->member[m].blocks) ||
		    le64_to_cpu(s->journal_start) > le64_to_cpu(s->member[m].blocks) - jn)
			return -EUCLEAN;
	}
	return 0;
}

struct found { bool label, whole, slot[2]; uint64_t generation, later, incarnation, owned, owned_generation; uint8_t uuid[16]; };

/* Reads both slots of a member; keeps the best of all members in pool->super. f->later: the
 * generation of one that a later version wrote. */
static int read_supers(struct vd_pool *pool, unsigned m, const uint8_t uuid[16], struct found *f, struct vd_disk_super *buf)
{
	unsigned slot;
	int r, worst = 0;

	f->whole = true;
	for (slot = 0; slot < 2; slot++) {
		r = pool->host.read(pool->host.ctx, m, VD_SUPER_BLOCK0 + slot * VD_SUPER_BLOCKS, buf, VD_SUPER_BLOCKS);
		if (r)
			f->whole = false;
		else
			r = super_verify(buf, uuid);
		if (r == -EPROTONOSUPPORT) {
			worst = r;
			f->later = vd_max(f->later, le64_to_cpu(buf->generation));
		}
		if (r)
			continue;
		f->slot[slot] = true;
		if (le64_to_cpu(buf->generation) > f->generation) {
			f->generation = le64_to_cpu(buf->generation);
			f->incarnation = le64_to_cpu(buf->incarnation);
		}
		if (le64_to_cpu(buf->generation) > le64_to_cpu(pool->super->generation))
			memcpy(pool->super, buf, sizeof(*buf));
	}
	return f->generation ? 0 : worst;
}

int vd_member_read(const struct vd_host *host, unsigned member, const struct vd_disk_label *label, uint64_t *blocks)
{
	struct vd_disk_super *s = host->alloc(host->ctx, sizeof(*s), VD_ALLOC_WAIT);
	unsigned m = le32_to_cpu(label->index);
	uint64_t generation = 0;

	if (!s)
		return -ENOMEM;
	for (unsigned slot = 0; slot < 2; slot++) {
		if (host->read(host->ctx, member, VD_SUPER_BLOCK0 + slot * VD_SUPER_BLOCKS, s, VD_SUPER_BLOCKS) || super_verify(s, label->pool) ||
		    le64_to_cpu(s->generation) <= generation || m >= le32_to_cpu(s->nmembers) || memcmp(s->member[m].uuid, label->member, 16))
			continue;
		generation = le64_to_cpu(s->generation);
		*blocks = le64_to_cpu(s->member[m].blocks);
	}
	host->free(host->ctx, s);
	return generation ? 0 : -ENODATA;
}

static int find_super(struct vd_pool *pool, struct found *found)
{
	struct vd_disk_super *buf = vd_alloc(pool, sizeof(*buf));
	struct vd_disk_label *label = vd_alloc(pool, sizeof(*label));
	struct vd_disk_owner *owner = vd_alloc(pool, sizeof(*owner));
	uint8_t uuid[16];
	bool any = false, whole = false;
	int r = 0, worst = -ENODATA;
	unsigned m;

	if (!buf || !label || !owner)
		r = -ENOMEM;
	for (m = 0; m < VD_MEMBERS_MAX && !r; m++) {
		int why = vd_label_read(&pool->host, m, label);

		if (why == -ENOMEM)
			r = why;
		if (why == -EPROTONOSUPPORT)
			worst = why;
		if (why && why != -ENODEV)
			vd_log(pool, VD_LOG_WARN, "member %a has no readable label, error %b", m, (uint64_t)-why);
		if (why || le32_to_cpu(label->index) != m)
			continue;
		if (any && memcmp(uuid, label->pool, 16)) {
			vd_log(pool, VD_LOG_WARN, "member %a belongs to another pool", m, 0);
			continue;
		}
		memcpy(uuid, label->pool, 16);
		any = true;
		found[m].label = true;
		memcpy(found[m].uuid, label->member, 16);
		why = read_supers(pool, m, uuid, &found[m], buf);
		if (why)
			worst = why;
		whole |= found[m].whole;
		if (!vd_owner_read(&pool->host, m, owner)) {
			found[m].owned = le64_to_cpu(owner->incarnation);
			found[m].owned_generation = le64_to_cpu(owner->generation);
		}
	}
	/* A slot that could not be read may be the newest; what was acknowledged
	 * since is in every member's newest, so one member read whole is enough. */
	if (!r && any && !whole)
		r = -EIO;
	if (!r && !le64_to_cpu(pool->super->generation))
		r = worst;
	for (m = 0; m < VD_MEMBERS_MAX && !r; m++)
		if (found[m].later > le64_to_cpu(pool->super->generation))
			r = -EPROTONOSUPPORT;
	vd_free(pool, buf);
	vd_free(pool, label);
	vd_free(pool, owner);
	return r;
}

static bool is_short(struct vd_pool *pool, unsigned m)
{
	uint64_t has = pool->host.size ? pool->host.size(pool->host.ctx, m) : 0;

	if (!has || has >= pool->member[m].blocks)
		return false;
	pool->member[m].has = has;
	vd_log(pool, VD_LOG_WARN, "member %a is too short, with %b blocks of 4 KiB: give it the size and contents it had", m, has);
	return true;
}

/* P1, P2 */
static unsigned mark_missing(struct vd_pool *pool, const struct found *found)
{
	uint64_t best = le64_to_cpu(pool->super->generation), owned = 0;
	unsigned m, missing = 0;

	for (m = 0; m < pool->nmembers; m++)
		owned = vd_max(owned, found[m].owned);
	owned = vd_min(owned, le64_to_cpu(pool->super->incarnation)); /* P3: then no member has what it had */
	for (m = 0; m < pool->nmembers; m++) {
		bool out = le32_to_cpu(pool->super->member[m].flags) & VD_MEMBER_OUT;

		if (found[m].label && !out && found[m].generation + 1 >= best && found[m].incarnation >= owned &&
		    !memcmp(found[m].uuid, pool->member[m].uuid, 16)) {
			pool->member[m].behind = found[m].generation < best;
			pool->member[m].is_short = is_short(pool, m);
			missing += pool->member[m].is_short;
			continue;
		}
		if (found[m].label)
			vd_log(pool, VD_LOG_WARN, "member %a is stale (generation %b): left out", m, found[m].generation);
		else
			vd_log(pool, VD_LOG_WARN, "member %a is missing", m, 0);
		pool->member[m].missing = true;
		missing++;
	}
	return missing;
}

/* P3, without the journal: *only: one slot is all there is. */
static void find_newer(struct vd_pool *pool, const struct found *found, bool *only)
{
	uint64_t best = le64_to_cpu(pool->super->generation);
	unsigned m;

	*only = true;
	for (m = 0; m < pool->nmembers; m++) {
		if (!found[m].label || pool->member[m].missing)
			continue;
		if (found[m].slot[(best + 1) & 1])
			*only = false;
		if (found[m].owned_generation > best || found[m].owned > le64_to_cpu(pool->super->incarnation))
			pool->rolled_back = true;
	}
}

/* ---- open ------------------------------------------------------------------- */

static int begin_writing(struct vd_pool *pool)
{
	uint64_t inc = le64_to_cpu(pool->super->incarnation) + 1;
	int r;

	vd_mutex_lock(&pool->ckpt_lock);
	r = vd_super_level(pool, pool->super);
	if (!r)
		r = vd_journal_begin(pool, inc);
	if (r == -ENOSPC) {
		r = vd_checkpoint_locked(pool, NULL, NULL);
		if (!r)
			r = vd_journal_begin(pool, inc);
	}
	if (!r) {
		pool->super->incarnation = cpu_to_le64(inc);
		pool->super->generation = cpu_to_le64(pool->ckpt_gen);
		if (vd_atomic_read(&pool->damage))
			pool->super->ro_compat |= cpu_to_le64(VD_FEATURE_DAMAGED);
		r = vd_super_write(pool, pool->super);
	}
	if (!r) {
		pool->ckpt_gen++;
		r = owner_write(pool, 1);
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}

/* Where metadata is lost in both copies, what is left can still be read. */
static int damaged(struct vd_pool *pool, int r)
{
	if (r != -EBADMSG && r != -EUCLEAN)
		return r;
	vd_log(pool, VD_LOG_ERROR, "metadata is damaged, error %a: opened read-only; a check tells what is lost", (uint64_t)-r, 0);
	vd_pool_damage(pool);
	pool->flags |= VD_OPEN_READONLY;
	vd_pool_set_mode(pool, VD_MODE_READONLY);
	return 0;
}

/* P3, with the journal replayed. */
static int check_rolled_back(struct vd_pool *pool, bool only)
{
	int r = only && !pool->rolled_back ? vd_journal_outlived(pool, &pool->rolled_back) : 0;

	if (r || !pool->rolled_back)
		return r;
	vd_pool_damage(pool);
	vd_log(pool, VD_LOG_ERROR, "the newest superblock is lost on every member; the state of checkpoint %a, with the journal since, is shown: "
	       "some of it may have been overwritten, a check tells", le64_to_cpu(pool->super->generation), 0);
	if (pool->flags & VD_OPEN_ACCEPT)
		return 0;
	pool->flags |= VD_OPEN_READONLY;
	vd_pool_set_mode(pool, VD_MODE_READONLY);
	return 0;
}

/* The pool was called damaged because one node could not be read, and now it can. */
static bool readable_again(struct vd_pool *pool)
{
	const struct vd_disk_suspect s = pool->super->suspect;
	const struct vd_ptr ptr = { le64_to_cpu(s.a), le64_to_cpu(s.b), le64_to_cpu(s.gen) };

	if (!ptr.gen || !vd_node_is_there(pool, &ptr))
		return false;
	vd_log(pool, VD_LOG_WARN, "metadata block %a can be read again", ptr.a, 0);
	memset(&pool->super->suspect, 0, sizeof(s));
	pool->super->ro_compat &= ~cpu_to_le64(VD_FEATURE_DAMAGED);
	return true;
}

int vd_pool_open(const struct vd_host *host, unsigned flags, const struct vd_disk_holder *self, struct vd_pool **out)
{
	struct vd_pool *pool = pool_new(host, flags);
	struct found *found;
	bool only = false;
	int r;

	if (!pool)
		return -ENOMEM;
	if (self)
		pool->self = *self;
	found = vd_zalloc(pool, VD_MEMBERS_MAX * sizeof(*found));
	r = found ? find_super(pool, found) : -ENOMEM;
	if (!r) {
		take_super(pool);
		if (le64_to_cpu(pool->super->ro_compat) & ~VD_FEATURE_RO_COMPAT_KNOWN && !(flags & VD_OPEN_READONLY))
			r = -EROFS;
		if (mark_missing(pool, found))
			pool->flags |= VD_OPEN_READONLY;
		find_newer(pool, found, &only);
		if (le64_to_cpu(pool->super->ro_compat) & VD_FEATURE_DAMAGED && !readable_again(pool)) {
			vd_atomic_set(&pool->damage, 1);
			pool->known_damage = true;
			if (!(flags & VD_OPEN_REPAIR))
				pool->flags |= VD_OPEN_READONLY;
		}
		vd_atomic_set(&pool->mode, pool->flags & VD_OPEN_READONLY ? VD_MODE_READONLY : VD_MODE_RW);
	}
	vd_free(pool, found);
	if (!r && vd_pool_writable(pool))
		r = vd_memory_init(pool);
	if (!r)
		r = vd_cache_init(pool, cache_bytes(pool));
	if (!r)
		r = vd_space_init(pool);
	if (!r)
		r = vd_volumes_init(pool);
	if (!r)
		r = vd_journal_init(pool);
	if (!r && !(flags & VD_OPEN_NO_REPLAY))
		r = damaged(pool, vd_journal_replay(pool, vd_volumes_replay));
	if (!r && !(flags & VD_OPEN_NO_REPLAY))
		r = check_rolled_back(pool, only);
	if (!r && vd_pool_writable(pool))
		r = begin_writing(pool);
	if (!r)
		r = damaged(pool, vd_volumes_recover(pool));
	if (r) {
		pool_free(pool);
		return r;
	}
	*out = pool;
	return 0;
}

int vd_pool_close(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_list *pos;
	bool open = false;
	int r = 0;

	vd_mutex_lock(&vs->lock);
	vd_list_for_each(pos, &vs->all)
		open |= vd_container(pos, struct vd_volume, all)->opens > 0;
	vd_mutex_unlock(&vs->lock);
	if (open)
		return -EBUSY;
	if (vd_pool_writable(pool)) {
		r = vd_flush(pool);
		if (!r)
			r = vd_checkpoint(pool);
		if (!r)
			r = owner_write(pool, 0);
	}
	pool_free(pool);
	return r;
}

/* ---- the pool as a whole ------------------------------------------------------ */

int vd_flush(struct vd_pool *pool)
{
	switch (vd_pool_mode(pool)) {
	case VD_MODE_FAILED:
		return -EIO;
	case VD_MODE_READONLY:
		return 0;
	default:
		return vd_journal_commit(pool, ~0ull);
	}
}

void vd_pool_now(struct vd_pool *pool, enum vd_pool_mode *mode, uint64_t *epoch)
{
	*mode = vd_pool_mode(pool);
	*epoch = (uint64_t)vd_atomic_read(&pool->volumes->epoch);
}

void vd_pool_info(struct vd_pool *pool, struct vd_pool_info *info)
{
	const struct vd_disk_super *s = pool->super;
	struct vd_volumes *vs = pool->volumes;
	unsigned m, i;

	memset(info, 0, sizeof(*info));
	vd_mutex_lock(&pool->ckpt_lock);
	memcpy(info->uuid, s->pool, 16);
	memcpy(info->name, s->name, sizeof(info->name));
	info->mode = vd_pool_mode(pool);
	info->damaged = vd_atomic_read(&pool->damage);
	info->rolled_back = pool->rolled_back;
	info->read_only_feature = le64_to_cpu(s->ro_compat) & ~VD_FEATURE_RO_COMPAT_KNOWN;
	info->nmembers = pool->nmembers;
	for (m = 0; m < pool->nmembers; m++)
		if (pool->member[m].missing || pool->member[m].is_short) {
			info->missing[m / 8] |= (uint8_t)(1u << m % 8);
			info->too_short[m / 8] |= (uint8_t)(pool->member[m].is_short << m % 8);
			info->nmissing++;
		}
	info->total_blocks = le64_to_cpu(s->total_blocks);
	info->used_blocks = info->total_blocks - vd_space_free(pool);
	info->metadata_blocks = vd_space_meta(pool);
	info->reserve_blocks = pool->reserve_blocks;
	info->promised_blocks = vd_space_set_aside(pool);
	info->reservable_blocks = vd_reserve_most(pool);
	info->generation = le64_to_cpu(s->generation);
	info->incarnation = le64_to_cpu(s->incarnation);
	info->epoch = (uint64_t)vd_atomic_read(&vs->epoch);
	info->seq = vd_journal_last(pool);
	info->durable_seq = vd_journal_durable(pool);
	info->journal_blocks = le64_to_cpu(s->journal_blocks);
	info->journal_used = vd_journal_used(pool);
	info->overlay_extents = (uint64_t)vd_atomic_read(&vs->overlay);
	info->meta_written = vd_journal_written(pool) + vd_cache_written(pool);
	for (i = 0; i < 4; i++)
		info->policy.threshold[i] = le32_to_cpu(s->threshold[i]);
	info->policy.flags = le32_to_cpu(s->policy);
	info->policy.grow_by = le64_to_cpu(s->grow_by);
	info->policy.grow_to = le64_to_cpu(s->grow_to);
	info->sector_size = le32_to_cpu(s->sector_size);
	info->created = le64_to_cpu(s->created);
	info->transaction = le64_to_cpu(s->transaction);
	for (unsigned i = 0; i < VD_PINS; i++)
		info->pinned[i] = (uint64_t)vd_atomic_read(&pool->pinned[i]);
	vd_mutex_unlock(&pool->ckpt_lock);
}

int vd_pool_member(struct vd_pool *pool, unsigned m, uint8_t uuid[16], uint64_t *blocks, bool *missing)
{
	if (m >= pool->nmembers)
		return -ENOENT;
	memcpy(uuid, pool->member[m].uuid, 16);
	*blocks = vd_member_blocks(pool, m);
	*missing = pool->member[m].missing || pool->member[m].is_short;
	return 0;
}

/* The superblock that tells of `added` blocks more in member m, which has `blocks` then. */
static void super_enlarge(struct vd_disk_super *s, unsigned m, uint64_t blocks, uint64_t added)
{
	uint64_t total = le64_to_cpu(s->total_blocks) + added;

	s->member[m].blocks = cpu_to_le64(blocks);
	s->total_blocks = cpu_to_le64(total);
	s->reserve_blocks = cpu_to_le64(reserve_for(total));
}

static int super_add(struct vd_pool *pool, struct vd_disk_super *s, void *arg)
{
	unsigned m = pool->nmembers;
	uint64_t blocks = pool->member[m].blocks;

	(void)arg;
	__atomic_store_n(&pool->nmembers, m + 1, __ATOMIC_RELEASE);
	vd_atomic_add(&pool->groups, (int64_t)(blocks >> VD_GROUP_SHIFT) + 1);
	memcpy(s->member[m].uuid, pool->member[m].uuid, 16);
	s->nmembers = cpu_to_le32(m + 1);
	super_enlarge(s, m, blocks, blocks);
	return vd_space_format(pool, m);
}

/* No block of a new member, or of a new part of one, is given out before the superblock that
 * tells of it is durable: a record in the journal may be durable at once, and must not name
 * a block that after a crash there is not. */
int vd_pool_add(struct vd_pool *pool, const uint8_t uuid[16], uint64_t blocks, unsigned sector_size)
{
	unsigned m;
	int r;

	if (!vd_pool_writable(pool))
		return -EROFS;
	if (blocks < VD_MEMBER_MIN_BLOCKS || blocks > 1ull << VD_MEMBER_SHIFT || sector_size > le32_to_cpu(pool->super->sector_size))
		return -EINVAL;
	vd_mutex_lock(&pool->ckpt_lock);
	m = pool->nmembers;
	if (m == VD_MEMBERS_MAX) {
		vd_mutex_unlock(&pool->ckpt_lock);
		return -EEXIST;
	}
	memcpy(pool->member[m].uuid, uuid, 16);
	pool->member[m].blocks = blocks;
	pool->member[m].behind = true;
	pool->member[m].missing = true; /* for those that take blocks */
	/* The label first: without it the pool would miss a member after a crash;
	 * a label alone, of a member no superblock knows, does no harm. */
	r = wipe(pool, m);
	if (!r)
		r = label_write(pool, m);
	if (!r)
		r = vd_checkpoint_locked(pool, super_add, NULL);
	if (!r) {
		pool->reserve_blocks = le64_to_cpu(pool->super->reserve_blocks);
		__atomic_store_n(&pool->member[m].missing, false, __ATOMIC_RELEASE);
		vd_space_joined(pool, m);
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	if (!r)
		vd_pool_room(pool);
	return r;
}

struct grow_arg { unsigned m; uint64_t blocks; };

static int super_grow(struct vd_pool *pool, struct vd_disk_super *s, void *arg)
{
	const struct grow_arg *a = arg;

	super_enlarge(s, a->m, a->blocks, a->blocks - pool->member[a->m].blocks);
	return vd_space_stretch(pool, a->m, a->blocks);
}

int vd_pool_grow(struct vd_pool *pool, unsigned m, uint64_t blocks)
{
	struct grow_arg a = { m, blocks };
	uint64_t before;
	int r = 0;

	if (!vd_pool_writable(pool))
		return -EROFS;
	if (blocks > 1ull << VD_MEMBER_SHIFT)
		return -EINVAL;
	vd_mutex_lock(&pool->ckpt_lock);
	before = m < pool->nmembers ? pool->member[m].blocks : 0;
	if (!before)
		r = -ENOENT;
	else if (blocks > before)
		r = vd_checkpoint_locked(pool, super_grow, &a);
	if (!r && blocks > before) {
		__atomic_store_n(&pool->member[m].blocks, blocks, __ATOMIC_RELAXED);
		vd_atomic_add(&pool->groups, (int64_t)((blocks >> VD_GROUP_SHIFT) - (before >> VD_GROUP_SHIFT)));
		pool->reserve_blocks = le64_to_cpu(pool->super->reserve_blocks);
		vd_space_grown(pool, m, before);
	}
	vd_mutex_unlock(&pool->ckpt_lock);
	if (!r)
		vd_pool_room(pool);
	return r;
}

static int super_set(struct vd_pool *pool, struct vd_disk_super *s, void *arg)
{
	const struct vd_pool_policy *p = arg;
	unsigned i;

	(void)pool;
	for (i = 0; i < 4; i++)
		s->threshold[i] = cpu_to_le32(p->threshold[i]);
	s->policy = cpu_to_le32(p->flags);
	s->grow_by = cpu_to_le64(p->grow_by);
	s->grow_to = cpu_to_le64(p->grow_to);
	return 0;
}

int vd_pool_set(struct vd_pool *pool, const struct vd_pool_policy *policy)
{
	unsigned i;
	int r;

	for (i = 0; i < 4; i++)
		if (policy->threshold[i] > 1000)
			return -EINVAL;
	if (policy->grow_by > VD_PBLK_NONE || policy->grow_to > VD_PBLK_NONE)
		return -EINVAL;
	vd_mutex_lock(&pool->ckpt_lock);
	if ((policy->flags ^ le32_to_cpu(pool->super->policy)) & ~VD_POLICY_KNOWN) /* what a later version has set stays */
		r = -EINVAL;
	else
		r = vd_checkpoint_locked(pool, super_set, (void *)policy);
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}

static int super_transaction(struct vd_pool *pool, struct vd_disk_super *s, void *arg)
{
	(void)pool;
	s->transaction = cpu_to_le64(*(const uint64_t *)arg);
	return 0;
}

int vd_pool_set_transaction(struct vd_pool *pool, uint64_t was, uint64_t now)
{
	int r = -EBUSY;

	vd_mutex_lock(&pool->ckpt_lock);
	if (le64_to_cpu(pool->super->transaction) == was)
		r = vd_checkpoint_locked(pool, super_transaction, &now);
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}
