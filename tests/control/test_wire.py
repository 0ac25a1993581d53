"""Proves that the control protocol takes any octets and says what is wrong with them."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsecure.control.wire import (
    Kind,
    LineReader,
    Refusal,
    decode_answer,
    decode_request,
    encode,
    encode_request,
    refused,
)
from mailsecure.errors import RemoteFault

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


class RequestTests(SynchronousTestCase):
    """:func:`encode_request` and :func:`decode_request`."""

    @given(st.text(), st.dictionaries(st.text(), JSON))
    def test_agree(self, request, arguments):
        line = encode_request(request, arguments)
        self.assertEqual(line.count(b"\n"), 1)
        self.assertEqual(decode_request(line[:-1]), (request, arguments))

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_anything_else_is_refused(self, line):
        refusal = self.assertRaises(Refusal, decode_request, line)
        self.assertEqual(refusal.kind, Kind.PROTOCOL)

    def test_what_is_said(self):
        for line, said in (
            (b"GET / HTTP/1.1", "no line of JSON"),
            (b"[" * 100_000, "no line of JSON"),
            (b"[]", "no JSON object"),
            (b'{"version": 2}', "speaks version 1"),
            (b'{"version": 1}', "are missing"),
            (b'{"version": 1, "request": "x", "arguments": []}', "are missing"),
        ):
            self.assertIn(said, str(self.assertRaises(Refusal, decode_request, line)))

    def test_another_encoding(self):
        """What a terminal of Latin-1 sends is refused in words, and reaches no database."""
        for text in (b"\xfcber".decode("utf-8", "surrogateescape"), "\ud800"):
            for arguments in ({"subject": text}, {"recipients": [text]}, {text: 1}):
                line = encode_request("trace", arguments)
                refusal = self.assertRaises(Refusal, decode_request, line)
                self.assertEqual(refusal.kind, Kind.USAGE)
                self.assertIn("not in UTF-8", str(refusal))


class AnswerTests(SynchronousTestCase):
    """:func:`decode_answer`."""

    def test_lines(self):
        self.assertEqual(decode_answer(encode({"item": {"a": 1}})), ("item", {"a": 1}))
        self.assertEqual(decode_answer(encode({"done": {}})), ("done", {}))

    def test_a_refusal_comes_back_as_it_was(self):
        for kind in Kind:
            line = encode(refused(Refusal(kind, "why", ("a", "b"))))
            refusal = self.assertRaises(Refusal, decode_answer, line)
            self.assertEqual(
                (refusal.kind, str(refusal), refusal.details), (kind, "why", ("a", "b"))
            )
            self.assertIn(refusal.kind.exit_code, range(64, 79))

    def test_a_refusal_of_another_version(self):
        refusal = self.assertRaises(
            Refusal, decode_answer, b'{"refused": {"kind": "new", "details": 1}}'
        )
        self.assertEqual((refusal.kind, refusal.details), (Kind.INTERNAL, ()))

    @given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
    def test_anything_else_is_a_fault(self, line):
        self.assertRaises(RemoteFault, decode_answer, line)


class LineReaderTests(SynchronousTestCase):
    """:class:`LineReader`."""

    @given(st.binary(max_size=40), st.binary(max_size=40), st.lists(st.integers(0, 80)))
    def test_any_chunking_gives_the_same_line(self, before, after, cuts):
        octets = before + b"\n" + after
        line = octets.partition(b"\n")[0]
        reader = LineReader()
        edges = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
        chunks = [octets[start:end] for start, end in pairwise(edges)]
        found = [each for each in map(reader.feed, chunks) if each is not None]
        self.assertEqual(found, [line])

    def test_too_long(self):
        reader = LineReader(10)
        self.assertIs(reader.feed(b"123456789"), None)
        self.assertRaises(Refusal, reader.feed, b"0")
        self.assertIs(reader.feed(b"\n"), None)
        self.assertEqual(LineReader(10).feed(b"123456789\n"), b"123456789")
