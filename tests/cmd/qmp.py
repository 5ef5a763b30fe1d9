#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
qmp.py SOCKET COMMAND [ARGUMENTS]: one command to a QEMU; prints what it answers.

qmp.py --peer SOCKET [COMMAND=DEED]...: in QEMU's place, with one virtio-scsi controller
and no guest.  It does what it is asked, until COMMAND comes, when it does DEED:
  hang          answers nothing any more       close         closes the connection
  die           ends, at once                  error:TEXT    refuses, for that reason
  lie           says it did, and did not       line:TEXT     sends that line for an answer
  endless       sends a line without an end    events        sends events without an end
  stop          stops, for all, until SIGCONT
COMMAND "connect" is the greeting.  `bus=N`: so many controllers.  What was asked is in SOCKET.log.
"""
import json
import os
import signal
import socket
import sys


def ask(path, command, arguments=None):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(30)
    s.connect(path)
    f = s.makefile("rw")

    def call(what):
        f.write(json.dumps(what) + "\n")
        f.flush()
        while True:
            o = json.loads(f.readline())
            if "event" not in o:
                return o
    json.loads(f.readline())
    call({"execute": "qmp_capabilities"})
    o = call({"execute": command, **({"arguments": json.loads(arguments)} if arguments else {})})
    print(json.dumps(o.get("return", o)))
    return "error" in o


class Refused(Exception):
    pass


class Peer:
    def __init__(self, path, deeds):
        self.path, self.deeds = path, dict(d.split("=", 1) for d in deeds)
        self.buses = int(self.deeds.pop("bus", 1))
        self.nodes, self.disks = {}, {}

    def send(self, c, o):
        c.sendall(json.dumps(o).encode() + b"\n")

    def serve(self):
        s = socket.socket(socket.AF_UNIX)
        s.bind(self.path)
        s.listen(1)
        with open(self.path + ".log", "w") as self.log:
            while True:
                c = s.accept()[0]
                try:
                    self.talk(c)
                except (BrokenPipeError, ConnectionResetError):
                    pass
                c.close()

    def talk(self, c):
        f = c.makefile()
        if self.deed(c, "connect"):
            return
        self.send(c, {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}})
        for line in f:
            o = json.loads(line)
            what, a = o["execute"], o.get("arguments", {})
            self.log.write(line)
            self.log.flush()
            events = []
            try:
                done = self.deed(c, what, o.get("id"))
                if done == "close":
                    return
                if done:
                    continue
                r = getattr(self, what.replace("-", "_"))(events, **{k.replace("-", "_"): v for k, v in a.items()})
                self.send(c, {"return": r, "id": o.get("id")})
                for e in events:
                    self.send(c, e)
            except Refused as e:
                self.send(c, {"error": {"class": "GenericError", "desc": str(e)}, "id": o.get("id")})

    def deed(self, c, what, number=None):
        deed, _, text = self.deeds.get(what, "").partition(":")
        if deed == "hang":
            while c.recv(4096):
                pass
        elif deed == "die":
            os._exit(0)
        elif deed == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
            del self.deeds[what]
            return "close"
        elif deed == "error":
            raise Refused(text)
        elif deed == "lie":
            self.send(c, {"return": {}, "id": number})
        elif deed == "line":
            c.sendall(text.encode() + b"\n")
        elif deed == "endless":
            while True:
                c.sendall(b'{"x": "' + b"a" * 65536)
        elif deed == "events":
            while True:
                self.send(c, {"event": "DEVICE_DELETED", "data": {"device": "x" * 100, "path": "/"}})
        return "close" if deed in ("hang", "close") else deed

    def qmp_capabilities(self, events):
        return {}

    def qom_list(self, events, path):
        if path == "/machine/peripheral":
            return [{"name": "type", "type": "string"}] + \
                [{"name": "scsi%d" % i, "type": "child<virtio-scsi-pci>"} for i in range(self.buses)] + \
                [{"name": d, "type": "child<scsi-hd>"} for d in self.disks]
        if path.endswith("/virtio-backend"):
            return [{"name": path.split("/")[-2] + ".0", "type": "child<SCSI>"}]
        return []

    def qom_get(self, events, path, property):
        disk = self.disks[path.split("/")[-1]]
        return {"parent_bus": "/machine/peripheral/x/" + disk["bus"], "channel": 0, "scsi-id": disk["target"], "lun": 0}[property]

    def blockdev_add(self, events, node_name, filename, read_only, **other):
        if node_name in self.nodes:
            raise Refused("Duplicate nodes with node-name='%s'" % node_name)
        self.nodes[node_name] = os.open(filename, os.O_RDONLY if read_only else os.O_RDWR), filename, read_only
        return {}

    def blockdev_del(self, events, node_name):
        if node_name not in self.nodes:
            raise Refused("Failed to find node with node-name='%s'" % node_name)
        os.close(self.nodes.pop(node_name)[0])
        return {}

    def query_named_block_nodes(self, events, flat=False):
        return [{"node-name": n} for n in self.nodes]

    def device_add(self, events, id, bus, drive, **other):
        self.disks[id] = {"bus": bus, "drive": drive, "target": len(self.disks), **other}
        return {}

    def device_del(self, events, id):
        if id not in self.disks:
            raise Refused("Device '%s' not found" % id)
        del self.disks[id]
        events.append({"event": "DEVICE_DELETED", "data": {"device": id, "path": "/machine/peripheral/" + id}})
        return {}

    def query_block(self, events):
        out = []
        for d in self.disks:
            fd, name, ro = self.nodes[d]
            out.append({"device": "", "qdev": d, "inserted": {"node-name": d, "ro": ro, "image": {
                "filename": name, "virtual-size": os.lseek(fd, 0, os.SEEK_END)}}})
        return out

    def block_resize(self, events, node_name, size):
        return {}


if sys.argv[1] == "--peer":
    Peer(sys.argv[2], sys.argv[3:]).serve()
sys.exit(ask(*sys.argv[1:]))
