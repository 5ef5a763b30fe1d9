// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/*
 * A checkpoint: everything up to sequence S goes from the overlays into the trees.
 *
 *   cut      under meta and seal: S, epoch, and of each changed volume its frozen
 *            layers, its record and its counters                    (a moment)
 *   commit   S becomes durable in the journal                       (I7)
 *   fold     layers into trees, oldest first; records, index, deletions; then the
 *            space tree last, since all of these allocate and free
 *   durable  nodes written, members flushed, superblock into the other slot of every
 *            member, members flushed
 *   publish  under meta: layers are replaced by the trees that say the same
 *
 * C1  Before publishing, readers use the old trees; their blocks are not reused
 *     until the superblock is durable and all requests begun before have ended.
 * C2  A root's count is the number of volume records that have it, plus, during a
 *     fold, one for each layer that will be folded onto it.  New holds are taken
 *     before old ones are dropped; so a tree that only one layer still wants has
 *     count 1 and is changed without adding references to its children.
 * C3  Nothing that happens after the cut is in the checkpoint: records are pinned
 *     (V1), layers are frozen, counts change only here.
 * C4  A node of a volume's mapping that is lost in every copy costs what is below it
 *     and no more: the fold leaves it as it is.  A lost node of the pool's own trees
 *     ends the checkpoint and with it all writing; the superblock then only gets the
 *     flag, and all that was acknowledged is in the journal.  So does any node whose
 *     copies are not bad but cannot be read; the flag names it, and an opening that can
 *     read it takes the flag away.
 */
#include "record.h"

#define TRIM_PAGES 2048u /* pages of a dying volume freed in one checkpoint */

struct ckpt {
	struct vd_pool *pool;
	struct vd_list cut;        /* vd_volume.cut */
	struct vd_layer *fold;     /* oldest first, by fold_next */
	struct vd_layer **fold_end;
	struct vd_root volumes_root;
	uint64_t seq, epoch, next_id, next_link, promised;
	unsigned gone, counted, dying; /* counted: of those gone, in volumes->dying */
};

#define cut_volume(pos) vd_container(pos, struct vd_volume, cut)

static bool is_index(const struct vd_volume *vol)
{
	return !vol->id;
}

static bool cut_dying(const struct vd_volume *vol)
{
	return le32_to_cpu(vol->cut_rec->d.flags) & VD_VOL_DELETING;
}

/* ---- cut --------------------------------------------------------------- */

/* For what replace_root() may want. */
static int make_blank(struct vd_volume *vol)
{
	if (!vol->blank)
		vol->blank = vd_layer_bottom(vol->pool, &vol->disk_root);
	return vol->blank ? 0 : -ENOMEM;
}

static int make_spares(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_list *pos;
	int r = vd_layer_spare(&vs->index);

	if (!r)
		r = make_blank(&vs->index);
	vd_list_for_each(pos, &vs->all) {
		struct vd_volume *vol = vd_container(pos, struct vd_volume, all);

		if (!r && (vol->opens || vd_volume_is_dirty(vol)))
			r = vd_layer_spare(vol);
		if (!r && vd_record_flags(vol) & VD_VOL_DELETING)
			r = make_blank(vol);
	}
	return r;
}

/* Puts the layers of a chain that are not yet listed behind those that are, parent first. */
static void list_chain(struct ckpt *c, struct vd_layer *top)
{
	struct vd_layer *l, *head = NULL, *last = NULL;

	for (l = top; !l->bottom && !l->marked; l = l->parent) {
		l->marked = true;
		l->fold_next = head;
		head = l;
		if (!last)
			last = l;
	}
	if (!head)
		return;
	*c->fold_end = head;
	c->fold_end = &last->fold_next;
}

/* All layers to be folded.  meta */
static void list_layers(struct ckpt *c)
{
	struct vd_list *pos;
	struct vd_layer *l;

	c->fold_end = &c->fold;
	vd_list_for_each(pos, &c->cut)
		list_chain(c, cut_volume(pos)->cut_base);
	for (l = c->fold; l; l = l->fold_next) {
		l->refs++; /* so that publishing can drop the others */
		l->needed = 0;
	}
}

