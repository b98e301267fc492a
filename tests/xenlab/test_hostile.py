"""Guests that attack the toolstack, and such as cannot be started, on the real
Xen: what each costs is bounded, and everybody else is served meanwhile."""
import os
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


class Hostile(InsideCase):
    pair = fallen = None  # VMs for more tests than one

    def begin(self, *starts):
        """Starts (VM, host) side by side, and waits until all count."""
        tasks = [self.c.Async.VM.start_on(vm, host, False, False) for vm, host in starts]
        for task in tasks:
            self.c.wait_task(task, 60)
        for vm, _ in starts:
            self.counts_beyond(vm, 0)

    def faller(self):
        """A VM that falls and starts again for ever, on the second host."""
        if not Hostile.fallen:
            vm = self.vm("faller", "pv")
            self.c.VM.set_PV_ramdisk(vm, "")
            self.c.VM.set_actions_after_crash(vm, "restart")
            self.c.VM.start_on(vm, self.host_b, False, False)
            Hostile.fallen = vm
        self.made = [vm for vm in self.made if vm != self.fallen]
        return self.fallen

    def neighbours(self):
        """An attacker and who lives with it on the first host."""
        self.faller()
        if not Hostile.pair:
            pair = self.talker("attacker"), self.talker("neighbour")
            self.begin(*((vm, self.host_a) for vm in pair))
            Hostile.pair = pair
        self.made = [vm for vm in self.made if vm not in self.pair]
        return self.pair

    def costs(self):
        """{name: (KiB resident, seconds run)} of the processes of the first host
        that belong to the toolstack; of several consoles the largest."""
        found = {}
        for line in self.a.machine.run(COSTS).splitlines():
            name, pages, ticks = line.split()
            found[name] = max(found.get(name, (0, 0)),
                              (int(pages) * 4, int(ticks) / 100))
        return found

    def served(self, neighbour):
        """Another guest's console, a call through either member, an operation on
        another VM: how long all of it took."""
        begin = time.monotonic()
        stream = self.open(self.b, neighbour)
        stream.send(b"echo served\r")
        stream.until(b"GUEST echo served", SLOW)
        stream.sock.close()
        for member in (self.a, self.b):
            c = member.client()
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
        deaf = [self.open(m, attacker) for m in (self.a, self.b)]
        took += [self.served(neighbour) for _ in range(2)]
        self.assert_modest(before, time.monotonic() - begin, "console flooded")
        say("others were served in " + ", ".join(f"{t:.1f} s" for t in took))
        # Who comes late can still say that it is enough.
        own = self.open(self.a, attacker)
        own.send(b"run killall yes\r")
        own.send(b"echo peace\r")
        own.until(b"GUEST echo peace", SLOW)
        deaf[0].until(b"GUEST echo peace", SLOW)
        self.assert_settled(self.c)

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
        c, guest = self.c, self.b.machine.share / "guest"
        (guest / "garbage").write_bytes(os.urandom(1 << 20))
        (guest / "lost").write_bytes(bytes(1 << 20))
        sr = c.SR.create(NULL, {"location": "/share/guest"}, "0", "files", "", "file",
                         "user", True, {})
        disk = c.VDI.introduce("", "", "", sr, "user", False, False, {}, "lost")
        (guest / "lost").unlink()
        free = self.xen_free(self.b)
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
            error = self.error(c.VM.start_on, vm, self.host_b, False, False)
            say(f"{what}: {' '.join(error)[:200]}")
            self.assertNotEqual(error[0], "TASK_CANCELLED")
            self.assertIn(words, " ".join(error))
            self.assertEqual(self.state(vm), "Halted")
            self.assertEqual(self.domains_of(vm), [])
            c.VM.destroy(vm)
            self.made.remove(vm)
        self.assert_settled(c)
        wait_for(lambda: abs(self.xen_free(self.b) - free) <= 2, 10,
                 "all of their memory is free again")
        for pbd in c.SR.get_PBDs(sr):
            c.PBD.unplug(pbd)
        c.SR.forget(sr)


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
