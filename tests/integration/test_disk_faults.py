"""Disks that lose their power, fill up, or flip bits, under five real members.

The load of load.py goes on. After each fault nothing acknowledged is lost, and all
members hold the same; a member that does not start says what to do, and overwrites
nothing. XENPOOL_FAULTS=all takes many more turns.
"""
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import ownfs
from harness import BROKEN, ApiError, PoolCase, say, wait_for
from load import Load
from test_backup import ctl

ALL = os.environ.get("XENPOOL_FAULTS") == "all"
SEED = int(os.environ.get("XENPOOL_FAULTS_SEED", "1"))
# What the log of a member that does not start must speak of.
ADVICE = re.compile(r"move|remove|restore|rebuil|join|upgrade")


class DiskCase(PoolCase):
    members = 5

    def setUp(self):
        self.dice = random.Random(SEED)
        self.load = Load(self.pool)
        self.addCleanup(self.load.stop)
        self.load.wait_progress()

    def choose(self, n):
        leader = self.load.leader()
        others = [m for m in self.pool.members if m is not leader]
        return [leader, *self.dice.sample(others, n - 1)]

    def settle(self, what, through=None):
        begin = time.monotonic()
        self.load.wait_progress(what=f"{what}: all go on", timeout=60)
        took = time.monotonic() - begin
        self.load.check(through or self.dice.choice(self.pool.members))
        say(f"{what}: all went on after {took:.1f} s")


with tempfile.TemporaryDirectory(prefix="xenpool-test-") as trial:
    NO_FS = ownfs.possible(pathlib.Path(trial))


@unittest.skipIf(NO_FS, NO_FS)
class Power(DiskCase):
    options = ("--snapshot-threshold=150", "--min-free-mib=16")

    @classmethod
    def prepare(cls):
        cls.fs = {}
        for m in cls.pool.members:
            cls.fs[m] = ownfs.OwnFs(m.dir / "data")

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop()
        if cls.failed:
            cls.show_logs()
        for fs in cls.fs.values():
            fs.unmount()
        cls.temporary.cleanup()

    def lose_power(self, members):
        """At once, as far as that goes."""
        for m in members:
            self.fs[m].lose_power()
        for m in members:
            m.daemon.kill()
        for m in members:
            m.kill("daemon")
            # It had the data folder open, too.
            m.kill("executor")
            self.fs[m].again()
        for m in members:
            m.start()

    def test_1_some_hosts(self):
        """The master and another one."""
        for i in range(10 if ALL else 1):
            victims = self.choose(2)
            self.lose_power(victims)
            self.settle(f"power of {' and '.join(m.address for m in victims)} lost",
                        victims[0])

    def test_2_all_hosts(self):
        for i in range(10 if ALL else 2):
            self.load.wait_progress()
            self.lose_power(self.pool.members)
            self.settle("all power lost")
        for m in self.pool.members:
            ctl(m, "check")

    def test_3_all_disks_full(self):
        """Writes are refused, reads go on; with room again, writes do."""
        self.load.allowed.append("OUT_OF_SPACE")
        c = self.client()
        pool = c.pool.get_all()[0]
        fillers = [self.fs[m].fill() for m in self.pool.members]

        def refused():
            # Sessions are rows: no more can begin, but this one goes on.
            try:
                c.pool.set_name_description(pool, "no room")
            except ApiError as e:
                return e
        error = wait_for(refused, 20, "a write is refused")
        say(f"all disks full: {error}")
        self.assertEqual(error.code, "OUT_OF_SPACE")
        self.assertTrue(c.VM.get_all_records(), "a read")
        for f in fillers:
            f.unlink()
        for m in self.pool.members:
            self.assertIsNone(m.daemon.poll(), f"{m.address} ended")
        self.settle("room again")


# Files of a data folder, and how many of them may be hit in one turn.
KINDS = {
    "closed segment": "raft/[0-9]*-[0-9]*",
    "open segment": "raft/open-*",
    "snapshot": "raft/snapshot-*[0-9]",
    "snapshot's head": "raft/snapshot-*.meta",
    "metadata": "raft/metadata*",
    "pool.db": "pool.db",
    "members.json": "members.json",
    "certificate": "server.crt",
    "key": "server.key",
    "host-uuid": "host-uuid",
}


class Bits(DiskCase):
    """Of one member, which is down, bits flip."""
    options = ("--snapshot-threshold=150",)

    def flip(self, path):
        """One bit in what is not the unwritten end of it."""
        data = bytearray(path.read_bytes())
        used = len(data.rstrip(b"\0"))
        if not used:
            return None
        at = self.dice.randrange(used)
        data[at] ^= 1 << self.dice.randrange(8)
        path.write_bytes(data)
        return f"{path.name}, byte {at} of {used}"

    def wait_outcome(self, m):
        """"ended", or "equal": it follows the others again."""
        def outcome():
            if m.daemon.poll() is not None:
                return "ended"
            s, other = self.load.status(m), self.load.status(self.witness)
            return s and other and s["generation"] + 200 > other["generation"] and "equal"
        return wait_for(outcome, 40, f"{m.address} starts, or says why not:\n"
                        + m.log()[-1500:])

    def put_back(self, m, copy):
        m.kill("daemon")
        shutil.rmtree(m.dir / "data")
        copy.rename(m.dir / "data")
        m.start_daemon()

    def down_with(self, m, kind):
        """Its files of this kind that hold something; it is down."""
        for _ in range(10):
            m.kill("daemon")
            files = sorted((m.dir / "data").glob(KINDS[kind]))
            files = [p for p in files if p.read_bytes().strip(b"\0")]
            if files:
                return files
            m.start_daemon()
            self.load.wait_progress()
            time.sleep(1)
        self.fail(f"no {kind}")

    def hit(self, kind):
        m = self.dice.choice([x for x in self.pool.members if x is not self.load.leader()])
        self.witness = next(x for x in self.pool.members if x is not m)
        data, copy = m.dir / "data", m.dir / "copy"
        files = self.down_with(m, kind)
        (data / "rebuilt").unlink(missing_ok=True)
        subprocess.run(["cp", "-a", "--sparse=always", data, copy], check=True)
        path = self.dice.choice(files)
        what = self.flip(path)
        bad = path.read_bytes()
        logged = len(m.log())
        m.start_daemon()
        outcome = self.wait_outcome(m)
        said = m.log()[logged:]
        if outcome == "ended":
            self.assertEqual(path.read_bytes(), bad, f"{what}: overwritten")
            self.assertRegex(said, ADVICE, f"{what}: no advice")
            say(f"{kind} ({what}): " + next(l for l in said.splitlines()
                                            if ADVICE.search(l))[26:])
            self.put_back(m, copy)
        else:
            rebuilt = " rebuilt" if "rebuil" in said else ""
            say(f"{kind} ({what}): it follows{rebuilt}")
        self.settle(kind, m)
        shutil.rmtree(copy, ignore_errors=True)

    def repair(self):
        """For the turns after one that failed."""
        for m in self.pool.members:
            copy = m.dir / "copy"
            if copy.exists():
                self.put_back(m, copy)

    def test_1_flipped(self):
        for kind in KINDS:
            for _ in range(10 if ALL else 1):
                with self.subTest(kind):
                    try:
                        self.hit(kind)
                    except BaseException:
                        self.repair()
                        raise


if __name__ == "__main__":
    unittest.main(verbosity=2)
