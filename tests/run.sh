#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# run.sh SUITE TEST...   runs tests two at a time, a line each, and keeps what
#                        they said in build/results/SUITE.tap and build/logs/.
# run.sh --total         adds up all suites: "N passed, N failed", alone on the
#                        last line.
#
# A test is a program that speaks TAP (cmocka is asked to, bats does), or any
# other whose exit status says it.  One that dies or runs too long has failed
# whatever it printed before.
set -u
cd "$(dirname "$0")/.." || exit 1
results=build/results logs=build/logs
mkdir -p $results $logs

total()
{
	local pass fail skip
	pass=$(cat $results/*.tap 2>/dev/null | grep -E '^ok' | grep -vciE '# *skip')
	fail=$(cat $results/*.tap 2>/dev/null | grep -cE '^not ok')
	skip=$(cat $results/*.tap 2>/dev/null | grep -E '^ok' | grep -ciE '# *skip')
	grep -hE '^not ok' $results/*.tap 2>/dev/null | sed 's/^/  /'
	[ "$skip" = 0 ] || echo "$skip skipped:"
	grep -hiE '^ok.*# *skip' $results/*.tap 2>/dev/null | sed -E 's/^ok [0-9]* */  /'
	[ "$pass" -gt 0 ] || { [ "$fail" -gt 0 ] || fail=1; }
	echo "$pass passed, $fail failed"
	[ "$fail" = 0 ]
}

# run_one SUITE TEST: its own TAP goes to logs, a summary line to stdout
run_one()
{
	local suite=$1 test=$2 name log t0 t1 rc pass fail skip
	name=$(basename "${test%.bats}")
	log=$logs/$suite-$name.log
	t0=$(date +%s.%N)
	case $suite in
	cmd|lab)
		# bats keeps file descriptor 3: nothing a test leaves behind may hold it
		timeout -k 10 "${TEST_TIMEOUT:-1800}" bats --tap ${TAGS:+--filter-tags "$TAGS"} "$test" >"$log" 2>&1 3>&- ;;
	kernel*)
		# tests/cmd in guests of that kernel, which serves the pools
		tests/lab/lab.sh -b -k "${suite#kernel}" -m 4G -t "${TEST_TIMEOUT:-7200}" "bash /vd/tests/lab/jobs/cmd.sh $name" >"$log" 2>&1 3>&- ;;
	fuzz)
		local corpus=tests/fuzz/corpus/${name#fuzz_} work=build/fuzz/work/${name#fuzz_}
		mkdir -p "$work"
		timeout -k 10 $((FUZZ_SECONDS + 900)) "$test" -max_total_time="$FUZZ_SECONDS" -timeout=60 -rss_limit_mb=2048 \
			-seed="${FUZZ_SEED:-1}" -print_final_stats=1 -artifact_prefix="$work/" "$work" $([ -d "$corpus" ] && echo "$corpus") >"$log" 2>&1 ;;
	soak)
		CMOCKA_MESSAGE_OUTPUT=TAP timeout -k 10 $((VD_SOAK_SECONDS + 600)) "$test" >"$log" 2>&1 ;;
	*)
		CMOCKA_MESSAGE_OUTPUT=TAP timeout -k 10 "${TEST_TIMEOUT:-1800}" "$test" >"$log" 2>&1 ;;
	esac
	rc=$?
	t1=$(date +%s.%N)
	# cmocka marks a skipped test "not ok N # SKIP name"
	sed -E 's/^not (ok [0-9]+ # *SKIP)/\1/I' "$log" | grep -aE '^(not )?ok( |$)' | sed -E "s|^((not )?ok [0-9]*( -)?) *|\1 $suite/$name: |" >"$log.tap"
	if [ $rc != 0 ] && ! grep -q '^not ok' "$log.tap"; then
		echo "not ok 0 $suite/$name: ended with status $rc$([ $rc = 124 ] && echo ' (too slow)')" >>"$log.tap"
	elif [ ! -s "$log.tap" ]; then
		echo "ok 1 $suite/$name" >>"$log.tap"
	fi
	pass=$(grep '^ok' "$log.tap" | grep -vciE '# *skip')
	skip=$(grep '^ok' "$log.tap" | grep -ciE '# *skip')
	fail=$(grep -c '^not ok' "$log.tap")
	printf '%-6s %-34s %4d passed%s%s  %6.1f s\n' "$([ "$fail" = 0 ] && echo ok || echo FAILED)" "$suite/$name" "$pass" \
		"$([ "$fail" = 0 ] || echo ", $fail failed")" "$([ "$skip" = 0 ] || echo ", $skip skipped")" \
		"$(awk "BEGIN{print $t1-$t0}")"
	# Seeds are printed always, so that a run can be had again.
	grep -aihE '^(# *)?seed' "$log" | head -3 | sed 's/^/       /'
	if [ "$fail" != 0 ]; then
		echo "       the end of $log:"
		tail -n 40 "$log" | sed 's/^/       | /'
	fi
	[ "$fail" = 0 ]
}

if [ "${1:-}" = --one ]; then
	run_one "$2" "$3"
	exit
fi
if [ "${1:-}" = --total ]; then
	total
	exit
fi
suite=$1
shift
if [ $# = 0 ]; then
	echo "       no $suite tests yet"
	exit 0
fi
rm -f $logs/"$suite"-*.log.tap
printf '%s\0' "$@" | xargs -0 -n1 -P"${JOBS:-2}" "$0" --one "$suite"
rc=$?
cat $logs/"$suite"-*.log.tap >$results/"$suite".tap
exit $((rc != 0))
