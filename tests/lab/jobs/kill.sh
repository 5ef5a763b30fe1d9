# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Load on the pool of the last two disks (load.c) until the machine is killed, or the host
# has had enough.  /job/load: a tag for its volumes, the seed.  /job/killed has a line for
# each pair of disks, in order, that a machine left when it was killed: tag, seed and the
# directory of what was told; they are looked at first.
# shellcheck disable=SC2086 # one word a disk
. /vd/tests/lab/jobs/common.sh
load=/vd/build/tests/lab/load
read -r tag seed </job/load
names() { message list | cut -d' ' -f2; }
# The volumes of a pool that was killed, in this kernel
look() # TAG SEED DIR
{
	local v concise=''
	names >/tmp/names
	for v in $(cat /tmp/names); do
		concise+="$v,,,ro,0 16384 vd-volume /dev/mapper/pool $v;"
	done
	dmsetup create --concise "${concise%;}"
	$load check "$1" "$2" "/job/$3" /dev/mapper </tmp/names
	dmsetup remove --retry $(cat /tmp/names)
}

more=$DISKS
while read -r old; do
	read -r d0 d1 more <<<"$more"
	DISKS="$d0 $d1"
	pool_up
	look $old
	[ -z "$more" ] || dmsetup remove --retry pool
done </job/killed
[ -z "$more" ] || DISKS=$more pool_up
for v in 0 1 2; do message "create_thin $tag$v 16384"; volume_up $tag$v 16384; done
$load run $tag $seed /job &
p=$!
while kill -0 $p 2>/dev/null; do sleep 2; sound; done
wait $p
all_down ${tag}0 ${tag}1 ${tag}2
