#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# One of those who have a part in a link ends without a word, at each step of vdlink and of vdunlink, and comes back: the
# server, its agent, or the command.  Afterwards there is no link, or one that is up again, by itself or by vdlink --restore;
# it can be undone, and then nothing is left of it, on the host or the server.  (In tests/cmd the command is killed at each call,
# with nobody on the other side.)
#
# And a host where what make install puts there is all that makes links again.
load helper
load machines
load server

# ended WHO TEXT COMMAND...: the command, and WHO ends when it has said or sent TEXT, as jobs/halt.sh has it:
#   server   its power is cut, and it boots while the command goes on
#   agent    it is killed, and started again before the command goes on
#   away     it is killed, and started again when the command has ended
#   command  it is itself killed
ended()
{
	local who=$1 text=$2 i
	shift 2
	set -- env VD_SERVER_TIMEOUT=5 "$@" # nobody answers for a machine that has no power
	echo "-- ${*:3}: $text ($SECONDS s)" | tee -a steps
	halted "$text" "$@"
	case $who in
	server) cut_off web1; start web1 ;;
	agent) end_agent; on web1 start_agent ;;
	away) end_agent ;;
	command) at_host "kill -KILL $(cat host/at/there)" ;;
	esac
	goes_on
	case $who in
	server) on web1 true ;;
	away) on web1 start_agent ;;
	esac
	echo "$(cat host/at/status): $(tail -n 1 host/at/said)" | tee -a steps
	[ "$(cat host/at/status)" != never ]
}

# What it is: up, down, or none
state() { at_host 'vdlink ls --noheadings -o state pool | xargs'; state=$output; echo "link: ${state:-none}" | tee -a steps; }

# After vdlink: it can be used, or be had
after_link()
{
	local state
	state
	case $state in
	"") at_host 'vdls --noheadings -o locked pool/v | grep -vw yes && vdlink pool/v web1' ;;
	up) ;;
	*) at_host 'vdlink --restore pool' ;;
	esac
	mounted
	at_host 'vdlink ls --noheadings -o state pool | xargs'
	[ "$output" = up ]
	at_host 'vdunlink pool/v'
	nothing_left
}
# After vdunlink: it has done it, or does it when it is asked again
after_unlink()
{
	local state
	state
	case $state in
	"") # What a killed command has left open goes when it is said again; a server that was not there to be told is told.
		[ "$who" != command ] || at_host 'vdunlink pool/v' 3
		at_host 'vdlink --restore pool' ;;
	up) at_host 'vdunlink pool/v' ;;
	*)
		at_host 'vdlink --restore pool'
		mounted
		at_host 'vdunlink pool/v' ;;
	esac
	nothing_left
}

# ended_at_each KIND KERNEL WHO...
ended_at_each()
{
	local who text link unlink
	link=("describe: done" "lock: done" "pointer: done" "link: done" '\"op\":\"link\"' "scan: done" "report: done" '\"mount\":{' "present: done"
		"unlock: done")
	unlink=("waiting for" '\"op\":\"unlink\"' "is gone")
	case $1 in
	vm) link+=(blockdev-add device_add) unlink+=(device_del blockdev-del pointer-del '\"op\":\"unlock\"') ;;
	*) link+=('"1", 1)') unlink+=('"0", 1)' '\"op\":\"gone\"') ;; # the namespace is enabled, and not any more
	esac
	machines "$1" "$2"
	shift 2
	for who; do
		for text in "${link[@]}"; do
			ended "$who" "$text" vdlink -v pool/v web1
			after_link
		done
		for text in "${unlink[@]}"; do
			at_host 'vdlink -q pool/v web1'
			ended "$who" "$text" vdunlink -v pool/v
			after_unlink
		done
	done
	at_host 'vdlink -q pool/v web1 && vdunlink -q pool/v'
	[ "$KIND" = vm ] || on host sound
}

@test "6.1: the agent of a VM, or the command, is killed at each step of a link" {
	ended_at_each vm 6.1 agent away command
}

@test "6.12: the agent of a VM, or the command, is killed at each step of a link" {
	ended_at_each vm 6.12 agent away command
}

@test "6.1: a VM loses its power at each step of a link" {
	ended_at_each vm 6.1 server
}

@test "6.12: a VM loses its power at each step of a link" {
	ended_at_each vm 6.12 server
}

@test "6.1: the agent of a machine, or the command, is killed at each step of a link by NVMe/TCP" {
	ended_at_each nvme-tcp 6.1 agent away command
}

@test "6.12: the agent of a machine, or the command, is killed at each step of a link by NVMe/TCP" {
	ended_at_each nvme-tcp 6.12 agent away command
}

@test "6.1: a machine loses its power at each step of a link by NVMe/TCP" {
	ended_at_each nvme-tcp 6.1 server
}

@test "6.12: a machine loses its power at each step of a link by NVMe/TCP" {
	ended_at_each nvme-tcp 6.12 server
}

# ---- units ---------------------------------------------------------------------

