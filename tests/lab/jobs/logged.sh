# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Load on a pool whose one member (first disk) is below dm-log-writes (log: second disk).
# When a block of `log` is durable, a mark with its number goes into that log.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 <<<"$DISKS"
S=32768
modprobe -q dm-log-writes
dmsetup create lw --table "0 $(blockdev --getsz "$d0") log-writes $d0 $d1"
DISKS=/dev/mapper/lw
pool_up
for v in log load; do message "create_thin $v $S"; volume_up $v $S; done
fio --name=load --filename=/dev/mapper/load --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bsrange=4k-32k --fsync=16 \
	--size=$((S * 512)) --time_based --runtime=600 --rate=1m >/dev/null 2>&1 &
fio=$!
for ((i = 0; i < 60; i++)); do
	yes "block $i" | head -c 4096 >/tmp/block || true
	dd if=/tmp/block of=/dev/mapper/log bs=4096 seek=$i oflag=direct conv=notrunc,fsync status=none
	dmsetup message lw 0 "mark $i"
	[ $((i % 7)) != 6 ] || message "create_snap s$i log"
	[ $((i % 14)) != 13 ] || message "delete s$((i - 7))"
	[ $((i % 20)) != 19 ] || message checkpoint
done
kill $fio
wait $fio || true
all_down log load
dmsetup remove --retry lw
