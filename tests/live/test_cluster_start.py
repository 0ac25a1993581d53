"""A daemon that was root moves addresses as an ordinary user, and listens where it will be."""

from __future__ import annotations

import pwd
import re
import time
from pathlib import Path

from tests.live import needs

from .harness import until
from .nodes import ADDRESS, PROGRAMS, SIX, ClusterTestCase, Node

USER = "nobody"
#: CAP_NET_ADMIN and CAP_NET_RAW.
NETWORK = 1 << 12 | 1 << 13
#: What a command of ``notify`` does here: leaves its capabilities and arguments in a file.
NOTIFY = """\
#!/bin/sh
{ grep ^Cap /proc/self/status; echo "$@"; } > "$(dirname "$0")/said"
"""


def credentials(pid: int | str) -> dict[str, str]:
    """Return what /proc says of a process: its ids and capabilities."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(re.findall(r"^(Uid|Cap\w+):\s*(.*)$", text, re.MULTILINE))


@needs(root=True, programs=PROGRAMS)
class Users(ClusterTestCase):
    """``[node] user`` on a node of a cluster."""

    def test_master_as_a_user(self) -> None:
        """It is nobody, may do two things besides, and becomes Master."""
        said = self.temporary_directory()
        user = pwd.getpwnam(USER)
        command = said / "notify"
        command.write_text(NOTIFY)
        command.chmod(0o755)
        said.chmod(0o777)
        a = self.node("a", 200, f"notify = {command}", node=f"user = {USER}\n")
        self.master("a")
        self.assertTrue(a.holds())
        self.assertTrue(a.holds(SIX))
        self.answered_by("a")
        found = credentials(a.pid)
        self.assertEqual(found["Uid"].split(), [str(user.pw_uid)] * 4)
        self.assertEqual(int(found["CapEff"], 16), NETWORK)
        self.assertEqual(int(found["CapPrm"], 16), NETWORK)
        self.assertEqual((int(found["CapInh"], 16), int(found["CapAmb"], 16)), (0, 0))
        self.assertHandsNothingOn(said / "said")
        a.stop()
        self.assertFalse(a.holds())

    def assertHandsNothingOn(self, path: Path) -> None:
        """The command of ``notify`` knew what happened, and may do nothing."""

        def written() -> str:
            return path.read_text() if path.exists() else ""

        text = until(lambda: "master" in written() and written(), "notify", 5)
        capabilities = dict(re.findall(r"^(Cap\w+):\s*(.*)$", text, re.MULTILINE))
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.assertEqual(int(capabilities[name], 16), 0, name)
        self.assertRegex(text, r"(?m)^mail backup master ")

    def test_user_without_capabilities(self) -> None:
        """Where root itself may not, the gateway works, and says why it is never Master."""
        without = ("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin")
        a = self.node("a", 200, node=f"user = {USER}\n", prefix=without)
        a.line("no part in the election: CAP_NET_ADMIN is missing")
        self.assertEqual(a.role(), "init")
        self.assertFalse(a.holds())
        self.assertTrue(self.greeting("10.77.0.11").startswith("220 a."))


@needs(root=True, programs=PROGRAMS)
class Listening(ClusterTestCase):
    """``listen`` at the virtual addresses alone."""

    listen = f"tcp:25:interface={ADDRESS}\n tcp:25:interface=" + SIX.replace(":", r"\:")

    def both(self) -> tuple[Node, Node]:
        """Start two nodes that listen there, in a network of both families."""
        for number, host in enumerate(self.hosts):
            self.on(host, "ip", "addr", "add", f"fd77::1{number}/64", "dev", "eth0", "nodad")
        return self.pair(smtp=f"listen = {self.listen}")

    def test_takeover(self) -> None:
        """The Backup starts without the address, and answers at it once it has it."""
        a, b = self.both()
        self.assertFalse(b.holds())
        self.assertTrue(any(ADDRESS in line for line in b.matching("listening for SMTP")))
        self.assertEqual(self.greeting("10.77.0.12"), "")
        for address in (ADDRESS, SIX):
            self.assertTrue(self.greeting(address).startswith("220 a."), address)
        a.kill()
        self.answered_by("b")
        until(lambda: self.greeting(SIX).startswith("220 b."), "b greets by IPv6", 5)

    def test_handed_over(self) -> None:
        """So it is where the Master leaves in good order."""
        a, _ = self.both()
        with self.watched() as seen:
            a.stop()
            time.sleep(1)
        self.assertEqual(seen.owners, "a b")
