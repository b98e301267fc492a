"""Masters that are killed while clients write and watch."""
import time
import unittest

from harness import PoolCase, Watcher, Writer, say, wait_for
from localpool import BROKEN, ApiError

PAUSE_LIMIT = 8.0  # seconds; the aim is about one on a machine that is not busy


class Failover(PoolCase):
    def watchers(self):
        """One that may move, from each member, and one that may not."""
        ring = self.pool.members
        return [Watcher(*(ring[i:] + ring[:i])).start() for i in range(len(ring))]

    def kill_the_master(self, writers):
        leader = self.pool.leader()
        wait_for(lambda: all(len(w.acked) > 5 for w in writers), 20, "the writers get on")
        time.sleep(0.5)
        killed = time.monotonic()
        leader.kill("daemon")
        new = self.pool.leader()
        self.assertIsNot(new, leader)
        say(f"{leader.address} killed, {new.address} leads after "
            f"{(time.monotonic() - killed) * 1000:.0f} ms")
        end = killed + PAUSE_LIMIT + 2
        while time.monotonic() < end and not all(
                w.acked and w.acked[-1][1] > killed + 0.2 for w in writers):
            time.sleep(0.05)
        time.sleep(0.5)
        leader.start_daemon()
        leader.wait_up().close()
        return killed

    def test_1_three_masters_killed(self):
        writers = [Writer(self.pool.members[i:] + self.pool.members[:i], f"w{i}:",
                          pause=0.005, keep=300).start() for i in range(2)]
        watchers = self.watchers()
        kills = [self.kill_the_master(writers) for _ in range(3)]
        for w in writers:
            w.stop()
        # The master may change once more on a busy machine: they must follow.
        c = self.client()
        settled = time.monotonic() + 15
        while time.monotonic() < settled and any(w.differences(c) for w in watchers):
            time.sleep(0.5)
        different = [w.differences(c) for w in watchers]
        for w in watchers:
            w.stop()
        for i, killed in enumerate(kills):
            pauses = []
            for w in writers:
                times = [t for _, t in w.acked]
                last = max((t for t in times if t <= killed), default=killed)
                after = [t for t in times if t > killed]
                self.assertTrue(after, f"no write was acknowledged after kill {i + 1}")
                pauses.append(min(after) - last)
            say(f"kill {i + 1}: writers paused "
                + ", ".join(f"{p * 1000:.0f} ms" for p in pauses))
            self.assertLess(max(pauses), PAUSE_LIMIT)
        self.pool.wait_converged()
        for m in self.pool.members:
            c = m.client()
            for w in writers:
                self.assertEqual(w.missing(c), [], f"acknowledged, not on {m.address}")
            c.close()
        say(f"{sum(len(w.acked) for w in writers)} writes acknowledged, "
            f"{sum(len(w.errors) for w in writers)} refused, "
            f"{sum(len(w.unknown) for w in writers)} unknown")
        c = self.client()
        for w, d in zip(watchers, different):
            self.assertEqual(w.oddities, [], f"the watcher that began at {w.member.address}")
            self.assertEqual(d, [])
            say(f"a watcher: {len(w.operations)} events, {w.reconnects} reconnects, "
                f"longest silence {w.longest * 1000:.0f} ms")

    def test_2_a_retried_write_happens_once(self):
        """A call that is under way while the master dies is answered after all,
        or its outcome is unknown: it never counts twice."""
        leader = self.pool.leader()
        follower = self.pool.followers()[0]
        c = follower.client()
        generation = self.pool.wait_converged()[0]
        pool = c.pool.get_all()[0]
        leader.kill("daemon")
        added = False
        try:
            c.pool.add_to_other_config(pool, "once", "x")
            added = True
        except BROKEN + (ApiError,) as e:
            say(f"the write under way ended with {e!r}")
        leader.start_daemon()
        leader.wait_up().close()
        c = follower.client()
        present = "once" in c.pool.get_other_config(pool)
        self.assertTrue(present or not added, "acknowledged and lost")
        self.assertTrue(added, "a follower did not carry the write over")
        self.assertGreater(self.pool.wait_converged()[0], generation)

    def test_3_no_majority_no_answer(self):
        """A member alone neither writes nor pretends to know."""
        keeps, *others = self.pool.members
        c = keeps.client()
        pool = c.pool.get_all()[0]
        c.pool.set_name_description(pool, "with all")
        for m in others:
            m.kill("daemon")
        error = self.error(c.pool.get_name_description, pool)
        self.assertEqual(error[0], "CANNOT_CONTACT_HOST")
        error = self.error(c.pool.set_name_description, pool, "alone")
        self.assertEqual(error[0], "CANNOT_CONTACT_HOST")
        for m in others:
            m.start_daemon()
        for m in others:
            m.wait_up().close()
        seen = c.pool.get_name_description(pool)
        self.assertIn(seen, ("with all", "alone"))  # its outcome was not known
        self.pool.wait_converged()


if __name__ == "__main__":
    unittest.main(verbosity=2)
