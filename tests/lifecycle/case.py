"""Tests of VMs' lives that hold on any hypervisor.

The pool is one of local processes with simulated Xen or, where XENPOOL_LAB names
the machines of tests/xenlab, one of hosts with the real one. A test asks for what
it wants through the API and looks at what there is: the rows, the hypervisors'
domains, and how far the guest has counted.
"""
import json
import os
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path[:0] = [str(HERE.parent / "integration"), str(HERE.parent / "xenlab")]
from harness import NULL, PATIENCE, PoolCase, new_vm, say, wait_for  # noqa: E402,F401
from labcase import make_lab  # noqa: E402
from localpool import ApiError  # noqa: E402,F401

MIB = 1 << 20
MEMORY = 96 * MIB
# What the guest's kernel need not do at each of its starts, under emulation:
# try its ciphers, read a certificate, look for weaknesses of processors, split
# its pages to protect its own text, clear each page that it gives away, ask for
# bridges of a bus that it lacks, and wait for a timer that a PVH guest lacks to
# learn how fast its TSC runs.
QUICK = ("quiet", "cryptomgr.notests", "mitigations=off", "rodata=off", "pci=off",
         "clearcpuid=4", "lpj=4000000", "init_on_alloc=0", "ipv6.disable=1",
         "initcall_blacklist=init_kprobe_trace,load_system_certificate_list")
REAL = "XENPOOL_LAB" in os.environ


class LifeCase(PoolCase):
    members = 2

    @classmethod
    def make_pool(cls):
        if REAL:
            return make_lab(cls)
        return super().make_pool()

    def setUp(self):
        self.c = self.client()
        # where the laboratory gives one host, it is both
        self.a, self.b = self.pool.members[0], self.pool.members[-1]
        self.host_a, self.host_b = (m.host_ref(self.c) for m in (self.a, self.b))
        self.made = []
        self.addCleanup(self.drop)

    def drop(self):
        """What a test made must not stand in the next one's way."""
        while self.made:
            vm = self.made.pop()
            try:
                if self.c.VM.get_power_state(vm) != "Halted":
                    self.c.VM.hard_shutdown(vm)
                self.c.VM.destroy(vm)
            except Exception as e:
                say(f"{vm} stays: {e}")

    # ---- guests ----

    def vm(self, name, kind="pvh", ends=None, after=3, deaf=False, period=1, slow=None):
        """A halted VM of a small guest that counts. ends: shutdown, reboot or
        crash, by itself so many seconds after its start. slow: an operation
        that takes the simulated Xen a second, as it does the real one."""
        c = self.c
        sim, args = {}, ["console=hvc0", *QUICK, f"lab.period={period}"]
        if ends:
            sim.update(event=ends, event_ms=after * 1000)
            args.append(f"lab.{ends.replace('shutdown', 'poweroff')}={after}")
        if deaf:
            sim["ignore_shutdown"] = "true"
            args.append("lab.deaf")
        if slow:
            sim[slow + "_ms"] = 1000
        vm = new_vm(c, name, **sim)
        self.made.append(vm)
        if kind != "pvh":
            c.VM.set_domain_type(vm, kind)
        c.VM.set_PV_bootloader(vm, "")
        c.VM.set_PV_kernel(vm, "/share/guest/vmlinux")
        c.VM.set_PV_ramdisk(vm, "/share/guest/guest.cpio")
        c.VM.set_PV_args(vm, " ".join(args))
        c.VM.set_memory_limits(vm, MEMORY, MEMORY, MEMORY, MEMORY)
        return vm

    def card(self, vm, device):
        """A virtual card in a network that reaches the hosts' own."""
        networks = self.c.network.get_all_records()
        return self.c.VIF.create({
            "VM": vm, "network": next(r for r, n in networks.items() if n["PIFs"]),
            "device": device, "MAC": "", "MTU": "0", "other_config": {},
            "qos_algorithm_type": "", "qos_algorithm_params": {}})

    def do(self, call, *args):
        """The call's result. What a backend says it cannot do yet skips the
        test: it must say so, and leave the VM as it was."""
        try:
            return call(*args)
        except ApiError as e:
            if not REAL or e.code != "NOT_IMPLEMENTED":
                raise
            self.assert_settled(self.c)
            self.skipTest(f"the real Xen's backend cannot {e.params[0]} yet")

    def state(self, vm):
        return self.c.VM.get_power_state(vm)

    def home(self, vm):
        return self.c.host.get_address(self.c.VM.get_resident_on(vm))

    def member_of(self, vm):
        """Where it is."""
        home = self.home(vm)
        return next(m for m in self.pool.members if m.address == home)

    def domains_of(self, vm):
        """[(address, state)] on all hosts."""
        return [(m.address, s) for m, s in self.pool.domains(self.c.VM.get_uuid(vm))]

    def assert_domain(self, vm, state):
        """One domain, where the database says that it is."""
        self.assertEqual(self.domains_of(vm), [(self.home(vm), state)])

    def domain_of(self, vm):
        """What the hypervisor knows of the VM's domain: its numbers of disks
        and vifs, memory (bytes) and vcpus."""
        if REAL:
            return self.member_of(vm).domain(self.c.VM.get_domid(vm))
        uuid = self.c.VM.get_uuid(vm)
        states = [m.dir / "xen" / "state.json" for m in self.pool.members]
        return next(d for s in states if s.exists()
                    for d in json.loads(s.read_text())["domains"] if d["vm"] == uuid)

    def assert_has(self, vm, **expected):
        """Its domain does, as soon as the guest has taken or given it."""
        end = time.monotonic() + (20 * PATIENCE if REAL else 0)
        while True:
            d = self.domain_of(vm)
            found = {k: d[k] for k in expected}
            if found == expected or time.monotonic() > end:
                return self.assertEqual(found, expected)
            time.sleep(2)  # asking takes the processor that the guest waits for

    # ---- how far a guest has counted ----

    def ticks(self, vm):
        """What the guest counted last; -1 before it does."""
        return self.pool.ticks(self.c.VM.get_uuid(vm))

    def counts_beyond(self, vm, number, timeout=20):
        """The guest's count, once it is larger than number."""
        return wait_for(lambda: (n := self.ticks(vm)) > number and n or None,
                        timeout, f"the guest counts beyond {number}")

    def assert_counts(self, vm):
        """The guest runs: it counts on."""
        return self.counts_beyond(vm, max(self.ticks(vm), 0))

    def assert_still(self, vm):
        """The guest does not count at all."""
        time.sleep(0.5 if REAL else 0.05)
        before = self.ticks(vm)
        time.sleep(2.5 if REAL else 0.25)
        self.assertEqual(self.ticks(vm), before)

    def assert_one_life(self, vm):
        """The guest has never been started anew: since it was started it has
        said each number once, on whichever host."""
        if REAL:
            said = self.pool.counts(self.c.VM.get_uuid(vm))
            self.assertEqual(sorted(said), list(range(len(said))))


class Gap(threading.Thread):
    """Watches how a guest counts, on whatever host, and remembers the longest
    time in which it did not."""

    def __init__(self, pool, uuid):
        super().__init__(daemon=True)
        self.pool, self.uuid = pool, uuid
        self.done = threading.Event()
        self.longest, self.seen = 0.0, 0

    def run(self):
        last, at = self.pool.ticks(self.uuid), time.monotonic()
        while not self.done.wait(0.02):
            now, number = time.monotonic(), self.pool.ticks(self.uuid)
            if number > last:
                self.longest = max(self.longest, now - at)
                last, at, self.seen = number, now, self.seen + 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.done.set()
        self.join()
