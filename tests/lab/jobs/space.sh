# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A pool is full: writes wait for space, and go on when it comes, or fail when they have
# waited too long.  A pool is suspended, and its volumes with it.  What is freed goes down
# to the members as discards, or not.
# Disks: two of 64 MiB.
. /vd/tests/lab/jobs/common.sh
status() { dmsetup status pool; }
# table FEATURE...: the pool's table is loaded anew
table()
{
	dmsetup reload pool --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS $# $*"
	dmsetup suspend pool
	dmsetup resume pool
}
# What the members have been asked to do
member_io() { local d; for d in $DISKS; do cut -d' ' -f1-8 "$(sysfs "$d")/stat"; done; }
# Sectors that the members have been asked to discard
discarded() { local d; for d in $DISKS; do cat "$(sysfs "$d")/stat"; done | awk '{ n += $14 } END { print n }'; }
used() { status | cut -d' ' -f6 | cut -d/ -f1; }
below() { [ "$(used)" -lt "$1" ]; }
# freed: 4 MiB that a volume has to itself are discarded, and are free; sets $down, of how many sectors the members were told
freed()
{
	local was
	dd if=/dev/urandom of=/dev/mapper/trim bs=1M count=4 oflag=direct,sync status=none
	message checkpoint
	was=$(used) down=$(discarded)
	blkdiscard /dev/mapper/trim
	message checkpoint
	until_ok 20 below $((was - 768))
	down=$(($(discarded) - down))
	echo "$down sectors are discarded on the members"
}
passed_down() { freed; [ "$down" -ge 6144 ]; }
kept_here() { freed; [ "$down" = 0 ]; }
limit=/sys/module/dm_vd/parameters/no_space_timeout

pool_up
[ "$(cat $limit)" = 60 ]
table low_water 8192
dmsetup table pool | grep -q ' 2 low_water 8192$'
status | grep 'queue_if_no_space'

echo "== what is freed is discarded on the members, unless the table says no"
message "create_thin trim"
volume_up trim 8192
status | grep ' discard_passdown '
passed_down
table no_discard_passdown
dmsetup table pool | grep ' 1 no_discard_passdown$'
status | grep ' no_discard_passdown '
kept_here
table low_water 8192
status | grep ' discard_passdown '
passed_down
message "pool_set discards=nopassdown"
status | grep ' no_discard_passdown queue_if_no_space '
kept_here
fails message "pool_set discards=maybe"
message "pool_set discards=passdown"
passed_down

echo "== or that volumes take no discards"
table ignore_discard low_water 8192
dmsetup table pool | grep ' 3 ignore_discard low_water 8192$'
status | grep ' ignore_discard '
kept_here # its table is of before
dmsetup remove --retry trim
volume_up trim 8192
[ "$(queue trim discard_max_bytes)" = 0 ]
fails blkdiscard /dev/mapper/trim
table low_water 8192
dmsetup remove --retry trim
volume_up trim 8192
passed_down
for d in $DISKS; do echo 0 >"$(sysfs "$d")/queue/discard_max_bytes"; done # 6.12 does not take this back
status | grep ' no_discard_passdown '
kept_here
dmsetup remove --retry trim
message "delete trim"

for v in keep other big; do message "create_thin $v"; done
volume_up keep 8192
volume_up other 131072
volume_up big 262144
dd if=/dev/urandom of=/dev/mapper/other bs=1M count=28 oflag=direct status=none
dd if=/dev/urandom of=/dev/mapper/keep bs=1M count=4 oflag=direct status=none
sha256sum </dev/mapper/keep >/tmp/keep
sync
dd if=/dev/urandom of=/tmp/source bs=1M count=110 status=none

echo "== the low-water event"
before=$(events)
dd if=/tmp/source of=/dev/mapper/big bs=1M count=66 oflag=direct status=none
until_ok 5 told "$before"
dmesg | grep -q 'low-water mark'

echo "== writes wait in a full pool"
before=$(events)
dd if=/tmp/source of=/dev/mapper/big bs=1M seek=66 skip=66 oflag=direct status=none &
writer=$!
until_ok 20 some_wait
status | grep ' out_of_data_space .* queue_if_no_space '
until_ok 5 told "$before"
sha256sum </dev/mapper/keep | cmp - /tmp/keep
dd if=/dev/zero of=/dev/mapper/keep bs=4k count=1 oflag=direct,sync status=none # its own block
kill -0 $writer

echo "== and are given back when their volume is suspended without a flush"
dmsetup suspend --noflush big
[ "$(waiting)" = 0 ]
dmsetup resume big
until_ok 20 some_wait

echo "== the pool is suspended with its volumes"
dmsetup suspend pool
[ "$(waiting)" = 0 ]
fails message "delete keep"
fails dmsetup create again --table "0 8192 vd-volume /dev/mapper/pool keep"
dd if=/dev/zero of=/dev/mapper/keep bs=4k count=1 seek=1 oflag=direct,sync status=none &
other=$!
before=$(member_io)
sleep 3
[ "$(member_io)" = "$before" ]
kill -0 $other $writer
dmsetup resume pool
wait $other
until_ok 20 some_wait

echo "== until there is space again"
dmsetup remove --retry other
message "delete other"
wait $writer
cmp /tmp/source /dev/mapper/big -n $((110 << 20))
status
is_rw

echo "== suspended and resumed while it is written"
fio_on keep --rw=randrw --bs=4k --size=4M --loops=20 &
writer=$!
for _ in $(seq 8); do dmsetup suspend pool; dmsetup resume pool; done
for _ in $(seq 4); do dmsetup suspend keep; dmsetup suspend pool; dmsetup resume pool; dmsetup resume keep; done
wait $writer

echo "== those that wait too long fail, and those that come then at once"
message "create_thin more"
volume_up more 131072
echo 2 >$limit
fails dd if=/tmp/source of=/dev/mapper/more bs=1M count=64 oflag=direct status=none
status | grep ' out_of_data_space .* error_if_no_space '
before=$SECONDS
fails dd if=/dev/zero of=/dev/mapper/more bs=4k count=1 seek=16000 oflag=direct status=none
[ $((SECONDS - before)) -lt 2 ]
blkdiscard /dev/mapper/more
until_ok 10 is_rw
status | grep -q ' rw .* queue_if_no_space '
dd if=/tmp/source of=/dev/mapper/more bs=1M count=2 oflag=direct status=none

echo "== or all at once, when the table says so"
echo 0 >$limit
dd if=/tmp/source of=/dev/mapper/more bs=1M count=64 oflag=direct status=none 2>/tmp/said &
writer=$!
until_ok 20 some_wait
sleep 3
some_wait
table error_if_no_space
fails wait $writer
grep 'No space' /tmp/said
[ "$(waiting)" = 0 ]
echo 60 >$limit
blkdiscard /dev/mapper/more
until_ok 10 is_rw

echo "== the pool's device is taken away from its volumes"
sync
sums big
dmsetup remove --force pool || true
dmsetup info -c --noheadings -o name,suspended
fails dd if=/dev/zero of=/dev/mapper/keep bs=4k count=1 oflag=direct,sync status=none
dmsetup create anew --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS" # they have no hold on it any more
dmsetup remove --retry anew
for v in keep big more pool; do dmsetup remove --retry $v; done
pool_up
volume_up big 262144
sums big
dmesg | grep 'device-mapper: vd:'
dmsetup remove --retry big
dmsetup remove --retry pool
unload
sound
