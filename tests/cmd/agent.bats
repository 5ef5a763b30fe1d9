#!/usr/bin/env bats
# SPDX-License-Identifier: GPL-2.0-only
# The agent of a server, and who speaks to it.
load helper
load agent

# What another implementation of TLS sends it, from standard input, and hears
tls() { timeout 20 openssl s_client -quiet -no_ign_eof -connect "$HOST:8653" -tls1_3 -ciphersuites TLS_AES_128_GCM_SHA256 -psk_identity "${NAME:-vd}" -psk "$(cat "${KEY:-key}")" 2>/dev/null; }

@test "a key is made once, is 64 digits, and is its owner's alone" {
	ok vdagent key key
	[ "$(stat -c %a key)" = 600 ]
	[[ $(cat key) =~ ^[0-9a-f]{64}$ ]]
	cp key before
	must 5 vdagent key key
	says "not overwritten"
	cmp key before
	[ "$(echo key*)" = key ]
	ok vdagent key other
	refused cmp -s key other
}

@test "who has the key is answered" {
	need jq
	agent
	ask '{"op":"status"}'
	answers '.ok and .version != "" and .drives == []'
}

@test "who has another key is refused, and both sides say so" {
	agent
	ok vdagent key other
	refused vdagent ask --key other "$HOST"
	[ "$status" = 5 ]
	says "another key"
	grep -q "another key" agent.log
	ask '{"op":"status"}'
}

@test "a key that is not there, is no key, or that others can read, is not used" {
	agent
	local bad
	must 5 vdagent ask --key nothing "$HOST"
	says "vdagent key nothing"
	for bad in 640 604; do
		cp key open
		chmod $bad open
		must 5 vdagent ask --key open "$HOST"
		says "read by others"
		must 4 vdagent serve --listen "$HOST" --key open || must 5 vdagent serve --listen "$HOST" --key open
		says "read by others"
	done
	ln -s key link
	must 5 vdagent ask --key link "$HOST"
	{ cat key; echo; } >long
	head -c 60 key >short
	tr 0-9 g <key >letters
	chmod 600 long short letters
	for bad in long short letters; do
		must 5 vdagent ask --key $bad "$HOST"
		says "hexadecimal"
	done
}

@test "the key may be changed while the agent runs" {
	agent
	mv key old
	ok vdagent key key
	ask '{"op":"status"}'
	KEY=old
	! ask '{"op":"status"}'
}

@test "another implementation of TLS with the key is answered, many times" {
	need openssl jq
	agent
	(printf '{"op":"status"}\n{"op":"what"}\n{"op":"status"}\n'; wait_for eval '[ $(wc -l <heard) = 3 ]') | tls >heard
	[ "$(jq -c .ok heard | tr '\n' ' ')" = "true false true " ]
}

@test "another name than vd, another version or cipher, or no key is refused" {
	need openssl
	agent
	NAME=root tls </dev/null >heard || :
	timeout 20 openssl s_client -connect "$HOST:8653" -tls1_2 -psk_identity vd -psk "$(cat key)" </dev/null >heard 2>&1 || :
	grep -q "Cipher is (NONE)" heard
	timeout 20 openssl s_client -connect "$HOST:8653" -tls1_3 </dev/null >heard 2>&1 || :
	[ "$(grep -c "connection is refused" agent.log)" = 3 ]
	ask '{"op":"status"}'
}

@test "garbage on the port hurts nobody" {
	agent
	local i
	for i in 1 2 3 4 5; do
		random $((i * 900)) >"/dev/tcp/$HOST/8653" || :
		echo '{"op":"status"}' >"/dev/tcp/$HOST/8653" || :
	done
	ask '{"op":"status"}'
}

@test "those who connect and say nothing keep nobody waiting, however many" {
	agent
	local i fd fds=()
	for ((i = 0; i < 150; i++)); do
		exec {fd}<>"/dev/tcp/$HOST/8653"
		fds+=("$fd")
	done
	ask '{"op":"status"}'
	for fd in "${fds[@]}"; do exec {fd}>&-; done
}

@test "a line that is too long, too deep or no object gets an error, and the next an answer" {
	need openssl jq
	agent
	{
		printf '[%.0s' {1..100}; echo
		printf '{"op":%s"status"%s}\n' "$(printf '[%.0s' {1..20})" "$(printf ']%.0s' {1..20})"
		printf '3\nnull\n""\n{"op":"status"}{}\n{"op":"status"\n{"op":"sta\0tus"}\n{"op":3}\n{}\n\n{"op":"\xff\xfe"}\n'
		printf '{"op":"status"}\n'
		wait_for eval '[ $(wc -l <heard) = 13 ]'
	} | tls >heard
	[ "$(jq -c .ok heard | sort | uniq -c | tr -s ' \n' ' ')" = " 12 false 1 true " ]
	[ "$(tail -1 heard | jq .ok)" = true ]
	{ head -c 70000 /dev/zero | tr '\0' x; wait_for grep -q longer heard; } | tls >heard
	jq -e '.error | contains("longer than 65535")' heard
	ask '{"op":"status"}'
}

@test "a line at a time, and no answer in vain: ask fails with what went wrong" {
	agent
	must 5 vdagent ask --key key 127.0.0.1:1
	says "no vdagent listens there"
	must 2 vdagent ask --key key 'a:b'
	must 2 vdagent ask --key key "$HOST:99999"
	run vdagent ask --key key "$HOST" < <(head -c 70000 /dev/zero | tr '\0' x)
	[ "$status" = 5 ]
	says "longer than"
	# Who listens there is no vdagent
	timeout 60 openssl s_server -quiet -accept "$HOST:9999" -psk_identity vd -psk "$(tr 0-9a-f 1-9a-f0 <key)" -nocert -tls1_3 \
		</dev/null >/dev/null 2>&1 3>&- &
	wait_for eval "exec 9<>/dev/tcp/$HOST/9999"
	exec 9>&-
	must 5 vdagent ask --key key --timeout 10 "$HOST:9999"
	kill $!
}

@test "the secret of DH-HMAC-CHAP is as nvme-cli writes it" {
	need python3
	ok vdagent key key
	run python3 -c 'import base64,zlib,hmac,hashlib,sys
h = hmac.new(bytes.fromhex(open("key").read().strip()), b"vd dhchap host", hashlib.sha256).digest()
print("DHHC-1:01:" + base64.b64encode(h + zlib.crc32(h).to_bytes(4, "little")).decode() + ":")'
	[ "$(vdagent key --dhchap key)" = "$output" ]
	# And where no agent is; and then another request
	[ "$(vdagent ask --key key 127.0.0.1:1 <<<'{"op":"secret"}' | jq -r .secret)" = "$output" ]
	agent
	[ "$(printf '%s\n' '{"op":"status"}' '{"op":"secret"}' '{"op":"hello"}' | vdagent ask --key key "$HOST" | jq -c '[.ok, .secret != null, .drives != null]' | tr '\n' ' ')" = \
		"[true,false,true] [true,true,false] [true,false,false] " ]
	run vdagent ask --key key 127.0.0.1:1 <<<'{"op":"secret","op":"status"}'
	[ "$status" = 5 ]
}

@test "a signal ends it in order, with a connection open" {
	agent
	exec 8<>"/dev/tcp/$HOST/8653"
	kill $AGENT
	wait $AGENT
}
