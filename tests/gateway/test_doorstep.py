"""Proves that a stranger is heard to the end of its header, bounded in time and number."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.gateway.doorstep import HEADER_TIME, Doorstep, Stranger, hand_over
from mailsecure.proxyproto.binary import encode_block
from mailsecure.proxyproto.reading import HeaderReader
from mailsecure.proxyproto.text import encode_line
from mailsecure.proxyproto.values import Header, Inet, Transport

HEADER = Header(
    2, False, Transport.STREAM, Inet(ip_address("198.51.100.7"), 1), Inet(ip_address("::1"), 2)
)
BLOCKS = (
    b"PROXY UNKNOWN\r\n",
    encode_block(HEADER),
    encode_line(Header(1, True)),
    encode_block(
        Header(
            2,
            False,
            Transport.STREAM,
            Inet(ip_address("198.51.100.7"), 1),
            Inet(ip_address("192.0.2.25"), 2),
        )
    ),
)


class Wire(StringTransport):
    """A transport that hands on what comes to its protocol, as TCP's do."""

    protocol: Any
    aborted = False

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "203.0.113.9", 9))

    def abortConnection(self) -> None:
        self.aborted = True

    def carry(self, data: bytes) -> None:
        """Octets arrive."""
        self.protocol.dataReceived(data)


class Recorder(Protocol):
    """Who gets the connection."""

    def __init__(self) -> None:
        self.heard = b""
        self.made = 0

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        self.heard += data


class DoorstepTests(SynchronousTestCase):
    """Doorstep, Stranger, hand_over."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.clock = Clock()
        self.known: list[tuple[Stranger, Header]] = []
        self.refused: list[str] = []
        self.doorstep = Doorstep(self.clock, 3, self.introduce, self.refuse)
        self.recorder = Recorder()

    def introduce(self, stranger: Stranger, header: Header) -> None:
        self.known.append((stranger, header))
        hand_over(stranger, self.recorder)

    def refuse(self, stranger: Stranger, why: str) -> None:
        self.refused.append(f"{stranger.address}: {why}")

    def connect(self) -> Wire:
        wire = Wire()
        wire.protocol = self.doorstep.stranger(HeaderReader())
        wire.protocol.makeConnection(wire)
        return wire

    @given(st.sampled_from(BLOCKS), st.binary(max_size=60), st.data())
    def test_any_chunks(self, block: bytes, rest: bytes, data: st.DataObject) -> None:
        """However it is cut: one connection, with exactly the octets after the header."""
        self.begin()
        wire = self.connect()
        stream = block + rest
        while stream:
            size = data.draw(st.integers(1, len(stream)))
            wire.carry(stream[:size])
            stream = stream[size:]
        ((stranger, _),) = self.known
        self.assertEqual(stranger.raw, block)
        self.assertEqual((self.recorder.made, self.recorder.heard), (1, rest))
        self.assertEqual(self.refused, [])
        self.assertEqual(wire.value(), b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.binary(min_size=1, max_size=40))
    def test_rubbish(self, data: bytes) -> None:
        """Nothing is said to it, whatever it says."""
        self.begin()
        wire = self.connect()
        wire.carry(data)
        self.assertEqual(wire.value(), b"")
        self.assertEqual(wire.aborted, bool(self.refused))
        self.assertEqual(len(self.doorstep), not wire.aborted and not self.known)

    def test_time(self) -> None:
        """Each has its own five seconds, by one delayed call."""
        first = self.connect()
        self.clock.advance(3)
        second = self.connect()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(HEADER_TIME - 3)
        self.assertEqual((first.aborted, second.aborted), (True, False))
        self.clock.advance(3)
        self.assertTrue(second.aborted)
        self.assertEqual(self.refused, ["203.0.113.9: no PROXY header in time"] * 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_number(self) -> None:
        """One more than may wait: the oldest goes."""
        wires = [self.connect() for _ in range(5)]
        self.assertEqual([wire.aborted for wire in wires], [True, True, False, False, False])
        self.assertEqual(len(self.doorstep), 3)

    def test_gone(self) -> None:
        """Who goes is forgotten; after it was sent away, it is no news again."""
        silent, half, bad = self.connect(), self.connect(), self.connect()
        half.carry(b"PROXY")
        bad.carry(b"EHLO")
        for wire in (silent, half, bad):
            wire.protocol.connectionLost()
        self.assertEqual(
            self.refused,
            ["203.0.113.9: not a PROXY header", "203.0.113.9: ended within its PROXY header"],
        )
        self.assertEqual(len(self.doorstep), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """All go, without a word."""
        wires = [self.connect(), self.connect()]
        self.doorstep.close()
        self.assertTrue(all(wire.aborted for wire in wires))
        self.assertEqual((self.refused, self.clock.getDelayedCalls()), ([], []))
