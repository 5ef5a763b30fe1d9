#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# What -t says, and that it is all it does.
load helper
REST=1

# All that a command could have changed.
state()
{
	settle
	sha256sum m* n* e etc/devices etc/servers/* 2>/dev/null
	ls -l etc dev dev/p 2>/dev/null
	grep -l "^$T" /sys/block/loop*/loop/backing_file 2>/dev/null
	grep " $T" /proc/self/mountinfo | cut -d' ' -f5-
	blockdev --getsize64 dev/p/* 2>/dev/null
	return 0
}

# tried STATUS COMMAND...: with -t
tried()
{
	must "$1" "$2" -t "${@:3}" && [ "$(state)" = "$before" ] || { echo "with -t: ${*:2}"; diff <(echo "$before") <(echo "$(state)"); false; }
}
tried_pool()
{
	must "$1" vdpool "$2" -t "${@:3}" && [ "$(state)" = "$before" ] || { echo "vdpool -t ${*:2}"; diff <(echo "$before") <(echo "$(state)"); false; }
}

@test "every changing command with -t leaves members, etc/ and devices byte for byte" {
	make_pool 2 128m
	make_volume v
	make_volume w
	ok vdsnap -n s p/v
	truncate -s 64m n1
	: >e
	local before
	before=$(state)
	tried 0 vdcreate -L 1m p/x
	tried 0 vdcreate -a y -L 1m p/x
	tried 0 vdrm p/w
	tried 0 vdrename p/w x
	tried 0 vdresize -L 128m p/w
	tried 0 vdresize -y -L 1m p/w
	tried 0 vdresize --reserve 1m p/w
	tried 0 vdsnap p/v p/w
	tried 0 vdsnap -n x p/v
	tried 0 vdsnap --rollback p/s
	tried 0 vdlink p/v
	tried 0 vdlink --restore
	tried 3 vdlink --refresh p/v
	tried 3 vdunlink p/v
	tried_pool 0 create q -L 64m n0
	tried_pool 0 create q -L 64m e
	tried_pool 0 create q n1
	tried_pool 0 add p -L 64m n0
	tried_pool 0 add p n1
	tried_pool 0 set p --policy error --thresholds 80
	tried_pool 0 set p/v --readonly y --attr a=b
	tried_pool 0 check p --repair
	tried_pool 0 forget "$(head -n 1 "$VD_CONFIG_DIR/devices")"
}

@test "a member that is a file does not grow with -t" {
	need_server members that are files
	make_pool 2 128m
	local before
	before=$(state)
	tried_pool 0 grow p m0 -L 256m
}

@test "of a linked volume too" {
	need_links
	make_pool 2 128m
	make_volume v
	make_volume w
	ok vdlink p/v
	local before=x
	settled() { [ "$before" = "$(state)" ] || { before=$(state); sleep 1.5; false; }; }
	wait_for settled # udev has looked at it, the server has written its last checkpoint
	tried 0 vdcreate -L 1m p/x
	tried 4 vdrm p/v
	tried 4 vdrename p/v x
	tried 0 vdresize -L 128m p/v
	tried 0 vdsnap p/v p/w
	tried 4 vdlink p/v
	tried 0 vdlink p/w
	tried 0 vdlink --restore
	tried 0 vdlink --refresh p/v
	tried 0 vdunlink p/v
	tried_pool 0 add p -L 64m n0
	tried_pool 0 set p --policy error
	ok vdresize -L 128m p/v
	ok vdlink -t --refresh p/v
	says would
	[ "$(blockdev --getsize64 dev/p/v)" = 67108864 ]
	ok vdlink --refresh p/v
	[ "$(blockdev --getsize64 dev/p/v)" = 134217728 ]
}

@test "vdunlink -t says who uses a device, or a file system on it" {
	need mkfs.ext4
	need_links
	make_pool 2 128m
	make_volume v
	ok vdlink p/v
	sleep 600 <dev/p/v 3>&- &
	wait_for eval "readlink /proc/$!/fd/0 | grep -e loop -e nbd -e dm- && grep sleep /proc/$!/comm"
	must 4 vdunlink -t p/v
	says "sleep ($!)"
	kill $!
	wait $! || true
	mkfs.ext4 -q "$(readlink -f dev/p/v)"
	mount "$(readlink -f dev/p/v)" mnt
	ok vdunlink -t p/v
	( cd mnt && exec sleep 600 3>&- ) &
	wait_for eval "readlink /proc/$!/cwd | grep mnt && grep sleep /proc/$!/comm"
	must 4 vdunlink -t p/v
	says "sleep ($!)"
	mountpoint -q mnt
	kill $!
	wait $! || true
}

@test "with -t what is refused is refused: names, locks, what is read-only, sizes" {
	make_pool 2 128m
	make_volume v
	make_volume w
	ok vdsnap --readonly -n s p/v
	local before
	before=$(state)
	tried 5 vdsnap -n s p/w
	says "p/s exists already"
	tried 3 vdsnap -n s p/v p/v2
	tried 5 vdlink p/s
	says read-only
	tried 0 vdlink -r p/s
	tried_pool 2 create q --journal 1g -L 64m n0
	says "journal"
	tried_pool 2 add p -L 64m n0 n0
	says "the same"
	tried 5 vdcreate --reserve all -L 64g p/x
}

@test "with -t a read-only pool is refused" {
	no_check
	make_pool 2 128m
	make_volume v
	make_volume w
	ok vdsnap -n s p/v
	mv m1 hidden
	local before
	before=$(state)
	tried 5 vdcreate -L 1m p/x
	says missing
	tried 5 vdsnap p/v
	tried 5 vdsnap --rollback p/s v
	tried 5 vdlink p/v
	tried_pool 5 set p --policy error
	tried_pool 5 add p -L 64m n0
	mv hidden m1
}
