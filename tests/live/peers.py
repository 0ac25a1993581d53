"""Postfix and Exim as senders: each in a directory of its own, relaying through us.

:class:`Postfix` is started with its own configuration and queue (as root), so that a
Postfix of the machine is left alone.  :class:`Exim` needs no daemon: it is called with a
message and delivers at once.  Its Debian package conflicts with Postfix's, so the binary
may lie anywhere (``MAILSECURE_EXIM``); the user that it was built for is lent to it in a
mount namespace.

Both keep the log that a test reads: a relayed message's line has our reply to the final
dot, word for word.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .harness import free_port, until

__all__ = ["Exim", "Postfix", "exim_binary"]

_MAIN = """\
compatibility_level = 3.6
myhostname = postfix.test
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log/maillog
maillog_file_prefixes = /tmp, {directory}
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
local_recipient_maps =
alias_maps =
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_mynetworks, reject
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:{next_hop}
minimal_backoff_time = 2s
maximal_backoff_time = 4s
queue_run_delay = 2s
in_flow_delay = 0
{extra}
"""


class Postfix:
    """One Postfix whose mail all goes to a port of this machine; needs root."""

    def __init__(self, next_hop: int, extra: str = "") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mailsecure-postfix-"))
        self.directory.chmod(0o755)
        self.port = free_port()
        for name in ("queue", "data", "log", "conf"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        conf = self.directory / "conf"
        (conf / "main.cf").write_text(
            _MAIN.format(directory=self.directory, next_hop=next_hop, extra=extra)
        )
        (conf / "master.cf").write_text(_master(self.port))
        self.log = self.directory / "log" / "maillog"

    def start(self) -> None:
        """Start it and wait until it greets."""
        self._postfix("start")
        until(self.log.exists, "Postfix's log", 20)

    def stop(self) -> None:
        """Stop it and remove its directory."""
        self._postfix("stop", check=False)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._postfix("status", check=False):
                break
            time.sleep(0.1)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _postfix(self, command: str, check: bool = True) -> int:
        done = subprocess.run(
            ["postfix", "-c", str(self.directory / "conf"), command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"postfix {command}: {done.stdout}{done.stderr}{self.tail()}")
        return done.returncode

    @property
    def address(self) -> tuple[str, int]:
        """Where it takes mail."""
        return "127.0.0.1", self.port

    def tail(self) -> str:
        """Return its log."""
        return self.log.read_text() if self.log.exists() else "(no log)"

    def flush(self) -> None:
        """Have it try again what it keeps."""
        self._postfix("flush")


def _master(port: int) -> str:
    """Return Postfix's own master.cf without chroots and with one listener."""
    lines = []
    for line in Path("/usr/share/postfix/master.cf.dist").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if line[0].isspace():
            lines.append(line)
            continue
        words = line.split()
        if words[0] == "smtp" and words[1] == "inet":
            words[0] = f"127.0.0.1:{port}"
        words[4] = "n"
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"


def exim_binary() -> str:
    """Return where Exim is, "" if it is nowhere."""
    return os.environ.get("MAILSECURE_EXIM", "") or shutil.which("exim4") or ""


_EXIM = """\
exim_path = {binary}
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
primary_hostname = exim.test
host_lookup =
keep_environment =
add_environment =
acl_smtp_rcpt = ok
acl_smtp_data = ok
smtp_accept_max_per_connection = 1000

begin acl
ok:
  accept

begin routers
relay:
  driver = manualroute
  domains = *
  transport = out
  route_list = * 127.0.0.1::{next_hop}
  self = send

begin transports
out:
  driver = smtp
  hosts_try_dane =
  dnssec_request_domains =
  hosts_try_chunking = {chunking}
  connection_max_messages = 10

begin retry
* * F,1h,1m
"""

#: Debian's Exim looks its own user up by name, and refuses to live without.
_USER = 65_533
_LEND_USER = 'mount --bind {0}/passwd /etc/passwd && mount --bind {0}/group /etc/group && exec "$@"'


class Exim:
    """Exim as a sender whose mail all goes to a port of this machine; needs root."""

    def __init__(self, next_hop: int, chunking: bool = False) -> None:
        self.binary = exim_binary()
        self.directory = Path(tempfile.mkdtemp(prefix="mailsecure-exim-"))
        self.directory.chmod(0o755)
        for name in ("spool", "log"):
            (self.directory / name).mkdir()
            os.chown(self.directory / name, _USER, _USER)
        for name, line in (
            ("passwd", f"Debian-exim:x:{_USER}:{_USER}::/nonexistent:/usr/sbin/nologin\n"),
            ("group", f"Debian-exim:x:{_USER}:\n"),
        ):
            others = Path("/etc", name).read_text().splitlines(keepends=True)
            kept = [each for each in others if not each.startswith("Debian-exim:")]
            (self.directory / name).write_text("".join(kept) + line)
        self.conf = self.directory / "exim.conf"
        self.conf.write_text(
            _EXIM.format(
                binary=self.binary,
                directory=self.directory,
                next_hop=next_hop,
                chunking="*" if chunking else "",
            )
        )

    def send(self, content: bytes, *recipients: str, sender: str = "s@exim.test") -> str:
        """Send one message and wait for the delivery; returns what Exim told of it."""
        exim = [self.binary, "-C", str(self.conf), "-odf", "-v", "-f", sender, *recipients]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", _LEND_USER.format(self.directory), "sh", *exim],
            input=content.replace(b"\r\n", b"\n"),
            capture_output=True,
            timeout=60,
            check=False,
        )
        return (done.stdout + done.stderr).decode("utf-8", "replace")

    def log(self) -> str:
        """Return its main log."""
        log = self.directory / "log" / "mainlog"
        return log.read_text() if log.exists() else "(no log)"

    def close(self) -> None:
        """Remove its directory."""
        shutil.rmtree(self.directory, ignore_errors=True)
