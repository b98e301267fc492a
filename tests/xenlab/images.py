"""The lab's images, made from Debian packages: hypervisor, kernel, and the
root file systems of dom0 and of the test guest.

Packages of the purpose `lab` in tools/packages.list are installed, and what
dom0 needs is copied out of them. Those of the purpose `lab-files` are only
downloaded and unpacked: nothing is put into this machine's /boot.
"""
import gzip
import lzma
import os
import pathlib
import re
import shutil
import stat
import struct
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parents[1]

DOM0_MODULES = """xen-privcmd xen-evtchn xen-gntdev xen-gntalloc xenfs virtio_pci
virtio_net virtio_blk 9pnet_virtio 9p xen-blkback xen-netback loop bridge tun
crc32c_generic ext4""".split()
GUEST_MODULES = "xen-blkfront xen-netfront".split()
GUEST_PROGRAMS = "xenstore-read xenstore-write".split()

# What xl, libxl and Xen's hotplug scripts call. The scripts are written for GNU
# and util-linux: with busybox's versions of these, adding a disk fails.
DOM0_PROGRAMS = """bash ip bridge flock losetup stat readlink sed grep logger
mktemp date dd xenstore-ls xenstore-read xenstore-write xenstore-rm xenstore-list
xenstore-exists xenstore-watch xenstore-chmod""".split()
XEN_PROGRAMS = """xl xenstored xenconsoled xenconsole xen-init-dom0
libxl-save-helper xenstore-control""".split()
HVM_PROGRAMS = ["/usr/libexec/xen-qemu-system-i386"]
HVM_FILES = """usr/share/seabios/bios-256k.bin usr/share/seabios/vgabios-*.bin
usr/share/qemu/keymaps/en-us usr/share/qemu/kvmvapic.bin
usr/lib/ipxe/qemu/efi-rtl8139.rom""".split()
PROJECT_PROGRAMS = "xenpoold xenpool-executor xenpool-vncterm xenpoolctl".split()

# Of a host's daemons: two logs (the one of the pool it left, too), their rows
# and a suspended guest or two. Only what is written takes room here.
DISK = 1 << 30

XL_CONF = """autoballoon="off"
vif.default.script="vif-bridge"
vif.default.bridge="xenbr0"
"""

# The cheapest cipher for an emulated processor (machine.py): a guest's memory travels
# through it. On a real host OpenSSL's own order is right.
OPENSSL_CNF = """openssl_conf = programs
[programs]
ssl_conf = libssl
[libssl]
system_default = cheap
[cheap]
Ciphersuites = TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256
"""


class LabError(Exception):
    """What is missing or went wrong, for people to read."""


def packages(*purposes):
    lines = (TOP / "tools/packages.list").read_text().splitlines()
    words = [line.split() for line in lines if not line.startswith("#")]
    return [w[1] for w in words if len(w) == 2 and w[0] in purposes]


def output(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True,
                          **options)
    if done.returncode:
        raise LabError(f"{command[0]} {command[1]} ended with {done.returncode}: "
                       + done.stderr.strip())
    return done.stdout


# ---- cpio ----

class Root:
    """A root file system in memory, in Debian's merged shape (/bin is
    /usr/bin), to be written as an initramfs."""
    MERGED = ("bin", "sbin", "lib", "lib64")

    def __init__(self):
        self.nodes = {}
        for name in self.MERGED:
            self.nodes[name] = (stat.S_IFLNK | 0o777, b"usr/" + name.encode())
            self.folder("usr/" + name)
        for name in "proc sys dev run root etc var/lib var/log".split():
            self.folder(name)
        self.folder("tmp", 0o1777)

    def place(self, path):
        parts = str(path).strip("/").split("/")
        if parts[0] in self.MERGED:
            parts.insert(0, "usr")
        if len(parts) > 1:
            self.folder("/".join(parts[:-1]))
        return "/".join(parts)

    def folder(self, path, mode=0o755):
        parts = path.split("/")
        for i in range(1, len(parts) + 1):
            self.nodes.setdefault("/".join(parts[:i]), (stat.S_IFDIR | mode, b""))

    def text(self, path, text, mode=0o644):
        data = text if isinstance(text, bytes) else text.encode()
        self.nodes[self.place(path)] = (stat.S_IFREG | mode, data)

    def link(self, path, target):
        self.nodes.setdefault(self.place(path), (stat.S_IFLNK | 0o777, target.encode()))

    def copy(self, source, path=None):
        source = pathlib.Path(source)
        mode = 0o755 if os.access(source, os.X_OK) else 0o644
        self.text(path or source, source.read_bytes(), mode)

    def program(self, source, path=None):
        """A program or script with every shared library that it needs."""
        self.copy(source, path)
        found = subprocess.run(["ldd", str(source)], capture_output=True, text=True)
        for library in re.findall(r"(/\S+) \(0x", found.stdout):
            self.copy(library)
        if "not found" in found.stdout:
            raise LabError(f"{source} lacks a library:\n{found.stdout}")

    def named(self, name):
        path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if not path:
            raise LabError(f"no {name} on this machine")
        self.program(path)

    def busybox(self):
        self.copy("/bin/busybox", "/usr/bin/busybox")
        for applet in output("/bin/busybox", "--list").split():
            if applet != "busybox":
                self.link("/usr/bin/" + applet, "busybox")

    def drop(self, path):
        self.nodes.pop(self.place(path), None)

    def files(self):
        return [(path, mode, data) for path, (mode, data) in sorted(self.nodes.items())
                if stat.S_ISREG(mode)]

    def unpack(self, folder):
        for path, mode, data in self.files():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
            (folder / path).chmod(stat.S_IMODE(mode))

    def refer(self, other, folder):
        """Links to the files that only the other has, and that are in a folder."""
        for path, _, _ in other.files():
            self.link(path, f"{folder}/{path}")

    def write(self, file):
        """An uncompressed archive of the form `newc`: the kernel unpacks it
        fastest under emulation."""
        with open(file, "wb") as out:
            number = 0
            for path, (mode, data) in sorted(self.nodes.items()):
                number += 1
                self.entry(out, number, path, mode, data)
            self.entry(out, 0, "TRAILER!!!", 0, b"")

    @staticmethod
    def entry(out, number, path, mode, data):
        name = path.encode() + b"\0"
        nlink = 2 if stat.S_ISDIR(mode) else 1
        fields = (number, mode, 0, 0, nlink, 0, len(data), 0, 0, 0, 0, len(name), 0)
        head = b"070701" + b"".join(b"%08x" % f for f in fields) + name
        out.write(head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4))


