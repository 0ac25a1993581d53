"""Proves that hello datagrams leave and arrive, by multicast and unicast, on this machine."""

import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.cluster.casting import Casting
from mailsecure.errors import LocalFault

LOOPBACK = socket.if_nametoindex("lo")


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Inbox:
    """Keeps what arrives, and can be waited for."""

    def __init__(self):
        self.datagrams = []
        self._wanted = None

    def __call__(self, datagram, source):
        self.datagrams.append((datagram, source))
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.callback(None)

    async def next(self):
        if not self.datagrams:
            self._wanted = Deferred()
            await self._wanted.addTimeout(5, reactor)
        return self.datagrams.pop(0)


class CastingTests(TestCase):
    """On real sockets."""

    def casting(self, group, peers=(), address="127.0.0.1"):
        inbox = Inbox()
        casting = Casting(group, address, peers, inbox)
        casting.bind(reactor, LOOPBACK)
        self.addCleanup(casting.close)
        return casting, inbox

    async def test_multicast(self):
        """Everybody on the interface hears it, the sender too."""
        group = ("239.255.25.25", free_port())
        one, heard_by_one = self.casting(group)
        _, heard_by_two = self.casting(group)
        one.send(b"hello")
        self.assertEqual((await heard_by_two.next())[0], b"hello")
        self.assertEqual((await heard_by_one.next())[0], b"hello")
        self.assertEqual(one.failures, 0)

    async def test_stays_on_the_link(self):
        """TTL 1, and a class that routers and switches prefer."""
        one, _ = self.casting(("239.255.25.25", free_port()))
        handle = one._port.getHandle()
        self.assertEqual(handle.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL), 1)
        self.assertEqual(handle.getsockopt(socket.IPPROTO_IP, socket.IP_TOS), 0xC0)

    async def test_unicast(self):
        """To each peer, and to nobody else."""
        port, other, group = free_port(), free_port(), ("239.255.25.25", 1)
        two, heard = self.casting((group[0], port), [("127.0.0.1", other)])
        three, _ = self.casting((group[0], other), [("127.0.0.1", port)])
        three.send(b"hello")
        self.assertEqual(await heard.next(), (b"hello", "127.0.0.1"))
        self.assertEqual((two.failures, three.failures), (0, 0))

    async def test_cannot_send(self):
        """What cannot be sent is counted, and raises nothing."""
        one, _ = self.casting(("239.255.25.25", free_port()), [("127.0.0.1", 0)])
        one.send(b"hello")
        self.assertEqual((one.failures, one.failure), (1, "Invalid argument"))

    async def test_closed(self):
        """After the end nothing is sent, and a second end is none."""
        one, heard = self.casting(("239.255.25.25", free_port()))
        await one.close()
        await one.close()
        one.send(b"hello")
        await deferLater(reactor, 0.01)
        self.assertEqual(heard.datagrams, [])

    async def test_joined_again(self):
        """Joining the interface that was joined is nothing."""
        one, heard = self.casting(("239.255.25.25", free_port()))
        one.join(LOOPBACK)
        one._joined = 0
        one.join(LOOPBACK)
        one.send(b"hello")
        self.assertEqual((await heard.next())[0], b"hello")


class FaultTests(SynchronousTestCase):
    """What is told in one line."""

    def test_taken(self):
        """Somebody else has the port for himself alone."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("127.0.0.1", 0))
            port = holder.getsockname()[1]
            casting = Casting(("239.1.1.1", port), "127.0.0.1", [("127.0.0.1", 1)], print)
            fault = self.assertRaises(LocalFault, casting.bind, reactor, LOOPBACK)
        self.assertEqual(str(fault), f"cannot listen on UDP port {port}: Address already in use")

    def test_no_such_interface(self):
        """An index that no interface has."""
        casting = Casting(("239.1.1.1", 0), "127.0.0.1", (), print)
        fault = self.assertRaises(LocalFault, casting.bind, reactor, 999_999)
        casting.close()
        self.assertEqual(str(fault), "cannot join 239.1.1.1: Cannot assign requested address")
