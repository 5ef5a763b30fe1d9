#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# Drives that the agent of a server is given.  The kernel's part is played by files as sysfs has them, and loop devices.
load helper
load agent

U=11111111-2222-4333-8444-555555555555
NQN=nqn.2026-11.org.vd:pool:web1

setup_agent()
{
	need jq
	need_root
	[ -e /dev/loop-control ] || skip "no loop devices"
	export VD_STATE_DIR=$T/state VD_SYSFS_DIR=$T/sys VD_NVME_FABRICS=$T/fabrics
	mkdir -p sys/block sys/class/nvme sys/class/scsi_host
	: >fabrics
	agent --mount-dir "$T/mnt" --mount-dir /srv
}
restart_agent() { start_agent --mount-dir "$T/mnt" --mount-dir /srv "$@"; }

# The default directory is not below $T; what a test mounts there begins with vdg
eval "base_$(declare -f teardown)"
teardown()
{
	umount_below /srv/vd/vdg
	rmdir /srv/vd/vdg* /srv/vd 2>/dev/null
	base_teardown
}

# disk NAME SIZE: a file, and a loop device of it, which is in $L
disk() { [ -e "$1" ] || truncate -s "${2:-64m}" "$1"; L=$(basename "$(losetup -f --show "$T/$1")"); }
# namespace [UUID [NQN]]: the disk $L is one, on a connected controller
namespace()
{
	mkdir -p "sys/block/$L/device" sys/class/nvme/nvme7
	echo "${2:-$NQN}" | tee "sys/block/$L/device/subsysnqn" >sys/class/nvme/nvme7/subsysnqn
	echo "${1:-$U}" >"sys/block/$L/nguid"
	cat "/sys/block/$L/size" >"sys/block/$L/size"
	cat "/sys/block/$L/ro" >"sys/block/$L/ro"
	cat "/sys/block/$L/dev" >"sys/block/$L/dev"
	echo 3 >"sys/block/$L/nsid"
	controller nvme7 "${2:-$NQN}"
}
controller()
{
	mkdir -p "sys/class/nvme/$1"
	echo "$2" >"sys/class/nvme/$1/subsysnqn"
	echo tcp >"sys/class/nvme/$1/transport"
	echo live >"sys/class/nvme/$1/state"
	echo "traddr=$HOST,trsvcid=8653,src_addr=127.0.0.1" >"sys/class/nvme/$1/address"
	: >"sys/class/nvme/$1/rescan_controller"
	: >"sys/class/nvme/$1/delete_controller"
}
# scsi_disk BUS: the disk $L is one of a virtio-scsi bus
scsi_disk()
{
	mkdir -p "sys/devices/$1" "sys/block/$L" sys/class/scsi_host/host2
	ln -s "../../devices/$1" "sys/block/$L/device"
	printf '\0\200\0\44%s' $U >"sys/devices/$1/vpd_pg80"
	cat "/sys/block/$L/size" >"sys/block/$L/size"
	echo 0 >"sys/block/$L/ro"
	cat "/sys/block/$L/dev" >"sys/block/$L/dev"
	: >"sys/devices/$1/delete"
	echo virtio_scsi >sys/class/scsi_host/host2/proc_name
	: >sys/class/scsi_host/host2/scan
}
unplug() { rm -r "sys/block/$L"; }

# request OP [JQ-CHANGE]: what asks for the drive $U of 64 MiB, mounted on $T/mnt/d, with something changed
request()
{
	jq -nc --arg op "$1" --arg u "$U" --arg nqn "$NQN" --arg host "$HOST" --arg dir "$T/mnt/d" '{op: $op, uuid: $u, name: "p/v", size: 67108864, mode: "rw",
		via: {kind: "nvme-tcp", nqn: $nqn, address: $host, port: "8653", dhchap: false}, nqn: $nqn, mount: {dir: $dir, mkfs: "ext4"}} | '"${2:-.}"
}
try() { ask "$(request "$@")" && answers .ok; }
# denied TEXT OP [JQ-CHANGE]
denied() { ask "$(request "$2" "${3:-.}")" && answers '.ok | not' && { grep -qF "$1" answer || { cat answer; return 1; }; }; }
records() { jq -c '[.drives[].uuid]' state/drives.json; }

