"""The checks attachments, markers and urls: what an anatomy comes to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsecure.config.load import parse_config
from mailsecure.config.scanning import ScanAction
from mailsecure.scan.anatomy import Anatomy, FoundUrl, Part, Trait
from mailsecure.scan.api import Check, ICheckMaker, Site, Unscannable
from mailsecure.scan.checks.attaching import judge_attachments
from mailsecure.scan.checks.attachments import AttachmentsMaker
from mailsecure.scan.checks.linking import judge_links, what_to_ask
from mailsecure.scan.checks.markers import MarkersMaker
from mailsecure.scan.checks.urls import LOOKUP_TIME, UrlsMaker
from mailsecure.scan.values import Content, Facts, Special, Stage, Symbol
from mailsecure.testing.resolver import SERVFAIL, FakeResolver, Zone
from mailsecure.testing.workers import InlineWorkers, OctetsBody
from mailsecure.world import World

INI = (
    "[urls]\nlists =\n  uri.test=127.0.0.2 4\n  black.test 5\nignore = example.com\nmax_names = 4\n"
)


def part(path: str, *traits: Trait, words: tuple[str, ...] = ()) -> Part:
    """Return a part of the message."""
    name = path.rpartition("/")[2]
    return Part(f"message/{path}", name, "a/b", "c/d", 1, "", frozenset(traits), words)


def url(host: str, domain: str = "") -> FoundUrl:
    """Return a link."""
    return FoundUrl(f"http://{host}/", host, domain)


class CheckTestCase(SynchronousTestCase):
    """Has a site."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.zone: Zone = {}
        self.resolver: Any = FakeResolver(self.zone)

    def site(self, ini: str = INI) -> Site:
        """Return a site with this ini."""
        world = World(None, self.clock, lambda: 0.0, None, self.resolver)  # type: ignore[arg-type]
        return Site(parse_config(ini, "test.ini"), world, InlineWorkers(), Path())

    def run_check(self, check: Check, anatomy: Anatomy | Exception) -> Deferred[tuple[Symbol, ...]]:
        """Run a check at DATA on a message that is made so."""

        async def anatomy_of() -> Anatomy:
            if isinstance(anatomy, Exception):
                raise anatomy
            return anatomy

        content = Content(1, "x", OctetsBody(b""), 0, b"", b"", anatomy_of)
        facts = Facts("s", "192.0.2.1", content=content)

        async def symbols() -> tuple[Symbol, ...]:
            return (await check.check(Stage.DATA, facts)).symbols

        return Deferred.fromCoroutine(symbols())

    def found(self, check: Check, anatomy: Anatomy) -> tuple[Symbol, ...]:
        """Return what a check finds at once."""
        return self.successResultOf(self.run_check(check, anatomy))


