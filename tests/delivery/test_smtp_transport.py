"""What a scripted next hop does to a message, and what the transport makes of it."""

from __future__ import annotations

import socket
from typing import ClassVar
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.trial.unittest import TestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.delivery import next_hop
from mailsecure.delivery.api import Fate, NextHopDown
from mailsecure.delivery.smtp_transport import SmtpTransport
from mailsecure.delivery.transports import make_transport
from mailsecure.spool.api import SpoolBroken
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone
from mailsecure.testing.smtp_server import DROP, SILENCE, ScriptedSmtpServer

from .support import CONTENT, MemoryBody, message, settings, world


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class TransportCase(TestCase):
    timeout = 20

    async def serve(self, **kind) -> ScriptedSmtpServer:
        server = ScriptedSmtpServer(**kind)
        self.port = await server.listen(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def transport(self, host: str = "127.0.0.1", port: int = 0, zone=None, **changes):
        route = Route(RouteKind.SMTP, host, port or self.port)
        transport = make_transport(
            world(reactor, FakeResolver(zone or {})),
            settings(**changes),
            "me.test",
            route,
            lambda name: False,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.close()))
        return transport

    async def down(self, work) -> NextHopDown:
        try:
            await work
        except NextHopDown as down:
            return down
        raise AssertionError("the next hop is not down")


class DeliveryTests(TransportCase):
    async def test_one_message(self):
        server = await self.serve()
        (outcome,) = await self.transport().deliver(
            message("a@y.test", eight_bit=True, ret="HDRS", envid="e1", notify="FAILURE")
        )
        self.assertEqual((outcome.index, outcome.fate), (0, Fate.DELIVERED))
        self.assertEqual(str(outcome.reply), "250 2.0.0 Ok")
        self.assertEqual(outcome.next_hop, f"127.0.0.1[127.0.0.1]:{self.port}")
        self.assertEqual((outcome.tls, outcome.final), ("", False))
        (received,) = server.messages
        self.assertEqual(received.content, CONTENT)
        self.assertEqual(received.recipients, ["a@y.test"])
        self.assertEqual(
            received.parameters, f"SIZE={len(CONTENT)} BODY=8BITMIME RET=HDRS ENVID=e1"
        )
        self.assertEqual(received.recipient_parameters, {"a@y.test": "NOTIFY=FAILURE"})
        self.assertEqual((received.reverse_path, received.helo), ("sender@client.test", "me.test"))

    async def test_without_dsn_it_is_relayed(self):
        await self.serve(extensions=())
        (outcome,) = await self.transport().deliver(message("a@y.test", sender=""))
        self.assertEqual(outcome.fate, Fate.RELAYED)

    async def test_recipients_one_by_one(self):
        for extensions in (("PIPELINING",), ()):
            server = await self.serve(extensions=extensions)
            server.recipients = {"b@y.test": "550 5.1.1 No", "c@y.test": "450 4.2.0 Later"}
            outcomes = await self.transport().deliver(message("a@y.test", "b@y.test", "c@y.test"))
            self.assertEqual(
                {outcome.index: outcome.fate for outcome in outcomes},
                {0: Fate.RELAYED, 1: Fate.FAILED, 2: Fate.DEFERRED},
            )
            self.assertEqual(server.messages[0].recipients, ["a@y.test"])

    async def test_connection_is_used_again(self):
        server = await self.serve()
        transport = self.transport()
        for _ in range(5):
            await transport.deliver(message("a@y.test"))
        self.assertEqual((server.connections, len(server.messages)), (1, 5))
        transport = self.transport(reuse_count=2)
        for _ in range(5):
            await transport.deliver(message("a@y.test"))
        self.assertEqual((server.connections, len(server.messages)), (4, 10))
        self.assertIn("QUIT", server.commands)

    async def test_used_again_after_all_recipients_failed(self):
        server = await self.serve()
        transport = self.transport()
        server.recipients["a@y.test"] = "550 5.1.1 No"
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.FAILED)
        server.replies["DATA"] = "354 Even so"
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(str(outcome.reply), "550 5.1.1 No")
        del server.recipients["a@y.test"]
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertEqual((server.connections, len(server.messages)), (1, 1))

    async def test_concurrency(self):
        server = await self.serve()
        server.delays["DOT"] = 0.05
        transport = self.transport(concurrency=3)
        work = [Deferred.fromCoroutine(transport.deliver(message("a@y.test"))) for _ in range(9)]
        await DeferredList(work, fireOnOneErrback=True)
        self.assertEqual((server.most_at_once, len(server.messages)), (3, 9))

    async def test_many_recipients_in_several_transactions(self):
        mailboxes = [f"r{number}@y.test" for number in range(250)]
        server = await self.serve()
        outcomes = await self.transport().deliver(message(*mailboxes))
        self.assertEqual(sorted(outcome.index for outcome in outcomes), list(range(250)))
        self.assertEqual([len(one.recipients) for one in server.messages], [100, 100, 50])
        server = await self.serve(extensions=("PIPELINING", "LIMITS RCPTMAX=200 MAILMAX=1"))
        await self.transport().deliver(message(*mailboxes))
        self.assertEqual([len(one.recipients) for one in server.messages], [200, 50])

    async def test_too_many_recipients_for_one_transaction(self):
        server = await self.serve()
        server.replies["RCPT"] = ["250 1", "452 4.5.3 Too many", "250 again"]
        outcomes = await self.transport().deliver(message("a@y.test", "b@y.test"))
        self.assertEqual({one.fate for one in outcomes}, {Fate.DELIVERED})
        self.assertEqual([one.recipients for one in server.messages], [["a@y.test"], ["b@y.test"]])
        server.replies["RCPT"] = "452 4.3.1 Full"
        outcomes = await self.transport().deliver(message("a@y.test", "b@y.test"))
        self.assertEqual({one.fate for one in outcomes}, {Fate.DEFERRED})

    async def test_large_bodies(self):
        server = await self.serve()
        lines = b"".join(b".%d dots and more\r\n" % number for number in range(60000))
        for in_memory in (True, False):
            (outcome,) = await self.transport().deliver(
                message("a@y.test", content=b"A: b\r\n\r\n" + lines, in_memory=in_memory)
            )
            self.assertEqual(outcome.fate, Fate.DELIVERED)
        for one in server.messages:
            self.assertEqual(one.content, b"A: b\r\n\r\n" + lines)

    async def test_body_without_last_line_end_and_empty(self):
        server = await self.serve()
        for content, received in ((b"x", b"x\r\n"), (b"", b""), (b".", b".\r\n")):
            await self.transport().deliver(message("a@y.test", content=content))
            self.assertEqual(server.messages[-1].content, received)

    async def test_cancelled(self):
        server = await self.serve()
        server.replies["DOT"] = SILENCE
        work = Deferred.fromCoroutine(self.transport().deliver(message("a@y.test")))
        while "DATA" not in server.commands:
            await self.pause()
        work.cancel()
        with self.assertRaises(CancelledError):
            await work

    def pause(self, seconds: float = 0.02) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        reactor.callLater(seconds, waiting.callback, None)
        return waiting


