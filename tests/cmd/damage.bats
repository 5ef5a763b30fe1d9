#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Members that are missing, stale or damaged.
load helper
THREADS=1

filled() { make_pool 2 64m; make_volume v 64m; make_volume w 64m; serve; random 30000000 >img
	nbdcopy img "$(uri v)"; ok vdsnap p/v -n s; nbdcopy img "$(uri w)"; end_servers TERM; }

@test "a pool with a member missing is read-only, and says which is missing" {
	filled
	mv m1 away
	ok vdpool show p
	says read-only
	run vdpool show p
	says missing
	must 5 vdcreate p/x -L 1m
	says "members missing"
	mv away m1
	ok vdcreate p/x -L 1m
}

@test "a pool with a member missing is served read-only, and its metadata can be read" {
	need nbdinfo
	filled
	mv m1 away
	serve
	nbdinfo --is read-only "$(uri v)"
	ok vdls p
	says v s w
	end_servers TERM
	mv away m1
	serve
	nbdcopy "$(uri v)" out
	cmp -n 30000000 img out
}

@test "a member that comes back stale is not trusted" {
	filled
	cp m1 old1
	serve
	nbdcopy img "$(uri w)"
	ok vdsnap p/w -n late
	end_servers TERM
	cp m1 new1
	cp old1 m1
	run vdcreate p/x -L 1m
	[ "$status" != 0 ]
	ok vdls p
	says late
	cp new1 m1
	ok vdpool check p
}

@test "what a stale member holds is not served as what was written since" {
	need qemu-io nbdcopy
	make_pool 2 16m
	make_volume v 4m
	serve
	io v 'write -P 1 0 4m' flush
	end_servers TERM
	cp m0 old0
	cp m1 old1
	serve
	io v 'write -P 2 0 4m' flush # in place
	end_servers TERM
	local m failed=0
	for m in 0 1; do
		mv m$m new$m
		cp old$m m$m
		serve
		run qemu-io -r -f raw -c 'read -P 2 0 4m' "$(uri v)"
		says_not "verification failed"
		[[ $output == *"read failed"* ]] && failed=1
		end_servers TERM
		mv new$m m$m
	done
	[ $failed = 1 ]
}

@test "one damaged copy of metadata is read from the other, and rewritten by a repair" {
	filled
	local addr
	addr=$(vdpool dump p --noheadings -o block,member 2>/dev/null | awk '$2==0||NF==1{print $1; exit}')
	[ -n "$addr" ] || addr=$(vdpool dump --noheadings p | awk '{print $4; exit}')
	dd if=/dev/urandom of=m0 bs=4096 seek="$addr" count=1 conv=notrunc status=none
	serve
	nbdcopy "$(uri v)" out
	cmp -n 30000000 img out
	end_servers TERM
	run vdpool check --repair p
	ok vdpool check p
}

@test "a damaged first superblock slot does not matter" {
	filled
	dd if=/dev/urandom of=m0 bs=4096 seek=4 count=4 conv=notrunc status=none
	ok vdls p
	says v
}

@test "a label that is overwritten is a member missing, not a pool lost" {
	filled
	cp m0 keep
	dd if=/dev/zero of=m0 bs=4096 count=1 conv=notrunc status=none
	run vdpool show p
	says "missing"
	must 5 vdcreate p/x -L 1m
	cp keep m0
	ok vdpool check p
}

@test "members full of noise are no pool, and are not touched" {
	random 67108864 >m0
	echo "$T/m0" >etc/devices
	sha256sum m0 >sum
	run vdpool ls
	must 3 vdpool show p
	must 3 vdpool check p
	sha256sum -c --quiet sum
}

@test "a truncated member is refused for writing" {
	filled
	cp m1 keep
	truncate -s 20m m1
	run vdcreate p/x -L 1m
	[ "$status" != 0 ]
	cp keep m1
	ok vdpool check p
}

@test "random damage never ends the server or a command with a signal" {
	need nbdcopy
	filled
	no_check
	cp m0 good0
	cp m1 good1
	local i off
	for i in $(seq 12); do
		cp good0 m0
		cp good1 m1
		for off in 1 2 3 4 5 6 7 8; do
			dd if=/dev/urandom of=m$((RANDOM % 2)) bs=512 seek=$((RANDOM % 4000)) count=$((1 + RANDOM % 8)) conv=notrunc status=none
		done
		run vdpool check p
		[ "$status" -lt 128 ]
		run vdls p
		[ "$status" -lt 128 ]
		if serve >/dev/null 2>&1; then
			nbdcopy "$(uri v)" null: 2>/dev/null || true
			nbdcopy img "$(uri w)" 2>/dev/null || true
			kill -0 $SERVER
			end_servers TERM
			wait $SERVER || [ $? -lt 128 ]
		fi
	done
}

@test "a missing base image is said, and the others are served" {
	need nbdinfo
	make_pool
	random 1048576 >base
	ok vdcreate p/b --base base
	make_volume v
	mv base away
	serve
	refused nbdinfo "$(uri b)"
	grep base run/serve.log
	nbdinfo "$(uri v)"
	mv away base
	nbdinfo "$(uri b)"
}
