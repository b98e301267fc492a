"""Guests that attack the toolstack, and such as cannot be started, on the real
Xen: what each costs is bounded, and everybody else is served meanwhile."""
import os
import struct
import time
import unittest

from inside import SLOW, InsideCase, wait_for
from case import NULL, say

# Of each process of ours in dom0, and of xenstored: its name, VmRSS in pages, and
# how long it ran, in hundredths of a second. No process is made to find out.
COSTS = r"""for d in /proc/[0-9]*; do
mapfile -d '' -t a <$d/cmdline || continue
case ${a[0]##*/} in xenpool*|xenstored) ;; *) continue ;; esac
read -r s <$d/stat || continue
set -- ${s##*) }
[ "${a[1]:-}" = --xl-worker ] && a[0]=${a[2]}
echo ${a[0]##*/} ${22} $((${12} + ${13}))
done 2>/dev/null; true"""

# Typed in a guest: for ever, 25 more nodes of 1.9 KiB of what XML and JSON make
# longest, up to 2475 of them and then over again, and all that is told of a guest,
# each time with another text.
FLOOD = r"""(v=$(printf %0950d 0 | sed 's/0/\&"/g'); n=0; while :; do n=$((n+1)); set --; """ \
    r"""for i in $(seq 25); do set -- "$@" data/k$((n%99))/$i "$n$v"; done; """ \
    r"""xenstore-write "$@"; set --; """ \
    r"""for i in os_name os_uname os_distro os_majorver os_minorver host_name domain; """ \
    r"""do set -- "$@" data/$i "$n${v:0:500}"; done; """ \
    r"""for i in $(seq 0 15); do set -- "$@" attr/eth$i/ip 10.1.$i.$((n%256)); done; """ \
    r"""xenstore-write "$@" data/flood $n; done) >/dev/null 2>&1 &"""


def falling_kernel():
    """The smallest ELF file that Xen takes for a PV guest's kernel: its first
    instruction is one that no processor has."""
    base, at = 0xffffffff80000000, 0x100000

    def note(kind, value):
        if isinstance(value, str):
            value = value.encode() + b"\0"
        else:
            value = struct.pack("<Q", value)
        return (struct.pack("<III", 4, len(value), kind) + b"Xen\0" + value
                + bytes(-len(value) % 4))
    notes = b"".join((note(1, base + at), note(3, base), note(4, 0), note(5, "xen-3.0"),
                      note(6, "linux"), note(8, "generic")))
    code = b"\x0f\x0b" * 16
    start = 64 + 2 * 56
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, base + at, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 4096, base + at, at, len(code), len(code), 4096)
    tell = struct.pack("<IIQQQQQQ", 4, 4, start, 0, 0, len(notes), len(notes), 4)
    return (head + load + tell + notes).ljust(4096, b"\0") + code


