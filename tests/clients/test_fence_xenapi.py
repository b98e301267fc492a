"""Debian's fence agent for XenAPI against every member."""
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
from harness import PoolCase, new_vm  # noqa: E402

AGENT = shutil.which("fence_xenapi") or shutil.which("fence_xenapi", path="/usr/sbin")


@unittest.skipUnless(AGENT, "fence_xenapi is not installed (Debian: fence-agents)")
class Fence(PoolCase):
    def fence(self, m, action, *options, code=0):
        done = subprocess.run(
            [AGENT, f"--session-url=http://{m.address}:{self.pool.http_port}",
             "--username=root", f"--password={self.pool.password}",
             f"--action={action}", "--power-timeout=20", *options],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        text = done.stdout + done.stderr
        self.assertEqual(done.returncode, code, text)
        return text

    def starts(self, c, uuid):
        """How often the VM was started; the agent reboots by off and on."""
        return sum(m["name"] == "VM_STARTED" and m["obj_uuid"] == uuid
                   for m in c.message.get_all_records().values())

    def test_every_member(self):
        c = self.client(0)
        vm = new_vm(c, "fenced")
        uuid = c.VM.get_uuid(vm)
        for m in self.pool.members:
            self.assertIn(f"{uuid},fenced", self.fence(m, "list"))
            self.assertIn("OFF", self.fence(m, "status", "--plug=fenced", code=2))
            self.fence(m, "on", "--plug=fenced")
            self.assertEqual(c.VM.get_power_state(vm), "Running")
            self.assertIn("ON", self.fence(m, "status", "--plug=fenced"))
            starts = self.starts(c, uuid)
            self.fence(m, "reboot", "--plug=fenced")
            self.assertEqual(c.VM.get_power_state(vm), "Running")
            self.assertEqual(self.starts(c, uuid), starts + 1)
            self.fence(m, "off", "--plug=fenced")
            self.assertEqual(c.VM.get_power_state(vm), "Halted")
        self.assertEqual(self.pool.domains(uuid), [])

    def test_what_it_cannot_do(self):
        m = self.pool.members[1]
        self.fence(m, "status", "--plug=no such VM", code=1)
        done = subprocess.run(
            [AGENT, f"--session-url=http://{m.address}:{self.pool.http_port}",
             "--username=root", "--password=wrong", "--action=list"],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 1)
        self.assertIn("SESSION_AUTHENTICATION_FAILED", done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
