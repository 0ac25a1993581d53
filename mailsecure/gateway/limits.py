"""How much one client may do: sessions at once, and three rates (pure).

A client is an IPv4 address or an IPv6 /64, because that is what one customer of a
provider has.  Each has a record with three token buckets that hold one minute's worth
and fill steadily; ``now`` is monotonic seconds.  The records are bounded: the longest
unused one without a session goes first, and a client whose record went starts afresh.

*In a cluster* the limits are those of all nodes together.  What happens here is gathered
(:meth:`ClientLimits.news`) and told to the others by :mod:`.gossip`; what they tell
(:meth:`ClientLimits.heard`) counts as if it had happened here, but the sessions that a node
had are forgotten with it.  It comes a moment late, so the sum may be exceeded by what one
client does in that moment.

:class:`~.session.GatewaySession` asks; clients of ``[relay] networks`` are never
asked about.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["ClientLimits", "Limits", "Row", "client_key"]

#: Records kept; some 200 octets each.
MAX_CLIENTS = 50_000
#: How long a client that sent a message is greeted without delay.
TRUSTED_FOR = 86_400.0
#: That a client is known is told again if it was told so long ago.
RENEWED = TRUSTED_FOR - 3600.0


def client_key(address: str) -> str:
    """Return what counts as one client: an IPv4 address, an IPv6 /64.

    ``address`` is what the kernel gave: canonical, perhaps with a zone.
    """
    if ":" not in address:
        return address
    if address.startswith("::ffff:") and "." in address:
        return address[7:]
    head, _, tail = address.partition("%")[0].partition("::")
    groups = head.split(":") if head else []
    if len(groups) < 4:
        rest = tail.split(":") if tail else []
        groups += ["0"] * (8 - len(groups) - len(rest)) + rest
    return ":".join(groups[:4]) + "::/64"


@dataclass(frozen=True, slots=True)
class Row:
    """What one node tells of one client: its open sessions there, and what it did since."""

    key: str
    sessions: int
    started: int = 0
    messages: int = 0
    recipients: int = 0
    #: A message was taken from it.
    known: bool = False


class _News:
    """What one client did since it was told."""

    __slots__ = ("known", "messages", "recipients", "started")

    def __init__(self) -> None:
        self.started = self.messages = self.recipients = 0
        self.known = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The figures of the ini; a rate is a number a minute, 0 for no limit."""

    sessions: int
    session_rate: int
    message_rate: int
    recipient_rate: int


class _Client:
    __slots__ = ("good_until", "messages", "recipients", "session_tokens", "sessions", "stamp")

    def __init__(self, limits: Limits, now: float) -> None:
        self.sessions = 0
        self.stamp = now
        self.session_tokens = float(limits.session_rate)
        self.messages = float(limits.message_rate)
        self.recipients = float(limits.recipient_rate)
        self.good_until = now - 1.0

    def refill(self, limits: Limits, now: float) -> None:
        minutes = (now - self.stamp) / 60.0
        self.stamp = now
        rate = limits.session_rate
        self.session_tokens = min(rate, self.session_tokens + rate * minutes)
        rate = limits.message_rate
        self.messages = min(rate, self.messages + rate * minutes)
        rate = limits.recipient_rate
        self.recipients = min(rate, self.recipients + rate * minutes)


