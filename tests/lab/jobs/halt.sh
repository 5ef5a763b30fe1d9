#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# halt.sh DIR TEXT COMMAND...: a command that stands still when it has written or sent something with TEXT in it, as
# strace(1) prints that, and goes on when there is DIR/go.
#   DIR/there    its process, which stands still
#   DIR/said     its output
#   DIR/status   it has ended: its status; "never" if TEXT did not come
dir=$1 text=$2
shift 2
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
mkfifo "$work/trace"
# Every such call stops it; all but one are passed over here.
strace -q -s 4000 -o "$work/trace" -e trace=write,sendto -e inject=write,sendto:signal=STOP "$@" >"$dir/said" 2>&1 </dev/null &
strace=$!
call='' there='' pid=''
while read -r line <&7; do
	case $line in
	write\(* | sendto\(*) call=$line ;;
	*"stopped by SIGSTOP"*)
		pid=${pid:-$(pgrep -P $strace)}
		if [ -z "$there" ] && [[ $call == *"$text"* ]]; then
			there=1
			echo "$pid" >"$dir/there.new"
			mv "$dir/there.new" "$dir/there"
			until [ -e "$dir/go" ]; do sleep 0.05; done
		fi
		kill -CONT "$pid" 2>/dev/null ;;
	esac
done 7<"$work/trace"
wait $strace
status=$?
[ -n "$there" ] || status=never
echo "$status" >"$dir/status.new"
mv "$dir/status.new" "$dir/status"
