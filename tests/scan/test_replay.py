"""Jobs that ask the DNS: what is asked, how often, and what a job is told."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.dns_answers import MAX_RECORDS, MAX_TXT, DnsTrouble, Known, Unanswered, bounded
from mailsecure.scan.replay import MAX_ROUNDS, Lookups, replay
from mailsecure.scan.spf_names import follow_ups, may_have_record, plain_address
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone

ZONE: Zone = {
    "a.example": {"TXT": ["v=spf1 include:b.example mx -all"], "MX": ["10 mx.a.example"]},
    "b.example": {"TXT": ["caf\u00e9", "v=spf1 a -all"], "A": ["192.0.2.1"]},
    "mx.a.example": {"A": ["192.0.2.2"], "AAAA": ["2001:db8::2"]},
    "broken.example": SERVFAIL,
    "9.2.0.192.in-addr.arpa": {"PTR": ["mx.a.example"]},
}


class OddWorkers:
    """Workers whose job asks for what ``questions`` say, one round each."""

    def __init__(self, *questions: list[list[str]]) -> None:
        self.questions = list(questions)
        self.told: list[dict[str, Any]] = []

    async def run(self, job: str, arguments: Any, body: Any = None) -> dict[str, Any]:
        self.told.append(arguments["answers"])
        if not self.questions:
            return {"done": True}
        return {"needs": self.questions.pop(0)}


class ReplayTests(SynchronousTestCase):
    """:class:`Lookups` and :func:`replay` over a zone."""

    def setUp(self) -> None:
        self.resolver = FakeResolver(ZONE)
        self.lookups = Lookups(self.resolver, 20)

    def fetch(self, *questions: tuple[str, str]) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.lookups.fetch(questions)))

    def replay(self, workers: OddWorkers) -> Any:
        work = replay(workers, self.lookups, "jobs.x:y", {"z": 1})
        return self.successResultOf(Deferred.fromCoroutine(work))

    def test_answers(self) -> None:
        self.fetch(
            ("TXT", "b.example"),
            ("MX", "a.example"),
            ("A", "mx.a.example"),
            ("AAAA", "mx.a.example"),
            ("PTR", "192.0.2.9"),
            ("A", "absent.example"),
            ("A", "broken.example"),
        )
        self.assertEqual(
            self.lookups.as_json(),
            {
                "TXT b.example": ["caf\u00c3\u00a9", "v=spf1 a -all"],
                "MX a.example": ["10 mx.a.example"],
                "A mx.a.example": ["192.0.2.2"],
                "AAAA mx.a.example": ["2001:db8::2"],
                "PTR 192.0.2.9": ["mx.a.example"],
                "A absent.example": [],
                "A broken.example": None,
            },
        )

    def test_asked_once(self) -> None:
        self.fetch(("A", "b.example"), ("A", "b.example"))
        self.fetch(("A", "b.example"))
        self.assertEqual(self.resolver.questions, [("A", "b.example")])

    def test_rounds(self) -> None:
        workers = OddWorkers([["A", "b.example"]], [["A", "mx.a.example"], ["A", "broken.example"]])
        self.assertEqual(self.replay(workers), {"done": True})
        self.assertEqual([len(each) for each in workers.told], [0, 1, 3])

    def test_no_end_of_rounds(self) -> None:
        """A job that always wants more is given up."""
        questions = [[["A", f"{i}.example"]] for i in range(99)]
        workers = OddWorkers(*questions)
        self.assertIsNone(self.replay(workers))
        self.assertEqual(len(workers.told), MAX_ROUNDS)

    def test_no_end_of_questions(self) -> None:
        """Beyond the limit nothing is asked, and the job is told that there is no answer."""
        self.fetch(*[("A", f"{i}.example") for i in range(30)])
        self.assertEqual(len(self.resolver.questions), 20)
        self.assertIsNone(self.lookups.answer(("A", "29.example")))
        self.assertEqual(self.lookups.answer(("A", "1.example")), [])
        self.assertEqual(len(self.lookups.as_json()), 30)
        # Not in a later round either.
        self.fetch(*[("A", f"{i}.example") for i in range(30, 50)])
        self.assertEqual(len(self.resolver.questions), 20)
        self.assertEqual(len(self.lookups.as_json()), 50)

    def test_follow_ups(self) -> None:
        """What a record names is asked as soon as the record is there."""
        self.lookups = Lookups(self.resolver, 20, lambda *asked: follow_ups("192.0.2.9", *asked))
        self.fetch(("TXT", "a.example"))
        self.assertEqual(
            set(self.lookups.as_json()),
            {
                "TXT a.example",
                "TXT b.example",
                "A b.example",
                "MX a.example",
                "A mx.a.example",
            },
        )

    def test_follow_ups_end(self) -> None:
        zone: Zone = {
            f"{i}.example": {"TXT": [f"v=spf1 include:{i + 1}.example"]} for i in range(99)
        }
        self.resolver = FakeResolver(zone)
        self.lookups = Lookups(self.resolver, 20, lambda *asked: follow_ups("192.0.2.9", *asked))
        self.fetch(("TXT", "0.example"))
        self.assertEqual(len(self.resolver.questions), 10)


class KnownTests(SynchronousTestCase):
    """What a job sees."""

    def test_known(self) -> None:
        known = Known({"A a": ["192.0.2.1"], "A b": [], "A c": None})
        self.assertEqual(known.records("A", "a"), ["192.0.2.1"])
        self.assertEqual(known.records("A", "b"), [])
        self.assertRaises(DnsTrouble, known.records, "A", "c")
        self.assertEqual(known.needs(), [])
        for _ in range(2):
            self.assertRaises(Unanswered, known.records, "MX", "a b")
        self.assertEqual(known.needs(), [["MX", "a b"]])

    def test_bounds(self) -> None:
        self.assertEqual(len(bounded(str(i) for i in range(999))), MAX_RECORDS)
        self.assertEqual(len(bounded(["x" * 70_000])[0]), MAX_TXT + 1)


class NamesTests(SynchronousTestCase):
    """What an SPF record leads to."""

    def names(self, record: str, client: str = "192.0.2.9") -> list[tuple[str, str]]:
        return follow_ups(client, ("TXT", "a.example"), [record])

    def test_terms(self) -> None:
        record = (
            "v=spf1 a mx a:h.example/24//64 mx:M.example ptr exists:e.example ~include:i.example "
            "x=y redirect=r.example"
        )
        self.assertEqual(
            self.names(record),
            [
                ("A", "a.example"),
                ("MX", "a.example"),
                ("A", "h.example"),
                ("MX", "m.example"),
                ("PTR", "192.0.2.9"),
                ("A", "e.example"),
                ("TXT", "i.example"),
                ("TXT", "r.example"),
            ],
        )
        self.assertEqual(self.names("V=SPF1 a", "2001:db8::1"), [("AAAA", "a.example")])

    def test_where_it_ends(self) -> None:
        self.assertEqual(self.names("v=spf1 ip4:192.0.2.0/24 include:i.example"), [])
        self.assertEqual(self.names("v=spf1 -all redirect=i.example"), [])
        self.assertEqual(self.names("v=spf1 ip6:2001:db8::/32 a", "2001:db8::1"), [])
        told = self.names("v=spf1 ip4:192.0.2.9 a exp=e.example")
        self.assertEqual(told, [("TXT", "e.example")])
        one = [("TXT", "i.example")]
        self.assertEqual(self.names("v=spf1 ip4:192.0.3.1 ip4:x include:i.example"), one)
        self.assertEqual(len(self.names("v=spf1" + " a" * 50)), 10)

    def test_what_leads_nowhere(self) -> None:
        self.assertEqual(self.names("v=spf1 include:%{i}.example foo"), [])
        self.assertEqual(self.names("something else"), [])
        self.assertEqual(self.names("v=spf1 a" + " " * 5000), [])
        two = follow_ups("192.0.2.9", ("TXT", "a.example"), ["v=spf1 a", "v=spf1 mx"])
        self.assertEqual(two, [])
        self.assertEqual(follow_ups("192.0.2.9", ("A", "a.example"), ["v=spf1 a"]), [])

    def test_hosts(self) -> None:
        hosts = [f"10 {i}.example" for i in range(20)]
        self.assertEqual(len(follow_ups("192.0.2.9", ("MX", "a.example"), hosts)), 10)
        self.assertEqual(follow_ups("192.0.2.9", ("MX", "a.example"), ["0 "]), [])
        found = follow_ups("2001:db8::9", ("PTR", "2001:db8::9"), ["h.example"])
        self.assertEqual(found, [("AAAA", "h.example")])

    def test_domains(self) -> None:
        for name in ("a.example", "_x.a-b.example.", "xn--mnchen-3ya.example"):
            self.assertTrue(may_have_record(name), name)
        for name in (
            "",
            "localhost",
            "[192.0.2.1]",
            "a..b",
            "192.0.2.1",
            "a" * 64 + ".b",
            "a b.c",
            "a." * 130 + "b",
        ):
            self.assertFalse(may_have_record(name), name)

    def test_addresses(self) -> None:
        self.assertEqual(plain_address("::ffff:192.0.2.1"), "192.0.2.1")
        self.assertEqual(plain_address("2001:DB8::0"), "2001:db8::")
        self.assertRaises(ValueError, plain_address, "nobody")
