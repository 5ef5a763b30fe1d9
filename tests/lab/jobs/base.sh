# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Volumes on base images: "short" is longer than its image, which ends within a block; "long"
# is shorter than its own; "plain" has none.  What they read as is in /job/before.*, by the
# userspace engine.  A file, the model, has the same done to it as the volume "short".
# Disks: two of 64 MiB.
. /vd/tests/lab/jobs/common.sh
S=16384 L=8192
modprobe -q loop || [ -e /dev/loop-control ]
END=$(((5 << 20) + 1536)) # of the short image
cp /job/short /job/long /tmp # a loop device would rather not be on the share
head -c 64K /dev/urandom >/tmp/noise
short=$(losetup -r -f --show /tmp/short)
long=$(losetup -r -f --show /tmp/long)
wide=$(losetup -r -b 4096 -f --show /tmp/short)

# up NAME SECTORS [FEATURES]
up() { dmsetup create "$1" --table "0 $2 vd-volume /dev/mapper/pool $1${3:+ $3}"; }
# says TEXT NAME SECTORS [FEATURES]: refused, with that text
says()
{
	fails up "${@:2}"
	dmesg | tail -n 3 | grep -qF "$1" || { dmesg | tail -n 3; echo "not said: $1"; return 1; }
}
# put BYTES OFFSET: written to "short", past the page cache, and to the model
put()
{
	dd if=/tmp/noise of=/dev/mapper/short bs="$1" count=1 seek="$2" oflag=direct,seek_bytes conv=notrunc status=none
	dd if=/tmp/noise of=/tmp/model bs="$1" count=1 seek="$2" oflag=seek_bytes conv=notrunc status=none
}
# zeros OFFSET BYTES: of the model
zeros() { dd if=/dev/zero of=/tmp/model bs="$2" count=1 seek="$1" oflag=seek_bytes conv=notrunc status=none; }
# reads NAME FILE: the same contents, in requests that begin and end anywhere
reads()
{
	local bs
	for bs in 1M 3584; do
		dd if="/dev/mapper/$1" bs=$bs iflag=direct status=none | cmp - "$2" || { echo "$1, by $bs"; return 1; }
	done
	[ "$1" != long ] || return 0
	dd if="/dev/mapper/$1" bs=512 skip=$((END - 8192)) count=32 iflag=direct,skip_bytes status=none |
		cmp -n 16384 - "$2" -i "0:$((END - 8192))"
}

pool_up
echo "== tables that are refused"
says "feature 'base', with its device, is missing" short $S
says "feature 'base' is one too many" plain $L "2 base $long"
says "Invalid feature argument" short $S "1 base"
says "Invalid feature argument" short $S "2 basis $short"
says "Invalid number of feature" short $S "3 base $short x"
says "More feature arguments" short $S "2 base $short x"
says "cannot be opened" short $S "2 base /dev/nowhere"
says "larger sectors than the pool" short $S "2 base $wide"
up plain $L
says "a volume of the same pool" short $S "2 base /dev/mapper/plain"
dmsetup create short --notable
fails dmsetup load short --table "0 $S vd-volume /dev/mapper/pool short 2 base /dev/mapper/short"
dmsetup remove --retry short
dmsetup remove --retry plain
losetup -d "$wide"

echo "== they read as in userspace"
up short $S "2 base $short"
up long $L "2 base $long"
dmsetup table short | grep -x "0 $S vd-volume [0-9:]* short 2 base $(printf '%d:%d' 0x"$(stat -c %t "$short")" 0x"$(stat -c %T "$short")")"
for v in short long; do sha256sum <"/dev/mapper/$v" | cmp - "/job/before.$v"; done
cp /tmp/short /tmp/model
truncate -s $((S * 512)) /tmp/model
reads short /tmp/model
head -c $((L * 512)) /tmp/long >/tmp/want
reads long /tmp/want
[ "$(dmsetup status short | cut -d' ' -f4)" = 0 ]
message "create_snap first short"

echo "== parts of blocks are completed from the image"
put 512 512                         # within a block
put 1536 $((20 * 4096 - 512))       # the end of one, the begin of the next
put 20480 $((30 * 4096 + 512))      # and whole ones in between
put 512 $((END + 512))              # the image ends before
put 512 $((END + 8192))             # behind it
put 4096 $((50 * 4096))
reads short /tmp/model
cp /tmp/model /tmp/was
message "create_snap second short"
put 512 $((60 * 4096))
put 512 1024                        # copied: it is shared with the snapshot
reads short /tmp/model
up second $S "2 base $short"
reads second /tmp/was

echo "== the image ends within the part that is completed"
up first $S "2 base $short"
cp /tmp/short /tmp/want
truncate -s $((S * 512)) /tmp/want
reads first /tmp/want
dd if=/tmp/noise of=/dev/mapper/first bs=512 count=1 seek=$((END - 1024)) oflag=direct,seek_bytes status=none
dd if=/tmp/noise of=/tmp/want bs=512 count=1 seek=$((END - 1024)) oflag=seek_bytes conv=notrunc status=none
reads first /tmp/want

echo "== what is discarded, or zeroed, reads as zeros, and not as the image"
blkdiscard -o 1M -l 64K /dev/mapper/short
zeros 1M 64K
put 512 $(((1 << 20) + 4096 + 512))
blkdiscard -z -o $(((2 << 20) + 1536)) -l 1M /dev/mapper/short
zeros $(((2 << 20) + 1536)) 1M
blkdiscard -z -o $(((4 << 20) + 512)) -l 512 /dev/mapper/short
zeros $(((4 << 20) + 512)) 512
reads short /tmp/model
reads second /tmp/was

echo "== all the same when it is opened anew, and has grown"
message checkpoint
for v in first second short long; do dmsetup remove --retry $v; done
dmsetup remove --retry pool
pool_up
up short $S "2 base $short"
reads short /tmp/model
dmsetup reload short --table "0 $((2 * S)) vd-volume /dev/mapper/pool short 2 base $short"
dmsetup suspend short
dmsetup resume short
truncate -s $((S * 1024)) /tmp/model
reads short /tmp/model
up first $S "2 base $short"
reads first /tmp/want
up second $S "2 base $short"
reads second /tmp/was

echo "== many at once, while the pool is suspended and the image waits"
up long $L "2 base $long"
fio_on long --rw=randrw --bsrange=512-16k --size=4M --io_size=4M --loops=2 &
p=$!
for n in 1 2 3; do
	message "create_snap l$n long"
	dmsetup suspend pool
	dmsetup resume pool
done
wait $p

echo "== a volume is made on an image by a message"
fails message "create late $L base=short"
dmesg --clear # that refusal
message "create late $L base=/tmp/lo\\ ng" >/dev/null
message "show late" | grep -x 'base /tmp/lo ng'
up late $L "2 base $long"
cmp -n $((L * 512)) /tmp/long /dev/mapper/late
dmsetup remove --retry late
message "delete late"
sums short first second long
all_down short first second long
losetup -d "$short"
losetup -d "$long"
