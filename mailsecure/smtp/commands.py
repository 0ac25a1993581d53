"""The arguments of EHLO, MAIL, RCPT and BDAT, and what EHLO offers (pure).

Between :mod:`.grammar` (characters) and :mod:`.server` (sequence): here stands what
each parameter means.  A parser returns its values or the :class:`Reply` that refuses
the command, because the extension standards name the codes: 555 for an unknown
parameter (RFC 5321 §4.1.1.11), 552 for a declared size too large (RFC 1870 §6.1),
501 for bad syntax.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import RemoteFault
from .envelope import Recipient
from .grammar import Path, parse_parameters, parse_path, valid_xtext
from .replies import Reply

__all__ = ["MAX_COMMAND", "Offer", "clean_helo", "parse_bdat", "parse_mail", "parse_rcpt"]

#: RFC 5321 §4.5.3.1.4 asks for 512, the extensions for some 1,200 more.
MAX_COMMAND = 2048

_HELO = re.compile(rb"[!-~]{1,255}")
_BDAT = re.compile(rb"(\d{1,12})(?: +(LAST))?", re.IGNORECASE)
_NOTIFY_WORDS = ("SUCCESS", "FAILURE", "DELAY")

#: (path, size, eight_bit, smtputf8, ret, envid)
MailArguments = tuple[Path, int, bool, bool, str, str]


@dataclass(frozen=True, slots=True)
class Offer:
    """What this server can do, as EHLO says it; ``max_octets`` is SIZE's figure."""

    hostname: str
    max_octets: int
    max_line: int
    max_recipients: int
    max_transactions: int
    starttls: bool

    def keywords(self, tls: bool) -> tuple[str, ...]:
        """Return the lines after the first of the answer to EHLO."""
        always = (
            "PIPELINING",
            f"SIZE {self.max_octets}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "DSN",
            "CHUNKING",
            f"LIMITS RCPTMAX={self.max_recipients} MAILMAX={self.max_transactions}",
            "HELP",
        )
        return (*always, "STARTTLS") if self.starttls and not tls else always


def _syntax(fault: object) -> Reply:
    return Reply(501, "5.5.4", str(fault))


def _unknown(keyword: str) -> Reply:
    return Reply(555, "5.5.4", f"Parameter not offered: {keyword}")


def clean_helo(argument: bytes) -> str:
    """Return the name that a client gave itself, or "" where it is no printable word.

    Any word will do: RFC 5321 §4.1.4 forbids refusing mail for a wrong name, and
    what it is worth is for policy to say.
    """
    return argument.decode("ascii") if _HELO.fullmatch(argument) else ""


def parse_mail(argument: bytes, offer: Offer) -> MailArguments | Reply:
    """Read ``FROM:<reverse-path> parameters``."""
    utf8 = not argument.isascii() and b"SMTPUTF8" in argument.upper()
    try:
        path, rest = parse_path(argument, b"FROM:", utf8)
        if path[0] and not path[2]:
            return Reply(501, "5.1.7", "Reverse-path needs a domain")
        parameters = parse_parameters(rest, utf8)
    except RemoteFault as fault:
        return _syntax(fault)
    if not parameters:
        return path, 0, False, False, "", ""
    return _mail_parameters(path, parameters, offer)


def _mail_parameters(path: Path, given: dict[str, str], offer: Offer) -> MailArguments | Reply:
    size, eight_bit, smtputf8, ret, envid = 0, False, False, "", ""
    for keyword, value in given.items():
        if keyword == "SIZE":
            if not (value.isascii() and value.isdigit() and len(value) <= 20):
                return _syntax("Syntax: SIZE=octets")
            size = int(value)
            if size > offer.max_octets:
                return Reply(552, "5.3.4", f"Message larger than {offer.max_octets} octets")
        elif keyword == "BODY":
            if value.upper() not in ("7BIT", "8BITMIME"):
                return _syntax("Syntax: BODY=7BIT or BODY=8BITMIME")
            eight_bit = value.upper() == "8BITMIME"
        elif keyword == "SMTPUTF8" and not value:
            smtputf8 = True
        elif keyword == "RET":
            ret = value.upper()
            if ret not in ("FULL", "HDRS"):
                return _syntax("Syntax: RET=FULL or RET=HDRS")
        elif keyword == "ENVID":
            envid = value
            if len(envid) > 100 or not valid_xtext(envid):
                return _syntax("Syntax: ENVID=xtext")
        else:
            return _unknown(keyword)
    return path, size, eight_bit, smtputf8, ret, envid


def parse_rcpt(argument: bytes, utf8: bool) -> tuple[Recipient, str] | Reply:
    """Read ``TO:<forward-path> parameters``; returns the recipient and its local part.

    Only ``<postmaster>`` may lack a domain (RFC 5321 §4.5.1).
    """
    try:
        (mailbox, local, domain), rest = parse_path(argument, b"TO:", utf8)
        parameters = parse_parameters(rest, utf8)
    except RemoteFault as fault:
        return _syntax(fault)
    if not mailbox:
        return Reply(501, "5.1.3", "Forward-path cannot be empty")
    if not domain and local.lower() != "postmaster":
        return Reply(501, "5.1.3", "Forward-path needs a domain")
    if not parameters:
        return Recipient(mailbox, domain), local
    return _rcpt_parameters(mailbox, local, domain, parameters)


def _rcpt_parameters(
    mailbox: str, local: str, domain: str, given: dict[str, str]
) -> tuple[Recipient, str] | Reply:
    notify, orcpt = "", ""
    for keyword, value in given.items():
        if keyword == "NOTIFY":
            words = value.upper().split(",")
            if words == ["NEVER"]:
                notify = "NEVER"
            elif all(word in _NOTIFY_WORDS for word in words):
                notify = ",".join(word for word in _NOTIFY_WORDS if word in words)
            else:
                return _syntax("Syntax: NOTIFY=NEVER or NOTIFY=SUCCESS,FAILURE,DELAY")
        elif keyword == "ORCPT":
            kind, mark, address = value.partition(";")
            if not (mark and kind.replace("-", "").isalnum() and len(value) <= 500):
                return _syntax("Syntax: ORCPT=type;address")
            if kind.lower() == "rfc822" and not valid_xtext(address):
                return _syntax("Syntax: ORCPT=rfc822;xtext")
            orcpt = value
        else:
            return _unknown(keyword)
    return Recipient(mailbox, domain, notify, orcpt), local


def parse_bdat(argument: bytes) -> tuple[int, bool] | Reply:
    """Read ``octets [LAST]`` (RFC 3030 §2)."""
    match = _BDAT.fullmatch(argument)
    if match is None:
        return _syntax("Syntax: BDAT octets [LAST]")
    return int(match[1]), match[2] is not None
