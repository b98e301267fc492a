"""Members whose log is not what they have stood for, or whose state is not that
of the others: found, named, kept from doing harm, and built anew."""
import shutil
import time
import unittest

from harness import PoolCase, new_vm, say, wait_for


# Who leads changes when a test wants it, also on a busy machine.
PATIENT = ("--election-timeout=1500",)


class LostLog(PoolCase):
    options = PATIENT

    def write_some(self, c, prefix, n=20):
        ref = c.pool.get_all()[0]
        for i in range(n):
            c.pool.add_to_other_config(ref, f"{prefix}-{i}", "x" * 50)
        return [f"{prefix}-{i}" for i in range(n)]

    def assert_all_there(self, keys):
        for m in self.pool.members:
            c = m.client()
            config = c.pool.get_other_config(c.pool.get_all()[0])
            self.assertEqual([k for k in keys if k not in config], [], m.address)
            c.close()
        self.pool.wait_formed()
        self.pool.wait_converged()

    def raft(self, m):
        return m.dir / "data" / "raft"

    def test_1_a_log_that_is_gone(self):
        """The folder was deleted, the identity stayed. A guest there runs on."""
        leader = self.pool.leader()
        m = self.pool.followers()[0]
        c = leader.client()
        self.addCleanup(c.close)
        vm = new_vm(c, "stays")
        c.VM.start_on(vm, m.host_ref(c), False, False)
        uuid = c.VM.get_uuid(vm)
        keys = self.write_some(c, "gone")
        m.kill("daemon")
        shutil.rmtree(self.raft(m))
        keys += self.write_some(c, "later")
        begin = time.monotonic()
        m.start_daemon()
        m.wait_up().close()
        say(f"up again {time.monotonic() - begin:.1f} s after a start without its log")
        self.assert_all_there(keys)
        self.assertIs(self.pool.leader(), leader)
        self.assertIn("its raft folder was empty", m.log())
        self.assertIn("has lost its log", leader.log())
        self.assertTrue((m.dir / "data" / "rebuilt").exists())
        self.assertFalse((m.dir / "data" / "rebuild").exists())
        self.assertEqual(self.pool.domains(uuid), [(m, "running")])
        self.assertEqual(c.VM.get_power_state(vm), "Running")
        c.VM.hard_shutdown(vm)

    def test_2_an_older_copy_of_the_log(self):
        """The folder was put back as it was some acknowledged writes before."""
        leader = self.pool.leader()
        m = self.pool.followers()[1]
        c = leader.client()
        self.addCleanup(c.close)
        keys = self.write_some(c, "before")
        old = self.keep_a_copy(m)
        keys += self.write_some(c, "acknowledged")
        self.pool.wait_converged()
        m.kill("daemon")
        shutil.rmtree(self.raft(m))
        shutil.move(old, self.raft(m))
        (m.dir / "data" / "floor").unlink(missing_ok=True)  # so that the master tells it
        begin = time.monotonic()
        m.start_daemon()
        wait_for(lambda: "had acknowledged, are gone" in m.log(), 15, "it finds out")
        m.wait_up().close()
        say(f"up again {time.monotonic() - begin:.1f} s after a start with an older log")
        self.assert_all_there(keys)
        self.assertIs(self.pool.leader(), leader)
        self.assertTrue((m.dir / "data" / "raft.before-rebuild").is_dir())

    def test_3_who_has_lost_its_log_does_not_vote(self):
        self.no_vote(self.pool.followers()[0], shutil.rmtree, "precious")

    def test_4_who_has_an_older_log_does_not_vote(self):
        m = self.pool.followers()[0]
        old = self.keep_a_copy(m)

        def put_back(raft):
            shutil.rmtree(raft)
            shutil.move(old, raft)
        self.no_vote(m, put_back, "dear")

    def keep_a_copy(self, m):
        """Of its log as it is now. Whatever was before, it may be rebuilt again."""
        m.kill("daemon")
        (m.dir / "data" / "rebuilt").unlink(missing_ok=True)  # or it would be too soon
        old = m.dir / "old-raft"
        shutil.copytree(self.raft(m), old)
        m.start_daemon()
        m.wait_up().close()
        self.pool.wait_converged()
        return old

    def no_vote(self, lost, lose, prefix):
        """Two of three have a write; one of them loses it, the other is down, and
        the third never had it: these two must not go on without it."""
        leader = self.pool.leader()
        behind, = (m for m in self.pool.members if m not in (leader, lost))
        behind.kill("daemon")
        c = leader.client()
        keys = self.write_some(c, prefix)
        c.close()
        time.sleep(1.5)  # what a member has of the log is noted once a second
        lost.kill("daemon")
        leader.kill("daemon")
        lose(self.raft(lost))
        before = {m: len(m.log()) for m in (lost, behind)}
        lost.start_daemon()
        behind.start_daemon()
        wait_for(lambda: "waiting for" in lost.log()[before[lost]:]
                 or "rebuilt from the others" in lost.log()[before[lost]:], 15,
                 "it knows")
        time.sleep(2.5)
        for m in (lost, behind):
            self.assertIsNone(m.daemon.poll())
            self.assertNotIn("(this host)", m.log()[before[m]:], m.address)
        begin = time.monotonic()
        c = lost.client(login=False, timeout=10)
        self.addCleanup(c.close)
        self.assert_error(["HOST_STILL_BOOTING"], c.login)
        self.assertLess(time.monotonic() - begin, 3)
        leader.start_daemon()
        for m in self.pool.members:
            m.wait_up(timeout=40).close()
        self.assert_all_there(keys)


