# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# The commands on a pool in the kernel, from its making to its check; with udev's rules
# where Debian has them.  The module is loaded when the first volume is linked.
. /vd/tests/lab/jobs/linked.sh

sum_tree() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

if [ ! -e /sys/module/dm_vd ] && modprobe -q loop && modprobe -q fuse; then
	step a pool on files needs no module
	on_files() { env VD_CONFIG_DIR=/tmp/etc VD_RUNTIME_DIR=/tmp/run "$@"; }
	mkdir /tmp/etc
	on_files vdpool create -q -L 64M files /tmp/file
	on_files vdcreate -q -L 4M files/v
	on_files vdlink -v files/v 2>&1 | grep -F "not in the kernel: a member is a file"
	on_files vdunlink -q files/v
	[ ! -e /sys/module/dm_vd ]
fi

step make a pool, a volume
# shellcheck disable=SC2086 # one word a disk
vdpool create -q p-1 $DISKS
vdcreate -q -L 256M p-1/web
active no

step link it, here
vdlink -v p-1/web
active kernel
pool=$(shows uuid)
vdpool show p-1 | grep -F "has it open, as /dev/mapper/vd-p--1-pool"
[ "$(cat /sys/block/dm-*/dm/uuid | sort)" = "$(printf '%s\n' "VD-$pool-$(uuid_of web)" "VD-$pool-pool" | sort)" ]
[ -b /dev/vdisk/p-1/web ] && [ "$(readlink -f /dev/vdisk/p-1/web)" = "$(readlink -f /dev/mapper/p--1-web)" ]
udevadm info -q property /dev/mapper/p--1-web | grep -x 'VD_VOLUME=web'
udevadm info -q property /dev/mapper/vd-p--1-pool | grep -x 'DM_UDEV_DISABLE_OTHER_RULES_FLAG=1'
fails 4 "linked already" vdlink p-1/web
(nbdkit -f -U - /vd/build/nbdkit-vd-plugin.so pool=p-1 --run true 2>&1 || true) | grep -F "open in the kernel"

step a new volume is linked without a checkpoint, and udev looks at it when something is on it
checkpoints() { dmsetup status vd-p--1-pool | sed 's/.* generation \([0-9]*\).*/\1/'; }
known() { udevadm info -q property "/dev/mapper/p--1-$1" | grep -E "^($2)=" | sort | paste -sd ' '; }
before=$(checkpoints)
vdcreate -a y -L 64M p-1/new-1 | grep ", empty$"
[ "$(checkpoints)" = "$before" ]
[ "$(known new--1 'VD_(BLANK|POOL|SEEN|VOLUME)|ID_FS_TYPE')" = "VD_BLANK=1 VD_POOL=p-1 VD_SEEN=1 VD_VOLUME=new-1" ]
uuid=$(vdls --noheadings -o uuid p-1/new-1 | tr -d ' ')
[ "$(cat /run/vd/names/p--1-new--1)" = $'VD_POOL=p-1\nVD_VOLUME=new-1\nVD_VOLUME_UUID='"$uuid" ]
[ /dev/disk/by-id/vd-$uuid -ef /dev/vdisk/p-1/new-1 ]
rm /run/vd/names/p--1-new--1 # dmsetup splitname tells
mkfs.ext4 -q /dev/vdisk/p-1/new-1
udevadm settle
[ "$(known new--1 'VD_(BLANK|POOL|SEEN|VOLUME)|ID_FS_TYPE')" = "ID_FS_TYPE=ext4 VD_POOL=p-1 VD_SEEN=1 VD_VOLUME=new-1" ]
vdunlink -q p-1/new-1
vdlink p-1/new-1 | grep ", ext4$"
[ "$(known new--1 'VD_(BLANK|POOL|SEEN|VOLUME)|ID_FS_TYPE')" = "ID_FS_TYPE=ext4 VD_POOL=p-1 VD_SEEN=1 VD_VOLUME=new-1" ]
vdunlink -q p-1/new-1
[ -z "$(ls /run/vd/names | grep new)" ]
vdrm -q -y p-1/new-1

case $(uname -r) in
6.1.*) # half a minute
	step what was blank is looked at again by udev that comes late
	udevadm control --stop-exec-queue
	vdcreate -a y -L 64M p-1/late 2>&1 | grep -F "udev has not finished"
	mkfs.ext4 -q /dev/mapper/p--1-late
	udev_goes_on
	[ "$(known late ID_FS_TYPE)" = ID_FS_TYPE=ext4 ]
	vdunlink -q p-1/late
	vdrm -q -y p-1/late ;;
