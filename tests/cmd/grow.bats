#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Members that become larger, asked for and by themselves (D10).
load helper
THREADS=1 REST=1

big() { random "${1:-100000000}" >"$T/big"; }
size() { vdpool ls --noheadings --nosuffix --units b -o size p | tr -d ' '; }
avail() { vdpool ls --noheadings --nosuffix --units b -o free p | tr -d ' '; }
full() { [ "$(avail)" -lt 1000000 ]; }
# what was written can be read, and the pool is whole
holds() { nbdcopy "$(uri v)" out && cmp -n "$(stat -c %s "$T/big")" "$T/big" out && ok vdpool check p; }

@test "a file is extended and its pool grows" {
	make_pool 1 64m
	ok vdpool grow -t p -L 128m
	says "would grow from 64.00m to 128.00m"
	[ "$(stat -c %s m0)" = 67108864 ]
	ok vdpool grow p -L 128m
	says "grown from 64.00m to 128.00m"
	[ "$(stat -c %s m0)" = 134217728 ]
	[ "$(size)" = 134217728 ]
	ok vdpool grow p m0 -L +64m
	[ "$(size)" = 201326592 ]
	ok vdpool grow p 0
	says "nothing is larger than it was"
	ok vdpool check p
}

@test "which member is to have a size must be said, and it does not become smaller" {
	make_pool 2 64m
	must 2 vdpool grow p -L 128m
	says "p has 2 members"
	ok vdpool grow p m1 -L 128m
	[ "$(size)" = 201326592 ]
	must 2 vdpool grow p m1 -L 64m
	says "does not become smaller"
	must 2 vdpool grow p m1 -L -1m
	must 3 vdpool grow p m7
	must 3 vdpool grow p 7
}

@test "what a file has become larger by is taken in" {
	make_pool 2 64m
	truncate -s 100m m1
	truncate -s 80m m0
	ok vdpool grow p
	says "m0 grown from 64.00m to 80.00m" "m1 grown from 64.00m to 100.00m"
	[ "$(size)" = $((180 << 20)) ]
	ok vdpool check p
}

@test "a block device that has become larger is taken in" {
	need losetup
	need_root
	truncate -s 64m disk
	local dev
	dev=$(losetup -f --show disk) || skip "no loop devices"
	ok vdpool create p "$dev"
	truncate -s 128m disk
	losetup -c "$dev"
	must 2 vdpool grow p -L 256m
	says "block device"
	ok vdpool grow p
	[ "$(size)" = 134217728 ]
	ok vdpool check p
}

@test "a member that failed to be added at the end may be one, and stays known" {
	ok vdpool create --journal 1m p -L 64m m0
	truncate -s 64m late
	# Labels and the journal can be written, what comes behind it on m0 not any more.
	run bash -c "trap '' XFSZ; ulimit -f 1088; exec vdpool add p '$T/late'"
	[ "$status" != 0 ]
	says "may be a member all the same"
	grep -qx "$T/late" etc/devices
	ok vdpool check p
}

@test "a writer that waits for space goes on when a member's file becomes larger" {
	need nbdcopy
	ok vdpool create p -L 64m m0
	make_volume v 256m
	serve
	big
	nbdcopy big "$(uri v)" 2>err 3>&- &
	local copy=$!
	wait_for full
	kill -0 $copy
	truncate -s 256m m0
	wait $copy || { cat err; return 1; }
	holds
	[ "$(size)" = 268435456 ]
	grep -E "(m0|member 0) has become larger" "$T/run/serve.log"
}

@test "a writer that waits for space goes on when vdpool grow is said" {
	need nbdcopy
	ok vdpool create p -L 64m m0
	make_volume v 256m
	serve
	big
	nbdcopy big "$(uri v)" 2>err 3>&- &
	local copy=$!
	wait_for full
	ok vdpool grow p -L 256m
	wait $copy || { cat err; return 1; }
	holds
}

@test "files grow by themselves, and no writer sees a full pool" {
	need_server "files that it extends"
	need nbdcopy
	ok vdpool create p --policy error --grow-by 16m -L 64m m0
	ok vdpool show p
	says "extended by 16.00m"
	make_volume v 256m
	serve
	big
	nbdcopy big "$(uri v)"
	holds
	[ "$(size)" -gt 100000000 ]
	grep "low on space: $T/m0 was extended" "$T/run/serve.log"
}

@test "files grow no further than their limit, and that is said once" {
	need_server "files that it extends"
	need nbdcopy
	ok vdpool create p --policy error -L 64m m0 m1
	ok vdpool set --grow-by 16m --grow-to 160m p
	make_volume v 512m
	serve
	random 200000000 >big
	refused nbdcopy big "$(uri v)"
	[ "$(size)" = $((160 << 20)) ]
	[ "$(stat -c %s m0)" = "$(stat -c %s m1)" ]
	sleep 3
	[ "$(grep -c "reached its limit" "$T/run/serve.log")" = 1 ]
	ok vdpool set --grow-to 0 p
	nbdcopy big "$(uri v)"
}

@test "a file does not grow to more than its file system has" {
	need_server "files that it extends"
	need nbdcopy
	ok vdpool create p --policy error --grow-by 1p -L 64m m0
	make_volume v 256m
	serve
	big
	refused nbdcopy big "$(uri v)"
	[ "$(stat -c %s m0)" = 67108864 ]
	grep "the file system of its files has only" "$T/run/serve.log"
}

@test "a pool does not grow by itself unless it is told to" {
	need nbdcopy
	ok vdpool create p --policy error -L 64m m0
	make_volume v 256m
	serve
	big
	refused nbdcopy big "$(uri v)"
	[ "$(stat -c %s m0)" = 67108864 ]
	[ "$(size)" = 67108864 ]
}

@test "a pool grows as soon as its lowest threshold is passed" {
	need_server "files that it extends"
	need nbdcopy
	ok vdpool create p --policy error --thresholds 90,50 --grow-by 64m -L 64m m0
	make_volume v 256m
	serve
	big 20000000
	nbdcopy big "$(uri v)"
	[ "$(size)" = 67108864 ]
	big 40000000
	nbdcopy big "$(uri v)"
	wait_for eval '[ "$(size)" = 134217728 ]'
	holds
}

@test "a pool that grows while it is killed again and again stays whole" {
	need_server "a process that is killed"
	need nbdcopy qemu-io
	ok vdpool create p --policy error --grow-by 4m -L 64m m0
	make_volume v 512m
	serve
	local i
	for i in 1 2 3 4 5 6; do
		big 40000000
		nbdcopy big "$(uri v)" 2>/dev/null 3>&- &
		sleep 0.$i
		truncate -s +8m m0
		kill -9 $SERVER
		wait $SERVER $! || true
		ok vdpool check p
		serve
	done
	nbdcopy big "$(uri v)"
	holds
}

@test "a member that was cut short is told by name, and the pool opens when it is whole again" {
	make_pool 1 64m
	make_volume v 32m
	ok vdpool grow p -L 128m
	cp m0 whole
	truncate -s 100m m0
	must 5 vdcreate -L 1m p/w
	says "m0 has 100.00m and had 128.00m"
	ok vdls p
	truncate -s 32m m0
	must 5 vdcreate -L 1m p/w
	says "too short"
	cp whole m0
	ok vdcreate -L 1m p/w
}
