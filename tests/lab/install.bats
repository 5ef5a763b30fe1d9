# SPDX-License-Identifier: GPL-2.0-only
# How the module gets to where kernels find it: by DKMS, and by hand.  The places it goes to
# are copies, which end with the test; a guest has these for its own.
load helper

# in_copies COMMAND: there, in the tree; $KERNELS have headers
in_copies()
{
	[ "$(id -u)" = 0 ] || skip "mounts need root"
	unshare -m bash -eu -o pipefail -c '
		for d in /usr/src /lib/modules /var/lib/dkms; do
			d=$(readlink -m "$d")
			mkdir -p "$d" "$0/copies$d" "$0/work$d"
			mount -t overlay -o "lowerdir=$d,upperdir=$0/copies$d,workdir=$0/work$d" overlay "$d"
		done
		rm -rf /usr/src/dm-vd-* /var/lib/dkms/dm-vd /lib/modules/*/updates
		for k in /lib/modules/*; do depmod "${k##*/}"; done
		KERNELS=$(ls -d /lib/modules/*/build | cut -d/ -f4)
		cd "$1"; eval "$2"' "$T" "$VD" "$1" 3>&-
}

@test "DKMS builds the module for each kernel that has headers, which then finds it; and takes it away" {
	in_copies '
		make --no-print-directory dkms-install
		for k in $KERNELS; do
			echo "$k"
			[[ $(dkms status dm-vd -k "$k") = *": installed" ]]
			[[ $(modinfo -k "$k" -F vermagic dm-vd) = "$k "* ]]
			[ "$(modinfo -k "$k" -F version dm-vd)" = "$(dkms status dm-vd -k "$k" | sed "s|^dm-vd/\([^,]*\),.*|\1|")" ]
			modprobe -S "$k" --show-depends dm-vd | grep -F "/updates/dkms/dm-vd.ko"
		done
		for k in 6.1 6.12; do
			tests/lab/lab.sh -k $k "modprobe dm-vd && dmsetup targets" | grep vd-volume
		done
		make --no-print-directory dkms-remove
		[ -z "$(dkms status dm-vd)$(find /usr/src /var/lib/dkms /lib/modules -name dm-vd -o -name "dm-vd-*" -o -name "dm-vd.ko*")" ]
		for k in $KERNELS; do ! modinfo -k "$k" dm-vd 2>/dev/null || exit 1; done'
}

@test "DKMS installs the module for a kernel that comes later, and in the place of an older version" {
	in_copies '
		first=$(head -n 1 <<<"$KERNELS") last=$(tail -n 1 <<<"$KERNELS")
		make --no-print-directory dkms-install VERSION=0.0.1 DESTDIR=/
		dkms add dm-vd/0.0.1
		make --no-print-directory dkms-install KVERS="$first"
		dkms status dm-vd
		[ "$(dkms status dm-vd | wc -l)" = 1 ]
		! dkms status dm-vd | grep -F 0.0.1 || exit 1
		/etc/kernel/postinst.d/dkms "$last" # as its package does
		[[ $(dkms status dm-vd -k "$last") = *": installed" ]]
		modprobe -S "$last" --show-depends dm-vd | grep -F "/updates/dkms/dm-vd.ko"'
}

@test "for a package, dkms-install puts the source only, below DESTDIR" {
	make -C "$VD" --no-print-directory dkms-install DESTDIR="$T/dest"
	[ "$(ls "$T/dest/usr/src")" = "dm-vd-$("$VD/build/vdpool" --version | sed 's/.* //')" ]
	[ -z "$(diff -r "$VD/dm-target" "$T"/dest/usr/src/dm-vd-* | grep -v -e ': dkms.conf$' -e ': README.md$')" ]
	make -C "$VD" --no-print-directory dkms-remove DESTDIR="$T/dest"
	[ -z "$(ls "$T/dest/usr/src")" ]
}

@test "modules_install puts the module where its kernel finds it, or below DESTDIR" {
	in_copies '
		for k in $KERNELS; do
			make --no-print-directory modules KVER="$k"
			make --no-print-directory modules_install KVER="$k"
			modprobe -S "$k" --show-depends dm-vd | grep -E "/(updates|extra)/dm-vd.ko"
			make --no-print-directory modules_install KVER="$k" DESTDIR="$0/dest"
			find "$0/dest/lib/modules/$k" -name "dm-vd.ko*" | grep .
		done'
}

@test "where dm-vd is not installed, the demo loads what was built, and takes it out again" {
	"$VD/tests/lab/lab.sh" -b -k 6.12 -m 3G -j "$T/job" '
		cp /vd/udev-rules/*-dm-vd.rules /vd/udev-rules/59-vd.rules /etc/udev/rules.d/
		udevadm control --reload
		! modinfo dm-vd 2>/dev/null || exit 1
		modprobe loop # which systemd would do
		DEMO_SOURCE=/usr/share/bash-completion bash /vd/tests/demo.sh || exit
		[ ! -e /sys/module/dm_vd ]' >"$T/said" || { cat "$T/said"; return 1; }
	grep -F 'see who serves it: the kernel, as' "$T/said"
}
