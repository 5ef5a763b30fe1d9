#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
load helper

@test "a volume is made, larger than its pool" {
	make_pool
	ok vdcreate p/v -L 10g
	[ "$(field p/v size)" = 10737418240 ]
	[ "$(field p/v mapped)" = 0 ]
}

@test "a volume's name is taken once" {
	make_pool
	make_volume
	must 5 vdcreate p/v -L 1m
	says "exists already"
}

@test "a volume needs a size" {
	make_pool
	must 2 vdcreate p/v
	says "-L"
}

@test "sizes that cannot be are refused" {
	make_pool
	must 2 vdcreate p/v -L 0
	must 2 vdcreate p/v -L 9e
	must 2 vdcreate p/v -L twelve
	must 2 vdcreate p/v -L -5m
	ok vdls p
	says_not " v "
}

@test "a volume of nearly 8 EiB is made" {
	make_pool
	ok vdcreate p/v -L 7.9e
}

@test "names that break the rule are refused" {
	make_pool
	must 2 vdcreate p/a/b -L 1m
	must 2 vdcreate 'p/a b' -L 1m
	must 2 vdcreate p/.. -L 1m
	must 2 vdcreate p/"$(printf 'x%.0s' {1..128})" -L 1m
}

@test "with --test no volume is made" {
	make_pool
	ok vdcreate -t p/v -L 1m
	must 3 vdls p/v
}

@test "a volume is made while the server runs, and is served at once" {
	need nbdinfo
	make_pool
	serve
	make_volume v 64m
	[ "$(nbdinfo --size "$(uri v)")" = 67108864 ]
}

@test "a volume is removed only when asked twice" {
	make_pool
	make_volume
	must 6 vdrm p/v
	says "--yes"
	ok vdrm -y p/v
	must 3 vdls p/v
}

@test "what is not there is not removed" {
	make_pool
	must 3 vdrm -y p/nope
	says "no volume p/nope"
}

@test "a volume that is open is not removed, and says who has it" {
	need_server "it knows its clients"
	need qemu-io
	make_pool
	make_volume
	serve
	qemu-io -f raw -c 'write 0 4k' -c 'sleep 60000' "$(uri v)" 3>&- &
	wait_for eval 'vdlink ls p | grep client'
	must 4 vdrm -y p/v
	says "p/v" qemu-io
}

@test "removing gives space back" {
	make_pool
	make_volume v 100m
	serve
	random 80000000 >img
	nbdcopy img "$(uri v)"
	end_servers TERM
	local before after
	before=$(vdpool ls --noheadings --nosuffix --units b -o used p | tr -d ' ')
	ok vdrm -y p/v
	after=$(vdpool ls --noheadings --nosuffix --units b -o used p | tr -d ' ')
	[ $((before - after)) -gt 70000000 ]
}

@test "a volume is renamed, and its contents stay" {
	make_pool
	make_volume
	serve
	random 1000000 >img
	truncate -s 1000448 img
	nbdcopy img "$(uri v)"
	end_servers TERM
	ok vdrename p/v w
	must 3 vdls p/v
	serve
	nbdcopy "$(uri w)" out
	cmp -n 1000448 img out
}

@test "a volume does not take another's name" {
	make_pool
	make_volume a
	make_volume b
	must 5 vdrename p/a b
	says "exists already"
}

@test "a volume does not leave its pool" {
	make_pool
	make_volume
	must 2 vdrename p/v q/v
}

@test "a volume grows, and what was there stays" {
	make_pool
	make_volume v 32m
	serve
	random 33554432 >img
	nbdcopy img "$(uri v)"
	ok vdresize p/v -L +32m
	[ "$(field p/v size)" = 67108864 ]
	nbdcopy "$(uri v)" out
	cmp -n 33554432 img out
	cmp <(tail -c 33554432 out) <(head -c 33554432 /dev/zero)
}

# bats test_tags=kernel
@test "a volume shrinks only when asked twice, frees, and grows with zeros" {
	make_pool
	make_volume v 32m
	serve
	random 33554432 >img
	nbdcopy img "$(uri v)"
	must 6 vdresize p/v -L 8m
	says "--yes"
	ok vdresize -y p/v -L 8m
	[ "$(field p/v mapped)" -le 8388608 ]
	ok vdresize p/v -L 32m
	nbdcopy "$(uri v)" out
	cmp -n 8388608 img out
	cmp <(tail -c 25165824 out) <(head -c 25165824 /dev/zero)
}

@test "a volume over a base image reads the image and keeps the changes" {
	need qemu-io
	make_pool
	random 5000000 >base
	ok vdcreate p/v --base base
	serve
	nbdcopy "$(uri v)" out
	cmp -n 5000000 base out
	io v 'write -P 104 12345 5' flush
	nbdcopy "$(uri v)" out
	cp base want
	printf hhhhh | dd of=want bs=1 seek=12345 conv=notrunc status=none
	cmp -n 5000000 want out
	[ "$(field p/v mapped)" -le 65536 ]
}

@test "a base image that is not there is refused" {
	make_pool
	run vdcreate p/v --base nope
	[ "$status" != 0 ]
	says nope
	must 3 vdls p/v
}

# bats test_tags=kernel
@test "a discard over a base image reads as zeros" {
	need qemu-io
	make_pool
	random 1048576 >base
	ok vdcreate p/v --base base
	serve
	io v 'discard 0 65536' 'read -P 0 0 65536'
	ok vdresize p/v -L 2m
	io v 'read -P 0 0 65536' 'read -P 0 1048576 1048576'
}

@test "a read-only volume is served read-only" {
	need nbdinfo
	make_pool
	make_volume
	ok vdpool set --readonly y p/v
	serve
	nbdinfo --is read-only "$(uri v)"
}

@test "ls knows its fields and JSON is JSON" {
	need jq
	make_pool
	make_volume a
	make_volume b
	ok vdls -o help p
	says mapped
	must 2 vdls -o nope p
	vdls --reportformat json p | jq -e '.report[0].volume | length == 2'
	ok vdls --noheadings -o name -O -name p
	[ "${lines[0]// /}" = b ]
}

@test "attributes are kept" {
	make_pool
	ok vdcreate p/v -L 1m --attr color=blue
	ok vdls -o +attrs p
	says color=blue
	ok vdpool set --attr color p/v
	ok vdls -o +attrs p
	says_not blue
}

@test "forty volumes are made and listed" {
	make_pool
	local i
	for i in $(seq 40); do ok vdcreate p/v"$i" -L 1g; done
	[ "$(vdls --noheadings p | wc -l)" = 40 ]
}
