#!/usr/bin/env python3
"""The generated tables are up to date, and say what the facts files say."""
import os
import pathlib
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build"))


def main():
    commands = [[TOP / "schema/generate.py", "--check"],
                [TOP / "tests/schema/check_facts.py", BUILD / "tests/schema/dump_schema"]]
    codes = [subprocess.run([sys.executable, *map(str, c)], cwd=TOP).returncode
             for c in commands]
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
