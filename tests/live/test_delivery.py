"""Mail finds its way: routes, MX records, TLS, retries, bounces, long queues."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from mailsecure.config.model import SpoolSettings
from mailsecure.smtp.envelope import Arrival, Envelope, Recipient
from mailsecure.spool.api import NewMessage
from mailsecure.spool.body import MemoryBody
from mailsecure.spool.ids import MessageId
from mailsecure.spool.storage import Storage
from mailsecure.units import Octets
from tests.live import needs

from .certificates import Authority
from .harness import Gateway, LiveTestCase, free_port, until
from .load import Load, is_intact, unique_message
from .names import Names, address, alias, mx
from .sinks import Maildir, Sink, without_trace
from .wire import Wire, send_message

MESSAGE = b"Subject: delivery\r\n\r\nbody\r\n"


class DeliveryTestCase(LiveTestCase):
    """Next hops that end with the test."""

    def sink(self, **options: object) -> Sink:
        """Start a next hop."""
        sink = Sink(**options)  # type: ignore[arg-type]
        self.addCleanup(sink.close)
        return sink

    def send(self, node: Gateway, *recipients: str, sender: str = "s@client.test") -> str:
        """Have a message taken; returns its id."""
        reply = send_message(node.address, MESSAGE, *recipients, sender=sender)
        self.assertTrue(reply.startswith("250"), reply)
        return reply.rsplit(" ", 1)[1]


class Routes(DeliveryTestCase):
    """Every kind of next hop."""

    def test_smtp(self) -> None:
        """SMTP, with the message unchanged but for our trace field."""
        sink = self.sink()
        node = self.gateway(domains=f"example.com = {sink.route}")
        self.send(node, "a@example.com", "b@example.com")
        taken = sink.wait(1)[0]
        self.assertEqual(without_trace(taken.content), MESSAGE)
        self.assertEqual(taken.recipients, ("a@example.com", "b@example.com"))
        self.assertEqual((taken.sender, taken.helo), ("s@client.test", "mx.test"))

    def test_lmtp(self) -> None:
        """LMTP over TCP: each recipient has its own answer."""
        sink = self.sink(lmtp=True)
        sink.final_answers["full@example.com"] = "452 4.2.2 mailbox full"
        node = self.gateway(domains=f"example.com = {sink.route}", delivery="retry = 1h")
        message = self.send(node, "a@example.com", "full@example.com")
        self.assertEqual(sink.wait(1)[0].recipients, ("a@example.com",))
        node.line(rf"{message}: to=<full@example\.com>.*status=deferred")
        listing = node.cli("queue", "list").stdout
        self.assertIn("full@example.com", listing)
        self.assertNotIn("a@example.com", listing.replace("full@example.com", ""))

    def test_lmtp_unix(self) -> None:
        """LMTP over a Unix socket, as Dovecot offers it."""
        path = str(self.temporary_directory() / "lmtp")
        sink = self.sink(lmtp=True, unix=path)
        node = self.gateway(domains=f"example.com = {sink.route}")
        self.send(node, "a@example.com")
        self.assertEqual(without_trace(sink.wait(1)[0].content), MESSAGE)

    def test_maildir(self) -> None:
        """A Maildir: nothing is left in tmp, lines end as files' lines do."""
        node = self.gateway(domains="example.com = maildir:mail")
        for number in range(20):
            self.send(node, f"u{number}@example.com", sender=f"s{number}@client.test")
        node.settle()
        maildir = Maildir(node.directory / "mail")
        messages = maildir.messages()
        self.assertEqual(len(messages), 20)
        self.assertEqual(maildir.leftovers(), [])
        for message in messages:
            self.assertIn(b"Subject: delivery", message)
            self.assertIn(b"Return-Path: <s", message)
            self.assertIn(b"Delivered-To: u", message)

    def test_recipients_one_by_one(self) -> None:
        """One recipient is delivered, one refused, one waits."""
        sink = self.sink()
        sink.recipient_answers["no@example.com"] = "550 5.1.1 unknown"
        sink.recipient_answers["later@example.com"] = "450 4.2.0 greylisted"
        node = self.gateway(
            domains=f"example.com = {sink.route}\nclient.test = {sink.route}",
            delivery="retry = 500ms",
        )
        message = self.send(node, "yes@example.com", "no@example.com", "later@example.com")
        node.line(rf"{message}: to=<yes@example\.com>.*status=sent")
        node.line(rf"{message}: to=<no@example\.com>.*status=bounced")
        node.line(rf"{message}: to=<later@example\.com>.*status=deferred")
        sink.recipient_answers.clear()
        node.line(rf"{message}: to=<later@example\.com>.*status=sent")
        node.settle()
        envelopes = sorted((each.sender, each.recipients) for each in sink.clear())
        self.assertEqual(
            envelopes,
            [
                ("", ("s@client.test",)),
                ("s@client.test", ("later@example.com",)),
                ("s@client.test", ("yes@example.com",)),
            ],
        )

    def test_next_hop_comes_back(self) -> None:
        """A next hop that is away gets its mail when it is back."""
        sink = self.sink()
        sink.down()
        node = self.gateway(domains=f"example.com = {sink.route}")
        message = self.send(node, "a@example.com")
        node.line(rf"{message}.*status=deferred.*refused")
        sink.up()
        sink.wait(1)
        node.settle()

    def test_stall_after_the_dot(self) -> None:
        """A next hop that hangs up at the final dot gets the message again: no loss."""
        sink = self.sink()
        sink.hang_up_at_dot = True
        node = self.gateway(domains=f"example.com = {sink.route}")
        message = self.send(node, "a@example.com")
        node.line(rf"{message}.*status=deferred")
        sink.hang_up_at_dot = False
        sink.wait(1)
        node.settle()
        self.assertEqual(len(sink.taken()), 1)

    def test_connections_are_reused(self) -> None:
        """Many messages to one next hop share few connections."""
        sink = self.sink()
        node = self.gateway(domains=f"example.com = {sink.route}", delivery="concurrency = 3")
        load = Load(node.address, "a@example.com", clients=4)
        until(lambda: len(load.acknowledged) > 300, "300 messages", 20, node.tail)
        load.stop()
        node.settle()
        self.assertLessEqual(load.acknowledged, set(sink.uniques()))
        self.assertLessEqual(sink.most_open, 3)
        self.assertLess(sink.sessions, 30)
        self.assertTrue(all(is_intact(without_trace(each.content)) for each in sink.taken()))

    def test_verify_recipients(self) -> None:
        """Unknown users are refused in the session; the next hop is asked once."""
        sink = self.sink()
        sink.recipient_answers["no@example.com"] = "550 5.1.1 unknown"
        node = self.gateway(
            domains=f"example.com = {sink.route}", relay="networks =\nverify_recipients = yes"
        )
        for _ in range(3):
            with Wire(node.address) as wire:
                wire.hello()
                wire.command("MAIL FROM:<s@client.test>")
                self.assertTrue(wire.command("RCPT TO:<no@example.com>").startswith("550 5.1.1"))
                self.assertTrue(wire.command("RCPT TO:<yes@example.com>").startswith("250"))
        asked = [each for each in sink.commands if each.upper().startswith(b"RCPT")]
        self.assertEqual(len(asked), 2)
        self.assertIn(b"MAIL FROM:<>", {each[:12] for each in sink.commands})
        sink.down()
        with Wire(node.address) as wire:
            wire.hello()
            wire.command("MAIL FROM:<s@client.test>")
            self.assertTrue(wire.command("RCPT TO:<new@example.com>").startswith("250"))


