"""The two systems that are measured, behind one face, and what is measured of their
leaders' ends."""
import base64
import json
import os
import pathlib
import platform
import random
import signal
import subprocess
import sys
import time

from localpool import BROKEN, ApiError
from probe import Prober

WARMUP = 0.3  # s


def machine():
    cpu = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo")
                if l.startswith("model name")), platform.processor())
    memory = int(open("/proc/meminfo").readline().split()[1]) >> 20
    return (f"{os.cpu_count()} cores ({cpu}), {memory} GiB, Linux {platform.release()}, "
            f"load {os.getloadavg()[0]:.1f} before; three members and the load generator "
            "on this one machine")


class Side:
    """What both systems have in common: processes, a turn, a load, probes."""

    def processes(self):
        raise NotImplementedError

    def pause(self):
        for p in self.processes():
            p.send_signal(signal.SIGSTOP)

    def resume(self):
        """Whoever stood still may first elect again."""
        for p in self.processes():
            p.send_signal(signal.SIGCONT)
        time.sleep(0.25)
        self.settle()

    def processor_us(self):
        """What all threads of its processes have used so far."""
        total = 0
        for p in self.processes():
            for path in pathlib.Path(f"/proc/{p.pid}/task").glob("*/schedstat"):
                total += int(path.read_text().split()[0])
        return total / 1000

    def load(self, program, connections, seconds, options, tls=False):
        used = self.processor_us()
        out = subprocess.run(
            [program, "--json", "-c", str(connections), "-d", str(seconds),
             "--warmup", str(WARMUP), *self.options, *options, *self.urls(tls)],
            stdout=subprocess.PIPE, check=True).stdout
        r = json.loads(out)
        h = r["writes" if "0" in options else "reads"]
        calls = h["ops_per_s"] * (seconds + WARMUP)
        return dict(h, errors=r["errors"],
                    cpu_us=(self.processor_us() - used) / max(calls, 1))


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

    def urls(self, tls):
        leader = self.pool.leader()
        members = [leader] + [m for m in self.pool.members if m is not leader]
        if tls:
            return [f"https://{m.address}:{self.pool.https_port}" for m in members]
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

    def lose_leader(self, sig):
        self.lost = self.pool.leader()
        others = [m.address for m in self.pool.members if m is not self.lost]
        return others, lambda: self.lost.daemon.send_signal(sig)

    def restore(self, sig):
        if sig == signal.SIGSTOP:
            self.lost.daemon.send_signal(signal.SIGCONT)
        else:
            self.lost.daemon.wait()
            self.lost.start_daemon()
            self.lost.wait_up().close()
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
    """Loaded over gRPC, its native protocol, or over the JSON gateway that it has
    beside it; probed through the gateway."""

    def __init__(self, cluster, name="etcd", options=("--etcd-grpc",)):
        self.cluster, self.name, self.options = cluster, name, options

    def processes(self):
        return [n.child for n in self.cluster.nodes]

    def settle(self):
        self.cluster.wait_up()

    def urls(self, tls):
        leader = self.cluster.leader()
        assert tls == self.cluster.tls
        return [leader.url] + [n.url for n in self.cluster.nodes if n is not leader]

    def prober(self, addresses, every):
        def make(n):
            body = {"key": base64.b64encode(b"probe").decode(),
                    "value": base64.b64encode(str(n).encode()).decode()}
            return addresses[n % len(addresses)], 2379, "/v3/kv/put", json.dumps(body).encode()
        return Prober(make, lambda answer: b'"revision"' in answer, every)

    def addresses(self):
        return [n.address for n in self.cluster.nodes]

    def lose_leader(self, sig):
        self.lost = self.cluster.leader()
        others = [n.address for n in self.cluster.nodes if n is not self.lost]
        return others, lambda: self.lost.child.send_signal(sig)

    def restore(self, sig):
        if sig == signal.SIGSTOP:
            self.lost.child.send_signal(signal.SIGCONT)
        else:
            self.lost.child.wait()
            self.lost.start()
        self.settle()

    def hand_over(self):
        return self.cluster.move_leader


def failover(side, sig=signal.SIGKILL, then=lambda: None):
    """ms from the leader's end (SIGKILL) or silence (SIGSTOP) to the first
    acknowledgement of a write that was sent after it. then() is called before the
    leader comes back."""
    others, lose = side.lose_leader(sig)
    with side.prober(others, 0.01) as p:
        time.sleep(0.4)
        lost = time.monotonic()
        lose()
        end = lost + 15
        while p.acked_after(lost) is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
    acked = p.acked_after(lost)
    then()
    side.restore(sig)
    return ((acked or end) - lost) * 1000


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
