#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# A volume that the kernel serves is given to a VM, for which qmp.pl stands here.
. /vd/tests/lab/jobs/linked.sh

vm() { rm -f /tmp/q; perl /vd/tests/lab/jobs/qmp.pl /tmp/q & VM=$!; until_ok 10 [ -S /tmp/q ]; }
line() { vdlink ls --noheadings -o state,server,device,address p-1 | xargs; }

step a server is described in a pool that the kernel has, or nobody
# shellcheck disable=SC2086 # one word a disk
vdpool create -q p-1 $DISKS
vdcreate -q -L 256M p-1/web
vdcreate -q -L 64M p-1/other
vdlink -q p-1/other
active kernel
vdserver add -q p-1/guest --qmp /tmp/q
fails 5 "describes a server guest already" vdserver add p-1/guest --qmp /tmp/q
[ "$(vdserver ls --noheadings -o path,accepted p-1 | xargs)" = "p-1/guest yes" ]
vdserver add -q p-1/gone --qmp /tmp/q
vdserver rm -q p-1/gone
fails 3 "describes no server gone" vdlink p-1/web gone
vdunlink -q p-1/other
active no
[ "$(vdserver ls --noheadings -o server p-1 | xargs)" = guest ]

step a volume is given to it
fails 5 "is not running" vdlink p-1/web guest
active no
vm
vdlink p-1/web guest
active kernel
[ "$(line)" = "up guest /dev/mapper/p--1-web scsi0.0:0:0:0" ]
[ "$(lsof /dev/mapper/p--1-web 2>/dev/null | wc -l)" != 0 ] || fuser -s /dev/mapper/p--1-web
fails 4 "p-1/web is linked to it" vdserver rm p-1/guest
fails 4 "" vdpool deactivate p-1
vdunlink p-1/web
[ ! -e /dev/mapper/p--1-web ]
active no

step it ends, and comes again
vdlink -q p-1/web guest
kill -9 $VM
wait $VM || true
[ "$(line)" = "down guest /dev/mapper/p--1-web" ] || [ "$(line)" = "down guest /dev/mapper/p--1-web scsi0.0:0:0:0" ]
fails 5 "is not running" vdlink --restore p-1
vm
vdlink --restore p-1
[ "$(line)" = "up guest /dev/mapper/p--1-web scsi0.0:0:0:0" ]
kill -9 $VM
wait $VM || true
vdunlink p-1/web
active no
vdserver rm -q p-1/guest
vdpool check p-1
sound
