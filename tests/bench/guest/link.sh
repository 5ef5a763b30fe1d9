#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Lines "ROW PROGRAM MICROSECONDS" in /job/samples: a volume with an ext4 becomes mounted on this host,
# and is unmounted and goes, by vdlink and by hand with LVM's tools; then how long each step of
# vdlink takes.  $TIMES of each, in turns, the pools active.
. /vd/tests/lab/jobs/common.sh
as_installed
samples=/job/samples
# shellcheck source=tests/bench/guest/timed.sh
. /vd/tests/bench/guest/timed.sh
from_memory
mkdir /mnt/vd /mnt/lvm
modprobe brd
modprobe ext4
by_hand() { lvm lvchange -ay -K g/v; mount /dev/g/v /mnt/lvm; }
and_back() { umount /mnt/lvm; lvm lvchange -an g/v; }

vdpool create -q -y p /dev/ram0
vdcreate -q -L 64M -a y p/other
vdcreate -q -L 64M -a y p/v
lvm vgcreate -y g /dev/ram1
lvm lvcreate -y -L 512M -T g/p
lvm lvcreate -y -V 64M -T g/p -n other
lvm lvcreate -y -V 64M -T g/p -n v
mkfs.ext4 -q /dev/vdisk/p/v
mkfs.ext4 -q /dev/g/v
udevadm settle
vdunlink -q p/v
lvm lvchange -an g/v
links lvm by_hand and_back -m /mnt/vd p/v
