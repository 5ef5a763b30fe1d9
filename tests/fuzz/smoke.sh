#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only OR LGPL-2.1-or-later
#
# smoke.sh [SECONDS [TARGET...]]   each target: the corpus, crashers found earlier
#                                  among it, then SECONDS (20; in per cent of that
#                                  with VD_TEST_SCALE) of fresh inputs.
# smoke.sh --merge TARGET DIR...   adds to a target's corpus what the inputs in DIRs
#                                  reach and it does not.
#
# `make fuzz-smoke` does the same through tests/run.sh; this is for longer runs,
# one target at a time.  A crasher is left in build/fuzz/found/TARGET; to look at it:
#
#	FZ_VERBOSE=1 build/fuzz/fuzz_TARGET FILE
set -u
cd "$(dirname "$0")/../.." || exit 1
make --no-print-directory -s fuzz || exit 1
all=$(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')

if [ "${1:-}" = --merge ]; then
	target=$2 corpus=tests/fuzz/corpus/$2
	shift 2
	mkdir -p "$corpus"
	exec build/fuzz/fuzz_"$target" -merge=1 -timeout=60 -rss_limit_mb=2048 "$corpus" "$@"
fi

seconds=${1:-20}
seconds=$((seconds * ${VD_TEST_SCALE:-100} / 100))
[ "$seconds" -gt 0 ] || seconds=1
shift
failed=0
for target in ${*:-$all}; do
	corpus=tests/fuzz/corpus/$target found=build/fuzz/found/$target fresh=build/fuzz/work/$target log=build/fuzz/$target.log
	mkdir -p "$found" "$fresh"
	options="-timeout=60 -rss_limit_mb=2048 -artifact_prefix=$found/"
	# The corpus by itself first: it must not fail, whatever the time.
	# shellcheck disable=SC2086
	if ! timeout -k 10 1800 build/fuzz/fuzz_"$target" $options "$corpus"/* >"$log" 2>&1; then
		how="an input of the corpus fails"
	elif ! timeout -k 10 $((seconds + 900)) build/fuzz/fuzz_"$target" $options -max_total_time="$seconds" -print_final_stats=1 \
		"$fresh" "$corpus" >"$log" 2>&1; then
		how="a fresh input fails"
	else
		how=
	fi
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	if [ -n "$how" ]; then
		failed=1
		echo "not ok fuzz_$target: $how"
		grep -aE '^FAULT|runtime error|ERROR: |^Running: |Test unit written' "$log" | tail -4 | sed 's/^/       /'
	else
		echo "ok     fuzz_$target: $(ls "$corpus" | wc -l) inputs kept, ${runs:-no} runs in $seconds s"
	fi
done
exit $failed
