"""The engines' clients with the real scanners, well and in every kind of trouble.

Refused (killed), hung (SIGSTOP), reset in mid-stream, answering garbage: each time a message
has its failure within the deadline, later messages do not wait for it again, and the check
comes back by itself when the scanner does, without a message that finds out.
"""

from __future__ import annotations

import random
import time
import zipfile
from base64 import encodebytes
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsecure.config.load import parse_config
from mailsecure.config.scanning import ScanAction
from mailsecure.scan.api import Site
from mailsecure.scan.engines import health
from mailsecure.scan.engines.guard import EngineCheck
from mailsecure.scan.engines.makers import ENGINES
from mailsecure.scan.values import AddField, Finding, RemoveField, Special, Stage, Symbol
from mailsecure.testing.scanners import EICAR, GTUBE
from mailsecure.testing.workers import InlineWorkers
from mailsecure.world import World
from tests.live import needs
from tests.live.cutter import Cutter
from tests.live.harness import shared
from tests.live.scanners import (
    CIcap,
    Clamd,
    GreedyLibmilter,
    Libmilter,
    OpenDkim,
    Rspamd,
    Scanner,
    Spamd,
)
from tests.scan.engines.net import FileBody, make_facts

WORLD = World(reactor, reactor, time.time, random.Random(3), None)  # type: ignore[arg-type]
HEAD = b"From: <a@sender.test>\r\nTo: <b@us.test>\r\nSubject: hi\r\nMessage-ID: <1@sender.test>\r\n"
CLEAN = HEAD + b"\r\nGood morning!\r\n"
#: More than all buffers on the way hold, and less than SpamAssassin is shown.
LARGE = CLEAN + b"many words in one line\r\n" * 20_000
QUICK = "failures = 2\npause = 100ms\n"
MAKERS = {maker.name: maker for maker in ENGINES}


