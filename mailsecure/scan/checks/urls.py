"""The check ``urls``: what lists in the DNS say of where links lead.

A worker finds the links (:mod:`mailsecure.scan.content.links`).  The lists of ``[urls]`` are
asked about the registered domain of each (by the public suffix list that comes with us) and
about addresses turned round, all side by side (:mod:`.asking`).  A list that does not answer
within :data:`LOOKUP_TIME` says nothing.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, gatherResults
from twisted.plugin import IPlugin
from zope.interface import implementer

from ..api import Check, ICheckMaker, Site
from ..values import NOTHING, Facts, Finding, Stage
from .asking import ListAsker, Listing
from .linking import judge_links, what_to_ask

__all__ = ["UrlsMaker"]

#: Seconds; and how much of [scan] check_timeout that is at most.
LOOKUP_TIME = 5.0
_SHARE = 0.5


class UrlsCheck:
    """See the module's text."""

    name = "urls"

    def __init__(self, site: Site) -> None:
        self._settings = site.config.urls
        timeout = min(LOOKUP_TIME, _SHARE * site.config.scan.check_timeout)
        self._lists = ListAsker(site.world, self._settings.lists, timeout)
        self.stages = frozenset({Stage.DATA} if self._settings.lists else ())

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """See :class:`mailsecure.scan.api.Check`."""
        if facts.content is None:
            return NOTHING
        anatomy = await facts.content.anatomy()
        asked = what_to_ask(anatomy, self._settings.ignore, self._settings.max_names)
        questions = [self._lists.about_names(asked.domains)]
        questions += [self._lists.about_address(address) for address in asked.addresses]
        answers: list[list[Listing]] = await gatherResults(
            [Deferred.fromCoroutine(each) for each in questions], consumeErrors=True
        )
        listings = [each for found in answers for each in found]
        return Finding(judge_links((each.zone, each.about, each.score) for each in listings))

    def counts(self) -> dict[str, int]:
        """Return how often each list did not answer."""
        return self._lists.failures


@implementer(IPlugin, ICheckMaker)
class UrlsMaker:
    """Makes it."""

    name = "urls"

    def make(self, site: Site) -> Check:
        """See :class:`mailsecure.scan.api.ICheckMaker`."""
        return UrlsCheck(site)
