# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What an administrator does with a pool that the kernel has open, while its volumes are
# written: check, set, add, grow; and requests that do not wait.
# Disks: of 256 MiB, of which the pool has half; of 128 MiB; a third that is not in the pool.
. /vd/tests/lab/jobs/linked.sh
read -r d0 d1 d2 <<<"$DISKS"
d1=$(readlink -f "$d1") d2=$(readlink -f "$d2")
dev=vd-p--1-pool
status() { dmsetup status $dev; }
tell() { dmsetup message $dev 0 "$1"; }
held() { status | cut -d' ' -f7; }
no_pin() { status | grep -q 'pinned 0$'; }
some_wait() { ! status | grep -q 'waiting 0'; }
refuses() { status | grep -q error_if_no_space; }
m0() { dmsetup reload m0 --table "0 $1 linear $d0 0" && dmsetup suspend m0 && dmsetup resume m0; }

dmsetup create m0 --table "0 262144 linear $d0 0"
vdpool create -q p-1 /dev/mapper/m0 "$d1"
vdcreate -q -L 1G p-1/web
vdcreate -q -L 64M p-1/busy
vdlink -q p-1/web
vdlink -q p-1/busy
active kernel

step the module has the version of the rest, and a parameter for its memory
[ "$(cat /sys/module/dm_vd/version)" = "$(vdpool --version | sed 's/.* //')" ]
mib=/sys/module/dm_vd/parameters/cache_mib
[ "$(cat $mib)" = 128 ]
for n in 3 65537 x; do if echo $n >$mib; then exit 1; fi; done 2>/dev/null
[ "$(cat $mib)" = 128 ]
echo 4 >$mib

step requests that do not wait: first writes, in place, after a snapshot, in part of a block
# Where udev has read nothing: writes past pages that are cached do wait.
nowait() { fio_on p--1-busy --ioengine=pvsync2 --nowait=1 --rw=randwrite --offset=16M --size=2M "$@"; }
for n in 1 2; do
	nowait --bs=2k
	nowait --bs=4k
	fio_on p--1-busy --ioengine=io_uring --rw=randwrite --bs=2k --size=4M
	vdsnap -q -n then$n p-1/busy
done
vdrm -q -y p-1/then1 p-1/then2

step a check, of a pool that is written, and takes checkpoints all the time
rm -f /tmp/enough
(until [ -e /tmp/enough ]; do tell checkpoint; done) &
(until [ -e /tmp/enough ]; do fio_on p--1-busy --rw=randwrite --bs=4k --size=16M && blkdiscard -l 4M /dev/mapper/p--1-busy; done) &
for n in 1 2 3; do
	[ "$(vdpool check p-1)" = "pool p-1: no faults" ]
	vdpool check -q --quick p-1
done
touch /tmp/enough
wait
no_pin
vdpool check --reportformat json p-1 | jq -e '.report[0].fault == []'

step what is bad is found, and stays as it is
at=$(vdpool dump --reportformat json -o kind,copy p-1 | jq -r '[.report[0].node[] | select(.kind == "extents" and .copy != null)][0].copy')
[ $((at >> 40)) = 1 ]
dd if="$d1" of=/tmp/node bs=4k skip=$((at & ((1 << 40) - 1))) count=1 iflag=direct status=none
dd if=/dev/zero of="$d1" bs=4k seek=$((at & ((1 << 40) - 1))) count=1 oflag=direct conv=notrunc status=none
fails 7 "1 fault found" vdpool check p-1
[ "$(vdpool check --reportformat json p-1 | jq -r '.report[0].fault[] | .fault + " " + (.a | tostring)')" = "copy $at" ]
fails 7 "nothing was repaired" vdpool check -t --repair p-1
fails 4 "where a repair" vdpool check --repair p-1
dd if=/tmp/node of="$d1" bs=4k seek=$((at & ((1 << 40) - 1))) count=1 oflag=direct conv=notrunc status=none
vdpool check p-1

step its metadata is kept for who asked, and, beside that, for a check
tell reserve_metadata_snap
[ "$(held)" -gt 0 ]
if tell reserve_metadata_snap 2>/dev/null; then exit 1; fi
dmesg --clear
vdpool check -q p-1
[ "$(held)" -gt 0 ]
if tell unpin 2>/dev/null; then exit 1; fi
tell release_metadata_snap
[ "$(held)" = - ]
if tell release_metadata_snap 2>/dev/null; then exit 1; fi

step for a check until its process has ended, and that is all
tell pin # of dmsetup's, which has
until_ok 5 no_pin
catch_a_check()
{
	local i
	for i in 0.5 0.3 0.2 0.1 0.05 0.03 0.02 0.01 0.05 0.03 0.02 0.01; do
		vdpool check -q p-1 &
		check=$!
		while sleep "$i" && kill -STOP $check 2>/dev/null; do
			no_pin || return 0
			kill -CONT $check 2>/dev/null || break # it ended before it was stopped
		done
		wait $check
	done
	echo "no check was seen with a pin"
	return 1
}
catch_a_check
sleep 3
no_pin && exit 1
if tell unpin 2>/dev/null; then exit 1; fi # it is not ours
no_pin && exit 1
kill -KILL $check
until_ok 5 no_pin # and we have not waited for it
wait $check || true
dmesg --clear
vdpool check -q p-1
no_pin