async def until(true: Callable[[], Any], what: str, timeout: float = 8.0) -> None:
    """Wait until ``true()``."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what}")
        await deferLater(reactor, 0.01)


class EngineTestCase(TestCase):
    """A check of one engine, started and stopped; see :meth:`make`."""

    engine = ""
    timeout = 60

    def scanner(self) -> Any:
        """Return the daemon, shared by the tests of a class."""
        raise NotImplementedError

    def settings(self, address: str) -> str:
        """Return the options that lead to ``address``, ``tcp:127.0.0.1:PORT``."""
        return f"address = {address}"

    async def make(self, options: str) -> EngineCheck:
        """Return a running check with these options in its section."""
        timeout = "" if "timeout" in options else "timeout = 600ms\n"
        ini = f"[node]\nhostname = mx.test\n[{self.engine}]\n{QUICK}{timeout}{options}\n"
        site = Site(parse_config(ini, "test.ini"), WORLD, InlineWorkers(), Path("/nowhere"))
        check = MAKERS[self.engine].make(site)
        self.addCleanup(check.stop)
        await check.start()
        return check

    async def judge(self, check: EngineCheck, body: Any = CLEAN, **facts: Any) -> Finding:
        """Return what the check finds, at DATA."""
        return await check.check(Stage.DATA, make_facts(body, **facts))

    def symbols(self, finding: Finding) -> dict[str, Symbol]:
        """Return the symbols of a finding by name."""
        return {symbol.name: symbol for symbol in finding.symbols}


class Trouble:
    """What every engine must stand."""

    async def ill(self: Any, check: EngineCheck) -> None:
        """Every message fails within its deadline, and once it is down, at once."""
        for body in (FileBody(LARGE), CLEAN, CLEAN):
            began = time.monotonic()
            finding = await self.judge(check, body)
            self.assertLess(time.monotonic() - began, 1.0)
            (symbol,) = finding.symbols
            self.assertEqual(symbol.name, f"{self.engine.upper()}_FAILED")
            self.assertIs(symbol.special, Special.FAILURE)
        await until(lambda: check.report()["state"] != "well", "it is down")
        began = time.monotonic()
        await self.judge(check)
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertTrue(check.report()["last_error"])

    async def well(self: Any, check: EngineCheck) -> None:
        """It comes back by itself, and judges."""
        await until(lambda: check.report()["state"] == "well", "it is back")
        finding = await self.judge(check)
        self.assertFalse([each for each in finding.symbols if each.special or each.action], finding)

    async def test_refused(self: Any) -> None:
        """Nobody listens."""
        scanner = self.scanner()
        check = await self.make(self.settings(scanner.address))
        await self.well(check)
        scanner.kill()
        try:
            await self.ill(check)
        finally:
            scanner.restart()
        await self.well(check)

    async def test_hung(self: Any) -> None:
        """It accepts, or its kernel does, and says nothing."""
        scanner = self.scanner()
        check = await self.make(self.settings(scanner.address))
        await self.well(check)
        scanner.stop()
        try:
            await self.ill(check)
        finally:
            scanner.cont()
        await self.well(check)

    async def through(self: Any, mode: str, after: int = 1) -> None:
        """Do harm on the way to it."""
        scanner = self.scanner()
        cutter = Cutter(reactor, getattr(scanner, "tcp", scanner.address))
        self.addCleanup(cutter.close)
        check = await self.make(self.settings(cutter.address))
        await self.well(check)
        cutter.mode = mode
        for each in list(cutter.open):
            each.transport.abortConnection()
        cutter.after = after
        await self.ill(check)
        cutter.mode = "pass"
        await self.well(check)

    async def test_reset(self: Any) -> None:
        """Each connection is reset when something comes."""
        await self.through("reset")

    async def test_only_messages(self: Any) -> None:
        """Messages reset it in mid-stream or hang there, pings do not: nobody else is shut out."""
        scanner = self.scanner()
        cutter = Cutter(reactor, getattr(scanner, "tcp", scanner.address))
        self.addCleanup(cutter.close)
        check = await self.make(f"{self.settings(cutter.address)}\ntimeout = 1500ms")
        await self.well(check)
        cutter.after = 600
        for cutter.mode in ("reset", "hold"):
            for _ in range(3):
                (symbol,) = (await self.judge(check, FileBody(LARGE))).symbols
                self.assertEqual(symbol.name, f"{self.engine.upper()}_FAILED")
                self.assertNotIn("it is down", symbol.reason)
                self.assertEqual(check.report()["state"], "well")
        cutter.mode = "pass"
        await self.well(check)

    async def test_garbage(self: Any) -> None:
        """The answer is nonsense."""
        await self.through("garbage")


@needs(programs=["clamd"])
class ClamavTests(Trouble, EngineTestCase):
    """clamd, with EICAR's sum as its database."""

    engine = "clamav"

    def scanner(self) -> Clamd:
        """clamd."""
        return shared(Clamd, _maker(Clamd))

    async def test_verdicts(self) -> None:
        """EICAR, plain and in a zip, by socket and port, in sessions that go on."""
        for address in (self.scanner().address, self.scanner().tcp):
            check = await self.make(f"address = {address}")
            for _ in range(3):
                self.assertEqual((await self.judge(check)).symbols, ())
                found = self.symbols(await self.judge(check, _attached(EICAR, "a.txt")))
                self.assertIn("Eicar-Test", found["CLAMAV"].reason)
                self.assertIs(found["CLAMAV"].special, Special.MALWARE)
                found = self.symbols(await self.judge(check, _attached(_zip(EICAR), "a.zip")))
                self.assertIn("CLAMAV", found)
            self.assertEqual(check.report()["scanned"], 9)
            self.assertEqual(check.report()["found"], 6)

    async def test_no_window(self) -> None:
        """Messages that hang there do not let others' through unseen, while they do or after."""
        cutter = Cutter(reactor, self.scanner().tcp)
        self.addCleanup(cutter.close)
        check = await self.make(
            f"address = {cutter.address}\non_failure = accept\ntimeout = 1500ms"
        )
        await self.well(check)
        cutter.mode, cutter.after = "hold", 1000
        virus = _attached(EICAR, "a.txt")
        self.assertLess(len(virus), 900)
        for _ in range(3):
            hanging = [Deferred.fromCoroutine(self.judge(check, LARGE)) for _ in range(5)]
            self.assertIn("CLAMAV", self.symbols(await self.judge(check, virus)))
            for answer in hanging:
                found = self.symbols(await answer)["CLAMAV_FAILED"]
                self.assertEqual(found.reason, "no answer within 1.5 s")
                self.assertIs(found.action, ScanAction.ACCEPT)
            self.assertIn("CLAMAV", self.symbols(await self.judge(check, virus)))
            self.assertEqual(check.report()["state"], "well")

    async def test_hung_with_patience(self) -> None:
        """A clamd that hangs is found out long before a message's deadline."""
        self.patch(health, "SILENCE", 0.5)
        self.patch(health, "PROBE", 0.5)
        clamd = self.scanner()
        check = await self.make(f"address = {clamd.address}\ntimeout = 30s")
        await self.well(check)
        clamd.stop()
        try:
            first = Deferred.fromCoroutine(self.judge(check))
            await until(lambda: check.report()["state"] == "down", "it is down")
            self.assertFalse(first.called)
            began = time.monotonic()
            found = self.symbols(await self.judge(check))
            self.assertIn("it is down", found["CLAMAV_FAILED"].reason)
            self.assertLess(time.monotonic() - began, 1.0)
        finally:
            clamd.cont()
        self.assertEqual((await first).symbols, ())
        await self.well(check)

    async def test_special(self) -> None:
        """Password-protected, and larger than clamd takes, from memory and from a file."""
        check = await self.make(f"address = {self.scanner().address}")
        found = self.symbols(await self.judge(check, _attached(_locked(), "a.zip")))
        self.assertIs(found["CLAMAV_ENCRYPTED"].special, Special.ENCRYPTED)
        large = CLEAN + b"x" * 70 + b"\r\n" + b"y" * (3 << 20) + b"\r\n"
        for body in (large, FileBody(large)):
            found = self.symbols(await self.judge(check, body))
            self.assertIn("CLAMAV_LIMITS", found, found)
            self.assertIs(found["CLAMAV_LIMITS"].special, Special.UNSCANNABLE)
        self.assertEqual((await self.judge(check)).symbols, ())


