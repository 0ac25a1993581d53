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

from mailsecure.errors import LocalFault
from mailsecure.gateway.ports import Ports, listen

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


class PortsTests(TestCase):
    """:class:`Ports`, on real sockets."""

    def setUp(self):
        self.ports = Ports(reactor)
        self.factory = Factory.forProtocol(Greeter)
        self.factory.noisy = False
        self.addCleanup(lambda: Deferred.fromCoroutine(self.ports.close()))

    async def open(self, description, tls=False, bare=False):
        await self.ports.open(description, self.factory, tls, bare)
        for each in self.ports.entrances:
            self.addCleanup(each.wire.close)

    async def test_entrance(self):
        """A bare socket listens, does not block, and Twisted does not know it."""
        await self.open("tcp:0:interface=127.0.0.1", bare=True)
        await self.open(r"tcp6:0:interface=\:\:1", tls=True, bare=True)
        four, six = self.ports.entrances
        self.assertEqual((four.tls, six.tls), (False, True))
        for each, address in ((four, "127.0.0.1"), (six, "::1")):
            self.assertFalse(each.wire.getblocking())
            self.assertFalse(each.wire.get_inheritable())
            port = each.wire.getsockname()[1]
            with socket.create_connection((address, port), 5) as client:
                accepted, _ = each.wire.accept()
                self.assertEqual(accepted.getpeername()[1], client.getsockname()[1])
                accepted.close()
        self.assertEqual(
            self.ports.listening,
            [
                f"127.0.0.1:{four.wire.getsockname()[1]}",
                f"[::1]:{six.wire.getsockname()[1]}",
            ],
        )

    async def test_virtual(self):
        """A virtual address may be absent, another may not."""
        with self.assertRaises(LocalFault) as fault:
            await self.open(described(FOUR), bare=True)
        self.assertIn("Cannot assign requested address", str(fault.exception))
        self.ports.virtual = VIRTUAL
        await self.open(described(FOUR), bare=True)
        await self.open(described(SIX), bare=True)
        self.assertEqual(len(self.ports.entrances), 2)

    async def test_families_apart(self):
        """One port for IPv4 and for IPv6, each everywhere."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.ports.listed = (f"tcp6:{port}", f"tcp:{port}")
        for description in self.ports.listed:
            await self.open(description, bare=True)
        self.assertEqual(len(self.ports.entrances), 2)

    async def test_backlog(self):
        """More clients than Twisted's backlog may wait; or as many as the ini says."""
        await self.open("tcp:0:interface=127.0.0.1", bare=True)
        await self.open("tcp:0:interface=127.0.0.1:backlog=1", bare=True)
        for entrance, most in zip(self.ports.entrances, (80, 2), strict=True):
            clients = [socket.socket() for _ in range(80)]
            for client in clients:
                self.addCleanup(client.close)
                client.setblocking(False)
                client.connect_ex(entrance.wire.getsockname())
            taken = 0
            for _ in clients:
                try:
                    entrance.wire.accept()[0].close()
                except BlockingIOError:
                    break
                taken += 1
            self.assertEqual(taken, most)

    async def test_unix(self):
        """What is not TCP stays Twisted's."""
        await self.open(f"unix:{self.mktemp()}", bare=True)
        self.assertEqual(self.ports.entrances, [])
        self.assertEqual(len(self.ports.listening), 1)

    async def test_taken(self):
        """The endpoint and the reason are told, and nothing is left open."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            place = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
            for bare in (False, True):
                with self.assertRaises(LocalFault) as fault:
                    await self.open(place, bare=bare)
                self.assertEqual(
                    str(fault.exception), f"cannot listen on {place}: Address already in use"
                )

    async def test_peers(self):
        """Other nodes come to one address, once we begin."""
        self.ports.open_for_peers(ip_address("127.0.0.1"), 0, self.factory)
        self.assertEqual(self.ports.listening, [])
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.ports.peer_port)
        listener = await connectProtocol(endpoint, Listener())
        self.assertFalse(listener.heard.called)
        self.ports.begin()
        self.assertEqual(await listener.heard, b"220 here\r\n")

    async def test_peers_at_once(self):
        """Nothing that is said to a node waits for more."""

        class Told(Protocol):
            def connectionMade(self):
                self.transport.write(str(self.transport.getTcpNoDelay()).encode())
                self.transport.loseConnection()

        self.ports.open_for_peers(ip_address("127.0.0.1"), 0, Factory.forProtocol(Told))
        self.ports.begin()
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.ports.peer_port)
        listener = await connectProtocol(endpoint, Listener())
        self.assertEqual(await listener.heard, b"True")

    async def test_peers_taken(self):
        """The section, the option and the reason are told."""
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            with self.assertRaises(LocalFault) as fault:
                self.ports.open_for_peers(ip_address("127.0.0.1"), port, self.factory)
        self.assertEqual(
            str(fault.exception),
            f"[cluster] peer_listen: cannot listen on 127.0.0.1:{port}: Address already in use",
        )
