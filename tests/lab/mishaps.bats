#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# What goes wrong with a link while all who have a part in it live: two are at it at once, the server cannot be reached, its
# bus is full, who answers in its agent's place means no good, or there is nothing on the drive that could be mounted.  Each is
# said for what it is, and leaves nothing half done.
load helper
load machines
load server

# refused STATUS COMMAND TEXT...: it says that, and nothing of it stays at the host
refused() { at_host "VD_SERVER_TIMEOUT=20 $2" "$1"; says "${@:3}"; nothing_here; }
# one_of COMMAND COMMAND: at the same time; one is done, and the other finds the volume taken (or gone): $AT/said
one_of()
{
	at_host "($1) >$AT/a 2>&1 & a=\$!; ($2) >$AT/b 2>&1 & b=\$!; r=0 s=0; wait \$a || r=\$?; wait \$b || s=\$?; echo \$r \$s; cat $AT/a $AT/b
		case \$r.\$s in 0.4) cp $AT/b $AT/said ;; [34].0) cp $AT/a $AT/said ;; *) exit 1 ;; esac
		grep -E 'linked|locked|open|there is no' $AT/said"
}

at_once()
{
	local i
	step two links of one volume at once
	for ((i = 0; i < 10; i++)); do
		one_of 'vdlink -q pool/v web1' 'vdlink -q pool/v web1'
		mounted
		at_host 'vdunlink -q pool/v'
		one_of 'vdlink -q pool/v web1' 'vdlink -q pool/v'
		at_host 'vdunlink -q pool/v'
	done
	nothing_left

	step a link of a volume that is being removed
	for ((i = 0; i < 10; i++)); do
		at_host 'vdcreate -q -L 8M pool/d'
		one_of 'vdlink -q pool/d web1' 'vdrm -q -y pool/d'
		at_host 'if vdls pool/d; then vdunlink -q pool/d && vdrm -q -y pool/d; fi'
	done
	nothing_left
	halted "link: done" vdlink -v pool/v web1
	at_host 'vdrm -y pool/v' 4
	at_host 'vdrename pool/v pool/w' 4
	at_host 'timeout -s INT 2 vdlink pool/v' 124
	says "(vdlink) has" "this waits until it is done"
	goes_on
	[ "$(cat host/at/status)" = 0 ]
	mounted
	halted "is gone" vdunlink -v pool/v
	at_host 'vdrm -y pool/v' 4
	goes_on
	[ "$(cat host/at/status)" = 0 ]
	nothing_left

	step twelve volumes for one server at once
	at_host "for i in {1..12}; do vdcreate -q -L 16M pool/m\$i && { vdlink -q --mkfs ext4 pool/m\$i web1 >$AT/\$i 2>&1 & p[i]=\$!; } || exit; done
		for i in {1..12}; do wait \${p[i]} || { cat $AT/\$i; exit 1; }; done; vdlink ls; [ \$(vdlink ls --noheadings -o state | grep -cw up) = 12 ]"
	on web1 'for i in {1..12}; do mountpoint /srv/vd/m$i && echo $i >/srv/vd/m$i/note || exit; done'
	at_host "for i in {1..12}; do vdunlink -q pool/m\$i >$AT/\$i 2>&1 & p[i]=\$!; done
		for i in {1..12}; do wait \${p[i]} || { cat $AT/\$i; exit 1; }; done"
	nothing_left
	at_host 'vdlink -q pool/m7 web1'
	on web1 '[ "$(cat /srv/vd/m7/note)" = 7 ]'
	at_host 'vdunlink -q pool/m7 && vdrm -q -y pool/m{1..12}'
}

