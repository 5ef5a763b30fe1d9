# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The targets of the benchmarks in a guest: all on one RAM disk, which has twice $MIB and 32
# more; a second one for what some keep elsewhere.
set -eu -o pipefail
mib=$MIB
sectors=$((mib * 2048)) below=$((mib * 3 + 32))
export VD_CONFIG_DIR=/tmp/etc VD_RUNTIME_DIR=/tmp/run DM_DISABLE_UDEV=1
mkdir -p "$VD_CONFIG_DIR" "$VD_RUNTIME_DIR"
udevadm control --exit # it would look at each device that is closed
rm -f /run/udev/control # libdevmapper looks there

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

# ready TARGET PREP: a volume that is new; full; or full, and a snapshot was just taken
ready()
{
	prep=$2
	"$1_up"
	[ "$prep" != new ] || return 0
	zero /dev/mapper/t "$mib"
	blockdev --flushbufs /dev/mapper/t
	! declare -F "$1_settle" >/dev/null || "$1_settle"
	[ "$prep" = full ] || "$1_snap"
}

for m in brd dm-thin-pool dm-snapshot dm-zero; do modprobe -q $m || true; done # User-Mode Linux has them
insmod "$VD_MODULE"

# A page of a RAM disk is allocated when it is written first, which is not to be measured.
disks_there() { zero /dev/ram0 $below; zero /dev/ram1 $below; }
