#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
agent.py ask --key FILE --timeout S HOST; agent.py key FILE: in vdagent's place, with a server that is a
directory, $AGENT_DIR: drives.json is what it has, `log` what it was asked, `blank` is there when nothing can be
mounted of a drive.  `deeds` are lines OP=DEED, what it does when it is asked that:
  hang          answers nothing                error:TEXT    refuses, for that reason
  die           does not answer                busy:TEXT     refuses: in use
  line:TEXT     sends that for an answer       endless       sends a line without an end
  lie           says it did, and did not       silent        ends well, and says nothing
A deed "link/mount" is of a link that asks for a mount.
"""
import json
import os
import re
import stat
import sys
import time

server = os.environ["AGENT_DIR"]
NQN = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def read(*names):
    try:
        with open(os.path.join(*names)) as f:
            return f.read().rstrip("\n")
    except OSError:
        return None


def store(drives):
    with open(server + "/drives.new", "w") as f:
        json.dump(drives, f)
    os.rename(server + "/drives.new", server + "/drives.json")


class Refused(Exception):
    pass


def look(via, uuid):
    """The way to a drive is open to this server, and to no other."""
    if via["kind"] == "scsi":
        return
    tree = os.environ["VD_NVMET_DIR"]
    sub = f"{tree}/subsystems/{via['nqn']}"
    if os.listdir(sub + "/allowed_hosts") != [NQN] or read(sub, "attr_allow_any_host") != "0":
        raise Refused("who may come in: " + " ".join(os.listdir(sub + "/allowed_hosts")))
    if os.listdir(sub + "/namespaces") != ["1"] or read(sub, "namespaces/1/enable") != "1":
        raise Refused("no namespace")
    if {read(sub, "namespaces/1", a) for a in ("device_uuid", "device_nguid")} != {uuid}:
        raise Refused("another drive")
    ports = [p for p in os.listdir(tree + "/ports") if os.path.exists(f"{tree}/ports/{p}/subsystems/{via['nqn']}")]
    if [(read(tree, "ports", p, "addr_traddr"), read(tree, "ports", p, "addr_trsvcid")) for p in ports] != [(via["address"], via["port"])]:
        raise Refused("no port")
    if via["dhchap"] != bool(read(tree, "hosts", NQN, "dhchap_key")):
        raise Refused("authentication")


def answer(q):
    drives = json.loads(read(server, "drives.json") or "{}")
    uuid = q.get("uuid")
    if q["op"] == "hello":
        return {"version": "1", "host": "there", "hostnqn": NQN, "hostid": NQN[-36:], "dhchap": bool(read(server, "dhchap"))}
    assert UUID.fullmatch(uuid)
    if q["op"] == "link":
        look(q["via"], uuid)
        assert q["size"] > 0 and q["mode"] in ("rw", "ro")
        d = drives.setdefault(uuid, {"uuid": uuid, "name": q["name"], "device": f"/dev/nvme{len(drives)}n1", "mount": "", "type": "", "note": ""})
        m = q.get("mount")
        if m and not d["mount"] and os.path.exists(server + "/blank") and not m["mkfs"]:
            d["note"] = "nothing that can be mounted is on it"
        elif m and not d["mount"]:
            d.update(mount=m["dir"] or "/srv/vd/" + q["name"].split("/")[1], type=m["mkfs"] or "ext4", asked=m)
        store(drives)
        return d
    if q["op"] == "unlink":
        if not q["test"] and drives.pop(uuid, None):
            store(drives)
        return {}
    assert q["op"] == "gone" and uuid not in drives
    if q["nqn"] and os.listdir(f"{os.environ['VD_NVMET_DIR']}/subsystems/{q['nqn']}/namespaces"):
        raise Refused("it is still there")
    return {}


def fail(text):
    print(os.path.basename(sys.argv[0]) + ": " + text, file=sys.stderr)
    sys.exit(5)


def main(argv):
    if argv[1:2] == ["key"]:
        os.umask(0o077)
        with open(argv[2], "x") as f:
            f.write(os.urandom(32).hex() + "\n")
        return
    key = argv[argv.index("--key") + 1]
    if not os.path.exists(key) or stat.S_IMODE(os.stat(key).st_mode) != 0o600 or not re.fullmatch("[0-9a-f]{64}", read(key)):
        fail(f"{key} is no key")
    assert argv[1] == "ask" and int(argv[argv.index("--timeout") + 1]) > 0
    for line in iter(sys.stdin.readline, ""):
        q = json.loads(line)
        if q["op"] == "secret":
            print(json.dumps({"ok": True, "secret": f"DHHC-1:01:{read(key)[:8]}:"}), flush=True)
            continue
        with open(server + "/log", "a") as f:
            f.write(line)
        deeds = dict(d.split("=", 1) for d in (read(server, "deeds") or "").splitlines())
        deed, _, text = deeds.get(q["op"] + ("/mount" if "mount" in q else ""), "").partition(":")
        if deed == "hang":
            time.sleep(1000)
        elif deed == "die":
            fail(argv[-1] + ": connection refused")
        elif deed == "silent":
            sys.exit(0)
        elif deed == "endless":
            while True:
                sys.stdout.write("x" * 4096)
        elif deed == "line":
            print(text)
        elif deed == "lie":
            print('{"ok": true, "device": "/dev/nvme0n1"}')
        elif deed in ("error", "busy"):
            print(json.dumps({"ok": False, "errno": 16 if deed == "busy" else 5, "error": text}))
        else:
            try:
                print(json.dumps({"ok": True, **answer(q)}))
            except (Refused, OSError) as e:
                print(json.dumps({"ok": False, "errno": 5, "error": "the mock: " + str(e)}))
        sys.stdout.flush()


main(sys.argv)
