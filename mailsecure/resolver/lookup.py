"""A stub resolver with deadlines, a cache, and nothing that blocks.

A question goes to the servers in turn until one has a usable answer: at first each is given
a second, in the next round two, and so on, until the overall ``timeout``.  When every server
has refused to answer (SERVFAIL and the like), the question fails at once.  An answer that
was cut short is asked for again over TCP.  Identical questions under way are asked once.

Answers are remembered for their TTL, within :data:`MIN_TTL` and :data:`MAX_TTL`, absences
for theirs (RFC 2308), within :data:`MAX_ABSENCE`; failures are not remembered.

Addresses as names answer for themselves; /etc/hosts and ``localhost`` (RFC 6761 §6.3) come
before the DNS.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.names import dns
from twisted.python.failure import Failure

from ..errors import RemoteFault
from ..world import DnsAbsent, DnsFault, MxHost
from .answers import (
    MAX_ALIASES,
    Answer,
    askable_name,
    encode_question,
    read_answer,
    valid_name,
)
from .cache import TtlCache
from .files import WatchedFile, parse_hosts, parse_resolv_conf
from .wire import ask_tcp, ask_udp

__all__ = ["DnsResolver", "parse_server"]

_log = Logger(namespace="dns")

MIN_TTL = 1
MAX_TTL = 3600
MAX_ABSENCE = 300
MAX_CACHED = 20_000
#: Answers of more octets are not remembered, which bounds the cache in octets too.
MAX_REMEMBERED = 4096
#: Questions on the wire at once; more wait.
MAX_QUESTIONS = 200
FIRST_WAIT = 1.0
DNS_PORT = 53

_Key = tuple[str, int]


def parse_server(text: str) -> tuple[str, int]:
    """Return (address, port) for ``192.0.2.53``, ``192.0.2.53:5353``, ``[2001:db8::53]:5353``."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    ip_address(host)
    return host, int(port or DNS_PORT)


