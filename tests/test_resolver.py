"""The resolver and its fake give the same answers, and the resolver survives bad servers."""

from __future__ import annotations

import os
import random
import struct
import tempfile
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor as real_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.errors import RemoteFault
from mailsecure.resolver import DnsResolver, parse_server
from mailsecure.resolver.answers import (
    askable_name,
    encode_question,
    matches,
    read_answer,
    valid_name,
)
from mailsecure.resolver.cache import TtlCache
from mailsecure.resolver.files import WatchedFile, parse_hosts, parse_resolv_conf
from mailsecure.testing.dns import DnsServer
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone
from mailsecure.world import DnsAbsent, DnsFault, MxHost

ZONE: Zone = {
    "example.com": {
        "MX": ["20 mx2.example.com", "10 MX1.example.com."],
        "TXT": ["v=spf1 -all"],
    },
    "mx1.example.com": {"A": ["192.0.2.1", "192.0.2.2"], "AAAA": ["2001:db8::1"]},
    "mx2.example.com": {"CNAME": ["other.example.net"]},
    "other.example.net": {"A": ["192.0.2.9"]},
    "six.example": {"AAAA": ["2001:db8::6"]},
    "nomail.example": {"MX": ["0 ."]},
    "bare.example": {"A": ["192.0.2.3"]},
    "loop.example": {"CNAME": ["loop.example"]},
    "broken.example": SERVFAIL,
    "1.2.0.192.in-addr.arpa": {"PTR": ["mx1.example.com"]},
}


class Contract:
    """What holds for every resolver over ZONE."""

    resolver: object

    async def test_mx(self):
        records = await self.resolver.mx("Example.com")
        self.assertEqual(
            sorted(records, key=lambda record: record.preference),
            [MxHost(10, "mx1.example.com"), MxHost(20, "mx2.example.com")],
        )

    async def test_null_mx(self):
        self.assertEqual(list(await self.resolver.mx("nomail.example")), [MxHost(0, "")])

    async def test_addresses(self):
        found = await self.resolver.addresses("mx1.example.com")
        self.assertEqual(sorted(found), ["192.0.2.1", "192.0.2.2", "2001:db8::1"])

    async def test_one_family_is_enough(self):
        self.assertEqual(list(await self.resolver.addresses("six.example")), ["2001:db8::6"])
        self.assertEqual(list(await self.resolver.addresses("bare.example")), ["192.0.2.3"])

    async def test_alias(self):
        self.assertEqual(list(await self.resolver.addresses("mx2.example.com")), ["192.0.2.9"])

    async def test_literal(self):
        self.assertEqual(list(await self.resolver.addresses("192.0.2.77")), ["192.0.2.77"])
        self.assertEqual(list(await self.resolver.addresses("2001:DB8::7")), ["2001:db8::7"])

    async def test_txt_and_ptr(self):
        self.assertEqual(list(await self.resolver.txt("example.com")), [b"v=spf1 -all"])
        self.assertEqual(list(await self.resolver.ptr("192.0.2.1")), ["mx1.example.com"])

    async def test_absent(self):
        for question in (
            self.resolver.mx("bare.example"),
            self.resolver.mx("no.such.example"),
            self.resolver.addresses("example.com"),
            self.resolver.addresses("no.such.example"),
            self.resolver.addresses("loop.example"),
            self.resolver.txt("bare.example"),
            self.resolver.ptr("192.0.2.200"),
        ):
            with self.assertRaises(DnsAbsent):
                await question

    async def test_fault(self):
        for question in (
            self.resolver.mx("broken.example"),
            self.resolver.addresses("broken.example"),
        ):
            with self.assertRaises(DnsFault):
                await question


class FakeTests(Contract, TestCase):
    def setUp(self):
        self.resolver = FakeResolver(dict(ZONE))


class LiveCase(TestCase):
    """A resolver and a server on loopback."""

    timeout = 20

    def setUp(self):
        self.server = DnsServer(dict(ZONE))
        self.port = self.server.listen(real_reactor)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.server.stop()))
        self.resolver = self.make()

    def make(self, servers=None, timeout=5.0, **files):
        return DnsResolver(
            real_reactor,
            real_reactor,
            random.Random(1),
            servers or [("127.0.0.1", self.port)],
            timeout,
            **{"hosts": "/nonexistent", "resolv_conf": "/nonexistent", **files},
        )


class LiveContractTests(Contract, LiveCase):
    pass


