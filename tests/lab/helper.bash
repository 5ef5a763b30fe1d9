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
