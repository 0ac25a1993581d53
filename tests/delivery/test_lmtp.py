"""LMTP over TCP and Unix sockets: LHLO, and a reply for each recipient."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailsecure.config.model import Route, RouteKind, TlsLevel
from mailsecure.delivery.api import Fate, NextHopDown
from mailsecure.delivery.transports import make_transport
from mailsecure.testing.resolver import FakeResolver
from mailsecure.testing.smtp_server import EXTENSIONS, ScriptedSmtpServer

from .support import CONTENT, message, settings, world


class LmtpTests(TestCase):
    timeout = 20

    def transport(self, route: Route, **changes):
        resolver = FakeResolver({"box.test": {"A": ["127.0.0.1"]}})
        transport = make_transport(
            world(reactor, resolver), settings(**changes), "me.test", route, lambda name: False
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.close()))
        return transport

    def server(self, extensions=EXTENSIONS) -> ScriptedSmtpServer:
        server = ScriptedSmtpServer(lmtp=True, extensions=extensions)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    async def test_tcp(self):
        server = self.server(("PIPELINING",))
        port = await server.listen(reactor)
        server.final["full@y.test"] = "452 4.2.2 Mailbox full"
        server.recipients["no@y.test"] = "550 5.1.1 No"
        mail = message("a@y.test", "no@y.test", "full@y.test", "b@y.test")
        for host in ("127.0.0.1", "box.test"):
            transport = self.transport(Route(RouteKind.LMTP, host, port))
            for _ in range(2):
                outcomes = await transport.deliver(mail)
                self.assertEqual(
                    {one.index: one.fate for one in outcomes},
                    {0: Fate.RELAYED, 1: Fate.FAILED, 2: Fate.DEFERRED, 3: Fate.RELAYED},
                )
                self.assertTrue(outcomes[0].final)
            self.assertEqual(server.messages[-1].recipients, ["a@y.test", "b@y.test"])
            self.assertEqual(server.messages[-1].content, CONTENT)
            self.assertEqual((await transport.probe("y.test", "no@y.test")).code, 550)
        self.assertEqual((server.commands[0], server.connections), ("LHLO me.test", 2))

    async def test_unix_socket_needs_no_tls(self):
        server = self.server()
        path = self.mktemp()
        await server.listen_unix(reactor, path)
        route = Route(RouteKind.LMTP_UNIX, path=path)
        transport = self.transport(route, tls=TlsLevel.REQUIRED)
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.next_hop), (Fate.DELIVERED, f"lmtp+unix:{path}"))
        self.assertEqual((await transport.probe("y.test", "a@y.test")).code, 250)

    async def test_nobody_there(self):
        transport = self.transport(Route(RouteKind.LMTP_UNIX, path="/nonexistent/socket"))
        with self.assertRaises(NextHopDown) as caught:
            await transport.deliver(message("a@y.test"))
        self.assertIn("No such file", str(caught.exception))

    async def test_data_accepted_without_recipients(self):
        server = self.server()
        port = await server.listen(reactor)
        server.replies["RCPT"] = "550 5.1.1 No"
        server.replies["DATA"] = "354 Go"
        transport = self.transport(Route(RouteKind.LMTP, "127.0.0.1", port))
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual(outcome.fate, Fate.FAILED)
        server.replies.clear()
        (outcome,) = await transport.deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, server.connections), (Fate.DELIVERED, 2))
