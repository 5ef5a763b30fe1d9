#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Drives of machines: the kernel's NVMe target is a tree of files that behaves as its configfs does (configfs.c), the
# server's agent is agent.py.  Two real machines are in tests/lab/nvme.bats.
load helper

NQN=nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555

setup_file()
{
	! command -v gcc >/dev/null || gcc -D_GNU_SOURCE -shared -fPIC -o "$BATS_FILE_TMPDIR/configfs.so" "$BATS_TEST_DIRNAME/configfs.c" -ldl
}

# machine: a pool with volume v, and this host's target; describe [OPTION]...: and a server
machine()
{
	need_links
	need python3 jq gcc
	make_pool
	make_volume v
	export VD_NVMET_DIR=$T/nvmet AGENT_DIR=$T/there VD_AGENT=$VD/tests/cmd/agent.py VD_SERVER_TIMEOUT=60
	mkdir -p nvmet/{subsystems,ports,hosts} there
	export LD_PRELOAD=$BATS_FILE_TMPDIR/configfs.so
}
describe() { machine; ok vdserver add p/web1 --kind nvme-tcp --host $NQN --address 192.0.2.1 --agent web1.example "$@"; }
deed() { printf '%s\n' "$@" >there/deeds; }
asked() { jq -r .op there/log | xargs; }
there() { jq -r ".[].$1" there/drives.json; }
state() { vdlink ls --noheadings -o state | tr -d ' '; }
is_down() { [ "$(state)" = down ]; }
sub() { echo nvmet/subsystems/nqn.2026-11.org.vd:*; }
# given: the volume is in the target as it should be, and with the server
given()
{
	local d
	d=$(sub)
	[ "${d##*:}" = "$(field p/v uuid)" ]
	[ "$(<"$d/namespaces/1/enable") $(<"$d/namespaces/1/device_path")" = "1 $(vdlink ls --noheadings -o device | tr -d ' ')" ]
	[ "$(ls "$d/allowed_hosts")" = $NQN ]
	[ "$(there uuid)" = "$(field p/v uuid)" ]
}
target_empty() { [ -z "$(find nvmet -mindepth 2)" ] || { find nvmet; return 1; }; }
nothing_left()
{
	[ -z "$(vdlink ls --noheadings)" ] || { vdlink ls; return 1; }
	[ "$(jq '.drives | length' etc/servers/local)" = 0 ] || { cat etc/servers/local; return 1; }
	[ "$(vdls --noheadings -o locked p/v | tr -d ' ')" != yes ] || return 1
	! grep -l "$T/" /sys/block/loop*/loop/backing_file 2>/dev/null || return 1
	target_empty
}
# rebooted: what a reboot of this host leaves
rebooted()
{
	break_link v
	rm -r nvmet
	mkdir -p nvmet/{subsystems,ports,hosts}
}

@test "a volume becomes a namespace that only the server may have, and is mounted there" {
	describe
	ok vdlink p/v web1
	[ "$output" = "p/v is /dev/nvme0n1 of web1, 64.00m, mounted on /srv/vd/v" ]
	given
	[ "$(<"$(sub)/attr_model")" = vd ]
	[ "$(<"$(sub)/attr_serial")" = "$(field p/v uuid | tr -d - | head -c 20)" ]
	[ "$(<nvmet/ports/30308/addr_traddr) $(<nvmet/ports/30308/addr_trsvcid)" = "192.0.2.1 4420" ]
	ok vdlink ls --noheadings -o path,state,server,address,mount
	[ "$(tr -s ' ' <<<"$output")" = " p/v up web1 /dev/nvme0n1 /srv/vd/v" ]
	[ ! -e "$VD_DEV_DIR/p/v" ]
	[ "$(asked)" = "hello link link" ]
	ok vdunlink p/v
	[ "$(asked)" = "hello link link hello unlink gone" ]
	nothing_left
}

@test "how it is mounted there is asked of the agent as it was said, and asked again with --restore" {
	describe
	ok vdlink -m /data/x --mount-options noatime --automount --mkfs xfs --duplicate p/v web1
	says "mounted on /data/x"
	[ "$(tail -1 there/log | jq -c .mount)" = '{"dir":"/data/x","options":"noatime","automount":true,"mkfs":"xfs","duplicate":true}' ]
	rebooted
	ok vdlink --restore p
	[ "$(tail -1 there/log | jq -c .mount)" = '{"dir":"/data/x","options":"noatime","automount":true,"mkfs":"","duplicate":true}' ]
	ok vdunlink p/v
	ok vdlink --no-mount p/v web1
	[ "$(tail -1 there/log | jq -c .mount)" = null ]
	[ "$(there mount)" = "" ]
	rebooted
	ok vdlink --restore p
	[ "$(tail -1 there/log | jq -c .mount)" = null ]
	ok vdunlink p/v
	nothing_left
}

