"""pool.db, its history, backups and their restoring, with real members."""
import json
import os
import pathlib
import sqlite3
import subprocess
import time
import unittest

from harness import BUILD, PoolCase, Writer, new_vm, say, template, wait_for


def ctl(m, *command, status=0, url=None):
    """What xenpoolctl prints when it is asked of this member."""
    run = subprocess.run([str(BUILD / "xenpoolctl"),
                          f"--url={url or f'unix:{m.dir}/data/xapi'}",
                          "--password=secret", *map(str, command)],
                         capture_output=True, text=True, timeout=120)
    if run.returncode != status:
        raise AssertionError(f"xenpoolctl {command} ended with {run.returncode}: "
                             f"{run.stdout}{run.stderr}")
    return run.stdout if status == 0 else run.stdout + run.stderr


def ctl_json(m, *command):
    return json.loads(ctl(m, "--json", *command))


class PoolDb(PoolCase):
    options = ("--snapshot-threshold=200",)

    def pooldb(self, m):
        path = f"file:{m.dir}/data/pool.db?mode=ro"
        db = sqlite3.connect(path, uri=True)
        self.addCleanup(db.close)
        return db

    def rows(self, m, uuid, field):
        return [(r["old"], r["new"]) for r in
                ctl_json(m, "history", "VM", uuid, "--field", field)["rows"]
                if r["field"] == field]

    def test_1_sqlite_reads_it(self):
        c = self.client()
        vm = c.VM.clone(template(c), "seen by sqlite3")
        c.VM.add_to_other_config(vm, "folder", "blue")
        m = self.pool.members[1]
        wait_for(lambda: self.pooldb(m).execute(
            "SELECT json_extract(other_config, '$.folder') FROM VM WHERE "
            "name_label = 'seen by sqlite3'").fetchall() == [("blue",)],
            10, "the row is in pool.db")
        mode = os.stat(m.dir / "data/pool.db").st_mode & 0o777
        self.assertEqual(mode, 0o600)

    def test_2_history(self):
        c = self.client(1)
        vm = c.VM.clone(template(c), "one")
        uuid = c.VM.get_uuid(vm)
        c.VM.set_name_label(vm, "two")
        time.sleep(1.1)
        between = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        time.sleep(1.1)
        c.VM.set_name_label(vm, "three")
        c.VM.destroy(vm)
        for m in self.pool.members:
            self.assertEqual(self.rows(m, uuid, "name_label"),
                             [(None, "one"), ("one", "two"), ("two", "three"),
                              ("three", None)])
        all_rows = ctl_json(m, "history", "VM", uuid)["rows"]
        self.assertEqual((all_rows[0]["field"], all_rows[-1]["field"]),
                         ("_created", "_deleted"))
        self.assertTrue(all(r["author"].startswith("root") for r in all_rows))
        past = ctl_json(m, "at", between, "VM", uuid)
        self.assertTrue(past["exists"])
        self.assertEqual(past["fields"]["name_label"], "two")
        named = {r["new"]: r for r in all_rows if r["field"] == "name_label"}
        first = named["one"]
        for when in (f"#{first['generation']}", f"@{first['index']}"):
            self.assertEqual(ctl_json(m, "at", when, "VM", uuid)["fields"]
                             ["name_label"], "one")
        before = ctl_json(m, "at", f"#{first['generation'] - 1}", "VM", uuid)
        self.assertFalse(before["exists"])
        # The same from the file, and in words.
        text = ctl(m, "history", "VM", uuid, "--data-dir", m.dir / "data")
        self.assertIn('name_label "one" -> "two"', text)
        text = ctl(m, "at", between, "VM", uuid, "--data-dir", m.dir / "data")
        self.assertRegex(text, r'name_label +"two"')

    def test_3_bad_questions(self):
        m = self.pool.members[0]
        for command, words in [
                (("history", "Vm", "x"), "no class"),
                (("history", "VM", "x"), "nothing is recorded"),
                (("history", "VM", "x", "--field", "nam"), "no field"),
                (("at", "#999999999", "VM", "x"), "generation"),
                (("at", "1999-01-01T00:00:00Z", "VM", "x"), "begins")]:
            self.assertIn(words, ctl(m, *command, status=1))
        for command in (("at", "yesterday", "VM", "x"), ("history", "VM"),
                        ("backup",), ("check", "x"), ("history", "--what")):
            ctl(m, *command, status=2)
        for command in ("status", "check", "history", "at", "backup", "restore",
                        "api"):
            self.assertIn("usage:", ctl(m, command, "--help"))

    def test_4_failover_and_restart_double_nothing(self):
        c = self.client()
        vm = c.VM.clone(template(c), "counted")
        uuid = c.VM.get_uuid(vm)
        for i in range(150):
            c.VM.set_name_description(vm, str(i))
        victim = self.pool.leader()
        victim.kill("daemon")
        other = next(m for m in self.pool.members if m is not victim)
        self.pool.leader()
        c = other.client()
        c.VM.set_name_description(vm, "without it")
        said = ctl(other, "status").splitlines()
        line = next(text for text in said if victim.address in text)
        self.assertRegex(line, "NOT REACHED .* lag [1-9]")
        self.addCleanup(c.close)
        for i in range(150, 300):
            c.VM.set_name_description(vm, str(i))
        victim.start_daemon()
        victim.wait_up().close()
        self.pool.wait_converged()
        # All members are killed at once, and replay their logs.
        for m in self.pool.members:
            m.kill("daemon")
        for m in self.pool.members:
            m.start_daemon()
        for m in self.pool.members:
            m.wait_up().close()
        c = other.client()
        self.addCleanup(c.close)
        c.VM.set_name_description(vm, "300")
        for m in self.pool.members:
            wait_for(lambda m=m: self.rows(m, uuid, "name_description")[-1][1]
                     == "300", 10, "the last change is in the history")
            rows = self.rows(m, uuid, "name_description")
            values = [int(new) for _, new in rows if new.isdigit()]
            self.assertEqual(values, sorted(set(values)), m.address)
            gaps = self.pooldb(m).execute(
                "SELECT old, new FROM history WHERE field = '_gap'").fetchall()
            if not gaps:
                self.assertEqual(values, list(range(301)), m.address)
            say(f"{m.address}: {len(values)} changes in the history, gaps {gaps}")

    def test_5_check(self):
        for m in self.pool.members:
            self.assertIn("nothing found", ctl(m, "check"))
            self.assertEqual(ctl_json(m, "check")["findings"], 0)