out_of_reach()
{
	step nobody answers for the agent
	end_agent
	refused 5 'vdlink pool/v web1' web1
	on web1 start_agent
	nothing_there

	step the agent hangs
	on web1 'kill -STOP $(cat /run/agent.pid)'
	refused 5 'vdlink pool/v web1' web1 "does not answer within"
	on web1 'kill -CONT $(cat /run/agent.pid)'
	nothing_there

	step the network is cut
	on web1 'ip link set eth0 down'
	refused 5 'vdlink pool/v web1' web1
	on web1 'ip link set eth0 up'
	nothing_there

	step and it is cut under a file system at work
	at_host 'vdlink -q pool/v web1'
	on web1 'at_work /srv/vd/v 20; ip link set eth0 down'
	at_host 'VD_SERVER_TIMEOUT=5 vdunlink pool/v' 5
	says web1 "still linked"
	at_host 'vdlink ls --noheadings -o state pool | xargs'
	[ "$output" = up ]
	on web1 'ip link set eth0 up'
	at_host 'for ((i = 0; i < 300; i++)); do r=0; said=$(vdunlink pool/v 2>&1) || r=$?; [ $r = 5 ] || break; sleep 0.2; done; echo "$said"; exit $r' 4
	says "in use by fio"
	on web1 'at_rest && cat /srv/vd/v/note'
	at_host 'vdunlink pool/v'
	nothing_left

	step the server has no power
	cut_off web1
	refused 5 'vdlink pool/v web1' "$([ "$KIND" = vm ] && echo "is not running" || echo web1)"
	start web1
	on web1 true
	nothing_there
}

