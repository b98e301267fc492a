"""Networks that are cut, in both directions or one, between real processes.

Each of five members has a network namespace; clients reach all of them. During a
cut whoever has a majority goes on and nobody else acknowledges anything; after it,
nothing acknowledged is lost and all members hold the same.
"""
import time
import unittest

import netns
from harness import ApiError, PoolCase, say, wait_for
from load import Load
from test_local_reads import LOCAL, READ_LIMIT, Wire

HOLD = 1.0  # s that a cut lasts after the majority has got on
GIVE_UP = 2.0  # s after which a master without a majority does not answer


def both(some, others):
    return [(a, b) for x, y in ((some, others), (others, some)) for a in x for b in y]


def one_way(senders, receivers):
    return [(a, b) for a in senders for b in receivers]


# Name: the cuts (sender, receiver) given the master and the others, and how many
# of the list [master, *others] have no majority, or do not hear what it decides.
CUTS = {
    "the master alone": (lambda l, o: both([l], o), 1),
    "the master and one more": (lambda l, o: both([l, o[0]], o[1:]), 2),
    "a master that hears nobody": (lambda l, o: one_way(o, [l]), 1),
    "a master that nobody hears": (lambda l, o: one_way([l], o), 1),
}
# The same of the first of the others; the master stays.
HARMLESS = {
    "a member alone": lambda l, o: both([o[0]], [l, *o[1:]]),
    "a member that hears nobody": lambda l, o: one_way([l, *o[1:]], [o[0]]),
    "a member that nobody hears": lambda l, o: one_way([o[0]], [l, *o[1:]]),
    "one link to the master": lambda l, o: both([o[0]], [l]),
}


@unittest.skipUnless(netns.entered(), netns.possible())
class Partitions(PoolCase):
    members = 5
    network = netns.NETWORK

    @classmethod
    def prepare(cls):
        cls.net = netns.Network(cls.members)
        cls.addClassCleanup(cls.net.close)
        for i, m in enumerate(cls.pool.members, 1):
            m.prefix = cls.net.prefix(i)

    def setUp(self):
        self.load = Load(self.pool, tls=True, pause=0.02)
        self.addCleanup(self.load.stop)
        self.addCleanup(self.net.heal)
        self.load.wait_progress()

    def number(self, m):
        return self.pool.members.index(m) + 1

    def parts(self):
        leader = self.load.leader()
        return leader, [m for m in self.pool.members if m is not leader]

    def cut(self, pairs):
        for a, b in pairs:
            self.net.cut(self.number(a), self.number(b))

    def last_acks(self, members):
        return [w.last_ack for w in self.load.workers if w.member in members]

    def go_on(self, name, members):
        begin = time.monotonic()
        self.load.wait_progress(members, what=f"{name}: the majority goes on")
        return time.monotonic() - begin

    def healed(self, name, pause):
        self.net.heal()
        begin = time.monotonic()
        self.load.wait_progress(what=f"{name}: all go on when it is over")
        took = time.monotonic() - begin
        self.load.check(self.pool.members[self.members // 2])
        say(f"{name}: the majority paused {pause * 1000:.0f} ms; all went on "
            f"{took * 1000:.0f} ms after the end")

    def test_1_the_master_loses_its_majority(self):
        for name, (cuts, lost) in CUTS.items():
            with self.subTest(name):
                leader, others = self.parts()
                list_ = [leader, *others]
                cut_at = time.monotonic()
                self.cut(cuts(leader, others))
                pause = self.go_on(name, list_[lost:])
                time.sleep(HOLD)
                self.go_on(name, list_[lost:])
                for at in self.last_acks(list_[:lost]):
                    self.assertLess(at, cut_at + GIVE_UP, f"{name}: acknowledged "
                                    "without a majority")
                self.healed(name, pause)

    def test_2_others_lose_touch(self):
        """No new master: who is out of touch does not disturb the others."""
        for name, cuts in HARMLESS.items():
            with self.subTest(name):
                leader, others = self.parts()
                term = self.load.status(leader)["term"]
                self.cut(cuts(leader, others))
                pause = self.go_on(name, [leader, *others[1:]])
                time.sleep(HOLD)
                self.go_on(name, [leader, *others[1:]])
                now = self.load.status(leader)
                self.healed(name, pause)
                self.assertTrue(now["is_serving_leader"], "another one leads")
                self.assertEqual(now["term"], term)

    def test_3_a_link_that_comes_and_goes(self):
        for _ in range(5):
            leader, others = self.parts()
            self.cut(both([leader], others))
            time.sleep(0.3)
            self.net.heal()
            time.sleep(0.2)
        self.healed("a master that comes and goes", 0)

    def test_4_local_reads_of_one_that_is_cut_off(self):
        leader, others = self.parts()
        w = Wire(leader, self.load.session, tls=True)
        self.addCleanup(w.close)
        w.call("pool.get_all", headers=LOCAL)
        self.cut(both([leader], others))
        self.load.wait_progress(others)
        seen, ages = [], []
        for _ in range(8):
            self.assertTrue(w.call("VM.get_all_records", headers=LOCAL))
            seen.append(w.generation)
            ages.append(w.age)
            time.sleep(0.25)
        self.assertEqual(seen, sorted(seen))
        self.assertGreater(ages[-1], ages[0] + 1000)
        begin = time.monotonic()
        with self.assertRaises(ApiError) as caught:
            w.call("pool.get_all")
        self.assertLess(time.monotonic() - begin, READ_LIMIT)
        self.assertEqual(caught.exception.code, "CANNOT_CONTACT_HOST")
        # The same client goes to the majority and back: it sees nothing older.
        other = Wire(others[0], self.load.session, tls=True)
        self.addCleanup(other.close)
        other.call("pool.get_all", headers=LOCAL)
        newer = {**LOCAL, "x-xenpool-min-generation": other.generation}
        self.assertGreater(other.generation, w.generation)
        with self.assertRaises(ApiError) as caught:
            w.call("pool.get_all", headers=newer)
        self.assertEqual(caught.exception.code, "XENPOOL_GENERATION_NOT_REACHED")
        self.healed("reads without a majority", 0)
        w.call("pool.get_all", headers=newer)
        self.assertGreaterEqual(w.generation, other.generation)
        wait_for(lambda: w.call("pool.get_all", headers=LOCAL) and w.age < 1000, 20,
                 "the age is small again")


if __name__ == "__main__":
    netns.enter()
    unittest.main(verbosity=2)
