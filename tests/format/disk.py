# SPDX-License-Identifier: GPL-2.0-only
"""
The on-disk format as man/vd-format.5 tells it, for reading.  Written from that page
and sharing nothing with the engine: that both find the same in a pool shows that the
page is complete and true.  Members are opened read-only.

The parts, in the order of the page: numbers, members, nodes, trees, records,
journal, replay.
"""
import bisect
import collections
import os
import struct
import sys

BLOCK = 4096
NONE = (1 << 48) - 1            # no block
VBLK_END = 1 << 51
SYSTEM_BLOCKS = 16
LEVELS = 12                     # pages included
HOLE, DATA, ZERO, BASE = 0, 1, 2, 3
KIND_NAME = {HOLE: "hole", DATA: "data", ZERO: "zero", BASE: "base"}
INDEX, EXTENTS, SPACE, VOLUME = 1, 2, 3, 4
READONLY, LOCKED, DELETING, PENDING, SNAPSHOT, HAS_BASE, SERVER = (1 << i for i in range(7))
SERVERS = 1                     # of incompat
ATTENTION = 1 << 50
NAME_CHARS = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_.-@:")


class Bad(Exception):
    """What was read cannot be right, or is not there."""


class Later(Bad):
    """A whole superblock that only a later version knows."""


# ---- numbers ------------------------------------------------------------------

def crc_table():
    byte = []
    for i in range(256):
        c = i
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
        byte.append(c)
    two = []                    # of two bytes at once
    for i in range(65536):
        c = byte[i & 255]
        two.append(byte[(c ^ i >> 8) & 255] ^ c >> 8)
    return byte, two


CRC_BYTE, CRC_TWO = crc_table()