class TroubleTests(TransportCase):
    async def test_nobody_there(self):
        down = await self.down(self.transport(port=closed_port()).deliver(message("a@y.test")))
        self.assertEqual(down.reply.enhanced, "4.4.1")
        self.assertIn("refused", down.reply.text)
        self.assertIn("127.0.0.1[127.0.0.1]:", down.next_hop)

    async def test_refused_sessions(self):
        server = await self.serve()
        for step, reply in (
            ("GREETING", "421 4.3.2 Later"),
            ("GREETING", "554 5.7.1 Not you"),
            ("EHLO", "450 4.7.1 Hm"),
            ("GREETING", DROP),
            ("EHLO", DROP),
            ("GREETING", "nonsense"),
            ("MAIL", "421 4.7.0 Too many"),
            ("MAIL", DROP),
        ):
            server.replies = {step: reply}
            down = await self.down(self.transport().deliver(message("a@y.test")))
            if reply[:1] in "45":
                self.assertEqual(str(down.reply), reply)

    async def test_silence(self):
        server = await self.serve()
        for step in ("GREETING", "EHLO"):
            server.replies = {step: SILENCE}
            transport = self.transport(command_timeout=0.1)
            down = await self.down(transport.deliver(message("a@y.test")))
            self.assertIn("Timed out", down.reply.text)
        server.replies = {"DOT": SILENCE}
        (outcome,) = await self.transport(data_timeout=0.1).deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.DEFERRED)
        self.assertIn("after the final dot", outcome.reply.text)

    async def test_mail_and_data_and_dot_refused(self):
        server = await self.serve()
        for step in ("MAIL", "DATA", "DOT"):
            for reply, fate in (("451 4.3.0 x", Fate.DEFERRED), ("554 5.0.0 x", Fate.FAILED)):
                server.replies = {step: reply}
                outcomes = await self.transport().deliver(message("a@y.test", "b@y.test"))
                self.assertEqual(
                    [(one.fate, str(one.reply)) for one in outcomes], [(fate, reply)] * 2
                )
        self.assertEqual(server.messages, [])

    async def test_lost_on_the_way(self):
        server = await self.serve()
        for step in ("RCPT", "DATA", "DOT"):
            server.replies = {step: DROP}
            (outcome,) = await self.transport().deliver(message("a@y.test"))
            self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.4.2"))

    async def test_protocol_broken(self):
        server = await self.serve()
        server.replies["DOT"] = "250 ok\r\n250 and more"
        (outcome,) = await self.transport().deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.DELIVERED)
        server.replies["DOT"] = "nonsense\0"
        (outcome,) = await self.transport().deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.5.0"))

    async def test_stale_connection_is_replaced(self):
        server = await self.serve()
        transport = self.transport()
        await transport.deliver(message("a@y.test"))
        for reply in (DROP, "421 4.4.2 Idle too long"):
            server.replies["MAIL"] = [reply, "250 Ok"]
            (outcome,) = await transport.deliver(message("a@y.test"))
            self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertEqual(server.connections, 3)

    async def test_one_connection_too_many(self):
        server = await self.serve()
        server.delays["DOT"] = 0.1
        server.replies["GREETING"] = ["220 Hi", "421 4.7.0 Only one"]
        transport = self.transport()
        work = [Deferred.fromCoroutine(transport.deliver(message("a@y.test"))) for _ in range(4)]
        results = await DeferredList(work, fireOnOneErrback=True)
        self.assertEqual([value[0].fate for _, value in results], [Fate.DELIVERED] * 4)

    async def test_too_large(self):
        server = await self.serve(extensions=("SIZE 10",))
        (outcome,) = await self.transport().deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.FAILED, "5.3.4"))
        self.assertNotIn("DATA", server.commands)

    async def test_smtputf8(self):
        server = await self.serve()
        mail = message("ä@y.test", smtputf8=True)
        (outcome,) = await self.transport().deliver(mail)
        self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertIn("SMTPUTF8", server.messages[0].parameters)
        server.extensions = ("PIPELINING",)
        outcomes = await self.transport().deliver(message("ä@y.test", "a@y.test", smtputf8=True))
        self.assertEqual(
            {one.index: one.reply.enhanced for one in outcomes}, {0: "5.6.7", 1: "2.0.0"}
        )
        outcomes = await self.transport().deliver(message("a@y.test", sender="ö@x.test"))
        self.assertEqual(outcomes[0].reply.enhanced, "5.6.7")
        header = "Subject: ä\r\n\r\n".encode()
        for in_memory in (True, False):
            outcomes = await self.transport().deliver(
                message("a@y.test", content=header, smtputf8=True, in_memory=in_memory)
            )
            self.assertEqual(outcomes[0].reply.enhanced, "5.6.9")
        # Nobody asked for SMTPUTF8: eight bits pass as they always did.
        outcomes = await self.transport().deliver(message("a@y.test", content=header))
        self.assertEqual(outcomes[0].fate, Fate.RELAYED)

    async def test_unclean_body_never_ends(self):
        server = await self.serve()
        for content in (b"a\nb\r\n", b"a\r\n" * 200000 + b"\r"):
            outcomes = await self.transport().deliver(message("a@y.test", content=content))
            self.assertEqual((outcomes[0].fate, outcomes[0].reply.enhanced), (Fate.FAILED, "5.6.0"))
        self.assertEqual(server.messages, [])

    async def test_unreadable_body(self):
        class Broken(MemoryBody):
            def pieces(self, size=65536):
                yield b"a\r\n"
                raise SpoolBroken("gone")

        server = await self.serve()
        for in_memory in (True, False):
            mail = message("a@y.test")
            mail.body = Broken(b"x" * 10, in_memory)
            (outcome,) = await self.transport().deliver(mail)
            self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.3.0"))
        self.assertEqual(server.messages, [])