class LiveTests(LiveCase):
    async def fault(self, question) -> str:
        try:
            await question
        except DnsFault as fault:
            return str(fault)
        raise AssertionError("no fault")

    async def test_answers_are_remembered(self):
        for _ in range(3):
            await self.resolver.mx("example.com")
            with self.assertRaises(DnsAbsent):
                await self.resolver.mx("bare.example")
        self.assertEqual(len(self.server.questions), 2)

    async def test_faults_are_not_remembered(self):
        await self.fault(self.resolver.mx("broken.example"))
        self.server.zone["broken.example"] = {"MX": ["10 mx1.example.com"]}
        self.assertEqual(len(await self.resolver.mx("broken.example")), 1)

    async def test_same_questions_are_asked_once(self):
        asked = [Deferred.fromCoroutine(self.resolver.mx("example.com")) for _ in range(5)]
        asked[0].addErrback(lambda _: None)
        asked[0].cancel()
        results = await DeferredList(asked[1:])
        self.assertTrue(all(success and len(value) == 2 for success, value in results))
        self.assertEqual(len(self.server.questions), 1)

    async def test_truncated_answer_is_fetched_over_tcp(self):
        self.server.truncate = True
        self.assertEqual(len(await self.resolver.mx("example.com")), 2)
        self.assertEqual([way for *_, way in self.server.questions], ["udp", "tcp"])

    async def test_alias_that_leads_out_of_the_answer(self):
        self.server.short_aliases = True
        self.assertEqual(list(await self.resolver.addresses("mx2.example.com")), ["192.0.2.9"])

    async def test_silence_ends_at_the_deadline(self):
        self.server.silent = True
        start = time.monotonic()
        self.assertIn("timed out", await self.fault(self.make(timeout=0.3).mx("example.com")))
        self.assertLess(time.monotonic() - start, 2)

    async def test_another_server_helps(self):
        broken = DnsServer({"example.com": SERVFAIL})
        port = broken.listen(real_reactor)
        try:
            resolver = self.make([("127.0.0.1", port), ("127.0.0.1", self.port)])
            self.assertEqual(len(await resolver.mx("example.com")), 2)
        finally:
            await broken.stop()
        # Now nobody is there: at the latest after its turn the next server is asked.
        start = time.monotonic()
        resolver = self.make([("127.0.0.1", port), ("127.0.0.1", self.port)])
        self.assertEqual(len(await resolver.mx("example.com")), 2)
        self.assertLess(time.monotonic() - start, 3)

    async def test_all_refuse(self):
        self.server.code = 5
        self.assertIn("REFUSED", await self.fault(self.resolver.mx("example.com")))

    async def test_truncated_over_tcp_too_and_nobody_at_tcp(self):
        self.server.truncate = True
        self.server.truncate_tcp = True
        self.assertIn("cut short", await self.fault(self.resolver.mx("example.com")))
        self.server.truncate_tcp = False
        self.server.silent_tcp = True
        self.assertIn("timed out", await self.fault(self.make(timeout=0.3).mx("example.com")))
        await self.server.stop_tcp()
        self.assertIn("cannot connect", await self.fault(self.resolver.mx("example.com")))

    async def test_many_servers_out_of_reach(self):
        # No route to a documentation address of another kind: said at once, or timed out.
        resolver = self.make([("192.0.2.1", 53), ("2001:db8::1", 53)], timeout=0.3)
        await self.fault(resolver.mx("example.com"))

    async def test_alias_to_a_name_that_cannot_be(self):
        self.server.short_aliases = True
        self.server.zone["x.test"] = {"CNAME": ["x" * 63 + "." + "y" * 63 + "." + "z" * 63 + ".a"]}
        self.server.zone["y.test"] = {"CNAME": ["z.test"]}
        self.server.zone["z.test"] = {"CNAME": ["y.test"]}
        for name in ("x.test", "y.test"):
            with self.assertRaises(DnsAbsent):
                await self.resolver.mx(name)

    async def test_slow_answer_is_waited_for(self):
        self.server.delay = 0.2
        self.assertEqual(len(await self.resolver.mx("example.com")), 2)

    async def test_forged_answer_is_ignored(self):
        self.server.forge = True
        self.assertEqual(len(await self.resolver.mx("example.com")), 2)

    async def test_garbage(self):
        for garbage in (b"", b"x", b"\0" * 600):
            self.server.garbage = garbage
            await self.fault(self.make(timeout=0.2).mx("example.com"))

    async def test_names_that_cannot_be(self):
        for name in (
            "",
            ".",
            "a..b",
            "a\0b.test",
            "a\n.test",
            "x" * 64 + ".example",
            "ä.example",
            "a." * 130 + "b",
        ):
            with self.assertRaises(DnsAbsent):
                await self.resolver.mx(name)
        with self.assertRaises(DnsAbsent):
            await self.resolver.addresses("a b.test")
        self.assertEqual(self.server.questions, [])

    async def test_hosts_file_and_localhost(self):
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("192.0.2.50 Printer printer.lan # a comment\n\nnonsense here\n")
        resolver = self.make(hosts=path)
        self.assertEqual(list(await resolver.addresses("PRINTER.lan.")), ["192.0.2.50"])
        self.assertEqual(list(await resolver.addresses("localhost")), ["::1", "127.0.0.1"])
        self.assertEqual(self.server.questions, [])

    async def test_servers_of_resolv_conf(self):
        resolver = DnsResolver(
            real_reactor, real_reactor, random.Random(1), (), 0.2, "/nonexistent", "/nonexistent"
        )
        # Nothing configured: the resolver of this machine, where in a test nobody is.
        await self.fault(resolver.mx("example.com"))


