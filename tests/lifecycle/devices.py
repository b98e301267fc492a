"""Drives for tests of VMs."""
from case import NULL, REAL, LifeCase

FOLDER = "/share/guest"  # files that any laboratory host has, too
FILES = ("disk0.img", "disk1.img")


class DeviceCase(LifeCase):
    """Two disks in a storage repository."""

    def set_up_devices(self):
        c = self.c
        self.sr = c.SR.create(NULL, {"location": FOLDER}, "0", "files", "", "file",
                              "user", True, {})
        self.addCleanup(self.drop_devices)
        self.disks = [c.VDI.introduce("", "", "", self.sr, "user", False, False, {}, f)
                      for f in FILES]

    def drop_devices(self):
        self.drop()
        for pbd in self.c.SR.get_PBDs(self.sr):
            self.c.PBD.unplug(pbd)
        self.c.SR.forget(self.sr)

    def drive(self, vm, device, disk=None, kind="Disk", mode="RO"):
        return self.c.VBD.create({
            "VM": vm, "VDI": disk or NULL, "userdevice": device, "bootable": False,
            "mode": mode, "type": kind, "unpluggable": True, "empty": not disk,
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})

    def start(self, vm):
        """On the first host, until the guest can let go of a device."""
        self.c.VM.start_on(vm, self.host_a, False, False)
        self.wait_up(vm)

    def wait_up(self, vm):
        if REAL:
            self.counts_beyond(vm, 0)

    def assert_devices(self, vm, disks, vifs):
        self.assert_has(vm, disks=disks, vifs=vifs)
