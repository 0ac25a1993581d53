"""Proves the election row by row: the table of VRRP, and what goes beyond it."""

import math
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.election import (
    LONGEST_GRACE,
    LONGEST_LOOK,
    Election,
    Settings,
    master_down_interval,
    skew,
)
from mailsecure.cluster.values import (
    CLAIMED,
    RESIGNED,
    STANDING_BACK,
    Advertise,
    Advertisement,
    Announce,
    Ask,
    Changed,
    DropAddresses,
    RefreshLease,
    Role,
    TakeAddresses,
    View,
)

OURS = ip_address("192.0.2.11")
LOWER, HIGHER = ip_address("192.0.2.9"), ip_address("192.0.2.12")
ALONE = View(heir=True, heard=True, others=False)
HEIR = View(heir=True, heard=True, others=True)
SECOND = View(heir=False, heard=True, others=True)
UNHEARD = View(heir=True, heard=False, others=True)
NOW = 1000.0


def said(priority, interval=1.0, address=HIGHER, node="mx1", deaf=False):
    return Advertisement(node, address, priority, interval, deaf)


def to_master(reason, priority, old=Role.BACKUP):
    """What becoming Master is."""
    changed = Changed(old, Role.MASTER, reason)
    return (TakeAddresses(), Advertise(priority), Announce(), changed)


class FormulaTests(SynchronousTestCase):
    """The intervals, to the microsecond."""

    def test_table(self):
        """The figures of the design."""
        for interval, priority, expected_skew, expected_down in (
            (1.0, 200, 0.21875, 3.21875),
            (1.0, 50, 0.8046875, 3.8046875),
            (1.0, 100, 0.609375, 3.609375),
            (0.1, 50, 0.08046875, 0.38046875),
            (3.0, 50, 2.4140625, 11.4140625),
        ):
            self.assertAlmostEqual(skew(priority, interval), expected_skew, 9)
            self.assertAlmostEqual(master_down_interval(priority, interval), expected_down, 9)

    @given(st.integers(1, 255), st.floats(0.01, 40.95))
    def test_the_higher_priority_waits_less(self, priority, interval):
        """Which is what skew is for."""
        lower = master_down_interval(priority, interval)
        self.assertLess(master_down_interval(priority + 1, interval), lower)


class ElectionTestCase(SynchronousTestCase):
    """One node, priority 100, interval 1 s, unless a test says otherwise."""

    def election(self, priority=100, **settings):
        return Election(Settings(priority, settings.pop("interval", 1.0), **settings), OURS)

    def backup(self, priority=100, master=None, **settings):
        election = self.election(priority, **settings)
        election.start(NOW)
        self.assertIs(election.role, Role.BACKUP)
        if master is not None:
            election.advertisement(NOW, master, SECOND)
        return election

    def master(self, priority=100, **settings):
        election = self.election(priority, start_as_master=True, **settings)
        election.start(NOW)
        self.assertIs(election.role, Role.MASTER)
        return election

    def run_out(self, election, view=HEIR):
        """Let the down timer fire, and its last look; return what came of it."""
        effects = ()
        for _ in range(100):
            now = election.deadline
            effects = [*effects, *election.tick(now, view)]
            if election.role is Role.MASTER:
                return now, [each for each in effects if each != Ask()]
        raise AssertionError("it never became Master")


