# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The agent of a server where systemd is process 1, with a real NVMe target: this machine's own, on the loopback
# device.  A namespace is a file's loop device.
. /vd/tests/lab/jobs/common.sh

step() { echo "== $*"; }
T=/var/tmp/agent
U=11111111-2222-4333-8444-555555555555
NQN=nqn.2026-11.org.vd:pool:$U
nvmet=/sys/kernel/config/nvmet
export VD_STATE_DIR=$T/state
mkdir -p $T
mount -t tmpfs tmpfs $T
cd $T

modprobe -a loop nvme-tcp nvmet-tcp
mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config
ip link set lo up
mkdir $nvmet/ports/1
echo tcp >$nvmet/ports/1/addr_trtype
echo ipv4 >$nvmet/ports/1/addr_adrfam
echo 127.0.0.1 >$nvmet/ports/1/addr_traddr
echo 4420 >$nvmet/ports/1/addr_trsvcid

# target DEVICE UUID NQN: has it as its namespace 1
target()
{
	local s=$nvmet/subsystems/$3
	mkdir -p "$s/namespaces/1"
	local host
	host=$(ask '{"op":"status"}' | jq -r .hostnqn)
	mkdir -p "$nvmet/hosts/$host"
	[ -e "$s/allowed_hosts/$host" ] || ln -s "$nvmet/hosts/$host" "$s/allowed_hosts/"
	echo -n "$1" >"$s/namespaces/1/device_path"
	echo -n "$2" >"$s/namespaces/1/device_nguid"
	echo -n "$2" >"$s/namespaces/1/device_uuid"
	echo 1 >"$s/namespaces/1/enable"
	[ -e $nvmet/ports/1/subsystems/"$3" ] || ln -s "$s" $nvmet/ports/1/subsystems/
}
take_target()
{
	echo 0 >"$nvmet/subsystems/$1/namespaces/1/enable"
	rmdir "$nvmet/subsystems/$1/namespaces/1"
}
end_target()
{
	rm -f $nvmet/ports/1/subsystems/"$1" "$nvmet/subsystems/$1/allowed_hosts/"*
	rmdir "$nvmet/subsystems/$1"
}
ask() { vdagent ask --key $T/key --timeout 120 127.0.0.1 <<<"$1"; }
# link NQN UUID DEVICE MOUNT
link()
{
	ask "$(jq -nc --arg u "$2" --arg nqn "$1" --argjson size "$(blockdev --getsize64 "$3")" --argjson mount "$4" --argjson dhchap ${DHCHAP:-false} '{op: "link", uuid: $u, name: "p/v", size: $size,
		mode: "rw", via: {kind: "nvme-tcp", nqn: $nqn, address: "'${ADDRESS:-127.0.0.1}'", port: "4420", dhchap: $dhchap}, mount: $mount}')" | tee answer
	jq -e .ok answer >/dev/null
}
is() { jq -e "$1" answer >/dev/null; }
unlink() { ask "{\"op\":\"unlink\",\"uuid\":\"$1\"}" | tee $T/answer; jq -e .ok answer >/dev/null; }
gone() { ask "{\"op\":\"gone\",\"uuid\":\"$1\",\"nqn\":\"$2\"}" | tee $T/answer; jq -e .ok answer >/dev/null; }
agent() { systemd-run --quiet --unit=vdagent -p Type=notify -p KillMode=process -E VD_STATE_DIR=$VD_STATE_DIR /vd/build/vdagent --listen 127.0.0.1 --key $T/key; }


vdagent key key
agent

