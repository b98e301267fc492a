"""Pools of real processes on loopback addresses, for the demo and the tests.

A LocalPool owns a folder and the processes that it started; nothing else is
ever signalled. Each member is one xenpoold and one xenpool-executor (simulated
Xen) on an address of its own.
"""
import contextlib
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import sqlite3
import ssl
import subprocess
import time

NULL = "OpaqueRef:NULL"
# All deadlines are so many times longer: for slow machines.
PATIENCE = float(os.environ.get("XENPOOL_PATIENCE", "1"))


def rest(seconds):
    """Between two looks at something that is awaited: where hosts are slow,
    looking takes the time that they need to get there."""
    time.sleep(max(min(seconds * PATIENCE / 2, 2), seconds))


# What a client sees of a member that is gone, or of one that has no majority.
BROKEN = (OSError, http.client.HTTPException, ValueError)
NO_MAJORITY = ("CANNOT_CONTACT_HOST", "HOST_STILL_BOOTING")


class ApiError(Exception):
    """A failure that the API answered: .code and .params."""

    def __init__(self, details):
        super().__init__(" ".join(map(str, details)))
        self.details = details
        self.code = details[0] if details else ""
        self.params = details[1:]


def tls_context():
    """Members' certificates are their own; who they are is not checked here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client:
    """One keep-alive JSON-RPC connection; proxy style: c.VM.start(ref, False, False).

    Calls get the session put in front. Connection errors surface as OSError or
    http.client.HTTPException.
    """

    def __init__(self, address, port=8443, tls=True, timeout=90):
        self.address, self.port, self.tls = address, port, tls
        self.timeout = timeout * PATIENCE
        self.session = None
        self.conn = None

    def _connect(self):
        if self.tls:
            self.conn = http.client.HTTPSConnection(
                self.address, self.port, timeout=self.timeout,
                context=tls_context())
        else:
            self.conn = http.client.HTTPConnection(
                self.address, self.port, timeout=self.timeout)
        self.conn.connect()
        self.conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def rpc(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method,
                           "params": list(params)})
        if self.conn is None:
            self._connect()
        try:
            self.conn.request("POST", "/jsonrpc", body,
                              {"Content-Type": "application/json"})
            answer = json.loads(self.conn.getresponse().read())
        except Exception:
            self.close()
            raise
        if "error" in answer:
            raise ApiError([answer["error"]["message"]] + answer["error"]["data"])
        return answer["result"]

    def login(self, user="root", password="secret"):
        self.session = self.rpc("session.login_with_password", user, password,
                                "2.23", "xenpool-tests")
        return self

    def call(self, method, *params):
        return self.rpc(method, self.session, *params)

    def __getattr__(self, cls):
        if cls.startswith("_"):
            raise AttributeError(cls)
        return _Class(self, cls)

    def close(self):
        if self.conn is not None:
            self.conn.close()
            self.conn = None

    def wait_task(self, task, timeout=60):
        """The task's result text; ApiError when it failed or was cancelled."""
        end = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < end:
            record = self.task.get_record(task)
            if record["status"] == "success":
                return record["result"]
            if record["status"] in ("failure", "cancelled"):
                raise ApiError(record["error_info"] or ["TASK_CANCELLED", task])
            rest(0.05)
        raise TimeoutError(f"task {task} still {record}")


class _Class:
    def __init__(self, client, name, prefix=""):
        self._client, self._name = client, name

    def __getattr__(self, method):
        if self._name == "Async":
            return _Class(self._client, "Async." + method)
        return lambda *a: self._client.call(f"{self._name}.{method}", *a)


def unwrap(result):
    """<value>x</value> -> x"""
    return result.removeprefix("<value>").removesuffix("</value>")


