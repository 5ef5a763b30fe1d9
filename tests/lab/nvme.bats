#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Two machines: `host` has a pool in its kernel, and an NVMe target; `web1` has systemd, vdagent as make install puts it
# there, and the initiator.  Either may be cut off its power, and come back.
load helper
load machines

# start MACHINE: boots it, again
start()
{
	# Its log is looked at in the end, and has all of it then.
	local always=(-t "$LIMIT" -a log_buf_len=4M)
	case $1 in
	host) boot host 10.0.0.1 "${always[@]}" -b -d "$T/m0" -d "$T/m1" -d "$T/etc.img" -n "socket,udp=127.0.0.1:$((PORT + 1)),localaddr=127.0.0.1:$PORT" ;;
	web1) boot web1 10.0.0.2 "${always[@]}" -i systemd -d "$T/state.img" -n "socket,udp=127.0.0.1:$PORT,localaddr=127.0.0.1:$((PORT + 1))" ;;
	esac
}

teardown()
{
	machines_off host web1
	wait
	cd / && rm -rf "$T"
}

# two_machines KERNEL SECONDS: both are up, and have so much time, with a pool of the one, and the other's agent
two_machines()
{
	local root=$T/web1/root
	KERNEL=$1 LIMIT=$2 PORT=$((20000 + RANDOM % 10000 * 2))
	mkdir host web1
	truncate -s 512M m0 m1
	truncate -s 16M etc.img state.img
	mkfs.ext4 -q etc.img
	mkfs.ext4 -q state.img
	echo 'export VD_SERVER_TIMEOUT=60; mount /dev/disk/by-id/virtio-d2 /etc/vd' >host/begin
	mkdir -p host/root/etc/vd
	installed web1
	mkdir -p "$root"/etc/nvme "$root"/srv "$root"/var/lib/vdagent
	echo $NQN >"$root/etc/nvme/hostnqn"
	echo "/dev/disk/by-id/virtio-d0 /var/lib/vdagent ext4 defaults 0 0" >"$root/etc/fstab"
	tr -d - </proc/sys/kernel/random/uuid >host/root/etc/machine-id

	step a server is described, and gets its key
	start host
	on host 'vdpool create -q pool /dev/disk/by-id/virtio-d0'
	on host "vdserver add pool/web1 --kind nvme-tcp --host $NQN --address 10.0.0.1 --agent 10.0.0.2"
	says "/etc/vd/keys/web1.key" "/etc/vd/agent.key"
	on host 'cat /etc/vd/keys/web1.key'
	(umask 077 && echo "$output" >"$root/etc/vd/agent.key")
	start web1
	on web1 'systemctl start vdagent && vdagent status'
}

