"""HVM guests: what their QEMU shows and takes, and how little it may do."""
import itertools
import os
import pathlib
import re
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE.parent / "lifecycle"))
from case import MIB, NULL, LifeCase, new_vm, wait_for  # noqa: E402
from harness import BUILD, PATIENCE, connect  # noqa: E402
from test_console import Stream, Viewer, write_png  # noqa: E402

FOLDER = "/share/guest"
SLOW = 20 * PATIENCE  # seconds
USER = "xen-qemuuser-range-base"
FIRST_UID = 131072
# Rows of numbers on the guest's screen: see hvm-guest.S.
COUNT, KEY, CD, WRITTEN = 6, 10, 14, 18
QEMU = "pidof xen-qemu-system-i386 || true"


class Picture:
    """A screen of 80 by 25 cells, as rfb_view dumps it."""

    def __init__(self, path):
        self.ppm = pathlib.Path(path).read_bytes()
        _, size, _, self.pixels = self.ppm.split(b"\n", 3)
        self.width, self.height = map(int, size.split())

    def red(self, column, row):
        """Of the middle of a cell: the guest's ground is blue."""
        x = int((column + 0.5) * self.width / 80)
        y = int((row + 0.5) * self.height / 25)
        return self.pixels[3 * (y * self.width + x)]

    def number(self, row):
        return sum(1 << 15 - i for i in range(16) if self.red(10 + 4 * i, row) > 0x80)

    def colours(self):
        return {self.pixels[i:i + 3] for i in range(0, len(self.pixels), 3)}


