"""What a guest and the toolstack see of each other on the real Xen: consoles,
nodes in the store, and what a host is."""
import os
import re
import struct
import tempfile
import unittest

from inside import SLOW, InsideCase, wait_for
from case import MIB
from harness import BUILD
from test_console import Viewer, write_png

AGENT = {"MajorVersion": "8", "MinorVersion": "2", "MicroVersion": "0",
         "BuildVersion": "77"}


class Inside(InsideCase):
    def on_text(self, name, kind, **data):
        """A guest on the first host and its console, asked of the second."""
        vm = self.talker(name, kind)
        self.c.VM.set_xenstore_data(vm, data)
        self.c.VM.start_on(vm, self.host_a, False, False)
        self.counts_beyond(vm, 0)
        return vm, self.open(self.b, vm)

    def test_01_text_console(self):
        """From the host that has the guest, and relayed by the other one."""
        vm, far = self.on_text("typed", "pvh")
        self.assertEqual(self.c.console.get_protocol(self.c.VM.get_consoles(vm)[0]),
                         "vt100")
        near = self.open(self.a, vm)
        for stream, words in ((far, b"from afar"), (near, b"from near")):
            stream.until(b"GUEST count ", SLOW)
            stream.send(b"echo " + words + b"\r")
            stream.until(b"GUEST echo " + words, SLOW)
        self.assertEqual(self.ask(near, "uname -s"), "Linux")
        self.c.VM.hard_shutdown(vm)
        for stream in (far, near):
            stream.ends(SLOW)

    def viewer(self, member, vm):
        folder = tempfile.TemporaryDirectory(prefix="xenlab-")
        self.addCleanup(folder.cleanup)
        viewer = Viewer(self.open(member, vm), folder.name)
        viewer.folder = folder.name
        self.addCleanup(viewer.close)
        return viewer

    def test_01b_host_console(self):
        """A terminal of either host asks who is there, whichever host is asked."""
        for m in self.pool.members:
            viewer = self.viewer(self.a, self.c.host.get_control_domain(m.host_ref(self.c)))
            viewer.wait("login:")
            viewer.line("nobody")
            viewer.wait("assword:")

    def test_02_screen(self):
        """The same terminal as a picture, for a client that speaks RFB."""
        vm = self.vm("shown", "pv", period=2)
        self.c.VM.start_on(vm, self.host_b, False, False)
        self.counts_beyond(vm, 0)
        self.assertEqual(self.c.console.get_protocol(self.c.VM.get_consoles(vm)[0]), "rfb")
        viewer = self.viewer(self.a, vm)
        self.assertRegex(viewer.ready, r"^ready RFB 3\.8 \d+ \d+ domain \d+$")
        viewer.wait("GUEST count ")
        viewer.line("echo painted by the guest")
        viewer.wait("GUEST echo painted by the guest")
        ppm = f"{viewer.folder}/console.ppm"
        self.assertEqual(viewer.ask(f"dump {ppm}"), ["ok"])
        picture = BUILD / "xenlab/logs/console.png"
        with open(ppm, "rb") as f:
            write_png(picture, f.read())
        width, height = struct.unpack(">II", picture.read_bytes()[16:24])
        self.assertGreaterEqual(width, 640)
        self.assertGreaterEqual(height, 400)

    # ---- nodes in the store ----

    def test_03_store(self):
        """What the pool tells a guest it can read, at once and later; what the
        guest writes the pool tells."""
        c = self.c
        vm, stream = self.on_text("told", "pv", **{"vm-data/greeting": "good morning"})
        self.assertEqual(self.ask(stream, "xenstore-read vm-data/greeting"),
                         "good morning")
        c.VM.add_to_xenstore_data(vm, "vm-data/later", "good evening")
        wait_for(lambda: self.ask(stream, "xenstore-read vm-data/later") == "good evening",
                 20, "the guest reads what came later")
        self.assertEqual(self.guest_metrics(vm).get("PV_drivers_version", {}), {})
        words = [f"attr/PVAddons/{k} {v}" for k, v in AGENT.items()]
        words += ["data/os_name Testix", "data/updated 1"]
        self.assertEqual(self.ask(stream, "xenstore-write " + " ".join(words)), "")
        record = wait_for(lambda: (r := self.guest_metrics(vm)) and
                          r["PV_drivers_version"] and r, 20, "the pool hears the guest")
        self.assertEqual(record["PV_drivers_version"],
                         {"major": "8", "minor": "2", "micro": "0", "build": "77"})
        wait_for(lambda: self.guest_metrics(vm)["os_version"].get("name") == "Testix",
                 20, "the pool knows the guest's system")
        self.assertIs(record["PV_drivers_detected"], True)
        # who reads what guests write has no rights of its own
        self.assertEqual(self.a.machine.run(
            "ps | awk '/xl-worker [g]uests/ { print $2 }'").split(), ["nobody"])

    # ---- hosts ----

    def test_04_what_a_host_is(self):
        for m in self.pool.members:
            info = dict(re.findall(r"^(\S+)\s*: (.*)$", m.machine.run("xl info"), re.M))
            h = self.c.host.get_record(m.host_ref(self.c))
            metrics = self.c.host_metrics.get_record(h["metrics"])
            self.assertAlmostEqual(int(metrics["memory_total"]) / MIB,
                                   int(info["total_memory"]), delta=2)
            self.assertEqual(h["cpu_info"]["cpu_count"], info["nr_cpus"])
            self.assertEqual(h["cpu_info"]["socket_count"], "1")
            self.assertEqual(h["cpu_info"]["vendor"], "AuthenticAMD")
            self.assertEqual(h["software_version"]["xen"], info["xen_version"])
            self.assertEqual(h["software_version"]["linux"],
                             m.machine.run("uname -r").strip())
            self.assertIn("hvm-3.0-x86_64", h["capabilities"])
            self.assertEqual(h["sched_policy"], info["xen_scheduler"])
            dom0 = self.c.VM.get_record(h["control_domain"])
            self.assertEqual(int(dom0["memory_static_max"]) // MIB, 448)
            wait_for(lambda: abs(self.memory_free(h) - self.xen_free(m)) <= 2, 20,
                     "the pool tells how much memory is free")

    def memory_free(self, host):
        """MiB, as the pool says."""
        metrics = self.c.host_metrics.get_record(host["metrics"])
        return int(metrics["memory_free"]) // MIB


if __name__ == "__main__":
    os.environ["XENPOOL_LAB"]  # nothing of this is simulated
    unittest.main(verbosity=2)
