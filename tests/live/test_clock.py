"""The wall clock is set while the daemon runs: nobody notices.

libfaketime stands between the daemon and ``CLOCK_REALTIME`` alone; it reads how far to
lie from a file that the test rewrites.  That the lie reaches the daemon is seen in its
log's times.
"""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path

from tests.live import missing, needs

from .harness import Gateway, LiveTestCase
from .load import unique_message
from .sinks import Sink
from .wire import Wire, send_message

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
HOUR = 3600


@needs(programs=() if LIBRARIES else ("libfaketime",))
class SteppedClock(LiveTestCase):
    """An hour forward and back."""

    def setUp(self) -> None:
        """Begin with a daemon whose wall clock is ours, and a next hop."""
        super().setUp()
        if missing(programs=() if LIBRARIES else ("libfaketime",)):
            self.fail("libfaketime is not installed")
        self.sink = Sink()
        self.addCleanup(self.sink.close)
        self.lie = self.temporary_directory() / "lie"
        self.step(0)

    def step(self, seconds: int) -> None:
        """Set the daemon's wall clock ``seconds`` beside the true time."""
        new = self.lie.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.lie)

    def node(self, **sections: str) -> Gateway:
        """Start the daemon under the lie."""
        return self.gateway(
            domains=f"example.com = {self.sink.route}",
            environment={
                "LD_PRELOAD": str(LIBRARIES[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self.lie),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_DONT_RESET": "1",
                # With these it holds up threads for long.
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                "NO_FAKE_STAT": "1",
            },
            **sections,
        )

    def lied(self, node: Gateway, line: str) -> float:
        """Return how far the stamp of a log line is from the true time, in seconds."""
        match = re.match(r"\d{4}-\d\d-\d\dT\S+", line)
        assert match is not None, line
        return datetime.fromisoformat(match.group()).timestamp() - time.time()

    def test_sessions(self) -> None:
        """A session within DATA and an idle one go on, whichever way the clock goes."""
        node = self.node(
            smtp="command_timeout = 20s\ndata_timeout = 20s\ntransaction_timeout = 30s\n"
            "session_timeout = 60s"
        )
        for hours in (1, -1, 0):
            with Wire(node.address) as busy, Wire(node.address) as idle:
                unique, content = unique_message()
                idle.hello()
                busy.hello()
                for command in ("MAIL FROM:<s@client.test>", "RCPT TO:<a@example.com>", "DATA"):
                    busy.command(command)
                busy.send(content[:50])
                self.step(hours * HOUR)
                time.sleep(1.2)
                busy.send(content[50:] + b".\r\n")
                self.assertTrue(busy.reply().startswith("250 "))
                self.assertTrue(idle.command("NOOP").startswith("250 "))
            line = node.line(rf"(?s)^.*{self.message_of(node, unique)}.*status=sent.*").group()
            self.assertAlmostEqual(self.lied(node, line), hours * HOUR, delta=60)

    def message_of(self, node: Gateway, unique: str) -> str:
        """Return the id under which the message came to the next hop."""
        for taken in self.sink.wait(1):
            if unique.encode() in taken.content:
                self.sink.clear()
                found = re.search(rb"\bid (\w{13})", taken.content)
                assert found is not None
                return found[1].decode()
        raise AssertionError(f"{unique} did not arrive")

    def test_timeouts(self) -> None:
        """A deadline neither fires early when the clock leaps nor stalls when it falls back."""
        node = self.node(smtp="command_timeout = 3s")
        for seconds in (HOUR, -HOUR):
            with Wire(node.address) as wire:
                wire.hello()
                began = time.monotonic()
                self.step(seconds)
                self.assertTrue(wire.reply().startswith("421 "))
                took = time.monotonic() - began
            self.assertGreater(took, 2.5)
            self.assertLess(took, 6)
            self.step(0)

    def test_watch_of_the_queue(self) -> None:
        """A clock that is set back does not keep new mail from leaving."""
        node = self.node()
        for seconds in (-HOUR, HOUR, 0):
            self.step(seconds)
            send_message(node.address, unique_message()[1], "a@example.com")
            self.sink.wait(1)
            self.sink.clear()
        self.assertEqual(node.matching(r"\]: (error|critical): "), [])

    def test_retries(self) -> None:
        """What waits for its next attempt does not wait an hour longer."""
        node = self.node(delivery="retry = 2s")
        for seconds in (-HOUR, HOUR):
            self.step(0)
            self.sink.answers["dot"] = "451 4.3.0 later"
            mark = len(node.lines)
            unique, content = unique_message()
            send_message(node.address, content, "a@example.com")
            node.line("status=deferred", since=mark)
            self.step(seconds)
            self.sink.answers.clear()
            self.assertIn(unique.encode(), self.sink.wait(1)[0].content)
            self.sink.clear()
