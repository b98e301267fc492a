"""Consoles, from every member: what a client gets that connects to the path that
a console record names."""
import base64
import time
import unittest

from harness import PoolCase, connect, new_vm, status_of, wait_for

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

    def ends(self, timeout=20):
        """Reads to the end of the stream."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionError:
            pass


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

    def vm(self, name, **sim):
        vm = new_vm(self.c, name, **sim)
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