class AttachmentTests(CheckTestCase):
    """judge_attachments and its check."""

    settings = parse_config("", "test.ini").attachments

    def names(self, parts: Sequence[Part]) -> dict[str, Symbol]:
        """Return what the parts come to, by name."""
        anatomy = Anatomy(parts=tuple(parts))
        return {each.name: each for each in judge_attachments(anatomy, self.settings)}

    def test_nothing(self) -> None:
        """Archives and ordinary files are nothing."""
        self.assertEqual(self.names([part("a.zip", Trait.ARCHIVE), part("b")]), {})

    def test_each(self) -> None:
        """Each trait has its symbol, with the action of the ini."""
        for trait, name, action in (
            (Trait.FORBIDDEN_NAME, "FORBIDDEN_NAME", ScanAction.REJECT),
            (Trait.FORBIDDEN_TYPE, "FORBIDDEN_TYPE", ScanAction.REJECT),
            (Trait.EXECUTABLE, "EXECUTABLE", ScanAction.REJECT),
            (Trait.DOUBLE_EXTENSION, "DOUBLE_EXTENSION", ScanAction.REJECT),
            (Trait.MACROS, "MACROS", ScanAction.TAG),
            (Trait.SUSPICIOUS, "MACROS_SUSPICIOUS", ScanAction.QUARANTINE),
        ):
            [symbol] = self.names([part("x/a.exe", trait)]).values()
            self.assertEqual((symbol.name, symbol.action), (name, action))
            self.assertGreater(symbol.score, 0)
            self.assertIn("'x/a.exe'", symbol.reason)
            self.assertTrue(symbol.reply.isascii() and symbol.reply)
        [symbol] = self.names([part("a.zip", Trait.ENCRYPTED)]).values()
        self.assertEqual((symbol.name, symbol.special), ("ENCRYPTED", Special.ENCRYPTED))

    def test_reasons(self) -> None:
        """Some are named, the others counted; words of macros; nothing but ASCII."""
        parts = [part(f"{n}.exe", Trait.EXECUTABLE) for n in range(5)]
        self.assertIn("and 2 more", self.names(parts)["EXECUTABLE"].reason)
        long = part("ü\n" + "x" * 200 + ".exe", Trait.EXECUTABLE)
        symbol = self.names([long])["EXECUTABLE"]
        self.assertTrue(symbol.reason.isascii() and symbol.reply.isprintable())
        self.assertLess(len(symbol.reason), 200)
        words = part("a.doc", Trait.MACROS, Trait.SUSPICIOUS, words=("AutoOpen", "Shell"))
        self.assertIn("AutoOpen Shell", self.names([words])["MACROS_SUSPICIOUS"].reason)

    def test_accepted(self) -> None:
        """What the postmaster accepts is told, and counts for nothing."""
        self.settings = parse_config("[attachments]\nmacros = accept", "test.ini").attachments
        symbol = self.names([part("a.doc", Trait.MACROS)])["MACROS"]
        self.assertEqual((symbol.score, symbol.action), (0.0, None))

    def test_scripts(self) -> None:
        """Let through as shipped, refused by whom the ini says."""
        symbol = self.names([part("configure", Trait.SCRIPT)])["SCRIPT"]
        self.assertEqual((symbol.score, symbol.action), (0.0, None))
        self.settings = parse_config("[attachments]\nscripts = reject", "test.ini").attachments
        symbol = self.names([part("configure", Trait.SCRIPT)])["SCRIPT"]
        self.assertEqual((symbol.score, symbol.action), (4.0, ScanAction.REJECT))

    def test_check(self) -> None:
        """The check passes on what cannot be read; without a message it finds nothing."""
        maker = AttachmentsMaker()
        verifyObject(ICheckMaker, maker)
        check = maker.make(self.site())
        [symbol] = self.found(check, Anatomy(parts=(part("a.exe", Trait.EXECUTABLE),)))
        self.assertEqual(symbol.name, "EXECUTABLE")
        self.failureResultOf(self.run_check(check, Unscannable("bomb")), Unscannable)
        nothing = Deferred.fromCoroutine(check.check(Stage.DATA, Facts("s", "192.0.2.1")))
        self.assertEqual(self.successResultOf(nothing).symbols, ())


class MarkerTests(CheckTestCase):
    """The check markers."""

    def test_check(self) -> None:
        """EICAR is malware, GTUBE is spam, other mail is nothing."""
        maker = MarkersMaker()
        verifyObject(ICheckMaker, maker)
        check = maker.make(self.site())
        self.assertEqual(self.found(check, Anatomy()), ())
        parts = (part("a.zip/b.com", Trait.EICAR),)
        eicar, gtube = self.found(check, Anatomy(parts=parts, gtube=True))
        self.assertEqual((eicar.name, eicar.special), ("EICAR", Special.MALWARE))
        self.assertIn("a.zip/b.com", eicar.reason)
        self.assertEqual((gtube.name, gtube.score), ("GTUBE", 1000.0))
        nothing = Deferred.fromCoroutine(check.check(Stage.DATA, Facts("s", "192.0.2.1")))
        self.assertEqual(self.successResultOf(nothing).symbols, ())


