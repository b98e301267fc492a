#!/usr/bin/env python3
"""What a large database costs: the restart of a member, and how long its core is
held up while it takes snapshots and fills pool.db.

usage: large_pool.py [OBJECTS]     (100000; XENPOOL_BUILD names the build folder)
"""
import dataclasses
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
sys.dont_write_bytecode = True
from localpool import LocalPool  # noqa: E402

RESTARTS = 5
SNAPSHOTS = 3


@dataclasses.dataclass
class Row:
    what: str
    ms: float
    also: str = ""
    below: float = None  # the goal, in ms


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, text=True,
                          capture_output=True).stdout.strip()


def wait_pooldb(m, timeout=120):
    """Until pool.db has what was applied when we asked; the longest turn of the
    core until then, in ms (asking for it begins anew)."""
    status = m.status()
    want, longest = status["generation"], status["longest_turn_us"]
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        status = m.status()
        longest = max(longest, status["longest_turn_us"])
        if status["pooldb"]["generation"] >= want:
            return longest / 1000
        time.sleep(0.1)
    raise RuntimeError(f"pool.db does not follow: {status['pooldb']}")


def listens(address):
    with socket.socket() as s:
        return s.connect_ex((address, 8443)) == 0


def restart(m):
    """(ms from the kill to the first answered call, processor ms until then).
    The call is a login that is tried every 5 ms, once anybody listens: those
    that fail take the processor from the loading."""
    m.kill("daemon")
    start = time.monotonic()
    m.start_daemon()
    while not listens(m.address):
        time.sleep(0.005)
    m.wait_up(every=0.005).close()
    up = (time.monotonic() - start) * 1000
    fields = pathlib.Path(f"/proc/{m.daemon.pid}/stat").read_text().split()
    cpu = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK") * 1000
    m._own = None
    return up, cpu


def restarts(m, what, times, below=None):
    seen = [restart(m) for _ in range(times)]
    ups, cpus = zip(*seen)
    return Row(f"{what}: until it serves" + (f", median of {times}" * (times > 1)),
               statistics.median(ups),
               f"{statistics.median(cpus):.0f} ms of processors, all threads; "
               f"longest {max(ups):.0f} ms", below)


def fill(m, build, folder, objects):
    """Gives the member a database of that many objects."""
    url = f"--url=unix:{m.dir}/data/xapi"
    m.start()
    m.wait_up().close()
    run(build / "xenpoolctl", url, "backup", f"{folder}/small.img")
    m.stop()
    m._own = None
    run(build / "tests/bench/make_image", f"{folder}/small.img",
        f"{folder}/large.img", objects)
    run(build / "xenpoolctl", "restore", "--older",
        f"{folder}/large.img", f"--data-dir={m.dir}/data")
    m.start()
    m.wait_up().close()


def snapshot(m):
    """Writes until a snapshot has been taken: (longest turn in ms, longest
    write in ms, number of writes)."""
    c = m.client()
    host = m.host_ref(c)
    before, n, worst = m.log().count("snapshot at index"), 0, 0.0
    m.status()
    while m.log().count("snapshot at index") == before:
        start = time.monotonic()
        c.host.set_name_description(host, f"write {n}")
        worst = max(worst, time.monotonic() - start)
        n += 1
    c.close()
    return wait_pooldb(m), worst * 1000, n


def timed(what, m, *command):
    """A command of xenpoolctl, and how long it held the core up."""
    m.status()
    start = time.monotonic()
    run(*command)
    took = (time.monotonic() - start) * 1000
    return Row(what, took, "longest turn of the core meanwhile "
               f"{m.status()['longest_turn_us'] / 1000:.1f} ms")


def measure(build, objects):
    """Yields rows."""
    with tempfile.TemporaryDirectory(prefix="xenpool-large-") as folder, \
            LocalPool(build, folder, n=1,
                      options=["--snapshot-threshold=1000"]) as p:
        m = p.members[0]
        ctl = (build / "xenpoolctl", f"--url=unix:{m.dir}/data/xapi")
        fill(m, build, folder, objects)
        yield restarts(m, "restart, pool.db to be filled", 1)
        start = time.monotonic()
        longest = wait_pooldb(m)
        took = (time.monotonic() - start) * 1000
        yield Row("pool.db filled behind: longest turn of the core", longest,
                  f"filled after {took:.0f} ms, "
                  f"{(m.dir / 'data/pool.db').stat().st_size >> 20} MiB", 20)
        yield restarts(m, "restart, pool.db in step", RESTARTS, 1000)
        seen = [snapshot(m) for _ in range(SNAPSHOTS)]
        yield Row("snapshot, pool.db followed: longest turn of the core, "
                  f"largest of {SNAPSHOTS}", max(s[0] for s in seen),
                  f"longest write meanwhile {max(s[1] for s in seen):.1f} ms "
                  f"({sum(s[2] for s in seen)} writes)", 20)
        yield timed("backup", m, *ctl, "backup", f"{folder}/again.img")
        yield timed("check of pool.db and state", m, *ctl, "check")
        yield restarts(m, "restart after a snapshot of its own", RESTARTS, 1000)


def main():
    build = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build")).resolve()
    for row in measure(build, int(sys.argv[1]) if len(sys.argv) > 1 else 100000):
        print(f"{row.what}: {row.ms:.1f} ms ({row.also})", flush=True)


if __name__ == "__main__":
    main()
