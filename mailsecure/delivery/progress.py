"""How far one attempt has come: who is left, and what became of the others (pure).

:class:`Progress` is the memory of :class:`.next_hop.NextHops` for one message.  A recipient
leaves it with its first outcome that stands.  Trouble with one server that another may not
have leaves the recipient in, with that outcome to fall back on.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..smtp.replies import Reply
from ..smtp.transaction import Capabilities, Result
from ..spool.values import QueuedMessage, QueuedRecipient
from .api import Fate, NextHopDown, Outcome
from .exchange import HEADER_UTF8, RECIPIENT_UTF8, outcomes_of, refusal_of_message

__all__ = ["Progress"]

#: Recipients in one transaction where the server names no other limit, and at most.
RCPT_DEFAULT = 100
RCPT_MOST = 1000
TOO_MANY = 452
NOBODY = Reply(451, "4.4.1", "No server to send to")


class Progress:
    """The recipients of one message on their way to outcomes."""

    __slots__ = ("_checked", "_fallback", "_left", "_outcomes", "down", "here", "message")

    def __init__(self, message: QueuedMessage) -> None:
        self.message = message
        #: Recipients that the target at hand has still to be offered.
        self.here: Sequence[QueuedRecipient] = ()
        #: Why the last target could not be used, if that was so.
        self.down: NextHopDown | None = None
        self._left: Sequence[QueuedRecipient] = message.recipients
        self._outcomes: list[Outcome] = []
        self._fallback: dict[int, Outcome] = {}
        self._checked = False

    @property
    def over(self) -> bool:
        """True where every recipient has an outcome that stands."""
        return not self._left

    def begin_target(self) -> None:
        """Turn to another target: it is offered everyone who is left."""
        self.here = self._left

    def next_batch(self, offered: Capabilities) -> Sequence[QueuedRecipient]:
        """Return the recipients of the next transaction; none if there is nobody to offer.

        Those whom this server cannot take are refused here and now.
        """
        here = self.here
        refusal = refusal_of_message(self.message, offered)
        if refusal is not None:
            self.refuse(here, Fate.FAILED, refusal)
            return ()
        if not offered.smtputf8:
            foreign = [one for one in here if not one.recipient.mailbox.isascii()]
            if foreign:
                self.refuse(foreign, Fate.FAILED, RECIPIENT_UTF8)
                here = self.here
        most = min(offered.rcpt_max or RCPT_DEFAULT, RCPT_MOST)
        return here if len(here) <= most else here[:most]

    def header_matters(self, offered: Capabilities) -> bool:
        """Say whether the header section must be ASCII for this server; asked once."""
        if offered.smtputf8 or self._checked or not self.message.envelope.smtputf8:
            return False
        self._checked = True
        return True

    def refuse_header(self) -> None:
        """The header section is not ASCII, and has to be."""
        self._checked = False
        self.refuse(self.here, Fate.FAILED, HEADER_UTF8)

    def refuse(self, recipients: Sequence[QueuedRecipient], fate: Fate, reply: Reply) -> None:
        """Give ``recipients`` an outcome of our own making."""
        self._outcomes += [Outcome(one.index, fate, reply) for one in recipients]
        self._remove({one.index for one in recipients})

    def settle(
        self,
        batch: Sequence[QueuedRecipient],
        result: Result,
        next_hop: str,
        tls: str,
        final: bool,
    ) -> None:
        """Take what a transaction with ``batch`` came to."""
        outcomes = outcomes_of(batch, result, next_hop, tls, final)
        if len(batch) == 1 == len(self._left) and not result.elsewhere:
            self._outcomes += outcomes
            self._left = self.here = ()
            return
        stands: set[int] = set()
        offered: set[int] = set()
        progress = any(outcome.fate in _TAKEN for outcome in outcomes)
        for outcome in outcomes:
            if result.elsewhere and outcome.fate is Fate.DEFERRED:
                self._fallback[outcome.index] = outcome
                offered.add(outcome.index)
            elif not (progress and outcome.reply.code == TOO_MANY):
                # "Too many recipients" for one transaction is not a refusal: they are
                # offered again in the next one (RFC 5321 §4.5.3.1.10).
                self._outcomes.append(outcome)
                stands.add(outcome.index)
        self._remove(stands)
        if offered:
            self.here = [one for one in self.here if one.index not in offered]

    def _remove(self, indices: set[int]) -> None:
        self._left = [one for one in self._left if one.index not in indices]
        self.here = [one for one in self.here if one.index not in indices]

    def finish(self) -> list[Outcome]:
        """Return one outcome a recipient; raises NextHopDown where none was offered."""
        left = self._left
        if not left:
            return self._outcomes
        down = self.down or NextHopDown(NOBODY)
        if not self._outcomes and not self._fallback:
            raise down
        for one in left:
            outcome = self._fallback.get(one.index)
            if outcome is None:
                outcome = Outcome(one.index, Fate.DEFERRED, down.reply, down.next_hop)
            self._outcomes.append(outcome)
        return self._outcomes


_TAKEN = frozenset((Fate.DELIVERED, Fate.RELAYED))
