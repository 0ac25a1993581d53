"""The client's adapter, on a fake wire: writes, deadlines, back-pressure, the end."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault
from mailsecure.smtp.client import ClientMachine
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.sending import AT_ONCE, ClientPatience, CouldNotOpen, SmtpConnection
from mailsecure.smtp.transaction import Result, Transaction

HELLO = b"220 x\r\n250-x\r\n250 PIPELINING\r\n"
GO = b"250 m\r\n250 a\r\n354 go\r\n"


class Socket(StringTransport):
    """A transport that takes ``room`` octets at once, and counts system calls."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 1 << 30
        self.direct = 0

    def writeSomeData(self, data: bytes) -> int | Exception:
        self.direct += 1
        if self.room < 0:
            return ConnectionLost()
        taken = data[: self.room]
        StringTransport.write(self, taken)
        return len(taken)


class Body:
    """A body in pieces."""

    def __init__(self, *pieces: bytes, in_memory: bool = True, fault: bool = False) -> None:
        self._pieces = pieces
        self._fault = fault
        self.in_memory = in_memory
        self.octets = sum(map(len, pieces))

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        yield from self._pieces
        if self._fault:
            raise LocalFault("gone")


class SendingTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.reads: list[tuple[Deferred[object], object]] = []
        self.wire = Socket()
        self.connection = self.make()

    def make(self, wire: StringTransport | None = None) -> SmtpConnection:
        connection = SmtpConnection(
            self.clock, ClientMachine("me.test"), ClientPatience(10, 60), None, self.in_thread
        )
        self.opened = connection.opened
        connection.makeConnection(wire or self.wire)
        return connection

    def in_thread(self, call):
        waiting: Deferred[object] = Deferred()
        self.reads.append((waiting, call))
        return waiting

    def read(self) -> None:
        """Let the thread do one piece of work."""
        waiting, call = self.reads.pop(0)
        try:
            result = call()
        except LocalFault:
            waiting.errback(Failure())
        else:
            waiting.callback(result)

    def start(self, body: Body | None = None) -> Deferred[Result]:
        self.connection.dataReceived(HELLO)
        self.successResultOf(self.opened)
        self.wire.clear()
        recipients = [Recipient("a@y", "y")]
        return self.connection.send(Transaction("s@x", recipients), body or Body(b"a\r\n"))

    def codes(self, sent: Deferred[Result]) -> list[str]:
        return [str(reply) for reply in self.successResultOf(sent).replies]

    def test_two_writes_a_message(self):
        sent = self.start()
        before = self.wire.direct
        self.assertEqual(self.wire.value(), b"MAIL FROM:<s@x>\r\nRCPT TO:<a@y>\r\nDATA\r\n")
        self.wire.clear()
        self.connection.dataReceived(GO)
        self.assertEqual((self.wire.value(), self.wire.direct - before), (b"a\r\n.\r\n", 1))
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.codes(sent), ["250 ok"])
        self.assertTrue(self.connection.usable)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_socket_that_takes_little(self):
        sent = self.start()
        self.wire.clear()
        self.wire.room = 2
        self.connection.dataReceived(GO)
        self.assertEqual(self.wire.value(), b"a\r\n.\r\n")
        self.connection.dataReceived(b"250 ok\r\n")
        self.successResultOf(sent)
        self.wire.clear()
        for room in (0, -1):
            self.wire.room = room
            self.connection = self.make()
            self.start()
            self.assertIn(b"MAIL", self.wire.value())

    def test_a_transport_without_direct_writes(self):
        wire = StringTransport()
        connection = self.make(wire)
        connection.dataReceived(b"220 x\r\n")
        self.assertEqual(wire.value(), b"EHLO me.test\r\n")

    def test_deadlines(self):
        self.clock.advance(10)
        failure = self.failureResultOf(self.opened, CouldNotOpen)
        self.assertIn("Timed out before the greeting", failure.value.reply.text)
        self.assertTrue(self.wire.disconnecting)

    def test_deadline_of_the_final_reply(self):
        sent = self.start()
        self.connection.dataReceived(GO)
        self.clock.advance(59)
        self.assertNoResult(sent)
        self.clock.advance(2)
        self.assertIn("after the final dot", self.codes(sent)[0])

    def test_a_nearer_deadline_moves_the_timer(self):
        sent = self.start()
        self.connection.dataReceived(GO)
        self.clock.advance(11)
        self.connection.dataReceived(b"250 ok\r\n")
        self.successResultOf(sent)
        sent = self.connection.send(Transaction("s@x", [Recipient("a@y", "y")]), Body(b""))
        self.clock.advance(10)
        self.assertIn("Timed out at the envelope", self.codes(sent)[0])

    def test_idle_connection_has_no_deadline(self):
        self.connection.dataReceived(HELLO)
        self.clock.advance(100)
        self.assertTrue(self.connection.usable)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_large_body_in_memory_and_a_slow_reader(self):
        lines = b"." + b"x" * 65533 + b"\r\n"
        sent = self.start(Body(*[lines] * 12))
        self.wire.clear()
        written: list[int] = []
        plain = self.wire.write

        def write(data: bytes) -> None:
            plain(data)
            written.append(len(data))
            self.connection.pauseProducing()

        self.wire.write = write  # type: ignore[method-assign]
        self.connection.dataReceived(GO)
        self.assertEqual(len(written), 1)
        self.assertLess(written[0], 300_000)
        while self.wire.producer is not None:
            self.connection.resumeProducing()
        self.assertEqual(self.wire.value(), (b"." + lines) * 12 + b".\r\n")
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.codes(sent), ["250 ok"])
        self.connection.resumeProducing()
        self.connection.stopProducing()

    def test_file_is_read_in_the_thread_a_batch_at_a_time(self):
        sent = self.start(Body(*[b"a\r\n"] * 6, in_memory=False))
        self.wire.clear()
        self.connection.dataReceived(GO)
        self.assertEqual((self.wire.value(), len(self.reads)), (b"", 1))
        self.connection.resumeProducing()
        self.assertEqual(len(self.reads), 1)
        self.read()
        self.read()
        self.assertEqual(self.wire.value(), b"a\r\n" * 6 + b".\r\n")
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.codes(sent), ["250 ok"])

    def test_refused_or_lost_while_the_thread_reads(self):
        for fault in (False, True):
            for event in (b"552 5.3.4 No\r\n", None):
                self.wire = Socket()
                self.connection = self.make()
                sent = self.start(Body(b"a\r\n", in_memory=False, fault=fault))
                self.connection.dataReceived(GO)
                if event is None:
                    self.connection.connectionLost(Failure(ConnectionLost()))
                else:
                    self.connection.dataReceived(event)
                self.assertEqual(len(self.codes(sent)), 1)
                self.wire.clear()
                self.read()
                self.assertEqual(self.wire.value(), b"")

    def test_fault_of_ours_never_ends_the_message(self):
        bodies = (
            Body(b"a\r\n", fault=True),
            Body(b"a\nb\r\n"),
            Body(*[b"a\r\n" * 20000] * 12, fault=True),
            Body(b"a\r\n", in_memory=False, fault=True),
        )
        self.assertGreater(bodies[2].octets, AT_ONCE)
        for body in bodies:
            self.wire = Socket()
            self.connection = self.make()
            sent = self.start(body)
            self.connection.dataReceived(GO)
            if not body.in_memory:
                self.read()
            self.failureResultOf(sent, LocalFault)
            self.assertFalse(self.wire.value().endswith(b".\r\n"))
            self.assertTrue(self.wire.disconnecting and not self.connection.usable)

    def test_refused_within_a_large_body(self):
        sent = self.start(Body(*[b"a\r\n" * 20000] * 12))
        self.connection.pauseProducing()
        self.connection.dataReceived(GO)
        self.connection.pauseProducing()
        self.connection.dataReceived(b"250 ok\r\n")
        self.assertEqual(self.codes(sent), ["250 ok"])

    def test_leave(self):
        lost: list[SmtpConnection] = []
        self.connection.dataReceived(HELLO)
        self.connection.lost = lost.append
        self.wire.clear()
        self.connection.leave()
        self.assertEqual(self.wire.value(), b"QUIT\r\n")
        self.assertFalse(self.wire.disconnecting or self.connection.usable)
        self.connection.dataReceived(b"221 bye\r\n")
        self.assertTrue(self.wire.disconnecting)
        self.connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(lost, [self.connection])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leave_and_no_answer(self):
        self.connection.dataReceived(HELLO)
        self.connection.leave()
        self.clock.advance(10)
        self.assertTrue(self.wire.disconnecting)
        self.connection.leave()

    def test_goodbye_while_idle(self):
        self.connection.dataReceived(HELLO + b"421 bye\r\n")
        self.assertTrue(self.wire.disconnecting and not self.connection.usable)

    def test_cancel(self):
        sent = self.start()
        sent.cancel()
        self.failureResultOf(sent, CancelledError)
        self.assertTrue(self.wire.disconnecting)
        self.connection.connectionLost(Failure(ConnectionDone()))

    def test_cancel_while_opening(self):
        self.opened.cancel()
        self.failureResultOf(self.opened, CancelledError)
        self.assertTrue(self.wire.disconnecting)
        self.connection.connectionLost(Failure(ConnectionDone()))

    def test_cancel_before_there_is_a_connection(self):
        class Connector:
            stopped = False

            def disconnect(self):
                self.stopped = True

        connection = SmtpConnection(
            self.clock, ClientMachine("me.test"), ClientPatience(1, 1), None, self.in_thread
        )
        connection.abort()
        connection.connector = Connector()
        opened = connection.opened
        opened.cancel()
        self.failureResultOf(opened, CancelledError)
        self.assertTrue(connection.connector.stopped)
