"""Proves that a log line looks as promised and that no field can forge one."""

import json
from datetime import datetime
from enum import Enum
from string import Formatter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.lines import MAX_FIELD, Formats, JsonLines, Stamp, TextLines, bare, escape

NOON = 1795348800.1234
HEAD = "2026-11-22T12:00:00.123+00:00 mx1 mailsecure/smtpd[812]: "


class Fate(Enum):
    """A value as rooms log them."""

    LOST = "lost"


def foreign(event):
    return "foreign:" + str(event.get("log_format"))


def text_lines(*, coloured=False):
    return TextLines(Formats(foreign, str), Stamp(lambda _: 0), "mx1", coloured=coloured)


def text_of(format, level="info", *, coloured=False, **fields):
    lines = text_lines(coloured=coloured)
    return lines.render({"log_format": format, **fields}, NOON, level, "smtpd", 812)


def json_of(format, level="info", **fields):
    lines = JsonLines(Formats(foreign, str), Stamp(lambda _: 0))
    return lines.render({"log_format": format, **fields}, NOON, level, "smtpd", 812)


class EscapeTests(SynchronousTestCase):
    """:func:`escape` shows everything and changes nothing that can be seen."""

    def test_visible_text_stays(self):
        for text in ("", "plain", "ünïcödé 漢字", "{0.__class__} %s %(x)s [red]"):
            self.assertEqual(escape(text), text)

    def test_addresses_without_brackets(self):
        for text, meant in (
            ("<a@x.test>", "a@x.test"),
            (" a@x.test ", "a@x.test"),
            ("<>", "<>"),
            ("<", "<"),
            ("<a", "<a"),
            ("", ""),
        ):
            self.assertEqual(bare(text), meant)

    def test_what_cannot_be_seen_becomes_an_escape(self):
        for text, shown in (
            ("a\r\nb", "a\\x0d\\x0ab"),
            ("\x1b[31m", "\\x1b[31m"),
            ("\x7f\x9b", "\\x7f\\x9b"),
            ("\u202egro.live", "\\u202egro.live"),
            ("a\u2028b\u2029c\x85", "a\\u2028b\\u2029c\\x85"),
            ("a\xa0b\u200bc", "a\\xa0b\\u200bc"),
            ("\udc80", "\\udc80"),
            ("\U000e0001", "\\U000e0001"),
            ("\\x41", "\\x5cx41"),
        ):
            self.assertEqual(escape(text), shown)

    @given(st.text())
    def test_the_result_can_be_seen_and_undone(self, text):
        shown = escape(text)
        self.assertTrue(shown.isprintable())
        undone = shown.encode("ascii", "backslashreplace").decode("unicode-escape")
        self.assertEqual(undone, text)


class StampTests(SynchronousTestCase):
    """:class:`Stamp` is ISO 8601 in the zone of that second."""

    def test_remembers_the_second_only(self):
        asked = []
        stamp = Stamp(lambda when: asked.append(when) or 3600)
        self.assertEqual(stamp(NOON), "2026-11-22T13:00:00.123+01:00")
        self.assertEqual(stamp(NOON + 0.5), "2026-11-22T13:00:00.623+01:00")
        self.assertEqual(stamp(NOON + 1), "2026-11-22T13:00:01.123+01:00")
        self.assertEqual(len(asked), 2)

    @given(st.integers(0, 2**32 * 1000), st.integers(-86340, 86340))
    def test_is_what_the_standard_library_reads(self, milliseconds, offset):
        stamp = Stamp(lambda _: offset)
        read = datetime.fromisoformat(stamp((milliseconds + 0.5) / 1000))
        self.assertEqual(round(read.timestamp() * 1000), milliseconds)


