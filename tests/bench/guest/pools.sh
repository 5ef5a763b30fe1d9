#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Lines "ROW TARGET FIGURE" in /job/samples, beside dm-thin without zeroing:
#
#   snapshot-N      ns that the message takes which makes one, when there are N
#   metadata        bytes of it for a volume that was written in sequence
#   open-SIZE       µs of dmsetup create of a pool of that size, when it is new
#   open-journal    the same of a pool that was cut off after 20,000 first writes;
#   journal-extents what of them its journal had
#   open-snapshots  the same with 10,000 snapshots
. /vd/tests/bench/guest/targets.sh
many=10000
note() { echo "$*" >>/job/samples; }
median_of() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
metadata() { dmsetup status pool | sed 's|^[^/]* \([0-9]*\)/.*|\1|'; }
timed_table() { # ROW TARGET TABLE
	local begun=${EPOCHREALTIME/./}
	table pool "$3"
	note "$1" "$2" $((${EPOCHREALTIME/./} - begun))
}
vd_table="0 1024 vd-pool 1 /dev/ram0"

insmod "$VD_BIOGEN"
for t in thinskip vd; do
	"${t}_up"
	before=$(metadata)
	echo "/dev/mapper/t write seq 65536 65536 $((mib << 20)) 8 $((mib * 16)) 0" >/sys/module/biogen/parameters/run
	blockdev --flushbufs /dev/mapper/t
	[ $t = thinskip ] || vd_settle
	note metadata $t $((($(metadata) - before) * 4096))

	dmsetup remove --retry t
	if [ $t = vd ]; then message='create_snap s@ v'; else message='create_snap @ 0'; fi
	/vd/build/tests/bench/bench_message pool $((many + 50)) "$message" >/tmp/ns
	note snapshot-1 $t "$(head -n 50 /tmp/ns | median_of)"
	note snapshot-$many $t "$(tail -n 50 /tmp/ns | median_of)"
	dmsetup remove --retry pool
	if [ $t = vd ]; then
		timed_table open-snapshots vd "$vd_table"
	else
		timed_table open-snapshots thinskip "0 $((below * 2048)) thin-pool /dev/ram1 /dev/ram0 128 0 1 skip_block_zeroing"
	fi
	dmsetup remove --retry pool
	rm -f "$VD_CONFIG_DIR"/*
done

table disk "0 $((160 * 2048)) linear /dev/ram0 0"
vdpool create -q -y --force p /dev/mapper/disk
table pool "0 1024 vd-pool 1 /dev/mapper/disk"
message pool 0 "create_thin v $sectors"
table t "0 $sectors vd-volume /dev/mapper/pool v"
echo "/dev/mapper/t write rand 4096 4096 $((mib << 20)) 8 20000 20000" >/sys/module/biogen/parameters/run
# What closing it writes is undone: it is opened as after a power cut.
dd if=/dev/mapper/disk of=/dev/ram1 bs=1M iflag=direct oflag=direct status=none
for d in t pool; do dmsetup remove --retry $d; done
dd if=/dev/ram1 of=/dev/mapper/disk bs=1M count=160 iflag=direct oflag=direct status=none
timed_table open-journal vd "0 1024 vd-pool 1 /dev/mapper/disk"
note journal-extents vd "$(dmsetup status pool | sed 's/.* overlay \([0-9]*\).*/\1/')"
for d in pool disk; do dmsetup remove --retry $d; done
rm -f "$VD_CONFIG_DIR"/*

# A disk of any size: a snapshot of zeros.
for size in 1G 1T 1P; do
	case $size in 1G) s=$((1 << 21)) ;; 1T) s=$((1 << 31)) ;; 1P) s=$((1 << 41)) ;; esac
	zero /dev/ram0 1
	table zero "0 $s zero"
	table large "0 $s snapshot /dev/mapper/zero /dev/ram0 N 8"
	vdpool create -q -y --force p /dev/mapper/large
	timed_table open-$size vd "0 1024 vd-pool 1 /dev/mapper/large"
	dmsetup remove --retry pool
	rm -f "$VD_CONFIG_DIR"/*
	zero /dev/ram1 1 # dm-thin's metadata has a bit or two for each block: there is no room for 1P
	[ $size = 1P ] || { timed_table open-$size thinskip "0 $s thin-pool /dev/ram1 /dev/mapper/large 128 0 1 skip_block_zeroing"; dmsetup remove --retry pool; }
	for d in large zero; do dmsetup remove --retry $d; done
done
