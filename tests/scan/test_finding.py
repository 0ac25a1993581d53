"""Proves that checks are found, that broken ones are told, and that the manual's example works."""

from __future__ import annotations

import os
import re
import sys
import unittest
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import LocalFault, Problem
from mailsecure.scan.finding import find_makers, unknown_checks
from mailsecure.scan.values import Content, Facts, Stage
from mailsecure.testing.workers import OctetsBody
from twisted import plugins

from .world import Scene

MANUAL = Path(__file__).parents[2] / "docs" / "checks.rst"
OURS = {"dnsbl", "greylist", "identity", "rates"}
MAKER = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from mailsecure.scan.api import ICheckMaker

@implementer(IPlugin, ICheckMaker)
class Maker:
    name = {name}
    def make(self, site):
        return None

maker = Maker()
"""


def example(name: str) -> str:
    """Return the code of the manual's block ``name``."""
    text = MANUAL.read_text(encoding="utf-8")
    found = re.search(rf"   :name: {name}\n\n((?:   .*\n|\n)+)", text)
    assert found is not None
    return dedent(found[1]).strip() + "\n"


class Case(SynchronousTestCase):
    """A directory of plugins, forgotten afterwards."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        path, modules = list(plugins.__path__), set(sys.modules)
        # What other tests and twistd have cached stays as it is.
        self.addCleanup(self.restore, path, modules)

    def restore(self, path: list[str], modules: set[str]) -> None:
        plugins.__path__[:] = path
        for name in set(sys.modules) - modules:
            if name.startswith("twisted.plugins.site_"):
                del sys.modules[name]
                delattr(plugins, name.rpartition(".")[2])

    def write(self, name: str, text: str) -> Path:
        file = self.directory / name
        file.write_text(text, encoding="utf-8")
        return file

    def fault(self) -> str:
        with self.assertRaises(LocalFault) as caught:
            find_makers(self.directory)
        return str(caught.exception)


class FindingTests(Case):
    """:func:`find_makers`."""

    def test_ours(self) -> None:
        """Ours are there without any directory, and make checks of their names."""
        makers = find_makers(None)
        self.assertLessEqual(OURS, set(makers))
        for name in OURS:
            self.assertEqual(makers[name].name, name)
            self.assertEqual(makers[name].make(Scene().site()).name, name)

    def test_site(self) -> None:
        """A file of the site's is found beside ours, once, however often one looks."""
        self.write("site_a.py", MAKER.format(name="'site-a'"))
        for _ in range(2):
            self.assertLessEqual(OURS | {"site-a"}, set(find_makers(self.directory)))
        self.assertEqual(plugins.__path__.count(str(self.directory.resolve())), 1)

    def test_stale_cache(self) -> None:
        """A file that was changed and kept its date is found as it is."""
        file = self.write("site_b.py", "x = 1\n")
        os.utime(file, (1, 1))
        find_makers(self.directory)
        self.assertTrue((self.directory / "dropin.cache").exists())
        del sys.modules["twisted.plugins.site_b"]
        file.write_text(MAKER.format(name="'site-b'"), encoding="utf-8")
        os.utime(file, (1, 1))
        for cached in (self.directory / "__pycache__").glob("site_b.*"):
            cached.unlink()
        self.assertIn("site-b", find_makers(self.directory))

    def test_no_cache(self) -> None:
        """A directory that cannot be written is of no consequence."""
        self.write("site_c.py", MAKER.format(name="'site-c'"))
        with mock.patch("twisted.python.filepath.FilePath.setContent", side_effect=OSError(30, "")):
            self.assertIn("site-c", find_makers(self.directory))

    def test_broken(self) -> None:
        """What cannot be imported is told with file, line and reason."""
        for number, (text, wanted) in enumerate(
            (
                ("x = 1\ny = = 2\n", r"site_d0.py: SyntaxError: invalid syntax .*line 2"),
                (
                    "\n\nimport nothing_of_the_kind\n",
                    r"site_d1.py:3: ModuleNotFoundError: No module",
                ),
                ("def f():\n    1 / 0\n\nf()\n", r"site_d2.py:2: ZeroDivisionError: division"),
            )
        ):
            file = self.write(f"site_d{number}.py", text)
            self.assertRegex(self.fault(), wanted)
            file.unlink()

    def test_no_check(self) -> None:
        """A file without a maker, or with the class of one only, is none, and no harm."""
        self.write("site_e.py", MAKER.format(name="'site-e'").replace("maker = Maker()", ""))
        self.write("__init__.py", "raise ValueError")
        self.assertNotIn("site-e", find_makers(self.directory))

    def test_wrong_makers(self) -> None:
        """A maker that cannot make, or has no name that can be written, is told."""
        file = self.write("site_f.py", MAKER.format(name="'x'").replace("def make", "def fake"))
        self.assertRegex(self.fault(), r"site_f\.py: The object .*\.make.* was not provided")
        file.unlink()
        for number, name in enumerate(("'No Name'", "''", "7", "'x' * 40")):
            file = self.write(f"site_g{number}.py", MAKER.format(name=name))
            self.assertRegex(self.fault(), rf"site_g{number}\.py: .* is no name of a check")
            file.unlink()

    def test_two_of_a_name(self) -> None:
        """Nobody guesses which of two was meant."""
        self.write("site_h.py", MAKER.format(name="'dnsbl'"))
        self.assertRegex(self.fault(), r"two checks are called dnsbl: in .*mailsecure_checks")

    def test_two_files_of_a_name(self) -> None:
        """A file that hides behind another module is told."""
        self.write("mailsecure_checks.py", "")
        self.assertRegex(self.fault(), r"there is a module mailsecure_checks already, .*twisted")

    def test_no_module(self) -> None:
        """A file whose name cannot be imported is told."""
        self.write("my-check.py", "")
        self.assertIn("'my-check' is no name of a module", self.fault())

    def test_directory(self) -> None:
        """A directory that is not there, or that anybody may write into, is told."""
        self.directory.chmod(0o777)
        self.assertIn("chmod o-w", self.fault())
        self.directory = self.directory / "missing"
        self.assertIn("cannot use [scan] plugins", self.fault())


