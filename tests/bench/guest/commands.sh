#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Lines "ROW PROGRAM MICROSECONDS" in /job/samples: commands of vd and LVM, each with its pool
# active on a RAM disk of its own and udev's rules installed, $TIMES of each, in turns.  The row
# "floor" is what any program needs: a process that makes one device of dm-linear and waits for udev.
. /vd/tests/lab/jobs/common.sh
as_installed
samples=/job/samples
# shellcheck source=tests/bench/guest/timed.sh
. /vd/tests/bench/guest/timed.sh
from_memory
modprobe brd
snap_and_link() { vdsnap -q -n "$1" p/first; vdlink -q "p/$1"; }

vdpool create -q -y p /dev/ram0
vdcreate -q -L 64M -a y p/first
lvm vgcreate -y g /dev/ram1
lvm lvcreate -y -L 512M -T g/p
lvm lvcreate -y -V 64M -T g/p -n first
mkfs.ext4 -q /dev/vdisk/p/first # what a snapshot is of
mkfs.ext4 -q /dev/g/first
udevadm settle
for ((i = 0; i < TIMES; i++)); do
	timed floor dmsetup dmsetup create floor$i --table "0 131072 linear /dev/ram1 2662400" # where nothing is
	timed create vd vdcreate -q -L 64M -a y p/v$i
	timed create lvm lvm lvcreate -y -V 64M -T g/p -n v$i
	timed snapshot vd vdsnap -q -n s$i p/first
	timed snapshot lvm lvm lvcreate -y -s g/first -n s$i
	timed snapshot-node vd vdsnap -q -a y -n n$i p/first
	timed snapshot-node lvm lvm lvcreate -y -s g/first -n n$i -kn
	timed snapshot-then-node vd snap_and_link m$i
done
[ -b /dev/vdisk/p/v0 ] && [ -b /dev/g/v0 ] && [ -b /dev/vdisk/p/n0 ] && [ -b /dev/g/n0 ]
