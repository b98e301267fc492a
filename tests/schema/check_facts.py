#!/usr/bin/env python3
"""Compares the compiled schema with the facts that the project keeps.

    check_facts.py DUMP_SCHEMA           compares, in both directions
    check_facts.py DUMP_SCHEMA --write   rewrites the facts from the tables

The facts are what clients rely on: every name, type, default, role and flag of
the public API. A change here must be meant. Exits 1 when anything differs.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TABLES = ("classes", "fields", "methods", "enums", "errors", "relations",
          "roles", "role_sets", "alerts")
SHOWN = 20  # differences of one table


def rows(lines):
    """Header and rows by their first column."""
    header = lines[0].lstrip("#").split("\t")
    out = {}
    for line in lines[1:]:
        key = line.split("\t", 1)[0]
        if key in out:
            sys.exit("check_facts.py: %s twice" % key)
        out[key] = line.split("\t")
    return header, out


def kept(table):
    with open(path(table), encoding="utf-8") as f:
        return f.read().splitlines()


def path(table):
    return os.path.join(HERE, table + ".tsv")


def compiled(program, table):
    out = subprocess.run([program, table], check=True, stdout=subprocess.PIPE)
    lines = out.stdout.decode().splitlines()
    return lines[:1] + sorted(lines[1:], key=str.encode)


def columns(header, want, have):
    """The columns of one row that differ."""
    for i in range(max(len(want), len(have))):
        a = want[i] if i < len(want) else "(nothing)"
        b = have[i] if i < len(have) else "(nothing)"
        if a != b:
            yield "%s: kept %s, compiled %s" % (
                header[min(i, len(header) - 1)], a, b)


def compare(table, want_lines, have_lines):
    header, want = rows(want_lines)
    have_header, have = rows(have_lines)
    out = []
    if header != have_header:
        out.append("the header differs")
    for key in sorted(want.keys() - have.keys()):
        out.append("%s: only in the facts" % key)
    for key in sorted(have.keys() - want.keys()):
        out.append("%s: only in the tables" % key)
    for key in sorted(want.keys() & have.keys()):
        for text in columns(header, want[key], have[key]):
            out.append("%s: %s" % (key, text))
    for text in out[:SHOWN]:
        print("%s: %s" % (table, text))
    if len(out) > SHOWN:
        print("%s: and %d more" % (table, len(out) - SHOWN))
    return len(out), have


def count(have, column, word):
    return sum(word in r[column].split(",") for r in have.values())


def summary(tables):
    fields, methods = tables["fields"], tables["methods"]
    own = count(methods, 1, "custom")
    return [
        ("classes", len(tables["classes"])),
        ("fields", len(fields)),
        ("internal fields", count(fields, 5, "internal")),
        ("methods", len(methods)),
        ("of their own", own),
        ("generated", len(methods) - own),
        ("with an Async form", count(methods, 3, "async")),
        ("enums", len(tables["enums"])),
        ("enum values", sum(len(r) - 1 for r in tables["enums"].values())),
        ("errors", len(tables["errors"])),
        ("relations", len(tables["relations"])),
        ("role sets", len(tables["role_sets"])),
        ("alerts", len(tables["alerts"])),
    ]


def write(program):
    for table in TABLES:
        with open(path(table), "w", encoding="utf-8") as f:
            f.write("\n".join(compiled(program, table)) + "\n")


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[2:] not in ([], ["--write"]):
        sys.exit("usage: check_facts.py DUMP_SCHEMA [--write]")
    program = os.path.abspath(sys.argv[1])
    if sys.argv[2:]:
        write(program)
        return
    differences, tables = 0, {}
    for table in TABLES:
        n, tables[table] = compare(table, kept(table),
                                   compiled(program, table))
        differences += n
    print(", ".join("%d %s" % (n, what) for what, n in summary(tables)))
    print("%d differences" % differences)
    sys.exit(1 if differences else 0)


if __name__ == "__main__":
    main()
