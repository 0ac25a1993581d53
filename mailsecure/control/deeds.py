"""Tells the history what was done to messages in the quarantine, by whom and why.

A deed is ``released``, ``deleted``, ``forwarded`` or ``expired``; the last is done by nobody
but :mod:`mailsecure.spool.keeping`.  Without a history nothing is told; the log has it all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..records.api import Recorder
from ..records.values import DeedEvent, own_message
from ..spool.api import Freed, NewMessage
from ..spool.ids import id_name

__all__ = ["Deeds"]

#: Who does what no person asked for.
_OURSELVES = "mailsecure"


@dataclass(frozen=True, slots=True)
class Deeds:
    """``wall`` is Unix time; ``recorder`` is None where no history is kept."""

    wall: Callable[[], float]
    recorder: Recorder | None

    def tell(self, freed: Freed, deed: str, who: str, reason: str, copy: int = 0) -> None:
        """Tell what became of some recipients of a message; ``copy`` is a copy's id."""
        if self.recorder is not None:
            self.recorder.tell(
                DeedEvent(freed.id, self.wall(), deed, who, reason, freed.recipients, copy)
            )

    def copied(self, copy: NewMessage, hostname: str, subject: str) -> None:
        """Tell of a copy, which is a message of its own: what becomes of it is found so."""
        if self.recorder is not None:
            event = own_message(
                copy.id,
                copy.arrived,
                f"{id_name(copy.id)}@{hostname}",
                f"postmaster@{hostname}",
                copy.envelope.recipients[0].mailbox,
                copy.body.octets,
                subject,
            )
            self.recorder.tell(event)

    def expired(self, freed: Freed, reason: str) -> None:
        """Tell that a message was deleted by the quarantine's own bounds."""
        self.tell(freed, "expired", _OURSELVES, reason)
