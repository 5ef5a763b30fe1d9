#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# lab.sh [OPTION]... [COMMAND...]
#
# Boots a kernel with this tree in it and runs a bash command line there as root; its
# output and its exit status are the command's.  125: the guest died, or took too long.
# Without a command: a shell on the guest's console.
#
#   -k KERNEL   6.1 (default) or 6.12: the newest such of Debian's that is installed here,
#               in QEMU, with KVM where that works
#               uml, san: User-Mode Linux, plain or with KASAN and lockdep (uml.sh)
#   -d FILE     a disk; one that does not exist: FILE:SIZE.  The guest has them as
#               /dev/disk/by-id/virtio-d0 … (User-Mode Linux: /dev/ubdb …); $DISKS
#   -j DIR      the directory that is /job in the guest, for what goes in and comes out;
#               default: one that is removed afterwards
#   -t SECONDS  time limit, 300        -m MEMORY  2G       -c CPUS  2
#   -i systemd  a full boot, instead of udevd alone
#   -a WORDS    more for the kernel's command line
#   -p FILE     the process id to kill, for a power cut
#   -q SOCKET   where QEMU listens for QMP; the guest has a virtio-scsi controller, and no disk on it
#   -n NETDEV   a network card, eth0: QEMU's -netdev without its id (socket,listen=127.0.0.1:7000; user,hostfwd=…);
#               with "user" the guest is 10.0.2.15
#   -I          emulated, and a clock that counts instructions: times that repeat, on one CPU
#
# In the guest the tree is /vd, its commands are in the path, $VD_MODULE is dm-vd.ko.
# The machine's own module must have been built: make modules KVER=…; -b does that, and -g
# builds $VD_BIOGEN as well, the bio generator of tests/bench.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tree=$(cd "$here/../.." && pwd)
lab=$tree/build/lab
die() { echo "lab: $*" >&2; exit 125; }

# /dev/kvm alone says little in a machine that is virtual itself.
kvm_works()
{
	[ -w /dev/kvm ] && (timeout -s KILL 5 qemu-system-x86_64 -accel kvm -cpu host -m 512M -nodefaults -no-reboot -display none \
		-serial stdio -kernel "$1" -append "console=ttyS0 panic=-1" </dev/null || true) 2>/dev/null | grep -qa 'Linux version'
}

kernel=6.1 disks=() job='' limit=300 mem=2G cpus=2 init=udevd append='' pidfile='' qmp='' net=() build='' biogen='' icount=''
while getopts k:d:j:t:m:c:i:a:p:q:n:bgI opt; do
	case $opt in
	k) kernel=$OPTARG ;; d) disks+=("$OPTARG") ;; j) job=$OPTARG ;; t) limit=$OPTARG ;;
	m) mem=$OPTARG ;; c) cpus=$OPTARG ;; i) init=$OPTARG ;; a) append=$OPTARG ;; p) pidfile=$OPTARG ;; q) qmp=$OPTARG ;;
	n) net=(-netdev "$OPTARG,id=net0" -device "virtio-net-pci,netdev=net0,mac=52:54:00:$(printf '%02x:%02x:%02x' $((RANDOM % 256)) $((RANDOM % 256)) $((RANDOM % 256)))") ;;
	b) build=1 ;; g) build=1 biogen=1 ;; I) icount=1 cpus=1 ;; *) exit 125 ;;
	esac
done
shift $((OPTIND - 1))

mkdir -p "$lab"
# Made once, however many begin together, and again when it is to have something else.
cmp -s "$here/root.sh" "$lab/root.made" || flock "$lab/lock" sh -c 'cmp -s "$0" "$1" || exec "$0"' "$here/root.sh" "$lab/root.made" >&2 || die "the guests' root image cannot be made (tests/lab/root.sh)"

