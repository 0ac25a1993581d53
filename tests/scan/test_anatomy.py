"""Anatomies go through JSON; limits go to the worker."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.config.load import parse_config
from mailsecure.scan.anatomy import Anatomy, FoundUrl, Part, Trait, from_json, to_json
from mailsecure.scan.content.limits import Budget, Limits, limits_for
from mailsecure.scan.faults import Unscannable

PARTS = st.builds(
    Part,
    *(st.text(max_size=5),) * 4,
    st.integers(min_value=0),
    st.text(max_size=5),
    st.frozensets(st.sampled_from(Trait)),
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
)
ANATOMIES = st.builds(
    Anatomy,
    subject=st.text(max_size=5),
    message_id=st.text(max_size=5),
    header_from=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    to=st.integers(0, 9),
    cc=st.integers(0, 9),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    parts_in_all=st.integers(0, 9),
    urls=st.lists(st.builds(FoundUrl, *(st.text(max_size=5),) * 3), max_size=2).map(tuple),
    gtube=st.booleans(),
)


class AnatomyTests(SynchronousTestCase):
    """Anatomy."""

    @given(ANATOMIES)
    def test_json(self, anatomy: Anatomy) -> None:
        """What is sent is what arrives."""
        self.assertEqual(from_json(json.loads(json.dumps(to_json(anatomy)))), anatomy)

    def test_having(self) -> None:
        """Parts by what they have."""
        one = Part("a", "", "", "", 0, "", frozenset({Trait.MACROS}))
        anatomy = Anatomy(parts=(one, Part("b", "", "", "", 0, "")))
        self.assertEqual(anatomy.having(Trait.MACROS), [one])
        self.assertEqual(anatomy.having(Trait.EICAR), [])


class LimitTests(SynchronousTestCase):
    """Limits and Budget."""

    def test_arguments(self) -> None:
        """The options arrive in the worker."""
        config = parse_config(
            "[scan]\nmax_parts = 7\nmax_depth = 8\n[attachments]\narchive_depth = 1\n"
            "archive_files = 2\narchive_size = 3\narchive_ratio = 4\nforbidden_names = *.x\n"
            "forbidden_types = a/b",
            "test.ini",
        )
        arguments = json.loads(json.dumps(limits_for(config.scan, config.attachments)))
        self.assertEqual(Limits.read(arguments), Limits(7, 8, 1, 2, 3, 4, ("*.x",), ("a/b",)))
        self.assertEqual(Limits.read({}), Limits())

    def test_budget(self) -> None:
        """Each limit, reached and passed."""
        limits = Limits(2, 1, 1, 1, 10 << 20, 2)
        budget = Budget(limits)
        budget.part(0)
        budget.part(1)
        budget.archive(1)
        budget.file()
        budget.unpacked(2 << 20, 2 << 20, 1 << 20)
        for call, arguments in (
            (budget.part, (1,)),
            (Budget(limits).part, (2,)),
            (budget.archive, (2,)),
            (budget.file, ()),
            (budget.unpacked, (1, (2 << 20) + 1, 1 << 20)),
            (budget.unpacked, (9 << 20, 1, 1 << 20)),
        ):
            with self.assertRaises(Unscannable):
                call(*arguments)
        # Small things are no bombs.
        Budget(limits).unpacked(1000, 1 << 20, 1)
