"""What the client's machine tells its adapter (pure).  See :mod:`.client`."""

from __future__ import annotations

from dataclasses import dataclass

from .replies import Reply
from .transaction import Result

__all__ = ["ClientEvent", "Done", "Ready", "SendBody", "StartTls", "Unusable"]


@dataclass(frozen=True, slots=True)
class Ready:
    """The session is open: transactions may begin."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """The session cannot be opened; ``reply`` is the server's, or ours if it gave none."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin the handshake now; then call ``tls_started``."""


@dataclass(frozen=True, slots=True)
class SendBody:
    """Send the body, stuffed and with its final dot; then call ``body_sent``."""


@dataclass(frozen=True, slots=True)
class Done:
    """The transaction is over."""

    result: Result


ClientEvent = Ready | Unusable | StartTls | SendBody | Done