@test "a drive is linked, mounted, asked for again, unlinked and let go" {
	setup_agent
	disk d
	namespace
	try link
	answers ".device == \"/dev/$L\" and .address == \"nvme7 nsid 3\" and .mount == \"$T/mnt/d\" and .type == \"ext4\" and .note == \"\""
	[[ $(findmnt -no OPTIONS mnt/d) == *nosuid*nodev* ]]
	[ "$(records)" = "[\"$U\"]" ]
	echo here >mnt/d/file
	try link
	answers ".mount == \"$T/mnt/d\""
	[ "$(findmnt -no SOURCE mnt/d)" = "/dev/$L" ]
	try link 'del(.mount)'
	answers '.mount == ""'
	[ "$(jq -r '.drives[0].mount.dir' state/drives.json)" = "$T/mnt/d" ]
	ask '{"op":"status"}'
	answers ".drives == [{uuid: \"$U\", name: \"p/v\", mode: \"rw\", size: 67108864, device: \"/dev/$L\", address: \"nvme7 nsid 3\", mount: \"$T/mnt/d\", state: \"up\"}]"
	ok vdagent status --reportformat json
	[ "$(jq -r '.report[0].drive[0] | .name, .state' <<<"$output" | tr '\n' ' ')" = "p/v up " ]
	denied "was not unlinked" gone
	try unlink
	refused mountpoint mnt/d
	[ "$(records)" = "[]" ]
	try unlink
	unplug
	try gone
	[ "$(cat sys/class/nvme/nvme7/delete_controller)" = 1 ]
	fsck.ext4 -fn d
	try gone
}

@test "what is not connected is connected, by this machine's name, and waited for" {
	setup_agent
	disk d
	{ wait_for test -s fabrics; namespace; } 3>&- &
	try link
	jq -r . answer
	wait $!
	[[ $(cat fabrics) =~ ^nqn=$NQN,transport=tcp,traddr=$HOST,trsvcid=8653,hostnqn=nqn.[^,]*,hostid=[-0-9a-f]{36},ctrl_loss_tmo=-1,reconnect_delay=2$ ]]
	ask '{"op":"status"}'
	answers "\"$(cat fabrics)\" | contains(\"hostnqn=\" + $(jq .hostnqn answer) + \",hostid=\" + $(jq .hostid answer))"
	mountpoint mnt/d
	# Connected: the kernel is asked to look again, and not to connect
	try unlink
	unplug
	: >fabrics
	{ wait_for test -s sys/class/nvme/nvme7/rescan_controller; namespace; } 3>&- &
	try link
	wait $!
	[ ! -s fabrics ]
}

@test "an agent that starts leaves the host of a drive that has gone, and no other" {
	setup_agent
	disk d
	namespace
	try link
	end_agent KILL
	controller nvme8 "$NQN-2"
	controller nvme9 nqn.2014-08.com.other:disk
	restart_agent
	[ "$(cat sys/class/nvme/nvme8/delete_controller)" = 1 ]
	[ ! -s sys/class/nvme/nvme7/delete_controller ]
	[ ! -s sys/class/nvme/nvme9/delete_controller ]
	# Nor one that has a device, recorded or not
	rm state/drives.json
	: >sys/class/nvme/nvme8/delete_controller
	end_agent KILL
	restart_agent
	[ "$(cat sys/class/nvme/nvme8/delete_controller)" = 1 ]
	[ ! -s sys/class/nvme/nvme7/delete_controller ]
}

@test "with DH-HMAC-CHAP, the secret that goes with the key is the kernel's" {
	setup_agent
	disk d
	{ wait_for test -s fabrics; namespace; } 3>&- &
	try link '.via.dhchap = true'
	wait $!
	[[ $(cat fabrics) == *",dhchap_secret=$(vdagent key --dhchap key)" ]]
}

@test "a target that is not there, or a kernel without NVMe, is told; nothing stays" {
	setup_agent
	denied "cannot be reached" link '.via.port = "1"'
	rm fabrics
	denied "modprobe nvme-tcp" link
	[ "$(records)" = "[]" ]
}

@test "a device that is another volume's, another subsystem's, a hidden path or a disk of this machine is not taken" {
	setup_agent
	disk d
	namespace "${U/1/2}"
	ask "$(request link)" & # it waits for a while
	wait_for eval '[ "$(records)" != "[]" ]'
	echo $U >"sys/block/$L/nguid"
	echo "$NQN-2" >"sys/block/$L/device/subsysnqn"
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	: >sys/class/nvme/nvme7/rescan_controller
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	echo 1 >"sys/block/$L/hidden"
	echo "$NQN" >"sys/block/$L/device/subsysnqn"
	: >sys/class/nvme/nvme7/rescan_controller
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	[ ! -e mnt/d ]
	rm "sys/block/$L/hidden"
	wait $!
	answers .ok
}

@test "a device of another size is not taken, and what there was before the request is there after it" {
	setup_agent
	disk d
	namespace
	denied "67108864 bytes, and not the 67112960" link '.size = 67112960'
	[ "$(records)" = "[]" ]
	[ ! -e mnt/d ]
	try link
	denied "and not the" link '.size = 67112960'
	mountpoint mnt/d
	[ "$(jq '.drives[0].size' state/drives.json)" = 67108864 ]
}