@needs(root=True)
class Mx(DeliveryTestCase):
    """Mail by MX records, asked of a DNS server on this machine."""

    def setUp(self) -> None:
        """A DNS server, and hosts on port 25 of loopback addresses."""
        super().setUp()
        self.names = Names({})
        self.addCleanup(self.names.close)

    def host(self, name: str, ip: str) -> Sink:
        """Start a mail host and give it a name."""
        self.names.records[name] = [address(ip)]
        return self.sink(host=ip, port=25, name=name)

    def node(self, delivery: str = "") -> Gateway:
        """Start a daemon that relays for this machine by MX."""
        return self.gateway(
            relay="networks = 127.0.0.0/8",
            domains="* = mx",
            delivery=f"dns_servers = {self.names.server}\nconnect_timeout = 2s\n{delivery}",
        )

    def test_preference(self) -> None:
        """The host of the lowest preference gets the mail."""
        good, worse = self.host("good.test", "127.0.5.1"), self.host("worse.test", "127.0.5.2")
        self.names.records["far.test"] = [mx(20, "worse.test"), mx(10, "good.test")]
        node = self.node()
        for _ in range(5):
            self.send(node, "a@far.test")
        good.wait(5)
        self.assertEqual(worse.taken(), [])

    def test_equal_preference(self) -> None:
        """Hosts of one preference share the mail."""
        hosts = [self.host(f"h{n}.test", f"127.0.5.{n}") for n in (1, 2)]
        self.names.records["far.test"] = [mx(10, "h1.test"), mx(10, "h2.test")]
        node = self.node("concurrency = 20\nreuse_count = 1")
        for _ in range(30):
            self.send(node, "a@far.test")
        node.settle()
        self.assertEqual(sum(len(each.taken()) for each in hosts), 30)
        self.assertGreater(min(len(each.taken()) for each in hosts), 0)

    def test_dead_first_host(self) -> None:
        """Where the best host is dead the next one gets the mail, at once."""
        self.names.records["dead.test"] = [address("127.0.5.9")]
        second = self.host("second.test", "127.0.5.2")
        self.names.records["far.test"] = [mx(10, "dead.test"), mx(20, "second.test")]
        node = self.node()
        with self.quicker_than(5):
            self.send(node, "a@far.test")
            second.wait(1)

    def test_first_host_says_4xx(self) -> None:
        """A host that greets with 421 is passed over."""
        first, second = self.host("h1.test", "127.0.5.1"), self.host("h2.test", "127.0.5.2")
        first.answers["greeting"] = "421 4.3.2 busy"
        self.names.records["far.test"] = [mx(10, "h1.test"), mx(20, "h2.test")]
        node = self.node()
        with self.quicker_than(5):
            self.send(node, "a@far.test")
            second.wait(1)

    def test_without_mx(self) -> None:
        """A domain without MX records is its own host."""
        host = self.host("far.test", "127.0.5.1")
        self.send(self.node(), "a@far.test")
        host.wait(1)

    def test_cname(self) -> None:
        """Aliases are followed."""
        host = self.host("host.test", "127.0.5.1")
        self.names.records["far.test"] = [mx(10, "alias.test")]
        self.names.records["alias.test"] = [alias("host.test")]
        self.send(self.node(), "a@far.test")
        host.wait(1)

    def test_null_mx(self) -> None:
        """A domain that takes no mail is refused for good, and the sender told why."""
        home = self.host("client.test", "127.0.5.1")
        self.names.records["far.test"] = [mx(0, "")]
        node = self.node()
        message = self.send(node, "a@far.test")
        node.line(rf"{message}.*dsn=5\.1\.10.*status=bounced")
        self.assertIn(b"5.1.10", home.wait(1)[0].content)

    def test_no_such_domain(self) -> None:
        """A domain that does not exist is refused for good."""
        home = self.host("client.test", "127.0.5.1")
        node = self.node()
        message = self.send(node, "a@nowhere.test")
        node.line(rf"{message}.*status=bounced")
        self.assertIn(b"nowhere.test", home.wait(1)[0].content)

    def test_dns_trouble(self) -> None:
        """While the DNS fails mail waits; then it goes."""
        host = self.host("far.test", "127.0.5.1")
        self.names.failing.add("far.test")
        node = self.node("dns_timeout = 2s")
        message = self.send(node, "a@far.test")
        node.line(rf"{message}.*status=deferred")
        self.names.failing.clear()
        host.wait(1)

    def test_ourselves(self) -> None:
        """Mail that would come back to us is a loop, not a circle."""
        home = self.host("client.test", "127.0.5.1")
        self.names.records["far.test"] = [mx(10, "mx.test"), mx(20, "backup.test")]
        self.names.records["mx.test"] = [address("127.0.0.1")]
        node = self.node()
        message = self.send(node, "a@far.test")
        node.line(rf"{message}.*dsn=5\.4\.6.*status=bounced")
        home.wait(1)


