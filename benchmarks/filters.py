"""The servers that judge what they relay: ours, and Postfix with what it is given for that.

Each runs with its filters as one tree of processes (a shell that waits for all of them), so
that starting fresh, ending and the CPU are those of all together.  They listen at
:data:`.signed.CLIENT`, ask the DNS of /etc/resolv.conf (see :func:`.lan.alone`) and relay
to the sink.  The client is a stranger to all of them.

Postfix reaches its filters through Unix sockets: over TCP each message waits some 40 ms for
an acknowledgement that is held back, since libmilter's and Postfix's small writes meet
Nagle's algorithm.
"""

from __future__ import annotations

import os
import shlex
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

from .peers import Ours, Postfix, Server
from .signed import CLIENT, RECIPIENT

__all__ = [
    "OursAuth",
    "OursPlain",
    "OursRspamd",
    "OursWithoutRecords",
    "PostfixAuth",
    "PostfixMilter",
    "PostfixPlain",
    "PostfixPolicy",
    "PostfixRspamd",
    "PostfixRspamdSelfScan",
    "missing_of",
]

NAME_SERVER = "127.0.0.1"
#: Not one of those that the load's own connections may have.
PORT = 25
RSPAMD_PORT = 11333
COMPILED = "(hs_helper) rspamd_rs_compile_cb: compiled"
SETTLE = timedelta(seconds=4)
#: What Rspamd is not asked: lists and maps on the internet, and what keeps its notes in Redis.
RSPAMD_OFF = """
antivirus arc_signing asn bimi clickhouse clustering dcc dkim_signing elastic fuzzy_check greylist
history_redis known_senders metadata_exporter metric_exporter mx_check neural p0f phishing
ratelimit rbl replies reputation spamassassin surbl url_redirector whitelist
""".split()  # noqa: SIM905
CPUS = os.cpu_count() or 1
PATIENCE = 60.0


def missing_of(program: str, package: str) -> str:
    """Say that a program is missing, or ""."""
    return "" if shutil.which(program, path="/usr/sbin:/usr/bin") else f"apt-get install {package}"


def together(*commands: list[str]) -> list[str]:
    """Return one command that runs several side by side, and ends after all of them."""
    script = "".join(f"{shlex.join(words)} & " for words in commands)
    # A signal ends the first wait, not the shell.
    return ["/bin/sh", "-c", f"trap : TERM; {script}wait; wait"]


class Filtered(Server):
    """A server that is there when its filters are."""

    host = CLIENT
    #: What must be there to be a fair peer: words that the delivered mail contains.
    proof: tuple[str, ...] = ()

    def __init__(self, directory: Path, _: int, sink: int, hold: bool) -> None:
        super().__init__(directory, PORT, sink, hold)

    def __enter__(self) -> Server:
        super().__enter__()
        deadline = time.monotonic() + PATIENCE
        while not self.ready():
            if time.monotonic() > deadline:
                said = (self.directory / "output").read_text(errors="replace")[-2000:]
                self.__exit__()
                raise SystemExit(f"{self.name}: its filters do not start\n{said}")
            time.sleep(0.05)
        return self

    def ready(self) -> bool:
        """Say whether the filters are there."""
        return True


class OpenDkim:
    """Debian's OpenDKIM as it is, but for its socket, and for whom it asks.

    It checks what comes (Mode v).  Its resolver, libunbound, keeps answers.
    """

    @staticmethod
    def missing() -> str:
        """Debian's package."""
        return missing_of("opendkim", "opendkim")

    @staticmethod
    def socket(directory: Path) -> Path:
        """Return where it listens."""
        return directory / "opendkim" / "socket"

    @staticmethod
    def ready(directory: Path) -> bool:
        """Say whether it listens."""
        return OpenDkim.socket(directory).exists()

    @staticmethod
    def command(directory: Path) -> list[str]:
        """Write its configuration; return the command that runs in the foreground."""
        home = OpenDkim.socket(directory).parent
        home.mkdir()
        shutil.chown(home, "opendkim")
        path = directory / "opendkim.conf"
        path.write_text(
            "Syslog yes\nSyslogSuccess yes\nCanonicalization relaxed/simple\n"
            "OversignHeaders From\nUserID opendkim\nUMask 000\nMode v\n"
            f"Socket local:{OpenDkim.socket(directory)}\nNameservers {NAME_SERVER}\n"
            "InternalHosts 192.0.2.1\n"
        )
        return ["/usr/sbin/opendkim", "-f", "-x", str(path)]


