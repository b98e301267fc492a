"""The first calls of clients that cannot be installed here, byte for byte as
they send them, and what each relies on in the answers. Every client is tried
against another member."""
import http.client
import json
import pathlib
import re
import sys
import time
import unittest
import xmlrpc.client

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import NULL, PoolCase, template, tls_context, wait_for  # noqa: E402

REF = re.compile(r"OpaqueRef:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
DATE = re.compile(r"\d{8}T\d\d:\d\d:\d\dZ")


class Wire:
    """One kept-alive HTTPS connection that shows everything."""

    def __init__(self, test, member, headers=()):
        self.test, self.headers, self.id = test, dict(headers), 0
        self.conn = http.client.HTTPSConnection(
            member.address, member.pool.https_port, timeout=60,
            context=tls_context())
        test.addCleanup(self.conn.close)

    def post(self, path, body, content_type):
        self.conn.request("POST", path, body, self.headers)
        answer = self.conn.getresponse()
        text = answer.read()
        self.test.assertEqual(answer.status, 200, text)
        self.test.assertEqual(answer.getheader("content-type"), content_type)
        self.test.assertIsNone(answer.getheader("transfer-encoding"))
        self.test.assertIsNone(answer.getheader("content-encoding"))
        self.test.assertEqual(int(answer.getheader("content-length")), len(text))
        return text

    def json(self, method, *params, version=2):
        """The whole answer, a dict."""
        self.id += 1
        request = {"id": self.id, "method": method, "params": params}
        if version == 2:
            request["jsonrpc"] = "2.0"
        answer = json.loads(self.post("/jsonrpc", json.dumps(request),
                                      "application/json"))
        self.test.assertEqual(answer["id"], self.id)
        return answer

    def v1(self, method, *params):
        answer = self.json(method, *params, version=1)
        self.test.assertEqual(sorted(answer), ["error", "id", "result"])
        self.test.assertIsNone(answer["error"])
        return answer["result"]

    def v2(self, method, *params):
        answer = self.json(method, *params)
        self.test.assertEqual(sorted(answer), ["id", "jsonrpc", "result"],
                              (method, answer))
        self.test.assertEqual(answer["jsonrpc"], "2.0")
        return answer["result"]

    def xml(self, method, *params, path="/"):
        """The Status struct; texts of ints stay texts, as for every client."""
        body = xmlrpc.client.dumps(params, method, allow_none=True)
        text = self.post(path, body, "text/xml")
        # only the counts of event.from are typed, and nothing is between elements
        found = re.search(rb">\s+<|<(int|i8|string)>", text)
        self.test.assertIsNone(found, method)
        (value,), _ = xmlrpc.client.loads(text, use_builtin_types=False)
        return value

    def x(self, method, *params):
        answer = self.xml(method, *params)
        self.test.assertEqual(answer["Status"], "Success", (method, answer))
        return answer["Value"]


class FirstCalls(PoolCase):
    def login(self, wire, *more):
        return wire.v2("session.login_with_password", "root", self.pool.password,
                       *more)

    def assert_ref(self, ref):
        self.assertRegex(ref, REF)

    def only(self, records):
        self.assertEqual(len(records), 1, records)
        return next(iter(records.items()))

    def test_xencenter(self):
        member = self.pool.members[2]
        agent = {"User-Agent": "XenCenter"}
        w = Wire(self, member, agent)
        s = w.v1("session.login_with_password", "root", self.pool.password, "2.23",
                 "XenCenter")
        self.assert_ref(s)
        pool_ref, pool = self.only(w.v1("pool.get_all_records", s))
        self.assertEqual(pool["name_label"], "")
        master = w.v1("host.get_record", s, pool["master"])
        self.assertEqual((master["API_version_major"], master["API_version_minor"]),
                         (2, 23))
        # from here on it speaks 2.0
        self.assertIs(w.v2("session.get_is_local_superuser", s, s), True)
        self.assertEqual(w.v2("session.get_subject", s, s), NULL)
        self.assertEqual(w.v2("session.get_auth_user_sid", s, s), "")
        self.assertEqual(w.v2("session.get_rbac_permissions", s, s), [])
        roles = w.v2("role.get_all_records", s)
        admin = roles["OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba"]
        self.assertEqual((admin["name_label"], admin["uuid"]),
                         ("pool-admin", "0165f154-ba3e-034e-6b27-5d271af109ba"))
        self.assertTrue(set(admin["subroles"]) <= set(roles))
        # it refuses servers that do not take in its own version
        version = master["software_version"]
        for key in ("product_version", "product_brand", "platform_version", "xapi",
                    "build_number", "xen", "date", "db_schema", "network_backend"):
            self.assertTrue(version.get(key), key)
        self.assertEqual((version["xencenter_min"], version["xencenter_max"]),
                         ("2.23", "2.23"))
        self.assertRegex(master["license_params"]["expiry"], DATE)
        self.assertEqual(master["license_params"]["restrict_pooling"], "false")
        events = Wire(self, member, agent)
        batch = events.v2("event.from", s, ["*"], "", 30.0)
        self.check_cache(batch, pool_ref)
        # nothing new: the call waits and then tells so without an error
        start = time.monotonic()
        quiet = events.v2("event.from", s, ["pool"], batch["token"], 0.5)
        self.assertEqual(quiet["events"], [])
        self.assertGreaterEqual(time.monotonic() - start, 0.4)
        self.assertGreaterEqual(quiet["token"], batch["token"])
        heart = Wire(self, member, agent)
        for _ in range(2):
            self.assertRegex(heart.v2("host.get_servertime", s, pool["master"]), DATE)
        self.assertRegex(w.v2("host.get_server_localtime", s, pool["master"]),
                         r"^\d{8}T\d\d:\d\d:\d\d$")
        self.assertEqual(w.v2("session.logout", s), "")
        answer = w.json("pool.get_all", s)
        self.assertEqual(answer["error"], {"code": 1, "message": "SESSION_INVALID",
                                           "data": [s]})
        self.assertEqual(w.json("pool.get_all", s, version=1)["error"],
                         ["SESSION_INVALID", s])

    def check_cache(self, batch, pool_ref):
        """The first batch is a cache: everything once, references that resolve."""
        seen = {}
        for e in batch["events"]:
            self.assertEqual(e["operation"], "add")
            self.assertIsInstance(e["id"], str)
            self.assertEqual(e["timestamp"], "0.0")
            self.assertNotIn((e["class"], e["ref"]), seen)
            seen[e["class"], e["ref"]] = e["snapshot"]
        for cls, n in batch["valid_ref_counts"].items():
            self.assertEqual(cls, cls.lower())
            self.assertIsInstance(n, int)
            if cls not in ("session", "secret", "user", "role"):
                self.assertEqual(len([c for c, _ in seen if c == cls]), n, cls)
        self.assertRegex(batch["token"], r"^\d{20},\d{20}$")
        self.assertIn(("pool", pool_ref), seen)
        refs = {ref for _, ref in seen}
        links = {"host": ("metrics", "control_domain"),
                 "vm": ("resident_on", "affinity", "metrics", "snapshot_of",
                        "parent", "suspend_VDI", "guest_metrics"),
                 "pif": ("network", "host", "metrics", "bond_slave_of",
                         "VLAN_master_of"),
                 "pbd": ("host", "SR"), "console": ("VM",),
                 "pool": ("master", "default_SR"), "task": ("subtask_of",),
                 "host_cpu": ("host",), "vdi": ("SR", "snapshot_of", "parent")}
        for (cls, ref), record in seen.items():
            for field in links.get(cls, ()):
                if record[field] != NULL:
                    self.assertIn(record[field], refs, (cls, field))
        types = {sm["type"] for (cls, _), sm in seen.items() if cls == "sm"}
        for (cls, _), sr in seen.items():
            if cls == "sr":
                self.assertIn(sr["type"], types)

    def test_csharp_and_powershell(self):
        w = Wire(self, self.pool.members[1])
        s = w.v1("session.login_with_password", "root", self.pool.password, "2.21",
                 "")
        _, pool = self.only(w.v1("pool.get_all_records", s))
        w.v1("host.get_record", s, pool["master"])
        self.assertIs(w.v2("session.get_is_local_superuser", s, s), True)
        self.assertEqual(w.v2("session.get_rbac_permissions", s, s), [])

    def test_go_and_terraform(self):
        w = Wire(self, self.pool.members[1],
                 {"Content-Type": "application/json; charset=utf-8"})
        s = self.login(w, "1.0", "terraform")
        (pool,) = w.v2("pool.get_all", s)
        master = w.v2("pool.get_master", s, pool)
        record = w.v2("host.get_record", s, master)
        self.assertEqual((record["API_version_major"], record["API_version_minor"]),
                         (2, 23))
        self.assertRegex(record["software_version"]["xapi"], r"^\d+\.\d+")
        for host in w.v2("host.get_all", s):
            self.assertIs(w.v2("host.get_enabled", s, host), True)
        self.assert_ref(w.v2("pool.get_default_SR", s, pool))
        # it prints errors and looks for the code in the text
        answer = w.json("host.get_record", s, "OpaqueRef:NULL")
        self.assertEqual(answer["error"], {
            "code": 1, "message": "HANDLE_INVALID", "data": ["host", NULL]})
        # dates that it sends are RFC 3339
        w.v2("message.get_since", s, "2024-01-02T03:04:05Z")

    def test_java(self):
        w = Wire(self, self.pool.members[0])
        s = self.login(w, "2.23", "java")
        _, pool = self.only(w.v2("pool.get_all_records", s))
        record = w.v2("host.get_record", s, pool["master"])
        self.assertIsInstance(record["API_version_major"], int)
        self.assertRegex(record["last_software_update"], DATE)
        for cls in ("VM", "host", "network", "PIF", "SR", "PBD", "SM", "host_metrics"):
            for record in w.v2(f"{cls}.get_all_records", s).values():
                self.assertRegex(record["uuid"], r"^[0-9a-f-]{36}$")

    def test_c_sdk_and_libvirt(self):
        w = Wire(self, self.pool.members[2])
        s = w.x("session.login_with_password", "root", self.pool.password, "1.0")
        host = w.x("session.get_this_host", s, s)
        self.assertEqual(w.x("host.get_address", s, host),
                         self.pool.members[2].address)
        # ints are texts, void is an empty string, a bool is one
        self.assertEqual(w.x("host.get_API_version_major", s, host), "2")
        self.assertEqual(w.x("host.get_API_version_minor", s, host), "23")
        self.assertIs(w.x("host.get_enabled", s, host), True)
        xen = w.x("host.get_software_version", s, host)["xen"]
        self.assertRegex(xen, r"^\d+\.\d+\.\d+")
        for vm in w.x("host.get_resident_VMs", s, host):
            self.assertEqual(w.x("VM.get_domid", s, vm), "0")
            self.assertEqual(w.x("VM.get_record", s, vm)["uuid"],
                             w.x("VM.get_uuid", s, vm))
        for ref in w.x("host_metrics.get_all", s):
            record = w.x("host_metrics.get_record", s, ref)
            self.assertGreater(int(record["memory_total"]), 0)
            self.assertIsInstance(record["last_updated"], xmlrpc.client.DateTime)
        for ref in w.x("host_cpu.get_all", s):
            self.assertGreater(int(w.x("host_cpu.get_speed", s, ref)), 0)
        self.assertEqual(w.x("session.logout", s), "")

    def test_python_and_fence(self):
        w = Wire(self, self.pool.members[1])
        s = w.x("session.login_with_password", "root", self.pool.password)
        (pool,) = w.x("pool.get_all", s)
        master = w.x("pool.get_master", s, pool)
        self.assertEqual(w.x("host.get_API_version_major", s, master), "2")
        states = {w.x("VM.get_record", s, vm)["power_state"]
                  for vm in w.x("VM.get_all", s)}
        self.assertEqual(states, {"Running", "Halted"})
        # an old copy's logout
        self.assertEqual(w.xml("logout"), {
            "Status": "Failure",
            "ErrorDescription": ["MESSAGE_METHOD_UNKNOWN", "logout"]})
        names = xmlrpc.client.loads(w.post("/RPC2", xmlrpc.client.dumps(
            (), "system.listMethods"), "text/xml"))[0][0]
        self.assertIn("VM.start", names)
        self.assertEqual(w.xml("VM.get_all", "OpaqueRef:gone", path="/RPC2"), {
            "Status": "Failure",
            "ErrorDescription": ["SESSION_INVALID", "OpaqueRef:gone"]})

    def test_ansible(self):
        w = Wire(self, self.pool.members[2])
        s = w.x("session.login_with_password", "root", self.pool.password, "1.0",
                "Ansible")
        (pool,) = w.x("pool.get_all", s)
        sr = w.x("pool.get_default_SR", s, pool)
        self.assertEqual(w.x("SR.get_record", s, sr)["PBDs"] != [], True)
        host = w.x("session.get_this_host", s, s)
        product = w.x("host.get_software_version", s, host)["product_version"]
        self.assertGreaterEqual([int(n) for n in product.split(".")], [7, 0])
        self.assertEqual(w.x("VM.get_by_name_label", s, "no such"), [])
        for ref, t in w.x("VM.get_all_records", s).items():
            if not t["is_default_template"]:
                continue
            self.assertEqual(w.x("VM.get_by_name_label", s, t["name_label"]), [ref])
            self.assertEqual((t["snapshot_of"], t["guest_metrics"], t["affinity"]),
                             (NULL, NULL, NULL))
            self.assertEqual(t["domid"], "-1")
            self.assertEqual(t["other_config"].get("default_template"), "true")

    def test_cloudstack(self):
        w = Wire(self, self.pool.members[0])
        s = w.x("session.login_with_password", "root", self.pool.password, "1.3")
        (pool,) = w.x("pool.get_all", s)
        w.x("pool.get_record", s, pool)
        hosts = w.x("host.get_all_records", s)
        w.x("session.logout", s)
        for m in self.pool.members:
            w = Wire(self, m)
            s = w.x("session.login_with_password", "root", self.pool.password, "1.3")
            host = w.x("session.get_this_host", s, s)
            self.assertEqual(hosts[host]["address"], m.address)
            self.assertIs(w.x("host.get_enabled", s, host), True)
            self.only(w.x("pool.get_all_records", s))
            self.assertEqual(w.x("host.get_by_uuid", s, hosts[host]["uuid"]), host)
            networks = w.x("network.get_all_records", s)
            (pif,) = w.x("host.get_PIFs", s, host)
            record = w.x("PIF.get_record", s, pif)
            self.assertEqual((record["IP"], record["management"], record["VLAN"],
                              record["host"], record["bond_slave_of"]),
                             (m.address, True, "-1", host, NULL))
            self.assertIn(record["network"], networks)
            self.assertIn(pif, networks[record["network"]]["PIFs"])
            # its own plug-in is not here, and it is told so
            self.assertEqual(w.xml("host.call_plugin", s, host, "vmops", "gethostvmstats",
                                   {})["ErrorDescription"],
                             ["XENAPI_MISSING_PLUGIN", "vmops"])
            batch = w.x("event.from", s, ["VM"], "", 30.0)
            self.assertEqual({e["class"] for e in batch["events"]}, {"vm"})
            again = w.x("event.from", s, ["VM"], batch["token"], 0.2)
            self.assertEqual(again["events"], [])

    def test_os_xenapi(self):
        for m in self.pool.members:
            w = Wire(self, self.pool.members[0])
            s = w.x("session.login_with_password", "root", self.pool.password, "1.3",
                    "OpenStack")
            record = self.only(w.x("PIF.get_all_records_where", s,
                                   f'field "IP"="{m.address}"'))[1]
            host = record["host"]
            self.assertEqual(w.x("host.get_record", s, host)["address"], m.address)
            w.x("host.get_uuid", s, host)
            w.x("host.get_software_version", s, host)

    def test_xsconsole(self):
        w = Wire(self, self.pool.members[1])
        s = w.x("session.login_with_password", "root", self.pool.password, "1.0",
                "xsconsole")
        host = w.x("session.get_this_host", s, s)
        record = w.x("host.get_record", s, host)
        metrics = w.x("host_metrics.get_record", s, record["metrics"])
        self.assertIs(metrics["live"], True)
        for ref in record["host_CPUs"]:
            w.x("host_cpu.get_record", s, ref)
        for ref in record["PIFs"]:
            pif = w.x("PIF.get_record", s, ref)
            self.assertIs(w.x("PIF_metrics.get_record", s, pif["metrics"])["carrier"],
                          True)
            w.x("network.get_record", s, pif["network"])
        for ref in record["PBDs"]:
            pbd = w.x("PBD.get_record", s, ref)
            self.assertIs(pbd["currently_attached"], True)
            w.x("SR.get_record", s, pbd["SR"])
        self.only(w.x("pool.get_all_records", s))
        w.x("SR.get_all_records", s)
        # the images that a host suspends and dumps to
        self.assertIn("suspend_image_sr", record)

    def test_npm_xen_api(self):
        w = Wire(self, self.pool.members[2], {"Accept": "application/json"})
        s = self.login(w)
        pool, record = self.only(w.v2("pool.get_all_records", s))
        names = w.v2("system.listMethods")
        classes = [n.split(".")[0] for n in names if n.endswith(".get_all_records")]
        self.assertEqual(len(classes), len(set(classes)))
        injected = w.v2("event.inject", s, "pool", pool)
        for cls in classes:
            answer = w.json(f"{cls}.get_all_records", s)
            if "error" in answer:
                self.assertEqual(answer["error"]["message"], "MESSAGE_REMOVED", cls)
            else:
                self.assertIsInstance(answer["result"], dict)
        batch = w.v2("event.from", s, classes, injected, 5.1)
        self.assertGreaterEqual(batch["token"], injected)
        self.assertIn(("mod", pool), [(e["operation"], e["ref"]) for e in batch["events"]])
        # its barrier: a key that comes round as an event
        key = "xo:barrier:x1"
        self.assertEqual(w.v2("pool.add_to_other_config", s, pool, key, "1"), "")
        batch = w.v2("event.from", s, classes, batch["token"], 5.1)
        self.assertIn(key, next(e["snapshot"]["other_config"] for e in batch["events"]
                                if e["ref"] == pool))
        for _ in range(2):  # what is not there can be removed
            w.v2("pool.remove_from_other_config", s, pool, key)
        task = w.v2("task.create", s, "xo", "a transfer")
        tasks = len(w.v2("task.get_all", s))
        batch = w.v2("event.from", s, ["task"], "", 1.1)
        self.assertEqual(batch["valid_ref_counts"]["task"], tasks)
        w.v2("task.set_progress", s, task, 0.5)
        w.v2("task.set_status", s, task, "cancelled")
        self.assertEqual(w.v2("task.get_status", s, task), "cancelled")
        w.v2("task.destroy", s, task)
        self.assertEqual(record["restrictions"]["restrict_vtpm"], "false")

    def test_packer(self):
        w = Wire(self, self.pool.members[1])
        s = w.x("session.login_with_password", "root", self.pool.password, "1.0",
                "packer")
        c = self.client()
        (t,) = w.x("VM.get_by_name_label", s, c.VM.get_name_label(template(c)))
        (sr,) = w.x("SR.get_by_name_label", s, self.shared_sr(c))
        network = next(iter(w.x("network.get_all", s)))
        vm = w.x("VM.clone", s, t, "packed")
        w.x("VM.set_is_a_template", s, vm, False)
        w.x("VM.set_VCPUs_max", s, vm, "2")
        w.x("VM.set_VCPUs_at_startup", s, vm, "2")
        w.x("VM.set_memory_limits", s, vm, str(128 << 20), *[str(256 << 20)] * 3)
        w.x("VM.set_platform", s, vm, {"apic": "true"})
        w.x("VM.remove_from_other_config", s, vm, "disks")
        vdi = w.x("VDI.create", s, {
            "name_label": "disk", "name_description": "", "SR": sr,
            "virtual_size": str(1 << 30), "type": "user", "sharable": False,
            "read_only": False, "other_config": {"temp": "temp"}})
        w.x("VBD.create", s, {
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": False,
            "mode": "RW", "type": "Disk", "empty": False, "unpluggable": False,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
        w.x("VIF.create", s, {
            "network": network, "VM": vm, "MAC": "", "device": "0", "MTU": "1504",
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
            "MAC_autogenerated": False, "locking_mode": "network_default"})
        w.x("VM.start", s, vm, True, False)
        w.x("VM.unpause", s, vm)
        self.assertGreater(int(w.x("VM.get_domid", s, vm)), 0)
        (console,) = w.x("VM.get_consoles", s, vm)
        location = w.x("console.get_location", s, console)
        scheme, empty, host, rest = location.split("/")
        self.assertEqual((scheme, empty), ("https:", ""))
        self.assertEqual(host.split(":")[0], w.x("host.get_address", s, w.x(
            "VM.get_resident_on", s, vm)))
        self.assertEqual(rest, "console?uuid=" + w.x("console.get_uuid", s, console))
        self.assertEqual(w.xml("VDI.destroy", s, vdi)["ErrorDescription"],
                         ["VDI_IN_USE", vdi, "destroy"])
        task = w.x("Async.VM.hard_shutdown", s, vm)
        wait_for(lambda: w.x("task.get_status", s, task) == "success", 20, "the end")
        w.x("task.destroy", s, task)
        w.x("VM.destroy", s, vm)
        self.assertEqual(w.x("VDI.get_VBDs", s, vdi), [])
        w.x("VDI.destroy", s, vdi)

    def shared_sr(self, c):
        host = c.host.get_all()[0]
        c.SR.create(host, {}, 0, "shared dummy", "", "dummy", "", True, {})
        return "shared dummy"


if __name__ == "__main__":
    unittest.main(verbosity=2)
