"""A domain is found by the letters that people write it with."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.records.spelling import spellings


class SpellingTests(SynchronousTestCase):
    """What a part is looked for as."""

    def test_spellings(self) -> None:
        """What is no domain is only itself."""
        for part, more in (
            ("bob@example.com", ()),
            ("bob@müller.example", ("bob@xn--mller-kva.example",)),
            ("MÜLLER", ("xn--mller-kva",)),
            ("@müller.", ("@xn--mller-kva.",)),
            (".müller.example", (".xn--mller-kva.example",)),
            ("jürgen@example.com", ("jürgen@example.com",)),
            ("jürgen müller", ()),
            ("jürgen@", ()),
            ("💸 für alle!", ()),
        ):
            self.assertEqual(spellings(part), (part, *more))

    @given(st.text())
    def test_any_text(self, part: str) -> None:
        """Nothing raises, and what was asked for comes first."""
        self.assertEqual(spellings(part)[0], part)