class InitTests(ElectionTestCase):
    """Rows of Init."""

    def test_starts_as_master(self):
        """start_as = master: the white paper's first restart case."""
        election = self.election(start_as_master=True)
        self.assertEqual(election.start(NOW), to_master("started as Master", 100, Role.INIT))
        self.assertEqual(election.deadline, NOW + 1)

    def test_owner(self):
        """Priority 255 starts as Master."""
        election = self.election(255)
        self.assertEqual(election.start(NOW), to_master("started as Master", 255, Role.INIT))

    def test_starts_as_backup(self):
        """Otherwise it listens for its own master down interval."""
        election = self.election()
        self.assertEqual(election.start(NOW), (Changed(Role.INIT, Role.BACKUP, "started"),))
        now, _ = self.run_out(election, ALONE)
        self.assertAlmostEqual(now, NOW + 3.609375, 2)

    def test_ignores(self):
        """Stop, advertisements, deaths, faults: nothing, and no deadline."""
        election = self.election()
        self.assertEqual(election.stop(NOW, HEIR), ())
        self.assertEqual(election.advertisement(NOW, said(1), HEIR), ())
        self.assertEqual(election.gone(NOW, "mx1", HEIR), ())
        self.assertEqual(election.fault(NOW, "down"), ())
        self.assertEqual(election.tick(NOW, HEIR), ())
        self.assertEqual(election.deadline, math.inf)

    def test_a_second_start(self):
        """Is none."""
        self.assertEqual(self.backup().start(NOW), ())