# With another pool of the host's, and whatever is cut off its power.
cut_and_back()
{
	two_machines "$1" 1500
	on host 'vdpool create -q pool2 /dev/disk/by-id/virtio-d1 && vdcreate -q -L 64M pool/v && vdcreate -q -L 32M pool2/w'
	on host "vdserver add pool2/web1 --kind nvme-tcp --host $NQN --address 10.0.0.1 --agent 10.0.0.2"
	says "that of server pool/web1, too"

	step a drive appears there, with a file system that is mounted
	on host 'vdlink --mkfs ext4 pool/v web1'
	says "pool/v is /dev/nvme" "of web1, 64.00m, mounted on /srv/vd/v"
	on web1 'mountpoint /srv/vd/v && echo "written there" >/srv/vd/v/note && sync /srv/vd/v/note'
	on host 'vdlink ls --noheadings -o path,state,server,mount | xargs'
	[ "$output" = "pool/v up web1 /srv/vd/v" ]
	on host 'cat /sys/kernel/config/nvmet/subsystems/*/attr_allow_any_host; cat /sys/kernel/config/nvmet/hosts/*/dhchap_key 2>/dev/null | cut -c1-10; uname -r'
	case $KERNEL in 6.1) says "0" ;; *) says "DHHC-1:01:" ;; esac

	step it is in use, and stays
	on web1 'sleep 1000 </srv/vd/v/note >/dev/null 2>&1 & echo $! >/run/sleeper'
	on host 'vdunlink pool/v' 4
	says "in use by sleep" "pool/v is still linked"
	on web1 'cat /srv/vd/v/note; kill $(cat /run/sleeper)'
	on host 'vdunlink pool/v'
	on web1 'vdagent status; ls /sys/class/nvme; [ -z "$(ls /sys/class/nvme)" ] && ! mountpoint -q /srv/vd/v'
	on host 'find /sys/kernel/config/nvmet -mindepth 2; [ -z "$(find /sys/kernel/config/nvmet -mindepth 2 -path "*:*")" ]'
	on host 'mkdir -p /mnt/v && vdlink -q -m /mnt/v pool/v && cat /mnt/v/note && vdunlink -q pool/v'
	[ "$output" = "written there" ]

	step the server is cut off its power: the drives are there again, and nothing was typed
	on host 'vdlink pool/v web1 && vdlink --mkfs ext4 pool2/w web1'
	on web1 'echo "before the cut" >/srv/vd/v/cut && sync /srv/vd/v/cut'
	cut_off web1
	start web1
	on web1 'for ((i = 0; i < 600; i++)); do mountpoint -q /srv/vd/v && mountpoint -q /srv/vd/w && break; sleep 0.2; done; vdagent status; cat /srv/vd/v/cut; mountpoint -q /srv/vd/w'
	says "before the cut"
	on host 'vdlink ls --noheadings -o state | xargs'
	[ "$output" = "up up" ]

	step the agent is killed, and is there again
	on web1 'systemctl kill -s KILL vdagent; for ((i = 0; i < 600; i++)); do vdagent status >/dev/null && systemctl is-active -q vdagent && break; sleep 0.2; done; mountpoint /srv/vd/w'
	on host 'for ((i = 0; i < 60; i++)); do vdunlink pool2/w && break; sleep 0.5; done; ! vdlink ls --noheadings | grep pool2/w'
	on host 'vdlink pool2/w web1'
	says "mounted on /srv/vd/w"

	step the host is cut off its power under a program that writes, which goes on when it is back
	on web1 'cat >/run/writer <<"END"
for ((n = 0;; n++)); do for d in v w; do mountpoint -q /srv/vd/$d || continue; echo $n >>/srv/vd/$d/log && sync /srv/vd/$d/log || echo "failed at $n" >>/run/failed; done; echo $n >/run/written~; mv /run/written~ /run/written; sleep 0.1; done
END
	bash /run/writer >/run/writer.said 2>&1 & echo $! >/run/writer.pid
	until [ "$(cat /run/written 2>/dev/null || echo 0)" -ge 5 ]; do sleep 0.1; done'
	cut_off host
	start host
	on host 'vdlink ls --noheadings -o state | xargs'
	[ "$output" = "down down" ]
	on host 'vdlink --restore pool' # and what waits at the same address
	says pool/v pool2/w
	on web1 'n=$(cat /run/written); for ((i = 0; i < 1200; i++)); do [ "$(cat /run/written)" -gt $((n + 5)) ] && break; sleep 0.2; done
		cat /run/failed /run/writer.said /run/written 2>/dev/null; kill $(cat /run/writer.pid); [ "$(cat /run/written)" -gt $((n + 5)) ] && [ ! -e /run/failed ]'
	on web1 'for d in v w; do diff <(seq 0 $(($(wc -l </srv/vd/$d/log) - 1))) /srv/vd/$d/log; done; cat /srv/vd/v/cut'
	on host 'vdlink ls --noheadings -o state | xargs'
	[ "$output" = "up up" ]
	on host 'vdunlink pool/v pool2/w'

	step the host is shut down in order, and the program goes on when it is back
	on host 'vdlink -q pool/v web1'
	on web1 'rm /run/written; bash /run/writer >/run/writer.said 2>&1 & echo $! >/run/writer.pid
	until [ "$(cat /run/written 2>/dev/null || echo 0)" -ge 5 ]; do sleep 0.1; done'
	on host "$(sed -n 's/^ExecStop=-*//p' "$VD/packaging/systemd/vd-shutdown.service" | sed 's,/usr/sbin/,,')"
	on host 'vdpool show pool; [ "$(vdpool show --reportformat json pool | jq -r ".report[0].pool[0].last_owner.in_use")" = false ]'
	cut_off host
	start host
	on host 'vdlink --restore pool'
	on web1 'n=$(cat /run/written); for ((i = 0; i < 1200; i++)); do [ "$(cat /run/written)" -gt $((n + 5)) ] && break; sleep 0.2; done
		cat /run/failed /run/writer.said /run/written 2>/dev/null; kill $(cat /run/writer.pid); [ "$(cat /run/written)" -gt $((n + 5)) ] && [ ! -e /run/failed ]'
	on host 'vdunlink pool/v'

	step all is whole
	on web1 'sound && [ -z "$(ls /sys/class/nvme)" ]'
	on host 'sound && vdpool check pool && vdpool check pool2 && lsmod | grep nvmet'
	touch host/end web1/end
	wait "$host" "$web1"
}

