"""What the octets of each engine mean, one by one."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailsecure.errors import RemoteFault
from mailsecure.scan.engines import checkv2, clamd, fields, packets, respmod, spamc
from mailsecure.scan.engines.clamd import Outcome, Reply, Sort
from mailsecure.scan.engines.heads import (
    MAX_HEAD,
    MAX_TRAILER_LINES,
    Answer,
    AnswerReader,
    ChunkedBody,
    Head,
    HeadReader,
    OpenBody,
    SizedBody,
)
from mailsecure.scan.engines.packets import Decision, Packet, Steps, Word
from mailsecure.scan.engines.section import HeaderSection
from mailsecure.scan.values import AddField, RemoveField

PATTERNS = ["Heuristics.*", "PUA.*"]


def answer(octets: bytes, protocol: str = "") -> Answer:
    """Return the answer that ``octets`` are, the connection closed behind them."""
    reader = AnswerReader(protocol, 1 << 16)
    return reader.feed(octets) or reader.end()


class HeadTests(SynchronousTestCase):
    """Status lines, fields, bodies."""

    def test_head(self) -> None:
        """Names in lower case, the first of several, folded lines."""
        reader = HeadReader()
        head = reader.feed(b"ICAP/1.0 204\r\nA: 1\r\na:2\r\nX-Y :a\r\n\tb\r\n\r\nrest")
        assert head is not None
        self.assertEqual((head.protocol, head.code, head.reason), ("ICAP/1.0", 204, ""))
        self.assertEqual((head.get("a"), head.get("x-y"), head.get("z")), ("1", "a\nb", ""))
        self.assertEqual(reader.rest, b"rest")

    def test_no_head(self) -> None:
        """What is none, and what has no end."""
        for octets in (
            b"hello\r\n\r\n",
            b"HTTP/1.1 200\r\n fold\r\n\r\n",
            b"HTTP/1.1 200\r\nx\r\n\r\n",
        ):
            self.assertRaises(RemoteFault, HeadReader().feed, octets)
        self.assertRaises(RemoteFault, HeadReader().feed, b"x" * (MAX_HEAD + 1))
        self.assertRaises(RemoteFault, HeadReader(10).feed, b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertRaises(RemoteFault, HeadReader().end)

    def test_bodies(self) -> None:
        """Each kind knows its end, and what is too early."""
        sized = SizedBody(3)
        self.assertRaises(RemoteFault, sized.end)
        self.assertEqual((sized.feed(b"abcd"), sized.done, sized.rest), (b"abc", True, b"d"))
        sized.end()
        chunked = ChunkedBody()
        self.assertRaises(RemoteFault, chunked.end)
        self.assertEqual(chunked.feed(b"2\r\nab\r\n0\r\n\r\nrest"), b"ab")
        self.assertEqual((chunked.done, chunked.rest), (True, b"rest"))
        chunked.end()
        body = OpenBody()
        self.assertEqual(body.feed(b"x"), b"x")
        body.end()
        self.assertTrue(body.done)

    def test_bad_chunks(self) -> None:
        """Sizes that are none, chunks that do not end, lines and trailers without end."""
        for octets in (
            b"x\r\n",
            b"123456789\r\n",
            b"1\r\nabc",
            b"f" * 5000,
            b"0\r\n" + b"x: y\r\n" * (MAX_TRAILER_LINES + 1),
        ):
            self.assertRaises(RemoteFault, ChunkedBody().feed, octets)

    def test_answers(self) -> None:
        """Whole by their length, by their chunks, by the end of the connection."""
        whole = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        self.assertEqual((whole.body, whole.lasting), (b"ab", True))
        whole = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.assertEqual((whole.body, whole.lasting), (b"", True))
        whole = answer(b"HTTP/1.1 200 OK\r\n\r\nab")
        self.assertEqual((whole.body, whole.lasting), (b"ab", False))
        for last in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nmore",
            b"HTTP/1.1 200 OK\r\n",
        ):
            self.assertFalse(answer(last).lasting)

    def test_bad_answers(self) -> None:
        """Other protocols, wrong lengths, too large, too short."""
        for octets in (
            b"SPAMD/1.1 0 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort",
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 70000,
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n",
            b"",
        ):
            self.assertRaises(RemoteFault, answer, octets, "HTTP/")


class ClamdTests(SynchronousTestCase):
    """clamd's replies."""

    def test_outcomes(self) -> None:
        """One of each sort."""
        for text, outcome in (
            ("stream: OK", Outcome(Sort.CLEAN)),
            ("stream: Eicar-Test FOUND", Outcome(Sort.MALWARE, "Eicar-Test")),
            (f"stream: Eicar({'0a' * 16}:68) FOUND", Outcome(Sort.MALWARE, "Eicar")),
            ("instream(1.2.3.4@5): A B FOUND", Outcome(Sort.MALWARE, "A B")),
            ("stream: PUA.Win.X FOUND", Outcome(Sort.SUSPICIOUS, "PUA.Win.X")),
            ("stream: Heuristics.Phish FOUND", Outcome(Sort.SUSPICIOUS, "Heuristics.Phish")),
            (
                "stream: Heuristics.Encrypted.Zip FOUND",
                Outcome(Sort.ENCRYPTED, "Heuristics.Encrypted.Zip"),
            ),
            (
                "stream: Heuristics.Limits.Exceeded.MaxFiles FOUND",
                Outcome(Sort.LIMITS, "Heuristics.Limits.Exceeded.MaxFiles"),
            ),
            (
                "stream: Can't allocate memory ERROR",
                Outcome(Sort.ERROR, "stream: Can't allocate memory ERROR"),
            ),
        ):
            self.assertEqual(clamd.outcome(text, PATTERNS), outcome)
        limit = clamd.outcome("INSTREAM size limit exceeded. ERROR", PATTERNS)
        self.assertIs(limit.sort, Sort.LIMITS)
        self.assertRaises(RemoteFault, clamd.outcome, "stream: whatever", PATTERNS)

    def test_replies(self) -> None:
        """With and without a number; unprintable octets; a reply without end."""
        replies = clamd.Replies().feed(b"PONG\0" + b"7: stream: \x1b[2J\xff FOUND\n\0")
        self.assertEqual(replies, [Reply(0, "PONG"), Reply(7, "stream: ?[2J? FOUND")])
        self.assertRaises(RemoteFault, clamd.Replies().feed, b"x" * 5000)

    def test_chunk(self) -> None:
        """Length first."""
        self.assertEqual(clamd.chunk(b"abc"), b"\0\0\0\3abc")


