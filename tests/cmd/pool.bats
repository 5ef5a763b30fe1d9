#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
load helper

@test "a pool is made on files that did not exist" {
	ok vdpool create p -L 64m m0 m1
	says "pool p made of 2 members"
	[ "$(stat -c %s m0)" = 67108864 ]
}

@test "a pool is made on a file that exists and is empty" {
	truncate -s 32m m0
	ok vdpool create p m0
}

@test "an empty file becomes as long as was said, and one with a length keeps it" {
	: >e
	truncate -s 32m longer
	ok vdpool create p -L 64m e longer
	[ "$(stat -c %s e)" = 67108864 ]
	[ "$(stat -c %s longer)" = 33554432 ]
	: >e2
	ok vdpool add p -L 16m e2
	[ "$(stat -c %s e2)" = 16777216 ]
	ok vdpool check p
}

@test "an empty file is refused without a size, and stays empty when nothing comes of it" {
	: >e
	must 5 vdpool create p e
	says "0 bytes"
	ok vdpool create -t p -L 64m e
	[ -f e ]
	[ ! -s e ]
	must 5 vdpool create p -L 1m e
	[ -f e ]
	[ ! -s e ]
	must 2 vdpool create p -L 64m --journal 1g e new # it fails late
	[ -f e ]
	[ ! -s e ]
	[ ! -e new ]
	make_pool 1
	must 5 vdpool add p -L 1m e
	[ -f e ]
	[ ! -s e ]
}

@test "a file that does not exist is refused without a size" {
	must 3 vdpool create p m0
	says "m0 does not exist" "--size"
	[ ! -e m0 ]
}

@test "with --test no pool is made and no file" {
	ok vdpool create -t p -L 64m m0
	[ ! -e m0 ]
	must 3 vdpool show p
}

@test "a foreign file system on a member is named and refused" {
	need mkfs.ext4
	truncate -s 64m m0
	mkfs.ext4 -q m0
	sha256sum m0 >before
	must 6 vdpool create p m0
	says ext4 "--force"
	sha256sum -c --quiet before
}

@test "a partition table on a member is named and refused" {
	need sfdisk
	truncate -s 64m m0
	echo ',,L' | sfdisk -q m0 2>/dev/null
	must 6 vdpool create p m0
	says "dos"
}

@test "with --force a foreign file system is wiped" {
	need mkfs.ext4 blkid
	truncate -s 64m m0
	mkfs.ext4 -q m0
	ok vdpool create --force p m0
	run blkid -p m0
	says_not ext4
}

@test "a member of another pool is named and refused" {
	make_pool 1
	at_rest
	must 6 vdpool create q m0
	says "vd pool p"
	ok vdpool show p
}

@test "a pool's name is taken once" {
	make_pool 1
	must 5 vdpool create p -L 64m other
	says "exists already"
	[ ! -e other ]
}

@test "a member that is too small is refused" {
	must 5 vdpool create p -L 1m m0
	says "8 MiB"
	[ ! -e m0 ]
}

@test "one file given twice is refused" {
	truncate -s 64m m0
	run vdpool create p m0 m0
	[ "$status" != 0 ]
	must 3 vdpool show p
}

@test "a directory is no member" {
	mkdir d
	run vdpool create p d
	[ "$status" != 0 ]
	says d
}

@test "names that break the rule are refused, and say how" {
	must 2 vdpool create a/b -L 64m m0
	must 2 vdpool create ' ' -L 64m m0
	must 2 vdpool create .. -L 64m m0
	must 2 vdpool create "$(printf 'x%.0s' {1..128})" -L 64m m0
	[ ! -e m0 ]
}

@test "thresholds that are no numbers are refused before anything is made" {
	local t
	for t in nan inf -inf -1 101 x 1,2,3,4,5; do
		must 2 vdpool create p --thresholds "$t" -L 64m m0
		says thresholds
		[ ! -e m0 ]
		[ ! -e etc/devices ]
	done
	make_pool 1
	must 2 vdpool set p --thresholds nan
}

@test "a name of 127 bytes is taken" {
	ok vdpool create "$(printf 'x%.0s' {1..127})" -L 64m m0
}

@test "a loop device is a member, and its size is the device's" {
	need_root
	need losetup
	truncate -s 64m f
	local d
	d=$(losetup -f --show f) || skip "no loop device"
	run vdpool create p "$d"
	[ "$status" = 0 ] && run vdpool show p
	[ "$status" = 0 ] && says "$d"
	local r=$?
	vdpool check p
	rm etc/devices
	losetup -d "$d"
	[ $r = 0 ]
}

@test "a file is not opened beside who has a loop device on it" {
	need_root
	need losetup
	ok vdpool create p -L 64m m0
	local loop
	loop=$(losetup -f --show m0) || skip "no loop device"
	echo "$loop" >etc/devices
	serve
	echo "$T/m0" >etc/devices
	VD_RUNTIME_DIR=$T/etc must 4 vdcreate -L 1m p/v
	says "m0 is "
	echo "$loop" >etc/devices
	end_servers TERM
	ok vdcreate -L 1m p/v
}

