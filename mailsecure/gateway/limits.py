"""How much one client may do: sessions at once, and three rates (pure).

A client is an IPv4 address or an IPv6 /64, because that is what one customer of a
provider has.  Each has a record with three token buckets that hold one minute's worth
and fill steadily; ``now`` is monotonic seconds.  The records are bounded: the longest
unused one without a session goes first, and a client whose record went starts afresh.

:class:`~.session.GatewaySession` asks; clients of ``[relay] networks`` are never
asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ClientLimits", "Limits", "client_key"]

#: Records kept; some 200 octets each.
MAX_CLIENTS = 50_000
#: How long a client that sent a message is greeted without delay.
TRUSTED_FOR = 86_400.0


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
    """All clients of this node."""

    def __init__(self, limits: Limits, capacity: int = MAX_CLIENTS) -> None:
        self.limits = limits
        self._capacity = capacity
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def open(self, key: str, now: float) -> str:
        """Count a new session in; return "" or, uncounted, why it is one too many."""
        client = self._record(key, now)
        if client.sessions >= self.limits.sessions:
            return "too many sessions at once"
        if self.limits.session_rate:
            if client.session_tokens < 1.0:
                return "too many sessions a minute"
            client.session_tokens -= 1.0
        client.sessions += 1
        return ""

    def close(self, key: str) -> None:
        """Count a session out that :meth:`open` counted in."""
        client = self._clients.get(key)
        if client is not None and client.sessions > 0:
            client.sessions -= 1

    def message(self, key: str, now: float) -> bool:
        """Say whether the client may send one more message now, and count it."""
        client = self._record(key, now)
        if not self.limits.message_rate:
            return True
        if client.messages < 1.0:
            return False
        client.messages -= 1.0
        return True

    def recipient(self, key: str, now: float) -> bool:
        """Say whether the client may name one more recipient now, and count it."""
        client = self._record(key, now)
        if not self.limits.recipient_rate:
            return True
        if client.recipients < 1.0:
            return False
        client.recipients -= 1.0
        return True

    def sent_mail(self, key: str, now: float) -> None:
        """Remember that a message was taken from the client."""
        self._record(key, now).good_until = now + TRUSTED_FOR

    def is_known(self, key: str, now: float) -> bool:
        """Say whether a message was taken from the client in the last day."""
        client = self._clients.get(key)
        return client is not None and now < client.good_until

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
