"""The check ``attachments``: what is attached, by its real type.

A worker takes the message apart; :mod:`.attaching` says what its parts come to.  A message
that cannot be taken apart is unscannable, which the pipeline makes a symbol of.
"""

from __future__ import annotations

from twisted.plugin import IPlugin
from zope.interface import implementer

from ..api import Check, ICheckMaker, Site
from ..values import NOTHING, Facts, Finding, Stage
from .attaching import judge_attachments

__all__ = ["AttachmentsMaker"]


class AttachmentsCheck:
    """See the module's text."""

    name = "attachments"
    stages = frozenset({Stage.DATA})

    def __init__(self, site: Site) -> None:
        self._settings = site.config.attachments

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """See :class:`mailsecure.scan.api.Check`."""
        if facts.content is None:
            return NOTHING
        anatomy = await facts.content.anatomy()
        return Finding(judge_attachments(anatomy, self._settings))


@implementer(IPlugin, ICheckMaker)
class AttachmentsMaker:
    """Makes it."""

    name = "attachments"

    def make(self, site: Site) -> Check:
        """See :class:`mailsecure.scan.api.ICheckMaker`."""
        return AttachmentsCheck(site)
