"""A PostgreSQL of our own, in a temporary directory, for tests.

:class:`Postgres` makes a cluster with Debian's programs and runs it on a free loopback port,
as ``nobody`` where we are root, because PostgreSQL refuses to be that.  It can be stopped,
started, frozen and thawed; each test takes a new and empty database of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import psycopg

from .harness import free_port, until

__all__ = ["LACK", "Postgres", "running"]

_PLACES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
#: What is missing here, in plain words, or "".
LACK = "" if _PLACES else "PostgreSQL is not installed"
_USER = "history"
_SETTINGS = {"fsync": "off", "listen_addresses": "127.0.0.1", "max_connections": "30"}


def running() -> tuple[Postgres, Callable[[], None]]:
    """Return a server and what ends it, for :func:`.harness.shared`."""
    server = Postgres()
    return server, server.close


class Postgres:
    """A server; it is started at once and gone at the end of the tests."""

    def __init__(self) -> None:
        assert not LACK, LACK
        self._programs = _PLACES[-1].parent
        self._directory = Path(tempfile.mkdtemp(prefix="mailsecure-postgres-"))
        self._data = self._directory / "data"
        self.port = free_port()
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None
        self._directory.chmod(0o755)
        self._prefix: list[str] = []
        if os.geteuid() == 0:
            self._prefix = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            shutil.chown(self._directory, "nobody", "nogroup")
        initdb = [self._programs / "initdb", "-D", self._data, "-U", _USER, "-A", "trust"]
        options = ["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]
        self._run(*initdb, *options)
        self.start()

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            [*self._prefix, *command], cwd="/", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def freeze(self) -> None:
        """Stop all its processes, connections included, where they are."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            parent = self._process.pid
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
            for pid in (parent, *map(int, children)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def start(self) -> None:
        """Start it, if it does not run, and wait until it answers."""
        if self._process is not None:
            return
        settings = _SETTINGS | {"unix_socket_directories": str(self._directory)}
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        command = [self._programs / "postgres", "-D", self._data, "-p", str(self.port), *options]
        self._process = subprocess.Popen(
            [*self._prefix, *command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(self._answers, "PostgreSQL answers", 60)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it; connections break."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGINT)
            self._process.wait(20)
            self._process = None

    def close(self) -> None:
        """Stop it and remove everything."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def url(self, database: str) -> str:
        """Return where ``database`` is, as the ini says it."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def new(self, *statements: str) -> str:
        """Return the URL of a new database; run ``statements`` in it."""
        name = f"records{next(self._numbers)}"
        self.run("postgres", f"CREATE DATABASE {name}")
        self.run(name, *statements)
        return self.url(name)

    def run(self, database: str, *statements: str) -> None:
        """Run statements."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())
