"""Proves that a postmaster is told each change once, and of what is wrong for as long as it is."""

from dataclasses import dataclass
from ipaddress import ip_address

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.hello import Drop
from mailsecure.cluster.values import GroupHello, Role
from mailsecure.cluster.watch import _MEANING, TELL_INTERVAL, TOO_LONG, Watch


@dataclass
class Peer:
    """What is looked at of a peer."""

    node: str
    alive: bool = True
    deaf: bool = False
    groups: tuple = ()
    address: object = ip_address("192.0.2.12")
    version: str = "1.0"


@dataclass
class Group:
    """What is looked at of a group."""

    name: str = "mail"
    role: Role = Role.BACKUP
    interval: float = 1.0


def master(node, priority=100, group="mail"):
    """A peer that is Master."""
    return Peer(node, groups=(GroupHello(group, Role.MASTER, priority, 1.0),))


class WatchTestCase(SynchronousTestCase):
    """A watch on node mx1."""

    def setUp(self):
        self.clock = Clock()
        self.watch = Watch(self.clock, "mx1")

    def look(self, *peers, groups=()):
        """Look; return what was logged, the serious things with their level."""
        with capturedLogs() as events:
            self.watch.look(peers, {each.name: each for each in groups})
        return self.lines(events)

    @staticmethod
    def lines(events):
        return [
            formatEvent(event)
            if event["log_level"] is LogLevel.info
            else f"{event['log_level'].name}: {formatEvent(event)}"
            for event in events
        ]


class PeerTests(WatchTestCase):
    """Who comes, goes, and does not hear us."""

    def test_comes_and_goes(self):
        """Each once."""
        self.assertEqual(self.look(Peer("mx2")), ["mx2: here, at 192.0.2.12, version 1.0"])
        self.assertEqual(self.look(Peer("mx2")), [])
        self.assertEqual(self.look(Peer("mx2", alive=False)), ["warn: mx2: not heard any more"])
        self.assertEqual(self.look(), [])
        self.assertEqual(self.watch.alarms(), [])

    def test_deaf(self):
        """An alarm for as long as it lasts."""
        self.look(Peer("mx2"))
        said = self.look(Peer("mx2", deaf=True))
        self.assertEqual(said, ["warn: mx2: we hear it, it does not hear us"])
        self.assertEqual(self.look(Peer("mx2", deaf=True)), [])
        self.assertEqual(self.watch.alarms(), ["mx2 does not hear us"])
        self.assertEqual(self.look(Peer("mx2")), ["mx2: hears us"])
        self.assertEqual(self.watch.alarms(), [])

    def test_deaf_and_gone(self):
        """Who is gone is not deaf any more, and does not hear us for that."""
        self.look(Peer("mx2", deaf=True))
        said = self.look(Peer("mx2", alive=False, deaf=True))
        self.assertEqual(said, ["warn: mx2: not heard any more"])
        self.assertEqual(self.watch.alarms(), [])


class MastersTests(WatchTestCase):
    """More than one Master."""

    def look_for(self, seconds, *peers, groups):
        """Look once a second; return all that was logged."""
        said = []
        for _ in range(int(seconds)):
            said += [line for line in self.look(*peers, groups=groups) if "here" not in line]
            self.clock.advance(1.0)
        return said

    def test_two(self):
        """Told once they hear each other for too long, and when it is over."""
        group = Group(role=Role.MASTER)
        self.assertEqual(self.look_for(TOO_LONG, master("mx2"), groups=[group]), [])
        self.assertEqual(self.watch.two_masters, {})
        said = self.look_for(5, master("mx2"), groups=[group])
        self.assertEqual(said, ["error: mail: more than one Master: mx1, mx2"])
        self.assertEqual(self.watch.two_masters, {"mail": ("mx1", "mx2")})
        self.assertEqual(self.watch.alarms(), ["mail: more than one Master: mx1, mx2"])
        self.assertEqual(self.look_for(1, groups=[group])[-1], "mail: one Master again")
        self.assertEqual((self.watch.two_masters, self.watch.alarms()), ({}, []))

    def test_others(self):
        """Two others are an alarm as well."""
        said = self.look_for(5, master("mx3"), master("mx2"), groups=[Group()])
        self.assertEqual(said, ["error: mail: more than one Master: mx2, mx3"])

    def test_a_moment(self):
        """Each pause begins the time anew; a change of Master is no alarm."""
        group = Group(role=Role.MASTER)
        for _ in range(5):
            self.assertEqual(self.look_for(2, master("mx2"), groups=[group]), [])
            self.assertNotIn("error", str(self.look_for(1, Peer("mx2"), groups=[group])))

    def test_no_master(self):
        """Who resigns, is not heard any more, or is Master of another group does not count."""
        resigns = master("mx2", priority=0)
        silent = master("mx3")
        silent.alive = False
        elsewhere = master("mx4", group="web")
        peers = (resigns, silent, elsewhere)
        self.assertEqual(self.look_for(5, *peers, groups=[Group(role=Role.MASTER)]), [])


class DropTests(WatchTestCase):
    """Datagrams that were ignored."""

    def reject(self, reason, times=1):
        with capturedLogs() as events:
            for _ in range(times):
                self.watch.rejected(reason, "192.0.2.66")
        return self.lines(events)

    def test_bounded(self):
        """However many there are, one line a minute for each reason, with their number."""
        said = self.reject(Drop.MALFORMED, 1000)
        self.assertEqual(said, ["warn: ignored 1 datagrams no hello, the last one from 192.0.2.66"])
        self.clock.advance(TELL_INTERVAL)
        said = self.reject(Drop.MALFORMED, 1000)
        self.assertEqual(
            said, ["warn: ignored 1000 datagrams no hello, the last one from 192.0.2.66"]
        )
        self.assertEqual(self.watch.drops[Drop.MALFORMED], 2000)

    def test_reasons(self):
        """Each reason has its line and its meaning; our own are no news."""
        for reason in Drop:
            said = self.reject(reason)
            if reason is Drop.OWN:
                self.assertEqual(said, [])
                self.assertEqual(self.watch.drops[reason], 0)
            else:
                self.assertEqual(len(said), 1)
                self.assertIn(_MEANING[reason], said[0])

    def test_same_name(self):
        """Another node of our name is an alarm, until it has been quiet for a while."""
        self.assertEqual(self.watch.alarms(), [])
        self.reject(Drop.SAME_NAME)
        self.clock.advance(TELL_INTERVAL - 1)
        (alarm,) = self.watch.alarms()
        self.assertIn("another node has our name", alarm)
        self.clock.advance(1)
        self.assertEqual(self.watch.alarms(), [])
