/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drives of a QEMU guest on this host: a block device of this host becomes a disk on a
 * virtio-scsi bus of it, while it runs, and is taken away again.  The guest's own driver finds it.
 *
 * QEMU is spoken to by its QMP socket (qmp.h), or where the server is a domain of libvirt by that (virt.h).
 *
 * A drive is known by the volume's UUID, whoever plugged it: by QMP node and device in QEMU are called
 * "vd-" and 28 of its digits, the disk's serial number is the whole.
 *
 * Each call is one conversation with QEMU (qmp.h, also for errors), and leaves it as it was when it fails,
 * but for a conversation that breaks off: then it is not known, and vm_unplug() makes it so that
 * nothing is there.  Texts are in vol_error(NULL).
 */
#ifndef VOL_VM_H
#define VOL_VM_H

#include "link.h"
#include "server.h"

/* It runs, answers, and has the bus.  -ENODEV no such bus, or none; -ENOTUNIQ several, and the description
 * does not say which. */
int vm_ready(const struct server *s) __must_check;
/* l->device, of l->size, as a disk with sectors of that many bytes.  Afterwards l->vm is 0 if QEMU has
 * nothing of it.  As vm_ready(); -ENOSPC no address is free on the bus. */
int vm_plug(const struct server *s, struct link_info *l, unsigned sector) __must_check;
/* QEMU has it as a disk with this device and size; sets l->address. -ENXIO: not so. */
int vm_verify(const struct server *s, struct link_info *l) __must_check;
/* On return QEMU has no such disk, and the device is not open there any more.  It is told to the guest, and
 * not asked of it.  0 also when it had none, or the VM is off. */
int vm_unplug(const struct server *s, const struct link_info *l) __must_check;
/* The disk takes in l->size. */
int vm_resize(const struct server *s, const struct link_info *l) __must_check;
/* Whether the process is the one that l->vm was when the link was made. */
bool vm_runs(const struct link_info *l);
/* With its process all that QEMU had open is closed: whether it has ended, or does so in a moment. */
bool vm_has_ended(pid_t pid, uint64_t began);

#endif