esac

step a file system, a snapshot of it
mkfs.ext4 -q /dev/vdisk/p-1/web
udevadm settle
fs=$(blkid -o value -s UUID /dev/vdisk/p-1/web)
[ "$(readlink -f "/dev/disk/by-uuid/$fs")" = "$(readlink -f /dev/vdisk/p-1/web)" ]
mkdir -p /tmp/a /tmp/b
mount /dev/vdisk/p-1/web /tmp/a
cp -r /usr/bin /tmp/a/bin
sync
sum_tree /tmp/a >/tmp/before
vdsnap -q -n monday p-1/web
rm -r /tmp/a/bin/[a-m]*
cp -r /usr/sbin /tmp/a/sbin
vdlink -q p-1/monday
mount /dev/vdisk/p-1/monday /tmp/b
sum_tree /tmp/b | cmp - /tmp/before
udevadm settle
[ "$(readlink -f "/dev/disk/by-uuid/$fs")" = "$(readlink -f /dev/vdisk/p-1/web)" ]
udevadm info -q property /dev/vdisk/p-1/monday | grep -x 'ID_FS_TYPE=ext4'
vdsnap -a y -n tuesday p-1/monday | grep '/dev/mapper/p--1-tuesday, .*, ext4$'
[ -b /dev/vdisk/p-1/tuesday ]
vdunlink -q p-1/tuesday
vdrm -q -y p-1/tuesday

step records change by messages, while it is in use
vdcreate -q -L 64M --attr 'owner=the office à côté' --attr 'back=a\b' p-1/spare
[ "$(vdls --reportformat json -o name,attrs p-1 | jq -r '.report[0].volume[] | select(.name == "spare").attrs | .owner + "," + .back')" = 'the office à côté,a\b' ]
vdrename -q p-1/spare other
vdresize -q -L 128M p-1/other
vdpool set -q --readonly y p-1/other
fails 4 "" vdrename p-1/web x
fails 4 "" vdrm -y p-1/web
vdsnap -q p-1/web p-1/other
[ "$(vdls --noheadings -o name p-1 | wc -l)" = 5 ]
vddiff p-1/monday p-1/web >/dev/null
vdrm -q -y p-1/other
vdpool check p-1
fails 4 "unlink its volumes" vdpool check --repair p-1
vdls p-1
vdlink ls

step grow a mounted volume
vdresize -q -L 512M p-1/web
vdlink -q --refresh p-1/web
[ "$(blockdev --getsize64 /dev/vdisk/p-1/web)" = $((512 << 20)) ]
resize2fs /dev/vdisk/p-1/web 2>/dev/null
vdresize -q -L 520M p-1/web
dmsetup message vd-p--1-pool 0 "lock web host=$pool boot=$pool pid=7 since=7 hostname=far purpose=backup"
fails 4 "it is locked" vdlink --refresh p-1/web
[ "$(blockdev --getsize64 /dev/vdisk/p-1/web)" = $((512 << 20)) ]
vdlock break -q -y --force p-1/web
vdlink -q --refresh p-1/web
[ "$(blockdev --getsize64 /dev/vdisk/p-1/web)" = $((520 << 20)) ]
for n in 1 2 3; do vdlink -q --refresh p-1/web & done
wait

step readers of a pool that takes checkpoints all the time
(until [ -e /tmp/enough ]; do dmsetup message vd-p--1-pool 0 "create_thin x 8192" && dmsetup message vd-p--1-pool 0 checkpoint &&
	dmsetup message vd-p--1-pool 0 "delete x"; done) &
for n in 1 2 3 4 5 6; do vdls p-1 2>&1 >/dev/null; done >/tmp/said
touch /tmp/enough
wait
[ ! -s /tmp/said ] || { cat /tmp/said; false; }

