"""Makes the notices that go with a settlement: reads the original, draws the id.

The text is :mod:`.bounces`' work.  A message that is not in memory is read in a thread.
What must not be notified ends here with a line in the log: a null reverse-path (a bounce
of a bounce, RFC 5321 §6.1) and what NOTIFY does not ask for.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from ..counters import Counters
from ..errors import LocalFault
from ..records.api import Recorder
from ..records.values import DeedEvent, MessageEvent, own_message
from ..spool.api import Body, NewMessage, QueuedMessage
from ..spool.ids import IdSource, id_name
from ..world import World
from .bounces import Action, Report, Settings, compose, excerpt_octets, wanted

__all__ = ["Notices"]

_log = Logger(namespace="bounce")


class Notices:
    """Writes notices; ``settings`` is replaced at a reload."""

    def __init__(
        self,
        world: World,
        ids: IdSource,
        counters: Counters,
        settings: Settings,
        recorder: Recorder,
    ) -> None:
        self._world = world
        self._ids = ids
        self._counters = counters
        self.settings = settings
        self._tell = recorder.tell

    async def write(
        self, message: QueuedMessage, reports: Sequence[Report], now: float
    ) -> NewMessage | None:
        """Return the notice with all of ``reports`` that are wanted; None if none is."""
        asked = [report for report in reports if wanted(report)]
        if not asked or not message.envelope.reverse_path:
            self._drop(message, reports)
            return None
        excerpt = await self._excerpt(message)
        return compose(message, excerpt, asked, self._ids.draw(), now, self.settings)

    def announce(self, message: QueuedMessage, notice: NewMessage) -> None:
        """Say that ``notice`` is in the queue now."""
        self._counters.bounces_sent += 1
        _log.info(
            "{message}: sender notified by {notice}: to=<{recipient}>",
            message=id_name(message.id),
            notice=id_name(notice.id),
            recipient=message.envelope.reverse_path,
        )

        now, sender = self._world.wall(), message.envelope.reverse_path
        deed = DeedEvent(message.id, now, "notified", "mailsecure", "", (sender,), notice.id)
        self._tell(deed)
        self._tell(self._notice_event(notice, sender))

    def _notice_event(self, notice: NewMessage, sender: str) -> MessageEvent:
        """Return what the history is told of a message of ours."""
        hostname = self.settings.hostname
        return own_message(
            notice.id,
            notice.arrived,
            f"{id_name(notice.id)}@{hostname}",
            f"MAILER-DAEMON@{hostname}",
            sender,
            notice.body.octets,
        )

    def _drop(self, message: QueuedMessage, reports: Sequence[Report]) -> None:
        failed = sum(report.action is Action.FAILED for report in reports)
        if not failed:
            return
        self._counters.bounces_dropped += 1
        null = not message.envelope.reverse_path
        _log.info(
            "{message}: sender not notified of {recipients} failed: {reason}",
            message=id_name(message.id),
            recipients=failed,
            reason="null reverse-path" if null else "not asked for",
        )

    async def _excerpt(self, message: QueuedMessage) -> bytes:
        """Return the beginning of the original; nothing where it cannot be read."""
        body, limit = message.body, excerpt_octets(self.settings.bounce_size)
        try:
            if body.in_memory:
                return _beginning(body, limit)
            return await self._world.in_thread(_beginning, body, limit)
        except LocalFault as fault:
            _log.warn(
                "{message}: the notice goes without the original: {reason}",
                message=id_name(message.id),
                reason=str(fault),
            )
            return b""


def _beginning(body: Body, limit: int) -> bytes:
    pieces = []
    left = limit
    for piece in body.pieces():
        pieces.append(piece[:left])
        left -= len(pieces[-1])
        if not left:
            break
    return b"".join(pieces)
