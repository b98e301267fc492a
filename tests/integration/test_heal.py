"""Members whose log is not what they have stood for, or whose state is not that
of the others: found, named, kept from doing harm, and built anew."""
import shutil
import time
import unittest

from harness import PoolCase, new_vm, say, wait_for


class LostLog(PoolCase):
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
        m.kill("daemon")
        old = m.dir / "old-raft"
        shutil.copytree(self.raft(m), old)
        m.start_daemon()
        m.wait_up().close()
        keys += self.write_some(c, "acknowledged")
        self.pool.wait_converged()
        m.kill("daemon")
        shutil.rmtree(self.raft(m))
        shutil.move(old, self.raft(m))
        begin = time.monotonic()
        m.start_daemon()
        wait_for(lambda: "had acknowledged, are gone" in m.log(), 15, "it finds out")
        m.wait_up().close()
        say(f"up again {time.monotonic() - begin:.1f} s after a start with an older log")
        self.assert_all_there(keys)
        self.assertIs(self.pool.leader(), leader)
        self.assertTrue((m.dir / "data" / "raft.before-rebuild").is_dir())

    def test_3_who_has_lost_its_log_does_not_vote(self):
        self.no_vote(shutil.rmtree, "precious")

    def test_4_who_has_an_older_log_does_not_vote(self):
        m = self.pool.followers()[0]
        m.kill("daemon")
        (m.dir / "data" / "rebuilt").unlink(missing_ok=True)  # or it would be too soon
        old = m.dir / "old-raft"
        shutil.copytree(self.raft(m), old)
        m.start_daemon()
        m.wait_up().close()

        def put_back(raft):
            shutil.rmtree(raft)
            shutil.move(old, raft)
        self.no_vote(put_back, "dear")

    def no_vote(self, lose, prefix):
        """Two of three have a write; one of them loses it, the other is down, and
        the third never had it: these two must not go on without it."""
        leader = self.pool.leader()
        lost, behind = self.pool.followers()
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


if __name__ == "__main__":
    unittest.main(verbosity=2)