@test "a drive for reading is read-only, and can be had for writing after" {
	setup_agent
	disk d
	namespace
	try link
	try unlink
	try link '.mode = "ro"'
	answers ".mount == \"$T/mnt/d\""
	[ "$(blockdev --getro "/dev/$L")" = 1 ]
	[[ $(findmnt -no OPTIONS mnt/d) == ro,* ]]
	cat "/sys/block/$L/ro" >"sys/block/$L/ro"
	denied "mounted on $T/mnt/d already" link
	try unlink
	try link
	touch mnt/d/file
}

@test "without a mount nothing is mounted, nor told of what is on it" {
	setup_agent
	disk d
	mkfs.xfs -q -f d 2>/dev/null || mkfs.ext4 -q d
	namespace
	try link 'del(.mount)'
	answers '.mount == "" and .type == "" and .note == ""'
	[ -z "$(findmnt -S "/dev/$L")" ]
}

@test "a file system is made where nothing is, and never over anything" {
	setup_agent
	disk d
	namespace
	printf x | dd of=d bs=1 seek=1000000 conv=notrunc status=none
	try link
	answers '.mount == "" and (.note | contains("there is data on it"))'
	printf '\0' | dd of=d bs=1 seek=1000000 conv=notrunc status=none
	try link 'del(.mount.mkfs)'
	answers '.mount == "" and (.note | contains("no file system yet"))'
	try link '.mount.mkfs = "ntfs"'
	answers '.mount == "" and (.note | contains("cannot be made here"))'
	losetup -d "/dev/$L"
	rm -r "sys/block/$L"
	echo ',,L' | sfdisk -q d
	sum=$(cksum <d)
	disk d
	namespace
	try link
	answers '.mount == "" and (.note | contains("cannot be mounted as a whole"))'
	[ "$sum" = "$(cksum <d)" ]
}

@test "a drive is known by its label below /srv/vd, by its name where that is taken, and is there again after a restart" {
	setup_agent
	local label=vdg$RANDOM first
	disk d
	mkfs.ext4 -q -L "$label" d
	namespace
	try link '.mount = {}'
	answers ".mount == \"/srv/vd/$label\""
	first=$L
	disk e
	mkfs.ext4 -q -L "$label" e
	U2=${U/11111111/99999999}
	namespace "$U2"
	try link ".mount = {} | .uuid = \"$U2\" | .name = \"p/vdg@1\""
	answers '.mount == "/srv/vd/vdg_1-99999999"'
	end_agent
	umount "/srv/vd/$label" /srv/vd/vdg_1-99999999
	rm -r "sys/block/$first"
	restart_agent
	wait_for mountpoint /srv/vd/vdg_1-99999999
	L=$first
	namespace
	wait_for mountpoint "/srv/vd/$label"
	ask "{\"op\":\"unlink\",\"uuid\":\"$U2\"}"
	answers .ok
	try unlink
}

@test "a label is no way out of the directory" {
	setup_agent
	disk d
	mkfs.ext4 -q -L "../../vdt" d
	namespace
	try link '.mount = {}'
	answers '.mount == "/srv/vd/_._.._vdt"'
	umount /srv/vd/_._.._vdt
	rmdir /srv/vd/_._.._vdt
}

@test "a copy of a file system that is mounted is mounted only if a duplicate is asked for" {
	setup_agent
	need mkfs.xfs
	local fs U2=${U/11111111/99999999} size=64m
	for fs in ext4 xfs; do
		[ $fs = ext4 ] || size=400m
		rm -f d e
		truncate -s $size d
		mkfs.$fs -q d
		disk d
		namespace
		try link ".size = $(stat -c %s d)"
		umount mnt/d
		cp --sparse=always d e
		mount "/dev/$L" mnt/d
		one=$L
		disk e
		namespace "$U2"
		try link ".uuid = \"$U2\" | .mount.dir += \"2\" | .size = $(stat -c %s d)"
		answers ".mount == \"\" and (.note | contains(\"/dev/$one\") and contains(\"$T/mnt/d\") and contains(\"duplicate\"))"
		try link ".uuid = \"$U2\" | .mount.dir += \"2\" | .size = $(stat -c %s d) | .mount.duplicate = true"
		answers '.mount != "" and .note == ""'
		try unlink ".uuid = \"$U2\""
		unplug
		losetup -d "/dev/$L"
		L=$one
		try unlink
		unplug
		losetup -d "/dev/$L"
	done
}

@test "a drive in use stays, and who uses it is told; a test changes nothing" {
	setup_agent
	disk d
	namespace
	try link
	exec 7>mnt/d/file
	denied "bats" unlink || denied "bash" unlink
	denied "($$)" unlink
	denied "in use" unlink '.test = true'
	[ "$(records)" != "[]" ]
	mountpoint mnt/d
	exec 7>&-
	try unlink '.test = true'
	mountpoint mnt/d
	try unlink
	# In use otherwise than by a mount
	try link 'del(.mount)'
	disk2=$(losetup -f --show "/dev/$L")
	mount "$disk2" mnt2
	exec 7<"/dev/$L"
	try unlink
	exec 7<&-
	umount mnt2
	losetup -d "$disk2"
}

