# SPDX-License-Identifier: GPL-2.0-only
# The module under KASAN, lockdep, kmemleak and UBSAN, in User-Mode Linux: whatever
# these complain of fails the job (jobs/common.sh, quiet).
load helper

@test "sanitised: a file system, its snapshot, and what userspace wrote" {
	pool_of 2 512M
	vdcreate -q -L 32M pool/old
	yes "what userspace wrote" | head -c 32M >job/old.img || true
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=pool --run 'nbdcopy job/old.img "nbd+unix:///old?socket=$unixsocket"' 3>&-
	guest san files -t 560
	same_here
}

@test "sanitised: what fio wrote verifies, under snapshots" {
	pool_of 2 1G
	guest san verify -t 560
	same_here
}

@test "sanitised: a full pool, a failed member, growth and reloads under I/O" {
	pool_of 2 64M
	guest san edges -t 560
	same_here
}

@test "sanitised: the commands make, link, snapshot, change and unlink in the kernel" {
	commands san -t 560
}
