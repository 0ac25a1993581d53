"""The server's adapter: order of replies, back-pressure, deadlines, exceptions."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.smtp import serving
from mailsecure.smtp.commands import Offer
from mailsecure.smtp.events import ContentEnd, Data, Helo, Mail, Rcpt, TlsFacts
from mailsecure.smtp.replies import Reply
from mailsecure.smtp.server import ServerMachine
from mailsecure.smtp.serving import Answer, Patience, SmtpServerProtocol

OFFER = Offer("us.example", 100_000, 1000, 10, 10, True)
PATIENCE = Patience(command=100, data=50, transaction=300, session=1000, minimum_rate=10)
OK = Reply(250, "2.0.0", "Ok")
GO = Reply(354, "", "Go")


class Wire(StringTransport):
    """A string transport that knows the half-closing and TLS faces we use."""

    aborted = False
    tls_options: Any = None
    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def startTLS(self, options: Any) -> None:
        self.tls_options = options


class Scripted:
    """A receiver that says yes, or what ``answers`` has for a stage."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.kept = b""
        self.stages: list[str] = []
        self.ends: list[str] = []
        self.delay: float | None = 0.0
        self.tls: TlsFacts | None = None

    def _answer(self, stage: str, default: Reply) -> Answer:
        self.stages.append(stage)
        answer = self.answers.get(stage, default)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    def greeting(self) -> Reply:
        return self.answers.get("greeting", Reply(220, "", "us.example ESMTP"))  # type: ignore[no-any-return]

    def helo(self, event: Helo) -> Answer:
        return self._answer("helo", OK)

    def mail(self, event: Mail) -> Answer:
        return self._answer("mail", OK)

    def rcpt(self, event: Rcpt) -> Answer:
        return self._answer("rcpt", OK)

    def data(self, event: Data) -> Answer:
        return self._answer("data", GO)

    def content(self, data: bytes) -> None:
        if "content" in self.answers:
            raise self.answers["content"]
        self.kept += data

    def message(self, event: ContentEnd) -> Answer:
        self.kept += event.data
        return self._answer("message", event.fault or OK)

    def reset(self) -> None:
        self.stages.append("reset")

    def complained(self, reply: Reply) -> float | None:
        return self.delay

    def tls_started(self, facts: TlsFacts) -> None:
        self.tls = facts

    def closed(self, why: str) -> None:
        self.ends.append(why)


