/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Drives of a domain of libvirt on this host (qemu:///system): what vm.h says, by virsh(1).  libvirt's QEMU runs as another
 * user, and sees no other devices than libvirt gives it, so it is libvirt that plugs the disk.
 *
 * V1  A drive is known by the volume's UUID, the disk's serial number.
 * V2  What is asked of a domain goes on when a command is killed.  So a virsh that changes something holds the domain's
 *     lock until it has ended, and libvirt has done one thing in a domain before what it has is looked at to be sure.
 * V3  Where virsh has failed, what the domain has decides, and not what virsh said.
 * V4  Whether a domain runs is told by its process: libvirt's /run/libvirt/qemu/DOMAIN.pid ($VD_LIBVIRT_DIR instead of that
 *     directory).  When it has ended virsh need not answer, nor be there.
 */
#ifndef VOL_VIRT_H
#define VOL_VIRT_H

#include "link.h"
#include "server.h"

int virt_ready(const struct server *s) __must_check;
int virt_plug(const struct server *s, struct link_info *l, unsigned sector) __must_check;
int virt_verify(const struct server *s, struct link_info *l) __must_check;
int virt_unplug(const struct server *s, const struct link_info *l) __must_check;
int virt_resize(const struct server *s, const struct link_info *l) __must_check;

#endif
