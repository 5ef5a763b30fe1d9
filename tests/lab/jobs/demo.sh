# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# demo.sh before|after   a part of the demo (tests/demo.sh), for tests/lab/demo.sh.  The
# machine is the same after its next boot: its id is kept, with what else must be.
. /vd/tests/lab/jobs/common.sh
up() { printf '%7.3f s  boot %s: %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$(uname -sr)" "$1"; }

as_installed
mkdir -p /job/kept
if [ "$1" = before ]; then
	up "Debian's kernel, two empty disks, and vd installed"
	cp /etc/machine-id /job/kept/
else
	up "the same machine and disks again"
	cp /job/kept/machine-id /etc/
fi
export DEMO_DISKS=$DISKS DEMO_KEEP=/job/kept DEMO_SOURCE=/usr/share DEMO_CAP_MB=50
bash /vd/tests/demo.sh "$1"
nothing_left
echo "           dm-vd is unloaded, and the kernel has complained of nothing"
