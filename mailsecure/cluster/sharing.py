"""What nodes share over their links, beside being there.

A *subject* is a word that the same part of each node listens to (:meth:`Sharing.hear`);
what is said of it is a JSON object, as strictly read there as a stranger's.  Nothing is
kept for a peer that is not linked or does not read: :meth:`Sharing.tell` returns False, and
who cares says it again later, or says everything anew when the link is up
(:class:`Listener`).

:mod:`.links` makes one, and carries it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ..errors import RemoteFault

__all__ = ["Listener", "Sharing"]


class Listener(Protocol):
    """The part of a node that a subject belongs to."""

    def linked(self, node: str) -> None:
        """A link to ``node`` is up: it knows nothing yet."""

    def unlinked(self, node: str) -> None:
        """It has ended: nothing that was heard from there is sure any more."""

    def heard(self, node: str, body: dict[str, Any]) -> None:
        """``node`` says something; RemoteFault if it makes no sense."""


class Sharing:
    """See the module's text.  ``send`` takes a node and a message; False: not now."""

    def __init__(self, send: Callable[[str, dict[str, Any]], bool]) -> None:
        self._send = send
        self._listeners: dict[str, Listener] = {}
        self._linked: set[str] = set()
        #: Messages that made no sense, or of no subject that is known here.
        self.ignored = 0

    def hear(self, subject: str, listener: Listener) -> None:
        """Have ``listener`` told of what is said of ``subject``."""
        self._listeners[subject] = listener
        for node in self._linked:
            listener.linked(node)

    def tell(self, node: str, subject: str, body: dict[str, Any]) -> bool:
        """Say something to one node; False: it is not linked, or does not read."""
        return self._send(node, {"subject": subject, "body": body})

    # -- from the links

    def linked(self, node: str) -> None:
        """A link is up."""
        self._linked.add(node)
        for listener in self._listeners.values():
            listener.linked(node)

    def unlinked(self, node: str) -> None:
        """A link has ended."""
        self._linked.discard(node)
        for listener in self._listeners.values():
            listener.unlinked(node)

    def heard(self, node: str, message: dict[str, Any]) -> None:
        """A node says something."""
        subject, body = message.get("subject"), message.get("body")
        listener = self._listeners.get(subject) if isinstance(subject, str) else None
        if listener is None or not isinstance(body, dict):
            self.ignored += 1
            return
        try:
            listener.heard(node, body)
        except RemoteFault:
            self.ignored += 1
