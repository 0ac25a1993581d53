"""The process that forks workers: ``python -m mailsecure.scan.workers.forking PID PACKAGE``.

It imports whatever jobs need, once, and forks a worker whenever the daemon asks for one;
that takes a few milliseconds, and what was imported is in memory once.  It reads no
message itself.

Descriptor 3 is a SOCK_SEQPACKET socket to the daemon (:mod:`.forker`), each message JSON:

in   ``{"fork": number, "memory": octets}`` with the worker's socket, ``{"kill": number}``
out  ``{"ready": pid, "lacks": […]}``, ``{"born": number, "pid": pid}``,
     ``{"died": number, "how": text}``

``lacks`` are the walls around workers that this kernel has none of: ``files`` (Landlock),
``calls`` (seccomp).

Only this process waits for workers, so a number always means the process it was given for.
When the daemon closes the socket, or ends, this process ends, and all workers with it.
"""

from __future__ import annotations

import array
import gc
import json
import os
import pkgutil
import select
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

from ...errors import LocalFault
from . import child
from .confining import die_with_parent, give_up_rights, nice
from .reading import code_places, read_only_from
from .syscalls import can_forbid

__all__ = ["CONTROL", "MAX_MESSAGE", "Forking", "describe", "main"]

#: The descriptor that leads to the daemon.
CONTROL: Final = 3
MAX_MESSAGE: Final = 4096
PRIORITY = 5


class Forking:
    """Forks, kills and buries workers, as the daemon says."""

    def __init__(self, control: socket.socket, wakeup: int, package: str, lacks: list[str]) -> None:
        self._control = control
        self._lacks = lacks
        self._package = package
        self._wakeup = wakeup
        self._numbers: dict[int, int] = {}  # by process id

    def run(self) -> None:
        """Do what the daemon asks for until it closes the socket."""
        # A daemon that has closed the socket hears no answers, either.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._serve()
        for process in self._numbers:
            os.kill(process, signal.SIGKILL)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        self._say(ready=os.getpid(), lacks=self._lacks)
        while True:
            ready = dict(poll.poll())
            if self._wakeup in ready:
                os.read(self._wakeup, MAX_MESSAGE)
                self._bury()
            if self._control.fileno() in ready and not self._obey():
                break

    def _say(self, **message: Any) -> None:
        self._control.send(json.dumps(message).encode("ascii"))

    def _obey(self) -> bool:
        """Do what one message says; False at the end."""
        descriptors = array.array("i")
        data, ancillary, _, _ = self._control.recvmsg(
            MAX_MESSAGE, socket.CMSG_SPACE(descriptors.itemsize)
        )
        if not data:
            return False
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(content)
        message = json.loads(data)
        if "fork" in message:
            self._fork(message["fork"], socket.socket(fileno=descriptors[0]), message["memory"])
        else:
            self._kill(message["kill"])
        return True

    def _fork(self, number: int, wire: socket.socket, memory: int) -> None:
        parent = os.getpid()
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)
            self._control.close()
            child.live(wire, self._package, parent, memory)
        wire.close()
        self._numbers[process] = number
        self._say(born=number, pid=process)

    def _kill(self, number: int) -> None:
        for process, known in self._numbers.items():
            if known == number:
                os.kill(process, signal.SIGKILL)

    def _bury(self) -> None:
        """Tell of all workers that have ended."""
        with suppress(ChildProcessError):
            while True:
                process, status = os.waitpid(-1, os.WNOHANG)
                if process == 0:
                    break
                self._say(died=self._numbers.pop(process), how=describe(status))


def describe(status: int) -> str:
    """Return how a process ended, from its wait status; "" for an orderly end."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}" if code else ""
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _prepare(package: str) -> None:
    """Import what jobs need.  What is missing is told now, and to who asks for such a job."""
    jobs = import_module(f"{package}.jobs")
    for module in pkgutil.iter_modules(jobs.__path__):
        try:
            loaded = import_module(f"{jobs.__name__}.{module.name}")
            getattr(loaded, "prepare", int)()
        except (ImportError, LocalFault) as error:
            print(f"jobs.{module.name}: {error}", file=sys.stderr, flush=True)
    gc.collect()
    gc.freeze()


def _confine() -> list[str]:
    """Give up files; returns what cannot be given up here, see the module's text."""
    walls = {"files": read_only_from(code_places()), "calls": can_forbid()}
    return [name for name, stands in walls.items() if not stands]


def main() -> None:
    """Be the process that forks for the daemon (first argument) jobs of a package (second)."""
    daemon, package = int(sys.argv[1]), sys.argv[2]
    control = socket.socket(fileno=CONTROL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not die_with_parent(daemon):
        return
    nice(PRIORITY, 500)
    with suppress(OSError):
        os.setsid()
    wakeup, alarm = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(alarm)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    _prepare(package)
    give_up_rights()
    Forking(control, wakeup, package, _confine()).run()


if __name__ == "__main__":
    main()
