#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# dkms.sh install VERSION [KERNEL...]   `make dkms-install`: puts the module's source into
#                      /usr/src/dm-vd-VERSION, in the place of any other version, and has
#                      DKMS build and install it for these kernels, or for all that have
#                      headers.  For a kernel that comes later DKMS does so by itself.
# dkms.sh remove       `make dkms-remove`: all of that goes, whichever version it is
#
# With DESTDIR, for who makes a package: only the source, below that directory.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin
# The make that DKMS calls is not a part of ours.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL
src=${DESTDIR:-}/usr/src
die() { echo "dkms: $*" >&2; exit 1; }

registered() { [ -n "${DESTDIR:-}" ] || dkms status dm-vd 2>/dev/null | sed -n 's|^dm-vd/\([^,:]*\)[,:].*|\1|p'; }
in_src() { find "$src" -maxdepth 1 -name 'dm-vd-*' -printf '%f\n' 2>/dev/null | sed 's/^dm-vd-//'; }

remove()
{
	local version
	for version in $(registered | sort -u); do
		dkms remove "dm-vd/$version" --all >"$log" || { cat "$log" >&2; die "dm-vd $version cannot be removed"; }
		echo "dm-vd $version removed from all kernels"
	done
	for version in $(in_src); do rm -r "$src/dm-vd-$version"; done
}

lay_down()
{
	local dir=$src/dm-vd-$1
	mkdir -p "$dir/core"
	install -m 644 dm-target/Kbuild dm-target/*.[ch] "$dir"
	install -m 644 dm-target/core/*.[ch] "$dir/core"
	sed "s/@VERSION@/$1/" packaging/dkms.conf.in >"$dir/dkms.conf"
	echo "source of dm-vd $1 put into $dir"
}

# build VERSION KERNEL
build()
{
	local rc=0
	dkms install "dm-vd/$1" -k "$2" >"$log" 2>&1 || rc=$?
	case $rc in
	0) echo "dm-vd $1 built and installed for $2" ;;
	77) echo "dm-vd is not for $2: it wants Linux 6.1 or later, with device-mapper, not PREEMPT_RT" ;;
	*) cat "$log" >&2; die "dm-vd cannot be built and installed for $2" ;;
	esac
}

[ -n "${DESTDIR:-}" ] || {
	[ "$(id -u)" = 0 ] || die "only root can do that: sudo make dkms-${1:-install}"
	command -v dkms >/dev/null || die "there is no dkms: sudo apt-get install dkms"
}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
case ${1:-} in
install)
	version=$2 kernels=("${@:3}")
	[ -n "$version" ] || die "which version?"
	if [ ${#kernels[@]} = 0 ]; then
		for makefile in /lib/modules/*/build/Makefile; do
			[ ! -e "$makefile" ] || kernels+=("$(cut -d/ -f4 <<<"$makefile")")
		done
	fi
	remove
	lay_down "$version"
	[ -z "${DESTDIR:-}" ] || exit 0
	dkms add "dm-vd/$version" >"$log" 2>&1 || { cat "$log" >&2; die "DKMS does not take dm-vd $version"; }
	[ ${#kernels[@]} -gt 0 ] || echo "no kernel has headers here: install linux-headers-amd64, and DKMS builds it"
	for kernel in ${kernels[@]+"${kernels[@]}"}; do build "$version" "$kernel"; done ;;
remove) remove ;;
*) die "install or remove?" ;;
esac
