# SPDX-License-Identifier: GPL-2.0-only
# Long and hard use of the module: machines killed, damaged pools, file systems, swap.
load helper

# bats test_tags=short
@test "6.1, then 6.12: killed at 24 moments under load, a pool is clean, has what was flushed, and exact snapshots" {
	killed 6.1 6.12 12
}

# bats test_tags=short
@test "6.12: what the fuzzers keep is opened, or refused, and read as in userspace" {
	corpus 6.12 5 5 -t 600
}

@test "6.1: swap on a volume, and a file system beside it, when memory runs out" {
	pool_of 2 1G
	guest 6.1 swap -m 512M -t 560
	cat job/out
	same_here
}

workload()
{
	pool_of 2 1G
	echo "$2" >job/fs
	guest "$1" workload -t 600
	same_here
}

@test "6.1: xfs on a volume at work: unpack, compile, stress, trim, snapshots, partitions" {
	workload 6.1 xfs
}

@test "6.12: ext4 on a volume at work: unpack, compile, stress, trim, snapshots, partitions" {
	workload 6.12 ext4
}

@test "6.12, four CPUs: everything at once, and no memory is kept" {
	pool_of 2 1G
	echo 20 >job/seconds
	guest 6.12 stress -c 4 -a slub_debug=U
	same_here
}

damage()
{
	pool_of 2 64M
	guest "$1" damage -t 900
	cat job/out
}

@test "6.1: pools damaged anywhere in their metadata are refused, or opened, and the kernel does not complain" {
	damage 6.1
}

@test "6.12: pools damaged anywhere in their metadata are refused, or opened, and the kernel does not complain" {
	damage 6.12
}
