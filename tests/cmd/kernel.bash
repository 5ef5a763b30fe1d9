# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What helper.bash is where the kernel is the target (VD_TARGET=kernel), in a guest of the lab.
#
# Members are files in these tests, and block devices to the kernel: so loop devices take the
# place of the files, in the list of devices too, from `serve` or a link on until nobody has
# the pool any more (`at_rest`).  make_pool leaves its pool open in the kernel, for the
# commands that follow to find it there; not so where REST=1, in suites that look into the
# members.  A volume is read and written through a device of its own, made when a test asks for
# its `uri`, which is in no link and goes before the next command.

need_server() { skip "only a server: $*"; }

# A file that is listed as a member, and is none to the kernel, becomes one.
attach()
{
	local m list=() change=
	[ -e "$VD_CONFIG_DIR/devices" ] || return 0
	while read -r m; do
		if [ -f "$m" ]; then m=$(losetup -f --show "$m") && change=1 || return; fi
		list+=("$m")
	done <"$VD_CONFIG_DIR/devices"
	[ -z "$change" ] || printf '%s\n' "${list[@]}" >"$VD_CONFIG_DIR/devices"
}
detach()
{
	local m file loops=() list=()
	[ -e "$VD_CONFIG_DIR/devices" ] || return 0
	while read -r m; do
		if [[ $m == /dev/loop* ]] && { read -r file <"/sys/block/${m#/dev/}/loop/backing_file"; } 2>/dev/null; then
			loops+=("$m")
			m=$file
		fi
		list+=("$m")
	done <"$VD_CONFIG_DIR/devices"
	[ ${#loops[@]} = 0 ] || { losetup -d "${loops[@]}" && printf '%s\n' "${list[@]}" >"$VD_CONFIG_DIR/devices"; }
}

# Devices by which the test has used volumes, and which nobody has open now
let_go()
{
	local v
	for v in "$T"/used/*; do
		dmsetup remove "vdt-${v##*/}" 2>/dev/null && rm "$v"
	done
	return 0
}
at_rest()
{
	local v pool
	let_go
	# What a failed test has left writing to a full pool would go on for a minute.
	for v in "$T"/used/*; do dmsetup remove --force "vdt-${v##*/}"; done
	for pool in $(pools); do dmsetup remove --retry "$pool" || return; done
	detach
}
pools()
{
	local f name
	for f in /sys/block/dm-*/dm/name; do { read -r name <"$f"; } 2>/dev/null && [[ $name == vd-*-pool ]] && echo "$name"; done
	return 0
}
# shellcheck disable=SC2119
at_work() { [ "${REST:-0}" = 1 ] || serve; }
settle() { attach; [ -z "$(pools)" ] || dmsetup message vd-p-pool 0 checkpoint; }
server_pids() { servers; pools; }
# shellcheck disable=SC2034 # kill.bats does
DELAYS="0.03 0.06 0.1 0.15 0.2 0.25 0.3 0.4 0.5 0.7 1 1.4 2" # of after_kill_at: in emulation a command takes that long
break_link() { dmsetup remove --retry "p-$1"; }

make_pool()
{
	local n=${1:-2} size=${2:-128m} i files=()
	for ((i = 0; i < n; i++)); do files+=("$T/m$i"); done
	ok vdpool create p -L "$size" "${files[@]}"
	at_work
}

# serve [readonly=true]: the kernel opens pool p, as vdlink has it do
# shellcheck disable=SC2120 # a test may
serve()
{
	local key value uuid members=() ro=
	[ "${1:-}" != readonly=true ] || ro=-r
	[ -z "$(pools)" ] || return 0
	echo "serve $T" >/dev/kmsg
	attach
	vdpool show p >"$T/shown" || return
	while read -r key value; do
		[ "$key" != UUID ] || uuid=$value
		[[ ! "$key $value" =~ (/dev/loop[0-9]+) ]] || members+=("${BASH_REMATCH[1]}")
	done <"$T/shown"
	read -r key </proc/sys/kernel/random/boot_id
	read -r value </etc/machine-id
	# shellcheck disable=SC2086 # nothing, or an option
	dmsetup create vd-p-pool $ro -u "VD-$uuid-pool" \
		--table "0 1024 vd-pool ${#members[@]} ${members[*]} 4 host $value boot ${key//-/}"
}

