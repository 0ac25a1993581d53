"""Nobody relays through us who may not, and nobody's name becomes a path or an option.

The rows of attacks.md under Relay and identity, each in three segmentations.  "Ours" is
example.com; the client is a stranger, unless a test says otherwise.
"""

from __future__ import annotations

from pathlib import Path

from .attacks import OK, TAKEN, AttackTestCase
from .harness import LiveTestCase, until
from .sinks import Maildir, Sink
from .wire import Wire, envelope, message, say

MESSAGE = b"Subject: relay\r\n\r\nbody\r\n"


class RelayRules(AttackTestCase):
    """Only exactly our domains."""

    options = {"relay": "networks = 127.0.0.9/32"}  # noqa: RUF012

    def sections(self, sink: Sink) -> dict[str, str]:
        """Two domains of ours, one only below its name; * for the relay network."""
        domains = f"example.com = {sink.route}\n.sub.example = {sink.route}\n* = {sink.route}"
        return {"domains": domains, **self.options}

    def refused(self, path: str, answer: str = "550 5.7.1") -> None:
        """Expect ``answer`` to RCPT, alone and beside a recipient that is good."""
        rcpt = say(f"RCPT TO:{path}")
        alone = (*envelope(), rcpt, *message(MESSAGE)[:1], say("QUIT"))
        no_data = "503" if answer.startswith("501") else "554"
        self.attack(alone, "250", "250", answer, no_data, "221")
        beside = (*envelope("a@example.com"), rcpt, *message(MESSAGE), say("QUIT"))
        answers = (*OK, answer, "354", "250 2.0.0", "221")
        self.attack(beside, *answers, stored=[(("a@example.com",), MESSAGE)])

    def taken(self, path: str, mailbox: str) -> None:
        """Expect a message to ``path`` to arrive for ``mailbox``."""
        steps = (*envelope(), say(f"RCPT TO:{path}"), *message(MESSAGE), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[((mailbox,), MESSAGE)])

    def test_elsewhere(self) -> None:
        """Somebody else's domain."""
        self.refused("<v@evil.test>")

    def test_percent_at_literal(self) -> None:
        """v%evil@[ip]"""
        self.refused("<v%evil.test@[127.0.0.1]>")

    def test_percent_at_us(self) -> None:
        """v%evil@us: the next hop would route it on."""
        self.refused("<v%evil.test@example.com>")

    def test_quoted_at(self) -> None:
        """\"v@evil\"@us"""
        self.refused('<"v@evil.test"@example.com>')

    def test_two_ats(self) -> None:
        """v@evil@us is nonsense."""
        self.refused("<v@evil.test@example.com>", "501")

    def test_two_ats_reversed(self) -> None:
        """v@us@evil is nonsense too."""
        self.refused("<v@example.com@evil.test>", "501")

    def test_source_route(self) -> None:
        """@us:v@evil: the route is ignored, the recipient is not ours."""
        self.refused("<@example.com:v@evil.test>")

    def test_source_route_to_us(self) -> None:
        """@evil:v@us is v@us (RFC 5321 Appendix C)."""
        self.taken("<@evil.test:v@example.com>", "v@example.com")

    def test_bang(self) -> None:
        """evil!v@us"""
        self.refused("<evil.test!v@example.com>")

    def test_foreign_literal(self) -> None:
        """v@[10.9.8.7]"""
        self.refused("<v@[10.9.8.7]>")

    def test_own_literal(self) -> None:
        """v@[our own address] is nobody here."""
        self.refused("<v@[127.0.0.1]>")

    def test_longer_domain(self) -> None:
        """v@us.evil"""
        self.refused("<v@example.com.evil.test>")

    def test_longer_label(self) -> None:
        """v@evilus"""
        self.refused("<v@evilexample.com>")

    def test_subdomain(self) -> None:
        """v@sub.us: only what is written is ours."""
        self.refused("<v@sub.example.com>")

    def test_no_domain(self) -> None:
        """x@"""
        self.refused("<x@>", "501")

    def test_no_domain_at_all(self) -> None:
        """x"""
        self.refused("<x>", "501")

    def test_trailing_dot(self) -> None:
        """x@us. is no domain name of RFC 5321."""
        self.refused("<x@example.com.>", "501")

    def test_leading_dot(self) -> None:
        """x@.us"""
        self.refused("<x@.example.com>", "501")

    def test_path(self) -> None:
        """../../x@us"""
        self.refused("<../../x@example.com>", "550 5.1.3")

    def test_quoted_path(self) -> None:
        """\"../../x\"@us"""
        self.refused('<"../../x"@example.com>', "550 5.1.3")

    def test_option(self) -> None:
        """-oQx@us"""
        self.refused("<-oQx@example.com>", "550 5.1.3")

    def test_pipe(self) -> None:
        """|id@us"""
        self.refused("<|id@example.com>", "550 5.1.3")

    def test_absolute_path(self) -> None:
        """/etc/passwd@us"""
        self.refused("</etc/passwd@example.com>", "550 5.1.3")

    def test_empty(self) -> None:
        """RCPT TO:<>"""
        self.refused("<>", "501")

    def test_foreign_postmaster(self) -> None:
        """Somebody else's postmaster is not ours."""
        self.refused("<postmaster@evil.test>")

    def test_postmaster(self) -> None:
        """<postmaster> is always taken (RFC 5321 §4.5.1)."""
        self.taken("<postmaster>", "postmaster@example.com")

    def test_postmaster_in_any_case(self) -> None:
        """However it is written."""
        self.taken("<PostMaster>", "postmaster@example.com")

    def test_postmaster_at_us(self) -> None:
        """And at our domain."""
        self.taken("<postmaster@example.com>", "postmaster@example.com")

    def test_postmaster_at_own_literal(self) -> None:
        """And at the address where the client reached us."""
        self.taken("<postmaster@[127.0.0.1]>", "postmaster@example.com")

    def test_domain_in_capitals(self) -> None:
        """Domains have no case."""
        self.taken("<v@EXAMPLE.Com>", "v@example.com")

    def test_below_a_dot(self) -> None:
        """A line that begins with a dot names what is below, not the name itself."""
        self.taken("<v@a.b.sub.example>", "v@a.b.sub.example")
        self.refused("<v@sub.example>")

    def test_relay_network(self) -> None:
        """A client of the relay networks sends anywhere, * says how."""
        with Wire(self.node.address, source="127.0.0.9") as wire:
            wire.hello()
            replies = wire.transact(MESSAGE, "v@evil.test")
            wire.command("QUIT")
        self.assertTrue(replies[-1].startswith("250"), str(replies))
        self.node.settle()
        self.assertEqual(self.stored(self.sink.clear()), [(("v@evil.test",), MESSAGE)])

    def test_null_reverse_path(self) -> None:
        """MAIL FROM:<> is taken."""
        steps = (*envelope("a@example.com", sender=""), *message(MESSAGE), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), MESSAGE)])

    def test_xclient(self) -> None:
        """XCLIENT is not for strangers: the session keeps its address."""
        steps = (
            say("EHLO client.test"),
            say("XCLIENT ADDR=127.0.0.9 NAME=trusted.test"),
            say("MAIL FROM:<s@client.test>"),
            say("RCPT TO:<v@evil.test>"),
            say("QUIT"),
        )
        self.attack(steps, "250", "550", "250", "550 5.7.1", "221")

    def test_xforward(self) -> None:
        """Nor is XFORWARD."""
        steps = (say("EHLO client.test"), say("XFORWARD ADDR=127.0.0.9"), say("QUIT"))
        self.attack(steps, "250", "550", "221")

    def test_proxy_header(self) -> None:
        """A PROXY header from a stranger ends the session."""
        header = say("PROXY TCP4 127.0.0.9 127.0.0.1 40000 25")
        self.attack((header, *envelope("v@evil.test"), say("QUIT")), "554")


