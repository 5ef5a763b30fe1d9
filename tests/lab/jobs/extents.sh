# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Members fail in part: where data is, the journal, the superblocks, or nodes; or as a whole.  What was
# acknowledged is there when they are mended.
# shellcheck disable=SC2046 # words are wanted
# Disks: two of 64 MiB, the pool; one of 64 MiB that is blank.
. /vd/tests/lab/jobs/common.sh
read -r d0 d1 d2 <<<"$DISKS"
declare -A disk=([m0]=$d0 [m1]=$d1 [m2]=$d2)
n0=$(($(blockdev --getsz "$d0") / 8)) # blocks of 4096 bytes, as all numbers here
S=32768                               # but this one
well() { [ "$(dmsetup status pool | cut -d' ' -f8,11)" = "rw -" ] || { dmsetup status pool; return 1; }; }

# bad MEMBER [FIRST COUNT]...: these blocks of it fail, and no others
bad()
{
	local name=$1 at=0
	shift
	{
		while [ $# -gt 0 ]; do
			[ $at = "$1" ] || echo "$((at * 8)) $((($1 - at) * 8)) linear ${disk[$name]} $((at * 8))"
			echo "$(($1 * 8)) $(($2 * 8)) error"
			at=$(($1 + $2))
			shift 2
		done
		[ $at = "$n0" ] || echo "$((at * 8)) $(((n0 - at) * 8)) linear ${disk[$name]} $((at * 8))"
	} >/tmp/table
	dmsetup load "$name" /tmp/table
	dmsetup suspend "$name"
	dmsetup resume "$name"
}
# runs: of a list of blocks, as `bad` has them
runs() { sort -n | awk 'NR > 1 && $1 == end { end++; next } NR > 1 { print first, end - first } { first = $1; end = first + 1 } END { if (NR) print first, end - first }'; }

# block N [WORD]: what is in block N of volume a
block() { yes "block $1 of a${2:-}" | head -c 4096 || true; }
# put N [WORD]: and acknowledged
put() { block "$@" | dd of=/dev/mapper/a bs=4096 seek="$1" oflag=direct conv=notrunc,fsync iflag=fullblock status=none; }
# has N [WORD]
has() { dd if="/dev/mapper/${3:-a}" bs=4096 skip="$1" count=1 iflag=direct status=none | cmp - <(block "$1" "${2:-}"); }
# eio COMMAND...
eio() { fails "$@" && grep -qF 'Input/output error' <("$@" 2>&1 || true); }
flush() { dd if=/dev/null of=/dev/mapper/a conv=notrunc,fsync status=none; }
# blocks_of DISK: which has which block of a
blocks_of()
{
	# shellcheck disable=SC2016 # perl's
	dd if="$1" bs=1M iflag=direct status=none | perl -e '$/ = \4096; while (<STDIN>) { print $. - 1, " $1\n" if /^block (\d+) of a/ }'
}

# number DISK OFFSET: of its superblock, of which there are two slots
number()
{
	local s
	for s in 4 8; do
		dd if="$1" of=/tmp/slot bs=4096 skip=$s count=1 iflag=direct status=none
		[ "$(head -c 8 /tmp/slot | tr -d '\0')" != vdSUPER1 ] || od -An -tu8 -N 8 -j "$2" /tmp/slot | tr -d ' '
	done | tail -n 1
}
# nodes_of MEMBER, others_of MEMBER: its blocks that are nodes, and those that are neither these nor system blocks nor the journal
# shellcheck disable=SC2016 # perl's
nodes_of() { dd if="${disk[$1]}" bs=1M iflag=direct status=none | perl -e '$/ = \4096; while (<STDIN>) { print $. - 1, "\n" if /^vNOD/ }'; }
others_of()
{
	nodes_of "$1" >/tmp/nodes
	[ -s /tmp/nodes ]
	seq 16 $((n0 - 1)) | awk -v from="$journal" -v n="$journal_blocks" 'NR == FNR { node[$1] = 1; next } !node[$1] && ($1 < from || $1 >= from + n)' /tmp/nodes -
}

# Blocks N… of a, each acknowledged, until one is not: /tmp/acked
acknowledged()
{
	local i
	for ((i = $1; i < S / 8; i++)); do
		put $i 2>/tmp/said || { grep -q 'Input/output error' /tmp/said; return; }
		echo $i >>/tmp/acked
	done
	return 1
}
so_many() { [ "$(wc -l </tmp/acked)" -ge "$1" ]; }
# What was acknowledged is there, whatever has become of the one that was not.
all_acked()
{
	# shellcheck disable=SC2016 # perl's
	dd if=/dev/mapper/a bs=1M iflag=direct status=none | perl -e '$/ = \4096; my %has; while (<STDIN>) { $has{$1} = 1 if /^block (\d+) of a\n/ && $1 == $. - 1 }
		$/ = "\n"; open my $f, "/tmp/acked" or die; while (<$f>) { chomp; $has{$_} or die "block $_ is not there\n" }'
}
down() { local v; for v; do dmsetup remove --retry "$v"; done; dmsetup remove --retry pool; }

insmod "$VD_MODULE"
for m in m0 m1 m2; do dmsetup create $m --table "0 $((n0 * 8)) linear ${disk[$m]} 0"; done
DISKS="/dev/mapper/m0 /dev/mapper/m1"
pool_up
journal=$(number "$d0" 376) journal_blocks=$(number "$d0" 384)
echo "journal: $journal_blocks blocks from $journal on"
[ "$journal" -ge 16 ]
[ $((journal + journal_blocks)) -lt "$n0" ]
message "create_thin a $S"
volume_up a $S

echo "== a first write fails, and has left nothing"
before=$(events)
for m in m0 m1; do bad $m $(others_of $m | runs); done
eio dd if=/dev/urandom of=/dev/mapper/a bs=4096 count=1 oflag=direct conv=notrunc status=none
well
for m in m0 m1; do bad $m; done
flush
cmp -n 4096 <(dd if=/dev/mapper/a bs=4096 count=1 iflag=direct status=none) /dev/zero
[ "$(dmsetup status a | cut -d' ' -f4)" = 0 ]

echo "== data fails: who asks for it is told, and nobody else"
for i in $(seq 0 63); do block "$i"; done >/tmp/want
dd if=/tmp/want of=/dev/mapper/a bs=4096 count=64 oflag=direct conv=notrunc,fsync iflag=fullblock status=none
for m in m0 m1; do blocks_of "${disk[$m]}" >/tmp/$m; done
[ "$(cat /tmp/m0 /tmp/m1 | wc -l)" = 64 ]
for m in m0 m1; do bad $m $(awk '$2 >= 16 && $2 < 32 { print $1 }' /tmp/$m | runs); done
for i in 16 21 31; do
	eio dd if=/dev/mapper/a of=/dev/null bs=4096 skip=$i count=1 iflag=direct status=none
	eio dd if=/dev/zero of=/dev/mapper/a bs=4096 seek=$i count=1 oflag=direct conv=notrunc status=none
	eio dd if=/dev/zero of=/dev/mapper/a bs=512 seek=$((i * 8 + 1)) count=1 oflag=direct conv=notrunc status=none
done
eio dd if=/dev/mapper/a of=/dev/null bs=64k count=4 iflag=direct status=none
has 15
has 32
put 15 " again"
put 100
message "create_snap s a"
put 20 " copied"
eio dd if=/dev/zero of=/dev/mapper/a bs=512 seek=$((24 * 8)) count=1 oflag=direct conv=notrunc status=none # the rest of its block is to be read
message checkpoint
flush
well
[ "$(events)" = "$before" ]
for m in m0 m1; do bad $m; done
well
block 15 " again" | dd of=/tmp/want bs=4096 seek=15 conv=notrunc iflag=fullblock status=none
block 20 " copied" | dd of=/tmp/want bs=4096 seek=20 conv=notrunc iflag=fullblock status=none
dd if=/dev/mapper/a bs=4096 count=64 iflag=direct status=none | cmp - /tmp/want # nothing that failed has got through
has 100
volume_up s $S
has 15 " again" s
has 20 "" s
sums s
dmsetup remove --retry s

echo "== nodes fail: the other copy is read"
down a
for m in m0 m1; do
	nodes_of $m | runs >/tmp/nodes.$m
	[ -s /tmp/nodes.$m ]
done
for m in m0 m1; do
	bad $m $(cat /tmp/nodes.$m)
	pool_up
	well
	volume_up a $S
	has 15 " again"
	has 63
	put 16 " again"
	message checkpoint
	well
	down a
	bad $m
done
pool_up
volume_up a $S
has 16 " again"

first=128
: >/tmp/acked
for what in journal superblocks m0; do
	echo "== $what: nothing is acknowledged any more, and all that was is there"
	before=$(events)
	enough=$(($(wc -l </tmp/acked) + 8))
	acknowledged $first &
	writer=$!
	until_ok 60 so_many $enough
	case $what in
	journal) bad m1 "$journal" "$journal_blocks" ;;
	superblocks)
		bad m1 4 8
		fails message checkpoint ;;
	m0)
		message "create_thin b $S"
		volume_up b $S
		fio --name=load --filename=/dev/mapper/b --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bsrange=4k-64k --size=14M \
			--fsync=16 --time_based --runtime=600 >/tmp/fio 2>&1 &
		load=$!
		sleep 3
		ended $load && { cat /tmp/fio; exit 1; }
		bad m0 0 "$n0"
		until_ok 60 ended $load
		fails wait $load
		grep -q 'Input/output error' /tmp/fio ;;
	esac
	until_ok 60 ended $writer
	wait $writer # it met an I/O error
	fails message "create_thin c" # also where nobody has asked for a flush since
	until_ok 10 has_failed
	until_ok 10 told "$before"
	for _ in 1 2 3; do
		eio flush
		eio put 0
		fails message "create_thin c"
		fails message checkpoint
	done
	if [ $what != m0 ]; then
		all_acked # reading goes on
		has 63
	fi
	first=$(($(tail -n 1 /tmp/acked) + 16))
	for m in m0 m1; do bad $m; done
	has_failed # also when they are mended
	eio flush
	all_acked
	if [ $what = m0 ]; then
		bad m0 0 "$n0"
		down a b
		fails pool_up
		dmsetup create pool --table "0 1024 vd-pool 1 /dev/mapper/m1"
		dmsetup status pool | grep ' ro '
		dmsetup remove --retry pool
		bad m0
	else
		down a
	fi
	pool_up
	well
	volume_up a $S
	all_acked
	has 15 " again"
	has 63
	put 127
done
volume_up b $S
fio_on b --rw=randwrite --bs=4k --size=8M
sums a b
well
down a b

echo "== the journal of a pool of one member"
vdpool create -q one /dev/mapper/m2
DISKS=/dev/mapper/m2
pool_up
message "create_thin a $S"
volume_up a $S
: >/tmp/acked
acknowledged 0 &
writer=$!
until_ok 60 so_many 8
bad m2 "$(number "$d2" 376)" "$(number "$d2" 384)"
until_ok 60 ended $writer
wait $writer
until_ok 10 has_failed
eio flush
eio put 0
all_acked
bad m2
has_failed
down a
pool_up
well
volume_up a $S
all_acked
put 127
down a

for m in m0 m1 m2; do dmsetup remove --retry $m; done
dmesg | grep 'device-mapper: vd:'
unload
sound
