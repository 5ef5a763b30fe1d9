#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
load helper

linkable() { need_links; make_pool "${1:-2}" "${2:-256m}"; make_volume v "${3:-128m}"; }
# with ext4 on the volume
formatted() { linkable && ok vdlink p/v && mkfs.ext4 -q "$(D v)" && ok vdunlink p/v; }
D() { readlink "$VD_DEV_DIR/p/$1"; }
REST=1

@test "a volume becomes a block device of its size" {
	linkable
	ok vdlink p/v
	[ -b "$VD_DEV_DIR/p/v" ]
	[ "$(blockdev --getsize64 "$(D v)")" = 134217728 ]
	[ "$(blockdev --getss "$(D v)")" = 512 ]
}

@test "what is written to the device is in the volume" {
	linkable
	ok vdlink p/v
	random 1048576 >img
	dd if=img of="$(D v)" bs=64k oflag=direct conv=fsync status=none
	ok vdunlink p/v
	serve
	nbdcopy "$(uri v)" out
	cmp -n 1048576 img out
}

@test "of two pools of one name each is linked by its UUID, and one at a time is served" {
	linkable 1 64m 8m
	no_check
	local one two other=$T/other
	one=$(vdpool show p | awk '$1 == "UUID" {print $2}')
	ok vdlink p/v
	mkdir "$other"
	VD_CONFIG_DIR=$other vdpool create -q p -L 64m "$other/m0"
	two=$(VD_CONFIG_DIR=$other vdpool show p | awk '$1 == "UUID" {print $2}')
	VD_CONFIG_DIR=$other vdcreate -q -L 8m p/v
	echo "$other/m0" >>etc/devices
	must 3 vdlink p/v
	says "two pools called p" "$one" "$two" "$(tail -n 1 etc/devices)"
	must 3 vdunlink p/v
	must 4 vdlink "$two/v"
	says "another pool called p is served on this host"
	# The link goes on, also when its server is started again, by the front or for --restore
	random 1048576 >img
	dd if=img of="$(D v)" bs=64k oflag=direct conv=fsync status=none
	[ -z "$(servers)" ] || kill -9 "$(server_pid)" # the kernel is not one
	dd if="$(D v)" bs=64k count=16 iflag=direct status=none | cmp - img
	break_link v
	wait_for eval "vdlink ls --noheadings -o state $one | grep -w down"
	ok vdlink --restore
	dd if="$(D v)" bs=64k count=16 iflag=direct status=none | cmp - img
	ok vdunlink "$one/v"
	ok vdlink "$two/v"
	cmp -n 1048576 "$(D v)" /dev/zero
	ok vdunlink "$two/v"
	ok vdpool check "$one"
	ok vdpool check "$two"
}

@test "unlinking takes device, name, front and server away" {
	linkable
	ok vdlink p/v
	local d
	d=$(D v)
	ok vdunlink p/v
	[ ! -e "$VD_DEV_DIR/p/v" ]
	[ -z "$(server_pids)" ]
	[ ! -e "/sys/block/$(basename "$d")/loop/backing_file" ]
	ok vdlink ls
	says_not p/v
}

@test "a second link is refused, and says who has the first" {
	linkable
	ok vdlink p/v
	must 4 vdlink p/v
	says "linked already" "$(D v)" since
	must 4 vdlink -r p/v
}

@test "the server stays while another volume of the pool is linked" {
	linkable
	make_volume w
	ok vdlink p/v
	ok vdlink p/w
	ok vdunlink p/v
	[ -n "$(server_pid)" ]
	dd if="$(D w)" of=/dev/null bs=4k count=1 status=none
	ok vdunlink p/w
	[ -z "$(server_pids)" ]
}

@test "an ext4 is made, mounted by vdlink, and checked" {
	need mkfs.ext4
	formatted
	ok vdlink --mount mnt p/v
	says ext4 "mounted on"
	random 20000000 >mnt/f
	sha256sum mnt/f >sum
	ok vdunlink p/v
	ok vdlink --mount mnt p/v
	sha256sum -c --quiet sum
	umount mnt
	e2fsck -fn "$(D v)"
}

