#!/usr/bin/env python3
"""Measures a pool of three on this machine and prints the tables of
docs/performance.md.

usage: figures.py [--build DIR] [--seconds S] [--kills N] [--only load|failover]
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tools")]
from localpool import LocalPool  # noqa: E402
from sides import Xenpool, failover, handover, machine  # noqa: E402
from watch import Writer  # noqa: E402


def bench(build, url, connections, reads, seconds, *extra):
    out = subprocess.run(
        [str(build / "poolbench"), "--json", "-c", str(connections), "-r", str(reads),
         "-d", str(seconds), "--warmup", "0.5", *extra, *url], check=True, stdout=subprocess.PIPE,
        env=dict(os.environ, XENPOOL_PASSWORD="secret")).stdout
    return json.loads(out)


def load_table(pool, build, seconds):
    leader = pool.leader()
    follower = next(m for m in pool.members if m is not leader)
    print("| what | clients | ops/s | p50 ms | p99 ms | p99.9 ms | errors |")
    print("|---|---|---|---|---|---|---|")
    cases = [("writes, master", leader, 0, ()), ("writes, other member", follower, 0, ()),
             ("reads, master", leader, 100, ()), ("reads, other member", follower, 100, ()),
             ("local reads, other member", follower, 100, ("--local",)),
             ("writes, master, XML-RPC", leader, 0, ("--xml",))]
    for tls in (False, True):
        for name, member, reads, extra in cases:
            if tls and extra:
                continue
            for c in (1, 16, 64):
                port = pool.https_port if tls else pool.http_port
                r = bench(build, [f"{'https' if tls else 'http'}://{member.address}:{port}"],
                          c, reads, seconds, *extra)
                h = r["reads" if reads else "writes"]
                print(f"| {name}{', TLS' if tls else ''} | {c} | {h['ops_per_s']:.0f} | "
                      f"{h['p50_us'] / 1000:.2f} | {h['p99_us'] / 1000:.2f} | "
                      f"{h['p999_us'] / 1000:.2f} | {r['errors']} |", flush=True)


def failover_table(pool, kills, handovers):
    """Beside the probes writes a client whose every acknowledged write must be there
    afterwards."""
    side, pauses = Xenpool(pool), []
    for _ in range(kills):
        leader = pool.leader()
        others = [m for m in pool.members if m is not leader]
        writer = Writer(others, f"k{time.monotonic_ns()}:", keep=200).start()
        pauses.append(failover(side, then=writer.stop))
        c = others[0].client()
        lost = writer.missing(c)
        c.close()
        assert not lost, f"acknowledged writes are missing: {lost}"
    moves = [handover(side) for _ in range(handovers)]
    print("\n| pause between acknowledged writes | median ms | smallest | largest | failed |")
    print("|---|---|---|---|---|")
    for name, times, failed in (
            (f"kill -9 of the master, {kills} times", pauses, "-"),
            (f"planned hand-over, {handovers} times", [t for t, _ in moves],
             sum(n for _, n in moves))):
        print(f"| {name} | {statistics.median(times):.0f} | {min(times):.0f} | "
              f"{max(times):.0f} | {failed} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--build", default="build", type=pathlib.Path)
    ap.add_argument("--seconds", default=3, type=float)
    ap.add_argument("--kills", default=10, type=int)
    ap.add_argument("--handovers", default=10, type=int)
    ap.add_argument("--only", choices=["load", "failover"])
    args = ap.parse_args()
    print(machine() + "\n")
    with tempfile.TemporaryDirectory(prefix="xenpool-figures-") as folder, \
            LocalPool(args.build, folder) as pool:
        pool.form()
        if args.only != "failover":
            load_table(pool, args.build.resolve(), args.seconds)
        if args.only != "load":
            failover_table(pool, args.kills, args.handovers)


if __name__ == "__main__":
    main()
