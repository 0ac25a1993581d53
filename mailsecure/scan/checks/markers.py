"""The check ``markers``: the test strings EICAR and GTUBE, known without any engine.

So a postmaster can try what becomes of malware and of spam before anything else is set up.
EICAR counts as malware, wherever in the message it is; GTUBE as more than any threshold.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..anatomy import Anatomy, Trait
from ..api import Check, ICheckMaker, Site
from ..values import NOTHING, Facts, Finding, Special, Stage, Symbol

__all__ = ["MarkersMaker"]

GTUBE_SCORE = 1000.0


class MarkersCheck:
    """See the module's text."""

    name = "markers"
    stages = frozenset({Stage.DATA})

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """See :class:`mailsecure.scan.api.Check`."""
        if facts.content is None:
            return NOTHING
        anatomy: Anatomy = await facts.content.anatomy()
        symbols = []
        if parts := anatomy.having(Trait.EICAR):
            reason = f"the EICAR test file, in {parts[0].path!a}"
            reply = "The message contains malware: EICAR test file"
            symbols.append(Symbol("EICAR", 0.0, reason, special=Special.MALWARE, reply=reply))
        if anatomy.gtube:
            reason, reply = "the GTUBE test string", "The message is spam: GTUBE test string"
            symbols.append(Symbol("GTUBE", GTUBE_SCORE, reason, reply=reply))
        return Finding(tuple(symbols))


@implementer(IPlugin, ICheckMaker)
class MarkersMaker:
    """Makes it."""

    name = "markers"

    def make(self, site: Site) -> Check:
        """See :class:`mailsecure.scan.api.ICheckMaker`."""
        return MarkersCheck()