class BackupTests(ElectionTestCase):
    """Rows of Backup."""

    def test_stop(self):
        """Says nothing, and has no addresses to drop."""
        election = self.backup()
        changed = Changed(Role.BACKUP, Role.INIT, "stopped")
        self.assertEqual(election.stop(NOW, HEIR), (changed,))
        self.assertEqual(election.deadline, math.inf)

    def test_down_timer(self):
        """The Master is silent for a master down interval of ours."""
        election = self.backup(master=said(200))
        now, effects = self.run_out(election)
        self.assertAlmostEqual(now, NOW + 3.609375 + LONGEST_LOOK, 9)
        self.assertEqual(tuple(effects), to_master("nothing heard from mx1", 100))

    def test_last_look(self):
        """What arrived while the reactor was held up counts before the timer does."""
        election = self.backup(master=said(200))
        late = NOW + 60
        while election.tick(late, HEIR) == (Ask(),):
            pass
        self.assertIs(election.role, Role.BACKUP)
        election.advertisement(late, said(200), HEIR)
        self.assertEqual(election.tick(late + 0.002, HEIR), ())
        self.assertGreater(election.deadline, late + 1)

    def test_resigns_and_we_are_the_heir(self):
        """Nobody outranks us: at once."""
        election = self.backup(master=said(200))
        effects = election.advertisement(NOW + 1, said(RESIGNED), HEIR)
        self.assertEqual(effects, to_master("mx1 resigned", 100))

    def test_resigns_and_another_is_the_heir(self):
        """After the skew time, as in VRRP."""
        election = self.backup(master=said(200))
        self.assertEqual(election.advertisement(NOW + 1, said(RESIGNED), SECOND), ())
        self.assertAlmostEqual(election.deadline, NOW + 1 + 0.609375, 9)
        self.assertIsNone(election.master)

    def test_resigns_who_is_not_the_master(self):
        """Another's resignation is nothing to us."""
        election = self.backup(master=said(200))
        before = election.deadline
        self.assertEqual(election.advertisement(NOW, said(RESIGNED, node="mx3"), HEIR), ())
        self.assertEqual(election.deadline, before)

    def test_higher_or_equal(self):
        """Followed, whatever the addresses: its interval counts, and the timer begins anew."""
        for priority in (100, 200):
            for address in (LOWER, HIGHER):
                election = self.backup(interval=10.0)
                said_so = said(priority, 2.0, address)
                self.assertEqual(election.advertisement(NOW + 1, said_so, HEIR), ())
                self.assertEqual(election.master, "mx1")
                now, _ = self.run_out(election)
                self.assertAlmostEqual(now, NOW + 1 + master_down_interval(100, 2.0), 2)

    def test_lower_without_preemption(self):
        """Followed too."""
        election = self.backup(preempt=False)
        self.assertEqual(election.advertisement(NOW + 1, said(50), HEIR), ())
        self.assertEqual(election.master, "mx1")

    def test_lower(self):
        """The white paper's second restart case, 200 against 50: Master at once."""
        election = self.backup(200)
        effects = election.advertisement(NOW + 1, said(50), HEIR)
        self.assertEqual(effects, to_master("preempts mx1", 200))

    def test_lower_with_a_delay(self):
        """Only while the lower one goes on, and after the delay."""
        election = self.backup(200, preempt_delay=2.5)
        for second in (0, 1, 2):
            self.assertEqual(election.advertisement(NOW + second, said(50), HEIR), ())
        self.assertEqual(election.deadline, NOW + 2.5)
        self.assertEqual(election.tick(NOW + 2.5, HEIR), to_master("preempts mx1", 200))

    def test_delay_ends_with_a_better_master(self):
        """Another outranks us: there is nothing to preempt any more."""
        election = self.backup(200, preempt_delay=2.5)
        election.advertisement(NOW, said(50), HEIR)
        election.advertisement(NOW + 1, said(250, node="mx3"), HEIR)
        self.assertGreater(election.deadline, NOW + 2.5 - 0.01)
        election.tick(NOW + 2.5, HEIR)
        self.assertIs(election.role, Role.BACKUP)

    def test_delay_over_but_not_heard(self):
        """Whoever some candidate does not hear leaves the Master alone."""
        election = self.backup(200, preempt_delay=1.2)
        election.advertisement(NOW, said(50), HEIR)
        self.assertEqual(election.tick(NOW + 1.2, UNHEARD), ())
        self.assertIs(election.role, Role.BACKUP)

    def test_gone_heir(self):
        """The link says that the Master's process ended."""
        election = self.backup(master=said(200))
        self.assertEqual(election.gone(NOW + 1, "mx1", HEIR), to_master("mx1 is gone", 100))

    def test_gone_second(self):
        """Then the other heir has the skew time to speak, and no more than was left."""
        election = self.backup(master=said(200))
        election.gone(NOW + 1, "mx1", SECOND)
        self.assertAlmostEqual(election.deadline, NOW + 1 + 0.609375, 9)
        election = self.backup(master=said(200))
        election.gone(NOW + 3.5, "mx1", SECOND)
        self.assertAlmostEqual(election.deadline, NOW + 3.609375, 9)

    def test_gone_another(self):
        """The death of who is not Master."""
        election = self.backup(master=said(200))
        self.assertEqual(election.gone(NOW + 1, "mx3", HEIR), ())
        self.assertEqual(election.master, "mx1")

    def test_asks(self):
        """An overdue advertisement is asked for each eighth of an interval."""
        election = self.backup(master=said(200))
        asked = []
        while election.deadline < NOW + 2.3:
            now = election.deadline
            self.assertEqual(election.tick(now, HEIR), (Ask(),))
            asked.append(round(now - NOW, 6))
        self.assertEqual(asked, [1.5, 1.625, 1.75, 1.875, 2.0, 2.125, 2.25])
        election.advertisement(NOW + 2.3, said(200), HEIR)
        self.assertEqual(election.deadline, NOW + 2.3 + 1.5)

    def test_too_early(self):
        """A tick that is not due does nothing."""
        self.assertEqual(self.backup().tick(NOW, HEIR), ())
        self.assertEqual(self.master().tick(NOW, HEIR), ())

    def test_deaf_master(self):
        """Who does not hear us is not preempted, but counts as Master."""
        election = self.backup(200)
        self.assertEqual(election.advertisement(NOW, said(50, deaf=True), HEIR), ())
        self.assertEqual(election.master, "mx1")

    def test_not_heard_by_all(self):
        """Nobody preempts whom some candidate cannot hear."""
        election = self.backup(200)
        self.assertEqual(election.advertisement(NOW, said(50), UNHEARD), ())

    def test_a_better_master_is_heard(self):
        """Then a lesser one is that one's business, for as long as it is heard."""
        election = self.backup(100, master=said(200))
        before = election.deadline
        lesser = said(50, node="mx3")
        self.assertEqual(election.advertisement(NOW + 1, lesser, HEIR), ())
        self.assertEqual((election.master, election.deadline), ("mx1", before))
        effects = election.advertisement(NOW + 2, lesser, HEIR)
        self.assertEqual(effects, to_master("preempts mx3", 100))

    def test_a_better_master_ended(self):
        """Then a lesser one is preempted at once."""
        election = self.backup(100, master=said(200))
        election.advertisement(NOW + 0.5, said(RESIGNED), SECOND)
        effects = election.advertisement(NOW + 1, said(50, node="mx3"), HEIR)
        self.assertEqual(effects, to_master("preempts mx3", 100))

    def test_the_master_itself_became_lesser(self):
        """Its priority was lowered by a reload: we preempt at its next word."""
        election = self.backup(100, master=said(200))
        effects = election.advertisement(NOW + 1, said(50), HEIR)
        self.assertEqual(effects, to_master("preempts mx1", 100))

    def test_delay_ends_with_another_decision(self):
        """A preemption that waits is not carried out by a node that would not preempt now."""
        for decide in (
            lambda election: election.stand_back(NOW + 2, NOW + 60, "because", HEIR),
            lambda election: election.reconfigure(NOW + 2, Settings(200, 1.0, preempt=False)),
            lambda election: election.reconfigure(NOW + 2, Settings(20, 1.0)),
        ):
            election = self.backup(200, preempt_delay=2.5)
            for second in (0, 1, 2):
                election.advertisement(NOW + second, said(50), HEIR)
            self.assertEqual(decide(election), ())
            self.assertEqual(election.tick(NOW + 2.5, HEIR), ())
            election.advertisement(NOW + 3, said(50), HEIR)
            election.tick(election.deadline, HEIR)
            self.assertIs(election.role, Role.BACKUP)

    def test_delay_ends_with_the_master(self):
        """It resigned, and another may have the first word: the delay is of no account."""
        election = self.backup(200, preempt_delay=0.2)
        election.advertisement(NOW, said(50), HEIR)
        election.advertisement(NOW + 0.1, said(RESIGNED), SECOND)
        self.assertEqual(election.tick(NOW + 0.2, SECOND), ())
        self.assertIs(election.role, Role.BACKUP)


