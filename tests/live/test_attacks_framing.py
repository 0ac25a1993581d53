"""Nothing that a client writes between, within or instead of commands is misread.

The rows of attacks.md under Framing, each in three segmentations, on real sockets.
"""

from __future__ import annotations

import random
import re
import time

from tests.live import needs

from .attacks import OK, TAKEN, AttackTestCase
from .certificates import Authority
from .disks import slow_fsync
from .harness import LiveTestCase, until
from .sinks import Sink
from .wire import (
    AS_WRITTEN,
    OCTETS,
    ONE_SEGMENT,
    SEGMENTATIONS,
    Closed,
    Wire,
    envelope,
    message,
    play,
    raw,
    say,
)

#: Ways to write the end of a message that are not the end of a message.
FALSE_ENDS = (
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\n.\r",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
)
SMUGGLED = (
    b"MAIL FROM:<evil@client.test>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nI was never sent\r\n"
)


def smuggling(false_end: bytes) -> bytes:
    """Return a message with a second one behind ``false_end``."""
    return b"Subject: outer\r\n\r\nbody" + false_end + SMUGGLED


class Smuggling(AttackTestCase):
    """Only CRLF.CRLF ends a message."""

    def refused(self, number: int, reply: str = "550 5.5.2") -> None:
        content = smuggling(FALSE_ENDS[number])
        steps = (*envelope("a@example.com"), *message(content), say("QUIT"))
        self.attack(steps, *OK, "354", reply, "221")

    def test_lf_dot_lf(self) -> None:
        """LF.LF ends nothing; the message is refused, the second never seen."""
        self.refused(0)

    def test_lf_dot_crlf(self) -> None:
        """LF.CRLF ends nothing."""
        self.refused(1)

    def test_cr_dot_cr(self) -> None:
        """CR.CR ends nothing."""
        self.refused(2)

    def test_cr_dot_crlf(self) -> None:
        """CR.CRLF ends nothing."""
        self.refused(3)

    def test_cr_dot_lf(self) -> None:
        """CR.LF ends nothing."""
        self.refused(4)

    def test_lf_dot_cr(self) -> None:
        """LF.CR ends nothing."""
        self.refused(5)

    def test_crlf_dot_lf(self) -> None:
        """CRLF.LF ends nothing."""
        self.refused(6)

    def test_crlf_dot_cr(self) -> None:
        """CRLF.CR ends nothing."""
        self.refused(7)

    def test_crlf_dot_cr_crlf(self) -> None:
        """CRLF.CRCRLF ends nothing."""
        self.refused(8)

    def test_cr_crlf_dot_cr_crlf(self) -> None:
        """CRCRLF.CRCRLF ends nothing."""
        self.refused(9)

    def test_nul_before_dot(self) -> None:
        """A NUL before the dot does not vanish to make an end."""
        self.refused(10, "550 5.6.0")

    def test_nul_after_dot(self) -> None:
        """A NUL after the dot does not vanish to make an end."""
        self.refused(11, "550 5.6.0")

    def test_session_goes_on(self) -> None:
        """After the refusal the same session sends a good message."""
        good = b"Subject: good\r\n\r\nbody\r\n"
        steps = (
            *envelope("a@example.com"),
            *message(smuggling(b"\n.\n")),
            *envelope("b@example.com")[1:],
            *message(good),
            say("QUIT"),
        )
        answers = (*OK, "354", "550 5.5.2", *TAKEN[1:], "221")
        self.attack(steps, *answers, stored=[(("b@example.com",), good)])


