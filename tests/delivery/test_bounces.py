"""Notices: read back by the standard library, whatever peers and senders wrote."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.delivery.bounces import Action, Report, Settings, compose, excerpt_octets, wanted
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage, QueuedMessage
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import MessageId, id_name

SETTINGS = Settings("gate.example", 50_000, 432_000.0)
ORIGINAL = b"From: a@sender.example\r\nSubject: Hello\r\nX-Long: a\r\n b\r\n\r\nHi!\r\n"
ARRIVED = 1_790_000_000.0
NOW = ARRIVED + 100_000
ID = MessageId(7_320_000_000_000_000_123)
HOP = "mx.example.net[192.0.2.1]:25"


def envelope(**more: Any) -> Envelope:
    """Return an envelope."""
    sender = more.pop("sender", "a@sender.example")
    return Envelope(sender, (), **more)


def report(
    action: Action = Action.FAILED,
    mailbox: str = "b@example.com",
    answer: str = "550 5.1.1 No such user",
    **more: Any,
) -> Report:
    """Return a report on one recipient."""
    recipient = Recipient(
        mailbox, mailbox.rpartition("@")[2], more.pop("notify", ""), more.pop("orcpt", "")
    )
    given = {"status": "5.1.1", "next_hop": HOP, "attempted": NOW - 10} | more
    return Report(recipient, action, answer=answer, **given)


def notice(
    *reports: Report,
    original: bytes = ORIGINAL,
    size: int = 50_000,
    **more: Any,
) -> NewMessage:
    """Return the notice about ``original``."""
    message = QueuedMessage(
        MessageId(1), envelope(**more), Arrival(), ARRIVED, MemoryBody([original]), "", []
    )
    excerpt = original[: excerpt_octets(size)]
    kept = Settings("gate.example", size, 432_000.0)
    return compose(message, excerpt, reports or (report(),), ID, NOW, kept)


def content(new: NewMessage) -> bytes:
    """Return the octets of a notice."""
    return b"".join(new.body.pieces())


def parsed(new: NewMessage) -> tuple[Message, list[Message]]:
    """Return the notice as the standard library reads it, and its three parts."""
    message = message_from_bytes(content(new))
    parts = message.get_payload()
    assert isinstance(parts, list)
    return message, parts


def groups(part: Message) -> list[Message]:
    """Return the groups of fields of a delivery-status."""
    payload = part.get_payload()
    assert isinstance(payload, list)
    if part.get_content_type() == "message/delivery-status":
        return payload
    # The standard library takes message/global-delivery-status for a message: its first
    # group is the header section, the others are the text.
    (whole,) = payload
    text = whole.get_payload()
    assert isinstance(text, str)
    octets = text.encode().replace(b"\r\n", b"\n").strip(b"\n")
    return [whole, *(message_from_bytes(group) for group in octets.split(b"\n\n"))]


class StructureTests(SynchronousTestCase):
    """The parts of a notice and their fields."""

    def test_envelope(self) -> None:
        """The null reverse-path, to the sender, never to be notified of."""
        new = notice()
        self.assertEqual(new.envelope.reverse_path, "")
        self.assertEqual(
            new.envelope.recipients, (Recipient("a@sender.example", "sender.example", "NEVER"),)
        )
        self.assertEqual((new.id, new.arrived, new.due), (ID, NOW, NOW))
        self.assertEqual(new.body.octets, len(content(new)))
        self.assertTrue(new.body.in_memory)
        self.assertFalse(new.envelope.smtputf8 or new.envelope.eight_bit)

    def test_head(self) -> None:
        """The header section that RFC 3464 and RFC 3834 ask for."""
        message, parts = parsed(notice())
        self.assertEqual(message["From"], "Mail Delivery System <MAILER-DAEMON@gate.example>")
        self.assertEqual(message["To"], "<a@sender.example>")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message["Message-ID"], f"<{id_name(ID)}@gate.example>")
        self.assertEqual(message["Date"], "Tue, 22 Sep 2026 18:00:00 +0000")
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(
            [part.get_content_type() for part in parts],
            ["text/plain", "message/delivery-status", "message/rfc822"],
        )
        self.assertEqual(message.defects, [])

    def test_status_fields(self) -> None:
        """Every field of RFC 3464 that we know something for."""
        orcpt = "rfc822;Joe+2BDoe@old.example"
        _, parts = parsed(notice(report(orcpt=orcpt), envid="QQ+3D1"))
        whole, one = groups(parts[1])
        self.assertEqual(
            whole.items(),
            [
                ("Reporting-MTA", "dns; gate.example"),
                ("Original-Envelope-Id", "QQ=1"),
                ("Arrival-Date", "Mon, 21 Sep 2026 14:13:20 +0000"),
            ],
        )
        self.assertEqual(
            one.items(),
            [
                ("Original-Recipient", "rfc822; Joe+Doe@old.example"),
                ("Final-Recipient", "rfc822; b@example.com"),
                ("Action", "failed"),
                ("Status", "5.1.1"),
                ("Remote-MTA", "dns; mx.example.net"),
                ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
                ("Last-Attempt-Date", "Tue, 22 Sep 2026 17:59:50 +0000"),
            ],
        )

    def test_delayed(self) -> None:
        """A delay says until when we try, and returns the header section only."""
        message, parts = parsed(notice(report(Action.DELAYED, answer="451 Busy", status="4.0.0")))
        _, one = groups(parts[1])
        self.assertEqual(message["Subject"], "Your message is delayed")
        self.assertEqual(one["Action"], "delayed")
        self.assertEqual(one["Will-Retry-Until"], "Sat, 26 Sep 2026 14:13:20 +0000")
        self.assertEqual(parts[2].get_content_type(), "text/rfc822-headers")

    def test_nobody_answered(self) -> None:
        """What we made up ourselves is not said to be somebody's reply."""
        _, parts = parsed(notice(report(next_hop="", attempted=0.0)))
        _, one = groups(parts[1])
        self.assertNotIn("Remote-MTA", one)
        self.assertNotIn("Last-Attempt-Date", one)
        self.assertEqual(one["Diagnostic-Code"], "x-mailsecure; 550 5.1.1 No such user")
        _, parts = parsed(notice(report(next_hop="maildir:/var/mail/x", answer="")))
        self.assertNotIn("Remote-MTA", groups(parts[1])[1])
        self.assertNotIn("Diagnostic-Code", groups(parts[1])[1])

    def test_several(self) -> None:
        """All recipients stand in one notice, under what became of them."""
        reports = [
            report(Action.RELAYED, "r@x.example", "250 OK", status="2.0.0"),
            report(Action.DELIVERED, "d@x.example", "250 OK", status="2.0.0"),
            report(Action.FAILED, "f@x.example"),
            report(Action.DELAYED, "w@x.example", "451 Busy", status="4.0.0"),
        ]
        message, parts = parsed(notice(*reports))
        self.assertEqual(message["Subject"], "Your message could not be delivered")
        actions = [group["Action"] for group in groups(parts[1])[1:]]
        self.assertEqual(actions, ["relayed", "delivered", "failed", "delayed"])
        text = parts[0].get_payload()
        assert isinstance(text, str)
        places = [text.index(f"<{letter}@x.example>") for letter in "fwdr"]
        self.assertEqual(places, sorted(places))
        self.assertIn("mx.example.net said: 550 5.1.1 No such user", text)

    def test_boundary_in_the_original(self) -> None:
        """A sender who guesses the boundary gains nothing."""
        guess = f"=_{id_name(ID)}".encode()
        original = b"Subject: x\r\n\r\n--" + guess + b"--\r\n--" + guess + b"=--\r\n"
        _, parts = parsed(notice(original=original))
        self.assertEqual(len(parts), 3)
        self.assertIn(original, content(notice(original=original)))


