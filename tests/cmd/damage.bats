#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Members that are missing, stale or damaged.
load helper
bats_require_minimum_version 1.5.0
THREADS=1 REST=1

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

# node VOLUME-ID KIND LEVEL [NTH]: "block copy from to" of a node
node()
{
	vdpool dump p --noheadings -o volume,kind,level,block,copy,key_lo,key_hi |
		awk -v v="$1" -v k="$2" -v l="$3" -v n="${4:-1}" '$1==v && $2==k && $3==l && !--n {print $4, $5, $6, $7}'
}
# "block copy" of the page of counts that any change needs: of the group of 8192 blocks, eight keys of the
# tree, in which the tree's own first node is
needed_page()
{
	vdpool dump p --noheadings -o volume,kind,level,block,copy,key_lo,key_hi |
		awk 'NR==1 {key = int($4 / 8192) * 8} $2=="space" && $6<=key && key<$7 {print $4, $5; exit}'
}
# spoil ADDRESS...: those blocks, on whichever member
spoil()
{
	local a
	for a; do
		dd if=/dev/urandom of="m$((a >> 40))" bs=4096 seek=$((a & ((1 << 40) - 1))) count=1 conv=notrunc status=none
	done
}
# Two volumes of many extents, hit and safe, and in img what is in safe.
two_volumes()
{
	local i cmds=()
	make_pool 2 64m
	make_volume hit 64m
	make_volume safe 32m
	serve
	for ((i = 0; i < 600; i++)); do cmds+=("write -P 7 $((i * 16))k 4k"); done
	io hit "${cmds[@]}"
	random 8000000 >img
	nbdcopy img "$(uri safe)"
	end_servers TERM
}
safe_is_safe() { nbdcopy "$(uri safe)" out; cmp -n 8000000 img out; rm out; }

@test "both copies of a leaf lost: the other volume goes on, and the next opening says what is lost" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local n from len
	read -r -a n < <(node 1 extents 0 2)
	from=$((n[2] * 4096)) len=$(((64 << 20) - n[2] * 4096))
	[ "${n[3]}" -gt 16384 ] || len=$(((n[3] - n[2]) * 4096))
	spoil "${n[0]}" "${n[1]}"
	serve
	run qemu-io -f raw -c "read $from 4k" "$(uri hit)"
	says rror
	run qemu-io -f raw -c "write $from 4k" "$(uri hit)"
	says rror
	io hit "read -P 7 0 4k"
	io safe "write -P 9 16m 64k" "flush"
	safe_is_safe
	end_servers TERM

	must 5 vdcreate p/x -L 1m
	says "metadata is damaged" "vdpool show p"
	ok vdpool show p
	says read-only "volume hit: lost: $len bytes from $from on"
	[ "$(vdpool show p --reportformat json 2>run/err | jq -r '.report[0].pool[0].lost[0] | "\(.fault) \(.volume) \(.a) \(.b)"')" = "range hit $from $len" ]
	must 7 vdpool check p
	says "volume hit: lost: $len bytes from $from on"
	[ "$(field p/safe attr)" = "vw--" ]
	ok vdls p --noheadings -o name,attr
	says "vw--d"
	serve
	opening_told "volume hit: lost: $len bytes from $from on"
	nbdinfo --is read-only "$(uri safe)"
	run qemu-io -r -f raw -c "read -P 9 16m 64k" "$(uri safe)"
	says_not rror
	says_not ailed
	safe_is_safe
	end_servers TERM

	ok vdrm -y p/hit
	must 7 vdpool check --repair p
	says "not damaged any more"
	ok vdpool check p
	ok vdcreate p/x -L 1m
	serve
	safe_is_safe
	end_servers TERM
}

@test "both copies of an inner node lost: all of one volume, nothing of the other" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local n
	read -r -a n < <(node 1 index 1)
	spoil "${n[0]}" "${n[1]}"
	serve
	run qemu-io -f raw -c "read 0 4k" "$(uri hit)"
	says rror
	safe_is_safe
	end_servers TERM
	must 7 vdpool check p
	says "volume hit: lost: $((64 << 20)) bytes from 0 on"
	ok vdrm -y p/hit
	run vdpool check --repair p
	ok vdpool check p
}

