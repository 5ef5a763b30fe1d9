# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Devices that are removed while they are open: when they are closed last, or by force.
# Disks: two of 64 MiB.
. /vd/tests/lab/jobs/common.sh
S=131072
gone() { ! dmsetup info "$1" >/dev/null 2>&1; }
deferred() { dmsetup info "$1" | grep -q 'DEFERRED REMOVE'; }

pool_up
message "create_thin a $S"
head -c 12M /dev/urandom >/tmp/a

echo "== a volume, when it is closed"
volume_up a $S
exec 9<>/dev/mapper/a
dd if=/tmp/a bs=1M count=4 status=none >&9
fails dmsetup remove a
dmsetup remove --deferred a
deferred a
dd if=/tmp/a bs=1M skip=4 count=4 status=none >&9 # in the page cache
fails message "delete a"
dmesg --clear # that refusal
exec 9>&-
until_ok 10 gone a
is_rw
volume_up a $S
cmp -n $((8 << 20)) /tmp/a /dev/mapper/a

echo "== the pool's device, when the last volume's has gone"
exec 9<>/dev/mapper/a
dmsetup remove --deferred pool
deferred pool
is_rw
message "create_snap s a" # it is what it was
volume_up s $S
dd if=/tmp/a bs=1M skip=8 seek=8 count=4 conv=notrunc status=none >&9
cmp -n $((8 << 20)) /tmp/a /dev/mapper/s
dmsetup remove --retry s
deferred pool
dmsetup remove --deferred a
deferred a
exec 9>&-
until_ok 10 gone a
until_ok 10 gone pool
pool_up
volume_up a $S
cmp -n $((12 << 20)) /tmp/a /dev/mapper/a
dmsetup remove --deferred a # nobody has them open
gone a
dmsetup remove --deferred pool
gone pool
[ -z "$(dmesg | grep device-mapper)" ] # closed in order, and nothing is left open

pool_up
volume_up a $S
sums a
all_down a
