"""What is counted while the daemon runs: plain integers on the hot paths (pure).

Rooms add to the fields in the reactor's thread; ``control`` reads them for the metrics
and for the rates in ``mailsecure status``.  Each counts from the start and never falls.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """One for the whole daemon."""

    sessions_opened: int = 0
    sessions_refused: int = 0
    sessions_tls: int = 0
    early_talkers: int = 0
    timeouts: int = 0
    protocol_errors: int = 0
    internal_errors: int = 0
    messages_accepted: int = 0
    octets_accepted: int = 0
    messages_refused: int = 0
    recipients_accepted: int = 0
    recipients_refused: int = 0
    spool_failures: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    bounces_sent: int = 0
    bounces_dropped: int = 0
