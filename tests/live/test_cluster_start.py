"""A daemon that was root keeps only what moves addresses, and listens where it will be.

:mod:`.test_cluster_settings` has what such a daemon does, and one that lacks the right.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable
from pathlib import Path

from tests.live import needs

from .cluster.nodes import ADDRESS, USER, ClusterTestCase, Node
from .harness import until

PROGRAMS = ["ip"]
SIX = "fd77::25"
TOLD = 0.15
#: CAP_NET_ADMIN and CAP_NET_RAW.
NETWORK = 1 << 12 | 1 << 13
#: What a command of ``notify`` does here: leaves its capabilities and arguments in a file.
NOTIFY = """\
#!/bin/sh
said=$(dirname "$0")/said
{ grep ^Cap /proc/self/status; echo "$@"; } > "$said.new" && mv "$said.new" "$said"
"""


def capabilities(status: str) -> dict[str, int]:
    """Return the sets of capabilities in a process's /proc/PID/status."""
    found = re.findall(r"^(Cap\w+):\s*(\w+)$", status, re.MULTILINE)
    return {name: int(value, 16) for name, value in found}


def where(node: Node) -> list[str]:
    """Return where a node says that it listens."""
    return [line.rpartition(" on ")[2] for line in node.matching("listening for SMTP on")]


@needs(root=True, programs=PROGRAMS)
class Users(ClusterTestCase):
    """``[node] user`` on a node of a cluster."""

    def test_rights(self) -> None:
        """The Master may do two things that nobody may not; what it starts, none of them."""
        cluster = self.own("a", addresses=[ADDRESS, SIX], start=False)
        a = cluster["a"]
        command = a.directory / "role-changed"
        command.write_text(NOTIFY)
        command.chmod(0o755)
        sections = {"smtp": "listen = tcp6:25", "virtual:mail": f"notify = {command}"}
        a.configure(node=f"user = {USER}", **sections)
        a.give(USER)
        a.start()
        for address in (ADDRESS, SIX):
            cluster.await_owner("a", address=address)
        status = Path(f"/proc/{a.pid}/status").read_text()
        user = pwd.getpwnam(USER).pw_uid
        self.assertIn("\t".join(["Uid:", *[str(user)] * 4]), status)
        found = capabilities(status)
        self.assertEqual((found["CapEff"], found["CapPrm"]), (NETWORK, NETWORK))
        self.assertEqual((found["CapInh"], found["CapAmb"]), (0, 0))
        said = a.directory / "said"
        until(said.exists, "notify", 5, cluster.tell)
        text = said.read_text()
        self.assertRegex(text, r"(?m)^mail backup master ")
        found = capabilities(text)
        for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
            self.assertEqual(found[name], 0, name)
        a.stop()
        for address in (ADDRESS, SIX):
            self.assertFalse(a.holds(address), address)


@needs(root=True, programs=PROGRAMS)
class Everywhere(ClusterTestCase):
    """``listen`` at every address of both families."""

    def test_both_families(self) -> None:
        """The port is listed for IPv4 and for IPv6, and both take mail."""
        listen = "listen = tcp:25\n  tcp6:25"
        cluster = self.own("a", addresses=[ADDRESS, SIX], each={"a": {"smtp": listen}})
        self.assertEqual(where(cluster["a"]), ["0.0.0.0:25", "[::]:25"])
        for address in (ADDRESS, SIX):
            self.assertEqual(cluster.deliver(address), "a")


@needs(root=True, programs=PROGRAMS)
class Listening(ClusterTestCase):
    """``listen`` at the virtual addresses alone."""

    def setUp(self) -> None:
        """Begin with a as Master and b as Backup, which listen nowhere else."""
        super().setUp()
        escaped = SIX.replace(":", r"\:")
        listen = f"listen = tcp:25:interface={ADDRESS}\n  tcp:25:interface={escaped}"
        cluster = self.own(
            "a",
            "b",
            addresses=[ADDRESS, SIX],
            each={name: {"smtp": listen} for name in "ab"},
            start=False,
        )
        # No greeting can be waited for: at first there is no address to be greeted at.
        for node in cluster.nodes.values():
            node.launch()
            node.line(r"ready as")
        cluster.settle()

    def test_where(self) -> None:
        """The Backup listens at addresses that it does not have, says so, and nowhere else."""
        b = self.cluster["b"]
        self.assertEqual(where(b), [f"{ADDRESS}:25", f"[{SIX}]:25"])
        self.assertFalse(b.holds())
        self.assertFalse(b.holds(SIX))
        self.assertFalse(b.greets())
        self.assertEqual(self.cluster.deliver(SIX), "a")

    def test_master_killed(self) -> None:
        """It answers there as soon as it has them."""
        self.leaves(self.cluster["a"].kill)

    def test_master_stopped(self) -> None:
        """So it does where the Master leaves in good order."""
        self.leaves(self.cluster["a"].stop)

    def leaves(self, leave: Callable[[], object]) -> None:
        """Have the Master leave; the Backup must answer at both addresses."""
        began = self.moment()
        leave()
        for address in (ADDRESS, SIX):
            self.took_over(began, ["a", "b"], TOLD, address=address)