class Normalising(AttackTestCase):
    """For named networks bare newlines are mended, and nothing else is let through."""

    options = {  # noqa: RUF012
        "smtp": "bare_newlines = normalise\nbare_newlines_networks = 127.0.0.1/32"
    }

    def test_every_false_end(self) -> None:
        """Each false end becomes text of the one message, stuffed where it must be."""
        for false_end in FALSE_ENDS:
            content = smuggling(false_end)
            # What the client stuffed is unstuffed first: CRLF-dot within the content.
            mended = re.sub(rb"\r\n|\r|\n", b"\r\n", content.replace(b"\r\n.", b"\r\n")).replace(
                b"\0", b""
            )
            steps = (*envelope("a@example.com"), *message(content), say("QUIT"))
            self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), mended)])

    def test_others_are_refused(self) -> None:
        """A client of another network gets no such favour."""
        with Wire(self.node.address, source="127.0.0.2") as wire:
            wire.hello()
            replies = wire.transact(b"a\nb\r\n", "a@example.com")
        self.assertTrue(replies[-1].startswith("550 5.5.2"), str(replies))


class Dots(AttackTestCase):
    """Stuffed dots are taken out and put in again, wherever a chunk ends."""

    def test_small(self) -> None:
        """Lines of dots arrive as they were meant."""
        lines = [b"", b".", b"..", b"...", b".a", b"a.", b". ", b""]
        content = b"Subject: dots\r\n\r\n" + b"".join(each + b"\r\n" for each in lines)
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        steps = (*envelope("a@example.com"), *message(stuffed), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), content)])

    def test_first_line(self) -> None:
        """A dot that begins the message is unstuffed too."""
        steps = (*envelope("a@example.com"), *message(b"..first\r\n"), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), b".first\r\n")])

    def test_empty(self) -> None:
        """A message of nothing at all is a message."""
        steps = (*envelope("a@example.com"), *message(b""), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), b"")])

    def test_large(self) -> None:
        """Dots around every border of a large message's pieces are right."""
        chance = random.Random(5321)
        kinds = (b"", b".", b"..", b".x", b"x.", b"." * 60, b"x" * 70)
        lines = [chance.choice(kinds) for _ in range(12_000)]
        content = b"Subject: many dots\r\n\r\n" + b"\r\n".join(lines) + b"\r\n"
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        steps = (*envelope("a@example.com"), *message(stuffed), say("QUIT"))
        self.attack(
            steps,
            *(*TAKEN, "221"),
            stored=[(("a@example.com",), content)],
            segmentations=(AS_WRITTEN, ONE_SEGMENT),
        )

    def test_every_cut(self) -> None:
        """However the end of a message is cut in two, it is the end."""
        content = b"Subject: cut\r\n\r\n.\r\n"
        sent = b"Subject: cut\r\n\r\n..\r\n.\r\nQUIT\r\n"
        for cut in range(len(sent) + 1):
            with Wire(self.node.address) as wire:
                wire.hello()
                for command in ("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA"):
                    wire.command(command)
                wire.send(sent[:cut])
                time.sleep(0.002)
                wire.send(sent[cut:])
                self.assertEqual([each[:3] for each in wire.rest()], ["250", "221"])
        self.node.settle()
        expected = [(("a@example.com",), content)] * (len(sent) + 1)
        self.assertEqual(self.stored(self.sink.clear()), expected)


