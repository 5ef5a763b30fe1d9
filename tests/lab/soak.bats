# SPDX-License-Identifier: GPL-2.0-only
# `make soak-lab KILLS=1000`: what proof.bats does in small.
load helper

@test "killed at ${KILLS:-200} moments, in rounds of 40, by each kernel in turn" {
	local n kernels=(6.1 6.12 6.1)
	for ((n = 0; n < ${KILLS:-200}; n += 40)); do
		killed "${kernels[n / 40 % 2]}" "${kernels[n / 40 % 2 + 1]}" 20
		rm -rf "${T:?}"/*
		mkdir etc run job
	done
}

@test "6.1: all that the fuzzers keep is opened, or refused, and read as in userspace" {
	corpus 6.1 1 1 -t 3600
}

@test "6.12: all that the fuzzers keep is opened, or refused, and read as in userspace" {
	corpus 6.12 1 1 -t 3600
}

@test "6.1, four CPUs: everything at once for ten minutes, and no memory is kept" {
	pool_of 2 2G
	echo 600 >job/seconds
	guest 6.1 stress -c 4 -a slub_debug=U -t 1800
	same_here
}
