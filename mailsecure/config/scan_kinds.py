"""Kinds of options that only the sections of :mod:`.scanning` have (pure).

Parsers and writers for :data:`.kinds.KINDS`, as it describes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from .routes import parse_host_port, parse_hostname, parse_path
from .scanning import NEVER, DnsList

__all__ = [
    "answer_counts",
    "parse_client",
    "parse_database",
    "parse_dns_lists",
    "parse_number",
    "parse_score",
    "parse_scores",
    "parse_settings",
    "parse_url",
    "parse_words",
    "write_dns_lists",
    "write_number",
    "write_score",
    "write_scores",
    "write_settings",
]

_ITEMS = re.compile(r"[^\s,]+")
_NUMBER = re.compile(r"[-+]?\d{1,6}(?:\.\d{1,6})?")
_SYMBOL = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ANSWER = re.compile(r"127((?:\.\d{1,3}(?:-\d{1,3})?){3})")
_DATABASES = ("postgresql",)


def parse_words(text: str) -> tuple[str, ...]:
    """Return the words, each once, in order."""
    return tuple(dict.fromkeys(_ITEMS.findall(text)))


def parse_number(text: str) -> float:
    """Return a number, perhaps with a sign and a fraction."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r} is no number: write 4, 0.5 or -3")
    return float(text)


def parse_score(text: str) -> float:
    """Return a threshold: a number, or infinity for ``never``."""
    if text.lower() == "never":
        return NEVER
    try:
        return parse_number(text)
    except ValueError:
        raise ValueError(f"{text!r} is no score: write a number, or never") from None


def parse_scores(text: str) -> dict[str, float]:
    """Return scores by symbol, from lines of two words."""
    scores: dict[str, float] = {}
    for line in _lines(text):
        symbol, number = _two(line, "a symbol and its score")
        if not _SYMBOL.fullmatch(symbol):
            raise ValueError(f"{symbol!r} is no symbol: capital letters, digits, underscores")
        if symbol in scores:
            raise ValueError(f"{symbol} has a score already")
        scores[symbol] = parse_number(number)
    return scores


def parse_settings(text: str) -> dict[str, str]:
    """Return values by name, from lines of a word and the rest."""
    settings: dict[str, str] = {}
    for line in _lines(text):
        name, _, value = line.partition(" ")
        if name in settings:
            raise ValueError(f"{name} is set already")
        settings[name] = value.strip()
    return settings


def parse_dns_lists(text: str) -> tuple[DnsList, ...]:
    """Return lists, from lines ``zone[=127.0.0.2-11] score``."""
    return tuple(_dns_list(line) for line in _lines(text))


def _dns_list(line: str) -> DnsList:
    place, score = _two(line, "a zone and its score")
    zone, equals, answers = place.partition("=")
    ranges = tuple(_answers(each) for each in answers.split("|")) if equals else ()
    return DnsList(parse_hostname(zone), ranges, parse_number(score))


def _answers(text: str) -> tuple[int, ...]:
    """Return (first, last) of each of three octets, flat: ``0.0.2-11`` → 0 0 0 0 2 11."""
    match = _ANSWER.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no answer of a list: write 127.0.0.2 or 127.0.0.2-11")
    bounds: list[int] = []
    for octet in match[1].split(".")[1:]:
        first, _, last = octet.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high <= 255:
            raise ValueError(f"{text!r}: {octet} is no range of octets")
        bounds += [low, high]
    return tuple(bounds)


def parse_client(text: str) -> str:
    """Return ``unix:/path`` or ``tcp:host:port``."""
    scheme, _, rest = text.partition(":")
    if scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError(f"{text!r}: write the whole path, unix:/run/NAME")
        return f"unix:{parse_path(rest)}"
    host, port = parse_host_port(rest, 0) if scheme == "tcp" else ("", 0)
    if not port:
        raise ValueError(f"{text!r} is no address: write unix:/run/NAME or tcp:HOST:PORT")
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"


def parse_url(text: str) -> str:
    """Return an http, https, icap or icaps URL."""
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"{text!r} is no URL") from None
    if parts.scheme not in ("http", "https", "icap", "icaps") or not parts.hostname:
        raise ValueError(f"{text!r} is no URL: write http://HOST:PORT or icap://HOST:PORT/NAME")
    if parts.username or parts.password:
        raise ValueError("a password does not belong in a URL")
    parse_host_port(parts.netloc, 80)
    return text.rstrip("/") if parts.scheme in ("http", "https") else text


def parse_database(text: str) -> str:
    """Return a URL of PostgreSQL, the path of a file, or nothing."""
    scheme, mark, _ = text.partition("://")
    if not mark:
        return parse_path(text) if text else ""
    if scheme not in _DATABASES:
        raise ValueError(f"{scheme!r} is no database: write postgresql://USER@HOST/NAME or a file")
    try:
        parts = urlsplit(text)
        password = parts.password
    except ValueError:
        raise ValueError("is no URL: write postgresql://USER@HOST/NAME") from None
    if password is not None:
        raise ValueError("holds a password: put it into a file and name that in password_file")
    if len(parts.path) < 2:
        raise ValueError("names no database: write postgresql://USER@HOST/NAME")
    return text


def write_number(value: float) -> str:
    """Write a number as short as it can be."""
    return f"{value:g}" if float(f"{value:g}") == value else f"{value:f}".rstrip("0")


def write_score(value: float | None) -> str:
    """Write a threshold; nothing for None."""
    if value is None:
        return ""
    return "never" if value == NEVER else write_number(value)


def write_scores(values: Mapping[str, float]) -> str:
    """Write one symbol a line."""
    return "\n".join(f"{symbol} {write_number(score)}" for symbol, score in values.items())


def write_settings(values: Mapping[str, str]) -> str:
    """Write one name a line."""
    return "\n".join(f"{name} {value}".rstrip() for name, value in values.items())


def write_dns_lists(values: Iterable[DnsList]) -> str:
    """Write one list a line."""
    return "\n".join(_written(each) for each in values)


def _written(value: DnsList) -> str:
    answers = "|".join(_pattern(each) for each in value.answers)
    return f"{value.zone}{'=' * bool(answers)}{answers} {write_number(value.score)}"


def _pattern(bounds: tuple[int, ...]) -> str:
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    octets = (str(low) if low == high else f"{low}-{high}" for low, high in pairs)
    return ".".join(("127", *octets))


def answer_counts(value: DnsList, address: str) -> bool:
    """Say whether ``address``, an A record of the list, is one of the answers that count."""
    found = IPv4Address(address).packed
    if found[0] != 127:
        return False
    if not value.answers:
        return True
    return any(
        all(bounds[2 * i] <= found[i + 1] <= bounds[2 * i + 1] for i in range(3))
        for bounds in value.answers
    )


def _lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.split("\n") if line.strip()]


def _two(line: str, what: str) -> tuple[str, str]:
    words = line.split()
    if len(words) != 2:
        raise ValueError(f"{line!r}: write {what}")
    return words[0], words[1]
