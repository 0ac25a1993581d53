"""Three nodes that share their sessions, and what is asked of them all.

:class:`Balanced` is a cluster under ``topology = active-active`` without a judge, whose
sessions would be shared out too.  :class:`BalanceTestCase` gives it to tests in good order:
weights as in the ini, nobody drains, everybody gets sessions.  Clients are
:class:`.crowd.Crowd`; every message that was acknowledged must be found again in the
Maildir of the node that did so (:meth:`BalanceTestCase.assertNothingLost`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..harness import close_shared, shared, until
from ..wire import Wire
from .crowd import Crowd, Tally
from .judge import PORT
from .misled import prefix
from .nodes import ADDRESS, CLIENT, DOMAIN, Cluster, ClusterTestCase
from .rogue import ROGUE_PORT, Rogue

__all__ = ["BalanceTestCase", "Balanced", "Misled"]

#: For tests: hellos as often as advertisements, and whole shares at once.
SETTINGS = "topology = active-active\nhello_interval = 100ms\nslow_start = 0s\n"
B = TypeVar("B", bound="Balanced")
_UNIQUE = b"\nX-Unique: "


class Balanced(Cluster):
    """See the module's text; ``cluster`` are options of ``[cluster]`` over :data:`SETTINGS`."""

    def __init__(self, *names: str, cluster: str = "", **options: Any) -> None:
        self._read: set[str] = set()
        self._found: dict[str, set[str]] = {}
        super().__init__(
            names or ("a", "b", "c"), quiet=True, cluster=SETTINGS + cluster, **options
        )

    # -- who gets what

    def weigh(self, **weights: int) -> None:
        """Write weights into the nodes' ini files; returns when all nodes know."""
        for name, weight in weights.items():
            self[name].change("cluster", f"weight = {weight}")
        self.await_weights(weights)

    def await_weights(self, weights: Mapping[str, int]) -> None:
        """Wait until all nodes know these weights."""

        def known() -> bool:
            return all(
                node.peer(name).get("weight") == weight
                for node in self.nodes.values()
                for name, weight in weights.items()
            )

        until(known, f"all nodes know the weights {dict(weights)}", 5, self.tell)

    def shown(self, node: str, at: str = "") -> dict[str, Any]:
        """Return what ``cluster status`` of a node (the best) says of another's sessions."""
        found = self[at or next(iter(self.nodes))].cluster()["balance"]
        return dict(found["nodes"].get(node, {})) if found else {}

    def idle(self) -> None:
        """Wait until nobody has a session: not even of those that say goodbye just now."""

        def nobody() -> bool:
            shown = [self.shown(name)["sessions"] for name in self.nodes]
            return not any(shown) and not any(
                node.status()["sessions"] for node in self.nodes.values()
            )

        until(nobody, "no sessions", 10, self.tell)

    def had(self, *names: str, sessions: int = 30, at: str = "") -> None:
        """Wait until each of these nodes had so many more sessions, as a node (the best) tells."""

        def total(name: str) -> int:
            return int(self.shown(name, at).get("sessions_total", 0))

        wanted = {name: total(name) + sessions for name in names}
        until(
            lambda: all(total(name) >= wanted[name] for name in names),
            f"{sessions} sessions more for each of {names}", 20, self.tell,
        )  # fmt: skip

    def gets_sessions(self, node: str, at: str = "") -> bool:
        """Say whether a node is given sessions."""
        return self.shown(node, at).get("state") == "in"

    def _well(self) -> bool:
        # Who drains is not Master, so this comes first.
        if self._undo() or not super()._well():
            return False
        for node in self.nodes.values():
            status = node.cluster()
            if any(each["fitness"] or each["overridden"] for each in status["nodes"]):
                return False
            if status["balance"] is not None:
                shown = status["balance"]["nodes"]
                if any(shown.get(each, {}).get("state") != "in" for each in self.nodes):
                    return False
        return True

    def _undo(self) -> bool:
        """Take back what a test said to the daemons; return whether there was anything."""
        found = False
        for name, node in self.nodes.items():
            if node.peer(name)["overridden"]:
                node.cli("cluster", "weight", name, "default")
                found = True
            if node.status()["drain"]["state"] != "working":
                node.cli("undrain")
                found = True
        return found

    # -- mail

    def crowd(self, **options: Any) -> Crowd:
        """Return clients that send to the virtual address (see :class:`Crowd`)."""
        return Crowd(self.network, CLIENT, (ADDRESS, PORT), f"a@{DOMAIN}", **options)

    def wire(self, address: tuple[str, int] = (ADDRESS, PORT), **options: Any) -> Wire:
        """Connect from the clients' host."""
        return self.network.inside(CLIENT, lambda: Wire(address, **options))

    def found(self) -> dict[str, set[str]]:
        """Return the messages that are in any Maildir, and in whose.

        One whose acknowledgement was lost may be in two.
        """
        for name, node in self.nodes.items():
            folder = node.directory / "Maildir" / "new"
            for path in folder.iterdir() if folder.is_dir() else ():
                if str(path) in self._read:
                    continue
                self._read.add(str(path))
                with path.open("rb") as stream:
                    head = stream.read(4096)
                _, mark, rest = head.partition(_UNIQUE)
                if mark:
                    unique = rest.split(b"\n", 1)[0].strip().decode()
                    self._found.setdefault(unique, set()).add(name)
        return self._found


