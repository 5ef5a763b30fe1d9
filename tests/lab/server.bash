# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# A host that gives drives to a server, web1, which has an agent.  Kind vm: the host is this machine, and serves by a front;
# nvme-tcp: it is another, whose kernel has the pool.

# start MACHINE: boots it, again
start()
{
	local args=(-t 3600)
	case $1 in
	host) args+=(-b -d "$T/m0" -d "$T/m1") ;;
	web1) args+=(-d "$T/state.img") ;;
	esac
	case $KIND.$1 in
	vm.web1) args+=(-q "$T/q" -n "user,restrict=on,hostfwd=tcp:127.0.0.1:$PORT-:8653") ;;
	*.host) args+=(-n "socket,udp=127.0.0.1:$((PORT + 1)),localaddr=127.0.0.1:$PORT") ;;
	*.web1) args+=(-n "socket,udp=127.0.0.1:$PORT,localaddr=127.0.0.1:$((PORT + 1))") ;;
	esac
	case $KIND.$1 in units.*) args+=(-i systemd) ;; esac
	boot "$1" "${ADDRESS[$1]}" "${args[@]}"
}

teardown()
{
	[ -n "$BATS_TEST_COMPLETED" ] || cat "$T"/steps
	machines_off host web1
	cd / || return 1
	[ "$KIND" != vm ] || vdlink ls --noheadings -o path 2>/dev/null | xargs -r vdunlink -q --force || true
	wait
	rm -rf "$T"
}

# at_host COMMAND [STATUS]: as `on`
at_host()
{
	local r=0
	[ "$KIND" = vm ] || { on host "$@"; return; }
	output=$(bash -c "$1" 2>&1 3>&-) || r=$?
	[ $r = "${2:-0}" ] || { echo "$1: $r"; echo "$output"; return 1; }
}

# A server with an agent, a volume with a file system for it, and nothing linked
machines()
{
	local begin='mount /dev/disk/by-id/virtio-d0 /var/lib/vdagent
		start_agent()
		{
			vdagent serve --verbose --key /etc/vd/agent.key >>/job/agent.log 2>&1 </dev/null &
			echo $! >/run/agent.pid
			until vdagent ask --key /etc/vd/agent.key 127.0.0.1 <<<"{\"op\":\"hello\"}" >/dev/null 2>&1; do sleep 0.1; done
		}
		export -f start_agent
		start_agent'
	KIND=$1 KERNEL=$2 PORT=$((20000 + RANDOM % 10000 * 2))
	declare -gA ADDRESS=([host]=10.0.0.1 [web1]=10.0.0.2)
	mkdir -p host web1/root/{etc/{vd,nvme},usr/lib/udev/rules.d,var/lib/vdagent} web1/at host/at
	cp "$VD/udev-rules/62-vd-drives.rules" web1/root/usr/lib/udev/rules.d
	truncate -s 16M state.img
	mkfs.ext4 -q state.img
	case $KIND in
	vm)
		[ -e /dev/fuse ] && [ -e /dev/loop-control ] || skip "no FUSE or loop devices for a link"
		export VD_DEV_DIR=$T/dev VD_SERVER_TIMEOUT=60
		AT=$T/host/at ADDRESS[web1]=10.0.2.15
		pool_of 2 128M
		vdserver add -q pool/web1 --qmp "$T/q" --agent "127.0.0.1:$PORT"
		cp etc/keys/web1.key web1/root/etc/vd/agent.key
		echo "modprobe -a virtio_scsi sd_mod; $begin" >web1/begin ;;
	nvme-tcp)
		AT=/job/at
		truncate -s 256M m0 m1
		mkdir -p host/root/etc
		tr -d - </proc/sys/kernel/random/uuid >host/root/etc/machine-id
		echo 'export VD_SERVER_TIMEOUT=60' >host/begin
		start host
		on host "vdpool create -q pool \$DISKS && vdserver add -q pool/web1 --kind nvme-tcp --host $NQN --address 10.0.0.1 --agent 10.0.0.2 && cat /etc/vd/keys/web1.key"
		(umask 077 && tail -n 1 <<<"$output" >web1/root/etc/vd/agent.key)
		echo $NQN >web1/root/etc/nvme/hostnqn
		echo "modprobe nvme-tcp; $begin" >web1/begin ;;
	esac
	at_host 'vdcreate -q -L 32M pool/v'
	start web1
	on web1 'vdagent status'
	at_host 'vdlink -q --mkfs ext4 pool/v web1'
	on web1 'echo kept >/srv/vd/v/note'
	at_host 'vdunlink -q pool/v'
	nothing_left
}

# Of a link: at the host, at the server, anywhere
nothing_here()
{
	at_host 'vdlink ls; [ -z "$(vdlink ls --noheadings)" ] && vdls --noheadings -o locked pool/v | grep -vw yes && vdpool check -q pool'
	case $KIND in
	vm)
		[ "$(jq '.drives | length' etc/servers/local)" = 0 ]
		[ -z "$(losetup -nO NAME,BACK-FILE | grep "$T/")" ] ;;
	*)
		on host 'cat /etc/vd/servers/local; find /sys/kernel/config/nvmet -mindepth 2; dmsetup ls
			jq -e ".drives == []" /etc/vd/servers/local && [ -z "$(find /sys/kernel/config/nvmet -mindepth 2)" ] && [ "$(dmsetup ls)" = "No devices found" ]' ;;
	esac
}
nothing_there()
{
	case $KIND in
	vm)
		[ "$("$VD/tests/cmd/qmp.py" q query-named-block-nodes '{"flat": true}' | jq '[.[] | select(."node-name" | startswith("vd-"))] | length')" = 0 ]
		on web1 'lsblk -o NAME,VENDOR,SERIAL; ! lsblk -dno VENDOR | grep -qw vd' ;;
	*) on web1 'ls /sys/class/nvme; [ -z "$(ls /sys/class/nvme)" ]' ;;
	esac
	on web1 'vdagent status; grep /srv /proc/mounts; ! grep /srv /proc/mounts && vdagent status --reportformat json | jq -e ".report[0].drive == []" && sound'
}
nothing_left() { nothing_here; nothing_there; }

# end_agent: as if it had crashed
end_agent() { on web1 'kill -KILL $(cat /run/agent.pid); tail --pid=$(cat /run/agent.pid) -f /dev/null'; }
mounted() { on web1 'for ((i = 0; i < 300; i++)); do mountpoint -q /srv/vd/v && break; sleep 0.2; done; vdagent status; [ "$(cat /srv/vd/v/note)" = kept ]'; }

# halted TEXT COMMAND...: the command, at the host, until it has said or sent TEXT, as jobs/halt.sh has it; and
# it goes on to its end, its status in host/at/status
halted()
{
	local text=$1
	shift
	rm -f host/at/*
	if [ "$KIND" = vm ]; then
		bash "$VD/tests/lab/jobs/halt.sh" "$AT" "$text" "$@" 3>&- &
	else
		on host "setsid bash /vd/tests/lab/jobs/halt.sh $AT '$text' $* >/dev/null 2>&1 </dev/null &"
	fi
	comes host/at/there
}
goes_on() { touch host/at/go; comes host/at/status; }
comes()
{
	local i
	for ((i = 0; i < 6000; i++)); do
		[ ! -e "$1" ] || return 0
		[ "$1" = host/at/status ] || [ ! -e host/at/status ] || break
		sleep 0.1
	done
	echo "never: $1"
	cat host/at/*
	return 1
}
