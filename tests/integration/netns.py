"""Hosts with a network namespace each, on one bridge, and cuts between them.

A program that uses this has started itself anew in a namespace of its own
(enter()), where the bridge is and its clients are; everything goes with it. A cut
of one direction gives the sender a wrong hardware address of the receiver:
packets go out and arrive nowhere, as on a real network."""
import os
import shutil
import subprocess
import sys
import time

MARK = "XENPOOL_OWN_NETNS"
NETWORK = "10.77.0"


def possible():
    """None, or why not."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("unshare", "nsenter", "ip"):
        if not shutil.which(tool):
            return f"no {tool}"
    test = subprocess.run(["unshare", "--net", "ip", "link", "add", "br0", "type",
                           "bridge"], capture_output=True, text=True)
    return test.stderr.strip() or "no bridge" if test.returncode else None


def enter():
    """Starts the program anew in a namespace, if it can and has not."""
    if MARK not in os.environ and not possible():
        os.environ[MARK] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])


def entered():
    return MARK in os.environ


def ip(*words, inside=None):
    prefix = ["nsenter", f"--net=/proc/{inside}/ns/net"] if inside else []
    subprocess.run([*prefix, "ip", *map(str, words)], check=True)


def mac(i):
    return f"02:00:00:00:00:{i:02x}"


class Network:
    """Members 1..n; their processes get .prefix(i) before their commands."""

    def __init__(self, n):
        self.n, self.holders, self.cuts = n, {}, set()
        ip("link", "set", "lo", "up")
        ip("link", "add", "br0", "type", "bridge")
        ip("addr", "add", f"{NETWORK}.254/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        for i in range(1, n + 1):
            self._add(i)

    def _add(self, i):
        # It keeps the namespace, and ends with its input.
        holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
        self.holders[i] = holder
        own = os.readlink("/proc/self/ns/net")
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            time.sleep(0.005)
        ip("link", "add", f"v{i}", "type", "veth", "peer", "name", "eth0", "netns",
           holder.pid)
        ip("link", "set", f"v{i}", "master", "br0", "up")
        ip("link", "set", "lo", "up", inside=holder.pid)
        ip("link", "set", "eth0", "address", mac(i), "up", inside=holder.pid)
        ip("addr", "add", f"{NETWORK}.{i}/24", "dev", "eth0", inside=holder.pid)
        for other in range(1, self.n + 1):
            if other != i:
                self._aim(i, other, mac(other))

    def prefix(self, i):
        return ["nsenter", f"--net=/proc/{self.holders[i].pid}/ns/net", "--"]

    def _aim(self, sender, receiver, address):
        ip("neigh", "replace", f"{NETWORK}.{receiver}", "lladdr", address, "dev",
           "eth0", "nud", "permanent", inside=self.holders[sender].pid)

    def cut(self, sender, receiver):
        self._aim(sender, receiver, mac(0x80 + receiver))
        self.cuts.add((sender, receiver))

    def heal(self):
        while self.cuts:
            sender, receiver = self.cuts.pop()
            self._aim(sender, receiver, mac(receiver))

    def close(self):
        for holder in self.holders.values():
            holder.stdin.close()
            holder.wait()
