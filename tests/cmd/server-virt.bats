#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Drives of domains of libvirt: where libvirtd is installed with one that is the suite's own, in directories of its own,
# and a domain that is paused; else with virsh.py in virsh's place, which faults are injected with in any case.
load helper

# A libvirtd for all tests of the file; D is its directory.
setup_file()
{
	local d=$BATS_FILE_TMPDIR/l i
	command -v libvirtd virsh qemu-system-x86_64 >/dev/null && [ "$(id -u)" = 0 ] && [ -z "$VD_NO_LIBVIRT" ] || return 0
	mkdir -p "$d"/{etc/qemu,run}
	for i in passwd group; do cp "/etc/$i" "$d"; done
	echo libvirt-qemu:x:64055:64055::/:/bin/false >>"$d/passwd"
	echo libvirt-qemu:x:64055: >>"$d/group"
	echo kvm:x:64056: >>"$d/group"
	printf '%s\n' 'security_driver = "none"' 'user = "root"' 'group = "root"' 'cgroup_controllers = []' 'namespaces = []' \
		'stdio_handler = "file"' 'dynamic_ownership = 0' 'remember_owner = 0' >"$d/etc/qemu.conf"
	echo 'auth_unix_rw = "none"' >"$d/etc/libvirtd.conf"
	T=$d elsewhere bash -c "mount --bind $d/passwd /etc/passwd && mount --bind $d/group /etc/group && mount --bind $d/etc /etc/libvirt &&
		mkdir $d/new && mount -t tmpfs none $d/new && mkdir $d/new/libvirt && mount --bind $d/run $d/new/libvirt && mount --rbind $d/new /run &&
		mount -t tmpfs none /var && exec libvirtd -f /etc/libvirt/libvirtd.conf" >"$d/log" 2>&1 3>&- &
	echo $! >"$d/pid"
	wait_for [ -S "$d/run/libvirt-sock" ] || { cat "$d/log"; return 1; }
}
teardown_file()
{
	local d=$BATS_FILE_TMPDIR/l
	[ ! -e "$d/pid" ] || { kill "$(<"$d/pid")"; wait_for [ ! -e "/proc/$(<"$d/pid")" ]; }
}
eval "common_$(declare -f teardown)"
teardown() { [ ! -e real ] || virsh destroy web1; common_teardown; }