class MasterTests(ElectionTestCase):
    """Rows of Master."""

    def test_stop(self):
        """Resigns, and keeps the addresses until the heir speaks, for a moment at most."""
        for interval, grace in ((1.0, LONGEST_GRACE), (0.1, 0.1)):
            election = self.master(interval=interval)
            self.assertEqual(
                election.stop(NOW, HEIR),
                (
                    Advertise(RESIGNED),
                    DropAddresses(grace),
                    Changed(Role.MASTER, Role.INIT, "stopped"),
                ),
            )

    def test_stop_alone(self):
        """Nobody takes over: the addresses go at once."""
        self.assertIn(DropAddresses(0.0), self.master().stop(NOW, ALONE))

    def test_timer(self):
        """Advertises, and refreshes the lease."""
        election = self.master()
        for second in (1, 2, 3):
            effects = election.tick(NOW + second, HEIR)
            self.assertEqual(effects, (Advertise(100), RefreshLease()))
            self.assertEqual(election.deadline, NOW + second + 1)

    def test_timer_that_comes_late(self):
        """Small delays do not add up; after a large one nothing is hurried."""
        election = self.master()
        election.tick(NOW + 1.25, HEIR)
        self.assertEqual(election.deadline, NOW + 2)
        election.tick(NOW + 3.75, HEIR)
        self.assertEqual(election.deadline, NOW + 4.25)

    def test_hung(self):
        """Later than a master down interval: the addresses go before anything is said."""
        election = self.master()
        effects = election.tick(NOW + 1 + 3.61, HEIR)
        self.assertEqual(effects[0], DropAddresses(0.0))
        self.assertEqual((effects[1].old, effects[1].new), (Role.MASTER, Role.BACKUP))
        self.assertNotIn(Advertise, [type(each) for each in effects])

    def test_late(self):
        """Not that late: goes on."""
        election = self.master()
        effects = election.tick(NOW + 1 + 3.6, HEIR)
        self.assertEqual(effects, (Advertise(100), RefreshLease()))

    def test_another_resigns(self):
        """We advertise, so that everybody knows who is left."""
        self.assertEqual(self.master().advertisement(NOW, said(RESIGNED), HEIR), (Advertise(100),))

    def test_outranked(self):
        """Higher, or equal from the higher address: Backup, without a word."""
        for other in (said(101, address=LOWER), said(100, address=HIGHER)):
            election = self.master()
            self.assertEqual(
                election.advertisement(NOW + 0.5, other, HEIR),
                (
                    DropAddresses(0.0),
                    Changed(Role.MASTER, Role.BACKUP, "mx1 has the higher rank"),
                ),
            )
            self.assertEqual(election.master, "mx1")
            now, _ = self.run_out(election)
            self.assertAlmostEqual(now, NOW + 0.5 + 3.609375, 2)

    def test_outranked_before_a_third(self):
        """Whoever outranked us is the better Master: a lesser one is its business."""
        election = self.master()
        election.advertisement(NOW, said(200), HEIR)
        self.assertEqual(election.advertisement(NOW + 1, said(50, node="mx3"), HEIR), ())
        self.assertEqual(election.master, "mx1")

    def test_ipv6_outranks_ipv4(self):
        """Addresses of two families are compared too, the same way everywhere."""
        election = self.master()
        election.advertisement(NOW, said(100, address=ip_address("2001:db8::1")), HEIR)
        self.assertIs(election.role, Role.BACKUP)

    def test_any_other(self):
        """Lower, or equal from the lower address: we speak, and announce again."""
        for other in (said(99, address=HIGHER), said(100, address=LOWER)):
            election = self.master()
            self.assertEqual(election.advertisement(NOW, other, HEIR), (Advertise(100), Announce()))
            self.assertIs(election.role, Role.MASTER)

    def test_a_deaf_one(self):
        """One that does not hear us cannot step down: after a master down interval we do."""
        election = self.master()
        for second in range(4):
            election.advertisement(NOW + second, said(50, deaf=True), HEIR)
            self.assertIs(election.role, Role.MASTER)
        effects = election.advertisement(NOW + 4, said(50, deaf=True), HEIR)
        self.assertEqual(effects[0], DropAddresses(0.0))
        self.assertEqual(election.reason, "mx1 is Master too and does not hear us")
        # And it stays Backup while the other goes on like that.
        self.assertEqual(election.advertisement(NOW + 5, said(50, deaf=True), HEIR), ())

    def test_deaf_with_a_pause(self):
        """What was long ago, or was over in between, does not count."""
        election = self.master()
        election.advertisement(NOW, said(50, deaf=True), HEIR)
        election.advertisement(NOW + 20, said(50, deaf=True), HEIR)
        election.advertisement(NOW + 21, said(50), HEIR)
        election.advertisement(NOW + 24, said(50, deaf=True), HEIR)
        self.assertIs(election.role, Role.MASTER)

    def test_deaf_in_an_earlier_time_as_master(self):
        """Counts no more."""
        election = self.master()
        for second in range(4):
            election.advertisement(NOW + second, said(50, deaf=True), HEIR)
        election.advertisement(NOW + 3.2, said(200, node="mx3"), HEIR)
        election.advertisement(NOW + 3.3, said(RESIGNED, node="mx3"), HEIR)
        self.assertIs(election.role, Role.MASTER)
        election.advertisement(NOW + 4, said(50, deaf=True), HEIR)
        self.assertIs(election.role, Role.MASTER)


