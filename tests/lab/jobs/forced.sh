# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Volumes are removed by force while they are written, and while their writes wait for space; then the pool.
# Disks: two of 64 MiB.
. /vd/tests/lab/jobs/common.sh
S=65536 BIG=524288
status() { dmsetup status pool; }
written() { awk '{ print $5 }' "$(sysfs /dev/mapper/a)/stat"; } # requests, to a
writes() { [ "$(written)" -gt $((before + 100)) ]; }
limit=/sys/module/dm_vd/parameters/no_space_timeout

# load: of a, until a write fails; $writer, and what it said in /tmp/said
load()
{
	before=$(written)
	fio --name=load --filename=/dev/mapper/a --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=4k-64k --size=16M \
		--fsync=64 --time_based --runtime=600 >/tmp/said 2>&1 &
	writer=$!
}
# fill: all of big, more than there is space for
fill()
{
	dd if=/dev/urandom of=/dev/mapper/big bs=1M oflag=direct status=none 2>/tmp/said &
	writer=$!
}
# by_force DEVICE: it is open: so it stays, with an error for each that asks it for something
by_force()
{
	local r=0
	timeout 100 dmsetup remove --force "$1" >/tmp/forced 2>&1 || r=$?
	[ $r = 1 ] || { cat /tmp/forced; echo "remove --force gave $r"; return 1; }
	dmsetup table "$1" | grep -q ' error'
}
# fails_with TEXT: the writer does, and soon
fails_with()
{
	until_ok 60 ended "$writer"
	fails wait "$writer"
	grep -qE "$1" /tmp/said || { cat /tmp/said; return 1; }
}
# table NAME SECTORS: a device that is there, and open, is the volume again
table()
{
	dmsetup reload "$1" --table "0 $2 vd-volume /dev/mapper/pool $1"
	dmsetup resume "$1"
}

pool_up
message "create_thin a $S"
message "create_thin big $BIG"
volume_up a $S
volume_up big $BIG
dd if=/dev/urandom of=/tmp/kept bs=1M count=8 status=none
dd if=/tmp/kept of=/dev/mapper/a bs=1M seek=20 oflag=direct conv=notrunc,fsync status=none
kept() { cmp -n $((8 << 20)) -i 0:$((20 << 20)) /tmp/kept /dev/mapper/a; }
exec 8<>/dev/mapper/big 9<>/dev/mapper/a

echo "== while it is written"
load
until_ok 60 writes
by_force a
fails_with 'Input/output error'
fails dd if=/dev/mapper/a of=/dev/null bs=4096 count=1 iflag=direct status=none
fails dd if=/dev/zero of=/dev/mapper/a bs=4096 count=1 oflag=direct status=none
is_rw
echo "== and it can be had again, with the device that is open, or another"
dmsetup create again --table "0 $S vd-volume /dev/mapper/pool a"
cmp -n $((8 << 20)) -i 0:$((20 << 20)) /tmp/kept /dev/mapper/again
dmsetup remove --retry again
table a $S
kept
load
until_ok 60 writes
by_force a
fails_with 'Input/output error'
exec 9>&-
dmsetup remove --retry a
volume_up a $S
kept
fio_on a --rw=randwrite --bs=4k --size=16M

echo "== while its writes wait for space, and would for ever: they are given up"
echo 0 >$limit
fill
until_ok 60 some_wait
by_force big
[ "$(waiting)" = 0 ]
fails_with 'Input/output error'
kept
echo 60 >$limit
exec 8>&-
dmsetup remove --retry big
volume_up big $BIG
blkdiscard /dev/mapper/big
until_ok 20 is_rw
status | grep -q ' queue_if_no_space '
dd if=/tmp/kept of=/dev/mapper/big bs=1M oflag=direct conv=fsync status=none
cmp -n $((8 << 20)) /tmp/kept /dev/mapper/big

echo "== and the pool, while they wait"
fill
until_ok 60 some_wait
timeout 100 dmsetup remove --force pool || [ $? = 1 ]
fails_with 'Input/output error|No space|No such device'
for v in a big pool; do dmsetup remove --retry $v; done
pool_up
volume_up a $S
volume_up big $BIG
kept
message checkpoint
blkdiscard /dev/mapper/big
until_ok 20 is_rw
fio_on a --rw=randwrite --bs=4k --size=16M
sums a
dmesg | grep 'device-mapper: vd:'
for v in a big pool; do dmsetup remove --retry $v; done
unload
sound