@test "an xfs is made, mounted by vdlink, and checked" {
	need mkfs.xfs xfs_repair
	grep -qw xfs /proc/filesystems || modprobe -q xfs || skip "the kernel has no xfs"
	linkable 2 512m 512m
	ok vdlink p/v
	mkfs.xfs -q "$(D v)"
	ok vdunlink p/v
	ok vdlink --mount mnt p/v
	says xfs
	random 20000000 >mnt/f
	sha256sum mnt/f >sum
	umount mnt
	xfs_repair -n "$(D v)"
	mount "$(D v)" mnt
	sha256sum -c --quiet sum
}

@test "an xfs is made and checked, mounted or not" {
	need mkfs.xfs xfs_repair
	linkable 2 512m 512m
	ok vdlink p/v
	mkfs.xfs -q "$(D v)"
	xfs_repair -n "$(D v)"
}

@test "an empty volume is not mounted, and says what to do" {
	linkable
	must 5 vdlink --mount mnt p/v
	says mkfs "step \"present\""
	[ ! -e "$VD_DEV_DIR/p/v" ]
	[ -z "$(server_pids)" ]
	ok vdlink p/v
}

@test "a directory that is not there is refused before anything is done" {
	linkable
	must 3 vdlink --mount nowhere p/v
	says nowhere
	[ -z "$(server_pids)" ]
}

@test "a busy file system is not unmounted, and says by whom" {
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	( cd mnt && exec sleep 600 3>&- ) &
	wait_for eval "readlink /proc/$!/cwd | grep mnt && grep sleep /proc/$!/comm"
	must 4 vdunlink p/v
	says "in use by sleep ($!)"
	mountpoint mnt
	dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct status=none
	kill $!
	wait $! || true
	ok vdunlink p/v
}

@test "a device that is open is not taken away, and says by whom" {
	linkable
	ok vdlink p/v
	sleep 600 <"$(D v)" 3>&- &
	wait_for eval "readlink /proc/$!/fd/0 | grep -e loop -e nbd -e dm- && grep sleep /proc/$!/comm"
	must 4 vdunlink p/v
	says "sleep ($!)"
	kill $!
	wait $! || true
	ok vdunlink p/v
}

@test "a device that is swap is not taken away, and it is said" {
	need mkswap swapon
	linkable
	ok vdlink p/v
	mkswap -q "$(D v)"
	swapon "$(D v)" || skip "no swap here"
	run vdunlink p/v </dev/null
	swapoff "$(D v)"
	[ "$status" = 4 ] || { echo "$output"; false; }
	says "swap" "$(D v)"
	ok vdunlink p/v
}

@test "a mount in another namespace is named, and the link that stays is not said to be mounted" {
	need mkfs.ext4 unshare
	formatted
	ok vdlink --mount mnt p/v
	elsewhere sleep 600 3>&- &
	wait_for grep sleep /proc/$!/comm
	must 4 vdunlink p/v
	says "the mount on $T/mnt in the mount namespace of sleep ($!)"
	refused mountpoint -q mnt
	[ -b "$(D v)" ]
	ok vdlink ls --noheadings -o state,mount
	says up
	says_not mnt
	[ "$(jq -r '.drives[].mount' etc/servers/local)" = "" ]
	kill $!
	wait $! || true
	ok vdunlink p/v
}

# Any user can call a mount of his own by the device's name.
@test "a mount that only says that it is of the device keeps nobody from unlinking" {
	need unshare setpriv
	linkable
	ok vdlink p/v
	local dev pid
	dev=$(readlink -f "$(D v)")
	elsewhere setpriv --reuid=65534 --clear-groups unshare -Urm sh -c 'mount -t tmpfs "$0" /mnt && exec sleep 600' "$dev" 3>&- &
	pid=$!
	wait_for grep -q sleep /proc/$pid/comm || skip "users may not make namespaces here"
	ok vdunlink p/v
	kill $pid
	wait $pid || true
}

