"""One machine of the lab: QEMU (software emulation), in it Xen, in it a dom0."""
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

# Xen wants nested paging for PVH, and dom0 wants entropy. No more: what makes a cipher
# a few instructions on a processor is a call for each of them here. A core that
# encrypts 90 to 150 MB/s with ChaCha20-Poly1305 does 42 with SSSE3 and 13 with AVX2,
# and 23 to 35 with AES-GCM and all that there is for it.
CPU = "qemu64,+npt,+rdrand"
# An emulated processor has none of the weaknesses that cost so much to avoid.
QUICK_XEN = "spec-ctrl=no xpti=no"
QUICK_DOM0 = "mitigations=off cryptomgr.notests rodata=off init_on_alloc=0 audit=0"
MEMORY = 1152                # MiB of a machine; a QEMU process takes about as much
DOM0_MEMORY = 448            # MiB of it for dom0, the rest is the guests'
DRIVE = 16 << 20             # bytes of a drive that guests may get
BOOT_TIMEOUT = 420
AGENT_PORT = 7000


class MachineError(Exception):
    pass


def die_with_parent():
    """In the child: low priority, and no longer life than who started it."""
    os.nice(15)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Machine:
    """number 1 or 2. Clients reach its dom0's port 443 at 127.x.y.number:8443,
    the agent at port 7000. A machine object made elsewhere than where its
    process was started can do all but start() and stop()."""

    def __init__(self, number, folder, network):
        self.number = number
        self.name = f"lab{number}"
        self.folder = pathlib.Path(folder) / self.name
        self.outside = f"{network}.{number}"
        self.cable = f"10.77.0.{number}"
        self.share = self.folder / "share"
        self.process = self.agent = None
        self.lock = threading.Lock()

    # ---- life ----

    def options(self, images, other):
        outside, cable = self.outside, self.cable
        mac = f"52:54:00:77:{self.number:02x}"
        yield from (
            "-name", f"xenlab-{self.name}", "-nodefaults", "-no-user-config",
            "-display", "none", "-machine", "q35", "-accel", "tcg,thread=multi",
            "-cpu", CPU, "-smp", "1", "-m", str(MEMORY), "-rtc", "base=utc",
            # Xen is a multiboot kernel, the "initrds" are its modules: first
            # dom0's kernel with its command line, then dom0's file system
            "-kernel", str(images.xen),
            "-append", "console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info "
            f"{QUICK_XEN} dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M",
            "-initrd", f"{images.kernel} console=hvc0 net.ifnames=0 quiet panic=5 "
            f"{QUICK_DOM0} lab.name={self.name} lab.cable={cable}/24,{images.dom0}",
            "-chardev", f"file,id=serial,path={self.folder}/serial.log",
            "-serial", "chardev:serial",
            "-qmp", f"unix:{self.folder}/qmp.sock,server=on,wait=off",
            "-drive", f"file={self.folder}/data.img,if=none,id=d0,format=raw,"
            "cache=unsafe",
            "-device", "virtio-blk-pci,drive=d0",
            "-fsdev", f"local,id=share,path={self.share},security_model=none",
            "-device", "virtio-9p-pci,fsdev=share,mount_tag=lab",
            # the way in: no way out of it (restrict)
            "-netdev", "user,id=n0,restrict=on,"
            f"hostfwd=tcp:{outside}:8443-{cable}:443,"
            f"hostfwd=tcp:{outside}:{AGENT_PORT}-10.0.2.15:{AGENT_PORT}",
            "-device", "virtio-net-pci,netdev=n0,romfile=")
        for i in (1, 2):
            here, there = (other.folder.parent / f"cable{i}-{m.number}"
                           for m in (self, other))
            yield from ("-netdev", f"dgram,id=n{i},local.type=unix,"
                        f"local.path={here},remote.type=unix,remote.path={there}",
                        "-device", f"virtio-net-pci,netdev=n{i},mac={mac}:{i:02x},romfile=")

    def start(self, images, other):
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.share / "guest").mkdir(parents=True)
        os.link(images.kernel, self.share / "guest/vmlinux")
        os.link(images.guest, self.share / "guest/guest.cpio")
        for i in (0, 1):
            with open(self.share / f"guest/disk{i}.img", "wb") as f:
                f.truncate(DRIVE)
        shutil.copy(images.hvm_guest, self.share / "guest/hvm.img")
        subprocess.run(["cp", "--sparse=always", images.disk,
                        self.folder / "data.img"], check=True)
        for i in (1, 2):
            (self.folder.parent / f"cable{i}-{self.number}").unlink(missing_ok=True)
        self.started = time.monotonic()
        with open(self.folder / "qemu.log", "wb") as log:
            self.process = subprocess.Popen(
                ["qemu-system-x86_64", *self.options(images, other)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent)

    def wait_ready(self, timeout=BOOT_TIMEOUT):
        """Seconds from the start until dom0 obeys; its clock is set then."""
        end = self.started + timeout
        while True:
            if self.process.poll() is not None:
                raise MachineError(f"{self.name}: QEMU ended:\n"
                                   + self.file("qemu.log") + self.file("serial.log"))
            if "LAB dom0 is ready" in self.file("serial.log"):
                try:
                    self.run(f"date -u -s @{time.time():.0f}", timeout=20)
                    return time.monotonic() - self.started
                except OSError:
                    pass  # it does not listen yet
            if time.monotonic() > end:
                raise MachineError(f"{self.name}: no dom0 within {timeout} s:\n"
                                   + self.file("serial.log"))
            time.sleep(0.1)

    def stop(self):
        self.hang_up()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def file(self, name, size=4000):
        try:
            return (self.folder / name).read_text(errors="replace")[-size:]
        except FileNotFoundError:
            return ""

    # ---- orders ----

    def ask(self, script, timeout=60):
        """(exit status, output) of a bash script in dom0. What it leaves
        running must not hold its output."""
        try:
            with self.lock:
                return self.talk(script.encode(), time.monotonic() + timeout)
        except OSError:
            self.hang_up()
            raise

    def talk(self, script, end):
        if not self.agent:
            self.agent = socket.create_connection((self.outside, AGENT_PORT), 20)
        self.agent.sendall(b"%d " % len(script) + script)
        answer = b""
        while not (found := re.search(rb"\nstatus (\d+)\n\Z", answer)):
            self.agent.settimeout(max(end - time.monotonic(), 0.01))
            chunk = self.agent.recv(65536)
            if not chunk:
                raise ConnectionError(f"{self.name} hangs up at: {script}: {answer}")
            answer += chunk
        return int(found.group(1)), answer[:found.start()].decode(errors="replace")

    def hang_up(self):
        if self.agent:
            self.agent.close()
            self.agent = None

    def run(self, script, timeout=60):
        """The script's output; it has to succeed."""
        status, text = self.ask(script, timeout)
        if status:
            raise MachineError(f"{self.name}: {script}\nended with {status}: {text}")
        return text

    def qmp(self, command, **arguments):
        """QEMU's own protocol: its answer to one command."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(30)
            s.connect(str(self.folder / "qmp.sock"))
            file = s.makefile("rw")
            json.loads(file.readline())
            for order in ({"execute": "qmp_capabilities"},
                          {"execute": command, "arguments": arguments}):
                file.write(json.dumps(order))
                file.flush()
                while "event" in (answer := json.loads(file.readline())):
                    pass
            if "error" in answer:
                raise MachineError(f"{self.name}: {command}: {answer['error']}")
            return answer["return"]

    def set_cable(self, up):
        """Pulls or plugs the toolstack's cable at this end."""
        self.qmp("set_link", name="n1", up=up)