static int cut(struct ckpt *c)
{
	struct vd_pool *pool = c->pool;
	struct vd_volumes *vs = pool->volumes;
	int r;

	vd_mutex_lock(&vs->lock);
	r = make_spares(pool);
	if (r) {
		vd_mutex_unlock(&vs->lock);
		return r;
	}
	if (vd_atomic_read(&vs->dying))
		vd_volume_dirty(&vs->index); /* a deletion that ends leaves the attention list */
	vd_write_lock(&vs->seal);
	c->seq = vd_journal_last(pool);
	c->epoch = (uint64_t)vd_atomic_read(&vs->epoch);
	c->next_id = vs->next_id;
	c->next_link = vs->next_link;
	c->promised = vd_space_promised(pool); /* R2 */
	while (!vd_list_empty(&vs->dirty)) {
		struct vd_volume *vol = vd_container(vs->dirty.next, struct vd_volume, dirty);

		vd_volume_undirty(vol);
		vd_list_add_tail(&c->cut, &vol->cut);
		vd_write_lock(&vol->map);
		vd_layer_freeze(vol);
		vol->cut_base = vol->base;
		vol->cut_base->refs++;
		vol->cut_mapped = vol->mapped;
		vol->cut_own = vol->own;
		vol->cut_snapshot = vol->last_snapshot;
		vd_write_unlock(&vol->map);
		vol->cut_rec = vol->rec;
		vol->cut_rec->refs++;
	}
	vd_write_unlock(&vs->seal);
	list_layers(c);
	vd_mutex_unlock(&vs->lock);
	return 0;
}

/* ---- fold -------------------------------------------------------------- */

/* Who will want each root (C2). */
static int count_consumers(struct ckpt *c)
{
	struct vd_pool *pool = c->pool;
	struct vd_list *pos;
	struct vd_layer *l;
	uint32_t left;
	int r = 0;

	for (l = c->fold; l && !r; l = l->fold_next) {
		if (l->parent->bottom)
			r = vd_tree_hold(pool, &l->parent->root);
		else
			l->parent->needed++;
	}
	for (pos = c->cut.next; pos != &c->cut && !r; pos = pos->next) {
		l = cut_volume(pos)->cut_base;
		if (l->bottom)
			r = vd_tree_hold(pool, &l->root);
		else
			l->needed++;
	}
	for (pos = c->cut.next; pos != &c->cut && !r; pos = pos->next)
		r = vd_tree_release(pool, &cut_volume(pos)->disk_root, &left);
	return r;
}

static struct vd_layer *fill(struct vd_layer **blank, const struct vd_root *root)
{
	struct vd_layer *l = *blank;

	*blank = NULL;
	l->root = *root;
	return l;
}

static int fold_layer(struct vd_pool *pool, struct vd_layer *l)
{
	struct vd_layer *parent = l->parent;
	struct vd_root root = parent->bottom ? parent->root : parent->folded->root;
	unsigned i, flags = l->owner ? 0 : VD_TREE_NOREF;
	int64_t mapped = 0;
	struct vd_ext e;
	vd_vblk_t v = 0;
	int r = 0;

	for (; !r && v < VD_VBLK_END && vd_ov_next(&l->ov, v, &e); v = e.v + e.len)
		r = vd_tree_set(pool, &root, l->owner, &e, flags, &mapped);
	for (i = 1; !r && i < l->needed; i++)
		r = vd_tree_hold(pool, &root);
	if (r)
		return r;
	l->folded = fill(&l->blank, &root);
	return 0;
}

/* The tree a volume has now; the record's reference on it is ours. */
static const struct vd_root *folded_root(const struct vd_volume *vol)
{
	return vol->cut_base->bottom ? &vol->cut_base->root : &vol->cut_base->folded->root;
}