class Backup(PoolCase):
    def take(self, m, name, url=None):
        path = self.pool.dir / name
        ctl(m, "backup", path, url=url)
        return path

    def restore(self, path, folder, *options, status=0):
        return ctl(None, "restore", path, f"--data-dir={folder}", *options,
                   status=status, url="unused")

    def test_1_backup_and_restore(self):
        members = self.pool.members
        c = self.client()
        vm = new_vm(c, "runs on")
        c.VM.start(vm, False, False)
        writers = [Writer(members[i:] + members[:i], f"w{i}:", pause=0.002,
                          keep=100000).start() for i in range(2)]
        wait_for(lambda: min(len(w.acked) for w in writers) > 40, 30,
                 "the writers get on")
        known = [list(w.acked) for w in writers]
        first = self.take(members[0], "first.img")
        far = self.take(members[1], "far.img",
                        url=f"https://{members[1].address}:{self.pool.https_port}")
        for w in writers:
            w.stop()
        self.assertEqual(os.stat(first).st_mode & 0o777, 0o600)
        self.assertIn("is there already", ctl(members[0], "backup", first, status=1))
        self.assertEqual(list((members[0].dir / "data/backups").iterdir()), [])
        uuids = {m: (m.dir / "data/host-uuid").read_text().strip() for m in members}
        c.VM.destroy(c.VM.clone(template(c), "later"))
        self.refuse_bad(first, far, members[0])

        self.pool.stop()
        m = members[0]
        raft = {p.name: p.read_bytes() for p in (m.dir / "data/raft").iterdir()}
        self.assertIn("--older", self.restore(first, m.dir / "data", status=1))
        self.assertEqual({p.name: p.read_bytes() for p in
                          (m.dir / "data/raft").iterdir()}, raft)
        # A fresh folder on the first host's address, which says who it is.
        os.rename(m.dir / "data", m.dir / "lost")
        self.assertIn(uuids[m], self.restore(first, m.dir / "data", status=1))
        self.restore(first, m.dir / "data", f"--host={uuids[m]}")
        m.start()
        c = m.wait_up()
        self.addCleanup(c.close)
        for w, acked in zip(writers, known):
            w.acked = acked
            self.assertEqual(w.missing(c), [], "acknowledged before the backup")
        self.assertIn("nothing found", ctl(m, "check"))
        self.assertEqual(c.VM.get_power_state(vm) in ("Running", "Halted"), True)

        # The others come back with their rows; what ran goes on.
        for o in members[1:]:
            for name in ("raft", "members.json", "pool.db"):
                old = o.dir / "data" / name
                if old.exists():
                    old.rename(f"{old}.old")
            o.start()
            self.pool.join(o)
        self.pool.wait_formed()
        self.assert_settled(c)
        self.pool.wait_converged()
        self.assertEqual({h["uuid"] for h in c.host.get_all_records().values()},
                         set(uuids.values()))
        c.VM.set_name_label(vm, "after")
        for o in members:
            self.assertIn("nothing found", ctl(o, "check"))
            self.assertEqual(o.client().VM.get_name_label(vm), "after")

    def refuse_bad(self, good, far, m):
        """Damaged files, other pools, a daemon that runs."""
        data = bytearray(pathlib.Path(good).read_bytes())
        bad = self.pool.dir / "bad.img"
        for change, words in ((len(data) // 2, "checksum"), (0, "another format")):
            copy = bytearray(data)
            copy[change] ^= 1
            bad.write_bytes(copy)
            self.assertIn(words, self.restore(bad, self.pool.dir / "new",
                                              status=1))
        bad.write_bytes(data[:len(data) // 2])
        self.assertIn("checksum", self.restore(bad, self.pool.dir / "new", status=1))
        self.assertIn("stop it first", self.restore(far, m.dir / "data", "--older",
                                                    status=1))
        stranger = self.pool.dir / "stranger"
        stranger.mkdir()
        (stranger / "host-uuid").write_text("00000000-1111-2222-3333-444444444444\n")
        self.assertIn("another pool", self.restore(good, stranger, status=1))
        host = (m.dir / "data/host-uuid").read_text().strip()
        self.assertIn("--force", self.restore(good, stranger, f"--host={host}",
                                              status=1))
        self.restore(good, stranger, f"--host={host}", "--force")
        self.assertEqual((stranger / "host-uuid").read_text().strip(), host)


if __name__ == "__main__":
    unittest.main(verbosity=2)
