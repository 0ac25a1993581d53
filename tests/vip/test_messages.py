"""Proves that requests to the kernel say what is meant, as pyroute2 reads them."""

import errno
import struct
from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.vip.messages import add_address, answer_to, remove_address

FOUR, SIX = ip_interface("192.0.2.25/32"), ip_interface("2001:db8::25/64")
NEW_ADDRESS, DELETE_ADDRESS = 20, 21
REQUEST, ACK, REPLACE, CREATE = 0x1, 0x4, 0x100, 0x400
NODAD, NOPREFIXROUTE = 0x02, 0x200


def read(octets):
    """Return a message as another implementation reads it."""
    message = ifaddrmsg(octets)
    message.decode()
    return message


def answer(sequence, number, kind=2):
    """Return the kernel's answer: an errno, and the header of what was asked."""
    return struct.pack("=IHHIIi", 36, kind, 0x100, sequence, 4711, -number) + bytes(16)


class RequestTests(SynchronousTestCase):
    """What is asked for."""

    def test_add_four(self):
        """An address of this machine like any other, for three seconds."""
        message = read(add_address(7, 3, FOUR, 3))
        header = message["header"]
        self.assertEqual((header["type"], header["sequence_number"]), (NEW_ADDRESS, 7))
        self.assertEqual(header["flags"], REQUEST | ACK | REPLACE | CREATE)
        self.assertEqual((message["family"], message["prefixlen"], message["index"]), (2, 32, 3))
        self.assertEqual(message.get("IFA_LOCAL"), "192.0.2.25")
        self.assertEqual(message.get("IFA_ADDRESS"), "192.0.2.25")
        self.assertEqual(message.get("IFA_FLAGS"), NOPREFIXROUTE)
        lifetimes = message.get("IFA_CACHEINFO")
        self.assertEqual((lifetimes["ifa_preferred"], lifetimes["ifa_valid"]), (3, 3))

    def test_add_six(self):
        """Usable at once, and never a source."""
        message = read(add_address(7, 3, SIX, 3))
        self.assertEqual((message["family"], message["prefixlen"]), (10, 64))
        self.assertEqual(message.get("IFA_ADDRESS"), "2001:db8::25")
        self.assertEqual(message.get("IFA_FLAGS"), NOPREFIXROUTE | NODAD)
        lifetimes = message.get("IFA_CACHEINFO")
        self.assertEqual((lifetimes["ifa_preferred"], lifetimes["ifa_valid"]), (0, 3))

    def test_remove(self):
        """That address on that interface, and no other."""
        message = read(remove_address(9, 3, FOUR))
        header = message["header"]
        self.assertEqual((header["type"], header["flags"]), (DELETE_ADDRESS, REQUEST | ACK))
        self.assertEqual((message["index"], message["prefixlen"]), (3, 32))
        self.assertEqual(message.get("IFA_LOCAL"), "192.0.2.25")

    def test_length(self):
        """The header tells the length of all."""
        for octets in (add_address(1, 2, SIX, 3), remove_address(1, 2, SIX)):
            self.assertEqual(struct.unpack_from("=I", octets)[0], len(octets))


class AnswerTests(SynchronousTestCase):
    """What comes back."""

    def test_done(self):
        """No error is 0."""
        self.assertEqual(answer_to(7, answer(7, 0)), 0)

    def test_refused(self):
        """An error is its number."""
        self.assertEqual(answer_to(7, answer(7, errno.EPERM)), errno.EPERM)

    def test_of_another(self):
        """A late answer to an earlier request is not ours, nor is another message."""
        self.assertIsNone(answer_to(7, answer(6, errno.EPERM)))
        self.assertIsNone(answer_to(7, answer(7, 0, kind=NEW_ADDRESS)))

    @given(st.binary(max_size=64))
    def test_anything(self, octets):
        """Whatever it is, it is an answer or it is not."""
        self.assertIn(type(answer_to(7, octets)), (int, type(None)))
