"""Consoles, from every member: what a client gets that connects to the path that
a console record names."""
import base64
import contextlib
import itertools
import os
import pathlib
import queue
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import unittest
import zlib

from harness import BUILD, PoolCase, connect, new_vm, status_of, wait_for

HEAD = (b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n"
        b"Cache-Control: no-cache, no-store\r\n\r\n")


class Stream:
    """A connection to a console, after its head."""

    def __init__(self, sock, head):
        self.sock, self.head, self.got = sock, head, b""

    def send(self, data):
        self.sock.sendall(data)

    def until(self, wanted, timeout=20):
        """All that comes up to and with the wanted bytes."""
        end = time.monotonic() + timeout
        while wanted not in self.got:
            left = end - time.monotonic()
            if left < 0:
                raise AssertionError(f"no {wanted} in time: {self.got[-300:]}")
            self.sock.settimeout(left)
            chunk = self.sock.recv(65536)
            if not chunk:
                raise AssertionError(f"ended before {wanted}: {self.got[-300:]}")
            # Of a flood only the end can hold the beginning of it.
            self.got = self.got[-4096:] + chunk
        at = self.got.index(wanted) + len(wanted)
        taken, self.got = self.got[:at], self.got[at:]
        return taken

    def exactly(self, n, timeout=20):
        self.sock.settimeout(timeout)
        while len(self.got) < n:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise AssertionError(f"ended after {self.got!r}")
            self.got += chunk
        taken, self.got = self.got[:n], self.got[n:]
        return taken

    def ends(self, timeout=20):
        """Reads to the end of the stream."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass


class WebSocket:
    """A client of RFC 6455, by hand."""

    def __init__(self, stream):
        self.stream = stream

    def send(self, payload, opcode=2, mask=b"\x11\x22\x33\x44"):
        n = len(payload)
        size = (bytes([0x80 | n]) if n < 126 else b"\xfe" + struct.pack(">H", n))
        self.stream.send(bytes([0x80 | opcode]) + size + mask +
                         bytes(b ^ mask[i % 4] for i, b in enumerate(payload)))

    def frame(self):
        """(opcode, payload)"""
        first, n = self.stream.exactly(2)
        if n == 126:
            n, = struct.unpack(">H", self.stream.exactly(2))
        elif n == 127:
            n, = struct.unpack(">Q", self.stream.exactly(8))
        assert first & 0x80, "a fragment"
        return first & 0x0f, self.stream.exactly(n)

    def until(self, wanted, timeout=20):
        got, end = b"", time.monotonic() + timeout
        while wanted not in got:
            opcode, payload = self.frame()
            assert opcode == 2 and time.monotonic() < end, (opcode, got[-200:])
            got += payload


def memory_kib(pid):
    """(VmRSS, parent) of a process."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return int(facts.get("VmRSS", "0").split()[0]), int(facts["PPid"]), facts


def children(parent):
    for path in pathlib.Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError, KeyError):
                if memory_kib(path.name)[1] == parent:
                    yield int(path.name)


class Viewer:
    """libvncclient behind a Unix socket, whose bytes go over a Stream. With
    version 3 the server's offer is rewritten, so that it speaks RFB 3.3; with
    "any" as an option the screen may be of any size, and has no text."""

    numbers = itertools.count()

    def __init__(self, stream, folder, version=8, options=()):
        self.stream, self.version = stream, version
        path = f"{folder}/viewer-{next(self.numbers)}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.bridge, daemon=True).start()
        self.process = subprocess.Popen(
            [BUILD / "tests/console/rfb_view", path, *options], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)
        self.said = queue.Queue()
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()
        self.ready = self.answer()

    def bridge(self):
        """One thread for both ways: a TLS connection is not for two at a time."""
        near, _ = self.listener.accept()
        far = self.stream.sock
        with near, contextlib.suppress(OSError, ValueError):
            offer = self.stream.exactly(12)
            near.sendall((b"RFB 003.003\n" if self.version == 3 else offer) +
                         self.stream.got)
            ways = {near: far, far: near}
            while True:
                for ready in select.select(list(ways), [], [], 60)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    while ready is far and far.pending():
                        data += far.recv(65536)
                    ways[ready].sendall(data)

    def listen(self):
        for line in self.process.stdout:
            self.said.put(line.rstrip("\n"))

    def answer(self, timeout=60):
        """The next line that the viewer says."""
        try:
            return self.said.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the viewer says nothing") from None

    def tell(self, line):
        self.process.stdin.write(line + "\n")

    def ask(self, line, answers=1):
        self.tell(line)
        return [self.answer() for _ in range(answers)]

    def wait(self, text):
        if self.ask(f"wait {text}") != ["ok"]:
            raise AssertionError(f"no {text!r} on\n" + "\n".join(self.text()))

    def text(self):
        return self.ask("text", 24)

    def line(self, text):
        self.tell(f"type {text}")
        self.tell("key 0xff0d")

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait(20)
        self.reader.join(20)
        self.process.stdout.close()
        self.listener.close()
        self.stream.sock.close()


