# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What the jobs in a guest share.  The pool's members are all disks of the guest.
set -eu -o pipefail

# What make install and modules_install put into a system: udev's rules, where Debian has
# its own, and a module that modprobe finds.
as_installed()
{
	cp /vd/udev-rules/59-vd.rules /vd/udev-rules/61-vd.rules /etc/udev/rules.d/
	cp /vd/udev-rules/11-dm-vd.rules /etc/udev/rules.d/56-dm-vd.rules
	udevadm control --reload
	echo "install dm-vd insmod $VD_MODULE" >/etc/modprobe.d/vd.conf
	[ -e "/lib/modules/$(uname -r)/modules.dep" ] || insmod "$VD_MODULE" # User-Mode Linux
}

pool_up()
{
	lsmod | grep -q '^dm_vd ' || insmod "$VD_MODULE"
	# shellcheck disable=SC2086 # one word a disk
	dmsetup create pool --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS"
}

# What the pool's status says; writes that wait for space are said as a number
is_rw() { dmsetup status pool | grep -q ' rw '; }
has_failed() { [ "$(dmsetup status pool)" = "0 1024 vd-pool Fail" ]; }
waiting() { dmsetup status pool | grep -o 'waiting [0-9]*' | cut -d' ' -f2; }
some_wait() { [ "$(waiting)" -gt 0 ]; }

# of the pool, that userspace has been told of
events() { dmsetup info -c --noheadings -o events pool; }
# told NUMBER: more than that
told() { [ "$(events)" -gt "$1" ]; }

# ended PID
ended() { ! kill -0 "$1" 2>/dev/null; }

# What the kernel shows of a device that is no partition
sysfs() { echo "/sys/block/$(basename "$(readlink -f "$1")")"; }
# queue NAME LIMIT: of a device of device-mapper
queue() { cat "$(sysfs "/dev/mapper/$1")/queue/$2"; }

# volume_up NAME SECTORS
volume_up() { dmsetup create "$1" --table "0 $2 vd-volume /dev/mapper/pool $1"; }
message() { dmsetup message pool 0 "$1"; }

# all_down VOLUME...: closes all, and nothing may be left
all_down()
{
	local v
	for v; do dmsetup remove --retry "$v"; done
	dmsetup remove --retry pool
	nothing_left
}

nothing_left()
{
	unload
	quiet
}

# The module has no memory any more: kmemleak tells (-k san), or the slabs, which keep who
# has what when the kernel's command line says slub_debug=U.
unload()
{
	if [ -e /sys/kernel/debug/kmemleak ]; then
		sleep 6 # what was allocated lately is passed over
		echo scan >/sys/kernel/debug/kmemleak
		echo scan >/sys/kernel/debug/kmemleak # only what two scans agree on is told
		if grep -B 12 'dm_vd' /sys/kernel/debug/kmemleak; then return 1; fi
	fi
	if grep -q slub_debug=U /proc/cmdline; then
		sleep 1 # what is freed after a grace period
		cat /sys/kernel/debug/slab/*/alloc_traces >/tmp/traces
		grep -q 'dm_mod' /tmp/traces # they tell
		# Who asked for it, not the stack below: addresses there may be of init code, gone, whose place is ours now.
		if grep -E '\[dm_vd\].* age=' /tmp/traces; then return 1; fi
	fi
	if grep -w dm_vd /proc/vmallocinfo; then return 1; fi
	rmmod dm-vd
}

# Nothing was complained of: warnings, lock order, sleeping in atomic context, bad memory.  What was is told whole.
sound() { ! dmesg | grep -E -A 80 'WARNING:|BUG:|KASAN|UBSAN|Call Trace|blocked for more|INFO: |sleeping function'; }
# And nothing failed, either.
quiet() { sound && ! dmesg | grep -E 'device-mapper: vd: pool .*error'; }
# Nor was any I/O.
flawless() { quiet && ! dmesg | grep -iE 'I/O error|EXT4-fs error'; }

# fails COMMAND...: as it must
fails() { if "$@" >/dev/null 2>&1; then echo "$* should have failed"; return 1; fi; }
# until_ok SECONDS COMMAND...
until_ok()
{
	local i n=$1
	shift
	for ((i = 0; i < n * 5; i++)); do ! "$@" || return 0; sleep 0.2; done
	echo "never: $*"
	dmsetup status pool
	return 1
}

# Contents of devices, for who reads the same with another engine
sums() { local v; for v; do sha256sum <"/dev/mapper/$v" >"/job/sum.$v"; done; }

# fio_on DEVICE FIO-ARGUMENT...
fio_on()
{
	local dev=$1 said
	shift
	said=$(fio --name=job --filename="/dev/mapper/$dev" --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 "$@" \
		2>&1) || { echo "fio $dev $* failed"; grep -vE "^  |^\$|Jobs:|Run status" <<<"$said" | head -8; return 1; }
}

# at_work DIR RATE: the file system there is written to and read so many times a second, and what is read compared, until
# at_rest, which fails if anything of that did
at_work()
{
	fio --name=load --directory="$1" --size=16m --rw=randrw --bs=4k --verify=crc32c --time_based --runtime=100000 --rate_iops="$2" \
		--fsync=32 --ioengine=psync --output=/job/fio >/dev/null 2>&1 &
	echo $! >/run/load
	until pgrep -P $! && fuser -s "$1/load.0.0"; do kill -0 $! && sleep 0.1 || return; done # its process for the job, not the one that lays it out
}
at_rest()
{
	local load
	load=$(cat /run/load)
	kill -INT "$load"
	wait "$load" 2>/dev/null || true # it was interrupted, or is no child of this shell
	tail --pid="$load" -f /dev/null
	grep 'err= 0' /job/fio
}

# mark_all_but DISK: all other drives have their own UUIDs written to them, and then read; says which these are
mark_all_but()
{
	local disk
	for disk in /dev/disk/by-id/vd-*; do
		[ "$disk" = "$1" ] || echo "${disk##*/vd-}" | dd of="$disk" bs=512 count=1 conv=sync oflag=direct status=none || return
	done
	for disk in /dev/disk/by-id/vd-*; do
		[ "$disk" != "$1" ] || continue
		[ "$(dd if="$disk" bs=512 count=1 iflag=direct status=none | head -c 36)" = "${disk##*/vd-}" ] || return
		echo "${disk##*/vd-}"
	done
}