step thresholds, growth of files: kept, and shown
vdpool set -q -t --thresholds 50,90.5 --policy error p-1
[ "$(shows 'thresholds | tostring')" = '[0,0,0,0]' ] && [ "$(shows policy)" = queue ]
vdpool set -q --thresholds 50,90.5 --grow-by 1M --grow-to 1G p-1
[ "$(shows 'thresholds | tostring')" = '[500,905,0,0]' ] && [ "$(shows grow_by)" = 1048576 ] && [ "$(shows grow_to)" = 1073741824 ]
for bad in "" policy=x thresholds=1001 thresholds=1,2,3,4,5 thresholds=1,,2 thresholds= grow_by=-1 "grow_by=1 grow_by=1" readonly=1; do
	if tell "pool_set $bad" 2>/dev/null; then echo "pool_set $bad should have failed"; exit 1; fi
done
[ "$(shows 'thresholds | tostring')" = '[500,905,0,0]' ] && [ "$(shows policy)" = queue ]

step several set it at a time: what each has set stays
for n in 1 2 3 4 5 6; do
	sets=
	for set in grow_by=$n grow_to=$((n + 100)) thresholds=$n,900 policy=queue; do
		tell "pool_set $set" &
		sets="$sets $!"
	done
	# shellcheck disable=SC2086 # one word a process
	wait $sets
	[ "$(shows 'thresholds[0]') $(shows grow_by) $(shows grow_to)" = "$n $((n << 12)) $(((n + 100) << 12))" ] || { echo "round $n"; exit 1; }
done
vdpool set -q --thresholds 50,90.5 p-1

step a full pool: whether writes wait is changed while they do
head -c 300M /dev/urandom >/tmp/source
echo 0 >/sys/module/dm_vd/parameters/no_space_timeout # a busy machine is slow
put() { dd if=/tmp/source of=/dev/mapper/p--1-web bs=1M oflag=direct conv=notrunc status=none "$@"; }
put & writer=$!
until_ok 60 some_wait
vdpool set -q --policy error p-1
if wait $writer; then exit 1; fi
until_ok 5 refuses
if put seek=200 skip=200 2>/dev/null; then exit 1; fi
vdpool set -q --policy queue p-1
until_ok 5 eval '! refuses'
put seek=200 skip=200 & writer=$!
until_ok 60 some_wait
refuses && exit 1

step a table that was loaded by who was killed then is taken away by who comes next
dmsetup load $dev --table "$(dmsetup table $dev | sed -E "s/vd-pool 2 ([0-9:]+ [0-9:]+)/vd-pool 3 \\1 $(lsblk -dno MAJ:MIN "$d2" | xargs)/")"
dmsetup info $dev | grep -F 'LIVE & INACTIVE'
fails 4 "$d2" vdpool add -t p-1 "$d2"
vdls p-1 >/dev/null
dmsetup info $dev | grep -F 'LIVE & INACTIVE'
vdpool set -q --policy queue p-1
if dmsetup info $dev | grep -F INACTIVE; then exit 1; fi

step a member is added: what is on it is not lost unasked
mkfs.ext4 -q "$d2"
fails 6 "which would be lost" vdpool add p-1 "$d2"
vdpool add -t --force p-1 "$d2" | grep -F "would be added"
fails 4 "where adding a file" vdpool add -L 64M p-1 /tmp/file
[ ! -e /tmp/file ]
[ "$(shows 'members | length')" = 2 ]
some_wait
vdpool add --force p-1 "$d2" | grep -F "$d2 of 128.00m added to pool p-1"
shows 'members[2].path'
[ "$(readlink -f "$(shows 'members[2].path')")" = "$d2" ]
wait $writer || { echo "the writer failed"; exit 1; }
cmp -n $((300 << 20)) /tmp/source /dev/mapper/p--1-web
fails 5 "is a member" vdpool add p-1 "$d2"
udevadm settle

step a member grows, when it is told to
[ "$(vdpool grow p-1)" = "pool p-1: nothing is larger than it was" ]
fio_on p--1-busy --rw=randwrite --bs=4k --size=8M &
writer=$!
m0 524288
[ "$(vdpool grow -t p-1)" = "pool p-1: /dev/mapper/m0 would grow from 128.00m to 256.00m" ]
[ "$(vdpool grow p-1 1)" = "pool p-1: nothing is larger than it was" ]
[ "$(shows size)" = $((384 << 20)) ]
[ "$(vdpool grow p-1 0)" = "pool p-1: /dev/mapper/m0 grown from 128.00m to 256.00m" ]
[ "$(shows size)" = $((512 << 20)) ]
wait $writer
if tell "grow 3" 2>/dev/null; then exit 1; fi
dmesg --clear
vdpool check p-1
cmp -n $((300 << 20)) /tmp/source /dev/mapper/p--1-web

step and all of it is there the next time
sha256sum </dev/mapper/p--1-busy >/tmp/busy
vdunlink -q p-1/web p-1/busy
active no
vdpool check p-1
vdlink -q p-1/web
vdlink -q p-1/busy
active kernel
[ "$(shows 'members | length')" = 3 ]
sha256sum </dev/mapper/p--1-busy | cmp - /tmp/busy
cmp -n $((300 << 20)) /tmp/source /dev/mapper/p--1-web
vdunlink -q p-1/web p-1/busy
dmsetup remove --retry m0
rmmod dm-vd
sound
