"""Message ids: never twice, in order, and readable."""

from __future__ import annotations

import contextlib
import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.spool.ids import IdSource, MessageId, drawn_at, id_name, parse_id


class IdTests(SynchronousTestCase):
    """IdSource, id_name and parse_id."""

    @given(st.integers(0, (1 << 63) - 1))
    def test_round_trip(self, number: int) -> None:
        """A name stands for one id, in either case."""
        name = id_name(MessageId(number))
        self.assertEqual(len(name), 13)
        self.assertEqual(parse_id(name), number)
        self.assertEqual(parse_id(name.lower()), number)

    @given(st.text(max_size=15))
    def test_only_remote_fault(self, text: str) -> None:
        """Any text is an id's name or RemoteFault."""
        with contextlib.suppress(RemoteFault):
            self.assertEqual(id_name(parse_id(text)), text.upper())

    def test_no_ids(self) -> None:
        """Too long, too short, other letters, and more than an id may be."""
        for text in ("", "0" * 12, "0" * 14, "I" * 13, "000000000000\u00df", "Z" * 13):
            self.assertRaises(RemoteFault, parse_id, text)

    def test_never_backwards(self) -> None:
        """A wall clock that is set back gives no id twice, and none out of order."""
        times = iter([100.0, 100.0, 50.0, 50.0, 101.0] * 200)
        source = IdSource(lambda: next(times), random.Random(1))
        drawn = [source.draw() for _ in range(1000)]
        self.assertEqual(drawn, sorted(set(drawn)))

    def test_in_order_of_arrival(self) -> None:
        """Names sort as the messages came."""
        clock = iter(range(1, 100))
        source = IdSource(lambda: float(next(clock)), random.Random(2))
        names = [id_name(source.draw()) for _ in range(50)]
        self.assertEqual(names, sorted(names))

    def test_drawn_at(self) -> None:
        """An id tells when it was drawn, to the microsecond."""
        source = IdSource(lambda: 1795348800.25, random.Random(3))
        self.assertEqual(drawn_at(source.draw()), 1795348800.25)