@test "a drive with nothing on it is linked and not mounted, unless a mount was asked for" {
	describe
	touch there/blank
	ok vdlink p/v web1
	says "not mounted: nothing that can be mounted is on it"
	given
	ok vdunlink p/v
	refused vdlink -m /data/x p/v web1
	says 'step "present" failed' "has not mounted it: nothing that can be mounted is on it"
	nothing_left
	[ "$(there uuid)" = "" ]
	ok vdlink --mkfs ext4 p/v web1
	says "mounted on /srv/vd/v"
	ok vdunlink p/v
}

@test "what a server cannot be given is refused before anything is done" {
	describe
	refused vdlink -r p/v web1
	says "cannot be written"
	refused vdlink -m data p/v web1
	says "absolute path"
	refused vdlink -m "/$(printf 'x%.0s' {1..127})" p/v web1
	must 2 vdlink --no-mount -m /x p/v web1
	refused vdlink --no-mount --mkfs ext4 p/v web1
	[ ! -e there/log ]
	nothing_left
	ok vdlink -t p/v web1
	[ "$(asked)" = hello ]
	nothing_left
}

@test "a drive in use there stays linked, and it is said by whom" {
	describe
	ok vdlink p/v web1
	deed "unlink=busy:/srv/vd/v is in use by mysqld (17)"
	must 4 vdunlink -t p/v
	must 4 vdunlink p/v
	says "p/v is still linked" "server web1 says: /srv/vd/v is in use by mysqld (17)"
	must 4 vdunlink --force p/v
	given
	[ "$(state)" = up ]
	[ "$(vdlink ls --noheadings -o mount | tr -d ' ')" = /srv/vd/v ]
	rm there/deeds
	ok vdunlink -t p/v
	given
	ok vdunlink p/v
	nothing_left
}

@test "a second link of the volume is refused, and others are given beside it" {
	describe
	make_volume w 8m
	ok vdlink p/v web1
	must 4 vdlink p/v web1
	says "linked already" "of server web1"
	must 4 vdlink p/v
	ok vdlink p/w web1
	[ "$(ls nvmet/ports)" = 30308 ]
	[ "$(ls nvmet/ports/30308/subsystems | wc -l)" = 2 ]
	ok vdunlink p/v
	[ "$(ls nvmet/ports/30308/subsystems | wc -l)" = 1 ]
	ok vdunlink p/w
	nothing_left
}

@test "of two links of one volume at once one is made" {
	describe
	local a=0 b=0 other
	vdlink p/v web1 3>&- &
	other=$!
	vdlink p/v web1 || b=$?
	wait $other || a=$?
	[ "$a $b" = "0 4" ] || [ "$a $b" = "4 0" ]
	given
	ok vdunlink p/v
	nothing_left
}

@test "a server whose agent does not answer is given nothing, and keeps what it has" {
	describe
	deed hello=die
	refused vdlink p/v web1
	says "the agent of server web1, web1.example, does not answer: web1.example: connection refused"
	nothing_left
	rm there/deeds
	ok vdlink p/v web1
	deed unlink=die
	refused vdunlink p/v
	says "does not answer" "vdunlink --force p/v" "p/v is still linked"
	given
	[ "$(state)" = up ]
	ok vdunlink --force p/v
	says "does not answer"
	nothing_left
}

# Its host was away, say, and its link is not made again.
@test "a server that cannot let go keeps its drive, unless it is taken away" {
	describe
	ok vdlink p/v web1
	deed "unlink=error:nvme0 is not connected"
	refused vdunlink p/v
	says "server web1 says: nvme0 is not connected" "vdunlink --force p/v"
	given
	ok vdunlink --force p/v
	nothing_left
}

@test "a server that does not notice that its drive went is no reason to keep it" {
	describe
	ok vdlink p/v web1
	deed gone=hang
	VD_SERVER_TIMEOUT=1 ok vdunlink p/v
	says "does not answer within"
	nothing_left
}

