"""How a part of an address may be spelt in the history (pure).

Domains are kept in ASCII (A-labels, RFC 5890 §2.3.2.1), as the log and SMTP have them; a
postmaster may well look for what his user has told him.
"""

from __future__ import annotations

from ..errors import RemoteFault
from ..smtp.grammar import canonical_domain

__all__ = ["spellings"]


def spellings(part: str) -> tuple[str, ...]:
    """Return ``part``, and how it is spelt if what is behind its ``@``, or all, is a domain."""
    if part.isascii():
        return (part,)
    local, at, domain = part.rpartition("@")
    labels = domain.strip(".")
    try:
        return part, local + at + domain.replace(labels, canonical_domain(labels))
    except RemoteFault:
        return (part,)
