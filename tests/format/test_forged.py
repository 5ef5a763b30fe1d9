#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
Golden images with superblocks and journal blocks that were written wrong, their
checksums right: what vd-format(5) has a reader refuse, the engine and reader.py both
refuse; what it has a reader pass over, both pass over.
"""
import json
import os
import shutil
import struct

from common import (GOLDEN, Commands, Failed, Tap, copy_of, differences, directory, engine_view, members, patch, reader_view,
                    unpack)
import disk
import reader

# ---- superblocks ----------------------------------------------------------------

REFUSED = [("version", 12, "<I", 2), ("incompat", 32, "<Q", 2), ("end of the name", 56 + 127, "<B", 65),
           ("generation", 184, "<Q", (1 << 62) + 1), ("incarnation", 192, "<Q", (1 << 62) + 1),
           ("epoch", 200, "<Q", (1 << 62) + 1), ("seq", 208, "<Q", 1 << 62), ("next_volume", 216, "<Q", (1 << 32) + 1),
           ("total_blocks", 224, "<Q", 2305), ("used_blocks", 232, "<Q", 2305), ("sector_size", 248, "<I", 1024),
           ("nmembers 0", 252, "<I", 0), ("nmembers 257", 252, "<I", 257), ("height of space", 288, "<B", 12),
           ("height of volumes", 328, "<B", 12), ("height of index", 368, "<B", 12), ("journal_start", 376, "<Q", 15),
           ("journal_start at the end", 376, "<Q", 2304 - 63), ("journal_blocks", 384, "<Q", 63),
           ("journal_member", 392, "<I", 1), ("the same journal_member twice", 396, "<I", 0),
           ("journal_tail", 400, "<Q", 1 << 62), ("nsegments", 412, "<I", 9), ("a segment", 424, "<Q", 1 << 40),
           ("reserve_blocks", 568, "<Q", 2305), ("size of a member", 4096 + 16, "<Q", 2047)]
IGNORED = [("compat", 16, "<Q", 1 << 63), ("ro_compat", 24, "<Q", 1), ("zero of a root", 289, "<B", 9),
           ("grow_to", 600, "<Q", 7), ("suspect", 608, "<Q", 7), ("transaction", 632, "<Q", 7),
           ("pad", 640, "<Q", 7)]


def both(d):
    """What the two find; None: refused."""
    out = []
    for look in lambda: reader_view(d, members(d)), lambda: engine_view(members(d)):
        try:
            out.append(look())
        except disk.Bad:
            out.append(None)
        except Failed as e:
            if ": error -" not in str(e) and "but is damaged" not in str(e):
                raise
            out.append(None)
    return out


def refused_by_both(d, what):
    return ["%s: not refused by the %s" % (what, who) for view, who in zip(both(d), ("reader", "engine")) if view]


def found_by_both(d, what, want):
    return ["%s: the %s: %s" % (what, who, f) for view, who in zip(both(d), ("reader", "engine"))
            for f in (differences(view, want) if view else ["refuses it"])]


def superblocks(d, want, table, refused):
    faults, original = [], copy_of(d, "original")
    for what, at, form, value in table:
        shutil.copy(members(original)[0], members(d)[0])
        for block in 4, 8:
            patch(members(d)[0], block, 4, 8, at, struct.pack(form, value))
        faults += refused_by_both(d, what) if refused else found_by_both(d, what, want)
    return faults


def newest_only(d, want):
    faults, original = [], copy_of(d, "original")
    with open(members(original)[0], "rb") as f:
        f.seek(4 * disk.BLOCK)
        even = disk.u64(f.read(8 * disk.BLOCK), 184)
        f.seek(8 * disk.BLOCK)
        odd = disk.u64(f.read(8 * disk.BLOCK), 184)
    newest, other = (4, 8) if even > odd else (8, 4)
    for what, at, form, value in REFUSED[:2]:
        for block, refused in (newest, True), (other, False):
            shutil.copy(members(original)[0], members(d)[0])
            patch(members(d)[0], block, 4, 8, at, struct.pack(form, value))
            what_here = "%s in the %s slot" % (what, "newest" if refused else "older")
            faults += refused_by_both(d, what_here) if refused else found_by_both(d, what_here, want)
    return faults


def read_only_feature(d, want):
    """An ro_compat flag that is not known, in both slots: it is read, said to be read-only, and not written."""
    for block in 4, 8:
        patch(members(d)[0], block, 4, 8, 24, struct.pack("<Q", 1 << 40))
    with open(members(d)[0], "rb") as f:
        before = f.read()
    c, name = Commands(d, members(d)[:1]), want["pool"]["name"]
    faults = found_by_both(d, "an ro_compat flag", want)
    shown = json.loads(c("vdpool", "show", name, "--reportformat", "json"))["report"][0]["pool"][0]
    if shown["mode"] != "read-only" or not shown["read_only_feature"]:
        faults.append("mode %s" % shown["mode"])
    if "of vd gave it a feature" not in c("vdpool", "show", name):
        faults.append("why it is read-only is not said")
    c("vdcreate", name + "/x", "-L", "1m", status=5)
    c("vdpool", "check", "--repair", name, status=5)
    c("vdpool", "check", name)
    with open(members(d)[0], "rb") as f:
        if f.read() != before:
            faults.append("it was written")
    return faults


# ---- nodes ----------------------------------------------------------------------

# Of the image `single`: (what, offset, new bytes), from the node that is there.
def forged_nodes(n):
    def field(form, at):
        return struct.unpack_from(form, n.data, at)[0]

    def number(what, form, at, value):
        return what, at, struct.pack(form, value)

    yield number("of another pool", "<Q", 8, field("<Q", 8) + 1)
    yield number("of another address", "<Q", 16, n.a + 1)
    yield number("of another second address", "<Q", 24, 17)
    yield number("of another generation", "<Q", 32, n.gen - 1)
    yield number("of another kind", "<B", 40, n.kind % 4 + 1)
    yield number("of another level", "<B", 41, n.level + 1)
    if n.kind in (disk.INDEX, disk.EXTENTS):
        yield number("an empty range", "<Q", 56, n.lo)
        if n.owner: # else the parent's goes as far as numbers do
            yield number("a range beyond that of the parent", "<Q", 56, (1 << 51) + 1)
    if n.kind == disk.INDEX:
        yield number("no entries", "<H", 42, 0)
        yield number("more entries than there is room for", "<H", 42, 127)
        yield number("a key below the range", "<Q", 48, field("<Q", 64) + 1)
        yield number("a key above the range", "<Q", 56, field("<Q", 64 + 32 * (n.count - 1)))
        yield number("a child that is younger", "<Q", 72, n.gen + 1)
        yield number("a child among the system blocks", "<I", 80, 15)
        yield number("a child beyond the end", "<I", 80, 2304)
        yield number("a child on no member", "<H", 88, 1 << 8)
        yield "a second copy beyond the end", 80, struct.pack("<IIHH", field("<I", 80), 2304, 0, 0)
        if n.count > 1:
            yield number("keys that do not ascend", "<Q", 96, field("<Q", 64))
    if n.kind == disk.EXTENTS:
        yield number("more extents than there is room for", "<H", 42, 245)
        yield number("an extent below the range", "<Q", 48, (field("<Q", 192) & (1 << 52) - 1) + 1)
        yield number("an extent beyond the range", "<Q", 56, field("<Q", 192 + 16 * (n.count - 1)) & (1 << 52) - 1)
        for kind in 0, 3:
            yield number("an extent of kind %d" % kind, "<B", 199, kind)
        yield number("bit 58", "<B", 199, 5)
        if n.count > 1:
            yield number("extents that overlap", "<Q", 208, field("<Q", 192))
    if n.kind == disk.SPACE:
        yield number("counts of 4 bits", "<I", 64, 4)
        yield number("8191 blocks", "<I", 68, 8191)
        yield number("31 bits for 8192 blocks", "<I", 64, 31)
    if n.kind == disk.VOLUME:
        yield number("another number", "<I", 64, 77)
        yield number("number 0", "<I", 64, 0)
        yield "a name without an end", 88, b"a" * 128
        yield "no name", 88, bytes(128)
        yield "a name with a slash", 88, b"/"
        yield "PENDING and DELETING", 68, b"\x0c"
        yield number("SERVER with a volume's name and size", "<I", 68, disk.SERVER)
        yield number("half a block of size", "<Q", 216, 2048)
        yield number("a size above 2^63", "<Q", 216, (1 << 63) + 4096)
        yield number("a root 12 high", "<B", 264, 12)
        yield number("five pointers", "<I", 464, 5)
        yield number("769 bytes of attributes", "<I", 468, 769)
        yield "a base image without an end", 2392, b"b" * 512


def nodes(d, want):
    """One node of each kind and level at a time."""
    original, faults, seen = copy_of(d, "original"), [], set()
    pool = disk.Pool(members(original))
    for a, b, kind, level in reader.nodes(pool):
        n = next(n for n in pool.cache.values() if n.a == a)
        shape = kind, level, n.owner > 0, n.count > 1
        if shape in seen or (kind == disk.EXTENTS and not n.owner):     # the index, which the reader does not need
            continue
        seen.add(shape)
        for what, at, value in forged_nodes(n):
            shutil.copy(members(original)[0], members(d)[0])
            patch(members(d)[0], a, 1, 4, at, value)
            faults += refused_by_both(d, "kind %d, level %d: %s" % (kind, level, what))
    shutil.copy(members(original)[0], members(d)[0])
    return faults + found_by_both(d, "nothing forged", want) + ([] if len(seen) > 5 else ["only %s looked at" % seen])


# ---- journals -------------------------------------------------------------------

class Forger:
    """Appends to the chain of the image `journal`; knows where it ends."""

    def __init__(self, d):
        self.d, self.pool = d, disk.Pool(members(d))
        self.journal, s = disk.Journal(self.pool), self.pool.super
        self.end, self.start, self.blocks = self.journal.chain(False)[0], s.journal_start, s.journal_blocks
        self.last = self.journal.candidates(self.end - 1, self.prev_of(self.end - 1))[0]
        self.seq = self.last.last + 1
        self.inc = self.journal.incarnation(self.end)

    def place(self, number):
        return (self.start + number % self.blocks) * disk.BLOCK

    def prev_of(self, number):
        with open(members(self.d)[0], "rb") as f:
            f.seek(self.place(number))
            return struct.unpack_from("<I", f.read(40), 32)[0]

    def write(self, payload, number=None, copies=(0, 1), prev=None, inc=None, flags=3, first=None, last=None,
              size=None):
        """One block; its checksum."""
        number = self.end if number is None else number
        first = self.seq if first is None else first
        b = bytearray(struct.pack("<IIQQQ", 0x4e4c4a76, 0, self.pool.number, inc or self.inc, number))
        b += struct.pack("<IHH", self.last.crc if prev is None else prev, flags, len(payload) if size is None else size)
        b += struct.pack("<QQ", first, first if last is None else last) + payload
        b += bytes(disk.BLOCK - len(b))
        crc = disk.crc32c(bytes(b))
        b[4:8] = struct.pack("<I", crc)
        for m in copies:
            with open(members(self.d)[m], "r+b") as f:
                f.seek(self.place(number))
                f.write(b)
        return crc


def rec(kind, volume, body=b"", size=None):
    return struct.pack("<HHI", kind, 8 + len(body) if size is None else size, volume) + body


def unmap(volume, v, n=1, freed=0, kind=0):
    return rec(disk.UNMAP, volume, struct.pack("<3QII", v, n, freed, kind, 0))


def to(volume, v, p, n=1, fresh=1):
    return rec(disk.MAP, volume, struct.pack("<3Q", v, p | n - 1 << 48, fresh))


def pairs(kind, volume, epoch, *pair, n=None):
    return rec(kind, volume, struct.pack("<QII", epoch, len(pair) if n is None else n, 0) +
               b"".join(struct.pack("<II", *p) for p in pair))


def record_of(state, number, at=None, value=b"", of=None):
    """A VOLUME record: that volume as it is, with some bytes of its page replaced."""
    page = bytearray(4096)
    r = state.vol[number].rec
    struct.pack_into("<II", page, 64, number, r.flags)
    page[88:88 + len(r.name)] = r.name.encode()
    struct.pack_into("<Q", page, 216, r.size)
    if at is not None:
        page[at:at + len(value)] = value
    return rec(disk.VOLUME_REC, of or number, bytes(page[64:600]))


class Cast:
    """Volumes of the image `journal` that records are about."""

    def __init__(self, state):
        def first(which):
            return next(k for k, v in sorted(state.vol.items()) if which(v.rec))

        self.state, self.epoch, self.hole, self.new = state, state.epoch, 200, state.next_volume
        self.one, self.two = first(lambda r: r.name == "one"), first(lambda r: r.name == "another-name")
        self.dying, self.waiting = first(lambda r: r.flags & disk.DELETING), first(lambda r: r.flags & disk.PENDING)

    def birth(self, flags, name=b"born"):
        """A VOLUME record for a volume that there is not."""
        head = struct.pack("<II", self.new, flags) + bytes(16) + name + bytes(8)
        if flags & disk.SERVER:
            head += bytes(216 - 64 - len(head) + 8)     # and no size
        return record_of(self.state, self.one, 64, head, self.new)


def right_records(c):
    """What the forged ones would be if nothing were wrong with them."""
    yield "MAP", to(c.one, c.hole, 2000)
    yield "UNMAP", unmap(c.one, c.hole)
    yield "VOLUME", record_of(c.state, c.one)
    yield "VOLUME, new", c.birth(0)
    yield "VOLUME, SNAP", c.birth(disk.PENDING), pairs(disk.SNAP, 0, c.epoch + 1, (c.one, c.new))
    yield ("VOLUME, SNAP, VALID", c.birth(disk.PENDING), pairs(disk.SNAP, 0, c.epoch + 1, (c.one, c.new)),
           pairs(disk.VALID, 0, c.epoch + 1, (c.one, c.new)))
    yield "DELETE", rec(disk.DELETE, c.one)
    yield "VOLUME of a server", of_a_server(c)
    yield "VOLUME of a server, VOLUME again", of_a_server(c), of_a_server(c, name=b".guest")
    yield "VOLUME of a server, DELETE", of_a_server(c), rec(disk.DELETE, c.new)
    yield "VOLUME, ROLLBACK", c.birth(disk.DELETING, bytes(4)), pairs(disk.ROLLBACK, c.new, c.epoch + 1, (c.one, c.two))


def of_a_server(c, flags=0, name=b".host", then=b""):
    return c.birth(disk.SERVER | flags, name) + then


def forged_records(c):
    one, two, dying, waiting, e, hole, state = c.one, c.two, c.dying, c.waiting, c.epoch, c.hole, c.state
    yield "unknown type", rec(9, one)
    yield "type 0", rec(0, one)
    yield "length not of eight", rec(disk.DELETE, one, bytes(4))
    yield "length 0", rec(disk.DELETE, one, size=0)
    yield "length past the end", rec(disk.DELETE, one, size=16)
    yield "MAP too short", rec(disk.MAP, one, bytes(16))
    yield "MAP of no volume", to(99, hole, 2000)
    yield "MAP to a system block", to(one, hole, 15)
    yield "MAP past the end of a member", to(one, hole, 2303, 2, 2)
    yield "MAP to no member", to(one, hole, 2 << 40 | 2000)
    yield "MAP past 2^51", to(one, (1 << 51) - 1, 2000, 2, 2)
    yield "MAP with more fresh than blocks", to(one, hole, 2000, 1, 2)
    yield "UNMAP of nothing", unmap(one, hole, 0)
    yield "UNMAP past 2^51", unmap(one, 1 << 51)
    yield "UNMAP of 2^64 blocks", unmap(one, 5, (1 << 64) - 1)
    yield "UNMAP that frees more than is mapped", unmap(one, hole, freed=1 << 20)
    yield "VOLUME with another number", rec(disk.VOLUME_REC, one, record_of(state, two)[8:])
    yield "VOLUME without a name", record_of(state, one, 88, bytes(128))
    yield "VOLUME with a name that begins with a hyphen", record_of(state, one, 88, b"-")
    yield "VOLUME with a slash in the name", record_of(state, one, 88, b"a/")
    yield "VOLUME with half a block of size", record_of(state, one, 216, b"\1")
    yield "VOLUME with a size above 2^63", record_of(state, one, 216, struct.pack("<Q", (1 << 63) + 4096))
    yield "VOLUME with a root 12 high", record_of(state, one, 232 + 32, b"\x0c")
    yield "VOLUME with five pointers", record_of(state, one, 464, b"\5")
    yield "VOLUME with 769 bytes of attributes", record_of(state, one, 468, struct.pack("<I", 769))
    yield "VOLUME of a server with a size", record_of(state, one, 68, struct.pack("<I", disk.SERVER), c.new)
    yield "VOLUME of a server without a dot", of_a_server(c, name=b"host")
    yield "VOLUME of a server with a second dot", of_a_server(c, name=b"..host")
    yield "VOLUME of a server with a dot and no more", of_a_server(c, name=b".")
    yield "VOLUME of a server with a colon", of_a_server(c, name=b".a:b")
    yield "VOLUME of a server with 64 bytes of name", of_a_server(c, name=b"." + b"n" * 64)
    yield "VOLUME of a server that is pending", of_a_server(c, disk.PENDING)
    yield "VOLUME of a server with a base image", of_a_server(c, disk.HAS_BASE)
    yield "VOLUME that makes a server of a volume", rec(disk.VOLUME_REC, one, of_a_server(c)[8:12].replace(
        struct.pack("<I", c.new), struct.pack("<I", one)) + of_a_server(c)[12:])
    yield "SNAP with the present epoch", pairs(disk.SNAP, 0, e, (one, waiting))
    yield "SNAP without pairs", pairs(disk.SNAP, 0, e + 1)
    yield "SNAP with fewer pairs than it says", pairs(disk.SNAP, 0, e + 1, (one, waiting), n=2)
    yield "SNAP of a clone that is not pending", pairs(disk.SNAP, 0, e + 1, (one, two))
    yield "SNAP of what is there already", pairs(disk.SNAP, 0, e + 1, (one, waiting))
    yield "SNAP of a volume into itself", pairs(disk.SNAP, 0, e + 1, (waiting, waiting))
    yield "SNAP of no volume", pairs(disk.SNAP, 0, e + 1, (99, waiting))
    yield "VALID of a clone that is not pending", pairs(disk.VALID, 0, e, (one, two))
    yield "VALID of no volume", pairs(disk.VALID, 0, e, (one, 99))
    yield "DELETE of what is being deleted", rec(disk.DELETE, dying)
    yield "DELETE of no volume", rec(disk.DELETE, 99)
    yield "ROLLBACK of two pairs", pairs(disk.ROLLBACK, dying, e + 1, (one, two), (two, one))
    yield "ROLLBACK of a volume to itself", pairs(disk.ROLLBACK, dying, e + 1, (one, one))
    yield "ROLLBACK without a hidden volume", pairs(disk.ROLLBACK, 99, e + 1, (one, two))


def forged_commits(c):
    """The last record of each makes no sense; of servers, which the image has not."""
    yield "VOLUME that makes a volume of a server", of_a_server(c), c.birth(0)
    yield "SNAP of a server", of_a_server(c), pairs(disk.SNAP, 0, c.epoch + 1, (c.new, c.waiting))
    yield "ROLLBACK of a server", of_a_server(c), pairs(disk.ROLLBACK, c.dying, c.epoch + 1, (c.new, c.two))
    yield "ROLLBACK to a server", of_a_server(c), pairs(disk.ROLLBACK, c.dying, c.epoch + 1, (c.one, c.new))


def records(d, want):
    """Each alone in a commit that is right in all else."""
    original, faults = copy_of(d, "original"), []
    for what, *parts in right_records(Cast(disk.State(disk.Pool(members(d))))):
        for m in range(2):
            shutil.copy(members(original)[m], members(d)[m])
        f = Forger(d)
        f.write(b"".join(parts), last=f.seq + len(parts) - 1)
        r, e = both(d)
        if not r or not e or differences(r, e) or r["pool"]["seq"] != f.seq + len(parts) - 1:
            faults.append("%s: not taken, though right: %s" % (what, [bool(r), bool(e)] + differences(r, e)[:3]))
    for what, payload in forged_records(Cast(disk.State(disk.Pool(members(original))))):
        for m in range(2):
            shutil.copy(members(original)[m], members(d)[m])
        Forger(d).write(payload)
        faults += refused_by_both(d, what)
    for what, *parts in forged_commits(Cast(disk.State(disk.Pool(members(original))))):
        for m in range(2):
            shutil.copy(members(original)[m], members(d)[m])
        f = Forger(d)
        f.write(b"".join(parts), last=f.seq + len(parts) - 1)
        faults += refused_by_both(d, what)
    return faults


def commits(d, want):
    """A record that is right, in blocks that break a rule of commits, or do not continue the chain."""
    right = unmap(1, 250)
    refused = [("it does not begin", {"flags": 2}), ("a gap in the sequence", {"first": "+1"}),
               ("a sequence again", {"first": "-1"}), ("fewer records than it says", {"last": "+1"}),
               ("the last before the first", {"last": "-1"}),
               ("bytes that are no record", {"payload": right + bytes(8)}),
               ("more records than it says", {"payload": right * 2}), ("nothing in it", {"payload": b""})]
    passed = [("it does not end", {"flags": 1}), ("another incarnation", {"inc": 77}),
              ("another block before", {"prev": 1}), ("a length that is too much", {"size": 4041})]
    original, faults = copy_of(d, "original"), []
    for what, how in refused + passed:
        for m in range(2):
            shutil.copy(members(original)[m], members(d)[m])
        f = Forger(d)
        how = {k: f.seq + int(v) if k in ("first", "last") else v for k, v in how.items()}
        f.write(how.pop("payload", right), **how)
        faults += found_by_both(d, what, want) if (what in dict(passed)) else refused_by_both(d, what)
    return faults


def copies_that_differ(d, want):
    """The last commit is another one in one copy, and goes on in the one or the other."""
    original, faults = copy_of(d, "original"), []
    for other in 0, 1:
        for on in None, 0, 1:
            for m in range(2):
                shutil.copy(members(original)[m], members(d)[m])
            f = Forger(d)
            crc = f.write(unmap(1, 0, 1, 1) + unmap(1, 1, 1, 1), f.end - 1, (other,), f.prev_of(f.end - 1),
                          first=f.last.first, last=f.last.last)   # of as many records
            if on is not None:
                f.write(unmap(1, 250), copies=(on,), prev=crc if on == other else None)
            r, e = both(d)
            taken = other if on == other or (on is None and other == 0) else 1 - other
            what = "copy %d is forged%s" % (other, "" if on is None else ", copy %d goes on" % on)
            if not r or not e or differences(r, e):
                faults.append("%s: they differ: %s" % (what, differences(r, e)[:3]))
            elif (r["volumes"][0]["extents"][0][2] == "hole") != (taken == other):
                faults.append("%s: not copy %d is taken" % (what, taken))
    return faults


def main():
    tap = Tap()
    single = [("superblocks that cannot be are refused", superblocks, REFUSED, True),
              ("what a reader need not know in a superblock is passed over", superblocks, IGNORED, False),
              ("a newest superblock of a later version is not passed over for an older one", newest_only),
              ("a pool with a feature that allows reading only is read and not written", read_only_feature),
              ("nodes that cannot be are not believed", nodes)]
    journal = [("records that cannot be are refused", records),
               ("commits that cannot be are refused, others end the chain", commits),
               ("of copies of the journal that differ the longer one is taken", copies_that_differ)]
    for name, tests in ("single", single), ("journal", journal):
        with open(os.path.join(GOLDEN, name + ".json")) as f:
            want = json.load(f)
        for what, fn, *args in tests:
            with directory() as d:
                unpack(name, d)
                tap.test(what, fn, d, want, *args)
    tap.end()


main()
