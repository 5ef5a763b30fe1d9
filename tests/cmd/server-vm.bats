#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Drives of VMs: in a QEMU whose guest has not begun (-S), for QEMU plugs without it, and with
# a peer in QEMU's place (qmp.py), which does what no QEMU would.  Guests that see
# their drives are in tests/lab/vm.bats.
load helper

Q=q
describe() { need_links; need python3 jq; make_pool; make_volume v; ok vdserver add p/web1 --qmp "$T/$Q" "$@"; }
# vm [OPTION]...: with one controller, if that is not said
vm()
{
	need qemu-system-x86_64
	[ $# -gt 0 ] || set -- -device virtio-scsi-pci,id=scsi0
	rm -f "$T/$Q"
	qemu-system-x86_64 -M q35 -accel tcg -m 64 -nodefaults -display none -S -qmp "unix:$T/$Q,server=on,wait=off" "$@" >"$T/said" 2>&1 3>&- &
	VM=$!
	wait_for [ -S "$T/$Q" ]
}
peer()
{
	export VD_SERVER_TIMEOUT=2
	rm -f "$T/$Q"
	"$VD/tests/cmd/qmp.py" --peer "$T/$Q" "$@" 3>&- &
	VM=$!
	wait_for [ -S "$T/$Q" ]
}
qmp() { "$VD/tests/cmd/qmp.py" "$T/$Q" "$@"; }
# Through the guest's disk, as its driver would; QEMU prints what qemu-io says.
vm_io()
{
	: >"$T/said"
	run qmp human-monitor-command "{\"command-line\": \"qemu-io -d $(qmp query-block | jq -r '.[].qdev') \\\"$1\\\"\"}"
	[ "$output" = '""' ] || { echo "$output"; return 1; }
	! grep -E 'failed|rror' "$T/said" && grep -q '1048576/1048576' "$T/said"
}
end_vm() { kill -9 $VM; wait $VM || true; }
# What of ours QEMU has: "SERIAL SIZE ro|rw" of each disk
disks() { qmp query-block | jq -r '.[] | select(.inserted."node-name" // "" | startswith("vd-")) | "\(.inserted.image."virtual-size") \(if .inserted.ro then "ro" else "rw" end)"'; }
nodes() { qmp query-named-block-nodes '{"flat": true}' | jq -r '.[]."node-name"' | grep -c '^vd-'; }
empty() { [ "$(nodes)" = 0 ] && [ -z "$(disks)" ]; }
state() { vdlink ls --noheadings -o state | tr -d ' '; }
is_down() { [ "$(state)" = down ]; }
# Nothing is left of a link, on the host, in the pool, in its record.
nothing_left()
{
	[ -z "$(vdlink ls --noheadings)" ] || { vdlink ls; return 1; }
	[ -z "$(server_pids)" ] || [ "$1" = but-a-server ] || { echo "a server is there"; return 1; }
	[ "$(jq '.drives | length' etc/servers/local)" = 0 ] || { cat etc/servers/local; return 1; }
	[ "$(vdls --noheadings -o locked p/v | tr -d ' ')" != yes ]
	! grep -l "$T/" /sys/block/loop*/loop/backing_file 2>/dev/null
}

@test "a volume becomes a disk of a VM, with its size and the volume's UUID for a serial number" {
	describe
	vm
	ok vdlink p/v web1
	[ "$output" = "p/v is scsi0.0:0:0:0 of web1, 64.00m" ]
	[ "$(disks)" = "67108864 rw" ]
	local id
	id=$(qmp qom-list '{"path": "/machine/peripheral"}' | jq -r '.[].name | select(startswith("vd-"))')
	[ "$(qmp qom-get "{\"path\": \"/machine/peripheral/$id\", \"property\": \"serial\"}")" = "\"$(field p/v uuid)\"" ]
	ok vdlink ls --noheadings -o path,state,server,address
	[ "$(tr -s ' ' <<<"$output")" = " p/v up web1 scsi0.0:0:0:0" ]
	[ ! -e "$VD_DEV_DIR/p/v" ]
	ok vdserver show p/web1
	says "drive = p/v rw"
	ok vdunlink p/v
	empty
	nothing_left
}

@test "QEMU reads and writes what the volume holds" {
	describe
	need qemu-io
	serve
	io v 'write -P 7 1m 1m'
	end_servers TERM
	vm
	ok vdlink p/v web1
	vm_io 'read -P 7 1m 1m'
	vm_io 'write -P 9 4m 1m'
	ok vdunlink p/v
	serve
	io v 'read -P 7 1m 1m' 'read -P 9 4m 1m'
}

@test "a read-only link is a disk that cannot be written" {
	describe
	vm
	ok vdlink -r p/v web1
	says "read-only"
	[ "$(disks)" = "67108864 ro" ]
	ok vdunlink p/v
}

@test "each of many drives has an address of its own, and goes by itself" {
	describe
	make_volume w 8m
	make_volume x 4m
	vm
	ok vdlink p/v web1
	vdlink p/w web1 3>&- &
	local other=$!
	ok vdlink p/x web1
	wait $other
	[ "$(vdlink ls --noheadings -o address | sort -u | wc -l)" = 3 ]
	ok vdunlink p/w
	[ "$(disks | sort -n | tr '\n' ' ')" = "4194304 rw 67108864 rw " ]
	ok vdunlink p/v p/x
	empty
}

@test "of two links of one volume at once one is made, the other is refused" {
	describe
	vm
	ok vdserver add p/web2 --qmp "$T/$Q"
	local a=0 b=0 other
	vdlink p/v web1 3>&- &
	other=$!
	vdlink p/v web2 || b=$?
	wait $other || a=$?
	[ "$a $b" = "0 4" ] || [ "$a $b" = "4 0" ]
	[ "$(disks)" = "67108864 rw" ]
	must 4 vdlink p/v
	says "linked already"
	ok vdunlink p/v
	empty
}

@test "a disk takes in a volume's new size" {
	describe
	vm
	ok vdlink p/v web1
	ok vdresize p/v -L 128m
	ok vdlink --refresh p/v
	[ "$(disks)" = "134217728 rw" ]
	ok vdunlink p/v
}

@test "with -t it is looked whether the VM would take it, and nothing is done" {
	describe
	ok vdserver add p/off --qmp "$T/off"
	vm
	ok vdlink -t p/v web1
	refused vdlink -t p/v off
	empty
	nothing_left
}

@test "the controller is found, and chosen where there are several" {
	describe
	vm -device virtio-scsi-pci,id=a -device virtio-scsi-pci
	refused vdlink p/v web1
	says "2 virtio-scsi controllers" "--bus"
	nothing_left
	ok vdserver rm p/web1
	ok vdserver add p/web1 --qmp "$T/$Q" --bus a
	ok vdlink p/v web1
	says "a.0:0:0:0 of web1"
	ok vdunlink p/v
	ok vdserver rm p/web1
	ok vdserver add p/web1 --qmp "$T/$Q" --bus none
	refused vdlink p/v web1
	says "has no virtio-scsi controller or bus none"
	end_vm
	ok vdserver rm p/web1
	ok vdserver add p/web1 --qmp "$T/$Q"
	vm -device lsi53c895a
	refused vdlink p/v web1
	says "has no virtio-scsi controller" "-device virtio-scsi-pci"
	nothing_left
}

@test "a server that a volume is linked to is not removed" {
	describe
	vm
	ok vdlink p/v web1
	must 4 vdserver rm p/web1
	says "p/v is linked to it"
	ok vdunlink p/v
	ok vdserver rm p/web1
}

@test "a VM that is off: no link is made" {
	describe
	refused vdlink p/v web1
	says "is not running" "$T/$Q"
	nothing_left
	: >"$T/$Q"
	refused vdlink p/v web1
	nothing_left
}

@test "a VM ends: its links are down, and are made again in the next one" {
	describe
	vm
	ok vdlink p/v web1
	end_vm
	[ "$(state)" = down ]
	refused vdlink --restore p
	says "is still down" "is not running"
	[ "$(state)" = down ]
	vm
	[ "$(state)" = down ]
	ok vdlink --restore p
	says "p/v is scsi0.0:0:0:0 of web1 again"
	[ "$(state)" = up ]
	[ "$(disks)" = "67108864 rw" ]
	ok vdlink --restore p
	ok vdunlink p/v
	empty
	nothing_left
}

@test "a VM that has ended is no reason not to unlink" {
	describe
	vm
	ok vdlink p/v web1
	end_vm
	ok vdunlink p/v
	nothing_left
	vm
	ok vdlink p/v web1
	end_vm
	vm
	ok vdunlink p/v
	nothing_left
	empty
}

@test "a link whose front was killed under a VM is mended, and can be undone" {
	describe
	need_server "a front"
	vm
	ok vdlink p/v web1
	break_link v
	wait_for is_down
	ok vdlink --restore p
	[ "$(state)" = up ]
	[ "$(disks)" = "67108864 rw" ]
	break_link v
	ok vdunlink p/v
	empty
	nothing_left
}

@test "the server is killed under a VM: its disk goes on" {
	describe
	need_server "one that can be killed"
	vm
	ok vdlink p/v web1
	vm_io 'write -P 5 0 1m'
	kill -9 "$(server_pid)"
	vm_io 'read -P 5 0 1m'
	vm_io 'write -P 6 0 1m'
	ok vdunlink p/v
}

@test "a VM that hangs: a link is neither made nor undone, in the time that is set" {
	describe
	vm
	ok vdlink p/v web1
	make_volume w 8m
	export VD_SERVER_TIMEOUT=2
	kill -STOP $VM
	SECONDS=0
	refused vdlink p/w web1
	says "does not answer within 2 seconds"
	refused vdunlink p/v
	says "does not answer within 2 seconds" "p/v is still linked"
	[ $SECONDS -lt 20 ]
	[ "$(state)" = up ]
	[ "$(vdls --noheadings -o opened_as p/w | tr -d ' ')" = "" ]
	kill -CONT $VM
	unset VD_SERVER_TIMEOUT
	[ "$(disks)" = "67108864 rw" ]
	ok vdlink p/w web1
	ok vdunlink p/v p/w
	empty
	nothing_left
}

@test "another program has the QMP socket: that is said" {
	describe
	vm
	python3 -c 'import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(1), flush=True); time.sleep(60)' "$T/$Q" >had 3>&- &
	wait_for [ -s had ]
	export VD_SERVER_TIMEOUT=2
	refused vdlink p/v web1
	says "another program has the socket"
	nothing_left
}

# What the pool says does not decide to which VM a drive is given again.
@test "a drive that another server has by the host's own record is left alone" {
	describe
	vm
	ok vdserver add p/web2 --qmp "$T/another"
	ok vdlink p/v web1
	end_vm
	sed -i 's/"server":"web1",$/"server":"web2",/' etc/servers/local
	cat etc/servers/local
	vm
	ok vdlink --restore p
	says "for this host that is a drive of server web2, not web1"
	[ "$(state)" = down ]
	empty
	sed -i 's/"server":"web2",$/"server":"web1",/' etc/servers/local
	ok vdserver accept p/web1
	ok vdunlink p/v
}

# ---- a peer that means harm, or is broken --------------------------------------

# refuses DEED...: with such a peer no link is made, and nothing is left
no_link_with()
{
	peer "$@"
	refused timeout 60 vdlink p/v web1
	[ "$status" != 124 ] || { echo "it did not end, with $*"; return 1; }
	[[ $output != *$'\e'* ]]
	nothing_left || { echo "with $*"; return 1; }
	kill $VM 2>/dev/null || true
	wait $VM || true
}

@test "a peer that says nonsense, nothing, or no end of it: no link is made" {
	describe
	local deed
	for deed in hang die close "line:hello" "line:[]" 'line:{"QMP": 7}' "line:$(printf '[%.0s' {1..5000})" endless events; do
		no_link_with "connect=$deed"
	done
	for deed in hang die close "line:hello" 'line:{"return": {}, "id": 77}' 'line:{"id": 1}' endless events; do
		no_link_with "qmp_capabilities=$deed"
	done
}

@test "a peer that fails at any command: no link is made" {
	describe
	local command deed
	for command in qom-list blockdev-add device_add query-block qom-get; do
		for deed in die "error:no $(printf '\e[31m')" 'line:{"return": [], "id": 1}'; do no_link_with "$command=$deed"; done
	done
	no_link_with blockdev-add=hang
	no_link_with bus=0
}

@test "no address is free" {
	describe
	no_link_with "device_add=error:no free target"
	says "no address is free on bus scsi0.0"
}

@test "a peer that says it has the disk, and has not: no link is made" {
	describe
	no_link_with device_add=lie
	says "does not have it"
}

@test "a peer that hangs in the middle of a link: the link is kept, and can be undone when it is back" {
	describe
	peer device_add=stop
	refused vdlink p/v web1
	says "does not answer"
	[ "$(state)" = down ]
	refused vdlink p/v web1
	says "that link is down"
	refused vdunlink p/v
	kill -CONT $VM
	ok vdunlink p/v
	empty
	nothing_left
	peer query-block=hang
	refused vdlink p/v web1
	says "does not answer"
	empty
	nothing_left
}

@test "a disk that the VM does not let go of stays linked" {
	describe
	peer device_del=lie
	ok vdlink p/v web1
	refused vdunlink p/v
	says "does not answer" "p/v is still linked"
	[ "$(state)" = up ]
	end_vm
	ok vdunlink p/v
	nothing_left
}

@test "a disk that was taken from the VM behind vdlink's back can be unlinked" {
	describe
	vm
	ok vdlink p/v web1
	local id
	id=$(qmp query-block | jq -r '.[].qdev')
	qmp device_del "{\"id\": \"$id\"}"
	ok vdunlink p/v
	empty
	nothing_left
}

# ---- killed at any point ----------------------------------------------------------

ended()
{
	run vdunlink p/v
	[ "$status" = 0 ] || { [ "$status" = 3 ] && says "is not linked"; } || return 1
	empty && nothing_left but-a-server
}
mended()
{
	ok vdlink --restore p &&
		if [ -n "$(vdlink ls --noheadings)" ]; then [ "$(state)" = up ] && [ "$(disks)" = "67108864 rw" ]; else empty; fi &&
		ended
}

@test "vdlink killed at any point: restore mends it, and vdunlink ends it" {
	describe
	vm
	killed_at_each "sendto rename" mended vdlink p/v web1
}

@test "vdunlink killed at any point can be done again" {
	describe
	vm
	before() { ok vdlink p/v web1; }
	killed_at_each "sendto rename" ended vdunlink p/v
}

# ---- the VM killed at any point -----------------------------------------------------

# vm_killed_at_each CHECK COMMAND...: at the 1st, 2nd, … that it sends, to whomever
vm_killed_at_each()
{
	local check=$1 n pid kills=0
	shift
	need strace
	strace -o trace true 2>/dev/null || skip "strace cannot be used here"
	export VD_SERVER_TIMEOUT=5
	for ((n = 1;; n++)); do
		vm
		before
		: >trace
		strace -q -o trace -e trace=sendto -e inject="sendto:signal=STOP:when=$n" "$@" </dev/null >done 2>&1 3>&- &
		pid=$!
		until grep -qs 'stopped by SIGSTOP' trace; do
			kill -0 $pid 2>/dev/null || break
			sleep 0.01
		done
		if ! grep -q 'stopped by SIGSTOP' trace; then
			wait $pid
			break
		fi
		end_vm
		kill -CONT "$(pgrep -P $pid)"
		wait $pid || true
		kills=$((kills + 1))
		$check >after 2>&1 || { echo "the VM killed at number $n, and then:"; cat done; tail -3 trace; cat after; return 1; }
	done
	end_vm
	echo "$kills kills" >&3
	[ $kills -ge 10 ]
}

# Either there is no link, or one that the next VM is given; and that can be undone.
given_to_the_next()
{
	local s
	s=$(state)
	[ "$s" = "" ] || [ "$s" = down ] || { echo "a link to a VM that has ended is $s"; return 1; }
	vm
	mended
	end_vm
}

@test "the VM killed at any point of vdlink: no link, or one for the next VM" {
	describe
	vm_killed_at_each given_to_the_next vdlink p/v web1
}

@test "the VM killed at any point of vdunlink: it is undone, or can be" {
	describe
	before() { ok vdlink p/v web1; }
	vm_killed_at_each given_to_the_next vdunlink p/v
}
