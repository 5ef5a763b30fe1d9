#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""qmp.py SOCKET {COMMAND ARGUMENTS}...: commands to QEMU in one conversation; "wait EVENT" waits for one."""
import json
import socket
import sys

with socket.socket(socket.AF_UNIX) as s:
    s.connect(sys.argv[1])
    f = s.makefile('rw')
    f.readline()
    events = []

    def call(what):
        print(json.dumps(what), file=f, flush=True)
        while 'event' in (said := json.loads(f.readline())):
            events.append(said['event'])
        if 'error' in said:
            sys.exit(said['error']['desc'])

    call({'execute': 'qmp_capabilities'})
    for command, arguments in zip(sys.argv[2::2], sys.argv[3::2]):
        if command != 'wait':
            call({'execute': command, 'arguments': json.loads(arguments)})
        while command == 'wait' and arguments not in events:
            events.append(json.loads(f.readline()).get('event'))
