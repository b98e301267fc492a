"""What people type first: Python's xmlrpc.client, and curl."""
import json
import pathlib
import shutil
import subprocess
import sys
import unittest
import xmlrpc.client

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import PoolCase, tls_context  # noqa: E402


class Stdlib(PoolCase):
    def value(self, answer):
        self.assertEqual(answer["Status"], "Success", answer)
        return answer["Value"]

    def test_1_server_proxy(self):
        for m in self.pool.members:
            for url, options in (
                    (f"http://{m.address}:{self.pool.http_port}", {}),
                    (f"http://{m.address}:{self.pool.http_port}/any/path", {}),
                    (f"https://{m.address}:{self.pool.https_port}/",
                     {"context": tls_context()})):
                with xmlrpc.client.ServerProxy(url, use_builtin_types=True,
                                               **options) as x:
                    s = self.value(x.session.login_with_password("root", self.pool.password))
                    self.assertEqual(len(self.value(x.host.get_all(s))), 3)
                    self.assertEqual(x.system.isAlive("x")["Status"], "Failure")
                    self.assertEqual(getattr(x, "system.isAlive:y")("there?")["Value"],
                                     "there?")
                    answer = x.VM.get_record(s, "OpaqueRef:NULL")
                    self.assertEqual(answer, {"Status": "Failure", "ErrorDescription":
                                              ["HANDLE_INVALID", "VM", "OpaqueRef:NULL"]})
                    # the old spelling with an underscore
                    self.assertEqual(getattr(x, "host_get_all")(s)["Status"], "Success")
                    self.value(x.session.logout(s))

    def curl(self, *args):
        done = subprocess.run(["curl", "-sS", "--max-time", "20", *args],
                              capture_output=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_2_curl(self):
        for m in self.pool.members:
            url = f"https://{m.address}:{self.pool.https_port}/jsonrpc"

            def call(method, *params, **extra):
                body = json.dumps({"jsonrpc": "2.0", "id": "a", "method": method,
                                   "params": params})
                return json.loads(self.curl("-k", "-d", body, url))
            s = call("session.login_with_password", "root", self.pool.password)["result"]
            self.assertEqual(len(call("host.get_all", s)["result"]), 3)
            self.assertEqual(call("VM.get_record", s, "x"),
                             {"jsonrpc": "2.0", "id": "a",
                              "error": {"code": 1, "message": "HANDLE_INVALID",
                                        "data": ["VM", "x"]}})
            v1 = json.dumps({"id": 5, "method": "pool.get_all", "params": [s]})
            answer = json.loads(self.curl("-k", "-d", v1, url))
            self.assertEqual((answer["error"], answer["id"], len(answer["result"])),
                             (None, 5, 1))
            head = self.curl("-k", "-D", "-", "-o", "/dev/null", "-d", v1, url).decode()
            self.assertIn("content-type: application/json\r\n", head.lower())
            self.assertTrue(head.startswith("HTTP/1.1 200 OK\r\n"), head)
            self.assertNotIn("transfer-encoding", head.lower())

    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_3_curl_xml(self):
        m = self.pool.members[1]
        url = f"http://{m.address}:{self.pool.http_port}/"
        body = xmlrpc.client.dumps(("root", self.pool.password),
                                   "session.login_with_password")
        answer = self.curl("-H", "Content-Type: text/xml", "-d", body, url)
        self.assertNotIn(b">\n<", answer)
        self.assertNotIn(b"> <", answer)
        (value,), _ = xmlrpc.client.loads(answer)
        self.assertEqual(value["Status"], "Success")
        head = self.curl("-D", "-", "-o", "/dev/null", "-d", body, url).decode()
        self.assertIn("content-type: text/xml\r\n", head.lower())
        socket = m.dir / "data" / "xapi"
        answer = self.curl("--unix-socket", str(socket), "-d", body, "http://localhost/")
        self.assertIn(b"Success", answer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