class Tls(DeliveryTestCase):
    """TLS towards the next hop."""

    def setUp(self) -> None:
        """A private authority."""
        super().setUp()
        self.authority = Authority(self.temporary_directory())

    def test_opportunistic(self) -> None:
        """Offered TLS is used, whoever signed."""
        sink = self.sink(tls=self.authority.identity("anybody.test").server_context())
        node = self.gateway(domains=f"example.com = {sink.route}")
        self.send(node, "a@example.com")
        self.assertEqual(sink.wait(1)[0].tls, "TLSv1.3")

    def test_none(self) -> None:
        """With tls = none it is not."""
        sink = self.sink(tls=self.authority.identity("anybody.test").server_context())
        node = self.gateway(domains=f"example.com = {sink.route}", delivery="tls = none")
        self.send(node, "a@example.com")
        self.assertEqual(sink.wait(1)[0].tls, "")

    def required(self, sink: Sink) -> Gateway:
        return self.gateway(
            domains=f"example.com = {sink.route}",
            delivery=f"tls = required\ntls_ca = {self.authority.path}",
        )

    def test_required(self) -> None:
        """With tls = required a certificate of the authority, for the name, is good."""
        sink = self.sink(tls=self.authority.identity("127.0.0.1").server_context())
        node = self.required(sink)
        self.send(node, "a@example.com")
        self.assertEqual(sink.wait(1)[0].tls, "TLSv1.3")

    def kept_back(self, sink: Sink) -> None:
        node = self.required(sink)
        message = self.send(node, "a@example.com")
        node.line(rf"{message}.*status=deferred")
        self.assertEqual(sink.taken(), [])
        self.assertNotIn(b"MAIL", {each[:4].upper() for each in sink.commands})

    def test_required_of_another(self) -> None:
        """A certificate that somebody else signed is not."""
        other = Authority(self.temporary_directory(), "Other authority")
        self.kept_back(self.sink(tls=other.identity("127.0.0.1").server_context()))

    def test_required_for_another_name(self) -> None:
        """Nor one for another name."""
        self.kept_back(self.sink(tls=self.authority.identity("evil.test").server_context()))

    def test_required_and_not_offered(self) -> None:
        """Nor none: who strips STARTTLS gets no mail to read."""
        self.kept_back(self.sink())


