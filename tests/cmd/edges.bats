#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Limits, and what stands at the edge of something.
load helper

@test "a base image may be a device, and longer than the volume" {
	need nbdcopy qemu-io losetup
	need_root
	random 8388608 >disk
	local dev
	dev=$(losetup -f --show -r disk) || skip "no loop devices"
	make_pool
	ok vdcreate p/v -L 4m --base "$dev"
	ok vdcreate p/w --base "$dev"
	[ "$(field p/w size)" = 8388608 ]
	serve
	nbdcopy "$(uri v)" out
	[ "$(stat -c %s out)" = 4194304 ]
	cmp -n 4194304 disk out
	io v 'write -P 7 1m 4k' 'read -P 7 1m 4k'
	nbdcopy "$(uri w)" out
	cmp disk out
	ok vdresize p/v -L 6m
	nbdcopy "$(uri v)" out
	cp disk want
	truncate -s 6m want
	head -c 4096 /dev/zero | tr '\0' '\7' | dd of=want bs=1M seek=1 conv=notrunc status=none
	cmp -n 4194304 want out
	end_servers TERM
	losetup -d "$dev"
}

@test "base:allocation of a volume over a base image" {
	need_server "base:allocation"
	need nbdinfo qemu-io
	random 1048576 >base
	make_pool
	ok vdcreate p/v -L 4m --base base
	serve
	io v 'write -P 1 2m 64k' 'discard 256k 64k'
	nbdinfo --map "$(uri v)" | awk '{print $1, $2, $4}' >map
	cat map
	# what the image has and what was written is data; what was discarded, and what neither has, reads as zeros
	[ "$(grep -v data map)" = "262144 65536 hole,zero
1048576 1048576 hole,zero
2162688 2031616 hole,zero" ]
}

@test "256 members make a pool, and the 257th is refused" {
	local i files=()
	for ((i = 0; i < 255; i++)); do files+=("$T/m$i"); done
	ok vdpool create p -L 8m "${files[@]}"
	ok vdpool add p -L 8m m255
	refused vdpool add p -L 8m m256
	says 256
	[ ! -e m256 ]
	refused vdpool create q -L 8m "${files[@]/%/q}" x y
	ok vdpool check p
}

@test "a threshold that is passed is told, once" {
	need_server "a log of thresholds"
	need qemu-io
	ok vdpool create p --thresholds 50 -L 64m m0
	make_volume
	serve
	io v 'write -P 1 0 40m' flush
	wait_for grep "more than 50" run/serve.log
	io v 'write -P 1 40m 2m' flush
	sleep 2
	[ "$(grep -c "more than 50" run/serve.log)" = 1 ]
}

@test "the control socket is owned by root" {
	need_server "a control socket"
	need_root
	make_pool 1
	serve
	[ "$(stat -Lc %u:%g "$T/run/p.ctl")" = 0:0 ]
}
