"""The pool of processes, with processes that are killed, stopped, hungry, mad and dead."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.threadable import isInIOThread

from mailsecure.scan.api import Unscannable, WorkerFault
from mailsecure.scan.workers import forker, pool, staff
from mailsecure.scan.workers.pool import WorkerPool
from mailsecure.spool.values import SpoolBroken
from mailsecure.testing.workers import OctetsBody

from .harness import until
from .pools import PooledTestCase, reactor


def alive(process: int) -> bool:
    """Say whether a process is there, and no zombie."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class FileBody(OctetsBody):
    """A body whose octets may only be read in a thread."""

    in_memory = False

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield the octets; not in the reactor's thread."""
        for piece in super().pieces(size):
            assert not isInIOThread()
            yield piece


class BrokenBody(FileBody):
    """One whose file goes away in the middle."""

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield some, then fail."""
        yield b"x" * size
        raise SpoolBroken("the disk")


class ShortBody(FileBody):
    """One that is shorter than it says."""

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield less than there should be."""
        yield b"x" * size


class PoolTestCase(PooledTestCase):
    """Has a pool of two processes, whose jobs are those of :mod:`.labour`."""

    timeout = 60
    ini = "[scan]\nworkers = 2\nworker_time = 20s\n"
    package = "tests.live.labour"

    def run_job(
        self, name: str, arguments: dict[str, Any] | None = None, body: Any = None
    ) -> Deferred[dict[str, Any]]:
        """Give a job to the pool."""
        job = self.pool.run(f"jobs.trouble:{name}", arguments or {}, body)
        return Deferred.fromCoroutine(job)

    async def refused(self, job: Deferred[dict[str, Any]], kind: type[Exception]) -> str:
        """Wait until ``job`` has failed with ``kind``; return what it says."""
        try:
            result = await job
        except kind as fault:
            return str(fault)
        raise AssertionError(f"not refused: {result}")

    async def well(self) -> None:
        """The pool has all its processes and does jobs."""
        await self.until(lambda: self.pool.report()["processes"] == 2, "two processes")
        body = OctetsBody(b"hello")
        self.assertEqual((await self.run_job("echo", {}, body))["octets"], 5)


class JobTests(PoolTestCase):
    """What goes in comes out."""

    async def test_echo(self) -> None:
        """Arguments, small and large bodies, in memory and in files, arrive whole."""
        for size in (0, 1, 10_000, 300_000, 5_000_000):
            octets = random.Random(size).randbytes(size)
            for body in (OctetsBody(octets), FileBody(octets)):
                result = await self.run_job("echo", {"a": ["ü", 1, None]}, body)
                self.assertEqual(result["arguments"], {"a": ["ü", 1, None]})
                self.assertEqual(result["sha256"], hashlib.sha256(octets).hexdigest())
        self.assertEqual((await self.run_job("echo"))["octets"], 0)

    async def test_hundreds(self) -> None:
        """500 jobs at once are done by two processes."""
        jobs = [self.run_job("echo", {"n": n}, OctetsBody(b"x" * n)) for n in range(500)]
        results = await gatherResults(jobs)
        self.assertEqual([each["octets"] for each in results], list(range(500)))
        self.assertEqual(len({each["pid"] for each in results}), 2)
        self.assertEqual(self.pool.report()["done"], 500)
        self.assertEqual(self.pool.report()["waiting"], 0)

    async def test_replaced_after_many_jobs(self) -> None:
        """A process is let go after so many jobs; nobody notices."""
        self.patch(pool, "MAX_JOBS", 3)
        results = await gatherResults([self.run_job("echo") for _ in range(30)])
        self.assertGreaterEqual(len({each["pid"] for each in results}), 10)
        self.assertEqual(self.pool.report()["crashed"], 0)

    async def test_refused(self) -> None:
        """Unscannable and LocalFault come back as what they are, printable."""
        why = await self.refused(self.run_job("refuse"), Unscannable)
        self.assertEqual(why, r"broken\r\n\u001b[31m")
        why = await self.refused(self.run_job("lack"), WorkerFault)
        self.assertIn("no library", why)
        strange = "jobs.trouble:nothing jobs.nothing:echo jobs.missing:echo os:system ../x:y echo"
        for name in strange.split():
            job = Deferred.fromCoroutine(self.pool.run(name, {}))
            await self.refused(job, WorkerFault)
        self.assertEqual(self.pool.report()["crashed"], 0)

    async def test_rights(self) -> None:
        """A worker writes no file, reads only code, runs nothing, goes nowhere, has no power."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        target = Path(folder.name) / "file"
        victim = target.with_name("victim")
        victim.write_bytes(b"precious")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            arguments = {"path": str(target), "victim": str(victim), "port": port}
            result = await self.run_job("rights", arguments)
        for attempt in ("write", "truncate", "unlink", "run", "connect", "socket", "kill"):
            self.assertFalse(result[attempt], attempt)
        # Landlock is in each kernel that Debian 12 and later ship.
        self.assertEqual(self.pool.report()["lacks"], [])
        for attempt in ("read", "list", "list the root", "read the passwords"):
            self.assertFalse(result[attempt], attempt)
        self.assertTrue(result["import"])
        self.assertTrue(result["load a library"])
        self.assertFalse(target.exists())
        self.assertEqual(victim.read_bytes(), b"precious")
        self.assertEqual(result["no_new_privileges"], 1)
        self.assertEqual(result["core"], 0)
        self.assertEqual(result["capabilities"], "")


class EndlessTests(PoolTestCase):
    """A job that does not end is the trouble of one message."""

    ini = "[scan]\nworkers = 2\nworker_time = 1s\n"

    async def test_endless(self) -> None:
        """A job without end is killed; the other process goes on meanwhile."""
        endless = self.run_job("loop")
        await self.until(lambda: self.pool.report()["busy"] == 1, "busy")
        self.assertEqual((await self.run_job("echo"))["octets"], 0)
        why = await self.refused(endless, Unscannable)
        self.assertEqual(why, "not taken apart within 1 s")
        self.assertEqual(self.pool.report()["killed"], 1)
        await self.well()

    async def test_stopped(self) -> None:
        """SIGSTOP is as good as an endless loop."""
        await self.well()
        for worker in self.pool._staff.workers.values():
            os.kill(worker.process, signal.SIGSTOP)
        for job in [self.run_job("echo"), self.run_job("echo", {}, OctetsBody(b"x" * 9999))]:
            await self.refused(job, Unscannable)
        await self.well()

    async def test_not_handed_over(self) -> None:
        """What could not be handed over to a process that hangs is not the message's fault."""
        await self.well()
        for worker in self.pool._staff.workers.values():
            os.kill(worker.process, signal.SIGSTOP)
        job = self.run_job("echo", {}, FileBody(b"x" * 5_000_000))
        self.assertIn("handed over", await self.refused(job, WorkerFault))