/* What the checkpoint leaves the volume with, when folding its layers is not all. */
static void replace_root(struct vd_volume *vol, const struct vd_root *root)
{
	vol->cut_root = *root;
	if (!vd_root_same(root, folded_root(vol)))
		vol->cut_new = fill(&vol->blank, root);
}

static int drop_page(struct vd_pool *pool, struct vd_volume *vol)
{
	uint32_t left;

	return vol->disk_page.gen ? vd_space_drop_node(pool, &vol->disk_page, &left) : 0;
}

static int write_record(struct ckpt *c, struct vd_volume *vol)
{
	struct vd_pool *pool = c->pool;
	struct vd_disk_volume *d;
	struct vd_disk_node *h;
	struct vd_slot slot = { .key = vol->id };
	struct vd_node *n;
	int r = vd_node_new(pool, VD_NODE_VOLUME, 0, vol->id, &n);

	if (r)
		return r;
	d = n->data;
	h = &d->h;
	memcpy((uint8_t *)d + sizeof(*h), (const uint8_t *)&vol->cut_rec->d + sizeof(*h), sizeof(*d) - sizeof(*h));
	vd_root_put(&d->root, &vol->cut_root);
	d->mapped = cpu_to_le64(vol->cut_mapped);
	d->own_blocks = cpu_to_le64(vol->cut_own);
	d->last_snapshot = cpu_to_le64(vol->cut_snapshot);
	h->count = cpu_to_le16(1);
	h->key_lo = cpu_to_le64(vol->id);
	h->key_hi = cpu_to_le64((uint64_t)vol->id + 1);
	slot.ptr = n->ptr;
	vd_node_put(pool, n);
	r = vd_ptree_set(pool, &c->volumes_root, VD_NODE_VOLUME, &slot);
	if (!r)
		r = drop_page(pool, vol);
	vol->disk_page = slot.ptr;
	return r;
}

/* A volume whose deletion goes on: a piece of its tree goes, in the end its record. */
static int fold_dying(struct ckpt *c, struct vd_volume *vol, struct vd_root *index)
{
	struct vd_pool *pool = c->pool;
	struct vd_ext attention = { .v = VD_INDEX_ATTENTION | vol->id, .len = 1, .kind = VD_HOLE };
	struct vd_root root = vol->cut_root;
	vd_vblk_t left = 0;
	int64_t mapped = 0;
	int r = 0;

	if (root.ptr.gen)
		r = vd_tree_trim(pool, &root, vol->id, TRIM_PAGES, &left);
	if (r)
		return r;
	replace_root(vol, &root);
	if (root.ptr.gen) {
		c->dying++;
		return write_record(c, vol);
	}
	vol->gone = true;
	c->gone++;
	c->counted += vol->dying;
	if (vol->disk_page.gen)
		r = vd_ptree_del(pool, &c->volumes_root, vol->id);
	if (!r)
		r = drop_page(pool, vol);
	return r ? r : vd_tree_set(pool, index, 0, &attention, VD_TREE_NOREF, &mapped);
}

static int fold(struct ckpt *c)
{
	struct vd_pool *pool = c->pool;
	struct vd_volume *index = &pool->volumes->index;
	struct vd_list *pos;
	struct vd_layer *l;
	struct vd_root root;
	int r = count_consumers(c);

	for (l = c->fold; l && !r; l = l->fold_next)
		r = fold_layer(pool, l);
	if (r)
		return r;
	c->volumes_root = pool->volumes_root;
	vd_list_for_each(pos, &c->cut)
		cut_volume(pos)->cut_root = *folded_root(cut_volume(pos));
	root = index->cut_root; /* of the last checkpoint, when nothing changed in it */
	for (pos = c->cut.next; pos != &c->cut && !r; pos = pos->next) {
		struct vd_volume *vol = cut_volume(pos);

		if (is_index(vol))
			continue;
		r = cut_dying(vol) ? fold_dying(c, vol, &root) : write_record(c, vol);
	}
	if (!r && index->cut_base)
		replace_root(index, &root);
	if (!r)
		r = vd_space_fold(pool);
	return r;
}

