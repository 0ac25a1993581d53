"""Options about judging mail that are right by themselves and wrong together (pure).

As :mod:`.contradictions`, for the sections of :mod:`.scanning`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from .contradictions import Contradiction
from .model import Config
from .routes import parse_domain
from .scanning import NEVER, Profile, Scan

__all__ = ["scan_contradictions"]

_LONGEST_PREFIX = {"ipv4_prefix": 32, "ipv6_prefix": 128}


def scan_contradictions(config: Config) -> Iterator[Contradiction]:
    """Yield everything in ``config`` about judging mail that cannot be meant."""
    return chain(
        _thresholds(config.scan),
        _listeners(config),
        _profiles(config),
        _keys(config),
        _rest(config),
    )


def _found(title: str, option: str, what: str, hint: str = "") -> Contradiction:
    return Contradiction(((title, option),), what, hint)


def _thresholds(scan: Scan) -> Iterator[Contradiction]:
    pairs = (("tag", "quarantine"), ("quarantine", "reject"), ("tag", "reject"))
    for smaller, larger in pairs:
        low, high = getattr(scan, smaller), getattr(scan, larger)
        if low > high and low != NEVER:
            yield Contradiction((("scan", smaller), ("scan", larger)), f"is more than {larger}")
            return
    if scan.check_timeout > scan.timeout:
        options = (("scan", "check_timeout"), ("scan", "timeout"))
        yield Contradiction(options, "is more than timeout")


def _listeners(config: Config) -> Iterator[Contradiction]:
    known = {*config.smtp.listen, *config.smtp.listen_tls}
    for each in config.scan.relay_only_listeners:
        if each not in known:
            yield _found(
                "scan",
                "relay_only_listeners",
                f"{each} is not one of the endpoints of [smtp] listen and listen_tls",
                "write it as it stands there",
            )


def _profiles(config: Config) -> Iterator[Contradiction]:
    owners: dict[str, str] = {}
    for name, profile in config.profile.items():
        title = f"profile:{name}"
        if not profile.recipients:
            yield _found(title, "recipients", "is empty: the profile is nobody's")
        for whom in profile.recipients:
            other = owners.setdefault(whom, name)
            if other != name:
                yield _found(title, "recipients", f"{whom} is of [profile:{other}] already")
        yield from _unlike(title, profile)


def _unlike(title: str, profile: Profile) -> Iterator[Contradiction]:
    """Yield the recipients that can be nobody's."""
    for whom in profile.recipients:
        local, _, domain = whom.rpartition("@")
        if "@" in whom and not local:
            yield _found(title, "recipients", f"{whom} has no local part: write {domain}")
            continue
        try:
            parse_domain(domain)
        except ValueError as error:
            yield _found(title, "recipients", f"{whom}: {error}")


def _keys(config: Config) -> Iterator[Contradiction]:
    for name, signing in config.signing.items():
        title = f"signing:{name}"
        if signing.key is None:
            yield _found(title, "key", "is empty: there is nothing to sign with")
        if not signing.domains:
            yield _found(title, "domains", "is empty: nobody's mail is signed")


def _rest(config: Config) -> Iterator[Contradiction]:
    for option, longest in _LONGEST_PREFIX.items():
        if getattr(config.greylist, option) > longest:
            yield _found("greylist", option, f"is no length of a prefix: {longest} at most")
    records = config.records
    if records.password_file is not None and "://" not in records.database:
        options = (("records", "password_file"), ("records", "database"))
        yield Contradiction(options, "is of no use: the database is a file")