class Bounces(DeliveryTestCase):
    """What cannot be delivered goes back, once, with the reason."""

    def setUp(self) -> None:
        """A next hop for everything."""
        super().setUp()
        self.hop = self.sink()
        self.domains = f"example.com = {self.hop.route}\nclient.test = {self.hop.route}"

    def test_bounce(self) -> None:
        """A bounce says who, why and what, as RFC 3464 has it."""
        self.hop.recipient_answers["gone@example.com"] = "550 5.1.1 no such user here"
        node = self.gateway(domains=self.domains)
        message = self.send(node, "gone@example.com")
        bounce = self.hop.wait(1)[0]
        self.assertEqual((bounce.sender, bounce.recipients), ("", ("s@client.test",)))
        for part in (
            b"multipart/report",
            b"report-type=delivery-status",
            b"Reporting-MTA: dns; mx.test",
            b"Final-Recipient: rfc822; gone@example.com",
            b"Action: failed",
            b"Status: 5.1.1",
            b"no such user here",
            b"Subject: delivery",
            b"Auto-Submitted: auto-",
        ):
            self.assertIn(part.lower(), bounce.content.lower())
        self.assertIn(message.encode(), bounce.content)
        node.settle()
        self.assertEqual(len(self.hop.taken()), 1)

    def test_bounce_is_never_bounced(self) -> None:
        """A bounce that cannot be delivered is the end."""
        self.hop.recipient_answers["gone@example.com"] = "550 5.1.1 no such user"
        self.hop.recipient_answers["s@client.test"] = "550 5.1.1 nor this one"
        node = self.gateway(domains=self.domains)
        self.send(node, "gone@example.com")
        until(lambda: node.status()["counters"]["failed"] == 2, "both", 10, node.tail)
        node.settle()
        self.assertEqual(self.hop.taken(), [])
        self.assertEqual(node.status()["counters"]["bounces_sent"], 1)

    def test_expiry(self) -> None:
        """After expire the message is returned."""
        self.hop.recipient_answers["slow@example.com"] = "450 4.2.0 not now"
        node = self.gateway(
            domains=self.domains, delivery="retry = 300ms\nexpire = 1s\nwarn_after = 0s"
        )
        self.send(node, "slow@example.com")
        bounce = self.hop.wait(1)[0]
        self.assertIn(b"Action: failed", bounce.content)
        self.assertIn(b"not now", bounce.content)
        node.settle()

    def test_delay_warning(self) -> None:
        """After warn_after the sender is told, once; then the mail arrives after all."""
        self.hop.recipient_answers["slow@example.com"] = "450 4.2.0 not now"
        node = self.gateway(domains=self.domains, delivery="retry = 300ms\nwarn_after = 500ms")
        self.send(node, "slow@example.com")
        warning = self.hop.wait(1)[0]
        self.assertIn(b"Action: delayed", warning.content)
        time.sleep(1)
        self.hop.recipient_answers.clear()
        self.hop.wait(2)
        node.settle()
        self.assertEqual(len(self.hop.taken()), 2)

    def test_notify_never(self) -> None:
        """NOTIFY=NEVER is obeyed."""
        self.hop.recipient_answers["gone@example.com"] = "550 5.1.1 no such user"
        node = self.gateway(domains=self.domains)
        with Wire(node.address) as wire:
            wire.hello()
            wire.command("MAIL FROM:<s@client.test>")
            wire.command("RCPT TO:<gone@example.com> NOTIFY=NEVER")
            wire.command("DATA")
            wire.send(MESSAGE + b".\r\n")
            self.assertTrue(wire.reply().startswith("250"))
        until(lambda: node.status()["counters"]["failed"], "the failure", 10, node.tail)
        node.settle()
        self.assertEqual(self.hop.taken(), [])


