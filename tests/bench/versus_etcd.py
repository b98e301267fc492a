#!/usr/bin/env python3
"""Runs a pool of three and an etcd cluster of three alternately on this machine,
under the same load, and prints the tables of docs/performance.md with the ratios
and, at the end, which goals are met.

usage: versus_etcd.py [--quick] [--markdown FILE] [--build DIR]
                      [--only load|tls|failover|handover|large]

Both keep their logs on the same disk and flush every write to it, as they do by
default; both elect after 150 ms without a heartbeat, sent every 15 ms. Clients speak
plain HTTP (rows that say TLS aside) and are spread over all three members, the
leader first; the load generator is the same program. etcd is loaded over gRPC, its
native protocol, and beside it over its JSON gateway; goals are judged by gRPC. The
one whose turn it is not stands still (SIGSTOP). The columns of microseconds are the
processor time of all members for one call, idle work included: they hold on a busy
machine, too.

In full it takes about ten minutes, --quick two.
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
import large_pool  # noqa: E402
from localpool import LocalPool  # noqa: E402
from sides import EtcdSide, Xenpool, failover, handover, machine  # noqa: E402

WRITES = ("durable writes", ("-r", "0"))
READS = ("linearizable reads", ("-r", "100", "--read-own"))
LOCAL = ("local / serializable reads", ("-r", "100", "--read-own", "--local"))
FULL = dict(rounds=5, seconds=1.0, kills=20, silences=5, handovers=10, objects=100000)
QUICK = dict(rounds=1, seconds=0.6, kills=3, silences=1, handovers=2, objects=100000)

GOALS = []  # (what, wanted, seen, met)


def goal(what, seen, unit, least=None, below=None):
    met = seen >= least if below is None else seen < below
    wanted = f">= {least:g}{unit}" if below is None else f"< {below:g}{unit}"
    GOALS.append((what, wanted, f"{seen:.3g}{unit}", "met" if met else "**missed**"))


class Report:
    """Prints lines and keeps them for the file."""

    def __init__(self):
        self.lines = []

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def table(self, head, rows):
        self.say()
        self.say("| " + " | ".join(head) + " |")
        self.say("|" + "---|" * len(head))
        for row in rows:
            self.say("| " + " | ".join(map(str, row)) + " |")


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


def cells(rs):
    """ops/s, p50 / p99 and processor time of one side's runs."""
    errors = sum(r["errors"] for r in rs)
    return [f"{median([r['ops_per_s'] for r in rs]):.0f}"
            + (f" ({errors} errors)" if errors else ""),
            " / ".join(f"{median([r[q] for r in rs]) / 1000:.2f}"
                       for q in ("p50_us", "p99_us")),
            f"{median([r['cpu_us'] for r in rs]):.0f}"]


def load_rows(sides, program, plan, measures, clients, tls=False):
    """The last columns are the first side's ratios to the others."""
    seen = {}
    for _ in range(plan["rounds"]):
        for title, options in measures:
            for c in clients:
                pair = in_turn(sides, lambda s: s.load(program, c, plan["seconds"],
                                                       options, tls))
                seen.setdefault((title, c), []).append(pair)
    for (title, c), pairs in seen.items():
        ratios = [median([p[sides[0].name]["ops_per_s"] /
                          max(p[s.name]["ops_per_s"], 1e-9) for p in pairs])
                  for s in sides[1:]]
        if not tls and not (title == WRITES[0] and c == 16):
            goal(f"{title}, {c} client{'s' * (c > 1)}, to etcd over gRPC", ratios[0], "",
                 least=2 if (title, c) == (WRITES[0], 1) else 3)
        row = [title + (", TLS" if tls else ""), c]
        for side in sides:
            row += cells([p[side.name] for p in pairs])
        yield row + [f"**{ratio:.2f}**" for ratio in ratios]


def load_head(sides):
    head = ["what", "clients"]
    for side in sides:
        head += [f"{side.name} ops/s", "p50 / p99 ms", "µs"]
    return head + [f"to {side.name}" for side in sides[1:]]


