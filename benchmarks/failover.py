"""How long a virtual address does not answer when its owner fails: ours beside keepalived.

``python -m benchmarks.failover [--quick]``.  Two pairs of nodes, one of ours and one of
keepalived (VRRPv3), each on a switch of its own with a judge (:mod:`.judge`), in network
namespaces.  In every pair ``a`` has priority 200 and ``b`` 100, both start as backup and
preempt.  A round makes ``a`` fail, once in each pair, one after another (ours, keepalived,
ours, …), at the same time after its last advertisement in both, which differs from round to
round: a master down interval counts from there, and by chance alone one of the two would
be lucky.  Before the next round ``a`` is back and has taken over again;
that moment's gap is kept too.

The figure is the longest time between two banners around the event, of whomever they
are, with an attempt every 5 ms: what a working address gives (about 5 ms) is not taken
off.  Reported are median, least and most, and ours as a share of keepalived's in the same
round (median, least and most).

What is compared, and what is fair:

* *kill -9*: of ours the one process dies, which is the service too.  So keepalived's
  service dies with it: else ``a`` would go on serving an address that it should not have.
  Its kernel keeps the address in either case; that is told as "kept", looked at when a
  lease of ours must have run out.
* *kill -9, keepalived alone*: a few rounds of that other case, to see it: no gap worth the
  name, and two owners until somebody repairs it.  Ours has no such case.
* *link down*: the cable is taken out of the switch; both programs see the carrier go.
* *SIGTERM*: to keepalived, its service stays (that is kind to it); to our daemon, which
  goes altogether.
* *resign*: ours alone; keepalived has no such command.

A SYN lost in a gap costs a real client up to a second more, with either; the judge's every
attempt is a new connection, so that the address is measured and not TCP's patience.

``--cpu`` measures what the cluster's machinery costs instead (:mod:`.machinery`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from . import machinery
from .lan import Lan, Watch, missing
from .pairs import ADDRESS, PORT, Keepalived, Node, Ours, new_key_file
from .sidebyside import HERE, tidy_end, write_results

#: How often the judge tries, in seconds.
EVERY = 0.005
#: For how long one node alone must have answered before a watch ends, in seconds.
QUIET = 1.0
PRIORITIES = {"a": 200, "b": 100}
#: Longer than the watch after it takes, in seconds.
RESIGNED_FOR = 3.0
KINDS: tuple[type[Node], ...] = (Ours, Keepalived)


@dataclass(frozen=True)
class Case:
    """One way to fail.

    ``share`` or ``seconds`` is the most that is aimed at: as a share of keepalived's, or
    plainly.  ``leaves_lease``: the kernel alone can take the address off.
    """

    name: str
    fail: Callable[[Node], None]
    repair: Callable[[Node], None]
    kinds: tuple[type[Node], ...] = KINDS
    share: float | None = None
    seconds: float | None = None
    few: bool = False
    leaves_lease: bool = False


def _restart(node: Node) -> None:
    node.gone()
    node.start()


CASES = (
    Case("kill -9", Node.kill, _restart, share=0.1, leaves_lease=True),
    Case(
        "link down",
        lambda node: node.lan.cable(node.host, False),
        lambda node: node.lan.cable(node.host, True),
        share=1.0,
    ),
    Case("SIGTERM", lambda node: node.terminate(), _restart, seconds=0.02),
    Case(
        "resign",
        lambda node: node.resign(RESIGNED_FOR),
        lambda node: None,
        kinds=(Ours,),
        seconds=0.02,
    ),
    Case(
        "kill -9, keepalived alone",
        lambda node: node.kill_alone(),
        _restart,
        kinds=(Keepalived,),
        few=True,
        leaves_lease=True,
    ),
)
#: Rounds of a case that is only there to be seen.
FEW = 3


@dataclass(frozen=True)
class Figure:
    """What one fail-over gave; times in seconds.

    ``gap`` and ``owners`` until ``b`` had the address, ``back_gap`` and ``back_owners``
    until ``a`` had it again; ``kept``: the failed node's kernel still had the address long
    after; ``after``: when the gap was over, from the event on; ``late``: the judge.
    ``at`` and ``back_at`` are Unix times of the event and of the end of the second gap.
    """

    gap: float
    owners: str
    after: float
    kept: bool
    back_gap: float
    back_owners: str
    late: float
    at: float
    back_at: float


class Pair:
    """Two nodes of a kind, and the judge; a context manager."""

    def __init__(self, kind: type[Node], interval: float, directory: Path) -> None:
        self.kind = kind
        self.interval = interval
        self.directory = directory / kind.name
        self.stack = ExitStack()

    def __enter__(self) -> Pair:
        with ExitStack() as stack:
            self.lan = stack.enter_context(Lan(self.kind.name[:1], ["a", "b", "judge"]))
            self.directory.mkdir(parents=True, exist_ok=True)
            new_key_file(self.directory / "cluster.key")
            self.nodes = {}
            for host, priority in PRIORITIES.items():
                place = self.directory / host
                node = self.kind(self.lan, host, place, priority, self.interval)
                self.nodes[host] = node
                stack.callback(node.close)
                node.start()
            self.watch = Watch(self.lan, "judge", ADDRESS, PORT, EVERY)
            stack.callback(self.watch.close)
            self.watch.go()
            self.settle("a", "at the start")
            self.watch.stop()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def settle(self, host: str, when: str) -> None:
        """Wait until that node alone answers."""
        if not self.watch.settled(host, QUIET, 20 + 12 * self.interval):
            tails = "\n".join(node.tail() for node in self.nodes.values())
            raise SystemExit(f"{self.kind.name}: {host} does not answer {when}\n{tails}")

    def round(self, case: Case, phase: float) -> Figure:
        """Have ``a`` fail, and come back."""
        first = self.nodes["a"]
        self.watch.go()
        time.sleep(0.3)
        event = self.watch.await_phase(self.lan.address("a"), self.interval, phase)
        case.fail(first)
        self.settle("b", f"after {case.name}")
        if case.leaves_lease:
            # Ours, of three intervals or a second, must have run out before the look.
            time.sleep(max(0.0, event + max(1.0, 3 * self.interval) + 1.2 - time.monotonic()))
        kept = self.lan.holds("a", ADDRESS)
        answers, late = self.watch.stop()
        self.watch.go()
        time.sleep(0.1)
        case.repair(first)
        self.settle("a", f"after its return from {case.name}")
        back, back_late = self.watch.stop()
        gap, over = longest(answers)
        back_gap, back_over = longest(back)
        unix = time.time() - time.monotonic()
        return Figure(
            gap, owners(answers), over - event, kept, back_gap, owners(back),
            max(late, back_late), event + unix, back_over + unix,
        )  # fmt: skip


def longest(answers: list[tuple[float, str]]) -> tuple[float, float]:
    """Return the longest time between two answers, and when it was over."""
    times = [when for when, _ in answers]
    return max((after - before, after) for before, after in pairwise(times))


def owners(answers: list[tuple[float, str]]) -> str:
    """Return who answered, in order, each as often as he took over."""
    names = [name for _, name in answers]
    return " ".join(
        name for name, before in zip(names, ["", *names], strict=False) if name != before
    )


def spread(values: list[float], unit: float = 1e3) -> str:
    """Return median, least and most, in milliseconds unless told otherwise."""
    return (
        f"{statistics.median(values) * unit:8.1f} ms"
        f" ({min(values) * unit:.1f}-{max(values) * unit:.1f})"
    )


def show(interval: float, case: Case, figures: dict[str, list[Figure]]) -> None:
    """Print the table of one case."""
    rounds = max(map(len, figures.values()))
    print(f"\n{case.name}, interval {interval:g} s, {rounds} rounds")
    gaps = {name: [figure.gap for figure in found] for name, found in figures.items()}
    for name, found in figures.items():
        line = f"  {name:11}{spread(gaps[name])}"
        line += f"  back{spread([figure.back_gap for figure in found])}"
        line += f"  kept {sum(figure.kept for figure in found)}"
        odd = [figure.owners for figure in found if figure.owners != "a b"]
        odd += [figure.back_owners for figure in found if figure.back_owners != "b a"]
        print(line + (f"  odd owners: {', '.join(odd)}" if odd else ""))
    ours, theirs = gaps.get(Ours.name, []), gaps.get(Keepalived.name, [])
    if ours:
        shares = [one / other for one, other in zip(ours, theirs, strict=False)]
        line = ""
        if shares:
            line = f"{statistics.median(shares):.3f} of keepalived's"
            line += f" ({min(shares):.3f}-{max(shares):.3f}); "
        print(f"    {line}{verdict(case, ours, theirs)}")
    late = max(figure.late for found in figures.values() for figure in found)
    print(f"    the judge was at most {late * 1e3:.1f} ms late", flush=True)


def verdict(case: Case, ours: list[float], theirs: list[float]) -> str:
    """Say whether the median is what was aimed at.

    "Not slower" allows what the judge cannot tell apart: the distance of two attempts.
    """
    if case.share is not None and theirs:
        slack = EVERY if case.share == 1.0 else 0.0
        over = [one - case.share * other for one, other in zip(ours, theirs, strict=False)]
        met = statistics.median(over) <= slack
        return f"aim {case.share:g} of it: {'met' if met else 'MISSED'}"
    if case.seconds is not None:
        met = statistics.median(ours) <= case.seconds
        return f"aim {case.seconds * 1e3:g} ms: {'met' if met else 'MISSED'}"
    return "no aim"


def measure(
    interval: float,
    cases: list[Case],
    kinds: list[type[Node]],
    rounds: int,
    directory: Path,
    each: bool = False,
) -> list[object]:
    """Measure all cases at one interval; return what is kept as JSON."""
    results: list[object] = []
    with ExitStack() as stack:
        pairs = [stack.enter_context(Pair(kind, interval, directory)) for kind in kinds]
        for case in cases:
            taking = [pair for pair in pairs if pair.kind in case.kinds]
            figures: dict[str, list[Figure]] = {pair.kind.name: [] for pair in taking}
            count = min(rounds, FEW) if case.few else rounds
            for number in range(count):
                phase = (number + 0.5) / count * interval
                for pair in taking:
                    figure = pair.round(case, phase)
                    figures[pair.kind.name].append(figure)
                    if each:
                        print(f"{phase:.3f} {pair.kind.name} {figure}", flush=True)
            if not taking:
                continue
            show(interval, case, figures)
            by_name = {name: [asdict(one) for one in found] for name, found in figures.items()}
            results.append({"case": case.name, "interval": interval, "figures": by_name})
    return results


def choose(names: list[str]) -> list[type[Node]]:
    """Return the kinds of these names; say which are left out, and why."""
    if lack := missing():
        raise SystemExit(lack)
    kinds = []
    for kind in KINDS:
        if kind.name in names:
            if lack := kind.missing():
                print(f"left out: {kind.name}: {lack}", file=sys.stderr)
            else:
                kinds.append(kind)
    return kinds


def main() -> None:
    """Measure, print the tables, keep the figures as JSON."""
    parser = argparse.ArgumentParser(description="how long a virtual address does not answer")
    parser.add_argument("--intervals", type=float, nargs="+", default=[1.0, 0.1], help="seconds")
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--peers", nargs="+", default=[kind.name for kind in KINDS])
    parser.add_argument("--rounds", type=int, help="default 20; quick 5")
    parser.add_argument("--dir", type=Path, default=HERE / ".work")
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--each", action="store_true", help="print each fail-over")
    parser.add_argument("--cpu", action="store_true", help="what the cluster costs instead")
    options = parser.parse_args()
    cases = [case for case in CASES if case.name in options.cases]
    kinds = choose(options.peers)
    with tidy_end():
        if options.cpu:
            machinery.main(options.dir, options.quick)
            return
        results: list[object] = []
        for interval in options.intervals:
            rounds = options.rounds or (5 if options.quick else 20)
            results += measure(
                interval, cases, kinds, rounds, options.dir / "failover", options.each
            )
            write_results("failover", results, options.dir)


if __name__ == "__main__":
    main()
