#!/usr/bin/env python3
"""Runs the simulation of the whole database: many seeds, each planted mistake,
and one seed twice.

XENPOOL_SIM_SEEDS: how many seeds (2000), XENPOOL_SIM_START: from which on (1).
"""
import os
import pathlib
import re
import subprocess
import unittest

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build")).resolve()
SIM = BUILD / "tests/sim/sim"
SEEDS = int(os.environ.get("XENPOOL_SIM_SEEDS", "2000"))
START = int(os.environ.get("XENPOOL_SIM_START", "1"))

# Mistake: how many seeds at most until it is seen, and by which checkers; a
# broken invariant may also end the process (signal) or the pool (progress).
PLANTS = {
    "read-local": (20, "linearizability"),
    "apply-twice": (200, "exactly-once"),
    "no-confirm": (1000, "linearizability|ages"),
    "lost-change": (20, "events"),
    "lost-vote": (200, "leaders|agreement"),
    "lost-log": (40, "agreement|exactly-once|digest|progress|signal|leaders|fatal"),
    "ack-early": (20, "exactly-once|own writes"),
    "diverge": (20, "agreement|digest|exactly-once|own writes"),
    "relation": (20, "relations"),
    "guards": (20, "model"),
    "tombstone": (20, "events"),
    "age": (20, "ages"),
    "session": (100, "sessions"),
    "stale-search": (100, "linearizability: no order"),
}


def sim(*args, timeout=1500):
    # libraft loses the memory of a snapshot that it refuses.
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")
    done = subprocess.run([str(SIM), *map(str, args)], env=env, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


class Simulation(unittest.TestCase):
    def test_seeds(self):
        code, out = sim("--seeds", SEEDS, "--start", START, "--jobs", 2)
        print(out)
        self.assertEqual(code, 0, out)
        self.assertIn(f"{SEEDS} runs", out)

    def test_same_seed_same_run(self):
        # Many, because what differs may depend on addresses, and on luck.
        one, two = (sim("--seeds", 150, "--start", 260, "--hash") for _ in "12")
        self.assertEqual(one[0], 0, one[1])
        self.assertEqual(one, two)
        hashes = dict(l.split() for l in one[1].splitlines())
        for start in (277, 300, 333, 404):
            alone = sim("--start", start, "--hash")[1].split()
            self.assertEqual(alone, [str(start), hashes[str(start)]])
            traced = [sim("--start", start, "--hash", "--trace")[1] for _ in "12"]
            self.assertEqual(traced[0], traced[1])
            self.assertGreater(len(traced[0]), 10000)
            self.assertEqual(traced[0].splitlines()[-1].split(), alone)
        self.assertNotEqual(sim("--start", 1, "--hash")[1].split()[1],
                            sim("--start", 2, "--hash")[1].split()[1])

    def test_many_members(self):
        code, out = sim("--members", 64, "--seeds", 2, "--jobs", 2)
        print(out)
        self.assertEqual(code, 0, out)
        joined = re.search(r"64 members, .* after (\d+) simulated ms", out)
        self.assertGreater(int(joined[1]), 100)
        self.assertLess(int(joined[1]), 30000)
        one, two = (sim("--members", 24, "--start", 3, "--hash") for _ in "12")
        self.assertEqual(one[0], 0, one[1])
        self.assertEqual(one, two)
        code, out = sim("--members", 24, "--plant", "diverge")
        self.assertEqual(code, 1, out)
        self.assertRegex(out, r"FAILED .*\n.*repeat: .* --members 24 --trace")

    def test_all_plants_are_named(self):
        code, out = sim("--plant", "list")
        self.assertEqual(code, 2)
        names = [l for l in out.splitlines() if re.fullmatch(r"[a-z-]+", l)]
        self.assertEqual(sorted(names), sorted(PLANTS))


def plant_test(name, seeds, checkers):
    def test(self):
        code, out = sim("--plant", name, "--seeds", seeds, "--jobs", 2)
        self.assertEqual(code, 1, out)
        self.assertRegex(out, rf"FAILED (by )?({checkers})")
        self.assertRegex(out, rf"seed \d+; repeat: .* --plant {name}")
    return test


for _name, (_seeds, _checkers) in PLANTS.items():
    setattr(Simulation, "test_catches_" + _name.replace("-", "_"),
            plant_test(_name, _seeds, _checkers))

if __name__ == "__main__":
    unittest.main(verbosity=2)
