"""Which node gets a session, and who may be asked at all (pure).

:class:`Pool` has a :class:`Member` for each node that the cluster knows, ourselves among
them.  A member is in the :mod:`.picker` exactly while it may be given sessions: it is
heard, it takes sessions of others (or is ourselves), it says that it is well, and it has
not failed us lately (:mod:`.health`).  What changes that is told by the cluster
(:meth:`Pool.update`) or learnt from sessions and probes; either way :class:`Change` says
who is in or out since now, and why, for the log.

*Who starts slowly.*  A node that comes back, or that nobody knew, begins with a part of
its weight (``slow_start``).  Those that are there when this node starts do not: they have
worked all the time, it is we who are new.

*How long to try.*  A client has to be greeted within ``connect_timeout``, by whomever.  So
each peer has half of the time that is left (:func:`time_for`), at most :data:`MOST_TRIES`
peers are asked, and then it is served here.

The load balancer's service calls this for every session.  Times are monotonic seconds, and
arguments.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..cluster.values import Backend
from ..config.model import Balance
from .health import Band, Moderation, PeerHealth, Recovery, State, unfit_words
from .picker import Picker
from .values import Failing

__all__ = ["MOST_TRIES", "Change", "Member", "Pool", "Rules", "time_for"]

#: So many peers are asked to take one session.
MOST_TRIES = 3
#: With less time left than this (seconds) nobody else is asked.
LEAST_TIME = 0.02
#: Nodes that are heard so soon after our start (seconds) were there before us.
SETTLING = 5.0
#: The shares that are told are those since the first of so many samples, one each so many
#: seconds: of the last minute.
SAMPLE = 5.0
SAMPLES = 13


@dataclass(frozen=True, slots=True)
class Rules:
    """What the ini says.  ``peer_sessions``: at once, with one peer; 0: no limit."""

    balance: Balance = Balance.ROUND_ROBIN
    slow_start: float = 0.0
    adaptive: bool = True
    peer_sessions: int = 0
    connect_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Change:
    """A node that gets sessions since now (``why`` is ""), or none, and why."""

    node: str
    why: str


def time_for(tries: int, left: float) -> float:
    """Return how long the next peer has to greet, in seconds; 0: ask nobody else.

    ``tries`` were made, ``left`` is what is left of ``connect_timeout``.
    """
    return left / 2 if tries < MOST_TRIES and left / 2 >= LEAST_TIME else 0.0


class Member:
    """One node, what is known of it, and what it did for us; :class:`Pool` changes it."""

    __slots__ = (
        "address", "backend", "failures", "health", "heard", "moderation", "name", "octets_in",
        "octets_out", "open", "own", "samples", "sessions", "why",
    )  # fmt: skip

    def __init__(self, backend: Backend, own: bool, now: float) -> None:
        self.name = backend.node
        self.own = own
        self.backend = backend
        #: The backend's address, as text.
        self.address = str(backend.address)
        self.health = PeerHealth(now, Recovery())
        self.moderation = Moderation(now, Band())
        self.heard = backend.heard
        #: Why it gets no sessions; "" where it does, None before that is known.
        self.why: str | None = None
        #: Sessions that are with it or on their way; and that it greeted, in all.
        self.open = 0
        self.sessions = 0
        #: From clients, and to them, in sessions that are over.
        self.octets_in = 0
        self.octets_out = 0
        #: How often it took no session, or no probe.
        self.failures: dict[Failing, int] = {}
        #: The sessions that it had at past times.
        self.samples: deque[int] = deque(maxlen=SAMPLES)

    @property
    def lately(self) -> int:
        """Sessions in the last minute."""
        return self.sessions - (self.samples[0] if self.samples else 0)


class Pool:
    """All nodes."""

    def __init__(self, rules: Rules) -> None:
        # Both begin with the first nodes.
        self._began = 0.0
        self._sampled = 0.0
        self._rules = rules
        self._draining = False
        self.picker = Picker(rules.balance, rules.slow_start)
        self.members: dict[str, Member] = {}
        #: Our own name, once :meth:`update` has told.
        self.own = ""

    # -- what is told

    @property
    def rules(self) -> Rules:
        """The settings."""
        return self._rules

    def reconfigure(self, now: float, rules: Rules) -> None:
        """Take new settings."""
        self._rules = rules
        self.picker.balance = rules.balance
        self.picker.slow_start = rules.slow_start
        for member in self.members.values():
            self._moderate(now, member)
            self._limit(member)

    @property
    def draining(self) -> bool:
        """Whether we ourselves get no sessions, whatever our weight."""
        return self._draining

    def drain(self, now: float, draining: bool) -> list[Change]:
        """Give ourselves no sessions, or some again."""
        self._draining = draining
        own = self.members.get(self.own)
        return [] if own is None else self._settle(now, own)

    def update(self, now: float, backends: Sequence[Backend]) -> list[Change]:
        """Take the nodes as they are now, ourselves first."""
        if not self.members:
            self._began = self._sampled = now
        self.own = backends[0].node
        changes = []
        for backend in backends:
            member = self.members.get(backend.node)
            if member is None:
                own = backend is backends[0]
                member = self.members[backend.node] = Member(backend, own, now)
            changes += self._take(now, member, backend)
        if len(backends) != len(self.members):
            there = {each.node for each in backends}
            for name in [name for name in self.members if name not in there]:
                del self.members[name]
                self.picker.leave(name)
                changes.append(Change(name, "forgotten"))
        return changes

    def _take(self, now: float, member: Member, backend: Backend) -> list[Change]:
        anew = backend.incarnation != member.backend.incarnation
        weighed = backend.weight != member.backend.weight
        member.backend = backend
        member.address = str(backend.address)
        if anew:
            # It came back before anybody missed it: it is new all the same.
            self.picker.leave(member.name)
        if anew or backend.heard > member.heard:
            member.heard = backend.heard
            member.health.heard(backend.heard, backend.fitness, anew)
        changes = self._settle(now, member)
        if weighed and member.name in self.picker.nodes:
            self.picker.reweigh(member.name, backend.weight)
        self._moderate(now, member)
        return changes

    def _moderate(self, now: float, member: Member) -> None:
        member.moderation.report(now, member.backend.load / 1000)
        if member.name in self.picker.nodes:
            factor = member.moderation.factor if self._rules.adaptive else 1.0
            self.picker.moderate(member.name, factor)

    def _limit(self, member: Member) -> None:
        if not member.own and member.name in self.picker.nodes:
            self.picker.limit(member.name, self._rules.peer_sessions)

    def _why_not(self, member: Member) -> str:
        """Say why a member gets no sessions; "" where it does."""
        backend = member.backend
        if member.own:
            return "draining" if self._draining else unfit_words(backend.fitness)
        if not backend.alive:
            return "not heard"
        if not backend.port:
            return "takes no sessions of others"
        if backend.fitness:
            return unfit_words(backend.fitness)
        health = member.health
        return "" if health.state is State.IN else health.last_failure

    def _settle(self, now: float, member: Member) -> list[Change]:
        """Let a member in or out as it deserves."""
        why, before, name = self._why_not(member), member.why, member.name
        member.why = why
        if why:
            self.picker.leave(name)
        elif name not in self.picker.nodes:
            slowly = before is not None or now - self._began >= SETTLING
            self.picker.join(name, member.backend.weight, now, slowly, member.open)
            self._limit(member)
        return [] if why == before else [Change(name, why)]

    # -- sessions

    def pick(self, now: float, without: Iterable[str] = (), here: int = 0) -> Member | None:
        """Return the peer that gets a session, and count it; None: it stays here.

        ``without`` are those that were tried; ``here`` is how many sessions we have.
        """
        picker, own = self.picker, self.own
        if picker.balance is Balance.LEAST_SESSIONS and own in picker.nodes:
            picker.nodes[own].sessions = here
        name = picker.pick(now, tuple(without))
        if name is None:
            return None
        if name == own:
            picker.closed(name)
            return None
        member = self.members[name]
        member.open += 1
        return member

    def stays(self) -> None:
        """A session that could have gone to any node is held here."""
        self.members[self.own].sessions += 1

    def greeted(self, member: Member) -> None:
        """A peer greeted a session."""
        member.sessions += 1

    def failed(self, now: float, member: Member, why: Failing) -> list[Change]:
        """A peer did not take a session."""
        self._over(member)
        return self.refused(now, member, why)

    def refused(self, now: float, member: Member, why: Failing) -> list[Change]:
        """A peer took no session, or no probe."""
        member.failures[why] = member.failures.get(why, 0) + 1
        if why is not Failing.OURS:
            member.health.failed(now, why.value)
        return self._settle_if_known(now, member)

    def ended(self, member: Member, octets_in: int, octets_out: int) -> None:
        """A session with a peer is over."""
        member.octets_in += octets_in
        member.octets_out += octets_out
        self._over(member)

    def _over(self, member: Member) -> None:
        member.open -= 1
        self.picker.closed(member.name)

    # -- probes

    def to_probe(self, now: float) -> list[Member]:
        """Return the peers that want a probe; it is taken to be under way."""
        found = []
        for member in self.members.values():
            backend = member.backend
            if member.own or not backend.alive or not backend.port or backend.fitness:
                continue
            if member.health.wants_probe(now):
                member.health.probing()
                found.append(member)
        return found

    def probed(self, now: float, member: Member, why: Failing | None) -> list[Change]:
        """A probe was greeted (None), or not."""
        if why is Failing.OURS:
            # It says nothing of the peer, who has to be asked again all the same.
            member.health.failed(now, member.health.last_failure)
        elif why is not None:
            return self.refused(now, member, why)
        else:
            member.health.greeted(now)
        return self._settle_if_known(now, member)

    def _settle_if_known(self, now: float, member: Member) -> list[Change]:
        """Settle a member, unless its node is gone or another took its name."""
        return self._settle(now, member) if self.members.get(member.name) is member else []

    # -- what is shown

    def sample(self, now: float) -> None:
        """Note the sessions so far, every few seconds."""
        if now - self._sampled >= SAMPLE:
            self._sampled = now
            for member in self.members.values():
                member.samples.append(member.sessions)

    def shares_had(self) -> dict[str, float]:
        """Return the part of the last minute's sessions that each node had, 0 to 1."""
        lately = {name: member.lately for name, member in self.members.items()}
        total = sum(lately.values())
        return {name: count / total if total else 0.0 for name, count in lately.items()}

    def shares_wanted(self, now: float) -> dict[str, float]:
        """Return the part of the sessions that each node is to get now, 0 to 1."""
        shares = self.picker.shares(now)
        return {name: shares.get(name, 0.0) for name in self.members}
