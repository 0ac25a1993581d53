"""What is done with a message, given what was found (pure).

Scores are added up, and the highest threshold that the sum reaches names an action; a
symbol with an action of its own asks for that at least.  Recipients may differ: a symbol may
be about some of them only, and ``[profile:NAME]`` gives some their own thresholds.

A client gets one answer for all recipients of a message (RFC 5321 §4.2.5), so what they
would get one by one is brought together:

* refused, if it would be refused for all of them;
* else asked to come again, if anybody's part cannot be judged now;
* else taken.  For whom it would be refused, it is quarantined: the others get it, and a
  bounce to a sender that may be forged would be worse.

:func:`judge` is called at the end of DATA, :func:`refusal` at each RCPT.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config.model import Config
from ..config.scanning import NEVER, OnFailure, Profile, Scan, ScanAction
from ..smtp.envelope import Recipient
from ..smtp.replies import Reply
from .values import Special, Symbol

__all__ = ["Policy", "Thresholds", "Verdict", "judge", "reasons", "refusal"]

_RANK = {action: rank for rank, action in enumerate(ScanAction)}
_STATUS = re.compile(r"([45])\.(\d{1,3})\.(\d{1,3}) (.+)", re.DOTALL)
_PUBLIC = {
    ScanAction.REJECT: "Message refused",
    ScanAction.TEMPFAIL: "Message cannot be checked now, try again later",
}
#: Symbols named in a reason for people.
_NAMED = 5


def _stricter(one: ScanAction, other: ScanAction | None) -> ScanAction:
    return one if other is None or _RANK[one] >= _RANK[other] else other


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which score on what is done; NEVER: not at all.  None: nothing is ever done."""

    tag: float
    quarantine: float
    reject: float

    def action(self, score: float) -> ScanAction:
        """Return what ``score`` comes to."""
        for limit, action in (
            (self.reject, ScanAction.REJECT),
            (self.quarantine, ScanAction.QUARANTINE),
            (self.tag, ScanAction.TAG),
        ):
            if score >= limit:
                return action
        return ScanAction.ACCEPT

    @property
    def levels(self) -> tuple[tuple[str, float], ...]:
        """What can be reached: (action, score), the mildest first."""
        pairs = (("tag", self.tag), ("quarantine", self.quarantine), ("reject", self.reject))
        return tuple(pair for pair in pairs if pair[1] != NEVER)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the ini says about verdicts."""

    thresholds: Thresholds
    special: Mapping[Special, ScanAction]
    scores: Mapping[str, float]
    #: Thresholds by mailbox, domain or .domain; None: not scanned.
    profiles: Mapping[str, Thresholds | None]

    @classmethod
    def of(cls, config: Config) -> Policy:
        """Return the policy of ``config``."""
        scan = config.scan
        late = scan.on_failure is OnFailure.TEMPFAIL
        return cls(
            Thresholds(scan.tag, scan.quarantine, scan.reject),
            {
                Special.MALWARE: scan.malware,
                Special.UNSCANNABLE: scan.unscannable,
                Special.ENCRYPTED: scan.encrypted,
                Special.FAILURE: ScanAction.TEMPFAIL if late else ScanAction.ACCEPT,
            },
            scan.scores,
            {
                whom: _thresholds(profile, scan)
                for profile in config.profile.values()
                for whom in profile.recipients
            },
        )

    def thresholds_for(self, mailbox: str) -> Thresholds | None:
        """Return those of the most exact profile for ``mailbox``; None: it is not scanned."""
        if not self.profiles:
            return self.thresholds
        mailbox = mailbox.lower()
        domain = mailbox.rpartition("@")[2]
        places = [mailbox, domain]
        while domain:
            domain = domain.partition(".")[2]
            places.append(f".{domain}")
        for place in places:
            if place in self.profiles:
                return self.profiles[place]
        return self.thresholds

    def counted(self, symbol: Symbol) -> Symbol:
        """Return ``symbol`` with the score that the ini gives it."""
        score = self.scores.get(symbol.name)
        return symbol if score is None else replace(symbol, score=score)

    def action(self, symbol: Symbol) -> ScanAction | None:
        """Return what ``symbol`` asks for by itself."""
        if symbol.action is not None or symbol.special is None:
            return symbol.action
        return self.special[symbol.special]


def _thresholds(profile: Profile, scan: Scan) -> Thresholds | None:
    if not profile.scan:
        return None
    return Thresholds(
        scan.tag if profile.tag is None else profile.tag,
        scan.quarantine if profile.quarantine is None else profile.quarantine,
        scan.reject if profile.reject is None else profile.reject,
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done with a message.

    ``action`` is what the client's answer follows: accept (some recipients may be
    quarantined, or nobody be left), tempfail, reject or discard.  ``outcomes`` has each
    mailbox's own, as it is carried out.  ``strictest`` is the strictest of them.
    ``symbols`` have the scores that counted, ``levels`` are the thresholds of the first
    recipient.  ``reply`` is for tempfail and reject.
    """

    action: ScanAction
    strictest: ScanAction
    score: float
    symbols: tuple[Symbol, ...]
    outcomes: Mapping[str, ScanAction]
    levels: tuple[tuple[str, float], ...]
    reply: Reply | None = None


