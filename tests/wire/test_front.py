#!/usr/bin/env python3
"""The front end on real sockets: a server with a make-believe core
(front_echo) against good, bad, slow and absent-minded clients.

usage: test_front.py [BUILD-FOLDER] [unittest arguments]
XENPOOL_BUILD names the build folder otherwise.
"""
import hashlib
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import warnings
import weakref
import xmlrpc.client

if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]):
    BUILD = pathlib.Path(sys.argv.pop(1))
else:
    BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", "build"))


def find_program():
    for folder in ("tests/wire", "."):
        path = BUILD / folder / "front_echo"
        if os.access(path, os.X_OK):
            return path.resolve()
    sys.exit(f"there is no front_echo in {BUILD}")


PROGRAM = find_program()
HEAD = ("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: {}\r\n"
        "cache-control: no-cache, no-store\r\ncontent-type: {}\r\n"
        "Access-Control-Allow-Origin: *\r\n"
        "Access-Control-Allow-Headers: X-Requested-With\r\n\r\n")


def free_ports(n):
    held = [socket.socket() for _ in range(n)]
    for s in held:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


class Server:
    def __init__(self, **options):
        self.dir = tempfile.mkdtemp(prefix="front.")
        self.http, self.https = free_ports(2)
        self.unix = os.path.join(self.dir, "s")
        self.www = os.path.join(self.dir, "www")
        os.makedirs(os.path.join(self.www, "sub"))
        pathlib.Path(self.www, "index.html").write_text("<p>hello")
        pathlib.Path(self.www, "sub", "a.css").write_text("a{}")
        pathlib.Path(self.dir, "secret").write_text("secret")
        all_options = dict(http=self.http, https=self.https, unix=self.unix,
                           www=self.www, cert=self.dir + "/cert.pem",
                           key=self.dir + "/key.pem", threads=2)
        all_options.update(options)
        command = [PROGRAM] + [f"{k}={v}" for k, v in all_options.items()]
        self.log = open(os.path.join(self.dir, "log"), "w+b")
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE,
                                      stderr=self.log)
        line = self.child.stdout.readline()
        if line != b"ready\n":
            self.child.communicate()
            text = self.logged()
            self.log.close()
            shutil.rmtree(self.dir)
            raise RuntimeError(f"no start: {line!r} {text}")

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        out, _ = self.child.communicate(timeout=10)
        self.out = out.decode()
        code, text = self.child.returncode, self.logged()
        self.log.close()
        shutil.rmtree(self.dir)
        if code != 0:
            raise AssertionError(f"exit code {code}: {text}")

    def connect(self, kind="http"):
        if kind == "unix":
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.unix)
        else:
            port = self.http if kind == "http" else self.https
            s = socket.create_connection(("127.0.0.1", port))
        s.settimeout(10)
        if kind == "https":
            s = tls_context().wrap_socket(s)
        return s


def tls_context(version=None):
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    if version:
        ctx.minimum_version = ctx.maximum_version = version
    return ctx


def request(method, *params, v2=True, id=1):
    body = {"method": method, "params": list(params), "id": id}
    if v2:
        body["jsonrpc"] = "2.0"
    return json.dumps(body)


def post(body, path="/jsonrpc", headers="", version="1.1"):
    body = body.encode() if isinstance(body, str) else body
    return (f"POST {path} HTTP/{version}\r\nhost: x\r\n"
            f"content-length: {len(body)}\r\n{headers}\r\n").encode() + body


def xml_call(method, *values):
    params = "".join(f"<param><value>{v}</value></param>" for v in values)
    return ("<?xml version='1.0'?><methodCall><methodName>"
            f"{method}</methodName><params>{params}</params></methodCall>")


AHEAD = weakref.WeakKeyDictionary()  # what was read behind a reply


class Head:
    def __init__(self, message):
        self.getheader = message.get


def read_reply(s, method="POST"):
    """(status, head, body) of the next reply on a socket. Replies may arrive
    together."""
    data = AHEAD.pop(s, b"")

    def more():
        piece = s.recv(1 << 16)
        if not piece:
            raise ConnectionError(f"cut short: {data[:200]!r}")
        return piece

    while b"\r\n\r\n" not in data:
        data += more()
    head, _, data = data.partition(b"\r\n\r\n")
    line, _, head = head.partition(b"\r\n")
    message = http.client.parse_headers(io.BytesIO(head + b"\r\n\r\n"))
    n = 0 if method == "HEAD" else int(message["content-length"])
    pieces = [data]
    have = len(data)
    while have < n:
        pieces.append(more())
        have += len(pieces[-1])
    data = b"".join(pieces)
    AHEAD[s] = data[n:]
    return int(line.split()[1]), Head(message), data[:n]


def read_exactly(s, n):
    data = b""
    while len(data) < n:
        piece = s.recv(n - len(data))
        if not piece:
            break
        data += piece
    return data


def is_closed(s, within=5):
    s.settimeout(within)
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True
    except socket.timeout:
        return False