class LinkTests(CheckTestCase):
    """What is asked, and what the answers come to."""

    def test_asked(self) -> None:
        """Registered domains once, and public addresses; neither suffixes nor what is ignored."""
        urls = (
            url("www.a.test", "a.test"),
            url("b.a.test", "a.test"),
            url("www.example.com", "example.com"),
            url("example.com", "example.com"),
            url("co.uk"),
            url("192.0.2.1"),
            url("10.0.0.1"),
            url("2001:db8::1"),
        )
        asked = what_to_ask(Anatomy(urls=urls), ("example.com",), 10)
        self.assertEqual(asked.domains, ("a.test",))
        self.assertEqual([str(each) for each in asked.addresses], ["192.0.2.1", "2001:db8::1"])
        asked = what_to_ask(Anatomy(urls=urls), (), 2)
        self.assertEqual(asked.domains, ("a.test", "example.com"))

    def test_judged(self) -> None:
        """A list counts once, with the worst."""
        one, two = judge_links(
            [("a.b", f"{n}.test", float(n)) for n in range(1, 6)] + [("c.d", "x.test", 2.0)]
        )
        self.assertEqual((one.name, one.score), ("URIBL_A_B", 5.0))
        self.assertIn("1.test, 2.test, 3.test and 2 more", one.reason)
        self.assertEqual((two.name, two.score), ("URIBL_C_D", 2.0))

    def test_check(self) -> None:
        """Lists are asked about domains and addresses turned round; other answers do not count."""
        self.zone["a.test.uri.test"] = {"A": ["127.0.0.2"]}
        self.zone["b.test.uri.test"] = {"A": ["127.0.0.4"]}
        self.zone["1.2.0.192.black.test"] = {"A": ["127.0.0.2"]}
        maker = UrlsMaker()
        verifyObject(ICheckMaker, maker)
        check = maker.make(self.site())
        urls = (url("www.a.test", "a.test"), url("b.test", "b.test"), url("192.0.2.1"))
        symbols = {each.name: each for each in self.found(check, Anatomy(urls=urls))}
        self.assertEqual(set(symbols), {"URIBL_URI_TEST", "URIBL_BLACK_TEST"})
        self.assertEqual(symbols["URIBL_URI_TEST"].score, 4.0)
        self.assertEqual(symbols["URIBL_URI_TEST"].reason, "links lead to a.test")
        self.assertEqual(symbols["URIBL_BLACK_TEST"].reason, "links lead to 192.0.2.1")

    def test_bounded(self) -> None:
        """Not more than max_names are asked about."""
        check = UrlsMaker().make(self.site())
        urls = tuple(url(f"{n}.test", f"{n}.test") for n in range(20))
        self.found(check, Anatomy(urls=urls))
        self.assertEqual(len(self.resolver.questions), 8)

    def test_dead(self) -> None:
        """A list that is dead delays no longer than LOOKUP_TIME, and says nothing."""
        self.zone["a.test.uri.test"] = {"A": ["127.0.0.2"]}
        answers = self.resolver.ipv4

        async def ipv4(name: str) -> Sequence[str]:
            if name.endswith("black.test"):
                await Deferred()
            return list(await answers(name))

        self.resolver.ipv4 = ipv4
        check: Any = UrlsMaker().make(self.site())
        work = self.run_check(check, Anatomy(urls=(url("a.test", "a.test"),)))
        self.assertNoResult(work)
        self.clock.advance(LOOKUP_TIME)
        [symbol] = self.successResultOf(work)
        self.assertEqual(symbol.name, "URIBL_URI_TEST")
        self.assertEqual(check.counts(), {"uri.test": 0, "black.test": 1})

    def test_broken(self) -> None:
        """One that fails says nothing, either."""
        self.zone["a.test.black.test"] = SERVFAIL
        check = UrlsMaker().make(self.site())
        self.assertEqual(self.found(check, Anatomy(urls=(url("a.test", "a.test"),))), ())

    def test_no_lists(self) -> None:
        """Without lists it does not run; without a message it finds nothing."""
        self.assertEqual(UrlsMaker().make(self.site("")).stages, frozenset())
        check = UrlsMaker().make(self.site())
        nothing = Deferred.fromCoroutine(check.check(Stage.DATA, Facts("s", "192.0.2.1")))
        self.assertEqual(self.successResultOf(nothing).symbols, ())
