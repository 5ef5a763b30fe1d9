#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Full pools (D10).
load helper
THREADS=1

# a small pool whose policy is to say that it is full, and a volume larger than it
small() { ok vdpool create p --policy "${1:-error}" -L 64m m0; make_volume v 256m; serve; }
fill() { ! nbdcopy "$@" "$T/big" "$(uri v)" 2>err; }
big() { random 200000000 >"$T/big"; }
avail() { vdpool ls --noheadings --nosuffix --units b -o free p | tr -d ' '; }

@test "a full pool says ENOSPC, and the server lives" {
	need nbdcopy nbdinfo
	small; big
	fill
	grep -i "no space" err
	nbdinfo "$(uri v)"
	ok vdpool check p
}

@test "what was written before a pool was full can be read" {
	need qemu-io nbdcopy
	small; big
	io v 'write -P 7 200m 8m' flush
	# one write at a time: what fits is then the beginning of the image
	fill --connections=1 --requests=1
	io v 'read -P 7 200m 8m'
	nbdcopy "$(uri v)" out
	cmp -n 20000000 big out
}

@test "mapped blocks of a full pool can be overwritten" {
	need qemu-io nbdcopy
	small; big
	io v 'write -P 7 200m 8m' flush
	fill
	io v 'write -P 8 200m 8m' 'read -P 8 200m 8m' flush
}

@test "a full pool can be listed, snapshots and volumes deleted, and is not full then" {
	need nbdcopy
	small; big
	fill
	ok vdls p
	make_volume w 1m
	ok vdrm -y p/w
	end_servers TERM
	ok vdrm -y p/v
	make_volume v 32m
	serve
	random 33554432 >img
	nbdcopy img "$(uri v)"
	nbdcopy "$(uri v)" out
	cmp img out
}

# bats test_tags=kernel
@test "a discard makes room in a full pool" {
	need qemu-io nbdcopy
	small; big
	fill
	io v 'discard 0 16m'
	io v 'write -P 3 240m 4m' 'read -P 3 240m 4m'
}

@test "deleting snapshots makes room in a full pool" {
	need qemu-io nbdcopy
	small
	io v 'write -P 1 0 16m' flush
	ok vdsnap p/v -n s
	random 60000000 >big
	fill
	ok vdrm -y p/s
	wait_for eval '[ "$(avail)" -gt 8000000 ]'
	io v 'write -P 3 240m 4m' 'read -P 3 240m 4m'
}

@test "a new member makes room in a full pool, without a restart" {
	need qemu-io nbdcopy
	small; big
	fill
	ok vdpool add p -L 512m m1
	nbdcopy big "$(uri v)"
	nbdcopy "$(uri v)" out
	cmp -n 200000000 big out
}

@test "writes to a full pool that queues wait, and go on when there is room" {
	need nbdcopy
	small queue; big
	nbdcopy big "$(uri v)" 2>err 3>&- &
	local copy=$!
	wait_for eval '[ "$(avail)" -lt 1000000 ]'
	sleep 0.5
	kill -0 $copy
	ok vdpool add p -L 512m m1
	wait $copy || { cat err; return 1; }
	nbdcopy "$(uri v)" out
	cmp -n 200000000 big out
}

@test "a server with waiting writes ends when it is told to" {
	need_server "a process that is told to end"
	need nbdcopy
	small queue; big
	nbdcopy big "$(uri v)" 2>err 3>&- &
	local copy=$!
	wait_for eval '[ "$(avail)" -lt 1000000 ]'
	sleep 0.3
	kill -TERM $SERVER
	local i
	for ((i = 0; i < 3000; i++)); do kill -0 $SERVER 2>/dev/null || break; sleep 0.02; done
	kill $copy 2>/dev/null || true
	wait $copy || true
	! kill -0 $SERVER 2>/dev/null || return 1
}

@test "a full pool killed again and again stays whole" {
	need_server "a process that is killed"
	need qemu-io nbdcopy
	small; big
	local i
	for i in 1 2 3; do
		nbdcopy big "$(uri v)" 2>/dev/null 3>&- &
		sleep 0.4
		kill -9 $SERVER
		wait $SERVER $! || true
		serve
	done
	fill
	ok vdpool check p
}

