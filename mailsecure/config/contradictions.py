"""Options that are right by themselves and wrong together (pure).

Each rule names the options it looks at, the one to blame first.  The loader leaves out
a rule when one of them is wrong already, so that one mistake is told once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from .model import BareNewlines, Config

__all__ = ["Contradiction", "contradictions"]

# RFC 5321 §4.5.3.1.6 and §4.5.3.1.7.
_SHORTEST_LINE = 1000
_SMALLEST_MESSAGE = 64 << 10

_LISTENING = (
    ("smtp", "listen"),
    ("smtp", "listen_tls"),
    ("manhole", "listen"),
    ("metrics", "listen"),
)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """What is wrong between ``options``, of which the first is to blame."""

    options: tuple[tuple[str, str], ...]
    what: str
    hint: str = ""


def contradictions(config: Config) -> Iterator[Contradiction]:
    """Yield everything in ``config`` that cannot be meant."""
    return chain(_identity(config), _listening(config), _limits(config), _policy(config))


def _identity(config: Config) -> Iterator[Contradiction]:
    smtp, node = config.smtp, config.node
    if smtp.tls_key is not None and smtp.tls_certificate is None:
        yield _found("smtp.tls_key smtp.tls_certificate", "is of no use without tls_certificate")
    if smtp.listen_tls and smtp.tls_certificate is None:
        yield _found("smtp.listen_tls smtp.tls_certificate", "needs a tls_certificate")
    if config.manhole.listen and config.manhole.authorized_keys is None:
        yield _found(
            "manhole.listen manhole.authorized_keys", "needs authorized_keys: nobody could enter"
        )
    if node.group and not node.user:
        yield _found("node.group node.user", "is of no use without user")


def _listening(config: Config) -> Iterator[Contradiction]:
    smtp = config.smtp
    if not smtp.listen and not smtp.listen_tls:
        yield _found(
            "smtp.listen smtp.listen_tls", "is empty, and so is listen_tls: no mail could arrive"
        )
    places = (*smtp.listen, *smtp.listen_tls, config.manhole.listen, config.metrics.listen)
    for place, times in Counter(filter(None, places)).items():
        # Port 0 is whatever port is free, so it can be had twice.
        if times > 1 and not place.startswith(("tcp:0", "tcp6:0")):
            at = [pair for pair in _LISTENING if place in _endpoints(config, *pair)]
            yield Contradiction(
                tuple(reversed(at)), f"{place} is listed twice; it can be bound once"
            )


def _endpoints(config: Config, section: str, option: str) -> tuple[str, ...]:
    value = getattr(getattr(config, section), option)
    return (value,) if isinstance(value, str) else tuple(value)


#: What must not be larger than what (both in the same unit).
_ORDER = (
    ("smtp.max_sessions_per_client", "smtp.max_sessions"),
    ("smtp.command_timeout", "smtp.session_timeout"),
    ("smtp.data_timeout", "smtp.transaction_timeout"),
    ("smtp.transaction_timeout", "smtp.session_timeout"),
    ("delivery.concurrency", "delivery.max_connections"),
    ("delivery.warn_after", "delivery.expire"),
    ("spool.inline_size", "spool.segment_size"),
)


def _limits(config: Config) -> Iterator[Contradiction]:
    smtp = config.smtp
    for smaller, larger in _ORDER:
        if _get(config, smaller) > _get(config, larger):
            yield _found(f"{smaller} {larger}", f"is more than {larger.partition('.')[2]}")
    if smtp.max_line_length < _SHORTEST_LINE:
        yield _found("smtp.max_line_length", "is below the 1000 octets of RFC 5321 §4.5.3.1.6")
    if smtp.max_message_size < _SMALLEST_MESSAGE:
        yield _found("smtp.max_message_size", "is below the 64K of RFC 5321 §4.5.3.1.7")


def _policy(config: Config) -> Iterator[Contradiction]:
    smtp = config.smtp
    if smtp.bare_newlines is BareNewlines.NORMALISE and not smtp.bare_newlines_networks:
        yield _found(
            "smtp.bare_newlines smtp.bare_newlines_networks",
            "is normalise, but bare_newlines_networks is empty: nobody's are normalised",
        )
    for network in config.relay.networks:
        if network.prefixlen == 0:
            yield _found(
                "relay.networks",
                f"{network} is the whole internet: anybody could send mail to anybody",
                "name your own networks",
            )


def _found(options: str, what: str, hint: str = "") -> Contradiction:
    pairs = (each.partition(".") for each in options.split())
    return Contradiction(tuple((section, name) for section, _, name in pairs), what, hint)


def _get(config: Config, place: str) -> float:
    section, _, name = place.partition(".")
    value: float = getattr(getattr(config, section), name)
    return value
