# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the fuzzers found (first disk; /job/answers has what the engine says to it in
# userspace) through the kernel's tables: the same answers, and no complaint.
. /vd/tests/lab/jobs/common.sh
insmod "$VD_MODULE"
udevadm control --stop-exec-queue # it would look at thousands of devices
/vd/build/tests/lab/corpus "$DISKS" "$(cat /job/whole)" </job/answers
udevadm control --start-exec-queue
for m in m0 m1 pool volume; do fails dmsetup info $m; done
unload
sound
