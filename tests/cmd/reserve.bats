#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Space that is kept for a volume (D10).
load helper
THREADS=1

# a pool of 64 MiB whose policy is to say that it is full
small() { ok vdpool create p --policy error -L 64m m0; }
fill() { random 100000000 >"$T/big"; ! nbdcopy "$T/big" "$(uri "$1")" 2>err; grep -qi "no space" err; }
pool() { vdpool ls --noheadings --nosuffix --units b -o "$1" p | tr -d ' '; }

# bats test_tags=kernel
@test "what is reserved for a volume is there after others have filled the pool" {
	need nbdcopy qemu-io
	small
	make_volume v 256m
	ok vdcreate --reserve 16m -L 16m -n kept p
	serve
	fill v
	io kept 'write -P 5 0 16m' flush 'read -P 5 0 16m'
	ok vdpool check p
}

@test "single blocks all over a volume get what is reserved too" {
	need nbdcopy qemu-io
	small
	make_volume v 256m
	ok vdcreate --reserve 4m -L 64m -n kept p
	serve
	fill v
	local i c=()
	for ((i = 0; i < 1024; i++)); do c+=("write -P 5 $((i * 64 * 1024)) 4k"); done
	io kept "${c[@]}" flush 'read -P 5 64512k 4k'
	ok vdpool check p
}

@test "a reservation outlives a crash, used and unused" {
	need_server "a process that is killed"
	need nbdcopy qemu-io
	small
	make_volume v 256m
	ok vdcreate --reserve 16m -L 16m -n kept p
	serve
	io kept 'write -P 5 0 4m' flush
	kill -9 $SERVER
	wait $SERVER || true
	serve
	[ "$(field p/kept reserved)" = 16777216 ]
	[ "$(field p/kept reserved_unused)" = 12582912 ]
	fill v
	io kept 'write -P 6 0 16m' 'read -P 6 0 16m'
}

@test "more than there is cannot be reserved, and what could be is told" {
	small
	must 5 vdcreate --reserve all -L 64m -n x p
	says "cannot be created" "64.00m would have to be kept" "to promise"
	must 5 vdcreate -t --reserve all -L 64m -n x p
	must 3 vdls p/x
	ok vdcreate --reserve all -L 32m -n a p
	must 5 vdcreate --reserve 32m -L 32m -n b p
	make_volume b 32m
	must 5 vdresize --reserve all p/b
	says "32.00m" "to promise"
	ok vdresize --reserve 10m p/b
	says "10.00m are kept"
	ok vdresize --reserve 0 p/a
	ok vdresize --reserve all p/b
}

@test "a reservation that makes no sense is refused" {
	small
	must 2 vdcreate --reserve 2m -L 1m -n x p
	says "more than it can ever use"
	must 2 vdcreate --reserve lots -L 1m -n x p
	make_volume v 1m
	must 2 vdresize --reserve 2m p/v
	must 2 vdresize p/v
	must 2 vdresize -L 2m --reserve 1m p/v
}

@test "removing a volume, or making it smaller, gives back what was reserved" {
	small
	ok vdcreate --reserve all -L 40m -n a p
	local with
	with=$(pool free)
	[ "$(pool reserved)" -ge 41943040 ]
	ok vdresize -y -L 20m p/a
	[ "$(field p/a reserved)" = 20971520 ]
	[ "$(pool free)" -gt $((with + 20000000)) ]
	ok vdrm -y p/a
	[ "$(pool reserved)" = 0 ]
}

@test "a snapshot of a reserved volume needs its space once more, or is refused" {
	need qemu-io nbdcopy
	small
	ok vdcreate --reserve all -L 20m -n a p
	make_volume v 256m
	serve
	io a 'write -P 1 0 20m' flush
	[ "$(field p/a reserved_unused)" = 0 ]
	ok vdsnap p/a -n s
	[ "$(field p/a reserved_unused)" = 20971520 ]
	[ "$(field p/s reserved)" = 0 ]
	fill v
	io a 'write -P 2 0 20m' flush
	io s 'read -P 1 0 20m'
	must 5 vdsnap p/a -n s2
	says "p/a cannot be snapshotted" "20.00m would have to be kept"
	ok vdresize --reserve 0 p/a
	ok vdsnap p/a -n s2
}

@test "a full pool takes writes again when a reservation is given up" {
	need nbdcopy
	small
	make_volume v 30m
	ok vdcreate --reserve all -L 40m -n a p
	serve
	random 30000000 >img
	refused nbdcopy img "$(uri v)"
	ok vdresize --reserve 0 p/a
	nbdcopy img "$(uri v)"
}

@test "reservations are told by vdls, vdpool show and in JSON" {
	need jq
	small
	ok vdcreate --reserve 8m -L 16m -n a p
	ok vdls -o name,reserved,reserved_unused p
	says 8.00m
	ok vdpool show p
	says "Reserved"
	[ "$(vdls --reportformat json -o reserved p | jq '.report[0].volume[0].reserved')" = 8388608 ]
	[ "$(vdpool show --reportformat json p | jq '.report[0].pool[0].reserved')" -ge 8388608 ]
}
