# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the jobs share that run the commands, on a pool p-1; the module is loaded when they need it.
. /vd/tests/lab/jobs/common.sh
as_installed

# udev takes up its queue again, and has nothing left to do.  Now and then udevd 252 is told to, and starts nothing of
# what has come meanwhile until it is told again (seen in User-Mode Linux, once in 30 times).
udev_goes_on()
{
	udevadm control --start-exec-queue
	udevadm settle --timeout=30 || { udevadm control --start-exec-queue && udevadm settle; }
}
step() { echo "== $*"; }
# fails CODE TEXT COMMAND...: it does, and says so
fails()
{
	local code=$1 text=$2 said rc=0
	shift 2
	said=$("$@" 2>&1) || rc=$?
	[ $rc = "$code" ] && grep -qF -- "$text" <<<"$said" || { echo "$* gave $rc and said: $said"; return 1; }
}
shows() { vdpool show --reportformat json p-1 | jq -r ".report[0].pool[0].$1"; }
active() { [ "$(shows active)" = "$1" ] || { echo "active: $(shows active), wanted $1"; return 1; }; }
uuid_of() { vdls --reportformat json -o name,uuid p-1 | jq -r ".report[0].volume[] | select(.name == \"$1\").uuid"; }