# ---- kernel and hypervisor ----

def download(name, cache):
    """The newest .deb of the package, from the cache where it is there."""
    shown = output("apt-cache", "show", "--no-all-versions", name)
    version = re.search(r"^Version: (.*)$", shown, re.M).group(1)
    depends = re.search(r"^Depends: (linux-image-[0-9]\S*)", shown, re.M)
    if depends:  # a name that leads to that of the newest kernel
        return download(depends.group(1), cache)
    file = cache / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
    if not file.exists():
        output("apt-get", "download", "-q", f"{name}={version}", cwd=cache)
    return file


def elf_of(image):
    """The ELF file inside a bzImage (Linux boot protocol, Documentation/x86/
    boot.rst): spares its decompression under emulation at each start."""
    sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = image[start:start + length - 4]  # the last four hold its size
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    raise LabError("a kernel compressed in a way that is not known here")


def module_order(folder, wanted):
    """Paths of the modules and of all they depend on, these first."""
    files = {p.name.split(".")[0].replace("-", "_"): p
             for p in folder.rglob("*.ko")}
    order = []

    def add(name):
        name = name.replace("-", "_")
        if name not in files:
            raise LabError(f"the kernel has no module {name}")
        found = re.search(rb"(?:^|\0)depends=([^\0]*)\0", files[name].read_bytes())
        for other in found.group(1).decode().split(",") if found else []:
            if other:
                add(other)
        if files[name] not in order:
            order.append(files[name])
    for name in wanted:
        add(name)
    return order


class Packages:
    """The unpacked files of the packages that are not installed."""

    def __init__(self, cache):
        cache.mkdir(parents=True, exist_ok=True)
        debs = [download(name, cache) for name in packages("lab-files")]
        self.names = [deb.stem for deb in debs]
        self.folder = cache / ("+".join(n.split("_")[0] + n.split("_")[1]
                                        for n in self.names))
        if not (self.folder / "done").exists():
            self.unpack(debs)
        self.hypervisor = (self.folder / "xen").read_bytes()
        self.kernel = (self.folder / "vmlinux").read_bytes()

    def unpack(self, debs):
        shutil.rmtree(self.folder, ignore_errors=True)
        whole = self.folder / "whole"
        whole.mkdir(parents=True)
        for deb in debs:
            output("dpkg-deb", "-x", deb, whole)
        xen, = (whole / "boot").glob("xen-*.gz")
        (self.folder / "xen").write_bytes(gzip.decompress(xen.read_bytes()))
        config, = (whole / "boot").glob("config-*")
        if "CONFIG_XEN_DOM0=y" not in config.read_text():
            raise LabError("this kernel cannot be a dom0")
        image, = (whole / "boot").glob("vmlinuz-*")
        (self.folder / "vmlinux").write_bytes(elf_of(image.read_bytes()))
        for who, wanted in (("dom0", DOM0_MODULES), ("guest", GUEST_MODULES)):
            to = self.folder / who
            to.mkdir()
            names = []
            for path in module_order(whole, wanted):
                shutil.copy(path, to / path.name)
                names.append(path.name)
            (to / "order").write_text("\n".join(names) + "\n")
        shutil.rmtree(whole)
        (self.folder / "done").touch()

    def put_modules(self, root, who):
        for path in (self.folder / who).iterdir():
            root.copy(path, f"/lib/modules/{path.name}")