@test "an ext4 in a pool that becomes full and gets room keeps its files" {
	need mkfs.ext4
	need_links
	ok vdpool create p --policy error -L 96m m0
	make_volume v 512m
	ok vdlink p/v
	mkfs.ext4 -q -E lazy_itable_init=1 "$VD_DEV_DIR/p/v"
	mount "$VD_DEV_DIR/p/v" mnt
	random 60000000 >mnt/a
	sync mnt/a
	sha256sum mnt/a >sum
	run dd if=/dev/urandom of=mnt/b bs=1M count=150 conv=fsync
	[ "$status" != 0 ]
	rm -f mnt/b
	ok vdpool add p -L 512m m1
	umount mnt || umount -l mnt
	# What could not be written was never promised: the journal makes the rest whole.
	run e2fsck -fy "$VD_DEV_DIR/p/v"
	[ "$status" -le 1 ]
	mount "$VD_DEV_DIR/p/v" mnt
	sha256sum -c --quiet sum
	random 100000000 >mnt/c
	sync mnt/c
	umount mnt
	e2fsck -fn "$VD_DEV_DIR/p/v"
}

@test "on a file system with little left a sparse member takes what is written, and no more" {
	need_root
	need qemu-io mkfs.ext4
	local at before writes=()
	truncate -s 100m f
	mkfs.ext4 -q f
	mount -o loop f mnt || skip "no loop device"
	ok vdpool create p -L 1g mnt/m0
	make_volume v 512m
	serve
	for at in {0..199}; do writes+=("write -P 7 $((at * 2))m 4k"); done
	sync
	before=$(du -k mnt/m0 | cut -f1)
	io v "${writes[@]}" flush
	end_servers TERM
	ok vdpool check p
	sync
	at=$(du -k mnt/m0 | cut -f1)
	no_check
	umount mnt
	[ $((at - before)) -lt 4096 ]
}

# fio_v OPTION...: fio on volume v, the same blocks and contents each time
fio_v()
{
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --iodepth=8 --randseed=7 --verify=crc32c --verify_fatal=1 \
		--output=out "$@" || { cat out; return 1; }
}

@test "what fio wrote verifies, though it had to wait for room in a full pool" {
	need fio
	small queue
	fio_v --bs=64k --size=128m --do_verify=1 3>&- &
	local fio=$!
	wait_for eval '[ "$(avail)" -lt 1000000 ]'
	sleep 0.5
	kill -0 $fio
	ok vdpool add p -L 512m m1
	wait $fio
	[ "$(field p/v mapped)" = 134217728 ]
}

@test "what fio wrote before a pool was full verifies, while it is full and after a restart" {
	need fio nbdcopy
	small
	fio_v --bs=64k --size=128m --io_size=24m --do_verify=0
	random 60000000 >big
	make_volume w 256m
	refused nbdcopy big "$(uri w)"
	says "No space"
	local i
	for i in 1 2; do
		fio_v --bs=64k --size=128m --io_size=24m --verify_only
		end_servers KILL
		serve
	done
	# in place it can be written, and then holds that
	fio_v --bs=64k --size=128m --io_size=24m --do_verify=1
}

# bats test_tags=kernel
@test "what is free again is discarded on the members, unless the pool says not to" {
	need qemu-io
	head -c 65536 /dev/zero >hole
	fallocate -p -l 65536 hole || skip "no holes can be punched in files of $PWD"
	ok vdpool create p -L 64m m0
	make_volume v 32m
	serve
	sectors() { stat -c %b m0; }
	all_free() { ok vdpool set --thresholds 90 p && [ "$(avail)" -ge "$free" ]; } # which is a checkpoint
	local before free with
	before=$(sectors) free=$(($(avail) - 1048576))
	io v 'write -P 1 0 16m' flush
	with=$(sectors)
	[ "$with" -ge $((before + 32000)) ]
	io v 'discard 0 16m' flush
	wait_for all_free
	[ "$(sectors)" -le $((with - 30000)) ]
	ok vdpool set --discards nopassdown p
	ok vdpool show p
	says "is not discarded"
	[ "$(vdpool ls --noheadings -o discards p | tr -d ' ')" = nopassdown ]
	io v 'write -P 2 0 16m' flush
	with=$(sectors)
	io v 'discard 0 16m' flush
	wait_for all_free
	[ "$(sectors)" -ge $((with - 1000)) ]
}

@test "a pool is made that does not discard on its members" {
	must 2 vdpool create p --discards maybe -L 64m m0
	must 2 vdpool create p --discards p -L 64m m0
	ok vdpool create p --discards nopassdown -L 64m m0
	ok vdpool set -t --discards passdown p
	ok vdpool set --thresholds 80 p
	[ "$(vdpool ls --noheadings -o discards p | tr -d ' ')" = nopassdown ]
	ok vdpool set --discards passdown p
	[ "$(vdpool ls --noheadings -o discards,policy p | xargs)" = "passdown queue" ]
}
