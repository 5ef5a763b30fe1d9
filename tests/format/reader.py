#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
Another reader of the on-disk format, written from man/vd-format.5: see disk.py.
It never writes to a pool.

  reader.py view MEMBER...                      all that is compared with the engine, as JSON
  reader.py cat -V VOLUME [-o FILE] MEMBER...   the contents of a volume
  reader.py journal MEMBER...                   the records that are replayed
  reader.py nodes MEMBER...                     addresses of all nodes of the last checkpoint
  reader.py check MEMBER...                     looks at everything; status 1: faults

  --no-replay   the last checkpoint only
  --bases DIR   where base images are whose names are not absolute

Members may be missing.  A view has the pool's facts; each volume with its extents,
[first block, blocks, kind, address, CRC-32 of the contents], the last two for what
has them (the sum is null if a member is missing that it needs); and the reference
counts of blocks, [address, blocks, count].
"""
import argparse
import json
import os
import sys
import zlib

from check import Check, merged
from disk import (BASE, BLOCK, DATA, EXTENTS, HAS_BASE, HOLE, KIND_NAME, NONE, REC_NAME, SPACE, VOLUME, VOLUME_REC, Bad,
                  Pool, Record, State, p_text, walk)


def runs_of(vol):
    """(first block, blocks, kind, address) from 0 to the volume's end, no gaps."""
    at, end = 0, vol.rec.size // BLOCK
    gap = BASE if vol.rec.flags & HAS_BASE else HOLE
    for e in vol.map.extents(0, end):
        if e.v > at:
            yield at, e.v - at, gap, 0
        yield e.v, e.len, e.kind, e.p
        at = e.v + e.len
    if at < end:
        yield at, end - at, gap, 0


def joined(runs):
    last = None
    for v, n, kind, p in runs:
        if last and last[2] == kind and (kind != DATA or last[3] + last[1] == p):
            last = (last[0], last[1] + n, kind, last[3])
            continue
        if last:
            yield last
        last = (v, n, kind, p)
    if last:
        yield last


class Contents:
    """Of a volume, where its mapping says DATA or BASE."""

    def __init__(self, pool, vol, bases):
        self.pool, self.base, self.base_end = pool, None, 0
        if vol.rec.flags & HAS_BASE:
            self.base = os.open(os.path.join(bases, vol.rec.base), os.O_RDONLY)
            self.base_end = os.fstat(self.base).st_size

    def close(self):
        if self.base is not None:
            os.close(self.base)

    def pieces(self, v, n, kind, p):
        """What there is, in order; of a base image as far as that goes."""
        for i in range(0, n, 256):
            m = min(256, n - i)
            if kind == DATA:
                yield self.pool.blocks(p + i, m)
                continue
            data = os.pread(self.base, m * BLOCK, (v + i) * BLOCK) if (v + i) * BLOCK < self.base_end else b""
            if not data:
                break
            yield data

    def sum(self, v, n, kind, p):
        crc = 0
        try:
            for piece in self.pieces(v, n, kind, p):
                crc = zlib.crc32(piece, crc)
        except Bad:
            return None
        return "%08x" % crc


def view_of_extents(pool, vol, bases):
    contents, out = Contents(pool, vol, bases), []
    for v, n, kind, p in joined(runs_of(vol)):
        out.append([v, n, KIND_NAME[kind]] + ([p_text(p)] if kind == DATA else []) +
                   ([contents.sum(v, n, kind, p)] if kind in (DATA, BASE) else []))
    contents.close()
    return out


def view_of_volume(pool, vol, bases):
    r = vol.rec
    return {"id": r.id, "name": r.name, "uuid": r.uuid.hex(), "flags": r.flags, "size": r.size, "mapped": vol.mapped,
            "last_snapshot": vol.last_snapshot, "family": r.family, "origin": r.origin, "created": r.created,
            "base": r.base, "attrs": r.attrs, "lock": r.lock, "pointers": r.pointers,
            "extents": view_of_extents(pool, vol, bases)}