class CommandTests(ElectionTestCase):
    """What a postmaster, or this node's health, says."""

    def test_stand_back(self):
        """Resigns to the others, and takes over only where nobody else does."""
        election = self.master(200)
        self.assertEqual(
            election.stand_back(NOW, NOW + 60, "because", HEIR),
            (
                Advertise(RESIGNED),
                DropAddresses(LONGEST_GRACE),
                Changed(Role.MASTER, Role.BACKUP, "because"),
            ),
        )
        self.assertEqual(election.effective_priority(NOW + 59), STANDING_BACK)
        self.assertEqual(election.advertisement(NOW + 1, said(50), HEIR), ())
        now, effects = self.run_out(election)
        self.assertAlmostEqual(now, NOW + 1 + master_down_interval(STANDING_BACK, 1.0), 2)
        self.assertIn(Advertise(STANDING_BACK), effects)

    def test_until(self):
        """When the time is over its priority counts again."""
        election = self.master(200)
        election.stand_back(NOW, NOW + 60, "because", HEIR)
        effects = election.advertisement(NOW + 60, said(50), HEIR)
        self.assertEqual(effects, to_master("preempts mx1", 200))

    def test_stand_back_alone(self):
        """Who has nobody to stand back for stays, and says so."""
        election = self.master(200)
        effects = election.stand_back(NOW, math.inf, "because", ALONE)
        self.assertEqual(effects, (Advertise(STANDING_BACK),))
        self.assertIs(election.role, Role.MASTER)
        self.assertEqual(election.come_forward(NOW), (Advertise(200),))

    def test_stand_back_as_backup(self):
        """Nothing to resign from; and an end of it is nothing either."""
        election = self.backup(200, master=said(250))
        self.assertEqual(election.stand_back(NOW, math.inf, "because", HEIR), ())
        self.assertEqual(election.advertisement(NOW, said(50, node="mx3"), HEIR), ())
        self.assertEqual(election.come_forward(NOW), ())
        self.assertEqual(election.effective_priority(NOW), 200)

    def test_stand_back_before_the_start(self):
        """Then it does not start as Master."""
        election = self.election(255)
        election.stand_back(NOW, math.inf, "because", ALONE)
        election.start(NOW)
        self.assertIs(election.role, Role.BACKUP)

    def test_claim(self):
        """Outranks everybody, whatever preempt says, and while it lasts."""
        election = self.backup(50, master=said(200), preempt=False)
        effects = election.claim(NOW, NOW + 60)
        self.assertEqual(effects, to_master("told to take over", CLAIMED))
        self.assertEqual(
            election.advertisement(NOW + 1, said(255), HEIR), (Advertise(CLAIMED), Announce())
        )
        election.advertisement(NOW + 60, said(255), HEIR)
        self.assertIs(election.role, Role.BACKUP)

    def test_claim_ends_standing_back(self):
        """The later word counts, after its time too; so it does the other way round."""
        election = self.backup(200)
        election.stand_back(NOW, NOW + 60, "because", HEIR)
        election.claim(NOW + 1, NOW + 10)
        self.assertEqual(election.effective_priority(NOW + 9), CLAIMED)
        self.assertEqual(election.effective_priority(NOW + 11), 200)
        election.claim(NOW + 11, NOW + 90)
        election.stand_back(NOW + 12, NOW + 20, "because", HEIR)
        self.assertEqual(election.effective_priority(NOW + 19), STANDING_BACK)
        self.assertEqual(election.effective_priority(NOW + 21), 200)

    def test_claim_as_master(self):
        """Says so."""
        self.assertEqual(self.master().claim(NOW, NOW + 60), (Advertise(CLAIMED),))

    def test_claim_in_trouble(self):
        """Is kept until the trouble is over; then whoever is Master is preempted at once."""
        election = self.election(50, preempt=False, preempt_delay=10.0)
        self.assertEqual(election.claim(NOW, NOW + 60), ())
        election.recovered(NOW + 1)
        effects = election.advertisement(NOW + 2, said(200), HEIR)
        self.assertEqual(effects, to_master("preempts mx1", CLAIMED))

    def test_fault(self):
        """The addresses go at once, without a word; after it we listen, whatever start_as."""
        election = self.master()
        changed = Changed(Role.MASTER, Role.INIT, "eth0 is down")
        self.assertEqual(election.fault(NOW, "eth0 is down"), (DropAddresses(0.0), changed))
        self.assertEqual(election.fault(NOW, "again"), ())
        election.recovered(NOW + 5)
        self.assertIs(election.role, Role.BACKUP)
        self.assertEqual(election.recovered(NOW + 6), ())

    def test_fault_of_a_backup(self):
        """Nothing to drop."""
        changed = Changed(Role.BACKUP, Role.INIT, "eth0 is down")
        self.assertEqual(self.backup().fault(NOW, "eth0 is down"), (changed,))

    def test_reconfigure(self):
        """A Master says its new priority at once; a Backup waits for the next word."""
        election = self.master(200)
        settings = Settings(50, 0.1)
        self.assertEqual(election.reconfigure(NOW + 0.5, settings), (Advertise(50),))
        self.assertAlmostEqual(election.deadline, NOW + 0.6, 9)
        backup = self.backup(50, master=said(200))
        self.assertEqual(backup.reconfigure(NOW, Settings(250, 1.0)), ())
        effects = backup.advertisement(NOW, said(200), HEIR)
        self.assertEqual(effects, to_master("preempts mx1", 250))


