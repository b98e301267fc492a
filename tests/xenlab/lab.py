"""The lab's pool: a xenpoold and a xenpool-executor in the dom0 of each machine,
driven like the pools of local processes that other tests use."""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
import contextlib

from localpool import NO_MAJORITY, PATIENCE, ApiError, Client, LocalPool, Member
from machine import Machine

BACKEND = os.environ.get("XENPOOL_LAB_BACKEND", "xen")
COUNT = re.compile(rb"GUEST count (\d+) up ")
XVDA = 51712  # Linux's number of the device, and 16 more for each next one
CONNECTED = "4"  # XenbusStateConnected
STATES = {"p": "paused", "s": "shutdown", "c": "shutdown", "d": "shutdown"}


class RemoteProcess:
    """A process in dom0, with the methods of Popen that are used here."""

    def __init__(self, machine, name, command):
        self.machine, self.returncode = machine, None
        line = " ".join(shlex.quote(str(c)) for c in command)
        self.pid = int(machine.run(
            f"setsid {line} </dev/null >>/share/log/{name}.log 2>&1 & echo $!"))

    def poll(self):
        if self.returncode is None:
            status, _ = self.machine.ask(
                f"[ -e /proc/{self.pid} ] && ! grep -q '^State:.*Z' /proc/{self.pid}/status")
            if status:
                self.returncode = 0  # what it was, nobody kept
        return self.returncode

    def send_signal(self, number):
        self.machine.ask(f"kill -{int(number)} {self.pid}")

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout=None):
        end = timeout and time.monotonic() + timeout
        while self.poll() is None:
            if end and time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"{self.machine.name}:{self.pid}", timeout)
            time.sleep(0.5)
        return self.returncode


class PatientClient(Client):
    """Reads again what a member could not read, being too busy to reach the
    others in time: two hosts share a processor or two with all else here."""

    def call(self, method, *params):
        end = time.monotonic() + 10 * PATIENCE
        while True:
            try:
                return super().call(method, *params)
            except ApiError as e:
                if (e.code not in NO_MAJORITY or ".get_" not in method
                        or time.monotonic() > end):
                    raise
            time.sleep(0.2)


