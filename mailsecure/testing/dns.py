"""A tiny name server on loopback, with faults to switch on.

:class:`DnsServer` serves a zone (see :mod:`.resolver`) over UDP and TCP on one port::

    server = DnsServer(zone)
    port = server.listen(reactor)
    server.silent = True      # takes questions, answers none
    server.silent_tcp = True  # the same, over TCP only
    server.truncate = True    # over UDP says "ask me over TCP"
    server.truncate_tcp = True  # over TCP it does so, too
    server.delay = 0.5        # seconds before an answer
    server.code = 2           # every answer has this RCODE
    server.forge = True       # first an answer with a wrong id, then the right one
    server.garbage = b"..."   # instead of answers
    ...
    await server.stop()
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.names import dns

from .resolver import Zone

__all__ = ["DnsServer"]

MAX_ALIASES = 8
TTL = 60


class DnsServer:
    """The server, its zone and its switches.  ``ttl`` is that of every record."""

    def __init__(self, zone: Zone | None = None, ttl: int = TTL) -> None:
        self.zone: Zone = {} if zone is None else zone
        self.ttl = ttl
        self.silent = False
        self.silent_tcp = False
        self.truncate_tcp = False
        self.truncate = False
        self.delay = 0.0
        self.code = 0
        self.forge = False
        self.garbage: bytes | None = None
        #: Leave the target of an alias for a second question.
        self.short_aliases = False
        #: Every question: (type, name, "udp" or "tcp").
        self.questions: list[tuple[str, str, str]] = []
        self._ports: list[Any] = []
        self._reactor: Any = None
        self._sessions: set[_TcpSession] = set()

    def listen(self, reactor: Any, interface: str = "127.0.0.1", port: int = 0) -> int:
        """Listen on UDP and TCP; return the port."""
        self._reactor = reactor
        tcp = reactor.listenTCP(port, Factory.forProtocol(lambda: _TcpSession(self)), 50, interface)
        number: int = tcp.getHost().port
        udp = reactor.listenUDP(number, _Udp(self), interface)
        self._ports = [tcp, udp]
        return number

    async def stop_tcp(self) -> None:
        """Listen on UDP only from now on."""
        await self._ports.pop(0).stopListening()

    async def stop(self) -> None:
        """Close everything."""
        for session in list(self._sessions):
            session.transport.abortConnection()
        ports, self._ports = self._ports, []
        for port in ports:
            await port.stopListening()

    def question(self, data: bytes, way: str, send: Callable[[bytes], object]) -> None:
        """Answer one question, as the switches say."""
        query = dns.Message()
        query.fromStr(data)
        asked = query.queries[0]
        kind = dns.QUERY_TYPES.get(asked.type, str(asked.type))
        self.questions.append((kind, asked.name.name.decode().lower(), way))
        if self.silent or (self.silent_tcp and way == "tcp"):
            return
        answers = [self.garbage] if self.garbage is not None else [self._answer(query, way)]
        if self.forge:
            false = bytes((answers[0][0] ^ 0xFF,)) + answers[0][1:]
            answers.insert(0, false)
        for answer in answers:
            if self.delay:
                self._reactor.callLater(self.delay, send, answer)
            else:
                send(answer)

    def _answer(self, query: dns.Message, way: str) -> bytes:
        asked = query.queries[0]
        answer = dns.Message(id=query.id, answer=1, recDes=1, recAv=1, rCode=self.code)
        answer.queries = [asked]
        if self.truncate_tcp if way == "tcp" else self.truncate:
            answer.trunc = 1
        elif not self.code:
            self._fill(answer, asked.name.name.decode().lower(), asked.type)
        octets: bytes = answer.toStr()
        return octets

    def _fill(self, answer: dns.Message, name: str, kind: int) -> None:
        for _ in range(MAX_ALIASES):
            entry = self.zone.get(name)
            if entry is None:
                answer.rCode = dns.ENAME
                break
            if isinstance(entry, str):
                answer.rCode = dns.ESERVER
                return
            records = entry.get(dns.QUERY_TYPES[kind], [])
            answer.answers += [self._header(name, kind, _RECORDS[kind](text)) for text in records]
            if records or "CNAME" not in entry:
                break
            target = entry["CNAME"][0]
            answer.answers.append(self._header(name, dns.CNAME, dns.Record_CNAME(target)))
            if self.short_aliases:
                return
            name = target.lower()
        if not answer.answers:
            soa = dns.Record_SOA("ns.test", "root.test", 1, 1, 1, 1, self.ttl)
            answer.authority.append(self._header("test", dns.SOA, soa))

    def _header(self, name: str, kind: int, payload: Any) -> dns.RRHeader:
        return dns.RRHeader(name, kind, dns.IN, self.ttl, payload)


def _mx(text: str) -> Any:
    number, host = text.split()
    return dns.Record_MX(int(number), host.rstrip("."))


_RECORDS: dict[int, Callable[[str], Any]] = {
    dns.A: dns.Record_A,
    dns.AAAA: dns.Record_AAAA,
    dns.MX: _mx,
    dns.TXT: lambda text: dns.Record_TXT(text.encode()),
    dns.PTR: dns.Record_PTR,
    dns.CNAME: dns.Record_CNAME,
}


class _Udp(DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A question."""
        transport: Any = self.transport
        self._server.question(datagram, "udp", lambda answer: transport.write(answer, addr))


class _TcpSession(Protocol):
    transport: Any

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._buffer = b""

    def connectionMade(self) -> None:
        """A resolver is here."""
        self._server._sessions.add(self)

    def connectionLost(self, reason: object = None) -> None:
        """It has gone."""
        self._server._sessions.discard(self)

    def dataReceived(self, data: bytes) -> None:
        """A question, with its length in front."""
        self._buffer += data
        while len(self._buffer) >= 2:
            size = 2 + struct.unpack("!H", self._buffer[:2])[0]
            if len(self._buffer) < size:
                return
            question, self._buffer = self._buffer[2:size], self._buffer[size:]
            self._server.question(question, "tcp", self._send)

    def _send(self, answer: bytes) -> None:
        # In two segments: nobody may count on one.
        octets = struct.pack("!H", len(answer)) + answer
        self.transport.write(octets[:1])
        self._server._reactor.callLater(0, self.transport.write, octets[1:])
