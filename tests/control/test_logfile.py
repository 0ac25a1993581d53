"""Proves that the log observer writes in batches, survives its disk, and reopens."""

import errno
import json
import os
from pathlib import Path
from unittest import mock

from twisted.internet.task import Clock
from twisted.logger import Logger, LogLevel
from twisted.logger import LogPublisher as Publisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Log, LogColour, LogFormat
from mailsecure.config.model import LogLevel as Level
from mailsecure.control import logfile
from mailsecure.control.logfile import LogFile
from mailsecure.errors import LocalFault


class LogFileTests(SynchronousTestCase):
    """:class:`LogFile` on a real file and a fake clock."""

    def setUp(self):
        self.clock = Clock()
        self.path = Path(self.mktemp())
        self.file = self.made()
        self.file.open()
        self.addCleanup(self.file.close)
        self.log = Logger(namespace="smtpd", observer=self.file)

    def settings(self, **changes):
        values = {
            "file": str(self.path),
            "format": LogFormat.TEXT,
            "level": Level.INFO,
            "colour": LogColour.AUTO,
        }
        return Log(**{**values, **changes})

    def made(self, **changes):
        return LogFile(self.settings(**changes), "mx1", self.clock)

    def read(self):
        return self.path.read_text("utf-8")

    def texts(self):
        return [line.partition("]: ")[2] for line in self.read().splitlines()]

    def test_before_start_and_after_stop_each_line_is_written_at_once(self):
        self.log.info("one")
        self.assertEqual(self.texts(), ["one"])
        self.file.start()
        self.log.info("two")
        self.assertEqual(self.texts(), ["one"])
        self.file.stop()
        self.assertEqual(self.texts(), ["one", "two"])
        self.log.info("three")
        self.assertEqual(self.texts(), ["one", "two", "three"])

    def test_a_turn_writes_once(self):
        self.file.start()
        with mock.patch.object(logfile.os, "write", wraps=os.write) as write:
            for number in range(10):
                self.log.info("{number}", number=number)
            self.assertEqual(write.call_count, 0)
            self.clock.advance(0)
            self.assertEqual(write.call_count, 1)
        self.assertEqual(self.texts(), [str(number) for number in range(10)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_64_kib_and_warnings_are_not_kept_waiting(self):
        self.file.start()
        self.log.info("{x}", x="x" * 5000)
        self.assertEqual(self.read(), "")
        for _ in range(12):
            self.log.info("{x}", x="x" * 5000)
        self.assertEqual(len(self.texts()), 13)
        self.log.info("before")
        self.log.warn("now")
        self.assertEqual(self.texts()[13:], ["before", "warning: now"])

    def test_mode_and_append(self):
        self.log.info("one")
        other = self.made()
        other.open()
        Logger(namespace="x", observer=other).info("two")
        other.close()
        self.assertEqual(self.texts(), ["one", "two"])
        self.assertEqual(self.path.stat().st_mode & 0o777 & ~0o640, 0)

    def test_rooms(self):
        for namespace, room in (
            ("delivery", "delivery"),
            ("twisted.internet.protocol.Factory", "Factory"),
            ("a.b\nc", "b_c"),
            ("x.", "twisted"),
        ):
            Logger(namespace=namespace, observer=self.file).info("x")
            self.assertIn(f" mx1 mailsecure/{room}[{os.getpid()}]: x", self.read().splitlines()[-1])
        for number in range(1100):
            Logger(namespace=f"n{number}", observer=self.file).info("x")
        self.assertLessEqual(len(self.file._rooms), 1000)

    def test_level(self):
        self.log.debug("hidden")
        self.file({"log_level": None, "log_format": "hidden"})
        self.assertEqual(self.read(), "")
        self.file.reconfigure(self.settings(level=Level.ERROR, format=LogFormat.JSON))
        self.log.warn("hidden")
        self.log.error("shown", message="X")
        record = json.loads(self.read())
        self.assertEqual((record["level"], record["message"]), ("error", "X"))

    def test_the_chatter_of_twisted_is_debug_and_its_errors_are_not(self):
        chatter = {"log_namespace": "log_legacy", "log_format": "x", "log_level": LogLevel.info}
        self.file(chatter)
        self.file({**chatter, "log_level": LogLevel.critical})
        self.assertEqual(self.texts(), ["critical: x"])
        self.file.reconfigure(self.settings(level=Level.DEBUG))
        self.file(chatter)
        self.assertIn(" mailsecure/twisted[", self.read().splitlines()[1])
        self.assertEqual(self.texts()[1:], ["debug: x"])

    def test_an_event_without_anything(self):
        self.file({"log_format": "bare"})
        self.assertEqual(self.texts(), ["bare"])

    def test_failures_show_their_traceback(self):
        failure = Failure(ValueError("bad\n2026-01-01T00:00:00 forged"))
        self.log.failure("{what} failed", failure=failure, what="work")
        self.file({"log_failure": failure, "log_level": LogLevel.critical})
        lines = self.read().splitlines()
        self.assertTrue(lines[0].endswith("critical: work failed"))
        heads = [line for line in lines if not line.startswith("    ")]
        self.assertEqual(len(heads), 2)
        self.assertTrue(heads[1].endswith("critical: unexpected error"))
        self.assertIn("    2026-01-01T00:00:00 forged", lines)

    def test_recent_problems_are_kept_for_the_status(self):
        self.log.info("fine")
        for number in range(30):
            self.log.warn("{number}", number=number)
        self.assertEqual(len(self.file.recent), 20)
        when, level, room, text = self.file.recent[-1]
        self.assertEqual((level, room, text), ("warn", "smtpd", "29"))
        self.assertGreater(when, 1e9)

    def test_reopen_after_logrotate(self):
        self.log.info("one")
        rotated = self.path.with_suffix(".1")
        self.path.rename(rotated)
        self.log.info("two")
        self.file.reopen()
        self.log.info("three")
        self.assertEqual(self.texts(), ["three"])
        self.assertEqual(len(rotated.read_text().splitlines()), 2)

    def test_reopen_that_fails_keeps_the_old_file(self):
        publisher = Publisher(self.file)
        self.patch(logfile, "_log", Logger(namespace="control", observer=publisher))
        with mock.patch.object(logfile.os, "open", side_effect=OSError(errno.EACCES, "denied")):
            self.file.reopen()
        self.assertEqual(self.file.failures, 1)
        self.log.info("goes on")
        self.assertEqual(
            self.texts(),
            [f"error: cannot open the log file {self.path} again: denied", "goes on"],
        )

    def test_open_that_fails_says_why(self):
        file = self.made(file="/nonexistent/x.log")
        fault = self.assertRaises(LocalFault, file.open)
        self.assertEqual(
            str(fault), "cannot open the log file /nonexistent/x.log: No such file or directory"
        )
        file.close()

    def test_full_disk_raises_nothing_and_heals(self):
        self.patch(logfile, "_log", Logger(namespace="control", observer=self.file))
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(logfile.os, "write", side_effect=full):
            self.log.info("one")
            self.log.info("two")
            self.clock.advance(1)
            self.assertEqual(self.file.failures, 2)
        self.assertEqual(self.read(), "")
        self.clock.advance(1)
        self.assertEqual(self.texts(), ["one", "two"])
        self.assertEqual(self.file.lost, 0)

    def test_stopping_tries_a_last_time(self):
        self.file.start()
        with mock.patch.object(logfile.os, "write", side_effect=OSError(errno.EIO, "")):
            self.log.info("one")
            self.clock.advance(0)
        self.file.stop()
        self.assertEqual(self.texts(), ["one"])
        self.clock.advance(1)
        self.assertEqual(self.texts(), ["one"])

    def test_what_does_not_fit_is_counted_and_said(self):
        self.patch(logfile, "_log", Logger(namespace="control", observer=self.file))
        full = OSError(errno.ENOSPC, "No space left on device")
        with mock.patch.object(logfile.os, "write", side_effect=full):
            for number in range(2000):
                self.log.info("{number} {x}", number=number, x="x" * 1000)
        self.clock.advance(1)
        texts = self.texts()
        self.assertEqual(
            texts[-1],
            f"warning: {2000 - len(texts) + 1} log lines were lost: No space left on device",
        )
        self.assertEqual(self.file.lost, 2000 - len(texts) + 1)
        self.assertTrue(texts[0].startswith("0 x"))

    def test_half_a_line_is_completed(self):
        self.file.start()
        self.log.info("{x}", x="one")
        with mock.patch.object(logfile.os, "write", side_effect=[10, OSError(28, "")]):
            self.clock.advance(0)
        self.assertEqual(self.file.failures, 1)
        self.clock.advance(1)
        self.assertTrue(self.read().endswith(": one\n"))
        self.assertFalse(self.read().startswith("20"))

    def test_standard_output_is_written_by_descriptor(self):
        file = self.made(file="-")
        file.open()
        with mock.patch.object(logfile.os, "write", side_effect=lambda fd, o: len(o)) as write:
            Logger(namespace="x", observer=file).info("x")
        self.assertEqual(write.call_args[0][0], 1)
        with mock.patch.object(logfile.os, "fchown") as fchown:
            file.give_to(1, 2)
            self.file.give_to(1, 2)
        self.assertEqual(fchown.call_args_list, [mock.call(self.file._fd, 1, 2)])
        file.close()
        os.fstat(1)

    def test_colour(self):
        self.file.reconfigure(self.settings(colour=LogColour.YES))
        self.log.info("x")
        self.assertTrue(self.read().startswith("\x1b[2m"))
        master, slave = os.openpty()
        self.addCleanup(os.close, master)
        self.addCleanup(os.close, slave)
        terminal = self.made(file=os.ttyname(slave))
        terminal.open()
        Logger(namespace="x", observer=terminal).info("x")
        terminal.close()
        self.assertTrue(os.read(master, 1000).startswith(b"\x1b[2m"))
