"""The history is told each line of each attempt, as the log is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.model import Route, RouteKind
from mailsecure.counters import Counters
from mailsecure.delivery import attempts, ledger
from mailsecure.delivery.api import Fate
from mailsecure.delivery.routes import Routes
from mailsecure.delivery.scheduler import Scheduler
from mailsecure.records.api import NullRecorder
from mailsecure.records.values import AttemptEvent, DeedEvent, MessageEvent
from mailsecure.spool.api import Filter

from .fakes import EPOCH, LATER, NO, Station, down, settings


class HistoryTests(SynchronousTestCase):
    """With a recorder that remembers."""

    def attempts(self, station: Station) -> list[AttemptEvent]:
        """Return what was told of attempts."""
        return [event for event in station.told if isinstance(event, AttemptEvent)]

    def test_plain_success(self) -> None:
        """The short way of one recipient tells too."""
        station = Station()
        station.start()
        message = station.send("b@example.com")
        station.turn()
        (event,) = station.told
        assert isinstance(event, AttemptEvent)
        self.assertEqual((event.id, event.recipient), (message.id, "b@example.com"))
        self.assertEqual((event.status, event.dsn), ("sent", "2.0.0"))
        self.assertEqual((event.time, event.delay), (EPOCH, 0.0))
        self.assertIn("250", event.reply)

    def test_several_recipients(self) -> None:
        """One event for each."""
        station = Station()
        station.start()
        station.send("a@example.com", "b@example.com")
        station.turn()
        told = sorted(event.recipient for event in self.attempts(station))
        self.assertEqual(told, ["a@example.com", "b@example.com"])

    def test_deferred_and_down(self) -> None:
        """What did not work, and at which next hop."""
        for behaviour in (lambda message: Fate.DEFERRED, lambda message: down()):
            station = Station(behaviour)
            station.start()
            station.send("b@example.com")
            station.turn()
            (event,) = self.attempts(station)
            self.assertEqual(event.status, "deferred")
            self.assertIn(event.reply, (str(LATER), str(down().reply)))

    def test_bounced(self) -> None:
        """The failure, what was sent because of it, and how that went."""
        station = Station(
            lambda message: Fate.FAILED if message.envelope.reverse_path else Fate.RELAYED
        )
        station.start()
        message = station.send("b@example.com")
        station.turn()
        failed, deed, notice, delivered = station.told
        assert isinstance(failed, AttemptEvent) and isinstance(delivered, AttemptEvent)
        assert isinstance(deed, DeedEvent) and isinstance(notice, MessageEvent)
        self.assertEqual((failed.status, failed.reply), ("bounced", str(NO)))
        self.assertEqual((deed.id, deed.deed, deed.copy), (message.id, "notified", notice.id))
        self.assertEqual(deed.recipients, (message.envelope.reverse_path,))
        self.assertEqual((notice.reverse_path, notice.action), ("", "accept"))
        self.assertEqual(notice.header_from, "MAILER-DAEMON@gate.example")
        self.assertEqual(notice.recipients, ((message.envelope.reverse_path, "accept"),))
        self.assertEqual((delivered.id, delivered.status), (notice.id, "sent"))

    def test_expired_and_given_up(self) -> None:
        """What is done without an attempt is told as what it is."""
        station = Station(lambda message: Fate.DEFERRED, "expire = 1d\nwarn_after = 0s")
        station.start()
        station.send("b@example.com")
        station.turn()
        station.pass_time(86400 + 8 * 3600, 600)
        self.assertIn("expired", [event.status for event in self.attempts(station)])
        station.send("c@two.example")
        station.turn()
        station.scheduler.bounce(Filter(recipient="@two.example"), "Closed")
        station.turn()
        last = [event for event in self.attempts(station) if event.recipient == "c@two.example"]
        self.assertEqual(last[-1].status, "bounced")
        self.assertIn("Closed", last[-1].reply)

    def test_as_the_log(self) -> None:
        """Whatever is logged of an attempt is told, and the other way round."""
        logged = []

        class Log:
            """Counts lines of attempts."""

            def info(self, text: str, **fields: object) -> None:
                """Take one."""
                if text == ledger.FORMAT:
                    logged.append((fields["recipient"], fields["status"], str(fields["reply"])))

            warn = error = failure = info

        self.patch(ledger, "_log", Log())
        self.patch(attempts, "_log", Log())
        fates = [Fate.RELAYED, Fate.DEFERRED, Fate.FAILED, Fate.DELIVERED]
        station = Station(lambda message: fates[len(logged) % 4])
        station.start()
        for number in range(20):
            station.send(*[f"r{n}@d{number}.example" for n in range(1 + number % 3)])
            station.turn()
        told = [(event.recipient, event.status, event.reply) for event in self.attempts(station)]
        self.assertEqual(told, logged)
        self.assertTrue(len({status for _, status, _ in told}) >= 3)

    def test_nobody_listens(self) -> None:
        """Without a recorder all works."""
        station = Station()
        station.scheduler = Scheduler(
            world=station.world,
            spool=station.spool,  # type: ignore[arg-type]
            routes=Routes({"*": Route(RouteKind.MX)}),
            transport_for=lambda route: station.transport,
            settings=settings(),
            hostname="gate.example",
            ids=station.ids,
            counters=Counters(),
        )
        station.start()
        station.send("b@example.com")
        station.turn()
        self.assertEqual(len(station.transport.delivered), 1)
        self.assertEqual(station.told, [])
        NullRecorder().tell(DeedEvent(1, 1.0, "", "", "", ()))
