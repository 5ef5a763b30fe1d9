#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Lines "ROW-JOBS TARGET OPERATIONS-PER-SECOND" in /job/samples, by fio: each block of a volume
# once, at random, by one job or each quarter by one of four.  $TIMES of each, in turns.
. /vd/tests/bench/guest/targets.sh
disks_there

for ((i = 0; i < TIMES; i++)); do
	for row in ${ROWS:-read write first}; do
		for jobs in 1 4; do
			for t in ${TARGETS:-linear thin vd}; do
				case $row in
				read) ready "$t" full; op=read ;;
				write) ready "$t" full; op=write ;;
				first) ready "$t" new; op=write ;;
				esac
				fio --name=x --filename=/dev/mapper/t --rw=rand$op --bs=4k --direct=1 --ioengine=libaio --iodepth=32 --iodepth_batch=16 \
					--size=$((mib / jobs))M --offset_increment=$((mib / jobs))M --numjobs=$jobs --thread --group_reporting \
					--output-format=json --output=/tmp/fio
				echo "$row-$jobs $t $(jq ".jobs[0].$op.iops | round" /tmp/fio)" >>/job/samples
				"${t}_down"
			done
		done
	done
done
