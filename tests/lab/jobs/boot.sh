# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Boots of one machine: $1 is which.  What is installed came with make install.
. /vd/tests/lab/jobs/common.sh
PATH=/usr/sbin:/usr/bin

step() { echo "== $*"; }
has() { udevadm info -q property "$1" | grep -qx "$2"; }
active() { [ "$(vdpool show --reportformat json "$1" | jq -r '.report[0].pool[0].active')" = "$2" ]; }
# A unit of ours that has failed, or hangs
no_failure() { ! systemctl list-units --all --no-legend --plain 'vd-*' | grep -w failed; }
said() { journalctl -b -o cat -u 'vd-activate@*' | grep -x "pool $1 waits for 1 of its 2 members"; }
idle() { ! systemctl list-jobs --no-legend | grep vd-; }
fs_of() { udevadm info -q property "/dev/vdisk/$1" | sed -n 's/^ID_FS_UUID=//p'; }
# by_uuid VOLUME: the name by UUID is that volume's, and not its snapshot's
by_uuid() { [ "$(readlink -f "/dev/disk/by-uuid/$(fs_of "$1")")" = "$(readlink -f "/dev/vdisk/$1")" ]; }
not_by_uuid() { ! udevadm info -q property "$1" | grep -E '^DEVLINKS=.*(by-uuid|by-label)'; }

first()
{
	step a pool that is made is marked, and not activated
	# shellcheck disable=SC2086 # one word a disk
	vdpool create -q p-1 $DISKS
	rm /etc/vd/devices # from here on udev tells
	udevadm settle
	for disk in $DISKS; do
		has "$disk" ID_FS_TYPE=vd_member
		has "$disk" ID_FS_USAGE=raid
		has "$disk" VD_POOL=p-1
		[ "$(lsblk -dno FSTYPE "$disk")" = vd_member ]
		not_by_uuid "$disk"
	done
	udevadm trigger --settle --action=change --subsystem-match=block
	idle
	active p-1 no

	step and stays so when what a volume has looks like something else
	disk=${DISKS%% *}
	printf 'Intel Raid ISM Cfg Sig. 1.3.00' | dd of="$disk" bs=512 seek=$(($(blockdev --getsz "$disk") - 2)) conv=notrunc,fsync status=none
	udevadm settle
	[ "$(blkid -p -o value -s TYPE "$disk")" = isw_raid_member ]
	has "$disk" ID_FS_TYPE=vd_member
	has "$disk" VD_POOL=p-1
	dmsetup create l9 --table "0 $(blockdev --getsz "$disk") linear $disk 0"
	udevadm settle
	has /dev/mapper/l9 ID_FS_TYPE=vd_member
	dmsetup remove --retry l9
	udevadm settle
	# It was a second p-1, which nobody activates: its units say so.
	until_ok 60 idle
	systemctl reset-failed

	step volumes that the next boot is to have
	for v in web plain; do
		vdcreate -q -L 64M p-1/$v
		vdlink -q p-1/$v
		mkfs.ext4 -q -L $v /dev/vdisk/p-1/$v
	done
	vdunlink -q p-1/web
	vdlink -q -m /srv/web --mount-options noatime p-1/web
	echo "written before" >/srv/web/note
	sync
	vdsnap -q -n monday p-1/web
	vdlink -q p-1/monday
	udevadm settle
	by_uuid p-1/web
	not_by_uuid /dev/vdisk/p-1/monday
	# Busy while the pool is active: no file system over it
	fails mkfs.ext4 -q -F "${DISKS%% *}"

	step members that come late
	modprobe brd rd_nr=2 rd_size=65536
	for n in 0 1; do dmsetup create l$n --table "0 131072 linear /dev/ram$n 0"; done
	vdpool create -q q /dev/mapper/l0 /dev/mapper/l1
	rm /etc/vd/devices
	udevadm settle
	has /dev/mapper/l0 VD_POOL=q
	vdcreate -q -L 8M q/v
	vdlink -q q/v
	mkfs.ext4 -q /dev/vdisk/q/v
	mount /dev/vdisk/q/v /mnt
	fails vdpool deactivate q
	umount /mnt
	[ -b /dev/vdisk/q/v ]
	vdpool deactivate -t q
	active q kernel
	vdpool deactivate q
	active q no
	[ ! -e /dev/vdisk/q ]
	[ "$(vdlink ls --noheadings -o state q | xargs)" = down ]
	for n in 0 1; do dmsetup remove --retry l$n; done

	step half of them
	dmsetup create l1 --table "0 131072 linear /dev/ram1 0"
	udevadm settle
	until_ok 60 said q
	until_ok 60 idle
	no_failure
	active q no
	[ "$(vdpool ls --noheadings -o missing,mode,active q | xargs)" = "1 read-only no" ]
	vdpool show q | grep -F "vdpool activate --readonly q"
	fails vdpool activate q
	(vdpool activate q 2>&1 || true) | grep -F "1 of its 2 members are missing"

	step which can be read
	vdpool activate --readonly q
	active q kernel
	[ "$(blockdev --getro /dev/vdisk/q/v)" = 1 ]
	quiet
	fails vdcreate -q -L 4M q/w
	dmesg --clear # the refusal
	vdpool deactivate q

	step a member that is suspended, or written over
	dmsetup suspend l1
	udevadm trigger --settle --action=change /dev/mapper/l1
	has /dev/mapper/l1 ID_FS_TYPE=vd_member
	dmsetup resume l1
	udevadm settle
	has /dev/mapper/l1 ID_FS_TYPE=vd_member
	dd if=/dev/mapper/l1 of=/tmp/label bs=4096 count=1 status=none
	dd if=/dev/zero of=/dev/mapper/l1 bs=4096 count=1 status=none
	udevadm settle
	fails has /dev/mapper/l1 ID_FS_TYPE=vd_member
	[ -z "$(lsblk -dno FSTYPE /dev/mapper/l1)" ]
	dd if=/tmp/label of=/dev/mapper/l1 bs=4096 count=1 status=none
	udevadm settle
	has /dev/mapper/l1 ID_FS_TYPE=vd_member

	step the last one
	dmsetup create l0 --table "0 131072 linear /dev/ram0 0"
	until_ok 60 test -b /dev/vdisk/q/v
	until_ok 60 idle
	active q kernel
	[ "$(vdlink ls --noheadings -o state q | xargs)" = up ]
	[ "$(blockdev --getro /dev/vdisk/q/v)" = 0 ]
	no_failure
	vdpool activate q
	vdunlink -q q/v
	active q no

	cp -r /etc/vd /job/root/etc
	echo "/dev/vdisk/p-1/plain /srv/plain ext4 defaults 0 0" >/job/root/etc/fstab
	quiet
}