class DnsResolver:
    """The real :class:`mailsecure.world.Resolver`.

    ``servers`` are (address, port); without any, those of ``resolv_conf`` are asked, which
    is read again when it changes.  ``timeout`` is for a whole question, in seconds.
    """

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        rng: random.Random,
        servers: Sequence[tuple[str, int]] = (),
        timeout: float = 10.0,
        resolv_conf: str = "/etc/resolv.conf",
        hosts: str = "/etc/hosts",
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._rng = rng
        self._servers = list(servers)
        self._timeout = timeout
        self._resolv_conf = WatchedFile(resolv_conf, parse_resolv_conf)
        self._hosts = WatchedFile(hosts, parse_hosts)
        # An empty tuple is an absence.
        self._cache: TtlCache[_Key, Sequence[Any]] = TtlCache(MAX_CACHED)
        self._asking: dict[_Key, list[Deferred[Sequence[Any]]]] = {}
        self._turns = DeferredSemaphore(MAX_QUESTIONS)

    # -- the face of World

    async def mx(self, domain: str) -> Sequence[MxHost]:
        """See :class:`mailsecure.world.Resolver`."""
        return [
            MxHost(record.preference, _text(record.name))
            for record in await self._data(domain, dns.MX)
        ]

    async def addresses(self, host: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        name = _clean(host)
        if _is_address(name):
            return [name]
        known = self._hosts.value(self._clock.seconds()).get(name)
        if known:
            return list(known)
        if name == "localhost" or name.endswith(".localhost"):
            return ["::1", "127.0.0.1"]
        # Both at once; what they come to are values, so that neither is left behind.
        six = Deferred.fromCoroutine(self._addresses(name, dns.AAAA))
        found, fault = await self._addresses(name, dns.A)
        more, other = await six
        if found or more:
            return more + found
        raise other or fault or DnsAbsent(name)

    async def _addresses(self, name: str, kind: int) -> tuple[list[str], DnsFault | None]:
        try:
            records = await self._lookup(name, kind)
        except DnsAbsent:
            return [], None
        except DnsFault as fault:
            return [], fault
        return _as_text(records), None

    async def ipv4(self, name: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        return _as_text(await self._data(name, dns.A))

    async def ipv6(self, name: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        return _as_text(await self._data(name, dns.AAAA))

    async def txt(self, name: str) -> Sequence[bytes]:
        """See :class:`mailsecure.world.Resolver`."""
        return [b"".join(record.data) for record in await self._data(name, dns.TXT)]

    async def ptr(self, address: str) -> Sequence[str]:
        """See :class:`mailsecure.world.Resolver`."""
        try:
            name = ip_address(address).reverse_pointer
        except ValueError:
            raise DnsAbsent(address) from None
        return [_text(record.name) for record in await self._lookup(name, dns.PTR)]

    # -- one question

    async def _data(self, name: str, kind: int) -> Sequence[Any]:
        """Return the records of a name that need not be one a host could have."""
        clean = _clean(name)
        if not askable_name(clean):
            raise DnsAbsent(name)
        return await self._known(clean, kind)

    async def _lookup(self, name: str, kind: int) -> Sequence[Any]:
        """Return the records of a host or a domain, at least one."""
        if not valid_name(name):
            raise DnsAbsent(name)
        return await self._known(name, kind)

    async def _known(self, name: str, kind: int) -> Sequence[Any]:
        """Return the records, from the cache, or with all who ask the same."""
        key = (name, kind)
        known = self._cache.get(key, self._clock.seconds())
        if known is None:
            waiting: Deferred[Sequence[Any]] = Deferred()
            askers = self._asking.get(key)
            if askers is not None:
                askers.append(waiting)
            else:
                self._asking[key] = [waiting]
                # Nobody owns this question: who gives up waiting does not end it.
                asked = Deferred.fromCoroutine(self._find(name, kind))
                asked.addBoth(self._tell, key)
            known = await waiting
        if not known:
            raise DnsAbsent(name)
        return known

    def _tell(self, result: Sequence[Any] | Failure, key: _Key) -> None:
        for waiting in self._asking.pop(key):
            if waiting.called:
                continue
            if isinstance(result, Failure):
                waiting.errback(DnsFault(result.getErrorMessage()))
                if result.check(DnsFault) is None:
                    _log.failure("lookup of {name} failed", failure=result, name=key[0])
            else:
                waiting.callback(result)

    async def _find(self, name: str, kind: int) -> Sequence[Any]:
        """Ask, follow aliases that lead out of an answer, and remember."""
        await self._turns.acquire()
        try:
            deadline = self._clock.seconds() + self._timeout
            here = name
            for _ in range(MAX_ALIASES):
                answer = await self._ask_servers(here, kind, deadline)
                if not answer.alias:
                    break
                here = answer.alias
                if not valid_name(here):
                    break
        finally:
            self._turns.release()
        if answer.octets <= MAX_REMEMBERED:
            most = MAX_TTL if answer.records else MAX_ABSENCE
            seconds = min(max(answer.ttl, MIN_TTL), most)
            self._cache.put((name, kind), answer.records, seconds, self._clock.seconds())
        return answer.records

    async def _ask_servers(self, name: str, kind: int, deadline: float) -> Answer:
        servers = self._servers or self._resolv_conf.value(self._clock.seconds())
        if not servers:
            servers = [("127.0.0.1", DNS_PORT)]
        wait = FIRST_WAIT
        trouble = "timed out"
        while True:
            refused = 0
            for server in servers:
                left = deadline - self._clock.seconds()
                if left <= 0:
                    raise DnsFault(f"{name}: {trouble}")
                try:
                    answer = await self._ask(server, name, kind, min(wait, left), left)
                except DnsFault as fault:
                    trouble = str(fault)
                    refused += "timed out" not in trouble
                    continue
                except RemoteFault as fault:
                    trouble = f"{server[0]}: {fault}"
                    refused += 1
                    continue
                if answer.usable:
                    return answer
                trouble = f"{server[0]} says {_CODES.get(answer.code, answer.code)}"
                refused += 1
            if refused == len(servers):
                raise DnsFault(f"{name}: {trouble}")
            wait *= 2

    async def _ask(
        self, server: tuple[str, int], name: str, kind: int, wait: float, left: float
    ) -> Answer:
        question = encode_question(self._rng.getrandbits(16), name, kind)
        data = await ask_udp(self._reactor, self._clock, server, question, wait)
        answer = read_answer(data, name, kind)
        if answer.truncated:
            data = await ask_tcp(self._reactor, self._clock, server, question, left)
            answer = read_answer(data, name, kind)
            if answer.truncated:
                raise RemoteFault("cut short over TCP")
        return answer


_CODES = {
    dns.EFORMAT: "FORMERR",
    dns.ESERVER: "SERVFAIL",
    dns.ENOTIMP: "NOTIMP",
    dns.EREFUSED: "REFUSED",
}


def _clean(name: str) -> str:
    return name.removesuffix(".").lower()


def _as_text(records: Sequence[Any]) -> list[str]:
    return [str(ip_address(record.address)) for record in records]


def _text(name: Any) -> str:
    raw: bytes = name.name
    return raw.decode("ascii", "replace").rstrip(".").lower()


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
