"""Data folders that are not what they should be, and clocks: each is refused with
what to do, nothing is overwritten, and the pool goes on."""
import os
import shutil
import unittest

from harness import PoolCase, say, wait_for
from test_backup import ctl

DAY_MS = 24 * 3600 * 1000


class BadFolders(PoolCase):
    """Member 3 and a lone host get bad folders; members 1 and 2 go on."""
    options = ("--snapshot-threshold=100",)

    def setUp(self):
        cls = type(self)
        self.c = self.client()
        self.ref = self.c.pool.get_all()[0]
        if hasattr(cls, "lone"):
            return
        for i in range(220):  # snapshots, closed and open segments
            self.c.pool.set_name_description(self.ref, str(i))
        self.pool.wait_converged()
        cls.member, cls.lone = self.pool.members[2], self.pool.add_member()
        self.pool.members.remove(cls.lone)
        cls.addClassCleanup(cls.lone.stop)
        cls.lone.wait_up().close()
        for m in (cls.member, cls.lone):
            m.kill("daemon")
            self.copy(m.dir / "data", m.dir / "good")

    def copy(self, source, to):
        if to.exists():
            shutil.rmtree(to)
        shutil.copytree(source, to, ignore=lambda _, names: {"xapi"} & set(names))

    def content(self, folder):
        """Of all that is kept in it."""
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*")
                if p.is_file() and not p.name.startswith(("pool.db", "lock"))}

    def refused(self, m, words, change):
        """The daemon ends with these words in its log, and the folder stays as it
        is; with the good one it serves."""
        data = m.dir / "data"
        change(data)
        before, logged = self.content(data), len(m.log())
        m.start_daemon()
        wait_for(lambda: m.daemon.poll() is not None, 20, "it refuses: "
                 + m.log()[logged:][-1000:])
        said = m.log()[logged:]
        self.assertEqual(m.daemon.returncode, 1)
        self.assertIn(words, said)
        after = self.content(data)
        self.assertEqual({k: v for k, v in after.items() if k in before}, before)
        self.assertEqual({k.name for k in after.keys() - before.keys()}, set())
        say(next(l for l in said.splitlines() if words in l)[26:160] + " ...")
        self.copy(m.dir / "good", data)
        self.c.pool.set_name_description(self.ref, words)

    def raft_of(self, other):
        def change(data):
            shutil.rmtree(data / "raft")
            shutil.copytree(other.dir / "good/raft", data / "raft")
        return change

    def files(self, pattern, change):
        def do(data):
            found = list((data / "raft").glob(pattern))
            self.assertTrue(found, pattern)
            for path in found:
                path.write_bytes(change(path.read_bytes()))
        return do

    def test_1_of_another_host(self):
        self.refused(self.lone, "belongs to the member", self.raft_of(self.member))
        self.refused(self.member, "belongs to the member", self.raft_of(self.lone))
        uuid = (self.lone.dir / "good/host-uuid").read_text()
        self.refused(self.member, "belongs to the member",
                     lambda data: (data / "host-uuid").write_text(uuid))

    def test_2_of_a_newer_format(self):
        for pattern in ("metadata*", "[0-9]*-[0-9]*", "open-*"):
            self.refused(self.member, "version",
                         self.files(pattern, lambda old: b"\x09" + old[1:]))

    def test_3_anything(self):
        self.refused(self.member, "move it away",
                     self.files("[!o]*", lambda old: os.urandom(len(old))))
        for name in ("members.json", "host-uuid", "server.crt", "server.key"):
            self.refused(self.member, name, lambda data, name=name:
                         (data / name).write_bytes(os.urandom(300)))
        self.refused(self.lone, "stays in the pool that it was in", lambda data:
                     (data / "joining.json").write_text("[junk"))

    def test_4_a_snapshot_larger_than_the_memory(self):
        m = self.member
        m.env["XENPOOL_FAILPOINTS"] = "memory.available=return:1000000"
        logged = len(m.log())
        m.start_daemon()
        wait_for(lambda: m.daemon.poll() is not None, 20, "it refuses its own")
        self.assertEqual(m.daemon.returncode, 1)
        self.assertIn("of which 0 MiB are free", m.log()[logged:])
        self.assertNotIn("move it away", m.log()[logged:])
        # One that comes from the master: the member ends, the others go on.
        shutil.rmtree(m.dir / "data/raft")
        logged = len(m.log())
        m.start_daemon()
        wait_for(lambda: m.daemon.poll() is not None, 20, "it refuses it")
        self.assertEqual(m.daemon.returncode, 3)
        self.assertIn("of which 0 MiB are free", m.log()[logged:])
        self.c.pool.set_name_description(self.ref, "the others go on")
        m.env.clear()
        m.start_daemon()
        m.wait_up().close()
        self.pool.wait_converged()
        m.kill("daemon")
        self.copy(m.dir / "data", m.dir / "good")

    def test_5_a_clock_that_is_a_day_behind(self):
        """The time of day decides nothing: the member leads, serves sessions that
        began in its future, and the history says what its clock said."""
        m, session = self.member, self.c.session
        m.env["XENPOOL_FAILPOINTS"] = f"clock.wall=return:{-DAY_MS}"
        m.start_daemon()
        m.wait_up().close()
        m.env.clear()
        self.pool.wait_converged()
        self.c.pool.designate_new_master(m.host_ref(self.c))
        wait_for(lambda: self.pool.leader() is m, 20, "it leads")
        c = m.client(login=False)
        self.addCleanup(c.close)
        c.session = session
        before = int(c.pool.get_all() and m.rows("SELECT max(time) FROM history")[0][0])
        c.pool.set_name_label(self.ref, "yesterday")
        self.assertEqual(self.c.pool.get_name_label(self.ref), "yesterday")
        rows = wait_for(lambda: m.rows(
            "SELECT time FROM history WHERE new LIKE '%yesterday%'"), 10, "its history")
        self.assertLess(int(rows[0][0]), before - DAY_MS + 3600 * 1000)
        self.pool.wait_converged()
        # Its clock is put right by a restart.
        m.kill("daemon")
        m.start_daemon()
        m.wait_up().close()
        self.c.pool.set_name_label(self.ref, "today")
        self.pool.wait_converged()
        for x in self.pool.members:
            ctl(x, "check")


if __name__ == "__main__":
    unittest.main(verbosity=2)
