#!/usr/bin/env python3
"""What a large database costs: the restart of a member, and how long its core is
held up while it takes snapshots and fills pool.db.

usage: large_pool.py [OBJECTS]     (100000; XENPOOL_BUILD names the build folder)
"""
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tools"))
sys.dont_write_bytecode = True
from localpool import LocalPool  # noqa: E402

BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build")).resolve()


def run(*command):
    return subprocess.run([str(c) for c in command], check=True, text=True,
                          capture_output=True).stdout.strip()


def ctl(m, *command):
    return run(BUILD / "xenpoolctl", f"--url=unix:{m.dir}/data/xapi", *command)


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


def restart(m, how):
    m.kill("daemon")
    start = time.monotonic()
    m.start_daemon()
    c = m.wait_up()
    up = time.monotonic() - start
    fields = pathlib.Path(f"/proc/{m.daemon.pid}/stat").read_text().split()
    cpu = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    c.close()
    m._own = None
    status = m.status()
    print(f"{how}: serves after {up * 1000:.0f} ms ({cpu * 1000:.0f} ms of "
          "processors on several threads), longest turn of the core since "
          f"{status['longest_turn_us'] / 1000:.1f} ms", flush=True)
    return up


def main():
    objects = int(sys.argv[1]) if len(sys.argv) > 1 else 100000
    with tempfile.TemporaryDirectory(prefix="xenpool-large-") as folder:
        with LocalPool(BUILD, folder, n=1,
                       options=["--snapshot-threshold=1000"]) as p:
            m = p.members[0].start()
            m.wait_up().close()
            ctl(m, "backup", f"{folder}/small.img")
            m.stop()
            m._own = None
            print(run(BUILD / "tests/bench/make_image", f"{folder}/small.img",
                      f"{folder}/large.img", objects))
            print(run(BUILD / "xenpoolctl", "restore", f"{folder}/large.img",
                      f"--data-dir={m.dir}/data").splitlines()[0])
            m.start()
            restart(m, "restart, pool.db to be filled")
            start = time.monotonic()
            longest = wait_pooldb(m)
            print(f"pool.db filled after {(time.monotonic() - start) * 1000:.0f} ms, "
                  f"longest turn {longest:.1f} ms, "
                  f"{(m.dir / 'data/pool.db').stat().st_size >> 20} MiB")
            restart(m, "restart, pool.db in step")
            m.status()
            c = m.client()
            host = m.host_ref(c)
            start, n, worst = time.monotonic(), 0, 0.0
            while "snapshot at index" not in m.log().rsplit("serves https", 1)[1]:
                before = time.monotonic()
                c.host.set_name_description(host, f"write {n}")
                worst = max(worst, time.monotonic() - before)
                n += 1
            took = time.monotonic() - start
            longest = wait_pooldb(m)
            print(f"{n} writes in {took:.1f} s while a snapshot was taken: worst "
                  f"{worst * 1000:.1f} ms, longest turn of the core "
                  f"{longest:.1f} ms")
            start = time.monotonic()
            print(ctl(m, "backup", f"{folder}/again.img"),
                  f"in {time.monotonic() - start:.1f} s")
            start = time.monotonic()
            print(ctl(m, "check").splitlines()[-1], f"({time.monotonic() - start:.1f} s)")
            print(f"longest turn meanwhile {m.status()['longest_turn_us'] / 1000:.1f} ms")
            restart(m, "restart after a snapshot of its own")


if __name__ == "__main__":
    main()
