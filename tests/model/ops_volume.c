// SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
/* The random operations on volumes: those that change what is told of one, and not what is in it. */
#include "ops.h"

int op_create(struct world *w)
{
	struct ref_op op = { .kind = REF_CREATE };
	struct vd_volume_spec spec = { .name = op.name };
	char base[64];
	unsigned i;
	int r;

	if (w->ref->n >= w->shape.max_volumes)
		return world_do(w, W_DELETE);
	world_fresh_name(w, op.name, sizeof(op.name));
	if (w->shape.far && one_in(w, 2))
		op.size = one_in(w, 5) ? 1ull << 63 : VD_BLOCK * (1 + below(w, 1ull << rng_between(&w->rng, 8, 50)));
	else
		op.size = VD_BLOCK * (1 + below(w, 1ull << rng_between(&w->rng, w->shape.tiny ? 5 : 0, w->shape.tiny ? 12 : 10)));
	if (w->shape.bases && one_in(w, 2) && op.size <= 4 << 20) {
		op.nbase = 1 + below(w, op.size / SECTOR);
		if (w->shape.sector_size == VD_BLOCK)
			op.nbase = op.size / SECTOR;
		base_path(base, sizeof(base), op.nbase);
		spec.base = base;
	}
	if (one_in(w, 5)) {
		snprintf(op.attrs, sizeof(op.attrs), "made=%llu\n", (ull)w->names);
		spec.attrs = op.attrs;
	}
	for (i = 0; i < 16; i++)
		spec.uuid[i] = (uint8_t)rng_next(&w->rng);
	spec.size = op.size;
	if (one_in(w, 8))
		spec.reserved = op.reserved = least(below(w, 300), op.size / VD_BLOCK);
	ref_begin(w->ref, &op);
	r = vd_volume_create(w->pool, &spec, &w->ref->op.id);
	world_log(w, "create %s, %llu bytes, base %llu: %d, volume %u", op.name, (ull)op.size, (ull)op.nbase, r, r ? 0 : w->ref->op.id);
	return world_settle(w, r, op.reserved ? -ENOSPC : 0);
}

int op_delete(struct world *w)
{
	struct ref_op op = { .kind = REF_DELETE };
	struct ref_vol *v = world_pick(w, ANY);
	bool keep = one_in(w, 4);
	int r, want;

	if (!v)
		return world_do(w, W_CREATE);
	op.id = v->id;
	if (!keep)
		world_close_handle(w, v->id);
	want = v->locked ? -EACCES : v->npointers || world_is_open(w, v->id) ? -EBUSY : 0;
	ref_begin(w->ref, &op);
	r = vd_volume_delete(w->pool, v->id);
	world_log(w, "delete %u (%s): %d", v->id, v->name, r);
	if (want && !r && !world_disturbed(w))
		world_fail(w, "delete of volume %u which is %s", v->id, v->locked ? "locked" : "in use");
	return world_settle(w, r, v->locked && r == -EBUSY && (v->npointers || world_is_open(w, v->id)) ? -EBUSY : want);
}

int op_rename(struct world *w)
{
	struct ref_op op = { .kind = REF_RENAME };
	struct ref_vol *v = world_pick(w, UNLOCKED | NO_POINTERS), *other;
	int r;

	if (!v)
		return 0;
	other = world_pick(w, ANY);
	if (one_in(w, 5) && other != v) { /* a name that is taken */
		r = vd_volume_rename(w->pool, v->id, other->name);
		world_log(w, "rename %u to %s, which is taken: %d", v->id, other->name, r);
		if (r != -EEXIST && r != -EBUSY && !world_disturbed(w))
			world_fail(w, "a rename to a name that is taken answers %d", r);
		return world_disturbed(w);
	}
	op.id = v->id;
	world_fresh_name(w, op.name, sizeof(op.name));
	ref_begin(w->ref, &op);
	r = vd_volume_rename(w->pool, v->id, op.name);
	world_log(w, "rename %u to %s: %d", v->id, op.name, r);
	return world_settle(w, r, world_is_open(w, v->id) ? -EBUSY : 0);
}

int op_resize(struct world *w)
{
	struct ref_op op = { .kind = REF_RESIZE };
	struct ref_vol *v = world_pick(w, UNLOCKED | NO_POINTERS | WRITABLE);
	uint64_t blocks;
	int r;

	if (!v)
		return 0;
	blocks = v->size / VD_BLOCK;
	op.id = v->id;
	if (one_in(w, 2) || v->nbase > 8 << 11)
		op.size = VD_BLOCK * (1 + below(w, blocks));
	else
		op.size = VD_BLOCK * least(blocks + below(w, 2 * blocks), 1ull << 51);
	if (op.size < VD_BLOCK)
		op.size = VD_BLOCK;
	ref_begin(w->ref, &op);
	r = vd_volume_resize(w->pool, v->id, op.size);
	world_log(w, "resize %u from %llu to %llu (block %llu): %d", v->id, (ull)v->size, (ull)op.size, (ull)op.size / VD_BLOCK, r);
	return world_settle(w, r, 0);
}

