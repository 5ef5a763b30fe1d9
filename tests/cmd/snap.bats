#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
load helper

# bats test_tags=kernel
@test "a snapshot keeps what was, and the volume goes on" {
	need qemu-io
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 1m'
	ok vdsnap p/v -n s
	io v 'write -P 2 0 512k'
	io s 'read -P 1 0 1m'
	io v 'read -P 2 0 512k' 'read -P 1 512k 512k'
}

@test "a snapshot is named after its volume and the time" {
	make_pool
	make_volume
	ok vdsnap p/v
	ok vdls --noheadings -o name p
	says "v@20"
}

@test "a snapshot's name is taken once" {
	make_pool
	make_volume
	ok vdsnap p/v -n s
	must 5 vdsnap p/v -n s
	says "exists already"
}

@test "what is not there has no snapshot" {
	make_pool
	must 3 vdsnap p/nope
}

@test "a snapshot can be written, and its origin does not see it" {
	need qemu-io
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 64k'
	ok vdsnap p/v -n s
	io s 'write -P 3 4k 4k'
	io v 'read -P 1 0 64k'
	io s 'read -P 3 4k 4k' 'read -P 1 0 4k'
}

@test "a read-only snapshot is served read-only" {
	need nbdinfo
	make_pool
	make_volume
	ok vdsnap --readonly p/v -n s
	serve
	nbdinfo --is read-only "$(uri s)"
	refused nbdinfo --is read-only "$(uri v)"
}

@test "a group is taken at one instant, while both are written" {
	need qemu-io
	make_pool
	make_volume a
	make_volume b
	serve
	# The same number goes to a, then to b, each flushed: b is never ahead.
	( for i in $(seq 1 60); do
		qemu-io -f raw -c "write -P $i 0 4k" -c flush "$(uri a)" >/dev/null
		qemu-io -f raw -c "write -P $i 0 4k" -c flush "$(uri b)" >/dev/null
	done ) 3>&- &
	local k x y
	for k in 1 2 3 4 5 6; do
		sleep 0.15
		ok vdsnap --group p/a p/b -n g$k
	done
	wait $!
	for k in 1 2 3 4 5 6; do
		x=$(nbdcopy "$(uri a@g$k)" - | head -c1 | od -An -tu1)
		y=$(nbdcopy "$(uri b@g$k)" - | head -c1 | od -An -tu1)
		[ $((x - y)) -ge 0 ]
		[ $((x - y)) -le 1 ]
	done
}

@test "a volume is rolled back to a snapshot" {
	need qemu-io
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 1m'
	ok vdsnap p/v -n s
	io v 'write -P 2 0 2m'
	must 6 vdsnap --rollback p/s
	ok vdsnap -y --rollback p/s
	io v 'read -P 1 0 1m' 'read -P 0 1m 1m'
	io s 'read -P 1 0 1m'
}

@test "no rollback to what is not related" {
	make_pool
	make_volume a
	make_volume b
	run vdsnap -y --rollback p/a b
	[ "$status" != 0 ]
	says "no snapshot of it"
}

@test "snapshots of snapshots are exact, and are deleted in any order" {
	need qemu-io
	make_pool
	make_volume
	serve
	local i
	for i in 1 2 3 4 5 6; do
		io v "write -P $i $((i * 64))k 256k"
		ok vdsnap p/v -n s$i
	done
	ok vdsnap p/s3 -n s3b
	nbdcopy "$(uri s5)" want5
	nbdcopy "$(uri s3b)" want3
	ok vdrm -y p/s3
	ok vdrm -y p/s6 p/s1
	ok vdrm -y p/s4
	nbdcopy "$(uri s5)" got5
	nbdcopy "$(uri s3b)" got3
	cmp want5 got5
	cmp want3 got3
}

@test "the changed-block list covers what was changed, and not much more" {
	need qemu-io
	make_pool
	make_volume v 512m
	serve
	io v 'write -P 1 0 64m'
	ok vdsnap p/v -n s
	io v 'write -P 2 1m 4k' 'write -P 2 10m 64k' 'discard 20m 1m' 'write -P 2 300m 4k'
	ok vddiff --noheadings p/s p/v
	[ "$(vddiff --noheadings --nosuffix --units b p/s p/v | tr -s ' ' | sed 's/^ //')" = \
"1048576 4096
10485760 65536
20971520 1048576
314572800 4096" ]
}

@test "the changed-block list of equal volumes is empty" {
	need qemu-io
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 1m'
	ok vdsnap p/v -n s
	[ -z "$(vddiff --noheadings p/s p/v)" ]
}

@test "a backup by changed blocks is the volume" {
	need qemu-io
	make_pool
	make_volume v 64m
	serve
	random 20000000 >img; truncate -s 64m img
	nbdcopy img "$(uri v)"
	ok vdsnap p/v -n s1
	nbdcopy "$(uri s1)" backup
	random 3000000 >more
	nbdcopy "$(uri v)" work
	dd if=more of=work bs=1000 seek=7001 conv=notrunc status=none
	nbdcopy work "$(uri v)"
	ok vdsnap p/v -n s2
	nbdcopy "$(uri s2)" want
	while read -r off len; do
		dd if=want of=backup bs=4096 skip=$((off / 4096)) seek=$((off / 4096)) count=$((len / 4096)) conv=notrunc status=none
	done < <(vddiff --noheadings --nosuffix --units b p/s1 p/s2)
	cmp want backup
}

@test "exclusive and shared bytes add up" {
	need qemu-io jq
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 4m'
	ok vdsnap p/v -n s
	io v 'write -P 2 0 1m'
	[ "$(field p/v mapped)" = 4194304 ]
	[ "$(field p/v exclusive)" = 1048576 ]
	[ "$(field p/v shared)" = 3145728 ]
}

@test "200 snapshots are taken while the volume is written" {
	need fio
	make_pool 2 512m
	make_volume v 64m
	serve
	# at a rate that does not fill the pool, however fast the machine is
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=4 --size=64m --time_based --runtime=6 --rate_iops=10000 \
		--output=fio.out 3>&- &
	local i
	for i in $(seq 200); do vdsnap -q p/v -n s"$i" || return 1; done
	wait $!
	[ "$(vdls --noheadings p | wc -l)" = 201 ]
}
