# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the tests with several machines share.  A machine is a directory: its job (jobs/do.sh), its log, its process id;
# the variable of its name is lab.sh's process.  They are in the working directory, which is $T.

# shellcheck disable=SC2034 # who loads this has it
NQN=nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555

# boot MACHINE ADDRESS OPTION...: one with $KERNEL, and lab.sh's options, that does as it is told; also again
boot()
{
	rm -f "$1/end" "$1/pid"
	"$VD/tests/lab/lab.sh" -k "$KERNEL" -c 1 -m 1G -j "$T/$1" -p "$T/$1/pid" "${@:3}" "bash /vd/tests/lab/jobs/do.sh $2" >"$1/lab.log" 2>&1 3>&- &
	eval "$1=$!"
}
# machines_off MACHINE...: has no power any more; what it said last, if the test has failed
machines_off()
{
	local m
	for m; do
		[ -n "${BATS_TEST_COMPLETED:-}" ] || tail -n 20 "$T/$m"/{lab.log,console,agent.log} 2>/dev/null | sed 's/^/| /'
		[ ! -e "$T/$m/pid" ] || kill -KILL "$(cat "$T/$m/pid")" 2>/dev/null || true
	done
}
# cut MACHINE: its power
cut_off()
{
	kill -KILL "$(cat "$1/pid")"
	wait "${!1}" || true
}
# on MACHINE COMMAND [STATUS]: it succeeds there, or has that status, while the machine has time; $output
on()
{
	local dir=$1 n=1
	while [ -e "$dir/do.$n" ]; do n=$((n + 1)); done
	printf '%s\n' "$2" >"$dir/do.new"
	mv "$dir/do.new" "$dir/do.$n"
	until [ -e "$dir/rc.$n" ]; do
		kill -0 "${!dir}" || { echo "$dir is gone"; cat "$dir/lab.log" "$dir/said.$n"; return 1; }
		sleep 0.1
	done
	output=$(cat "$dir/said.$n")
	[ "$(cat "$dir/rc.$n")" = "${3:-0}" ] || { echo "$dir: $2: $(cat "$dir/rc.$n")"; echo "$output"; return 1; }
}
says() { local t; for t; do [[ $output == *"$t"* ]] || { echo "not said: $t"; echo "in: $output"; return 1; }; done; }
step() { echo "== $* ($SECONDS s)" | tee -a "$T/steps"; }

# installed MACHINE: has in its root what make install puts there
installed()
{
	local root=$T/$1/root
	make -C "$VD" -s install DESTDIR="$root" DM_RULES=56-dm-vd.rules >/dev/null
	rm "$root"/usr/lib/*/libvol.a
	strip "$root"/usr/sbin/* "$root"/usr/lib/*/nbdkit/plugins/*
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
}
