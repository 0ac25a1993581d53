"""The check ``rates``: how much a client's network and a sender may send in an hour.

The limits of ``[smtp]`` hold off floods, by the minute; these are about mail that is too much
to be meant: a hijacked account, a newsletter gone wild.  Who is above gets RATE_NETWORK or
RATE_SENDER, a 450, and what was put off is not counted, or nobody would ever get out.

**When is counted.**  A recipient at RCPT, if this check lets it through: guessing at users is
what a limit on recipients is there for, so those that something else refuses count.  A message
at DATA, when it is there: a transaction that was put off or given up before is none.  At RCPT
there is a look whether one more message may come, so that it need not be sent in vain; whoever
used up the last one meanwhile in another session is put off at DATA, so the limits are exact.

**Who is counted.**  A stranger's network (/24, /64).  A client of ``[relay] networks`` by its
reverse-path, wherever it comes from: that is the account.  A stranger's reverse-path within its
network only: anybody can write with the address of somebody else, and must not be able to use
up what that somebody may send.  The null reverse-path is nobody's.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from ...config.scanning import Rates as Settings
from ...config.scanning import ScanAction
from ..api import Check, ICheckMaker, Site
from ..gossip import Gossip
from ..values import NOTHING, Facts, Finding, Stage, Symbol
from .matching import digest, network_of
from .windows import Amount, Windows

__all__ = ["RatesCheck", "RatesMaker"]

SUBJECT = "rates"
IPV4_PREFIX, IPV6_PREFIX = 24, 64
#: (symbol, key, limits, who it is in the reply)
_Bound = tuple[str, str, Amount, str]


class RatesCheck:
    """See the module's text."""

    name = "rates"

    def __init__(self, site: Site) -> None:
        self._site = site
        self._clock = site.world.clock
        settings = site.config.rates
        self._window = settings.window
        self._network, self._sender = _limits(settings)
        limited = self._network != Amount() or self._sender != Amount()
        self.stages = frozenset({Stage.RCPT, Stage.DATA}) if limited else frozenset()
        self._counted = Windows(settings.window, site.line is not None)
        self._gossip = Gossip(self._clock, SUBJECT, self._counted, self._clock.seconds)

    async def start(self) -> None:
        """Begin to share.  See :class:`mailsecure.scan.api.Stateful`."""
        if self._site.line is not None:
            self._gossip.start(self._site.line())

    async def stop(self) -> None:
        """Share no more."""
        self._gossip.stop()

    def inherit(self, old: Check) -> None:
        """Go on with what ``old`` counted.  See :class:`mailsecure.scan.api.Heir`."""
        if isinstance(old, RatesCheck):
            self._counted, self._gossip = old._counted, old._gossip
            self._counted.window = self._window

    def counts(self) -> dict[str, int]:
        """Return how many senders and networks are counted."""
        return {"counted": len(self._counted)}

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """Return a symbol for each limit that is reached; count what is not above one."""
        bounds = self._bounds(facts)
        if not bounds or facts.rehearsal:
            return NOTHING
        now = self._clock.seconds()
        recipients = int(stage is Stage.RCPT)
        symbols = [
            symbol
            for bound in bounds
            if (symbol := self._symbol(bound, recipients, now)) is not None
        ]
        if symbols:
            return Finding(tuple(symbols))
        for _, key, _, _ in bounds:
            self._counted.add(key, int(stage is Stage.DATA), recipients, now)
        return NOTHING

    def _bounds(self, facts: Facts) -> list[_Bound]:
        """Return the limits that hold for a client and its sender."""
        bounds: list[_Bound] = []
        network = "" if facts.trusted else network_of(facts.client, IPV4_PREFIX, IPV6_PREFIX)
        if network and self._network != Amount():
            key = digest("network", network)
            bounds.append(("RATE_NETWORK", key, self._network, f"your network {network}"))
        if facts.reverse_path and self._sender != Amount():
            key = digest("sender", network, facts.reverse_path.lower())
            bounds.append(("RATE_SENDER", key, self._sender, "this sender"))
        return bounds

    def _symbol(self, bound: _Bound, recipients: int, now: float) -> Symbol | None:
        """Return the symbol if one more message, or so many recipients, would be too many."""
        name, key, limit, who = bound
        sent = self._counted.amount(key, now)
        if limit.messages and sent.messages + 1 > limit.messages:
            what = f"{sent.messages:.0f} messages of {limit.messages:.0f}"
        elif limit.recipients and sent.recipients + recipients > limit.recipients:
            what = f"{sent.recipients:.0f} recipients of {limit.recipients:.0f}"
        else:
            return None
        return Symbol(
            name,
            0.0,
            f"{what} in {self._window:g} s",
            ScanAction.TEMPFAIL,
            reply=f"4.7.1 Too much mail from {who}, come again later",
        )


def _limits(settings: Settings) -> tuple[Amount, Amount]:
    """Return the limits of a network and of a sender; 0 for none."""
    return (
        Amount(settings.network_messages, settings.network_recipients),
        Amount(settings.sender_messages, settings.sender_recipients),
    )


@implementer(IPlugin, ICheckMaker)
class RatesMaker:
    """Makes the check ``rates``."""

    name = "rates"

    def make(self, site: Site) -> RatesCheck:
        """Return the check."""
        return RatesCheck(site)
