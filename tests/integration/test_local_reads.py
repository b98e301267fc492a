#!/usr/bin/env python3
"""Reads of a member's own copy: without a majority, told how old, and never
older than what the client has seen elsewhere."""
import json
import signal
import time
import unittest

from harness import ApiError, PoolCase, connect, say, wait_for

READ_LIMIT = 7.0  # s: a linearizable read without a majority fails by then
NOT_REACHED = "XENPOOL_GENERATION_NOT_REACHED"
LOCAL = {"x-xenpool-read": "local"}


class Wire:
    """Calls with headers; what the last reply told is in .generation, .age."""

    def __init__(self, member, session=None, tls=False):
        self.member, self.session = member, session
        self.socket = connect(member.address, member.pool.https_port if tls else
                              member.pool.http_port, tls=tls, timeout=30)
        self.generation = self.age = None

    def call(self, method, *params, headers=()):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                           "params": ([self.session] if self.session else [])
                           + list(params)}).encode()
        lines = "".join(f"{k}: {v}\r\n" for k, v in dict(headers).items())
        self.socket.sendall(f"POST /jsonrpc HTTP/1.1\r\nhost: x\r\n{lines}"
                            f"content-length: {len(body)}\r\n\r\n".encode() + body)
        head, answer = self._reply()
        self.generation = int(head.get("x-xenpool-generation", -1))
        self.age = int(head.get("x-xenpool-age-ms", -1))
        if "error" in answer:
            error = answer["error"]
            raise ApiError([error["message"], *error.get("data", [])])
        return answer["result"]

    def _reply(self):
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        text, _, data = data.partition(b"\r\n\r\n")
        head = dict(line.lower().split(": ", 1)
                    for line in text.decode().split("\r\n")[1:])
        while len(data) < int(head["content-length"]):
            data += self._more()
        return head, json.loads(data)

    def _more(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise ConnectionError("closed")
        return piece

    def close(self):
        self.socket.close()


class LocalReads(PoolCase):
    def wire(self, index, session=None):
        w = Wire(self.pool.members[index], session)
        self.addCleanup(w.close)
        if not session:
            w.session = w.call("session.login_with_password", "root", "secret",
                               "2.23", "test")
        return w

    def stop_others(self, keep):
        """The other members stand still; their sockets stay open."""
        for m in self.pool.members:
            if m is not self.pool.members[keep]:
                m.daemon.send_signal(signal.SIGSTOP)

    def resume_all(self):
        for m in self.pool.members:
            m.daemon.send_signal(signal.SIGCONT)

    def test_1_replies_tell(self):
        a = self.wire(0)
        pool = a.call("pool.get_all")[0]
        self.assertEqual(a.age, -1, "a linearizable read has no age")
        first = a.generation
        self.assertGreater(first, 0)
        a.call("pool.set_name_description", pool, "told")
        self.assertGreater(a.generation, first)
        for i in range(3):
            w = self.wire(i, a.session)
            headers = {**LOCAL, "x-xenpool-min-generation": a.generation}
            self.assertEqual(w.call("pool.get_name_description", pool,
                                    headers=headers), "told")
            self.assertGreaterEqual(w.generation, a.generation)
            self.assertGreaterEqual(w.age, 0)
            wait_for(lambda: w.call("pool.get_all", headers=LOCAL) and w.age < 1000,
                     10, "a member with a majority knows that it is up to date")

    def test_2_never_older_than_seen(self):
        """One client writes here and reads there, at once, without a barrier."""
        a = self.wire(0)
        others = [self.wire(i, a.session) for i in (1, 2)]
        pool = a.call("pool.get_all")[0]
        seen, behind = 0, 0
        for n in range(150):
            a.call("pool.set_name_description", pool, str(n))
            seen = max(seen, a.generation)
            for w in others:
                if w.call("pool.get_name_description", pool, headers=LOCAL) != str(n):
                    behind += 1
                headers = {**LOCAL, "x-xenpool-min-generation": seen}
                self.assertEqual(w.call("pool.get_name_description", pool,
                                        headers=headers), str(n))
                self.assertGreaterEqual(w.generation, seen)
        say(f"{behind} of 300 local reads without a generation saw an older state")

    def test_3_a_generation_that_nobody_has(self):
        a = self.wire(1)
        begin = time.monotonic()
        with self.assertRaises(ApiError) as caught:
            a.call("pool.get_all", headers={**LOCAL, "x-xenpool-min-generation":
                                            a.generation + 1000000})
        self.assertEqual(caught.exception.code, NOT_REACHED)
        self.assertLess(time.monotonic() - begin, READ_LIMIT)
        a.call("pool.get_all", headers=LOCAL)

    def refused(self, w, headers=()):
        begin = time.monotonic()
        with self.assertRaises(ApiError) as caught:
            w.call("pool.get_all", headers=headers)
        self.assertEqual(caught.exception.code, "CANNOT_CONTACT_HOST")
        took = time.monotonic() - begin
        self.assertLess(took, READ_LIMIT)
        return took

    def cut_off(self, keep, plain, wishing):
        """What the member that is alone can do; plain and wishing are clients of
        it, the second one's session wants local reads."""
        pool = plain.call("pool.get_all", headers=LOCAL)[0]
        ages = []
        for _ in range(5):
            begin = time.monotonic()
            self.assertTrue(plain.call("VM.get_all_records", headers=LOCAL))
            self.assertEqual(wishing.call("pool.get_name_description", pool), "before")
            self.assertLess(time.monotonic() - begin, 2.0, "a local read is slow")
            ages.append(wishing.age)
            time.sleep(0.4)
        self.assertEqual(ages, sorted(set(ages)), "the age does not grow")
        self.assertGreater(ages[-1] - ages[0], 1000)
        took = self.refused(plain)
        self.refused(wishing, {"x-xenpool-read": "linearizable"})
        plain.call("pool.get_all", headers=LOCAL)
        say(f"alone: local reads {ages[0]} to {ages[-1]} ms old, then {plain.age}; "
            f"a linearizable one failed after {took:.1f} s")
        self.assertGreater(plain.age, 5000)

    def prepare_clients(self, keep):
        plain = self.wire(keep)
        wishing = self.wire(keep)
        pool = plain.call("pool.get_all")[0]
        plain.call("pool.set_name_description", pool, "before")
        wishing.call("session.add_to_other_config", wishing.session,
                     "xenpool-read", "local")
        wishing.call("pool.get_all")
        self.assertGreaterEqual(wishing.age, 0)
        return plain, wishing

    def healed(self, plain):
        pool = plain.call("pool.get_all", headers=LOCAL)[0]

        def works():
            try:
                return plain.call("pool.get_all")
            except ApiError as e:
                self.assertEqual(e.code, "CANNOT_CONTACT_HOST")
        wait_for(works, 20, "linearizable reads work again")
        plain.call("pool.set_name_description", pool, "after")
        self.pool.wait_converged()
        wait_for(lambda: plain.call("pool.get_all", headers=LOCAL) and plain.age < 1000,
                 10, "the age is small again")
        for i in range(3):
            w = self.wire(i, plain.session)
            self.assertEqual(w.call("pool.get_name_description", pool), "after")

    def test_4_others_stand_still(self):
        plain, wishing = self.prepare_clients(2)
        self.stop_others(2)
        try:
            self.cut_off(2, plain, wishing)
        finally:
            self.resume_all()
        self.healed(plain)

    def test_5_others_are_killed(self):
        """The last one may have been the master."""
        leader = self.pool.leader()
        keep = self.pool.members.index(leader)
        plain, wishing = self.prepare_clients(keep)
        others = [m for m in self.pool.members if m is not leader]
        for m in others:
            m.kill("daemon")
        self.cut_off(keep, plain, wishing)
        for m in others:
            m.start_daemon()
        self.healed(plain)


if __name__ == "__main__":
    unittest.main(verbosity=2)
