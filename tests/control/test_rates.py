"""Proves that rates and peaks are those of their windows."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.rates import Peaks, Rates
from mailsecure.counters import Counters


class RatesTests(SynchronousTestCase):
    """:class:`Rates`."""

    def test_nothing_sampled(self):
        self.assertEqual(Rates().rates(5.0, {"a": 1}), {"a": (0.0, 0.0, 0.0)})

    def test_younger_than_the_window(self):
        rates = Rates()
        rates.sample(100.0, {"a": 0})
        self.assertEqual(rates.rates(100.0, {"a": 0}), {"a": (0.0, 0.0, 0.0)})
        self.assertEqual(rates.rates(110.0, {"a": 50}), {"a": (5.0, 5.0, 5.0)})

    def test_each_window_for_itself(self):
        rates = Rates()
        for step in range(400):
            now = step * 5.0
            # Nothing until 1,900 s, then ten a second.
            rates.sample(now, {"a": max(0, int((now - 1900) * 10))})
        one, five, fifteen = rates.rates(1995.0, {"a": 950})["a"]
        self.assertAlmostEqual(one, 10.0)
        self.assertAlmostEqual(five, 950 / 300)
        self.assertAlmostEqual(fifteen, 950 / 900)
        self.assertLess(len(rates._times), 184)

    def test_a_new_counter_starts_at_nothing(self):
        rates = Rates()
        rates.sample(0.0, {})
        self.assertEqual(rates.rates(10.0, {"a": 10})["a"], (1.0, 1.0, 1.0))

    @given(st.lists(st.tuples(st.floats(0.1, 500), st.integers(0, 10**6)), min_size=1))
    def test_never_negative_and_never_above_the_fastest_step(self, steps):
        rates = Rates()
        now, count, fastest = 0.0, 0, 0.0
        rates.sample(now, {"a": 0})
        for wait, more in steps:
            now, count = now + wait, count + more
            fastest = max(fastest, more / wait)
            for rate in rates.rates(now, {"a": count})["a"]:
                self.assertGreaterEqual(rate, 0)
                self.assertLessEqual(rate, fastest * 1.000001)
            rates.sample(now, {"a": count})


class PeaksTests(SynchronousTestCase):
    """:class:`Peaks`."""

    def test_the_highest_of_the_last_minute(self):
        peaks = Peaks()
        self.assertEqual(peaks.highest(0.0), 0.0)
        peaks.note(1.0, 0.5)
        peaks.note(2.0, 0.25)
        peaks.note(30.0, 0.1)
        self.assertEqual(peaks.highest(30.0), 0.5)
        self.assertEqual(peaks.highest(61.0), 0.5)
        self.assertEqual(peaks.highest(70.0), 0.1)
        self.assertEqual(peaks.highest(500.0), 0.0)

    @given(st.lists(st.floats(0, 100)))
    def test_is_bounded(self, waits):
        peaks = Peaks()
        now = 0.0
        for wait in waits:
            now += wait
            peaks.note(now, wait)
            self.assertGreaterEqual(peaks.highest(now), wait)
        self.assertLessEqual(len(peaks._slots), 13)


class CountersTests(SynchronousTestCase):
    """:class:`Counters` is a table of plain integers."""

    def test_every_count_has_a_meaning_and_starts_at_zero(self):
        counters = Counters()
        counters.delivered += 1
        self.assertEqual(list(counters.values()), list(Counters.meanings()))
        self.assertEqual(sum(counters.values().values()), 1)
        for meaning in Counters.meanings().values():
            self.assertTrue(meaning.endswith("."))
        with self.assertRaises(AttributeError):
            counters.misspelt = 1