class Hostile(InsideCase):
    members = 1
    pair = fallen = None  # VMs for more tests than one

    def begin(self, *starts):
        """Starts (VM, host) side by side, and waits until all count."""
        tasks = [self.c.Async.VM.start_on(vm, host, False, False) for vm, host in starts]
        for task in tasks:
            self.c.wait_task(task, 60)
        for vm, _ in starts:
            self.counts_beyond(vm, 0)

    def faller(self):
        """A VM that falls and starts again for ever; test_03 ends it, and until then
        the pool is never without an operation."""
        if not Hostile.fallen:
            vm = self.vm("faller", "pv")
            (self.a.machine.share / "guest/faller").write_bytes(falling_kernel())
            self.c.VM.set_PV_kernel(vm, "/share/guest/faller")
            self.c.VM.set_PV_ramdisk(vm, "")
            self.c.VM.set_memory_limits(vm, *[16 << 20] * 4)
            self.c.VM.set_actions_after_crash(vm, "restart")
            self.c.VM.start_on(vm, self.host_a, False, False)
            Hostile.fallen = vm
        self.made = [vm for vm in self.made if vm != self.fallen]
        return self.fallen

    def neighbours(self):
        """An attacker and who lives with it."""
        self.faller()
        if not Hostile.pair:
            pair = self.talker("attacker"), self.talker("neighbour")
            self.begin(*((vm, self.host_a) for vm in pair))
            Hostile.pair = pair
        self.made = [vm for vm in self.made if vm not in self.pair]
        return self.pair

    def costs(self):
        """{name: (KiB resident, seconds run)} of the toolstack's processes; of
        several consoles the largest."""
        found = {}
        for line in self.a.machine.run(COSTS).splitlines():
            name, pages, ticks = line.split()
            found[name] = max(found.get(name, (0, 0)),
                              (int(pages) * 4, int(ticks) / 100))
        return found

    def served(self, neighbour):
        """Another guest's console, a new session, an operation on another VM: how
        long all of it took."""
        begin = time.monotonic()
        stream = self.open(self.a, neighbour)
        stream.send(b"echo served\r")
        stream.until(b"GUEST echo served", SLOW)
        stream.sock.close()
        c = self.a.client()
        self.assertIn(neighbour, c.VM.get_all())
        c.close()
        self.c.VM.pause(neighbour)
        self.c.VM.unpause(neighbour)
        return time.monotonic() - begin

    def assert_modest(self, before, seconds, what):
        """No process of ours has grown much since, nor taken most of the host."""
        after = self.costs()
        grown = {n: (after[n][0] - before[n][0], round(after[n][1] - before[n][1], 2))
                 for n in after if n in before}
        say(f"{what} for {seconds:.0f} s; KiB more, and seconds run: {grown}")
        for name, (kib, run) in grown.items():
            if name != "xenstored":
                self.assertLess(kib, 16384, name)
                self.assertLess(run, 0.7 * seconds, name)
        return grown

    # ---- what runs ----

    def test_01_console(self):
        """Output without end: with nobody who looks, then with one who never
        reads."""
        attacker, neighbour = self.neighbours()
        own = self.open(self.a, attacker)
        own.until(b"GUEST count", SLOW)
        before, begin = self.costs(), time.monotonic()
        own.send(b"run yes flooding the console >/dev/hvc0 2>&1 &\r")
        own.until(b"flooding the console\r\n" * 20, SLOW)
        own.sock.close()
        took = [self.served(neighbour)]
        deaf = [self.open(self.a, attacker) for _ in range(2)]
        took += [self.served(neighbour) for _ in range(2)]
        self.assert_modest(before, time.monotonic() - begin, "console flooded")
        say("others were served in " + ", ".join(f"{t:.1f} s" for t in took))
        # Who comes late can still say that it is enough.
        own = self.open(self.a, attacker)
        own.send(b"run killall yes\r")
        own.send(b"echo peace\r")
        own.until(b"GUEST echo peace", SLOW)
        deaf[0].until(b"GUEST echo peace", SLOW)

    def test_02_nodes(self):
        """More nodes than a xenstored allows by default, each time others, by the
        guest itself: the row that is told of it is bounded, and written as rarely as
        any other's."""
        c, (attacker, neighbour) = self.c, self.neighbours()
        self.a.machine.run("xenstore-control quota set nodes 20000 && "
                           "xenstore-control quota set memory 200000000")
        near, own = self.open(self.a, neighbour), self.open(self.a, attacker)
        own.send(b"run " + FLOOD.encode() + b"\r")
        own.until(b"GUEST run", SLOW)
        wait_for(lambda: self.guest_metrics(attacker).get("os_version", {}).get("distro"),
                 20, "the flood is told of, what of it may be", 1)
        before, begin = self.costs(), time.monotonic()
        status = self.a.status()["generation"]
        took = [self.served(neighbour) for _ in range(2)]
        self.ask(near, "xenstore-write data/os_name Quiet data/updated 1")
        wait_for(lambda: self.guest_metrics(neighbour).get("os_version", {}).get("name")
                 == "Quiet", 20, "the neighbour is heard", 1)
        heard = time.monotonic() - begin - sum(took)
        wait_for(lambda: time.monotonic() - begin > 30, 10, "the flood has lasted", 1)
        seconds = time.monotonic() - begin
        writes = self.a.status()["generation"] - status
        record = self.guest_metrics(attacker)
        size = sum(len(k) + len(v) for m in record.values() if isinstance(m, dict)
                   for k, v in m.items())
        self.assert_modest(before, seconds, "xenstore flooded")
        domid = c.VM.get_domid(attacker)
        nodes = self.a.machine.run(
            f"xenstore-list /local/domain/{domid}/data | grep -c '^k'; "
            f"xenstore-read /local/domain/{domid}/data/flood").split()
        say(f"{writes} writes, {size} bytes in its row, {nodes} folders of 25 nodes and "
            f"rounds; others were served in " + ", ".join(f"{t:.1f} s" for t in took)
            + f", a neighbour heard in {heard:.1f} s")
        self.assertGreater(size, 1024)
        self.assertLessEqual(size, 8192)
        # One row in 5 s, 7 for each start of the faller; sessions, pauses and the
        # neighbour's own besides.
        self.assertLessEqual(writes, seconds / 5 + 7 * seconds / 15 + 40)
        c.VM.hard_shutdown(attacker)
        self.assertEqual(self.domains_of(attacker), [])

    def test_03_crash_after_crash(self):
        """A kernel that falls at once, of a VM that shall start again then: it has
        been at it since the first test, and may be so every 15 seconds."""
        c, vm = self.c, self.faller()
        self.made.append(vm)

        def starts():
            return sorted(m["timestamp"] for m in c.message.get_all_records().values()
                          if m["name"] == "VM_REBOOTED" and
                          m["obj_uuid"] == c.VM.get_uuid(vm))
        seen = wait_for(lambda: len(s := starts()) > 2 and s, 40, "it starts again", 1)
        times = [time.mktime(time.strptime(s, "%Y%m%dT%H:%M:%SZ")) for s in seen]
        gaps = [int(b - a) for a, b in zip(times, times[1:])]
        say(f"seconds between its starts: {gaps}")
        self.assertGreaterEqual(min(gaps), 15)
        wait_for(lambda: "hard_reboot" in c.VM.get_current_operations(vm).values(), 40,
                 "it waits for its turn")
        c.VM.hard_shutdown(vm)
        self.assertEqual(self.state(vm), "Halted")
        self.assertEqual(self.domains_of(vm), [])
        self.assert_settled(c)

    # ---- what cannot be started ----

    def test_04_broken_files(self):
        """Each says what is wrong, leaves no domain, and no memory is lost."""
        c, guest = self.c, self.a.machine.share / "guest"
        (guest / "garbage").write_bytes(os.urandom(1 << 20))
        (guest / "lost").write_bytes(bytes(1 << 20))
        sr = c.SR.create(NULL, {"location": "/share/guest"}, "0", "files", "", "file",
                         "user", True, {})
        disk = c.VDI.introduce("", "", "", sr, "user", False, False, {}, "lost")
        (guest / "lost").unlink()
        free = self.xen_free(self.a)
        for what, call, words in (
                ("kernel of garbage", lambda vm: c.VM.set_PV_kernel(
                    vm, "/share/guest/garbage"), "Invalid kernel"),
                ("ramdisk not there", lambda vm: c.VM.set_PV_ramdisk(
                    vm, "/share/guest/nothing"), "nothing"),
                ("ramdisk is a folder", lambda vm: c.VM.set_PV_ramdisk(
                    vm, "/share/guest/"), "not in a folder for kernels"),
                ("disk not there", lambda vm: c.VBD.create({
                    "VM": vm, "VDI": disk, "userdevice": "0", "bootable": False,
                    "mode": "RO", "type": "Disk", "unpluggable": True, "empty": False,
                    "other_config": {}, "qos_algorithm_type": "",
                    "qos_algorithm_params": {}}), "lost")):
            vm = self.vm(what, "pv")
            call(vm)
            error = self.error(c.VM.start_on, vm, self.host_a, False, False)
            say(f"{what}: {' '.join(error)[:200]}")
            self.assertNotEqual(error[0], "TASK_CANCELLED")
            self.assertIn(words, " ".join(error))
            self.assertEqual(self.state(vm), "Halted")
            self.assertEqual(self.domains_of(vm), [])
            c.VM.destroy(vm)
            self.made.remove(vm)
        self.assert_settled(c)
        wait_for(lambda: abs(self.xen_free(self.a) - free) <= 2, 10,
                 "all of their memory is free again")
        for pbd in c.SR.get_PBDs(sr):
            c.PBD.unplug(pbd)
        c.SR.forget(sr)


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
