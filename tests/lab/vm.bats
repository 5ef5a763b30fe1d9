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
	sha256sum <"$VD_DEV_DIR/pool/v" >before
	vdunlink -q pool/v
	uuid=$(vdls --noheadings -o uuid pool/v | tr -d ' ')
	vdserver add -q pool/guest --qmp "$T/q"
	"$VD/tests/lab/lab.sh" -k "$1" -j "$T/job" -q "$T/q" "bash /vd/tests/lab/jobs/vm.sh $uuid" >"$T/said" 2>&1 3>&- &
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
