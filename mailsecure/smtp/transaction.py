"""What a client wants of a server, what the server can, and the commands (pure).

A :class:`Transaction` is one MAIL with its recipients; :class:`Capabilities` is what
the server's answer to EHLO (or LHLO) promised; :class:`Result` says what became of each
recipient.  :func:`mail_command` and :func:`rcpt_command` write the two commands, with
just those parameters that were offered (RFC 5321 §4.1.1, RFC 1870, 3461, 6152, 6531).

The addresses are canonical text of our own (see :mod:`.envelope`); :func:`encoded`
makes sure all the same that a group of commands holds as many lines as were written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import LocalFault
from .envelope import Recipient
from .replies import Reply

__all__ = [
    "Capabilities",
    "Result",
    "Transaction",
    "encoded",
    "mail_command",
    "parse_capabilities",
    "rcpt_command",
]

_MAX_DIGITS = 18


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server offers.  Numbers are 0 where it names no limit."""

    pipelining: bool = False
    #: The largest message, in octets; -1 where SIZE is not offered.
    size: int = -1
    eight_bit: bool = False
    smtputf8: bool = False
    dsn: bool = False
    starttls: bool = False
    #: RFC 9422: recipients in one transaction, transactions in one session.
    rcpt_max: int = 0
    mail_max: int = 0


def parse_capabilities(reply: Reply) -> Capabilities:
    """Read the answer to EHLO (RFC 5321 §4.1.1.1); what is not understood is ignored."""
    words: dict[str, list[str]] = {}
    for line in reply.text.split("\n")[1:]:
        keyword, *parameters = line.split() or [""]
        words[keyword.upper()] = parameters
    limits = dict(word.upper().partition("=")[::2] for word in words.get("LIMITS", []))
    return Capabilities(
        pipelining="PIPELINING" in words,
        size=_number(words["SIZE"]) if "SIZE" in words else -1,
        eight_bit="8BITMIME" in words,
        smtputf8="SMTPUTF8" in words,
        dsn="DSN" in words,
        starttls="STARTTLS" in words,
        rcpt_max=_number([limits.get("RCPTMAX", "")]),
        mail_max=_number([limits.get("MAILMAX", "")]),
    )


def _number(parameters: Sequence[str]) -> int:
    text = parameters[0] if parameters else ""
    if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS:
        return int(text)
    return 0


@dataclass(slots=True)
class Transaction:
    """One message, or the question whether a mailbox exists (``probe``: no DATA)."""

    reverse_path: str
    recipients: Sequence[Recipient]
    octets: int = 0
    eight_bit: bool = False
    #: Ask for SMTPUTF8 where it is offered.
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    probe: bool = False


@dataclass(slots=True)
class Result:
    """How a transaction ended: one reply a recipient, in their order.

    The reply is the one that settled the recipient's fate: that to its RCPT where that
    refused it, else that to MAIL, DATA or the final dot.  Where the connection was lost
    it is a 4xx that was made up here.
    """

    replies: list[Reply]
    #: The server takes care of DSNs itself.
    dsn: bool = False
    #: Indices of recipients whose RCPT was accepted.
    accepted: list[int] = field(default_factory=list)
    #: Nothing was answered but, perhaps, 421: a stale connection, if it was used before.
    untouched: bool = False
    #: The trouble is with this server now, not with the message: another may take it.
    elsewhere: bool = False
    #: It was MAIL that was refused: no recipient was looked at.
    mail_refused: bool = False


def mail_command(transaction: Transaction, offered: Capabilities) -> str:
    """Return MAIL with its parameters, CRLF included."""
    command = f"MAIL FROM:<{transaction.reverse_path}>"
    if offered.size >= 0 and transaction.octets:
        command += f" SIZE={transaction.octets}"
    if transaction.eight_bit and offered.eight_bit:
        command += " BODY=8BITMIME"
    if transaction.smtputf8 and offered.smtputf8:
        command += " SMTPUTF8"
    if offered.dsn:
        if transaction.ret:
            command += f" RET={transaction.ret}"
        if transaction.envid:
            command += f" ENVID={transaction.envid}"
    return command + "\r\n"


def rcpt_command(recipient: Recipient, offered: Capabilities) -> str:
    """Return RCPT with its parameters, CRLF included."""
    if not offered.dsn or not (recipient.notify or recipient.orcpt):
        return f"RCPT TO:<{recipient.mailbox}>\r\n"
    command = f"RCPT TO:<{recipient.mailbox}>"
    if recipient.notify:
        command += f" NOTIFY={recipient.notify}"
    if recipient.orcpt:
        command += f" ORCPT={recipient.orcpt}"
    return command + "\r\n"


def encoded(commands: Iterable[str], count: int) -> bytes:
    """Return ``count`` commands as octets; LocalFault if they would be read as more."""
    octets = "".join(commands).encode()
    newlines = octets.count(b"\r\n")
    if newlines != count or octets.count(b"\n") != count or octets.count(b"\r") != count:
        raise LocalFault("a command would hold a line end")
    if b"\0" in octets:
        raise LocalFault("a command would hold a NUL")
    return octets
