#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Guests that are given drives by this host, and have them taken away.
load helper

# linked KERNEL: the guest waits for a drive, reads it, writes to it, and waits until it is gone
linked()
{
	[ -e /dev/fuse ] && [ -e /dev/loop-control ] || skip "no FUSE or loop devices for a link"
	export VD_DEV_DIR=$T/dev VD_SERVER_TIMEOUT=60
	local uuid lab
	pool_of 2 64M
	vdcreate -q pool/v -L 32m
	vdlink -q pool/v
	head -c 4m /dev/urandom | dd of="$VD_DEV_DIR/pool/v" bs=64k oflag=direct status=none
	echo "start=2048, size=8192" | sfdisk -q -X dos "$VD_DEV_DIR/pool/v"
	sha256sum <"$VD_DEV_DIR/pool/v" >before
	vdunlink -q pool/v
	uuid=$(vdls --noheadings -o uuid pool/v | tr -d ' ')
	vdserver add -q pool/guest --qmp "$T/q"
	mkdir -p job/root/usr/lib/udev/rules.d
	cp "$VD/udev-rules/62-vd-drives.rules" job/root/usr/lib/udev/rules.d
	"$VD/tests/lab/lab.sh" -k "$1" -j "$T/job" -q "$T/q" -p "$T/guest" "bash /vd/tests/lab/jobs/vm.sh $uuid" >"$T/said" 2>&1 3>&- &
	lab=$!
	comes job/ready
	vdlink pool/v guest
	comes job/written
	cmp before job/sum
	vdunlink pool/v
	comes job/gone
	# Once more, at the same address: the same drive
	vdlink -r pool/v guest
	wait $lab || { cat "$T/said"; return 1; }
	vdunlink pool/v
	vdlink -q pool/v
	cmp -n 65536 <(yes vd) "$VD_DEV_DIR/pool/v"
	[ "$(tail -c +65537 "$VD_DEV_DIR/pool/v" | sha256sum)" = "$(cat job/rest)" ]
	vdunlink -q pool/v
	vdpool check pool
}
comes() { local i; for ((i = 0; i < 1500; i++)); do [ ! -e "$1" ] || return 0; sleep 0.2; done; echo "never: $1"; cat "$T/said"; return 1; }

# bats test_tags=short
@test "6.1: a guest has a drive with its serial number, reads and writes it, and loses it" {
	linked 6.1
}

@test "6.12: a guest has a drive with its serial number, reads and writes it, and loses it" {
	linked 6.12
}

given()
{
	truncate -s 512M m0 m1
	guest "$1" give
	vdpool check --takeover --device "$T/m0" --device "$T/m1" p-1
}

@test "6.1: a volume in the kernel is given to a VM, and again to the next" {
	given 6.1
}

# bats test_tags=short
@test "6.12: a volume in the kernel is given to a VM, and again to the next" {
	given 6.12
}

# A file system at work on one drive, while another comes and goes TIMES, and then DRIVES at once.
many()
{
	[ -e /dev/fuse ] && [ -e /dev/loop-control ] || skip "no FUSE or loop devices for a link"
	export VD_SERVER_TIMEOUT=60
	local lab i volumes=() times=$2 drives=$3
	pool_of 2 256M
	vdcreate -q pool/base -L 64m
	vdcreate -q pool/v -L 8m
	for ((i = 0; i < drives; i++)); do
		volumes+=("pool/v$i")
		vdcreate -q "pool/v$i" -L 8m
	done
	vdserver add -q pool/guest --qmp "$T/q"
	mkdir -p job/root/usr/lib/udev/rules.d
	cp "$VD/udev-rules/62-vd-drives.rules" job/root/usr/lib/udev/rules.d
	"$VD/tests/lab/lab.sh" -k "$1" -j "$T/job" -q "$T/q" -p "$T/guest" -t 1700 "bash /vd/tests/lab/jobs/many.sh $times $drives" >"$T/said" 2>&1 3>&- &
	lab=$!
	comes job/ready
	vdlink -q pool/base guest
	next 0 base
	for ((i = 1; i <= times; i++)); do
		next $i v
		vdlink -q pool/v guest
		comes_to job/used $i
		vdunlink -q pool/v
	done
	for i in "${volumes[@]}"; do vdlink -q "$i" guest; done
	[ "$(vdlink ls --noheadings -o address pool | sort -u | wc -l)" = $((drives + 1)) ]
	next all base
	comes job/all
	[ "$(vdlink ls --noheadings -o state pool | sort -u | tr -d ' ')" = up ]
	vdunlink -q "${volumes[@]}"
	next gone base
	wait $lab || { cat "$T/said"; return 1; }
	vdunlink -q pool/base
	[ -z "$(vdlink ls --noheadings pool)" ]
	vdpool check -q pool
	vdls --noheadings -o uuid "${volumes[@]}" | tr -d ' ' | sort | cmp - job/written
	for i in "${volumes[@]:0:5}"; do
		[ "$(read_volume "${i#*/}" | head -c 36)" = "$(vdls --noheadings -o uuid "$i" | tr -d ' ')" ]
	done
}
next() { echo "$1 $(vdls --noheadings -o uuid "pool/$2" | tr -d ' ')" >job/next.new; mv job/next.new job/next; comes_to job/took "$1"; }
comes_to()
{
	local i
	for ((i = 0; i < 3000; i++)); do
		[ "$(cat "$1" 2>/dev/null)" != "$2" ] || return 0
		kill -0 "$lab" || break
		sleep 0.05
	done
	echo "never: $1 $2"
	cat "$T/said"
	return 1
}

@test "6.1: a drive comes and goes a hundred times, and 64 at once, beside a file system at work" {
	many 6.1 100 64
}

@test "6.12: a drive comes and goes a hundred times, and 64 at once, beside a file system at work" {
	many 6.12 100 64
}

@test "6.1: a namespace of vd's has its volume's names, another's has not" {
	"$VD/tests/lab/lab.sh" -k 6.1 -j "$T/job" "bash /vd/tests/lab/jobs/names.sh"
}

@test "6.12: a namespace of vd's has its volume's names, another's has not" {
	"$VD/tests/lab/lab.sh" -k 6.12 -j "$T/job" "bash /vd/tests/lab/jobs/names.sh"
}