# network MACHINE: it has its address from the start, as a host has
network()
{
	local etc=$T/$1/root/etc/systemd lib=/lib/systemd/system
	mkdir -p "$etc/network" "$etc"/system/{multi-user,network-online}.target.wants
	printf '[Match]\nName=eth0\n[Network]\nAddress=%s/24\n' "${ADDRESS[$1]}" >"$etc/network/eth0.network"
	ln -s $lib/systemd-networkd.service "$etc/system/multi-user.target.wants/"
	ln -s $lib/systemd-networkd-wait-online.service "$etc/system/network-online.target.wants/"
}
# writes_on: the program on the server, without having failed
writes_on()
{
	on web1 'n=$(cat /run/written); for ((i = 0; i < 1200; i++)); do [ "$(cat /run/written)" -gt $((n + 5)) ] && break; sleep 0.2; done
		cat /run/failed /run/writer.said /run/written 2>/dev/null; [ "$(cat /run/written)" -gt $((n + 5)) ] && [ ! -e /run/failed ]'
}
both_up() { on host 'for ((i = 0; i < 300; i++)); do [ "$(vdlink ls --noheadings -o state | xargs)" = "up up" ] && exit; sleep 0.2; done; vdlink ls; exit 1'; }

# The drives are of two pools, each on a disk of its own.
units()
{
	KIND=units KERNEL=$1 PORT=$((20000 + RANDOM % 10000 * 2))
	declare -gA ADDRESS=([host]=10.0.0.1 [web1]=10.0.0.2)
	mkdir -p host/root/etc/modprobe.d web1/root/{etc/nvme,srv,var/lib/vdagent}
	truncate -s 256M m0 m1
	truncate -s 16M state.img
	mkfs.ext4 -q state.img
	installed host
	installed web1
	network host
	network web1
	# shellcheck disable=SC2016 # the guest's
	echo 'install dm-vd insmod /vd/build/modules/$(uname -r)/dm-vd.ko' >host/root/etc/modprobe.d/vd.conf
	echo 'PATH=/usr/sbin:/usr/bin; export VD_SERVER_TIMEOUT=60' >host/begin
	echo $NQN >web1/root/etc/nvme/hostnqn
	echo "/dev/disk/by-id/virtio-d0 /var/lib/vdagent ext4 defaults 0 0" >web1/root/etc/fstab

	step drives of two pools are given to a server, which writes to them
	start host
	on host 'vdpool create -q pool /dev/disk/by-id/virtio-d0 && vdpool create -q pool2 /dev/disk/by-id/virtio-d1 && rm /etc/vd/devices'
	on host 'vdcreate -q -L 64M pool/v && vdcreate -q -L 32M pool2/w'
	for pool in pool pool2; do
		on host "vdserver add -q $pool/web1 --kind nvme-tcp --host $NQN --address 10.0.0.1 --agent 10.0.0.2"
	done
	on host 'cat /etc/vd/keys/web1.key'
	(umask 077 && echo "$output" >web1/root/etc/vd/agent.key)
	start web1
	on web1 'for ((i = 0; i < 300; i++)); do systemctl is-active -q vdagent && break; sleep 0.2; done; vdagent status'
	on host 'vdlink --mkfs ext4 pool/v web1 && vdlink --mkfs ext4 pool2/w web1'
	on web1 'cat >/run/writer <<"END"
for ((n = 0;; n++)); do for d in v w; do echo $n >>/srv/vd/$d/log && sync /srv/vd/$d/log || echo "failed at $n" >>/run/failed; done; echo $n >/run/written~; mv /run/written~ /run/written; sleep 0.1; done
END
	bash /run/writer >/run/writer.said 2>&1 & echo $! >/run/writer.pid
	until [ "$(cat /run/written 2>/dev/null || echo 0)" -ge 5 ]; do sleep 0.1; done'
	on host 'cp -r /etc/vd /job/root/etc' # as on a disk

	step the host is cut off its power: the program goes on, and nothing was typed
	cut_off host
	start host
	writes_on
	both_up
	on host 'sound'

	step it is shut down in order, and the program goes on
	touch host/end
	wait "$host"
	start host
	writes_on
	both_up

	step both are cut off their power: the drives are there again, and nothing was typed
	on web1 'kill $(cat /run/writer.pid); for d in v w; do diff <(seq 0 $(($(wc -l </srv/vd/$d/log) - 1))) /srv/vd/$d/log; done; sync'
	cut_off web1
	cut_off host
	start web1
	start host
	on web1 'for ((i = 0; i < 600; i++)); do mountpoint -q /srv/vd/v && mountpoint -q /srv/vd/w && break; sleep 0.2; done; vdagent status
		for d in v w; do diff <(seq 0 $(($(wc -l </srv/vd/$d/log) - 1))) /srv/vd/$d/log || exit; done'
	both_up

	step nothing is left when they are unlinked
	on host 'vdunlink pool/v pool2/w && vdpool check pool && vdpool check pool2; find /sys/kernel/config/nvmet -mindepth 2; [ -z "$(find /sys/kernel/config/nvmet -mindepth 2)" ] && sound'
	on web1 'ls /sys/class/nvme; [ -z "$(ls /sys/class/nvme)" ] && sound'
}

@test "6.1: after a power cut of a host, or of it and its server, its units make the drives again" {
	units 6.1
}

@test "6.12: after a power cut of a host, or of it and its server, its units make the drives again" {
	units 6.12
}