@test "an agent that says nonsense, nothing, or no end of it: no link is made" {
	describe
	local op deed
	for op in hello link link/mount; do
		for deed in hang die silent endless line:hello 'line:[]' 'line:{"ok": 7}' "line:$(printf '[%.0s' {1..5000})" \
			"error:no $(printf '\e[31m')" 'line:{"ok": true, "device": "nvme0n1"}' 'line:{"ok": true, "device": "/dev/nvme 0"}' \
			'line:{"ok": true, "device": "/dev/nvme0n1", "mount": "x"}' 'line:{"ok": true, "device": "/dev/nvme0n1", "mount": "/\u001b[1m"}'; do
			[[ $op != link || $deed != *mount* ]] || continue # nothing is taken of that there
			deed "$op=$deed"
			VD_SERVER_TIMEOUT=1 refused timeout 100 vdlink p/v web1
			[ "$status" != 124 ]
			[[ $output != *$'\e'* ]]
			nothing_left || { echo "with $op=$deed"; return 1; }
		done
	done
}

@test "an agent that stops answering in the middle: the link is kept, and mended, or undone when it is back" {
	describe
	deed link/mount=hang unlink=die
	VD_SERVER_TIMEOUT=3 refused vdlink p/v web1
	says 'step "present" failed' "does not answer within"
	[ "$(state)" = down ]
	rm there/deeds
	ok vdlink --restore p
	says "p/v is /dev/nvme0n1 of web1 again, mounted on /srv/vd/v"
	given
	ok vdunlink p/v
	deed link=hang unlink=die
	VD_SERVER_TIMEOUT=3 refused vdlink p/v web1
	rm there/deeds
	ok vdunlink p/v
	nothing_left
}

@test "an agent that was away when its drive was taken is told by restore, or with the next link" {
	describe
	make_volume w
	local untold='.untold | length'
	for next in 'vdlink --restore p' 'vdlink p/w web1'; do
		ok vdlink p/v web1
		deed hello=die
		VD_SERVER_TIMEOUT=1 ok vdunlink --force p/v
		nothing_left
		[ "$(jq "$untold" etc/servers/local)" = 1 ]
		[ "$(there uuid)" = "$(field p/v uuid)" ]
		VD_SERVER_TIMEOUT=1 ok vdlink --restore p
		says web1
		[ "$(jq "$untold" etc/servers/local)" = 1 ]
		rm there/deeds
		ok vdlink --test p/w web1
		[ "$(jq "$untold" etc/servers/local)" = 1 ]
		ok $next
		[ "$(jq "$untold" etc/servers/local)" = 0 ]
		[[ "$(there uuid)" != *"$(field p/v uuid)"* ]]
	done
	ok vdunlink p/w
	nothing_left
}

@test "an agent that was away is told nothing of a drive that it has again, or when it is no server any more" {
	describe
	ok vdlink p/v web1
	deed hello=die
	VD_SERVER_TIMEOUT=1 ok vdunlink --force p/v
	rm there/deeds there/log
	ok vdlink p/v web1
	make_volume w
	ok vdlink p/w web1
	ok vdlink --restore p
	[ "$(asked)" = "hello link link hello link link" ]
	ok vdunlink p/w
	given
	deed hello=die
	VD_SERVER_TIMEOUT=1 ok vdunlink --force p/v
	ok vdserver rm p/web1
	[ "$(jq '.untold | length' etc/servers/local)" = 0 ]
}

@test "an agent is told nothing of a drive that could not be taken from it" {
	describe
	ok vdlink p/v web1
	deed hello=die
	chmod 500 "$(sub)"
	chattr +i "$(sub)/namespaces/1" 2>/dev/null || skip "no file system with attributes"
	VD_SERVER_TIMEOUT=1 refused vdunlink --force p/v
	chattr -i "$(sub)/namespaces/1"
	rm there/deeds there/log
	make_volume w
	ok vdlink p/w web1
	[ "$(asked)" = "hello link link" ]
	ok vdunlink p/v p/w
	nothing_left
}

@test "an agent of another machine than was described is refused" {
	machine
	ok vdserver add p/web1 --kind nvme-tcp --host nqn.2014-08.org.example:other --address 192.0.2.1 --agent web1
	refused vdlink p/v web1
	says "is $NQN, and not nqn.2014-08.org.example:other"
	nothing_left
}

@test "after a reboot of this host the drive is given again, as it was, whether or not the agent answers" {
	describe
	ok vdlink p/v web1
	rebooted
	[ "$(state)" = down ]
	ok vdlink --restore p
	says "p/v is /dev/nvme0n1 of web1 again"
	given
	[ "$(state)" = up ]
	rebooted
	deed hello=die unlink=die
	ok vdlink --restore p
	says "does not answer" "again"
	given
	[ "$(state)" = up ]
	[ "$(vdlink ls --noheadings -o mount | tr -d ' ')" = /srv/vd/v ]
	rm there/deeds
	ok vdunlink p/v
	nothing_left
}

