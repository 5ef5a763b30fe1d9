#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# kernel.sh [KERNEL]...     the module beside dm-linear, dm-thin and dm-snapshot
#
# By the bio generator of kernel/, on RAM disks, in guests of the lab: 6.1 and 6.12 with a
# clock that counts instructions, uml at native speed.  All three without arguments.
#
#   BENCH_REPS=3           repetitions
#   ROWS= TARGETS= MIB=    for kernel-job.sh
#
# Samples are in build/bench/kernel-KERNEL.tsv.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../build/bench
lab=$here/../lab/lab.sh
reps=${BENCH_REPS:-3}
[ $# -gt 0 ] || set -- 6.1 6.12 uml
mkdir -p "$out"

# guest KERNEL MIB JOB [OPTION]...: adds to what $samples has
guest()
{
	local kernel=$1 mib=$2 name=$3
	shift 3
	"$lab" -k "$kernel" -m $((mib * 5 + 500))M -a "brd.rd_nr=2 brd.rd_size=$(((mib * 2 + 32) * 1024))" -t 3600 -j "$job" "$@" \
		"$(printf 'export ROWS=%q TARGETS=%q TIMES=%q MIB=%q; bash /vd/tests/bench/guest/%s.sh' \
			"${ROWS:-}" "${TARGETS:-}" "$times" "$mib" "$name")" >&2
	cat "$job/samples" >>"$samples"
	rm "$job/samples"
}

job=$(mktemp -d "$out/job.XXXXXX")
trap 'rm -rf "$job"' EXIT
for k; do
	samples=$out/kernel-$k.tsv
	: >"$samples"
	case $k in
	6.*)
		times=1
		for ((i = 1; i <= reps; i++)); do
			echo "$k: repetition $i of $reps" >&2
			guest "$k" "${MIB:-64}" bios -I -g
		done ;;
	uml) # native times are short, and the machine is not alone
		times=$((reps * 3)) guest uml "${MIB:-64}" bios -g ;;
	esac
	"$here/table.py" "$samples"
done
