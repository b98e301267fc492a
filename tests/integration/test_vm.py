"""A VM's life, asked for on members that are not the master."""
import threading
import time
import unittest

from harness import NULL, PoolCase, new_vm, say, unwrap, wait_for

GIB = 1 << 30


class Vm(PoolCase):
    @classmethod
    def prepare(cls):
        for m in cls.pool.members:
            m.executor_options.append("--kernel-dir=/boot/guest")

    def setUp(self):
        member = self.pool.followers()[0]
        self.c = member.client()
        self.addCleanup(self.c.close)
        self.made = []
        self.addCleanup(self.drop)

    def vm(self, name, **sim):
        vm = new_vm(self.c, name, **sim)
        self.made.append(vm)
        return vm

    def drop(self):
        """What a test made must not stand in the next one's way."""
        for vm in self.made:
            try:
                if self.c.VM.get_power_state(vm) != "Halted":
                    self.c.VM.hard_shutdown(vm)
                self.c.VM.destroy(vm)
            except Exception as e:
                say(f"{vm} stays: {e}")

    def state(self, vm):
        return self.c.VM.get_power_state(vm)

    def domains_of(self, vm):
        """[(address, state)] on the simulated hosts."""
        return [(m.address, s) for m, s in self.pool.domains(self.c.VM.get_uuid(vm))]

    def home(self, vm):
        return self.c.host.get_address(self.c.VM.get_resident_on(vm))

    def assert_bad_state(self, vm, expected, call, *args):
        self.assert_error(["VM_BAD_POWER_STATE", vm, expected, self.state(vm).lower()],
                          call, vm, *args)

    # ---- tests ----

    def test_01_whole_life(self):
        c, vm = self.c, self.vm("life")
        record = c.VM.get_record(vm)
        self.assertFalse(record["is_a_template"])
        self.assertEqual((record["power_state"], record["resident_on"], record["domid"]),
                         ("Halted", NULL, "-1" if isinstance(record["domid"], str) else -1))
        c.VM.start(vm, False, False)
        self.assertEqual(self.state(vm), "Running")
        self.assertEqual(self.domains_of(vm), [(self.home(vm), "running")])
        started = c.VM.get_record(vm)
        self.assertGreater(int(started["domid"]), 0)
        c.VM.pause(vm)
        self.assertEqual(self.domains_of(vm), [(self.home(vm), "paused")])
        self.assertEqual(self.state(vm), "Paused")
        c.VM.unpause(vm)
        self.assertEqual(self.state(vm), "Running")
        c.VM.clean_reboot(vm)
        rebooted = c.VM.get_record(vm)
        self.assertEqual(rebooted["power_state"], "Running")
        self.assertNotEqual(rebooted["domid"], started["domid"])
        self.assertEqual(rebooted["resident_on"], started["resident_on"])
        c.VM.hard_reboot(vm)
        self.assertEqual(self.state(vm), "Running")
        self.assertEqual(self.domains_of(vm), [(self.home(vm), "running")])
        c.VM.clean_shutdown(vm)
        record = c.VM.get_record(vm)
        self.assertEqual((record["power_state"], record["resident_on"]), ("Halted", NULL))
        self.assertEqual(int(record["domid"]), -1)
        self.assertEqual(self.domains_of(vm), [])
        c.VM.start(vm, True, False)
        self.assertEqual(self.state(vm), "Paused")
        self.assertEqual(self.domains_of(vm), [(self.home(vm), "paused")])
        c.VM.hard_shutdown(vm)
        self.assertEqual(self.domains_of(vm), [])
        c.VM.destroy(vm)
        self.made.clear()
        self.assert_error(["HANDLE_INVALID", "VM", vm], c.VM.get_record, vm)
        self.assert_settled(c)

    def test_02_wrong_power_states(self):
        c, vm = self.c, self.vm("states")
        bad = self.assert_bad_state
        both = "running, paused"
        bad(vm, "running", c.VM.clean_shutdown)
        bad(vm, "running", c.VM.clean_reboot)
        bad(vm, "running", c.VM.pause)
        bad(vm, "running", c.VM.suspend)
        bad(vm, "paused", c.VM.unpause)
        bad(vm, "suspended", c.VM.resume, False, False)
        bad(vm, "suspended", c.VM.resume_on, c.host.get_all()[0], False, False)
        bad(vm, "running", c.VM.pool_migrate, c.host.get_all()[0], {})
        error = self.error(c.VM.hard_shutdown, vm)
        self.assertEqual((error[0], error[3]), ("VM_BAD_POWER_STATE", "halted"))
        self.assertEqual(sorted(error[2].split(", ")), ["paused", "running", "suspended"])
        error = self.error(c.VM.hard_reboot, vm)
        self.assertEqual(sorted(error[2].split(", ")), sorted(both.split(", ")))
        c.VM.start(vm, False, False)
        bad(vm, "halted", c.VM.start, False, False)
        bad(vm, "halted", c.VM.start_on, c.host.get_all()[0], False, False)
        bad(vm, "paused", c.VM.unpause)
        bad(vm, "halted", c.VM.set_is_a_template, True)
        error = self.error(c.VM.destroy, vm)
        self.assertEqual((error[0], error[3]), ("VM_BAD_POWER_STATE", "running"))
        error = self.error(c.VM.clone, vm, "not while it runs")
        self.assertEqual((error[0], error[3]), ("VM_BAD_POWER_STATE", "running"))
        c.VM.pause(vm)
        bad(vm, "running", c.VM.clean_shutdown)
        bad(vm, "running", c.VM.suspend)
        bad(vm, "running", c.VM.pool_migrate, c.host.get_all()[0], {})
        self.assertEqual(self.state(vm), "Paused")

    def test_03_templates_and_blocked(self):
        c, vm = self.c, self.vm("blocked")
        t = next(r for r, v in c.VM.get_all_records().items() if v["is_default_template"])
        self.assert_error(["VM_IS_TEMPLATE", t, "start"], c.VM.start, t, False, False)
        self.assertEqual(self.error(c.VM.destroy, t)[0],
                         "VM_CANNOT_DELETE_DEFAULT_TEMPLATE")
        self.assertIn(t, c.VM.get_all())
        c.VM.add_to_blocked_operations(vm, "start", "not today")
        self.assertNotIn("start", c.VM.get_allowed_operations(vm))
        self.assert_error(["OPERATION_BLOCKED", vm, "not today"],
                          c.VM.start, vm, False, False)
        c.VM.remove_from_blocked_operations(vm, "start")
        self.assertIn("start", c.VM.get_allowed_operations(vm))
        error = self.error(c.VM.add_to_blocked_operations, vm, "no_such_op", "")
        self.assertIn(error[0], ("INTERNAL_ERROR", "INVALID_VALUE"))
        self.assertEqual(c.VM.get_blocked_operations(vm), {})
        dom0 = next(r for r, v in c.VM.get_all_records().items() if v["is_control_domain"])
        self.assertEqual(self.error(c.VM.clean_shutdown, dom0)[0],
                         "OPERATION_NOT_ALLOWED")
        gone = "OpaqueRef:11111111-2222-3333-4444-555555555555"
        self.assert_error(["HANDLE_INVALID", "VM", gone], c.VM.start, gone, False, False)
        self.assert_error(["HANDLE_INVALID", "host", gone],
                          c.VM.start_on, vm, gone, False, False)

    def test_03b_files_of_the_host(self):
        """No VM boots a file that the host does not offer."""
        c, vm = self.c, self.vm("thief")
        for path in ("/etc/shadow", "/boot/guest/../../etc/shadow", "relative"):
            for what in ("kernel", "ramdisk"):
                getattr(c.VM, f"set_PV_{what}")(vm, path)
                self.assert_error(["INVALID_VALUE", "config",
                                   f"{what}: not in a folder for kernels"],
                                  c.VM.start, vm, False, False)
                self.assertEqual(self.state(vm), "Halted")
                getattr(c.VM, f"set_PV_{what}")(vm, "")
        c.VM.set_PV_kernel(vm, "/boot/guest/vmlinux")
        c.VM.start(vm, False, False)
        self.assertEqual(self.state(vm), "Running")

    def test_04_host_choice(self):
        """VMs that fill more than one host are spread; what fits nowhere is
        refused and leaves nothing behind; affinity is followed."""
        c = self.c
        vms = [self.vm(f"big-{i}") for i in range(5)]
        for vm in vms:
            c.VM.set_memory_limits(vm, 3 * GIB, 3 * GIB, 3 * GIB, 3 * GIB)
        for vm in vms[:4]:
            c.VM.start(vm, False, False)
        per_host = {}
        for vm in vms[:4]:
            per_host.setdefault(c.VM.get_resident_on(vm), []).append(vm)
        self.assertLessEqual(max(map(len, per_host.values())), 2)
        for host in c.host.get_all():
            free = int(c.host.compute_free_memory(host))
            self.assertGreaterEqual(free, 0)
        c.VM.set_memory_limits(vms[4], 20 * GIB, 20 * GIB, 20 * GIB, 20 * GIB)
        error = self.error(c.VM.start, vms[4], False, False)
        self.assertIn(error[0], ("HOST_NOT_ENOUGH_FREE_MEMORY", "NO_HOSTS_AVAILABLE"))
        if error[0] == "HOST_NOT_ENOUGH_FREE_MEMORY":
            self.assertGreaterEqual(int(error[1]), 20 * GIB)
            self.assertLess(int(error[2]), 20 * GIB)
        error = self.error(c.VM.start_on, vms[4], c.host.get_all()[0], False, False)
        self.assertEqual(error[0], "HOST_NOT_ENOUGH_FREE_MEMORY")
        self.assertEqual(c.VM.get_possible_hosts(vms[4]), [])
        self.assertEqual(self.state(vms[4]), "Halted")
        for vm in vms[:4]:
            c.VM.hard_shutdown(vm)
        for host in c.host.get_all():
            c.VM.set_affinity(vms[0], host)
            c.VM.start(vms[0], False, False)
            self.assertEqual(c.VM.get_resident_on(vms[0]), host)
            c.VM.hard_shutdown(vms[0])

    def test_05_disabled_host(self):
        c, vm = self.c, self.vm("elsewhere")
        hosts = c.host.get_all()
        for host in hosts[:2]:
            c.host.disable(host)
        try:
            self.assertEqual(c.VM.get_possible_hosts(vm), [hosts[2]])
            c.VM.start(vm, False, False)
            self.assertEqual(c.VM.get_resident_on(vm), hosts[2])
            self.assert_error(["HOST_DISABLED", hosts[0]],
                              c.VM.pool_migrate, vm, hosts[0], {})
        finally:
            for host in hosts[:2]:
                c.host.enable(host)

    def test_06_migration(self):
        c, vm = self.c, self.vm("mover")
        c.VM.start_on(vm, self.pool.members[0].host_ref(c), False, False)
        for m in self.pool.members[1:] + self.pool.members[:1]:
            host = m.host_ref(c)
            c.VM.pool_migrate(vm, host, {"live": "true"})
            record = c.VM.get_record(vm)
            self.assertEqual((record["power_state"], record["resident_on"],
                              record["scheduled_to_be_resident_on"],
                              record["current_operations"]),
                             ("Running", host, NULL, {}))
            self.assertEqual(self.domains_of(vm), [(m.address, "running")])
        c.VM.pool_migrate(vm, c.VM.get_resident_on(vm), {"live": "true"})
        self.assertEqual(self.state(vm), "Running")

    def test_07_migration_under_way(self):
        """What a client sees of it, and that the VM runs once all the time."""
        c, vm = self.c, self.vm("slow", migrate_ms=1500)
        source, target = (m.host_ref(c) for m in self.pool.members[:2])
        uuid = c.VM.get_uuid(vm)
        c.VM.start_on(vm, source, False, False)
        task = c.Async.VM.pool_migrate(vm, target, {"live": "true"})
        record = wait_for(lambda: (r := c.VM.get_record(vm))["current_operations"] and r,
                          5, "the operation shows")
        self.assertEqual(record["current_operations"], {task: "pool_migrate"})
        self.assertEqual(record["power_state"], "Running")
        self.assertEqual(record["scheduled_to_be_resident_on"], target)
        self.assertNotIn("pool_migrate", record["allowed_operations"])
        self.assertNotIn("suspend", record["allowed_operations"])
        while c.task.get_status(task) == "pending":
            self.assert_at_most_one(uuid)
            time.sleep(0.02)
        self.assertEqual(c.wait_task(task), "<value></value>")
        self.assertEqual(c.VM.get_resident_on(vm), target)
        self.assert_at_most_one(uuid)
        self.assertIn("pool_migrate", c.VM.get_allowed_operations(vm))
        self.assert_settled(c)

    def test_08_failed_migration(self):
        c, vm = self.c, self.vm("stays", fail="migrate_send")
        source, target = (m.host_ref(c) for m in self.pool.members[:2])
        c.VM.start_on(vm, source, False, False)
        error = self.error(c.VM.pool_migrate, vm, target, {"live": "true"})
        say(f"a failed migration: {error}")
        record = c.VM.get_record(vm)
        self.assertEqual((record["power_state"], record["resident_on"],
                          record["scheduled_to_be_resident_on"]),
                         ("Running", source, NULL))
        self.assert_settled(c)

    def test_09_tasks(self):
        c, vm = self.c, self.vm("async", start_ms=600)
        task = c.Async.VM.start(vm, False, False)
        record = c.task.get_record(task)
        self.assertEqual((record["status"], record["name_label"], record["type"]),
                         ("pending", "Async.VM.start", "<none/>"))
        seen = wait_for(lambda: c.VM.get_current_operations(vm), 5, "the operation shows")
        self.assertEqual(seen, {task: "start"})
        self.assertEqual(c.VM.get_allowed_operations(vm).count("start"), 0)
        self.assertEqual(c.wait_task(task), "<value></value>")
        record = c.task.get_record(task)
        self.assertEqual((record["status"], record["progress"], record["error_info"],
                          record["current_operations"]), ("success", 1.0, [], {}))
        self.assertNotEqual(record["finished"], "19700101T00:00:00Z")
        self.assertEqual(c.VM.get_current_operations(vm), {})
        c.task.destroy(task)
        self.assert_error(["HANDLE_INVALID", "task", task], c.task.get_record, task)
        task = c.Async.VM.start(vm, False, False)
        record = self.wait_ended(c, task)
        self.assertEqual((record["status"], record["error_info"]),
                         ("failure", ["VM_BAD_POWER_STATE", vm, "halted", "running"]))
        c.task.destroy(task)
        c.VM.hard_shutdown(vm)
        task = c.Async.VM.clone(vm, "async clone")
        clone = unwrap(c.wait_task(task))
        self.made.append(clone)
        self.assertEqual(c.VM.get_name_label(clone), "async clone")
        c.task.destroy(task)

    def test_10_a_task_watched_elsewhere(self):
        c, vm = self.c, self.vm("watched", start_ms=300)
        other = self.pool.leader().client()
        other.session = c.session
        batch = getattr(other.event, "from")(["task", "VM"], "", 0)
        task = c.Async.VM.start(vm, False, False)
        token, last = batch["token"], None
        while last not in ("success", "failure"):
            batch = getattr(other.event, "from")(["task", "VM"], token, 10.0)
            self.assertTrue(batch["events"], "the task never ends")
            token = batch["token"]
            for e in batch["events"]:
                if e["ref"] == task:
                    self.assertIn(e["operation"], ("add", "mod"))
                    last = e["snapshot"]["status"]
        self.assertEqual(last, "success")
        self.assertEqual(other.VM.get_power_state(vm), "Running")
        c.task.destroy(task)

    def test_11_failures_and_cancel(self):
        c, vm = self.c, self.vm("broken", fail="start")
        error = self.error(c.VM.start, vm, False, False)
        self.assertEqual(error[0], "INTERNAL_ERROR")
        self.assertEqual(self.state(vm), "Halted")
        self.assertEqual(c.VM.get_current_operations(vm), {})
        self.assertEqual(self.domains_of(vm), [])
        c.VM.remove_from_other_config(vm, "sim:fail")
        c.VM.add_to_other_config(vm, "sim:ignore_shutdown", "true")
        c.VM.start(vm, False, False)
        task = c.Async.VM.clean_shutdown(vm)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "the shutdown begins")
        time.sleep(0.3)
        self.assertEqual(self.state(vm), "Running")
        c.task.cancel(task)
        record = self.wait_ended(c, task, 20)
        self.assertEqual(record["status"], "cancelled")
        self.assertEqual(self.state(vm), "Running")
        wait_for(lambda: not c.VM.get_current_operations(vm), 5, "the mark goes")
        c.task.destroy(task)

    def test_12_hard_shutdown_ends_what_runs(self):
        c, vm = self.c, self.vm("deaf", ignore_shutdown="true")
        c.VM.start(vm, False, False)
        task = c.Async.VM.clean_shutdown(vm)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "the shutdown begins")
        begin = time.monotonic()
        c.VM.hard_shutdown(vm)
        self.assertLess(time.monotonic() - begin, 15)
        self.assertEqual(self.state(vm), "Halted")
        self.assertIn(self.wait_ended(c, task)["status"], ("cancelled", "failure", "success"))
        c.task.destroy(task)
        self.assert_settled(c)

    def test_13_busy_objects_are_waited_for(self):
        """A second operation is not refused but waits for the first."""
        c, vm = self.c, self.vm("busy", shutdown_ms=800)
        c.VM.start(vm, False, False)
        first = c.Async.VM.clean_reboot(vm)
        wait_for(lambda: c.VM.get_current_operations(vm), 5, "the first one begins")
        c.VM.pause(vm)
        self.assertEqual(c.wait_task(first), "<value></value>")
        self.assertEqual(self.state(vm), "Paused")
        c.task.destroy(first)

    def test_14_two_starts_one_runs(self):
        c, vm = self.c, self.vm("raced", start_ms=200)
        uuid = c.VM.get_uuid(vm)
        outcomes = []

        def start(member):
            client = member.client()
            try:
                client.VM.start(vm, False, False)
                outcomes.append("started")
            except Exception as e:
                outcomes.append(e.details[0] if hasattr(e, "details") else repr(e))
            client.close()
        threads = [threading.Thread(target=start, args=(m,)) for m in self.pool.members]
        for t in threads:
            t.start()
        while any(t.is_alive() for t in threads):
            self.assert_at_most_one(uuid)
            time.sleep(0.02)
        self.assertEqual(sorted(outcomes),
                         ["VM_BAD_POWER_STATE", "VM_BAD_POWER_STATE", "started"])
        self.assertEqual(self.domains_of(vm), [(self.home(vm), "running")])

    def test_15_consoles_and_metrics(self):
        c, vm = self.c, self.vm("seen")
        self.assertEqual(c.VM.get_consoles(vm), [])
        metrics = c.VM.get_metrics(vm)
        self.assertEqual(c.VM_metrics.get_current_domain_type(metrics), "unspecified")
        c.VM.start_on(vm, self.pool.members[0].host_ref(c), False, False)
        for m in self.pool.members[:2]:
            c.VM.pool_migrate(vm, m.host_ref(c), {"live": "true"})
            consoles = [c.console.get_record(x) for x in c.VM.get_consoles(vm)]
            self.assertEqual(len(consoles), 1)
            self.assertEqual(consoles[0]["VM"], vm)
            self.assertIn(consoles[0]["protocol"], ("rfb", "vt100"))
            self.assertTrue(consoles[0]["location"].startswith(f"https://{m.address}"),
                            consoles[0])
            self.assertTrue(consoles[0]["location"].endswith(
                f"/console?uuid={consoles[0]['uuid']}"), consoles[0])
        record = c.VM_metrics.get_record(c.VM.get_metrics(vm))
        self.assertGreater(int(record["memory_actual"]), 0)
        self.assertGreater(int(record["VCPUs_number"]), 0)
        self.assertNotEqual(record["start_time"], "19700101T00:00:00Z")
        self.assertNotEqual(record["current_domain_type"], "unspecified")
        guest = c.VM.get_guest_metrics(vm)
        if guest != NULL:
            self.assertIsInstance(c.VM_guest_metrics.get_record(guest)["networks"], dict)
        c.VM.hard_shutdown(vm)
        self.assertEqual(c.VM.get_consoles(vm), [])
        record = c.VM_metrics.get_record(metrics)
        self.assertEqual(record["current_domain_type"], "unspecified")

    def test_16_alerts(self):
        c, vm = self.c, self.vm("told")
        uuid = c.VM.get_uuid(vm)
        c.VM.start(vm, False, False)
        c.VM.clean_shutdown(vm)
        names = [m["name"] for m in c.message.get_all_records().values()
                 if m["obj_uuid"] == uuid]
        self.assertIn("VM_STARTED", names)
        self.assertIn("VM_SHUTDOWN", names)

    def test_17_settled(self):
        self.assert_settled(self.c)
        self.pool.wait_converged()


if __name__ == "__main__":
    unittest.main(verbosity=2)
