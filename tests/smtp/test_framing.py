"""Only CRLF.CRLF ends a message, wherever the octets are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.smtp.framing import (
    BARE_NEWLINE,
    HAS_NUL,
    LONG_LINE,
    TOO_LARGE,
    ContentCheck,
    CountReader,
    DotReader,
)

#: Octets that make trouble, so that Hypothesis finds it soon.
OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"a", b"\0", b"bc"])).map(b"".join)


@st.composite
def cuts(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut ``data`` anywhere, empty pieces included."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def read(reader: DotReader | CountReader, pieces: list[bytes]) -> tuple[bytes, bytes | None]:
    """Feed all pieces; return the content, and what follows its end (None: no end)."""
    content = b""
    for index, piece in enumerate(pieces):
        got, rest = reader.feed(piece)
        content += got
        if rest is not None:
            return content, rest + b"".join(pieces[index + 1 :])
    return content, None


def dot_stuff(content: bytes) -> bytes:
    """What a client sends for lines of ``content`` (RFC 5321 §4.5.2)."""
    return b"".join(
        (b"." if line.startswith(b".") else b"") + line + b"\r\n"
        for line in content.split(b"\r\n")[:-1]
    )


class DotReaderTests(SynchronousTestCase):
    """The reader of DATA."""

    def test_smuggling(self) -> None:
        """None of the ways to write an end that is none ends the message."""
        for fake in (
            b"\n.\n",
            b"\n.\r\n",
            b"\r.\r",
            b"\r.\r\n",
            b"\r.\n",
            b"\n.\r",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\r\r\n.\r\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
        ):
            data = b"body" + fake + b"MAIL FROM:<x@y>\r\n.\r\nQUIT\r\n"
            _, rest = read(DotReader(), [data])
            self.assertEqual(rest, b"QUIT\r\n", fake)

    def test_empty(self) -> None:
        """A dot at once is an empty message."""
        self.assertEqual(read(DotReader(), [b".\r\nX"]), (b"", b"X"))

    @given(st.data())
    def test_any_chunking(self, data: st.DataObject) -> None:
        """However the octets are cut, content and rest are the same."""
        octets = data.draw(OCTETS) + data.draw(
            st.sampled_from([b"", b"\r\n.\r\n", b"\r\n.\r\nQUIT"])
        )
        whole = read(DotReader(), [octets])
        content, rest = read(DotReader(), data.draw(cuts(octets)))
        self.assertEqual(rest, whole[1])
        if rest is not None:
            self.assertEqual(content, whole[0])

    @given(st.data())
    def test_unstuffs(self, data: st.DataObject) -> None:
        """What a correct client stuffed comes out as it was."""
        lines = data.draw(st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a.", b"text"])))
        content = b"".join(line + b"\r\n" for line in lines)
        octets = dot_stuff(content) + b".\r\nrest"
        self.assertEqual(read(DotReader(), data.draw(cuts(octets))), (content, b"rest"))

    @given(st.data())
    def test_crlf_stays_whole(self, data: st.DataObject) -> None:
        """No piece ends between CR and LF of a line end."""
        reader = DotReader()
        before = b""
        for piece in data.draw(cuts(data.draw(OCTETS))):
            got, rest = reader.feed(piece)
            if got:
                self.assertFalse(before.endswith(b"\r") and got.startswith(b"\n"))
                before = got
            if rest is not None:
                break


class CountReaderTests(SynchronousTestCase):
    """The reader of BDAT."""

    @given(st.data())
    def test_counts(self, data: st.DataObject) -> None:
        """So many octets are content, the rest is not."""
        octets = data.draw(st.binary(max_size=40))
        count = data.draw(st.integers(0, len(octets)))
        content, rest = read(CountReader(count), [b"", *data.draw(cuts(octets))])
        self.assertEqual((content, rest), (octets[:count], octets[count:]))

    def test_unfinished(self) -> None:
        """Without all its octets a chunk does not end."""
        self.assertEqual(read(CountReader(5), [b"abcd"]), (b"abcd", None))


class ContentCheckTests(SynchronousTestCase):
    """The judge of content."""

    def check(self, pieces: list[bytes], normalise: bool = False) -> tuple[bytes, ContentCheck]:
        check = ContentCheck(60, 10, normalise)
        kept = b"".join([check.piece(piece) for piece in pieces] + [check.end()])
        return kept, check

    def test_faults(self) -> None:
        """Each fault has its reply."""
        for data, fault in (
            (b"a\nb\r\n", BARE_NEWLINE),
            (b"a\rb\r\n", BARE_NEWLINE),
            (b"a\0b\r\n", HAS_NUL),
            (b"0123456789\r\n", None),
            (b"x\r\n0123456789a\r\n", LONG_LINE),
            (b"0123456789a", LONG_LINE),
            (b"x\r\n0123456789\r\n01234567890\r\n", LONG_LINE),
            (b"12345678\r\n" * 6, None),
            (b"12345678\r\n" * 6 + b"x\r\n", TOO_LARGE),
        ):
            self.assertIs(self.check([data])[1].fault, fault, data)

    def test_last_line(self) -> None:
        """A last line without its end gets one (RFC 3030 leaves it to us)."""
        self.assertEqual(self.check([b"a\r\nb"])[0], b"a\r\nb\r\n")
        self.assertEqual(self.check([b"a\r\n"])[0], b"a\r\n")
        self.assertIs(self.check([b"a\r"])[1].fault, BARE_NEWLINE)

    def test_normalise(self) -> None:
        """Where it is allowed, bare newlines are mended and NUL goes."""
        kept, check = self.check([b"a\nb\rc\r\nd\0\n"], normalise=True)
        self.assertEqual((kept, check.fault), (b"a\r\nb\r\nc\r\nd\r\n", None))

    @given(st.data())
    def test_any_chunking(self, data: st.DataObject) -> None:
        """The verdict and what is kept do not depend on the cuts."""
        octets = data.draw(OCTETS)
        normalise = data.draw(st.booleans())
        whole, check = self.check([octets], normalise)
        kept, other = self.check(data.draw(cuts(octets)), normalise)
        self.assertIs(other.fault, check.fault)
        self.assertEqual(other.octets, check.octets)
        if check.fault is None:
            self.assertEqual(kept, whole)
            lines = kept.split(b"\r\n")
            self.assertEqual(lines[-1], b"")
            for line in lines:
                self.assertLessEqual(len(line), 10)
                self.assertFalse(set(line) & set(b"\r\n\0"))

    @given(st.data())
    def test_long_lines(self, data: st.DataObject) -> None:
        """Exactly the lines over the limit are found."""
        lengths = data.draw(st.lists(st.integers(0, 14), max_size=5))
        octets = b"".join(b"x" * length + b"\r\n" for length in lengths)
        check = ContentCheck(1000, 10, False)
        for piece in data.draw(cuts(octets)):
            check.piece(piece)
        check.end()
        self.assertEqual(check.fault is LONG_LINE, any(length > 10 for length in lengths))
