"""Proves that a whole cluster, on a bad network, always comes to exactly one Master."""

from pathlib import Path

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.keys import KeyRing, format_keys, new_key
from mailsecure.cluster.values import Fitness, Role
from tests.cluster.simulation import NOTICED, Simulation

KEYS = format_keys(KeyRing((new_key(bytes(range(32))),)))


def key_file(directory):
    path = Path(directory).absolute()
    path.mkdir(parents=True, exist_ok=True)
    path = path / "cluster.key"
    path.write_text(KEYS)
    path.chmod(0o600)
    return path


class SimulationTestCase(SynchronousTestCase):
    """A simulation that ends with its test."""

    interval = "1s"

    def setUp(self):
        self.simulation = Simulation(key_file(self.mktemp()))
        self.addCleanup(self.simulation.close)

    def nodes(self, *priorities, **options):
        """Add nodes with these priorities, start them, and let them settle."""
        nodes = [
            self.simulation.add(priority=str(each), advertisement_interval=self.interval, **options)
            for each in priorities
        ]
        for node in nodes:
            node.start()
        self.simulation.advance(10)
        return nodes

    def assertMaster(self, node):
        told = self.simulation.told()
        self.assertEqual([each.name for each in self.simulation.masters], [node.name], told)
        self.assertEqual([each.name for each in self.simulation.owners], [node.name], told)


class LifeTests(SimulationTestCase):
    """What becomes of a cluster when one of its nodes changes."""

    def test_the_highest_priority(self):
        """Whoever starts first."""
        low, high, middle = self.nodes(50, 200, 100)
        self.assertMaster(high)
        self.assertEqual((low.group.master, middle.group.master), ("mx2", "mx2"))

    def test_equal_priorities(self):
        """The first that is Master stays; nobody preempts an equal."""
        one, two = self.nodes(100, 100)
        self.assertMaster(one if one.role is Role.MASTER else two)

    def test_killed(self):
        """The heir is Master as soon as the death is known, without its skew time."""
        high, low, _ = self.nodes(200, 100, 50)
        high.kill()
        self.simulation.advance(NOTICED + 0.0001)
        self.assertEqual(self.simulation.masters, [low])
        self.simulation.advance(3)
        self.assertMaster(low)

    def test_killed_and_started(self):
        """The white paper's restarts: with start_as backup it takes over at the next word."""
        high, low = self.nodes(200, 50)
        high.kill()
        self.simulation.advance(5)
        high.start()
        self.assertIs(high.role, Role.BACKUP)
        self.simulation.advance(1.2)
        self.assertMaster(high)
        self.assertIs(low.role, Role.BACKUP)

    def test_started_as_master(self):
        """With start_as master it takes over at its first."""
        high, _ = self.nodes(200, 50, start_as="master")
        high.kill()
        self.simulation.advance(5)
        high.start()
        self.assertIs(high.role, Role.MASTER)
        self.simulation.advance(1.2)
        self.assertMaster(high)

    def test_stopped_in_good_order(self):
        """The address never is without an owner."""
        high, low = self.nodes(200, 50)
        high.stop()
        for _ in range(20):
            self.simulation.advance(0.0005)
            self.assertGreater(len(self.simulation.owners), 0)
        self.simulation.advance(1)
        self.assertMaster(low)

    def test_frozen(self):
        """Its kernel lets go before the other takes over; thawed, it stands back."""
        high, low = self.nodes(200, 50)
        high.freeze()
        for _ in range(50):
            self.simulation.advance(0.1)
            self.assertLess(len(self.simulation.owners), 2)
        self.assertEqual(self.simulation.owners, [low])
        self.simulation.advance(10)
        high.thaw()
        self.assertNotIn(high, self.simulation.owners)
        self.simulation.advance(3)
        self.assertMaster(high)

    def test_a_backup_that_was_frozen(self):
        """Reads what waited before it believes its timer."""
        high, low = self.nodes(200, 50)
        low.freeze()
        self.simulation.advance(60)
        low.thaw()
        self.simulation.advance(5)
        self.assertMaster(high)
        self.assertEqual(low.group.changes, 1)

    def test_two_best_die(self):
        """One after another."""
        first, second, third = self.nodes(200, 150, 100)
        first.kill()
        self.simulation.advance(0.001)
        second.kill()
        self.simulation.advance(5)
        self.assertMaster(third)

    def test_takeover_and_resignation(self):
        """By the postmaster's word, for a time."""
        high, low = self.nodes(200, 50)
        low.service.takeover("mail", 60)
        self.simulation.advance(0.01)
        self.assertMaster(low)
        self.simulation.advance(62)
        self.assertMaster(high)
        high.service.resign("mail", 60)
        self.simulation.advance(0.01)
        self.assertMaster(low)
        self.simulation.advance(62)
        self.assertMaster(high)

    def test_unfit(self):
        """A node that cannot take mail leaves it to one that can, until it is well."""
        high, low = self.nodes(200, 50)
        high.fitness = Fitness.SPOOL
        self.simulation.advance(2)
        self.assertMaster(low)
        low.fitness = Fitness.SPOOL
        self.simulation.advance(20)
        self.assertMaster(low)
        self.assertLess(low.group.changes, 4)
        high.fitness = low.fitness = Fitness.FIT
        self.simulation.advance(20)
        self.assertMaster(high)

    def test_without_preemption(self):
        """A Master stays."""
        high, low = self.nodes(200, 50, preempt="no")
        self.assertEqual(len(self.simulation.masters), 1)
        high.kill()
        self.simulation.advance(5)
        high.start()
        self.simulation.advance(10)
        self.assertMaster(low)