class DayTests(ElectionTestCase):
    """Three elections that hear each other, for a day."""

    def test_a_day(self):
        """The best is Master at all times, in step to the millisecond; the others ask nothing."""
        names = {"mx1": LOWER, "mx2": OURS, "mx3": HIGHER}
        elections = {
            name: Election(Settings(priority, 1.0), address)
            for (name, address), priority in zip(names.items(), (200, 100, 50), strict=True)
        }
        now, end, changes, said_so = NOW, NOW + 86_400, [], 0
        for election in elections.values():
            election.start(now)
        while now < end:
            name = min(elections, key=lambda each: elections[each].deadline)
            now = elections[name].deadline
            for effect in elections[name].tick(now, HEIR if name == "mx1" else SECOND):
                self.assertNotIsInstance(effect, Ask if changes else DropAddresses)
                if isinstance(effect, Changed):
                    changes.append((name, effect.new))
                if isinstance(effect, Advertise):
                    said_so += 1
                    for other in elections.keys() - {name}:
                        advertisement = said(effect.priority, 1.0, names[name], name)
                        effects = elections[other].advertisement(now, advertisement, SECOND)
                        self.assertEqual(effects, ())
        self.assertEqual(changes, [("mx1", Role.MASTER)])
        # The first when 3.21875 s were over, with the last look.
        self.assertEqual(said_so, 86_400 - 2)
        self.assertLess(now - end, 1.0)


