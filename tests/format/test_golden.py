#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
The pools of golden/, which earlier versions have written, as two readers and the
commands of today see them: reader.py, which follows man/vd-format.5, and the engine.
Both must say what NAME.json says, with members missing and copies spoilt too.
"""
import filecmp
import glob
import itertools
import json
import os
import shutil

from common import (GOLDEN, Commands, Tap, copy_of, differences, directory, engine_view, members, need, reader_view,
                    run, spoil, unpack)
import check
import disk
import reader


def by_reader(d, want):
    pool = disk.Pool(members(d))
    return differences(reader.view(pool, bases=d), want) + check.Check(disk.Pool(members(d))).run()


def by_engine(d, want):
    return differences(engine_view(members(d)), want)


def without_sums(view):
    """What can be told without a member that has data."""
    out = json.loads(json.dumps(view))
    for m in out["pool"]["members"]:
        m["missing"] = False
    for v in out["volumes"]:
        for e in v["extents"]:
            if e[2] == "data":
                e[4] = None
    return out


def without_a_member(d, want):
    faults = []
    for gone in range(len(members(d))):
        paths = ["-" if i == gone else p for i, p in enumerate(members(d))]
        r, e = reader_view(d, paths), engine_view(paths)
        faults += ["without %d: %s" % (gone, f) for f in
                   differences(r, e) + differences(without_sums(r), without_sums(want)) +
                   ([] if r["pool"]["members"][gone]["missing"] else ["it is not told to be missing"])]
        for v, w in zip(r["volumes"], want["volumes"]):
            for x, y in zip(v["extents"], w["extents"]):
                there = x[2] != "data" or int(x[3].split(":")[0]) != gone
                if there and x != y:
                    faults.append("without %d: %s: extent %s, not %s" % (gone, v["name"], x, y))
    return faults


def with_spoilt_copies(d, want):
    """Of each node one copy, and one of a member's superblocks."""
    faults = []
    pool = disk.Pool(members(d))
    for keep in range(2):
        c = copy_of(d, "spoilt%d" % keep)
        for a, b, _, _ in reader.nodes(pool):
            spoil(members(c), a if keep else b)
        # Without the newest a member is one generation behind, and used if no opening is between.
        newest = all(s.incarnation == pool.super.incarnation for s in pool.member[keep].slots)
        spoil(members(c), keep << 40 | (4 if (pool.super.generation % 2 == 0) == newest else 8))
        faults += differences(reader_view(c, members(c)), want) + differences(engine_view(members(c)), want)
    return faults


def family_pairs(want):
    for a, b in itertools.combinations(want["volumes"], 2):
        if a["family"] == b["family"]:
            yield a, b


def blocks_of(volume):
    """{block: (kind, address)} of all that is mapped."""
    out = {}
    for v, n, kind, *rest in volume["extents"]:
        if kind in ("data", "zero"):
            p = reader_address(rest[0]) if kind == "data" else 0
            out.update((v + i, (kind, p + i if p else 0)) for i in range(n))
    return out


def reader_address(text):
    m, b = text.split(":")
    return int(m) << 40 | int(b)


