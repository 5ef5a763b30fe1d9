# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# What the tests of vdagent share.

# agent OPTION...: it runs, with the key $T/key, on an address of this machine's that no other test has
agent()
{
	HOST=127.$((RANDOM % 250 + 1)).$((RANDOM % 250 + 1)).$((RANDOM % 250 + 1))
	[ -e key ] || ok vdagent key key
	start_agent "$@"
}
start_agent()
{
	vdagent serve --listen $HOST --key key "$@" >>agent.log 2>&1 3>&- &
	AGENT=$!
	wait_for ask '{"op":"status"}'
}
end_agent() { kill "-${1:-TERM}" $AGENT; wait $AGENT 2>/dev/null || :; }
# ask REQUEST: its answer is in $output, and in answer
ask() { vdagent ask --key "${KEY:-key}" --timeout 60 "$HOST" <<<"$1" >answer 2>said; }
# answers JQ-CONDITION
answers() { jq -e "$1" answer >/dev/null || { cat answer; return 1; }; }
