# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# fio with verification on three volumes at once, writes of 512 bytes and more, with
# snapshots made and deleted meanwhile; a snapshot that stays as it was; discards.
. /vd/tests/lab/jobs/common.sh
S=131072 B=$((131072 * 512))
pids=()
bg() { "$@" & pids+=($!); }
all() { local p; for p in "${pids[@]}"; do wait "$p"; done; pids=(); }
snapshots()
{
	local i
	for i in 1 2 3 4 5 6; do
		message "create_snap a$i a"
		message "create_snap b$i b"
		sleep 0.3
		[ $i = 1 ] || message "delete a$((i - 1))"
	done
}

pool_up
for v in a b c; do message "create_thin $v $S"; volume_up $v $S; done
bg fio_on a --rw=randwrite --bsrange=512-64k --size=$B --io_size=32M
bg fio_on b --rw=randwrite --bs=4k --fsync=32 --size=$B --io_size=16M
bg fio_on c --rw=write --bs=64k --size=$B
bg snapshots
all
dmsetup status

message "create_snap cs c"
volume_up cs $S
bg fio_on c --rw=randwrite --bs=4k --size=$B --io_size=8M --randseed=77
bg fio_on cs --rw=write --bs=64k --size=$B --verify_only
all
fio_on cs --rw=write --bs=64k --size=$B --verify_only

bg blkdiscard /dev/mapper/b
bg fio_on a --rw=randrw --bs=4k --size=$B --io_size=8M --verify=0
all
cmp -n $B /dev/zero /dev/mapper/b
blkdiscard -z -o 1536 -l 1048576 /dev/mapper/c # edges within blocks
cmp -n 1048576 -i 0:1536 /dev/zero /dev/mapper/c
for i in 1 2 3 4 5 6; do message "delete b$i"; done
message checkpoint
sums a b c cs
all_down a b c cs
