#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""replay.py LOG            lists what dm-log-writes logged: number, flags, mark
replay.py LOG IMAGE A B   does entries A .. B-1 to the image

Layout (Documentation/admin-guide/device-mapper/log-writes): a block with magic,
version, number of entries, block size; then entries: a block with sector, length in
sectors, flags, length of a mark's text; the text in the same block; then the data."""
import struct
import sys

FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def entries(log):
    magic, version, count, size = struct.unpack("<QQQI", log.read(28))
    if magic != 0x6a736677736872:
        sys.exit("no log of dm-log-writes")
    at = size
    for number in range(count):
        log.seek(at)
        head = log.read(size)
        sector, length, flags, text = struct.unpack_from("<QQQQ", head)
        at += size
        yield number, sector, length, flags, head[32:32 + text].rstrip(b"\0").decode() if flags & MARK else "", at
        if not flags & (DISCARD | MARK):
            at += length * 512


def main():
    with open(sys.argv[1], "rb") as log:
        if len(sys.argv) == 2:
            for number, _, length, flags, text, _ in entries(log):
                what = [w for f, w in ((FLUSH, "flush"), (FUA, "fua"), (DISCARD, "discard"), (MARK, "mark")) if flags & f]
                print(number, "+".join(what) or "write", text or length)
            return
        first, end = int(sys.argv[3]), int(sys.argv[4])
        with open(sys.argv[2], "r+b") as image:
            for number, sector, length, flags, _, at in entries(log):
                if number >= end:
                    break
                if number < first or flags & MARK or not length:
                    continue
                image.seek(sector * 512)
                if flags & DISCARD:
                    image.write(bytes(length * 512))
                else:
                    log.seek(at)
                    image.write(log.read(length * 512))


main()
