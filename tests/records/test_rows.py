"""Events become rows, whatever is in them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records import rows
from mailsecure.records.rows import (
    clean,
    client_text,
    details_from,
    message_key,
    names_of,
    parse_session,
    rows_of,
    session_id,
    symbols_from,
)
from mailsecure.records.schema import METADATA
from mailsecure.records.values import Event
from mailsecure.spool.ids import MessageId, id_name

from .support import EICAR, SPF, attempt, deed, message, refusal, session
from .test_lines import EVENTS, ID


def made(*events: Event, subjects: bool = True) -> rows.Rows:
    """Return the rows of events; names are numbered as they come."""
    names = {"": 0}
    for event in events:
        for text in names_of(event):
            names.setdefault(text, len(names))
    return rows_of(list(enumerate(events, 100)), names, 9, subjects)


class RowTests(SynchronousTestCase):
    """Rows."""

    @given(st.lists(EVENTS, max_size=4))
    def test_all_have_rows(self, events: list[Event]) -> None:
        """Each event is a row of its table, as wide as that is."""
        found = made(*events)
        for table in ("session", "refusal", "message", "recipient", "attempt", "deed"):
            for row in getattr(found, table + "s"):
                self.assertEqual(len(row), len(METADATA.tables[table].columns), table)
        kept = sum(map(len, (found.sessions, found.refusals, found.messages)))
        self.assertEqual(kept + len(found.attempts) + len(found.deeds), len(events))

    def test_a_message(self) -> None:
        """Its names are numbers; the From field counts where it differs."""
        same, other = message(), message(1, header_from="boss@else.example")
        found = made(same, other, subjects=False)
        sender, author = found.messages[0][6:8]
        self.assertEqual((found.messages[0][6], author), (found.messages[1][6], 0))
        self.assertNotIn(found.messages[1][7], (0, sender))
        self.assertEqual(found.messages[0][8], "")
        self.assertEqual(made(same).messages[0][8], same.subject)
        self.assertEqual(found.recipients[0][:2], (same.id, 0))
        self.assertEqual(details_from(found.messages[0][-1])["symbols"][0]["name"], "SPF_FAIL")

    def test_bounds(self) -> None:
        """Nothing is endless, nothing infinite."""
        self.patch(rows, "MOST_RECIPIENTS", 3)
        many = message(
            recipients=tuple((f"r{n}@x.test", "accept") for n in range(9)),
            symbols=(replace(SPF, score=float("-inf"), reason="r" * 9999),) * 300,
            thresholds=(("reject", float("inf")),),
        )
        found = made(many)
        self.assertEqual(len(found.recipients), 3)
        details = details_from(found.messages[0][-1])
        self.assertEqual(len(details["symbols"]), rows.MOST_SYMBOLS)
        self.assertEqual(details["symbols"][0]["score"], -1e9)
        self.assertEqual(len(details["symbols"][0]["reason"]), rows.LONGEST)
        self.assertEqual(details["thresholds"], [["reject", 1e9]])

    def test_sessions(self) -> None:
        """One that was not let in is a refusal; one without an id gets the event's."""
        found = made(session(), session(refusal="554 No", end="blocked"), session(session="?"))
        self.assertEqual([row[0] for row in found.sessions], [session_id(session().session), 102])
        self.assertEqual(found.refusals[0][5:10], ("connect", 0, 0, "554 No", "blocked"))

    def test_others(self) -> None:
        """Refusals, attempts and deeds."""
        found = made(refusal(symbols=(SPF, EICAR)), attempt(), deed())
        self.assertEqual([each["name"] for each in symbols_from(found.refusals[0][-1])],
                         ["SPF_FAIL", "CLAMAV"])  # fmt: skip
        self.assertEqual(found.attempts[0][:2], (attempt().id, 101))
        self.assertEqual(found.deeds[0][-2:], ('["bob@example.com"]', 0))

    @given(st.text(max_size=50), st.integers(1, 30))
    def test_clean(self, text: str, limit: int) -> None:
        """A clean text is UTF-8 without zeros, no longer than the limit, and clean again."""
        found = clean(text, limit)
        self.assertNotIn("\0", found)
        self.assertTrue(len(found) <= limit)
        self.assertEqual(found.encode("utf-8").decode("utf-8"), found)
        self.assertEqual(clean(found, limit), found)
        self.assertEqual(clean("\ud800\0x"), "?\ufffdx")

    def test_keys(self) -> None:
        """A Message-ID is the same in any case and brackets."""
        self.assertEqual(message_key("<A@b>"), message_key(" a@B "))
        self.assertNotEqual(message_key("<A@b>"), message_key("<A@c>"))
        self.assertEqual(message_key(" <> "), 0)
        self.assertEqual(client_text("192.0.2.1", ""), "192.0.2.1")

    @given(ID)
    def test_session_numbers(self, number: int) -> None:
        """The number of an id is the spool's."""
        self.assertEqual(parse_session(id_name(MessageId(number))), number)
        self.assertEqual(session_id(id_name(MessageId(number))), number)

    def test_what_is_no_session(self) -> None:
        """Anything else is 0."""
        for text in ("", "short", "U" * 13, "Z" * 13, "é" * 13):
            self.assertEqual(parse_session(text), 0)
        for number in range(10_050):
            session_id(str(number))
        self.assertTrue(len(rows._sessions) <= 10_001)