@test "a drive that udev reads is let go when it has done" {
	setup_agent
	disk d
	namespace
	try link
	flock -s "/dev/$L" sh -c 'touch reads; sleep 0.5; touch read' &
	wait_for [ -e reads ]
	try unlink
	[ -e read ]
	wait $!
}

@test "a drive whose host does not answer is not waited for" {
	setup_agent
	disk d
	namespace
	try link
	echo connecting >sys/class/nvme/nvme7/state
	ask '{"op":"status"}'
	answers '.drives[0].state == "stalled"'
	denied "does not answer" unlink
	mountpoint mnt/d
	echo live >sys/class/nvme/nvme7/state
	try unlink
}

@test "all mounts of a drive go, or none" {
	setup_agent
	disk d
	namespace
	try link
	mount "/dev/$L" mnt2
	exec 7>mnt/d/file
	denied "in use" unlink
	mountpoint mnt2
	exec 7>&-
	try unlink
	refused mountpoint mnt2
	refused mountpoint mnt/d
}

@test "fields that cannot be are refused, each with a text, and leave nothing" {
	setup_agent
	disk d
	namespace
	local change
	for change in 'del(.uuid)' '.uuid = "x"' '.uuid = 3' '.uuid = "00000000-0000-0000-0000-000000000000"' 'del(.name)' '.name = "p"' '.name = "p/../v"' \
		'.name = "p/-v"' '.name = "/dev/vdisk/p/v"' '.name = "p/v\n"' '.name = "p/" + "v" * 200' 'del(.size)' '.size = 0' '.size = -512' '.size = 100' '.size = "64m"' \
		'.size = 1e300' 'del(.mode)' '.mode = "w"' 'del(.via)' '.via = "scsi"' '.via.kind = "iscsi"' 'del(.via.nqn)' '.via.nqn = "nqn.2014-08.com.other:disk"' \
		'.via.nqn += ",transport=rdma"' '.via.nqn += "x" * 300' 'del(.via.address)' '.via.address = "host"' '.via.address += ",x=y"' '.via.address = "1.2.3"' \
		'.via.port = 4420' '.via.port = "0"' '.via.port = "65536"' '.via.port = "44 20"' '.via.dhchap = "yes"' '.mount = 3' '.mount.dir = 3' \
		'.mount.dir = "mnt"' '.mount.dir = "/"' '.mount.dir += "/"' '.mount.dir += "/../x"' '.mount.dir += "/./x"' '.mount.dir += "//x"' \
		'.mount.dir += "\u0007"' '.mount.dir += "\u0000"' '.mount.dir += "x" * 300' '.mount.dir = "/etc/x"' '.mount.dir = "/srvx/y"' '.mount.options = "a b"' \
		'.mount.options = "noatime\nx"' '.mount.mkfs = "../ext4"' '.mount.automount = 1' '.mount.duplicate = "true"'; do
		ask "$(request link "$change")" && answers '(.ok | not) and (.error | length > 10) and .errno > 0' || { echo "$change"; return 1; }
	done
	[ ! -e state/drives.json ]
	[ ! -e mnt/d ]
	denied "UUID" unlink '.uuid = "x"'
	denied "begin with" gone '.nqn = "nqn.2014-08.com.other:disk"'
	try link
}

@test "options that do more than to mount are refused, unless they are trusted" {
	setup_agent
	disk d
	namespace
	local o
	for o in suid dev loop loop=/dev/loop0 bind rbind move remount context=x fscontext=x helper=x uhelper=x user users owner X-mount.mkdir x-systemd.requires=x \
		offset=1 shared defaults errors=panic noatime=1 noatimex commit noatime,suid suid,noatime ,suid verity.oppolicy=x; do
		denied "does not mount with the option" link ".mount.options = \"$o\"" || { echo "$o"; return 1; }
	done
	try link '.mount.options = "noatime,commit=30,discard"'
	[[ $(findmnt -no OPTIONS mnt/d) == *nosuid,nodev,noatime* ]]
	try unlink
	end_agent
	start_agent --mount-dir "$T/mnt" --trust-mount-options
	try link '.mount.options = "suid"'
	[[ $(findmnt -no OPTIONS mnt/d) != *nosuid* ]]
}

@test "it mounts only where nobody but root could put another directory" {
	setup_agent
	disk d
	namespace
	mkdir -p mnt/user/x mnt/root/x mnt/open
	chown 1000 mnt/user
	chmod 1777 mnt/open
	ln -s root mnt/link
	ln -s /etc mnt/root/etc
	denied "others than root" link '.mount.dir = "'"$T"'/mnt/user/x"'
	denied "others than root" link '.mount.dir = "'"$T"'/mnt/open/x"'
	denied "others than root" link '.mount.dir = "'"$T"'/mnt/user/x/y/z"'
	denied "symbolic link" link '.mount.dir = "'"$T"'/mnt/link/x"'
	denied "symbolic link" link '.mount.dir = "'"$T"'/mnt/root/etc/x"'
	denied "symbolic link" link '.mount.dir = "'"$T"'/mnt/root/etc"'
	denied "below none" link '.mount.dir = "'"$T"'/mnt2"'
	denied "below none" link '.mount.dir = "'"$T"'/mnt"'
	try link '.mount.dir = "'"$T"'/mnt/root/a/b"'
	mountpoint mnt/root/a/b
	try unlink
	try link '.mount.dir = "'"$T"'/mnt/user"'
}