case $kernel in
uml|san)
	[ -x "$lab/$kernel/linux" ] || "$here/uml.sh" "$kernel" >&2 || die "that kernel cannot be built (tests/lab/uml.sh $kernel)"
	kver=$kernel make_args=(KVER="$kernel" KDIR="$lab/$kernel" KARCH=um)
	[ "$kernel" = uml ] || make_args+=(KBUILD_ARGS=UBSAN_SANITIZE=y) ;;
*)
	kver=$(find /boot -name "vmlinuz-$kernel.*-amd64" ! -name '*-rt-*' ! -name '*-cloud-*' -printf '%f\n' |
		sed 's/^vmlinuz-//' | sort -V | tail -n 1)
	[ -n "$kver" ] || die "no kernel $kernel in /boot: install linux-image-amd64 (6.1) or linux-image-6.12-amd64"
	make_args=(KVER="$kver") ;;
esac
build_module() # [WORD-FOR-MAKE]...
{
	flock "$lab/lock" make -C "$tree" --no-print-directory modules "${make_args[@]}" "$@" >"$lab/modules-$kver.log" 2>&1 ||
		{ tail -20 "$lab/modules-$kver.log" >&2; die "the module cannot be built for $kver"; }
}
[ -z "$build" ] || build_module
[ -z "$biogen" ] || build_module MSRC=tests/bench/kernel MB="build/bench/modules/$kver"

if [ -z "$job" ]; then
	job=$(mktemp -d "$lab/job.XXXXXX")
	trap 'rm -rf "$job"' EXIT
fi
job=$(cd "$job" && pwd)
rm -f "$job/out" "$job/rc" "$job/dmesg" "$job/up" "$job/began"
: >"$job/out"
printf '%s\n' "$*" >"$job/cmd"

