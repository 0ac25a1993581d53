"""What one log line looks like, as text for eyes and as JSON for programs (pure).

Text is what readers of Postfix's log and fail2ban expect::

    2026-11-23T12:00:00.123+00:00 mx1 mailsecure/smtpd[812]: message accepted …

the time as modern syslog writes it, the host, the room (the Logger's namespace), the
process, and the message.  Serious lines say ``warning:`` or ``error:`` first; a
traceback follows as lines that begin with blanks, which no record does.  JSON is one
object a line: time, level, room, pid, text, and every field of the event.

**A peer cannot forge a line.**  Formats are constants of ours with plain ``{name}``
fields, parsed once; a field's value is put in as it stands only when every character of
it can be seen.  Controls, DEL, C1, bidirectional and other format characters, line and
paragraph separators, blanks that are not a space, unassigned characters and halves of
surrogate pairs become ``\\x0a``, ``\\u202e`` or ``\\U000e0001``; so does the backslash,
so that what is read can be undone without doubt.

**Speed**: three lines a message at thousands of messages a second.  So the stamp's
second is rendered once a second, a format is compiled once to a ``%s`` template, and one
``isprintable`` of the whole line decides whether any value has to be looked at.

:mod:`.logfile` calls this; the command line uses :func:`escape` for its terminal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from enum import Enum
from json.encoder import encode_basestring_ascii as _quote
from string import Formatter
from typing import Any

__all__ = ["MAX_FIELD", "Formats", "JsonLines", "Stamp", "TextLines", "bare", "escape"]

Event = dict[str, Any]

#: A line longer than this has its values cut to :data:`MAX_FIELD` characters.
MAX_LINE = 8192
MAX_FIELD = 1024
_MAX_FORMATS = 1024
_MAX_DEPTH = 4
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_MILLISECONDS = tuple(f"{number:03d}" for number in range(1000))
_PREFIXES = {"debug": "debug: ", "info": "", "warn": "warning: ", "error": "error: "}
_PREFIXES["critical"] = "critical: "

_DIM, _PLAIN, _RED, _GREEN, _YELLOW = "\x1b[2m", "\x1b[0m", "\x1b[31m", "\x1b[32m", "\x1b[33m"
_LEVEL_COLOURS = {"debug": _DIM, "warn": _YELLOW, "error": _RED, "critical": _RED}
_COLOURED = re.compile(
    r"\b(?:(?P<id>[0-7][0-9A-HJKMNP-TV-Z]{12})"
    r"|(?P<good>accepted|delivered|relayed|released|listening)"
    r"|(?P<slow>deferred|held|delayed|postponed)"
    r"|(?P<bad>refused|rejected|bounced|failed|expired))\b"
)
_WORD_COLOURS = {"id": _YELLOW, "good": _GREEN, "slow": _YELLOW, "bad": _RED}


def escape(text: str) -> str:
    """Return ``text`` with everything that cannot be seen, and backslashes, as escapes."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(
        letter if letter.isprintable() and letter != "\\" else _code(ord(letter)) for letter in text
    )


def bare(text: str) -> str:
    """Return an address without the brackets that it has in a log; ``<>`` is itself."""
    text = text.strip()
    inner = text[1:-1]
    return inner if inner and text == f"<{inner}>" else text


def _code(point: int) -> str:
    if point < 0x100:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


class Stamp:
    """Renders Unix time as ISO 8601 with milliseconds and zone.

    ``offset`` returns how many seconds the local time is ahead of UTC at a Unix time; it
    is asked once a second.
    """

    def __init__(self, offset: Callable[[float], int]) -> None:
        self._offset = offset
        self._second = -1
        self._before = self._after = ""

    def __call__(self, when: float) -> str:
        second = int(when)
        if second != self._second:
            zone = timezone(timedelta(seconds=self._offset(second)))
            text = datetime.fromtimestamp(second, zone).isoformat()
            self._before, self._after = text[:19] + ".", text[19:]
            self._second = second
        return self._before + _MILLISECONDS[int((when - second) * 1000)] + self._after


