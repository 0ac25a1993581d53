"""Proves that lists are asked as RFC 5782 has it, and that only real listings count."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scan_kinds import parse_dns_lists
from mailsecure.scan.checks.dnslists import (
    FAILURES,
    FIRST_REST,
    LONGEST_REST,
    Patience,
    Says,
    address_question,
    name_question,
    public_zone,
    read_answers,
    symbol_of,
)

KEY = "qz5x7c3v8b1n2m4k6j9h0g7f5d"


class QuestionTests(SynchronousTestCase):
    """What is asked."""

    def test_addresses(self):
        """Octets and nibbles, turned round (RFC 5782 §2.1, §2.4)."""
        self.assertEqual(
            address_question(ip_address("192.0.2.99"), "bl.example"), "99.2.0.192.bl.example"
        )
        self.assertEqual(
            address_question(ip_address("2001:db8:1:2:3:4:567:89ab"), "ugly.example"),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.ugly.example",
        )

    def test_names(self):
        """A name stands in front of the zone, if that is not too long for the DNS."""
        self.assertEqual(name_question("bad.example", "dbl.example"), "bad.example.dbl.example")
        self.assertEqual(name_question("x" * 250, "dbl.example"), "")

    def test_public_names(self):
        """A customer's key is not told to anybody."""
        self.assertEqual(public_zone(f"{KEY}.zen.dq.spamhaus.net"), "zen.dq.spamhaus.net")
        self.assertEqual(public_zone("zen.spamhaus.org"), "zen.spamhaus.org")
        self.assertEqual(public_zone(f"{KEY}.example"), f"{KEY}.example")
        self.assertEqual(
            public_zone("averyveryverylonglabel.of.words"), "averyveryverylonglabel.of.words"
        )

    def test_symbols(self):
        """Every zone has a stable one, within the bounds of a symbol."""
        self.assertEqual(symbol_of("zen.spamhaus.org", 6), "DNSBL_ZEN_SPAMHAUS_ORG")
        self.assertEqual(symbol_of("list.dnswl.org", -3), "DNSWL_LIST_DNSWL_ORG")
        self.assertEqual(symbol_of(f"{KEY}.bl-x.example.org", 1), "DNSBL_BL_X_EXAMPLE_ORG")
        self.assertEqual(len(symbol_of("a" * 60 + ".example.org", 1)), 64)


class AnswerTests(SynchronousTestCase):
    """:func:`read_answers`."""

    def read(self, lists, *answers):
        return read_answers(parse_dns_lists(lists), answers)

    def test_listed(self):
        """Without a pattern any answer counts, and counts once."""
        self.assertEqual(self.read("bl.example 4", "127.0.0.2"), (Says.LISTED, 4.0))
        self.assertEqual(self.read("bl.example 4", "127.0.0.2", "127.0.0.9"), (Says.LISTED, 4.0))
        self.assertEqual(self.read("bl.example 4"), (Says.NOT_LISTED, 0.0))

    def test_patterns(self):
        """With one only what it names; several lines about a zone add up."""
        lists = "bl.example=127.0.0.2-3 4\nbl.example=127.0.0.10 1.5"
        self.assertEqual(self.read(lists, "127.0.0.3"), (Says.LISTED, 4.0))
        self.assertEqual(self.read(lists, "127.0.0.10", "127.0.0.2"), (Says.LISTED, 5.5))
        self.assertEqual(self.read(lists, "127.0.0.11"), (Says.NOT_LISTED, 0.0))

    def test_refusals(self):
        """A list that does not answer us never lists anybody."""
        for answer in ("127.255.255.254", "127.255.255.252", "127.0.0.1", "127.0.0.255"):
            self.assertEqual(self.read("bl.example 4", answer)[0], Says.REFUSES, answer)
        self.assertEqual(self.read("bl.example 4", "203.0.113.7")[0], Says.REFUSES)
        self.assertEqual(self.read("bl.example=127.0.0.2 4", "127.0.0.1")[0], Says.REFUSES)
        self.assertEqual(
            self.read("bl.example=127.255.255.0-255 4", "127.255.255.254")[0], Says.REFUSES
        )
        # Beside a real answer, a strange one changes nothing.
        self.assertEqual(self.read("bl.example 4", "127.0.0.1", "127.0.0.2")[0], Says.LISTED)

    def test_named_refusal(self):
        """Who names 127.0.0.1 in the ini means it."""
        self.assertEqual(self.read("bl.example=127.0.0.1 4", "127.0.0.1"), (Says.LISTED, 4.0))

    @given(st.lists(st.ip_addresses(v=4).map(str), max_size=4))
    def test_anything(self, answers):
        """Whatever comes, there is a score only for a listing, and only one of 127.0.0.0/8."""
        says, score = self.read("bl.example 4\nbl.example=127.0-255.0-255.7 2", *answers)
        self.assertEqual(bool(score), says is Says.LISTED)
        if says is Says.LISTED:
            self.assertTrue(any(each.startswith("127.") for each in answers))


class PatienceTests(SynchronousTestCase):
    """:class:`Patience`."""

    def test_left_alone(self):
        """After failures in a row the list has its rest, longer each time."""
        patience, now, rests = Patience(), 100.0, []
        for _ in range(FAILURES - 1):
            self.assertEqual(patience.failed(now), 0.0)
        for _ in range(6):
            self.assertTrue(patience.may_ask(now))
            rests.append(patience.failed(now))
            self.assertEqual(patience.failed(now), 0.0)
            self.assertFalse(patience.may_ask(now + rests[-1] - 0.1))
            now += rests[-1]
        self.assertEqual(rests, [60.0, 120.0, 240.0, 480.0, 960.0, 960.0])
        self.assertEqual(rests[0], FIRST_REST)
        self.assertEqual(rests[-1], LONGEST_REST)
        self.assertTrue(patience.answered())
        self.assertFalse(patience.answered())

    def test_now_and_then(self):
        """Failures between answers do no harm, and are counted."""
        patience = Patience()
        for _ in range(20):
            self.assertEqual(patience.failed(0.0), 0.0)
            self.assertFalse(patience.answered())
        self.assertTrue(patience.may_ask(0.0))
        self.assertEqual(patience.failures, 20)
