"""A message that encloses another one, for ``quarantine forward`` (pure).

What an administrator wants to look at is the original to the octet, and nothing that his
mail program might run, show or believe as if it had been sent to him: so it is attached,
as message/rfc822 (RFC 2046 §5.2.1), not sent on with Resent- fields.  The original is not
held in memory: :func:`head` and :func:`tail` stand before and behind it.

**Nothing from outside becomes structure.**  The header section holds nothing of a peer's;
what the text says of the original is escaped, one line a fact.  The boundary has 64 bits of
chance, so no original can have foreseen it.  8-bit octets stay what they are, and the
envelope says so (RFC 6152); where the original's own header section may be UTF-8 it is a
message/global (RFC 6532 §3.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .lines import escape

__all__ = ["Cover", "boundary_of", "head", "subject_of", "tail"]

#: RFC 5322 §2.1.1 allows 998 octets a line; a character has 4 at most.
_MOST_CHARACTERS = 240


@dataclass(frozen=True, slots=True)
class Cover:
    """What stands around the original.

    ``name`` is the copy's id and ``original`` the original's, ``date`` as mail writes it,
    ``hostname`` ours, ``to`` the mailbox it goes to.  ``facts`` are (name, text), of which
    the text may be anybody's.  ``eight_bit`` says that the original has octets above 127,
    ``utf8`` that its client asked for SMTPUTF8.
    """

    name: str
    original: str
    date: str
    hostname: str
    to: str
    facts: Sequence[tuple[str, str]]
    eight_bit: bool
    utf8: bool


def boundary_of(name: str, chance: int) -> str:
    """Return a boundary for the copy ``name``; ``chance`` has 64 bits."""
    return f"=_{name}_{chance:016x}"


def subject_of(original: str, hostname: str) -> str:
    """Return the subject of a copy of ``original``."""
    return f"Message {original} from the quarantine of {hostname}"


def head(cover: Cover, boundary: str) -> bytes:
    """Return all that stands before the original."""
    text = "".join(f"{line}\r\n" for line in _text(cover))
    eight_bit = cover.eight_bit or not (text.isascii() and cover.to.isascii())
    kind = "message/global" if cover.utf8 and cover.eight_bit else "message/rfc822"
    lines = [
        f"Date: {cover.date}",
        f"From: Quarantine of {cover.hostname} <postmaster@{cover.hostname}>",
        f"To: <{cover.to}>",
        f"Subject: {subject_of(cover.original, cover.hostname)}",
        f"Message-ID: <{cover.name}@{cover.hostname}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        f"Content-Transfer-Encoding: {_encoding(eight_bit)}",
        "",
        "",
        f"--{boundary}",
        f"Content-Type: text/plain; charset={'us-ascii' if text.isascii() else 'utf-8'}",
        f"Content-Transfer-Encoding: {_encoding(not text.isascii())}",
        "",
        text,
        f"--{boundary}",
        f"Content-Type: {kind}",
        f"Content-Transfer-Encoding: {_encoding(cover.eight_bit)}",
        f'Content-Disposition: attachment; filename="{cover.original}.eml"',
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


def tail(boundary: str) -> bytes:
    """Return what stands behind the original."""
    return f"\r\n--{boundary}--\r\n".encode()


def _encoding(eight_bit: bool) -> str:
    return "8bit" if eight_bit else "7bit"


def _text(cover: Cover) -> list[str]:
    width = max((len(name) for name, _ in cover.facts), default=0)
    return [
        f"The attached message is held in the quarantine of {cover.hostname}.  It may be",
        "dangerous: whoever forwarded it wants you to look at it, not to trust it.",
        "",
        *(f"{name:{width}}  {escape(text)[:_MOST_CHARACTERS]}" for name, text in cover.facts),
    ]
