#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Commands, servers and links that are interrupted or killed.
load helper

linkable() { need_links; make_pool 2 "${1:-256m}"; make_volume v "${2:-128m}"; }
D() { readlink "$VD_DEV_DIR/p/$1"; }

# after_kill_at SIGNAL DELAY COMMAND...: starts it and kills it that much later
after_kill_at() { timeout --foreground -s "$1" "$2" "${@:3}" </dev/null >/dev/null 2>&1 3>&- || true; }
DELAYS=${DELAYS:-"0.001 0.002 0.003 0.004 0.005 0.006 0.008 0.010 0.013 0.017 0.022 0.030 0.045"}

# What a command does that another can see.  To be killed between two of these calls
# is to be killed at the second.  Of ioctl, those by which the kernel is asked for it.
CALLS="mkdir ftruncate fallocate pwrite64 fdatasync fsync write rename unlink sendto ioctl"

# at_each_call CHECK COMMAND...: kills it at its 1st, 2nd, 3rd … call of each kind, until
# it gets through without coming to the one; CHECK after each (one chain of &&, for
# "set -e" does not reach it), and everything as it was before the next.
at_each_call()
{
	local check=$1 call n kills=0 what
	shift
	need strace
	strace -f -o trace true 2>/dev/null || skip "strace cannot be used here"
	at_rest
	mkdir before
	cp -a --sparse=always etc run m? before
	at_work
	ok strace -f -qq -o calls -e trace="${CALLS// /,}" "$@" # the kinds that it comes to
	as_before
	for call in $CALLS; do
		grep -q "\<$call(" calls || continue
		what=(-e trace="$call")
		[ "$call" != ioctl ] || what+=(-P /dev/mapper/control)
		for ((n = 1;; n++)); do
			run strace -f -qq -o trace "${what[@]}" -e inject="$call:signal=KILL:when=$n" "$@" </dev/null
			[ "$status" != 0 ] || break
			[ "$status" = 137 ] || { echo "status $status with $call number $n:"; echo "$output"; return 1; }
			kills=$((kills + 1))
			"$check" >after 2>&1 || { echo "killed at $call number $n, and then:"; tail -3 trace; cat after; return 1; }
			as_before
		done
		as_before
	done
	echo "$kills kills"
	[ $kills -ge 5 ]
}
as_before() { at_rest; rm -rf etc run m? n?; cp -a --sparse=always before/* .; at_work; }
# Done now, or done already and then this says so.
done_now_or_before() { local why=$1; shift; run "$@"; [ "$status" = 0 ] || says "$why"; }

create_or_whole()
{
	if vdpool show k >/dev/null 2>&1; then ok vdpool check k; else ok vdpool create --force l -L 16m n0 n1 && ok vdpool check l; fi
}
@test "vdpool create killed at any point leaves no pool or a whole one" {
	make_pool 1 16m
	at_each_call create_or_whole vdpool create k -L 16m n0 n1
}

add_again()
{
	ok vdpool check p && ok vdpool show p &&
		{ [[ $output == *n0* ]] || ok vdpool add --force p -L 16m n0; } && ok vdpool check p
}
@test "vdpool add killed at any point leaves the pool whole" {
	make_pool 1 16m
	at_each_call add_again vdpool add p -L 16m n0
}

grow_again()
{
	ok vdpool check p && ok vdpool grow p -L 32m &&
		[ "$(vdpool ls --noheadings --nosuffix --units b -o size p | tr -d ' ')" = 33554432 ] && ok vdpool check p
}
@test "vdpool grow killed at any point can be done again" {
	make_pool 1 16m
	at_each_call grow_again vdpool grow p -L 32m
}

# What is in the redo tail alone is there for the next writer, not for a reader:
# the next writer is asked first.
vdcreate_again()
{
	done_now_or_before "exists already" vdcreate p/w -L 8m && [ "$(field p/w size)" = 8388608 ] && ok vdpool check p
}
@test "vdcreate killed at any point leaves no volume or a whole one" {
	make_pool 1 16m
	at_each_call vdcreate_again vdcreate p/w -L 8m
}

vdsnap_again()
{
	done_now_or_before "exists already" vdsnap p/v -n s && ok vdls p/s && ok vdpool check p
}
@test "vdsnap killed at any point leaves no snapshot or a whole one" {
	make_pool 1 16m
	make_volume v 4m
	at_each_call vdsnap_again vdsnap p/v -n s
}

vdresize_again()
{
	{ [ "$(field p/v size)" = 4194304 ] || [ "$(field p/v size)" = 8388608 ]; } && ok vdresize -y p/v -L 8m &&
		[ "$(field p/v size)" = 8388608 ] && ok vdpool check p
}
@test "vdresize killed at any point can be done again" {
	make_pool 1 16m
	make_volume v 4m
	at_each_call vdresize_again vdresize -y p/v -L 8m
}

vdrename_again()
{
	done_now_or_before "no volume p/v" vdrename p/v w && ok vdls p/w && must 3 vdls p/v && ok vdpool check p
}
@test "vdrename killed at any point leaves one name or the other" {
	make_pool 1 16m
	make_volume v 4m
	at_each_call vdrename_again vdrename p/v w
}

vdrm_again()
{
	done_now_or_before "no volume p/v" vdrm -y p/v && must 3 vdls p/v && ok vdpool check p
}
@test "vdrm killed at any point can be done again" {
	make_pool 1 16m
	make_volume v 4m
	at_each_call vdrm_again vdrm -y p/v
}

@test "vdsnap, vdresize, vdrename, vdrm interrupted by SIGINT and SIGKILL after any time" {
	need qemu-io
	make_pool
	make_volume v 32m
	serve
	io v 'write -P 1 0 8m'
	end_servers TERM
	at_work
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

@test "vdcreate -a y killed at any point leaves no volume or one that can be linked" {
	need_links
	make_pool 2 256m
	local d i=0
	for d in $DELAYS 0.06 0.08; do
		i=$((i + 1))
		after_kill_at KILL "$d" vdcreate -a y -L 16m p/k$i
		for _ in 1 2 3 4 5 6 7 8 9 10; do vdlink ls p 2>/dev/null | grep -q unfinished || break; sleep 0.1; done
		vdunlink p/k$i >out 2>&1 || grep -qE "not linked|no volume" out || { echo "after $d:"; cat out; return 1; }
		done_now_or_before "exists already" vdcreate -L 16m p/k$i
		ok vdlink p/k$i
		ok vdunlink p/k$i
	done
	ok vdpool check p
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
	need_server "a process that is killed"
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
	need_server "a process that is killed"
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
	need_server "a process that is killed"
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
		kill -9 "$(server_pid)" || true # one that is gone by now
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
	need_server "a process that is told to end"
	need mkfs.ext4
	linkable
	ok vdlink p/v
	mkfs.ext4 -q "$(D v)"
	mount "$(D v)" mnt
	local i
	for i in 1 2 3; do
		wait_for eval '[ -n "$(server_pid)" ]'
		kill -TERM "$(server_pid)" || true # the one before, at its end
		random 1000000 >mnt/f$i
		sync mnt/f$i
	done
	umount mnt
	e2fsck -fn "$(D v)"
}

@test "without a server requests fail after the time limit, and work again when it is back" {
	need_server "a process that is killed"
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
	need_server "a process that is killed"
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
	need_server "a front"
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

# blocks of a volume as they are read, without a server
contents() { vddiff --noheadings --nosuffix --units b p/s p/v | tr -s ' '; }

rollback_again()
{
	# all of it or nothing: the first block changed and the last together
	{ [ -z "$(contents)" ] || [ "$(contents | wc -l)" = 2 ]; } && ok vdsnap -q -y --rollback p/s && [ -z "$(contents)" ] &&
		[ "$(field p/v size)" = 4194304 ] && ok vdpool check p
}
@test "vdsnap --rollback killed at any point leaves the volume as it was or as the snapshot" {
	need qemu-io
	make_pool 1 16m
	make_volume v 4m
	serve
	io v 'write -P 1 0 64k'
	ok vdsnap p/v -n s
	io v 'write -P 2 0 4k' 'write -P 2 1m 4k'
	end_servers TERM
	at_each_call rollback_again vdsnap -q -y --rollback p/s
}

group_again()
{
	local n
	n=$(vdls --noheadings -o name p | grep -c @g) || true
	{ [ "$n" = 0 ] || [ "$n" = 3 ]; } && done_now_or_before "exists already" vdsnap --group p/a p/b p/c -n g &&
		[ "$(vdls --noheadings -o name p | grep -c @g)" = 3 ] && ok vdpool check p
}
@test "vdsnap --group killed at any point leaves all snapshots or none" {
	make_pool 1 16m
	make_volume a 4m
	make_volume b 4m
	make_volume c 4m
	at_each_call group_again vdsnap --group p/a p/b p/c -n g
}

set_again()
{
	ok vdpool show p && { [[ $output == *"writes wait"* && $output != *"70.0 %"* ]] || [[ $output != *"writes wait"* && $output == *"70.0 %"* ]]; } &&
		ok vdpool set --policy error --thresholds 70,90 --grow-by 4m p && ok vdpool show p && says "70.0 %" "extended by 4.00m" && ok vdpool check p
}
@test "vdpool set killed at any point leaves the old policy or the new" {
	make_pool 1 16m
	at_each_call set_again vdpool set --policy error --thresholds 70,90 --grow-by 4m p
}

@test "vdpool create, vdpool add and vdcreate interrupted by SIGINT after any time" {
	make_pool 1 16m
	local d i=0
	for d in $DELAYS; do
		i=$((i + 1))
		after_kill_at INT "$d" vdpool create k$i -L 16m k$i.0 k$i.1
		vdpool show k$i >/dev/null 2>&1 || ok vdpool create --force k$i -L 16m k$i.0 k$i.1
		after_kill_at INT "$d" vdcreate p/w$i -L 8m
		done_now_or_before "exists already" vdcreate p/w$i -L 8m
		after_kill_at INT "$d" vdpool add p -L 16m a$i
		ok vdpool show p
		[[ $output == *a$i* ]] || ok vdpool add --force p -L 16m a$i
	done
	ok vdpool check p # and k1 to k13 when the test is over
}