class TroubleTests(PoolTestCase):
    """Each trouble is the trouble of one message."""

    async def test_killed(self) -> None:
        """kill -9 in a job makes that message unscannable, and nothing else."""
        job = self.run_job("sleep", {"seconds": 0.9})
        await self.until(lambda: self.pool.report()["busy"] == 1, "busy")
        worker = next(each for each in self.pool._staff.workers.values() if each.task is not None)
        os.kill(worker.process, signal.SIGKILL)
        why = await self.refused(job, Unscannable)
        self.assertIn("SIGKILL", why)
        await self.well()

    async def test_killed_idle(self) -> None:
        """Idle processes that die are replaced, with a pause, and no job is hurt."""
        await self.well()
        for _ in range(3):
            for worker in list(self.pool._staff.workers.values()):
                os.kill(worker.process, signal.SIGKILL)
            await self.until(lambda: self.pool.report()["processes"] < 2, "noticed")
            await self.well()

    async def test_hungry(self) -> None:
        """A job that takes all memory gets no more than its share."""
        why = await self.refused(self.run_job("hog"), Unscannable)
        self.assertEqual(why, "takes too much memory")
        await self.well()

    async def test_crashes(self) -> None:
        """Dead by a signal, by exit, by an exception, by recursion."""
        for name, reason in (
            ("crash", "SIGSEGV"),
            ("leave", "exit status 3"),
            ("blunder", "exit status 1"),
            ("recurse", "nested too deep"),
            ("too_much", "exit status 1"),
        ):
            self.assertIn(reason, await self.refused(self.run_job(name), Unscannable))
            await self.well()
        self.assertEqual(self.pool.report()["crashed"], 4)

    async def test_flood(self) -> None:
        """What a job writes to its output hurts nobody."""
        self.assertEqual(await self.run_job("flood"), {"flooded": True})
        await self.well()

    async def test_broken_bodies(self) -> None:
        """A body that cannot be read is our fault, and the process is replaced."""
        why = await self.refused(self.run_job("echo", {}, BrokenBody(b"x" * 500_000)), SpoolBroken)
        self.assertEqual(why, "the disk")
        await self.refused(self.run_job("echo", {}, ShortBody(b"x" * 500_000)), WorkerFault)
        await self.refused(self.run_job("echo", {"x": "y" * (5 << 20)}), WorkerFault)
        await self.well()

    async def test_cancelled(self) -> None:
        """Who gives up waiting sets the process free, or leaves the queue."""
        jobs = [self.run_job("sleep", {"seconds": 5}) for _ in range(4)]
        await self.until(lambda: self.pool.report()["busy"] == 2, "busy")
        for job in jobs:
            job.cancel()
            await self.refused(job, CancelledError)
        self.assertEqual(self.pool.report()["waiting"], 0)
        await self.well()

    async def test_queue(self) -> None:
        """The queue is bounded, and so is the time in it."""
        await self.well()
        self.patch(pool, "MAX_WAITING", 2)
        self.patch(pool, "MAX_WAIT", 0.1)
        jobs = [self.run_job("sleep", {"seconds": 0.5}) for _ in range(2)]
        await self.until(lambda: self.pool.report()["busy"] == 2, "busy")
        waiting = [self.run_job("echo") for _ in range(4)]
        self.assertIn("too many", await self.refused(self.run_job("echo"), WorkerFault))
        for job in waiting:
            self.assertIn("no process was free", await self.refused(job, WorkerFault))
        await gatherResults(jobs)


