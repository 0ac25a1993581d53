"""The real daemon on the hosts of a network, as a cluster, and what is asked of all of them.

:class:`Node` is a :class:`~tests.live.harness.Gateway` on one host.  :class:`Cluster` is
some of them with one key, under the eyes of the judge; :meth:`Cluster.settle` mends
whatever a test broke, so that many tests can share one.  :class:`ClusterTestCase` shows,
when a test fails, what the daemons said last and what the judge saw.

With ``MAILSECURE_CLUSTER_RECORD=FILE`` each test appends there, in one line, for how long
the address did not answer and who answered when.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mailsecure.control.client import ask
from mailsecure.control.server import SOCKET_NAME

from ..harness import Gateway, LiveTestCase, close_shared, shared, until
from ..load import unique_message
from ..wire import Wire
from .judge import PORT
from .network import Network
from .record import Record, Watch

__all__ = [
    "ADDRESS",
    "CLIENT",
    "DOMAIN",
    "PRIORITIES",
    "USER",
    "WITNESS",
    "Cluster",
    "ClusterTestCase",
    "Node",
    "new_key",
]

ADDRESS = "10.77.0.25"
#: Hosts of the shared network, and the priorities of those that are nodes.
PRIORITIES = {"a": 200, "b": 100, "c": 50}
CLIENT, WITNESS = "client", "witness"
_OF_SESSIONS = re.compile(r"/(smtpd|delivery)\[|/balancer\[\d+\]: [^ ]+: with ")
DOMAIN = "example.test"
#: Of ``[node] user``, where a daemon is to give up root: an ordinary one.
USER = "nobody"


class Node(Gateway):
    """One mailsecure on a host; ``sections`` are laid over those of the cluster."""

    def __init__(
        self,
        network: Network,
        host: str,
        directory: Path,
        base: Mapping[str, str],
        *,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        **sections: str,
    ) -> None:
        self.network = network
        self.host = host
        self._base = dict(base)
        self._first = dict(sections)
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(
            prefix=[*network.command(host), *prefix],
            environment=environment,
            directory=directory,
            port=PORT,
            start=False,
            **sections,
        )

    def configure(self, **sections: str) -> None:
        """Write the ini anew: what all nodes say, this node's name, and these sections."""
        maildir = self.directory / "Maildir"
        whole = {
            "node": f"name = {self.host}\nhostname = {self.host}.test",
            "smtp": f"listen = tcp:{PORT}\nmax_sessions_per_client = 2000",
            "domains": f"{DOMAIN} = maildir:{maildir}",
            **self._base,
        }
        for name, text in sections.items():
            whole[name] = f"{whole.get(name, '')}\n{text}"
        super().configure(**whole)

    def change(self, section: str, text: str) -> None:
        """Lay some options over a section, and have the daemon read it all again."""
        mark = len(self.lines)
        self.configure(**{**self._first, section: text})
        self.signal(signal.SIGHUP)
        self.line(r"reload: ", since=mark)

    def pristine(self) -> bool:
        """Make the ini what it was at first; say whether it was so."""
        before = self.ini.read_text()
        self.configure(**self._first)
        return self.ini.read_text() == before

    def give(self, user: str) -> None:
        """Give its directory with all in it to a user."""
        subprocess.run(["chown", "-R", f"{user}:", str(self.directory)], check=True, timeout=10)

    def tail(self, lines: int = 30) -> str:
        """Return the last lines, without those of the many sessions and their mail."""
        kept = [each for each in self.lines if not _OF_SESSIONS.search(each)]
        return "\n".join([f"--- {self.host}'s last lines ---", *kept[-lines:], "---"])

    @property
    def address(self) -> tuple[str, int]:
        """Its own, not a virtual one."""
        return self.network.address(self.host), PORT

    @property
    def pid(self) -> int:
        """The daemon's process: ``ip netns exec`` becomes it."""
        if self.process is None:
            raise AssertionError("the daemon was not started")
        return self.process.pid

    @property
    def runs(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def greets(self) -> bool:
        """Say whether somebody greets on its own address, asked on the host itself."""
        return self.network.inside(self.host, super().greets)

    def holds(self, address: str = ADDRESS) -> bool:
        """Say whether the kernel of its host has an address."""
        return self.network.holds(self.host, address)

    # -- the postmaster's hands

    def request(self, word: str, **arguments: Any) -> dict[str, Any]:
        """Send a request over the control socket; return its result."""
        for kind, value in ask(self.state / SOCKET_NAME, word, arguments, timeout=10):
            if kind == "done":
                return value
        raise AssertionError(f"{word} gave no answer")

    def cluster(self) -> dict[str, Any]:
        """Return what ``mailsecure cluster status --json`` says."""
        return self.request("cluster.status")

    def group(self, name: str = "mail") -> dict[str, Any]:
        """Return what the status says of one group."""
        for group in self.cluster()["groups"]:
            if group["name"] == name:
                return dict(group)
        raise AssertionError(f"{self.host} knows no group {name}")

    def peer(self, name: str) -> dict[str, Any]:
        """Return what the status says of one node; {} if it is not known."""
        for node in self.cluster()["nodes"]:
            if node["node"] == name:
                return dict(node)
        return {}

    def linked(self, name: str) -> bool:
        """Tell whether this node knows that one and its link to it is up."""
        peer = self.peer(name)
        return bool(peer and peer["alive"] and peer["link"] and peer["link"]["up"])

    def drops(self, reason: str) -> int:
        """Return how many datagrams were ignored for that reason."""
        return int(self.cluster()["drops"].get(reason, 0))

    def resign(self, seconds: float = 600.0, group: str = "") -> None:
        """Do what ``mailsecure cluster resign --for`` does."""
        self.request("cluster.resign", group=group, seconds=seconds)

    def takeover(self, seconds: float = 600.0, group: str = "") -> None:
        """Do what ``mailsecure cluster takeover --for`` does."""
        self.request("cluster.takeover", group=group, seconds=seconds)

    def has_mail(self, unique: str) -> bool:
        """Say whether its Maildir has a message with this text."""
        return any(
            unique.encode() in each.read_bytes()
            for each in (self.directory / "Maildir" / "new").glob("*")
        )


class Cluster:
    """Nodes with one key on one network; ``close`` ends and removes everything.

    ``sections`` are every node's; ``each`` has those of single nodes.  ``virtual`` are the
    options of the group ``mail`` besides its priority, which :data:`PRIORITIES` has; the
    ``scanners`` have no such group.  The judge sees the addresses ``watched``; those of the
    group, if there are none.  ``quiet``: no judge, and the kernel's own switch, so that the
    nodes have no sessions but those of the test's clients.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        addresses: Sequence[str] = (ADDRESS,),
        watched: Sequence[str] = (),
        scanners: Sequence[str] = (),
        quiet: bool = False,
        virtual: str = "advertisement_interval = 100ms",
        cluster: str = "",
        each: Mapping[str, Mapping[str, str]] | None = None,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        start: bool = True,
    ) -> None:
        self.addresses = list(addresses)
        self.directory = Path(tempfile.mkdtemp(prefix="mailsecure-cluster-"))
        self.directory.chmod(0o755)
        self.scanners = list(scanners)
        self.network = Network([*PRIORITIES, CLIENT, WITNESS], bridged=quiet)
        self.nodes: dict[str, Node] = {}
        self.watch: Watch | None = None
        try:
            self._make(names, virtual, cluster, each or {}, options or {})
            if not quiet:
                watched = watched or addresses
                self.watch = Watch(self.network, watched, client=CLIENT, witness=WITNESS)
            if start:
                self.start(*self.nodes)
                self.settle()
        except BaseException:
            self.close()
            raise

    def _make(
        self,
        names: Sequence[str],
        virtual: str,
        cluster: str,
        each: Mapping[str, Mapping[str, str]],
        options: Mapping[str, Mapping[str, Any]],
    ) -> None:
        for name in names:
            key_file = self.directory / name / "cluster.key"
            base = {
                "cluster": f"key_file = {key_file}\ninterface = eth0\n{cluster}",
                "virtual:mail": f"addresses = {' '.join(self.addresses)}\n"
                f"priority = {PRIORITIES[name]}\n{virtual}",
            }
            if name in self.scanners:
                del base["virtual:mail"]
            more: dict[str, Any] = {**options.get(name, {}), **each.get(name, {})}
            self.nodes[name] = Node(self.network, name, self.directory / name, base, **more)
        write_key(new_key(), *self.nodes.values())

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def judge(self) -> Watch:
        """The judge, who watches from the start."""
        assert self.watch is not None
        return self.watch

    # -- life

    def start(self, *names: str) -> None:
        """Start nodes, beside each other, and wait for their greetings."""
        starts = [_Start(self.nodes[name]) for name in names]
        for start in starts:
            start.thread.join()
            if start.fault is not None:
                raise start.fault

    def settle(self, timeout: float = 20.0) -> None:
        """Have everything well again: all nodes run and see each other, the best is Master.

        Returns when it has been so, to the judge's eyes, for three tenths of a second.
        """
        self.network.mend()
        for node in self.nodes.values():
            if not node.runs:
                node.pristine()
                continue
            node.signal(signal.SIGCONT)
            if not node.pristine():
                node.request("reload")
        self.start(*(name for name, node in self.nodes.items() if not node.runs))
        best = next(iter(self.nodes))
        until(self._well, "a cluster in good order", timeout, self.tell)
        if self.watch is None:
            return
        for address in self.addresses:
            self.await_owner(best, address=address, timeout=timeout)

    def _well(self) -> bool:
        best = next(iter(self.nodes))
        for name, node in self.nodes.items():
            status = node.cluster()
            peers = [each for each in status["nodes"] if not each["self"] and each["alive"]]
            others = {each["node"] for each in peers}
            up = all(each["link"] and each["link"]["up"] for each in peers)
            if others != set(self.nodes) - {name} or not up or status["alarms"]:
                return False
            if any(set(self.nodes) - set(each["hears"]) - {each["node"]} for each in peers):
                return False
            roles = [group["role"] for group in status["groups"]]
            wanted = "master" if name == best else "backup"
            if roles[:1] != ([] if name in self.scanners else [wanted]):
                return False
        return True

    def close(self) -> None:
        """End it all."""
        if self.watch is not None:
            self.watch.close()
        for node in self.nodes.values():
            with suppress(OSError):
                node.close()
        self.network.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    # -- what is asked of it

    def await_owner(
        self, name: str, *, address: str = ADDRESS, timeout: float = 10.0, last: float = 0.3
    ) -> None:
        """Wait until only this node has answered, without a gap, for ``last`` seconds."""

        def rules(record: Record) -> bool:
            return (
                record.owners(address) == [name]
                and record.claimants(address) == {name}
                and record.gap(address) < 0.1
            )

        try:
            self.judge.until(rules, f"only {name} answers on {address}", timeout, last)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tell()}") from None

    def deliver(self, address: str = ADDRESS, timeout: float = 10.0) -> str:
        """Send a message to an address, see it in a Maildir; return whose that is."""
        unique, content = unique_message()

        def send() -> str:
            with Wire((address, PORT), timeout) as wire:
                greeting = wire.reply()
                for line, code in (
                    ("EHLO client.test", 250),
                    ("MAIL FROM:<s@client.test>", 250),
                    (f"RCPT TO:<a@{DOMAIN}>", 250),
                    ("DATA", 354),
                ):
                    said = wire.command(line)
                    assert said.startswith(str(code)), f"{line}: {said}"
                wire.send(content + b".\r\n")
                said = wire.reply()
                assert said.startswith("250"), said
                return greeting[4:].split(".")[0]

        name = self.network.inside(CLIENT, send)
        until(lambda: self[name].has_mail(unique), f"mail in {name}'s Maildir", tell=self.tell)
        return name

    def tell(self) -> str:
        """Return what the daemons said last, and what the judge saw lately."""
        told = [node.tail() for node in self.nodes.values() if node.lines]
        return "\n".join([*told, str(self.judge.lately(20.0)) if self.watch else ""])


class _Start:
    """One node that starts beside others."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.fault: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.node.start()
        except BaseException as fault:
            self.fault = fault


def new_key() -> str:
    """Return a line of a key file, with a new key."""
    return base64.b64encode(secrets.token_bytes(32)).decode() + "\n"


def write_key(lines: str, *nodes: Node) -> None:
    """Give nodes these keys, as files that only their owner may read."""
    for node in nodes:
        path = node.directory / "cluster.key"
        path.unlink(missing_ok=True)
        path.touch(0o600)
        path.write_text(lines)


class ClusterTestCase(LiveTestCase):
    """Tests of a cluster; a failed assertion shows its daemons' lines and the judge's record."""

    cluster: Cluster

    def pair(self, interval: str = "100ms") -> Cluster:
        """Return two nodes with one address that tests share; all is well with them."""

        def make() -> tuple[Cluster, Any]:
            cluster = Cluster(["a", "b"], virtual=f"advertisement_interval = {interval}")
            return cluster, cluster.close

        self.cluster = shared(("two nodes with one address", interval), make)
        try:
            self.cluster.settle()
        except BaseException:
            # The next test is not to suffer from it.
            close_shared()
            raise
        return self.cluster

    def own(self, *names: str, **options: Any) -> Cluster:
        """Return a cluster for this test alone."""
        shared("no cluster but a test's own", lambda: (None, lambda: None))
        self.cluster = Cluster(names, **options)
        self.addCleanup(self.cluster.close)
        return self.cluster

    def keep(self, record: Record, *addresses: str) -> None:
        """Write down what was seen, where it is wanted."""
        path = os.environ.get("MAILSECURE_CLUSTER_RECORD")
        if path:
            with Path(path).open("a") as stream:
                for address in addresses or (ADDRESS,):
                    stream.write(f"{self.id().rsplit('.', 1)[-1]}: {record.summary(address)}\n")

    def took_over(
        self,
        began: float,
        owners: Sequence[str],
        within: float,
        *,
        address: str = ADDRESS,
    ) -> Record:
        """Check a fail-over that began then; the last of ``owners`` must answer now.

        They are all who answered since, one after another; the address was silent for at
        most ``within`` seconds; the network knows one owner; mail goes to it.
        """
        self.cluster.await_owner(owners[-1], address=address)
        self.assertEqual(self.cluster.deliver(address), owners[-1])
        record = self.cluster.judge.since(began)
        self.keep(record, address)
        self.assertEqual(record.owners(address), list(owners))
        self.assertLess(record.gap(address), within)
        return record

    def unchanged(self, began: float, changes: Mapping[str, int], within: float = 0.2) -> Record:
        """Check that no role changed since ``began``, and that the address answered on."""
        record = self.cluster.judge.since(began)
        self.keep(record)
        best = next(iter(self.cluster.nodes))
        self.assertEqual(self.changes(), dict(changes))
        self.assertEqual(record.owners(ADDRESS), [best])
        self.assertEqual(record.claimants(ADDRESS), {best})
        self.assertLess(record.gap(ADDRESS), within)
        return record

    def changes(self) -> dict[str, int]:
        """Return how often each node's role changed since its start."""
        return {name: node.group()["changes"] for name, node in self.cluster.nodes.items()}

    def _formatMessage(self, msg: Any, standardMsg: str) -> str:
        told = self.cluster.tell() if hasattr(self, "cluster") else ""
        return f"{super()._formatMessage(msg, standardMsg)}\n{told}"

    def moment(self) -> float:
        """Return the time (CLOCK_MONOTONIC), after the judge has seen what is before."""
        now = time.monotonic()
        time.sleep(0.1)
        return now
