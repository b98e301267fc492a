"""What the tests of whole pools share: a pool for a class of tests, raw HTTP,
and the rules that hold when everything has settled."""
import http.client
import json
import os
import pathlib
import re
import socket
import sys
import tempfile
import time
import unittest

TOP = pathlib.Path(os.environ.get("XENPOOL_TOP",
                                  pathlib.Path(__file__).resolve().parents[2]))
BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build")).resolve()
sys.dont_write_bytecode = True
sys.path.insert(0, str(TOP / "tools"))
from localpool import (BROKEN, NULL, NO_MAJORITY, PATIENCE, ApiError, LocalPool, rest,  # noqa: E402,F401
                       tls_context, unwrap)
from watch import Watcher, Writer  # noqa: E402,F401

GONE_WRONG = re.compile(r".*(?:AddressSanitizer|runtime error:|LeakSanitizer|"
                        r"[Aa]ssert|state differs).*")
ENDED = ("success", "failure", "cancelled")


def wait_for(condition, timeout, what, pause=0.05):
    """The first true value of condition(); what it says last otherwise."""
    end = time.monotonic() + timeout * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout * PATIENCE:g} s: {what}")
        rest(pause)


def say(text):
    print(f"    {text}", file=sys.stderr, flush=True)


def template(c):
    """The default template whose guests need no drivers to be moved."""
    return next(ref for ref, vm in c.VM.get_all_records().items()
                if vm["is_default_template"] and vm["domain_type"] == "pvh")


def new_vm(c, name, **sim):
    """A halted VM; sim: start_ms=..., fail=..., as xen/protocol.h has them."""
    vm = c.VM.clone(template(c), name)
    c.VM.provision(vm)
    for key, value in sim.items():
        c.VM.add_to_other_config(vm, f"sim:{key}", str(value))
    return vm


