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

for k; do
	job=$(mktemp -d "$out/job.XXXXXX")
	trap 'rm -rf "$job"' EXIT
	: >"$out/kernel-$k.tsv"
	count=(-I)
	[ "$k" != uml ] || count=()
	for ((i = 1; i <= reps; i++)); do
		echo "$k: repetition $i of $reps" >&2
		"$lab" -k "$k" "${count[@]}" -g -m 1G -t 3600 -j "$job" \
			"$(printf 'ROWS=%q TARGETS=%q MIB=%q bash /vd/tests/bench/kernel-job.sh' "${ROWS:-}" "${TARGETS:-}" "${MIB:-}")" >&2
		cat "$job/samples" >>"$out/kernel-$k.tsv"
		rm "$job/samples"
	done
	rm -rf "$job"
	"$here/table.py" "$out/kernel-$k.tsv"
done
