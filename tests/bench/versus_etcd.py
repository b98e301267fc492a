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
import base64
import json
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "tools")]
import etcd  # noqa: E402
from figures import machine  # noqa: E402
from localpool import BROKEN, ApiError, LocalPool  # noqa: E402
from probe import Prober  # noqa: E402

CLIENTS = (1, 16, 64, 256)
MEASURES = (("durable writes", ("-r", "0")),
            ("linearizable reads", ("-r", "100", "--read-own")),
            ("local / serializable reads", ("-r", "100", "--read-own", "--local")))


class Side:
    """What both systems have in common: processes, a turn, a load, probes."""

    def processes(self):
        raise NotImplementedError

    def pause(self):
        for p in self.processes():
            p.send_signal(signal.SIGSTOP)

    def resume(self):
        for p in self.processes():
            p.send_signal(signal.SIGCONT)
        self.settle()

    def load(self, program, connections, seconds, options):
        out = subprocess.run(
            [program, "--json", "-c", str(connections), "-d", str(seconds),
             "--warmup", "0.3", *self.options, *options, *self.urls()],
            stdout=subprocess.PIPE, check=True).stdout
        r = json.loads(out)
        return dict(r["writes" if "0" in options else "reads"], errors=r["errors"])


class Xenpool(Side):
    name = "xenpool"
    options = ("-p", "secret")

    def __init__(self, pool):
        self.pool = pool
        self.session = self.object = None

    def processes(self):
        return [m.daemon for m in self.pool.members]

    def settle(self):
        self.pool.leader()
        self.pool.wait_converged()

    def urls(self):
        leader = self.pool.leader()
        members = [leader] + [m for m in self.pool.members if m is not leader]
        return [f"http://{m.address}:{self.pool.http_port}" for m in members]

    def _prepare(self):
        if not self.session:
            c = self.pool.leader().client()
            self.session = c.session
            self.object = c.VM_appliance.create({"name_label": "probe",
                                                 "name_description": ""})
            c.close()
            self.pool.wait_converged()

    def prober(self, addresses, every):
        self._prepare()

        def make(n):
            body = {"jsonrpc": "2.0", "id": 1, "method": "VM_appliance.set_name_description",
                    "params": [self.session, self.object, str(n)]}
            return (addresses[n % len(addresses)], self.pool.http_port, "/jsonrpc",
                    json.dumps(body).encode())
        return Prober(make, lambda answer: b'"result"' in answer, every)

    def addresses(self):
        return [m.address for m in self.pool.members]

    def kill_leader(self):
        self.killed = self.pool.leader()
        others = [m.address for m in self.pool.members if m is not self.killed]

        def kill():
            self.killed.daemon.send_signal(signal.SIGKILL)
        return others, kill

    def restore(self):
        self.killed.daemon.wait()
        self.killed.start_daemon()
        self.killed.wait_up().close()
        self.settle()

    def hand_over(self):
        leader = self.pool.leader()
        to = next(m for m in self.pool.members if m is not leader)
        c = leader.client()
        ref = to.host_ref(c)

        def go():
            try:
                c.pool.designate_new_master(ref)
            except (ApiError, *BROKEN) as e:
                print(f"pool.designate_new_master: {e!r}", file=sys.stderr)
            c.close()
        return go


class EtcdSide(Side):
    name = "etcd"
    options = ("--etcd",)

    def __init__(self, cluster):
        self.cluster = cluster

    def processes(self):
        return [n.child for n in self.cluster.nodes]

    def settle(self):
        self.cluster.wait_up()

    def urls(self):
        leader = self.cluster.leader()
        return [leader.url] + [n.url for n in self.cluster.nodes if n is not leader]

    def prober(self, addresses, every):
        def make(n):
            body = {"key": base64.b64encode(b"probe").decode(),
                    "value": base64.b64encode(str(n).encode()).decode()}
            return addresses[n % len(addresses)], 2379, "/v3/kv/put", json.dumps(body).encode()
        return Prober(make, lambda answer: b'"revision"' in answer, every)

    def addresses(self):
        return [n.address for n in self.cluster.nodes]

    def kill_leader(self):
        self.killed = self.cluster.leader()
        others = [n.address for n in self.cluster.nodes if n is not self.killed]
        return others, lambda: self.killed.child.send_signal(signal.SIGKILL)

    def restore(self):
        self.killed.child.wait()
        self.killed.start()
        self.settle()

    def hand_over(self):
        return self.cluster.move_leader


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


def failover(side):
    """ms from kill -9 of the leader to the first acknowledgement of a write that was
    sent after it."""
    others, kill = side.kill_leader()
    with side.prober(others, 0.01) as p:
        time.sleep(0.4)
        killed = time.monotonic()
        kill()
        end = killed + 15
        while p.acked_after(killed) is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
    acked = p.acked_after(killed)
    side.restore()
    return ((acked or end) - killed) * 1000


def handover(side):
    """(longest pause between acknowledged writes in ms, failed writes) across a
    planned change of the leader, clients on all three members."""
    go = side.hand_over()
    with side.prober(side.addresses(), 0.005) as p:
        time.sleep(0.4)
        begin = time.monotonic()
        go()
        time.sleep(0.4)
    side.settle()
    return p.longest_gap(begin - 0.05) * 1000, len(p.errors())


def failover_rows(sides, n):
    pairs = [in_turn(sides, failover) for _ in range(n)]
    for name, f in (("median", median), ("smallest", min), ("largest", max)):
        a, b = (f([p[s.name] for p in pairs]) for s in sides)
        yield (f"| kill -9 of the leader to the next acknowledged write, {name} of {n} | "
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