@test "a volume mounted in several places is unmounted from all" {
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	mount "$(D v)" mnt2
	ok vdunlink p/v
	refused mountpoint -q mnt
	refused mountpoint -q mnt2
}

@test "who keeps a link waiting is named, and the wait can be interrupted" {
	linkable
	local holder
	flock "$VD_RUNTIME_DIR/p.links" sleep 1000 3>&- &
	holder=$!
	wait_for eval '! flock -n "$VD_RUNTIME_DIR/p.links" true'
	env vdlink p/v >said 2>&1 3>&- & # the program, to be sent a signal
	wait_for grep "process $holder (flock) has $VD_RUNTIME_DIR/p.links locked: this waits until it is done" said
	kill -TERM $!
	refused wait $!
	grep interrupted said
	pkill -P $holder
	wait $holder || :
	ok vdlink p/v
	[[ $output != *waits* ]]
}

@test "what is not linked is not unlinked" {
	linkable
	must 3 vdunlink p/v
	says "not linked"
}

@test "what does not exist is not linked" {
	linkable
	must 3 vdlink p/nope
	says "no volume p/nope"
	must 3 vdlink nope/v
	must 2 vdlink p
	must 2 vdlink 'p/a b'
	must 2 vdlink
	[ -z "$(server_pids)" ]
}

@test "with --test nothing is linked, and what is wrong is said" {
	linkable
	ok vdlink -t p/v
	says "would be linked"
	[ -z "$(server_pids)" ]
	must 3 vdlink -t p/nope
	ok vdlink p/v
	must 4 vdlink -t p/v
	ok vdunlink -t p/v
	[ -b "$VD_DEV_DIR/p/v" ]
}

@test "a read-only link cannot be written" {
	linkable
	ok vdlink -r p/v
	[ "$(blockdev --getro "$(D v)")" = 1 ]
	run dd if=/dev/zero of="$(D v)" bs=4k count=1 oflag=direct
	[ "$status" != 0 ]
}

@test "a read-only snapshot is linked read-only only" {
	linkable
	ok vdsnap --readonly p/v -n s
	run vdlink p/s
	[ "$status" != 0 ]
	says read-only
	ok vdlink -r p/s
}

