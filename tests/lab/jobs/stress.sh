# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Everything at once for $SECONDS_ (60): verified writes to four volumes, snapshots made,
# read and deleted, discards, checkpoints, reloads, status.
. /vd/tests/lab/jobs/common.sh
[ ! -e /job/seconds ] || SECONDS_=$(cat /job/seconds)
S=65536
pids=()
bg() { "$@" & pids+=($!); }
busy() { [ $SECONDS -lt $END ]; }
writes() { while busy; do fio_on "$1" --rw=randwrite --bsrange="$2" --size=$((S * 512)) --io_size=6M --fsync=50 --randseed=$RANDOM; done; }
snapshots()
{
	local i=0
	while busy; do
		i=$((i + 1))
		message "create_snap s$i v$((i % 4))"
		if [ $((i % 3)) = 0 ]; then
			volume_up s$i $S
			dd if=/dev/mapper/s$i of=/dev/null bs=1M iflag=direct status=none
			fio_on s$i --rw=randwrite --bs=4k --size=4M
			dmsetup remove --retry s$i
		fi
		[ $i -le 5 ] || message "delete s$((i - 5))"
	done
}
discards() { while busy; do blkdiscard -o $((RANDOM * 512)) -l $((RANDOM * 512)) /dev/mapper/d; dd if=/dev/urandom of=/dev/mapper/d bs=64k count=40 seek=$((RANDOM % 200)) oflag=direct conv=notrunc status=none; done; }
reloads() { while busy; do dmsetup suspend v1; dmsetup resume v1; dmsetup status >/dev/null; message checkpoint; sleep 0.2; done; }

pool_up
for v in v0 v1 v2 v3 d; do message "create_thin $v $S"; volume_up $v $S; done
END=$((SECONDS + ${SECONDS_:-60}))
bg writes v0 4k-4k
bg writes v1 512-64k
bg writes v2 4k-64k
bg writes v3 512-8k
bg snapshots
bg discards
bg reloads
for p in "${pids[@]}"; do wait "$p"; done
dmsetup status
sums v0 v1 v2 v3 d
all_down v0 v1 v2 v3 d