@test "on a drive, whose host says who owns what, no other is mounted" {
	setup_agent
	disk d
	namespace
	try link
	mkdir mnt/d/sub
	ln -s /etc mnt/d/etc
	for dir in sub sub/x etc; do
		denied "another file system" link ".uuid = \"${U/1/2}\" | .mount.dir += \"/$dir\""
	done
	[ "$(records)" = "[\"$U\"]" ]
}

@test "a device by another way than the host's is not taken, and its host is connected" {
	setup_agent
	disk d
	namespace
	echo "traddr=192.0.2.1,trsvcid=8653" >sys/class/nvme/nvme7/address
	echo connecting >sys/class/nvme/nvme7/state
	{ wait_for test -s fabrics; controller nvme8 $NQN; } 3>&- &
	try link
	answers '.address == "nvme8 nsid 3"'
	wait $!
}

@test "one drive that is waited for keeps no other waiting" {
	setup_agent
	controller nvme7 $NQN
	ask "$(request link '.uuid = "99999999-9999-4999-8999-999999999999"')" &
	wait_for eval '[ "$(records)" != "[]" ]'
	disk d
	namespace
	vdagent ask --key key "$HOST" <<<"$(request link)" >second
	jq -e .ok second
	vdagent ask --key key "$HOST" <<<'{"op":"status"}' >second
	[ "$(jq -r '[.drives[].state] | join(" ")' second)" = "waiting up" ]
	# What is interrupted is as if it had not been asked for
	end_agent
	wait $! || :
	[ "$(records)" = "[\"$U\"]" ]
}

@test "two at once for one drive: one after the other, with one result" {
	setup_agent
	disk d
	namespace
	local i pids=()
	for i in 1 2 3 4; do
		vdagent ask --key key "$HOST" <<<"$(request link)" >answer.$i &
		pids+=($!)
	done
	wait "${pids[@]}"
	[ "$(cat answer.? | jq -c '[.ok, .mount]' | sort -u)" = "[true,\"$T/mnt/d\"]" ]
	[ "$(findmnt -n "$T/mnt/d" | wc -l)" = 1 ]
}

@test "killed between record and mount, it goes on when it is started again" {
	setup_agent
	controller nvme7 $NQN
	ask "$(request link)" &
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	end_agent KILL
	wait $! || :
	[ "$(records)" = "[\"$U\"]" ]
	restart_agent
	ask '{"op":"status"}'
	answers '.drives[0].state == "waiting"'
	wait_for grep -q "is not there yet" agent.log
	disk d
	namespace
	wait_for mountpoint mnt/d
	try unlink
}

@test "killed with a mount, or the machine started again: it is mounted as it was" {
	setup_agent
	disk d
	namespace
	try link '.mount.options = "noatime"'
	end_agent KILL
	restart_agent
	ask '{"op":"status"}'
	answers '.drives[0].state == "up"'
	end_agent KILL
	umount mnt/d
	restart_agent
	wait_for mountpoint mnt/d
	[[ $(findmnt -no OPTIONS mnt/d) == *noatime* ]]
	# A drive that was unmounted by hand stays so while it runs
	umount mnt/d
	ask '{"op":"status"}'
	answers '.drives[0].state == "unmounted"'
}

@test "records that somebody has changed: what cannot be is passed over, what is no list is left alone" {
	setup_agent
	disk d
	namespace
	try link
	end_agent
	umount mnt/d
	jq -c '.drives = [3, {}, (.drives[0] | .name = "x"), (.drives[0] | .uuid = "99999999-9999-4999-8999-999999999999" | .mount.dir = "/etc/x")] + .drives' state/drives.json >new
	cp new state/drives.json
	restart_agent
	wait_for mountpoint mnt/d || wait_for grep -q "passed over" agent.log
	refused mountpoint /etc/x
	echo '[' >state/drives.json
	ask '{"op":"status"}'
	answers '(.ok | not) and (.error | contains("repair"))'
	[ "$(cat state/drives.json)" = '[' ]
}

@test "three hundred drives are told of in one answer" {
	setup_agent
	end_agent
	mkdir -p state
	request link | jq '{drives: [range(300) as $i | .via.port = "1" | .uuid = .uuid[:-3] + (100 + $i | tostring) | .name += "x" * 100 | .mount.dir += "/\($i)"]}' >state/drives.json
	restart_agent
	ask '{"op":"status"}'
	answers '(.drives | length) == 300 and all(.drives[]; .state == "waiting")'
	[ "$(wc -c <answer)" -gt 65536 ]
	ok vdagent status --noheadings
	[ "${#lines[@]}" = 300 ]
}

