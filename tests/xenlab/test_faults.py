"""What dies, hangs or comes from nowhere on the real Xen: executor, daemon, the
processes that do their work, domains that nobody asked for, and orders of an
earlier time."""
import json
import os
import re
import shutil
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
        """Sets the trap; caught() waits for it."""
        script = HUNT % {"seen": seen or prey, "prey": prey, "signal": signal}
        member.machine.run("rm -f /share/prey; ("
                           f"{script}) </dev/null >/share/prey 2>/dev/null &")

    def caught(self, member):
        prey = member.machine.share / "prey"
        wait_for(lambda: prey.exists() and "caught" in prey.read_text(), 20,
                 "the trap has caught something", 0.2)

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
        wait_for(lambda: self.state(goes) == "Halted", 20, "its end is noticed", 1)
        self.assertEqual(self.state(stays), "Running")
        stream = self.answers(self.b, stays)
        wait_for(lambda: "1 domains of VMs that the pool does not know are left alone"
                 in self.a.log(), 20, "the stranger is told of", 1)
        stream.send(b"poweroff\r")
        wait_for(lambda: self.state(stays) == "Halted", 20, "the guest's end is noticed", 1)
        self.assertEqual(self.a.machine.ask("xl domid stranger")[0], 0)
        self.a.machine.run("xl destroy stranger")
        self.assert_settled(c)

    def test_02_daemon(self):
        """Killed while a VM starts: what its task says then is true."""
        c, vm = self.c, self.vm("begun", "pv")
        task = c.Async.VM.start_on(vm, self.host_b, False, False)
        wait_for(lambda: c.VM.get_current_operations(vm), 10, "it begins", 0.3)
        self.b.kill("daemon")
        self.b.start_daemon()
        record = self.wait_ended(c, task, 60)
        say(f"daemon killed in a start: {record['status']} {record['error_info']}")
        self.assertEqual(record["status"], "success")
        self.assert_settled(c)
        self.assertEqual(self.home(vm), self.b.address)
        self.counts_beyond(vm, 0)
        self.assert_one_life(vm)

    # ---- the processes that do the work ----

    def others_are_served(self):
        """On the same host, meanwhile."""
        vm = self.vm("other", "pv")
        self.c.VM.start_on(vm, self.host_a, True, False)
        self.c.VM.hard_shutdown(vm)
        self.c.VM.destroy(vm)
        self.made.remove(vm)

    def test_04_worker_of_a_suspend(self):
        """It, or libxl's own helper, killed or hung in the middle of the guest's
        memory: the guest counts on."""
        c, vm = self.c, self.begin(self.vm("sleeper", "pv"), self.host_a)
        worker = "xenpool-executor --xl-worker suspend"
        for prey, signal in ((worker, "KILL"), (HELPER, "KILL"), (worker, "STOP"),
                             (HELPER, "STOP")):
            self.hunt(self.a, prey, signal, HELPER)
            task = c.Async.VM.suspend(vm)
            self.caught(self.a)
            if signal == "STOP":
                self.others_are_served()
                c.task.cancel(task)
            record = self.wait_ended(c, task)
            say(f"{prey.split()[-1]} of a suspend, {signal}: {record['status']} "
                f"{record['error_info']}")
            self.assertEqual(record["status"],
                             "failure" if signal == "KILL" else "cancelled")
            self.assertEqual(self.state(vm), "Running")
            self.assert_counts(vm)
            self.assert_settled(c)
            self.assertNotIn("save-helper", self.a.machine.run("ps"))
        self.lost_image(vm)

    def lost_image(self, vm):
        """A suspended guest whose image is torn, and then gone, stays suspended
        until somebody gives it up."""
        c = self.c
        c.VM.suspend(vm)
        image = self.a.machine.run(f"echo {self.a.dir}/data/images/*").strip()
        self.assertIn(c.VM.get_uuid(vm), image)
        for harm, codes in ((f"truncate -s 8000000 {image}", ("INTERNAL_ERROR",)),
                            (f"rm {image}", ("SUSPEND_IMAGE_NOT_ACCESSIBLE",))):
            self.a.machine.run(harm)
            error = self.error(c.VM.resume, vm, False, False)
            say(f"{harm.split()[0]}: {' '.join(error)[:160]}")
            self.assertIn(error[0], codes)
            self.assertEqual(self.state(vm), "Suspended")
            self.assertEqual(self.domains_of(vm), [])
        c.VM.hard_shutdown(vm)
        self.assertEqual((self.state(vm), c.VM.get_suspend_VDI(vm)), ("Halted", NULL))
        self.assert_settled(c)

    # ---- orders from elsewhere ----

    def drive(self, member, host, *lines, user="root"):
        """(status, what the executor says) to orders from somebody who is not the
        daemon; the daemon must be dead, or it takes the connection back."""
        text = "\n".join(json.dumps(line) for line in lines)
        (member.machine.share / "orders").write_text(text + "\n")
        return member.machine.ask(
            f"su -s /bin/sh {user} -c '/share/drive {member.dir}/executor.sock {host} "
            "</share/orders' 2>&1", timeout=SLOW)

    def test_05_orders(self):
        """Of an earlier time: refused, also by an executor that was killed since. Of
        another user: not heard. A guest that obeys no request: told in time."""
        c, m = self.c, self.b
        drive = shutil.copy(BUILD / "tests/xen/drive", m.machine.share / "drive")
        os.chmod(drive, 0o755)
        vm = self.begin(self.vm("deaf", "pv", deaf=True), self.host_b)
        uuid, host = c.VM.get_uuid(vm), c.host.get_uuid(self.host_b)
        m.kill("daemon")
        m.kill("executor")
        m.start_executor()
        text = wait_for(lambda: (r := self.drive(m, host, {"list": True}))[0] == 0 and r[1],
                        10, "the executor listens", 1)
        fence = int(re.search(rf"vm={uuid} .* fence=(\d+)", text)[1])
        self.assertGreater(fence, 1)
        status, text = self.drive(m, host, *(
            {"verb": verb, "vm": uuid, "fence": fence - 1} for verb in
            ("pause", "hard_shutdown")))
        self.assertEqual(text.count(f"FENCED' '{uuid}' '{fence - 1}' '{fence}'"), 2, text)
        status, text = self.drive(m, host, {
            "verb": "clean_shutdown", "vm": uuid, "fence": fence,
            "params": {"timeout_s": 3}})
        self.assertIn(f"VM_SHUTDOWN_TIMEOUT' '{uuid}' '3'", text)
        status, text = self.drive(m, host, {"list": True}, user="nobody")
        self.assertNotEqual(status, 0)
        self.assertIn("Permission denied", text)
        m.start_daemon()
        m.wait_up(60).close()
        self.assertEqual(self.state(vm), "Running")
        self.assert_counts(vm)
        c.VM.set_shutdown_delay(vm, 2)
        c.VM.shutdown(vm)  # asks for so long, and then asks no more
        self.assertEqual(self.state(vm), "Halted")
        self.assert_settled(c)


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