class ForkerTests(PoolTestCase):
    """The process that forks may die, hang, and not start."""

    ini = "[scan]\nworkers = 2\nworker_time = 2s\n"

    async def test_stop(self) -> None:
        """A stop in the middle of everything fails what is not done, and leaves no process."""
        await self.well()
        processes = [each.process for each in self.pool._staff.workers.values()]
        processes.append(self.pool._staff._forker.pid)
        jobs = [self.run_job("loop") for _ in range(2)] + [self.run_job("echo") for _ in range(20)]
        await deferLater(reactor, 0.05, int)
        stopping = Deferred.fromCoroutine(self.pool.stop())
        for job in jobs:
            await self.refused(job, WorkerFault)
        await stopping
        await self.until(lambda: not any(map(alive, processes)), "all gone")
        await self.refused(self.run_job("echo"), WorkerFault)

    async def test_killed(self) -> None:
        """kill -9 of the forking process: its jobs are not the messages' fault; all comes back."""
        await self.well()
        processes = [each.process for each in self.pool._staff.workers.values()]
        job = self.run_job("loop")
        await self.until(lambda: self.pool.report()["busy"] == 1, "busy")
        os.kill(self.pool._staff._forker.pid, signal.SIGKILL)
        await self.refused(job, WorkerFault)
        await self.well()
        await self.until(lambda: not any(map(alive, processes)), "the old ones gone")

    async def test_hangs(self) -> None:
        """A forking process that does not answer is killed, and replaced."""
        self.patch(forker, "ANSWER_TIME", 0.3)
        await self.well()
        os.kill(self.pool._staff._forker.pid, signal.SIGSTOP)
        await self.refused(self.run_job("leave"), Unscannable)
        await self.until(lambda: self.pool._staff._forker is None, "killed")
        await self.well()

    async def test_does_not_start(self) -> None:
        """What cannot be started is tried again, after pauses; jobs wait, and then fail."""
        await self.pool.stop()
        starts: list[int] = []
        original = forker.Forker.start

        def start(each: Any) -> None:
            starts.append(1)
            original(each)

        self.patch(forker.Forker, "start", start)
        self.patch(staff, "FIRST_PAUSE", 0.2)
        self.patch(pool, "MAX_WAIT", 1.0)
        self.pool = WorkerPool(self.world, self.config.scan, "tests.live.nowhere")
        await self.pool.start()
        await self.refused(self.run_job("echo"), WorkerFault)
        self.assertIn(len(starts), (1, 2, 3, 4))
        await self.pool.stop()


DAEMON = """
import random, sys
from dataclasses import replace
from twisted.internet import reactor
from mailsecure.background import background
from mailsecure.config.load import parse_config
from mailsecure.scan.workers.pool import WorkerPool
from mailsecure.world import World

world = World(reactor, reactor, lambda: 0.0, random.Random(1), None)
settings = replace(parse_config("", "test.ini").scan, workers=2, worker_time=60.0)
pool = WorkerPool(world, settings, "tests.live.labour")

async def work():
    await pool.start()
    jobs = [background("job", pool.run("jobs.trouble:loop", {})) for _ in range(2)]
    while pool.report()["busy"] < 2:
        await deferLater(reactor, 0.01, int)
    print(pool._staff._forker.pid, *[each.process for each in pool._staff.workers.values()])
    sys.stdout.flush()

from twisted.internet.task import deferLater
from twisted.python.threadable import isInIOThread
reactor.callWhenRunning(background, "work", work())
reactor.run()
"""


class DaemonTests(unittest.TestCase):
    """No worker outlives the daemon."""

    def test_killed(self) -> None:
        """kill -9 of the daemon ends workers in the middle of endless jobs."""
        with subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE) as daemon:
            assert daemon.stdout is not None
            processes = [int(each) for each in daemon.stdout.readline().split()]
            self.assertEqual(len(processes), 3)
            self.assertTrue(all(map(alive, processes)))
            daemon.kill()
        until(lambda: not any(map(alive, processes)), "all gone")
