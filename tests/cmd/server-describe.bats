#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Servers that a pool describes (vdserver); what links do with them is in server-vm.bats.
load helper

describe() { ok vdserver add "p/${1:-web1}" --qmp "$T/${2:-q}"; }

# bats test_tags=kernel
@test "a server is described, listed, shown and removed" {
	make_pool
	describe
	ok vdserver ls --noheadings -o path,kind,accepted,drives,address p
	[ "$(tr -s ' ' <<<"$output")" = " p/web1 vm yes 0 $T/q" ]
	ok vdserver show p/web1
	says "[p/web1]" "kind = vm" "qmp = $T/q" "accepted = yes"
	ok vdserver rm p/web1
	ok vdserver ls --noheadings p
	[ -z "$output" ]
	must 3 vdserver show p/web1
	must 3 vdserver rm p/web1
}

# bats test_tags=kernel
@test "a server may have a volume's name, and is none" {
	make_pool
	make_volume web1
	describe
	ok vdls --noheadings -o name p
	[ "$output" = "  web1" ]
	ok vdrm -y p/web1
	ok vdserver show p/web1
	refused vdls p/.web1
	refused vdcreate p/.web1 -L 8m
	ok vdserver rm p/web1
}

@test "servers are there after the pool was closed, and after a server was killed" {
	make_pool
	serve
	describe web1
	describe web2
	ok vdserver rm p/web1
	end_servers KILL
	ok vdserver ls --noheadings -o server p
	[ "$output" = "  web2" ]
	ok vdpool check p
	ok vdserver ls --noheadings -o server p
	[ "$output" = "  web2" ]
}

