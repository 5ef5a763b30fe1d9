# SPDX-License-Identifier: GPL-2.0-only
# The module in real kernels, and its pools in the userspace engine.
load helper

files()
{
	pool_of 2 512M
	vdcreate -q -L 32M pool/old
	yes "what userspace wrote" | head -c 32M >job/old.img || true
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool --run 'nbdcopy job/old.img "nbd+unix:///old?socket=$unixsocket"' 3>&-
	guest "$1" files
	same_here
	cmp job/old.img <(read_volume old)
}

# bats test_tags=short
@test "6.1: a file system, its snapshot, and what userspace wrote: the same in both engines" {
	files 6.1
}

@test "6.12: a file system, its snapshot, and what userspace wrote: the same in both engines" {
	files 6.12
}

@test "6.1, four CPUs: what fio wrote verifies, under snapshots, and reads the same in userspace" {
	pool_of 2 1G
	guest 6.1 verify -c 4
	same_here
}

@test "6.1: a guest killed under load leaves a clean pool, and all that was flushed" {
	local i pid
	pool_of 2 512M
	guest 6.1 writer -p "$T/pid" -t 120 >"$T/said" 2>&1 3>&- &
	for ((i = 0; i < 900; i++)); do
		[ "$(wc -l 2>/dev/null <job/acked || echo 0)" -lt $((30 + RANDOM % 60)) ] || break
		sleep 0.1
	done
	pid=$(cat "$T/pid")
	kill -KILL "$pid"
	wait $! || true
	cat "$T/said"
	[ "$(wc -l <job/acked)" -ge 30 ]
	vdpool check --takeover pool
	read_volume log >log.img
	while read -r i; do
		cmp -n 4096 -i $((i * 4096)):0 log.img <(yes "block $i" | head -c 4096)
	done <job/acked
}

# bats test_tags=short
@test "6.1: a full pool, a failed member, growth and reloads under I/O" {
	pool_of 2 64M
	guest 6.1 edges
	same_here
}

@test "6.1: writes wait in a full pool; a pool is suspended with its volumes" {
	pool_of 2 64M
	guest 6.1 space
	same_here
}

# bats test_tags=short
@test "6.12: writes wait in a full pool; a pool is suspended with its volumes" {
	pool_of 2 64M
	guest 6.12 space
	same_here
}

grown()
{
	pool_of 2 64M
	truncate -s 96M m0
	truncate -s 64M m2
	guest "$1" members
	echo "$T/m2" >>etc/devices
	same_here
}

@test "6.1: members are added and grow while a volume is written" {
	grown 6.1
}

# bats test_tags=short
@test "6.12: members are added and grow while a volume is written" {
	grown 6.12
}

messages()
{
	pool_of 2 64M
	guest "$1" messages
	same_here
	vdserver export --takeover pool | grep -qx 'qmp = /run/a b.qmp'
}

# bats test_tags=short
@test "6.1: messages do what they say, and it stays" {
	messages 6.1
}

@test "6.12: messages do what they say, and it stays" {
	messages 6.12
}

refusals()
{
	pool_of 2 64M
	truncate -s 96M m0
	guest "$1" refusals
	same_here
}

@test "6.1: what cannot be done as asked is refused; a pool that has failed is resumed, to be read" {
	refusals 6.1
}

# bats test_tags=short
@test "6.12: what cannot be done as asked is refused; a pool that has failed is resumed, to be read" {
	refusals 6.12
}

bases()
{
	local v
	pool_of 2 64M
	head -c $(((5 << 20) + 1536)) /dev/urandom >short
	head -c $(((9 << 20) + 512)) /dev/urandom >long
	vdcreate -q -L 8M --base short pool/short
	vdcreate -q -L 4M --base long pool/long
	vdcreate -q -L 4M pool/plain
	cp short long job
	for v in short long; do read_volume $v | sha256sum >job/before.$v; done
	guest "$1" base
	same_here
}

@test "6.1: volumes on base images read, fill up and discard as in userspace" {
	bases 6.1
}

@test "6.12: volumes on base images read, fill up and discard as in userspace" {
	bases 6.12
}

# bats test_tags=short
@test "6.1: cut anywhere in a log of all writes, the pool is clean and has what was flushed" {
	local i n at=0 acked cuts mark
	pool_of 1 64M
	cp --sparse=always m0 image
	truncate -s 1G m1
	guest 6.1 logged
	mv m1 log
	"$VD/tests/lab/replay.py" log >list
	n=$(wc -l <list)
	cuts=$( (grep -nE ' mark ' list | awk -F: 'NR % 6 == 0 {print $1}'; grep -nE 'flush' list | cut -d: -f1 | shuf -n 12; shuf -i 1-"$n" -n 12) | sort -nu)
	echo "$n entries, cut after" $cuts
	for i in $cuts; do
		"$VD/tests/lab/replay.py" log image $at "$i"
		at=$i
		cp --sparse=always image m0
		rm -f run/*
		vdpool check -q --takeover pool || { echo "cut after entry $i: not clean"; return 1; }
		acked=$(head -n "$i" list | awk '$2 == "mark" {m = $3} END {print m + 0}')
		mark=$(head -n "$i" list | grep -c ' mark ' || true)
		[ "$mark" = 0 ] || read_volume log 2>/dev/null | cmp -n $((4096 * (acked + 1))) - <(for ((b = 0; b <= acked; b++)); do yes "block $b" | head -c 4096; done) ||
			{ echo "cut after entry $i: not all of $acked blocks"; return 1; }
	done
}