step what the kernel has is what is shown, however its members are known
disk=$(readlink -f "${DISKS%% *}")
dmsetup create copy --table "0 $(blockdev --getsz "$disk") linear $disk 0"
vdpool show --device /dev/mapper/copy --reportformat json p-1 >/tmp/shown
if grep -F /dev/mapper/copy /tmp/shown; then exit 1; fi
# Nor is the copy in the way, though udev knows it as a member, too
udevadm settle
udevadm info -q property /dev/mapper/copy | grep -x 'ID_FS_TYPE=vd_member'
same()
{
	vdpool show --device /dev/mapper/copy --reportformat json p-1 >/tmp/shown && vdpool show --reportformat json p-1 | cmp - /tmp/shown
}
until_ok 20 same # what was deleted last may still be on its way to free space
vdcreate -q -L 4M p-1/beside
vdpool activate --complete /dev/mapper/copy | grep -x "pool p-1 is active"
vdrm -q -y p-1/beside
dmsetup remove --retry copy
unshare -m sh -c 'mount -t tmpfs none /run/udev && VD_CONFIG_DIR=/nowhere vdls --noheadings -o name p-1' | grep -w web

step unlink, in use and not
exec 9</tmp/a/bin
fails 4 "" vdunlink p-1/web
exec 9<&-
umount /tmp/b
vdunlink -q p-1/monday
[ ! -e /dev/vdisk/p-1/monday ]
active kernel
sum_tree /tmp/a >/tmp/last
vdunlink -q p-1/web
[ ! -e /dev/vdisk ] || [ -z "$(ls -A /dev/vdisk)" ]
[ -z "$(dmsetup ls | grep -v '^No devices')" ]
active no
vdpool check p-1

step a link that is down, and is made again
vdlink -q -m /tmp/a p-1/web
umount /tmp/a
dmsetup remove --retry p--1-web
vdlink ls --noheadings -o state p-1 | grep -w down
vdlink -q --restore p-1
mountpoint -q /tmp/a
sum_tree /tmp/a | cmp - /tmp/last
vdunlink -q p-1/web

step without udev
vdlink -q --noudevsync p-1/web
[ -b /dev/vdisk/p-1/web ]
vdunlink -q --noudevsync p-1/web
udevadm settle
udevadm control --stop-exec-queue
vdlink -q --noudevsync p-1/web
[ -b /dev/mapper/p--1-web ]
vdunlink -q --noudevsync p-1/web
[ "$(ls /dev/mapper)" = control ]
udev_goes_on

step a volume in use by a table of dmsetup, which nobody has linked
vdlink -q p-1/web
vdcreate -q -L 4M p-1/w
dmsetup create other --table "0 8192 vd-volume /dev/mapper/vd-p--1-pool w"
quiet
fails 4 "a table of device-mapper names it" vdrm -y p-1/w
dmesg --clear # the refusal
vdunlink -q p-1/web
active kernel
dmsetup remove --retry other
fails 3 "not linked" vdunlink p-1/w
active no
vdrm -q -y p-1/w

step a pool that dmsetup has opened is not ours: read as of its last checkpoint, not changed
# shellcheck disable=SC2086 # one word a disk
dmsetup create by-hand --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS"
dmsetup message by-hand 0 "create_thin late 8192"
vdls --noheadings -o name p-1 >/tmp/names 2>/tmp/said
grep -F "last checkpoint" /tmp/said
grep -w web /tmp/names && ! grep -w late /tmp/names
fails 4 "is part of /dev/mapper/by-hand" vdrm -y p-1/web
fails 4 "is part of /dev/mapper/by-hand" vdlink p-1/web
dmsetup message by-hand 0 "delete late"
dmsetup remove --retry by-hand
vdls --noheadings -o name p-1 2>&1 | cmp - /tmp/names

step what was left of an opening that was killed is in no way, and goes with the next
dmsetup create vd-p--1-pool -u "VD-$pool-pool" --notable
vdls --noheadings -o name p-1 2>&1 | cmp - /tmp/names
active no
vdlink -q p-1/web
active kernel
vdunlink -q p-1/web
# With a table that is not live it has the members.
dmsetup create vd-p--1-pool -u "VD-$pool-pool" --notable
# shellcheck disable=SC2086
dmsetup load vd-p--1-pool --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS"
vdlink -q p-1/web
vdunlink -q p-1/web

# All was done but the link: the pool is open for nobody.
# shellcheck disable=SC2086
dmsetup create vd-p--1-pool -u "VD-$pool-pool" --table "0 1024 vd-pool $(wc -w <<<"$DISKS") $DISKS"
active kernel
fails 3 "not linked" vdunlink p-1/web
active no

step commands while the pool goes in and out of the kernel
rm -f /tmp/enough
(until [ -e /tmp/enough ]; do vdlink -q p-1/web && vdunlink -q p-1/web || touch /tmp/failed; done) &
for n in 1 2 3 4 5; do
	vdcreate -q -L 4M "p-1/t$n"
	vdls p-1 >/dev/null
	vdrm -q -y "p-1/t$n"
