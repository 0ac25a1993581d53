"""A mail filter on the real libmilter (sendmail's, which Debian's opendkim needs), by ctypes.

``python -m tests.live.libmilter PORT ACTIONS`` serves until it is killed; ACTIONS is what it
negotiates (SMFIF_*), a number.  What it hears goes to standard output, a line of JSON each.
What it does at the end of a message the message says: each field ``X-Do`` is one of the
words of :func:`Filter.do`.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

__all__ = ["Filter", "main"]

LIBRARY = "libmilter.so.1.0.1"
CONTINUE, REJECT, DISCARD, ACCEPT, TEMPFAIL = range(5)
MACROS = ("j", "v", "_", "i", "{daemon_name}", "{client_addr}", "{mail_addr}", "{rcpt_addr}")

_INT, _TEXT, _LONG, _CONTEXT = ctypes.c_int, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p
_TEXTS = ctypes.POINTER(_TEXT)
_NEGOTIATE = ctypes.CFUNCTYPE(_INT, _CONTEXT, *[_LONG] * 4, *[_CONTEXT] * 4)
_FIELDS: list[tuple[str, Any]] = [
    ("name", _TEXT),
    ("version", _INT),
    ("flags", _LONG),
    ("connect", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXT, _CONTEXT)),
    ("helo", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXT)),
    ("mail", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXTS)),
    ("rcpt", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXTS)),
    ("header", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXT, _TEXT)),
    ("eoh", ctypes.CFUNCTYPE(_INT, _CONTEXT)),
    ("body", ctypes.CFUNCTYPE(_INT, _CONTEXT, _CONTEXT, ctypes.c_size_t)),
    ("eom", ctypes.CFUNCTYPE(_INT, _CONTEXT)),
    ("abort", ctypes.CFUNCTYPE(_INT, _CONTEXT)),
    ("close", ctypes.CFUNCTYPE(_INT, _CONTEXT)),
    ("unknown", ctypes.CFUNCTYPE(_INT, _CONTEXT, _TEXT)),
    ("data", ctypes.CFUNCTYPE(_INT, _CONTEXT)),
    ("negotiate", _NEGOTIATE),
]


class _Description(ctypes.Structure):
    _fields_ = _FIELDS


class Filter:
    """What is asked of it, and what it answers; one message at a time."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(LIBRARY)
        self.library.smfi_getsymval.restype = _TEXT
        self.library.smfi_getsymval.argtypes = [_CONTEXT, _TEXT]
        self.library.smfi_register.argtypes = [_Description]
        self.orders: list[str] = []
        self.octets = 0

    def say(self, what: str, context: int, *heard: bytes) -> int:
        """Tell the test."""
        known = {name: self.library.smfi_getsymval(context, name.encode()) for name in MACROS}
        macros = {name: value.decode() for name, value in known.items() if value is not None}
        line = [what, [each.decode("latin-1") for each in heard], macros]
        print(json.dumps(line), flush=True)
        return CONTINUE

    def mail(self, context: int, path: bytes) -> int:
        """A message begins."""
        self.orders, self.octets = [], 0
        return self.say("mail", context, path)

    def header(self, context: int, name: bytes, value: bytes) -> int:
        """A field, perhaps an order."""
        if name == b"X-Do":
            self.orders.append(value.decode())
        return self.say("header", context, name, value[:100])

    def body(self, context: int, octets: int) -> int:
        """A piece of the body."""
        self.octets += octets
        return CONTINUE

    def eom(self, context: int) -> int:
        """The end."""
        self.say("eom", context, b"%d" % self.octets)
        results = [self.do(order, ctypes.c_void_p(context)) for order in self.orders]
        return next((each for each in results if each), CONTINUE)

    def do(self, order: str, context: Any) -> int:
        """Do what a message asks for."""
        library = self.library
        if order == "fields":
            library.smfi_addheader(context, b"X-Added", b"one\n\ttwo")
            library.smfi_chgheader(context, b"Subject", _INT(1), b"changed")
            library.smfi_chgheader(context, b"X-Do", _INT(1), None)
            library.smfi_insheader(context, _INT(0), b"X-Top", b"100% \xc3\xa9")
        elif order == "lines":
            library.smfi_setmlreply(
                context, b"554", b"5.7.1", b"Not 100%% here", b"and not there", None
            )
            return REJECT
        elif order == "quarantine":
            library.smfi_quarantine(context, b"looks odd")
        elif order == "progress":
            for _ in range(5):
                library.smfi_progress(context)
                time.sleep(0.3)
        elif order == "body":
            library.smfi_replacebody(context, b"another\r\n", _INT(9))
        return {"discard": DISCARD, "accept": ACCEPT, "tempfail": TEMPFAIL}.get(order, CONTINUE)


def main() -> None:
    """Serve."""
    filter = Filter()
    say = filter.say
    kinds = dict(_FIELDS)
    calls: dict[str, Any] = {
        "connect": lambda context, name, _: say("connect", context, name),
        "helo": lambda context, name: say("helo", context, name),
        "mail": lambda context, words: filter.mail(context, words[0]),
        "rcpt": lambda context, words: say("rcpt", context, words[0]),
        "header": filter.header,
        "eoh": lambda context: CONTINUE,
        "body": lambda context, _, octets: filter.body(context, octets),
        "eom": filter.eom,
        "data": lambda context: say("data", context),
    }
    description = _Description(b"test", 0x01000001, int(sys.argv[2]))
    for name, call in calls.items():
        setattr(description, name, kinds[name](call))
    filter.library.smfi_register(description)
    filter.library.smfi_setconn(b"inet:%s@127.0.0.1" % sys.argv[1].encode())
    filter.library.smfi_main()


if __name__ == "__main__":
    main()
