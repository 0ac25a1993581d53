"""Proves who has to wait and for how long, that nobody is forgotten too early or kept too long."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.checks import greylisting
from mailsecure.scan.checks.greylisting import Greylist, Ruling, State, Terms
from mailsecure.scan.checks.tables import NETWORK, TRIPLE, Known
from mailsecure.scan.checks.triples import simplified, triple_of

NOW = 1_800_000_000
DAY = 86400
TERMS = Terms(delay=300.0, retry_within=2 * DAY, remember=36 * DAY, trust_after=3)
NET = "192.0.2.0/24"
A, B = triple_of(NET, "a@x.example", "u@us.example"), triple_of(NET, "b@x.example", "u@us.example")

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


class SimplifiedTests(SynchronousTestCase):
    """:func:`simplified` and :func:`triple_of`."""

    def test_simplified(self):
        """What changes from message to message is cut away, and nothing else."""
        for given_path, wanted in (
            ("", ""),
            ("Joe.Doe@Example.COM", "joe.doe@example.com"),
            ("joe+tag42@example.com", "joe@example.com"),
            ("+x@example.com", "+x@example.com"),
            ("prvs=0123abcdef=joe@example.com", "joe@example.com"),
            ("prvs=joe@example.com", "prvs=joe@example.com"),
            ("SRS0=HHhh=TT=orig.example=joe@fwd.example", "srs=orig.example=joe@fwd.example"),
            ("SRS0+a1=2x=orig.example=joe@fwd.example", "srs=orig.example=joe@fwd.example"),
            (
                "SRS1=zz=fwd.example==HHhh=TT=orig.example=joe@fwd2.example",
                "srs=fwd.example=orig.example=joe@fwd2.example",
            ),
            ("list-bounce-20261130-a7f3@l.example", "list-bounce-#-#@l.example"),
            ("msg.123.456@l.example", "msg.#.#@l.example"),
            ("ops@host4.example", "ops@host4.example"),
        ):
            self.assertEqual(simplified(given_path), wanted)

    def test_triples(self):
        """The same for the same, another for any difference, and always of the same length."""
        one = triple_of(NET, "Bounce-17@L.example", "U@us.example")
        self.assertEqual(one, triple_of(NET, "bounce-4711@l.example", "u@us.example"))
        others = {
            triple_of("192.0.3.0/24", "bounce-1@l.example", "u@us.example"),
            triple_of(NET, "bounce-1@m.example", "u@us.example"),
            triple_of(NET, "bounce-1@l.example", "v@us.example"),
        }
        self.assertEqual(len(others | {one}), 4)
        self.assertEqual({len(each) for each in others}, {32})

    @given(st.text(max_size=70), st.text(max_size=70), st.text(max_size=70))
    def test_anything(self, network, sender, recipient):
        """Any text has a triple, and simplifying twice changes nothing more."""
        self.assertEqual(len(triple_of(network, sender, recipient)), 32)
        self.assertNotIn("\x00#", simplified(sender))


class Case(SynchronousTestCase):
    def setUp(self):
        self.greylist = Greylist(TERMS, telling=True)

    def ask(self, triple=A, after=0.0, network=NET):
        return self.greylist.ask(network, triple, NOW + after)

    def state(self, *arguments, **more):
        ruling = self.ask(*arguments, **more)
        self.assertEqual(
            ruling.seconds == 0, ruling.state in (State.PASSED, State.KNOWN, State.TRUSTED)
        )
        return ruling.state


class AskTests(Case):
    """:meth:`Greylist.ask`."""

    def test_life(self):
        """New, waiting, passed, known; the time to wait is told, and never starts again."""
        self.assertEqual(self.ask(), Ruling(State.NEW, 300))
        self.assertEqual(self.ask(after=100.5), Ruling(State.WAITING, 200))
        self.assertEqual(self.ask(after=299.9), Ruling(State.WAITING, 1))
        self.assertEqual(self.ask(after=300), Ruling(State.PASSED))
        self.assertEqual(self.ask(after=301), Ruling(State.KNOWN))
        self.assertEqual(self.greylist.counts, {"waiting": 0, "passed": 1, "networks": 1})

    def test_too_late(self):
        """Who comes again after retry_within is new."""
        self.ask()
        self.assertEqual(self.state(after=2 * DAY), State.PASSED)
        self.ask(B)
        self.assertEqual(self.state(B, after=2 * DAY + 1), State.NEW)

    def test_remembered(self):
        """Who passed is known for a while since he last came."""
        self.ask()
        self.ask(after=300)
        for days in (30, 60, 95):
            self.assertEqual(self.state(after=days * DAY), State.KNOWN)
        self.assertEqual(self.state(after=131 * DAY + 1), State.NEW)

    def test_trust(self):
        """A network that passed often enough passes at once, while it is used."""
        for number in range(3):
            self.assertEqual(self.state(f"t{number}"), State.NEW)
        for number in range(3):
            self.assertEqual(self.state(f"t{number}", after=300), State.PASSED)
        self.assertEqual(self.state("t4", after=301), State.TRUSTED)
        self.assertEqual(self.state("t4", after=301, network="198.51.100.0/24"), State.NEW)
        self.assertEqual(self.state("t5", after=30 * DAY), State.TRUSTED)
        self.assertEqual(self.state("t6", after=60 * DAY), State.TRUSTED)
        self.assertEqual(self.state("t7", after=97 * DAY), State.NEW)

    def test_no_trust(self):
        """trust_after 0 trusts nobody."""
        self.greylist.reconfigure(Terms(300.0, 2 * DAY, 36 * DAY, 0))
        for number in range(10):
            self.ask(f"t{number}")
            self.ask(f"t{number}", after=300)
        self.assertEqual(self.state("other", after=301), State.NEW)

    def test_no_delay(self):
        """Without a delay a stranger still has to come twice."""
        self.greylist.reconfigure(Terms(0.0, 2 * DAY, 36 * DAY, 0))
        self.assertEqual(self.ask(), Ruling(State.NEW, 1))
        self.assertEqual(self.ask(), Ruling(State.PASSED))

    def test_clock_set_back(self):
        """A clock that was wrong makes a stranger begin anew, never wait for years."""
        self.ask(after=400 * DAY)
        self.assertEqual(self.ask(), Ruling(State.NEW, 300))
        self.ask(after=300)
        self.assertEqual(self.state(after=-DAY), State.KNOWN)

    def test_bounds(self):
        """A flood of strangers pushes out strangers, and nobody who passed."""
        self.patch(greylisting, "MAX_WAITING", 10)
        self.patch(greylisting, "MAX_PASSED", 5)
        self.greylist = Greylist(TERMS)
        self.ask()
        self.ask(after=300)
        for number in range(100):
            self.ask(f"t{number}", after=300)
        self.assertEqual(self.state(after=301), State.KNOWN)
        self.assertEqual(self.greylist.counts["waiting"], 10)
        self.assertEqual(self.state("t0", after=601), State.NEW)
        self.assertEqual(self.state("t99", after=601), State.PASSED)
        self.greylist.reconfigure(Terms(300.0, 2 * DAY, 36 * DAY, 0))
        for number in range(92, 99):
            self.ask(f"t{number}", after=601)
            self.assertEqual(self.state(after=601), State.KNOWN)
        self.assertEqual(self.greylist.counts["passed"], 5)

    def test_forgetting(self):
        """What is over goes by itself, a little with each question."""
        for number in range(10):
            self.ask(f"t{number}")
        for number in range(20):
            self.ask(f"u{number}", after=3 * DAY)
        self.assertEqual(self.greylist.counts["waiting"], 20)


class FileTests(Case):
    """What is written, and read again."""

    def test_changes(self):
        """What is new is to be written, once; so is what passed."""
        self.ask()
        self.ask(B)
        self.assertEqual(self.greylist.changes(1), [Known(TRIPLE, A, NOW, NOW, 0)])
        self.assertEqual(self.greylist.changes(9), [Known(TRIPLE, B, NOW, NOW, 0)])
        self.ask(after=300)
        self.assertEqual(
            self.greylist.changes(9),
            [Known(TRIPLE, A, NOW, NOW + 300, 1), Known(NETWORK, NET, NOW + 300, NOW + 300, 1)],
        )
        self.assertEqual(self.greylist.changes(9), [])

    def test_use(self):
        """That something is still used is written now and then, not each time."""
        self.ask()
        self.ask(after=300)
        self.greylist.changes(9)
        for minute in range(60):
            self.ask(after=400 + 60 * minute)
        self.assertEqual(self.greylist.changes(9), [])
        self.ask(after=DAY)
        self.assertEqual(self.greylist.changes(9), [Known(TRIPLE, A, NOW, NOW + DAY, 1)])

    def test_again(self):
        """What could not be written is written later; a lost file is written whole."""
        self.ask()
        rows = self.greylist.changes(9)
        self.greylist.not_written(rows)
        self.assertEqual(self.greylist.changes(9), rows)
        self.ask(after=300)
        self.ask(B)
        self.ask("third")
        rows = self.greylist.changes(9)
        self.greylist.all_changed()
        again = self.greylist.changes(3)
        self.assertEqual(len(again), 3)
        self.ask(B, after=300)
        again += self.greylist.changes(9)
        self.assertEqual({row.key for row in again}, {row.key for row in rows})
        self.assertEqual(self.greylist.changes(9), [])

    def test_restart(self):
        """Read again, everything is as it was."""
        self.ask()
        self.ask(after=300)
        self.ask(B)
        again = Greylist(TERMS)
        again.load(self.greylist.changes(9))
        self.assertEqual(again.counts, self.greylist.counts)
        self.assertEqual(again.changes(9), [])
        self.assertEqual(again.ask(NET, A, NOW + 400), Ruling(State.KNOWN))
        self.assertEqual(again.ask(NET, B, NOW + 100), Ruling(State.WAITING, 200))

    def test_nobody_writes(self):
        """Notes are bounded, and one of what is forgotten is empty."""
        self.patch(greylisting, "MAX_WAITING", 3)
        self.patch(greylisting, "MAX_NOTES", 5)
        self.greylist = Greylist(TERMS)
        for number in range(10):
            self.ask(f"t{number}")
        self.assertEqual([row.key for row in self.greylist.changes(99)], ["t7", "t8", "t9"])


class SharedTests(Case):
    """What nodes tell each other."""

    def setUp(self):
        super().setUp()
        self.other = Greylist(TERMS, telling=True)

    def tell(self, after=0.0, rows=None):
        self.other.heard(
            "one", self.greylist.news(99) if rows is None else rows, False, NOW + after
        )

    def test_elsewhere(self):
        """Who came here and comes again there passes, and is known here, too."""
        self.ask()
        self.tell()
        self.assertEqual(self.other.ask(NET, A, NOW + 100), Ruling(State.WAITING, 200))
        self.assertEqual(self.other.ask(NET, A, NOW + 300), Ruling(State.PASSED))
        self.greylist.heard("other", self.other.news(99), False, NOW + 301)
        self.assertEqual(self.state(after=302), State.KNOWN)
        self.assertEqual(self.greylist.counts, self.other.counts)

    def test_no_echo(self):
        """What was heard is written here, and not told again."""
        self.ask()
        self.tell()
        self.assertEqual(self.other.news(99), [])
        self.assertEqual(self.other.changes(99), [Known(TRIPLE, A, NOW, NOW, 0)])

    def test_alone(self):
        """Without a cluster nothing is gathered."""
        alone = Greylist(TERMS)
        alone.ask(NET, A, NOW)
        self.assertEqual(alone.news(99), [])

    def test_twice(self):
        """Hearing something twice, or something older, changes nothing."""
        for number in range(2):
            self.ask(f"t{number}")
            self.ask(f"t{number}", after=300)
        waiting = [[TRIPLE, "t0", NOW, NOW, 0], [TRIPLE, B, NOW, NOW, 0]]
        rows = self.greylist.news(99)
        self.tell(300, rows + waiting)
        self.other.changes(99)
        self.tell(301, rows + waiting + [[NETWORK, NET, NOW, NOW + 1, 1]])
        self.assertEqual(self.other.changes(99), [])
        self.assertEqual(self.other.ask(NET, "t0", NOW + 302), Ruling(State.KNOWN))
        self.assertEqual(self.other.counts, {"waiting": 1, "passed": 2, "networks": 1})

    def test_kinder(self):
        """Where nodes differ, the earlier first time, the later last one and more passes win."""
        self.ask(after=0)
        self.other.ask(NET, A, NOW + 200)
        self.tell(200)
        self.assertEqual(self.other.ask(NET, A, NOW + 300), Ruling(State.PASSED))
        rows = [[TRIPLE, A, NOW, NOW + DAY, 1], [NETWORK, NET, NOW, NOW + DAY, 3]]
        self.tell(DAY, rows)
        self.assertEqual(self.other.ask(NET, "new", NOW + DAY), Ruling(State.TRUSTED))
        self.assertEqual(self.other.ask(NET, A, NOW + 37 * DAY), Ruling(State.KNOWN))

    def test_old(self):
        """What is over by now is not taken, and a fast clock over there is put right."""
        self.tell(37 * DAY, [[TRIPLE, A, NOW, NOW, 1], [TRIPLE, B, NOW, NOW, 0]])
        self.assertEqual(self.other.counts, {"waiting": 0, "passed": 0, "networks": 0})
        self.tell(0, [[TRIPLE, A, NOW + 5000, NOW + 5000, 0]])
        self.assertEqual(self.other.ask(NET, A, NOW + 300), Ruling(State.PASSED))

    def test_everything(self):
        """A node that knows nothing is told what matters, within bounds."""
        self.patch(greylisting, "EVERYTHING", 8)
        self.greylist.reconfigure(Terms(300.0, 2 * DAY, 36 * DAY, 0))
        for number in range(6):
            self.ask(f"p{number}", network=f"net{number}")
            self.ask(f"p{number}", network=f"net{number}", after=300)
        for number in range(6):
            self.ask(f"w{number}", after=300)
        rows = self.greylist.everything(NOW + 301)
        self.assertEqual(
            [row[1] for row in rows], ["net5", "net4", "w5", "w4", "w3", "p5", "p4", "p3"]
        )
        self.tell(301, rows)
        self.assertEqual(self.other.ask(NET, "p5", NOW + 302), Ruling(State.KNOWN))
        self.assertEqual(self.greylist.everything(NOW + 300 * DAY), [])
        self.greylist.gone("other")

    @given(json_like)
    def test_nonsense(self, row):
        """Whatever is said, nothing but RemoteFault comes of it."""
        with self.assertRaises(RemoteFault):
            self.other.heard("one", [row], False, NOW)

    def test_out_of_bounds(self):
        """Every bound holds, and of a message with one bad row nothing is taken."""
        good = [TRIPLE, A, NOW, NOW, 1]
        for column, wrong in enumerate(("x", "", -1, 1 << 41, 1001)):
            with self.assertRaises(RemoteFault):
                self.tell(0, [good, [*good[:column], wrong, *good[column + 1 :]]])
        for row in ([TRIPLE, "k" * 65, 1, 1, 1], [TRIPLE, A, True, 1, 1], [TRIPLE, A, 1.0, 1, 1]):
            with self.assertRaises(RemoteFault):
                self.tell(0, [good, row])
        self.assertEqual(self.other.counts["passed"], 0)


class Machine(RuleBasedStateMachine):
    """Two nodes that tell each other everything at once, beside a dictionary that is right."""

    def __init__(self):
        super().__init__()
        self.terms = Terms(300.0, 2 * DAY, 36 * DAY, 0)
        self.nodes = [Greylist(self.terms, telling=True), Greylist(self.terms, telling=True)]
        self.now = NOW
        #: Of each node: since when a key waits there, and when it was last used there.
        self.first: list[dict[str, int]] = [{}, {}]
        self.used: list[dict[str, int]] = [{}, {}]
        #: When that was last told.
        self.told: dict[str, int] = {}

    def knows(self, node, key):
        used = self.used[node].get(key)
        return used is not None and self.now - used <= self.terms.remember

    @rule(seconds=st.sampled_from([0, 1, 299, 300, 3600, DAY, 3 * DAY, 36 * DAY]))
    def wait(self, seconds):
        self.now += seconds

    @rule(node=st.sampled_from([0, 1]), key=st.sampled_from("abc"))
    def come(self, node, key):
        ruling = self.nodes[node].ask(NET, key, self.now)
        first = self.first[node].get(key)
        if self.knows(node, key):
            assert ruling.state is State.KNOWN
            self.used[node][key] = self.now
            # That it is still used is told now and then only.
            if self.now - self.told[key] > self.terms.remember / 50:
                self.tell_use(key)
        elif first is None or self.now - first > self.terms.retry_within:
            assert ruling == Ruling(State.NEW, 300)
            self.first[node][key] = self.now
            if not self.knows(1 - node, key):
                self.first[1 - node].setdefault(key, self.now)
                if self.now - self.first[1 - node][key] > self.terms.retry_within:
                    self.first[1 - node][key] = self.now
        elif self.now - first < self.terms.delay:
            assert ruling == Ruling(State.WAITING, 300 - (self.now - first))
        else:
            assert ruling.state is State.PASSED
            self.tell_use(key)
        self.nodes[1 - node].heard("x", self.nodes[node].news(99), False, self.now)

    def tell_use(self, key):
        self.told[key] = self.now
        for node in (0, 1):
            self.used[node][key] = self.now
            self.first[node].pop(key, None)

    @invariant()
    def nobody_twice(self):
        """Nobody waits and has passed."""
        for node in self.nodes:
            assert not set(node._waiting.records) & set(node._passed.records)


class MachineTests(SynchronousTestCase):
    """The rules above, in any order."""

    def test_two_nodes(self):
        """What two nodes say together is what one would."""
        bounds = settings(max_examples=60, stateful_step_count=30, deadline=None)
        run_state_machine_as_test(Machine, settings=bounds)