@test "a snapshot is mounted beside its volume, as it was" {
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	random 3000000 >mnt/f
	sha256sum <mnt/f >sum
	fsfreeze -f mnt
	run vdsnap --readonly p/v -n s
	fsfreeze -u mnt
	[ "$status" = 0 ]
	random 3000000 >mnt/f
	rm -f mnt/lost+found/*
	ok vdlink -r --mount mnt2 p/s
	sha256sum -c --quiet sum <mnt2/f
	refused cmp -s mnt/f mnt2/f
}

@test "a link shows in ls, as a table and as JSON" {
	need jq
	linkable
	ok vdlink p/v
	ok vdlink ls
	says p/v rw up "$(D v)"
	vdlink ls --reportformat json | jq -e '.report[0].link[0].state == "up"'
	ok vdlink ls -o help
	must 3 vdlink ls nope
}

@test "a pool that cannot be read does not keep the others' links from ls" {
	no_check
	need_links
	ok vdpool create a -L 64m a0
	make_pool 1 128m
	ok vdcreate p/v -L 64m
	ok vdlink p/v
	ok vdpool create z -L 64m z0
	local f
	for f in a0 z0; do
		dd if=/dev/zero of=$f bs=4k seek=1 count=$(( $(stat -c %s $f) / 4096 - 2 )) conv=notrunc status=none
	done
	refused vdlink ls
	says "p/v" "pool a" "pool z"
	refused vdlink ls a
	ok vdlink ls p
	says p/v
	refused vdlink --restore
	says "pool a"
}

@test "a linked volume is neither removed nor renamed, and says who has it" {
	linkable
	ok vdlink p/v
	must 4 vdrm -y p/v
	says "$(D v)"
	must 4 vdrename p/v w
	says "$(D v)"
}

@test "commands work on a linked pool" {
	linkable
	ok vdlink p/v
	make_volume w
	ok vdsnap p/v -n s
	ok vdls p
	says w s
	ok vdpool show p
	ok vdpool check p
}

@test "it is told who serves a pool, and why not the kernel" {
	need_server "why not the kernel"
	need jq
	linkable
	[ "$(vdpool show --reportformat json p | jq -r '.report[0].pool[0].active')" = no ]
	VD_KERNEL=n ok vdlink -v --noudevsync p/v
	says "not in the kernel: VD_KERNEL says so" "server of pool p started"
	[ "$(vdpool show --reportformat json p | jq -r '.report[0].pool[0].active')" = server ]
	[ "$(vdpool ls --noheadings -o active p | tr -d ' ')" = server ]
	ok vdunlink --noudevsync p/v
	ok vdlink -v p/v
	says "not in the kernel: "
}

# ctl JSON: a request to the control socket of pool p, as any process may send it
ctl() { python3 -c '
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode() + b"\n")
print(s.makefile().readline(), end="")' "$T/run/p.ctl" "$1"; }

@test "a volume that is locked is not linked, and says by whom; a stale lock is broken" {
	need_server "a control socket"
	need python3
	linkable
	make_volume w
	ok vdlink p/w
	local host boot holder
	host=$(cat /etc/machine-id) boot=$(cat /proc/sys/kernel/random/boot_id)
	host=${host:0:8}-${host:8:4}-${host:12:4}-${host:16:4}-${host:20}
	holder='"holder": {"host": "'$host'", "boot": "'$boot'", "hostname": "here", "purpose": "a test", "pid": PID, "since": 1}'
	[[ $(ctl "{\"op\": \"lock\", \"volume\": \"v\", ${holder/PID/$$}}") == *result* ]]
	must 4 vdlink p/v
	says "locked by a test"
	must 4 vdlink -t p/v
	says "locked by a test"
	[[ $(ctl "{\"op\": \"unlock\", \"volume\": \"v\", ${holder/PID/$$}}") == *result* ]]
	ok vdlink p/v
	ok vdunlink p/v
	sleep 0 & local dead=$!
	wait $dead
	[[ $(ctl "{\"op\": \"lock\", \"volume\": \"v\", ${holder/PID/$dead}}") == *result* ]]
	ok vdlink p/v
}

@test "an NBD client that writes keeps a link out; a link makes an export read-only" {
	need_server "it knows its clients"
	need qemu-io nbdinfo
	linkable
	ok vdlink p/v
	S=$T/run/p.nbd
	nbdinfo --is read-only "$(uri v)"
	make_volume w
	qemu-io -f raw -c 'write 0 4k' -c 'sleep 60000' "$(uri w)" 3>&- &
	wait_for eval 'vdlink ls p | grep client'
	must 4 vdlink p/w
	says "over NBD" qemu-io
	nbdinfo --is read-only "$(uri w)"
	ok vdlink -r p/w
	kill $! && wait $! || true
}

# bats test_tags=kernel
@test "the device takes discards, and the volume gives space back" {
	linkable
	ok vdlink p/v
	random 33554432 | dd of="$(D v)" bs=1M iflag=fullblock oflag=direct conv=fsync status=none
	[ "$(field p/v mapped)" = 33554432 ]
	blkdiscard -o 8388608 -l 16777216 "$(D v)"
	[ "$(field p/v mapped)" = 16777216 ]
	cmp <(dd if="$(D v)" bs=1M skip=8 count=16 iflag=direct status=none) <(head -c 16777216 /dev/zero)
}

@test "zeroing a range that is not of whole blocks makes it read as zeros" {
	linkable
	ok vdlink p/v
	random 1048576 >img
	dd if=img of="$(D v)" bs=64k oflag=direct status=none
	blkdiscard -z -o 1536 -l 66560 "$(D v)"
	dd if=/dev/zero of=img bs=512 seek=3 count=130 conv=notrunc status=none
	dd if="$(D v)" of=out bs=1M count=1 iflag=direct status=none
	cmp img out
}

@test "a linked volume grows without being unlinked" {
	need mkfs.ext4 resize2fs
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	ok vdresize p/v -L 200m
	ok vdlink --refresh p/v
	[ "$(blockdev --getsize64 "$(D v)")" = 209715200 ]
	umount mnt # (to grow it mounted needs a capability that not every root has)
	e2fsck -fp "$(D v)"
	resize2fs "$(D v)"
	mount "$(D v)" mnt
	random 100000000 >mnt/f
	sync mnt/f
	umount mnt
	e2fsck -fn "$(D v)"
}

@test "a device with partitions shows them" {
	need_server "partitions of a device of device-mapper are kpartx's"
	need sfdisk
	need_links
	truncate -s 32m plain
	printf '2048,20480\n' | sfdisk -q plain
	local l
	l=$(losetup -fP --show plain) || skip "no loop device"
	sleep 0.2
	[ -b "${l}p1" ] || { losetup -d "$l"; skip "this kernel shows no partitions of loop devices"; }
	losetup -d "$l"
	linkable
	ok vdlink p/v
	printf '2048,20480\n' | sfdisk -q "$(D v)"
	wait_for test -b "$(D v)p1"
}

@test "a pool of 4096-byte sectors makes a device of 4096-byte sectors" {
	need_links
	ok vdpool create p --sector 4096 -L 64m m0
	make_volume v 32m
	ok vdlink p/v
	[ "$(blockdev --getss "$(D v)")" = 4096 ]
	need mkfs.ext4
	mkfs.ext4 -q "$(D v)"
	e2fsck -fn "$(D v)"
}

@test "a link whose front was killed is down, gives errors, and is restored" {
	linkable
	ok vdlink p/v
	random 1048576 >img
	dd if=img of="$(D v)" bs=64k oflag=direct conv=fsync status=none
	break_link v
	wait_for eval 'vdlink ls | grep down'
	run dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct
	[ "$status" != 0 ] || says "0+0 records in" # of an nbd device whose server has gone there is nothing
	must 4 vdlink p/v
	says --restore
	ok vdlink --restore
	says again
	dd if="$(D v)" of=out bs=64k count=16 iflag=direct status=none
	cmp img out
	[ "$(vdlink ls --noheadings -o state | tr -d ' ')" = up ]
}

@test "a mounted link whose front was killed is restored with its mount" {
	need_server "a front, that is killed"
	need mkfs.ext4
	formatted
	ok vdlink --mount mnt p/v
	echo hello >mnt/f
	sync mnt/f
	break_link v
	wait_for eval 'vdlink ls | grep down'
	ok vdlink --restore p
	[ "$(cat mnt/f)" = hello ]
}

@test "a mount is restored with its options, and one described without any too" {
	need_server "a front, that is killed"
	need mkfs.ext4
	formatted
	ok vdlink --mount mnt --mount-options nosuid,nodev,noatime p/v
	local before
	before=$(findmnt -no OPTIONS mnt)
	[[ $before == *nosuid*nodev*noatime* ]]
	break_link v
	wait_for eval 'vdlink ls | grep down'
	ok vdlink --restore p
	[ "$(findmnt -no OPTIONS mnt)" = "$before" ]
	jq 'del(.drives[].options)' etc/servers/local >old
	cp old etc/servers/local
	break_link v
	wait_for eval 'vdlink ls | grep down'
	ok vdlink --restore p
	mountpoint -q mnt
}

@test "what a pool says was linked is not mounted unless this host knows of it, and where it knows" {
	need_server "a front, that is killed"
	need mkfs.ext4
	formatted
	ok vdlink --mount mnt p/v
	umount mnt
	break_link v
	wait_for eval 'vdlink ls | grep down'
	mkdir mnt-here
	jq '.drives[0].mount = "'"$T"'/mnt-here"' etc/servers/local >changed
	echo '{"server":"local","drives":[]}' >etc/servers/local
	ok vdlink --restore p
	says "left alone" "vdlink p/v"
	refused mountpoint -q mnt
	vdlink ls | grep down
	cp changed etc/servers/local
	ok vdlink --restore p
	mountpoint -q mnt-here
	refused mountpoint -q mnt
	umount mnt-here
}

@test "a link that is down can be forgotten" {
	linkable
	ok vdlink p/v
	break_link v
	wait_for eval 'vdlink ls | grep down'
	ok vdunlink p/v
	ok vdlink p/v
}

@test "restoring what is up does nothing" {
	linkable
	ok vdlink p/v
	ok vdlink --restore
	says_not again
}

@test "a pool whose members are named with --device is linked" {
	need_server "a process that is killed"
	linkable
	mv etc/devices devices
	must 3 vdlink p/v
	ok vdlink --device m0 --device m1 p/v
	kill -9 "$(server_pid)"
	dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct status=none
	mv devices etc/devices
}

@test "a volume is made and linked at once, with the options given" {
	need_links
	make_pool 2 256m
	mv etc/devices devices
	ok vdcreate -v -a y --device m0 --device m1 -L 64m p/v
	says "p/v of 64.00m created" "report: done"
	[ "$(blockdev --getsize64 "$(D v)")" = 67108864 ]
	mv devices etc/devices
	ok vdcreate -q -a y --readonly -L 64m p/w
	[ -z "$output" ]
	[ "$(blockdev --getro "$(D w)")" = 1 ]
	ok vdcreate -t -a y -L 64m p/x
	ok vdcreate -a n -L 64m p/x
	[ ! -e "$VD_DEV_DIR/p/x" ]
}

@test "snapshots are made and linked at once, with the options given" {
	linkable
	make_volume w
	ok vdsnap -a y --readonly -n s p/v p/w
	says "p/v@s made" "/p/w@s is"
	[ "$(blockdev --getro "$(D v@s)")" = 1 ]
	[ "$(blockdev --getro "$(D w@s)")" = 1 ]
	ok vdsnap -t -a y -n t p/v
	ok vdsnap -a n -n t p/v
	[ ! -e "$VD_DEV_DIR/p/t" ]
	must 2 vdsnap -a y --rollback p/t
}

@test "a volume that was made and cannot be linked is there, and not locked" {
	need_server "a plugin"
	need_links
	make_pool 2 256m
	VD_PLUGIN=/nonexistent/x.so must 3 vdcreate -a y -L 64m p/v
	says "p/v of 64.00m created" VD_PLUGIN
	[ "$(vdls --noheadings -o +lock_holder p | grep -c vdcreate)" = 0 ]
	ok vdlink p/v
	[[ $output != *stale* ]]
}

@test "a command loads what a front needs only for a front" {
	run ldd "$(type -P vdlink)"
	says libdevmapper
	[[ $output != *libnbd* ]]
}

@test "a pool with the longest name is linked, and one that differs in its last letter" {
	need_links
	local a b p
	a=$(printf 'x%.0s' {1..127}) b=$(printf 'x%.0s' {1..126})y
	ok vdpool create "$a" -L 64m m0
	ok vdpool create "$b" -L 64m m1
	for p in "$a" "$b"; do
		ok vdcreate "$p/v" -L 16m
		ok vdlink "$p/v"
		[ -b "$VD_DEV_DIR/$p/v" ]
	done
	[ "$(server_pids | wc -l)" = 2 ]
	ok vdls
	ok vdunlink "$a/v"
	ok vdunlink "$b/v"
	[ -z "$(server_pids)" ]
}

@test "a plugin that is not there is said" {
	need_server "a plugin"
	linkable
	VD_PLUGIN=/nonexistent/x.so must 3 vdlink p/v
	says VD_PLUGIN
	ok vdlink p/v
}
