"""Consoles, from every member: what a client gets that connects to the path that
a console record names."""
import base64
import contextlib
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
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            chunk = self.sock.recv(65536)
            if not chunk:
                raise AssertionError(f"ended before {wanted}: {self.got[-300:]}")
            self.got += chunk
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


class Viewer:
    """libvncclient behind a Unix socket, whose bytes go over a Stream. With
    version 3 the server's offer is rewritten, so that it speaks RFB 3.3."""

    def __init__(self, stream, folder, version=8):
        self.stream, self.version = stream, version
        path = f"{folder}/viewer-{id(self)}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        threading.Thread(target=self.bridge, daemon=True).start()
        self.process = subprocess.Popen(
            [BUILD / "tests/console/rfb_view", path], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, bufsize=1)
        self.ready = self.process.stdout.readline().strip()

    def bridge(self):
        near, _ = self.listener.accept()
        far = self.stream.sock
        offer = self.stream.exactly(12)
        near.sendall(b"RFB 003.003\n" if self.version == 3 else offer)

        def copy():
            with contextlib.suppress(OSError):
                while data := near.recv(65536):
                    far.sendall(data)
        threading.Thread(target=copy, daemon=True).start()
        with contextlib.suppress(OSError, ValueError):
            near.sendall(self.stream.got)
            far.settimeout(60)
            while data := far.recv(65536):
                near.sendall(data)
        near.close()

    def tell(self, line):
        self.process.stdin.write(line + "\n")

    def ask(self, line, answers=1):
        self.tell(line)
        return [self.process.stdout.readline().rstrip("\n") for _ in range(answers)]

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
        return sorted(member.rows("SELECT uuid FROM session"))

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
        wait_for(lambda: self.sessions(member) == before, 20,
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
        there.start_executor()

        def again():
            try:
                t = self.open(other, f"/console?ref={vm}")
            except OSError:
                return None
            return t if t.head == HEAD else t.sock.close()
        wait_for(again, 30, "the console is there again").until(b"crash")


if __name__ == "__main__":
    unittest.main()
