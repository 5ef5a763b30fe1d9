/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Presents a drive to a machine's users: its file system mounted.  By systemd where that is the
 * machine's first process, so that its order of starting and ending knows the mount; else by mount(8).
 *
 * Nothing is ever written over: a file system is made only where nothing at all is.  One that is a copy of
 * one mounted here already (a snapshot, linked to where its origin is) is not mounted unasked: what finds file
 * systems by their UUIDs would take one for the other.
 *
 * Texts in vol_error(NULL).
 */
#ifndef VOL_PRESENT_H
#define VOL_PRESENT_H

#include "host.h"

#define PRESENT_DIR "/srv/vd" /* the default directory is below it */

struct present_spec {
	const char *device, *name /* the volume's */, *uuid_text;
	const char *base;    /* NULL: PRESENT_DIR */
	const char *dir;     /* NULL or "": BASE/LABEL, or NAME where there is no label; where that is taken
	                      * NAME-UUID, the first 8 digits of it */
	const char *options; /* NULL or "": those that are needed */
	const char *mkfs;    /* NULL or "": no file system is made; "ext4", "xfs"… */
	const struct device_content *content; /* of who has looked; NULL: it is looked at */
	bool automount;      /* mounted when first it is used; needs systemd */
	bool duplicate;      /* also when it is a copy of one that is mounted */
	bool readonly;
	bool bound;          /* an automount goes with the device: its number may be another's then */
	bool strict;         /* of a drive that others have written: only a file system of a type that is usual on
	                      * disks, and no symbolic link leads to the directory */
};
struct present_result {
	char mount[256]; /* where it is mounted; "": it is not, and `note` tells why */
	char type[32];
	char note[256];
};

/* 0 also when there is nothing that can be mounted.  Asked again, it finds what it has done.  -EIO: mount or
 * mkfs failed, -ETIMEDOUT did not end; -EBUSY something else is mounted there; -EINVAL such a file system cannot be made, or no such directory. */
int present_mount(const struct present_spec *spec, struct present_result *out) __must_check;
/* A mount there that is of a device which is there no more goes, whoever uses it: 0 also when none is. */
int present_clear(const char *dir) __must_check;
/* The file system alone.  0 also when something is there, which stays. */
int present_mkfs(const char *device, const char *type) __must_check;
/* Whether systemd is the first process: it alone can wait until a mount is used. */
bool present_systemd(void);
/* Of whatever is mounted there, and an automount; 0 also when nothing is.  -EBUSY: the text names who has it. */
int present_umount(const char *dir) __must_check;
/* An automount that waits there for that device goes. 0 also when there is none. */
int present_stop(const char *device, const char *dir) __must_check;

#endif
