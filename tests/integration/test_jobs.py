"""Executors and daemons that die in the middle of a job, wherever they stand."""
import time
import unittest

from harness import NULL, PoolCase, new_vm, say, wait_for

STEPS = {"start": "start_ms", "clean_shutdown": "shutdown_ms",
         "pool_migrate": "migrate_ms"}
SLOW = 1000  # ms that a job takes


class Jobs(PoolCase):
    options = ("--host-dead-after=5000",)

    def setUp(self):
        self.owner, self.target, self.third = self.pool.members
        self.c = self.third.client()
        self.addCleanup(self.c.close)
        self.vm = None
        self.addCleanup(self.drop)

    def drop(self):
        c = self.pool.leader().client()
        try:
            if c.VM.get_power_state(self.vm) != "Halted":
                c.VM.hard_shutdown(self.vm)
            c.VM.destroy(self.vm)
        except Exception as e:
            say(f"{self.vm} stays: {e}")
        c.close()

    def begin(self, c, what, name, owner=None, target=None):
        """The task of a job that is under way on the owner's host."""
        owner, target = owner or self.owner, target or self.target
        self.vm = new_vm(c, name, **{STEPS[what]: SLOW})
        self.uuid = c.VM.get_uuid(self.vm)
        host = owner.host_ref(c)
        if what == "start":
            task = c.Async.VM.start_on(self.vm, host, False, False)
        else:
            c.VM.start_on(self.vm, host, False, False)
            if what == "clean_shutdown":
                task = c.Async.VM.clean_shutdown(self.vm)
            else:
                task = c.Async.VM.pool_migrate(self.vm, target.host_ref(c),
                                               {"live": "true"})
        wait_for(lambda: c.VM.get_current_operations(self.vm), 10, "the job begins")
        time.sleep(SLOW / 2500)
        return task

    def ended(self, c, task, what, timeout=30):
        """Waits for the end, and that all is as it should be then."""
        end = time.monotonic() + timeout
        while True:
            record = c.task.get_record(task)
            if record["status"] not in ("pending", "cancelling"):
                break
            self.assertLess(time.monotonic(), end, f"the task does not end: {record}")
            self.assert_at_most_one(self.uuid)
            time.sleep(0.05)
        self.assert_settled(c)
        vm = c.VM.get_record(self.vm)
        say(f"{what}: {record['status']} {' '.join(record['error_info'])[:90]}; "
            f"the VM is {vm['power_state']}")
        if record["status"] == "success":
            self.assertEqual(vm["power_state"],
                             "Halted" if "shutdown" in what else "Running")
            self.assertEqual(record["result"], "<value></value>")
        else:
            self.assertNotEqual(record["error_info"], [])
        # and it can be used as before
        c.task.destroy(task)
        c.VM.remove_from_other_config(self.vm, "sim:start_ms")
        if vm["power_state"] == "Halted":
            c.VM.start(self.vm, False, False)
        self.assertEqual(c.VM.get_power_state(self.vm), "Running")
        self.assert_settled(c)
        return record

    # ---- the executor dies, and comes back ----

    def executor_dies(self, what, member):
        task = self.begin(self.c, what, f"executor-{what}")
        member.kill("executor")
        time.sleep(0.2)
        member.start_executor()
        return self.ended(self.c, task, f"{what}, executor of {member.address} killed")

    def test_01_executor_start(self):
        self.executor_dies("start", self.owner)

    def test_02_executor_shutdown(self):
        record = self.executor_dies("clean_shutdown", self.owner)
        self.assertEqual(record["status"], "success")

    def test_03_executor_migrate_source(self):
        self.executor_dies("pool_migrate", self.owner)

    def test_04_executor_migrate_target(self):
        self.executor_dies("pool_migrate", self.target)

    # ---- a daemon dies, and comes back ----

    def daemon_dies(self, what, member):
        survivor = next(m for m in self.pool.members if m is not member)
        c = survivor.client()
        self.addCleanup(c.close)
        task = self.begin(c, what, f"daemon-{what}")
        member.kill("daemon")
        time.sleep(0.3)
        member.start_daemon()
        member.wait_up().close()
        return self.ended(c, task, f"{what}, daemon of {member.address} killed")

    def test_05_daemon_of_the_owner_start(self):
        record = self.daemon_dies("start", self.owner)
        self.assertEqual(record["status"], "success")

    def test_06_daemon_of_the_owner_migrate(self):
        self.daemon_dies("pool_migrate", self.owner)

    def test_07_daemon_of_the_target_migrate(self):
        self.daemon_dies("pool_migrate", self.target)

    def test_08_master_migrate(self):
        """Once while the master owns nothing of the job."""
        leader = self.pool.leader()
        self.third = leader
        self.owner, self.target = self.pool.followers()
        record = self.daemon_dies("pool_migrate", leader)
        self.assertEqual(record["status"], "success")

    def test_09_master_start(self):
        """Once while it is the host of the job as well."""
        self.owner = self.pool.leader()
        self.target, self.third = self.pool.followers()
        record = self.daemon_dies("start", self.owner)
        self.assertEqual(record["status"], "success")

    def test_10_whoever_was_asked(self):
        """The member that holds the caller's connection dies."""
        asked = self.pool.followers()[0]
        others = [m for m in self.pool.members if m is not asked]
        self.owner, self.target = others
        c = asked.client()
        task = self.begin(c, "pool_migrate", "asked")
        asked.kill("daemon")
        time.sleep(0.3)
        asked.start_daemon()
        asked.wait_up().close()
        survivor = others[0].client()
        survivor.session = c.session
        record = self.ended(survivor, task, "pool_migrate, the member asked was killed")
        self.assertEqual(record["status"], "success")

    def test_11_daemon_and_executor(self):
        """A host's whole toolstack; its domains go on."""
        c = self.third.client()
        task = self.begin(c, "start", "whole")
        for what in ("executor", "daemon"):
            self.owner.kill(what)
        self.owner.start()
        self.owner.wait_up().close()
        self.ended(c, task, "start, whole toolstack of the host killed")

    def test_12_everything(self):
        """All daemons and executors at once."""
        task = self.begin(self.c, "pool_migrate", "everything")
        for m in self.pool.members:
            m.kill("daemon")
            m.kill("executor")
        for m in self.pool.members:
            m.start()
        for m in self.pool.members:
            m.wait_up().close()
        self.c.close()
        self.ended(self.c, task, "pool_migrate, everything killed")

    def test_13_a_host_that_stays_away(self):
        """Its job is given up, its VM is not started elsewhere unasked; when it
        comes back, what the database says and what runs agree."""
        owner = self.pool.followers()[0]
        others = [m for m in self.pool.members if m is not owner]
        c = others[0].client()
        task = self.begin(c, "start", "away", owner=owner)
        owner.kill("daemon")
        owner.kill("executor")
        wait_for(lambda: self.jobs(others[0]), 5, "the job is seen")
        record = self.wait_ended(c, task, 30)
        self.assertEqual(record["status"], "failure")
        say(f"start on a host that is gone: {record['error_info']}")
        self.assertEqual(c.VM.get_current_operations(self.vm), {})
        metrics = c.host.get_metrics(owner.host_ref(c))
        self.assertFalse(c.host_metrics.get_live(metrics))
        if c.VM.get_resident_on(self.vm) == NULL:
            c.VM.remove_from_other_config(self.vm, "sim:start_ms")
            c.VM.start(self.vm, False, False)
            self.assertNotEqual(c.VM.get_resident_on(self.vm), owner.host_ref(c))
        owner.start()
        owner.wait_up().close()
        wait_for(lambda: c.host_metrics.get_live(metrics), 20, "the host is live again")
        self.assert_settled(c)

    def test_14_the_same_everywhere(self):
        self.pool.wait_converged()


if __name__ == "__main__":
    unittest.main(verbosity=2)