class NetworkTests(SimulationTestCase):
    """What becomes of it when the network is bad."""

    def test_partition(self):
        """Each side has a Master; healed, the best one within two intervals."""
        nodes = self.nodes(200, 150, 100, 50)
        self.simulation.partition({1, 3})
        self.simulation.advance(30)
        self.assertEqual([each.number for each in self.simulation.masters], [1, 2])
        self.simulation.cut.clear()
        self.simulation.advance(2)
        self.assertMaster(nodes[0])
        for node in nodes:
            self.assertEqual(node.service.watch.two_masters, {})

    def test_one_direction(self):
        """Whoever cannot make himself heard is not Master beside another."""
        high, low = self.nodes(200, 50)
        for pair in ((1, 2), (2, 1)):
            self.simulation.cut = {pair}
            self.simulation.advance(30)
            self.assertEqual(len(self.simulation.masters), 1, self.simulation.told())
            changes = high.group.changes + low.group.changes
            self.simulation.advance(60)
            self.assertEqual(changes, high.group.changes + low.group.changes)
            self.simulation.cut.clear()
            self.simulation.advance(2)
            self.assertMaster(high)

    def test_one_direction_of_three(self):
        """The third, which hears both, does not make them take turns."""
        nodes = self.nodes(200, 100, 50)
        self.simulation.cut = {(1, 3)}
        self.simulation.advance(30)
        changes = [node.group.changes for node in nodes]
        self.simulation.advance(120)
        self.assertEqual(changes, [node.group.changes for node in nodes], self.simulation.told())
        self.simulation.cut.clear()
        self.simulation.advance(3)
        self.assertMaster(nodes[0])

    def test_loss(self):
        """A third lost, doubled, late and out of order: no change of role in an hour."""
        nodes = self.nodes(200, 100, 50)
        changes = [node.group.changes for node in nodes]
        self.simulation.loss, self.simulation.doubled, self.simulation.jitter = 0.3, 0.1, 0.05
        self.simulation.advance(3600)
        self.assertEqual(changes, [node.group.changes for node in nodes], self.simulation.told())
        self.assertMaster(nodes[0])

    def test_lost_resignation(self):
        """It is soon said again: that and a skew time, no master down interval."""
        high, low, _ = self.nodes(200, 100, 50)
        interval = high.service.interval
        self.simulation.cut = {(1, 2), (1, 3)}
        high.service.resign("mail", 60)
        self.simulation.advance(0.001)
        self.assertEqual(self.simulation.masters, [])
        self.simulation.cut.clear()
        self.simulation.advance(0.8 * interval)
        self.assertMaster(low)

    def test_doubled_and_out_of_order(self):
        """Nothing changes."""
        nodes = self.nodes(200, 100, 50)
        changes = [node.group.changes for node in nodes]
        self.simulation.doubled, self.simulation.jitter = 0.5, 0.4 * nodes[0].service.interval
        self.simulation.advance(600 * nodes[0].service.interval)
        self.assertEqual(changes, [node.group.changes for node in nodes], self.simulation.told())
        self.assertMaster(nodes[0])

    def test_a_day(self):
        """Nothing happens, and no table grows."""
        high, low = self.nodes(200, 50)
        self.simulation.advance(86_400)
        self.assertMaster(high)
        self.assertEqual((high.group.changes, low.group.changes), (2, 1))
        said = high.service.hellos_sent
        self.assertLess(abs(said - 86_410), 20)


class QuickTests(NetworkTests):
    """The same at a tenth of a second."""

    interval = "100ms"

    def test_loss(self):
        """A third lost for a minute."""
        nodes = self.nodes(200, 100, 50)
        changes = [node.group.changes for node in nodes]
        self.simulation.loss = 0.3
        self.simulation.advance(60)
        self.assertEqual(changes, [node.group.changes for node in nodes], self.simulation.told())

    def test_a_day(self):
        """An hour is enough here."""
        high, low = self.nodes(200, 50)
        self.simulation.advance(3600)
        self.assertMaster(high)
        self.assertEqual((high.group.changes, low.group.changes), (2, 1))


