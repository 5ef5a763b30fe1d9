# SPDX-License-Identifier: GPL-2.0-only
"""Looks at all of a pool: that both copies are there, that counts and names are right."""
import bisect
import collections

from disk import (ATTENTION, BLOCK, DATA, DELETING, EXTENTS, INDEX, NONE, PENDING, SERVER, SERVERS, SPACE, SYSTEM_BLOCKS,
                  VOLUME, Bad, Record, State, counts_of, crc32c, entries, extents_of, p_text, tree_extents, u32, u64, walk)


def name_key(name):
    raw = name.encode("utf-8", "surrogateescape")
    return (crc32c(raw) << 18 | (crc32c(raw, 0x5bd1e995) & 0x3fff) << 4) & ATTENTION - 1


class Check:
    def __init__(self, pool):
        self.pool, self.s = pool, pool.super
        self.faults = list(pool.gone)
        self.delta = collections.Counter()      # references found, as steps: {block: change}
        self.seen = set()
        self.nodes = 0                          # blocks of nodes, both copies

    def fault(self, text):
        self.faults.append(text)

    def refer(self, p, n=1, times=1):
        self.delta[p] += times
        self.delta[p + n] -= times

    def enter(self, ptr, n):
        """Counts a reference to a node; true when it is the first."""
        a, b, _ = ptr
        self.refer(a)
        if ptr in self.seen:
            return False
        self.seen.add(ptr)
        self.nodes += 1
        if b != NONE:
            self.refer(b)
            self.nodes += 1
            if a >> 40 == b >> 40:
                self.fault("both copies of node %s are on one member" % p_text(a))
        return True

    def lost(self, ptr, lo, hi, why):
        self.enter(ptr, None)
        self.fault("lost: keys %d to %d: %s" % (lo, hi - 1, why))

    def walk(self, root, kind):
        return walk(self.pool, root, kind, fn=self.enter, lost=self.lost)

    def run(self):
        self.pool.both = True
        for m in range(self.s.nmembers):
            self.refer(m << 40, SYSTEM_BLOCKS)
        for m in self.s.journal_member:
            self.refer(m << 40 | self.s.journal_start, self.s.journal_blocks)
        recorded = self.space()
        vols = self.volumes()
        self.index(vols)
        self.compare(recorded)
        for at, why in self.pool.bad_copies:
            self.fault("copy: " + why)
        self.replay(recorded)
        return self.faults

    # recorded counts as runs (first, end, count), those of 0 left out
    def space(self):
        runs, group = [], collections.defaultdict(list)
        for key, ptr, aux, page in self.walk(self.s.space, SPACE):
            first, member = key << 10, key >> 30 << 40
            end_of = self.s.member[key >> 30][1] if key >> 30 < self.s.nmembers else 0
            if member + end_of <= first & ~8191:
                self.fault("counts of blocks from %s on, where there is no group" % p_text(first))
                continue
            group[key >> 3].append((key & 7, page))
            if page is None:
                value, end = ptr[0], min(first + 8192, member + end_of)
                if key & 7 or ptr[1] != NONE or not value or aux:
                    self.fault("group %d: entry of one count" % (key >> 3))
                runs.append((first, end, value))
                continue
            zeros, start, last = 0, first, 0
            for i, c in enumerate(counts_of(page)):
                p = first + i
                exists = p < member + end_of
                if c and not exists:
                    self.fault("block %s does not exist and has a count" % p_text(p))
                zeros += exists and not c
                if c != last:
                    if last:
                        runs.append((start, p, last))
                    start, last = p, c
            if last:
                runs.append((start, first + u32(page.data, 68), last))
            if zeros != aux:
                self.fault("page of counts of block %s: %d free, its pointer says %d" % (p_text(first), zeros, aux))
        for g, parts in group.items():
            pages = [p for _, p in parts if p]
            want = [0] if not pages else list(range(0, 8, 8 // pages[0].count))
            if [k for k, _ in parts] != want or len({u32(p.data, 64) for p in pages}) > 1 or \
                    len(pages) not in (0, len(parts)):
                self.fault("group %d: parts %s" % (g, [k for k, _ in parts]))
        self.free_sums()
        return sorted(runs)

    def free_sums(self):
        """aux of each pointer is the sum of those below."""
        def below(ptr, level):
            n = self.pool.node(ptr, INDEX, level)
            total = 0
            for _, p, aux in entries(n):
                if level > 1 and min(below(p, level - 1), 0xffffffff) != aux:
                    self.fault("node %s: free blocks below %s do not add up" % (p_text(n.a), p_text(p[0])))
                total += aux
            return total
        if self.s.space.gen:
            try:
                below((self.s.space.a, self.s.space.b, self.s.space.gen), self.s.space.height)
            except Bad:
                pass            # told already

    def volumes(self):
        vols = {}
        for key, _, _, page in self.walk(self.s.volumes, VOLUME):
            rec = Record(page.data)
            vols[key] = rec
            if key >= self.s.next_volume:
                self.fault("volume %d has a number that was never given" % key)
        for rec in vols.values():
            for _, _, _, page in self.walk(rec.root, EXTENTS):
                births = [u64(page.data, 64 + 8 * i) for i in range(16)]
                for e in extents_of(page):
                    if e.kind != DATA:
                        continue
                    if not self.pool.valid(e.p, e.len):
                        self.fault("volume %d, block %d: mapped to where nothing is" % (rec.id, e.v))
                        continue
                    self.refer(e.p, e.len)
                if max(births) > self.s.epoch:
                    self.fault("page %s: a birth after the pool's epoch" % p_text(page.a))
            if not rec.flags & DELETING:
                try:
                    found = sum(e.len for e in tree_extents(self.pool, rec.root) if e.kind == DATA)
                    beyond = sum(e.len for e in tree_extents(self.pool, rec.root, rec.size // BLOCK) if e.kind == DATA)
                except Bad:
                    continue
                if found != rec.mapped:
                    self.fault("volume %d: %d blocks mapped, its record says %d" % (rec.id, found, rec.mapped))
                if beyond:
                    self.fault("volume %d: %d blocks mapped beyond its end" % (rec.id, beyond))
            if rec.last_snapshot > self.s.epoch:
                self.fault("volume %d: last snapshot after the pool's epoch" % rec.id)
        if any(rec.flags & SERVER for rec in vols.values()) and not self.s.incompat & SERVERS:
            self.fault("there is a server, and the superblock does not say so")
        promised = 0
        for rec in vols.values():
            own = min(rec.own, rec.mapped) if rec.last_snapshot else rec.mapped
            n = rec.reserved
            promised += max(n - own, 0) + n // 32 + 64 + 2 * min(n, (rec.mapped - own + 63) // 64) if n else 0
        if promised != self.s.promised_blocks:
            self.fault("promised_blocks: %d, the volumes say %d" % (self.s.promised_blocks, promised))
        return vols

    def index(self, vols):
        at = {}
        for _, _, _, page in self.walk(self.s.index, EXTENTS):
            for e in extents_of(page):
                if e.kind != DATA:
                    self.fault("index: an extent of kind %d" % e.kind)
                    continue
                for i in range(min(e.len, 1 << 20)):
                    at[e.v + i] = e.p + i
        named = {k: v for k, v in at.items() if k < ATTENTION}
        for rec in vols.values():
            if rec.name and rec.id not in [named.get(name_key(rec.name) + i) for i in range(16)]:
                self.fault("volume %d: %s is not in the index" % (rec.id, rec.name))
            special = bool(rec.flags & (DELETING | PENDING))
            if special != (at.get(ATTENTION + rec.id) == rec.id):
                self.fault("volume %d: attention list" % rec.id)
        if sorted(named.values()) != sorted(r.id for r in vols.values() if r.name):
            self.fault("index: names of volumes that there are not")
        for k, v in at.items():
            if k >= ATTENTION and (k - ATTENTION != v or v not in vols):
                self.fault("index: attention to %d, which is not there" % v)

    def compare(self, recorded):
        found, count, start = [], 0, 0
        for p in sorted(self.delta):
            if not self.delta[p]:
                continue
            if count:
                found.append((start, p, count))
            count, start = count + self.delta[p], p
        if merged(found) != merged(recorded):
            a, b = set(merged(found)), set(merged(recorded))
            for s, e, c in sorted(a - b)[:20]:
                self.fault("blocks %s to %s: found %d references" % (p_text(s), p_text(e - 1), c))
            for s, e, c in sorted(b - a)[:20]:
                self.fault("blocks %s to %s: recorded count %d" % (p_text(s), p_text(e - 1), c))
        used = sum(e - s for s, e, _ in recorded)
        if used != self.s.used_blocks:
            self.fault("used_blocks: %d, recorded counts say %d" % (self.s.used_blocks, used))
        meta = self.nodes + SYSTEM_BLOCKS * self.s.nmembers + self.s.journal_blocks * len(self.s.journal_member)
        if meta != self.s.meta_blocks:
            self.fault("meta_blocks: %d, found %d" % (self.s.meta_blocks, meta))

    def replay(self, recorded):
        """What records have mapped was free at the checkpoint, and belongs to one block of one family."""
        state = State(self.pool)
        self.faults += state.faults
        starts = [r[0] for r in recorded]
        where = {}
        for vol in state.vol.values():
            if vol.mapped != vol.map.mapped() and not vol.rec.flags & DELETING:
                self.fault("volume %d: %d blocks mapped, counted %d" % (vol.rec.id, vol.map.mapped(), vol.mapped))
            for e in vol.map.over:
                if e.kind != DATA:
                    continue
                i = bisect.bisect_right(starts, e.p + e.len - 1) - 1
                if i >= 0 and recorded[i][1] > e.p:
                    self.fault("volume %d, block %d: mapped by a record to a block in use" % (vol.rec.id, e.v))
                for j in range(e.len):
                    if where.setdefault(e.p + j, (vol.rec.family, e.v + j)) != (vol.rec.family, e.v + j):
                        self.fault("block %s has been given twice" % p_text(e.p + j))
        self.in_place(state)

    def in_place(self, state):
        """What a volume may write in place is in no other mapping."""
        pieces = sorted((e.p, e.p + e.len, e.birth > vol.last_snapshot, vol.rec.id)
                        for vol in state.vol.values() for e in vol.map.extents() if e.kind == DATA)
        active = []
        for p in pieces:
            active = [a for a in active if a[1] > p[0]]
            for a in active:
                if a[2] or p[2]:
                    self.fault("block %s: in volume %d, which may write it in place, and in %d" % (
                        (p_text(p[0]),) + ((a[3], p[3]) if a[2] else (p[3], a[3]))))
            active.append(p)


def merged(runs):
    out = []
    for s, e, c in runs:
        if out and out[-1][1] == s and out[-1][2] == c:
            out[-1] = (out[-1][0], e, c)
        else:
            out.append((s, e, c))
    return out