int op_snapshot(struct world *w, unsigned n)
{
	struct ref_op op = { .kind = REF_SNAPSHOT };
	struct vd_snap snap[REF_PAIRS] = { 0 };
	bool reserved = false;
	unsigned i, k;
	int r;

	for (i = 0; i < n; i++) {
		struct ref_vol *v = world_pick(w, UNLOCKED);

		if (!v || w->ref->n + op.n >= w->shape.max_volumes)
			break;
		for (k = 0; k < op.n && op.pair[k].origin != v->id; k++)
			;
		if (k < op.n)
			continue;
		op.pair[op.n].origin = v->id;
		reserved |= v->reserved;
		op.pair[op.n].readonly = one_in(w, 2);
		world_fresh_name(w, op.pair[op.n].name, sizeof(op.pair[0].name));
		snap[op.n].origin = v->id;
		snap[op.n].name = op.pair[op.n].name;
		snap[op.n].flags = op.pair[op.n].readonly ? VD_VOL_READONLY : 0;
		for (k = 0; k < 16; k++)
			snap[op.n].uuid[k] = (uint8_t)rng_next(&w->rng);
		op.n++;
	}
	if (!op.n)
		return world_do(w, W_DELETE);
	ref_begin(w->ref, &op);
	r = vd_snapshot(w->pool, snap, op.n);
	for (i = 0; i < op.n; i++) {
		w->ref->op.pair[i].id = snap[i].id;
		world_log(w, "snapshot %u of %u: %u as %s%s: %d, volume %u", i + 1, op.n, snap[i].origin, snap[i].name,
			  snap[i].flags ? " (ro)" : "", r, r ? 0 : snap[i].id);
	}
	return world_settle(w, r, reserved ? -ENOSPC : 0);
}

int op_rollback(struct world *w)
{
	struct ref_op op = { .kind = REF_ROLLBACK };
	struct ref_vol *v = world_pick(w, UNLOCKED | NO_POINTERS | WRITABLE), *s = world_pick(w, UNLOCKED);
	unsigned i;
	int r;

	if (!v || v == s)
		return 0;
	for (i = 0; i < 8 && (s == v || s->family != v->family); i++)
		s = world_pick(w, UNLOCKED);
	if (s == v)
		return 0;
	if (!one_in(w, 4))
		world_close_handle(w, v->id);
	if (s->family != v->family && !one_in(w, 4))
		return 0;
	op.id = v->id;
	op.other = s->id;
	ref_begin(w->ref, &op);
	r = vd_rollback(w->pool, v->id, s->id);
	world_log(w, "rollback %u to %u: %d", v->id, s->id, r);
	if (!r && !world_disturbed(w) && (world_is_open(w, v->id) || s->family != v->family))
		world_fail(w, "rollback of volume %u, which is open or not related", v->id);
	if (v->reserved && r == -ENOSPC)
		return world_settle(w, r, -ENOSPC);
	return world_settle(w, r, s->family != v->family && r == -EXDEV ? -EXDEV : world_is_open(w, v->id) ? -EBUSY : 0);
}

int op_attrs(struct world *w)
{
	struct ref_op op = { .kind = REF_ATTRS };
	struct ref_vol *v = world_pick(w, UNLOCKED | NO_POINTERS);
	int r;

	if (!v)
		return 0;
	op.id = v->id;
	if (!one_in(w, 4))
		snprintf(op.attrs, sizeof(op.attrs), "a=%llu\nb=x\n", (ull)w->names++);
	ref_begin(w->ref, &op);
	r = vd_volume_set_attrs(w->pool, v->id, op.attrs);
	world_log(w, "attrs %u: %d", v->id, r);
	return world_settle(w, r, world_is_open(w, v->id) ? -EBUSY : 0);
}

static void holder(struct world *w, struct vd_disk_holder *h)
{
	memset(h, 0, sizeof(*h));
	memcpy(h->host, "somehost", 8);
	memcpy(h->hostname, "elsewhere", 9);
	memcpy(h->purpose, "model", 5);
	h->pid = cpu_to_le64(w->names++);
}

int op_lock(struct world *w)
{
	struct ref_op op = { 0 };
	struct ref_vol *v = world_pick(w, ANY);
	struct vd_disk_holder who;
	unsigned i;
	int r;

	for (i = 0; i < w->ref->n; i++) /* unlock sooner than lock */
		if (w->ref->vol[i]->locked)
			v = w->ref->vol[i];
	if (!v || (!v->locked && world_is_open(w, v->id)))
		return 0;
	op.id = v->id;
	holder(w, &who);
	if (v->locked && one_in(w, 3)) {
		r = vd_volume_lock(w->pool, v->id, &who);
		world_log(w, "lock %u once more: %d", v->id, r);
		if (r != -EACCES && !world_disturbed(w))
			world_fail(w, "a second lock of volume %u answers %d", v->id, r);
		return world_disturbed(w);
	}
	op.kind = v->locked ? REF_UNLOCK : REF_LOCK;
	ref_begin(w->ref, &op);
	r = v->locked ? vd_volume_unlock(w->pool, v->id) : vd_volume_lock(w->pool, v->id, &who);
	world_log(w, "%s %u: %d", ref_op_name[op.kind], op.id, r);
	return world_settle(w, r, op.kind == REF_LOCK && v->npointers ? -EBUSY : 0);
}

