#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Lines "ROW TARGET NS-PER-BIO" in /job/samples, by the bio generator.
#
#   $ROWS $TARGETS   which of those below, all
#   $MIB             size of a volume
#   $TIMES           each so often, in turns; 1
#
# Every measurement has a volume of its own in a new pool: what one leaves to be done in the
# background is not in another's time.
. /vd/tests/bench/guest/targets.sh
bytes=$((mib << 20)) blocks=$((mib * 256)) chunks=$((mib * 16))

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

generate() { echo "/dev/mapper/t $1" >/sys/module/biogen/parameters/run; }

# measure ROW TARGET
measure() {
	local prep spec count ns failed
	row "$1"
	ready "$2" $prep
	generate "$spec"
	read -r ns failed </sys/module/biogen/parameters/run
	"$2_down"
	[ "$failed" = 0 ] || { echo "$1 on $2: $failed bios failed"; exit 1; }
	echo "$1 $2 $((ns / count))" >>/job/samples
}

insmod "$VD_BIOGEN"
disks_there
ready linear new
generate "write rand 4096 4096 $bytes 1 1000 0" # memory pools, and the like
linear_down

for r in ${ROWS:-read write first-1 first-32 first-dense seq-64k snap flush}; do
	for ((i = 0; i < ${TIMES:-1}; i++)); do
		for t in ${TARGETS:-linear thin thinskip snapshot vd}; do measure "$r" "$t"; done
	done
done