@test "a disk of a guest is found by its serial number, and taken off its bus" {
	setup_agent
	disk d
	mkdir -p sys/class/scsi_host/host0 sys/class/scsi_host/host2
	echo ahci >sys/class/scsi_host/host0/proc_name
	: >sys/class/scsi_host/host0/scan
	denied "no virtio-scsi bus" link '.via = {kind: "scsi"}'
	echo virtio_scsi >sys/class/scsi_host/host2/proc_name
	: >sys/class/scsi_host/host2/scan
	{ wait_for grep -qx -- "- - -" sys/class/scsi_host/host2/scan; scsi_disk 2:0:0:5; } 3>&- &
	try link '.via = {kind: "scsi"}'
	wait $!
	answers '.address == "2:0:0:5"'
	mountpoint mnt/d
	[ ! -s sys/class/scsi_host/host0/scan ]
	try unlink
	[ "$(cat sys/devices/2:0:0:5/delete)" = 1 ]
	unplug
	try gone 'del(.nqn)'
}

@test "a disk on a bus that is not virtio's, or with half a serial number, is not taken" {
	setup_agent
	disk d
	scsi_disk 2:0:0:5
	echo ahci >sys/class/scsi_host/host2/proc_name
	denied "no virtio-scsi bus" link '.via = {kind: "scsi"}'
	echo virtio_scsi >sys/class/scsi_host/host2/proc_name
	printf '\0\200\0\43%s' "${U%5}" >sys/devices/2:0:0:5/vpd_pg80
	ask "$(request link '.via = {kind: "scsi"}')" &
	wait_for test -s sys/class/scsi_host/host2/scan
	: >sys/class/scsi_host/host2/scan
	wait_for test -s sys/class/scsi_host/host2/scan
	[ ! -e mnt/d ]
	# The other page that may tell it
	printf '\0\203\0\54\2\1\0\4QEMU\2\0\0\44%s' $U >sys/devices/2:0:0:5/vpd_pg83
	wait $!
	answers .ok
}

@test "gone waits until the device is, and leaves the connection to other drives" {
	setup_agent
	disk d
	namespace
	try link
	U=${U/11111111/99999999}
	disk e
	namespace $U
	try link '.mount.dir += "2"'
	try unlink
	ask "$(request gone)" &
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	kill -0 $!
	unplug
	wait $!
	answers .ok
	[ ! -s sys/class/nvme/nvme7/delete_controller ]
}

@test "a subsystem of which a device is in use is not disconnected" {
	setup_agent
	disk d
	namespace
	try link
	try unlink
	mount "/dev/$L" mnt2
	exec 7>mnt2/file
	denied "$T/mnt2 is in use by" gone
	exec 7>&-
	umount mnt2
	# Nor when it is another drive's
	disk e
	mkfs.ext4 -q e
	namespace "${U/11111111/99999999}"
	mount "/dev/$L" mnt2
	denied "is in use by the mount on $T/mnt2" gone
	[ ! -s sys/class/nvme/nvme7/delete_controller ]
}

@test "a drive's own file system leads nowhere: nothing is mounted below it, or over a symbolic link" {
	setup_agent
	local first U2=${U/11111111/99999999}
	disk d
	namespace
	try link
	first=$L
	mkdir mnt/d/dir
	ln -s "$T/mnt2" mnt/d/away
	mkdir mnt/root
	ln -s "$T/mnt2" mnt/root/away
	disk e
	namespace "$U2"
	denied "symbolic link" link ".uuid = \"$U2\" | .mount.dir = \"$T/mnt/root/away\""
	denied "another file system" link ".uuid = \"$U2\" | .mount.dir += \"/away\""
	denied "another file system" link ".uuid = \"$U2\" | .mount.dir += \"/dir\""
	denied "another drive may" link ".uuid = \"$U2\" | .mount.dir = \"/srv/vd/vdtx/dir\""
	# Nor where another will be, or above it
	umount mnt/d
	denied "p/v is mounted on" link ".uuid = \"$U2\" | .mount.dir += \"/x\""
	mkdir mnt/a
	try link ".uuid = \"$U2\" | .mount.dir = \"$T/mnt/a/b\""
	U3=${U/11111111/88888888}
	denied "is mounted on" link ".uuid = \"$U3\" | .mount.dir = \"$T/mnt/a\""
	[ -z "$(findmnt -n "$T/mnt2")" ]
	[ ! -e "$first/x" ]
}

