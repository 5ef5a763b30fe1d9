#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# What the rules and units of vd-boot(7) call, without a kernel target; and that make install
# puts them there.
load helper
REST=1

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
	need python3
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

# raid_at FILE BYTES: what libblkid takes for the end of an array's member, at the end of so many bytes
raid_at()
{
	printf 'Intel Raid ISM Cfg Sig. 1.3.00' | dd of="$1" bs=1 seek=$(($2 - 1024)) conv=notrunc status=none
	[ "$(blkid -p -o value -s TYPE "$1")" = isw_raid_member ]
}

@test "what a volume has at the end of a member does not make it something else" {
	need blkid
	ok vdpool create -q -L 64M p "$T/a"
	raid_at a $((64 << 20))
	ok vdpool probe a
	says ID_FS_TYPE=vd_member
	truncate -s 80M a
	ok vdpool grow p
	raid_at a $((80 << 20))
	ok vdpool probe a # behind what the label says
}

@test "a RAID that has its metadata behind the member, or before, is one" {
	need blkid
	no_check
	ok vdpool create -q -L 64M p "$T/a"
	cp a b
	truncate -s 65M b
	raid_at b $((65 << 20))
	must 6 vdpool probe b
	says "where no volume could have put it"
	says_not ID_FS_TYPE
	python3 - a <<-'EOF'
		import struct, sys
		with open(sys.argv[1], "r+b") as f: # of version 1.2, where the owner's record is
		    f.seek(4096)
		    f.write(struct.pack("<II136xQ", 0xa92b4efc, 1, 8))
	EOF
	[ "$(blkid -p -o value -s TYPE a)" = linux_raid_member ]
	must 6 vdpool probe a
	says_not ID_FS_TYPE
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
	need_server "what it is about"
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
	need make gcc
	make -C "$VD" -s install DESTDIR="$T/d" PREFIX=/opt/vd UNITDIR=/lib/systemd/system UDEVDIR=/lib/udev >/dev/null
	ls d/lib/udev/rules.d/*dm-vd.rules
	for r in 59 61; do grep -F 'IMPORT{program}="/opt/vd/sbin/vdpool probe $devnode"' d/lib/udev/rules.d/$r-vd.rules; done
	for unit in d/lib/systemd/system/vd-*.service; do grep -E '^Exec[A-Za-z]*=/opt/vd/sbin/vd' "$unit"; done
	[ -e d/lib/systemd/system/sysinit.target.wants/vd-shutdown.service ]
	[ -e d/lib/systemd/system/multi-user.target.wants/vd-links.service ]
	# What the rules and units start is there
	for p in $(grep -hoE '/opt/vd/sbin/vd[a-z]*' -r d/lib); do [ -x "d$p" ]; done
	for u in $(grep -oE 'vd-[a-z]*@' d/lib/udev/rules.d/61-vd.rules); do [ -e "d/lib/systemd/system/$u.service" ]; done
	make -C "$VD" -s uninstall DESTDIR="$T/d" PREFIX=/opt/vd UNITDIR=/lib/systemd/system UDEVDIR=/lib/udev >/dev/null
	[ -z "$(find d ! -type d)" ]
}