# describe: pool, volume and server; mock, faulty: with no libvirt but virsh.py, and the domain runs
describe()
{
	local d=$BATS_FILE_TMPDIR/l
	need_links
	need python3 jq
	mkdir -p bin domains
	export VIRSH_DIR=$T/domains VD_LIBVIRT_DIR=$T/domains PATH=$T/bin:$PATH
	if [ -e "$d/pid" ]; then
		printf '#!/bin/sh\n[ "$1 $2" = "-c qemu:///system" ] && shift 2\necho "$2 $4" >>%s/log\nexec %s -c qemu+unix:///system?socket=%s "$@"\n' \
			"$VIRSH_DIR" "$(command -v virsh)" "$d/run/libvirt-sock" >bin/virsh
		chmod +x bin/virsh
		VD_LIBVIRT_DIR=$d/run/qemu
		: >real
	else
		mock
	fi
	make_pool
	make_volume v
	ok vdserver add p/web1 --domain web1
}
mock()
{
	rm -f real
	ln -sf "$VD/tests/cmd/virsh.py" bin/virsh
	VD_LIBVIRT_DIR=$VIRSH_DIR
}
faulty() { describe; mock; on; }
deed() { printf '%s\n' "$@" >domains/deeds; }
SCSI="<controller type='scsi' index='0' model='virtio-scsi'/>"
# on [CONTROLLERS]: the domain begins; off: it ends
on()
{
	local what=${1-$SCSI}
	if [ -e real ]; then
		echo "<domain type='qemu'><name>web1</name><memory unit='MiB'>32</memory><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
			<emulator>$(command -v qemu-system-x86_64)</emulator><controller type='usb' model='none'/>$what<memballoon model='none'/>
			</devices></domain>" >domain
		virsh create domain --paused
	else
		sleep 1000 3>&- &
		echo $! >domains/web1.pid
		echo "<domain id='1'><name>web1</name><devices>$what</devices></domain>" >domains/web1.xml
	fi
}
off()
{
	if [ -e real ]; then virsh destroy web1; return; fi
	kill "$(<domains/web1.pid)"
	wait "$(<domains/web1.pid)" || true
	rm -f domains/web1.pid
	sed -i 's/ id="1"//; '"s/ id='1'//; s,<disk.*</disk>,," domains/web1.xml
}
# What the domain has, as "SERIAL NAME SIZE ro|rw" of each.
disks()
{
	local xml
	if [ -e real ]; then
		for name in $(virsh dumpxml web1 --xpath '//disk/target/@dev' | sed -n 's/.*"\(.*\)"/\1/p'); do
			xml=$(virsh dumpxml web1 --xpath "//disk[target/@dev='$name']")
			echo "$(sed -n 's,.*<serial>\(.*\)</serial>,\1,p' <<<"$xml") $name $(virsh domblkinfo web1 "$name" | awk 'NR==1{print $2}')" \
				"$([[ $xml == *'<readonly/>'* ]] && echo ro || echo rw)"
		done
	else
		python3 - <<-'PY'
			import xml.etree.ElementTree as ET
			for d in ET.parse("domains/web1.xml").findall("devices/disk"):
			    print(d.find("serial").text, d.find("target").get("dev"), d.get("capacity"), "rw" if d.find("readonly") is None else "ro")
		PY
	fi
}
empty() { [ -z "$(disks)" ] || { disks; return 1; }; }
state() { vdlink ls --noheadings -o state | tr -d ' '; }
nothing_left()
{
	[ -z "$(vdlink ls --noheadings)" ] || { vdlink ls; return 1; }
	[ "$(jq '.drives | length' etc/servers/local)" = 0 ] || { cat etc/servers/local; return 1; }
	[ "$(vdls --noheadings -o locked p/v | tr -d ' ')" != yes ] || return 1
	! grep -l "$T/" /sys/block/loop*/loop/backing_file 2>/dev/null
}

@test "a volume becomes a disk of a domain, with its size and the volume's UUID for a serial number" {
	describe
	on
	ok vdlink p/v web1
	[ "$output" = "p/v is scsi0.0:0:0:0 of web1, 64.00m" ]
	[ "$(disks)" = "$(field p/v uuid) sda 67108864 rw" ]
	ok vdlink ls --noheadings -o path,state,server,address
	[ "$(tr -s ' ' <<<"$output")" = " p/v up web1 scsi0.0:0:0:0" ]
	ok vdserver ls --noheadings -o kind,address
	[ "$(tr -s ' ' <<<"$output")" = " vm web1" ]
	ok vdunlink p/v
	empty
	nothing_left
}

@test "a read-only link is a disk of a domain that cannot be written" {
	describe
	on
	ok vdlink -r p/v web1
	[ "$(disks)" = "$(field p/v uuid) sda 67108864 ro" ]
	ok vdunlink p/v
	empty
}

@test "each of a domain's drives has an address of its own, and goes by itself" {
	describe
	make_volume w 8m
	ok vdpool create o -L 64m "$T/o0"
	ok vdcreate o/x -L 4m
	ok vdserver add o/web1 --domain web1
	on
	ok vdlink p/v web1
	vdlink p/w web1 3>&- &
	local other=$!
	ok vdlink o/x web1
	wait $other
	[ "$(vdlink ls --noheadings -o address | sort -u | wc -l)" = 3 ]
	[ "$(disks | cut -d' ' -f2 | sort | xargs)" = "sda sdb sdc" ]
	ok vdunlink p/v
	[ "$(disks | cut -d' ' -f3 | sort | xargs)" = "4194304 8388608" ]
	ok vdlink p/v web1
	says "p/v is scsi0.0:0:0:0 of web1"
	ok vdunlink p/v p/w o/x
	empty
}

@test "a disk of a domain takes in a volume's new size" {
	describe
	on
	ok vdlink p/v web1
	ok vdresize p/v -L 128m
	ok vdlink --refresh p/v
	[ "$(disks)" = "$(field p/v uuid) sda 134217728 rw" ]
	ok vdunlink p/v
}

