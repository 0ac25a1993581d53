"""Proves that what was sent is counted for as long as the window, here and at other nodes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.checks import windows
from mailsecure.scan.checks.windows import ALL, MORE, Amount, Windows

HOUR = 3600.0

json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)


class CountingTests(SynchronousTestCase):
    """:class:`Windows` of one node."""

    def setUp(self):
        self.windows = Windows(HOUR)

    def test_counted(self):
        """What is sent adds up, each key by itself."""
        self.assertEqual(self.windows.amount("a", 0.0), Amount(0, 0))
        self.windows.add("a", 1, 2, 0.0)
        self.windows.add("a", 1, 3, 10.0)
        self.windows.add("b", 0, 1, 10.0)
        self.assertEqual(self.windows.amount("a", 20.0), Amount(2, 5))
        self.assertEqual(self.windows.amount("b", 20.0), Amount(0, 1))
        self.assertEqual(len(self.windows), 2)

    def test_slides(self):
        """It fades out over the second window, and is gone after it."""
        self.windows.add("a", 100, 40, 0.0)
        self.assertEqual(self.windows.amount("a", HOUR - 1), Amount(100, 40))
        self.assertEqual(self.windows.amount("a", HOUR), Amount(100, 40))
        self.assertEqual(self.windows.amount("a", 1.25 * HOUR), Amount(75, 30))
        self.windows.add("a", 10, 0, 1.5 * HOUR)
        self.assertEqual(self.windows.amount("a", 1.5 * HOUR), Amount(60, 20))
        self.assertEqual(self.windows.amount("a", 2 * HOUR), Amount(10, 0))
        self.assertEqual(self.windows.amount("a", 3.5 * HOUR), Amount(0, 0))

    def test_long_silence(self):
        """After a long silence everything begins anew."""
        self.windows.add("a", 100, 40, 0.0)
        self.windows.add("a", 1, 1, 10 * HOUR)
        self.assertEqual(self.windows.amount("a", 10 * HOUR), Amount(1, 1))

    def test_bounds(self):
        """The longest unused goes first."""
        self.patch(windows, "MAX_KEYS", 3)
        for key in "abacd":
            self.windows.add(key, 1, 1, 0.0)
        self.assertEqual([self.windows.amount(key, 0.0).messages for key in "abcd"], [2, 0, 1, 1])

    @given(
        st.lists(st.tuples(st.floats(0, 600), st.integers(1, 9)), max_size=60),
        st.floats(60, 6000),
    )
    def test_near_the_truth(self, sent, window):
        """Never less than was sent since the window began, never more than within two."""
        counted, now, times = Windows(window), 0.0, []
        for pause, recipients in sent:
            now += pause
            counted.add("a", 1, recipients, now)
            times.append((now, recipients))
        amount = counted.amount("a", now)
        within_two = sum(each for when, each in times if now - when <= 2 * window)
        self.assertLessEqual(amount.recipients, within_two + 1e-6)
        self.assertLessEqual(amount.messages, amount.recipients + 1e-6)
        if times:
            self.assertGreaterEqual(amount.recipients, times[-1][1])


class SharedTests(SynchronousTestCase):
    """Two nodes that count together."""

    def setUp(self):
        self.one, self.two = Windows(HOUR, telling=True), Windows(HOUR, telling=True)

    def test_news(self):
        """What happened at one node counts at the other, once, and is not told again."""
        self.one.add("a", 1, 5, 0.0)
        self.one.add("a", 1, 1, 0.0)
        self.one.add("b", 1, 1, 0.0)
        self.assertEqual(self.one.news(1), [[MORE, "a", 2, 6]])
        self.one.add("a", 1, 1, 0.0)
        self.two.add("a", 10, 10, 50.0)
        self.two.heard("one", [[MORE, "a", 2, 6], *self.one.news(99)], False, 100.0)
        self.assertEqual(self.two.amount("a", 100.0), Amount(13, 17))
        self.assertEqual(self.one.news(99), [])
        self.assertEqual(self.two.news(99), [[MORE, "a", 10, 10]])
        self.assertEqual(Windows(HOUR).news(99), [])

    def test_everything(self):
        """Who was not told for a while takes what he lacks, and nothing twice."""
        self.patch(windows, "EVERYTHING", 2)
        for key, messages in (("a", 5), ("b", 0), ("c", 7), ("d", 0)):
            self.one.add(key, messages, messages * (key != "c"), 0.0)
        rows = self.one.everything(10.0)
        self.assertEqual(rows, [[ALL, "c", 7, 0], [ALL, "a", 5, 5]])
        self.two.add("a", 3, 6, 0.0)
        for _ in range(3):
            self.two.heard("one", rows, True, 10.0)
        self.assertEqual(self.two.amount("a", 10.0), Amount(5, 6))
        self.assertEqual(self.two.amount("c", 10.0), Amount(7, 0))
        self.one.add("e", 1, 1, 10.0)
        self.assertEqual([row[1] for row in self.one.everything(10.0)], ["e", "c"])
        self.two.gone("one")
        self.assertEqual(self.two.amount("a", 10.0), Amount(5, 6))

    def test_nobody_listens(self):
        """What nobody takes is not heaped up."""
        self.patch(windows, "MAX_KEYS", 3)
        for key in "abcd":
            self.one.add(key, 1, 1, 0.0)
        self.assertEqual([row[1] for row in self.one.news(99)], ["b", "c", "d"])

    @given(json_like)
    def test_nonsense(self, row):
        """Whatever is said, nothing but RemoteFault comes of it."""
        with self.assertRaises(RemoteFault):
            self.two.heard("one", [row], False, 0.0)

    def test_out_of_bounds(self):
        """Every bound holds, and of a message with one bad row nothing is taken."""
        good = [MORE, "a", 1, 1]
        for bad in (
            ["*", "a", 1, 1],
            [MORE, "", 1, 1],
            [MORE, "k" * 65, 1, 1],
            [MORE, 7, 1, 1],
            [MORE, "a", -1, 1],
            [MORE, "a", 1, 10**10],
            [MORE, "a", True, 1],
        ):
            with self.assertRaises(RemoteFault):
                self.two.heard("one", [good, bad], False, 0.0)
        self.assertEqual(len(self.two), 0)