/* ---- durable ------------------------------------------------------------ */

int vd_members_flush(struct vd_pool *pool)
{
	unsigned m;
	int r = 0;

	for (m = 0; m < pool->nmembers && !r; m++)
		r = pool->host.flush(pool->host.ctx, m);
	return r;
}

static int super_put(struct vd_pool *pool, unsigned m, struct vd_disk_super *super)
{
	uint64_t at = VD_SUPER_BLOCK0 + (le64_to_cpu(super->generation) & 1) * VD_SUPER_BLOCKS;

	super->crc = 0;
	super->crc = cpu_to_le32(vd_port_crc32c(~0u, super, sizeof(*super)));
	return pool->host.write(pool->host.ctx, m, at, super, VD_SUPER_BLOCKS);
}

int vd_super_level(struct vd_pool *pool, struct vd_disk_super *super)
{
	unsigned m;
	int r;

	for (m = 0; m < pool->nmembers; m++) {
		if (!pool->member[m].behind)
			continue;
		r = super_put(pool, m, super);
		if (!r)
			r = pool->host.flush(pool->host.ctx, m);
		if (r)
			return r;
		pool->member[m].behind = false;
	}
	return 0;
}

int vd_super_write(struct vd_pool *pool, struct vd_disk_super *super)
{
	unsigned m;
	int r = vd_super_level(pool, super); /* a member just added: the others name it */

	for (m = 0; m < pool->nmembers && !r; m++)
		r = super_put(pool, m, super);
	return r ? r : vd_members_flush(pool);
}

static int make_durable(struct ckpt *c, struct vd_disk_super *super)
{
	struct vd_pool *pool = c->pool;
	int r = vd_cache_write(pool);

	if (!r)
		r = vd_members_flush(pool);
	if (r)
		return r;
	super->generation = cpu_to_le64(pool->ckpt_gen);
	super->epoch = cpu_to_le64(c->epoch);
	super->seq = cpu_to_le64(c->seq);
	super->next_volume = cpu_to_le64(c->next_id);
	super->next_link = cpu_to_le32((uint32_t)c->next_link);
	super->used_blocks = cpu_to_le64(vd_space_used(pool));
	super->meta_blocks = cpu_to_le64(vd_space_meta(pool));
	super->promised_blocks = cpu_to_le64(c->promised);
	if (vd_atomic_read(&pool->damage))
		super->ro_compat |= cpu_to_le64(VD_FEATURE_DAMAGED);
	vd_root_put(&super->space, &pool->space_root);
	vd_root_put(&super->volumes, &c->volumes_root);
	vd_root_put(&super->index, &pool->volumes->index.cut_root);
	vd_journal_tail_at(pool, c->seq, super);
	return vd_super_write(pool, super);
}

/* ---- publish ------------------------------------------------------------ */

/* Layers that were folded are replaced wherever a volume's chain has them.  The
 * folded ones stay until every volume's lock was taken once: until then a reader
 * of another volume may still walk through them. */
static void adopt(struct vd_pool *pool, struct vd_volume *vol)
{
	struct vd_layer *l, *p, *old = NULL;

	vd_write_lock(&vol->map);
	if (vol->cut_new) {
		old = vol->base;
		vol->base = vol->cut_new;
		vol->cut_new = NULL;
	} else if (vol->base->folded) {
		old = vol->base;
		vol->base = old->folded;
		vol->base->refs++;
	} else {
		for (l = vol->base; !l->bottom; l = l->parent) {
			p = l->parent;
			if (p->folded) {
				p->folded->refs++;
				__atomic_store_n(&l->parent, p->folded, __ATOMIC_RELEASE);
				vd_layer_put(pool, p); /* not the last: count_consumers holds one */
			}
		}
	}
	vd_write_unlock(&vol->map);
	if (old)
		vd_layer_put(pool, old);
}

