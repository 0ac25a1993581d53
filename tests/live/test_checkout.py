"""Proves that a checkout, installed as ``make demo`` does it, works from any directory."""

from __future__ import annotations

import os
import signal
import subprocess

from .harness import BIN, LiveTestCase, until
from .load import unique_message
from .sinks import Maildir
from .wire import send_message


class Checkout(LiveTestCase):
    """The editable installation in this environment; no PYTHONPATH helps it."""

    def test_plugin(self) -> None:
        """twistd finds the plugin."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [BIN / "twistd", "mailsecure", "--help"],
            cwd=self.temporary_directory(),
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--config", done.stdout)

    def test_session(self) -> None:
        """It takes a message and delivers it."""
        node = self.gateway(start=False, domains="example.com = maildir:mail")
        away = ("env", "-u", "PYTHONPATH", f"--chdir={node.directory}", str(BIN / "twistd"))
        node.launch(*away, "-n", "--pidfile=", "mailsecure", "-c", str(node.ini))
        until(node.greets, "the greeting", 20, node.tail)
        unique, content = unique_message()
        self.assertTrue(send_message(node.address, content, "a@example.com").startswith("250 "))
        box = Maildir(node.directory / "mail")
        until(box.messages, "the message in the Maildir", 15, node.tail)
        self.assertIn(unique.encode(), box.messages()[0])
        self.assertIn(node.stop(), (0, -signal.SIGTERM))
