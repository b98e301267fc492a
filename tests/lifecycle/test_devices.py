"""What can be changed of a VM that runs: drives, cards, memory, virtual CPUs."""
import threading
import unittest

from case import MIB, NULL, REAL, ApiError, wait_for
from devices import DeviceCase


class Devices(DeviceCase):
    def setUp(self):
        super().setUp()
        self.set_up_devices()

    def started(self, name, **more):
        """Of the kind that is up sooner; what it does with devices is the same."""
        vm = self.vm(name, "pv", **more)
        self.start(vm)
        return vm

    # ---- drives ----

    def test_01_drives(self):
        """Plugged and unplugged while it runs, and what a reboot makes of it."""
        c, vm = self.c, self.vm("drives")
        first = self.drive(vm, "0", self.disks[0])
        self.assert_error(["VM_BAD_POWER_STATE", vm, "running", "halted"],
                          c.VBD.plug, first)
        self.start(vm)
        self.assertTrue(c.VBD.get_currently_attached(first))
        self.assert_devices(vm, [0], [])
        second = self.drive(vm, "1", self.disks[1])
        self.assertIn("plug", c.VBD.get_allowed_operations(second))
        self.assert_error(["DEVICE_ALREADY_DETACHED", second], c.VBD.unplug, second)
        self.do(c.VBD.plug, second)
        r = c.VBD.get_record(second)
        self.assertEqual((r["currently_attached"], r["device"], r["current_operations"]),
                         (True, "xvdb", {}))
        self.assertIn("unplug", r["allowed_operations"])
        self.assertNotIn("plug", r["allowed_operations"])
        self.assertNotIn("forget", c.VDI.get_allowed_operations(self.disks[1]))
        self.assert_error(["DEVICE_ALREADY_ATTACHED", second], c.VBD.plug, second)
        self.assertEqual(self.error(c.VBD.destroy, second)[0], "OPERATION_NOT_ALLOWED")
        self.assert_devices(vm, [0, 1], [])
        c.VBD.unplug(first)
        self.assertFalse(c.VBD.get_currently_attached(first))
        self.assertIn("forget", c.VDI.get_allowed_operations(self.disks[0]))
        self.assert_devices(vm, [1], [])
        c.VM.hard_reboot(vm)
        self.assert_devices(vm, [1], [])
        self.assertFalse(c.VBD.get_currently_attached(first))
        c.VBD.unplug_force(second)
        c.VBD.destroy(second)
        self.assert_devices(vm, [], [])
        c.VM.hard_shutdown(vm)
        self.start(vm)
        self.assert_devices(vm, [0], [])
        self.assert_settled(c)

    def test_02_rules(self):
        c, vm = self.c, self.started("rules")
        fixed = self.drive(vm, "0", self.disks[0])
        self.do(c.VBD.plug, fixed)
        c.VBD.set_unpluggable(fixed, False)
        self.assert_error(["VBD_NOT_UNPLUGGABLE", fixed], c.VBD.unplug, fixed)
        c.VBD.set_unpluggable(fixed, True)
        other = self.started("other")
        writer = self.drive(other, "0", self.disks[0], mode="RW")
        self.assert_error(["VDI_IN_USE", self.disks[0]], c.VBD.plug, writer)
        reader = self.drive(other, "1", self.disks[0])
        c.VBD.plug(reader)
        c.VM.pause(vm)
        self.assert_error(["VM_BAD_POWER_STATE", vm, "running", "paused"],
                          c.VBD.unplug, fixed)
        c.VM.unpause(vm)
        c.VM.hard_shutdown(vm)
        c.VBD.unplug(reader)
        self.do(c.VBD.plug, writer)

    def test_03_one_writer(self):
        """Two starts, and two plugs, that want the same disk at once."""
        c = self.c
        vms = [self.vm(f"writer-{i}", "pv") for i in range(2)]
        vbds = [self.drive(vm, "0", self.disks[0], mode="RW") for vm in vms]

        def race(name, args):
            errors, lock = [], threading.Lock()

            def one(m, arg):
                own, (cls, method) = m.client(), name.split(".")
                try:
                    getattr(getattr(own, cls), method)(*arg)
                except ApiError as e:
                    with lock:
                        errors.append([e.code, *e.params])
                finally:
                    own.close()
            threads = [threading.Thread(target=one, args=p)
                       for p in zip((self.a, self.b), args)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual(errors, [["VDI_IN_USE", self.disks[0]]])
        race("VM.start", [(vm, False, False) for vm in vms])
        for vm, vbd in zip(vms, vbds):
            if self.state(vm) == "Running":
                self.wait_up(vm)
                c.VBD.unplug(vbd)
            else:
                c.VBD.destroy(vbd)
                c.VM.start(vm, False, False)
        vbds = [b for vm in vms for b in c.VM.get_VBDs(vm)]
        late = next(vm for vm in vms if not c.VM.get_VBDs(vm))
        vbds.append(self.drive(late, "0", self.disks[0], mode="RW"))
        race("VBD.plug", [(b,) for b in vbds])
        self.assertEqual(sorted(c.VBD.get_currently_attached(b) for b in vbds),
                         [False, True])
        self.assert_settled(c)

    @unittest.skipIf(REAL, "a real guest's kernel lets go of what nobody uses")
    def test_04_guest_that_keeps_it(self):
        c, vm = self.c, self.started("keeper", deaf=True)
        vbd, vif = self.drive(vm, "0", self.disks[0]), self.card(vm, "0")
        c.VBD.plug(vbd)
        c.VIF.plug(vif)
        self.assert_error(["DEVICE_DETACH_TIMEOUT", "VBD", vbd], c.VBD.unplug, vbd)
        self.assert_error(["DEVICE_DETACH_TIMEOUT", "VIF", vif], c.VIF.unplug, vif)
        self.assertTrue(c.VBD.get_currently_attached(vbd))
        self.assertEqual(c.VBD.get_current_operations(vbd), {})
        self.assert_devices(vm, [0], [0])
        c.VBD.unplug_force(vbd)
        c.VIF.unplug_force(vif)
        self.assert_devices(vm, [], [])
        self.assert_settled(c)

    @unittest.skipIf(REAL, "guests without emulated drives get media as disks")
    def test_05_media(self):
        c, vm = self.c, self.vm("media")
        cd = self.drive(vm, "3", kind="CD")
        c.VM.start_on(vm, self.host_a, False, False)
        self.assertIn("insert", c.VBD.get_allowed_operations(cd))
        self.assert_error(["VBD_IS_EMPTY", cd], c.VBD.eject, cd)
        c.VBD.insert(cd, self.disks[0])
        r = c.VBD.get_record(cd)
        self.assertEqual((r["VDI"], r["empty"], r["currently_attached"]),
                         (self.disks[0], False, True))
        self.assertNotIn("forget", c.VDI.get_allowed_operations(self.disks[0]))
        self.assert_error(["VBD_NOT_EMPTY", cd], c.VBD.insert, cd, self.disks[1])
        c.VBD.eject(cd)
        self.assertEqual((c.VBD.get_VDI(cd), c.VBD.get_empty(cd)), (NULL, True))
        self.assertIn("forget", c.VDI.get_allowed_operations(self.disks[0]))
        self.assert_settled(c)

    # ---- cards ----

    def test_06_cards(self):
        c, vm = self.c, self.vm("cards", "pv")
        self.card(vm, "0")
        self.start(vm)
        self.assert_devices(vm, [], [0])
        vif = self.card(vm, "1")
        self.assertIn("plug", c.VIF.get_allowed_operations(vif))
        self.do(c.VIF.plug, vif)
        r = c.VIF.get_record(vif)
        self.assertEqual((r["currently_attached"], r["current_operations"],
                          r["allowed_operations"]), (True, {}, ["unplug"]))
        self.assert_error(["DEVICE_ALREADY_ATTACHED", vif], c.VIF.plug, vif)
        self.assert_devices(vm, [], [0, 1])
        c.VIF.unplug(vif)
        self.assertFalse(c.VIF.get_currently_attached(vif))
        self.assert_error(["DEVICE_ALREADY_DETACHED", vif], c.VIF.unplug, vif)
        self.assert_devices(vm, [], [0])
        c.VIF.destroy(vif)
        self.assert_settled(c)

    # ---- sizes ----

    def test_07_memory(self):
        c, vm = self.c, self.vm("memory")
        c.VM.set_memory_limits(vm, 64 * MIB, 128 * MIB, 128 * MIB, 128 * MIB)
        self.start(vm)
        for size in (96 * MIB, 128 * MIB):
            self.do(c.VM.set_memory_dynamic_range, vm, size, size)
            r = c.VM.get_record(vm)
            self.assertEqual([int(r["memory_" + f]) for f in
                              ("dynamic_min", "dynamic_max", "target")], [size] * 3)
            self.assert_has(vm, memory=size)
        if REAL:  # the simulated guest's are looked at in test_guest
            c.VM.wait_memory_target_live(vm)
            wait_for(lambda: abs(c.VM.query_data_source(vm, "memory") - size) < 2 * MIB,
                     20, "how much it has is told, but for a few pages of Xen's own")
            wait_for(lambda: 0 < c.VM.query_data_source(vm, "cpu_usage") <= 1, 20,
                     "so is how much it runs")
        self.assertEqual(self.error(c.VM.set_memory_dynamic_range, vm, 32 * MIB,
                                    32 * MIB), ["MEMORY_CONSTRAINT_VIOLATION_ORDER"])
        self.assert_settled(c)

    @unittest.skipIf(REAL, "the real Xen does not fail when it is told to")
    def test_08_memory_refused(self):
        """The range is as before."""
        c, vm = self.c, self.vm("stubborn")
        c.VM.add_to_other_config(vm, "sim:fail", "memory")
        c.VM.set_memory_limits(vm, 64 * MIB, 128 * MIB, 128 * MIB, 128 * MIB)
        c.VM.start_on(vm, self.host_a, False, False)
        self.assertEqual(self.error(c.VM.set_memory_dynamic_range, vm, 96 * MIB,
                                    96 * MIB)[0], "INTERNAL_ERROR")
        self.assertEqual(int(c.VM.get_memory_dynamic_min(vm)), 128 * MIB)
        self.assertEqual(int(c.VM.get_memory_target(vm)), 128 * MIB)
        self.assert_settled(c)

    def test_09_cpus(self):
        c, vm = self.c, self.vm("cpus")
        c.VM.set_VCPUs_max(vm, 2)
        self.start(vm)
        for n in (2, 1):
            self.do(c.VM.set_VCPUs_number_live, vm, n)
            self.assertEqual(int(c.VM_metrics.get_VCPUs_number(c.VM.get_metrics(vm))), n)
            self.assert_has(vm, vcpus=n)
        for n in (0, 3):
            self.assert_error(["INVALID_VALUE", "nvcpu", str(n)],
                              c.VM.set_VCPUs_number_live, vm, n)
        self.assert_settled(c)


if __name__ == "__main__":
    unittest.main(verbosity=2)