class Rspamd:
    """Debian's Rspamd as it is, without what needs the internet or Redis.

    SPF, DKIM, ARC, DMARC, types and names of attachments, and its rules all work.
    """

    @staticmethod
    def missing() -> str:
        """Debian's package."""
        return missing_of("rspamd", "rspamd")

    @staticmethod
    def socket(directory: Path) -> Path:
        """Return where its proxy listens."""
        return directory / "rspamd" / "run" / "milter"

    @staticmethod
    def ready(directory: Path) -> bool:
        """Say whether all have their compiled expressions: they are told a second later."""
        log = directory / "rspamd" / "log" / "rspamd.log"
        for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
            if COMPILED in line:
                # The first two words are the time.
                return datetime.now() - datetime.fromisoformat(line[:19]) > SETTLE
        return False

    @staticmethod
    def command(directory: Path, proxy: str = "") -> list[str]:
        """Write its configuration; return the command that runs in the foreground."""
        home = directory / "rspamd"
        local = home / "etc" / "local.d"
        local.mkdir(parents=True)
        # What it has compiled it finds again in the next round: that takes a quarter of a minute.
        kept = directory.parent / "rspamd"
        for folder in (kept, home / "run", home / "log"):
            folder.mkdir(exist_ok=True)
            shutil.chown(folder, "_rspamd", "_rspamd")
        files = {
            "options.inc": f'dns {{ nameserver = ["{NAME_SERVER}:53"]; }}\n',
            "worker-normal.inc": f'bind_socket = "127.0.0.1:{RSPAMD_PORT}";\ncount = {CPUS};\n',
            "worker-controller.inc": "enabled = false;\n",
            "worker-proxy.inc": (
                f'bind_socket = "{Rspamd.socket(directory)} mode=0666";\n'
                + (proxy or f'upstream "local" {{ hosts = "127.0.0.1:{RSPAMD_PORT}"; }}\n')
            ),
            "milter_headers.conf": 'use = ["x-spamd-result", "authentication-results"];\n',
        }
        files |= {f"{name}.conf": "enabled = false;\n" for name in RSPAMD_OFF}
        for name, text in files.items():
            (local / name).write_text(text)
        variables = {
            "LOCAL_CONFDIR": home / "etc",
            "DBDIR": kept,
            "RUNDIR": home / "run",
            "LOGDIR": home / "log",
        }
        words = ["/usr/bin/rspamd", "-i", "-f", "-u", "_rspamd", "-g", "_rspamd"]
        return words + [f"--var={name}={value}" for name, value in variables.items()]


class PostfixPlain(Filtered, Postfix):
    """Postfix, which judges nothing: what all others of Postfix begin with."""

    name = "postfix-plain"
    policy = ""
    proof: tuple[str, ...] = ()

    def milter(self) -> str:
        """Return where its milter listens, as Postfix writes it; "": there is none."""
        return ""

    def settings(self) -> dict[str, object]:
        """Relay for one domain; ask the policy service as its README has it."""
        found = super().settings()
        found |= {
            "inet_interfaces": CLIENT,
            "mynetworks": "192.0.2.1",
            "relay_domains": RECIPIENT.partition("@")[2],
            "relay_transport": f"smtp:[127.0.0.1]:{self.sink}",
            "smtpd_recipient_restrictions": f"reject_unauth_destination{self.policy}",
        }
        if self.policy:
            found["policyd-spf_time_limit"] = 3600
        if self.milter():
            found["smtpd_milters"] = self.milter()
        return found


class PostfixPolicy(PostfixPlain):
    """Postfix with postfix-policyd-spf-python: a process of it for each of smtpd's."""

    name = "postfix-policyd"
    policy = ", check_policy_service unix:private/policyd-spf"
    proof: tuple[str, ...] = ("Received-SPF: Pass",)
    program = "/usr/bin/policyd-spf"

    @classmethod
    def missing(cls) -> str:
        """Debian's packages."""
        return super().missing() or missing_of("policyd-spf", "postfix-policyd-spf-python")

    def services(self) -> list[str]:
        """Return the service, as its README has it; the configuration is Debian's.

        But it skips nobody: Debian's skips loopback.
        """
        path = self.directory / "policyd-spf.conf"
        path.write_text(
            "debugLevel = 1\nTestOnly = 1\nHELO_reject = Fail\nMail_From_reject = Fail\n"
            "PermError_reject = False\nTempError_Defer = False\nskip_addresses = 192.0.2.1/32\n"
        )
        words = [
            "policyd-spf unix - n n - 0 spawn",
            f" user=policyd-spf argv={self.program} {path}",
        ]
        return ["\n".join(words)]


