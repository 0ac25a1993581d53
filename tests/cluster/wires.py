"""A network in memory for the tests of links: hosts, ports, connections, and their ends.

:class:`Network` is clock and reactor at once.  Whoever listens can be reached until
:meth:`Network.kill` ends the process at an address as a kernel does: its connections are
closed and its port refuses; or until :attr:`Network.silent` has the address.  Octets take
one turn of the clock, so tests call :meth:`Network.settle`.
"""

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(ITCPTransport)
class End:
    """One end of a connection."""

    disconnecting = False

    def __init__(self, network, host, peer):
        self.network = network
        self.host, self.peer = host, peer
        self.other = None
        self.protocol = None
        self.connected = True
        self.producer = None

    def write(self, data):
        if data and self.connected and not self.network.is_silent(self):
            self.network.callLater(0, self.other.arrive, data)

    def writeSequence(self, chunks):
        self.write(b"".join(chunks))

    def arrive(self, data):
        if self.connected:
            self.protocol.dataReceived(data)

    def loseConnection(self):
        if not self.disconnecting:
            self.disconnecting = True
            self.network.callLater(0, self.close, error.ConnectionDone())
            if not self.network.is_silent(self):
                self.network.callLater(0, self.other.close, error.ConnectionDone())

    def abortConnection(self):
        self.reset(error.ConnectionAborted())

    def reset(self, ours):
        self.network.callLater(0, self.close, ours)
        if not self.network.is_silent(self):
            self.network.callLater(0, self.other.close, error.ConnectionLost())

    def close(self, reason):
        if self.connected:
            self.connected = False
            self.network.ends.discard(self)
            self.protocol.connectionLost(Failure(reason))

    def getPeer(self):
        return self.peer

    def getHost(self):
        return self.host

    def getHandle(self):
        return None

    def registerProducer(self, producer, streaming):
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass

    def setTcpNoDelay(self, enabled):
        pass

    getTcpNoDelay = getTcpKeepAlive = loseWriteConnection = lambda self: None
    setTcpKeepAlive = setTcpNoDelay


class Port:
    """A listening socket."""

    def __init__(self, network, place, factory):
        self.network, self.place, self.factory = network, place, factory

    def getHost(self):
        return IPv4Address("TCP", *self.place)

    def stopListening(self):
        if self.network.ports.get(self.place) is self:
            del self.network.ports[self.place]
        return succeed(None)


class Connector:
    """One attempt to connect."""

    def __init__(self, network, factory):
        self.network, self.factory = network, factory
        self.call = None
        self.end = None

    def fail(self, reason):
        self.call = None
        self.factory.clientConnectionFailed(self, Failure(reason))

    def disconnect(self):
        if self.end is not None:
            self.end.loseConnection()
        elif self.call is not None:
            self.call.cancel()
            self.fail(error.UserError())


class Network(Clock):
    """See the module's text."""

    def __init__(self):
        super().__init__()
        self.ports = {}
        self.ends = set()
        self.silent = set()
        #: Attempts to connect: when, from where, to where.
        self.attempts = []
        self._free = 40000

    def is_silent(self, end):
        return bool({end.host.host, end.peer.host} & self.silent)

    def settle(self, seconds=0.0):
        """Let what is under way arrive, for so long."""
        for _ in range(30):
            self.advance(0)
        while seconds > 0:
            self.advance(min(0.05, seconds))
            seconds -= 0.05
            for _ in range(20):
                self.advance(0)

    def listenTCP(self, port, factory, backlog=50, interface=""):
        place = (interface, port)
        if place in self.ports:
            raise error.CannotListenError(interface, port, OSError(98, "Address already in use"))
        self.ports[place] = Port(self, place, factory)
        return self.ports[place]

    def connectTCP(self, host, port, factory, timeout=30, bindAddress=None):
        self.attempts.append((self.seconds(), bindAddress[0], (host, port)))
        connector = Connector(self, factory)
        if {host, bindAddress[0]} & self.silent:
            connector.call = self.callLater(timeout, connector.fail, error.TimeoutError())
        else:
            connector.call = self.callLater(0, self._connect, connector, host, port, bindAddress[0])
        return connector

    def _connect(self, connector, host, port, source):
        listening = self.ports.get((host, port))
        if listening is None:
            connector.fail(error.ConnectionRefusedError())
            return
        connector.call = None
        self._free += 1
        here, there = IPv4Address("TCP", source, self._free), IPv4Address("TCP", host, port)
        ends = End(self, here, there), End(self, there, here)
        ends[0].other, ends[1].other = ends[1], ends[0]
        accepted = listening.factory.buildProtocol(here)
        ends[0].protocol = connector.factory.buildProtocol(there)
        ends[1].protocol = accepted
        self.ends.update(ends if accepted is not None else ends[:1])
        connector.end = ends[0]
        ends[0].protocol.makeConnection(ends[0])
        if accepted is None:
            ends[1].connected = False
            self.callLater(0, ends[0].close, error.ConnectionDone())
        else:
            accepted.makeConnection(ends[1])

    def kill(self, address):
        """End the process at ``address``."""
        for place in [place for place in self.ports if place[0] == address]:
            del self.ports[place]
        for end in [end for end in self.ends if end.host.host == address]:
            self.ends.discard(end)
            end.connected = False
            self.callLater(0, end.other.close, error.ConnectionDone())

    def reset(self, one, two):
        """Forge a reset of every connection between two addresses, to both ends."""
        for end in list(self.ends):
            if (end.host.host, end.peer.host) == (one, two):
                end.reset(error.ConnectionLost())
