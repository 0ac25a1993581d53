"""What a client did, as :class:`~.server.ServerMachine` tells it (pure).

The first group asks something: the machine gives no other event until it has been
told the answer.  The second needs none.
"""

from __future__ import annotations

from dataclasses import dataclass

from .envelope import Recipient
from .replies import Reply

__all__ = [
    "ChunkEnd",
    "Content",
    "ContentEnd",
    "Data",
    "Event",
    "Fault",
    "Helo",
    "Mail",
    "Quit",
    "Rcpt",
    "Reset",
    "Said",
    "StartTls",
    "TlsFacts",
]


@dataclass(slots=True)
class Helo:
    """HELO or EHLO; answered positive, the caller sends :meth:`ServerMachine.hello_reply`."""

    name: str
    extended: bool


@dataclass(slots=True)
class Mail:
    """MAIL: a reverse-path ("" is null) and what was asked for; ``size`` 0 if untold."""

    reverse_path: str
    domain: str
    size: int
    eight_bit: bool
    smtputf8: bool
    ret: str
    envid: str


@dataclass(slots=True)
class Rcpt:
    """RCPT: the recipient, and its local part without quotes.

    ``<postmaster>`` without a domain has the recipient's domain "".
    """

    recipient: Recipient
    local: str


@dataclass(slots=True)
class Data:
    """DATA, or the first BDAT: may content come?  A positive answer is a 354."""

    chunked: bool


@dataclass(slots=True)
class Content:
    """A piece of the message; needs no answer."""

    data: bytes


@dataclass(slots=True)
class ContentEnd:
    """The end of the message, with its last piece; ``octets`` counts all of them.

    Where ``fault`` stands, the message is refused with it (and not all there).
    """

    fault: Reply | None
    octets: int
    data: bytes


@dataclass(slots=True)
class ChunkEnd:
    """One BDAT chunk is in and another will follow; send ``reply``."""

    data: bytes
    reply: Reply


@dataclass(slots=True)
class Said:
    """The machine's own answer to a harmless command."""

    reply: Reply


@dataclass(slots=True)
class Fault:
    """The machine's own answer to an error; ``close`` ends the session after it."""

    reply: Reply
    close: bool = False


@dataclass(slots=True)
class Reset:
    """The transaction is over without a message; send ``reply``.

    After RSET that is 250, after a refused BDAT an error that counts.
    """

    reply: Reply


@dataclass(slots=True)
class StartTls:
    """Send ``reply``, then start TLS, then call :meth:`ServerMachine.tls_started`."""

    reply: Reply


@dataclass(slots=True)
class Quit:
    """Send ``reply`` and close."""

    reply: Reply


Event = (
    Helo
    | Mail
    | Rcpt
    | Data
    | Content
    | ChunkEnd
    | ContentEnd
    | Said
    | Fault
    | Reset
    | StartTls
    | Quit
)


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """What was agreed in a TLS handshake, for the trace field and the log."""

    version: str
    cipher: str
