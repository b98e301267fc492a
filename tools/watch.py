"""Clients that run beside a failover: a writer and an event watcher, each on a
thread of its own, recording what they were told."""
import threading
import time

from localpool import BROKEN, NO_MAJORITY, ApiError


class Background:
    def __init__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.error = None

    def start(self):
        self._thread.start()
        return self

    def stop(self, timeout=30):
        self._stop.set()
        self._thread.join(timeout)
        if self.error:
            raise self.error
        return self

    def _run(self):
        try:
            self.run()
        except Exception as e:  # shown by stop()
            self.error = e


class Writer(Background):
    """Adds keys "<prefix><n>" to pool.other_config, one after another, through
    the given members in turn whenever one fails. acked holds (n, when)."""

    def __init__(self, members, prefix, pause=0.0, keep=None):
        super().__init__()
        self.members, self.prefix, self.pause = members, prefix, pause
        self.keep = keep  # so many keys stay; older ones are removed again
        self.acked, self.unknown, self.errors = [], [], []

    def _client(self):
        while not self._stop.is_set():
            for m in list(self.members):
                try:
                    c = m.client(timeout=40)
                    return c, c.pool.get_all()[0]
                except BROKEN + (ApiError,):
                    self.members = self.members[1:] + self.members[:1]
            time.sleep(0.02)
        return None, None

    def run(self):
        n = 0
        c, pool = self._client()
        while c and not self._stop.is_set():
            n += 1
            try:
                c.pool.add_to_other_config(pool, f"{self.prefix}{n}", "x")
                self.acked.append((n, time.monotonic()))
                if self.keep and n > self.keep:
                    c.pool.remove_from_other_config(pool, f"{self.prefix}{n - self.keep}")
            except BROKEN:
                self.unknown.append(n)
                self.members = self.members[1:] + self.members[:1]
                c, pool = self._client()
            except ApiError as e:
                self.errors.append((n, e))
                time.sleep(0.05)
            if self.pause:
                time.sleep(self.pause)

    def missing(self, client):
        """Acknowledged keys that the pool does not have."""
        config = client.pool.get_other_config(client.pool.get_all()[0])
        low = (self.acked[-1][0] - self.keep + 1) if self.keep and self.acked else 0
        return [n for n, _ in self.acked
                if n >= low and f"{self.prefix}{n}" not in config]

    def longest_pause(self, since=0.0):
        times = [t for _, t in self.acked if t >= since]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)


class Watcher(Background):
    """Follows event.from on one member, or on the next of several when one is
    gone, and keeps a cache of all objects."""

    def __init__(self, *members, classes=("*",)):
        super().__init__()
        self.members, self.classes = list(members), list(classes)
        self.cache, self.operations, self.tokens = {}, [], []
        self.oddities = []  # an add of what is known, a mod or del of what is not
        self.longest = 0.0
        self.reconnects = 0

    def _apply(self, event):
        ref, op = event["ref"], event["operation"]
        known = ref in self.cache
        if (op == "add") == known:
            self.oddities.append((op, event["class"], ref))
        if op == "del":
            self.cache.pop(ref, None)
        else:
            self.cache[ref] = (event["class"], event["snapshot"])
        self.operations.append((op, event["class"], ref))

    @property
    def member(self):
        return self.members[0]

    def _reconnect(self, old):
        """The same session on the next member: all members know it."""
        self.reconnects += 1
        old.close()
        time.sleep(0.05)
        self.members = self.members[1:] + self.members[:1]
        c = self.member.client(login=False)
        c.session = old.session
        return c

    def run(self):
        c = self.member.client()
        token, last = "", time.monotonic()
        while not self._stop.is_set():
            try:
                batch = c.event.__getattr__("from")(self.classes, token, 0.5)
            except BROKEN:
                c = self._reconnect(c)
                continue
            except ApiError as e:
                if e.code not in NO_MAJORITY:
                    raise
                c = self._reconnect(c)
                continue
            now = time.monotonic()
            self.longest, last = max(self.longest, now - last), now
            if self.tokens and batch["token"] < self.tokens[-1]:
                self.oddities.append(("token fell", self.tokens[-1], batch["token"]))
            token = batch["token"]
            self.tokens.append(token)
            for event in batch["events"]:
                self._apply(event)

    def differences(self, client, classes=("VM", "pool", "host", "task", "network")):
        """Where the cache is not what a fresh get_all_records says."""
        bad = []
        for cls in classes:
            fresh = client.call(f"{cls}.get_all_records")
            cached = {r: s for r, (k, s) in self.cache.items() if k == cls.lower()}
            for ref in fresh.keys() | cached.keys():
                if fresh.get(ref) != cached.get(ref):
                    bad.append((cls, ref, cached.get(ref), fresh.get(ref)))
        return bad
