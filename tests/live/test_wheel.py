"""Proves that an installed wheel is whole: the plugin, the command, a session.

Builds the wheel from a copy of the checkout, installs it with everything it needs into
an empty environment (from the package index that pip is set up for), and works with
nothing but that: no checkout in sight.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from tests.live import REQUIRED

from .harness import ROOT, Gateway, LiveTestCase, shared, until
from .load import unique_message
from .sinks import Maildir
from .wire import send_message

SPAM = b"Subject: x\r\n\r\nXJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
SOURCES = ("mailsecure", "twisted", "setup.cfg", "setup.py", "pyproject.toml", "README.rst")


class Installed:
    """A wheel, and an environment that holds it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mailsecure-wheel-"))
        #: Why there is none, if the package index cannot be reached.
        self.lack = ""
        try:
            self.wheel = self._build()
            self._install()
        except subprocess.CalledProcessError as error:
            if "index" not in error.stderr and "No matching distribution" not in error.stderr:
                self.close()
                raise AssertionError(error.stderr) from None
            self.lack = f"no package index: {error.stderr.splitlines()[-1]}"

    def _build(self) -> Path:
        source = self.folder / "source"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / name, source / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source / name)
        self._pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", self.folder, source)
        (wheel,) = self.folder.glob("mailsecure-*.whl")
        shutil.rmtree(source)
        return wheel

    def _install(self) -> None:
        subprocess.run([sys.executable, "-m", "venv", self.folder / "venv"], check=True)
        self._pip(self.bin / "python", "install", self.wheel)

    def _pip(self, python: Path | str, *arguments: Path | str) -> None:
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run(
            [python, "-m", "pip", *arguments, *quiet],
            check=True,
            capture_output=True,
            text=True,
            timeout=600,
        )

    @property
    def bin(self) -> Path:
        """Where its commands are."""
        return self.folder / "venv" / "bin"

    def close(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class InstalledGateway(Gateway):
    """A daemon that knows of no checkout."""

    def __init__(self, installed: Installed, **options: Any) -> None:
        self.installed = installed
        super().__init__(**options)

    def launch(self, *arguments: str) -> None:
        """Start twistd of the environment, from an empty directory."""
        twistd = [self.installed.bin / "twistd", "-n", "--pidfile=", "mailsecure", "-c", self.ini]
        away = ["env", "-u", "PYTHONPATH", f"--chdir={self.directory}"]
        super().launch(*away, *(str(word) for word in twistd))


class Wheel(LiveTestCase):
    """What pip installs."""

    def setUp(self) -> None:
        """Have it installed, once for all tests."""
        super().setUp()

        def make() -> tuple[Installed, object]:
            installed = Installed()
            return installed, installed.close

        self.installed: Installed = shared("wheel", make)  # type: ignore[arg-type]
        if self.installed.lack and not REQUIRED:
            self.skipTest(self.installed.lack)
        self.assertEqual(self.installed.lack, "")

    def run_installed(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment, from a directory with nothing in it."""
        return subprocess.run(
            [self.installed.bin / name, *arguments],
            cwd=self.temporary_directory(),
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_contents(self) -> None:
        """It holds our package and our plugin, and nothing of Twisted's or the tests'."""
        names = [
            name
            for name in zipfile.ZipFile(self.installed.wheel).namelist()
            if ".dist-info/" not in name
        ]
        self.assertIn("mailsecure/py.typed", names)
        ours = {
            str(path.relative_to(ROOT))
            for path in (ROOT / "mailsecure").rglob("*.py")
            if path.is_file()
        }
        self.assertEqual(
            {name for name in names if name.endswith(".py")},
            ours | {f"twisted/plugins/mailsecure_{name}.py" for name in ("checks", "plugin")},
        )

    def test_twistd(self) -> None:
        """twistd knows mailsecure, and still knows its own services."""
        done = self.run_installed("twistd", "--help")
        self.assertRegex(done.stdout, r"mailsecure +An integrated SMTP security gateway")
        self.assertRegex(done.stdout, r"web +A general-purpose web server")
        done = self.run_installed("twistd", "mailsecure", "--help")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("--config=", done.stdout)

    def test_command(self) -> None:
        """The command is there and says which version it is."""
        done = self.run_installed("mailsecure", "--version")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(self.installed.wheel.name.split("-")[1], done.stdout)

    def test_session(self) -> None:
        """The daemon of the wheel takes a message and delivers it."""
        node = InstalledGateway(self.installed, start=False, domains="example.com = maildir:mail")
        self.addCleanup(node.close)
        self.told(node)
        node.start()
        unique, content = unique_message()
        self.assertTrue(send_message(node.address, content, "me@example.com").startswith("250"))
        node.line("status=sent")
        (message,) = Maildir(node.directory / "mail").messages()
        self.assertIn(unique.encode(), message)
        packages = self.installed.folder / "venv/lib"
        maps = Path(f"/proc/{node.pid}/maps").read_text()
        self.assertIn(str(packages), maps)
        self.assertNotIn(str(ROOT / ".venv"), maps)

    def test_judging(self) -> None:
        """Its checks are found, its processes start, its history has its tables."""
        node = InstalledGateway(
            self.installed,
            start=False,
            domains="example.com = maildir:mail",
            scan="checks = authentication attachments markers greylist",
            greylist="pass_networks = 127.0.0.0/8",
            relay="networks = 127.0.0.0/8",
            records="enabled = yes",
        )
        self.addCleanup(node.close)
        self.told(node)
        node.start()
        reply = send_message(node.address, SPAM, "me@example.com")
        self.assertEqual(reply[:3], "554", reply)
        until(lambda: node.status()["history"]["written"], "the history", 10, node.tail)
