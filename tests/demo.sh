#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# The main job of vd, end to end, on this machine: `sudo make demo`.
#
# A pool on two sparse files, a volume, a link that makes it a real block device,
# a file system with a tree of files, a snapshot, changes, the snapshot beside the
# changed volume, the list of what changed, the server killed in the middle of
# writes, unlinking and a check.  A line each: how long it took, and what was done.
# Nothing is left behind, whatever happens.
#
# Who serves the pool is for the commands to find out: the kernel, where it has dm-vd, or
# else the server.  A kernel with device-mapper on which dm-vd is not installed has it built and
# loaded, until the end.  The kernel cannot be killed here.  It can in a virtual machine, where
# tests/lab/demo.sh has this run in two parts: "demo.sh before" writes files until the
# machine is killed, "demo.sh after" looks at them when it is up again.  $DEMO_DISKS are
# the members then, and the directory $DEMO_KEEP outlives the machine, as its disks do.
set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

BIN=${VD_BUILD:-$PWD/build}
PART=${1:-all}
SOURCE=${DEMO_SOURCE:-/usr/share/doc}
CAP_MB=${DEMO_CAP_MB:-200}
export PATH=$BIN:$PATH LC_ALL=C

if [ "$(id -u)" != 0 ]; then
	echo "demo: block devices and mounts need root: sudo make demo" >&2
	exit 1
fi
for c in vdpool vdcreate vdsnap vdlink vdunlink vddiff vdls; do
	[ -x "$BIN/$c" ] || { echo "demo: $BIN/$c is missing: run 'make' first" >&2; exit 1; }
done

POOL=demo UUID='' SERVES= LOADED= writer=
[ -e /dev/vdisk/$POOL ] && POOL=demo$$
HAD_VDISK=; [ -d /dev/vdisk ] && HAD_VDISK=1

