"""What a daemon is given that it should not be: by clients, by strangers at the
peer port, by its own disk. Always: a clear answer, nothing lost, and everybody
else is served."""
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import time
import unittest
from xml.sax.saxutils import escape

from harness import (BUILD, NULL, PoolCase, connect, post, post_json, say, send_raw,
                     status_of, tls_context, wait_for)
from localpool import BROKEN, ApiError

BAD_BYTES = (b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80",
             b"\xe2\x82")
BAD_CHARS = ("\\u0000", "\\u0001", "\\u001f", "\\ud800", "\\udc00", "\\ud800x",
             "\\ufffe", "\\uffff")


def xml_value(v):
    if isinstance(v, bytes):
        return b"<value><string>" + v + b"</string></value>"
    if isinstance(v, str):
        return b"<value><string>" + escape(v).encode() + b"</string></value>"
    if isinstance(v, list):
        return (b"<value><array><data>" + b"".join(map(xml_value, v))
                + b"</data></array></value>")
    return (b"<value><struct>"
            + b"".join(b"<member><name>" + (k if isinstance(k, bytes) else k.encode())
                       + b"</name>" + xml_value(x) + b"</member>" for k, x in v.items())
            + b"</struct></value>")


def xml_call(method, *params):
    return (b"<?xml version='1.0'?><methodCall><methodName>" + method.encode()
            + b"</methodName><params>"
            + b"".join(b"<param>" + xml_value(p) + b"</param>" for p in params)
            + b"</params></methodCall>")


