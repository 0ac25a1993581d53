"""The guard: turns, deadlines, the breaker, health, and what is told of it all."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.errors import RemoteFault
from mailsecure.scan.api import ScannerFault, Unscannable
from mailsecure.scan.engines import guard, health
from mailsecure.scan.engines.guard import EngineCheck, Refused
from mailsecure.scan.engines.health import IDLE, LOOK
from mailsecure.scan.engines.turns import Crowded, Turns
from mailsecure.scan.engines.wires import Unreachable
from mailsecure.scan.values import NOTHING, Finding, Special, Stage, Symbol
from mailsecure.spool.values import SpoolBroken
from tests.scan.engines.net import EPOCH, Net, make_facts, make_site

USUAL = "connections = 2\ntimeout = 10s\nfailures = 2\npause = 20s\n"
FOUND = Finding((Symbol("X", 7.0),))


class Scripted:
    """An engine whose answers are in our hands."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Finding]] = []
        self.probes: list[Deferred[None]] = []
        self.life = ""

    def start(self) -> None:
        """Begin."""
        self.life += "start "

    def close(self) -> None:
        """End."""
        self.life += "close"

    async def scan(self, facts: Any, content: Any) -> Finding:
        """Wait for the test."""
        self.asked.append(Deferred())
        return await self.asked[-1]

    async def probe(self) -> None:
        """Wait for the test."""
        self.probes.append(Deferred())
        await self.probes[-1]


