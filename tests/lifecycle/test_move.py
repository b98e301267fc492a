"""Live migration between two hosts, when all goes well and when it does not."""
import time
import unittest

from case import REAL, Gap, LifeCase, say, wait_for

LIVE = {"live": "true"}


class Move(LifeCase):
    options = () if REAL else ("--host-dead-after=5000",)

    def running(self, name, kind="pvh", **options):
        """A VM that runs on the first host and counts ten times a second."""
        vm = self.vm(name, kind, period=0.1, slow="migrate", **options)
        self.c.VM.start_on(vm, self.host_a, False, False)
        self.counts_beyond(vm, 5)
        self.uuid = self.c.VM.get_uuid(vm)
        return vm

    def test_01_there_and_back(self):
        """Its counting goes on, and no number is missing or said twice."""
        c, vm = self.c, self.running("mover")
        for host, m in ((self.host_b, self.b), (self.host_a, self.a)):
            before, begin = self.ticks(vm), time.monotonic()
            with Gap(self.pool, self.uuid) as gap:
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
        c.VM.clean_shutdown(vm)

    def test_02_pv(self):
        """Xen without shadow paging cannot follow a PV guest's writes: it says
        so, and the guest runs on where it was."""
        c, vm = self.c, self.running("pv", "pv")
        if not REAL:
            c.VM.pool_migrate(vm, self.host_b, LIVE)
            return self.assert_domain(vm, "running")
        error = self.error(self.do, c.VM.pool_migrate, vm, self.host_b, LIVE)
        say(f"live migration of a PV guest: {error}")
        self.assertEqual(c.VM.get_resident_on(vm), self.host_a)
        self.assert_settled(c)
        self.assert_counts(vm)

    def test_02b_not_live(self):
        """Stopped for the whole copy, any guest can go anywhere; what it counted
        it does not count again."""
        c, vm = self.c, self.running("stopped", "pv")
        before = self.ticks(vm)
        with Gap(self.pool, self.uuid) as gap:
            self.do(c.VM.pool_migrate, vm, self.host_b, {"live": "false"})
            self.counts_beyond(vm, before + 5)
        say(f"not live: silent for {gap.longest:.2f} s")
        self.assertEqual(c.VM.get_resident_on(vm), self.host_b)
        self.assert_domain(vm, "running")
        self.assert_one_life(vm)
        if not REAL:  # as long as its copying takes, or nearly
            self.assertGreater(gap.longest, 0.8)
        self.assert_settled(c)

    def test_03_no_room(self):
        """The other host is full."""
        c, vm = self.c, self.running("squeezed")
        filler = self.vm("filler")
        free = int(c.host.compute_free_memory(self.host_b)) - (90 << 20)
        c.VM.set_memory_limits(filler, free, free, free, free)
        c.VM.start_on(filler, self.host_b, True, False)
        error = self.error(self.do, c.VM.pool_migrate, vm, self.host_b, LIVE)
        self.assertEqual(error[0], "HOST_NOT_ENOUGH_FREE_MEMORY")
        self.assertEqual(c.VM.get_resident_on(vm), self.host_a)
        self.assert_settled(c)
        self.assert_counts(vm)

    # ---- something dies on the way ----

    def broken(self, name, harm, mend):
        """The harm is done while the guest moves, and mended a little later. The
        task ends in either way, and the guest counts on, on one host."""
        vm = self.running(name)
        witness = self.witness.client()
        task = witness.Async.VM.pool_migrate(vm, self.host_b, LIVE)
        wait_for(lambda: witness.VM.get_current_operations(vm) or
                 witness.task.get_status(task) != "pending", 10, "it begins")
        time.sleep(0.4 if not REAL else 3)
        if witness.task.get_error_info(task)[:1] == ["NOT_IMPLEMENTED"]:
            self.do(witness.wait_task, task)
        harm()
        time.sleep(0.3 if not REAL else 2)
        mend()
        self.c.close()
        self.c = self.witness.wait_up(60)
        self.addCleanup(self.c.close)
        record = self.wait_ended(self.c, task, 60)
        self.assert_settled(self.c)
        state = self.c.VM.get_power_state(vm)
        say(f"{name}: {record['status']} {' '.join(record['error_info'])[:90]}; "
            f"{state} on {self.home(vm)}")
        self.assertEqual(state, "Running")
        self.assert_counts(vm)
        self.assert_one_life(vm)
        witness.close()
        self.c.VM.hard_shutdown(vm)

    def executor_dies(self, m):
        self.witness = self.b if m is self.a else self.a
        self.broken(f"executor of {m.address} killed", lambda: m.kill("executor"),
                    m.start_executor)

    def daemon_dies(self, m):
        self.witness = self.b if m is self.a else self.a
        self.broken(f"daemon of {m.address} killed", lambda: m.kill("daemon"),
                    m.start_daemon)

    def test_04_executor_of_the_source(self):
        self.executor_dies(self.a)

    def test_05_executor_of_the_target(self):
        self.executor_dies(self.b)

    def test_06_daemon_of_the_source(self):
        self.daemon_dies(self.a)

    def test_07_daemon_of_the_target(self):
        self.daemon_dies(self.b)

    @unittest.skipUnless(REAL, "local processes have no cable")
    def test_08_cable_pulled(self):
        """In the middle of the guest's memory, for longer than a heartbeat."""
        self.witness = self.a

        def pull():
            self.a.machine.set_cable(False)
            time.sleep(15)
        self.broken("cable pulled for 15 s", pull,
                    lambda: self.a.machine.set_cable(True))

    def test_09_toolstack_of_the_source(self):
        """Daemon and executor at once; its guest is not asked."""
        self.witness = self.b

        def harm():
            self.a.kill("executor")
            self.a.kill("daemon")
        self.broken("toolstack of the source killed", harm, self.a.start)

    def test_10_the_same_everywhere(self):
        self.pool.wait_converged()


if __name__ == "__main__":
    unittest.main(verbosity=2)
