# SPDX-License-Identifier: GPL-2.0-only
# The commands where the kernel serves the pool: links, snapshots, changes of records;
# and where it cannot, beside it, the server.
load helper

commands()
{
	truncate -s 1G m0 m1
	guest "$1" commands "${@:2}"
	vdpool check --takeover --device "$T/m0" --device "$T/m1" p-1
	nbdkit -U - "$VD/build/nbdkit-vd-plugin.so" pool=p-1 readonly=true device="$T/m0" device="$T/m1" \
		--run 'nbdcopy "nbd+unix:///web?socket=$unixsocket" -' 3>&- | sha256sum | cmp - job/sum.web
}

@test "6.1: the commands make, link, snapshot, change and unlink in the kernel; the pool is clean" {
	commands 6.1
}

@test "6.12: the commands make, link, snapshot, change and unlink in the kernel; the pool is clean" {
	commands 6.12
}
