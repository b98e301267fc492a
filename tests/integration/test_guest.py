"""What hosts and their guests tell: from the executor to the rows."""
import pathlib
import time
import unittest

from harness import NULL, PoolCase, new_vm, wait_for

DRIVERS = {"major": "8", "minor": "4", "micro": "0", "build": "1"}


def resident_kib(process):
    """Memory that a process holds now, in KiB."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{process.pid} holds no memory")


class Guest(PoolCase):
    members = 2

    def setUp(self):
        self.c = self.client(1)
        self.hosts = [m.host_ref(self.c) for m in self.pool.members]
        self.made = []
        self.addCleanup(self.drop)

    def vm(self, name, **sim):
        vm = new_vm(self.c, name, start_ms=20, shutdown_ms=20, **sim)
        self.made.append(vm)
        return vm

    def drop(self):
        for vm in self.made:
            if self.c.VM.get_power_state(vm) != "Halted":
                self.c.VM.hard_shutdown(vm)
            self.c.VM.destroy(vm)

    def metrics(self, vm):
        """The record of what the guest has told, None when it has not."""
        ref = self.c.VM.get_guest_metrics(vm)
        return self.c.VM_guest_metrics.get_record(ref) if ref != NULL else None

    def told(self, vm, what="the guest tells of itself"):
        return wait_for(lambda: self.metrics(vm), 20, what)

    def echo(self, vm):
        record = self.metrics(vm)
        return record and record["other"].get("sim-echo")

    # ---- guests ----

    def test_01_metrics(self):
        c, vm = self.c, self.vm("told")
        self.assertIsNone(self.metrics(vm))
        c.VM.start_on(vm, self.hosts[0], False, False)
        first = self.told(vm)
        self.assertEqual(first["PV_drivers_version"], DRIVERS)
        self.assertEqual(first["os_version"]["name"], "Simulated OS 1.0")
        self.assertEqual(first["os_version"]["major"], "1")
        self.assertEqual(first["networks"]["0/ip"], first["networks"]["0/ipv4/0"])
        self.assertTrue(first["networks"]["0/ipv4/0"].startswith("10."))
        self.assertTrue(first["networks"]["0/ipv6/0"].startswith("fd00::"))
        self.assertEqual(first["other"]["feature-shutdown"], "1")
        self.assertEqual(set(first["memory"]), {"total", "free"})
        self.assertEqual(first["disks"], {})
        self.assertEqual((first["can_use_hotplug_vbd"], first["can_use_hotplug_vif"]),
                         ("yes", "yes"))
        self.assertIs(first["live"], True)
        self.assertIs(first["PV_drivers_detected"], True)
        self.assertNotEqual(first["last_updated"], "19700101T00:00:00Z")

        # It is the same guest elsewhere, so it is the same row.
        c.VM.pool_migrate(vm, self.hosts[1], {"live": "true"})
        ref = c.VM.get_guest_metrics(vm)
        time.sleep(2)
        self.assertEqual(c.VM.get_guest_metrics(vm), ref)
        self.assertEqual(self.metrics(vm)["networks"], first["networks"])

        # What it said can be read when it is gone; a boot begins anew.
        c.VM.hard_shutdown(vm)
        self.assertIs(self.metrics(vm)["live"], False)
        self.assertEqual(self.metrics(vm)["os_version"], first["os_version"])
        c.VM.start_on(vm, self.hosts[0], True, False)
        self.assertIsNone(self.metrics(vm))
        c.VM.unpause(vm)
        self.assertNotEqual(self.told(vm)["uuid"], first["uuid"])
        c.VM.hard_shutdown(vm)
        c.VM.destroy(vm)
        self.made.remove(vm)
        self.assertNotIn(vm, c.VM.get_all())
        self.assertEqual(self.error(c.VM_guest_metrics.get_record, ref)[0],
                         "HANDLE_INVALID")

    def test_02_no_agent(self):
        vm = self.vm("silent", guest="none")
        self.c.VM.start_on(vm, self.hosts[0], False, False)
        time.sleep(2)
        self.assertIsNone(self.metrics(vm))

    def test_03_xenstore_data(self):
        """It reaches the guest at its creation and while it runs, and nothing
        outside vm-data does."""
        c, vm = self.c, self.vm("data")
        c.VM.set_xenstore_data(vm, {"vm-data/sim-echo": "at creation",
                                    "data/os_name": "not mine",
                                    "vm-data//": "no node", "vm-data/": "neither"})
        c.VM.start_on(vm, self.hosts[0], False, False)
        wait_for(lambda: self.echo(vm) == "at creation", 20, "the guest has its data")
        self.assertEqual(self.metrics(vm)["os_version"]["name"], "Simulated OS 1.0")
        self.assertEqual(c.VM.get_xenstore_data(vm)["data/os_name"], "not mine")
        c.VM.remove_from_xenstore_data(vm, "vm-data/sim-echo")
        wait_for(lambda: self.echo(vm) is None, 30, "they are gone")
        c.VM.add_to_xenstore_data(vm, "vm-data/sim-echo", "later & \"quoted\"")
        wait_for(lambda: self.echo(vm) == "later & \"quoted\"", 30, "new data are there")

        # A change that nobody carries out at once is not lost.
        m = self.pool.members[0]
        m.kill("executor")
        c.VM.set_xenstore_data(vm, {"vm-data/sim-echo": "after all"})
        m.start_executor()
        wait_for(lambda: self.echo(vm) == "after all", 40, "the guest has its data")

    def test_04_flood(self):
        """A guest that rewrites 8000 nodes of 2 KiB all the time costs a write
        now and then, and no memory; its neighbour is heard as before."""
        c = self.c
        flood, other = self.vm("flood", guest="flood"), self.vm("neighbour")
        for vm in (flood, other):
            c.VM.start_on(vm, self.hosts[0], False, False)
        self.told(flood, "the flood is heard")
        self.told(other)
        time.sleep(3)
        m = self.pool.members[0]
        before = [resident_kib(m.daemon), resident_kib(m.executor)]
        generation, start = m.status()["generation"], time.monotonic()
        time.sleep(8)
        c.VM.set_xenstore_data(other, {"vm-data/sim-echo": "still here"})
        wait_for(lambda: self.echo(other) == "still here", 30, "the neighbour is heard")
        seconds = time.monotonic() - start
        writes = m.status()["generation"] - generation
        grown = [now - then for now, then in
                 zip([resident_kib(m.daemon), resident_kib(m.executor)], before)]
        record = self.metrics(flood)
        size = sum(len(k) + len(v) for k, v in record["other"].items())
        print(f"    {writes} writes in {seconds:.1f} s, {size} bytes in its row, "
              f"KiB more in daemon and executor: {grown}", flush=True)
        self.assertLessEqual(size, 8192)
        self.assertLessEqual(len(record["other"]), 160)
        # One row in 5 s, and what the test itself and liveness write.
        self.assertLessEqual(writes, seconds / 5 + 12)
        self.assertLess(max(grown), 8192)
        self.assertEqual(self.metrics(other)["PV_drivers_version"], DRIVERS)

    # ---- hosts ----

    def test_05_host_facts(self):
        c = self.c
        for host in self.hosts:
            h = c.host.get_record(host)
            n = int(h["cpu_info"]["cpu_count"])
            self.assertEqual(n, 4)
            for key, wanted in (("socket_count", "1"), ("nr_nodes", "1"),
                                ("vendor", "Simulated"), ("speed", "2400"),
                                ("family", "25"), ("model", "1"), ("stepping", "1")):
                self.assertEqual(h["cpu_info"][key], wanted, key)
            self.assertIn("sse2", h["cpu_info"]["flags"].split())
            self.assertTrue(h["cpu_info"]["features_hvm"])
            self.assertEqual(h["cpu_configuration"]["cores_per_socket"], "4")
            self.assertIn("hvm-3.0-x86_64", h["capabilities"])
            self.assertEqual(h["sched_policy"], "credit2")
            self.assertEqual(h["software_version"]["xen"], "4.17.0")
            self.assertEqual(h["software_version"]["linux"], "6.1.0-sim")
            for key in ("product_version", "build_number", "xapi", "platform_version"):
                self.assertTrue(h["software_version"][key], key)
            for key in ("boot_time", "agent_start_time"):
                self.assertAlmostEqual(float(h["other_config"][key]), time.time(),
                                       delta=1200, msg=key)
            cpus = [c.host_cpu.get_record(ref) for ref in h["host_CPUs"]]
            self.assertEqual(sorted(int(x["number"]) for x in cpus), list(range(n)))
            for x in cpus:
                self.assertEqual((x["host"], x["vendor"], x["modelname"],
                                  int(x["speed"]), int(x["family"]), x["stepping"]),
                                 (host, "Simulated", "Simulated CPU", 2400, 25, "1"))
                self.assertEqual(x["flags"], h["cpu_info"]["flags"])

            dom0 = c.VM.get_record(h["control_domain"])
            self.assertTrue(dom0["is_control_domain"])
            self.assertEqual((int(dom0["domid"]), dom0["power_state"], dom0["resident_on"],
                              int(dom0["VCPUs_max"])), (0, "Running", host, 4))
            metrics = c.VM_metrics.get_record(dom0["metrics"])
            self.assertEqual(metrics["memory_actual"], dom0["memory_static_max"])
            self.assertEqual((int(metrics["VCPUs_number"]), metrics["state"],
                              metrics["current_domain_type"]), (4, ["running"], "pv"))

    def test_06_memory_follows(self):
        """host_metrics and VM_metrics say what the hypervisor says."""
        c, vm = self.c, self.vm("eater")
        metrics = c.host.get_metrics(self.hosts[0])

        def free():
            return int(c.host_metrics.get_record(metrics)["memory_free"])
        m = c.host_metrics.get_record(metrics)
        self.assertIs(m["live"], True)
        before = int(m["memory_total"])
        wait_for(lambda: free() == before, 30, "no other VM counts any more")
        c.VM.start_on(vm, self.hosts[0], False, False)
        taken = int(c.VM.get_memory_target(vm))
        self.assertGreater(taken, 0)
        wait_for(lambda: free() <= before - taken, 30, "less memory is free")
        c.VM.wait_memory_target_live(vm)
        mine = c.VM_metrics.get_record(c.VM.get_metrics(vm))
        self.assertEqual(int(mine["memory_actual"]), taken)
        self.assertEqual(mine["state"], ["running"])
        # What it uses is in no row; whoever is asked asks its host.
        share = 1 / int(mine["VCPUs_number"])
        for index in range(len(self.pool.members)):
            other = self.client(index)
            wait_for(lambda: abs(other.VM.query_data_source(vm, "cpu_usage") - share)
                     < share / 5, 30, "its use of processors")
            self.assertEqual([s["name_label"] for s in other.VM.get_data_sources(vm)],
                             ["cpu_usage", "memory"])
        c.VM.pause(vm)
        wait_for(lambda: c.VM_metrics.get_state(c.VM.get_metrics(vm)) == ["paused"], 30,
                 "it is seen paused")
        c.VM.hard_shutdown(vm)
        wait_for(lambda: free() >= before, 30, "it is free again")
        self.assertEqual(c.VM_metrics.get_state(c.VM.get_metrics(vm)), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