class FileTests(SynchronousTestCase):
    def test_resolv_conf(self):
        text = "# x\nsearch a b\nnameserver 192.0.2.53\nnameserver\nnameserver x\nnameserver ::1\n"
        self.assertEqual(parse_resolv_conf(text), [("192.0.2.53", 53), ("::1", 53)])

    def test_hosts(self):
        text = "127.0.0.1 localhost\n::1 localhost ip6 # c\n127.0.0.1 localhost\nx y\n\n"
        self.assertEqual(parse_hosts(text), {"localhost": ["127.0.0.1", "::1"], "ip6": ["::1"]})

    def test_file_is_read_again_when_it_changes(self):
        path = os.path.join(tempfile.mkdtemp(dir="."), "file")
        watched = WatchedFile(path, str.split)
        self.assertEqual(watched.value(0), [])
        with open(path, "w") as file:
            file.write("a b")
        self.assertEqual(watched.value(0.5), [])
        self.assertEqual(watched.value(1.5), ["a", "b"])
        self.assertEqual(watched.value(3), ["a", "b"])
        os.unlink(path)
        self.assertEqual(watched.value(5), [])

    def test_servers_of_the_ini(self):
        self.assertEqual(parse_server("192.0.2.53"), ("192.0.2.53", 53))
        self.assertEqual(parse_server("192.0.2.53:54"), ("192.0.2.53", 54))
        self.assertEqual(parse_server("2001:db8::53"), ("2001:db8::53", 53))
        self.assertEqual(parse_server("[2001:db8::53]:54"), ("2001:db8::53", 54))
        self.assertEqual(parse_server("[2001:db8::53]"), ("2001:db8::53", 53))
        self.assertRaises(ValueError, parse_server, "ns.example.com")


class CacheTests(SynchronousTestCase):
    def test_values_end_and_the_oldest_goes(self):
        cache: TtlCache[str, int] = TtlCache(2)
        cache.put("a", 1, 10, 0)
        cache.put("b", 2, 5, 0)
        cache.put("never", 0, 0, 0)
        self.assertEqual((cache.get("a", 9), cache.get("b", 5), cache.get("x", 0)), (1, None, None))
        cache.put("b", 3, 5, 5)
        cache.put("c", 4, 5, 5)
        self.assertEqual((cache.get("a", 6), cache.get("b", 6), cache.get("c", 6)), (None, 3, 4))
        self.assertEqual(len(cache), 2)


class CodecTests(SynchronousTestCase):
    question = encode_question(0x1234, "example.com", dns.MX)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=300))
    def test_only_remote_fault(self, tail):
        data = struct.pack("!HHHHHH", 0x1234, 0x8180, 1, 2, 1, 0) + self.question[12:] + tail
        self.assertTrue(matches(self.question, data))
        try:
            read_answer(data, "example.com", dns.MX)
        except RemoteFault as fault:
            self.assertIn("not a DNS message", str(fault))

    def test_malformed_answers_are_no_absence(self):
        start = struct.pack("!HHHHHH", 0x1234, 0x8180, 1, 1, 0, 0) + self.question[12:]
        loop = struct.pack("!H", 0xC000 | len(start))
        for tail in (b"", loop, loop * 8, b"\xc0\x0c\0\x0f\0\1\0\0\0\1\0\4\0"):
            self.assertRaises(RemoteFault, read_answer, start + tail, "example.com", dns.MX)

    def test_records_of_other_classes_and_types_do_not_count(self):
        message = dns.Message(id=1, answer=1)
        message.queries = [dns.Query(b"example.com", dns.A, dns.IN)]
        message.answers = [
            dns.RRHeader("example.com", dns.A, dns.CH, 9, dns.Record_A("192.0.2.1")),
            dns.RRHeader("example.com", dns.TXT, dns.IN, 9, dns.Record_TXT(b"x")),
        ]
        self.assertTrue(read_answer(message.toStr(), "example.com", dns.A).absent)

    @given(st.binary(max_size=60))
    def test_anything_may_be_compared(self, data):
        self.assertFalse(matches(self.question, data[:2] + b"\0" + data))

    def test_what_does_not_match(self):
        good = self.question[:2] + b"\x81\x80" + self.question[4:]
        self.assertTrue(matches(self.question, good))
        self.assertTrue(matches(self.question, good.replace(b"example", b"EXAMPLE")))
        for bad in (
            self.question,
            b"\0\0" + good[2:],
            good.replace(b"example", b"examplf"),
            good[:4] + b"\0\2" + good[6:],
            good[:-1],
        ):
            self.assertFalse(matches(self.question, bad))

    def test_names(self):
        self.assertTrue(valid_name("a.b"))
        self.assertFalse(valid_name("a" * 254))

    def test_names_that_are_no_hosts(self):
        """What SPF's macros make may be asked of the DNS."""
        for name in ("user+tag.example.com", "foo:bar.example", "per%cent  space.example"):
            self.assertTrue(askable_name(name), name)
            self.assertFalse(valid_name(name), name)
        for name in ("", "a..b", ".a", "a" * 64, "caf\xe9.example", "nul\0.example", "a" * 254):
            self.assertFalse(askable_name(name), name)
