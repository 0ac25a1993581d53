"""The Authentication-Results field (pure; RFC 8601): written, and known for ours.

What stands in it is partly a stranger's (domains, selectors, reasons): values are quoted
where they are no token, and what is not printable ASCII is left out.  Fields that came with
the message and bear our name are taken out before ours is written (RFC 8601 §5), whatever
comments, quotes and blanks they hide it in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .values import AuthResult

__all__ = ["Result", "authentication_results", "is_ours", "read_results"]

_LONGEST_VALUE = 255
_LONGEST_COMMENT = 200
_MOST_RESULTS = 40
_LONGEST_HEAD = 2000
_WIDTH = 76

# RFC 2045 §5.1, and the characters that an unquoted pvalue may have besides.
_TOKEN = re.compile(r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+")
_MAILBOX = re.compile(r"[!#$%&'*+./^_`{|}~0-9A-Za-z-]*@[A-Za-z0-9._-]+")
_AROUND = re.compile(r"\A[^\w)]+|[^\w)]+\Z")
_UNPRINTABLE = re.compile(r"[^ -~]+")
_QUOTED = re.compile(r'(["\\])')
_COMMENTED = re.compile(r"([()\\])")
_ATOM = re.compile(r'\\.?|"|[()]|[\s]+|;|[^\\"()\s;]+', re.S)
_PROPERTY = re.compile(
    r"([a-z][a-z0-9-]{0,40})(?:/1)?=(.*)|([a-z]+\.[a-z][a-z0-9_-]{0,40})=(.*)", re.I | re.S
)


# -- writing


def authentication_results(authserv_id: str, results: Sequence[AuthResult]) -> str:
    """Return the value of the field, folded with CRLF and a tab; ``none`` without results."""
    if not results:
        return f"{authserv_id}; none"
    lines = [authserv_id]
    for each in results[:_MOST_RESULTS]:
        lines[-1] += ";"
        lines += _folded(_words(each))
    return "\r\n\t".join(lines)


def _words(result: AuthResult) -> Iterator[str]:
    yield f"{result.method}={result.result}"
    comment = _printable(result.comment, _LONGEST_COMMENT)
    if comment:
        yield from f"({_COMMENTED.sub(_ESCAPED, comment)})".split(" ")
    for name, value in result.properties:
        yield f"{name}={_pvalue(value)}"


def _folded(words: Iterator[str]) -> list[str]:
    lines = [next(words)]
    for word in words:
        if len(lines[-1]) + len(word) < _WIDTH:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


_ESCAPED = r"\\\1"


def _pvalue(value: str) -> str:
    plain = _printable(value, _LONGEST_VALUE)
    if _TOKEN.fullmatch(plain) or _MAILBOX.fullmatch(plain):
        return plain
    return '"' + _QUOTED.sub(_ESCAPED, plain) + '"'


def _printable(text: str, longest: int) -> str:
    return " ".join(_UNPRINTABLE.sub(" ", text[: 4 * longest]).split())[:longest]


# -- reading


def is_ours(value: str, authserv_id: str) -> bool:
    """Say whether the field with ``value`` claims to be written by ``authserv_id``.

    Whoever reads it may take comments and blanks out or not, so it is ours however many of
    the words before the first semicolon have to be put together; quotes, case and marks
    around it do not matter.  What is never closed is taken for text.  Where there is no
    semicolon as far as is looked, nobody knows what comes behind: that is ours, too.
    """
    ours = authserv_id.lower().rstrip(".")
    for strict in (True, False):
        name = ""
        for word in _words_of(value[:_LONGEST_HEAD], strict):
            if word == ";":
                break
            name += word.lower()
            if _AROUND.sub("", name.partition("/")[0]) == ours:
                return True
        else:
            if len(value) > _LONGEST_HEAD:
                return True
    return False


@dataclass(frozen=True, slots=True)
class Result:
    """One result that somebody else wrote; ``properties`` by name in lower case."""

    method: str
    result: str
    properties: dict[str, str]


def read_results(value: str) -> list[Result]:
    """Return the results of a field (RFC 8601 §2.2); what makes no sense is passed over.

    Also those of ARC-Authentication-Results, whose instance is no result.
    """
    results: list[Result] = []
    for statement in _statements(value)[: _MOST_RESULTS + 2]:
        found = [match for each in statement if (match := _PROPERTY.fullmatch(each))]
        if not found or found[0][1] is None or statement[0] != found[0][0]:
            continue
        properties = {each[3].lower(): each[4] for each in found[1:] if each[3]}
        results.append(Result(found[0][1].lower(), found[0][2].lower(), properties))
    return results


def _statements(value: str) -> list[list[str]]:
    """Return the words between semicolons, ``=`` drawn to its neighbours."""
    statements: list[list[str]] = [[]]
    for word in _words_of(value, True):
        words = statements[-1]
        if word == ";":
            statements.append([])
        elif words and (words[-1].endswith("=") or word.startswith("=")):
            words[-1] += word
        else:
            words.append(word)
    return statements


def _words_of(value: str, strict: bool) -> Iterator[str]:
    """Yield words and semicolons; without comments, and without the marks of quotes.

    Not ``strict``: as for a reader that knows neither comments nor quotes.
    """
    word = ""
    depth = 0
    quoted = False
    for match in _ATOM.finditer(value):
        atom = match[0]
        if atom == "(" and not quoted and strict:
            depth += 1
        elif depth:
            depth -= atom == ")"
        elif atom == '"':
            quoted = strict and not quoted
        elif not quoted and (atom == ";" or atom.isspace()):
            if word:
                yield word
            word = ""
            if atom == ";":
                yield atom
        else:
            word += atom.removeprefix("\\")
    if word:
        yield word