def judge(symbols: Iterable[Symbol], recipients: Sequence[Recipient], policy: Policy) -> Verdict:
    """Return the verdict on a message for ``recipients`` (one at least)."""
    found = tuple(policy.counted(symbol) for symbol in symbols)
    wanted = {each.mailbox: _outcome(found, each.mailbox, policy) for each in recipients}
    action = _together(wanted.values())
    outcomes = dict(wanted)
    if action in (ScanAction.REJECT, ScanAction.TEMPFAIL, ScanAction.DISCARD):
        outcomes = dict.fromkeys(wanted, action)
    else:
        held = ScanAction.QUARANTINE
        outcomes = {
            mailbox: held if each is ScanAction.REJECT else each for mailbox, each in wanted.items()
        }
    first = policy.thresholds_for(recipients[0].mailbox)
    strictest = max(outcomes.values(), key=_RANK.__getitem__)
    reply = None
    if action in _PUBLIC:
        code = 554 if action is ScanAction.REJECT else 451
        reply = _reply(found, action, policy, code)
    return Verdict(
        action,
        strictest,
        round(sum(symbol.score for symbol in found), 2),
        found,
        outcomes,
        () if first is None else first.levels,
        reply,
    )


def _outcome(symbols: Iterable[Symbol], mailbox: str, policy: Policy) -> ScanAction:
    """Return what would be done if ``mailbox`` were the only recipient."""
    thresholds = policy.thresholds_for(mailbox)
    if thresholds is None:
        return ScanAction.ACCEPT
    score, action = 0.0, ScanAction.ACCEPT
    for symbol in symbols:
        if symbol.recipients is None or mailbox in symbol.recipients:
            score += symbol.score
            action = _stricter(action, policy.action(symbol))
    return _stricter(action, thresholds.action(round(score, 2)))


def _together(wanted: Iterable[ScanAction]) -> ScanAction:
    """Return what the one answer for all is."""
    kinds = set(wanted)
    if kinds == {ScanAction.DISCARD}:
        return ScanAction.DISCARD
    if kinds <= {ScanAction.REJECT, ScanAction.DISCARD}:
        return ScanAction.REJECT
    return ScanAction.TEMPFAIL if ScanAction.TEMPFAIL in kinds else ScanAction.ACCEPT


def refusal(
    symbols: Iterable[Symbol], mailbox: str, policy: Policy
) -> tuple[Reply, tuple[Symbol, ...]] | None:
    """Return the reply to a RCPT for ``mailbox`` that is refused now, and for what.

    What only a score or a milder action speaks against waits for the message.
    """
    if policy.thresholds_for(mailbox) is None:
        return None
    found = tuple(
        policy.counted(symbol)
        for symbol in symbols
        if symbol.recipients is None or mailbox in symbol.recipients
    )
    asked = {policy.action(symbol) for symbol in found}
    if ScanAction.REJECT in asked:
        return _reply(found, ScanAction.REJECT, policy, 550), found
    if ScanAction.TEMPFAIL in asked:
        return _reply(found, ScanAction.TEMPFAIL, policy, 450), found
    return None


def _reply(symbols: Iterable[Symbol], action: ScanAction, policy: Policy, code: int) -> Reply:
    """Return the reply: the text of the first symbol that asked for ``action`` and has one.

    Such a text may begin with an enhanced status code of its own (RFC 3463, RFC 7372).
    """
    told = (each.reply for each in symbols if each.reply and policy.action(each) is action)
    text = next(told, _PUBLIC[action])
    digit = str(code)[0]
    match = _STATUS.fullmatch(text)
    if match is not None and match[1] == digit:
        return Reply(code, f"{match[1]}.{match[2]}.{match[3]}", _one_line(match[4]))
    return Reply(code, f"{digit}.7.1", _one_line(text))


def _one_line(text: str) -> str:
    """Return what a reply may hold: one line of printable ASCII, not too long."""
    return "".join(c if " " <= c <= "~" else "?" for c in " ".join(text.split()))[:300]


def reasons(symbols: Iterable[Symbol], policy: Policy) -> str:
    """Return in a few words what spoke most against a message, for listings."""
    against = [each for each in symbols if each.score > 0 or policy.action(each) is not None]
    against.sort(key=lambda each: (_rank(policy.action(each)), each.score), reverse=True)
    named = [
        f"{each.name} ({each.reason})" if each.reason else each.name for each in against[:_NAMED]
    ]
    return ", ".join(named)


def _rank(action: ScanAction | None) -> int:
    return -1 if action is None else _RANK[action]
