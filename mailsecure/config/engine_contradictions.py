"""Options of engines that are right by themselves and wrong together (pure).

As :mod:`.contradictions`, for the sections that :class:`.scanning.EngineSettings` begins.
"""

from __future__ import annotations

from collections.abc import Iterator

from .contradictions import Contradiction
from .model import Config

__all__ = ["engine_contradictions"]

_ENGINES = ("clamav", "rspamd", "spamassassin", "icap", "milter")
_SCHEMES = {
    "rspamd": (("http://", "https://"), "http://HOST:PORT"),
    "icap": (("icap://", "icaps://"), "icap://HOST:PORT/SERVICE, or icaps://"),
}


def engine_contradictions(config: Config) -> Iterator[Contradiction]:
    """Yield everything in ``config`` about the engines that are asked that cannot be meant."""
    for name in _ENGINES:
        if name not in config.scan.engines:
            continue
        settings = getattr(config, name)
        if settings.timeout > config.scan.timeout:
            yield Contradiction(
                ((name, "timeout"), ("scan", "timeout")), "is more than [scan] timeout"
            )
        schemes, example = _SCHEMES.get(name, ((), ""))
        if schemes and not settings.url.startswith(schemes):
            yield Contradiction(
                ((name, "url"), ("scan", "engines")),
                f"{settings.url}: that is not what {name} speaks",
                f"write {example}",
            )