@test "nor is it where there are several, whichever is in use" {
	need_root
	need losetup
	ok vdpool create p -L 64m m0
	local loops=() loop
	for loop in 1 2 3; do loops+=("$(losetup -f --show m0)") || skip "no loop device"; done
	for loop in "${loops[@]}"; do
		echo "$loop" >etc/devices
		serve
		echo "$T/m0" >etc/devices
		VD_RUNTIME_DIR=$T/etc must 4 vdcreate -L 1m p/v
		says "m0 is "
		echo "$loop" >etc/devices
		end_servers TERM
	done
}

@test "a copy of a member is none, and in no way while somebody has the pool" {
	make_pool 2
	make_volume v
	serve
	cp m1 copy
	echo "$T/copy" >>etc/devices
	ok vdls p
	ok vdcreate -L 1m p/w
	ok vdpool show p
	says "$T/m1"
	says_not "$T/copy"
	end_servers TERM
	must 3 vdls p
	says "found twice" "$T/copy"
	must 3 vdcreate -L 1m p/x
	sed -i /copy/d etc/devices
	ok vdls p
}

@test "a mounted device is refused" {
	need_root
	need losetup mkfs.ext4
	truncate -s 64m f
	mkfs.ext4 -q f
	mount -o loop f mnt || skip "no loop device"
	local d
	d=$(findmnt -no SOURCE mnt)
	run vdpool create --force p "$d"
	umount mnt
	[ "$status" != 0 ]
	says mounted
}

@test "show and ls say what there is, and JSON is JSON" {
	need jq
	make_pool 2
	ok vdpool show p
	says "$T/m0" "$T/m1" "rw"
	ok vdpool ls
	says p
	vdpool ls --reportformat json | jq -e '.report[0].pool[0].name == "p"'
}

@test "a pool that is not there is not found, and says where was looked" {
	must 3 vdpool show nope
	says "not found" devices
}

@test "a subcommand that there is not is refused" {
	must 2 vdpool frobnicate p
	says frobnicate
}

@test "an option that there is not is refused" {
	must 2 vdpool show --frobnicate p
	says frobnicate
}

@test "a member is added, and the pool is larger" {
	make_pool 1 64m
	ok vdpool add p -L 64m m1
	ok vdpool show p
	says "128.00m" "$T/m1"
}

@test "what is a member already is not added, and it is said" {
	make_pool
	must 5 vdpool add p m1
	says "m1 is a member of pool p already"
	must 5 vdpool add -t --force p "$T/./m0"
	ln -s m0 other
	must 5 vdpool add --force p other
	says "is a member of pool p already"
	serve
	must 5 vdpool add p m1
	says "is a member of pool p already"
}

@test "a member is added while the server runs" {
	make_pool 1 64m
	make_volume v 200m
	serve
	ok vdpool add p -L 256m m1
	random 150000000 >img
	nbdcopy img "$(uri v)"
}

@test "a member that carries something is not added without --force" {
	need mkfs.ext4
	make_pool 1 64m
	truncate -s 64m m1
	mkfs.ext4 -q m1
	must 6 vdpool add p m1
	says ext4
	ok vdpool show p
	says_not m1
	ok vdpool add --force p m1
}

@test "what is not in the devices file cannot be forgotten" {
	make_pool
	at_rest
	must 3 vdpool forget /never/there
	says "/never/there is not in $T/etc/devices"
	must 3 vdpool forget -t /never/there
	mv m1 m2
	must 3 vdpool forget m2
	ok vdpool forget -t m1
	ok vdpool forget m1
	must 3 vdpool forget m1
	mv m2 m1
	echo "$T/m1" >>etc/devices
}

@test "check finds nothing in a pool that was just used" {
	make_pool
	make_volume
	ok vdsnap p/v
	ok vdpool check p
	says "no faults"
	ok vdpool check --quick p
}

@test "dump shows metadata" {
	make_pool 1
	ok vdpool dump p
	says space
}

@test "a pool is opened by its UUID" {
	make_pool 1
	local uuid
	uuid=$(vdpool show p | awk '$1=="UUID"{print $2}')
	ok vdpool show "$uuid"
	says "Pool p"
}

@test "two pools of one name are told apart by UUID only" {
	make_pool 1
	mkdir other other/etc
	VD_CONFIG_DIR=$T/other/etc vdpool create p -L 64m other/m0
	echo "$T/other/m0" >>etc/devices
	must 3 vdpool show p
	says "two pools"
	no_check
}

@test "a user without permission is told to try as root" {
	need_root
	need setpriv
	make_pool 1
	chmod 755 "$T"
	chmod 755 etc
	chmod 600 m0
	run setpriv --reuid 65534 --regid 65534 --clear-groups "$(command -v vdpool)" show p
	[ "$status" != 0 ]
	says root
}

@test "a writer that another process keeps out says who has the pool" {
	make_pool 1
	serve
	run nbdkit -f -U "$T/run/2.nbd" "${VD_BUILD:-$VD/build}/nbdkit-vd-plugin.so" pool=p
	[ "$status" != 0 ]
	says nbdkit
}
