#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
test_fresh.py [--seed N] [--runs N] [--seconds N]: pools made now, by random
operations and crashes (images.c) and by the commands, read by the engine and by
reader.py, which follows man/vd-format.5.  Both must find the same volumes, mappings,
contents and counts.

Without --seed a fresh one is taken; it is printed.  VD_TEST_SCALE (per cent) scales
the seconds.
"""
import argparse
import collections
import filecmp
import json
import os
import random
import time

from common import (IMAGES, Commands, Failed, Tap, differences, directory, engine_view, members, need, reader_view, run,
                    spoil)
import check
import disk
import reader


# ---- random pools ---------------------------------------------------------------

def spoilt(d, pool, rng):
    """One copy of a few nodes is overwritten: nothing may change in what is found."""
    twice = [(a, b) for a, b, _, _ in reader.nodes(pool) if b != disk.NONE]
    for a, b in rng.sample(twice, min(len(twice), 5)):
        spoil(members(d), rng.choice((a, b)), rng.randbytes(64), rng.randrange(4096 - 64))
    return bool(twice)


def or_refused(fn, *args):
    """A pool that began with one member has metadata of one copy: not all of it can be viewed without that."""
    try:
        return fn(*args)
    except (disk.Bad, Failed):
        return {"refused": True}


def one_pool(seed, d, seen):
    rng = random.Random(seed)
    engine = json.loads(run(IMAGES, "random", str(seed), d))
    pool = disk.Pool(members(d))
    found = reader.view(pool, bases=d)
    faults = differences(found, engine) + check.Check(disk.Pool(members(d))).run()
    seen.update("record " + disk.REC_NAME[r[1]] for r in disk.State(pool).records)
    seen.update(e[2] for v in found["volumes"] for e in v["extents"])
    seen["pools"] += 1
    seen["volumes"] += len(found["volumes"])
    then = rng.randrange(3)
    if not faults and then == 0 and spoilt(d, pool, rng):
        faults = ["with spoilt copies: " + f for f in
                  differences(reader_view(d, members(d)), engine) + differences(engine_view(members(d)), engine)]
        seen["pools with spoilt copies"] += 1
    if not faults and then == 1 and len(members(d)) > 1:
        paths = members(d)
        paths[rng.randrange(len(paths))] = "-"
        faults = ["with %s: %s" % (paths, f) for f in
                  differences(or_refused(reader_view, d, paths), or_refused(engine_view, paths))]
        seen["pools with a member missing"] += 1
    return faults


def random_pools(args):
    end = time.monotonic() + args.seconds
    seen, faults, n = collections.Counter(), [], 0
    while not faults and (n < args.runs if args.runs else n < 20 or time.monotonic() < end):
        seed = args.seed + n
        n += 1
        with directory() as d:
            try:
                faults = one_pool(seed, d, seen)
            except Exception as e:
                faults = ["%s: %s" % (type(e).__name__, e)]
            if faults:
                faults.insert(0, "again: test_fresh.py --seed %d --runs 1" % seed)
    print("# " + ", ".join("%s %d" % s for s in sorted(seen.items())))
    return faults


# ---- a pool made by the commands -------------------------------------------------

def write(uri, rng, size, n):
    command = []
    for _ in range(n):
        at, length = rng.randrange(size // 512) * 512, rng.randint(1, 64) * 512
        what = rng.choice(["write -P %d" % rng.randint(1, 255)] * 4 + ["discard", "write -z -u"])
        command += ["-c", "%s %d %d" % (what, at, min(length, size - at))]
    run("qemu-io", "-f", "raw", *command, "-c", "flush", uri)


def without_base_sums(view):
    """The engine's teller knows no base images but those of golden.c."""
    for v in view["volumes"]:
        v["extents"] = [e[:3] if e[2] == "base" else e for e in v["extents"]]
    return view


def compare(d, rows):
    """With what the server has listed and served."""
    pool = disk.Pool(members(d))
    state = disk.State(pool)
    faults = differences([{"name": v.rec.name, "id": v.rec.id, "size": v.rec.size, "mapped": v.mapped * 4096}
                          for _, v in sorted(state.vol.items()) if v.visible()], rows)
    for row in rows:
        reader.cat(pool, state.find(row["name"]), os.path.join(d, "ours"), d)
        if not filecmp.cmp(os.path.join(d, "served.%d" % row["id"]), os.path.join(d, "ours"), shallow=False):
            faults.append("%s: what nbdkit served is not what the reader finds" % row["name"])
    return faults + check.Check(pool).run() + \
        differences(without_base_sums(reader_view(d, members(d))), without_base_sums(engine_view(members(d))))


def by_commands(args):
    """Made, written through the server, which is then closed in order or killed."""
    need("qemu-io", "nbdkit", "nbdcopy")
    rng = random.Random(args.seed)
    with directory() as d:
        vd = Commands(d)
        vd("vdpool", "create", "p", "-L", "64m", *[os.path.join(d, "m%d" % i) for i in range(rng.randint(1, 3))])
        with open(os.path.join(d, "base"), "wb") as f:
            f.write(rng.randbytes(300000))
        size = {"a": 16 << 20, "b": 1 << 20, "c": 8 << 20}
        for v, bytes_ in size.items():
            vd("vdcreate", "p/" + v, "-L", "%db" % bytes_, *(["--base", os.path.join(d, "base")] if v == "c" else []))
        for turn in range(4):
            with vd.server("p") as uri:
                for i in range(2):
                    for v in size:
                        write(uri(v), rng, size[v], 12)
                    vd("vdsnap", "--group", "p/a", "p/c", "-n", "s%d%d" % (turn, i))
                size["c"] = 4096 * rng.randint(1, 2000)
                vd("vdresize", "-y", "p/c", "-L", "%db" % size["c"])
                if turn:
                    vd("vdrm", "-y", "p/%s@s%d0" % (rng.choice("ac"), turn - 1))
                write(uri("c"), rng, size["c"], 3)
                rows = vd.report("vdls", "p", "-o", "name,id,size,mapped")
                for row in rows:
                    run("nbdcopy", uri(row["name"]), os.path.join(d, "served.%d" % row["id"]))
                if turn % 2 == 0:
                    vd.kill()
            faults = compare(d, rows)
            if faults:
                return ["again: test_fresh.py --seed %d --runs 1; turn %d" % (args.seed, turn)] + faults
    return []


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", type=int)
    ap.add_argument("--runs", type=int)
    ap.add_argument("--seconds", type=float)
    args = ap.parse_args()
    if args.seed is None:
        args.seed = random.SystemRandom().randrange(1 << 48)
    if args.seconds is None:
        args.seconds = 25 * float(os.environ.get("VD_TEST_SCALE") or 100) / 100
    print("# seed %d" % args.seed)
    tap = Tap()
    tap.test("random pools are read alike by the engine and the reader", random_pools, args)
    tap.test("a pool of the commands is read alike by the server and the reader", by_commands, args)
    tap.end()


main()