class Diverged(PoolCase):
    """One member's copy of the pool's name_description changes by itself."""
    options = PATIENT

    @classmethod
    def prepare(cls):
        for m in cls.pool.members:
            m.arm()

    @classmethod
    def tearDownClass(cls):
        for m in cls.pool.members:  # what the harness looks for is wanted here
            path = m.dir / "xenpoold.log"
            path.write_text(m.log().replace("state differs", "state d."))
        super().tearDownClass()

    def messages(self, c, name, since):
        return [m for r, m in c.message.get_all_records().items()
                if m["name"] == name and r not in since]

    def corrupt(self, m, how, c, log=0):
        ref = c.pool.get_all()[0]
        before = set(c.message.get_all())
        m.arm(f"state.corrupt=return:{how}@1")
        begin = time.monotonic()
        name = f"by {how} at {time.monotonic()}"
        c.pool.set_name_label(ref, name)
        wait_for(lambda: " core: state" in m.log()[log:], 20, "it is found", 0.02)
        m.arm()  # for what starts anew
        return before, begin

    def assert_healed(self, m, how, watcher):
        """Found, named, in the log, an alarm once, rebuilt, equal."""
        # Who leads may have changed, so that it is one that was rebuilt before.
        (m.dir / "data" / "rebuilt").unlink(missing_ok=True)  # or it would be too soon
        c = watcher.client()
        self.addCleanup(c.close)
        ref = c.pool.get_all()[0]
        logs = {x: len(x.log()) for x in self.pool.members}
        before, begin = self.corrupt(m, how, c, logs[m])
        line = f"state: pool {ref} field name_description"
        wait_for(lambda: line in m.log()[logs[m]:] and line in watcher.log()[logs[watcher]:], 20, "it is named")
        named = time.monotonic() - begin
        wait_for(lambda: "rebuilt: one of the pool again" in m.log()[logs[m]:], 20, "it is rebuilt")
        m.wait_up().close()
        rebuilt = time.monotonic() - begin
        self.pool.wait_formed()
        self.pool.wait_converged()
        say(f"corrupted (way {how}), named after {named:.1f} s, back after {rebuilt:.1f} s")
        self.assertNotEqual(c.pool.get_name_description(ref), "corrupted")
        for x in self.pool.members:
            if x is not m:
                self.assertIn(line, x.log()[logs[x]:])
                self.assertNotIn("rebuilt from the others", x.log()[logs[x]:])
        alarms = self.messages(c, "MEMBER_STATE_DIFFERS", before)
        self.assertEqual(len(alarms), 1, alarms)
        self.assertIn(f"pool {ref} field name_description", alarms[0]["body"])
        self.assertEqual((alarms[0]["cls"], alarms[0]["priority"]), ("Pool", 1))
        wait_for(lambda: len(self.messages(c, "MEMBER_REBUILT", before)) == 1, 10,
                 "the end is told")

    def test_1_a_mistake_in_applying(self):
        self.assert_healed(self.pool.followers()[0], 1, self.pool.leader())

    def test_2_memory_that_changes(self):
        """No digest shows it; the member's own look at its rows does."""
        self.assert_healed(self.pool.followers()[1], 2, self.pool.leader())

    def test_3_the_master(self):
        master, watcher = self.pool.leader(), self.pool.followers()[0]
        self.assert_healed(master, 1, watcher)
        self.assertIsNot(self.pool.leader(), master)

    def test_4_two_that_differ(self):
        """Nobody can say who is right, until there is a third one."""
        leader, (m, third) = self.pool.leader(), self.pool.followers()
        (m.dir / "data" / "rebuilt").unlink()  # or it would be too soon
        third.kill("daemon")
        c = leader.client()
        self.addCleanup(c.close)
        before, _ = self.corrupt(m, 1, c, len(m.log()))
        wait_for(lambda: self.messages(c, "MEMBER_STATE_DIFFERS", before), 20,
                 "the alarm is raised")
        alarm, = self.messages(c, "MEMBER_STATE_DIFFERS", before)
        self.assertIn("an operator has to choose", alarm["body"])
        self.assertIn("field name_description", alarm["body"])
        time.sleep(1)
        m.client().close()
        log = len(m.log())
        third.start_daemon()
        wait_for(lambda: "rebuilt: one of" in m.log()[log:], 30, "the odd one is rebuilt")
        self.pool.wait_formed()
        self.pool.wait_converged()

    def test_5_one_after_the_other(self):
        """They ask the same member about its rows, which must not mind."""
        for m in self.pool.members:
            watcher = next(x for x in self.pool.members if x is not m)
            self.assert_healed(m, 1, watcher)


if __name__ == "__main__":
    unittest.main(verbosity=2)
