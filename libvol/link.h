/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Links: a volume of a pool becomes a block device of this host, and is mounted if
 * asked, or is given to a server (server.h); all of that is undone; and made again after a crash or a reboot.
 *
 * Making one goes through these steps, always in this order, and a failure at any
 * of them undoes the earlier ones and says which it was:
 *
 *   describe   the drive is added to this host's description, servers/local
 *   lock       the volume is locked by this command
 *   pointer    the open pointer is stored in the pool
 *   link       a device is made in the kernel, where the kernel serves the pool
 *              (activate.h); else a front (front.h) is started and connects to the server
 *   scan       the kernel has a block device of the volume's size
 *              a server is then given it as a drive (drive.h), and has it
 *   report     the open pointer tells which device it is, and its address on a server
 *   present    /dev/vdisk/POOL/VOLUME, the file system that is to be made, and the mount (present.h), if
 *              it is not a copy of one that is mounted; on a server its agent does this, if it has one
 *   unlock     the lock is released, the pointer is the front's
 *
 * One volume has at most one link to a host and its servers.  A link is found by its open pointer
 * (purpose "vdlink"; server "local", or that of the pool's description); its files are in links/POOL/
 * of the runtime directory:
 *   VOLUME.N        the FUSE file of link N, where the kernel has no nbd driver
 *
 * Links of one pool are made and undone one at a time (a lock file).
 * Texts are in vol_error(NULL).
 */
#ifndef VOL_LINK_H
#define VOL_LINK_H

#include "host.h"
#include "device.h"

enum link_state {
	LINK_UP,         /* device and front, if it has one, are there */
	LINK_DOWN,       /* of this host, and something of it is missing: vdlink --restore */
	LINK_UNFINISHED, /* the command that makes it is still at it, or was killed */
	LINK_ELSEWHERE,  /* of another host */
	LINK_CLIENT,     /* no link: an NBD client that writes */
};
const char *link_state_text(enum link_state s);

struct link_info {
	char pool[VOL_NAME_SIZE], volume[VOL_NAME_SIZE];
	uint8_t uuid[16];            /* of the pool */
	uint32_t link;
	bool readonly, here;         /* here: of this host */
	enum link_state state;
	char device[128];            /* "/dev/loop3" */
	char path[512];              /* "/dev/vdisk/POOL/VOLUME" */
	char mount[128];             /* or empty */
	char server[64];             /* "local", or whose drive it is: that of the others below */
	char address[48];            /* on its bus: "scsi0.0:0:2:0" */
	bool given;                  /* the server may have it */
	pid_t vm;                    /* the process that is the VM, and when it began */
	uint64_t vm_began;
	char hostname[65];
	uint64_t since, size;
	bool kernel;                 /* a device of the kernel's; volume_uuid is set */
	bool blank;                  /* and when it was made nothing was on it */
	uint8_t volume_uuid[16];
	pid_t front;                 /* 0: it has none */
	struct device_content content; /* filled by link_make() */
	char note[256];              /* why it is not mounted as asked, or "" */
};

#define LINK_AUTO "auto"
struct link_spec {
	const char *pool, *volume;
	const char *server;          /* of the pool's, or NULL: this host */
	bool readonly;
	bool test;                   /* look at everything, change nothing */
	bool takeover;               /* as VOL_TAKEOVER */
	bool force;                  /* of link_undo(): the server is gone for good, and its agent need not answer, or let go */
	const char *mount;           /* directory, there; NULL: on this host none, on a server with an agent its default.
	                              * LINK_AUTO: this host's default (present.h) */
	const char *options;         /* of the mount, or NULL */
	bool no_mount;               /* nor there, then */
	bool automount;              /* it is mounted when somebody first looks into the directory */
	const char *mkfs;            /* type of the file system that is made if nothing is on it, or NULL */
	bool duplicate;              /* mounted although a file system with its UUID is there already */
	void (*say)(void *arg, const char *text); /* one line for each step; may be NULL */
	void *arg;
};

/* From now on udev is not waited for: names in /dev may come and go later. */
void link_no_udev_sync(void);

/* Whether it is a drive of a server other than this host. */
bool link_served(const struct link_info *l);

/* -ENOENT no such pool, volume, server or directory; -EBUSY linked already, here or
 * elsewhere, or another writer has it (text: who, since when); -EACCES locked;
 * -ENODATA a mount was asked for and nothing that can be mounted is on it;
 * -EROFS; -EINTR. */
int link_make(const struct link_spec *spec, struct link_info *out) __must_check;

/* Unmounts, takes the device away, ends the front, removes the open pointer, and
 * stops the server, or closes the pool in the kernel, when this was the last link of
 * the pool and nobody else uses it.  A server loses the drive first.  What is already gone is passed over, so that it may be called again.
 * -ENOENT not linked; -EBUSY in use (text: by whom); nothing is undone then but
 * the mounts that could be. */
int link_undo(const struct link_spec *spec, struct link_info *out) __must_check;

/* All open pointers of one pool, or of every pool found (NULL): of those that can be had,
 * also when the answer is that one cannot. */
typedef int (*link_fn)(void *arg, const struct link_info *l);
int link_list(const char *pool, link_fn fn, void *arg) __must_check;

/* Whether a front of this host is at work for the pool: it lives on a server. */
int link_fronts(struct vol_pool *p, bool *any) __must_check;

/* Makes again what is down of this host's links, of one pool or all: device, mount
 * with the options it had, and all.  complete: pools with a member missing are passed over.  fn (may be NULL) is told of each link that was down: r is 0, or why it
 * still is.  Answers the first such r. */
int link_restore(const char *pool, bool test, bool complete, int (*fn)(void *arg, const struct link_info *l, int r, const char *text),
		 void *arg) __must_check;

/*
 * A pool as a whole: opened in the kernel, and closed, with the devices of this host's links.
 * What is recorded of a link stays: closed, it is down.
 */
struct link_pool {
	char name[VOL_NAME_SIZE];
	bool test;               /* look at everything, change nothing */
	bool complete, readonly, takeover; /* of link_activate(): leave a pool as it is if members are missing;
	                          * open it for reading only, and with what members there are */
	int (*fn)(void *arg, const struct link_info *l, int r, const char *text); /* as of link_restore(); may be NULL */
	void *arg;
	/* What was found, or done: */
	bool was;                /* the kernel had it open */
	unsigned missing, members;
	const char *why;         /* the kernel cannot have it, and nothing was done; or NULL */
};
/* Opens it, and makes the devices of links that are down, but of those that are to be mounted too:
 * link_restore() does that.  readonly: of all links that are down, read-only, and nothing is recorded.
 * -EROFS: members are missing. */
int link_activate(const char *pool, struct link_pool *lp) __must_check;
/* Takes the devices of its volumes away, and closes it.  -EBUSY: some are in use, and stay (text: by
 * whom); or a server has it. */
int link_deactivate(const char *pool, struct link_pool *lp) __must_check;
/* Calls fn for the UUID of each pool that the kernel has open; goes on as link_restore() does. */
int link_each_active(int (*fn)(void *arg, const char *pool), void *arg) __must_check;

/* The device takes in the volume's size as it is now; test: it would. -ENOENT not linked. */
int link_refresh(const char *pool, const char *volume, bool test) __must_check;

#endif
