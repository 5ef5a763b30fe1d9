#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
#
# Locks of volumes, as vdlock shows and breaks them.
load helper

# lock VOLUME PID [HOST-ID]: as a process ($PURPOSE) of this boot would, or one of another host; pool p is served
lock()
{
	local host boot
	read -r host <"${3:-/etc/machine-id}"
	read -r boot </proc/sys/kernel/random/boot_id
	if [ "${VD_TARGET:-server}" = kernel ]; then
		dmsetup message vd-p-pool 0 "lock $1 host=$host boot=$boot hostname=here purpose=${PURPOSE:-a\\ test} pid=$2 since=1000000000"
		return
	fi
	need python3
	host=${host:0:8}-${host:8:4}-${host:12:4}-${host:16:4}-${host:20}
	python3 - "$T/run/p.ctl" "$1" "$2" "$host" "$boot" "${PURPOSE:-a test}" <<'PY'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
holder = {"host": sys.argv[4], "boot": sys.argv[5], "hostname": "here", "purpose": sys.argv[6], "pid": int(sys.argv[3]), "since": 1000000000}
s.sendall(json.dumps({"op": "lock", "volume": sys.argv[2], "holder": holder}).encode() + b"\n")
answer = s.makefile().readline()
assert "result" in answer, answer
PY
}
# $dead: the number of a process that has ended
dead() { true & dead=$!; wait $dead; }
shown() { vdlock ls --noheadings -o "$1" p | sort | tr -s ' '; }
far() { echo 11112222333344445555666677778888 >"$T/far"; }

# bats test_tags=kernel
@test "locks are listed with who holds them, where and since when, and whether they are stale" {
	need jq
	make_pool
	make_volume v
	make_volume w
	make_volume x
	make_volume free
	serve
	ok vdlock ls
	[ -z "$output" ]
	dead
	far
	lock v $$
	lock w $dead
	lock x $$ "$T/far"
	[ "$(shown path,holder,host,pid,since,state)" = " p/v a test here $$ 1970-01-01T00:00:01Z live
 p/w a test here $dead 1970-01-01T00:00:01Z stale
 p/x a test here $$ 1970-01-01T00:00:01Z elsewhere" ]
	ok vdlock ls --reportformat json
	jq -e '[.report[0].lock[] | .path + " " + .state] == ["p/v live", "p/w stale", "p/x elsewhere"]' <<<"$output"
	must 3 vdlock ls nope
	must 2 vdlock
	must 2 vdlock ls p q
}

# bats test_tags=kernel
@test "a stale lock is broken at once; -t breaks none" {
	make_pool
	make_volume
	serve
	dead
	lock v $dead
	ok vdlock break -t p/v
	says "would be broken"
	[ "$(shown state)" = " stale" ]
	ok vdlock break p/v
	says "is not locked any more"
	[ "$(field p/v locked)" = false ]
	ok vdlock break p/v
	says "is not locked"
	must 3 vdlock break p/nope
	must 2 vdlock break p
	must 2 vdlock break
}

@test "the locks of a pool that nobody has open are shown and broken, too" {
	make_pool
	make_volume v
	make_volume w
	serve
	dead
	far
	lock v $dead
	lock w 1 "$T/far"
	end_servers TERM
	[ "$(shown volume,state)" = " v stale
 w elsewhere" ]
	ok vdlock break p/v
	ok vdlock break -y --force p/w
	[ -z "$(vdlock ls)" ]
}

# bats test_tags=kernel
@test "a lock whose holder is alive, or on another host, is broken by --force and a yes alone" {
	make_pool
	make_volume v
	make_volume w
	serve
	far
	lock v $$
	lock w $$ "$T/far"
	for n in v w; do
		must 4 vdlock break p/$n
		says "a test, pid $$, on here since 1970" --force
		must 4 vdlock break -y p/$n
		must 4 vdlock break -t p/$n
		must 6 vdlock break --force p/$n
		says "a test, pid $$"
		[ "$(field p/$n locked)" = true ]
		ok vdlock break -t --force p/$n
		[ "$(field p/$n locked)" = true ]
		ok vdlock break -y --force p/$n
		[ "$(field p/$n locked)" = false ]
	done
}

@test "a lock that is another's by the time of the yes is not broken" {
	need_server "a control socket"
	need python3
	make_pool
	make_volume
	serve
	far
	lock v $$ "$T/far"
	python3 - "$T" <<'PY'
import json, os, pty, socket, subprocess, sys
def ask(op, **more):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1] + "/run/p.ctl")
    s.sendall(json.dumps({"op": op, "volume": "v", **more}).encode() + b"\n")
    answer = s.makefile().readline()
    assert "result" in answer, answer
host = "11112222-3333-4444-5555-666677778888"
holder = {"host": host, "boot": host, "hostname": "far", "purpose": "another", "pid": 1, "since": 2}
master, slave = pty.openpty()
p = subprocess.Popen(["vdlock", "break", "--force", "p/v"], stdin=slave, stderr=subprocess.PIPE, text=True)
said = ""
while not said.endswith("[y/n]: "):
    c = p.stderr.read(1)
    assert c, said
    said += c
ask("unlock", force=True, holder=holder)
ask("lock", holder=holder)
os.write(master, b"y\n")
_, rest = p.communicate()
assert p.returncode == 4 and "by another now: another, pid 1, on far" in rest, (p.returncode, rest)
PY
	[ "$(shown holder)" = " another" ]
}

@test "the lock of a link that is being made is not broken; what a killed vdlink left is" {
	need mkfs.ext4
	need_links
	make_pool
	make_volume
	ok vdlink p/v
	mkfs.ext4 -q "$VD_DEV_DIR/p/v"
	ok vdunlink p/v
	# It waits in its mount
	mkdir bin
	printf '#!/bin/sh\nfor i in $(seq 300); do [ -e "%s" ] && sleep 0.1; done\nexit 1\n' "$T/bin" >bin/mount
	chmod +x bin/mount
	PATH=$T/bin:$PATH vdlink -m "$T/mnt" p/v 3>&- &
	wait_for eval '[ "$(shown holder,state)" = " vdlink live" ] && vdlink ls --noheadings -o state p | grep unfinished'
	must 4 vdlock break p/v
	must 4 vdlock break -y --force p/v
	local pid
	pid=$(shown pid)
	says "being linked or unlinked by vdlink, pid$pid" "vdunlink p/v"
	kill -9 $pid
	wait $! || true
	rm -r bin
	ok vdlock break p/v
	ok vdunlink p/v
}

@test "the lock of a vdlink or vdunlink that has no pointer yet, or no more, is not broken" {
	need_server "a control socket"
	make_pool
	make_volume
	serve
	local pid
	cp "$(command -v sleep)" vdx
	for PURPOSE in vdlink vdunlink; do
		./vdx 1000 3>&- &
		pid=$!
		wait_for eval '[ "$(cat /proc/$pid/comm)" = vdx ]'
		lock v $pid
		must 4 vdlock break -y --force p/v
		says "being linked or unlinked by $PURPOSE, pid"
		[ "$(field p/v locked)" = true ]
		kill -9 $pid
		wait $pid || true
		ok vdlock break p/v
	done
}

@test "a volume that is linked has no lock, and is left to vdunlink" {
	need_links
	make_pool
	make_volume
	ok vdlink p/v
	must 4 vdlock break -y --force p/v
	says "vdunlink p/v"
	[ "$(vdlink ls --noheadings -o state | tr -d ' ')" = up ]
	ok vdunlink p/v
}