class Member:
    """One host: its daemon and its executor. Where processes run, how they are
    reached and what their hypervisor holds is for a subclass to change."""
    client_class = Client
    backend = ("--backend=sim", "--memory-mib=8192", "--cpus=4")

    def __init__(self, pool, index, address):
        self.pool, self.index, self.address = pool, index, address
        self.dir = pool.folder_of(index)
        self.daemon = self.executor = self._own = None
        self.options = []
        self.executor_options = []
        self.env = {}
        self.prefix = []  # put before the commands
        self.user = None  # number of an unprivileged user for the daemon

    def _spawn(self, name, command, user=None):
        log = open(self.dir / f"{name}.log", "ab")
        with log:
            return subprocess.Popen([str(c) for c in [*self.prefix, *command]],
                                    stdout=log,
                                    stderr=subprocess.STDOUT,
                                    stdin=subprocess.DEVNULL,
                                    env={**self.pool.env, **self.env},
                                    start_new_session=True, user=user,
                                    group=user,
                                    extra_groups=None if user is None else [])

    def start_executor(self, *extra):
        self.executor = self._spawn("executor", [
            self.pool.build / "xenpool-executor", *self.backend,
            f"--socket={self.dir}/executor.sock", f"--state-dir={self.dir}/xen",
            f"--migrate-address={self.address}", *self.executor_options, *extra])

    def start_daemon(self, *extra):
        pool = self.pool
        self.daemon = self._spawn("xenpoold", [
            pool.build / "xenpoold", f"--data-dir={self.dir}/data",
            f"--address={self.address}", f"--https-port={pool.https_port}",
            f"--http-port={pool.http_port}", f"--peer-port={pool.peer_port}",
            f"--executor-socket={self.dir}/executor.sock",
            f"--hostname=host{self.index + 1}",
            f"--root-password-file={pool.dir}/password",
            "--login-delay=200", *pool.options, *self.options, *extra],
            self.user)

    def start(self):
        self.start_executor()
        self.start_daemon()
        return self

    def arm(self, points=""):
        """From now on these failpoints (base/failpoint.h) are armed in the
        daemon. It must have been started after the first such call."""
        path = self.dir / "failpoints"
        new = path.with_suffix(".new")
        new.write_text(points)
        new.replace(path)
        self.env["XENPOOL_FAILPOINTS"] = f"file:{path}"

    def kill(self, what="daemon", sig=signal.SIGKILL):
        """Signals our own child and waits until it is gone."""
        child = getattr(self, what)
        if child and child.poll() is None:
            child.send_signal(sig)
            child.wait(20 * PATIENCE)
        return child.returncode if child else None

    def stop(self):
        if self._own:
            self._own.close()
        for what in ("daemon", "executor"):
            child = getattr(self, what)
            if child and child.poll() is None:
                child.terminate()
        for what in ("daemon", "executor"):
            child = getattr(self, what)
            if child:
                try:
                    child.wait(5 * PATIENCE)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    def endpoint(self, tls):
        """Where clients reach it from here."""
        return self.address, self.pool.https_port if tls else self.pool.http_port

    def client(self, login=True, tls=True, timeout=90):
        c = self.client_class(*self.endpoint(tls), tls, timeout)
        return c.login(password=self.pool.password) if login else c

    def log(self, name="xenpoold"):
        path = self.dir / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def rows(self, query):
        """What an SQL query finds in the member's pool.db, which is written a
        little behind."""
        path = self.dir / "data" / "pool.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True,
                                                timeout=10)) as db:
            return db.execute(query).fetchall()

    def domains(self):
        """{VM uuid: "running", "paused" or "shutdown"} of the simulated Xen."""
        try:
            state = json.loads((self.dir / "xen" / "state.json").read_text())
        except FileNotFoundError:
            return {}
        names = [None, "running", "paused", "shutdown"]
        return {d["vm"]: names[d["state"]] for d in state["domains"]}

    def images(self):
        """Names of the files of suspended VMs."""
        return sorted(p.name for p in (self.dir / "data/images").glob("*"))

    def ticks(self, vm_uuid):
        """ms that the simulated guest has run since its boot; -1: no domain."""
        path = self.dir / "xen" / "state.json"
        try:
            with open(path) as f:
                now = time.time() - os.fstat(f.fileno()).st_mtime
                state = json.load(f)
        except FileNotFoundError:
            return -1
        for d in state["domains"]:
            if d["vm"] == vm_uuid:
                return d["ticks"] + int(1000 * now * (d["state"] == 1))
        return -1

    def wait_up(self, timeout=20, every=0.05):
        """Until a login works here, tried again after so many seconds."""
        end = time.monotonic() + timeout * PATIENCE
        while True:
            if self.daemon.poll() is not None:
                raise RuntimeError(f"xenpoold of {self.address} ended with "
                                   f"{self.daemon.returncode}:\n" + self.log()[-3000:])
            c = self.client(login=False, timeout=5)
            try:
                if c.login(password=self.pool.password).pool.get_all():
                    return c
            except BROKEN + (ApiError,) as e:
                c.close()
                if time.monotonic() > end:
                    raise RuntimeError(f"{self.address} does not answer ({e!r}):\n"
                                       + self.log()[-3000:]) from e
            rest(every)

    def status(self, client=None):
        """What the member knows of itself. Logins are writes, so one session
        is used for as long as it lasts; its connection ends with the daemon."""
        if client:
            return self._status(client)
        if self._own:
            try:
                return self._status(self._own)
            except (ApiError, *BROKEN):
                self._own.close()
        self._own = None
        self._own = self.client(timeout=10)
        return self._status(self._own)

    @staticmethod
    def _status(c):
        host = c.call("session.get_this_host", c.session)
        return json.loads(c.call("host.call_plugin", host, "xenpool", "status", {}))

    def host_ref(self, client):
        for ref, record in client.host.get_all_records().items():
            if record["address"] == self.address:
                return ref
        raise KeyError(self.address)


