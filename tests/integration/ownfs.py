"""A small file system of its own for a member's data folder, which can lose its
power: what was not synced is gone then, as XFS's and ext4's own tests have it."""
import fcntl
import os
import shutil
import struct
import subprocess

SHUTDOWN = 0x8004587D  # ioctl(2) of ext4 and XFS
WITHOUT_THE_LOG = struct.pack("I", 2)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command}: {done.stderr.strip()}")


class OwnFs:
    def __init__(self, folder, mib=256):
        """Mounted on the folder, which is made; its image is beside it."""
        self.folder, self.image = folder, folder.with_name(folder.name + ".img")
        self.mounted = False
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        run("mkfs.ext4", "-q", "-O", "^metadata_csum_seed", self.image)
        folder.mkdir()
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.image, self.folder)
        self.mounted = True

    def unmount(self):
        if self.mounted:
            run("umount", self.folder)
            self.mounted = False

    def lose_power(self):
        """Nothing reaches the disk any more, not even what was written before
        and waits in memory. The processes that use it are to be killed."""
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, WITHOUT_THE_LOG)
        finally:
            os.close(fd)

    def again(self):
        self.unmount()
        self.mount()

    def fill(self):
        """Leaves next to nothing free; returns the file to remove."""
        path = self.folder / "filler"
        s = os.statvfs(self.folder)
        with open(path, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, s.f_bavail * s.f_frsize - (1 << 20))
        return path


def possible(folder):
    """None, or why not."""
    if os.geteuid() != 0:
        return "not root"
    if not shutil.which("mkfs.ext4"):
        return "no mkfs.ext4"
    try:
        fs = OwnFs(folder / "trial", 16)
        with open(fs.folder / "unsynced", "w") as f:
            f.write("x")
        fs.lose_power()
        fs.again()
        left = fs.folder / "unsynced"
        lost = not left.exists() or not left.read_text()
        fs.unmount()
        return None if lost else "the file system keeps what was not synced"
    except OSError as e:
        return str(e)
