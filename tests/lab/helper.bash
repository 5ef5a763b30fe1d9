# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the tests in the lab share: a pool on files, guests that have them for disks,
# and the userspace engine's word on what the guests left.

VD=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
export PATH=$VD/build:$PATH LC_ALL=C

setup()
{
	T=$(mktemp -d /var/tmp/vdl.XXXXXX)
	export VD_CONFIG_DIR=$T/etc VD_RUNTIME_DIR=$T/run
	mkdir "$T/etc" "$T/run" "$T/job"
	cd "$T" || return 1
}

teardown()
{
	cd / || return 1
	if [ -z "$BATS_TEST_COMPLETED" ]; then
		tail -n 30 "$T/job/out" "$T/job/console" 2>/dev/null | sed 's/^/| /'
		# The guest first: vdunlink would ask it.
		[ ! -e "$T/guest" ] || kill -KILL "$(cat "$T/guest")" 2>/dev/null || true
		vdlink ls --noheadings -o path 2>/dev/null | xargs -r vdunlink -q || true
	fi
	rm -rf "$T"
}

# pool_of N SIZE: members m0 …
pool_of()
{
	local i files=()
	for ((i = 0; i < $1; i++)); do files+=("$T/m$i"); done
	vdpool create -q -y -L "$2" pool "${files[@]}"
}

# guest KERNEL JOB [OPTION]...
guest()
{
	local kernel=$1 job=$2 m disks=()
	shift 2
	for m in "$T"/m?; do disks+=(-d "$m"); done
	"$VD/tests/lab/lab.sh" -b -k "$kernel" -j "$T/job" "${disks[@]}" "$@" "bash /vd/tests/lab/jobs/$job.sh"
}

# read_volume NAME: its contents, by the userspace engine
read_volume()
{
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool readonly=true \
		--run "nbdcopy \"nbd+unix:///$1?socket=\$unixsocket\" -" 3>&-
}

