"""A daemon whose executor lies: what it says is checked as if a stranger had said it,
and when the true one is back all is as it was."""
import contextlib
import os
import socket
import struct
import threading
import time
import unittest

from harness import PoolCase, new_vm, wait_for
from test_backup import ctl
from test_guest import resident_kib

MAX_MESSAGE = 256 * 1024
HOST = dict(memory_total=8 << 30, memory_free=8 << 30, cpu_count=4, cpu_model="Liar",
            cpu_vendor="Sim", cpu_mhz=2000, xen_version="4.17", backend="sim",
            cpu=dict(sockets=1, nodes=1, cores_per_socket=4, threads_per_core=1, family=1,
                     model=1, stepping=1, flags="", features=""),
            boot_time=0, capabilities="", scheduler="", kernel="", dom0_memory=1 << 29,
            dom0_vcpus=2)
STRANGER = "5eed0000-0000-4000-8000-00000000dead"


# ---- schema/value.c's encoding ----

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return varint(len(data)) + data


class Map(dict):
    """A dict that is a map; others are structs."""


def encode(v):
    if isinstance(v, bool):
        return bytes([4, v])
    if isinstance(v, int):
        return b"\2" + varint((v << 1 ^ v >> 63) & (1 << 64) - 1)
    if isinstance(v, float):
        return b"\3" + struct.pack("<d", v)
    if isinstance(v, list):
        return b"\6" + varint(len(v)) + b"".join(map(encode, v))
    if isinstance(v, dict):
        pairs = sorted(v.items()) if isinstance(v, Map) else v.items()
        return (b"\7" if isinstance(v, Map) else b"\x08") + varint(len(v)) + b"".join(
            text(k) + encode(x) for k, x in pairs)
    return b"\1" + text(v)


def domain(vm, domid=7, state="running", **more):
    return {"vm": vm, "domid": domid, "state": state, "fence": 1, "memory_kib": 1 << 16,
            "vcpus": 1, "incoming": False, **more}


def state(*domains, **host):
    return {"type": "state", "boot_id": "liar", "domains": list(domains),
            "host": {**HOST, **host}}


def done(job, ok=True, error=(), **result):
    return {"type": "done", "id": job, "vm": STRANGER, "ok": ok, "error": list(error),
            "result": result}


def metrics(**more):
    empty = {k: Map() for k in ("PV_drivers_version", "os_version", "netbios_name", "memory",
                                "networks", "other")}
    return {**empty, "can_use_hotplug_vbd": "yes", "can_use_hotplug_vif": "yes",
            "PV_drivers_detected": True, **more}


class Liar:
    """Listens where the executor did. Each connection of the daemon is one of
    `links`; what the daemon says is read and dropped."""

    def __init__(self, path):
        if os.path.exists(path):
            os.unlink(path)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(8)
        self.link = None

    def accept(self):
        self.close_link()
        self.listener.settimeout(20)
        self.link, _ = self.listener.accept()
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
        self.link.settimeout(20)
        threading.Thread(target=self.drain, args=(self.link,), daemon=True).start()
        return self

    @staticmethod
    def drain(link):
        try:
            while link.recv(MAX_MESSAGE):
                pass
        except OSError:
            pass

    def say(self, *messages):
        for m in messages:
            self.link.send(m if isinstance(m, bytes) else encode(m))

    def refused(self):
        """The daemon hangs up, and comes again."""
        wait_for(self.hung_up, 10, "the daemon hangs up")
        self.accept()

    def hung_up(self):
        try:
            self.link.send(encode({"type": "progress", "id": "nobody", "progress": 0.5}))
        except OSError:
            return True

    def close_link(self):
        """Shut down too: the thread that reads it would keep it open."""
        if self.link:
            with contextlib.suppress(OSError):
                self.link.shutdown(socket.SHUT_RDWR)
            self.link.close()

    def close(self):
        self.close_link()
        self.listener.close()


