# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# shellcheck disable=SC2154 # samples, TIMES: who reads this sets them
# Samples, one in a line: ROW PROGRAM MICROSECONDS, in the file $samples.

# timed ROW PROGRAM COMMAND...: and nothing of it is left to be done when the next begins
timed()
{
	local row=$1 program=$2 begun=${EPOCHREALTIME/./}
	shift 2
	"$@"
	echo "$row $program $((${EPOCHREALTIME/./} - begun))" >>"$samples"
	settle
}
settle() { udevadm settle; }

# The tree is read through the host each time; what is timed is not.
from_memory()
{
	mkdir /tmp/bin
	cp /vd/build/vd* /tmp/bin
	PATH=/tmp/bin:$PATH
}
lvm() { command lvm "$@" --config 'activation { monitoring = 0 }' >/dev/null; }

# The time between each two lines of `vdlink ARGUMENT...` that say that a step is done
steps()
{
	local was=${EPOCHREALTIME/./} line
	vdlink -v "$@" 2>&1 >/dev/null | while read -r line; do
		[[ $line == *": done"* ]] || continue
		echo "step-${line%%:*} vd $((${EPOCHREALTIME/./} - was))"
		was=${EPOCHREALTIME/./}
	done >>"$samples"
	vdunlink -q p/v
	settle
}
# links PROGRAM LINK UNLINK ARGUMENT...: `vdlink ARGUMENT...`, and so by another; $TIMES of each, in turns
links()
{
	local i program=$1 link=$2 unlink=$3
	shift 3
	: >"$samples"
	for ((i = 0; i < TIMES; i++)); do
		timed link vd vdlink -q "$@"
		timed unlink vd vdunlink -q p/v
		timed link "$program" "$link"
		timed unlink "$program" "$unlink"
		steps "$@"
	done
}
