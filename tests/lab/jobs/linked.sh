# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the jobs share that run the commands, on a pool p-1; the module is loaded when they need it.
. /vd/tests/lab/jobs/common.sh
cp /vd/udev-rules/61-vd.rules /etc/udev/rules.d/
cp /vd/udev-rules/11-dm-vd.rules /etc/udev/rules.d/56-dm-vd.rules
udevadm control --reload
echo "install dm-vd insmod $VD_MODULE" >/etc/modprobe.d/vd.conf
[ -e "/lib/modules/$(uname -r)/modules.dep" ] || insmod "$VD_MODULE" # User-Mode Linux

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