class Loops(AttackTestCase):
    """A message that goes round is stopped."""

    def looping(self, fields: bytes, answer: str) -> None:
        steps = (*envelope("a@example.com"), *message(fields + MESSAGE), say("QUIT"))
        stored = [] if answer.startswith("5") else [(("a@example.com",), fields + MESSAGE)]
        self.attack(steps, *OK, "354", answer, "221", stored=stored)

    def test_fifty_received(self) -> None:
        """50 Received fields are a long way, but no loop."""
        self.looping(b"Received: from a by b;\r\n\tMon, 23 Nov 2026\r\n" * 50, "250")

    def test_too_many_received(self) -> None:
        """51 are a loop."""
        self.looping(b"Received: from a by b;\r\n\tMon, 23 Nov 2026\r\n" * 51, "554 5.4.6")

    def test_received_in_capitals(self) -> None:
        """Field names have no case."""
        self.looping(b"RECEIVED: from a by b\r\n" * 60, "554 5.4.6")

    def test_received_in_the_body(self) -> None:
        """What stands in the body is text."""
        content = b"Subject: x\r\n\r\n" + b"Received: from a by b\r\n" * 60
        steps = (*envelope("a@example.com"), *message(content), say("QUIT"))
        self.attack(steps, *TAKEN, "221", stored=[(("a@example.com",), content)])

    def test_own_delivered_to(self) -> None:
        """Delivered here already: a loop."""
        self.looping(b"Delivered-To: A@example.com\r\n", "554 5.4.6")

    def test_other_delivered_to(self) -> None:
        """Delivered to somebody else before: forwarded, no loop."""
        self.looping(b"Delivered-To: b@example.com\r\n", "250")


class NoBackscatter(LiveTestCase):
    """What came from nobody goes back to nobody."""

    def test_null_reverse_path_is_never_bounced(self) -> None:
        """A message from <> that the next hop refuses leaves without a bounce."""
        sink = Sink()
        self.addCleanup(sink.close)
        sink.recipient_answers["gone@example.com"] = "550 5.1.1 no such user"
        node = self.gateway(domains=f"example.com = {sink.route}\nclient.test = {sink.route}")
        with Wire(node.address) as wire:
            wire.hello()
            wire.transact(MESSAGE, "gone@example.com", sender="")
        until(lambda: node.status()["counters"]["failed"] == 1, "the failure", 10, node.tail)
        node.settle()
        counters = node.status()["counters"]
        self.assertEqual((counters["bounces_sent"], counters["bounces_dropped"]), (0, 1))
        self.assertEqual(sink.taken(), [])


class Paths(LiveTestCase):
    """An address never chooses a file."""

    def test_maildir(self) -> None:
        """Whatever the local part, mail lies in the Maildir and nowhere else."""
        node = self.gateway(domains="example.com = maildir:mail")
        locals_ = ["../../x", '"../up"', '"a/b"', '"a\\\\b"', '".."', "a.b", "new", "x+y"]
        taken = 0
        with Wire(node.address) as wire:
            wire.hello()
            for local in locals_:
                replies = wire.transact(MESSAGE, f"{local}@example.com")
                taken += replies[-1].startswith("250")
                wire.command("RSET")
        node.settle()
        mail = node.directory / "mail"
        self.assertEqual(len(Maildir(mail).messages()), taken)
        self.assertGreaterEqual(taken, 3)
        self.assertEqual({each.name for each in mail.iterdir()}, {"new", "cur", "tmp"})
        known = {node.ini.name, "state", "mail"}
        self.assertEqual({each.name for each in Path(node.directory).iterdir()}, known)