second()
{
	step links are there again, mounted as before, and what fstab names
	until_ok 120 mountpoint -q /srv/web
	mountpoint -q /srv/plain
	until_ok 60 idle
	vdlink ls
	[ "$(vdlink ls --noheadings -o state | sort -u | xargs)" = up ]
	[ "$(vdlink ls --noheadings -o path | sort | xargs)" = "p-1/monday p-1/plain p-1/web" ]
	active p-1 kernel
	[ "$(cat /srv/web/note)" = "written before" ]
	findmnt -no OPTIONS /srv/web | grep -w noatime
	[ "$(findmnt -rno TARGET | grep -c ^/srv)" = 2 ]
	no_failure

	step snapshots have no names by UUID or label, at boot and when all is looked at anew
	udevadm settle
	by_uuid p-1/web
	not_by_uuid /dev/vdisk/p-1/monday
	udevadm trigger --settle --action=add --subsystem-match=block
	by_uuid p-1/web
	not_by_uuid /dev/vdisk/p-1/monday
	until_ok 60 idle
	no_failure
	echo "written in the second" >>/srv/web/note
	# And it is still dirty when the machine is shut down
	quiet
}

half()
{
	step half the members at boot: said, and no failure
	until_ok 120 said p-1
	until_ok 60 idle
	active p-1 no
	[ "$(vdpool ls --noheadings -o name,missing,mode,active | xargs)" = "p-1 1 read-only no" ]
	no_failure
	[ ! -e /sys/module/dm_vd ]
}

without()
{
	step without dm-vd the units end, and a server has the links
	until_ok 120 mountpoint -q /srv/web
	until_ok 60 idle
	no_failure
	journalctl -b -o cat -u 'vd-activate@*' | grep -F "pool p-1 is not for the kernel: dm-vd is not loaded"
	active p-1 server
	[ "$(tail -n 1 /srv/web/note)" = "written in the second" ]
	fails vdpool activate p-1
	(vdpool activate p-1 2>&1 || true) | grep -F "server"
	fails vdpool deactivate p-1
	vdunlink -q p-1/web p-1/monday p-1/plain
}

mounts() { awk -v "d=$1" '$5 == d {for (i = 6; i < NF; i++) if ($i == "-") printf "%s ", $(i + 1)}' /proc/self/mountinfo | xargs; }
mounted() { [ "$(mounts "$1")" = "$2" ]; }
# sleeps_in PID DIR
sleeps_in() { [ "$(readlink "/proc/$1/cwd")" = "$2" ] && grep -qx sleep "/proc/$1/comm"; }
unit() { systemctl is-active "$(systemd-escape -p --suffix="$1" "$2")" || true; }
# refused TEXT COMMAND...
refused()
{
	local text=$1
	shift
	if "$@" >/tmp/refused 2>&1; then echo "$* should have failed"; return 1; fi
	grep -F -- "$text" /tmp/refused || { cat /tmp/refused; return 1; }
}

