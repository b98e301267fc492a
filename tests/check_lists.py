#!/usr/bin/env python3
"""Every source file stands in a local.mk of its folder, so that a tarball has it."""
import pathlib
import sys

FOLDERS = ["base", "schema", "raftdb", "rpc", "xen", "pool", "tools", "tests"]


def main():
    top = pathlib.Path(__file__).resolve().parent.parent
    bad = 0
    for folder in FOLDERS:
        text = " ".join(p.read_text() for p in (top / folder).rglob("local.mk")).split()
        for path in sorted((top / folder).rglob("*.[ch]")):
            name = path.relative_to(top).as_posix()
            parents = {str(p) for p in pathlib.PurePosixPath(name).parents}
            if name not in text and not parents & set(text):
                print(f"{folder}/local.mk does not name {name}")
                bad = 1
    print("lists: complete" if not bad else "add them to the lists above")
    return bad


if __name__ == "__main__":
    sys.exit(main())
