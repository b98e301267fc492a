"""Start, stop and everything between, for either kind of guest."""
import itertools
import time
import unittest

from case import MIB, NULL, REAL, ApiError, LifeCase, say, wait_for

GIB = 1 << 30
ENDS = ("shutdown", "reboot", "crash")


class Life(LifeCase):
    options = () if REAL else ("--restart-gap=2",)

    def begin(self, vm, *args):
        """Starts it and waits until it counts; how long that took."""
        begin = time.monotonic()
        self.c.VM.start(vm, *(args or (False, False)))
        started = time.monotonic() - begin
        self.assertEqual(self.state(vm), "Running")
        self.assert_domain(vm, "running")
        self.counts_beyond(vm, 0)
        say(f"started in {started:.2f} s, counts after "
            f"{time.monotonic() - begin:.2f} s")

    def whole_life(self, kind):
        c, vm = self.c, self.vm(f"life-{kind}", kind)
        self.begin(vm)
        domid = int(c.VM.get_domid(vm))
        self.assertGreater(domid, 0)
        c.VM.pause(vm)
        self.assertEqual(self.state(vm), "Paused")
        self.assert_domain(vm, "paused")
        self.assert_still(vm)
        c.VM.unpause(vm)
        self.assertEqual(self.state(vm), "Running")
        self.assert_counts(vm)
        host = c.VM.get_resident_on(vm)
        c.VM.clean_reboot(vm)
        self.assertEqual(self.state(vm), "Running")
        self.assertNotEqual(int(c.VM.get_domid(vm)), domid)
        self.assertEqual(c.VM.get_resident_on(vm), host)
        self.assert_domain(vm, "running")
        self.assert_counts(vm)
        c.VM.clean_shutdown(vm)
        record = c.VM.get_record(vm)
        self.assertEqual((record["power_state"], record["resident_on"],
                          int(record["domid"])), ("Halted", NULL, -1))
        self.assertEqual(self.domains_of(vm), [])
        self.assert_settled(c)

    def test_01_whole_life_pvh(self):
        self.whole_life("pvh")

    def test_02_whole_life_pv(self):
        self.whole_life("pv")

    def test_03_by_force(self):
        """What needs no guest's consent: one that is deaf to every request."""
        c, vm = self.c, self.vm("forced", "pv", deaf=True)
        c.VM.start(vm, True, False)
        self.assertEqual(self.state(vm), "Paused")
        self.assert_domain(vm, "paused")
        c.VM.unpause(vm)
        self.counts_beyond(vm, 0)
        task = c.Async.VM.clean_shutdown(vm)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "the shutdown begins")
        self.assert_counts(vm)
        c.task.cancel(task)
        self.assertEqual(self.wait_ended(c, task)["status"], "cancelled")
        self.assertEqual(self.state(vm), "Running")
        domid = c.VM.get_domid(vm)
        c.VM.hard_reboot(vm)
        self.assertNotEqual(c.VM.get_domid(vm), domid)
        self.assert_domain(vm, "running")
        c.VM.hard_shutdown(vm)
        self.assertEqual(self.state(vm), "Halted")
        self.assertEqual(self.domains_of(vm), [])
        c.VM.destroy(vm)
        self.made.remove(vm)
        self.assert_error(["HANDLE_INVALID", "VM", vm], c.VM.get_record, vm)
        self.assert_settled(c)

    def suspend(self, kind):
        """The guest goes on from where it was, and does not start anew."""
        c, vm = self.c, self.vm(f"sleeper-{kind}", kind)
        self.begin(vm)
        before = self.counts_beyond(vm, 2 if REAL else 500)
        host = c.VM.get_resident_on(vm)
        self.do(c.VM.suspend, vm)
        record = c.VM.get_record(vm)
        self.assertEqual((record["power_state"], record["resident_on"]),
                         ("Suspended", NULL))
        self.assertEqual(c.VDI.get_type(record["suspend_VDI"]), "suspend")
        self.assertIn("resume", record["allowed_operations"])
        self.assertEqual(self.domains_of(vm), [])
        self.assert_error(["VM_BAD_POWER_STATE", vm, "halted", "suspended"],
                          c.VM.start, vm, False, False)
        c.VM.resume(vm, False, False)
        after = c.VM.get_record(vm)
        self.assertEqual((after["power_state"], after["resident_on"],
                          after["suspend_VDI"]), ("Running", host, NULL))
        self.assert_error(["HANDLE_INVALID", "VDI", record["suspend_VDI"]],
                          c.VDI.get_record, record["suspend_VDI"])
        self.assertGreaterEqual(self.ticks(vm), before)
        self.assert_domain(vm, "running")
        self.counts_beyond(vm, before)
        self.assert_one_life(vm)
        member = self.member_of(vm)
        c.VM.suspend(vm)
        self.assertEqual(member.images(), [f"{c.VM.get_uuid(vm)}.image"])
        c.VM.hard_shutdown(vm)
        wait_for(lambda: member.images() == [], 20, "nobody will resume it: it is gone")
        after = c.VM.get_record(vm)
        self.assertEqual((after["power_state"], after["suspend_VDI"]), ("Halted", NULL))
        self.assertEqual(self.domains_of(vm), [])
        self.assert_settled(c)

    def test_04_suspend_pvh(self):
        self.suspend("pvh")

    def test_05_suspend_pv(self):
        self.suspend("pv")

    def test_06_guests_that_end_by_themselves(self):
        """What then happens is what the VM says at that time: three guests at once
        are started anew, and are told to stay down when they end again."""
        c, guests = self.c, []
        hosts = itertools.cycle((self.host_a, self.host_b))
        for ends in ENDS:
            vm = self.vm(f"{ends}-twice", "pv", ends=ends, after=3 if REAL else 1)
            getattr(c.VM, f"set_actions_after_{ends}")(vm, "restart")
            c.VM.start_on(vm, next(hosts), False, False)
            guests.append((vm, ends, c.VM.get_domid(vm)))
        for vm, ends, domid in guests:
            wait_for(lambda: c.VM.get_domid(vm) not in (domid, "-1"), 40,
                     f"it is started anew after its {ends}", 0.2)
            getattr(c.VM, f"set_actions_after_{ends}")(vm, "destroy")
        for vm, ends, _ in guests:
            wait_for(lambda: self.state(vm) == "Halted", 40,
                     f"it stays down after its {ends}", 0.2)
            self.assertEqual(c.VM.get_resident_on(vm), NULL)
            self.assertEqual(self.domains_of(vm), [])
        self.assert_settled(c)

    def test_07_too_large(self):
        """Refused before anything is tried; nothing is left behind."""
        c, vm = self.c, self.vm("large")
        c.VM.set_memory_limits(vm, *[20 * GIB] * 4)
        error = self.error(c.VM.start, vm, False, False)
        self.assertIn(error[0], ("HOST_NOT_ENOUGH_FREE_MEMORY", "NO_HOSTS_AVAILABLE"))
        error = self.error(c.VM.start_on, vm, self.host_a, False, False)
        self.assertEqual(error[0], "HOST_NOT_ENOUGH_FREE_MEMORY")
        self.assertEqual(self.domains_of(vm), [])
        self.assert_settled(c)

    def test_08_full_host(self):
        """VMs fill a host; one more is refused, and fits when one has gone."""
        c = self.c
        free = int(c.host.compute_free_memory(self.host_a))
        size = free // 3 // MIB * MIB
        vms = [self.vm(f"fill-{i}") for i in range(4)]
        for vm in vms:
            c.VM.set_memory_limits(vm, size, size, size, size)
        started = []
        while len(started) < 4:
            try:
                c.VM.start_on(vms[len(started)], self.host_a, True, False)
            except ApiError as e:
                self.assertEqual(e.code, "HOST_NOT_ENOUGH_FREE_MEMORY")
                break
            started.append(vms[len(started)])
        self.assertIn(len(started), (2, 3))
        refused = vms[len(started)]
        self.assertEqual(self.domains_of(refused), [])
        c.VM.hard_shutdown(started[0])
        c.VM.start_on(refused, self.host_a, True, False)
        self.assert_domain(refused, "paused")
        self.assert_settled(c)

    @unittest.skipUnless(REAL, "simulated guests have no kernel")
    def test_09_no_kernel(self):
        """Its start fails with words, and leaves no domain."""
        c, vm = self.c, self.vm("empty", "pv")
        c.VM.set_PV_kernel(vm, "/share/guest/no-such-kernel")
        error = self.error(c.VM.start, vm, False, False)
        say(f"no kernel: {error}")
        self.assertEqual(self.state(vm), "Halted")
        self.assertEqual(self.domains_of(vm), [])
        c.VM.set_PV_kernel(vm, "/share/guest/vmlinux")
        self.begin(vm)
        self.assert_settled(c)


if __name__ == "__main__":
    unittest.main(verbosity=2)
