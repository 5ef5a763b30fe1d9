# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Messages and what they leave, with nothing but dmsetup.
# Disks: any pool.
. /vd/tests/lab/jobs/common.sh
status() { dmsetup status pool; }
shows() { message "show $1" | grep -qE -- "$2" || { echo "$1 does not show $2:"; message "show $1"; return 1; }; }

pool_up
echo "== volumes"
for v in a b c; do message "create_thin $v 32768"; done
message "list" | diff - <(printf '%s\n' '1 a' '2 b' '3 c')
shows a '^id 1 uuid [-0-9a-f]* size 32768 mapped 0 reserved 0 origin 0 mode rw pointers 0$'
message "resize a 65536"
shows a ' size 65536 '
message "resize a 32768"
fails message "resize a 7"
message "reserve b 256"
shows b ' reserved 256 '
message "rename c d"
fails message "show c"
message "rename d c"
fails message "create_thin"
fails message "create_thin a"
fails message "list a"
records() { message "record $1" | grep -qE -- "$2" || { echo "no $2 in the record of $1:"; message "record $1"; return 1; }; }
records a '^volume id=1 flags=0 uuid=[-0-9a-f]{36} size=16777216 mapped=0 reserved=0 unused=0 origin=0 .* name=a base= attrs=$'
records '#2' ' reserved=256 unused=256 .* name=b '
records nobody '^pool mode=0 epoch=[0-9]*$'
[ "$(message "record nobody" | wc -l)" = 1 ]
fails message "record"
fails message "nonsense"

echo "== attributes, modes, locks"
message $'set a attrs=os=debian\\\nuse=a\\ server\\\n'
shows a '^os=debian$'
shows a '^use=a server$'
records a ' attrs=os=debian\\$'
records a '^use=a\\ server\\$'
message "set a attrs="
fails shows a '^os='
message "set c readonly=1"
shows c ' mode ro '
fails volume_up c 32768
message "set c readonly=0"
volume_up c 32768
dmsetup remove --retry c
message "lock c purpose=testing"
shows c '^locked by .* for testing$'
records c '^lock host=[-0-9a-f]{36} boot=[-0-9a-f]{36} pid=[0-9]* since=[1-9][0-9]* hostname=.* purpose=testing$'
message 'pointer_add a ro mount=/a\ b opened_as=x server=local epoch=3'
records a '^pointer link=[1-9][0-9]* mode=0 epoch=3 host=.* opened_as=x mount=/a\\ b server=local$'
message "pointer_del a $(message "record a" | sed -n 's/^pointer link=\([0-9]*\).*/\1/p')"
fails volume_up c 32768
fails message "lock c"
fails message "delete c"
message "unlock c"
volume_up c 32768

echo "== snapshots of a group, at one instant, while all are written"
volume_up a 32768
volume_up b 32768
# b is written after a, and with the same number: at any instant it has the same or the one before.
# Forty more between them in the message make a cut that is not one moment long enough to be seen.
for n in $(seq 40); do message "create_thin e$n"; done
(
	for ((i = 1000000; ; i++)); do
		[ ! -e /tmp/stop ] || break
		for v in a b; do echo $i | dd of=/dev/mapper/$v bs=512 count=1 conv=sync oflag=direct status=none; done
	done
) &
writer=$!
for i in 1 2 3 4 5 6; do
	sleep 0.5
	# shellcheck disable=SC2046 # words
	message "create_snap a$i a $(printf "e%d_$i e%d " $(seq 40 | sed p)) b$i b c$i c"
done
touch /tmp/stop
wait $writer
for i in 1 2 3 4 5 6; do
	for v in a b; do
		dmsetup create -r snap --table "0 32768 vd-volume /dev/mapper/pool $v$i"
		read -r "n$v" _ < <(head -c 7 /dev/mapper/snap; echo)
		dmsetup remove --retry snap
	done
	echo "snapshot $i: $na $nb"
	# shellcheck disable=SC2154 # read sets them
	[ "$na" = "$nb" ] || [ "$na" = $((nb + 1)) ]
done
fails message "create_snap x a y nobody" # all or none
fails message "show x"
fails message "create_snap x a y"

echo "== rollback"
dd if=/dev/urandom of=/dev/mapper/c bs=1M count=4 oflag=direct,sync status=none
sha256sum </dev/mapper/c >/tmp/c
message "create_snap before c"
dd if=/dev/zero of=/dev/mapper/c bs=1M count=4 oflag=direct,sync status=none
fails message "rollback c before" # it is open
dmsetup remove --retry c
message "rollback c before"
fails message "rollback c a"
volume_up c 32768
sha256sum </dev/mapper/c | cmp - /tmp/c

echo "== servers"
message $'server_add a uuid=00112233445566778899aabbccddeeff attrs=kind=vm\\\nqmp=/run/a\\ b.qmp\\\n' >/tmp/id # a volume is called so, too
message "server_add gone" >/dev/null
[ "$(message server_list)" = "$(cat /tmp/id) a kind=vm qmp=/run/a b.qmp $(printf '\n%u gone ' $(($(cat /tmp/id) + 1)))" ]
fails message "server_add a"
fails message "server_add .a"
fails message "server_add b size=1"
fails message "show .a"
fails message "delete #$(cat /tmp/id)"
fails message "create_snap z #$(cat /tmp/id)"
fails message "server_del #$(cat /tmp/id)"
message "server_del gone"
fails message "server_del gone"
message "show a" | grep -q ' mode rw '

echo "== the pool's"
[ "$(status | cut -d' ' -f4)" = 0 ]
message "set_transaction_id 0 17"
fails message "set_transaction_id 0 18"
[ "$(status | cut -d' ' -f4)" = 17 ]
[ "$(status | cut -d' ' -f7)" = - ]
before=$(events)
message "thresholds 10 900"
until_ok 4 told "$before"
dmesg | grep -q 'more than 1.0 % full'
fails message "thresholds 1001"
message "checkpoint"
status | grep ' overlay 0 '
sums a b c
for v in a b c; do dmsetup remove --retry $v; done
dmsetup remove --retry pool

echo "== after another opening"
pool_up
[ "$(status | cut -d' ' -f4)" = 17 ]
shows b ' reserved 256 '
[ "$(message server_list)" = "$(cat /tmp/id) a kind=vm qmp=/run/a b.qmp " ]
message "list" | grep -c . | grep -qx 302
dmsetup remove --retry pool
unload
sound