def fill_spool(state: Path, count: int, recipient: str, due: float) -> None:
    """Put so many messages into a spool, as if they had been accepted."""
    state.mkdir(mode=0o700, exist_ok=True)
    storage = Storage(state, SpoolSettings(Octets(32 << 10), Octets(64 << 20), Octets(0)))
    storage.open()
    now = time.time()
    first = int((now - 3600) * 1e6) << 12
    domain = recipient.rpartition("@")[2]
    envelope = Envelope("", (Recipient(recipient, domain),))
    arrival = Arrival("192.0.2.1", "client.test", "ESMTP", "0")
    for start in range(0, count, 5000):
        storage.commit(
            [
                NewMessage(
                    MessageId(first + number * 4096),
                    envelope,
                    arrival,
                    now - 3600,
                    MemoryBody([unique_message(1000)[1]]),
                    due,
                )
                for number in range(start, min(start + 5000, count))
            ],
            [],
        )
    storage.close()


class LongQueues(DeliveryTestCase):
    """A long queue is no burden."""

    def test_restart_with_a_hundred_thousand(self) -> None:
        """100,000 messages wait: ready in under 5 s, memory bounded, mail flows."""
        sink = self.sink()
        node = self.gateway(
            start=False,
            domains=f"example.com = {sink.route}\ndead.test = smtp://127.0.0.1:{free_port()}",
        )
        fill_spool(node.state, 100_000, "a@dead.test", time.time() - 10)
        self.assertLess(node.start(), 5.0)
        with self.quicker_than(5):
            self.send(node, "a@example.com")
            sink.wait(1)
        self.assertLess(node.memory(), 160 << 20)
        self.assertGreaterEqual(node.queued(), 99_999)
        with self.quicker_than(5):
            status = json.loads(node.cli("status", "--json").stdout)
        self.assertEqual(status["destinations"][0]["recipients"], 100_000)
        with self.quicker_than(5):
            self.assertEqual(node.cli("queue", "list", "--limit", "10").returncode, 0)
        node.stop()

    def test_dead_domain_does_not_slow_others(self) -> None:
        """20,000 messages to a host that never answers: others take no notice."""
        sink, silent = self.sink(), self.sink()
        silent.delay = 120.0
        node = self.gateway(
            start=False,
            domains=f"example.com = {sink.route}\ndead.test = {silent.route}",
        )
        fill_spool(node.state, 20_000, "a@dead.test", time.time() - 10)
        node.start()
        until(lambda: silent.open, "connections to the dead host", 10, node.tail)
        load = Load(node.address, "a@example.com", clients=4)
        until(lambda: len(load.acknowledged) > 500, "500 messages", 20, node.tail)
        load.stop()
        with self.quicker_than(5):
            until(lambda: load.acknowledged <= set(sink.uniques()), "their delivery", 10, node.tail)
        self.assertLessEqual(silent.most_open, 20)

    def test_long_queue_drains(self) -> None:
        """When the next hop is back, a long queue is delivered quickly and whole."""
        sink = self.sink()
        node = self.gateway(start=False, domains=f"example.com = {sink.route}")
        fill_spool(node.state, 5_000, "a@example.com", time.time() - 10)
        node.start()
        taken = sink.wait(5_000, 30)
        node.settle()
        self.assertEqual(len(taken), 5_000)
        self.assertEqual(len(set(sink.uniques())), 5_000)


class Addresses(DeliveryTestCase):
    """Where connections come from."""

    def test_source_address(self) -> None:
        """source_address is the address that the next hop sees."""
        seen: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(10)
            port = server.getsockname()[1]
            node = self.gateway(
                domains=f"example.com = smtp://127.0.0.1:{port}",
                delivery="source_address = 127.0.0.8",
            )
            self.send(node, "a@example.com")
            connection, peer = server.accept()
            connection.close()
            seen.append(peer[0])
        self.assertEqual(seen, ["127.0.0.8"])
