# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Load until the guest is killed.  A block of `log` is written, and when it is durable
# its number goes to the host: whatever is in /job/acked must be there afterwards.
. /vd/tests/lab/jobs/common.sh
S=131072
pool_up
for v in log load; do message "create_thin $v $S"; volume_up $v $S; done
fio_on load --rw=randwrite --bsrange=4k-32k --verify=0 --fsync=16 --size=$((S * 512)) --time_based --runtime=600 &
(i=0; while sleep 0.5; do i=$((i + 1)); message "create_snap s$i load"; [ $i -lt 3 ] || message "delete s$((i - 2))"; done) &
for ((i = 0; i < S / 8; i++)); do
	yes "block $i" | head -c 4096 >/tmp/block || true
	dd if=/tmp/block of=/dev/mapper/log bs=4096 seek=$i oflag=direct conv=notrunc,fsync status=none
	echo $i >>/job/acked
done
