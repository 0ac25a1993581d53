"""What the gateway does with what the checks find: on the wire, in the spool, in the history."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from mailsecure.config.load import parse_config
from mailsecure.config.model import Config
from mailsecure.config.scanning import ScanAction
from mailsecure.counters import Counters
from mailsecure.errors import LocalFault
from mailsecure.gateway.judging import Judge
from mailsecure.records.values import Event, MessageEvent, RefusalEvent, SessionEvent
from mailsecure.scan.api import Check, Site
from mailsecure.scan.scanner import Scanner
from mailsecure.scan.values import (
    AddField,
    AuthResult,
    Facts,
    Finding,
    RemoveField,
    Special,
    Stage,
    Symbol,
)
from mailsecure.testing.workers import InlineWorkers

from .house import Caller, House, HouseTestCase, ini


class Scripted:
    """A check, and its maker: finds what a test tells it to."""

    name = "scripted"
    stages = frozenset(Stage)

    def __init__(self) -> None:
        self.finding: dict[Stage, Finding] = {}
        self.waits: dict[Stage, Deferred[None]] = {}
        self.facts: list[Facts] = []
        self.fault: Exception | None = None

    def make(self, site: Site) -> Check:
        """The maker's."""
        return self

    async def check(self, stage: Stage, facts: Facts) -> Finding:
        """The check's."""
        if stage in self.waits:
            await self.waits[stage]
        if stage is Stage.DATA:
            self.facts.append(facts)
            if self.fault is not None:
                raise self.fault
        return self.finding.get(stage, Finding())


class Ledger:
    """A history that is a list."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)

    def all(self, kind: Any) -> list[Any]:
        """Return those of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


class JudgedTestCase(HouseTestCase):
    """A house with a scanner."""

    def setUp(self) -> None:
        super().setUp()
        self.check = Scripted()
        self.ledger = Ledger()

    async def open(self, scan: str = "", more: str = "", networks: str = "") -> House:
        """Open it; ``scan`` are lines of [scan]."""
        config = ini(networks=networks)
        other = parse_config(f"[scan]\nchecks = scripted\n{scan}\n{more}", "t.ini")
        config = replace(config, scan=other.scan, profile=other.profile)
        return await self.open_house(
            config, recorder=self.ledger, scanner_of=lambda world: self.scanner(config, world)
        )

    def scanner(self, config: Config, world: Any) -> Scanner:
        """Return the scanner of a house."""
        workers = InlineWorkers()
        site = Site(config, world, workers, self.path())
        self.counters = Counters()
        makers: Any = {"scripted": self.check}
        return Scanner(site, workers, makers, self.counters)

    def finds(self, *symbols: Symbol, stage: Stage = Stage.DATA, **more: Any) -> None:
        """Have the check find something."""
        self.check.finding[stage] = Finding(symbols, **more)

    async def greeted(self) -> Caller:
        """Return a client that has been greeted."""
        caller = self.call()
        self.assertTrue((await caller.reply()).startswith(b"220"))
        return caller

    async def send(
        self,
        *recipients: str,
        content: bytes = b"Subject: x\r\n\r\nx\r\n",
        caller: Caller | None = None,
    ) -> bytes:
        """Send a message; return the reply to it."""
        caller = caller or await self.greeted()
        await caller.ask(b"EHLO client.test")
        await caller.ask(b"MAIL FROM:<sender@outside.test>")
        for each in recipients or ("a@inside.test",):
            self.assertTrue((await caller.ask(b"RCPT TO:<" + each.encode() + b">"))[:3] == b"250")
        await caller.ask(b"DATA")
        return await caller.ask(content + b".")

    async def kept(self) -> bytes:
        """Return the one message in the spool."""
        (message,) = self.house.spool.accepted
        return b"".join(message.body.pieces())


