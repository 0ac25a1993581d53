"""A DNS in a dictionary.

A :data:`Zone` maps names to their records by type, written as in a zone file, or to
:data:`SERVFAIL`::

    zone = {
        "example.com": {"MX": ["10 mx1.example.com", "20 mx2.example.com"]},
        "mx1.example.com": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
        "mx2.example.com": {"CNAME": ["other.example.net"]},
        "nomail.example": {"MX": ["0 ."]},
        "broken.example": SERVFAIL,
        "1.2.0.192.in-addr.arpa": {"PTR": ["mx1.example.com"]},
    }

:class:`FakeResolver` answers from it at once; :mod:`mailsecure.testing.dns` serves the same
zone over real sockets.  The dictionary may be changed at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from ..world import DnsAbsent, DnsFault, MxHost

__all__ = ["SERVFAIL", "FakeResolver", "Zone"]

SERVFAIL: Final = "SERVFAIL"
Zone = dict[str, dict[str, list[str]] | str]
MAX_ALIASES = 8


class FakeResolver:
    """A :class:`mailsecure.world.Resolver` over a :data:`Zone`."""

    def __init__(self, zone: Zone | None = None) -> None:
        self.zone: Zone = {} if zone is None else zone
        #: Every question: (type, name).
        self.questions: list[tuple[str, str]] = []

    async def mx(self, domain: str) -> Sequence[MxHost]:
        """See :class:`mailsecure.world.Resolver`."""
        records = [text.split() for text in self._records(domain, "MX")]
        return [MxHost(int(number), host.rstrip(".").lower()) for number, host in records]

    async def addresses(self, host: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        try:
            return [str(ip_address(host))]
        except ValueError:
            pass
        found: list[str] = []
        for kind in ("AAAA", "A"):
            try:
                found += self._records(host, kind)
            except DnsAbsent:
                continue
        if not found:
            raise DnsAbsent(host)
        return found

    async def ipv4(self, name: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        return self._records(name, "A")

    async def ipv6(self, name: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        return self._records(name, "AAAA")

    async def txt(self, name: str) -> Sequence[bytes]:
        """See :class:`mailsecure.world.Resolver`."""
        return [text.encode() for text in self._records(name, "TXT")]

    async def ptr(self, address: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        return self._records(ip_address(address).reverse_pointer, "PTR")

    def _records(self, name: str, kind: str) -> list[str]:
        name = name.rstrip(".").lower()
        self.questions.append((kind, name))
        for _ in range(MAX_ALIASES):
            entry = self.zone.get(name, {})
            if isinstance(entry, str):
                raise DnsFault(f"{name}: {entry}")
            if kind in entry:
                return list(entry[kind])
            if "CNAME" not in entry:
                break
            name = entry["CNAME"][0].rstrip(".").lower()
        raise DnsAbsent(name)
