#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# links.sh [vm] [nvme-tcp]   from a command to a drive that is mounted on a server, and back until it is
#                            gone there: vdlink and vdunlink beside a script that does the same by hand
#
#   vm         a guest of this host, with systemd and vdagent; by hand: QMP, and a program in the
#              guest that waits for the disk and mounts it
#   nvme-tcp   two guests; by hand: configfs, and a program on the other that is told to
#              connect, waits for the disk and mounts it
#
#   TIMES=20  LAB_KERNEL=6.12
#
# What is by hand has no agent to start, no lock and no record, and does not look at what it mounts.
# Samples, "ROW PROGRAM MICROSECONDS", are in build/bench/links-KIND.tsv; step-X is the time
# that vdlink takes for one step.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
VD=$(cd "$here/../.." && pwd)
out=$VD/build/bench
export PATH=$VD/build:$PATH TIMES=${TIMES:-20} VD_SERVER_TIMEOUT=60
KERNEL=${LAB_KERNEL:-6.12}
[ $# -gt 0 ] || set -- vm nvme-tcp
if [ $# -gt 1 ]; then # each with machines of its own
	for kind; do "$here/links.sh" "$kind"; done
	exit
fi
# shellcheck source=tests/lab/machines.bash
. "$VD/tests/lab/machines.bash"
machines=() done=
finish()
{
	local BATS_TEST_COMPLETED=$done
	vdlink ls --noheadings -o path 2>/dev/null | xargs -r vdunlink -q --force || true
	machines_off "${machines[@]}"
	wait
	cd / && rm -rf "$T"
}
mkdir -p "$out"
T=$(mktemp -d /var/tmp/vdb.XXXXXX)
export VD_CONFIG_DIR=$T/etc VD_RUNTIME_DIR=$T/run VD_DEV_DIR=$T/dev # finish must see no links but ours
trap finish EXIT
cd "$T"

start() { machines+=("$1"); boot "$@" -t 3600; }
# A server: systemd, and vdagent as make install puts it there, with that key
server_root()
{
	mkdir -p "$T/$1"/root/{etc/{vd,nvme},srv}
	installed "$1"
	install -m 600 "$2" "$T/$1/root/etc/vd/agent.key"
}
# guest/links.sh has the rest of it
# shellcheck source=tests/bench/guest/links.sh
. "$here/guest/links.sh"

vm()
{
	local port=$((20000 + RANDOM % 10000))
	mkdir -p "$T"/{etc/keys,run,web1}
	vdagent key -q "$T/etc/keys/web1.key"
	server_root web1 "$T/etc/keys/web1.key"
	vdpool create -q -L 256M p "$T/m0" "$T/m1"
	vdcreate -q -L 64M -a y p/v
	mkfs.ext4 -q "$VD_DEV_DIR/p/v"
	vdcreate -q -L 8M -a y p/other # the server of the pool runs
	vdunlink -q p/v
	truncate -s 64M "$T/hand.img"
	mkfs.ext4 -q "$T/hand.img"
	start web1 10.0.2.15 -i systemd -q "$T/q" -n "user,restrict=on,hostfwd=tcp:127.0.0.1:$port-:8653"
	on web1 'systemctl start vdagent; modprobe sd_mod'
	on web1 "setsid bash /vd/tests/bench/guest/waits.sh /dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_hand >/dev/null 2>&1 </dev/null &"
	vdserver add -q p/web1 --qmp "$T/q" --agent "127.0.0.1:$port"
	samples=$out/links-vm.tsv
	settle() { on web1 'udevadm settle'; }
	links hand vm_hand vm_hand_back p/v web1
}
vm_hand()
{
	"$here/qmp.py" "$T/q" blockdev-add '{"driver": "file", "node-name": "hand", "filename": "'"$T/hand.img"'", "cache": {"direct": true}}' \
		device_add '{"driver": "scsi-hd", "id": "hand", "bus": "scsi0.0", "drive": "hand", "serial": "hand", "device_id": "hand"}'
	until [ -e "$T/web1/mounted" ]; do sleep 0.005; done
}
vm_hand_back()
{
	: >"$T/web1/undo"
	until [ -e "$T/web1/unmounted" ]; do sleep 0.005; done
	"$here/qmp.py" "$T/q" device_del '{"id": "hand"}' wait DEVICE_DELETED blockdev-del '{"node-name": "hand"}'
	until [ -e "$T/web1/gone" ]; do sleep 0.005; done
	rm "$T/web1"/{mounted,undo,unmounted,gone}
}

nvme_tcp()
{
	local port=$((20000 + RANDOM % 10000 * 2)) secret
	mkdir -p "$T"/{host/root/etc/vd/keys,web1}
	truncate -s 512M "$T/m0"
	vdagent key -q "$T/host/root/etc/vd/keys/web1.key"
	secret=$(vdagent key --dhchap "$T/host/root/etc/vd/keys/web1.key")
	server_root web1 "$T/host/root/etc/vd/keys/web1.key"
	tr -d - </proc/sys/kernel/random/uuid >"$T/host/root/etc/machine-id"
	echo "$NQN" >"$T/web1/root/etc/nvme/hostnqn"
	start host 10.0.0.1 -b -d "$T/m0" -n "socket,udp=127.0.0.1:$((port + 1)),localaddr=127.0.0.1:$port"
	start web1 10.0.0.2 -i systemd -n "socket,udp=127.0.0.1:$port,localaddr=127.0.0.1:$((port + 1))"
	on web1 'modprobe nvme-tcp; systemctl start vdagent'
	on web1 "setsid python3 /vd/tests/bench/guest/connects.py $secret >/dev/null 2>&1 </dev/null &"
	on host "TIMES=$TIMES bash /vd/tests/bench/guest/links.sh $NQN $secret"
	cp "$T/host/samples" "$out/links-nvme-tcp.tsv"
}

case $1 in
vm) vm ;;
nvme-tcp) nvme_tcp ;;
*) echo "links.sh: no such kind: $1" >&2; exit 2 ;;
esac
"$here/table.py" "$out/links-$1.tsv"
done=1
