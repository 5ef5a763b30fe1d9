#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# What the rules and units of vd-boot(7) call, without a kernel target; and that make install
# puts them there.
load helper

@test "vdpool probe tells what the label says, one property a line" {
	ok vdpool create -q -L 64M p "$T/a" "$T/b"
	ok vdpool probe "$T/b"
	uuid=$(vdpool ls --noheadings -o uuid p | xargs)
	member=$(vdpool show --reportformat json p | jq -r '.report[0].pool[0].members[1].uuid')
	[ "$output" = "ID_FS_TYPE=vd_member
ID_FS_USAGE=raid
ID_FS_UUID=$member
ID_FS_UUID_ENC=$member
VD_POOL_UUID=$uuid
VD_MEMBER=1
ID_FS_LABEL=p
ID_FS_LABEL_ENC=p
VD_POOL=p" ]
}

@test "vdpool probe refuses what has no label, or a damaged one" {
	no_check
	truncate -s 1M none
	must 3 vdpool probe none
	says "carries no label"
	must 3 vdpool probe nowhere
	ok vdpool create -q -L 64M p "$T/a"
	printf x | dd of=a bs=1 seek=100 conv=notrunc status=none
	must 7 vdpool probe a
}

@test "vdpool probe passes on no name that would set other properties" {
	no_check
	ok vdpool create -q -L 64M p "$T/a"
	python3 - "$VD/tests/format" "$T/a" <<-'EOF'
		import struct, sys
		sys.path.insert(0, sys.argv[1])
		import disk
		with open(sys.argv[2], "r+b") as f:
		    label = bytearray(f.read(4096))
		    at = label.index(b"p\0", 64)
		    label[at:at + 24] = b"p\nSYSTEMD_WANTS=evil\0\0\0\0"
		    label[8:12] = bytes(4)
		    label[8:12] = struct.pack("<I", disk.crc32c(bytes(label)))
		    f.seek(0)
		    f.write(label)
	EOF
	must 7 vdpool probe a
	says "the label of a"
	says_not SYSTEMD_WANTS
	refused vdpool activate --complete a # nor is it used where a name is
	says_not SYSTEMD_WANTS
	no_check
}

@test "a pool on files is not for the kernel: activate says so, and is content if it may be" {
	make_pool
	must 5 vdpool activate p
	says "pool p is not activated: a member is a file"
	ok vdpool activate --complete p
	says "not for the kernel: a member is a file"
	ok vdpool activate --all
	ok vdpool deactivate p
	says "not active"
	ok vdpool deactivate --all
	must 3 vdpool activate nope
	must 3 vdpool deactivate nope
	must 2 vdpool activate
	must 2 vdpool deactivate --all p
	must 2 vdlink --complete p/v
}

@test "a pool that misses a member is not activated; --complete waits for it; its member names it" {
	no_check
	ok vdpool create -q -L 64M p "$T/a" "$T/b"
	mv b gone
	must 5 vdpool activate p
	says "1 of its 2 members are missing"
	says "vdpool activate --readonly p"
	ok vdpool activate --complete "$T/a"
	says "pool p waits for 1 of its 2 members"
	ok vdlink --restore --complete "$T/a"
	must 3 vdpool activate "$T/gone.not"
	ok vdpool show p
	says "vdpool activate --readonly p"
}

@test "a server's pool is the server's" {
	make_pool
	make_volume
	serve
	must 5 vdpool activate p
	says "a server has it open"
	must 4 vdpool deactivate p
	says "open in a server"
	ok vdpool activate --complete p
}

@test "make install puts rules and units where they are looked for, and make uninstall takes them away" {
	make -C "$VD" -s install DESTDIR="$T/d" PREFIX=/opt/vd UNITDIR=/lib/systemd/system UDEVDIR=/lib/udev >/dev/null
	ls d/lib/udev/rules.d/*dm-vd.rules
	grep -F 'IMPORT{program}="/opt/vd/sbin/vdpool probe $devnode"' d/lib/udev/rules.d/61-vd.rules
	for unit in d/lib/systemd/system/vd-*.service; do grep -E '^Exec[A-Za-z]*=/opt/vd/sbin/vd' "$unit"; done
	[ -e d/lib/systemd/system/sysinit.target.wants/vd-shutdown.service ]
	[ -e d/lib/systemd/system/multi-user.target.wants/vd-links.service ]
	# What the rules and units start is there
	for p in $(grep -hoE '/opt/vd/sbin/vd[a-z]*' -r d/lib); do [ -x "d$p" ]; done
	for u in $(grep -oE 'vd-[a-z]*@' d/lib/udev/rules.d/61-vd.rules); do [ -e "d/lib/systemd/system/$u.service" ]; done
	make -C "$VD" -s uninstall DESTDIR="$T/d" PREFIX=/opt/vd UNITDIR=/lib/systemd/system UDEVDIR=/lib/udev >/dev/null
	[ -z "$(find d ! -type d)" ]
}