class ServingTests(SynchronousTestCase):
    """SmtpServerProtocol on a string transport and a test clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.receiver = Scripted()
        self.wire = Wire()
        self.open: set[SmtpServerProtocol] = set()
        self.greeting_delay = 0.0
        self.protocol = SmtpServerProtocol(
            self.clock, ServerMachine(OFFER), PATIENCE, "options", self.begin, self.open.discard
        )

    def begin(self, protocol: SmtpServerProtocol) -> None:
        self.open.add(protocol)
        protocol.begin(self.receiver, self.greeting_delay)

    def connect(self) -> None:
        self.protocol.makeConnection(self.wire)

    def say(self, data: bytes) -> list[str]:
        """Send; return the codes of what came back since the last call."""
        self.protocol.dataReceived(data)
        return self.heard()

    def heard(self) -> list[str]:
        value = self.wire.value().decode()
        self.wire.clear()
        return [line[:3] for line in value.split("\r\n") if line[3:4] == " "]

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.protocol.sweep(self.clock.seconds())

    def transaction(self) -> None:
        self.connect()
        self.say(b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@us.example>\r\nDATA\r\n")

    def test_message(self) -> None:
        """A whole session, in one segment."""
        self.connect()
        self.assertEqual(self.heard(), ["220"])
        codes = self.say(
            b"EHLO me\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@us.example>\r\n"
            b"DATA\r\nhi\r\n.\r\nNOOP\r\nQUIT\r\n"
        )
        self.assertEqual(codes, ["250", "250", "250", "354", "250", "250", "221"])
        self.assertEqual(self.receiver.kept, b"hi\r\n")
        self.assertTrue(self.wire.disconnecting)
        self.protocol.connectionLost()
        self.assertEqual((self.receiver.ends, self.open), (["quit"], set()))

    def test_order(self) -> None:
        """While an answer is awaited nothing else is answered; then all, in order."""
        self.connect()
        self.heard()
        answer: Deferred[Reply] = Deferred()
        self.receiver.answers["rcpt"] = answer
        codes = self.say(b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<c@us.example>\r\nNOOP\r\nQUIT\r\n")
        self.assertEqual(codes, ["250", "250"])
        answer.callback(Reply(550, "5.1.1", "Unknown"))
        self.assertEqual(self.heard(), ["550", "250", "221"])

    def test_slow_spool(self) -> None:
        """The 250 comes before the 221, however long the disk takes."""
        self.transaction()
        self.heard()
        stored: Deferred[Reply] = Deferred()
        self.receiver.answers["message"] = stored
        self.assertEqual(self.say(b"hi\r\n.\r\nQUIT\r\n"), [])
        self.pass_time(400)
        stored.callback(OK)
        self.assertEqual(self.heard(), ["250", "221"])

    def test_half_close(self) -> None:
        """A client that sent all and closed its half still gets its answers."""
        self.transaction()
        self.heard()
        stored: Deferred[Reply] = Deferred()
        self.receiver.answers["message"] = stored
        self.say(b"hi\r\n.\r\nQUIT\r\n")
        self.protocol.readConnectionLost()
        self.assertFalse(self.wire.disconnecting)
        stored.callback(OK)
        self.assertEqual(self.heard(), ["250", "221"])
        self.assertTrue(self.wire.disconnecting)

    def test_half_close_without_quit(self) -> None:
        """The end of file alone ends an idle session."""
        self.connect()
        self.protocol.readConnectionLost()
        self.assertTrue(self.wire.disconnecting)
        self.protocol.writeConnectionLost()

    def test_client_leaves(self) -> None:
        """An answer for a client that left goes nowhere."""
        self.transaction()
        stored: Deferred[Reply] = Deferred()
        self.receiver.answers["message"] = stored
        self.say(b"hi\r\n.\r\n")
        self.heard()
        self.protocol.connectionLost()
        stored.callback(OK)
        self.assertEqual((self.heard(), self.receiver.ends), ([], ["lost connection"]))

    def test_unexpected(self) -> None:
        """An exception is 451, at once or late, and the session goes on."""
        self.connect()
        self.heard()
        self.receiver.answers["mail"] = RuntimeError("bug")
        self.assertEqual(self.say(b"EHLO me\r\nMAIL FROM:<>\r\nNOOP\r\n"), ["250", "451", "250"])
        late: Deferred[Reply] = Deferred()
        self.receiver.answers["mail"] = late
        self.say(b"MAIL FROM:<>\r\nNOOP\r\n")
        late.errback(RuntimeError("bug"))
        self.assertEqual(self.heard(), ["451", "250"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_unexpected_in_content(self) -> None:
        """Where no answer is owed, an exception ends the session with 421."""
        self.transaction()
        self.heard()
        self.receiver.answers["content"] = RuntimeError("bug")
        self.assertEqual(self.say(b"hi\r\nthere"), ["421"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_early_talker(self) -> None:
        """Who speaks before the greeting is refused, and nothing is executed."""
        self.greeting_delay = 2.0
        self.connect()
        self.assertEqual(self.say(b"EHLO me\r\nMAIL FROM:<>\r\n"), ["554"])
        self.assertTrue(self.wire.disconnecting)
        self.clock.advance(5)
        self.assertEqual((self.heard(), self.receiver.stages), ([], []))

    def test_greeting_delay(self) -> None:
        """Who waits is greeted."""
        self.greeting_delay = 2.0
        self.connect()
        self.clock.advance(1.9)
        self.assertEqual(self.heard(), [])
        self.clock.advance(0.2)
        self.assertEqual(self.heard(), ["220"])
        self.assertEqual(self.say(b"NOOP\r\n"), ["250"])

    def test_leaves_before_greeting(self) -> None:
        """No call is left behind."""
        self.greeting_delay = 2.0
        self.connect()
        self.protocol.connectionLost()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused_at_connect(self) -> None:
        """A refusal instead of the greeting closes."""
        self.receiver.answers["greeting"] = Reply(421, "4.7.0", "Too many")
        self.connect()
        self.assertEqual(self.heard(), ["421"])
        self.assertTrue(self.wire.disconnecting)
        self.assertEqual(self.say(b"EHLO me\r\n"), [])

    def test_timeouts(self) -> None:
        """Silence ends the session; and one that will not close is cut off."""
        self.connect()
        self.heard()
        self.pass_time(99)
        self.assertEqual(self.say(b"NOOP\r\n"), ["250"])
        self.pass_time(99)
        self.assertEqual(self.heard(), [])
        self.pass_time(2)
        self.assertEqual(self.heard(), ["421"])
        self.pass_time(11)
        self.assertTrue(self.wire.aborted)
        self.protocol.connectionLost()
        self.assertEqual(self.receiver.ends, ["timeout, and would not close"])

    def test_transaction_deadline(self) -> None:
        """A client that always says something in time still has to finish."""
        self.transaction()
        self.heard()
        for _ in range(12):
            self.say(b"x" * 500)
            self.pass_time(25)
        self.assertEqual(self.heard(), ["421"])

    def test_session_deadline(self) -> None:
        """A session does not last for ever."""
        self.connect()
        for _ in range(20):
            self.say(b"NOOP\r\n")
            self.pass_time(50)
        self.assertEqual(self.heard()[-1], "421")

    def test_minimum_rate(self) -> None:
        """Content that drips in too slowly ends the session; command pauses do not."""
        self.transaction()
        self.heard()
        self.say(b"x" * 400)
        self.pass_time(45)
        self.assertEqual(self.heard(), [])
        self.say(b"x")
        self.pass_time(10)
        self.assertEqual(self.heard(), ["421"])

    def test_read_ahead_is_bounded(self) -> None:
        """A client that sends without end while we owe an answer is paused, then read."""
        self.connect()
        answer: Deferred[Reply] = Deferred()
        self.receiver.answers["helo"] = answer
        self.say(b"EHLO me\r\n" + b"NOOP\r\n" * 10)
        self.assertEqual(self.wire.producerState, "producing")
        self.say((b"NOOP " + b"x" * 1500 + b"\r\n") * 50)
        self.assertEqual(self.wire.producerState, "paused")
        self.heard()
        answer.callback(OK)
        self.assertEqual(self.wire.producerState, "producing")
        self.assertEqual(len(self.heard()), 61)

    def test_floods(self) -> None:
        """Commands without end and without a message end the session; messages do not."""
        for flood in (
            b"NOOP\r\n",
            b"RSET\r\n",
            b"VRFY a\r\n",
            b"EHLO x\r\n",
            b"MAIL FROM:<>\r\nRSET\r\n",
        ):
            self.setUp()
            self.connect()
            self.heard()
            codes = self.say(b"EHLO me\r\n" + flood * 150)
            self.assertEqual(codes[-1], "421")
            self.assertEqual(codes.count("421"), 1)
            self.assertEqual(len(codes), serving.IDLE_COMMANDS + 1)
        self.setUp()
        self.connect()
        message = b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n.\r\nRSET\r\n"
        self.assertNotIn("421", self.say(b"EHLO me\r\n" + message * 200))

    def test_client_that_does_not_read(self) -> None:
        """While our replies wait nothing more is read or executed; the deadline runs."""
        self.connect()
        self.heard()
        self.protocol._plain = True
        self.protocol.pauseProducing()
        self.assertEqual(self.wire.producerState, "paused")
        self.assertEqual(self.say(b"NOOP\r\n"), [])
        self.protocol.resumeProducing()
        self.assertEqual((self.wire.producerState, self.heard()), ("producing", ["250"]))
        self.protocol.pauseProducing()
        self.pass_time(101)
        self.assertEqual(self.heard(), ["421"])
        self.protocol.stopProducing()

    def test_writing_that_waits_for_reading(self) -> None:
        """A greeting written before the TLS handshake does not stop the handshake."""
        self.connect()
        self.protocol.pauseProducing()
        self.assertEqual(self.wire.producerState, "producing")

    def test_tarpit(self) -> None:
        """An answer that is held back holds back what follows."""
        self.connect()
        self.heard()
        self.receiver.delay = 1.0
        self.assertEqual(self.say(b"WHAT\r\nNOOP\r\n"), [])
        self.clock.advance(1.1)
        self.assertEqual(self.heard(), ["500", "250"])

    def test_too_many_errors(self) -> None:
        """The last error is answered, then 421."""
        self.connect()
        self.heard()
        self.receiver.delay = None
        self.assertEqual(self.say(b"WHAT\r\nNOOP\r\n"), ["500", "421"])

    def test_refusal_that_closes(self) -> None:
        """A receiver's 421 closes, held back or not."""
        self.connect()
        self.heard()
        self.receiver.answers["mail"] = Reply(421, "4.3.2", "Stopping")
        self.assertEqual(self.say(b"EHLO me\r\nMAIL FROM:<>\r\nNOOP\r\n"), ["250", "421"])

    def test_delayed_refusal_that_closes(self) -> None:
        """The same behind a tarpit."""
        self.connect()
        self.heard()
        self.receiver.delay = 1.0
        self.receiver.answers["mail"] = Reply(421, "4.3.2", "Stopping")
        self.assertEqual(self.say(b"EHLO me\r\nMAIL FROM:<>\r\nNOOP\r\n"), ["250"])
        self.clock.advance(1.1)
        self.assertEqual(self.heard(), ["421"])

    def test_starttls(self) -> None:
        """220, then the handshake; its facts go to the receiver."""
        self.connect()
        self.heard()
        self.assertEqual(self.say(b"EHLO me\r\nSTARTTLS\r\nNOOP\r\n"), ["250", "220"])
        self.assertEqual(self.wire.tls_options, "options")

        class Connection:
            def get_protocol_version_name(self) -> str:
                return "TLSv1.3"

            def get_cipher_name(self) -> str:
                return "CIPHER"

        self.wire.getHandle = Connection  # type: ignore[attr-defined]
        self.protocol.handshakeCompleted()
        self.assertEqual(self.receiver.tls, TlsFacts("TLSv1.3", "CIPHER"))
        self.assertEqual(self.say(b"MAIL FROM:<>\r\n"), ["503"])

    def test_chunks(self) -> None:
        """BDAT is answered by the chunk; a refusal comes after its octets."""
        self.connect()
        self.say(b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\n")
        self.heard()
        self.assertEqual(self.say(b"BDAT 4\r\nhi\r\nBDAT 0 LAST\r\n"), ["250", "250"])
        self.assertEqual(self.receiver.kept, b"hi\r\n")
        self.receiver.answers["data"] = Reply(452, "4.3.1", "Full")
        codes = self.say(
            b"MAIL FROM:<>\r\nRCPT TO:<a@b.example>\r\nBDAT 6 LAST\r\nQUIT\r\nRSET\r\n"
        )
        self.assertEqual(codes, ["250", "250", "452", "250"])
        self.assertIn("reset", self.receiver.stages)

    def test_stop(self) -> None:
        """At stop an idle session ends, one in a transaction may finish."""
        self.connect()
        self.say(b"EHLO me\r\nMAIL FROM:<>\r\n")
        self.heard()
        self.assertFalse(self.protocol.end(gently=True))
        self.say(b"RSET\r\n")
        self.heard()
        self.assertTrue(self.protocol.end(gently=True))
        self.assertEqual(self.heard(), ["421"])
        self.assertTrue(self.protocol.end(gently=False))

    def test_protocol_error_that_closes(self) -> None:
        """NUL in a command is answered, and the end."""
        self.connect()
        self.heard()
        self.assertEqual(self.say(b"A\0\r\nNOOP\r\n"), ["501"])
        self.assertTrue(self.wire.disconnecting)

    def test_no_words_lost(self) -> None:
        """On a stream socket our half is closed first, so that our last words arrive."""
        self.connect()
        self.protocol._plain = True
        self.say(b"A\0\r\n")
        self.assertTrue(self.wire.half_closed)
        self.assertFalse(self.wire.disconnecting)
        self.say(b"x" * serving.LINGER)
        self.assertFalse(self.wire.aborted)
        self.say(b"x")
        self.assertTrue(self.wire.aborted)
        self.protocol.readConnectionLost()
        self.assertTrue(self.wire.disconnecting)

    def test_direct_write(self) -> None:
        """What the socket does not take goes into the transport's buffer, for good."""
        self.connect()
        self.heard()
        taken: list[bytes] = []

        def some(data: bytes) -> int:
            taken.append(data[:5])
            return 5

        self.protocol._direct = some
        self.protocol.dataReceived(b"NOOP\r\nNOOP\r\n")
        self.assertEqual(b"".join(taken) + self.wire.value(), b"250 2.0.0 Ok\r\n" * 2)
        self.protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(len(taken), 1)

    def test_direct_write_fails(self) -> None:
        """An error of the socket is left to the transport, which will see it too."""
        self.connect()
        self.heard()

        def fail(data: bytes) -> int:
            raise BlockingIOError

        self.protocol._direct = fail
        self.protocol.dataReceived(b"NOOP\r\n")
        self.assertEqual(self.wire.value(), b"250 2.0.0 Ok\r\n")

    def test_constants(self) -> None:
        """No reply that we give for our own fault is permanent."""
        for reply in (serving.INTERNAL_ERROR, serving.BROKEN, serving.GOING_DOWN):
            self.assertTrue(reply.transient)
