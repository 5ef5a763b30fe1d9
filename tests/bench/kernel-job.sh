#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# kernel.sh's half in a guest: lines "ROW TARGET NS-PER-BIO" in /job/samples.
#
#   $ROWS $TARGETS   which of those below, all
#   $MIB             size of a volume, 64
#
# Every measurement has a volume of its own in a new pool, on one RAM disk that is all there
# beforehand: what one leaves to be done in the background is not in another's time.
set -eu -o pipefail
mib=${MIB:-64}
sectors=$((mib * 2048)) bytes=$((mib << 20)) below=$((mib * 2 + 32))
blocks=$((bytes / 4096)) chunks=$((bytes / 65536))
export VD_CONFIG_DIR=/tmp/etc VD_RUNTIME_DIR=/tmp/run DM_DISABLE_UDEV=1
mkdir -p "$VD_CONFIG_DIR" "$VD_RUNTIME_DIR"
udevadm control --exit # it would look at each device that is closed
rm -f /run/udev/control # libdevmapper looks there

# What of a row is the generator's, and what the volume is before: full, new, or full and
# just been snapshot.  A first write is the first one to its 64 KiB, but for first-dense.
row() {
	case $1 in
	read) prep=full spec="read rand 4096 4096 $bytes 1 $blocks 0" ;;
	write) prep=full spec="write rand 4096 4096 $bytes 1 $blocks 0" ;;
	first-1) prep=new spec="write rand 4096 65536 $bytes 1 $chunks 0" ;;
	first-32) prep=new spec="write rand 4096 65536 $bytes 32 $chunks 0" ;;
	first-dense) prep=new spec="write rand 4096 4096 $bytes 1 $blocks 0" ;;
	seq-64k) prep=new spec="write seq 65536 65536 $bytes 1 $chunks 0" ;;
	snap) prep=snap spec="write rand 4096 65536 $bytes 1 $chunks 0" ;;
	flush) prep=new spec="write rand 4096 65536 $bytes 1 $((chunks / 4)) 1" ;;
	*) echo "no such row: $1" >&2; exit 1 ;;
	esac
	count=$(cut -d ' ' -f 7 <<<"$spec")
}

table() { dmsetup create "$1" --table "$2"; }
message() { dmsetup message "$@"; }
zero() { dd if=/dev/zero of="$1" bs=1M count="$2" oflag=direct status=none; }

# Each target: the volume t; a snapshot of it; all of it gone.
linear_up() { table t "0 $sectors linear /dev/ram0 0"; }
linear_snap() { :; }
linear_down() { dmsetup remove --retry t; }

thin_up() {
	zero /dev/ram1 1
	table pool "0 $((below * 2048)) thin-pool /dev/ram1 /dev/ram0 128 0 $#${*:+ $*}"
	message pool 0 "create_thin 0"
	table t "0 $sectors thin /dev/mapper/pool 0"
}
thin_snap() { dmsetup suspend t; message pool 0 "create_snap 1 0"; dmsetup resume t; }
thin_down() { dmsetup remove --retry t; dmsetup remove --retry pool; }
thinskip_up() { thin_up skip_block_zeroing; }
thinskip_snap() { thin_snap; }
thinskip_down() { thin_down; }

# A thin volume by dm-snapshot is a snapshot of zeros; one with a snapshot, an origin.
snapshot_up() {
	if [ $prep = snap ]; then
		table t "0 $sectors snapshot-origin /dev/ram0"
	else
		zero /dev/ram0 1
		table zero "0 $sectors zero"
		table t "0 $sectors snapshot /dev/mapper/zero /dev/ram0 P 8"
	fi
}
snapshot_snap() {
	zero /dev/ram1 1
	dmsetup suspend t
	table s "0 $sectors snapshot /dev/ram0 /dev/ram1 P 8"
	dmsetup resume t
}
snapshot_down() {
	dmsetup remove --retry t
	for d in s zero; do ! dmsetup info $d >/dev/null 2>&1 || dmsetup remove --retry $d; done
}

vd_up() {
	vdpool create -q -y --force p /dev/ram0
	table pool "0 1024 vd-pool 1 /dev/ram0"
	message pool 0 "create_thin v $sectors"
	table t "0 $sectors vd-volume /dev/mapper/pool v"
}
vd_settle() { message pool 0 checkpoint; }
vd_snap() { message pool 0 "create_snap s v"; }
vd_down() { thin_down; rm -f "$VD_CONFIG_DIR"/*; }

generate() { echo "/dev/mapper/t $1" >/sys/module/biogen/parameters/run; }

# measure ROW TARGET
measure() {
	local prep spec count ns failed
	row "$1"
	"$2_up"
	if [ $prep != new ]; then
		zero /dev/mapper/t "$mib"
		blockdev --flushbufs /dev/mapper/t
		! declare -F "$2_settle" >/dev/null || "$2_settle"
		[ $prep = full ] || "$2_snap"
	fi
	generate "$spec"
	read -r ns failed </sys/module/biogen/parameters/run
	"$2_down"
	[ "$failed" = 0 ] || { echo "$1 on $2: $failed bios failed"; exit 1; }
	echo "$1 $2 $((ns / count))" >>/job/samples
}

if ! [ -e /dev/ram0 ]; then modprobe brd rd_nr=2 rd_size=$((below * 1024)); fi
for m in dm-thin-pool dm-snapshot dm-zero; do modprobe -q $m || true; done
insmod "$VD_MODULE"
insmod "$VD_BIOGEN"
zero /dev/ram0 $below
zero /dev/ram1 $below
prep=new linear_up
generate "write rand 4096 4096 $bytes 1 1000 0" # memory pools, and the like
linear_down

for r in ${ROWS:-read write first-1 first-32 first-dense seq-64k snap flush}; do
	for t in ${TARGETS:-linear thin thinskip snapshot vd}; do measure "$r" "$t"; done
done