# That the kernel complained of nothing is looked at after the whole suite (cmd.sh).
serves_on() { dmsetup status vd-p-pool; }
ended_well() { [ -z "$(pools)" ]; }
# The kernel's log has that something is, and who reads beside it finds out what.
opening_told()
{
	grep "pool p: its metadata is damaged: it is read-only" run/serve.log || return
	ok vdpool show p
	says "$1"
}

# The device of a volume
uri()
{
	local shown base='' ro=
	# One that was open then has the size from before.
	[ ! -e "$T/resized" ] || dmsetup remove --retry "vdt-$1" 2>/dev/null || true # udev may look at it
	if [ ! -b "/dev/mapper/vdt-$1" ]; then
		shown=$(dmsetup message vd-p-pool 0 "show $1") || return
		[[ ! $shown =~ base\ ([^$'\n']*) ]] || base=${BASH_REMATCH[1]}
		if [ -f "$base" ]; then
			command truncate -s %512 "$base" # of a part of a sector a device has nothing
			base=$(losetup -r -f --show "$base") || return
		fi
		[[ $shown != *" mode ro "* && $(dmsetup status vd-p-pool) != *" ro "* ]] || ro=-r
		[[ $shown =~ size\ ([0-9]+) ]]
		mkdir -p "$T/used"
		: >"$T/used/$1"
		# shellcheck disable=SC2086
		dmsetup create "vdt-$1" $ro --table "0 ${BASH_REMATCH[1]} vd-volume /dev/mapper/vd-p-pool $1${base:+ 2 base $base}" || return
	fi
	echo "/dev/mapper/vdt-$1"
}

# ---- other programs ----------------------------------------------------------

# Ours are what they are here when others start them, too.
for command in strace timeout; do
	eval "$command() { start_by $command \"\$@\"; }"
