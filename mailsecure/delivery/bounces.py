"""Delivery status notifications: what a sender is told of a message (pure).

A notice is a multipart/report (RFC 6522) of a text for people, a delivery-status for
programs (RFC 3464), and the original or its header section.  Who may get one, and of
what, is RFC 3461's: never a null reverse-path (so a bounce never bounces), nothing where
NOTIFY=NEVER, failure and delay where NOTIFY is silent, the original only where something
failed and RET does not say HDRS.  Where an address is not ASCII the forms of RFC 6533
are used.

One notice tells of all recipients of one attempt, whatever became of each.

**Nothing from outside becomes structure.**  Addresses, replies of other hosts and what
xtext decodes to go through :func:`_clean`: one line, no controls, bounded.  The original
is embedded octet for octet behind a boundary that does not occur in it.  No address or
reply ever stands in the header section but the sender's own, in To.

Called by :mod:`.notices`, which has read the original and drawn the id.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from enum import Enum

from ..smtp.envelope import Arrival, Envelope, Recipient
from ..spool.ids import MessageId, id_name
from ..spool.values import NewMessage, QueuedMessage
from ..units import format_seconds

__all__ = ["Action", "Report", "compose", "excerpt_octets", "wanted"]

#: How much of a header section is returned even where ``bounce_size`` is less.
HEADER_OCTETS = 16 << 10
#: RFC 5322 §2.1.1 allows 998 octets a line; field names take the rest.
_MAX_VALUE = 900
_XTEXT = re.compile(r"\+([0-9A-F]{2})")


class Action(Enum):
    """What became of a recipient (RFC 3464 §2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Report:
    """One recipient of a notice.

    ``status`` is an enhanced status code of the right class, ``answer`` the last reply
    as one line, ``next_hop`` who gave it (see :class:`.api.Outcome`), "" if nobody did.
    ``attempted`` is the Unix time of the attempt, 0 if there was none.
    """

    recipient: Recipient
    action: Action
    status: str
    answer: str
    next_hop: str = ""
    attempted: float = 0.0


_ASKED_BY = {
    Action.FAILED: "FAILURE",
    Action.DELAYED: "DELAY",
    Action.DELIVERED: "SUCCESS",
    Action.RELAYED: "SUCCESS",
}


def wanted(report: Report) -> bool:
    """Say whether NOTIFY asks for ``report`` (RFC 3461 §4.1)."""
    notify = report.recipient.notify or "FAILURE,DELAY"
    return _ASKED_BY[report.action] in notify


def excerpt_octets(bounce_size: int) -> int:
    """Return how many octets of an original :func:`compose` wants to see at most."""
    return max(bounce_size, HEADER_OCTETS)


@dataclass(frozen=True, slots=True)
class _Text:
    """A body that was made here."""

    content: bytes

    in_memory = True

    @property
    def octets(self) -> int:
        return len(self.content)

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        return iter((self.content,))


@dataclass(frozen=True, slots=True)
class Settings:
    """``hostname`` is ours; ``bounce_size`` and ``expire`` are of [delivery]."""

    hostname: str
    bounce_size: int
    expire: float


def compose(
    message: QueuedMessage,
    excerpt: bytes,
    reports: Sequence[Report],
    id: MessageId,
    now: float,
    settings: Settings,
) -> NewMessage:
    """Return the notice about ``message``, whose reverse-path is not null.

    ``excerpt`` is the beginning of its body, of :func:`excerpt_octets` octets or all of
    it; ``reports`` are those that are wanted, at least one; ``id`` is the notice's.
    """
    envelope = message.envelope
    sender = envelope.reverse_path
    name = id_name(id)
    utf8 = not all(_is_ascii(report) for report in reports)
    parts = [
        _text_part(_explanation(message, reports, settings)),
        _status_part(_status_fields(message, reports, settings, utf8), utf8),
        _original_part(message, excerpt, reports, settings),
    ]
    boundary = _boundary(name, parts)
    to_field = _clean(sender, True)
    eight_bit = not (to_field.isascii() and all(part.isascii() for part in parts))
    head = _head(to_field, name, now, settings.hostname, reports, boundary, eight_bit)
    mark = f"--{boundary}\r\n".encode()
    content = b"".join(
        [
            head,
            b"This is a delivery status notification in MIME format.\r\n",
            *(b"\r\n" + mark + part for part in parts),
            f"\r\n--{boundary}--\r\n".encode(),
        ]
    )
    to = Recipient(sender, sender.rpartition("@")[2], "NEVER")
    notice = Envelope("", (to,), eight_bit=eight_bit, smtputf8=not sender.isascii())
    return NewMessage(id, notice, Arrival(), now, _Text(content), now)


# -- pieces of text


def _clean(text: str, utf8: bool) -> str:
    """Return ``text`` as it may stand behind the name of a field.

    What cannot be seen becomes ``?``; without ``utf8`` what is not ASCII becomes
    ``\\x{..}`` (RFC 6533 §3).
    """
    if not (text.isascii() and text.isprintable()):
        text = "".join(
            "?"
            if not letter.isprintable()
            else (letter if utf8 or letter.isascii() else f"\\x{{{ord(letter):02X}}}")
            for letter in text
        )
    return text.encode()[:_MAX_VALUE].decode("utf-8", "ignore")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _date(unix: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(unix), UTC))


