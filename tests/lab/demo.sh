#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# demo.sh [KERNEL]   the demo (tests/demo.sh) in a virtual machine with a real kernel, which
#                    serves the pool: `sudo make demo-lab`.  KERNEL is lab.sh's -k.
#
# The machine is killed in the middle of writes, booted again, and looked at.  What only it
# had in memory is gone then; what it had written to its disks, flushed or not, is not.
# (kernel.bats has a test that takes away what was not flushed, too.)  Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/../.."
kernel=${1:-6.1}
lab=

clean_up()
{
	trap '' INT TERM
	# Who started the machine is there: so the machine is, and no other process has its number.
	if [ -n "$lab" ] && kill -0 "$lab" 2>/dev/null; then
		[ ! -s "$W/pid" ] || kill -KILL "$(cat "$W/pid")" 2>/dev/null || true
		wait "$lab" || true
	fi
	rm -rf "$W"
}

W=$(mktemp -d /var/tmp/vd-demo-lab.XXXXXX)
trap clean_up EXIT
trap 'echo "demo: interrupted" >&2; exit 130' INT TERM
flushed=$W/job/kept/flushed
mkdir "$W/job"

seconds() { awk "BEGIN{printf \"%7.3f s\", $(date +%s.%N)-$1}"; }
fail() { cat "$W/said" >&2; echo "demo: FAILED: $*" >&2; exit 1; }

# boot PART: in the background
boot()
{
	rm -f "$W/pid"
	tests/lab/lab.sh -b -k "$kernel" -t 900 -j "$W/job" -p "$W/pid" -d "$W/disk0:1G" -d "$W/disk1:1G" \
		"bash /vd/tests/lab/jobs/demo.sh $1" 2>"$W/said" &
	lab=$!
}
count() { if [ -e "$flushed" ]; then wc -l <"$flushed"; else echo 0; fi; }

started=$(date +%s.%N)
[ -e build/lab/root.erofs ] || { echo "making the guests' root image first; it takes some minutes, once"; tests/lab/root.sh; }
boot before
while [ "$(count)" = 0 ]; do
	kill -0 $lab 2>/dev/null || fail "the first boot"
	sleep 0.1
done
t=$(date +%s.%N) enough=$((40 + RANDOM % 40))
while [ "$(count)" -lt $enough ]; do
	kill -0 $lab 2>/dev/null || fail "writing files until the machine is killed"
	sleep 0.02
done
kill -KILL "$(cat "$W/pid")"
wait $lab || true
[ ! -e "$W/job/rc" ] || fail "the machine ended before it was killed"
printf '%s  kill the machine while files are written and flushed: %s flushed\n' "$(seconds "$t")" "$(count)"
boot after
wait $lab || fail "after the next boot"
printf '%s  in all; nothing is left behind\n' "$(seconds "$started")"
