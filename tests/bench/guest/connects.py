# SPDX-License-Identifier: GPL-2.0-only
"""In the server of links.sh, by hand: does what it is told over TCP, and says when it is done.  connects.py SECRET"""
import os
import socket
import subprocess
import sys

DISK = '/dev/disk/by-id/nvme-uuid.6c7d1d4e-0b5c-4d0a-9c5d-1a2b3c4d5e6f'
HOST = '22222222-2222-3333-4444-555555555555'
DEEDS = {
    'connect': [f'nvme connect -t tcp -a 10.0.0.1 -s 4421 -n hand -q nqn.2014-08.org.nvmexpress:uuid:{HOST} -I {HOST} -S {sys.argv[1]}',
                f'udevadm wait --timeout=60 {DISK}', f'systemd-mount -q --fsck=no --collect {DISK} /mnt/hand'],
    'disconnect': ['systemd-umount -q /mnt/hand', 'nvme disconnect -n hand'],
    'settle': ['udevadm settle'],
}

os.makedirs('/mnt/hand', exist_ok=True)
with socket.create_server(('0.0.0.0', 9999)) as server:
    while True:
        with server.accept()[0] as peer, peer.makefile('rw') as line:
            deed = line.readline().strip()
            for command in DEEDS[deed]:
                subprocess.run(command.split(), check=True)
            print('done', file=line, flush=True)