done
start_by()
{
	local i
	for ((i = 2; i <= $#; i++)); do [[ ${!i} != vd* ]] || break; done
	if ((i > $#)); then command "$@"; return; fi
	local UNDER=("${@:1:i-1}")
	"${@:i}"
}
UNDER=()
for command in vdcreate vddiff vdls vdrename vdresize vdrm vdsnap; do eval "$command() { ours $command \"\$@\"; }"; done
ours()
{
	case "$*" in
	vdresize*) let_go; : >"$T/resized" ;;
	vdrename*|vdrm*|*--rollback*) let_go ;; # others go on beside who uses a volume
	esac
	command "${UNDER[@]}" "$@"
}
# While the kernel has the pool, a file that is given to it is one more loop device; and what is said of a
# loop device is said of the file.
vdpool()
{
	let_go
	[ -n "$(pools)" ] || { command "${UNDER[@]}" vdpool "$@"; return; }
	local word words=() pool='' size='' loop='' loops=() fresh=() empty=() r=0
	for word; do
		case $size,$1,$word in
		-L,grow,*) truncate -s "$word" m0 && size= && continue ;;
		-L,add,*) size=$word && continue ;;
		,add,-L|,grow,-L) size=-L && continue ;;
		*,add,-*) ;;
		*,add,*)
			if [ ${#words[@]} -gt 0 ] && [ -z "$pool" ]; then
				pool=$word
			elif [ -n "$pool" ] && { [ -f "$word" ] || [[ -n $size && ! -e $word ]]; }; then
				if [ ! -e "$word" ]; then fresh+=("$word"); elif [ ! -s "$word" ]; then empty+=("$word"); fi
				[ -z "$size" ] || [ -s "$word" ] || command truncate -s "$size" "$word"
				loop_on "$word" || { loops+=("$(losetup -f --show "$word")") && loop=${loops[-1]}; }
				word=$loop
			fi ;;
		esac
		words+=("$word")
	done
	command "${UNDER[@]}" vdpool "${words[@]}" >"$T/said" 2>"$T/warned" || r=$?
	named <"$T/said"
	named <"$T/warned" >&2
	if [[ $r != @(124|137) ]] && [[ $r != 0 || " ${words[*]} " == *" -t "* ]]; then
		[ ${#loops[@]} = 0 ] || losetup -d "${loops[@]}"
		rm -f "${fresh[@]}"
		[ ${#empty[@]} = 0 ] || command truncate -s 0 "${empty[@]}"
	fi
	return $r
}
# loop_on FILE: $loop is a loop device on it
loop_on() { loop=$(losetup -nO NAME -j "$1" 2>/dev/null) && [ -n "$loop" ]; }
named()
{
	local text loop file
	text=$(cat)
	for loop in /sys/block/loop*/loop; do
		loop=${loop%/loop}
		read -r file <"$loop/loop/backing_file"
		[[ $file != "$T"/* ]] || while [[ $text =~ (.*)/dev/${loop##*/}($|[^0-9].*) ]]; do text=${BASH_REMATCH[1]}$file${BASH_REMATCH[2]}; done
	done
	[ -z "$text" ] || printf '%s\n' "$text"
}
vdlink() { let_go; attach; command "${UNDER[@]}" vdlink "$@"; }
vdunlink() { let_go; attach; command "${UNDER[@]}" vdunlink "$@"; }

# A file that becomes larger, and its loop device with it
truncate()
{
	local loop
	command truncate "$@" || return
	for loop in $(losetup -j "${!#}" -nO NAME); do losetup -c "$loop"; done
}

# In the server's log is what the kernel has said since.
grep()
{
	[[ ${!#} != */serve.log ]] || dmesg | sed -n -e "/serve ${T//\//.}\$/{h;d}" -e H -e "\${x;p}" >"${!#}"
	command grep "$@"
}

# hold DEVICE: it stays from here on until the function that is running ends, though another command
# has let go of it since `uri` made it, as it may when this runs beside the test.
hold() { while [[ $1 == /dev/mapper/vdt-* ]] && ! { exec {held}<"$1"; } 2>/dev/null; do uri "${1#*/vdt-}" >/dev/null || return; done; }

# Those who speak NBD have a device instead.
fio()
{
	local a args=() held='' r=0
	for a; do
		case $a in
		--ioengine=nbd) args+=(--ioengine=libaio --direct=1) ;;
		--uri=*) args+=("--filename=${a#--uri=}"); hold "${a#--uri=}" || return ;;
		*) args+=("$a") ;;
		esac
	done
	command fio --thread "${args[@]}" || r=$?
	[ -z "$held" ] || exec {held}<&-
	return $r
}
qemu-io() { if [[ ${!#} == /dev/* ]]; then command qemu-io -n "$@"; else command qemu-io "$@"; fi; }
nbdcopy()
{
	local from=${*: -2:1} to=${!#} sparse='' held='' r=0
	hold "$from" && hold "$to" || return
	copy "$@" || r=$?
	[ -z "$held" ] || exec {held}<&-
	return $r
}
copy()
{
	case $from,$to in
	/dev/*,-) dd if="$from" bs=1M iflag=direct status=none ;;
	/dev/*,null:) dd if="$from" of=/dev/null bs=1M iflag=direct status=none ;;
	/dev/*) dd if="$from" of="$to" bs=1M iflag=direct conv=sparse status=none ;;
	*,/dev/*)
		[[ $* != *destination-is-zero* ]] || sparse=,sparse
		dd if="$from" of="$to" bs=1M iflag=fullblock oflag=direct conv=nocreat,notrunc,"fsync$sparse" status=none ;;
	*) return 1 ;;
	esac
}
nbdinfo()
{
	case $*,${!#} in
	"--is read-only "*) [ "$(blockdev --getro "$3")" = 1 ] ;;
	"--list nbd"*) dmsetup message vd-p-pool 0 list ;;
	--size*) blockdev --getsize64 "$2" ;;
	--*) need_server "nbdinfo $1" ;;
	*,/dev/*) dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none ;;
	*) return 1 ;;
	esac
}
