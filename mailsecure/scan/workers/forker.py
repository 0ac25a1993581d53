"""The daemon's end of the process that forks workers (:mod:`.forking`).

:class:`Forker` starts that process, gives it orders and tells a :class:`Hearer` what became
of them.  An order that is not answered in time, or cannot be given, means that the process
hangs: it is killed, with all its workers, and the pool starts another one.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ...world import World
from .forking import CONTROL, MAX_MESSAGE, describe

__all__ = ["Forker", "Hearer"]

_log = Logger(namespace="scan")

#: Seconds until it must have imported everything, and have answered an order.
START_TIME = 60.0
ANSWER_TIME = 10.0
#: How much of what it and its workers write to standard error is kept for the log.
MAX_ERRORS = 4096
#: Messages read in one turn of the reactor.
MAX_TURN = 50


class Hearer(Protocol):
    """Who is told what the forking process says."""

    def forking(self, lacks: list[str]) -> None:
        """It is ready for orders; ``lacks`` are walls that are not there (:mod:`.forking`)."""

    def born(self, number: int, process: int) -> None:
        """The worker ``number`` is there, as ``process``."""

    def died(self, number: int, how: str) -> None:
        """It is no more; ``how`` is "" if it ended orderly."""

    def ended(self, how: str) -> None:
        """The forking process and all workers are no more.  Said once, in any case."""


@implementer(IReadDescriptor)
class _Control:
    """Reads the socket; one message is one read."""

    def __init__(self, wire: socket.socket, heard: Any) -> None:
        self.wire = wire
        self._heard = heard

    def fileno(self) -> int:
        """See IFileDescriptor."""
        return self.wire.fileno()

    def logPrefix(self) -> str:
        """See ILoggingContext."""
        return "forker"

    def doRead(self) -> Failure | None:
        """See IReadDescriptor."""
        for _ in range(MAX_TURN):
            try:
                data = self.wire.recv(MAX_MESSAGE)
            except BlockingIOError:
                return None
            except OSError:
                data = b""
            if not data:
                return Failure(error.ConnectionDone())
            self._heard(json.loads(data))
        return None

    def connectionLost(self, reason: Failure) -> None:
        """See IFileDescriptor; that the process ended is told by SIGCHLD."""


class Forker(ProcessProtocol):
    """One forking process, from its start to its end."""

    def __init__(self, world: World, hearer: Hearer, package: str) -> None:
        self._world = world
        self._hearer = hearer
        self._package = package
        self._process: Any = None
        self._control: _Control | None = None
        self._deadlines: dict[tuple[str, int], IDelayedCall] = {}
        self._errors = b""
        #: That of the process, 0 before :meth:`start`.
        self.pid = 0

    def start(self) -> None:
        """Start the process; raises OSError where the system has no more of what it takes."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        nothing = os.open(os.devnull, os.O_RDWR)
        module = f"{__package__}.forking"
        try:
            self._process = self._world.reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-m", module, str(os.getpid()), self._package],
                env=_environment(),
                childFDs={0: nothing, 1: nothing, 2: "r", CONTROL: theirs.fileno()},
            )
        except OSError:
            ours.close()
            raise
        finally:
            os.close(nothing)
            theirs.close()
        self.pid = self._process.pid
        self._control = _Control(ours, self._heard)
        self._world.reactor.addReader(self._control)
        self._expect("ready", 0, START_TIME)

    def fork(self, number: int, wire: socket.socket, memory: int) -> None:
        """Have a worker forked that serves ``wire``, with at most ``memory`` octets."""
        self._order({"fork": number, "memory": memory}, wire)
        self._expect("born", number, ANSWER_TIME)

    def kill(self, number: int) -> None:
        """Have a worker killed."""
        self._order({"kill": number})
        self._expect("died", number, ANSWER_TIME)

    def end(self) -> None:
        """Close the socket: the process ends, and kills its workers before."""
        self._close()
        self._expect("ended", 0, ANSWER_TIME)

    def destroy(self) -> None:
        """Kill the process; its workers die with it."""
        try:
            self._process.signalProcess("KILL")
        except error.ProcessExitedAlready:
            return

    # -- what it says

    def _heard(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._answered("ready", 0)
            self._tell_errors("at their start")
            self._hearer.forking(message["lacks"])
        elif "born" in message:
            number = message["born"]
            self._answered("born", number)
            self._hearer.born(number, message["pid"])
        else:
            number, how = message["died"], message["how"]
            self._answered("born", number)
            self._answered("died", number)
            self._tell_errors(how and f"before one died ({how})")
            self._hearer.died(number, how)

    def errReceived(self, data: bytes) -> None:
        """See ProcessProtocol: the end of it goes to the log when somebody dies."""
        self._errors = (self._errors + data)[-MAX_ERRORS:]

    def processEnded(self, reason: Failure) -> None:
        """See ProcessProtocol."""
        self._close()
        for call in self._deadlines.values():
            call.cancel()
        self._deadlines.clear()
        how = _how(reason)
        self._tell_errors(how and f"before all ended ({how})")
        self._hearer.ended(how)

    def _tell_errors(self, when: str) -> None:
        if when and self._errors:
            text = self._errors.decode("utf-8", "backslashreplace")
            _log.warn("workers said {when}: {text}", when=when, text=text)
        self._errors = b""

    # -- orders and their deadlines

    def _order(self, message: dict[str, Any], wire: socket.socket | None = None) -> None:
        if self._control is None:
            return
        data = json.dumps(message).encode("ascii")
        try:
            socket.send_fds(self._control.wire, [data], [] if wire is None else [wire.fileno()])
        except OSError as fault:
            _log.warn("the forking process takes no orders: {reason}", reason=fault.strerror)
            self.destroy()

    def _expect(self, answer: str, number: int, seconds: float) -> None:
        key = (answer, number)
        if key not in self._deadlines:
            self._deadlines[key] = self._world.clock.callLater(seconds, self._late, key)

    def _answered(self, answer: str, number: int) -> None:
        call = self._deadlines.pop((answer, number), None)
        if call is not None:
            call.cancel()

    def _late(self, key: tuple[str, int]) -> None:
        del self._deadlines[key]
        _log.warn("the forking process hangs, and is killed: nothing {answer}", answer=key[0])
        self.destroy()

    def _close(self) -> None:
        if self._control is not None:
            self._world.reactor.removeReader(self._control)
            self._control.wire.close()
            self._control = None


def _environment() -> dict[str, str]:
    """Return what Python needs to find the same modules as this process; no secrets."""
    known = {name: os.environ[name] for name in ("PATH", "LANG", "TZ") if name in os.environ}
    paths = os.pathsep.join(os.path.realpath(each) for each in sys.path)
    return known | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


def _how(reason: Failure) -> str:
    status = getattr(reason.value, "status", None)
    return "" if status is None else describe(status)
