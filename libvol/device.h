/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Block devices of this host, for links: loop devices, what is mounted where, who
 * keeps a device busy.  Texts in vol_error(NULL).
 */
#ifndef VOL_DEVICE_H
#define VOL_DEVICE_H

#include "host.h"

#include <sys/types.h>

#define DEVICE_PATH 32 /* "/dev/loop123" */

/* Whether the kernel has the nbd driver (no module is loaded to find out). */
bool device_have_nbd(void);
/* A /dev/nbdN that nobody uses now. -ENODEV. */
int device_nbd_free(char dev[DEVICE_PATH]) __must_check;
/* Whether it is an nbd device, and that front's, which may have ended since: until nobody has it open it is no other's. */
bool device_nbd_of(const char *dev, pid_t front);
/* -EBUSY: somebody but its front uses it, as the text tells. */
int device_nbd_disconnect(const char *dev, pid_t front) __must_check;

/* Makes a loop device on a file, with direct I/O. */
int device_loop_attach(const char *file, unsigned sector, bool readonly, char dev[DEVICE_PATH]) __must_check;
/* One for reading, on a file of `size` bytes that is open as `backing`.  It goes when nobody has it
 * open any more: *fd is the first who has, and the caller's.  udev's rules leave it alone. */
int device_loop_image(const char *file, int backing, uint64_t size, int *fd) __must_check;
/* -EBUSY: in use (text: by whom or what), after a moment in which udev could be done with it. */
int device_loop_detach(const char *dev) __must_check;
/* The nth loop device whose backing file is `file`, from 0, in no order. -ENODEV: there are not so many. */
int device_loop_nth(const char *file, unsigned n, char dev[DEVICE_PATH]) __must_check;
static inline int __must_check device_loop_find(const char *file, char dev[DEVICE_PATH])
{
	return device_loop_nth(file, 0, dev);
}
/* Takes in that the file has another size. */
int device_loop_resize(const char *dev) __must_check;

/* Size in bytes as the kernel sees it; -ENXIO: no device there (now). */
int device_size(const char *dev, uint64_t *size) __must_check;

/* Whether what is written to a device, of dm, md or loop, may come to lie on the other. */
bool device_stands_on(dev_t dev, dev_t below);

/* What blkid sees: type "" nothing at all; usage e.g. "filesystem", "raid". */
struct device_content { char type[32], usage[32], label[64], uuid[64]; };
int device_probe(const char *dev, struct device_content *out) __must_check;
int device_probe_soon(const char *dev, struct device_content *out) __must_check; /* with a tenth of the patience */
/* The type alone, if udev has looked already and found one on this device of device-mapper's. */
bool device_known(const char *dev, struct device_content *out);

/* Where it is mounted: calls fn for each mount point, last mounted first. */
int device_mounts(const char *dev, int (*fn)(void *arg, const char *dir), void *arg) __must_check;
/* Who keeps a directory tree (mounted) or a device busy: "bash (17), vi (30)", or "". */
void device_users(const char *path, char *buf, size_t size);
/* -EBUSY: somebody does, as the text tells. */
int device_unused(const char *path) __must_check;
int device_unused_but(const char *path, pid_t but) __must_check; /* but for that process; 0: for none */

/* `mount`(8), as type, with options (may be NULL) besides what read-only needs. */
int device_mount(const char *dev, const char *dir, const struct device_content *c, bool readonly, const char *options) __must_check;
/* Whether udev's database tells the file system's type and UUID; nothing is read from the device. */
bool device_known_uuid(dev_t dev, struct device_content *out);

/* For a process that must not hang with a device that does: from now on programs, device_probe() and device_umount()
 * are waited for so long, or so many times as long, and then left to themselves with -ETIMEDOUT; vol_interrupt() ends the waiting
 * with -EINTR.  0, as at first: without end. */
void device_patience(int64_t ms);
/* fn(arg), where there is patience in a process of its own; `arg`, of `size` bytes, comes back, and the text.  times 0: a tenth. */
int device_apart(int (*fn)(void *arg), void *arg, size_t size, const char *what, unsigned times) __must_check;
/* A program and its arguments, which hears nothing; what it says, the first line.  times: of the patience.  -EIO: it failed, and the text
 * has that. */
int device_run(char *const argv[], char *said, size_t size, unsigned times) __must_check;
/* The options that device_mount() uses. */
int device_mount_options(const struct device_content *c, bool readonly, const char *options, char *buf, size_t size) __must_check;
/* umount(2); -EBUSY: the text names who. */
int device_umount(const char *dir) __must_check;

#endif