# Everything that might be left, in the order in which it can go; said only when it fails.
clean_up()
{
	trap '' INT TERM
	[ -z "$writer" ] || kill "$writer" 2>/dev/null
	wait 2>/dev/null
	for v in data@monday data; do
		vdunlink -q $POOL/$v >/dev/null 2>&1
	done
	for m in "$W/snap" "$W/data"; do
		while mountpoint -q "$m"; do umount -l "$m" || break; done
	done
	# The pool's own loop devices; all else only if vdunlink could not: our devices in the
	# kernel, the pool's after its volumes', our FUSE files, our server.
	[ "$SERVES" != kernel ] || dmsetup info -c --noheadings --separator ' ' -o uuid,name | grep "^VD-$UUID-" | sort |
		while read -r _ d; do dmsetup remove --retry "$d"; done
	for b in /sys/block/loop*/loop/backing_file; do
		[ -r "$b" ] && [[ $(<"$b") == "$W"/* ]] && losetup -d "/dev/$(basename "${b%/loop/backing_file}")"
	done
	[ -z "$LOADED" ] || rmmod dm_vd
	for f in "$W"/run/links/*/*; do mountpoint -q "$f" 2>/dev/null && umount -l "$f"; done
	for p in /proc/[0-9]*/cmdline; do
		if tr '\0' ' ' 2>/dev/null <"$p" | grep -q "^nbdkit .*--unix $W/run/"; then
			p=${p%/cmdline}; kill -9 "${p#/proc/}" 2>/dev/null
		fi
	done
	rm -rf "$W"
	rmdir "/dev/vdisk/$POOL" 2>/dev/null
	[ -n "$HAD_VDISK" ] || rmdir /dev/vdisk 2>/dev/null
	return 0
}

# A link is made again with its mount point, which must then have the name it had.
W=/var/tmp/vd-demo
if [ "$PART" = all ]; then W=$(mktemp -d $W.XXXXXX) || exit 1; fi
KEEP=${DEMO_KEEP:-$W}
export VD_CONFIG_DIR=$KEEP/etc VD_RUNTIME_DIR=$W/run # clean_up must see no pool but ours
trap clean_up EXIT
trap 'echo "demo: interrupted" >&2; exit 130' INT TERM
mkdir -p "$KEEP/etc" "$W/run" "$W/data" "$W/snap" "$W/orig" || exit 1
LOG=$W/log

started=$(date +%s.%N)
seconds() { awk "BEGIN{printf \"%7.3f s\", $(date +%s.%N)-$1}"; }

fail()
{
	echo
	echo "demo: FAILED at: $*" >&2
	[ -s "$LOG" ] && sed 's/^/    /' "$LOG" >&2
	[ -s "$VD_RUNTIME_DIR/$POOL.log" ] && { echo "    the server's and the links' log:" >&2
		tail -20 "$VD_RUNTIME_DIR/$POOL.log" | sed 's/^/    | /' >&2; }
	exit 1
}

# step TEXT COMMAND...: runs it; NOTE may be set by it to say more
step()
{
	local text=$1 t0
	shift
	NOTE=
	t0=$(date +%s.%N)
	"$@" >"$LOG" 2>&1 || fail "$text"
	printf '%s  %s%s\n' "$(seconds "$t0")" "$text" "${NOTE:+: $NOTE}"
}

human() { numfmt --to=iec --suffix=B --format=%.1f "$1"; }
field() { vdls --noheadings --nosuffix --units b -o "$2" "$POOL/$1" | tr -d ' '; }

shown() { vdpool show --reportformat json $POOL | jq -r ".report[0].pool[0].$1"; }

# The kernel has dm-vd, or can be given it; if not, why.
have_module()
{
	local ko
	ko=build/modules/$(uname -r)/dm-vd.ko
	! modprobe -n -q dm-vd 2>/dev/null || return 0
	modprobe -q dm-mod 2>/dev/null
	[ -e /sys/class/misc/device-mapper ] || { echo "it has no device-mapper"; return 1; }
	make --no-print-directory modules KVER="$(uname -r)" >"$W/made" 2>&1 || [ -e "$ko" ] ||
		{ echo "dm-vd cannot be built for it: $(tail -n 1 "$W/made")"; return 1; }
	modprobe -q libcrc32c 2>/dev/null
	insmod "$ko" 2>"$W/made" || { echo "it does not load dm-vd: $(tail -n 1 "$W/made")"; return 1; }
	LOADED=1
}

# Two sparse files; as devices where the kernel has dm-vd, which serves no others.
make_pool()
{
	local f d members=()
	read -ra members <<<"${DEMO_DISKS:-}"
	if [ ${#members[@]} != 0 ]; then
		vdpool create $POOL "${members[@]}" && NOTE="two disks of 1 GiB"
		return
	fi
	have_module >"$W/why" && rm "$W/why"
	for f in "$W/disk0" "$W/disk1"; do
		d=$f
		truncate -s 1G "$f" || return 1
		if [ ! -e "$W/why" ]; then d=$(losetup --find --show "$f") || return 1; fi
		members+=("$d")
	done
	vdpool create $POOL "${members[@]}" || return 1
	NOTE="two sparse files of 1 GiB, $(human "$(du -sB1 "$W"/disk? | awk '{n+=$1} END{print n}')") on disk"
}
make_volume() { vdcreate $POOL/data -L 8g && NOTE="8 GiB, four times what the pool has"; }
link_volume()
{
	vdlink -v $POOL/data || return 1
	NOTE=$(tail -n 1 "$LOG")
	[ -e "$W/why" ] || sed -n 's/^not in the kernel: //p' "$LOG" >"$W/why"
}
find_server()
{
	UUID=$(shown uuid) SERVES=$(shown active)
	case $SERVES in
	kernel) NOTE="the kernel, as $(shown device)" ;;
	server) NOTE="a server, process $(server_pid), and not the kernel: $(cat "$W/why")" ;;
	*) echo "vdpool show says that nobody does"; return 1 ;;
	esac
}
make_fs() { mkfs.ext4 -q -L demo /dev/vdisk/$POOL/data && NOTE="maps $(human "$(field data mapped)")"; }
remount() { vdunlink -q $POOL/data && vdlink --mount "$W/data" $POOL/data && NOTE="$(cat "$LOG")"; }

# The whole of SOURCE, or as many of its directories as fit the cap, set aside to
# compare with.
set_aside()
{
	local d n=0 size list=()
	while read -r size d; do
		[ $((n + size)) -gt $((CAP_MB * 1024)) ] && continue
		n=$((n + size)) list+=("$d")
	done < <(du -sk "$SOURCE"/*)
	cp -a "${list[@]}" "$W/orig/" || return 1
	NOTE="$(find "$W/orig" -type f | wc -l) files, $(human $(($(du -sm "$W/orig" | cut -f1) << 20)))"
}
copy_tree() { cp -a "$W/orig/." "$W/data/" && sync -f "$W/data" && NOTE="on disk; the volume maps $(human "$(field data mapped)")"; }

# Frozen, so that what the snapshot holds is a clean file system that can be
# mounted from a device that nobody may write.
take_snapshot()
{
	local r
	fsfreeze -f "$W/data" || return 1
	vdsnap --readonly $POOL/data -n data@monday
	r=$?
	fsfreeze -u "$W/data" && [ $r = 0 ] && NOTE=$(cat "$LOG")
}

change_files()
{
	local changed=0 gone=0 f i=0
	while IFS= read -r f; do
		i=$((i + 1))
		if [ $((i % 7)) = 0 ]; then rm -f "$f" && gone=$((gone + 1))
		elif [ $((i % 5)) = 0 ]; then echo "changed by the demo" >>"$f" && changed=$((changed + 1))
		fi
	done < <(find "$W/data" -type f | sort | head -2000)
	sync -f "$W/data" && NOTE="$changed changed, $gone deleted"
}

link_snapshot() { vdlink -r --mount "$W/snap" $POOL/data@monday && NOTE="$(cat "$LOG")"; }
compare_snapshot() { diff -r --no-dereference --exclude=lost+found "$W/orig" "$W/snap" &&
	NOTE="every file is as it was"; }
compare_changed() { ! diff -rq --no-dereference --exclude=lost+found "$W/orig" "$W/data" >/dev/null 2>&1 || return 1
	NOTE="$(diff -rq --no-dereference --exclude=lost+found "$W/orig" "$W/data" 2>/dev/null | wc -l) differences"; return 0; }
list_changes()
{
	vddiff --noheadings $POOL/data@monday $POOL/data >"$W/diff" || return 1
	NOTE="$(grep -c . "$W/diff") ranges, $(vddiff --summary $POOL/data@monday $POOL/data | awk 'END{print $NF}')"
}

server_pid() { pgrep -f "^nbdkit .*--unix $W/run/" | head -1; }

# write_files COUNT: a writer that writes down which files it has been told are on disk.
write_files()
{
	local i
	for ((i = 0; i < $1; i++)); do
		head -c 60000 /dev/urandom >"$W/data/w$i" || { echo "write $i failed"; return 1; }
		sync "$W/data/w$i" || { echo "sync $i failed"; return 1; }
		echo "$(sha256sum <"$W/data/w$i")" "w$i" >>"$KEEP/flushed"
	done
}

kill_server()
{
	local p q n=0 before
	: >"$KEEP/flushed"
	write_files 400 &
	writer=$!
	for k in 1 2 3; do
		before=$(wc -l <"$KEEP/flushed")
		while [ "$(wc -l <"$KEEP/flushed")" -lt $((before + 15)) ]; do
			kill -0 $writer 2>/dev/null || break
			sleep 0.01
		done
		p=$(server_pid)
		[ -n "$p" ] && kill -9 "$p" && n=$((n + 1))
		for ((q = 0; q < 3000; q++)); do
			[ -n "$(server_pid)" ] && [ "$(server_pid)" != "$p" ] && break
			sleep 0.01
		done
	done
	wait $writer || return 1
	writer=
	NOTE="$n kills, no write failed, back after $(grep -o 'back after.*' "$VD_RUNTIME_DIR/$POOL.log" | awk '{print $3}' | sort -un | tail -1) ms at most"
}

verify_flushed()
{
	local sum name n=0
	if [ "$PART" = all ]; then
		umount "$W/data" && mount /dev/vdisk/$POOL/data "$W/data" || return 1
	fi
	while read -r sum _ name; do
		[ "$sum" = "$(sha256sum <"$W/data/$name" | cut -d' ' -f1)" ] || { echo "$name is not what was flushed"; return 1; }
		n=$((n + 1))
	done <"$KEEP/flushed"
	[ $n -gt 0 ] && NOTE="$n files, read again from the device"
}

unlink_all()
{
	vdunlink $POOL/data@monday $POOL/data || return 1
	for ((q = 0; q < 3000; q++)); do [ "$(shown active)" = no ] && break; sleep 0.02; done
	[ "$(shown active)" = no ] || { echo "the pool is still served: $(shown active)"; return 1; }
	NOTE="mounts and devices are gone, and nobody has the pool open"
}
check_fs() { vdlink -q $POOL/data && e2fsck -fn /dev/vdisk/$POOL/data && vdunlink -q $POOL/data && NOTE="clean"; }
check_pool() { vdpool check $POOL && NOTE="$(tail -1 "$LOG")"; }

# What the next boot compares the snapshot with.
sum_tree() { (cd "$1" && find . -path ./lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum); }
restore_links() { vdlink --restore $POOL && NOTE=$(paste -sd ';' "$LOG" | sed 's/;/; /g'); }
compare_sum() { sum_tree "$W/snap" | cmp - "$KEEP/sum" && NOTE="every file is as it was"; }

if [ "$PART" != after ]; then
	echo "vd: the main job, end to end ($(uname -sr), $(nproc) CPUs)"
	step "make a pool"                          make_pool
	step "make a volume"                        make_volume
	step "link it"                              link_volume
	step "see who serves it"                    find_server
	step "make an ext4 on it"                   make_fs
	step "unlink it, link it again and mount it" remount
	step "set files of $SOURCE aside"           set_aside
	step "copy them into it"                    copy_tree
	step "take a snapshot"                      take_snapshot
	step "change and delete files"              change_files
	step "link the snapshot beside it, read-only" link_snapshot
	step "compare the snapshot with the original" compare_snapshot
	step "compare the changed volume with it"   compare_changed
	step "list what changed since the snapshot" list_changes
	head -3 "$W/diff" | sed 's/^ */             /'
fi
if [ "$PART" = before ]; then
	sum_tree "$W/orig" >"$KEEP/sum"
	step "write and flush files until the power goes" write_files 1000000
	fail "it did not go"
elif [ "$PART" = after ]; then
	step "make the links again"                 restore_links
	step "see who serves the pool"              find_server
	step "compare the snapshot with the original" compare_sum
elif [ "$SERVES" = kernel ]; then
	echo "           no server to kill: 'make demo-lab' kills a whole machine, while files are written and flushed"
else
	step "kill -9 of the server while files are written and flushed" kill_server
fi
[ ! -e "$KEEP/flushed" ] || step "find again everything that was flushed" verify_flushed
step "unlink both"                          unlink_all
step "check the file system"                check_fs
step "check the pool"                       check_pool
clean_up
trap - EXIT
[ "$PART" = after ] || printf '%s  in all; nothing is left behind\n' "$(seconds "$started")"
