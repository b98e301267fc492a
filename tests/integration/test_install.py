#!/usr/bin/env python3
"""What `make install` puts on a host: the services, and the daemon as the
unprivileged user that it is meant to be, beside an executor of root's."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from harness import BUILD, PoolCase, new_vm, wait_for

NOBODY = 65534
SYSTEMD = shutil.which("systemd-analyze")


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory(prefix="xenpool-install-")
        cls.root = pathlib.Path(cls.temporary.name)
        cls.install()

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    @classmethod
    def install(cls):
        subprocess.run(["make", "-s", "-C", BUILD, "install", "prefix=/usr",
                        "sysconfdir=/etc", f"DESTDIR={cls.root}"],
                       check=True, stdout=subprocess.DEVNULL)

    def test_1_files(self):
        for name in ("usr/sbin/xenpoold", "usr/sbin/xenpool-executor",
                     "usr/bin/xenpoolctl", "usr/share/man/man8/xenpoold.8",
                     "usr/lib/sysusers.d/xenpool.conf", "etc/xenpool/xenpoold.conf",
                     "usr/share/bash-completion/completions/xenpoolctl"):
            self.assertTrue((self.root / name).is_file(), name)

    def test_2_configuration_stays(self):
        conf = self.root / "etc/xenpool/xenpoold.conf"
        conf.write_text("address = 127.0.0.9\n")
        self.install()
        self.assertEqual(conf.read_text(), "address = 127.0.0.9\n")

    def test_3_configuration_is_taken(self):
        sample = (pathlib.Path(__file__).parents[2] /
                  "tools/systemd/xenpoold.conf").read_text()
        conf = self.root / "all.conf"
        conf.write_text(sample.replace("\n#address", "\naddress")
                        .replace("\n#root-pass", "\nroot-pass"))
        for options, wanted in (([], "192.0.2.11 port 443"),
                                (["--address=127.0.0.9", "--https-port=8443",
                                  "--http-port=8080"], "/proc/none")):
            ran = subprocess.run([self.root / "usr/sbin/xenpoold", f"--config={conf}",
                                  "--data-dir=/proc/none", *options],
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                 text=True, timeout=20)
            self.assertEqual(ran.returncode, 1, ran.stdout)
            self.assertIn(wanted, ran.stdout)

    @unittest.skipUnless(SYSTEMD, "no systemd here")
    def test_4_services(self):
        units = self.root / "usr/lib/systemd/system"
        for name in ("sysinit", "basic", "shutdown", "multi-user", "network-online"):
            (units / f"{name}.target").write_text("[Unit]\n")
        for name in ("system", "-"):
            (units / f"{name}.slice").write_text("[Unit]\nDefaultDependencies=no\n")
        for name in ("xenpoold", "xenpool-executor"):
            ran = subprocess.run([SYSTEMD, "verify", "--man=no", f"--root={self.root}",
                                  f"{name}.service"], stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, timeout=60)
            wrong = [line for line in ran.stdout.splitlines()
                     if "xenpool" in line and "not found" not in line]
            self.assertEqual((ran.returncode, wrong), (0, []), ran.stdout)


@unittest.skipUnless(os.getuid() == 0, "only root can start both")
class Unprivileged(PoolCase):
    """The daemon as nobody, the executor as root."""
    members = 1

    @classmethod
    def prepare(cls):
        os.chmod(cls.temporary.name, 0o755)
        m = cls.pool.members[0]
        m.user = NOBODY
        m.executor_options += [f"--socket-owner={NOBODY}", f"--image-dir={m.dir}/images"]
        m.options.append(f"--image-dir={m.dir}/images")
        (m.dir / "data").mkdir()
        for path in (m.dir / "data", pathlib.Path(cls.pool.dir) / "password"):
            os.chown(path, NOBODY, NOBODY)

    def status(self, child):
        text = pathlib.Path(f"/proc/{child.pid}/status").read_text()
        return dict(line.split(":\t", 1) for line in text.splitlines())

    def test_1_users(self):
        m = self.pool.members[0]
        daemon = self.status(m.daemon)
        self.assertEqual(set(daemon["Uid"].split()), {str(NOBODY)})
        self.assertEqual(daemon["Groups"].strip(), "")
        self.assertEqual(int(daemon["CapEff"], 16), 0)
        self.assertEqual(set(self.status(m.executor)["Uid"].split()), {"0"})

    def test_2_life(self):
        m = self.pool.members[0]
        c = self.client()
        vm = new_vm(c, "guest", start_ms=10)
        c.VM.start(vm, False, False)
        c.VM.suspend(vm)
        c.VM.resume(vm, False, False)
        self.assertEqual(c.VM.get_power_state(vm), "Running")
        # A daemon that starts again is told what runs.
        m.kill()
        m.start_daemon()
        m.wait_up().close()
        c = self.client()
        self.assertEqual(c.VM.get_power_state(vm), "Running")
        c.VM.hard_shutdown(vm)
        self.assert_settled(c)

    def test_2b_unwanted_images(self):
        """Root's folder for the memory of suspended VMs keeps none that nobody
        can resume."""
        m = self.pool.members[0]
        c = self.client()
        folder = m.dir / "images"
        self.assertEqual((folder.stat().st_mode & 0o7777, folder.stat().st_uid),
                         (0o700, 0))

        def suspended():
            vm = new_vm(c, "sleeper", start_ms=10)
            c.VM.start(vm, False, False)
            c.VM.suspend(vm)
            self.assertTrue(list(folder.iterdir()))
            return vm

        def gone():
            wait_for(lambda: not list(folder.iterdir()), 20, "no image")

        c.VM.hard_shutdown(suspended())
        gone()
        c.VM.destroy(suspended())
        gone()
        c.VDI.destroy(c.VM.get_suspend_VDI(suspended()))
        gone()
        # The executor is away meanwhile, and the daemon begins again.
        vm = suspended()
        m.kill("executor")
        c.VM.hard_shutdown(vm)
        m.kill()
        m.start_daemon()
        m.wait_up().close()
        self.assertTrue(list(folder.iterdir()))
        m.start_executor()
        gone()
        # It was killed in a suspend, of which nobody wants to hear again.
        c = self.client()
        vm = new_vm(c, "restless", start_ms=10, suspend_ms=20000)
        c.VM.start(vm, False, False)
        task = c.Async.VM.suspend(vm)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "it begins")
        m.kill("executor")
        (folder / f"{c.VM.get_uuid(vm)}.image.tmp").write_text("half a guest")
        c.task.cancel(task)
        self.assertEqual(self.wait_ended(c, task)["status"], "cancelled")
        m.start_executor()
        gone()
        self.assertEqual(c.VM.get_power_state(vm), "Running")
        c.VM.hard_shutdown(vm)
        self.assert_settled(c)

    def test_3_apart(self):
        """What is the executor's, the daemon's user cannot touch."""
        m = self.pool.members[0]
        wait_for((m.dir / "xen").exists, 10, "the executor's folder")
        ran = subprocess.run(["ls", m.dir / "xen"], user=NOBODY, group=NOBODY,
                             extra_groups=[], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        self.assertNotEqual(ran.returncode, 0, ran.stdout)
        for path in (m.dir / "data").rglob("*"):
            mode = path.lstat().st_mode
            self.assertEqual(mode & 0o007, 0, path)


if __name__ == "__main__":
    unittest.main()
