"""The clients against our fakes, over a network in memory: verdicts, streams, faults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.scanning import ScanAction
from mailsecure.scan.api import ICheckMaker
from mailsecure.scan.engines.guard import EngineCheck
from mailsecure.scan.engines.health import LOOK
from mailsecure.scan.engines.makers import ENGINES
from mailsecure.scan.engines.wire import BATCH
from mailsecure.scan.engines.wires import IDLE, Place
from mailsecure.scan.values import AddField, Finding, RemoveField, Special, Stage, Symbol
from mailsecure.spool.values import SpoolBroken
from mailsecure.testing.filters import FakeIcap, FakeMilter
from mailsecure.testing.scanners import (
    EICAR,
    GTUBE,
    FakeClamd,
    FakeRspamd,
    FakeScanner,
    FakeSpamd,
    Fault,
)
from tests.scan.engines.net import FileBody, Net, make_facts, make_site

MESSAGE = b"Subject: hi\r\nX-A: 1\r\nX-A: 2\r\n\r\nHello\r\n"
LARGE = MESSAGE + b"0123456789abcdef" * (BATCH // 10) + b"\r\n"
MAKERS = {maker.name: maker for maker in ENGINES}


class ClientTestCase(SynchronousTestCase):
    """One engine and its fake."""

    name = ""
    kind: type[FakeScanner] = FakeScanner
    place = "unix:/run/scanner"
    options = "address = unix:/run/scanner"

    def setUp(self) -> None:
        self.clock = Clock()
        self.net = Net()
        self.fake: Any = self.kind(self.clock)
        self.net.listening[self.place] = self.fake
        self.check = self.make()

    def make(self, options: str = "") -> EngineCheck:
        ini = (
            f"[{self.name}]\n{self.options}\ntimeout = 10s\nfailures = 2\npause = 20s\n{options}\n"
        )
        return MAKERS[self.name].make(make_site(self.net, self.clock, ini))

    def begin(self, body: Any = MESSAGE, **facts: Any) -> Deferred[Finding]:
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(body, **facts)))
        self.net.run()
        return answer

    def judge(self, body: Any = MESSAGE, **facts: Any) -> Finding:
        return self.successResultOf(self.begin(body, **facts))

    def symbol(self, body: Any = MESSAGE, **facts: Any) -> Symbol:
        (symbol,) = self.judge(body, **facts).symbols
        return symbol

    def fails(self, body: Any = MESSAGE, within: float = 0.0) -> str:
        answer = self.begin(body)
        if within:
            self.assertNoResult(answer)
            self.clock.advance(within)
            self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertEqual(symbol.name, f"{self.name.upper()}_FAILED")
        return symbol.reason

    def shown(self) -> bytes:
        return bytes(self.fake.messages[-1])

    def start(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.check.start()))
        self.net.run()

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds / LOOK)):
            self.clock.advance(LOOK)
            self.net.run()


class Common:
    """What holds for every engine."""

    #: What the fake is shown of a message.
    before = b""

    def test_streams(self: Any) -> None:
        """Any message, from memory and file, cut in any way, against a slow reader."""
        for window in (1 << 20, 4096):
            for cut in (0, 1000):
                self.net.window, self.net.cut = window, cut
                for body in (MESSAGE, LARGE, FileBody(LARGE), b"\r\n", b""):
                    octets = body if isinstance(body, bytes) else LARGE
                    self.judge(body)
                    self.assertEqual(self.shown(), self.before + octets)
        self.net.window, self.net.cut = 1 << 20, 1
        self.judge()
        self.assertEqual(self.check.report()["failures"], 0)

    def test_refused(self: Any) -> None:
        """Nobody there; back when he is."""
        self.start()
        self.net.listening.clear()
        self.assertIn("cannot connect", self.fresh_fails())
        self.net.listening[self.place] = self.fake
        self.pass_time(30)
        self.assertEqual(self.check.report()["state"], "well")
        self.judge()

    def fresh_fails(self: Any) -> str:
        """Fail on a new connection."""
        for session in list(self.fake.sessions):
            session.transport.abortConnection()
        self.net.run()
        return str(self.fails())

    def test_silent(self: Any) -> None:
        """The deadline, and the breaker; back by a probe."""
        self.start()
        self.fake.fault = Fault.SILENT
        for _ in range(2):
            self.assertEqual(self.fails(within=10), "no answer within 10 s")
        self.assertIn("it is down", self.fails())
        self.assertEqual(self.check.report()["state"], "down")
        self.fake.fault = None
        self.pass_time(21)
        self.assertEqual(self.check.report()["state"], "well")
        self.judge()

    def test_reset(self: Any) -> None:
        """In mid-stream, and at once: down where a ping fares no better than messages."""
        for fault, after in ((Fault.REFUSE, 0), (Fault.RESET, 1), (Fault.RESET, 200)):
            self.fake.fault, self.fake.reset_after = fault, after
            self.check = self.make()
            self.start()
            self.fails(LARGE)
            self.fails(LARGE if after == 200 else MESSAGE)
            self.pass_time(2 * LOOK)
            state = "well" if after == 200 else "down"
            self.assertEqual(self.check.report()["state"], state)
            self.assertEqual("it is down" in self.fails(LARGE), state == "down")
            self.successResultOf(Deferred.fromCoroutine(self.check.stop()))

    def test_garbage(self: Any) -> None:
        """Nonsense of any sort is a failure, never a verdict."""
        self.fake.fault = Fault.GARBAGE
        for garbage in (
            b"\0",
            b"x" * 100_000,
            b"\r\n\r\n",
            b"\xff" * 50,
            b"OK\0",
            b"HTTP/1.1 200 OK",
        ):
            self.fake.garbage = garbage
            self.check = self.make()
            answer = self.begin()
            self.clock.advance(10)
            self.net.run()
            (symbol,) = self.successResultOf(answer).symbols
            self.assertIs(symbol.special, Special.FAILURE, garbage)

    def test_slow(self: Any) -> None:
        """Slow is not dead."""
        self.fake.fault, self.fake.delay = Fault.SLOW, 0.1
        answer = self.begin()
        for _ in range(20):
            self.clock.advance(0.1)
            self.net.run()
        self.successResultOf(answer)
        self.assertEqual(self.check.report()["failures"], 0)

    def test_disk(self: Any) -> None:
        """A body that cannot be read is our fault; the connection is closed, not reused."""
        body = FileBody(LARGE)
        body.fault = SpoolBroken("disk")
        self.failureResultOf(self.begin(body), SpoolBroken)
        self.net.run()
        self.assertEqual(self.fake.sessions, set())
        self.judge()

    def test_cancelled(self: Any) -> None:
        """Who does not wait any more leaves nothing open."""
        self.fake.fault = Fault.SILENT
        answer = self.begin()
        answer.cancel()
        self.failureResultOf(answer)
        self.net.run()
        self.assertEqual(self.fake.sessions, set())
        self.assertEqual(self.check.report()["busy"], 0)

    def test_connecting(self: Any) -> None:
        """A host that does not even refuse."""
        self.net.silent = True
        self.assertEqual(self.fails(within=10), "no answer within 10 s")

    def test_stop(self: Any) -> None:
        """After the end nothing is open and nothing ticks."""
        self.start()
        self.judge()
        last = self.begin()
        self.successResultOf(Deferred.fromCoroutine(self.check.stop()))
        self.net.run()
        self.successResultOf(last)
        self.assertEqual(self.fake.sessions, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ClamavTests(Common, ClientTestCase):
    """clamd."""

    name = "clamav"
    kind = FakeClamd

    def test_verdicts(self) -> None:
        """Clean, malware, and what clamd calls by special names."""
        self.assertEqual(self.judge().symbols, ())
        found = self.symbol(MESSAGE + EICAR)
        self.assertEqual((found.name, found.special), ("CLAMAV", Special.MALWARE))
        self.assertEqual(found.reply, "Malware found: Eicar-Test.UNOFFICIAL")
        for reply, name, special, score in (
            ("PUA.Win.Tool FOUND", "CLAMAV_SUSPICIOUS", None, 5),
            ("Heuristics.Encrypted.Zip FOUND", "CLAMAV_ENCRYPTED", Special.ENCRYPTED, 0),
            ("Heuristics.Limits.Exceeded.X FOUND", "CLAMAV_LIMITS", Special.UNSCANNABLE, 0),
        ):
            self.check = self.make()
            self.fake.answer = f"1: stream: {reply}".encode() + b"\0"
            found = self.symbol()
            self.assertEqual((found.name, found.special, found.score), (name, special, score))

    def test_sessions(self) -> None:
        """A connection serves one message after the other, and several side by side."""
        for _ in range(5):
            self.judge()
        self.assertEqual(self.net.opened, 1)
        self.fake.fault = Fault.SLOW
        answers = [self.begin(), self.begin()]
        self.clock.advance(2)
        self.net.run()
        for answer in answers:
            self.successResultOf(answer)
        self.assertEqual(self.net.opened, 2)

    def test_stale(self) -> None:
        """A session that clamd closed while it was idle costs nobody his verdict."""
        self.judge()
        for session in list(self.fake.sessions):
            # As if its end were still on the way: our side does not know.
            session._open = False
            session.dataReceived = lambda data, session=session: session.transport.abortConnection()
        self.assertEqual(self.judge().symbols, ())
        self.assertEqual(self.net.opened, 2)

    def test_ended_when_taken_up(self) -> None:
        """clamd says that the session was idle too long, just as the next message comes."""
        for reset in (False, True):
            self.check = self.make()
            self.judge()
            before = self.net.opened
            for session in list(self.fake.sessions):

                def heard(
                    data: bytes, transport: Any = session.transport, reset: bool = reset
                ) -> None:
                    transport.write(b"COMMAND READ TIMED OUT\n")
                    if reset:
                        self.net.run()
                        transport.abortConnection()
                    else:
                        transport.loseConnection()

                session._open = False
                session.dataReceived = heard
            self.assertEqual(self.judge().symbols, ())
            self.assertEqual(self.net.opened, before + 1)

    def test_ended_at_once(self) -> None:
        """A new session that ends so is a failure."""
        self.fake.answer = b"COMMAND READ TIMED OUT\n"
        answer = self.begin()
        for session in list(self.fake.sessions):
            session.transport.loseConnection()
        self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertIn("closed the connection", symbol.reason)
        self.assertEqual(self.net.opened, 1)

    def test_idle(self) -> None:
        """It is closed by us before clamd does; and at once if anything comes unasked."""
        self.start()
        self.judge()
        self.pass_time(IDLE - 5)
        self.assertEqual(len(self.fake.sessions), 1)
        self.pass_time(10)
        self.assertEqual(len(self.fake.sessions), 0)
        self.judge()
        (session,) = self.fake.sessions
        session.transport.write(b"2: stream: Late FOUND\0")
        self.net.run()
        self.assertEqual(len(self.fake.sessions), 0)
        self.assertEqual(self.judge().symbols, ())

    def test_other_number(self) -> None:
        """A reply to another question, or to none, is nobody's verdict."""
        for reply in (b"2: stream: OK\0", b"stream: OK\0", b"1: stream: OK\0" * 2):
            self.check = self.make()
            self.fake.answer = reply
            self.fails()

    def test_too_large_there(self) -> None:
        """clamd's own limit, told in mid-stream."""
        self.fake.limit = 1000
        for body in (LARGE, FileBody(LARGE)):
            self.net.window = 4096
            found = self.symbol(body)
            self.assertEqual((found.name, found.special), ("CLAMAV_LIMITS", Special.UNSCANNABLE))

    def test_answered_early(self) -> None:
        """Only an error may come before the end."""
        self.net.window = 4096
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(LARGE)))
        (session,) = self.fake.sessions
        session.transport.write(b"1: stream: OK\0")
        self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertIn("before it had all", symbol.reason)

    def test_error(self) -> None:
        """An error of clamd's about one message is not the end of clamd."""
        self.fake.answer = b"1: stream: Can't allocate memory ERROR\0"
        for _ in range(5):
            self.check._engine.close()
            self.assertIn("allocate", self.fails())
            self.net.run()
        self.assertEqual(self.check.report()["state"], "well")

    def test_ping(self) -> None:
        """PONG, and nothing else."""
        self.start()
        self.assertEqual((self.fake.pings, self.check.report()["last_error"]), (1, ""))
        self.fake.fault, self.fake.garbage = Fault.GARBAGE, b"PANG\0"
        self.check = self.make()
        self.start()
        self.assertEqual(self.check.report()["last_error"], "no answer to PING")