@needs(programs=["rspamd"])
class RspamdTests(Trouble, EngineTestCase):
    """Rspamd's normal worker."""

    engine = "rspamd"

    def scanner(self) -> Rspamd:
        """Rspamd."""
        return shared(Rspamd, _maker(Rspamd))

    def settings(self, address: str) -> str:
        """A URL."""
        return f"url = http://{address.removeprefix('tcp:')}"

    async def test_verdicts(self) -> None:
        """GTUBE, a rule with header changes, a soft reject, and nothing."""
        check = await self.make(f"url = {self.scanner().url}")
        found = self.symbols(await self.judge(check))["RSPAMD"]
        self.assertEqual((found.score, found.action), (0.0, None))
        found = self.symbols(await self.judge(check, HEAD + b"\r\n" + GTUBE + b"\r\n"))["RSPAMD"]
        self.assertEqual((found.score, found.action), (15.0, ScanAction.REJECT))
        self.assertEqual(found.reply, "Gtube pattern")
        self.assertIn("GTUBE", found.reason)
        finding = await self.judge(check, b"X-Bad: 1\r\n" + CLEAN)
        found = self.symbols(finding)["RSPAMD"]
        self.assertEqual((found.score, found.action), (7.0, ScanAction.TAG))
        self.assertEqual(found.reason, "add header: X_BAD(7)")
        self.assertEqual(finding.edits[0], RemoveField("X-Bad"))
        self.assertEqual(
            set(finding.edits[1:]),
            {AddField("X-Found", "bad"), AddField("X-Two", "a\r\n\tb"), AddField("X-Two", "c")},
        )
        found = self.symbols(await self.judge(check, b"X-Soft: 1\r\n" + CLEAN))["RSPAMD"]
        self.assertEqual((found.action, found.reply), (ScanAction.TEMPFAIL, "Not now"))

    async def test_large(self) -> None:
        """A message of some megabytes from a file."""
        check = await self.make(f"url = {self.scanner().url}\ntimeout = 20s")
        body = FileBody(CLEAN + b"many words \r\n" * 300_000)
        self.assertIn("RSPAMD", self.symbols(await self.judge(check, body)))


@needs(programs=["spamd"])
class SpamassassinTests(Trouble, EngineTestCase):
    """spamd, with the rules of Debian's package, local ones only."""

    engine = "spamassassin"

    def scanner(self) -> Spamd:
        """spamd."""
        return shared(Spamd, _maker(Spamd))

    async def test_last_line_without_end(self) -> None:
        """As ``mailsecure scan`` may have it of a file."""
        check = await self.make(f"address = {self.scanner().address}\ntimeout = 5s")
        self.assertIn("SPAMASSASSIN", self.symbols(await self.judge(check, CLEAN + b"no end")))

    async def test_verdicts(self) -> None:
        """GTUBE and nothing."""
        check = await self.make(f"address = {self.scanner().address}\nweight = 0.01")
        found = self.symbols(await self.judge(check, HEAD + b"\r\n" + GTUBE + b"\r\n"))
        self.assertGreater(found["SPAMASSASSIN"].score, 9.5)
        self.assertIn("GTUBE", found["SPAMASSASSIN"].reason)
        found = self.symbols(await self.judge(check))
        self.assertLess(found["SPAMASSASSIN"].score, 0.1)


