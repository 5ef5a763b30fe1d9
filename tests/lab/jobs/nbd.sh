# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Links of a server by the kernel's nbd driver: the suite of links, or what of it has such names,
# $1.
. /vd/tests/lab/jobs/common.sh
modprobe nbd
modprobe -q loop || true
modprobe -q xfs || true
modprobe -q fuse || true
bats --tap --timing ${1:+-f "$1"} /vd/tests/cmd/link.bats
! dmesg | grep -E 'segfault|blocked for more than' # of a server that ends, of a device that nobody serves
