"""The log observer: every event becomes a line in the file that ``[log]`` names.

A :class:`LogFile` is set as the application's ``ILogObserver`` component, where twistd
finds it.  Until :meth:`LogFile.start` and after :meth:`LogFile.stop` each line is
written at once, because nobody promises that the reactor turns; in between lines are
collected and written once a turn of the reactor, at 64 KiB, and at once when a line is a
warning or worse.

**The daemon does not depend on its log.**  A write that fails (full disk, closed pipe)
raises nothing: the lines are kept up to a bound and tried again each second; what does
not fit is counted and, once writing works again, said in a line of its own.  Standard
output is written by descriptor, because twistd redirects ``sys.stdout`` into the log.

The file is appended to, 0640, and is opened again by :meth:`LogFile.reopen` (SIGHUP,
logrotate); :meth:`LogFile.give_to` hands it to the user that the daemon becomes.
Rendering is :mod:`.lines`.

What Twisted says through its old ``log.msg`` (each port and datagram socket that opens
and closes, so each DNS question) counts as debug; its errors stay errors.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import ILogObserver, Logger, LogLevel, formatEvent
from twisted.python.reflect import safe_str
from zope.interface import implementer

from ..config.model import Log, LogColour, LogFormat
from ..errors import LocalFault
from .lines import Formats, JsonLines, Stamp, TextLines

__all__ = ["LogFile"]

_log = Logger(namespace="control")

_BATCH = 1 << 16
#: How much is kept while it cannot be written.
_KEPT = 1 << 20
_RETRY = 1.0
_RECENT = 20
_STDOUT = 1
_ODD = re.compile(r"[^A-Za-z0-9_-]")
_LEGACY = "log_legacy"
_ROOMS = {_LEGACY: "twisted", "": "twisted"}
_LEVELS = tuple(LogLevel.iterconstants())
_SERIOUS = frozenset((LogLevel.warn, LogLevel.error, LogLevel.critical))


def _offset(when: float) -> int:
    return time.localtime(when).tm_gmtoff


@implementer(ILogObserver)
class LogFile:
    """Writes events to the file, in the format, from the level that ``settings`` say.

    ``hostname`` is what a text line calls this machine; ``clock`` schedules writing.
    """

    def __init__(self, settings: Log, hostname: str, clock: IReactorTime) -> None:
        self._hostname = hostname
        self._clock = clock
        self._stamp = Stamp(_offset)
        self._formats = Formats(formatEvent, safe_str)
        self._rooms: dict[str, str] = dict(_ROOMS)
        self._fd = -1
        self._batching = False
        self._call: IDelayedCall | None = None
        self._lines: list[str] = []
        self._size = 0
        self._unwritten = b""
        self._broken = ""
        #: Writes that failed, and lines that were given up, since the start.
        self.failures = 0
        self.lost = 0
        self._lost_before = 0
        #: The last warnings and errors, oldest first, as (Unix time, level, room, text).
        self.recent: deque[tuple[float, str, str, str]] = deque(maxlen=_RECENT)
        self._apply(settings)

    def open(self) -> None:
        """Open the file; :class:`LocalFault` says in one line why that cannot be."""
        try:
            self._fd = self._opened()
        except OSError as problem:
            raise LocalFault(
                f"cannot open the log file {self._settings.file}: {problem.strerror}"
            ) from None
        self._render = self._renderer()

    def start(self) -> None:
        """Begin to collect lines: the reactor turns from now on."""
        self._batching = True

    def stop(self) -> None:
        """Write what was collected; from now on every line is written at once."""
        self._batching = False
        self._broken = ""
        self.flush()

    def close(self) -> None:
        """Stop, and close the file."""
        self.stop()
        self._close()

    def reopen(self) -> None:
        """Open the file anew, because it was moved away; the old one stays if that fails."""
        self.flush()
        try:
            opened = self._opened()
        except OSError as problem:
            self.failures += 1
            _log.error(
                "cannot open the log file {file} again: {why}",
                file=self._settings.file,
                why=problem.strerror,
            )
            return
        self._close()
        self._fd = opened
        self._render = self._renderer()

    def reconfigure(self, settings: Log) -> None:
        """Take new settings; the file is opened again in any case."""
        self.flush()
        self._apply(settings)
        self.reopen()

    def give_to(self, uid: int, gid: int) -> None:
        """Make the file that user's, so that it can be opened again after dropping root."""
        if self._fd not in (-1, _STDOUT):
            os.fchown(self._fd, uid, gid)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take one event."""
        level = event.get("log_level", LogLevel.info)
        if level not in self._wanted:
            return
        namespace = event.get("log_namespace", "")
        if namespace == _LEGACY and level is LogLevel.info:
            level = LogLevel.debug
            if level not in self._wanted:
                return
        room = self._rooms.get(namespace) or self._room(namespace)
        when = event.get("log_time") or 0.0
        if "log_failure" in event:
            event = {**event, "log_traceback": event["log_failure"].getTraceback()}
            if event.get("log_format") is None:
                event["log_format"] = "unexpected error"
        line = self._render(event, when, level.name, room, os.getpid())
        self._lines.append(line)
        self._size += len(line)
        if level in _SERIOUS:
            text = self._formats.text(event, escaped=False)
            self.recent.append((when, level.name, room, text))
            self.flush()
        elif not self._batching or self._size >= _BATCH:
            self.flush()
        elif self._call is None:
            self._call = self._clock.callLater(0, self._turn)

    def flush(self) -> None:
        """Write what was collected, as far as it can be written."""
        if not self._lines:
            if self._unwritten and not self._broken:
                self._write(self._unwritten)
            return
        if self._broken and len(self._unwritten) + self._size > _KEPT:
            self.lost += len(self._lines)
            self._lines.clear()
            self._size = 0
            return
        octets = self._unwritten + "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        self._size = 0
        if self._broken:
            self._unwritten = octets
        else:
            self._write(octets)

    def _turn(self) -> None:
        self._call = None
        self.flush()

    def _write(self, octets: bytes) -> None:
        written = 0
        try:
            while written < len(octets):
                written += os.write(self._fd, octets[written:] if written else octets)
        except OSError as problem:
            self.failures += 1
            self._broken = problem.strerror or str(problem)
            self._clock.callLater(_RETRY, self._again)
        self._unwritten = octets[written:]

    def _again(self) -> None:
        """Try once more what could not be written; say what was lost meanwhile."""
        why, self._broken = self._broken, ""
        if self._unwritten:
            self._write(self._unwritten)
        if not self._broken and self.lost > self._lost_before:
            lines, self._lost_before = self.lost - self._lost_before, self.lost
            _log.warn("{lines} log lines were lost: {why}", lines=lines, why=why)

    def _room(self, namespace: str) -> str:
        """Return the last word of a namespace, fit for a line; remembered."""
        room = _ODD.sub("_", namespace.rpartition(".")[2])[:32] or "twisted"
        if len(self._rooms) < 1000:
            self._rooms[namespace] = room
        return room

    def _apply(self, settings: Log) -> None:
        self._settings = settings
        least = LogLevel.lookupByName(settings.level.value)
        self._wanted = frozenset(level for level in _LEVELS if level >= least)
        self._render = self._renderer()

    def _renderer(self) -> Any:
        """Return the function that renders an event as the settings and the file ask."""
        if self._settings.format is LogFormat.JSON:
            return JsonLines(self._formats, self._stamp).render
        colour = self._settings.colour
        coloured = colour is LogColour.YES or (
            colour is LogColour.AUTO and self._fd >= 0 and os.isatty(self._fd)
        )
        return TextLines(self._formats, self._stamp, self._hostname, coloured=coloured).render

    def _opened(self) -> int:
        if self._settings.file == "-":
            return _STDOUT
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        return os.open(self._settings.file, flags, 0o640)

    def _close(self) -> None:
        if self._fd not in (-1, _STDOUT):
            os.close(self._fd)
        self._fd = -1
