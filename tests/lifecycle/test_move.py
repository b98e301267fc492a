"""Live migration between two hosts, when all goes well and when it does not."""
import time
import unittest

from case import REAL, Gap, say, wait_for
from devices import DeviceCase

LIVE = {"live": "true"}


class Move(DeviceCase):
    options = () if REAL else ("--host-dead-after=5000",)

    mover = stopper = None  # guests that have lived through the tests so far

    def begin(self, name, kind="pvh"):
        """A VM that runs on the first host and counts ten times a second."""
        vm = self.vm(name, kind, period=0.1, slow="migrate")
        self.c.VM.start_on(vm, self.host_a, False, False)
        self.counts_beyond(vm, 5)
        return vm

    def running(self):
        """The guest of the test before, when that has kept it, or a new one: each
        boot takes the emulated Xen a while. Where it is is the source."""
        vm, Move.mover = Move.mover, None
        if vm:
            self.made.append(vm)
        else:
            vm = self.begin("mover")
        self.source, self.target = self.a, self.b
        if self.c.VM.get_resident_on(vm) == self.host_b:
            self.source, self.target = self.b, self.a
        self.source_host, self.target_host = (m.host_ref(self.c) for m in
                                              (self.source, self.target))
        return vm

    def keep(self, vm):
        """It is as good as it was: for the next test."""
        self.made.remove(vm)
        Move.mover = vm

    def test_00_start_on_each_host(self):
        c, vm = self.c, self.vm("chosen")
        for host in (self.host_a, self.host_b):
            c.VM.start_on(vm, host, True, False)
            self.assertEqual(c.VM.get_resident_on(vm), host)
            self.assert_domain(vm, "paused")
            self.assertIn(vm, c.host.get_resident_VMs(host))
            c.VM.hard_shutdown(vm)
            self.assertNotIn(vm, c.host.get_resident_VMs(host))

    def test_01_there_and_back(self):
        """Its counting goes on, and no number is missing or said twice."""
        c, vm = self.c, self.running()
        for host, m in ((self.target_host, self.target), (self.source_host, self.source)):
            before, begin = self.ticks(vm), time.monotonic()
            with Gap(self.pool, c.VM.get_uuid(vm)) as gap:
                self.do(c.VM.pool_migrate, vm, host, LIVE)
                took = time.monotonic() - begin
                self.counts_beyond(vm, before + 30)
            say(f"migrated in {took:.2f} s, silent for {gap.longest:.2f} s")
            record = c.VM.get_record(vm)
            self.assertEqual((record["power_state"], record["resident_on"],
                              record["current_operations"]), ("Running", host, {}))
            self.assertEqual(self.domains_of(vm), [(m.address, "running")])
            self.assert_one_life(vm)
        c.VM.pool_migrate(vm, c.VM.get_resident_on(vm), LIVE)
        self.assert_counts(vm)
        self.assert_settled(c)
        self.keep(vm)

    def test_02_pv(self):
        """Xen without shadow paging cannot follow a PV guest's writes: it says
        so, and the guest runs on where it was."""
        c, vm = self.c, self.begin("pv", "pv")
        if not REAL:
            c.VM.pool_migrate(vm, self.host_b, LIVE)
            return self.assert_domain(vm, "running")
        error = self.error(self.do, c.VM.pool_migrate, vm, self.host_b, LIVE)
        say(f"live migration of a PV guest: {error}")
        self.assertEqual(c.VM.get_resident_on(vm), self.host_a)
        self.assert_settled(c)
        self.assert_counts(vm)
        self.made.remove(vm)
        Move.stopper = vm

    def test_02b_not_live(self):
        """Stopped for the whole copy, any guest can go anywhere; what it counted
        it does not count again."""
        c, vm = self.c, self.stopper or self.begin("stopped", "pv")
        if vm not in self.made:
            self.made.append(vm)
        before = self.ticks(vm)
        with Gap(self.pool, c.VM.get_uuid(vm)) as gap:
            self.do(c.VM.pool_migrate, vm, self.host_b, {"live": "false"})
            # So far that the watcher has seen it count again.
            self.counts_beyond(vm, max(self.ticks(vm), before) + (5 if REAL else 200))
        say(f"not live: silent for {gap.longest:.2f} s")
        self.assertEqual(c.VM.get_resident_on(vm), self.host_b)
        self.assert_domain(vm, "running")
        self.assert_one_life(vm)
        if not REAL:  # as long as its copying takes, or nearly
            self.assertGreater(gap.longest, 0.8)
        self.assert_settled(c)

    def test_03_no_room(self):
        """The other host is full: of a guest whose memory is no whole number of
        MiB, as clients may have it."""
        c, vm = self.c, self.running()
        filler = self.vm("filler")
        size = int(c.host.compute_free_memory(self.target_host)) - (90 << 20)
        size = (size >> 20 << 20) + 4096
        c.VM.set_memory_limits(filler, size, size, size, size)
        c.VM.start_on(filler, self.target_host, True, False)
        error = self.error(self.do, c.VM.pool_migrate, vm, self.target_host, LIVE)
        self.assertEqual(error[0], "HOST_NOT_ENOUGH_FREE_MEMORY")
        self.assertEqual(c.VM.get_resident_on(vm), self.source_host)
        self.assert_settled(c)
        self.assert_counts(vm)
        self.keep(vm)

    def test_03b_devices_travel(self):
        """What is plugged goes with its VM, what is not does not."""
        self.set_up_devices()
        c, vm = self.c, self.running()
        drives = [self.drive(vm, str(i), d) for i, d in enumerate(self.disks)]
        for vbd in drives:
            self.do(c.VBD.plug, vbd)
        c.VBD.unplug(drives[0])

        def assert_second_only():
            self.assertEqual(c.VM.get_resident_on(vm), self.target_host)
            self.assert_devices(vm, [1], [])
            self.assertEqual([c.VBD.get_currently_attached(b) for b in drives],
                             [False, True])
        self.do(c.VM.pool_migrate, vm, self.target_host, LIVE)
        assert_second_only()
        c.VM.suspend(vm)
        c.VM.resume_on(vm, self.target_host, False, False)
        assert_second_only()
        c.VBD.unplug(drives[1])
        for vbd in drives:
            c.VBD.destroy(vbd)
        self.assert_one_life(vm)
        self.assert_settled(c)
        self.keep(vm)

    # ---- something dies on the way ----

    def broken(self, name, harm, mend, witness=None, late=False):
        """The harm is done while the guest moves, and mended a little later. The
        task ends in either way, and the guest counts on, on one host. The witness
        is a member that lives on: the source, when it is not said. late: when the
        guest has been sent, and its destination may let it run."""
        vm = self.running()
        member = witness() if witness else self.source
        c = member.client()
        task = c.Async.VM.pool_migrate(vm, self.target_host, LIVE)
        wait_for(lambda: c.VM.get_current_operations(vm) or
                 c.task.get_status(task) != "pending", 10, "it begins")
        if late:
            wait_for(lambda: c.VM.get_resident_on(vm) == self.target_host, 40,
                     "it has been sent", 0.01)
        else:
            time.sleep(0.4 if not REAL else 3)
        if c.task.get_error_info(task)[:1] == ["NOT_IMPLEMENTED"]:
            self.do(c.wait_task, task)
        harm()
        time.sleep(0.3 if not REAL else 2)
        mend()
        c.close()
        self.c.close()
        self.c = member.wait_up(60)
        self.addCleanup(self.c.close)
        record = self.wait_ended(self.c, task, 60)
        self.assert_settled(self.c)
        state = self.c.VM.get_power_state(vm)
        say(f"{name}: {record['status']} {' '.join(record['error_info'])[:90]}; "
            f"{state} on {self.home(vm)}")
        self.assertEqual(state, "Running")
        self.assert_counts(vm)
        self.assert_one_life(vm)
        self.keep(vm)

    def test_04_executor_of_the_source(self):
        self.broken("executor of the source killed",
                    lambda: self.source.kill("executor"),
                    lambda: self.source.start_executor(), lambda: self.target)

    def test_05_executor_of_the_target(self):
        self.broken("executor of the target killed",
                    lambda: self.target.kill("executor"),
                    lambda: self.target.start_executor())

    def test_06_daemon_of_the_source(self):
        self.broken("daemon of the source killed",
                    lambda: self.source.kill("daemon"),
                    lambda: self.source.start_daemon(), lambda: self.target)

    def test_07_daemon_of_the_target(self):
        self.broken("daemon of the target killed",
                    lambda: self.target.kill("daemon"),
                    lambda: self.target.start_daemon())

    @unittest.skipUnless(REAL, "local processes have no cable")
    def test_08_cable_pulled(self):
        """In the middle of the guest's memory, for longer than a heartbeat."""
        def pull():
            self.source.machine.set_cable(False)
            time.sleep(15)
        self.broken("cable pulled for 15 s", pull,
                    lambda: self.source.machine.set_cable(True))

    def test_09_toolstack_of_the_source(self):
        """Daemon and executor at once; its guest is not asked."""
        def harm():
            self.source.kill("executor")
            self.source.kill("daemon")
        self.broken("toolstack of the source killed", harm,
                    lambda: self.source.start(), lambda: self.target)

    def late(self, name, harmed, witness):
        """Its daemon and executor at once, at the worst time: the guest has been
        sent, and not yet let run."""
        def harm():
            harmed().kill("executor")
            harmed().kill("daemon")
        self.broken(f"toolstack of the {name} killed late", harm,
                    lambda: harmed().start(), witness, late=True)

    def test_10_toolstack_of_the_source_late(self):
        self.late("source", lambda: self.source, lambda: self.target)

    def test_11_toolstack_of_the_target_late(self):
        self.late("target", lambda: self.target, lambda: self.source)

    def test_12_the_same_everywhere(self):
        self.pool.wait_converged()


if __name__ == "__main__":
    unittest.main(verbosity=2)