class PostfixMilter(PostfixPlain):
    """Postfix with OpenDKIM."""

    name = "postfix-opendkim"
    proof: tuple[str, ...] = ("dkim=pass",)

    @classmethod
    def missing(cls) -> str:
        """Debian's packages."""
        return super().missing() or OpenDkim.missing()

    def prepare(self) -> list[str]:
        """Run both."""
        return together(OpenDkim.command(self.directory), super().prepare())

    def milter(self) -> str:
        """Return OpenDKIM's socket."""
        return f"unix:{OpenDkim.socket(self.directory)}"

    def ready(self) -> bool:
        """Say whether it is there."""
        return OpenDkim.ready(self.directory)


class PostfixAuth(PostfixMilter, PostfixPolicy):
    """Postfix with both: SPF and DKIM."""

    name = "postfix-auth"
    proof = PostfixPolicy.proof + PostfixMilter.proof


class PostfixRspamd(PostfixPlain):
    """Postfix with Rspamd's proxy as its milter, as shipped: the proxy asks a scanner."""

    name = "postfix-rspamd"
    proof = ("X-Spamd-Result:", "R_SPF_ALLOW", "R_DKIM_ALLOW", "DMARC_POLICY_ALLOW", "dkim=pass")
    proxy = ""

    @classmethod
    def missing(cls) -> str:
        """Debian's packages."""
        return super().missing() or Rspamd.missing()

    def prepare(self) -> list[str]:
        """Run both."""
        return together(Rspamd.command(self.directory, self.proxy), super().prepare())

    def milter(self) -> str:
        """Return the proxy's socket."""
        return f"unix:{Rspamd.socket(self.directory)}"

    def ready(self) -> bool:
        """Say whether it is there."""
        return Rspamd.ready(self.directory)


class PostfixRspamdSelfScan(PostfixRspamd):
    """The same with ``self_scan``: the proxies scan themselves, as its documentation has it."""

    name = "postfix-rspamd-self"
    proxy = f'count = {CPUS};\nupstream "local" {{ self_scan = yes; }}\n'


class OursPlain(Filtered, Ours):
    """mailsecure, which judges nothing and keeps no history."""

    name = "mailsecure-plain"
    judging = ""
    sections = "[scan]\nchecks =\n[records]\nenabled = no\n"

    def prepare(self) -> list[str]:
        """Add what is judged; no limit refuses the load, nobody is trusted."""
        command = super().prepare()
        ini = self.directory / "m.ini"
        text = ini.read_text()
        smtp = (
            f"[smtp]\nlisten = tcp:{self.port}:interface={self.host}:backlog=1000\n"
            "max_sessions = 1000\nmax_sessions_per_client = 1000\ngreeting_delay = 0s\n"
            "session_rate = 0\nmessage_rate = 0\nrecipient_rate = 0\n"
        )
        begin, end = text.index("[smtp]"), text.index("[domains]")
        ini.write_text(f"{text[:begin]}{smtp}[relay]\nnetworks =\n{text[end:]}{self.sections}")
        return command


class OursAuth(OursPlain):
    """mailsecure with authentication, attachments and markers, and its history."""

    name = "mailsecure"
    checks = "[scan]\nchecks = authentication attachments markers\n"
    sections = checks
    proof = ("spf=pass", "dkim=pass", "dmarc=pass")


class OursWithoutRecords(OursAuth):
    """The same without a history."""

    name = "mailsecure-no-records"
    sections = f"{OursAuth.checks}[records]\nenabled = no\n"


class OursRspamd(OursPlain):
    """mailsecure that leaves the judging to Rspamd, as Postfix does; with its history."""

    name = "mailsecure"
    sections = (
        f"[scan]\nchecks =\nengines = rspamd\n[rspamd]\nurl = http://127.0.0.1:{RSPAMD_PORT}\n"
    )
    proof = ("R_SPF_ALLOW", "R_DKIM_ALLOW", "DMARC_POLICY_ALLOW")

    @classmethod
    def missing(cls) -> str:
        """Debian's package."""
        return super().missing() or Rspamd.missing()

    def prepare(self) -> list[str]:
        """Run both."""
        return together(Rspamd.command(self.directory), super().prepare())

    def ready(self) -> bool:
        """Say whether it is there."""
        return Rspamd.ready(self.directory)