class ClientLimits:
    """All clients of this node; ``telling``: what they do is gathered for other nodes."""

    def __init__(self, limits: Limits, capacity: int = MAX_CLIENTS, telling: bool = False) -> None:
        self.limits = limits
        self._capacity = capacity
        self._clients: dict[str, _Client] = {}
        self._news: dict[str, _News] | None = {} if telling else None
        #: Sessions at other nodes: of each client there, and of each client in all.
        self._there: dict[str, dict[str, int]] = {}
        self._elsewhere: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def open(self, key: str, now: float) -> str:
        """Count a new session in; return "" or, uncounted, why it is one too many."""
        client = self._record(key, now)
        if client.sessions + self._elsewhere.get(key, 0) >= self.limits.sessions:
            return "too many sessions at once"
        if self.limits.session_rate:
            if client.session_tokens < 1.0:
                return "too many sessions a minute"
            client.session_tokens -= 1.0
        client.sessions += 1
        if self._news is not None:
            self._noted(key).started += 1
        return ""

    def close(self, key: str) -> None:
        """Count a session out that :meth:`open` counted in."""
        client = self._clients.get(key)
        if client is not None and client.sessions > 0:
            client.sessions -= 1
            if self._news is not None:
                self._noted(key)

    def message(self, key: str, now: float) -> bool:
        """Say whether the client may send one more message now, and count it."""
        client = self._record(key, now)
        if not self.limits.message_rate:
            return True
        if client.messages < 1.0:
            return False
        client.messages -= 1.0
        if self._news is not None:
            self._noted(key).messages += 1
        return True

    def recipient(self, key: str, now: float) -> bool:
        """Say whether the client may name one more recipient now, and count it."""
        client = self._record(key, now)
        if not self.limits.recipient_rate:
            return True
        if client.recipients < 1.0:
            return False
        client.recipients -= 1.0
        if self._news is not None:
            self._noted(key).recipients += 1
        return True

    def sent_mail(self, key: str, now: float) -> None:
        """Remember that a message was taken from the client."""
        client = self._record(key, now)
        if self._news is not None and now >= client.good_until - RENEWED:
            self._noted(key).known = True
        client.good_until = now + TRUSTED_FOR

    def is_known(self, key: str, now: float) -> bool:
        """Say whether a message was taken from the client in the last day."""
        client = self._clients.get(key)
        return client is not None and now < client.good_until

    # -- the other nodes

    def news(self, most: int) -> list[Row]:
        """Return what ``most`` clients did that was not told yet, and take it as told."""
        if not self._news:
            return []
        rows = []
        for key in list(self._news)[:most]:
            each = self._news.pop(key)
            rows.append(
                Row(
                    key,
                    self._sessions(key),
                    each.started,
                    each.messages,
                    each.recipients,
                    each.known,
                )
            )
        return rows

    def everything(self, now: float, most: int) -> list[Row]:
        """Return what a node has to know that knows nothing, of at most ``most`` clients.

        Those with sessions first, then those that were known last.
        """
        busy, known = [], []
        for key, client in reversed(self._clients.items()):
            trusted = now < client.good_until
            if client.sessions:
                busy.append(Row(key, client.sessions, known=trusted))
            elif trusted:
                known.append(Row(key, 0, known=True))
        return (busy + known)[:most]

    def heard(self, node: str, rows: Iterable[Row], now: float) -> None:
        """Count what another node tells."""
        there = self._there.setdefault(node, {})
        for row in rows:
            if row.sessions or row.key in there:
                self._count_there(there, row.key, row.sessions)
            if row.started or row.messages or row.recipients or row.known:
                client = self._record(row.key, now)
                # What comes late must not be held against a client for long.
                client.session_tokens = max(0.0, client.session_tokens - row.started)
                client.messages = max(0.0, client.messages - row.messages)
                client.recipients = max(0.0, client.recipients - row.recipients)
                if row.known:
                    client.good_until = now + TRUSTED_FOR

    def forget(self, node: str) -> None:
        """Take it that ``node`` has no sessions."""
        there = self._there.pop(node, {})
        for key in list(there):
            self._count_there(there, key, 0)

    def _count_there(self, there: dict[str, int], key: str, sessions: int) -> None:
        """Note how many sessions a client has at a node whose counts are ``there``."""
        before = there.pop(key, 0)
        if sessions and len(there) < self._capacity:
            there[key] = sessions
        total = self._elsewhere.pop(key, 0) + there.get(key, 0) - before
        if total:
            self._elsewhere[key] = total

    def _sessions(self, key: str) -> int:
        client = self._clients.get(key)
        return 0 if client is None else client.sessions

    def _noted(self, key: str) -> _News:
        assert self._news is not None
        found = self._news.get(key)
        if found is None:
            if len(self._news) >= self._capacity:
                # Nobody listens.
                del self._news[next(iter(self._news))]
            found = self._news[key] = _News()
        return found

    def _record(self, key: str, now: float) -> _Client:
        client = self._clients.pop(key, None)
        if client is None:
            client = _Client(self.limits, now)
            if len(self._clients) >= self._capacity:
                self._evict()
        else:
            client.refill(self.limits, now)
        self._clients[key] = client
        return client

    def _evict(self) -> None:
        for key, client in self._clients.items():
            if client.sessions == 0:
                del self._clients[key]
                return