@needs(programs=["c-icap", "clamd"])
class IcapTests(Trouble, EngineTestCase):
    """c-icap with virus_scan, which asks clamd."""

    engine = "icap"

    def scanner(self) -> CIcap:
        """c-icap."""
        return shared(CIcap, _icap)

    def settings(self, address: str) -> str:
        """A URL."""
        return f"url = icap://{address.removeprefix('tcp:')}/echo"

    async def test_verdicts(self) -> None:
        """EICAR, in messages smaller and larger than the preview, and nothing."""
        check = await self.make(f"url = {self.scanner().url}")
        for filler in (b"", b"some words\r\n" * 5000):
            body = _attached(EICAR, "a.txt", filler)
            found = self.symbols(await self.judge(check, body))
            self.assertIs(found["ICAP"].special, Special.MALWARE)
            self.assertIn("Eicar", found["ICAP"].reason, filler[:10])
            self.assertEqual((await self.judge(check, CLEAN + filler)).symbols, ())
        self.assertEqual(check.report()["failures"], 0)

    async def test_streamed(self) -> None:
        """Above StartSendPercentDataAfter it gives back the beginning while the end comes."""
        check = await self.make(f"url = {self.scanner().url}\ntimeout = 20s")
        words = b"".join(b"word %d and another one\r\n" % at for at in range(30_000))
        for body in (HEAD + b"\r\n" + words, words):
            self.assertEqual((await self.judge(check, FileBody(body))).symbols, ())


@needs(programs=["opendkim"])
class OpenDkimTests(Trouble, EngineTestCase):
    """OpenDKIM, a milter that verifies."""

    engine = "milter"

    def scanner(self) -> OpenDkim:
        """opendkim."""
        return shared(OpenDkim, _maker(OpenDkim))

    async def test_field(self) -> None:
        """It adds Authentication-Results, and takes out what pretends to be its own."""
        check = await self.make(f"address = {self.scanner().address}")
        forged = b"Authentication-Results: mx.test; dkim=pass\r\n"
        finding = await self.judge(check, forged + CLEAN)
        self.assertEqual(finding.symbols, ())
        added = [edit for edit in finding.edits if isinstance(edit, AddField)]
        self.assertEqual([edit.name for edit in added], ["Authentication-Results"])
        self.assertIn("dkim=none", added[0].value)
        self.assertIn(RemoveField("Authentication-Results", 1), finding.edits)


