"""The relay rules: only exactly our domains, for everybody but the relay networks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.delivery.routes import Routes
from mailsecure.gateway.relaying import RelayRules, literal_of, postmaster_domain
from mailsecure.smtp.commands import parse_rcpt
from mailsecure.smtp.envelope import Recipient
from mailsecure.smtp.replies import Reply

CONFIG = parse_config("[domains]\nus.example = mx\n.sub.example = mx\n* = mx\n", "test.ini")
OWN = "[192.0.2.25]"


class RelayRulesTests(SynchronousTestCase):
    """RelayRules.decide, from the octets of RCPT."""

    def setUp(self) -> None:
        self.rules = RelayRules(Routes(CONFIG.domains), "us.example")

    def decide(self, address: bytes, trusted: bool = False) -> Recipient | Reply:
        parsed = parse_rcpt(b"TO:<" + address + b">", True)
        if isinstance(parsed, Reply):
            return parsed
        return self.rules.decide(*parsed, trusted, lambda: OWN)

    def code(self, address: bytes, trusted: bool = False) -> str:
        decided = self.decide(address, trusted)
        return f"{decided.code} {decided.enhanced}" if isinstance(decided, Reply) else "taken"

    def test_strangers(self) -> None:
        """Strangers reach our domains and nothing else, by no trick."""
        for address, code in (
            (b"user@us.example", "taken"),
            (b"user@US.example", "taken"),
            (b"user@a.sub.example", "taken"),
            (b"user@sub.example", "550 5.7.1"),
            (b"user@elsewhere.example", "550 5.7.1"),
            (b"v%evil.example@[192.0.2.1]", "550 5.7.1"),
            (b'"v@evil.example"@us.example', "550 5.7.1"),
            (b"v@evil.example@us.example", "501 5.5.4"),
            (b"@us.example:v@evil.example", "550 5.7.1"),
            (b"evil.example!v@us.example", "550 5.7.1"),
            (b"v%evil.example@us.example", "550 5.7.1"),
            (b"v@[10.9.8.7]", "550 5.7.1"),
            (b"v@us.example.evil.example", "550 5.7.1"),
            (b"v@evilus.example", "550 5.7.1"),
            (b"x@", "501 5.5.4"),
            (b"v@us.example.", "501 5.5.4"),
            (b"../../x@us.example", "550 5.1.3"),
            (b"/etc/passwd@us.example", "550 5.1.3"),
            (b"-oQx@us.example", "550 5.1.3"),
            (b"|id@us.example", "550 5.1.3"),
        ):
            self.assertEqual(self.code(address), code, address)

    def test_relay_networks(self) -> None:
        """Relay networks reach everything; odd local parts are odd for them too."""
        self.assertEqual(self.code(b"user@elsewhere.example", trusted=True), "taken")
        self.assertEqual(self.code(b"a%b@elsewhere.example", trusted=True), "taken")
        self.assertEqual(self.code(b"|id@elsewhere.example", trusted=True), "550 5.1.3")

    def test_postmaster(self) -> None:
        """postmaster is always taken, alone and at our address."""
        ours = Recipient("postmaster@us.example", "us.example")
        for address in (b"postmaster", b"PostMaster", b"postmaster@[192.0.2.25]"):
            self.assertEqual(self.decide(address), ours)
        self.assertEqual(self.code(b"postmaster@us.example"), "taken")
        self.assertEqual(self.code(b"postmaster@[192.0.2.26]"), "550 5.7.1")

    @given(st.text(max_size=30))
    def test_never_elsewhere(self, text: str) -> None:
        """Whatever a stranger writes, what is taken is for our domains."""
        decided = self.decide(text.encode("utf-8", "ignore"))
        if isinstance(decided, Recipient):
            self.assertTrue(
                decided.domain == "us.example" or decided.domain.endswith(".sub.example")
            )


class NamesTests(SynchronousTestCase):
    """The helpers beside the rules."""

    def test_literal(self) -> None:
        """An address as a literal, without its zone."""
        self.assertEqual(literal_of("192.0.2.1"), "[192.0.2.1]")
        self.assertEqual(literal_of("fe80::1%eth0"), "[IPv6:fe80::1]")

    def test_postmaster_domain(self) -> None:
        """Our own name if we take its mail, else the first domain, else our name."""
        ours = Routes(CONFIG.domains).is_ours
        self.assertEqual(postmaster_domain(CONFIG.domains, "us.example", ours), "us.example")
        self.assertEqual(postmaster_domain(CONFIG.domains, "mx.example", ours), "us.example")
        self.assertEqual(
            postmaster_domain({"*": 1, ".x.example": 1}, "mx.example", ours), "mx.example"
        )
