# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A file system (/job/fs: ext4 or xfs) at work on a volume: a tree unpacked, something
# compiled, a stress of everything that has to do with files; a snapshot on the way. Then the same
# volume's worth in partitions.
. /vd/tests/lab/jobs/common.sh
fs=$(cat /job/fs)
S=786432
sum_tree() { (cd "$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum); }
make_fs() { if [ "$fs" = xfs ]; then mkfs.xfs -q -f "$1"; else mkfs.ext4 -q "$1"; fi; }
check_fs() { if [ "$fs" = xfs ]; then xfs_repair -n "$1" >/tmp/checked 2>&1; else fsck.ext4 -fn "$1" >/tmp/checked 2>&1; fi || { cat /tmp/checked; return 1; }; }
mount_copy() { if [ "$fs" = xfs ]; then mount -o nouuid "$1" "$2"; else mount "$1" "$2"; fi; } # of a file system that is mounted, too

pool_up
message "create_thin work $S"
volume_up work $S
mkdir -p /mnt/work /mnt/copy
make_fs /dev/mapper/work
mount /dev/mapper/work /mnt/work

echo "== unpack, compile"
tar c -C /vd --exclude=corpus cmd dm-target docs libvol man tests | tar x -C /mnt/work
for d in cmd libvol dm-target/core; do diff -r /vd/$d /mnt/work/$d; done
mkdir /mnt/work/c
cd /mnt/work/c
for i in $(seq 30); do
	{ for j in $(seq 30); do echo "int f${i}_$j(int x) { char s[64] = \"function $i $j\"; return x + s[9] + $i * $j; }"; done
	echo "int f$i(int x) { return 0$(for j in $(seq 30); do echo -n " + f${i}_$j(x)"; done); }"; } >f$i.c
done
{ for i in $(seq 30); do echo "int f$i(int);"; done
echo "#include <stdio.h>"
echo "int main(void) { int n = 0; $(for i in $(seq 30); do echo -n "n += f$i($i); "; done) printf(\"%d\\n\", n); return 0; }"; } >main.c
printf 'all: main\nmain: %s main.o\n\ttcc -o $@ $^\n%%.o: %%.c\n\ttcc -c -o $@ $<\n' "$(for i in $(seq 30); do echo -n " f$i.o"; done)" >Makefile
make -s -j4
n=0
for i in $(seq 30); do for j in $(seq 30); do printf -v s 'function %s' "$i"; printf -v c %d "'${s:9:1}"; n=$((n + i + c + i * j)); done; done
[ "$(./main)" = $n ]
cd /

echo "== a snapshot"
sync
dmsetup suspend work
message "create_snap then work"
dmsetup resume work
sum_tree /mnt/work >/tmp/then

echo "== stress"
stress-ng --temp-path /mnt/work --timeout 8 --verify --oomable --hdd 1 --hdd-bytes 24M --hdd-opts fsync,wr-rnd --fallocate 1 --fallocate-bytes 16M --fpunch 1 \
	--dentry 1 --dentries 200 --dir 1 --dir-dirs 200 --rename 1 --symlink 1 --link 1 --utime 1 --xattr 1 >/tmp/stress 2>&1 || { tail -20 /tmp/stress; exit 1; }
rm -r /mnt/work/tests /mnt/work/c
cp -r /usr/bin /mnt/work/bin
diff -rq --no-dereference /usr/bin /mnt/work/bin
fstrim /mnt/work

echo "== the snapshot is as it was"
volume_up then $S
mount_copy /dev/mapper/then /mnt/copy
sum_tree /mnt/copy | cmp - /tmp/then
umount /mnt/copy /mnt/work
check_fs /dev/mapper/work
check_fs /dev/mapper/then

echo "== partitions"
message "create_thin disk $S"
volume_up disk $S
printf 'label: gpt\nsize=300M\nsize=60M\n' | sfdisk -q --no-reread --no-tell-kernel /dev/mapper/disk
modprobe loop
loop=$(losetup -fP --show /dev/mapper/disk)
make_fs "${loop}p1"
mkswap "${loop}p2" >/dev/null
mount "${loop}p1" /mnt/work
cp -r /vd/libvol /mnt/work
sync
message "create_snap disk-then disk"
rm -r /mnt/work/libvol
fstrim /mnt/work
umount /mnt/work
check_fs "${loop}p1"
losetup -d "$loop"
volume_up disk-then $S
loop=$(losetup -fP --show /dev/mapper/disk-then)
mount "${loop}p1" /mnt/copy
diff -r /vd/libvol /mnt/copy/libvol
umount /mnt/copy
check_fs "${loop}p1"
losetup -d "$loop"
sums work disk-then
all_down work then disk disk-then