class SpamassassinTests(Common, ClientTestCase):
    """spamd."""

    name = "spamassassin"
    kind = FakeSpamd
    before = b"Received: x\r\n"
    place = "tcp:::1:783"
    options = "address = tcp:s.test:783\nuser = joe\nweight = 0.5"

    def test_verdicts(self) -> None:
        """The score, weighed; the rules in the reason."""
        found = self.symbol(MESSAGE + GTUBE)
        self.assertEqual((found.name, found.score), ("SPAMASSASSIN", 500.0))
        self.assertEqual((found.reason, found.action), ("GTUBE NO_RECEIVED", None))
        self.assertEqual(self.symbol().score, -0.05)
        self.assertIn(b"User: joe", self.fake.questions[0])

    def test_finished(self) -> None:
        """spamd is told that no more comes: it reads lines, and the last may have no end."""
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(b"\r\nno end")))
        spamd = self.net.ends[1]
        self.net.run()
        self.assertTrue(spamd.finished)
        self.successResultOf(answer)

    def test_many_rules(self) -> None:
        """The reason is short."""
        rules = b",".join(b"R%d" % n for n in range(100))
        self.fake.answer = b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 9 / 5\r\n\r\n" + rules
        self.assertTrue(self.symbol().reason.endswith("R11 …"))

    def test_too_large(self) -> None:
        """It is just not asked."""
        self.assertEqual(self.judge(b"x" * (600 << 10)).symbols, ())
        self.assertEqual(self.fake.messages, [])

    def test_unknown_host(self) -> None:
        """A name that is not in the DNS, and one without addresses."""
        site = make_site(self.net, self.clock, "[spamassassin]\naddress = tcp:nowhere.test:783")
        self.check = MAKERS["spamassassin"].make(site)
        self.assertIn("cannot look nowhere.test up", self.fails())
        site.world.resolver.known["nowhere.test"] = []
        self.assertIn("nowhere.test has no address", self.fails())