class TargetTests(TransportCase):
    zone: ClassVar[Zone] = {"mx.test": {"A": ["127.0.0.1"], "AAAA": ["::1"]}}

    async def test_named_host_and_the_other_family(self):
        server = await self.serve()
        (outcome,) = await self.transport("mx.test", zone=self.zone).deliver(message("a@y.test"))
        self.assertEqual(outcome.next_hop, f"mx.test[127.0.0.1]:{self.port}")
        self.assertEqual(len(server.messages), 1)

    async def test_dead_target_is_tried_last(self):
        await self.serve()
        transport = self.transport("mx.test", zone=self.zone)
        tried = []
        real = next_hop.connect_tcp

        def spy(reactor, address, *rest):
            tried.append(address)
            return real(reactor, address, *rest)

        with patch.object(next_hop, "connect_tcp", spy):
            await transport.deliver(message("a@y.test"))
            await transport.close()
            tried.clear()
            await transport.deliver(message("a@y.test"))
        self.assertNotIn("::1", tried)

    async def test_unknown_host_waits(self):
        zone = {"broken.test": SERVFAIL}
        for host, enhanced in (("nowhere.test", "4.4.4"), ("broken.test", "4.4.3")):
            transport = self.transport(host, port=25, zone=zone)
            down = await self.down(transport.deliver(message("a@y.test")))
            self.assertEqual(down.reply.enhanced, enhanced)
            down = await self.down(transport.probe("y.test", "a@y.test"))
            self.assertEqual(down.reply.enhanced, enhanced)

    async def mx(self, *servers: str, zone=None) -> SmtpTransport:
        """An mx transport whose hosts are 127.0.0.1, 127.0.0.2, … on one port."""
        addresses = [f"127.0.0.{number + 1}" for number in range(len(servers))]
        self.servers = []
        self.port = 0
        for reply, address in zip(servers, addresses, strict=True):
            server = ScriptedSmtpServer()
            if reply:
                step, _, text = reply.partition(" ")
                server.replies[step] = text
            self.port = await server.listen(reactor, address, self.port)
            self.addCleanup(lambda server=server: Deferred.fromCoroutine(server.stop()))
            self.servers.append(server)
        zone = zone or {
            "y.test": {"MX": [f"{n} mx{n}.test" for n in range(len(servers))]},
            **{f"mx{n}.test": {"A": [address]} for n, address in enumerate(addresses)},
        }
        transport = SmtpTransport(
            world(reactor, FakeResolver(zone)),
            settings(),
            "me.test",
            Route(RouteKind.MX),
            lambda name: False,
            self.port,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.close()))
        return transport

    async def test_next_mx(self):
        for trouble in (
            "GREETING 421 4.3.2 Later",
            "GREETING 554 5.3.2 Go away",
            "MAIL 451 4.3.0 Later",
            "RCPT 421 4.3.0 Bye",
            "DATA " + DROP,
        ):
            transport = await self.mx(trouble, "")
            (outcome,) = await transport.deliver(message("a@y.test"))
            self.assertEqual(outcome.fate, Fate.DELIVERED, trouble)
            self.assertEqual(outcome.next_hop, f"mx1.test[127.0.0.2]:{self.port}")

    async def test_what_stands(self):
        for trouble in ("RCPT 450 4.2.0 Later", "DOT 451 4.3.0 x", "DOT " + DROP):
            transport = await self.mx(trouble, "")
            (outcome,) = await transport.deliver(message("a@y.test"))
            self.assertEqual(outcome.fate, Fate.DEFERRED)
            self.assertEqual(self.servers[1].connections, 0)

    async def test_all_troubled(self):
        transport = await self.mx("DATA " + DROP, "GREETING 421 4.3.2 Down")
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.reply.enhanced), (Fate.DEFERRED, "4.4.2"))
        transport = await self.mx("GREETING 421 a", "GREETING 421 b")
        down = await self.down(transport.deliver(message("a@y.test")))
        self.assertEqual(str(down.reply), "421 b")

    async def test_permanent(self):
        transport = await self.mx("", zone={"y.test": {"MX": ["0 ."]}})
        outcomes = await transport.deliver(message("a@y.test", "b@y.test"))
        self.assertEqual([str(one.reply)[:10] for one in outcomes], ["556 5.1.10"] * 2)
        self.assertEqual(str(await transport.probe("y.test", "a@y.test"))[:10], "556 5.1.10")


