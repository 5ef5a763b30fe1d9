# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# In the guest of links.sh, by hand: waits.sh DISK. What it has done is told in /job.
mkdir -p /mnt/hand
while :; do
	udevadm wait --settle --timeout=3600 "$1" || exit
	systemd-mount -q --fsck=no --collect "$1" /mnt/hand # by a unit, as vdagent does
	: >/job/mounted
	until [ -e /job/undo ]; do sleep 0.005; done
	systemd-umount -q /mnt/hand
	: >/job/unmounted
	udevadm wait --removed --timeout=3600 "$1" || exit
	: >/job/gone
	while [ -e /job/gone ]; do sleep 0.005; done
done
