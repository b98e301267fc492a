#!/usr/bin/env python3
"""A pool of three hosts on loopback addresses, at work, with its master killed.

usage: demo.py [--build DIR] [--exit] [--dir DIR]
"""
import argparse
import pathlib
import signal
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from localpool import ApiError, LocalPool, tls_context, unwrap  # noqa: E402
from watch import Watcher, Writer  # noqa: E402

START = time.monotonic()
FAILED = []


def say(text):
    print(f"[{time.monotonic() - START:7.2f} s] {text}", flush=True)


def check(good, text):
    say(("ok    " if good else "WRONG ") + text)
    if not good:
        FAILED.append(text)


class timed:
    def __init__(self):
        self.start = time.monotonic()

    def __str__(self):
        return f"{(time.monotonic() - self.start) * 1000:.0f} ms"


def domains(pool, vm_uuid):
    """Addresses of the hosts whose simulated Xen runs a domain of the VM."""
    return [m.address for m, state in pool.domains(vm_uuid) if state == "running"]


def form(pool):
    say("starting three members, each with its own data folder, certificate and executor")
    t = timed()
    pool.form(progress=lambda text: say("      " + text))
    say(f"      the pool of three is formed, all are voters: {t}")
    for m in pool.members:
        print(f"            https://{m.address}:{m.pool.https_port}/   "
              f"http://{m.address}:{m.pool.http_port}/   {m.dir}/data/xapi")
    print(f"            user root, password {pool.password}", flush=True)


def any_member(pool):
    say("every member answers, and sees what another one wrote at once")
    t = timed()
    clients = [m.client() for m in pool.members]
    writer, *readers = clients
    ref = writer.pool.get_all()[0]
    writer.pool.set_name_label(ref, "demo")
    labels = [c.pool.get_name_label(ref) for c in readers]
    check(labels == ["demo", "demo"], f"name set on {writer.address}, read on the others: {t}")
    readers[0].session = writer.session
    check(readers[0].pool.get_name_label(ref) == "demo",
          f"the session of {writer.address} is valid on {readers[0].address}")
    return clients


def life_cycle(pool, clients):
    say("a VM from the default template, on the simulated Xen, through member "
        + clients[1].address)
    c = clients[1]
    templates = [r for r, v in c.VM.get_all_records().items()
                 if v["is_default_template"] and v["domain_type"] == "pvh"]
    check(bool(templates), "a default template exists")
    t = timed()
    vm = c.VM.clone(templates[0], "demo-1")
    c.VM.provision(vm)
    say(f"      VM.clone and VM.provision: {t}")
    for step, args in [("start", (False, False)), ("pause", ()), ("unpause", ()),
                       ("clean_reboot", ()), ("suspend", ()), ("resume", (False, False))]:
        t = timed()
        getattr(c.VM, step)(vm, *args)
        say(f"      VM.{step}: {t}, now {c.VM.get_power_state(vm)}")
    check(c.VM.get_power_state(vm) == "Running", "the VM runs after all of that")
    return vm


def console(pool, clients, vm):
    """The guest's screen, asked for at a member that the guest is not on."""
    here = clients[0].host.get_address(clients[0].VM.get_resident_on(vm))
    c = next(c for c in clients if c.address != here)
    ref = c.VM.get_consoles(vm)[0]
    path = (f"/console?uuid={c.console.get_uuid(ref)}&session_id={c.session}")
    t = timed()
    plain = socket.create_connection((c.address, c.port), timeout=10)
    with tls_context().wrap_socket(plain) as stream:
        stream.sendall(f"CONNECT {path} HTTP/1.0\r\n\r\n".encode())
        with stream.makefile("rb") as answer:
            status = answer.readline().decode().strip()
            while answer.readline().strip():
                pass
            greeting = answer.read(12).decode().strip()
    check(greeting.startswith("RFB "),
          f"the console of the VM on {here}, at {c.address}: {status}, {greeting}: {t}")
    say(f"            CONNECT https://{c.address}:{c.port}{path}")


def migrate(pool, clients, vm):
    c = clients[2]
    here = c.VM.get_resident_on(vm)
    there = next(h for h in c.host.get_all() if h != here)
    t = timed()
    c.VM.pool_migrate(vm, there, {"live": "true"})
    check(c.VM.get_resident_on(vm) == there,
          f"VM.pool_migrate {c.host.get_address(here)} -> {c.host.get_address(there)}: {t}")


