"""Who belongs to a pool: leaving it, and knowing that; coming again; how many
vote; one identity on two hosts; many members."""
import hashlib
import shutil
import subprocess
import time
import unittest

from harness import BUILD, PoolCase, say, wait_for
from test_backup import ctl, ctl_json


class Members(PoolCase):
    members = 4

    def roles(self, c=None):
        return {x["address"].split(":")[0]: x["role"]
                for x in self.pool.leader().status()["members"]}

    def assert_knows(self, m, log=0):
        """The removed host says so everywhere, at once."""
        wait_for(lambda: "not in its pool any more" in m.log()[log:], 20, "it knows")
        uuid = (m.dir / "data" / "host-uuid").read_text().strip()
        c = m.client(login=False, timeout=10)
        self.addCleanup(c.close)

        def answers():
            try:
                return self.error(c.login) == ["HOST_UNKNOWN_TO_MASTER", uuid]
            except OSError:
                return False
        wait_for(answers, 10, "its calls fail")
        done = subprocess.run([BUILD / "xenpoolctl", "--password", "secret", "--url",
                               f"https://{m.address}:{self.pool.https_port}", "status"],
                              capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 1)
        self.assertIn("was removed from its pool", done.stderr)
        self.assertTrue((m.dir / "data" / "raft").is_dir(), "its log was kept")

    def eject(self, m, *others):
        c = others[0].client()
        self.addCleanup(c.close)
        c.pool.eject(m.host_ref(c))
        wait_for(lambda: m.address not in self.roles(), 20, "it is out")
        return c

    def test_1_removed_while_it_runs(self):
        leader = self.pool.leader()
        m = self.pool.followers()[-1]
        term = leader.status()["term"]
        c = self.eject(m, leader)
        self.assert_knows(m)
        c.pool.set_name_label(c.pool.get_all()[0], "three are left")
        self.assertEqual(leader.status()["term"], term)
        # and after a restart
        log = len(m.log())
        m.kill("daemon")
        m.start_daemon()
        self.assert_knows(m, log)
        type(self).out = m

    def test_2_it_joins_again(self):
        m = self.out
        m.kill("daemon")
        data = m.dir / "data"
        for name in ("raft", "removed"):
            shutil.rmtree(data / name)
        for path in [data / "members.json", *data.glob("pool.db*")]:
            path.unlink()
        m.start_daemon()
        self.pool.join(m)
        self.pool.wait_formed()
        self.pool.wait_converged()

    def test_3_removed_while_it_was_away(self):
        leader = self.pool.leader()
        m = self.pool.followers()[-1]
        m.kill("daemon")
        self.eject(m, leader)
        term, log = leader.status()["term"], len(m.log())
        m.start_daemon()
        begin = time.monotonic()
        self.assert_knows(m, log)
        say(f"back after its removal, it knows after {time.monotonic() - begin:.1f} s")
        self.assertEqual(leader.status()["term"], term)
        self.pool.members.remove(m)
        m.stop()
        self.pool.wait_converged()

    def test_4_one_identity_on_two_hosts(self):
        m = self.pool.followers()[0]
        c = self.pool.leader().client()
        self.addCleanup(c.close)
        copy = self.pool.dir / "copy"
        m.kill("daemon")
        shutil.copytree(m.dir / "data", copy, ignore=shutil.ignore_patterns("xapi"))
        m.start_daemon()
        m.wait_up().close()
        said = self.refused(copy, f"{self.pool.network}.99")
        self.assertIn(f"the member at {m.address}:7443", said)
        self.assertIn("start this host with an empty one", said)
        # Also at the member's own address, while the member is there.
        pid = m.daemon.pid
        said = self.refused(copy, m.address)
        self.assertIn(f"cannot listen on {m.address}:", said)
        self.assertIn("is the address this host's, and the port free?", said)
        m.client().close()
        self.assertEqual(m.daemon.pid, pid)
        self.assertEqual(len(c.host.get_all()), len(self.pool.members))
        self.pool.wait_converged()

    def refused(self, folder, address):
        """What a daemon says that does not start with this folder at this address,
        and leaves the folder as it was."""
        def content():
            return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
                    for p in folder.rglob("*")
                    if p.is_file() and not p.name.startswith(("pool.db", "lock"))}
        before = content()
        done = subprocess.run(
            [BUILD / "xenpoold", f"--data-dir={folder}", f"--address={address}",
             "--https-port=8443", "--http-port=0", "--peer-port=7443",
             "--executor-socket=/nonexistent/x",
             f"--root-password-file={self.pool.dir}/password"],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(content(), before)
        return done.stdout + done.stderr


class Many(PoolCase):
    """Sixteen members on one machine: 3 or 5 vote, the others stand by."""
    members = 16

    def voters(self):
        return [x["address"].split(":")[0] for x in self.pool.leader().status()["members"]
                if x["role"] == "voter"]

    def test_1_formed(self):
        self.assertEqual(len(self.voters()), 5)
        self.pool.wait_converged(60)

    def test_2_three_or_five(self):
        c = self.client(9)
        ref = c.pool.get_all()[0]
        for key, values in (("xenpool-voters", ("4", "7", "many", "", "-3")),
                            ("xenpool-voter-replace-after", ("0", "soon", "99999999"))):
            for value in values:
                for call in (lambda: c.pool.add_to_other_config(ref, key, value),
                             lambda: c.pool.set_other_config(ref, {key: value})):
                    self.assertEqual(self.error(call)[:3], ["INVALID_VALUE", key, value])
        m = self.pool.members[9]
        defaults = {"xenpool-voters": {"value": 5, "default": 5},
                    "xenpool-voter-replace-after": {"value": 20, "default": 20}}
        self.assertEqual(ctl_json(m, "status")["settings"], defaults)
        self.assertIn("settings    xenpool-voters 5 (default)\n"
                      "            xenpool-voter-replace-after 20 (default)\n",
                      ctl(m, "status"))
        c.pool.add_to_other_config(ref, "xenpool-voters", "3")
        wait_for(lambda: len(self.voters()) == 3, 20, "three vote")
        self.assertIn("settings    xenpool-voters 3 (default 5)\n", ctl(m, "status"))
        self.assertEqual(ctl_json(m, "status")["settings"], {
            **defaults, "xenpool-voters": {"value": 3, "default": 5}})
        c.pool.remove_from_other_config(ref, "xenpool-voters")
        wait_for(lambda: len(self.voters()) == 5, 20, "five vote")

    def test_3_a_voter_that_stays_away(self):
        c = self.pool.leader().client()
        self.addCleanup(c.close)
        ref = c.pool.get_all()[0]
        c.pool.add_to_other_config(ref, "xenpool-voter-replace-after", "3")
        leader = self.pool.leader()
        gone = next(m for m in self.pool.members
                    if m.address in self.voters() and m is not leader)
        gone.kill("daemon")
        begin = time.monotonic()
        wait_for(lambda: len(self.voters()) == 5 and gone.address not in self.voters(), 30,
                 "a stand-by takes its seat")
        say(f"a voter that is away is replaced after {time.monotonic() - begin:.1f} s")
        self.assertGreater(time.monotonic() - begin, 2.5)
        gone.start_daemon()
        gone.wait_up().close()
        time.sleep(1)
        self.assertNotIn(gone.address, self.voters())
        self.pool.wait_converged(60)


if __name__ == "__main__":
    unittest.main(verbosity=2)
