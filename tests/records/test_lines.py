"""Events become lines and lines events, whatever is in them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.records.lines import decode_line, encode_line
from mailsecure.records.values import (
    AttemptEvent,
    DeedEvent,
    Event,
    FoundSymbol,
    MessageEvent,
    RefusalEvent,
    SessionEvent,
)

from .support import message

TEXT = st.text(max_size=20)
NUMBER = st.floats(allow_nan=False)
ID = st.integers(0, (1 << 63) - 1)
SYMBOL = st.builds(FoundSymbol, TEXT, NUMBER, TEXT, TEXT, TEXT)
SYMBOLS = st.lists(SYMBOL, max_size=3).map(tuple)


def pairs(first: st.SearchStrategy, second: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(st.tuples(first, second), max_size=3).map(tuple)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.builds(SessionEvent, TEXT, NUMBER, NUMBER, *[TEXT] * 1, port=ID, client_name=TEXT,
              helo=TEXT, tls=TEXT, via=TEXT, messages=ID, refused=ID, errors=ID, end=TEXT,
              refusal=TEXT),
    st.builds(RefusalEvent, TEXT, NUMBER, *[TEXT] * 6, symbols=SYMBOLS),
    st.builds(MessageEvent, ID, TEXT, NUMBER, *[TEXT] * 7, octets=ID, score=NUMBER, action=TEXT,
              reply=TEXT, seconds=NUMBER, recipients=pairs(TEXT, TEXT), symbols=SYMBOLS,
              timings=pairs(TEXT, NUMBER), thresholds=pairs(TEXT, NUMBER)),
    st.builds(AttemptEvent, ID, NUMBER, *[TEXT] * 5, delay=NUMBER),
    st.builds(DeedEvent, ID, NUMBER, *[TEXT] * 3, recipients=st.lists(TEXT).map(tuple), copy=ID),
)  # fmt: skip


class LineTests(SynchronousTestCase):
    """The backlog's lines."""

    @given(ID, EVENTS)
    def test_round_trip(self, id: int, event: Event) -> None:
        """What was encoded is decoded, on one line of ASCII."""
        line = encode_line(id, event)
        self.assertTrue(line.isascii() and line.endswith(b"\n") and line.count(b"\n") == 1)
        self.assertEqual(decode_line(line), (id, event))

    @given(st.binary(max_size=200))
    def test_anything(self, octets: bytes) -> None:
        """Anything else is a RemoteFault."""
        self.assertRaises(RemoteFault, decode_line, octets)

    @given(EVENTS, st.data())
    def test_torn_and_bent(self, event: Event, data: st.DataObject) -> None:
        """A line that was cut, or of which a value was changed, is one or a RemoteFault."""
        line = encode_line(7, event)
        self.assertRaises(
            RemoteFault, decode_line, line[: data.draw(st.integers(0, len(line) - 2))]
        )
        values = json.loads(line)
        at = data.draw(st.integers(0, len(values) - 1))
        values[at] = data.draw(st.sampled_from([None, True, {}, [[1, 2]], "x", [], 1.5, 10**400]))
        with contextlib.suppress(RemoteFault):
            decode_line(json.dumps(values).encode())

    def test_of_an_earlier_version(self) -> None:
        """Fields that were added later have their defaults; too many are refused."""
        values = json.loads(encode_line(1, message()))
        _, event = decode_line(json.dumps(values[:-1]).encode())
        self.assertEqual(event, replace(message(), thresholds=()))
        self.assertRaises(RemoteFault, decode_line, json.dumps([*values, 1]).encode())
        self.assertRaises(RemoteFault, decode_line, json.dumps(values[:-9]).encode())
        self.assertRaises(RemoteFault, decode_line, b'["nothing", 1]\n')
        self.assertRaises(RemoteFault, decode_line, b'["deed", "1"]\n')
