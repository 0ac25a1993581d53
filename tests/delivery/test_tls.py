"""TLS towards next hops: used where offered, verified where required, never half."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.ssl import (
    AcceptableCiphers,
    CertificateOptions,
    PrivateCertificate,
    TLSVersion,
)
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.config.model import Route, RouteKind, TlsLevel
from mailsecure.delivery import tls
from mailsecure.delivery.api import Fate, NextHopDown
from mailsecure.delivery.tls import ClientTls, PlainHosts
from mailsecure.delivery.transports import make_transport
from mailsecure.testing.certificates import make_authority
from mailsecure.testing.resolver import FakeResolver, Zone
from mailsecure.testing.smtp_server import ScriptedSmtpServer

from .support import message, settings, world

AUTHORITY = make_authority()
GOOD = AUTHORITY.certificate("mx.test", "127.0.0.1")
WRONG_NAME = AUTHORITY.certificate("other.test")
STRANGER = make_authority().certificate("mx.test")


class TlsTests(TestCase):
    timeout = 20

    def setUp(self):
        self.zone: Zone = {"mx.test": {"A": ["127.0.0.1"]}}
        self.changes: dict[str, object] = {}

    async def serve(self, tls_options) -> ScriptedSmtpServer:
        server = ScriptedSmtpServer(tls_options=tls_options)
        self.port = await server.listen(reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(server.stop()))
        return server

    def transport(self, level: TlsLevel, host: str = "mx.test"):
        authorities = Path(self.mktemp())
        authorities.write_bytes(b"A comment\n" + AUTHORITY.pem)
        transport = make_transport(
            world(reactor, FakeResolver(self.zone)),
            settings(tls=level, tls_ca=authorities, **self.changes),
            "me.test",
            Route(RouteKind.SMTP, host, self.port),
            lambda name: False,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(transport.close()))
        return transport

    async def down(self, level: TlsLevel, host: str = "mx.test") -> str:
        try:
            await self.transport(level, host).deliver(message("a@y.test"))
        except NextHopDown as down:
            return str(down)
        raise AssertionError("delivered")

    async def test_opportunistic_looks_at_no_certificate(self):
        for issued in (GOOD, WRONG_NAME, STRANGER):
            server = await self.serve(issued.server_options())
            transport = self.transport(TlsLevel.OPPORTUNISTIC)
            for _ in range(2):
                (outcome,) = await transport.deliver(message("a@y.test"))
                self.assertEqual(outcome.fate, Fate.DELIVERED)
                self.assertTrue(outcome.tls.startswith("TLSv1."))
            self.assertEqual([one.tls for one in server.messages], [True, True])
            self.assertEqual(server.connections, 1)
            self.assertEqual(server.commands.count("EHLO me.test"), 2)

    async def test_large_body_through_tls(self):
        server = await self.serve(GOOD.server_options())
        content = b"x" * 70 + b"\r\n"
        for in_memory in (True, False):
            mail = message("a@y.test", content=content * 20000, in_memory=in_memory)
            (outcome,) = await self.transport(TlsLevel.REQUIRED).deliver(mail)
            self.assertEqual(outcome.fate, Fate.DELIVERED)
            self.assertEqual(server.messages[-1].content, content * 20000)

    async def test_opportunistic_without_an_offer(self):
        await self.serve(None)
        (outcome,) = await self.transport(TlsLevel.OPPORTUNISTIC).deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.tls), (Fate.DELIVERED, ""))

    async def test_none_ignores_the_offer(self):
        server = await self.serve(GOOD.server_options())
        await self.transport(TlsLevel.NONE).deliver(message("a@y.test"))
        self.assertFalse(server.messages[0].tls)

    async def test_failed_handshake_goes_on_without(self):
        issued = PrivateCertificate.loadPEM(GOOD.key_pem + GOOD.certificate_pem)
        options = CertificateOptions(
            privateKey=issued.privateKey.original,
            certificate=issued.original,
            # Ciphers that need an RSA key, which this server has not.
            acceptableCiphers=AcceptableCiphers.fromOpenSSLCipherString("AES128-SHA"),
            lowerMaximumSecurityTo=TLSVersion.TLSv1_2,
        )
        server = await self.serve(options)
        transport = self.transport(TlsLevel.OPPORTUNISTIC)
        for _ in range(2):
            (outcome,) = await transport.deliver(message("a@y.test"))
            self.assertEqual((outcome.fate, outcome.tls), (Fate.DELIVERED, ""))
            await transport.close()
        self.assertEqual(server.commands.count("STARTTLS"), 1)
        self.assertIn("4.7.5", await self.down(TlsLevel.REQUIRED))

    async def test_required(self):
        server = await self.serve(GOOD.server_options())
        for host in ("mx.test", "127.0.0.1"):
            (outcome,) = await self.transport(TlsLevel.REQUIRED, host).deliver(message("a@y.test"))
            self.assertEqual(outcome.fate, Fate.DELIVERED)
        self.assertTrue(server.messages[0].tls)

    async def test_required_and_not_verified(self):
        for issued in (WRONG_NAME, STRANGER):
            server = await self.serve(issued.server_options())
            self.assertIn("454 4.7.5", await self.down(TlsLevel.REQUIRED))
            # Not a word inside of a TLS session with the wrong server.
            self.assertEqual(server.commands, ["EHLO me.test", "STARTTLS"])

    async def test_name_that_no_certificate_can_bear(self):
        server = await self.serve(GOOD.server_options())
        self.zone = {"mx_1.test": {"A": ["127.0.0.1"]}}
        self.assertIn("4.7.5", await self.down(TlsLevel.REQUIRED, "mx_1.test"))
        (outcome,) = await self.transport(TlsLevel.OPPORTUNISTIC, "mx_1.test").deliver(
            message("a@y.test")
        )
        self.assertTrue(outcome.tls)
        self.assertEqual(len(server.messages), 1)

    async def test_silent_handshake(self):
        server = await self.serve(None)
        server.extensions += ("STARTTLS",)
        self.changes = {"command_timeout": 0.6}
        (outcome,) = await self.transport(TlsLevel.OPPORTUNISTIC).deliver(message("a@y.test"))
        self.assertEqual((outcome.fate, outcome.tls), (Fate.DELIVERED, ""))
        self.assertIn("Timed out in the TLS handshake", await self.down(TlsLevel.REQUIRED))

    async def test_required_and_not_offered(self):
        server = await self.serve(None)
        self.assertIn("454 4.7.4", await self.down(TlsLevel.REQUIRED))
        server.extensions += ("STARTTLS",)
        server.replies["STARTTLS"] = "502 5.5.1 Not really"
        self.assertIn("454 4.7.4", await self.down(TlsLevel.REQUIRED))

    async def test_octets_before_the_handshake(self):
        server = await self.serve(GOOD.server_options())
        server.replies["STARTTLS"] = "220 Go\r\n250 injected"
        transport = self.transport(TlsLevel.OPPORTUNISTIC)
        try:
            await transport.deliver(message("a@y.test"))
        except NextHopDown as down:
            self.assertEqual(down.reply.enhanced, "4.5.0")
        self.assertEqual(server.messages, [])


class AuthorityFileTests(SynchronousTestCase):
    def test_faults(self):
        self.assertRaises(OSError, ClientTls, TlsLevel.REQUIRED, Path("/nonexistent"))
        path = Path(self.mktemp())
        for text in ("nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
            path.write_text(text)
            self.assertRaises(ValueError, ClientTls, TlsLevel.REQUIRED, path)
        ClientTls(TlsLevel.REQUIRED, None).options_for("mx.test")

    def test_options_are_kept_within_bounds(self):
        made = ClientTls(TlsLevel.OPPORTUNISTIC, None)
        self.assertIs(made.options_for("a.test"), made.options_for("a.test"))
        self.patch(tls, "MAX_KEPT", 2)
        first = made.options_for("a.test")
        for host in ("b.test", "192.0.2.1", "2001:db8::1"):
            made.options_for(host).clientConnectionForTLS(Protocol())
        self.assertIsNot(made.options_for("a.test"), first)

    def test_plain_hosts(self):
        hosts = PlainHosts()
        self.assertFalse(hosts.plain("192.0.2.1", 0))
        hosts.failed("192.0.2.1", 0)
        self.assertTrue(hosts.plain("192.0.2.1", 1))
        self.assertFalse(hosts.plain("192.0.2.1", 1000))
        self.patch(tls, "MAX_KEPT", 1)
        hosts.failed("192.0.2.2", 0)
        self.assertFalse(hosts.plain("192.0.2.1", 1))