# A file system at work on one drive, while another comes and goes TIMES, and then DRIVES at once.
many()
{
	local times=$2 drives=$3
	two_machines "$1" 3400

	step a file system is at work
	on host "vdcreate -q -L 64M pool/base && vdcreate -q -L 16M pool/v && for ((i = 0; i < $drives; i++)); do vdcreate -q -L 8M pool/v\$i || exit; done"
	on host 'vdlink --mkfs ext4 pool/base web1'
	says "mounted on /srv/vd/base"
	on web1 'at_work /srv/vd/base 50'

	step "a drive comes and goes $times times"
	on web1 'systemd-socket-activate --accept --inetd -l 10.0.0.2:7000 bash /vd/tests/lab/jobs/use.sh /srv/vd/v >/run/used 2>&1 &
		until grep -q Listening /run/used; do sleep 0.1; done'
	on host "for ((i = 0; i < $times; i++)); do
		vdlink -q --mkfs ext4 pool/v web1 && said=\$(cat </dev/tcp/10.0.0.2/7000) && [ \"\$said\" = used ] && vdunlink -q pool/v || { echo \"time \$i: \$said\"; exit 1; }
	done"

	step "$drives at once"
	on host "for ((i = 0; i < $drives; i++)); do vdlink -q pool/v\$i web1 || exit; done; vdlink ls --noheadings -o state,server pool | sort | uniq -c | xargs"
	[ "$output" = "$((drives + 1)) up web1" ]
	on web1 'udevadm settle && base=$(findmnt -no SOURCE /srv/vd/base) && mark_all_but /dev/disk/by-id/vd-$(cat /sys/class/block/${base#/dev/}/uuid) | sort >/job/written'
	on host "vdunlink -q pool/v{0..$((drives - 1))} && vdlink ls --noheadings -o path pool | xargs"
	[ "$output" = pool/base ]

	step and the file system has seen nothing of it
	on web1 'at_rest && flawless && [ "$(ls /sys/class/nvme | wc -l)" = 1 ]'
	echo "$output"
	on host 'vdunlink -q pool/base && vdlink -q pool/base && fsck.ext4 -fn /dev/vdisk/pool/base && vdunlink -q pool/base'
	on host 'flawless && vdpool check pool && [ -z "$(vdlink ls --noheadings)" ]'
	on web1 'flawless && [ -z "$(ls /sys/class/nvme)" ]'
	touch host/end web1/end
	wait "$host" "$web1"
	vdls --noheadings -o name,uuid --device "$T/m0" pool | awk '$1 ~ /^v[0-9]/ { print $2 }' | sort | cmp - web1/written
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool readonly=true device="$T/m0" \
		--run "for i in \$(seq 0 $((drives - 1))); do nbdcopy \"nbd+unix:///v\$i?socket=\$unixsocket\" - | head -c 37; done" 3>&- | sort | cmp - web1/written
}

@test "6.1: a machine has drives by NVMe/TCP, which its agent mounts, and both survive a power cut" {
	cut_and_back 6.1
}

@test "6.12: a machine has drives by NVMe/TCP, which its agent mounts, and both survive a power cut" {
	cut_and_back 6.12
}

@test "6.1: a machine's drive comes and goes a hundred times, and 64 at once, beside a file system at work" {
	many 6.1 100 64
}

@test "6.12: a machine's drive comes and goes a hundred times, and 64 at once, beside a file system at work" {
	many 6.12 100 64
}
