#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# The speed table: vd beside a raw file by nbdkit and qcow2 by qemu-nbd, each over a
# unix socket by fio's nbd engine, in turns, on one disk.  Then the engine alone.
#
#   RUNS=5 DIR=/var/tmp tests/bench/run.sh [raw vd qcow2 qcow2x]
#
# Each run and depth begins with new, sparse storage of 4 GiB:
#   first     random 4k writes into a hole of 1 GiB
#   flush     the same in another hole, a flush after each
#   read, over  random 4k in 256 MiB that were written in sequence before
#   snap      the same writes after a snapshot (raw has none: its figure is over's)
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
bin=$here/build
runs=${RUNS:-5} depths=${DEPTHS:-1 32} mib=${MIB:-128} flushes=${FLUSHES:-400}
[ $# -gt 0 ] || set -- raw vd qcow2 qcow2x
targets=$*
out=$bin/bench
mkdir -p "$out"
samples=$out/samples.tsv
: >"$samples"

stop() {
	if [ -s "$dir/pid" ]; then
		kill "$(cat "$dir/pid")" 2>/dev/null || true
		while kill -0 "$(cat "$dir/pid")" 2>/dev/null; do sleep 0.05; done
	fi
	rm -f "$dir/pid" "$sock"
}
cleanup() { stop; rm -rf "$dir"; }

dir=$(mktemp -d "${DIR:-/var/tmp}/vd-bench.XXXXXX")
sock=$dir/s
trap cleanup EXIT
export VD_CONFIG_DIR=$dir/etc VD_RUNTIME_DIR=$dir/run
mkdir -p "$VD_CONFIG_DIR" "$VD_RUNTIME_DIR"

serve() { # target
	case $1 in
	raw) nbdkit -U "$sock" -P "$dir/pid" file "$dir/raw" ;;
	vd) nbdkit -U "$sock" -P "$dir/pid" "$bin/nbdkit-vd-plugin.so" pool=bench ;;
	qcow2*) qemu-nbd -k "$sock" --pid-file="$dir/pid" --fork -t -e 4 -f qcow2 --cache=writeback "$dir/img.qcow2" ;;
	esac
	for _ in $(seq 100); do [ -S "$sock" ] && [ -s "$dir/pid" ] && return; sleep 0.05; done
	echo "run.sh: the server for $1 did not start" >&2
	exit 1
}
fresh() { # target
	rm -f "$dir"/raw "$dir"/img.qcow2 "$dir"/m0 "$VD_CONFIG_DIR"/devices
	case $1 in
	raw) truncate -s 4g "$dir/raw" ;;
	vd) "$bin/vdpool" create -q bench "$dir/m0" --size 16g && "$bin/vdcreate" -q -L 4g bench/v ;;
	qcow2) qemu-img create -q -f qcow2 "$dir/img.qcow2" 4g ;;
	qcow2x) qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k "$dir/img.qcow2" 4g ;;
	esac
	serve "$1"
}
snapshot() {
	case $1 in
	vd) "$bin/vdsnap" -q bench/v -n s ;;
	qcow2*) stop; qemu-img snapshot -c s "$dir/img.qcow2"; serve "$1" ;;
	esac
}
uri() { if [ "$1" = vd ]; then echo "nbd+unix:///v?socket=$sock"; else echo "nbd+unix:///?socket=$sock"; fi; }
job() { # target fio-options: operations a second
	local t=$1
	shift
	fio --name=x --ioengine=nbd --uri="$(uri "$t")" --randrepeat=1 --allrandrepeat=1 --output-format=terse --terse-version=3 "$@" 2>"$out/fio.err" |
		awk -F';' '/^3;/ { n = $8 + $49; print n; found = 1 } END { exit !found }' || { cat "$out/fio.err" >&2; exit 1; }
}
note() { printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "$4" >>"$samples"; }

one() { # target depth
	local t=$1 d=$2
	local -a r=(--bs=4k --iodepth="$d" --io_size="${mib}m")
	fresh "$t"
	note first "$d" "$t" "$(job "$t" --rw=randwrite --size=1g "${r[@]}")"
	sync -f "$dir"
	note flush "$d" "$t" "$(job "$t" --rw=randwrite --offset=1g --size=1g --bs=4k --iodepth="$d" --fsync=1 --io_size=$((flushes * 4))k)"
	job "$t" --rw=write --offset=2g --size=256m --bs=1m --iodepth=4 >/dev/null
	sync -f "$dir"
	note read "$d" "$t" "$(job "$t" --rw=randread --offset=2g --size=256m --bs=4k --iodepth="$d" --io_size=$((mib * 4))m)"
	note over "$d" "$t" "$(job "$t" --rw=randwrite --offset=2g --size=256m "${r[@]}")"
	sync -f "$dir"
	snapshot "$t"
	note snap "$d" "$t" "$(job "$t" --rw=randwrite --offset=2g --size=256m "${r[@]}")"
	stop
	sync -f "$dir"
}

for run in $(seq "$runs"); do
	for d in $depths; do
		for t in $targets; do
			printf '\rrun %s of %s, depth %s, %-8s' "$run" "$runs" "$d" "$t" >&2
			one "$t" "$d"
		done
	done
done
printf '\r%60s\r' '' >&2

# medians, and ratios of medians to raw
sort -t "$(printf '\t')" -k1,1 -k2,2n -k3,3 -k4,4n "$samples" | awk -F'\t' '
	function done_group() { if (n) { med[key] = n % 2 ? v[(n + 1) / 2] : (v[n / 2] + v[n / 2 + 1]) / 2; lo[key] = v[1]; hi[key] = v[n] } }
	{ k = $1 "\t" $2 "\t" $3; if (k != key) { done_group(); key = k; n = 0; if (!seen[$1 "\t" $2]++) rows[++nrows] = $1 "\t" $2; if (!seent[$3]++) t[++nt] = $3 } v[++n] = $4 }
	END { done_group()
		printf "%-8s %5s", "work", "depth"; for (i = 1; i <= nt; i++) printf " %24s", t[i] " (min-max)"; print "   vd/raw vd/qcow2 vd/qcow2x"
		for (j = 1; j <= nrows; j++) { split(rows[j], f, "\t"); printf "%-8s %5s", f[1], f[2]
			for (i = 1; i <= nt; i++) { k = rows[j] "\t" t[i]; printf " %9d (%6d-%6d)", med[k], lo[k], hi[k] }
			for (i = 1; i <= 3; i++) { o = i == 1 ? "raw" : i == 2 ? "qcow2" : "qcow2x"; d = med[rows[j] "\t" o]; printf "  %7s", d ? sprintf("%.2f", med[rows[j] "\tvd"] / d) : "-" }
			print "" } }' | tee "$out/table.txt"

if [ -z "${ONLY_NBD:-}" ]; then
	"$bin/tests/bench/bench_engine" "$dir" | tee "$out/engine.txt"
fi