class LocalPool:
    def __init__(self, build, folder, n=3, network=None, password="secret",
                 options=(), https_port=8443, http_port=8080, peer_port=7443):
        """network "127.0.0" gives 127.0.0.1, .2, ...; None: a random one."""
        self.build = pathlib.Path(build).resolve()
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.password = password
        self.https_port, self.http_port, self.peer_port = https_port, http_port, peer_port
        self.options = list(options)
        self.env = dict(os.environ)
        if network is None:
            network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.network = network
        fd = os.open(self.dir / "password", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(fd, password.encode() + b"\n")
        os.close(fd)
        self.members = [Member(self, i, f"{network}.{i + 1}") for i in range(n)]

    def folder_of(self, index):
        folder = self.dir / f"host{index + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def form(self, progress=lambda text: None):
        """Starts all members and joins the others to the first."""
        for m in self.members:
            m.start()
        first = self.members[0].wait_up()
        progress(f"{self.members[0].address} is up, a pool of one")
        for m in self.members[1:]:
            self.join(m)
            progress(f"{m.address} asked to join")
        self.wait_formed()
        first.close()
        return self

    def join(self, m):
        c = m.wait_up()
        c.pool.join(self.members[0].address + f":{self.https_port}", "root",
                    self.password)
        c.close()

    def add_member(self):
        """Starts one more member, a pool of its own that has yet to join."""
        n = len(self.members)
        self.members.append(Member(self, n, f"{self.network}.{n + 1}"))
        return self.members[-1].start()

    def domains(self, vm_uuid):
        """[(member, state)] of the VM's domains on all simulated hosts."""
        found = [(m, m.domains().get(vm_uuid)) for m in self.members]
        return [(m, state) for m, state in found if state]

    def ticks(self, vm_uuid):
        """How far the guest has counted, wherever it is; -1: not yet."""
        return max(m.ticks(vm_uuid) for m in self.members)

    def wait_formed(self, timeout=40):
        """Until every member answers, is live and enabled, and they vote: all of
        an odd number up to five, all but one of two or four."""
        end = time.monotonic() + timeout * PATIENCE
        want = len(self.members)
        voters = min(want if want % 2 else max(want - 1, 1), 5)
        seen = None
        while time.monotonic() < end:
            try:
                for m in self.members:
                    c = m._own or m.client(timeout=5)
                    m._own = c
                    hosts = c.host.get_all_records().values()
                    live = c.host_metrics.get_all_records()
                    seen = [(h["address"], h["enabled"],
                             live.get(h["metrics"], {}).get("live")) for h in hosts]
                    assert len(seen) == want and all(e and l for _, e, l in seen), seen
                    status = m.status(c)
                    seen = status
                    roles = [x["role"] for x in status["members"]]
                    assert roles.count("voter") >= voters, roles
                    assert "spare" not in roles, roles
                return
            except BROKEN + (ApiError, AssertionError, KeyError) as e:
                if not isinstance(e, AssertionError) and m._own:
                    m._own.close()
                    m._own = None
                seen = e if not isinstance(e, AssertionError) else seen
                rest(0.1)
        raise RuntimeError(f"the pool did not form: {seen!r}")

    def leader(self, timeout=20):
        """The member that serves as master now."""
        end = time.monotonic() + timeout * PATIENCE
        while time.monotonic() < end:
            for m in self.members:
                if m.daemon and m.daemon.poll() is None:
                    try:
                        if m.status()["is_serving_leader"]:
                            return m
                    except BROKEN + (ApiError, KeyError):
                        pass
            rest(0.05)
        raise RuntimeError("no member leads")

    def followers(self):
        leader = self.leader()
        return [m for m in self.members if m is not leader]

    def wait_converged(self, timeout=30):
        """Until all members show one generation and one digest; returns it."""
        end = time.monotonic() + timeout * PATIENCE
        seen = []
        while time.monotonic() < end:
            try:
                seen = [(s["generation"], s["digest"])
                        for s in (m.status() for m in self.members)]
                if len(set(seen)) == 1:
                    return seen[0]
            except BROKEN + (ApiError, KeyError) as e:
                seen = e
            rest(0.1)
        raise RuntimeError(f"members differ: {seen!r}")

    def stop(self):
        for m in self.members:
            m.stop()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()
