#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# initrd.sh RELEASE OUT   makes the lab's initrd for an installed kernel: busybox, the
#                         modules that reach the root image and the shares, guest/.
set -euo pipefail
kver=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree"/{bin,dev,proc,sys,ro,rw,newroot,modules,lab}
cp "$(command -v busybox)" "$tree/bin/busybox" # of busybox-static
for applet in cat cp echo insmod ln mkdir mount sh sleep switch_root tr; do
	ln -s busybox "$tree/bin/$applet"
done
# What each needs before it, in order; "builtin" ones are left out.
for module in virtio_pci virtio_blk virtio_console 9pnet_virtio 9p overlay erofs; do
	modprobe --set-version "$kver" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
	name=$(basename "$file")
	name=${name%.ko*}.ko
	case $file in
	*.xz) xz -dc "$file" ;;
	*.zst) zstd -dcq "$file" ;;
	*) cat "$file" ;;
	esac >"$tree/modules/$name"
	echo "$name" >>"$tree/modules/order"
done
install -m 755 "$here/guest/init" "$tree/init"
install -m 755 "$here/guest/run" "$tree/lab/run"
(cd "$tree" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1) >"$out.$$"
mv "$out.$$" "$out"