def diff_faults(vd, a, b):
    """vddiff lists what is mapped differently, and nothing that is mapped alike."""
    listed = set()
    for line in vd("vddiff", "golden/" + a["name"], b["name"]).splitlines():
        off, n = map(int, line.split())
        listed.update(range(off // 4096, (off + n) // 4096))
    x, y = blocks_of(a), blocks_of(b)
    differ = {v for v in set(x) | set(y) if x.get(v) != y.get(v)}
    gap = "base" if a["base"] else "hole"
    only_zero = {v for v in differ if {m.get(v, (gap,))[0] for m in (x, y)} == {"zero", "hole"}}     # reads the same
    end = min(a["size"], b["size"]) // 4096      # past it there may be more of ZERO in the trees
    alike = sorted(v for v in listed - differ if v < end)
    out = []
    if alike:
        out.append("%s, %s: listed but alike: %s" % (a["name"], b["name"], alike[:8]))
    if differ - listed - only_zero:
        missed = sorted(differ - listed - only_zero)
        out.append("%s, %s: different but not listed: %s" % (a["name"], b["name"], missed[:8]))
    return out


def by_commands(d, want):
    vd = Commands(d, members(d))
    vd("vdpool", "check", "golden")
    rows = vd.report("vdls", "golden", "-o",
                     "name,id,size,mapped,origin,family,base,uuid,readonly,locked,opened_as,mount,attrs")
    names = {v["id"]: v["name"] for v in want["volumes"]}
    told = []
    for v in want["volumes"]:
        told.append({"name": v["name"], "id": v["id"], "size": v["size"], "mapped": v["mapped"] * 4096,
                     "origin": names.get(v["origin"]), "family": v["family"], "base": v["base"] or None,
                     "uuid": reader_uuid(v["uuid"]), "readonly": bool(v["flags"] & disk.READONLY),
                     "locked": bool(v["flags"] & disk.LOCKED),
                     "opened_as": ",".join(p["opened_as"] for p in v["pointers"]),
                     "mount": ",".join(p["mount"] for p in v["pointers"] if p["mount"]),
                     "attrs": dict(line.split("=", 1) for line in v["attrs"].splitlines())})
    faults = differences(rows, told)
    for a, b in family_pairs(want):
        faults += diff_faults(vd, a, b)
    return faults


def reader_uuid(h):
    return "-".join((h[:8], h[8:12], h[12:16], h[16:20], h[20:]))


def served(d, want):
    """The contents of each volume, by nbdkit and by the reader."""
    need("nbdkit", "nbdcopy")
    faults = []
    vd = Commands(d, members(d))
    pool = disk.Pool(members(d))
    state = disk.State(pool)
    with vd.server("golden", "readonly=true") as uri:
        for v in want["volumes"]:
            if v["size"] > 1 << 30 or v["flags"] & disk.LOCKED:
                continue
            theirs, ours = os.path.join(d, "theirs"), os.path.join(d, "ours")
            run("nbdcopy", uri(v["name"]), theirs)
            reader.cat(pool, state.find(v["name"]), ours, d)
            if not filecmp.cmp(theirs, ours, shallow=False):
                faults.append("%s: what nbdkit serves is not what the reader finds" % v["name"])
            os.unlink(theirs)
            os.unlink(ours)
    return faults


def taken_over(d, want):
    """Opened for writing and written by today's engine, it still holds what it held."""
    c = copy_of(d, "written")
    vd = Commands(c, members(c))
    vd("vdpool", "set", "--takeover", "--thresholds", "10,20", "golden")
    vd("vdcreate", "--takeover", "golden/new", "-L", "1m")
    vd("vdpool", "check", "golden")
    r, e = reader_view(c, members(c)), engine_view(members(c))
    faults = differences(r, e) + check.Check(disk.Pool(members(c))).run()
    new = r["volumes"].pop()
    if new["name"] != "new" or r["pool"]["thresholds"] != [100, 200, 0, 0]:
        faults.append("what was written is not there: %s, %s" % (new["name"], r["pool"]["thresholds"]))
    for v, w in itertools.zip_longest(r["volumes"], want["volumes"], fillvalue={}):
        w = dict(w, last_snapshot=v.get("last_snapshot"))   # 0 when nobody shares with it any more
        faults += differences(v, w, w.get("name", "?"))
    return faults


def left_out(c, old, faults):
    """The member put back from before is missing for both."""
    r, e = reader_view(c, members(c)), engine_view(members(c))
    faults += differences(r, e)
    if [m["missing"] for m in r["pool"]["members"]] != [i == old for i in range(len(members(c)))]:
        faults.append("a stale member %d is taken for one" % old)
    return [v["name"] for v in r["volumes"]]


def stale(d, want):
    """A member that comes back from before an opening is missing: many generations behind, and
    one only, when nothing but the owner records of the others tells of that opening."""
    faults = []
    for old in range(len(members(d))):
        c = copy_of(d, "stale%d" % old)
        vd = Commands(c, members(c))
        vd("vdcreate", "--takeover", "golden/new", "-L", "1m")
        before = copy_of(c, "before")
        shutil.copy(members(d)[old], members(c)[old])
        if "new" not in left_out(c, old, faults):
            faults.append("with a stale member %d the new volume is not found" % old)
        shutil.copy(members(before)[old], members(c)[old])
        with vd.server("golden"):
            vd.kill()
        if disk.Pool(members(c)).super.generation != disk.Pool(members(before)).super.generation + 1:
            faults.append("an opening was more than one generation")
        shutil.copy(members(before)[old], members(c)[old])
        left_out(c, old, faults)
    return faults


def main():
    tap = Tap()
    for path in sorted(glob.glob(os.path.join(GOLDEN, "*.tar.xz"))):
        name = os.path.basename(path)[:-7]
        with open(path[:-7] + ".json") as f:
            want = json.load(f)
        with directory() as top:
            unpack(name, top)
            tests = [("the reader finds what was written", by_reader), ("the engine finds what was written", by_engine),
                     ("check, vdls and vddiff agree", by_commands), ("the contents are served", served),
                     ("it is taken over, written and still whole", taken_over)]
            if len(members(top)) > 1:
                tests += [("each member may be missing", without_a_member), ("a stale member is left out", stale),
                          ("one copy of each node is enough", with_spoilt_copies)]
            for what, fn in tests:
                tap.test("%s: %s" % (name, what), fn, copy_of(top, fn.__name__), want)
    tap.test("there are golden images", lambda: [] if tap.n > 6 else ["none in " + GOLDEN])
    tap.end()


main()
