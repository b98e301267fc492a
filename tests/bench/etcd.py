"""An etcd cluster of three on loopback addresses, for comparisons. Only processes
started here are ever signalled."""
import json
import os
import pathlib
import random
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request

TOOLS = ("etcd", "etcdctl")
TRUSTING = ssl._create_unverified_context()  # its own certificates are self-signed


def missing():
    return [t for t in TOOLS if not shutil.which(t)]


def version():
    text = subprocess.run(["etcd", "--version"], stdout=subprocess.PIPE, text=True).stdout
    return text.split("\n")[0].split()[-1]


class Node:
    def __init__(self, cluster, index):
        self.cluster = cluster
        self.name = f"e{index + 1}"
        self.address = f"{cluster.network}.{index + 1}"
        self.scheme = "https" if cluster.tls else "http"
        self.url = f"{self.scheme}://{self.address}:2379"
        self.child = None

    def start(self):
        here = cl = self.cluster
        peers = ",".join(f"{n.name}={n.scheme}://{n.address}:2380" for n in cl.nodes)
        tls = ["--auto-tls", "--peer-auto-tls"] if cl.tls else []
        with open(here.dir / f"{self.name}.log", "ab") as log:
            self.child = subprocess.Popen(
                ["etcd", f"--name={self.name}", f"--data-dir={cl.dir}/{self.name}",
                 f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
                 f"--listen-peer-urls={self.scheme}://{self.address}:2380",
                 f"--initial-advertise-peer-urls={self.scheme}://{self.address}:2380",
                 f"--initial-cluster={peers}", "--initial-cluster-state=new",
                 f"--heartbeat-interval={cl.heartbeat_ms}",
                 f"--election-timeout={cl.election_ms}", *tls],
                stdout=log, stderr=log, env=dict(os.environ, ETCD_UNSUPPORTED_ARCH=""))
        return self

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait()

    def status(self):
        """None when it does not answer."""
        try:
            request = urllib.request.Request(self.url + "/v3/maintenance/status", b"{}")
            with urllib.request.urlopen(request, timeout=1, context=TRUSTING) as r:
                return json.load(r)
        except (OSError, ValueError):
            return None


class Etcd:
    def __init__(self, folder, heartbeat_ms=15, election_ms=150, tls=False):
        """tls: for clients and between the members."""
        self.tls = tls
        self.dir = pathlib.Path(folder)
        self.dir.mkdir(parents=True)
        self.heartbeat_ms, self.election_ms = heartbeat_ms, election_ms
        self.network = f"127.{random.randint(1, 250)}.{random.randint(1, 250)}"
        self.nodes = [Node(self, i) for i in range(3)]

    def __enter__(self):
        for n in self.nodes:
            n.start()
        self.wait_up()
        return self

    def __exit__(self, *exc):
        for n in self.nodes:
            if n.child and n.child.poll() is None:
                n.kill()

    def wait_up(self, timeout=20):
        """Until all three answer and agree on the leader."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            seen = [n.status() for n in self.nodes]
            leaders = {s["leader"] for s in seen if s and s.get("leader", "0") != "0"}
            if all(seen) and len(leaders) == 1:
                return
            time.sleep(0.05)
        raise RuntimeError(f"etcd does not come up, see {self.dir}")

    def leader(self, timeout=20):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for n in self.nodes:
                s = n.status()
                if s and s["leader"] == s["header"]["member_id"]:
                    return n
            time.sleep(0.02)
        raise RuntimeError("etcd has no leader")

    def move_leader(self):
        leader = self.leader()
        to = next(n for n in self.nodes if n is not leader)
        member = int(to.status()["header"]["member_id"])
        subprocess.run(["etcdctl", f"--endpoints={leader.url}", "move-leader",
                        f"{member:x}"], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, ETCDCTL_API="3"))