static void end(struct ckpt *c, bool ok)
{
	struct vd_pool *pool = c->pool;
	struct vd_volumes *vs = pool->volumes;
	struct vd_list *pos, *tmp;
	struct vd_layer *l, *next;

	vd_mutex_lock(&vs->lock);
	if (ok) {
		vs->root = pool->volumes_root = c->volumes_root;
		adopt(pool, &vs->index);
		vd_list_for_each(pos, &vs->all)
			adopt(pool, vd_container(pos, struct vd_volume, all));
	}
	vd_list_for_each_safe(pos, tmp, &c->cut) {
		struct vd_volume *vol = cut_volume(pos);

		vd_list_del(&vol->cut);
		if (ok)
			vol->disk_root = vol->cut_root;
		if (vol->cut_new) { /* failed before it was published */
			vd_layer_put(pool, vol->cut_new);
			vol->cut_new = NULL;
		}
		vd_layer_put(pool, vol->cut_base);
		vol->cut_base = NULL;
		if (ok && !is_index(vol) && !vol->gone && cut_dying(vol))
			vd_volume_dirty(vol);
		vd_record_put(pool, vol->cut_rec);
		vol->cut_rec = NULL;
		if (ok && vol->gone)
			vd_volume_forget(pool, vol);
	}
	for (l = c->fold; l; l = next) {
		next = l->fold_next;
		if (l->folded)
			vd_layer_put(pool, l->folded);
		l->folded = NULL;
		l->marked = false;
		vd_layer_put(pool, l);
	}
	if (ok)
		vd_volumes_evict(pool);
	vd_mutex_unlock(&vs->lock);
	vd_atomic_add(&vs->dying, -(int64_t)c->counted);
}

/* ---- all together -------------------------------------------------------- */

/* Damage was met that the superblock does not tell of. */
static bool unmarked(struct vd_pool *pool)
{
	return vd_atomic_read(&pool->damage) && !(le64_to_cpu(pool->super->ro_compat) & VD_FEATURE_DAMAGED);
}

/* The last superblock again, with the flag: trees, tail and sequence stay. */
static void mark(struct vd_pool *pool, struct vd_disk_super *super, const struct vd_ptr *suspect)
{
	memcpy(super, pool->super, sizeof(*super));
	super->ro_compat |= cpu_to_le64(VD_FEATURE_DAMAGED);
	if (suspect)
		super->suspect = (struct vd_disk_suspect){ cpu_to_le64(suspect->a), cpu_to_le64(suspect->b), cpu_to_le64(suspect->gen) };
	super->generation = cpu_to_le64(pool->ckpt_gen);
	if (vd_super_write(pool, super))
		vd_log(pool, VD_LOG_ERROR, "that metadata is damaged could not be recorded", 0, 0);
	else
		memcpy(pool->super, super, sizeof(*super));
	pool->ckpt_gen++; /* the slot may have been written in part */
}

static bool nothing_to_do(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;

	bool clean;

	vd_spin_lock(&vs->dirty_lock);
	clean = vd_list_empty(&vs->dirty);
	vd_spin_unlock(&vs->dirty_lock);
	return clean && vd_journal_last(pool) == le64_to_cpu(pool->super->seq) && !unmarked(pool);
}

int vd_pool_pin(struct vd_pool *pool, enum vd_pin who)
{
	int r = 0;

	vd_mutex_lock(&pool->volumes->work_lock); /* B3 */
	vd_mutex_lock(&pool->ckpt_lock);
	if (!vd_pool_writable(pool))
		r = -EROFS;
	else if (vd_atomic_read(&pool->pinned[who]))
		r = -EBUSY;
	else
		vd_atomic_set(&pool->pinned[who], (int64_t)le64_to_cpu(pool->super->generation));
	vd_mutex_unlock(&pool->ckpt_lock);
	vd_mutex_unlock(&pool->volumes->work_lock);
	return r;
}

