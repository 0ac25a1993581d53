"""Proves that /metrics is what Prometheus reads and /healthz tells the spool's health."""

import socket

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.control import metrics
from mailsecure.control.metrics import Figures, MetricsService, process_gauges
from mailsecure.control.vitals import Vitals, memory_octets, open_descriptors
from mailsecure.counters import Counters
from mailsecure.errors import LocalFault
from mailsecure.spool.api import Health, SpoolBroken

from .fakes import NOON, FakeSpool, listing, world


class MetricsTests(TestCase):
    """:class:`MetricsService` on a real port."""

    timeout = 20

    async def serve(self):
        self.counters = Counters()
        self.spool = FakeSpool([listing(0), listing(1, 3)])
        self.gauge = 7.5
        gauges = {
            "sessions": ("Sessions now.", lambda: self.gauge),
            "absent": ("Never there.", lambda: None),
            **process_gauges(Vitals(world(reactor), self.counters)),
        }
        self.service = MetricsService(
            world(reactor),
            "tcp:0:interface=127.0.0.1",
            Figures(self.counters, gauges),
            self.spool,
        )
        await self.service.bind()
        await self.service.startService()
        self.addCleanup(self.service.stopService)
        self.port = self.service._port.getHost().port

    def exchange(self, octets):
        def blocking():
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(octets)
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
                return answer

        return deferToThread(blocking)

    async def get(self, path, method="GET"):
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head, _, body = (await self.exchange(request.encode())).partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    async def samples(self):
        code, body = await self.get("/metrics")
        self.assertEqual(code, 200)
        families = list(text_string_to_metric_families(body))
        for family in families:
            self.assertTrue(family.documentation, family.name)
        return {each.name: each.value for family in families for each in family.samples}

    async def test_metrics(self):
        await self.serve()
        self.counters.messages_accepted += 5
        found = await self.samples()
        self.assertEqual(found["mailsecure_messages_accepted_total"], 5)
        self.assertEqual(found["mailsecure_sessions"], 7.5)
        self.assertNotIn("mailsecure_absent", found)
        self.assertEqual(found["mailsecure_queue_messages"], 2)
        self.assertEqual(found["mailsecure_queue_recipients"], 4)
        self.assertEqual(found["mailsecure_queue_oldest_seconds"], 3600)
        self.assertEqual(found["mailsecure_quarantine_messages"], 5)
        self.assertEqual(found["mailsecure_quarantine_recipients"], 7)
        self.assertEqual(found["mailsecure_quarantine_octets"], 4096)
        self.assertEqual(found["mailsecure_quarantine_oldest_seconds"], 3591)
        self.assertEqual(found["mailsecure_spool_well"], 1)
        self.assertGreater(found["mailsecure_memory_octets"], 1 << 20)
        self.assertGreater(found["mailsecure_open_descriptors"], 3)
        for name in Counters.meanings():
            self.assertIn(f"mailsecure_{name}_total", found)

    async def test_a_broken_spool_leaves_its_figures_out(self):
        await self.serve()
        self.spool.fault = SpoolBroken("gone")
        self.spool.healthy = Health(False, False, "fdatasync failed")
        found = await self.samples()
        self.assertNotIn("mailsecure_queue_messages", found)
        self.assertEqual(found["mailsecure_spool_well"], 0)
        self.spool.fault = None
        self.spool.listings = []
        self.assertEqual((await self.samples())["mailsecure_queue_oldest_seconds"], 0)

    async def test_a_silent_spool_is_not_waited_for(self):
        self.patch(metrics, "_SPOOL_TIMEOUT", 0.05)
        await self.serve()
        self.spool.totals = Deferred
        self.assertNotIn("mailsecure_queue_messages", await self.samples())

    async def test_health(self):
        await self.serve()
        self.assertEqual(await self.get("/healthz"), (200, "well\n"))
        self.spool.healthy = Health(False, True, "disk full: 3M free")
        self.assertEqual(await self.get("/healthz"), (503, "disk full: 3M free\n"))
        self.assertEqual((await self.get("/healthz", "HEAD"))[0], 503)

    async def test_anything_else_is_refused(self):
        await self.serve()
        self.assertEqual((await self.get("/"))[0], 404)
        self.assertEqual((await self.get("/metrics", "POST"))[0], 405)

    async def test_bodies_are_not_kept(self):
        await self.serve()
        head = (
            b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        )
        answer = await self.exchange(head % 3_000_000 + b"x" * 3_000_000)
        self.assertIn(b" 405 ", answer.partition(b"\r\n")[0])

    async def test_a_fault_of_ours_is_500_and_logged(self):
        await self.serve()
        self.gauge = "no number"
        self.assertEqual((await self.get("/metrics"))[0], 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_client_that_leaves(self):
        await self.serve()
        waiting = Deferred()
        self.spool.totals = lambda: waiting

        def leave():
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")

        await deferToThread(leave)
        self.spool.totals = FakeSpool().totals
        self.assertEqual((await self.get("/healthz"))[0], 200)

    async def test_too_many_connections(self):
        self.patch(metrics, "_MAX_CONNECTIONS", 1)
        await self.serve()
        with socket.create_connection(("127.0.0.1", self.port), 5):
            self.assertEqual(await self.exchange(b""), b"")

    async def test_a_port_that_is_taken_is_fatal(self):
        await self.serve()
        description = f"tcp:{self.port}:interface=127.0.0.1"
        other = MetricsService(world(reactor), description, Figures(Counters(), {}), self.spool)
        fault = await self.assertFailure(other.bind(), LocalFault)
        self.assertEqual(str(fault), f"cannot listen on {description}: Address already in use")
        await other.stopService()
        odd = MetricsService(world(reactor), "tpc:1", Figures(Counters(), {}), self.spool)
        fault = await self.assertFailure(odd.bind(), LocalFault)
        self.assertIn("cannot listen on tpc:1: Unknown endpoint type", str(fault))


class VitalsTests(SynchronousTestCase):
    """:class:`Vitals` takes its samples while it runs."""

    def test_rates_and_lateness(self):
        clock, counters = Clock(), Counters()
        vitals = Vitals(world(clock), counters)
        vitals.startService()
        self.assertEqual(vitals.started, NOON)
        for _ in range(240):
            counters.delivered += 1
            clock.advance(0.25)
        self.assertAlmostEqual(vitals.rates()["delivered"][0], 4.0)
        self.assertEqual(vitals.lateness(), 0.0)
        clock.advance(0.75)
        self.assertEqual(vitals.lateness(), 0.5)
        vitals.stopService()
        self.assertEqual(clock.getDelayedCalls(), [])
        Vitals(world(clock), counters).stopService()

    def test_the_process(self):
        self.assertGreater(memory_octets(), 1 << 20)
        self.assertGreater(open_descriptors(), 2)