class ProbeTests(TransportCase):
    async def test_probe(self):
        server = await self.serve()
        server.recipients["no@y.test"] = "550 5.1.1 Unknown"
        transport = self.transport()
        self.assertEqual((await transport.probe("y.test", "a@y.test")).code, 250)
        self.assertEqual((await transport.probe("y.test", "no@y.test")).code, 550)
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertEqual((server.connections, len(server.messages)), (1, 1))
        self.assertEqual(server.commands[1], "MAIL FROM:<>")

    async def test_nobody_to_ask(self):
        server = await self.serve()
        for step, reply in (
            ("MAIL", "550 5.7.1 No null senders"),
            ("GREETING", "421 x"),
            ("MAIL", DROP),
        ):
            server.replies = {step: reply}
            await self.down(self.transport().probe("y.test", "a@y.test"))

    async def test_stale_connection(self):
        server = await self.serve()
        transport = self.transport()
        await transport.probe("y.test", "a@y.test")
        server.replies["RSET"] = DROP
        self.assertEqual((await transport.probe("y.test", "a@y.test")).code, 250)
        self.assertEqual(server.connections, 2)


class SourceAddressTests(TransportCase):
    async def test_source_address(self):
        server = await self.serve()
        peers = []
        real = server.protocol
        server.protocol = lambda: peers.append(real()) or peers[-1]  # type: ignore[method-assign]
        await server.stop()
        self.port = await server.listen(reactor)
        transport = self.transport(source_address="127.0.0.5 ::1")
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertEqual(peers[0].transport.getPeer().host, "127.0.0.5")
