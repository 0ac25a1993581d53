"""Replies: any chunking gives the same, sloppy servers are borne, memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.smtp.replies import MAX_REPLY_LINE, MAX_REPLY_LINES, Reply, ReplyReader

LINES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x17F, exclude_characters="\x85\x7f"),
    min_size=1,
    max_size=20,
).filter(lambda line: not line[0].isdigit() and line.isprintable())
REPLIES = st.builds(
    lambda code, enhanced, lines: Reply(
        code, f"{code // 100}.1.5" if enhanced and code // 100 != 3 else "", "\n".join(lines)
    ),
    st.sampled_from([220, 250, 354, 421, 452, 550, 599]),
    st.booleans(),
    st.lists(LINES, min_size=1, max_size=4),
)


def read(*chunks: bytes) -> list[Reply]:
    """Return what a reader makes of the chunks."""
    reader = ReplyReader()
    return [reply for chunk in chunks for reply in reader.feed(chunk)]


class ReplyReaderTests(SynchronousTestCase):
    """ReplyReader."""

    @given(st.lists(REPLIES, max_size=4), st.data())
    def test_any_chunking(self, replies: list[Reply], data: st.DataObject) -> None:
        """What was written is read, however it is cut, and nothing is left over."""
        octets = b"".join(reply.encode() for reply in replies)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
        reader = ReplyReader()
        found = []
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            found += reader.feed(octets[start:end])
        self.assertEqual(found, replies)
        self.assertTrue(reader.idle)

    @given(st.lists(st.binary(max_size=30) | st.sampled_from([b"250 ", b"250-", b"\r\n"])))
    def test_only_remote_fault(self, chunks: list[bytes]) -> None:
        """Whatever comes, it is a reply, nothing yet, or the peer's fault."""
        try:
            for reply in read(*chunks):
                self.assertTrue(200 <= reply.code < 600)
        except RemoteFault as fault:
            self.assertTrue(str(fault).isprintable())

    def test_sloppy(self) -> None:
        """Bare LF, no text, other codes before the last: borne."""
        self.assertEqual(read(b"250\r\n"), [Reply(250, "", "")])
        self.assertEqual(read(b"250 ok\n220 hi\n"), [Reply(250, "", "ok"), Reply(220, "", "hi")])
        self.assertEqual(read(b"550-one\r\n250 two\r\n"), [Reply(250, "", "one\ntwo")])

    def test_strangers_text(self) -> None:
        """Control characters and what is no UTF-8 do not come through."""
        (reply,) = read(b"550 5.1.1 a\x1b[31m\xff\r\n")
        self.assertEqual((reply.enhanced, reply.text), ("5.1.1", "a?[31m\ufffd"))

    def test_enhanced_of_another_class(self) -> None:
        """An enhanced code that contradicts the code is text."""
        self.assertEqual(read(b"550 2.1.5 what\r\n"), [Reply(550, "", "2.1.5 what")])

    def test_no_reply(self) -> None:
        """What begins with no code, or with one that there is not, is refused."""
        for line in (b"hello\r\n", b"25\r\n", b"25x ok\r\n", b"250+ok\r\n", b"\r\n"):
            self.assertRaisesRegex(RemoteFault, "not an SMTP reply", read, line)
        for line in (b"199 ok\r\n", b"600 ok\r\n", b"000 ok\r\n"):
            self.assertRaisesRegex(RemoteFault, "no such reply code", read, line)

    def test_bounds(self) -> None:
        """Endless lines and endless replies end, whether or not they come whole."""
        line = b"250 " + b"x" * (MAX_REPLY_LINE - 4)
        self.assertEqual(len(read(line + b"\r\n")), 1)
        self.assertRaisesRegex(RemoteFault, "too long", read, line + b"x\r\n")
        self.assertRaisesRegex(RemoteFault, "too long", read, line, b"xxxx")
        many = b"250-x\r\n" * (MAX_REPLY_LINES - 1)
        self.assertEqual(len(read(many + b"250 x\r\n")), 1)
        self.assertRaisesRegex(RemoteFault, "too many lines", read, many + b"250-x\r\n")

    def test_idle(self) -> None:
        """Half a line and half a reply are waiting for the rest."""
        for octets, idle in ((b"", True), (b"25", False), (b"250-a\r\n", False)):
            reader = ReplyReader()
            reader.feed(octets)
            self.assertEqual(reader.idle, idle)

    def test_for_logs(self) -> None:
        """In a log a reply is one line."""
        self.assertEqual(str(Reply(250, "2.0.0", "one\ntwo")), "250 2.0.0 one two")
        self.assertEqual(str(Reply(220, "", "hi")), "220 hi")
