"""The twistd face: ``twistd mailsecure -c FILE``.

The only module that imports the reactor.  It puts the reactor on monotonic time before
anything asks it for the time (design decision 2), reads the ini, makes the
:class:`~.world.World`, and hands both to :mod:`.assemble`.

twistd makes the service before it goes to the background, so a bad ini is told on the
terminal, all of its problems at once, and the exit code is EX_CONFIG (sysexits.h).
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.python import usage

from . import __version__
from .assemble import build
from .config.files import read_config
from .config.model import Config
from .daemon.clock import use_monotonic_time
from .errors import ConfigProblems, LocalFault
from .resolver import DnsResolver, parse_server
from .vip.api import Kernel
from .world import World

__all__ = ["Options", "makeService"]


class Options(usage.Options):
    """The command line."""

    synopsis = "[options]"
    longdesc = "An integrated SMTP security gateway: accepts, keeps and relays mail."
    optParameters = [  # noqa: RUF012 - Twisted's own form
        ["config", "c", "/etc/mailsecure.ini", "The ini file.", str],
    ]

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"mailsecure {__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Return the service of the whole daemon, or exit with every problem of the ini."""
    use_monotonic_time(reactor)
    path = Path(options["config"]).absolute()
    try:
        config = read_config(path)
        service: IService = build(config, real_world(config), path)
    except ConfigProblems as problems:
        count = len(problems.problems)
        what = "a mistake" if count == 1 else f"{count} mistakes"
        print(f"mailsecure cannot start: {what} in the ini", file=sys.stderr)
        print(problems, file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from None
    except LocalFault as fault:
        print(f"mailsecure cannot start: {fault}", file=sys.stderr)
        raise SystemExit(os.EX_CONFIG) from None
    return service


def real_world(config: Config) -> World:
    """Return the world outside this process."""
    rng = random.SystemRandom()
    return World(
        reactor=reactor,
        clock=reactor,
        wall=time.time,
        rng=rng,
        resolver=DnsResolver(
            reactor,
            reactor,
            rng,
            [parse_server(server) for server in config.delivery.dns_servers],
            config.delivery.dns_timeout,
        ),
        kernel=None if config.cluster.key_file is None else _kernel(),
    )


def _kernel() -> Kernel:
    # Netlink's library takes longer to import than all of ours; only a cluster needs it.
    from .vip.netlink import LinuxKernel  # noqa: PLC0415

    return LinuxKernel(reactor)