class Commands(AttackTestCase):
    """What is no command is refused, and nothing behind it is executed by mistake."""

    HIDDEN = "MAIL FROM:<e@client.test>\nRCPT TO:<v@example.com>\nDATA\nhidden\n.\n"

    def refused(self, line: bytes, *answers: str) -> None:
        """Expect ``answers`` to ``line`` after EHLO, and a sane session after it."""
        steps = (say("EHLO client.test"), raw(line), say("NOOP"), say("QUIT"))
        self.attack(steps, "250", *(answers or ("501",)), "250", "221")

    def closed(self, line: bytes, answer: str = "501") -> None:
        """Expect ``answer`` and the end."""
        steps = (say("EHLO client.test"), raw(line), say("NOOP"), say("QUIT"))
        self.attack(steps, "250", answer)

    def test_bare_lf(self) -> None:
        """Commands behind a bare LF are thrown away with their line."""
        self.refused(b"NOOP\n" + self.HIDDEN.encode() + b"RSET\r\n")

    def test_bare_lf_in_helo(self) -> None:
        """EHLO with a bare LF is no greeting: MAIL is out of sequence."""
        steps = (
            raw(b"EHLO a\n" + self.HIDDEN.encode() + b"\r\n"),
            say("MAIL FROM:<a@client.test>"),
            say("QUIT"),
        )
        self.attack(steps, "501", "503", "221")

    def test_bare_cr(self) -> None:
        """A bare CR within a command is refused."""
        self.refused(b"MAIL FROM:<a@client.test>\rRCPT TO:<v@example.com>\r\n")

    def test_bare_cr_in_helo(self) -> None:
        """A bare CR within EHLO is refused."""
        self.refused(b"EHLO a\rb\r\n")

    def test_nul(self) -> None:
        """A NUL in a command is refused, and the client with it."""
        self.closed(b"MAIL FROM:<a\0b@client.test>\r\n")

    def test_nul_in_helo(self) -> None:
        """A NUL in EHLO is refused, and the client with it."""
        self.closed(b"EHLO a\0b\r\n")

    def test_eight_bit_helo(self) -> None:
        """An EHLO that is not ASCII is refused."""
        self.refused("EHLO bücher.test\r\n".encode())

    def test_eight_bit_path(self) -> None:
        """An address that is not ASCII needs SMTPUTF8."""
        self.refused("MAIL FROM:<jürgen@client.test>\r\n".encode())

    def test_not_utf8(self) -> None:
        """With SMTPUTF8 an address must be UTF-8."""
        self.refused(b"MAIL FROM:<j\xfcrgen@client.test> SMTPUTF8\r\n")

    def test_eight_bit_verb(self) -> None:
        """A verb that is not ASCII is refused."""
        self.refused(b"M\xc4IL FROM:<a@client.test>\r\n", "500")

    def quoted(self, local: bytes, closes: bool = False) -> None:
        steps = (
            *envelope(),
            raw(b'RCPT TO:<"' + local + b'"@example.com>\r\n'),
            say("NOOP"),
            say("QUIT"),
        )
        self.attack(steps, "250", "250", *(("501",) if closes else ("501", "250", "221")))

    def test_bare_lf_in_quotes(self) -> None:
        """Quotes do not make a LF harmless."""
        self.quoted(b"a\nb")

    def test_bare_cr_in_quotes(self) -> None:
        """Quotes do not make a CR harmless."""
        self.quoted(b"a\rb")

    def test_nul_in_quotes(self) -> None:
        """Quotes do not make a NUL harmless."""
        self.quoted(b"a\0b", closes=True)

    def test_eight_bit_in_quotes(self) -> None:
        """Quotes do not make 8-bit characters ASCII."""
        self.quoted(b"a\xe4b")

    def test_bare_auth(self) -> None:
        """AUTH without a mechanism is a syntax error, not a crash."""
        self.refused(b"AUTH\r\n")

    def test_auth(self) -> None:
        """AUTH is not offered."""
        self.refused(b"AUTH PLAIN AGEAYg==\r\n", "502")

    def test_spaces_without_end(self) -> None:
        """16,000 spaces and junk cost no time to speak of."""
        line = b"MAIL FROM:<a@client.test>" + b" " * 16_000 + b"junk\r\n"
        with self.quicker_than(10):
            self.refused(line, "500")

    def test_spaces_within_the_limit(self) -> None:
        """As many spaces as a command may hold cost no time either."""
        line = b"MAIL FROM:<a@client.test>" + b" " * 2_000 + b"j@unk\r\n"
        with self.quicker_than(10):
            self.refused(line)

    def test_size_too_large(self) -> None:
        """A declared size that is too large is refused at MAIL."""
        self.refused(b"MAIL FROM:<a@client.test> SIZE=999999999999\r\n", "552 5.3.4")

    def test_size_beyond_numbers(self) -> None:
        """A size of forty digits is refused."""
        self.refused(b"MAIL FROM:<a@client.test> SIZE=" + b"9" * 40 + b"\r\n", "501")

    def test_unknown_parameter(self) -> None:
        """A parameter nobody offered is refused as the standard says."""
        self.refused(b"MAIL FROM:<a@client.test> FOO=bar\r\n", "555")

    def test_doubled_parameter(self) -> None:
        """A parameter given twice is refused: two readings are an attack."""
        self.refused(b"MAIL FROM:<a@client.test> SIZE=1 SIZE=2\r\n")

    def test_http(self) -> None:
        """A web browser is sent away at once."""
        steps = (raw(b"GET / HTTP/1.1\r\nHost: mx.test\r\n\r\n"),)
        self.attack(steps, "554")

    def test_http_with_commands(self) -> None:
        """SMTP in the body of a web form is never executed."""
        form = self.HIDDEN.replace("\n", "\r\n").encode()
        head = b"POST / HTTP/1.1\r\nContent-Type: text/plain\r\n\r\nEHLO a\r\n"
        self.attack((raw(head + form + b"QUIT\r\n"),), "554")


