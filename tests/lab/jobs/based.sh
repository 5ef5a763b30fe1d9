# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The commands on volumes on base images, in the kernel; with udev's rules.
. /vd/tests/lab/jobs/linked.sh
modprobe -q loop
modprobe -q fuse

# shellcheck disable=SC2086 # one word a disk
vdpool create -q p-1 $DISKS
vdcreate -q -L 64M p-1/web
vdlink -q p-1/web
mkfs.ext4 -q /dev/vdisk/p-1/web
mkdir /tmp/a
vdunlink -q p-1/web

step a base image, which the kernel reads through a loop device that goes with the link
loops() { losetup --noheadings --raw -O NAME,RO,AUTOCLEAR,BACK-FILE | grep -F "$1"; }
truncate -s 5M "/tmp/ba se"
mkfs.ext4 -q "/tmp/ba se"
vdlink -q p-1/web
vdcreate -q -L 8M --base "/tmp/ba se" p-1/based
vdlink -q p-1/based
active kernel
[ "$(loops "/tmp/ba" | cut -d' ' -f2,3)" = "1 1" ]
cmp -n 5M "/tmp/ba se" /dev/vdisk/p-1/based
cmp -i 5M:0 -n 3M /dev/vdisk/p-1/based /dev/zero
udevadm settle
fs=$(blkid -p -o value -s UUID "/tmp/ba se") # by its name it is the volume, not the image
[ "$(readlink -f "/dev/disk/by-uuid/$fs")" = "$(readlink -f /dev/vdisk/p-1/based)" ]
[ "$(find -L /dev/disk -samefile "$(loops "/tmp/ba" | cut -d' ' -f1)")" = "" ]
head -c 512 /dev/urandom >/tmp/part
dd if=/tmp/part of=/dev/vdisk/p-1/based seek=2049 bs=512 oflag=direct conv=notrunc,fsync status=none
vdresize -q -L 12M p-1/based
vdlink -q --refresh p-1/based
[ "$(blockdev --getsize64 /dev/vdisk/p-1/based)" = $((12 << 20)) ]
[ "$(loops "/tmp/ba" | wc -l)" = 1 ]
vdsnap -q -n based-now p-1/based
vdlink -q -r p-1/based-now
[ "$(loops "/tmp/ba" | wc -l)" = 2 ]
sha256sum </dev/vdisk/p-1/based >/tmp/based
sha256sum </dev/vdisk/p-1/based-now | cmp - /tmp/based
step one that is gone
mv "/tmp/ba se" /tmp/away
vdunlink -q p-1/based-now
fails 3 "its base image /tmp/ba se cannot be opened" vdlink p-1/based-now
mv /tmp/away "/tmp/ba se"
vdunlink -q p-1/based
[ -z "$(losetup -a)" ]
step one that is stored in the pool itself could not be waited for
mount /dev/vdisk/p-1/web /tmp/a
cp "/tmp/ba se" /tmp/a/inside
vdcreate -q --base /tmp/a/inside p-1/inward
fails 4 "stored in the pool itself" vdlink p-1/inward
vdrm -q -y p-1/inward
rm /tmp/a/inside
umount /tmp/a
step a base image that is a block device
img=$(losetup -r -f --show "/tmp/ba se")
vdcreate -q --base "$img" p-1/based-dev
vdlink -q p-1/based-dev
cmp "/tmp/ba se" /dev/vdisk/p-1/based-dev
[ "$(losetup -a | wc -l)" = 1 ]
vdunlink -q p-1/web p-1/based-dev
losetup -d "$img"
active no
step a server reads the same
VD_KERNEL=n vdlink -q p-1/based
active server
sha256sum </dev/vdisk/p-1/based | cmp - /tmp/based
vdunlink -q p-1/based
active no
vdpool check p-1
[ -z "$(losetup -a)$(dmsetup ls | grep -v '^No devices')" ]
nothing_left