# The pool is clean, and reads as the guest's sums say.
same_here()
{
	local f
	vdpool check --takeover pool
	for f in "$T"/job/sum.*; do
		echo "volume ${f##*.sum.}"
		[ "$(read_volume "${f##*/sum.}" | sha256sum)" = "$(cat "$f")" ]
	done
}

# commands KERNEL [OPTION]...: a pool that the commands make in a guest, and its check here
commands()
{
	truncate -s 1G m0 m1
	guest "$1" commands -t 600 "${@:2}"
	vdpool check --takeover --device "$T/m0" --device "$T/m1" p-1
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=p-1 readonly=true device="$T/m0" device="$T/m1" \
		--run 'nbdcopy "nbd+unix:///web?socket=$unixsocket" -' 3>&- | sha256sum | cmp - job/sum.web
}

# Stops the machine PID, and waits until no thread of it is in a system call: what its disks
# have then is what they would have if it were killed.
stop_machine()
{
	kill -STOP "$1"
	while grep -h '^State' /proc/"$1"/task/*/status | grep -qv 'T (stopped)'; do sleep 0.01; done
}

# looked_at DIR {TAG SEED}...: the pool of DIR/m0 and m1 is clean, and its volumes are as what
# was told to DIR/told allows (load.c)
looked_at()
{
	local dir=$1 devices=(device="$1/m0" device="$1/m1") line
	shift
	mkdir -p "$dir/etc" "$dir/run"
	export VD_CONFIG_DIR=$dir/etc VD_RUNTIME_DIR=$dir/run
	vdpool check -q --takeover "${devices[@]/#/--}" pool || return 1
	vdls --noheadings -o name "${devices[@]/#/--}" pool | tr -d ' ' >"$dir/names" || return 1
	line=$(while [ $# -gt 0 ]; do echo "$VD/build/tests/lab/load check $1 $2 $dir/told \$unixsocket <$dir/names && "; shift 2; done)
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool readonly=true "${devices[@]}" --run "${line//$'\n'/ } true" 3>&-
}

# machine_at KERNEL JOB [OPTION]...: in the background, $machine and (later) `cat pid`
machine_at()
{
	rm -f pid
	"$VD/tests/lab/lab.sh" -b -k "$1" -j "$T/job" -p "$T/pid" "${@:3}" "bash /vd/tests/lab/jobs/$2.sh" >said 2>&1 3>&- &
	machine=$!
}

# until_told FILE LINES: the machine has come so far
until_told()
{
	while [ "$(wc -l 2>/dev/null <"$1" || echo 0)" -lt "$2" ]; do
		kill -0 "$machine" || { cat said; return 1; }
		sleep 0.2
	done
}

# points N FIRST {TAG SEED}...: N times at random moments, what a kill of the running machine
# would leave is put into at.FIRST … and looked at
points()
{
	local i pid n=$1 first=$2
	shift 2
	pid=$(cat pid)
	for ((i = first; i < first + n; i++)); do
		sleep "0.$((RANDOM % 900 + 100))"
		mkdir -p "at.$i/told"
		stop_machine "$pid" || { cat said; return 1; }
		cp --sparse=auto m0 m1 "at.$i"
		cp job/*.acked.* job/*.snapshots "at.$i/told"
		kill -CONT "$pid"
		[ $((i % 4)) != 3 ] || cp -r --sparse=auto "at.$i" "kept.$i" # as it was, for another kernel
		(looked_at "at.$i" "$@") || { echo "killed at point $i: at.$i, $*"; return 1; }
		rm -r "at.$i"
	done
}

# killed FIRST SECOND N: a machine with kernel FIRST is killed under load, N times in effect and
# once in deed; one with SECOND takes its pool over, and some of those other moments', and
# is treated likewise, but that it is stopped in order in the end
killed()
{
	local seed=$((RANDOM * 32768 + RANDOM)) i disks=()
	echo "seed $seed"
	pool_of 2 96M
	echo "a $seed" >job/load
	: >job/killed
	machine_at "$1" kill -t $((300 + 3 * $3)) -d "$T/m0" -d "$T/m1"
	until_told job/a.snapshots 8
	points "$3" 0 a "$seed"
	kill -KILL "$(cat pid)"
	wait "$machine" || true
	[ ! -e job/rc ]

	for i in kept.*; do
		[ "${#disks[@]}" -lt 12 ] || break
		disks+=(-d "$T/$i/m0" -d "$T/$i/m1")
		mv "$i/told" "job/${i##*.}"
		echo "a $seed ${i##*.}" >>job/killed
	done
	echo "a $seed ." >>job/killed
	echo "b $seed" >job/load
	machine_at "$2" kill -t $((300 + 3 * $3)) "${disks[@]}" -d "$T/m0" -d "$T/m1"
	until_told job/b.snapshots 8
	cat job/out
	points "$3" "$3" a "$seed" b "$seed"
	touch job/enough
	wait "$machine"
	for i in kept.*; do [ -d "$i/told" ] || (vdpool check -q --takeover --device "$i/m0" --device "$i/m1" pool); done
	mkdir at
	mv m0 m1 at
	mv job at/told
	(looked_at at a "$seed" b "$seed")
}

# corpus KERNEL EVERY WHOLE [OPTION]...: one in EVERY of the fuzzers' inputs that are images;
# WHOLE is corpus.c's
corpus()
{
	local target files
	export FZ_SAVE=$T/m0
	for target in super node journal; do
		mapfile -t files < <(printf '%s\n' "$VD/tests/fuzz/corpus/$target"/* | awk "NR % $2 == 0")
		"$VD/build/fuzz/fuzz_$target" "${files[@]}" >fuzz.log 2>&1 || { tail -20 fuzz.log; return 1; }
	done
	mv m0.answers job/answers
	echo "$3" >job/whole
	guest "$1" corpus "${@:4}"
	cat job/out
}