class LongLines(AttackTestCase):
    """Long lines are bounded, and stay what they are."""

    def content(self, length: int) -> bytes:
        line = b"x" * (length - 20)
        return b"Subject: long\r\n\r\n" + line + b"\r\nRSET\r\nMAIL FROM:<e@client.test>\r\n"

    def test_long_line_taken(self) -> None:
        """A line of 15 KB is real mail, and arrives whole."""
        content = self.content(15_000)
        steps = (*envelope("a@example.com"), *message(content), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), content)])

    def test_long_line_refused(self) -> None:
        """A line of 17 KB is refused at the message's end; what follows is no command."""
        steps = (*envelope("a@example.com"), *message(self.content(17_500)), say("QUIT"))
        self.attack(steps, *OK, "354", "550 5.6.0", "221")

    def test_long_command(self) -> None:
        """A command of 16 KB is refused, and the session goes on."""
        line = b"MAIL FROM:<" + b"a" * 16_384 + b"@client.test>\r\n"
        steps = (say("EHLO client.test"), raw(line), say("NOOP"), say("QUIT"))
        self.attack(steps, "250", "500", "250", "221")

    def test_command_without_end(self) -> None:
        """Eight megabytes without a line end cost a reply and no memory."""
        before = self.node.memory()
        steps = (say("EHLO client.test"), raw(b"A" * (8 << 20), 0))
        replies = play(self.node.address, steps, ONE_SEGMENT)
        self.assertEqual([each[:3] for each in replies], ["250", "500", "500"])
        self.assertLess(self.node.memory() - before, 4 << 20)
        self.assert_serves()

    def test_size_while_receiving(self) -> None:
        """A message that outgrows SIZE is refused at its end, whatever was declared."""
        small = self.gateway(
            smtp="max_message_size = 64K", domains=f"example.com = {self.sink.route}"
        )
        content = b"Subject: big\r\n\r\n" + b"x" * 998 + b"\r\n"
        steps = (*envelope("a@example.com"), *message(content + b"y\r\n" * 30_000), say("QUIT"))
        for segmentation in (AS_WRITTEN, ONE_SEGMENT):
            replies = play(small.address, steps, segmentation)
            self.assertEqual(replies[-2][:9], "552 5.3.4", str(replies))
        small.settle()
        self.assertEqual(self.sink.clear(), [])