class PoolCase(unittest.TestCase):
    """One pool for all tests of the class, which run in the order of their
    names; it is formed before the first one."""
    members = 3
    options = ()
    network = None  # or "10.77.0", where that is ours
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        if not os.access(BUILD / "xenpoold", os.X_OK):
            raise RuntimeError(f"no xenpoold in {BUILD}: build first")
        cls.temporary = tempfile.TemporaryDirectory(prefix="xenpool-test-")
        cls.pool = cls.make_pool()
        cls.failed = False
        try:
            cls.prepare()
            cls.pool.form()
        except BaseException:
            cls.show_logs()
            cls.pool.stop()
            cls.temporary.cleanup()
            raise

    @classmethod
    def make_pool(cls):
        return LocalPool(BUILD, cls.temporary.name, n=cls.members,
                         options=cls.options, network=cls.network)

    @classmethod
    def prepare(cls):
        """Called before the members start."""

    @classmethod
    def tearDownClass(cls):
        cls.pool.stop()
        try:
            if cls.failed:
                cls.show_logs()
            found = [f"{m.address}: {line}" for m in cls.pool.members
                     for name in ("xenpoold", "executor")
                     for line in GONE_WRONG.findall(m.log(name))]
            if found:
                raise AssertionError("in the logs: " + "\n".join(found[:20]))
        finally:
            cls.temporary.cleanup()

    @classmethod
    def show_logs(cls):
        for m in cls.pool.members:
            for name in ("xenpoold", "executor"):
                text = m.log(name)[-int(os.environ.get("XENPOOL_LOG_TAIL", "2500")):]
                print(f"--- {name} of {m.address}\n{text}", file=sys.stderr)

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before:
            type(self).failed = True

    # ---- shorthand ----

    def client(self, index=0, **options):
        c = self.pool.members[index].client(**options)
        self.addCleanup(c.close)
        return c

    def error(self, call, *args):
        """The [code, params...] that the call fails with."""
        try:
            result = call(*args)
        except ApiError as e:
            return e.details
        self.fail(f"no error but {result!r}")

    def assert_error(self, wanted, call, *args):
        self.assertEqual(self.error(call, *args), wanted)

    def wait_ended(self, c, task, timeout=40):
        """The record of a task that has ended."""
        def ended():
            record = c.task.get_record(task)
            return record["status"] in ENDED and record
        return wait_for(ended, timeout, f"task {task} ends")

    # ---- what must hold when nothing is under way ----

    def unsettled(self, c):
        """Why the pool has not settled yet, or None."""
        for ref, task in c.task.get_all_records().items():
            if task["status"] not in ENDED and task["name_label"] != "parked":
                return f"task {task['name_label']} is {task['status']}"
        hosts = {m.host_ref(c): m for m in self.pool.members}
        known = set()
        for ref, vm in c.VM.get_all_records().items():
            if vm["is_a_template"] or vm["is_control_domain"]:
                continue
            known.add(vm["uuid"])
            if vm["current_operations"]:
                return f"{vm['name_label']} has {vm['current_operations']}"
            state = vm["power_state"]
            home = hosts.get(vm["resident_on"])
            found = self.pool.domains(vm["uuid"])
            wanted = [(home, state.lower())] if state in ("Running", "Paused") else []
            if found != wanted:
                return (f"{vm['name_label']} is {state} on "
                        f"{home and home.address}, its domains are "
                        f"{[(m.address, s) for m, s in found]}")
            if not wanted and vm["resident_on"] != NULL:
                return f"{vm['name_label']} is {state} but resident"
            if vm["scheduled_to_be_resident_on"] != NULL:
                return f"{vm['name_label']} is still scheduled"
        for ref, host in c.host.get_all_records().items():
            if host["current_operations"]:
                return f"{host['hostname']} has {host['current_operations']}"
        stray = [uuid for m in self.pool.members for uuid in m.domains()
                 if uuid not in known]
        return f"domains of no VM: {stray}" if stray else None

    def assert_settled(self, c, timeout=40):
        """Soon every task has ended, no operation is under way, and each VM has
        exactly the one domain that the database speaks of."""
        end = time.monotonic() + timeout * PATIENCE
        while True:
            why = self.unsettled(c)
            if not why:
                break
            if time.monotonic() > end:
                self.fail(why)
            rest(0.1)
        for m in self.pool.members:
            if m.daemon and m.daemon.poll() is None:
                wait_for(lambda: not self.jobs(m), 10, f"jobs go on {m.address}")

    def jobs(self, m):
        return m.rows("SELECT kind, step, error FROM job")

    def assert_at_most_one(self, uuid):
        """No VM ever runs twice. A reading of all hosts is not of one moment:
        what looks wrong must look the same at once again to count."""
        for _ in range(3):
            running = [m.address for m, s in self.pool.domains(uuid) if s == "running"]
            if len(running) <= 1:
                return
        self.fail(f"{uuid} runs on {running}")


# ---- bytes ----

def connect(address, port, tls=False, timeout=10, context=None):
    s = socket.create_connection((address, port), timeout=timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls or context:
        if context is None:
            context = tls_context()
        s = context.wrap_socket(s)
    return s


def send_raw(address, port, data, timeout=10, limit=1 << 20):
    """What the server says to these bytes until it closes or says no more."""
    s = connect(address, port, timeout=timeout)
    got = b""
    try:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it may hang up early; what it said still counts
        while len(got) < limit:
            chunk = s.recv(65536)
            if not chunk:
                break
            got += chunk
    except OSError:
        pass
    finally:
        s.close()
    return got


def status_of(answer):
    """HTTP status of raw bytes, 0 when they are none."""
    m = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(m.group(1)) if m else 0


def post(address, port, path, body, content_type="text/xml", timeout=20):
    """(status, headers, body) of one plain POST."""
    c = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        c.request("POST", path, body, {"Content-Type": content_type})
        r = c.getresponse()
        return r.status, dict(r.getheaders()), r.read()
    finally:
        c.close()


def post_json(address, port, request, timeout=20):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    status, headers, answer = post(address, port, "/jsonrpc", body,
                                   "application/json", timeout)
    return status, (json.loads(answer) if status == 200 else answer)
