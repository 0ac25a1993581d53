"""What every database must do for the history; run against each (see :class:`Contract`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any
from unittest import mock

from mailsecure.records import places, reading, searching, store
from mailsecure.records import wanted as looked_for
from mailsecure.records.api import Search, TooWide
from mailsecure.records.database import Database, Trouble
from mailsecure.records.store import BadEvents

from .support import (
    EICAR,
    NOON,
    SPF,
    THRESHOLDS,
    Book,
    attempt,
    deed,
    id_at,
    ids,
    message,
    refusal,
    session,
    session_at,
)

DAY = 86400.0


class Contract:
    """Tests on an empty database; :meth:`make` returns it."""

    book: Book
    addCleanup: Callable[..., None]
    assertEqual: Callable[..., None]
    assertIn: Callable[..., None]
    assertTrue: Callable[..., None]
    assertFalse: Callable[..., None]
    assertLess: Callable[..., None]
    assertRaises: Callable[..., Any]
    patch: Callable[..., Any]

    def make(self) -> Database:
        """Return an empty database."""
        raise NotImplementedError

    def setUp(self) -> None:
        """Open it."""
        self.book = Book(self.make())
        self.addCleanup(self.book.close)

    def found(self, **wanted: Any) -> list[int]:
        """Return the ids that a search finds."""
        return ids(self.book.reader.trace(Search(**wanted)))

    # -- what was told is there

    def test_a_whole_message(self) -> None:
        """Everything told of a message comes back in one piece."""
        told = message(symbols=(SPF, EICAR), header_from="boss@other.example", score=19.5)
        self.book.write(told, session(), attempt(), attempt(after=0.5, status="deferred"), deed())
        (item,) = self.book.reader.trace(Search(recipient="BOB@"))
        for key in ("subject", "message_id", "octets", "score", "action", "reply", "seconds"):
            self.assertEqual(item[key], getattr(told, key))
        self.assertEqual(
            (item["sender"], item["header_from"]), (told.reverse_path, told.header_from)
        )
        self.assertEqual((item["client"], item["client_name"]), (told.client, told.client_name))
        self.assertEqual((item["kind"], item["id"], item["node"]), ("message", told.id, "mx1"))
        self.assertEqual(item["recipients"], [{"recipient": "bob@example.com", "action": "accept"}])
        self.assertEqual(item["symbols"], [asdict(SPF), asdict(EICAR)])
        self.assertEqual(item["thresholds"], [list(each) for each in THRESHOLDS])
        self.assertEqual(item["timings"], [["spf", 0.01]])
        self.assertEqual([each["status"] for each in item["attempts"]], ["deferred", "sent"])
        self.assertEqual(item["attempts"][1]["next_hop"], "10.0.0.5:25")
        self.assertEqual(item["deeds"][0]["who"], "uid 0")
        self.assertEqual(item["session"]["tls"], "TLSv1.3")
        self.assertEqual(item["session"]["id"], item["session_id"])
        self.assertEqual(self.book.reader.message(told.id), item)

    def test_a_whole_session(self) -> None:
        """A session is found by its id, with what was refused and taken in it."""
        self.book.write(session(), message(), refusal(), refusal(1, session=session_at(-1)))
        whole = self.book.reader.message(id_at(-1, 1))
        assert whole is not None
        self.assertEqual(whole["session"]["ending"], "quit")
        self.assertEqual([each["stage"] for each in whole["refusals"]], ["rcpt", "rcpt"])
        self.assertEqual(whole["refusals"][0]["symbols"], [asdict(SPF)])
        self.assertEqual(ids(whole["messages"]), [id_at(0)])
        self.assertEqual(self.book.reader.message(4711), None)

    def test_a_refused_connection(self) -> None:
        """One that was not let in is a refusal at connect."""
        self.book.write(session(refusal="554 5.7.1 No", end="blocked", client="203.0.113.5"))
        (item,) = self.book.reader.trace(Search(client="203.0.113"))
        self.assertEqual((item["kind"], item["stage"]), ("refusal", "connect"))
        self.assertEqual((item["reply"], item["reason"]), ("554 5.7.1 No", "blocked"))
        self.assertEqual(len(self.book.reader.trace(Search(action="refused"))), 1)

    def test_an_idle_session(self) -> None:
        """A session in which nothing happened is found by its client, and only so."""
        self.book.write(session(messages=0, client="203.0.113.77"))
        (item,) = self.book.reader.trace(Search(client=".77"))
        self.assertEqual((item["kind"], item["helo"]), ("session", "mail"))
        self.assertEqual(self.found(), [])
        self.assertEqual(self.found(client=".77", sender="alice"), [])

    def test_twice(self) -> None:
        """A batch that is written again changes nothing."""
        batch = self.book.numbered(message(), session(), refusal(), attempt(), deed())
        self.book.store.write(batch, NOON)
        before = self.book.reader.trace(Search(text="example"))
        self.book.store.write(batch, NOON)
        self.assertEqual(self.book.reader.trace(Search(text="example")), before)
        self.assertEqual([len(before[-1][key]) for key in ("attempts", "deeds")], [1, 1])

    def test_what_no_database_takes(self) -> None:
        """Zeros, halves of pairs, infinite scores and endless texts do no harm."""
        evil = "a\0b\udc80c" + "x" * 5000
        self.book.write(
            message(
                subject=evil,
                helo=evil,
                message_id=evil,
                reverse_path=evil,
                score=float("inf"),
                symbols=(replace(SPF, reason=evil, score=float("-inf")),),
                thresholds=(("reject", float("inf")),),
                recipients=((evil, "accept"),),
            ),
            refusal(reply=evil, reason=evil, recipient=evil),
            session(helo=evil, client_name=evil),
            attempt(reply=evil, recipient=evil),
            deed(reason=evil, recipients=(evil,)),
        )
        items = self.book.reader.trace(Search())
        self.assertEqual(len(items), 2)
        self.assertTrue(items[0]["recipient"].startswith("a\ufffdb?cxxx"))
        self.assertEqual(items[1]["score"], 1e9)
        self.assertEqual(len(items[1]["subject"]), 300)

    def test_an_event_that_cannot_be(self) -> None:
        """It is told apart from a database that is away, and nothing of the batch is there."""
        for bad in (message(1, octets=1 << 70), message(1, helo=None), message(1, octets=[])):
            with self.assertRaises(BadEvents):
                self.book.write(message(), bad)
            self.assertEqual(self.found(), [])
        self.book.write(message())
        self.assertEqual(self.found(sender="alice"), [id_at(0)])

    def test_no_subjects(self) -> None:
        """Where they are not to be kept they are nowhere."""
        quiet = Book(self.book.database, subjects=False)
        self.addCleanup(quiet.close)
        quiet.write(message())
        (item,) = quiet.reader.trace(Search())
        self.assertEqual(item["subject"], "")
        self.assertEqual(self.found(subject="annual"), [])

    def test_two_nodes(self) -> None:
        """Each row says whose it is."""
        other = Book(self.book.database, node="mx2")
        self.addCleanup(other.close)
        self.book.write(message(0))
        other.write(message(1))
        self.assertEqual(
            [item["node"] for item in self.book.reader.trace(Search())], ["mx2", "mx1"]
        )

    # -- searches

    def fill(self) -> None:
        """Some mail of two days."""
        self.book.write(
            message(0),
            message(10, reverse_path="carol@other.example", header_from="Carol@else.example"),
            message(20, subject="Rechnung für März, 100%_sicher", action="quarantine"),
            message(30, recipients=(("dave@example.com", "accept"), ("eve@x.test", "tag"))),
            message(DAY, client="2001:db8::25", client_name="", reverse_path="", header_from=""),
            refusal(40),
            refusal(DAY + 1, client="203.0.113.77", recipient="bob@example.com"),
        )

    def test_by_parts(self) -> None:
        """Any part of each, whatever the case."""
        self.fill()
        everything = [id_at(0), id_at(10), id_at(20), id_at(30), id_at(DAY)][::-1]
        for wanted, which in (
            ({"sender": "ALICE@"}, [30, 20, 0]),
            ({"sender": "carol"}, [10]),
            ({"sender": "@else.ex"}, [10]),
            ({"sender": "<>"}, [DAY]),
            ({"recipient": "EVE@X.TEST"}, [30]),
            ({"recipient": "ve@"}, [30]),
            ({"subject": "für märz"}, [20]),
            ({"subject": "MÄRZ"}, [20] if self.knows_case() else None),
            ({"subject": "100%_s"}, [20]),
            ({"subject": "100__s"}, []),
            ({"subject": "ch"}, [20]),
            ({"client": "2001:db8"}, [DAY]),
            ({"client": "mail.sender"}, [30, 20, 10, 0]),
            ({"action": "quarantine"}, [20]),
            ({"action": "reject"}, []),
            ({"sender": "alice", "recipient": "dave"}, [30]),
            ({"sender": "alice", "recipient": "nobody"}, []),
            ({"sender": "alice", "subject": "report", "client": "192."}, [30, 0]),
            ({"id": id_at(20)}, [20]),
            ({"id": id_at(20), "last_id": id_at(35)}, [30, 20]),
            ({"id": id_at(29, 1)}, [30]),
            ({"since": NOON + 15, "until": NOON + 35, "action": "accept"}, [30]),
        ):
            if which is not None:
                self.assertEqual(self.found(**wanted), [id_at(each) for each in which], wanted)
        found = self.book.reader.trace(Search())
        self.assertEqual([each["id"] for each in found if each["kind"] == "message"], everything)

    def knows_case(self) -> bool:
        """Say whether the database knows the case of letters that are not ASCII."""
        return True

    def test_anywhere(self) -> None:
        """A text is looked for everywhere."""
        self.fill()
        for text, messages, refusals in (
            ("alice@sender", 3, 0),
            ("bob@", 4, 1),
            ("example.com", 5, 2),
            ("annual rep", 4, 0),
            ("203.0.113", 0, 1),
            ("<one.2@SENDER.example>", 5, 0),
            ("One.2@sender.example", 5, 0),
            ("ne.2@sender.example", 0, 0),
            (session_at(29).lower(), 1, 0),
            (session_at(39), 0, 1),
            ("nowhere", 0, 0),
            ("\"'; --", 0, 0),
        ):
            found = self.book.reader.trace(Search(text=text))
            kinds = [each["kind"] for each in found]
            self.assertEqual(
                (kinds.count("message"), kinds.count("refusal")), (messages, refusals), text
            )

    def test_refusals(self) -> None:
        """Refused commands are found by all that is known of them."""
        self.fill()
        for wanted, count in (
            ({"action": "refused"}, 2),
            ({"action": "refused", "recipient": "bob"}, 1),
            ({"action": "refused", "sender": "evil"}, 2),
            ({"action": "refused", "client": "203."}, 1),
            ({"action": "refused", "id": id_at(39, 1)}, 1),
            ({"action": "refused", "until": NOON + 50}, 1),
            ({"sender": "evil", "subject": "x"}, 0),
        ):
            self.assertEqual(len(self.found(**wanted)), count, wanted)

    def test_what_a_client_called_itself(self) -> None:
        """HELO is the session's: it finds the mail in it, its refusals, and it itself."""
        self.fill()
        self.book.write(
            session(0, helo="EVIL-pc"),
            session(40, helo="evil-PC"),
            session(50, helo="evil-pc", messages=0, client="203.0.113.9"),
            session(60, helo="good.example", messages=0),
        )
        found = self.book.reader.trace(Search(helo="vil-p"))
        self.assertEqual([each["kind"] for each in found], ["session", "refusal", "message"])
        self.assertEqual([each["helo"] for each in found], ["evil-pc", "evil-PC", "mail"])
        self.assertEqual(found[-1]["session"]["helo"], "EVIL-pc")
        for asked, count in (
            ({"helo": "evil-pc", "client": "203.0.113.0/24"}, 1),
            ({"helo": "evil-pc", "action": "refused"}, 1),
            ({"helo": "evil-pc", "sender": "nobody"}, 0),
            ({"helo": "nobody"}, 0),
        ):
            self.assertEqual(len(self.found(**asked)), count, asked)

    def test_domains_as_people_write_them(self) -> None:
        """The history has A-labels."""
        self.book.write(message(0, recipients=(("käthe@xn--mller-kva.example", "accept"),)))
        for part in ("müller", "KÄTHE@müller.example", "käthe@", "xn--mller-kva"):
            if part.islower() or self.knows_case():
                self.assertEqual(self.found(recipient=part), [id_at(0)], part)

    def test_networks(self) -> None:
        """A client's network, whatever octet it ends in."""
        addresses = ("192.0.2.1", "192.0.2.129", "192.0.20.1", "2001:db8::25", "2001:db8:1::1")
        self.book.write(
            *[message(n, client=each) for n, each in enumerate(addresses)],
            refusal(9, client="192.0.2.200"),
            session(11, client="192.0.2.201", messages=0),
        )
        for network, count in (
            ("192.0.2.0/24", 4),
            ("192.0.2.128/25", 3),
            ("192.0.2.1/32", 1),
            ("192.0.0.0/18", 5),
            ("2001:db8::/32", 2),
            ("2001:DB8:1::/48", 1),
            ("2001:db8::/48", 1),
            ("10.0.0.0/8", 0),
            ("192.0.2.0/33", 0),
        ):
            self.assertEqual(len(self.found(client=network)), count, network)
        self.patch(looked_for, "MOST_CLIENTS", 2)
        self.assertRaises(TooWide, self.found, client="192.0.0.0/16")

    def test_by_what_was_found_and_said(self) -> None:
        """Symbols by how they begin, replies of ours and of the next hop by any part."""
        self.book.write(
            message(0, symbols=(SPF, EICAR), action="reject", reply="554 5.7.1 Virus (Id7)"),
            message(10),
            attempt(10, reply="250 2.0.0 Ok: queued as 4711ABC"),
            message(20, symbols=()),
            refusal(30, symbols=(EICAR,), stage="RCPT"),
            session(41, refusal="554 5.7.1 No", end="blocked by SPAMHAUS"),
        )
        for asked, which in (
            ({"symbol": "CLAMAV"}, [30, 0]),
            ({"symbol": "spf"}, [10, 0]),
            ({"symbol": "spf_fail", "action": "reject"}, [0]),
            ({"symbol": "PF_FAIL"}, []),
            ({"symbol": '"'}, []),
            ({"reply": "queued as 4711abc"}, [10]),
            ({"reply": "(id7)"}, [0]),
            ({"reply": "550 5.7.1"}, [30]),
            ({"reply": "spamhaus"}, [40]),
            ({"stage": "rcpt"}, [30]),
            ({"stage": "connect"}, [40]),
            ({"stage": "connect", "client": "192.0.2.1"}, [40]),
            ({"stage": "data"}, []),
        ):
            found = [each["time"] - NOON for each in self.book.reader.trace(Search(**asked))]
            self.assertEqual(found, which, asked)

    def test_count(self) -> None:
        """Messages by action, refusals by stage, sessions without either."""
        self.fill()
        self.book.write(session(70, messages=0, client="192.0.2.1"))
        counted = self.book.reader.count
        whole = counted(Search(limit=1000))
        self.assertEqual(whole["messages"], {"accept": 4, "quarantine": 1})
        self.assertEqual((whole["refusals"], whole["unfinished"]), ({"rcpt": 2}, 0.0))
        some = counted(Search(client="192.0.2.1", limit=1000))
        self.assertEqual((some["messages"], some["refusals"], some["sessions"]),
                         ({"accept": 3, "quarantine": 1}, {}, 1))  # fmt: skip
        few = counted(Search(limit=2))
        self.assertEqual((few["messages"], few["refusals"]), ({"accept": 1}, {"rcpt": 1}))
        self.assertTrue(NOON + DAY - 1 < few["unfinished"] < NOON + DAY + 1)
        nothing = counted(Search(sender="nobody"))
        self.assertEqual((nothing["messages"], nothing["sessions"]), ({}, 0))

    def test_many_recipients(self) -> None:
        """An answer that would fill the memory ends before, and says where."""
        many = tuple((f"r{n}@example.com", "accept") for n in range(30))
        self.book.write(*[message(each, recipients=many) for each in range(25)])
        self.patch(reading, "_AT_ONCE", 4)
        self.patch(reading, "MOST_LOADED", 300)
        found = self.book.reader.trace(Search(sender="alice"))
        self.assertEqual(ids(found[:-1]), [id_at(each) for each in range(24, 12, -1)])
        self.assertEqual(found[-1], {"kind": "unfinished", "time": NOON + 13})
        rest = self.book.reader.trace(Search(sender="alice", until=found[-1]["time"]))
        self.assertEqual(ids(rest[:1]), [id_at(12)])

    def test_one_kind_reaches_further_back(self) -> None:
        """Older refusals fill the answer: it is still said that messages were not looked at."""
        self.book.write(*[message(100 + each) for each in range(50)])
        self.book.write(*[refusal(each) for each in range(20)])
        stopped = searching.Found([id_at(149)], id_at(120))
        with mock.patch.object(searching.Searcher, "messages", lambda searcher: stopped):
            found = self.book.reader.trace(Search(limit=10))
        self.assertEqual(found[-1], {"kind": "unfinished", "time": NOON + 120})

    def test_the_newest(self) -> None:
        """What is beyond the limit is older; everything comes the newest first."""
        self.book.write(
            *[message(each) for each in range(50)], *[refusal(each + 0.5) for each in range(50)]
        )
        everything = self.found(limit=1000)
        self.assertEqual(everything, sorted(everything, reverse=True))
        self.assertEqual(len(everything), 100)
        self.assertEqual(self.found(limit=7), everything[:7])
        messages = [each for each in everything if each & 4095 == 7]
        self.assertEqual(self.found(sender="alice", limit=3), messages[:3])

    def test_every_way_finds_the_same(self) -> None:
        """Gathered, streamed or walked, the answer is one."""
        events = [
            message(
                each,
                reverse_path=f"user{each % 7}@s{each % 3}.example",
                header_from=f"user{each % 7}@s{each % 3}.example",
                subject=f"number {each} of all, {'odd' if each % 2 else 'even'}",
                client=f"192.0.2.{each % 5}",
                recipients=((f"r{each % 4}@example.com", "accept"),),
                action="tag" if each % 10 == 0 else "accept",
                symbols=(SPF, EICAR) if each % 4 == 0 else (),
                reply=f"250 2.0.0 Accepted as {each}",
            )
            for each in range(300)
        ]
        greetings = [session(each, helo=f"h{each % 6}.example") for each in range(300)]
        self.book.write(*events, *greetings)
        searches = [
            {"sender": "user3@"},
            {"sender": "example"},
            {"recipient": "r1@", "sender": "s2.example"},
            {"subject": "odd"},
            {"subject": "number 2"},
            {"subject": "r 1", "action": "tag"},
            {"client": "192.0.2.4", "subject": "even"},
            {"text": "user5"},
            {"text": "all, od"},
            {"text": "192.0.2.3"},
            {"text": "example"},
            {"text": "od"},
            {"sender": "user1", "since": NOON + 100, "until": NOON + 200},
            {"action": "tag"},
            {"helo": "H4."},
            {"helo": ".example", "client": "192.0.2.4"},
            {"client": "192.0.2.2/31", "since": NOON + 50},
            {"symbol": "clam", "sender": "user1"},
            {"reply": "as 29"},
        ]
        bounds = (
            {"MOST_ROWS": 100_000},
            {"MOST_ROWS": 0, "_FEW": -1},
            {"MOST_ROWS": 0, "_FEW": -1, "_STRIDE": 50},
            {"MOST_ROWS": 0, "_FEW": -1, "_STRIDE": 17},
            {"MOST_ROWS": 50, "_STRIDE": 100},
        )
        for asked in searches:
            for limit in (5, 1000):
                answers = []
                for bound in bounds:
                    with mock.patch.multiple(searching, **bound):
                        answers += self.each_way(asked, limit, bound["MOST_ROWS"] == 0)
                self.assertTrue(answers[0], asked)
                for answer in answers:
                    self.assertEqual(answer, answers[0], (asked, limit))

    def each_way(self, asked: dict[str, Any], limit: int, hard: bool) -> list[list[int]]:
        """Return what is found with streams and without; where it is ``hard``, nameless too."""
        answers = [self.found(**asked, limit=limit)]
        with mock.patch.object(places, "MOST_STREAMS", 0):
            answers.append(self.found(**asked, limit=limit))
        if hard:
            with mock.patch.object(looked_for, "MOST_NAMES", 0):
                answers.append(self.found(**asked, limit=limit))
        return answers

    def test_out_of_time(self) -> None:
        """A search that takes too long returns what it has, and says how far it came."""
        self.book.write(*[message(each) for each in range(100)])
        self.patch(looked_for, "MOST_NAMES", 0)
        bounds: Any = {"MOST_ROWS": 0, "_FEW": -1, "_STRIDE": 10}
        with mock.patch.multiple(searching, **bounds):
            self.patch(searching, "time", mock.Mock(monotonic=lambda: 1e12))
            found = self.book.reader.trace(Search(sender="alice", since=NOON, until=NOON + 1000))
        self.assertEqual(found[-1]["kind"], "unfinished")
        self.assertTrue(NOON + 80 < found[-1]["time"] < NOON + 99)
        self.assertEqual(ids(found[:-1]), [id_at(each) for each in range(99, 88, -1)])

    # -- retention

    def test_prune(self) -> None:
        """What is older goes in slices, with all that is its own; the rest stays."""
        self.patch(store, "SLICE", 10)
        old = [message(each, reverse_path=f"old{each}@gone.example") for each in range(25)]
        new = [message(5 * DAY + each) for each in range(5)]
        more = [session(0), refusal(1), attempt(3), deed(4)]
        self.book.write(*old, *more, now=NOON)
        self.book.write(*new, session(5 * DAY), refusal(5 * DAY), now=NOON + 5 * DAY)
        turns = 1
        while self.book.store.prune(NOON + 4 * DAY):
            turns += 1
            self.assertLess(turns, 20)
        self.assertTrue(turns >= 3)
        self.assertEqual(len(self.found(limit=1000)), 6)
        self.assertEqual(self.found(text="gone.example"), [])
        self.assertEqual(len(self.found(subject="annual")), 5)
        self.assertEqual(self.book.reader.message(id_at(3)), None)
        self.assertEqual(self.rows("recipient"), 5)
        self.assertEqual([self.rows(each) for each in ("attempt", "deed", "session")], [0, 0, 1])
        self.assertEqual(self.names("gone.example"), 0)
        self.assertEqual(self.names("sender.example"), 2)

    def rows(self, table: str) -> int:
        """Count rows."""
        with self.book.database.engine().connect() as connection:
            return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())

    def names(self, part: str) -> int:
        """Count names with ``part``."""
        with self.book.database.engine().connect() as connection:
            return len(connection.execute(self.book.database.names(part, 100)).all())

    def test_names_that_are_met_stay(self) -> None:
        """A name is marked with the day on which it was met last."""
        self.book.write(message(0), now=NOON)
        self.book.write(message(5 * DAY), now=NOON + 5 * DAY)
        while self.book.store.prune(NOON + 4 * DAY):
            pass
        self.assertEqual(self.found(sender="alice"), [id_at(5 * DAY)])

    def test_measures(self) -> None:
        """Size and age are known."""
        self.assertEqual(self.book.store.measure().oldest, 0.0)
        self.book.write(message(100), session(100), refusal(100))
        measures = self.book.store.measure()
        self.assertTrue(NOON + 98 < measures.oldest < NOON + 101)
        self.assertEqual(measures.hindrance, "")

    def test_closed(self) -> None:
        """A store that is closed is a database that is away."""
        self.book.store.close()
        with self.assertRaises(Trouble):
            self.book.write(message())
        self.book.store.open()
        self.book.write(message())
        self.assertEqual(self.found(sender="alice"), [id_at(0)])