def view(pool, replay=True, bases="."):
    s, state = pool.super, State(pool, replay)
    check = Check(pool)
    counts = merged(check.space())
    faults = state.faults + check.faults[len(pool.gone):]
    if faults:
        raise Bad(faults[0])
    servers = [{"id": v.rec.id, "name": v.rec.name[1:], "uuid": v.rec.uuid.hex(), "created": v.rec.created, "attrs": v.rec.attrs}
               for _, v in sorted(state.vol.items()) if v.is_server()]
    seq = max([s.seq] + [r[0] for r in state.records])
    return {**({"servers": servers} if servers else {}),
            "pool": {"name": s.name, "uuid": s.pool.hex(), "generation": s.generation, "incarnation": s.incarnation,
                     "epoch": state.epoch, "seq": seq, "sector_size": s.sector_size, "created": s.created,
                     "policy": s.policy, "thresholds": list(s.threshold), "blocks": s.total_blocks,
                     "meta_blocks": s.meta_blocks, "reserve_blocks": s.reserve_blocks,
                     "journal_blocks": s.journal_blocks,
                     "members": [{"uuid": u.hex(), "blocks": b, "missing": not pool.member[i]}
                                 for i, (u, b, _) in enumerate(s.member)]},
            "volumes": [view_of_volume(pool, v, bases) for _, v in sorted(state.vol.items()) if v.visible()],
            "counts": [[p_text(first), end - first, count] for first, end, count in counts]}


def canonical(what):
    """JSON, a volume's extents and other such lists a line each."""
    if isinstance(what, dict):
        return "{%s}" % ", ".join("%s: %s" % (json.dumps(k), canonical(v)) for k, v in sorted(what.items()))
    if isinstance(what, list) and what and isinstance(what[0], (list, dict)):
        return "[\n%s]" % ",\n".join(canonical(v) for v in what)
    return json.dumps(what)


def cat(pool, vol, output, bases):
    contents = Contents(pool, vol, bases)
    if output:
        out = open(output, "wb")
        out.truncate(vol.rec.size)
    for v, n, kind, p in runs_of(vol):
        if output:
            out.seek(v * BLOCK)
        left = n * BLOCK
        for piece in contents.pieces(v, n, kind, p) if kind in (DATA, BASE) else ():
            (out if output else sys.stdout.buffer).write(piece[:left])
            left -= len(piece)
        while not output and left:
            left -= sys.stdout.buffer.write(bytes(min(left, 256 * BLOCK)))
    contents.close()
    if output:
        out.close()


def nodes(pool):
    """(address, address of the copy or NONE, kind, level) of each node of the last checkpoint."""
    found = {}

    def see(ptr, n):
        new = ptr not in found
        found[ptr] = n
        return new

    s = pool.super
    for root, kind in (s.space, SPACE), (s.index, EXTENTS), (s.volumes, VOLUME):
        for _, _, _, page in walk(pool, root, kind, fn=see):
            if kind == VOLUME:
                for _ in walk(pool, Record(page.data).root, EXTENTS, fn=see):
                    pass
    return [(n.a, n.b, n.kind, n.level) for n in found.values()]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=["view", "cat", "journal", "nodes", "check"])
    ap.add_argument("member", nargs="+")
    ap.add_argument("-V", "--volume")
    ap.add_argument("-o", "--output")
    ap.add_argument("--bases", default=".")
    ap.add_argument("--no-replay", action="store_true")
    args = ap.parse_args()
    if args.what == "cat" and not args.volume:
        ap.error("which volume?")
    try:
        pool = Pool(args.member)
        if args.what == "view":
            print(canonical(view(pool, not args.no_replay, args.bases)))
        elif args.what == "cat":
            cat(pool, State(pool, not args.no_replay).find(args.volume), args.output, args.bases)
        elif args.what == "journal":
            for seq, kind, volume, d in State(pool).records:
                print(seq, REC_NAME[kind], volume, d[8:].hex() if kind != VOLUME_REC else "")
        elif args.what == "nodes":
            for a, b, kind, level in nodes(pool):
                print(p_text(a), p_text(b) if b != NONE else "-", kind, level)
        else:
            faults = Check(pool).run()
            for f in faults:
                print(f)
            return 1 if faults else 0
    except Bad as e:
        print("reader.py: %s" % e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
