#!/usr/bin/env python3
"""The house budget as a test with a ratchet: file, header and function lengths.

usage: check_style.py [SOURCE-FOLDER]

Files may have 1000 lines, headers 250, functions 100 (aim for 70). A place that
is over stands in OVER with its present size: it may shrink, never grow.
"""
import pathlib
import re
import sys

FILE, HEADER, FUNCTION = 1000, 250, 100
FOLDERS = ["base", "schema", "raftdb", "rpc", "xen", "pool", "tools", "tests"]
OVER = {
}


def functions(lines):
    """(name, first line, length) of functions whose braces stand in column 0."""
    start = None
    for i, line in enumerate(lines):
        if line.startswith("{"):
            start = i
        elif line.startswith("}") and start is not None:
            name = "?"
            for back in range(start - 1, max(start - 8, -1), -1):
                m = re.match(r"[A-Za-z_].*?\b(\w+)\s*\(", lines[back])
                if m:
                    name = m.group(1)
                    break
            yield name, start, i - start + 1
            start = None


def check(top):
    bad = []
    for folder in FOLDERS:
        for path in sorted((top / folder).rglob("*.[ch]")):
            name = path.relative_to(top).as_posix()
            if "/gen/" in name:
                continue
            lines = path.read_text().splitlines()
            limit = OVER.get(name, HEADER if path.suffix == ".h" and folder != "tests"
                             else FILE)
            if len(lines) > limit:
                bad.append(f"{name}: {len(lines)} lines, {limit} are allowed")
            for function, at, length in functions(lines):
                limit = OVER.get(f"{name}:{function}", FUNCTION)
                if length > limit:
                    bad.append(f"{name}:{at + 1}: {function}() has {length} lines, "
                               f"{limit} are allowed")
            for number, line in enumerate(lines, 1):
                if re.search(r"(?<!\w)(strcat|sprintf|vsprintf|gets)\(", line):
                    bad.append(f"{name}:{number}: unbounded string function")
                if line.rstrip() != line:
                    bad.append(f"{name}:{number}: white space at the end")
    return bad


def main():
    top = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else
                       pathlib.Path(__file__).parent.parent)
    bad = check(top)
    print("\n".join(bad) if bad else "style: within the house budget")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