class GuardTests(SynchronousTestCase):
    """An EngineCheck around a scripted engine: two at once, ten seconds, two failures."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.engine = Scripted()
        self.check = self.make()

    def make(self, options: str = "", oversized: bool = True, usual: str = USUAL) -> EngineCheck:
        ini = f"[clamav]\n{usual}{options}"
        site = make_site(Net(), self.clock, ini)
        return EngineCheck(
            "clamav",
            site.world,
            site.config.clamav,
            self.engine,
            1000,
            site.config.scan.on_failure,
            oversized,
        )

    def ask(self, body: bytes = b"\r\n") -> Deferred[Finding]:
        return Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(body)))

    def failure(self, answer: Deferred[Finding]) -> Symbol:
        (symbol,) = self.successResultOf(answer).symbols
        self.assertEqual(symbol.name, "CLAMAV_FAILED")
        self.assertIs(symbol.special, Special.FAILURE)
        return symbol

    def strike(self, times: int = 2) -> None:
        for _ in range(times):
            answer = self.ask()
            self.engine.asked[-1].errback(Unreachable("refused"))
            self.failure(answer)

    def test_finding(self) -> None:
        """What the engine finds is what the check finds."""
        self.assertEqual((self.check.name, self.check.stages), ("clamav", {Stage.DATA}))
        self.assertEqual(self.check.limit, 10)
        answer = self.ask()
        self.clock.advance(3)
        self.engine.asked[0].callback(FOUND)
        self.assertIs(self.successResultOf(answer), FOUND)
        report = self.check.report()
        self.assertEqual((report["scanned"], report["found"], report["failures"]), (1, 1, 0))
        self.assertEqual((report["median"], report["last"], report["state"]), (3, 3, "well"))

    def test_nothing_there(self) -> None:
        """Before DATA there is nothing to judge."""
        facts = make_facts()
        facts.content = None
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, facts))
        self.assertIs(self.successResultOf(answer), NOTHING)

    def test_too_large(self) -> None:
        """Unscannable, or simply not judged here; the engine is not asked."""
        (symbol,) = self.successResultOf(self.ask(b"x" * 1001)).symbols
        self.assertEqual((symbol.name, symbol.special), ("UNSCANNABLE", Special.UNSCANNABLE))
        self.assertEqual(symbol.reason, "1001 are more than clamav takes (1000)")
        self.check = self.make(oversized=False)
        self.assertIs(self.successResultOf(self.ask(b"x" * 1001)), NOTHING)
        self.assertEqual(self.engine.asked, [])

    def test_turns(self) -> None:
        """Two at once; the others wait in order, and waiting counts against the deadline."""
        answers = [self.ask() for _ in range(4)]
        self.assertEqual(len(self.engine.asked), 2)
        self.assertEqual((self.check.report()["busy"], self.check.report()["waiting"]), (2, 2))
        self.clock.advance(6)
        self.engine.asked[0].callback(NOTHING)
        self.assertEqual(len(self.engine.asked), 3)
        self.clock.advance(4)
        self.assertEqual(self.failure(answers[1]).reason, "no answer within 10 s")
        for answer in answers[2:]:
            self.assertEqual(self.failure(answer).reason, "it had to wait too long for its turn")
        self.assertEqual(self.check.report()["state"], "well")
        self.assertEqual((self.check.report()["busy"], self.check.report()["waiting"]), (0, 0))

    def test_down_while_waiting(self) -> None:
        """Who waits for a turn when it goes down fails at once; who is there may be judged."""
        first, second, waits = self.ask(), self.ask(), self.ask()
        self.strike_twice()
        self.assertEqual(self.failure(waits).reason, "it is down: refused")
        self.engine.asked[0].errback(ScannerFault("reset"))
        self.failure(first)
        self.assertEqual(self.check.report()["state"], "down")
        self.engine.asked[1].callback(FOUND)
        self.assertIs(self.successResultOf(second), FOUND)
        self.assertEqual(self.check.report()["state"], "well")

    def test_down_between(self) -> None:
        """It went down in the moment in which a turn was given."""
        first, second, waits = self.ask(), self.ask(), self.ask()
        self.strike_twice_in_silence()
        self.engine.asked[0].errback(Refused("no"))
        self.failure(first)
        self.assertIn("it is down", self.failure(waits).reason)
        self.assertEqual(len(self.engine.asked), 2)
        self.assertNoResult(second)

    def strike_twice_in_silence(self) -> None:
        for _ in range(2):
            self.check._health._breaker.failed(0.0)

    def strike_twice(self) -> None:
        for _ in range(2):
            self.check._health.failed("refused")

    def test_crowd(self) -> None:
        """The queue has an end, which is no sign that the engine is down."""
        self.patch(guard, "MAX_WAITING", 1)
        self.check = self.make()
        for _ in range(3):
            self.ask()
        for _ in range(5):
            self.assertIn("wait for it already", self.failure(self.ask()).reason)
        self.assertEqual(self.check.report()["state"], "well")

    def test_down(self) -> None:
        """Connections refused in a row take it down: messages fail at once, also who waits."""
        one, two, _, waits = self.ask(), self.ask(), self.ask(), self.ask()
        self.engine.asked[0].errback(Unreachable("refused\n\x1b[2J"))
        self.assertEqual(self.failure(one).reason, "refused [2J")
        self.engine.asked[1].errback(Unreachable("refused"))
        self.failure(two)
        self.assertEqual(self.failure(waits).reason, "it is down: refused")
        self.assertEqual(self.failure(self.ask()).reason, "it is down: refused")
        report = self.check.report()
        self.assertEqual((report["state"], report["last_error"]), ("down", "refused"))
        self.assertEqual(report["failures"], 4)

    def test_not_by_messages(self) -> None:
        """Messages that break an engine, or keep it too long, do not take it down for others."""
        self.start()
        self.engine.probes[0].callback(None)
        for fault in (ScannerFault("reset"), RemoteFault("gibberish"), None) * 20:
            answer = self.ask()
            if fault is None:
                self.clock.advance(10)
                self.assertEqual(self.failure(answer).reason, "no answer within 10 s")
            else:
                self.engine.asked[-1].errback(fault)
                self.assertEqual(self.failure(answer).reason, str(fault))
            self.assertEqual(self.check.report()["state"], "well")
            if not self.engine.probes[-1].called:
                self.engine.probes[-1].callback(None)
        self.assertEqual(self.check.report()["last_error"], "no answer within 10 s")

    def test_hung(self) -> None:
        """Nothing is heard of it: asked, again and again, before the first was too long there.

        With the defaults of the ini, one message a second: the first that fails at once came
        before the first of all was given up.
        """
        self.check = self.make("connections = 50", usual="")
        self.start()
        self.engine.probes[0].callback(None)
        self.pass_time(3)
        answers = []
        while self.check.report()["state"] == "well":
            answers.append(self.ask())
            self.pass_time(1)
        self.assertLess(len(answers), 25)
        self.assertEqual(self.failure(self.ask()).reason, self.why_down())
        self.assertFalse(answers[0].called)
        self.pass_time(10)
        self.assertEqual(self.failure(answers[0]).reason, "no answer within 30 s")

    def why_down(self) -> str:
        return "it is down: no answer when asked how it is"

    def test_hung_and_doubted(self) -> None:
        """A message that was not judged and a ping that was not answered agree."""
        self.start()
        self.engine.probes[0].callback(None)
        answer = self.ask()
        self.engine.asked[0].errback(ScannerFault("reset"))
        self.failure(answer)
        self.pass_time(LOOK)
        self.assertEqual(len(self.engine.probes), 2)
        self.engine.probes[1].errback(ScannerFault("reset, too"))
        self.assertEqual(self.check.report()["state"], "down")
        self.assertEqual(self.failure(self.ask()).reason, "it is down: reset, too")

    def test_doubted_while_busy(self) -> None:
        """With others there it is asked all the same, and at once."""
        self.start()
        self.engine.probes[0].callback(None)
        stays, breaks = self.ask(), self.ask()
        self.engine.asked[1].errback(ScannerFault("reset"))
        self.failure(breaks)
        self.pass_time(LOOK)
        self.assertEqual(len(self.engine.probes), 2)
        self.engine.probes[1].callback(None)
        self.pass_time(LOOK)
        self.assertEqual(len(self.engine.probes), 2)
        self.assertNoResult(stays)

    def test_on_failure(self) -> None:
        """Its own setting, if there is one, is the action; else [scan]'s is for the verdict."""
        for option, action in (
            ("", None),
            ("on_failure = accept", ScanAction.ACCEPT),
            ("on_failure = tempfail", ScanAction.TEMPFAIL),
        ):
            self.check = self.make(option)
            answer = self.ask()
            self.engine.asked[-1].errback(ScannerFault("no"))
            self.assertIs(self.failure(answer).action, action)

    def test_well(self) -> None:
        """Down is not well, unless mail goes on without it."""
        self.assertTrue(self.check.well)
        self.strike()
        self.assertFalse(self.check.well)
        for option, well in (("on_failure = accept", True), ("[scan]\non_failure = accept", True)):
            self.check = self.make(option)
            self.strike()
            self.assertIs(self.check.well, well)
        self.check = self.make("on_failure = tempfail\n[scan]\non_failure = accept")
        self.strike()
        self.assertFalse(self.check.well)

    def test_refused(self) -> None:
        """An engine that cannot judge this message is not down for that."""
        for _ in range(5):
            answer = self.ask()
            self.engine.asked[-1].errback(Refused("no memory"))
            self.assertEqual(self.failure(answer).reason, "no memory")
        self.assertEqual(self.check.report()["state"], "well")

    def test_unscannable(self) -> None:
        """A message that cannot be read was judged all the same."""
        self.strike(1)
        answer = self.ask()
        self.engine.asked[-1].errback(Unscannable("too deep"))
        (symbol,) = self.successResultOf(answer).symbols
        self.assertEqual((symbol.special, symbol.reason), (Special.UNSCANNABLE, "too deep"))
        self.strike(1)
        self.assertEqual(self.check.report()["state"], "well")
        self.assertEqual(self.check.report()["found"], 1)

    def test_our_disk(self) -> None:
        """A body that cannot be read is no fault of the engine's, and not hidden."""
        for _ in range(5):
            answer = self.ask()
            self.engine.asked[-1].errback(SpoolBroken("disk"))
            self.failureResultOf(answer, SpoolBroken)
        self.assertEqual(self.check.report()["state"], "well")
        self.assertEqual(self.check.report()["busy"], 0)

    def test_cancelled(self) -> None:
        """A session that is over takes its question back, which is no sign of anything."""
        for _ in range(5):
            answer = self.ask()
            self.clock.advance(9)
            answer.cancel()
            self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.check.report()["last_error"], "")
        self.assertEqual(self.check.report()["busy"], 0)

    # -- health

    def start(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.check.start()))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([LOOK] * int(seconds / LOOK))

    def test_probe_at_start(self) -> None:
        """It is asked at once, and then when it was idle for a while."""
        self.start()
        self.engine.probes[0].callback(None)
        self.pass_time(IDLE - LOOK)
        self.assertEqual(len(self.engine.probes), 1)
        self.pass_time(LOOK)
        self.assertEqual(len(self.engine.probes), 2)

    def test_work_is_health(self) -> None:
        """Who judges messages is not asked."""
        self.start()
        self.engine.probes[0].callback(None)
        self.pass_time(IDLE - 3 * LOOK)
        answer = self.ask()
        self.pass_time(3 * LOOK)
        self.engine.asked[0].callback(NOTHING)
        self.successResultOf(answer)
        self.pass_time(IDLE - LOOK)
        self.assertEqual(len(self.engine.probes), 1)

    def test_found_out(self) -> None:
        """An idle engine that goes away is known to be down before a message comes."""
        self.start()
        for _ in range(2):
            self.engine.probes[-1].errback(ScannerFault("refused"))
            self.pass_time(LOOK)
        self.assertEqual(self.check.report()["state"], "down")
        self.assertEqual(len(self.engine.probes), 2)
        self.assertEqual(self.failure(self.ask()).reason, "it is down: refused")

    def test_back(self) -> None:
        """A probe after the pause lets messages in again; nobody's message had to find out."""
        self.start()
        self.engine.probes[0].callback(None)
        self.strike()
        self.pass_time(19)
        self.assertEqual(len(self.engine.probes), 1)
        self.pass_time(1)
        self.assertEqual(self.check.report()["state"], "trying")
        self.assertIn("it is down", self.failure(self.ask()).reason)
        self.engine.probes[1].callback(None)
        self.assertEqual(self.check.report()["state"], "well")
        self.assertEqual(self.check.report()["since"], EPOCH + 20)
        answer = self.ask()
        self.engine.asked[-1].callback(NOTHING)
        self.successResultOf(answer)

    def test_silent_probe(self) -> None:
        """A probe has a deadline of its own."""
        self.start()
        self.pass_time(health.PROBE)
        self.assertEqual(self.check.report()["last_error"], "no answer when asked how it is")
        self.assertEqual(len(self.engine.probes), 2)

    def test_broken_probe(self) -> None:
        """An unexpected exception is logged, and the next look asks again."""
        self.start()
        self.engine.probes[0].errback(RuntimeError("bug"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.pass_time(LOOK)
        self.assertEqual(len(self.engine.probes), 2)

    def test_stop(self) -> None:
        """After the end nothing is asked, and what was under way is let go."""
        self.start()
        self.successResultOf(Deferred.fromCoroutine(self.check.stop()))
        self.assertEqual(self.engine.life, "start close")
        self.assertTrue(self.engine.probes[0].called)
        self.pass_time(100)
        self.assertEqual(len(self.engine.probes), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_log(self) -> None:
        """Down and back: a line each, whatever happens in between."""
        told: list[str] = []
        self.patch(health, "_log", Ears(told))
        self.start()
        self.engine.probes[0].callback(None)
        self.strike()
        for _ in range(3):
            self.pass_time(20)
            self.engine.probes[-1].errback(ScannerFault("still"))
        self.failure(self.ask())
        self.assertEqual(told, ["error engine clamav is down: refused"])
        self.pass_time(20)
        self.engine.probes[-1].callback(None)
        self.assertEqual(told[1:], ["info engine clamav is back after 1m20s"])


class Ears:
    """A logger that keeps what it is told."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def __getattr__(self, level: str) -> Any:
        def say(text: str, **fields: Any) -> None:
            self._told.append(f"{level} {text.format(**fields)}")

        return say


class TurnsTests(SynchronousTestCase):
    """Turns by themselves."""

    def test_many(self) -> None:
        """Thousands whose turn is over at once do not call each other."""
        turns = Turns(1, 5000)
        over = []

        async def visit(wait: Deferred[None] | None = None) -> None:
            async with turns:
                if wait is not None:
                    await wait
            over.append(1)

        first: Deferred[None] = Deferred()
        Deferred.fromCoroutine(visit(first))
        for _ in range(5000):
            Deferred.fromCoroutine(visit())
        self.failureResultOf(Deferred.fromCoroutine(visit()), Crowded)
        first.callback(None)
        self.assertEqual(len(over), 5001)
        self.assertEqual((turns.busy, turns.waiting), (0, 0))

    def test_order(self) -> None:
        """Who comes later does not pass who waits."""
        turns = Turns(1, 5)
        order = []
        waits: list[Deferred[None]] = [Deferred() for _ in range(3)]

        async def visit(number: int) -> None:
            async with turns:
                order.append(number)
                await waits[number]

        visits = [Deferred.fromCoroutine(visit(number)) for number in range(3)]
        visits[1].cancel()
        self.failureResultOf(visits[1], CancelledError)
        waits[0].callback(None)
        self.assertEqual(order, [0, 2])
