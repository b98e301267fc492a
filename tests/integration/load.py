"""Clients that write through every member while things go wrong, and the check
that what they were told is so: nothing acknowledged is lost, nothing is applied
twice, all members hold the same."""
import json
import threading
import time

from harness import BROKEN, NO_MAJORITY, ApiError, wait_for
from watch import Background

KEEP = 20  # of what a worker makes, so many are left


class Worker(Background):
    """Makes things, through one member alone, that would show if they were made
    twice: a key of a map that is refused the second time, an object with a name
    of its own, and values of one field that the history tells of."""

    def __init__(self, load, member):
        super().__init__()
        self.load, self.member = load, member
        self.prefix = f"{load.number}:{member.address.rpartition('.')[2]}:"
        self.acked = {}  # (kind, name): it was added (True), removed, or unknown (None)
        self.objects = {}  # name: ref
        self.sets, self.unknown, self.refused = [], 0, 0
        self.last_ack = 0.0
        self.n = 0

    def _do(self, key, outcome, call, *args):
        """Whether it was acknowledged."""
        if key:
            self.acked[key] = None
        try:
            result = call(*args)
        except BROKEN:
            self.unknown += 1
            self.c.close()
            time.sleep(0.05)
            return None
        except ApiError as e:
            if e.code not in self.load.allowed:
                raise AssertionError(f"{self.member.address}: {key} {call}: {e}") from e
            self.refused += 1
            time.sleep(0.05)
            return None
        if key:
            self.acked[key] = outcome
        self.last_ack = time.monotonic()
        return result or True

    def _step(self):
        c, pool, old = self.c, self.load.pool, f"{self.prefix}{self.n - KEEP}"
        self.n += 1
        name = f"{self.prefix}{self.n}"
        self._do(("key", name), True, c.pool.add_to_other_config, pool, name, "x")
        self._do(("key", old), False, c.pool.remove_from_other_config, pool, old)
        ref = self._do(("object", name), True, c.network.create,
                       {"name_label": name, "other_config": {}, "MTU": 1500})
        if ref:
            self.objects[name] = ref
        if old in self.objects:
            self._do(("object", old), False, c.network.destroy, self.objects.pop(old))
        if self._do(None, None, c.pool.set_name_description, pool, name):
            self.sets.append(name)

    def run(self):
        self.c = self.load.client(self.member, timeout=60)
        while not self._stop.is_set():
            with self.load.turn(self):
                self._step()
            time.sleep(self.load.pause)
        self.c.close()


class Load:
    started = 0

    def __init__(self, pool, tls=False, pause=0.002):
        Load.started += 1
        self.number = Load.started
        self.members, self.tls, self.pause = pool.members, tls, pause
        c = pool.members[0].client()
        self.session, self.pool = c.session, c.pool.get_all()[0]
        self.hosts = {m: m.host_ref(c) for m in pool.members}
        c.close()
        self._open = threading.Event()
        self._open.set()
        self.allowed = list(NO_MAJORITY)  # what a write may be refused with
        self._locks, self._asking = {}, {}
        self.workers = [Worker(self, m) for m in pool.members]
        for w in self.workers:
            self._locks[w] = threading.Lock()
            w.start()

    def turn(self, worker):
        self._open.wait()
        return self._locks[worker]

    def client(self, member, **options):
        """Without a login, and mostly without TLS: there are many."""
        c = member.client(login=False, tls=self.tls, **options)
        c.session = self.session
        return c

    def acknowledged(self):
        return sum(len(w.acked) for w in self.workers)

    def wait_progress(self, members=None, timeout=30, what="writes go on"):
        """Until each of these members has acknowledged something new."""
        since = time.monotonic()
        wait_for(lambda: all(w.last_ack > since or w.error for w in self.workers
                             if w.member in (members or self.members)), timeout, what)
        self.raise_errors()

    def raise_errors(self):
        for w in self.workers:
            if w.error:
                raise w.error

    def status(self, member):
        """None when it does not answer."""
        c = self._asking.get(member)
        if not c:
            c = self._asking[member] = self.client(member, timeout=10)
        try:
            return json.loads(c.host.call_plugin(self.hosts[member], "xenpool",
                                                 "status", {}))
        except (ApiError, KeyError, *BROKEN):
            c.close()
            return None

    def leader(self):
        """The member that serves as master."""
        def found():
            for m in self.members:
                s = m.daemon.poll() is None and self.status(m)
                for known in s["members"] if s else ():
                    if known["id"] != s["leader_id"]:
                        continue
                    leader = next(x for x in self.members if x.address
                                  == known["address"].rpartition(":")[0])
                    s = self.status(leader)
                    return leader if s and s["is_serving_leader"] else None
        return wait_for(found, 30, "a member leads")

    def check(self, through):
        """Stops the clients for a moment, waits until all members hold the same,
        and compares it, read from one of them, with what was acknowledged.
        Returns the seconds until they did."""
        begin = time.monotonic()
        self._open.clear()
        try:
            for w in self.workers:
                with self._locks[w]:
                    pass
            self.raise_errors()
            self._converged()
            took = time.monotonic() - begin
            self._compare(through)
        finally:
            self._open.set()
        return took

    def _converged(self):
        seen = []

        def same():
            seen[:] = [s and (s["generation"], s["digest"])
                       for s in map(self.status, self.members)]
            return seen[0] and len(set(seen)) == 1
        try:
            wait_for(same, 40, "all members hold the same")
        except AssertionError as e:
            raise AssertionError(f"{e}: {seen}") from None

    def _compare(self, member):
        c = self.client(member)
        keys = c.pool.get_other_config(self.pool)
        names = [n["name_label"] for n in c.network.get_all_records().values()]
        c.close()
        bad = [f"{n} was made twice" for n in set(names) if names.count(n) > 1]
        there = {"key": keys, "object": set(names)}
        for w in self.workers:
            for (kind, name), wanted in w.acked.items():
                if wanted is not None and (name in there[kind]) != wanted:
                    bad.append(f"{kind} {name}, {'added' if wanted else 'removed'}, "
                               f"is {'gone' if wanted else 'there'}")
            # Checked; what was removed stays so unless it comes up again.
            w.acked = {k: v for k, v in w.acked.items() if v is not False}
        if bad:
            raise AssertionError(f"on {member.address}: " + "; ".join(bad[:20]))

    def check_histories(self):
        """A value that was set once is set once in the history of each member,
        which may have gaps where it was away."""
        wanted = {name for w in self.workers for name in w.sets}
        for m in self.members:
            found = [json.loads(v) if v.startswith('"') else v for v, in m.rows(
                "SELECT new FROM history WHERE class = 'pool' AND "
                "field = 'name_description'")]
            twice = {v for v in found if found.count(v) > 1}
            if twice:
                raise AssertionError(f"{m.address} set more than once: {sorted(twice)[:20]}")
            if not wanted & set(found):
                raise AssertionError(f"{m.address} has no history")

    def stop(self):
        self._open.set()
        for w in self.workers:
            w.stop(90)
        for c in self._asking.values():
            c.close()
