/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Servers that take links.  A pool describes them, in its own metadata ("server-add" and so on, ops.c),
 * and may come from another host, or be forged; so this host has a record of those it may speak to
 * (describe.h), made by server_add() and server_accept() alone, which somebody has typed here.
 *
 * S1  An address is taken from this host's record, never from a pool.
 * S2  A link is made, and made again, only where both say the same.  It is taken away by this
 *     host's record alone: what the pool says by then does not keep a drive in a server.
 *
 * Texts are in vol_error(NULL).
 */
#ifndef VOL_SERVER_H
#define VOL_SERVER_H

#include "host.h"

struct server {
	char name[64];
	char kind[16];    /* "vm", a QEMU guest of this host (vm.h); "nvme-tcp", a machine (nvmet.h) */
	char agent[264];  /* where its agent is, HOST[:PORT] (agent.h); "": it has none, as only a VM may */
	char qmp[108];    /* vm: path of its QMP socket, or */
	char domain[64];  /* vm: what libvirt calls it */
	char bus[64];     /* vm: of its virtio-scsi controller, or that one's name (a domain's: its index); "": there is but one */
	char host[224];   /* nvme-tcp: the server's name as an NVMe host, its NQN */
	char address[46]; /* nvme-tcp: where this host's target listens for it, an IP address */
	char port[8];     /* nvme-tcp: and its port there, "4420" */
	/* What drive_ready() has learned: */
	bool dhchap;      /* its kernel can authenticate itself */
	bool deaf;        /* its agent does not answer now, */
	bool again;       /* which is no reason to fail, as it has had the drive before */
};

/* This host's record of it, whether or not the pool has one. -ENOENT: it has none. */
int server_here(const char *pool, const uint8_t uuid[16], const char *name, struct server *out) __must_check;
/* The same, where the pool says the same.  -ENOENT: one of them has none; -EPERM: they differ. */
int server_agreed(struct vol_pool *p, const char *name, struct server *out) __must_check;

enum server_accepted { SERVER_UNKNOWN, SERVER_ACCEPTED, SERVER_DIFFERS };
struct server_info {
	char pool[VOL_NAME_SIZE], name[64];
	struct json_object *attrs; /* as the pool has them */
	enum server_accepted accepted;
	uint64_t created;
};
typedef int (*server_fn)(void *arg, const struct server_info *s);
/* All servers of a pool, or of every pool found (NULL), or one. */
int server_list(const char *pool, const char *name, server_fn fn, void *arg) __must_check;

/* Describes it in the pool, and then here; makes the key of its agent, if it has one and that is not there. -EEXIST, -EINVAL. */
int server_add(const char *pool, const char *name, struct json_object *attrs, bool test) __must_check;
/* Takes the pool's description for this host's, too; the key as above. -ENOENT. */
int server_accept(const char *pool, const char *name, bool test) __must_check;
/* And its key here, unless a server of another pool has that name.  -ENOENT; -EBUSY: a volume is linked to it, by whatever
 * host. */
int server_remove(const char *pool, const char *name, bool test) __must_check;

#endif
