"""Counters: what this process has done since it started (pure).

Plain integers on an object with slots: ``counters.messages_accepted += 1`` is all that a
hot path pays.  One :class:`Counters` is made by ``assemble`` and given to every room that
counts; only the reactor's thread writes it.  The control room reads it: for Prometheus
when it is scraped, for ``mailsecure status`` every few seconds, from which the rates are
made.

Each field says what one count is; that text is the metric's help.  A count never falls.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["Counters"]


def _count(what: str) -> int:
    """Declare a counter; ``what`` says in one phrase what is counted."""
    counter: int = field(default=0, metadata={"what": what})
    return counter


@dataclass(slots=True)
class Counters:
    """Every count of the node, all from zero at start."""

    sessions_opened: int = _count("Sessions that were greeted.")
    sessions_refused: int = _count("Connections answered with 421 or 554 instead of a greeting.")
    sessions_tls: int = _count("Sessions that came under TLS, at once or by STARTTLS.")
    peer_refused: int = _count("Connections to peer_listen that no node of the cluster sealed.")
    early_talkers: int = _count("Clients that talked before the greeting.")
    sessions_shared: int = _count("Sessions that another node had through this one.")
    sessions_shared_in_vain: int = _count("Times that another node did not take a session.")
    octets_shared: int = _count("Octets of such sessions, both ways, once they are over.")
    messages_accepted: int = _count("Messages answered with 250.")
    octets_accepted: int = _count("Octets of the messages answered with 250.")
    messages_refused: int = _count("Messages refused after MAIL or after their content.")
    recipients_accepted: int = _count("Forward-paths answered with 250.")
    recipients_refused: int = _count("Forward-paths refused.")
    recipients_refused_by_checks: int = _count("Of these, refused by a check.")
    messages_scanned: int = _count("Messages that were judged.")
    messages_tagged: int = _count("Messages delivered with a mark.")
    messages_quarantined: int = _count("Messages held for one recipient at least.")
    messages_rejected: int = _count("Messages refused by their verdict.")
    messages_put_off: int = _count("Messages answered with 451 by their verdict.")
    messages_discarded: int = _count("Messages forgotten by their verdict.")
    messages_malware: int = _count("Messages in which malware was found.")
    messages_unscannable: int = _count("Messages that could not be read.")
    checks_failed: int = _count("Checks that could not do their work.")
    protocol_errors: int = _count("Commands answered with 500 to 504, or 521.")
    timeouts: int = _count("Sessions ended by a deadline or a minimum rate.")
    internal_errors: int = _count("Unexpected errors, answered with 451.")
    delivered: int = _count("Recipients taken by a next hop.")
    deferred: int = _count("Attempts for a recipient that will be repeated.")
    failed: int = _count("Recipients given up.")
    attempts: int = _count("Messages handed to a transport.")
    connections_opened: int = _count("Connections made to next hops.")
    connections_failed: int = _count("Connections to next hops that could not be made.")
    bounces_sent: int = _count("Delivery status notifications put into the queue.")
    bounces_dropped: int = _count("Notifications not sent: null reverse-path or NOTIFY=NEVER.")
    spool_failures: int = _count("Messages that the spool could not take.")

    @classmethod
    def meanings(cls) -> dict[str, str]:
        """Return what each counter counts, by name, in the order of the fields."""
        return {each.name: each.metadata["what"] for each in fields(cls)}

    def values(self) -> dict[str, int]:
        """Return all counts by name, as they are now."""
        return {name: getattr(self, name) for name in self.__slots__}
