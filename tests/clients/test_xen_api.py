"""npm xen-api, the client of Xen Orchestra, over both of its transports."""
import hashlib
import json
import pathlib
import selectors
import shutil
import subprocess
import sys
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from harness import BUILD, PoolCase, Writer, new_vm, say  # noqa: E402

FOLDER = BUILD / "tests" / "clients" / "npm"


def install():
    """The reason why the client cannot be had, or None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "node and npm are not installed"
    lock = (HERE / "package-lock.json").read_bytes()
    stamp = FOLDER / "installed"
    wanted = hashlib.sha256(lock).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, FOLDER / name)
        try:
            done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit",
                                   "--no-fund"], cwd=FOLDER, capture_output=True,
                                  text=True, timeout=240, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return "npm ci did not end in 240 s"
        if done.returncode:
            return "npm ci failed: " + done.stderr.strip()[-300:]
        stamp.write_text(wanted)
    shutil.copy(HERE / "xen_api.mjs", FOLDER / "xen_api.mjs")
    return None


class Node:
    """A node process that runs xen_api.mjs."""

    def __init__(self, log):
        self.log = open(log, "ab")
        self.child = subprocess.Popen(["node", "xen_api.mjs"], cwd=FOLDER,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=self.log)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.child.stdout, selectors.EVENT_READ)

    def ask(self, command, timeout=60, **args):
        self.child.stdin.write(json.dumps({"command": command, **args}).encode() + b"\n")
        self.child.stdin.flush()
        if not self.selector.select(timeout):
            raise AssertionError(f"{command}: no answer in {timeout} s")
        answer = json.loads(self.child.stdout.readline() or b'{"error": "node ended"}')
        if "error" in answer:
            raise AssertionError(f"{command} {args}: {answer['error']}")
        return answer

    def stop(self):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.log.close()


class XenApi(PoolCase):
    @classmethod
    def setUpClass(cls):
        why = install()
        if why:
            raise unittest.SkipTest(f"npm xen-api cannot be installed: {why}")
        super().setUpClass()

    def setUp(self):
        self.node = Node(self.pool.dir / "node.log")
        self.addCleanup(self.show_node_log)
        self.addCleanup(self.node.stop)

    def show_node_log(self):
        log = self.pool.dir / "node.log"
        if self.failed and log.exists():
            print("--- node\n" + log.read_text(errors="replace")[-3000:], file=sys.stderr)

    def url(self, m):
        return f"https://root:{self.pool.password}@{m.address}:{self.pool.https_port}"

    def on_every_member(self, transport):
        for m in self.pool.members:
            name = f"{transport} {m.address}"
            answer = self.node.ask("connect", name=name, url=self.url(m),
                                   transport=transport)
            self.assertIn("VM", answer["types"])
            self.assertEqual(len(answer["types"]), len(set(answer["types"])))
            say(f"{name}: {len(answer['types'])} classes, {answer['objects']} objects")
            answer = self.node.ask("basics", name=name, label=f"by {name}")
            say(f"a cancelled shutdown ends as {answer['cancelled']}")
            answer = self.node.ask("compare", name=name)
            self.assertEqual(answer["differences"], [])
            self.node.ask("renew", name=name)
            self.node.ask("disconnect", name=name)

    def test_1_json(self):
        self.on_every_member("json-rpc")

    def test_2_xml(self):
        self.on_every_member("xml-rpc")

    def test_3_auto_picks_json(self):
        self.node.ask("connect", name="auto", url=self.url(self.pool.members[1]),
                      transport="auto")
        self.node.ask("disconnect", name="auto")

    def test_4_failover(self):
        """Its cache equals a fresh fetch after the master was killed."""
        leader = self.pool.leader()
        others = self.pool.followers()
        c = others[0].client()
        vm = new_vm(c, "beside a failover", start_ms=800)
        names = []
        for m, transport in zip(others, ("json-rpc", "xml-rpc")):
            names.append(f"{transport} {m.address}")
            self.node.ask("connect", name=names[-1], url=self.url(m), transport=transport)
        writer = Writer(others, "beside:", pause=0.01, keep=50).start()
        time.sleep(0.5)
        task = c.Async.VM.start(vm, False, False)
        time.sleep(0.2)
        leader.kill("daemon")
        self.pool.leader()
        time.sleep(1.0)
        leader.start_daemon()
        leader.wait_up().close()
        c.wait_task(task)
        c.task.destroy(task)
        c.VM.pause(vm)
        writer.stop()
        self.assertEqual(writer.missing(c), [])
        for name in names:
            answer = self.node.ask("compare", name=name)
            self.assertEqual(answer["differences"], [], name)
            say(f"{name}: {answer['objects']} objects are as a fresh fetch has them")
            self.node.ask("disconnect", name=name)
        c.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
