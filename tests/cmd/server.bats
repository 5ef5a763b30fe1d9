#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# The server as other people's tools see it.
load helper

served() { make_pool "${1:-2}" "${2:-256m}"; make_volume v "${3:-128m}"; serve; }

@test "nbdinfo shows every volume and its size" {
	need_server "a list of exports"
	need nbdinfo jq
	make_pool
	make_volume a 1m
	make_volume b 2m
	serve
	nbdinfo --list --json "$(uri)" >list
	[ "$(jq -r '.exports | map(."export-name") | sort | join(" ")' list)" = "a b" ]
	[ "$(jq -r '.exports[] | select(."export-name"=="b") | ."export-size"' list)" = 2097152 ]
}

@test "an export has flush, FUA, trim, fast zero, cache, extents, several connections" {
	need_server "what an export can"
	need nbdinfo
	served
	local c
	for c in "can flush" "can fua" "can trim" "can zero" "can fast-zero" "can cache" "can multi-conn" "can df"; do
		# shellcheck disable=SC2086
		nbdinfo --$c "$(uri v)" || { echo "$c"; return 1; }
	done
	[ "$(nbdinfo --json "$(uri v)" | jq -r '.exports[0].contexts[0]')" = base:allocation ]
}

@test "an export that there is not is refused, and the server lives" {
	need nbdinfo
	served
	refused nbdinfo "$(uri nope)"
	refused nbdinfo "$(uri)"
	refused nbdinfo "$(uri 'v/link=77')"
	refused nbdinfo "$(uri 'v/../w')"
	nbdinfo "$(uri v)"
}

