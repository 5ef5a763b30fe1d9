# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A file system with a snapshot of it, compared file by file, and checked.  mkfs on a
# small volume takes blocks of 1 KiB: most writes are parts of a block.
. /vd/tests/lab/jobs/common.sh
S=524288
sum_tree() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

pool_up
volume_up old $(($(stat -c %s /job/old.img) / 512))
cmp /job/old.img /dev/mapper/old
message "create_thin new $S"
volume_up new $S
mkfs.ext4 -q /dev/mapper/new
mkdir -p /tmp/a /tmp/b
mount /dev/mapper/new /tmp/a
cp -r /usr/bin /tmp/a/bin
sync
dmsetup suspend new # freezes the file system
message "create_snap snap new"
dmsetup resume new
sum_tree /tmp/a >/tmp/before
rm -r /tmp/a/bin/[a-m]*
cp -r /usr/sbin /tmp/a/sbin
fstrim /tmp/a
volume_up snap $S
mount /dev/mapper/snap /tmp/b
sum_tree /tmp/b | cmp - /tmp/before
umount /tmp/a /tmp/b
fsck.ext4 -fn /dev/mapper/new
fsck.ext4 -fn /dev/mapper/snap
sums new snap
all_down old new snap