def _xtext(text: str) -> str:
    """Decode xtext (RFC 3461 §4); each pair stands for one character."""
    return _XTEXT.sub(lambda match: chr(int(match[1], 16)), text)


def _is_ascii(report: Report) -> bool:
    return report.recipient.mailbox.isascii() and report.recipient.orcpt.isascii()


def _host(next_hop: str) -> str:
    """Return the host's name of ``mx.example.net[192.0.2.1]:25``; "" for a path."""
    return "" if "/" in next_hop else next_hop.partition("[")[0] or next_hop.rpartition(":")[0]


def _boundary(name: str, parts: Sequence[bytes]) -> str:
    """Return a boundary that occurs in none of ``parts``, whatever a sender put there."""
    boundary = f"=_{name}"
    while any(boundary.encode() in part for part in parts):
        boundary += "="
    return boundary


# -- the header section

_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.DELIVERED: "Your message was delivered",
    Action.RELAYED: "Your message was passed on",
}


def _head(
    to_field: str,
    name: str,
    now: float,
    hostname: str,
    reports: Sequence[Report],
    boundary: str,
    eight_bit: bool,
) -> bytes:
    """Return the header section with the empty line behind it."""
    # The order of Action is the order of importance.
    subject = next(_SUBJECTS[action] for action in Action if _of(reports, action))
    lines = [
        f"Date: {_date(now)}",
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{to_field}>",
        f"Subject: {subject}",
        f"Message-ID: <{name}@{hostname}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary}"',
    ]
    if eight_bit:
        lines.append("Content-Transfer-Encoding: 8bit")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _of(reports: Sequence[Report], action: Action) -> list[Report]:
    return [report for report in reports if report.action is action]


# -- the text for people


def _explanation(message: QueuedMessage, reports: Sequence[Report], settings: Settings) -> str:
    lines = [
        f"This is the mail server {settings.hostname}.",
        "",
        f"It writes about the message that you sent it on {_date(message.arrived)}.",
    ]
    for action in Action:
        some = _of(reports, action)
        if some:
            until = _date(message.arrived + settings.expire)
            lines += ["", *textwrap.wrap(_said(action, until, settings), 72)]
            for report in some:
                lines += ["", *_about(report)]
    return "".join(f"{line}\r\n" for line in lines)


def _said(action: Action, until: str, settings: Settings) -> str:
    if action is Action.FAILED:
        return (
            "It could not be delivered to the following addresses, and will not be tried"
            " again. The answer under each address says why. Your message, or its header"
            " section, is attached."
        )
    if action is Action.DELAYED:
        return (
            "It could not be delivered to the following addresses yet. You need not do"
            f" anything: we go on trying until {until}, {format_seconds(settings.expire)}"
            " after it came, and tell you if that is in vain."
        )
    if action is Action.DELIVERED:
        return "It was delivered to the following addresses, as you asked to be told."
    return (
        "It was passed on to servers that will not report what becomes of it for the"
        " following addresses. You asked to be told of success; this is all that we know."
    )


