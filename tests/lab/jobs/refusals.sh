# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What is refused rather than half done; what a pool does that is not written any more.
# shellcheck disable=SC2086 # one word a disk
# Disks: of 96 MiB, of which the pool has 64; of 64 MiB.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 <<<"$DISKS"
status() { dmsetup status "$1"; }
mapped() { status "$1" | cut -d' ' -f4; }
m0() # TABLE
{
	dmsetup suspend m0
	dmsetup load m0 --table "$1"
	dmsetup resume m0
}

insmod "$VD_MODULE"
dmsetup create m0 --table "0 131072 linear $d0 0"
DISKS="/dev/mapper/m0 $d1"
pool_up

echo "== a second opening of the pool, also by another name of a member"
fails dmsetup create again --table "0 1024 vd-pool 2 $DISKS"
fails dmsetup create -r again --table "0 1024 vd-pool 2 $DISKS 1 read_only"
dmsetup create alias --table "0 131072 linear $d0 0"
fails dmsetup create again --table "0 1024 vd-pool 2 /dev/mapper/alias $d1"
dmsetup remove --retry alias
dmesg | grep -q 'Another device has this pool open'

echo "== tables that say what cannot be had"
fails dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS 1 read_only"
fails dmsetup reload -r pool --table "0 1024 vd-pool 2 $DISKS"
fails dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS 1 error_if_no_space read_only"
fails dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS 0 error_if_no_space"
dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS 0"
dmsetup clear pool

echo "== messages"
dmsetup message pool 65 list >/tmp/said # a list of none may not give back what was sent, a sector first
[ ! -s /tmp/said ]
message "create_thin a 32768"
fails dmsetup create a --table "0 $(((1 << 55) + 8)) vd-volume /dev/mapper/pool a"
fails message "set a"
fails message "set a attrs=x=1 readonly=1"
fails message "set a attrs=x=1 attrs=x=2"
fails message "set a readonly=2"
fails message "set a reserve=1"
fails message "lock a uuid=00112233445566778899aabbccddeeff"
fails message "lock a pid=1 pid=2"
fails message "pointer_add a ro attrs=x=1"
fails message "create b 32768 mount=/mnt"
fails message "create b 32768 readonly=2"
fails message "create b 32768 hostname=nobody"
message "show a" | grep -q ' mode rw pointers 0$'
[ "$(message "show a" | wc -l)" = 1 ]
[ "$(message list)" = "1 a" ]
message "create b 32768 readonly=1 locked=1 hostname=somebody" >/dev/null
message "show b" | grep -q '^locked by somebody '

# m0_in_pool TABLE: the same, and the pool looks at it again
m0_in_pool()
{
	m0 "$1"
	dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS"
	dmsetup suspend pool
	dmsetup resume pool
}
zeros_take_no_space()
{
	volume_up a 32768
	[ "$(queue a write_zeroes_max_bytes)" -gt 0 ]
	dd if=/dev/urandom of=/dev/mapper/a bs=1M count=8 oflag=direct,sync status=none
	[ "$(mapped a)" = 16384 ]
	blkdiscard -z -o 1536 -l 4M /dev/mapper/a
	[ "$(mapped a)" = $((16384 - 1023 * 8)) ]
	cmp -i 0:1536 -n 4M /dev/zero /dev/mapper/a
	fails cmp -n 1536 /dev/zero /dev/mapper/a
	dmsetup remove --retry a
}
echo "== zeros take no space"
zeros_take_no_space

echo "== nor where a member cannot write them by itself"
m0_in_pool "0 131072 flakey $d0 0 1000 0"
[ "$(queue m0 write_zeroes_max_bytes)" = 0 ]
zeros_take_no_space
m0_in_pool "0 131072 linear $d0 0"
dmsetup remove --retry pool

echo "== a pool that is read-only by itself takes its table again; one that is by its table stays so"
dmsetup create pool --table "0 1024 vd-pool 1 $d1"
status pool | grep ' ro '
dmsetup reload pool --table "0 1024 vd-pool 1 $d1"
dmsetup suspend pool
dmsetup resume pool
dmsetup remove --retry pool
dmsetup create -r pool --table "0 1024 vd-pool 2 $DISKS"
fails dmsetup reload pool --table "0 1024 vd-pool 2 $DISKS"
dmsetup remove --retry pool

echo "== a pool that has failed, and whose member has grown, is resumed and read"
pool_up
volume_up a 32768
m0 "0 131072 flakey $d0 0 0 1000 1 error_writes"
fails dd if=/dev/urandom of=/dev/mapper/a bs=4k count=16 oflag=direct conv=notrunc,fsync status=none
until_ok 10 has_failed
[ "$(status a)" = "0 32768 vd-volume Fail" ]
dmsetup table a | grep ' vd-volume [0-9:]* a$'
m0 "0 196608 linear $d0 0"
dmsetup suspend pool
dmsetup resume pool
sha256sum </dev/mapper/a >/dev/null
dmsetup remove --retry a
dmsetup remove --retry pool
pool_up
volume_up a 32768
status a | grep '^0 32768 vd-volume [0-9]* - name a$'
sums a
status pool | grep ' rw .*_if_no_space - '
dmsetup remove --retry a
dmsetup remove --retry pool

echo "== a pool of whose metadata no copy is left is read-only, and its status says so"
dmsetup remove --retry m0
DISKS="$d0 $d1"
for d in $DISKS; do
	kept=/tmp/$(basename "$d")
	dd if="$d" of="$kept" bs=1M iflag=direct conv=sparse status=none
	grep -obUa vNOD <"$kept" | awk -F: '$1 % 4096 == 0 {print $1 / 4096}' | while read -r at; do
		dd if=/dev/zero of="$d" bs=4096 count=1 seek="$at" oflag=direct status=none
	done
done
pool_up
status pool | grep ' ro .*_if_no_space needs_check '
dmsetup remove --retry pool
for d in $DISKS; do dd if="/tmp/$(basename "$d")" of="$d" bs=1M oflag=direct status=none; done
dmesg | grep 'device-mapper: vd:'
unload
sound