@test "both copies of the index lost: read-only, and nothing of any volume is lost" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local n
	read -r -a n < <(node 0 extents 0)
	spoil "${n[0]}" "${n[1]}"
	run vdcreate p/x -L 1m
	[ "$status" != 0 ]
	must 5 vdcreate p/x -L 1m
	says "metadata is damaged"
	ok vdls p
	says hit safe
	ok vdpool show p
	says "unreadable in every copy"
	says_not "lost:"
}

@test "both copies of a page of counts lost: read-only, and all volumes can be copied away" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local n
	read -r -a n < <(needed_page)
	spoil "${n[0]}" "${n[1]}"
	run vdcreate p/x -L 1m
	run vdcreate p/y -L 1m
	[ "$status" = 5 ]
	says "damaged"
	serve
	safe_is_safe
	nbdcopy "$(uri hit)" null:
	end_servers TERM
	must 7 vdpool check p
	says "unreadable in every copy"
}

@test "both copies of a volume's record lost: it is listed as lost, and the others are there" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local n
	read -r -a n < <(node 0 volume 0 1)
	spoil "${n[0]}" "${n[1]}"
	must 7 vdls p
	says "(lost, id 1)" safe
	serve
	safe_is_safe
	end_servers TERM
}

@test "the newest superblock lost on all members: the older state is read, and written only after a check" {
	need nbdcopy qemu-io
	no_check
	two_volumes
	local m gen
	ok vdpool set p --policy error
	gen=$(vdpool show p --reportformat json | jq '.report[0].pool[0].generation')
	for m in m0 m1; do
		dd if=/dev/urandom of=$m bs=4096 seek=$((4 + gen % 2 * 4)) count=4 conv=notrunc status=none
	done
	must 5 vdcreate p/x -L 1m
	says "newest superblock is lost"
	ok vdpool show p
	says read-only "Rolled back" "writes wait"
	serve
	safe_is_safe
	end_servers TERM
	must 5 vdrm -y p/hit
	ok vdpool check --repair p
	says "not damaged any more"
	ok vdcreate p/x -L 1m
	ok vdpool check p
}

@test "a missing member is one line of a check, and what of each volume is on it some more" {
	need jq
	filled
	local m text
	for m in 0 1; do # which volume is where is not certain
		mv m$m away
		must 7 vdpool check p
		[ "$(grep -c "member $m is missing: the data on it cannot be read" <<<"$output")" = 1 ]
		says_not "this copy is bad"
		vdpool check p --reportformat json 2>run/err | jq '.report[0].fault[] | select(.fault == "range")' >ranges
		while read -r text; do says "$text"; done < <(jq -r '"volume \(.volume): cannot be read: \(.b) bytes from \(.a) on, which are on member \(.member)"' ranges)
		[ "$(jq -s 'all(.member == '$m')' ranges)" = true ]
		jq -r '"\(.volume) \(.b)"' ranges >>lost
		mv away m$m
	done
	[ "$(awk '{n[$1] += $2} END {print n["v"], n["s"], n["w"]}' lost)" = "30003200 30003200 30003200" ]
	ok vdpool check p
}

# read_all VOLUME FAULTS: a MiB can be read just if no range of the list `faults` touches it
read_all()
{
	local i want
	for ((i = 0; i < 64; i++)); do
		want=$(jq --arg v "$1" --argjson i "$i" '[.[] | select(.fault == "range" and .volume == $v and
			.a < ($i + 1) * 1048576 and .a + .b > $i * 1048576)] | length > 0' "$2")
		run qemu-io -r -f raw -c "read ${i}m 1m" "$(uri "$1")"
		[[ $want = true ]] && { says "read failed"; continue; }
		says_not "read failed"
	done
}

@test "a member that is too short is a fault, and what is told to be lost of a volume is what cannot be read" {
	need qemu-io jq
	make_pool 3 24m # v has more than two of them hold
	make_volume v 64m
	serve
	io v 'write -P 1 0 60m' flush
	end_servers TERM
	cp m2 keep
	truncate -s 10m m2
	ok vdpool show p
	says "TOO SHORT: $T/m2, 24.00m"
	must 7 vdpool check p
	says "member 2 is too short: it has 2560 blocks" "volume v: cannot be read: " "which are on member 2"
	vdpool check p --reportformat json 2>run/err | jq '.report[0].fault' >list
	[ "$(jq '[.[] | select(.fault == "range" and .volume == "v" and .member == 2)] | length' list)" -gt 0 ]
	[ "$(jq '[.[] | select(.fault == "member")][0].a' list)" = 2 ]
	serve
	read_all v list
	end_servers TERM
	cp keep m2
}

