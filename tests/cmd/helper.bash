# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the command tests share.  Each test has its own configuration, runtime
# directory and members below $T; after it, links are undone, servers ended and
# every pool it made is checked.  A test that damages a pool on purpose says
# `no_check`.
#
# What serves the pools is a userspace server, or with VD_TARGET=kernel the kernel: that
# is what kernel.bash changes here.  A test of what only a server has says `need_server`.

VD=$(cd "$BATS_TEST_DIRNAME/../.." && pwd)
export PATH=${VD_BUILD:-$VD/build}:$PATH LC_ALL=C
shopt -s nullglob

setup()
{
	# Bats notes the stack before each command, which in emulation takes more time than the tests do: where the
	# test's own commands are is enough to know.
	trap '[[ $BASH_SOURCE == "$BATS_TEST_DIRNAME"/* || $BASH_SOURCE == "$BATS_ROOT"/* ]] || bats_debug_trap "$BASH_SOURCE"' DEBUG
	T=$(mktemp -d /var/tmp/vdt.XXXXXX)
	export VD_CONFIG_DIR=$T/etc VD_RUNTIME_DIR=$T/run VD_DEV_DIR=$T/dev VD_LINK_TIMEOUT=20
	mkdir "$T/etc" "$T/run" "$T/mnt" "$T/mnt2"
	CHECK=1
	cd "$T" || return 1
}

