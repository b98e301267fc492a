"""event.from and its older kin, as clients use and abuse them."""
import threading
import time
import unittest

from harness import NULL, PoolCase, new_vm, say, template, wait_for
from localpool import ApiError


# What is woken returns long before it would by itself, on the busiest machine too.
LONG, SOON = 60.0, 20.0  # s


def fetch(c, classes, token="", timeout=0.0):
    return getattr(c.event, "from")(classes, token, timeout)


class Later(threading.Thread):
    """A call on a connection of its own; result() gives what came of it."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.value = self.error = self.took = None
        self.begin = time.monotonic()
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except Exception as e:
            self.error = e
        self.took = time.monotonic() - self.begin

    def result(self, timeout=LONG + 15):
        self.join(timeout)
        assert not self.is_alive(), "the call does not return"
        if self.error:
            raise self.error
        return self.value


class Events(PoolCase):
    # A new master is a change of the pool, which watchers of it are told.
    options = ("--election-timeout=1500",)

    def setUp(self):
        self.c = self.client(1)
        self.pool_ref = self.c.pool.get_all()[0]

    def with_session_of(self, c, index=1):
        other = self.client(index, login=False)
        other.session = c.session
        return other

    # ---- tests ----

    def test_01_first_fetch(self):
        """Everything once, as add, with the snapshots that getters give."""
        batch = fetch(self.c, ["*"])
        refs = [e["ref"] for e in batch["events"]]
        self.assertEqual(len(refs), len(set(refs)))
        self.assertEqual({e["operation"] for e in batch["events"]}, {"add"})
        seen = {}
        for e in batch["events"]:
            self.assertEqual(e["class"], e["class"].lower())
            self.assertIsInstance(e["id"], str)
            self.assertIsInstance(e["timestamp"], str)
            seen.setdefault(e["class"], {})[e["ref"]] = e["snapshot"]
        for cls in ("VM", "host", "pool", "SR", "PBD", "PIF", "network", "host_metrics",
                    "VM_metrics"):
            records = self.c.call(f"{cls}.get_all_records")
            self.assertEqual(seen.get(cls.lower(), {}).keys(), records.keys(), cls)
            if cls != "host_metrics":
                self.assertEqual(seen.get(cls.lower(), {}), records)
        for absent in ("session", "user", "secret", "role", "job", "member"):
            self.assertNotIn(absent, seen)
        self.assertRegex(batch["token"], r"^\d{20},\d{20}$")
        for cls, records in seen.items():
            if cls != "message":
                self.assertEqual(batch["valid_ref_counts"][cls], len(records), cls)
        for count in batch["valid_ref_counts"].values():
            self.assertIs(type(count), int)

    def test_02_nothing_happens(self):
        token = fetch(self.c, ["pool"])["token"]
        begin = time.monotonic()
        batch = fetch(self.c, ["pool"], token, 0.0)
        self.assertLess(time.monotonic() - begin, SOON)
        self.assertEqual(batch["events"], [])
        self.assertGreaterEqual(batch["token"], token)
        begin = time.monotonic()
        batch = fetch(self.c, ["pool"], token, 1.0)
        self.assertGreaterEqual(time.monotonic() - begin, 0.9)
        self.assertEqual(batch["events"], [])

    def test_03_a_change_wakes(self):
        token = fetch(self.c, ["pool"])["token"]
        waiting = Later(fetch, self.with_session_of(self.c), ["pool"], token, LONG)
        time.sleep(0.3)
        self.c.pool.set_name_description(self.pool_ref, "changed")
        batch = waiting.result()
        self.assertLess(waiting.took, SOON)
        self.assertEqual([(e["operation"], e["class"], e["ref"]) for e in batch["events"]],
                         [("mod", "pool", self.pool_ref)])
        self.assertEqual(batch["events"][0]["snapshot"],
                         self.c.pool.get_record(self.pool_ref))
        self.assertGreater(batch["token"], token)

    def test_04_one_object_only(self):
        c = self.c
        one, other = (c.VM.clone(template(self.c), f"watched-{i}") for i in range(2))
        for name in ("vm", "VM", "Vm"):
            token = fetch(c, [f"{name}/{one}"])["token"]
            c.VM.set_name_description(other, f"not this {name}")
            self.assertEqual(fetch(c, [f"{name}/{one}"], token, 0.5)["events"], [])
            c.VM.set_name_description(one, f"this {name}")
            batch = fetch(c, [f"{name}/{one}"], token, 5.0)
            self.assertEqual([(e["class"], e["ref"]) for e in batch["events"]],
                             [("vm", one)])
        token = fetch(c, [f"VM/{one}"])["token"]
        c.VM.destroy(one)
        batch = fetch(c, [f"VM/{one}"], token, 5.0)
        self.assertEqual([(e["operation"], e["ref"]) for e in batch["events"]],
                         [("del", one)])
        self.assertNotIn("snapshot", batch["events"][0])
        c.VM.destroy(other)

    def test_05_parallel_calls_of_one_session(self):
        token = fetch(self.c, ["pool", "VM"])["token"]
        slow = Later(fetch, self.with_session_of(self.c), ["VM"], token, 2.0)
        empty = Later(fetch, self.with_session_of(self.c), [], token, 1.0)
        quick = Later(fetch, self.with_session_of(self.c), ["pool"], token, LONG)
        elsewhere = Later(fetch, self.with_session_of(self.c, 2), ["pool"], token, LONG)
        time.sleep(0.3)
        self.c.pool.set_name_description(self.pool_ref, "for two of them")
        for waiting in (quick, elsewhere):
            self.assertEqual(len(waiting.result()["events"]), 1)
            self.assertLess(waiting.took, SOON)
        self.assertEqual(slow.result()["events"], [])
        self.assertGreater(slow.took, 1.8)
        self.assertEqual(empty.result()["events"], [])
        self.assertGreater(empty.took, 0.8)

    def test_06_inject_wakes_and_orders(self):
        c = self.c
        token = fetch(c, ["pool"])["token"]
        waiting = Later(fetch, self.with_session_of(c, 2), ["pool"], token, 10.0)
        time.sleep(0.2)
        injected = c.event.inject("pool", self.pool_ref)
        batch = waiting.result()
        self.assertEqual([(e["operation"], e["ref"]) for e in batch["events"]],
                         [("mod", self.pool_ref)])
        self.assertEqual(len(injected), len(token))
        self.assertGreaterEqual(batch["token"], injected)
        self.assertGreater(injected, token)
        later = fetch(c, ["pool"], injected, 0.0)
        self.assertEqual([e["ref"] for e in later["events"]], [self.pool_ref])
        gone = "OpaqueRef:00000000-0000-0000-0000-000000000001"
        self.assert_error(["HANDLE_INVALID", "pool", gone], c.event.inject, "pool", gone)

    def test_07_coalescing(self):
        c = self.c
        token = fetch(c, ["VM"])["token"]
        vm = c.VM.clone(template(self.c), "coalesced")
        c.VM.set_name_description(vm, "twice")
        batch = fetch(c, [f"VM/{vm}"], token)
        self.assertEqual([e["operation"] for e in batch["events"]], ["add"])
        self.assertEqual(batch["events"][0]["snapshot"]["name_description"], "twice")
        token2 = batch["token"]
        for n in range(5):
            c.VM.set_name_description(vm, f"change {n}")
        batch = fetch(c, ["VM"], token2)
        self.assertEqual([(e["operation"], e["ref"]) for e in batch["events"]],
                         [("mod", vm)])
        c.VM.set_name_description(vm, "change 4")  # no change at all
        self.assertEqual(fetch(c, ["VM"], batch["token"])["events"], [])
        c.VM.destroy(vm)
        self.assertEqual([(e["operation"], e["ref"]) for e in fetch(c, ["VM"], token2)["events"]],
                         [("del", vm)])
        self.assertEqual(fetch(c, ["VM"], token)["events"], [])  # never was

    def test_08_relations_touch(self):
        """A change of one side of a relation is one of the other side too."""
        c = self.c
        vm = c.VM.clone(template(self.c), "with a nic")
        network = c.network.get_all()[0]
        token = fetch(c, ["VM", "VIF", "network"])["token"]
        vif = c.VIF.create({"device": "0", "network": network, "VM": vm, "MAC": "",
                            "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
                            "qos_algorithm_params": {}})
        events = {(e["operation"], e["ref"]): e for e in
                  fetch(c, ["VM", "VIF", "network"], token)["events"]}
        self.assertLessEqual({("add", vif), ("mod", vm), ("mod", network)}, events.keys())
        self.assertIn(vif, events["mod", vm]["snapshot"]["VIFs"])
        c.VM.destroy(vm)

    def test_09_tokens_on_other_members(self):
        token = fetch(self.c, ["pool"])["token"]
        for n in range(20):
            c = self.client(n % 3)
            c.session = self.c.session
            self.client((n + 1) % 3).pool.set_name_description(self.pool_ref, f"turn {n}")
            batch = fetch(c, ["pool"], token, 5.0)
            self.assertEqual([e["snapshot"]["name_description"] for e in batch["events"]],
                             [f"turn {n}"])
            self.assertGreater(batch["token"], token)
            token = batch["token"]

    def test_10_bad_arguments(self):
        c = self.c
        for token in ("x", "1", "1,2,3", "00000000000000000001", "a,b", ","):
            self.assert_error(["EVENT_FROM_TOKEN_PARSE_FAILURE", token],
                              fetch, c, ["pool"], token, 0.0)
        begin = time.monotonic()
        self.assertEqual(fetch(c, ["no_such_class"], "", 0.5)["events"], [])
        self.assertGreater(time.monotonic() - begin, 0.4)
        self.assertEqual(fetch(c, [f"VM/{NULL}"], "", 0.0)["events"], [])
        self.assertEqual(fetch(c, ["pool"], "", -1.0)["events"][0]["ref"], self.pool_ref)
        error = self.error(c.rpc, "event.from", "OpaqueRef:no-session", ["*"], "", 0.0)
        self.assertEqual(error, ["SESSION_INVALID", "OpaqueRef:no-session"])

    def test_11_logout_wakes(self):
        for index in (1, 2):
            c = self.client(1)
            other = self.with_session_of(c, index)
            token = fetch(c, ["task"])["token"]
            waiting = Later(fetch, other, ["secret"], token, LONG)
            time.sleep(0.3)
            c.call("session.logout")
            with self.assertRaises(ApiError) as caught:
                waiting.result()
            self.assertEqual(caught.exception.details, ["SESSION_INVALID", c.session])
            self.assertLess(waiting.took, SOON)

    def test_12_a_client_that_goes_away(self):
        """Its waiting call is dropped; others are not held up."""
        token = fetch(self.c, ["task"])["token"]
        for _ in range(20):
            other = self.with_session_of(self.c)
            other.timeout = 0.05
            with self.assertRaises(OSError):
                fetch(other, ["secret"], token, LONG)
        begin = time.monotonic()
        self.c.pool.set_name_description(self.pool_ref, "still here")
        self.assertLess(time.monotonic() - begin, SOON)

    def test_13_messages(self):
        c = self.c
        uuid = c.pool.get_uuid(self.pool_ref)
        token = fetch(c, ["message"])["token"]
        refs = [c.message.create(f"TEST_{n}", 3, "Pool", uuid, f"body {n}")
                for n in range(2)]
        batch = fetch(c, ["message"], token, 5.0)
        self.assertEqual([(e["operation"], e["ref"]) for e in batch["events"]],
                         [("add", r) for r in refs])
        self.assertEqual(batch["events"][0]["snapshot"]["body"], "body 0")
        refs.append(c.message.create("TEST_2", 3, "Pool", uuid, "body 2"))
        second = fetch(c, ["message"], batch["token"], 5.0)
        self.assertEqual([(e["operation"], e["ref"]) for e in second["events"]],
                         [("add", refs[2])])
        found = c.message.get("Pool", uuid, "19700101T00:00:00Z")
        self.assertLessEqual(set(refs), found.keys())
        self.assertLessEqual(set(refs), c.message.get_all_records().keys())
        where = c.message.get_all_records_where('field "name" = "TEST_1"')
        self.assertEqual(list(where), [refs[1]])
        c.message.destroy(refs[0])
        third = fetch(c, ["message"], second["token"], 5.0)
        self.assertEqual([(e["operation"], e["ref"]) for e in third["events"]],
                         [("del", refs[0])])
        self.assertNotIn(refs[0], [e["ref"] for e in fetch(c, ["message"])["events"]])
        for since in ("1970-01-01T00:00:00Z", "19700101T00:00:00Z", "1970-01-01T00:00:00",
                      "19700101T12:00:00-12:00"):
            self.assertLessEqual({refs[1], refs[2]}, c.message.get_since(since).keys(), since)
        self.assertEqual(c.message.get_since("2999-01-01T00:00:00Z"), {})
        self.assertEqual(self.error(c.message.create, "X", 3, "Pool",
                                    "00000000-0000-0000-0000-000000000000", "")[0],
                         "UUID_INVALID")
        c.message.destroy_many(refs[1:])
        self.assertFalse(set(refs) & c.message.get_all_records().keys())

    def test_14_tasks_are_counted(self):
        """valid_ref_counts.task is what get_all says, also with tasks under way."""
        c = self.c
        task = c.task.create("counted", "")
        batch = fetch(c, ["task"])
        self.assertEqual(batch["valid_ref_counts"]["task"], len(c.task.get_all()))
        token = batch["token"]
        c.task.set_progress(task, 0.5)
        c.task.set_status(task, "success")
        batch = fetch(c, [f"task/{task}"], token, 5.0)
        self.assertEqual(batch["events"][0]["snapshot"]["status"], "success")
        c.task.destroy(task)
        batch = fetch(c, ["task"], batch["token"], 5.0)
        self.assertIn(("del", task), [(e["operation"], e["ref"]) for e in batch["events"]])

    def test_15_register_and_next(self):
        c = self.client(1)
        error = self.error(c.event.next)
        self.assertEqual(error[0], "SESSION_NOT_REGISTERED")
        c.event.register(["pool"])
        self.assertGreaterEqual(int(c.event.get_current_id()), 0)
        waiting = Later(self.with_session_of(c).event.next)
        time.sleep(0.3)
        self.c.pool.set_name_description(self.pool_ref, "seen by next")
        events = waiting.result()
        last = [e for e in events if e["ref"] == self.pool_ref][-1]
        self.assertEqual((last["class"], last["operation"]), ("pool", "mod"))
        self.assertEqual(last["snapshot"]["name_description"], "seen by next")
        c.event.unregister(["pool"])
        # its session ends while it waits
        c.event.register(["secret"])
        waiting = Later(self.with_session_of(c).event.next)
        time.sleep(0.3)
        c.call("session.logout")
        with self.assertRaises(ApiError) as caught:
            waiting.result()
        self.assertEqual(caught.exception.code, "SESSION_INVALID")

    def test_16_every_change_of_a_busy_vm(self):
        """Snapshots follow a VM through its life, on a member that has no part."""
        c = self.client(0)
        vm = new_vm(c, "followed")
        watcher = self.client(2)
        token = fetch(watcher, [f"VM/{vm}"])["token"]
        states = ["Halted"]
        stop = threading.Event()

        def follow(t):
            while not stop.is_set():
                batch = fetch(watcher, [f"VM/{vm}"], t, 1.0)
                t = batch["token"]
                for e in batch["events"]:
                    state = e["snapshot"]["power_state"]
                    if state != states[-1]:
                        states.append(state)
        following = Later(follow, token)
        for step, args in (("start", (True, False)), ("unpause", ()), ("clean_shutdown", ())):
            getattr(c.VM, step)(vm, *args)
            wanted = c.VM.get_power_state(vm)
            wait_for(lambda: states[-1] == wanted, 5, f"{wanted} is told")
        stop.set()
        following.result()
        self.assertEqual(states, ["Halted", "Paused", "Running", "Halted"])
        c.VM.destroy(vm)

    def test_17_many_waiters(self):
        """A hundred watchers are woken by one change, soon."""
        token = fetch(self.c, ["pool"])["token"]
        clients = [self.with_session_of(self.c, n % 3) for n in range(100)]
        for other in clients:  # connected: the handshakes take longer than the rest
            fetch(other, ["pool"], token)
        waiters = [Later(fetch, other, ["pool"], token, LONG) for other in clients]
        time.sleep(1.0)
        begin = time.monotonic()
        self.c.pool.set_name_description(self.pool_ref, "to all of them")
        for w in waiters:
            self.assertEqual(w.result()["events"][0]["snapshot"]["name_description"],
                             "to all of them")
        took = time.monotonic() - begin
        say(f"100 watchers told in {took * 1000:.0f} ms")
        self.assertLess(took, SOON)


if __name__ == "__main__":
    unittest.main(verbosity=2)
