"""XenAPI.py as Debian's fence-agents ship it, against every member."""
import importlib.util
import os
import pathlib
import sys
import unittest
import xmlrpc.client

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import NULL, TOP, PoolCase, say, tls_context, wait_for  # noqa: E402

SOURCE = "/usr/share/fence/XenAPI.py"


def load():
    spec = importlib.util.spec_from_file_location("XenAPI", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def removed():
    """Names of the messages that are answered with MESSAGE_REMOVED."""
    rows = [line.split("\t") for line in
            (TOP / "tests/schema/methods.tsv").read_text().splitlines()]
    return {row[0] for row in rows if "removed" in (row[3].split(",") + [row[5]])}


def facts():
    """{class: {field: (type, qualifier)}} of the public API."""
    classes = {}
    for line in (TOP / "tests/schema/fields.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, _, kind, qualifier, _, flags = line.split("\t")[:6]
        cls, field = name.split(".", 1)
        if "internal" not in flags.split(","):
            classes.setdefault(cls, {})[field] = (kind, qualifier)
    return classes


@unittest.skipUnless(os.path.exists(SOURCE),
                     "XenAPI.py is not installed (Debian: fence-agents)")
class XenApiPy(PoolCase):
    @classmethod
    def setUpClass(cls):
        cls.api = load()
        cls.removed = removed()
        super().setUpClass()

    def session(self, m, tls=False):
        if tls:
            transport = xmlrpc.client.SafeTransport(context=tls_context())
            s = self.api.Session(f"https://{m.address}:{self.pool.https_port}",
                                 transport=transport)
        else:
            s = self.api.Session(f"http://{m.address}:{self.pool.http_port}/")
        s.xenapi.login_with_password("root", self.pool.password)
        self.addCleanup(self.close, s)
        return s

    def close(self, s):
        try:
            s.xenapi.session.logout()
        except self.api.Failure:
            pass
        except xmlrpc.client.Fault:
            pass
        s("close")()

    def call(self, s, name, *args):
        f = s.xenapi
        for part in name.split("."):
            f = getattr(f, part)
        return f(*args)

    def template(self, x):
        return next(r for r, v in x.VM.get_all_records().items()
                    if v["is_default_template"])

    def details(self, f, *args):
        with self.assertRaises(self.api.Failure) as caught:
            f(*args)
        return caught.exception.details

    # ---- tests ----

    def test_1_every_class(self):
        fields = facts()
        methods = None
        for m in self.pool.members:
            for tls in (False, True):
                s = self.session(m, tls)
                listed = s.system.listMethods()
                self.assertIsInstance(listed, list)
                methods = methods or listed
                self.assertEqual(sorted(listed), sorted(methods))
                classes = [x[:-len(".get_all_records")] for x in listed
                           if x.endswith(".get_all_records")]
                self.assertGreater(len(classes), 50)
                for cls in classes:
                    self.one_class(s, cls, fields.get(cls, {}), full=not tls)
        say(f"{len(methods)} methods, {len(classes)} classes")

    def one_class(self, s, cls, fields, full):
        try:
            records = self.call(s, f"{cls}.get_all_records")
        except self.api.Failure as e:
            self.assertEqual(e.details[0], "MESSAGE_REMOVED", cls)
            return
        if cls not in ("message", "session", "task"):
            self.assertEqual(set(self.call(s, f"{cls}.get_all")), set(records), cls)
        for ref, record in list(records.items())[:2]:
            self.assertEqual(set(record) ^ set(fields), set(), cls)
            if not full:
                continue
            again = self.call(s, f"{cls}.get_record", ref)
            self.assertEqual(again.keys(), record.keys(), cls)
            if "uuid" in record and record["uuid"]:
                self.assertEqual(self.call(s, f"{cls}.get_by_uuid", record["uuid"]), ref)
            for field in sorted(record)[:8]:
                if f"{cls}.get_{field}" in self.removed:
                    self.assertEqual(self.details(self.call, s, f"{cls}.get_{field}", ref),
                                     ["MESSAGE_REMOVED"])
                    continue
                value = self.call(s, f"{cls}.get_{field}", ref)
                self.assertIs(type(value), type(record[field]), f"{cls}.{field}")

    def test_2_types_on_the_wire(self):
        s = self.session(self.pool.members[1])
        _, vm = next(iter(s.xenapi.VM.get_all_records().items()))
        self.assertIsInstance(vm["memory_static_max"], str)  # ints arrive as text
        int(vm["memory_static_max"])
        self.assertIsInstance(vm["is_a_template"], bool)
        self.assertIsInstance(vm["HVM_shadow_multiplier"], float)
        self.assertIsInstance(vm["snapshot_time"], xmlrpc.client.DateTime)
        self.assertRegex(vm["snapshot_time"].value, r"^\d{8}T\d\d:\d\d:\d\dZ$")
        self.assertIsInstance(vm["VBDs"], list)
        self.assertIsInstance(vm["other_config"], dict)

    def test_3_setters(self):
        for m in self.pool.members:
            s = self.session(m)
            x = s.xenapi
            vm = x.VM.clone(self.template(x), "xenapi.py")
            for field, value in (("name_label", "neuer Näme <&>"), ("name_description", ""),
                                 ("user_version", "7"), ("is_a_template", False),
                                 ("tags", ["b", "a"]), ("affinity", x.host.get_all()[0]),
                                 ("other_config", {"k": "v", "": "empty key"}),
                                 ("actions_after_shutdown", "restart"),
                                 ("PV_args", "console=hvc0 'quoted' \"too\""),
                                 ("HVM_boot_params", {"order": "dcn"}),
                                 ("xenstore_data", {"vm-data/x": "1"}),
                                 ("order", "3"), ("start_delay", "0")):
                self.call(s, f"VM.set_{field}", vm, value)
                got = self.call(s, f"VM.get_{field}", vm)
                self.assertEqual(sorted(got) if isinstance(got, list) else got,
                                 sorted(value) if isinstance(value, list) else value, field)
            x.VM.add_to_other_config(vm, "second", "2")
            self.assertEqual(self.details(x.VM.add_to_other_config, vm, "second", "3"),
                             ["MAP_DUPLICATE_KEY", "VM", "other_config", vm, "second"])
            x.VM.remove_from_other_config(vm, "second")
            x.VM.remove_from_other_config(vm, "second")
            x.VM.add_tags(vm, "c")
            x.VM.add_tags(vm, "c")
            x.VM.remove_tags(vm, "b")
            self.assertEqual(sorted(x.VM.get_tags(vm)), ["a", "c"])
            x.VM.destroy(vm)

    def test_4_errors(self):
        s = self.session(self.pool.members[2])
        x = s.xenapi
        self.assertEqual(self.details(x.VM.get_record, NULL), ["HANDLE_INVALID", "VM", NULL])
        self.assertEqual(self.details(x.VM.get_by_uuid, "u"), ["UUID_INVALID", "VM", "u"])
        self.assertEqual(self.details(x.VM.fly), ["MESSAGE_METHOD_UNKNOWN", "VM.fly"])
        self.assertEqual(self.details(x.VM.pause)[:2],
                         ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.pause"])
        self.assertEqual(x.VM.get_by_name_label("nothing is called so"), [])
        wrong = self.api.Session(f"http://{self.pool.members[2].address}:{self.pool.http_port}/")
        self.assertEqual(self.details(wrong.xenapi.login_with_password, "root", "no")[:2],
                         ["SESSION_AUTHENTICATION_FAILED", "root"])
        wrong("close")()

    def test_5_session_renewal(self):
        for m in self.pool.members:
            s = self.session(m)
            old = s._session
            s.session.logout(old)
            self.assertEqual(len(s.xenapi.host.get_all()), 3)
            self.assertNotEqual(s._session, old)

    def test_6_tasks(self):
        s = self.session(self.pool.members[0])
        x = s.xenapi
        task = x.Async.VM.clone(self.template(x), "async")
        wait_for(lambda: x.task.get_status(task) == "success", 10, "the task ends")
        result = x.task.get_result(task)
        self.assertRegex(result, r"^<value>OpaqueRef:[-0-9a-f]{36}</value>$")
        x.task.destroy(task)
        x.VM.destroy(result[7:-8])

    def test_7_the_unix_socket(self):
        """As root of the host: no password is asked there."""
        import http.client
        import socket
        path = str(self.pool.members[0].dir / "data" / "xapi")

        class Connection(http.client.HTTPConnection):
            def connect(self):
                self.sock = socket.socket(socket.AF_UNIX)
                self.sock.connect(path)

        class Transport(xmlrpc.client.Transport):
            def make_connection(self, host):
                if not self._connection[1]:
                    self._connection = host, Connection("localhost")
                return self._connection[1]
        s = self.api.Session("http://localhost/", transport=Transport())
        s.xenapi.login_with_password("root", "")
        self.assertEqual(len(s.xenapi.host.get_all()), 3)
        s.xenapi.session.logout()
        s("close")()


if __name__ == "__main__":
    unittest.main(verbosity=2)