files=() names=''
for d in ${disks[@]+"${disks[@]}"}; do
	f=${d%:*}
	[ -e "$f" ] || { [ "$f" != "$d" ] && truncate -s "${d##*:}" "$f"; } || die "no disk $f"
	if [ "$kver" = "$kernel" ]; then # User-Mode Linux
		names+=" /dev/ubd$(printf "\\x$(printf %x $((98 + ${#files[@]})))")"
	else
		names+=" /dev/disk/by-id/virtio-d${#files[@]}"
	fi
	files+=("$f")
done
printf 'export VD_JOB=%q VD_MODULE=%q VD_BIOGEN=%q DISKS=%q\n' "$job" "/vd/build/modules/$kver/dm-vd.ko" \
	"/vd/build/bench/modules/$kver/biogen.ko" "${names# }" >"$job/env"

run=()
if [ "$kver" = "$kernel" ]; then
	root=$lab/uml-root
	mkdir -p "$root"/{bin,dev,proc,sys,ro,rw,newroot,lab} "$lab/uml-run"
	cp --update "$(command -v busybox)" "$root/bin/busybox"
	for applet in cat cp echo ln mkdir mount pivot_root sh sleep tr; do ln -sf busybox "$root/bin/$applet"; done
	install -m 755 "$here/guest/init" "$root/init"
	install -m 755 "$here/guest/run" "$root/lab/run"
	[ $# -gt 0 ] || die "no shell there: give a command"
	ubd=()
	for i in "${!files[@]}"; do ubd+=("ubd$((i + 1))=${files[i]}"); done
	# Its helpers would outlive it; a namespace of their own ends with it.
	ns=(unshare --pid --fork --kill-child=KILL)
	[ "$(id -u)" = 0 ] || ns+=(--user --map-root-user)
	run=("${ns[@]}" "$lab/$kernel/linux" "mem=$mem" "umid=lab$$" "uml_dir=$lab/uml-run/" root=/dev/root rootfstype=hostfs
		"rootflags=$root" ro init=/init "ubd0rc=$lab/root.erofs" "${ubd[@]}" con=null con0=null,fd:1 con1=null
		quiet loglevel=4 panic=-1 "lab.job=$job" "lab.tree=$tree" $append)
else
	initrd=$lab/initrd-$kver
	if [ ! -e "$initrd" ] || [ -n "$(find "$here/guest" "$here/initrd.sh" "/boot/vmlinuz-$kver" -newer "$initrd")" ]; then
		"$here/initrd.sh" "$kver" "$initrd"
	fi
	if [ ! -e "$lab/accel" ]; then
		if kvm_works "/boot/vmlinuz-$kver"; then echo kvm; else echo tcg; fi >"$lab/accel"
	fi
	if [ -n "$icount" ]; then
		accel=(-accel tcg,thread=single -icount shift=1,sleep=off -cpu Nehalem,+rdrand)
	elif [ "$(cat "$lab/accel")" = kvm ]; then
		accel=(-accel kvm -cpu host)
	else
		accel=(-accel tcg,thread=multi -cpu Nehalem,+rdrand)
	fi
	if [ $# -gt 0 ]; then serial=(-serial "file:$job/console"); else serial=(-serial mon:stdio); append+=" lab.shell"; fi
	drives=()
	for i in "${!files[@]}"; do
		drives+=(-drive "file=${files[i]},format=raw,if=none,id=d$i,discard=unmap" -device "virtio-blk-pci,drive=d$i,serial=d$i")
	done
	[ -z "$qmp" ] || drives+=(-qmp "unix:$qmp,server=on,wait=off" -device virtio-scsi-pci,id=scsi0)
	run=(qemu-system-x86_64 "${accel[@]}" -smp "$cpus" -m "$mem" -no-user-config -nodefaults -no-reboot -display none "${serial[@]}"
		-kernel "/boot/vmlinuz-$kver" -initrd "$initrd"
		-append "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off no_timer_check random.trust_cpu=on net.ifnames=0 lab.init=$init $append"
		-drive "file=$lab/root.erofs,format=raw,if=none,id=labroot,readonly=on" -device virtio-blk-pci,drive=labroot,serial=labroot
		-fsdev "local,id=job,path=$job,security_model=none" -device virtio-9p-pci,fsdev=job,mount_tag=job
		-fsdev "local,id=tree,path=$tree,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=tree,mount_tag=tree
		-fsdev local,id=modules,path=/lib/modules,security_model=none,readonly=on -device virtio-9p-pci,fsdev=modules,mount_tag=modules
		"${drives[@]}" "${net[@]}")
fi

if [ $# = 0 ]; then
	"${run[@]}"
	exit
fi
boot()
{
	if [ "$kver" = "$kernel" ]; then exec 3>"$job/console"; else exec 3>/dev/null; fi
	"${run[@]}" </dev/null >&3 2>&3 &
	local pid=$! watchdog
	exec 3>&-
	[ -z "$pidfile" ] || echo $pid >"$pidfile"
	(
		sleep "$boot_limit"
		[ -e "$job/up" ] || { echo "Lab: hung while it booted" >>"$job/console"; kill -KILL $pid; }
		sleep $((limit - boot_limit))
		kill -KILL $pid
	) >/dev/null 2>&1 &
	watchdog=$!
	tail -n +1 -s 0.2 -f --pid=$pid "$job/out" 2>/dev/null || true
	wait $pid 2>/dev/null || true
	pkill -KILL -P $watchdog 2>/dev/null || true
	kill $watchdog 2>/dev/null || true
	wait $watchdog 2>/dev/null || true
}
# Emulated, Debian's kernels panic or hang now and then before any of ours is there: in the
# timer check, in the first idle loop, one CPU waiting for another.  That says nothing of
# the command.
boot_limit=$((limit < 100 ? limit : 100))
for _ in 1 2 3; do
	boot
	[ ! -e "$job/began" ] && [ "$kver" != "$kernel" ] && grep -qE 'Kernel panic|^Lab: hung' "$job/console" || break
	echo "lab: the kernel panicked or hung while it booted; once more" >&2
	cp "$job/console" "$lab/console.failed"
done
if [ ! -s "$job/rc" ]; then
	echo "lab: the guest died before the command ended" >&2
	[ ! -e "$job/console" ] || tail -n 30 "$job/console" >&2
	exit 125
fi
exit "$(cat "$job/rc")"
