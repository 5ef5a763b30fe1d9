/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent of a server: makes drives that a host gives to this machine its block devices, mounts
 * them, and takes them away again.
 *
 *   agent-channel.c  keys, TLS, lines
 *   agent-serve.c    connections, a thread each
 *   agent-drive.c    what a drive is, as requests and records tell, and what of that is allowed
 *   agent-record.c   the drives it was given, on disk
 *   agent-find.c     block devices: looked for, asked for, let go
 *   agent.c          what a request is answered; drives made again at the start
 *
 * The host is believed as little as a stranger: it has the key, and that lets it ask for what
 * these files allow.  A drive is told by its volume's UUID, on an NVMe subsystem whose name is one of vd's, or on a
 * virtio-scsi bus: no other disk of this machine is ever taken for one.
 *
 * Environment: VD_STATE_DIR (/var/lib/vdagent); for tests VD_SYSFS_DIR (/sys) and VD_NVME_FABRICS
 * (/dev/nvme-fabrics).  Texts in vol_error(NULL).
 */
#ifndef VD_AGENT_H
#define VD_AGENT_H

#include "agent-channel.h"

#define AGENT_DIRS 16

struct agent {
	const char *listen;          /* NULL: every address, AGENT_PORT */
	const char *key;
	const char *dir[AGENT_DIRS]; /* below which it may mount */
	unsigned ndirs;
	int trust_options;           /* of mounts */
};

/* Serves until vol_interrupt(); says to systemd when it is ready. */
int agent_serve(const struct agent *a) __must_check;

/* Never NULL but for want of memory: {"ok":true,…} or {"ok":false,"errno":N,"error":TEXT}. Any thread.
 * `fd`: who closes that while the request waits for a drive is not waited for. */
struct json_object *agent_answer(const struct agent *a, struct json_object *request, int fd);
/* Goes on in the background, until each drive of the records is there, or vol_interrupt(). */
int agent_restore_start(const struct agent *a) __must_check;
/* Whether all of that has ended. */
bool agent_restore_end(int64_t deadline);

struct agent_drive;
/* Gives up a drive that its host will not take back: unmounted, or, where the host does not answer, lost. -EBUSY. */
int agent_forget(const struct agent *a, struct agent_drive *d) __must_check;
/* "uuid", "name", "mode", "size", "device", "address", "mount", "state" into the object. */
void agent_drive_state(const struct agent_drive *d, struct json_object *o);

/* ---- a drive ------------------------------------------------------------------- */

#define AGENT_NQN "nqn.2026-11.org.vd:" /* so a subsystem of vd's is called */

struct agent_drive {
	uint8_t uuid[16]; /* of the volume */
	char uuid_text[VOL_UUID_TEXT];
	char name[2 * VOL_NAME_SIZE]; /* POOL/VOLUME */
	uint64_t size;
	bool readonly;
	bool nvme; /* else SCSI, and the next four are empty */
	char nqn[224], address[48], port[8];
	bool dhchap;
	bool mount; /* else the rest is empty */
	char dir[256], options[256], mkfs[16];
	bool automount, duplicate;
};

/* One object of bounded depth, and nothing after it. -EINVAL. */
int agent_json_parse(const char *line, size_t len, struct json_object **out) __must_check;

/* Of a request "link", or a record.  -EINVAL: a field is missing or cannot be. */
int agent_drive_parse(struct json_object *o, struct agent_drive *d) __must_check;
/* As agent_drive_parse() takes it. */
struct json_object *agent_drive_json(const struct agent_drive *d);
/* "uuid" of a request. -EINVAL */
int agent_uuid_parse(struct json_object *o, uint8_t uuid[16]) __must_check;
/* "nqn" of a request; 0 and "" when there is none. -EINVAL */
int agent_nqn_parse(struct json_object *o, char nqn[224]) __must_check;
/* Whether this agent may mount as d says; where, by its name without symbolic links; without a directory in d, below
 * which. -EPERM */
int agent_drive_allowed(const struct agent *a, const struct agent_drive *d, char dir[256]) __must_check;
/* A directory is one that this agent may mount on: of those above it, up to one of a->dir, all are on one file system,
 * nobody but root can make another, and no symbolic link is among them. -EPERM */
int agent_dir_allowed(const struct agent *a, const char *dir, char out[256]) __must_check;
/* Below which a drive without a directory of its own is mounted. */
const char *agent_default_dir(const struct agent *a, char buf[256]);

/* ---- records -------------------------------------------------------------------- */

/* Each change is durable on return. */
int agent_record_put(const struct agent_drive *d) __must_check;
/* Of one that is still there: -ENOENT. */
int agent_record_change(const struct agent_drive *d) __must_check;
int agent_record_del(const uint8_t uuid[16]) __must_check; /* 0 also when it was not there */
int agent_record_find(const uint8_t uuid[16], struct agent_drive *d) __must_check; /* -ENOENT; -EBADMSG: it says what cannot be */
/* free(*list) */
int agent_record_list(struct agent_drive **list, size_t *n) __must_check;

/* ---- its device ------------------------------------------------------------------- */

struct agent_device {
	char path[64];    /* "/dev/nvme0n1" */
	char address[96]; /* "nvme0 nsid 3", "2:0:0:1" */
	uint64_t size;
	bool readonly;
	bool live, asked; /* NVMe: it is connected; to the address that is asked for */
};
/* -ENODEV: not there. */
int agent_device_find(const struct agent_drive *d, struct agent_device *out) __must_check;
/* One that a host of vd's has given to this machine, recorded or not; with no name but the UUID, and no address. */
bool agent_device_any(const uint8_t uuid[16], struct agent_drive *d);
/* Connects, or has the kernel look, and waits for it, with the right size unless any will do. `secret`: of DH-HMAC-CHAP.
 * -ETIMEDOUT; -EBUSY: it is in use, of another host. */
int agent_device_get(const struct agent_drive *d, const char *secret, bool any_size, int64_t deadline, struct agent_device *out) __must_check;
/* Until udev, where it runs, has given it its names. */
void agent_device_named(const struct agent_device *dev, int64_t deadline);
/* Disconnected although it may be in use: what was not stored is lost. */
int agent_device_lose(const struct agent_drive *d) __must_check;
/* Connections to hosts of vd's that have no device, and are none of these drives', are given up: an agent that ended before it
 * was told that a drive had gone left them, and the kernel would try for ever. */
void agent_device_strays(const struct agent_drive *list, size_t n);
/* Of SCSI: the kernel forgets it.  It is not in use. */
int agent_device_drop(const struct agent_drive *d, const struct agent_device *dev) __must_check;
/* Until there is no device with the UUID.  `let_go`: no drive needs the subsystem, so it is disconnected.  nqn "":
 * it was SCSI. -EBUSY: in use; -ETIMEDOUT. */
int agent_device_gone(const uint8_t uuid[16], const char *nqn, bool let_go, int64_t deadline) __must_check;
/* How this machine calls itself to NVMe targets. */
struct agent_host { char nqn[224], id[VOL_UUID_TEXT]; };
int agent_host_self(struct agent_host *h) __must_check;
/* The kernel can DH-HMAC-CHAP. */
bool agent_host_dhchap(void);

#endif
