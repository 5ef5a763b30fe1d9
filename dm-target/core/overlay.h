/* SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later */
/*
 * An ordered map of disjoint extents in memory: what has changed since the
 * last checkpoint.  A HOLE extent says "unmapped", which hides what lies below;
 * no extent says "look below".
 *
 * Units: 4 KiB blocks.  Locking: the caller's; readers may run beside readers.
 * Nothing here blocks: leaves come from vd_ov_leaf_new(), which is called
 * before a lock is taken and before data is submitted (I12).
 */
#ifndef VD_OVERLAY_H
#define VD_OVERLAY_H

#include "host.h"

struct vd_ov_leaf; /* some extents */
struct vd_ext {
	vd_vblk_t v;
	uint64_t len;
	vd_pblk_t p;          /* DATA only */
	uint64_t birth;       /* epoch in which it was mapped */
	enum vd_ext_kind kind;/* HOLE, DATA, ZERO; BASE never stored */
	uint64_t back;        /* when it was looked up: so much of it is before v */
	struct vd_ov_leaf *near; /* where in the overlay that was; good while its `gone` is the same; or NULL */
};

struct vd_ov {
	const struct vd_host *host;
	uint64_t count;       /* extents */
	uint64_t gone;        /* goes up when leaves go */
	struct vd_ov_leaf *head;
	struct vd_ov_node *root; /* of the index; NULL: it is empty */
	unsigned height;
};

int vd_ov_init(struct vd_ov *ov, const struct vd_host *host) __must_check; /* -ENOMEM */
void vd_ov_fini(struct vd_ov *ov);
bool vd_ov_empty(const struct vd_ov *ov);

/* A leaf for a later insertion. `how` as of the host's alloc; NULL: no memory. */
struct vd_ov_leaf *vd_ov_leaf_new(const struct vd_host *host, int how);
void vd_ov_leaf_free(const struct vd_host *host, struct vd_ov_leaf *e);
/* Leaves that are kept: *spare is the first of them, NULL for none; taken from where there is one. */
void vd_ov_leaf_add(struct vd_ov_leaf **spare, struct vd_ov_leaf *leaf);
struct vd_ov_leaf *vd_ov_leaf_take(struct vd_ov_leaf **spare);

/* The extent that covers v, clipped to begin at v and whole at its end: true.
 * None: false, and out->v = v, out->len = distance to the next extent (or to VD_VBLK_END),
 * out->back = distance to the end of the one before (or to 0). */
bool vd_ov_find(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out);
/* First extent that ends after v, unclipped. False: none. For walking in order. */
bool vd_ov_next(const struct vd_ov *ov, vd_vblk_t v, struct vd_ext *out);

/*
 * Puts e over whatever is in its range, joining it with neighbours that
 * continue it (same kind; DATA: physically contiguous and sum of length within
 * VD_EXTENT_LEN_MAX); the joined extent keeps the oldest birth (I1) — but
 * joining is skipped when one birth is <= `cut` and the other > `cut` (cut: the
 * volume's last snapshot), so that an own extent is never demoted.
 * Takes the first of *spare, of which there must be one, if it needs it (where a leaf is full);
 * a second it never needs.  Cannot fail.  It is looked for from e->near on, if that is not NULL.
 * `displaced` is called for each DATA piece that e hid (may be NULL).
 */
typedef void (*vd_ov_displaced_fn)(void *arg, const struct vd_ext *piece);
void vd_ov_insert(struct vd_ov *ov, const struct vd_ext *e, uint64_t cut, struct vd_ov_leaf **spare,
		  vd_ov_displaced_fn displaced, void *arg);

/* Empties `from` into the initialised empty `to` (both stay valid). */
void vd_ov_move(struct vd_ov *to, struct vd_ov *from);

#endif
