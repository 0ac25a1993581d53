"""Real scanners for tests: Debian's clamd, rspamd, spamd, c-icap and opendkim, without internet.

Each is a context manager that starts its daemon in a directory of its own, on a free loopback
port or a socket in that directory, and waits until it answers::

    with Clamd() as clamd:
        clamd.address                    # "unix:/tmp/…/clamd.sock", as the ini has it
        clamd.stop(); clamd.cont()       # SIGSTOP and SIGCONT, to all its processes
        clamd.kill(); clamd.restart()

No database, rule or list is fetched: clamd knows EICAR by its sum and nothing else, rspamd
has no modules but GTUBE and one rule in Lua, spamd runs with ``-L``.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.live.harness import free_port, program, until

__all__ = [
    "CIcap",
    "Clamd",
    "GreedyLibmilter",
    "Libmilter",
    "OpenDkim",
    "Rspamd",
    "Scanner",
    "Spamd",
]

#: MD5 and length of the file of EICAR (and of no other).
EICAR_SUM = "44d88612fea8a8f36de82e1278abb02f:68:Eicar-Test"


class Scanner:
    """A daemon; subclasses say how it is started and asked whether it is there."""

    #: Who it is run as, where the test is root.
    user = ""
    patience = 60.0

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mailsecure-scanner-"))
        self.directory.chmod(0o755)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)
        self.configure()
        if self.user and os.geteuid() == 0:
            shutil.chown(self.directory, self.user)
        self.restart()

    @property
    def address(self) -> str:
        """Where it listens, as the ini has it."""
        return f"tcp:127.0.0.1:{self.port}"

    def configure(self) -> None:
        """Write what it reads."""

    def command(self) -> list[str]:
        """Return what starts it in the foreground."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Say whether it is there."""
        raise NotImplementedError

    def restart(self) -> None:
        """Start it (again) and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._ready, f"{type(self).__name__} answers", self.patience, self.tail)

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"{type(self).__name__} ended at once\n{self.tail()}")
        with suppress(OSError):
            return self.answers()
        return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """Hang (SIGSTOP); returns when every thread does.

        Until the one that gets the signal has run, the others go on answering: on a busy
        machine, long enough for a verdict.
        """
        self.signal(signal.SIGSTOP)
        until(self._hangs, f"{type(self).__name__} hangs", self.patience, self.tail)

    def _hangs(self) -> bool:
        assert self.process is not None
        states = []
        for stat in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
            with suppress(OSError):
                # "1 (name) S 0 1 …": state, parent, process group.
                state, _, group, *_ = stat.read_text("latin-1").rpartition(")")[2].split()
                if int(group) == self.process.pid:
                    states.append(state)
        return bool(states) and set(states) <= {"T", "Z"}

    def cont(self) -> None:
        """Go on (SIGCONT)."""
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End at once (SIGKILL)."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait(10)

    def close(self) -> None:
        """End in any case, and remove the directory."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        atexit.unregister(self.close)

    def tail(self) -> str:
        """Return what it said last."""
        with suppress(OSError):
            return "\n".join((self.directory / "log").read_text("latin-1").split("\n")[-20:])
        return ""

    def ask(self, question: bytes, size: int = 4096) -> bytes:
        """Return the first octets that it answers on its port."""
        with socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.sendall(question)
            connection.settimeout(2)
            return connection.recv(size)

    def __enter__(self) -> Self:
        """Nothing to do: it runs."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self.close()


class Clamd(Scanner):
    """clamd on a Unix socket (``address``) and on TCP (``tcp``); takes streams up to 2M."""

    @property
    def address(self) -> str:
        """The Unix socket."""
        return f"unix:{self.directory}/clamd.sock"

    @property
    def tcp(self) -> str:
        """The port."""
        return f"tcp:127.0.0.1:{self.port}"

    def configure(self) -> None:
        """A database with one sum."""
        database = self.directory / "db"
        database.mkdir()
        (database / "t.hdb").write_text(EICAR_SUM + "\n")
        (self.directory / "clamd.conf").write_text(
            f"DatabaseDirectory {database}\nTemporaryDirectory {self.directory}\n"
            f"LocalSocket {self.directory}/clamd.sock\n"
            f"TCPSocket {self.port}\nTCPAddr 127.0.0.1\nForeground yes\nFixStaleSocket yes\n"
            "StreamMaxLength 2M\nAlertEncrypted yes\nAlertExceedsMax yes\nMaxFileSize 1M\n"
        )

    def command(self) -> list[str]:
        """In the foreground."""
        return [program("clamd"), "-c", str(self.directory / "clamd.conf")]

    def answers(self) -> bool:
        """PING."""
        return self.ask(b"zPING\0").startswith(b"PONG")


class Rspamd(Scanner):
    """Rspamd's normal worker (``url``) and its proxy as a milter (``milter``).

    A field ``X-Bad`` scores 7 (action add header), asks for its removal, and adds fields;
    ``X-Soft`` is a soft reject.
    """

    user = "_rspamd"

    @property
    def url(self) -> str:
        """The normal worker, as the ini has it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def milter(self) -> str:
        """The proxy."""
        return f"tcp:127.0.0.1:{self.proxy}"

    def configure(self) -> None:
        """No modules, no DNS, no list of suffixes to compile, one rule."""
        here = self.directory
        self.proxy = free_port()
        (here / "tld").write_text("test\ncom\norg\n")
        (here / "rule.lua").write_text(
            'rspamd_config:register_symbol({name = "X_BAD", score = 7, callback = function(task)\n'
            '  if not task:get_header("X-Bad") then return false end\n'
            '  task:set_milter_reply({remove_headers = {["X-Bad"] = 0}, add_headers = {\n'
            '    ["X-Found"] = "bad", ["X-Two"] = {{value = "a\\r\\n\\tb", order = 1}, "c"}}})\n'
            "  return true\n"
            "end})\n"
            'rspamd_config:register_symbol({name = "X_SOFT", type = "prefilter",\n'
            "  callback = function(task)\n"
            '  if not task:get_header("X-Soft") then return end\n'
            '  task:set_pre_result("soft reject", "Not now")\n'
            "end})\n"
        )
        (here / "rspamd.conf").write_text(
            f'options {{ pidfile = "{here}/pid"; control_socket = "{here}/control"; filters = "";\n'
            f'  url_tld = "{here}/tld"; cache_file = "{here}/cache"; tempdir = "{here}";\n'
            '  history_file = ""; dns { nameserver = ["127.0.0.1:1:1"]; timeout = 0.1s;\n'
            "    retransmits = 1; } local_addrs = []; }\n"
            f'logging {{ type = "file"; filename = "{here}/rspamd.log"; level = "info"; }}\n'
            "actions { reject = 15; add_header = 6; greylist = 4; }\n"
            f'lua = "{here}/rule.lua";\n'
            f'worker "normal" {{ bind_socket = "127.0.0.1:{self.port}"; count = 1; }}\n'
            f'worker "rspamd_proxy" {{ bind_socket = "127.0.0.1:{self.proxy}"; count = 1;\n'
            "  milter = yes; timeout = 10s; max_retries = 1;\n"
            f'  upstream "local" {{ default = yes; hosts = "127.0.0.1:{self.port}"; }} }}\n'
        )

    def command(self) -> list[str]:
        """In the foreground."""
        whom = ["-u", self.user, "-g", self.user] if os.geteuid() == 0 else []
        return [program("rspamd"), "-i", "-f", *whom, "-c", str(self.directory / "rspamd.conf")]

    def answers(self) -> bool:
        """A ping, and somebody at the proxy's port."""
        with socket.create_connection(("127.0.0.1", self.proxy), 2):
            return b"pong" in self.ask(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")


class Spamd(Scanner):
    """spamd, local tests only."""

    def command(self) -> list[str]:
        """In the foreground, with two children."""
        return [
            *(program("spamd"), "-L", "-x", "--nouser-config", "-i", "127.0.0.1"),
            *("-p", str(self.port), "--min-children=1", "--max-children=2", "-s", "stderr"),
            *("-H", str(self.directory)),
        ]

    def answers(self) -> bool:
        """PING."""
        return b"PONG" in self.ask(b"PING SPAMC/1.5\r\n\r\n")


class CIcap(Scanner):
    """c-icap with its virus_scan service, which asks ``clamd``; ``url`` is the service."""

    def __init__(self, clamd: Clamd) -> None:
        self._clamd = clamd
        super().__init__()

    @property
    def url(self) -> str:
        """The service, as the ini has it."""
        return f"icap://127.0.0.1:{self.port}/virus_scan"

    @property
    def echo(self) -> str:
        """A service that finds nothing."""
        return f"icap://127.0.0.1:{self.port}/echo"

    def kill(self) -> None:
        """End in good order if it will: else its locks stay in /tmp."""
        if self.process is not None and self.process.poll() is None:
            self.cont()
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        super().kill()

    def configure(self) -> None:
        """virus_scan and echo."""
        here = self.directory
        modules = next(Path("/usr/lib").glob("*/c_icap"), "")
        (here / "virus_scan.conf").write_text("")
        (here / "c-icap.conf").write_text(
            f"PidFile {here}/pid\nCommandsSocket {here}/control\nPort 127.0.0.1:{self.port}\n"
            "StartServers 1\nMaxServers 2\nMinSpareThreads 2\nMaxSpareThreads 8\n"
            "ThreadsPerChild 8\nLoadMagicFile /etc/c-icap/c-icap.magic\n"
            f"TmpDir {here}\nServerLog {here}/server.log\nAccessLog {here}/access.log\n"
            f"ModulesDir {modules}\nServicesDir {modules}\n"
            "TemplateDir /usr/share/c_icap/templates/\nTemplateDefaultLanguage en\n"
            "Module common clamd_mod.so\n"
            f"clamd_mod.ClamdSocket {self._clamd.directory}/clamd.sock\n"
            "Service echo srv_echo.so\nService virus_scan virus_scan.so\n"
            "virus_scan.DefaultEngine clamd\n"
            "virus_scan.ScanFileTypes TEXT DATA EXECUTABLE ARCHIVE GIF JPEG MSOFFICE\n"
            "virus_scan.SendPercentData 5\nvirus_scan.StartSendPercentDataAfter 500K\n"
            "virus_scan.MaxObjectSize 5M\n"
        )

    def command(self) -> list[str]:
        """In the foreground."""
        return [program("c-icap"), "-N", "-f", str(self.directory / "c-icap.conf")]

    def answers(self) -> bool:
        """OPTIONS."""
        request = f"OPTIONS {self.url} ICAP/1.0\r\nHost: x\r\n\r\n"
        return b" 200 " in self.ask(request.encode())


class OpenDkim(Scanner):
    """opendkim on a port: verifies, with keys of a file instead of the DNS."""

    user = "opendkim"

    def configure(self) -> None:
        """Verify, and say so in Authentication-Results."""
        here = self.directory
        (here / "keys").write_text("")
        (here / "opendkim.conf").write_text(
            f"Mode v\nSocket inet:{self.port}@127.0.0.1\nBackground no\nSyslog no\n"
            f"PidFile {here}/pid\nAuthservID mx.test\nAlwaysAddARHeader yes\n"
            f"TemporaryDirectory {here}\nTestDNSData {here}/keys\n"
            + f"UserID {self.user}\n"
            * (os.geteuid() == 0)
        )

    def command(self) -> list[str]:
        """In the foreground."""
        return [program("opendkim"), "-f", "-x", str(self.directory / "opendkim.conf")]

    def answers(self) -> bool:
        """Somebody is there."""
        with socket.create_connection(("127.0.0.1", self.port), 2):
            return True


class Libmilter(Scanner):
    """A filter on sendmail's libmilter that does what a message asks for (:mod:`.libmilter`)."""

    #: SMFIF_*: add and change fields, quarantine.
    actions = 0x31

    def command(self) -> list[str]:
        """In the foreground."""
        module = "tests.live.libmilter"
        return [sys.executable, "-m", module, str(self.port), str(self.actions)]

    def answers(self) -> bool:
        """Somebody is there."""
        with socket.create_connection(("127.0.0.1", self.port), 2):
            return True

    def heard(self) -> list[tuple[str, list[str], dict[str, str]]]:
        """Return what it was told: the command, its words, the macros that it knew then."""
        lines = (self.directory / "log").read_text("utf-8").splitlines()
        return [tuple(json.loads(line)) for line in lines if line.startswith("[")]


class GreedyLibmilter(Libmilter):
    """One that must be allowed to replace the body."""

    actions = 0x33