class RspamdTests(Common, ClientTestCase):
    """Rspamd."""

    name = "rspamd"
    kind = FakeRspamd
    before = b"Received: x\r\n"
    place = "tcp:127.0.0.1:11333"
    options = "url = http://127.0.0.1:11333/base"

    def test_question(self) -> None:
        """What it is told."""
        self.judge()
        head = self.fake.questions[0].decode()
        for line in (
            "POST /base/checkv2 HTTP/1.1",
            "Host: 127.0.0.1:11333",
            "IP: 192.0.2.1",
            "Helo: helo.test",
            "Hostname: client.test",
            "From: a@sender.test",
            "Queue-Id: 0000000000007",
            "MTA-Name: mx.test",
            "Rcpt: b@us.test",
            "Rcpt: c@us.test",
        ):
            self.assertIn(f"{line}\r\n", head + "\r\n")
        self.assertNotIn("Deliver-To", head)
        self.assertNotIn("Password", head)
        facts = make_facts()
        self.judge(reverse_path="", recipients=facts.recipients[:1])
        self.assertIn(b"From: <>\r\n", self.fake.questions[1])
        self.assertIn(b"Deliver-To: b@us.test\r\n", self.fake.questions[1])

    def test_password(self) -> None:
        """From its file; one that cannot be read is told at the start."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("geheim\n")
        self.check = self.make(f"password = {path}")
        self.judge()
        self.assertIn(b"Password: geheim\r\n", self.fake.questions[0])
        self.assertRaises(ValueError, self.make, "password = /nowhere/at/all")

    def test_actions(self) -> None:
        """Each of its actions, and none where they are not wanted."""
        for action, ours in (
            ("no action", None),
            ("greylist", None),
            ("add header", ScanAction.TAG),
            ("rewrite subject", ScanAction.TAG),
            ("soft reject", ScanAction.TEMPFAIL),
            ("quarantine", ScanAction.QUARANTINE),
            ("reject", ScanAction.REJECT),
            ("discard", ScanAction.DISCARD),
            ("something of their own", None),
        ):
            self.fake.result = {"action": action, "score": 4.5, "messages": {"smtp_message": "Hm"}}
            found = self.symbol()
            self.assertEqual((found.action, found.score), (ours, 4.5))
            replied = ours in (ScanAction.REJECT, ScanAction.TEMPFAIL)
            self.assertEqual(found.reply, "Hm" if replied else "")
        self.check = self.make("actions = no\nweight = 2")
        self.fake.result = {"action": "reject", "score": 4.5}
        found = self.symbol()
        self.assertEqual((found.action, found.score), (None, 9.0))

    def test_gtube(self) -> None:
        """Skipped means judged before the rules: its action counts all the same."""
        found = self.symbol(MESSAGE + GTUBE)
        self.assertEqual((found.action, found.reply), (ScanAction.REJECT, "Gtube pattern"))
        self.assertEqual(found.reason, "reject: GTUBE(0)")

    def test_reason(self) -> None:
        """The heaviest symbols."""
        self.fake.result = {"symbols": {f"S{n}": {"score": n} for n in range(20)}}
        reason = self.symbol().reason
        self.assertTrue(reason.startswith("no action: S19(19) S18(18)"))
        self.assertTrue(reason.endswith("S12(12) and 12 more"))

    def test_edits(self) -> None:
        """Its changes of the header section, unless they are not wanted."""
        self.fake.result = {
            "action": "rewrite subject",
            "subject": "[SPAM] hi",
            "milter": {"add_headers": {"X-S": "1"}, "remove_headers": {"X-A": 0}},
        }
        edits = self.judge().edits
        subject = (RemoveField("Subject"), AddField("Subject", "[SPAM] hi"))
        self.assertEqual(edits, (RemoveField("X-A"), AddField("X-S", "1"), *subject))
        self.fake.result["action"] = "add header"
        self.assertEqual(self.judge().edits, edits[:2])
        self.check = self.make("headers = no")
        self.assertEqual(self.judge().edits, ())

    def test_kept(self) -> None:
        """A connection is used again where it may be."""
        self.fake.lasting = True
        for _ in range(3):
            self.judge()
        self.assertEqual(self.net.opened, 1)

    def test_errors(self) -> None:
        """Statuses other than 200, and answers that come too early."""
        self.fake.status = b"503 Busy"
        self.assertIn("503 Busy", self.fails())
        self.net.window = 4096
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(LARGE)))
        (session,) = self.fake.sessions
        session.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertEqual(symbol.reason, "answered before it had all: 200 OK")

    def test_scheme(self) -> None:
        """icap is no way to speak to it."""
        self.assertRaises(ValueError, self.make_icap)

    def make_icap(self) -> None:
        MAKERS["rspamd"].make(make_site(self.net, self.clock, "[rspamd]\nurl = icap://h/x"))


class Failing(FileBody):
    """A body that cannot be read to its end."""

    def pieces(self, size: int = 65536) -> Iterator[bytes]:
        """Yield more than a batch, and fail."""
        yield LARGE
        yield LARGE
        raise SpoolBroken("disk")


class IcapTests(Common, ClientTestCase):
    """An ICAP server."""

    name = "icap"
    kind = FakeIcap
    place = "tcp:127.0.0.1:1344"
    options = "url = icap://127.0.0.1/scan"

    def test_verdicts(self) -> None:
        """Clean and infected, with and without preview, smaller and larger than it."""
        for preview in (None, 0, 10, 1024, 16384):
            self.fake.preview = preview
            self.check = self.make()
            for filler in (b"", b"x" * 20_000, LARGE):
                self.assertEqual(self.judge(MESSAGE + filler).symbols, ())
                self.assertEqual(self.shown(), MESSAGE + filler)
                found = self.symbol(MESSAGE + filler + EICAR)
                self.assertEqual((found.name, found.special), ("ICAP", Special.MALWARE))
                self.assertEqual(found.reason, "Eicar-Test")
            self.assertEqual(self.fake.connections, 1 + self.fake.pings - 1)

    def test_echo(self) -> None:
        """A server without 204: our message again is clean, another one is not."""
        self.fake.echoes = True
        for body in (MESSAGE, LARGE):
            self.assertEqual(self.judge(body).symbols, ())
        self.fake.extension = b""
        self.assertEqual(self.symbol(EICAR).reason, "changed to an answer 403")
        self.fake.answer = (
            b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=19\r\n\r\n"
            b"HTTP/1.1 200 OK\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )
        self.assertEqual(self.symbol().reason, "changed to an answer 200")
        self.assertEqual(self.symbol(b"no").reason, "changed to an answer 200")
        self.assertEqual(self.judge(b"ok").symbols, ())
        self.fake.answer = b"ICAP/1.0 200 OK\r\nEncapsulated: null-body=0\r\n\r\n"
        self.assertEqual(self.symbol().reason, "changed")

    def test_options(self) -> None:
        """Asked once, and again when what was told is old."""
        for _ in range(3):
            self.judge()
        self.assertEqual(self.fake.pings, 1)
        self.clock.advance(61)
        self.judge()
        self.assertEqual(self.fake.pings, 2)

    def test_errors(self) -> None:
        """Statuses, and a server that says two things at once."""
        self.fake.answer = b"ICAP/1.0 500 Broken\r\n\r\n"
        self.assertEqual(self.fails(), "the ICAP server says 500 Broken")
        self.fake.answer = b"ICAP/1.0 204 No\r\n\r\n" * 2
        self.assertEqual(self.fails(), "two answers to one question")

    def test_leaves_after_options(self) -> None:
        """A server may close the connection behind every answer."""
        self.fake.leaves = True
        for body in (MESSAGE, LARGE):
            self.assertEqual(self.judge(body).symbols, ())
        self.assertEqual(self.symbol(EICAR).reason, "Eicar-Test")
        self.assertEqual(self.fake.connections, 4)
        self.assertEqual(self.check.report()["failures"], 0)

    def test_closed_in_the_middle(self) -> None:
        """Without a word: on a kept connection another one is tried, a new one has failed."""
        self.net.window, self.net.cut = 4096, 1000
        self.fake.preview = None
        for leaves in (False, True):
            self.fake.leaves = leaves
            self.check = self.make()
            answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(LARGE)))
            for _ in range(20):
                for end in list(self.net.ends):
                    end.step()
            for session in list(self.fake.sessions):
                session.transport.loseConnection()
            self.net.run()
            found = self.successResultOf(answer)
            self.assertEqual([each.name for each in found.symbols], ["ICAP_FAILED"] * leaves)

    def test_full_duplex(self) -> None:
        """A server that gives a message back while it comes, and reads no more if we do not."""
        self.net.window, self.net.cut = 4096, 5000
        self.fake.streams = True
        for preview in (None, 0, 1024):
            self.fake.preview = preview
            self.check = self.make()
            for body in (MESSAGE, LARGE, FileBody(LARGE)):
                self.assertEqual(self.judge(body).symbols, ())
                self.assertEqual(self.shown(), body if body is MESSAGE else LARGE)
            self.assertEqual(self.symbol(LARGE + EICAR).reason, "changed to an answer 200")
            self.assertEqual(self.check.report()["failures"], 0)

    def test_disk_in_the_middle(self) -> None:
        """What is wrong with the body is told, not that the connection was cut for it."""
        self.net.window = 4096
        body = Failing(LARGE)
        self.failureResultOf(self.begin(body), SpoolBroken)
        self.net.run()
        self.assertEqual(self.fake.sessions, set())

    def test_early(self) -> None:
        """A verdict before the end counts, and the connection is closed."""
        self.net.window = 4096
        self.fake.preview = None
        answer = Deferred.fromCoroutine(self.check.check(Stage.DATA, make_facts(LARGE)))
        (session,) = self.fake.sessions
        self.net.cut = 1000
        for _ in range(20):
            for end in list(self.net.ends):
                end.step()
        session.transport.write(b"ICAP/1.0 200 OK\r\nX-Virus-ID: Early\r\n\r\n")
        self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertEqual(symbol.reason, "Early")
        self.net.run()
        self.assertEqual(self.fake.sessions, set())

    def test_scheme(self) -> None:
        """http is no way to speak to it."""
        site = make_site(self.net, self.clock, "[icap]\nurl = http://h/x")
        self.assertRaises(ValueError, MAKERS["icap"].make, site)


class MilterTests(Common, ClientTestCase):
    """A mail filter."""

    name = "milter"
    kind = FakeMilter

    def shown(self) -> bytes:
        """Return the message as the filter was told it, last."""
        heard = self.fake.heard_packets
        begin = max(at for at, packet in enumerate(heard) if packet[0] == "T")
        header = b"".join(
            data[:-1].replace(b"\0", b": ", 1) + b"\r\n"
            for letter, data in heard[begin:]
            if letter == "L"
        )
        body = b"".join(data for letter, data in heard[begin:] if letter == "B")
        return (header + b"\r\n" + body) if header or body else b"\r\n"

    def judge(self, body: Any = MESSAGE, **facts: Any) -> Finding:
        # The fake's notes show no difference between no header section and an empty one.
        return super().judge(body or b"\r\n", **facts)

    def test_streams(self) -> None:
        """Any message, cut in any way, against a slow reader."""
        for window, cut in ((1 << 20, 0), (4096, 1000), (1 << 20, 1)):
            self.net.window, self.net.cut = window, cut
            for body in (MESSAGE, b"\r\n") if cut == 1 else (MESSAGE, LARGE, FileBody(LARGE)):
                octets = body if isinstance(body, bytes) else LARGE
                self.judge(body)
                self.assertEqual(self.shown(), octets)

    def test_conversation(self) -> None:
        """Everything in its order, with macros."""
        self.assertEqual(self.judge().symbols, ())
        self.assertEqual(self.fake.commands, "OCHMRRTLLLNBEQ")
        self.assertEqual(self.fake.data("C"), [b"client.test\x004\x0f\xb9192.0.2.1\0"])
        self.assertEqual(self.fake.data("H"), [b"helo.test\0"])
        self.assertEqual(self.fake.data("M"), [b"<a@sender.test>\0"])
        self.assertEqual(self.fake.data("R"), [b"<b@us.test>\0", b"<c@us.test>\0"])
        self.assertEqual(self.fake.data("L")[1], b"X-A\x001\0")
        self.assertIn(b"Ei\x000000000000007\0", self.fake.data("D"))
        self.assertTrue(self.fake.data("D")[0].startswith(b"Cj\0mx.test\0"))
        self.assertIn(b"\0{client_addr}\x00192.0.2.1\0", self.fake.data("D")[0])
        self.assertIn(b"Mi\x000000000000007\0{mail_addr}\0a@sender.test\0", self.fake.data("D"))
        self.judge(client="2001:db8::1", name="", reverse_path="")
        self.assertEqual(self.fake.data("C")[1], b"[2001:db8::1]\x006\x0f\xb92001:db8::1\0")

    def test_steps(self) -> None:
        """What it need not hear is not said, what it need not answer is not waited for."""
        self.fake.steps = 0x01 | 0x02 | 0x04 | 0x08 | 0x10 | 0x20 | 0x40 | 0x200
        self.judge()
        self.assertEqual(self.fake.commands, "OEQ")
        self.fake.heard_packets.clear()
        self.fake.quiet = "CHMRTLNB"
        self.fake.steps = 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x40000 | 0x80000
        self.judge(LARGE)
        self.assertEqual(self.fake.commands.replace("B", ""), "OCHMRRTLLLNEQ")
        self.assertEqual(self.shown(), LARGE)

    def test_leading_space(self) -> None:
        """Values as they are, where the filter wants that."""
        self.fake.steps = 0x100000
        self.judge()
        self.assertEqual(self.fake.data("L")[1], b"X-A\0 1\0")

    def test_decisions(self) -> None:
        """At every step; what follows is not said."""
        for letter in "CHMTLNBE":
            for packet, name, action in (
                (("r", b""), "MILTER_REJECT", ScanAction.REJECT),
                (("t", b""), "MILTER_TEMPFAIL", ScanAction.TEMPFAIL),
                (("4", b""), "MILTER_TEMPFAIL", ScanAction.TEMPFAIL),
                (("d", b""), "MILTER_DISCARD", ScanAction.DISCARD),
                (("y", b"550 5.7.1 Go away\0"), "MILTER_REJECT", ScanAction.REJECT),
            ):
                self.fake.heard_packets.clear()
                self.fake.replies = {letter: [packet]}
                found = self.symbol()
                self.assertEqual((found.name, found.action), (name, action))
                self.assertEqual(found.reply, "5.7.1 Go away" if packet[0] == "y" else "")
                self.assertEqual(self.fake.commands.rstrip("Q")[-1], letter)
            self.fake.replies = {letter: [("a", b"")]}
            self.assertEqual(self.judge().symbols, ())

    def test_recipients(self) -> None:
        """A refusal of one is for that one; if all are refused the rest is not said."""
        self.fake.recipients = {"b@us.test": [("y", b"550 No b\0")]}
        found = self.symbol()
        self.assertEqual(found.recipients, {"b@us.test"})
        self.assertEqual((found.action, found.reply), (ScanAction.REJECT, "No b"))
        self.assertTrue(self.fake.commands.endswith("EQ"))
        self.fake.heard_packets.clear()
        self.fake.recipients["c@us.test"] = [("t", b"")]
        self.assertEqual(len(self.judge().symbols), 2)
        self.assertEqual(self.fake.commands, "OCHMRR")
        self.fake.recipients["c@us.test"] = [("d", b"")]
        self.assertIs(self.judge().symbols[-1].action, ScanAction.DISCARD)

    def test_changes(self) -> None:
        """Fields, a quarantine, signs of life, then the decision."""
        fake = self.fake
        fake.replies["E"] = [
            ("p", b""),
            fake.edit("h", "X-New", "a\n\tb"),
            fake.edit("m", "X-A", "", index=2),
            fake.edit("m", "x-a", "new", index=1),
            fake.edit("m", "X-None", "new", index=1),
            ("q", b"looks odd\x1b\0"),
            ("c", b""),
        ]
        finding = self.judge()
        (found,) = finding.symbols
        self.assertEqual((found.name, found.action), ("MILTER_QUARANTINE", ScanAction.QUARANTINE))
        self.assertEqual(found.reason, "looks odd")
        self.assertEqual(
            finding.edits,
            (
                AddField("X-New", "a\r\n\tb"),
                RemoveField("X-A", 2),
                RemoveField("x-a", 1),
                AddField("x-a", "new"),
                AddField("X-None", "new"),
            ),
        )
        fake.replies["E"] = [fake.edit("h", "X", "y")] * 500 + [("c", b"")]
        self.assertEqual(len(self.judge().edits), 100)
        fake.replies["E"] = [fake.edit("h", "X", "y"), ("r", b"")]
        self.assertEqual(self.judge().edits, ())

    def test_skip(self) -> None:
        """Enough of the body; elsewhere that means nothing."""
        self.fake.replies["B"] = [("s", b"")]
        self.assertEqual(self.judge(LARGE).symbols, ())
        self.assertTrue(self.fake.commands.endswith("NBEQ"))
        self.fake.replies = {"H": [("s", b"")]}
        self.assertEqual(self.fails(), "no decision: 's'")

    def test_not_offered(self) -> None:
        """Changes of the body, negotiated or not, are a fault; so is what is no decision."""
        for letter in "b+-e2":
            self.check = self.make()
            self.fake.actions = 0x1FF
            self.fake.replies["E"] = [(letter, b"x\0"), ("c", b"")]
            self.assertIn("not offered", self.fails())
        self.fake.replies = {"M": [("h", b"X\0y\0")]}
        self.check = self.make()
        self.assertEqual(self.fails(), "no decision: 'h'")

    def test_versions(self) -> None:
        """Old versions are spoken to, newer ones not."""
        for version, commands in (
            (2, "OCHMRRLLLNBEQ"),
            (3, "OCHMRRLLLNBEQ"),
            (4, "OCHMRRTLLLNBEQ"),
        ):
            self.fake.heard_packets.clear()
            self.fake.version = version
            self.judge()
            self.assertEqual(self.fake.commands, commands)
        self.fake.version = 7
        self.assertIn("version 7", self.fails())

    def test_hangs_up(self) -> None:
        """A filter that is not offered what it needs, as libmilter has it: why, in words."""
        self.fake.fault = Fault.SILENT
        answer = self.begin()
        for session in list(self.fake.sessions):
            session.transport.loseConnection()
        self.net.run()
        (symbol,) = self.successResultOf(answer).symbols
        self.assertIn("does it want the body", symbol.reason)

    def test_cannot(self) -> None:
        """A filter that says so itself."""
        for letter in "ME":
            self.check = self.make()
            self.fake.replies = {letter: [("f", b"")]}
            self.assertIn("cannot do its work", self.fails())

    def test_header_section(self) -> None:
        """One that is too long makes the message unscannable."""
        for body in (b"X: y\r\n" * 60_000, b"X: y\r\n" * 1001, b"X: " + b"y" * 65_533):
            self.assertIs(self.symbol(body).special, Special.UNSCANNABLE)
        self.judge(b"X: " + b"y" * 65_532)
        self.assertEqual(len(self.fake.data("L")[-1]), 65_535)
        self.judge(b"X: y")
        self.assertEqual(self.fake.data("L")[-1], b"X\0y\0")


class PlaceTests(SynchronousTestCase):
    """Where scanners are."""

    def test_places(self) -> None:
        """Sockets, hosts, addresses of both sorts, URLs."""
        for place, host, port, text in (
            (Place.of_client("tcp:h.test:25"), "h.test", 25, "tcp:h.test:25"),
            (Place.of_client("tcp:[::1]:25"), "::1", 25, "tcp:[::1]:25"),
            (Place.of_url("icap://h.test/x", 1344), "h.test", 1344, "tcp:h.test:1344"),
            (Place.of_url("icaps://h.test/x", 11344), "h.test", 11344, "tcp:h.test:11344"),
            (Place.of_url("https://[::1]:99", 1), "::1", 99, "tcp:[::1]:99"),
        ):
            self.assertEqual((place.host, place.port, str(place)), (host, port, text))
        self.assertEqual(str(Place.of_client("unix:/run/x")), "unix:/run/x")
        self.assertTrue(Place.of_url("https://h", 1).tls)

    def test_makers(self) -> None:
        """The plugins, and a check of each from the defaults."""
        for maker in ENGINES:
            self.assertTrue(ICheckMaker.providedBy(maker))
            check = maker.make(make_site(Net(), Clock()))
            self.assertEqual(check.name, maker.name)