@needs(programs=["opendkim"])
class LibmilterTests(Trouble, EngineTestCase):
    """A filter on sendmail's libmilter, which comes with opendkim."""

    engine = "milter"

    def scanner(self) -> Libmilter:
        """The filter."""
        return shared(Libmilter, _maker(Libmilter))

    async def test_told(self) -> None:
        """What it is told, as libmilter gives it to filters: macros by their names, octets."""
        check = await self.make(f"address = {self.scanner().address}\ntimeout = 5s")
        before = len(self.scanner().heard())
        odd = b"X: " + b"y" * 65_000 + b"\r\n\r\n" + b"a\rb\nc\0d\r\n" + b"z" * 1_000_000
        for body in (CLEAN, HEAD + b"\r\n", HEAD, b"", b"\r\n", odd):
            self.assertEqual((await self.judge(check, body)).symbols, ())
        heard = self.scanner().heard()[before:]
        commands = [what for what, _, _ in heard]
        self.assertEqual(
            commands[: commands.index("eom") + 1],
            ["connect", "helo", "mail", "rcpt", "rcpt", "data", *["header"] * 4, "eom"],
        )
        by_name = {what: macros for what, _, macros in heard}
        self.assertEqual(by_name["connect"]["{client_addr}"], "192.0.2.1")
        self.assertEqual(by_name["connect"]["j"], "mx.test")
        self.assertEqual(by_name["mail"]["{mail_addr}"], "a@sender.test")
        self.assertEqual(by_name["rcpt"]["{rcpt_addr}"], "c@us.test")
        self.assertEqual(by_name["eom"]["i"], "0000000000007")
        sizes = [words for what, words, _ in heard if what == "eom"]
        self.assertEqual(sizes, [["15"], ["0"], ["0"], ["0"], ["0"], ["1000009"]])
        for longer in (65_531, 65_532, 1_000_000):
            symbols = (await self.judge(check, b"X: " + b"y" * longer + b"\r\n\r\n")).symbols
            special = Special.UNSCANNABLE if longer > 65_532 else None
            self.assertIs(symbols[0].special if symbols else None, special, longer)

    async def test_done(self) -> None:
        """What it may do."""
        check = await self.make(f"address = {self.scanner().address}\ntimeout = 5s")
        finding = await self.judge(check, b"X-Do: fields\r\n" + CLEAN)
        self.assertEqual(
            finding.edits,
            (
                AddField("X-Added", "one\r\n\ttwo"),
                RemoveField("Subject", 1),
                AddField("Subject", "changed"),
                RemoveField("X-Do", 1),
                AddField("X-Top", "100% ?"),
            ),
        )
        for order, action, reply in (
            ("lines", ScanAction.REJECT, "5.7.1 Not 100% here"),
            ("quarantine", ScanAction.QUARANTINE, ""),
            ("discard", ScanAction.DISCARD, ""),
            ("tempfail", ScanAction.TEMPFAIL, ""),
        ):
            (found,) = (await self.judge(check, f"X-Do: {order}\r\n".encode() + CLEAN)).symbols
            self.assertEqual((found.action, found.reply), (action, reply))
        for order in ("accept", "progress"):
            finding = await self.judge(check, f"X-Do: {order}\r\n".encode() + CLEAN)
            self.assertEqual(finding.symbols, ())

    async def test_for_ever(self) -> None:
        """Signs of life do not prolong the deadline."""
        check = await self.make(f"address = {self.scanner().address}\ntimeout = 600ms")
        began = time.monotonic()
        (found,) = (await self.judge(check, b"X-Do: progress\r\n" + CLEAN)).symbols
        self.assertLess(time.monotonic() - began, 1.0)
        self.assertEqual(found.reason, "no answer within 0.6 s")

    async def test_wants_the_body(self) -> None:
        """It hangs up, and the status says why."""
        with GreedyLibmilter() as greedy:
            check = await self.make(f"address = {greedy.address}")
            await until(lambda: check.report()["state"] != "well", "it is down")
            self.assertIn("does it want the body", check.report()["last_error"])


@needs(programs=["rspamd"])
class RspamdMilterTests(EngineTestCase):
    """Rspamd's proxy, a milter that refuses."""

    engine = "milter"

    def scanner(self) -> Rspamd:
        """Rspamd."""
        return shared(Rspamd, _maker(Rspamd))

    async def test_verdicts(self) -> None:
        """GTUBE is refused with its words, a rule changes the header section."""
        check = await self.make(f"address = {self.scanner().milter}\ntimeout = 5s")
        self.assertEqual((await self.judge(check)).symbols, ())
        found = self.symbols(await self.judge(check, HEAD + b"\r\n" + GTUBE + b"\r\n"))
        self.assertIs(found["MILTER_REJECT"].action, ScanAction.REJECT)
        self.assertIn("Gtube pattern", found["MILTER_REJECT"].reply)
        finding = await self.judge(check, b"X-Bad: 1\r\n" + CLEAN)
        self.assertIn(RemoveField("X-Bad", 1), finding.edits)
        self.assertIn(AddField("X-Found", "bad"), finding.edits)


def _maker(kind: type[Scanner]) -> Callable[[], tuple[Any, Callable[[], None]]]:
    def make() -> tuple[Any, Callable[[], None]]:
        scanner = kind()
        return scanner, scanner.close

    return make


def _icap() -> tuple[CIcap, Callable[[], None]]:
    clamd = Clamd()
    icap = CIcap(clamd)

    def close() -> None:
        icap.close()
        clamd.close()

    return icap, close


def _zip(content: bytes) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", content)
    return file.getvalue()


def _locked() -> bytes:
    """Return a zip whose only member says that it is encrypted."""
    octets = bytearray(_zip(b"twelve octets and some more, so that there is a header"))
    for at in (octets.find(b"PK\3\4") + 6, octets.find(b"PK\1\2") + 8):
        octets[at] |= 1
    return bytes(octets)


def _attached(content: bytes, name: str, filler: bytes = b"") -> bytes:
    """Return a message with one attachment in base64."""
    return (
        HEAD + b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=xx\r\n\r\n"
        b"--xx\r\nContent-Type: text/plain\r\n\r\n" + filler + b"Look:\r\n--xx\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; filename=" + name.encode() + b"\r\n\r\n"
        b"" + encodebytes(content).replace(b"\n", b"\r\n") + b"--xx--\r\n"
    )
