"""The pool of processes: :class:`WorkerPool` is :class:`mailsecure.scan.api.Workers`.

Jobs wait in one queue, first come first served, for the next process that is idle.  A
process that is late with its job is killed, and the job has failed with ``Unscannable``; so
it has if the process dies of it.  Another process is in its place a few milliseconds later
(:mod:`.staff`).  Where there is none, jobs wait, within :data:`MAX_WAIT`, and then fail with
``WorkerFault``.

Who cancels the Deferred that waits for a job takes it out of the queue, or, where a process
is at it, has that process killed: nobody wants the result.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from ...background import background
from ...config.scanning import Scan
from ...errors import LocalFault
from ...spool.values import Body
from ...world import World
from ..faults import Unscannable, WorkerFault
from .link import Link
from .staff import Staff
from .tasks import Task, Worker

__all__ = ["WorkerPool"]

_log = Logger(namespace="scan")

#: A single process would have one bomb keep all mail waiting until it is killed.
LEAST_PROCESSES = 2
#: Jobs that may wait for each process, and for how many seconds.
MAX_WAITING = 500
MAX_WAIT = 30.0
#: After so many jobs a process is replaced: libraries written in C lose memory.
MAX_JOBS = 1000
PACKAGE = "mailsecure.scan"


class WorkerPool:
    """The processes of one daemon."""

    def __init__(self, world: World, settings: Scan, package: str = PACKAGE) -> None:
        """``package`` is what the names of jobs are relative to."""
        self._world = world
        self._settings = settings
        wanted = settings.workers or max(LEAST_PROCESSES, len(os.sched_getaffinity(0)))
        self._staff = Staff(world, self, wanted, package, settings.worker_memory)
        self._stopped = True
        self._idle: list[Worker] = []
        self._waiting: deque[Task] = deque()
        self._counts = dict.fromkeys(("done", "unscannable", "failed", "killed", "crashed"), 0)
        self._worst = 0.0

    async def start(self) -> None:
        """Start the processes; jobs may be given at once, and wait until one is there."""
        self._stopped = False
        self._staff.start()

    async def stop(self) -> None:
        """End all processes; jobs that are not done fail with WorkerFault."""
        self._stopped = True
        busy = [worker.task for worker in self._staff.workers.values() if worker.task is not None]
        unfinished = [*self._waiting, *busy]
        self._waiting.clear()
        self._idle.clear()
        ended = self._staff.stop()
        for task in unfinished:
            self._fail(task, WorkerFault("the pool of processes stops"))
        if ended is not None:
            await ended

    def reconfigure(self, settings: Scan) -> None:
        """Go by another ``worker_time``, from the next job on; all else waits for a restart."""
        self._settings = settings

    def report(self) -> dict[str, Any]:
        """Return what ``mailsecure status`` and the metrics show.

        ``processes`` there are of those ``wanted``, ``busy`` of them, jobs ``waiting``; since
        the start, jobs ``done``, ``unscannable`` and ``failed`` (our fault), processes
        ``killed`` by us and ``crashed``, and ``worst``, the seconds that the longest job took;
        ``lacks`` is what this kernel does not keep them from: ``files``, ``calls``.
        """
        workers = self._staff.workers.values()
        return {
            "processes": sum(worker.process > 0 for worker in workers),
            "wanted": self._staff.wanted,
            "busy": sum(worker.task is not None for worker in workers),
            "waiting": len(self._waiting),
            **self._counts,
            "worst": round(self._worst, 3),
            "lacks": list(self._staff.lacks),
        }

    async def run(
        self, job: str, arguments: Mapping[str, Any], body: Body | None = None
    ) -> dict[str, Any]:
        """See :class:`mailsecure.scan.api.Workers`."""
        if self._stopped:
            raise WorkerFault("the pool of processes is not running")
        if len(self._waiting) >= MAX_WAITING * self._staff.wanted:
            self._counts["failed"] += 1
            raise WorkerFault("too many messages wait to be taken apart")
        task = Task(job, arguments, body, self._give_up)
        self._waiting.append(task)
        if self._idle:
            self._assign()
        else:
            task.timer = self._world.clock.callLater(MAX_WAIT, self._waited, task)
        return await task.answer

    # -- a job and a worker come together

    def _assign(self) -> None:
        while self._waiting and self._idle:
            worker, task = self._idle.pop(), self._waiting.popleft()
            task.cancel_timer()
            worker.take(task, self._world.clock.seconds())
            seconds = self._settings.worker_time
            task.timer = self._world.clock.callLater(seconds, self._late, worker)
            background("handing a job to a worker", self._hand(worker, task, seconds))

    async def _hand(self, worker: Worker, task: Task, seconds: float) -> None:
        order = {"job": task.job, "arguments": task.arguments, "seconds": seconds}
        try:
            await worker.link.send(order, task.body)
        except (LocalFault, ValueError) as fault:
            if worker.task is task:
                local = isinstance(fault, LocalFault)
                self._kill(worker, fault if local else WorkerFault(str(fault)))
            return
        worker.sent = True
        # The time is for the job alone: a slow disk is not the message's fault.
        if worker.task is task and task.timer is not None:
            task.timer.reset(seconds)

    def heard(self, link: Link, outcome: dict[str, Any]) -> None:
        """See :class:`.link.Owner`."""
        worker = self._staff.workers.get(link.number)
        if worker is None:
            return
        task, all_read = worker.task, worker.sent
        if task is None:
            self.broken(link, "speaks without being asked")
            return
        self._worst = max(self._worst, self._world.clock.seconds() - worker.started)
        worker.finish()
        self._staff.praise()
        if worker.jobs >= MAX_JOBS or outcome.get("last") or not all_read:
            self._staff.dismiss(worker)
        else:
            self._idle.append(worker)
        self._settle(task, outcome)
        self._assign()

    def _settle(self, task: Task, outcome: dict[str, Any]) -> None:
        if "result" in outcome:
            self._counts["done"] += 1
            task.succeed(outcome["result"])
        elif "local" in outcome:
            self._fail(task, WorkerFault(f"{task.job}: {outcome['local']}"))
        else:
            self._fail(task, Unscannable(str(outcome.get("unscannable"))))

    # -- what goes wrong

    def _fail(self, task: Task, fault: Exception) -> None:
        self._counts["unscannable" if isinstance(fault, Unscannable) else "failed"] += 1
        task.fail(fault)

    def _waited(self, task: Task) -> None:
        task.timer = None
        self._waiting.remove(task)
        self._fail(task, WorkerFault(f"no process was free for {MAX_WAIT:g} s"))

    def _give_up(self, task: Task) -> None:
        """Nobody waits for ``task`` any more."""
        with suppress(ValueError):
            self._waiting.remove(task)
        for worker in list(self._staff.workers.values()):
            if worker.task is task:
                worker.finish()
                self._counts["killed"] += 1
                self._staff.dismiss(worker)

    def _late(self, worker: Worker) -> None:
        assert worker.task is not None
        worker.task.timer = None
        within = f"within {self._settings.worker_time:g} s"
        if worker.sent:
            self._kill(worker, Unscannable(f"not taken apart {within}"))
        else:
            self._kill(worker, WorkerFault(f"could not be handed over {within}"))

    def _kill(self, worker: Worker, fault: Exception) -> None:
        """Kill a worker; its job, if it has one, fails with ``fault``."""
        self._counts["killed"] += 1
        _log.warn("worker {number} is killed: {reason}", number=worker.number, reason=str(fault))
        self._staff.dismiss(worker)
        self._left(worker, fault)

    def _left(self, worker: Worker, fault: Exception) -> None:
        self._rest(worker)
        task = worker.task
        worker.finish()
        if task is not None:
            self._fail(task, fault)

    def _rest(self, worker: Worker) -> None:
        """Give no job to ``worker``."""
        with suppress(ValueError):
            self._idle.remove(worker)

    def broken(self, link: Link, why: str) -> None:
        """See :class:`.link.Owner`.  Of a worker that is only gone :meth:`died` will tell more."""
        worker = self._staff.workers.get(link.number)
        if worker is None:
            return
        self._rest(worker)
        if why:
            self._kill(worker, Unscannable(f"the process that took it apart {why}"))

    # -- see .staff.Employer

    def make_worker(self, number: int) -> Worker:
        """See :class:`.staff.Employer`."""
        return Worker(self._world, self, number)

    def came(self, worker: Worker) -> None:
        """See :class:`.staff.Employer`."""
        self._idle.append(worker)
        self._assign()

    def died(self, worker: Worker, how: str) -> None:
        """See :class:`.staff.Employer`."""
        self._counts["crashed"] += 1
        self._left(worker, Unscannable(f"the process that took it apart died: {how}"))

    def lost(self, worker: Worker) -> None:
        """See :class:`.staff.Employer`."""
        self._left(worker, WorkerFault("the processes that take messages apart ended"))