class Misled(Balanced):
    """The same, but the port of c that the others are told is a rogue's; it begins well."""

    def __init__(self, **options: Any) -> None:
        self._rogue: Rogue | None = None
        super().__init__(options={"c": {"prefix": prefix(ROGUE_PORT)}}, **options)

    @property
    def rogue(self) -> Rogue:
        """What stands at that port."""
        if self._rogue is None:
            self._rogue = Rogue(self.network, "c")
        return self._rogue

    def settle(self, timeout: float = 20.0) -> None:
        """Have it be well, too."""
        self.rogue.manner = "pass"
        self.rogue.pace = 0.0
        super().settle(timeout)

    def close(self) -> None:
        """End it all."""
        if self._rogue is not None:
            self._rogue.close()
        super().close()


class BalanceTestCase(ClusterTestCase):
    """Tests of a cluster that shares its sessions."""

    cluster: Balanced

    def setUp(self) -> None:
        """Have no clients yet."""
        super().setUp()
        self._crowds: list[Crowd] = []

    def three(self) -> Balanced:
        """Return three nodes of equal weights that tests share; all is well with them."""
        return self.common("three nodes that share their sessions", Balanced)

    def common(self, key: str, make: Callable[[], B]) -> B:
        """Return a cluster that the tests of one ``key`` share; all is well with it."""

        def made() -> tuple[B, Callable[[], None]]:
            cluster = make()
            return cluster, cluster.close

        self.cluster = cluster = shared(key, made)
        try:
            self.cluster.settle()
        except BaseException:
            # The next test is not to suffer from it.
            close_shared()
            raise
        return cluster

    def alone(self, *names: str, **options: Any) -> Balanced:
        """Return a cluster for this test."""
        shared("no cluster but a test's own", lambda: (None, lambda: None))
        self.cluster = Balanced(*names, **options)
        self.addCleanup(self.cluster.close)
        return self.cluster

    def crowd(self, **options: Any) -> Crowd:
        """Start clients, which end with the test at the latest."""
        crowd = self.cluster.crowd(**options)
        self.addCleanup(crowd.close)
        return crowd

    def sent(self, sessions: int, **options: Any) -> Tally:
        """Have so many sessions, all of which go well; nothing of theirs is lost."""
        tally = self.crowd(sessions=sessions, **options).wait()
        self.assertEqual(len(tally.sessions), sessions, tally)
        self.assertUnharmed(tally)
        return tally

    def assertUnharmed(self, tally: Tally) -> None:
        """No session failed, and nothing is lost."""
        self.assertEqual(tally.failed, [], tally)
        self.assertNothingLost(tally)

    def assertNothingLost(self, tally: Tally) -> None:
        """All that had its 250 is delivered, by the node that said so."""

        def missing() -> list[str]:
            found = self.cluster.found()
            return [
                each for each, node in tally.acknowledged.items() if node not in found.get(each, ())
            ]

        self.assertTrue(tally.acknowledged, tally)
        began = time.monotonic()
        while lost := missing():
            if time.monotonic() - began > 15:
                self.fail(f"lost {len(lost)}, of them {lost[:5]}; {tally}")
            time.sleep(0.1)

    def assertShares(self, tally: Tally, weights: Mapping[str, int], within: float = 0.01) -> None:
        """Each node greeted its part of the sessions, within that part of them all."""
        shares, total = tally.shares, sum(weights.values())
        all_of_them = sum(shares.values())
        for name in self.cluster.nodes:
            wanted = all_of_them * weights.get(name, 0) / total
            self.assertAlmostEqual(
                shares[name], wanted, delta=max(1, within * all_of_them), msg=f"{name} of {tally}"
            )


def is_open(wire: Wire) -> bool:
    """Say whether the other end has not closed a connection on which nothing is due."""
    wire.socket.settimeout(0)
    try:
        return bool(wire.socket.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        wire.socket.settimeout(wire.timeout)