class Answers(JudgedTestCase):
    """What each action comes to."""

    async def test_accept(self) -> None:
        await self.open()
        reply = await self.send()
        self.assertTrue(reply.startswith(b"250 2.0.0 Ok: queued as "))
        self.assertEqual(len(self.house.taken), 1)
        self.assertIn(
            b"X-Spam-Status: No, score=0 required=5\r\n\ttests=none\r\n", await self.kept()
        )
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual((event.action, event.subject, event.score), ("accept", "x", 0))
        self.assertEqual(event.recipients, (("a@inside.test", "accept"),))

    async def test_tag(self) -> None:
        await self.open("subject_prefix = [SPAM]\n")
        self.finds(Symbol("A", 4.0), Symbol("B", 1.5))
        await self.send()
        message = await self.kept()
        self.assertTrue(message.startswith(b"X-Spam-Flag: YES\r\nX-Spam-Status: Yes, score=5.5"))
        self.assertIn(b"tests=A=4,B=1.5\r\n", message)
        self.assertTrue(message.endswith(b"\r\nSubject: [SPAM] x\r\n\r\nx\r\n"), message)
        self.assertEqual(len(self.house.taken), 1)

    async def test_quarantine(self) -> None:
        await self.open()
        self.finds(Symbol("BAD", 12.0, "because"))
        content = b"Subject: =?utf-8?q?h=C3=A4?=\r\nFrom: X <x@y>\r\n\r\nx\r\n"
        self.assertTrue((await self.send(content=content)).startswith(b"250"))
        (message,) = self.house.spool.accepted
        held = message.quarantine
        self.assertEqual(held.recipients, frozenset({0}))
        self.assertEqual(held.reason, "BAD (because)")
        self.assertEqual((held.subject, held.header_from), ("hä", "X <x@y>"))
        self.assertEqual(held.symbols, (("BAD", 12.0, "because"),))
        # Delivery is not told: nobody of it is due.
        self.assertEqual(self.house.taken, [])

    async def test_reject(self) -> None:
        await self.open()
        self.finds(Symbol("V", special=Special.MALWARE, reason="Eicar", reply="5.7.1 Virus"))
        caller = await self.greeted()
        reply = await self.send(caller=caller)
        self.assertRegex(reply.decode(), r"^554 5\.7\.1 Virus \(\w{13}\)$")
        self.assertEqual(self.house.spool.accepted, [])
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual((event.action, event.reply), ("reject", reply.decode()))
        self.assertEqual(
            [(each.name, each.check, each.action) for each in event.symbols],
            [("V", "scripted", "reject")],
        )
        self.assertEqual(self.ledger.all(RefusalEvent), [])
        # The session goes on, and its next message is another one.
        self.finds()
        self.assertTrue((await self.send(caller=caller)).startswith(b"250"))
        self.assertEqual(self.house.counters.messages_malware, 1)

    async def test_tempfail_is_no_error_of_the_client(self) -> None:
        await self.open()
        self.check.fault = LocalFault("away")
        caller = await self.greeted()
        for _ in range(25):
            reply = await self.send(caller=caller)
            self.assertRegex(reply.decode(), r"^451 4\.7\.1 Message cannot be checked now")
        self.check.fault = None
        self.assertTrue((await self.send(caller=caller)).startswith(b"250"))
        self.assertEqual(self.counters.checks_failed, 25)

    async def test_failure_that_is_let_pass_is_written_down(self) -> None:
        await self.open("on_failure = accept\n")
        self.check.fault = LocalFault("away")
        self.assertTrue((await self.send()).startswith(b"250"))
        self.assertIn(b"X-Scan-Failed: SCRIPTED_FAILED\r\n", await self.kept())

    async def test_discard(self) -> None:
        await self.open()
        self.finds(Symbol("D", action=ScanAction.DISCARD))
        self.assertTrue((await self.send()).startswith(b"250 2.0.0 Ok: queued as"))
        self.assertEqual((self.house.spool.accepted, self.house.taken), ([], []))
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual(event.action, "discard")

    async def test_recipients_that_differ(self) -> None:
        await self.open(more="[profile:p]\nrecipients = strict@inside.test\nquarantine = 2\n")
        self.finds(
            Symbol("A", 3.0),
            Symbol("D", action=ScanAction.DISCARD, recipients=frozenset({"gone@inside.test"})),
        )
        await self.send("gone@inside.test", "a@inside.test", "strict@inside.test")
        (message,) = self.house.spool.accepted
        self.assertEqual(
            [each.mailbox for each in message.envelope.recipients],
            ["a@inside.test", "strict@inside.test"],
        )
        self.assertEqual(message.quarantine.recipients, frozenset({1}))
        self.assertEqual(len(self.house.taken), 1)
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual(
            event.recipients,
            (
                ("gone@inside.test", "discard"),
                ("a@inside.test", "accept"),
                ("strict@inside.test", "quarantine"),
            ),
        )

    async def test_a_surprise_loses_nothing_and_leaves_nothing(self) -> None:
        house = await self.open()
        self.check.fault = None
        caller = await self.greeted()

        def surprise(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(house.gateway._desk.judge, "judge", surprise)
        reply = await self.send("first@inside.test", caller=caller)
        self.assertTrue(reply.startswith(b"451 4.3.0 Internal error"), reply)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(house.gateway._parts.bodies.used, 0)
        house.gateway._desk.judge = Judge(house.gateway._desk.scanner, house.counters)
        self.assertTrue((await self.send("second@inside.test", caller=caller)).startswith(b"250"))
        (message,) = house.spool.accepted
        recipients = [each.mailbox for each in message.envelope.recipients]
        self.assertEqual(recipients, ["second@inside.test"])

    async def test_a_client_that_leaves_while_it_is_judged(self) -> None:
        await self.open()
        self.check.waits[Stage.DATA] = waits = Deferred()
        caller = await self.greeted()
        await caller.ask(b"EHLO client.test")
        await caller.ask(b"MAIL FROM:<sender@outside.test>")
        await caller.ask(b"RCPT TO:<a@inside.test>")
        await caller.ask(b"DATA")
        caller.say(b"x\r\n.\r\n")
        await self.turn()
        caller.reset_it()
        await self.until(lambda: self.house.gateway.count_sessions() == 0)
        waits.callback(None)
        await self.turn()
        # It will come again: to keep it would be to deliver it twice.
        self.assertEqual(self.house.spool.accepted, [])
        self.assertEqual(self.house.gateway._parts.bodies.used, 0)


class Headers(JudgedTestCase):
    """What is written into a message, and taken out of it."""

    async def test_results_and_edits(self) -> None:
        await self.open()
        self.finds(
            results=(AuthResult("spf", "pass", (("smtp.mailfrom", "outside.test"),)),),
            edits=(AddField("X-Add", "y"), RemoveField("X-Gone")),
        )
        content = (
            b"X-Gone: 1\r\nX-Spam-Status: No, says the sender\r\n"
            b"Authentication-Results: mx.test; spf=pass\r\n"
            b"Authentication-Results: other.test; spf=pass\r\nSubject: x\r\n\r\nX-Gone: body\r\n"
        )
        await self.send(content=content)
        message = await self.kept()
        head, _, body = message.partition(b"\r\n\r\n")
        self.assertEqual(body, b"X-Gone: body\r\n")
        self.assertRegex(head, rb"^Authentication-Results: mx\.test;\s+spf=pass")
        self.assertEqual(head.count(b"mx.test;"), 1)
        self.assertEqual(head.count(b"X-Spam-Status"), 1)
        self.assertNotIn(b"X-Gone", head)
        self.assertIn(b"\r\nX-Add: y\r\nReceived: from client.test ", head)
        self.assertTrue(
            head.endswith(b"\r\nAuthentication-Results: other.test; spf=pass\r\nSubject: x")
        )

    async def test_a_large_message_keeps_its_octets(self) -> None:
        await self.open()
        body = b"".join(b"%064d\r\n" % number for number in range(40_000))
        await self.send(content=b"X-Spam-Flag: NO\r\nA: b\r\n\r\n" + body)
        message = await self.kept()
        self.assertTrue(message.endswith(b"\r\nA: b\r\n\r\n" + body))
        self.assertNotIn(b"X-Spam-Flag", message)
        (facts,) = self.check.facts
        self.assertEqual(facts.client, "127.0.0.1")

    async def test_mail_that_leaves(self) -> None:
        """What we think of our own mail is not told to others; to our own users it is."""
        await self.open("subject_prefix = [SPAM]\n", networks="127.0.0.0/8")
        self.finds(Symbol("S", 6.0))
        content = b"X-Spam-Flag: NO\r\nSubject: x\r\n\r\nx\r\n"
        self.assertTrue((await self.send("b@far.test", content=content))[:3] == b"250")
        left = await self.kept()
        self.assertNotIn(b"X-Spam", left)
        self.assertTrue(left.endswith(b"\r\nSubject: x\r\n\r\nx\r\n"))
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual(event.action, "tag")
        self.house.spool.accepted.clear()
        self.assertTrue((await self.send("b@far.test", "a@inside.test"))[:3] == b"250")
        self.assertTrue((await self.kept()).startswith(b"X-Spam-Flag: YES\r\n"))

    async def test_an_edit_that_cannot_be(self) -> None:
        await self.open()
        self.finds(edits=(AddField("X", "a\r\nEvil: b"),))
        self.assertTrue((await self.send()).startswith(b"250"))
        self.assertNotIn(b"Evil", await self.kept())

    async def test_no_header_at_all(self) -> None:
        await self.open()
        await self.send(content=b"\r\nonly a body\r\n")
        self.assertTrue((await self.kept()).endswith(b"\r\n\r\nonly a body\r\n"))


class Early(JudgedTestCase):
    """What is known before the message."""

    async def rcpt(self, caller: Caller, recipient: bytes = b"a@inside.test") -> bytes:
        """Get as far as RCPT."""
        await caller.ask(b"EHLO client.test")
        await caller.ask(b"MAIL FROM:<sender@outside.test>")
        return await caller.ask(b"RCPT TO:<" + recipient + b">")

    async def test_refused_at_rcpt(self) -> None:
        await self.open()
        self.finds(
            Symbol("L", action=ScanAction.REJECT, reply="listed, see a.test"), stage=Stage.CONNECT
        )
        caller = await self.greeted()
        self.assertEqual(await self.rcpt(caller), b"550 5.7.1 listed, see a.test")
        (event,) = self.ledger.all(RefusalEvent)
        self.assertEqual(
            (event.stage, event.reverse_path, event.recipient, event.symbols[0].name),
            ("RCPT", "sender@outside.test", "a@inside.test", "L"),
        )
        self.assertEqual(self.house.counters.recipients_refused_by_checks, 1)
        # RFC 5321 §4.5.1.
        reply = await caller.ask(b"RCPT TO:<postmaster@inside.test>")
        self.assertTrue(reply.startswith(b"250"))

    async def test_rcpt_waits_and_order_is_kept(self) -> None:
        await self.open()
        self.check.waits[Stage.CONNECT] = waits = Deferred()
        caller = await self.greeted()
        caller.say(
            b"EHLO c.test\r\nMAIL FROM:<s@outside.test>\r\nRCPT TO:<a@inside.test>\r\n"
            b"RCPT TO:<b@inside.test>\r\nDATA\r\n"
        )
        await self.until(lambda: b"250 2.1.0" in caller.look())
        await self.turn()
        self.assertNotIn(b"2.1.5", caller.look())
        waits.callback(None)
        await self.until(lambda: b"354" in caller.look())
        self.assertEqual(caller.heard.count(b"250 2.1.5"), 2)

    async def test_what_is_found_early_counts_later(self) -> None:
        await self.open()
        for stage in (Stage.CONNECT, Stage.HELO, Stage.MAIL, Stage.RCPT):
            self.finds(Symbol(stage.name, 2.0), stage=stage)
        await self.send()
        self.assertIn(b"tests=CONNECT=2,HELO=2,MAIL=2,RCPT=2\r\n", await self.kept())

    async def test_greylisted_often(self) -> None:
        await self.open()
        self.finds(Symbol("G", action=ScanAction.TEMPFAIL, reply="come again"), stage=Stage.RCPT)
        caller = await self.greeted()
        for _ in range(30):
            self.assertEqual(await self.rcpt(caller), b"450 4.7.1 come again")


class RelayOnly(JudgedTestCase):
    """Who is not scanned."""

    async def test_networks(self) -> None:
        await self.open("relay_only_networks = 127.0.0.0/8\n")
        self.finds(Symbol("V", special=Special.MALWARE))
        self.assertTrue((await self.send()).startswith(b"250"))
        self.assertEqual(self.check.facts, [])
        self.assertNotIn(b"X-Spam", await self.kept())
        (event,) = self.ledger.all(MessageEvent)
        self.assertEqual((event.action, event.symbols), ("accept", ()))

    async def test_a_reload_changes_it(self) -> None:
        house = await self.open("relay_only_networks = 127.0.0.0/8\n")
        config = house.gateway._config
        house.reconfigure(replace(config, scan=replace(config.scan, relay_only_networks=())))
        self.finds(Symbol("V", special=Special.MALWARE))
        self.assertTrue((await self.send()).startswith(b"554"))


class History(JudgedTestCase):
    """What is told besides messages."""

    async def test_sessions(self) -> None:
        await self.open()
        caller = await self.greeted()
        await self.send(caller=caller)
        await caller.ask(b"QUIT")
        await self.until(lambda: self.ledger.all(SessionEvent))
        (event,) = self.ledger.all(SessionEvent)
        self.assertEqual(
            (event.client, event.helo, event.messages, event.end, event.refusal),
            ("127.0.0.1", "client.test", 1, "quit", ""),
        )
        (message,) = self.ledger.all(MessageEvent)
        self.assertEqual(message.session, event.session)

    async def test_who_is_not_let_in(self) -> None:
        house = await self.open()
        config = house.gateway._config
        blocked = parse_config("[smtp]\nblocked = 127.0.0.0/8\n", "t.ini").smtp.blocked
        house.reconfigure(replace(config, smtp=replace(config.smtp, blocked=blocked)))
        caller = self.call()
        await caller.gone()
        (event,) = self.ledger.all(SessionEvent)
        self.assertEqual(event.refusal, "554 5.7.1 No mail is taken from your network")
        self.assertEqual(self.ledger.all(RefusalEvent), [])

    async def test_refused_recipients_and_commands(self) -> None:
        await self.open()
        caller = await self.greeted()
        await caller.ask(b"EHLO c.test")
        await caller.ask(b"MAIL FROM:<s@outside.test>")
        await caller.ask(b"RCPT TO:<x@elsewhere.test>")
        await caller.ask(b"NONSENSE")
        self.assertEqual(
            [(each.stage, each.recipient) for each in self.ledger.all(RefusalEvent)],
            [("RCPT", "x@elsewhere.test"), ("COMMAND", "")],
        )