class LabMember(Member):
    client_class = PatientClient

    @property
    def backend(self):
        """What it needs to know of the daemon to migrate to other hosts."""
        data = self.dir / "data"
        return (f"--backend={BACKEND}", f"--cert={data}/server.crt",
                f"--key={data}/server.key", f"--trust={data}/members.json",
                "--kernel-dir=/share/guest", "--disk-dir=/share/guest",
                f"--image-dir={self.dir}/images")

    def __init__(self, pool, index, machine):
        super().__init__(pool, index, machine.cable)
        self.machine = machine
        self.options = [f"--image-dir={self.dir}/images"]

    def _spawn(self, name, command, user=None):
        assert user is None, "dom0 has no other users"
        return RemoteProcess(self.machine, name, command)

    def endpoint(self, tls):
        if not tls:
            raise ValueError("the lab's hosts serve no plain HTTP")
        return self.machine.outside, 8443

    def log(self, name="xenpoold"):
        path = self.machine.share / "log" / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def images(self):
        return self.machine.run(f"ls {self.dir}/images").split()

    def consoles(self, uuid):
        """The files in which a guest's console output is."""
        return (self.machine.share / "console").glob(f"guest-{uuid}*.log")

    def rows(self, query):
        """From a copy of the member's pool.db. It is not copied at one moment,
        so that what cannot be read is copied again."""
        for attempt in range(5):
            self.machine.run(f"rm -rf /share/db; mkdir /share/db; "
                             f"cp {self.dir}/data/pool.db* /share/db/")
            with tempfile.TemporaryDirectory(prefix="xenlab-") as folder:
                for path in (self.machine.share / "db").iterdir():
                    if not path.name.endswith("-shm"):
                        shutil.copy(path, folder)
                try:
                    with contextlib.closing(sqlite3.connect(f"{folder}/pool.db")) as db:
                        return db.execute(query).fetchall()
                except sqlite3.DatabaseError:
                    if attempt == 4:
                        raise

    def domains(self):
        """{VM uuid: state}: the hypervisor's own list."""
        if BACKEND == "sim":
            text = self.machine.run(f"cat {self.dir}/xen/state.json 2>/dev/null || "
                                    "echo '{\"domains\": []}'")
            names = [None, "running", "paused", "shutdown"]
            return {d["vm"]: names[d["state"]] for d in json.loads(text)["domains"]}
        found = {}
        for line in self.machine.run("xl list -v").splitlines():
            m = re.search(r"\s([rbpscd-]{6})\s+[\d.]+\s+([0-9a-f-]{36})\s", line)
            if m and not m.group(2).startswith("00000000-"):
                found[m.group(2)] = next((STATES[c] for c in m.group(1) if c in STATES),
                                         "running")
        return found

    def domain(self, domid):
        """What Xen gives a domain now: numbers of disks and vifs (words about
        them when the guest does not use them), memory (bytes) and vcpus."""
        def device(words, number):
            return number if words[3] == CONNECTED else f"{number}: {words}"
        texts = self.machine.run(
            f"xl block-list {domid}; echo ==; xl network-list {domid}; echo ==; "
            f"xl list {domid}").split("==\n")
        disks, vifs, (whole,) = ([line.split() for line in text.splitlines()[1:]]
                                 for text in texts)
        return {"disks": [device(d, (int(d[0]) - XVDA) // 16) for d in disks],
                "vifs": [device([v[0], *v[2:]], int(v[0])) for v in vifs],
                "memory": int(whole[-4]) << 20, "vcpus": int(whole[-3])}

    def clear(self):
        """No daemon, no executor, no domain, no data: as if just installed."""
        self.machine.set_cable(True)
        self.machine.run(
            "killall -q -9 xenpoold xenpool-executor; "
            "for d in $(xl list | awk 'NR > 1 && $2 > 0 { print $2 }'); do "
            "xl destroy $d; done; rm -rf /data/host* /share/db; "
            "old=/share/old/$(date +%s.%N); mkdir -p $old; "
            "mv /share/log $old; mv /share/console/* $old; mkdir /share/log; "
            "echo secret >/data/password", timeout=120)


class LabPool(LocalPool):
    """On machines that run already. Hosts are slower here than processes are,
    and so are the daemons' deadlines."""

    def __init__(self, folder, network, *numbers, n=2, options=()):
        self.build = pathlib.PurePosixPath("/usr/sbin")
        self.dir = pathlib.PurePosixPath("/data")
        self.password = "secret"
        self.https_port, self.http_port, self.peer_port = 443, 0, 7443
        self.options = ["--election-timeout=15000", "--heartbeat=500",
                        "--host-dead-after=60000", "--min-free-mib=16", *options]
        self.machines = [Machine(int(i), folder, network) for i in numbers]
        self.members = [LabMember(self, i, m) for i, m in enumerate(self.machines[:n])]

    @classmethod
    def attach(cls, **options):
        """To the machines that tests/xenlab/run has started and gives us: all of a
        pair, or one."""
        return cls(*os.environ["XENPOOL_LAB"].split(","), **options)

    def folder_of(self, index):
        return self.dir / f"host{index + 1}"

    def clear(self):
        for i, machine in enumerate(self.machines):
            LabMember(self, i, machine).clear()

    def ticks(self, uuid):
        """The number that the guest has counted last; -1: none since its boot."""
        files = []
        for m in self.members:
            for path in m.consoles(uuid):
                with open(path, "rb") as f:
                    f.seek(max(os.fstat(f.fileno()).st_size - 4096, 0))
                    files.append((os.fstat(f.fileno()).st_mtime, f.read()))
        for _, text in sorted(files, reverse=True):
            since = text[text.rfind(b"GUEST boot") + 1:]
            found = COUNT.findall(since)
            if found or b"GUEST boot" in text:
                return int(found[-1]) if found else -1
        return -1

    def counts(self, uuid):
        """All numbers that the guest has said, host by host."""
        return [int(n) for m in self.members for path in m.consoles(uuid)
                for n in COUNT.findall(path.read_bytes())]

    def form(self, progress=lambda text: None):
        self.clear()
        for m in self.members:
            m.machine.run(f"mkdir -p {m.dir}")
        return super().form(progress)

    def stop(self):
        super().stop()  # the next pool clears away what is left
        for machine in self.machines:
            machine.hang_up()
