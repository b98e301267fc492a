#!/usr/bin/env python3
"""Fails when an include points upward (or sideways) in the house.

usage: check_layers.py [SOURCE-FOLDER]
"""
import pathlib
import re
import sys

# folder -> folders whose headers it may include, itself aside
ALLOWED = {
    "base": set(),
    "schema": {"base"},
    "raftdb": {"base", "schema"},
    "rpc": {"base", "schema"},
    "xen": {"base", "schema"},
    "pool": {"base", "schema", "raftdb", "xen"},
    "tools": {"base", "schema", "raftdb", "rpc", "pool"},
    "tests": {"base", "schema", "raftdb", "rpc", "xen", "pool", "tools"},
}
# single files that may include more, and headers that only some may include
EXTRA = {
    "pool/xenpoold.c": {"rpc"},
    "pool/status.h": {"rpc"},
    "pool/status.c": {"rpc"},
}
# the job protocol is all that pool/ may see of xen/
NARROW = {("pool", "xen"): {"xen/protocol.h"}}
# libraries that stay behind one folder or one file
LIBRARY = {
    r"raft(/.*)?\.h": re.compile(r"(raftdb/(consensus|ioguard|raftmsg).*|tests/.*)"),
    r"libxl.*|xenstore\.h|xenctrl\.h": re.compile(r"(xen/.*|tests/unit/(fakexen|test_xs_watch)\.c)"),
    r"sqlite3\.h": re.compile(r"(raftdb|tests|tools)/.*"),
    r"openssl/.*": re.compile(r"(rpc|raftdb|tests|tools|pool/role.*|pool/tools.*|xen/xl_tls.*)/?.*"),
    r"rfb/.*|vterm.*\.h": re.compile(r"(xen/vncterm_|tests/).*"),
    r"seccomp\.h": re.compile(r"xen/sandbox\.c"),
    r"libxml/.*": re.compile(r"(rpc|tests)/.*"),
}


def check(top):
    bad = []
    for folder, may in ALLOWED.items():
        for path in sorted((top / folder).rglob("*.[ch]")):
            name = path.relative_to(top).as_posix()
            allowed = may | {folder} | EXTRA.get(name, set())
            for number, line in enumerate(path.read_text().splitlines(), 1):
                m = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
                if not m:
                    continue
                target = m.group(2)
                where = f"{name}:{number}"
                if m.group(1) == "<":
                    for pattern, users in LIBRARY.items():
                        if re.fullmatch(pattern, target) and not users.fullmatch(name):
                            bad.append(f"{where}: <{target}> does not belong here")
                    continue
                other = target.split("/")[0]
                if target == "config.h":
                    continue
                if "/" not in target or other not in ALLOWED:
                    bad.append(f'{where}: "{target}" must be written folder/name.h')
                elif other not in allowed:
                    bad.append(f"{where}: {folder}/ may not include {other}/ ({target})")
                elif target not in NARROW.get((folder, other), {target}):
                    bad.append(f"{where}: only {NARROW[(folder, other)]} of {other}/ may be included")
    return bad


def main():
    top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).parent.parent)
    bad = check(top)
    print("\n".join(bad) if bad else "layers: all includes point down")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
