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

verify()
{
	pool_of 2 1G
	guest "$1" verify -c 4
	same_here
}

@test "6.1, four CPUs: what fio wrote verifies, under snapshots, and reads the same in userspace" {
	verify 6.1
}

@test "6.12, four CPUs: what fio wrote verifies, under snapshots, and reads the same in userspace" {
	verify 6.12
}

cut_off()
{
	local i pid
	pool_of 2 512M
	guest "$1" writer -p "$T/pid" -t 120 >"$T/said" 2>&1 3>&- &
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

@test "6.1: a guest killed under load leaves a clean pool, and all that was flushed" {
	cut_off 6.1
}

@test "6.12: a guest killed under load leaves a clean pool, and all that was flushed" {
	cut_off 6.12
}

edges()
{
	pool_of 2 64M
	guest "$1" edges
	same_here
}

# bats test_tags=short
@test "6.1: a full pool, a failed member, growth and reloads under I/O" {
	edges 6.1
}

@test "6.12: a full pool, a failed member, growth and reloads under I/O" {
	edges 6.12
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

limits()
{
	pool_of 2 64M
	truncate -s 64M m2
	guest "$1" limits
	vdpool check --takeover pool
	[ "$(read_volume a | head -c 16M | sha256sum)" = "$(cat job/head.a)" ]
	vdpool check --device "$T/m2" four
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=four readonly=true device="$T/m2" \
		--run 'nbdcopy "nbd+unix:///v?socket=$unixsocket" -' 3>&- | sha256sum | cmp - job/four.v
}

@test "6.1: a volume's queue has the limits of blocks and of the pool's sectors, also on 4Kn members" {
	limits 6.1
}

# bats test_tags=short
@test "6.12: a volume's queue has the limits of blocks and of the pool's sectors, also on 4Kn members" {
	limits 6.12
}

removed()
{
	pool_of 2 64M
	guest "$1" removed
	same_here
}

@test "6.1: what is removed while it is open goes when it is closed" {
	removed 6.1
}

@test "6.12: what is removed while it is open goes when it is closed" {
	removed 6.12
}

forced()
{
	pool_of 2 64M
	guest "$1" forced -t 600
	same_here
}

@test "6.1: a volume, or its pool, is removed by force while writes go on, or wait for space: these fail, and it comes back" {
	forced 6.1
}

@test "6.12: a volume, or its pool, is removed by force while writes go on, or wait for space: these fail, and it comes back" {
	forced 6.12
}

extents()
{
	pool_of 2 64M
	truncate -s 64M m2
	guest "$1" extents -t 600
	same_here
}

@test "6.1: data, the journal, superblocks, nodes or a whole member fail; what was flushed is there when they are mended" {
	extents 6.1
}

@test "6.12: data, the journal, superblocks, nodes or a whole member fail; what was flushed is there when they are mended" {
	extents 6.12
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

# logged KERNEL CUTS: a log of all writes, cut after as many of its entries as CUTS prints numbers of (of `list`)
logged()
{
	local i at=0 acked cuts
	pool_of 1 64M
	cp --sparse=always m0 image
	truncate -s 1G m1
	guest "$1" logged -t 900
	mv m1 writes
	"$VD/tests/lab/replay.py" writes >list
	cuts=$($2 | sort -nu)
	echo "$(wc -l <list) entries, cut after" $cuts
	for i in $cuts; do
		"$VD/tests/lab/replay.py" writes image $at "$i"
		at=$i
		cp --sparse=always image m0
		rm -f run/*
		vdpool check -q --takeover pool || { echo "cut after entry $i: not clean"; return 1; }
		acked=$(head -n "$i" list | awk '$2 == "mark" {m = $3} END {print m}')
		[ -z "$acked" ] || has_flushed "$acked" || { echo "cut after entry $i, mark $acked"; return 1; }
	done
}
blocks() { local b; for ((b = 0; b <= $1; b++)); do yes "block $b" | head -c 4096; done; }

# has_flushed MARK: what logged.sh had flushed, and made and deleted, before it
has_flushed()
{
	local k have
	have=$(vdls --noheadings -o name pool | tr -d ' ' | grep -vx load)
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool readonly=true --run "
		for v in ${have//$'\n'/ }; do nbdcopy \"nbd+unix:///\$v?socket=\$unixsocket\" v.\$v || exit 1; done" 3>&-
	cmp -n $((4096 * ($1 + 1))) v.log <(blocks "$1") || { echo "not all of $1 blocks"; return 1; }
	for ((k = 6; k < 60; k += 7)); do
		if grep -qx "s$k" <<<"$have"; then
			[ $((k % 14)) != 6 ] || [ "$1" -lt $((k + 8)) ] || { echo "s$k is there again"; return 1; }
			cmp -n $((4096 * (k + 2))) "v.s$k" <(blocks $k; head -c 4096 /dev/zero) || { echo "s$k is not exact"; return 1; }
		elif [ "$1" -gt "$k" ] && { [ $((k % 14)) != 6 ] || [ "$1" -lt $((k + 7)) ]; }; then
			echo "s$k is missing"
			return 1
		fi
	done
}

some() { awk '/ mark / && ++m % 6 == 0 {print NR}' list; grep -nE 'flush|fua' list | cut -d: -f1 | shuf -n 12; shuf -i 1-"$(wc -l <list)" -n 12; }
# bats test_tags=short
@test "6.1: cut anywhere in a log of all writes, the pool is clean, has what was flushed, and its snapshots are exact" {
	logged 6.1 some
}

every() { grep -nE 'flush|fua|mark' list | cut -d: -f1; shuf -i 1-"$(wc -l <list)" -n 100; }
@test "6.12: cut after each flush of a log of all writes, the pool is clean, has what was flushed, and its snapshots are exact" {
	logged 6.12 every
}