class Anything(RuleBasedStateMachine):
    """Whatever is done to a cluster: once it is left alone, it has one Master, the best."""

    def __init__(self):
        super().__init__()
        self.simulation = Simulation("cluster.key")

    def teardown(self):
        self.simulation.close()

    @initialize(
        data=st.data(),
        seed=st.integers(0, 1000),
        priorities=st.lists(st.integers(2, 254), min_size=2, max_size=7),
    )
    def nodes(self, data, seed, priorities):
        """Equal priorities too."""
        self.simulation.random.seed(seed)
        self.simulation.key_file = key_file("anything")
        for priority in priorities:
            start_as = data.draw(st.sampled_from(("master", "backup")))
            delay = data.draw(st.sampled_from(("0s", "0s", "1s")))
            self.simulation.add(
                priority=str(priority), start_as=start_as, preempt_delay=delay
            ).start()

    def some(self, data):
        return data.draw(st.sampled_from(self.simulation.nodes), label="node")

    @rule(seconds=st.sampled_from((0.001, 0.3, 1.0, 4.0, 15.0)))
    def wait(self, seconds):
        self.simulation.advance(seconds)

    @rule(data=st.data(), what=st.sampled_from(("kill", "stop", "freeze", "thaw")))
    def end(self, data, what):
        getattr(self.some(data), what)()

    @rule(data=st.data())
    def start(self, data):
        node = self.some(data)
        if node.service is None:
            node.start()

    @rule(data=st.data(), seconds=st.sampled_from((0.5, 5.0)))
    def command(self, data, seconds):
        node = self.some(data)
        if node.runs and node.service.running:
            word = data.draw(st.sampled_from((node.service.resign, node.service.takeover)))
            word(None, seconds)

    @rule(data=st.data(), priority=st.integers(2, 254))
    def reconfigure(self, data, priority):
        node = self.some(data)
        if node.runs and node.service.running:
            node.options["priority"] = str(priority)
            node.service.prepared(node.config())()

    @rule(data=st.data())
    def cut(self, data):
        numbers = [node.number for node in self.simulation.nodes]
        pairs = [(one, other) for one in numbers for other in numbers if one != other]
        self.simulation.cut |= set(data.draw(st.lists(st.sampled_from(pairs), max_size=8)))

    @rule(data=st.data())
    def partition(self, data):
        numbers = [node.number for node in self.simulation.nodes]
        self.simulation.partition(data.draw(st.sets(st.sampled_from(numbers))))

    @rule(data=st.data(), up=st.booleans())
    def interface(self, data, up):
        """An interface goes down; only its node is told, the network is another rule's."""
        self.some(data).kernel.set_up("eth0", up)

    @rule(
        loss=st.sampled_from((0.0, 0.3, 0.9)),
        doubled=st.sampled_from((0.0, 0.3)),
        jitter=st.sampled_from((0.0, 0.05, 2.0)),
    )
    def spoil(self, loss, doubled, jitter):
        simulation = self.simulation
        simulation.loss, simulation.doubled, simulation.jitter = loss, doubled, jitter

    @precondition(lambda self: self.simulation.nodes)
    @rule()
    def heal(self):
        """Two intervals after the network and the nodes are well, there is one Master."""
        simulation = self.simulation
        for node in simulation.nodes:
            node.thaw()
            node.kernel.set_up("eth0", True)
        simulation.loss = simulation.doubled = simulation.jitter = 0.0
        # Commands run out, and what was late arrives.
        simulation.advance(6)
        simulation.cut.clear()
        # A preemption that is delayed by a second begins at the Master's first word, and
        # another may begin when the first one is over.
        delayed = any(node.options["preempt_delay"] != "0s" for node in simulation.nodes)
        simulation.advance(4.05 if delayed else 2.05)
        running = [node for node in simulation.nodes if node.runs and node.service.running]
        if not running:
            return
        best = max(node.group.priority for node in running)
        told = simulation.told()
        assert [node.group.priority for node in simulation.masters] == [best], told
        assert simulation.owners == simulation.masters, told


class AnythingTests(SynchronousTestCase):
    """Runs the rules."""

    def test_rules(self):
        """In any order."""
        run_state_machine_as_test(
            Anything,
            # Shrinking would take longer than reading what happened.
            settings=settings(
                max_examples=100,
                stateful_step_count=30,
                deadline=None,
                phases=(Phase.explicit, Phase.reuse, Phase.generate),
            ),
        )
