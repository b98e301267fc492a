"""Tests that look into guests: at their consoles, and at the nodes that they
write."""
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "lifecycle"))
from case import NULL, LifeCase, wait_for  # noqa: E402,F401
from harness import PATIENCE, connect  # noqa: E402
from test_console import Stream  # noqa: E402

SLOW = 20 * PATIENCE  # seconds


class InsideCase(LifeCase):
    def open(self, member, vm):
        """The console of a VM, asked of any member."""
        return self.open_ref(member, self.c.VM.get_consoles(vm)[0])

    def open_ref(self, member, ref):
        s = connect(*member.endpoint(True), tls=True, timeout=SLOW)
        self.addCleanup(s.close)
        s.sendall(f"CONNECT /console?ref={ref} HTTP/1.0\r\n"
                  f"cookie: session_id={self.c.session}\r\n\r\n".encode())
        head = s.recv(4096)
        self.assertTrue(head.startswith(b"HTTP/1.1 200 OK\r\n"), head)
        return Stream(s, head)

    def ask(self, stream, words):
        """What a command in the guest prints, typed on its console."""
        stream.send(f"run {words}\r".encode())
        stream.until(b"GUEST run ", SLOW)
        return stream.until(b"\n", SLOW).decode().strip()

    def talker(self, name, kind="pv", **more):
        """A VM whose console is one of text."""
        vm = self.vm(name, kind, period=2, **more)
        self.c.VM.add_to_other_config(vm, "disable_pv_vnc", "1")
        return vm

    def guest_metrics(self, vm):
        ref = self.c.VM.get_guest_metrics(vm)
        return self.c.VM_guest_metrics.get_record(ref) if ref != NULL else {}

    @staticmethod
    def xen_free(member):
        """MiB, as the hypervisor says."""
        return int(re.search(r"^free_memory\s*: (\d+)$", member.machine.run("xl info"),
                             re.M)[1])