@test "a quick check sees a member missing, and what the pool's own trees have lost" {
	filled
	no_check
	local what n
	ok vdpool check --quick p
	says "no faults found by a quick check"
	mv m1 away
	must 7 vdpool check --quick p
	says "member 1 is missing"
	mv away m1
	cp m0 good0
	cp m1 good1
	# the whole list of names; of volumes; a page of counts; what leads to all of these
	for what in "extents 0 1" "index 1 2" "space 0 1" "index 1 1"; do
		# shellcheck disable=SC2086
		read -r -a n < <(node 0 $what)
		spoil "${n[0]}" "${n[1]}"
		must 7 vdpool check --quick p
		says "unreadable in every copy"
		cp good0 m0
		cp good1 m1
	done
	ok vdpool check --quick p
}

# A pool on two members whose list of volumes has more than one page.
many_volumes()
{
	local i
	make_pool 2 64m
	for i in {1..130}; do ok vdcreate -q p/v$i -L 1m; done
}

@test "both copies of a node of the list of volumes lost: what is left is listed, and that it is not all is said" {
	need nbdinfo
	no_check
	local i n total
	many_volumes
	cp m0 good0
	cp m1 good1

	read -r -a n < <(vdpool dump p --noheadings -o volume,kind,level,block,copy,key_lo,key_hi |
		awk '$2 == "volume" {below = 1} $2 == "index" && $3 == 1 {at = $4 " " $5 " " $6 " " $7}
		     below {print last; exit} {last = at}')
	spoil "${n[0]}" "${n[1]}"
	run --separate-stderr vdls p --noheadings -o name
	[ "$status" = 7 ]
	[[ $stderr == *"part of the list of volumes is lost"* ]]
	total=$(grep -c v <<<"$output")
	[ "$total" = $((130 - (n[3] > 131 ? 131 : n[3]) + (n[2] ? n[2] : 1))) ]
	must 7 vdpool check p
	says "part of the list of volumes is lost: those with ids $((n[2] ? n[2] : 1)) to "
	serve
	run nbdinfo --list "nbd+unix://?socket=$S"
	says "v130"
	grep "part of the list of volumes is lost" run/serve.log
	end_servers TERM
	ok vdpool show p
	says read-only "part of the list of volumes is lost"

	cp good0 m0
	cp good1 m1
	read -r -a n < <(node 0 index 2)
	spoil "${n[0]}" "${n[1]}"
	must 7 vdls p --noheadings
	says "part of the list of volumes is lost"
	must 7 vdpool check p
	says "part of the list of volumes is lost: those with ids 1 to 130 cannot be found"
}

@test "a dump lists what it can, and that there is more" {
	no_check
	local i n kinds
	many_volumes
	ok vdpool dump p
	says_not lost
	cp m0 good0
	cp m1 good1
	for i in "volume 0 5" "space 0 1" "extents 0 1"; do # one page
		# shellcheck disable=SC2086
		read -r -a n < <(node 0 $i)
		vdpool dump p --noheadings -o block,kind | awk -v a="${n[0]}" '$1 == a {$2 = "lost"} {print $1, $2}' >want
		spoil "${n[0]}" "${n[1]}"
		run --separate-stderr vdpool dump p --noheadings -o block,kind
		[ "$status" = 7 ]
		[[ $stderr == *"1 of these cannot be read in any copy"* ]]
		diff want <(awk '{print $1, $2}' <<<"$output")
		cp good0 m0
		cp good1 m1
	done
	# a node of the list of volumes: what is not below it
	read -r -a n < <(node 0 index 2)
	spoil "${n[0]}" "${n[1]}"
	must 7 vdpool dump p --noheadings -o block,kind
	says "${n[0]} lost" space extents
	says_not volume
	[ "$(vdpool dump p --reportformat json 2>run/err | jq '[.report[0].node[] | select(.kind == "lost")] | length')" = 1 ]
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
			serves_on
			end_servers TERM
			ended_well
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