class TextTests(SynchronousTestCase):
    """:class:`TextLines` is for eyes."""

    def test_message(self):
        line = text_of("from=<{sender}> size={octets}", sender="a@b", octets=12)
        self.assertEqual(line, HEAD + "from=<a@b> size=12\n")

    def test_values(self):
        line = text_of(
            "{a} {b} {c} {d} {e} {f}", a=0.12345, b=None, c=b"x\xff\n", d=Fate.LOST, e=True
        )
        self.assertEqual(line, HEAD + "0.123 - x\\x5cxff\\x0a lost True -\n")

    def test_levels(self):
        for level, prefix in (
            ("debug", "debug: "),
            ("info", ""),
            ("warn", "warning: "),
            ("error", "error: "),
            ("critical", "critical: "),
        ):
            self.assertEqual(text_of("x", level), f"{HEAD}{prefix}x\n")

    def test_literals_with_percent_braces_and_newlines(self):
        self.assertEqual(text_of("100% of {{{x}}}\n", x="%s"), HEAD + "100% of {%s}\\x0a\n")

    def test_anything_but_plain_fields_is_foreign(self):
        for odd in ("{0.__class__}", "{a.b}", "{a!r}", "{a:>9}", "{a()}", "{", "{}", b"x"):
            self.assertEqual(text_of(odd, a=1), f"{HEAD}foreign:{odd}\n")

    def test_a_foreign_text_is_escaped(self):
        self.assertEqual(text_of("{a!r}\n", a=1), HEAD + "foreign:{a!r}\\x0a\n")

    def test_traceback_is_indented(self):
        line = text_of("oops", "error", log_traceback="Traceback\n  at\x1b\n2026 fake\n")
        self.assertEqual(line, HEAD + "error: oops\n    Traceback\n      at\\x1b\n    2026 fake\n")

    def test_a_long_value_is_cut(self):
        line = text_of("<{a}>", a="x" * 100_000)
        self.assertEqual(line, HEAD + "<" + "x" * MAX_FIELD + ">\n")

    def test_formats_remembered_are_bounded(self):
        lines = text_lines()
        for number in range(3000):
            event = {"log_format": f"{number}"}
            self.assertIn(f": {number}\n", lines.render(event, NOON, "info", "smtpd", 1))
        self.assertLessEqual(len(lines._text.__self__._plans), 1024)

    def test_colour(self):
        line = text_of("{message} delivered", "warn", coloured=True, message="06B3K2M4N5P6Q")
        self.assertEqual(
            line,
            f"\x1b[2m{HEAD}\x1b[0m\x1b[33mwarning: \x1b[0m"
            "\x1b[33m06B3K2M4N5P6Q\x1b[0m \x1b[32mdelivered\x1b[0m\n",
        )
        self.assertEqual(text_of("\x1b", coloured=True), f"\x1b[2m{HEAD}\x1b[0m\\x1b\n")

    @given(st.text(), st.text(), st.binary())
    def test_one_record_a_line_whatever_a_peer_sends(self, helo, sender, junk):
        line = text_of("{helo} {sender} {junk}", helo=helo, sender=sender, junk=junk)
        self.assertTrue(line.startswith(HEAD))
        self.assertTrue(line[:-1].isprintable())
        self.assertEqual(line[-1], "\n")

    @given(st.text())
    def test_a_format_is_never_executed(self, format):
        line = text_of(format)
        self.assertTrue(line[:-1].isprintable())
        try:
            fields = [each[1] for each in Formatter().parse(format)]
        except ValueError:
            return
        if not any(field is not None for field in fields):
            self.assertEqual(line, HEAD + escape("".join(format.format())) + "\n")


class JsonTests(SynchronousTestCase):
    """:class:`JsonLines` is for programs."""

    def test_record(self):
        line = json_of("from {sender}", "warn", sender="a@b\r\n", octets=12, log_source=object())
        self.assertEqual(
            json.loads(line),
            {
                "time": "2026-11-22T12:00:00.123+00:00",
                "level": "warn",
                "room": "smtpd",
                "pid": 812,
                "text": "from a@b\r\n",
                "sender": "a@b\r\n",
                "octets": 12,
            },
        )

    def test_values_become_plain(self):
        fields = {
            "a": 1.5,
            "b": float("nan"),
            "c": Fate.LOST,
            "d": {1: (b"x", {2})},
            "e": [[[[[1]]]]],
            "f": None,
            "g": False,
            "h": object,
        }
        record = json.loads(json_of("x", **fields))
        self.assertEqual(record["a"], 1.5)
        self.assertEqual(record["b"], "nan")
        self.assertEqual(record["c"], "lost")
        self.assertEqual(record["d"], {"1": ["x", [2]]})
        self.assertEqual(record["e"], [[[["[1]"]]]])
        self.assertIs(record["f"], None)
        self.assertIs(record["g"], False)
        self.assertEqual(record["h"], "<class 'object'>")

    def test_a_field_cannot_replace_ours(self):
        record = json.loads(json_of("x", time=1, pid=2, text="t"))
        self.assertEqual((record["pid"], record["text"]), (812, "x"))
        self.assertEqual((record["time_"], record["pid_"], record["text_"]), (1, 2, "t"))

    def test_legacy_events_give_their_text_only(self):
        record = json.loads(json_of("{log_legacy}", log_legacy="old", isError=0, message=()))
        self.assertEqual(set(record), {"time", "level", "room", "pid", "text"})
        self.assertEqual(record["text"], "old")

    def test_traceback(self):
        record = json.loads(json_of("x", log_traceback="a\nb"))
        self.assertEqual(record["traceback"], "a\nb")

    def test_names_remembered_are_bounded(self):
        lines = JsonLines(Formats(foreign, str), Stamp(lambda _: 0))
        for number in range(1500):
            event = {"log_format": "x", f"n{number}": number}
            record = json.loads(lines.render(event, NOON, "info", "smtpd", 1))
            self.assertEqual(record[f"n{number}"], number)
        self.assertLessEqual(len(lines._names), 1024)

    @given(
        st.dictionaries(
            st.text().filter(lambda name: not name.startswith("log_")),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=8,
            ),
        )
    )
    def test_always_one_ascii_line_of_json(self, fields):
        lines = JsonLines(Formats(foreign, str), Stamp(lambda _: 0))
        line = lines.render({"log_format": "x", **fields}, NOON, "info", "smtpd", 1)
        self.assertTrue(line[:-1].isascii() and line[:-1].isprintable())
        record = json.loads(line, parse_constant=self.fail)
        self.assertGreaterEqual(len(record), 5)
        for name, value in fields.items():
            if isinstance(value, str) and name not in ("time", "level", "room", "pid", "text"):
                self.assertEqual(record.get(name, record.get(name + "_")), value)
