"""Proves that nobody gets away with our own name, and that honest clients are left alone."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.scan.checks.naming import (
    FORGED,
    LITERAL_FALSE,
    NOT_FQDN,
    Greeting,
    Ours,
    judge_helo,
)

OURS = Ours({"mx.us.example", "us.example"}, {"198.51.100.25", "2001:db8::25"})
CLIENT = "192.0.2.1"


class HeloTests(SynchronousTestCase):
    """:func:`judge_helo`."""

    def symbol(self, helo, client=CLIENT):
        return judge_helo(helo, client, OURS).symbol

    def test_fine(self):
        """A name is to be looked up; the client's own literal is fine as it is."""
        self.assertEqual(
            judge_helo("MX.Example.NET", CLIENT, OURS), Greeting(domain="mx.example.net")
        )
        self.assertEqual(judge_helo("mx.example.net.", CLIENT, OURS).domain, "mx.example.net")
        self.assertEqual(judge_helo("[192.0.2.1]", CLIENT, OURS), Greeting())
        self.assertEqual(judge_helo("[IPv6:2001:DB8:0::7]", "2001:db8::7%eth0", OURS), Greeting())
        self.assertEqual(judge_helo("[192.0.2.1]", "::ffff:192.0.2.1", OURS), Greeting())

    def test_forged(self):
        """Our names, our domains, our addresses, and localhost are ours."""
        for helo in (
            "mx.us.example",
            "US.example",
            "us.example.",
            "localhost",
            "localhost.localdomain",
            "[198.51.100.25]",
            "198.51.100.25",
            "[IPv6:2001:db8:0::25]",
            "[127.0.0.1]",
            "127.0.0.1",
            "[IPv6:::1]",
        ):
            self.assertEqual(self.symbol(helo), FORGED, helo)
        self.assertEqual(self.symbol("www.us.example"), "")

    def test_ourselves(self):
        """What runs on this machine may say so."""
        for client in ("127.0.0.1", "127.0.1.1", "::1", "198.51.100.25", "2001:db8::25"):
            for helo in ("mx.us.example", "us.example"):
                self.assertEqual(self.symbol(helo, client), "", (helo, client))
            self.assertEqual(self.symbol("localhost", client), NOT_FQDN)
            self.assertNotEqual(self.symbol("[127.0.0.1]", client), FORGED)

    def test_false_literal(self):
        """An address literal of somebody else is a lie, or a sign of a translated address."""
        for helo in ("[10.0.0.5]", "[192.0.2.2]", "[IPv6:2001:db8::7]"):
            self.assertEqual(self.symbol(helo), LITERAL_FALSE, helo)

    def test_no_name(self):
        """A word, an address without brackets and rubbish are no names of the DNS."""
        for helo in ("pc", "192.0.2.1", "10.0.0.5", "a..b", "-x.example", "[x]", "[", "", "a b.c"):
            self.assertEqual(self.symbol(helo), NOT_FQDN, helo)

    def test_unknown_client(self):
        """A client without an address is judged by its name alone."""
        self.assertEqual(self.symbol("us.example", "unix"), FORGED)
        self.assertEqual(self.symbol("[192.0.2.1]", "unix"), LITERAL_FALSE)

    @given(st.text(max_size=60), st.ip_addresses().map(str))
    def test_anything(self, helo, client):
        """Whatever is said, there is a symbol with a printable reason, or a name to look up."""
        greeting = judge_helo(helo, client, OURS)
        self.assertTrue(greeting.reason.isascii() and greeting.reason.isprintable())
        self.assertEqual(bool(greeting.symbol), bool(greeting.reason))
        if greeting.symbol:
            self.assertEqual(greeting.domain, "")
