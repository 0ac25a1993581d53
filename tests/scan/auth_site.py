"""A site to make the check ``authentication`` and the signer for, all of it in memory."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from mailsecure.config.load import parse_config
from mailsecure.scan.api import Site
from mailsecure.scan.values import Content
from mailsecure.testing.workers import InlineWorkers, OctetsBody
from mailsecure.world import World

__all__ = ["NOW", "content_of", "site_with"]

NOW = 1_800_000_000.0
_INI = "[node]\nhostname = mx.example.org\n"


def site_with(resolver: Any, ini: str = "", now: float = NOW) -> Site:
    """Return a site with ``resolver``, workers that work at once, and ``ini``."""
    config = parse_config(_INI + ini, "test.ini")
    clock = Clock()
    world = World(object(), clock, lambda: now, random.Random(1), resolver)
    return Site(config, world, InlineWorkers(), Path())


def content_of(message: bytes) -> Content:
    """Return what is known at DATA of ``message``."""
    header = message.partition(b"\r\n\r\n")[0] + b"\r\n"

    async def anatomy() -> Any:
        raise AssertionError("not needed")

    body = OctetsBody(message)
    return Content(1, "1", body, len(message), header[: 256 << 10], b"", anatomy)