@test "base:allocation tells data from holes" {
	need_server "base:allocation"
	need nbdinfo qemu-io
	served
	io v 'write -P 1 1m 64k' 'write -P 1 2m 4k' 'write -P 1 4m 1m' 'discard 4m 512k'
	[ "$(nbdinfo --map "$(uri v)" | awk '{print $1, $2, $4}')" = \
"0 1048576 hole,zero
1048576 65536 data
1114112 983040 hole,zero
2097152 4096 data
2101248 2617344 hole,zero
4718592 524288 data
5242880 128974848 hole,zero" ]
}

@test "an image is copied in and out by nbdcopy" {
	need nbdcopy
	served
	random 100000000 >img
	nbdcopy img "$(uri v)"
	nbdcopy "$(uri v)" out
	cmp -n 100000000 img out
}

@test "a sparse image stays sparse" {
	need nbdcopy
	served
	truncate -s 100m img
	random 1048576 | dd of=img bs=1M seek=50 conv=notrunc iflag=fullblock status=none
	nbdcopy --destination-is-zero img "$(uri v)"
	[ "$(field p/v mapped)" -le 1179648 ]
	nbdcopy "$(uri v)" out
	cmp -n 104857600 img out
}

@test "a qcow2 image is converted in and compared by qemu-img" {
	need qemu-img qemu-io
	served
	qemu-img create -q -f qcow2 img.qcow2 128m
	qemu-io -c 'write -P 7 3m 5m' -c 'write -P 9 100m 777k' img.qcow2 >/dev/null
	qemu-img convert -n -O raw img.qcow2 "$(uri v)"
	qemu-img compare -F raw img.qcow2 "$(uri v)"
	[ "$(field p/v mapped)" -le 7000000 ]
}

@test "an export is converted out to qcow2" {
	need qemu-img qemu-io
	served
	io v 'write -P 7 3m 5m' 'write -P 9 100m 777k'
	qemu-img convert -f raw -O qcow2 "$(uri v)" out.qcow2
	qemu-img compare -f raw "$(uri v)" out.qcow2
}

@test "qemu-img map sees what is allocated" {
	need_server "base:allocation"
	need qemu-img qemu-io jq
	served
	io v 'write -P 1 8m 1m'
	qemu-img map --output=json -f raw "$(uri v)" |
		jq -e 'map(select(.data)) | length == 1 and .[0].start == 8388608 and .[0].length == 1048576'
}

@test "fio verifies random writes, 4 connections deep" {
	need fio
	served
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=16 --size=96m --io_size=48m \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --output=out || { cat out; return 1; }
}

@test "fio verifies writes of 512 bytes to 64 KiB" {
	need fio
	served
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --iodepth=8 --size=64m \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --output=out || { cat out; return 1; }
}

@test "what fio wrote verifies in a snapshot after the volume was written over" {
	need fio
	served
	local job="--name=w --ioengine=nbd --rw=randwrite --bs=4k --iodepth=16 --size=48m --verify=crc32c --verify_fatal=1 --randseed=7"
	# shellcheck disable=SC2086
	fio $job --uri="$(uri v)" --do_verify=0 --output=out || { cat out; return 1; }
	ok vdsnap p/v -n s
	fio --name=o --ioengine=nbd --rw=randwrite --bs=4k --iodepth=16 --size=48m --uri="$(uri v)" --output=out2 || { cat out2; return 1; }
	# shellcheck disable=SC2086
	fio $job --uri="$(uri s)" --verify_only --output=out || { cat out; return 1; }
}

@test "what fio wrote verifies while the volume grows" {
	need fio
	served
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=8 --size=64m \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --output=out 3>&- &
	local i
	for i in 1 2 3 4 5; do ok vdresize p/v -L +16m; sleep 0.1; done
	wait $! || { cat out; return 1; }
}

@test "trim gives space back, and reads as zeros" {
	need qemu-io
	served
	io v 'write -P 1 0 16m'
	[ "$(field p/v mapped)" = 16777216 ]
	io v 'discard 4m 8m' 'read -P 0 4m 8m' 'read -P 1 0 4m' 'read -P 1 12m 4m'
	[ "$(field p/v mapped)" = 8388608 ]
}

@test "write zeroes frees, unaligned edges too read as zeros" {
	need qemu-io
	served
	io v 'write -P 1 0 1m' 'write -z 1000 500000' 'read -P 1 0 1000' 'read -P 0 1000 500000' 'read -P 1 501000 547576'
	[ "$(field p/v mapped)" -lt 600000 ]
}

@test "unaligned reads and writes are exact" {
	need qemu-io
	served
	io v 'write -P 1 0 64k' 'write -P 2 4095 2' 'write -P 3 511 1026' 'read -P 3 511 1026' 'read -P 2 4095 2' \
		'read -P 1 4097 1000' 'read -P 1 0 511' 'read -P 1 1537 2558'
}

@test "a write beyond the end is refused, and the server lives" {
	need_server "requests of NBD"
	need nbdinfo
	served 1 64m 1m
	python3 - "$S" <<'PY' || return 1
import socket, struct, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
f = s.makefile("rwb")
f.read(18); f.write(struct.pack(">I", 3)); f.flush()
# NBD_OPT_EXPORT_NAME
f.write(struct.pack(">QII", 0x49484156454F5054, 1, 1) + b"v"); f.flush()
size, flags = struct.unpack(">QH", f.read(10))
def request(cmd, off, length, data=b"", fl=0):
    f.write(struct.pack(">IHHQQI", 0x25609513, fl, cmd, 1, off, length) + data); f.flush()
    magic, err, h = struct.unpack(">IIQ", f.read(16))
    assert magic == 0x67446698, hex(magic)
    return err
assert size == 1 << 20
assert request(1, size - 512, 1024, b"x" * 1024) != 0       # write over the end
assert request(1, 1 << 62, 512, b"x" * 512) != 0            # far beyond
assert request(0, size, 512) != 0                           # read at the end
assert request(4, size, 1 << 31) != 0                       # trim beyond
assert request(99, 0, 0) != 0                               # no such command
assert request(1, 0, 512, b"y" * 512, 0x4000) != 0          # unknown flag
assert request(1, 0, 512, b"z" * 512, 1) == 0               # FUA
PY
	nbdinfo "$(uri v)"
	qemu-io -f raw -r -c 'read -P 122 0 512' "$(uri v)"
}

@test "garbage on the NBD socket does not end the server" {
	need_server "requests of NBD"
	need nbdinfo python3
	served
	python3 - "$S" <<'PY'
import os, socket, sys
for i in range(40):
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
    try:
        s.sendall(os.urandom(1 + i * 37)); s.close()
    except OSError: pass
PY
	nbdinfo "$(uri v)"
}

@test "garbage on the control socket does not end the server" {
	need_server "a control socket"
	need python3 nbdinfo
	served
	python3 - "$T/run/p.ctl" <<'PY'
import os, socket, sys
junk = [b"\n", b"{}\n", b"[1,2]\n", b"null\n", b'{"op":1}\n', b'{"op":"create"}\n', b'{"op":"create","volume":5,"size":"x"}\n',
        b'{"op":"create","volume":"x","size":-1}\n', b'{"op":"pointer-del","volume":"v","link":1e300}\n',
        b'{' * 5000 + b"\n", b'"' + b"a" * 100000 + b'"\n', os.urandom(4096) + b"\n", b'{"op":"list","names":[1,{}]}\n',
        b'{"op":"snapshot","snapshots":[]}\n', b'{"op":"diff","a":"v","b":"v\\u0000x"}\n']
for j in junk:
    s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect(sys.argv[1])
    try:
        s.sendall(j); s.recv(65536)
    except OSError: pass
    s.close()
PY
	ok vdls p
	nbdinfo "$(uri v)"
}

@test "the control socket is root's alone" {
	need_server "a control socket"
	served
	[ "$(stat -Lc %a "$T/run/p.ctl")" = 600 ]
}

@test "the server ends on SIGTERM though a client stays connected, and the pool is closed in order" {
	need_server "a process that is told to end"
	need qemu-io
	served
	qemu-io -f raw -c 'write -P 5 0 1m' -c 'sleep 60000' "$(uri v)" 3>&- &
	local client=$!
	wait_for eval 'vdlink ls p | grep client'
	kill -TERM $SERVER
	wait $SERVER
	kill $client 2>/dev/null || true
	ok vdpool check p
	serve
	io v 'read -P 5 0 1m'
	ok vdlink ls p
	says_not client
}

@test "what was asked of a server before it ends is answered" {
	need_server "a process that is told to end"
	need python3
	served
	python3 - "$VD_RUNTIME_DIR/p.ctl" "$SERVER" <<'PY'
import json, os, signal, socket, sys
pid = int(sys.argv[2])
def connected():
    s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.settimeout(60)
    return s
def last(s): return [json.loads(l) for l in s.makefile()][-1]
many = [connected() for i in range(10)]
many[0].sendall(b'{"op": "ping"}\n')
assert "result" in json.loads(many[0].makefile().readline())
os.kill(pid, signal.SIGSTOP)
many += [connected() for i in range(10)] # not taken yet
for i, s in enumerate(many):
    s.sendall(json.dumps({"op": "create", "volume": f"w{i}", "size": 1 << 20}).encode() + b"\n")
idle = connected()
os.kill(pid, signal.SIGTERM)
os.kill(pid, signal.SIGCONT)
for s in many:
    assert "result" in last(s)
assert idle.recv(1) == b""
PY
	wait $SERVER
	[ "$(vdls --noheadings -o name p | grep -c w)" = 20 ] || { vdls p; return 1; }
}

@test "a client of a killed server does not keep others from writing" {
	need_server "a process that is killed"
	need qemu-io
	served
	qemu-io -f raw -c 'write -P 5 0 1m' -c flush -c 'sleep 60000' "$(uri v)" 3>&- &
	local client=$!
	wait_for eval 'vdlink ls p | grep client'
	kill -9 $SERVER
	wait $SERVER || true
	kill $client 2>/dev/null || true
	serve
	io v 'write -P 6 0 4k' 'read -P 5 4k 4k'
}

@test "two clients: the second cannot write while the first does, and can afterwards" {
	need_server "it knows its clients"
	need qemu-io nbdinfo
	served
	qemu-io -f raw -c 'write -P 5 0 4k' -c 'sleep 60000' "$(uri v)" 3>&- &
	local client=$!
	wait_for eval 'vdlink ls p | grep client'
	nbdinfo --is read-only "$(uri v)"
	nbdinfo "$(uri v)" >out
	grep 'read-only here' out
	kill $client
	wait $client || true
	wait_for eval '! nbdinfo --is read-only "$(uri v)"'
	io v 'write -P 6 0 4k'
}

@test "a pool is served read-only when told so" {
	need nbdinfo
	make_pool
	make_volume
	at_rest
	serve readonly=true
	nbdinfo --is read-only "$(uri v)"
}

@test "the server says what it cannot serve" {
	need_server "its command line"
	make_pool
	run nbdkit -f -U "$T/run/x.nbd" "${VD_BUILD:-$VD/build}/nbdkit-vd-plugin.so" pool=nope
	[ "$status" != 0 ]
	says "pool nope is not found"
	run nbdkit -f -U "$T/run/x.nbd" "${VD_BUILD:-$VD/build}/nbdkit-vd-plugin.so"
	[ "$status" != 0 ]
	says "pool=NAME"
	run nbdkit -f -U "$T/run/x.nbd" "${VD_BUILD:-$VD/build}/nbdkit-vd-plugin.so" pool=p frob=1
	[ "$status" != 0 ]
	says frob
}

@test "a file system made over qemu's nbd is clean" {
	need mkfs.ext4 debugfs nbdcopy
	served
	truncate -s 128m img
	mkfs.ext4 -q -d /etc/init.d img 2>/dev/null || mkfs.ext4 -q img
	nbdcopy img "$(uri v)"
	nbdcopy "$(uri v)" out
	e2fsck -fn out
	cmp img out
}

@test "a volume can be removed as soon as its client has ended" {
	need_server "clients that die"
	need nbdcopy
	local i
	THREADS=1 # nbdkit 1.32 fails an assertion when a client goes away while several answer it
	served 1 300m 200m
	random 200000000 >big
	for i in 1 2 3; do
		nbdcopy big "$(uri v)" &
		sleep 0.1
		kill -9 $! || true # with requests under way, most often
		wait $! || true
		ok vdrm -y p/v
		make_volume v 200m
	done
}

@test "what fio wrote verifies while the volume shrinks to it and grows again" {
	need fio qemu-io
	served 2 256m 256m
	random 67108864 >end
	qemu-io -f raw -c "write -s $T/end 192m 64m" -c flush "$(uri v)" >/dev/null
	fio --name=w --ioengine=nbd --uri="$(uri v)" --rw=randwrite --bs=4k --iodepth=8 --size=64m --rate_iops=8000 \
		--verify=crc32c --verify_fatal=1 --do_verify=1 --output=out 3>&- &
	local fio=$! i
	for i in 1 2 3 4; do
		ok vdresize -y p/v -L 64m
		ok vdresize p/v -L 256m
	done
	wait $fio || { cat out; return 1; }
	io v 'read -P 0 64m 192m'
	[ "$(field p/v mapped)" = 67108864 ]
}