@test "what is exported is what the pool says, of all its servers or one" {
	make_pool
	describe web1
	ok vdserver add p/web2 --qmp "$T/q2" --bus scsi1
	ok vdserver export p
	[ "$output" = "[p/web1]
kind = vm
qmp = $T/q

[p/web2]
kind = vm
qmp = $T/q2
bus = scsi1" ]
	ok vdserver export p/web2
	says_not web1
}

@test "servers are listed of all pools, and as JSON" {
	make_pool
	ok vdpool create o -L 16m o0
	describe
	ok vdserver add o/web2 --qmp q
	ok vdserver ls --reportformat json
	[ "$(jq -c '[.report[0].server[] | [.path, .kind, .address]] | sort' <<<"$output")" = \
		"[[\"o/web2\",\"vm\",\"$T/q\"],[\"p/web1\",\"vm\",\"$T/q\"]]" ]
}

@test "a description that cannot be is refused" {
	make_pool
	must 2 vdserver add p/local --qmp q
	says "this host"
	must 2 vdserver add p/.web --qmp q
	must 2 vdserver add p/-web --qmp q
	must 2 vdserver add p/a:b --qmp q
	must 2 vdserver add p --qmp q
	must 2 vdserver add "p/$(printf 'x%.0s' {1..64})" --qmp q
	must 2 vdserver add p/web
	must 2 vdserver add p/web --qmp "/$(printf 'x%.0s' {1..107})"
	must 2 vdserver add p/web --qmp $'a\nb'
	must 2 vdserver add p/web --kind nvme --qmp q
	must 2 vdserver add p/web --kind nvme-tcp --qmp q
	must 3 vdserver add nopool/web --qmp q
	describe web
	must 5 vdserver add p/web --qmp q
	says "describes a server web already"
}

@test "with -t nothing is described, accepted or removed" {
	make_pool
	ok vdserver add -t p/web1 --qmp q
	says would
	must 3 vdserver show p/web1
	describe
	must 5 vdserver add -t p/web1 --qmp q
	cp etc/servers/local before
	ok vdserver rm -t p/web1
	ok vdserver show p/web1
	ok vdserver accept -t p/web1
	cmp before etc/servers/local
}

# What a pool says is the pool's, and it may come from anywhere.
@test "a server that another host described is not spoken to until it is accepted here" {
	make_pool
	make_volume v
	describe
	rm etc/servers/local # of the host where that was
	ok vdserver show p/web1
	says "accepted = no"
	must 3 vdlink p/v web1
	says "has not been accepted on this host" "vdserver accept p/web1"
	[ "$(vdlink ls --noheadings)" = "" ]
	ok vdserver accept p/web1
	ok vdserver show p/web1
	says "accepted = yes"
	must 5 vdlink p/v web1
	says "not running"
}

@test "a server whose description has changed is not spoken to until it is accepted again" {
	make_pool
	make_volume v
	describe web1 q
	cp etc/servers/local before
	ok vdserver rm p/web1
	describe web1 another
	cp before etc/servers/local
	ok vdserver ls --noheadings -o accepted
	says differs
	refused vdlink p/v web1
	says "is not what was accepted" "vdserver accept p/web1"
	ok vdserver accept p/web1
	refused vdlink p/v web1
	says "nobody listens on $T/another"
}

@test "a server is removed from the pool and from the host's record" {
	make_pool
	describe
	grep -q web1 etc/servers/local
	ok vdserver rm p/web1
	[ "$(grep -c web1 etc/servers/local)" = 0 ]
}

@test "in a pool that is read-only nothing is described" {
	REST=1 make_pool
	serve readonly=true
	refused vdserver add p/web1 --qmp q
	says "read-only"
}

# ---- machines, and agents --------------------------------------------------------

NQN=nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555
machine() { vdserver add p/db1 --kind nvme-tcp --host "${1-$NQN}" --address "${2-192.0.2.1}" --agent "${3-db1.example}" --port "${4-4420}"; }

# bats test_tags=kernel
@test "a machine is described, with a key that is its own" {
	make_pool
	ok machine
	says "its key is new: $T/etc/keys/db1.key" "/etc/vd/agent.key"
	[ "$(stat -c %a etc/keys/db1.key) $(stat -c %a etc/keys)" = "600 700" ]
	[[ $(<etc/keys/db1.key) =~ ^[0-9a-f]{64}$ ]]
	ok vdserver ls --noheadings -o path,kind,address,agent
	[ "$(tr -s ' ' <<<"$output")" = " p/db1 nvme-tcp 192.0.2.1 4420 db1.example" ]
	ok vdserver export p
	[ "$output" = "[p/db1]
kind = nvme-tcp
host = $NQN
address = 192.0.2.1
port = 4420
agent = db1.example" ]
	describe
	[ ! -e etc/keys/web1.key ]
	ok vdserver add p/web2 --qmp q --agent '[2001:db8::1]:8653'
	! cmp etc/keys/db1.key etc/keys/web2.key
}

@test "a key that is there stays, and one that is not is made by accept, too" {
	make_pool
	ok vdserver add -t p/db1 --kind nvme-tcp --host $NQN --address 192.0.2.1 --agent db1
	[ ! -e etc/keys ]
	ok machine
	cp etc/keys/db1.key before
	refused machine
	cmp before etc/keys/db1.key
	ok vdserver rm p/db1
	[ ! -e etc/keys/db1.key ]
	cp before etc/keys/db1.key
	ok machine
	says_not "its key"
	cmp before etc/keys/db1.key
	rm etc/keys/db1.key
	ok vdserver accept -t p/db1
	[ ! -e etc/keys/db1.key ]
	ok vdserver accept p/db1
	says "its key is new"
	[ -s etc/keys/db1.key ]
	ok vdserver accept p/db1
	says_not "its key"
}

@test "servers of two pools with one name have one key, which is said, and goes with the last" {
	make_pool
	truncate -s 64m q0
	ok vdpool create q q0
	ok machine
	ok vdserver add q/db1 --kind nvme-tcp --host $NQN --address 192.0.2.1 --agent db2
	says "that of server p/db1, too"
	ok vdserver rm p/db1
	[ -e etc/keys/db1.key ]
	ok vdserver rm q/db1
	[ ! -e etc/keys/db1.key ]
}

@test "a machine that cannot be is refused" {
	make_pool
	local bad
	for bad in "" nqn. iqn.2001-04.org:x "nqn.2014-08/../x" "nqn. x" nqn.2014-08.org:$'\xc3\xa4' "nqn.$(printf 'x%.0s' {1..220})"; do must 2 machine "$bad"; done
	for bad in "" 0.0.0.0 :: 192.0.2 192.0.2.1.1 db1 "192.0.2.1 " /etc; do must 2 machine "$NQN" "$bad"; done
	for bad in "" -x "a b" "a/b" a: a:0 a:65536 a:08 a:1:2 2001:db8::1 "[::1" ":8653" $'a\nb' "$(printf 'x%.0s' {1..264})"; do
		must 2 machine "$NQN" 192.0.2.1 "$bad"
		says agent
	done
	for bad in 0 65536 044 http -1 " 1" 999999; do must 2 machine "$NQN" 192.0.2.1 a "$bad"; done
	must 2 vdserver add p/db1 --kind nvme-tcp --host $NQN --address 192.0.2.1 --agent a --bus b
	must 2 vdserver add p/db1 --qmp q --host $NQN
	[ -z "$(vdserver ls --noheadings)" ]
	[ ! -e etc/keys ]
	ok machine $NQN 2001:db8::1 "[2001:db8::1]" 1
}
