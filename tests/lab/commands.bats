# SPDX-License-Identifier: GPL-2.0-only
# The commands where the kernel serves the pool: links, snapshots, changes of records;
# and where it cannot, beside it, the server.
load helper

@test "6.1: the commands make, link, snapshot, change and unlink in the kernel; the pool is clean" {
	commands 6.1
}

# bats test_tags=short
@test "6.12: the commands make, link, snapshot, change and unlink in the kernel; the pool is clean" {
	commands 6.12
}

admin()
{
	truncate -s 256M m0
	truncate -s 128M m1 m2
	guest "$1" admin -t 600
	vdpool check --takeover --device "$T/m0" --device "$T/m1" --device "$T/m2" p-1
}

# bats test_tags=short
@test "6.1: a pool in the kernel is checked, set, given members and grown while it is written" {
	admin 6.1
}

@test "6.12: a pool in the kernel is checked, set, given members and grown while it is written" {
	admin 6.12
}

based()
{
	truncate -s 512M m0 m1
	guest "$1" based
	vdpool check --takeover --device "$T/m0" --device "$T/m1" p-1
}

@test "6.1: volumes on base images are linked in the kernel, and leave no loop device" {
	based 6.1
}

@test "6.12: volumes on base images are linked in the kernel, and leave no loop device" {
	based 6.12
}

@test "6.12: the demo, with its machine killed while files are written and flushed" {
	"$VD/tests/lab/demo.sh" 6.12
}