done
touch /tmp/enough
wait
[ ! -e /tmp/failed ]
active no

step names that others have
dmsetup create vd-p--1-pool --table "0 8 zero"
fails 4 "another device is called vd-p--1-pool" vdlink p-1/web
dmsetup remove --retry vd-p--1-pool
dmsetup create p--1-web --table "0 8 zero"
fails 4 "another device is called p--1-web" vdlink p-1/web
dmsetup remove --retry p--1-web
active no

step an ordinary user, who may not ask device-mapper, has pools on files
install -d -o nobody /tmp/mine
as_nobody() { setpriv --reuid nobody --clear-groups env VD_CONFIG_DIR=/tmp/mine VD_RUNTIME_DIR=/tmp/mine/run "$@"; }
as_nobody vdpool create -q -L 64M mine /tmp/mine/file
as_nobody vdcreate -q -L 4M mine/v
as_nobody vdls --noheadings -o name mine | grep -w v

step a base image that is for a server to read
if modprobe -q loop && modprobe -q fuse; then
	head -c 1000100 /dev/urandom >/tmp/odd
	vdcreate -q --base /tmp/odd p-1/odd
	vdlink -q p-1/web
	fails 4 "ends within a sector" vdlink p-1/odd
	vdunlink -q p-1/web
	vdlink -v p-1/odd 2>&1 | grep -F "not in the kernel: a base image ends within a sector"
	active server
	cmp /tmp/odd <(head -c 1000100 /dev/vdisk/p-1/odd)
	step a link with a front keeps its server, when that has died and the front is about to start it again
	exec 8>/run/vd/p-1.start
	flock 8
	kill -9 "$(pgrep -x nbdkit)"
	vdlink -q p-1/monday 8>&- &
	sleep 2
	[ -z "$(dmsetup ls | grep -v '^No devices')" ]
	exec 8>&-
	wait $!
	active server
	cmp /tmp/odd <(head -c 1000100 /dev/vdisk/p-1/odd)
	vdunlink -q p-1/monday
	step the server reads what the kernel wrote, and writes what it reads
	vdlink -q p-1/web
	mount /dev/vdisk/p-1/web /tmp/a
	sum_tree /tmp/a | cmp - /tmp/last
	echo "by the server" >/tmp/a/note
	umount /tmp/a
	vdunlink -q p-1/web p-1/odd
	vdlink -q -r -m /tmp/a p-1/web
	active kernel
	[ "$(cat /tmp/a/note)" = "by the server" ]
	if touch /tmp/a/x 2>/dev/null; then echo "a read-only link was written"; exit 1; fi
	vdunlink -q p-1/web
fi

step another pool of that name, which udev knows, is in no way
if modprobe -q brd rd_nr=1 rd_size=65536; then
	dmsetup create namesake --table "0 131072 linear /dev/ram0 0"
	unshare -m sh -c 'mount -t tmpfs none /run/udev && VD_CONFIG_DIR=/nowhere vdpool create -q p-1 /dev/mapper/namesake'
	until_ok 30 eval 'udevadm info -q property /dev/mapper/namesake | grep ID_FS_TYPE=vd_member'
	other=$(vdpool probe /dev/mapper/namesake | sed -n 's/^VD_POOL_UUID=//p')
	[ "$other" != "$pool" ]
	fails 3 "$other, with" vdls p-1
	fails 3 "two pools called p-1" vdlink p-1/web
	vdlink -q "$pool/web"
	fails 4 "another pool called p-1 is served on this host: the kernel has $pool open" vdpool activate "$other"
	dmsetup remove --retry p--1-web
	vdlink -q --restore
	[ -b /dev/vdisk/p-1/web ]
	vdunlink -q "$pool/web"
	vdpool activate "$other"
	fails 4 "another pool called p-1" vdlink "$pool/web"
	vdpool deactivate "$other"
	dmsetup remove --retry namesake
	udevadm settle
fi

vdlink -q p-1/web
fsck.ext4 -fn /dev/vdisk/p-1/web
sha256sum </dev/vdisk/p-1/web >/job/sum.web
vdunlink -q p-1/web
vdpool check p-1
[ -z "$(dmsetup ls | grep -v '^No devices')" ]
nothing_left
