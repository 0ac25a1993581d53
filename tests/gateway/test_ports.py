"""Proves that a virtual address is listened at before it is there, and no other is.

Proves too that a port may be listed for IPv4 and IPv6, each everywhere.
"""

import socket
from ipaddress import ip_address

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from mailsecure.gateway.ports import listen

#: Of RFC 5737 and RFC 3849: on no machine.
FOUR, SIX = "192.0.2.25", "2001:db8::25"
GREETING = b"220 here\r\n"
VIRTUAL = {ip_address(FOUR), ip_address(SIX), ip_address("127.0.0.1"), ip_address("::1")}


class Greeter(Protocol):
    """Says one line and ends."""

    def connectionMade(self):
        self.transport.write(GREETING)
        self.transport.loseConnection()


class Listener(Protocol):
    """Hears what is said until the end."""

    def __init__(self):
        self.octets = b""
        self.heard = Deferred()

    def dataReceived(self, data):
        self.octets += data

    def connectionLost(self, reason):
        self.heard.callback(self.octets)


def free_port():
    """Return a port that nobody has at any address."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def described(address, *more):
    """Return an endpoint at ``address``, on any port."""
    escaped = address.replace(":", r"\:")
    return ":".join((f"tcp:0:interface={escaped}", *more))


class ListenTests(TestCase):
    """:func:`listen`, on real sockets."""

    async def listen(self, description, virtual=VIRTUAL, listed=()):
        factory = Factory.forProtocol(Greeter)
        factory.noisy = False
        port = await listen(reactor, description, factory, virtual, listed)
        self.addCleanup(port.stopListening)
        return port.getHost()

    async def test_absent(self):
        """A virtual address may be absent."""
        for address in (FOUR, SIX):
            host = await self.listen(described(address))
            self.assertEqual(host.host, address)
            self.assertGreater(host.port, 0)

    async def test_absent_by_mistake(self):
        """Any other address must be there."""
        for address in (FOUR, SIX):
            with self.assertRaises(CannotListenError):
                await self.listen(described(address), frozenset())

    async def test_present(self):
        """Where it is there, whoever connects is served."""
        for address in ("127.0.0.1", "::1"):
            host = await self.listen(described(address, "backlog=5"))
            self.assertEqual(await self.greeting(address, host.port), GREETING)

    async def test_everywhere(self):
        """An endpoint without an address is Twisted's matter."""
        host = await self.listen("tcp:0")
        self.assertEqual(host.host, "0.0.0.0")

    async def test_both_families(self):
        """Each takes its own, in whichever order they are bound."""
        for first, second in (("tcp", "tcp6"), ("tcp6", "tcp")):
            number = free_port()
            listed = (f"{first}:{number}", f"{second}:{number}")
            hosts = [await self.listen(each, listed=listed) for each in listed]
            self.assertEqual({each.host for each in hosts}, {"0.0.0.0", "::"})
            for address in ("127.0.0.1", "::1"):
                self.assertEqual(await self.greeting(address, number), GREETING)

    async def test_six_alone(self):
        """Where nothing else is listed for the port, it serves IPv4 too."""
        for listed in ((), ("tcp6:0", "tcp:1")):
            host = await self.listen("tcp6:0", listed=listed)
            for address in ("127.0.0.1", "::1"):
                self.assertEqual(await self.greeting(address, host.port), GREETING)

    async def test_taken(self):
        """A port that somebody has is told as Twisted tells it."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with self.assertRaises(CannotListenError) as refused:
                await self.listen(f"tcp:{port}:interface=127.0.0.1")
        self.assertEqual(refused.exception.socketError.strerror, "Address already in use")
        self.assertEqual((refused.exception.interface, refused.exception.port), ("127.0.0.1", port))

    async def greeting(self, address, port):
        """Return what is said to who connects."""
        endpoint = HostnameEndpoint(reactor, address, port)
        listener = await connectProtocol(endpoint, Listener())
        return await listener.heard
