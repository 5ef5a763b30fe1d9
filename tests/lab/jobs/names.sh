#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# A namespace of an NVMe target has the names of the volume that it is, if the target says that it is vd's.
# shellcheck source=tests/lab/jobs/common.sh
. /vd/tests/lab/jobs/common.sh
cp /vd/udev-rules/62-vd-drives.rules /etc/udev/rules.d/
udevadm control --reload
modprobe nvmet
modprobe nvme_loop
modprobe brd rd_nr=2 rd_size=16384
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
cd /sys/kernel/config/nvmet

# target NUMBER MODEL UUID
target()
{
	mkdir "subsystems/t$1" "subsystems/t$1/namespaces/1"
	echo 1 >"subsystems/t$1/attr_allow_any_host"
	echo "$2" >"subsystems/t$1/attr_model"
	echo "/dev/ram$1" >"subsystems/t$1/namespaces/1/device_path"
	echo "$3" >"subsystems/t$1/namespaces/1/device_uuid"
	echo 1 >"subsystems/t$1/namespaces/1/enable"
	ln -s "$PWD/subsystems/t$1" ports/1/subsystems/
	echo "transport=loop,nqn=t$1" >/dev/nvme-fabrics
}
uuid=0f1e2d3c-4b5a-4678-9a9b-acbdcedff012 other=0f1e2d3c-4b5a-4678-9a9b-acbdcedff013

mkdir ports/1
echo loop >ports/1/addr_trtype
target 0 other "$other"
target 1 vd "$uuid"
udevadm wait --timeout=100 "/dev/disk/by-id/vd-$uuid" "/dev/vdisk/by-id/$uuid" "/dev/disk/by-id/nvme-uuid.$other"
udevadm settle
[ "$(readlink -f "/dev/disk/by-id/vd-$uuid")" = "$(readlink -f "/dev/disk/by-id/nvme-uuid.$uuid")" ]
[ "$(find /dev/vdisk/by-id /dev/disk/by-id -name "*$uuid" | wc -l)" = 3 ]
[ "$(find /dev/vdisk/by-id -type l | wc -l)" = 1 ]
echo 0 >subsystems/t1/namespaces/1/enable
udevadm wait --timeout=100 --removed "/dev/disk/by-id/vd-$uuid"
