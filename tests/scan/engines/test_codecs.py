"""What all codecs of engines promise: any cut, the same events; any octets, RemoteFault only."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.engines import checkv2, clamd, packets, respmod, spamc
from mailsecure.scan.engines.heads import Answer, AnswerReader, ChunkedBody
from mailsecure.scan.engines.section import HeaderSection

CUTS = st.lists(st.integers(1, 40), min_size=1, max_size=30)

HTTP = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"
)
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Folded: a\r\n b\r\n\r\nhello"
CLAMD = b"1: stream: OK\x002: stream: Eicar FOUND\0PONG\0"
ICAP = (
    b"ICAP/1.0 100 Continue\r\n\r\nICAP/1.0 204 No Content\r\nEncapsulated: null-body=0\r\n\r\n"
    b"ICAP/1.0 200 OK\r\nX-Virus-ID: V\r\nEncapsulated: res-hdr=0, res-body=23\r\n\r\n"
    b"HTTP/1.1 403 No way\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
)
MILTER = packets.packet("O", b"x" * 12) + packets.packet("c") + packets.packet("y", b"550 no\0")


class AnswerEvents:
    """An :class:`AnswerReader` in the shape of the others."""

    def __init__(self) -> None:
        self.reader = AnswerReader("HTTP/", 1000)
        self.over = False

    def feed(self, data: bytes) -> list[Any]:
        """Return the answer, once."""
        if self.over:
            return []
        answer = self.reader.feed(data)
        self.over = answer is not None
        return [(answer.head, answer.body)] if answer else []


class ChunkEvents:
    """A :class:`ChunkedBody` in the shape of the others; content octet by octet."""

    def __init__(self) -> None:
        self.body = ChunkedBody()

    def feed(self, data: bytes) -> list[Any]:
        """Return the octets."""
        return [] if self.body.done else list(self.body.feed(data))


READERS: Sequence[tuple[Callable[[], Any], bytes, int]] = (
    (AnswerEvents, HTTP, 1),
    (AnswerEvents, SIZED, 1),
    (ChunkEvents, HTTP.partition(b"\r\n\r\n")[2], 6),
    (clamd.Replies, CLAMD, 3),
    (respmod.Answers, ICAP, 3),
    (packets.Packets, MILTER, 3),
)


def pieces(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    """Return ``octets`` in pieces of those sizes, over and over."""
    found, at, turn = [], 0, 0
    while at < len(octets):
        size = cuts[turn % len(cuts)]
        found.append(octets[at : at + size])
        at += size
        turn += 1
    return found


class CodecTests(SynchronousTestCase):
    """Readers, fed good and bad octets."""

    @given(CUTS)
    @example([1])
    def test_any_cut(self, cuts: list[int]) -> None:
        """However the octets come, the events are the same, and as many as there should be."""
        for make, octets, count in READERS:
            reader, whole = make(), make().feed(octets)
            self.assertEqual(len(whole), count)
            cut = [event for piece in pieces(octets, cuts) for event in reader.feed(piece)]
            self.assertEqual(cut, whole)

    @given(st.binary(max_size=300), CUTS, st.integers(0, 200))
    def test_any_octets(self, noise: bytes, cuts: list[int], at: int) -> None:
        """Noise, alone and within what is right, is a RemoteFault or nothing."""
        for make, octets, _ in READERS:
            for text in (noise, octets[:at] + noise + octets[at:]):
                reader = make()
                try:
                    for piece in pieces(text, cuts):
                        reader.feed(piece)
                except RemoteFault:
                    pass

    @given(st.integers(0, 200), st.binary(min_size=1, max_size=4))
    def test_any_change(self, at: int, change: bytes) -> None:
        """So are a few octets that were changed."""
        for make, octets, _ in READERS:
            with contextlib.suppress(RemoteFault):
                make().feed(octets[:at] + change + octets[at + len(change) :])

    @given(st.binary(max_size=400))
    def test_any_answer(self, body: bytes) -> None:
        """What whole answers mean, too, is a RemoteFault or a meaning."""
        for octets in (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
            b"SPAMD/1.1 0 EX_OK\r\nSpam: "
            + body.replace(b"\n", b"").replace(b"\r", b"")
            + b"\r\n\r\n",
        ):
            for mean in (checkv2.opinion, checkv2.pong, spamc.opinion, spamc.pong):
                try:
                    reader = AnswerReader("", 1000)
                    mean(reader.feed(octets) or reader.end())
                except RemoteFault:
                    pass

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=8,
        ),
        st.sampled_from(["score", "action", "symbols", "messages", "milter", "subject"]),
        st.sampled_from(["", "add_headers", "remove_headers", "smtp_message", "X"]),
    )
    def test_any_json(self, value: Any, key: str, inner: str) -> None:
        """JSON of any shape in any place of Rspamd's answer."""
        whole: dict[str, Any] = {"score": 1, "action": "no action"}
        whole[key] = {inner: value} if inner else value
        body = json.dumps(whole).encode()
        octets = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        answer = AnswerReader("HTTP/", 1 << 20).feed(octets)
        assert isinstance(answer, Answer)
        try:
            opinion = checkv2.opinion(answer)
        except RemoteFault:
            return
        for edit in (*opinion.edits, *opinion.subject):
            text = getattr(edit, "value", "")
            self.assertRegex(edit.name, r"\A[!-9;-~]{1,70}\Z")
            self.assertNotRegex(text, r"\r(?!\n)|(?<!\r)\n|\r\n(?![ \t])|[^\t\r\n -~]")

    @given(st.text(max_size=200), st.sampled_from(["", "*", "Heuristics.*"]))
    def test_any_outcome(self, text: str, pattern: str) -> None:
        """clamd's replies."""
        for reply in (text, f"stream: {text} FOUND", f"{text} ERROR", f"{text}: OK"):
            with contextlib.suppress(RemoteFault):
                clamd.outcome(reply, [pattern])

    @given(st.sampled_from("himqycatdrsfbpO"), st.binary(max_size=60))
    def test_any_packet(self, command: str, data: bytes) -> None:
        """A filter's packets."""
        packet = packets.Packet(command, data)
        for mean in (
            packets.decision,
            packets.negotiated,
            lambda each: packets.edits(each, {"subject": 2}),
        ):
            with contextlib.suppress(RemoteFault):
                mean(packet)

    @given(st.binary(max_size=300), CUTS)
    def test_any_message(self, message: bytes, cuts: list[int]) -> None:
        """Any message has a header section, the same however it comes, and nothing is lost."""
        self.check_header(message, cuts)

    @given(
        st.lists(st.sampled_from([b"A: b", b"\r\n", b" fold", b"\n", b":", b"no field", b"\0"])),
        CUTS,
    )
    def test_any_header(self, parts: list[bytes], cuts: list[int]) -> None:
        """So has what looks like one."""
        self.check_header(b"".join(parts), cuts)

    def check_header(self, message: bytes, cuts: list[int]) -> None:
        whole, cut = HeaderSection(), HeaderSection()
        if not whole.feed(message):
            whole.end()
        rest = b""
        for piece in pieces(message, cuts):
            if cut.done:
                rest += piece
            else:
                cut.feed(piece)
        cut.end()
        self.assertEqual((cut.fields, cut.rest + rest), (whole.fields, whole.rest))
        kept = sum(
            len(name) + len(value.encode("utf-8", "surrogateescape"))
            for name, value in whole.fields
        )
        self.assertLessEqual(kept + len(whole.rest), len(message))