class Hvm(LifeCase):
    vm = None

    def setUp(self):
        super().setUp()
        if not type(self).vm:
            type(self).vm = self.make()
        self.vm = type(self).vm

    def runs(self):
        if self.state(self.vm) == "Halted":
            self.c.VM.start_on(self.vm, self.host_a, False, False)
        if self.state(self.vm) == "Paused":
            self.c.VM.unpause(self.vm)

    def make(self):
        c = self.c
        sr = c.SR.create(NULL, {"location": FOLDER}, "0", "files", "", "file", "user",
                         True, {})
        disk, iso = (c.VDI.introduce("", "", "", sr, "user", False, ro, {}, name)
                     for name, ro in (("hvm.img", False), ("guest.cpio", True)))
        type(self).iso = iso
        vm = new_vm(c, "emulated")
        c.VM.set_domain_type(vm, "hvm")
        c.VM.set_HVM_boot_params(vm, {"order": "c"})
        c.VM.set_memory_limits(vm, *[96 * MIB] * 4)
        self.drive(vm, "0", disk, "Disk", "RW")
        type(self).cd = self.drive(vm, "2", iso, "CD", "RO")
        return vm

    def drive(self, vm, device, disk, kind, mode):
        return self.c.VBD.create({
            "VM": vm, "VDI": disk, "userdevice": device, "bootable": kind == "Disk",
            "mode": mode, "type": kind, "unpluggable": False, "empty": disk == NULL,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})

    # ---- the screen ----

    def view(self, member):
        """A viewer of the screen that the guest has after its BIOS's start."""
        def at_last():
            viewer = self.connect(member)
            if viewer.ready.startswith("ready RFB 3.8 720 400 "):
                self.addCleanup(viewer.close)
                return viewer
            viewer.close()
            return None
        return wait_for(at_last, 20, "a screen of text", pause=0.5)

    def connect(self, member):
        ref = self.c.VM.get_consoles(self.vm)[0]
        s = connect(*member.endpoint(True), tls=True, timeout=SLOW)
        s.sendall(f"CONNECT /console?ref={ref} HTTP/1.0\r\n"
                  f"cookie: session_id={self.c.session}\r\n\r\n".encode())
        head = s.recv(4096)
        if not head.startswith(b"HTTP/1.1 200 OK\r\n"):
            s.close()
            self.fail(head)
        folder = tempfile.TemporaryDirectory(prefix="xenlab-")
        self.addCleanup(folder.cleanup)
        viewer = Viewer(Stream(s, head), folder.name, options=["any"])
        viewer.file = f"{folder.name}/screen.ppm"
        return viewer

    def picture(self, viewer):
        self.assertEqual(viewer.ask("look"), ["ok"])
        self.assertEqual(viewer.ask(f"dump {viewer.file}"), ["ok"])
        return Picture(viewer.file)

    def shows(self, viewer, row, wanted, what):
        """The picture, once the number in a row is as wanted."""
        def look():
            p = self.picture(viewer)
            return p if wanted(p.number(row)) else None
        return wait_for(look, 20, what)

    def counts(self, viewer):
        first = self.shows(viewer, COUNT, lambda n: n > 0, "the guest counts").number(COUNT)
        return self.shows(viewer, COUNT, lambda n: n > first, "the guest counts on")

    def still(self, viewer):
        """The count that stays, after what was on its way: for ten looks of 0.2 s,
        in which it would be more by four."""
        def stays():
            return len(numbers := {self.picture(viewer).number(COUNT)
                                   for _ in range(10)}) == 1 and numbers
        return wait_for(stays, 20, "the guest does not count").pop()

    def press(self, viewer, key):
        """Until the guest has taken it, and once more when it does not for a while:
        it may still be in its BIOS."""
        looks = itertools.count()

        def taken():
            if next(looks) % 8 == 0:
                viewer.tell(f"type {key}")
            return self.picture(viewer).number(KEY) == ord(key)
        wait_for(taken, 20, f"the guest takes the key {key}", pause=0.1)

    def qemu(self, member=None):
        """Numbers of the host's device models."""
        return (member or self.a).machine.run(QEMU).split()

    def blocks(self):
        """QEMU's drives, as it says itself."""
        return self.a.machine.run(f"xl qemu-monitor-command {self.c.VM.get_domid(self.vm)} "
                                  "'info block'")

    # ---- tests ----

    def test_01_screen(self):
        """A picture for two viewers, and keys the other way."""
        c = self.c
        self.runs()
        self.assert_domain(self.vm, "running")
        console, = c.VM.get_consoles(self.vm)
        self.assertEqual(c.console.get_protocol(console), "rfb")
        first, second = self.view(self.a), self.view(self.a)
        picture = self.counts(second)
        self.assertGreater(len(picture.colours()), 2)
        write_png(BUILD / "xenlab/logs/hvm.png", picture.ppm)
        self.press(second, "x")
        self.shows(first, KEY, lambda n: n == ord("x"), "the other viewer sees the key")
        c.VM.pause(self.vm)
        self.assert_domain(self.vm, "paused")
        before = self.still(first)
        c.VM.unpause(self.vm)
        self.shows(first, COUNT, lambda n: n > before, "the guest counts again")
        self.assert_settled(c)

    def test_02_device_model(self):
        """No rights, an empty root folder, no port: not even on loopback."""
        self.runs()
        pid, = self.qemu()
        run = self.a.machine.run
        domid = int(self.c.VM.get_domid(self.vm))
        status = dict(line.split(":\t", 1) for line in
                      run(f"cat /proc/{pid}/status").splitlines() if ":\t" in line)
        self.assertEqual(set(status["Uid"].split()), {str(FIRST_UID + domid)})
        self.assertNotIn("0", status["Gid"].split() + status["Groups"].split())
        for kind in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
            self.assertEqual(int(status[kind], 16), 0)
        root = run(f"readlink /proc/{pid}/root").strip()
        self.assertRegex(root, r"^/run/xen/qemu-root-\d+$")
        self.assertEqual(run(f"ls -A {root}"), "")
        ports = {int(line.split()[1].split(":")[1], 16) for line in
                 run("cat /proc/net/tcp /proc/net/tcp6").splitlines()
                 if " 0A " in line}  # those that listen
        self.assertEqual(ports, {7000, 443, 7443})
        folder = run("ls -ld /run/xen/xenpool-vnc").split()
        self.assertEqual((folder[0], folder[2]), ("drwx------", "root"))
        uuid = self.c.VM.get_uuid(self.vm)
        self.assertIn(f"/run/xen/xenpool-vnc/{uuid}", run("cat /proc/net/unix"))

    def test_03_drives(self):
        """The CD that is taken out and put in, and a disk to write to."""
        self.runs()
        c, viewer = self.c, self.view(self.a)
        self.press(viewer, "c")
        first = int.from_bytes(b"07", "little")  # of an archive's first number
        self.shows(viewer, CD, lambda n: n == first, "the guest reads the CD")
        self.assert_error(["VBD_NOT_EMPTY", self.cd], c.VBD.insert, self.cd, self.iso)
        c.VBD.eject(self.cd)
        self.assertIs(c.VBD.get_empty(self.cd), True)
        self.assert_error(["VBD_IS_EMPTY", self.cd], c.VBD.eject, self.cd)
        self.press(viewer, "x")
        self.press(viewer, "c")
        self.shows(viewer, CD, lambda n: n == 0xffff, "the CD is gone")
        self.assertIn("[not inserted]", self.blocks())
        c.VBD.insert(self.cd, self.iso)
        self.assertIs(c.VBD.get_empty(self.cd), False)
        self.assertNotIn("[not inserted]", self.blocks())
        self.press(viewer, "w")
        self.counts(viewer)
        self.assertEqual(self.picture(viewer).number(WRITTEN), 0)
        written = f"dd if={FOLDER}/hvm.img bs=512 skip=1024 count=1 2>/dev/null"
        wait_for(lambda: self.a.machine.run(written).startswith("XX"), 20,
                 "what the guest wrote is on the disk")
        self.assert_settled(c)

    def says_it_can_suspend(self):
        """For a guest without drivers."""
        domid = self.c.VM.get_domid(self.vm)
        self.a.machine.run("for f in suspend shutdown; do xenstore-write "
                           f"/local/domain/{domid}/control/feature-$f 1; done")
        wait_for(lambda: "suspend" in self.c.VM.get_allowed_operations(self.vm), 20,
                 "the guest could be suspended")

    def test_04_it_stays(self):
        """QEMU without rights could not open the disks again: nothing is begun,
        also when the guest's drivers would take part."""
        self.runs()
        c, viewer = self.c, self.view(self.a)
        self.says_it_can_suspend()
        error = self.error(c.VM.suspend, self.vm)
        self.assertEqual(error[:2], ["VM_NON_SUSPENDABLE", self.vm])
        self.assertIn("--device-model", error[2])
        self.counts(viewer)
        self.assert_domain(self.vm, "running")
        self.assert_settled(c)

    def test_05_endings(self):
        """Of the machine, by whomever: no QEMU is left."""
        self.runs()
        c = self.c
        before = c.VM.get_domid(self.vm), self.qemu()
        c.VM.hard_reboot(self.vm)
        self.assertNotEqual(c.VM.get_domid(self.vm), before[0])
        self.assertNotEqual(self.qemu(), before[1])
        viewer = self.view(self.a)
        self.counts(viewer)
        viewer.tell("type q")  # the guest turns its power off
        wait_for(lambda: self.state(self.vm) == "Halted", 20, "the guest ends")
        wait_for(lambda: not self.qemu(), 20, "its QEMU ends")
        c.VM.start_on(self.vm, self.host_a, False, False)
        self.assertEqual(len(self.qemu()), 1)
        c.VM.hard_shutdown(self.vm)
        self.assertEqual(self.qemu(), [])
        self.assertEqual(self.domains_of(self.vm), [])
        self.assertEqual(self.a.machine.run("ls -A /run/xen/xenpool-vnc"), "")
        self.assert_settled(c)

    def test_06_no_user(self):
        """A host without the user says so, and runs no QEMU as root instead."""
        c, run = self.c, self.a.machine.run
        if self.state(self.vm) != "Halted":
            c.VM.hard_shutdown(self.vm)
        passwd = run("cat /etc/passwd")
        run(f"sed -i /{USER}/d /etc/passwd")
        try:
            error = self.error(c.VM.start_on, self.vm, self.host_a, False, False)
        finally:
            run(f"cat >/etc/passwd <<'END'\n{passwd}\nEND")
        self.assertEqual(error[0], "INTERNAL_ERROR")
        self.assertTrue(re.search(f"no user {USER} on this host", error[1]), error)
        self.assertEqual(self.state(self.vm), "Halted")
        self.assertEqual(self.domains_of(self.vm), [])
        self.assert_settled(c)

    def test_07_with_rights(self):
        """A host whose QEMU keeps root's rights can suspend its guests: the screen
        and the count go on from where they were."""
        c = self.c
        if self.state(self.vm) != "Halted":
            c.VM.hard_shutdown(self.vm)
        self.a.kill("executor")
        self.a.start_executor("--device-model=root")
        wait_for(lambda: c.host.get_enabled(self.host_a), 20, "the host serves again")
        self.runs()
        self.counts(viewer := self.view(self.a))
        self.says_it_can_suspend()
        before = self.shows(viewer, COUNT, lambda n: n > 20, "it counts").number(COUNT)
        c.VM.suspend(self.vm)
        self.assertEqual((self.state(self.vm), self.qemu()), ("Suspended", []))
        self.assertEqual(self.domains_of(self.vm), [])
        c.VM.resume(self.vm, False, False)
        self.assert_domain(self.vm, "running")
        count = self.counts(self.view(self.a)).number(COUNT)
        self.assertGreater(count, before)
        self.assertEqual(len(self.qemu()), 1)
        c.VM.hard_shutdown(self.vm)
        self.assertEqual(self.qemu(), [])
        self.assert_settled(c)


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
