"""Run all tests, some of them beside each other, and end with one line: ``N passed, N failed``.

``python -m tests.lanes``, which is ``make test``.  A **lane** is some modules of tests in a
process of their own, :mod:`tests.summary`; a line at its end says how they fared, and how
long it took.  There are two turns:

1. Beside each other go ``pure`` (what covers the pure modules), ``patient`` (all else without
   sockets and daemons, and live suites that only wait), ``crashes``, and ``live``.  The first
   three measure no time and stand back (nice), so that ``live`` has a processor when it wants
   one.  On a machine with a single processor one follows the other.
2. ``alone`` has the machine for itself: clusters, of which a node that is given no time for
   a third of a second is rightly taken for dead, and whatever else of ``tests.live``
   :data:`PATIENT` or :data:`BESIDE` does not name.  So a new suite is alone until somebody says
   that it need not be.

Nothing stands between lanes: ports, namespaces and directories have names of one process
(:func:`tests.live.harness.free_port`, :mod:`tests.live.namespaces`), and each daemon, clamd,
rspamd or PostgreSQL is one that the test has made.  What a lane prints is printed whole, in
the order of the lanes.  A lane that dies has failed, whatever it had counted.

With ``MAILSECURE_COVERAGE`` set (as in ``.ci/run``) the lane that covers the pure modules
measures it, so that ``coverage report`` needs no second run.  ``MAILSECURE_SUMMARY`` is as
in :mod:`tests.summary`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .pure import ROOT, pure_tests
from .summary import conclude

__all__ = ["Lane", "lanes", "main", "run"]

CRASHES = ("test_crash",)
#: Live suites to which time is nothing: they wait for as long as it takes.
PATIENT = (
    *("test_attacks_framing", "test_attacks_relay", "test_clients", "test_clock"),
    *("test_cluster_long", "test_cluster_soak", "test_examples", "test_quarantine"),
    *("test_quarantine_crash", "test_records_postgresql", "test_scan_faults", "test_wheel"),
)
#: Live suites that need not be alone: what they say of times has room for a machine that
#: does other things as well.
BESIDE = (
    *(
        "test_checkout",
        "test_daemon",
        "test_delivery",
        "test_dkim_suite",
        "test_drain",
        "test_links",
    ),
    *("test_manhole", "test_opendkim", "test_records_killed", "test_scan"),
    *("test_scan_content", "test_scan_engines", "test_spf_suite", "test_systemd"),
    *("test_vip", "test_workers"),
)
#: How far those stand back for whom time is nothing.
NICE = 5
#: For how long a lane may go on when it was told to end, in seconds.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Lane:
    """Modules that one process runs, one after another.

    ``alone``: when all other lanes have ended.  ``modest``: it stands back for the others.
    ``covering``: it measures coverage, where that is wanted.
    """

    name: str
    modules: Sequence[str]
    alone: bool = False
    modest: bool = False
    covering: bool = False


def lanes() -> list[Lane]:
    """Return all lanes; each module of tests is in one."""
    found = [_module(path) for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    pure = [each for each in found if _within(each, pure_tests())]
    unit = [each for each in found if not _within(each, [*pure_tests(), "tests.live"])]
    patient, crashes, beside = _live(PATIENT), _live(CRASHES), _live(BESIDE)
    named = {*pure, *unit, *patient, *crashes, *beside}
    return [
        Lane("pure", pure, modest=True, covering=True),
        Lane("patient", unit + patient, modest=True),
        Lane("crashes", crashes, modest=True),
        Lane("live", beside),
        Lane("alone", [each for each in found if each not in named], alone=True),
    ]


def _live(names: Iterable[str]) -> list[str]:
    return [f"tests.live.{name}" for name in names]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _within(module: str, packages: Iterable[str]) -> bool:
    return any(module == each or module.startswith(f"{each}.") for each in packages)


class _Going:
    """A lane that was started; what it says is in a file until it is its turn to be told."""

    def __init__(self, lane: Lane, directory: Path, place: Path) -> None:
        self.lane = lane
        self._figures = directory / f"{lane.name}.figures"
        self._said = directory / f"{lane.name}.said"
        self._began = time.time()
        coverage = lane.covering and os.environ.get("MAILSECURE_COVERAGE")
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    *([sys.executable, "-m", "coverage", "run"] if coverage else [sys.executable]),
                    *("-m", "tests.summary", f"--temp-directory={place}/_trial_temp_{lane.name}"),
                    *lane.modules,
                ],
                cwd=ROOT,
                env=os.environ | {"MAILSECURE_SUMMARY": str(self._figures)},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                # Ctrl-C is ours alone: a second one would disturb it while it tidies up.
                start_new_session=True,
            )
        if lane.modest:
            os.setpriority(os.PRIO_PROCESS, self.process.pid, NICE)

    def tell(self) -> None:
        """Print what it says, to its end."""
        with self._said.open("rb") as said:
            ended = False
            while not ended:
                ended = self.process.poll() is not None
                while piece := said.read(65_536):
                    sys.stdout.buffer.write(piece)
                sys.stdout.flush()
                if not ended:
                    time.sleep(0.2)

    def figures(self) -> tuple[int, int]:
        """Return how many tests passed and failed; that it did not come to an end is one."""
        text = self._figures.read_text().split() if self._figures.exists() else []
        passed, failed = map(int, text[:2]) if len(text) >= 2 else (0, 0)
        took = self._said.stat().st_mtime - self._began
        code = self.process.returncode
        if code != bool(failed) or not text:
            failed += 1
            print(f"the lane died: exit status {code}")
        print(f"== lane {self.lane.name}: {passed} passed, {failed} failed, {took:.0f} s")
        return passed, failed

    def interrupt(self) -> None:
        """Tell it to end, as Ctrl-C does: its daemons end with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)

    def end(self) -> None:
        """Wait for its end, for a while."""
        if self.process.poll() is None:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def _going(wanted: Sequence[Lane], directory: Path, place: Path) -> Iterator[list[_Going]]:
    started: list[_Going] = []
    try:
        for lane in wanted:
            started.append(_Going(lane, directory, place))
        yield started
    finally:
        for each in started:
            each.interrupt()
        for each in started:
            each.end()


def run(wanted: Sequence[Lane], processors: int, place: Path = ROOT) -> tuple[int, int]:
    """Run lanes, print what they say; return how many tests passed and failed.

    Their temporary directories, which trial leaves behind for us to look at, are in ``place``.
    """
    beside = [each for each in wanted if not each.alone]
    turns = [beside] if processors > 1 else [[each] for each in beside]
    turns += [[each] for each in wanted if each.alone]
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="mailsecure-lanes-") as directory:
        for turn in turns:
            with _going(turn, Path(directory), place) as started:
                for each in started:
                    print(f"== lane {each.lane.name}", flush=True)
                    each.tell()
                    good, bad = each.figures()
                    passed, failed = passed + good, failed + bad
    return passed, failed


def main(place: Path = ROOT) -> int:
    """Run all tests; return the exit code.  ``place`` is as in :func:`run`."""
    # As after Ctrl-C, the lanes are ended first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    passed, failed = run(lanes(), len(os.sched_getaffinity(0)), place)
    return conclude(passed, failed)


if __name__ == "__main__":
    raise SystemExit(main())
