"""Problems of the ini are told so that they can be found."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import ConfigProblems, Problem


class ProblemTests(SynchronousTestCase):
    """Problem and ConfigProblems."""

    def test_text(self) -> None:
        """Place, section, option, what, hint: whatever of them there is."""
        for problem, text in (
            (
                Problem("f", 3, "smtp", "listen", "wrong", "try tcp:25"),
                "f:3: [smtp] listen: wrong (try tcp:25)",
            ),
            (Problem("f", 3, "smtp", "", "wrong"), "f:3: [smtp]: wrong"),
            (Problem("f", 0, "", "", "cannot be read"), "f: cannot be read"),
        ):
            self.assertEqual(str(problem), text)
        both = ConfigProblems([Problem("f", 1, "", "", "a"), Problem("f", 2, "", "", "b")])
        self.assertEqual(str(both), "f:1: a\nf:2: b")
