"""Proves who is made to wait, that a restart or another node knows him, and that no disk hurts."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.errors import LocalFault
from mailsecure.scan.checks import greyfile, greylist
from mailsecure.scan.checks.greyfile import FileBroken, GreyFile
from mailsecure.scan.checks.greylist import TIDY_EVERY, WRITE_EVERY, GreylistCheck, GreylistMaker
from mailsecure.scan.checks.tables import NETWORK, TRIPLE, Known
from mailsecure.scan.gossip import INTERVAL
from mailsecure.scan.values import NOTHING, Facts, Stage
from mailsecure.smtp.envelope import Recipient
from mailsecure.world import World

from .nodes import Talker
from .world import NOW, Scene, stranger

INI = """
[greylist]
pass_networks = 198.51.100.0/24
pass_names = .friend.example
pass_senders = boss@example.org partner.example
pass_recipients = open@us.example
"""


class FileTests(SynchronousTestCase):
    """:class:`GreyFile` on a real disk."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.file = GreyFile(self.directory)
        self.addCleanup(self.file.close)

    def test_written(self) -> None:
        """What is written is read again, the longest unused first; newer rows win."""
        self.assertEqual(self.file.open(), [])
        old = Known(TRIPLE, "a", 1, 9, 0)
        self.file.write([old, Known(NETWORK, "n", 1, 5, 2), Known(TRIPLE, "b", 1, 7, 1)])
        self.file.write([old._replace(last=10, times=1)])
        self.file.close()
        rows = GreyFile(self.directory).open()
        self.assertEqual(
            rows,
            [
                Known(NETWORK, "n", 1, 5, 2),
                Known(TRIPLE, "b", 1, 7, 1),
                Known(TRIPLE, "a", 1, 10, 1),
            ],
        )

    def test_tidy(self) -> None:
        """What is out of date goes, and what is too much, of each kind by itself."""
        self.file.open()
        rows = [Known(TRIPLE, f"w{n}", n, n, 0) for n in range(10)]
        rows += [Known(TRIPLE, f"p{n}", n, n, 1) for n in range(10)]
        self.file.write([*rows, Known(NETWORK, "n", 1, 5, 2)])
        self.file.tidy(8, 5)
        self.file.close()
        kept = [row.key for row in self.file.open()]
        self.assertEqual(sorted(kept), ["n", "p5", "p6", "p7", "p8", "p9", "w8", "w9"])

    def test_too_much(self) -> None:
        """Of what is too much the newest stay."""
        self.patch(greyfile, "_KEEP", ((TRIPLE, 0, 3), (TRIPLE, 1, 5), (NETWORK, 1, 5)))
        self.file.open()
        self.file.write([Known(TRIPLE, f"w{n}", n, n, 0) for n in range(10)])
        self.file.write([Known(TRIPLE, f"p{n}", n, n, 1) for n in range(4)])
        self.file.tidy(0, 0)
        self.file.close()
        kept = sorted(row.key for row in self.file.open())
        self.assertEqual(kept, ["p0", "p1", "p2", "p3", "w7", "w8", "w9"])

    def test_broken(self) -> None:
        """No database, a torn one, and one of another layout are broken, and can be set aside."""
        self.file.path.write_bytes(b"this is no database at all" * 100)
        with self.assertRaises(FileBroken):
            self.file.open()
        self.assertEqual(self.file.set_aside().read_bytes()[:4], b"this")
        self.file.open()
        self.file.write([Known(TRIPLE, f"k{n}", n, n, 0) for n in range(5000)])
        self.file.close()
        octets = self.file.path.read_bytes()
        self.file.path.write_bytes(octets[:40_000] + b"\xff" * 40_000 + octets[80_000:])
        with self.assertRaises(FileBroken):
            self.file.open()
        self.file.set_aside()
        self.file.open()
        self.file.close()
        with sqlite3.connect(self.file.path) as database:
            database.execute("PRAGMA user_version = 9")
        database.close()
        with self.assertRaises(FileBroken):
            self.file.open()

    def test_foreign_rows(self) -> None:
        """Rows that are not ours are passed over."""
        self.file.open()
        self.file.close()
        with sqlite3.connect(self.file.path) as database:
            for row in (("x", "k", 1, 1, 1), ("t", "k" * 65, 1, 1, 1), ("t", "k", "x", 1, 1)):
                database.execute("INSERT INTO known VALUES (?, ?, ?, ?, ?)", row)
            database.execute("INSERT INTO known VALUES ('t', 'good', 1, 1, 1)")
        database.close()
        self.assertEqual(self.file.open(), [Known(TRIPLE, "good", 1, 1, 1)])

    def test_no_place(self) -> None:
        """Where no file can be, that is our fault, and no broken file's."""
        with self.assertRaises(LocalFault) as caught:
            GreyFile(self.directory / "missing").open()
        self.assertNotIsInstance(caught.exception, FileBroken)
        with self.assertRaises(LocalFault):
            self.file.write([])
        with self.assertRaises(LocalFault):
            self.file.set_aside()


