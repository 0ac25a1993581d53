"""Proves what each command of ``mailsecure cluster`` asks, prints and returns."""

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.cluster.keyfile import read_keys
from mailsecure.control import asking, cluster_command, command
from mailsecure.control.wire import Kind, Refusal

from .fakes import group, node, report

EVIL = "evil\x1b[31m\r\n[red]{0.__class__}%s\u202e"
SHOWN = "evil\\x1b[31m\\x0d\\x0a[red]{0.__class__}%s\\u202e"


class CommandTests(SynchronousTestCase):
    """Each command against a scripted daemon."""

    def setUp(self):
        self.config = Path(self.mktemp())
        self.config.write_text("[node]\nstate = run\n[cluster]\nkey_file = the.key\n")
        self.asked = []
        self.answer = report()
        self.patch(asking, "ask", self.ask)

    def ask(self, path, request, arguments, *, timeout):
        self.assertLessEqual(timeout, 10)
        self.asked.append((request, arguments))
        if isinstance(self.answer, Refusal):
            raise self.answer
        yield "done", self.answer

    def run_main(self, *arguments):
        given = ["cluster", *map(str, arguments), "-c", str(self.config)]
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = command.main(given)
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def test_status(self):
        code, out, err = self.run_main("status")
        self.assertEqual((code, err), (0, ""))
        self.assertIn("every node hears every other\n", out)
        self.assertEqual(self.asked, [("cluster.status", {})])

    def test_status_as_json(self):
        self.answer = report(nodes=[node(EVIL)])
        code, out, _ = self.run_main("status", "--json")
        self.assertEqual((code, json.loads(out)), (0, self.answer))
        self.assertTrue(out.replace("\n", "").isprintable())

    def test_check(self):
        self.assertEqual(self.run_main("status", "--check")[0], 0)
        self.answer = report(groups=[group(two_masters=True)])
        self.assertEqual(self.run_main("status")[0], 0)
        for more in ([], ["--json"]):
            code, out, _ = self.run_main("status", "--check", *more)
            self.assertEqual(code, 2)
            self.assertTrue(out)

    def test_moves(self):
        self.answer = {"lines": ["mx1 resigns as Master of mail", EVIL]}
        said = f"mx1 resigns as Master of mail\n{SHOWN}\n"
        for verb in ("resign", "takeover"):
            self.assertEqual(self.run_main(verb), (0, said, ""))
            self.assertEqual(self.run_main(verb, "mail", "--for", "1h30m"), (0, said, ""))
            _, out, _ = self.run_main(verb, "--for", "500ms", "--json")
            self.assertEqual(json.loads(out), self.answer)
            self.assertEqual(
                self.asked,
                [
                    (f"cluster.{verb}", {"group": "", "seconds": 600.0}),
                    (f"cluster.{verb}", {"group": "mail", "seconds": 5400.0}),
                    (f"cluster.{verb}", {"group": "", "seconds": 0.5}),
                ],
            )
            self.asked.clear()

    def test_weight(self):
        self.answer = {"lines": [f"{EVIL}: weight 5"]}
        self.assertEqual(self.run_main("weight", "mx2", "5"), (0, f"{SHOWN}: weight 5\n", ""))
        _, out, _ = self.run_main("weight", "mx2", "default", "--json")
        self.assertEqual(json.loads(out), self.answer)
        asked = [("cluster.weight", {"node": "mx2", "weight": each}) for each in (5, None)]
        self.assertEqual(self.asked, asked)

    def test_weights_are_shown(self):
        self.answer = report(nodes=[node("mx2", weight=5, overridden=True)])
        code, out, err = self.run_main("weight")
        self.assertEqual((code, err), (0, ""))
        rows = [line.split() for line in out.splitlines()]
        self.assertIn(["mx1", "100", "100"], rows)
        self.assertIn(["mx2", "5", "100", "set", "by", "cluster", "weight"], rows)
        self.assertNotIn("mx1", self.run_main("weight", "mx2")[1])
        _, out, _ = self.run_main("weight", "mx2", "--json")
        found = {"mx2": {"weight": 5, "own_weight": 100, "overridden": True}}
        self.assertEqual(json.loads(out), found)

    def test_no_weight(self):
        for text in ("-1", "five", "1.5", "", "1" * 10):
            code, out, err = self.run_main("weight", "--", "mx2", text)
            self.assertEqual((code, out), (64, ""))
            self.assertIn("neither a whole number nor default", err)
        self.assertEqual(self.asked, [])
        code, _, err = self.run_main("weight", "mx9")
        self.assertEqual(code, 64)
        self.assertIn("there is no node mx9; there are: mx1, mx2", err)

    def test_a_time_that_is_none(self):
        for text in ("10", "soon", "", "-5m"):
            code, out, err = self.run_main("resign", f"--for={text}")
            self.assertEqual((code, out), (64, ""))
            self.assertIn("a duration is a number with a unit", err)
        self.assertEqual(self.asked, [])

    def test_refusals_have_exit_codes(self):
        for kind, code in ((Kind.ABSENT, 66), (Kind.UNAVAILABLE, 69), (Kind.USAGE, 64)):
            self.answer = Refusal(kind, "there is no virtual group 'x'", ("there are: mail",))
            for arguments in (
                ["resign", "x"],
                ["takeover", "x"],
                ["status"],
                ["status", "--check"],
            ):
                self.assertEqual(
                    self.run_main(*arguments),
                    (code, "", "mailsecure: there is no virtual group 'x'\n  there are: mail\n"),
                )

    # -- keygen

    def test_keygen_goes_by_the_ini(self):
        path = self.config.absolute().parent / "the.key"
        code, out, err = self.run_main("keygen")
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.startswith(f"{path} written: the key of a new cluster.\n"))
        self.assertNotIn("FILE", out)
        self.assertEqual(len(read_keys(path).keys), 1)
        self.assertEqual(self.run_main("keygen")[0], 64)
        for step in ("--add", "--use-new", "--drop-old"):
            code, out, _ = self.run_main("keygen", step)
            self.assertEqual(code, 0)
            self.assertIn("reload", out)
        self.assertEqual(self.asked, [])

    def test_keygen_of_a_named_file_as_json(self):
        path = self.config.absolute().parent / "other.key"
        code, out, _ = self.run_main("keygen", path, "--json")
        found = json.loads(out)
        self.assertEqual((code, found["file"]), (0, str(path)))
        self.assertEqual(found["keys"], [key.id.hex() for key in read_keys(path).keys])
        secret = path.read_text().splitlines()[-1].split()[0]
        self.assertNotIn(secret, out)

    def test_keygen_of_a_named_file_needs_no_ini(self):
        path = self.config.absolute().parent / "other.key"
        self.config.unlink()
        self.assertEqual(self.run_main("keygen", path)[0], 0)

    def test_the_usual_file(self):
        usual = self.config.absolute().parent / "usual.key"
        self.patch(cluster_command, "_KEY_FILE", usual)
        self.config.write_text("[node]\nuser = nobody-we-know\n")
        _, out, _ = self.run_main("keygen")
        self.assertIn("It must belong to nobody-we-know, on every node", out)
        self.assertTrue(usual.exists())

    def test_one_step_at_a_time(self):
        code, out, err = self.run_main("keygen", "--add", "--drop-old")
        self.assertEqual((code, out), (64, ""))
        self.assertIn("one step at a time", err)

    def test_refused_keys(self):
        code, out, err = self.run_main("keygen", "--add")
        self.assertEqual((code, out), (66, ""))
        self.assertIn("the.key: No such file or directory", err)
        path = self.config.absolute().parent / EVIL
        _, _, err = self.run_main("keygen", path, "--add")
        self.assertIn(SHOWN, err)


class ProcessTests(SynchronousTestCase):
    """The command as a process of its own."""

    def test_making_keys_is_quick_and_free_of_twisted(self):
        path = Path(self.mktemp())
        program = (
            "import sys; from mailsecure.control.command import main;"
            f"code = main(['cluster', 'keygen', {str(path)!r}]);"
            "print([m for m in sys.modules if m.split('.')[0] in ('twisted', 'zope', 'OpenSSL')]);"
            "sys.exit(code)"
        )
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            timeout=60,
            check=False,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(done.stdout.splitlines()[-1], b"[]")
        self.assertLess(time.monotonic() - began, 20)