def failover_rows(sides, plan):
    for what, sig, times in (
            ("kill -9 of the leader", signal.SIGKILL, plan["kills"]),
            ("silence of the leader (SIGSTOP)", signal.SIGSTOP, plan["silences"])):
        pairs = [in_turn(sides, lambda s: failover(s, sig)) for _ in range(times)]
        for name, f in (("median", median), ("smallest", min), ("largest", max)):
            a, b = (f([p[s.name] for p in pairs]) for s in sides)
            yield (f"{what} to the next acknowledged write, {name} of {times}",
                   f"{a:.0f} ms", f"{b:.0f} ms", f"{a / b:.2f}")
            if name == "median" and sig == signal.SIGKILL:
                goal("failover, median", a, " ms", below=300)
                goal("failover, median, to etcd's", a / b, "", below=1)


def handover_rows(sides, plan):
    n = plan["handovers"]
    pairs = [in_turn(sides, handover) for _ in range(n)]
    for name, f in (("median", median), ("largest", max)):
        a, b = (f([p[s.name][0] for p in pairs]) for s in sides)
        yield (f"planned hand-over, longest pause between writes, {name} of {n}",
               f"{a:.0f} ms", f"{b:.0f} ms", f"{a / b:.2f}")
    goal("planned hand-over, largest", max(p["xenpool"][0] for p in pairs), " ms",
         below=100)
    a, b = (sum(p[s.name][1] for p in pairs) for s in sides)
    goal("failed writes in planned hand-overs", a, "", below=1)
    yield f"failed writes in {n} hand-overs", a, b, ""


def beside_etcd(args, plan, report):
    program = str(args.build.resolve() / "poolbench")
    with tempfile.TemporaryDirectory(prefix="xenpool-versus-") as folder, \
            LocalPool(args.build, folder + "/xenpool") as pool, \
            etcd.Etcd(folder + "/etcd") as cluster, \
            etcd.Etcd(folder + "/etcd-tls", tls=True) as secure:
        pool.form()
        ours, native = Xenpool(pool), EtcdSide(cluster)
        gateway = EtcdSide(cluster, "etcd JSON", ("--etcd",))
        sides, tls = [ours, native], [ours, EtcdSide(secure)]
        try:
            for s in sides + tls[1:]:
                s.pause()
            if args.only in (None, "load"):
                three = sides + [gateway]
                report.table(load_head(three), load_rows(
                    three, program, plan, (WRITES, READS, LOCAL), (1, 16, 64, 256)))
            if args.only in (None, "tls"):
                report.table(load_head(tls), load_rows(
                    tls, program, dict(plan, rounds=min(plan["rounds"], 3)),
                    (WRITES, READS, LOCAL), (1, 64), True))
            head = ("what", "xenpool", "etcd", "ratio")
            if args.only in (None, "failover"):
                report.table(head, failover_rows(sides, plan))
            if args.only in (None, "handover"):
                report.table(head, handover_rows(sides, plan))
        finally:
            for p in [n.child for c in (cluster, secure) for n in c.nodes] + \
                    [m.daemon for m in pool.members]:
                if p.poll() is None:
                    p.send_signal(signal.SIGCONT)


def large_rows(args, plan):
    for row in large_pool.measure(args.build.resolve(), plan["objects"]):
        yield row.what, f"{row.ms:.1f} ms", row.also
        if row.below:
            goal(row.what, row.ms, " ms", below=row.below)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--build", default="build", type=pathlib.Path)
    ap.add_argument("--quick", action="store_true", help="one round of everything")
    ap.add_argument("--markdown", type=pathlib.Path, help="write the tables there, too")
    ap.add_argument("--only", choices=["load", "tls", "failover", "handover", "large"])
    args = ap.parse_args()
    if etcd.missing():
        sys.exit(f"{', '.join(etcd.missing())} not found: apt-get install etcd-server "
                 "etcd-client")
    begin, plan, report = time.monotonic(), QUICK if args.quick else FULL, Report()
    report.say(f"{machine()}; etcd {etcd.version()}")
    if args.only != "large":
        beside_etcd(args, plan, report)
    if args.only in (None, "large"):
        report.table((f"a pool of one with {plan['objects']} objects", "", ""),
                     large_rows(args, plan))
    report.table(("goal", "wanted", "seen", ""), GOALS)
    report.say(f"\n{' '.join(sys.argv[1:]) or 'in full'}: {time.monotonic() - begin:.0f} s; "
               f"ratios are medians of {plan['rounds']} pairs (TLS: at most 3), other "
               "numbers medians of each system's runs")
    if args.markdown:
        args.markdown.write_text("\n".join(report.lines) + "\n")


if __name__ == "__main__":
    main()
