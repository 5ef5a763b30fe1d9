# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What goes wrong, and what changes under I/O: a volume grows by a reload while it is
# written; read-only tables; a full pool and its recovery; a member that fails.
# Disks: two of 64 MiB, the first below dm-flakey.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 <<<"$DISKS"
n0=$(blockdev --getsz "$d0")
status() { dmsetup status "$1"; }

insmod "$VD_MODULE"
modprobe -q dm-flakey || true
dmsetup create m0 --table "0 $n0 linear $d0 0"
DISKS="/dev/mapper/m0 $d1"
fails dmsetup create pool --table "0 1024 vd-pool 2 $d1 $d1"
fails dmsetup create pool --table "0 1024 vd-pool 3 $DISKS"
fails dmsetup create pool --table "0 1024 vd-pool 2 $DISKS 1 nonsense"
fails dmsetup create pool --table "0 1024 vd-pool 1 /dev/null"
pool_up

echo "== names and locks"
fails message "create_thin"
fails message "create_thin a 7"
fails message "create_snap s nobody"
fails message "delete nobody"
fails message "what is this"
message "create_thin a"
fails dmsetup create a --table "0 1024 vd-volume /dev/mapper/pool b"
fails dmsetup create a --table "0 1023 vd-volume /dev/mapper/pool a"
fails dmsetup create a --table "0 1024 vd-volume /dev/mapper/m0 a"

echo "== a volume grows while it is written"
volume_up a 16384
fails message "delete a"
fio_on a --rw=randwrite --bs=4k --size=8M --loops=3 &
p=$!
for s in 24576 32768 40960; do
	dmsetup reload a --table "0 $s vd-volume /dev/mapper/pool a"
	dmsetup suspend a
	dmsetup resume a
	dmsetup suspend --noflush a
	dmsetup resume a
done
wait $p
[ "$(blockdev --getsz /dev/mapper/a)" = 40960 ]
dmsetup reload pool --table "0 1024 vd-pool 2 $d1 /dev/mapper/m0 1 error_if_no_space" # the same members
dmsetup suspend pool
dmsetup resume pool
fails dmsetup reload pool --table "0 1024 vd-pool 1 $d1"
dmsetup clear pool

echo "== read-only"
message "create_snap ro a"
dmsetup create -r ro --table "0 40960 vd-volume /dev/mapper/pool ro"
fails dd if=/dev/zero of=/dev/mapper/ro bs=4k count=1 oflag=direct
sha256sum </dev/mapper/ro >/tmp/ro

echo "== full"
message "create_thin big 524288"
volume_up big 524288
fails dd if=/dev/urandom of=/dev/mapper/big bs=1M oflag=direct status=none
status pool
status pool | grep -q out_of_data_space
dd if=/dev/zero of=/dev/mapper/a bs=4k count=1 seek=3 oflag=direct,sync status=none || echo "a is shared with ro: no space for it either"
fails dd if=/dev/zero of=/dev/mapper/big bs=4k count=1 seek=60000 oflag=direct status=none
sha256sum </dev/mapper/ro | cmp - /tmp/ro
blkdiscard -l $((16 << 20)) /dev/mapper/big
for _ in $(seq 50); do ! status pool | grep -q out_of || sleep 0.2; done
status pool | grep ' rw ' # nobody wrote
dd if=/dev/zero of=/dev/mapper/big bs=1M count=4 oflag=direct,sync status=none
dmsetup remove --retry big
message "delete big"
sync

echo "== a member fails while it is written"
sha256sum </dev/mapper/a >/tmp/a
before=$(events)
dd if=/dev/urandom of=/dev/mapper/a bs=64k count=16 oflag=direct status=none
dmsetup suspend m0
dmsetup load m0 --table "0 $n0 flakey $d0 0 0 1000 1 error_writes"
dmsetup resume m0
fails dd if=/dev/urandom of=/dev/mapper/a bs=64k count=16 seek=64 oflag=direct,sync conv=notrunc
fails dd if=/dev/zero of=/dev/mapper/a bs=4k count=1 oflag=direct conv=notrunc,fsync # nothing is acknowledged any more
sleep 2
has_failed
told "$before"
sha256sum </dev/mapper/ro | cmp - /tmp/ro # reading goes on
dmsetup remove --retry a
dmsetup remove --retry ro
dmsetup remove --retry pool
dmsetup suspend m0
dmsetup load m0 --table "0 $n0 linear $d0 0"
dmsetup resume m0

echo "== and comes back"
pool_up
status pool
dmsetup create -r ro --table "0 40960 vd-volume /dev/mapper/pool ro"
sha256sum </dev/mapper/ro | cmp - /tmp/ro
volume_up a 40960
fio_on a --rw=randwrite --bs=4k --size=8M
sums a ro
dmsetup remove --retry a
dmsetup remove --retry ro
dmsetup remove --retry pool
dmsetup remove --retry m0
dmesg | grep 'device-mapper: vd:'
unload
sound