class Ordering(LiveTestCase):
    """Replies come in the order of the commands, however slow the answers are."""

    @needs(root=True, programs=("strace",))
    def test_slow_checks_and_a_slow_spool(self) -> None:
        """Everything in one segment, QUIT included: the 250 comes before the 221."""
        sink = Sink()
        self.addCleanup(sink.close)
        sink.delay = 0.05
        node = self.gateway(
            domains=f"example.com = {sink.route}", relay="verify_recipients = yes\nnetworks ="
        )
        sink.recipient_answers["b@example.com"] = "550 5.1.1 nobody"
        steps = (
            *envelope("a@example.com", "b@example.com", "c@example.com"),
            *message(b"Subject: slow\r\n\r\nbody\r\n"),
            say("QUIT"),
        )
        answers = ["250", "250", "250", "550", "250", "354", "250", "221"]
        with slow_fsync(node.pid, 0.1):
            for segmentation in SEGMENTATIONS:
                replies = play(node.address, steps, segmentation)
                self.assertEqual([each[:3] for each in replies], answers, segmentation)
        node.settle()
        taken = [each.recipients for each in sink.clear()]
        self.assertEqual(taken, [("a@example.com", "c@example.com")] * 3)

    def test_half_closed(self) -> None:
        """A client that says QUIT and shuts its side still gets every answer."""
        sink = Sink()
        self.addCleanup(sink.close)
        node = self.gateway(domains=f"example.com = {sink.route}")
        whole = b"".join(
            step.octets for step in (*envelope("a@example.com"), *message(b"x\r\n"), say("QUIT"))
        )
        for ending in (b"", b"QUIT\r\n"):
            with Wire(node.address) as wire:
                wire.reply()
                wire.send(whole.removesuffix(ending))
                wire.socket.shutdown(1)
                codes = [each[:3] for each in wire.rest()]
            self.assertEqual(codes[:5], ["250", "250", "250", "354", "250"])
        node.settle()
        self.assertEqual(len(sink.clear()), 2)


class EarlyTalkers(AttackTestCase):
    """Who talks before the greeting is refused, and nothing he said is done."""

    options = {"smtp": "greeting_delay = 400ms"}  # noqa: RUF012

    def test_early_talker(self) -> None:
        """A whole message before the greeting is answered 554 and forgotten."""
        steps = (*envelope("v@example.com"), *message(b"Subject: early\r\n\r\nx\r\n"))
        self.attack((*steps, say("QUIT")), "554 5.5.0", early=True)

    def test_one_octet(self) -> None:
        """One octet is enough."""
        self.attack((raw(b"E"),), "554 5.5.0", early=True)

    def test_patient_client(self) -> None:
        """Who waits is greeted, in no more than the time that was set."""
        began = time.monotonic()
        with Wire(self.node.address) as wire:
            self.assertTrue(wire.is_silent(0.2))
            self.assertTrue(wire.reply().startswith("220 mx.test "))
        self.assertLess(time.monotonic() - began, 2.0)


