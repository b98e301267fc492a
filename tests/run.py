#!/usr/bin/env python3
"""Runs the test programs and sums them up.

usage: run.py [--list] [--all] [--suite SUITE]... [NAME]...

Suites, in this order: style unit wire sim integration lifecycle clients xenlab.
Programs that take long run with --all, or when they or their suite are named: the
others together take less than five minutes on two cores. What xenlab (the real Xen,
emulated: many minutes) says is shown while it runs.
NAME picks programs whose name contains it. Output of a program is shown when it fails
and kept in BUILD/test-logs/. XENPOOL_BUILD names the build folder (default: build).
"""
import argparse
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("XENPOOL_BUILD", TOP / "build")).resolve()
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
SUITES = ["style", "unit", "wire", "sim", "integration", "lifecycle", "clients",
          "xenlab"]
SHOWN = {"xenlab"}
SLOW = {"test_sim", "test_backup", "test_bad_folders", "test_bad_input",
        "test_disk_faults", "test_events", "test_failpoints", "test_guest",
        "test_heal", "test_jobs", "test_local_reads", "test_members",
        "test_partitions", "test_xen_api", "xenlab"}
TIMEOUT = {"style": 60, "unit": 180, "wire": 180, "sim": 1800, "integration": 600,
           "lifecycle": 600, "clients": 600, "xenlab": 2700}


def programs():
    yield "style", "layers", [PYTHON, TOP / "tests/check_layers.py", TOP]
    yield "style", "sizes", [PYTHON, TOP / "tests/check_style.py", TOP]
    yield "style", "lists", [PYTHON, TOP / "tests/check_lists.py"]
    yield "style", "schema", [PYTHON, TOP / "tests/check_schema.py"]
    for path in sorted((BUILD / "tests/unit").glob("test_*")):
        if os.access(path, os.X_OK) and not path.suffix:
            yield "unit", path.name, [path]
    for suite in SUITES[2:-1]:
        for path in sorted((TOP / "tests" / suite).glob("test_*.py")):
            yield suite, path.stem, [PYTHON, path]
    yield "xenlab", "xenlab", [PYTHON, TOP / "tests/xenlab/run"]


def counts(text, code):
    """Tests (passed, failed, skipped) that a program's output speaks of."""
    ran = re.findall(r"^Ran (\d+) tests? in", text, re.M)
    if ran:
        n = sum(map(int, ran))
        bad = sum(int(x) for x in re.findall(r"(?:failures|errors)=(\d+)", text))
        skip = sum(int(x) for x in re.findall(r"skipped=(\d+)", text))
        return n - bad - skip, bad + (1 if code and not bad else 0), skip
    passed = sum(map(int, re.findall(r"\[  PASSED  \] (\d+) test", text)))
    failed = sum(map(int, re.findall(r"\[  FAILED  \] (\d+) test", text)))
    if passed or failed:
        return passed, failed or (1 if code else 0), 0
    return (0, 1, 0) if code else (1, 0, 0)


def wait(child, timeout, log):
    """The child's exit status. What it writes to the log is shown meanwhile."""
    if not log:
        return child.wait(timeout)
    end = time.monotonic() + timeout
    with open(log, errors="replace") as words:
        while True:
            ended = child.poll() is not None
            sys.stdout.write(words.read())
            sys.stdout.flush()
            if ended:
                return child.returncode
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(child.args, timeout)
            time.sleep(0.5)


def stop(child):
    """Ends a program that hangs. One in Python says where, as it does on a signal."""
    child.send_signal(signal.SIGABRT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def report(text):
    """What to show of a failed program: what unittest says of the failures, which
    comes after the members' logs, first of all; then the end of the rest."""
    rest, line, failures = text.partition("\n" + "=" * 70 + "\n")
    shown = failures.splitlines()[-60:] if line else []
    return shown + rest.splitlines()[-(80 - len(shown)):]


def run(suite, name, command, log):
    env = dict(os.environ, XENPOOL_BUILD=str(BUILD), XENPOOL_TOP=str(TOP),
               PYTHONFAULTHANDLER="1",
               ASAN_OPTIONS="detect_leaks=1:abort_on_error=0",
               UBSAN_OPTIONS="print_stacktrace=1")
    start = time.monotonic()
    with open(log, "wb") as out:
        child = subprocess.Popen([str(c) for c in command], stdout=out,
                                 stderr=subprocess.STDOUT, cwd=BUILD, env=env,
                                 stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            code = wait(child, TIMEOUT[suite], suite in SHOWN and log)
        except subprocess.TimeoutExpired:
            stop(child)
            code = -9
            out.write(f"\nkilled after {TIMEOUT[suite]} s\n".encode())
    text = log.read_text(errors="replace")
    return code, time.monotonic() - start, text


def is_chosen(args, suite, name):
    if args.names and not any(n in name for n in args.names):
        return False
    if args.suite:
        return suite in args.suite
    return args.all or bool(args.names) or name not in SLOW


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("names", nargs="*")
    ap.add_argument("--all", action="store_true")
    ap.add_argument("--suite", action="append", choices=SUITES)
    ap.add_argument("--list", action="store_true")
    args = ap.parse_args()
    chosen = [p for p in programs() if is_chosen(args, *p[:2])]
    if args.list:
        print("\n".join(f"{s:12} {n}" for s, n, _ in chosen))
        return 0
    logs = BUILD / "test-logs"
    logs.mkdir(parents=True, exist_ok=True)
    total = [0, 0, 0]
    failures = []
    for suite, name, command in chosen:
        code, seconds, text = run(suite, name, command, logs / f"{suite}-{name}.log")
        result = counts(text, code)
        total = [a + b for a, b in zip(total, result)]
        good = code == 0 and not result[1]
        print(f"{'ok  ' if good else 'FAIL'} {suite:12} {name:28} "
              f"{result[0]:5} passed {seconds:7.1f} s", flush=True)
        if not good:
            failures.append(f"{suite}/{name}")
            print("\n".join("    | " + l for l in report(text)), flush=True)
    if failures:
        print("failed: " + " ".join(failures) + f" (whole output in {logs})")
    skipped = f", {total[2]} skipped" if total[2] else ""
    print(f"{total[0]} passed, {total[1]} failed{skipped}")
    return 1 if failures or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
