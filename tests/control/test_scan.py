"""What is shown of scanning, and how a file gets to the daemon."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import command, scan_command
from mailsecure.control.scan_command import _copy_stream, _lines
from mailsecure.control.scan_metrics import history_figures, scan_figures
from mailsecure.control.scan_requests import ScanRequests
from mailsecure.control.scan_tables import history_line, scan_lines
from mailsecure.control.wire import Kind, Refusal
from mailsecure.scan.rehearsing import Rehearsal

ENGINE = {
    "name": "clamav",
    "state": "well",
    "since": 100.0,
    "last_error": "",
    "scanned": 7,
    "found": 2,
    "failures": 1,
    "waiting": 0,
    "busy": 1,
    "median": 0.012,
    "last": 0.2,
}
REPORT: dict[str, Any] = {
    "checks": ["markers", "rates"],
    "counts": {"rates": {"counted": 1200}, "dnsbl": {"zen.test": 0}},
    "engines": [ENGINE, ENGINE | {"name": "icap", "state": "down", "last_error": "gone\x1b"}],
    "workers": {"processes": 2, "busy": 1, "waiting": 3, "done": 9, "killed": 1, "crashed": 0},
}
HISTORY: dict[str, Any] = {
    "written": 5,
    "waiting": 1,
    "backlog": 0,
    "lost": 0,
    "octets": 4096,
    "away_since": 0,
    "last_error": "",
    "hindrance": "",
}


class Status(SynchronousTestCase):
    """Lines of ``mailsecure status``."""

    def test_scanning(self) -> None:
        lines = [line.plain for line in scan_lines(REPORT, 160.0)]
        self.assertEqual(
            lines,
            [
                "checks: markers rates; 1 of 2 processes busy, 3 messages wait for one",
                "rates: counted 1,200",
                "clamav well, scanned 7, found 2, failed 1, 12ms a message",
                "icap down, scanned 7, found 2, failed 1, 12ms a message, for 1m: gone\\x1b",
            ],
        )
        self.assertIn("checks: none", next(scan_lines(REPORT | {"checks": []}, 0)).plain)

    def test_lacks(self) -> None:
        """What the kernel does not keep processes from is said."""
        workers = REPORT["workers"] | {"lacks": ["files", "calls", "else"]}
        lines = [line.plain for line in scan_lines(REPORT | {"workers": workers}, 160.0)]
        self.assertEqual(
            lines[1:4],
            [
                "processes: the daemon's files are open to them (no Landlock)",
                "processes: system calls are open to them (no seccomp)",
                "processes: else",
            ],
        )

    def test_history(self) -> None:
        self.assertEqual(
            history_line(HISTORY, 160).plain, "history well, 5 events written, 1 wait, 4K"
        )
        away = HISTORY | {
            "away_since": 100.0,
            "last_error": "refused",
            "backlog": 2048,
            "lost": 3,
            "hindrance": "no pg_trgm",
        }
        self.assertEqual(
            history_line(away, 160).plain,
            "history away for 1m: refused, 5 events written, 1 wait, 2K wait on disk, 3 lost, 4K,"
            " no pg_trgm",
        )

    def test_metrics(self) -> None:
        samples = {
            (each.name, *each.labels.values()): each.value
            for family in scan_figures(REPORT)
            for each in family.samples
        }
        self.assertEqual(samples["mailsecure_engine_scanned_total", "clamav"], 7)
        self.assertEqual(samples["mailsecure_engine_well", "icap"], 0)
        self.assertEqual(samples["mailsecure_check_count", "rates", "counted"], 1200)
        self.assertEqual(samples["mailsecure_workers_waiting",], 3)
        self.assertEqual(samples["mailsecure_worker_jobs_killed_total",], 1)
        history = {
            (each.name): each.value
            for family in history_figures(HISTORY | {"away_since": 0.0, "backlog": 2048, "lost": 3})
            for each in family.samples
        }
        self.assertEqual(history["mailsecure_history_away"], 0)
        self.assertEqual(history["mailsecure_history_backlog_octets"], 2048)
        self.assertEqual(history["mailsecure_history_lost_total"], 3)
        away = next(iter(history_figures(HISTORY | {"away_since": 1.0})))
        self.assertEqual(away.samples[0].value, 1)
        self.assertEqual(list(history_figures({})), [])
        bare = [each.name for each in scan_figures(REPORT | {"engines": []})]
        self.assertNotIn("mailsecure_engine_well", bare)


class Files(SynchronousTestCase):
    """A message in a file becomes what a client would have sent."""

    def copied(self, octets: bytes, pieces: int = 1 << 20) -> bytes:
        """Return what the daemon gets."""
        descriptor = os.memfd_create("test")
        stream = io.BytesIO(octets)

        class Slow:
            def read(self, size: int) -> bytes:
                return stream.read(min(size, pieces))

        try:
            slow: Any = Slow()
            _copy_stream(slow, descriptor)
            return os.pread(descriptor, 1 << 20, 0)
        finally:
            os.close(descriptor)

    def test_lines_end_as_in_smtp(self) -> None:
        self.assertEqual(self.copied(b"a\nb\r\nc\rd\n"), b"a\r\nb\r\nc\rd\r\n")
        self.assertEqual(self.copied(b"From x y\nA: b\n\nFrom z\n"), b"A: b\r\n\r\nFrom z\r\n")
        self.assertEqual(self.copied(b"a\r"), b"a\r")

    @given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"From "])), st.integers(1, 3))
    def test_however_it_is_read(self, parts: list[bytes], size: int) -> None:
        octets = b"x" + b"".join(parts)
        self.assertEqual(self.copied(octets, size), self.copied(octets))

    def test_addresses_as_they_come(self) -> None:
        """From a log, with brackets; the null reverse-path as everywhere."""
        asked: list[dict[str, Any]] = []

        def answer(config: Path, request: str, arguments: Any, *more: Any) -> dict[str, Any]:
            asked.append(arguments)
            done = {"refused": [], "action": "accept", "score": 0, "thresholds": {}, "reply": ""}
            return done | {"symbols": [], "outcomes": {}, "seconds": 0.1}

        self.patch(scan_command, "outcome_for_file", answer)
        file = Path(self.mktemp())
        file.write_text("Subject: x\n\n")
        for sender, meant in (("<>", ""), ("<a@b.test>", "a@b.test"), ("a@b.test", "a@b.test")):
            words = ["scan", str(file), "--from", sender, "--to", "<c@d.test>"]
            self.assertEqual(CliRunner().invoke(command.cli, words).exit_code, 0)
            self.assertEqual((asked[-1]["sender"], asked[-1]["recipients"]), (meant, ["c@d.test"]))

    def test_what_is_printed(self) -> None:
        found: dict[str, Any] = {
            "refused": [
                {"recipient": "a@b\x1b", "reply": "550 5.7.1 no", "symbols": [{"name": "L"}]}
            ],
            "action": "tag",
            "score": 5.5,
            "thresholds": {"tag": 5.0},
            "reply": "",
            "symbols": [
                {"name": "A", "score": 0, "reason": "", "check": "c", "action": "tag"},
                {"name": "B", "score": 5.5, "reason": "why", "check": "c", "action": ""},
            ],
            "outcomes": {"a@b": "tag", "c@d": "accept"},
            "seconds": 0.25,
        }
        self.assertEqual(
            list(_lines(found)),
            [
                "RCPT TO:<a@b\\x1b> refused: 550 5.7.1 no (L)",
                "tag, score 5.5 (tag from 5)",
                "      5.5  B  why",
                "        0  A  → tag",
                "  <a@b>: tag",
                "  <c@d>: accept",
                "  took 250ms",
            ],
        )


class Requests(SynchronousTestCase):
    """The daemon's end."""

    def setUp(self) -> None:
        self.asked: list[Rehearsal] = []

        async def rehearse(asked: Rehearsal) -> dict[str, Any]:
            self.asked.append(asked)
            return {"action": "accept"}

        self.requests = ScanRequests(rehearse, lambda address: address == "192.0.2.1")

    def file(self, octets: bytes = b"Subject: x\r\n\r\nbody") -> int:
        """Return the descriptor of a file."""
        descriptor = os.memfd_create("test")
        os.write(descriptor, octets)
        return descriptor

    def answer(self, arguments: dict[str, Any], descriptor: int | None) -> Any:
        """Ask."""
        return Deferred.fromCoroutine(self.requests.answer(arguments, descriptor))

    def refused(self, arguments: dict[str, Any], descriptor: int | None) -> Refusal:
        """Return the refusal."""
        refusal: Refusal = self.failureResultOf(self.answer(arguments, descriptor), Refusal).value
        return refusal

    def test_what_is_asked(self) -> None:
        arguments = {"client": "192.0.2.1", "sender": "a@b.test", "recipients": ["c@d.test"]}
        self.successResultOf(self.answer(arguments, self.file()))
        (asked,) = self.asked
        self.assertEqual(
            (asked.client, asked.trusted, asked.helo), ("192.0.2.1", True, "localhost")
        )
        self.assertEqual((asked.sender, asked.recipients[0].domain), ("a@b.test", "d.test"))
        self.assertEqual(asked.header, b"Subject: x\r\n")
        self.assertEqual(b"".join(asked.body.pieces()), b"Subject: x\r\n\r\nbody")

    def test_one_of_our_own_by_default(self) -> None:
        self.successResultOf(self.answer({}, self.file()))
        self.assertEqual((self.asked[0].client, self.asked[0].trusted), ("127.0.0.1", True))
        self.successResultOf(self.answer({"client": "203.0.113.1"}, self.file()))
        self.assertFalse(self.asked[1].trusted)

    def test_what_makes_no_sense(self) -> None:
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.assertIs(self.refused({}, reading).kind, Kind.USAGE)
        self.assertRaises(OSError, os.fstat, reading)
        for arguments in (
            {"client": "nobody"},
            {"client": 5},
            {"sender": "no mailbox"},
            {"recipients": "a@b.test"},
            {"recipients": ["a@b.test"] * 101},
            {"recipients": [7]},
            {"recipients": ["postmaster"]},
            {"nonsense": 1},
        ):
            self.assertIs(self.refused(arguments, self.file()).kind, Kind.USAGE, arguments)
        self.assertIs(self.refused({}, None).kind, Kind.USAGE)
        self.requests = ScanRequests(None, bool)
        self.assertIs(self.refused({}, self.file()).kind, Kind.UNAVAILABLE)
