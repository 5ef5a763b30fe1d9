# SPDX-License-Identifier: GPL-2.0-only
"""What the format tests share: TAP, running things, comparing views, spoiling members."""
import contextlib
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

import disk
import reader

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("VD_BUILD", os.path.join(HERE, "..", "..", "build"))
IMAGES = os.path.join(BUILD, "tests/format/images")
GOLDEN = os.path.join(HERE, "golden")


class Tap:
    """A test is a function that returns what is wrong, a list of lines, or raises Skip."""

    def __init__(self):
        self.n = self.bad = 0

    def test(self, name, fn, *args):
        self.n += 1
        skip = ""
        try:
            faults = fn(*args)
        except Skip as e:
            faults, skip = [], " # skip %s" % e
        except Exception as e:      # a test that breaks off has failed, the next may still tell something
            faults = ["%s: %s" % (type(e).__name__, e)]
        print("%sok %d - %s%s" % ("not " if faults else "", self.n, name, skip))
        for f in faults[:20]:
            print("#   " + f.replace("\n", "\n#   "))
        sys.stdout.flush()
        self.bad += bool(faults)

    def end(self):
        print("1..%d" % self.n)
        sys.exit(self.bad != 0)


class Skip(Exception):
    pass


class Failed(Exception):
    pass


def run(*command, status=0, **how):
    """stdout of a command that must end with `status`."""
    p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **how)
    if p.returncode != status:
        said = p.stdout[-600:] + p.stderr[-600:]
        raise Failed("%s: status %d, not %d: %s" % (" ".join(command), p.returncode, status, said))
    return p.stdout


def need(*tools):
    for t in tools:
        if not shutil.which(t):
            raise Skip("%s is not installed" % t)


@contextlib.contextmanager
def directory():
    d = tempfile.mkdtemp(prefix="vdt.", dir="/var/tmp")
    try:
        yield d
    finally:
        shutil.rmtree(d)


def members(d):
    return sorted(glob.glob(os.path.join(d, "m*")))


def unpack(name, d):
    with tarfile.open(os.path.join(GOLDEN, name + ".tar.xz")) as t:
        t.extractall(d)


def copy_of(d, name):
    """The members again, to be spoilt as one likes."""
    to = os.path.join(d, name)
    os.mkdir(to)
    for f in members(d) + glob.glob(os.path.join(d, "base:*")):
        shutil.copy(f, to)
    return to


def engine_view(paths):
    return json.loads(run(IMAGES, "tell", *paths))


def reader_view(d, paths, **how):
    return reader.view(disk.Pool([p for p in paths if p != "-"]), bases=d, **how)


def differences(got, want, at=""):
    """Where two views differ, in words."""
    if isinstance(got, dict) and isinstance(want, dict):
        return [x for k in sorted(set(got) | set(want))
                for x in differences(got.get(k), want.get(k), "%s.%s" % (at, k))]
    if isinstance(got, list) and isinstance(want, list) and got and want and isinstance(got[0], (list, dict)):
        out = ["%s: %d, not %d" % (at, len(got), len(want))] if len(got) != len(want) else []
        return out + [x for i, (g, w) in enumerate(zip(got, want)) for x in differences(g, w, "%s[%d]" % (at, i))]
    return [] if got == want else ["%s: %s, not %s" % (at, got, want)]


def spoil(paths, p, data=b"\x5a" * 4096, offset=0):
    """Overwrites part of the block at address p."""
    with open(paths[p >> 40], "r+b") as f:
        f.seek((p & (1 << 40) - 1) * disk.BLOCK + offset)
        f.write(data)


def patch(path, block, blocks, crc_at, at, value):
    """Changes bytes of a structure and makes its checksum right again."""
    with open(path, "r+b") as f:
        f.seek(block * disk.BLOCK)
        d = bytearray(f.read(blocks * disk.BLOCK))
        d[at:at + len(value)] = value
        d[crc_at:crc_at + 4] = bytes(4)
        d[crc_at:crc_at + 4] = struct.pack("<I", disk.crc32c(bytes(d)))
        f.seek(block * disk.BLOCK)
        f.write(d)


class Commands:
    """The commands of vd, for the pool in the members given."""

    def __init__(self, d, paths=()):
        self.d = d
        self.env = dict(os.environ, VD_CONFIG_DIR=os.path.join(d, "etc"), VD_RUNTIME_DIR=os.path.join(d, "run"),
                        VD_DEV_DIR=os.path.join(d, "dev"), LC_ALL="C", PATH=BUILD + ":" + os.environ["PATH"])
        for sub in "etc", "run":
            os.makedirs(os.path.join(d, sub), exist_ok=True)
        with open(os.path.join(d, "etc/devices"), "w") as f:
            f.writelines(p + "\n" for p in paths)

    def __call__(self, *command, status=0):
        return run(*command, status=status, env=self.env, cwd=self.d)

    def report(self, *command):
        """Rows of a report, dicts of fields."""
        out = self(*command, "--reportformat", "json", "--units", "b", "--nosuffix")
        return [row for part in json.loads(out)["report"] for rows in part.values() for row in rows]

    @contextlib.contextmanager
    def server(self, pool, *options):
        """nbdkit; yields a function from a volume's name to its URI."""
        need("nbdkit", "nbdcopy")
        sock = os.path.join(self.d, "s.nbd")
        for old in sock, os.path.join(self.d, "run", pool + ".ctl"):    # a killed one's
            if os.path.lexists(old):
                os.unlink(old)
        plugin = os.path.join(BUILD, "nbdkit-vd-plugin.so")
        p = subprocess.Popen(["nbdkit", "-f", "-U", sock, plugin, "pool=" + pool, *options],
                             env=self.env, cwd=self.d, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.kill = p.kill
        try:
            self.wait(p, sock)
            self.wait(p, os.path.join(self.d, "run", pool + ".ctl"))    # made last
            yield lambda v: "nbd+unix:///%s?socket=%s" % (re.sub(r"[^\w.-]", lambda m: "%%%02x" % ord(m[0]), v), sock)
        finally:
            if p.poll() is None:
                p.terminate()
            p.communicate()

    @staticmethod
    def wait(p, sock):
        """Until the server listens there."""
        while not os.path.exists(sock):
            try:
                p.wait(0.02)
                raise Failed("nbdkit ended: " + p.stderr.read())
            except subprocess.TimeoutExpired:
                pass