class BadInput(PoolCase):
    def setUp(self):
        self.m = self.pool.members[0]
        self.c = self.client(0)
        self.ref = self.c.pool.get_all()[0]
        self.before = self.c.pool.get_record(self.ref)

    def tearDown(self):
        """It is still the same process, and serves."""
        self.assertIsNone(self.m.daemon.poll(), "the daemon ended")

    def where(self):
        return self.m.address, self.pool.http_port

    def json(self, method, *params):
        """The error array of a call, [] for success."""
        status, answer = post_json(*self.where(), {
            "jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)})
        self.assertEqual(status, 200)
        self.assertEqual((answer["jsonrpc"], answer["id"]), ("2.0", 7))
        e = answer.get("error")
        return [e["message"]] + e["data"] if e else []

    def same(self):
        self.assertEqual(self.c.pool.get_record(self.ref), self.before)

    # ---- requests ----

    def test_01_malformed_http(self):
        for data, wanted in (
                (b"GARBAGE\r\n\r\n", {400}),
                (b"\x16\x03\x01\x02\x00\x01\x00", {0, 400}),
                (b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", {400, 500}),
                (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", {400}),
                (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", {400}),
                (b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc",
                 {400, 500}),
                (b"POST / HTTP/1.1\r\n" + b"x: " + b"y" * 70000 + b"\r\n\r\n", {431}),
                (b"BREW /tea HTTP/1.1\r\n\r\n", {501}),
                (b"DELETE / HTTP/1.1\r\n\r\n", {501}),
                (b"PUT /nowhere HTTP/1.1\r\ncontent-length: 0\r\n\r\n", {403}),
                (b"GET /../../../../etc/passwd HTTP/1.1\r\n\r\n", {400, 403, 404}),
                (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n\r\n", {400, 403, 404}),
                (b"", {0, 400, 408}),
                (b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nonly this", {0, 400, 500})):
            answer = send_raw(*self.where(), data, timeout=5)
            self.assertIn(status_of(answer), wanted, (data[:60], answer[:200]))
            self.assertNotIn(b"root:x", answer)
        self.same()

    def test_02_malformed_xml(self):
        ok = xml_call("pool.get_all", self.c.session)
        self.assertEqual(post(*self.where(), "/", ok)[0], 200)
        bomb = (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
                + b"".join(b'<!ENTITY a%d "&a%d;&a%d;">' % (i + 1, i, i) for i in range(20))
                + b"]><methodCall><methodName>&a20;</methodName></methodCall>")
        thief = (b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
                 b"<methodCall><methodName>system.isAlive:a</methodName><params><param>"
                 b"<value>&a;</value></param></params></methodCall>")
        deep = (b"<methodCall><methodName>a.b</methodName><params><param>"
                + b"<value><array><data>" * 5000 + b"</data></array></value>" * 5000
                + b"</param></params></methodCall>")
        for body in (b"", b"<", b"not xml", b"<methodCall>", ok[:-5], ok + b"<more/>",
                     b"<other/>", bomb, thief, deep, ok.replace(b"<params>", b"")):
            status, _, answer = post(*self.where(), "/", body)
            self.assertEqual(status, 500, (body[:80], answer[:200]))
            self.assertNotIn(b"root:x", answer)
        self.assert_refused_xml(b"\0" * 100)

    def test_03_malformed_json(self):
        call = {"jsonrpc": "2.0", "id": 1, "method": "pool.get_all",
                "params": [self.c.session]}
        self.assertEqual(post_json(*self.where(), call)[0], 200)
        for body in (b"", b"{", b"[]", b"[" + json.dumps(call).encode() + b"]", b"null",
                     b'"x"', b"1", b"{}", json.dumps(call).encode() + b"x",
                     json.dumps({**call, "jsonrpc": "3.0"}).encode(),
                     json.dumps({**call, "id": None}).encode(),
                     json.dumps({**call, "id": [1]}).encode(),
                     json.dumps({**call, "method": 1}).encode(),
                     json.dumps({**call, "params": 1}).encode(),
                     b"[" * 100000, b'{"a":' * 100000,
                     json.dumps({**call, "params": [[[]]]}).replace(
                         "[[]]", "[" * 200 + "]" * 200).encode()):
            status, answer = post_json(*self.where(), body)
            self.assertEqual(status, 500, (body[:80], answer))
        self.same()

    def test_04_wrong_arity_and_methods(self):
        s = self.c.session
        for wanted, method, params in (
                (["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.pause", "1", "0"], "VM.pause", [s]),
                (["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.pause", "1", "2"],
                 "VM.pause", [s, NULL, NULL]),
                (["MESSAGE_METHOD_UNKNOWN", "VM.fly"], "VM.fly", [s]),
                (["MESSAGE_METHOD_UNKNOWN", "VM.fly"], "VM.fly", []),
                (["MESSAGE_METHOD_UNKNOWN", ""], "", []),
                (["MESSAGE_METHOD_UNKNOWN", "system.multicall"], "system.multicall", []),
                (["SESSION_INVALID", "nobody"], "VM.get_all", ["nobody"]),
                (["SESSION_INVALID", "nobody"], "VM.fly", ["nobody"]),
                (["HANDLE_INVALID", "VM", NULL], "VM.get_record", [s, NULL]),
                (["HANDLE_INVALID", "VM", "x"], "VM.get_record", [s, "x"]),
                (["HANDLE_INVALID", "VM", self.ref], "VM.get_record", [s, self.ref]),
                (["UUID_INVALID", "VM", "no-uuid"], "VM.get_by_uuid", [s, "no-uuid"])):
            self.assertEqual(self.json(method, *params), wanted)
        self.assertEqual(self.json("member.get_all", s)[0], "MESSAGE_METHOD_UNKNOWN")
        self.assertEqual(self.json("job.get_all", s)[0], "MESSAGE_METHOD_UNKNOWN")
        self.same()

    def test_05_wrong_types(self):
        s, r = self.c.session, self.ref
        for method, params in (
                ("pool.set_name_label", [s, r, 5]),
                ("pool.set_name_label", [s, r, None]),
                ("pool.set_name_label", [s, r, {"a": "b"}]),
                ("pool.set_name_label", [s, 5, "x"]),
                ("pool.set_name_label", [5, r, "x"]),
                ("pool.set_other_config", [s, r, "x"]),
                ("pool.set_other_config", [s, r, ["x"]]),
                ("pool.set_other_config", [s, r, {"x": 5}]),
                ("pool.set_tags", [s, r, {"x": "y"}]),
                ("pool.set_tags", [s, r, [5]]),
                ("VM.start", [s, r, "maybe", False]),
                ("event.from", [s, "pool", "", 1.0]),
                ("event.from", [s, ["pool"], 5, 1.0]),
                ("VM.create", [s, []]),
                ("VM.create", [s, {"name_label": 5}]),
                ("VM.set_VCPUs_max", [s, r, "many"]),
                ("VM.set_VCPUs_max", [s, r, 1e30])):
            error = self.json(method, *params)
            self.assertTrue(error, (method, params))
            self.assertIn(error[0], ("INTERNAL_ERROR", "INVALID_VALUE", "HANDLE_INVALID",
                                     "SESSION_INVALID", "EVENT_FROM_TOKEN_PARSE_FAILURE"),
                          (method, params, error))
        self.same()

    # ---- text ----

    def assert_refused_xml(self, body):
        status, headers, answer = post(*self.where(), "/", body)
        if status == 200:
            self.assertIn(b"INVALID_VALUE", answer)
        else:
            self.assertEqual(status, 500, answer[:300])
        self.same()

    def test_06_bad_text_xml(self):
        s, r = self.c.session, self.ref
        for bad in BAD_BYTES + (b"\x01", b"\x0b", b"&#1;", b"&#0;", b"&#xD800;", b"&#xFFFE;"):
            text = b"x" + bad + b"y"
            for call in (xml_call("pool.set_name_label", s, r, text),
                         xml_call("pool.add_to_other_config", s, r, text, "v"),
                         xml_call("pool.add_to_other_config", s, r, "k", text),
                         xml_call("pool.set_other_config", s, r, {text: "v"}),
                         xml_call("pool.set_tags", s, r, ["a", text]),
                         xml_call("pool.add_tags", s, r, text),
                         xml_call("session.login_with_password", text, "x")):
                self.assert_refused_xml(call)

    def test_07_bad_text_json(self):
        s, r = json.dumps(self.c.session), json.dumps(self.ref)
        raw = [b.decode("latin-1") for b in BAD_BYTES] + ["\x01"]
        for bad in list(BAD_CHARS) + raw:
            for method, params in (
                    ("pool.set_name_label", f'{s},{r},"x{bad}y"'),
                    ("pool.add_to_other_config", f'{s},{r},"x{bad}y","v"'),
                    ("pool.add_to_other_config", f'{s},{r},"k","x{bad}y"'),
                    ("pool.set_other_config", f'{s},{r},{{"x{bad}y":"v"}}'),
                    ("pool.set_tags", f'{s},{r},["a","x{bad}y"]'),
                    ("session.login_with_password", f'"x{bad}y","x"')):
                body = f'{{"jsonrpc":"2.0","id":3,"method":"{method}","params":[{params}]}}'
                status, answer = post_json(*self.where(), body.encode("latin-1"))
                if status == 200:
                    self.assertEqual(answer["error"]["message"], "INVALID_VALUE",
                                     (bad, method))
                else:
                    self.assertEqual(status, 500, (bad, method, answer))
                self.same()

    def test_08_good_text_survives(self):
        text = "Grüße, 世界 \U0001f600 <&>\"' \t\n\\ ]]> end"
        for i in range(3):
            c = self.client(i)
            c.pool.set_name_description(self.ref, text)
            for other in map(self.client, range(3)):
                self.assertEqual(other.pool.get_name_description(self.ref), text)
        answer = post(*self.where(), "/", xml_call("pool.get_name_description",
                                                   self.c.session, self.ref))[2]
        self.assertIn("Grüße, 世界 \U0001f600 &lt;&amp;&gt;".encode(), answer)
        self.c.pool.set_name_description(self.ref, self.before["name_description"])

    # ---- amounts ----

    def test_09_oversized(self):
        size = 5 << 20
        head = f"POST / HTTP/1.1\r\ncontent-length: {size}\r\n\r\n".encode()
        answer = send_raw(*self.where(), head + b"x" * size)
        self.assertIn(status_of(answer), (0, 500), answer[:200])
        head = b"POST /jsonrpc HTTP/1.1\r\ncontent-length: 99999999999999\r\n\r\n"
        self.assertEqual(status_of(send_raw(*self.where(), head)), 500)
        error = self.error(self.c.pool.set_name_description, self.ref, "x" * (3 << 20))
        self.assertTrue(error[0])
        self.same()
        c = self.client(0)
        try:
            c.pool.set_other_config(self.ref, {str(i): "x" for i in range(200000)})
            self.fail("a map of 200000 keys is taken")
        except BROKEN + (ApiError,):
            pass
        self.same()

    def test_10_slow_readers(self):
        """Those who ask for much and read nothing hold up only themselves."""
        call = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "VM.get_all_records",
                           "params": [self.c.session]}).encode()
        request = (b"POST /jsonrpc HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"
                   % len(call) + call)
        slow = []
        for _ in range(20):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(self.where())
            s.setblocking(False)
            try:
                for _ in range(2000):
                    s.send(request)
            except BlockingIOError:
                pass
            slow.append(s)
        longest = 0.0
        for i in range(30):
            begin = time.monotonic()
            self.client(0).pool.get_all()
            longest = max(longest, time.monotonic() - begin)
        say(f"beside 20 clients that do not read, a login and a call take at most "
            f"{longest * 1000:.0f} ms")
        self.assertLess(longest, 3.0)
        for s in slow:
            s.close()

    def test_11_dribbling_writers(self):
        """Half a request on many connections."""
        slow = [connect(*self.where()) for _ in range(100)]
        for s in slow:
            s.sendall(b"POST /jsonrpc HTTP/1.1\r\ncontent-le")
        begin = time.monotonic()
        self.client(0).pool.get_all()
        self.assertLess(time.monotonic() - begin, 3.0)
        for s in slow:
            s.close()

    # ---- strangers at the peer port ----

    def knock(self, context):
        """What a peer port says to this TLS client in the end."""
        try:
            with connect(self.m.address, self.pool.peer_port, context=context,
                         timeout=5) as s:
                s.sendall(b"\0" * 64)
                return s.recv(64)
        except (ssl.SSLError, OSError) as e:
            return e

    def test_12_strangers_at_the_peer_port(self):
        folder = self.pool.dir / "stranger"
        folder.mkdir(exist_ok=True)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
                        "-subj", "/CN=stranger", "-keyout", folder / "key.pem",
                        "-out", folder / "cert.pem"], check=True, capture_output=True)
        log_before = len(self.m.log())
        foreign = tls_context()
        foreign.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        for context in (foreign, tls_context()):
            answer = self.knock(context)
            self.assertTrue(answer == b"" or isinstance(answer, OSError), answer)
        self.assertEqual(send_raw(self.m.address, self.pool.peer_port,
                                  b"GET / HTTP/1.1\r\n\r\n", timeout=3)[:4].strip(b"\x15\x03\x01"
                                                                                 b"\x02\x00"), b"")
        said = wait_for(lambda: "peer link" in self.m.log()[log_before:], 5,
                        "the refusal is logged")
        self.assertTrue(said)
        line = next(l for l in self.m.log()[log_before:].splitlines() if "peer link" in l)
        say(f"log: {line}")
        self.client(1).pool.set_name_description(self.ref, "the members still talk")
        self.assertEqual(self.c.pool.get_name_description(self.ref), "the members still talk")
        self.c.pool.set_name_description(self.ref, self.before["name_description"])

    def test_13_a_second_daemon(self):
        """On a folder that is in use; on an address that is."""
        def second(folder, address, **ports):
            p = {"https": 8443, "http": 8080, "peer": 7443, **ports}
            done = subprocess.run(
                [BUILD / "xenpoold", f"--data-dir={folder}", f"--address={address}",
                 f"--https-port={p['https']}", f"--http-port={p['http']}",
                 f"--peer-port={p['peer']}", "--executor-socket=/nonexistent/x",
                 f"--root-password-file={self.pool.dir}/password"],
                capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
            self.assertNotEqual(done.returncode, 0)
            self.assertGreaterEqual(done.returncode, 0, "it was killed by a signal")
            return done.stdout + done.stderr
        said = second(self.m.dir / "data", self.m.address)
        self.assertIn("in use", said)
        self.assertIn(str(self.m.daemon.pid), said)
        said = second(self.m.dir / "data", f"{self.pool.network}.77")
        self.assertIn("folder of the member at " + self.m.address, said)
        said = second(self.pool.dir / "other", self.m.address)
        self.assertIn(self.m.address, said)
        self.assertRegex(said, "in use|listen")
        self.assertFalse((self.pool.dir / "other").exists(), "a folder was begun")
        self.assertEqual(self.client(0).pool.get_all(), [self.ref])

    def test_14_bad_options(self):
        for options, wanted in ((["--election-timeout=soon"], "must be a number"),
                                (["--heartbeat=0"], "must be from 1 to a third"),
                                (["--heartbeat=51"], "so not 51 with one of 150"),
                                (["--election-timeout=44"], "so not 15 with one of 44"),
                                (["--no-such-option"], "no-such-option"),
                                (["--config=/nonexistent"], "cannot read"),
                                (["--data-dir=/proc/nowhere"], "/proc/nowhere"),
                                (["surplus"], "surplus")):
            done = subprocess.run([BUILD / "xenpoold", "--https-port=0", "--http-port=0",
                                   f"--address={self.pool.network}.78",
                                   f"--data-dir={self.pool.dir}/unused", *options],
                                  capture_output=True, text=True, timeout=20)
            self.assertGreater(done.returncode, 0, options)
            self.assertIn(wanted, done.stdout + done.stderr)


class BadDisk(PoolCase):
    """Damage to one member's disk while the others go on."""

    @classmethod
    def prepare(cls):
        cls.mount = cls.mount_error = None
        data = cls.pool.members[2].dir / "data"
        data.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=240m,mode=0700",
                               "xenpool-test", data], capture_output=True, text=True) \
            if os.geteuid() == 0 and shutil.which("mount") else None
        if done and done.returncode == 0:
            cls.mount = data
        else:
            cls.mount_error = done.stderr.strip() if done else "not root"

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop()
        if cls.mount:
            subprocess.run(["umount", cls.mount], capture_output=True)
        super().tearDownClass()

    def last_segment(self, m):
        """The open segment that was written last; preallocated with zeros."""
        raft = m.dir / "data" / "raft"
        opened = [p for p in raft.glob("open-*") if p.read_bytes().strip(b"\0")]
        return max(opened, key=lambda p: int(p.name.split("-")[1])) if opened else None

    def write_some(self, c, prefix, n):
        ref = c.pool.get_all()[0]
        for i in range(n):
            c.pool.add_to_other_config(ref, f"{prefix}-{i}", "x" * 50)
        return [f"{prefix}-{i}" for i in range(n)]

    def assert_all_there(self, keys):
        for m in self.pool.members:
            c = m.client()
            config = c.pool.get_other_config(c.pool.get_all()[0])
            self.assertEqual([k for k in keys if k not in config], [], m.address)
            c.close()
        self.pool.wait_converged()

    def damage(self, how, prefix):
        """A follower's log is damaged while it is down, and it is started again.
        how(data, end) makes the new content of the segment that was written
        last; end is behind what is in it, the rest is preallocated zeros."""
        m = self.pool.followers()[0]
        other = next(x for x in self.pool.members if x is not m)
        c = other.client()
        self.addCleanup(c.close)
        keys = self.write_some(c, prefix, 20)
        self.pool.wait_converged()
        m.kill("daemon")
        path = self.last_segment(m)
        self.assertIsNotNone(path, "no open segment holds anything")
        data = path.read_bytes()
        path.write_bytes(how(data, (len(data.rstrip(b"\0")) + 7) // 8 * 8))
        keys += self.write_some(c, prefix + "-later", 5)
        m.start_daemon()
        return m, keys

    def harmless(self, how, prefix):
        m, keys = self.damage(how, prefix)
        m.wait_up().close()
        self.assert_all_there(keys)

    def test_1_torn_write(self):
        """A write that was under way, and acknowledged to nobody: its first part
        is there, or all of it with wrong bytes."""
        self.harmless(lambda data, end: data[:end] + data[8:208] + data[end + 200:],
                      "torn")
        self.harmless(lambda data, end: data[:end] + os.urandom(400) + data[end + 400:],
                      "garbled")

    def test_2_short_file(self):
        """The space that was to be written to next is not there."""
        self.harmless(lambda data, end: data[:end], "short")

    def test_3_full_disk(self):
        if not self.mount:
            self.skipTest(f"no tmpfs of its own can be mounted: {self.mount_error}")
        full = self.pool.members[2]
        c = self.client(0)
        ref = c.pool.get_all()[0]
        leader = self.pool.leader()
        if leader is not full:
            master = leader.client()
            master.pool.designate_new_master(full.host_ref(c))
            master.close()
            wait_for(lambda: self.pool.leader() is full, 10, "it becomes the master")
        filler = pathlib.Path(self.mount) / "filler"
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"\0" * (1 << 20))
            except OSError:
                pass
        begin = time.monotonic()
        wait_for(lambda: self.pool.leader() is not full, 20, "another one leads")
        say(f"a master whose disk is full gives way after {time.monotonic() - begin:.1f} s")
        wait_for(lambda: "disk full" in full.log(), 10, "the log tells")
        say(next(l for l in full.log().splitlines() if "disk full" in l))
        keys = self.write_some(c, "full", 100)
        config = c.pool.get_other_config(ref)
        self.assertEqual([k for k in keys if k not in config], [])
        filler.unlink()
        if full.daemon.poll() is None:
            full.kill("daemon")
        full.start_daemon()
        full.wait_up().close()
        self.assert_all_there(keys)

    def test_4_all_killed_at_once(self):
        c = self.client(0)
        keys = self.write_some(c, "killed", 30)
        for m in self.pool.members:
            m.daemon.kill()
        for m in self.pool.members:
            m.daemon.wait(10)
        for m in self.pool.members:
            m.start_daemon()
        for m in self.pool.members:
            m.wait_up().close()
        self.assert_all_there(keys)

    def test_5_a_disk_that_lied(self):
        """What a member had acknowledged is gone from its disk. The others have
        it, and go on; it is told by the master, and builds itself anew."""
        def lose(data, end):
            return data[:end - 40] + bytes(b ^ 0x5a for b in data[end - 40:end]) + data[end:]
        m, keys = self.damage(lose, "lied")
        leader = self.pool.leader()
        c = leader.client()
        self.addCleanup(c.close)
        config = c.pool.get_other_config(c.pool.get_all()[0])
        self.assertEqual([k for k in keys if k not in config], [])
        begin = time.monotonic()
        m.wait_up().close()
        say(f"a member whose disk lied is back after {time.monotonic() - begin:.1f} s")
        self.assertIn("which this member had acknowledged, are gone", m.log())
        self.assertIs(self.pool.leader(), leader)
        self.assert_all_there(keys)


if __name__ == "__main__":
    unittest.main(verbosity=2)
