#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
pack.py NAME...: makes pools of golden.c and puts them into golden/, NAME.tar.xz
with the members and NAME.json with what is in them.  For new ones only: a pool that
is there stays as it was written, since it stands for the disks of users.
"""
import io
import json
import lzma
import os
import sys
import tarfile

from common import GOLDEN, IMAGES, differences, directory, members, run
import check
import disk
import reader


def pack(name):
    out = os.path.join(GOLDEN, name)
    if os.path.exists(out + ".tar.xz"):
        return "golden/%s.tar.xz is there already" % name
    with directory() as d:
        engine = json.loads(run(IMAGES, "golden", name, d))
        pool = disk.Pool(members(d))
        view = reader.view(pool, bases=d)
        faults = differences(engine, view) + check.Check(disk.Pool(members(d))).run()
        if faults:
            return "%s: %s" % (name, "; ".join(faults[:5]))
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as t:
            for f in sorted(os.listdir(d)):
                i = tarfile.TarInfo(f)
                i.size = os.path.getsize(os.path.join(d, f))
                with open(os.path.join(d, f), "rb") as data:
                    t.addfile(i, data)
    with open(out + ".tar.xz", "wb") as f:
        f.write(lzma.compress(tar.getvalue(), preset=9 | lzma.PRESET_EXTREME))
    with open(out + ".json", "w") as f:
        f.write(reader.canonical(view) + "\n")
    return None


os.makedirs(GOLDEN, exist_ok=True)
said = [s for s in map(pack, sys.argv[1:]) if s]
for line in said:
    print("pack.py: " + line, file=sys.stderr)
sys.exit(bool(said))
