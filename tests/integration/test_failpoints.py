"""Members that die, or stand still for a while, between two steps of a write.

usage: test_failpoints.py [TEST]...

Under the load of load.py, a point (docs/faults.md) is armed on the master and on
another member. After each: writes go on, nothing acknowledged is lost, nothing is
applied twice, all members hold the same. By default each point is visited in one
way; XENPOOL_FAULTS=all visits it in every way (where, crashing or standing still),
XENPOOL_FAULTS=POINT,POINT these points only, and XENPOOL_FAULTS_SEED chooses other
ways.
"""
import os
import random
import re
import signal
import subprocess
import time
import unittest

from harness import BROKEN, BUILD, TOP, ApiError, PoolCase, say, wait_for
from load import Load
from test_backup import ctl

WANTED = os.environ.get("XENPOOL_FAULTS", "")
SEED = int(os.environ.get("XENPOOL_FAULTS_SEED", "1"))
REACHED_IN = 30  # s

# Where a point is reached, and what has to happen for that.
BOTH, LEADER, FOLLOWER = ("leader", "follower"), ("leader",), ("follower",)
HEIR, ANY = ("heir",), ("follower", "heir")
STEADY = {
    "txn.built": BOTH, "txn.queued": BOTH, "forward.packed": FOLLOWER,
    "frames.sent": BOTH, "forward.received": LEADER, "entry.packed": LEADER,
    "entry.proposed": LEADER, "log.write": BOTH, "log.writing": BOTH,
    "log.written": BOTH, "entry.committed": BOTH, "txn.apply": BOTH,
    "txn.applied": BOTH, "entry.applied": BOTH, "commit.told": LEADER,
    "txn.done": BOTH, "answer.made": BOTH, "answer.queued": BOTH,
    "answer.write": BOTH, "answer.written": BOTH,
    "snapshot.write": BOTH, "snapshot.written": BOTH,
}
# When another member takes over; heir: this is the one.
CHANGE = {
    "term.write": ANY, "vote.write": ANY, "leader.serving": HEIR,
    "sync.asked": FOLLOWER, "sync.received": HEIR, "sync.answered": FOLLOWER,
    "txn.again": ANY,
}
# When the master has too much to do.
BUSY = {"forward.refused": LEADER, "forward.turned-down": FOLLOWER}
# On a master that stood still while others went on, and that comes back.
STALE = {"log.truncate": ("stale",)}
START = {"snapshot.load": ("starting",)}
# test_bad_folders.py, test_heal.py
ELSEWHERE = {"clock.wall", "memory.available", "state.corrupt"}
POINTS = {**STEADY, **CHANGE, **BUSY, **STALE, **START}
RARE = {"snapshot.write", "snapshot.written", *CHANGE, *BUSY, *STALE, *START}


def rounds(wanted, seed):
    """[({role: failpoint}, "crash" or "stop")]: what to go through."""
    dice = random.Random(seed)
    ret = []
    for point, roles in POINTS.items():
        if wanted not in ("", "all") and point not in wanted.split(","):
            continue
        ways = [(r,) for r in roles]
        if len(roles) > 1 and point in STEADY:
            ways.append(roles)  # both at once
        actions = ["crash", "stop"] if point not in START else ["crash"]
        if not wanted:
            ways, actions = [dice.choice(ways)], [dice.choice(actions)]
        for way in ways:
            for action in actions:
                # Not only the first time, when there may be little under way.
                k = 1 if point in RARE else dice.randint(1, 6)
                ret.append(({role: f"{point}={action}@{k}" for role in way}, action))
    dice.shuffle(ret)
    return ret