teardown()
{
	local bad=0 m b f pid
	cd / || return 1
	for pid in $(jobs -p); do kill "$pid" 2>/dev/null; done
	wait 2>/dev/null
	umount_below "$T/mnt"
	for m in $(vdlink ls --noheadings -o path 2>/dev/null); do vdunlink -q "$m" >/dev/null 2>&1; done
	end_servers TERM
	for b in /sys/block/loop*/loop/backing_file; do
		{ read -r f <"$b"; } 2>/dev/null && [[ $f == "$T"/* ]] && losetup -d "/dev/$(basename "${b%/loop/backing_file}")"
	done
	umount_below "$T/run"
	end_servers KILL
	if [ "$CHECK" = 1 ]; then
		for pid in $(vdpool ls --noheadings -o name 2>/dev/null); do
			vdpool check "$pid" >"$T/check" 2>&1 || { echo "pool $pid after the test:"; cat "$T/check"; bad=1; }
		done
	fi
	[ -z "$BATS_TEST_COMPLETED" ] && tail -20 "$T"/run/*.log </dev/null
	rm -rf "$T"
	return $bad
}

no_check() { CHECK=0; }

# No processes are started for what the shell can do: they are slow in a guest.
umount_below()
{
	local m all=()
	while read -r _ _ _ _ m _; do [[ $m != "$1"* ]] || all=("$m" "${all[@]}"); done </proc/self/mountinfo
	for m in "${all[@]}"; do umount -l "$m"; done
}

servers()
{
	local p words
	for p in /proc/[0-9]*/cmdline; do
		{ mapfile -d '' -t words <"$p"; } 2>/dev/null && [[ ${words[*]} == nbdkit*"$T/"* ]] && p=${p#/proc/} && echo "${p%/cmdline}"
	done
	return 0
}
# Who serves
server_pids() { servers; }
server_pid() { server_pids | head -1; }
# What serves a link is gone, and the link is down.
break_link() { kill -9 "$(vdlink ls --noheadings -o pid | tr -d ' ')"; }

# end_servers SIGNAL: and waits until they are gone
end_servers()
{
	local p i
	for p in $(servers); do
		kill "-$1" "$p" 2>/dev/null
		for ((i = 0; i < 3000; i++)); do
			[ -d "/proc/$p" ] && [[ $(cut -d' ' -f3 "/proc/$p/stat" 2>/dev/null) != [ZX] ]] || break
			sleep 0.02
		done
	done
	at_rest
}
# Nobody has a pool open: where the kernel is the target, it neither; and it has it again.
at_rest() { :; }
at_work() { :; }
# What is put off is done before a test looks whether anything changes.
settle() { :; }

need() { local c; for c in "$@"; do command -v "$c" >/dev/null || skip "$c is not installed"; done; }
need_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
need_links() { need_root; [ -e /dev/fuse ] || [ -e /dev/nbd0 ] || skip "neither /dev/fuse nor nbd"
	[ -e /dev/loop-control ] || [ -e /dev/nbd0 ] || skip "no loop devices"; }

need_server() { :; } # WHY

# One process is one client (P3 of the server).  fio looks at an export before its jobs begin;
# of a job that is a process the server might hear before that connection has ended.
fio() { command fio --thread "$@"; }

# must STATUS COMMAND...: its output is in $output
must()
{
	local want=$1
	shift
	run "$@" </dev/null
	[ "$status" = "$want" ] || { echo "status $status, not $want: $*"; echo "$output"; return 1; }
}
ok() { must 0 "$@"; }
# refused COMMAND...: it fails, somehow
refused()
{
	run "$@" </dev/null
	[ "$status" != 0 ] || { echo "was not refused: $*"; echo "$output"; return 1; }
}
# says TEXT...: the last output contains each
says()
{
	local t
	for t in "$@"; do
		[[ $output == *"$t"* ]] || { echo "not said: $t"; echo "in: $output"; return 1; }
	done
}
says_not() { [[ $output != *"$1"* ]] || { echo "said: $1"; echo "in: $output"; return 1; }; }

# a pool p of N members (default 2) of SIZE (default 128m)
make_pool()
{
	local n=${1:-2} size=${2:-128m} i files=()
	for ((i = 0; i < n; i++)); do files+=("$T/m$i"); done
	ok vdpool create p -L "$size" "${files[@]}"
}
make_volume() { ok vdcreate p/"${1:-v}" -L "${2:-64m}"; }

# serve: the server of pool p; $S is its socket.  Tests whose clients die in the
# middle say THREADS=1: see nbdkit-vd-plugin(1), "nbdkit before 1.34".
serve()
{
	S=$T/run/s.nbd
	rm -f "$S" "$T"/run/*.ctl # a killed one's: what is there must be the new one's
	nbdkit -f --threads "${THREADS:-16}" -U "$S" "${VD_BUILD:-$VD/build}/nbdkit-vd-plugin.so" pool=p "$@" 2>"$T/run/serve.log" 3>&- &
	SERVER=$!
	local i
	for ((i = 0; i < 3000; i++)); do
		[ -e "$T/run/p.ctl" ] && [ -S "$S" ] && return 0
		kill -0 $SERVER 2>/dev/null || break
		sleep 0.02
	done
	cat "$T/run/serve.log"
	return 1
}
# Who serves is there still; or has ended, and not by a signal.
serves_on() { kill -0 $SERVER; }
ended_well() { wait $SERVER || [ $? -lt 128 ]; }
# opening_told TEXT: who serves has said that it is lost
opening_told() { grep "$1" run/serve.log; }
# io VOLUME QEMU-IO-COMMAND...
io()
{
	local v=$1 c args=()
	shift
	for c in "$@"; do args+=(-c "$c"); done
	run qemu-io -f raw "${args[@]}" "$(uri "$v")"
	[ "$status" = 0 ] && [[ $output != *rror* && $output != *ailed* ]] || { echo "$output"; return 1; }
}
uri() { echo "nbd+unix:///$1?socket=$S"; }
field() { vdls --noheadings --nosuffix --units b -o "$2" "$1" | tr -d ' '; }
# elsewhere COMMAND...: in the background, in a mount namespace of its own.  It has no part in the mounts of tests that run beside
# this one, which would stay while it runs.
elsewhere()
{
	# shellcheck disable=SC2016
	exec unshare -m --propagation private sh -c 'mounts=$(cat /proc/self/mounts) T=$1
		shift
		echo "$mounts" | while read -r _ dir _; do
			case $dir in "$T"/*) ;; /var/tmp/vdt.*|/srv/vd/*) umount -l "$dir" ;; esac
		done
		exec "$@"' sh "$T" "$@"
}
# a minute: what takes long on a slow machine is no fault
wait_for() { local i; for ((i = 0; i < 3000; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 0.02; done; echo "never: $*"; return 1; }
random() { head -c "$1" /dev/urandom; }

# shellcheck source=tests/cmd/kernel.bash
[ "${VD_TARGET:-server}" = server ] || . "$VD/tests/cmd/$VD_TARGET.bash"

# killed_at_each CALLS CHECK COMMAND...: the command is killed at its 1st, 2nd, … of each of these system calls;
# `before` comes before each, CHECK after it
before() { :; }
killed_at_each()
{
	local calls=$1 check=$2 call n kills=0
	shift 2
	need strace
	strace -o trace true 2>/dev/null || skip "strace cannot be used here"
	for call in $calls; do
		for ((n = 1;; n++)); do
			before
			run strace -qq -o trace -e trace="$call" -e inject="$call:signal=KILL:when=$n" "$@" </dev/null 3>&-
			[ "$status" != 0 ] || break
			[ "$status" = 137 ] || { echo "status $status with $call number $n:"; echo "$output"; return 1; }
			kills=$((kills + 1))
			$check >after 2>&1 || { echo "killed at $call number $n, and then:"; tail -3 trace; cat after; return 1; }
		done
		$check >after 2>&1 || { cat after; return 1; }
	done
	echo "$kills kills" >&3
	[ $kills -ge 10 ]
}
