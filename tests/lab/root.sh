#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# root.sh [PACKAGE...]   makes build/lab/root.erofs, the read-only root of all guests:
#                        a small Debian with the tools that tests of block devices
#                        need.  As root, once: it takes some minutes and a mirror.
#
# Nothing of this project is in it: a guest sees the tree, and the kernels' modules,
# as they are on the host.
set -euo pipefail
umask 022
cd "$(dirname "$0")/../.."

packages=(
	systemd systemd-sysv udev kmod procps psmisc
	dmsetup lvm2 thin-provisioning-tools fdisk util-linux-extra e2fsprogs xfsprogs
	fio strace jq bats nbdkit libnbd-bin qemu-utils fuse3
	iproute2 nvme-cli libgnutls30 openssl
	make tcc libc6-dev stress-ng # a workload
	libdevmapper1.02.1 libudev1 libblkid1 libpopt0 libjson-c5 libuuid1 libnbd0 libisal2
	"$@"
)
[ "$(id -u)" = 0 ] || { echo "root.sh: must be run as root" >&2; exit 1; }
mkdir -p build/lab
tree=$(mktemp -d "$PWD/build/lab/root.XXXXXX")
trap 'rm -rf --one-file-system "$tree"' EXIT

args=(--variant=minbase --include="$(IFS=,; echo "${packages[*]}")")
for path in doc info locale man; do
	args+=(--dpkgopt="path-exclude=/usr/share/$path/*")
done
# Mount points; no daemon that looks at disks on its own.
# shellcheck disable=SC2016 # $1 is the hook's
args+=(--customize-hook='mkdir -p "$1/job" "$1/vd" "$1/lab" "$1/usr/lib/modules"
	chroot "$1" passwd -q -d root
	for u in apt-daily.timer apt-daily-upgrade.timer blk-availability.service dm-event.service dm-event.socket \
		e2scrub_all.timer fstrim.timer lvm2-lvmpolld.socket lvm2-monitor.service; do
		ln -sf /dev/null "$1/etc/systemd/system/$u"
	done')
mmdebstrap --quiet "${args[@]}" bookworm "$tree"
rm -f build/lab/root.new
mkfs.erofs --quiet build/lab/root.new "$tree"
mv build/lab/root.new build/lab/root.erofs
cp tests/lab/root.sh build/lab/root.made # of which it is
