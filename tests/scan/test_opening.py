"""One run for many who ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.scan.anatomy import Anatomy
from mailsecure.scan.api import Unscannable, WorkerFault
from mailsecure.scan.opening import anatomy_of
from mailsecure.spool.values import Body
from mailsecure.testing.messages import message
from mailsecure.testing.workers import InlineWorkers, OctetsBody

CONFIG = parse_config("[scan]\nmax_scan_size = 10K\n", "test.ini")


class SlowWorkers:
    """Workers whose results are given by hand."""

    def __init__(self) -> None:
        self.jobs: list[Deferred[dict[str, Any]]] = []

    async def run(
        self, job: str, arguments: Mapping[str, Any], body: Body | None = None
    ) -> dict[str, Any]:
        """Wait until the test says what comes of it."""
        waiting: Deferred[dict[str, Any]] = Deferred()
        self.jobs.append(waiting)
        return await waiting


class OpeningTests(SynchronousTestCase):
    """anatomy_of."""

    def setUp(self) -> None:
        self.workers = SlowWorkers()
        self.anatomy = anatomy_of(self.workers, CONFIG, OctetsBody(message()))

    def ask(self) -> Deferred[Anatomy]:
        """Ask for it."""
        return Deferred.fromCoroutine(self.anatomy())  # type: ignore[arg-type]

    def test_real(self) -> None:
        """The job is there and does it."""
        anatomy = anatomy_of(InlineWorkers(), CONFIG, OctetsBody(message()))
        found = self.successResultOf(Deferred.fromCoroutine(anatomy()))  # type: ignore[arg-type]
        self.assertEqual(found.subject, "a test")
        self.assertEqual(found.header_from, ("alice@example.org",))

    def test_shared(self) -> None:
        """Who asks meanwhile, and who asks later, gets the same."""
        first, second = self.ask(), self.ask()
        [job] = self.workers.jobs
        result = self.successResultOf(
            Deferred.fromCoroutine(
                InlineWorkers().run("jobs.mail:take_apart", {}, OctetsBody(message()))
            )
        )
        job.callback(result)
        anatomy = self.successResultOf(first)
        self.assertIs(self.successResultOf(second), anatomy)
        self.assertIs(self.successResultOf(self.ask()), anatomy)
        self.assertEqual(len(self.workers.jobs), 1)

    def test_failed(self) -> None:
        """So it is with what went wrong."""
        for fault in (Unscannable("bomb"), WorkerFault("none")):
            self.setUp()
            first, second = self.ask(), self.ask()
            self.workers.jobs[0].errback(fault)
            for asked in (first, second, self.ask()):
                self.failureResultOf(asked, type(fault))
            self.assertEqual(len(self.workers.jobs), 1)

    def test_given_up(self) -> None:
        """One who gives up takes nothing away; when all have, the job is given up, too."""
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        [job] = self.workers.jobs
        self.assertFalse(job.called)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertTrue(job.called)
        third = self.ask()
        self.workers.jobs[1].errback(Unscannable("bomb"))
        self.failureResultOf(third, Unscannable)

    def test_too_large(self) -> None:
        """A message above max_scan_size is not even sent there."""
        self.anatomy = anatomy_of(self.workers, CONFIG, OctetsBody(bytes(10 * 1024 + 1)))
        failure = self.failureResultOf(self.ask(), Unscannable)
        self.assertIn("more than 10K", failure.getErrorMessage())
        self.assertEqual(self.workers.jobs, [])