class Formats:
    """Turns events into their message, by formats that are parsed once.

    ``foreign`` formats an event whose format is not plain ``{name}`` fields, ``word``
    turns any value into text; neither raises.
    """

    def __init__(self, foreign: Callable[[Event], str], word: Callable[[Any], str]) -> None:
        self._foreign = foreign
        self._word = word
        self._plans: dict[object, tuple[str, tuple[str, ...]] | None] = {}

    def text(self, event: Event, *, escaped: bool) -> str:
        """Return the message of ``event``; ``escaped`` for text, raw for JSON."""
        key = event.get("log_format")
        try:
            plan = self._plans[key]
        except KeyError:
            plan = self._plan(key)
        if plan is None:
            text = self._foreign(event)[:MAX_LINE]
            return escape(text) if escaped else text
        template, names = plan
        get = event.get
        word = self.word
        values = [value if type(value := get(name)) is str else word(value) for name in names]
        text = template % tuple(values)
        if len(text) > MAX_LINE:
            values = [value[:MAX_FIELD] for value in values]
            text = template % tuple(values)
        if not escaped or (text.isprintable() and "\\" not in text):
            return text
        return template % tuple(escape(value) for value in values)

    def word(self, value: object) -> str:
        """Return any value as text that a reader understands, not escaped."""
        kind = type(value)
        if kind is int:
            return str(value)
        if kind is float:
            return f"{value:.3f}"
        if value is None:
            return "-"
        if isinstance(value, bytes):
            return value.decode("utf-8", "backslashreplace")
        return self._word(value.value if isinstance(value, Enum) else value)

    def _plan(self, format: object) -> tuple[str, tuple[str, ...]] | None:
        if len(self._plans) >= _MAX_FORMATS:
            self._plans.clear()
        plan = self._plans[format] = _compile(format) if isinstance(format, str) else None
        return plan


def _compile(format: str) -> tuple[str, tuple[str, ...]] | None:
    """Return a ``%s`` template and its fields, or None if a field is more than a name."""
    template, names = "", []
    try:
        for literal, name, spec, conversion in Formatter().parse(format):
            template += escape(literal).replace("%", "%%")
            if name is not None:
                if spec or conversion or not _NAME.fullmatch(name):
                    return None
                template += "%s"
                names.append(name)
    except ValueError:
        return None
    return template, tuple(names)


class TextLines:
    """Renders events as text for eyes; ``coloured`` for a terminal."""

    def __init__(self, formats: Formats, stamp: Stamp, host: str, *, coloured: bool) -> None:
        self._text = formats.text
        self._stamp = stamp
        self._program = f" {escape(host)} mailsecure/"
        self._coloured = coloured

    def render(self, event: Event, when: float, level: str, room: str, pid: int) -> str:
        """Return the record with its LF; ``log_traceback`` of ``event`` follows indented."""
        text = self._text(event, escaped=True)
        head = f"{self._stamp(when)}{self._program}{room}[{pid}]: "
        prefix = _PREFIXES[level]
        if self._coloured:
            head = _DIM + head + _PLAIN
            text = _COLOURED.sub(_paint, text)
            if colour := _LEVEL_COLOURS.get(level):
                prefix = colour + prefix + _PLAIN
        traceback = event.get("log_traceback")
        if not traceback:
            return f"{head}{prefix}{text}\n"
        indented = [f"    {escape(line)}\n" for line in traceback.rstrip("\n").split("\n")]
        return f"{head}{prefix}{text}\n" + "".join(indented)


def _paint(match: re.Match[str]) -> str:
    return _WORD_COLOURS[match.lastgroup or "id"] + match[0] + _PLAIN


class JsonLines:
    """Renders events as one JSON object a line, in ASCII."""

    def __init__(self, formats: Formats, stamp: Stamp) -> None:
        self._formats = formats
        self._stamp = stamp
        self._encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
        self._names: dict[str, str] = {}

    def render(self, event: Event, when: float, level: str, room: str, pid: int) -> str:
        """Return the record with its LF.

        A field of the event that is called like one of ours gets an underscore behind.
        """
        text = self._formats.text(event, escaped=False)
        parts = [
            f'{{"time":"{self._stamp(when)}","level":"{level}","room":{_quote(room)}'
            f',"pid":{pid},"text":{_quote(text)}'
        ]
        if "log_legacy" not in event:
            names = self._names
            for name, value in event.items():
                if name[:4] != "log_":
                    key = names.get(name) or self._key(name)
                    kind = type(value)
                    if kind is str:
                        parts.append(key + _quote(value))
                    elif kind is int:
                        parts.append(f"{key}{value}")
                    else:
                        parts.append(key + self._encode(self._plain(value)))
        if traceback := event.get("log_traceback"):
            parts.append(',"traceback":' + _quote(traceback))
        parts.append("}\n")
        return "".join(parts).replace("\x7f", "\\u007f")

    def _key(self, name: str) -> str:
        """Return ``name`` as the key of a further member; remembered."""
        key = f",{_quote(name + '_' if name in _OURS else name)}:"
        if len(self._names) < _MAX_FORMATS:
            self._names[name] = key
        return key

    def _plain(self, value: Any, depth: int = _MAX_DEPTH) -> Any:
        """Return ``value`` as JSON's types know it."""
        kind = type(value)
        if kind is str or kind is int or value is None or kind is bool:
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Enum):
            return self._plain(value.value, depth)
        if depth and isinstance(value, Mapping):
            return {str(key): self._plain(each, depth - 1) for key, each in value.items()}
        if depth and isinstance(value, list | tuple | set | frozenset):
            return [self._plain(each, depth - 1) for each in value]
        return self._formats.word(value)


_OURS = frozenset({"time", "level", "room", "pid", "text", "traceback"})
