#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# kernel.sh [PART]...       the module beside dm-linear, dm-thin, dm-snapshot and LVM, in the lab
#
#   6.1, 6.12     bios, by the generator of kernel/ on RAM disks; a clock that counts instructions
#   uml           the same at native speed
#   cpus-2 -4     one job and four by fio, with so many CPUs, emulated
#   link          a volume mounted on this host, beside LVM's tools and mount; instructions
#   commands      commands beside LVM's, pools: snapshots, opening, metadata; instructions
#
#   BENCH_REPS=3            repetitions
#   ROWS= TARGETS= MIB=     for guest/bios.sh and cpus.sh
#
# Samples are in build/bench/kernel-PART.tsv.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/../../build/bench
lab=$here/../lab/lab.sh
reps=${BENCH_REPS:-3}
[ $# -gt 0 ] || set -- 6.1 6.12 uml cpus-2 cpus-4 commands link pools
mkdir -p "$out"

# guest KERNEL MIB JOB [OPTION]...: RAM disks of three times that and 32 more; adds to the samples
guest()
{
	local kernel=$1 mib=$2 name=$3
	shift 3
	"$lab" -b -k "$kernel" -m $((mib * 7 + 500))M -a "brd.rd_nr=2 brd.rd_size=$(((mib * 3 + 32) * 1024))" -t 3600 -j "$job" "$@" \
		"$(printf 'export ROWS=%q TARGETS=%q TIMES=%q MIB=%q; bash /vd/tests/bench/guest/%s.sh' \
			"${ROWS:-}" "${TARGETS:-}" "$times" "$mib" "$name")" >&2
	cat "$job/samples" >>"$samples"
	rm "$job/samples"
}

job=$(mktemp -d "$out/job.XXXXXX")
trap 'rm -rf "$job"' EXIT
for part; do
	samples=$out/kernel-$part.tsv
	: >"$samples"
	echo "$part" >&2
	times=1
	case $part in
	6.*) for ((i = 1; i <= reps; i++)); do guest "$part" "${MIB:-64}" bios -I -g; done ;;
	# What takes real time, on a machine that is not alone, is done more often.
	uml) times=$((reps * 3)); guest uml "${MIB:-64}" bios -g ;;
	cpus-*) times=$((reps + 2)); guest 6.1 "${MIB:-32}" cpus -c "${part#cpus-}" ;;
	link) times=20; guest 6.1 512 link -I -m 2G ;;
	commands) times=$reps; guest 6.1 512 commands -I -m 2G ;;
	pools) for ((i = 1; i <= reps; i++)); do guest 6.1 2048 pools -I -g -m 4G; done ;;
	*) echo "kernel.sh: no such part: $part" >&2; exit 2 ;;
	esac
	"$here/table.py" "$samples"
done