class Chunks(AttackTestCase):
    """BDAT takes the octets that were declared, whatever they look like."""

    REFUSED = "v@elsewhere.test"

    def test_chunks(self) -> None:
        """Two chunks are one message, with CRLF.CRLF as plain text in it."""
        one, two = b"Subject: chunks\r\n\r\nbefore\r", b"\n.\r\nQUIT\r\nafter\r\n"
        steps = (
            *envelope("a@example.com"),
            raw(b"BDAT %d\r\n" % len(one) + one),
            raw(b"BDAT %d LAST\r\n" % len(two) + two),
            say("QUIT"),
        )
        answers = (*OK, "250", "250 2.0.0 Ok: queued as ID", "221")
        self.attack(steps, *answers, stored=[(("a@example.com",), one + two)])

    def test_empty_last_chunk(self) -> None:
        """The last chunk may be empty, and a line without an end gets one."""
        one = b"Subject: chunk\r\n\r\nno line end"
        steps = (
            *envelope("a@example.com"),
            raw(b"BDAT %d\r\n" % len(one) + one),
            raw(b"BDAT 0 LAST\r\n"),
            say("QUIT"),
        )
        answers = (*OK, "250", "250 2.0.0 Ok: queued as ID", "221")
        self.attack(steps, *answers, stored=[(("a@example.com",), one + b"\r\n")])

    def test_smuggling(self) -> None:
        """Bare newlines are no better for being counted."""
        one = smuggling(b"\n.\n")
        steps = (
            *envelope("a@example.com"),
            raw(b"BDAT %d LAST\r\n" % len(one) + one),
            say("QUIT"),
        )
        self.attack(steps, *OK, "550 5.5.2", "221")

    def test_negative(self) -> None:
        """A chunk of less than nothing ends the session: nobody knows what follows."""
        steps = (*envelope("a@example.com"), say("BDAT -1"), say("NOOP"), say("QUIT"))
        self.attack(steps, *OK, "501")

    def test_twenty_digits(self) -> None:
        """A chunk that would never end ends the session."""
        steps = (*envelope("a@example.com"), say("BDAT " + "9" * 20), say("NOOP"), say("QUIT"))
        self.attack(steps, *OK, "501")

    def test_without_rcpt(self) -> None:
        """Without a recipient the octets are swallowed, never executed."""
        hidden = b"RCPT TO:<v@example.com>\r\nBDAT 0 LAST\r\n"
        steps = (*envelope(), raw(b"BDAT %d LAST\r\n" % len(hidden) + hidden), say("QUIT"))
        self.attack(steps, "250", "250", "503", "221")

    def test_after_refused_rcpt(self) -> None:
        """After a refused recipient too."""
        hidden = b"RSET\r\nMAIL FROM:<e@client.test>\r\n"
        steps = (
            *envelope(self.REFUSED),
            raw(b"BDAT %d\r\n" % len(hidden) + hidden),
            raw(b"BDAT %d LAST\r\n" % len(hidden) + hidden),
            say("QUIT"),
        )
        self.attack(steps, "250", "250", "550 5.7.1", "503", "503", "221")

    def test_without_mail(self) -> None:
        """Out of sequence altogether: the same."""
        hidden = b"MAIL FROM:<e@client.test>\r\n"
        steps = (
            say("EHLO client.test"),
            raw(b"BDAT %d LAST\r\n" % len(hidden) + hidden),
            say("QUIT"),
        )
        self.attack(steps, "250", "503", "221")

    def test_data_after_bdat(self) -> None:
        """A message is sent in chunks or with DATA, not half and half."""
        steps = (
            *envelope("a@example.com"),
            raw(b"BDAT 7\r\nfirst\r\n"),
            say("DATA"),
            say("RSET"),
            say("QUIT"),
        )
        self.attack(steps, *OK, "250", "503", "250", "221")

    def test_client_leaves(self) -> None:
        """Half a chunk is no message."""
        for segmentation in SEGMENTATIONS:
            with Wire(self.node.address) as wire:
                wire.hello()
                for command in ("MAIL FROM:<a@client.test>", "RCPT TO:<a@example.com>"):
                    wire.command(command)
                octets = b"BDAT 100 LAST\r\nSubject: half\r\n"
                if segmentation == OCTETS:
                    wire.send_octets(octets)
                else:
                    wire.send(octets)
            self.node.settle()
        self.assertEqual(self.sink.clear(), [])

    def test_chunk_too_large(self) -> None:
        """A chunk above SIZE is swallowed and refused."""
        small = self.gateway(
            smtp="max_message_size = 64K", domains=f"example.com = {self.sink.route}"
        )
        chunk = b"RSET\r\n" * 20_000
        steps = (
            *envelope("a@example.com"),
            raw(b"BDAT %d LAST\r\n" % len(chunk) + chunk),
            say("QUIT"),
        )
        for segmentation in (AS_WRITTEN, ONE_SEGMENT):
            replies = play(small.address, steps, segmentation)
            self.assertEqual([each[:3] for each in replies], ["250"] * 3 + ["552", "221"])


