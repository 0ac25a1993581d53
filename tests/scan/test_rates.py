"""Proves that limits are exact, hold for whom they are meant, and are the cluster's."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.scan.checks.rates import RatesCheck, RatesMaker
from mailsecure.scan.gossip import INTERVAL
from mailsecure.scan.values import Stage

from .nodes import Talker
from .world import Scene, stranger

INI = """
[rates]
window = 1h
network_messages = 3
network_recipients = 6
sender_messages = 2
sender_recipients = 4
"""
TRUSTED = {"trusted": True, "client": "10.0.0.1"}


class RatesTests(SynchronousTestCase):
    """:class:`RatesCheck` with a clock in our hands."""

    def setUp(self) -> None:
        self.scene = Scene(INI)
        self.check = self.start()

    def start(self) -> RatesCheck:
        check = RatesMaker().make(self.scene.site())
        self.successResultOf(Deferred.fromCoroutine(check.start()))
        return check

    def ask(self, stage: Stage, check: Any = None, **known: Any) -> list[str]:
        work = Deferred.fromCoroutine((check or self.check).check(stage, stranger(**known)))
        symbols = self.successResultOf(work).symbols
        for each in symbols:
            self.assertIs(each.action, ScanAction.TEMPFAIL)
            self.assertTrue(each.reply.startswith("4.7.1 Too much mail from "), each.reply)
        return [each.name for each in symbols]

    def send(self, recipients: int = 1, **known: Any) -> list[str]:
        """Send a message; return what it is refused for."""
        for _ in range(recipients):
            refused = self.ask(Stage.RCPT, **known)
            if refused:
                return refused
        return self.ask(Stage.DATA, **known)

    def test_messages_of_a_network(self) -> None:
        """Whoever sends, and from whatever address of the network."""
        for number in range(3):
            known = {"client": f"192.0.2.{number}", "reverse_path": f"{number}@x.example"}
            self.assertEqual(self.send(**known), [])
        self.assertEqual(self.send(reverse_path="new@x.example"), ["RATE_NETWORK"])
        self.assertEqual(self.send(client="192.0.3.1"), [])
        self.scene.clock.advance(3600 * 1.5)
        self.assertEqual(self.send(reverse_path="new@x.example"), [])

    def test_recipients(self) -> None:
        """Each that is let through counts, with or without a message; who is refused does not."""
        self.assertEqual(self.send(recipients=4), [])
        for _ in range(10):
            self.assertEqual(self.ask(Stage.RCPT), ["RATE_SENDER"])
        for _ in range(2):
            self.assertEqual(self.ask(Stage.RCPT, reverse_path="b@x.example"), [])
        self.assertEqual(self.ask(Stage.RCPT, reverse_path="b@x.example"), ["RATE_NETWORK"])
        # The message whose recipients were all let through is not refused for them.
        self.assertEqual(self.ask(Stage.DATA, reverse_path="b@x.example"), [])

    def test_hijacked_account(self) -> None:
        """A sender within our networks is one, wherever it is; its network has no limit."""
        self.assertEqual(self.send(**TRUSTED), [])
        self.assertEqual(self.send(trusted=True, client="10.9.9.9"), [])
        self.assertEqual(
            self.send(**(TRUSTED | {"reverse_path": "A@example.net"})), ["RATE_SENDER"]
        )
        for number in range(10):
            self.assertEqual(self.send(reverse_path=f"{number}@x.example", **TRUSTED), [])

    def test_forged_sender(self) -> None:
        """A stranger that uses somebody's address uses up nothing but its own allowance."""
        for _ in range(2):
            self.assertEqual(self.send(), [])
        self.assertEqual(self.send(), ["RATE_SENDER"])
        self.assertEqual(self.send(client="198.51.100.1"), [])
        self.assertEqual(self.send(**TRUSTED), [])

    def test_side_by_side(self) -> None:
        """Sessions that all got through at RCPT do not get through at DATA."""
        for _ in range(4):
            self.assertEqual(self.ask(Stage.RCPT), [])
        found = [self.ask(Stage.DATA) for _ in range(4)]
        self.assertEqual(found, [[], [], ["RATE_SENDER"], ["RATE_SENDER"]])

    def test_null_reverse_path(self) -> None:
        """It is nobody's; the network has its limit."""
        for _ in range(3):
            self.assertEqual(self.send(reverse_path=""), [])
        self.assertEqual(self.send(reverse_path=""), ["RATE_NETWORK"])
        for _ in range(5):
            self.assertEqual(self.send(reverse_path="", **TRUSTED), [])

    def test_both(self) -> None:
        """Both limits are told."""
        self.send(reverse_path="b@x.example")
        for _ in range(2):
            self.send()
        self.assertEqual(self.send(), ["RATE_NETWORK", "RATE_SENDER"])

    def test_rehearsal(self) -> None:
        """A rehearsal neither counts nor is refused."""
        for _ in range(5):
            self.assertEqual(self.send(rehearsal=True), [])
        self.assertEqual(self.check.counts(), {"counted": 0})

    def test_no_limits(self) -> None:
        """Without limits there is nothing to do."""
        self.assertEqual(RatesCheck(Scene().site()).stages, frozenset())
        check = RatesCheck(Scene("[rates]\nsender_messages = 1\n").site())
        self.assertEqual(check.stages, {Stage.RCPT, Stage.DATA})
        for _ in range(3):
            self.assertEqual(self.ask(Stage.RCPT, check), [])
        self.assertEqual(self.ask(Stage.DATA, check), [])
        self.assertEqual(self.ask(Stage.RCPT, check), ["RATE_SENDER"])
        self.assertEqual(self.ask(Stage.RCPT, check, reverse_path=""), [])

    def test_reload(self) -> None:
        """What was sent is not forgotten; the limits are new."""
        for _ in range(2):
            self.send()
        self.scene.config = Scene(INI.replace("sender_messages = 2", "sender_messages = 3")).config
        new = RatesMaker().make(self.scene.site())
        new.inherit(self.check)
        new.inherit(object())
        self.assertEqual(self.send(check=new), [])
        self.assertEqual(self.send(check=new), ["RATE_NETWORK", "RATE_SENDER"])

    def test_cluster(self) -> None:
        """What is sent at one node counts at both; after a stop nothing is said."""
        talkers = [Talker("one"), Talker("two")]
        checks = []
        for talker in talkers:
            self.scene.line = talker.sharing
            checks.append(self.start())
        one, two = checks
        talkers[0].link(talkers[1])
        self.assertEqual(self.send(check=one), [])
        self.scene.clock.advance(INTERVAL)
        self.assertEqual(self.send(check=two), [])
        self.scene.clock.advance(INTERVAL)
        for check in checks:
            self.assertEqual(self.send(check=check), ["RATE_SENDER"])
            self.successResultOf(Deferred.fromCoroutine(check.stop()))
        self.assertEqual(self.scene.clock.getDelayedCalls(), [])
