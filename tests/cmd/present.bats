#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# File systems of links of this host: made, mounted in a directory of their own, and copies of others.
# What systemd does of it is in tests/lab/boot.bats.
load helper

linkable() { need_links; make_pool "${1:-2}" "${2:-256m}"; make_volume v "${3:-128m}"; }
D() { readlink "$VD_DEV_DIR/p/$1"; }
mounted() { findmnt -rno TARGET "$(D "$1")"; }
recorded() { jq -r ".drives[] | select(.volume == \"$1\") | .mount" etc/servers/local; }
REST=1

setup_file() { export LABEL=vdt$$; }
teardown_file() { [ ! -d /srv/vd ] || rmdir -- /srv/vd/"$LABEL"* /srv/vd 2>/dev/null || true; }

# bats test_tags=kernel
@test "a file system is made where nothing is, and mounted" {
	need mkfs.ext4
	linkable
	ok vdlink --mkfs ext4 --mount mnt p/v
	says ext4 "mounted on $T/mnt"
	echo kept >mnt/f
	ok vdunlink p/v
	refused mountpoint -q mnt
	# What is there stays, whatever was asked for
	ok vdlink --mkfs xfs --mount mnt p/v
	says ext4
	[ "$(cat mnt/f)" = kept ]
}

@test "a file system is made, and not mounted" {
	need mkfs.ext4
	linkable
	ok vdlink --mkfs ext4 p/v
	says ext4
	[ "$(blkid -p -o value -s TYPE "$(D v)")" = ext4 ]
	[ -z "$(mounted v)" ]
}

@test "no file system is made over what nobody knows, nor over a partition table" {
	need mkfs.ext4 sfdisk
	linkable
	make_volume w
	ok vdlink p/v
	printf precious | dd of="$(D v)" bs=1k seek=100 conv=fsync,notrunc status=none
	ok vdunlink p/v
	must 6 vdlink --mkfs ext4 p/v
	says "step \"present\" failed" "there is data on it"
	[ ! -e "$VD_DEV_DIR/p/v" ]
	ok vdlink p/v
	[ "$(dd if="$(D v)" bs=1k skip=100 count=1 status=none | head -c 8)" = precious ]
	ok vdlink p/w
	echo 'label: dos' | sfdisk -q "$(D w)"
	ok vdunlink p/w
	ok vdlink --mkfs ext4 p/w
	says "dos"
	ok vdunlink p/w
	must 5 vdlink --mkfs ext4 --mount mnt p/w
	says "not a file system that can be mounted as a whole"
}

@test "no file system is made that cannot be" {
	linkable
	must 2 vdlink --mkfs ext4 -r p/v
	must 2 vdlink --mkfs nosuch p/v
	says nosuch "wanted ext4"
	must 2 vdlink --mkfs ../../bin/true p/v
	[ ! -e "$VD_DEV_DIR/p/v" ]
	ok vdlink p/v
	says empty
}

# bats test_tags=kernel
@test "with -m auto it is mounted in a directory of its label, and restored there" {
	need mkfs.ext4 jq
	linkable
	ok vdlink p/v
	mkfs.ext4 -q -L "$LABEL" "$(D v)"
	ok vdunlink p/v
	ok vdlink -m auto --mount-options noatime p/v
	says "mounted on /srv/vd/$LABEL"
	[ "$(mounted v)" = "/srv/vd/$LABEL" ]
	[ "$(recorded v)" = "/srv/vd/$LABEL" ]
	[ "$(vdlink ls --noheadings -o mount p | tr -d ' ')" = "/srv/vd/$LABEL" ]
	umount "/srv/vd/$LABEL"
	break_link v
	wait_for eval 'vdlink ls --noheadings -o state p | grep -w down'
	ok vdlink --restore p
	[ "$(mounted v)" = "/srv/vd/$LABEL" ]
	findmnt -no OPTIONS "/srv/vd/$LABEL" | grep -w noatime
	ok vdunlink p/v
	refused mountpoint -q "/srv/vd/$LABEL"
}

@test "with -m auto it is mounted in a directory of its name; of another name where that is taken" {
	need mkfs.ext4
	linkable
	make_volume "$LABEL" 64m
	make_volume w 64m
	ok vdlink --mkfs ext4 -m auto "p/$LABEL"
	[ "$(mounted "$LABEL")" = "/srv/vd/$LABEL" ]
	ok vdlink p/w
	mkfs.ext4 -q -L "$LABEL" "$(D w)"
	ok vdunlink p/w
	ok vdrename p/w "$LABEL-w"
	ok vdlink -m auto "p/$LABEL-w"
	[[ $(mounted "$LABEL-w") == "/srv/vd/$LABEL-w-"???????? ]]
	ok vdunlink "p/$LABEL-w" "p/$LABEL"
}

# copied TYPE OPTION...: v is mounted on mnt, and s is a snapshot of it as it was
copied()
{
	linkable 2 512m 320m
	ok vdlink --mkfs "$1" -m mnt p/v
	echo old >mnt/f
	sync -f mnt
	ok vdsnap p/v -n s
	echo new >mnt/f
}

# bats test_tags=kernel
@test "a copy of an ext4 that is mounted is linked, and mounted only if that is asked for" {
	need mkfs.ext4 jq
	copied ext4
	refused vdlink -m mnt2 p/s
	says 'step "present" failed' "p/s is not mounted on mnt2" "$T/mnt" "same UUID" --duplicate
	refused mountpoint -q mnt2
	[ "$(vdlink ls --noheadings -o path p | xargs)" = p/v ]
	ok vdlink -m auto p/s
	says "warning: p/s is linked, but not mounted" "same UUID" --duplicate
	[ -b "$(D s)" ]
	[ "$(vdlink ls --noheadings -o path,state,mount p | grep -w p/s | xargs)" = "p/s up" ]
	[ -z "$(recorded s)" ]
	ok vdunlink p/s
	ok vdlink --duplicate -m mnt2 p/s
	says "mounted on $T/mnt2"
	[ "$(cat mnt/f mnt2/f)" = "new
old" ]
	# And again, also when it comes first
	ok vdunlink p/v
	umount mnt2
	break_link s
	wait_for eval 'vdlink ls --noheadings -o state p | grep -w down'
	ok vdlink -m mnt --duplicate p/v
	ok vdlink --restore p
	[ "$(cat mnt2/f)" = old ]
}

@test "a copy of an xfs that is mounted is mounted with its own UUID passed over, if that is asked for" {
	need mkfs.xfs
	grep -qw xfs /proc/filesystems || modprobe -q xfs || skip "the kernel has no xfs"
	copied xfs
	refused vdlink -m mnt2 p/s
	says "not mounted" "same UUID"
	ok vdlink --duplicate -m mnt2 p/s
	[ "$(cat mnt2/f)" = old ]
	findmnt -no OPTIONS mnt2 | grep -w nouuid
}

@test "an automount is refused where there is no systemd, and nothing is begun" {
	[ ! -e /run/systemd/system ] || skip "here it is"
	linkable
	must 2 vdlink --automount -m mnt p/v
	says systemd
	must 2 vdlink -t --automount -m mnt p/v
	ok vdlink ls --noheadings
	[ -z "$output" ]
	must 2 vdlink --automount p/v
	must 2 vdlink --duplicate p/v
	must 2 vdlink --no-mount -m mnt p/v
	ok vdlink --no-mount p/v
}
