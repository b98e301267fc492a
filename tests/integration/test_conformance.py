"""Calls and their exact answers: what a client may rely on, line by line. Each
table is tried on another member of a running pool."""
import csv
import threading
import time
import unittest

from harness import (ApiError, NULL, PoolCase, TOP, new_vm, post, post_json,
                     send_raw, template, wait_for)

GIB = 1 << 30
GONE = "OpaqueRef:11111111-2222-3333-4444-555555555555"
ANY = object()  # a parameter whose text is ours to choose


def http(method, path, body=b"", head="", version="1.1", length=True):
    lines = f"{method} {path} HTTP/{version}\r\nHost: x\r\n"
    if length:
        lines += f"Content-Length: {len(body)}\r\n"
    return (lines + head + "\r\n").encode() + body


class Conformance(PoolCase):
    turn = 0

    def setUp(self):
        type(self).turn += 1
        self.member = self.pool.members[self.turn % len(self.pool.members)]
        self.c = self.member.client()
        self.addCleanup(self.c.close)

    def check(self, table):
        """[(method, parameters, wanted)]: wanted is the result, or an error's
        [code, parameters...], or ANY for whatever result."""
        for method, params, wanted in table:
            with self.subTest(call=method, params=str(params)[:150]):
                try:
                    got = self.c.call(method, *params)
                except ApiError as e:
                    got = [w if w is ANY else g for g, w in
                           zip(e.details, wanted)] if (
                        isinstance(wanted, list) and
                        len(wanted) == len(e.details)) else e.details
                    if wanted is ANY:
                        self.fail(f"{method}: {e.details}")
                if wanted is not ANY:
                    self.assertEqual(got, wanted)

    def raw(self, data):
        return send_raw(self.member.address, self.pool.http_port, data)

    # ---- bytes ----

    def test_01_http(self):
        alive = (b'<?xml version="1.0"?><methodCall><methodName>system.isAlive:1'
                 b"</methodName><params><param><value>a</value></param></params>"
                 b"</methodCall>")
        v2 = b'{"jsonrpc":"2.0","method":"system.isAlive:1","params":["a"],"id":%s}'
        for data, status in (
                *((http(m, "/"), 501) for m in ("HEAD", "DELETE", "PATCH", "BREW")),
                (http("GET", "/no/such"), 404), (http("GET", "/../etc/passwd"), 404),
                (http("PUT", "/no/such"), 403), (http("CONNECT", "/no/such"), 403),
                (http("OPTIONS", "/"), 200), (http("OPTIONS", "/jsonrpc"), 200),
                *((http("POST", p, alive), 200) for p in
                  ("/", "/RPC2", "/any/path", "/json", "/RPC2?a=b", "/%52PC2")),
                (http("POST", "/", length=False), 500),
                (http("POST", "/", b"0\r\n\r\n", "Transfer-Encoding: chunked\r\n",
                      length=False), 500),
                (http("POST", "/", b"<a>"), 500), (http("POST", "/"), 500),
                (http("POST", "/jsonrpc", v2 % b'"x"'), 200),
                *((http("POST", "/jsonrpc", v2 % i), 500) for i in
                  (b"null", b"1.5", b"[]", b"true")),
                *((http("POST", "/jsonrpc", b), 500) for b in (
                    b"", b"[]", b"{", b"[" + v2 % b"1" + b"]",
                    v2.replace(b"2.0", b"3.0") % b"1",
                    b'{"jsonrpc":"2.0","method":"system.listMethods"}',
                    b'{"method":"system.listMethods","id":1}')),
                (b"GET / HTTP/1.1\r\nX: " + b"a" * 100000 + b"\r\n\r\n", 431)):
            answer = self.raw(data)
            self.assertTrue(answer.startswith(b"HTTP/1.1 %d " % status),
                            (data[:80], answer[:80]))
            if status not in (200,):
                self.assertIn(b"\r\ncontent-type: text/html\r\n", answer)
                self.assertIn(b"\r\nconnection: close\r\n", answer)
                self.assertIn(b"\r\ncache-control: no-cache, no-store\r\n", answer)

    def test_02_heads(self):
        body = b'{"jsonrpc":"2.0","method":"system.isAlive:1","params":["a"],"id":7}'
        wanted = (b"HTTP/1.%d 200 OK\r\ncontent-length: 39\r\nconnection: %s\r\n"
                  b"cache-control: no-cache, no-store\r\n"
                  b"content-type: application/json\r\n"
                  b"Access-Control-Allow-Origin: *\r\n"
                  b"Access-Control-Allow-Headers: X-Requested-With\r\n\r\n"
                  b'{"jsonrpc":"2.0","result":"a","id":7}')
        wanted = wanted.replace(b"39", b"%d" % len(wanted.split(b"\r\n\r\n")[1]))
        keep, close = b"keep-alive", b"close"
        for version, head, minor, how in (
                ("1.1", "", 1, keep), ("1.0", "", 0, close),
                ("1.1", "Connection: CLOSE\r\n", 1, close),
                ("1.0", "connection: Keep-Alive\r\n", 0, keep)):
            self.assertEqual(self.raw(http("POST", "/jsonrpc", body, head, version)),
                             wanted % (minor, how))
        twice = self.raw(http("POST", "/jsonrpc", body) * 2)
        self.assertEqual(twice, wanted % (1, keep) * 2)
        answer = self.raw(http("OPTIONS", "/json", head=(
            "Access-Control-Request-Headers: X-One\r\n")))
        for line in (b"Access-Control-Allow-Origin: *",
                     b"Access-Control-Allow-Headers: X-One, X-Requested-With",
                     b"Access-Control-Allow-Methods: PUT"):
            self.assertIn(b"\r\n" + line + b"\r\n", answer)

    def test_03_xml_values(self):
        def call(method, *values):
            body = ("<?xml version='1.0'?> <methodCall> <methodName>" + method +
                    "</methodName> <params>" + "".join(
                        f" <param>\n<value>{v}</value></param>" for v in values) +
                    "</params></methodCall>\n").encode()
            status, head, answer = post(self.member.address, self.pool.http_port, "/",
                                        body)
            self.assertEqual((status, head["content-type"]), (200, "text/xml"))
            return answer.decode()

        def value(text):
            return ('<?xml version="1.0"?><methodResponse><params><param><value><struct>'
                    "<member><name>Status</name><value>Success</value></member>"
                    f"<member><name>Value</name>{text}</member></struct></value>"
                    "</param></params></methodResponse>")

        def failure(*texts):
            return ('<?xml version="1.0"?><methodResponse><params><param><value><struct>'
                    "<member><name>Status</name><value>Failure</value></member><member>"
                    "<name>ErrorDescription</name><value><array><data>" + "".join(
                        f"<value>{t}</value>" for t in texts) +
                    "</data></array></value></member></struct></value></param></params>"
                    "</methodResponse>")
        s, vm = self.c.session, new_vm(self.c, "<a & \"b\">")
        self.addCleanup(self.c.VM.destroy, vm)
        text = "<string>%s</string>"
        self.assertEqual(call("VM.get_name_label", s, text % vm),
                         value("<value>&lt;a &amp; &quot;b&quot;&gt;</value>"))
        for n in ("3", "<string>3</string>", "<int>3</int>", "<i4>3</i4>", "<i8>3</i8>"):
            self.assertEqual(call("VM.set_user_version", s, vm, n),
                             value("<value></value>"))
            self.assertEqual(call("VM.get_user_version", s, vm),
                             value("<value>3</value>"))
        for v, shown in (("<boolean>1</boolean>", 1), ("<boolean>0</boolean>", 0)):
            call("VM.set_has_vendor_device", s, vm, v)
            self.assertEqual(call("VM.get_has_vendor_device", s, vm),
                             value(f"<value><boolean>{shown}</boolean></value>"))
        self.assertEqual(call("VM.get_snapshot_time", s, vm), value(
            "<value><dateTime.iso8601>19700101T00:00:00Z</dateTime.iso8601></value>"))
        for v in ("<double>1.5</double>", "1.5"):
            call("VM.set_HVM_shadow_multiplier", s, vm, v)
            self.assertEqual(call("VM.get_HVM_shadow_multiplier", s, vm),
                             value("<value><double>1.5</double></value>"))
        call("VM.set_tags", s, vm, "<array> <data> <value>a</value>\n"
             "<value><string>b</string></value></data></array>")
        self.assertEqual(call("VM.get_tags", s, vm), value(
            "<value><array><data><value>a</value><value>b</value></data></array></value>"))
        call("VM.set_xenstore_data", s, vm, "<struct><member> <name>vm-data/k</name>"
             "<value/></member></struct>")
        self.assertEqual(call("VM.get_xenstore_data", s, vm), value(
            "<value><struct><member><name>vm-data/k</name><value></value></member>"
            "</struct></value>"))
        self.assertEqual(call("VM.get_record", s, GONE),
                         failure("HANDLE_INVALID", "VM", GONE))
        self.assertEqual(call("no.such"), failure("MESSAGE_METHOD_UNKNOWN", "no.such"))
        self.assertEqual(call("system.isAlive:x", "<i4>5</i4>"),
                         value("<value>5</value>"))

    def test_04_json_values(self):
        def ask(**request):
            status, answer = post_json(self.member.address, self.pool.http_port, request)
            self.assertEqual(status, 200, answer)
            return answer
        s = self.c.session
        pool = self.c.pool.get_all()[0]
        unknown = ["MESSAGE_METHOD_UNKNOWN", "no.such"]
        self.assertEqual(ask(method="no.such", params=[], id="x"),
                         {"result": None, "error": unknown, "id": "x"})
        self.assertEqual(ask(jsonrpc="2.0", method="no.such", id=2 ** 53 + 1),
                         {"jsonrpc": "2.0", "id": 2 ** 53 + 1, "error": {
                             "code": 1, "message": unknown[0], "data": unknown[1:]}})
        for params in (None, []):
            self.assertIn("result", ask(jsonrpc="2.0", method="system.listMethods",
                                        params=params, id=1))
        self.assertEqual(ask(jsonrpc="2.0", method="system.isAlive:1", params={"a": 1},
                             id=1)["result"], {"a": 1})
        record = ask(method="pool.get_record", params=[s, pool], id=1)["result"]
        self.assertIs(record["ha_enabled"], False)
        self.assertEqual(record["ha_host_failures_to_tolerate"], 0)
        self.assertEqual(record["other_config"], {})
        metrics = self.c.VM_metrics.get_all_records()
        self.assertIn("00:00:00Z", next(iter(metrics.values()))["install_time"])
        big = 2 ** 62 + 1
        vm = self.c.VM.create({"name_label": "big", "user_version": str(big)})
        self.addCleanup(self.c.VM.destroy, vm)
        self.assertEqual(self.c.VM.get_user_version(vm), big)
        self.assertIs(type(self.c.VM.get_HVM_shadow_multiplier(vm)), float)

    def test_05_dispatch(self):
        c, s = self.c, self.c.session
        vm = new_vm(c, "dispatch")
        self.addCleanup(c.VM.destroy, vm)
        self.check([
            ("no.such", [], ["MESSAGE_METHOD_UNKNOWN", "no.such"]),
            ("no.such", ["a", 1], ["MESSAGE_METHOD_UNKNOWN", "no.such"]),
            ("VM_get_name_label", [vm], "dispatch"),
            ("Async.VM_start", [vm, False, False], ["MESSAGE_METHOD_UNKNOWN", "VM_start"]),
            ("VM.start", [], ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "0"]),
            ("VM.start", [vm], ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.start", "3", "1"]),
            ("VM.get_all", [1], ["MESSAGE_PARAMETER_COUNT_MISMATCH", "VM.get_all", "0",
                                 "1"]),
            ("host.disable", [GONE, True, "surplus"], ["HANDLE_INVALID", "host", GONE]),
            ("VMPP.get_all", [], ["MESSAGE_REMOVED"]),
            ("VM.set_protection_policy", [vm, NULL], ["MESSAGE_REMOVED"]),
            ("Async.VM.get_all", [], ["Fault", "No async mode for this operation "
                                      "(rpc: VM.get_all)"]),
            ("VM.set_name_label", [vm, 3], ["INTERNAL_ERROR", ANY]),
            ("VM.set_has_vendor_device", [vm, "true"], ["INTERNAL_ERROR", ANY]),
            ("VM.set_domain_type", [vm, "arm"], ["INVALID_VALUE", "value", "arm"]),
            ("VM.get_record", ["nonsense"], ["HANDLE_INVALID", "VM", "nonsense"]),
            ("VM.get_record", [c.pool.get_all()[0]],
             ["HANDLE_INVALID", "VM", c.pool.get_all()[0]]),
            ("VM.get_by_uuid", [c.pool.get_all_records().popitem()[1]["uuid"]],
             ["UUID_INVALID", "VM", ANY]),
            ("VM.get_by_name_label", ["no such name"], []),
            ("VM.add_to_other_config", [vm, "mac_seed", "x"],
             ["MAP_DUPLICATE_KEY", "VM", "other_config", vm, "mac_seed"]),
            ("VM.add_to_VCPUs_params", [vm, "weight", "1"], ""),
            ("VM.add_to_VCPUs_params", [vm, "weight", "1"],
             ["MAP_DUPLICATE_KEY", "VM", "VCPUs__params", vm, "weight"]),
            ("VM.remove_from_VCPUs_params", [vm, "no such key"], ""),
            ("VM.add_tags", [vm, "t"], ""), ("VM.add_tags", [vm, "t"], ""),
            ("VM.get_tags", [vm], ["t"]), ("VM.remove_tags", [vm, "u"], ""),
            ("pool.add_to_other_config", [c.pool.get_all()[0], "", "x"],
             ["INTERNAL_ERROR", ANY]),
            ("VM.get_all_records_where", ['field "name__label" = "dispatch" and'],
             ["INVALID_VALUE", ANY, ANY]),
            ("VM.get_all_records_where", ['field "no_such" = "x"'],
             ["INVALID_VALUE", 'field "no_such" = "x"', ANY]),
            ("VM.get_all_where", ['not (not (field "name__label" = "dispatch" and '
                                  'field "power_state" = "Halted"))'], [vm]),
            ("VM.get_all_where", ['field "tags" = "(\'t\')" or false'], [vm]),
            ("VM.get_all_where", ["false"], []),
            ("VM.set_affinity", [vm, GONE], ""),  # stored as it is
            ("VM.get_affinity", [vm], GONE),
            ("host.list_methods", [], ["NOT_IMPLEMENTED", "list_method"]),
            ("console.create", [{"other_config": {}}],
             ["NOT_IMPLEMENTED", "Console.create"]),
            ("console.destroy", [GONE], ["NOT_IMPLEMENTED", "Console.destroy"]),
            ("host.propose_new_master", ["x", False], ["INTERNAL_ERROR", ANY]),
        ])
        for wanted, method, *params in (
                (["SESSION_INVALID", GONE], "VM.get_all", GONE),
                (["SESSION_INVALID", GONE], "no.such", GONE, "x"),
                (["SESSION_INVALID", GONE], "VMPP.get_all", GONE),
                (["SESSION_INVALID", "bad"], "system.isAlive", "bad"),
                (["SESSION_INVALID", "bad"], "system.isAlive:", "bad"),
                (["MESSAGE_METHOD_UNKNOWN", "logout"], "logout"),
                (["MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password",
                  "2", "1"], "session.login_with_password", "root")):
            self.assert_error(wanted, c.rpc, method, *params)
        for more in ((), ("1.0",), ("1.0", "me"), ("1.0", "me", "surplus")):
            ref = c.rpc("session.login_with_password", "root", self.pool.password, *more)
            self.assertEqual(c.rpc("session.logout", ref), "")
        self.assertEqual(c.rpc("system.isAlive:%", 5), 5)
        self.assertEqual(c.call("session.get_this_host", s), self.member.host_ref(c))

    def test_06_every_message(self):
        """With references to nothing: an error of the API's own, never the end."""
        codes = {row.split("\t")[0] for row in
                 (TOP / "tests/schema/errors.tsv").read_text().splitlines()}
        codes |= {"Fault", "MESSAGE_REMOVED"}
        started = self.member.daemon.pid
        empty = {"string": "", "int": 0, "float": 0.0, "bool": False,
                 "datetime": "19700101T00:00:00Z"}
        with open(TOP / "tests/schema/methods.tsv", newline="") as f:
            rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
        public = set(self.c.rpc("system.listMethods"))
        session_calls = ("session.logout", "session.local_logout", "session.change_password",
                         "session.login_with_password", "event.next", "event.from",
                         "event.register")
        n = 0
        for name, kind, _, flags, *_, in rows:
            params = [p for p in next(r for r in rows if r[0] == name)[10:] if p]
            if name not in public or "session" not in flags.split(",") or \
                    name in session_calls or not params:
                continue
            args = []
            for p in params:
                kind_of = p.split(" = ")[0].split(" ", 1)[1]
                if kind_of.endswith(" map") or kind_of.endswith(" record"):
                    args.append({})
                elif kind_of.endswith(" set"):
                    args.append([])
                elif kind_of.endswith(" ref"):
                    args.append(GONE)
                else:
                    args.append(empty.get(kind_of, ""))
            try:
                self.c.call(name, *args)
            except ApiError as e:
                self.assertIn(e.code, codes, (name, e.details))
            n += 1
        self.assertGreater(n, 1500)
        self.assertEqual(self.member.daemon.pid, started)
        self.assertIsNone(self.member.daemon.poll())

    # ---- storage and networks ----

    def disk(self, sr, **more):
        return dict({"SR": sr, "name_label": "d", "virtual_size": GIB, "type": "user",
                     "sharable": False, "read_only": False, "other_config": {}}, **more)

    def test_07_storage(self):
        c = self.c
        host = c.host.get_all()[0]
        self.check([
            ("SR.get_supported_types", [], ["dummy", "file"]),
            ("SR.create", [host, {}, 0, "n", "", "nfs", "", True, {}],
             ["SR_UNKNOWN_DRIVER", "nfs"]),
            ("SR.create", [GONE, {}, 0, "n", "", "dummy", "", False],
             ["HANDLE_INVALID", "host", GONE]),
            ("SR.probe", [host, {}, "nfs", {}], ["SR_UNKNOWN_DRIVER", "nfs"]),
            ("SR.make", [host, {}, 0, "n", "", "dummy", "", {}], ["MESSAGE_DEPRECATED"]),
        ])
        sr = c.SR.create(GONE, {"a": "b"}, 5, "shared", "", "Dummy", "", True)
        record = c.SR.get_record(sr)
        self.assertEqual((record["type"], record["shared"], len(record["PBDs"]),
                          record["physical_size"]), ("dummy", True, 3, 5))
        pbd = record["PBDs"][0]
        vdi = c.VDI.create(self.disk(sr, virtual_size=str(GIB)))
        record = c.VDI.get_record(vdi)
        self.assertEqual([record[k] for k in ("managed", "missing", "snapshot_of",
                                              "parent", "on_boot", "metadata_of_pool")],
                         [True, False, NULL, NULL, "persist", NULL])
        self.assertEqual(record["location"], record["uuid"])
        self.check([
            ("VDI.create", [{"SR": sr}], ["INTERNAL_ERROR", ANY]),
            ("VDI.create", [self.disk(GONE)], ["HANDLE_INVALID", "SR", GONE]),
            ("VDI.create", [self.disk(sr, type="cbt_metadata")],
             ["VDI_INCOMPATIBLE_TYPE", "", "cbt_metadata"]),
            ("VDI.create", [self.disk(sr, type="x")], ["INVALID_VALUE", "type", "x"]),
            ("VDI.create", [self.disk(sr, virtual_size=-1)],
             ["INVALID_VALUE", "virtual_size", "-1"]),
            ("SR.get_virtual_allocation", [sr], GIB),
            ("VDI.resize", [vdi, 2 * GIB], ""), ("VDI.get_virtual_size", [vdi], 2 * GIB),
            ("VDI.resize", [vdi, GIB], ["INVALID_VALUE", "virtual_size", str(GIB)]),
            ("VDI.set_name_label", [vdi, "x"], ""), ("VDI.get_name_label", [vdi], "x"),
            ("VDI.set_sharable", [vdi, True], ["PERMISSION_DENIED", ""]),
            ("VDI.set_virtual_size", [vdi, 1], ["PERMISSION_DENIED", ""]),
            ("VDI.enable_cbt", [vdi], ["SR_OPERATION_NOT_SUPPORTED", sr]),
            ("VDI.set_on_boot", [vdi, "reset"], ["SR_OPERATION_NOT_SUPPORTED", sr]),
            ("VDI.force_unlock", [vdi], ["MESSAGE_DEPRECATED"]),
            ("VDI.copy", [vdi, GONE], ["HANDLE_INVALID", "SR", GONE]),
            ("PBD.destroy", [pbd], ["OPERATION_NOT_ALLOWED", "PBD is currently attached"]),
            ("PBD.plug", [pbd], ""),
            ("PBD.create", [{"host": c.PBD.get_host(pbd), "SR": sr, "device_config": {}}],
             ["PBD_EXISTS", sr, c.PBD.get_host(pbd), pbd]),
            ("PBD.set_device_config", [pbd, {}], ["PERMISSION_DENIED", ""]),
            ("SR.destroy", [sr], ["SR_HAS_PBD", sr]),
            ("SR.forget", [sr], ["SR_HAS_PBD", sr]),
            ("SR.set_shared", [sr, False],
             ["SR_HAS_MULTIPLE_PBDS", *c.SR.get_PBDs(sr)]),
        ])
        shot, clone = c.VDI.snapshot(vdi, {}), c.VDI.clone(vdi, {})
        small = c.VDI.create(self.disk(sr))
        self.check([
            ("VDI.get_snapshots", [vdi], [shot]), ("VDI.get_is_a_snapshot", [shot], True),
            ("VDI.get_snapshot_of", [clone], NULL), ("VDI.get_name_label", [clone], "x"),
            ("VDI.copy", [vdi, NULL, NULL, small], ["VDI_TOO_SMALL", small, str(2 * GIB)]),
            ("SR.get_virtual_allocation", [sr], 7 * GIB),
            ("VDI.destroy", [vdi], ""), ("VDI.get_snapshot_of", [shot], NULL),
            ("VDI.destroy", [vdi], ["HANDLE_INVALID", "VDI", vdi]),
            *(("PBD.unplug", [p], "") for p in c.SR.get_PBDs(sr)),
            ("PBD.unplug", [pbd], ""),
            ("VDI.create", [self.disk(sr)], ["SR_HAS_NO_PBDS", sr]),
            ("SR.scan", [sr], ["SR_HAS_NO_PBDS", sr]),
            ("SR.destroy", [sr], ["SR_NOT_EMPTY"]),
            *(("VDI.destroy", [v], "") for v in (shot, clone, small)),
            ("SR.add_to_other_config", [sr, "indestructible", "true"], ""),
            ("SR.destroy", [sr], ["SR_INDESTRUCTIBLE", sr]),
            ("SR.forget", [sr], ""), ("PBD.get_record", [pbd],
                                      ["HANDLE_INVALID", "PBD", pbd]),
        ])
        uuid = "0d6d8cd2-4a0e-44c4-a3f6-1d2cf3d6c111"
        sr = c.SR.introduce(uuid, "known", "", "lvm", "user", False, {})
        pbd = c.PBD.create({"host": host, "SR": sr, "device_config": {}})
        self.check([
            ("SR.introduce", [uuid, "known", "", "lvm", "", False],
             ["SR_UUID_EXISTS", uuid]),
            ("PBD.get_currently_attached", [pbd], False),
            ("PBD.plug", [pbd], ["SR_UNKNOWN_DRIVER", "lvm"]),
            ("SR.forget", [sr], ""),
        ])

    def test_08_networks(self):
        c = self.c
        (network,) = [r for r, n in c.network.get_all_records().items() if n["PIFs"]]
        n = c.network.create({"name_label": "n", "other_config": {}, "MTU": 0})
        self.assertEqual((c.network.get_bridge(n), c.network.get_MTU(n)), ("xapi0", 1500))
        vm = new_vm(c, "on n")
        vif = self.card(vm, n)
        self.check([
            ("network.destroy", [network],
             ["NETWORK_CONTAINS_PIF", *c.network.get_PIFs(network)]),
            ("network.create", [{"name_label": "x"}], ["INTERNAL_ERROR", ANY]),
            ("network.create", [{"name_label": "x", "other_config": {},
                                 "bridge": "xenbr7"}],
             ["INVALID_VALUE", "bridge", "xenbr7"]),
            ("network.create", [{"name_label": "x", "other_config": {},
                                 "bridge": "a-name-too-long-for-it"}],
             ["INVALID_VALUE", "bridge", "a-name-too-long-for-it"]),
            ("network.create", [{"name_label": "m", "other_config": {}, "bridge": "br"}],
             ANY),
            ("network.create", [{"name_label": "x", "other_config": {}, "bridge": "br"}],
             ["BRIDGE_NAME_EXISTS", "br"]),
            ("VM.start", [vm, False, False], ""),
            ("network.destroy", [n], ["NETWORK_CONTAINS_VIF", vif]),
            ("VM.hard_shutdown", [vm], ""),
            ("network.destroy", [n], ""),
            ("VIF.get_record", [vif], ["HANDLE_INVALID", "VIF", vif]),
            ("VM.destroy", [vm], ""),
        ])
        c.network.destroy(c.network.get_by_name_label("m")[0])
        # networks made at once have bridges of their own
        made = []
        clients = [self.client(i) for i in (0, 1, 2, 0, 1, 2)]
        threads = [threading.Thread(target=lambda x=x: made.append(x.network.create(
            {"name_label": "race", "other_config": {}}))) for x in clients]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len({c.network.get_bridge(n) for n in made}), 6)
        for n in made:
            c.network.destroy(n)

    # ---- VMs ----

    def card(self, vm, network, **more):
        return self.c.VIF.create(self.card_args(vm, network, **more))

    def card_args(self, vm, network, **more):
        return dict({"VM": vm, "network": network, "device": "0", "MAC": "", "MTU": 0,
                     "other_config": {}, "qos_algorithm_type": "",
                     "qos_algorithm_params": {}}, **more)

    def drive(self, vm, vdi, **more):
        return dict({"VM": vm, "VDI": vdi, "userdevice": "0", "bootable": True,
                     "mode": "RW", "type": "Disk", "unpluggable": True, "empty": False,
                     "other_config": {}, "qos_algorithm_type": "",
                     "qos_algorithm_params": {}}, **more)

    def test_09_drives(self):
        c = self.c
        sr = c.SR.create(NULL, {}, 0, "drives", "", "dummy", "", True)
        vdi, iso = c.VDI.create(self.disk(sr)), c.VDI.create(self.disk(sr, read_only=True))
        vm, other = new_vm(c, "drives"), new_vm(c, "other")
        make = "VBD.create"

        def args(disk=vdi, **more):
            return [self.drive(vm, disk, **more)]
        disk = c.VBD.create(*args())
        cd = c.VBD.create(*args(NULL, userdevice="3", type="CD", mode="RO", empty=True))
        self.check([
            *((make, args(userdevice=d), ["DEVICE_ALREADY_EXISTS", d])
              for d in ("0", "xvda", "hda", "sda", "3", "hdd")),
            *((make, args(userdevice=d), ["INVALID_DEVICE", d])
              for d in ("", "x", "255", "-1", "xvd", "xvdA", "01234")),
            (make, args(GONE, userdevice="5"), ["HANDLE_INVALID", "VDI", GONE]),
            (make, [self.drive(GONE, vdi)], ["HANDLE_INVALID", "VM", GONE]),
            (make, args(userdevice="5", type="CD"), ["VBD_CDS_MUST_BE_READONLY"]),
            (make, args(userdevice="5", empty=True),
             ["VBD_NOT_REMOVABLE_MEDIA", "in constructor"]),
            (make, args(iso, userdevice="5"), ["VDI_READONLY", iso]),
            ("VBD.get_userdevice", [c.VBD.create(*args(userdevice="autodetect"))], "1"),
            ("VM.get_allowed_VBD_devices", [vm], [str(n) for n in range(255)
                                                  if n not in (0, 1, 3)]),
            ("VBD.eject", [cd], ["VBD_IS_EMPTY", cd]),
            ("VBD.insert", [cd, GONE], ["HANDLE_INVALID", "VDI", GONE]),
            ("VBD.insert", [disk, iso], ["VBD_NOT_REMOVABLE_MEDIA", disk]),
            ("VBD.eject", [disk], ["VBD_NOT_REMOVABLE_MEDIA", disk]),
            ("VBD.insert", [cd, iso], ""), ("VBD.get_empty", [cd], False),
            ("VBD.get_VDI", [cd], iso), ("VBD.insert", [cd, iso], ["VBD_NOT_EMPTY", cd]),
            ("VBD.eject", [cd], ""), ("VBD.get_VDI", [cd], NULL),
            ("VBD.get_empty", [cd], True),
            ("VBD.set_mode", [disk, "RO"], ""), ("VBD.set_mode", [disk, "RW"], ""),
        ])
        self.assertIn("destroy", c.VDI.get_allowed_operations(vdi))
        c.VM.start(vm, False, False)
        self.assertNotIn("destroy", c.VDI.get_allowed_operations(vdi))
        pbd = next(p for p in c.SR.get_PBDs(sr)
                   if c.PBD.get_host(p) == c.VM.get_resident_on(vm))
        self.check([
            ("VBD.get_device", [disk], "xvda"), ("VBD.get_currently_attached", [disk], True),
            ("VBD.destroy", [disk], ["OPERATION_NOT_ALLOWED", ANY]),
            ("VBD.set_mode", [disk, "RO"], ["VM_BAD_POWER_STATE", vm, "halted", "running"]),
            ("VDI.destroy", [vdi], ["VDI_IN_USE", vdi, "destroy"]),
            ("VDI.resize", [vdi, 2 * GIB], ["VDI_IN_USE", vdi, "resize"]),
            ("VDI.copy", [vdi, sr], ["VDI_IN_USE", vdi, "copy"]),
            ("PBD.unplug", [pbd], ["VDI_IN_USE", vdi]),
            (make, [self.drive(other, vdi)], ANY),
            ("VM.start", [other, False, False], ["VDI_IN_USE", vdi]),
            ("VM.hard_shutdown", [vm], ""), ("VBD.get_currently_attached", [disk], False),
            ("VM.start", [other, False, False], ""), ("VM.hard_shutdown", [other], ""),
            ("VM.destroy", [vm], ""), ("VM.destroy", [other], ""),
            ("VBD.get_record", [disk], ["HANDLE_INVALID", "VBD", disk]),
            ("VDI.get_VBDs", [vdi], []), ("VDI.destroy", [vdi], ""),
            ("VDI.destroy", [iso], ""),
            *(("PBD.unplug", [p], "") for p in c.SR.get_PBDs(sr)),
            ("SR.destroy", [sr], ""),
        ])

    def test_10_cards(self):
        c = self.c
        network = next(r for r, n in c.network.get_all_records().items() if n["PIFs"])
        vm = new_vm(c, "cards")
        make = "VIF.create"

        def args(**more):
            return [self.card_args(vm, network, **more)]
        vif = c.VIF.create(*args())
        record = c.VIF.get_record(vif)
        self.assertEqual((record["MAC_autogenerated"], int(record["MAC"][:2], 16) & 3),
                         (True, 2))
        mac = "00:16:3e:AA:bb:cc"
        self.check([
            (make, args(), ["DEVICE_ALREADY_EXISTS", "0"]),
            *((make, args(device=d), ["INVALID_DEVICE", d]) for d in ("", "x", "eth0")),
            *((make, args(device="9", MAC=m), ["MAC_INVALID", m])
              for m in ("x", "00:16:3e:aa:bb", "00-16-3e-aa-bb-cc")),
            (make, [self.card_args(vm, GONE, device="1")],
             ["HANDLE_INVALID", "network", GONE]),
            ("VIF.get_MAC", [c.VIF.create(*args(device="1", MAC=mac))], mac.lower()),
            ("VM.get_allowed_VIF_devices", [vm], [str(n) for n in range(2, 16)]),
        ])
        # the same seed and slot, the same address
        seed = c.VM.get_other_config(vm)["mac_seed"]
        c.VIF.destroy(vif)
        self.assertEqual(c.VIF.get_MAC(c.VIF.create(*args())), record["MAC"])
        c.VM.remove_from_other_config(vm, "mac_seed")
        self.assert_error(["MAC_INVALID", ""], c.VIF.create, *args(device="2"))
        c.VM.add_to_other_config(vm, "mac_seed", seed)
        twin = c.VM.clone(vm, "twin")
        self.assertNotEqual(c.VM.get_other_config(twin)["mac_seed"], seed)
        self.assertFalse({c.VIF.get_MAC(v) for v in c.VM.get_VIFs(twin)} &
                         {c.VIF.get_MAC(v) for v in c.VM.get_VIFs(vm)})
        c.VM.destroy(twin)
        c.VM.destroy(vm)

    def test_11_vm_setters(self):
        c, vm = self.c, new_vm(self.c, "setters")
        order, mib = ["MEMORY_CONSTRAINT_VIOLATION_ORDER"], 1 << 20
        self.check([
            ("VM.set_memory_limits", [vm, 4, 3, 2, 1], order),
            ("VM.set_memory_static_range", [vm, 2 * GIB, GIB], order),
            ("VM.set_memory_dynamic_range", [vm, 1 << 40, 1 << 41], order),
            ("VM.set_memory_limits", [vm, 64 * mib, 512 * mib, 128 * mib, 256 * mib], ""),
            ("VM.set_memory_dynamic_max", [vm, 1024 * mib], order),
            ("VM.set_memory_dynamic_min", [vm, 200 * mib], ""),
            ("VM.get_memory_target", [vm], 200 * mib),
            ("VM.set_memory", [vm, 256 * mib], ""),
            ("VM.get_memory_static_min", [vm], 64 * mib),
            ("VM.get_memory_static_max", [vm], 256 * mib),
            ("VM.get_memory_dynamic_min", [vm], 256 * mib),
            ("VM.set_memory_target_live", [vm, 5], ""),
            ("VM.set_VCPUs_max", [vm, 0], ["INVALID_VALUE", ANY, "0"]),
            ("VM.set_VCPUs_at_startup", [vm, 2], ["INVALID_VALUE", ANY, "2"]),
            ("VM.set_VCPUs_max", [vm, 4], ""), ("VM.set_VCPUs_at_startup", [vm, 2], ""),
            ("VM.set_VCPUs_max", [vm, 1], ["INVALID_VALUE", ANY, "1"]),
            ("VM.set_HVM_shadow_multiplier", [vm, 0.5], ["INVALID_VALUE", ANY, ANY]),
            *((f"VM.set_{f}", [vm, -1],
               ["INVALID_VALUE", f"{f} must be non-negative", "-1"])
              for f in ("order", "start_delay", "shutdown_delay")),
            ("VM.set_ha_restart_priority", [vm, "x"], ["INVALID_VALUE", ANY, "x"]),
            ("VM.set_domain_type", [vm, "hvm"], ""),
            ("VM.get_HVM_boot_policy", [vm], "BIOS order"),
            ("VM.set_HVM_boot_policy", [vm, ""], ""), ("VM.get_domain_type", [vm], "pv"),
            ("VM.set_bios_strings", [vm, {"bios-vendor": "x"}], ""),
            ("VM.set_bios_strings", [vm, {"bios-vendor": "y"}],
             ["VM_BIOS_STRINGS_ALREADY_SET"]),
            ("VM.set_suspend_VDI", [vm, GONE],
             ["VM_BAD_POWER_STATE", vm, "suspended", "halted"]),
            ("VM.set_xenstore_data", [vm, {"vm-data/a": "1", "other": "2"}], ""),
            ("VM.get_xenstore_data", [vm], {"vm-data/a": "1", "other": "2"}),
            ("VM.get_cooperative", [vm], True), ("VM.get_data_sources", [vm], []),
            ("VM.assert_operation_valid", [vm, "start"], ""),
            ("VM.assert_operation_valid", [vm, "pause"],
             ["VM_BAD_POWER_STATE", vm, "running", "halted"]),
            ("VM.assert_operation_valid", [vm, "x"], ["INVALID_VALUE", "op", "x"]),
            ("VM.power_state_reset", [vm], ""),
            ("VM.set_blocked_operations", [vm, {"start": "why"}], ""),
            ("VM.start", [vm, False, False], ["OPERATION_BLOCKED", vm, "why"]),
            ("VM.set_blocked_operations", [vm, {}], ""),
            ("VM.create", [{"name_label": "x", "power_state": "Running"}],
             ["VM_BAD_POWER_STATE", ANY, "halted", "running"]),
            ("VM.set_is_a_template", [vm, True], ""),
            ("VM.start", [vm, False, False], ["VM_IS_TEMPLATE", vm, "start"]),
            ("VM.set_is_a_template", [vm, False], ""),
            ("VM.provision", [vm], ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]),
            ("VM.destroy", [template(c)], ["VM_CANNOT_DELETE_DEFAULT_TEMPLATE"]),
            ("VM.destroy", [vm], ""),
        ])

    # ---- hosts and the pool ----

    def test_12_hosts(self):
        c, host = self.c, self.member.host_ref(self.c)
        pool = c.pool.get_all()[0]
        self.check([
            ("host.destroy", [host], ["HOST_IS_LIVE", host]),
            ("host.declare_dead", [host], ["HOST_IS_LIVE", host]),
            ("host.power_on", [host], ["HOST_IS_LIVE", host]),
            ("host.set_iscsi_iqn", [host, ""], ["INVALID_VALUE", "value", ""]),
            ("host.set_iscsi_iqn", [host, "iqn.2024-01.x:y"], ""),
            ("host.set_multipathing", [host, True], ""),
            ("host.disable", [host], ""), ("host.disable", [host], ""),
            ("host.get_enabled", [host], False), ("host.enable", [host], ""),
            ("host.get_enabled", [host], True),
            ("host.is_in_emergency_mode", [], False),
            ("host.call_plugin", [host, "x", "f", {}], ["XENAPI_MISSING_PLUGIN", "x"]),
            ("host.apply_edition", [host, "platinum"], ["INVALID_EDITION", "platinum"]),
            ("host.get_vms_which_prevent_evacuation", [host], {}),
            ("pool.get_license_state", [pool],
             {"edition": "free", "expiry": "20991231T23:59:59Z"}),
            ("pool.disable_ha", [], ["HA_NOT_ENABLED"]),
            ("pool.designate_new_master", [NULL], ["HANDLE_INVALID", "host", NULL]),
            ("pool.join", [self.member.address, "root", "x"],
             ["OPERATION_NOT_ALLOWED", ANY]),
            ("pool.join", ["127.0.0.9", "root", "x"],
             ["JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS"]),
            ("pool.sync_database", [], ""),
            ("secret.introduce", ["x", "v"], ["UUID_INVALID", "secret", "x"]),
        ])
        config = c.host.get_other_config(host)
        self.assertEqual((config["iscsi_iqn"], config["multipathing"]),
                         ("iqn.2024-01.x:y", "true"))
        self.assertRegex(config["agent_start_time"], r"^\d+\.$")
        self.assertRegex(config["boot_time"], r"^\d+\.$")
        licence = c.host.get_license_params(host)
        restrictions = c.pool.get_restrictions(pool)
        self.assertGreater(len(restrictions), 40)
        self.assertEqual({v for k, v in restrictions.items()
                          if k.startswith("restrict_")}, {"false"})
        self.assertEqual({**licence, **restrictions}, licence)

    # ---- tasks and events ----

    def test_13_tasks(self):
        c = self.c
        task = c.task.create("label", "text")
        record = c.task.get_record(task)
        self.assertEqual([record[k] for k in (
            "name_label", "status", "progress", "type", "result", "error_info",
            "finished", "allowed_operations", "subtask_of", "backtrace")],
            ["label", "pending", 0.0, "<none/>", "", [], "19700101T00:00:00Z",
             ["cancel"], NULL, "()"])
        self.check([
            ("task.destroy", [task], ""),  # only marks a pending one
            ("task.get_current_operations", [task], {"task": "destroy"}),
            ("task.set_progress", [task, 0.5], ""), ("task.get_progress", [task], 0.5),
            ("task.cancel", [task], ""), ("task.get_status", [task], "pending"),
            ("task.set_status", [task, "success"], ""),
            ("task.set_status", [task, "failure"], ""),
            ("task.get_status", [task], "success"), ("task.cancel", [task], ""),
            ("task.destroy", [task], ""),
            ("task.destroy", [task], ["HANDLE_INVALID", "task", task]),
        ])
        vm = new_vm(c, "tasks")

        def ended(method, *params):
            ref = c.call("Async." + method, *params)
            record = self.wait_ended(c, ref)
            c.task.destroy(ref)
            self.assertEqual((record["name_label"], record["progress"],
                              record["allowed_operations"]), ("Async." + method, 1.0, []))
            return record["status"], record["result"], record["error_info"]
        self.assertEqual(ended("VM.start", vm, False, False),
                         ("success", "<value></value>", []))
        self.assertEqual(ended("VM.start", vm, False, False),
                         ("failure", "", ["VM_BAD_POWER_STATE", vm, "halted", "running"]))
        self.assertEqual(ended("VM.start", GONE, False, False),
                         ("failure", "", ["HANDLE_INVALID", "VM", GONE]))
        ended("VM.hard_shutdown", vm)
        status, result, _ = ended("VM.clone", vm, "copy")
        self.assertRegex(result, r"^<value>OpaqueRef:[0-9a-f-]{36}</value>$")
        c.VM.destroy(result[7:-8])
        status, result, _ = ended("SR.get_live_hosts", c.SR.get_all()[0])
        self.assertRegex(result, r"^<value><array><data><value>OpaqueRef:[0-9a-f-]{36}"
                                 r"</value></data></array></value>$")
        self.assertEqual(ended("VM.compute_memory_overhead", vm)[1],
                         f"<value>{c.VM.get_memory_overhead(vm)}</value>")
        c.VM.destroy(vm)

    def events(self, classes, token="", timeout=5.0):
        batch = self.c.call("event.from", classes, token, timeout)
        return [(e["operation"], e["ref"]) for e in batch["events"]], batch["token"], batch

    def test_14_events(self):
        c = self.c
        pool = c.pool.get_all()[0]
        self.check([
            ("event.from", [["*"], "x", 0.0], ["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"]),
            ("event.from", [["*"], "1,2,3", 0.0],
             ["EVENT_FROM_TOKEN_PARSE_FAILURE", "1,2,3"]),
            ("event.inject", ["POOL", pool], ["HANDLE_INVALID", "POOL", pool]),
            ("event.inject", ["VM", pool], ["HANDLE_INVALID", "VM", pool]),
            ("event.next", [], ["SESSION_NOT_REGISTERED", ANY]),
        ])
        for classes in ([], ["no_such_class"], ["vm/" + GONE]):
            start = time.monotonic()
            got, token, _ = self.events(classes, "", 0.3)
            self.assertEqual(got, [])
            self.assertGreaterEqual(time.monotonic() - start, 0.25, classes)
        _, token, _ = self.events(["vm", "message"], "", 0.0)
        vm = c.VM.create({"name_label": "a"})
        c.VM.set_name_label(vm, "b")
        got, token, batch = self.events(["vm"], token)
        self.assertEqual(got, [("add", vm)])
        self.assertEqual(batch["events"][0]["snapshot"], c.VM.get_record(vm))
        c.VM.set_name_label(vm, "c")
        c.VM.set_name_label(vm, "d")
        got, token, batch = self.events(["VM/" + vm], token)
        self.assertEqual(got, [("mod", vm)])
        self.assertEqual(batch["events"][0]["snapshot"]["name_label"], "d")
        c.VM.set_name_label(vm, "d")  # the same again is no change
        self.assertEqual(self.events(["vm"], token, 0.3)[0], [])
        vif = self.card(vm, c.network.get_all()[0])
        got, token, _ = self.events(["vm", "vif"], token)
        self.assertEqual(sorted(got), sorted([("add", vif), ("mod", vm)]))
        gone = c.VM.create({"name_label": "short"})
        c.VM.destroy(gone)
        self.assertEqual(self.events(["vm"], token, 0.3)[0], [])
        message = c.message.create("news", 5, "VM", c.VM.get_uuid(vm), "text")
        got, token, _ = self.events(["message"], token)
        self.assertEqual(got, [("add", message)])
        c.VM.destroy(vm)
        c.message.destroy(message)
        got, token, batch = self.events(["vm", "message", "vif"], token)
        self.assertEqual(sorted(got), sorted([("del", vm), ("del", vif), ("del", message)]))
        self.assertFalse(any("snapshot" in e for e in batch["events"]))
        # inject: a change that changes nothing, with a token before it
        injected = c.event.inject("pool", pool)
        got, token, _ = self.events(["pool"], token)
        self.assertEqual(got, [("mod", pool)])
        self.assertGreater(token, injected)
        # a token holds on every member
        for i in range(len(self.pool.members)):
            batch = self.client(i).call("event.from", ["pool"], injected, 5.0)
            self.assertEqual([e["ref"] for e in batch["events"]], [pool])

    def test_15_events_of_old(self):
        c = self.c
        pool = c.pool.get_all()[0]
        c.event.register(["pool"])
        c.pool.add_to_other_config(pool, "old", "1")
        (event,) = c.event.next()
        self.assertEqual((event["class"], event["operation"], event["ref"]),
                         ("pool", "mod", pool))
        self.assertEqual(event["snapshot"]["other_config"]["old"], "1")
        self.assertRegex(event["timestamp"], r"^\d+\.$")
        self.assertRegex(event["id"], r"^\d+$")
        c.pool.remove_from_other_config(pool, "old")
        c.event.next()
        c.event.unregister(["pool"])
        self.assertEqual(self.error(c.event.next)[0], "SESSION_NOT_REGISTERED")
        # whoever waits learns that his session has gone
        for method, params in (("event.from", (["pool"], "", 30.0)), ("event.next", ())):
            waiting = self.client(self.pool.members.index(self.member))
            token = waiting.call("event.from", ["pool"], "", 0.0)["token"]
            if params:
                params = (params[0], token, params[2])
            waiting.event.register(["vm_group"])
            result = []
            thread = threading.Thread(target=lambda: result.append(
                self.error(waiting.call, method, *params)))
            thread.start()
            time.sleep(0.3)
            c.rpc("session.logout", waiting.session)
            thread.join(10)
            self.assertEqual(result, [["SESSION_INVALID", waiting.session]])

    def test_16_messages(self):
        c, vm = self.c, new_vm(self.c, "messages")
        uuid = c.VM.get_uuid(vm)
        self.check([
            ("message.create", ["n", 3, "VM", "x", "b"], ["UUID_INVALID", "VM", "x"]),
            ("message.create", ["n", 3, "x", uuid, "b"], ["INVALID_VALUE", "cls", "x"]),
            ("message.create", ["n", 3, "VM", uuid, "b"], ANY),
            ("message.get_since", ["21000101T00:00:00Z"], {}),
        ])
        (found,) = [r for r, m in c.message.get("VM", uuid, "19700101T00:00:00Z").items()
                    if m["name"] == "n"]
        for date in ("2018-01-01T00:00:00Z", "2018-01-01T00:00:00", "20180101T00:00:00Z",
                     "2018-01-01T00:00:00-12:00"):
            self.assertIn(found, c.message.get_since(date))
        where = f'field "cls" = "VM" and field "name" = "n" and field "obj_uuid" = "{uuid}"'
        self.assertEqual(list(c.message.get_all_records_where(where)), [found])
        self.check([
            ("message.destroy_many", [[found, GONE]], ["HANDLE_INVALID", "message", GONE]),
            ("message.get_record", [found], ANY),
            ("message.destroy_many", [[found]], ""),
            ("message.destroy", [found], ["HANDLE_INVALID", "message", found]),
            ("VM.destroy", [vm], ""),
        ])

    def test_17_one_operation_at_a_time(self):
        """A call that meets another one waits for it and is then judged."""
        c, vm = self.c, new_vm(self.c, "busy", start_ms=700)
        first = c.call("Async.VM.start", vm, False, False)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "the start has begun")
        self.assertEqual(set(c.VM.get_current_operations(vm).values()), {"start"})
        self.assert_error(["VM_BAD_POWER_STATE", vm, "halted", "running"],
                          c.VM.start, vm, False, False)
        self.assertEqual(self.wait_ended(c, first)["status"], "success")
        c.VM.hard_shutdown(vm)
        c.VM.destroy(vm)


if __name__ == "__main__":
    unittest.main(verbosity=2)
