#!/usr/bin/env python3
"""Measures a pool of three on this machine and prints the tables of
docs/performance.md.

usage: figures.py [--build DIR] [--seconds N] [--kills N] [--only load|failover]
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent.parent / "tools"))
from localpool import LocalPool  # noqa: E402
from watch import Writer  # noqa: E402


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo")
                if l.startswith("model name")), platform.processor())
    memory = int(open("/proc/meminfo").readline().split()[1]) >> 20
    return (f"{os.cpu_count()} cores ({cpu}), {memory} GiB, Linux {platform.release()}; "
            "three members, their executors and the load generator on this one machine")


def bench(build, url, connections, reads, seconds, *extra):
    out = subprocess.run(
        [str(build / "poolbench"), "--json", "-c", str(connections), "-r", str(reads),
         "-d", str(seconds), *extra, *url], check=True, stdout=subprocess.PIPE,
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


def failover_table(pool, kills):
    pauses = []
    for _ in range(kills):
        leader = pool.leader()
        others = [m for m in pool.members if m is not leader]
        writer = Writer(others, f"k{time.monotonic_ns()}:", keep=200).start()
        time.sleep(1.0)
        killed = time.monotonic()
        leader.kill("daemon")
        time.sleep(2.5)
        writer.stop()
        after = [t for _, t in writer.acked if t > killed]
        pauses.append((min(after) - killed) * 1000)
        lost = writer.missing(others[0].client())
        assert not lost, f"acknowledged writes are missing: {lost}"
        leader.start_daemon()
        leader.wait_up()
        pool.wait_converged()
    pauses.sort()
    print("\n| kill -9 of the master to the next acknowledged write | ms |")
    print("|---|---|")
    print(f"| median of {kills} | {statistics.median(pauses):.0f} |")
    print(f"| smallest, largest | {pauses[0]:.0f}, {pauses[-1]:.0f} |")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--build", default="build", type=pathlib.Path)
    ap.add_argument("--seconds", default=5, type=int)
    ap.add_argument("--kills", default=10, type=int)
    ap.add_argument("--only", choices=["load", "failover"])
    args = ap.parse_args()
    print(machine() + "\n")
    with tempfile.TemporaryDirectory(prefix="xenpool-figures-") as folder, \
            LocalPool(args.build, folder) as pool:
        pool.form()
        if args.only != "failover":
            load_table(pool, args.build.resolve(), args.seconds)
        if args.only != "load":
            failover_table(pool, args.kills)


if __name__ == "__main__":
    main()