int vd_pool_unpin(struct vd_pool *pool, enum vd_pin who)
{
	int64_t was = vd_atomic_read(&pool->pinned[who]);

	if (!was || !vd_atomic_swap_if(&pool->pinned[who], was, 0))
		return -ENOENT;
	vd_pool_kick(pool); /* there is something to release */
	return 0;
}

/* The space is needed: who reads finds out when it lets go. */
static void end_pins(struct vd_pool *pool)
{
	bool any = false;

	for (unsigned i = 0; i < VD_PINS; i++)
		any |= !vd_pool_unpin(pool, (enum vd_pin)i);
	if (any)
		vd_log(pool, VD_LOG_INFO, "space is short: who reads its metadata beside it has to begin again", 0, 0);
}

int vd_checkpoint_locked(struct vd_pool *pool, vd_super_fn edit, void *arg)
{
	struct ckpt c = { .pool = pool };
	struct vd_disk_super *super;
	bool unread;
	int r;

	if (!vd_pool_writable(pool))
		return -EROFS;
	super = vd_alloc(pool, sizeof(*super));
	if (!super)
		return -ENOMEM;
	memcpy(super, pool->super, sizeof(*super));
	if (vd_pool_pinned(pool) && vd_space_short(pool))
		end_pins(pool);
	vd_list_init(&c.cut);
	r = cut(&c);
	if (r) {
		vd_free(pool, super);
		return r;
	}
	vd_atomic_set(&pool->volumes->want, 0);
	r = vd_journal_commit_for_checkpoint(pool, c.seq);
	vd_memory_open(pool, true);
	vd_atomic_set(&pool->unreadable, 0);
	if (!r && edit)
		r = edit(pool, super, arg);
	if (!r)
		r = fold(&c);
	if (!r)
		r = make_durable(&c, super);
	vd_memory_open(pool, false);
	if (r) {
		/* Counts and nodes of this attempt are half changed: what is on disk is whole. */
		vd_log(pool, VD_LOG_ERROR, "checkpoint %a failed, error %b: the pool stops; open it again", pool->ckpt_gen, (uint64_t)-r);
		vd_pool_set_mode(pool, VD_MODE_FAILED);
		end(&c, false);
		unread = r == -EIO && vd_atomic_read(&pool->unreadable) == 1;
		if (vd_is_damage(r) || unread) { /* C4 */
			vd_atomic_set(&pool->damage, 1);
			if (unmarked(pool))
				mark(pool, super, unread ? &pool->suspect : NULL);
		}
		vd_free(pool, super);
		return r;
	}
	end(&c, true);
	vd_journal_tail_set(pool, super);
	vd_space_checkpointed(pool);
	memcpy(pool->super, super, sizeof(*super));
	vd_free(pool, super);
	pool->ckpt_gen++;
	if (c.dying)
		vd_pool_want_checkpoint(pool);
	if (c.gone)
		vd_atomic_set(&pool->volumes->regain, 1);
	return 0;
}

int vd_checkpoint(struct vd_pool *pool)
{
	int r = 0;

	vd_mutex_lock(&pool->ckpt_lock);
	if (!nothing_to_do(pool))
		r = vd_checkpoint_locked(pool, NULL, NULL);
	else if (!vd_pool_writable(pool))
		r = -EROFS;
	else
		vd_atomic_set(&pool->volumes->want, 0);
	vd_mutex_unlock(&pool->ckpt_lock);
	return r;
}

/* ---- background ----------------------------------------------------------- */

/* One step of giving back blocks: what is releasable is set aside, and free once
 * the requests of that moment have ended.  work_lock. True: something was freed. */
static bool release_step(struct vd_pool *pool, bool wait)
{
	struct vd_volumes *vs = pool->volumes;
	uint64_t before = vd_space_free(pool);

	if (!vs->sealed && vd_space_pending(pool)) {
		vd_space_seal(pool);
		vd_gate_flip(&vs->gate);
		vs->sealed = true;
	}
	if (!vs->sealed)
		return false;
	if (wait)
		vd_gate_await(&vs->gate);
	if (!vd_gate_drained(&vs->gate))
		return false;
	vd_space_drained(pool);
	vs->sealed = false;
	return vd_space_free(pool) > before;
}