@test "a drive whose front was killed is mended, once the server has let go of it" {
	describe
	need_server "a front"
	ok vdlink p/v web1
	break_link v
	wait_for is_down
	deed "unlink=busy:in use by mysqld (17)"
	refused vdlink --restore p
	says "in use by mysqld"
	rm there/deeds
	ok vdlink --restore p
	[ "$(state)" = up ]
	given
	break_link v
	ok vdunlink p/v
	nothing_left
}

@test "what this host cannot let go of is not said to be mounted there any more, and else its record stays" {
	describe
	need_server "a front"
	export CONFIGFS_DHCHAP=1
	echo 1 >there/dhchap
	ok vdlink -m /data/x --mount-options noatime --duplicate p/v web1
	exec 9<"$(vdlink ls --noheadings -o device | tr -d ' ')"
	refused vdunlink p/v
	exec 9<&-
	says "p/v is still linked"
	[ "$(jq -c '.drives[0] | [.mount, .no_mount, .options, .duplicate, .dhchap]' etc/servers/local)" = '["",true,"noatime",true,true]' ]
	ok vdunlink p/v
	nothing_left
}

@test "an address that this host has not: no link is made" {
	describe
	CONFIGFS_NO_ADDRESS=192.0.2.1 refused vdlink p/v web1
	says "cannot listen on 192.0.2.1, port 4420" "no address of this host"
	nothing_left
}

@test "what others have in the target stays as it is, and a port of theirs is shared" {
	describe --port 4421
	local theirs=nvmet/subsystems/nqn.2000-01.org.example:x
	mkdir nvmet/ports/7 nvmet/hosts/$NQN $theirs
	ln -s "$T/nvmet/hosts/$NQN" "$theirs/allowed_hosts/$NQN" 2>/dev/null || { mkdir -p $theirs/allowed_hosts; ln -s "$T/nvmet/hosts/$NQN" "$theirs/allowed_hosts/$NQN"; }
	echo tcp >nvmet/ports/7/addr_trtype
	echo 192.0.2.1 >nvmet/ports/7/addr_traddr
	echo 4421 >nvmet/ports/7/addr_trsvcid
	mkdir -p nvmet/ports/7/subsystems
	find nvmet | sort >before
	ok vdlink p/v web1
	given
	[ -e "nvmet/ports/7/subsystems/$(basename "$(sub)")" ]
	[ "$(ls nvmet/ports)" = 7 ]
	ok vdunlink p/v
	find nvmet | sort | cmp before -
}

@test "a namespace that is not enabled, or is of another device, is made anew" {
	describe
	ok vdlink p/v web1
	local d
	d=$(sub)
	for how in "echo 0 >$d/namespaces/1/enable" "echo /dev/null >$d/namespaces/1/device_path"; do
		eval "$how"
		[ "$(state)" = down ]
		ok vdlink --restore p
		given
		[ "$(state)" = up ]
	done
	ok vdunlink p/v
	nothing_left
}

@test "a kernel without the target is told of" {
	describe
	rm -r nvmet
	refused vdlink p/v web1
	says "this kernel has no NVMe target" "modprobe nvmet-tcp"
}

@test "where both kernels can, the server must authenticate itself, by a secret that is made of the key" {
	describe
	export CONFIGFS_DHCHAP=1
	ok vdlink p/v web1
	[ "$(<nvmet/hosts/$NQN/dhchap_key)" = "" ]
	ok vdunlink p/v
	echo 1 >there/dhchap
	ok vdlink p/v web1
	[ "$(<nvmet/hosts/$NQN/dhchap_key)" = "DHHC-1:01:$(head -c 8 etc/keys/web1.key):" ]
	[ "$(stat -c %a nvmet/hosts/$NQN/dhchap_key)" = 600 ]
	rebooted
	deed hello=die unlink=die
	ok vdlink --restore p # as it was
	[ "$(<nvmet/hosts/$NQN/dhchap_key)" = "DHHC-1:01:$(head -c 8 etc/keys/web1.key):" ]
	rm there/deeds
	ok vdunlink p/v
	nothing_left
}