class OriginalTests(SynchronousTestCase):
    """How much of the original goes back."""

    def kind(self, **more: Any) -> str:
        """Return the type of the third part."""
        return parsed(notice(**more))[1][2].get_content_type()

    def test_whole(self) -> None:
        """A small original goes back octet for octet."""
        self.assertIn(b"\r\n\r\n" + ORIGINAL + b"\r\n--", content(notice()))

    def test_header_section(self) -> None:
        """Where RET says HDRS, or the original is too large."""
        large = ORIGINAL + b"x" * 998 * 60 + b"\r\n"
        for new in (notice(ret="HDRS"), notice(original=large)):
            self.assertEqual(parsed(new)[1][2].get_content_type(), "text/rfc822-headers")
            self.assertIn(b"X-Long: a\r\n b\r\n\r\n--=_", content(new))
            self.assertNotIn(b"Hi!", content(new))

    def test_small_bounce_size(self) -> None:
        """The header section goes back whatever ``bounce_size`` is, up to a bound."""
        new = notice(size=0)
        self.assertIn(b"Subject: Hello\r\n", content(new))
        self.assertNotIn(b"Hi!", content(new))
        endless = b"X-A: " + b"a" * 70 + b"\r\n"
        self.assertLess(len(content(notice(original=endless * 1000, size=100))), 20_000)

    def test_no_header_section(self) -> None:
        """An original without header fields, or without any whole line."""
        for original in (b"\r\nBody\r\n", b"x" * 60_000):
            part = parsed(notice(original=original, ret="HDRS"))[1][2]
            self.assertEqual(part.get_payload(), "")

    def test_unread(self) -> None:
        """An original that could not be read is left out."""
        message = QueuedMessage(
            MessageId(1), envelope(), Arrival(), ARRIVED, MemoryBody([ORIGINAL]), "", []
        )
        new = compose(message, b"", [report()], ID, NOW, SETTINGS)
        self.assertEqual(parsed(new)[1][2].get_content_type(), "text/rfc822-headers")

    def test_eight_bit(self) -> None:
        """An original with 8-bit octets makes the notice an 8-bit message."""
        new = notice(original=b"Subject: x\r\n\r\n\xfcber\r\n")
        message, parts = parsed(new)
        self.assertTrue(new.envelope.eight_bit)
        self.assertFalse(new.envelope.smtputf8)
        self.assertEqual(message["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(parts[2]["Content-Transfer-Encoding"], "8bit")
        self.assertEqual(parts[2].get_content_type(), "message/rfc822")

    def test_international(self) -> None:
        """RFC 6533: the forms for addresses and header sections that are not ASCII."""
        original = "Subject: für\r\n\r\nx\r\n".encode()
        new = notice(
            report(mailbox="jörg@example.com"),
            original=original,
            smtputf8=True,
            sender="änn@sender.example",
        )
        self.assertTrue(new.envelope.smtputf8 and new.envelope.eight_bit)
        _, parts = parsed(new)
        kinds = ["text/plain", "message/global-delivery-status", "message/global"]
        self.assertEqual([part.get_content_type() for part in parts], kinds)
        text = content(new)
        self.assertIn("Final-Recipient: utf-8; jörg@example.com\r\n".encode(), text)
        self.assertIn("To: <änn@sender.example>\r\n".encode(), text)
        headers = parsed(notice(original=original, smtputf8=True, ret="HDRS"))[1][2]
        self.assertEqual(headers.get_content_type(), "message/global-headers")

    def test_ascii_form(self) -> None:
        """In the older form what is not ASCII is escaped."""
        text = content(notice(report(answer="550 kein Empfänger", orcpt="rfc822;j+F6rg@x")))
        self.assertIn(b"Diagnostic-Code: smtp; 550 kein Empf\\x{E4}nger\r\n", text)
        self.assertIn(b"Original-Recipient: rfc822; j\\x{F6}rg@x\r\n", text)
        self.assertIn("550 kein Empfänger".encode(), text)


class WantedTests(SynchronousTestCase):
    """Who asked for what (RFC 3461 §4.1)."""

    def test_notify(self) -> None:
        """NOTIFY decides; without it failures and delays are told."""
        for notify, expected in (
            ("", (True, True, False, False)),
            ("NEVER", (False, False, False, False)),
            ("SUCCESS", (False, False, True, True)),
            ("FAILURE", (True, False, False, False)),
            ("SUCCESS,FAILURE,DELAY", (True, True, True, True)),
        ):
            told = tuple(wanted(report(action, notify=notify)) for action in Action)
            self.assertEqual(told, expected, notify)


local = st.text(min_size=1, max_size=64)
hostile = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        [
            "550 x\r\nBcc: evil@x\r\n\r\nbody",
            "550 \n--=_" + id_name(ID) + "--",
            "a" * 5000,
            "\u2028Action: delivered",
            "\x85Status: 2.0.0",
            "\ud800",
            "",
        ]
    ),
)