def write_png(path, ppm):
    """A PPM as rfb_view writes it, as PNG."""
    magic, size, depth, pixels = ppm.split(b"\n", 3)
    width, height = map(int, size.split())
    rows = b"".join(b"\0" + pixels[y * width * 3:(y + 1) * width * 3]
                    for y in range(height))

    def chunk(kind, data):
        return (struct.pack(">I", len(data)) + kind + data +
                struct.pack(">I", zlib.crc32(kind + data)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" +
                     chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


class Console(PoolCase):
    members = 3

    def setUp(self):
        self.c = self.client(0)

    def request(self, member, target, headers=(), version="1.0", method="CONNECT"):
        """(socket, what the server says first)"""
        s = connect(member.address, 8443, tls=True, timeout=20)
        self.addCleanup(s.close)
        lines = [f"{method} {target} HTTP/{version}", *headers, "", ""]
        s.sendall("\r\n".join(lines).encode())
        return s, s.recv(10000)

    def open(self, member, target, headers=None, **options):
        if headers is None:
            headers = [f"cookie: session_id={self.c.session}"]
        s, head = self.request(member, target, headers, **options)
        return Stream(s, head)

    def status(self, member, target, headers=None, **options):
        if headers is None:
            headers = [f"cookie: session_id={self.c.session}"]
        return status_of(self.request(member, target, headers, **options)[1])

    def vm(self, name, text=True):
        vm = new_vm(self.c, name)
        if text:
            self.c.VM.add_to_other_config(vm, "disable_pv_vnc", "1")
        self.c.VM.start(vm, False, False)
        self.addCleanup(self.drop, vm)
        return vm, self.c.VM.get_consoles(vm)[0]

    def drop(self, vm):
        if self.c.VM.get_power_state(vm) != "Halted":
            self.c.VM.hard_shutdown(vm)
        self.c.VM.destroy(vm)

    def sessions(self, member):
        return {uuid for uuid, in member.rows("SELECT uuid FROM session")}

    # ---- text ----

    def test_01_text_from_every_member(self):
        vm, console = self.vm("text")
        uuid = self.c.console.get_uuid(console)
        self.assertEqual(self.c.console.get_protocol(console), "vt100")
        location = self.c.console.get_location(console)
        self.assertTrue(location.endswith(f"/console?uuid={uuid}"), location)
        for member in self.pool.members:
            s = self.open(member, f"/console?uuid={uuid}")
            self.assertEqual(s.head, HEAD)  # nothing else in the same record
            s.until(b"text")
            s.send(b"echo is it %s\r" % member.address.encode())
            s.until(b"\r\nis it %s\r\n" % member.address.encode())
            s.sock.close()

    def test_02_ways_to_name_it_and_oneself(self):
        vm, console = self.vm("names")
        uuid = self.c.console.get_uuid(console)
        basic = base64.b64encode(b"root:secret").decode()
        session = self.c.session
        member = self.pool.members[1]
        # pool.db is written behind: ours must be there.
        own = self.c.call("session.get_uuid", session)
        wait_for(lambda: own in self.sessions(member), 20, "our session is in pool.db")
        before = self.sessions(member)
        for target, headers in (
                (f"/console?ref={console}", None), (f"/console?ref={vm}", None),
                (f"/console?uuid={self.c.VM.get_uuid(vm)}", None),
                (f"/console?uuid={uuid}&ref=nonsense", None),
                (f"/console?session_id={session}&uuid={uuid}", []),
                (f"/console?uuid={uuid}", [f"Cookie: a=b; session_id={session}"]),
                (f"/console?uuid={uuid}", [f"Cookie: a=b&session_id={session}"]),
                (f"/console?uuid={uuid}", [f"Authorization: Basic {basic}"])):
            for version in ("1.0", "1.1"):
                s = self.open(member, target, headers, version=version)
                self.assertEqual(s.head, HEAD, target)
                s.until(b"names")
                s.sock.close()
        wait_for(lambda: self.sessions(member) <= before, 20,
                 "the sessions of those who came with a password are gone")

    def test_03_refused(self):
        vm, console = self.vm("refused")
        uuid = self.c.console.get_uuid(console)
        wrong = base64.b64encode(b"root:wrong").decode()
        none = "00000000-0000-4000-8000-000000000000"
        target = f"/console?uuid={uuid}"
        for member in self.pool.members:
            for wanted, answer in (
                    (401, self.status(member, target, [])),
                    (401, self.status(member, target, ["cookie: session_id=OpaqueRef:x"])),
                    (401, self.status(member, target, [f"Authorization: Basic {wrong}"])),
                    (401, self.status(member, target, ["Authorization: Basic ####"])),
                    (404, self.status(member, f"/console?uuid={none}")),
                    (404, self.status(member, f"/console?ref=OpaqueRef:{none}")),
                    (400, self.status(member, "/console")),
                    (400, self.status(member, "/console?uuid=%ff")),
                    (400, self.status(member, target, version="2.0")),
                    (400, self.status(member, target, ["content-length: 5",
                                                       f"cookie: session_id={self.c.session}"])),
                    (501, self.status(member, target, method="GET", version="1.1")),
            ):
                self.assertEqual(answer, wanted)
        self.c.VM.pause(vm)
        for member in self.pool.members:
            self.assertEqual(self.status(member, f"/console?ref={vm}"), 500)

    def viewer(self, member, target, version=8):
        s = self.open(member, target)
        self.assertEqual(s.head, HEAD)
        v = Viewer(s, self.temporary.name, version)
        self.addCleanup(v.close)
        return v

    def test_06_rfb(self):
        vm, console = self.vm("screen", text=False)
        self.assertEqual(self.c.console.get_protocol(console), "rfb")
        old, new = (self.viewer(m, f"/console?ref={console}", version)
                    for m, version in zip(self.pool.members, (3, 8)))
        self.assertEqual(old.ready, "ready RFB 3.3 640 432 screen")
        self.assertEqual(new.ready, "ready RFB 3.8 640 432 screen")
        for v in (old, new):
            v.wait("screen# ")
        new.line("echo Tell me 2+3=5, (please)!")
        for v in (old, new):  # what one types all see
            v.wait("Tell me 2+3=5, (please)!")
        old.line("colours")
        new.wait("colour 7")
        first = old.text()[0]
        self.assertRegex(first, r"^ screen +domain \d+ +up 00:00:")
        end = time.monotonic() + 20
        while new.text()[0] == first:  # the clock goes on
            self.assertLess(time.monotonic(), end)
            new.ask("look")
        picture = BUILD / "test-logs" / "console.png"
        picture.parent.mkdir(exist_ok=True)
        ppm = f"{self.temporary.name}/console.ppm"
        self.assertEqual(new.ask(f"dump {ppm}"), ["ok"])
        with open(ppm, "rb") as f:
            write_png(picture, f.read())
        home = self.c.VM.get_resident_on(vm)
        log = next(m for m in self.pool.members if m.host_ref(self.c) == home).log("executor")
        for version in ("RFB 3.3", "RFB 3.8"):
            self.assertIn(f"a viewer is here, {version}", log)

    def home(self, vm):
        ref = self.c.VM.get_resident_on(vm)
        return next(m for m in self.pool.members if m.host_ref(self.c) == ref)

    def upgrade(self, member, target, *more, **change):
        fields = {"cookie": f"session_id={self.c.session}", "upgrade": "websocket",
                  "connection": "keep-alive, Upgrade", "sec-websocket-version": "13",
                  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
                  "sec-websocket-protocol": "base64, binary"}
        fields.update({k.replace("_", "-"): v for k, v in change.items()})
        return self.open(member, target, [f"{k}: {v}" for k, v in fields.items() if v],
                         method="GET", version="1.1")

    def test_07_websocket(self):
        vm, console = self.vm("web")
        target = f"/console?ref={console}"
        for m in self.pool.members:
            s = self.upgrade(m, target)
            self.assertEqual(
                s.head, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                b"Sec-WebSocket-Protocol: binary\r\n\r\n")
            w = WebSocket(s)
            w.until(b"web")
            w.send(b"echo from the web\r")
            w.until(b"\r\nfrom the web\r\n")
            w.send(b"still there?", opcode=9)
            opcode, payload = w.frame()
            while opcode == 2:  # the clock
                opcode, payload = w.frame()
            self.assertEqual((opcode, payload), (10, b"still there?"))
            w.send(b"\x03\xe8", opcode=8)
            while opcode != 8:
                opcode, payload = w.frame()
            self.assertEqual(payload, b"\x03\xe8")
            s.ends()
        m = self.pool.members[0]
        for change in ({"sec_websocket_version": "8"}, {"sec_websocket_key": "short"},
                       {"sec_websocket_protocol": "base64"}, {"upgrade": None},
                       {"connection": "keep-alive"}):
            self.assertEqual(status_of(self.upgrade(m, target, **change).head), 501, change)
        self.assertEqual(status_of(self.upgrade(m, target, cookie=None).head), 401)
        w = WebSocket(self.upgrade(m, target, sec_websocket_protocol=None))
        self.assertNotIn(b"Protocol", w.stream.head.split(b"\r\n", 1)[1])
        w.send(b"text", opcode=1)
        opcode = 2
        while opcode == 2:
            opcode, payload = w.frame()
        self.assertEqual((opcode, payload), (8, b"\x03\xeb"))

    def test_08_floods_and_silence(self):
        """A guest that never stops writing, viewers that never read."""
        vm, console = self.vm("flood")
        quiet, other = self.vm("quiet")
        home = self.home(vm)
        away = next(m for m in self.pool.members if m is not home)
        target = f"/console?ref={console}"
        before = {m: memory_kib(m.daemon.pid)[0] for m in self.pool.members}
        silent = [self.open(m, target) for m in (home, away) for _ in range(4)]
        silent[0].send(b"flood\r")
        seen = self.open(home, target)
        seen.until(b"000 of a guest", 60)
        # Meanwhile everybody else is served.
        for m in self.pool.members:
            began = time.monotonic()
            self.client(self.pool.members.index(m)).VM.get_all()
            s = self.open(m, f"/console?ref={other}")
            s.until(b"quiet")
            s.send(b"echo served\r")
            s.until(b"\r\nserved\r\n")
            s.sock.close()
            self.assertLess(time.monotonic() - began, 20)
        seen.until(b"000 of a guest", 60)
        for m in self.pool.members:
            grown = memory_kib(m.daemon.pid)[0] - before[m]
            self.assertLess(grown, 32 * 1024, m.address)
        for pid in children(home.executor.pid):
            self.assertLess(memory_kib(pid)[0], 32 * 1024)
        seen.send(b"x")  # it stops at a key
        seen.until(b"\r\n\x1b[1;32mflood\x1b[0m# ", 60)
        # One who begins to read late gets to the end as well.
        seen.send(b"echo the end\r")
        silent[1].until(b"\r\nthe end\r\n", 60)

    def test_09_sandbox(self):
        vm, console = self.vm("boxed", text=False)
        v = self.viewer(self.home(vm), f"/console?ref={console}")
        v.wait("boxed# ")
        pids = list(children(self.home(vm).executor.pid))
        self.assertEqual(len(pids), 1)
        _, _, facts = memory_kib(pids[0])
        self.assertEqual(facts["Name"], "xenpool-vncterm")
        self.assertEqual((facts["NoNewPrivs"], facts["Seccomp"]), ("1", "2"))
        self.assertEqual(int(facts["CapEff"], 16), 0)
        if os.getuid() == 0:
            self.assertNotIn("0", facts["Uid"].split() + facts["Gid"].split())
            self.assertEqual(facts["Groups"].strip(), "")
            self.assertEqual(os.listdir(f"/proc/{pids[0]}/root"), [])
        inodes = {line.split()[9] for name in ("tcp", "tcp6", "udp", "udp6")
                  for line in open(f"/proc/net/{name}").readlines()[1:]}
        for fd in pathlib.Path(f"/proc/{pids[0]}/fd").iterdir():
            found = re.match(r"socket:\[(\d+)\]", os.readlink(fd))
            self.assertNotIn(found and found[1], inodes)

    def test_10_forbidden(self):
        """What the sandbox is for: denied, or the end of the process."""
        for what, signal in (("open", None), ("socket", 31), ("exec", 31), ("fork", 31)):
            tty, guest = socket.socketpair()
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(f"{self.temporary.name}/{what}")
            listener.listen(1)
            p = subprocess.Popen(
                [BUILD / "xenpool-vncterm", f"--tty-fd={guest.fileno()}",
                 f"--listen-fd={listener.fileno()}", "--try", what, "--user=65534",
                 f"--root={self.empty()}"],
                pass_fds=[guest.fileno(), listener.fileno()], stderr=subprocess.PIPE)
            guest.close()
            listener.close()
            if signal:
                said = p.communicate(timeout=20)[1]
                self.assertEqual(p.returncode, -signal, said)
                self.assertNotIn(b"was let", said)
            tty.close()
            if not signal:
                said = p.communicate(timeout=20)[1]
                self.assertEqual(p.returncode, 0, said)
                self.assertIn(b"open: Permission denied", said)

    def empty(self):
        path = pathlib.Path(self.temporary.name) / "empty"
        path.mkdir(exist_ok=True)
        return path

    def test_11_host(self):
        dom0 = self.c.host.get_control_domain(self.pool.members[1].host_ref(self.c))
        console, = self.c.VM.get_consoles(dom0)
        self.assertEqual(self.c.console.get_protocol(console), "rfb")
        v = self.viewer(self.pool.members[0], f"/console?ref={console}")
        v.wait("host# ")

    def test_12_one_at_a_time(self):
        """Also when the two come through different members."""
        pool, = self.c.pool.get_all()
        vm, console = self.vm("alone")
        target = f"/console?ref={console}"
        self.c.pool.set_limit_console_sessions(pool, True)
        self.addCleanup(self.c.pool.set_limit_console_sessions, pool, False)
        for first in self.pool.members:
            # The end of the last one has to get around first.
            s = wait_for(lambda: self.open_if_free(first, target), 20, "it is free")
            s.until(b"alone")
            for second in self.pool.members:
                refused = self.open(second, target).head
                self.assertTrue(refused.startswith(
                    b"HTTP/1.0 503 Connection Limit Exceeded\r\n"), refused)
            s.sock.close()

    def open_if_free(self, member, target):
        s = self.open(member, target)
        return s if s.head == HEAD else s.sock.close()

    def test_13_idle(self):
        """Who only looks is sent away; who types is not."""
        pool, = self.c.pool.get_all()
        vm, console = self.vm("idle", text=False)
        text, vt100 = self.vm("idler")
        away = next(m for m in self.pool.members if m is not self.home(vm))
        self.c.pool.set_vm_console_idle_timeout(pool, 4)
        self.addCleanup(self.c.pool.set_vm_console_idle_timeout, pool, 0)
        wait_for(lambda: all(m.rows("SELECT uuid FROM pool WHERE vm_console_idle_timeout = 4")
                             for m in self.pool.members), 10, "all know it")
        begin = time.monotonic()
        silent = self.open(away, f"/console?ref={vt100}")
        looks, types = (self.viewer(m, f"/console?ref={console}")
                        for m in (self.home(vm), away))
        while looks.ask("look") == ["ok"]:  # which asks for the picture
            types.line("echo")
            self.assertLess(time.monotonic() - begin, 40)
        self.assertGreater(time.monotonic() - begin, 3.5)
        types.line("echo still here")
        types.wait("still here")
        silent.ends()

    def test_04_ends_with_the_domain(self):
        vm, console = self.vm("ends")
        streams = [self.open(m, f"/console?ref={console}") for m in self.pool.members]
        for s in streams:
            s.until(b"ends")
        self.c.VM.hard_shutdown(vm)
        for s in streams:
            s.ends()
        self.assertEqual(self.status(self.pool.members[0], f"/console?ref={console}"), 404)

    def test_05_executor_and_member_die(self):
        vm, console = self.vm("crash")
        home = self.c.VM.get_resident_on(vm)
        there = next(m for m in self.pool.members if m.host_ref(self.c) == home)
        other = next(m for m in self.pool.members if m is not there)
        s = self.open(other, f"/console?ref={vm}")
        s.until(b"crash")
        there.kill("executor")
        s.ends()
        # By somebody who does not want to hear of processes that end.
        there.prefix = ["env", "--ignore-signal=CHLD"]
        there.start_executor()

        def again():
            with contextlib.suppress(OSError):
                return self.open_if_free(other, f"/console?ref={vm}")
        s = wait_for(again, 30, "the console is there again")
        s.until(b"crash")
        for pid in children(there.executor.pid):
            os.kill(pid, signal.SIGKILL)
        s.ends()
        wait_for(again, 30, "it is after its process was killed").until(b"crash")


if __name__ == "__main__":
    unittest.main()