def crc32c(data, crc=0xffffffff):
    if len(data) & 1:
        crc = CRC_BYTE[(crc ^ data[0]) & 255] ^ crc >> 8
        data = data[1:]
    two = CRC_TWO
    little = sys.byteorder == "little"
    for w in memoryview(data).cast("H") if little else struct.unpack("<%dH" % (len(data) // 2), data):
        crc = two[(crc ^ w) & 65535] ^ crc >> 16
    return crc


assert crc32c(b"123456789") == 0x1cf96d7c


def crc_right(data, at):
    was, = struct.unpack_from("<I", data, at)
    return crc32c(data[:at] + bytes(4) + data[at + 4:]) == was


def u16(data, at):
    return struct.unpack_from("<H", data, at)[0]


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def string(data, at, size):
    field = data[at:at + size]
    if field[-1]:
        raise Bad("a string does not end within its field")
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def p_text(p):
    return "%d:%d" % (p >> 40, p & (1 << 40) - 1)


def holder(data, at):
    return {"host": data[at:at + 16].hex(), "boot": data[at + 16:at + 32].hex(), "hostname": string(data, at + 32, 64),
            "purpose": string(data, at + 96, 32), "pid": u64(data, at + 128), "since": u64(data, at + 136)}


# ---- members ------------------------------------------------------------------

class Member:
    """A file or device with a label, its superblock slots and owner record."""

    def __init__(self, path):
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)
        label = self.read(0)
        if label[:8] != b"vdLABEL1":
            raise Bad("%s: no label" % path)
        if not crc_right(label, 8):
            raise Bad("%s: label is damaged" % path)
        if u32(label, 12) != 1:
            raise Bad("%s: format version %d" % (path, u32(label, 12)))
        self.pool, self.uuid, self.index = label[16:32], label[32:48], u32(label, 48)
        self.pool_name = string(label, 64, 128)
        owner = self.read(1)
        self.owner = None
        if owner[:8] == b"vdOWNER1" and crc_right(owner, 8):
            self.owner = {"state": u32(owner, 12), "incarnation": u64(owner, 16), "who": holder(owner, 24)}
        self.slots = []             # valid ones
        self.later = 0              # generation of one that is not known here
        self.whole = True           # both could be read
        for at in 4, 8:
            try:
                raw = self.read(at, 4)
            except (Bad, OSError):
                self.whole = False
                continue
            try:
                self.slots.append(Super(raw, self.pool))
            except Later:
                if raw[40:56] == self.pool:
                    self.later = max(self.later, u64(raw, 184))
            except Bad:
                pass
        self.best = max(self.slots, key=lambda s: s.generation, default=None)

    def read(self, block, n=1):
        data = os.pread(self.fd, n * BLOCK, block * BLOCK)
        if len(data) != n * BLOCK:
            raise Bad("%s: ends before block %d" % (self.path, block + n))
        return data


Root = collections.namedtuple("Root", "a b gen height")


def pointer(data, at):
    return (u32(data, at + 16) | u16(data, at + 24) << 32, u32(data, at + 20) | u16(data, at + 26) << 32,
            u64(data, at + 8))


def root_at(data, at):
    a, b, gen = pointer(data, at)
    if data[at + 32] >= LEVELS:
        raise Bad("a root is too high")
    return Root(a, b, gen, data[at + 32])


class Super:
    def __init__(self, d, pool):
        if d[:8] != b"vdSUPER1" or not crc_right(d, 8):
            raise Bad("no superblock, or damaged")
        self.version, self.compat, self.ro_compat, self.incompat = u32(d, 12), u64(d, 16), u64(d, 24), u64(d, 32)
        if self.version != 1 or self.incompat & ~SERVERS:
            raise Later("a later format")
        self.pool, self.name = d[40:56], string(d, 56, 128)
        (self.generation, self.incarnation, self.epoch, self.seq, self.next_volume, self.total_blocks, self.used_blocks,
         self.created, self.sector_size, self.nmembers) = struct.unpack_from("<8Q2I", d, 184)
        self.space, self.volumes, self.index = root_at(d, 256), root_at(d, 296), root_at(d, 336)
        self.journal_start, self.journal_blocks = u64(d, 376), u64(d, 384)
        self.journal_member = [m for m in (u32(d, 392), u32(d, 396)) if m != 0xffffffff]
        self.journal_tail, self.journal_crc, nsegments = u64(d, 400), u32(d, 408), u32(d, 412)
        self.policy, self.threshold = u32(d, 544), struct.unpack_from("<4I", d, 548)
        self.next_link, self.reserve_blocks, self.meta_blocks = u32(d, 564), u64(d, 568), u64(d, 576)
        self.promised_blocks = u64(d, 584)
        if pool != self.pool:
            raise Bad("superblock of another pool")
        if not 1 <= self.nmembers <= 256 or nsegments > 8 or self.sector_size not in (512, 4096):
            raise Bad("superblock: a number out of range")
        self.segment = [struct.unpack_from("<2Q", d, 416 + 16 * i) for i in range(nsegments)]
        self.member = []            # (uuid, blocks, flags)
        for m in range(self.nmembers):
            at = 4096 + 32 * m
            self.member.append((d[at:at + 16], u64(d, at + 16), u32(d, at + 24)))
            if not 2048 <= self.member[m][1] <= 1 << 40:
                raise Bad("superblock: size of a member")
        if self.total_blocks != sum(m[1] for m in self.member) or \
                max(self.used_blocks, self.reserve_blocks) > self.total_blocks:
            raise Bad("superblock: sizes do not add up")
        if max(self.generation, self.incarnation, self.epoch) > 1 << 62 or max(self.seq, self.journal_tail) >= 1 << 62:
            raise Bad("superblock: a counter cannot be")
        if self.next_volume > 1 << 32 or not 64 <= self.journal_blocks <= 1 << 24 or self.journal_start < SYSTEM_BLOCKS:
            raise Bad("superblock: a number out of range")
        if u32(d, 392) == 0xffffffff or len(set(self.journal_member)) != len(self.journal_member):
            raise Bad("superblock: members of the journal")
        for m in self.journal_member:
            if m >= self.nmembers or self.journal_start + self.journal_blocks > self.member[m][1]:
                raise Bad("superblock: place of the journal")
        for i, (inc, block) in enumerate(self.segment):
            if block > self.journal_tail + (self.journal_blocks if i else 0) or \
                    (i and (inc <= self.segment[i - 1][0] or block < self.segment[i - 1][1])):
                raise Bad("superblock: segments")


# ---- nodes --------------------------------------------------------------------

Node = collections.namedtuple("Node", "data a b gen kind level count owner lo hi")


class Pool:
    """The members, the superblock that counts, and verified nodes."""

    def __init__(self, paths):
        self.notes = []             # files that are no members: an addition that was cut off leaves such
        self.gone = []              # members that are not there
        found = {}
        for path in paths:
            try:
                m = Member(path)
            except (Bad, OSError) as e:
                self.notes.append(str(e))
                continue
            if found and m.pool != next(iter(found.values())).pool:
                raise Bad("%s belongs to another pool" % path)
            if m.index in found:
                raise Bad("%s and %s are both member %d" % (path, found[m.index].path, m.index))
            found[m.index] = m
        if not found:
            raise Bad("no member: " + "; ".join(self.notes))
        if not any(m.whole for m in found.values()):
            raise Bad("no member whose superblocks could both be read")
        best = max((m.best for m in found.values() if m.best), key=lambda s: s.generation, default=None)
        if not best:
            raise Bad("no superblock")
        if any(m.later > best.generation for m in found.values()):
            raise Bad("the newest superblock has a later format")
        self.super = s = best
        self.number = u64(s.pool, 0)
        owned = max((m.owner["incarnation"] for i, m in found.items() if m.owner and i < s.nmembers), default=0)
        self.member = []            # None: missing
        for i, (uuid, blocks, flags) in enumerate(s.member):
            m = found.get(i)
            if m and (m.uuid != uuid or flags & 1 or not m.best or m.best.generation + 1 < s.generation or
                      m.best.incarnation < owned):
                self.gone.append("%s: stale, or not the member %d that the pool knows" % (m.path, i))
                m = None
            elif not m:
                self.gone.append("member %d is missing" % i)
            self.member.append(m)
        self.cache = {}
        self.bad_copies = []        # (address, reason), when both are looked at
        self.both = False

    def valid(self, p, n=1):
        m, b = p >> 40, p & (1 << 40) - 1
        return m < self.super.nmembers and SYSTEM_BLOCKS <= b and n >= 1 and b + n <= self.super.member[m][1]

    def blocks(self, p, n=1):
        m = self.member[p >> 40]
        if not m:
            raise Bad("block %s is on a member that is missing" % p_text(p))
        return m.read(p & (1 << 40) - 1, n)

    def copy(self, at, a, b, gen, kind, level):
        d = self.blocks(at)
        magic, _, number, ha, hb, hgen, hkind, hlevel, count, owner, lo, hi = struct.unpack_from("<IIQQQQBBHIQQ", d)
        if magic != 0x444f4e76 or not crc_right(d, 4):
            raise Bad("block %s is no node, or damaged" % p_text(at))
        if (number, ha, hb, hgen, hkind, hlevel) != (self.number, a, b, gen, kind, level):
            raise Bad("block %s is not the node that was wanted" % p_text(at))
        n = Node(d, a, b, gen, kind, level, count, owner, lo, hi)
        (check_index, check_extents, check_space, check_volume)[kind - 1](self, n)
        return n

    def node(self, ptr, kind, level):
        """The node at ptr = (a, b, gen), from the copy that is good."""
        a, b, gen = ptr
        if ptr in self.cache:
            n = self.cache[ptr]
            if (n.kind, n.level) != (kind, level):
                raise Bad("block %s is used as two kinds of node" % p_text(a))
            return n
        if not gen or not self.valid(a) or (b != NONE and not self.valid(b)):
            raise Bad("a pointer to %s leads nowhere" % p_text(a))
        n = why = None
        for at in (a, b) if b != NONE else (a,):
            if n and not self.both:
                break
            try:
                other = self.copy(at, a, b, gen, kind, level)
                if n and other.data != n.data:
                    raise Bad("block %s differs from its copy" % p_text(at))
                n = n or other
            except (Bad, OSError) as e:
                why = why or e
                self.bad_copies.append((at, str(e)))
        if not n:
            raise Bad(str(why))
        self.cache[ptr] = n
        return n


def check_index(pool, n):
    if not 1 <= n.level < LEVELS or not 1 <= n.count <= 126:
        raise Bad("node %s: level or count" % p_text(n.a))
    last = -1
    for i in range(n.count):
        key, gen = struct.unpack_from("<QQ", n.data, 64 + 32 * i)
        if key <= last or not n.lo <= key < n.hi or gen > n.gen:
            raise Bad("node %s: entry %d" % (p_text(n.a), i))
        last = key


Extent = collections.namedtuple("Extent", "v len kind p birth")


def extents_of(n):
    for i in range(n.count):
        w0, w1 = struct.unpack_from("<QQ", n.data, 192 + 16 * i)
        kind = w0 >> 56 & 3
        birth = u64(n.data, 64 + 8 * (w0 >> 52 & 15))
        if kind == DATA:
            yield Extent(w0 & (1 << 52) - 1, (w1 >> 48) + 1, kind, w1 & NONE, birth)
        else:
            yield Extent(w0 & (1 << 52) - 1, w1 + 1, kind, 0, birth)


def check_extents(pool, n):
    if n.level or n.count > 244 or n.hi > VBLK_END:
        raise Bad("page %s: count or range" % p_text(n.a))
    at = n.lo
    for i, e in enumerate(extents_of(n)):
        if e.kind not in (DATA, ZERO) or u64(n.data, 192 + 16 * i) >> 58 or e.v < at or e.v + e.len > n.hi:
            raise Bad("page %s: extent %d" % (p_text(n.a), i))
        at = e.v + e.len


PARTS = {1: 1, 2: 1, 3: 1, 7: 2, 15: 4, 31: 8}      # pages of a group by bits of a count


def check_space(pool, n):
    width, nblocks = u32(n.data, 64), u32(n.data, 68)
    parts = PARTS.get(width)
    if n.level or not parts or nblocks != 8192 // parts or n.count != parts or n.hi != n.lo + 8 // parts:
        raise Bad("page %s: counts" % p_text(n.a))


def counts_of(n):
    width, nblocks = u32(n.data, 64), u32(n.data, 68)
    mask, word, held, at = (1 << width) - 1, 0, 0, 72
    for _ in range(nblocks):
        while held < width:
            word |= u64(n.data, at) << held
            held, at = held + 64, at + 8
        yield word & mask
        word, held = word >> width, held - width


def check_volume(pool, n):
    if n.level or n.lo != u32(n.data, 64) or n.hi != n.lo + 1:
        raise Bad("page %s: of another volume" % p_text(n.a))
    Record(n.data)


# ---- trees --------------------------------------------------------------------

def entries(n):
    for i in range(n.count):
        at = 64 + 32 * i
        yield u64(n.data, at), pointer(n.data, at), u32(n.data, at + 28)


def walk(pool, root, page_kind, lo=0, hi=None, fn=None, lost=None):
    """Yields (key, pointer, aux, page) in order; page None: a group with one count.
    fn(pointer, node) sees each node first; a false answer leaves out what is below.
    lost(pointer, lo, hi, error) is told what cannot be read, if given."""
    end = VBLK_END if page_kind == EXTENTS else (1 << 64) - 1
    hi = end if hi is None else hi
    if not root.gen:
        return
    if page_kind != EXTENTS and not root.height:
        raise Bad("the root of a tree of pages is a page")
    todo = [((root.a, root.b, root.gen), root.height, 0, end, 0, 0)]
    while todo:
        ptr, level, nlo, nhi, key, aux = todo.pop()
        if page_kind == SPACE and not level and not ptr[2]:
            yield key, ptr, aux, None
            continue
        try:
            n = pool.node(ptr, INDEX if level else page_kind, level)
            if (level or page_kind == EXTENTS) and not (n.lo < n.hi and nlo <= n.lo and n.hi <= nhi):
                raise Bad("node %s: range" % p_text(ptr[0]))
            if not level and page_kind != EXTENTS and n.lo != key:
                raise Bad("page %s: key" % p_text(ptr[0]))
        except Bad as e:
            if not lost:
                raise
            lost(ptr, nlo, nhi, e)
            continue
        if fn and not fn(ptr, n):
            continue
        if not level:
            yield key, ptr, aux, n
            continue
        below = list(entries(n))
        for i in range(len(below) - 1, -1, -1):
            clo = below[i][0] if i else nlo
            chi = below[i + 1][0] if i + 1 < len(below) else nhi
            if clo < hi and chi > lo:
                todo.append((below[i][1], level - 1, clo, chi, below[i][0], below[i][2]))


def tree_extents(pool, root, lo=0, hi=VBLK_END):
    """What the tree has in [lo, hi), clipped to it."""
    for _, _, _, page in walk(pool, root, EXTENTS, lo, hi):
        for e in extents_of(page):
            v, end = max(e.v, lo), min(e.v + e.len, hi)
            if v < end:
                yield Extent(v, end - v, e.kind, e.p + (v - e.v) if e.kind == DATA else 0, e.birth)


# ---- records ------------------------------------------------------------------

class Record:
    """A volume page, its first 64 bytes not looked at."""

    def __init__(self, d):
        self.id, self.flags, self.uuid, self.name = u32(d, 64), u32(d, 68), d[72:88], string(d, 88, 128)
        self.size, self.mapped, self.root = u64(d, 216), u64(d, 224), root_at(d, 232)
        self.last_snapshot, self.family, self.origin, self.created = struct.unpack_from("<4Q", d, 272)
        self.reserved, self.own = u64(d, 304), u64(d, 312)
        self.lock = holder(d, 320) if self.flags & LOCKED else None
        npointers, attrs_len = u32(d, 464), u32(d, 468)
        if npointers > 4 or attrs_len > 768:
            raise Bad("record of volume %d: pointers or attributes" % self.id)
        self.pointers = []
        for at in range(472, 472 + 480 * npointers, 480):
            self.pointers.append({"who": holder(d, at), "epoch": u64(d, at + 144), "mode": u32(d, at + 152),
                                  "link": u32(d, at + 156), "opened_as": string(d, at + 160, 128),
                                  "mount": string(d, at + 288, 128), "server": string(d, at + 416, 64)})
        self.base = string(d, 2392, 512)
        self.attrs = d[2904:2904 + attrs_len].decode("utf-8", "surrogateescape")
        if not self.id or self.size % BLOCK or self.size > 1 << 63:
            raise Bad("record of volume %d: number or size" % self.id)
        if self.reserved > self.size // BLOCK:
            raise Bad("record of volume %d: reservation" % self.id)
        if self.flags & SERVER and (self.size or npointers or self.flags & (PENDING | HAS_BASE)):
            raise Bad("record of server %d: it is like a volume's" % self.id)
        if self.flags & DELETING:
            if self.flags & PENDING:
                raise Bad("record of volume %d: flags" % self.id)
        elif self.flags & SERVER:
            name = self.name[1:]
            if self.name[:1] != "." or not 1 <= len(name) <= 63 or name[0] in "-." or \
                    not (NAME_CHARS - set(b"@:")).issuperset(name.encode("utf-8", "surrogateescape")):
                raise Bad("record of server %d: name" % self.id)
        elif not self.name or self.name[0] in "-." or \
                not NAME_CHARS.issuperset(self.name.encode("utf-8", "surrogateescape")):
            raise Bad("record of volume %d: name" % self.id)


class Mapping:
    """A tree, and over it what records have changed: disjoint extents in order, HOLE
    where something was unmapped."""

    def __init__(self, pool, root):
        self.pool, self.root = pool, root
        self.over, self.start = [], []      # extents, and where each begins

    def copy(self):
        m = Mapping(self.pool, self.root)
        m.over, m.start = list(self.over), list(self.start)
        return m

    def first(self, v):
        """The first extent that ends after v."""
        i = bisect.bisect_left(self.start, v)
        return i - 1 if i and self.over[i - 1].v + self.over[i - 1].len > v else i

    def put(self, new):
        end = new.v + new.len
        i, j = self.first(new.v), bisect.bisect_left(self.start, end)
        keep = [new]
        for e in self.over[i:j]:
            if e.v < new.v:
                keep.insert(0, e._replace(len=new.v - e.v))
            if e.v + e.len > end:
                cut = end - e.v
                keep.append(Extent(end, e.len - cut, e.kind, e.p + cut if e.kind == DATA else 0, e.birth))
        self.over[i:j] = keep
        self.start[i:j] = [e.v for e in keep]

    def extents(self, lo=0, hi=VBLK_END):
        """DATA and ZERO in [lo, hi), clipped."""
        at = lo
        for i in range(self.first(lo), len(self.over)):
            e = self.over[i]
            if e.v >= hi:
                break
            if e.v > at:
                yield from tree_extents(self.pool, self.root, at, e.v)
            v, end = max(e.v, lo), min(e.v + e.len, hi)
            if e.kind != HOLE:
                yield Extent(v, end - v, e.kind, e.p + (v - e.v) if e.kind == DATA else 0, e.birth)
            at = end
        if at < hi:
            yield from tree_extents(self.pool, self.root, at, hi)

    def mapped(self, lo=0, hi=VBLK_END):
        return sum(e.len for e in self.extents(lo, hi) if e.kind == DATA)


class Vol:
    def __init__(self, rec, mapping, mapped, last_snapshot):
        self.rec, self.map, self.mapped, self.last_snapshot = rec, mapping, mapped, last_snapshot

    def visible(self):
        return not self.rec.flags & (DELETING | PENDING | SERVER)

    def is_server(self):
        return self.rec.flags & (DELETING | SERVER) == SERVER


# ---- journal ------------------------------------------------------------------

PAYLOAD = BLOCK - 56
BEGIN, END = 1, 2
JBlock = collections.namedtuple("JBlock", "raw crc flags payload first last")


class Journal:
    def __init__(self, pool):
        self.pool, self.s = pool, pool.super
        self.copies = [pool.member[m] for m in self.s.journal_member if pool.member[m]]

    def incarnation(self, number):
        inc = self.s.segment[0][0]
        for i, first in self.s.segment:
            if first <= number:
                inc = i
        return inc

    def candidates(self, number, prev):
        """The blocks that continue the chain, in the order of the copies."""
        out, bad = [], 0
        for m in self.copies:
            try:
                raw = m.read(self.s.journal_start + number % self.s.journal_blocks)
            except (Bad, OSError):
                bad += 1
                continue
            magic, crc, number_, inc, block, prev_crc, flags, used, first, last = struct.unpack_from("<IIQQQIHHQQ", raw)
            if (magic, number_, block, prev_crc) == (0x4e4c4a76, self.pool.number, number, prev) and \
                    inc == self.incarnation(number) and used <= PAYLOAD and crc_right(raw, 4):
                out.append(JBlock(raw, crc, flags, raw[56:56 + used], first, last))
        if not out and bad == len(self.copies):
            raise Bad("journal block %d cannot be read" % number)
        return out

    def chain(self, second):
        """Complete commits as (first_seq, payload); `second`: prefer the second copy."""
        commits, part, differ = [], [], False
        prev, last = self.s.journal_crc, 0
        number = self.s.journal_tail
        end = number
        while number < self.s.journal_tail + self.s.journal_blocks:
            blocks = self.candidates(number, prev)
            if not blocks:
                break
            differ = differ or blocks[0].raw != blocks[-1].raw
            b = blocks[-1] if second else blocks[0]
            if bool(b.flags & BEGIN) != (not part):
                raise Bad("journal block %d: a commit that does not begin" % number)
            if part and (b.first, b.last) != (part[0].first, part[0].last):
                raise Bad("journal block %d: sequences" % number)
            if not part and not (last < b.first <= max(last, self.s.seq) + 1 and b.first <= b.last < 1 << 62):
                raise Bad("journal block %d: sequences" % number)
            part.append(b)
            prev, number = b.crc, number + 1
            if b.flags & END:
                commits.append(self.records(part))
                last, part, end = part[0].last, [], number
        return end, differ, commits

    def records(self, part):
        data, seq, out = b"".join(b.payload for b in part), part[0].first, []
        at = 0
        while at < len(data):
            if at + 8 > len(data) or seq > part[0].last:
                raise Bad("journal: records of a commit")
            kind, size, volume = struct.unpack_from("<HHI", data, at)
            if size < 8 or size > 4096 or size & 7 or at + size > len(data):
                raise Bad("journal: length of record %d" % seq)
            out.append((seq, kind, volume, data[at:at + size]))
            seq, at = seq + 1, at + size
        if seq != part[0].last + 1:
            raise Bad("journal: number of records in a commit")
        return out

    def replayed(self):
        """The records that are not in the trees, in order."""
        if not self.s.segment:
            return []
        if not self.copies:
            raise Bad("no member with the journal is there")
        end, differ, commits = self.chain(False)
        if differ:
            other = self.chain(True)
            if other[0] > end:
                commits = other[2]
        return [r for c in commits for r in c if r[0] > self.s.seq]


# ---- replay -------------------------------------------------------------------

MAP, UNMAP, VOLUME_REC, SNAP, VALID, DELETE, ROLLBACK = range(1, 8)
REC_NAME = {MAP: "MAP", UNMAP: "UNMAP", VOLUME_REC: "VOLUME", SNAP: "SNAP", VALID: "VALID", DELETE: "DELETE",
            ROLLBACK: "ROLLBACK"}


class State:
    """The volumes as of the last checkpoint, then as of each record."""

    def __init__(self, pool, replay=True):
        self.pool, self.epoch, self.next_volume = pool, pool.super.epoch, pool.super.next_volume
        self.faults = []
        self.vol = {}
        self.records = Journal(pool).replayed() if replay else []
        for key, _, _, page in walk(pool, pool.super.volumes, VOLUME, lost=self.lost):
            rec = Record(page.data)
            if key >= self.next_volume:
                raise Bad("volume %d has a number that was never given" % key)
            self.vol[key] = Vol(rec, Mapping(pool, rec.root), rec.mapped, rec.last_snapshot)
        for seq, kind, volume, data in self.records:
            try:
                self.apply(kind, volume, data)
            except (Bad, struct.error, KeyError) as e:
                raise Bad("record %d (%s of volume %d): %s" % (seq, REC_NAME.get(kind, kind), volume, e)) from None

    def lost(self, ptr, lo, hi, why):
        self.faults.append("records of volumes %d to %d are lost: %s" % (lo, hi - 1, why))

    def apply(self, kind, volume, d):
        if kind == MAP:
            self.map(self.vol[volume], d)
        elif kind == UNMAP:
            self.unmap(self.vol[volume], d)
        elif kind == VOLUME_REC:
            self.volume(volume, d)
        elif kind == DELETE:
            rec = self.vol[volume].rec
            if rec.flags & DELETING:
                raise Bad("is being deleted already")
            rec.name, rec.flags = "", rec.flags & ~PENDING | DELETING
        elif kind in (SNAP, VALID, ROLLBACK):
            epoch, n = struct.unpack_from("<QI", d, 8)
            pairs = [struct.unpack_from("<II", d, 24 + 8 * i) for i in range(n)]
            if not 1 <= n <= 256 or (kind == ROLLBACK and n != 1):
                raise Bad("pairs")
            if kind != VALID:
                if epoch <= self.epoch:
                    raise Bad("epoch")
                self.epoch = epoch
            if kind == ROLLBACK:
                self.rollback(self.vol[pairs[0][0]], self.vol[pairs[0][1]], self.vol[volume])
            else:
                self.snap(pairs, kind == VALID)
        else:
            raise Bad("type")

    def count_must_be(self, said, found, what):
        if said != found:
            self.faults.append("a record says that %d blocks were %s, found %d" % (said, what, found))

    def map(self, vol, d):
        if len(d) != 32:
            raise Bad("length")
        v, pl, fresh = struct.unpack_from("<3Q", d, 8)
        p, n = pl & NONE, (pl >> 48) + 1
        if not self.pool.valid(p, n) or v + n > VBLK_END or fresh > n:
            raise Bad("addresses")
        self.count_must_be(fresh, n - vol.map.mapped(v, v + n), "not mapped before")
        vol.map.put(Extent(v, n, DATA, p, self.epoch))
        vol.mapped += fresh

    def unmap(self, vol, d):
        if len(d) != 40:
            raise Bad("length")
        v, n, freed, kind = struct.unpack_from("<3QI", d, 8)
        if not n or v + n > VBLK_END or kind not in (HOLE, ZERO) or freed > vol.mapped:
            raise Bad("range")
        self.count_must_be(freed, vol.map.mapped(v, v + n), "mapped before")
        vol.map.put(Extent(v, n, kind, 0, self.epoch))
        vol.mapped -= freed

    def volume(self, volume, d):
        page = bytes(64) + d[8:]
        if len(page) > BLOCK:
            raise Bad("length")
        rec = Record(page + bytes(BLOCK - len(page)))
        if rec.id != volume:
            raise Bad("number")
        vol = self.vol.get(volume)
        if not vol:
            self.vol[volume] = Vol(rec, Mapping(self.pool, Root(0, 0, 0, 0)), 0, 0)
            self.next_volume = max(self.next_volume, volume + 1)
            return
        if (rec.flags ^ vol.rec.flags) & SERVER:
            raise Bad("a volume becomes a server, or a server a volume")
        stay = PENDING | DELETING
        rec.flags = rec.flags & ~stay | vol.rec.flags & stay
        if rec.size < vol.rec.size:
            end = rec.size // BLOCK
            vol.mapped -= vol.map.mapped(end)
            vol.map.put(Extent(end, VBLK_END - end, ZERO if vol.rec.flags & HAS_BASE else HOLE, 0, self.epoch))
        vol.rec = rec

    def snap(self, pairs, valid):
        for origin, clone in pairs:
            c = self.vol[clone]
            if origin == clone or not c.rec.flags & PENDING:
                raise Bad("clone")
            if origin in self.vol and self.vol[origin].rec.flags & SERVER:
                raise Bad("a snapshot of a server")
            if valid:
                c.rec.flags &= ~PENDING
                continue
            o = self.vol[origin]
            if c.mapped:
                raise Bad("clone is not empty")
            c.map, c.mapped = o.map.copy(), o.mapped
            o.last_snapshot = c.last_snapshot = self.epoch - 1

    def rollback(self, vol, snap, hidden):
        if len({id(vol), id(snap), id(hidden)}) != 3 or hidden.mapped or \
                (vol.rec.flags | snap.rec.flags) & SERVER:
            raise Bad("volumes")
        hidden.map, hidden.mapped, hidden.last_snapshot = vol.map, vol.mapped, vol.last_snapshot
        vol.map, vol.mapped = snap.map.copy(), snap.mapped
        vol.last_snapshot = snap.last_snapshot = self.epoch - 1
        vol.rec.size, vol.rec.base = snap.rec.size, snap.rec.base
        vol.rec.flags = vol.rec.flags & ~HAS_BASE | snap.rec.flags & HAS_BASE

    def find(self, name):
        for vol in self.vol.values():
            if vol.visible() and vol.rec.name == name:
                return vol
        raise Bad("there is no volume %s" % name)