class SpamcTests(SynchronousTestCase):
    """spamd's answers."""

    def test_question(self) -> None:
        """With and without a user."""
        self.assertEqual(
            spamc.question(5, "joe"),
            b"SYMBOLS SPAMC/1.5\r\nContent-length: 5\r\nUser: joe\r\n\r\n",
        )
        self.assertNotIn(b"User", spamc.question(5))

    def test_opinion(self) -> None:
        """The score, below zero as well, and rules that are names."""
        found = spamc.opinion(
            answer(b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -1.5 / 5.0\r\n\r\nA,B_2, \r\n,<b>\r\n")
        )
        self.assertEqual(found, spamc.Opinion(-1.5, ("A", "B_2")))

    def test_faults(self) -> None:
        """Errors, and no score."""
        for octets in (
            b"SPAMD/1.1 76 Bad header line\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\n\r\n",
            b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
        ):
            self.assertRaises(RemoteFault, spamc.opinion, answer(octets))

    def test_pong(self) -> None:
        """A status line is all it says."""
        spamc.pong(answer(b"SPAMD/1.5 0 PONG\r\n"))
        self.assertRaises(RemoteFault, spamc.pong, answer(b"SPAMD/1.5 0 EX_OK\r\n"))


class CheckV2Tests(SynchronousTestCase):
    """Rspamd's JSON."""

    def opinion(self, **value: Any) -> checkv2.Opinion:
        body = json.dumps({"action": "no action", "score": 0} | value).encode()
        return checkv2.opinion(Answer(Head("HTTP/1.1", 200, "OK", ()), body, False))

    def test_question(self) -> None:
        """Fields with a value, one Rcpt each, none of them breaking out."""
        facts = (("IP", "192.0.2.1"), ("Helo", "a\r\nPassword: x"), ("Hostname", ""))
        octets = checkv2.question("h:1", "/checkv2", 7, facts, ["é@us.test", "b@us.test"])
        self.assertEqual(
            octets,
            b"POST /checkv2 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 7\r\nIP: 192.0.2.1\r\n"
            b"Helo: a?Password: x\r\nRcpt: \xc3\xa9@us.test\r\nRcpt: b@us.test\r\n\r\n",
        )

    def test_many_recipients(self) -> None:
        """The head stays below what Rspamd reads."""
        octets = checkv2.question("h", "/", 0, (), ["x" * 100 + "@us.test"] * 5000)
        self.assertLess(len(octets), 64 << 10)

    def test_opinion(self) -> None:
        """Symbols by weight, the reply in one line."""
        found = self.opinion(
            score=7.5,
            action="Add Header",
            symbols={"A": {"score": 1}, "B": {"score": -3.5}, "C\n": {}, "D": 4},
            messages={"smtp_message": "No\r\n thanks\u00e9", "x": 1},
        )
        self.assertEqual((found.score, found.action), (7.5, "add header"))
        self.assertEqual(found.symbols, (("B", -3.5), ("A", 1.0), ("C", 0.0)))
        self.assertEqual(found.reply, "No thanks?")

    def test_edits(self) -> None:
        """All shapes that its modules use; what could break out of a field is left out."""
        found = self.opinion(
            milter={
                "remove_headers": {"A": 0, "B": [1, 2], "C": -1, "D": "x", "": 0, "E": True},
                "add_headers": {
                    "F": "plain",
                    "G": {"value": "fold\n\tmore", "order": 1},
                    "H": [{"value": "one"}, "two", 3, {"x": 1}],
                    "I": "a\r\nEvil: b",
                    "J: K": "x",
                },
            }
        )
        self.assertEqual(
            found.edits,
            (
                *(RemoveField("A", 0), RemoveField("B", 1), RemoveField("B", 2)),
                *(AddField("F", "plain"), AddField("G", "fold\r\n\tmore")),
                *(AddField("H", "one"), AddField("H", "two")),
            ),
        )

    def test_bounds(self) -> None:
        """Not without end."""
        found = self.opinion(
            milter={"add_headers": {f"X{n}": ["v"] * 200 for n in range(200)}}, score=1e300
        )
        self.assertEqual(len(found.edits), fields.MAX_FIELDS)
        self.assertEqual(found.score, 1e6)

    def test_subject(self) -> None:
        """In ASCII as it is, else encoded; one that cannot be encoded is left out."""
        self.assertEqual(
            self.opinion(subject="[SPAM] hi\r\nX: y").subject,
            (RemoveField("Subject"), AddField("Subject", "[SPAM] hi X: y")),
        )
        (_, edit) = self.opinion(subject="[SPAM] grün").subject
        self.assertEqual(edit, AddField("Subject", "=?utf-8?q?=5BSPAM=5D_gr=C3=BCn?="))
        self.assertEqual(self.opinion(subject="\ud800").subject, ())
        self.assertEqual(self.opinion(subject=5).subject, ())

    def test_odd(self) -> None:
        """Parts of the wrong shape are as if they were not there."""
        found = self.opinion(symbols=[1], messages=[], milter=[], subject=[])
        self.assertEqual((found.symbols, found.reply, found.edits), ((), "", ()))
        found = self.opinion(milter={"add_headers": 1}, messages={"smtp_message": 3})
        self.assertEqual((found.edits, found.reply), ((), ""))

    def test_faults(self) -> None:
        """Errors, no JSON, no action, no score."""
        for octets in (
            b"HTTP/1.1 403 Unauthorized\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\n\r\n{",
            b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60000,
            b"HTTP/1.1 200 OK\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b'HTTP/1.1 200 OK\r\n\r\n{"action": "reject", "score": "x"}',
            b'HTTP/1.1 200 OK\r\n\r\n{"action": "reject", "score": true}',
            b'HTTP/1.1 200 OK\r\n\r\n{"action": "reject", "score": NaN}',
        ):
            self.assertRaises(RemoteFault, checkv2.opinion, answer(octets))

    def test_huge_score(self) -> None:
        """A whole number may be larger than any fraction."""
        for sign, score in (("", 1e6), ("-", -1e6)):
            text = b'{"action": "reject", "score": %b1%b}' % (sign.encode(), b"0" * 400)
            found = checkv2.opinion(answer(b"HTTP/1.1 200 OK\r\n\r\n" + text))
            self.assertEqual(found.score, score)

    def test_pong(self) -> None:
        """200 and the word."""
        checkv2.pong(answer(b"HTTP/1.1 200 OK\r\n\r\npong\r\n"))
        self.assertRaises(RemoteFault, checkv2.pong, answer(b"HTTP/1.1 200 OK\r\n\r\nno"))
        self.assertRaises(RemoteFault, checkv2.pong, answer(b"HTTP/1.1 500 No\r\n\r\npong"))


class FieldTests(SynchronousTestCase):
    """Fields made safe."""

    def test_added(self) -> None:
        """Folded in any way; too long, and what is no field, is none."""
        self.assertEqual(fields.added("X", " a\r\tb\n c "), AddField("X", "a\r\n\tb\r\n c"))
        self.assertEqual(fields.added("X", "a\r\n \r\n b\0é"), AddField("X", "a\r\n b??"))
        self.assertEqual(fields.added("X", ""), AddField("X", ""))
        for name, value in (
            ("X Y", "v"),
            ("X", "a\r\nb"),
            ("X", "x" * 1000),
            ("X", "x\r\n " * 5000),
            ("X" * 71, "v"),
        ):
            self.assertIsNone(fields.added(name, value))


class RespmodTests(SynchronousTestCase):
    """ICAP."""

    def reply(self, octets: bytes) -> respmod.Reply:
        (reply,) = respmod.Answers().feed(octets)
        return reply

    def test_requests(self) -> None:
        """The places of what is encapsulated are right."""
        octets = respmod.respmod("h:1344", "/scan", "ID", 9, 4)
        head, _, inner = octets.partition(b"\r\n\r\n")
        self.assertIn(b"RESPMOD icap://h:1344/scan ICAP/1.0\r\n", head)
        self.assertIn(b"Preview: 4\r\n", head)
        places = head.rpartition(b"Encapsulated: ")[2]
        self.assertEqual(places, b"req-hdr=0, res-hdr=47, res-body=115")
        self.assertTrue(inner[:47].startswith(b"GET http://h:1344/ID HTTP/1.1\r\n"))
        self.assertTrue(inner[47:].startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(len(inner), 115)
        self.assertNotIn(b"Preview", respmod.respmod("h", "/", "ID", 9, None))
        self.assertTrue(respmod.options("h", "/s").startswith(b"OPTIONS icap://h/s ICAP/1.0"))
        self.assertEqual(respmod.chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_service(self) -> None:
        """What OPTIONS tells, and what it leaves out."""
        told = (
            b"ICAP/1.0 200 OK\r\nMethods: RESPMOD, REQMOD\r\nPreview: 99999\r\nOptions-TTL: 7\r\n"
        )
        self.assertEqual(respmod.service(self.reply(told + b"\r\n")), respmod.Service(16384, 7.0))
        told = b"ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nPreview: x\r\nOptions-TTL: y\r\n\r\n"
        self.assertEqual(respmod.service(self.reply(told)), respmod.Service(None, 3600.0))
        for octets in (b"ICAP/1.0 404 No\r\n\r\n", b"ICAP/1.0 200 OK\r\nMethods: REQMOD\r\n\r\n"):
            self.assertRaises(RemoteFault, respmod.service, self.reply(octets))

    def test_virus(self) -> None:
        """The extensions that servers use."""
        for field, name in (
            (b"X-Infection-Found: Type=0; Resolution=2; Threat=Eicar;", "Eicar"),
            (b"X-Infection-Found: Type=0; Threat=;", "infected"),
            (b"X-Infection-Found: odd", "odd"),
            (b"X-Virus-ID: V\x1b", "V"),
            (b"X-Violations-Found: 1\r\n\tmail\r\n\tEicar\r\n\t0\r\n\t0", "Eicar"),
            (b"X-Violations-Found: 1", "infected"),
            (b"X-Violations-Found: 0", ""),
            (b"X-Blocked-Reason: policy", "policy"),
            (b"X-Blocked: yes", "yes"),
            (b"X: y", ""),
        ):
            reply = self.reply(b"ICAP/1.0 200 OK\r\n" + field + b"\r\n\r\n")
            self.assertEqual(respmod.virus(reply), name)

    def test_content(self) -> None:
        """The status and the content that the server would have instead."""
        reply = self.reply(
            b"ICAP/1.0 200 OK\r\nConnection: close\r\nEncapsulated: res-hdr=0, res-body=21\r\n\r\n"
            b"HTTP/1.1 403 No\r\n\r\n\r\n2\r\nab\r\n0\r\n\r\n"
        )
        self.assertEqual((reply.status, reply.octets, reply.lasting), (403, 2, False))
        reply = self.reply(b"ICAP/1.0 200 OK\r\nEncapsulated: opt-body=0\r\n\r\n0\r\n\r\n")
        self.assertEqual((reply.status, reply.octets, reply.lasting), (0, 0, True))
        reply = self.reply(b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, null-body=4\r\n\r\nodd\n")
        self.assertEqual((reply.status, reply.octets), (0, 0))

    def test_faults(self) -> None:
        """Other protocols, and heads without end."""
        for octets in (
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"ICAP/1.0 200 OK\r\nEncapsulated: res-hdr=0, res-body=99999\r\n\r\n",
        ):
            self.assertRaises(RemoteFault, respmod.Answers().feed, octets)


class PacketTests(SynchronousTestCase):
    """The milter protocol."""

    def test_octets(self) -> None:
        """What is sent."""
        self.assertEqual(
            packets.negotiation(), b"\0\0\0\x0dO\0\0\0\x06\0\0\0\x31" + b"\x00\x1f\xf7\xff"
        )
        self.assertEqual(
            packets.connection("h", "192.0.2.1", 25), b"\0\0\0\x10Ch\x004\x00\x19192.0.2.1\0"
        )
        self.assertIn(b"h\x006\x00\x192001:db8::1\0", packets.connection("h", "2001:db8::1", 25))
        self.assertEqual(packets.macros("M", (("i", "1"), ("x", ""))), b"\0\0\0\6DMi\x001\0")
        self.assertEqual(packets.macros("M", (("x", ""),)), b"")
        self.assertEqual(packets.strings("a\0b", "c"), b"ab\0c\0")

    def negotiated(self, *words: int, command: str = "O") -> packets.Negotiated:
        data = b"".join(word.to_bytes(4, "big") for word in words)
        return packets.negotiated(Packet(command, data))

    def test_negotiated(self) -> None:
        """The steps that both know; versions that cannot be spoken."""
        found = self.negotiated(6, 0x1FF, 0x80000001 | Steps.SKIP)
        self.assertEqual(found, packets.Negotiated(6, Steps.SKIP | Steps.NO_CONNECT))
        self.assertRaises(RemoteFault, self.negotiated, 7, 0, 0)
        self.assertRaises(RemoteFault, self.negotiated, 1, 0, 0)
        self.assertRaises(RemoteFault, self.negotiated, 6, 0)
        self.assertRaises(RemoteFault, self.negotiated, 6, 0, 0, command="c")

    def test_decisions(self) -> None:
        """One letter, or a reply."""
        for letter, word in (("c", Word.GO_ON), ("s", Word.SKIP), ("f", Word.FAILED)):
            self.assertEqual(packets.decision(Packet(letter)), Decision(word))
        for text, decision in (
            (b"550 5.7.1 No 100%% way\0", Decision(Word.REJECT, "5.7.1 No 100% way")),
            (b"451 Later\0", Decision(Word.TEMPFAIL, "Later")),
            (b"550-5.7.1 One\r\n550 5.7.1 Two\0", Decision(Word.REJECT, "5.7.1 One")),
            (b"550 5.7.1 \0", Decision(Word.REJECT, "")),
        ):
            self.assertEqual(packets.decision(Packet("y", text)), decision)
        self.assertIsNone(packets.decision(Packet("h")))
        self.assertRaises(RemoteFault, packets.decision, Packet("y", b"250 fine\0"))

    def test_edits(self) -> None:
        """Adding, inserting, changing, deleting; by the rules of smfi_chgheader."""
        count = {"subject": 1}

        def edits(command: str, data: bytes) -> Any:
            return packets.edits(Packet(command, data), count)

        self.assertEqual(edits("h", b"X\0a\n\tb\0"), (AddField("X", "a\r\n\tb"),))
        self.assertEqual(edits("i", b"\0\0\0\1X\0v\0"), (AddField("X", "v"),))
        change = (RemoveField("Subject", 1), AddField("Subject", "v"))
        self.assertEqual(edits("m", b"\0\0\0\1Subject\0v\0"), change)
        self.assertEqual(edits("m", b"\0\0\0\0Subject\0v\0"), change)
        self.assertEqual(edits("m", b"\0\0\0\2Subject\0v\0"), (AddField("Subject", "v"),))
        self.assertEqual(edits("m", b"\0\0\0\1Subject\0\0"), (RemoveField("Subject", 1),))
        self.assertEqual(edits("m", b"\0\0\0\1Other\0\0"), ())
        self.assertEqual(edits("m", b"\0\0\0\1Bad name\0v\0"), ())
        self.assertEqual(edits("h", b"X\0a\r\nEvil: b\0"), ())
        self.assertIsNone(edits("b", b"body"))
        for command, data in (("i", b"\0\0"), ("h", b"X\0v"), ("h", b"X\0v\0w\0")):
            self.assertRaises(RemoteFault, edits, command, data)

    def test_bad_packets(self) -> None:
        """Empty and enormous ones."""
        for octets in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
            self.assertRaises(RemoteFault, packets.Packets().feed, octets)

    def header(self, *parts: bytes) -> HeaderSection:
        section = HeaderSection()
        for part in parts:
            if section.feed(part):
                return section
        section.end()
        section.end()
        return section

    def test_header(self) -> None:
        """Fields with their folds, then the body."""
        found = self.header(b"A: b\r\n c\r\nB:\xff\r\n\r\nbody")
        self.assertEqual(found.fields, [("A", " b\n c"), ("B", "\udcff")])
        self.assertEqual(packets.strings(found.fields[1][1]), b"\xff\0")
        self.assertEqual(found.rest, b"body")

    def test_no_header(self) -> None:
        """No fields, no body, a line that is no field."""
        self.assertEqual(self.header(b"\r\nbody").rest, b"body")
        self.assertEqual(self.header(b"A: b", b"\r\n").fields, [("A", " b")])
        self.assertEqual(self.header(b"A: b").fields, [("A", " b")])
        found = self.header(b"A: b\r\nodd\r\nC: d\r\n\r\nbody")
        self.assertEqual(found.fields, [("A", " b")])
        self.assertEqual(found.rest, b"odd\r\nC: d\r\n\r\nbody")
        self.assertEqual(self.header(b"A: b\r\nodd").rest, b"odd")
        for octets in (b"A: b\r\n" * 50000, b"A: b\r\n" * 1001 + b"\r\n"):
            self.assertRaises(RemoteFault, HeaderSection().feed, octets)