# in_its_place COMMAND: that has the agent's port now, and not the agent; until `agent_again`
in_its_place()
{
	end_agent
	on web1 "setsid $1 >/run/peer.said 2>&1 </dev/null & echo \$! >/run/peer.pid
		for ((i = 0; i < 300; i++)); do [ -z \"\$(ss -Hltn sport = :8653)\" ] || exit 0; sleep 0.1; done; cat /run/peer.said; exit 1"
}
agent_again() { on web1 'kill -KILL -$(cat /run/peer.pid); until [ -z "$(ss -Hltn sport = :8653)" ]; do sleep 0.1; done; start_agent'; }

impostors()
{
	local what hello
	step the agent has another key
	on web1 'cp -p /etc/vd/agent.key /run/key; tr 0-9a-f 1-9a-f0 </run/key >/etc/vd/agent.key'
	refused 5 'vdlink pool/v web1' web1 key
	on web1 'cp -p /run/key /etc/vd/agent.key'
	nothing_there

	step another program has its port
	for what in "head -c 100000 /dev/urandom" "yes {" "true" "sleep 1000"; do
		echo "-- $what" | tee -a steps
		in_its_place "systemd-socket-activate --accept --inetd -l 0.0.0.0:8653 $what"
		refused 5 'vdlink pool/v web1' web1
		agent_again
		nothing_there
	done

	step who has its port has the key, and means no good
	hello="{\"ok\":true,\"version\":\"1\",\"host\":\"web1\",\"hostnqn\":\"$NQN\",\"hostid\":\"${NQN: -36}\",\"dhchap\":false}"
	for what in "echo '{'" "yes '{'" "yes '[' | tr -d '\\n'" "echo '{\"ok\":true}'" "echo '$hello'" "(echo '$hello'; echo '{\"ok\":true,\"device\":\"/etc/passwd\"}')" \
		"echo '${hello//1111/3333}'"; do
		echo "-- $what" | tee -a steps
		echo "{ $what; sleep 1000; } | openssl s_server -accept 8653 -tls1_3 -nocert -quiet -psk_identity vd -psk \$(cat /etc/vd/agent.key)" >web1/peer
		in_its_place 'bash /job/peer'
		at_host 'VD_SERVER_TIMEOUT=1 vdlink pool/v web1' 5 # and several times as much for what takes long
		says web1
		agent_again
		# A server that was asked, and has not said that it gave the drive back, may have it.
		at_host 'case $(vdlink ls --noheadings -o state pool | xargs) in "") ;; down) vdunlink pool/v ;; *) exit 1 ;; esac'
		nothing_left
	done
}

contents()
{
	local what disk
	at_host 'vdcreate -q -L 16M pool/n; vdls --noheadings -o uuid pool/n | xargs'
	disk=/dev/disk/by-id/vd-$output

	step nothing is on it
	at_host 'vdlink pool/n web1'
	says "not mounted" "no file system yet"
	at_host 'vdunlink -q pool/n'
	refused 5 'vdlink -m /srv/n pool/n web1' "no file system yet"
	nothing_left

	step what is on it is no file system
	for what in "mkswap -q $disk" "head -c 16M /dev/urandom >$disk" "echo 'start=2048' | sfdisk -q $disk" "lvm pvcreate -q -y $disk"; do
		at_host 'vdlink -q pool/n web1'
		on web1 "$what && udevadm settle && sha256sum $disk"
		echo "-- $what" | tee -a steps
		what=${output##*$'\n'} # pvcreate says something
		at_host 'vdunlink -q pool/n'
		at_host 'vdlink pool/n web1'
		says "not mounted"
		at_host 'vdunlink -q pool/n'
		refused 5 'vdlink -m /srv/n pool/n web1' web1
		refused 5 'vdlink --mkfs ext4 pool/n web1' web1
		at_host 'vdlink -q pool/n web1'
		on web1 "udevadm settle && sha256sum $disk"
		[ "$output" = "$what" ] || { echo "was $what"; echo "is $output"; return 1; }
		on web1 "wipefs -qa $disk; blkdiscard -f $disk"
		at_host 'vdunlink -q pool/n'
	done

	step its file system cannot be mounted
	at_host 'vdlink -q --no-mount pool/n web1'
	on web1 "udevadm settle && mkfs.ext4 -q -b 4096 $disk && dd if=/dev/zero of=$disk bs=4096 seek=1 count=1 oflag=direct status=none"
	at_host 'vdunlink -q pool/n'
	at_host 'vdlink pool/n web1'
	says "not mounted: mount said"
	at_host 'vdunlink -q pool/n'
	refused 5 'vdlink -m /srv/n pool/n web1' "mount said"
	nothing_there
	at_host 'vdlink -q --no-mount pool/n web1 && vdunlink -q pool/n && vdrm -q -y pool/n'
}

# The bus of a VM; a drive by NVMe/TCP has a subsystem to itself, and no neighbours.
bus_full()
{
	local n qmp=$VD/tests/cmd/qmp.py
	step no address is free
	"$qmp" q blockdev-add '{"driver": "null-co", "node-name": "null", "size": 1048576, "read-only": true}' >/dev/null
	for ((n = 0; n < 300; n++)); do
		"$qmp" q device_add "{\"driver\": \"scsi-cd\", \"id\": \"fill$n\", \"bus\": \"scsi0.0\"}" >/dev/null 2>&1 || break
	done
	[ $n -gt 200 ]
	refused 5 'vdlink pool/v web1' "no address is free"
	on web1 true
	"$qmp" q device_del '{"id": "fill7"}' >/dev/null
	at_host 'for ((i = 0; i < 300; i++)); do r=0; said=$(vdlink pool/v web1 2>&1) || r=$?; [[ $said == *"no address"* ]] || break; sleep 0.2; done; echo "$said"; exit $r'
	mounted
	at_host 'vdunlink -q pool/v'
	nothing_left
}

# mishaps KIND KERNEL PART...
mishaps()
{
	local part
	machines "$1" "$2"
	for part in "${@:3}"; do $part; done
	at_host 'vdlink -q pool/v web1'
	mounted
	at_host 'vdunlink -q pool/v'
	nothing_left
	[ "$KIND" = vm ] || on host sound
}

@test "6.1: links of a VM at once, out of reach, with a full bus, with impostors, and of what cannot be mounted" {
	mishaps vm 6.1 at_once out_of_reach impostors contents bus_full
}

@test "6.12: links of a VM at once, out of reach, with a full bus, with impostors, and of what cannot be mounted" {
	mishaps vm 6.12 at_once out_of_reach impostors contents bus_full
}

@test "6.1: links by NVMe/TCP at once, out of reach, with impostors, and of what cannot be mounted" {
	mishaps nvme-tcp 6.1 at_once out_of_reach impostors contents
}

@test "6.12: links by NVMe/TCP at once, out of reach, with impostors, and of what cannot be mounted" {
	mishaps nvme-tcp 6.12 at_once out_of_reach impostors contents
}
