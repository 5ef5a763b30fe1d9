# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Memory runs out (a guest of 512M): swap on a thin volume, each write of which is a first one,
# takes what a process has more than there is, while files are written to a file system
# on the same pool, of which snapshots come and go.  Nothing waits for ever, nothing is lost.
. /vd/tests/lab/jobs/common.sh
swapped() { awk '/^SwapTotal/ { t = $2 } /^SwapFree/ { print int((t - $2) / 1024) }' /proc/meminfo; }

pool_up
message "create_thin swap 1572864"
volume_up swap 1572864
message "create_thin files 262144"
volume_up files 262144
echo 200 >/proc/sys/vm/swappiness # what is thrown out shall be data: programs thrash in emulation
mkswap /dev/mapper/swap >/dev/null
swapon /dev/mapper/swap
mkfs.ext4 -q /dev/mapper/files
mkdir -p /mnt/files
mount /dev/mapper/files /mnt/files

# shellcheck disable=SC2016 # perl's
perl -e 'sub page { pack("N", $_[0]) x 1024 }
	my ($n, @page) = 110000;
	$page[$_] = page($_) for 0 .. $n - 1;
	for my $i (0 .. $n - 1) { $page[$i] eq page($i) or die "page $i is another\n" }' &
eater=$!
(
	for i in 1 2 3 4; do
		yes "file $i" | head -c 16M >/mnt/files/$i || true
		message "create_snap f$i files"
		[ $i = 1 ] || message "delete f$((i - 1))"
	done
) &
writer=$!
echo "== eating"
most=0
while kill -0 $eater 2>/dev/null; do
	now=$(swapped)
	[ "$now" -le $most ] || most=$now
	sleep 0.5
done
wait $eater
wait $writer
echo "$most MiB were in the swap"
[ $most -gt 60 ]
echo "== all is there"
swapoff /dev/mapper/swap
umount /mnt/files
fsck.ext4 -fn /dev/mapper/files >/dev/null
mount /dev/mapper/files /mnt/files
for i in 1 2 3 4; do cmp /mnt/files/$i <(yes "file $i" | head -c 16M); done
umount /mnt/files
sums files
all_down swap files
