"""A pool that forms, answers everywhere alike, and outlives restarts."""
import os
import pathlib
import signal
import threading
import time
import unittest

from harness import PoolCase, say, wait_for
from localpool import ApiError

THRESHOLD = 100


class Pool(PoolCase):
    options = (f"--snapshot-threshold={THRESHOLD}",)

    def clients(self):
        return [self.client(i) for i in range(len(self.pool.members))]

    def test_01_members_formed(self):
        leader = self.pool.leader()
        for c, m in zip(self.clients(), self.pool.members):
            hosts = c.host.get_all_records()
            self.assertEqual(sorted(h["address"] for h in hosts.values()),
                             sorted(x.address for x in self.pool.members))
            pools = c.pool.get_all_records()
            self.assertEqual(len(pools), 1)
            master = next(iter(pools.values()))["master"]
            self.assertEqual(hosts[master]["address"], leader.address)
            self.assertEqual(c.call("session.get_this_host", c.session), m.host_ref(c))
            status = m.status(c)
            self.assertEqual([x["role"] for x in status["members"]], ["voter"] * 3)
            self.assertEqual(len(c.SR.get_all()), len(set(c.SR.get_all())))

    def test_01b_threads_have_names(self):
        """What top -H shows; the first one has the program's."""
        def names(process):
            return {int(t): pathlib.Path(f"/proc/{process.pid}/task/{t}/comm").read_text()
                    .strip() for t in os.listdir(f"/proc/{process.pid}/task")}
        m = self.pool.members[0]
        daemon, executor = names(m.daemon), names(m.executor)
        self.assertEqual(daemon[m.daemon.pid], "xenpoold")
        self.assertLessEqual({"front-0", "pool.db"}, set(daemon.values()))
        self.assertEqual(executor[m.executor.pid], "xenpool-executo")
        self.assertLessEqual({"worker-0", "looker", "consoles"}, set(executor.values()))
        self.assertEqual(list(executor.values()).count("xenpool-executo"), 1, executor)

    def test_02_one_pool_of_everything(self):
        """What a member brought along when it joined is there once."""
        c = self.client(1)
        templates = [v for v in c.VM.get_all_records().values()
                     if v["is_default_template"]]
        labels = [t["name_label"] for t in templates]
        self.assertEqual(len(labels), len(set(labels)), labels)
        for cls in ("host", "SR", "PBD", "PIF", "network"):
            uuids = [r["uuid"] for r in getattr(c, cls).get_all_records().values()]
            self.assertEqual(len(uuids), len(set(uuids)), cls)
        dom0s = [v for v in c.VM.get_all_records().values() if v["is_control_domain"]]
        self.assertEqual(len(dom0s), 3)
        self.assertEqual(len({v["resident_on"] for v in dom0s}), 3)

    def test_03_sessions_everywhere(self):
        a, b, d = self.clients()
        label = a.pool.get_name_label(a.pool.get_all()[0])
        for other in (b, d):
            other.call("session.logout")
            with self.assertRaises(ApiError) as caught:
                other.pool.get_all()
            self.assertEqual(caught.exception.details,
                             ["SESSION_INVALID", other.session])
            other.session = a.session
            self.assertEqual(other.pool.get_name_label(other.pool.get_all()[0]), label)

    def test_04_written_here_read_there(self):
        """What one member has acknowledged, the others say at once."""
        clients = self.clients()
        pool = clients[0].pool.get_all()[0]
        begin = time.monotonic()
        for n in range(200):
            writer = clients[n % 3]
            writer.pool.set_name_description(pool, f"round {n}")
            for k in (n, n + 1, n + 2):
                seen = clients[k % 3].pool.get_name_description(pool)
                self.assertEqual(seen, f"round {n}", f"member {k % 3}, round {n}")
        say(f"200 writes and 600 reads: {time.monotonic() - begin:.2f} s")

    def test_05_concurrent_writers_lose_nothing(self):
        pool = self.client().pool.get_all()[0]
        errors = []

        def write(c, who):
            try:
                for n in range(40):
                    c.pool.add_to_other_config(pool, f"both-{who}-{n}", "x")
                    c.pool.set_name_label(pool, f"{who}-{n}")
            except Exception as e:
                errors.append(e)
        threads = [threading.Thread(target=write, args=(c, i))
                   for i, c in enumerate(self.clients())]
        for t in threads:
            t.start()
        for t in threads:
            t.join(50)
        self.assertEqual(errors, [])
        config = self.client().pool.get_other_config(pool)
        lost = [f"both-{w}-{n}" for w in range(3) for n in range(40)
                if f"both-{w}-{n}" not in config]
        self.assertEqual(lost, [])

    def test_06_one_key_is_added_once(self):
        """Of several that add the same key one succeeds, whatever they ask."""
        pool = self.client().pool.get_all()[0]
        outcomes = []

        def add(c, key):
            try:
                c.pool.add_to_other_config(pool, key, "x")
                outcomes.append("added")
            except ApiError as e:
                outcomes.append(e.details)
        for n in range(10):
            outcomes.clear()
            threads = [threading.Thread(target=add, args=(c, f"race-{n}"))
                       for c in self.clients()]
            for t in threads:
                t.start()
            for t in threads:
                t.join(30)
            outcomes.sort(key=str)
            error = ["MAP_DUPLICATE_KEY", "pool", "other_config", pool, f"race-{n}"]
            self.assertEqual(outcomes, [error, error, "added"])

    def test_07_digests_equal(self):
        generation, digest = self.pool.wait_converged()
        self.assertGreater(generation, 200)
        self.assertNotEqual(digest.strip("0"), "")
        for m in self.pool.members:
            for seen in m.status()["members"]:
                if seen["digest_generation"] == generation:
                    self.assertEqual(seen["digest"], digest)

    def test_07a_a_new_master_is_named_through_any_member(self):
        for m in self.pool.followers():
            c = m.client()
            c.pool.designate_new_master(m.host_ref(c))
            self.assertIs(self.pool.leader(), m)
            c.close()

    def test_07b_the_copy_in_sqlite(self):
        """pool.db of each member soon holds what the API says."""
        c = self.client()
        for cls in ("VM", "host", "SR", "network", "PIF"):
            wanted = sorted((ref, r["uuid"]) for ref, r in
                            getattr(c, cls).get_all_records().items())
            for m in self.pool.members:
                wait_for(lambda: sorted(m.rows(f'SELECT _ref, uuid FROM "{cls}"')) == wanted,
                         15, f"{cls} of {m.address} is written")

    def test_08_a_member_restarts(self):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            m = self.pool.followers()[0]
            other = next(x for x in self.pool.members if x is not m)
            old = m.client(timeout=10)
            code = m.kill("daemon", sig)
            self.assertEqual(code, 0 if sig == signal.SIGTERM else -sig)
            c = other.client()
            pool = c.pool.get_all()[0]
            c.pool.set_name_label(pool, f"while away {sig}")
            m.start_daemon()
            m.wait_up().close()
            old.close()
            self.assertEqual(old.pool.get_name_label(pool), f"while away {sig}")
            self.pool.wait_converged()

    def test_09_all_restart(self):
        c = self.client()
        before = c.VM.get_all_records()
        pool, session = c.pool.get_all(), c.session
        c.pool.set_name_description(pool[0], "before all of it ended")
        for m in self.pool.members:
            m.kill("daemon", signal.SIGTERM)
        for m in self.pool.members:
            m.start_daemon()
        for m in self.pool.members:
            m.wait_up().close()
        c.close()
        self.assertEqual(c.session, session)
        self.assertEqual(c.pool.get_all(), pool)
        self.assertEqual(c.pool.get_name_description(pool[0]), "before all of it ended")
        self.assertEqual(c.VM.get_all_records().keys(), before.keys())
        self.pool.wait_formed()
        self.pool.wait_converged()

    def test_10_away_over_a_compaction(self):
        away = self.pool.followers()[0]
        others = [m for m in self.pool.members if m is not away]
        last = away.status()["last_index"]
        away.kill("daemon")
        c = others[0].client()
        pool = c.pool.get_all()[0]

        def compacted():
            return all(m.status()["snapshot_index"] > last + THRESHOLD for m in others)
        written = 0
        while not compacted():
            self.assertLess(written, 40 * THRESHOLD, "the log is never compacted")
            for _ in range(THRESHOLD):
                written += 1
                c.pool.add_to_other_config(pool, f"away-{written}", "x")
                if written > 50:
                    c.pool.remove_from_other_config(pool, f"away-{written - 50}")
        say(f"{written} keys were written meanwhile")
        away.start_daemon()
        away.wait_up().close()
        self.pool.wait_converged()
        status = away.status()
        self.assertGreater(status["snapshot_index"], last)
        config = away.client().pool.get_other_config(pool)
        self.assertIn(f"away-{written}", config)
        self.assertNotIn(f"away-{written - 50}", config)
        # and from its own disk again
        away.kill("daemon")
        away.start_daemon()
        away.wait_up().close()
        self.pool.wait_converged()

    def test_11_one_more_joins(self):
        c = self.client()
        vms = c.VM.get_all_records()
        config = c.pool.get_other_config(c.pool.get_all()[0])
        m = self.pool.add_member()
        alone = m.wait_up()
        own_pool = alone.pool.get_all()[0]
        alone.close()
        self.pool.join(m)
        self.pool.wait_formed()
        new = self.client(3)
        self.assertNotEqual(new.pool.get_all()[0], own_pool)
        self.assertEqual(new.pool.get_other_config(new.pool.get_all()[0]), config)
        self.assertLessEqual(vms.keys(), new.VM.get_all_records().keys())
        self.assertEqual(len(new.host.get_all()), 4)
        self.pool.wait_converged()
        new.pool.set_name_description(new.pool.get_all()[0], "by the fourth")
        self.assertEqual(c.pool.get_name_description(c.pool.get_all()[0]),
                         "by the fourth")
        roles = [x["role"] for x in m.status()["members"]]
        self.assertGreaterEqual(roles.count("voter"), 3)

    def test_12_refused_joins(self):
        """A host that is in a pool does not join; nor with a wrong password."""
        first, last = self.pool.members[0], self.pool.members[-1]
        c = last.client()
        address = f"{first.address}:{self.pool.https_port}"
        error = self.error(c.pool.join, address, "root", self.pool.password)
        self.assertNotEqual(error[0], "INTERNAL_ERROR", error)
        self.assertEqual(len(c.host.get_all()), len(self.pool.members))
        self.pool.wait_converged()

    def test_13_a_wrong_password(self):
        c = self.client(login=False)
        begin = time.monotonic()
        error = self.error(c.rpc, "session.login_with_password", "root", "wrong")
        self.assertEqual(error[:2], ["SESSION_AUTHENTICATION_FAILED", "root"])
        self.assertGreaterEqual(time.monotonic() - begin, 0.19)

    def test_14_events_flow_on_all(self):
        clients = self.clients()
        pool = clients[0].pool.get_all()[0]
        tokens = [getattr(c.event, "from")(["pool"], "", 0)["token"] for c in clients]
        clients[0].pool.set_name_description(pool, "to be seen")
        for c, token in zip(clients, tokens):
            def seen():
                batch = getattr(c.event, "from")(["pool"], token, 5.0)
                return [e["snapshot"]["name_description"] for e in batch["events"]]
            self.assertEqual(wait_for(seen, 10, "the event comes"), ["to be seen"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
