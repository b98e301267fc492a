#!/usr/bin/env python3
"""Runs a pool of three and an etcd cluster of three alternately on this machine,
under the same load, and prints the comparison of docs/performance.md.

usage: versus_etcd.py [--build DIR] [--rounds N] [--seconds S] [--kills N]
                      [--handovers N] [--only load|failover|handover]

Both keep their logs on the same disk and flush every write to it, as they do by
default; both elect after 150 ms without a heartbeat, sent every 15 ms. Clients speak
plain HTTP and are spread over all three members; the load generator is the same
program. The one whose turn it is not stands still (SIGSTOP).
"""
import argparse
import pathlib
import random
import signal
import statistics
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tools")]
import etcd  # noqa: E402
from localpool import LocalPool  # noqa: E402
from sides import EtcdSide, Xenpool, failover, handover, machine  # noqa: E402

CLIENTS = (1, 16, 64, 256)
MEASURES = (("durable writes", ("-r", "0")),
            ("linearizable reads", ("-r", "100", "--read-own")),
            ("local / serializable reads", ("-r", "100", "--read-own", "--local")))


def in_turn(sides, what):
    """{name: what(side)}, each while the others stand still, in random order."""
    results = {}
    for side in random.sample(sides, len(sides)):
        side.resume()
        results[side.name] = what(side)
        side.pause()
    return results


def median(values):
    return statistics.median(values)


def load_rows(sides, program, rounds, seconds):
    seen = {}
    for _ in range(rounds):
        for title, options in MEASURES:
            for c in CLIENTS:
                pair = in_turn(sides, lambda s: s.load(program, c, seconds, options))
                seen.setdefault((title, c), []).append(pair)
    for (title, c), pairs in seen.items():
        cells = []
        for side in sides:
            rs = [p[side.name] for p in pairs]
            cells.append(f"{median([r['ops_per_s'] for r in rs]):.0f} | "
                         f"{median([r['p50_us'] for r in rs]) / 1000:.2f} / "
                         f"{median([r['p99_us'] for r in rs]) / 1000:.2f}")
            if any(r["errors"] for r in rs):
                cells[-1] += f" ({sum(r['errors'] for r in rs)} errors)"
        ratio = median([p["xenpool"]["ops_per_s"] / max(p["etcd"]["ops_per_s"], 1e-9)
                        for p in pairs])
        yield f"| {title} | {c} | {cells[0]} | {cells[1]} | **{ratio:.2f}** |"


def failover_rows(sides, n):
    for what, sig, times in (("kill -9 of the leader", signal.SIGKILL, n),
                             ("silence of the leader (SIGSTOP)", signal.SIGSTOP, n // 4)):
        pairs = [in_turn(sides, lambda s: failover(s, sig)) for _ in range(times)]
        for name, f in (("median", median), ("smallest", min), ("largest", max)):
            if not pairs:
                continue
            a, b = (f([p[s.name] for p in pairs]) for s in sides)
            yield (f"| {what} to the next acknowledged write, {name} of {times} | "
                   f"{a:.0f} ms | {b:.0f} ms | {a / b:.2f} |")


def handover_rows(sides, n):
    pairs = [in_turn(sides, handover) for _ in range(n)]
    for name, f in (("median", median), ("largest", max)):
        a, b = (f([p[s.name][0] for p in pairs]) for s in sides)
        yield (f"| planned hand-over, longest pause between writes, {name} of {n} | "
               f"{a:.0f} ms | {b:.0f} ms | {a / b:.2f} |")
    a, b = (sum(p[s.name][1] for p in pairs) for s in sides)
    yield f"| failed writes in {n} hand-overs | {a} | {b} | |"


def table(head, rows):
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for row in rows:
        print(row, flush=True)


def measure(args, pool, cluster):
    sides = [Xenpool(pool), EtcdSide(cluster)]
    program = str(args.build.resolve() / "poolbench")
    for s in sides:
        s.pause()
    if args.only in (None, "load"):
        table(("what", "clients", "xenpool ops/s", "p50 / p99 ms", "etcd ops/s",
               "p50 / p99 ms", "ratio"),
              load_rows(sides, program, args.rounds, args.seconds))
    head = ("what", "xenpool", "etcd", "ratio")
    if args.only in (None, "failover"):
        table(head, failover_rows(sides, args.kills))
    if args.only in (None, "handover"):
        table(head, handover_rows(sides, args.handovers))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--build", default="build", type=pathlib.Path)
    ap.add_argument("--rounds", default=3, type=int)
    ap.add_argument("--seconds", default=1.2, type=float)
    ap.add_argument("--kills", default=20, type=int)
    ap.add_argument("--handovers", default=10, type=int)
    ap.add_argument("--only", choices=["load", "failover", "handover"])
    args = ap.parse_args()
    if etcd.missing():
        sys.exit(f"{', '.join(etcd.missing())} not found: apt-get install etcd-server "
                 "etcd-client (or ./dev bench, which does)")
    begin = time.monotonic()
    print(f"{machine()}; etcd {etcd.version()} over its JSON gateway", flush=True)
    with tempfile.TemporaryDirectory(prefix="xenpool-versus-") as folder:
        with LocalPool(args.build, folder + "/xenpool") as pool, \
                etcd.Etcd(folder + "/etcd") as cluster:
            pool.form()
            try:
                measure(args, pool, cluster)
            finally:
                for p in [n.child for n in cluster.nodes] + [m.daemon for m in pool.members]:
                    if p.poll() is None:
                        p.send_signal(signal.SIGCONT)
    print(f"\n{time.monotonic() - begin:.0f} s; ratios are medians of {args.rounds} "
          "pairs, other numbers medians of each system's runs")


if __name__ == "__main__":
    main()