class FalseExecutor(PoolCase):
    members = 2

    def setUp(self):
        self.c = self.client(1)
        self.m = self.pool.members[0]
        self.here = self.m.host_ref(self.c)
        self.vm = new_vm(self.c, "true")
        self.c.VM.start_on(self.vm, self.pool.members[1].host_ref(self.c), False, False)
        self.record = self.stable(self.vm)
        self.m.kill("executor")
        self.liar = Liar(f"{self.m.dir}/executor.sock").accept()
        self.addCleanup(self.back)

    def back(self):
        """The true executor: soon all is settled, and a VM starts here."""
        self.liar.close()
        self.m.start_executor()
        c, vm = self.c, new_vm(self.c, "again")
        wait_for(lambda: c.host.get_cpu_info(self.here)["modelname"] != "Liar" and
                 c.host.get_enabled(self.here), 20, "the true executor is heard")
        c.VM.start_on(vm, self.here, False, False)
        self.assertEqual(self.stable(self.vm), self.record)
        for v in (vm, self.vm):
            c.VM.hard_shutdown(v)
            c.VM.destroy(v)
        self.assert_settled(c)

    def stable(self, vm):
        r = self.c.VM.get_record(vm)
        return {k: r[k] for k in ("power_state", "resident_on", "domid", "uuid")}

    def assert_serves(self):
        for m in self.pool.members:
            self.assertIsNone(m.daemon.poll())
            c = m.client()
            self.assertEqual(c.VM.get_power_state(self.vm), "Running")
            c.close()

    def test_01_malformed(self):
        """It hangs up at once, and comes again."""
        big = {"type": "progress", "id": "x" * MAX_MESSAGE, "progress": 0.5}
        for bad in (b"\0", b"\xff" * 100, b"\x08\xff\xff\xff\xff\x0f", encode(7),
                    encode({"type": "hello"}), encode(big), b"\6\1" * 1000,
                    {"type": "done", "id": "x"}, {"type": "domain", "vm": 1},
                    {**state(), "domains": [domain(STRANGER, "one")]},
                    {**state(), "domains": [{}]}, {**state(), "host": {}},
                    state(capabilities="x" * 8193), state(**dict.fromkeys(map(str, range(99)), 1)),
                    state(cpu={**HOST["cpu"], "features": "x" * 200000}),
                    done("x", ok=False), done("x" * 300), done(""),
                    done("x", ok=False, error=[1]),
                    {"type": "progress", "id": "x", "progress": "much"},
                    {"type": "guest", "vm": STRANGER, "domid": 1, "metrics": {}},
                    {"type": "guest", "vm": STRANGER, "domid": 1,
                     "metrics": metrics(other=Map(key=1))},
                    {"type": "guest", "vm": "\ud800".encode("utf-8", "surrogatepass"),
                     "domid": 1, "metrics": metrics()}):
            with self.subTest(str(bad)[:60]):
                self.liar.say(bad)
                self.liar.refused()
        self.assert_serves()

    def test_02_well_formed_lies(self):
        """Answers to what was not asked, and news of what there is not."""
        c, uuid = self.c, self.record["uuid"]
        template = next(r for r in c.VM.get_all_records().values()
                        if r["is_default_template"])["uuid"]
        dom0 = c.VM.get_uuid(c.host.get_control_domain(self.here))
        ids = ["nobody", f"{STRANGER}:run:1", "fix:" + uuid]
        for vm in (uuid, template, dom0, STRANGER, "", "x" * 1000, "../../etc"):
            for event in ("shutdown", "reboot", "crash", "gone", "", "x" * 1000):
                self.liar.say({"type": "domain", "vm": vm, "domid": 1, "event": event})
            self.liar.say({"type": "guest", "vm": vm, "domid": 1, "metrics": metrics(
                other=Map({"x" * 1000: "&" * 100000}))})
            for domid in (-1, 0, 1 << 62):
                self.liar.say(state(domain(vm, domid), domain(vm, domid, "paused"),
                                    domain(vm, domid, "dancing", incoming=True)))
        for job in ids:
            self.liar.say(done(job, domid=99), done(job, ok=False, error=["X"] * 1000),
                          {"type": "progress", "id": job, "progress": float("nan")},
                          {"type": "progress", "id": job, "progress": -1e308})
        time.sleep(1)
        self.assert_serves()
        self.assertEqual(self.stable(self.vm), self.record)

    def test_03_impossible_hosts(self):
        """What a host is, is taken from the first words after a connection."""
        c = self.c
        for number, cpus in ((-1, 0), (1 << 62, 4096)):
            self.liar.accept().say(state(
                **{k: number for k, v in HOST.items() if isinstance(v, int)}))
            wait_for(lambda: len(c.host.get_host_CPUs(self.here)) == cpus, 60,
                     f"the daemon believes in {cpus} processors")
            self.assert_serves()

    def test_04_floods(self):
        """As fast as it can: most domains that fit into a packet, news of them, and
        results of nothing."""
        c = self.c
        many = encode(state(domain(STRANGER, 4711), *(
            domain(f"{i:08x}-0000-4000-8000-000000000000") for i in range(1399))))
        self.assertLess(len(many), MAX_MESSAGE)
        self.liar.say(many)
        time.sleep(1)
        before, generation = resident_kib(self.m.daemon), self.m.status()["generation"]
        end, slowest = time.monotonic() + 4, 0
        stop = threading.Event()

        def flood():
            while not stop.is_set():
                self.liar.say(many, *(done(f"nobody-{i}") for i in range(50)))
        flooding = threading.Thread(target=flood, daemon=True)
        flooding.start()
        near = self.client(0)
        while time.monotonic() < end:
            begin = time.monotonic()
            near.VM.set_name_description(self.vm, str(begin))
            slowest = max(slowest, time.monotonic() - begin)
        stop.set()
        flooding.join(20)
        print(f"    slowest call {slowest * 1000:.0f} ms, "
              f"{resident_kib(self.m.daemon) - before} KiB more", flush=True)
        self.assertLess(slowest, 5)
        self.assertLess(resident_kib(self.m.daemon) - before, 32768)
        self.assert_serves()
        self.assert_told_of_foreigners(many)

    def assert_told_of_foreigners(self, many):
        """Domains that are no VMs: any member tells of some of them and how many there
        are, once, and no more when they are gone."""
        other, c = self.pool.members[1], self.c

        def messages():
            return [m["body"] for m in c.message.get_all_records().values()
                    if m["name"] == "FOREIGN_DOMAIN"
                    # one of the lies told before may have been believed
                    and f"domid 4711, uuid {STRANGER}" in m["body"]]

        def listed(state):
            self.liar.say(state)
            time.sleep(0.2)
            return other.status()["foreign_domains"]
        told = wait_for(lambda: listed(many), 30, "foreign domains are told of")
        self.assertEqual(len(told), 16)
        self.assertEqual({f["host"] for f in told}, {c.host.get_uuid(self.here)})
        self.assertIn((4711, STRANGER), [(f["domid"], f["uuid"]) for f in told])
        self.assertLess(len(c.host.get_other_config(self.here)), 40)
        text = ctl(other, "status")
        self.assertRegex(text, f"domid 4711 .*{STRANGER} since "
                               r"\d{8}T\d\d:\d\d:\d\dZ")
        self.assertIn("and 1384 more", text)
        self.assertEqual(len(messages()), 1)
        wait_for(lambda: not listed(state()), 30, "foreign domains go")
        self.assertNotIn("FOREIGN", ctl(other, "status"))
        self.assertEqual(len(messages()), 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
