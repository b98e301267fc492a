"""What dies, hangs or comes from nowhere on the real Xen: executor, daemon, the
processes that do their work, domains that nobody asked for, and orders of an
earlier time."""
import json
import os
import re
import shutil
import subprocess
import time
import unittest

from inside import SLOW, InsideCase, wait_for
from case import NULL, QUICK, say
from harness import BUILD

# Waits for a process of libxl's work, and sends a signal to it, or to one of the
# kind beside it. Only bash's own words: a process is dear here.
HUNT = r"""hunt() { for d in /proc/[0-9]*; do mapfile -d '' -t a <$d/cmdline || continue
case "${a[0]##*/} ${a[1]:-} ${a[2]:-}" in "$1"*) p=${d##*/}; return 0 ;; esac; done; return 1; }
exec 9<> <(:)
for i in {1..3000}; do hunt '%(seen)s' && break; read -t 0.02 -u 9; done
hunt '%(prey)s' && kill -%(signal)s $p && echo caught $p"""
HELPER = "libxl-save-helper"
STRANGER = """name = "stranger"
type = "pv"
kernel = "/share/guest/vmlinux"
ramdisk = "/share/guest/guest.cpio"
extra = "%s"
memory = 128
uuid = "5eed0000-0000-4000-8000-00000000dead"
"""


class Faults(InsideCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.mend)

    def mend(self):
        """What a test that failed has left dead cannot clear away."""
        for m in self.pool.members:
            for what in ("executor", "daemon"):
                if getattr(m, what).poll() is not None:
                    getattr(m, f"start_{what}")()

    def begin(self, vm, host):
        self.c.VM.start_on(vm, host, False, False)
        self.counts_beyond(vm, 0)
        return vm

    def hunt(self, member, prey, signal, seen=None):
        """Arms the trap; what it has caught is told by caught()."""
        script = HUNT % {"seen": seen or prey, "prey": prey, "signal": signal}
        member.machine.run("rm -f /share/prey; ("
                           f"{script}) </dev/null >/share/prey 2>/dev/null &")

    def caught(self, member):
        prey = member.machine.share / "prey"
        return wait_for(prey.exists, 10, "the trap is set") and prey.read_text()

    def answers(self, member, vm):
        """Its console does."""
        stream = self.open(member, vm)
        stream.send(b"echo still here\r")
        stream.until(b"GUEST echo still here", SLOW)
        return stream

    # ---- executor and daemon ----

    def test_01_executor(self):
        """What happened while no executor looked is found when it looks again. A
        domain that is nobody's is told of, and left alone."""
        c = self.c
        stays, goes = self.talker("stays"), self.vm("goes", "pv")
        for task in [c.Async.VM.start_on(vm, self.host_a, False, False)
                     for vm in (stays, goes)]:
            c.wait_task(task, 60)
        self.counts_beyond(stays, 0)
        (self.a.machine.share / "stranger").write_text(
            STRANGER % " ".join(("console=hvc0", *QUICK)))
        self.a.kill("executor")
        self.a.machine.run(f"xl destroy {c.VM.get_uuid(goes)}; "
                           "xl create -q -e /share/stranger", timeout=SLOW)
        self.assertEqual(self.state(goes), "Running")
        self.a.start_executor()
        wait_for(lambda: self.state(goes) == "Halted", 20, "its end is noticed")
        self.assertEqual(self.state(stays), "Running")
        stream = self.answers(self.b, stays)
        wait_for(lambda: "1 domains of VMs that the pool does not know are left alone"
                 in self.a.log(), 20, "the stranger is told of")
        stream.send(b"poweroff\r")
        wait_for(lambda: self.state(stays) == "Halted", 20, "the guest's end is noticed")
        self.assertEqual(self.a.machine.ask("xl domid stranger")[0], 0)
        self.a.machine.run("xl destroy stranger")
        self.assert_settled(c)


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
