"""What systemd is told: ready, reloading, stopping, still alive (sd_notify).

A datagram to the socket that ``NOTIFY_SOCKET`` names (a leading ``@`` is Linux's
abstract namespace).  Without it, nothing is sent.  The watchdog is fed from the reactor,
so a reactor that hangs is a process that systemd restarts.  The protocol is that of
sd_notify(3); the variables are taken out of the environment, so that no child speaks.
"""

from __future__ import annotations

import os
import socket
import time

from twisted.internet.interfaces import IReactorTime

from ..background import Periodic

__all__ = ["ServiceNotices"]


class ServiceNotices:
    """The line to systemd; silent where there is none."""

    def __init__(self, clock: IReactorTime) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        interval = os.environ.pop("WATCHDOG_USEC", "")
        pid = os.environ.pop("WATCHDOG_PID", "")
        ours = not pid or pid == str(os.getpid())
        self._watchdog: Periodic | None = None
        if self._address and interval.isdigit() and ours:
            self._watchdog = Periodic(
                clock, int(interval) / 2_000_000, "the watchdog", lambda: self.tell("WATCHDOG=1")
            )

    def tell(self, *lines: str) -> None:
        """Send assignments (``STATUS=…``); a deaf systemd does no harm."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
            wire.setblocking(False)
            try:
                wire.sendto("\n".join(lines).encode(), address)
            except OSError:
                return

    def ready(self, status: str) -> None:
        """The start is over; the watchdog begins."""
        self.tell("READY=1", f"STATUS={status}")
        if self._watchdog is not None:
            self._watchdog.start()

    def status(self, status: str) -> None:
        """What the service does now is another thing than before."""
        self.tell(f"STATUS={status}")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The stop begins; it is bounded, and the watchdog goes on through it."""
        self.tell("STOPPING=1", "STATUS=stopping")

    def stopped(self) -> None:
        """Nothing more will be said."""
        if self._watchdog is not None:
            self._watchdog.stop()