@test "a drive takes in the volume's new size" {
	describe
	ok vdlink p/v web1
	ok vdresize p/v -L 128m
	ok vdlink --refresh p/v
	[ "$(<"$(sub)/namespaces/1/revalidate_size")" = 1 ]
	# And its agent knows, without another word of the mount
	[ "$(tail -1 there/log | jq -c '[.op, .size, .mount]')" = '["link",134217728,null]' ]
	deed link=die
	ok vdlink --refresh p/v
	says "does not answer" "has its new size" "vdlink --refresh p/v"
	rm there/deeds
	ok vdunlink p/v
}

@test "a drive that must authenticate itself is told of its new size as such" {
	describe
	export CONFIGFS_DHCHAP=1
	echo 1 >there/dhchap
	ok vdlink p/v web1
	ok vdresize p/v -L 128m
	ok vdlink --refresh p/v
	says_not "mock"
	[ "$(tail -1 there/log | jq -c '[.size, .via.dhchap]')" = '[134217728,true]' ]
	ok vdunlink p/v
}

@test "a server that cannot authenticate itself any more is told so, and loses nothing" {
	describe
	make_volume w 8m
	export CONFIGFS_DHCHAP=1
	echo 1 >there/dhchap
	ok vdlink p/v web1
	rm there/dhchap
	refused vdlink p/w web1
	says "web1 cannot authenticate itself now" "nvmet/hosts/$NQN/dhchap_key asks it to"
	given
	ok vdunlink p/v
	ok vdlink p/w web1
	ok vdunlink p/w
	nothing_left
}

@test "a host entry that somebody else has made stays" {
	describe
	mkdir nvmet/hosts/$NQN
	ok vdlink p/v web1
	ok vdunlink p/v
	[ -d nvmet/hosts/$NQN ]
	rmdir nvmet/hosts/$NQN
	ok vdlink p/v web1
	ok vdunlink p/v
	nothing_left
}

@test "an agent with a thousand drives, and one that mounts in a long place, are understood" {
	describe
	deed "$(jq -nc '{ok: true, version: "1", hostnqn: $nqn, dhchap: false, drives: [range(4000) | {name: "p/\(.)", mount: "/srv/vd/a-drive-of-many"}]}' \
		--arg nqn $NQN | sed 's/^/hello=line:/')"
	[ "$(wc -c <there/deeds)" -gt 200000 ]
	ok vdlink p/v web1
	given
	ok vdunlink p/v
	deed "link/mount=line:{\"ok\": true, \"device\": \"/dev/nvme0n1\", \"mount\": \"/$(printf 'ä%.0s' {1..100})\", \"type\": \"ext4\"}"
	ok vdlink p/v web1
	says "mounted on /ää" "ä..."
	iconv -f UTF-8 -t UTF-8 <<<"$output" >said
	ok vdunlink p/v
	nothing_left
}

@test "links of this host are restored first, and an agent that does not answer is waited for once" {
	describe
	local n
	for n in a b c; do make_volume $n 8m; done
	ok vdlink p/a web1
	ok vdlink p/b web1
	ok vdlink p/c
	rm there/log
	for n in $(vdlink ls --noheadings -o pid); do kill -9 "$n"; done
	rm -r nvmet
	mkdir -p nvmet/{subsystems,ports,hosts}
	wait_for eval '[ "$(vdlink ls --noheadings -o state | sort -u | tr -d " ")" = down ]'
	deed hello=hang
	VD_SERVER_TIMEOUT=1 ok vdlink --restore p
	[[ $output == *"/p/c is "*"again"*"does not answer"*"p/a is "*"p/b is "* ]]
	[ "$(asked)" = hello ]
	[ "$(ls nvmet/subsystems | wc -l)" = 2 ]
	rm there/deeds
	ok vdunlink p/a p/b p/c
	nothing_left
}

@test "an agent that is out of order does not keep its drives from being given again" {
	describe
	ok vdlink p/v web1
	local deed
	for deed in "error:drives.json is broken" "line:hello"; do
		rebooted
		deed "hello=$deed"
		ok vdlink --restore p
		given
		[ "$(state)" = up ]
	done
	rebooted
	deed "hello=line:{\"ok\": true, \"hostnqn\": \"nqn.2014-08.org.example:other\"}"
	refused vdlink --restore p
	says "still down" "and not $NQN"
	target_empty
	rm there/deeds
	ok vdlink --restore p
	rebooted
	deed link=hang
	VD_SERVER_TIMEOUT=1 ok vdlink --restore p
	[ "$(state)" = up ]
	rm there/deeds
	ok vdunlink p/v
	nothing_left
}