# What is mounted is a unit's.
present()
{
	local kind pid uuid
	# shellcheck disable=SC2086
	vdpool create -q p-1 $DISKS
	rm /etc/vd/devices
	udevadm settle
	vdcreate -q -L 64M p-1/web

	step a file system is made, mounted in its own directory, and has names
	vdlink --mkfs ext4 -m auto p-1/web
	[ "$(mounts /srv/vd/web)" = ext4 ]
	[ "$(unit mount /srv/vd/web)" = active ]
	[ -e /run/systemd/transient/srv-vd-web.mount ]
	uuid=$(vdls --noheadings -o uuid p-1/web | xargs)
	[ "$(readlink -f "/dev/disk/by-id/vd-$uuid")" = "$(readlink -f /dev/vdisk/p-1/web)" ]
	echo kept >/srv/vd/web/note

	step while it is busy it stays, and who keeps it so is said
	(cd /srv/vd/web && exec sleep 1000) &
	pid=$!
	until_ok 20 sleeps_in $pid /srv/vd/web
	refused "in use by sleep ($pid)" vdunlink p-1/web
	[ "$(unit mount /srv/vd/web)" = active ]
	kill $pid
	wait $pid || true
	vdunlink p-1/web
	[ -z "$(mounts /srv/vd/web)" ]
	[ "$(unit mount /srv/vd/web)" = inactive ]
	[ ! -e "/dev/disk/by-id/vd-$uuid" ]

	step an automount waits, until somebody looks
	vdlink --automount -m /mnt --mount-options noatime p-1/web
	[ "$(mounts /mnt)" = autofs ]
	[ "$(vdlink ls --noheadings -o state,mount p-1 | xargs)" = "up /mnt" ]
	[ "$(cat /mnt/note)" = kept ]
	[ "$(mounts /mnt)" = "autofs ext4" ]
	findmnt -t ext4 -no OPTIONS /mnt | grep -w noatime
	vdunlink p-1/web
	[ -z "$(mounts /mnt)" ]
	[ "$(unit automount /mnt) $(unit mount /mnt)" = "inactive inactive" ]
	vdlink -q --automount -m /mnt p-1/web
	vdunlink p-1/web
	[ -z "$(mounts /mnt)" ]
	[ "$(unit automount /mnt)" = inactive ]

	step a copy of what is mounted is mounted only if that is asked for
	for kind in ext4 xfs; do
		modprobe $kind
		vdcreate -q -L 320M p-1/$kind
		vdlink -q --mkfs $kind -m auto p-1/$kind
		echo old >/srv/vd/$kind/note
		sync -f /srv/vd/$kind
		vdsnap -q -n $kind-s p-1/$kind
		echo new >/srv/vd/$kind/note
		vdlink -m auto p-1/$kind-s 2>&1 | tee /tmp/said
		grep "is linked, but not mounted: .* /srv/vd/$kind: it has the same UUID" /tmp/said
		[ -b /dev/vdisk/p-1/$kind-s ]
		[ -z "$(mounts /srv/vd/$kind-s)" ]
		vdunlink -q p-1/$kind-s
		vdlink --duplicate -m /mnt p-1/$kind-s
		[ "$(mounts /mnt)" = $kind ]
		[ "$(cat /mnt/note /srv/vd/$kind/note | xargs)" = "old new" ]
		[ $kind != xfs ] || findmnt -no OPTIONS /mnt | grep -w nouuid
		vdunlink -q p-1/$kind-s
		[ -z "$(mounts /mnt)" ]
	done
	vdunlink -q p-1/ext4

	step what is closed is mounted again as it was, when it is restored
	vdlink -q --automount -m /srv/web p-1/web
	umount /srv/vd/xfs
	vdpool deactivate p-1
	[ "$(vdlink ls --noheadings -o state p-1 | sort -u)" = "  down" ]
	vdlink --restore p-1
	[ "$(mounts /srv/vd/xfs)" = xfs ]
	[ "$(mounts /srv/web)" = autofs ]
	[ "$(cat /srv/web/note)" = kept ]
	cp -r /etc/vd /job/root/etc
	no_failure
}

presented()
{
	step and at boot
	until_ok 120 mounted /srv/vd/xfs xfs
	until_ok 120 mounted /srv/web autofs
	until_ok 60 idle
	[ "$(cat /srv/web/note)" = kept ]
	[ "$(mounts /srv/web)" = "autofs ext4" ]
	[ "$(cat /srv/vd/xfs/note)" = new ]
	echo dirty >>/srv/vd/xfs/note
	no_failure
}

udevadm settle --timeout=120
"$1"