def prepare_failover(pool, client):
    """VMs whose start and migration take long enough to be under way."""
    template = next(r for r, v in client.VM.get_all_records().items()
                    if v["is_default_template"] and v["domain_type"] == "pvh")
    vms = []
    for name, key in (("demo-starting", "sim:start_ms"), ("demo-moving", "sim:migrate_ms")):
        vm = client.VM.clone(template, name)
        client.VM.provision(vm)
        client.VM.add_to_other_config(vm, key, "2000")
        vms.append(vm)
    client.VM.start(vms[1], False, False)
    return vms


def failover(pool):
    say("failover: a client watches with event.from on each member that stays, another "
        "writes all the time")
    leader = pool.leader()
    others = [m for m in pool.members if m is not leader]
    c = others[0].client()
    starting, moving = prepare_failover(pool, c)
    watchers = [Watcher(m).start() for m in others]
    writer = Writer([leader] + others, "demo:", keep=500).start()
    other_writer = Writer(others, "demo-b:", keep=500).start()
    time.sleep(1.0)
    home = c.VM.get_resident_on(moving)
    target = next(h for h in c.host.get_all() if h != home)
    migrate_task = c.Async.VM.pool_migrate(moving, target, {"live": "true"})
    start_task = c.Async.VM.start(starting, False, False)
    time.sleep(0.5)
    say(f"      VM.pool_migrate and VM.start are under way; kill -9 of the master "
        f"{leader.address} (xenpoold {leader.daemon.pid})")
    before = len(writer.acked) + len(other_writer.acked)
    killed = time.monotonic()
    leader.kill("daemon")
    new = pool.leader()
    say(f"      {new.address} serves as the new master after "
        f"{(time.monotonic() - killed) * 1000:.0f} ms")
    time.sleep(2.0)
    after = [t for w in (writer, other_writer) for _, t in w.acked if t > killed]
    check(bool(after), f"writes go on: {before} acknowledged before, {len(after)} since")
    pause = max(w.longest_pause(killed - 1) for w in (writer, other_writer))
    say(f"      the pause: {pause * 1000:.0f} ms without an acknowledged write")
    say("      the killed member comes back")
    t = timed()
    leader.start_daemon()
    leader.wait_up()
    say(f"      it answers again: {t}")
    for name, task in (("VM.pool_migrate", migrate_task), ("VM.start", start_task)):
        try:
            c.wait_task(task, 60)
            say(f"      {name} that was under way: done")
        except ApiError as e:
            say(f"      {name} that was under way: ended with {e}")
    for w in (writer, other_writer):
        w.stop()
    time.sleep(1.2)
    for w in watchers:
        w.stop()
    for w in (writer, other_writer):
        check(not w.missing(c), f"nothing acknowledged is missing ({len(w.acked)} writes, "
              f"{len(w.errors)} answered with an error, {len(w.unknown)} unknown)")
    for w in watchers:
        check(not w.oddities and not w.differences(c) and w.reconnects == 0,
              f"the watcher on {w.member.address}: {len(w.operations)} events, none lost or "
              f"doubled, its cache equals a fresh get_all_records, longest wait "
              f"{w.longest * 1000:.0f} ms, {w.reconnects} reconnects")
    for name, vm in (("migrated", moving), ("started", starting)):
        record = c.VM.get_record(vm)
        running = domains(pool, record["uuid"])
        home = c.host.get_address(record["resident_on"]) \
            if record["power_state"] == "Running" else "nowhere"
        check(len(running) <= 1 and (running == [home] or home == "nowhere" and not running),
              f"the VM being {name} is {record['power_state']} on {home}, and a domain of "
              f"it runs on exactly {running}")
    t = timed()
    generation, digest = pool.wait_converged()
    check(True, f"all members have the same state: generation {generation}, "
          f"digest {digest[:16]}: {t}")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--build", default="build")
    ap.add_argument("--exit", action="store_true",
                    help="end after the walk; status 0 when all went well")
    ap.add_argument("--dir", help="folder for the members' data (default: a temporary one)")
    args = ap.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="xenpool-demo-") as temporary:
        with LocalPool(args.build, args.dir or temporary, network="127.0.0") as pool:
            try:
                form(pool)
                clients = any_member(pool)
                vm = life_cycle(pool, clients)
                console(pool, clients, vm)
                migrate(pool, clients, vm)
                failover(pool)
            except (ApiError, RuntimeError, OSError, TimeoutError) as e:
                FAILED.append(repr(e))
                say(f"WRONG {e!r}")
            if FAILED:
                say(f"{len(FAILED)} steps went wrong; the logs are in {pool.dir}")
            else:
                say("every step went as it should")
            if not args.exit:
                say("the pool runs on until Ctrl-C")
                try:
                    signal.pause()
                except KeyboardInterrupt:
                    say("stopping the pool")
            elif FAILED:
                for m in pool.members:
                    print(f"--- {m.address}\n" + m.log()[-2000:])
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
