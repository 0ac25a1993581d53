"""A DNS server of a few names, on a loopback port, for tests of delivery.

:class:`Names` answers over UDP from a table of records, in a thread of its own, and
notes every question.  What it does not know does not exist (NXDOMAIN).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress

from twisted.names import dns

__all__ = ["Names", "address", "alias", "mx"]


def mx(preference: int, host: str) -> dns.IRecord:
    """An MX record; the host "" is the null MX of RFC 7505."""
    return dns.Record_MX(preference, host.encode(), ttl=60)


def address(text: str) -> dns.IRecord:
    """An A or AAAA record."""
    if ":" in text:
        return dns.Record_AAAA(text, ttl=60)
    return dns.Record_A(text, ttl=60)


def alias(host: str) -> dns.IRecord:
    """A CNAME record."""
    return dns.Record_CNAME(host, ttl=60)


class Names:
    """The server; ``records`` may be changed while it runs.

    A name in ``failing`` is answered SERVFAIL, one in ``silent`` not at all.
    """

    def __init__(self, records: Mapping[str, Iterable[dns.IRecord]]) -> None:
        self.records = {name.lower(): list(each) for name, each in records.items()}
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self.questions: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.server = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """The end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                datagram, peer = self._socket.recvfrom(4096)
            except OSError:
                return
            if not datagram:
                return
            question = dns.Message()
            with suppress(EOFError):
                question.fromStr(datagram)
            if question.queries and (answer := self._answer(question)) is not None:
                with suppress(OSError):
                    self._socket.sendto(answer, peer)

    def _answer(self, question: dns.Message) -> bytes | None:
        query = question.queries[0]
        name = str(query.name).lower().rstrip(".")
        kind = dns.QUERY_TYPES.get(query.type, str(query.type))
        self.questions.append((name, kind))
        if name in self.silent:
            return None
        answer = dns.Message(id=question.id, answer=1, recDes=question.recDes, recAv=1)
        answer.queries = question.queries
        if name in self.failing:
            answer.rCode = dns.ESERVER
        elif name not in self.records:
            answer.rCode = dns.ENAME
        else:
            answer.answers = self._found(name, query.type)
        return answer.toStr()

    def _found(self, name: str, kind: int) -> list[dns.RRHeader]:
        found: list[dns.RRHeader] = []
        for _ in range(8):
            records = self.records.get(name, [])
            aliases = [each for each in records if each.TYPE == dns.CNAME]
            for each in records:
                if each.TYPE in (kind, dns.CNAME):
                    found.append(dns.RRHeader(name, each.TYPE, ttl=each.ttl, payload=each))
            if not aliases or kind == dns.CNAME:
                break
            name = str(aliases[0].name).lower()
        return found
