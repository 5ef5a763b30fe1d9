#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# In a guest that vm.bats gives many drives: many.sh TIMES DRIVES.  What drive is to come next,
# and whether it goes, the host says in /job/next: "NUMBER UUID".
# shellcheck source=tests/lab/jobs/common.sh
. /vd/tests/lab/jobs/common.sh
modprobe virtio_scsi
modprobe sd_mod

disk() { echo "/dev/disk/by-id/vd-$1"; }
# next N: sets $disk
next()
{
	local n='' uuid i
	for ((i = 0; i < 6000; i++)); do
		if [ -e /job/next ]; then read -r n uuid </job/next || true; fi
		[ "$n" != "$1" ] || break
		sleep 0.05
	done
	[ "$n" = "$1" ]
	echo "$n" >/job/took
	disk=$(disk "$uuid")
}
touch /job/ready

echo "== a file system at work, as long as all of this takes"
next 0
udevadm wait --timeout=100 "$disk"
mkfs.ext4 -q "$disk"
mkdir /work
base=$disk
mount "$disk" /work
at_work /work 200

echo "== $1 times a drive comes, with what was written to it the time before, and goes"
was=/dev/zero
for ((i = 1; i <= $1; i++)); do
	next $i
	udevadm wait --timeout=100 "$disk"
	cmp -n 4096 "$disk" $was
	was=/tmp/block
	head -c 4096 /dev/urandom >$was
	dd if=$was of="$disk" bs=4k oflag=direct status=none
	udevadm settle # it looks at what was written to; nobody asks it before the drive goes
	echo $i >/job/used
	udevadm wait --timeout=100 --removed "$disk"
done

echo "== $2 drives at once"
next all
for ((i = 0; i < 6000; i++)); do
	[ "$(find /dev/disk/by-id -name 'vd-*' | wc -l)" -lt $(($2 + 1)) ] || break
	sleep 0.05
done
mark_all_but "$base" | sort >/job/written
[ "$(lsblk -dno NAME | grep -c ^sd)" = $(($2 + 1)) ]
touch /job/all
next gone
for ((i = 0; i < 6000; i++)); do
	[ "$(lsblk -dno NAME | grep -c ^sd)" -gt 1 ] || break
	sleep 0.05
done
[ "$(lsblk -dno NAME | grep -c ^sd)" = 1 ]

echo "== and the file system has seen nothing of it"
at_rest
umount /work
fsck.ext4 -fn "$base"
flawless