# vdlink has mounted it there, and was killed before it was done.
@test "a drive that works is not taken from a server that does not say that it has let go" {
	describe
	need_server "a front"
	deed link/mount=hang
	vdlink p/v web1 3>&- &
	local pid=$!
	wait_for eval '[ "$(asked)" = "hello link link" ]'
	kill -9 $pid
	wait $pid || true
	deed unlink=die
	wait_for is_down
	refused vdlink --restore p
	says "still down" "does not answer" "web1 has it all the same"
	[ "$(<"$(sub)/namespaces/1/enable")" = 1 ]
	rm there/deeds
	ok vdlink --restore p
	given
	ok vdunlink p/v
	nothing_left
}

@test "while a server is waited for to let go, vdunlink can be interrupted" {
	describe
	ok vdlink p/v web1
	deed unlink=hang
	vdunlink -v p/v >said 2>&1 3>&- &
	local pid=$! s=0
	wait_for eval '[ "$(asked)" = "hello link link hello unlink" ]'
	kill -INT $pid
	wait $pid || s=$?
	[ $s = 5 ] || { echo "status $s"; cat said; return 1; }
	grep -q "waiting for web1 to let go" said
	grep -q interrupted said
	[ "$(state)" = up ]
	given
	rm there/deeds
	ok vdunlink p/v
	nothing_left
}

@test "a server's agent is asked for its NQN, as soon as it has its key" {
	machine
	must 2 vdserver add p/web1 --kind nvme-tcp --address 192.0.2.1 --agent web1.example
	says "its key, which is new: $T/etc/keys/web1.key" "say this again" --host
	[ -z "$(vdserver ls --noheadings)" ]
	deed hello=die
	refused vdserver add p/web1 --kind nvme-tcp --address 192.0.2.1 --agent web1.example
	says "does not answer"
	deed 'hello=line:{"ok": true, "hostnqn": "../../x"}'
	must 2 vdserver add p/web1 --kind nvme-tcp --address 192.0.2.1 --agent web1.example
	rm there/deeds
	ok vdserver add p/web1 --kind nvme-tcp --address 192.0.2.1 --agent web1.example
	ok vdserver export p
	says "host = $NQN"
	ok vdlink p/v web1
	ok vdunlink p/v
	nothing_left
}

@test "a VM's drive is mounted by its agent, too" {
	machine
	need qemu-system-x86_64
	qemu-system-x86_64 -M q35 -accel tcg -m 64 -nodefaults -display none -S -qmp "unix:$T/q,server=on,wait=off" \
		-device virtio-scsi-pci,id=scsi0 >said 2>&1 3>&- &
	local vm=$!
	wait_for [ -S q ]
	ok vdserver add p/web1 --qmp q --agent 192.0.2.2:8653
	ok vdlink p/v web1
	[ "$output" = "p/v is scsi0.0:0:0:0 of web1, 64.00m, mounted on /srv/vd/v" ]
	[ "$(tail -1 there/log | jq -c .via)" = '{"kind":"scsi"}' ]
	deed unlink=busy:it
	must 4 vdunlink p/v
	[ "$(state)" = up ]
	rm there/deeds
	ok vdunlink p/v
	ok vdlink p/v web1
	kill -9 $vm
	wait $vm || true
	deed unlink=die
	[ "$(state)" = down ]
	ok vdunlink p/v # it has ended: nobody is to be asked
	nothing_left
}

# ---- killed at any point ----------------------------------------------------------

ended()
{
	run vdunlink p/v
	[ "$status" = 0 ] || { [ "$status" = 3 ] && says "is not linked"; } || return 1
	nothing_left && [ "$(there uuid)" = "" ]
}
mended()
{
	ok vdlink --restore p || return 1
	if [ -n "$(vdlink ls --noheadings)" ]; then [ "$(state)" = up ] && given; else target_empty; fi && ended
}
either() { if [ $((n % 2)) = 1 ]; then mended; else ended; fi; }

@test "vdlink killed at any point: restore mends it, or vdunlink ends it" {
	describe
	killed_at_each "sendto mkdir symlink write" either vdlink p/v web1
}

@test "vdunlink killed at any point can be done again" {
	describe
	before() { ok vdlink p/v web1; }
	killed_at_each "sendto rmdir unlink write" ended vdunlink p/v
}

@test "vdlink --restore killed at any point can be done again" {
	describe
	before() { [ -n "$(vdlink ls --noheadings)" ] || ok vdlink p/v web1; rebooted; }
	killed_at_each "symlink write" either vdlink --restore p
}