static bool has_writer(const struct ref_vol *v)
{
	unsigned i;

	for (i = 0; i < v->npointers; i++)
		if (v->opener[i] & REF_RW)
			return true;
	return false;
}

int op_pointer(struct world *w)
{
	struct ref_op op = { 0 };
	struct ref_vol *v = world_pick(w, UNLOCKED);
	struct vd_disk_pointer ptr;
	unsigned i;
	int r;

	for (i = 0; i < w->ref->n; i++)
		if (w->ref->vol[i]->npointers && one_in(w, 2))
			v = w->ref->vol[i];
	if (!v || (v->locked && !v->npointers))
		return 0;
	op.id = v->id;
	memset(&ptr, 0, sizeof(ptr));
	holder(w, &ptr.who);
	if (v->npointers && one_in(w, 2)) {
		op.kind = REF_POINTER_DEL;
		op.other = v->link[below(w, v->npointers)];
		ref_begin(w->ref, &op);
		r = vd_volume_pointer_del(w->pool, v->id, op.other);
	} else if (v->npointers < VD_POINTERS_MAX) {
		op.kind = REF_POINTER_ADD; /* read-only ones, any number of which go together, and one that is not */
		ptr.mode = cpu_to_le32(one_in(w, 3));
		op.value = le64_to_cpu(ptr.who.pid) | (ptr.mode ? REF_RW : 0);
		ref_begin(w->ref, &op);
		r = vd_volume_pointer_add(w->pool, v->id, &ptr, &w->ref->op.other);
	} else {
		uint32_t link;

		r = vd_volume_pointer_add(w->pool, v->id, &ptr, &link);
		world_log(w, "one pointer too many to %u: %d", v->id, r);
		if (r != -ENOSPC && !world_disturbed(w))
			world_fail(w, "one pointer too many to volume %u answers %d", v->id, r);
		return world_disturbed(w);
	}
	world_log(w, "%s %u, link %u: %d", ref_op_name[op.kind], v->id, w->ref->op.other, r);
	if (op.kind == REF_POINTER_ADD && ptr.mode && has_writer(v)) {
		if (!r && !world_disturbed(w))
			world_fail(w, "a second read-write pointer to volume %u", v->id);
		return world_settle(w, r, -EBUSY);
	}
	return world_settle(w, r, 0);
}

/* Another opener for one that there is, as when a link's server is another. */
int op_pointer_set(struct world *w)
{
	struct ref_op op = { .kind = REF_POINTER_SET };
	struct vd_disk_pointer ptr = { 0 };
	struct ref_vol *v = NULL;
	unsigned i;
	int r;

	for (i = 0; i < w->ref->n; i++)
		if (w->ref->vol[i]->npointers && (!v || one_in(w, 2)))
			v = w->ref->vol[i];
	if (!v)
		return op_pointer(w);
	i = (unsigned)below(w, v->npointers);
	holder(w, &ptr.who);
	ptr.mode = cpu_to_le32(!!(v->opener[i] & REF_RW));
	op.id = v->id;
	op.other = v->link[i];
	op.value = le64_to_cpu(ptr.who.pid) | (v->opener[i] & REF_RW);
	ref_begin(w->ref, &op);
	r = vd_volume_pointer_set(w->pool, v->id, op.other, &ptr);
	world_log(w, "pointer-set %u, link %u: %d", op.id, op.other, r);
	return world_settle(w, r, 0);
}

int op_readonly(struct world *w)
{
	struct ref_op op = { .kind = REF_READONLY };
	struct ref_vol *v = world_pick(w, UNLOCKED | NO_POINTERS);
	int r;

	if (!v)
		return 0;
	world_close_handle(w, v->id);
	op.id = v->id;
	op.readonly = !v->readonly && one_in(w, 2);
	ref_begin(w->ref, &op);
	r = vd_volume_set_flags(w->pool, v->id, op.readonly ? VD_VOL_READONLY : 0, op.readonly ? 0 : VD_VOL_READONLY);
	world_log(w, "volume %u: readonly %d: %d", v->id, op.readonly, r);
	return world_settle(w, r, 0);
}

int op_reserve(struct world *w)
{
	struct ref_op op = { .kind = REF_RESERVE };
	struct ref_vol *v = world_pick(w, UNLOCKED);
	int r;

	if (!v)
		return 0;
	op.id = v->id;
	if (!one_in(w, 3))
		op.reserved = least(below(w, one_in(w, 6) ? 3000 : 200), v->size / VD_BLOCK);
	ref_begin(w->ref, &op);
	r = vd_volume_reserve(w->pool, v->id, op.reserved);
	world_log(w, "reserve %llu blocks for %u (had %llu): %d", (ull)op.reserved, v->id, (ull)v->reserved, r);
	if (r == -ENOSPC && op.reserved <= v->reserved && !world_disturbed(w))
		world_fail(w, "a lower reservation of volume %u is refused", v->id);
	return world_settle(w, r, -ENOSPC);
}