static bool space_came_back(struct vd_pool *pool, struct vd_volume *vol)
{
	return vd_reserve_room(pool, vol) > 0;
}

void vd_pool_room(struct vd_pool *pool)
{
	if (vd_pool_mode(pool) == VD_MODE_OUT_OF_SPACE && space_came_back(pool, NULL))
		vd_pool_set_mode(pool, VD_MODE_RW);
}

int vd_pool_work(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	bool freed;
	int r = 0;

	if (!vd_pool_writable(pool))
		return -EROFS;
	vd_mutex_lock(&vs->work_lock);
	if (vd_journal_due(pool))
		r = vd_journal_commit(pool, ~0ull);
	if (!r && (vd_atomic_read(&vs->want) || vd_atomic_read(&vs->dying) || vd_atomic_read(&pool->damage)))
		r = vd_checkpoint(pool);
	if (!r && vd_atomic_read(&vs->regain))
		r = vd_own_regain(pool);
	freed = release_step(pool, false);
	vd_pool_room(pool);
	vd_mutex_unlock(&vs->work_lock);
	if (r)
		return r;
	return freed || vd_atomic_read(&vs->want) || vd_atomic_read(&vs->dying) || vd_atomic_read(&vs->regain);
}

static void drop_windows(struct vd_pool *pool)
{
	struct vd_volumes *vs = pool->volumes;
	struct vd_list *pos;

	vd_mutex_lock(&vs->lock);
	vd_list_for_each(pos, &vs->all)
		vd_windows_drop(vd_container(pos, struct vd_volume, all));
	vd_mutex_unlock(&vs->lock);
}

#define MAKE_TRIES 16u

/* All that was given back until now becomes free. work_lock */
static int settle(struct vd_pool *pool)
{
	int r;

	end_pins(pool);
	drop_windows(pool);
	r = vd_checkpoint(pool);
	while (!r && release_step(pool, true))
		;
	return r;
}

/* Until it is enough, nothing more can come, or `tries` were made for a volume with a
 * promise: to that there is room, but for windows and overlay entries that other writers
 * have made since.  work_lock */
static int make_room(struct vd_pool *pool, struct vd_volume *vol, vd_room_fn enough, unsigned tries)
{
	bool room;
	int r;

	do {
		r = settle(pool);
		room = !r && enough(pool, vol);
	} while (!r && !room && (vd_atomic_read(&pool->volumes->dying) ||
				 (vol && vd_promise_open(&vol->promise) > 0 && tries && --tries)));
	if (!r && !room && pool->host.grow && pool->host.grow(pool->host.ctx))
		room = enough(pool, vol);
	return r || room ? r : -ENOSPC;
}

int vd_space_settle(struct vd_pool *pool, struct vd_volume *vol, vd_room_fn enough)
{
	int r;

	vd_mutex_lock(&pool->volumes->work_lock);
	r = make_room(pool, vol, enough, 0);
	vd_mutex_unlock(&pool->volumes->work_lock);
	return r;
}

int vd_space_make(struct vd_pool *pool, struct vd_volume *vol)
{
	int r;

	vd_mutex_lock(&pool->volumes->work_lock);
	r = make_room(pool, vol, space_came_back, MAKE_TRIES);
	if (!r || r == -ENOSPC)
		vd_pool_set_mode(pool, space_came_back(pool, NULL) ? VD_MODE_RW : VD_MODE_OUT_OF_SPACE);
	vd_mutex_unlock(&pool->volumes->work_lock);
	if (r)
		return r;
	r = vd_space_refill(pool);
	/* Free by the sum of all counts, but in groups that cannot be read: waiting is no use. */
	return r == -ENOSPC && vd_space_bad(pool) ? vd_space_bad(pool) : r;
}
