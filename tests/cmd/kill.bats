#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Commands, servers and links that are interrupted or killed.
load helper

linkable() { need_links; make_pool 2 "${1:-256m}"; make_volume v "${2:-128m}"; }
D() { readlink -f "$VD_DEV_DIR/p/$1"; }

# after_kill_at SIGNAL DELAY COMMAND...: starts it and kills it that much later
after_kill_at()
{
	local sig=$1 delay=$2
	shift 2
	"$@" </dev/null >/dev/null 2>&1 3>&- &
	sleep "$delay"
	kill "-$sig" $! 2>/dev/null || true
	wait $! 2>/dev/null || true
	return 0
}
DELAYS="0.001 0.002 0.003 0.004 0.005 0.006 0.008 0.010 0.013 0.017 0.022 0.030 0.045"

@test "vdpool create killed at any point leaves no pool or a whole one" {
	local d i=0
	for d in $DELAYS; do
		i=$((i + 1))
		after_kill_at KILL "$d" vdpool create k$i -L 64m f$i g$i
		if vdpool show k$i >/dev/null 2>&1; then ok vdpool check k$i; else ok vdpool create --force n$i -L 64m f$i g$i; fi
	done
}

@test "vdcreate killed at any point leaves no volume or a whole one" {
	make_pool
	local d i=0
	for d in $DELAYS; do
		i=$((i + 1))
		after_kill_at KILL "$d" vdcreate p/v$i -L 64m
		if vdls p/v$i >/dev/null 2>&1; then [ "$(field p/v$i size)" = 67108864 ]; else ok vdcreate p/v$i -L 64m; fi
	done
	ok vdpool check p
}

@test "vdsnap, vdresize, vdrename, vdrm interrupted by SIGINT and SIGKILL at any point" {
	need qemu-io
	make_pool
	make_volume v 32m
	serve
	io v 'write -P 1 0 8m'
	end_servers TERM
	local d i=0 sig
	for sig in INT KILL; do
		for d in $DELAYS; do
			i=$((i + 1))
			after_kill_at $sig "$d" vdsnap p/v -n s$i
			after_kill_at $sig "$d" vdresize -y p/v -L $((32 + i))m
			after_kill_at $sig "$d" vdrename p/s$i t$i
			after_kill_at $sig "$d" vdrm -y p/s$i
		done
		ok vdpool check p
	done
	serve
	io v 'read -P 1 0 8m'
}

@test "vdpool add killed at any point leaves the pool whole" {
	make_pool 1
	local d i=0
	for d in $DELAYS; do
		i=$((i + 1))
		after_kill_at KILL "$d" vdpool add p -L 32m a$i
		ok vdpool check p
	done
}

@test "a command through the server's socket, killed at any point, does not harm the server" {
	make_pool
	make_volume
	serve
	local d i=0
	for d in $DELAYS; do
		i=$((i + 1))
		after_kill_at KILL "$d" vdsnap p/v -n s$i
		after_kill_at INT "$d" vdls p
		after_kill_at KILL "$d" vdpool check p
	done
	ok vdls p
	ok vdpool check p
}

@test "vdlink killed at any point can be undone, or done again" {
	linkable
	local d
	for d in $DELAYS 0.06 0.08; do
		after_kill_at KILL "$d" vdlink p/v
		for i in 1 2 3 4 5 6 7 8 9 10; do vdlink ls p 2>/dev/null | grep -q unfinished || break; sleep 0.1; done
		vdunlink p/v >out 2>&1 || grep -q "not linked" out || { echo "after $d:"; cat out; return 1; }
		ok vdlink p/v
		ok vdunlink p/v
	done
	[ -z "$(ls run/links/p)" ]
}

@test "vdlink interrupted undoes what it had begun" {
	linkable
	local d
	for d in $DELAYS; do
		after_kill_at INT "$d" vdlink p/v
		if vdlink ls p | grep -q p/v; then [ -b "$(D v)" ]; ok vdunlink p/v; fi
		[ ! -e "$VD_DEV_DIR/p/v" ]
	done
	ok vdlink p/v
}

@test "vdunlink killed at any point can be done again" {
	linkable
	local d
	for d in $DELAYS 0.06; do
		ok vdlink p/v
		after_kill_at KILL "$d" vdunlink p/v
		vdunlink p/v >out 2>&1 || grep -q "not linked" out || { echo "after $d:"; cat out; return 1; }
	done
}

@test "a server killed before its clients have flushed loses nothing that it acknowledged" {
	need qemu-io
	make_pool
	make_volume
	local i
	for i in 1 2 3 4 5 6; do
		serve
		stdbuf -oL qemu-io -f raw -t unsafe -c "write -P $i $((i * 2))m 1m" -c 'sleep 60000' "$(uri v)" >out$i 3>&- &
		wait_for grep wrote out$i
		kill -9 $SERVER
		wait $SERVER || true
		kill $! 2>/dev/null || true
	done
	serve
	for i in 1 2 3 4 5 6; do io v "read -P $i $((i * 2))m 1m"; done
}