class StartTls(LiveTestCase):
    """What was said in the clear is forgotten once TLS is on."""

    def setUp(self) -> None:
        """A daemon with a certificate."""
        super().setUp()
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.directory = self.temporary_directory()
        self.authority = Authority(self.directory)
        identity = self.authority.identity("mx.test")
        self.node = self.gateway(
            smtp=f"tls_certificate = {identity.certificate}\ntls_key = {identity.key}",
            domains=f"example.com = {self.sink.route}",
        )

    def injected(self, octets: bytes, segmentation: str) -> None:
        """Pipeline ``octets`` behind STARTTLS: they must be as if never sent."""
        with Wire(self.node.address) as wire:
            self.assertIn("STARTTLS", wire.hello())
            sent = b"STARTTLS\r\n" + octets
            if segmentation == OCTETS:
                wire.send_octets(sent)
            elif segmentation == ONE_SEGMENT:
                wire.send(sent)
            else:
                wire.send(b"STARTTLS\r\n")
                wire.send(octets)
            self.assertTrue(wire.reply().startswith("220"))
            try:
                wire.start_tls(self.authority.client_context())
                self.assertTrue(wire.is_silent(0.2), "the injected commands were answered")
                refusal = wire.command("MAIL FROM:<a@client.test>")
                self.assertTrue(refusal.startswith("503"), refusal)
                self.assertNotIn("STARTTLS", wire.command("EHLO client.test"))
                replies = wire.transact(b"Subject: tls\r\n\r\nx\r\n", "a@example.com")
                self.assertTrue(replies[-1].startswith("250"), str(replies))
            except (OSError, Closed):
                return  # Closed at once: the other right answer.
        self.node.settle()
        self.assertEqual([each.recipients for each in self.sink.clear()], [("a@example.com",)])

    def test_injection(self) -> None:
        """Commands in the segment of STARTTLS are not executed inside TLS."""
        octets = b"EHLO y\r\nMAIL FROM:<evil@client.test>\r\nRCPT TO:<v@example.com>\r\n"
        for segmentation in SEGMENTATIONS:
            self.injected(octets, segmentation)

    def test_injected_message(self) -> None:
        """Nor a whole message."""
        octets = b"".join(
            step.octets for step in (*envelope("v@example.com"), *message(b"evil\r\n"))
        )
        for segmentation in SEGMENTATIONS:
            self.injected(octets, segmentation)
        self.node.settle()
        self.assertNotIn(("v@example.com",), [each.recipients for each in self.sink.taken()])

    def test_envelope_is_forgotten(self) -> None:
        """MAIL and RCPT from before the handshake do not count after it."""
        with Wire(self.node.address) as wire:
            wire.hello()
            for command in ("MAIL FROM:<a@client.test>", "RCPT TO:<a@example.com>", "STARTTLS"):
                self.assertIn(wire.command(command)[:3], ("250", "220"))
            wire.start_tls(self.authority.client_context())
            self.assertTrue(wire.command("DATA").startswith("503"))
            self.assertTrue(wire.command("STARTTLS").startswith("503"))
            wire.command("EHLO client.test")
            self.assertTrue(wire.command("RCPT TO:<a@example.com>").startswith("503"))

    def test_trace_tells_of_tls(self) -> None:
        """The Received field says ESMTPS and with which TLS."""
        with Wire(self.node.address) as wire:
            wire.hello()
            wire.command("STARTTLS")
            wire.start_tls(self.authority.client_context())
            wire.command("EHLO client.test")
            wire.transact(b"Subject: tls\r\n\r\nx\r\n", "a@example.com")
        trace = self.sink.wait(1)[0].content.split(b";")[0]
        self.assertRegex(trace, rb"with ESMTPS \(TLSv1\.[23] [A-Z0-9_-]+\)")

    def test_as_a_client(self) -> None:
        """A next hop that writes on behind its 220 is hung up on: somebody injected it."""
        self.sink.tls = self.authority.identity("127.0.0.1").server_context()
        self.sink.after_starttls = b"250-sink.test\r\n250 SIZE 0\r\n"
        node = self.gateway(
            domains=f"example.com = {self.sink.route}",
            delivery=f"tls = required\ntls_ca = {self.authority.path}",
        )
        with Wire(node.address) as wire:
            wire.hello()
            wire.transact(b"Subject: x\r\n\r\nx\r\n", "a@example.com")
        until(lambda: node.status()["counters"]["deferred"], "a deferral", 10, node.tail)
        self.assertEqual(self.sink.taken(), [])
        self.sink.after_starttls = b""
        taken = self.sink.wait(1)
        self.assertTrue(taken[0].tls.startswith("TLSv1"))