@test "with -t it is looked whether the domain would take it, and nothing is done" {
	describe
	refused vdlink -t p/v web1
	on
	ok vdlink -t p/v web1
	empty
	nothing_left
}

@test "a domain's controller is found, and chosen where there are several; none is added" {
	describe
	on ''
	refused vdlink p/v web1
	says "has no virtio-scsi controller" "<controller type='scsi' model='virtio-scsi'/>"
	empty
	nothing_left
	off
	on "$SCSI${SCSI/0/1}"
	refused vdlink p/v web1
	says "2 virtio-scsi controllers" "--bus"
	ok vdserver rm p/web1
	ok vdserver add p/web1 --domain web1 --bus 1
	ok vdlink p/v web1
	says "scsi1.0:0:0:0 of web1"
	ok vdunlink p/v
	ok vdserver rm p/web1
	ok vdserver add p/web1 --domain web1 --bus 2
	refused vdlink p/v web1
	says "no virtio-scsi controller 2"
	nothing_left
}

@test "a domain that is off, or none: no link is made" {
	describe
	refused vdlink p/v web1
	says "failed to get domain 'web1'"
	nothing_left
	mock
	echo "<domain><name>web1</name><devices>$SCSI</devices></domain>" >domains/web1.xml
	refused vdlink p/v web1
	says "VM web1 is not running" "domain web1 is shut off"
	nothing_left
}

@test "a domain ends: its links are down, and are made again in the next one" {
	describe
	on
	ok vdlink p/v web1
	off
	[ "$(state)" = down ]
	refused vdlink --restore p
	says "is still down"
	on
	[ "$(state)" = down ]
	ok vdlink --restore p
	says "p/v is scsi0.0:0:0:0 of web1 again"
	[ "$(state)" = up ]
	[ "$(disks)" = "$(field p/v uuid) sda 67108864 rw" ]
	ok vdunlink p/v
	empty
	nothing_left
}

