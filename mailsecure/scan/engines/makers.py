"""The plugins: a check for each engine that ``[scan] engines`` may name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zope.interface import implementer

from ..api import ICheckMaker, Site
from .clamav import ClamavEngine
from .guard import Engine, EngineCheck
from .icap import IcapEngine
from .milter import MilterEngine
from .rspamd import RspamdEngine
from .spamassassin import SpamassassinEngine

__all__ = ["ENGINES", "EngineMaker", "clamav", "icap", "milter", "rspamd", "spamassassin"]


@implementer(ICheckMaker)
class EngineMaker:
    """Makes the check ``name`` from the section of that name."""

    def __init__(
        self, name: str, engine: Callable[[Site, Any], Engine], oversized: bool = True
    ) -> None:
        self.name = name
        self._engine = engine
        self._oversized = oversized

    def make(self, site: Site) -> EngineCheck:
        """Return the check; ValueError where the settings make no sense."""
        settings = getattr(site.config, self.name)
        engine = self._engine(site, settings)
        return EngineCheck(
            self.name,
            site.world,
            settings,
            engine,
            settings.max_size,
            site.config.scan.on_failure,
            self._oversized,
        )


clamav = EngineMaker("clamav", ClamavEngine)
rspamd = EngineMaker("rspamd", RspamdEngine)
spamassassin = EngineMaker("spamassassin", SpamassassinEngine, oversized=False)
icap = EngineMaker("icap", IcapEngine)
milter = EngineMaker("milter", MilterEngine)

ENGINES = (clamav, rspamd, spamassassin, icap, milter)