class Shared(unittest.TestCase):
    """One server for all tests of a class."""
    options = {}

    @classmethod
    def setUpClass(cls):
        cls.server = Server(**cls.options)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def exchange(self, data, kind="http", method="POST"):
        with self.server.connect(kind) as s:
            s.sendall(data)
            return read_reply(s, method)

    def call(self, method, *params, kind="http", v2=True, headers=""):
        body = request(method, *params, v2=v2)
        status, _, reply = self.exchange(post(body, headers=headers), kind)
        self.assertEqual(status, 200)
        return json.loads(reply)

    def xml(self, body, path="/"):
        status, r, reply = self.exchange(post(body, path))
        self.assertEqual(status, 200)
        self.assertEqual(r.getheader("content-type"), "text/xml")
        return reply.decode()

    def alive(self):
        reply = self.call("VM.get_name_label", "s", "x")
        self.assertEqual(reply["result"], "x")


class Replies(Shared):
    """What a well-behaved client sees."""

    def test_json_head_and_body(self):
        body = '{"jsonrpc":"2.0","result":"a","id":1}'
        for version, keep in (("1.1", "keep-alive"), ("1.0", "close")):
            with self.server.connect() as s:
                s.sendall(post(request("VM.get_name_label", "s", "a"),
                               version=version))
                want = HEAD.format(len(body), keep, "application/json") + body
                want = want.replace("HTTP/1.1", f"HTTP/{version}").encode()
                self.assertEqual(read_exactly(s, len(want)), want)

    def test_xml_head_and_body(self):
        body = ('<?xml version="1.0"?><methodResponse><params><param><value>'
                '<struct><member><name>Status</name><value>Success</value>'
                '</member><member><name>Value</name><value>a&lt;</value>'
                '</member></struct></value></param></params></methodResponse>')
        with self.server.connect() as s:
            s.sendall(post(xml_call("VM.get_name_label", "s", "a&lt;"), "/x"))
            want = (HEAD.format(len(body), "keep-alive", "text/xml")
                    + body).encode()
            self.assertEqual(read_exactly(s, len(want)), want)

    def test_json_shapes(self):
        bad_state = ["VM_BAD_POWER_STATE", "x", "halted", 'running <&"']
        self.assertEqual(
            self.call("VM.start", "s", "x", False, False, v2=False),
            {"result": None, "error": bad_state, "id": 1})
        self.assertEqual(
            self.call("VM.start", "s", "x", False, False),
            {"jsonrpc": "2.0", "id": 1, "error": {
                "code": 1, "message": bad_state[0], "data": bad_state[1:]}})
        self.assertEqual(self.call("VM.get_name_label", "s", "x", v2=False),
                         {"result": "x", "error": None, "id": 1})
        self.assertEqual(self.call("VM.destroy", "s", "x")["result"], "")

    def test_early_failures_have_shape_and_id(self):
        for v2, id in ((True, "abc"), (False, 77)):
            body = request("VM.x", "\ufffe", v2=v2, id=id)
            _, _, reply = self.exchange(post(body))
            reply = json.loads(reply)
            self.assertEqual(reply["id"], id)
            error = reply["error"]
            if v2:
                error = [error["message"]] + error["data"]
            self.assertEqual(error[:2], [
                "INVALID_VALUE", "Invalid UTF-8 string in parameter"])

    def test_json_types(self):
        for method, sent, got in (
                ("VM.set_memory_dynamic_max", 2 ** 53 + 1, 2 ** 53 + 1),
                ("VM.set_memory_dynamic_max", "12", 12),
                ("VM.set_HVM_shadow_multiplier", 2, 2.0),
                ("VM.set_HVM_shadow_multiplier", "1.5", 1.5),
                ("VM.set_is_a_template", True, True),
                ("VM.set_tags", ["b", "a"], ["b", "a"]),
                ("VM.set_other_config", {"b": "1", "a": "é"},
                 {"a": "é", "b": "1"}),
                ("VM.set_actions_after_shutdown", "destroy", "destroy"),
                ("VM.create", {"name_label": "n", "junk": []},
                 {"name_label": "n"})):
            params = ("s", sent) if method == "VM.create" else ("s", "r", sent)
            self.assertEqual(self.call(method, *params)["result"], got)
        _, _, raw = self.exchange(post(request("VM.set_HVM_shadow_multiplier",
                                               "s", "r", 2)))
        self.assertIn(b'"result":2.0', raw)
        self.assertEqual(
            self.call("message.get_since", "s",
                      "2018-01-02T14:05:54Z")["result"], "20180102T14:05:54Z")

    def test_xmlrpc_client(self):
        """The standard library's client, all types there and back."""
        url = f"http://127.0.0.1:{self.server.http}/RPC2"
        with xmlrpc.client.ServerProxy(url, allow_none=True) as p:
            def value(reply):
                self.assertEqual(reply["Status"], "Success", reply)
                return reply["Value"]

            self.assertEqual(value(p.VM.get_name_label("s", "ü<>&\"']]>")),
                             "ü<>&\"']]>")
            self.assertEqual(value(p.VM.set_memory_dynamic_max("s", "r", 5)),
                             "5")
            self.assertEqual(value(p.VM.set_HVM_shadow_multiplier("s", "r", .1)),
                             .1)
            self.assertIs(value(p.VM.set_is_a_template("s", "r", True)), True)
            self.assertEqual(value(p.VM.set_tags("s", "r", [])), [])
            self.assertEqual(value(p.VM.set_tags("s", "r", ["a", "ü"])),
                             ["a", "ü"])
            self.assertEqual(value(p.VM.set_other_config("s", "r", {"a<": "b"})),
                             {"a<": "b"})
            when = xmlrpc.client.DateTime("20180102T14:05:54Z")
            self.assertEqual(str(value(p.message.get_since("s", when))),
                             "20180102T14:05:54Z")
            self.assertEqual(value(p.VM.create("s", {"name_label": "n"})),
                             {"name_label": "n"})
            self.assertEqual(value(p.VM.destroy("s", "x")), "")
            record = value(p.host.get_record("s", "x"))
            self.assertEqual(record["other_config"], {})
            self.assertIs(record["enabled"], False)
            event = value(p.__getattr__("event.from")("s", [], "", 0.0))
            self.assertEqual(event["valid_ref_counts"], {"vm": 7})
            self.assertEqual(p.VM.start("s", "x", False, False), {
                "Status": "Failure", "ErrorDescription":
                ["VM_BAD_POWER_STATE", "x", "halted", 'running <&"']})
            names = p.system.listMethods()
            self.assertEqual(len(names), 2258)
            self.assertIn("VM.start", names)
            self.assertEqual(value(p.__getattr__("system.isAlive:x")("t")),
                             "t")
            reply = p.VM.set_is_a_template("s", "r", None)
            self.assertEqual(reply["ErrorDescription"][0], "INTERNAL_ERROR")
            self.assertEqual(p.system.multicall([])["ErrorDescription"][0],
                             "INTERNAL_ERROR")

    def test_list_methods_over_json(self):
        self.assertEqual(len(self.call("system.listMethods")["result"]), 2258)

    def test_no_white_space_in_xml(self):
        text = self.xml(xml_call("VM.get_record", "s", "x"))
        self.assertNotIn("> <", text)
        self.assertNotIn("\n", text)

    def test_records_over_json(self):
        record = self.call("VM.get_record", "s", "x")["result"]
        self.assertEqual(record["affinity"], "OpaqueRef:NULL")
        self.assertEqual(record["snapshot_time"], "19700101T00:00:00Z")

    def test_counts_and_unknown(self):
        def failure(method, *params):
            error = self.call(method, *params)["error"]
            return [error["message"]] + error["data"]

        self.assertEqual(failure("VM.start", "s"), [
            "MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "0"])
        self.assertEqual(failure("VM.dance"),
                         ["MESSAGE_METHOD_UNKNOWN", "VM.dance"])
        self.assertEqual(failure("VM.dance", "s"),
                         ["MESSAGE_METHOD_UNKNOWN", "VM.dance"])
        self.assertEqual(failure("VM.dance", "bad"), ["SESSION_INVALID", "bad"])
        self.assertEqual(failure("VM.set_actions_after_shutdown", "s", "r", "x"),
                         ["INVALID_VALUE", "value", "x"])
        self.assertEqual(self.call("Async.VM.clean_shutdown", "s", "r")
                         ["result"], "OpaqueRef:task")
        self.assertTrue(self.call("session.login_with_password", "u", "p")
                        ["result"].startswith("u/p/"))

    def test_origin(self):
        agent = "user-agent: me/1\r\n"

        def origin(kind, headers=""):
            return self.call("session.get_this_host", "s", "s", kind=kind,
                             headers=agent + headers)["result"]

        self.assertEqual(origin("http"), "127.0.0.1|me/1|0|0|0")
        self.assertEqual(origin("https"), "127.0.0.1|me/1|0|1|0")
        root = int(os.getuid() == 0)
        self.assertEqual(origin("unix"), f"|me/1|{root}|0|0")
        self.assertEqual(origin("http", "X-Xenpool-Read: local\r\n"),
                         "127.0.0.1|me/1|0|0|2")
        self.assertEqual(origin("http", "x-xenpool-read: linearizable\r\n"),
                         "127.0.0.1|me/1|0|0|1")

    def test_freshness_headers(self):
        def told(headers):
            body = request("session.get_this_host", "s", "s")
            _, head, _ = self.exchange(post(body, headers=headers))
            names = ("x-xenpool-age-ms", "x-xenpool-generation")
            return {n: head.getheader(n) for n in names if head.getheader(n)}

        self.assertEqual(told(""), {})
        self.assertEqual(told("x-xenpool-read: local\r\n"), {"x-xenpool-age-ms": "12"})
        self.assertEqual(told("x-xenpool-min-generation: 41\r\n"),
                         {"x-xenpool-generation": "42"})

    def test_large_reply(self):
        for kind in ("http", "https", "unix"):
            status, r, body = self.exchange(
                post(request("VM.get_all_records", "s")), kind)
            self.assertEqual(int(r.getheader("content-length")), len(body))
            self.assertEqual(len(json.loads(body)["result"]), 4000)

    def test_options(self):
        head = "access-control-request-headers: x-a\r\n"
        status, r, body = self.exchange(
            f"OPTIONS /jsonrpc HTTP/1.1\r\n{head}\r\n".encode())
        self.assertEqual((status, body), (200, b""))
        self.assertEqual(r.getheader("Access-Control-Allow-Origin"), "*")
        self.assertEqual(r.getheader("Access-Control-Allow-Headers"),
                         "x-a, X-Requested-With")
        self.assertEqual(r.getheader("Access-Control-Allow-Methods"), "PUT")

    def test_files(self):
        def get(path, kind="http"):
            status, r, body = self.exchange(
                f"GET {path} HTTP/1.1\r\n\r\n".encode(), kind)
            self.assertEqual(r.getheader("connection"), "close")
            return status, r.getheader("content-type"), body

        self.assertEqual(get("/"), (200, "text/html", b"<p>hello"))
        self.assertEqual(get("/index.html?x=y", "https"),
                         (200, "text/html", b"<p>hello"))
        self.assertEqual(get("/sub/a.css"), (200, "text/css", b"a{}"))
        for path in ("/none", "/sub", "/../secret", "/%2e%2e/secret",
                     "/sub/..%2f..%2fsecret", "/sub/../../secret"):
            self.assertEqual(get(path)[0], 404, path)

    def test_absent_and_forbidden(self):
        for line, status, text in (
                ("GET /export?uuid=x", 501, b"get_export"),
                ("PUT /import", 501, b"put_import"),
                ("GET /rrd_updates?start=0", 501, b"rrd_updates"),
                ("CONNECT /remotecmd?cmd=x", 501, b"connect_remotecmd"),
                ("PUT /nothing", 403, b""), ("CONNECT /nothing", 403, b""),
                ("DELETE /", 501, b"Method not implemented"),
                ("PATCH /jsonrpc", 501, b"")):
            got, r, body = self.exchange(f"{line} HTTP/1.1\r\n"
                                         "content-length: 0\r\n\r\n".encode())
            self.assertEqual(got, status, line)
            self.assertIn(text, body)
            self.assertEqual(r.getheader("content-type"), "text/html")
            self.assertEqual(r.getheader("connection"), "close")
        got, r, body = self.exchange(b"HEAD / HTTP/1.1\r\n\r\n", method="HEAD")
        self.assertEqual((got, body), (501, b""))


class Connections(Shared):
    """Keep-alive, pipelining, pieces, TLS."""
    LABEL = request("VM.get_name_label", "s", "x")

    def test_keep_alive_rules(self):
        for version, header, keeps in (
                ("1.1", "", True), ("1.0", "", False),
                ("1.1", "Connection: CLOSE\r\n", False),
                ("1.0", "Connection: Keep-Alive\r\n", True)):
            with self.server.connect() as s:
                for _ in range(3 if keeps else 1):
                    s.sendall(post(self.LABEL, headers=header,
                                   version=version))
                    status, r, _ = read_reply(s)
                    self.assertEqual(status, 200)
                    self.assertEqual(r.getheader("connection"),
                                     "keep-alive" if keeps else "close")
                if not keeps:
                    self.assertTrue(is_closed(s))

    def test_pipelining(self):
        for kind in ("http", "https", "unix"):
            with self.server.connect(kind) as s:
                s.sendall(b"".join(
                    post(request("VM.get_name_label", "s", str(i), id=i))
                    for i in range(300)))
                for i in range(300):
                    status, _, body = read_reply(s)
                    reply = json.loads(body)
                    self.assertEqual((reply["result"], reply["id"]),
                                     (str(i), i))

    def test_pipelining_behind_a_waiting_call(self):
        with self.server.connect() as s:
            s.sendall(post(request("event.from", "s", [], "", 0.3))
                      + post(self.LABEL))
            self.assertIn("token", json.loads(read_reply(s)[2])["result"])
            self.assertEqual(json.loads(read_reply(s)[2])["result"], "x")

    def test_end_of_input_after_the_requests(self):
        """printf ... | nc: all are answered, then the connection ends."""
        with self.server.connect() as s:
            s.sendall(post(self.LABEL) * 3)
            s.shutdown(socket.SHUT_WR)
            for _ in range(3):
                self.assertEqual(json.loads(read_reply(s)[2])["result"], "x")
            self.assertTrue(is_closed(s))

    def test_byte_by_byte(self):
        for body, path in ((self.LABEL, "/jsonrpc"),
                           (xml_call("VM.get_name_label", "s", "x"), "/")):
            for kind in ("http", "https"):
                with self.server.connect(kind) as s:
                    if kind == "http":
                        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    for byte in post(body, path):
                        s.sendall(bytes([byte]))
                    status, _, reply = read_reply(s)
                    self.assertEqual(status, 200)
                    self.assertIn(b"x", reply)

    def test_many_at_once(self):
        socks = [self.server.connect() for _ in range(100)]
        for s in socks:
            s.sendall(post(self.LABEL))
        for s in socks:
            self.assertEqual(read_reply(s)[0], 200)
            s.close()

    def test_expect_continue(self):
        for kind in ("http", "https"):
            with self.server.connect(kind) as s:
                data = post(self.LABEL, headers="Expect: 100-continue\r\n")
                cut = data.index(b"\r\n\r\n") + 4
                s.sendall(data[:cut])
                want = b"HTTP/1.1 100 Continue\r\n\r\n"
                self.assertEqual(read_exactly(s, len(want)), want)
                s.sendall(data[cut:])
                self.assertEqual(read_reply(s)[0], 200)

    def test_tls_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with socket.create_connection(
                    ("127.0.0.1", self.server.https)) as raw:
                with tls_context(version).wrap_socket(raw) as s:
                    s.sendall(post(self.LABEL))
                    self.assertEqual(read_reply(s)[0], 200)
        ctx = tls_context()
        ctx.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            ctx.minimum_version = ctx.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", self.server.https)) as raw:
            with self.assertRaises((ssl.SSLError, OSError)):
                ctx.wrap_socket(raw)

    def test_tls_garbage(self):
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + b"x" * 512,
                     b"\0" * 100, b"\xff" * 70000):
            with socket.create_connection(
                    ("127.0.0.1", self.server.https)) as s:
                try:
                    s.sendall(data)
                    s.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
                s.settimeout(5)
                try:
                    while s.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
        self.alive()

    def test_certificate(self):
        out = subprocess.run(
            ["openssl", "x509", "-in", self.server.dir + "/cert.pem", "-text",
             "-noout"], capture_output=True, text=True).stdout
        self.assertIn("IP Address:127.0.0.1", out)
        self.assertIn("CN = 127.0.0.1", out)
        self.assertIn("prime256v1", out)
        mode = os.stat(self.server.dir + "/key.pem").st_mode & 0o777
        self.assertEqual(mode, 0o600)

    def test_client_gone(self):
        """The core learns that nobody waits any more, by RST and by FIN."""
        with self.server.connect() as s:
            s.sendall(post(request("event.from", "s", [], "", 60)))
            time.sleep(0.1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                         b"\1\0\0\0\0\0\0\0")
        self.assertEqual(self.server.child.stdout.readline(), b"gone\n")
        with self.server.connect("https") as s:
            s.sendall(post(request("event.from", "s", [], "", 60)))
            time.sleep(0.1)
        self.assertEqual(self.server.child.stdout.readline(), b"gone\n")
        self.alive()

    def test_stopped_reader(self):
        """One that asks and never reads takes nobody else's service."""
        for kind in ("http", "https"):
            with self.server.connect(kind) as s:
                s.settimeout(1)
                data = 100 * post(request("VM.get_all_records", "s"))
                sent = 0
                try:
                    for _ in range(5000):
                        sent += s.send(data)
                except (socket.timeout, ssl.SSLWantWriteError, TimeoutError):
                    pass
                # Its requests are not all read either.
                self.assertLess(sent, 5000 * len(data))
                for _ in range(20):
                    self.alive()


class Bad(Shared):
    """Malformed and oversize input."""

    def expect(self, data, status, text=b"", kind="http"):
        got, r, body = self.exchange(data, kind)
        self.assertEqual(got, status, (data[:80], body))
        self.assertIn(text, body)
        if status != 200:
            self.assertEqual(r.getheader("content-type"), "text/html")
            self.assertEqual(r.getheader("connection"), "close")
            self.assertEqual(r.getheader("cache-control"),
                             "no-cache, no-store")

    def test_heads(self):
        self.expect(b"hello\r\n\r\n", 400)
        self.expect(b"GET / HTTP/3.0\r\n\r\n", 400)
        self.expect(b"GET /%00 HTTP/1.1\r\n\r\n", 400)
        self.expect(b"GET / HTTP/1.1\r\nbad header\r\n\r\n", 400)
        self.expect(b"GET / HTTP/1.1\r\na: \0\r\n\r\n", 400)
        self.expect(b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400)
        self.expect(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n"
                    b"content-length: 2\r\n\r\n", 400)
        self.expect(b"POST / HTTP/1.1\r\n\r\n", 500, b"content-length")
        self.expect(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
                    b"1\r\nx\r\n0\r\n\r\n", 500, b"transfer encoding")
        self.expect(b"GET / HTTP/1.1\r\nx: " + b"y" * 16400 + b"\r\n\r\n", 431)
        self.expect(b"GET / HTTP/1.1\r\nx: " + b"y" * 70000, 431)
        self.expect(b"\x16\x03\x01" + b"\0" * 200 + b"\n\n", 400)
        self.alive()

    def test_body_over_the_limit(self):
        """Refused by the head alone, but a client that sends it all first
        still reads the answer."""
        big = 4 * 1024 * 1024 + 1
        head = f"POST / HTTP/1.1\r\ncontent-length: {big}\r\n\r\n".encode()
        self.expect(head, 500, b"4194304")
        self.expect(head + b"x" * big, 500, b"4194304")
        self.expect(head + b"x" * big, 500, b"4194304", "https")
        self.expect(b"POST / HTTP/1.1\r\ncontent-length: "
                    b"99999999999999999999\r\n\r\n", 500, b"limit")

    def test_body_at_the_limit(self):
        filler = "x" * (4 * 1024 * 1024 - len(request("VM.get_name_label", "s",
                                                      "")))
        for kind in ("http", "https"):
            reply = self.call("VM.get_name_label", "s", filler, kind=kind)
            self.assertEqual(reply["result"], filler)

    def test_xml(self):
        for body in ("", "x", "<a/>", "<methodCall>", "<methodCall/>",
                     xml_call("a", "<base64>aa</base64>")):
            self.expect(post(body, "/"), 500, b"Additional information")
        bomb = ("<?xml version='1.0'?><!DOCTYPE a [<!ENTITY a0 'ha'>" + "".join(
            f"<!ENTITY a{i + 1} '&a{i};&a{i};'>" for i in range(40))
            + "]><methodCall><methodName>&a40;</methodName></methodCall>")
        self.expect(post(bomb, "/"), 500, b"document type")
        external = ("<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>"
                    "<methodCall><methodName>&x;</methodName></methodCall>")
        self.expect(post(external, "/"), 500, b"document type")
        self.expect(post(xml_call("a", "&x;"), "/"), 500)
        deep = "<array><data><value>" * 33 + "</value></data></array>" * 33
        self.expect(post(xml_call("a", deep), "/"), 500, b"deeper")
        deep = "<array><data><value>" * 90000
        self.expect(post(xml_call("a", deep), "/"), 500)
        many = "<array><data>" + "<value/>" * 300000 + "</data></array>"
        self.expect(post(xml_call("a", many), "/"), 500, b"values")
        self.alive()

    def test_json(self):
        for body in ("", "x", "[]", "{}", "[" + request("a") + "]",
                     request("a") + "x", request("a", id=None),
                     '{"jsonrpc":"3.0","method":"a","params":[],"id":1}'):
            self.expect(post(body), 500, b"JSON")
        self.expect(post("[" * 100000), 500)
        self.expect(post('{"a":' * 100000), 500)
        self.expect(post(request("a", "s")[:-20] + "[" * 40000), 500)
        many = '{"id":1,"method":"a","params":[' + "[]," * 100000 + "0]}"
        self.expect(post(many), 500, b"too many")
        self.alive()

    def test_text(self):
        for body in (xml_call("VM.get_name_label", "s", "a&#xFFFE;"),
                     xml_call("VM.get_name_label", "s", "&#0;"),
                     b"<methodCall><methodName>a</methodName><params><param>"
                     b"<value>\xff</value></param></params></methodCall>"):
            status, _, reply = self.exchange(post(body, "/"))
            self.assertEqual(status, 200)
            self.assertIn(b"<value>Failure</value>", reply)
            self.assertIn(b"<value>INVALID_VALUE</value>"
                          b"<value>Invalid UTF-8 string in parameter</value>",
                          reply)
        self.alive()

    def test_leftovers_do_not_become_requests(self):
        """After a refused body nothing of it is taken for a request."""
        with self.server.connect() as s:
            s.sendall(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
                      + post(request("VM.get_name_label", "s", "x")))
            self.assertEqual(read_reply(s)[0], 500)
            self.assertTrue(is_closed(s))


class Limits(Shared):
    """Time and number."""
    options = dict(header_timeout=1, idle_timeout=2, write_timeout=1,
                   max_connections=20, max_header=1024, threads=1)

    def test_slow_head(self):
        start = time.monotonic()
        with self.server.connect() as s:
            s.sendall(b"POST / HT")
            self.assertEqual(read_reply(s)[0], 408)
            self.assertTrue(is_closed(s))
        # Bytes that trickle in do not prolong it.
        with self.server.connect() as s:
            s.settimeout(0.2)
            for _ in range(30):
                try:
                    s.sendall(b"a")
                    if s.recv(1000):
                        break
                except socket.timeout:
                    continue
                except OSError:
                    break
            else:
                self.fail("a head may take for ever")
        self.assertLess(time.monotonic() - start, 8)

    def test_slow_body(self):
        with self.server.connect() as s:
            s.sendall(b"POST / HTTP/1.1\r\ncontent-length: 9\r\n\r\nx")
            self.assertEqual(read_reply(s)[0], 408)

    def test_silent(self):
        with self.server.connect() as s:
            self.assertTrue(is_closed(s))
        raw = socket.create_connection(("127.0.0.1", self.server.https))
        with raw:
            self.assertTrue(is_closed(raw))

    def test_idle_and_second_head(self):
        label = request("VM.get_name_label", "s", "x")
        with self.server.connect() as s:
            s.sendall(post(label))
            read_reply(s)
            time.sleep(1.5)  # longer than a head may take
            s.sendall(post(label))
            self.assertEqual(read_reply(s)[0], 200)
            start = time.monotonic()
            self.assertTrue(is_closed(s))
            self.assertGreater(time.monotonic() - start, 1.4)
        with self.server.connect() as s:
            s.sendall(post(label))
            read_reply(s)
            s.sendall(b"POST")
            self.assertEqual(read_reply(s)[0], 408)

    def test_waiting_call_is_not_idle(self):
        reply = self.call("event.from", "s", [], "", 3.2)
        self.assertIn("token", reply["result"])

    def test_stopped_reader_is_dropped(self):
        for kind in ("http", "https"):
            with self.server.connect(kind) as s:
                s.sendall(post(request("VM.get_all_records", "s")))
                time.sleep(3)
                data = b""
                s.settimeout(5)
                try:
                    while True:
                        piece = s.recv(1 << 20)
                        if not piece:
                            break
                        data += piece
                except OSError:
                    pass
                self.assertLess(len(data), 12_000_000)
                self.assertNotIn(b'"id":1}', data[-20:])

    def test_slow_reader_is_served(self):
        with self.server.connect() as s:
            s.sendall(post(request("VM.get_all_records", "s")))
            size, pause = 0, 0
            while not size or not data.endswith(b'"id":1}'):
                data = s.recv(1 << 20)
                if not data:
                    self.fail(f"cut after {size}")
                size += len(data)
                if pause < 8:
                    time.sleep(0.3)
                    pause += 1

    def test_header_limit(self):
        status, _, _ = self.exchange(b"GET / HTTP/1.1\r\nx: " + b"y" * 1024
                                     + b"\r\n\r\n")
        self.assertEqual(status, 431)

    def test_too_many_connections(self):
        label = post(request("VM.get_name_label", "s", "x"))
        deadline = time.monotonic() + 5
        socks = []
        while time.monotonic() < deadline:
            # Earlier tests' connections may linger.
            socks = [self.server.connect() for _ in range(20)]
            socks[-1].sendall(label)
            if read_reply(socks[-1])[0] == 200:
                break
            for s in socks:
                s.close()
            time.sleep(0.3)
        with self.server.connect() as s:
            s.sendall(label)
            status, r, _ = read_reply(s)
            self.assertEqual(status, 503)
            self.assertEqual(r.getheader("connection"), "close")
            self.assertTrue(is_closed(s))
        # The Unix socket has a number of its own.
        with self.server.connect("unix") as s:
            s.sendall(label)
            self.assertEqual(read_reply(s)[0], 200)
        for s in socks:
            s.close()
        time.sleep(0.2)
        self.alive()


class Processes(unittest.TestCase):
    """Start, stop and the client."""

    def run_client(self, *args):
        out = subprocess.run([PROGRAM, *args], capture_output=True, text=True,
                             timeout=20)
        error, peer, text = out.stdout.rstrip("\n").split(" ", 2)
        return int(error), peer, json.loads(text)

    def test_client(self):
        server = Server()
        at = f"call=127.0.0.1:{server.https}"
        try:
            code, peer, value = self.run_client(
                at, "method=VM.get_name_label", "arg=s", "arg=ü\"")
            self.assertEqual((code, value), (0, 'ü"'))
            der = ssl.PEM_cert_to_DER_cert(
                pathlib.Path(server.dir, "cert.pem").read_text())
            self.assertEqual(peer, hashlib.sha256(der).hexdigest())
            code, _, value = self.run_client(
                "call=127.0.0.1", f"port={server.https}", "method=host.get_record",
                "arg=s", "arg=x", f"fingerprint={peer}")
            self.assertEqual((code, value["enabled"]), (0, False))
            code, _, value = self.run_client(at, "method=VM.dance", "arg=bad")
            self.assertEqual((code, value), (-121, ["SESSION_INVALID", "bad"]))
            code, _, value = self.run_client(at, "method=VM.get_all_records",
                                             "arg=s")
            self.assertEqual((code, len(value)), (0, 4000))
            code, _, value = self.run_client(
                at, "method=VM.get_name_label", "arg=s", "arg=x",
                "fingerprint=" + "0" * 64)
            self.assertEqual((code, value), (-129, None))  # EKEYREJECTED
            code, _, _ = self.run_client(
                f"call=127.0.0.1:{server.http}", "method=VM.get_all", "timeout=500")
            self.assertLess(code, 0)
            for bad in ("call=", "call=:1", "call=a:b", "call=[::1", "call=x:"):
                self.assertEqual(self.run_client(bad, "method=x")[0], -22)
        finally:
            server.stop()
        code, _, _ = self.run_client(at, "method=x")
        self.assertEqual(code, -111)

    def test_client_against_strange_servers(self):
        """Replies that a server should not give, without TLS first."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            # Silence: the timeout, not for ever.
            start = time.monotonic()
            code, _, _ = self.run_client(f"call=127.0.0.1:{port}", "method=x",
                                         "timeout=500")
            self.assertEqual(code, -110)
            self.assertLess(time.monotonic() - start, 5)
        server = Server()
        try:
            ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ctx.load_cert_chain(server.dir + "/cert.pem",
                                server.dir + "/key.pem")
        finally:
            server.stop()
        good = b'{"jsonrpc":"2.0","result":5,"id":0}'
        for reply, code in (
                (b"HTTP/1.1 200 OK\r\ncontent-length: 35\r\n\r\n" + good, 0),
                (b"HTTP/1.1 200 OK\r\n\r\n" + good, 0),
                (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n" + good, -104),
                (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", -71),
                (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", -90),
                (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", -74),
                (b"x" * 20000, -74), (b"", -104)):
            self.serve_once(ctx, reply, code)

    def serve_once(self, ctx, reply, want):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            def serve():
                s, _ = listener.accept()
                try:
                    with ctx.wrap_socket(s, server_side=True) as t:
                        t.recv(4096)
                        t.sendall(reply)
                        t.unwrap()
                except OSError:
                    pass

            thread = threading.Thread(target=serve)
            thread.start()
            port = listener.getsockname()[1]
            code, _, value = self.run_client(f"call=127.0.0.1:{port}",
                                             "method=x")
            thread.join()
            self.assertEqual(code, want, reply[:80])
            if want == 0:
                self.assertEqual(value, 5)

    def test_stop_with_calls_under_way(self):
        server = Server()
        waiting = server.connect()
        waiting.sendall(post(request("event.from", "s", [], "", 1.5)))
        idle = server.connect("https")
        reader = server.connect("unix")
        reader.sendall(post(request("VM.get_all_records", "s")))
        time.sleep(0.3)
        start = time.monotonic()
        server.stop()  # asserts a clean end
        self.assertLess(time.monotonic() - start, 6)
        for s in (waiting, idle):
            self.assertTrue(is_closed(s))
            s.close()
        reader.close()

    def test_status(self):
        """Counters, and that no connection is forgotten or counted twice."""
        server = Server()
        socks = [server.connect(kind) for kind in ("http", "https", "unix")]
        for s in socks:
            s.sendall(post(request("VM.get_name_label", "s", "x")))
            read_reply(s)
            s.sendall(post("x"))
            self.assertEqual(read_reply(s)[0], 500)
        with server.connect() as s:
            s.sendall(b"GET /none HTTP/1.1\r\n\r\n")
            self.assertEqual(read_reply(s)[0], 404)
        server.stop()
        self.assertEqual(server.out, "status 0 7 1 3\n")
        for s in socks:
            s.close()

    def test_certificate_is_kept(self):
        folder = tempfile.mkdtemp()
        files = dict(cert=folder + "/c.pem", key=folder + "/k.pem")

        def fingerprint():
            server = Server(**files)
            try:
                return self.run_client(f"call=127.0.0.1:{server.https}",
                                       "method=VM.get_all", "arg=s")[1]
            finally:
                server.stop()

        first = fingerprint()
        self.assertEqual(len(first), 64)
        self.assertEqual(fingerprint(), first)
        # Half a pair is made anew, and what an earlier try left is no harm.
        os.unlink(files["cert"])
        pathlib.Path(files["cert"] + ".new").write_text("x")
        second = fingerprint()
        self.assertEqual(len(second), 64)
        self.assertNotEqual(second, first)
        pathlib.Path(files["key"]).write_text("x")
        with self.assertRaisesRegex(RuntimeError, "private key"):
            Server(**files)
        shutil.rmtree(folder)

    def test_port_taken(self):
        server = Server()
        try:
            with self.assertRaisesRegex(RuntimeError, str(server.http)):
                Server(http=server.http)
            with self.assertRaisesRegex(RuntimeError, "listening on"):
                Server(unix=server.unix)
            # The first one still has its socket.
            with server.connect("unix") as s:
                s.sendall(post(request("VM.get_name_label", "s", "x")))
                self.assertEqual(read_reply(s)[0], 200)
        finally:
            server.stop()

    def test_stale_socket_is_replaced(self):
        folder = tempfile.mkdtemp()
        path = folder + "/s"
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path)
        server = Server(unix=path)
        server.stop()
        self.assertFalse(os.path.exists(path))
        shutil.rmtree(folder)

    def test_ipv6(self):
        try:
            server = Server(address="::1")
        except RuntimeError as e:
            if "Cannot assign" in str(e) or "not supported" in str(e):
                self.skipTest("no IPv6 here")
            raise
        try:
            with socket.create_connection(("::1", server.http)) as s:
                s.sendall(post(request("session.get_this_host", "s", "s")))
                self.assertIn(b'"::1||0|0|0"', read_reply(s)[2])
        finally:
            server.stop()


if __name__ == "__main__":
    unittest.main()