class Case(SynchronousTestCase):
    """A node with a real state directory; threads are done at once."""

    def setUp(self) -> None:
        self.threads = True
        self.patch(World, "in_thread", lambda world, call, *arguments: self.do(call, *arguments))
        self.scene = Scene(INI, state=Path(self.mktemp()))
        self.scene.state.mkdir()
        self.check = self.start()

    def do(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return maybeDeferred(call, *arguments)

    def start(self) -> GreylistCheck:
        check = GreylistMaker().make(self.scene.site())
        self.successResultOf(Deferred.fromCoroutine(check.start()))
        self.addCleanup(check._memory._file.close)
        return check

    def stop(self, check: GreylistCheck) -> None:
        self.successResultOf(Deferred.fromCoroutine(check.stop()))

    def ask(
        self, facts: Facts | None = None, stage: Stage = Stage.RCPT, check: Any = None, **known: Any
    ) -> str:
        """Return the reply to a client, "" for none."""
        facts = stranger(**known) if facts is None else facts
        work = Deferred.fromCoroutine((check or self.check).check(stage, facts))
        finding = self.successResultOf(work)
        if finding is NOTHING:
            return ""
        (symbol,) = finding.symbols
        self.assertEqual((symbol.name, symbol.action), ("GREYLISTED", ScanAction.TEMPFAIL))
        return symbol.reply


class CheckTests(Case):
    """Who has to wait."""

    def test_stranger(self) -> None:
        """A stranger waits, comes again, passes, and is known by any client of its network."""
        self.assertEqual(self.ask(), "4.7.1 Greylisted, come again in 300 seconds")
        self.scene.clock.advance(100)
        self.assertEqual(self.ask(), "4.7.1 Greylisted, come again in 200 seconds")
        self.scene.clock.advance(200)
        self.assertEqual(self.ask(client="192.0.2.200"), "")
        self.assertEqual(self.ask(), "")
        self.assertIn("300 seconds", self.ask(client="192.0.3.1"))
        self.assertIn("300 seconds", self.ask(reverse_path="b@example.net"))
        self.assertEqual(self.check.counts()["passed"], 1)

    def test_who_never_waits(self) -> None:
        """Trusted clients, whom the ini lets pass, whom lists know, and mail to postmasters."""
        listed = stranger()
        listed.client_notes["dnsbl"] = -1.0
        for facts in (
            stranger(trusted=True),
            stranger(client="198.51.100.7"),
            stranger(client="::ffff:198.51.100.7"),
            stranger(name="mx.friend.example"),
            stranger(reverse_path="BOSS@example.org"),
            stranger(reverse_path="x@partner.example"),
            stranger(recipient=Recipient("open@us.example", "us.example")),
            stranger(recipient=Recipient("Postmaster@us.example", "us.example")),
            stranger(rehearsal=True),
            listed,
        ):
            self.assertEqual(self.ask(facts), "")
        self.assertEqual(self.check.counts()["waiting"], 0)
        for facts in (
            stranger(name="friend.example"),
            stranger(reverse_path="x@example.org"),
            stranger(recipient=Recipient("postmasters@us.example", "us.example")),
        ):
            self.assertIn("300 seconds", self.ask(facts))
        listed.client_notes["dnsbl"] = -0.5
        self.assertIn("300 seconds", self.ask(listed))

    def test_pools(self) -> None:
        """Whom SPF lets speak for a domain is that domain, and comes again from anywhere."""

        def client(address: str, result: str = "pass", **known: Any) -> Facts:
            mailfrom = {"result": result, "domain": "Example.NET"}
            return stranger(client=address, notes={"spf": {"mailfrom": mailfrom}}, **known)

        self.assertIn("300 seconds", self.ask(client("192.0.2.1")))
        self.scene.clock.advance(300)
        self.assertIn("300 seconds", self.ask(client("203.0.113.9", "softfail")))
        self.assertEqual(self.ask(client("203.0.113.1")), "")
        self.assertEqual(self.ask(client("2001:db8::1")), "")
        # What the network is trusted for is what came from it.
        self.assertIn("300 seconds", self.ask(client("192.0.2.1", reverse_path="b@example.net")))
        bounce = client("203.0.113.1", reverse_path="", recipient=None)
        bounce.recipients = (Recipient("u@us.example", "us.example"),)
        self.assertIn("300 seconds", self.ask(bounce, Stage.DATA))

    def test_null_reverse_path(self) -> None:
        """A callout is never put off; a bounce is, at DATA, until all its recipients passed."""
        self.assertEqual(self.ask(reverse_path=""), "")
        both = (Recipient("u@us.example", "us.example"), Recipient("v@us.example", "us.example"))
        data = {"reverse_path": "", "recipient": None, "stage": Stage.DATA}
        self.assertIn("300 seconds", self.ask(recipients=both[:1], **data))
        self.scene.clock.advance(200)
        self.assertIn("300 seconds", self.ask(recipients=both, **data))
        self.scene.clock.advance(300)
        self.assertEqual(self.ask(recipients=both, **data), "")
        postmaster = (Recipient("postmaster@us.example", "us.example"),)
        self.assertEqual(self.ask(recipients=postmaster, **data), "")
        # Other mail is asked about at RCPT only.
        self.assertEqual(self.ask(stage=Stage.DATA, recipients=both), "")

    def test_not_started(self) -> None:
        """Before it has read what it knows nobody is made to wait."""
        self.assertEqual(self.ask(check=GreylistMaker().make(self.scene.site())), "")

    def test_contradiction(self) -> None:
        """A delay that nobody could wait for is a mistake in the ini."""
        scene = Scene("[greylist]\ndelay = 2d\nretry_within = 2d\n")
        with self.assertRaises(ValueError):
            GreylistMaker().make(scene.site())


class MemoryTests(Case):
    """What outlives a restart, a reload, and a disk that fails."""

    def test_restart(self) -> None:
        """A stop in good order loses nothing; Unix time goes on while we are away."""
        self.ask()
        self.stop(self.check)
        self.scene.offset += 300
        self.check = self.start()
        self.assertEqual(self.ask(), "")

    def test_crash(self) -> None:
        """A crash loses what happened within the last seconds, at most."""
        self.ask()
        self.scene.clock.advance(WRITE_EVERY)
        self.ask(reverse_path="late@example.net")
        again = self.start()
        self.scene.clock.advance(300)
        self.assertEqual(self.ask(check=again), "")
        self.assertIn("300 seconds", self.ask(check=again, reverse_path="late@example.net"))

    def test_reload(self) -> None:
        """A check that inherits goes on with the memory, and the settings are new."""
        self.ask()
        self.scene = Scene(INI + "delay = 10m\n", state=self.scene.state)
        new = GreylistMaker().make(self.scene.site())
        new.inherit(self.check)
        self.assertIn("600 seconds", self.ask(check=new, reverse_path="b@example.net"))
        self.assertEqual(new.counts(), self.check.counts())
        self.stop(new)
        new.inherit(object())
        self.assertEqual(self.ask(check=new), "")

    def test_tidied(self) -> None:
        """What is out of date leaves the file, too."""
        self.ask()
        self.scene.clock.advance(WRITE_EVERY)
        self.scene.offset += 3 * 86400
        for _ in range(TIDY_EVERY):
            self.scene.clock.advance(WRITE_EVERY)
        self.stop(self.check)
        self.assertEqual(GreyFile(self.scene.state).open(), [])

    def test_tidied_in_a_flood(self) -> None:
        """So do strangers that are too many, before they fill the disk."""
        self.patch(greylist, "TIDY_ROWS", 10)
        self.patch(greylist, "ROWS", 5)
        self.patch(greyfile, "_KEEP", ((TRIPLE, 0, 3), (TRIPLE, 1, 5), (NETWORK, 1, 5)))
        for number in range(20):
            self.ask(reverse_path=f"{'x' * number}@example.net")
            self.scene.clock.advance(0.1)
        self.scene.clock.advance(WRITE_EVERY)
        self.scene.clock.advance(WRITE_EVERY)
        self.check._memory._file.close()
        rows = GreyFile(self.scene.state).open()
        self.assertLess(len(rows), 20)
        self.assertGreaterEqual(len(rows), 3)

    def test_broken_at_start(self) -> None:
        """A broken file is set aside and said, and a new one begun."""
        self.stop(self.check)
        path = self.scene.state / "greylist.db"
        path.write_bytes(b"x" * 10_000)
        self.check = self.start()
        self.assertTrue(path.with_name("greylist.db.broken").exists())
        self.assertIn("300 seconds", self.ask())
        self.stop(self.check)
        self.assertEqual(len(GreyFile(self.scene.state).open()), 1)

    def test_no_file_at_start(self) -> None:
        """Where there can be no file, the start says so."""
        self.scene.state = self.scene.state / "missing"
        check = GreylistMaker().make(self.scene.site())
        failure = self.failureResultOf(Deferred.fromCoroutine(check.start()))
        failure.trap(LocalFault)
        self.stop(check)

    def test_full_disk(self) -> None:
        """What a disk does not take is written when it does; nobody notices."""
        real = GreyFile.write
        faults: list[LocalFault] = []

        def write(file: GreyFile, rows: list[Known]) -> None:
            faults.append(LocalFault("disk full"))
            raise faults[-1]

        self.patch(GreyFile, "write", write)
        self.ask()
        for _ in range(3):
            self.scene.clock.advance(WRITE_EVERY)
        self.assertEqual(len(faults), 3)
        self.assertIn("seconds", self.ask())
        self.patch(GreyFile, "write", real)
        self.scene.clock.advance(WRITE_EVERY)
        self.assertEqual(len(self.start()._memory.table.changes(9)), 0)
        self.stop(self.check)
        self.assertEqual(len(GreyFile(self.scene.state).open()), 1)

    def test_broken_meanwhile(self) -> None:
        """A file that breaks under our hands is begun anew with all that is remembered."""
        self.ask()
        self.scene.clock.advance(WRITE_EVERY)
        self.ask(reverse_path="b@example.net")
        real = GreyFile.write

        def write(file: GreyFile, rows: list[Known]) -> None:
            patched.restore()
            raise FileBroken("torn")

        patched = self.patch(GreyFile, "write", write)
        self.scene.clock.advance(WRITE_EVERY)
        self.assertTrue((self.scene.state / "greylist.db.broken").exists())
        self.scene.clock.advance(WRITE_EVERY)
        self.assertIs(GreyFile.write, real)
        self.stop(self.check)
        self.assertEqual(len(GreyFile(self.scene.state).open()), 2)

    def test_broken_beyond_repair(self) -> None:
        """Where not even a new file can be begun, mail goes on."""

        def broken(*arguments: Any) -> None:
            raise FileBroken("torn")

        def stuck(file: GreyFile) -> Path:
            raise LocalFault("read-only")

        self.patch(GreyFile, "write", broken)
        self.patch(GreyFile, "set_aside", stuck)
        self.ask()
        self.scene.clock.advance(WRITE_EVERY)
        self.assertIn("295 seconds", self.ask())
        self.stop(self.check)

    def test_many(self) -> None:
        """However many come within a few seconds, all are written."""
        self.patch(greylist, "ROWS", 3)
        for number in range(8):
            self.ask(reverse_path=f"{'x' * number}@example.net")
        self.scene.clock.advance(WRITE_EVERY)
        self.assertEqual(self.check._memory.table.changes(9), [])
        self.stop(self.check)
        self.assertEqual(len(GreyFile(self.scene.state).open()), 8)

    def test_slow_disk(self) -> None:
        """One batch is written at a time, and a stop waits for it."""
        waits: list[tuple[Any, Any, Deferred[Any]]] = []

        def later(call: Any, *arguments: Any) -> Deferred[Any]:
            wait: Deferred[Any] = Deferred()
            waits.append((call, arguments, wait))
            return wait

        self.ask()
        self.do = later  # type: ignore[method-assign]
        self.scene.clock.advance(WRITE_EVERY)
        self.ask(reverse_path="b@example.net")
        self.scene.clock.advance(WRITE_EVERY)
        self.assertEqual(len(waits), 1)
        stopping = Deferred.fromCoroutine(self.check.stop())
        self.assertNoResult(stopping)
        while waits:
            call, arguments, wait = waits.pop(0)
            wait.callback(call(*arguments))
        self.successResultOf(stopping)
        self.assertEqual(len(GreyFile(self.scene.state).open()), 2)


class ClusterTests(Case):
    """Two nodes with files of their own."""

    def test_other_node(self) -> None:
        """Who comes again at another node passes there, and is known at both."""
        talkers = [Talker("one"), Talker("two")]
        checks = []
        for talker in talkers:
            self.scene.line = talker.sharing
            self.scene.state = Path(self.mktemp())
            self.scene.state.mkdir()
            checks.append(self.start())
        one, two = checks
        talkers[0].link(talkers[1])
        self.scene.clock.advance(INTERVAL)
        self.assertIn("300 seconds", self.ask(check=one))
        self.scene.clock.advance(INTERVAL)
        self.assertIn("300 seconds", self.ask(check=two))
        self.scene.clock.advance(300)
        self.assertEqual(self.ask(check=two), "")
        self.scene.clock.advance(INTERVAL)
        self.assertEqual(one.counts(), two.counts())
        self.assertEqual(one.counts()["passed"], 1)
        self.assertEqual(self.scene.wall() - NOW, 3 * INTERVAL + 300)
        for check in checks:
            self.stop(check)
        self.assertEqual(self.scene.clock.getDelayedCalls()[1:], [])


class ThreadTests(TestCase):
    """The file in real threads, which change from call to call."""

    async def test_restart(self) -> None:
        """What was remembered is there after a restart."""
        scene = Scene(INI, state=Path(self.mktemp()))
        scene.state.mkdir()
        object.__setattr__(scene.world, "reactor", reactor)
        for wanted in (1, 0):
            check = GreylistMaker().make(scene.site())
            await check.start()
            finding = await check.check(Stage.RCPT, stranger())
            self.assertEqual(len(finding.symbols), wanted)
            await check.stop()
            scene.offset += 300