class UnknownTests(SynchronousTestCase):
    """:func:`unknown_checks`."""

    def test_told(self) -> None:
        """Each name that is nobody's is told at its place, with the nearest one."""
        ini = "[scan]\nchecks = dnsbl greylst\nengines = rate\n[check:mine]\nsettings = a b\n"
        makers = {name: object() for name in OURS}
        self.assertEqual(
            unknown_checks(Scene(ini).config, makers),
            [
                Problem(
                    "test.ini",
                    0,
                    "scan",
                    "checks",
                    "there is no check 'greylst'",
                    "did you mean greylist?",
                ),
                Problem(
                    "test.ini",
                    0,
                    "scan",
                    "engines",
                    "there is no check 'rate'",
                    "did you mean rates?",
                ),
                Problem(
                    "test.ini",
                    0,
                    "check:mine",
                    "",
                    "there is no check 'mine'",
                    "there are dnsbl, greylist, identity, rates",
                ),
            ],
        )
        known = "[scan]\nchecks = dnsbl rates\n[check:greylist]\nsettings = a b\n"
        self.assertEqual(unknown_checks(Scene(known).config, makers), [])


class ManualTests(Case):
    """The example in docs/checks.rst."""

    def test_example(self) -> None:
        """It is found, reads its settings from the manual's ini, and finds what it should."""
        code = example("lottery")
        self.assertLess(len([line for line in code.splitlines() if line.strip()]), 32)
        self.write("site_lottery.py", code)
        maker = find_makers(self.directory)["lottery"]
        ini = dedent(re.search(r"ini\n\n((?:   .*\n|\n)+?)\nA whole", MANUAL.read_text())[1])
        scene = Scene(ini)
        self.assertEqual(
            unknown_checks(
                scene.config,
                {
                    **find_makers(self.directory),
                    **dict.fromkeys(("authentication", "attachments", "markers", "urls"), maker),
                },
            ),
            [],
        )
        check = maker.make(scene.site())
        header = b"Subject: =?utf-8?q?Your_Jackpot?=\r\n\r\n"
        content = Content(1, "1", OctetsBody(header), len(header), header, b"", mock.Mock())
        for trusted, wanted in ((False, [("LOTTERY", 4.0, "jackpot")]), (True, [])):
            facts = Facts("s1", "192.0.2.1", trusted=trusted, content=content)
            work = Deferred.fromCoroutine(check.check(Stage.DATA, facts))
            symbols = self.successResultOf(work).symbols
            self.assertEqual([(each.name, each.score, each.reason) for each in symbols], wanted)

    def test_its_test(self) -> None:
        """So does the manual's test of it, which can fail."""
        self.assertTrue(self.run_test(example("lottery")))
        self.assertFalse(self.run_test(example("lottery").replace("subject.lower()", "subject")))

    def run_test(self, code: str) -> bool:
        lottery, test = ModuleType("lottery"), ModuleType("test_lottery")
        exec(code, vars(lottery))
        with mock.patch.dict(sys.modules, {"lottery": lottery}):
            exec(example("lottery-test"), vars(test))
        cases = vars(test)["LotteryTests"]
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(cases)
        self.assertEqual(suite.countTestCases(), 2)
        result = unittest.TestResult()
        suite.run(result)
        return result.wasSuccessful()
