"""Does the next hop know this recipient?  Asked once, remembered, shared.

A gateway that takes mail for unknown users must bounce it later, and the bounce goes
to whoever was forged as the sender.  So for the domains routed to an SMTP or LMTP host
:class:`RecipientVerifier` asks that host, with the null reverse-path and no DATA (a
callout), while the client waits at RCPT.  Only a 5xx to RCPT is a no; silence, 4xx and
trouble of any kind count as yes, because a gateway that refuses mail whenever the
server behind it is away would be worse than none.

The cache and the number of questions under way are bounded; sessions that ask about
the same mailbox at once share one question.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.model import Relay
from ..errors import RemoteFault
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply

__all__ = ["RecipientVerifier"]

_log = Logger(namespace="smtpd")

MAX_REMEMBERED = 100_000
MAX_QUESTIONS = 100

#: Asks the next hop; the reply is that to RCPT.  Fails with RemoteFault.
Probe = Callable[[Recipient], Deferred[Reply]]


class RecipientVerifier:
    """The callouts of one node."""

    def __init__(self, clock: IReactorTime, settings: Relay, probe: Probe) -> None:
        self._clock = clock
        self._settings = settings
        self._probe = probe
        #: mailbox → (when to forget, the refusal or None)
        self._known: dict[str, tuple[float, Reply | None]] = {}
        self._asking: dict[str, list[Deferred[Reply | None]]] = {}

    def refusal(self, recipient: Recipient) -> Reply | Deferred[Reply | None] | None:
        """Return (or promise) the reply that refuses ``recipient``, None if it is taken."""
        mailbox = recipient.mailbox
        known = self._known.get(mailbox)
        if known is not None:
            if self._clock.seconds() < known[0]:
                return known[1]
            del self._known[mailbox]
        waiting: Deferred[Reply | None] = Deferred()
        askers = self._asking.get(mailbox)
        if askers is not None:
            askers.append(waiting)
            return waiting
        if len(self._asking) >= MAX_QUESTIONS:
            return None
        self._asking[mailbox] = [waiting]
        question = self._probe(recipient)
        question.addTimeout(self._settings.verify_timeout, self._clock)
        question.addCallbacks(
            self._answered, self._failed, callbackArgs=(mailbox,), errbackArgs=(mailbox,)
        )
        return waiting

    def _answered(self, reply: Reply, mailbox: str) -> None:
        settings = self._settings
        if reply.permanent:
            refusal = Reply(550, "5.1.1", "Recipient unknown at the mail server")
            self._remember(mailbox, settings.verify_negative, refusal)
            _log.info(
                "next hop does not know <{recipient}>: {reply}",
                recipient=mailbox,
                reply=str(reply),
            )
            self._tell(mailbox, refusal)
            return
        if reply.positive:
            self._remember(mailbox, settings.verify_positive, None)
        self._tell(mailbox, None)

    def _failed(self, failure: Failure, mailbox: str) -> None:
        if failure.check(RemoteFault) is None:
            _log.info(
                "could not verify <{recipient}>: {reason}",
                recipient=mailbox,
                reason=failure.getErrorMessage() or repr(failure.type),
            )
        self._tell(mailbox, None)

    def _remember(self, mailbox: str, seconds: float, refusal: Reply | None) -> None:
        if len(self._known) >= MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[mailbox] = (self._clock.seconds() + seconds, refusal)

    def _tell(self, mailbox: str, refusal: Reply | None) -> None:
        for waiting in self._asking.pop(mailbox):
            waiting.callback(refusal)
