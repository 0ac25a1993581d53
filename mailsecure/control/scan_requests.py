"""The request ``scan``: the verdict on a file, with the running daemon's settings.

The file comes as a descriptor beside the request (SCM_RIGHTS), so its size is no matter and
the daemon need not be allowed to open it; it has to be a regular file, or memory that looks
like one.  Arguments: ``client`` (an IP address; "" for one of ours), ``helo``, ``sender``,
``recipients`` (mailboxes).  The answer is that of :mod:`mailsecure.scan.rehearsing`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any

from ..errors import RemoteFault
from ..gateway.trace import MAX_HEADER, header_section
from ..scan.rehearsing import Rehearsal
from ..smtp.envelope import Recipient
from ..smtp.grammar import parse_path
from ..spool.body import FileBody
from .wire import Kind, Refusal, only

__all__ = ["ScanRequests"]

_MOST_RECIPIENTS = 100
_OURS = "127.0.0.1"


class ScanRequests:
    """Answers ``scan``.  ``rehearse`` is None where nothing is scanned.

    ``trusted`` says of an address whether it is in ``[relay] networks``.
    """

    def __init__(
        self,
        rehearse: Callable[[Rehearsal], Awaitable[dict[str, Any]]] | None,
        trusted: Callable[[str], bool],
    ) -> None:
        self._rehearse = rehearse
        self._trusted = trusted

    async def answer(self, arguments: dict[str, Any], descriptor: int | None) -> dict[str, Any]:
        """Do it.  ``descriptor`` becomes ours to close."""
        if descriptor is None:
            raise Refusal(Kind.USAGE, "scan needs a file")
        body = FileBody(b"", _size(descriptor), descriptor=descriptor)
        only(arguments, frozenset({"client", "helo", "sender", "recipients"}))
        if self._rehearse is None:
            raise Refusal(Kind.UNAVAILABLE, "nothing is scanned here: [scan] names no check")
        client = _text(arguments, "client")
        sender = _text(arguments, "sender")
        recipients = arguments.get("recipients") or ["postmaster@localhost"]
        if not isinstance(recipients, list) or len(recipients) > _MOST_RECIPIENTS:
            raise Refusal(Kind.USAGE, f"recipients is a list of up to {_MOST_RECIPIENTS}")
        start = os.pread(descriptor, MAX_HEADER, 0)
        asked = Rehearsal(
            client=_address(client) if client else _OURS,
            trusted=not client or self._trusted(client),
            helo=_text(arguments, "helo") or "localhost",
            sender=_mailbox(sender).mailbox if sender else "",
            recipients=[_mailbox(each) for each in recipients],
            header=header_section(start),
            body=body,
        )
        return await self._rehearse(asked)


def _size(descriptor: int) -> int:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise Refusal(Kind.USAGE, "what is to be scanned must be a file")
    return found.st_size


def _text(arguments: dict[str, Any], name: str) -> str:
    text = arguments.get(name, "")
    if not isinstance(text, str):
        raise Refusal(Kind.USAGE, f"{name} is text")
    return text


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Refusal(Kind.USAGE, f"{text!r} is no IP address") from None


def _mailbox(text: object) -> Recipient:
    octets = text.encode() if isinstance(text, str) else b""
    try:
        (mailbox, _, domain), rest = parse_path(b"TO:<" + octets + b">", b"TO:", True)
    except RemoteFault as fault:
        raise Refusal(Kind.USAGE, f"{text!r} is no mailbox: {fault}") from None
    if rest or not domain:
        raise Refusal(Kind.USAGE, f"{text!r} is no mailbox: write user@example.com")
    return Recipient(mailbox, domain)