step a drive is linked, mounted by systemd, and unlinked
truncate -s 300M d
L=$(losetup -f --show d)
target "$L" $U $NQN
link $NQN $U "$L" '{"mkfs": "ext4"}'
is '.mount == "/srv/vd/v" and (.device | startswith("/dev/nvme")) and .type == "ext4"'
systemctl is-active srv-vd-v.mount
[[ $(findmnt -no OPTIONS /srv/vd/v) == *nosuid,nodev* ]]
systemctl show -P After srv-vd-v.mount | grep -w network.target
sleep 1000 </srv/vd/v & holder=$!
fails unlink $U
is ".error | contains(\"in use by sleep ($holder)\")"
systemctl is-active srv-vd-v.mount
kill $holder
wait $holder || :
echo data >/srv/vd/v/file
unlink $U
fails mountpoint -q /srv/vd/v
[ "$(systemctl is-active srv-vd-v.mount)" != active ]
take_target $NQN
gone $U $NQN
[ -z "$(ls /sys/class/nvme)" ]

step an automount is there when asked again, mounts when it is used, and goes
target "$L" $U $NQN
link $NQN $U "$L" '{"dir": "/srv/auto", "automount": true}'
is '.mount == "/srv/auto"'
findmnt -no FSTYPE /srv/auto | grep -x autofs
systemctl show -P BindsTo srv-auto.automount | grep -w dev-nvme0n1.device
link $NQN $U "$L" '{"dir": "/srv/auto", "automount": true}'
is '.mount == "/srv/auto"'
ask '{"op":"status"}' | jq -e '.drives[0] | .state == "up" and .mount == "/srv/auto"'
systemctl restart vdagent 2>/dev/null || { systemctl stop vdagent; systemctl reset-failed vdagent || :; agent; }
findmnt -no FSTYPE /srv/auto | grep -x autofs
unlink $U
[ -z "$(findmnt -no FSTYPE /srv/auto)" ]
link $NQN $U "$L" '{"dir": "/srv/auto", "automount": true}'
[ "$(cat /srv/auto/file)" = data ]
findmnt -t ext4 /srv/auto
unlink $U
[ -z "$(findmnt -no FSTYPE /srv/auto)" ]

step an automount goes with its device: by its number another drive would be mounted
link $NQN $U "$L" '{"dir": "/srv/auto", "automount": true}'
for dev in /sys/class/nvme/nvme*; do echo 1 >"$dev/delete_controller"; done
until_ok 60 eval '[ -z "$(findmnt -no FSTYPE /srv/auto)" ]'
link $NQN $U "$L" '{"dir": "/srv/auto", "automount": true}'
[ "$(cat /srv/auto/file)" = data ]
unlink $U

step the agent killed, and the mount gone: it is there again
link $NQN $U "$L" '{"dir": "/srv/again"}'
systemctl kill -s KILL vdagent
until_ok 60 eval '! systemctl -q is-active vdagent'
mountpoint /srv/again
umount /srv/again
dev=$(ls -d /sys/class/nvme/nvme*)
echo 1 >"$dev/delete_controller"
systemctl reset-failed vdagent || :
agent
until_ok 60 mountpoint -q /srv/again
unlink $U

step a mount whose device has gone, and that is in use, makes room for the drive
link $NQN $U "$L" '{"dir": "/srv/dead"}'
sleep 1000 </srv/dead & holder=$!
for dev in /sys/class/nvme/nvme*; do echo 1 >"$dev/delete_controller"; done
link $NQN $U "$L" '{"dir": "/srv/dead"}'
is '.mount == "/srv/dead"'
[ "$(findmnt -no SOURCE /srv/dead)" = "$(jq -r .device answer)" ]
touch /srv/dead/file
kill $holder
wait $holder || :
unlink $U

step a snapshot with the UUID of what is mounted is mounted only when a duplicate is asked for
U2=99999999-2222-4333-8444-555555555555
NQN2=nqn.2026-11.org.vd:pool:$U2
mkfs.xfs -q -f -L shared "$L"
sync
link $NQN $U "$L" '{}'
is '.mount == "/srv/vd/shared"'
unlink $U
cp d e
link $NQN $U "$L" '{}'
M=$(losetup -f --show e)
target "$M" $U2 $NQN2
link $NQN2 $U2 "$M" '{}'
is '.mount == "" and (.note | contains("duplicate"))'
link $NQN2 $U2 "$M" '{"duplicate": true}'
is '.mount == "/srv/vd/v-99999999"'
unlink $U2
unlink $U