class HostileTests(SynchronousTestCase):
    """Whatever stands in replies, addresses and the original, the structure holds."""

    @settings(max_examples=300, deadline=None)
    @given(hostile, local, local, hostile, st.binary(max_size=300), st.booleans())
    def test_structure(
        self,
        answer: str,
        recipient: str,
        sender: str,
        orcpt: str,
        original: bytes,
        headers: bool,
    ) -> None:
        """Three parts, one group a recipient, exactly our fields, no line too long."""
        one = report(
            mailbox=f"{recipient}@example.com",
            answer=answer,
            orcpt=f"rfc822;{orcpt}",
            next_hop=f"{recipient}[192.0.2.1]:25",
        )
        new = notice(
            one,
            report(Action.DELAYED),
            original=original,
            sender=f"{sender}@x.example",
            envid=orcpt,
            ret="HDRS" if headers else "",
        )
        text = content(new)
        head, _, rest = text.partition(b"\r\n\r\n")
        fields = [line.partition(b":")[0] for line in head.split(b"\r\n")]
        expected = [b"Date", b"From", b"To", b"Subject", b"Message-ID", b"Auto-Submitted"]
        self.assertEqual(fields[:6], expected)
        self.assertIn(len(fields), (9, 10))
        message, parts = parsed(new)
        self.assertEqual(len(parts), 3)
        mark = message.get_boundary()
        assert mark is not None
        before = rest.split(b"--" + mark.encode())[2]
        self.assertTrue(all(len(line) <= 998 for line in before.split(b"\r\n")))
        self.assertNotIn(b"\n", before.replace(b"\r\n", b""))
        self.assertNotIn(b"\r", before.replace(b"\r\n", b""))
        kinds = groups(parts[1])
        self.assertEqual(len(kinds), 3)
        self.assertEqual(kinds[1].get_all("Action"), ["failed"])
        self.assertEqual(kinds[1].get_all("Status"), ["5.1.1"])
        self.assertEqual(kinds[2].get_all("Action"), ["delayed"])
        self.assertEqual(new.envelope.eight_bit, not text.isascii())