@test "without a record it is unlinked all the same, and stays when it is in use" {
	setup_agent
	disk d
	namespace
	try link
	end_agent
	rm state/drives.json
	restart_agent
	exec 7>mnt/d/file
	denied "in use" unlink
	exec 7>&-
	try unlink
	refused mountpoint mnt/d
	# One that cannot be read, too
	try link
	jq -c '.drives[0].name = "x"' state/drives.json >new
	cp new state/drives.json
	try unlink
	refused mountpoint mnt/d
	[ "$(records)" = "[]" ]
	# And before the connection ends
	mkdir -p mnt/d
	mount "/dev/$L" mnt/d
	ask "$(request gone)" &
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	unplug
	wait $!
	answers .ok
	refused mountpoint mnt/d
}

@test "a connection to where the host was before is not believed, and not read: it is made to where the host is" {
	setup_agent
	disk d
	namespace
	echo "traddr=127.9.9.9,trsvcid=8653" >sys/class/nvme/nvme7/address
	echo connecting >sys/class/nvme/nvme7/state
	{ wait_for test -s fabrics; controller nvme8 $NQN; } 3>&- &
	try link
	wait $!
	[ "$(cat sys/class/nvme/nvme7/delete_controller)" = 1 ]
	[[ $(cat fabrics) == *traddr=$HOST,* ]]
	answers '.address == "nvme8 nsid 3"'
	# One that answers, and is in use, is another host's
	rm -r sys/class/nvme/nvme8
	echo live >sys/class/nvme/nvme7/state
	: >fabrics
	denied "from another host" link
	[ ! -s fabrics ]
	mountpoint mnt/d
	try unlink
}

@test "a controller that is not connected is waited for, and its device is left alone" {
	setup_agent
	disk d
	namespace
	echo connecting >sys/class/nvme/nvme7/state
	ask "$(request link)" &
	wait_for test -s sys/class/nvme/nvme7/rescan_controller
	[ "$(blkid -p "/dev/$L")" = "" ]
	[ ! -e mnt/d ]
	echo live >sys/class/nvme/nvme7/state
	wait $!
	answers ".ok and .mount == \"$T/mnt/d\""
}

@test "what has grown meanwhile is mounted after a restart, with its new size" {
	setup_agent
	disk d
	namespace
	try link
	end_agent
	umount mnt/d
	truncate -s 80m d
	losetup -c "/dev/$L"
	namespace
	restart_agent
	wait_for mountpoint mnt/d
	[ "$(jq '.drives[0].size' state/drives.json)" = 83886080 ]
	ask '{"op":"status"}'
	answers '.drives[0].state == "up" and .drives[0].size == 83886080'
}

@test "a mount that fails at the start is tried again until it is there" {
	setup_agent
	disk d
	namespace
	try link
	end_agent
	umount mnt/d
	mount -t tmpfs tmpfs mnt/d
	restart_agent
	wait_for grep -q "something else is mounted" agent.log
	umount mnt/d
	wait_for mountpoint mnt/d
	[ "$(findmnt -no SOURCE mnt/d)" = "/dev/$L" ]
}

@test "what a host wanted last is what is done, and what it gave up is not" {
	setup_agent
	end_agent
	mkdir bin
	printf '#!/bin/sh\necho $$ >%s/pid\nexec tail -f --pid "$(cat %s/until)" /dev/null\n' "$T" "$T" >bin/mkfs.ext4
	chmod +x bin/mkfs.ext4
	sleep 1000 &
	echo $! >until
	PATH=$T/bin:$PATH restart_agent -v
	disk d
	namespace
	local n asked=()
	for n in 0 1 2 3 4 5; do
		vdagent ask --key key "$HOST" <<<"$(request "$([ $n = 5 ] && echo unlink || echo link)" '.wait = 120')" >"answer.$n" &
		asked+=($!)
		wait_for test -s pid
		wait_for eval '[ "$(grep -c "waits for another" agent.log)" = $n ]'
	done
	kill "${asked[@]:1:3}"
	wait_for eval '[ "$(grep -c "not done: who asked for it has left" agent.log)" = 3 ]'
	kill "$(cat until)"
	wait "${asked[5]}"
	jq -e .ok answer.5
	[ "$(records)" = "[]" ]
	wait "${asked[4]}"
	[ "$(cat answer.[123])" = "" ]
}

@test "a program that does not end keeps no other drive waiting, nor the end; one that leaves another running has ended" {
	setup_agent
	end_agent
	local real
	real=$(command -v mkfs.ext4)
	mkdir bin
	printf '#!/bin/sh\necho $$ >%s/pid\nexec sleep 1000\n' "$T" >bin/mkfs.ext4
	chmod +x bin/mkfs.ext4
	PATH=$T/bin:$PATH restart_agent
	disk d
	namespace
	ask "$(request link)" &
	wait_for test -s pid
	vdagent ask --key key "$HOST" <<<"$(request link '.wait = 4')" >second # half as long as the host waits
	jq -e '(.ok | not) and .errno == 16 and (.error | contains("another request") and contains("2 seconds"))' second
	U=${U/11111111/99999999}
	disk e
	mkfs.xfs -q -f e 2>/dev/null || mke2fs -q -t ext4 e
	namespace "$U"
	vdagent ask --key key "$HOST" <<<"$(request link '.mount.dir += "2"')" >second
	jq -e '.ok and .mount != ""' second
	end_agent
	wait $! || :
	wait_for eval "! kill -0 $(cat pid) 2>/dev/null"
	printf '#!/bin/sh\nsleep 1000 &\necho $! >%s/pid\nexec %s "$@"\n' "$T" "$real" >bin/mkfs.ext4
	PATH=$T/bin:$PATH restart_agent
	U=${U/99999999/11111111}
	wait_for mountpoint mnt/d
	kill "$(cat pid)"
}