def _about(report: Report) -> list[str]:
    host = _host(report.next_hop)
    who = f"{_clean(host, True)} said: " if host else ""
    answer = _clean(_one_line(report.answer), True)
    return [
        f"  <{_clean(report.recipient.mailbox, True)}>",
        *textwrap.wrap(
            who + answer, 72, initial_indent="      ", subsequent_indent="      ",
            break_on_hyphens=False,
        ),
    ]  # fmt: skip


def _text_part(text: str) -> bytes:
    charset, encoding = ("us-ascii", "7bit") if text.isascii() else ("utf-8", "8bit")
    return (
        f"Content-Type: text/plain; charset={charset}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n{text}"
    ).encode()


# -- the delivery-status (RFC 3464 §2)


def _status_fields(
    message: QueuedMessage, reports: Sequence[Report], settings: Settings, utf8: bool
) -> str:
    fields = [("Reporting-MTA", f"dns; {settings.hostname}")]
    if message.envelope.envid:
        fields.append(("Original-Envelope-Id", _xtext(message.envelope.envid)))
    fields.append(("Arrival-Date", _date(message.arrived)))
    groups = [fields]
    groups += [_recipient_fields(message, report, settings) for report in reports]
    return "\r\n".join(
        "".join(f"{name}: {_clean(value, utf8)}\r\n" for name, value in group) for group in groups
    )


def _recipient_fields(
    message: QueuedMessage, report: Report, settings: Settings
) -> list[tuple[str, str]]:
    mailbox, orcpt = report.recipient.mailbox, report.recipient.orcpt
    fields = []
    if orcpt:
        kind, _, address = orcpt.partition(";")
        address = _xtext(address) if kind.lower() == "rfc822" else address
        fields.append(("Original-Recipient", f"{kind}; {address}"))
    kind = "rfc822" if mailbox.isascii() else "utf-8"
    fields += [
        ("Final-Recipient", f"{kind}; {mailbox}"),
        ("Action", report.action.value),
        ("Status", report.status),
    ]
    host = _host(report.next_hop)
    if host:
        fields.append(("Remote-MTA", f"dns; {host}"))
    if report.answer:
        kind = "smtp" if host else "x-mailsecure"
        fields.append(("Diagnostic-Code", f"{kind}; {_one_line(report.answer)}"))
    if report.attempted:
        fields.append(("Last-Attempt-Date", _date(report.attempted)))
    if report.action is Action.DELAYED:
        fields.append(("Will-Retry-Until", _date(message.arrived + settings.expire)))
    return fields


def _status_part(fields: str, utf8: bool) -> bytes:
    head = (
        "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n"
        if utf8
        else "Content-Type: message/delivery-status\r\n"
    )
    return f"{head}\r\n{fields}".encode()


# -- the original


def _original_part(
    message: QueuedMessage, excerpt: bytes, reports: Sequence[Report], settings: Settings
) -> bytes:
    """Return the original if it may go back whole, else its header section."""
    envelope, octets = message.envelope, message.body.octets
    whole = (
        envelope.ret != "HDRS"
        and octets <= settings.bounce_size
        and len(excerpt) == octets
        and bool(_of(reports, Action.FAILED))
    )
    content = excerpt if whole else _header_section(excerpt)
    eight_bit = not content.isascii()
    if eight_bit and envelope.smtputf8:
        kind = "message/global" if whole else "message/global-headers"
    else:
        kind = "message/rfc822" if whole else "text/rfc822-headers"
    encoding = "8bit" if eight_bit else "7bit"
    head = f"Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


def _header_section(excerpt: bytes) -> bytes:
    """Return the header section; where its end is not in sight, the whole lines of it."""
    if excerpt.startswith(b"\r\n"):
        return b""
    end = excerpt.find(b"\r\n\r\n")
    if end < 0:
        end = excerpt.rfind(b"\r\n")
    return excerpt[: end + 2] if end >= 0 else b""
