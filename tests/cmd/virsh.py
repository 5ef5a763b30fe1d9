#!/usr/bin/env -S python3 -B
# SPDX-License-Identifier: GPL-2.0-only
"""
virsh -c qemu:///system -q COMMAND --domain NAME [OPTION]...: in virsh's place, with domains that are files of $VIRSH_DIR,
NAME.xml, with an "id" while they run.  It takes no more than what vd has to say, as libvirt 9 does.  `log` is what it was
asked.  `deeds` are lines COMMAND=DEED:
  error:TEXT  refuses, for that reason       lie   says it did, and did not
  hang        answers nothing                late  waits for the file `go`, and does it then
  cut         does it, and says that it has failed
"""
import os
import re
import sys
import time
import xml.etree.ElementTree as ET

there = os.environ["VIRSH_DIR"]


def fail(*lines):
    for line in lines:
        print("error: " + line, file=sys.stderr)
    sys.exit(1)


def fits(e, conditions):
    for c in conditions:
        if m := re.fullmatch(r"@(\w+)='([^']*)'", c):
            if e.get(m[1]) != m[2]:
                return False
        elif m := re.fullmatch(r"(\w+)='([^']*)'", c):
            if m[2] not in [k.text for k in e.findall(m[1])]:
                return False
        elif m := re.fullmatch(r"starts-with\(@(\w+),'([^']*)'\)", c):
            if not e.get(m[1], "").startswith(m[2]):
                return False
        else:
            fail("no such condition here: " + c)
    return True


def found(root, path):
    """Elements, and (element, attribute), by so much of XPath as is asked."""
    now = [root]
    if not path.startswith("/domain/"):
        fail("not from the root: " + path)
    for step in re.findall(r"/((?:[^/\[]|\[[^\]]*\])+)", path)[1:]:
        name, conditions = step.split("[")[0], re.findall(r"\[([^\]]*)\]", step)
        if name.startswith("@"):
            return [(e, a) for e in now for a in e.keys() if name in ("@*", "@" + a)]
        now = [k for e in now for k in e if name in ("*", k.tag) and fits(k, conditions)]
    return now


def dumpxml(root, xpath):
    hits = [h for p in xpath.split(" | ") for h in found(root, p)]
    for e in root.iter():  # in the order of the document
        if e in hits:
            print(ET.tostring(e, encoding="unicode").strip())
        for a in e.keys():
            if (e, a) in hits:
                print(f' {a}="{e.get(a)}"')
    print()


def size_of(device):
    with open(device, "rb") as f:
        return f.seek(0, os.SEEK_END)


def attach(root, file):
    with open(file) as f:
        disk = ET.fromstring(f.read())
    at, target = disk.find("address"), disk.find("target")
    if disk.tag != "disk" or disk.get("type") != "block" or not os.path.exists(disk.find("source").get("dev")):
        fail("Failed to attach device from " + file, "XML error: no block device")
    for d in root.findall("devices/disk"):
        if d.find("target").get("dev") == target.get("dev") or d.find("address").attrib == at.attrib:
            fail("Failed to attach device from " + file, f"XML error: target '{target.get('dev')}' duplicated")
    if at.get("controller") not in [c.get("index") for c in root.findall("devices/controller[@type='scsi']")]:
        fail("Failed to attach device from " + file, "internal error: No more available PCI slots")
    disk.set("capacity", str(size_of(disk.find("source").get("dev"))))
    root.find("devices").append(disk)


def disk_of(root, name):
    for d in root.findall("devices/disk"):
        if d.find("target").get("dev") == name:
            return d
    fail("Failed to get disk information")


def main():
    a = sys.argv[1:]
    if a[:3] != ["-c", "qemu:///system", "-q"] or len(a) < 6 or a[4] != "--domain":
        fail("not so: " + " ".join(a))
    command, name, rest, path = a[3], a[5], a[6:], f"{there}/{a[5]}.xml"
    with open(there + "/log", "a") as f:
        f.write(" ".join(a[3:]) + "\n")
    deed = ""
    if os.path.exists(there + "/deeds"):
        with open(there + "/deeds") as f:
            deed = dict(line.rstrip("\n").split("=", 1) for line in f).get(command, "")
    if deed == "hang":
        time.sleep(3600)
    while deed == "late" and os.path.isdir(there) and not os.path.exists(there + "/go"):
        time.sleep(0.02)
    if deed.startswith("error:"):
        fail("Failed to do it", deed[6:])
    if deed == "lie":
        return
    if not os.path.exists(path):
        fail(f"failed to get domain '{name}'")
    root = ET.parse(path).getroot()
    if command != "dumpxml" and not root.get("id"):
        fail("Requested operation is not valid: domain is not running")
    match command, rest:
        case "dumpxml", ["--xpath", xpath]:
            return dumpxml(root, xpath)
        case "dommemstat", []:
            return print("rss 1")
        case "domblkinfo", ["--device", disk]:
            return print("Capacity:       " + disk_of(root, disk).get("capacity"))
        case "attach-device", ["--file", file, "--live"]:
            attach(root, file)
        case "detach-disk", ["--target", disk, "--live"]:
            root.find("devices").remove(disk_of(root, disk))
        case "blockresize", ["--path", disk, "--size", size]:
            if int(size.removesuffix("b")) > size_of(disk_of(root, disk).find("source").get("dev")):
                fail("Cannot grow device files")
            disk_of(root, disk).set("capacity", size.removesuffix("b"))
        case _:
            fail("unknown: " + " ".join(a))
    ET.ElementTree(root).write(path + ".new")
    os.rename(path + ".new", path)
    if deed == "cut":
        fail("Disconnected from qemu:///system due to end of file")


main()
