"""Proves what ``mailsecure drain`` and ``undrain`` ask, print and return."""

import io
import json
import os
import sys
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control import asking, command, drain_command
from mailsecure.control.wire import Kind, Refusal


def state(name, **more):
    return {
        "state": name,
        "sessions": 0,
        "directed": 0,
        "left": 0.0,
        "master": False,
        "why": "",
    } | more


class DrainCommandTests(SynchronousTestCase):
    """Both commands against a scripted daemon."""

    def setUp(self):
        self.config = Path(self.mktemp())
        self.config.write_text("[node]\nstate = run\n")
        self.asked = []
        self.answers = []
        self.now = 1000.0
        self.patch(asking, "ask", self.ask)
        self.patch(drain_command.time, "sleep", self.sleep)
        self.patch(drain_command.time, "monotonic", lambda: self.now)

    def sleep(self, seconds):
        self.now += seconds

    def ask(self, path, request, arguments, *, timeout):
        self.asked.append((request, arguments))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        yield "done", answer

    def run_main(self, *arguments):
        given = [*arguments, "-c", str(self.config)]
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.StringIO()
        with mock.patch.object(sys, "stdout", out), mock.patch.object(sys, "stderr", err):
            code = command.main(given)
        return code, out.buffer.getvalue().decode(), err.getvalue()

    def test_drain(self):
        """It shows how far it is, each line once, until it is done."""
        self.answers = [
            state("draining", sessions=2, directed=1, left=60.0),
            state("draining", sessions=2, directed=1, left=59.8),
            state("handing over", left=50.0),
            state("drained"),
        ]
        code, out, err = self.run_main("drain", "--timeout", "1m")
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(
            out.splitlines(),
            [
                "draining: 2 sessions here, 1 directed to others, 1m left",
                "handing over: 0 sessions here, 50s left",
                "drained",
            ],
        )
        self.assertEqual(self.asked, [("drain", {"seconds": 60.0})] + [("draining", {})] * 3)

    def test_no_wait(self):
        """It comes back at once."""
        self.answers = [state("draining", sessions=1, left=300.0)]
        code, out, _ = self.run_main("drain", "--no-wait")
        self.assertEqual((code, out), (0, "draining: 1 sessions here, 5m left\n"))
        self.assertEqual(self.asked, [("drain", {"seconds": 300.0})])

    def test_json(self):
        """The last word, as one object."""
        self.answers = [state("draining", left=1.0), state("drained")]
        code, out, _ = self.run_main("drain", "--json")
        self.assertEqual((code, json.loads(out)), (0, state("drained")))

    def test_called_off(self):
        """Whoever waits learns that it came to nothing, and why."""
        why = "nobody else could be Master of mail: this node stays at work"
        for end, line in (
            (state("working"), "at work again: somebody undrained it"),
            (state("working", why=why), why),
        ):
            self.answers = [state("draining", left=1.0), end]
            code, out, _ = self.run_main("drain")
            self.assertEqual((code, out.splitlines()[-1]), (os.EX_TEMPFAIL, line))

    def test_master_all_the_same(self):
        """Who is the last one left says so."""
        self.answers = [state("drained", master=True)]
        code, out, _ = self.run_main("drain")
        self.assertEqual((code, out), (0, "drained, but Master: nobody else is\n"))

    def test_not_for_ever(self):
        """A daemon that does not get there is not waited for without end."""
        self.answers = [state("draining", sessions=1, left=0.0)]
        code, _, _ = self.run_main("drain", "--timeout", "1s")
        self.assertEqual(code, os.EX_TEMPFAIL)

    def test_refused(self):
        """The daemon's word, and its exit code."""
        self.answers = [Refusal(Kind.UNAVAILABLE, "nobody else could be Master of mail")]
        code, out, err = self.run_main("drain")
        self.assertEqual((code, out), (os.EX_UNAVAILABLE, ""))
        self.assertIn("nobody else could be Master of mail", err)

    def test_usage(self):
        """A time is one as in the ini."""
        code, _, err = self.run_main("drain", "--timeout", "5 apples")
        self.assertEqual(code, os.EX_USAGE)
        self.assertIn("a duration is a number with a unit", err)
        self.assertEqual(self.asked, [])

    def test_undrain(self):
        """It says what was so before."""
        for drained, line in ((True, "at work again\n"), (False, "was not drained\n")):
            self.answers = [state("working", drained=drained)]
            self.assertEqual(self.run_main("undrain"), (0, line, ""))
        code, out, _ = self.run_main("undrain", "--json")
        self.assertEqual((code, json.loads(out)["drained"]), (0, False))
