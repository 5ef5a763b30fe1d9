# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A suite of tests/cmd where the kernel serves the pools (tests/cmd/kernel.bash), or what of all
# of them has the tag "kernel": cmd.sh SUITE | tagged.
. /vd/tests/lab/jobs/common.sh
modprobe -q loop || true # User-Mode Linux has it built in
modprobe -q fuse || true
cp /vd/udev-rules/11-dm-vd.rules /etc/udev/rules.d/56-dm-vd.rules
# The members' loop devices, and the tests' own devices, are nobody's to look at: that is slow.
cat >/etc/udev/rules.d/56-test.rules <<'EOF'
KERNEL=="loop*", ENV{UDEV_DISABLE_PERSISTENT_STORAGE_RULES_FLAG}="1", OPTIONS:="nowatch"
ENV{DM_NAME}=="vdt-*", ENV{DM_UDEV_DISABLE_DISK_RULES_FLAG}="1", ENV{DM_UDEV_DISABLE_OTHER_RULES_FLAG}="1", OPTIONS:="nowatch"
EOF
udevadm control --reload
insmod "$VD_MODULE"
export VD_TARGET=kernel
case $1 in
tagged) what=(--filter-tags kernel /vd/tests/cmd/*.bats) ;;
*) what=("/vd/tests/cmd/$1.bats") ;;
esac
rc=0
bats --tap --timing "${what[@]}" || rc=$?
sound || { echo "not ok 0 the kernel complained"; rc=1; }
exit $rc