@test "a link that says nothing of a mount leaves what is known of it" {
	setup_agent
	disk d
	namespace
	try link '.mount.options = "noatime"'
	try link 'del(.mount)'
	answers '.mount == ""'
	[ "$(jq -c '.drives[0].mount | [.dir, .options]' state/drives.json)" = "[\"$T/mnt/d\",\"noatime\"]" ]
	try link '.mount = {}'
	answers ".mount == \"$T/mnt/d\""
}

@test "who it is, is told in few words, and to who sets it up" {
	setup_agent
	ask '{"op":"hello"}'
	answers '.ok and (.hostnqn | startswith("nqn.")) and .hostid != "" and .host != "" and .version != "" and .dhchap == false and (has("drives") | not)'
	ok vdagent status
	says "This server is $(jq -r .hostnqn answer)"
}

@test "a drive that nobody takes back is given up: unmounted, disconnected and forgotten, unless it is in use" {
	setup_agent
	disk d
	namespace
	try link
	exec 7>mnt/d/file
	must 5 vdagent forget -y $U || must 4 vdagent forget -y $U
	says "in use"
	[ "$(records)" != "[]" ]
	exec 7>&-
	refused vdagent forget $U
	{ wait_for test -s sys/class/nvme/nvme7/delete_controller; unplug; } 3>&- &
	ok vdagent forget -y p/v
	wait $!
	refused mountpoint mnt/d
	[ "$(records)" = "[]" ]
	refused vdagent forget -y $U
	says "no drive"
	# Its host is away
	namespace
	try link
	echo connecting >sys/class/nvme/nvme7/state
	denied "vdagent forget" unlink
	{ wait_for test -s sys/class/nvme/nvme7/delete_controller; unplug; } 3>&- &
	ok vdagent forget -y $U
	wait $!
	[ "$(records)" = "[]" ]
}

@test "where /srv is not for mounts, drives have their place below what is" {
	setup_agent
	end_agent
	start_agent --mount-dir "$T/mnt"
	disk d
	namespace
	try link '.mount = {mkfs: "ext4"}'
	answers ".mount == \"$T/mnt/vd/v\""
}

@test "no file system is made where there is data at the end, or mounted that is of no usual type" {
	setup_agent
	need mkfs.minix
	disk d
	namespace
	printf x | dd of=d bs=1 seek=67108000 conv=notrunc status=none
	try link
	answers '.mount == "" and (.note | contains("there is data on it"))'
	truncate -s 0 d
	truncate -s 64m d
	mkfs.minix d >/dev/null
	try link
	answers '.mount == "" and (.note | contains("usual types"))'
}

@test "where it was mounted by hand is not where it will be" {
	setup_agent
	disk d
	mkfs.ext4 -q d
	namespace
	mount "/dev/$L" mnt2
	try link
	answers ".mount == \"$T/mnt2\" and (.note | contains(\"already\"))"
	[ "$(jq -r '.drives[0].mount.dir' state/drives.json)" = "$T/mnt/d" ]
}

@test "what turns out to be in use when it is unmounted is mounted again" {
	setup_agent
	disk d
	namespace
	try link
	elsewhere sleep 1000 3>&- &
	wait_for eval '[ "$(cat /proc/$!/comm)" = sleep ]'
	denied "in use" unlink
	mountpoint mnt/d
	[ "$(records)" != "[]" ]
	kill $!
	wait $! || :
	# Who has a file open in a copy of the mount is seen before anything is undone
	mkdir -p mnt/d/sub
	elsewhere sh -c "exec 9<'$T/mnt/d/sub'; umount '$T/mnt/d' 2>/dev/null; exec sleep 1000" 3>&- &
	wait_for eval '[ "$(readlink /proc/$!/fd/9)" = "$T/mnt/d/sub" ] && [ "$(cat /proc/$!/comm)" = sleep ]'
	mount -o remount,bind,noatime mnt/d
	was=$(grep " $T/mnt/d " /proc/self/mountinfo)
	denied "in use by sleep" unlink
	[ "$(grep " $T/mnt/d " /proc/self/mountinfo)" = "$was" ]
	kill $!
	wait $! || :
	try unlink
}
