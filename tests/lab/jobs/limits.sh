# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The limits of a volume's queue: in a pool of 512-byte sectors, in one of 4096 on a member that
# takes nothing less, and in one with such a member and another that takes no write-zeroes.
# Disks: two of 64 MiB, the pool; one of 64 MiB that is blank.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 d2 <<<"$DISKS"
DISKS="$d0 $d1"
most=$(((1 << 32) - 4096)) # whole blocks that a bio can tell

# limits VOLUME SECTOR
limits()
{
	local key want is bad=0
	while read -r key want; do
		is=$(queue "$1" "$key")
		[ "$is" = "$want" ] || { echo "$1: $key is $is, not $want"; bad=1; }
	done <<-END
		logical_block_size $2
		physical_block_size 4096
		minimum_io_size 4096
		optimal_io_size 65536
		discard_granularity 4096
		discard_max_bytes $most
		write_zeroes_max_bytes $most
	END
	[ $bad = 0 ]
}
# refused CODE TEXT COMMAND...: it says that
refused()
{
	local code=$1 text=$2 said r=0
	shift 2
	said=$("$@" 2>&1) || r=$?
	[ $r = "$code" ] && grep -qF -- "$text" <<<"$said" || { echo "$* gave $r and said: $said"; return 1; }
}
# direct NAME BYTES: one write of so many, past the page cache
direct() { dd if=/dev/zero of="/dev/mapper/$1" bs="$2" count=1 oflag=direct conv=notrunc status=none; }

modprobe -q loop || [ -e /dev/loop-control ]
modprobe brd rd_nr=1 rd_size=16384
truncate -s 16M /tmp/small
four=$(losetup -b 4096 -f --show "$d2")
small=$(losetup -b 4096 -f --show /tmp/small)
[ "$(blockdev --getss "$four")" = 4096 ]

echo "== sectors of 512 bytes"
pool_up
message "create_thin a 16777216" # 8 GiB: more than one discard can tell
volume_up a 16777216
limits a 512
direct a 512
dd if=/dev/urandom of=/dev/mapper/a bs=1M count=4 oflag=direct,sync status=none
blkdiscard /dev/mapper/a
cmp -n $((4 << 20)) /dev/zero /dev/mapper/a
fio_on a --rw=randwrite --bsrange=512-64k --size=8M

echo "== a member that takes only 4096, or is too small, is refused there"
fails dmsetup reload pool --table "0 1024 vd-pool 3 $DISKS $small"
dmesg | grep -qF 'larger sectors than the pool'
truncate -s 4M /tmp/tiny
tiny=$(losetup -f --show /tmp/tiny)
fails dmsetup reload pool --table "0 1024 vd-pool 3 $DISKS $tiny"
dmesg | grep -qF 'has less than 8 MiB'
losetup -d "$tiny"
dmsetup suspend pool
dmsetup resume pool
[ "$(dmsetup table pool | awk '{ print $4 }')" = 2 ]
direct a 512
limits a 512
dmsetup remove --retry a
dmsetup remove --retry pool
mkdir -p /etc/vd
printf '%s\n' "$d0" "$d1" >/etc/vd/devices
vdpool activate -q pool
refused 2 "has sectors of 4096 bytes; pool pool has sectors of 512, and cannot take it" vdpool add -y pool "$small"
vdpool deactivate -q pool
refused 2 "has sectors of 4096 bytes; pool pool has sectors of 512, and cannot take it" vdpool add -y pool "$small"
refused 2 "takes only sectors of 4096 bytes" vdpool create -y --sector 512 no "$small"
cmp -n $((16 << 20)) /dev/zero "$small"

echo "== a pool of 512 that was copied to such a device: a volume has what the device takes"
moved=$(losetup -b 4096 -f --show "$d0")
dmsetup create pool --table "0 1024 vd-pool 2 $moved $d1"
volume_up a 16777216
limits a 4096
fio_on a --rw=randwrite --bs=4k --size=4M
fails direct a 512
dmsetup remove --retry a
dmsetup remove --retry pool
losetup -d "$moved"

echo "== a pool on such a member"
vdpool create -q -y four "$four"
[ "$(vdpool ls --noheadings -o sector four | tr -d ' ')" = 4096 ]
dmsetup create four --table "0 1024 vd-pool 1 $four"
dmsetup message four 0 "create_thin v 65536"
dmsetup create v --table "0 65536 vd-volume /dev/mapper/four v"
limits v 4096
[ "$(blockdev --getss /dev/mapper/v)" = 4096 ]
fails direct v 512
direct v 4096
fio_on v --rw=randwrite --bsrange=4k-64k --size=16M
blkdiscard -o 8192 -l 1M /dev/mapper/v
cmp -i 0:8192 -n 1M /dev/zero /dev/mapper/v
sha256sum </dev/mapper/v >/job/four.v
dmsetup remove --retry v
dmsetup remove --retry four

echo "== and on one with another that takes 512, and no write-zeroes"
vdpool create -q -y mixed "$small" /dev/ram0
dmsetup create mixed --table "0 1024 vd-pool 2 /dev/ram0 $small"
dmsetup message mixed 0 "create_thin w 16384"
dmsetup create w --table "0 16384 vd-volume /dev/mapper/mixed w"
limits w 4096
fio_on w --rw=randwrite --bs=4k --size=8M
blkdiscard -z -l 1M /dev/mapper/w
cmp -n $((1 << 20)) /dev/zero /dev/mapper/w
[ "$(dmsetup status w | cut -d' ' -f4)" = 14336 ]
blkdiscard /dev/mapper/w
[ "$(dmsetup status w | cut -d' ' -f4)" = 0 ]
dmsetup remove --retry w
dmsetup remove --retry mixed
vdpool check mixed

pool_up
volume_up a 16777216
head -c 16M /dev/mapper/a | sha256sum >/job/head.a
losetup -d "$small"
losetup -d "$four"
all_down a
