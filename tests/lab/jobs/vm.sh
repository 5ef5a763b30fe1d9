#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# In a guest that vm.bats gives a drive: vm.sh UUID
# shellcheck source=tests/lab/jobs/common.sh
. /vd/tests/lab/jobs/common.sh
modprobe virtio_scsi
modprobe sd_mod
disk=/dev/disk/by-id/vd-$1

comes() { udevadm wait --timeout=200 "$disk"; }
goes() { udevadm wait --timeout=200 --removed "$disk"; }
touch /job/ready

echo "== it comes"
comes
[ "$(lsblk -dno SERIAL "$disk")" = "$1" ]
[ "$(lsblk -dno VENDOR,MODEL "$disk" | xargs)" = "vd pool/v" ]
udevadm wait --timeout=200 "$disk-part1" "/dev/vdisk/by-id/$1-part1"
[ "$(readlink -f "/dev/vdisk/by-id/$1")" = "$(readlink -f "$disk")" ]
[ "$(readlink -f "$disk-part1")" = "$(readlink -f "$disk")1" ]
[ "$(find /dev/vdisk/by-id -type l | wc -l)" = 2 ] # and no other disk's
[ "$(blockdev --getsize64 "$disk")" = 33554432 ]
[ "$(blockdev --getss "$disk") $(blockdev --getpbsz "$disk")" = "512 4096" ]
sha256sum <"$disk" >/job/sum
dd of="$disk" bs=64k count=1 iflag=fullblock oflag=direct conv=fsync status=none < <(yes vd)
dd if="$disk" bs=64k skip=1 status=none | sha256sum >/job/rest
touch /job/written

echo "== it goes"
goes
[ -z "$(lsblk -no SERIAL | grep "$1")" ]
touch /job/gone

echo "== it comes again, read-only"
comes
[ "$(blockdev --getro "$disk")" = 1 ]
cmp -n 65536 <(yes vd) "$disk"
sound
