# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Pools with damage anywhere in their metadata: the kernel may refuse them, read them or
# write them; it does not complain, and it goes on.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 <<<"$DISKS"
pool_up
for i in 1 2 3; do
	message "create_thin v$i 8192"
	volume_up v$i 8192
	fio_on v$i --rw=randwrite --bs=4k --size=4M --verify=0
	message "create_snap s$i v$i"
	fio_on v$i --rw=randwrite --bs=4k --size=4M --io_size=1M --verify=0
	[ $i != 2 ] || message checkpoint
done
[ ! -e /job/journal ] || message checkpoint
sync
dd if="$d0" of=/tmp/d0 bs=1M conv=sparse status=none # as after a power cut
dd if="$d1" of=/tmp/d1 bs=1M conv=sparse status=none
for i in 1 2 3; do dmsetup remove --retry v$i; done
dmsetup remove --retry pool

# Superblocks, the beginning of the journal, and wherever a node is.
mapfile -t blocks < <({ seq 0 7; seq 8 60; cat /tmp/d0 /tmp/d1 | grep -obUa vNOD | awk -F: '$1 % 4096 == 0 {print $1 / 4096 % 16384}'; } | sort -nu)
echo "${#blocks[@]} blocks of metadata"
opened=0 refused=0
for ((round = 0; round < ${ROUNDS:-20}; round++)); do
	RANDOM=$round
	dd if=/tmp/d0 of="$d0" bs=1M status=none
	dd if=/tmp/d1 of="$d1" bs=1M status=none
	for ((k = 0; k < 1 + round % 12; k++)); do
		for d in "$d0" "$d1"; do
			[ $((RANDOM % 3)) != 0 ] || continue
			at=${blocks[RANDOM % ${#blocks[@]}]}
			if [ $((RANDOM % 2)) = 0 ]; then
				dd if=/dev/urandom of="$d" bs=4096 count=1 seek="$at" conv=notrunc status=none
			else
				head -c 4 /dev/urandom | dd of="$d" bs=1 seek=$((at * 4096 + RANDOM % 4000)) conv=notrunc status=none
			fi
		done
	done
	if pool_up 2>/dev/null; then
		opened=$((opened + 1))
	else
		refused=$((refused + 1))
		continue
	fi
	for i in 1 2 3; do
		volume_up v$i 8192 2>/dev/null || dmsetup create -r v$i --table "0 8192 vd-volume /dev/mapper/pool v$i" 2>/dev/null || continue
		dd if=/dev/mapper/v$i of=/dev/null bs=64k iflag=direct conv=noerror status=none 2>/dev/null || true
		dd if=/dev/zero of=/dev/mapper/v$i bs=64k count=8 oflag=direct conv=notrunc,fsync status=none 2>/dev/null || true
		message "create_snap t$i v$i" 2>/dev/null || true
		blkdiscard -l 1M /dev/mapper/v$i 2>/dev/null || true
	done
	message "delete s1" 2>/dev/null || true
	message checkpoint 2>/dev/null || true
	dmsetup status >/dev/null
	for i in 1 2 3; do dmsetup remove --retry v$i 2>/dev/null || true; done
	dmsetup remove --retry pool
done
echo "$opened opened, $refused refused"
[ $opened -gt 5 ]
unload
! dmesg | grep -E 'WARNING:|BUG:|KASAN|UBSAN|Call Trace|blocked for more|INFO: |sleeping function'
