# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A pool gets more space while its volumes are written: a member grows, one is added.
# shellcheck disable=SC2086 # one word a disk
# Disks: of 96 MiB, of which the pool has 64; of 64 MiB; a third that is not in the pool.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 d2 <<<"$DISKS"
status() { dmsetup status pool; }
total() { status | awk '{ split($5, m, "/"); split($6, d, "/"); print m[1] + d[2] }'; } # metadata in use is not in the data's total
has() { [ "$(total)" = "$1" ]; }
m0() # SECTORS: the first member has so many
{
	dmsetup reload m0 --table "0 $1 linear $d0 0"
	dmsetup suspend m0
	dmsetup resume m0
}
load() # MEMBER...
{
	dmsetup reload pool --table "0 1024 vd-pool $# $*"
	dmsetup suspend pool
	dmsetup resume pool
}

dmsetup create m0 --table "0 131072 linear $d0 0"
DISKS="/dev/mapper/m0 $d1"
pool_up
has 32768
message "create_thin a"
message "create_thin b"
volume_up a 131072
volume_up b 524288

echo "== a member grows, and is taken in by a reload"
fio_on a --rw=randwrite --bs=4k --size=4M --loops=6 &
writer=$!
m0 147456
load $DISKS
has 34816
wait $writer

echo "== or when a write waits for space"
dd if=/dev/urandom of=/tmp/source bs=1M count=170 status=none
dd if=/tmp/source of=/dev/mapper/b bs=1M oflag=direct status=none &
writer=$!
until_ok 30 some_wait
m0 163840
until_ok 20 has 36864
until_ok 30 some_wait
m0 196608
dmsetup suspend pool
dmsetup resume pool
has 40960

echo "== one is added, when it is blank"
until_ok 30 some_wait
echo "someone's" | dd of="$d2" bs=4k seek=16 conv=notrunc status=none
fails dmsetup reload pool --table "0 1024 vd-pool 3 $DISKS $d2"
fails dmsetup reload pool --table "0 1024 vd-pool 2 /dev/mapper/m0 $d2"
fails dmsetup reload pool --table "0 1024 vd-pool 2 $d1 $d1"
dd if=/dev/zero of="$d2" bs=4k seek=16 count=1 conv=notrunc,fsync status=none
load $DISKS "$d2"
has $((40960 + 16384))
wait $writer
cmp -n $((170 << 20)) /tmp/source /dev/mapper/b
fio_on a --rw=randwrite --bs=4k --size=8M
fails dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS"
[ "$(dmsetup table pool | awk '{ print $4 }')" = 3 ]

echo "== and all of it is there the next time"
sums a b
dmsetup remove --retry a
dmsetup remove --retry b
dmsetup remove --retry pool
DISKS="$d2 $DISKS"
pool_up
has $((40960 + 16384))
volume_up b 524288
cmp -n $((170 << 20)) /tmp/source /dev/mapper/b
status
dmesg | grep 'device-mapper: vd:'
dmsetup remove --retry b
dmsetup remove --retry pool
dmsetup remove --retry m0
unload
sound
