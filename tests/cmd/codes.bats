#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Exit statuses that the man pages promise, and reports in JSON.
load helper

@test "vddiff says what it cannot compare" {
	make_pool
	make_volume v
	make_volume w
	must 2 vddiff p/v p/w
	says "nothing to do with each other"
	must 3 vddiff p/v p/nope
	says nope
	must 3 vddiff p/nope p/v
	must 3 vddiff nope/v nope/w
	must 2 vddiff p/v q/v
	must 2 vddiff p/v
}

@test "vddiff reports in JSON, and in sum" {
	need qemu-io jq
	make_pool
	make_volume
	serve
	io v 'write -P 1 0 1m'
	ok vdsnap p/v -n s
	io v 'write -P 2 64k 8k' 'write -P 2 512k 4k'
	ok vddiff --reportformat json --units b --nosuffix p/s p/v
	jq -e '[.. | objects | select(has("offset")) | [.offset, .length] | map(tostring) | join("+")] == ["65536+8192", "524288+4096"]' <<<"$output"
	ok vddiff -s --noheadings --units b --nosuffix p/s p/v
	says 12288
	says_not 65536
	ok vddiff -s --reportformat json --units b --nosuffix p/s p/v
	jq -e '[.. | scalars | tostring] | index("12288")' <<<"$output"
}

@test "vdpool check and vdpool dump report in JSON" {
	need jq
	make_pool
	make_volume
	ok vdpool check --reportformat json p
	jq -e . <<<"$output"
	ok vdpool dump --reportformat json p
	jq -e '[.. | arrays | select(length > 0)] | length > 0' <<<"$output"
	says '"kind"'
}

@test "vdpool set refuses values that cannot be" {
	make_pool
	make_volume
	must 2 vdpool set --thresholds 101 p
	must 2 vdpool set --thresholds 10,20,30,40,50 p
	must 2 vdpool set --thresholds x p
	must 2 vdpool set --policy maybe p
	must 2 vdpool set --grow-by x p
	must 2 vdpool set --readonly perhaps p/v
	must 2 vdpool set --attr =x p/v
	must 2 vdpool set p
	must 3 vdpool set --policy error nope
	must 3 vdpool set --readonly y p/nope
}

@test "vdpool forget takes a path off the list, and leaves the member alone" {
	make_pool
	at_rest
	cp -a etc before
	ok vdpool forget "$T/m1"
	ok vdpool show p
	says MISSING "read-only"
	[ -s m1 ]
	must 2 vdpool forget
	rm -r etc
	mv before etc
	ok vdpool show p
	says_not MISSING
}

@test "a linked volume is neither shrunk nor rolled back" {
	need_links
	make_pool
	make_volume
	ok vdsnap p/v -n s
	ok vdlink p/v
	must 4 vdsnap -y --rollback p/s
	must 4 vdresize -y -L 32m p/v
	[ "$(field p/v size)" = 67108864 ]
	ok vdresize -f -y -L 32m p/v
	[ "$(field p/v size)" = 33554432 ]
	ok vdunlink p/v
	ok vdsnap -y --rollback p/s
	[ "$(field p/v size)" = 67108864 ]
}

@test "vdlink of a pool with a member missing says which, and leaves nothing" {
	need_links
	make_pool
	make_volume
	at_rest
	mv m1 away
	must 5 vdlink p/v
	says "read-only" members missing "vdpool show"
	[ ! -e "$VD_DEV_DIR/p/v" ]
	end_servers TERM # the one that was started to read it
	mv away m1
	ok vdlink p/v
}
