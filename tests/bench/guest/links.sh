# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What links.sh times: on the host itself, and (nvme-tcp) in a guest that is the host.

# shellcheck source=tests/bench/guest/timed.sh
. "${BASH_SOURCE[0]%/*}/timed.sh"

# ---- NVMe over TCP, by hand ----------------------------------------------------

NVMET=/sys/kernel/config/nvmet SUB=/sys/kernel/config/nvmet/subsystems/hand
HAND=nqn.2014-08.org.nvmexpress:uuid:22222222-2222-3333-4444-555555555555
tell() { exec 4<>/dev/tcp/10.0.0.2/9999; echo "$1" >&4; read -r _ <&4; exec 4>&-; }
nvme_hand()
{
	lvm lvchange -ay -K g/v
	mkdir "$SUB" "$SUB/namespaces/1"
	ln -s "$NVMET/hosts/$HAND" "$SUB/allowed_hosts/"
	echo 6c7d1d4e-0b5c-4d0a-9c5d-1a2b3c4d5e6f >"$SUB/namespaces/1/device_uuid"
	echo /dev/g/v >"$SUB/namespaces/1/device_path"
	echo 1 >"$SUB/namespaces/1/enable"
	ln -s "$SUB" "$NVMET/ports/1/subsystems/"
	tell connect
}
nvme_hand_back()
{
	tell disconnect
	rm "$NVMET/ports/1/subsystems/hand" "$SUB/allowed_hosts/$HAND"
	rmdir "$SUB/namespaces/1" "$SUB"
	lvm lvchange -an g/v
}
if [ "${BASH_SOURCE[0]}" = "$0" ]; then # in the guest
	set -eu -o pipefail
	NQN=$1 SECRET=$2 samples=/job/samples
	settle() { udevadm settle; tell settle; }
	export VD_SERVER_TIMEOUT=60
	from_memory
	vdpool create -q -y p "$DISKS"
	vdcreate -q -L 8M -a y p/other # the pool stays open
	vdcreate -q -L 64M -a y p/v
	mkfs.ext4 -q /dev/vdisk/p/v
	vdunlink -q p/v
	vdserver add -q p/web1 --kind nvme-tcp --host "$NQN" --address 10.0.0.1 --agent 10.0.0.2
	modprobe nvmet-tcp
	[ -d $NVMET ] || mount -t configfs configfs /sys/kernel/config
	modprobe dm-thin-pool
	modprobe brd rd_nr=1 rd_size=262144
	lvm vgcreate -y g /dev/ram0
	lvm lvcreate -y -L 128M -T g/p
	lvm lvcreate -y -V 8M -T g/p -n other # as with vd
	lvm lvcreate -y -V 64M -T g/p -n v
	mkfs.ext4 -q /dev/g/v
	lvm lvchange -an g/v
	mkdir -p "$NVMET/hosts/$HAND" $NVMET/ports/1
	[ ! -e "$NVMET/hosts/$HAND/dhchap_key" ] || echo "$SECRET" >"$NVMET/hosts/$HAND/dhchap_key"
	echo ipv4 >$NVMET/ports/1/addr_adrfam
	echo tcp >$NVMET/ports/1/addr_trtype
	echo 10.0.0.1 >$NVMET/ports/1/addr_traddr
	echo 4421 >$NVMET/ports/1/addr_trsvcid
	links hand nvme_hand nvme_hand_back p/v web1
fi