take_target $NQN2
gone $U2 $NQN2
end_target $NQN2

# With no subsystem the port does not listen.  A target that answers, and does not know the subsystem, is no
# host that is away: since 6.10 the kernel then drops the device at once.
step a host that goes away and comes back: the drive waits
link $NQN $U "$L" '{}'
rm $nvmet/ports/1/subsystems/$NQN
until_ok 60 eval "ask '{\"op\":\"status\"}' | jq -e '.drives[0].state == \"stalled\"'"
fails unlink $U
ln -s $nvmet/subsystems/$NQN $nvmet/ports/1/subsystems/
until_ok 60 eval "ask '{\"op\":\"status\"}' | jq -e '.drives[0].state == \"up\"'"
unlink $U
take_target $NQN
gone $U $NQN

step where the kernel can, both sides prove that they have the key
host=$(echo $nvmet/hosts/*)
[ "$(ask '{"op":"status"}' | jq .dhchap)" = "$([ -e "$host/dhchap_key" ] && echo true || echo false)" ]
if [ -e "$host/dhchap_key" ]; then
	DHCHAP=true
	target "$L" $U $NQN
	vdagent key --dhchap $T/key >"$host/dhchap_key"
	link $NQN $U "$L" '{}'
	unlink $U
	gone $U $NQN
	vdagent key -q $T/other
	vdagent key --dhchap $T/other >"$host/dhchap_key"
	fails link $NQN $U "$L" '{}'
	is '.error | contains("does not let this server")'
	[ -z "$(ls /sys/class/nvme)" ]
	take_target $NQN
fi
end_target $NQN

step a host that has another address now is connected to there, and what is mounted goes on
if [ -e "$host/dhchap_key" ]; then vdagent key --dhchap $T/key >"$host/dhchap_key"; fi
mkdir $nvmet/ports/2
echo tcp >$nvmet/ports/2/addr_trtype
echo ipv4 >$nvmet/ports/2/addr_adrfam
echo 127.0.0.2 >$nvmet/ports/2/addr_traddr
echo 4420 >$nvmet/ports/2/addr_trsvcid
target "$L" $U $NQN
link $NQN $U "$L" '{"dir": "/srv/moved"}'
rm $nvmet/ports/1/subsystems/$NQN
until_ok 60 eval "ask '{\"op\":\"status\"}' | jq -e '.drives[0].state == \"stalled\"'"
ln -s $nvmet/subsystems/$NQN $nvmet/ports/2/subsystems/
# The old controller's number is free on the target, and not here
ADDRESS=127.0.0.2 fails link $NQN $U "$L" '{"dir": "/srv/moved"}'
is '.error | contains("vdagent forget")'
echo 100 >$nvmet/subsystems/$NQN/attr_cntlid_min
ADDRESS=127.0.0.2 link $NQN $U "$L" '{"dir": "/srv/moved"}'
is '.mount == "/srv/moved"'
touch /srv/moved/file
sync /srv/moved/file

step a drive whose host is away is given up, although it is in use
sleep 1000 </srv/moved & holder=$!
rm $nvmet/ports/2/subsystems/$NQN
until_ok 60 eval "ask '{\"op\":\"status\"}' | jq -e '.drives[0].state == \"stalled\"'"
fails unlink $U
vdagent forget -y $U
fails mountpoint -q /srv/moved
[ -z "$(ls /sys/class/nvme)" ]
ask '{"op":"status"}' | jq -e '.drives == []'
kill $holder
wait $holder || :
take_target $NQN
end_target $NQN
rmdir $nvmet/ports/2

systemctl stop vdagent
losetup -d "$L" "$M"
sound
echo done