def is_stopped(child):
    """False, too, when it has ended."""
    try:
        with open(f"/proc/{child.pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


class Failpoints(PoolCase):
    members = 5
    options = ("--snapshot-threshold=150",)

    @classmethod
    def prepare(cls):
        for m in cls.pool.members:
            m.arm()

    def setUp(self):
        self.load = Load(self.pool)
        self.addCleanup(self.load.stop)
        self.dice = random.Random(SEED)

    # ---- what makes a point be reached ----

    def choose(self, roles):
        """{role: member}, as things are now."""
        leader = self.load.leader()
        others = [m for m in self.pool.members if m is not leader]
        self.dice.shuffle(others)
        place = {"leader": leader, "stale": leader}
        return {r: place.get(r) or others.pop() for r in roles}

    def arm(self, failpoints):
        """{role: member}; what else is armed makes that the points are reached."""
        victims = self.choose([*failpoints, "leader"])
        lists = {m: [] for m in victims.values()}
        for role, failpoint in failpoints.items():
            lists[victims[role]].append(failpoint)
        if self.points & BUSY.keys():
            lists[victims["leader"]].append("forward.received=return:1")
        if "stale" in failpoints:
            lists[victims["stale"]].append("log.writing=stop@2")
        for m, points in lists.items():
            m.arm(" ".join(points))
        return {r: victims[r] for r in failpoints}

    def hand_over(self, to):
        """Another one is asked to: the heir may die of it."""
        via = next(m for m in self.pool.members if m is not to)
        c = self.load.client(via, timeout=20)
        try:
            c.pool.designate_new_master(self.load.hosts[to])
        except (ApiError, *BROKEN) as e:
            say(f"(handing over ended with {e!r})")
        finally:
            c.close()

    def lose_leader(self, besides):
        """It is killed, and started again; not one of those."""
        leader = self.load.leader()
        if leader not in besides:
            leader.kill("daemon")
            leader.start_daemon()

    def push(self, victims):
        """What has to happen besides the load; may be done several times."""
        for role, m in victims.items():
            if role == "heir":
                self.hand_over(m)
            elif role == "starting":
                m.kill("daemon")
                m.start_daemon()
            elif role == "stale":
                self.stand_still(m)
            elif role == "follower" and self.points & CHANGE.keys():
                self.lose_leader(victims.values())

    def stand_still(self, m):
        """Until another one leads."""
        end = time.monotonic() + 5
        while time.monotonic() < end and not is_stopped(m.daemon):
            if m.daemon.poll() is not None:
                return
            time.sleep(0.01)
        self.load.wait_progress([x for x in self.pool.members if x is not m])
        m.daemon.send_signal(signal.SIGCONT)

    def reach(self, failpoints, end):
        """The members that the failpoints have ended. A member may not reach its
        point, because it does not lead any more, or nothing was under way."""
        deadline = time.monotonic() + REACHED_IN
        victims = None
        while True:
            if not victims:
                victims = self.arm(failpoints)
            self.push(victims)
            again = time.monotonic() + 2
            while time.monotonic() < again:
                if all(end(m) for m in victims.values()):
                    return list(victims.values())
                time.sleep(0.01)
            if not any(end(m) for m in victims.values()):
                self.disarm()
                victims = None
            if time.monotonic() > deadline:
                self.fail(f"not reached within {REACHED_IN} s: {failpoints}")

    def disarm(self):
        for m in self.pool.members:
            m.arm()

    def repair(self):
        """For the rounds after one that failed."""
        self.disarm()
        for m in self.pool.members:
            if is_stopped(m.daemon):
                m.daemon.send_signal(signal.SIGCONT)
            if m.daemon.poll() is not None:
                m.start_daemon()

    # ---- one round ----

    def go(self, failpoints, action):
        begin = time.monotonic()
        self.points = {f.partition("=")[0] for f in failpoints.values()}
        stopped = action == "stop"
        victims = self.reach(failpoints, lambda m: is_stopped(m.daemon) if stopped
                             else m.daemon.poll() is not None)
        self.disarm()
        others = [m for m in self.pool.members if m not in victims]
        self.load.wait_progress(others, what="writes go on without " + ", ".join(
            m.address for m in victims))
        for role, m in zip(failpoints, victims):
            self.assertIn(f"failpoint {failpoints[role].partition('=')[0]}: {action}",
                          m.log()[-4000:])
            if stopped:
                m.daemon.send_signal(signal.SIGCONT)
            else:
                m.start_daemon()
        self.load.wait_progress()
        took = self.load.check(self.dice.choice(self.pool.members))
        say(f"{' and '.join(f'{r} {f}' for r, f in failpoints.items())}: "
            f"{time.monotonic() - begin:.1f} s, equal after {took * 1000:.0f} ms")

    def test_1_every_step(self):
        plan = rounds(WANTED, SEED)
        for failpoints, action in plan:
            with self.subTest(str(failpoints)):
                try:
                    self.go(failpoints, action)
                except BaseException:
                    self.repair()
                    raise
        self.load.stop()
        self.load.check_histories()
        for m in self.pool.members:
            ctl(m, "check")
        say(f"{len(plan)} rounds, {sum(w.n for w in self.load.workers)} turns of the "
            f"clients, {sum(w.unknown for w in self.load.workers)} outcomes unknown, "
            f"{sum(w.refused for w in self.load.workers)} calls refused")


class Names(unittest.TestCase):
    def names(self):
        return subprocess.run([BUILD / "xenpoold"], capture_output=True, text=True,
                              env={**os.environ, "XENPOOL_FAILPOINTS": "list"},
                              check=True).stdout.split()

    def test_1_all_are_tested_and_written_down(self):
        names = self.names()
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(set(names), POINTS.keys() | ELSEWHERE)
        told = re.findall(r"`([a-z]+\.[a-z-]+)`", (TOP / "docs/faults.md").read_text())
        self.assertEqual(set(names) - set(told), set())

    def test_2_a_wrong_list_ends_the_daemon(self):
        run = subprocess.run([BUILD / "xenpoold"], capture_output=True, text=True,
                             env={**os.environ, "XENPOOL_FAILPOINTS": "no.such=crash"})
        self.assertEqual(run.returncode, 2)
        self.assertIn("no point no.such", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