@test "fio on a linked device verifies, though the server is killed again and again" {
	need fio
	linkable
	ok vdlink p/v
	fio --name=w --filename="$(D v)" --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=16 --size=96m \
		--io_size=96m --verify=crc32c --verify_fatal=1 --do_verify=1 --rate_iops=6000 --output=out 3>&- &
	local fio=$! i n=0
	for i in 1 2 3 4 5 6 7 8 9 10; do
		sleep 0.3
		kill -0 $fio 2>/dev/null || break
		kill -9 "$(server_pid)" 2>/dev/null && n=$((n + 1))
	done
	wait $fio || { cat out; return 1; }
	echo "$n kills"
	[ $n -ge 1 ] # how many fit in depends on the machine
}

@test "an ext4 with a writer is whole, though the server is killed ten times" {
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	( for i in $(seq 400); do
		random 30000 >mnt/f$i && sha256sum mnt/f$i >>sums || exit 1
		[ $((i % 8)) = 0 ] && { sync mnt/f$i || exit 1; }
	done; exit 0 ) 3>&- &
	local writer=$! i
	for i in 1 2 3 4 5 6 7 8 9 10; do
		wait_for eval '[ -n "$(server_pid)" ]'
		kill -9 "$(server_pid)"
		sleep 0.2
	done
	wait $writer
	umount mnt
	e2fsck -fn "$(D v)"
	mount "$(D v)" mnt
	sha256sum -c --quiet sums
	[ "$(wc -l <sums)" = 400 ]
}

@test "a server that is told to end is replaced under a mounted file system" {
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	local i
	for i in 1 2 3; do
		kill -TERM "$(server_pid)"
		random 1000000 >mnt/f$i
		sync mnt/f$i
	done
	umount mnt
	e2fsck -fn "$(D v)"
}

@test "without a server requests fail after the time limit, and work again when it is back" {
	linkable
	export VD_LINK_TIMEOUT=2
	ok vdlink p/v
	random 65536 >img
	dd if=img of="$(D v)" bs=64k oflag=direct conv=fsync status=none
	mv m1 away # it cannot be started again
	mv m0 away0
	kill -9 "$(server_pid)"
	refused timeout 30 dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct
	says "Input/output error"
	mv away m1
	mv away0 m0
	wait_for dd if="$(D v)" of=out bs=64k count=1 iflag=direct status=none
	cmp img out
	grep "no server for" run/p.log
}

@test "a server that lost the redo tail is never written to: errors until linked again" {
	linkable
	ok vdlink p/v
	random 65536 >img
	dd if=img of="$(D v)" bs=64k oflag=direct conv=fsync status=none
	random 65536 | dd of="$(D v)" bs=64k seek=4 oflag=direct status=none
	local front
	front=$(vdlink ls --noheadings -o pid | tr -d ' ')
	kill -STOP "$front"
	kill -9 "$(server_pid)"
	rm -f run/*.tail
	kill -CONT "$front"
	refused dd if=/dev/zero of="$(D v)" bs=4k count=1 oflag=direct
	says "Input/output error"
	refused dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct
	grep "without the redo tail" run/p.log
	ok vdunlink p/v
	ok vdlink p/v
	dd if="$(D v)" of=out bs=64k count=1 iflag=direct status=none
	cmp img out
}

@test "a front ignores SIGTERM and SIGINT" {
	linkable
	ok vdlink p/v
	local f
	f=$(vdlink ls --noheadings -o pid | tr -d ' ')
	kill -TERM "$f"
	kill -INT "$f"
	dd if="$(D v)" of=/dev/null bs=4k count=1 iflag=direct status=none
	[ "$(vdlink ls --noheadings -o state | tr -d ' ')" = up ]
}

@test "two commands that link two volumes at once both succeed" {
	linkable
	make_volume w
	vdlink p/v >o1 2>&1 3>&- &
	local a=$!
	vdlink p/w >o2 2>&1 3>&- &
	local b=$!
	wait $a || { cat o1; return 1; }
	wait $b || { cat o2; return 1; }
	[ "$(server_pids | wc -l)" = 1 ]
	[ -b "$(D v)" ] && [ -b "$(D w)" ]
}

@test "of four commands that link one volume at once one succeeds" {
	linkable
	local i n=0 pids=()
	for i in 1 2 3 4; do vdlink p/v >o$i 2>&1 3>&- & pids+=($!); done
	for i in "${pids[@]}"; do wait "$i" && n=$((n + 1)); done
	[ $n = 1 ]
}
