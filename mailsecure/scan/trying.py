"""Would all that judges mail begin with these settings?  What ``mailsecure check`` asks.

Many mistakes show only when the checks are made: a limit that makes no sense with another, a
key that is none, a plugin that cannot be imported or does not like its settings.  So they are
made here as at a start, in a world of which nothing is used, and let go.
"""

from __future__ import annotations

import random
import time
from typing import Any

from twisted.internet.task import Clock

from ..config.model import Config
from ..counters import Counters
from ..errors import ConfigProblems, LocalFault, Problem
from ..world import World
from .api import Site
from .finding import find_makers
from .scanner import Scanner
from .workers.pool import WorkerPool

__all__ = ["problems_of"]


def problems_of(config: Config) -> list[Problem]:
    """Return why what judges mail could not begin; nothing, if it could."""
    nobody: Any = None
    world = World(nobody, Clock(), time.time, random.SystemRandom(), nobody)
    pool = WorkerPool(world, config.scan)
    site = Site(config, world, pool, config.node.state)
    try:
        Scanner(site, pool, find_makers(config.scan.plugins), Counters())
    except ConfigProblems as problems:
        return list(problems.problems)
    except LocalFault as fault:
        return [Problem(config.file, 0, "scan", "plugins", str(fault))]
    return []