views = st.builds(View, st.booleans(), st.booleans(), st.booleans())
all_settings = st.builds(
    Settings,
    st.integers(1, 255),
    st.sampled_from((0.01, 0.1, 1.0, 40.0)),
    st.booleans(),
    st.sampled_from((0.0, 0.2, 5.0)),
    st.booleans(),
)
advertisements = st.builds(
    said,
    st.integers(RESIGNED, CLAIMED),
    st.sampled_from((0.01, 0.1, 1.0, 40.0)),
    st.sampled_from((LOWER, HIGHER)),
    st.sampled_from(("mx1", "mx3")),
    st.booleans(),
)
durations = st.sampled_from((0.001, 0.1, 1.0, 50.0))


class AnyElection(RuleBasedStateMachine):
    """Whatever an election is told, what it wants done fits together."""

    def __init__(self):
        super().__init__()
        self.now = NOW
        self.holds = False

    @initialize(settings=all_settings)
    def make(self, settings):
        self.settings = settings
        self.election = Election(settings, OURS)

    def do(self, method, *arguments):
        """Call ``method``, and check its effects against what was before."""
        before = self.election.role
        effects = method(self.now, *arguments)
        after = self.election.role
        kinds = [type(each) for each in effects]
        changes = [each for each in effects if isinstance(each, Changed)]
        if before is after:
            assert not changes
        else:
            assert changes == [Changed(before, after, self.election.reason)]
        for each in effects:
            if isinstance(each, TakeAddresses):
                assert not self.holds
                self.holds = True
            elif isinstance(each, DropAddresses):
                assert self.holds
                self.holds = False
            elif isinstance(each, Advertise):
                assert self.holds
                ours = self.election.effective_priority(self.now)
                assert each.priority == (RESIGNED if DropAddresses in kinds else ours)
            elif isinstance(each, (Announce, RefreshLease)):
                assert self.holds
            elif isinstance(each, Ask):
                assert after is Role.BACKUP
        if DropAddresses in kinds:
            assert Advertise(RESIGNED) in effects or DropAddresses(0.0) in effects
        return effects

    def preempted(self):
        return self.election.reason.startswith("preempts")

    # -- what it is told

    @rule(delay=durations)
    def wait(self, delay):
        self.now += delay

    @rule()
    def start(self):
        self.do(self.election.start)

    @rule(view=views)
    def stop(self, view):
        self.do(self.election.stop, view)

    @rule(advertisement=advertisements, view=views)
    def hear(self, advertisement, view):
        before = self.election.role
        self.do(self.election.advertisement, advertisement, view)
        if before is Role.BACKUP and self.election.role is Role.MASTER and self.preempted():
            self.may_preempt(view)
            ours = self.election.effective_priority(self.now)
            assert advertisement.priority < ours and not advertisement.deaf

    def may_preempt(self, view):
        ours = self.election.effective_priority(self.now)
        assert view.heard
        assert ours == CLAIMED or self.settings.preempt

    @rule(node=st.sampled_from(("mx1", "mx3")), view=views)
    def die(self, node, view):
        self.do(self.election.gone, node, view)

    @rule(until=durations, view=views)
    def stand_back(self, until, view):
        self.do(self.election.stand_back, self.now + until, "because", view)

    @rule()
    def come_forward(self):
        self.do(self.election.come_forward)

    @rule(until=durations)
    def claim(self, until):
        self.do(self.election.claim, self.now + until)

    @rule()
    def fault(self):
        self.do(self.election.fault, "trouble")
        assert self.election.role is Role.INIT

    @rule()
    def recover(self):
        before = self.election.role
        self.do(self.election.recovered)
        assert self.election.role is (Role.BACKUP if before is Role.INIT else before)

    @rule(settings=all_settings)
    def reconfigure(self, settings):
        self.settings = settings
        self.do(self.election.reconfigure, settings)

    @rule(view=views)
    def tick(self, view):
        """At any time, due or not."""
        self.ticked(view)

    @precondition(lambda self: self.election.deadline < math.inf)
    @rule(view=views)
    def tick_when_due(self, view):
        """Each tick that is due moves the deadline on: a few at most, then time must pass."""
        self.now = max(self.now, self.election.deadline)
        for _ in range(4):
            self.ticked(view)
            if self.election.deadline > self.now:
                return
        raise AssertionError(f"due again and again: {self.election.deadline}")

    def ticked(self, view):
        before = self.election.role
        self.do(self.election.tick, view)
        if before is Role.BACKUP and self.election.role is Role.MASTER and self.preempted():
            self.may_preempt(view)
            # Nobody has a lower priority than a node that stands back.
            assert self.election.effective_priority(self.now) != STANDING_BACK

    # -- what is always so

    @invariant()
    def fits_together(self):
        election = getattr(self, "election", None)
        if election is None:
            return
        assert self.holds == (election.role is Role.MASTER)
        assert (election.deadline == math.inf) == (election.role is Role.INIT)
        if election.role is not Role.BACKUP:
            assert election.master is None


class AnyElectionTests(SynchronousTestCase):
    """Runs the rules."""

    def test_rules(self):
        """In any order."""
        run_state_machine_as_test(
            AnyElection,
            settings=settings(max_examples=200, stateful_step_count=40, deadline=None),
        )
