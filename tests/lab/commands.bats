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

nbd() { "$VD/tests/lab/lab.sh" -b -k "$1" -m 4G -t "$2" "bash /vd/tests/lab/jobs/nbd.sh '${3:-}'"; }

# bats test_tags=short
@test "6.12: a server's volumes are nbd devices where the kernel has them: written, mounted, in use, their front killed" {
	nbd 6.12 600 'an ext4 is made|an xfs is made,|device that is open is not|front was killed'
}

@test "6.1: the suite of links with nbd devices" {
	nbd 6.1 2400
}

@test "6.12: the suite of links with nbd devices" {
	nbd 6.12 2400
}

@test "6.12: the demo, with its machine killed while files are written and flushed" {
	"$VD/tests/lab/demo.sh" 6.12
}
