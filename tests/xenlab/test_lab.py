"""The lab itself, and the daemons in it, before anything is built on them."""
import socket
import ssl
import time
import unittest

from labcase import LabCase
from harness import wait_for


class Lab(LabCase):
    def test_01_hosts_are_real(self):
        """Each host tells of the Xen under it, and of no simulated one."""
        for m in self.pool.members:
            info = m.machine.run("xl info")
            self.assertIn("4.17", info)
            self.assertIn("hvm", info)

    def test_02_login_over_https(self):
        """From outside, through each host's own port."""
        for m in self.pool.members:
            c = m.client()
            record = c.host.get_record(m.host_ref(c))
            self.assertEqual(record["address"], m.address)
            self.assertTrue(record["enabled"])
            self.assertIn("xen", str(record["software_version"]))
            c.close()

    def test_03_one_pool(self):
        """Both hosts tell of both, and what one is told the other knows."""
        a, b = (m.client() for m in self.pool.members)
        self.assertEqual(len(a.host.get_all()), 2)
        self.assertEqual(sorted(a.host.get_all()), sorted(b.host.get_all()))
        pool = a.pool.get_all()[0]
        a.pool.set_name_label(pool, "two machines")
        self.assertEqual(b.pool.get_name_label(pool), "two machines")
        a.close()
        b.close()

    def test_04_clocks(self):
        """The hosts' clocks are right, so that what clients read is."""
        for m in self.pool.members:
            before = time.time()
            there = float(m.machine.run("date +%s.%N"))
            after = time.time()
            self.assertLess(before - 3, there)
            self.assertLess(there, after + 3)

    def test_05_the_cable_can_be_pulled(self):
        a, b = self.pool.machines
        ping = f"ping -c 1 -W 2 {b.cable} >/dev/null"
        self.assertEqual(a.ask(ping)[0], 0)
        a.set_cable(False)
        self.assertNotEqual(a.ask(ping)[0], 0)
        a.set_cable(True)
        wait_for(lambda: a.ask(ping)[0] == 0, 30, "the cable works again")
        self.pool.wait_formed(timeout=90)

    def test_06_cheap_cipher(self):
        """dom0's libssl takes the cipher that is cheapest under emulation from a client
        that would rather have another."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for m in self.pool.members:
            with socket.create_connection(m.endpoint(True), 30) as plain:
                with context.wrap_socket(plain) as s:
                    self.assertEqual(s.cipher()[0], "TLS_CHACHA20_POLY1305_SHA256")


if __name__ == "__main__":
    unittest.main(verbosity=2)