@test "where virsh is missing that is said; links are listed, and those of a domain that has ended are undone" {
	describe
	on
	ok vdlink p/v web1
	: >domains/log
	[ "$(state)" = up ]
	[ ! -s domains/log ]
	make_volume w 8m
	mkdir less
	ln -sf /usr/sbin/* /usr/bin/* less
	rm -f less/virsh
	local path=$PATH build=${VD_BUILD:-$VD/build}
	PATH=$build:$T/less
	refused vdlink p/w web1
	says "virsh cannot be run" "is it installed?"
	refused vdunlink p/v
	says "virsh cannot be run" "p/v is still linked"
	[ "$(state)" = up ]
	PATH=$path
	off
	PATH=$build:$T/less
	ok vdunlink p/v
	PATH=$path
	nothing_left
}

@test "a disk that was taken from the domain behind vdlink's back can be unlinked" {
	describe
	on
	ok vdlink p/v web1
	virsh -c qemu:///system -q detach-disk --domain web1 --target sda --live
	ok vdunlink p/v
	empty
	nothing_left
}

@test "a front is killed under a domain: that is mended, and can be undone" {
	describe
	need_server "a front"
	on
	ok vdlink p/v web1
	break_link v
	wait_for [ "$(state)" = down ]
	ok vdlink --restore p
	[ "$(state)" = up ]
	[ "$(disks)" = "$(field p/v uuid) sda 67108864 rw" ]
	break_link v
	ok vdunlink p/v
	empty
	nothing_left
}

@test "a name of a domain, or a controller, that cannot be is refused" {
	make_pool
	must 2 vdserver add p/web --domain 12
	says "no number"
	must 2 vdserver add p/web --domain=-x
	must 2 vdserver add p/web --domain a/b
	must 2 vdserver add p/web --domain 'a b'
	must 2 vdserver add p/web --domain "$(printf 'x%.0s' {1..64})"
	must 2 vdserver add p/web --domain a --qmp q
	must 2 vdserver add p/web --domain a --bus "0']"
	ok vdserver add p/web --domain a12 --bus 1
	ok vdserver export p/web
	[ "$output" = "[p/web]
kind = vm
domain = a12
bus = 1" ]
}

# ---- what libvirt would not do, or seldom ------------------------------------------

@test "a domain that refuses the drive: no link is made" {
	faulty
	deed "attach-device=error:no $(printf '\e[31m')"
	refused vdlink p/v web1
	says "domain web1: no"
	[[ $output != *$'\e'* ]]
	nothing_left
	empty
}

@test "what virsh says is not believed: a drive that is not there, one that is after a failure" {
	faulty
	deed attach-device=lie
	refused vdlink p/v web1
	says "does not have it"
	nothing_left
	deed attach-device=cut
	refused vdlink p/v web1
	says "Disconnected"
	nothing_left
	empty
	deed domblkinfo=lie
	refused vdlink p/v web1
	says "is of 0 bytes, not 67108864"
	nothing_left
	empty
	deed dumpxml=lie
	refused vdlink p/v web1
	nothing_left
}

@test "libvirt that does not answer: no link is made, nor undone, in the time that is set" {
	faulty
	deed dumpxml=hang
	VD_SERVER_TIMEOUT=3 refused timeout 60 vdlink p/v web1
	says "has not done 'dumpxml' within 3 seconds"
	nothing_left
	rm domains/deeds
	ok vdlink p/v web1
	deed detach-disk=hang
	VD_SERVER_TIMEOUT=3 refused timeout 60 vdunlink p/v
	says "p/v is still linked" "has not done 'detach-disk'"
	[ "$(state)" = up ]
	rm domains/deeds
	ok vdunlink p/v
	empty
	nothing_left
}

@test "libvirt that does not answer in the middle of a link: it is kept, until it is certain what the domain has" {
	faulty
	deed attach-device=hang dommemstat=hang
	VD_SERVER_TIMEOUT=3 refused timeout 60 vdlink p/v web1
	says "has not done 'attach-device'"
	[ "$(state)" = down ]
	VD_SERVER_TIMEOUT=3 refused vdunlink p/v
	rm domains/deeds
	ok vdunlink p/v
	nothing_left
}

@test "a drive that a domain does not let go of stays linked" {
	faulty
	ok vdlink p/v web1
	deed detach-disk=lie
	VD_SERVER_TIMEOUT=3 refused vdunlink p/v
	says "does not let go of the drive" "p/v is still linked"
	deed "detach-disk=error:it is held"
	VD_SERVER_TIMEOUT=3 refused vdunlink p/v
	says "does not let go of the drive" "it is held"
	[ "$(state)" = up ]
	deed detach-disk=cut
	ok vdunlink p/v
	empty
	nothing_left
}

# V2
@test "what a killed command has asked of a domain is over before the next one looks" {
	faulty
	deed attach-device=late
	VD_SERVER_TIMEOUT=60 vdlink p/v web1 3>&- &
	local it=$!
	wait_for grep attach-device domains/log
	kill -9 $it
	wait $it || true
	must 1 flock -n run/web1.domain true
	VD_SERVER_TIMEOUT=2 refused vdunlink p/v
	says "web1.domain is locked" "another command"
	: >domains/go
	ok vdunlink p/v
	empty
	nothing_left
}

# ---- killed at any point -------------------------------------------------------------

ended()
{
	run vdunlink p/v
	[ "$status" = 0 ] || { [ "$status" = 3 ] && says "is not linked"; } || { echo "$output"; return 1; }
	empty && nothing_left
}
mended()
{
	ok vdlink --restore p &&
		if [ -n "$(vdlink ls --noheadings)" ]; then [ "$(state)" = up ] && [ "$(disks)" = "$(field p/v uuid) sda 67108864 rw" ]; else empty; fi &&
		ended
}

@test "vdlink to a domain killed at any point: restore mends it, and vdunlink ends it" {
	describe
	on
	killed_at_each "memfd_create pidfd_open wait4 rename" mended vdlink p/v web1
}

@test "vdunlink from a domain killed at any point can be done again" {
	describe
	on
	before() { ok vdlink p/v web1; }
	killed_at_each "memfd_create pidfd_open wait4 rename" ended vdunlink p/v
}
