"""The server's machine: order, sequence, framing, whatever the octets' cuts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.smtp import server
from mailsecure.smtp.commands import MAX_COMMAND, Offer
from mailsecure.smtp.events import (
    ChunkEnd,
    Content,
    ContentEnd,
    Data,
    Event,
    Fault,
    Helo,
    Mail,
    Quit,
    Rcpt,
    Reset,
    Said,
    StartTls,
)
from mailsecure.smtp.replies import Reply
from mailsecure.smtp.server import ServerMachine

from .test_framing import cuts

OFFER = Offer("us.example", 200, 60, 10, 10, True)
OK = Reply(250, "2.0.0", "Ok")
GO = Reply(354, "", "Go")
NO = Reply(550, "5.7.1", "No")


class Conversation:
    """A caller that takes what is not named ``no``; notes codes and messages."""

    def __init__(self, machine: ServerMachine | None = None) -> None:
        self.machine = machine or ServerMachine(OFFER)
        self.codes: list[int] = []
        self.messages: list[bytes] = []
        self.content = b""
        self.closed = False

    def feed(self, *pieces: bytes) -> list[int]:
        """Feed the pieces; return the codes of all replies so far."""
        for piece in pieces:
            self.machine.receive(piece)
            while not self.closed and (event := self.machine.next_event()) is not None:
                self.take(event)
        return self.codes

    def take(self, event: Event) -> None:
        """Answer one event."""
        match event:
            case Helo():
                reply = self.machine.hello_reply(event.name)
                self.machine.answered(reply)
                self.codes.append(reply.code)
            case Mail() | Rcpt() | Data():
                self.answer(event)
            case Content(data):
                self.content += data
            case ChunkEnd(data, reply):
                self.content += data
                self.codes.append(reply.code)
            case ContentEnd(fault, octets, data):
                self.ended(fault, octets, data)
            case StartTls(reply):
                self.codes.append(reply.code)
                self.machine.tls_started()
            case Reset(reply) | Said(reply):
                self.content = b""
                self.codes.append(reply.code)
            case Fault(reply, close):
                self.codes.append(reply.code)
                self.closed = self.closed or close
            case Quit(reply):
                self.codes.append(reply.code)
                self.closed = True

    def answer(self, event: Mail | Rcpt | Data) -> None:
        refuse = isinstance(event, Rcpt) and event.local == "no"
        refuse = refuse or (isinstance(event, Mail) and event.reverse_path.startswith("no@"))
        reply = NO if refuse else GO if isinstance(event, Data) else OK
        self.machine.answered(reply)
        if not (isinstance(event, Data) and event.chunked):
            self.codes.append(reply.code)

    def ended(self, fault: Reply | None, octets: int, data: bytes) -> None:
        content, self.content = self.content + data, b""
        reply = fault or OK
        if fault is None:
            assert octets == len(content)
            self.messages.append(content)
        self.machine.answered(reply)
        self.codes.append(reply.code)


TRANSACTION = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@us.example>\r\n"
MESSAGE = TRANSACTION + b"DATA\r\nhello\r\n.\r\n"


class ServerMachineTests(SynchronousTestCase):
    """ServerMachine through a caller that takes nearly all."""

    def codes(self, octets: bytes) -> list[int]:
        """Converse in one piece and octet by octet; both must go alike."""
        whole, slow = Conversation(), Conversation()
        whole.feed(octets)
        slow.feed(*(octets[i : i + 1] for i in range(len(octets))))
        self.assertEqual(slow.codes, whole.codes)
        self.assertEqual(slow.messages, whole.messages)
        self.assertEqual(slow.closed, whole.closed)
        self.last = whole
        return whole.codes

    def test_message(self) -> None:
        """All pipelined, all answered in order, the message whole."""
        codes = self.codes(b"EHLO me\r\n" + MESSAGE + MESSAGE + b"QUIT\r\n")
        self.assertEqual(codes, [250, 250, 250, 354, 250, 250, 250, 354, 250, 221])
        self.assertEqual(self.last.messages, [b"hello\r\n"] * 2)
        self.assertTrue(self.last.closed)

    def test_sequence(self) -> None:
        """Commands out of turn get 503 and do nothing."""
        for octets, codes in (
            (MESSAGE[:25], [503]),
            (b"EHLO me\r\nRCPT TO:<c@us.example>\r\n", [250, 503]),
            (b"EHLO me\r\nDATA\r\n", [250, 503]),
            (b"HELO me\r\n" + TRANSACTION + b"MAIL FROM:<>\r\n", [250, 250, 250, 503]),
            (b"EHLO me\r\nMAIL FROM:<>\r\nDATA\r\n", [250, 250, 503]),
            (
                b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<no@x.example>\r\nDATA\r\n",
                [250, 250, 550, 554],
            ),
            (b"EHLO me\r\nMAIL FROM:<no@x.example>\r\nRCPT TO:<a@x.example>\r\n", [250, 550, 503]),
            (b"EHLO me\r\n" + TRANSACTION + b"RSET\r\nDATA\r\n", [250, 250, 250, 250, 503]),
            (b"EHLO me\r\n" + TRANSACTION + b"EHLO me\r\nDATA\r\n", [250, 250, 250, 250, 503]),
            (b"EHLO me\r\nDATA x\r\nRSET x\r\nQUIT x\r\nSTARTTLS x\r\n", [250, 501, 501, 501, 501]),
        ):
            self.assertEqual(self.codes(octets), codes, octets)

    def test_own_answers(self) -> None:
        """What the machine answers by itself."""
        for octets, codes in (
            (b"NOOP\r\nNOOP x\r\nRSET\r\nHELP\r\n", [250, 250, 250, 214]),
            (b"VRFY a\r\nVRFY\r\nEXPN a\r\n", [252, 501, 502]),
            (b"AUTH\r\nAUTH PLAIN x\r\n", [501, 502]),
            (b"XCLIENT ADDR=1\r\nXFORWARD ADDR=1\r\n", [550, 550]),
            (b"EHLO\r\nHELO \xc3\xa4\r\nEHLO a b\r\n", [501, 501, 501]),
            (b"W\xc3\x84H\r\nWHAT\r\n", [500, 500]),
            (b"EHLO me\r\nMAIL FROM:<a@b.example> NO=1\r\n", [250, 555]),
            (b"EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<a@b.example> NO=1\r\n", [250, 250, 555]),
            (b"EHLO me\r\nMAIL FROM:<\xc3\xa4@b.example>\r\n", [250, 501]),
            (
                "EHLO me\r\nMAIL FROM:<ä@b.example> SMTPUTF8\r\nRCPT TO:<ö@x.example>\r\n".encode(),
                [250] * 3,
            ),
        ):
            self.assertEqual(self.codes(octets), codes, octets)
            self.assertFalse(self.last.closed)

    def test_foreign(self) -> None:
        """What is not SMTP at all ends the session."""
        for octets in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nEHLO x\r\n",
        ):
            self.assertEqual(self.codes(octets), [554])
            self.assertTrue(self.last.closed)
        self.assertEqual(self.codes(b"EHLO me\r\nGET /\r\n"), [250, 500])

    def test_bare_newlines_in_commands(self) -> None:
        """Nothing hides behind a LF, a CR or a NUL; up to the CRLF all is thrown away."""
        for octets, codes, closed in (
            (b"EHLO me\nMAIL FROM:<>\r\nNOOP\r\n", [501, 250], False),
            (b"EHLO me\rMAIL FROM:<>\r\nNOOP\r\n", [501, 250], False),
            (b"NOOP\n\n\n\r\nNOOP\r\n", [501, 250], False),
            (b"NO\0OP\r\nNOOP\r\n", [501], True),
            (b"NO\0OP\nNOOP\r\n", [501], True),
        ):
            self.assertEqual(self.codes(octets), codes, octets)
            self.assertEqual(self.last.closed, closed)

    def test_endless_line(self) -> None:
        """A line too long is answered once, and swallowed; without end it ends the session."""
        long = b"MAIL FROM:<a@b.example>" + b" " * 16000
        self.assertEqual(self.codes(long + b"junk\r\nNOOP\r\n"), [500, 250])
        self.assertEqual(self.codes(b"x" * MAX_COMMAND + b"\r\nNOOP\r\n"), [500, 250])
        self.assertEqual(self.codes(long + b"\nNOOP\r\nRSET\r\n"), [500, 250])
        talk = Conversation()
        self.assertEqual(talk.feed(*[b"x" * 65536] * 18), [500, 500])
        self.assertTrue(talk.closed)

    def test_refused_content(self) -> None:
        """A message at fault is read to its real end, then refused."""
        for content, code in (
            (b"a\nb", 550),
            (b"a\0b", 550),
            (b"x" * 70, 550),
            (b"x\r\n" * 100, 552),
        ):
            octets = b"EHLO me\r\n" + TRANSACTION + b"DATA\r\n" + content + b"\r\n.\r\nNOOP\r\n"
            self.assertEqual(self.codes(octets), [250, 250, 250, 354, code, 250])
            self.assertEqual(self.last.messages, [])

    def test_mended_content(self) -> None:
        """Bare newlines are mended where the session may."""
        talk = Conversation(ServerMachine(OFFER, normalise=True))
        talk.feed(b"EHLO me\r\n" + TRANSACTION + b"DATA\r\na\nb\r\n.\r\n")
        self.assertEqual(talk.messages, [b"a\r\nb\r\n"])

    def test_starttls(self) -> None:
        """What was pipelined after STARTTLS is gone, and so is what was said before."""
        codes = self.codes(b"EHLO me\r\nSTARTTLS\r\nEHLO evil\r\nMAIL FROM:<>\r\n"[:19])
        self.assertEqual(codes, [250, 220])
        talk = Conversation()
        talk.feed(b"EHLO me\r\n" + TRANSACTION + b"STARTTLS\r\nEHLO evil\r\nNOOP\r\n")
        self.assertEqual(talk.codes, [250, 250, 250, 220])
        self.assertEqual(talk.machine.waiting, 0)
        self.assertEqual(talk.feed(b"MAIL FROM:<>\r\n")[4:], [503])
        self.assertEqual(talk.feed(b"EHLO me\r\nSTARTTLS\r\n")[5:], [250, 503])
        plain = Conversation(ServerMachine(Offer("us.example", 200, 60, 10, 10, False)))
        self.assertEqual(plain.feed(b"EHLO me\r\nSTARTTLS\r\n"), [250, 502])

    def test_capabilities(self) -> None:
        """EHLO says what there is; TLS only before it is on; HELO says nothing."""
        machine = ServerMachine(OFFER)
        machine.receive(b"EHLO me\r\n")
        self.assertIsInstance(machine.next_event(), Helo)
        self.assertTrue(machine.owed)
        lines = machine.hello_reply("me").text.split("\n")
        self.assertEqual(lines[0], "us.example greets me")
        for keyword in (
            "PIPELINING",
            "SIZE 200",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "CHUNKING",
            "LIMITS RCPTMAX=10 MAILMAX=10",
            "STARTTLS",
        ):
            self.assertIn(keyword, lines)
        machine.answered(OK)
        self.assertTrue(machine.extended)
        machine.tls_started()
        machine.receive(b"EHLO me\r\n")
        machine.next_event()
        self.assertNotIn("STARTTLS", machine.hello_reply("me").text)
        machine.answered(OK)
        machine.receive(b"HELO me\r\n")
        machine.next_event()
        self.assertEqual(machine.hello_reply("me").text, "us.example greets me")
        machine.answered(OK)
        self.assertFalse(machine.extended)

    def test_refused_hello(self) -> None:
        """A refused EHLO leaves the session where it was."""
        machine = ServerMachine(OFFER)
        machine.receive(b"EHLO me\r\nMAIL FROM:<>\r\n")
        machine.next_event()
        machine.answered(NO)
        self.assertEqual(machine.next_event(), Fault(server._HELO_FIRST))

    def test_chunks(self) -> None:
        """BDAT in chunks makes one message; DATA and RCPT cannot come between."""
        codes = self.codes(
            b"EHLO me\r\n" + TRANSACTION + b"BDAT 7\r\nhello\r\nBDAT 0\r\nRCPT TO:<x@y.example>\r\n"
            b"DATA\r\nBDAT 3 LAST\r\nyouNOOP\r\n"
        )
        self.assertEqual(codes, [250, 250, 250, 250, 250, 503, 503, 250, 250])
        self.assertEqual(self.last.messages, [b"hello\r\nyou\r\n"])

    def test_bad_chunks(self) -> None:
        """The declared octets are swallowed, never executed."""
        for octets, codes, closed in (
            (b"BDAT -1\r\nQUIT\r\n", [501], True),
            (b"BDAT 99999999999999999999\r\nQUIT\r\n", [501], True),
            (b"BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", [503, 250], False),
            (
                b"MAIL FROM:<>\r\nRCPT TO:<no@x.example>\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
                [250, 550, 503, 250],
                False,
            ),
            (
                TRANSACTION + b"BDAT 300\r\n" + b"x\r\n" * 100 + b"BDAT 0 LAST\r\n",
                [250, 250, 552, 503],
                False,
            ),
            (
                TRANSACTION + b"BDAT 3\r\na\nbBDAT 0 LAST\r\nNOOP\r\n",
                [250, 250, 550, 503, 250],
                False,
            ),
        ):
            self.assertEqual(self.codes(b"EHLO me\r\n" + octets), [250, *codes], octets)
            self.assertEqual(self.last.closed, closed)
            self.assertEqual(self.last.messages, [])

    def test_refused_data(self) -> None:
        """A refused DATA leaves the transaction, a refused BDAT ends it after its octets."""
        machine = ServerMachine(OFFER)
        talk = Conversation(machine)
        talk.feed(b"EHLO me\r\n" + TRANSACTION)
        machine.receive(b"DATA\r\nBDAT 6 LAST\r\nQUIT\r\nDATA\r\n")
        self.assertEqual(machine.next_event(), Data(chunked=False))
        machine.answered(NO)
        self.assertTrue(machine.in_transaction)
        self.assertEqual(machine.next_event(), Data(chunked=True))
        self.assertIsNone(machine.next_event())
        machine.answered(NO)
        self.assertTrue(machine.receiving)
        self.assertEqual(machine.next_event(), Reset(NO))
        self.assertEqual(machine.next_event(), Fault(server._MAIL_FIRST))

    def test_closed(self) -> None:
        """A closed machine gives nothing and keeps nothing."""
        machine = ServerMachine(OFFER)
        machine.close()
        machine.receive(b"NOOP\r\n")
        self.assertIsNone(machine.next_event())
        self.assertEqual(machine.waiting, 0)

    @given(st.data())
    def test_any_chunking(self, data: st.DataObject) -> None:
        """Replies, messages and the end are the same however the octets are cut."""
        parts = st.sampled_from(
            [
                b"EHLO me\r\n",
                TRANSACTION,
                b"DATA\r\n",
                b"text\r\n",
                b"..stuffed\r\n",
                b".\r\n",
                b"\n.\r\n",
                b"\r",
                b"\n",
                b"\0",
                b"BDAT 9\r\n",
                b"BDAT 5 LAST\r\n",
                b"RSET\r\n",
                b"QUIT\r\n",
                b"x" * 80,
                b"RCPT TO:<no@x.example>\r\n",
                b"\xff",
            ]
        )
        octets = b"".join(data.draw(st.lists(parts, max_size=25)))
        whole, cut = Conversation(), Conversation()
        whole.feed(octets)
        cut.feed(*data.draw(cuts(octets)))
        self.assertEqual(cut.codes, whole.codes)
        self.assertEqual(cut.messages, whole.messages)
        self.assertEqual(cut.closed, whole.closed)
