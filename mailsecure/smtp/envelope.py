"""The envelope of a message: the values that every room passes on (pure).

Addresses are kept as *canonical text*: ``local@domain`` with the local part
quoted only where RFC 5321 §4.1.2 requires it, and the domain in lower case, as
A-labels or an address literal.  Text is what SQLite stores, what logs show and
what goes back on the wire, so nothing is parsed or quoted twice.  The reverse-path
``""`` is the null reverse-path ``<>`` (RFC 5321 §4.5.5).
"""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Arrival", "Envelope", "Recipient"]


@dataclass(frozen=True, slots=True)
class Recipient:
    """One forward-path and what RFC 3461 lets a client ask for it.

    ``domain`` is the canonical domain of ``mailbox``.  ``notify`` is ``""``,
    ``"NEVER"`` or upper-case words joined by commas in the order SUCCESS, FAILURE,
    DELAY.  ``orcpt`` is the parameter as given, ``rfc822;`` and xtext included.
    """

    mailbox: str
    domain: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sent a message to whom, and how it has to be treated.

    ``ret`` is ``""``, ``"FULL"`` or ``"HDRS"``; ``envid`` is xtext as given (RFC
    3461 §4.3, §4.4); ``eight_bit`` says BODY=8BITMIME (RFC 6152) and ``smtputf8``
    that the client asked for RFC 6531.
    """

    reverse_path: str
    recipients: tuple[Recipient, ...]
    eight_bit: bool = False
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a message came from: facts for logs, bounces and the queue's listing.

    ``client`` is an IP address as text, ``helo`` what the client called itself
    (unescaped), ``protocol`` the word of RFC 3848 (``ESMTPS``); ``session`` is the
    session's name in the log.
    """

    client: str = ""
    helo: str = ""
    protocol: str = ""
    session: str = ""
    facts: dict[str, str] = field(default_factory=dict)