# ---- the two root file systems ----

def xen_folder():
    name = next(p for p in packages("lab") if re.match(r"xen-utils-\d", p))
    found = [line for line in output("dpkg", "-L", name).splitlines()
             if line.endswith("/bin/xl")]
    return pathlib.Path(found[0]).parent


def stripped(path):
    """Without what a debugger wants: dom0's files live in its memory."""
    part = pathlib.Path(str(path) + ".lab")
    output("strip", "-o", part, path)
    data = part.read_bytes()
    part.unlink()
    return data


def hvm():
    """What HVM guests need besides: on the data disk and not in dom0's memory."""
    root = Root()
    for path in HVM_PROGRAMS:
        root.program(path)
    root.copy(xen_folder().parent / "boot/hvmloader")
    for pattern in HVM_FILES:
        for path in sorted(pathlib.Path("/").glob(pattern)):
            root.copy(path)
    return root


def dom0(build, unpacked, hvm):
    root = Root()
    for name in DOM0_PROGRAMS:
        root.named(name)
    xen = xen_folder()
    for name in XEN_PROGRAMS:
        root.program(xen / name)
        root.link(f"/usr/sbin/{name}", str(xen / name))
    # glibc opens it by name when a thread is cancelled; ldd does not show it
    libgcc = re.search(r"libgcc_s\.so\.1 \(.*x86-64.*\) => (\S+)",
                       output("/sbin/ldconfig", "-p"))
    root.copy(libgcc.group(1))
    for path in sorted(pathlib.Path("/etc/xen/scripts").iterdir()):
        root.copy(path)
    for name in PROJECT_PROGRAMS:
        root.program(build / name, "/usr/sbin/" + name)
        root.text("/usr/sbin/" + name, stripped(build / name), 0o755)
    root.busybox()
    unpacked.put_modules(root, "dom0")
    root.text("/etc/xen/xl.conf", XL_CONF)
    root.text("/usr/lib/ssl/openssl.cnf", OPENSSL_CNF)
    root.text("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
              "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
              "xen-qemuuser-range-base:x:131072:65534::/nonexistent:/bin/false\n")
    root.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")
    root.text("/etc/hosts", "127.0.0.1 localhost\n")
    root.refer(hvm, "/data/hvm")
    root.text("/init", (HERE / "dom0-init").read_text(), 0o755)
    root.text("/usr/sbin/lab-agent", (HERE / "dom0-agent").read_text(), 0o755)
    return root


def guest(unpacked):
    root = Root()
    for name in ("poweroff", "reboot"):
        root.copy(HERE / "guest-end", f"/usr/sbin/{name}")
    root.busybox()
    for name in GUEST_PROGRAMS:
        root.named(name)
    for name in ("poweroff", "reboot"):
        root.drop(f"/usr/bin/{name}")
    unpacked.put_modules(root, "guest")
    root.text("/init", (HERE / "guest-init").read_text(), 0o755)
    return root


def boot_sector(folder):
    """hvm-guest.S as a disk of its own."""
    part, disk = folder / "hvm.o", folder / "hvm.img"
    output("as", "--32", "-o", part, HERE / "hvm-guest.S")
    output("ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-o", disk, part)
    os.truncate(disk, 1 << 20)
    return disk


class Images:
    """Paths of what the machines boot: xen, kernel, dom0, guest; of the disk
    that each gets a copy of; and of an HVM guest's disk."""

    def __init__(self, folder, build, cache):
        self.folder = pathlib.Path(folder)
        self.xen, self.kernel, self.dom0, self.guest, self.disk = (
            self.folder / n for n in ("xen", "vmlinux", "dom0.cpio", "guest.cpio",
                                      "data.img"))
        begin = time.monotonic()
        missing = [p for p in packages("lab") if subprocess.run(
            ["dpkg", "-s", p], capture_output=True).returncode]
        if missing:
            raise LabError("not installed: " + " ".join(missing)
                           + " (./dev lab installs them)")
        self.folder.mkdir(parents=True, exist_ok=True)
        unpacked = Packages(pathlib.Path(cache))
        self.xen.write_bytes(unpacked.hypervisor)
        self.kernel.write_bytes(unpacked.kernel)
        model = hvm()
        model.unpack(self.folder / "data/hvm")
        dom0(pathlib.Path(build), unpacked, model).write(self.dom0)
        guest(unpacked).write(self.guest)
        self.hvm_guest = boot_sector(self.folder)
        with open(self.disk, "wb") as f:
            f.truncate(DISK)
        output("/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-d", self.folder / "data",
               self.disk)
        self.versions = unpacked.names
        self.seconds = time.monotonic() - begin
