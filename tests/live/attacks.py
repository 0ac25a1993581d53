"""One row of attacks.md as a test: a script, its replies, what the next hop gets.

:meth:`AttackTestCase.attack` plays a script in each of the three segmentations against
one daemon with one next hop, waits until nothing is left in the queue, and compares:
every reply (by its beginning), every message at the next hop (recipients and content,
octet for octet, without our own trace field), and all of it among the segmentations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from .harness import Gateway, LiveTestCase, shared
from .sinks import Sink, Taken, without_trace
from .wire import SEGMENTATIONS, Step, play

__all__ = ["OK", "TAKEN", "AttackTestCase"]

#: The replies to EHLO, MAIL and one RCPT, all well; and those to a whole message.
OK = ("250", "250 2.1.0", "250 2.1.5")
TAKEN = (*OK, "354", "250 2.0.0 Ok: queued as ID")

_UNCLEAN = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")

Stored = tuple[tuple[str, ...], bytes]


@dataclass
class _Stage:
    sink: Sink
    gateway: Gateway

    def close(self) -> None:
        self.gateway.close()
        self.sink.close()


class AttackTestCase(LiveTestCase):
    """Tests that share one daemon; ``options`` are sections of its ini."""

    options: ClassVar[dict[str, str]] = {}

    def setUp(self) -> None:
        """Take the class's daemon and next hop, both at rest."""
        super().setUp()
        stage = shared(type(self), self._make)
        self.node, self.sink = stage.gateway, stage.sink
        self.told(self.node)
        self.sink.clear()

    def _make(self) -> tuple[_Stage, Callable[[], None]]:
        sink = Sink()
        sections = self.sections(sink)
        stage = _Stage(sink, Gateway(**sections))
        return stage, stage.close

    def sections(self, sink: Sink) -> dict[str, str]:
        """Return the ini; mail for example.com goes to ``sink``."""
        return {"domains": f"example.com = {sink.route}", **self.options}

    def attack(
        self,
        steps: Sequence[Step],
        *answers: str,
        stored: Sequence[Stored] = (),
        early: bool = False,
        segmentations: Sequence[str] = SEGMENTATIONS,
    ) -> None:
        """Play ``steps`` three times; see the module's text."""
        seen: list[tuple[str, list[str]]] = []
        for segmentation in segmentations:
            replies = play(self.node.address, steps, segmentation, early)
            seen.append((segmentation, replies))
            where = f"{segmentation}: {replies}"
            self.assertEqual(len(replies), len(answers), where)
            for reply, answer in zip(replies, answers, strict=True):
                self.assertTrue(reply.startswith(answer), f"not {answer!r} but {reply!r}; {where}")
            self.node.settle()
            taken = self.sink.clear()
            self.assertEqual(self.stored(taken), sorted(stored), where)
        for segmentation, replies in seen:
            self.assertEqual(replies, seen[0][1], f"{segmentation}, against {seen[0][0]}")

    def stored(self, taken: Sequence[Taken]) -> list[Stored]:
        """Return what came to the next hop, and that it came clean."""
        for each in taken:
            self.assertIsNone(_UNCLEAN.search(each.raw), f"unclean: {each.raw!r}")
        return sorted((each.recipients, without_trace(each.content)) for each in taken)

    def assert_serves(self) -> None:
        """Show that the daemon still takes mail and delivers it."""
        content = b"Subject: still here\r\n\r\nyes\r\n"
        replies = play(
            self.node.address,
            [Step(_SIMPLE + content + b".\r\nQUIT\r\n", 6)],
            SEGMENTATIONS[0],
        )
        self.assertTrue(replies[-2].startswith("250 2.0.0"), str(replies))
        self.node.settle()
        self.assertEqual(self.stored(self.sink.clear()), [(("well@example.com",), content)])


_SIMPLE = b"EHLO client.test\r\nMAIL FROM:<s@client.test>\r\nRCPT TO:<well@example.com>\r\nDATA\r\n"
