# SPDX-License-Identifier: GPL-2.0-only
# Machines with systemd that are booted, and shut down: what make install puts there finds
# pools, activates them, makes their links again, and closes them.
load helper

# boot KERNEL WHICH DISK...: one more boot of the machine, until it has switched itself off
boot()
{
	local kernel=$1 which=$2 m disks=()
	shift 2
	for m; do disks+=(-d "$T/$m"); done
	"$VD/tests/lab/lab.sh" -b -i systemd -t 900 -k "$kernel" -j "$T/job" "${disks[@]}" "bash /vd/tests/lab/jobs/boot.sh $which"
	grep -aF "Power down" job/console
}

# closed: in order, all of it
closed()
{
	local d=(--device "$T/m0" --device "$T/m1")
	[ "$(vdpool show "${d[@]}" --reportformat json p-1 | jq '.report[0].pool[0].last_owner.in_use')" = false ]
	vdpool check "${d[@]}" p-1
}

# What the machine has of ours, and two disks
machine()
{
	local root=$T/job/root
	make -C "$VD" -s install DESTDIR="$root" DM_RULES=56-dm-vd.rules >/dev/null
	rm "$root"/usr/lib/*/libvol.a
	strip "$root"/usr/sbin/* "$root"/usr/lib/*/nbdkit/plugins/*
	mkdir -p "$root"/etc/modprobe.d "$root"/srv/{web,plain}
	tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
	# shellcheck disable=SC2016 # the guest's
	echo 'install dm-vd insmod /vd/build/modules/$(uname -r)/dm-vd.ko' >"$root/etc/modprobe.d/vd.conf"
	truncate -s 512M m0 m1
}

boots()
{
	local root=$T/job/root
	machine
	boot "$1" first m0 m1
	closed
	boot "$1" second m0 m1
	closed
	mv "$root/etc/fstab" fstab
	boot "$1" half m1
	# A server has it, if anybody, after the local file systems
	sed 's/defaults/nofail/' fstab >"$root/etc/fstab"
	echo 'install dm-vd /bin/false' >"$root/etc/modprobe.d/vd.conf"
	boot "$1" without m0 m1
	closed
}

@test "6.1: pools are activated by their last member, links come back at boot, and all is closed at shutdown" {
	boots 6.1
}

@test "6.12: pools are activated by their last member, links come back at boot, and all is closed at shutdown" {
	boots 6.12
}

# vdlink's mounts, and what the next boot makes of them
presents()
{
	machine
	boot "$1" present m0 m1
	closed
	boot "$1" presented m0 m1
	closed
}

@test "6.1: systemd mounts what is linked, at once or when it is used, and ends it" {
	presents 6.1
}

@test "6.12: systemd mounts what is linked, at once or when it is used, and ends it" {
	presents 6.12
}
