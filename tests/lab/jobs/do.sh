#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# do.sh ADDRESS: a guest with a network that does as it is told: /job/do.N is run, in order, its output is
# /job/said.N, and then its status /job/rc.N; until there is /job/end.
# shellcheck source=tests/lab/jobs/common.sh
. /vd/tests/lab/jobs/common.sh
set +e
udevadm wait --timeout=60 /sys/class/net/eth0 # its driver may come late
ip addr add "$1/24" dev eth0
ip link set lo up
ip link set eth0 up
[ -e /etc/systemd/system/lab.service ] || as_installed
[ ! -e /job/begin ] || . /job/begin
export -f sound quiet flawless at_work at_rest mark_all_but
n=1
while :; do
	while [ -e /job/rc.$n ]; do n=$((n + 1)); done
	until [ -e /job/do.$n ]; do
		[ ! -e /job/end ] || exit 0
		sleep 0.1
	done
	bash /job/do.$n >/job/said.$n 2>&1 </dev/null
	echo $? >/job/rc.new
	mv /job/rc.new /job/rc.$n
done
